"""What the columns of a catalogue folder mean: ``dataset.toml``.

Every key may be left out::

    [dataset]
    name = "shop"
    exclude_seen = false          # true: items of the session so far are no candidates
    session_gap_minutes = 30      # where sessions are made from users and times
    split = "session_start"       # or "event_time": whole histories, cut at two moments; or
                                  # "last_out": the last event of each is test, the one before it
                                  # validation, as in many papers; training then knows the future
    validation_from = 1628643414  # the moments of "event_time" in unix seconds; left out: shares
    test_from = 1658002729
    min_session_length = 2        # shorter sessions are no training; validation and test keep them
    k_core = 1                    # items with fewer training events are taken out of training
    encoding = "cp1252"           # of CSV files; left out: found out
    delimiter = ";"               # of CSV files, one character or "::"; left out: found out
    decimal = ","                 # of numbers; left out: "."
    quoting = "none"              # quotes are characters like any other; left out: found out
    missing = ["NULL", "-"]       # cells that mean nothing; left out: those of jmrec.data.missing
    time_format = "%d.%m.%Y"      # or what numbers count: "s", "ms", "us", "ns", "min", "h",
                                  # "days", "excel"; left out: found out

    [items]
    file = "products.csv"         # left out: items.csv, .csv.gz, .tsv, .parquet, .jsonl, .json; or
                                  # several that are read one after the other, see below
    encoding = "cp1252"           # as delimiter and quoting: of this table alone
    column_names = ["id", "name"] # of a CSV whose first row is a row like the others; also below
    id = "item_id"                # these six are the defaults
    title = "title"
    description = "description"
    picture = "image"             # a path under images/, or "{id}": images/ITEM.jpg
    pictures = "images"           # the folder of the pictures, inside the catalogue folder
    available_from = "available_from"    # times; an empty cell is no limit
    available_until = "available_until"
    text_columns = ["genres"]     # further text fields, in this order
    category_columns = ["brand"]
    number_columns = ["price"]
    list_columns = ["genres"]     # text columns whose cells are lists
    list_separator = "|"
    never_use = ["n_sold"]        # columns that would leak: declaring them is an error

    [interactions]
    file = "clicks.csv"           # left out: interactions.csv and so on
    test_file = "later.csv"       # a test split that is given; the rest is training and validation
    item_separator = " "          # where a row is a session whose cell of items lists them in order
    item = "item_id"              # these eight are the defaults
    session = "session_id"
    user = "user_id"
    time = "timestamp"            # see time_format
    event = "event"
    target_events = ["purchase"]  # all events are read, these alone predicted; left out: all
    rating = "rating"
    order = "order"               # number that orders events of the same time
    review = "review"             # what was written; it may hold line breaks
    label = "score <= 0.25"       # a column of 1 and 0, or a number column with <=, <, >=, > or ==
    label_means = "avoid"         # or "want": what is to be done with items whose label occurs

    [value]                       # what a sale brings; for the report alone, no model reads it
    column = "price"              # a number column of items, also one of never_use
    share = 0.3                   # the part of it that is gained; left out: all
    gain = "margin"               # or, in place of share: a column of what is gained, no share

With ``split = "event_time"`` every event after a moment is predicted from the earlier ones of its
session, and training ends at that moment. Where sessions are made from users, one is then (and with
``"last_out"``) the whole history of a user, if no ``session_gap_minutes`` is given.

Where there is no table of items, ``[items]`` names the file of the events too: each id that stands
there is an item, whose cells are those of its first row.

A ``file`` may be several, ``["clicks_1.csv", "clicks_2.csv"]``, or a pattern, ``"clicks_*.csv"``,
whose files are read sorted by name (the numbers in it by size). Columns are found by their names,
in any order. Each file has its own encoding, delimiter and form of times, where they are found out.

A title or a description may be a list of columns, as ``["title_de", "title_en"]``: the first that
is filled is read. So may a session, ``["user_id", "visit"]``, and a time, ``["date", "clock"]``:
their cells are read together.

A column that is named must exist; one that is not named is used if a column of the default name
exists; ``""`` switches it off. ``jmrec data init`` writes a first guess of all this.

A ``label`` has no default: where one is declared, every row is also something to be ranked (see
`jmrec.data.schema.Ratings`). A column of it says 1 and 0, true and false, or yes and no; an empty
cell is a row without a label. The positive class is where the label occurs.
"""

import difflib
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from jmrec.data.description_keys import (
    check_known,
    check_pictures,
    check_settings,
    read_settings,
    read_toml,
)
from jmrec.data.missing import MISSING
from jmrec.data.pictures import BY_ID
from jmrec.data.roles import InteractionColumns, ItemColumns, ValueColumns
from jmrec.data.rule import SIGNS, read_rule
from jmrec.data.schema import AVOID, WANT
from jmrec.data.sources import (
    Form,
    Source,
    called,
    find_table,
    named_files,
    open_source,
)
from jmrec.data.split_keys import SESSION_START, split_fault
from jmrec.errors import UserError

