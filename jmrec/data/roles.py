"""The columns of a catalogue folder, by what they are for."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jmrec.data.pictures import BY_ID, IMAGES
from jmrec.data.rule import Rule, read_rule
from jmrec.data.schema import AVOID

NO_COLUMNS = ("item_separator", "label_means", "target_events")
"""The keys of [interactions] that name no column."""


@dataclass(frozen=True)
class ItemColumns:
    """The [items] table of a description; ``""`` means that the data has no such column."""

    id: str = "item_id"
    title: str = "title"
    description: str = "description"
    picture: str = "image"
    pictures: str = IMAGES
    available_from: str = "available_from"
    available_until: str = "available_until"
    text_columns: tuple[str, ...] = ()
    category_columns: tuple[str, ...] = ()
    number_columns: tuple[str, ...] = ()
    list_columns: tuple[str, ...] = ()
    list_separator: str = "|"
    never_use: tuple[str, ...] = ()

    @property
    def text_fields(self) -> dict[str, str]:
        """Text field name -> column; title and description go by their role."""
        named = {"title": self.title, "description": self.description}
        return {k: v for k, v in named.items() if v or k == "title"} | {
            name: name for name in self.text_columns
        }

    @property
    def named(self) -> set[str]:
        """The names of the columns that are read."""
        picture = "" if self.picture == BY_ID else self.picture
        names = {self.id, picture, self.available_from, self.available_until}
        names |= {*self.text_fields.values(), *self.category_columns, *self.number_columns}
        return names - {""}


@dataclass(frozen=True)
class InteractionColumns:
    """The [interactions] table of a description; ``""`` means no such column.

    With an ``item_separator`` a row is a session, whose cell of items lists them in order.
    """

    item: str = "item_id"
    session: str = "session_id"
    user: str = "user_id"
    time: str = "timestamp"
    event: str = "event"
    rating: str = "rating"
    order: str = "order"
    review: str = "review"
    label: str = ""
    label_means: str = AVOID
    item_separator: str = ""
    target_events: tuple[str, ...] = ()

    @property
    def rule(self) -> Rule | None:
        """When the label occurs; None where the data has none."""
        return read_rule(self.label) if self.label else None

    @property
    def named(self) -> set[str]:
        """The names of the columns that are read."""
        names = {k: v for k, v in vars(self).items() if k not in NO_COLUMNS}
        names["label"] = self.rule.column if self.rule else ""
        return set(names.values()) - {""}


@dataclass(frozen=True)
class ValueColumns:
    """The [value] table of a description: what a sale of an item brings.

    Attributes:
      column: A column of items, what one is sold at; "" where nothing is said.
      share: The part of it that is gained.
      gain: A column of items, what is gained of one in the same currency; "" where it is a share.
    """

    column: str = ""
    share: float = 1.0
    gain: str = ""

    @property
    def named(self) -> set[str]:
        """The names of the columns that are read."""
        return {self.column, self.gain} - {""}

    def fault(self, given: Mapping[str, Any]) -> str:
        """Return what is wrong with the table as it was written, in words; "" where nothing is.

        Example:
          >>> ValueColumns("price", 30.0).fault({"share": 30})
          'share must be above 0 and at most 1; write 0.3 for 30 %'
        """
        if not self.column:
            return 'it needs the column of what an item is sold at; write column = "..."'
        if not 0 < self.share <= 1:
            part = f"{self.share / 100:g}" if 1 < self.share <= 100 else "0.3"
            return f"share must be above 0 and at most 1; write {part} for {100 * float(part):g} %"
        if self.gain and "share" in given:
            return "share and gain both say what is gained; take one of them out"
        if self.gain == self.column:
            return "gain names the column itself; leave it out where all of it is gained"
        return ""
