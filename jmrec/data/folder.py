"""Read a catalogue folder: ``items.csv``, ``interactions.csv``, ``images/`` and ``dataset.toml``.

The keys of ``dataset.toml`` are those of `jmrec.data.description`.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jmrec.data.description import Description, ItemColumns, describe
from jmrec.data.pictures import picture_problem
from jmrec.data.schema import Items
from jmrec.data.tables import Table, read_table
from jmrec.errors import UserError

__all__ = ["Description", "Raw", "describe", "read_folder", "verify_pictures"]

TIME_LIMIT = 1e11
"""Unix seconds beyond this (the year 5138) are taken for milliseconds and refused."""


@dataclass(frozen=True)
class Raw:
    """A validated catalogue folder, events in the file's order.

    Attributes:
      description: What the columns mean.
      items: The catalogue; pictures as they are on disk.
      item: int32 [N] item rows.
      session: Session names: (codes int64 [N], names); None where the data has none.
      user: User names: (codes int64 [N], names); None where the data has none.
      time: float64 [N] unix seconds, or None.
      order: float64 [N], or None.
      event: int32 [N], 0 where empty.
      event_names: ``event_names[code]``; ``event_names[0]`` is "".
      rating: float32 [N], NaN where empty.
      row: int64 [N], the row numbers of the events in a spreadsheet.
      item_row: int64 [V], those of the items.
      picture_names: V cells of the picture column, "" where missing.
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


def read_folder(
    folder: str | Path, toml: str | Path | None = None, *, check_pictures: bool = True
) -> Raw:
    """Read and validate a whole catalogue folder.

    Args:
      folder: The catalogue folder.
      toml: A description to use instead of ``folder/dataset.toml``.
      check_pictures: Whether to decode every picture, so that a broken one is found here.

    Returns:
      The items and the events as columns.

    Raises:
      UserError: one sentence with file, row and remedy, at the first thing that is wrong.
    """
    folder = Path(folder)
    description = describe(folder, toml)
    raw = _read_interactions(folder, description, *_read_items(folder, description.items))
    if check_pictures:
        verify_pictures(raw)
    return raw


def verify_pictures(raw: Raw) -> None:
    """Decode every picture once.

    Raises:
      UserError: naming the first item whose picture does not decode.
    """
    with ThreadPoolExecutor() as pool:
        for i, problem in enumerate(pool.map(picture_problem, raw.items.pictures)):
            if problem:
                raise UserError(
                    f"items.csv, row {raw.item_row[i]}: the picture {raw.picture_names[i]!r} "
                    f"{problem}; mend the file or empty the cell."
                )


def _read_items(folder: Path, columns: ItemColumns) -> tuple[Table, Items, pa.Array, list[str]]:
    table = read_table(folder / "items.csv")
    if not len(table):
        raise UserError("items.csv has no rows; give every item a row.")
    ids = table.columns[columns.id]
    _no_empty(table, ids, columns.id)
    first: dict[str, int] = {}
    names = ids.to_pylist()
    for i, name in enumerate(names):
        if first.setdefault(name, i) != i:
            raise table.fail(
                i,
                f"the item id {name!r} stands in row {table.rows[first[name]]} already; "
                "give every item one row.",
            )
    text = {}
    for name, column in columns.text_fields.items():
        cells = table.columns[column].to_pylist() if column else [""] * len(table)
        if column and column in columns.list_columns:
            cells = [_join(cell, columns.list_separator) for cell in cells]
        text[name] = cells
    category, category_names = {}, {}
    for column in columns.category_columns:
        category[column], category_names[column] = _codes(table.columns[column])
    picture_names = (
        table.columns[columns.picture].to_pylist() if columns.picture else [""] * len(table)
    )
    items = Items(
        ids=names,
        titles=text["title"],
        text=text,
        pictures=_read_pictures(folder, table, picture_names),
        category=category,
        category_names=category_names,
        number={c: _floats(table, c).astype(np.float32) for c in columns.number_columns},
    )
    return table, items, ids, picture_names


