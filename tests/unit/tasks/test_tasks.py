"""The tasks' losses against what they are said to be."""

from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmrec.errors import UserError
from jmrec.models.parts.transformer import StackConfig
from jmrec.models.readers.alignment import AlignmentConfig
from jmrec.models.readers.knowledge import KnowledgeConfig
from jmrec.models.readers.vision import VisionConfig, picture_words
from jmrec.models.sessions.student import StudentConfig
from jmrec.models.sessions.transfer import ItemTokens, TransferConfig, transfer_tower
from jmrec.tasks.distill import LOWER, UPPER, DistillTask
from jmrec.tasks.knowledge import KnowledgeTask
from jmrec.tasks.session import (
    DISTILL,
    CachedTeacher,
    StudentTask,
    Teacher,
    id_rows,
    id_table_size,
)
from jmrec.tasks.transition import TransitionTask
from jmrec.tasks.vision import VisionTask, word_weights
from jmrec.training import TrainConfig, Trainer

TINY = StackConfig(width=16, layers=1, heads=2, kv_heads=1, mlp=16)
KNOWLEDGE = KnowledgeConfig(
    vocab=12, fields=(3, 4, 2), vision=VisionConfig(size=8, patch=4, stack=TINY), stack=TINY
)
RNG = np.random.default_rng(0)
E_TABLE = RNG.normal(size=(7, 5)).astype(np.float32)
TRAIN = np.array([1, 1, 1, 0, 1, 0, 1], bool)
STUDENT = StudentConfig(features=5, ids=id_table_size(int(TRAIN.sum())), stack=TINY)
QUIET = {"dropout": 0.0, "id_dropout": 0.0}
SESSIONS = {
    "gap": jnp.zeros((2, 3)),
    "event": jnp.zeros((2, 3), int),
    "item": jnp.array([[0, 1, 2], [4, 0, 0]]),
    "mask": jnp.array([[True] * 3, [True, False, False]]),
    "target": jnp.array([[1, 2, 4], [6, 0, 0]]),
    "target_ok": jnp.array([[True] * 3, [True, False, False]]),
}


def item_batch(size: int = 8) -> dict:
    rng = np.random.default_rng(1)
    text = rng.integers(1, 12, (size, 9)).astype(np.int32)
    text[0, 3:7] = 0  # an item without its second field
    ok = np.ones(size, bool)
    ok[1] = False
    picture = rng.integers(0, 256, (size, 8, 8, 3)).astype(np.uint8)
    batch = {"row": np.arange(size), "text": text, "picture": picture, "picture_ok": ok}
    return {name: jnp.asarray(array) for name, array in batch.items()}


class Result(NamedTuple):
    """What a task says of a batch."""

    loss: jax.Array
    total: jax.Array
    count: jax.Array
    metrics: dict
    state: dict
    grads: dict


@cache
def compiled(task):
    """A task's parameters and state, and its mean loss with gradients: compiled once a batch."""
    params, state = task.init(jax.random.key(0))
    frozen, axes = task.frozen(Path())
    assert jax.tree.structure(frozen) == jax.tree.structure(
        axes, is_leaf=lambda node: isinstance(node, tuple)
    )
    frozen = jax.tree.map(jnp.asarray, frozen)

    @jax.jit
    def run(params, state, batch, key, numbers):
        def mean(params):
            total, count, moved, metrics = task.loss(
                params, state, frozen, batch, key, jnp.int32(0), numbers
            )
            return total / count, (total, count, metrics, moved)

        (loss, aux), grads = jax.value_and_grad(mean, has_aux=True)(params)
        return Result(loss, *aux, grads)

    return params, state, run


def call(task, batch: dict, hparams: dict | None = None, **other) -> tuple[dict, Result]:
    """Ask a task, with other ``params``, ``state`` or ``key`` than its first ones if told."""
    params, state, run = compiled(task)
    given = {"params": params, "state": state, "key": jax.random.key(0), **other}
    return params, run(batch=batch, numbers={**task.hparams, **(hparams or {})}, **given)


