"""A folder that has grown: what its data set has to keep of the one that was prepared before."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from jmrec.data.folder import Raw
from jmrec.data.schema import Dataset, take_items
from jmrec.data.sessions import sessionise
from jmrec.errors import UserError

ANEW = "prepare it anew: another --workdir, or --stale=rerun"


@dataclass(frozen=True)
class Before:
    """A data set that another one continues; it names nobody.

    Attributes:
      fingerprint: Its own.
      items: Its item ids, in row order.
      id_items: int32 [K], see `jmrec.data.schema.Dataset`.
      event_names: The same.
      event_top: The highest event type that training had.
      until: The time of its last training event, unix seconds or the place in the file.
    """

    fingerprint: str
    items: list[str]
    id_items: np.ndarray
    event_names: list[str]
    event_top: int
    until: float

    @classmethod
    def of(cls, dataset: Dataset) -> "Before":
        """Return what has to be kept of a data set."""
        train = dataset.splits["train"]
        return cls(
            dataset.fingerprint, list(dataset.items.ids), dataset.id_items,
            list(dataset.event_names), max(dataset.event_top, int(train.events.max(initial=0))),
            float(train.times.max(initial=-np.inf)),
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {**vars(self), "id_items": self.id_items.tolist()}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "Before":
        """Return what `to_json` was given."""
        return cls(**{**found, "id_items": np.array(found["id_items"], np.int32)})


def in_old_rows(raw: Raw, before: Before) -> Raw:
    """Return a folder whose items, and types of events, begin with those of before.

    Args:
      raw: The folder, with old items anywhere.
      before: What it has to keep.

    Returns:
      The folder: old items in their old rows, new ones after them in the order of the file.

    Raises:
      UserError: An item is gone.
    """
    place = {item: row for row, item in enumerate(raw.items.ids)}
    if gone := [item for item in before.items if item not in place]:
        raise UserError(
            f"{raw.description.items_file}: {len(gone):,} items of before are gone, such as "
            f"{gone[0]!r}, so that nothing can continue; put them back (an item that is not sold "
            f"any more has a date in available_until), or {ANEW}."
        )
    old = [place[item] for item in before.items]
    known = set(before.items)
    rows = np.array(old + [row for item, row in place.items() if item not in known], np.int64)
    back = np.empty(len(rows), np.int64)
    back[rows] = np.arange(len(rows))
    names = [*before.event_names, *(n for n in raw.event_names if n not in before.event_names)]
    code = np.array([names.index(name) for name in raw.event_names], np.int32)
    return replace(
        raw, items=take_items(raw.items, rows.tolist()), item=back[raw.item].astype(np.int32),
        item_row=raw.item_row[rows], picture_names=[raw.picture_names[row] for row in rows],
        event=code[raw.event], event_names=names,
    )  # fmt: skip


def with_old_ids(dataset: Dataset, before: Before) -> Dataset:
    """Return a data set in whose tables of ids old items keep their rows; new ones come after.

    Raises:
      UserError: Training has new types of events.
    """
    top = int(dataset.splits["train"].events.max(initial=0))
    if top > before.event_top:
        raise UserError(
            f"training has events of a new type, {dataset.event_names[top]!r}, for which the "
            f"models have no place; {ANEW}."
        )
    new = np.setdiff1d(dataset.id_items, before.id_items)
    rows = np.concatenate([before.id_items, new]).astype(np.int32)
    return replace(dataset, id_items=rows, event_top=before.event_top)


def check_split(dataset: Dataset, before: Before) -> None:
    """Check that nothing is asked in validation and test from which somebody has learned before.

    Raises:
      UserError: A target there is not later than the last training event of before.
    """
    for name in ("validation", "test"):
        part = dataset.splits[name]
        early = int((part.times[part.predicted] < before.until).sum())
        if early:
            raise UserError(
                f"{early:,} targets of {name} are earlier than what was learned from before, so "
                "that a result would be too good: the new rows are older than the old ones, or the "
                f"split is not by time; {ANEW}."
            )


def check_grown(old: Dataset, raw: Raw) -> None:
    """Check that a folder holds all that its data set held.

    Args:
      old: The data set of before.
      raw: The folder now, as `in_old_rows` returns it.

    Raises:
      UserError: Rows are gone or were edited.
    """
    every = sessionise(raw)
    held: dict[str, set[tuple[int, float]]] = {}
    for at, name in enumerate(every.ids):
        own = slice(every.offsets[at], every.offsets[at + 1])
        held.setdefault(name, set()).update(zip(every.items[own], every.times[own]))
    for part in old.splits.values():
        for at, name in enumerate(part.ids):
            own = slice(part.offsets[at], part.offsets[at + 1])
            if not set(zip(part.items[own], part.times[own])) <= held.get(name, set()):
                raise UserError(
                    f"rows of before are gone or were edited (one of them is of session {name!r}), "
                    f"so that nothing can continue; put them back, or {ANEW}."
                )
