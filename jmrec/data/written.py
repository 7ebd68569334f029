"""A time as people and programs write it, beside ISO 8601: its numbers, its clock, its zone."""

import re
import unicodedata
from functools import lru_cache
from typing import NamedTuple

import numpy as np

ORDERS = ("dmy", "mdy", "ymd")
"""Orders of day, month and year."""

_MONTHS = (
    "jan january januar jänner janvier janv enero ene gennaio gen janeiro januari",
    "feb february februar feber février févr fév febrero febbraio fevereiro fev februari",
    "mar march märz mär mrz mars marzo março maart mrt",
    "apr april avril avr abril abr aprile",
    "may mai mayo maggio mag maio mei",
    "jun june juni juin junio giugno giu junho",
    "jul july juli juillet juil julio luglio lug julho",
    "aug august août aou agosto ago augustus",
    "sep september sept septembre septiembre settembre set setembro",
    "oct october oktober okt octobre octubre ottobre ott outubro out",
    "nov november novembre noviembre novembro",
    "dec december dezember dez décembre déc diciembre dic dicembre dezembro",
)
_WEEKDAYS = (
    "mon monday tue tues tuesday wed wednesday thu thur thurs thursday fri friday sat saturday sun "
    "sunday mo montag di dienstag mi mittwoch do donnerstag fr freitag sa samstag so sonntag lundi "
    "mardi mercredi jeudi vendredi samedi dimanche lunes martes miércoles jueves viernes sábado "
    "domingo"
)
_FILLERS = "de del of the at um uhr le el à a las t st nd rd th er"
ZONES = {
    **dict.fromkeys(("z", "ut", "utc", "gmt", "wet"), 0),
    **{"est": -5, "edt": -4, "cst": -6, "cdt": -5, "mst": -7, "mdt": -6, "pst": -8, "pdt": -7},
    **{"cet": 1, "mez": 1, "cest": 2, "mesz": 2, "west": 1, "eet": 2, "eest": 3, "msk": 3},
}
"""Names of zones that mean one thing -> hours before UTC."""
_CLOCK = re.compile(
    r"(?:(?<![\d:.])|(?<=[a-z]/\d{4}:))(?P<hour>\d{1,2})"
    r"(?:(?P<sign>[:h.])(?P<minute>\d{2})(?:[:m.](?P<second>\d{2})(?P<rest>[.,]\d{1,9})?)?)?"
    r"(?:\s*(?P<half>[ap])\.?\s?m\b\.?)?"
    r"(?:\s*(?:utc|gmt)?(?P<offset>[+-]\d{2}:?\d{2}|[+-]\d{2})(?![\d/:.-])|\s*(?P<zone>[a-z]{1,4})\b)?"
)
_PLAIN = re.compile(
    r"(\d{1,4})([./-])(\d{1,2})\2(\d{4}|\d{2})"
    r"(?:(?:T|,? )(\d{1,2}):(\d{2})(?::(\d{2}))?(?: ?([AaPp])[Mm])?)?"
)
"""What most files have, for speed."""
_EIGHT = re.compile(r"(\d{4})(\d\d)(\d\d)")
_ASIDE = re.compile(r"\s*[(\[][\w/+\- ]+[)\]]$")
_TOKEN = re.compile(r"\d+|[^\W\d_]+")


def _flat(word: str) -> str:
    return unicodedata.normalize("NFKD", word.casefold()).encode("ascii", "ignore").decode()


_MONTH_OF = {_flat(name): i + 1 for i, names in enumerate(_MONTHS) for name in names.split()}
_IGNORED = {_flat(word) for word in f"{_WEEKDAYS} {_FILLERS}".split()}


class Written(NamedTuple):
    """What a cell says.

    Attributes:
      parts: The three numbers of its date, in the order in which they stand; a month's name as its
        number.
      order: Where each stands: "dmy", "mdy" or "ymd"; "" where the cell does not tell.
      sign: What stands between them.
      long_year: Whether the year has four digits.
      clock: Seconds of the day, less the offset of the zone.
      has_clock: Whether the cell says a time of day.
    """

    parts: tuple[int, int, int]
    order: str
    sign: str
    long_year: bool
    clock: float
    has_clock: bool


def written(cell: str) -> Written | None:
    """Return what a cell says of a time; None if it is none.

    Example:
      >>> written("Tue, 01 Oct 2019 07:05:00 GMT")
      Written(parts=(1, 10, 2019), order='dmy', sign=' ', long_year=True, clock=25500.0,
              has_clock=True)
      >>> written("3/4/26 12:00 AM").order, written("3 shoes")
      ('', None)
    """
    if plain := _PLAIN.fullmatch(cell):
        return _plain(plain)
    if len(cell) > 80 or not any(map(str.isdigit, cell)):
        return None
    text = _ASIDE.sub("", cell.casefold())
    clock = 0.0
    match = _clock(text)
    if match:
        found = _seconds(match["hour"], match["minute"], match["second"], match["half"])
        zone = _zone(match)
        if found is None or zone is None:
            return None
        rest = float("0." + match["rest"][1:]) if match["rest"] else 0.0
        clock = found + rest - zone
        text = f"{text[: match.start()].rstrip(' ,:t')} {text[match.end() :]}".strip()
    date = _date(text)
    return date and Written(*date, clock, match is not None)


def _plain(match: re.Match[str]) -> Written | None:
    first, sign, second, third, hour, *clock = match.groups()
    long = len(first) > 2
    if len(first) == 3 or (long and len(third) > 2):
        return None
    time = _seconds(hour, *clock) if hour else 0.0
    if time is None:
        return None
    parts, order = (int(first), int(second), int(third)), "ymd" if long else ""
    return Written(parts, order, sign, long or len(third) > 2, time, hour is not None)