@partial(jax.jit, static_argnums=2)
def moved(params, grads, rate: float):
    return jax.tree.map(lambda p, g: p - rate * g, params, grads)


@cache
def knowledge_task() -> KnowledgeTask:
    return KnowledgeTask(KNOWLEDGE, {})


@cache
def transfer_teacher():
    """A Transfer tower with its parameters."""
    transfer = transfer_tower(TransferConfig(features=5, stack=TINY, out=4))
    return transfer, transfer.init(jax.random.key(5))


@cache
def student_task(distill: str = "kl") -> StudentTask:
    """A student of that tower, without dropout."""
    return StudentTask(
        STUDENT, E_TABLE, TRAIN, Teacher(*transfer_teacher(), E_TABLE), QUIET, distill
    )


@cache
def teacher_logits() -> np.ndarray:
    """What the tower itself says after each click: logits [2, 3, 7]."""
    (model, params), shown = transfer_teacher(), E_TABLE[SESSIONS["item"]]
    h, _ = jax.jit(model.fns["encode_session"])(params, shown, SESSIONS["mask"])
    return h @ model.fns["item_table"](params, E_TABLE)[0].T


@jax.jit
def student_logits(params):
    """What a student says after each click: logits [2, 3, 7]."""
    task = student_task()
    fns, ids = task.model.fns, task.frozen_inputs["ids"][: len(E_TABLE)]
    table, _ = fns["item_table"](params, E_TABLE, ids)
    states, _ = fns["encode_session"](params, table[SESSIONS["item"]], SESSIONS["mask"])
    return states @ table.T


@cache
def student_alone() -> StudentTask:
    return StudentTask(STUDENT, E_TABLE, TRAIN, None, {"dropout": 0.0})


def test_knowledge_prompt_hides_whole_fields_and_at_least_one() -> None:
    task = KnowledgeTask(KNOWLEDGE, {"hide_picture": 0.0, "hide_tokens": 0.0})
    batch = item_batch(64)
    shown, hidden, _ = jax.jit(task.prompt)(batch, jax.random.key(0), task.hparams)
    field = np.asarray(task.token_field)
    assert not (shown & hidden).any()
    np.testing.assert_array_equal(shown | hidden, batch["text"] > 0)
    for f in range(3):
        part = np.asarray(hidden)[1:, field == f]
        assert (part.all(1) | ~part.any(1)).all()
    assert np.asarray(hidden)[1:].any(1).all()
    assert 0.2 < (~np.asarray(shown)[1:].any(1)).mean() < 0.6


def test_knowledge_loss_is_finite_and_falls_with_training() -> None:
    task, batch = knowledge_task(), item_batch()
    params, first = call(task, batch)
    assert all(jnp.isfinite(g).all() for g in jax.tree.leaves(first.grads))
    for n in range(60):
        _, last = call(task, batch, params=params, key=jax.random.key(n))
        params = moved(params, last.grads, 0.1)
    assert float(last.loss) < 0.8 * float(first.loss)


def test_knowledge_without_generation_or_contrast_drops_the_term() -> None:
    batch = item_batch()
    _, both = call(knowledge_task(), batch)
    task = KnowledgeTask(KNOWLEDGE, {"contrast": 0.0})
    _, text = call(task, batch)
    assert "contrast" not in text.metrics
    assert float(both.loss) != float(text.loss)
    _, none = call(task, batch, {"generation": 0.0})
    assert float(none.loss) == 0.0


