"""The events of a catalogue folder: rows of cells as what they mean.

All that is decided here is decided by a row alone or by what the whole column tells
(`jmrec.data.findings.Evidence`), so that a table can be read in stretches too.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jmrec.data.columns import (
    codes,
    first_filled,
    good_ids,
    labels,
    likeness,
    listed,
    numbers,
    side_by_side,
    texts,
    together,
    without_swallowed,
)
from jmrec.data.description import Description, InteractionColumns, ItemColumns
from jmrec.data.findings import LEFT_OUT, Findings, shown
from jmrec.data.ids import one_spelling, spelt_as_items, visible_ids
from jmrec.data.missing import empty_words
from jmrec.data.owners import Owners
from jmrec.data.several import apart, times_of, together_again
from jmrec.data.sources import Source
from jmrec.data.tables import Table, row_name
from jmrec.data.times import future, say_zones
from jmrec.errors import UserError


@dataclass(frozen=True)
class Events:
    """N events in the file's order.

    Attributes:
      table: The cells that are left.
      item: int32 [N] item rows.
      time: float64 [N] unix seconds, or None.
      order: float64 [N], or None.
      event: int32 [N], 0 where empty.
      event_names: ``event_names[code]``; ``event_names[0]`` is "".
      rating: float32 [N], NaN where empty.
      review: N texts, "" where empty; None where the data has none.
      label: int8 [N], see `jmrec.data.schema.Ratings`; None where the description declares none.
    """

    table: Table
    item: np.ndarray
    time: np.ndarray | None
    order: np.ndarray | None
    event: np.ndarray
    event_names: list[str]
    rating: np.ndarray
    review: list[str] | None
    label: np.ndarray | None


@dataclass(frozen=True)
class Count:
    """How many rows there are; an `Evidence`."""

    rows: int

    def summed(self) -> "Count":
        """Return it as it is."""
        return self

    def merge(self, other: "Count") -> "Count":
        """Return the sum."""
        return Count(self.rows + other.rows)


def columns_of(description: Description, table: str) -> set[str]:
    """Return the names of the columns of "items" or "interactions" that are read."""
    value = description.value.named if table == "items" else set()
    columns = description.items if table == "items" else description.interactions
    return description.sources(columns.named | value)


def texts_of(description: Description, table: str) -> set[str]:
    """Return the names of those whose cells may hold line breaks."""
    if table == "items":
        return description.sources(description.items.text_fields.values())
    return {description.interactions.review}


def as_meant(
    found: Table,
    sources: Sequence[Source],
    description: Description,
    table: str,
    findings: Findings,
    ids: Sequence[str] = (),
) -> Table:
    """Return rows with the columns that a description makes of those of the file.

    Args:
      found: The rows as they were read.
      sources: Their files.
      description: What the columns mean.
      table: "items" or "interactions".
      findings: Gets what is left out or taken as empty.
      ids: Those of the items where the table is one of events.
    """
    columns = description.items if table == "items" else description.interactions
    findings.gather(Count(len(found)), partial(_some_rows, found.file, table))
    id_column = columns.item if isinstance(columns, InteractionColumns) else columns.id
    found = empty_words(found, description.missing, [id_column], findings)
    for name in sorted(columns.named & set(description.joined)):
        parts = description.joined[name]
        if isinstance(columns, ItemColumns):
            found.columns[name] = first_filled(found, parts)
        elif name == columns.session:
            for part in parts:  # before they are one
                found = one_spelling(visible_ids(found, part, findings), part, findings)
            found.columns[name] = together(found, parts)
        else:
            cells = side_by_side([found.columns[part] for part in parts], " ")
            found.columns[name] = pc.utf8_trim_whitespace(cells)
    if isinstance(columns, InteractionColumns) and columns.review:
        whole = [
            without_swallowed(part, columns.review, source, columns.item, ids, findings)
            for part, source in zip(apart(found), sources)
        ]
        found = together_again(found, whole)
    return found


def _some_rows(file: str, table: str, count: Count, _: Findings) -> None:
    if not count.rows:
        raise UserError(
            f"{file} has no rows; give every {'item' if table == 'items' else 'event'} a row."
        )


def read_events(
    table: Table, description: Description, ids: Sequence[str], findings: Findings
) -> Events:
    """Return the events that rows of cells are.

    Args:
      table: The rows, see `as_meant`.
      description: What the columns mean.
      ids: The item ids, in row order.
      findings: Gets what is left out or mended.
    """
    columns, decimal, rule = description.interactions, description.decimal, None
    if columns.item_separator:
        table = listed(table, columns.item, columns.item_separator)
    table = _with_ids(table, description, ids, findings)
    time = order = None
    if columns.time:
        table = _filled(table, columns.time, findings)
        time, bad = times_of(table, columns.time, findings, description.time_format)
        table, time = table.without(bad), np.delete(time, bad)
        say_zones(table, columns.time, findings)
    if columns.order:
        keep = table.rows
        table = _filled(table, columns.order, findings)
        order, bad = numbers(table, columns.order, findings, decimal, LEFT_OUT)
        table, order = table.without(bad), np.delete(order, bad)
        time = None if time is None else time[np.isin(keep, table.rows)]
    if time is not None:
        future(table, columns.time, time, findings.now, findings)
    findings.gather(Count(len(table)), partial(_some_left, table.file))
    none, rule = np.zeros(len(table), np.int32), columns.rule
    (event, event_names), rating, review, label = findings.together(
        lambda: codes(table, columns.event, findings) if columns.event else (none, [""]),
        lambda: numbers(table, columns.rating, findings, decimal)[0] if columns.rating else None,
        lambda: texts(table, columns.review, findings) if columns.review else None,
        lambda: labels(table, rule, findings, decimal) if rule else None,
    )
    rating = np.full(len(table), np.nan) if rating is None else rating
    found = pc.index_in(table.columns[columns.item], value_set=pa.array(ids, pa.string()))
    return Events(
        table=table,
        item=np.asarray(found).astype(np.int32),
        time=time,
        order=order,
        event=event,
        event_names=event_names,
        rating=rating.astype(np.float32),
        review=review,
        label=label,
    )


def _with_ids(
    table: Table, description: Description, ids: Sequence[str], findings: Findings
) -> Table:
    """Return the rows whose ids of an item, a session and a user can be used, each spelt once."""
    columns = description.interactions
    for column in dict.fromkeys([columns.item, columns.session, columns.user]):
        if column:
            # Where sessions are given, nobody has to be known who made them.
            guests = column == columns.user and bool(columns.session)
            table = visible_ids(table, column, findings)
            table = good_ids(table, column, findings, optional=guests)
    names = [name for name in dict.fromkeys([columns.session, columns.user]) if name]
    spelt = findings.together(*(partial(one_spelling, table, name, findings) for name in names))
    once = {name: each.columns[name] for name, each in zip(names, spelt)}
    table = replace(table, columns=table.columns | once)
    table = spelt_as_items(table, columns.item, ids, description.items_file, findings)
    table = _known_items(table, columns.item, ids, description.items_file, findings)
    if columns.session and columns.user:
        table = _one_user(table, columns, findings)
    return table


def _some_left(file: str, count: Count, _: Findings) -> None:
    if not count.rows:
        raise UserError(f"{file}: no row is left; mend the rows or the columns' names.")


def _filled(table: Table, column: str, findings: Findings) -> Table:
    empty = np.flatnonzero(np.asarray(pc.equal(table.columns[column], "")))
    return table.drop(empty, lambda i: f"{column} is empty; fill it in or remove the row", findings)


def _known_items(
    table: Table, column: str, ids: Sequence[str], items_file: str, findings: Findings
) -> Table:
    cells = table.columns[column]
    found = pc.index_in(cells, value_set=pa.array(ids, pa.string()))
    bad = np.flatnonzero(np.asarray(found.is_null()))
    near = {likeness(name): name for name in ids} if len(bad) else {}

    def message(i: int) -> str:
        name = cells[i].as_py()
        same = near.get(likeness(name))
        hint = f", which has {shown(same)}" if same else ""
        return (
            f"the item id {shown(name)} is not in {items_file}{hint}; "
            "add the item or remove the event"
        )

    return table.drop(bad, message, findings)


def _one_user(table: Table, columns: InteractionColumns, findings: Findings) -> Table:
    """Leave out events of a session that has another user; who logs in halfway was the user."""
    session, user = table.columns[columns.session], table.columns[columns.user]
    told = findings.whole(Owners.of(session, user, table.rows))
    other = told.others(session, user)

    def message(i: int) -> str:
        name = session[i].as_py()
        return (
            f"session {shown(name)} belongs to another user in "
            f"{row_name(told.several[name][0], table.files)}; give every session one user, or, "
            "where sessions are numbered user by user, write session = "
            f'["{columns.user}", "{columns.session}"]'
        )

    return table.drop(other, message, findings)
