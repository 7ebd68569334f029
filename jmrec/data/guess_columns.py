"""What a column looks like: its role by name, its kind by its values. For `jmrec data init`."""

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jmrec.data.columns import amount, entries, read_numbers
from jmrec.data.findings import Findings
from jmrec.data.ids import one_spelling, plain_id, visible_ids
from jmrec.data.pictures import IMAGES, picture_files, picture_path
from jmrec.data.several import join_times, time_forms
from jmrec.data.tables import Table
from jmrec.data.times import EARLIEST, LATEST, Times, read_times
from jmrec.data.units import LIKELY, MODERN
from jmrec.data.written import written

ROLES = {
    "item": "item itemid product productid sku asin article articleid artikel artikelnr artnr "
    "artikelnummer artikelid produkt produktid produktnr movieid filmid bookid isbn id iditem aid "
    "videoid animeid gameid appid beerid beerbeerid itemno itemnumber "
    "parentasin businessid trackid songid artistid newsid recipeid venueid stockcode idproducto "
    "producto produit idproduit articulo ref reference nr",
    "session": "session sessionid sitzung sitzungid sitzungsid sesion idsesion visit visitid "
    "basket basketid warenkorb besuch sid usersession usersessionid",
    "user": "user userid customer customerid kunde kundennr kundenid kundennummer client clientid "
    "visitor visitorid cliente utilisateur uid buyer reviewerid usuario member memberid nutzer "
    "nutzerid benutzer benutzerid utente person personid account accountid household householdkey "
    "householdid username profilename reviewprofilename",
    "basket": "order orderid orderno ordernumber invoice invoiceid invoiceno invoicenumber "
    "transaction transactionid receipt receiptid bestellung bestellnr rechnung rechnungsnr",
    "time": "time timestamp ts date datetime zeit zeitpunkt zeitstempel datum fecha fechahora hora "
    "horodatage createdat eventtime unixtime when unixreviewtime clickedat",
    "event": "event eventtype type action ereignis aktion typ evento verb behavior behaviour "
    "interaction kind actiontype interactiontype behaviortype behaviourtype eventname",
    "rating": "rating stars score bewertung sterne puntuacion overall bookrating movierating "
    "userrating reviewrating reviewscore reviewoverall starrating",
    "review": "review reviewtext reviewbody text comment comments body content kommentar "
    "bewertungstext rezension resena opinion avis commentaire feedback",
    "order": "order position seq sequence eventindex step reihenfolge",
    "title": "title name titel titre titulo nombre nom bezeichnung producttitle productname "
    "produktname itemname artikelname titleclean label booktitle movietitle prodname trackname "
    "songname",
    "description": "description desc text beschreibung descripcion overview summary details "
    "abstract plot longdescription",
    "picture": "image picture img photo bild imagen foto imagepath poster cover thumbnail "
    "imagefile bilddatei",
    "available_from": "availablefrom validfrom onsalefrom startdate verfugbarab verfuegbarab "
    "gultigab gueltigab validode",
    "available_until": "availableuntil validuntil validto enddate verfugbarbis verfuegbarbis "
    "gultigbis gueltigbis expires",
}
"""Role -> names in use for it, as `plain` writes them."""

_LEAKS = re.compile(
    r"(^|_)(n|num|count|cnt|sold|sales|views|clicks|purchases|popularity|rank|bestseller|reviews|"
    r"votes|likes|dislikes|plays|rating|ratings|user|users|verkauft|verkaeufe|klicks|interactions)"
    r"(?!_(pages|seiten|tracks|episodes|seasons|discs|steps|ingredients|"
    r"words|pieces|parts|players|seats|doors))(_|$)"
)
_TYPE = re.compile(r":(token|float)(_seq)?$")
_CODES = re.compile(
    r"(^|_)(id|no|nr|code|cat|cate|category|kategorie|class|subclass|brand|marke|seller|merchant|"
    r"manufacturer|department|aisle|isbn|isbn13|ean|gtin|upc|type|typ|kind|region|city)(_?id|_?no|_?code)?$"
)
"""The end of a column's name whose whole numbers stand for something, and count nothing."""
_LANGUAGES = "en|de|fr|es|it|pt|nl|pl|ru|zh|ja|ko|sv|da|fi|nb|cs|tr|ar|uk|ro|hu|el"
_PRICE = re.compile(r"price|preis|precio|prix|prezzo|preco|amount|betrag|cost|kosten|msrp|uvp")
_SAYS_TIME = re.compile(
    r"time|date|datum|zeit|fecha|hora|heure|horodat|stamp|moment|clicked|viewed|occurred|"
    r"(^|_)(ts|at|when|created|on|day|tag|jour|dia|data|epoch)(_|$)"
)


