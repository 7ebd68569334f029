r"""Words for nothing: ``NULL``, ``nan``, ``N/A``, ``\N``, ``-`` in a cell are an empty cell.

`MISSING` holds those that are looked for; ``missing = [...]`` under [dataset] says otherwise. They
are whole cells as they stand here, in every column but those of item ids, where the table of items
says what is an id.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jmrec.data.findings import KEPT, Findings, shown
from jmrec.data.tables import Table

MISSING = (
    "NULL", "null", "Null", "(null)", "[NULL]", "NaN", "nan", "NAN", "None", "none", "NONE", "nil",
    "N/A", "n/a", "#N/A", "NA", "na", "n.a.", "<NA>", "NaT", "undefined", "\\N",
    "-", "--", "\u2013", "\u2014", "0000-00-00", "0000-00-00 00:00:00",
    "k.A.", "k. A.", "k.a.", "k. a.", "K.A.", "keine Angabe", "Keine Angabe", "keine Angaben",
    "nicht angegeben", "nicht verfügbar", "not available", "Not available", "n/v", "n.v.t.",
    "n.d.", "N.D.", "n. d.", "s/d", "S/D", "sin datos", "Sin datos", "no disponible",
    "No disponible", "non renseigné", "Non renseigné", "non disponible", "Non disponible",
    "non disponibile", "não informado", "sem dados", "brak danych", "geen gegevens", "нет данных",
)  # fmt: skip
"""What databases, Python, R, JavaScript, spreadsheets and people write for nothing."""
DOUBTFUL = frozenset((
    "unknown", "unbekannt", "desconocido", "desconocida", "inconnu", "inconnue", "onbekend",
    "sconosciuto", "desconhecido", "nieznany", "nieznana", "okänd", "ukendt", "неизвестно",
    "without", "ohne", "keine", "sin", "ninguno", "sans", "aucun", "senza", "nessuno", "sem",
    "nenhum", "zonder", "geen", "bez", "brak", "o.a.", "o. a.", "nd", "n.b.", "s.d.", "tba", "tbd",
    "?", "??", "???", ".", "empty", "leer", "vacío", "vide", "blank", "missing",
))  # fmt: skip
"""Words in small letters that may mean nothing and may be a value, as of an unknown artist or of a
film without an age limit (o.A.): nobody but the owner can tell, so `jmrec data init` names them."""

_KEY = "missing = [...] under [dataset] in dataset.toml lists the words that mean nothing"


def empty_words(
    table: Table, words: Sequence[str], ids: Collection[str], findings: Findings
) -> Table:
    """Return a table whose words for nothing are empty cells.

    Args:
      table: As it was read.
      words: Cells that mean nothing.
      ids: Columns of item ids, which stay as they are.
      findings: Counts each word; gets a line where the words are a guess (`MISSING`).

    Example:
      >>> cells = pa.array(["x", "NULL", "-"])
      >>> table = Table("items.csv", {"brand": cells}, np.arange(2, 5))
      >>> empty_words(table, MISSING, [], found := Findings()).columns["brand"].to_pylist()
      ['x', '', '']
      >>> print(found.warnings[0])
      items.csv, row 3: brand is 'NULL', a word for nothing (cells taken as empty: 'NULL' 1, '-' 1);
      missing = [...] under [dataset] in dataset.toml lists the words that mean nothing.
    """
    listed = pa.array(words, pa.string())
    columns: dict[str, pa.Array] = {}
    seen: dict[str, tuple[int, int, int]] = {}
    first = (len(table), "")
    for place, (name, cells) in enumerate(table.columns.items()):
        found = pc.is_in(cells, value_set=listed)
        if name not in ids and pc.any(found).as_py():
            columns[name] = pc.if_else(found, "", cells)
            coded = cells.filter(found).dictionary_encode()
            codes = np.asarray(coded.indices)
            counts, rows = np.bincount(codes).tolist(), np.zeros(len(coded.dictionary), np.int64)
            rows[codes[::-1]] = table.rows[np.asarray(found)][::-1]  # of several the first stays
            for word, more, at in zip(coded.dictionary.to_pylist(), counts, rows.tolist()):
                have, *before = seen.get(word, (0, place, at))
                seen[word] = (have + more, before[0], before[1])
            first = min(first, (pc.index(found, True).as_py(), name))
    row, name = first
    says, at_row = "", 0
    if seen:
        at_row = int(table.rows[row])
        says = f"{table.where(row)}: {name} is {shown(table.columns[name][row].as_py())}"
    say = _say_words if words is MISSING else _count
    findings.gather(Words(seen, at_row, says), say)
    return replace(table, columns=table.columns | columns)


@dataclass(frozen=True)
class Words:
    """Words for nothing in a table; an `Evidence`.

    Attributes:
      seen: Word -> how many cells it fills, and the column (from 0) and the row of the first.
      row: The first row with any.
      says: What stands there.
    """

    seen: dict[str, tuple[int, int, int]]
    row: int
    says: str

    @property
    def count(self) -> Counter[str]:
        """Word -> cells, in the order in which they are met, column by column."""
        order = sorted(self.seen, key=lambda word: self.seen[word][1:])
        return Counter({word: self.seen[word][0] for word in order})

    def summed(self) -> "Words":
        """Return it as it is."""
        return self

    def merge(self, other: "Words") -> "Words":
        """Return the sums, and which is first."""
        there = [each for each in (self, other) if each.seen]
        first = min(there, key=lambda each: each.row, default=self)
        seen = dict(self.seen)
        for word, (count, *at) in other.seen.items():
            own, *place = seen.get(word, (0, *at))
            column, row = min(at, place)
            seen[word] = (own + count, column, row)
        return replace(first, seen=seen)


def _count(found: Words, findings: Findings) -> None:
    findings.words += found.count


def _say_words(found: Words, findings: Findings) -> None:
    _count(found, findings)
    if found.seen:
        findings.note(
            f"{found.says}, a word for nothing (cells taken as empty: "
            f"{show_words(found.count)}); {_KEY}"
        )


def ids_like_words(table: Table, column: str, words: Sequence[str], findings: Findings) -> None:
    """Report item ids that are words for nothing; they are kept."""
    if words is not MISSING:
        return
    cells = table.columns[column]
    findings.add(
        table,
        np.flatnonzero(np.asarray(pc.is_in(cells, value_set=pa.array(words)))),
        lambda i: (
            f"{column} is {shown(cells[i].as_py())}, an id that looks like a word for nothing; "
            f"remove the row if it is one, and else say so: {_KEY}"
        ),
        KEPT,
    )


def show_words(count: Counter[str] | dict[str, int]) -> str:
    """Return counts by word, the most frequent first.

    Example:
      >>> show_words({"-": 1, "NULL": 1200})
      "'NULL' 1,200, '-' 1"
    """
    return ", ".join(f"{word!r} {n:,}" for word, n in Counter(count).most_common()) or "none"
