"""Which encodings the files of a folder have. For `jmrec data init`."""

from dataclasses import replace

from jmrec.data.guess_lines import Lines
from jmrec.data.guess_tables import Pair
from jmrec.data.sources import PARQUET, read_text


def encodings(pair: Pair) -> dict[str, set[str]]:
    """Return the encodings of the CSV files that are not plain ASCII, by table."""
    found: dict[str, set[str]] = {}
    for table, candidate in (("items", pair.items), ("interactions", pair.interactions)):
        for source in candidate.sources:
            if source.kind != PARQUET:
                text = read_text(replace(source, encoding=""))
                if not text.is_ascii:
                    found.setdefault(table, set()).add(text.encoding)
    return found


def own_encodings(pair: Pair, lines: dict[str, Lines]) -> None:
    """Name the encoding of a table's file where the other's is another."""
    found = encodings(pair)
    for table, names in found.items():
        encoding = min(names)
        one = len(names) == 1 and len(set.union(*found.values())) > 1
        if one and not encoding.startswith("utf"):
            why = "The file is not UTF-8, as the other is; this is the likeliest."
            lines[table].say("encoding", encoding, why)
