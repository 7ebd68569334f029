"""Parts of the pairs that are looked at apart, and when pictures help, and when texts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jmrec.evaluation.pairs.figures import AREAS, Measured, areas, difference, entry
from jmrec.evaluation.pairs.rows import BOTH, NONE, PICTURE, TEXT, Pairs
from jmrec.evaluation.results import MODEL, PAIR, role_of
from jmrec.metrics.bootstrap import Resamples, ends

COUNTS = ((0, "0"), (1, "1-4"), (5, "5-19"), (20, "20+"))
"""Where a bucket of earlier rows begins, and its name."""
ITEM_ROWS, USER_ROWS = "earlier rows of the item", "earlier rows of the user"
HAS_PICTURE, LENGTH = "picture of the item", "length known"
MOST_PERIODS = 24
"""More months than that are shown as years."""
ALL = "all"


@dataclass(frozen=True)
class Segment:
    """Some of the pairs.

    Attributes:
      by: What the segments beside it differ in.
      name: Of this one.
      rows: int [n], which pairs.
    """

    by: str
    name: str
    rows: np.ndarray


def segments(pairs: Pairs) -> list[Segment]:
    """Return the segments of pairs, those of one kind together and in order; none is empty.

    Args:
      pairs: What is reported.

    Example:
      >>> none = np.zeros(3, int)
      >>> some = Pairs(none, none, none, none, np.array([0, 3, 30]), none)
      >>> [(part.name, part.rows.tolist()) for part in segments(some) if part.by == ITEM_ROWS]
      [('0', [0]), ('1-4', [1]), ('20+', [2])]
    """
    found = []
    for by, counts in ((ITEM_ROWS, pairs.item_count), (USER_ROWS, pairs.user_count)):
        which = np.digitize(counts, [start for start, _ in COUNTS]) - 1
        found += _parts(by, [name for _, name in COUNTS], which)
    if pairs.picture is not None:
        found += _parts(HAS_PICTURE, ["without", "with"], np.asarray(pairs.picture).astype(int))
    if pairs.length is not None:
        found += _parts(LENGTH, *_thirds(np.asarray(pairs.length, np.float64)))
    for by, names in pairs.segments.items():
        known, which = np.unique(np.asarray(names), return_inverse=True)
        found += _parts(by, [str(each) for each in known], which)
    return found


def periods(pairs: Pairs) -> list[Segment]:
    """Return the pairs by month, or by year where they are of many months.

    Args:
      pairs: With real times.

    Returns:
      Segments in the order of time.
    """
    days = np.asarray(pairs.times, np.float64).astype("datetime64[s]")
    months = np.unique(days.astype("datetime64[M]"))
    by, unit = ("month", "M") if len(months) <= MOST_PERIODS else ("year", "Y")
    found, which = np.unique(days.astype(f"datetime64[{unit}]"), return_inverse=True)
    return _parts(by, [str(each) for each in found], which)


def _parts(by: str, names: Sequence[str], which: np.ndarray) -> list[Segment]:
    rows = (np.flatnonzero(which == place) for place in range(len(names)))
    return [Segment(by, name, part) for name, part in zip(names, rows) if len(part)]


def _thirds(length: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Return names and places of: nothing, and thirds of the rest."""
    some = length[length > 0]
    low, high = np.quantile(some, [1 / 3, 2 / 3]) if len(some) else (0.0, 0.0)
    names = ["0", f"up to {low:,.0f}", f"{low:,.0f} to {high:,.0f}", f"over {high:,.0f}"]
    places = np.where(length <= 0, 0, 1 + (length > low) + (length > high))
    return names, places


Found = dict[tuple[str, str, str], tuple[np.ndarray, np.ndarray]]
"""(row, what segments differ in, segment) -> its areas and their resamples."""


def measure_segments(
    rows: Sequence[Measured], parts: Sequence[Segment], labels: np.ndarray, resamples: Resamples
) -> Found:
    """Measure rows in segments; a segment with too few rows of a class is left out."""
    return {
        (row.name, part.by, part.name): found
        for part in parts
        for row in rows
        if (found := areas(row, labels, resamples, part.rows)) is not None
    }