def test_vision_learns_which_words_go_with_a_picture_and_others_do_not_count() -> None:
    rng = np.random.default_rng(0)
    dark = np.arange(32) % 2 == 0
    picture = np.where(dark[:, None, None, None], 40, 200) + rng.integers(0, 40, (32, 8, 8, 3))
    # Token 2 or 3 says which; the others are chance.
    text = np.stack([np.where(dark, 2, 3), rng.integers(4, 12, 32), np.zeros(32)], 1)
    batch = {
        "text": jnp.asarray(text, jnp.int32),
        "picture": jnp.asarray(picture, jnp.uint8),
        "picture_ok": jnp.ones(32, bool).at[:4].set(False),
    }
    task = VisionTask(
        picture_words(KNOWLEDGE.vision, 16, 12),
        word_weights(text.astype(int), 12),
        {"brighten": 0.1},
    )
    params, first = call(task, batch)
    assert float(first.count) == 28
    # The head begins at zero: the first loss is that of the prior, and nothing reaches the eye yet.
    mass = np.exp(task.frozen_inputs["prior"])
    bags = np.zeros((32, 12))
    np.put_along_axis(
        bags, text[:, :2].astype(int), task.frozen_inputs["weights"][text[:, :2].astype(int)], 1
    )
    bags /= bags.sum(1, keepdims=True)
    np.testing.assert_allclose(mass.sum(), 1.0, rtol=1e-5)
    np.testing.assert_allclose(
        first.loss, -(bags[4:] * np.log(mass / mass.sum())).sum(1).mean(), rtol=1e-4
    )
    assert not any(jnp.abs(g).max() for g in jax.tree.leaves(first.grads["vision"]))
    for n in range(80):
        _, said = call(task, batch, params=params, key=jax.random.key(n))
        params = moved(params, said.grads, 0.3)
    logits, _ = jax.jit(task.model.fns["name_words"])(params, batch["picture"])
    np.testing.assert_array_equal(np.asarray(logits[:, 2] > logits[:, 3]), dark)


def test_knowledge_starts_from_an_eye_that_has_learned() -> None:
    eye = knowledge_task().init(jax.random.key(7))[0]["vision"]
    params, _ = KnowledgeTask(KNOWLEDGE, {}, vision=eye).init(jax.random.key(0))
    fresh, _ = knowledge_task().init(jax.random.key(0))
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), params["vision"], eye))
    assert not np.array_equal(fresh["vision"]["stem0"]["kernel"], eye["stem0"]["kernel"])
    np.testing.assert_array_equal(params["embed"]["embedding"], fresh["embed"]["embedding"])


def test_transition_is_a_softmax_over_training_items_only() -> None:
    task = TransitionTask(
        TransferConfig(features=5, stack=TINY, out=4), E_TABLE, TRAIN, {"dropout": 0.0}
    )
    params, said = call(task, SESSIONS)
    fns = {name: jax.jit(task.model.fns[name]) for name in ("encode_session", "item_table")}
    h, _ = fns["encode_session"](params, E_TABLE[SESSIONS["item"]], SESSIONS["mask"])
    y, _ = fns["item_table"](params, E_TABLE)
    logits = np.asarray(h @ y.T, np.float64)[..., TRAIN]
    place = np.cumsum(TRAIN) - 1
    want = 0.0
    for b, p in ((0, 0), (0, 1), (0, 2), (1, 0)):
        row = logits[b, p]
        want += np.log(np.exp(row).sum()) - row[place[SESSIONS["target"][b, p]]]
    assert int(said.count) == 4
    np.testing.assert_allclose(said.total, want, rtol=1e-5)


@cache
def distill_task(lower: str = "infonce", upper: str = "vclub", **hparams) -> DistillTask:
    return DistillTask(
        AlignmentConfig(features=5, states=4, k=3, t=3, critic=3),
        *transfer_teacher(), E_TABLE, TRAIN,
        lower=lower, upper=upper, items=16, hparams=hparams,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("lower", "upper"),
    [(lower, "vclub") for lower in LOWER] + [("infonce", upper) for upper in UPPER[1:]],
)
def test_distill_estimators_have_finite_gradients(lower: str, upper: str) -> None:
    _, said = call(distill_task(lower, upper), SESSIONS)
    grads = said.grads
    assert jnp.isfinite(said.loss)
    assert all(jnp.isfinite(g).all() for g in jax.tree.leaves(grads))
    assert float(jnp.abs(grads["head_t"]["kernel"]).sum()) > 0
    assert float(jnp.abs(grads["head_k"]["kernel"]).sum()) > 0


