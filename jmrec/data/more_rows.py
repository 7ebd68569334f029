"""Further rows of a catalogue folder that was described before: files that came later."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from jmrec.data.description import Description
from jmrec.data.findings import Findings
from jmrec.data.folder import Raw, join_splits, read_interactions, read_items
from jmrec.data.schema import Items
from jmrec.data.sources import open_source
from jmrec.errors import UserError


def read_more_items(path: Path, description: Description) -> tuple[Items, list[str]]:
    """Read a table of further items, which has the columns of the one that was described.

    Args:
      path: The file; it may lie anywhere.
      description: What the columns mean.

    Returns:
      The items, without pictures, and what was left out or mended.

    Raises:
      UserError: It can not be read, or lacks a column.
    """
    columns = replace(description.items, picture="")
    described = replace(_of_one_file(description, path, "items"), items=columns)
    findings = Findings()
    _has_columns(path, described, "items")
    _, items, names = read_items(path.parent, described, findings)
    return replace(items, pictures=[b""] * len(names)), findings.warnings


def read_more_events(path: Path, description: Description, items: Items) -> Raw:
    """Read a table of further events, which has the columns of the one that was described.

    Labels and reviews are not read.

    Args:
      path: The file; it may lie anywhere.
      description: What the columns mean.
      items: The catalogue; events of other items are left out and counted.

    Returns:
      The events, with `Raw.warnings` of what was left out or mended.

    Raises:
      UserError: It can not be read, or lacks a column.
    """
    described = _of_one_file(_without_labels(description), path, "interactions")
    _has_columns(path, described, "interactions")
    return _read_events(path.parent, path.name, described, items)


def read_own_events(folder: Path, description: Description, items: Items) -> Raw:
    """Read the events of the catalogue folder that was described, of a test split too.

    See `read_more_events`; the columns are those that the description was held to.
    """
    described = _without_labels(description)
    raw = _read_events(folder, description.interactions_file, described, items)
    if not description.test_file:
        return raw
    return join_splits(raw, _read_events(folder, description.test_file, described, items))


def _without_labels(description: Description) -> Description:
    columns = replace(description.interactions, label="", review="", target_events=())
    return replace(description, items_file="the catalogue", interactions=columns)


def _of_one_file(description: Description, path: Path, table: str) -> Description:
    files = {f"{table}_file": path.name, "several": {}}
    return replace(description, **files)  # type: ignore[arg-type]


def _read_events(folder: Path, file: str, description: Description, items: Items) -> Raw:
    rows, none = np.arange(len(items)), [""] * len(items)
    raw = read_interactions(folder, description, file, rows, items, none, Findings())
    return replace(raw, user=None) if raw.user is not None and not raw.user[1] else raw


def _has_columns(path: Path, description: Description, table: str) -> None:
    """Check that a file has every column of a description.

    Raises:
      UserError: It is missing, or lacks one.
    """
    if not path.is_file():
        raise UserError(f"{path} is no file; name a table of {table}.")
    columns = description.items if table == "items" else description.interactions
    header = open_source(path.parent, table, path.name, description.form(table)).header
    for name in sorted(description.sources(columns.named)):
        if name not in header:
            raise UserError(
                f"{path} has no column {name!r}, which the {table} of the run's data have; give it "
                "the same columns."
            )
