"""The referee (plain numpy, nothing of jmrec) agrees with jmrec to the last digit shown."""

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jmrec.data.schema import Dataset, Items, Sessions
from jmrec.evaluation.dump import dump_topk
from jmrec.evaluation.figures import figures
from jmrec.evaluation.protocol import make_predictions, rank
from jmrec.evaluation.rankers.known import Known
from jmrec.evaluation.rankers.popularity import StaticRule
from jmrec.evaluation.rankers.rules import RULES

REFEREE = Path(__file__).with_name("referee.py")
V = 60


def sessions(rng: np.random.Generator, count: int, longest: int) -> Sessions:
    """Random walks with jumps, so that rules find something, some longer than the window."""
    lists = []
    for _ in range(count):
        steps = rng.choice([1, 2, 17], p=[0.5, 0.3, 0.2], size=rng.integers(1, longest))
        lists.append((rng.integers(0, V) + np.cumsum(steps)) % V)
    flat = np.concatenate(lists).astype(np.int32)
    return Sessions(
        ids=[str(index) for index in range(count)],
        users=np.full(count, -1, np.int32),
        offsets=np.cumsum([0, *map(len, lists)]).astype(np.int64),
        items=flat,
        times=np.arange(len(flat), dtype=np.float64),
        events=np.zeros(len(flat), np.int32),
        ratings=np.zeros(len(flat), np.float32),
    )


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    rng = np.random.default_rng(0)
    titles = [f"title {row % 7}" for row in range(V)]
    items = Items([str(row) for row in range(V)], titles, {"title": titles}, [b""] * V)
    splits = {"train": sessions(rng, 80, 12), "test": sessions(rng, 50, 70)}
    return Dataset("walks", items, splits, exclude_seen=False, fingerprint="")


@pytest.fixture(scope="module")
def judge():
    spec = importlib.util.spec_from_file_location("referee", REFEREE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.judge


def shown(table: dict[str, dict[str, float]]) -> list[str]:
    """What the referee prints: percent with four decimals."""
    return [
        " ".join([figure, *(f"{name} {100 * value:.4f}" for name, value in row.items())])
        for figure, row in table.items()
    ]


@pytest.mark.parametrize("exclude_seen", [False, True])
def test_the_referee_agrees_on_every_metric(dataset, judge, tmp_path, exclude_seen: bool) -> None:
    asked = make_predictions(dataset.splits["test"])
    rules = [first for grid in RULES.values() if (first := next(grid(Known(dataset)), None))]
    assert len(rules) == len(RULES)
    for index, rule in enumerate(rules):
        ranked = rank(rule, asked, n_items=V, exclude_seen=exclude_seen, item_chunk=25)
        path = tmp_path / f"{index}.npz"
        dump_topk(path, asked, ranked)
        assert shown(judge(path)) == shown(figures(ranked.ranks[0], asked))
        if rule.name == "item-kNN":
            assert 0.1 < (ranked.ranks <= 20).mean() < 1
    assert not list(tmp_path.glob("*.partial"))


def test_the_referee_agrees_where_all_is_tied(dataset, judge, tmp_path) -> None:
    asked = make_predictions(dataset.splits["test"])
    few = StaticRule("few values", (np.arange(V) % 10 == 0).astype(np.float32))
    ranked = rank(few, asked, n_items=V, exclude_seen=False)
    dump_topk(tmp_path / "tied.npz", asked, ranked)
    # A target among the six best ties with the other five.
    assert set(np.unique(ranked.ranks)) == {6, V}
    assert shown(judge(tmp_path / "tied.npz")) == shown(figures(ranked.ranks[0], asked))


def test_the_referee_is_a_script(dataset, tmp_path) -> None:
    asked = make_predictions(dataset.splits["test"])
    ranked = rank(next(RULES["EASE"](Known(dataset))), asked, n_items=V, exclude_seen=True)
    dump_topk(tmp_path / "dump.npz", asked, ranked)
    command = [sys.executable, str(REFEREE), str(tmp_path / "dump.npz")]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert out.splitlines() == shown(figures(ranked.ranks[0], asked))


def test_the_dump_holds_plain_arrays_only(dataset, tmp_path) -> None:
    asked = make_predictions(dataset.splits["test"])
    ranked = rank(next(RULES["item-kNN"](Known(dataset))), asked, n_items=V, exclude_seen=True)
    path = tmp_path / "sub" / "dump.npz"
    dump_topk(path, asked, ranked)
    with np.load(path, allow_pickle=False) as file:
        assert set(file.files) == {
            *("session", "position", "target", "is_last", "length", "user", "ids", "scores")
        }
        assert file["ids"].shape == file["scores"].shape == (len(asked), 20)
        assert file["position"].max() > 50


def test_the_referee_is_short_and_knows_nothing_of_jmrec() -> None:
    source = REFEREE.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 60
    names = {
        alias.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert names == {"sys", "numpy"}
