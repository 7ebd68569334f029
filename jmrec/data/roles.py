"""The columns of a catalogue folder, by what they are for."""

from dataclasses import dataclass

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
