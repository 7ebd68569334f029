"""The pipelines: the only module that imports Apache Beam.

Every file that a worker writes has a name of its own, and a job's last step writes the list of
those that count. Work that Beam does twice, or that is killed, leaves files that no list names.
"""

import atexit
import contextlib
import json
import logging
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from jmrec.data.beam import rows as work
from jmrec.data.beam.options import Runner, StoppedError
from jmrec.data.beam.quiet import quiet_imports, quiet_workers
from jmrec.data.beam.recorder import Recorder, Step, merged, plain
from jmrec.data.beam.rows import Job, Key, Rows
from jmrec.data.beam.shards import pack_blobs, packed
from jmrec.data.beam.stretches import Block, Plan, Stretch, look_at, read_stretch
from jmrec.data.folder_pictures import picture_bytes
from jmrec.data.pictures import picture_path, picture_problem, shrink
from jmrec.data.sources import Source
from jmrec.errors import UserError

with quiet_imports():
    import apache_beam as beam
    from apache_beam.io.filesystem import CompressionTypes
    from apache_beam.io.filesystems import FileSystems
    from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions
    from apache_beam.portability.api import beam_provision_api_pb2
    from apache_beam.pvalue import AsDict, AsIter, AsSingleton
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner
    from apache_beam.runners.portability.fn_api_runner.fn_runner import ExtendedProvisionInfo
    from apache_beam.runners.portability.portable_runner import JobServiceHandle
    from apache_beam.transforms.environments import (
        EmbeddedPythonGrpcEnvironment,
        python_sdk_capabilities,
    )

_RUNNERS = {"dataflow": "DataflowRunner", "flink": "FlinkRunner", "spark": "SparkRunner"}
LIST = "list.json"
"""What a finished job writes last: its files, by kind."""
FILES = ("users", "sessions", "ratings", "pictures")
RECORDS = "records"
"""What was found, step by step."""


def write_bytes(path: str, data: bytes) -> None:
    """Write a file of any file system that Beam knows."""
    with FileSystems.create(path) as file:
        file.write(data)


def read_bytes(path: str) -> bytes:
    """Read one."""
    with FileSystems.open(path) as file:
        return bytes(file.read())


def is_remote(folder: str | Path) -> bool:
    """Return whether a folder is an address of another file system, such as gs://mine/shop."""
    return "://" in str(folder)


def _copy(address: str, path: Path) -> None:
    with (
        FileSystems.open(address, compression_type=CompressionTypes.UNCOMPRESSED) as file,
        path.open("wb") as out,
    ):
        shutil.copyfileobj(file, out, 2**20)


@lru_cache(maxsize=8)
def fetched(address: str) -> Path:
    """Copy a file of another file system to this machine, once for each process."""
    return _own_folder(address) / address.rsplit("/", 1)[-1]


def _own_folder(address: str) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="jmrec-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    _copy(address, folder / address.rsplit("/", 1)[-1])
    return folder


def mirror(address: str, folder: Path) -> dict[str, list[float]]:
    """Copy the tables that a catalogue folder of another file system holds.

    Args:
      address: Of the folder.
      folder: Gets its tables and its description; of each file in a folder of its own, such as a
        picture, an empty file.

    Returns:
      Path in the folder -> size and time of the last change.

    Raises:
      UserError: There is nothing.
    """
    states: dict[str, list[float]] = {}
    try:
        (found,) = FileSystems.match([join(address, "**")])
    except Exception as error:  # each file system has its own
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{address} can not be read ({reason}); check the address.") from None
    for each in found.metadata_list:
        name = each.path.removeprefix(f"{address}/")
        plain = not Path(name).is_absolute() and ".." not in Path(name).parts
        if not plain or name.endswith("/"):  # some file systems list folders too
            continue
        states[name] = [each.size_in_bytes, each.last_updated_in_seconds]
        if "/" not in name:
            _copy(each.path, folder / name)
            continue
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    if not states:
        raise UserError(f"{address} holds no files; name a folder with items and interactions.")
    return states


def _picture(folder: str, name: str, under: str) -> tuple[bytes, str]:
    """Return the file that a cell names and, where it can not be had, why."""
    if not name or not is_remote(folder):
        return picture_bytes(Path(folder), name, under)
    path = picture_path(name, under)
    with tempfile.TemporaryDirectory() as temporary:
        own = Path(temporary) / under
        own.mkdir(parents=True)
        plain = "\0" not in path and not Path(path).is_absolute() and ".." not in Path(path).parts
        if plain and FileSystems.exists(join(folder, under, path)):
            (own / path).parent.mkdir(parents=True, exist_ok=True)
            _copy(join(folder, under, path), own / path)
        return picture_bytes(Path(temporary), name, under)


