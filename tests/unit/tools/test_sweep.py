"""A sweep before and after its trials: expansion, refusal, the study's space, table, plot, YAML."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from jmrec.config import product, subsample, sweep, zipit
from jmrec.errors import BAD_INPUT, UserError
from jmrec.evaluation.results import PAIRS, RANKING, kinds_of, make_cost, write_results
from jmrec.lock import try_lock
from jmrec.main import main
from jmrec.tools.sweep.plot import plot
from jmrec.tools.sweep.report import JUDGED, print_table, wandb_yaml, write
from jmrec.tools.sweep.run import Grid, device_shares
from jmrec.tools.sweep.study import WHOLE, Space, Study
from jmrec.tools.sweep.table import COSTS, best, cell
from jmrec.tools.sweep.table import settings as settings_of
from jmrec.tools.sweep.trials import VALIDATION, Record, Sweep, called, expand, keep

EXPERIMENT = """
from jmrec.config import ConfigDict, fixed, placeholder, product, subsample, sweep, zipit

def get_config(arg=None):
    return ConfigDict({
        "seeds": (3, 4), "rate": 0.0, "decay": 0.5, "name": "x", "deep": False, "widths": (1, 2),
        "limit": placeholder(int), "any": None, "evaluate": {"split": "test", "serve": "s"},
        "students": {"s": {"logit": 0.0}},
    })

def get_hyper():
    return HYPER
