"""``jmrec remember``: rules count on after training, in a workdir and in what was exported."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from jmrec.config import ConfigDict
from jmrec.data.folder import read_folder
from jmrec.data.live import live_dataset
from jmrec.data.new_sessions import read_batch
from jmrec.data.prepared import load_prepared, prepare
from jmrec.data.sessions import sessionise, take
from jmrec.data.source_files import source_files
from jmrec.errors import UserError
from jmrec.evaluation.protocol import ask
from jmrec.evaluation.rankers import codec
from jmrec.evaluation.rankers.anew import Chosen, count_anew
from jmrec.evaluation.rankers.rules import fit_again, fit_rules
from jmrec.evaluation.results import make_cost, write_results
from jmrec.evaluation.summary import Row as TableRow
from jmrec.evaluation.summary import measure, summarise
from jmrec.files import checksums
from jmrec.lock import LOCK, only_writer
from jmrec.main import main
from jmrec.serving import serve
from jmrec.serving.rules import RuleArtefact, write_rule
from jmrec.systems import runs
from jmrec.systems.remember import remember, undo
from jmrec.systems.remembered import nothing_yet
from jmrec.systems.serve_rules import rule_artefact, served_row
from tests.kills import copied_at_each_step
from tests.unit.data.test_remembered import BEGIN, ITEMS, Row, made_rows, write

CUT = 250
WORDS = ("amber bowl", "cobalt lamp", "ivory chair", "amber lamp")
PIXELS = np.random.default_rng(3).normal(size=(ITEMS, 5)).astype(np.float32)
BLEND = "blend of rules"
NEW = "item_id,title,year\nn1,amber bowl,2031\nn2,cobalt chair,2032\n"


class StandIn:
    """What a finished run answers, without its stages."""

    def __init__(self, workdir: Path, folder: Path, wanted: str = "best") -> None:
        config = {"evaluate": {"ease_items": 20_000}, "data": {"dir": str(folder), "toml": None}}
        said = SimpleNamespace(warn=print, say=print)
        self.work = SimpleNamespace(workdir=workdir, config=ConfigDict(config), tracker=said)
        self.data = SimpleNamespace(dataset=load_prepared(workdir / "data/prepared"))
        self.students = SimpleNamespace(names=["student"], wanted=wanted)

    def content(self, added: Any = None) -> dict[str, np.ndarray]:
        return {"pixels": PIXELS}


def make_data(top: Path, rows: list[Row], toml: str = "") -> Path:
    """Write a folder, and a workdir with its data."""
    folder, workdir = top / "folder", top / "run"
    folder.mkdir(parents=True)
    items = [f"i{i},{WORDS[i % 4]},{2000 + i}" for i in range(ITEMS)]
    (folder / "items.csv").write_text("\n".join(["item_id,title,year", *items]) + "\n")
    write(folder / "interactions.csv", rows)
    (folder / "dataset.toml").write_text('[items]\nnumber_columns = ["year"]\n' + toml)
    prepare(folder, None, workdir / "data/prepared")
    return workdir


def make_run(top: Path, rows: list[Row]) -> Path:
    """Write a folder, and a workdir with all that a finished run has for its rules."""
    workdir = make_data(top, rows)
    dataset = load_prepared(workdir / "data/prepared")
    asked = ask(dataset, "validation")
    common: dict[str, Any] = {
        "n_items": ITEMS, "exclude_seen": False, "cold": np.zeros(ITEMS, bool),
    }  # fmt: skip
    rules: list[Any] = fit_rules(dataset, asked, features={"pixels": PIXELS})
    rules[-1].settings = {rule.name: 0.5 + n / 8 for n, rule in enumerate(rules[:-1])}  # all
    table: list[TableRow] = [
        measure(rule.name, rule.kind, [rule], asked, asked, **common) for rule in rules
    ]
    table.append(TableRow("student", "student", [table[0].ranked[0]]))
    choice = {"wanted": "best", "figure": "session", "metric": "MRR@20", "validation": {BLEND: 1}}
    served: Any = {"row": BLEND, "beside": ["student"], "student": "student", "choice": choice}
    results = summarise(table, asked, dataset, "validation", served=served)
    write_results(workdir / "evaluate", results, make_cost())
    return workdir


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return made_rows(11)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, rows: list[Row]) -> Path:
    return make_run(tmp_path_factory.mktemp("made"), rows[:CUT])


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Any:
    return StandIn(Path(shutil.copytree(made, tmp_path / "run")), made.parent / "folder")


def again(run: Any, workdir: Path) -> Any:
    return StandIn(workdir, Path(run.work.config.data.dir))


def tables(run: Any, name: str) -> tuple[Any, dict[str, bytes]]:
    artefact = rule_artefact(run, served_row(run, name), None)
    facts, arrays = codec.encode(artefact.rule)
    return facts, {key: value.tobytes() for key, value in arrays.items()}


def names(run: Any) -> list[str]:
    return [name for name in served_row(run, BLEND).rules or {} if name != "student"]


def answers(artefact: RuleArtefact) -> list[Any]:
    sessions = [["i1", "i5"], ["i3"], ["i7", "i7", "i2"]]
    return [list(each) for each in serve(artefact, "here").recommend_batch(sessions, top=20)]


def state(folder: Path) -> dict[str, str]:
    return checksums(folder, [LOCK])


def export(run: Any, out: Path, name: str = BLEND, updatable: bool = True) -> Path:
    write_rule(rule_artefact(run, served_row(run, name), None, updatable=updatable), out)
    return out


# ---- a workdir -----------------------------------------------------------------------------------


def test_batches_one_after_another_are_one_fit_over_all(
    run: Any, rows: list[Row], tmp_path: Path
) -> None:
    before = {name: tables(run, name) for name in names(run)}
    one = again(run, Path(shutil.copytree(run.work.workdir, tmp_path / "one")))
    remember(one, write(tmp_path / "all.csv", rows[CUT:]))
    # An event that stands in two files is one, so that none is cut between two of the same.
    edges = [n for n in range(CUT, len(rows), 15) if rows[n] != rows[n - 1]] + [len(rows)]
    assert edges[0] == CUT
    assert len(edges) > 8
    for n, (start, stop) in enumerate(pairwise(edges)):
        remember(run, write(tmp_path / f"{n}.csv", rows[start:stop]))
    # What a training over everything would count: sessions of two events or more, in one order.
    whole = prepare(_with(run, rows, tmp_path / "whole"), None, tmp_path / "all")
    every = sessionise(read_folder(tmp_path / "whole"))
    every = take(every, np.flatnonzero(every.lengths >= 2))
    order = sorted(range(len(every)), key=lambda s: (every.times[every.offsets[s]], every.ids[s]))
    train = take(every, np.array(order))
    data = replace(whole, splits={"train": train})
    settings = served_row(run, BLEND).rules or {}
    for name in names(run):
        found = tables(run, name)
        assert found == tables(one, name)
        if name not in ("EASE", BLEND):
            wanted = codec.encode(fit_again(data, name, settings, {"pixels": PIXELS}))
            assert found[0] == wanted[0]
            assert found[1] == {key: value.tobytes() for key, value in wanted[1].items()}
        still = ("newest first", "content-kNN (pixels)", "content-kNN (TF-IDF)")
        assert name in still or found[1] != before[name][1]  # else it would show nothing
    old, new = before["EASE"][1]["matrix"], tables(run, "EASE")[1]["matrix"]
    assert old == new


def _with(run: Any, rows: list[Row], folder: Path) -> Path:
    shutil.copytree(run.work.config.data.dir, folder)
    write(folder / "interactions.csv", rows)
    return folder


def test_the_same_file_twice_is_refused_and_changes_nothing(
    run: Any, rows: list[Row], tmp_path: Path
) -> None:
    path = write(tmp_path / "a.csv", rows[CUT:300])
    done = remember(run, path)
    said = " ".join(done.sentences())
    assert f"a.csv: {300 - CUT} new events of" in said
    first, last = (
        datetime.fromtimestamp(float(pick(row[3] for row in rows[CUT:300])), UTC)
        for pick in (min, max)
    )
    assert f"They are of {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} (UTC)." in said
    assert "From now on the rules count all that the run's folder holds" in said
    assert "The weights of EASE stay as they are; --solve solves them anew." in said
    before = state(run.work.workdir)
    with pytest.raises(UserError, match=r"all of its events were counted before; nothing is chan"):
        remember(run, path)
    own = Path(run.work.config.data.dir) / "interactions.csv"
    with pytest.raises(UserError, match="all of its events were counted before"):
        remember(run, own)
    assert state(run.work.workdir) == before
    done = remember(run, write(tmp_path / "b.csv", rows[CUT:310]))
    assert (done.counted.events, done.counted.known) == (10, 300 - CUT)
    assert "From now on" not in " ".join(done.sentences())


def test_solving_is_asked_for(run: Any, rows: list[Row], tmp_path: Path) -> None:
    old = tables(run, "EASE")[1]["matrix"]
    remember(run, write(tmp_path / "a.csv", rows[CUT:300]))
    done = remember(run, write(tmp_path / "b.csv", rows[300:330]), solve=True)
    assert "EASE is solved on all of it in" in " ".join(done.sentences())
    solved = tables(run, "EASE")[1]["matrix"]
    assert solved != old
    one = again(run, Path(shutil.copytree(run.work.workdir, tmp_path / "one")))
    shutil.rmtree(one.work.workdir / "remembered")
    remember(one, write(tmp_path / "c.csv", rows[CUT:330]), solve=True)
    assert tables(one, "EASE")[1]["matrix"] == solved
    remember(run, write(tmp_path / "d.csv", rows[330:]))
    assert tables(run, "EASE")[1]["matrix"] == solved
    assert tables(run, "popularity")[1] != tables(one, "popularity")[1]


def test_prices_are_neither_needed_nor_given_away(
    made: Path, rows: list[Row], tmp_path: Path
) -> None:
    workdir = make_data(tmp_path / "priced", rows[:CUT], '[value]\ncolumn = "year"\n')
    shutil.copytree(made / "evaluate", workdir / "evaluate")
    run: Any = StandIn(workdir, tmp_path / "priced" / "folder")
    assert run.data.dataset.items.value is not None
    out = export(run, tmp_path / "serve", "popularity")
    assert (out / "updatable").is_dir()
    assert not list(out.rglob("value*"))
    (tmp_path / "items.csv").write_text("item_id,title,year\nn1,amber bowl,\n")
    clicks = [["x", "u1", item, BEGIN + 90_000 + n, "view"] for n, item in enumerate(
        ["i1", "n1", "i1", "n1"])]  # fmt: skip
    path = write(tmp_path / "a.csv", clicks)
    remember(run, path, tmp_path / "items.csv", solve=True)
    for name in ("EASE", BLEND):
        assert rule_artefact(run, served_row(run, name), None).ids[-1] == "n1"


def test_new_items_are_known_by_their_clicks_and_their_texts(
    run: Any, rows: list[Row], tmp_path: Path
) -> None:
    (tmp_path / "items.csv").write_text(NEW)
    clicks = [["x", "u1", item, BEGIN + 90_000 + n, "view"] for n, item in enumerate(
        ["i1", "n1", "i1", "n1"])]  # fmt: skip
    done = remember(run, write(tmp_path / "a.csv", clicks), tmp_path / "items.csv")
    assert "New items: 2." in done.sentences()
    scores = {}
    for name in (
        "Markov + popularity",
        "content-kNN (TF-IDF)",
        "EASE",
        "content-kNN (pixels)",
        BLEND,
    ):
        artefact = rule_artefact(run, served_row(run, name), None)
        assert artefact.ids[-2:] == ["n1", "n2"]
        found = serve(artefact, "here").recommend(["i1"], top=ITEMS + 2)
        scores[name] = {each["item_id"]: each["score"] for each in found}
        assert len(scores[name]) == ITEMS + 2
    markov, texts = scores["Markov + popularity"], scores["content-kNN (TF-IDF)"]
    assert markov["n1"] > markov["n2"] == pytest.approx(0)
    # "amber bowl" is what i0, i4 and i8 are called, and "cobalt" that of i1.
    of_bowl = serve(rule_artefact(run, served_row(run, "content-kNN (TF-IDF)"), None), "here")
    best = [each["item_id"] for each in of_bowl.recommend(["n1"], top=4)]
    assert {"i0", "i4", "i8"} < set(best)
    assert texts["n2"] > 0
    assert scores["content-kNN (pixels)"]["n1"] == 0
    assert scores["EASE"]["n2"] == pytest.approx(0, abs=1e-6)


def test_undo_is_bit_for_bit(run: Any, rows: list[Row], tmp_path: Path) -> None:
    workdir, states = run.work.workdir, []
    for n, part in enumerate((rows[CUT:290], rows[290:300], rows[300:])):
        states.append((state(workdir), tables(run, BLEND)))
        remember(run, write(tmp_path / f"{n}.csv", part), solve=n == 1)
    for left, (files, counted) in zip((2, 1, 0), states[::-1]):
        assert undo(run) == left
        assert state(workdir) == files
        assert tables(run, BLEND) == counted
    with pytest.raises(UserError, match="remembers nothing that could be taken back"):
        undo(run)


@pytest.mark.parametrize("what", ["first", "second", "undo"])
def test_a_kill_at_any_step_loses_and_doubles_nothing(
    what: str, run: Any, rows: list[Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workdir = run.work.workdir
    path = write(tmp_path / "b.csv", rows[300:])
    remember(run, write(tmp_path / "a.csv", rows[CUT:300])) if what != "first" else None
    remember(run, path) if what == "undo" else None
    old = state(workdir)
    act: Callable[[Any], Any] = undo if what == "undo" else lambda system: remember(system, path)
    with only_writer(workdir, print), copied_at_each_step(workdir, tmp_path / "k", monkeypatch):
        act(run)
    new, states = state(workdir), []
    assert new != old
    copies = sorted((tmp_path / "k").iterdir())
    for copy in copies:
        with only_writer(copy, print):
            pass  # whoever comes next puts in place what counts
        states.append(state(copy) == new)
        assert states[-1] or state(copy) == old
    assert states == sorted(states)  # from one step on it is the new
    assert 2 <= sum(states) < len(states) >= 6
    for copy in (copies[0], copies[-1]):  # and it can be ended
        system = again(run, copy)
        if copy == copies[-1] and what != "undo":
            with pytest.raises(UserError, match="were counted before"):
                act(system)
        elif copy == copies[0]:
            act(system)
        assert state(copy) == new


# ---- the command line ----------------------------------------------------------------------------


def test_the_command_counts_tells_and_takes_back(
    run: Any, rows: list[Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    workdir, path = run.work.workdir, write(tmp_path / "a.csv", rows[CUT:])
    (workdir / "config.json").write_text("{}")
    monkeypatch.setattr(runs, "open_run", lambda *_: again(run, workdir))
    monkeypatch.setattr(runs, "able", lambda system, _: system)
    out = export(run, tmp_path / "serve", "popularity")
    for where in (["--workdir", str(workdir)], ["--serve", str(out)]):
        before = state(out)
        assert main(["remember", *where, "--interactions", str(path)]) == 0
        said = capsys.readouterr().out
        assert f"a.csv: {len(rows) - CUT} new events of" in said
        assert main(["remember", *where, "--interactions", str(path)]) == 2
        assert "all of its events were counted before" in capsys.readouterr().err
        assert main(["remember", *where, "--undo"]) == 0
        assert "The last batch is taken back; 0 are left." in capsys.readouterr().out
        assert main(["remember", *where, "--undo"]) == 2
        assert main(["remember", *where, "--undo", "--solve"]) == 2
        assert main(["remember", *where]) == 2
        assert state(out) == before
    capsys.readouterr()
    words = ["--interactions", str(path), "--dir", str(tmp_path)]
    assert main(["remember", "--serve", str(out), *words]) == 2
    assert "--serve knows how files are read" in capsys.readouterr().err
    monkeypatch.setattr(runs, "open_run", lambda *_: again_without_folder(run))
    assert main(["remember", "--workdir", str(workdir), "--interactions", str(path)]) == 2
    assert "name the catalogue folder with --dir" in capsys.readouterr().err


def again_without_folder(run: Any) -> Any:
    return StandIn(run.work.workdir, Path("nowhere"))


def test_a_policy_may_name_items_that_came_later(run: Any, tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text(NEW)
    clicks = [["x", "u1", "n1", BEGIN + 90_000, "view"]]
    remember(run, write(tmp_path / "a.csv", clicks), tmp_path / "items.csv")
    (tmp_path / "policy.toml").write_text('pin = ["n2"]\n')
    row = served_row(run, "popularity")
    made = serve(rule_artefact(run, row, tmp_path / "policy.toml"), "here")
    assert [each["item_id"] for each in made.recommend(["n1"], top=1)] == ["n2"]


def test_a_description_that_was_edited_is_not_read(
    run: Any, rows: list[Row], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(run.work.config.data.dir, tmp_path / "folder"))
    own = StandIn(run.work.workdir, folder)
    known = source_files(folder)
    (run.work.workdir / "data/source.json").write_text(json.dumps(known))
    with (folder / "dataset.toml").open("a") as file:
        file.write('[dataset]\nname = "another"\n')
    path = write(tmp_path / "a.csv", rows[CUT:])
    with pytest.raises(UserError, match=r"dataset\.toml was edited since the data was prepared"):
        remember(own, path)  # type: ignore[arg-type]
    shutil.copy(Path(run.work.config.data.dir) / "dataset.toml", folder / "dataset.toml")
    assert remember(own, path).number == 1  # type: ignore[arg-type]
    assert rule_artefact(own, served_row(run, "popularity"), None)  # type: ignore[arg-type]
    # Data that is prepared anew by another description.
    known["dataset.toml"][2] = "another"
    (run.work.workdir / "data/source.json").write_text(json.dumps(known))
    with pytest.raises(UserError, match="is of data that was prepared in another way; delete it"):
        rule_artefact(own, served_row(run, "popularity"), None)  # type: ignore[arg-type]


def test_ten_weeks_of_tweetings_are_one_fit_over_all(shared_data: Path, tmp_path: Path) -> None:
    source, folder = shared_data / "tweetings", tmp_path / "folder"
    folder.mkdir()
    toml = Path(__file__).parents[3] / "experiments/data/tweetings.toml"
    (folder / "dataset.toml").write_text(toml.read_text().replace('"image"', '""'))
    (folder / "items.csv").write_bytes((source / "items.csv").read_bytes())
    head, *lines = (source / "interactions.csv").read_text().splitlines(keepends=True)
    times = np.array([int(line.rsplit(",", 1)[1]) for line in lines])
    edges = np.searchsorted(times, times[-1] - 7 * 86_400 * np.arange(10, -1, -1), "right").tolist()
    (folder / "interactions.csv").write_text(head + "".join(lines[: edges[0]]))
    dataset = prepare(folder, None, tmp_path / "run/data/prepared")
    (tmp_path / "run/evaluate").mkdir()
    run: Any = StandIn(tmp_path / "run", folder)
    known = nothing_yet(run)
    for n, (start, stop) in enumerate(pairwise(edges)):
        path = tmp_path / f"{n}.csv"
        path.write_text(head + "".join(lines[start:stop]))
        batch, counted = read_batch(path, dataset, known)
        assert (counted.events, counted.known) == (stop - start, 0)
        known = replace(known, batches=(*known.batches, batch))
    assert len(known.batches) == 10
    live = live_dataset(dataset, known)
    # One fit over all: every user with two ratings or more, by a loop over the file.
    lists: dict[str, list[list[Any]]] = {}
    row_of = {item: row for row, item in enumerate(dataset.items.ids)}
    for line in lines:
        item, user, _, time = line.split(",")
        lists.setdefault(user, []).append([row_of[item], float(time)])
    every = [(events[0][1], user, events) for user, events in lists.items() if len(events) > 1]
    every.sort(key=lambda each: each[:2])
    train = live.splits["train"]
    assert train.ids == [user for _, user, _ in every]
    flat = np.array([event for *_, events in every for event in events])
    assert (train.items == flat[:, 0]).all()
    assert (train.times == flat[:, 1]).all()
    settings = {
        "recent popularity": {"half-life / training period": 0.03},
        "Markov + popularity": {"backoff": 100.0},
        "item-kNN": {"shrink": 10.0, "length power": 0.0, "decay": 0.5},
    }
    once = replace(known, batches=())
    path.write_text(head + "".join(lines[edges[0] :]))
    once = replace(once, batches=(read_batch(path, dataset, once)[0],))
    for name in settings:
        chosen = Chosen(name, settings, 20_000)
        many, one = (codec.encode(count_anew(chosen, dataset, k, {})) for k in (known, once))
        assert many[0] == one[0]
        assert {k: v.tobytes() for k, v in many[1].items()} == {
            k: v.tobytes() for k, v in one[1].items()
        }
