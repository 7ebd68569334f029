"""Cells as times: numbers of a unit, ISO 8601, and dates as people and programs write them.

A column is read as a whole, because single cells do not tell: whether 1763748300 counts seconds,
and whether 01/02/2026 is in January, is decided by all its cells.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jmrec.data.description import Description
from jmrec.data.findings import EMPTIED, KEPT, LEFT_OUT, Findings, shown
from jmrec.data.tables import Table
from jmrec.data.units import COMPACT, DAY, LIKELY, MODERN, UNITS, counted, ends, unit_of
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
        return "" if self.order == "?" else self.pattern or self.unit.removeprefix("s")


def read_times(cells: Sequence[str] | pa.Array, time_format: str = "") -> Times:
    """Read a column of times.

    Args:
      cells: Of one column; "" is no time.
      time_format: See `jmrec.data.description`; "" to find out.

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
        return _read(column, np.broadcast_to(np.int64(1), len(column)), time_format)
    # The same time often stands in many cells.
    coded = column.dictionary_encode()
    each = np.asarray(coded.indices)
    count = np.bincount(each, minlength=len(coded.dictionary))
    found = _read(coded.dictionary, count, time_format)
    return replace(
        found, seconds=found.seconds[each], span=found.span[each], manner=found.manner[each]
    )


def _read(cells: pa.Array, count: np.ndarray, time_format: str) -> Times:
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
    unit = _numbers(numbers, count, time_format, seconds, span, manner)
    order, form = _dates(cells, count, dates, pattern, seconds, span, manner)
    if 2 * (count * (seconds >= MODERN)).sum() >= (count * (manner > 0)).sum():
        slips = (manner == _COUNTED) & (seconds < _SLIP)
        seconds[slips], manner[slips] = np.nan, 0
    return Times(seconds, span, unit, order, manner, form)


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


def _numbers(
    numbers: np.ndarray,
    count: np.ndarray,
    time_format: str,
    seconds: np.ndarray,
    span: np.ndarray,
    manner: np.ndarray,
) -> str:
    """Fill in the cells that are ``numbers`` (float64 [N], NaN for others); return their unit."""
    at = np.flatnonzero(~np.isnan(numbers))
    if not len(at):
        return ""
    values = numbers[at]
    with np.errstate(over="ignore", invalid="ignore"):
        given = time_format in UNITS or time_format in COMPACT
        unit = time_format if given else unit_of(values, count[at])
        found = counted(values, unit)
        span[at] = ends(values, unit)
    seconds[at], manner[at] = found, np.where(np.isnan(found), 0, _COUNTED)
    return unit


def _dates(
    cells: pa.Array,
    count: np.ndarray,
    dates: list[tuple[int, Written]],
    pattern: str,
    seconds: np.ndarray,
    span: np.ndarray,
    manner: np.ndarray,
) -> tuple[str, str]:
    """Fill in written dates; return the order of those of three numbers, and a pattern for them."""
    given, asked, form = order_of(pattern), "", ""
    unknown = [(i, date) for i, date in dates if not date.order]
    if unknown:
        asked = given or _decide([date for _, date in unknown], count[[i for i, _ in unknown]])
        form = pattern_of(cells[unknown[0][0]].as_py(), unknown[0][1], asked)
    for order in ORDERS:
        some = [(i, date) for i, date in dates if (date.order or asked) == order]
        if not some:
            continue
        at = [i for i, _ in some]
        days = days_of(np.array([date.parts for _, date in some]), order)
        seconds[at] = days * DAY + [date.clock for _, date in some]
        span[at] = [DAY * (not date.has_clock) for _, date in some]
        how = [_manner(date, given) for _, date in some]
        manner[at] = np.where(np.isnan(days), 0, how)
    return asked, form


def _manner(date: Written, given: str) -> int:
    if date.order:
        return _ISO if date.order == "ymd" and date.sign == "-" else _WRITTEN
    return _PATTERN if given else _WRITTEN


def _decide(dates: Sequence[Written], count: np.ndarray) -> str:
    """Return the order that dates have, each of which stands ``count`` times; "?" if unknown.

    A row tells if it is a date in one order only. A few that tell another order are slips.
    """
    parts = np.array([date.parts for date in dates])
    valid = {order: ~np.isnan(days_of(parts, order)) for order in ORDERS}
    if all(date.long_year for date in dates):
        del valid["ymd"]
    best = max(valid, key=lambda order: int((count * valid[order]).sum()))
    others = [order for order in valid if order != best]
    tells = [int((count * (valid[best] & ~valid[other])).sum()) for other in others]
    against = [int((count * (valid[other] & ~valid[best])).sum()) for other in others]
    if all(t > 20 * a for t, a in zip(tells, against)):
        return best
    if not sum(against) and valid["dmy"].all() and all(date.sign == "." for date in dates):
        return "dmy"  # nobody writes a month first and points
    return "?"


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
    found = read_times(cells, time_format)
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
    _say_unit(table, column, findings, found, time_format, effect)
    _say_manners(table, column, findings, np.where(np.isnan(out), 0, found.manner))
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
    if date and not date.order and found.order == "?":
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


def _say_unit(
    table: Table, column: str, findings: Findings, found: Times, time_format: str, effect: str
) -> None:
    """Report that numbers are read as something that nobody has said."""
    if time_format or found.unit in ("", "s") or (effect == EMPTIED and found.unit not in LIKELY):
        return
    first = int(np.flatnonzero(found.manner == _COUNTED)[0])
    words = UNITS.get(found.unit, f"dates written as {found.unit}")
    findings.note(
        f"{table.where(first)}: {column} is {shown(table.columns[column][first].as_py())}, and "
        f'such numbers are read as {words}; if that is right, write time_format = "{found.unit}" '
        'under [dataset] in dataset.toml, else "s" for unix seconds'
    )


def _say_manners(table: Table, column: str, findings: Findings, manner: np.ndarray) -> None:
    """Report a column whose times are written in several manners, all of which are read."""
    cells = table.columns[column]
    most = int(np.bincount(manner[manner > 0], minlength=1).argmax())
    usual = int(np.argmax(manner == most))
    findings.add(
        table,
        np.flatnonzero((manner > 0) & (manner != most)),
        lambda i: (
            f"{column} is {shown(cells[i].as_py())} here and {shown(cells[usual].as_py())} in "
            f"{table.row(usual)}, two formats in one column; write all times in one"
        ),
        KEPT,
    )


def say_zones(table: Table, column: str, findings: Findings) -> None:
    """Report a column of which some times have a zone and others none; all of them are read."""
    cells = table.columns[column]
    clocked = np.asarray(pc.match_substring_regex(cells, _AT))
    if not clocked.any():
        return
    zoned = np.asarray(pc.match_substring_regex(cells, _ZONE))
    first = int(np.argmax(zoned))
    findings.add(
        table,
        np.flatnonzero(clocked & ~zoned) if zoned.any() else [],
        lambda i: (
            f"{column} is {shown(cells[i].as_py())} without a zone, and "
            f"{shown(cells[first].as_py())} in {table.row(first)} has one; those without a zone "
            "are read as UTC, so write the zone where that is not right"
        ),
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
