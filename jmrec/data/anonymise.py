"""A catalogue folder without what tells who somebody is: codes for ids, tags for details, no EXIF.

What is written is what jmrec reads, and nothing else: ids of sessions and users as codes of a key
(HMAC-SHA256), which nobody turns back without the key; texts with tags; pictures anew from their
pixels; times as the start of their hour, day or week if asked for. Columns and files that the
description does not name stay behind, for they may hold anything; so do those that [value] alone
names, and [value], for what is gained of a sale is nobody else's business.
"""

import hashlib
import hmac
import os
import re
import secrets
import shutil
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from jmrec.data.anonymise_files import Columns, toml_text, write_picture, write_table
from jmrec.data.anonymise_texts import missing_modules, tag_text
from jmrec.data.columns import read_numbers
from jmrec.data.findings import Findings
from jmrec.data.folder import Raw, read_folder
from jmrec.data.pictures import BY_ID
from jmrec.data.sessions import sessionise
from jmrec.data.several import read_tables
from jmrec.data.sources import JSON, PARQUET, open_source
from jmrec.errors import UserError

UNITS = {"hour": 3600.0, "day": 86_400.0, "week": 604_800.0}
"""What times may be coarsened to -> seconds."""
_MONDAY = 4 * 86_400.0  # 1970-01-05
LIMITS = (
    "Names of people are found only where a title, a greeting, a farewell or words such as 'my "
    "name is' stand "
    "before them.",
    "Details are found by patterns; one that is misspelt, in an unusual form or in words is not.",
    "Pictures are not looked at: faces, number plates and writing in them stay.",
    "What somebody clicked, and when, can tell who it was; coarser times (--times) make that "
    "harder.",
    "Ids of items stay as they are unless --items is given; categories, events and numbers are "
    "kept.",
    "Whoever has the key file can find out which code a known id has: keep it from those who get "
    "the data.",
)


