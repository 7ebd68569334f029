"""The item reader with ``mode=frozen``: heads on features of pretrained backbones.

Stage "backbone" computes the features of the catalogue once; stage "knowledge" trains the heads.
"""

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jmrec.data.schema import Items
from jmrec.errors import UserError
from jmrec.features import Standardiser, read_features
from jmrec.models.readers.frozen import FrozenConfig, frozen_tower
from jmrec.systems.data import RunData
from jmrec.systems.feature_tables import TABLES, read_standardiser, read_tables, write_tables
from jmrec.systems.pretrained import parameter_count
from jmrec.systems.readers.backbone import Backbone, check_backbone, pretrained_parameters
from jmrec.systems.readers.blocks import Blocks
from jmrec.systems.readers.trained import BATCH, read_catalogue
from jmrec.systems.stages import Stage
from jmrec.systems.work import Work
from jmrec.tasks.frozen import FrozenKnowledgeTask
from jmrec.types import Model

PARTS = ("text", "picture")
NUMBERS = ("dropout", "temperature", "contrast", "rebuild")
"""What of the group "knowledge.hparams" the heads are trained with."""


class FrozenReader:
    """The item reader of one run.

    Args:
      work: The run.
      data: Its data.

    Raises:
      UserError: The settings make no sense.
    """

    data_settings: Mapping[str, Any] = {}

    def __init__(self, work: Work, data: RunData) -> None:
        check_backbone(work.config.backbone)
        self.work, self.data = work, data

    def fit(self, folder: Path, items: Items, rows: np.ndarray) -> None:
        """Do nothing: the backbones have a tokenizer and see pictures as they are."""

    def stages(self) -> list[Stage]:
        """Return the stages "backbone" and "knowledge"."""
        c = self.work.config
        if jax.process_count() > 1:
            # Process 0 reads alone, and what `jmrec convert` wrote is opened by all at once.
            _ = self.backbone.text, self.backbone.picture
        what = ("text", "picture", "picture_size", "layers", "lengths", "dtype")
        own = {"backbone": {name: c.backbone[name] for name in what}, "facts": c.data.facts}
        heads = {"width": c.knowledge.width, "train": c.knowledge.train, "hparams": self._numbers}
        return [
            Stage("backbone", own, ("data",), self._backbone, alone=True),
            Stage(
                "knowledge", {"knowledge": heads, "seed": c.seed}, ("backbone",), self._knowledge
            ),
        ]

    @property
    def _numbers(self) -> dict[str, Any]:
        return {name: self.work.config.knowledge.hparams[name] for name in NUMBERS}

    @cached_property
    def backbone(self) -> Backbone:
        """The pretrained encoders."""
        config = self.work.config
        return Backbone(config.backbone, bool(config.data.facts))

    def _backbone(self, folder: Path) -> None:
        """Stage "backbone": the features of the whole catalogue, standardised on training items."""
        items, train, tracker = self.data.dataset.items, self.data.train_items, self.work.tracker
        kept = Blocks(folder / "parts", items.ids, self.backbone.provenance)
        read = self.backbone.read(items, tracker.stage("backbone"), kept)
        has = {"text": np.any(read["text"] != 0, axis=1), "picture": read["picture_ok"]}
        scalers = {}
        for part in PARTS:
            known = np.flatnonzero(has[part] & train)
            if not len(known):
                tracker.warn(f"no training item has a {part}, so that it tells nothing.")
                known = np.arange(len(items))
            scalers[part] = Standardiser.fit(read[part], known)
        tables = standardise(read, scalers)
        for part, scaler in scalers.items():
            tables |= {f"{part}/mean": scaler.mean[None], f"{part}/scale": scaler.scale[None]}
        write_tables(folder, items.ids, tables, self.backbone.provenance)
        kept.clear()

    def _knowledge(self, folder: Path) -> None:
        """Stage "knowledge": heads on the frozen features of the training items."""
        work, c = self.work, self.work.config.knowledge
        work.tracker.say(
            f"knowledge: {self._why_silent()}, so that nothing is generated; text and picture "
            "teach each other"
        )
        hparams = {**self._numbers, "learning_rate": c.train.learning_rate}
        task = FrozenKnowledgeTask(self.config, hparams)
        batches = self.data.items(self.arrays, self.data.train_rows, c.train.batch_size)
        fingerprint = self.data.dataset.fingerprint
        work.fit(folder, "knowledge", task, c.train, batches, fingerprint=fingerprint)

    def _why_silent(self) -> str:
        name = self.work.config.backbone.name
        if "lm_logits" in self.backbone.text.model.fns:
            return f"the features of {name} are computed once"
        return f"{name} has no language head"

    @property
    def _folder(self) -> Path:
        return self.work.workdir / "backbone"

    @property
    def provenance(self) -> dict[str, str]:
        """Which pretrained weights have read the catalogue."""
        kept = read_features(self._folder / TABLES).provenance
        return {name: kept[name] for name in (*PARTS, "settings")}

    @property
    def parameters(self) -> int:
        """How many numbers heads and backbones have."""
        heads = parameter_count(self.work.params("knowledge", self.model))
        return heads + pretrained_parameters(self.provenance)

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """The features of the catalogue."""
        return read_tables(self._folder, self.data.dataset.items.ids)

    @cached_property
    def _scalers(self) -> dict[str, Standardiser]:
        """The statistics of the training items, of "text" and of "picture".

        Raises:
          UserError: The backbones are not those that read the catalogue.
        """
        if self.backbone.provenance != self.provenance:
            raise UserError(
                f"{self._folder} was made by other readers than backbone.text and backbone.picture "
                "name now; put those back, or read the catalogue anew in another --workdir."
            )
        return {part: read_standardiser(self._folder, f"{part}/") for part in PARTS}

    def read(self, items: Items) -> dict[str, np.ndarray]:
        """Return "text" float32 [V, D], "picture" float32 [V, C] and "picture_ok" bool [V]."""
        scalers = self._scalers
        return standardise(self.backbone.read(items), scalers)

    @cached_property
    def config(self) -> FrozenConfig:
        """Sizes of the heads."""
        text, picture = (self.arrays[part].shape[1] for part in PARTS)
        return FrozenConfig(text, picture, self.work.config.knowledge.width)

    @property
    def features(self) -> int:
        """Width of e."""
        return self.config.features

    @cached_property
    def model(self) -> Model:
        """The Knowledge tower: the heads."""
        return frozen_tower(self.config)

    @cached_property
    def _compiled(self) -> Callable[..., jax.Array]:
        """The compiled ``(text, picture, picture_ok) -> e``, one program for all views."""
        params = self.work.params("knowledge", self.model)
        return jax.jit(lambda *given: self.model.fns["encode_item"](params, *given)[0])

    def encode(
        self, arrays: Mapping[str, np.ndarray], view: str, kept: Blocks | None = None
    ) -> np.ndarray:
        """Read features with the heads; see `ItemReader`."""
        return read_catalogue(self.work, self._compiled, arrays, view, BATCH, kept)


def standardise(
    read: Mapping[str, np.ndarray], scalers: Mapping[str, Standardiser]
) -> dict[str, np.ndarray]:
    """Return what was read with its parts standardised; what an item has not stays zeros."""
    has = {"text": np.any(read["text"] != 0, axis=1), "picture": read["picture_ok"]}
    parts = {part: np.where(has[part][:, None], scalers[part](read[part]), 0.0) for part in PARTS}
    return {**{n: a.astype(np.float32) for n, a in parts.items()}, "picture_ok": has["picture"]}
