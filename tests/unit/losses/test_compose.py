"""Schedules and weighted sums: their values, what is traced, and what is refused in which words."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from jmrec import losses
from jmrec.errors import UserError
from jmrec.losses.schedules import SCHEDULES

RNG = np.random.default_rng(0)
TEACHER, STUDENT = RNG.normal(size=(2, 4, 6)).astype(np.float32)
TARGETS = np.array([0, 5, 2, 2])
WHERE = np.array([True, True, False, True])
TABLE = {
    "next": {"loss": "token_cross_entropy", "label_smoothing": 0.1},
    "teacher": {
        "loss": "kl",
        "temperature": 2.0,
        "weight": 0.5,
        "schedule": {"name": "linear", "steps": 10},
    },
    "order": {"loss": "listnet", "weight": 0},
    "size": {"weight": 0.1},
}
INPUTS = {
    "next": {"logits": STUDENT, "targets": TARGETS, "where": WHERE},
    "teacher": {"teacher_logits": TEACHER, "student_logits": STUDENT, "where": WHERE},
    "order": {"scores": STUDENT, "labels": TEACHER},
    "size": np.arange(8.0),
}


@pytest.mark.parametrize("kind", [dict, ConfigDict])
def test_a_sum_by_hand(kind):
    terms = losses.compose(kind(TABLE))
    total, count, metrics = terms(INPUTS, step=4)
    next_item = losses.token_cross_entropy(STUDENT, TARGETS, where=WHERE, label_smoothing=0.1)
    teacher = losses.kl(TEACHER, STUDENT, temperature=2.0, where=WHERE)
    expected = next_item.sum() / 3 + 0.5 * 0.4 * teacher.sum() / 3 + 0.1 * np.arange(8).mean()
    assert float(count) == 8  # of the term with the most examples
    assert float(total / count) == pytest.approx(float(expected), rel=1e-5)
    assert set(metrics) == {name + end for name in TABLE for end in ("", "/weighted")}
    assert metrics["teacher"] == (pytest.approx(float(teacher.sum()), rel=1e-5), 3)
    weighted = [float(s / c) for name, (s, c) in metrics.items() if name.endswith("/weighted")]
    assert sum(weighted) == pytest.approx(float(total / count), rel=1e-5)
    assert float(metrics["size/weighted"][0]) == pytest.approx(2.8)
    assert float(metrics["order/weighted"][0]) == 0
    assert float(metrics["order"][0]) > 0


def test_values_may_come_with_a_mask_and_everything_may_be_masked():
    terms = losses.compose({"a": {}, "b": {"weight": -2.0}})
    total, count, metrics = terms({"a": (np.ones(4), WHERE), "b": (np.ones(4), ~WHERE)})
    assert float(count) == 3.0
    assert float(total / count) == -1.0
    assert (float(metrics["b"][0]), float(metrics["b"][1])) == (1.0, 1.0)
    total, count, _ = terms({"a": (np.ones(4), WHERE), "b": (np.ones(4), np.zeros(4, bool))})
    assert (float(total), float(count)) == (3.0, 3.0)


def test_weights_and_floats_are_traced_and_compile_nothing_anew():
    terms = losses.compose(TABLE)
    assert isinstance(terms, losses.Composed)
    assert terms.hparams == {
        "next": {"weight": 1.0, "label_smoothing": 0.1},
        "teacher": {"weight": 0.5, "temperature": 2.0},
        "order": {"weight": 0.0},
        "size": {"weight": 0.1},
    }
    traces = []

    @jax.jit
    def loss(hparams, step):
        traces.append(1)
        total, count, _ = terms(INPUTS, step=step, hparams=hparams)
        return total / count

    base = float(loss(terms.hparams, 10))
    numbers = {**terms.hparams, "teacher": {"weight": 2.0, "temperature": 1.0}}
    changed = float(loss(numbers, 10))
    by_hand = (
        losses.token_cross_entropy(STUDENT, TARGETS, where=WHERE, label_smoothing=0.1)
        + 2.0 * losses.kl(TEACHER, STUDENT, where=WHERE)
    ).sum() / 3 + 0.35
    assert changed == pytest.approx(float(by_hand), rel=1e-5)
    assert changed != base
    loss(terms.hparams, 3)
    assert len(traces) == 1


def test_gradients_pass_through_the_sum_and_its_weights():
    terms = losses.compose({"teacher": TABLE["teacher"]})

    def loss(student, hparams):
        inputs = {"teacher_logits": TEACHER, "student_logits": student, "where": WHERE}
        total, count, _ = terms({"teacher": inputs}, step=10, hparams=hparams)
        return total / count

    ours, weights = jax.grad(loss, (0, 1))(STUDENT, terms.hparams)
    plain = jax.grad(lambda s: losses.kl(TEACHER, s, temperature=2.0, where=WHERE).sum() / 3)
    np.testing.assert_allclose(ours, 0.5 * plain(STUDENT), rtol=1e-5, atol=1e-7)
    value = losses.kl(TEACHER, STUDENT, temperature=2.0, where=WHERE).sum() / 3
    assert float(weights["teacher"]["weight"]) == pytest.approx(float(value), rel=1e-5)


def test_whole_numbers_stay_fixed():
    terms = losses.compose({"relations": {"loss": "minilm_relations", "heads": 2}})
    assert terms.hparams == {"relations": {"weight": 1.0}}
    inputs = {"teacher": np.ones((3, 5, 4)), "student": np.ones((3, 5, 2))}
    total, count, _ = jax.jit(lambda inputs: terms({"relations": inputs}))(inputs)
    assert float(count) == 3
    assert float(total) == pytest.approx(0.0, abs=1e-5)


def test_a_setting_may_name_a_loss():
    line = {"loss": "topk_kl", "divergence": "reverse_kl", "temperature": 2.0}
    tails = TEACHER[:, 0], STUDENT[:, 0]
    inputs = {
        "teacher_logits": TEACHER,
        "teacher_tail": tails[0],
        "student_logits": STUDENT,
        "student_tail": tails[1],
    }
    total, _, _ = losses.compose({"x": line})({"x": inputs})
    expected = losses.topk_kl(
        TEACHER, tails[0], STUDENT, tails[1], temperature=2.0, divergence=losses.reverse_kl
    )
    assert float(total) == pytest.approx(float(expected.sum()), rel=1e-5)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"loss": "topk_kl", "divergence": "revrese_kl"}, 'did you mean "reverse_kl"?'),
        ({"loss": "kl", "temperature": "hot"}, "temperature must be a number or a truth value"),
        ({"loss": "kll"}, 'term "x": there is no loss "kll"; did you mean "kl"?'),
        ({"loss": "zzzzzz"}, 'there is no loss "zzzzzz"; there are '),
        ({"loss": "kl", "temprature": 2.0}, 'the loss "kl" has no setting "temprature"; did you'),
        ({"loss": "kl", "wieght": 2.0}, 'did you mean "weight"?'),
        ({"temperature": 2.0}, "a term without a loss has no setting"),
        ({"loss": "kl", "teacher_logits": 2.0}, '"teacher_logits" is an array; hand it in'),
        ({"loss": "kl", "temperature": [1, 2]}, "temperature must be a number or a truth value"),
        ({"loss": "kl", "weight": "big"}, "weight must be a number, not 'big'."),
        ({"loss": "kl", "weight": True}, "weight must be a number, not True."),
        ({"loss": "mine"}, '"mine" hands back a moving average'),
        ({"loss": "kl", "schedule": "linaer"}, 'no schedule "linaer"; did you mean "linear"?'),
        ({"loss": "kl", "schedule": "linear"}, 'the schedule "linear" needs "steps"'),
        (
            {"loss": "kl", "schedule": {"name": "linear", "stpes": 3}},
            'the schedule "linear" has no setting "stpes"; did you mean "steps"?',
        ),
        (
            {"loss": "kl", "schedule": {"name": "linear", "steps": "3"}},
            "steps must be a number, not '3'.",
        ),
        ({"loss": "kl", "schedule": {"name": "linear", "steps": 0}}, "steps must be at least 1"),
        ({"loss": "kl", "schedule": {"name": "cyclical", "period": 4, "rising": 2}}, "rising must"),
        (3, "settings must be a table, not 3."),
    ],
)
def test_a_wrong_table_is_refused_in_a_sentence(line, said):
    with pytest.raises(UserError) as caught:
        losses.compose({"x": line})
    assert str(caught.value).startswith('term "x": ')
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_loss_has_a_setting_that_the_table_keeps_for_itself():
    for loss in losses.LOSSES.values():
        assert not {"loss", "weight", "schedule"} & inspect.signature(loss).parameters.keys()


def test_an_empty_table_and_wrong_inputs_are_refused():
    with pytest.raises(UserError, match="at least one term"):
        losses.compose({})
    with pytest.raises(ValueError, match="inputs for b do not fit the terms a"):
        losses.compose({"a": {}})({"b": np.ones(2)})


SEEN = {
    "constant": ({"value": 0.3}, {0: 0.3, 99: 0.3}),
    "linear": ({"steps": 4, "start": 2.0, "end": 0.0, "delay": 2}, {0: 2, 2: 2, 4: 1, 6: 0, 9: 0}),
    "cosine": ({"steps": 4, "delay": 2}, {0: 0, 3: (1 - np.sqrt(0.5)) / 2, 4: 0.5, 6: 1, 9: 1}),
    "sigmoid_ramp": ({"steps": 4}, {0: np.exp(-5), 2: np.exp(-1.25), 4: 1, 9: 1}),
    "cyclical": ({"period": 10, "rising": 0.4}, {0: 0, 1: 0.25, 4: 1, 9: 1, 10: 0, 12: 0.5}),
    "window": ({"first": 2, "last": 4}, {1: 0, 2: 1, 3: 1, 4: 0}),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules(name):
    settings, seen = SEEN[name]
    factor = losses.schedule({"name": name, **settings})
    for step, value in seen.items():
        assert float(factor(step)) == pytest.approx(value, abs=1e-6)
    traced = jax.jit(jax.vmap(factor))(jnp.array(list(seen)))
    np.testing.assert_allclose(traced, list(seen.values()), atol=1e-6)