@dataclass
class Report:
    """What was found and done, for people; no detail itself is in it.

    Attributes:
      out: The name of the folder.
      key: The name of the key file.
      found: Kind of detail -> how many tags were put.
      columns: "FILE, COLUMN" -> kind -> how many.
      coded: Kind of id -> how many different ones.
      dropped: "FILE, COLUMN" of what was left behind.
      pictures: How many were written.
      times: What times were coarsened to, "" if they were not.
      rows: How many events.
      warnings: What `read_folder` said.
    """

    out: str
    key: str
    found: Counter[str] = field(default_factory=Counter)
    columns: dict[str, Counter[str]] = field(default_factory=dict)
    coded: dict[str, int] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)
    pictures: int = 0
    times: str = ""
    rows: int = 0
    warnings: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Return the report as lines of text."""
        ids = ", ".join(f"{n:,} {kind}s" for kind, n in self.coded.items()) or "none"
        found = ", ".join(f"[{kind}] {n:,}" for kind, n in self.found.most_common()) or "none"
        lines = [
            f"{self.out}: {self.rows:,} events; ids as codes: {ids} (key: {self.key}).",
            f"Details in texts, in place of which a tag stands: {found}.",
        ]
        for place, kinds in self.columns.items():
            lines.append(f"  {place}: " + ", ".join(f"[{k}] {n:,}" for k, n in kinds.most_common()))
        lines.append(
            f"Pictures written anew from their pixels, under new names: {self.pictures:,}."
        )
        lines.append(
            f"Times: the {self.times} of each, in the order that they had."
            if self.times
            else "Times: as they were; --times=hour, day or week makes them coarser."
        )
        lines.append(
            "Columns that the description does not name, left behind: "
            f"{', '.join(self.dropped) or 'none'}."
        )
        return [*lines, "Limits:", *(f"- {limit}" for limit in LIMITS)]


def keyed_code(key: bytes, kind: str, name: str) -> str:
    """Return the code of an id: HMAC-SHA256, 96 bits of it, behind the first letter of its kind.

    Args:
      key: Secret bytes.
      kind: "session", "user", "item" or "picture"; the same name has another code in each.
      name: The id.

    Example:
      >>> keyed_code(b"secret", "user", "anna")
      'ue19497df69d3eee3fbc389dc'
    """
    return kind[0] + hmac.new(key, f"{kind}\0{name}".encode(), hashlib.sha256).hexdigest()[:24]


def anonymise(
    folder: str | Path,
    out: str | Path,
    *,
    toml: str | Path | None = None,
    key: str | Path | None = None,
    items: bool = False,
    times: str = "",
    strict: bool = False,
) -> Report:
    """Write a catalogue folder without what tells who somebody is.

    Args:
      folder: The catalogue folder.
      out: The folder to write, which must not be there or be empty. Beside it are written
        ``OUT.report.txt`` and, without a ``key``, ``OUT.key``, readable by its owner only.
      toml: A description to use instead of ``folder/dataset.toml``.
      key: The key file of an earlier run: the same ids get the same codes.
      items: Whether item ids become codes too.
      times: One of `UNITS`, or "" to leave times as they are.
      strict: Whether a broken row is an error; else it is left out.

    Returns:
      What was done.

    Raises:
      UserError: The folder is not valid, ``out`` holds something, the key is none; nothing is
        written then.
    """
    if missing := missing_modules():
        raise UserError(f"anonymise needs {', '.join(missing)}; pip install 'jmrec[anonymise]'.")
    folder, out = Path(folder), Path(out)
    key_file = Path(key) if key is not None else out.with_name(f"{out.name}.key")
    report_file = out.with_name(f"{out.name}.report.txt")
    _check_places(folder, out, key_file, report_file, key is None)
    secret = secrets.token_bytes(32) if key is None else _read_key(key_file)
    raw = read_folder(folder, toml, strict=strict)
    if times and raw.time is None:
        raise UserError(
            "--times has no effect, as no time is read; leave it out, or name the column."
        )
    report = Report(out.name, key_file.name, warnings=raw.warnings, times=times, rows=len(raw.item))
    made = [each for each in (out.parent, *out.parent.parents) if not each.exists()]
    side = out.with_name(f".{out.name}.{secrets.token_hex(4)}")
    written: list[Path] = []
    try:
        side.mkdir(parents=True)
        _Writer(folder, side, raw, secret, items, report).write()
        _write_new(report_file, "\n".join(report.lines()) + "\n", 0o666, written)
        if key is None:
            _write_new(key_file, secret.hex() + "\n", 0o600, written)
        side.rename(out)
    except BaseException:
        shutil.rmtree(side, ignore_errors=True)
        for each in written:
            each.unlink(missing_ok=True)
        for each in made:
            with suppress(OSError):
                each.rmdir()
        raise
    return report


def _check_places(folder: Path, out: Path, key: Path, report: Path, new_key: bool) -> None:
    if not out.name:
        raise UserError(f"--out={out} is no name for a new folder; name one.")
    if out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        raise UserError(f"{out} exists and is not an empty folder; name a new one with --out.")
    real, shop = out.resolve(), folder.resolve()
    if real.is_relative_to(shop) or shop.is_relative_to(real):
        raise UserError(f"{out} and {folder} lie in each other; name a folder elsewhere.")
    if key.resolve().is_relative_to(real):
        raise UserError(f"the key {key} would lie in {out}, which is given away; put it elsewhere.")
    if new_key and (key.exists() or key.is_symlink()):
        raise UserError(f"{key} exists; use it with --key {key}, or move it away.")
    if report.exists() or report.is_symlink():
        raise UserError(f"{report} exists and is not overwritten; move it away, or name a new out.")


def _read_key(path: Path) -> bytes:
    wrong = f"{path} is no key file of jmrec data anonymise; name the one that it wrote."
    try:
        text = path.read_bytes()[:1000].decode("ascii").strip()
    except OSError as error:
        raise UserError(f"{path} can not be read ({error.strerror}); name a key file.") from None
    except UnicodeDecodeError:
        raise UserError(wrong) from None
    if not re.fullmatch("[0-9a-f]{64}", text):
        raise UserError(wrong)
    return bytes.fromhex(text)


def _write_new(path: Path, text: str, mode: int, written: list[Path]) -> None:
    """Write a file that is not there, and note it among those ``written``."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        written.append(path)
        file.write(text)