def _read_interactions(
    folder: Path,
    description: Description,
    item_table: Table,
    items: Items,
    ids: pa.Array,
    picture_names: list[str],
) -> Raw:
    columns = description.interactions
    table = read_table(folder / "interactions.csv")
    if not len(table):
        raise UserError("interactions.csv has no rows; give every event a row.")
    _no_empty(table, table.columns[columns.item], columns.item)
    found = pc.index_in(table.columns[columns.item], value_set=ids)
    if found.null_count:
        i = int(np.flatnonzero(np.asarray(found.is_null()))[0])
        name = table.columns[columns.item][i].as_py()
        raise table.fail(
            i, f"the item id {name!r} is not in items.csv; add the item or remove the event."
        )
    groups: dict[str, tuple[np.ndarray, list[str]]] = {}
    for role, column in [("session", columns.session), ("user", columns.user)]:
        if column:
            _no_empty(table, table.columns[column], column)
            encoded = table.columns[column].dictionary_encode()
            groups[role] = (
                np.asarray(encoded.indices).astype(np.int64),
                encoded.dictionary.to_pylist(),
            )
    if len(groups) == 2:
        _one_user(table, *groups["session"], groups["user"][0])
    none = np.full(len(table), np.nan, np.float32)
    event, event_names = np.zeros(len(table), np.int32), [""]
    if columns.event:
        event, event_names = _codes(table.columns[columns.event])
    order = None
    if columns.order:
        _no_empty(table, table.columns[columns.order], columns.order)
        order = _floats(table, columns.order)
    return Raw(
        description=description,
        items=items,
        item=np.asarray(found).astype(np.int32),
        session=groups.get("session"),
        user=groups.get("user"),
        time=_times(table, columns.time) if columns.time else None,
        order=order,
        event=event,
        event_names=event_names,
        rating=_floats(table, columns.rating).astype(np.float32) if columns.rating else none,
        row=table.rows,
        item_row=item_table.rows,
        picture_names=picture_names,
    )


def _no_empty(table: Table, cells: pa.Array, column: str) -> None:
    empty = np.flatnonzero(np.asarray(pc.equal(cells, "")))
    if len(empty):
        raise table.fail(int(empty[0]), f"{column} is empty; fill it in or remove the row.")


def _one_user(table: Table, session: np.ndarray, names: list[str], user: np.ndarray) -> None:
    first = np.full(len(names), -1)
    first[session[::-1]] = np.arange(len(session))[::-1]
    other = np.flatnonzero(user != user[first[session]])
    if len(other):
        i = int(other[0])
        raise table.fail(
            i,
            f"session {names[session[i]]!r} belongs to another user in row "
            f"{table.rows[first[session[i]]]}; give every session one user.",
        )


def _join(cell: str, separator: str) -> str:
    return ", ".join(part.strip() for part in cell.split(separator) if part.strip())


def _codes(cells: pa.Array) -> tuple[np.ndarray, list[str]]:
    """Return int32 codes (0 is "") and names, in the order of the names."""
    names = ["", *sorted(set(cells.to_pylist()) - {""})]
    return np.asarray(pc.index_in(cells, value_set=pa.array(names))).astype(np.int32), names


def _floats(table: Table, column: str) -> np.ndarray:
    """Return float64 values, NaN where a cell is empty."""
    cells = table.columns[column].to_pylist()
    out = np.full(len(cells), np.nan)
    for i, cell in enumerate(cells):
        if cell:
            try:
                out[i] = float(cell)
            except ValueError:
                out[i] = np.inf
            if not abs(out[i]) < np.finfo(np.float32).max:
                raise table.fail(
                    i, f"{column} is {cell[:40]!r}, not a number; write a number or leave it empty."
                )
    return out


def _times(table: Table, column: str) -> np.ndarray:
    _no_empty(table, table.columns[column], column)
    cells = table.columns[column].to_pylist()
    out = np.empty(len(cells))
    for i, cell in enumerate(cells):
        try:
            out[i] = float(cell)
        except ValueError:
            try:
                out[i] = _iso(cell)
            except (ValueError, OverflowError):
                out[i] = np.nan
        if not np.isfinite(out[i]):
            raise table.fail(
                i,
                f"{column} is {cell[:40]!r}, not a time; write unix seconds or ISO 8601 like "
                "2026-11-21T18:05:00Z.",
            )
        if abs(out[i]) > TIME_LIMIT:
            raise table.fail(
                i, f"{column} is {cell[:40]!r}, too large for unix seconds; divide by 1000 or more."
            )
    return out


def _iso(cell: str) -> float:
    time = datetime.fromisoformat(cell)
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()


def _read_pictures(folder: Path, table: Table, names: list[str]) -> list[bytes]:
    images = (folder / "images").resolve()
    return [
        _picture(images, table, i, name.removeprefix("images/")) if name else b""
        for i, name in enumerate(names)
    ]


def _picture(images: Path, table: Table, index: int, name: str) -> bytes:
    try:
        path = (images / name).resolve()
        if not path.is_relative_to(images) or Path(name).is_absolute():
            raise table.fail(
                index, f"the picture {name[:80]!r} lies outside images/; give a path under images/."
            )
        data = path.read_bytes()
    except (OSError, ValueError, RuntimeError):  # missing, a folder, a name no system allows
        raise table.fail(
            index,
            f"the picture {name[:80]!r} can not be read from images/; "
            "put the file there or empty the cell.",
        ) from None
    if not data:
        raise table.fail(
            index, f"the picture {name[:80]!r} is an empty file; mend it or empty the cell."
        )
    return data
