"""The Python face: what importing it costs, and that it does what the commands do."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import jmrec
from jmrec.config import load_config, override_words
from jmrec.data.toyshop import ToyShopConfig, write_toyshop
from jmrec.evaluation.protocol import Prefixes
from jmrec.evaluation.rankers.ease import ease_grid
from jmrec.evaluation.rankers.known import Known
from jmrec.evaluation.rankers.popularity import popularity_grid
from jmrec.main import main
from jmrec.systems.data import RunData
from jmrec.xla import FAULTY, FLAG

ROOT = Path(__file__).resolve().parents[2]
SPEC = "session:data=folder,size=tiny,encoder=gru4rec"
FEW = {
    "student.train.steps": 8, "student.train.eval_every": 4, "student.train.batch_size": 8,
    "student.stack.width": 16, "seeds": (0,),
}  # fmt: skip
SESSION = ["t0003", "t0001"]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("face") / "shop"
    write_toyshop(folder, ToyShopConfig(seed=3, items=60, sessions=200))
    (folder / "truth.npz").unlink()
    return folder


@pytest.fixture(scope="module")
def settings(shop: Path) -> dict[str, Any]:
    return {**FEW, "data.dir": shop}


@pytest.fixture(scope="module")
def finished(shop: Path, settings: dict[str, Any]) -> jmrec.Run:
    """A run from Python: prepared first, then stopped by SIGTERM in the midst, then run again."""
    folder, out = shop.parent / "face", io.StringIO()
    dataset = jmrec.prepare(SPEC, folder, settings, quiet=True)
    assert repr(dataset).startswith("Dataset('toyshop': 60 items; sessions: 160 train, ")
    assert not (folder / "students").exists()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunData, "validate", _stops_at_its_first(RunData.validate))
        with pytest.raises(jmrec.Preempted, match="SIGTERM after 5 updates; the state is saved"):
            jmrec.run(SPEC, folder, settings, quiet=True)
    assert not (folder / "config.json").exists()
    with contextlib.redirect_stdout(out):
        run = jmrec.run(SPEC, folder, settings, quiet=True)
    assert out.getvalue() == ""  # the table is what is returned
    return run


def _stops_at_its_first(validate: Any) -> Any:
    """Return `RunData.validate` of which the evaluation ends in a SIGTERM."""

    def wrapped(*args: Any) -> Any:
        evaluate = validate(*args)

        def stopped(*given: Any) -> Any:
            signal.raise_signal(signal.SIGTERM)
            return evaluate(*given)

        return stopped

    return wrapped


def once_in_a_process(code: str, *words: str, **more: str) -> str:
    env = {**os.environ, "PYTHONPATH": str(ROOT), **more}
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        env=env, capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    return done.stdout


# ---- what it is ----------------------------------------------------------------------------------


def test_importing_it_costs_nothing() -> None:
    code = (
        "import sys, time\n"
        "before, began = set(sys.modules), time.process_time()\n"
        "import jmrec\n"
        "dir(jmrec), jmrec.__version__\n"
        "took = time.process_time() - began\n"
        "print(took, *sorted({each.split('.')[0] for each in set(sys.modules) - before}))\n"
    )
    took, *loaded = once_in_a_process(code).split()
    assert float(took) < 0.2
    assert "jmrec" in loaded
    assert not {"jax", "numpy", "rich", "absl", "flax", "scipy"} & set(loaded)


def test_a_slip_is_answered_before_jax_is_loaded(tmp_path: Path) -> None:
    code = (
        "import sys, jmrec\n"
        "for slip in (lambda: jmrec.open('none'), lambda: jmrec.run('tpda', 'w'),\n"
        "             lambda: jmrec.run('session', 'w', {'sede': 1})):\n"
        "    try:\n"
        "        slip()\n"
        "    except jmrec.UserError as error:\n"
        "        print(error)\n"
        "print('jax' in sys.modules, sorted(__import__('pathlib').Path().iterdir()))\n"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True,
        timeout=300, check=True,
    )  # fmt: skip
    missing, experiment, setting, loaded = done.stdout.splitlines()
    assert missing.startswith("none is no folder")
    assert 'did you mean "tpad"?' in experiment
    assert 'did you mean "seed"' in setting
    assert loaded == "False []"


def test_what_is_said_to_be_public_is_there_without_an_import_of_its_own() -> None:
    code = "import jmrec; print(jmrec.serving.load.__name__, jmrec.losses.info_nce.__name__)"
    assert once_in_a_process(code, PYTHONWARNINGS="error::RuntimeWarning").split() == [
        "load", "info_nce",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "call",
    [
        "jmrec.losses",
        "jmrec.prepare('session:size=tiny', sys.argv[1], "
        "{'data.toyshop.n_items': 60, 'data.toyshop.sessions': 100})",
    ],
)
def test_the_flag_of_xla_is_set_in_time(tmp_path: Path, call: str) -> None:
    code = f"import os, sys, jmrec; {call}; print(os.environ.get('XLA_FLAGS', ''))"
    warn = "error::RuntimeWarning"
    flags = once_in_a_process(code, str(tmp_path / "run"), XLA_FLAGS="", PYTHONWARNINGS=warn)
    assert (FLAG in flags) == (version("jaxlib") in FAULTY)


# ---- as the commands -----------------------------------------------------------------------------


def test_a_run_is_that_of_the_command_in_every_byte(
    finished: jmrec.Run, shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = shop.parent / "command"
    words = [
        "--config.student.train.steps=8", "--config.student.train.eval_every=4",
        "--config.seeds=(0,)", f"--config.data.dir={shop}", "--overrides", str(shop / "few.yaml"),
    ]  # fmt: skip
    (shop / "few.yaml").write_text("student: {train: {batch_size: 8}, stack.width: 16}")
    assert main(["run", "--config", SPEC, *words, "--workdir", str(command)]) == 0
    name = "evaluate/results.json"
    assert (finished.workdir / name).read_bytes() == (command / name).read_bytes()
    mine, theirs = (
        json.loads((f / "config.json").read_text()) for f in (finished.workdir, command)
    )
    given, from_file = mine.pop("given"), theirs.pop("given")
    assert theirs == mine
    assert given == {"experiment": SPEC, "settings": dict.fromkeys([*FEW, "data.dir"], "override")}
    few = {name for name, source in from_file["settings"].items() if source != "override"}
    assert few == {"student.stack.width", "student.train.batch_size"}
    files = [each / "evaluate/cost.json" for each in (finished.workdir, command)]
    mine, its = (json.loads(each.read_text())["commands"]["run"] for each in files)
    mine = mine.replace(str(finished.workdir), str(command)).replace("[0]", "(0,)")
    assert sorted(mine.split()) == sorted(its.split())
    assert finished.results == json.loads((command / name).read_text())
    assert finished.report.read_text().startswith("<!doctype html")
    out = capsys.readouterr().out
    for row in finished.results["rows"]:
        assert row["name"].split()[0] in finished.table()
        assert row["name"].split()[0] in out


def test_from_python_nothing_is_printed_on_standard_output(
    finished: jmrec.Run, settings: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    again = jmrec.run(SPEC, finished.workdir, settings)
    said = capsys.readouterr()
    assert said.out == ""
    assert "data: done before, skipped" in said.err
    assert repr(again) == f"Run({str(finished.workdir)!r})\n{finished.table()}"
    jmrec.run(SPEC, finished.workdir, settings, quiet=True)
    assert capsys.readouterr() == ("", "")


def test_a_folder_is_what_check_reads(
    shop: Path, finished: jmrec.Run, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = jmrec.load_folder(shop)
    assert main(["data", "check", str(shop), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["split_sessions"]["train"] == len(dataset.splits["train"])
    assert dataset.items.ids == finished.dataset.items.ids
    for split, sessions in finished.dataset.splits.items():
        assert dataset.splits[split].items.tolist() == sessions.items.tolist()


def test_recommendations_are_those_of_the_command_and_of_what_is_exported(
    finished: jmrec.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["recommend", "--workdir", str(finished.workdir), "--items", ",".join(SESSION)]
    for row in (None, "gru4rec", "EASE"):
        capsys.readouterr()
        assert main([*words, "--json", *(["--row", row] if row else [])]) == 0
        assert finished.recommend(SESSION, row=row) == json.loads(capsys.readouterr().out)
    facts = finished.export(tmp_path / "serve", row="gru4rec")
    assert facts["items"] == 60
    from jmrec.serving import load

    served = load(tmp_path / "serve").recommend(SESSION, top=5)
    found = finished.recommend([*SESSION, "gone"], top=5, row="gru4rec")
    assert [each["item_id"] for each in found] == [each["item_id"] for each in served]
    assert found.unknown == ["gone"]


# ---- a ranker of one's own -----------------------------------------------------------------------


class Mine(jmrec.Ranker):
    """Items whose rows are near."""

    def __init__(self) -> None:
        self.name = "near"  # type: ignore[misc]

    def scores(self, prefixes: Prefixes, item_slice: slice) -> np.ndarray:
        return -abs(np.arange(item_slice.start, item_slice.stop) - prefixes.last()[:, None] + 0.25)


def test_an_own_copy_of_a_rule_gets_the_row_of_the_rule_in_every_digit(
    finished: jmrec.Run,
) -> None:
    reads = finished.workdir / "test_reads.jsonl"
    assert len(reads.read_text().splitlines()) == 1
    for grid, name in ((popularity_grid, "popularity"), (ease_grid, "EASE")):
        known = next(row for row in finished.results["rows"] if row["name"] == name)
        settings = known["settings"]
        own = next(
            each for each in grid(Known(finished.dataset))
            if all(settings[k] == v for k, v in getattr(each, "settings").items())  # noqa: B009
        )  # fmt: skip
        judged = finished.evaluate(own, split="test", name="mine")
        for part in ("figures", "interval", "slices", "cold", "bias"):
            assert judged.row[part] == known[part], (name, part)  # type: ignore[literal-required]
    assert len(reads.read_text().splitlines()) == 3
    assert judged.results["test_reads"] == 3
    assert "The test split was read 3 times" in judged.table()


def test_the_best_rule_is_as_the_run_has_it_and_a_copy_of_it_differs_by_nothing(
    finished: jmrec.Run,
) -> None:
    best = finished.results["best_rule"]
    judged = finished.evaluate(Mine(), split="test")
    assert judged.best_rule == next(r for r in finished.results["rows"] if r["name"] == best)
    assert judged.difference["verdict"] == "below"
    from jmrec.systems.serve_rules import evaluated_rule, served_row

    assert best is not None
    system = finished._judge.system
    copy = finished.evaluate(evaluated_rule(system, served_row(system, best)))
    assert copy.row["name"] == f"{best} (yours)"
    assert copy.difference["difference"] == 0
    assert copy.row["figures"] == copy.best_rule["figures"]


def test_on_validation_the_best_rule_is_the_hardest_to_beat_there(
    finished: jmrec.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from jmrec.systems.serve_rules import evaluated_rule, served_row

    system, kinds = finished._judge.system, ("rule", "content", "blend")
    names = [row["name"] for row in finished.results["rows"] if row["kind"] in kinds]
    rules = [evaluated_rule(system, served_row(system, name)) for name in names]
    rows = [finished.evaluate(rule, name="x").row for rule in rules]
    figures = dict(zip(names, (row["figures"]["session"]["MRR@20"] or 0.0 for row in rows)))
    of_test = {**finished.results, "best_rule": "popularity"}
    monkeypatch.setattr("jmrec.systems.judge.results_of", lambda _: of_test)
    judged = jmrec.open(finished.workdir).evaluate(Mine())  # anew: the best rule is kept
    assert judged.best_rule["name"] == max(figures, key=lambda name: figures[name]) != "popularity"


def test_the_difference_is_the_mean_over_sessions_of_what_numpy_counts(
    finished: jmrec.Run,
) -> None:
    asked, dataset = finished.predictions(), finished.dataset
    judged = finished.evaluate(Mine())
    scores = Mine().scores(asked.prefixes, slice(0, 60))
    if dataset.exclude_seen:
        row, item = asked.seen()
        scores[row, item] = -np.inf
    own = scores[np.arange(len(asked)), asked.target]
    ranks = (scores >= own[:, None]).sum(1)
    found = np.where((ranks <= 20) & (own > -np.inf), 1 / ranks, 0)
    early = asked.place <= 20
    means = [found[early & (asked.session == s)].mean() for s in np.unique(asked.session)]
    assert judged.row["figures"]["session"]["MRR@20"] == pytest.approx(np.mean(means), abs=1e-12)
    rule = judged.best_rule["figures"]["session"]["MRR@20"]
    assert rule is not None
    assert judged.difference["difference"] == pytest.approx(np.mean(means) - rule, abs=1e-12)
    low, high = judged.difference["interval"]
    assert low <= np.mean(means) - rule <= high
    # Of each prediction too, and of the sessions that are better than by the rule.
    inside = own > -np.inf
    np.testing.assert_array_equal(judged.ranks[0][inside], ranks[inside])
    assert (judged.ranks[0][~inside] > 60).all()
    apart = found - np.where(judged.rule_ranks[0] <= 20, 1 / judged.rule_ranks[0], 0)
    by = [apart[early & (asked.session == s)].mean() for s in np.unique(asked.session)]
    helped = judged.helped()
    shares = helped["helped"], helped["harmed"]
    assert shares == pytest.approx([np.mean(np.array(by) > 1e-9), np.mean(np.array(by) < -1e-9)])
    assert helped["worse"][0]["places"][0] > helped["worse"][0]["places"][1]
    assert helped["worse"][0]["next"] in helped["items"]


def test_a_bad_ranker_gets_no_advice_to_serve_it(finished: jmrec.Run) -> None:
    asked = finished.predictions()
    right = np.zeros((len(asked), 60))
    right[np.arange(len(asked)), asked.target] = 1
    bad, good, one = (
        " ".join(each.table().split()) for each in (
            finished.evaluate(lambda p, s: np.arange(s.start, s.stop)),
            finished.evaluate(right, name="prophet"), finished.evaluate(right, trained=True),
        )
    )  # fmt: skip
    assert "below the best rule on validation of" in bad
    assert "and a rule that reads items may find more (run.table())" in bad
    assert not [x for x in ("would serve", "jmrec evaluate", "best rule there") if x in bad]
    assert "above the best rule on validation of" in good
    assert 'judge it once on split="test", at the end.' in good
    assert "One seed, so nothing is claimed" in one
    assert repr(asked) == f"Predictions({len(asked)} of {len(set(asked.session))} sessions)"
    assert repr(finished.dataset.items).startswith("Items(60: title, ")


def test_a_ranker_a_function_and_an_array_are_one(finished: jmrec.Run) -> None:
    asked, mine = finished.predictions(), Mine()
    table = mine.scores(asked.prefixes, slice(0, 60))
    rows = [finished.evaluate(each, name="x").row for each in (mine, mine.scores, table)]
    assert rows[0] == rows[1] == rows[2]
    counts = finished.dataset.train_count
    one = finished.evaluate(lambda p, s: counts[s])
    assert one.results == finished.evaluate(lambda p, s: np.tile(counts[s], (len(p), 1))).results
    assert finished.evaluate(mine.scores).row["name"] == "scores"
    assert finished.evaluate(mine, name=3).row["name"] == "3"  # type: ignore[arg-type]
    assert finished.evaluate(lambda *given: mine.scores(*given)).row["name"] == "your own"
    assert rows[0]["cold"]
    of_test = finished.predictions("test")
    judged = finished.evaluate(mine.scores(of_test.prefixes, slice(0, 60)), split="test")
    assert judged.row["figures"] == finished.evaluate(mine, split="test").row["figures"]
    assert not judged.row["cold"]  # validation chooses its offset, and was not scored


def test_what_was_trained_needs_three_seeds(finished: jmrec.Run) -> None:
    one = finished.evaluate(Mine(), trained=True).difference
    assert (one["verdict"], one["reason"]) == ("not told apart", "fewer than 3 seeds: near")
    judged = finished.evaluate([Mine()] * 3, trained=True)
    assert judged.row["seeds"] == 3
    assert judged.difference["verdict"] == "below"
    assert "near" in repr(judged)


def test_the_lines_of_the_readme_run(
    finished: jmrec.Run, shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = (ROOT / "README.md").read_text().split("## From Python\n")[1].split("\n## ")[0]
    assert len(section.splitlines()) <= 25
    lines = [line[4:] for line in section.splitlines() if line.startswith("    ")]
    (tmp_path / "SHOP").symlink_to(shop)
    monkeypatch.chdir(tmp_path)
    asked = []
    # The fixture's run stands for the one of the page, whose settings are judged alone.
    monkeypatch.setattr(jmrec, "run", lambda *given: asked.append(given) or finished)
    space: dict[str, Any] = {}
    exec("\n".join(lines), space)
    assert space["judged"].row["name"] == "newest row"
    spec, _, overrides = asked[0]
    assert load_config(spec, override_words(overrides)).data.dir == "SHOP"
    for name in ("recommend", "export", "report", "evaluate", "table"):
        assert f"run.{name}" in section
        assert hasattr(finished, name)


# ---- what is wrong -------------------------------------------------------------------------------


def _said(call: Any) -> str:
    with pytest.raises(jmrec.UserError) as caught:
        call()
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.endswith((".", "?"))
    return sentence


@pytest.mark.parametrize(
    ("ranker", "says"),
    [
        (lambda p, s: np.zeros((len(p), 3)), "are of shape"),
        (lambda p, s: np.full((len(p), s.stop - s.start), np.nan), "scores item 0 NaN"),
        (lambda p, s: [["a"]], "no array of numbers"),
        (np.zeros((2, 2)), "give an array ("),
        (Mine, "Mine is a class"),
        ("popularity", "a str ranks nothing"),
        ([], "nothing to judge"),
        (type("Half", (), {"scores": None, "name": "half"})(), "Half has scores and no prepare"),
    ],
)
def test_what_can_not_be_judged_is_a_sentence(finished: jmrec.Run, ranker: Any, says: str) -> None:
    assert says in _said(lambda: finished.evaluate(ranker))


def test_an_error_of_their_own_is_theirs(finished: jmrec.Run) -> None:
    def broken(prefixes: Prefixes, item_slice: slice) -> np.ndarray:
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        finished.evaluate(broken)


def test_bad_input_is_a_sentence(
    finished: jmrec.Run, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    assert "nowhere" in _said(lambda: jmrec.load_folder(tmp_path / "nowhere"))
    assert "holds no finished run" in _said(lambda: jmrec.open(tmp_path / "empty"))
    assert "did you mean" in _said(lambda: finished.evaluate(Mine(), split="tset"))
    assert "did you mean" in _said(lambda: finished.recommend(SESSION, row="popularty"))
    assert "did you mean" in _said(lambda: jmrec.models.build("gru4rek", items=3))
    assert "options.step: srgnn has no such option; did you mean 'steps'" in _said(
        lambda: jmrec.models.build("srgnn", items=3, step=1)
    )
    assert "by something" in _said(lambda: jmrec.models.build("sasrec"))
    assert "ranks no items for users" in _said(lambda: finished.recommend_to("u1"))
    assert "did you mean" in _said(lambda: jmrec.run(SPEC, tmp_path / "w", settings, stale="rerum"))
    assert "is no value" in _said(lambda: jmrec.run(SPEC, tmp_path / "w", {"seeds": {1}}))
    for words in ("seed=1", ["--config.seed=1", 2], 5):
        assert "are a dict" in _said(lambda: jmrec.run(SPEC, tmp_path / "w", words))  # noqa: B023
    assert "none.py" in _said(lambda: jmrec.prepare(tmp_path / "none.py", tmp_path / "w"))
    changed = {**settings, "data.window": 7}
    assert "data.window" in _said(lambda: jmrec.run(SPEC, finished.workdir, changed))
    gaussians = "losses_on_gaussians:size=tiny"
    assert "no stage 'data'" in _said(lambda: jmrec.prepare(gaussians, tmp_path / "w", quiet=True))
    for name, value in (("COORDINATOR", "a:1"), ("PROCESSES", "2"), ("PROCESS", "1")):
        monkeypatch.setenv(f"JMREC_{name}", value)
    assert "several processes" in _said(lambda: jmrec.run(SPEC, tmp_path / "v", settings))
    assert not (tmp_path / "v").exists()


def test_what_the_system_refuses_is_a_sentence(tmp_path: Path, settings: dict[str, Any]) -> None:
    (tmp_path / "file").write_text("")
    said = _said(lambda: jmrec.run(SPEC, tmp_path / "file" / "run", settings, quiet=True))
    assert "Not a directory" in said


def test_a_workdir_that_another_process_holds_is_refused(
    finished: jmrec.Run, settings: dict[str, Any], tmp_path: Path
) -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from jmrec.lock import only_writer\n"
        "with only_writer(Path(sys.argv[1]), print):\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    before = (finished.workdir / "test_reads.jsonl").read_bytes()
    with subprocess.Popen(
        [sys.executable, "-c", code, str(finished.workdir)],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as other:  # fmt: skip
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        for call in (
            lambda: jmrec.run(SPEC, finished.workdir, settings, quiet=True),
            lambda: jmrec.prepare(SPEC, finished.workdir, settings, quiet=True),
            lambda: finished.evaluate(Mine(), split="test"),
            lambda: finished.export(tmp_path / "serve"),
        ):
            assert f"process {other.pid}" in _said(call)
        assert finished.evaluate(Mine()).row["name"] == "near"  # who reads is not held up
        assert jmrec.open(finished.workdir).recommend(SESSION)
        other.communicate()
    assert (finished.workdir / "test_reads.jsonl").read_bytes() == before
