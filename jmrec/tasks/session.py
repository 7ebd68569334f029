"""Stage "student": train a session encoder on next items and, where it has one, on its teacher."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jmrec import losses
from jmrec.config import choose, flatten
from jmrec.errors import UserError
from jmrec.features import pad_rows, take_rows
from jmrec.kernels import catalogue_best, catalogue_logsumexp, pick
from jmrec.models.sessions.table import (
    ENCODERS,
    encoder_name,
    fills,
    id_table_rows,
    item_vectors,
    session_model,
    session_rows,
)
from jmrec.sharding import row_axes
from jmrec.tasks.cloze import cloze
from jmrec.tasks.task import ModelTask, StepInputs
from jmrec.types import Batch, HParams, LossResult, Model, Params

DISTILL: dict[str, Callable[..., jax.Array]] = {
    "kl": losses.kl,
    **{f"topk_{each.__name__}": each for each in losses.DIVERGENCES},
}
"""Divergences of the teacher's and the student's distribution: "kl" over the whole catalogue in
blocks, the others over the teacher's likeliest items and one bucket for the rest."""
TERMS = ("next_item", "teacher")


@dataclass(frozen=True)
class Teacher:
    """A session encoder that teaches while the student trains: the Transfer tower.

    Attributes:
      model: The encoder.
      params: Its parameters, frozen.
      e: float32 [V, D], the features of its item vectors and, without ``tokens``, of its sessions.
      tokens: The items' tokens, name -> [V, ...], where it reads sessions of those.
    """

    model: Model
    params: Params
    e: np.ndarray
    tokens: Mapping[str, np.ndarray] | None = None


@dataclass(frozen=True)
class CachedTeacher:
    """The soft labels of any ranker, made before training (`jmrec.evaluation.soft_labels`).

    Attributes:
      rows: int32 [N, K], its likeliest items after each event, best first.
      logits: float32 [N, K], their logits.
      tail: float32 [N], the logsumexp of its logits of all other items.
    """

    rows: np.ndarray
    logits: np.ndarray
    tail: np.ndarray


def id_rows(train: np.ndarray, size: int, owners: np.ndarray | None = None) -> np.ndarray:
    """Return int32 [V]: each training item's own row, and the last row for all the others.

    Args:
      train: bool [V], items that occur in training.
      size: Rows of the table.
      owners: int [K], items in the order of their rows; None is all of training, in their order.

    Example:
      >>> id_rows(np.array([True, False, True]), 8).tolist()
      [0, 7, 1]
      >>> id_rows(np.array([True, False, True]), 8, np.array([2, 1, 0])).tolist()
      [2, 7, 0]
    """
    owners = np.flatnonzero(train) if owners is None else owners
    rows = np.full(len(train), size - 1, np.int32)
    rows[owners] = np.arange(len(owners))
    return np.where(train, rows, size - 1).astype(np.int32)


def id_table_size(owners: int) -> int:
    """Return the padded number of id rows: one for each item that has one, and the unknown one.

    Example:
      >>> id_table_size(5), id_table_size(1024)
      (1024, 2048)
    """
    return len(pad_rows(np.zeros(owners + 1)))


def check_teachable(encoder: str) -> None:
    """Check that a student with an encoder can follow a teacher.

    Raises:
      UserError: It names hidden items, where a teacher would say what comes next.
    """
    if ENCODERS[encoder].fills:
        raise UserError(
            f"the encoder {encoder} learns to name hidden items and follows no teacher; train it "
            "without one (logit=0, in experiments/session.py teacher=none), or choose another."
        )


