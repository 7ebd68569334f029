"""The candidate policy: which items may be recommended, and which come first.

One policy for `evaluate`, `recommend` and the serving artefact: items of the session so far
(a property of the data set), windows of availability (of the catalogue), and what people correct
by hand: an allow-list, a block-list and pinned items, in a small TOML file::

    allow = ["12", "57"]    # only these may be recommended; leave it out to allow all
    block = ["666"]         # these never
    pin = ["57"]            # these first, in this order, where they are candidates

A pinned item that the session holds already is no candidate where the data set excludes those.
"""

import difflib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from jmrec.data.schema import Items
from jmrec.data.times import EARLIEST, LATEST, read_times
from jmrec.data.units import LIKELY
from jmrec.errors import UserError
from jmrec.files import check_regular

MAX_BYTES = 100_000_000
"""Of a policy file."""
NEAR = 100_000
"""Of more ids none is looked for that is like an unknown one: that would take seconds."""
PINNED = 3e38
"""The score of the first pinned item; each next one is ``PINNED_STEP`` lower."""
PINNED_STEP = 1e32
WINDOWS = ("available_from", "available_until")


@dataclass(frozen=True)
class Correction:
    """What people correct by hand, as item ids.

    Attributes:
      allow: Only these may be recommended; None is all.
      block: These never.
      pin: These first, in this order.
    """

    allow: tuple[str, ...] | None = None
    block: tuple[str, ...] = ()
    pin: tuple[str, ...] = ()


@dataclass(frozen=True)
class Availability:
    """When each item may be recommended: from ``start`` to ``stop``, both included.

    Attributes:
      start: float64 [V] unix seconds, -inf where it always was.
      stop: float64 [V] unix seconds, inf where it always will be.
    """

    start: np.ndarray
    stop: np.ndarray

    @classmethod
    def of(cls, items: Items) -> "Availability | None":
        """Return the windows that a catalogue declares, None where it has no limits.

        They are ``items.available_from`` and ``items.available_until``, float64 [V]; what is not
        finite is open.
        """
        found = (getattr(items, name, None) for name in WINDOWS)
        times = [None if each is None or not len(each) else np.asarray(each) for each in found]
        return cls._closed(times, len(items))

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "Availability | None":
        """Return what `to_json` wrote among other things, None where it is not there."""
        lists = [found.get(name) for name in WINDOWS]
        times = [None if each is None else np.array(each, np.float64) for each in lists]
        return cls._closed(times, max((len(each) for each in lists if each), default=0))

    @classmethod
    def _closed(cls, times: list[np.ndarray | None], rows: int) -> "Availability | None":
        closed = [
            np.full(rows, limit) if each is None else np.where(np.isfinite(each), each, limit)
            for each, limit in zip(times, (-np.inf, np.inf))
        ]
        return cls(*closed) if np.isfinite(closed).any() else None

    def to_json(self) -> dict[str, list[float | None]]:
        """Return the times by name, None where there is no limit.

        Example:
          >>> Availability(np.array([1.0]), np.array([np.inf])).to_json()
          {'available_from': [1.0], 'available_until': [None]}
        """
        return {
            name: [float(each) if np.isfinite(each) else None for each in times]
            for name, times in zip(WINDOWS, (self.start, self.stop))
        }

    def first(self, rows: int) -> "Availability":
        """Return the windows of the first rows."""
        return Availability(self.start[:rows], self.stop[:rows])

    def open(self, time: np.ndarray, items: slice) -> np.ndarray:
        """Return bool [P, slice]: whether an item may be recommended at each time.

        Example:
          >>> windows = Availability(np.array([-np.inf, 5.0]), np.array([4.0, np.inf]))
          >>> windows.open(np.array([4.0, 5.0]), slice(0, 2)).tolist()
          [[True, False], [False, True]]
        """
        at = np.asarray(time, np.float64)[:, None]
        return (self.start[items] <= at) & (at <= self.stop[items])


def join_windows(
    a: Availability | None, rows_a: int, b: Availability | None, rows_b: int
) -> Availability | None:
    """Return the windows of two parts of a catalogue, one after the other; None is no limit.

    Example:
      >>> window = Availability(np.array([1.0]), np.array([2.0]))
      >>> join_windows(None, 1, window, 1).start.tolist()
      [-inf, 1.0]
    """
    if a is None and b is None:
        return None
    parts = [
        part or Availability(np.full(rows, -np.inf), np.full(rows, np.inf))
        for part, rows in ((a, rows_a), (b, rows_b))
    ]
    return Availability(
        np.concatenate([part.start for part in parts]), np.concatenate([p.stop for p in parts])
    )


@dataclass(frozen=True)
class Policy:
    """A policy for a catalogue of V rows.

    Attributes:
      exclude_seen: Whether items of the session so far are no candidates.
      allowed: bool [V], what allow-list and block-list leave.
      pinned: int32 [N] rows, the first to be shown first.
      availability: Windows, or None.
      correction: What ``allowed`` and ``pinned`` were made from.
    """

    exclude_seen: bool
    allowed: np.ndarray
    pinned: np.ndarray
    availability: Availability | None = None
    correction: Correction = field(default_factory=Correction)

    def candidates(self, seen: Sequence[np.ndarray], time: float) -> np.ndarray:
        """Return bool [P, V]: what may be recommended to each of P sessions.

        Args:
          seen: P arrays of rows, the sessions so far.
          time: Unix seconds at which all of them ask.
        """
        allowed = self.allowed
        if self.availability is not None:
            window = self.availability.open(np.array([time]), slice(0, len(allowed)))
            allowed = allowed & window[0]
        found = np.repeat(allowed[None], len(seen), 0)
        if self.exclude_seen:
            for row, items in enumerate(seen):
                found[row, items] = False
        return found

    def first(self, rows: int) -> "Policy":
        """Return the policy of the catalogue's first ``rows`` rows."""
        window = None if self.availability is None else self.availability.first(rows)
        pinned = self.pinned[self.pinned < rows]
        return Policy(self.exclude_seen, self.allowed[:rows], pinned, window, self.correction)


