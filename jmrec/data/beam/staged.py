"""What pipelines leave for the one that starts them, and whether it is there already."""

import hashlib
import json
import tempfile
import time as clock
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jmrec import __version__
from jmrec.data.beam import jobs
from jmrec.data.beam.options import Runner
from jmrec.data.beam.rows import Job, event_names
from jmrec.data.beam.shards import blobs, texts, unpacked
from jmrec.data.beam.stretches import cut
from jmrec.data.description import Description, describe
from jmrec.data.folder import Raw
from jmrec.data.parquet_rows import parquet_numeric
from jmrec.data.pictures import picture_path
from jmrec.data.schema import Items, Sessions
from jmrec.data.sessions import take
from jmrec.data.sources import PARQUET, open_source
from jmrec.errors import UserError


@dataclass(frozen=True)
class Sizes:
    """How the work is cut; the result is the same whatever these are.

    Attributes:
      stretch: Bytes of a file that a worker reads at a time.
      block: Rows that are worked on together.
      parts: In how many parts sessions and users are grouped: a worker holds one in memory.
      pictures: Items whose pictures a worker takes at a time.
    """

    stretch: int = 2**26
    block: int = 2**17
    parts: int = 64
    pictures: int = 512


SIZES = Sizes()


class _Lazy(Sequence[bytes]):
    """Pictures in the order of the items that are read when they are asked for."""

    def __init__(self, size: int, read: Callable[[int], bytes]) -> None:
        self.size, self.read = size, read

    def __len__(self) -> int:
        return self.size

    @overload
    def __getitem__(self, row: int) -> bytes: ...
    @overload
    def __getitem__(self, row: slice) -> Sequence[bytes]: ...
    def __getitem__(self, row: int | slice) -> bytes | Sequence[bytes]:
        if isinstance(row, slice):
            return [self[each] for each in range(*row.indices(self.size))]
        if not 0 <= row < self.size:
            raise IndexError(row)
        return self.read(row)


@dataclass(frozen=True)
class Pictures:
    """The pictures of a catalogue as workers have left them.

    Attributes:
      unread: Of each item, why its file can not be read, "" where it can.
      undecoded: Of each item, why its picture does not decode, "" where it does.
      raw: Of each item, the picture as it is in the folder, b"" of none that can be used.
      stored: Of each item, the picture as it is stored.
    """

    unread: list[str]
    undecoded: list[str]
    raw: Sequence[bytes]
    stored: Sequence[bytes]