def join(folder: str, *names: str) -> str:
    """Return the path of a file in a folder."""
    return str(FileSystems.join(folder, *names))


def is_there(path: str) -> bool:
    """Return whether a file exists."""
    return bool(FileSystems.exists(path))


def make_folder(path: str) -> None:
    """Make a folder, if it does not exist."""
    if not FileSystems.exists(path):
        FileSystems.mkdirs(path)


def delete(path: str) -> None:
    """Delete a folder and all that is in it, if it exists; some file systems know only files."""
    if FileSystems.exists(path):
        FileSystems.delete([path])
    elif is_remote(path):
        found = FileSystems.match([join(path, "**")])[0].metadata_list
        if found:
            FileSystems.delete([each.path for each in found])


@lru_cache(maxsize=2)
def _texts(path: str) -> list[str]:
    found: list[str] = json.loads(read_bytes(path))
    return found


def run(name: str, build: Callable[[Any], None], runner: Runner) -> None:
    """Build a pipeline and wait for its end.

    Args:
      name: What it is of, for messages.
      build: Adds the steps to a pipeline.
      runner: Where it runs.

    Raises:
      StoppedError: It did not come to its end.
    """
    flags = list(runner.options)
    if not any(flag.startswith("--default_sdk_harness_log_level") for flag in flags):
        flags.append("--default_sdk_harness_log_level=ERROR")
    options = PipelineOptions(flags)
    direct = runner.name == "direct"
    processes = options.view_as(DirectOptions).direct_running_mode == "multi_processing"
    logging.getLogger("apache_beam").setLevel(logging.ERROR)
    where: Any = _direct(options) if direct else _RUNNERS[runner.name]
    try:
        pipeline = beam.Pipeline(runner=where, options=options)
        build(pipeline)
        with quiet_workers() if direct and processes else contextlib.nullcontext():
            state = str(pipeline.run().wait_until_finish() or "DONE")
    except (UserError, KeyboardInterrupt):
        raise
    except Exception as error:
        if direct:
            raise  # a slip of ours
        state = f"{type(error).__name__} ({' '.join(str(error).split())[:200]})"
    if state != "DONE":
        raise StoppedError(
            f"--runner={runner.name}: the pipeline of the {name} ended as {state}; mend what the "
            "runner says and start the same command again, what is finished is not done again."
        )


def _direct(options: PipelineOptions) -> FnApiRunner:
    """Return what runs a pipeline on this machine.

    It is not Beam's DirectRunner, which first looks for a server of its own on the network. Threads
    get workers that send what they have after each so many bytes and never after so many
    milliseconds: those of Beam do so in the middle of an element, which then is garbage.
    """
    encoded = JobServiceHandle.encode_pipeline_options(options.get_all_options())
    told = beam_provision_api_pb2.ProvisionInfo(pipeline_options=encoded)
    direct, environment = options.view_as(DirectOptions), None
    if direct.direct_running_mode == "multi_threading":
        direct.direct_running_mode = "in_memory"
        environment = EmbeddedPythonGrpcEnvironment(
            data_buffer_time_limit_ms=-1, capabilities=python_sdk_capabilities()
        )
    return FnApiRunner(environment, provision_info=ExtendedProvisionInfo(told))


class _Write(beam.DoFn):
    """(key, columns) -> (kind, (key, file name)): writes each to a file of its own."""

    def __init__(self, kind: str, folder: str) -> None:
        self.kind, self.folder = kind, folder

    def process(self, element: tuple[Any, Mapping[str, Any]]) -> Iterator[Any]:
        key, columns = element
        name = f"{self.kind}-{uuid.uuid4().hex}.npz"
        write_bytes(join(self.folder, name), packed(columns))
        yield self.kind, (key, name)


def _listed(lists: Any, folder: str, facts: Mapping[str, Any]) -> None:
    """Write the list of a job's files, and some facts, when all of them are written."""

    def finish(_: Any, files: Iterable[tuple[str, Any]], **more: Any) -> None:
        found: dict[str, list[Any]] = {kind: [] for kind in FILES}
        for kind, entry in files:
            found[kind].append(entry)
        about = {kind: sorted(entries) for kind, entries in found.items()}
        about |= {name: list(values) for name, values in more.items()}
        name = join(folder, f"{uuid.uuid4().hex}.tmp")
        write_bytes(name, json.dumps(about).encode())
        FileSystems.rename([name], [join(folder, LIST)])

    pipeline = lists.pipeline
    _ = (
        pipeline
        | "End" >> beam.Create([None])
        | "WriteList" >> beam.Map(finish, AsIter(lists), **facts)
    )