_FORM = ("encoding", "delimiter", "quoting")
"""What [items] and [interactions] may say of their files too."""
_NAMES = {"column_names": ()}
"""What they alone may say of them."""
_SETTINGS = (
    "name", "exclude_seen", "session_gap_minutes", "split", "validation_from", "test_from",
    "min_session_length", "k_core", "decimal", "missing", "time_format", *_FORM,
)  # fmt: skip
"""The keys of [dataset]."""


@dataclass(frozen=True)
class Description:
    """What the columns of a catalogue folder mean.

    Attributes:
      name: For captions.
      exclude_seen: Whether items of the session so far are excluded from the candidates.
      session_gap_minutes: A longer pause ends a session, where sessions are made from users.
      split: One of `SPLITS_BY`.
      validation_from: With `EVENT_TIME`, unix seconds of the first moment; 0 for shares.
      test_from: Those of the second.
      min_session_length: Sessions with fewer events are left out of training (of training only).
      k_core: Items with fewer events in training are taken out of it (of training only).
      encoding: Of CSV files, "" to find out; as the next two, see `Description.form`.
      delimiter: Of CSV files, "" to find out.
      quoting: "none" where quotes of CSV files are characters like any other.
      decimal: What comes before the decimals of a number: "." or ",".
      missing: Cells that mean nothing; `MISSING` itself where it is not said.
      time_format: One of `UNITS`, or a pattern of strptime; "" to find out.
      forms: Table -> what it says of encoding, delimiter, quoting and column_names, where it is not
        as above.
      several: Table -> the names of its files, where it has several; see `Description.files`.
      items_file: The file of items, "" for the usual names; of several what they are called.
      interactions_file: The same of the events.
      test_file: The file of the events of a test split that is given, "" where none is.
      items: Columns of items.csv.
      interactions: Columns of interactions.csv.
      value: Columns of items.csv that say what a sale brings.
      joined: Name of a column that is made of others -> their names.
      toml: The name of the file that says all this.
      given: Its keys, such as "dataset.name".
    """

    name: str = "catalogue"
    exclude_seen: bool = False
    session_gap_minutes: float = 30.0
    split: str = SESSION_START
    validation_from: float = 0.0
    test_from: float = 0.0
    min_session_length: int = 2
    k_core: int = 1
    encoding: str = ""
    delimiter: str = ""
    quoting: str = ""
    decimal: str = "."
    missing: tuple[str, ...] = MISSING
    time_format: str = ""
    several: dict[str, tuple[str, ...]] = field(default_factory=dict)
    items_file: str = ""
    interactions_file: str = ""
    test_file: str = ""
    forms: dict[str, dict[str, Any]] = field(default_factory=dict)
    items: ItemColumns = field(default_factory=ItemColumns)
    interactions: InteractionColumns = field(default_factory=InteractionColumns)
    value: ValueColumns = field(default_factory=ValueColumns)
    joined: dict[str, tuple[str, ...]] = field(default_factory=dict)
    toml: str = "dataset.toml"
    given: frozenset[str] = frozenset()

    @property
    def items_of_events(self) -> bool:
        """Whether there is no table of items: they are what the events name.

        Example:
          >>> Description(items_file="a.csv", interactions_file="a.csv").items_of_events
          True
        """
        own = {*self.files("interactions")} <= {*self.files("items")}
        return own and bool(self.items_file)

    def sources(self, columns: Iterable[str]) -> set[str]:
        """Return the names of the columns of a file that some columns are made of."""
        return {part for name in columns for part in self.joined.get(name, (name,))}

    def files(self, table: str, file: str = "") -> tuple[str, ...]:
        """Return the names of the files of "items" or "interactions", in the order of reading.

        ``file`` is `items_file` or `interactions_file`, as is meant where it is left out, or a file
        of the same columns: that alone.

        Example:
          >>> shop = Description(interactions_file="a and b", several={"interactions": ("a", "b")})
          >>> shop.files("interactions"), shop.files("interactions", "test.csv")
          (('a', 'b'), ('test.csv',))
        """
        own = str(getattr(self, f"{table}_file"))
        return self.several.get(table, (own,)) if file in ("", own) else (file,)

    def form(self, table: str) -> Form:
        """Return how the CSV files of "items" or "interactions" are written."""
        return Form(**{name: getattr(self, name) for name in _FORM} | self.forms.get(table, {}))


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
    file, tables = read_toml(folder, toml)
    check_known(file, "", tables, ["dataset", "items", "interactions", "value"])
    for name in tables:
        if not isinstance(tables[name], dict):
            raise UserError(f"{file}: {name} must be a table; write [{name}] above its keys.")
    top = Description()
    own = {f.name: getattr(top, f.name) for f in fields(top) if f.name in _SETTINGS}
    settings = read_settings(file, "dataset", tables.get("dataset", {}), own)
    check_settings(file, settings)
    gap_given = "session_gap_minutes" in tables.get("dataset", {})
    if settings["split"] != SESSION_START and not gap_given:
        settings["session_gap_minutes"] = math.inf
    columns: dict[str, Any] = {"forms": {}, "several": {}}
    joined: dict[str, tuple[str, ...]] = {}
    for table, default in [("items", ItemColumns()), ("interactions", InteractionColumns())]:
        given = dict(tables.get(table, {}))
        if table == "interactions":
            test = {"test_file": given.pop("test_file", "")}
            columns |= read_settings(file, table, test, {"test_file": ""})
        named = given.pop("file", "")
        kind: str | tuple[str, ...] = () if isinstance(named, list) else ""
        named = read_settings(file, table, {"file": named}, {"file": kind})["file"]
        names = named_files(folder, table, named, columns.get("test_file", ""))
        _is_there(folder, table, names[0] if names else "", file, bool(tables))
        own_form = {key: given.pop(key) for key in (*_FORM, *_NAMES) if key in given}
        read_form = read_settings(file, table, own_form, own | _NAMES)
        check_settings(file, read_form, table)
        columns["forms"][table] = {key: read_form[key] for key in own_form}
        form = replace(top, **settings, forms=columns["forms"]).form(table)
        sources = [open_source(folder, table, name, form) for name in names or [""]]
        columns[f"{table}_file"] = called([each.name for each in sources])
        columns["several"] |= {table: tuple(names)} if len(names) > 1 else {}
        # A column that is in one of them has to be in all.
        header = list(dict.fromkeys(name for each in sources for name in each.header))
        source = replace(sources[0], header=header)
        joined |= (lists := _lists(file, table, given, source))
        columns[table] = _columns(file, table, given, source, default, lists)
        if table == "items" and "value" in tables:
            columns["value"] = _value(file, tables["value"], source)
        read = columns[table].named | (columns["value"].named if "value" in columns else set())
        for each in sources[1:] and sources:
            _check_columns(file, each, read, joined, source)
    description = replace(top, **settings, **columns, joined=joined)
    if description.items_of_events and description.test_file:
        every = (*description.files("items"), description.test_file)
        description = replace(description, several=description.several | {"items": every})
    if description.test_file:
        _check_test(file, folder, description)
    _check_roles(file, description)
    keys = frozenset(f"{table}.{key}" for table in tables for key in tables[table])
    return replace(description, toml=file, given=keys)


