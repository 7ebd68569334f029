"""Rows of a Parquet file as columns of texts, as a CSV would have them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jmrec.data.sources import MAX_BYTES, Source, broken_parquet, open_parquet
from jmrec.errors import UserError


def read_parquet(
    source: Source, names: list[str], separator: str
) -> tuple[dict[str, pa.Array], np.ndarray, frozenset[str]]:
    """Return cells, row numbers, and the columns that the file itself holds as numbers."""
    parts: dict[str, list[pa.Array]] = {name: [] for name in names}
    size, rows = 0, 0
    try:
        for batch in open_parquet(source.path).iter_batches(batch_size=2**16, columns=names):
            for name, cells in parquet_cells(source, batch, names, separator).items():
                parts[name].append(cells)
                size += cells.nbytes
            rows += batch.num_rows
            if size > MAX_BYTES:
                raise UserError(
                    f"{source.name}: its columns have more than {MAX_BYTES:,} bytes as text; "
                    "bring fewer rows or columns."
                )
    except (pa.ArrowException, OSError, ValueError, OverflowError, KeyError) as error:
        raise broken_parquet(source.name, error) from None
    if not names:
        rows = open_parquet(source.path).metadata.num_rows
    empty = pa.array([], pa.string())
    whole = {n: pa.concat_arrays(p or [empty]) for n, p in parts.items()}
    return whole, np.arange(1, rows + 1), parquet_numeric(source)


def parquet_numeric(source: Source) -> frozenset[str]:
    """Return the columns that a Parquet file itself holds as numbers."""
    return frozenset(
        field.name
        for field in open_parquet(source.path).schema_arrow
        if pa.types.is_floating(field.type) or pa.types.is_decimal(field.type)
    )


def parquet_cells(
    source: Source, batch: pa.RecordBatch, names: Sequence[str], separator: str
) -> dict[str, pa.Array]:
    """Return some columns of rows of a Parquet file as text.

    Raises:
      UserError: A column holds no plain values.
    """
    found = {}
    for name in names:
        column = batch.column(batch.schema.get_field_index(name))
        found[name] = _strings(source.name, name, column, separator)
    return found


def _strings(file: str, name: str, array: pa.Array, separator: str) -> pa.Array:
    """Return any simple Arrow array as strings, "" for null and NaN, as a CSV would have them."""
    types, kind = pa.types, array.type
    if types.is_dictionary(kind):
        return _strings(file, name, array.dictionary_decode(), separator)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        cells: list[Any] = [
            separator.join(_strings(file, name, each.values, separator).to_pylist())
            if each.is_valid
            else ""
            for each in array
        ]
        return pa.array(cells, pa.string())
    if types.is_floating(kind):
        values = array.cast(pa.float64()).to_pylist()
        # Whole numbers as integers: a column of ids with a gap comes as floats.
        return pa.array([_number(value) for value in values], pa.string())
    if types.is_nested(kind) or types.is_binary(kind) or types.is_large_binary(kind):
        raise UserError(
            f"{file}: the column {name!r} holds {str(kind)[:40]}, which is no plain value; "
            "write it as text, numbers, times or lists of these."
        )
    if types.is_timestamp(kind):
        array = array.cast(pa.timestamp("us"), safe=False)  # in UTC, a naive time taken as UTC
    return pc.fill_null(array.cast(pa.string()), "")


def _number(value: float | None) -> str:
    if value is None or value != value:
        return ""
    return f"{value:.0f}" if abs(value) < 1e15 and value == int(value) else repr(value)
