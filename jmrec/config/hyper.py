"""What a sweep is made of: lists of trials, and how they combine.

A trial is ``{dotted setting: value}``; a space is a list of trials. An experiment file that can
be swept has, beside ``get_config``, a ``get_hyper(arg=None)`` that returns one::

    from jmrec.config import fixed, product, subsample, sweep, zipit


    def get_hyper(arg=None):
        return product(
            sweep("student.train.learning_rate", (1e-3, 3e-3)),
            zipit(sweep("student.stack.width", (64, 128)), sweep("student.stack.heads", (2, 4))),
            fixed("student.train.steps", 500),
        )

Spaces are plain lists: ``a + b`` runs the trials of one after those of the other. Trials are
numbered in the order of the list, so that a sweep is the same on every machine.
"""

import contextlib
import itertools
import math
import random
import re
from collections.abc import Iterable, Sequence
from typing import Any

from jmrec.config.compare import flatten
from jmrec.errors import UserError

Overrides = dict[str, Any]
"""One trial: dotted setting -> plain value."""


def sweep(name: str, values: Iterable[Any]) -> list[Overrides]:
    """Return one trial for each value of one setting.

    Args:
      name: The setting, as in ``--config.NAME``.
      values: Plain values (None, bool, int, float, str, or lists of them), all different.

    Returns:
      Trials in the order of the values.

    Raises:
      UserError: If the name or a value is none, there are no values, or one comes twice.

    Example:
      >>> sweep("seed", range(3))
      [{'seed': 0}, {'seed': 1}, {'seed': 2}]
      >>> sweep("seed", [])
      Traceback (most recent call last):
      ...
      jmrec.errors.UserError: sweep("seed", ...) has no values; give it one or more.
    """
    trials = [{name: checked(name, value)} for value in values]
    if not trials:
        raise UserError(f'sweep("{name}", ...) has no values; give it one or more.')
    for place, trial in enumerate(trials):
        if any(same(trial[name], before[name]) for before in trials[:place]):
            raise UserError(f'sweep("{name}", ...) lists {trial[name]!r} twice; list it once.')
    return trials


def fixed(name: str, value: Any) -> list[Overrides]:
    """Return the space of one trial, to be combined with others.

    Args:
      name: The setting.
      value: Its value in all trials.

    Example:
      >>> product(sweep("seed", (0, 1)), fixed("steps", 500))
      [{'seed': 0, 'steps': 500}, {'seed': 1, 'steps': 500}]
    """
    return [{name: checked(name, value)}]


def product(*spaces: Sequence[Overrides]) -> list[Overrides]:
    """Return every combination; the last space varies fastest.

    Args:
      *spaces: Spaces that set different settings.

    Raises:
      UserError: If two spaces set one setting, or one is empty.

    Example:
      >>> product(sweep("a", (1, 2)), sweep("b", "xy"))
      [{'a': 1, 'b': 'x'}, {'a': 1, 'b': 'y'}, {'a': 2, 'b': 'x'}, {'a': 2, 'b': 'y'}]
    """
    _check_spaces("product", spaces)
    return [_merged("product", trials) for trials in itertools.product(*spaces)]


def zipit(*spaces: Sequence[Overrides]) -> list[Overrides]:
    """Return the first trials together, then the second, and so on.

    Args:
      *spaces: Spaces of one length; a space of one trial goes with all.

    Raises:
      UserError: If the lengths differ, two spaces set one setting, or one is empty.

    Example:
      >>> zipit(sweep("width", (64, 128)), sweep("heads", (2, 4)))
      [{'width': 64, 'heads': 2}, {'width': 128, 'heads': 4}]
      >>> zipit(sweep("width", (64, 128)), sweep("heads", (2, 4, 8)))
      Traceback (most recent call last):
      ...
      jmrec.errors.UserError: zipit(...) has spaces of 2 and 3 trials; they must be of one length.
    """
    _check_spaces("zipit", spaces)
    lengths = sorted({len(space) for space in spaces} - {1})
    if len(lengths) > 1:
        raise UserError(
            f"zipit(...) has spaces of {' and '.join(map(str, lengths))} trials; they must be of "
            "one length."
        )
    count = lengths[0] if lengths else min(len(spaces), 1)
    columns = (space if len(space) == count else list(space) * count for space in spaces)
    return [_merged("zipit", trials) for trials in zip(*columns)]


def subsample(space: Sequence[Overrides], count: int, seed: int = 0) -> list[Overrides]:
    """Return some of the trials, drawn without repetition, in their old order.

    Args:
      space: The trials to draw from.
      count: How many.
      seed: Of the draw; the same seed draws the same trials everywhere.

    Raises:
      UserError: If there are not that many.

    Example:
      >>> space = subsample(sweep("seed", range(100)), 3)
      >>> len(space), space == subsample(sweep("seed", range(100)), 3)
      (3, True)
    """
    if not 1 <= count <= len(space):
        raise UserError(
            f"subsample(..., {count}) of a space of {len(space)} trials; ask for 1 to {len(space)}."
        )
    rows = sorted(random.Random(seed).sample(range(len(space)), count))
    return [dict(space[row]) for row in rows]


def checked(name: str, value: Any, says: str = "cannot be swept") -> Any:
    """Return a value as JSON gives it back, or say why it cannot be swept.

    Args:
      name: The setting.
      value: Its value.
      says: What is said of a value that is not plain.

    Raises:
      UserError: If the name is no dotted name or the value is not plain.

    Example:
      >>> checked("widths", (32, 64))
      [32, 64]
    """
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_][\w-]*(\.[A-Za-z_][\w-]*)*", name):
        raise UserError(
            f"{name!r} is no name of a setting; write it like student.train.learning_rate."
        )
    plain: Any = None
    with contextlib.suppress(TypeError):
        plain = flatten({name: value}).get(name)
    if (plain is None and value is not None) or isinstance(plain, dict) or not _finite(plain):
        raise UserError(
            f"{name}={value!r} {says}; use a finite number, a text, a bool, None or a list of them."
        )
    return plain


def same(a: Any, b: Any) -> bool:
    """Whether two plain values are one setting: 1 and 1.0 are, 1 and True are not.

    Example:
      >>> same(1, 1.0), same(1, True), same([1], [1])
      (True, False, True)
    """
    return isinstance(a, bool) == isinstance(b, bool) and bool(a == b)


def _finite(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def _check_spaces(caller: str, spaces: Sequence[Sequence[Overrides]]) -> None:
    for space in spaces:
        good = isinstance(space, list | tuple) and all(isinstance(each, dict) for each in space)
        if not good or not space:
            raise UserError(
                f"{caller}(...) was given {space!r:.60}; give it spaces, such as "
                'sweep("seed", (0, 1)), with one trial or more.'
            )


def _merged(caller: str, trials: Sequence[Overrides]) -> Overrides:
    merged: Overrides = {}
    for trial in trials:
        for name in trial:
            if name in merged:
                raise UserError(f'{caller}(...) sets "{name}" twice; set it in one space.')
        merged |= trial
    return merged