# Pictures


class _Pictures(beam.DoFn):
    """(first, last) rows -> their pictures, checked and as they are stored."""

    def __init__(self, folder: str, under: str, names: str, size: int) -> None:
        self.folder, self.under, self.names, self.size = folder, under, names, size

    def process(self, element: tuple[int, int]) -> Iterator[Any]:
        first, last = element
        unread, undecoded, stored, raw = [], [], [], []
        for name in _texts(self.names)[first:last]:
            data, problem = _picture(self.folder, name, self.under)
            broken = picture_problem(data)
            small = b"" if broken else shrink(data, self.size)
            unread.append(problem)
            undecoded.append(broken)
            stored.append(small)
            raw.append(b"" if broken or small == data else data)  # the fingerprint is of these
        columns = pack_blobs("stored", stored) | pack_blobs("raw", raw)
        yield first, {"unread": unread, "undecoded": undecoded, **columns}


def pictures(
    folder: str, under: str, names: str, count: int, size: int, block: int, out: str
) -> Any:
    """Return what adds the steps that read, check and shrink the pictures of a catalogue.

    Args:
      folder: The catalogue folder, or its address.
      under: The folder of the pictures in it.
      names: The file with the names of the pictures.
      count: How many items there are.
      size: The longest side of a stored picture.
      block: How many items a worker takes at a time.
      out: The folder of the files.
    """
    parts = [(first, min(first + block, count)) for first in range(0, count, block)]

    def build(pipeline: Any) -> None:
        lists = (
            pipeline
            | "Items" >> beam.Create(parts, reshuffle=True)
            | "Pictures" >> beam.ParDo(_Pictures(folder, under, names, size))
            | "WritePictures" >> beam.ParDo(_Write("pictures", out))
        )
        _listed(lists, out, {})

    return build


# Events


def _source(job: Job, stretch: Stretch) -> Source:
    """Return the file of a stretch as it lies on this machine."""
    source = job.sources[stretch.file]
    return replace(source, path=fetched(join(job.address, source.name))) if job.address else source


