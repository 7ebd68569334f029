"""Further rows of a catalogue folder that was described before: files that came later."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from jmrec.data.description import Description
from jmrec.data.events import used_columns
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
    described, findings = replace(description, items_file=path.name, items=columns), Findings()
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
    described = _without_labels(description)
    _has_columns(path, described, "interactions")
    return _read_events(path, described, items)


def read_own_events(folder: Path, description: Description, items: Items) -> Raw:
    """Read the events of the catalogue folder that was described, of a test split too.

    See `read_more_events`; the columns are those that the description was held to.
    """
    described = _without_labels(description)
    raw = _read_events(folder / description.interactions_file, described, items)
    if not description.test_file:
        return raw
    return join_splits(raw, _read_events(folder / description.test_file, described, items))


def _without_labels(description: Description) -> Description:
    columns = replace(description.interactions, label="", review="", target_events=())
    return replace(description, items_file="the catalogue", interactions=columns)


def _read_events(path: Path, description: Description, items: Items) -> Raw:
    described, findings = replace(description, interactions_file=path.name), Findings()
    raw = read_interactions(
        path.parent, described, path.name, np.arange(len(items)), items, [""] * len(items), findings
    )
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
    for name in sorted(description.sources(used_columns(columns))):
        if name not in header:
            raise UserError(
                f"{path} has no column {name!r}, which the {table} of the run's data have; give it "
                "the same columns."
            )