def test_distill_keeps_the_moving_averages_of_mine() -> None:
    """Its state holds one for each bound, and each step moves them; others have no state."""
    task = distill_task("mine")
    params, state = task.init(jax.random.key(0))
    assert state == {"next": -jnp.inf, "last": -jnp.inf}

    def step(params, state):
        return call(task, SESSIONS, params=params, state=state)[1].state

    first = step(params, state)
    tripled = jax.tree.map(lambda x: 3.0 * x, params)
    second, alone = step(tripled, first), step(tripled, state)
    for name in ("next", "last"):
        mixed = 0.99 * np.exp(float(first[name])) + 0.01 * np.exp(float(alone[name]))
        assert float(second[name]) == pytest.approx(np.log(mixed), rel=1e-4, abs=1e-6)
        assert float(second[name]) != float(first[name])
    assert distill_task("smile").init(jax.random.key(0))[1] == {}


def test_the_averages_of_mine_are_saved_and_go_on_after_a_kill(tmp_path) -> None:
    class Batches:
        kill = -1

        def __getitem__(self, n: int) -> dict:
            if n == self.kill:
                raise RuntimeError("killed")
            item = (np.asarray(SESSIONS["item"]) + n) % 3
            return {**{name: np.asarray(x) for name, x in SESSIONS.items()}, "item": item}

    task = distill_task("mine")
    config = TrainConfig(steps=4, eval_every=2, save_every=2, log_every=4)
    trainer = Trainer(task, config, frozen=task.frozen(Path()))
    whole = trainer.fit(tmp_path / "whole", Batches(), seed=0)
    killed = Batches()
    killed.kill = 3
    with pytest.raises(RuntimeError, match="killed"):
        trainer.fit(tmp_path / "killed", killed, seed=0)
    resumed = trainer.fit(tmp_path / "killed", Batches(), seed=0)
    for name in ("next", "last"):
        assert np.isfinite(whole.task_state[name])
        assert float(resumed.task_state[name]) == float(whole.task_state[name])


def test_an_unknown_estimator_is_a_sentence() -> None:
    with pytest.raises(UserError, match=r'distill.lower="minne" is not one of .* "mine"'):
        distill_task("minne")
    with pytest.raises(UserError, match=r'distill.upper="club" is not one of vclub, l1out'):
        distill_task("infonce", "club")


def test_distill_ablations_silence_their_terms() -> None:
    task, off = distill_task(), {"next": 0.0, "last": 0.0, "disentangle": 0.0}
    alone = call(task, SESSIONS, off)[1].grads
    assert float(jnp.abs(alone["head_t"]["kernel"]).sum()) == 0
    assert float(jnp.abs(alone["head_k"]["kernel"]).sum()) > 0
    # q(t | k) moves neither k nor t, and the term that parts them does not move q.
    grads = call(task, SESSIONS, {**off, "disentangle": 1.0})[1].grads
    for a, b in zip(jax.tree.leaves(grads["conditional1"]), jax.tree.leaves(alone["conditional1"])):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_distill_parts_no_further_than_to_independence() -> None:
    """Where the estimate of I(k; t) is negative, it moves neither k nor t; where positive, both."""
    only = {"next": 0.0, "last": 0.0, "disentangle": 10.0, "rebuild": 0.0}
    signs = set()
    for n in range(20):
        _, said = call(distill_task(), SESSIONS, only, key=jax.random.key(n))
        positive = bool(said.metrics["vclub"][0] > 0)
        signs.add(positive)
        for head in ("head_k", "head_t"):
            assert bool(jnp.abs(said.grads[head]["kernel"]).sum() > 0) == positive
    assert signs == {True, False}


