"""What a run remembers of sessions that came after training: where it lies, how it is read."""

import hashlib
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import numpy as np

from jmrec.config import resolve_path
from jmrec.data.description import Description, describe
from jmrec.data.findings import Findings
from jmrec.data.forgotten import SESSION, Forgotten, Person
from jmrec.data.live import Events, gather_events, sessions_of
from jmrec.data.new_sessions import read_begin, without_people
from jmrec.data.remembered import (
    BEGIN,
    Reading,
    Remembered,
    batch_name,
    read_remembered,
    write_batch,
)
from jmrec.data.roles import ValueColumns
from jmrec.data.schema import Dataset
from jmrec.data.several import time_forms
from jmrec.data.sources import open_source
from jmrec.data.tables import read_table
from jmrec.data.times import read_times
from jmrec.data.units import UNITS
from jmrec.errors import UserError
from jmrec.files import read_json
from jmrec.lock import Changes
from jmrec.systems.data import FORGOTTEN, SOURCE
from jmrec.systems.system import Ranks

REMEMBERED = "remembered"
"""The folder of a workdir that holds it."""


def remembered_of(system: Ranks) -> Remembered | None:
    """Return what a run remembers; None where that is nothing.

    Raises:
      UserError: It is damaged, or the data was prepared in another way since.
    """
    folder = system.work.workdir / REMEMBERED
    found = read_remembered(folder)
    if found is None:
        return None
    prepared = _prepared_with(system, found.reading.description.toml)
    other = prepared is not None and prepared != found.reading.toml
    if other or found.reading.has_time != system.data.dataset.has_time:
        raise UserError(
            f"{folder} is of data that was prepared in another way; delete it and remember again "
            "what came since."
        )
    return found


def _prepared_with(system: Ranks, name: str) -> str | None:
    """Return the SHA-256 of the description that the data was prepared with, "" without one.

    None where nothing is known of it: the data of ToyShop, or of an older jmrec.
    """
    path = system.work.workdir / "data" / SOURCE
    return str(read_json(path).get(name, ["", "", ""])[2]) if path.is_file() else None


def nothing_yet(system: Ranks, folder: Path | None = None) -> Remembered:
    """Return what a run knows before anything is remembered: how files of new sessions are read.

    Args:
      system: A finished run.
      folder: The catalogue folder; None is the run's own.

    Returns:
      It, with what the folder holds and preparing left out.

    Raises:
      UserError: The folder is not there, or its description was edited since.
    """
    config, workdir = system.work.config.data, system.work.workdir
    own = resolve_path(config.dir) if config.get("dir") else workdir / "data" / "toyshop"
    source = folder or own
    if not source.is_dir():
        raise UserError(
            f"{source} is not here, whose description says how sessions are read; name the "
            "catalogue folder with --dir."
        )
    toml = resolve_path(config.toml) if config.get("toml") else None
    path = source / "dataset.toml" if toml is None else toml
    now = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
    if _prepared_with(system, path.name) not in (None, now):
        raise UserError(
            f"{path.name} was edited since the data was prepared, so that new sessions would be "
            "read in another way than the old ones; put it back, or run anew."
        )
    description = replace(describe(source, toml), value=ValueColumns())
    dataset = system.data.dataset
    none = Remembered(Reading(_with_times(description, source), dataset.has_time, now))
    forgotten = Forgotten.read(workdir / FORGOTTEN)
    return replace(none, begin=read_begin(source, dataset, none, forgotten))


def _with_times(description: Description, folder: Path) -> Description:
    """Return a description that says how times are written, if all events together tell it.

    A few new ones alone might be read in another way: 03/04 as the third of April.
    """
    column = description.interactions.time
    if description.time_format or not column or column in description.joined:
        return description
    form = description.form("interactions")
    sources = [
        open_source(folder, "interactions", f, form) for f in description.files("interactions")
    ]
    cells = [read_table(each, {column}, Findings(), texts=[]).columns[column] for each in sources]
    forms = [""]
    for part, told in zip(cells, time_forms(cells)):
        found = read_times(part, told)
        unit = found.unit if found.unit in UNITS else ""
        forms += [told or found.time_format or unit] if len(part) else []
    # New files are written as the last one; where that needs no format, dates as in one before.
    last = forms[-1] or next((form for form in reversed(forms) if "%" in form), "")
    return replace(description, time_format=last)


# ---- people who are forgotten --------------------------------------------------------------------


def _every_event(dataset: Dataset, remembered: Remembered) -> Events:
    """Return all events, those of items too that the catalogue does not have any more."""
    ids = [*dataset.items.ids, *(item for part in remembered.parts for item in part.item_ids)]
    rows = {item: row for row, item in enumerate(dict.fromkeys(ids))}
    return gather_events(dataset, remembered, rows)


def knows(dataset: Dataset, remembered: Remembered, who: Person) -> bool:
    """Return whether somebody is in what was remembered."""
    kind, name = who
    if kind == SESSION:
        return name in sessions_of(_every_event(dataset, remembered))[0].ids
    by_user = not remembered.reading.description.interactions.session
    return any(
        name in part.user_ids or (by_user and name in part.events.ids) for part in remembered.parts
    )


def take_out_people(
    dataset: Dataset,
    remembered: Remembered,
    users: Collection[str],
    sessions: Collection[str],
    changes: Changes,
) -> int:
    """Write batches anew without some people.

    Args:
      dataset: The data, with them.
      remembered: What was remembered, with them.
      users: User ids.
      sessions: Ids of sessions, those of the users that the data knows included.
      changes: Of the workdir; gets the new files.

    Returns:
      How many events went.
    """
    events = _every_event(dataset, remembered)
    made, of_event = sessions_of(events)
    sessions = {*sessions}
    gone = np.array([name in sessions for name in made.ids], bool)[of_event]
    own = () if remembered.reading.description.interactions.session else users
    begins = remembered.begin is not None
    count = 0
    for number, batch in enumerate(remembered.parts, 1):
        left, went = without_people(batch, users, own, gone[events.source == number])
        if went:
            name = BEGIN if begins and number == 1 else batch_name(number - begins)
            write_batch(left, changes.new(f"{REMEMBERED}/{name}"))
            count += went
    return count