class Events:
    """The events and sessions of a folder as workers have left them.

    Args:
      place: The folder of the files.
      about: Their list.
      train: How many of the folder's files of events are not of a test split.

    Attributes:
      found: Steps and what was found in them, see `jmrec.data.beam.recorder.replay`.
    """

    def __init__(self, place: str, about: dict[str, Any], train: int) -> None:
        self.place, self.about, self.train = place, about, train
        self.found: list[Any] = about[jobs.RECORDS]
        names = {int(file): each for file, each in about["names"]}
        self.event_names = event_names(names)
        self.users = self._users()

    def _read(self, kind: str) -> Iterator[dict[str, np.ndarray]]:
        for _, name in self.about[kind]:
            yield unpacked(jobs.read_bytes(jobs.join(self.place, name)))

    def _users(self) -> list[str]:
        """Return the ids of users by code, those of a test split alone last and by name."""
        parts = list(self._read("users"))
        if not parts:
            return []
        held = [texts(each, "names").to_pylist() for each in parts]
        names = np.array([name for each in held for name in each], object)
        first = np.concatenate([each["first"] for each in parts])
        order = np.argsort(first)
        train = sum(n for (file, *_), n in self.about["counts"] if file < self.train)
        edge = int((first < train).sum())
        return [*names[order[:edge]], *sorted(names[order[edge:]])]

    def codes(self, names: pa.Array) -> np.ndarray:
        """Return the codes of users, -1 for "" (a guest); int64 [K]."""
        found = pc.index_in(names.cast(pa.string()), value_set=pa.array(self.users, pa.string()))
        return np.asarray(pc.fill_null(found, -1)).astype(np.int64)

    def raw(self, description: Description, items: Items) -> Raw:
        """Return the rows with labels; without labels there are none."""
        columns = description.interactions
        parts = list(self._read("ratings"))

        def joined(name: str, kind: Any) -> np.ndarray:
            return np.concatenate([np.zeros(0, kind), *(p[name] for p in parts)]).astype(kind)

        users = [self.codes(texts(each, "user")) for each in parts if "user.ends" in each]
        review = (
            [text for each in parts for text in texts(each, "review").to_pylist()]
            if (columns.review and columns.label)
            else None
        )
        n = len(joined("item", np.int32))
        return Raw(
            description=description,
            items=items,
            item=joined("item", np.int32),
            session=None,
            user=(np.concatenate(users), self.users) if users and self.users else None,
            time=joined("time", np.float64) if columns.time else None,
            order=joined("order", np.float64) if columns.order else None,
            event=joined("event", np.int32),
            event_names=self.event_names,
            rating=joined("rating", np.float32),
            row=np.arange(n),
            item_row=np.zeros(0, np.int64),
            picture_names=[],
            review=review,
            label=joined("label", np.int8) if columns.label else None,
        )

    def sessions(self) -> tuple[Sessions, set[str]]:
        """Return all sessions in the order of their start, and the ids of a test split's."""
        parts = list(self._read("sessions"))
        ids: list[str] = []
        test: set[str] = set()
        owners: list[np.ndarray] = []
        for each in parts:
            own = texts(each, "ids").to_pylist()
            ids += own
            test.update(name for name, given in zip(own, each["given"].tolist()) if given)
            codes = np.append(self.codes(texts(each, "names")), -1)
            owners.append(codes[each["users"]])

        def joined(name: str, kind: Any) -> np.ndarray:
            return np.concatenate([np.zeros(0, kind), *(each.pop(name) for each in parts)])

        lengths = np.concatenate([np.zeros(0, np.int64), *(np.diff(p["offsets"]) for p in parts)])
        made = Sessions(
            ids=ids,
            users=np.concatenate([np.zeros(0, np.int64), *owners]).astype(np.int32),
            offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            items=joined("items", np.int32),
            times=joined("times", np.float64),
            events=joined("events", np.int32),
            ratings=joined("ratings", np.float32),
            targets=joined("targets", bool),
        )
        begun = np.lexsort((joined("first", np.int64), made.times[made.offsets[:-1]]))
        return take(made, begun), test


