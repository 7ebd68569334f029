"""Logit distillation against scipy, its bounds, and the T**2 convention."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial.distance import jensenshannon
from scipy.special import log_softmax, logsumexp, rel_entr, softmax

from jmrec import losses
from jmrec.kernels import chunked_logsumexp, chunked_topk

kl = jax.jit(losses.kl)
catalogue_kl = jax.jit(losses.catalogue_kl, static_argnames="chunk")
reverse_kl, jensen_shannon, skew_kl = map(
    jax.jit, (losses.reverse_kl, losses.jensen_shannon, losses.skew_kl)
)
decoupled_kd = jax.jit(losses.decoupled_kd)
topk_kl = jax.jit(losses.topk_kl, static_argnames="divergence")
catalogue_topk = jax.jit(losses.catalogue_topk, static_argnames=("chunk", "divergence"))
tail_logit = jax.jit(losses.tail_logit)

RNG = np.random.default_rng(0)
TEACHER, STUDENT = RNG.normal(size=(2, 2, 3, 9)).astype(np.float32) * 2
VALID = np.arange(9) % 4 != 1


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("valid", [np.ones(9, bool), VALID])
def test_kl_against_scipy(temperature, valid):
    p, q = (
        softmax(np.where(valid, logits, -np.inf) / temperature, axis=-1)
        for logits in (TEACHER, STUDENT)
    )
    expected = temperature**2 * rel_entr(p, q).sum(-1)
    ours = kl(TEACHER, STUDENT, temperature=temperature, valid=valid)
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


def test_valid_may_differ_by_position():
    each = RNG.random((2, 3, 9)) < 0.6
    each[..., 0] = True
    ours = kl(TEACHER, STUDENT, valid=each)
    alone = kl(TEACHER[1, 2], STUDENT[1, 2], valid=each[1, 2])
    np.testing.assert_allclose(ours[1, 2], alone, rtol=1e-5)


@pytest.mark.parametrize("chunk", [4, 9])
def test_catalogue_kl_is_kl_of_the_logits(chunk):
    teacher_states, student_states = RNG.normal(size=(2, 2, 3, 4)).astype(np.float32)
    teacher_items, student_items = RNG.normal(size=(2, 9, 4)).astype(np.float32)
    teacher_bias, student_bias = RNG.normal(size=(2, 9)).astype(np.float32)
    ours = catalogue_kl(
        teacher_states,
        teacher_items,
        student_states,
        student_items,
        temperature=2.0,
        teacher_bias=teacher_bias,
        student_bias=student_bias,
        valid=VALID,
        chunk=chunk,
    )
    expected = kl(
        teacher_states @ teacher_items.T + teacher_bias,
        student_states @ student_items.T + student_bias,
        temperature=2.0,
        valid=VALID,
    )
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


def test_the_gradient_keeps_its_size_when_hot():
    """At high temperature T**2 KL is half the squared distance of centred logits, over V."""
    gradient = jax.grad(lambda student: kl(TEACHER, student, temperature=1e3).sum())(STUDENT)
    centred = (STUDENT - TEACHER) - (STUDENT - TEACHER).mean(-1, keepdims=True)
    np.testing.assert_allclose(gradient, centred / 9, atol=2e-3)


def test_equal_logits_up_to_a_constant_cost_nothing():
    np.testing.assert_allclose(kl(TEACHER, TEACHER + 5, temperature=2.0), 0, atol=1e-5)


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match="student_logits must have shape"):
        kl(TEACHER, STUDENT[0])
    with pytest.raises(ValueError, match="differ in leading dimensions"):
        catalogue_kl(np.zeros((2, 4)), np.eye(4), np.zeros((3, 4)), np.eye(4))
    with pytest.raises(ValueError, match="targets must have shape"):
        losses.decoupled_kd(TEACHER, STUDENT, TARGETS[0])
    with pytest.raises(ValueError, match="teacher_losses must have shape"):
        losses.importance_weighted(np.zeros(3), np.zeros(2), np.zeros(3))
    with pytest.raises(ValueError, match="student_tail must have shape"):
        losses.topk_kl(TEACHER, TEACHER[..., 0], STUDENT, STUDENT)
    with pytest.raises(ValueError, match="logsumexp must have shape"):
        losses.tail_logit(TEACHER, np.zeros(3))
    with pytest.raises(ValueError, match="rows must have shape"):
        losses.catalogue_topk(TEACHER, TEACHER[..., 0], np.zeros((3, 2), int), STUDENT, np.eye(9))


TARGETS = np.array([[0, 2, 8], [4, 3, 6]])
some_valid = pytest.mark.parametrize("valid", [np.ones(9, bool), VALID])
vectors = hnp.arrays(np.float32, (2, 5), elements=st.floats(-30, 30, width=32))


def both(valid, temperature=1.0):
    return (
        softmax(np.where(valid, np.float64(logits), -np.inf) / temperature, axis=-1)
        for logits in (TEACHER, STUDENT)
    )


@some_valid
def test_reverse_kl_against_scipy(valid):
    p, q = both(valid, 3.0)
    ours = reverse_kl(TEACHER, STUDENT, temperature=3.0, valid=valid)
    np.testing.assert_allclose(ours, 9 * rel_entr(q, p).sum(-1), rtol=1e-4, atol=1e-5)


@some_valid
def test_jensen_shannon_against_scipy(valid):
    p, q = both(valid, 3.0)
    expected = 9 * jensenshannon(p, q, axis=-1) ** 2
    ours = jensen_shannon(TEACHER, STUDENT, temperature=3.0, valid=valid)
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)
    m = 0.2 * p + 0.8 * q
    expected = 9 * (0.2 * rel_entr(p, m) + 0.8 * rel_entr(q, m)).sum(-1)
    ours = jensen_shannon(TEACHER, STUDENT, share=0.2, temperature=3.0, valid=valid)
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


def test_jensen_shannon_lies_between_the_two_kls():
    small = 1e-4
    near = jensen_shannon(TEACHER, STUDENT, share=small) / small
    np.testing.assert_allclose(near, kl(TEACHER, STUDENT), rtol=5e-2)
    far = jensen_shannon(TEACHER, STUDENT, share=1 - small) / small
    np.testing.assert_allclose(far, reverse_kl(TEACHER, STUDENT), rtol=5e-2)


@some_valid
def test_skew_kl_against_scipy(valid):
    p, q = both(valid, 3.0)
    expected = 9 * rel_entr(p, 0.3 * p + 0.7 * q).sum(-1)
    ours = skew_kl(TEACHER, STUDENT, skew=0.3, temperature=3.0, valid=valid)
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(skew_kl(TEACHER, STUDENT, skew=0.0), kl(TEACHER, STUDENT), rtol=1e-5)


@some_valid
def test_decoupled_kd_by_its_two_parts(valid):
    p, q = both(valid, 2.0)
    expected = np.zeros(TARGETS.shape)
    for place in np.ndindex(*TARGETS.shape):
        allowed = np.array(valid) | (np.arange(9) == TARGETS[place])
        p, q = (
            softmax(np.where(allowed, np.float64(x[place]), -np.inf) / 2)
            for x in (TEACHER, STUDENT)
        )
        t = TARGETS[place]
        target = rel_entr([p[t], 1 - p[t]], [q[t], 1 - q[t]]).sum()
        rest = [np.delete(x, t) / (1 - x[t]) for x in (p, q)]
        expected[place] = 4 * (0.5 * target + 3.0 * rel_entr(*rest).sum())
    each = valid | (np.arange(9) == TARGETS[..., None])
    ours = decoupled_kd(
        TEACHER, STUDENT, TARGETS, target_weight=0.5, others_weight=3.0, temperature=2.0, valid=each
    )
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


def test_decoupled_kd_is_kl_with_the_teachers_own_weight():
    p = softmax(TEACHER, axis=-1)
    wrong = 1 - np.take_along_axis(p, TARGETS[..., None], axis=-1)[..., 0]
    ours = decoupled_kd(TEACHER, STUDENT, TARGETS, others_weight=wrong)
    np.testing.assert_allclose(ours, kl(TEACHER, STUDENT), rtol=1e-4)


def test_decoupled_kd_of_a_target_alone_costs_nothing():
    alone = np.arange(9) == TARGETS[..., None]
    value, gradient = jax.value_and_grad(
        lambda s: decoupled_kd(TEACHER, s, TARGETS, valid=alone).sum()
    )(STUDENT)
    assert float(value) == 0
    assert not gradient.any()


def test_importance_weighted_by_hand():
    distil, theirs, ours = np.array([2.0, 2.0, 2.0]), np.array([0.5, 5.0, 0.0]), np.ones(3)
    expected = 2 * (1 - np.exp([-2.0, -0.2, -np.inf]))
    got = losses.importance_weighted(distil, theirs, ours)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


@settings(max_examples=40, deadline=None)
@given(vectors)
def test_bounds(logits):
    teacher, student = logits
    assert -1e-5 <= float(kl(teacher, student)) <= 61
    assert -1e-5 <= float(reverse_kl(teacher, student)) <= 61
    assert -1e-5 <= float(jensen_shannon(teacher, student)) <= np.log(2) + 1e-5
    assert -1e-5 <= float(skew_kl(teacher, student, skew=0.1)) <= np.log(10) + 1e-5
    one_way, back = jensen_shannon(teacher, student), jensen_shannon(student, teacher)
    np.testing.assert_allclose(one_way, back, atol=1e-5)


def tops(logits, rows, temperature=1.0):
    """The chosen logits and the tail's, in float64."""
    mask = np.zeros(logits.shape, bool)
    np.put_along_axis(mask, rows, True, axis=-1)
    tail = np.where(mask, -np.inf, np.float64(logits) / temperature)
    return np.take_along_axis(logits, rows, axis=-1), temperature * logsumexp(tail, axis=-1)


