"""Item features that come from elsewhere: a run of "tpad", or a folder with one vector an item."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from jmrec.config import resolve_path
from jmrec.data.prepared import load_prepared
from jmrec.errors import UserError
from jmrec.features import Standardiser, read_features
from jmrec.files import read_json
from jmrec.systems.data import RunData
from jmrec.systems.stages import Stage, read_stage
from jmrec.systems.tables import TABLES, read_tables, write_tables
from jmrec.systems.work import Work

STAGE = "features"
BOTH = "both"
ARRAY, IDS = "features.npy", "ids.json"
"""A folder's float array [N, D] and the list of its N item ids."""
PART = "features"
"""What the report calls what such a student reads of an item."""


class GivenFeatures:
    """The item features that ``features.from`` names; see `jmrec.systems.students.ItemFeatures`.

    Args:
      work: The run; its config's group "features".
      data: Its data.
    """

    def __init__(self, work: Work, data: RunData) -> None:
        self.work, self.data = work, data
        self.name = str(work.config.features.name)
        self.names: tuple[str, ...] = (self.name,)

    @property
    def source(self) -> Path:
        """Where they come from.

        Raises:
          UserError: It is not said.
        """
        given = self.work.config.features["from"]
        if not given:
            raise UserError(
                "items=features and items=both need item features: --config.features.from=RUN (a "
                f"workdir of experiments/tpad.py) or FOLDER (with {ARRAY} and {IDS})."
            )
        return resolve_path(given)

    def stage(self) -> Stage:
        """Return the stage "features", whose identity is what is read and not its path."""
        own = {"name": self.name, "made by": self._identity()}
        return Stage(STAGE, own, ("data",), self._copy, alone=True)

    def _identity(self) -> str:
        source = self.source
        stages = [read_stage(source / each) for each in ("read", "embed")]
        if all(stages):
            return ", ".join(str(each["hash"]) for each in stages if each)
        files = [source / name for name in (ARRAY, IDS)]
        if not all(path.is_file() for path in files):
            return "nothing: it is not there"
        digest = hashlib.sha256()
        for path in files:
            digest.update(path.read_bytes())
        return digest.hexdigest()[:16]

    def _copy(self, folder: Path) -> None:
        """Stage "features": the tables of the whole catalogue, in the order of its rows."""
        source, items = self.source, self.data.dataset.items
        if (source / "embed" / TABLES).is_file():
            ids, tables = self._of_run(source)
        elif (source / ARRAY).is_file():
            ids, tables = _of_folder(source)
        else:
            raise UserError(
                f"features.from={source} is no finished run of experiments/tpad.py and no folder "
                f"with {ARRAY} and {IDS}; name one of those."
            )
        place = {item: row for row, item in enumerate(ids)}
        rows = np.array([place.get(item, -1) for item in items.ids])
        known = rows >= 0
        if not (known & self.data.train_items).any():
            raise UserError(
                f"{source} has features of no training item (its first id is "
                f"{ids[0] if len(ids) else 'missing'!r}, the catalogue's {items.ids[0]!r}); name "
                "features of this catalogue."
            )
        if not known.all():
            self.work.tracker.warn(
                f"{int((~known).sum())} of {len(items)} items have no features in {source}; they "
                "are given zeros."
            )
        out = {}
        for view, table in tables.items():
            found = np.where(known[:, None], table[rows], 0).astype(np.float32)
            if view == BOTH and not (source / "embed").is_dir():
                fitted = Standardiser.fit(found, np.flatnonzero(known & self.data.train_items))
                found = np.where(known[:, None], fitted(found), 0).astype(np.float32)
            out[view] = found
        write_tables(folder, items.ids, out, {"from": source.resolve().name})

    def _of_run(self, source: Path) -> tuple[Sequence[str], dict[str, np.ndarray]]:
        """Return the item ids of a run and, by view, the features ``name`` that it made."""
        dataset = load_prepared(source / "data" / "prepared")
        if dataset.fingerprint != self.data.dataset.fingerprint:
            raise UserError(
                f"{source} was trained on other data or another split, so that its features may "
                "know what is asked here; name a run on the same data with the same data.fractions."
            )
        e = read_features(source / "read" / TABLES, dataset.items.ids).arrays
        heads = read_features(source / "embed" / TABLES, dataset.items.ids).arrays
        parts = self.name.split("+")
        if not {*parts} <= {"e", "k", "t"}:
            raise UserError(
                f"features.name={self.name}: a run has e, k and t; name one of them or k+t."
            )
        tables = {
            view: np.concatenate([e[view] if p == "e" else heads[f"{view}/{p}"] for p in parts], 1)
            for view in e
        }
        return dataset.items.ids, tables

    def stages(self, name: str) -> tuple[str, ...]:
        """Return the stage that writes them."""
        return (STAGE,)

    @cached_property
    def _tables(self) -> dict[str, np.ndarray]:
        return read_tables(self.work.workdir / STAGE, self.data.dataset.items.ids)

    def views(self, name: str) -> tuple[str, ...]:
        """Return the views that the source had; before they are read only "both" is known."""
        done = (self.work.workdir / STAGE / TABLES).is_file()
        return tuple(self._tables) if done else (BOTH,)

    def table(self, name: str, view: str) -> np.ndarray:
        """Return the features of the whole catalogue, float32 [V, F]."""
        return self._tables[view]

    def join(self, name: str, tables: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the features of items whose tables are given."""
        return tables[name]

    def without(
        self, name: str, view: str, rows: np.ndarray
    ) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Return zeros: what an item is given of which nothing is known."""
        own = self.table(name, view)[rows]
        return {PART: (np.zeros_like(own), np.any(own != 0, axis=1))}


def _of_folder(source: Path) -> tuple[list[str], dict[str, np.ndarray]]:
    """Return the item ids of a folder and its features.

    Raises:
      UserError: The two files do not go together, or are damaged.
    """
    try:
        table = np.load(source / ARRAY, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{source / ARRAY} can not be read ({error}); write it anew.") from None
    ids = read_json(source / IDS)
    if not isinstance(ids, list) or not all(isinstance(each, str) for each in ids):
        raise UserError(f"{source / IDS} must be a list of item ids, as texts; write it anew.")
    if len({*ids}) != len(ids):
        twice = next(each for each in ids if ids.count(each) > 1)
        raise UserError(f"{source / IDS} names item {json.dumps(twice)} twice; name each once.")
    if table.ndim != 2 or len(table) != len(ids) or not np.issubdtype(table.dtype, np.number):
        raise UserError(
            f"{source / ARRAY} has shape {table.shape} and type {table.dtype} for {len(ids)} ids; "
            "it must have one row of numbers for each."
        )
    if not np.isfinite(table).all():
        row = int(np.flatnonzero(~np.isfinite(table).all(axis=1))[0])
        raise UserError(f"{source / ARRAY}: row {row} is not finite; write numbers there.")
    return ids, {BOTH: table.astype(np.float32)}
