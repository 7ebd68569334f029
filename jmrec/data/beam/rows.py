"""What a worker does with rows: read what they mean, and make the sessions of some ids."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from jmrec.data.beam.recorder import Record, Recorder, Step, UndecidedError, merged
from jmrec.data.beam.stretches import Block
from jmrec.data.description import Description
from jmrec.data.events import as_meant, columns_of, read_events, texts_of
from jmrec.data.findings import part_of
from jmrec.data.folder import Raw
from jmrec.data.json_rows import Numeric
from jmrec.data.missing import MISSING
from jmrec.data.schema import Items, Sessions
from jmrec.data.sessions import sessions_of
from jmrec.data.several import one_of
from jmrec.data.sources import JSON, Source
from jmrec.data.tables import FILE_ROWS, Table
from jmrec.errors import UserError

READ, MEANT = 0, 1
"""Second number of a step, after its table's: of the reading of cells, of what they mean."""
TEST = "test:"
"""What comes before the session ids of a test split that is given."""
_NO_NUMBERS = Numeric(frozenset(), frozenset())
Key = tuple[int, int, int]
"""File, stretch and part: the place of a block among all blocks."""


@dataclass(frozen=True)
class Job:
    """What workers have to know of a folder.

    Attributes:
      description: What the columns mean.
      sources: Its files of events, those of a test split last.
      numeric: Which columns each of them holds as numbers, where the file itself says so.
      now: Unix seconds at which all began.
      parts: In how many parts sessions, users and evidence are grouped.
      block: How many rows are worked on together.
      address: Of the folder, where it is on another file system; else "".
    """

    description: Description
    sources: tuple[Source, ...]
    numeric: tuple[frozenset[str], ...]
    now: float
    parts: int
    block: int
    address: str = ""

    @property
    def described(self) -> Description:
        """What the columns mean; `MISSING`, where it is not said, is the same object everywhere."""
        given = "dataset.missing" in self.description.given
        return self.description if given else replace(self.description, missing=MISSING)

    def table_of(self, file: int) -> range:
        """Return which files are one table with a file."""
        train = len(self.description.files("interactions"))
        return range(train) if file < train else range(train, len(self.sources))

    @property
    def columns(self) -> set[str]:
        """The columns of the files that are read."""
        return columns_of(self.description, "interactions")

    @property
    def texts(self) -> set[str]:
        """Those whose cells may hold line breaks."""
        return texts_of(self.description, "interactions")


@dataclass(frozen=True)
class Rows:
    """N events that are valid, in the file's order.

    Attributes:
      key: The block that they are from.
      test: Whether they are of a test split that is given.
      item: int32 [N] item rows.
      session: N ids of sessions, None where the data has none.
      user: N ids of users, "" for a guest; None where the data has none.
      time: float64 [N] unix seconds, or None.
      order: float64 [N], or None.
      event: int32 [N]; codes of ``event_names`` of the file.
      event_names: Names of these.
      rating: float32 [N], NaN where empty.
      label: int8 [N], None where the description declares none.
      review: N texts, None without labels.
      position: int64 [N], places among all events; none where they are not known yet.
    """

    key: Key
    test: bool
    item: np.ndarray
    session: pa.Array | None
    user: pa.Array | None
    time: np.ndarray | None
    order: np.ndarray | None
    event: np.ndarray
    event_names: list[str]
    rating: np.ndarray
    label: np.ndarray | None
    review: pa.Array | None
    position: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self.item)

    def take(self, index: np.ndarray) -> "Rows":
        """Return the events at ``index`` (int [K]) without labels and reviews."""
        at = pa.array(index)
        return replace(
            self,
            item=self.item[index],
            session=None if self.session is None else self.session.take(at),
            user=None if self.user is None else self.user.take(at),
            time=None if self.time is None else self.time[index],
            order=None if self.order is None else self.order[index],
            event=self.event[index],
            rating=self.rating[index],
            label=None,
            review=None,
            position=self.position[index],
        )