def test_topk_kl_against_merged_probabilities():
    rows = np.argsort(-TEACHER, axis=-1)[..., :3]
    sides = [tops(x, rows, 2.0) for x in (TEACHER, STUDENT)]
    merged = []
    for logits in (TEACHER, STUDENT):
        p = softmax(np.float64(logits) / 2, axis=-1)
        top = np.take_along_axis(p, rows, axis=-1)
        merged.append(np.concatenate([top, 1 - top.sum(-1, keepdims=True)], axis=-1))
    expected = 4 * rel_entr(*merged).sum(-1)
    ours = topk_kl(*sides[0], *sides[1], temperature=2.0)
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)
    backwards = topk_kl(*sides[0], *sides[1], temperature=2.0, divergence=losses.reverse_kl)
    np.testing.assert_allclose(backwards, 4 * rel_entr(*merged[::-1]).sum(-1), rtol=1e-4, atol=1e-5)
    # Merging can only lose: at most the whole divergence.
    assert (np.asarray(ours) <= np.asarray(kl(TEACHER, STUDENT, temperature=2.0)) + 1e-5).all()


@settings(max_examples=40, deadline=None)
@given(vectors)
def test_topk_with_every_item_is_the_full_kl(logits):
    teacher, student = logits
    none = np.float32(-np.inf)
    value, gradient = jax.value_and_grad(lambda s: topk_kl(teacher, none, s, none))(student)
    whole, expected = jax.value_and_grad(lambda s: kl(teacher, s))(student)
    np.testing.assert_allclose(value, whole, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-5)