def test_every_stage_can_read_sessions_as_tokens() -> None:
    """The rows that a session's items have are gathered from the tables of their tokens."""
    vocab, words = 12, np.random.default_rng(1)
    tokens = {
        "text": words.integers(1, vocab, (len(E_TABLE), 4)).astype(np.int32),
        "seen": words.normal(size=(len(E_TABLE), 2, 16)).astype(np.float32),
        "picture_ok": np.arange(len(E_TABLE)) % 2 == 0,
    }
    config = TransferConfig(5, TINY, 4, ItemTokens(vocab, text=4, seen=2, width=16))
    known = {"embedding": jnp.full((vocab, TINY.width), 0.5)}
    task = TransitionTask(config, E_TABLE, TRAIN, {"dropout": 0.0}, tokens, known)
    params, said = call(task, SESSIONS)
    np.testing.assert_array_equal(params["embed"]["embedding"], known["embedding"])
    assert jnp.isfinite(said.loss)
    assert float(jnp.abs(said.grads["look"]["kernel"]).sum()) > 0
    shown = {name: table[SESSIONS["item"]] for name, table in tokens.items()}
    h, _ = jax.jit(task.model.fns["encode_session"])(params, shown, SESSIONS["mask"])
    teacher = Teacher(task.model, params, E_TABLE, tokens)
    distilled = DistillTask(
        AlignmentConfig(features=5, states=4, k=3, t=3, critic=3), task.model, params,
        E_TABLE, TRAIN, items=16, hparams={}, tokens=tokens,
    )  # fmt: skip
    assert jnp.isfinite(call(distilled, SESSIONS)[1].loss)
    pupil = StudentTask(STUDENT, E_TABLE, TRAIN, teacher, QUIET)
    own, said = call(pupil, SESSIONS)
    y, _ = jax.jit(task.model.fns["item_table"])(params, E_TABLE)
    p = jax.nn.log_softmax((h @ y.T)[..., TRAIN])
    q = jax.nn.log_softmax(student_logits(own)[..., TRAIN])
    want = jnp.where(SESSIONS["target_ok"], (jnp.exp(p) * (p - q)).sum(-1), 0.0).sum()
    np.testing.assert_allclose(said.metrics["teacher_kl"][0], want, rtol=1e-4)


def test_student_with_its_own_teacher_has_no_kl() -> None:
    task = student_task()
    kl, count = call(task, SESSIONS)[1].metrics["teacher_kl"]
    assert float(kl) > 0
    assert int(count) == 4
    with_kl, without = (call(task, SESSIONS, {"logit": n})[1].loss for n in (1.0, 0.0))
    np.testing.assert_allclose(with_kl - without, kl / count, rtol=1e-4)


@pytest.mark.parametrize("distill", list(DISTILL))
def test_students_follow_their_teacher_by_every_divergence(distill: str) -> None:
    """With k at least the catalogue the top-k forms are the divergences of the whole logits."""
    own, said = call(student_task(distill), SESSIONS, {"teacher_temperature": 2.0})
    assert all(jnp.isfinite(g).all() for g in jax.tree.leaves(said.grads))
    apart = DISTILL[distill](
        *(teacher_logits(), student_logits(own)),
        **{"temperature": 2.0, "valid": TRAIN, "where": SESSIONS["target_ok"]},
    )
    np.testing.assert_allclose(said.metrics[f"teacher_{distill}"][0], apart.sum(), rtol=1e-3)
    total = said.metrics["next_item"][0] + said.metrics[f"teacher_{distill}"][0]
    np.testing.assert_allclose(said.loss, total / said.count, rtol=1e-5)


def test_students_that_follow_a_few_items_pay_for_the_rest() -> None:
    """With k = 2 the loss is that of two items and one bucket: less than over the catalogue."""
    teacher = Teacher(*transfer_teacher(), E_TABLE)
    few = StudentTask(STUDENT, E_TABLE, TRAIN, teacher, QUIET, "topk_kl", top=2)
    costs = []
    for task, name in ((few, "teacher_topk_kl"), (student_task(), "teacher_kl")):
        costs.append(float(call(task, SESSIONS)[1].metrics[name][0]))
    assert 0 < costs[0] < 0.95 * costs[1]
    with pytest.raises(UserError, match=r'student.distill="topk" is not one of kl, topk_kl'):
        StudentTask(STUDENT, E_TABLE, TRAIN, teacher, QUIET, "topk")


