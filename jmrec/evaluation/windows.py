"""Several test windows as one: each session's figures are kept, then pooled over windows.

Rolling-origin evaluation trains again before every window, so that a test of a few hundred sessions
becomes one of a few thousand and no model has learned from any of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from jmrec.errors import UserError
from jmrec.evaluation.dump import renumbered
from jmrec.evaluation.figures import per_prediction, units
from jmrec.evaluation.protocol import Predictions
from jmrec.evaluation.results import (
    MEASURES,
    MRR20,
    SESSION,
    Comparison,
    ResultRow,
    kinds_of,
)
from jmrec.evaluation.summary import Row, best_rule, judged
from jmrec.metrics.bootstrap import interval, paired

NAMES = tuple(name for _, name in MEASURES)


@dataclass(frozen=True)
class Units:
    """What a table's session figures are means of.

    Attributes:
      names: R rows.
      kinds: Their kinds.
      seeds: int [R].
      cluster: int64 [S], what is drawn together in a bootstrap: a user, or -1 - session.
      values: float64 [R, M, S], the metrics of `NAMES`, seeds averaged, of each session.
    """

    names: list[str]
    kinds: list[str]
    seeds: np.ndarray
    cluster: np.ndarray
    values: np.ndarray


def units_of(rows: Sequence[Row], predictions: Predictions) -> Units:
    """Return the units of a table.

    Args:
      rows: R rows, measured.
      predictions: What every row was asked.
    """
    found = [
        [units(per_prediction(row.ranks(), name), predictions, SESSION) for name in NAMES]
        for row in rows
    ]
    return Units(
        names=[row.name for row in rows],
        kinds=[row.kind for row in rows],
        seeds=np.array([len(row.ranked) for row in rows]),
        cluster=found[0][0][1],
        values=np.array([[means for means, _ in row] for row in found]),
    )


def keep_units(found: Units, predictions: Predictions, keep: np.ndarray) -> Units:
    """Return units without some sessions.

    Args:
      found: From `units_of`.
      predictions: What every row was asked.
      keep: bool [S], sessions that stay.
    """
    sessions = np.unique(predictions.session[predictions.place <= 20])
    rows = keep[sessions]
    alone = -1 - renumbered(keep)[sessions].astype(np.int64)
    cluster = np.where(found.cluster >= 0, found.cluster, alone)[rows]
    return replace(found, cluster=cluster, values=found.values[:, :, rows])


def write_units(path: Path, kept: Units) -> None:
    """Write units as npz without objects."""
    names, kinds = np.array(kept.names, np.str_), np.array(kept.kinds, np.str_)
    with path.open("wb") as file:
        np.savez(
            file, names=names, kinds=kinds, seeds=kept.seeds, cluster=kept.cluster,
            values=kept.values,
        )  # fmt: skip


def read_units(path: Path) -> Units:
    """Read what `write_units` wrote.

    Raises:
      UserError: If the file is missing or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return Units(
                names=file["names"].tolist(),
                kinds=file["kinds"].tolist(),
                seeds=file["seeds"],
                cluster=file["cluster"],
                values=file["values"],
            )
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise UserError(
            f"{path} can not be read ({error}); delete its folder and start the same command again."
        ) from None


def pool(windows: Sequence[Units], labels: Sequence[str], served: str) -> dict[str, Any]:
    """Pool the windows of a rolling-origin evaluation.

    Every session weighs the same, whichever window it is of; the bootstrap draws users, or sessions
    where there are none.

    Args:
      windows: One a test window, the oldest first; rows are matched by name, and only those of
        every window count.
      labels: What the windows are called.
      served: The row that is compared with all others.

    Returns:
      The parts of a `Results` that follow from the units: "kinds", "rows" (session figures and
      intervals), "comparisons", "best_rule", and "over_time" by window (see
      `jmrec.evaluation.drift.over_time`).
    """
    common = [n for n in windows[0].names if all(n in window.names for window in windows)]
    place = [[window.names.index(name) for name in common] for window in windows]
    values = [window.values[rows] for window, rows in zip(windows, place)]
    # A user may come back in a later window; a session can not.
    clusters = [
        np.where(window.cluster >= 0, window.cluster, window.cluster - number * 2**40)
        for number, window in enumerate(windows)
    ]
    cluster, whole = np.concatenate(clusters), np.concatenate(values, axis=2)
    rows: list[ResultRow] = []
    by_window = {}
    for at, name in enumerate(common):
        ends = interval(whole[at].T, cluster)
        rows.append(
            {
                "name": name,
                "kind": windows[0].kinds[place[0][at]],
                "seeds": int(windows[0].seeds[place[0][at]]),
                "figures": {SESSION: dict(zip(NAMES, whole[at].mean(axis=1).tolist()))},
                "interval": {SESSION: {n: ends[:, m].tolist() for m, n in enumerate(NAMES)}},
            }
        )
        primary = [part[at, NAMES.index(MRR20)] for part in values]
        by_window[name] = {
            "value": [float(each.mean()) for each in primary],
            "interval": [interval(each, who).tolist() for each, who in zip(primary, clusters)],
        }
    comparisons: list[Comparison] = []
    if served in common:
        own = common.index(served)
        for at in range(len(common)):
            for m, (figure, metric) in enumerate(MEASURES):
                if at != own:
                    found = paired(whole[own, m], whole[at, m], cluster)
                    comparisons.append(judged(rows[own], rows[at], figure, metric, found))
    return {
        "kinds": kinds_of([row["kind"] for row in rows]),
        "rows": rows,
        "comparisons": comparisons,
        "best_rule": best_rule(rows),
        "over_time": {
            "by": "test window",
            "metric": MRR20,
            "periods": list(labels),
            "sessions": [len(window.cluster) for window in windows],
            "rows": by_window,
        },
    }
