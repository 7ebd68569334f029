"""The item features of TPAD's students: e of stage "read", k and t of stage "embed"."""

from collections.abc import Callable, Mapping
from functools import cached_property

import numpy as np

from jmrec.data.item_arrays import VIEWS, view
from jmrec.data.schema import Items, take_items
from jmrec.systems.data import RunData
from jmrec.systems.feature_tables import read_tables
from jmrec.systems.readers.reader import ItemReader
from jmrec.systems.students import joined
from jmrec.systems.work import Work

HEADS = ("k", "t")
NAMES = ("e", "k", "t", "k+t", "t+k")
"""What a student may read of an item."""


class TowerFeatures:
    """Features that the Knowledge tower and its heads made; see `ItemFeatures`.

    Args:
      work: The run.
      data: Its data.
      reader: Who reads items.
      make: ``(arrays, label) -> {"e", "k", "t"}`` of items, standardised as the catalogue's.
    """

    names: tuple[str, ...] = NAMES

    def __init__(
        self,
        work: Work,
        data: RunData,
        reader: ItemReader,
        make: Callable[[Mapping[str, np.ndarray], str], dict[str, np.ndarray]],
    ) -> None:
        self.work, self.data, self.reader, self.make = work, data, reader, make

    @cached_property
    def e(self) -> dict[str, np.ndarray]:
        """View -> standardised features e of the whole catalogue, float32 [V, D]."""
        return read_tables(self.work.workdir / "read", self.data.dataset.items.ids)

    @cached_property
    def heads(self) -> dict[str, np.ndarray]:
        """Return "VIEW/k" and "VIEW/t" -> standardised heads of the whole catalogue."""
        return read_tables(self.work.workdir / "embed", self.data.dataset.items.ids)

    def stages(self, name: str) -> tuple[str, ...]:
        """Return the stages that write features; see `ItemFeatures`."""
        return ("read",) if name == "e" else ("embed",)

    def views(self, name: str) -> tuple[str, ...]:
        """Return all views: each was read."""
        return VIEWS

    def table(self, name: str, view: str) -> np.ndarray:
        """Return features of the whole catalogue, float32 [V, F]."""
        if name == "e":
            return self.e[view]
        return joined(name, {head: self.heads[f"{view}/{head}"] for head in HEADS})

    def without(
        self, name: str, shown: str, rows: np.ndarray
    ) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Return the features of items without their text, or their picture.

        A student that reads both is given what it would be given of an item that came without the
        part: the Knowledge tower reads the item again, as ``jmrec embed`` reads a new one. A
        student that reads one of them is given zeros, which mean an item of which nothing is
        known.
        """
        items: Items = take_items(self.data.dataset.items, rows.tolist())
        arrays = self.reader.read(items)
        has = {"text": np.any(arrays["text"] != 0, axis=1), "picture": arrays["picture_ok"]}
        if shown != "both":
            return {shown: (np.zeros_like(self.table(name, shown)[rows]), has[shown])}
        other = {"text": "picture", "picture": "text"}  # without its text an item is its picture
        each = [view(arrays, other[part], 0) for part in other]
        both = {key: np.concatenate([one[key] for one in each]) for key in arrays}
        found = np.split(joined(name, self.make(both, "examples")), 2)
        return {part: (table, has[part]) for part, table in zip(other, found)}
