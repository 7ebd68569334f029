"""What the columns of a catalogue folder mean: ``dataset.toml``.

Every key may be left out::

    [dataset]
    name = "shop"
    exclude_seen = false          # true: items of the session so far are no candidates
    session_gap_minutes = 30      # where sessions are made from users and times

    [items]
    id = "item_id"                # these four are the defaults
    title = "title"
    description = "description"
    picture = "image"             # a path under images/
    text_columns = ["genres"]     # further text fields, in this order
    category_columns = ["brand"]
    number_columns = ["price"]
    list_columns = ["genres"]     # text columns whose cells are lists
    list_separator = "|"
    never_use = ["n_sold"]        # columns that would leak: declaring them is an error

    [interactions]
    item = "item_id"              # these seven are the defaults
    session = "session_id"
    user = "user_id"
    time = "timestamp"            # unix seconds or ISO 8601
    event = "event"
    rating = "rating"
    order = "order"               # number that orders events of the same time

A column that is named must exist; one that is not named is used if a column of the default name
exists; ``""`` switches it off.
"""

import difflib
import math
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from jmrec.data.tables import read_header
from jmrec.errors import UserError


@dataclass(frozen=True)
class ItemColumns:
    """The [items] table of a description; ``""`` means that the data has no such column."""

    id: str = "item_id"
    title: str = "title"
    description: str = "description"
    picture: str = "image"
    text_columns: tuple[str, ...] = ()
    category_columns: tuple[str, ...] = ()
    number_columns: tuple[str, ...] = ()
    list_columns: tuple[str, ...] = ()
    list_separator: str = "|"
    never_use: tuple[str, ...] = ()

    @property
    def text_fields(self) -> dict[str, str]:
        """Text field name -> column; title and description go by their role."""
        named = {"title": self.title, "description": self.description}
        return {k: v for k, v in named.items() if v or k == "title"} | {
            name: name for name in self.text_columns
        }


@dataclass(frozen=True)
class InteractionColumns:
    """The [interactions] table of a description; ``""`` means no such column."""

    item: str = "item_id"
    session: str = "session_id"
    user: str = "user_id"
    time: str = "timestamp"
    event: str = "event"
    rating: str = "rating"
    order: str = "order"


@dataclass(frozen=True)
class Description:
    """What the columns of a catalogue folder mean.

    Attributes:
      name: For captions.
      exclude_seen: Whether items of the session so far are excluded from the candidates.
      session_gap_minutes: A longer pause ends a session, where sessions are made from users.
      items: Columns of items.csv.
      interactions: Columns of interactions.csv.
    """

    name: str = "catalogue"
    exclude_seen: bool = False
    session_gap_minutes: float = 30.0
    items: ItemColumns = field(default_factory=ItemColumns)
    interactions: InteractionColumns = field(default_factory=InteractionColumns)


