"""The writers by name."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jmrec.config import choose
from jmrec.systems.mmrec.writers.caption import Caption
from jmrec.systems.mmrec.writers.extract import Extract
from jmrec.systems.mmrec.writers.labels import Labels
from jmrec.systems.mmrec.writers.llm import Llm
from jmrec.systems.mmrec.writers.writer import Source, Writer, in_order, settings_of


@dataclass(frozen=True)
class Silent:
    """The writer "none": every text is empty."""

    @property
    def provenance(self) -> dict[str, str]:
        """Its name."""
        return {"writer": "none"}

    def batches(self, sources: Sequence[Source]) -> list[list[int]]:
        """Return one batch."""
        return in_order(len(sources), max(len(sources), 1))

    def write(self, sources: Sequence[Source]) -> list[str]:
        """Return "" for each source."""
        return [""] * len(sources)


KINDS: dict[str, type] = {
    "none": Silent,
    "extract": Extract,
    "labels": Labels,
    "llm": Llm,
    "caption": Caption,
}
"""Name -> the frozen dataclass that is a writer, whose fields are its settings."""


def make_writer(name: str, settings: Mapping[str, Any]) -> Writer:
    """Return the writer of a name; no weights are read before it writes.

    Args:
      name: A key of `WRITERS`.
      settings: Fields of the writer -> plain values; those that are not given keep their defaults.

    Raises:
      UserError: There is no such writer, or a setting makes no sense.

    Example:
      >>> reviews = ("A red mug.", "A good mug. It is red.", "Cheap.")
      >>> writer = make_writer("extract", {"sentences": 1})
      >>> writer.write([Source("mug", reviews=reviews), Source("cup")])
      ['A red mug.', '']
    """
    made: Writer = settings_of(KINDS[choose("describe.writer", name, tuple(KINDS))], name, settings)
    return made


def _factory(name: str) -> Callable[[Mapping[str, Any]], Writer]:
    return lambda settings: make_writer(name, settings)


WRITERS: dict[str, Callable[[Mapping[str, Any]], Writer]] = {name: _factory(name) for name in KINDS}
"""Name -> ``settings -> writer``."""
