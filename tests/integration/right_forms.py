"""The odd but legitimate forms in which a shop is written: for right_folders.py.

A form is a choice for each of `OPTIONS`; the first value of each is the plain one. `settle` takes
back what does not go together, or what would leave open how it has to be read.
"""

import gzip
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
from right_words import LANGUAGES, LATER, MISSING, TIMES

ID_STYLES = ["letter", "int", "int", "zeros", "long", "dash", "hex", "space", "comma", "mail",
             "uuid", "accent"]  # fmt: skip
ALIKE = ["same"] * 5
"""Most of the time."""
OPTIONS: dict[str, Sequence[Any]] = {
    "language": ["en", *LANGUAGES],
    "codepage": [0, 0, 1],
    "item ids": ID_STYLES,
    "user ids": ID_STYLES,
    "session ids": ID_STYLES,
    "item spelling": [*ALIKE, "point", "some points", "lost zeros", "no width", "padded"],
    "session spelling": [*ALIKE, "some points", "lost zeros", "no width", "padded"],
    "user spelling": [*ALIKE, "some points", "lost zeros", "no width", "padded"],
    "sessions": ["column", "column", "column", "users", "users", "per user", "cells"],
    "between items": [" ", ",", "|", ";"],
    "users": [True, True, False],
    "guests": ["", "all session", "until login"],
    "time": ["iso", *TIMES, ""],
    "clock": ["", "", "", "", "", "%H:%M:%S", "%H:%M", "%I:%M %p"],
    "twelve days": [False, False, False, False, True],
    "order": [False, False, True],
    "event": [False, True],
    "rating": [False, True],
    "rows": ["by time", "by time", "shuffled", "newest first"],
    "titles": ["plain", "plain", "inches", "lone quotes", "quoted words", "delimiters"],
    "title languages": [False, False, False, False, True],
    "description": ["", "plain", "lines"],
    "decimal": [".", ","],
    "money": [
        "plain", "plain", "sign before", "sign after", "code after", "thousands",
        "thousands space", "thousands apostrophe", "thousands sign",
    ],
    "on request": [False, False, False, True],
    "years": [False, True],
    "list separator": ["|", ";", ",", ""],
    "slogan": [False, True],
    "pictures": ["", "column", "folder", "dot slash", "backslash", "below", "by id"],
    "windows": ["", "", *LATER, "as events"],
    "missing": ["", "", *MISSING],
    "remarks": [False, True],
    "junk": [False, True],
    "leak": [False, True],
    "usual files": [True, False],
    "another table": [False, False, True],
    "strays": [False, False, True],
    "gaps in time": [False, False, True],
    "items twice": [False, False, True],
    "own kinds": [False, True],
    "no header": [*20 * [""], "items", "events"],
}  # fmt: skip
FILE_OPTIONS: dict[str, Sequence[Any]] = {
    "kind": ["csv", "csv", "csv", "csv.gz", "parquet", "jsonl", "jsonl.gz", "json"],
    "delimiter": [",", ",", ";", "\t", "|"],
    "told": [False, False, False, False, True],
    "quoting": ["minimal", "all", "texts", "backslash", "spaced", "bare"],
    "trailing": ["", "", "", "", "rows", "all"],
    "newline": ["\n", "\n", "\r\n", "\r"],
    "end": ["newline", "none", "blank lines", "blank lines between"],
    "encoding": ["utf-8", "utf-8-sig", "other", "other"],
    "index": [False, False, False, True],
    "shuffled columns": [False, True],
    "typed": [False, True],
    "footer": ["", "", "", "(350 rows)", "Total"],
}
"""Those of each of the two files."""
TABLES = ("items", "events")


def options() -> dict[str, Sequence[Any]]:
    """Return every option by its name, those of a file behind the file's."""
    own = {f"{table} {key}": v for table in TABLES for key, v in FILE_OPTIONS.items()}
    return {**OPTIONS, **own, "months": [False, False, True]}


def draw_form(rng: random.Random) -> dict[str, Any]:
    """Choose a form: about a third of the options are odd."""
    return {
        key: rng.choice(values) if rng.random() < 0.6 else values[0]
        for key, values in options().items()
    }


