"""Read a catalogue folder: ``items``, ``interactions``, ``images/`` and ``dataset.toml``.

The keys of ``dataset.toml`` are those of `jmrec.data.description`; what becomes of a broken row is
the rule of `jmrec.data.findings`.
"""

import time as clock
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jmrec.data.columns import (
    alike,
    codes,
    first_filled,
    good_ids,
    join_list,
    labels,
    likeness,
    listed,
    numbers,
    texts,
    together,
    without_swallowed,
)
from jmrec.data.description import Description, InteractionColumns, ItemColumns, describe
from jmrec.data.findings import LEFT_OUT, Findings, shown
from jmrec.data.folder_pictures import pictures_by_id, read_pictures, whole_pictures
from jmrec.data.ids import (
    lost_zeros,
    one_spelling,
    spelt_as_items,
    visible_ids,
    without_point,
)
from jmrec.data.missing import empty_words, ids_like_words
from jmrec.data.pictures import BY_ID
from jmrec.data.schema import Items
from jmrec.data.several import apart, read_tables, times_of, together_again, windows_of
from jmrec.data.sources import open_source
from jmrec.data.tables import Table
from jmrec.data.times import future, say_zones
from jmrec.data.unused import unused
from jmrec.data.value import read_value
from jmrec.errors import UserError

__all__ = ["Description", "Raw", "describe", "read_folder"]


@dataclass(frozen=True)
class Raw:
    """A validated catalogue folder, events in the file's order.

    Attributes:
      description: What the columns mean.
      items: The catalogue; pictures as they are on disk.
      item: int32 [N] item rows.
      session: Session names: (codes int32 [N], names); None where the data has none.
      user: User names: (codes int32 [N], -1 for a guest, names); None where the data has none.
      time: float64 [N] unix seconds, or None.
      order: float64 [N], or None.
      event: int32 [N], 0 where empty.
      event_names: ``event_names[code]``; ``event_names[0]`` is "".
      rating: float32 [N], NaN where empty.
      row: int64 [N], the row numbers of the events, see `jmrec.data.tables.Table`.
      item_row: int64 [V], those of the items.
      picture_names: V cells of the picture column, "" where missing.
      given_test: bool [N], the events of a test split that is given; None where none is.
      review: N texts, "" where empty; None where the data has none.
      label: int8 [N], see `jmrec.data.schema.Ratings`; None where the description declares none.
      warnings: What was left out or mended, one sentence a kind of fault, with its count.
      words: Word for nothing -> how many cells it filled.
    """

    description: Description
    items: Items
    item: np.ndarray
    session: tuple[np.ndarray, list[str]] | None
    user: tuple[np.ndarray, list[str]] | None
    time: np.ndarray | None
    order: np.ndarray | None
    event: np.ndarray
    event_names: list[str]
    rating: np.ndarray
    row: np.ndarray
    item_row: np.ndarray
    picture_names: list[str]
    given_test: np.ndarray | None = None
    review: list[str] | None = None
    label: np.ndarray | None = None
    warnings: list[str] = field(default_factory=list)
    words: dict[str, int] = field(default_factory=dict)


def read_folder(
    folder: str | Path,
    toml: str | Path | None = None,
    *,
    check_pictures: bool = True,
    strict: bool = False,
) -> Raw:
    """Read and validate a whole catalogue folder.

    Args:
      folder: The catalogue folder.
      toml: A description to use instead of ``folder/dataset.toml``.
      check_pictures: Whether to decode every picture, so that a broken one is found here.
      strict: Whether a broken row is an error; else it is left out and counted in the warnings.

    Returns:
      The items and the events as columns.

    Raises:
      UserError: one sentence with file, row and remedy, at the first thing that is wrong.
    """
    folder = Path(folder)
    description = describe(folder, toml)
    findings = Findings(strict)
    for sentence in unused(description):
        findings.note(sentence)
    table, items, names = read_items(folder, description, findings)
    under = description.items.pictures
    items = replace(items, pictures=read_pictures(folder, table, names, findings, under))
    if check_pictures:
        items = replace(items, pictures=whole_pictures(table, items.pictures, names, findings))
    file = description.interactions_file
    raw = read_interactions(folder, description, file, table.rows, items, names, findings)
    if description.test_file:
        file = description.test_file
        raw = join_splits(
            raw, read_interactions(folder, description, file, table.rows, items, names, findings)
        )
    if raw.user is not None and not raw.user[1]:
        raw = replace(raw, user=None)  # guests alone
    pa.default_memory_pool().release_unused()  # the texts are as large as the files
    if raw.label is not None:
        _two_classes(raw, raw.label, findings)
    return raw