@dataclass(frozen=True)
class Column:
    """A column and what was seen of it.

    Attributes:
      name: Its name.
      cells: All its cells.
      filled: Those that are not empty, at most the first 5,000.
      numeric: Whether the file itself holds them as numbers, see `Table`.
      files: How many cells each of several files has; () for one.
    """

    name: str
    cells: list[str]
    filled: list[str]
    numeric: bool = False
    files: tuple[int, ...] = ()

    @classmethod
    def of(
        cls, name: str, cells: list[str], numeric: bool = False, files: tuple[int, ...] = ()
    ) -> "Column":
        """Look at a column."""
        return cls(name, cells, [cell for cell in cells if cell][:5_000], numeric, files)

    @property
    def by_file(self) -> list[list[str]]:
        """Its cells in each file."""
        ends = np.cumsum(self.files or (len(self.cells),)).tolist()
        return [self.cells[end - n : end] for end, n in zip(ends, self.files or ends)]

    @property
    def distinct(self) -> int:
        """How many different values the looked-at cells have."""
        return len(set(self.filled))

    @property
    def mean_length(self) -> float:
        """Characters of a cell, on average."""
        return sum(map(len, self.filled)) / max(len(self.filled), 1)

    def is_called(self, role: str) -> bool:
        """Whether its name is in use for a role."""
        return plain(self.name) in ROLES[role].split()

    def leaks(self) -> bool:
        """Whether its name says that it comes from what people did."""
        name = re.sub(r"(word|page|char|letter)s?_count", "", "_".join(words(self.name)))
        return bool(_LEAKS.search(name))

    @property
    def says_time(self) -> bool:
        """Whether its name may be that of times."""
        roles = ("time", "available_from", "available_until")
        named = any(map(self.is_called, roles))
        return named or bool(_SAYS_TIME.search("_".join(words(self.name))))

    @cached_property
    def times(self) -> Times | None:
        """Its times, if nearly all of its cells are some.

        Numbers that may count anything are times only where the name says so.

        Example:
          >>> Column.of("when", ["1.2.2026", "3.2.2026"]).times.pattern
          '%d.%m.%Y'
          >>> Column.of("price", ["12", "3"]).times is None
          True
        """
        some = self.filled[:200]
        if len(some) == 200 and not _are_times(read_times(some), some, 0.5):
            return None
        parts = [pa.array(cells, pa.string()) for cells in self.by_file]
        forms = time_forms(parts)
        found = join_times([read_times(cells, form) for cells, form in zip(parts, forms)])
        if not _are_times(found, self.cells, 0.9):
            return None
        if found.unit in ("s", *LIKELY) and not self.says_time:
            middle = float(np.nanmedian(found.seconds))
            if found.unit != "s" or not middle >= MODERN:
                return None
        return found


def _are_times(found: Times, cells: Sequence[str], least: float) -> bool:
    """Whether a share of the filled cells are times, or dates with the day or the month first."""
    filled = [cell for cell in cells if cell]
    good = int(((found.seconds >= EARLIEST) & (found.seconds <= LATEST)).sum())
    if found.order == "?":
        good += sum(date is not None and not date.order for date in map(written, filled))
    return bool(filled) and good >= least * len(filled)


def words(name: str) -> list[str]:
    """Return the words of a column's name.

    Example:
      >>> words("eventTime"), words("order-date 2")
      (['event', 'time'], ['order', 'date', '2'])
    """
    apart = re.sub(r"([a-z])([A-Z])", r"\1_\2", _TYPE.sub("", name)).lower()
    return re.sub(r"[\s\-.]+", "_", apart).split("_")


def plain(name: str) -> str:
    """Return a name without case, accents and signs, and without the type that RecBole adds.

    Example:
      >>> plain("Artikel-Nr."), plain("Título"), plain("item_id:token")
      ('artikelnr', 'titulo', 'itemid')
    """
    flat = unicodedata.normalize("NFKD", _TYPE.sub("", name).casefold())
    return re.sub(r"[^a-z0-9]", "", flat)