def settle(form: dict[str, Any]) -> dict[str, Any]:
    """Return a form whose options go together."""
    f = dict(form)
    if f["sessions"] != "column":
        f["users"], f["guests"], f["session spelling"] = True, "", "same"
    if not f["users"]:
        f["guests"] = ""
    if f["sessions"] == "cells":
        f["item spelling"], f["order"], f["clock"], f["guests"] = "same", False, "", ""
        f["event"], f["rating"] = False, False
        if f["item ids"] in ("space", "comma", "dash"):
            f["item ids"] = "letter"
    if f["sessions"] == "per user":
        f["session ids"] = "int"
    for who in ("item", "session", "user"):
        fits = {"point": "int", "some points": "int", "lost zeros": "zeros"}
        f[f"{who} ids"] = fits.get(f[f"{who} spelling"], f[f"{who} ids"])
    if f["sessions"] == "cells" or not f["time"] or f["clock"]:
        f["gaps in time"] = False
    if f["clock"]:
        f["time"] = "iso" if f["clock"] == "%H:%M:%S" else "iso minutes"
    if not f["time"]:
        f["rows"] = "by time"
    if f["twelve days"] and not (f["time"] and TIMES[f["time"]].dates):
        f["twelve days"] = False
    if f["pictures"] == "by id" and f["item ids"] in ("dash", "space", "comma"):
        f["item ids"] = "int"
    if f["titles"] == "lone quotes" and f["title languages"]:
        f["titles"] = "plain"
    if f["windows"] == "as events" and (
        f["time"] in ("", "excel") or f["clock"] or f["twelve days"]
    ):
        f["windows"] = "iso day"
    if f["no header"]:
        f["months"] = False
    for table in TABLES:
        encodings = LANGUAGES[f["language"]][0]
        if f[f"{table} encoding"] == "other":
            f[f"{table} encoding"] = encodings[-f["codepage"] - 1]
        if f[f"{table} quoting"] == "backslash":
            f["missing"] = "NULL" if f["missing"] == "\\N" else f["missing"]
            f["pictures"] = "column" if f["pictures"] == "backslash" else f["pictures"]
        if f[f"{table} newline"] == "\r":
            f["description"] = f["description"] and "plain"
    if f["language"] not in ("en", "de", "fr") and not f["events encoding"].startswith("utf"):
        f["remarks"] = True  # enough text to tell the encoding
        for who in ("item", "user", "session"):
            f[f"{who} ids"] = "hex" if f[f"{who} ids"] == "accent" else f[f"{who} ids"]
        if f["time"] and not TIMES[f["time"]].ascii:
            f["time"] = "iso"
    return f


@dataclass
class Column:
    """A column as text, and for Parquet perhaps as values of a type.

    Attributes:
      name: Its name.
      cells: Texts; None where a value is missing.
      typed: The same as an Arrow array, None where it stays text.
      word: Whether a missing value may be written as a word for nothing.
    """

    name: str
    cells: list[str | None]
    typed: pa.Array | None = None
    word: bool = True


def write_table(
    folder: Path, stem: str, table: str, columns: list[Column], form: dict[str, Any],
    rng: random.Random,
) -> str:  # fmt: skip
    """Write one table in the form's way; return the file's name."""
    own = {key: form[f"{table} {key}"] for key in FILE_OPTIONS}
    if own["shuffled columns"]:
        rng.shuffle(columns)
    if own["kind"] == "parquet":
        path = folder / f"{stem}.parquet"
        _write_parquet(path, columns, form, own)
        return path.name
    if own["kind"].startswith("json"):
        path = folder / f"{stem}.{own['kind']}"
        data = _json_text(columns, form, own).encode("utf-8-sig" if own["told"] else "utf-8")
        path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
        return path.name
    nothing = form["missing"]
    names = [column.name for column in columns]
    rows = [
        [(nothing if c.word else "") if cell is None else cell for cell, c in zip(r, columns)]
        for r in zip(*(column.cells for column in columns))
    ]
    if own["index"]:
        names = ["", *names]
        rows = [[str(i), *row] for i, row in enumerate(rows)]
    if form["no header"] == table:
        names, rows = rows[0], rows[1:]
    text = csv_text([names, *rows], own)
    try:
        data = text.encode(own["encoding"])
    except UnicodeEncodeError:
        data = text.encode("utf-8")
    ending = "tsv" if own["delimiter"] == "\t" and not form["usual files"] else "csv"
    path = folder / f"{stem}.{ending}"
    if own["kind"] == "csv.gz":
        path = path.with_name(path.name + ".gz")
        data = gzip.compress(data, mtime=0)
    path.write_bytes(data)
    return path.name