class _Writer:
    """Writes one folder; the arguments are those of `anonymise`."""

    def __init__(
        self, folder: Path, side: Path, raw: Raw, secret: bytes, items: bool, report: Report
    ) -> None:
        self.folder, self.side, self.raw = folder, side, raw
        self.secret, self.code_items, self.report = secret, items, report
        names = raw.items.ids
        self.item_ids = self.codes("item", names) if items else names

    def write(self) -> None:
        """Write tables, pictures and the description."""
        (self.side / "images").mkdir()
        item_keys = self._items()
        if not any((self.side / "images").iterdir()):
            (self.side / "images").rmdir()
        event_keys = self._events()
        text = toml_text(self._dataset(), item_keys, event_keys)
        (self.side / "dataset.toml").write_text(text, encoding="utf-8")
        self._say_dropped()

    def codes(self, kind: str, names: Sequence[str]) -> list[str]:
        """Return the code of each id, "" for none."""
        self.report.coded[kind] = self.report.coded.get(kind, 0) + len(set(names) - {""})
        known = {name: keyed_code(self.secret, kind, name) for name in set(names)}
        return [known[name] if name else "" for name in names]

    def tagged(self, place: str, cells: Sequence[str], names: bool = True) -> list[str]:
        """Return cells with tags, and count these under the name of a place."""
        out, count = [], Counter[str]()
        for cell in cells:
            text, found = tag_text(cell, names) if cell else ("", Counter[str]())
            out.append(text)
            count += found
        if count:
            self.report.found += count
            self.report.columns[place] = self.report.columns.get(place, Counter()) + count
        return out

    def _items(self) -> dict[str, object]:
        raw, columns = self.raw, self.raw.description.items
        items, file = raw.items, raw.description.items_file
        table = Columns()
        keys: dict[str, object] = {"file": file, "id": table.add(columns.id, self.item_ids)}
        texts = []
        for name, cells in items.text.items():
            column = columns.text_fields[name]
            if not column:
                keys[name] = ""
                continue
            place = table.add(column, self.tagged(f"{file}, {column}", cells))
            if name in ("title", "description"):
                keys[name] = place
            else:
                texts.append(place)
        keys.setdefault("description", "")
        keys["text_columns"] = texts
        keys["category_columns"] = [
            table.add(
                name,
                np.array(self.tagged(f"{file}, {name}", items.category_names[name], False), object)[
                    codes
                ].tolist(),
            )
            for name, codes in items.category.items()
        ]
        keys["number_columns"] = [
            table.add_numbers(name, values) for name, values in items.number.items()
        ]
        for key, times in [
            ("available_from", items.available_from),
            ("available_until", items.available_until),
        ]:
            column = getattr(columns, key)
            early = key == "available_from"
            keys[key] = (
                table.add_times(column, self._coarse(times) if early else times) if column else ""
            )
        names = self._pictures()
        keys["picture"] = columns.picture
        if columns.picture not in ("", BY_ID):
            keys["picture"] = table.add(columns.picture, names)
        keys["file"], kind = self._one_file("items", file)
        write_table(self.side / str(keys["file"]), table, kind)
        return keys

    def _pictures(self) -> list[str]:
        """Write the pictures; return the name of each item's, "" for none."""
        by_id = self.raw.description.items.picture == BY_ID
        names: list[str] = []
        done: dict[str, str] = {}
        for item, cell, data in zip(
            self.item_ids, self.raw.picture_names, self.raw.items.pictures, strict=True
        ):
            if data and cell not in done:
                stem = item if by_id else keyed_code(self.secret, "picture", cell)
                done[cell] = write_picture(self.side / "images", stem, data)
            names.append(done[cell] if data else "")
        self.report.pictures = len(done)
        return names

    def _events(self) -> dict[str, object]:
        raw, columns = self.raw, self.raw.description.interactions
        order, made = np.arange(len(raw.item)), None
        if self.report.times:
            found = sessionise(replace(raw, item=order))
            order, made = found.items.astype(np.int64), np.repeat(found.ids, np.diff(found.offsets))
        table = Columns()
        ids = np.array(self.item_ids, object)
        keys: dict[str, object] = {"item": table.add(columns.item, ids[raw.item[order]].tolist())}
        keys["session"] = keys["user"] = ""
        if raw.session is not None:
            codes, names = raw.session
            if raw.given_test is not None:  # as `read_folder` names those of the test file
                names = [name.removeprefix("test:") for name in names]
            coded = np.array(self.codes("session", names), object)
            keys["session"] = table.add(columns.session, coded[codes[order]].tolist())
        elif made is not None:
            keys["session"] = table.add("session_id", self.codes("session", made.tolist()))
        if raw.user is not None:
            codes, names = raw.user
            coded = np.array([*self.codes("user", names), ""], object)  # -1 is a guest
            keys["user"] = table.add(columns.user, coded[codes[order]].tolist())
        keys["time"] = ""
        if raw.time is not None:
            keys["time"] = table.add_times(columns.time, self._coarse(raw.time[order]))
        keys["order"] = ""
        if raw.order is not None and not self.report.times:  # else the rows are in that order
            keys["order"] = table.add_numbers(columns.order, raw.order)
        file = raw.description.interactions_file
        keys["event"] = keys["rating"] = keys["review"] = ""
        if columns.event:
            event = np.array(self.tagged(f"{file}, {columns.event}", raw.event_names, False))
            keys["event"] = table.add(columns.event, event[raw.event[order]].tolist())
        if columns.rating:
            keys["rating"] = table.add_numbers(columns.rating, raw.rating[order])
        if raw.review is not None:
            cells = self.tagged(f"{file}, {columns.review}", [raw.review[i] for i in order])
            keys["review"] = table.add(columns.review, cells)
        if columns.target_events:
            keys["target_events"] = [tag_text(each, False)[0] for each in columns.target_events]
        keys |= self._label(table, order)
        return keys | self._write_events(table, order)

    def _label(self, table: Columns, order: np.ndarray) -> dict[str, object]:
        """Add the column of the label; return its keys."""
        columns, rule = self.raw.description.interactions, self.raw.description.interactions.rule
        if rule is None or self.raw.label is None:
            return {}
        if rule.sign:
            column = table.add_numbers(rule.column, self._numbers(rule.column)[order])
            bound = f"{rule.bound!r}"
            label = f"{column} {rule.sign} {bound}"
        else:
            cells = [str(each) if each >= 0 else "" for each in self.raw.label[order].tolist()]
            label = table.add(rule.column, cells)
        return {"label": label, "label_means": columns.label_means}

    def _numbers(self, column: str) -> np.ndarray:
        """Return a column of numbers of the events, float64 [N], NaN where there is none."""
        description, raw = self.raw.description, self.raw
        out = np.full(len(raw.item), np.nan)
        test = np.zeros(len(out), bool) if raw.given_test is None else raw.given_test
        for file, rows in [
            (description.interactions_file, np.flatnonzero(~test)),
            (description.test_file, np.flatnonzero(test)),
        ]:
            if not len(rows):
                continue
            form = description.form("interactions")
            files = description.files("interactions", file)
            sources = [open_source(self.folder, "interactions", each, form) for each in files]
            found = read_tables(
                sources, [column], Findings(), texts=[column], decimal=description.decimal
            )
            values, _ = read_numbers(found.columns[column].to_pylist(), description.decimal)
            place = np.searchsorted(found.rows, raw.row[rows])
            place = np.minimum(place, max(len(found) - 1, 0))
            same = found.rows[place] == raw.row[rows]
            out[rows] = np.where(same, values[place], np.nan)
        return out

    def _write_events(self, table: Columns, order: np.ndarray) -> dict[str, object]:
        """Write the file or the two files of events; return the keys that name them."""
        description, test = self.raw.description, self.raw.given_test
        file, kind = self._one_file("interactions", description.interactions_file)
        later = description.test_file
        if test is None:
            write_table(self.side / file, table, kind)
            return {"file": file}
        write_table(self.side / file, table.where(~test[order]), kind)
        _, kind = self._one_file("interactions", later)
        write_table(self.side / later, table.where(test[order]), kind)
        return {"file": file, "test_file": later}

    def _coarse(self, times: np.ndarray) -> np.ndarray:
        """Return times (float64 [N], unix seconds) as the start of their hour, day or week, UTC."""
        if not self.report.times:
            return times
        unit = UNITS[self.report.times]
        start = _MONDAY if self.report.times == "week" else 0.0
        return np.floor((times - start) / unit) * unit + start

    def _dataset(self) -> dict[str, object]:
        description = self.raw.description
        names = ["exclude_seen", "split", "min_session_length", "k_core", "missing"]
        if not (self.report.times and self.raw.session is None):  # else sessions are written
            names.append("session_gap_minutes")
        given = [name for name in names if f"dataset.{name}" in description.given]
        return {"name": description.name} | {name: getattr(description, name) for name in given}

    def _one_file(self, table: str, file: str) -> tuple[str, str]:
        """Return the name that a table is written by, and its kind; several files become one."""
        description = self.raw.description
        files = description.files(table, file)
        kind = open_source(self.folder, table, files[0], description.form(table)).kind
        own = table != "items" or not description.items_of_events
        if len(files) == 1 and own:
            return file, kind
        ending = {PARQUET: ".parquet", JSON: ".jsonl"}.get(kind, ".csv")
        name = f"{table}{ending}"
        taken = {getattr(description, f"{each}_file") for each in ("items", "interactions", "test")}
        return f"all_{name}" if name in taken else name, kind

    def _say_dropped(self) -> None:
        """Note the columns of the files that nothing is read of."""
        description = self.raw.description
        items, events = description.items, description.interactions
        used = {items.id, items.picture, items.available_from, items.available_until}
        used |= {*items.text_fields.values(), *items.category_columns, *items.number_columns}
        for table, file, columns in [
            *[("items", file, used) for file in description.files("items")],
            *[("interactions", file, events.named) for file in description.files("interactions")],
            ("interactions", description.test_file, events.named),
        ]:
            if file:
                read = description.sources(columns)
                header = open_source(self.folder, table, file, description.form(table)).header
                self.report.dropped += [f"{file}, {name}" for name in header if name not in read]
