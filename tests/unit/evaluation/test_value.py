"""What 1,000 lists are worth, against plain loops and a bootstrap drawn user by user."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from jmrec.data.schema import Dataset, Value
from jmrec.evaluation.figures import figures
from jmrec.evaluation.protocol import Predictions, Ranked, make_predictions
from jmrec.evaluation.rankers.popularity import StaticRule
from jmrec.evaluation.summary import Row, measure, summarise
from jmrec.evaluation.value import worth_of_lists

V = 30
FIGURES = ("session", "prediction", "last")


def some(seed: int, make_sessions: Callable[..., Any], users: bool = True) -> Predictions:
    rng = np.random.default_rng(seed)
    lists = [rng.integers(0, V, rng.integers(2, 60)).tolist() for _ in range(25)]
    own = rng.integers(0, 9, 25).tolist() if users else None
    return make_predictions(make_sessions(lists, own))


def row_of(asked: Predictions, name: str, kind: str, seeds: int, seed: int) -> Row:
    ranks = np.random.default_rng(seed).integers(1, V + 11, (seeds, len(asked)))
    top = np.zeros((len(asked), 20), np.int32)
    return Row(name, kind, [Ranked(one[None], top, top.astype(np.float32)) for one in ranks])


def draw_value(seed: int) -> Value:
    """Prices with gaps; margins of three items lose money, one is missing where a price is not."""
    rng = np.random.default_rng(seed)
    sold = rng.lognormal(3, 1, V).round(2)
    sold[rng.permutation(V)[:6]] = np.nan
    if seed % 2:
        return Value("price", sold, 0.3)
    gained = (0.4 * sold).round(2)
    gained[:3], gained[3] = -5.0, np.nan
    return Value("price", sold, gain="margin", gained=gained)


def by_loop(asked: Predictions, row: Row, worth: np.ndarray, figure: str) -> dict[Any, list[float]]:
    """Return the worth of a list of each unit that a figure averages, by whom it is drawn with."""
    lists: dict[Any, dict[int, list[float]]] = {}
    for i in range(len(asked)):
        used = {"session": asked.place[i] <= 20, "prediction": asked.place[i] <= 50,
                "last": asked.is_last[i]}[figure]  # fmt: skip
        if not used:
            continue
        total = 0.0
        for one in row.ranked:
            gain = worth[asked.target[i]]
            if one.ranks[0, i] <= 20 and not np.isnan(gain):
                total += gain
        user, session = int(asked.user[i]), int(asked.session[i])
        who = ("user", user) if user >= 0 else ("session", session)
        unit = session if figure == "session" else i
        lists.setdefault(who, {}).setdefault(unit, []).append(1000 * total / len(row.ranked))
    return {who: [float(np.mean(x)) for x in own.values()] for who, own in lists.items()}


def mean_of(units: dict[Any, list[float]]) -> float:
    return float(np.mean([x for own in units.values() for x in own]))


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_worth_by_a_plain_loop(seed: int, make_sessions: Callable[..., Any]) -> None:
    asked = some(seed, make_sessions, users=seed != 3)
    rows = [row_of(asked, "popularity", "rule", 1, seed), row_of(asked, "ours", "student", 3, 9)]
    value = draw_value(seed)
    found = worth_of_lists(rows, asked, value, "popularity")
    assert list(found["rows"]) == ["popularity", "ours"]
    for row in rows:
        for figure in FIGURES:
            line = found["rows"][row.name][figure]
            for key, worth in (("value", value.gained), ("sales", value.sold)):
                expected = mean_of(by_loop(asked, row, worth, figure))
                assert line[key] == pytest.approx(expected, rel=1e-12)
                assert expected > 0  # so that there is something to compare
    targets = asked.target
    assert found["items"] == {"all": V, "without": sum(np.isnan(x) for x in value.gained)}
    without = sum(np.isnan(value.gained[t]) for t in targets)
    assert found["targets"] == {"all": len(targets), "without": without}
    assert without > 0


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_intervals_by_a_direct_bootstrap(seed: int, make_sessions: Callable[..., Any]) -> None:
    """Whole users (or sessions, where nobody is known) are drawn, the same for both rows."""
    asked = some(seed, make_sessions, users=seed != 3)
    rows = [row_of(asked, "popularity", "rule", 1, seed), row_of(asked, "ours", "student", 3, 9)]
    value = draw_value(seed)
    found = worth_of_lists(rows, asked, value, "popularity")["rows"]
    for figure in FIGURES:
        rule, ours = (by_loop(asked, row, value.gained, figure) for row in rows)
        # The order of jmrec's clusters: users by their code; sessions from the last to the first.
        people = sorted(rule, key=lambda who: who[1] if who[0] == "user" else -1 - who[1])
        draws = np.random.default_rng(0)
        own, apart = [], []
        for _ in range(2000):
            drawn = [people[k] for k in draws.integers(0, len(people), len(people))]
            mine = [x for who in drawn for x in ours[who]]
            its = [x for who in drawn for x in rule[who]]
            own.append(np.mean(mine))
            apart.append(np.mean(mine) - np.mean(its))
        line = found["ours"][figure]
        np.testing.assert_allclose(line["interval"], np.quantile(own, [0.025, 0.975]), rtol=1e-6)
        over = line["over rule"]
        assert over["difference"] == pytest.approx(mean_of(ours) - mean_of(rule), rel=1e-9)
        low, high = np.quantile(apart, [0.025, 0.975])
        np.testing.assert_allclose(over["interval"], [low, high], rtol=1e-6)
        assert over["verdict"] == (
            "above" if low > 0 else "below" if high < 0 else "not told apart"
        )
        assert "over rule" not in found["popularity"][figure]


def test_above_needs_three_seeds(make_sessions: Callable[..., Any]) -> None:
    asked = some(0, make_sessions)
    lost, won = (row_of(asked, *each, 5) for each in (("rule", "rule", 1), ("ours", "student", 1)))
    lost.ranked[0].ranks[:], won.ranked[0].ranks[:] = 21, 1
    over = worth_of_lists([lost, won], asked, draw_value(1), "rule")["rows"]["ours"]["session"]
    assert over["over rule"]["interval"][0] > 0
    assert over["over rule"]["verdict"] == "not told apart"
    assert "fewer than 3 seeds" in over["over rule"]["reason"]
    won.ranked = [*won.ranked] * 3
    over = worth_of_lists([lost, won], asked, draw_value(1), "rule")["rows"]["ours"]["session"]
    assert over["over rule"]["verdict"] == "above"


def test_a_value_of_1_is_the_hit_rate_and_nothing_known_is_worth_0(
    make_sessions: Callable[..., Any],
) -> None:
    asked = some(2, make_sessions)
    row = row_of(asked, "ours", "student", 3, 4)
    found = worth_of_lists([row], asked, Value("price", np.ones(V)), None)
    hits = figures(row.ranks(), asked)
    for figure in FIGURES:
        line = found["rows"]["ours"][figure]
        assert line["value"] == pytest.approx(1000 * hits[figure]["HR@20"])
        assert "over rule" not in line
    nothing = worth_of_lists([row], asked, Value("price", np.full(V, np.nan)), None)
    assert nothing["rows"]["ours"]["session"]["value"] == 0
    assert nothing["rows"]["ours"]["session"]["interval"] == [0, 0]
    nobody = asked.take(np.zeros(0, int))
    empty = Row("ours", "student", [Ranked(np.zeros((1, 0), int), np.zeros((0, 20), np.int32),
                                           np.zeros((0, 20), np.float32))])  # fmt: skip
    line = worth_of_lists([empty], nobody, Value("price", np.ones(V)), None)["rows"]["ours"]
    assert line["session"] == {"sales": None, "value": None, "interval": [None, None]}


@pytest.mark.parametrize("exclude_seen", [False, True])
def test_an_item_that_is_no_candidate_sells_nothing(
    exclude_seen: bool, make_sessions: Callable[..., Any], make_dataset: Callable[..., Dataset]
) -> None:
    """The sessions go back to an item: where what was seen is left out, no list can hold it."""
    sessions = make_sessions([[0, 0], [1, 2], [2, 1, 2]])
    splits = dict.fromkeys(("train", "validation", "test"), sessions)
    dataset = make_dataset(splits, ["x"] * V, exclude_seen=exclude_seen)
    asked = make_predictions(sessions)
    rule = StaticRule("popularity", np.arange(V, 0, -1, dtype=np.float32))
    row = measure("popularity", "rule", [rule], asked, asked, n_items=V,
                  exclude_seen=exclude_seen, cold=np.zeros(V, bool))  # fmt: skip
    sold = np.arange(V) + 10.0
    value = Value("price", sold)
    found = worth_of_lists([row], asked, value, "popularity")["rows"]["popularity"]
    seen = 0.0 if exclude_seen else 1.0
    lists = [seen * 10, 12, 11, seen * 12]
    assert found["prediction"]["value"] == pytest.approx(1000 * np.mean(lists))
    by_session = [lists[0], lists[1], np.mean(lists[2:])]
    assert found["session"]["value"] == pytest.approx(1000 * np.mean(by_session))
    # results.json of data without a value has no such part.
    assert "value" not in summarise([row], asked, dataset, "test")
