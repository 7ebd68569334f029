"""The schema of a leaderboard's JSON, and how it is made of a finished run.

No time of a clock is in it, so that a run that was killed gives the same file; what it cost is in
a file beside it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any, NotRequired, TypedDict, cast

from jmrec.config import ConfigDict
from jmrec.errors import UserError
from jmrec.evaluation.choice import DIGITS
from jmrec.evaluation.rankers.rules import CHOSEN_BY
from jmrec.evaluation.results import (
    BOUND,
    HR20,
    LAST,
    MODEL,
    MRR20,
    RESULTS,
    RULE,
    SESSION,
    DatasetHead,
    Kind,
    ResultRow,
    read_cost,
    read_results,
    role_of,
)
from jmrec.evaluation.summary import judged
from jmrec.evaluation.windows import NAMES, Units, read_units
from jmrec.files import plain, read_json, write_json
from jmrec.metrics.bootstrap import Paired, paired
from jmrec.metrics.significance import holm
from jmrec.systems.evaluate import UNITS
from jmrec.systems.registry import read_config
from jmrec.systems.students import NO_FEATURES, stage_name

FORMAT = 1
LEVEL = 0.05
"""Of corrected p-values: below it two rows are told apart."""
IDS, FEATURES = "ids", "features"


class Difference(TypedDict):
    """A row less another on the same sessions; "reason" says why an interval claims nothing.

    ``p`` is two-sided, of the resamples of the interval; ``holm`` is corrected for all comparisons
    of its table by the same metric, and decides the ``verdict``.
    """

    difference: float
    interval: list[float]
    p: float
    holm: float
    verdict: str
    reason: NotRequired[str]


class BoardRow(TypedDict):
    """A rule, an encoder, or a bound.

    ``reads`` is what an encoder reads of an item, "" of others; ``validation`` the figure by which
    was chosen. ``figures`` is figure -> metric -> a fraction, ``interval`` the same with [low,
    high]; ``targets`` is warm or cold -> the metrics and how many predictions, "n". ``less`` is
    metric -> an encoder less the best rule; empty of others.
    """

    name: str
    kind: str
    encoder: str
    reads: str
    seeds: int
    validation: float | None
    figures: dict[str, dict[str, float | None]]
    interval: dict[str, dict[str, list[float]]]
    targets: dict[str, dict[str, float | None]]
    less: dict[str, Difference]


class Content(TypedDict):
    """What features add: a row that reads them ``less`` the same encoder that reads ids alone."""

    name: str
    ids: str
    less: dict[str, Difference]


class Board(TypedDict):
    """The contents of a leaderboard's JSON."""

    format: int
    caption: str
    dataset: DatasetHead
    kinds: list[Kind]
    best_rule: str
    test_reads: int
    rows: list[BoardRow]
    content: list[Content]


class RowCost(TypedDict):
    """What a row cost: of one seed's training, or of a rule with the choice of its settings.

    ``rank`` is the seconds in which all targets of the split were ranked, with each seed.
    """

    seconds: float | None
    rank: float | None
    peak_memory: int | None


BoardCost = dict[str, RowCost]
"""The contents of the file beside it, by row."""


def make_board(workdir: Path) -> tuple[Board, BoardCost]:
    """Return the leaderboard of a finished run of the system "session", and what it cost.

    Args:
      workdir: Of the run.

    Raises:
      UserError: A file is missing or damaged, or there is no rule.
    """
    config = read_config(workdir)
    results = read_results(workdir / "evaluate" / RESULTS)
    units = read_units(workdir / "evaluate" / UNITS)
    rows = [row for row in results["rows"] if role_of(row["kind"]) in (BOUND, RULE, MODEL)]
    rule = results["best_rule"]
    if rule is None:
        raise UserError(f"{workdir} has no rule to compare with; run it again.")
    models = [row for row in rows if role_of(row["kind"]) == MODEL]
    by_name = {row["name"]: row for row in rows}
    above = differences([(row, by_name[rule]) for row in models], units)
    board = [_board_row(config, workdir, row, above.get(row["name"], {})) for row in rows]
    pairs = _content(board)
    added = differences([(by_name[a], by_name[b]) for a, b in pairs], units)
    found: Board = {
        "format": FORMAT,
        "caption": results["caption"],
        "dataset": results["dataset"],
        "kinds": [each for each in results["kinds"] if each["role"] in (BOUND, RULE, MODEL)],
        "best_rule": rule,
        "test_reads": results["test_reads"],
        "rows": board,
        "content": [{"name": a, "ids": b, "less": added[a]} for a, b in pairs],
    }
    return cast(Board, plain(found)), _costs(workdir, board, config)


def _board_row(
    config: ConfigDict, workdir: Path, row: ResultRow, less: dict[str, Difference]
) -> BoardRow:
    name, encoder, reads = row["name"], "", list[str]()
    validation = row.get("settings", {}).get(CHOSEN_BY)
    if name in config.students:
        student = config.students[name]
        encoder = student.get("encoder", config.student.encoder)
        reads = [IDS] * bool(student.ids) + [FEATURES] * (student.features != NO_FEATURES)
        validation = round(on_validation(config, workdir, name), DIGITS)
    return {
        "name": name,
        "kind": row["kind"],
        "encoder": encoder,
        "reads": " + ".join(reads),
        "seeds": row["seeds"],
        "validation": validation,
        "figures": _taken(row["figures"]),
        "interval": _taken(row["interval"]),
        "targets": row.get("slices", {}).get("target", {}),
        "less": less,
    }