def walk(
    block: Block, job: Job, ids: Sequence[str], known: Mapping[Step, Any]
) -> tuple[Rows | None, dict[Step, Record], dict[Step, Any]]:
    """Return what rows mean, as far as is known.

    Args:
      block: The rows.
      job: What they are read as.
      ids: The item ids, in row order.
      known: Step -> what the whole column tells.

    Returns:
      The events, or None; what was found; and, where something of the whole has to be known first,
      step -> what these rows tell of it.
    """
    description, files = job.described, job.table_of(block.file)
    recorder = Recorder((files[0], MEANT), known, job.now)
    sources = [job.sources[file] for file in files]
    try:
        table = _as_one(block, job, recorder)
        table = as_meant(table, sources, description, "interactions", recorder, ids)
        found = read_events(table, description, ids, recorder)
    except UndecidedError as error:
        return None, recorder.records, error.asked
    except UserError as error:
        recorder.error(block.file * FILE_ROWS + block.number, error)
        return None, recorder.records, {}
    columns = description.interactions
    cells = found.table.columns
    rows = Rows(
        key=(block.file, block.number, block.part),
        test=files[0] > 0,
        item=found.item,
        session=cells[columns.session] if columns.session else None,
        user=cells[columns.user] if columns.user else None,
        time=found.time,
        order=found.order,
        event=found.event,
        event_names=found.event_names,
        rating=found.rating,
        label=found.label,
        review=None
        if found.label is None or found.review is None
        else pa.array(found.review, pa.string()),
    )
    return rows, recorder.records, {}


def _as_one(block: Block, job: Job, recorder: Recorder) -> Table:
    """Return the rows of a block as rows of the table that its file is, or is a part of."""
    files, decimal = job.table_of(block.file), job.description.decimal
    names = [name for name in job.sources[files[0]].header if name in job.columns]
    numeric = [job.numeric[file] for file in files]
    if decimal != ".":
        json = [file for file in files if job.sources[file].kind == JSON]
        own = [block.numeric if file == block.file else None for file in json]
        told = recorder.together(*(partial(recorder.whole, n or _NO_NUMBERS) for n in own))
        for file, each in zip(json, told):
            numeric[file - files[0]] = each.columns
    columns = {name: block.table.columns[name] for name in names}
    table = replace(block.table, columns=columns)
    if len(files) == 1:
        return replace(table, numeric=numeric[0])
    names_ = tuple(job.sources[file].name for file in files)
    return one_of(table, block.file - files[0], names_, numeric, decimal)


def rounds(job: Job) -> int:
    """Return how often workers have to ask for what the whole columns tell.

    It is found out by walks without rows, for which calls come in the same order.
    """
    known: dict[Step, Any] = {}
    count = 0
    while asked := [each for file in range(len(job.sources)) for each in _asked(job, file, known)]:
        known |= dict(asked)
        count += 1
    return count


def _asked(job: Job, file: int, known: Mapping[Step, Any]) -> Iterable[tuple[Step, Any]]:
    source = job.sources[file]
    columns = {name: pa.array([], pa.string()) for name in source.header if name in job.columns}
    none = Table(source.name, columns, np.zeros(0, np.int64))
    block = Block(file, 0, 0, none)
    return walk(block, job, [], known)[2].items()


def asked_parts(asked: Mapping[Step, Any], count: int) -> Iterable[tuple[tuple[Step, int], Any]]:
    """Yield what rows tell of the whole, in parts where it may be large."""
    for step, evidence in asked.items():
        if hasattr(evidence, "parts"):
            for part, each in enumerate(evidence.parts(count)):
                yield (step, part), each
        else:
            yield (step, 0), evidence


def settled(part: tuple[tuple[Step, int], Iterable[Any]]) -> tuple[Step, Any]:
    """Return what matters of a part that all stretches have told."""
    (step, _), told = part
    evidence = merged(told)
    return step, evidence.settled() if hasattr(evidence, "settled") else evidence


def more_known(known: Mapping[Step, Any], told: Iterable[tuple[Step, Any]]) -> dict[Step, Any]:
    """Return what is known after a round."""
    return dict(known) | dict(told)


def placed(rows: Rows, counts: Iterable[tuple[Key, int]], names: Mapping[int, list[str]]) -> Rows:
    """Return events with their places among all, and with one coding of types of events.

    Args:
      rows: The events.
      counts: How many events each block has.
      names: File -> names of its types of events.
    """
    before = sum(count for key, count in counts if key < rows.key)
    every = event_names(names)
    code = {name: at for at, name in enumerate(every)}
    own = np.array([code[name] for name in rows.event_names], np.int32)
    return replace(
        rows,
        event=own[rows.event],
        event_names=every,
        position=np.arange(before, before + len(rows)),
    )


