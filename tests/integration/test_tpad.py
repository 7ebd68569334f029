"""TPAD from a folder of files to recommendations, tiny: every verb of the command line.

One run is shared by all tests of this module; it is stopped once by a SIGTERM and goes on.
"""

import csv
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from jmrec.data.toyshop import ToyShopConfig, write_toyshop
from jmrec.errors import BAD_INPUT, INTERRUPTED, REQUEUE
from jmrec.evaluation.protocol import make_predictions
from jmrec.main import main
from jmrec.serving import load, serve
from jmrec.systems.examples import examples, pictures_of
from jmrec.systems.readers.trained import TrainedReader, knowledge_task
from jmrec.systems.registry import open_run
from jmrec.systems.serve import build
from jmrec.systems.system import Sizes
from jmrec.systems.tpad.system import Tpad
from jmrec.tools.plan.shapes import Planner
from jmrec.tools.sweep.trials import Trial
from jmrec.tracking import Tracker
from tests import tiny
from tests.integration.planned import check_parameters

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    "--config", f"{ROOT / 'experiments/tpad.py'}:data=folder,size=tiny",
    *tiny.SHAPES,
    *tiny.updates(6, "vision", "knowledge"),
    *tiny.updates(30, "transition"),
    *tiny.updates(4, "distill"),
    *tiny.updates(8, "student"),
    "--config.student.train.eval_every=4",
    "--config.context.gap=true",
    "--config.evaluate.serve=distilled",  # a rule is best
]  # fmt: skip


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tpad") / "shop"
    write_toyshop(folder, ToyShopConfig(seed=3, items=120, sessions=300))
    (folder / "truth.npz").unlink()
    return folder


