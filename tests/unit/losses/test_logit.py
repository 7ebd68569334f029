"""Logit distillation against scipy, and the T**2 convention."""

import jax
import numpy as np
import pytest
from scipy.special import rel_entr, softmax

from jmrec import losses

kl = jax.jit(losses.kl)
catalogue_kl = jax.jit(losses.catalogue_kl, static_argnames="chunk")

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