def _clock(text: str) -> re.Match[str] | None:
    """Find the clock in a cell: hours and minutes, or am and pm; with points only with these."""
    for match in _CLOCK.finditer(text):
        if match["half"] or (match["minute"] and match["sign"] != "."):
            return match
    return None


def _seconds(
    hours: str, minutes: str | None, seconds: str | None, half: str | None
) -> float | None:
    """Return the seconds of the day; None if no clock shows that."""
    hour, minute, second = int(hours), int(minutes or 0), int(seconds or 0)
    if half:
        after = half in "pP"
        if hour > 12 and not after:
            return None
        hour = hour % 12 + 12 * after if hour <= 12 else hour
    if hour > 24 or minute > 59 or second > 60 or (hour == 24 and minute + second):
        return None
    return float(hour * 3600 + minute * 60 + second)


def _zone(match: re.Match[str]) -> float | None:
    """Return how many seconds a clock is ahead of UTC; None if its zone is not known."""
    if match["offset"]:
        digits = match["offset"][1:].replace(":", "").ljust(4, "0")
        zone = float(int(digits[:2]) * 3600 + int(digits[2:]) * 60)
        return -zone if match["offset"][0] == "-" else zone
    if match["zone"] and _flat(match["zone"]) not in _IGNORED:
        return ZONES[match["zone"]] * 3600.0 if match["zone"] in ZONES else None
    return 0.0


@lru_cache(maxsize=100_000)
def _date(text: str) -> tuple[tuple[int, int, int], str, str, bool] | None:
    """Return the parts, order, sign and length of year of a date without its clock."""
    if whole := _EIGHT.fullmatch(text):  # 20190415, a clock beside it
        year, month, day = map(int, whole.groups())
        return (year, month, day), "ymd", "", True
    tokens, month = [], 0
    signs = {sign.strip() or " " for sign in _TOKEN.split(text)[1:-1]}
    for token in _TOKEN.findall(text):
        word = _flat(token)
        if token.isdigit():
            if len(token) > 4 or not token.isascii():
                return None
            tokens.append(token)
        elif word in _MONTH_OF and not month and word not in _IGNORED:
            month = _MONTH_OF[word]
            tokens.append("")  # its place
        elif word not in _IGNORED:
            return None
    if len(tokens) != 3 or re.search(r"[^\w\s.,/-]", text):
        return None
    long = [len(token) > 2 for token in tokens]
    if sum(long) > 1 or any(len(token) == 3 for token in tokens):
        return None
    parts = tuple(int(token) if token else month for token in tokens)
    if month:
        place = tokens.index("")
        order = {(1, True): "ymd", (0, False): "mdy", (1, False): "dmy"}.get((place, long[0]), "")
        return (parts, order, " ", any(long)) if order else None  # type: ignore[return-value]
    if signs == {" ", ","}:  # 09 13, 2014
        signs = {" "}
    if len(signs) > 1 or long[1]:
        return None
    return parts, "ymd" if long[0] else "", signs.pop(), any(long)  # type: ignore[return-value]


def days_of(parts: np.ndarray, order: str) -> np.ndarray:
    """Return the days from 1970-01-01 to dates, float64 [N], NaN where there is no such day.

    Args:
      parts: int [N, 3], as those of `Written`; a year of two digits is one of 1969 to 2068.
      order: One of `ORDERS`.

    Example:
      >>> days_of(np.array([[2, 1, 1970], [31, 2, 2026], [1, 2, 70]]), "dmy").tolist()
      [1.0, nan, 31.0]
    """
    year, month, day = (parts[:, order.index(key)] for key in "ymd")
    year = np.where(year < 100, year + np.where(year >= 69, 1900, 2000), year)
    good = (month >= 1) & (month <= 12) & (day >= 1) & (day <= 31)
    months = np.where(good, 12 * (year - 1970) + month - 1, 0).astype("datetime64[M]")
    days = months.astype("datetime64[D]") + (day - 1)
    good &= days.astype("datetime64[M]") == months
    return np.where(good, days.astype(np.int64), np.nan)


def order_of(pattern: str) -> str:
    """Return the order of day, month and year in a pattern of strptime, "" without all three.

    Example:
      >>> order_of("%m/%d/%Y %H:%M"), order_of("%d %b %y"), order_of("%Y")
      ('mdy', 'dmy', '')
    """
    letters = {"d": "d", "e": "d", "m": "m", "b": "m", "B": "m", "y": "y", "Y": "y"}
    order = "".join(letters[c] for c in re.findall("%-?([demBbyY])", pattern))
    return order if order in ORDERS else ""


def pattern_of(cell: str, date_: Written, order: str) -> str:
    """Return a pattern of strptime for a cell whose date is three numbers in an order.

    Example:
      >>> cell = "12/31/2026 1:05 PM"
      >>> pattern_of(cell, written(cell), "mdy")
      '%m/%d/%Y %I:%M %p'
    """
    letters = {"d": "%d", "m": "%m", "y": "%Y" if date_.long_year else "%y"}
    first, second, third = (letters[key] for key in (order if order in ORDERS else "dmy"))
    comma = "," * (date_.sign == " " and "," in cell)
    form = f"{first}{date_.sign}{second}{comma}{date_.sign}{third}"
    match = _clock(cell.casefold())
    if not match:
        return form
    form += re.match(r"[\s,T]*", cell[: match.start()][::-1])[0][::-1] or " "  # type: ignore[index]
    form += "%I" if match["half"] else "%H"
    form += ":%M" * bool(match["minute"]) + ":%S" * bool(match["second"])
    form += ".%f" * bool(match["rest"])
    return form + (" %p" if match["half"] else "")