def make_policy(
    ids: Sequence[str],
    exclude_seen: bool,
    correction: Correction | None = None,
    availability: Availability | None = None,
    where: str = "policy",
) -> Policy:
    """Turn a correction by item ids into one by rows.

    Args:
      ids: V item ids, in row order.
      exclude_seen: Of the data set.
      correction: By people; None corrects nothing.
      availability: Windows of the V items, or None.
      where: What the correction was read from, for messages.

    Raises:
      UserError: An id is unknown, a pinned item is blocked or not allowed, or nothing is left.

    Example:
      >>> made = make_policy(["a", "b", "c"], True, Correction(block=("b",), pin=("c",)))
      >>> made.allowed.tolist(), made.pinned.tolist()
      ([True, False, True], [2])
    """
    correction = correction or Correction()
    row_of = {item: row for row, item in enumerate(ids)}

    def rows(name: str, items: Iterable[str]) -> np.ndarray:
        found = []
        for place, item in enumerate(items, 1):
            if item not in row_of:
                raise UserError(
                    f"{where}, {name}, entry {place}: item {item!r} is not in the catalogue; "
                    f"{nearest(item, ids)}"
                )
            found.append(row_of[item])
        return np.array(found, np.int32)

    allowed = np.full(len(ids), correction.allow is None)
    if correction.allow is not None:
        allowed[rows("allow", correction.allow)] = True
    allowed[rows("block", correction.block)] = False
    pinned = rows("pin", dict.fromkeys(correction.pin))
    for row in pinned[~allowed[pinned]]:
        listed = ids[row] in correction.block
        remedy = "is blocked too" if listed else "is not in the allow-list"
        raise UserError(f"{where}: item {ids[row]!r} is pinned and {remedy}; choose one.")
    if not allowed.any():
        raise UserError(f"{where} leaves no item that may be recommended; allow more, block less.")
    return Policy(exclude_seen, allowed, pinned, availability, correction)


def read_correction(path: Path) -> Correction:
    """Read a policy file, see the module's docstring.

    Raises:
      UserError: It can not be read, or holds something else.
    """
    try:
        check_regular(path, MAX_BYTES)
        found: Mapping[str, Any] = tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise UserError(f"{path} can not be read ({error.strerror}); mend that.") from None
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits is a ValueError
        raise UserError(f"{path} is no valid TOML ({error}); mend that line.") from None
    return parse_correction(found, str(path))


def parse_correction(found: Mapping[str, Any], where: str) -> Correction:
    """Make a correction of a mapping with the keys allow, block and pin.

    Raises:
      UserError: A key is unknown, or a value is no list of ids.

    Example:
      >>> parse_correction({"block": ["a", 7]}, "policy.toml").block
      ('a', '7')
    """
    names = [each.name for each in fields(Correction)]
    lists: dict[str, tuple[str, ...]] = {}
    for name, value in found.items():
        if name not in names:
            raise UserError(f"{where}: {name!r} is unknown; there are {', '.join(names)}.")
        if not isinstance(value, list):
            raise UserError(f'{where}: {name} is no list; write {name} = ["ID", "ID"].')
        for place, item in enumerate(value, 1):
            # A catalogue of numbers is often written without quotation marks.
            number = isinstance(item, int) and not isinstance(item, bool) and abs(item) < 2**63
            if not (number or isinstance(item, str)):
                shown = "a huge number" if type(item) is int else f"{item!r:.80}"
                raise UserError(
                    f"{where}, {name}, entry {place}: {shown} is no item id; write it in "
                    "quotation marks."
                )
        lists[name] = tuple(map(str, value))
    return Correction(**lists)


def nearest(item: str, ids: Sequence[str], exported: bool = False) -> str:
    """Return what to do about an unknown id; ``exported`` where an artefact was asked.

    Example:
      >>> nearest("t0001x", ["t0001", "b"]), nearest("?", ["t0001"])
      ("did you mean 't0001'?", 'run jmrec embed if it is new.')
    """
    near = difflib.get_close_matches(item, ids, 1) if len(ids) <= NEAR else []
    if near:
        return f"did you mean {near[0]!r}?"
    return f"run jmrec embed if it is new{', and jmrec export again' if exported else ''}."


def read_time(text: str) -> float:
    """Return unix seconds of a date or a number; a date without a zone is in UTC.

    Raises:
      UserError: It is neither, or may be more than one time.

    Example:
      >>> read_time("1970-01-02"), read_time("7.5"), read_time("20260715")
      (86400.0, 7.5, 1784073600.0)
    """
    found = read_times([text])
    seconds = float(found.seconds[0])
    year = found.unit in ("%Y", "%Y%m")
    if found.unit in LIKELY and not year:
        seconds = float(text)  # times of sessions may count from anywhere
    if year or not EARLIEST <= seconds <= LATEST:
        raise UserError(f"{text!r} is no time; write a date as 2026-07-31, or unix seconds.")
    return seconds