def share(cells: Sequence[object], holds: Sequence[bool] | np.ndarray) -> float:
    """Return the share of cells for which something holds, 0 for none."""
    return float(sum(holds)) / len(cells) if cells else 0.0


def are_links(column: Column) -> bool:
    """Whether most cells are links."""
    return (
        share(column.filled, [c.startswith(("http://", "https://")) for c in column.filled]) > 0.5
    )


def are_short(column: Column) -> bool:
    """Whether cells have the length of a title, and are neither links nor codes."""
    return 3 <= column.mean_length <= 80 and not are_links(column) and not are_codes(column, False)


def are_codes(column: Column, number: bool) -> bool:
    """Whether cells look like ids: one word with digits, or a whole number."""
    like = str.isdigit if number else (lambda c: " " not in c and any(map(str.isdigit, c)))
    return share(column.filled, [like(c) for c in column.filled]) > 0.9


def stands_for(column: Column) -> bool:
    """Whether whole numbers stand for something, as the name says: a brand, not an amount.

    Example:
      >>> [stands_for(Column.of(name, ["7", "12"])) for name in ("aisle_id", "pages", "cate")]
      [True, False, True]
    """
    named = _CODES.search("_".join(words(column.name)))
    return (
        bool(named) and share(column.filled, [_is(r"-?\d+(\.0)?", c) for c in column.filled]) > 0.95
    )


def holds_files(folder: Path, column: Column, under: str) -> bool:
    """Whether most cells are names of files under a folder."""
    some = [picture_path(c) for c in column.filled[:100]]
    inside = [c for c in some if ".." not in c and not c.startswith("/") and len(c) < 200]
    return share(some, [(folder / under / c).is_file() for c in inside if "\0" not in c]) > 0.5


def files_elsewhere(folder: Path, columns: list[Column]) -> tuple[Column, str, str] | None:
    """Return a column of files that do not lie under images/, what is to be done, and their folder.

    Where nothing is to be done the second is ""; where no folder has them all, the third is images.
    """
    for column in columns:
        if holds_files(folder, column, ""):
            above = [Path(picture_path(cell)).parts[:-1] for cell in column.filled]
            first = Counter(parts[0] for parts in above if parts).most_common(1)
            if first and first[0][1] > 0.5 * len(above):
                return column, "", first[0][0]
            move = "move them to a folder images/"
            return column, f"These files stand beside the tables: {move}.", IMAGES
        for each in _folders(folder):
            if holds_files(folder, column, each):
                return column, "", each
    return None


def files_by_id(folder: Path, ids: Column) -> str:
    """Return the folder of pictures that are named by the ids of items, "" where none is."""
    wanted = {*ids.cells}
    if picture_files(folder).keys() & wanted:
        return IMAGES
    found = (each for each in _folders(folder) if len(picture_files(folder, each)))
    named = {each: len(picture_files(folder, each).keys() & wanted) for each in found}
    best = max(named, key=lambda each: named[each], default="")
    return best if best and 2 * named[best] > len(picture_files(folder, best)) else ""


def _folders(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.is_symlink())


def names_pictures(column: Column) -> bool:
    """Whether most cells end as the names of picture files do, and are no links."""
    files = [_is(r"(?!\w+://).+\.(png|jpe?g|webp|gif|bmp|tiff?)", c.lower()) for c in column.filled]
    return share(column.filled, files) > 0.5


def says_price(column: Column) -> bool:
    """Whether its name is that of amounts of money, and its cells hold digits."""
    digits = [any(map(str.isdigit, cell)) for cell in column.filled]
    return bool(_PRICE.search("_".join(words(column.name)))) and share(column.filled, digits) > 0.5


def value_lines(columns: Iterable[Column], decimal: str) -> str:
    """Return a [value] table, commented out, for the first number column of prices; "" for none."""
    for column in columns:
        if says_price(column) and is_number(column, decimal):
            name = json.dumps(column.name, ensure_ascii=False)
            return (
                "\n# What a sale brings: the report then says what recommendations are worth.\n"
                "# Naming a column here gives it to no model. share: the part that is gained.\n"
                f"# [value]\n# column = {name}\n# share = 0.3\n"
            )
    return ""


