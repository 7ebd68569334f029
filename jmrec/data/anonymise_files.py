"""Files of a folder that jmrec writes anew: tables, pictures from their pixels, the description."""

import csv
import gzip
import io
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from PIL import Image, ImageOps

from jmrec.data.pictures import FORMATS
from jmrec.data.sources import JSON, PARQUET


class Columns:
    """Columns of strings of the same length, by name; a name that is taken gets a number.

    Example:
      >>> table = Columns()
      >>> table.add("year", ["1999"]), table.add_numbers("year", np.array([1999.0]))
      ('year', 'year_2')
      >>> table.cells
      {'year': ['1999'], 'year_2': ['1999']}
    """

    def __init__(self) -> None:
        self.cells: dict[str, Sequence[str]] = {}

    def add(self, name: str, cells: Sequence[str]) -> str:
        """Add a column of texts; return its name."""
        free, number = name, 2
        while free in self.cells:
            free, number = f"{name}_{number}", number + 1
        self.cells[free] = cells
        return free

    def add_numbers(self, name: str, values: np.ndarray) -> str:
        """Add numbers (float [N]), "" for NaN, with as many digits as they need."""
        cells = [
            "" if np.isnan(each) else np.format_float_positional(each, trim="-") for each in values
        ]
        return self.add(name, cells)

    def add_times(self, name: str, seconds: np.ndarray) -> str:
        """Add times (float64 [N], unix seconds) in ISO 8601, "" where one is not finite."""
        cells = [
            datetime.fromtimestamp(each, UTC).isoformat() if np.isfinite(each) else ""
            for each in seconds.tolist()
        ]
        return self.add(name, cells)

    def where(self, keep: np.ndarray) -> "Columns":
        """Return the rows where ``keep`` (bool [N]) is."""
        out = Columns()
        rows = np.flatnonzero(keep).tolist()
        out.cells = {name: [cells[i] for i in rows] for name, cells in self.cells.items()}
        return out


def write_table(path: Path, table: Columns, kind: str) -> None:
    """Write a table as Parquet, JSON lines or CSV (UTF-8), packed if its name ends with .gz."""
    if kind == PARQUET:
        columns = {name: pa.array(cells, pa.string()) for name, cells in table.cells.items()}
        pa.parquet.write_table(pa.table(columns), path)
        return
    packed = path.suffix.lower() == ".gz"
    with (gzip.open if packed else open)(path, "wt", encoding="utf-8", newline="") as file:
        if kind == JSON:
            for row in zip(*table.cells.values(), strict=True):
                line = dict(zip(table.cells, row, strict=True))
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
            return
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(table.cells)
        writer.writerows(zip(*table.cells.values(), strict=True))


def write_picture(folder: Path, stem: str, data: bytes) -> str:
    """Write a picture from its pixels, without whatever else its file held; return its name.

    It is turned as its camera says. The pixels are the same: PNG, or TIFF for 32 bits and floats,
    which lose nothing. Of an animation the first picture is kept.

    Args:
      folder: Where to.
      stem: The name without its ending.
      data: A picture that decodes, see `jmrec.data.pictures.picture_problem`.
    """
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        image.load()
        picture = ImageOps.exif_transpose(image) or image
        if picture.mode not in ("I", "F") and not picture.mode.startswith("I;16"):
            plain = picture.mode in ("L", "LA", "RGB", "RGBA")
            if picture.mode == "1":
                picture = picture.convert("L")
            elif "transparency" in picture.info or picture.mode == "PA":
                picture = picture.convert("RGBA")
            elif not plain:
                picture = picture.convert("RGB")
        pixels = np.ascontiguousarray(picture)
    wide = pixels.dtype.itemsize == 4
    if pixels.dtype.itemsize == 2:
        pixels = pixels.astype("<u2")
    name = f"{stem}.{'tif' if wide else 'png'}"
    Image.fromarray(pixels).save(folder / name)
    return name


def toml_text(
    dataset: Mapping[str, object], items: Mapping[str, object], events: Mapping[str, object]
) -> str:
    """Return a description: three tables of strings, numbers, booleans and lists of strings.

    Example:
      >>> print(toml_text({"name": "shop"}, {"id": "a"}, {"item": "a", "target_events": ["buy"]}))
      [dataset]
      name = "shop"
      <BLANKLINE>
      [items]
      id = "a"
      <BLANKLINE>
      [interactions]
      item = "a"
      target_events = ["buy"]
      <BLANKLINE>
    """
    parts = []
    for name, keys in [("dataset", dataset), ("items", items), ("interactions", events)]:
        # A string of JSON is one of TOML, and so are lists of them, numbers and booleans.
        lines = [
            f"{key} = {json.dumps(value, ensure_ascii=False)}"
            for key, value in keys.items()
            if value not in ([], ()) or key == "missing"
        ]
        parts.append("\n".join([f"[{name}]", *lines]) + "\n")
    return "\n".join(parts)