class _Read(beam.DoFn):
    """Stretch -> blocks of rows; what was found comes out beside them."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def process(self, stretch: Stretch, plans: Mapping[int, Plan]) -> Iterator[Any]:
        job = self.job
        first = job.table_of(stretch.file)[0], work.READ, stretch.file
        recorder = Recorder(first, {}, job.now)
        try:
            yield from read_stretch(
                stretch, plans[stretch.file], _source(job, stretch), job.columns, job.texts,
                job.description.items.list_separator, recorder, job.block,
            )  # fmt: skip
        except UserError as error:
            recorder.error(stretch.number, error)
        for record in recorder.records.items():
            yield beam.pvalue.TaggedOutput(RECORDS, record)


class _Ask(beam.DoFn):
    """Block -> what its rows tell of the whole, where that is asked for next."""

    def __init__(self, job: Job, ids: str) -> None:
        self.job, self.ids = job, ids

    def process(self, block: Block, known: Mapping[Step, Any]) -> Iterator[Any]:
        _, _, asked = work.walk(block, self.job, _texts(self.ids), known)
        yield from work.asked_parts(asked, self.job.parts)


class _Walk(beam.DoFn):
    """Block -> its events; what was found comes out beside them."""

    def __init__(self, job: Job, ids: str) -> None:
        self.job, self.ids = job, ids

    def process(self, block: Block, known: Mapping[Step, Any]) -> Iterator[Any]:
        rows, records, _ = work.walk(block, self.job, _texts(self.ids), known)
        for record in records.items():
            yield beam.pvalue.TaggedOutput(RECORDS, record)
        if rows is not None:
            yield rows


def _known(pipeline: Any, blocks: Any, job: Job, ids: str) -> Any:
    """Return what the whole columns tell, asked for round by round."""
    known = pipeline | "NothingKnown" >> beam.Create([{}])
    for number in range(work.rounds(job)):
        told = (
            blocks
            | f"Ask{number}" >> beam.ParDo(_Ask(job, ids), AsSingleton(known))
            | f"Parts{number}" >> beam.GroupByKey()
            | f"MergeParts{number}" >> beam.Map(work.settled)
            | f"Merge{number}" >> beam.CombinePerKey(merged)
        )
        known = (
            pipeline
            | f"Round{number}" >> beam.Create([None])
            | f"Known{number}"
            >> beam.Map(
                lambda _, known, told: work.more_known(known, told),
                AsSingleton(known),
                AsIter(told),
            )
        )
    return known


def _sessions(part: tuple[int, Iterable[Rows]], description: Any) -> tuple[int, dict[str, Any]]:
    number, blocks = part
    made, names, first, given = work.sessions_in(blocks, description)
    columns = {
        name: getattr(made, name)
        for name in ("users", "offsets", "items", "times", "events", "ratings", "targets")
    }
    return number, {**columns, "ids": made.ids, "names": names, "first": first, "given": given}


def _ratings(rows: Rows) -> tuple[Key, dict[str, Any]]:
    columns: dict[str, Any] = {
        "item": rows.item, "event": rows.event, "rating": rows.rating, "label": rows.label,
        "time": rows.time, "order": rows.order, "user": rows.user, "review": rows.review,
    }  # fmt: skip
    return rows.key, {name: column for name, column in columns.items() if column is not None}


def _users(part: tuple[int, Iterable[Any]]) -> tuple[int, dict[str, Any]]:
    number, found = part
    names, first = work.first_of(found)
    return number, {"names": names, "first": first}


def events(job: Job, stretches: Sequence[Stretch], ids: str, out: str, *, sessions: bool) -> Any:
    """Return what adds the steps that read the events of a folder and make its sessions.

    Args:
      job: What they are read as.
      stretches: Of all files.
      ids: The file with the ids of the items.
      out: The folder of the files.
      sessions: Whether sessions are made.
    """

    def build(pipeline: Any) -> None:
        cut = pipeline | "Stretches" >> beam.Create(list(stretches), reshuffle=True)
        plans = (
            cut
            | "Look" >> beam.Map(lambda s: (s.file, look_at(s, _source(job, s))))
            | "Looks" >> beam.GroupByKey()
            | "Plan" >> beam.Map(lambda found: (found[0], Plan.of(found[1])))
        )
        read = cut | "Read" >> beam.ParDo(_Read(job), AsDict(plans)).with_outputs(
            RECORDS, main="blocks"
        )
        blocks = read.blocks | "Share" >> beam.Reshuffle()
        known = _known(pipeline, blocks, job, ids)
        walked = blocks | "Walk" >> beam.ParDo(_Walk(job, ids), AsSingleton(known)).with_outputs(
            RECORDS, main="rows"
        )
        records = (
            (read[RECORDS], walked[RECORDS])
            | "Records" >> beam.Flatten()
            | "MergeRecords" >> beam.CombinePerKey(merged)
            | "Sentences" >> beam.Map(lambda found: (found[0], plain(found[1])))
        )
        counts = walked.rows | "Count" >> beam.Map(lambda rows: (rows.key, len(rows)))
        names = (
            walked.rows
            | "Names" >> beam.Map(lambda rows: (rows.key[0], rows.event_names))
            | "OneOfAFile" >> beam.CombinePerKey(_any)
        )
        placed = walked.rows | "Place" >> beam.Map(work.placed, AsIter(counts), AsDict(names))
        lists = [
            placed
            | "Users" >> beam.FlatMap(work.users_of, job.parts)
            | "UsersOfPart" >> beam.GroupByKey()
            | "FirstOfUsers" >> beam.Map(_users)
            | "WriteUsers" >> beam.ParDo(_Write("users", out))
        ]
        if sessions:
            lists.append(
                placed
                | "BySession" >> beam.FlatMap(work.by_session, job.parts)
                | "EventsOfPart" >> beam.GroupByKey()
                | "Sessions" >> beam.Map(_sessions, job.description)
                | "WriteSessions" >> beam.ParDo(_Write("sessions", out))
            )
        if job.description.interactions.label:
            lists.append(
                placed
                | "Ratings" >> beam.Map(_ratings)
                | "WriteRatings" >> beam.ParDo(_Write("ratings", out))
            )
        facts = {
            RECORDS: AsIter(records),
            "counts": AsIter(counts),
            "names": AsIter(names),
        }
        _listed(lists | beam.Flatten(), out, facts)

    return build


def _any(values: Iterable[Any]) -> Any:
    return next(iter(values))
