"""CSV files as columns of strings, with the row numbers that a spreadsheet shows."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from jmrec.errors import UserError


@dataclass(frozen=True)
class Table:
    """One CSV file.

    Attributes:
      file: The file's name, for messages.
      columns: Column name -> N trimmed strings, "" where empty.
      rows: int64 [N], the row numbers of a spreadsheet (the header is row 1).
    """

    file: str
    columns: dict[str, pa.Array]
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def where(self, index: int) -> str:
        """Name the place of entry ``index`` for a message: "items.csv, row 7"."""
        return f"{self.file}, row {int(self.rows[index])}"

    def fail(self, index: int, message: str) -> UserError:
        """Return an error about entry ``index``."""
        return UserError(f"{self.where(index)}: {message}")


def read_header(path: Path) -> list[str]:
    """Return the column names of a CSV file.

    Raises:
      UserError: if the file is missing, empty, or names a column twice or not at all.
    """
    return _header(path, _bytes(path))


def read_table(path: Path) -> Table:
    """Read a UTF-8 CSV file (with or without BOM, quoted newlines allowed), all cells as text.

    Rows whose cells are all empty are left out.

    Raises:
      UserError: if the file can not be read, or a row has too few or too many cells.
    """
    data = _bytes(path)
    header = _header(path, data)
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = io.StringIO(data[: error.start].decode("utf-8-sig") + "x", newline="")
        raise UserError(
            f"{path.name}, row {max(1, sum(1 for _ in csv.reader(before)))}: a cell is not UTF-8; "
            "save the file as comma-separated UTF-8 text."
        ) from None
    # pyarrow takes its row numbers from the block it is in: one block, one thread.
    table, wrong = _parse(path, data, header)
    if wrong:
        number, cells = wrong[0]
        raise UserError(
            f"{path.name}, row {number}: {cells} cells where the header has {len(header)}; "
            "check the commas and quotes of this row and the one before."
        )
    columns = {
        name: pc.utf8_trim_whitespace(column.combine_chunks())
        for name, column in zip(header, table.columns)
    }
    rows = np.arange(2, 2 + table.num_rows)
    filled = np.zeros(table.num_rows, bool)
    for column in columns.values():
        filled |= np.asarray(pc.not_equal(column, ""))
    if not filled.all():
        keep = pa.array(filled)
        columns = {name: column.filter(keep) for name, column in columns.items()}
        rows = rows[filled]
    return Table(path.name, columns, rows)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; a catalogue folder needs {path.name}.") from None
    except OSError as error:
        raise UserError(f"{path} can not be read ({error.strerror}); check the file.") from None


def _header(path: Path, data: bytes) -> list[str]:
    text = data[:1_000_000].decode("utf-8-sig", errors="replace")
    try:
        names = next(csv.reader(io.StringIO(text, newline="")), [])
    except csv.Error:
        names = []
    if not names:
        raise UserError(
            f"{path.name}: no header row can be read; save the file as comma-separated UTF-8 text "
            "whose first row names the columns."
        )
    names = [name.strip() for name in names]
    for name in names:
        if not name or names.count(name) > 1:
            raise UserError(
                f"{path.name}, row 1: the column name {name!r} is "
                f"{'used twice' if name else 'empty'}; give every column its own name."
            )
    return names


def _parse(path: Path, data: bytes, header: list[str]) -> tuple[pa.Table, list[tuple[int, int]]]:
    """Return the cells as strings and the (number, cells) of rows of another width."""
    wrong: list[tuple[int, int]] = []

    def handle(row: pyarrow.csv.InvalidRow) -> str:
        if row.text.strip():  # an empty line is no error
            wrong.append((row.number, row.actual_columns))
        return "error" if row.text.strip() else "skip"

    # Our own names for the columns, so that a header that pyarrow reads in another way can not
    # change the types; the header row is then the first data row.
    names = [str(i) for i in range(len(header))]
    try:
        table = pyarrow.csv.read_csv(
            pa.BufferReader(data + b"\n"),
            read_options=pyarrow.csv.ReadOptions(
                use_threads=False, block_size=min(len(data) + 2, 2**31 - 1), column_names=names
            ),
            parse_options=pyarrow.csv.ParseOptions(
                newlines_in_values=True, ignore_empty_lines=False, invalid_row_handler=handle
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types={name: pa.string() for name in names}, strings_can_be_null=False
            ),
        )
    except pa.ArrowInvalid:
        if wrong:
            return pa.table({}), wrong
        raise UserError(
            f"{path.name}: the file is not a valid CSV; save it as comma-separated UTF-8 text."
        ) from None
    return table.slice(1), wrong
