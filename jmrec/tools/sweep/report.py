"""What a sweep ends in: one table, its files, and the YAML of a W&B sweep."""

import csv
import math
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from jmrec.evaluation.results import RANKING, Primary
from jmrec.files import csv_cell, write_json
from jmrec.lock import locked
from jmrec.report.decision import ENOUGH, SEEDS, TOLD
from jmrec.tools.sweep.study import axes
from jmrec.tools.sweep.table import COSTS, best, cell, rows, settings, short_names
from jmrec.tools.sweep.trials import VALIDATION, Sweep, called

JUDGED = (
    "seeds", "score low", "score high", "less rule", "less rule low", "less rule high",
    "best less it", "best less it low", "best less it high",
)  # fmt: skip
"""Columns of sweep.csv on what a score is worth: its 95 % interval; it less the best rule of its
run; the best trial less it; both paired, with their intervals."""


def write(sweep: Sweep) -> list[dict[str, Any]]:
    """Write sweep.json, sweep.csv and sweep.png, of all trials as they are now.

    Returns:
      The rows.
    """
    from jmrec.tools.sweep.plot import plot  # matplotlib takes a second

    folder, names = sweep.workdir, settings(sweep)
    with locked(folder / "sweep.lock"):  # the last of several workers sees all that ended
        table, figure = rows(sweep), called(sweep.judge())
        write_json(folder / "sweep.json", {"score": figure, "best": best(table), "trials": table})
        side = folder / "sweep.csv.tmp"
        with side.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            head = ("trial", "state", "score", "seconds")
            figures = list(dict.fromkeys(name for row in table for name in row["figures"]))
            writer.writerow([*head, *names, "row", *JUDGED, *figures, *COSTS, "message"])
            for row in table:
                values = [row[key] for key in head]
                values += [cell(row["overrides"], name) for name in names]
                values += [row["row"], *_judged(row)]
                values += [row["figures"].get(name) for name in figures]
                values += [row["costs"].get(name) for name in COSTS]
                writer.writerow(map(csv_cell, [*values, row["message"]]))
        side.replace(folder / "sweep.csv")
        side = folder / "sweep.png.tmp"
        plot(table, names, figure).savefig(side, format="png", dpi=150)
        side.replace(folder / "sweep.png")
    return table


def _judged(row: Mapping[str, Any]) -> list[Any]:
    """Return the cells of a row under `JUDGED`."""
    cells = [row["seeds"], *(row["interval"] or (None, None))]
    for each in (row["rule"], row["best"]):
        cells += [each["difference"], *each["interval"]] if each else [None] * 3
    return cells


def print_table(
    table: Sequence[dict[str, Any]],
    names: Sequence[str],
    console: Console,
    judge: Primary = RANKING,
) -> None:
    """Print the trials, the best first.

    Args:
      table: From `jmrec.tools.sweep.table.rows`.
      names: The settings to show.
      console: Where to.
      judge: What they are judged by.
    """
    rule = any(row["rule"] for row in table)
    behind = any(row["best"] for row in table)
    shown = Table(
        "trial", *short_names(names), f"{judge['metric']}, %", "95 %",
        *(["less its best rule"] if rule else []), *(["best trial less it"] if behind else []),
        "state", title=f"score: {called(judge)}",
    )  # fmt: skip
    winner = best(table)
    for row in sorted(table, key=lambda r: -math.inf if r["score"] is None else r["score"],
                      reverse=True):  # fmt: skip
        score = "" if row["score"] is None else f"{100 * row['score']:.2f}"
        cells = [*(cell(row["overrides"], name) for name in names), score, _ends(row["interval"])]
        for key, wanted in (("rule", rule), ("best", behind)):
            cells += [_difference(row[key])] if wanted else []
        style = "bold" if row is winner else None
        shown.add_row(row["trial"], *cells, row["state"], style=style)
    console.print(shown)


def _ends(interval: Sequence[float] | None) -> str:
    return "" if interval is None else "–".join(f"{100 * end:.1f}" for end in interval)


def _difference(found: Mapping[str, Any] | None) -> str:
    if found is None or found["difference"] is None:
        return ""
    low, high = (f"{100 * end:.1f}".replace("-", "−") for end in found["interval"])
    return f"{100 * found['difference']:+.2f} [{low}, {high}]".replace("-", "−")


