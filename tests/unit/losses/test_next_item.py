"""Next-item losses against rax, optax, and sums by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import rax
from scipy.special import expit, logsumexp

from jmrec import losses

bpr = jax.jit(losses.bpr)
full_softmax = jax.jit(losses.full_softmax, static_argnames="chunk")

RNG = np.random.default_rng(0)
STATES = RNG.normal(size=(2, 3, 4)).astype(np.float32)
ITEMS = RNG.normal(size=(9, 4)).astype(np.float32)
BIAS = RNG.normal(size=9).astype(np.float32)
TARGETS = RNG.integers(0, 9, size=(2, 3))


@pytest.mark.parametrize("chunk", [4, 9])
@pytest.mark.parametrize("valid", [None, np.isin(np.arange(9), [*TARGETS.flat, 1, 2])])
def test_full_softmax_against_rax(chunk, valid):
    assert valid is None or not valid.all()
    ours = full_softmax(
        STATES, ITEMS, TARGETS, bias=BIAS, valid=valid, temperature=0.5, chunk=chunk
    )
    scores = jnp.asarray(STATES @ ITEMS.T / 0.5 + BIAS)
    where = None if valid is None else jnp.broadcast_to(valid, scores.shape)
    expected = rax.softmax_loss(scores, jnp.eye(9)[TARGETS], where=where, reduce_fn=None)
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)


def test_bpr_against_rax():
    positive, negative = RNG.normal(size=(2, 5)).astype(np.float32)
    for i in range(5):
        scores = jnp.array([positive[i], negative[i]])
        expected = rax.pairwise_logistic_loss(scores, jnp.array([1.0, 0.0]), reduce_fn=jnp.sum)
        assert float(bpr(positive, negative)[i]) == pytest.approx(float(expected), rel=1e-5)


def test_bpr_averages_over_negatives():
    positive, negatives = RNG.normal(size=(2, 3)), RNG.normal(size=(2, 3, 4))
    each = [bpr(positive, negatives[..., m]) for m in range(4)]
    np.testing.assert_allclose(bpr(positive, negatives), np.mean(each, axis=0), rtol=1e-5)


def test_bpr_of_far_scores_is_finite():
    np.testing.assert_allclose(bpr(np.array([-1e4, 1e4]), np.zeros(2)), [1e4, 0])


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match="targets must have shape"):
        full_softmax(STATES, ITEMS, TARGETS[0])
    with pytest.raises(ValueError, match="negative_scores must have shape"):
        bpr(np.zeros(3), np.zeros((4, 2)))


EVERYTHING = np.arange(9)
UNIFORM = np.full(9, -np.log(9.0))


def test_sampling_every_item_once_is_the_full_softmax():
    expected = full_softmax(STATES, ITEMS, TARGETS, temperature=0.5, chunk=9)
    for samples in (EVERYTHING, np.broadcast_to(EVERYTHING, (2, 3, 9))):
        ours = losses.sampled_softmax(
            STATES, ITEMS, TARGETS, samples, log_q=UNIFORM, temperature=0.5
        )
        np.testing.assert_allclose(ours, expected, rtol=1e-5)
    # Without a correction that is so for what is drawn evenly; hits are left out.
    ours = losses.sampled_softmax(STATES, ITEMS, TARGETS, EVERYTHING, temperature=0.5)
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


def test_a_target_that_is_not_there_stops_the_training():
    for loss in (
        lambda t: full_softmax(STATES, ITEMS, t, chunk=9),
        lambda t: losses.sampled_softmax(STATES, ITEMS, t, EVERYTHING),
    ):
        for wrong in (-1, 9):
            values = loss(np.where(np.arange(3) == 1, wrong, TARGETS))
            np.testing.assert_array_equal(np.isposinf(values), [[False, True, False]] * 2)


@pytest.mark.parametrize("correct_target", [False, True])
def test_sampled_softmax_by_hand(correct_target):
    q = np.arange(1, 10) / 45
    samples = np.array([[0, 2, 2, 8], [TARGETS[0, 1], 1, 5, 4], [3, 3, 3, 3]])
    z = STATES[0] @ ITEMS.T
    expected = []
    for row, target, drawn in zip(z, TARGETS[0], samples):
        own = row[target] - correct_target * np.log(4 * q[target])
        others = [row[j] - np.log(4 * q[j]) for j in drawn if j != target]
        expected.append(logsumexp([own, *others]) - own)
    ours = losses.sampled_softmax(
        STATES[0], ITEMS, TARGETS[0], samples, log_q=np.log(q), correct_target=correct_target
    )
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


def test_the_correction_removes_the_bias_of_sampling():
    """With many draws from uneven odds the corrected loss nears the full one, the plain one not."""
    rng = np.random.default_rng(1)
    q = np.arange(1, 10) ** 2 / (np.arange(1, 10) ** 2).sum()
    samples = rng.choice(9, size=20_000, p=q)
    full = full_softmax(STATES, ITEMS, TARGETS, chunk=9)
    corrected = losses.sampled_softmax(STATES, ITEMS, TARGETS, samples, log_q=np.log(q))
    np.testing.assert_allclose(corrected, full, rtol=0.05, atol=0.02)
    uncorrected = losses.sampled_softmax(STATES, ITEMS, TARGETS, samples) - np.log(20_000 / 9)
    assert np.abs(uncorrected - full).max() > 0.2


@pytest.mark.parametrize("correct_target", [False, True])
def test_in_batch_softmax_by_hand(correct_target):
    rng = np.random.default_rng(2)
    states, items = rng.normal(size=(2, 5, 4))
    ids, log_q = np.array([4, 4, 7, 1, 9]), np.log([0.3, 0.3, 0.2, 0.4, 0.1])
    where = np.array([True, True, True, False, True])
    z = states @ items.T / 0.5
    expected = np.zeros(5)
    for i in np.flatnonzero(where):
        corrected = z[i] - log_q - np.log(3)  # three others are there
        own = corrected[i] if correct_target else z[i, i]
        others = [corrected[j] for j in np.flatnonzero(where) if ids[j] != ids[i]]
        expected[i] = logsumexp([own, *others]) - own
    ours = losses.in_batch_softmax(
        states, items, ids=ids, log_q=log_q, where=where, temperature=0.5,
        correct_target=correct_target,
    )  # fmt: skip
    np.testing.assert_allclose(ours, expected, rtol=1e-4)


def test_in_batch_softmax_without_correction_is_info_nce_of_dot_products():
    rng = np.random.default_rng(2)
    states, items = rng.normal(size=(2, 5, 4))
    ids = np.array([4, 4, 7, 1, 9])
    np.testing.assert_allclose(
        losses.in_batch_softmax(states, items, ids=ids, temperature=0.3),
        losses.info_nce(states, items, ids=ids, temperature=0.3, normalize=False),
        rtol=1e-5,
    )


def test_bce_without_calibration_against_optax():
    positive, negatives = RNG.normal(size=(3,)), RNG.normal(size=(3, 4))
    valid = np.array([[1, 1, 1, 1], [1, 0, 1, 0], [0, 0, 0, 0]], bool)
    logits = np.concatenate([positive[:, None], negatives], axis=1)
    labels = np.eye(5)[0]
    each = np.asarray(optax.sigmoid_binary_cross_entropy(np.float32(logits), np.float32(labels)))
    counted = np.concatenate([np.ones((3, 1), bool), valid], axis=1)
    expected = (each * counted).sum(1) / counted.sum(1)
    np.testing.assert_allclose(losses.bce(positive, negatives, valid=valid), expected, rtol=1e-5)


def test_gbce_by_the_formula_of_the_paper():
    positive, negatives = RNG.normal(size=(3,)), RNG.normal(size=(3, 4))
    rate, t = 4 / 50, 0.75
    beta = rate * (t * (1 - 1 / rate) + 1 / rate)
    raised = expit(positive) ** beta
    expected = -(np.log(raised) + np.log(1 - expit(negatives)).sum(1)) / 5
    ours = losses.bce(positive, negatives, calibration=t, sampling_rate=rate)
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


def test_gbce_at_full_calibration_learns_the_true_probability():
    """Of an item that is right with probability p and sampled, where it is wrong, at a rate a.

    The best score s then has sigmoid(s) = p, whatever a is; plain BCE ends at p / (p + a (1 - p)).
    """
    p, rate = 0.2, 0.1

    def best(calibration):
        def expected_loss(score):
            loss = losses.bce(
                score, score[None], calibration=calibration, sampling_rate=rate, valid=[False]
            )
            negative = jax.nn.softplus(score)
            return p * loss + rate * (1 - p) * negative

        scores = np.linspace(-4, 4, 2001)
        return expit(scores[np.argmin(jax.vmap(expected_loss)(jnp.asarray(scores)))])

    assert best(0.0) == pytest.approx(p / (p + rate * (1 - p)), abs=0.01)
    assert best(1.0) == pytest.approx(p, abs=0.01)


def test_wrong_shapes_of_samples_are_named():
    with pytest.raises(ValueError, match="samples must have shape"):
        losses.sampled_softmax(STATES, ITEMS, TARGETS, np.zeros((2, 4, 5), int))
    with pytest.raises(ValueError, match="log_q must have shape"):
        losses.sampled_softmax(STATES, ITEMS, TARGETS, EVERYTHING, log_q=np.zeros(8))
    with pytest.raises(ValueError, match=r"must both be \[B, D\]"):
        losses.in_batch_softmax(STATES[0], ITEMS)
    with pytest.raises(ValueError, match="negative_scores must have shape"):
        losses.bce(np.zeros(3), np.zeros((4, 2)))