def is_number(column: Column, decimal: str) -> bool:
    """Whether nearly all cells are numbers, one that could be read in two ways among them.

    In a column of prices, up to half of the cells may be a few words, such as "on request".
    """
    values, unsure = read_numbers(column.filled, decimal)
    known = share(column.filled, ~np.isnan(values)) + len(unsure) / max(len(values), 1)
    if known < 0.5 or known >= 0.95:
        return known >= 0.95
    others = {c for c, v in zip(column.filled, values) if np.isnan(v)}
    others -= {column.filled[i] for i in unsure}
    priced = any(amount(cell) != cell for cell in column.filled)
    return (priced or bool(_PRICE.search("_".join(words(column.name))))) and len(others) <= 5


def decimal_of(columns: Sequence[Column]) -> str:
    """Return "," where some column's numbers need it and none needs a point.

    Times and numbers of Parquet do not tell, nor does "7.0", as programs write ids.

    Example:
      >>> decimal_of([Column.of("user", ["7.0", "8.0"]), Column.of("price", ["1,5", "2,25"])])
      ','
    """
    comma = point = False
    for column in columns:
        # "1.409" may be either.
        amounts = [] if column.numeric or column.times else map(amount, column.filled)
        cells = [c for c in amounts if not _is(r"-?([1-9]\d{0,2}[.,]\d{3}|\d+\.0)", c)]
        comma |= share(cells, [_is(r"-?(\d+|\d{1,3}(\.\d{3})+),\d{1,6}", c) for c in cells]) > 0.5
        point |= share(cells, [_is(r"-?(\d+|\d{1,3}(,\d{3})+)\.\d+", c) for c in cells]) > 0.5
    return "," if comma and not point else "."


def list_separator_of(column: Column) -> str:
    """Return what separates the entries of a list column, "" if it holds no lists."""
    for separator in ("|", ";", ","):
        parts = Counter(p.strip() for c in column.filled for p in c.split(separator) if p.strip())
        several = share(column.filled, [separator in c for c in column.filled])
        total = sum(parts.values())
        short = sum(len(p) * n for p, n in parts.items()) <= 25 * max(total, 1)
        if several >= 0.3 and short and total >= 2 * len(parts):
            return separator
    return ""


def holds_lists(column: Column, separator: str) -> bool:
    """Whether some cells are lists of short entries with a separator that another column has."""
    some = [c for c in column.filled if separator in c]
    parts = [p.strip() for c in some for p in c.split(separator) if p.strip()]
    short = sum(map(len, parts)) <= (12 if separator == "," else 25) * len(parts)
    return len(some) >= 0.05 * len(column.filled) > 0 and short and len(parts) > len(set(parts))


def in_languages(role: str, columns: Sequence[Column]) -> list[str]:
    """Return columns that hold a role in several languages: as many as it takes to fill gaps.

    Example:
      >>> both = [Column.of("title_en", ["", "b"]), Column.of("title_de", ["c", ""])]
      >>> in_languages("title", both)
      ['title_en', 'title_de']
      >>> in_languages("title", [*both, Column.of("title", ["e", "f"])])
      ['title']
    """
    found: dict[str, list[Column]] = {}
    for column in columns:
        stem = re.sub(rf"[_\-. ]({_LANGUAGES})$", "", column.name.casefold())
        if column.filled and plain(stem) in ROLES[role].split():
            found.setdefault(plain(stem), []).append(column)
    most = max(found.values(), key=len, default=[])
    most.sort(key=lambda c: (not c.is_called(role), c.cells.count("")))
    return [c.name for c in (most if most and "" in most[0].cells else most[:1])]


def spelt_as(column: Column, ids: Set[str]) -> tuple[Column, float]:
    """Return a column of ids as items have them, and the share of its cells that are ids.

    Where few are, numbers with other zeros before or a point behind are tried.

    Example:
      >>> spelt_as(Column.of("item", ["7.0", "8"]), {"0007", "0008"})[0].cells
      ['0007', '0008']
    """
    cells = pa.array(column.cells, pa.string())
    found = pc.is_in(cells, value_set=pa.array(list(ids), pa.string()))
    known = float(pc.mean(found.cast(pa.float64())).as_py() or 0.0)
    some = column.filled[:500]
    if known >= 0.5 or share(some, [plain_id(c).isdigit() for c in some]) < 0.5:
        return column, known
    count = Counter(map(plain_id, ids))
    item = {plain: name for name in ids if count[plain := plain_id(name)] == 1}
    if share(some, [plain_id(c) in item for c in some]) < 0.5:
        return column, known
    spelt = [cell if cell in ids else item.get(plain_id(cell), cell) for cell in column.cells]
    return Column.of(column.name, spelt), share(spelt, [cell in ids for cell in spelt])


