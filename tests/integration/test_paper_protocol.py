"""experiments/session.py:protocol=paper on a small benchmark with a test split of its own.

What is chosen by validation is computed here from the files, session by session: the last item of
each, by plain numpy, with no part of jmrec's evaluation.
"""

import csv
import itertools
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from jmrec.config import flatten, load_config
from jmrec.data.prepared import load_prepared
from jmrec.main import main
from jmrec.models.sessions.table import item_vectors, session_model, session_rows
from jmrec.systems.registry import open_run
from jmrec.systems.system import Ranks, able
from jmrec.tracking import Tracker
from tests.integration.session_runs import results

ITEMS, TRAINED, TESTED = 45, 240, 60
TOML = """
[dataset]
name = "bench"
exclude_seen = false

[items]
title = ""
description = ""
picture = ""

[interactions]
file = "train.csv"
test_file = "test.csv"
session = "session"
item = "items"
item_separator = " "
"""
ENCODERS, SEEDS = ("student", "stamp"), (0, 1)
SMALL = ("batch_size=8", "steps=120", "eval_every=10", "save_every=120")
TRAIN = [
    "--config.data.window=12",
    *(f"--config.student.train.{each}" for each in SMALL),
    f"--config.seeds={SEEDS}",
]


def walks(random: np.random.Generator, count: int) -> list[list[int]]:
    """Sessions of 2 to 7 items, of which each mostly follows from the one before; some repeat."""
    found = []
    for _ in range(count):
        session = [int(random.integers(ITEMS))]
        while len(session) < random.integers(2, 8):
            ahead = int(random.choice([0, 1, 1, 2, random.integers(ITEMS)]))
            session.append((session[-1] + ahead) % ITEMS)
        found.append(session)
    return [each for each in found if len(each) > 1]


@pytest.fixture(scope="module")
def sessions() -> dict[str, list[list[int]]]:
    random = np.random.default_rng(5)
    return {"train": walks(random, TRAINED), "test": walks(random, TESTED)}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, sessions: dict[str, list[list[int]]]) -> Path:
    folder = tmp_path_factory.mktemp("paper") / "bench"
    folder.mkdir()
    (folder / "dataset.toml").write_text(TOML)
    with (folder / "items.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["item_id"], *([f"i{n:02}"] for n in range(ITEMS))])
    for name, each in sessions.items():
        with (folder / f"{name}.csv").open("w", newline="") as file:
            rows = [[f"{name}{n}", " ".join(f"i{i:02}" for i in s)] for n, s in enumerate(each)]
            csv.writer(file).writerows([["session", "items"], *rows])
    workdir = folder.parent / "run"
    spec = f"session:data=folder,size=tiny,protocol=paper,encoder={'+'.join(ENCODERS)}"
    words = [f"--config.data.dir={folder}", *TRAIN]
    assert main(["run", "--config", spec, *words, "--workdir", str(workdir)]) == 0
    return workdir


def reciprocal(scores: np.ndarray, target: int) -> float:
    """Return 1 / rank among all items, 0 below 20; ties count against."""
    rank = 1 + sum(s >= scores[target] for i, s in enumerate(scores.tolist()) if i != target)
    return 1 / rank if rank <= 20 else 0.0


def test_the_split_is_the_benchmarks_own_and_its_last_tenth_validates(
    run: Path, sessions: dict[str, list[list[int]]]
) -> None:
    splits = load_prepared(run / "data" / "prepared").splits
    edge = round(0.9 * len(sessions["train"]))
    found = {name: [each.tolist() for each in splits[name]] for name in splits}
    assert found["train"] == sessions["train"][:edge]
    assert found["validation"] == sessions["train"][edge:]
    assert found["test"] == sessions["test"]
    # In training every item is predicted; in the others the last of each session.
    assert splits["train"].targets.all()
    for name in ("validation", "test"):
        ends = splits[name].offsets[1:] - 1
        assert np.flatnonzero(splits[name].targets).tolist() == ends.tolist()


def test_the_best_update_is_chosen_by_the_last_item_of_validation(
    run: Path, sessions: dict[str, list[list[int]]]
) -> None:
    system = able(open_run(run, Tracker(run, quiet=True)), Ranks)
    asked = sessions["train"][round(0.9 * len(sessions["train"])) :]
    for name, seed in itertools.product(ENCODERS, SEEDS):
        stage = f"students/{name}-{seed}"
        metrics = json.loads((run / stage / "metrics.json").read_text())
        encoder = system.students.encoder(name)
        params = system.work.params(stage, encoder.model)
        model, ids = session_model(encoder.model.config), {"ids": encoder.ids}
        table = item_vectors(model, params, ids)
        rows = np.asarray(session_rows(model, params, ids, table))
        values = []
        encode = jax.jit(model.fns["encode_session"])  # one program a length, not one an operation
        for session in asked:
            x = rows[session[:-1]][None]
            states, _ = encode(params, x, np.ones(x.shape[:2], bool))
            scores = np.asarray(states)[0, -1] @ np.asarray(table).T
            values.append(reciprocal(scores, session[-1]))
        assert metrics["best"] == pytest.approx(np.mean(values), abs=1e-6)
        curve = {each["step"]: each["score"] for each in metrics["history"] if "score" in each}
        assert metrics["best"] == pytest.approx(max(curve.values()))
        later = [step for step in curve if step > metrics["best_step"]]
        assert len(later) == 3 or metrics["step"] == 120  # patience, or the end


def test_rules_are_chosen_and_all_rows_judged_by_the_last_item(
    run: Path, sessions: dict[str, list[list[int]]]
) -> None:
    found = results(run)
    row = {each["name"]: each for each in found["rows"]}
    edge = round(0.9 * len(sessions["train"]))
    learned = sessions["train"][:edge]
    count = np.bincount([i for each in learned for i in each], minlength=ITEMS).astype(float)
    for name, part in (("validation", sessions["train"][edge:]), ("test", sessions["test"])):
        mrr = np.mean([reciprocal(count, each[-1]) for each in part])
        if name == "validation":
            chosen = row["popularity"]["settings"]["validation MRR@20"]
            assert chosen == pytest.approx(mrr, abs=1e-5)
        else:
            assert row["popularity"]["figures"]["last"]["MRR@20"] == pytest.approx(mrr)
    for each in found["rows"]:
        assert each["figures"]["session"] == pytest.approx(each["figures"]["last"])
    assert found["dataset"]["predictions"]["scored"] == len(sessions["test"])
    assert "papers call P@20" in found["caption"]
    assert "stay candidates" in found["caption"]


def test_jmrecs_own_protocol_knows_nothing_of_it() -> None:
    own, papers = (
        flatten(load_config(f"session:data=folder{more}")) for more in ("", ",protocol=paper")
    )
    assert "data.targets" not in own
    changed = {name for name in own | papers if own.get(name) != papers.get(name)}
    assert {each.rpartition(".")[0] for each in changed} == {"data", "student.train"}
    assert {"data.targets", "data.fractions"} < changed
    averaged, epoch = (papers[f"student.train.{each}"] for each in ("average", "eval_every"))
    assert (own["student.train.average"], averaged, epoch) == (200, 400, 800)