def conclusion(table: Sequence[dict[str, Any]]) -> list[str]:
    """Return what may be said of the best trial, in sentences.

    Args:
      table: From `jmrec.tools.sweep.table.rows`.

    Returns:
      Whether it is above the best rule of its run, and which trials can not be told from it, or
      that its seeds are too few for either; and which trials have the very same figures.
    """
    winner = best(table)
    if winner is None or winner["seeds"] is None:
        return []
    said, others = [], [row for row in table if row["best"]]
    if winner["seeds"] < ENOUGH:
        several = "s" if winner["seeds"] > 1 else ""
        said.append(
            f"{winner['seeds']} seed{several}: nothing is claimed of {winner['trial']}; with "
            f"{SEEDS} this table says what can be told apart."
        )
    else:
        if rule := winner["rule"]:
            word = rule["verdict"] if rule["verdict"] in TOLD else "not told apart from"
            said.append(
                f"{winner['trial']} is {word} the best rule of its run, {rule['name']} "
                f"({_difference(rule)} points)."
            )
        close = [row["trial"] for row in others if row["best"]["verdict"] != "above"]
        if close:
            said.append(
                f"{winner['trial']} is not told apart from {len(close)} of {len(others)} other "
                f"trials on the same sessions: {', '.join(close[:5])}"
                f"{', ...' if len(close) > 5 else '.'}"
            )
        elif others:
            said.append(f"{winner['trial']} is above every other trial on the same sessions.")
    done = [row for row in table if row["figures"]]
    twins = (
        (one["trial"], other["trial"])
        for number, other in enumerate(done) for one in done[:number]
        if one["figures"] == other["figures"]
    )  # fmt: skip
    if pair := next(twins, None):
        said.append(
            f"{pair[0]} and {pair[1]} have the same figures to the last digit: nothing may have "
            "read what they differ in (jmrec config show says who reads a setting)."
        )
    return said


def wandb_yaml(sweep: Sweep, share: bool = True, every_row: bool = False) -> str:
    """Return the sweep as W&B's YAML; ``wandb sweep FILE`` takes it, ``wandb agent`` runs it.

    A full product becomes W&B's own parameters (``method: bayes`` or ``random`` may then be
    written in place of ``grid``), and a trial's folder has the name of its W&B run. Any other list
    is swept by its trials' numbers, through ``jmrec sweep --index``.

    Args:
      sweep: What is swept.
      share: Whether trials share finished stages.
      every_row: Whether a trial also trains the rows that it is not judged by.
    """
    import yaml  # for this alone

    trial = sweep.trials[0]
    common = ["--config", sweep.spec, *sweep.overrides]
    jmrec = [sys.executable, "-m", "jmrec"]
    trained = {each.only for each in sweep.trials}
    found = axes([each.overrides for each in sweep.trials]) if len(trained) == 1 else None
    parameters: dict[str, Any]
    if found:
        kept = [f"--config.{n}={v}" for n, v in _constant(sweep, found).items()]
        only = [f"--only={','.join(trial.only)}"] if trial.only else []
        words = [*jmrec, "run", *(["--share"] if share else []), *only, *common, *kept, VALIDATION]
        folder = f'{shlex.quote(str(sweep.workdir))}/wandb-"$WANDB_RUN_ID"'
        line = f'exec {shlex.join(words)} --workdir {folder} "$@"'
        command = ["sh", "-c", line, "jmrec", "${args}"]
        parameters = {f"config.{name}": {"values": values} for name, values in found.items()}
    else:
        command = [*jmrec, "sweep", *common, "--workdir", str(sweep.workdir)]
        command += [*([] if share else ["--no-share"]), *(["--every-row"] if every_row else [])]
        command.append("${args}")
        parameters = {"index": {"values": [each.index for each in sweep.trials]}}
    asked = {
        "name": sweep.workdir.name,
        "method": "grid",
        "metric": {
            "name": f"{trial.stages[-1]}/eval/score",
            "goal": "maximize",
        },
        "parameters": parameters,
        "program": "jmrec",
        "command": command,
    }
    note = "# Needs --config.wandb.mode=online among the overrides, so that W&B hears the score.\n"
    mode = sweep.base.get("wandb.mode")
    text: str = yaml.safe_dump(asked, sort_keys=False, width=100)
    return text if mode == "online" else note + text


def _constant(sweep: Sweep, varied: dict[str, Any]) -> dict[str, Any]:
    trial = sweep.trials[0].overrides
    return {name: value for name, value in trial.items() if name not in varied}
