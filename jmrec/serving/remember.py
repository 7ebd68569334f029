"""New sessions are counted into an exported rule, without the run that it is of.

Example::

    from jmrec.serving.remember import remember

    for sentence in remember("serve/", "week32.csv"):
        print(sentence)
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from jmrec.data.new_sessions import read_batch
from jmrec.data.schema import Dataset, Items
from jmrec.errors import UserError
from jmrec.evaluation.policy import Availability, join_windows, make_policy
from jmrec.evaluation.protocol import Ranker
from jmrec.evaluation.rankers import codec
from jmrec.evaluation.rankers.anew import EASE, Chosen, count_anew, solved_ease, with_rows
from jmrec.evaluation.rankers.blend import Blend
from jmrec.evaluation.rankers.content import FeatureNeighbours, texts_of
from jmrec.evaluation.rankers.ease import with_old_weights
from jmrec.evaluation.rankers.known import Known
from jmrec.evaluation.rankers.rules import fit_again
from jmrec.features import hash_ids
from jmrec.lock import try_lock
from jmrec.serving.folder import RULE, kept_card, kind_of
from jmrec.serving.rules import RuleArtefact, read_rule, write_rule
from jmrec.serving.updatable import Updatable, read_updatable


@contextmanager
def _only_writer(folder: Path) -> Iterator[None]:
    """Hold an artefact, so that nobody else counts into it at the same time.

    Raises:
      UserError: Another process holds it.
    """
    # Beside it: the folder itself is replaced.
    file = try_lock(folder.parent / f".{folder.name}.lock")
    if file is None:
        raise UserError(f"{folder} is being written by another jmrec; try again when it is done.")
    try:
        yield
    finally:
        os.close(file)


def remember(
    folder: str | Path,
    interactions: str | Path,
    items: str | Path | None = None,
    *,
    solve: bool = False,
) -> list[str]:
    """Count new sessions into an exported rule; the folder is replaced at once or not at all.

    Args:
      folder: What ``jmrec export --updatable`` wrote.
      interactions: A file with the columns of the run's own table of interactions.
      items: A table of items, of which the new ones are added; None for none.
      solve: Whether EASE is solved anew too.

    Returns:
      What became of the file, in sentences.

    Raises:
      UserError: The artefact can not count, the file can not be read, or nothing in it is new;
        nothing is changed.
    """
    folder = Path(folder).resolve()
    with _only_writer(folder):
        artefact, own = _read(folder)
        begin = time.monotonic()
        known = own.remembered
        path = None if items is None else Path(items)
        batch, counted = read_batch(Path(interactions), _whole(own), known, path)
        batch = replace(batch, solved=solve)
        grown = replace(own, remembered=replace(known, batches=(*known.batches, batch)))
        made = _counted(artefact, grown, batch.items, anew=solve)
        write_rule(made, folder, kept_card(folder))
        said = [*counted.warnings, *counted.sentences()]
        said.append(f"It took {time.monotonic() - begin:.1f} s; {folder} is renewed.")
        if _chosen(artefact, own).reads_ease and not solve:
            said.append(f"The weights of {EASE} stay as they are; --solve solves them anew.")
        return said


def undo(folder: str | Path) -> list[str]:
    """Take the last batch of an exported rule back.

    Returns:
      What was done, in sentences.

    Raises:
      UserError: There is none.
    """
    folder = Path(folder).resolve()
    with _only_writer(folder):
        artefact, own = _read(folder)
        batches = own.remembered.batches
        if not batches:
            raise UserError(f"{folder} remembers nothing that could be taken back.")
        less = replace(own, remembered=replace(own.remembered, batches=batches[:-1]))
        made = _counted(artefact, less, None, anew=batches[-1].solved)
        write_rule(made, folder, kept_card(folder))
    return [f"The last batch is taken back; {len(batches) - 1} are left."]


def _read(folder: Path) -> tuple[RuleArtefact, Updatable]:
    if kind_of(folder) != RULE:
        raise UserError(
            f"{folder} answers by a model that was trained and does not count; export a rule with "
            "jmrec export --row and --updatable."
        )
    return read_rule(folder), read_updatable(folder)


def _chosen(artefact: RuleArtefact, own: Updatable) -> Chosen:
    """Return which rule is served, with the settings that the run chose."""
    rule: Any = artefact.rule
    settings = {each.name: each.settings for each in [rule, *_members(rule)]}
    return Chosen(rule.name, settings, own.ease_items)


def _members(rule: Ranker) -> list[Any]:
    return list(rule.members) if isinstance(rule, Blend) else []


def _whole(own: Updatable) -> Dataset:
    """Return the data set with the items of the batches at the end of its catalogue."""
    items, new = own.dataset.items, own.remembered.items
    known = set(items.ids)
    rows = [row for row, item in enumerate(new.ids) if item not in known]
    ids = [new.ids[row] for row in rows]
    texts = texts_of(new)
    whole = Items(
        ids=[*items.ids, *ids],
        titles=[*items.ids, *ids],
        text={"title": [*items.text["title"], *(texts[row] for row in rows)]},
        pictures=[b""] * (len(items) + len(ids)),
        number={
            name: np.concatenate([column, np.full(len(ids), np.nan, column.dtype)])
            for name, column in items.number.items()
        },
    )
    return replace(own.dataset, items=whole)


def _counted(
    artefact: RuleArtefact, own: Updatable, new: Items | None, *, anew: bool
) -> RuleArtefact:
    """Return an artefact whose rule is counted anew.

    Args:
      artefact: As it was read.
      own: What it is to know.
      new: Items that came with the last batch; None where a batch was taken back.
      anew: Whether the weights of EASE are other ones than those of ``artefact``.
    """
    dataset, chosen = _whole(own), _chosen(artefact, own)
    count = len(dataset.items)
    rules = [artefact.rule, *_members(artefact.rule)]
    # In the order in which the blend holds them: sums are then the same to the last bit.
    names = [each.feature for each in rules if isinstance(each, FeatureNeighbours)]
    features = {
        name: with_rows(artefact.features[name][:count], count) for name in dict.fromkeys(names)
    }
    ease = None
    if chosen.reads_ease:
        old: Ranker = next(each for each in rules if each.name == EASE)
        ease = solved_ease(chosen, dataset, own.remembered) if anew else old
    if own.remembered.batches:
        rule = count_anew(chosen, dataset, own.remembered, features, ease)
    else:
        most = own.ease_items
        fitted = {} if ease is None else {EASE: with_old_weights(ease, Known(dataset, most))}
        rule = fit_again(
            dataset, chosen.name, chosen.settings, features, ease_items=most, fitted=fitted
        )
    titles, window = artefact.titles[:count], artefact.policy.availability
    if new is not None and len(new):
        titles = [*titles, *new.titles]
        window = join_windows(window, len(artefact.ids), Availability.of(new), len(new))
    window = None if window is None else window.first(count)
    ids = dataset.items.ids
    events = sum(len(each.events.items) for each in own.remembered.batches)
    about = {name: value for name, value in artefact.provenance.items() if name != "remembered"}
    about |= {"items": hash_ids(ids), "added": about["added"] + count - len(artefact.ids)}
    correction = artefact.policy.correction
    return replace(
        artefact,
        rule=rule,
        features={name: np.ascontiguousarray(features[name]) for name in codec.feature_names(rule)},
        ids=ids,
        titles=titles,
        policy=make_policy(ids, artefact.policy.exclude_seen, correction, window),
        provenance=about | ({"remembered": events} if events else {}),
        updatable=own,
    )
