"""Cells as times: numbers of a unit, ISO 8601, and dates as people and programs write them.

A column is read as a whole, because single cells do not tell: whether 1763748300 counts seconds,
and whether 01/02/2026 is in January, is decided by all its cells.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jmrec.data.description import Description
from jmrec.data.findings import EMPTIED, KEPT, LEFT_OUT, Findings, Seen, shown
from jmrec.data.tables import Table, row_name
from jmrec.data.time_evidence import UNKNOWN, Dates, Form, TimesTold
from jmrec.data.units import COMPACT, DAY, LIKELY, MODERN, UNITS, Numbers, counted, ends
from jmrec.data.written import ORDERS, ZONES, Written, days_of, order_of, pattern_of, written

EARLIEST, LATEST = -2_208_988_800.0, 7_258_118_400.0
"""The years 1900 and 2200 in unix seconds; a time outside is a slip, most often milliseconds."""
_SLIP = (
    315_532_800.0  # the year 1980: a number before it, where most are modern, is of another unit
)
_NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?")
_PLAIN = r"^-?[0-9]{1,18}(\.[0-9]{1,18})?$"
"""Numbers that Arrow reads as Python does, many at once."""
_AT = r"(?i)\d:\d\d"
_ZONE = (
    _AT + r"(?::\d\d)?(?:[.,]\d+)?\s*(?:[ap]\.?m\b\.?)?\s*"
    r"(?:(?:utc|gmt)?[+-]\d\d(?::?\d\d)?(?:$|[^\d:/.-])|(?:%s)\b)"
) % "|".join(ZONES)
"""A clock, and one whose zone is said."""
_1970 = datetime(1970, 1, 1)
_PATTERN, _COUNTED, _ISO, _WRITTEN = range(1, 5)
_BARE, _ZONED = 1, 2


@dataclass(frozen=True)
class Times:
    """A column of times.

    Attributes:
      seconds: float64 [N] unix seconds, NaN where a cell is no time; without a zone in UTC.
      span: float64 [N], how many seconds a cell names: 86,400 for a date, 0 for an instant.
      unit: What its numbers are: one of `UNITS` or a pattern such as "%Y%m%d"; "" without numbers.
      order: "dmy", "mdy" or "ymd" of dates of three numbers; "" without such, "?" where both fit.
      manner: int8 [N], cells of one number are written in one manner; 0 where a cell is no time.
      pattern: One of strptime for the dates of three numbers, "" without such.
    """

    seconds: np.ndarray
    span: np.ndarray
    unit: str
    order: str
    manner: np.ndarray
    pattern: str

    @property
    def time_format(self) -> str:
        """The time_format of a description that says how they are written, "" if none is needed."""
        return "" if self.order == UNKNOWN else self.pattern or self.unit.removeprefix("s")


def read_times(
    cells: Sequence[str] | pa.Array, time_format: str = "", findings: Findings | None = None
) -> Times:
    """Read a column of times.

    Args:
      cells: Of one column; "" is no time.
      time_format: See `jmrec.data.description`; "" to find out.
      findings: Knows what the whole column tells, where the cells are a stretch of it.

    Returns:
      The times. What can be read in one way only is read, whatever the format says of the others.

    Example:
      >>> read_times(["2019-10-01 00:00:00 UTC", "soon"]).seconds.tolist()
      [1569888000.0, nan]
      >>> read_times(["12/31/2026 1:05 PM", "01/02/2026 12:00 AM"]).order
      'mdy'
      >>> read_times(["20231114", "20231115", "7"]).unit
      '%Y%m%d'
    """
    column = cells if isinstance(cells, pa.Array) else pa.array(cells, pa.string())
    if _read_at_once(time_format) and pc.all(pc.match_substring_regex(column, _PLAIN)).as_py():
        count = np.broadcast_to(np.int64(1), len(column))
        return _read(column, count, time_format, findings or Findings())
    # The same time often stands in many cells.
    coded = column.dictionary_encode()
    each = np.asarray(coded.indices)
    count = np.bincount(each, minlength=len(coded.dictionary))
    found = _read(coded.dictionary, count, time_format, findings or Findings())
    return replace(
        found, seconds=found.seconds[each], span=found.span[each], manner=found.manner[each]
    )


def _read(cells: pa.Array, count: np.ndarray, time_format: str, findings: Findings) -> Times:
    """Read cells, each of which stands for ``count`` (int [N]) cells of the column."""
    n = len(cells)
    seconds, span, manner = np.full(n, np.nan), np.zeros(n), np.zeros(n, np.int8)
    pattern = time_format if "%" in time_format else ""
    plain, dates = np.zeros(n, bool), []
    if _read_at_once(time_format):
        plain = np.asarray(pc.match_substring_regex(cells, _PLAIN))
    if plain.all():
        numbers = np.asarray(cells.cast(pa.float64()))
    else:
        numbers = np.full(n, np.nan)
        numbers[plain] = np.asarray(cells.filter(pa.array(plain)).cast(pa.float64()))
    rest = np.flatnonzero(~plain)
    for i, cell in zip(rest.tolist(), cells.take(pa.array(rest)).to_pylist()):
        if not cell:
            continue
        if pattern in COMPACT and _NUMBER.fullmatch(cell):
            numbers[i] = float(cell.replace(",", "."))
        elif pattern and (time := _by_pattern(cell, pattern)) is not None:
            seconds[i], manner[i] = time, _PATTERN
            span[i] = 0.0 if re.search("%[HIcX]", pattern) else DAY
        elif _NUMBER.fullmatch(cell):
            numbers[i] = float(cell.replace(",", "."))
        elif (time := _iso(cell)) is not None:
            seconds[i], manner[i] = time, _ISO
            span[i] = DAY if len(cell) == 10 else 0.0
        elif (date := written(cell)) is not None:
            dates.append((i, date))
    columns, given = (seconds, span, manner), order_of(pattern)
    for order in ORDERS:
        _fill(columns, [(i, date) for i, date in dates if date.order == order], order, given)
    unknown = [(i, date) for i, date in dates if not date.order]
    at = np.flatnonzero(~np.isnan(numbers))
    told = TimesTold(
        time_format,
        Numbers(int(count[at].sum()), numbers[at], count[at], findings.now),
        Dates.of([date for _, date in unknown], count[[i for i, _ in unknown]]),
        modern=int((count * (seconds >= MODERN)).sum()),
        known=int((count * (manner > 0)).sum()),
    )
    form = findings.whole(told).form(given)
    _fill(columns, unknown, form.order, given)
    _fill_numbers(columns, at, numbers[at], form)
    dated = pattern_of(cells[unknown[0][0]].as_py(), unknown[0][1], form.order) if unknown else ""
    return Times(seconds, span, form.unit, form.order, manner, dated)


def _read_at_once(time_format: str) -> bool:
    """Whether a cell that is a plain number can be nothing but a number in this format."""
    return "%" not in time_format or time_format in COMPACT


def _by_pattern(cell: str, pattern: str) -> float | None:
    try:
        time = datetime.strptime(cell, pattern)
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError, re.error):
        return None


def _iso(cell: str) -> float | None:
    try:
        time = datetime.fromisoformat(cell.removesuffix(" UTC"))
        return time.timestamp() if time.tzinfo else (time - _1970).total_seconds()
    except (ValueError, OverflowError):
        return None


def _fill(
    columns: tuple[np.ndarray, np.ndarray, np.ndarray],
    dates: Sequence[tuple[int, Written]],
    order: str,
    given: str,
) -> None:
    """Fill written dates into seconds, span and manner; with an order that is none, nothing."""
    if not dates or order not in ORDERS:
        return
    seconds, span, manner = columns
    at = [i for i, _ in dates]
    days = days_of(np.array([date.parts for _, date in dates]), order)
    seconds[at] = days * DAY + [date.clock for _, date in dates]
    span[at] = [DAY * (not date.has_clock) for _, date in dates]
    manner[at] = np.where(np.isnan(days), 0, [_manner(date, given) for _, date in dates])


def _fill_numbers(
    columns: tuple[np.ndarray, np.ndarray, np.ndarray],
    at: np.ndarray,
    values: np.ndarray,
    form: Form,
) -> None:
    """Fill numbers (float64 [K]) of the cells ``at`` (int [K]) into seconds, span and manner."""
    if not len(at):
        return
    seconds, span, manner = columns
    with np.errstate(over="ignore", invalid="ignore"):
        found = counted(values, form.unit)
        span[at] = ends(values, form.unit)
    known = ~np.isnan(found)
    if form.slips:
        known &= found >= _SLIP
        found = np.where(known, found, np.nan)
    seconds[at], manner[at] = found, np.where(known, _COUNTED, 0)


def _manner(date: Written, given: str) -> int:
    if date.order:
        return _ISO if date.order == "ymd" and date.sign == "-" else _WRITTEN
    return _PATTERN if given else _WRITTEN


def show_time(seconds: float) -> str:
    """Return unix seconds as a date and a clock in UTC; what no calendar has, as it is.

    Example:
      >>> show_time(86_400.0), show_time(1.7e12)
      ('1970-01-02 00:00', '1700000000000 seconds after 1970')
    """
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")
    except (ValueError, OverflowError, OSError):  # a column in two formats
        return f"{seconds:.0f} seconds after 1970"


def times(
    table: Table,
    column: str,
    findings: Findings,
    time_format: str = "",
    effect: str = LEFT_OUT,
    last: bool = False,
    beside: Sequence[str] = (),
) -> tuple[np.ndarray, np.ndarray]:
    """Read a column of times, and report what of it can not be read or is unsure.

    Args:
      table: The rows.
      column: Its name.
      findings: Gets the cells that are no time, and how numbers were read if that was a guess.
      time_format: See `jmrec.data.description`.
      effect: What becomes of cells that are no time.
      last: Whether a time is the last of something: a date is then the last second of its day.
      beside: Cells of a column that is written alike, which may tell the day from the month.

    Returns:
      (float64 [N] unix seconds, NaN where there is none; which cells are filled and no time).
    """
    cells = table.columns[column]
    found = read_times(cells, time_format, findings)
    if last or effect == EMPTIED:  # windows: how clicks are written binds less
        words = cells.to_pylist()
        alone = _first(read_times([*words, *beside]), len(words))
        sign = re.search("%-?[dmbyY]([./-])", time_format)
        other = sign is not None and not any(sign[1] in cell for cell in words)
        filled = len(words) - words.count("")
        # 20260731 in every cell is a date, also where clicks are counted in minutes.
        dated = time_format in UNITS and COMPACT.get(alone.unit, 0) >= 8
        dated = dated and _modern(alone) == filled
        if other or dated or 2 * _modern(found) < filled < 2 * _modern(alone):
            found = alone
    out = found.seconds + np.where(found.span > 0, found.span - 1, 0.0) * last
    inside = (out >= EARLIEST) & (out <= LATEST)
    bad = np.flatnonzero(np.asarray(pc.not_equal(cells, "")) & ~inside)

    def message(i: int) -> str:
        cell = cells[i].as_py()
        return f"{column} is {shown(cell)}, {_fault(cell, found, out[i], time_format)}"

    findings.add(table, bad, message, effect)
    out[bad] = np.nan
    if not (time_format or found.unit in ("", "s")) and not (
        effect == EMPTIED and found.unit not in LIKELY
    ):
        counted_ = _Manners.of(table, column, np.where(found.manner == _COUNTED, _COUNTED, 0))
        first = counted_.seen.get(_COUNTED, Seen())
        findings.gather(first, partial(_say_unit, column, found.unit))
    manners = _Manners.of(table, column, np.where(np.isnan(out), 0, found.manner))
    findings.gather(manners, partial(_say_manners, column, table.files))
    powers = np.asarray(pc.match_substring(cells, "e", ignore_case=True))
    counts = np.flatnonzero(powers & (found.manner == _COUNTED))
    rough = [int(i) for i in counts if _rounded(cells[i].as_py(), found.unit)]
    findings.add(
        table,
        rough,
        lambda i: (
            f"{column} is {shown(cells[i].as_py())}, whose last digits are lost, so its time is "
            "rough; write the number out"
        ),
        KEPT,
    )
    return out, bad


def _first(found: Times, n: int) -> Times:
    return replace(found, seconds=found.seconds[:n], span=found.span[:n], manner=found.manner[:n])


def _modern(found: Times) -> int:
    return int(((found.seconds >= MODERN) & (found.seconds <= LATEST)).sum())


def _fault(cell: str, found: Times, time: float, time_format: str) -> str:
    """Say why a cell is not taken as a time, and what to do."""
    under = "under [dataset] in dataset.toml"
    date = written(cell)
    if date and not date.order and found.order == UNKNOWN:
        day, month = (pattern_of(cell, date, order) for order in ("dmy", "mdy"))
        return (
            "a date with the day first or with the month first, which the other rows do not tell; "
            f'write time_format = "{day}" or "{month}" {under}'
        )
    if np.isfinite(time):
        if re.fullmatch(r"\d{12,}(\.\d*)?", cell) and found.unit == "s":
            return (
                "too large for unix seconds; divide by 1000 or more, or write time_format = "
                f'"ms" {under}'
            )
        return "outside the years 1900 to 2200; mend the time"
    if _NUMBER.fullmatch(cell):
        words = UNITS.get(found.unit, f"{found.unit} as most of the column")
        return f"a number that is no time as {words}; write all times in one way"
    wanted = (
        f"a time written as {time_format}"
        if "%" in time_format
        else "unix seconds or ISO 8601 like 2026-11-21T18:05:00Z"
    )
    return f"not a time; write {wanted}, or say {under} what time_format it has"


@dataclass(frozen=True)
class _Manners:
    """The manners of a column -> what is written in each; an `Evidence`."""

    seen: dict[int, Seen]

    @classmethod
    def of(cls, table: Table, column: str, manner: np.ndarray) -> "_Manners":
        """Return those of some rows, manner int8 [N]; 0 is none."""
        seen = {}
        for each in np.unique(manner[manner > 0]).tolist():
            first = int(np.argmax(manner == each))
            cell = table.columns[column][first].as_py()
            count = int((manner == each).sum())
            seen[each] = Seen(count, table.where(first), int(table.rows[first]), cell)
        return cls(seen)

    def summed(self) -> "_Manners":
        return self

    def merge(self, other: "_Manners") -> "_Manners":
        both = {*self.seen, *other.seen}
        return _Manners(
            {m: self.seen.get(m, Seen()).merge(other.seen.get(m, Seen())) for m in both}
        )


def _say_unit(column: str, unit: str, first: Seen, findings: Findings) -> None:
    """Report that numbers are read as something that nobody has said."""
    words = UNITS.get(unit, f"dates written as {unit}")
    findings.note(
        f"{first.where}: {column} is {shown(first.cell)}, and "
        f'such numbers are read as {words}; if that is right, write time_format = "{unit}" '
        'under [dataset] in dataset.toml, else "s" for unix seconds'
    )


def _say_manners(column: str, files: Sequence[str], manners: _Manners, findings: Findings) -> None:
    """Report a column whose times are written in several manners, all of which are read."""
    if len(manners.seen) < 2:
        return
    most = max(sorted(manners.seen), key=lambda manner: manners.seen[manner].count)
    usual = manners.seen[most]
    other = Seen()
    for manner, seen in manners.seen.items():
        other = other if manner == most else other.merge(seen)
    findings.report(
        f"{other.where}: {column} is {shown(other.cell)} here and {shown(usual.cell)} in "
        f"{row_name(usual.row, files)}, two formats in one column; write all times in one",
        other.count,
        other.count + usual.count,
        KEPT,
    )


def say_zones(table: Table, column: str, findings: Findings) -> None:
    """Report a column of which some times have a zone and others none; all of them are read."""
    cells = table.columns[column]
    clocked = np.asarray(pc.match_substring_regex(cells, _AT))
    zoned = clocked
    if clocked.any():
        zoned = np.asarray(pc.match_substring_regex(cells, _ZONE))
    manners = _Manners.of(table, column, np.where(zoned, _ZONED, clocked))
    findings.gather(manners, partial(_say_zones, column, table.files))


def _say_zones(column: str, files: Sequence[str], manners: _Manners, findings: Findings) -> None:
    bare, zoned = (manners.seen.get(each, Seen()) for each in (_BARE, _ZONED))
    if not (bare.count and zoned.count):
        return
    findings.report(
        f"{bare.where}: {column} is {shown(bare.cell)} without a zone, and {shown(zoned.cell)} in "
        f"{row_name(zoned.row, files)} has one; those without a zone are read as UTC, so write the "
        "zone where that is not right",
        bare.count,
        bare.count + zoned.count,
        KEPT,
    )


def _rounded(cell: str, unit: str) -> bool:
    """Whether a number with an exponent leaves out seconds, as 1.76E+12 does."""
    number = re.fullmatch(r"[+-]?\d+(?:[.,](\d*))?[eE]([+-]?\d+)", cell)
    if not number:
        return False
    whole = {"ms": 3, "us": 6, "ns": 9}.get(unit, 0)
    return int(number[2]) - len(number[1] or "") > whole


def future(table: Table, column: str, time: np.ndarray, now: float, findings: Findings) -> None:
    """Report times (float64 [N]) that are more than a day later than ``now``, in unix seconds."""
    cells = table.columns[column]
    findings.add(
        table,
        np.flatnonzero(time > now + DAY),
        lambda i: f"{column} is {shown(cells[i].as_py())}, which is yet to come; mend the time",
        KEPT,
    )


def windows(
    table: Table, description: Description, findings: Findings
) -> tuple[np.ndarray, np.ndarray]:
    """Return from when and until when each item is available: float64 [V], -inf and inf if open.

    An item that is available until a date is so to the last second of that day.
    """
    names = (description.items.available_from, description.items.available_until)
    found = []
    for column, other, none in zip(names, names[::-1], (-np.inf, np.inf)):
        out = np.full(len(table), np.nan)
        if column:
            form, last = description.time_format, none > 0
            beside = table.columns[other].to_pylist() if other else []
            out, _ = times(table, column, findings, form, EMPTIED, last, beside)
        found.append(np.where(np.isnan(out), none, out))
    start, end = found
    bad = np.flatnonzero(start > end)
    findings.add(
        table,
        bad,
        lambda i: f"{names[1]} is before {names[0]}; mend one of them",
        EMPTIED,
    )
    start[bad], end[bad] = -np.inf, np.inf
    return start, end