"""
SIX = 'product(sweep("rate", (0.1, 0.3, 0.2)), sweep("decay", (0.0, 1.0)))'


def expanded(folder: Path, hyper: str = SIX, *overrides: str) -> Sweep:
    path = folder / "x.py"
    path.write_text(EXPERIMENT.replace("HYPER", hyper))
    return expand(str(path), overrides, folder / "sweep")


# --- expansion ------------------------------------------------------------------------------


def test_trials_are_numbered_in_order_and_judged_on_validation(tmp_path: Path) -> None:
    found = expanded(tmp_path, SIX, "--config.name=y")
    assert [trial.name for trial in found.trials] == [f"trial-{i:04d}" for i in range(6)]
    assert found.trials[3].overrides == {"rate": 0.3, "decay": 1.0}
    assert (found.trials[3].rows, found.trials[3].stages) == (("s",), ("students/s-3",))
    command = found.command(found.trials[3], ["jmrec", "run"])
    assert command == [
        "jmrec", "run", "--config", found.spec, "--workdir", str(tmp_path / "sweep/trial-0003"),
        "--config.name=y", "--config.rate=0.3", "--config.decay=1.0", VALIDATION,
    ]  # fmt: skip
    assert VALIDATION == "--config.evaluate.split=validation"


@pytest.mark.parametrize(
    "values",
    ["(True, False)", "('a,b', \"it's\", '')", "(1e-9, 123456789.125)"],
)
def test_every_kind_of_value_survives_the_command_line(tmp_path: Path, values: str) -> None:
    kind = {"(T": "deep", "('": "name", "(1": "rate"}[values[:2]]
    assert len(expanded(tmp_path, f'sweep("{kind}", {values})').trials) > 1
    for name, each in (
        ("widths", "((1,), (1, 2, 3))"),
        ("limit", "(None, 3)"),
        ("any", "(2, 'x')"),
    ):
        assert len(expanded(tmp_path, f'sweep("{name}", {each})').trials) == 2


@pytest.mark.parametrize(
    ("hyper", "overrides", "says"),
    [
        ('sweep("rete", (1.0,))', (), 'did you mean "rate"'),
        ('sweep("rate", ("fast",))', (), "field is of type float"),
        ('sweep("any", ("3",))', (), "trial 0 sets any to '3', which the command line reads as 3"),
        (SIX, ("--config.decay=2",), "--config.decay is swept by get_hyper and set"),
        (SIX, ("--config.decay", "2"), "--config.decay is swept by get_hyper and set"),
        ('sweep("deep", (True,))', ("--noconfig.deep",), "--config.deep is swept"),
        (SIX, ("--config.evaluate.split=test",), "evaluate.split cannot be set in a sweep"),
        ('sweep("evaluate.split", ("test",))', (), "evaluate.split cannot be set in a sweep"),
        ('sweep("rate", (1,)) + sweep("rate", (2, 1.0))', (), "trials 0 and 2 of get_hyper are"),
        ('sweep("evaluate.serve", ("z",))', (), "names nothing that the experiment trains"),
    ],
)
def test_an_unsound_sweep_is_refused_before_anything_runs(
    tmp_path: Path, hyper: str, overrides: tuple[str, ...], says: str
) -> None:
    with pytest.raises(UserError) as caught:
        expanded(tmp_path, hyper, *overrides)
    assert says in str(caught.value)
    assert not (tmp_path / "sweep").exists()


@pytest.mark.parametrize(
    ("hyper", "overrides", "says"),
    [
        (SIX.replace("0.3", "0.4"), (), "trial 2, rate: 0.3 -> 0.4"),
        (SIX.replace("0.3, ", ""), (), "the number of trials: 6 -> 4"),
        (SIX.replace("decay", "widths").replace("0.0, 1.0", "(1,), (2,)"), (), "decay: 0.0 -> (ab"),
        (SIX, ("--config.name=z",), 'name: "x" -> "z"'),
    ],
)
def test_a_changed_sweep_is_refused_by_name(
    tmp_path: Path, hyper: str, overrides: tuple[str, ...], says: str
) -> None:
    keep(expanded(tmp_path))
    path = tmp_path / "sweep" / "trials.json"
    before = path.read_bytes()
    keep(expanded(tmp_path))
    with pytest.raises(UserError) as caught:
        keep(expanded(tmp_path, hyper, *overrides))
    assert says in str(caught.value)
    assert path.read_bytes() == before


@pytest.mark.parametrize(("serve", "only"), [("t", ("t",)), ("best", ()), ("blend of rules", ())])
def test_a_trial_trains_the_rows_that_it_is_judged_by(
    tmp_path: Path, serve: str, only: tuple[str, ...]
) -> None:
    path = tmp_path / "x.py"
    two = EXPERIMENT.replace("HYPER", SIX).replace('"s": {', '"t": {"logit": 0.0}, "s": {')
    path.write_text(two.replace('"serve": "s"', f'"serve": "{serve}", "x": 0'))
    given = () if serve != "blend of rules" else ("--config.evaluate.serve=best",)
    found = expand(str(path), given, tmp_path / "sweep")
    assert {trial.only for trial in found.trials} == {only}
    words = found.command(found.trials[0], ["jmrec", "run"])
    assert [word for word in words if word.startswith("--only")] == ["--only=t"] * len(only)
    assert ("--only=t" in wandb_yaml(found)) == bool(only)
    keep(found)
    every = expand(str(path), given, tmp_path / "sweep", every_row=True)
    assert {trial.only for trial in every.trials} == {()}
    assert "--only" not in " ".join(every.command(every.trials[0], ["jmrec", "run"]))
    if only:
        with pytest.raises(UserError, match="rows that are trained: t -> every one; see --every-r"):
            keep(every)
        kept = json.loads((tmp_path / "sweep" / "trials.json").read_text())
        del kept["only"]  # as before there was a choice
        (tmp_path / "sweep" / "trials.json").write_text(json.dumps(kept))
        with pytest.raises(UserError, match="rows that are trained: every one -> t; see --every-r"):
            keep(found)
    keep(every)


def test_the_workdir_of_a_run_is_no_place_for_a_sweep(tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "config.json").write_text("{}")
    with pytest.raises(UserError, match="holds a run, no sweep"):
        keep(expanded(tmp_path))


def test_what_is_watched_follows_the_config(tmp_path: Path) -> None:
    """Whatever the experiment calls the part of its config that holds what it trains."""
    path = tmp_path / "x.py"
    text = EXPERIMENT.replace("HYPER", SIX).replace('"students"', '"encoders"')
    path.write_text(text)
    assert expand(str(path), (), tmp_path / "sweep").trials[0].stages == ("encoders/s-3",)
    path.write_text(text.replace('"serve": "s"', '"serve": "x"'))
    with pytest.raises(UserError, match="'x' names nothing that the experiment trains"):
        expand(str(path), (), tmp_path / "sweep")


def test_a_trial_is_judged_by_the_primary_figure_on_validation(tmp_path: Path) -> None:
    trial = expanded(tmp_path).trials[0]
    assert trial.score() is None
    row = {"name": "s", "kind": "student", "seeds": 1, "interval": {}}
    results = {
        **{"format": 2, "system": "tpad", "primary": RANKING, "caption": "", "served": None},
        **{"dataset": {"name": "x", "split": "validation"}, "kinds": kinds_of(["student"])},
        "rows": [{**row, "figures": {"session": {"MRR@20": 0.25}, "last": {"MRR@20": 0.5}}}],
        **{"comparisons": [], "best_rule": None, "test_reads": 0, "stages": {}, "curves": {}},
    }
    write_results(trial.folder / "evaluate", results, make_cost())
    assert trial.score() == 0.25
    results["dataset"]["split"] = "test"
    write_results(trial.folder / "evaluate", results, make_cost())
    assert trial.score() is None
    (trial.folder / "evaluate" / "results.json").write_text('{"rows": []}')
    with pytest.raises(UserError, match="older jmrec"):
        trial.score()


def test_a_sweep_of_pairs_is_judged_by_their_figure(tmp_path: Path) -> None:
    found = expanded(tmp_path)
    assert called(found.judge()) == "validation MRR@20, session average"
    row = {"name": "s", "kind": "ranker", "seeds": 1, "interval": {}}
    results: Any = {
        **{"format": 2, "system": "mmrec", "primary": PAIRS, "caption": "", "served": None},
        **{"dataset": {"name": "x", "split": "validation"}, "kinds": kinds_of(["ranker"])},
        "rows": [{**row, "figures": {"pair": {"PR-AUC": 0.5, "log loss": 0.25}}}],
        **{"comparisons": [], "best_rule": None, "test_reads": 0, "stages": {}, "curves": {}},
    }
    for trial, score in ((found.trials[1], 0.5), (found.trials[2], 0.75)):
        results["rows"][0]["figures"]["pair"]["PR-AUC"] = score
        write_results(trial.folder / "evaluate", results, make_cost())
        assert trial.score() == score
        trial.end(Record("done", score))
    table = write(found)
    assert best(table) is table[2]
    kept = json.loads((found.workdir / "sweep.json").read_text())
    assert kept["score"] == "validation PR-AUC"
    assert kept["best"]["trial"] == found.trials[2].name
    console = Console(width=100, file=io.StringIO())
    print_table(table, settings_of(found), console, found.judge())
    assert "PR-AUC, %" in console.file.getvalue()
    drawing = plot(table, settings_of(found), called(found.judge()))
    assert drawing.axes[0].get_ylabel() == "validation PR-AUC, %"


# --- who has which trial --------------------------------------------------------------------


def test_a_trial_is_in_one_pair_of_hands(tmp_path: Path) -> None:
    trials = expanded(tmp_path).trials[:2]
    one, other = Grid(trials), Grid(trials)
    first, second = one.take(), other.take()
    assert first is not None
    assert second is not None
    assert (first.trial.index, second.trial.index) == (0, 1)
    assert one.take() is None
    assert one.waiting()
    second.trial.end(Record("done", 0.5))
    os.close(second.lock)
    assert one.take() is None
    assert not one.waiting()


def test_a_trial_that_another_worker_sees_fail_is_not_tried_again(tmp_path: Path) -> None:
    trials = expanded(tmp_path).trials[:1]
    one, other = Grid(trials), Grid(trials)
    job = one.take()
    assert job is not None
    trials[0].end(Record("failed", failures=1))
    os.close(job.lock)
    assert other.take() is None
    again = Grid(trials).take()  # a new start
    assert again is not None
    os.close(again.lock)


def test_a_lock_ends_with_the_last_process_that_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    lock = try_lock(path)
    assert lock is not None
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[lock])
    os.close(lock)
    assert try_lock(path) is None
    child.communicate()
    again = try_lock(path)
    assert again is not None
    os.close(again)


def test_gpus_are_dealt() -> None:
    seven = {"CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5,6"}
    assert [each["CUDA_VISIBLE_DEVICES"] for each in device_shares(seven, 3)] == [
        "0,1",
        "2,3",
        "4,5",
    ]
    assert device_shares({"CUDA_VISIBLE_DEVICES": "0"}, 2) == [{}, {}]
    assert device_shares(seven, 1) == [{}]


# --- the study's space ----------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=3), st.data())
def test_every_trial_has_a_place_of_its_own(sizes: list[int], data: st.DataObject) -> None:
    trials = product(*(sweep(f"n{i}", range(size)) for i, size in enumerate(sizes)))
    if data.draw(st.booleans()):
        trials = subsample(trials, data.draw(st.integers(1, len(trials))))
    space = Space.of(trials)
    assert [space.index(place) for place in space.places] == list(range(len(trials)))
    distributions = space.distributions()
    for place in space.places:
        assert place.keys() == distributions.keys()
        for name, at in place.items():
            assert distributions[name]._contains(distributions[name].to_internal_repr(at))


def test_products_have_axes_and_ordered_numbers() -> None:
    space = Space.of(product(sweep("a", (1, 2, 4)), sweep("b", "xy"), sweep("c", (True, False))))
    assert space.sizes == {"a": 3, "b": 2, "c": 2}
    assert space.ordered == {"a"}
    assert Space.of(zipit(sweep("a", (1, 2)), sweep("b", (1, 2)))).sizes == {WHOLE: 2}
    assert Space.of([{"a": 1}]).sizes == {WHOLE: 1}
    assert Space.of(sweep("a", (3, 1, 2))).ordered == set()


def test_without_optuna_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    spec = expanded(tmp_path).spec
    words = ["sweep", "--config", spec, "--workdir", str(tmp_path / "s"), "--optuna", "a"]
    assert main(words) == BAD_INPUT
    assert "pip install 'jmrec[sweep]'" in capsys.readouterr().err.splitlines()[-1]


def test_half_a_line_of_the_journal_is_mended(tmp_path: Path) -> None:
    found = expanded(tmp_path)
    keep(found)
    Study(found, "s", 6).take()
    journal = found.workdir / "optuna-s.journal"
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"op_code": 4, "wor')
    study = Study(found, "s", 6)
    assert study.take() is not None
    assert journal.read_bytes().startswith(whole)
    assert all(json.loads(line) for line in journal.read_text().splitlines())


# --- what it ends in ------------------------------------------------------------------------


def ended(folder: Path, hyper: str = SIX) -> Sweep:
    found = expanded(folder, hyper)
    keep(found)
    for trial, record in zip(
        found.trials,
        (
            Record("done", 0.1, 2.5),
            Record("failed", failures=2, message="no luck, mend it."),
            Record("pruned", 0.9),
            Record("done", 0.25),
            Record("done", 0.25),
        ),
    ):
        trial.end(record)
    return found


def test_the_table_has_every_trial_in_order(tmp_path: Path) -> None:
    found = ended(tmp_path)
    write(found)
    with (found.workdir / "sweep.csv").open() as file:
        rows = list(csv.reader(file))
    head = ["trial", "state", "score", "seconds", "rate", "decay", "row"]
    assert rows[0] == [*head, *JUDGED, *COSTS, "message"]
    assert rows[1] == ["trial-0000", "done", "0.1", "2.5", "0.1", "0.0", *[""] * 17]
    assert rows[2][-1] == "no luck, mend it."
    assert rows[6][:3] == ["trial-0005", "not ended", ""]
    kept = json.loads((found.workdir / "sweep.json").read_text())
    assert kept["best"]["trial"] == "trial-0003"  # pruned trials are not compared
    assert len(kept["trials"]) == 6
    assert (found.workdir / "sweep.png").stat().st_size > 1000
    assert not list(found.workdir.glob("*.tmp"))


def test_the_printed_table_shows_the_best_first(tmp_path: Path) -> None:
    found = ended(tmp_path)
    console = Console(width=120, record=True, file=io.StringIO())
    print_table(write(found), settings_of(found), console)
    names = [line.split()[1] for line in console.export_text().splitlines() if "trial-" in line]
    assert names[:3] == ["trial-0002", "trial-0003", "trial-0004"]
    assert len(names) == 6


@pytest.mark.parametrize(
    "hyper",
    [SIX, 'sweep("rate", (1e-4, 1e-1, 1e-2))', 'sweep("name", "abc")', 'fixed("rate", 1.0)',
     'sweep("rate", (0.1, 0.2)) + [{"any": "nothing"}]', "[{}]"],
)  # fmt: skip
def test_the_plot_shows_what_varies(tmp_path: Path, hyper: str) -> None:
    found = ended(tmp_path, hyper)
    names = settings_of(found)
    drawing = plot(write(found), names)
    varied = [n for n in names if len({cell(t.overrides, n) for t in found.trials}) > 1]
    assert len(drawing.axes) == max(len(varied), 1)
    first = drawing.axes[0]
    dots = [line for line in first.lines if line.get_label() == "done"]
    done = [t for t in found.trials if (r := t.record()) and r.state == "done"]
    assert [len(line.get_xdata()) for line in dots] == [len(done)]
    assert (first.get_xscale() == "log") == ("1e-4" in hyper)


def test_wandb_runs_a_product_by_its_settings(tmp_path: Path) -> None:
    hyper = 'product(sweep("rate", (0.1, 0.3)), sweep("name", ("a", "b")), fixed("decay", 2.0))'
    found = expanded(tmp_path, hyper, "--config.limit=3")
    asked = yaml.safe_load(wandb_yaml(found))
    assert asked["method"] == "grid"
    assert asked["metric"] == {"name": "students/s-3/eval/score", "goal": "maximize"}
    assert asked["parameters"] == {
        "config.rate": {"values": [0.1, 0.3]},
        "config.name": {"values": ["a", "b"]},
    }
    # What the agent does: ${args} becomes --NAME=VALUE.
    at = asked["command"].index("${args}")
    words = [*asked["command"][:at], "--config.rate=0.3", "--config.name=b"]
    words[2] = words[2].replace(f"exec {sys.executable} -m jmrec", 'printf "%s\\n"')
    env = {**os.environ, "WANDB_RUN_ID": "r1"}
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "run", "--share", "--config", found.spec, "--config.limit=3", "--config.decay=2.0",
        VALIDATION,
        "--workdir", f"{found.workdir}/wandb-r1", "--config.rate=0.3", "--config.name=b",
    ]  # fmt: skip


def test_wandb_runs_any_other_list_by_index(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = expanded(tmp_path, 'zipit(sweep("rate", (0.1, 0.3)), sweep("name", "ab"))').spec
    path = tmp_path / "deep" / "sweep.yaml"
    words = ["sweep", "--config", spec, "--workdir", str(tmp_path / "s")]
    assert main([*words, "--wandb-yaml", str(path)]) == 0
    assert "2 trials" in capsys.readouterr().err
    asked = yaml.safe_load(path.read_text())
    assert asked["parameters"] == {"index": {"values": [0, 1]}}
    assert asked["command"][1:] == ["-m", "jmrec", *words, "${args}"]
    assert not (tmp_path / "s").exists()
    assert main([*words, "--wandb-yaml", str(path), "--no-share"]) == 0
    asked = yaml.safe_load(path.read_text())
    assert asked["command"][1:] == ["-m", "jmrec", *words, "--no-share", "${args}"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--parallel", "0"], "--parallel=0 is not possible"),
        (["--trials", "3"], "go with --optuna"),
        (["--no-prune"], "go with --optuna"),
        (["--optuna", "a", "--trials", "0"], "--trials=0 is not possible"),
        (["--optuna", "../a"], "no study's name"),
        (["--index", "6"], "there is no trial 6; the sweep has 0 to 5"),
        (["--index", "-1"], "there is no trial -1"),
        (["--index", "1", "--optuna", "a"], "not allowed with"),
        (["--config.sede=1"], 'no field "sede"'),
        (["--paralel", "2"], "is not understood"),
    ],
)
def test_mistakes_are_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    spec = expanded(tmp_path).spec
    assert main(["sweep", "--config", spec, "--workdir", str(tmp_path / "s"), *words]) == BAD_INPUT
    lines = capsys.readouterr().err.splitlines()
    assert says in lines[-1]
    assert len(lines) == 1


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["sweep", "--help"])
    assert stop.value.code == 0
    assert "example:\n  jmrec sweep --config experiments/tpad.py" in capsys.readouterr().out


def test_where_the_best_row_is_served_a_trial_is_judged_by_the_best_of_what_it_trains(
    tmp_path: Path,
) -> None:
    """Rules are the same in all trials, and would hide what is swept."""
    path = tmp_path / "x.py"
    two = EXPERIMENT.replace("HYPER", SIX).replace('"serve": "s"', '"serve": "best"')
    path.write_text(two.replace('"students": {', '"students": {"other": {"logit": 0.0}, '))
    trial = expand(str(path), (), tmp_path / "sweep").trials[0]
    assert set(trial.rows) == {"s", "other"}
    assert set(trial.stages) == {"students/s-3", "students/other-3"}
    path.write_text(path.read_text().replace('"serve": "best"', '"serve": "blend of rules and s"'))
    assert expand(str(path), (), tmp_path / "mixed").trials[0].rows == ("s",)
    figures = {"s": 0.2, "other": 0.3, "EASE": 0.9}
    rows = [
        {"name": name, "kind": "student", "seeds": 1, "interval": {},
         "figures": {"session": {"MRR@20": value}}}
        for name, value in figures.items()
    ]  # fmt: skip
    results: Any = {
        **{"format": 2, "system": "session", "primary": RANKING, "caption": "", "served": None},
        **{"dataset": {"name": "x", "split": "validation"}, "kinds": kinds_of(["student"])},
        **{"rows": rows, "comparisons": [], "best_rule": None, "test_reads": 0, "stages": {}},
        "curves": {},
    }
    write_results(trial.folder / "evaluate", results, make_cost())
    assert trial.score() == 0.3
    for stage, scores in (("s", (0.1, 0.4)), ("other", (0.2, 0.3))):
        for step, score in enumerate(scores, 1):
            line = {"stage": f"students/{stage}-3", "step": step, "eval/score": score}
            with (trial.folder / "metrics.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")
    assert trial.curve() == {1: 0.2, 2: 0.4}
