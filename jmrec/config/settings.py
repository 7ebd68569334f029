"""What a setting may be: kinds of values, and the check of a configuration by a table of them.

A table says of each setting what it means and what it may be, so that a slip is answered before
anything runs::

    TRAIN = {
        "steps": Setting(Whole(1, 10**9), "Updates in all."),
        "schedule": Setting(Word(("constant", "cosine")), "How the learning rate falls."),
    }
    TABLE = {**under("student.train", TRAIN), **under("students.*.train", TRAIN)}

A part of a name that is ``*`` stands for any one part. Which settings there are, and in which table
they stand, is the matter of the systems: see `jmrec.systems.registry.SETTINGS`.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from ml_collections import ConfigDict

from jmrec.config.arguments import choose
from jmrec.config.compare import flatten
from jmrec.errors import SettingError

ANY = "*"
"""A part of a pattern that fits any one part of a name."""
SHOWN = 60
"""Characters of a wrong value that are shown."""


class Kind(Protocol):
    """A kind of values."""

    @property
    def says(self) -> str:
        """What a value of this kind is, such as "a whole number from 1 to 9"."""

    def check(self, name: str, value: Any) -> None:
        """Refuse a plain value that is not of this kind.

        Raises:
          UserError: It is not; with the setting's name.
        """


class Setting(NamedTuple):
    """A line of a table.

    Attributes:
      kind: What the setting may be.
      means: What it decides, a sentence.
    """

    kind: Kind
    means: str


Settings = Mapping[str, Setting]
"""Pattern of a dotted name -> the setting."""


def wrong(name: str, value: Any, says: str) -> SettingError:
    """Return the error of a value that is not of its kind.

    Example:
      >>> str(wrong("train.steps", 0, "a whole number from 1 to 9"))
      'train.steps=0 does not fit; give a whole number from 1 to 9.'
    """
    shown = " ".join(str(value).split())
    if (isinstance(value, str) and shown != value) or not shown:
        shown = f'"{shown}"'
    if len(shown) > SHOWN:
        shown = f"{shown[:SHOWN]}..."
    return SettingError(f"{name}={shown} does not fit; give {says}.")


@dataclass(frozen=True)
class Flag:
    """Yes or no."""

    says = "true or false"

    def check(self, name: str, value: Any) -> None:
        """Refuse what is no bool; see `Kind`."""
        if not isinstance(value, bool):
            raise wrong(name, value, self.says)


@dataclass(frozen=True)
class Whole:
    """Whole numbers.

    Attributes:
      least: The least that it may be.
      most: The most.

    Example:
      >>> Whole(1, 10**6).check("train.batch_size", 0)
      Traceback (most recent call last):
        ...
      jmrec.errors.SettingError: train.batch_size=0 does not fit; give a whole number from 1 to \
    1,000,000.
    """

    least: int
    most: int

    @property
    def says(self) -> str:
        """See `Kind`."""
        return f"a whole number from {self.least:,} to {self.most:,}"

    def check(self, name: str, value: Any) -> None:
        """Refuse another value; see `Kind`."""
        number = isinstance(value, int) and not isinstance(value, bool)
        if not number or not self.least <= value <= self.most:
            raise wrong(name, value, self.says)


@dataclass(frozen=True)
class Number:
    """Finite numbers, whole ones among them.

    Attributes:
      least: The least that it may be.
      most: The most.
      above: Whether ``least`` itself is left out.
      below: Whether ``most`` itself is left out.

    Example:
      >>> Number(0, 1, below=True).says
      'a number from 0 to below 1'
    """

    least: float
    most: float
    above: bool = False
    below: bool = False

    @property
    def says(self) -> str:
        """See `Kind`."""
        first = f"above {self.least:,g}" if self.above else f"from {self.least:,g}"
        last = f"below {self.most:,g}" if self.below else f"{self.most:,g}"
        joined = f"{first} and {last}" if self.above and self.below else f"{first} to {last}"
        return f"a number {joined}"

    def check(self, name: str, value: Any) -> None:
        """Refuse another value; see `Kind`."""
        fits = isinstance(value, int | float) and not isinstance(value, bool)
        fits = fits and math.isfinite(value) and self.least <= value <= self.most
        if not fits or (self.above and value == self.least) or (self.below and value == self.most):
            raise wrong(name, value, self.says)


@dataclass(frozen=True)
class Word:
    """One of several words.

    Attributes:
      options: The words.

    Example:
      >>> Word(("validation", "test")).check("evaluate.split", "tset")
      Traceback (most recent call last):
        ...
      jmrec.errors.UserError: evaluate.split="tset" is not one of validation, test, did you mean \
    "test"?
    """

    options: Sequence[str]

    @property
    def says(self) -> str:
        """See `Kind`."""
        return f"one of {', '.join(self.options)}"

    def check(self, name: str, value: Any) -> None:
        """Refuse another value; see `Kind`."""
        if not isinstance(value, str):
            raise wrong(name, value, self.says)
        choose(name, value, self.options)


@dataclass(frozen=True)
class Text:
    """Any text that can be printed, on one line or several.

    Attributes:
      empty: Whether there may be none.
    """

    empty: bool = False

    @property
    def says(self) -> str:
        """See `Kind`."""
        return "a text" if self.empty else "a text that is not empty"

    def check(self, name: str, value: Any) -> None:
        """Refuse another value; see `Kind`."""
        if not isinstance(value, str) or "\0" in value or not (value.strip() or self.empty):
            raise wrong(name, value, self.says)


@dataclass(frozen=True)
class Each:
    """A list or tuple of values of one kind.

    Attributes:
      kind: Of each value.
      least: How many there are at least.
      most: And at most; None is any number.
      once: Whether they all differ.
      rising: Whether each is above the one before.
      total: What they add up to; None is anything.

    Example:
      >>> Each(Whole(0, 9), least=1, once=True).check("seeds", [])
      Traceback (most recent call last):
        ...
      jmrec.errors.SettingError: seeds=[] does not fit; give a list of 1 or more, each once and \
    each a whole number from 0 to 9.
    """

    kind: Kind
    least: int = 0
    most: int | None = None
    once: bool = False
    rising: bool = False
    total: float | None = None

    @property
    def says(self) -> str:
        """See `Kind`."""
        count = f"{self.least}" if self.least == self.most else f"{self.least} or more"
        rules = ["each once and"] * self.once + ["ascending and"] * self.rising
        rules += [] if self.total is None else [f"which add up to {self.total:g} and are"]
        return f"a list of {count}, {' '.join([*rules, 'each'])} {self.kind.says}"

    def check(self, name: str, value: Any) -> None:
        """Refuse another value; see `Kind`."""
        if not isinstance(value, list | tuple):
            raise wrong(name, value, self.says)
        most = len(value) if self.most is None else self.most
        if not self.least <= len(value) <= most:
            raise wrong(name, value, self.says)
        for place, each in enumerate(value):
            self.kind.check(f"{name}[{place}]", each)
        pairs = list(itertools.pairwise(value))
        if (
            (self.once and any(a in value[:n] for n, a in enumerate(value)))
            or (self.rising and any(a >= b for a, b in pairs))
            or (self.total is not None and abs(sum(value) - self.total) > 1e-6)
        ):
            raise wrong(name, value, self.says)


@dataclass(frozen=True)
class Maybe:
    """A value, or none.

    Attributes:
      kind: Of a value that is there.
    """

    kind: Kind

    @property
    def says(self) -> str:
        """See `Kind`."""
        return f"none, or {self.kind.says}"

    def check(self, name: str, value: Any) -> None:
        """Refuse another value; see `Kind`."""
        if value is not None:
            self.kind.check(name, value)


@dataclass(frozen=True)
class Read:
    """Whatever a function reads.

    Attributes:
      says: See `Kind`.
      read: Raises any error where it can not read a value.

    Example:
      >>> Read("a whole number in words", int).check("count", "many")
      Traceback (most recent call last):
        ...
      jmrec.errors.SettingError: count=many does not fit; give a whole number in words.
    """

    says: str
    read: Callable[[Any], Any]

    def check(self, name: str, value: Any) -> None:
        """Refuse another value; see `Kind`."""
        try:
            self.read(value)
        except Exception as error:
            raise wrong(name, value, self.says) from error


def under(group: str, table: Settings) -> dict[str, Setting]:
    """Return a table as that of a group.

    Args:
      group: Its dotted name; parts may be ``*``.
      table: The settings in it.

    Example:
      >>> list(under("students.*", {"ids": Setting(Flag(), "Whether ids are read.")}))
      ['students.*.ids']
    """
    return {f"{group}.{name}": setting for name, setting in table.items()}


def find_setting(table: Settings, name: str) -> Setting | None:
    """Return the line of a table that fits a name best, or None.

    Args:
      table: Patterns -> settings.
      name: A dotted name; of several patterns that fit, one with fewer ``*`` goes before.

    Example:
      >>> table = {"a.*": Setting(Flag(), "Any."), "a.b": Setting(Flag(), "This one.")}
      >>> find_setting(table, "a.b").means, find_setting(table, "a.c").means
      ('This one.', 'Any.')
      >>> find_setting(table, "a") is None
      True
    """
    return next((table[each] for each in _patterns(name) if each in table), None)


def check_config(config: ConfigDict | Mapping[str, Any], table: Settings) -> list[str]:
    """Check every setting of a configuration against a table.

    Args:
      config: Nested or flat.
      table: Patterns -> settings.

    Returns:
      The names of settings that stand in no line of the table, of which nothing is known.

    Raises:
      UserError: A setting is not of its kind; named, with what it may be.

    Example:
      >>> table = {"seed": Setting(Whole(0, 9), "Draws everything.")}
      >>> check_config({"seed": 3, "sede": 4}, table)
      ['sede']
      >>> check_config({"seed": 10}, table)
      Traceback (most recent call last):
        ...
      jmrec.errors.SettingError: seed=10 does not fit; give a whole number from 0 to 9.
    """
    try:
        flat = flatten(config)
    except TypeError as error:
        raise SettingError(f"{error}; give numbers, texts, or lists of them.") from None
    unknown = []
    for name, value in flat.items():
        setting = find_setting(table, name)
        if setting is not None:
            setting.kind.check(name, value)
        elif value == {}:
            continue  # a group without settings
        elif (inner := _inside(table, name)) is not None:
            raise SettingError(f"{name} is a group of settings; give it some, such as {inner}.")
        elif (outer := _outside(table, name)) is not None:
            raise SettingError(f"{outer} is one setting and no group; give it a value.")
        else:
            if isinstance(value, float) and not math.isfinite(value):
                raise SettingError(f"{name}={value} is no finite number; give one.")
            unknown.append(name)
    return unknown


def _patterns(name: str) -> Iterator[str]:
    """Yield every pattern that fits a name, those with fewer ``*`` first."""
    parts = name.split(".")
    for count in range(len(parts) + 1):
        for places in itertools.combinations(range(len(parts)), count):
            yield ".".join(ANY if n in places else part for n, part in enumerate(parts))


def _outside(table: Settings, name: str) -> str | None:
    """Return the group of a name that is a setting of a table."""
    parts = name.split(".")
    groups = (".".join(parts[:n]) for n in range(1, len(parts)))
    return next((each for each in groups if find_setting(table, each) is not None), None)


def _inside(table: Settings, name: str) -> str | None:
    """Return a setting of a table that would stand in a group of this name."""
    parts = name.split(".")
    for pattern in table:
        own = pattern.split(".")
        if len(own) > len(parts) and all(a in (ANY, b) for a, b in zip(own, parts)):
            return ".".join([*parts, *own[len(parts) :]])
    return None