def event_names(names: Mapping[int, list[str]]) -> list[str]:
    """Return the names of types of events of all files; those of the first keep their codes."""
    first, *others = [names[file] for file in sorted(names)] or [[""]]
    return first + sorted({each for other in others for each in other} - set(first))


def by_session(rows: Rows, parts: int) -> Iterable[tuple[int, Rows]]:
    """Yield the events of a block by the part that their session belongs to."""
    names = rows.user if rows.session is None else rows.session
    assert names is not None  # describe() refuses data with neither
    coded = names.dictionary_encode()
    part = np.array([part_of(name, parts) for name in coded.dictionary.to_pylist()], np.int64)
    owner = part[np.asarray(coded.indices)]
    for each in np.unique(owner):
        yield int(each), rows.take(np.flatnonzero(owner == each))


def users_of(rows: Rows, parts: int) -> Iterable[tuple[int, tuple[pa.Array, np.ndarray]]]:
    """Yield the users of a block and the places of their first events, by part."""
    if rows.user is None:
        return
    coded = rows.user.dictionary_encode()
    codes = np.asarray(coded.indices)
    first = np.zeros(len(coded.dictionary), np.int64)
    first[codes[::-1]] = rows.position[::-1]
    names = coded.dictionary.to_pylist()
    part = np.array([part_of(name, parts) if name else -1 for name in names], np.int64)
    for each in np.unique(part[part >= 0]):
        at = np.flatnonzero(part == each)
        yield int(each), (coded.dictionary.take(pa.array(at)), first[at])


def first_of(users: Iterable[tuple[pa.Array, np.ndarray]]) -> tuple[pa.Array, np.ndarray]:
    """Return the users of a part, each once, and the places of their first events."""
    found = list(users)
    names = pa.concat_arrays([each for each, _ in found]).dictionary_encode()
    first = np.full(len(names.dictionary), np.iinfo(np.int64).max)
    np.minimum.at(first, np.asarray(names.indices), np.concatenate([each for _, each in found]))
    return names.dictionary, first


def sessions_in(
    blocks: Iterable[Rows], description: Description
) -> tuple[Sessions, list[str], np.ndarray, np.ndarray]:
    """Return the sessions of a part.

    Args:
      blocks: All events of some sessions.
      description: What the columns mean.

    Returns:
      The sessions, whose users are codes of the names that follow; int64 [S], the place of each
      one's first event; and bool [S], which are of a test split that is given.
    """
    some = sorted((each for each in blocks if len(each)), key=lambda each: each.key)
    user = None
    if some[0].user is not None:
        coded = pa.concat_arrays([each.user for each in some]).dictionary_encode()
        names = coded.dictionary.to_pylist()
        code = np.array([-1 if not name else at for at, name in enumerate(names)], np.int64)
        user = (code[np.asarray(coded.indices)], names)
    raw = Raw(
        description=description,
        items=Items([], [], {}, []),
        item=np.concatenate([each.item for each in some]),
        session=_session_codes(some),
        user=user,
        time=_joined([each.time for each in some]),
        order=_joined([each.order for each in some]),
        event=np.concatenate([each.event for each in some]),
        event_names=some[0].event_names,
        rating=np.concatenate([each.rating for each in some]),
        row=np.zeros(0, np.int64),
        item_row=np.zeros(0, np.int64),
        picture_names=[],
    )
    position = np.concatenate([each.position for each in some])
    made, first = sessions_of(raw, position)
    train = sum(len(each) for each in some if not each.test)
    edge = position[train] if train < len(position) else np.iinfo(np.int64).max
    return made, [] if user is None else user[1], first, first >= edge


def _session_codes(some: Sequence[Rows]) -> tuple[np.ndarray, list[str]] | None:
    """Return codes of sessions and their ids; none of a test split is one of the other file."""
    if some[0].session is None:
        return None
    codes: list[np.ndarray] = []
    names: list[str] = []
    for test in (False, True):
        own = [each.session for each in some if each.test == test]
        if own:
            coded = pa.concat_arrays(own).dictionary_encode()
            codes.append(np.asarray(coded.indices) + len(names))
            names += [TEST * test + name for name in coded.dictionary.to_pylist()]
    return np.concatenate(codes).astype(np.int32), names


def _joined(columns: Sequence[np.ndarray | None]) -> np.ndarray | None:
    some = [each for each in columns if each is not None]
    return np.concatenate(some) if some else None
