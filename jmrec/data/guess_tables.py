"""Guess which files of a folder are its items and its interactions. For `jmrec data init`."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import permutations
from pathlib import Path

from jmrec.data.findings import Findings, shown
from jmrec.data.guess_columns import (
    ROLES,
    Column,
    apart,
    are_links,
    is_number,
    lists_of_ids,
    once,
    plain,
    share,
    spelt_as,
)
from jmrec.data.guess_remedies import to_join, why_none
from jmrec.data.header import NoNames, is_name, no_names
from jmrec.data.layouts import layout_of, numbered, remark_of
from jmrec.data.missing import MISSING, empty_words
from jmrec.data.sources import CSV, Form, Source, by_number, called, find_table, open_source
from jmrec.data.tables import Table, read_table
from jmrec.errors import UserError

MAX_FILES = 200
_TABLES = (
    ".csv",
    ".tsv",
    ".txt",
    ".gz",
    ".parquet",
    ".jsonl",
    ".ndjson",
    ".json",
    ".inter",
    ".item",
    ".dat",
    ".data",
)
"""Those before the last two are RecBole's, those MovieLens's."""
_SOME = 1_000


@dataclass(frozen=True)
class Candidate:
    """One file, or several of the same columns, that may be a table.

    Attributes:
      sources: The files, in the order of reading.
      columns: Their columns.
      words: Words for nothing in them -> cells.
      role: "items" or "interactions" where it may be that alone, "" for either.
    """

    sources: tuple[Source, ...]
    columns: dict[str, Column]
    words: Counter[str]
    role: str = ""

    @property
    def name(self) -> str:
        """What the files are called together."""
        return called([source.name for source in self.sources])


@dataclass(frozen=True)
class Pair:
    """The two tables, the columns that link them, and what separates ids that share a cell.

    ``said`` are sentences about files that are read together, or are not read.
    """

    items: Candidate
    interactions: Candidate
    item_columns: dict[str, Column]
    event_columns: dict[str, Column]
    id: str
    item: str
    known: float
    words: Counter[str]
    separator: str = ""
    said: list[str] = field(default_factory=list)


def find_tables(folder: Path, nameless: frozenset[str] = frozenset()) -> Pair:
    """Find the two tables, and the columns of item ids in both.

    Args:
      folder: The catalogue folder.
      nameless: Files of which it is known that no row names their columns.

    Raises:
      UserError: if no two tables are linked by item ids.
    """
    problems: list[str] = []
    said: list[str] = []
    opened = partial(_open, folder, problems, nameless)
    found = {
        table: _sources(folder, table, opened, problems, said)
        for table in ("items", "interactions")
    }
    sources = {each.name: each for each in [*found["items"], *found["interactions"]]}
    broken: list[UserError] = []
    single: dict[str, Candidate] = {}
    for name, source in sources.items():
        try:
            seen = Findings()
            single[name] = Candidate((source,), _columns(source, seen), seen.words)
        except UserError as error:  # it matters where no other two tables belong together
            broken.append(error)
    names = {table: {each.name for each in list_} for table, list_ in found.items()}
    candidates = list(_candidates(single, names, said))
    pair = _link(candidates, names)
    if pair is None and broken:
        raise broken[0]
    usual = tuple(f"{find_table(folder, table).name}, row 1: " for table in found)
    if pair is None and (own := [each for each in problems if each.startswith(usual)]):
        raise UserError(own[0])
    if pair is None and (pair := _events_alone(candidates)) is not None:
        pair.said.extend([*_read_together(pair), *said])
        return pair
    if pair is None:
        raise why_none(folder, sources.values(), problems)
    for candidate, name, others in [
        (pair.items, pair.id, pair.event_columns[pair.item].cells),
        (pair.interactions, pair.item, pair.item_columns[pair.id].cells),
    ]:
        first = candidate.sources[0]
        if first.nameless and not layout_of(first.name, len(first.header))[1]:
            # What is in them does not tell a visit from a rating, nor a user from a session.
            why = f"{first.name}, row 1: "
            raise UserError(next(each for each in problems if each.startswith(why)))
        if first.kind == CSV and not first.nameless and name in set(others):
            if any(map(is_name, first.header)) or not layout_of(first.name, first.width)[1]:
                raise no_names(first.name, name, first.width)
            return find_tables(folder, nameless | {first.name})
    pair.said.extend(
        [
            *_repeated_lists(pair),
            *_unknown(pair),
            *_read_together(pair),
            *said,
            *_left_out(pair, single.values(), said),
            *to_join(
                pair.event_columns,
                [(name, each.columns) for name, each in single.items()],
                pair.interactions.name,
            ),
        ]
    )
    return pair


def _columns(source: Source, findings: Findings) -> dict[str, Column]:
    table: Table = read_table(source, source.header, findings, texts=source.header)
    table = empty_words(table, MISSING, [], findings)
    return {
        name: Column.of(name, cells.to_pylist(), name in table.numeric)
        for name, cells in table.columns.items()
    }


def _sources(
    folder: Path,
    table: str,
    opened: Callable[[str, str], Source],
    problems: list[str],
    said: list[str],
) -> list[Source]:
    """Return the files that may be a table: that of the usual name and those like it, or all."""
    files = [p for p in folder.iterdir() if p.suffix.lower() in _TABLES and p.is_file()]
    usual = find_table(folder, table)
    found = [opened(table, usual.name)] if usual.exists() else []
    if not files and not found:
        rest = sorted(p.name for p in folder.iterdir() if p.is_file() and p.name[0] != ".")
        why = f" (what is there, {shown(', '.join(rest), 60)}, has another ending)" if rest else ""
        raise UserError(
            f"{folder} holds no table{why}; put one of items and one of interactions there, as "
            "CSV whose first row names its columns, Parquet or JSON lines."
        )
    own = {find_table(folder, each).name for each in ("items", "interactions")}
    taken = own if usual.exists() else {usual.name}  # no file is of both usual names
    others = sorted({path.name for path in files} - taken, key=by_number)
    if len(others) > MAX_FILES:
        says = f"Of {len(others):,} files the first {MAX_FILES} are looked at, sorted by name."
        said += [] if says in said else [says]
    for name in others[:MAX_FILES]:
        try:
            found.append(opened(table, name))
        except UserError as error:  # a note or a log is no table
            problems.append(str(error))
    if usual.exists():
        return [each for each in found if {*each.header} == {*found[0].header}]
    return [source for source in found if len(source.header) > 1]


def _open(
    folder: Path, problems: list[str], nameless: frozenset[str], table: str, name: str
) -> Source:
    """Open a table; one that does not name its columns with what they are known as, or numbers."""
    try:
        source = open_source(folder, table, name)
        if name not in nameless:
            return source
        width = source.width
    except NoNames as error:
        problems.append(str(error))
        width = error.width
    if names := layout_of(name, width)[1]:
        problems[:] = [each for each in problems if not each.startswith(f"{name}, ")]
    form = Form(column_names=tuple(names or numbered(width)))
    return open_source(folder, table, name, form)


def _candidates(
    single: dict[str, Candidate], names: dict[str, set[str]], said: list[str]
) -> Iterator[Candidate]:
    """Yield files alone and files of the same columns together; say which are copies."""
    groups: dict[tuple[frozenset[str], ...], list[str]] = {}
    for name in sorted(single, key=by_number):
        may_be = frozenset(table for table in names if name in names[table])
        groups.setdefault((frozenset(single[name].columns), may_be), []).append(name)
    for files_of_one in groups.values():
        kept: list[str] = []
        # The largest first, of which a smaller one may be a copy.
        for name in sorted(files_of_one, key=lambda each: -_rows(single[each])):
            like = [each for each in kept if _alike(single[each], single[name])]
            copied = [each for each in like if _copies(single[each], single[name])]
            if copied:
                said.append(
                    f"{name} is not read: most of its rows stand in {copied[0]} too. If they are "
                    "rows of their own, name both files as a list."
                )
            elif kept and not like:
                yield single[name]
            else:
                kept.append(name)
        files = [single[name] for name in sorted(kept, key=by_number)]
        if len(files) == 1:
            yield files[0]
            continue
        yield _joined(files)
        for each in reversed(files):  # one of each month may be a whole catalogue
            yield Candidate(each.sources, each.columns, each.words, "items")


def _rows(candidate: Candidate) -> int:
    return len(next(iter(candidate.columns.values())).cells)


def _alike(one: Candidate, other: Candidate) -> bool:
    """Whether columns of the same names hold the same kind: numbers, times or words."""

    def kind(column: Column) -> str:
        if column.times is not None:
            return "time"
        return "number" if any(is_number(column, sign) for sign in ".,") else "words"

    both = [(one.columns[name], other.columns[name]) for name in one.columns]
    return all(kind(a) == kind(b) for a, b in both if a.filled and b.filled)


def _copies(whole: Candidate, part: Candidate) -> bool:
    """Whether most rows of a table stand in another one too."""
    names = list(whole.columns)
    rows = list(zip(*(part.columns[name].cells[:_SOME] for name in names)))
    some = set(rows)
    seen = some.intersection(zip(*(whole.columns[name].cells for name in names)))
    return share(rows, [row in seen for row in rows]) > 0.5


def _joined(files: Sequence[Candidate]) -> Candidate:
    """Return files of the same columns as one table."""
    columns = {}
    for name in files[0].columns:
        parts = [each.columns[name] for each in files]
        cells = [cell for part in parts for cell in part.cells]
        numeric = all(part.numeric for part in parts)
        columns[name] = Column.of(name, cells, numeric, tuple(len(p.cells) for p in parts))
    sources = tuple(source for each in files for source in each.sources)
    return Candidate(sources, columns, sum((each.words for each in files), Counter()))


def _link(tables: Sequence[Candidate], names: dict[str, set[str]]) -> Pair | None:
    """Return the two tables that belong together best."""
    best: tuple[float, Pair] | None = None
    for a, b in permutations(tables, 2):
        files = {source.name for source in a.sources}, {source.name for source in b.sources}
        if files[0] & files[1] or b.role == "items":
            continue
        if not (files[0] <= names["items"] and files[1] <= names["interactions"]):
            continue
        for key in a.columns.values():
            ids = set(key.cells) - {""}
            if key.is_called("user") or key.is_called("session"):
                continue  # a table of people is none of items
            if not ids or len(ids) < 0.9 * len(key.cells):
                continue  # an item has one row
            for link in b.columns.values():
                if link.is_called("user") or link.is_called("session"):
                    continue
                separator = lists_of_ids(link, ids)
                rows = apart(b.columns, link.name, separator) if separator else b.columns
                link, known = spelt_as(rows[link.name], ids)
                if known < 0.5 or len(link.cells) <= len(set(link.cells)):
                    continue
                clicked = len(ids & set(link.cells)) / len(ids)
                score = known + 0.5 * clicked + 0.3 * (key.name == link.name)
                score += 0.5 * key.is_called("item") + 0.5 * link.is_called("item")
                score -= sum(link.is_called(role) for role in ("rating", "time"))
                score += 0.3 * _has(b, "user", "session") + 0.3 * _has(b, "time")
                score += _says_much(a)  # of several tables of items
                score -= 0.6 * (a.role == "items")  # less than all files, where ids are in one each
                if best is None or score > best[0]:
                    pair = Pair(
                        a, b, once(a.columns, key.name), rows | {link.name: link}, key.name,
                        link.name, known, a.words + b.words, separator,
                    )  # fmt: skip
                    best = (score, pair)
    return best[1] if best else None


def _says_much(table: Candidate) -> float:
    """Return more for a table that says more of its items: a title first, then columns."""
    titled = any(c.is_called("title") and not are_links(c) for c in table.columns.values())
    return 0.1 * titled + 0.01 * min(len(table.columns), 9)


def _unknown(pair: Pair) -> Iterator[str]:
    """Say where many events name no item of the table of items."""
    if pair.known < 0.9:
        items, events = pair.items.name, pair.interactions.name
        yield (
            f"{1 - pair.known:.0%} of the cells of {pair.item} name no item of {items}, and those "
            "rows are left out; where they are items all the same, write under [items] the file, "
            f"the id and the columns of {events}, whose ids are then all items."
        )


def _repeated_lists(pair: Pair) -> Iterator[str]:
    """Say where lists of items are the same as others, so that their events are read again."""
    if pair.separator:
        name = pair.interactions.name
        lists = [c for c in pair.interactions.columns[pair.item].cells if pair.separator in c]
        if len(lists) - len({*lists}) > 0.05 * len(lists):
            yield (
                f"{len(lists) - len({*lists}):,} of the {len(lists):,} lists in {pair.item} of "
                f"{name} repeat another one, and their events are read each time; keep one row of "
                "each, if they are one person's history."
            )
        if remark := remark_of(name):
            yield remark


def _events_alone(tables: Sequence[Candidate]) -> Pair | None:
    """Return the one table of events with what its items are, where nothing else says that."""
    found = []
    for table in tables:
        named = [c for c in table.columns.values() if c.is_called("item") and c.filled]
        named.sort(key=lambda c: ROLES["item"].split().index(plain(c.name)))
        if named and _has(table, "user", "session") and len(named[0].cells) > named[0].distinct:
            found.append((table, named[0]))
    if not found:
        return None
    table, item = max(found, key=lambda each: len(each[1].cells))
    said = [
        f"there is no table of items, so they are what {table.name} names, with what its rows say "
        "of them alike; titles, texts and pictures of items let jmrec know those that are new."
    ]
    like = [other.name for other, _ in found]
    read = {source.name for source in table.sources}
    for each in tables:
        files = {source.name for source in each.sources}
        if files & read:  # or said
            continue
        read |= files
        are, have = ("is", "it has") if len(files) == 1 else ("are", "they have")
        why = f"{have} no column of ids of items with one row for each"
        if each.name in like:
            why = (
                f"{table.name} has more rows of events; name {each.name} in its place, if that is "
                "what shall be predicted"
            )
        said.append(f"{each.name} {are} not read: {why}.")
    roles = ("session", "user", "time", "event", "rating", "order", "review")
    own = {
        name: column
        for name, column in table.columns.items()
        if name == item.name or (not any(map(column.is_called, roles)) and _of_item(column, item))
    }
    return Pair(
        table, table, once(own, item.name), table.columns, item.name, item.name, 1.0, table.words,
        said=said,
    )  # fmt: skip


def _of_item(column: Column, item: Column) -> bool:
    """Whether a column of events says something of their items: the same in all rows of one."""
    first: dict[str, str] = {}
    same = [
        first.setdefault(name, cell) == cell
        for name, cell in zip(item.cells, column.cells)
        if name and cell
    ]
    repeated = len(same) - len(first)
    return repeated > 0 and sum(same) - len(first) >= 0.95 * repeated


def _has(table: Candidate, *roles: str) -> bool:
    return any(column.is_called(role) for column in table.columns.values() for role in roles)


def _read_together(pair: Pair) -> Iterator[str]:
    """Say which files are read as one table."""
    both = [pair.items, pair.interactions]
    for candidate in both[pair.items is pair.interactions :]:
        names = [source.name for source in candidate.sources]
        if len(names) > 1:
            yield (
                f"{', '.join(names[:-1])} and {names[-1]} have the same columns and are read one "
                "after the other as one table; take out of its file = [...] what does not belong."
            )


def _left_out(pair: Pair, tables: Iterable[Candidate], said: Sequence[str]) -> Iterator[str]:
    """Say which tables are not read and look like items or interactions."""
    read = {source.name for source in (*pair.items.sources, *pair.interactions.sources)}
    ids = set(pair.item_columns[pair.id].cells) - {""}
    clicked = set(pair.event_columns[pair.item].cells) & ids
    telling = share(list(ids), [not each.isdigit() for each in ids]) > 0.5
    for table in tables:
        name = table.name
        if name in read or any(each.startswith(f"{name} ") for each in said):
            continue
        for column in table.columns.values():
            # Small numbers are ids of items in many a column.
            named = column.is_called("item") or column.name in (pair.id, pair.item)
            if not (telling or named) or not column.filled:
                continue
            cells, known = spelt_as(column, ids)
            several = len(cells.cells) > len(set(cells.cells))
            if several and known >= 0.5:
                like, chosen = "interactions", pair.interactions.name
            elif not several and clicked and len(clicked & set(cells.cells)) >= 0.5 * len(clicked):
                like, chosen = "items", pair.items.name
            else:
                continue
            yield (
                f"{name} is not read, though its column {column.name!r} holds ids of items, as a "
                f"table of {like} has them: {chosen} is, and files of one table have the same "
                "columns and kinds of cells."
            )
            break