def _two_classes(raw: Raw, label: np.ndarray, findings: Findings) -> None:
    """Report labels (int8 [N]) that can not be told apart."""
    columns = raw.description.interactions
    known = np.unique(label[label >= 0])
    if len(known) == 2:
        return
    says = f"is {known[0]} in every row that has it" if len(known) else "is known of no row"
    findings.note(
        f"{raw.description.interactions_file}: the label {shown(columns.label, 80)} {says}, so no "
        "model can learn it; check its column and its rule"
    )


def used_columns(columns: ItemColumns | InteractionColumns) -> set[str]:
    """Return the names of the columns that are read, but for those of [value]."""
    return columns.named


def _read(
    folder: Path,
    description: Description,
    table: str,
    file: str,
    findings: Findings,
    ids: Sequence[str] = (),
) -> Table:
    """Read a table; ``ids`` are those of the items where it is one of events."""
    columns = description.items if table == "items" else description.interactions
    value = description.value.named if table == "items" else set()
    long = description.items.text_fields.values()
    form = description.form(table)
    sources = [open_source(folder, table, each, form) for each in description.files(table, file)]
    found = read_tables(
        sources,
        description.sources(used_columns(columns) | value),
        findings,
        texts=description.sources(long) if table == "items" else [description.interactions.review],
        list_separator=description.items.list_separator,
        decimal=description.decimal,
    )
    if not len(found):
        raise UserError(
            f"{found.file} has no rows; give every {'item' if table == 'items' else 'event'} a row."
        )
    id_column = columns.item if isinstance(columns, InteractionColumns) else columns.id
    found = empty_words(found, description.missing, [id_column], findings)
    for name in used_columns(columns) & set(description.joined):
        parts = description.joined[name]
        if isinstance(columns, ItemColumns):
            found.columns[name] = first_filled(found, parts)
        elif name == columns.session:
            for part in parts:  # before they are one
                found = one_spelling(visible_ids(found, part, findings), part, findings)
            found.columns[name] = together(found, parts)
        else:
            cells = pc.binary_join_element_wise(*(found.columns[part] for part in parts), " ")
            found.columns[name] = pc.utf8_trim_whitespace(cells)
    if isinstance(columns, InteractionColumns) and columns.review:
        whole = [
            without_swallowed(part, columns.review, source, columns.item, ids, findings)
            for part, source in zip(apart(found), sources)
        ]
        found = together_again(found, whole)
    return found


