"""What item readers with a Knowledge tower share: their inputs, and how the tower is trained."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property, lru_cache
from pathlib import Path

import jax
import numpy as np

from jmrec.data.item_arrays import ItemArrays
from jmrec.data.schema import Items
from jmrec.models.readers.assembled import AssembledConfig
from jmrec.models.readers.knowledge import KnowledgeConfig
from jmrec.systems.data import RunData
from jmrec.systems.work import Work
from jmrec.tasks.knowledge import KnowledgeTask
from jmrec.types import Model, Params


@lru_cache(maxsize=16)
def _compile_reading(model: Model) -> Callable[..., jax.Array]:
    """Return the compiled ``(params, text, picture, picture_ok) -> e`` of a Knowledge tower."""

    @jax.jit
    def encode(params: Params, text: jax.Array, picture: jax.Array, ok: jax.Array) -> jax.Array:
        seen, _ = model.fns["see"](params, picture)
        return model.fns["encode_item"](params, text, seen, text > 0, ok)[0]

    return encode


class TowerReader(ABC):
    """The base of readers whose tower reads tokens and pixels.

    A subclass defines ``config`` and ``model``.

    Args:
      work: The run.
      data: Its data.
    """

    def __init__(self, work: Work, data: RunData) -> None:
        self.work, self.data = work, data

    @property
    @abstractmethod
    def config(self) -> KnowledgeConfig | AssembledConfig:
        """What the tower is made of."""

    @property
    @abstractmethod
    def model(self) -> Model:
        """The tower."""

    @property
    def features(self) -> int:
        """Width of e."""
        return self.config.features

    @cached_property
    def compiled(self) -> Callable[..., jax.Array]:
        """The compiled ``(params, text, picture, picture_ok) -> e``."""
        return _compile_reading(self.model)

    @cached_property
    def item_arrays(self) -> ItemArrays:
        """How items become tokens and pixels."""
        return ItemArrays.load(self.work.workdir / "data")

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """Tokens and pixels of the catalogue."""
        return self.read(self.data.dataset.items)

    def read(self, items: Items) -> dict[str, np.ndarray]:
        """Return tokens and pixels of items."""
        return self.item_arrays.read(items)

    def train_tower(self, folder: Path, task: KnowledgeTask) -> None:
        """Train what stage "knowledge" trains, on the training items."""
        train = self.work.config.knowledge.train
        batches = self.data.items(self.arrays, self.data.train_rows, train.batch_size)
        fingerprint = self.data.dataset.fingerprint
        self.work.fit(folder, "knowledge", task, train, batches, fingerprint=fingerprint)
