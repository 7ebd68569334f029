"""What the command line does with a finished run, by its workdir; what serves is in `serve`."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax

from jmrec.lock import only_writer
from jmrec.systems import added
from jmrec.systems.evaluate import evaluate as evaluate_system
from jmrec.systems.pretrained import check_out, write_converted
from jmrec.systems.registry import open_run
from jmrec.systems.system import Merges, Ranks, ReadsItems, able
from jmrec.terminal import warn
from jmrec.tracking import Tracker


def evaluate(
    workdir: Path,
    split: str,
    dump: Path | None,
    policy: Path | None = None,
    by: str | None = None,
) -> None:
    """Evaluate a finished run on a split and write ``evaluate-SPLIT/``.

    Args:
      workdir: A finished run.
      split: "validation" or "test".
      dump: A folder for every row's recommendations, or None.
      policy: A policy file whose effect on the served student is reported, or None.
      by: "week" or "month", to see how rows age; None does not.
    """
    with only_writer(workdir, warn), Tracker(workdir) as tracker:
        system = able(open_run(workdir, tracker), Ranks)
        made = None
        if policy is not None:
            # A policy may name items that were added later; they are no candidates here.
            whole = added.whole_catalogue(system, policy).policy
            made = whole.first(len(system.data.dataset.items))
        folder = workdir / f"evaluate-{split}"
        evaluate_system(system, folder, split, dump=dump, policy=made, by=by)
        tracker.say(f"report: {folder / 'report.html'}")


def embed(workdir: Path, folder: Path | None) -> int:
    """Read the items that are new in a catalogue folder; see `jmrec.systems.added.embed`.

    Raises:
      UserError: There is no run, it reads no items, or the folder can not be read.
    """
    with only_writer(workdir, warn), Tracker(workdir) as tracker:
        return added.embed(able(open_run(workdir, tracker), ReadsItems), folder)


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