def read_items(
    folder: Path, description: Description, findings: Findings
) -> tuple[Table, Items, list[str]]:
    """Read the items of a folder: their table, the catalogue without pictures, and their names."""
    columns = description.items
    found = _read(folder, description, "items", description.items_file, findings)
    table = good_ids(visible_ids(found, columns.id, findings), columns.id, findings)
    first: dict[str, int] = {}
    names = table.columns[columns.id].to_pylist()
    keys = [without_point(name) for name in names]
    again = [i for i, key in enumerate(keys) if first.setdefault(key, i) != i]
    cells = list(table.columns.values())
    same = {i for i in again if all(c[i] == c[first[keys[i]]] for c in cells)}
    table = table.drop(
        again,
        lambda i: (
            f"the item id {shown(names[i])} stands in {table.row(first[keys[i]])} already; give "
            f"every item one row ({len(same):,} of {len(again):,} such rows are the same in every "
            "cell)"
        ),
        findings,
    )
    names = table.columns[columns.id].to_pylist()
    alike(table, names, columns.id, findings)
    lost_zeros(table, columns.id, findings)
    ids_like_words(table, columns.id, description.missing, findings)
    text = {}
    for name, column in columns.text_fields.items():
        cells = texts(table, column, findings) if column else [""] * len(table)
        if column and column in columns.list_columns:
            cells = join_list(cells, columns.list_separator)
        text[name] = cells
    category, category_names = {}, {}
    for column in columns.category_columns:
        category[column], category_names[column] = codes(table, column, findings)
    start, end = windows_of(table, description, findings)
    number = {
        column: numbers(table, column, findings, description.decimal)[0]
        for column in columns.number_columns
    }
    items = Items(
        ids=names,
        titles=text["title"],
        text=text,
        pictures=[],
        category=category,
        category_names=category_names,
        number={name: values.astype(np.float32) for name, values in number.items()},
        available_from=start,
        available_until=end,
        value=read_value(table, description, number, findings),
    )
    pictures = [""] * len(table)
    if columns.picture == BY_ID:
        pictures = pictures_by_id(folder, names, findings, columns.pictures)
    elif columns.picture:
        pictures = table.columns[columns.picture].to_pylist()
    return table, items, pictures


def read_interactions(
    folder: Path,
    description: Description,
    file: str,
    item_rows: np.ndarray,
    items: Items,
    picture_names: list[str],
    findings: Findings,
) -> Raw:
    """Read the events of a folder; see `read_folder`."""
    columns = description.interactions
    table = _read(folder, description, "interactions", file, findings, items.ids)
    if columns.item_separator:
        table = listed(table, columns.item, columns.item_separator)
    for column in dict.fromkeys([columns.item, columns.session, columns.user]):
        if column:
            # Where sessions are given, nobody has to be known who made them.
            guests = column == columns.user and bool(columns.session)
            table = visible_ids(table, column, findings)
            table = good_ids(table, column, findings, optional=guests)
    for column in filter(None, (columns.session, columns.user)):
        table = one_spelling(table, column, findings)
    table = spelt_as_items(table, columns.item, items.ids, description.items_file, findings)
    table = _known_items(table, columns.item, items, description.items_file, findings)
    if columns.session and columns.user:
        table = _one_user(table, columns, findings)
    time = order = None
    if columns.time:
        table = _filled(table, columns.time, findings)
        time, bad = times_of(table, columns.time, findings, description.time_format)
        table, time = table.without(bad), np.delete(time, bad)
        say_zones(table, columns.time, findings)
    if columns.order:
        keep = table.rows
        table = _filled(table, columns.order, findings)
        order, bad = numbers(table, columns.order, findings, description.decimal, LEFT_OUT)
        table, order = table.without(bad), np.delete(order, bad)
        time = None if time is None else time[np.isin(keep, table.rows)]
    if time is not None:
        future(table, columns.time, time, clock.time(), findings)
    if not len(table):
        raise UserError(f"{table.file}: no row is left; mend the rows or the columns' names.")
    event, event_names = np.zeros(len(table), np.int32), [""]
    if columns.event:
        event, event_names = codes(table, columns.event, findings)
    rating = np.full(len(table), np.nan)
    if columns.rating:
        rating, _ = numbers(table, columns.rating, findings, description.decimal)
    rule, decimal = columns.rule, description.decimal
    found = pc.index_in(table.columns[columns.item], value_set=pa.array(items.ids))
    return Raw(
        description=description,
        items=items,
        item=np.asarray(found).astype(np.int32),
        session=_group(table, columns.session),
        user=_users(table, columns.user),
        time=time,
        order=order,
        event=event,
        event_names=event_names,
        rating=rating.astype(np.float32),
        row=table.rows,
        item_row=item_rows,
        picture_names=picture_names,
        review=texts(table, columns.review, findings) if columns.review else None,
        label=labels(table, rule, findings, decimal) if rule else None,
        warnings=findings.warnings,
        words=findings.words,
    )


