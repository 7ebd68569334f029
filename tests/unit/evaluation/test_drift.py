"""Figures over time: calendar periods against datetime, values against plain means."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jmrec.data.schema import Sessions
from jmrec.errors import UserError
from jmrec.evaluation.drift import over_time, periods
from jmrec.evaluation.protocol import Ranked, make_predictions
from jmrec.evaluation.summary import Row

DAY = 86400.0


@given(st.integers(-(10**10), 10**11))
def test_periods_are_those_of_the_calendar(time: int) -> None:
    date = datetime.fromtimestamp(0, UTC) + timedelta(seconds=time)
    assert periods(np.array([time]), "month")[0] == date.strftime("%Y-%m")
    monday = date.date() - timedelta(days=date.weekday())
    assert periods(np.array([time]), "week")[0] == monday.isoformat()


def test_an_unknown_period_is_refused() -> None:
    with pytest.raises(UserError, match=r"--by=year is no period; choose one of week, month"):
        periods(np.zeros(1), "year")


def test_each_period_has_the_mean_of_its_own_sessions() -> None:
    rng = np.random.default_rng(0)
    length = rng.integers(2, 30, 60)
    offsets = np.concatenate([[0], np.cumsum(length)])
    start = np.sort(rng.uniform(0, 100 * DAY, 60))
    times = np.concatenate([s + np.arange(n) * 7.0 for s, n in zip(start, length)])
    n = int(offsets[-1])
    sessions = Sessions(
        ids=[str(i) for i in range(60)], users=rng.integers(0, 9, 60), offsets=offsets,
        items=rng.integers(0, 50, n), times=times, events=np.zeros(n, int), ratings=np.zeros(n),
    )  # fmt: skip
    predictions = make_predictions(sessions)
    ranks = rng.integers(1, 30, (2, len(predictions)))
    ranked = [Ranked(one[None], np.zeros((0, 0)), np.zeros((0, 0))) for one in ranks]
    found = over_time([Row("model", "student", ranked)], predictions, start, "month")
    assert found["periods"] == ["1970-01", "1970-02", "1970-03", "1970-04"]
    assert sum(found["sessions"]) == 60
    rr = np.where(ranks <= 20, 1 / ranks, 0).mean(0)
    for at, month in enumerate(found["periods"]):
        mine = [
            rr[(predictions.session == s) & (predictions.position <= 20)].mean()
            for s in range(60)
            if datetime.fromtimestamp(start[s], UTC).strftime("%Y-%m") == month
        ]
        assert found["sessions"][at] == len(mine)
        assert found["rows"]["model"]["value"][at] == pytest.approx(np.mean(mine))
        low, high = found["rows"]["model"]["interval"][at]
        assert low < np.mean(mine) < high
