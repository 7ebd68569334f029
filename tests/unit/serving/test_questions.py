"""What is asked in odd forms: read as it is meant, or refused by a sentence without flags."""

import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest

from jmrec.errors import UserError
from jmrec.evaluation.policy import Availability, make_policy
from jmrec.evaluation.protocol import Prefixes
from jmrec.serving import Served

IDS = ["1", "2", "12", "7", "0007"]


class Noted:
    """A ranker that notes what it was asked: rows, gaps and event types of each session."""

    name = "noted"

    def __init__(self) -> None:
        self.asked: list[tuple[list[int], list[float], list[int]]] = []

    def scores(self, prefixes: Prefixes, item_slice: slice) -> np.ndarray:
        for row in range(len(prefixes)):
            kept = slice(0, int(prefixes.end[row]) + 1)
            given = (prefixes.windows, prefixes.gaps, prefixes.events)
            self.asked.append(tuple(each[row, kept].tolist() for each in given))
        return np.repeat(np.arange(5, dtype=np.float32)[None, item_slice], len(prefixes), 0)


@pytest.fixture
def served() -> Served:
    # Item "12" may be recommended in January 1970 only, item "7" from February on.
    february = 31 * 86_400.0
    start = np.array([-np.inf, -np.inf, -np.inf, february, -np.inf])
    stop = np.array([np.inf, np.inf, february - 1, np.inf, np.inf])
    policy = make_policy(IDS, True, None, Availability(start, stop))
    return Served(Noted(), IDS, IDS, policy, "here", ["", "buy", "view"])


def rows(served: Served) -> list[list[int]]:
    return [each[0] for each in served.ranker.asked]


@pytest.mark.parametrize(
    "session",
    [
        ["12", "7"], ("12", "7"), [12, 7], [12.0, "7"], np.array([12, 7]), np.array([12.0, 7.0]),
        np.array(["12", "7"]), [np.int32(12), np.str_("7")], [np.uint8(12), np.float32(7)],
        iter(["12", 7]), np.array(["12", 7], object),
    ],
)  # fmt: skip
def test_ids_as_numbers_are_the_items_of_that_name(served: Served, session: Any) -> None:
    served.recommend(session, top=1)
    assert rows(served) == [[2, 3]]


def test_a_number_is_not_an_id_with_zeros(served: Served) -> None:
    served.recommend(["0007"])
    served.recommend([7])
    assert rows(served) == [[4], [3]]


@pytest.mark.parametrize(
    ("session", "says"),
    [
        ("12", "'12', which is no list of item ids"),
        (b"12", "no list of item ids"),
        ({"12"}, "no list of item ids"),
        ({"12": 1}, "no list of item ids"),
        (12, "12, which is no list of item ids"),
        (None, "None, which is no list of item ids"),
        (np.array([[1, 2]]), "no list of item ids"),
        (np.array(1), "no list of item ids"),
        (["1", 2.5], "entry 2 of the session is 2.5, which is no id"),
        (["1", None], "entry 2 of the session is None, which is no id"),
        ([True], "entry 1 of the session is True, which is no id"),
        ([np.bool_(True)], "is True, which is no id"),
        ([math.nan], "is nan, which is no id"),
        ([math.inf], "is inf, which is no id"),
        ([["1"]], r"is \['1'\], which is no id"),
        ([b"1"], "is b'1', which is no id"),
        ([10**5000], "is a huge number, which is no id"),
        ([], "the session is empty"),
        (np.array([]), "the session is empty"),
    ],
)
def test_what_is_no_session_is_one_sentence(served: Served, session: Any, says: str) -> None:
    for ask in (served.recommend, lambda each: served.recommend_batch([["1"], each])):
        with pytest.raises(UserError, match=says) as told:
            ask(session)
        assert "--" not in str(told.value)
        assert "\n" not in str(told.value)
    with pytest.raises(UserError, match="no list of sessions"):
        served.recommend_batch("12")
    with pytest.raises(UserError, match="no list of item ids"):
        served.recommend_batch(["12"])  # a session, where several are asked for


@pytest.mark.parametrize("top", [2, np.int64(2), np.uint8(2), 2.0, np.float32(2)])
def test_a_whole_number_says_how_many(served: Served, top: Any) -> None:
    assert [each["item_id"] for each in served.recommend(["1"], top, at=0)] == ["0007", "12"]


@pytest.mark.parametrize(
    "top",
    [
        "5",
        2.5,
        0,
        -1,
        np.int64(0),
        math.nan,
        math.inf,
        None,
        True,
        [3],
        "",
        1 + 1j,
        10**400,
        [10**5000],
    ],
)
def test_a_senseless_top_is_one_sentence(served: Served, top: Any) -> None:
    with pytest.raises(UserError, match=r"^top is .*(no whole number|1 item or more)"):
        served.recommend(["1"], top)


