"""What the command line does with a finished run, by its workdir; what serves is in `serve`."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax

from jmrec.config import ConfigDict
from jmrec.errors import UserError
from jmrec.evaluation.results import FROZEN
from jmrec.lock import only_writer
from jmrec.systems import added
from jmrec.systems import remember as rememberer
from jmrec.systems.evaluate import evaluate as evaluate_system
from jmrec.systems.pretrained import check_out, write_converted
from jmrec.systems.registry import CONFIG, open_run, read_config, tracker_of
from jmrec.systems.remembered import remembered_of
from jmrec.systems.system import Merges, Ranks, RanksPairs, ReadsItems, able
from jmrec.terminal import warn
from jmrec.tracking import Tracker


def evaluate(
    workdir: Path,
    split: str,
    dump: Path | None,
    policy: Path | None = None,
    by: str | None = None,
    counts: str = FROZEN,
    parts: bool = False,
) -> None:
    """Evaluate a finished run on a split and write ``evaluate-SPLIT/``.

    Args:
      workdir: A finished run.
      split: "validation" or "test".
      dump: A folder for every row's recommendations, or None.
      policy: A policy file whose effect on the served student is reported, or None.
      by: "day", "week" or "month", to see how rows age; None does not.
      counts: FROZEN, or which rows that count what came after training are added: WEEKLY, LIVE or
        "all".
      parts: Whether a blend that is served is shown without each of its members too.
    """
    kept = read_config(workdir) if (workdir / CONFIG).is_file() else ConfigDict()
    with only_writer(workdir, warn), tracker_of(kept, workdir) as tracker:
        opened, folder = open_run(workdir, tracker), workdir / f"evaluate-{split}"
        if isinstance(opened, RanksPairs):
            asked: dict[str, Any] = {"--dump-topk": dump, "--policy": policy, "--by": by}
            asked |= {"--counts": None if counts == FROZEN else counts, "--parts": parts or None}
            _refuse(asked, workdir)
            opened.evaluate(folder, split)
            tracker.say(f"report: {folder / 'report.html'}")
            return
        system = able(opened, Ranks)
        made = None
        if policy is not None:
            # A policy may name items that were added later; they are no candidates here.
            known = remembered_of(system)
            more = None if known is None else known.items
            whole = added.whole_catalogue(system, policy, more=more).policy
            made = whole.first(len(system.data.dataset.items))
        evaluate_system(
            system, folder, split, dump=dump, policy=made, by=by, counts=counts, parts=parts
        )
        tracker.say(f"report: {folder / 'report.html'}")


def _refuse(options: Mapping[str, Any], workdir: Path) -> None:
    """Refuse what nobody can ask of a table of pairs.

    Raises:
      UserError: Naming the option.
    """
    why = {
        "--dump-topk": "every pair is scored and none recommended",
        "--policy": "every pair is scored and none recommended",
        "--by": "every report of it has the months already",
        "--counts": "live counts are of sessions",
        "--parts": "no blend of rules is served",
    }
    for name, value in options.items():
        if value is not None:
            raise UserError(f"{workdir} ranks pairs: {why[name]}; leave out {name}.")


def embed(workdir: Path, folder: Path | None) -> int:
    """Read the items that are new in a catalogue folder; see `jmrec.systems.added.embed`.

    Raises:
      UserError: There is no run, it reads no items, or the folder can not be read.
    """
    with only_writer(workdir, warn), Tracker(workdir) as tracker:
        return added.embed(able(open_run(workdir, tracker), ReadsItems), folder)


def remember(
    workdir: Path,
    interactions: Path,
    items: Path | None = None,
    *,
    folder: Path | None = None,
    solve: bool = False,
) -> list[str]:
    """Count new sessions into the rules of a finished run; see `jmrec.systems.remember.remember`.

    Returns:
      What became of the file, in sentences.
    """
    with only_writer(workdir, warn), Tracker(workdir) as tracker:
        system = able(open_run(workdir, tracker), Ranks)
        done = rememberer.remember(system, interactions, items, folder=folder, solve=solve)
        for warning in done.counted.warnings:
            tracker.warn(warning)
        return done.sentences()


def undo_remember(workdir: Path) -> list[str]:
    """Take the last batch of remembered sessions back.

    Returns:
      What was done, in sentences.
    """
    with only_writer(workdir, warn), Tracker(workdir) as tracker:
        left = rememberer.undo(able(open_run(workdir, tracker), Ranks))
    return [f"The last batch is taken back; {left} are left."]


def convert(workdir: Path, out: Path, dtype: str | None = None) -> dict[str, Any]:
    """Write the backbone of a run with ``mode=lora``, its updates merged, as a converted model.

    Args:
      workdir: A finished run.
      out: The folder to write.
      dtype: "float32" or "bfloat16"; None is float32.

    Returns:
      As `jmrec.systems.pretrained.convert_to`.

    Raises:
      UserError: The run trained no updates of a backbone, or ``out`` holds something else.
    """
    check_out(out)
    with Tracker(workdir, writes=False) as tracker:
        found = able(open_run(workdir, tracker), Merges).merged()
    if dtype is not None:
        found = replace(found, params=jax.tree.map(lambda x: x.astype(dtype), found.params))
    return write_converted(found, out)
