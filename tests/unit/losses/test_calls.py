"""The one way to call next-item losses, against the losses themselves and sums by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, logsumexp

from jmrec import losses
from jmrec.losses.calls import draw

RNG = np.random.default_rng(0)
STATES = RNG.normal(size=(2, 3, 4)).astype(np.float32)
ITEMS = RNG.normal(size=(9, 4)).astype(np.float32)
VALID = np.arange(9) != 5
TARGETS = np.array([[1, 7, 1], [2, 0, 5]])
WHERE = np.array([[True, True, True], [True, True, False]])
KEY = jax.random.key(3)
LOGITS = STATES @ ITEMS.T


def call(name: str, negatives: int = 6, states=STATES, targets=TARGETS, where=WHERE) -> np.ndarray:
    found = losses.NEXT_ITEM[name](
        states, ITEMS, targets, valid=VALID, where=where, key=KEY, negatives=negatives
    )
    return np.asarray(found)


@pytest.mark.parametrize("name", losses.NEXT_ITEM)
def test_every_next_item_loss_has_one_value_a_position_and_masks_the_rest(name: str) -> None:
    found = call(name)
    assert found.shape == (2, 3)
    assert found.dtype == np.float32
    assert found[1, 2] == 0
    assert (found[WHERE] > 0).all()
    states, targets = STATES.copy(), TARGETS.copy()
    states[1, 2], targets[1, 2] = np.nan, 8
    np.testing.assert_array_equal(call(name, states=states, targets=targets), found)
    assert (call(name, where=np.zeros((2, 3), bool)) == 0).all()
    # An item that is no candidate is never compared with.
    moved = ITEMS.copy()
    moved[5] = 50.0
    again = losses.NEXT_ITEM[name](
        STATES, moved, TARGETS, valid=VALID, where=WHERE, key=KEY, negatives=6
    )
    np.testing.assert_array_equal(again, found)

    def total(states):
        return losses.NEXT_ITEM[name](
            states, ITEMS, TARGETS, valid=VALID, where=WHERE, key=KEY, negatives=6
        ).sum()

    gradient = jax.jit(jax.grad(total))(jnp.asarray(STATES))
    assert np.isfinite(gradient).all()
    assert np.abs(gradient)[WHERE].sum(-1).all()
    assert not np.asarray(gradient)[~WHERE].any()


def test_the_whole_catalogue_is_full_softmax_to_the_bit() -> None:
    plain = losses.full_softmax(STATES, ITEMS, TARGETS, valid=VALID, where=WHERE)
    np.testing.assert_array_equal(call("full_softmax"), plain)
    logits = np.where(VALID, LOGITS, -np.inf)
    want = -np.take_along_axis(log_softmax(logits, -1), TARGETS[..., None], -1)[..., 0]
    np.testing.assert_allclose(plain[WHERE], want[WHERE], rtol=1e-5)


def test_many_samples_come_near_to_the_whole_catalogue() -> None:
    full = call("full_softmax")[WHERE]
    np.testing.assert_allclose(call("sampled_softmax", 20_000)[WHERE], full, rtol=0.03)
    assert np.abs(call("sampled_softmax", 3)[WHERE] - full).max() > 0.05


def test_the_items_of_a_batch_count_once_however_often_they_are_asked_for() -> None:
    known, targets = np.array([0, 1, 2, 7]), TARGETS[WHERE]  # item 1 is asked for twice
    z, n = LOGITS[WHERE], WHERE.sum()
    for row, target in enumerate(targets):
        others = [z[row, item] + np.log(n / (n - 1)) for item in known if item != target]
        want = logsumexp([z[row, target], *others]) - z[row, target]
        np.testing.assert_allclose(call("in_batch_softmax")[WHERE][row], want, rtol=1e-5)
    coupled = {name for name, each in losses.NEXT_ITEM.items() if each.couples_examples}
    assert coupled == {"in_batch_softmax"}


@pytest.mark.parametrize("name", ["bpr", "bce", "gbce"])
def test_scores_are_those_of_the_target_and_of_samples_that_are_not_it(name: str) -> None:
    samples = np.asarray(draw(KEY, VALID, 6))
    own = np.take_along_axis(LOGITS, TARGETS[..., None], -1)[..., 0]
    hit = samples == TARGETS[..., None]
    assert hit[WHERE].any()
    others = np.where(hit, -np.inf, LOGITS[..., samples])
    if name == "bpr":
        want = np.logaddexp(0, others - own[..., None]).mean(-1)
    else:
        beta = {"bce": 1.0, "gbce": 1 - 0.75 * (1 - 6 / 7)}[name]  # 6 of the 7 other valid items
        want = (beta * np.logaddexp(0, -own) + np.logaddexp(0, others).sum(-1)) / 7
    np.testing.assert_allclose(call(name)[WHERE], want[WHERE], rtol=1e-4)


def test_items_are_drawn_evenly_among_the_valid_ones() -> None:
    counts = np.bincount(np.asarray(draw(KEY, VALID, 40_000)), minlength=9) / 40_000
    np.testing.assert_allclose(counts, VALID / 8, atol=0.01)
    assert not np.array_equal(draw(KEY, VALID, 9), draw(jax.random.key(4), VALID, 9))