def _is_there(folder: Path, table: str, name: str, file: str, described: bool) -> None:
    """Refuse a folder without a table of the usual names that is described nowhere else."""
    path = find_table(folder, table, name)
    if name or path.exists() or path.is_symlink():
        return
    remedy = f"run jmrec data init {folder}, which guesses which table is which"
    if described:
        remedy = f'name the table in {file} as [{table}] file = "..."'
    raise UserError(f"{path} does not exist; give the table that name, or {remedy}.")


def _lists(
    file: str, table: str, given: dict[str, Any], source: Source
) -> dict[str, tuple[str, ...]]:
    """Name each list of columns in ``given`` as one; return that name -> the columns."""
    found = {}
    for key in ("title", "description") if table == "items" else ("session", "time"):
        names = given.get(key)
        if not isinstance(names, list):
            continue
        if not names or not all(isinstance(name, str) and name for name in names):
            raise UserError(f"{file}, [{table}]: {key} must name columns; mend this line.")
        for name in names:
            if name not in source.header:
                raise UserError(f"{file}, [{table}]: {_not_there(key, name, source)}")
        given[key] = " + ".join(names)
        if len(names) > 1:
            found[given[key]] = tuple(names)
    return found


def _columns(
    file: str, table: str, given: dict[str, Any], source: Source, default: Any, lists: Iterable[str]
) -> Any:
    """Resolve one table's columns against the header of its file."""
    header = [*source.header, *lists]
    settings = read_settings(
        file, table, given, {f.name: getattr(default, f.name) for f in fields(default)}
    )
    for key, value in settings.items():
        if key == "target_events":
            continue
        if key in ("list_separator", "item_separator"):
            if not value and key in given | {"list_separator": ""}:
                raise UserError(f"{file}, [{table}]: {key} is empty; write one, like '|'.")
            continue
        if key == "pictures":
            check_pictures(file, value)
            continue
        if key == "label_means":
            if value not in (AVOID, WANT):
                raise UserError(
                    f'{file}, [{table}]: label_means must be "{AVOID}" or "{WANT}"; mend this line.'
                )
            continue
        if isinstance(value, str) and value and value not in header and key not in given:
            settings[key] = ""
            continue
        if key == "label" and value and read_rule(value).column not in header:
            raise UserError(f"{file}, [{table}]: {_no_label(value, source)}")
        if key == "label":
            continue
        for column in [value] if isinstance(value, str) else value:
            if column and column not in header and (key, column) != ("picture", BY_ID):
                raise UserError(f"{file}, [{table}]: {_not_there(key, column, source)}")
    if table == "items" and not settings["picture"] and "picture" not in given:
        by_id = BY_ID if (source.path.parent / settings["pictures"]).is_dir() else ""
        settings["picture"] = "picture" if "picture" in header else by_id
    return type(default)(**settings)


