"""What a finished run of "mmrec" keeps of people's rows, without those who are forgotten.

Nothing is read or written by a model here. Where a text was made of somebody's reviews, the newest
earlier text of the same item or user stands in its place that was made of none of them.
"""

import json
from collections.abc import Collection

import numpy as np

from jmrec.data.forgotten import Left
from jmrec.data.known import Cuts
from jmrec.data.pairs import PairSplits
from jmrec.data.schema import Dataset
from jmrec.data.verdicts import NOBODY, Verdict
from jmrec.features import read_features, write_features
from jmrec.lock import Changes
from jmrec.systems.mmrec.cache import TEXTS, keep_texts
from jmrec.systems.mmrec.data import GROUPS, SPLITS, VERDICTS, RatingData
from jmrec.systems.mmrec.describe import Descriptions, stage_name
from jmrec.systems.mmrec.parts import Run
from jmrec.systems.mmrec.read import REVIEWS, written_file


def without(
    system: Run, left: Left, dataset: Dataset, users: Collection[str], changes: Changes
) -> None:
    """Write anew the splits, verdicts, texts and vectors of a run; see `KeepsPeople.without`."""
    data = system.data
    own = data.run_data.dataset.ratings
    assert own is not None
    assert dataset.ratings is not None
    verdicts = _verdicts(data.verdicts, users, set(own.user_ids))
    if data.verdicts:
        rows = [[each.item, each.user, each.verdict] for each in verdicts]
        changes.new(f"data/{VERDICTS}").write_text(json.dumps(rows, indent=2) + "\n")
    part = np.zeros(len(own), np.int8)
    for number, split in enumerate(vars(data.splits).values()):
        part[split] = number
    part = part[left.rows]
    with changes.new(f"data/{SPLITS}").open("wb") as file:
        np.savez(file, protocol=np.array(data.protocol), part=part)
    after = RatingData(data.work)
    after.run_data.dataset = dataset
    after.verdicts = verdicts
    after.splits = PairSplits(*(np.flatnonzero(part == number) for number in range(3)))
    sizes = tuple(data.work.config.describe.sizes)
    after.cuts = {by: after.unchecked.cuts(by, sizes) for by in GROUPS}
    said = [each.user not in users for each in data.verdicts if each != NOBODY]
    keep = np.concatenate([left.rows, np.array(said, bool)])
    _rows("read/" + REVIEWS, np.flatnonzero(keep), changes)
    texts = Descriptions(data.work, after)
    for what, name in system.texts.wanted:
        if what == "picture":
            continue
        place = _same_text(data.cuts[what], after.cuts[what], keep)
        before, now = system.texts.sources(what), texts.sources(what)
        path = f"{stage_name(what, name)}/{TEXTS}"
        pairs = [(source.key, before[old].key) for source, old in zip(now, place, strict=True)]
        keep_texts(changes.folder / path, changes.new(path), pairs)
        _rows("read/" + written_file(what, name), place, changes)


def _rows(name: str, rows: np.ndarray, changes: Changes) -> None:
    """Write a table of features anew with some of its rows."""
    table = read_features(changes.folder / name)
    kept = {each: array[rows] for each, array in table.arrays.items()}
    ids = [str(row) for row in range(len(rows))]
    write_features(changes.new(name), kept, ids, table.made_by)


def _verdicts(
    verdicts: Collection[Verdict], users: Collection[str], known: Collection[str]
) -> list[Verdict]:
    """Return the verdicts of all others; who has no row but for these leaves an empty place."""
    found, left = [], set(users) - set(known)
    for each in verdicts:
        if each.user not in users:
            found.append(each)
        elif each.user in left:
            left.remove(each.user)
            found.append(NOBODY)
    return found


def _same_text(before: Cuts, now: Cuts, keep: np.ndarray) -> np.ndarray:
    """Return for each cut which old one's text stands for it, int64 [C].

    That is the old cut of the same item or user with the most reviews all of which are among its
    own; the first cut of a group, without reviews, always is one.
    """
    number = np.where(keep, np.cumsum(keep) - 1, -1)
    whole: dict[int, list[tuple[int, frozenset[int]]]] = {}
    for place, (group, rows) in enumerate(zip(before.group.tolist(), before.rows)):
        if keep[rows].all():
            whole.setdefault(group, []).append((place, frozenset(number[rows].tolist())))
    found = []
    for group, rows in zip(now.group.tolist(), now.rows):
        own = frozenset(rows.tolist())
        inside = [(len(each), -place) for place, each in whole[group] if each <= own]
        found.append(-max(inside)[1])
    return np.array(found, np.int64)