def on_validation(config: ConfigDict, workdir: Path, name: str) -> float:
    """Return the best figure on validation in a student's training, the mean of its seeds."""
    trained = [read_json(workdir / each / "metrics.json") for each in _stages(config, name)]
    return mean(each["best"] for each in trained)


def _stages(config: ConfigDict, name: str) -> list[str]:
    return [stage_name(name, seed) for seed in config.students[name].get("seeds", config.seeds)]


def _taken(figures: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    return {name: {each: figures[name][each] for each in (HR20, MRR20)} for name in (SESSION, LAST)}


def differences(
    pairs: Sequence[tuple[ResultRow, ResultRow]], units: Units
) -> dict[str, dict[str, Difference]]:
    """Return the differences of pairs of rows, corrected for how many pairs there are.

    Args:
      pairs: Rows of results.json; no row stands first in two of them.
      units: Of the same run.

    Returns:
      First row -> metric -> its difference from the second.
    """
    table: dict[str, dict[str, Difference]] = {a["name"]: {} for a, _ in pairs}
    at = {name: place for place, name in enumerate(units.names)}
    for m, metric in enumerate(NAMES):
        found = [
            paired(units.values[at[a["name"]], m], units.values[at[b["name"]], m], units.cluster)
            for a, b in pairs
        ]
        corrected = holm([each.p for each in found]).tolist()
        for (a, b), each, p in zip(pairs, found, corrected):
            table[a["name"]][metric] = _difference(a, b, metric, each, p)
    return table


def _difference(a: ResultRow, b: ResultRow, metric: str, found: Paired, p: float) -> Difference:
    said = judged(a, b, SESSION, metric, found)
    entry: Difference = {
        "difference": found.difference, "interval": said["interval"], "p": found.p, "holm": p,
        "verdict": said["verdict"],
    }  # fmt: skip
    if "reason" in said:
        entry["reason"] = said["reason"]
    elif said["verdict"] != "not told apart" and p >= LEVEL:
        entry |= {"verdict": "not told apart", "reason": f"p is {LEVEL} or more after correction"}
    return entry


def _content(rows: Sequence[BoardRow]) -> list[tuple[str, str]]:
    """Return each row that reads features with the row of the same encoder over ids alone."""
    over_ids = {row["encoder"]: row["name"] for row in rows if row["reads"] == IDS}
    return [
        (row["name"], over_ids[row["encoder"]])
        for row in rows
        if FEATURES in row["reads"] and row["encoder"] in over_ids
    ]


def _costs(workdir: Path, rows: Sequence[BoardRow], config: ConfigDict) -> BoardCost:
    cost = read_cost(workdir / "evaluate")
    found: BoardCost = {}
    for row in rows:
        here: Mapping[str, Any] = cost.get("rows", {}).get(row["name"], {})
        rank, fit = here.get("rank"), here.get("fit")
        entry: RowCost = {
            "seconds": None if fit is None else round(fit / row["seeds"], 2),
            "rank": None if rank is None else round(rank / row["seeds"], 2),
            "peak_memory": here.get("peak_memory"),
        }
        if row["encoder"]:
            trained = [cost["stages"][each] for each in _stages(config, row["name"])]
            entry["seconds"] = round(mean(each["seconds"] for each in trained), 1)
            entry["peak_memory"] = max(each["peak_memory"] or 0 for each in trained) or None
        found[row["name"]] = entry
    return found


def paths(out: Path) -> tuple[Path, Path, Path]:
    """Return where the JSON, its costs and its page are, given the JSON or the name without ending.

    Example:
      >>> [each.name for each in paths(Path("results/shop.json"))]
      ['shop.json', 'shop.cost.json', 'shop.md']
    """
    name = out.name.removesuffix(".json")
    json, cost, page = (out.with_name(name + end) for end in (".json", ".cost.json", ".md"))
    return json, cost, page


def write_board(out: Path, board: Board, cost: BoardCost) -> None:
    """Write both JSON files; see `paths`."""
    for path, value in zip(paths(out), (board, cost)):
        write_json(path, value)


def read_board(out: Path) -> tuple[Board, BoardCost]:
    """Read both JSON files; without the one of costs there are none.

    Raises:
      UserError: The board is missing or damaged, or of another version.
    """
    path, beside, _ = paths(out)
    found = read_json(path)
    if not isinstance(found, dict) or not Board.__required_keys__ <= found.keys():
        raise UserError(f"{path} is no leaderboard (it lacks its fields); make it anew.")
    if found["format"] != FORMAT:
        raise UserError(
            f"{path} is of format {found['format']}, this jmrec reads {FORMAT}; make it anew."
        )
    return cast(Board, found), read_json(beside) if beside.is_file() else {}
