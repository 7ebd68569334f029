"""What people ask, read: ids, how many, when. Whatever makes no sense is one sentence.

A catalogue knows its ids as texts. Ids often come as numbers, out of a table of numbers: 12, 12.0
and ``numpy.int64(12)`` are the item "12".
"""

import math
import numbers
from collections.abc import Callable, Iterable, Mapping, Set
from datetime import UTC, datetime
from typing import Any

import numpy as np

from jmrec.errors import UserError
from jmrec.evaluation.policy import read_time

SKIP, REFUSE = "skip", "refuse"
"""What is done with an item that is not in the catalogue."""
HUGE = 1e40
"""No id, and no number of items."""
LATEST = 1e11
"""Unix seconds of the year 5138; what is larger is counted in milliseconds or less."""


def shown(value: Any) -> str:
    """Return a value as a sentence shows it, 40 characters of it.

    Example:
      >>> shown("12"), shown(np.int64(3)), len(shown("x" * 100))
      ("'12'", '3', 40)
    """
    try:
        found = repr(value.item() if isinstance(value, np.generic) else value)
    except ValueError:  # more digits than Python writes
        return "a huge number"
    return found if len(found) <= 40 else found[:36] + " ..."


def _number(value: Any) -> float:
    """Return a number, inf for one that is too large; NaN for all that is none, and for a bool."""
    if not isinstance(value, numbers.Real) or isinstance(value, bool | np.bool_):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.inf


def read_id(value: Any, what: str) -> str:
    """Return an id as a catalogue knows it: a text.

    Args:
      value: A text or a whole number, of Python or of numpy.
      what: It is, for the message.

    Raises:
      UserError: It is something else.

    Example:
      >>> read_id("a7", "the user"), read_id(np.int32(7), "the user"), read_id(7.0, "the user")
      ('a7', '7', '7')
    """
    if isinstance(value, str):
        return str(value)
    number = _number(value)
    if abs(number) < HUGE and number == int(number):
        return str(int(value))
    raise UserError(f"{what} is {shown(value)}, which is no id; give a text or a whole number.")


def read_list(value: Any, what: str, of: str) -> list[Any]:
    """Return the entries of a list.

    Args:
      value: A list, a tuple, an array of one dimension or whatever else has an order.
      what: It is, for the message.
      of: What its entries are, for the message.

    Raises:
      UserError: It is a single text, or nothing with an order.

    Example:
      >>> read_list(np.array([1, 2]), "the session", "item ids")
      [1, 2]
    """
    single = isinstance(value, str | bytes | Mapping | Set) or not isinstance(value, Iterable)
    if single or (isinstance(value, np.ndarray) and value.ndim != 1):
        raise UserError(f"{what} is {shown(value)}, which is no list of {of}; give a list.")
    return value.tolist() if isinstance(value, np.ndarray) else list(value)


def read_top(value: Any) -> int:
    """Return how many items are asked for.

    Raises:
      UserError: It is no whole number, or less than 1.

    Example:
      >>> read_top(np.int64(5)), read_top(5.0)
      (5, 5)
    """
    number = _number(value)
    if not abs(number) < HUGE or number != int(number):
        raise UserError(f"top is {shown(value)}, which is no whole number; give one, as top=10.")
    if number < 1:
        raise UserError(f"top is {shown(value)}; ask for 1 item or more.")
    return int(number)


def read_moment(value: Any, what: str) -> float:
    """Return unix seconds.

    Args:
      value: Unix seconds, a date as a text, a datetime (in UTC where it names no zone) or a
        `numpy.datetime64`.
      what: It is, for the message.

    Raises:
      UserError: It is no time.

    Example:
      >>> read_moment("1970-01-02", "at"), read_moment(np.datetime64("1970-01-01T00:01"), "at")
      (86400.0, 60.0)
    """
    found = math.nan
    if isinstance(value, str):
        try:
            found = read_time(value)
        except UserError as error:
            raise UserError(f"{what}: {error}") from None
    elif isinstance(value, datetime):
        found = (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    elif isinstance(value, np.datetime64):
        found = float((value - np.datetime64(0, "s")) / np.timedelta64(1, "s"))
    else:
        found = _number(value)
    if not math.isfinite(found):
        raise UserError(
            f"{what} is {shown(value)}, which is no time; give a date as 2026-07-31, or unix "
            "seconds."
        )
    if abs(found) > LATEST:
        raise UserError(
            f"{what} is {shown(value)}, which is no time in unix seconds but perhaps one in "
            "milliseconds; give seconds."
        )
    return found


def read_choice(value: Any, what: str, known: tuple[str, ...]) -> str:
    """Return one of the words that are known.

    Raises:
      UserError: It is none of them.

    Example:
      >>> read_choice("skip", "unknown", (SKIP, REFUSE))
      'skip'
    """
    if not isinstance(value, str) or value not in known:
        raise UserError(f"{what} is {shown(value)}; choose one of {', '.join(known)}.")
    return value


def read_each(
    given: Any, sessions: int, what: str, of: str, read: Callable[[Any, str], Any]
) -> list[list[Any]]:
    """Return what is said of every click of several sessions.

    Args:
      given: A list for each session.
      sessions: How many there are.
      what: It is: the argument's name.
      of: What its entries are, for messages.
      read: Reads one, given what it is for the message.

    Raises:
      UserError: It is not a list for each session, or an entry can not be read.
    """
    lists = read_list(given, what, f"lists of {of}, one for each session")
    if len(lists) != sessions:
        raise UserError(
            f"{what} has {len(lists)} lists for {sessions} sessions; give one for each, or none."
        )
    return [
        [read(each, f"{what}, entry {place}") for place, each in enumerate(line, 1)]
        for line in (read_list(each, what, of) for each in lists)
    ]