class StudentTask(ModelTask):
    """The task; ``hparams``: learning_rate, dropout, id_dropout, logit, teacher_temperature.

    Its loss is a `jmrec.losses.compose` sum of the `TERMS`, the teacher's weighted by ``logit``.

    Args:
      config: The size of any session encoder, see `jmrec.models.sessions.table`.
      features: float32 [V, F] or None (id-only).
      train: bool [V], items that occur in training.
      teacher: The teacher, or None for no distillation of logits.
      hparams: Overrides of the traced numbers.
      distill: How the student follows its teacher, a key of `DISTILL`. A cached teacher needs a
        "topk_" one, and its logits are used as they are: teacher_temperature is for others.
      top: How many of a live teacher's items the "topk_" ones compare one by one.
      schedules: Term -> how its weight changes over the run, see `jmrec.losses.schedules`.
      loss: The next-item loss, a key of `jmrec.losses.NEXT_ITEM`.
      negatives: How many items a loss samples at each step, where it samples some.
      owners: See `id_rows`.

    Raises:
      UserError: A choice is not known, or does not fit the teacher.
    """

    name = "student"
    program: str
    """What decides the compiled step beside the shapes of arrays: tasks that are alike in it differ
    in numbers and frozen arrays alone."""
    defaults: ClassVar[HParams] = {
        "learning_rate": 1e-3,
        "dropout": 0.2,
        "id_dropout": 0.3,
        "logit": 1.0,
        "teacher_temperature": 1.0,
    }

    def __init__(
        self,
        config: Any,
        features: np.ndarray | None,
        train: np.ndarray,
        teacher: Teacher | CachedTeacher | None,
        hparams: HParams,
        distill: str = "kl",
        top: int = 100,
        schedules: Mapping[str, Any] | None = None,
        loss: str = "full_softmax",
        negatives: int = 128,
        owners: np.ndarray | None = None,
    ) -> None:
        self.next_item = choose("student.loss", loss, losses.NEXT_ITEM)
        self.couples_examples = self.next_item.couples_examples
        self.negatives = negatives
        self.distill = choose("student.distill", distill, tuple(DISTILL))
        if isinstance(teacher, CachedTeacher) and distill == "kl":
            raise UserError(
                "of a cached teacher only its likeliest items are known; choose a student.distill "
                f"of {', '.join(each for each in DISTILL if each != 'kl')}."
            )
        self.terms = losses.compose(
            {
                name: {"schedule": (schedules or {}).get(name, "constant")}
                for name in TERMS[: 1 if teacher is None else 2]
            }
        )
        self.teacher, self.top = teacher, top
        by = teacher.model.config if isinstance(teacher, Teacher) else type(teacher).__name__
        shown = {name: flatten({"": table}) for name, table in (schedules or {}).items()}
        self.program = repr((config, loss, negatives, distill, top, shown, by))
        frozen: dict[str, Any] = {
            "valid": pad_rows(train),
            "ids": pad_rows(id_rows(train, max(id_table_rows(config), 1), owners)),
        }
        if features is not None:
            frozen["features"] = pad_rows(features)
        axes = row_axes(frozen)
        if isinstance(teacher, CachedTeacher):
            frozen["soft_labels"] = {
                name: pad_rows(getattr(teacher, name)) for name in ("rows", "logits", "tail")
            }
            axes["soft_labels"] = row_axes(frozen["soft_labels"], "event")
        elif teacher is not None:
            own: dict[str, Any] = {"e": pad_rows(teacher.e)}
            if teacher.tokens is not None:
                own["tokens"] = {n: pad_rows(table) for n, table in teacher.tokens.items()}
            frozen |= {**own, "teacher": teacher.params}
            axes |= {**row_axes(own), "teacher": teacher.model.logical_axes(None)}
        super().__init__(session_model(config), hparams, frozen=frozen, axes=axes)
        self.fills = fills(config)
        if teacher is not None:
            check_teachable(encoder_name(config))

    def batch_loss(self, params: Params, batch: Batch, at: StepInputs) -> LossResult:
        """Return the next-item loss plus, with a teacher, the divergence from it."""
        frozen, hparams, key = at.frozen, at.hparams, at.key
        valid = frozen["valid"]
        key_table, key_session = jax.random.split(key)
        catalogue = {"features": frozen.get("features"), "ids": frozen["ids"]}
        drawn = {"key": key_table, "train": True, "id_dropout": hparams["id_dropout"]}
        table = item_vectors(self.model, params, catalogue, **drawn)
        rows = session_rows(self.model, params, catalogue, table, **drawn)
        drop = {"key": key_session, "train": True, "dropout": hparams["dropout"]}
        if self.fills:
            config: Any = self.model.config
            target, real, ok = cloze(batch, jax.random.fold_in(key, 3), config.hide, config.last)
            x = take_rows(rows, target)
            states, _ = self.model.fns["fill"](params, x, real, ok, **drop)
        else:
            target, ok = batch["target"], batch["target_ok"]
            x, given = take_rows(rows, batch["item"]), (batch[n] for n in ("mask", "gap", "event"))
            states, _ = self.model.fns["encode_session"](params, x, *given, **drop)
        next_item = self.next_item(
            states, table, target, valid=valid, where=ok,
            key=jax.random.fold_in(key, 2), negatives=self.negatives,
        )  # fmt: skip
        inputs = {"next_item": (next_item, ok)}
        numbers = {"next_item": {"weight": 1.0}}
        if self.teacher is not None:
            inputs["teacher"] = (self._teacher_loss(frozen, batch, states, table, hparams), ok)
            numbers["teacher"] = {"weight": hparams["logit"]}
        total, count, metrics = self.terms(inputs, step=at.step, hparams=numbers)
        if self.teacher is not None:
            metrics[f"teacher_{self.distill}"] = metrics.pop("teacher")
        return total, count, at.state, metrics

    def _teacher_loss(
        self, frozen: Any, batch: Batch, states: jax.Array, table: jax.Array, hparams: HParams
    ) -> jax.Array:
        """Return the divergence of student and teacher, [B, L]; no [..., V] array is built."""
        ok, valid = batch["target_ok"], frozen["valid"]
        if isinstance(self.teacher, CachedTeacher):
            temperature = jnp.float32(1.0)
            rows, logits, tail = (
                pick(frozen["soft_labels"][name], batch["place"])
                for name in ("rows", "logits", "tail")
            )
        else:
            assert self.teacher is not None
            temperature = hparams["teacher_temperature"]
            model, params = self.teacher.model, frozen["teacher"]
            catalogue = {"features": frozen["e"], "tokens": frozen.get("tokens")}
            y = item_vectors(model, params, catalogue)
            h, _ = model.fns["encode_session"](
                params, take_rows(session_rows(model, params, catalogue, y), batch["item"]),
                batch["mask"], batch["gap"], batch["event"],
            )  # fmt: skip
            if self.distill == "kl":
                return losses.catalogue_kl(
                    h, y, states, table, temperature=temperature, valid=valid, where=ok
                )
            flat = h.reshape(-1, h.shape[-1])
            logits, rows = catalogue_best(flat, y, min(self.top, y.shape[0]), valid=valid)
            lse = catalogue_logsumexp(flat / temperature, y, valid=valid)
            tail = losses.tail_logit(logits, lse, temperature=temperature, valid=rows >= 0)
            logits, rows = (each.reshape(*ok.shape, -1) for each in (logits, rows))
            tail = tail.reshape(ok.shape)
        return losses.catalogue_topk(
            logits, tail, rows, states, table, temperature=temperature, valid=valid, where=ok,
            divergence=DISTILL[self.distill],
        )  # fmt: skip
