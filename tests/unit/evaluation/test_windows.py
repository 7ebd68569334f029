"""Pooled test windows against plain means over all their sessions."""

from pathlib import Path

import numpy as np
import pytest

from jmrec.data.schema import Sessions
from jmrec.errors import UserError
from jmrec.evaluation.protocol import Ranked, make_predictions
from jmrec.evaluation.summary import Row
from jmrec.evaluation.windows import Units, pool, read_units, units_of, write_units


def window(seed: int, sessions: int, users: bool) -> tuple[Units, np.ndarray]:
    rng = np.random.default_rng(seed)
    length = rng.integers(2, 9, sessions)
    n = int(length.sum())
    split = Sessions(
        ids=[str(i) for i in range(sessions)],
        users=rng.integers(0, 5, sessions) if users else np.full(sessions, -1),
        offsets=np.concatenate([[0], np.cumsum(length)]), items=rng.integers(0, 30, n),
        times=np.arange(n) * 1.0, events=np.zeros(n, int), ratings=np.zeros(n),
    )  # fmt: skip
    asked = make_predictions(split)
    rows, ranks = [], rng.integers(1, 40, (2, 3, len(asked)))
    for name, kind, own in (("a", "student", ranks[0]), ("b", "rule", ranks[1][:1])):
        ranked = [Ranked(one[None], np.zeros((0, 0)), np.zeros((0, 0))) for one in own]
        rows.append(Row(name, kind, ranked))
    rr = np.where(ranks[0] <= 20, 1 / ranks[0], 0).mean(0)
    return units_of(rows, asked), np.array([rr[asked.session == s].mean() for s in range(sessions)])


@pytest.mark.parametrize("users", [True, False])
def test_every_session_of_every_window_weighs_the_same(users: bool, tmp_path: Path) -> None:
    made = [window(seed, sessions, users) for seed, sessions in ((0, 7), (1, 40))]
    paths = [tmp_path / f"{n}.npz" for n in range(2)]
    for path, (units, _) in zip(paths, made):
        write_units(path, units)
    found = pool([read_units(path) for path in paths], ["old", "new"], "a")
    time = found["over_time"]
    assert (time["periods"], time["sessions"]) == (["old", "new"], [7, 40])
    assert time["rows"]["a"]["value"] == pytest.approx([values.mean() for _, values in made])
    a, b = found["rows"]
    whole = np.concatenate([values for _, values in made]).mean()
    assert a["figures"]["session"]["MRR@20"] == pytest.approx(whole)
    low, high = a["interval"]["session"]["MRR@20"]
    assert low < whole < high
    assert (a["kind"], a["seeds"], found["best_rule"]) == ("student", 3, "b")
    one = next(c for c in found["comparisons"] if c["metric"] == "MRR@20")
    assert (one["a"], one["b"]) == ("a", "b")
    assert one["difference"] == pytest.approx(whole - b["figures"]["session"]["MRR@20"])


def test_sessions_of_two_windows_are_never_one_and_users_are() -> None:
    def units(cluster: list[int], values: list[float]) -> Units:
        both = np.array([[values, values]], float)
        return Units(["a"], ["rule"], np.array([1]), np.array(cluster), both)

    # One user with a good and a bad window: a bootstrap over users has nothing to draw.
    user = pool([units([3], [1.0]), units([3], [0.0])], ["0", "1"], "")
    assert user["rows"][0]["interval"]["session"]["MRR@20"] == [0.5, 0.5]
    alone = pool([units([-1], [1.0]), units([-1], [0.0])], ["0", "1"], "")
    assert alone["rows"][0]["interval"]["session"]["MRR@20"] == [0.0, 1.0]


def test_damaged_units_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "units.npz"
    path.write_bytes(b"PK\x03\x04 torn")
    with pytest.raises(UserError, match=r"units\.npz can not be read"):
        read_units(path)
    with pytest.raises(UserError, match="delete its folder"):
        read_units(tmp_path / "none.npz")