class Stage:
    """The pipelines of a folder, each run once.

    Args:
      folder: The catalogue folder, or its address on another file system.
      toml: A description to use instead of the folder's, or None.
      out: The folder that is to be written.
      runner: Where pipelines run.
      sizes: How the work is cut.

    Attributes:
      folder: The folder on this machine; of another file system a copy without pictures.
      description: What the columns mean.
    """

    def __init__(
        self, folder: str | Path, toml: str | Path | None, out: Path, runner: Runner, sizes: Sizes
    ) -> None:
        self.folder, self.runner, self.sizes = Path(folder).absolute(), runner, sizes
        self.address, self.states = "", {}
        self.copy: tempfile.TemporaryDirectory[str] | None = None
        if runner.name == "dataflow" and not jobs.is_remote(folder):
            raise UserError(
                f"Dataflow's workers do not see {folder}; copy it to a bucket and name gs://..."
            )
        if jobs.is_remote(folder):
            self.address = str(folder).rstrip("/")
            self.copy = tempfile.TemporaryDirectory(prefix="jmrec-")
            self.folder = Path(self.copy.name)
            self.states = jobs.mirror(self.address, self.folder)
        self.description = describe(self.folder, toml)
        self.own = not runner.staging
        self.root = runner.staging or str(out.parent.absolute() / f".{out.name}.beam")
        self.places: list[str] = []

    def pictures(self, names: Sequence[str], size: int) -> Pictures:
        """Return the pictures that some cells name, no side of them longer than ``size``."""
        count = len(names)
        if not any(names):
            return Pictures([""] * count, [""] * count, *[[b""] * count] * 2)
        under = self.description.items.pictures
        states = [self._state(f"{under}/{picture_path(name, under)}") for name in names if name]
        place = self._place("pictures", [under, list(names), size, states])
        inputs = jobs.join(place, "names.json")
        step = self.sizes.pictures
        where = self.address or str(self.folder)
        steps = jobs.pictures(where, under, inputs, count, size, step, place)
        about = self._run("pictures", place, inputs, list(names), steps)
        files = {int(first): name for first, name in about["pictures"]}
        unread: list[str] = []
        undecoded: list[str] = []
        firsts = sorted(files)
        for first in firsts:
            found = unpacked(jobs.read_bytes(jobs.join(place, files[first])))
            unread += texts(found, "unread").to_pylist()
            undecoded += texts(found, "undecoded").to_pylist()
        held: dict[int, tuple[list[bytes], list[bytes]]] = {}

        def both(row: int) -> tuple[bytes, bytes]:
            first = firsts[int(np.searchsorted(firsts, row, "right")) - 1]
            if first not in held:
                held.clear()
                found = unpacked(jobs.read_bytes(jobs.join(place, files[first])))
                held[first] = blobs(found, "raw"), blobs(found, "stored")
            raw, stored = held[first]
            return raw[row - first], stored[row - first]

        raw = _Lazy(count, lambda row: both(row)[0] or both(row)[1])
        return Pictures(unread, undecoded, raw, _Lazy(count, lambda row: both(row)[1]))

    def events(self, ids: Sequence[str], *, sessions: bool) -> Events:
        """Return the events of the folder, of items with these ids, and its sessions."""
        d = self.description
        form = d.form("interactions")
        names = [*d.files("interactions"), *([d.test_file] if d.test_file else [])]
        sources = tuple(open_source(self.folder, "interactions", n, form) for n in names)
        none = frozenset[str]()
        numeric = tuple(parquet_numeric(s) if s.kind == PARQUET else none for s in sources)
        sizes = self.sizes
        job = Job(d, sources, numeric, clock.time(), sizes.parts, sizes.block, self.address)
        files = [self._state(source.name) for source in sources]
        settings = [repr(replace(d, given=frozenset())), sorted(d.given)]
        place = self._place("events", [list(ids), settings, sessions, files])
        inputs = jobs.join(place, "ids.json")
        size = self.sizes.stretch
        stretches = [each for at, file in enumerate(sources) for each in cut(at, file, size)]
        steps = jobs.events(job, stretches, inputs, place, sessions=sessions)
        about = self._run("events", place, inputs, list(ids), steps)
        return Events(place, about, len(d.files("interactions")))

    def clean(self) -> None:
        """Delete all that pipelines have left."""
        for place in [self.root] if self.own else self.places:
            jobs.delete(place)
        if self.copy is not None:
            self.copy.cleanup()

    def _state(self, name: str) -> list[float]:
        """Return size and time of the last change of a file; nothing where there is none."""
        if self.address:
            return self.states.get(name, [])
        try:
            facts = (self.folder / name).stat()
        except (OSError, ValueError):
            return []
        return [facts.st_size, facts.st_mtime_ns]

    def _place(self, name: str, inputs: Any) -> str:
        key = hashlib.sha256(json.dumps([__version__, name, inputs]).encode()).hexdigest()[:16]
        self.places.append(jobs.join(self.root, f"{name}-{key}"))
        return self.places[-1]

    def _run(self, name: str, place: str, inputs: str, texts_: list[str], steps: Any) -> Any:
        """Run a pipeline, if it is not finished; return the list of its files."""
        listed = jobs.join(place, jobs.LIST)
        if not jobs.is_there(listed):
            jobs.delete(place)
            jobs.make_folder(place)
            jobs.write_bytes(inputs, json.dumps(texts_).encode())
            jobs.run(name, steps, self.runner)
        return json.loads(jobs.read_bytes(listed))
