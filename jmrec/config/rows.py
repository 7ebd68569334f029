"""Groups of rows in a configuration: what each has of its own, and which of them are trained."""

from collections.abc import Iterable, Sequence
from typing import Any

from ml_collections import ConfigDict

from jmrec.errors import UserError

TRAINED = ("students", "rankers")
"""Groups of settings of what is trained and can be served."""


def own_of_rows(config: ConfigDict, name: str) -> list[str]:
    """Return which settings are read in place of one of a whole group, [] where it is read itself.

    What is said in the group ``student`` is of all rows of ``students``; a row that has the setting
    of its own reads that one.

    Args:
      config: A configuration.
      name: A dotted name, such as "student.encoder".

    Returns:
      The name in each row, where every row has it.

    Example:
      >>> from jmrec.config import load_config
      >>> own_of_rows(load_config("session:size=tiny,encoder=core"), "student.encoder")
      ['students.core.encoder']
    """
    group, _, rest = name.partition(".")
    rows = config.get(f"{group}s") if rest else None
    if isinstance(rows, ConfigDict) and rows and all(_has(row, rest) for row in rows.values()):
        return [f"{group}s.{row}.{rest}" for row in rows]
    return []


def only_rows(config: ConfigDict, names: Sequence[str]) -> ConfigDict:
    """Return a configuration in which some of the rows are trained, and no others of their group.

    Args:
      config: A configuration whose ``students`` or ``rankers`` hold a group of settings each.
      names: Of those.

    Raises:
      UserError: There is no such row.

    Example:
      >>> from jmrec.config import load_config
      >>> list(only_rows(load_config("tpad:size=tiny"), ["distilled"]).students)
      ['distilled']
    """
    known: list[str] = []
    for group in TRAINED:
        rows = config.get(group)
        if isinstance(rows, ConfigDict) and set(names) <= set(rows):
            kept = ConfigDict(config)
            with kept.unlocked():
                kept[group] = ConfigDict(
                    {name: rows[name].to_dict() for name in rows if name in names}
                )
            return kept
        known += list(rows or ())
    wrong = ", ".join(repr(name) for name in names if name not in known)
    raise UserError(f"no row {wrong} is trained here; there are {', '.join(known)}.")


def check_counts(config: ConfigDict, names: Iterable[str]) -> None:
    """Refuse a setting of a whole group that every row has of its own: it would change nothing.

    Args:
      config: A configuration.
      names: Dotted names that are set.

    Raises:
      UserError: Naming what counts.
    """
    for name in names:
        if own := own_of_rows(config, name):
            what = " and ".join(f"config.{each}" for each in own)
            raise UserError(f"config.{name} would change nothing: {what} is what counts; set that.")


def _has(row: Any, name: str) -> bool:
    for part in name.split("."):
        if not isinstance(row, ConfigDict) or part not in row:
            return False
        row = row[part]
    return True
