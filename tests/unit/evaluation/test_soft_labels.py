"""What a ranker teaches: its own softmax, from folds that it has not seen."""

from typing import Any

import numpy as np
import pytest
from scipy.special import log_softmax, logsumexp

from jmrec.evaluation.protocol import make_predictions
from jmrec.evaluation.soft_labels import (
    TEMPERATURES,
    SoftLabels,
    calibrate,
    folds_of,
    in_stretches,
    out_of_fold,
    write_soft_labels,
)

V = 9
LISTS = [[0, 1, 2], [0, 1], [5], [1, 2, 0, 3, 4, 2, 1], [0, 4, 0]]


class Counts:
    """Scores an item by how often it followed the last one in the sessions that were shown."""

    name = "counts"

    def __init__(self, sessions: Any) -> None:
        self.seen = set(sessions.ids)
        self.table = np.full((V, V), 0.1)
        for items in sessions:
            np.add.at(self.table, (items[:-1], items[1:]), 1.0)

    def prepare(self, features: Any) -> None:
        pass

    def scores(self, prefixes: Any, item_slice: slice) -> np.ndarray:
        last = prefixes.windows[prefixes.window, prefixes.end]
        return np.log(self.table[last])[:, item_slice]


@pytest.fixture(scope="module")
def sessions(make_sessions: Any) -> Any:
    return make_sessions(LISTS)


def expected(ranker: Counts, item: int, known: np.ndarray, temperature: float) -> np.ndarray:
    return np.where(known, np.log(ranker.table[item]) / temperature, -np.inf)


@pytest.mark.parametrize("window", [2, 50])
def test_a_soft_label_is_the_ranker_s_softmax(sessions: Any, window: int) -> None:
    known = np.arange(V) < 6
    ranker, own = Counts(sessions), np.array([0, 2, 3])
    n, k = len(sessions.items), 3
    labels = SoftLabels(
        np.zeros((n, k), int), np.zeros((n, k), np.float32), np.zeros(n, np.float32)
    )
    write_soft_labels(labels, ranker, sessions, own, known, 0.5, window)
    for session in range(len(sessions)):
        for at in range(sessions.offsets[session], sessions.offsets[session + 1]):
            if session not in own or at + 1 == sessions.offsets[session + 1]:
                assert not labels.logits[at].any()
                continue
            logits = expected(ranker, sessions.items[at], known, 0.5)
            best = np.argsort(-logits, kind="stable")[:k]
            assert labels.rows[at].tolist() == best.tolist()
            np.testing.assert_allclose(labels.logits[at], logits[best], rtol=1e-5)
            rest = logsumexp(np.delete(logits, best))
            np.testing.assert_allclose(labels.tail[at], rest, rtol=1e-5)


def test_stretches_hold_every_transition_once(sessions: Any) -> None:
    own = np.array([3, 1])
    cut, event = in_stretches(sessions, own, 3)
    np.testing.assert_array_equal(cut.items, sessions.items[event])
    assert cut.lengths.max() == 4
    pairs = [p for a, b in zip(cut.offsets[:-1], cut.offsets[1:]) for p in event[a : b - 1]]
    wanted = [np.arange(sessions.offsets[s], sessions.offsets[s + 1] - 1) for s in own]
    assert sorted(pairs) == sorted(np.concatenate(wanted).tolist())


def test_no_teacher_has_seen_whom_it_labels(make_sessions: Any, make_dataset: Any) -> None:
    """Each fold's ranker is told nothing of the users whose sessions it labels."""
    random = np.random.default_rng(0)
    lists = [random.integers(0, V, random.integers(2, 7)).tolist() for _ in range(30)]
    users = random.integers(0, 8, 30)
    train = make_sessions(lists, users=users)
    dataset = make_dataset({"train": train}, [f"item {i}" for i in range(V)])
    validation = make_predictions(make_sessions(lists[:5]))
    shown: list[Counts] = []

    def fit(less: Any) -> Counts:
        shown.append(Counts(less.splits["train"]))
        return shown[-1]

    labels, temperatures = out_of_fold(dataset, validation, fit, folds=4, top=V, seed=1)
    fold = folds_of(train, 4, 1)
    assert all(len(set(fold[users == user])) == 1 for user in range(8))
    assert len(temperatures) == 4
    known = dataset.train_count > 0
    for session, items in enumerate(lists):
        ranker = shown[fold[session]]
        assert train.ids[session] not in ranker.seen
        same_user = {train.ids[i] for i in np.flatnonzero(users == users[session])}
        assert not same_user & ranker.seen
        at = train.offsets[session]
        logits = expected(ranker, items[0], known, temperatures[fold[session]])
        np.testing.assert_allclose(
            labels.logits[at], np.sort(logits)[::-1][: known.sum()], rtol=1e-4, atol=1e-4
        )
        assert labels.tail[at] < -1e20  # k is all there is
    with pytest.raises(ValueError, match="at least 2"):
        out_of_fold(dataset, validation, fit, folds=1)


def test_the_temperature_is_the_likeliest(sessions: Any) -> None:
    known = np.arange(V) < 6
    asked = make_predictions(sessions)
    ranker = Counts(sessions)
    fits = np.flatnonzero(known[asked.target])
    last = asked.prefixes.windows[asked.prefixes.window, asked.prefixes.end]

    def loss(temperature: float) -> float:
        return -sum(
            log_softmax(expected(ranker, last[i], known, temperature))[asked.target[i]]
            for i in fits
        )

    found = calibrate(ranker, asked, known)
    assert found == TEMPERATURES[np.argmin([loss(t) for t in TEMPERATURES])]
    assert TEMPERATURES[0] < found < TEMPERATURES[-1]
    assert calibrate(ranker, asked, np.zeros(V, bool)) == 1.0
