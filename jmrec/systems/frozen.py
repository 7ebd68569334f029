"""TPAD on pretrained backbones whose features are cached: stage "backbone" in place of "vision".

The catalogue is read once; what the Knowledge stage trains are heads on what was read. All the
rest of the system is that of `jmrec.systems.tpad`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jmrec.config import ConfigDict
from jmrec.data.schema import Items
from jmrec.errors import UserError
from jmrec.features import Standardiser, read_features
from jmrec.models.frozen import FrozenConfig, frozen_tower
from jmrec.systems.backbone import Backbone, check_backbone
from jmrec.systems.stages import Stage
from jmrec.systems.tables import TABLES, read_standardiser, read_tables, write_tables
from jmrec.systems.tpad import Tpad
from jmrec.tasks.frozen import FrozenKnowledgeTask
from jmrec.tracking import Tracker
from jmrec.types import Model

PARTS = ("text", "picture")


@dataclass(frozen=True)
class FrozenReader:
    """Reads items as the catalogue was read: through the backbone, then standardised.

    Attributes:
      backbone: The readers.
      scalers: "text" and "picture" -> the statistics of the training items.
    """

    backbone: Backbone
    scalers: Mapping[str, Standardiser]

    def read(self, items: Items) -> dict[str, np.ndarray]:
        """Return "text" float32 [V, D], "picture" float32 [V, C] and "picture_ok" bool [V]."""
        return standardise(self.backbone.read(items), self.scalers)


class FrozenTpad(Tpad):
    """The system on one workdir, with frozen backbones.

    Args:
      config: From experiments/tpad.py:backbone=...
      workdir: The run's folder.
      tracker: Metrics and messages.

    Raises:
      UserError: The settings ask for what frozen features can not give.
    """

    def __init__(self, config: ConfigDict, workdir: Path, tracker: Tracker) -> None:
        check_backbone(config.backbone)
        if config.transition.prompt != "items":
            raise UserError(
                f"backbone={config.backbone.name} keeps one vector of an item, so that "
                "transition.prompt must be items; change one of them."
            )
        super().__init__(config, workdir, tracker)

    def reading_stages(self) -> list[Stage]:
        """Return the stages in which items are read, up to the Knowledge tower."""
        c = self.config
        if jax.process_count() > 1:
            # Process 0 reads alone, and what `jmrec convert` wrote is opened by all at once.
            _ = self.backbone.text, self.backbone.picture
        what = ("text", "picture", "picture_size", "layers", "lengths", "dtype")
        own = {"backbone": {name: c.backbone[name] for name in what}, "facts": c.data.facts}
        return [
            Stage("backbone", own, ("data",), self.read_backbone, alone=True),
            Stage(
                "knowledge", {"knowledge": c.knowledge, "seed": c.seed}, ("backbone",),
                self.knowledge,
            ),
        ]  # fmt: skip

    @cached_property
    def backbone(self) -> Backbone:
        """The pretrained readers."""
        return Backbone(self.config.backbone, bool(self.config.data.facts))

    def read_backbone(self, folder: Path) -> None:
        """Stage "backbone": the features of the whole catalogue, standardised on training items."""
        items, train = self.dataset.items, self.train_items
        read = self.backbone.read(items, self.tracker.stage("backbone"), folder / "parts")
        has = {"text": np.any(read["text"] != 0, axis=1), "picture": read["picture_ok"]}
        scalers = {}
        for part in PARTS:
            known = np.flatnonzero(has[part] & train)
            if not len(known):
                self.tracker.warn(f"no training item has a {part}, so that it tells nothing.")
                known = np.arange(len(items))
            scalers[part] = Standardiser.fit(read[part], known)
        tables = standardise(read, scalers)
        for part, scaler in scalers.items():
            tables |= {f"{part}/mean": scaler.mean[None], f"{part}/scale": scaler.scale[None]}
        write_tables(folder, items.ids, tables, self.backbone.provenance)
        for path in sorted((folder / "parts").glob("*")):
            path.unlink()

    def knowledge(self, folder: Path) -> None:
        """Stage "knowledge": heads on the frozen features of the training items."""
        c = self.config.knowledge
        self.tracker.say(
            f"knowledge: {self._why_silent()}, so that nothing is generated; text and picture "
            "teach each other"
        )
        hparams = {**c.hparams, "learning_rate": c.train.learning_rate}
        task = FrozenKnowledgeTask(self.frozen_config, hparams)
        rows = np.flatnonzero(self.train_items)
        batches = self.items(self.arrays, rows, c.train.batch_size)
        self._fit(folder, "knowledge", task, c.train, batches, self.config.seed)

    def _why_silent(self) -> str:
        name = self.config.backbone.name
        if "lm_logits" in self.backbone.text.model.fns:
            return f"the features of {name} are computed once"
        return f"{name} has no language head"

    @property
    def provenance(self) -> dict[str, str]:
        """Which pretrained weights have read the catalogue."""
        told = read_features(self.workdir / "backbone" / TABLES).provenance
        return {name: told[name] for name in (*PARTS, "settings")}

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """The features of the catalogue."""
        return read_tables(self.workdir / "backbone", self.dataset.items.ids)

    @cached_property
    def reader(self) -> Any:
        """How new items are read.

        Raises:
          UserError: Other weights lie in the readers' place than have read the catalogue.
        """
        folder = self.workdir / "backbone"
        if self.backbone.provenance != self.provenance:
            raise UserError(
                f"{folder} was made by other readers than backbone.text and backbone.picture name "
                "now; put those back, or read the catalogue anew in another --workdir."
            )
        scalers = {part: read_standardiser(folder, f"{part}/") for part in PARTS}
        return FrozenReader(self.backbone, scalers)

    @cached_property
    def frozen_config(self) -> FrozenConfig:
        """Sizes of the heads."""
        text, picture = (self.arrays[part].shape[1] for part in PARTS)
        return FrozenConfig(text, picture, self.config.knowledge.width)

    @property
    def features_width(self) -> int:
        """Width of e."""
        return self.frozen_config.features

    @property
    def reader_tower(self) -> Model:
        """The Knowledge tower: the heads."""
        return frozen_tower(self.frozen_config)

    def encode(self, arrays: Mapping[str, np.ndarray], name: str = "") -> np.ndarray:
        """Read features with the heads: float32 [V, D], not standardised."""
        model = self.reader_tower
        params = self.params("knowledge", model)
        run = jax.jit(lambda *given: model.fns["encode_item"](params, *given)[0])
        return self._read_all(run, arrays, f"read {name}".strip())


def standardise(
    read: Mapping[str, np.ndarray], scalers: Mapping[str, Standardiser]
) -> dict[str, np.ndarray]:
    """Return what was read with its parts standardised; what an item has not stays zeros."""
    has = {"text": np.any(read["text"] != 0, axis=1), "picture": read["picture_ok"]}
    parts = {part: np.where(has[part][:, None], scalers[part](read[part]), 0.0) for part in PARTS}
    return {**{n: a.astype(np.float32) for n, a in parts.items()}, "picture_ok": has["picture"]}
