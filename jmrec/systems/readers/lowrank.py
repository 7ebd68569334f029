"""The item reader with ``mode=lora``: a pretrained backbone, trained by low-rank updates.

The Knowledge tower is assembled of a vision encoder, a matrix and a decoder. Stage "knowledge"
trains the parts around them and the updates; the backbone itself is in no checkpoint: each stage
that needs it reads it from its source.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jmrec.convert.families import Pretrained
from jmrec.convert.tokenizer import load_tokenizer
from jmrec.data.item_arrays import ItemArrays
from jmrec.data.schema import Items
from jmrec.errors import UserError
from jmrec.files import read_json, write_json
from jmrec.models.parts.lora import LoraConfig, merged
from jmrec.models.readers.assembled import AssembledConfig, assembled, backbone_parts
from jmrec.models.readers.decoder import DecoderConfig
from jmrec.models.readers.efficientnet import EfficientNetConfig
from jmrec.models.readers.vit import ViTConfig
from jmrec.systems.data import RunData
from jmrec.systems.pretrained import find_pretrained, parameter_count
from jmrec.systems.readers.backbone import (
    LOOKS,
    WHOLE,
    check_backbone,
    origins,
    picture_size,
    pretrained_parameters,
)
from jmrec.systems.readers.blocks import Blocks, on_every_device
from jmrec.systems.readers.tower import TowerReader
from jmrec.systems.readers.trained import (
    read_catalogue,
    tower_numbers,
    tower_settings,
)
from jmrec.systems.stages import Stage
from jmrec.systems.work import Work
from jmrec.tasks.knowledge import KnowledgeTask
from jmrec.types import Model, Params

BACKBONE = "backbone.json"
"""Where stage "data" writes down which weights its tokenizer is of; all stages must use those."""


@dataclass(frozen=True)
class Parts:
    """What a tower is assembled of.

    Attributes:
      text: The decoder, or a whole multimodal model.
      picture: The vision encoder; the same where that is a whole model.
    """

    text: Pretrained
    picture: Pretrained

    @property
    def whole(self) -> bool:
        """Whether one model brings all parts."""
        return self.text.family == WHOLE

    @property
    def vision(self) -> EfficientNetConfig | ViTConfig:
        """The vision encoder's config."""
        config = self.picture.model.config
        return config.vision if self.whole else config

    @property
    def decoder(self) -> DecoderConfig:
        """The decoder's config."""
        config = self.text.model.config
        return config.decoder if self.whole else config

    @property
    def params(self) -> Params:
        """The backbone's parameters, as `jmrec.models.readers.assembled` names them."""
        if self.whole:
            return self.text.params
        return {"vision": self.picture.params, "decoder": self.text.params}


