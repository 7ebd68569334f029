"""Read a catalogue folder: ``items``, ``interactions``, ``images/`` and ``dataset.toml``.

The keys of ``dataset.toml`` are those of `jmrec.data.description`; what becomes of a broken row is
the rule of `jmrec.data.findings`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from jmrec.data.columns import alike, codes, good_ids, join_list, numbers, texts
from jmrec.data.description import Description, describe
from jmrec.data.events import as_meant, columns_of, read_events, texts_of
from jmrec.data.findings import Findings, shown
from jmrec.data.folder_pictures import pictures_by_id, read_pictures, whole_pictures
from jmrec.data.ids import lost_zeros, visible_ids, without_point
from jmrec.data.missing import ids_like_words
from jmrec.data.pictures import BY_ID
from jmrec.data.schema import Items
from jmrec.data.several import read_tables, windows_of
from jmrec.data.sources import open_source
from jmrec.data.tables import Table
from jmrec.data.unused import unused
from jmrec.data.value import read_value

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
        two_classes(raw, raw.label, findings)
    return raw


def two_classes(raw: Raw, label: np.ndarray, findings: Findings) -> None:
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


def _read(
    folder: Path,
    description: Description,
    table: str,
    file: str,
    findings: Findings,
    ids: Sequence[str] = (),
) -> Table:
    """Read a table; ``ids`` are those of the items where it is one of events."""
    form = description.form(table)
    sources = [open_source(folder, table, each, form) for each in description.files(table, file)]
    found = read_tables(
        sources,
        columns_of(description, table),
        findings,
        texts=texts_of(description, table),
        list_separator=description.items.list_separator,
        decimal=description.decimal,
    )
    return as_meant(found, sources, description, table, findings, ids)


def read_items(
    folder: Path, description: Description, findings: Findings
) -> tuple[Table, Items, list[str]]:
    """Read the items of a folder: their table, the catalogue without pictures, and their names."""
    columns = description.items
    # Where the rows are events, what is wrong with one is said when those are read.
    said = Findings() if description.items_of_events else findings
    found = _read(folder, description, "items", description.items_file, said)
    table = good_ids(visible_ids(found, columns.id, said), columns.id, said)
    if description.items_of_events:
        table = _first_of_each(table, columns.id)
    else:
        table = _one_of_each(table, columns.id, findings)
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


def _one_of_each(table: Table, column: str, findings: Findings) -> Table:
    """Return the first row of each item; the others are reported."""
    first: dict[str, int] = {}
    names = table.columns[column].to_pylist()
    keys = [without_point(name) for name in names]
    again = [i for i, key in enumerate(keys) if first.setdefault(key, i) != i]
    cells = list(table.columns.values())
    same = {i for i in again if all(c[i] == c[first[keys[i]]] for c in cells)}
    return table.drop(
        again,
        lambda i: (
            f"the item id {shown(names[i])} stands in {table.row(first[keys[i]])} already; give "
            f"every item one row ({len(same):,} of {len(again):,} such rows are the same in every "
            "cell)"
        ),
        findings,
    )


def _first_of_each(table: Table, column: str) -> Table:
    """Return the first row of each item, of rows that are events."""
    found = table.columns[column].dictionary_encode()
    place: dict[str, int] = {}
    keys = [without_point(name) for name in found.dictionary.to_pylist()]
    key = np.array([place.setdefault(each, len(place)) for each in keys], np.int64)
    _, first = np.unique(key[np.asarray(found.indices)], return_index=True)
    again = np.ones(len(table), bool)
    again[first] = False
    return table.without(np.flatnonzero(again))


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
    found = read_events(table, description, items.ids, findings)
    return Raw(
        description=description,
        items=items,
        item=found.item,
        session=_group(found.table, columns.session),
        user=_users(found.table, columns.user),
        time=found.time,
        order=found.order,
        event=found.event,
        event_names=found.event_names,
        rating=found.rating,
        row=found.table.rows,
        item_row=item_rows,
        picture_names=picture_names,
        review=found.review,
        label=found.label,
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
