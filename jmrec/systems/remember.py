"""``jmrec remember`` of a workdir: new sessions are counted into its rules; nothing is trained."""

import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from jmrec.data.forgotten import Forgotten
from jmrec.data.live import held_after_training
from jmrec.data.new_sessions import Counted, read_batch
from jmrec.data.remembered import (
    BEGIN,
    READING,
    Remembered,
    batch_name,
    write_batch,
)
from jmrec.errors import UserError
from jmrec.evaluation.rankers.anew import EASE, Chosen, solved_ease
from jmrec.files import write_json
from jmrec.lock import Changes
from jmrec.systems.added import whole_catalogue
from jmrec.systems.data import FORGOTTEN, ease_items
from jmrec.systems.remembered import REMEMBERED, nothing_yet, remembered_of
from jmrec.systems.serve_rules import items_with, served_row
from jmrec.systems.system import Ranks


@dataclass
class Done:
    """What `remember` did.

    Attributes:
      counted: What became of the file.
      number: Of the batch.
      more: What else is said.
    """

    counted: Counted
    number: int
    more: list[str] = field(default_factory=list)

    def sentences(self) -> list[str]:
        """Return all of it in words."""
        return [*self.counted.sentences(), *self.more]


def remember(
    system: Ranks,
    interactions: Path,
    items: Path | None = None,
    *,
    folder: Path | None = None,
    solve: bool = False,
) -> Done:
    """Count the new sessions of a file into a run's rules; whoever calls it holds the workdir.

    Args:
      system: A finished run.
      interactions: The file, with the columns of the run's own table of interactions.
      items: A table of items, of which the new ones are added to the catalogue; None for none.
      folder: The catalogue folder, if it is not the run's own any more; needed the first time.
      solve: Whether EASE is solved anew too.

    Returns:
      What became of it.

    Raises:
      UserError: The file can not be read, or nothing in it is new; nothing is changed.
    """
    workdir, begin = system.work.workdir, time.monotonic()
    known = remembered_of(system) or nothing_yet(system, folder)
    catalogue = whole_catalogue(system, None, more=known.items)
    dataset = system.data.dataset
    if catalogue.added.ids:
        dataset = replace(dataset, items=items_with(dataset.items, catalogue.added))
    forgotten = Forgotten.read(workdir / FORGOTTEN)
    batch, counted = read_batch(interactions, dataset, known, items, forgotten)
    batch = replace(batch, solved=solve)
    grown = replace(known, batches=(*known.batches, batch))
    done = Done(counted, len(grown.batches))
    changes = Changes(workdir)
    if not known.batches:
        write_json(changes.new(f"{REMEMBERED}/{READING}"), known.reading.to_json())
        done.more.append(
            "From now on the rules count all that the run's folder holds too, validation and test "
            f"included, which training did not see ({held_after_training(dataset, known):,} "
            "events); figures stay as they were evaluated."
        )
        if known.begin is not None:
            write_batch(known.begin, changes.new(f"{REMEMBERED}/{BEGIN}"))
    write_batch(batch, changes.new(f"{REMEMBERED}/{batch_name(done.number)}"))
    changes.commit()
    done.more += _said(system, grown, solve, time.monotonic() - begin)
    return done


def _said(system: Ranks, remembered: Remembered, solve: bool, seconds: float) -> list[str]:
    """Return what is said of what is served, and of the time that it took."""
    row = served_row(system)
    said = [
        f"It took {seconds:.1f} s; jmrec recommend and export count it in. jmrec remember --undo "
        "takes it back."
    ]
    if row.rules is None:
        said.append(
            f"Served is {row.name}, which was trained and does not count; ask for a rule with "
            "--row."
        )
        return said
    if row.student:
        said.append(f"Of {row.name} the rules count; {row.student} was trained and does not.")
    chosen = Chosen(row.name, row.rules, ease_items(system.work.config))
    if chosen.reads_ease and not solve:
        said.append(f"The weights of {EASE} stay as they are; --solve solves them anew.")
    elif chosen.reads_ease:
        begin = time.monotonic()
        catalogue = whole_catalogue(system, None, more=remembered.items)
        dataset = system.data.dataset
        if catalogue.added.ids:
            dataset = replace(dataset, items=items_with(dataset.items, catalogue.added))
        solved_ease(chosen, dataset, remembered)
        said.append(
            f"{EASE} is solved on all of it in {time.monotonic() - begin:.1f} s, each time that "
            "the rule is fitted; an exported one is ready."
        )
    return said


def undo(system: Ranks) -> int:
    """Take the last batch back, bit for bit; whoever calls it holds the workdir.

    Returns:
      How many batches are left.

    Raises:
      UserError: There is none.
    """
    known = remembered_of(system)
    if known is None or not known.batches:
        raise UserError(f"{system.work.workdir} remembers nothing that could be taken back.")
    changes, count = Changes(system.work.workdir), len(known.batches)
    changes.remove(REMEMBERED if count == 1 else f"{REMEMBERED}/{batch_name(count)}")
    changes.commit()
    return count - 1
