"""Sessions that came after training, batch by batch: what `jmrec remember` keeps in a folder.

=============================== ==================================================================
reading.json                    how files of new sessions are read
begin/                          a batch of what the catalogue folder held and preparing left out
batches/0001/batch.json         names that the numbers of the batch stand for, and its new items
batches/0001/flat/*.safetensors its events, each column one flat array
batches/0001/checksums.json     the SHA-256 of each
=============================== ==================================================================

It holds ids of sessions and users: an event is known by them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load, save_file

from jmrec.data import flat
from jmrec.data.description import Description, InteractionColumns, ItemColumns
from jmrec.data.missing import MISSING
from jmrec.data.schema import Items, Sessions
from jmrec.errors import UserError
from jmrec.files import MANIFEST, manifest_fault, read_json, write_json, write_manifest

READING, BATCHES, BEGIN = "reading.json", "batches", "begin"
_FACTS, _SESSIONS, _COPIES = "batch.json", "sessions", "copies"


@dataclass(frozen=True)
class Reading:
    """How files of new sessions are read, and how sessions are made of their events.

    Attributes:
      description: What the columns mean; its times are read as those of the data were, and prices
        are not: nothing that counts reads them.
      has_time: Whether events have times.
      toml: The SHA-256 of the description's file, "" where there is none.
    """

    description: Description
    has_time: bool
    toml: str = ""

    @property
    def by_gap(self) -> bool:
        """Whether a session is what one user does without a long pause."""
        gap = self.description.session_gap_minutes
        return not self.description.interactions.session and self.has_time and gap < np.inf

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        d = self.description
        read = (each.name for each in fields(d) if each.name not in ("given", "value"))
        found = {name: getattr(d, name) for name in read}
        found |= {"items": vars(d.items), "interactions": vars(d.interactions)}
        # JSON has no infinity; and a list of words that jmrec chose may be another one by then.
        found |= {"session_gap_minutes": None} if d.session_gap_minutes == np.inf else {}
        found |= {"missing": None} if d.missing is MISSING else {}
        return {"description": found, "has_time": self.has_time, "toml": self.toml}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "Reading":
        """Return what `to_json` was given.

        Example:
          >>> mine = Reading(Description(name="shop", joined={"a + b": ("a", "b")}), True)
          >>> Reading.from_json(mine.to_json()) == mine
          True
        """
        given = dict(found["description"])
        if given["session_gap_minutes"] is None:
            given["session_gap_minutes"] = float("inf")
        given["missing"] = MISSING if given["missing"] is None else tuple(given["missing"])
        for name in ("joined", "several"):  # the second is not in those of older versions
            given[name] = {key: tuple(parts) for key, parts in given.get(name, {}).items()}
        for name, kind in (("items", ItemColumns), ("interactions", InteractionColumns)):
            columns: dict[str, Any] = {
                key: tuple(value) if isinstance(value, list) else value
                for key, value in given[name].items()
            }
            given[name] = kind(**columns)
        return cls(Description(**given), bool(found["has_time"]), str(found["toml"]))


@dataclass(frozen=True)
class Batch:
    """The events of one file that were not known before, and its new items.

    Attributes:
      events: Of each session or user their events in order. ``ids`` are session ids, or user ids
        where sessions are made of what users do; ``items``, ``events`` and ``users`` are places in
        the lists below.
      copies: int32 [N], how many events of the same session, item, time and type came before each;
        without times its place in its session.
      item_ids: Ids of the items of its events.
      event_names: Names of its types of events, "" of none.
      user_ids: Ids of its users; [] where sessions are made of what users do.
      items: New items: ids, titles, texts and windows.
      solved: Whether EASE was solved anew with it.
    """

    events: Sessions
    copies: np.ndarray
    item_ids: list[str]
    event_names: list[str]
    user_ids: list[str]
    items: Items
    solved: bool = False


@dataclass(frozen=True)
class Remembered:
    """All batches of one run, the oldest first.

    Attributes:
      reading: How they were read.
      batches: Of a file each. Where there is none, what is served counts training alone.
      begin: Events that the catalogue folder held and preparing left out: sessions of one event,
        which may go on, and what was cut off at the ends of the splits. None for none.
    """

    reading: Reading
    batches: tuple[Batch, ...] = ()
    begin: Batch | None = None

    @property
    def parts(self) -> tuple[Batch, ...]:
        """Return ``begin`` and the batches."""
        return self.batches if self.begin is None else (self.begin, *self.batches)

    @property
    def items(self) -> Items:
        """The items that came with the batches."""
        return join_items([batch.items for batch in self.batches])

    @property
    def solved(self) -> "Remembered | None":
        """The batches that EASE was solved with last; None where it knows training alone."""
        last = max((n for n, each in enumerate(self.batches, 1) if each.solved), default=0)
        return replace(self, batches=self.batches[:last]) if last else None


def join_items(parts: Sequence[Items]) -> Items:
    """Return new items of several batches as one list; the fields of the first come first.

    Example:
      >>> one = Items(["a"], ["A"], {"title": ["A"]}, [b""])
      >>> two = Items(["b"], [""], {"title": [""], "tags": ["red"]}, [b""])
      >>> join_items([one, two]).text
      {'title': ['A', ''], 'tags': ['', 'red']}
    """
    names = list(dict.fromkeys(name for part in parts for name in part.text)) or ["title"]
    return Items(
        ids=[each for part in parts for each in part.ids],
        titles=[each for part in parts for each in part.titles],
        text={
            name: [cell for part in parts for cell in part.text.get(name, [""] * len(part))]
            for name in names
        },
        pictures=[b"" for part in parts for _ in part.ids],
        available_from=np.concatenate([np.zeros(0), *(part.available_from for part in parts)]),
        available_until=np.concatenate([np.zeros(0), *(part.available_until for part in parts)]),
    )


def batch_name(number: int) -> str:
    """Return where the batch of a number lies, relative to the folder of all.

    Example:
      >>> batch_name(12)
      'batches/0012'
    """
    return f"{BATCHES}/{number:04d}"


def write_remembered(remembered: Remembered, folder: Path) -> None:
    """Write everything into a new folder."""
    write_json(folder / READING, remembered.reading.to_json())
    if remembered.begin is not None:
        write_batch(remembered.begin, folder / BEGIN)
    for number, batch in enumerate(remembered.batches, 1):
        write_batch(batch, folder / batch_name(number))


def write_batch(batch: Batch, folder: Path) -> None:
    """Write one batch into a new folder."""
    (folder / flat.FOLDER).mkdir(parents=True)
    flat.write_sessions(batch.events, folder / flat.FOLDER / f"{_SESSIONS}.safetensors")
    copies = {_COPIES: batch.copies.astype(np.int32)}
    save_file(copies, folder / flat.FOLDER / f"{_COPIES}.safetensors")
    windows = [batch.items.available_from, batch.items.available_until]
    limits = [[float(t) if np.isfinite(t) else None for t in each] for each in windows]
    facts = {
        "item_ids": batch.item_ids,
        "event_names": batch.event_names,
        "user_ids": batch.user_ids,
        "solved": batch.solved,
        "items": {
            "ids": batch.items.ids,
            "titles": batch.items.titles,
            "text": [[name, cells] for name, cells in batch.items.text.items()],  # in their order
            "available_from": limits[0],
            "available_until": limits[1],
        },
    }
    write_json(folder / _FACTS, facts)
    write_manifest(folder)


def read_remembered(folder: Path) -> Remembered | None:
    """Read what `write_remembered` wrote, None where there is nothing.

    Raises:
      UserError: It is damaged.
    """
    if not (folder / READING).is_file():
        return None
    try:
        reading = Reading.from_json(read_json(folder / READING))
        paths = sorted((folder / BATCHES).glob("*"))
        if [path.name for path in paths] != [f"{n:04d}" for n in range(1, len(paths) + 1)]:
            raise ValueError("a batch is missing")
        begin = _read_batch(folder / BEGIN) if (folder / BEGIN).is_dir() else None
        return Remembered(reading, tuple(_read_batch(path) for path in paths), begin)
    except (ValueError, KeyError, TypeError, AttributeError, UserError) as error:
        raise UserError(
            f"{folder} is damaged ({error}); put a copy of it back, or delete it and remember "
            "again what came since."
        ) from None


def _read_batch(folder: Path) -> Batch:
    fault = manifest_fault(folder) if (folder / MANIFEST).is_file() else f"{MANIFEST} is missing"
    if fault:
        raise ValueError(f"{folder.name}: {fault}")
    facts = read_json(folder / _FACTS)
    events = flat.read_sessions(folder, _SESSIONS)
    copies = load((folder / flat.FOLDER / f"{_COPIES}.safetensors").read_bytes())[_COPIES].copy()
    items = facts["items"]
    limits = zip(("available_from", "available_until"), (-np.inf, np.inf))
    windows: dict[str, Any] = {
        name: np.array([limit if t is None else t for t in items[name]], np.float64)
        for name, limit in limits
    }
    batch = Batch(
        events=events,
        copies=copies,
        item_ids=facts["item_ids"],
        event_names=facts["event_names"],
        user_ids=facts["user_ids"],
        items=Items(
            items["ids"], items["titles"], dict(items["text"]), [b""] * len(items["ids"]), **windows
        ),
        solved=bool(facts["solved"]),
    )
    names = [(events.items, batch.item_ids), (events.events, batch.event_names)]
    if len(copies) != len(events.items) or any(
        ((codes < 0) | (codes >= len(words))).any() for codes, words in names
    ):
        raise ValueError(f"{folder.name}: its columns do not fit each other")
    return batch