class LowRankReader(TowerReader):
    """The item reader of one run.

    Args:
      work: The run.
      data: Its data.

    Raises:
      UserError: The settings make no sense.
    """

    def __init__(self, work: Work, data: RunData) -> None:
        check_backbone(work.config.backbone)
        super().__init__(work, data)

    @property
    def data_settings(self) -> Mapping[str, Any]:
        """Tokens are the backbone's, so that stage "data" depends on it."""
        names = ("text", "picture", "picture_size")
        return {"backbone": {name: self.work.config.backbone[name] for name in names}}

    def fit(self, folder: Path, items: Items, rows: np.ndarray) -> None:
        """Take the backbone's tokenizer; write down where it came from."""
        write_json(folder / BACKBONE, self.provenance)
        settings = {**self.work.config.data, "picture_size": self._picture_size}
        tokenizer = load_tokenizer(self.parts.text.source)
        ItemArrays.fit(folder, items, rows, settings, tokenizer)

    def stages(self) -> list[Stage]:
        """Return the stage "knowledge"."""
        c = self.work.config
        if jax.process_count() > 1:
            # Stage "data" is process 0's, and what `jmrec convert` wrote is opened by all at once.
            _ = self.parts
        own = {
            "knowledge": tower_settings(c, ("lora", "soft", "train")),
            "backbone": {name: c.backbone[name] for name in ("layers", "merge", "dtype")},
            "seed": c.seed,
        }
        return [Stage("knowledge", own, ("data",), self._knowledge)]

    def _knowledge(self, folder: Path) -> None:
        """Stage "knowledge": the heads and updates of the tower, on the training items."""
        self._check_weights()
        self.train_tower(folder, self.task())

    def task(self) -> KnowledgeTask:
        """Return what stage "knowledge" trains."""
        numbers = tower_numbers(self.work.config)
        return KnowledgeTask(self.config, numbers, backbone=self.parts.params)

    @cached_property
    def parts(self) -> Parts:
        """The pretrained parts.

        Raises:
          UserError: They are not there, or are no decoder and vision encoder.
        """
        c = self.work.config.backbone
        computing = {"dtype": c.dtype, "remat": c.remat}
        text = find_pretrained(c.text, "decoder", ("llama", WHOLE), layers=c.layers, **computing)
        if text.family == WHOLE:
            return Parts(text, text)
        encoders = tuple(name for name in LOOKS if name != WHOLE)
        return Parts(text, find_pretrained(c.picture, "vision encoder", encoders, **computing))

    @property
    def _picture_size(self) -> int:
        return picture_size(self.work.config.backbone, self.parts.vision)

    @cached_property
    def config(self) -> AssembledConfig:
        """What the tower is made of, with the fields of this run.

        Raises:
          UserError: An item has more tokens than the decoder reads.
        """
        c, own = self.work.config.backbone, self.work.config.knowledge
        parts = self.parts
        config = AssembledConfig(
            fields=tuple(self.item_arrays.lengths.values()),
            vision=parts.vision,
            decoder=parts.decoder,
            size=self._picture_size,
            merge=parts.text.model.config.merge if parts.whole else c.merge,
            whole=parts.whole,
            lora=LoraConfig(**own.lora) if own.lora.rank else None,
            soft=own.soft,
        )
        if not config.seen:
            raise UserError(
                f"backbone.merge={c.merge} merges more cells than a picture of {config.size} "
                "pixels has, so that nothing is seen; lower it."
            )
        tokens = sum(config.fields)
        over = config.seen + tokens + 1 - config.decoder.context
        if over > 0:
            wide = "" if parts.whole else " or raise backbone.merge"
            raise UserError(
                f"an item has {config.seen} picture and {tokens} text tokens, which is {over} more "
                f"than {c.text} reads; lower data.max_tokens{wide}."
            )
        return config

    @cached_property
    def model(self) -> Model:
        """The Knowledge tower; what it trains are "heads" and "lora"."""
        return assembled(self.config)

    @property
    def provenance(self) -> dict[str, str]:
        """Which pretrained weights the features come from."""
        return origins({"text": self.parts.text, "picture": self.parts.picture})

    @property
    def parameters(self) -> int:
        """How many numbers the Knowledge tower has, the backbone's included."""
        trained = self.work.params("knowledge", self.model)
        known = read_json(self.work.workdir / "data" / BACKBONE)
        return parameter_count(trained) + pretrained_parameters(known)

    def _check_weights(self) -> None:
        """Raise UserError where the backbone is not the one that the run began with."""
        workdir = self.work.workdir
        if read_json(workdir / "data" / BACKBONE) != self.provenance:
            raise UserError(
                f"{workdir} began on other weights than backbone.text and backbone.picture "
                "name now; put those back, or train anew in another --workdir."
            )

    @property
    def params(self) -> Params:
        """What was trained, and the backbone that it was trained on, numpy arrays."""
        self._check_weights()
        trained = self.work.params("knowledge", self.model)
        return {**trained, "backbone": self.parts.params}

    def encode(
        self, arrays: Mapping[str, np.ndarray], view: str, kept: Blocks | None = None
    ) -> np.ndarray:
        """Read items with the Knowledge tower; see `ItemReader`.

        The backbone is on the devices only while it reads: later stages need the memory.
        """
        params = on_every_device(self.params)
        batch = int(self.work.config.backbone.batch)
        return read_catalogue(self.work, partial(self.compiled, params), arrays, view, batch, kept)

    def merged(self) -> Pretrained:
        """Return the decoder (or the whole multimodal model) with the trained updates added.

        Raises:
          UserError: There are no updates, or some are of what is not returned.
        """
        self._check_weights()
        trained, config = self.work.params("knowledge", self.model), self.config
        own = self.parts.text
        held = backbone_parts(config) if self.parts.whole else ("decoder",)
        if config.lora is None or set(trained["lora"]) - set(held):
            raise UserError(
                f"{self.work.workdir} has updates of {', '.join(trained['lora']) or 'nothing'}, "
                f"and what can be written merged is {', '.join(held)}; choose "
                "knowledge.lora.targets of these alone."
            )
        tree = merged(config.lora, trained["lora"], {**trained["heads"], **self.parts.params})
        params = {name: tree[name] for name in held} if self.parts.whole else tree["decoder"]
        origin = {**own.provenance, "lora_rank": config.lora.rank}
        return replace(own, params=params, provenance=origin)
