"""From a run that ranks pairs to what is served; see `jmrec.systems.serve` for sessions."""

from pathlib import Path
from typing import Any

from jmrec.errors import UserError
from jmrec.serving import PairArtefact, ServedPairs, load_pairs, write_pairs
from jmrec.serving.measure import USERS, cold_start, folder_bytes, latency, size
from jmrec.serving.questions import SKIP
from jmrec.systems.card import card_of
from jmrec.systems.registry import open_run
from jmrec.systems.system import RanksPairs, able
from jmrec.tracking import Tracker


def recommend(
    workdir: Path,
    user: str,
    top: int,
    row: str | None = None,
    policy: Path | None = None,
    verdicts: Path | None = None,
    at: float | None = None,
    unknown: str = SKIP,
) -> dict[str, Any]:
    """Recommend items for one user with a run's ranker or rule, as its artefact would.

    Args:
      workdir: A finished run.
      user: A user id.
      top: How many to recommend.
      row: A row of the results table; None is the run's choice.
      policy: A policy file, see `jmrec.evaluation.policy`.
      verdicts: A file of verdicts, see `jmrec.data.verdicts`.
      at: Unix seconds, for windows of availability; None is now.
      unknown: What is done with a user who is not known, see
        `jmrec.serving.ServedPairs.recommend`.

    Returns:
      See `jmrec.serving.ServedPairs.recommend`.

    Raises:
      UserError: The row or an id of a file is unknown, or nothing is asked.
    """
    with Tracker(workdir, writes=False) as tracker:
        artefact = able(open_run(workdir, tracker), RanksPairs).artefact(row, policy, verdicts)
        return ServedPairs(artefact, str(workdir)).recommend(user, top, at, unknown)


def export(
    system: RanksPairs,
    out: Path,
    *,
    row: str | None,
    policy: Path | None,
    verdicts: Path | None,
    stablehlo: bool,
) -> PairArtefact:
    """Write the artefact of a run and return it.

    Raises:
      UserError: The row is unknown, a file does not fit, or a StableHLO program is wanted.
    """
    if stablehlo:
        raise UserError(
            f"{system.work.workdir} ranks items for users, whose scores are exported as no "
            "StableHLO program; leave out --stablehlo."
        )
    artefact = system.artefact(row, policy, verdicts)
    write_pairs(artefact, out, card_of(system, artefact.row, artefact))
    return artefact


def measure(artefact: PairArtefact, out: Path, calls: int) -> dict[str, Any]:
    """Measure a written artefact: size, start, latency.

    Args:
      artefact: What was written.
      out: Where.
      calls: How many answers are timed.

    Returns:
      "serving" of ``cost.json``.
    """
    start = cold_start(out, USERS)
    times = latency([load_pairs(out)], artefact.user_ids[:calls] or [""], calls)
    tables = [*artefact.items.values(), *artefact.users.values(), *artefact.rated]
    served = {"name": artefact.row, **size(artefact.params),
              "table_bytes": sum(array.nbytes for array in tables), **times[0]}  # fmt: skip
    return {
        "served": served,
        "asked": USERS,
        "items": len(artefact.ids),
        "users": len(artefact.user_ids),
        "bytes": folder_bytes(out),
        "seconds": start,
        "calls": calls,
    }
