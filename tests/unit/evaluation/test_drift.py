"""Figures over time: calendar periods against datetime, values against plain loops."""

from collections import defaultdict
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jmrec.data.schema import Sessions
from jmrec.errors import UserError
from jmrec.evaluation.drift import over_time
from jmrec.evaluation.periods import periods, week_begins
from jmrec.evaluation.protocol import Ranked, at_target, make_predictions
from jmrec.evaluation.summary import Row

DAY = 86400.0


@given(st.integers(-(10**10), 10**11))
def test_periods_are_those_of_the_calendar(time: int) -> None:
    date = datetime.fromtimestamp(0, UTC) + timedelta(seconds=time)
    assert periods(np.array([time]), "month")[0] == date.strftime("%Y-%m")
    assert periods(np.array([time]), "day")[0] == date.strftime("%Y-%m-%d")
    monday = date.date() - timedelta(days=date.weekday())
    assert periods(np.array([time]), "week")[0] == monday.isoformat()
    begin = datetime.fromtimestamp(0, UTC) + timedelta(seconds=float(week_begins(np.array(time))))
    assert begin == datetime(monday.year, monday.month, monday.day, tzinfo=UTC)


def test_an_unknown_period_is_refused() -> None:
    with pytest.raises(UserError, match=r"--by=year is no period; choose one of day, week, month"):
        periods(np.zeros(1), "year")


@pytest.mark.parametrize("asked_at_target", [False, True])
@pytest.mark.parametrize(("by", "form"), [("day", "%Y-%m-%d"), ("week", "%G-%V"), ("month", "%m")])
def test_each_period_has_the_means_of_the_sessions_in_it(
    by: str, form: str, asked_at_target: bool
) -> None:
    """Sessions go on for weeks; what they predict in a period counts there."""
    rng = np.random.default_rng(0)
    length = rng.integers(2, 30, 60)
    offsets = np.concatenate([[0], np.cumsum(length)])
    start, n = np.sort(rng.uniform(0, 40 * DAY, 60)), int(offsets[-1])
    pauses = rng.choice([9.0, 5 * DAY], n, p=[0.8, 0.2])
    times = np.concatenate(
        [s + np.cumsum(pauses[a:b]) for s, a, b in zip(start, offsets[:-1], offsets[1:])]
    )
    sessions = Sessions(
        ids=[str(i) for i in range(60)], users=rng.integers(0, 9, 60), offsets=offsets,
        items=rng.integers(0, 50, n), times=times, events=np.zeros(n, int), ratings=np.zeros(n),
    )  # fmt: skip
    predictions = make_predictions(sessions)
    ranks = rng.integers(1, 30, (2, len(predictions)))
    ranked = [Ranked(one[None], np.zeros((0, 0)), np.zeros((0, 0))) for one in ranks]
    asked = at_target(predictions) if asked_at_target else predictions
    found = over_time([Row("model", "student", ranked)], asked, by)

    lists: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in range(len(predictions)):
        session, position = int(predictions.session[row]), int(predictions.position[row])
        if position > 20:
            continue
        when = datetime.fromtimestamp(times[offsets[session] + position], UTC).strftime(form)
        gained = [1 / rank if rank <= 20 else 0.0 for rank in ranks[:, row]]
        lists[when][session].append(sum(gained) / 2)
    truth = [[np.mean(each) for each in lists[when].values()] for when in sorted(lists)]
    assert found["by"] == by
    assert len(found["periods"]) == len(truth) > 2
    assert found["periods"] == sorted(found["periods"])
    assert found["sessions"] == [len(each) for each in truth]
    assert found["predictions"] == [sum(map(len, lists[when].values())) for when in sorted(lists)]
    assert found["rows"]["model"]["value"] == pytest.approx([np.mean(each) for each in truth])
    for (low, high), each in zip(found["rows"]["model"]["interval"], truth, strict=True):
        assert low - 1e-9 <= np.mean(each) <= high + 1e-9
