"""A leaderboard's JSON as a page of Markdown; it says no more than the JSON does."""

from collections.abc import Sequence

from jmrec.evaluation.results import HR20, LAST, MRR20, SESSION
from jmrec.report.tables import MISSING, counted, interval, percent, signed
from jmrec.tools.leaderboard.board import LEVEL, Board, BoardCost, BoardRow, Difference
from jmrec.tools.terminal import human
from jmrec.usage import duration


def page(board: Board, cost: BoardCost) -> str:
    """Return the page.

    Args:
      board: See `jmrec.tools.leaderboard.board`.
      cost: Of the file beside it, {} where there is none.
    """
    rows = sorted(board["rows"], key=lambda row: -(row["figures"][SESSION][MRR20] or 0.0))
    data = board["dataset"]
    sizes = ", ".join(f"{counted(n)} {name}" for name, n in data["sessions"].items())
    reads = "once" if board["test_reads"] == 1 else f"{board['test_reads']} times"
    parts = [
        f"# Leaderboard: {data['name']}",
        f"{board['caption']} {counted(data['items'])} items; sessions: {sizes}. The split was read "
        f"{reads}. In percent. P@20 is the hit rate of the last item of a session.",
        _main(rows),
        "## Encoders less the best rule",
        f"The best rule here is **{board['best_rule']}**. Differences in points, on the same "
        f"sessions, with 95 % intervals; p of the same resamples, corrected by Holm for all "
        f"encoders of this table. A verdict needs a corrected p below {LEVEL} and three seeds.",
        _differences([(row["name"], row["less"]) for row in rows if row["less"]]),
    ]
    if board["content"]:
        parts += [
            "## What features add",
            "An encoder that reads features less the same over ids alone, corrected for all lines.",
            _differences([(each["name"], each["less"]) for each in board["content"]]),
        ]
    if any((row["targets"].get("cold") or {}).get("n") for row in rows):
        parts += ["## Warm and cold items", _targets(rows)]
    if cost:
        parts += [
            "## Cost",
            "Of one seed's training, or of counting a rule and choosing its settings; of ranking "
            "every target; the most memory that the process held meanwhile.",
            _costs(rows, cost),
        ]
    return "\n\n".join(parts) + "\n"


def _table(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a table of Markdown, the first column to the left and the others to the right."""
    rule = "|---|" + "---:|" * (len(columns) - 1)
    head, *body = ("| " + " | ".join(cells) + " |" for cells in (columns, *lines))
    return "\n".join([head, rule, *body])


def _main(rows: Sequence[BoardRow]) -> str:
    lines = []
    for row in rows:
        session, last = row["figures"][SESSION], row["figures"][LAST]
        ends = row["interval"][SESSION]
        lines.append([
            row["name"], row["reads"] or row["kind"], str(row["seeds"]),
            *(f"{percent(session[m])} ({interval(ends[m])})" for m in (MRR20, HR20)),
            percent(last[MRR20]), percent(last[HR20]), percent(row["validation"]),
        ])  # fmt: skip
    columns = ["", "reads", "seeds", MRR20, HR20, f"last item {MRR20}", "P@20", "validation"]
    return _table(columns, lines)


def _differences(rows: Sequence[tuple[str, dict[str, Difference]]]) -> str:
    lines = []
    for name, less in rows:
        cells = [name]
        for metric in (MRR20, HR20):
            each = less[metric]
            low, high = each["interval"]
            cells += [
                f"{signed(each['difference'])} ({signed(low)} to {signed(high)})",
                f"{each['holm']:.3f}",
                each["verdict"] + (f" ({each['reason']})" if "reason" in each else ""),
            ]
        lines.append(cells)
    return _table(["", MRR20, "p", "verdict", HR20, "p", "verdict"], lines)


def _targets(rows: Sequence[BoardRow]) -> str:
    kinds = [kind for kind in ("warm", "cold") if kind in rows[0]["targets"]]
    columns = [
        f"{kind} {metric} (n={counted(rows[0]['targets'][kind]['n'])})"
        for kind in kinds for metric in (MRR20, HR20)
    ]  # fmt: skip
    lines = [
        [row["name"], *(percent(row["targets"][kind][m]) for kind in kinds for m in (MRR20, HR20))]
        for row in rows
    ]
    return _table(["", *columns], lines)


def _costs(rows: Sequence[BoardRow], cost: BoardCost) -> str:
    lines = []
    for row in rows:
        each = cost[row["name"]]
        spent = [
            MISSING if seconds is None else duration(seconds)
            for seconds in (each["seconds"], each["rank"])
        ]
        held = each["peak_memory"]
        lines.append([row["name"], *spent, MISSING if held is None else human(held)])
    return _table(["", "to train or fit", "to rank", "memory"], lines)
