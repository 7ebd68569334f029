"""What rules look at is bounded whatever the catalogue, and they answer as brute force does."""

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.special import logsumexp

from jmrec.errors import UserError
from jmrec.evaluation import soft_labels
from jmrec.evaluation.evidence import Evidence
from jmrec.evaluation.protocol import make_predictions, rank
from jmrec.evaluation.rankers import blend as blends
from jmrec.evaluation.rankers import codec
from jmrec.evaluation.rankers.bags import add_product
from jmrec.evaluation.rankers.blend import Blend, fit_blend
from jmrec.evaluation.rankers.cooccurrence import (
    LinearRule,
    SessionNeighbours,
    session_matrix,
)
from jmrec.evaluation.rankers.ease import (
    FrequentItems,
    ease,
    ease_grid,
    gram_matrix,
    said_of_bound,
    weights_of,
)
from jmrec.evaluation.rankers.known import Known
from jmrec.evaluation.rankers.popularity import StaticRule
from jmrec.evaluation.rankers.rules import fit_again, fit_rules
from jmrec.metrics.ranks import metric, session_mean

V, COLD = 40, 4
"""Items, the last of which are never clicked in training."""


@pytest.fixture(scope="module")
def train(make_sessions: Any) -> Any:
    rng = np.random.default_rng(0)
    draw = [(V - COLD) * rng.random(rng.integers(1, 12)) ** 2 for _ in range(150)]
    return make_sessions([each.astype(int).tolist() for each in draw])


@pytest.fixture(scope="module")
def asked(make_sessions: Any) -> Any:
    rng = np.random.default_rng(1)
    lists = [rng.integers(0, V, rng.integers(2, 9)).tolist() for _ in range(30)]
    return make_predictions(make_sessions(lists))


@pytest.fixture(scope="module")
def dataset(train: Any, make_dataset: Any) -> Any:
    return make_dataset({"train": train, "validation": train}, [f"item {i}" for i in range(V)])


# ---- EASE ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [3, 11, 25])
def test_ease_of_the_most_frequent_is_a_ridge_among_them(
    most: int, train: Any, dataset: Any, asked: Any
) -> None:
    count = [sum(one.tolist().count(i) for one in train) for i in range(V)]
    chosen = sorted(sorted(range(V), key=lambda i: (-count[i], i))[:most])
    held = np.array([[float(i in one) for i in range(V)] for one in train])[:, chosen]
    rules = list(ease_grid(Known(dataset, most)))
    assert len(rules) == 9
    for rule in rules:
        assert isinstance(rule, FrequentItems)
        assert rule.settings["items"] == most
        assert np.flatnonzero(rule.among).tolist() == chosen
        gram = held.T @ held + rule.settings["l2"] * np.eye(most)
        wanted = np.zeros((V, V))
        for place, item in enumerate(chosen):
            others = np.delete(np.arange(most), place)
            solved = np.linalg.solve(
                gram[np.ix_(others, others)], held[:, others].T @ held[:, place]
            )
            wanted[np.array(chosen)[others], item] = solved
        whole = LinearRule("EASE", wanted, rule.prior, rule.share, rule.decay)
        found = rule.scores(asked.prefixes, slice(0, V))
        assert found == pytest.approx(whole.scores(asked.prefixes, slice(0, V)), abs=2e-5)
        parts = [rule.scores(asked.prefixes, slice(a, min(a + 7, V))) for a in range(0, V, 7)]
        assert np.concatenate(parts, axis=1) == pytest.approx(found, abs=1e-7)
        for i, j in ((0, 1), (chosen[-1], chosen[0]), (V - 1, 0)):
            assert rule.weight(i, j) == pytest.approx(wanted[i, j], abs=2e-5)


@pytest.mark.parametrize("n_items", [V, V + 1, 10 * V])
def test_items_without_a_click_change_nothing(
    n_items: int, train: Any, make_dataset: Any, asked: Any
) -> None:
    """A catalogue above the bound, of which training knows fewer: its EASE is the exact one."""
    dataset = make_dataset({"train": train}, ["word"] * n_items)
    most = len(np.unique(train.items))
    assert said_of_bound(dataset.train_count, most) is None
    exact = list(ease_grid(Known(dataset)))
    for one, whole in zip(ease_grid(Known(dataset, most)), exact, strict=True):
        assert isinstance(one, FrequentItems)
        assert isinstance(whole, LinearRule)
        assert len(one.block) == most
        assert one.settings == whole.settings
        found = one.scores(asked.prefixes, slice(0, n_items))
        assert found == pytest.approx(whole.scores(asked.prefixes, slice(0, n_items)), abs=1e-6)