def test_tail_logit_is_exact_where_float32_can_tell():
    rows = np.argsort(-TEACHER, axis=-1)[..., :3]
    top, tail = tops(TEACHER, rows, 2.0)
    lse = logsumexp(np.float64(TEACHER) / 2, axis=-1)
    np.testing.assert_allclose(tail_logit(top, lse, temperature=2.0), tail, rtol=1e-4, atol=1e-5)
    # Nothing is left: a tail of about a ten-millionth, and finite gradients.
    lse = lambda z: jax.nn.logsumexp(z, axis=-1)  # noqa: E731
    gradient = jax.grad(lambda z: tail_logit(z, lse(z)).sum())(TEACHER)
    assert np.isfinite(gradient).all()
    left = np.exp(np.asarray(tail_logit(TEACHER, lse(TEACHER)) - lse(TEACHER)))
    assert (left < 1e-6).all()


@pytest.mark.parametrize("chunk", [4, 9])
def test_catalogue_topk_is_topk_kl_of_the_logits(chunk):
    states = RNG.normal(size=(2, 3, 4)).astype(np.float32)
    items, bias = RNG.normal(size=(9, 4)).astype(np.float32), RNG.normal(size=9).astype(np.float32)
    z = np.where(VALID, states @ items.T + bias, -np.inf)
    teacher = np.where(VALID, TEACHER, -np.inf)
    rows = np.argsort(-teacher, axis=-1)[..., :3]
    top, tail = tops(teacher, rows, 2.0)
    expected = topk_kl(top, tail, *tops(z, rows, 2.0), temperature=2.0)
    settings = {"temperature": 2.0, "student_bias": bias, "valid": VALID, "chunk": chunk}
    ours = catalogue_topk(top, tail, rows, states, items, **settings)
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)
    # Entries that stand for no item: the teacher knows one item less.
    rows[..., 2] = -1
    shorter = topk_kl(top[..., :2], tail, *tops(z, rows[..., :2], 2.0), temperature=2.0)
    ours = catalogue_topk(top, tail, rows, states, items, **settings)
    np.testing.assert_allclose(ours, shorter, rtol=1e-4, atol=1e-5)


def test_the_teachers_top_k_from_the_kernels():
    """The teacher's side of a cache: chunked_topk, chunked_logsumexp and tail_logit."""
    states, items = RNG.normal(size=(5, 4)), RNG.normal(size=(9, 4))
    scores, rows = chunked_topk(states, items, 3, chunk=4)
    tail = tail_logit(scores, chunked_logsumexp(states, items, chunk=4))
    _, expected = tops(states @ items.T, np.asarray(rows))
    np.testing.assert_allclose(tail, expected, rtol=1e-4, atol=1e-5)
    log_p = log_softmax(states @ items.T, axis=-1)
    whole = log_softmax(np.concatenate([scores, tail[:, None]], axis=1), axis=-1)
    picked = np.take_along_axis(log_p, np.asarray(rows), axis=-1)
    np.testing.assert_allclose(whole[:, :3], picked, rtol=1e-4, atol=1e-5)
    cost = catalogue_topk(scores, tail, rows, states, items)
    np.testing.assert_allclose(cost, 0, atol=1e-5)
