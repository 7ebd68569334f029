"""How a loss weight changes over a run: functions of the step, made from a table of settings.

A schedule is ``step -> float32 scalar``, where the step is a number or a traced scalar. What it is
made from is fixed when it is built; the weight that it multiplies is a traced number (`compose`).
"""

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jmrec.errors import UserError

Schedule = Callable[[Any], jax.Array]


def constant(value: float = 1.0) -> Schedule:
    """Return a factor that never changes.

    Example:
      >>> float(constant(0.5)(1000))
      0.5
    """
    return lambda step: jnp.float32(value)


def linear(steps: int, start: float = 0.0, end: float = 1.0, delay: int = 0) -> Schedule:
    """Return a factor that goes from start to end in a straight line.

    Args:
      steps: How many updates it takes, at least 1.
      start: The factor up to update ``delay``.
      end: The factor from update ``delay + steps`` on.
      delay: Updates before it begins to move.

    Example:
      >>> [float(linear(10, delay=5)(step)) for step in (0, 5, 10, 15, 99)]
      [0.0, 0.0, 0.5, 1.0, 1.0]
    """
    _positive("steps", steps)
    return lambda step: start + (end - start) * _part(step, steps, delay)


def cosine(steps: int, start: float = 0.0, end: float = 1.0, delay: int = 0) -> Schedule:
    """Return a factor that goes from start to end along half a cosine; arguments as in `linear`.

    Example:
      >>> [round(float(cosine(10, start=1.0, end=0.0)(step)), 4) for step in (0, 5, 10)]
      [1.0, 0.5, 0.0]
    """
    _positive("steps", steps)
    return lambda step: (
        start + (end - start) * 0.5 * (1.0 - jnp.cos(jnp.pi * _part(step, steps, delay)))
    )


def sigmoid_ramp(steps: int, delay: int = 0) -> Schedule:
    """Return exp(-5 (1 - x)**2) of the part x of the steps that is done: a late, soft ramp to 1.

    References:
      Laine, Aila, Temporal Ensembling for Semi-Supervised Learning, 2016:
      https://arxiv.org/abs/1610.02242

    Example:
      >>> [round(float(sigmoid_ramp(10)(step)), 4) for step in (0, 5, 10)]
      [0.0067, 0.2865, 1.0]
    """
    _positive("steps", steps)
    return lambda step: jnp.exp(-5.0 * jnp.square(1.0 - _part(step, steps, delay)))


def cyclical(period: int, rising: float = 0.5) -> Schedule:
    """Return a factor that rises from 0 to 1 in the first part of each period and stays there.

    Args:
      period: Updates of one cycle, at least 1.
      rising: The part of a cycle in which it rises, in (0, 1].

    References:
      Fu et al., Cyclical Annealing Schedule: A Simple Approach to Mitigating KL Vanishing, 2019:
      https://arxiv.org/abs/1903.10145

    Example:
      >>> [float(cyclical(8)(step)) for step in (0, 2, 4, 7, 8)]
      [0.0, 0.5, 1.0, 1.0, 0.0]
    """
    _positive("period", period)
    if not 0 < rising <= 1:
        raise ValueError(f"rising must be in (0, 1], not {rising}")
    return lambda step: jnp.minimum(jnp.mod(_float(step), period) / (period * rising), 1.0)


def window(first: int = 0, last: int | None = None) -> Schedule:
    """Return a factor that is 1 from update first up to, not including, update last, and else 0.

    Example:
      >>> [float(window(5, 10)(step)) for step in (4, 5, 9, 10)]
      [0.0, 1.0, 1.0, 0.0]
    """
    end = jnp.inf if last is None else last
    return lambda step: ((_float(step) >= first) & (_float(step) < end)).astype(jnp.float32)


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    each.__name__: each for each in (constant, linear, cosine, sigmoid_ramp, cyclical, window)
}


def schedule(table: str | Mapping[str, Any]) -> Schedule:
    """Return the schedule that a table of settings describes.

    Args:
      table: ``{"name": "linear", "steps": 100, ...}``, or the name alone.

    Raises:
      UserError: If the name, or one of the settings, is not known or makes no sense.

    Example:
      >>> float(schedule({"name": "linear", "steps": 4})(1))
      0.25
      >>> schedule({"name": "linaer", "steps": 4})
      Traceback (most recent call last):
      ...
      jmrec.errors.UserError: there is no schedule "linaer"; did you mean "linear"?
    """
    settings = {"name": table} if isinstance(table, str) else dict(table)
    name = settings.pop("name", None)
    if name not in SCHEDULES:
        raise UserError(f'there is no schedule "{name}"; {suggest(name, SCHEDULES)}')
    make = SCHEDULES[name]
    known = inspect.signature(make).parameters
    for key, value in settings.items():
        if key not in known:
            raise UserError(f'the schedule "{name}" has no setting "{key}"; {suggest(key, known)}')
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UserError(f'the schedule "{name}": {key} must be a number, not {value!r}.')
    missing = [key for key, each in known.items() if each.default is each.empty]
    for key in missing:
        if key not in settings:
            raise UserError(f'the schedule "{name}" needs "{key}"; give it a number.')
    try:
        return make(**settings)
    except ValueError as error:
        raise UserError(f'the schedule "{name}": {error}.') from None


def suggest(name: Any, known: Iterable[str]) -> str:
    """Return 'did you mean "x"?', or which names there are."""
    known = list(known)
    found = difflib.get_close_matches(str(name), known, n=1)
    return f'did you mean "{found[0]}"?' if found else f"there are {', '.join(known)}."


def _float(step: Any) -> jax.Array:
    return jnp.asarray(step).astype(jnp.float32)


def _part(step: Any, steps: int, delay: int) -> jax.Array:
    """How much of the steps is done, from 0 to 1."""
    return jnp.clip((_float(step) - delay) / steps, 0.0, 1.0)


def _positive(name: str, value: float) -> None:
    if value < 1:
        raise ValueError(f"{name} must be at least 1, not {value}")