def test_a_huge_top_is_the_whole_catalogue(served: Served) -> None:
    assert len(served.recommend(["1"], 10**30, at=0)) == 3


@pytest.mark.parametrize(
    ("at", "january"),
    [
        (0, True), (86_400.5, True), (np.int64(9), True), (np.float32(9), True),
        ("1970-01-20", True), ("1970-03-01T10:00:00", False), ("86400", True),
        (datetime(1970, 1, 31, 23, 59, 58), True), (datetime(1970, 2, 1, tzinfo=UTC), False),
        (datetime(1970, 1, 31, 23, 30, tzinfo=timezone(timedelta(hours=-1))), False),
        (np.datetime64("1970-01-31"), True), (np.datetime64("1970-02-02T10:00", "ms"), False),
        (None, False),
    ],
)  # fmt: skip
def test_times_are_read_in_every_form(served: Served, at: Any, january: bool) -> None:
    found = [each["item_id"] for each in served.recommend(["1"], 5, at=at)]
    assert found == ["0007", "12" if january else "7", "2"]


@pytest.mark.parametrize(
    ("at", "says"),
    [
        ("tomorrow", "no time"), ("", "no time"), (math.nan, "no time"), (math.inf, "no time"),
        (True, "no time"), ([0], "no time"), (np.datetime64("NaT"), "no time"),
        (1_760_000_000_000, "milliseconds"), (-(10**300), "milliseconds"),
        (10**400, "no time"), ([10**5000], "no time"),
    ],
)  # fmt: skip
def test_a_senseless_time_is_one_sentence(served: Served, at: Any, says: str) -> None:
    with pytest.raises(UserError, match=rf"^at.*{says}"):
        served.recommend(["1"], at=at)
    with pytest.raises(UserError, match=rf"^times, entry 2.*{says}"):
        served.recommend(["1", "2"], times=[0, at])


def test_times_of_clicks_become_pauses_in_every_form(served: Served) -> None:
    hour = datetime(1970, 1, 1, 1)
    for times in (
        [0, 3600], ["1970-01-01", "1970-01-01T01:00"], [datetime(1970, 1, 1), hour],
        np.array([0, 3600]), np.array(["1970-01-01", "1970-01-01T01"], "M8[s]"),
    ):  # fmt: skip
        served.ranker.asked.clear()
        served.recommend(["1", "2"], times=times)
        ((_, gaps, _),) = served.ranker.asked
        assert gaps == pytest.approx([0, math.log(3601)])
    for times in ("12", 5, [0], [0, 1, 2], [[0, 1]]):
        with pytest.raises(UserError, match=r"times"):
            served.recommend(["1", "2"], times=times)
    with pytest.raises(UserError, match="times has 1 lists for 2 sessions"):
        served.recommend_batch([["1"], ["2"]], times=[[0]])
    for events in ("buy", ["buy"], [["buy", "buy"]], ["buy", 7], ["buy", ["view"]]):
        with pytest.raises(UserError, match="event"):
            served.recommend(["1", "2"], events=events)


def test_unknown_items_are_skipped_with_what_is_said_of_them(served: Served) -> None:
    found = served.recommend(
        ["x", "1", "y", 12, "x"], 2, at=0, times=[0, 10, 20, 40, 90],
        events=["buy", "view", "buy", "", "buy"],
    )  # fmt: skip
    assert served.ranker.asked == [([0, 2], pytest.approx([0, math.log(31)]), [2, 0])]
    assert found.unknown == ["x", "y", "x"]
    assert [each["item_id"] for each in found] == ["0007", "2"]
    batch = served.recommend_batch([["1", "z"], ["q"], ["2"]], 1, times=[[0, 1], [5], [7]])
    assert [each.unknown for each in batch] == [["z"], ["q"], []]
    assert [len(each) for each in batch] == [1, 0, 1]
    assert rows(served)[1:] == [[0], [1]]


def test_unknown_items_are_refused_where_that_is_asked(served: Served) -> None:
    with pytest.raises(UserError, match="item 'z' is not in the catalogue of here"):
        served.recommend_batch([["1"], ["2", "z"]], unknown="refuse")
    with pytest.raises(UserError, match="item 'z' is not in the catalogue"):
        served.recommend(["z", "zz"])  # nothing is left to answer for
    assert served.recommend_batch([["1"], ["2"]], unknown="refuse")[0].unknown == []
    for unknown in ("raise", None, 1, ["skip"]):
        with pytest.raises(UserError, match=r"unknown is .*; choose one of skip, refuse"):
            served.recommend(["1"], unknown=unknown)


def test_long_sessions_keep_the_last_that_are_known(served: Served) -> None:
    served.recommend(["1"] * 9 + ["2", "gone"] * 50)
    assert rows(served) == [[1] * 50]
