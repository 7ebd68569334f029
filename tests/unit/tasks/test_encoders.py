"""The student's task with encoders that jmrec has never seen, and with every next-item loss."""

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmrec import losses
from jmrec.errors import UserError
from jmrec.models.sessions.student import StudentConfig
from jmrec.models.sessions.table import session_model
from jmrec.models.sessions.transfer import ItemTokens, TransferConfig
from jmrec.tasks.session import StudentTask, Teacher, id_rows, id_table_size
from jmrec.training import TrainConfig, Trainer
from tests.unit.models.toy_encoders import MeanConfig, WholeConfig, registered, state, vectors
from tests.unit.tasks.test_tasks import E_TABLE, QUIET, SESSIONS, TINY, TRAIN, call

IDS = id_table_size(int(TRAIN.sum()))
CONFIGS = {
    "mean": MeanConfig(features=5, ids=IDS),
    "whole": WholeConfig(features=5, ids=IDS, gaps=True),
    "whole, ids alone": WholeConfig(features=0, ids=IDS),
    "transfer": TransferConfig(features=5, stack=TINY, out=4),
}


@pytest.fixture(autouse=True)
def toys():
    with registered():
        yield


def task_of(name: str, teacher: bool = False, **settings) -> StudentTask:
    config = CONFIGS[name]
    follow = None
    if teacher:
        tower = session_model(CONFIGS["transfer"])
        follow = Teacher(tower, tower.init(jax.random.key(5)), E_TABLE)
    features = E_TABLE if config.features else None
    return StudentTask(config, features, TRAIN, follow, QUIET, **settings)


@pytest.mark.parametrize("name", ["mean", "whole", "whole, ids alone"])
def test_the_loss_is_that_of_each_prefix_by_hand(name: str) -> None:
    params, said = call(task_of(name), SESSIONS)
    config, ids = CONFIGS[name], id_rows(TRAIN, IDS)
    table = vectors(params, E_TABLE if config.features else None, ids)
    want = []
    for row, length in enumerate((3, 1)):
        for n in range(1, length + 1):
            x = table[np.asarray(SESSIONS["item"][row, :n])]
            logits = table @ state(config, params, x, np.zeros(n))
            target = int(SESSIONS["target"][row, n - 1])
            want.append(np.log(np.exp(logits[TRAIN]).sum()) - logits[target])
    assert int(said.count) == len(want)
    assert float(said.loss) == pytest.approx(np.mean(want), rel=1e-4)


@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_masked_changes_neither_loss_nor_gradient(name: str) -> None:
    task = task_of(name, teacher=True)
    _, one = call(task, SESSIONS)
    other = {**SESSIONS, "item": SESSIONS["item"].at[1, 1:].set(6)}
    _, two = call(task, other)
    assert float(one.loss) == float(two.loss)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-7), one.grads, two.grads)
    assert all(jnp.isfinite(g).all() for g in jax.tree.leaves(one.grads))
    assert "teacher_kl" in one.metrics


def test_a_student_reads_features_where_its_teacher_reads_tokens() -> None:
    rng, config = np.random.default_rng(1), CONFIGS["transfer"]
    tokens = {
        "text": rng.integers(1, 9, (7, 3)).astype(np.int32),
        "seen": rng.normal(size=(7, 2, 4)).astype(np.float32),
        "picture_ok": rng.random(7) < 0.5,
    }
    tower = session_model(replace(config, tokens=ItemTokens(vocab=9, text=3, seen=2, width=4)))
    teacher = Teacher(tower, tower.init(jax.random.key(5)), E_TABLE, tokens)
    alone = call(task_of("transfer"), SESSIONS)[1].metrics
    taught = StudentTask(config, E_TABLE, TRAIN, teacher, QUIET)
    found = call(taught, SESSIONS)[1].metrics
    np.testing.assert_allclose(found["next_item"][0], alone["next_item"][0], rtol=1e-6)


@pytest.mark.parametrize("loss", losses.NEXT_ITEM)
def test_a_student_learns_by_every_next_item_loss(loss: str, tmp_path: Path) -> None:
    task = task_of("mean", loss=loss, negatives=4)
    batch = {name: np.asarray(array) for name, array in SESSIONS.items()}
    task.hparams["learning_rate"] = 0.1

    def value(params) -> float:
        frozen = jax.tree.map(jnp.asarray, task.frozen(Path())[0])
        total, count, _, metrics = task.loss(
            params, {}, frozen, SESSIONS, jax.random.key(9), jnp.int32(0), task.hparams
        )
        assert metrics["next_item"][0] == total
        return float(total / count)

    class Batches:
        def __getitem__(self, n: int) -> dict:
            return batch

    settings = TrainConfig(steps=30, eval_every=30, save_every=30, log_every=30)
    trainer = Trainer(task, settings, frozen=task.frozen(Path()))
    first = task.init(jax.random.key(0))[0]
    last = trainer.fit(tmp_path, Batches(), seed=0).params
    assert value(last) < 0.7 * value(first)


def test_what_samples_draws_anew_at_each_step_and_as_many_as_told() -> None:
    few, many = (task_of("mean", loss="sampled_softmax", negatives=n) for n in (2, 400))
    frozen = jax.tree.map(jnp.asarray, few.frozen(Path())[0])
    params = few.init(jax.random.key(0))[0]

    def values(task: StudentTask) -> np.ndarray:
        loss = jax.jit(
            lambda key: task.loss(
                params, {}, frozen, SESSIONS, key, jnp.int32(0), task.hparams
            )[0]
        )  # fmt: skip
        return np.array([loss(jax.random.key(n)) for n in range(8)])

    full = float(call(task_of("mean"), SESSIONS)[1].total)
    assert 0 < values(many).std() < 0.3 * values(few).std()
    np.testing.assert_allclose(values(many).mean(), full, rtol=0.1)


def test_a_loss_that_is_not_there_or_couples_examples_is_a_sentence() -> None:
    with pytest.raises(UserError, match=r'student.loss="hinge" is not one of full_softmax, sampl'):
        task_of("mean", loss="hinge")
    assert not task_of("mean").couples_examples
    coupled = task_of("mean", loss="in_batch_softmax")
    with pytest.raises(UserError, match="couples the examples of a batch"):
        Trainer(
            coupled,
            TrainConfig(steps=2, eval_every=2, save_every=2, accumulate=2),
            frozen=coupled.frozen(Path()),
        )


def test_the_default_is_the_full_softmax_of_the_student() -> None:
    config = StudentConfig(features=5, ids=IDS, stack=TINY)
    plain, named = (
        StudentTask(config, E_TABLE, TRAIN, None, QUIET, **more)
        for more in ({}, {"loss": "full_softmax", "negatives": 3})
    )
    _, one = call(plain, SESSIONS)
    _, two = call(named, SESSIONS)
    assert float(one.loss) == float(two.loss)
    jax.tree.map(np.testing.assert_array_equal, one.grads, two.grads)