@pytest.mark.parametrize(("n_items", "l2"), [(40, 1.0), (45, 50.0), (1100, 250.0)])
def test_blocks_of_ease_are_one_inverse(n_items: int, l2: float, make_sessions: Any) -> None:
    rng = np.random.default_rng(2)
    lists = [rng.integers(0, n_items, rng.integers(1, 30)).tolist() for _ in range(60)]
    train = make_sessions(lists)
    held = session_matrix(train, n_items).toarray().astype(np.float64)
    gram = gram_matrix(train, n_items)
    assert np.array_equal(gram, held.T @ held)
    inverse = np.linalg.inv(held.T @ held + l2 * np.eye(n_items))
    expected = -inverse / np.diag(inverse)
    np.fill_diagonal(expected, 0)
    assert weights_of(gram, l2) == pytest.approx(expected, abs=1e-5)
    assert np.array_equal(gram, held.T @ held)  # the next penalty needs it
    assert np.array_equal(ease(train, n_items, l2), weights_of(gram, l2))
    with pytest.raises(UserError, match="cannot invert with an l2 penalty of 0"):
        weights_of(np.ones((3, 3), np.float32), 0)


@pytest.mark.parametrize(
    ("count", "most", "said"),
    [
        ([1, 0, 1], 2, None),
        ([1, 2, 3, 0], 2, "EASE knows the 2 most frequent of 3 items (0.0 GB of memory)"),
        (np.ones(40_000), 20_000, "(evaluate.ease_items=40000 takes all: 19.2 GB)"),
    ],
)
def test_the_bound_is_told(count: Any, most: int, said: str | None) -> None:
    found = said_of_bound(np.asarray(count), most)
    assert found is None if said is None else said in str(found)


def test_the_bounded_row_is_chosen_fitted_again_explained_and_kept(
    dataset: Any, asked: Any, make_dataset: Any, train: Any
) -> None:
    fitted = {rule.name: rule for rule in fit_rules(dataset, asked, ease_items=9)}
    rule: Any = fitted["EASE"]
    assert (type(rule), rule.settings["items"]) == (FrequentItems, 9)
    settings = {name: dict(each.settings) for name, each in fitted.items()}  # type: ignore[attr-defined]
    # Items that were added since change neither the choice nor the settings.
    larger = make_dataset({"train": train}, [f"item {i}" for i in range(V + 3)])
    again = fit_again(larger, "EASE", settings, ease_items=9)
    for items in (slice(0, V), slice(2, 5)):
        wanted = rule.scores(asked.prefixes, items)
        assert np.array_equal(again.scores(asked.prefixes, items), wanted)
    facts, arrays = codec.encode(rule)
    read: Any = codec.decode(facts, arrays, V)
    assert np.array_equal(
        read.scores(asked.prefixes, slice(0, V)), rule.scores(asked.prefixes, slice(0, V))
    )
    arrays["among"] = ~arrays["among"]
    with pytest.raises(ValueError, match="for 31 items"):
        codec.decode(facts, arrays, V)
    for prefix in asked.prefixes.expand()[:8]:
        parts = Evidence(Known(dataset)).parts(rule, prefix, 0)
        only = make_predictions(make_one(prefix)).prefixes
        score = rule.scores(only, slice(0, 1))[-1, 0]
        assert sum(part.value for part in parts) == pytest.approx(score, abs=1e-5)


def make_one(prefix: np.ndarray) -> Any:
    """Return one session whose last prediction reads all of ``prefix``."""
    from tests.unit.evaluation.conftest import build_sessions

    return build_sessions([[*prefix.tolist(), 0]])


# ---- rows that are looked at ---------------------------------------------------------------------


class Watched(np.ndarray):
    """A matrix that counts how many of its rows are taken."""

    taken = 0

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, tuple) and isinstance(key[0], np.ndarray):
            Watched.taken = len(key[0])
        return super().__getitem__(key)


@pytest.mark.parametrize("rows", [50, 500, 5000])
def test_a_slice_reads_the_rows_with_a_weight_alone(rows: int) -> None:
    rng = np.random.default_rng(rows)
    matrix = rng.random((rows, 30), np.float32) * (rng.random((rows, 30)) < 0.3)
    weights = np.zeros((4, rows), np.float32)
    weights[rng.integers(0, 4, 9), rng.choice(rows, 9, replace=False)] = 0.5
    sparse = sp.csr_array(weights)
    for items in (slice(0, 30), slice(3, 9), slice(9, 30)):
        for kept in (matrix, sp.csr_array(matrix)):
            found = np.ones((4, items.stop - items.start), np.float32)
            add_product(found, sparse, kept, items)
            assert found == pytest.approx(1 + weights @ matrix[:, items], abs=1e-6)
    add_product(np.zeros((4, 4), np.float32), sparse, matrix.view(Watched), slice(1, 5))
    assert Watched.taken == 9


