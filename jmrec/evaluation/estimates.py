"""Estimates of mutual information against the truth: standard errors and what must hold."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jmrec.evaluation.results import ESTIMATE, NATS, ResultRow
from jmrec.evaluation.sections import Check, Moments

ASKED = 2.0
"""The information, in nats, at which an estimator must come near and not only stay on its side."""
REACH, WITHIN = 1.6, 0.4
"""What InfoNCE must reach there, and how near the Jensen-Shannon critic and SMILE must come."""
NEAR = ("jsd", "smile")


def summarise(batches: np.ndarray) -> Moments:
    """Return the mean of the batches' estimates, its standard error and the highest.

    Batches are independent, so the error is unbiased in its square, whatever an estimator does
    inside a batch. Where the values' tail is heavy (NWJ, MINE at many nats) a sample may hold
    none of it, and the error is then too small.

    Args:
      batches: float [N], N of 2 or more.

    Example:
      >>> summarise(np.array([1.0, 3.0]))
      {'mean': 2.0, 'error': 1.0, 'highest': 3.0}
    """
    values = np.asarray(batches, np.float64)
    error = values.std(ddof=1) / math.sqrt(len(values))
    return {"mean": float(values.mean()), "error": float(error), "highest": float(values.max())}


def check(rows: Sequence[Mapping[str, Any]], batch_size: int) -> list[Check]:
    """Return what must hold of each row, and whether it does.

    Args:
      rows: Each with "nats", "seed", "name", "kind", "mean", "error", "highest".
      batch_size: Pairs in a batch.

    Returns:
      The checks, in the order of the rows.

    Example:
      >>> row = {"nats": 1.0, "seed": 0, "name": "nwj", "kind": "lower", "mean": 0.9, "error": 0.0,
      ...        "highest": 1.5}
      >>> [(each["says"], each["holds"]) for each in check([row], 256)]
      [('at most the truth plus two standard errors', True)]
    """
    found: list[Check] = []
    for row in rows:
        nats, mean, error = row["nats"], row["mean"], row["error"]
        asked: list[tuple[str, float, float, bool]] = []
        if row["kind"] == "lower":
            limit = nats + 2 * error
            asked.append(("at most the truth plus two standard errors", mean, limit, mean <= limit))
        if row["kind"] == "upper":
            limit = nats - 2 * error
            asked.append(
                ("at least the truth less two standard errors", mean, limit, mean >= limit)
            )
        if row["name"] == "infonce":
            limit, highest = math.log(batch_size), row["highest"]
            # float32 may round the logarithm itself up.
            holds = highest <= limit + 1e-5
            asked.append(("no batch above the log of its size", highest, limit, holds))
        if nats == ASKED and row["name"] == "infonce":
            asked.append((f"at least {REACH}", mean, REACH, mean >= REACH))
        if nats == ASKED and row["name"] in NEAR:
            away = abs(mean - nats)
            asked.append((f"within {WITHIN} of the truth", away, WITHIN, away <= WITHIN))
        found += [
            {
                "nats": nats,
                "seed": row["seed"],
                "name": row["name"],
                "says": says,
                "value": value,
                "limit": limit,
                "holds": bool(holds),
            }
            for says, value, limit, holds in asked
        ]
    return found


def table(found: Sequence[Mapping[str, Any]]) -> list[ResultRow]:
    """Return the rows of results.json: one for each estimator at each truth, seeds together.

    Args:
      found: One entry an estimate: as `check` takes them, with "objective", "true", and "group",
        that of the stages whose critics it read ("" for none).

    Returns:
      The rows, in the order of the entries; "settings" has the estimator, the truth, the
      objective that was trained and the group of its stages.

    Example:
      >>> one = {"nats": 2.0, "name": "nwj", "kind": "lower", "objective": "nwj",
      ...        "group": "critics/nwj-2", "error": 0.1, "highest": 2.5,
      ...        "true": {"mean": 2.0, "error": 0.1, "highest": 2.5}}
      >>> rows = table([{**one, "seed": 0, "mean": 1.5}, {**one, "seed": 1, "mean": 1.7}])
      >>> [(row["name"], row["seeds"], row["figures"]) for row in rows]
      [('nwj at 2 nats', 2, {'estimate': {'nats': 1.6}})]
    """
    rows: dict[str, ResultRow] = {}
    for each in found:
        name = f"{each['name']} at {each['nats']:g} nats"
        row = rows.setdefault(
            name,
            {
                "name": name,
                "kind": each["kind"],
                "seeds": 0,
                "settings": {
                    "estimator": each["name"],
                    "nats": each["nats"],
                    "objective": each["objective"],
                    "group": each["group"],
                },
                "figures": {},
                "interval": {},
                "estimates": [],
            },
        )
        row["estimates"].append(
            {
                "seed": each["seed"],
                "mean": each["mean"],
                "error": each["error"],
                "highest": each["highest"],
                "true": each["true"],
            }
        )
        means = [one["mean"] for one in row["estimates"]]
        row["seeds"] = len(means)
        row["figures"] = {ESTIMATE: {NATS: sum(means) / len(means)}}
    return list(rows.values())


def caption(study: Mapping[str, Any]) -> str:
    """Return what was estimated, and how.

    Args:
      study: "study" of results.json.
    """
    return (
        f"Gaussians of {study['dimensions']} dimensions, {study['samples']:,} fresh pairs in "
        f"{study['batches']} batches of {study['batch_size']}: the mean of the batches' estimates "
        f"in nats, with its standard error. A {study['critic']['kind']} critic, "
        f"{study['train']['steps']:,} updates on pairs that never come twice."
    )