def _value(file: str, given: dict[str, Any], source: Source) -> ValueColumns:
    """Resolve [value] against the header of the items' file."""
    value = ValueColumns(**read_settings(file, "value", given, vars(ValueColumns())))
    if fault := value.fault(given):
        raise UserError(f"{file}, [value]: {fault}.")
    for key in ("column", "gain"):
        if (column := getattr(value, key)) and column not in source.header:
            raise UserError(f"{file}, [value]: {_not_there(key, column, source)}")
    return value


def _no_label(label: str, source: Source) -> str:
    """Say what is wrong with a label whose column is not there."""
    rule = read_rule(label)
    if re.search("[<>=]", rule.column):
        return (
            f"label is {label[:80]!r}, neither a column nor a rule; write COLUMN <= NUMBER, with "
            f"one of {' '.join(SIGNS)} and a number such as 0.25."
        )
    return _not_there("label", rule.column, source)


def _not_there(key: str, column: str, source: Source) -> str:
    """Say of a named column that its file does not have it, and what may be meant."""
    if "\ufffd" in "".join(source.header):
        remedy = (
            f"its header is not {source.encoding or 'UTF-8'}: name its encoding as "
            'encoding = "..." under [dataset].'
        )
    else:
        near = difflib.get_close_matches(column, source.header, n=1, cutoff=0.0)
        remedy = f"did you mean {near[0]!r}?"
    return f"{key} names the column {column!r}, which {source.name} does not have; {remedy}"


def _check_columns(
    file: str, source: Source, read: Iterable[str], joined: dict[str, tuple[str, ...]], all_: Source
) -> None:
    """Refuse one of several files without a column that is read."""
    parts = {part for name in read for part in joined.get(name, (name,))}
    for column in sorted(parts & {*all_.header} - {*source.header}):
        raise UserError(
            f"{source.name} has no column {column!r}, which is read and other files of the same "
            f"table have; add it, or leave the file or the column out in {file}."
        )


def _check_test(file: str, folder: Path, description: Description) -> None:
    source = open_source(
        folder, "interactions", description.test_file, description.form("interactions")
    )
    for column in sorted(description.sources(description.interactions.named)):
        if column not in source.header:
            raise UserError(
                f"{source.name} has no column {column!r}, which {description.interactions_file} "
                "has; give both files the same columns."
            )
    if not description.interactions.session:
        raise UserError(
            f"{file}, [interactions]: test_file needs a column of sessions, so that none is in "
            'both files; name it with session = "...".'
        )


def _check_roles(file: str, description: Description) -> None:
    columns, events = description.items, description.interactions
    for key, value, table, source in [
        ("id", columns.id, "items", description.items_file),
        ("item", events.item, "interactions", description.interactions_file),
    ]:
        if not value:
            raise UserError(
                f"{source} has no column 'item_id'; name the column of item ids in {file} as "
                f'[{table}] {key} = "...", or let jmrec data init guess.'
            )
    if not (events.session or events.user):
        raise UserError(
            f"{description.interactions_file} has neither 'session_id' nor 'user_id'; name the "
            f'column of sessions or users in {file} as [interactions] session = "..." or '
            'user = "...", or let jmrec data init guess.'
        )
    moments = (description.validation_from, description.test_from)
    if fault := split_fault(description.split, *moments, description.test_file, events):
        raise UserError(f"{file}: {fault}.")
    if events.target_events and not events.event:
        raise UserError(
            f"{file}, [interactions]: target_events needs a column of events; name it with "
            'event = "...".'
        )
    if events.item_separator and description.items_of_events:
        raise UserError(
            f"{file}: [items] and [interactions] name one file, in which a row lists several items "
            "(item_separator); give every item a row, or write a table of items."
        )
    if events.item_separator and (events.label or events.review):
        key = "label" if events.label else "review"
        raise UserError(
            f"{file}, [interactions]: a row lists several items (item_separator), so its {key} is "
            f'of none of them; write {key} = "" or give every item a row.'
        )
    used = [c for c in (columns.title, columns.description, columns.picture) if c]
    used += [*columns.text_columns, *columns.category_columns, *columns.number_columns]
    for column in sorted(description.sources(used)):
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