@pytest.fixture(scope="module")
def workdir(shop: Path) -> Path:
    """Run, with a SIGTERM after the first checkpoint of a student."""
    folder = shop.parent / "run"
    words = ["run", *SMALL, f"--config.data.dir={shop}", "--workdir", str(folder)]
    child = subprocess.Popen(
        [sys.executable, "-m", "jmrec", *words],
        cwd=shop.parent, env={**os.environ, "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    transition = folder / "transition" / "stage.json"
    until = time.monotonic() + 600
    while not transition.is_file() and child.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    child.send_signal(signal.SIGTERM)
    _, said = child.communicate(timeout=600)
    assert child.returncode == REQUEUE, said
    assert "again" in said
    assert "Traceback" not in said
    assert not json.loads(transition.read_text())["done"]
    assert main(words) == 0
    return folder


def referee(path: Path) -> dict:
    """Judge a dump with the independent evaluator, which imports nothing of jmrec."""
    spec = importlib.util.spec_from_file_location("referee", Path(__file__).with_name("referee.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.judge(path)


def opened(workdir: Path) -> Tpad:
    system = open_run(workdir, Tracker(workdir, quiet=True))
    assert isinstance(system, Tpad)
    return system


def results(workdir: Path, name: str = "evaluate") -> dict:
    return json.loads((workdir / name / "results.json").read_text())


def cost(workdir: Path) -> dict:
    return json.loads((workdir / "evaluate" / "cost.json").read_text())


def test_the_table_has_every_row_and_figure(workdir: Path) -> None:
    found = results(workdir)
    rows = {row["name"]: row for row in found["rows"]}
    kinds = {row["kind"] for row in found["rows"]}
    assert kinds == {"rule", "content", "blend", "student", "teacher", "control"}
    for name in ("id-only", "text-only", "picture-only", "undistilled", "distilled"):
        assert rows[name]["kind"] == "student"
    for row in rows.values():
        assert set(row["figures"]) == {"session", "prediction", "last"}
        assert 0 <= row["figures"]["session"]["MRR@20"] <= row["figures"]["session"]["HR@20"] <= 1
    assert found["test_reads"] == 1
    assert len((workdir / "test_reads.jsonl").read_text().splitlines()) == 1
    page = (workdir / "evaluate" / "report.html").read_text()
    assert "picture-only" in page
    assert "http" not in page.replace("http://www.w3.org", "").replace("http-equiv", "")


def test_a_second_run_skips_everything_and_reads_test_no_more(workdir: Path, shop: Path) -> None:
    before = (workdir / "evaluate" / "results.json").stat().st_mtime_ns
    assert main(["run", *SMALL, f"--config.data.dir={shop}", "--workdir", str(workdir)]) == 0
    assert (workdir / "evaluate" / "results.json").stat().st_mtime_ns == before
    assert len((workdir / "test_reads.jsonl").read_text().splitlines()) == 1


def test_changed_settings_are_refused_by_name(
    workdir: Path, shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["run", *SMALL, f"--config.data.dir={shop}", "--workdir", str(workdir)]
    assert main([*words, "--config.distill.k=32"]) == BAD_INPUT
    said = capsys.readouterr().err.splitlines()[-1]
    assert "stage distill" in said
    assert "distill.k: 64 -> 32" in said


def test_the_referee_agrees_to_the_last_digit(workdir: Path) -> None:
    dump, policy = workdir / "topk", workdir.parent / "policy.toml"
    policy.write_text('block = ["t0001", "t0002"]\npin = ["t0003"]\n')
    words = ["evaluate", "--workdir", str(workdir), "--split=validation", "--dump-topk", str(dump)]
    assert main([*words, "--policy", str(policy), "--by=month"]) == 0
    time = results(workdir, "evaluate-validation")["over_time"]
    assert set(time["rows"]) == {row["name"] for row in results(workdir)["rows"]}
    assert "By month" in (workdir / "evaluate-validation" / "report.html").read_text()
    found = {row["name"]: row for row in results(workdir, "evaluate-validation")["rows"]}
    files = sorted(dump.glob("*.npz"))
    assert len(files) == len(found)
    for name, row in found.items():
        safe = "".join(c if c.isalnum() else "-" for c in name)
        again = referee(dump / f"{safe}-0.npz")
        for figure, values in row["figures"].items():
            for metric, value in values.items():
                assert f"{100 * value:.4f}" == f"{100 * again[figure][metric]:.4f}", (name, metric)
    assert len((workdir / "test_reads.jsonl").read_text().splitlines()) == 1
    # The rows are judged without the correction, whose effect stands beside them.
    effect = results(workdir, "evaluate-validation")["policy"]
    assert (effect["row"], effect["blocked"], effect["pinned"]) == ("distilled", 2, 1)
    assert effect["figures"]["without"] == found["distilled"]["figures"]["session"]
    assert effect["figures"]["with"] != effect["figures"]["without"]
    page = (workdir / "evaluate-validation" / "report.html").read_text()
    assert "Correction by people" in page


def recommended(workdir: Path, capsys: pytest.CaptureFixture[str], *words: str) -> list[dict]:
    capsys.readouterr()
    assert main(["recommend", "--workdir", str(workdir), "--json", *words]) == 0
    return json.loads(capsys.readouterr().out)


def test_recommendations_are_the_evaluation_s(
    workdir: Path, shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from jmrec.data.prepared import load_prepared

    dataset = load_prepared(workdir / "data" / "prepared")
    with np.load(next((workdir / "topk").glob("distilled-0.npz"))) as dumped:
        position, ids, session = dumped["position"], dumped["ids"], dumped["session"]
    row = int(np.flatnonzero(position == 3)[0])
    split = dataset.splits["validation"]
    clicks = slice(split.offsets[session[row]], split.offsets[session[row]] + 3)
    words = ",".join(dataset.items.ids[item] for item in split.items[clicks])
    times = ",".join(map(repr, split.times[clicks].tolist()))
    found = recommended(workdir, capsys, "--items", words, "--times", times, "--top", "20")
    assert [each["item_id"] for each in found] == [dataset.items.ids[item] for item in ids[row]]
    assert all(each["title"] for each in found)


def test_new_items_are_recommended_after_embed_without_training(
    workdir: Path, shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = shop.parent / "more"
    shutil.copytree(shop, more)
    with (more / "items.csv").open() as file:
        rows = list(csv.DictReader(file))
    new = {**rows[7], "item_id": "brand-new"}
    with (more / "items.csv").open("a", newline="") as file:
        csv.DictWriter(file, list(rows[0])).writerow(new)
    before = recommended(workdir, capsys, "--items", "t0001,t0002", "--top", "130")
    assert main(["embed", "--workdir", str(workdir), "--dir", str(more)]) == 0
    assert "1 new items" in capsys.readouterr().out
    assert main(["embed", "--workdir", str(workdir), "--dir", str(more)]) == 0
    assert "no new items" in capsys.readouterr().out
    after = recommended(workdir, capsys, "--items", "t0001,t0002", "--top", "130")
    assert "brand-new" in {each["item_id"] for each in after}
    kept = [each for each in after if each["item_id"] != "brand-new"]
    assert [each["item_id"] for each in kept] == [each["item_id"] for each in before]
    found = recommended(workdir, capsys, "--items", "t0001,brand-new", "--top", "3")
    assert len(found) == 3
    # Rules of content know it by what it says and shows: it is a copy of another item.
    for row in ("content-kNN (TF-IDF)", "content-kNN (Knowledge tower)"):
        words = ["--items", "t0001,t0002", "--top", "130", "--row", row]
        score = {e["item_id"]: e["score"] for e in recommended(workdir, capsys, *words)}
        assert score["brand-new"] == pytest.approx(score[rows[7]["item_id"]], rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("write", ["names", "features", "index"])
def test_embed_killed_between_its_writes_goes_on(
    workdir: Path,
    shop: Path,
    tmp_path: Path,
    write: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    more = tmp_path / "more"
    shutil.copytree(shop, more)
    with (more / "items.csv").open() as file:
        rows = list(csv.DictReader(file))
    old = json.loads((workdir / "item_index.json").read_text())
    known = [item for item in old if item not in {row["item_id"] for row in rows}]
    added = [*known, f"before-{write}"]
    with (more / "items.csv").open("a", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writerows({**rows[9], "item_id": item} for item in reversed(added))
    names = {"names": "items.json", "features": "features.safetensors", "index": "item_index.json"}
    replace = Path.replace

    def killed(path: Path, target: Path) -> Path:
        if Path(target).name == names[write]:
            raise KeyboardInterrupt
        return replace(path, target)

    words = ["embed", "--workdir", str(workdir), "--dir", str(more)]
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        assert main(words) == INTERRUPTED
    assert recommended(workdir, capsys, "--items", "t0001,t0002", "--top", "3")
    assert main(words) == 0
    assert json.loads((workdir / "item_index.json").read_text()) == [*old, f"before-{write}"]
    found = recommended(workdir, capsys, "--items", f"before-{write}", "--top", "200")
    assert len(found) == len(old)
    path = (workdir / "added" / "features.safetensors").rename(tmp_path / "taken away")
    assert main(["recommend", "--workdir", str(workdir), "--items", "t0001"]) == 2
    assert "are gone from" in capsys.readouterr().err
    path.rename(workdir / "added" / "features.safetensors")


def test_the_artefact_gives_what_the_run_gives(
    workdir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["export", "--workdir", str(workdir), "--out", str(tmp_path / "serve")]
    assert main([*words, "--json", "--stablehlo"]) == 0
    section = json.loads(capsys.readouterr().out)
    assert section["same top 20"]["same"] == section["same top 20"]["sessions"] > 200
    assert section["bytes"] < 20e6
    assert 0 < section["served"]["median_ms"] <= section["served"]["p99_ms"]
    assert section["served"]["parameters"] < section["teacher"]["parameters"]
    assert cost(workdir)["serving"] == section
    assert "Serving" in (workdir / "evaluate" / "report.html").read_text()
    assert str(workdir).encode() not in b"".join(
        path.read_bytes() for path in (tmp_path / "serve").iterdir()
    )

    assert (tmp_path / "serve" / "student.stablehlo").is_file()

    system = opened(workdir)
    artefact = build(system, None, None)
    # What embed read with texts and pictures is nothing for a student that sees texts only.
    assert len(build(system, "text-only", None).ids) == len(system.data.dataset.items)
    added = artefact.ids[len(system.data.dataset.items) :]
    assert len(added) == section["added"] > 0
    cold = np.array(artefact.ids)[: len(system.data.dataset.items)][~system.data.train_items]
    sessions = [[artefact.ids[row] for row in rows] for rows in system.data.dataset.splits["train"]]
    sessions += [[item, "t0001"] for item in [*added, *cold.tolist()]]
    expected = serve(artefact, "the run").recommend_batch(sessions, top=20)
    before = recommended(workdir, capsys, "--items", "t0001,t0002", "--top", "20")
    (tmp_path / "serve").rename(tmp_path / "elsewhere")
    workdir.rename(workdir.with_name("away"))
    try:
        served = load(tmp_path / "elsewhere")
        assert served.recommend_batch(sessions, top=20) == expected
        found = served.recommend_batch([["t0001"]], top=len(artefact.ids))[0]
        assert set(added) < {each["item_id"] for each in found}
        where = ["recommend", "--serve", str(tmp_path / "elsewhere"), "--json", "--items"]
        assert main([*where, "t0001,t0002", "--top", "20"]) == 0
        assert json.loads(capsys.readouterr().out) == before
        assert main([*where, "t00010x"]) == BAD_INPUT
        assert "did you mean 't00" in capsys.readouterr().err
        policy = tmp_path / "policy.toml"
        policy.write_text(f'pin = ["{added[0]}", "t0005"]\nblock = ["{before[0]["item_id"]}"]\n')
        assert main([*where, "t0001,t0002", "--top", "200", "--policy", str(policy)]) == 0
        corrected = [each["item_id"] for each in json.loads(capsys.readouterr().out)]
        assert corrected[:2] == [added[0], "t0005"]
        assert before[0]["item_id"] not in corrected
    finally:
        workdir.with_name("away").rename(workdir)
    # The run's own way is the same one.
    again = ["recommend", "--workdir", str(workdir), "--json", "--items", "t0001,t0002"]
    assert main([*again, "--top", "200", "--policy", str(policy)]) == 0
    assert [each["item_id"] for each in json.loads(capsys.readouterr().out)] == corrected


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["recommend", "--workdir", "RUN", "--items", "t00010x"], "did you mean"),
        (["recommend", "--workdir", "RUN", "--items", "t0001", "--row", "none"], "is not one of"),
        (["recommend", "--workdir", "RUN", "--items", "t0001", "--top", "0"], "--top"),
        (["evaluate", "--workdir", "NOWHERE"], "no finished run"),
        (["run", "--config", "RUN/none.py", "--workdir", "NOWHERE"], "no experiment file"),
        (["run", *SMALL, "--config.sede=1", "--workdir", "NOWHERE"], "seed"),
        (["run", *SMALL, "--workdir", "NOWHERE"], "--config.data.dir"),
        (["data", "check", "NOWHERE"], "NOWHERE"),
        (["fly"], "fly"),
        (["recommend", "--workdir", "RUN"], "--items"),
        (["recommend", "--items", "t0001"], "--workdir --serve"),
        (["recommend", "--serve", "RUN", "--items", "t0001"], "no serving artefact"),
        (["recommend", "--serve", "RUN", "--items", "t0001", "--row", "x"], "one row"),
        (["recommend", "--workdir", "RUN", "--items", "t0001", "--at", "noon"], "is no time"),
        (["export", "--workdir", "RUN", "--out", "RUN"], "no serving artefact; name another"),
        (["export", "--workdir", "RUN", "--out", "NOWHERE", "--row", "x"], "is not one of"),
        (["evaluate", "--workdir", "RUN", "--policy", "NOWHERE"], "can not be read"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    workdir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    places = {"RUN": str(workdir), "NOWHERE": str(tmp_path / "NOWHERE")}
    for name, place in places.items():
        words = [word.replace(name, place) for word in words]
    capsys.readouterr()
    assert main(words) == BAD_INPUT
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("jmrec:")]
    assert len(lines) == 1
    assert says in lines[0]


def test_data_verbs_print_what_they_did(
    shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "check", str(shop), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["items"] == 120
    assert main(["data", "check", str(shop)]) == 0
    assert "cold" in capsys.readouterr().out
    out = tmp_path / "prepared"
    assert main(["data", "prepare", str(shop), "--out", str(out)]) == 0
    assert "120 items" in capsys.readouterr().out
    assert (out / "metadata.json").is_file()


@pytest.mark.parametrize("verb", [[], ["data"], ["data", "check"], ["data", "prepare"], ["run"],
                                  ["embed"], ["evaluate"], ["recommend"], ["export"]])  # fmt: skip
def test_help_has_a_worked_example(verb: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*verb, "--help"])
    assert stop.value.code == 0
    assert re.search(r"example:\n  (\$ )?jmrec", capsys.readouterr().out)


def test_what_is_planned_is_what_is_run(workdir: Path) -> None:
    system = opened(workdir)
    config, rows, reader = system.work.config, np.arange(8), system.reader
    assert isinstance(reader, TrainedReader)
    fields = tuple(reader.item_arrays.lengths.values())
    sizes = Sizes(len(system.data.dataset.items), reader.item_arrays.vocab, fields)
    planner = Planner(config, sizes, jax.devices()[:1])
    items = system.data.items(reader.arrays, rows, 8)[0]
    sessions = system.data.sessions(config.distill.train, packed=True)[0]
    e, train = system.features.e["both"], system.data.train_items
    real = {
        "vision": (items, None),
        "knowledge": (items, knowledge_task(config, reader.config, None).frozen(workdir)),
        "transition": (sessions, {"e": e, "valid": train}),
        "distill": (sessions, None),
        "student": (sessions, system.students.trainer("distilled").task.frozen(workdir)[0]),
    }

    def looks(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: (tuple(leaf.shape[1:]), np.dtype(leaf.dtype)), tree)

    assert list(real) == planner.stages
    for stage, (batch, frozen) in real.items():
        step = planner.step(stage)
        wide = {} if "item" not in batch else {key: x[:, :1] for key, x in batch.items()}
        planned = {key: x.update(shape=(*x.shape[:1], 1)) for key, x in step.batch.items()}
        assert looks(planned if wide else step.batch) == looks(wide or batch), stage
        if stage == "student":
            assert looks(step.frozen) == looks(frozen)


def test_the_plan_counts_what_the_run_keeps(workdir: Path) -> None:
    check_parameters(workdir, "tpad")


def test_a_sweep_reads_the_score_and_the_curve_of_a_real_run(workdir: Path) -> None:
    trial = Trial(0, {}, workdir, ("distilled",), ("students/distilled-0",))
    assert sorted(trial.curve()) == [4, 8]
    assert trial.score() is None  # it was evaluated on test


def test_the_reasons_of_the_report_are_what_recommending_again_gives(
    workdir: Path, shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a click: the session without it. Without text or picture: an item that has none."""
    section = results(workdir)["examples"]
    spent = cost(workdir)["stages"]
    for stage in ("vision", "knowledge", "transition", "distill", "students/distilled-0"):
        assert spent[stage]["flops"] > 1e6, stage
        assert spent[stage]["peak_memory"] > 1e8, stage
    session = max(section["sessions"], key=lambda each: len(each["past"]))
    past, found = session["past"], session["recommended"]
    assert len(section["sessions"]) == 4
    assert len(past) > 1

    split = opened(workdir).data.dataset.splits["test"]
    start = split.offsets[session["session"]]
    clicked = dict(zip(past, split.times[start : start + len(past)].tolist()))
    assert len(clicked) == len(past)

    def scores(items: list[str]) -> dict[str, float]:
        times = ",".join(repr(clicked[item]) for item in items)
        words = ["--items", ",".join(items), "--times", times, "--top", "400"]
        found = recommended(workdir, capsys, *words)
        return {each["item_id"]: each["score"] for each in found}

    whole = scores(past)
    best = [item for item in whole if item in section["items"]][: len(found)]
    assert best == [each["item"] for each in found]
    for place in range(len(past)):
        again = scores(past[:place] + past[place + 1 :])
        for each in found:
            lost = whole[each["item"]] - again[each["item"]]
            assert each["past"][place]["contribution"] == pytest.approx(lost, abs=1e-4)

    # The same items once more, as new ones: without an id of their own, and without a part.
    more = shop.parent / "bare"
    shutil.copytree(shop, more)
    with (more / "items.csv").open() as file:
        rows = {row["item_id"]: row for row in csv.DictReader(file)}
    index = json.loads((workdir / "item_index.json").read_text())
    old = [{**rows["t0009"], "item_id": item} for item in index if item not in rows]
    new = []
    for each in found:
        row = rows[each["item"]]
        new += [
            {**row, "item_id": f"unread-{each['item']}", "image": ""},
            {**dict.fromkeys(row, ""), "item_id": f"unsaid-{each['item']}", "image": row["image"]},
            {**row, "item_id": f"twin-{each['item']}"},
        ]
    with (more / "items.csv").open("a", newline="") as file:
        csv.DictWriter(file, list(rows["t0009"])).writerows([*old, *new])
    assert main(["embed", "--workdir", str(workdir), "--dir", str(more)]) == 0
    again = scores(past)
    for each in found:
        item, own = each["item"], each["own"]
        # Features and id are added up in an item's vector, so their contributions add up too.
        known = own["id"]["contribution"] if own["id"] else 0.0
        for name, part in (("unread", "picture"), ("unsaid", "text")):
            lost = again[item] - again[f"{name}-{item}"] - known
            assert own[part]["contribution"] == pytest.approx(lost, abs=1e-3), (item, part)
        assert again[item] - again[f"twin-{item}"] == pytest.approx(known, abs=1e-3)


def test_every_student_has_reasons_for_what_it_reads(workdir: Path) -> None:
    system = opened(workdir)
    asked = make_predictions(system.data.dataset.splits["validation"])
    reads = {
        **{"undistilled": {"text", "picture", "id"}, "id-only": {"id"}},
        **{"text-only": {"text"}, "picture-only": {"picture"}},
    }
    for name, parts in reads.items():
        section = examples(system, asked, name)
        found = [each for session in section["sessions"] for each in session["recommended"]]
        assert section["row"] == name
        assert {part for each in found for part in each["own"]} == parts
        pictures = pictures_of(system.data.dataset.items, {"examples": section})
        assert 0 < len(pictures) <= len(section["items"])
        if len(parts) == 1 and "id" not in parts:  # nothing is left of such an item
            for each in found:
                (lost,) = each["own"].values()
                assert lost["contribution"] == pytest.approx(each["score"], abs=1e-5)
