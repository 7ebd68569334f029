"""Stage "student": train the light student on next items and, by choice, on its teacher."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jmrec import losses
from jmrec.config import choose
from jmrec.errors import UserError
from jmrec.features import pad_rows, take_rows
from jmrec.kernels import chunked_logsumexp, chunked_topk
from jmrec.models.student import StudentConfig, student
from jmrec.types import Batch, HParams, Model, Params, State, SumCount

DISTILL: dict[str, Callable[..., jax.Array]] = {
    "kl": losses.kl,
    "topk_kl": losses.kl,
    "topk_reverse_kl": losses.reverse_kl,
    "topk_jensen_shannon": losses.jensen_shannon,
    "topk_skew_kl": losses.skew_kl,
}
"""Divergences of the teacher's and the student's distribution: "kl" over the whole catalogue in
blocks, the others over the teacher's likeliest items and one bucket for the rest."""
TERMS = ("next_item", "teacher")


@dataclass(frozen=True)
class Teacher:
    """A live Transfer tower that teaches.

    Attributes:
      model: The tower.
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
    """What any ranker said once of the training sessions (`jmrec.evaluation.lessons`).

    Attributes:
      rows: int32 [N, K], its likeliest items after each event, best first.
      logits: float32 [N, K], their logits.
      tail: float32 [N], the logsumexp of its logits of all other items.
    """

    rows: np.ndarray
    logits: np.ndarray
    tail: np.ndarray


def id_rows(train: np.ndarray, size: int) -> np.ndarray:
    """Return int32 [V]: each training item's own row, and the last row for all the others.

    Example:
      >>> id_rows(np.array([True, False, True]), 8).tolist()
      [0, 7, 1]
    """
    return np.where(train, np.cumsum(train) - 1, size - 1).astype(np.int32)


def id_table_size(train: np.ndarray) -> int:
    """Return the padded number of id rows: one per training item, and the unknown one."""
    return len(pad_rows(np.zeros(int(train.sum()) + 1)))


class StudentTask:
    """The task; ``hparams``: learning_rate, dropout, id_dropout, logit, teacher_temperature.

    Its loss is a `jmrec.losses.compose` sum of the `TERMS`, the teacher's weighted by ``logit``.

    Args:
      config: The student's size.
      features: float32 [V, F] or None (id-only).
      train: bool [V], items that occur in training.
      teacher: The teacher, or None for no distillation of logits.
      hparams: Overrides of the traced numbers.
      distill: How the student follows its teacher, a key of `DISTILL`. A cached teacher is followed
        by a "topk_" one, and its logits are as they are: teacher_temperature is not theirs.
      top: How many of a live teacher's items the "topk_" ones follow one by one.
      schedules: Term -> how its weight changes over the run, see `jmrec.losses.schedules`.

    Raises:
      UserError: A choice is not known, or does not fit the teacher.
    """

    name = "student"
    couples_examples = False

    def __init__(
        self,
        config: StudentConfig,
        features: np.ndarray | None,
        train: np.ndarray,
        teacher: Teacher | CachedTeacher | None,
        hparams: HParams,
        distill: str = "kl",
        top: int = 100,
        schedules: Mapping[str, Any] | None = None,
    ) -> None:
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
        self.model = student(config)
        self.teacher, self.top = teacher, top
        self.tables: dict[str, Any] = {
            "valid": pad_rows(train),
            "ids": pad_rows(id_rows(train, max(config.ids, 1))),
        }
        if features is not None:
            self.tables["features"] = pad_rows(features)
        if isinstance(teacher, CachedTeacher):
            self.tables["lessons"] = {
                name: pad_rows(getattr(teacher, name)) for name in ("rows", "logits", "tail")
            }
        elif teacher is not None:
            self.tables |= {"e": pad_rows(teacher.e), "teacher": teacher.params}
            if teacher.tokens is not None:
                self.tables["tokens"] = {n: pad_rows(table) for n, table in teacher.tokens.items()}
        self.hparams = {
            "learning_rate": 1e-3,
            "dropout": 0.2,
            "id_dropout": 0.3,
            "logit": 1.0,
            "teacher_temperature": 1.0,
            **hparams,
        }

    def init(self, key: jax.Array) -> tuple[Params, State]:
        """Return fresh parameters; the task has no state."""
        return self.model.init(key), {}

    def logical_axes(self) -> Any:
        """Return the parameters' logical axes."""
        return self.model.logical_axes(None)

    def state_axes(self) -> Any:
        """Return nothing: there is no state."""

    def frozen(self, workdir: Path) -> tuple[Any, Any]:
        """Return the feature table, the id rows and the teacher."""
        plain = {name: table for name, table in self.tables.items() if name != "teacher"}
        axes: dict[str, Any] = jax.tree.map(lambda table: (None,) * table.ndim, plain)
        if isinstance(self.teacher, Teacher):
            axes["teacher"] = self.teacher.model.logical_axes(None)
        return self.tables, axes

    def loss(
        self,
        params: Params,
        state: State,
        frozen: Any,
        batch: Batch,
        key: jax.Array,
        step: jax.Array,
        hparams: HParams,
    ) -> tuple[jax.Array, jax.Array, State, dict[str, SumCount]]:
        """Return next-item cross-entropy plus, with a teacher, the distance of the two."""
        fns, ok, valid = self.model.fns, batch["target_ok"], frozen["valid"]
        key_table, key_session = jax.random.split(key)
        table, _ = fns["item_table"](
            params, frozen.get("features"), frozen["ids"],
            key=key_table, train=True, id_dropout=hparams["id_dropout"],
        )  # fmt: skip
        states, _ = fns["encode_session"](
            params, table[batch["item"]], batch["mask"], batch["gap"], batch["event"],
            key=key_session, train=True, dropout=hparams["dropout"],
        )  # fmt: skip
        next_item = losses.full_softmax(states, table, batch["target"], valid=valid, where=ok)
        inputs = {"next_item": (next_item, ok)}
        numbers = {"next_item": {"weight": 1.0}}
        if self.teacher is not None:
            inputs["teacher"] = (self._apart(frozen, batch, states, table, hparams), ok)
            numbers["teacher"] = {"weight": hparams["logit"]}
        total, count, metrics = self.terms(inputs, step=step, hparams=numbers)
        if self.teacher is not None:
            metrics[f"teacher_{self.distill}"] = metrics.pop("teacher")
        return total, count, state, metrics

    def _apart(
        self, frozen: Any, batch: Batch, states: jax.Array, table: jax.Array, hparams: HParams
    ) -> jax.Array:
        """Return how far the student is from its teacher, [B, L]; no [..., V] array."""
        ok, valid = batch["target_ok"], frozen["valid"]
        if isinstance(self.teacher, CachedTeacher):
            temperature = jnp.float32(1.0)
            rows, logits, tail = (
                frozen["lessons"][name][batch["place"]] for name in ("rows", "logits", "tail")
            )
        else:
            assert self.teacher is not None
            temperature = hparams["teacher_temperature"]
            teach = self.teacher.model.fns
            h, _ = teach["encode_session"](
                frozen["teacher"],
                take_rows(frozen.get("tokens", frozen["e"]), batch["item"]),
                batch["mask"],
                batch["gap"],
                batch["event"],
            )
            y, _ = teach["item_table"](frozen["teacher"], frozen["e"])
            if self.distill == "kl":
                return losses.catalogue_kl(
                    h, y, states, table, temperature=temperature, valid=valid, where=ok
                )
            flat = h.reshape(-1, h.shape[-1])
            logits, rows = chunked_topk(flat, y, min(self.top, y.shape[0]), valid=valid)
            lse = chunked_logsumexp(flat / temperature, y, valid=valid)
            tail = losses.tail_logit(logits, lse, temperature=temperature, valid=rows >= 0)
            logits, rows = (each.reshape(*ok.shape, -1) for each in (logits, rows))
            tail = tail.reshape(ok.shape)
        return losses.catalogue_topk(
            logits, tail, rows, states, table, temperature=temperature, valid=valid, where=ok,
            divergence=DISTILL[self.distill],
        )  # fmt: skip