@pytest.mark.parametrize("older", [0, 500, 5000])
def test_neighbours_are_looked_for_among_recent_sessions_alone(
    older: int, train: Any, asked: Any, make_sessions: Any
) -> None:
    rng = np.random.default_rng(3)
    recent = [one.tolist() for one in train]
    past = [rng.integers(0, V - COLD, 6).tolist() for _ in range(older)]
    sample, prior = 6, np.zeros(V, np.float32)

    def rule(lists: list[list[int]]) -> SessionNeighbours:
        return SessionNeighbours(session_matrix(make_sessions(lists), V), prior, 4, 0.5, sample)

    # Every known item occurs more than `sample` times in these.
    often = [[item] for item in range(V - COLD) for _ in range(sample)]
    small, large = rule(often + recent), rule(past + often + recent)
    wanted, found = small.votes(asked.prefixes), large.votes(asked.prefixes)
    assert np.array_equal(wanted.data, found.data)
    assert np.array_equal(wanted.indices + older, found.indices)
    assert all(len(large.recent(item)) <= sample for item in range(V))
    assert large.recent(V - 1).tolist() == []


def test_a_prefix_that_no_session_shares_gets_popularity(train: Any, make_sessions: Any) -> None:
    prior = np.linspace(0, 1, V, dtype=np.float32)
    rule = SessionNeighbours(session_matrix(train, V), prior, 4, 0.5, 6)
    for cold in ([V - 1, 0], [V - 1, V - 2, 0], [V - 3, V - 3, V - 1, 0]):
        alone = make_predictions(make_sessions([cold])).prefixes
        assert rule.votes(alone).nnz == 0
        assert rule.scores(alone, slice(0, V))[-1] == pytest.approx(1e-6 * prior)


# ---- the blend -----------------------------------------------------------------------------------


def drawn(n_items: int, count: int = 3) -> list[Any]:
    """Return rules that each know something of what `walks` follow, and err on their own."""
    truth, rng = np.random.default_rng(0).random((n_items, n_items)), np.random.default_rng(n_items)
    return [
        LinearRule(
            f"drawn {n}", (truth + 0.3 * rng.normal(size=truth.shape)).astype(np.float32),
            rng.random(n_items, np.float32), np.full(n_items, 1e-3, np.float32), 0.3,
        ) for n in range(count)
    ]  # fmt: skip


def walks(n_items: int, count: int) -> list[list[int]]:
    """Return sessions in which the next item is one of the ten that are likely."""
    truth, rng = np.random.default_rng(0).random((n_items, n_items)), np.random.default_rng(7)
    found = []
    for _ in range(count):
        one = [int(rng.integers(n_items))]
        for _ in range(int(rng.integers(1, 8))):
            one.append(int(np.argsort(-truth[one[-1]])[rng.integers(10)]))
        found.append(one)
    return found


def figure(members: list[Any], weights: Any, asked: Any, n_items: int) -> float:
    found = rank(Blend(members, weights, n_items), asked, n_items=n_items, exclude_seen=True).ranks
    return session_mean(metric("MRR@20", found[0]), asked.session)


