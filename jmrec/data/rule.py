"""When the label of a row occurs: the words of ``label`` in ``dataset.toml``, read."""

import math
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

SIGNS: dict[str, Callable[[Any, Any], Any]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
}
# The last sign counts, so that a column's name may hold one.
_RULE = re.compile(
    r"(.*\S)\s*(<=|>=|==|<|>)\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)", re.ASCII | re.DOTALL
)


@dataclass(frozen=True)
class Rule:
    """A label: a column of yes and no, or a column of numbers and the bound that decides.

    Attributes:
      column: The column that is read.
      sign: One of `SIGNS`, "" for a column of yes and no.
      bound: What its numbers are compared with, 0 for a column of yes and no.
    """

    column: str
    sign: str = ""
    bound: float = 0.0

    def holds(self, values: Any) -> Any:
        """Return, for numbers (float [N]), where the rule holds (bool [N]); nowhere for NaN.

        Example:
          >>> import numpy as np
          >>> read_rule("score <= 0.25").holds(np.array([0.2, 0.25, 0.3, np.nan])).tolist()
          [True, True, False, False]
        """
        return SIGNS[self.sign](values, self.bound)


def read_rule(text: str) -> Rule:
    """Read a label as dataset.toml has it.

    Args:
      text: ``COLUMN <= NUMBER`` with one of `SIGNS`, the number with a point and finite; all else
        is the name of a column of yes and no.

    Example:
      >>> read_rule("score <= 0.25")
      Rule(column='score', sign='<=', bound=0.25)
      >>> read_rule("rotten")
      Rule(column='rotten', sign='', bound=0.0)
    """
    found = _RULE.fullmatch(text.strip())
    if not found or not math.isfinite(float(found[3])):
        return Rule(text)
    return Rule(found[1], found[2], float(found[3]))
