"""The rows of an MMREC run: their splits, what was known before each, and the texts of cuts."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from jmrec.config import resolve_path
from jmrec.data.forgotten import USER, Forgotten
from jmrec.data.known import Cuts, Known
from jmrec.data.pairs import PairSplits, split_pairs
from jmrec.data.schema import Items, Ratings
from jmrec.data.verdicts import NOBODY, Verdict, read_verdicts, with_verdicts
from jmrec.errors import UserError
from jmrec.files import read_json, write_json
from jmrec.sharding import make_mesh, process_rows
from jmrec.systems.data import FORGOTTEN, RunData
from jmrec.systems.stages import Stage
from jmrec.systems.work import Work

GROUPS = ("item", "user")
VERDICTS = "verdicts.json"
SPLITS = "splits.npz"
"""The split of each row, where people were taken out since: others stay where they were."""


class RatingData:
    """The data of one run.

    Args:
      work: The run.
    """

    def __init__(self, work: Work) -> None:
        self.work = work
        self.run_data = RunData(work, sessions=False)

    def stage(self, finish: Callable[[Path], None] | None = None, **more: Any) -> Stage:
        """Return the stage "data"; see `jmrec.systems.data.RunData.stage`.

        The verdicts are kept in its folder; a file that has grown since is another stage to `jmrec
        run`, while a finished run answers on.
        """
        path = self._verdicts_file
        if path is None:
            return self.run_data.stage(finish, **more)

        def keep(folder: Path) -> None:
            found = read_verdicts(path, self.items.ids)
            if forgotten := Forgotten.read(self.work.workdir / FORGOTTEN):
                found = tuple(each for each in found if not forgotten.holds(USER, each.user))
            write_json(folder / VERDICTS, [[v.item, v.user, v.verdict] for v in found])
            if finish is not None:
                finish(folder)

        known = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        stage = self.run_data.stage(keep, verdicts={"sha256": known}, **more)
        return replace(stage, outside=(*stage.outside, "verdicts.sha256"))

    @property
    def _verdicts_file(self) -> Path | None:
        path = self.work.config.data.get("verdicts")
        return resolve_path(path) if path else None

    @cached_property
    def verdicts(self) -> list[Verdict]:
        """What people said that training learns from."""
        if self._verdicts_file is None:
            return []
        return [Verdict(*each) for each in read_json(self.work.workdir / "data" / VERDICTS)]

    @property
    def fingerprint(self) -> str:
        """Of the data set, verdicts included."""
        own = self.run_data.dataset.fingerprint
        if not self.verdicts:
            return own
        said = json.dumps([[v.item, v.user, v.verdict] for v in self.verdicts])
        return f"{own}+{hashlib.sha256(said.encode()).hexdigest()[:16]}"

    @property
    def items(self) -> Items:
        """The catalogue."""
        return self.run_data.dataset.items

    @cached_property
    def ratings(self) -> Ratings:
        """All rows; those of verdicts come last.

        Raises:
          UserError: The data declares no label.
        """
        found = self.run_data.dataset.ratings
        if found is None:
            raise UserError(
                f"{self.run_data.dataset.name} declares no label; name one in dataset.toml: "
                '[interactions] label = "COLUMN" or a rule such as "rating <= 4".'
            )
        return with_verdicts(found, self.verdicts, self.items.ids) if self.verdicts else found

    @property
    def said(self) -> int:
        """How many rows the data has, those of verdicts aside."""
        return len(self.ratings) - sum(each != NOBODY for each in self.verdicts)

    @property
    def protocol(self) -> str:
        """What decides the splits, as one text."""
        c = self.work.config
        return json.dumps([c.protocol.to_dict(), c.seed], sort_keys=True)

    @cached_property
    def splits(self) -> PairSplits:
        """The splits of the rows, those of verdicts aside; see `SPLITS`.

        Raises:
          UserError: The rows can not be split so.
        """
        c, path = self.work.config, self.work.workdir / "data" / SPLITS
        own = self.run_data.dataset.ratings
        assert own is not None  # else there were no ratings
        if path.is_file():
            with np.load(path, allow_pickle=False) as kept:
                if str(kept["protocol"]) == self.protocol and len(kept["part"]) == len(own):
                    return PairSplits(*(np.flatnonzero(kept["part"] == n) for n in range(3)))
        p = c.protocol
        return split_pairs(
            own, p.split, fractions=tuple(p.fractions), folds=p.folds, fold=p.fold, seed=c.seed
        )

    @cached_property
    def unchecked(self) -> Known:
        """As `known`, also where a split lacks a class."""
        c, dataset, every = self.work.config.protocol, self.run_data.dataset, self.ratings
        said, splits = self.said, self.splits
        # Verdicts are later than all: split by time, they would be what is tested. And one of what
        # is tested would tell the answer.
        more = np.arange(said, len(every), dtype=np.int64)
        held = np.concatenate([splits.validation, splits.test])
        pairs = set(zip(every.items[held].tolist(), every.users[held].tolist()))
        pairs |= {(item, -1) for item, _ in pairs}
        asked = [(int(every.items[row]), int(every.users[row])) in pairs for row in more]
        if any(asked):
            self.work.tracker.say(
                f"data: {sum(asked):,} of {len(more):,} verdicts are not learned from, since they "
                "are of rows of validation or test"
            )
        more = more[~np.array(asked, bool)]
        splits = replace(splits, train=np.concatenate([splits.train, more]))
        # Without times a row's place in the file is its time, and every row its own day.
        return Known(every, splits, float(c.day) if dataset.has_time else 1.0)

    @cached_property
    def known(self) -> Known:
        """The splits, and what each row may know.

        Raises:
          UserError: The rows can not be split so, or a split lacks a class.
        """
        found = self.unchecked
        for name, rows in vars(found.splits.labelled(self.ratings.labels)).items():
            labels = self.ratings.labels[rows]
            if not (labels == 0).any() or not (labels == 1).any():
                raise UserError(
                    f"the rows of {name} are all of one class ({self.ratings.label}: "
                    f"{int((labels == 1).sum()):,} of {len(labels):,}); bring more rows, or choose "
                    "another label or protocol.split."
                )
        return found

    @cached_property
    def rows(self) -> PairSplits:
        """The rows of each split that have a label."""
        return self.known.splits.labelled(self.ratings.labels)

    @cached_property
    def cuts(self) -> dict[str, Cuts]:
        """The cuts of "item" and of "user"."""
        sizes = tuple(int(size) for size in self.work.config.describe.sizes)
        if not sizes or min(sizes) < 1 or sorted(set(sizes)) != list(sizes):
            raise UserError(f"describe.sizes={sizes} must be whole numbers from 1 on, ascending.")
        return {by: self.known.cuts(by, sizes) for by in GROUPS}

    @cached_property
    def train_items(self) -> np.ndarray:
        """Rows of the items that occur in training, int64, ascending."""
        return np.unique(self.ratings.items[self.known.splits.train]).astype(np.int64)

    def process_rows(self) -> Callable[[int], np.ndarray] | None:
        """Return which rows of a batch this process reads."""
        return process_rows(make_mesh(self.work.config.rules))


def item_words(items: Items) -> list[str]:
    """Return all texts of each item as one.

    Example:
      >>> item_words(Items(["a"], ["Mug"], {"title": ["Mug"], "description": ["Blue"]}, [b""]))
      ['Mug. Blue']
    """
    columns = list(items.text.values())
    return [". ".join(filter(None, words)) for words in zip(*columns)]
