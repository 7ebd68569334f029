"""What every writer has: one text for each item (or user), made of what is known of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from jmrec.config import config_from
from jmrec.errors import SettingError


@dataclass(frozen=True)
class Source:
    """What one text is made of.

    Attributes:
      key: A stable id, such as "item 318 after 16".
      title: Of the item; "" for a user.
      facts: The item's own texts, on one line.
      reviews: Earlier reviews, oldest first.
      picture: Encoded bytes, b"" where there is none.
    """

    key: str
    title: str = ""
    facts: str = ""
    reviews: tuple[str, ...] = ()
    picture: bytes = b""


class Writer(Protocol):
    """Turns sources into texts."""

    @property
    def provenance(self) -> dict[str, str]:
        """Whatever decides the texts: name, settings, prompt, hashes of the weights."""

    def batches(self, sources: Sequence[Source]) -> list[list[int]]:
        """Return which sources are best written together, as their places; each stands once."""

    def write(self, sources: Sequence[Source]) -> list[str]:
        """Return a text of one line for each source; "" where there is nothing to say.

        A text depends on its own source alone, not on those beside it.
        """


def in_order(count: int, size: int) -> list[list[int]]:
    """Return batches of ``size`` in the order of the sources.

    Example:
      >>> in_order(5, 2)
      [[0, 1], [2, 3], [4]]
    """
    return [list(range(start, min(start + size, count))) for start in range(0, count, size)]


def one_line(text: str) -> str:
    """Return a text without line breaks, control characters and repeated spaces.

    Example:
      >>> one_line(" a\\tred\\x00 mug\\u2028\\nof  wood ")
      'a red mug of wood'
    """
    shown = "".join(each if each.isprintable() else " " for each in text)
    return " ".join(shown.split())


def settings_of(kind: Any, name: str, settings: Mapping[str, Any]) -> Any:
    """Return a writer's settings as its frozen dataclass, every field checked.

    Args:
      kind: The dataclass.
      name: The writer's, for messages.
      settings: Field -> plain value; fields that are not given keep their defaults.

    Raises:
      SettingError: A field is unknown, of another type or out of its range.

    Example:
      >>> from dataclasses import make_dataclass
      >>> Short = make_dataclass("Short", [("words", int, 3)])
      >>> settings_of(Short, "short", {"words": 5})
      Short(words=5)
    """
    return config_from(kind, dict(settings), f"describe.{name}")


def at_least(name: str, value: float, least: float) -> None:
    """Refuse a number that is too small.

    Raises:
      SettingError: It is.

    Example:
      >>> at_least("batch", 0, 1)
      Traceback (most recent call last):
        ...
      jmrec.errors.SettingError: batch is 0; give at least 1.
    """
    if not value >= least:
        raise SettingError(f"{name} is {value}; give at least {least}.")
