"""Named, weighted, scheduled sums of losses, from a table of settings.

    terms = compose({
        "next": {"loss": "full_softmax"},
        "teacher": {
            "loss": "kl", "temperature": 2.0, "weight": 0.5,
            "schedule": {"name": "linear", "steps": 1000},
        },
        "rebuild": {"weight": 0.1},
    })

The table is checked when it is built, in sentences. Weights, and settings that are written as
floats (2.0), are traced numbers: they are in ``terms.hparams``, and other values of them compile
nothing again. Whole numbers (2), truth values, names of losses (``"divergence": "reverse_kl"``) and
schedules are fixed.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jmrec.errors import UserError
from jmrec.losses.families import LOSSES
from jmrec.losses.reduce import sum_and_count
from jmrec.losses.schedules import Schedule, constant, schedule, suggest
from jmrec.types import HParams, SumCount

OWN = ("loss", "weight", "schedule")


@dataclass(frozen=True)
class Term:
    """One line of the table.

    Attributes:
      loss: The loss, or None where the per-example values are handed in.
      fixed: Its settings that are not traced.
      schedule: The factor by which its weight changes over the run.
    """

    loss: Callable[..., Any] | None
    fixed: Mapping[str, Any]
    schedule: Schedule


@dataclass(frozen=True)
class Composed:
    """A weighted sum of named losses; see `compose`.

    Attributes:
      terms: Name -> term, in the table's order.
      hparams: Name -> {"weight": ..., and the settings that are traced}.
    """

    terms: Mapping[str, Term]
    hparams: HParams

    def __call__(
        self, inputs: Mapping[str, Any], *, step: Any = 0, hparams: HParams | None = None
    ) -> tuple[jax.Array, jax.Array, dict[str, SumCount]]:
        """Return the sum, its count, and what every term contributed.

        Compatible with jit, vmap and grad.

        Args:
          inputs: For each term the arguments of its loss by name (``where`` among them), or, for a
            term without a loss, its per-example values, alone or as (values, where).
          step: The update, for the schedules.
          hparams: Numbers in the shape of ``self.hparams``, which are used where it is None.

        Returns:
          (sum, count, metrics). Every term is averaged over its own unmasked examples; sum / count
          is the weighted sum of these averages, and count the largest of their counts. Metrics are
          (sum, count): a term's own under its name, times weight and schedule under
          ``name/weighted``.

        Raises:
          ValueError: If inputs and terms do not have the same names.
        """
        if inputs.keys() != self.terms.keys():
            raise ValueError(
                f"inputs for {', '.join(inputs)} do not fit the terms {', '.join(self.terms)}"
            )
        numbers = self.hparams if hparams is None else hparams
        total = count = jnp.float32(0)
        metrics: dict[str, SumCount] = {}
        for name, term in self.terms.items():
            settings = dict(numbers[name])
            weight = settings.pop("weight") * term.schedule(step)
            given = inputs[name]
            if term.loss is None:
                values, where = given if isinstance(given, tuple) else (given, None)
            else:
                values, where = term.loss(**{**term.fixed, **settings, **given}), given.get("where")
            summed, own = sum_and_count(values, where)
            count = jnp.maximum(count, own)
            metrics[name] = (summed, own)
            metrics[f"{name}/weighted"] = (weight * summed, own)
            total = total + weight * summed / jnp.maximum(own, 1.0)
        return total * count, count, metrics


def compose(table: Mapping[str, Any]) -> Composed:
    """Return the weighted sum of losses that a table describes.

    Args:
      table: Name -> ``{"loss": a name of `LOSSES`, "weight": a number (1.0), "schedule": a table or
        a name, and the loss's own settings}``. Without "loss" the term's per-example values are
        handed in.

    Returns:
      A callable; see `Composed`.

    Raises:
      UserError: If a loss, a schedule or a setting is not known, or a value is of the wrong kind.

    Example:
      >>> import jax.numpy as jnp
      >>> terms = compose({"order": {"loss": "bpr"}, "size": {"weight": 0.5}})
      >>> scores = {"positive_scores": jnp.zeros(2), "negative_scores": jnp.zeros(2)}
      >>> total, count, metrics = terms({"order": scores, "size": jnp.ones(2)})
      >>> round(float(total / count), 4)  # log 2 + 0.5
      1.1931
      >>> [(name, float(count)) for name, (_, count) in metrics.items()]
      [('order', 2.0), ('order/weighted', 2.0), ('size', 2.0), ('size/weighted', 2.0)]
      >>> compose({"teacher": {"loss": "kll"}})
      Traceback (most recent call last):
      ...
      jmrec.errors.UserError: term "teacher": there is no loss "kll"; did you mean "kl"?
    """
    if not len(table):
        raise UserError("a sum of losses needs at least one term; the table is empty.")
    terms: dict[str, Term] = {}
    hparams: HParams = {}
    for name, line in dict(table).items():
        try:
            terms[name], hparams[name] = _term(line)
        except UserError as error:
            raise UserError(f'term "{name}": {error}') from None
    return Composed(terms, hparams)


def _term(line: Any) -> tuple[Term, HParams]:
    """Return a checked term and its traced numbers."""
    if not hasattr(line, "keys"):
        raise UserError(f"settings must be a table, not {line!r}.")
    settings = dict(line)
    weight = settings.pop("weight", 1.0)
    factor = settings.pop("schedule", None)
    loss = _loss(settings.pop("loss")) if "loss" in settings else None
    known = {} if loss is None else inspect.signature(loss).parameters
    numbers: HParams = {"weight": _number("weight", weight)}
    fixed: dict[str, Any] = {}
    for key, value in settings.items():
        if key not in known:
            whose = "a term without a loss" if loss is None else f'the loss "{loss.__name__}"'
            choices = [*OWN, *(each for each in known if known[each].kind is _KEYWORD)]
            raise UserError(f'{whose} has no setting "{key}"; {suggest(key, choices)}')
        if known[key].kind is not _KEYWORD:
            raise UserError(f'"{key}" is an array; hand it in with the inputs.')
        if inspect.isfunction(known[key].default):  # a loss of losses, such as topk_kl's divergence
            value = _loss(value)
        elif not isinstance(value, bool | int | float):
            raise UserError(f"{key} must be a number or a truth value, not {value!r}.")
        (numbers if isinstance(value, float) else fixed)[key] = value
    return Term(loss, fixed, constant() if factor is None else schedule(factor)), numbers


_KEYWORD = inspect.Parameter.KEYWORD_ONLY


def _loss(name: Any) -> Callable[..., Any]:
    if name not in LOSSES:
        raise UserError(f'there is no loss "{name}"; {suggest(name, LOSSES)}')
    if name == "mine":
        raise UserError(
            '"mine" hands back a moving average; compute it outside and give a term without a loss '
            "its values."
        )
    return LOSSES[name]


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(f"{name} must be a number, not {value!r}.")
    return float(value)