def csv_text(rows: list[list[str]], own: dict[str, Any]) -> str:
    """Return rows as the text of a CSV."""
    delimiter, quoting = own["delimiter"], own["quoting"]
    if quoting == "bare":
        # Nothing is quoted, so that no cell may hold what stands between cells.
        free = [
            d for d in (delimiter, "\t", "|", ";", ",") if not any(d in c for r in rows for c in r)
        ]
        lines = any("\n" in cell for row in rows for cell in row)
        delimiter, quoting = (delimiter, "minimal") if lines or not free else (free[0], "bare")
    between = delimiter + " " if quoting == "spaced" else delimiter
    newline = own["newline"]
    out = []
    for number, row in enumerate(rows):
        cells = [_quoted(cell, delimiter, quoting) for cell in row]
        line = between.join(cells)
        if own["trailing"] == "all" or (own["trailing"] == "rows" and number):
            line += delimiter
        out.append(line)
        if own["end"] == "blank lines between" and number % 20 == 7:
            out.append("")
    out += [own["footer"]] if own["footer"] and len(rows[0]) > 1 else []
    text = newline.join(out) + {"newline": newline, "none": ""}.get(own["end"], 3 * newline)
    return f"sep={delimiter}{newline}{text}" if own["told"] else text


def _quoted(cell: str, delimiter: str, quoting: str) -> str:
    needs = any(sign in cell for sign in (delimiter, '"', "\n", "\r"))
    if quoting == "bare":
        return cell
    if quoting == "backslash":
        return '"' + cell.replace("\\", "\\\\").replace('"', '\\"') + '"'
    number = cell.replace(".", "").replace(",", "").replace("-", "").isdigit()
    if needs or quoting == "all" or (quoting == "texts" and not number):
        return '"' + cell.replace('"', '""') + '"'
    return cell


def _write_parquet(
    path: Path, columns: list[Column], form: dict[str, Any], own: dict[str, Any]
) -> None:
    arrays = {}
    for column in columns:
        if own["typed"] and column.typed is not None:
            arrays[column.name] = column.typed
            continue
        word = form["missing"] if column.word and form["missing"] else None
        arrays[column.name] = pa.array(
            [word if cell is None else cell for cell in column.cells], pa.string()
        )
    if own["index"]:
        arrays["__index_level_0__"] = pa.array(range(len(columns[0].cells)), pa.int64())
    pyarrow.parquet.write_table(pa.table(arrays), path, row_group_size=50)


def _json_text(columns: list[Column], form: dict[str, Any], own: dict[str, Any]) -> str:
    """Return rows as JSON: null or an absent key, or the form's word, where a value is missing."""
    word = form["missing"] or None
    cells: dict[str, list[Any]] = {}
    for column in columns:
        missing = word if column.word else None
        cells[column.name] = [missing if cell is None else cell for cell in column.cells]
        if own["typed"] and column.typed is not None:
            values = column.typed.to_pylist()
            if all(each is None or isinstance(each, bool | int | float | list) for each in values):
                cells[column.name] = values
    rows: list[dict[str, Any]] = [
        {
            name: value
            for name, value in zip(cells, row)
            if value is not None or own["quoting"] == "all"
        }
        for row in zip(*cells.values())
    ]
    ascii_only = own["encoding"] != "utf-8"
    if own["kind"] == "json":
        indent = 2 if own["trailing"] else None
        return json.dumps(rows, ensure_ascii=ascii_only, indent=indent)
    newline = "\r\n" if own["newline"] == "\r\n" else "\n"
    text = newline.join(json.dumps(row, ensure_ascii=ascii_only) for row in rows)
    return text + {"none": "", "newline": newline}.get(own["end"], 3 * newline)