def segment_table(
    rows: Sequence[Measured], parts: Sequence[Segment], labels: np.ndarray, found: Found
) -> list[dict[str, Any]]:
    """Return an entry for each segment: "by", "segment", "n", "positives", and "rows".

    "rows" is row name -> metric -> value, and "interval" -> metric -> [low, high].
    """
    table = []
    for part in parts:
        entries = {}
        for row in rows:
            if (known := found.get((row.name, part.by, part.name))) is None:
                continue
            values, draws = known
            entries[row.name] = {
                **dict(zip(AREAS, values.tolist())),
                "interval": dict(zip(AREAS, ends(draws).tolist())),
            }
        table.append({**_head(part, labels), "rows": entries})
    return table


def drift_table(
    rows: Sequence[Measured], parts: Sequence[Segment], labels: np.ndarray, found: Found
) -> list[dict[str, Any]]:
    """Return an entry for each period, as of a segment, with "mean probability" of each row.

    Its distance from the share of positives shows a calibration that has grown old.
    """
    table = segment_table(rows, parts, labels, found)
    for line, part in zip(table, parts):
        line["share"] = float(labels[part.rows].mean())
        for row in rows:
            p = 1.0 / (1.0 + np.exp(-row.logits[:, part.rows]))
            line["rows"].setdefault(row.name, {})["mean probability"] = float(p.mean())
    return table


def help_pairs(rows: Sequence[Measured]) -> list[tuple[str, Measured, Measured]]:
    """Return (part, the row that reads both, the row that lacks the part) of one strategy.

    Of several strategies under which the arms were trained, it is "none", else the first.
    """
    models = [row for row in rows if role_of(row.scored.kind) == MODEL]
    strategies = dict.fromkeys(row.scored.strategy for row in models)
    for strategy in sorted(strategies, key=lambda each: each not in (NONE, "")):
        arms: dict[str, Measured] = {}
        for row in models:
            if row.scored.strategy == strategy:
                arms.setdefault(row.scored.arm, row)
        lacks = ((PICTURE, TEXT), (TEXT, PICTURE))
        pairs = [
            (part, arms[BOTH], arms[left]) for part, left in lacks if {BOTH, left} <= arms.keys()
        ]
        if pairs:
            return pairs
    return []


def help_table(
    rows: Sequence[Measured], parts: Sequence[Segment], labels: np.ndarray, found: Found
) -> list[dict[str, Any]]:
    """Return what a part adds, overall and by segment: the paired difference and its interval.

    Args:
      rows: All rows.
      parts: The segments that were measured.
      labels: int [N].
      found: Of the arms, from `measure_segments`.

    Returns:
      Entries with "part" ("picture" or "text"), "a" and "b" (the rows), "by", "segment", "n",
      "positives", and a comparison under each of `AREAS`.
    """
    whole = Segment(ALL, ALL, np.arange(len(labels)))
    return [
        {"part": part, "a": a.name, "b": b.name, **_head(segment, labels), **compared}
        for part, a, b in help_pairs(rows)
        for segment in [whole, *parts]
        if (compared := dict(_compared(a, b, segment, found)))
    ]


def _compared(
    a: Measured, b: Measured, segment: Segment, found: Found
) -> Iterator[tuple[str, dict[str, Any]]]:
    if segment.by == ALL:
        both = [
            (
                np.array([row.values[name] for name in AREAS]),
                np.array([row.draws[name] for name in AREAS]),
            )
            for row in (a, b)
        ]
    else:
        keys = [(row.name, segment.by, segment.name) for row in (a, b)]
        if any(key not in found for key in keys):
            return
        both = [found[key] for key in keys]
    (a_values, a_draws), (b_values, b_draws) = both
    for place, metric in enumerate(AREAS):
        apart = difference(a_values[place], b_values[place], a_draws[place], b_draws[place])
        said = entry(a, b, PAIR, metric, apart)
        kept = ("difference", "interval", "verdict", "reason")
        yield metric, {name: value for name, value in said.items() if name in kept}


def _head(part: Segment, labels: np.ndarray) -> dict[str, Any]:
    positives = int(labels[part.rows].sum())
    return {"by": part.by, "segment": part.name, "n": len(part.rows), "positives": positives}
