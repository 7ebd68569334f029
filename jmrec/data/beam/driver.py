"""A catalogue folder prepared by pipelines, and put together by the one that starts them.

Pipelines read, check and shrink the pictures, and read, check and group the events. The starter
reads the description and the table of items, decides from the workers' sums what to say, and
holds what `load_prepared` would hold of the sessions and rows with labels: it splits them,
filters, hashes and writes. Of pictures it holds one at a time, and a file of stored ones.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from jmrec.data import records
from jmrec.data.beam.options import Runner, StoppedError
from jmrec.data.beam.recorder import replay
from jmrec.data.beam.staged import SIZES, Sizes, Stage
from jmrec.data.findings import Findings
from jmrec.data.folder import read_items, two_classes
from jmrec.data.folder_pictures import elsewhere, report_pictures, undecoded
from jmrec.data.prepared import (
    EVERY,
    PICTURE_SIZE,
    check_labels,
    finished,
    is_there,
    load_prepared,
    write,
)
from jmrec.data.ratings import make_ratings
from jmrec.data.schema import SPLITS, Dataset
from jmrec.data.sessions import check_targets, no_sessions
from jmrec.data.splits import split_as_described
from jmrec.data.unused import unused
from jmrec.errors import UserError


def prepare(
    folder: str | Path,
    toml: str | Path | None,
    out: str | Path,
    *,
    runner: Runner,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
    keep_single: bool = False,
    picture_size: int | None = None,
    back: int = 0,
    sessions: bool = True,
    targets: str = EVERY,
    strict: bool = False,
    with_records: bool = False,
    sizes: Sizes = SIZES,
    warn: Callable[[str], None] = lambda sentence: None,
) -> Dataset:
    """Prepare a catalogue folder by pipelines; the result is that of `jmrec.data.prepared.prepare`.

    What a pipeline has finished stays beside ``out`` until all is done: started again after a
    kill, with the same files and settings, it is not done again.

    Args:
      folder: The catalogue folder, under the same path for all workers, or its address on a file
        system that Beam knows.
      toml: A description to use instead of ``folder/dataset.toml``, or None.
      out: The folder to write; it must not exist, be empty, or hold the same data.
      runner: Where the pipelines run.
      fractions: See `jmrec.data.prepared.prepare`, as all that follow but ``sizes``.
      keep_single: The same.
      picture_size: The same.
      back: The same.
      sessions: The same.
      targets: The same.
      strict: The same.
      with_records: The same.
      sizes: How the work is cut.
      warn: The same.

    Returns:
      The data set; its pictures are empty, whatever was written.

    Raises:
      UserError: if the folder is not valid, a pipeline fails, or ``out`` holds something else.
    """
    out = Path(out)
    stage = Stage(folder, toml, out, runner, sizes)
    settings: dict[str, Any] = {
        "fractions": fractions, "keep_single": keep_single, "back": back, "targets": targets,
        "picture_size": picture_size,
    }  # fmt: skip
    try:
        dataset, pictures = _dataset(
            stage, Findings(strict), warn, sessions=sessions, settings=settings
        )
        if is_there(dataset, out, folder):
            if with_records:
                records.write_rest(load_prepared(out), out)
        else:
            write(_with(dataset, pictures), out, with_records)
    except StoppedError:
        raise  # what is finished is not done again
    except UserError:
        stage.clean()
        raise
    stage.clean()
    return _with(dataset, [b""] * len(dataset.items))


def _with(dataset: Dataset, pictures: Sequence[bytes]) -> Dataset:
    items = replace(dataset.items, pictures=cast(list[bytes], pictures))
    return replace(dataset, items=items)


def _dataset(
    stage: Stage,
    findings: Findings,
    warn: Callable[[str], None],
    *,
    sessions: bool,
    settings: dict[str, Any],
) -> tuple[Dataset, Sequence[bytes]]:
    """Return the data set with the pictures of the folder, and the pictures as they are stored."""
    description = stage.description
    for sentence in unused(description):
        findings.note(sentence)
    table, items, names = read_items(stage.folder, description, findings)
    pictures = stage.pictures(names, settings["picture_size"] or PICTURE_SIZE)
    unread = elsewhere(stage.folder, names, pictures.unread, description.items.pictures)
    report_pictures(table, names, unread, findings)
    report_pictures(table, names, [undecoded(each) for each in pictures.undecoded], findings)
    items = replace(items, pictures=cast(list[bytes], pictures.raw))
    made = stage.events(items.ids, sessions=sessions)
    replay(made.found, findings)
    raw = made.raw(description, items)
    labelled = raw.label is not None
    if raw.label is not None:
        two_classes(raw, raw.label, findings)
    for warning in findings.warnings:
        warn(warning)
    check_labels(description, sessions=sessions, labelled=labelled)
    splits = dict.fromkeys(SPLITS, no_sessions())
    if sessions:
        check_targets(description, raw.event_names)
        whole, test = made.sessions()
        splits = split_as_described(
            whole, description, settings["fractions"], keep_single=settings["keep_single"],
            back=settings["back"], test=test if description.test_file else None, labelled=labelled,
        )  # fmt: skip
    dataset = Dataset(
        name=description.name,
        items=items,
        splits=splits,
        exclude_seen=description.exclude_seen,
        fingerprint="",
        has_time=bool(description.interactions.time),
        has_users=bool(made.users),
        event_names=raw.event_names,
        ratings=make_ratings(raw) if labelled else None,
    )
    return finished(dataset, description, sessions=sessions, **settings), pictures.stored