def join_splits(train: Raw, test: Raw) -> Raw:
    """Return the events of both, those of the test split last; no session is in both."""
    assert train.session is not None  # describe() asks for them
    assert test.session is not None
    codes, names = train.session
    more, others = test.session
    users = None
    if train.user is not None and test.user is not None:
        users = _one_coding(train.user, test.user)
    event, event_names = _one_coding(
        (train.event, train.event_names), (test.event, test.event_names)
    )

    def both(a: np.ndarray | None, b: np.ndarray | None) -> np.ndarray | None:
        return None if a is None or b is None else np.concatenate([a, b])

    return replace(
        train,
        item=np.concatenate([train.item, test.item]),
        session=(
            np.concatenate([codes, more + len(names)]),
            names + [f"test:{name}" for name in others],
        ),
        user=users,
        time=both(train.time, test.time),
        order=both(train.order, test.order),
        event=event.astype(np.int32),
        event_names=event_names,
        rating=np.concatenate([train.rating, test.rating]),
        row=np.concatenate([train.row, test.row]),
        given_test=np.arange(len(train.item) + len(test.item)) >= len(train.item),
        review=None if train.review is None else train.review + (test.review or []),
        label=both(train.label, test.label),
    )


def _one_coding(
    first: tuple[np.ndarray, list[str]], second: tuple[np.ndarray, list[str]]
) -> tuple[np.ndarray, list[str]]:
    """Return the codes of both, one after the other, with one list of names."""
    names = first[1] + sorted(set(second[1]) - set(first[1]))
    code = {name: at for at, name in enumerate(names)}
    own = np.array([code[name] for name in second[1]], np.int64)
    return np.concatenate([first[0], np.append(own, -1)[second[0]]]), names  # -1 stays -1


def _filled(table: Table, column: str, findings: Findings) -> Table:
    empty = np.flatnonzero(np.asarray(pc.equal(table.columns[column], "")))
    return table.drop(empty, lambda i: f"{column} is empty; fill it in or remove the row", findings)


def _known_items(
    table: Table, column: str, items: Items, items_file: str, findings: Findings
) -> Table:
    cells = table.columns[column]
    found = pc.index_in(cells, value_set=pa.array(items.ids, pa.string()))
    bad = np.flatnonzero(np.asarray(found.is_null()))
    near = {likeness(name): name for name in items.ids} if len(bad) else {}

    def message(i: int) -> str:
        name = cells[i].as_py()
        same = near.get(likeness(name))
        hint = f", which has {shown(same)}" if same else ""
        return (
            f"the item id {shown(name)} is not in {items_file}{hint}; "
            "add the item or remove the event"
        )

    return table.drop(bad, message, findings)


def _group(table: Table, column: str) -> tuple[np.ndarray, list[str]] | None:
    """Return (codes int32 [N], names) of a column, None where the data has none."""
    if not column:
        return None
    encoded = table.columns[column].dictionary_encode()
    return np.asarray(encoded.indices), encoded.dictionary.to_pylist()


def _users(table: Table, column: str) -> tuple[np.ndarray, list[str]] | None:
    """Return (codes int32 [N], -1 for a guest, names) of the users, None without the column."""
    found = _group(table, column)
    if found is None or "" not in found[1]:
        return found
    codes, names = found
    guest = names.index("")
    codes = np.where(codes == guest, -1, codes - (codes > guest))
    return codes, [name for name in names if name]


def _one_user(table: Table, columns: InteractionColumns, findings: Findings) -> Table:
    """Leave out events of a session that has another user; who logs in halfway was the user."""
    session_group, user_group = _group(table, columns.session), _users(table, columns.user)
    assert session_group is not None  # both columns are there
    assert user_group is not None
    (session, names), (user, _) = session_group, user_group
    known = np.flatnonzero(user >= 0)[::-1]
    first = np.full(len(names), -1)
    first[session[known]] = known
    other = np.flatnonzero((user >= 0) & (user != user[first[session]]))
    return table.drop(
        other,
        lambda i: (
            f"session {shown(names[session[i]])} belongs to another user in "
            f"{table.row(first[session[i]])}; give every session one user, or, where sessions are "
            f'numbered user by user, write session = ["{columns.user}", "{columns.session}"]'
        ),
        findings,
    )