def test_students_of_a_cached_teacher_read_its_word_on_each_event() -> None:
    """A live teacher's top k written down gives the loss that it gives live."""
    teacher = Teacher(*transfer_teacher(), E_TABLE)
    live = StudentTask(STUDENT, E_TABLE, TRAIN, teacher, QUIET, "topk_kl", top=3)
    logits = np.where(TRAIN, np.asarray(teacher_logits()).reshape(-1, len(TRAIN)), -np.inf)
    rows = np.argsort(-logits, axis=1)[:, :3].astype(np.int32)
    best = np.take_along_axis(logits, rows, 1)
    np.put_along_axis(logits, rows, -np.inf, 1)
    tail = np.asarray(jax.nn.logsumexp(logits, axis=1))
    order = np.random.default_rng(0).permutation(len(rows))  # where an event's soft label is
    place = jnp.asarray(np.argsort(order).reshape(SESSIONS["item"].shape))
    cached = CachedTeacher(rows[order], best[order].astype(np.float32), tail[order])
    task = StudentTask(STUDENT, E_TABLE, TRAIN, cached, QUIET, "topk_kl")
    _, want = call(live, SESSIONS)
    _, found = call(task, {**SESSIONS, "place": place})
    live_kl, cached_kl = (float(said.metrics["teacher_topk_kl"][0]) for said in (want, found))
    assert cached_kl == pytest.approx(live_kl, rel=1e-4)
    assert live_kl > 0
    np.testing.assert_allclose(found.loss, want.loss, rtol=1e-5)
    close = partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5)
    jax.tree.map(close, found.grads, want.grads)
    with pytest.raises(UserError, match="only its likeliest items are known"):
        StudentTask(STUDENT, E_TABLE, TRAIN, cached, QUIET)


def test_the_teacher_s_weight_follows_its_schedule() -> None:
    teacher = Teacher(*transfer_teacher(), E_TABLE)
    table = {"teacher": {"name": "linear", "steps": 4, "start": 0.5}}
    task = StudentTask(STUDENT, E_TABLE, TRAIN, teacher, {}, schedules=table)
    metrics = call(task, SESSIONS)[1].metrics  # at update 0
    np.testing.assert_allclose(metrics["teacher/weighted"][0], 0.5 * metrics["teacher_kl"][0])


def test_students_learn_nothing_from_items_outside_training() -> None:
    _, base = call(student_alone(), SESSIONS)
    other = E_TABLE.copy()
    other[~TRAIN] = 99.0
    _, same = call(StudentTask(STUDENT, other, TRAIN, None, {"dropout": 0.0}), SESSIONS)
    assert float(base.loss) == float(same.loss)


def test_masked_positions_change_nothing() -> None:
    task = student_alone()
    other = {
        **SESSIONS,
        "item": SESSIONS["item"].at[1, 1:].set(6),
        "target": SESSIONS["target"].at[1, 1:].set(6),
    }
    a, b = call(task, SESSIONS)[1], call(task, other)[1]
    assert float(a.loss) == float(b.loss)
    for x, y in zip(jax.tree.leaves(a.grads), jax.tree.leaves(b.grads)):
        np.testing.assert_allclose(x, y, atol=1e-7)


def test_id_rows_send_new_items_to_the_last_row() -> None:
    size = id_table_size(int(TRAIN.sum()))
    rows = id_rows(TRAIN, size)
    assert size == 1024
    assert sorted(rows[TRAIN].tolist()) == list(range(int(TRAIN.sum())))
    assert (rows[~TRAIN] == size - 1).all()