def describe(folder: str | Path, toml: str | Path | None = None) -> Description:
    """Read the description of a catalogue folder and check it against the files' headers.

    Args:
      folder: The catalogue folder.
      toml: A description to use instead of ``folder/dataset.toml``; with neither, columns of the
        default names are used.

    Returns:
      The description, every column in it present in the file.

    Raises:
      UserError: if a file is missing, a key unknown, or a named column absent.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; name one with items.csv and interactions.csv.")
    path = folder / "dataset.toml" if toml is None else Path(toml)
    tables: dict[str, Any] = {}
    if toml is not None or path.exists():
        try:
            tables = tomllib.loads(path.read_bytes().decode("utf-8-sig"))
        except OSError as error:
            raise UserError(
                f"{path} can not be read ({error.strerror}); name the TOML that describes the data."
            ) from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise UserError(f"{path.name}: {error}; mend the TOML.") from None
    _known(path.name, "", tables, ["dataset", "items", "interactions"])
    for name in tables:
        if not isinstance(tables[name], dict):
            raise UserError(f"{path.name}: {name} must be a table; write [{name}] above its keys.")
    top = Description()
    own = {k: getattr(top, k) for k in ("name", "exclude_seen", "session_gap_minutes")}
    settings = _settings(path.name, "dataset", tables.get("dataset", {}), own)
    if not 0 < settings["session_gap_minutes"] < math.inf:
        raise UserError(
            f"{path.name}, [dataset]: session_gap_minutes must be above 0; give minutes."
        )
    description = replace(
        top,
        **settings,
        items=_columns(path.name, "items", tables, folder, ItemColumns()),
        interactions=_columns(path.name, "interactions", tables, folder, InteractionColumns()),
    )
    _check_roles(path.name, description)
    return description


def _known(file: str, where: str, given: dict[str, Any], known: Sequence[str]) -> None:
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)[0]
            raise UserError(
                f"{file}: {f'{where} has no key' if where else 'there is no table'} {key!r}; "
                f"did you mean {near!r}?"
            )


def _settings(
    file: str, table: str, given: dict[str, Any], defaults: dict[str, Any]
) -> dict[str, Any]:
    """Check the keys and types of one table against its defaults."""
    _known(file, f"[{table}]", given, list(defaults))
    out = dict(defaults)
    for key, value in given.items():
        default = defaults[key]
        kind, ok = {
            bool: ("true or false", isinstance(value, bool)),
            float: (
                "a number",
                isinstance(value, int | float)
                and not isinstance(value, bool)
                and abs(value) < 1e15,
            ),
            str: ("a string", isinstance(value, str)),
            tuple: (
                "a list of strings",
                isinstance(value, list) and all(isinstance(v, str) for v in value),
            ),
        }[type(default)]
        if not ok:
            raise UserError(f"{file}, [{table}]: {key} must be {kind}; mend this line.")
        out[key] = type(default)(value)
    return out


def _columns(file: str, table: str, tables: dict[str, Any], folder: Path, default: Any) -> Any:
    """Resolve one table's columns against the header of its CSV file."""
    given = tables.get(table, {})
    csv = f"{table}.csv"
    header = read_header(folder / csv)
    settings = _settings(
        file, table, given, {f.name: getattr(default, f.name) for f in fields(default)}
    )
    for key, value in settings.items():
        if key == "list_separator":
            if not value:
                raise UserError(f"{file}, [{table}]: list_separator is empty; write one, like '|'.")
            continue
        if isinstance(value, str) and value and value not in header and key not in given:
            settings[key] = ""
            continue
        for column in [value] if isinstance(value, str) else value:
            if column and column not in header:
                near = difflib.get_close_matches(column, header, n=1, cutoff=0.0)
                raise UserError(
                    f"{file}, [{table}]: {key} names the column {column!r}, which {csv} does not "
                    f"have; did you mean {near[0]!r}?"
                )
    if table == "items" and not settings["picture"] and "picture" not in given:
        settings["picture"] = "picture" if "picture" in header else ""
    return type(default)(**settings)


def _check_roles(file: str, description: Description) -> None:
    columns, events = description.items, description.interactions
    for name, value, csv in [("id", columns.id, "items"), ("item", events.item, "interactions")]:
        if not value:
            raise UserError(
                f"{csv}.csv has no column 'item_id'; name the column of item ids in {file} as "
                f'[{csv}] {name} = "...".'
            )
    if not (events.session or events.user):
        raise UserError(
            "interactions.csv has neither 'session_id' nor 'user_id'; name the column of sessions "
            f'or users in {file} as [interactions] session = "..." or user = "...".'
        )
    used = [c for c in (columns.title, columns.description, columns.picture) if c]
    used += [*columns.text_columns, *columns.category_columns, *columns.number_columns]
    for column in used:
        if column in columns.never_use:
            raise UserError(
                f"{file}, [items]: {column!r} stands in never_use and is used all the same; "
                "take it out of one of the two."
            )
    for column in {"title", "description"} & set(columns.text_columns):
        raise UserError(
            f"{file}, [items]: {column!r} is a field of its own; take it out of text_columns."
        )
    for column in columns.text_columns:
        if columns.text_columns.count(column) > 1:
            raise UserError(f"{file}, [items]: text_columns names {column!r} twice; name it once.")
    for column in columns.list_columns:
        if column not in columns.text_fields.values():
            raise UserError(
                f"{file}, [items]: list_columns names {column!r}, which is no text field; "
                "add it to text_columns."
            )