@pytest.mark.parametrize("n_items", [60, 200, 900])
def test_weights_are_searched_in_bounded_memory_on_enough_predictions(
    n_items: int, make_sessions: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = make_predictions(make_sessions(walks(n_items, 60)))
    members, made = drawn(n_items), list[Any]()
    common: dict[str, Any] = {"n_items": n_items, "exclude_seen": True}
    exact = fit_blend(members, asked, **common)

    class Seen(blends._Table):
        def __init__(self, *fields: Any) -> None:
            super().__init__(*fields)
            made.append(self)

    monkeypatch.setattr(blends, "_Table", Seen)
    monkeypatch.setattr(blends, "ENOUGH", 200)
    monkeypatch.setattr(blends, "BLOCK", 3000)
    monkeypatch.setattr(blends, "BUDGET", 3 * 200 * 55)
    few = fit_blend(members, asked, **common)
    (table,) = made
    assert table.scores.size <= 3 * 200 * 55  # however many items there are
    assert 150 < table.scores.shape[1] <= 200
    # Nearly as good on all predictions as what was chosen by looking at every score of all.
    best = figure(exact.members, exact.weights, asked, n_items)
    single = max(figure([each], [1.0], asked, n_items) for each in members)
    found = figure(few.members, few.weights, asked, n_items)
    assert best > 1.1 * single
    assert found > max(single, 0.9 * best)


@pytest.mark.parametrize("best", [1, 5, 19, 60])
def test_of_a_member_ranks_are_exact_as_far_as_its_best_items_reach(
    best: int, make_sessions: Any
) -> None:
    n_items = 60
    rng = np.random.default_rng(best)
    lists = [rng.integers(0, n_items, rng.integers(2, 9)).tolist() for _ in range(20)]
    asked, members = make_predictions(make_sessions(lists)), drawn(n_items)
    allowed = rng.random(n_items) < 0.8
    common: dict[str, Any] = {"n_items": n_items, "exclude_seen": True, "allowed": allowed}

    def blocked(some: Any) -> np.ndarray:
        return blends._blocked(some, **common)

    table = blends._best_of_each(members, asked, n_items, 1 + 3 * best, blocked)
    assert table.scores.shape == (3, len(asked), 1 + 3 * best)
    for member, scores in zip(members, table.scores, strict=True):
        true = rank(member, asked, **common).ranks[0]
        found = table.ranks(scores, n_items)
        near = (true <= best) | (true > n_items)
        assert np.array_equal(found[near], true[near])
        assert (found <= true).all()
        assert (found[~near] > best).all()
    if best == n_items:  # every item is kept: a blend's ranks are exact too
        mixed = sum(np.float32(w) * s for w, s in zip((1.0, 0.5, 0.2), table.scores, strict=True))
        true = rank(Blend(members, (1.0, 0.5, 0.2), n_items), asked, **common).ranks[0]
        assert np.array_equal(table.ranks(mixed, n_items), true)


# ---- soft labels ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("temperature", "k"), [(0.02, 3), (0.02, 20), (0.7, 8), (5.0, 20)])
def test_soft_labels_are_the_first_of_a_stable_order(
    temperature: float, k: int, make_sessions: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ties too: of equal scores the lower row; in blocks of whatever size."""
    rng = np.random.default_rng(k)
    lists = [rng.integers(0, V, rng.integers(1, 9)).tolist() for _ in range(20)]
    sessions = make_sessions(lists)
    table = rng.integers(-3, 3, (V, V)).astype(np.float32) / 7
    table[3] = -0.0
    table[4, ::2] = np.nan
    ranker = LinearRule("ties", table, np.zeros(V), np.zeros(V), 0.0)
    known, n = rng.random(V) < 0.7, len(sessions.items)
    monkeypatch.setattr(soft_labels, "ITEM_CHUNK", 16)
    made = []
    for room, block in ((10**6, 10**6), (7 * V, 3 * V), (1, 1)):
        monkeypatch.setattr(soft_labels, "ROOM", room)
        monkeypatch.setattr(soft_labels, "BLOCK", block)
        labels = soft_labels.SoftLabels(
            np.zeros((n, k), np.int32), np.zeros((n, k), np.float32), np.zeros(n, np.float32)
        )
        every = np.arange(len(sessions))
        soft_labels.write_soft_labels(labels, ranker, sessions, every, known, temperature)
        made.append(labels)
    for other in made[1:]:
        for name in ("rows", "logits", "tail"):
            assert np.array_equal(getattr(other, name), getattr(made[0], name))
    last = set(sessions.offsets[1:] - 1)
    lowest = np.finfo(np.float32).min
    for at, item in enumerate(sessions.items):
        if at in last:
            continue
        scores = np.nan_to_num(table[item].astype(np.float64), nan=lowest) / temperature
        logits = np.where(known, scores.clip(lowest).astype(np.float32), -np.inf)
        best = np.argsort(-logits, kind="stable")[:k]
        assert made[0].rows[at].tolist() == best.tolist()
        assert made[0].logits[at] == pytest.approx(logits[best])
        rest = logsumexp(np.delete(logits, best))
        assert made[0].tail[at] == pytest.approx(max(rest, -1e30), rel=1e-5)


@pytest.mark.parametrize("n_items", [100, 1000, 10_000])
def test_the_scores_that_are_held_do_not_grow_with_the_catalogue(
    n_items: int, make_sessions: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = make_predictions(make_sessions([[1, 2, 3]] * 200))
    monkeypatch.setattr(soft_labels, "ROOM", 20_000)
    rule = StaticRule("flat", np.zeros(n_items, np.float32))
    held = [scores for _, scores in soft_labels._scored(rule, asked, n_items)]
    window = 2 * n_items  # of one window all stay together
    assert sum(len(each) for each in held) == len(asked)
    assert max(each.size for each in held) <= max(20_000, window)
    fits = soft_labels._blocks(held[0])
    assert max((block.stop - block.start) * n_items for block in fits) <= soft_labels.BLOCK
