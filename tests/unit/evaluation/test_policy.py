"""The candidate policy: what may be recommended, and what a correction does to the figures."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jmrec.data.schema import Dataset, Items
from jmrec.errors import UserError
from jmrec.evaluation.effect import Pinned, correction_effect
from jmrec.evaluation.policy import (
    Availability,
    Correction,
    make_policy,
    parse_correction,
    read_correction,
    read_time,
)
from jmrec.evaluation.protocol import Predictions, Prefixes, ask, make_predictions, rank
from jmrec.evaluation.rankers.blend import fit_blend
from jmrec.evaluation.results import make_cost
from jmrec.evaluation.summary import Row, default_caption, summarise
from jmrec.report.page import write_report
from jmrec.report.sentences import sentences
from jmrec.report.serving import policy_table, serving_table

IDS = ["a", "b", "c", "d", "e", "f"]


class ByRow:
    """Scores items by their row, the last the best."""

    name = "by row"

    def prepare(self, features: object) -> None:
        pass

    def scores(self, prefixes: Prefixes, item_slice: slice) -> np.ndarray:
        return np.repeat(np.arange(6.0)[None, item_slice], len(prefixes), 0)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("allow = [", "no valid TOML"),
        ("blok = []", "'blok' is unknown; there are allow, block, pin"),
        ('block = "a"', "block is no list; write block = "),
        ("block = [true]", "block, entry 1: True is no item id"),
        ("pin = [[1]]", "pin, entry 1"),
        ("a = " + "[" * 5000, "no valid TOML"),
        ("pin = [" + "9" * 5000 + "]", "no valid TOML"),
        ("pin = [0x" + "f" * 5000 + "]", "pin, entry 1: a huge number is no item id"),
    ],
)
def test_a_broken_policy_file_is_one_sentence(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        read_correction(path)
    assert says in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_policy_file_that_is_none_is_one_sentence(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.toml")
    for place in (tmp_path, tmp_path / "none.toml", tmp_path / "pipe.toml", Path("/dev/zero")):
        with pytest.raises(UserError, match="can not be read"):
            read_correction(place)
    (tmp_path / "latin.toml").write_bytes(b'pin = ["\xe9"]')
    with pytest.raises(UserError, match="no valid TOML"):
        read_correction(tmp_path / "latin.toml")


@pytest.mark.parametrize(
    ("lists", "says"),
    [
        ({"block": ["a", "item-0x"]}, "block, entry 2: item 'item-0x' .*did you mean 'item-0'"),
        ({"allow": ["zzz"]}, "allow, entry 1: item 'zzz' .*run jmrec embed"),
        ({"pin": ["b"], "block": ["b"]}, "'b' is pinned and is blocked too"),
        ({"pin": ["b"], "allow": ["a"]}, "'b' is pinned and is not in the allow-list"),
        ({"allow": ["a"], "block": ["a"]}, "leaves no item"),
        ({"allow": []}, "leaves no item"),
    ],
)
def test_a_policy_that_does_not_fit_is_one_sentence(lists: dict, says: str) -> None:
    correction = parse_correction(lists, "policy.toml")
    with pytest.raises(UserError, match=says):
        make_policy([*IDS, "item-0"], True, correction, where="policy.toml")


@pytest.mark.parametrize("text", ["tomorrow", "nan", "inf", "", "2026-13-01"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="is no time"):
        read_time(text)


def test_times_are_in_utc_unless_they_say_so() -> None:
    assert read_time("2026-07-31") == read_time("2026-07-31T02:00:00+02:00") == 1785456000.0


def test_candidates_are_what_is_left() -> None:
    start = np.array([-np.inf, 10.0, -np.inf, -np.inf, -np.inf, -np.inf])
    windows = Availability(start, np.full(6, np.inf))
    policy = make_policy(IDS, True, Correction(block=("f",)), windows)
    seen = [np.array([0, 2]), np.array([3])]
    assert policy.candidates(seen, 9.0).tolist() == [
        [False, False, False, True, True, False],
        [True, False, True, False, True, False],
    ]
    assert policy.candidates(seen, 10.0)[:, 1].all()
    assert replace(policy, exclude_seen=False).candidates(seen, 10.0)[:, :5].all()


def items(count: int, **more: np.ndarray) -> Items:
    made = Items(IDS[:count], IDS[:count], {"title": IDS[:count]}, [b""] * count)
    for name, array in more.items():
        object.__setattr__(made, name, array)
    return made


def test_windows_come_from_the_catalogue() -> None:
    assert Availability.of(items(2)) is None
    none = np.array([-np.inf, -np.inf])
    assert Availability.of(items(2, available_from=none, available_until=-none)) is None
    found = Availability.of(items(2, available_from=np.array([3.0, np.nan])))
    assert found.start.tolist() == [3.0, -np.inf]
    assert found.stop.tolist() == [np.inf, np.inf]
    again = Availability.from_json({"ids": [], **found.to_json()})
    assert again.start.tolist() == found.start.tolist()
    assert Availability.from_json({"ids": ["a"]}) is None


@pytest.fixture
def asked(make_sessions: Callable) -> Predictions:
    """Three sessions: after 0 comes 3, after 1 comes 4, after 5 comes 2, at times 0, 10 and 20."""
    times = [[0.0, 1.0], [10.0, 11.0], [20.0, 21.0]]
    return make_predictions(make_sessions([[0, 3], [1, 4], [5, 2]], None, times))


def test_what_is_not_available_at_the_time_is_no_candidate(asked: Predictions) -> None:
    start = np.array([-np.inf, -np.inf, -np.inf, -np.inf, -np.inf, 15.0])
    stop = np.array([np.inf, np.inf, 20.0, 5.0, np.inf, np.inf])
    windows = replace(asked, available=Availability(start, stop))
    for chunk in (2, 8192):
        found = rank(ByRow(), windows, n_items=6, exclude_seen=True, top=6, item_chunk=chunk)
        # At 0 item 5 is not there yet; at 10 items 5 and 3 are not; at 20 item 2 still is.
        assert found.top_ids.tolist() == [
            [4, 3, 2, 1, -1, -1], [4, 2, 0, -1, -1, -1], [4, 2, 1, 0, -1, -1],
        ]  # fmt: skip
        assert found.ranks[0].tolist() == [2, 1, 2]
    gone = replace(windows, available=Availability(start, np.full(6, 5.0)))
    assert rank(ByRow(), gone, n_items=6, exclude_seen=True).ranks[0].tolist()[1:] == [21, 21]
    part = windows.take(np.array([2]))
    assert rank(ByRow(), part, n_items=6, exclude_seen=True).ranks[0].tolist() == [2]


class Backwards(ByRow):
    """Scores items by their row, the first the best."""

    name = "backwards"

    def scores(self, prefixes: Prefixes, item_slice: slice) -> np.ndarray:
        return -super().scores(prefixes, item_slice)


def test_a_blend_chooses_among_the_same_candidates(make_sessions: Callable) -> None:
    asked = make_predictions(make_sessions([[0, 2], [0, 2]]))
    rankers = [ByRow(), Backwards()]
    open_to_all = fit_blend(rankers, asked, n_items=6, exclude_seen=True)
    assert "backwards" in open_to_all.settings  # 1 stands before 2; by row, 5, 4 and 3 do
    stop = np.array([np.inf, np.inf, np.inf, -9.0, -9.0, -9.0])
    windows = replace(asked, available=Availability(np.full(6, -np.inf), stop))
    blend = fit_blend(rankers, windows, n_items=6, exclude_seen=True)
    assert blend.settings == {"by row": 1.0}


def test_a_data_set_without_time_has_no_windows(make_dataset: Callable, asked: Predictions) -> None:
    dataset: Dataset = make_dataset(dict.fromkeys(("train", "test"), _sessions(asked)), IDS)
    late = items(6, available_from=np.full(6, 1e9))
    assert ask(replace(dataset, items=late, has_time=False), "test").available is None
    found = ask(replace(dataset, items=late), "test")
    assert found.available.start.tolist() == [1e9] * 6
    assert "available at the time" in default_caption(dataset, "test", found)
    assert "available" not in default_caption(dataset, "test", asked)
    few, enough = (replace(dataset, items=Items([""] * n, [], {}, [])) for n in (199, 200))
    assert "HR@20 says little (20 items drawn by lot hit 10%)" in default_caption(
        few, "test", asked
    )
    assert "says little" not in default_caption(enough, "test", asked)


def _sessions(asked: Predictions) -> object:
    from jmrec.data.schema import Sessions

    return Sessions(
        ids=["0", "1", "2"], users=np.full(3, -1), offsets=np.array([0, 2, 4, 6]),
        items=asked.seen_items, times=np.arange(6.0), events=np.zeros(6), ratings=np.zeros(6),
    )  # fmt: skip


def test_pinned_items_stand_first_whatever_the_slices(asked: Predictions) -> None:
    pinned = Pinned(ByRow(), np.array([3, 1]))
    for chunk in (1, 2, 8192):
        found = rank(pinned, asked, n_items=6, exclude_seen=True, top=3, item_chunk=chunk)
        # Item 1 is in the second session already.
        assert found.top_ids.tolist() == [[3, 1, 5], [3, 5, 4], [3, 1, 4]]
        assert found.ranks[0].tolist() == [1, 3, 4]


def test_the_effect_of_a_correction(
    asked: Predictions, make_dataset: Callable, tmp_path: Path
) -> None:
    ranker = ByRow()
    plain = Row("small", "student", [rank(ranker, asked, n_items=6, exclude_seen=True)])
    assert plain.ranks().tolist() == [[3, 2, 3]]
    correction = Correction(block=("f", "c"), pin=("d",))
    policy = make_policy(IDS, True, correction)
    effect = correction_effect(plain, [ranker], asked, policy)
    # 3 is pinned: rank 1; 5 is blocked, so 4 stands behind 3 only; 2 is blocked.
    after = (1 + 1 / 2 + 0) / 3
    assert effect["figures"]["without"]["MRR@20"] == pytest.approx((1 / 3 + 1 / 2 + 1 / 3) / 3)
    assert effect["figures"]["with"]["MRR@20"] == pytest.approx(after)
    assert effect["targets lost"] == pytest.approx(1 / 3)
    assert effect["comparisons"][0]["difference"] == pytest.approx(after - 7 / 18)
    counts = {name: effect[name] for name in ("allowed", "blocked", "pinned", "candidates")}
    assert counts == {"allowed": None, "blocked": 2, "pinned": 1, "candidates": 4}
    # Before, 5 4 3 2 1 and 5 4 3 2 0 and 4 3 2 1 0; then 3 4 1 and 3 4 0 and 3 4 1 0.
    assert effect["top 20 changed"] == pytest.approx((4 + 4 + 5) / 60)
    dataset = make_dataset({"train": _sessions(asked), "test": _sessions(asked)}, IDS)
    results = summarise([plain], asked, dataset, "test", policy=effect)
    table = policy_table(results)
    assert "No allow-list, 2 blocked, 1 pinned; 4 of 6 items" in table.note
    assert [cell.text for cell in table.lines[0].cells] == ["38.89", "50.00", "+11.11"]
    page = write_report(results, tmp_path / "report.html").read_text()
    assert "Correction by people" in page
    assert "policy" not in summarise([plain], asked, dataset, "test")


SERVING = {
    "served": {"name": "distilled", "parameters": 1000, "parameter_bytes": 4000,
                "table_bytes": 2_000_000, "median_ms": 0.5, "p99_ms": 1.0},
    "teacher": {"name": "Transfer tower", "parameters": 3000, "parameter_bytes": 12_000,
                "table_bytes": 9_000_000, "median_ms": 2.0, "p99_ms": 8.0},
    "items": 3322, "bytes": 4_900_000, "calls": 200,
    "seconds": {"import jax": 1.0, "load": 0.25},
}  # fmt: skip


def test_what_is_served_stands_in_the_report(tmp_path: Path) -> None:
    cost = {**make_cost(), "serving": SERVING}
    table = serving_table(cost)
    assert table.columns == ["distilled", "Transfer tower"]
    shown = {line.name: [cell.text for cell in line.cells] for line in table.lines}
    assert shown["parameters"] == ["1,000", "3,000"]
    assert shown["one session, median, ms"] == ["0.50", "2.00"]
    assert shown["tables of the items, MB"] == ["2.00", "9.00"]
    assert "4.90 MB for 3,322 items" in table.note
    assert "import jax 1.00 s, load 0.25 s" in table.note
    comparison = {"a": "distilled", "b": "teacher", "figure": "session", "metric": "MRR@20",
                  "difference": -0.003, "interval": [-0.013, 0.004]}  # fmt: skip
    results = {
        "comparisons": [comparison],
        "served": {"row": "distilled", "beside": ["teacher"]},
    }
    said = " ".join(sentences(results, cost))
    assert "4.0 times as fast" in said
    assert "−0.30 (−1.30 to +0.40) against teacher" in said
    page = write_report(results, tmp_path / "report.html", cost).read_text()
    assert "4.0 times as fast" in page
    slower = {**SERVING, "served": {**SERVING["served"], "median_ms": 3.0}}
    assert "1.5 times as slow" in " ".join(sentences({}, {"serving": slower}))
    for broken in ({}, {"serving": {}}, {"serving": {"teacher": {"name": "x"}}}):
        assert serving_table(broken) is None
        assert not any("Serving" in each for each in sentences({}, broken))
    alone = {**make_cost(), "serving": {**SERVING, "teacher": None}}
    shown = serving_table(alone)
    assert shown.columns == ["distilled"]
    assert "teacher" not in shown.note + " ".join(sentences(results, {**alone})).split("Its")[0]
