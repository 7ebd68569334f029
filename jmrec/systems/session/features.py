"""Item features that come from elsewhere: a run of "tpad", or a folder with one vector an item."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from jmrec.config import choose, resolve_path
from jmrec.data.prepared import load_prepared
from jmrec.errors import UserError
from jmrec.features import Standardiser, read_features
from jmrec.files import read_json
from jmrec.systems.data import RunData
from jmrec.systems.feature_tables import TABLES, read_tables, write_tables
from jmrec.systems.sealed import read_stage
from jmrec.systems.stages import Stage
from jmrec.systems.students import joined
from jmrec.systems.work import Work

STAGE = "features"
BOTH = "both"
ARRAY, IDS = "features.npy", "ids.json"
"""A folder's float array [N, D] and the list of its N item ids."""
GIVEN = "given"
"""What a student's ``features`` are called."""
PART = "features"
"""What the report calls what such a student reads of an item."""
PARTS_OF_RUN = ("e", "k", "t")


class GivenFeatures:
    """The item features that ``features.from`` names; see `jmrec.systems.students.ItemFeatures`.

    Args:
      work: The run; its config's group "features".
      data: Its data.
    """

    names: tuple[str, ...] = (GIVEN,)

    def __init__(self, work: Work, data: RunData) -> None:
        self.work, self.data = work, data

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
        """Return the stage "features", whose identity is what is read and not where it lies.

        Raises:
          UserError: There is nothing to read, and nothing was read before.
        """
        if not (self.work.workdir / STAGE / TABLES).is_file():
            self._check()
        identity = {"made by": self._identity()}
        return Stage(STAGE, identity, ("data",), self._run, alone=True, outside=tuple(identity))

    def _check(self) -> None:
        """Refuse a source that is none before anything is read of it."""
        source, name = self.source, self._name
        if _is_run(source):
            if not {*name.split("+")} <= {*PARTS_OF_RUN}:
                raise UserError(
                    f"features.name={name}: a run has e, k and t; name one of them or k+t."
                )
        elif not _is_folder(source):
            raise UserError(
                f"features.from={source} is no finished run of experiments/tpad.py and no folder "
                f"with {ARRAY} and {IDS}; name one of those."
            )

    @property
    def _name(self) -> str:
        """Which features of a run are meant."""
        return str(self.work.config.features.name)

    def _identity(self) -> str:
        source = self.source
        try:
            if _is_run(source):
                stages = [read_stage(source / each) for each in ("read", "embed")]
                return f"{self._name} of {', '.join(str(s and s['hash']) for s in stages)}"
            if _is_folder(source):
                return ", ".join(_digest(source / name) for name in (ARRAY, IDS))
        except (OSError, UserError):  # a finished run is opened without its source
            return "nothing: it can not be read"
        return "nothing: it is not there"

    def _run(self, folder: Path) -> None:
        """Stage "features"."""
        try:
            self._check()
            self._copy(folder)
        except UserError:
            # The mended source is another one, and there is nothing yet that it would change.
            (folder / "stage.json").unlink()
            raise

    def _copy(self, folder: Path) -> None:
        """Write the tables of the whole catalogue, in the order of its rows."""
        source, items = self.source, self.data.dataset.items
        made_here = _is_run(source)
        ids, tables = self._of_run(source) if made_here else _of_folder(source)
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
            if not made_here:  # a run has standardised its own
                fitted = Standardiser.fit(found, np.flatnonzero(known & self.data.train_items))
                found = np.where(known[:, None], fitted(found), 0).astype(np.float32)
            out[view] = found
        write_tables(folder, items.ids, out, {"from": source.resolve().name})

    def _of_run(self, source: Path) -> tuple[Sequence[str], dict[str, np.ndarray]]:
        """Return the item ids of a run and, by view, the features that it made."""
        dataset = load_prepared(source / "data" / "prepared")
        if dataset.fingerprint != self.data.dataset.fingerprint:
            raise UserError(
                f"{source} was trained on other data or another split, so that its features may "
                "know what is asked here; name a run on the same data with the same data.fractions."
            )
        e = read_features(source / "read" / TABLES, dataset.items.ids).arrays
        heads = read_features(source / "embed" / TABLES, dataset.items.ids).arrays
        tables = {
            view: joined(
                self._name, {"e": e[view], **{h: heads[f"{view}/{h}"] for h in ("k", "t")}}
            )
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
        """Return the views that the source had; known when stage "features" is done."""
        return tuple(self._tables)

    def table(self, name: str, view: str) -> np.ndarray:
        """Return the features of the whole catalogue, float32 [V, F].

        Raises:
          UserError: The source had no such view.
        """
        return self._tables[choose("view of the given features", view, self.views(name))]

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
    except Exception as error:  # damage shows in many ways
        raise UserError(f"{source / ARRAY} can not be read ({error}); write it anew.") from None
    ids = read_json(source / IDS)
    if not isinstance(ids, list) or not all(isinstance(each, str) for each in ids):
        raise UserError(f"{source / IDS} must be a list of item ids, as texts; write it anew.")
    item, count = Counter(ids).most_common(1)[0] if ids else ("", 0)
    if count > 1:
        raise UserError(f"{source / IDS} names item {json.dumps(item)} twice; name each once.")
    if not isinstance(table, np.ndarray):
        raise UserError(f"{source / ARRAY} is an archive of arrays; write one array (numpy.save).")
    numbers = np.issubdtype(table.dtype, np.integer) or np.issubdtype(table.dtype, np.floating)
    if table.ndim != 2 or table.shape[1] < 1 or len(table) != len(ids) or not numbers:
        raise UserError(
            f"{source / ARRAY} has shape {table.shape} and type {table.dtype} for {len(ids)} ids; "
            "it must have one row of numbers for each."
        )
    with np.errstate(over="ignore"):
        table = table.astype(np.float32)
    if not np.isfinite(table).all():
        row = int(np.flatnonzero(~np.isfinite(table).all(axis=1))[0])
        raise UserError(f"{source / ARRAY}: row {row} is not finite as float32; mend it there.")
    return ids, {BOTH: table}


def _is_run(source: Path) -> bool:
    return (source / "embed" / TABLES).is_file()


def _is_folder(source: Path) -> bool:
    return all((source / name).is_file() for name in (ARRAY, IDS))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