def lists_of_ids(column: Column, ids: Set[str]) -> str:
    """Return what separates the ids in a column whose cells are lists of them, "" if none does."""
    some = column.filled[:500]
    if share(some, [cell in ids for cell in some]) >= 0.5:
        return ""
    for separator in (" ", ",", "|", ";"):
        lists = [entries(cell, separator) for cell in some]
        found = [each for one in lists for each in one if each]
        known = share(found, [each in ids for each in found])
        if known >= 0.5 and share(lists, [len(one) > 1 for one in lists]) > 0.3:
            return separator
    return ""


def once(columns: dict[str, Column], key: str) -> dict[str, Column]:
    """Return columns without rows whose id stands in an earlier row.

    Example:
      >>> both = {"id": Column.of("id", ["7", "8", "7"]), "x": Column.of("x", ["a", "b", "c"])}
      >>> {name: column.cells for name, column in once(both, "id").items()}
      {'id': ['7', '8'], 'x': ['a', 'b']}
    """
    first: dict[str, int] = {}
    for row, name in enumerate(columns[key].cells):
        first.setdefault(name, row)
    if len(first) == len(columns[key].cells):
        return columns
    return {
        name: Column.of(name, [column.cells[row] for row in first.values()], column.numeric)
        for name, column in columns.items()
    }


def apart(columns: dict[str, Column], name: str, separator: str) -> dict[str, Column]:
    """Return columns with a row for each entry of the lists in one of them."""
    lists = [[*filter(None, entries(cell, separator))] or [""] for cell in columns[name].cells]
    return {
        key: Column.of(
            key,
            [
                entry if key == name else cell
                for cell, one in zip(column.cells, lists)
                for entry in one
            ],
            column.numeric,
        )
        for key, column in columns.items()
    }


def as_ids(column: Column) -> Column:
    """Return a column of sessions or users with one spelling for one id, as they are read.

    Example:
      >>> as_ids(Column.of("user", ["7", "7.0", "7\u200b"])).cells
      ['7', '7', '7']
    """
    name = column.name
    cells = {name: pa.array(column.cells, pa.string())}
    table = visible_ids(Table("", cells, np.arange(len(column.cells))), name, Findings())
    return Column.of(name, one_spelling(table, name, Findings()).columns[name].to_pylist())


def per_user(session: Column, user: Column) -> bool:
    """Whether sessions are numbered user by user, so that a number is in many users' rows.

    The user of the most sessions does not count: 0 or "guest", who logs in halfway.

    Example:
      >>> sessions = Column.of("s", ["1", "1", "2", "2"])
      >>> per_user(sessions, Column.of("u", ["0", "a", "0", "b"]))
      False
    """
    pairs = {(s, u) for s, u in zip(session.cells, user.cells) if s and u}
    often = Counter(u for _, u in pairs).most_common(1)
    if len({u for _, u in pairs}) > 2:
        pairs = {(s, u) for s, u in pairs if u != often[0][0]}
    users = Counter(s for s, _ in pairs)
    return share(list(users), [n > 1 for n in users.values()]) > 0.3


def follows(column: Column, counts: np.ndarray, decimal: str) -> bool:
    """Whether a number column ranks the items much as their clicks do (float [V] counts)."""
    values, _ = read_numbers(column.cells, decimal)
    ok = np.isfinite(values)
    if ok.sum() < 20 or len(set(values[ok])) < 5 or len(set(counts[ok])) < 2:
        return False
    ranks = [np.argsort(np.argsort(x[ok])).astype(float) for x in (values, counts)]
    return bool(abs(np.corrcoef(ranks[0], ranks[1])[0, 1]) > 0.7)


def _is(pattern: str, cell: str) -> bool:
    return bool(re.fullmatch(pattern, cell))
