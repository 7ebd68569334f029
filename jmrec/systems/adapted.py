"""TPAD on a pretrained backbone that is trained by low-rank updates: ``mode=lora``.

The Knowledge tower is assembled of a vision encoder, a matrix and a decoder. Stage "knowledge"
trains what stands around them and the updates; the backbone itself is read anew from its source by
whoever needs it, and lies in no checkpoint. All the rest of the system is that of
`jmrec.systems.tpad`.
"""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import jax
import numpy as np

from jmrec.cluster.member import is_first
from jmrec.config import ConfigDict
from jmrec.convert.families import Pretrained
from jmrec.convert.tokenizer import load_tokenizer
from jmrec.data.schema import Items
from jmrec.errors import UserError
from jmrec.features import read_features, write_features
from jmrec.files import read_json, write_json
from jmrec.models.assembled import AssembledConfig, assembled, backbone_parts
from jmrec.models.decoder import DecoderConfig
from jmrec.models.efficientnet import EfficientNetConfig
from jmrec.models.lora import LoraConfig, merged
from jmrec.models.vit import ViTConfig
from jmrec.systems.backbone import LOOKS, WHOLE, check_backbone, origins, picture_size
from jmrec.systems.catalogue import VIEWS, Reader
from jmrec.systems.pretrained import find_pretrained
from jmrec.systems.stages import Stage
from jmrec.systems.tpad import Tpad
from jmrec.tasks.knowledge import KnowledgeTask
from jmrec.tracking import Tracker
from jmrec.types import Model, Params

PARTS = "parts"
BACKBONE = "backbone.json"
"""Where stage "data" keeps whose tokenizer it took: the weights that all stages are to use."""


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
        """The backbone's parameters, as `jmrec.models.assembled` names them."""
        if self.whole:
            return self.text.params
        return {"vision": self.picture.params, "decoder": self.text.params}


class AdaptedTpad(Tpad):
    """The system on one workdir, with a backbone under low-rank updates.

    Args:
      config: From experiments/tpad.py:backbone=...,mode=lora
      workdir: The run's folder.
      tracker: Metrics and messages.

    Raises:
      UserError: The settings ask for what such a tower can not give.
    """

    def __init__(self, config: ConfigDict, workdir: Path, tracker: Tracker) -> None:
        check_backbone(config.backbone)
        if config.transition.prompt != "items":
            raise UserError(
                "mode=lora gives the Transfer tower one vector of an item, so that "
                "transition.prompt must be items; change one of them."
            )
        super().__init__(config, workdir, tracker)
        self.read_batch = int(config.backbone.batch)

    def stages(self) -> list[Stage]:
        """Return the training stages: tokens are the backbone's, so that "data" depends on it."""
        if jax.process_count() > 1:
            # Stage "data" is process 0's, and what `jmrec convert` wrote is opened by all at once.
            _ = self.parts
        data, *rest = super().stages()
        own = {name: self.config.backbone[name] for name in ("text", "picture", "picture_size")}
        return [replace(data, settings={**data.settings, "backbone": own}), *rest]

    def reading_stages(self) -> list[Stage]:
        """Return the one stage up to the Knowledge tower."""
        c = self.config
        backbone = {name: c.backbone[name] for name in ("layers", "merge", "dtype")}
        own = {"knowledge": c.knowledge, "backbone": backbone, "seed": c.seed}
        return [Stage("knowledge", own, ("data",), self.knowledge)]

    def _fit_reader(self, folder: Path, items: Items, rows: np.ndarray) -> None:
        write_json(folder / BACKBONE, self.provenance)
        settings = {**self.config.data, "picture_size": self._picture_size}
        Reader.fit(folder, items, rows, settings, load_tokenizer(self.parts.text.source))

    @cached_property
    def parts(self) -> Parts:
        """The pretrained parts.

        Raises:
          UserError: They are not there, or are no decoder and vision encoder.
        """
        c = self.config.backbone
        computing = {"dtype": c.dtype, "remat": c.remat}
        text = find_pretrained(c.text, "decoder", ("llama", WHOLE), layers=c.layers, **computing)
        if text.family == WHOLE:
            return Parts(text, text)
        eyes = tuple(name for name in LOOKS if name != WHOLE)
        return Parts(text, find_pretrained(c.picture, "vision encoder", eyes, **computing))

    @property
    def _picture_size(self) -> int:
        return picture_size(self.config.backbone, self.parts.vision)

    @cached_property
    def knowledge_config(self) -> AssembledConfig:  # type: ignore[override]
        """What the tower is made of, with the fields of this run.

        Raises:
          UserError: An item has more tokens than the decoder reads.
        """
        c, parts, own = self.config.backbone, self.parts, self.config.knowledge
        config = AssembledConfig(
            fields=tuple(self.reader.lengths.values()),
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
        words = sum(config.fields)
        over = config.seen + words + 1 - config.decoder.context
        if over > 0:
            wide = "" if parts.whole else " or raise backbone.merge"
            raise UserError(
                f"an item has {config.seen} picture and {words} text tokens, which is {over} more "
                f"than {c.text} reads; lower data.max_tokens{wide}."
            )
        return config

    @property
    def reader_tower(self) -> Model:
        """The Knowledge tower; what it trains are "heads" and "lora"."""
        return assembled(self.knowledge_config)

    @property
    def provenance(self) -> dict[str, str]:
        """Which pretrained weights the features come from."""
        return origins({"text": self.parts.text, "picture": self.parts.picture})

    def knowledge(self, folder: Path) -> None:
        """Stage "knowledge": the heads and updates of the tower, on the training items."""
        self._check_weights()
        super().knowledge(folder)

    def _check_weights(self) -> None:
        """Raise UserError where other weights lie in the backbone's place than at the beginning."""
        if read_json(self.workdir / "data" / BACKBONE) != self.provenance:
            raise UserError(
                f"{self.workdir} began on other weights than backbone.text and backbone.picture "
                "name now; put those back, or train anew in another --workdir."
            )

    def knowledge_task(self, eye: Params | None) -> KnowledgeTask:
        """Return what stage "knowledge" trains."""
        c = self.config.knowledge
        hparams = {**c.hparams, "learning_rate": c.train.learning_rate}
        return KnowledgeTask(self.knowledge_config, hparams, backbone=self.parts.params)

    def read(self, folder: Path) -> None:
        """Stage "read": e of the whole catalogue in each view; what was done of it is not lost."""
        super().read(folder)
        # No later stage of a run reads items: the backbone need not lie on the devices.
        self.__dict__.pop("reader_params", None)
        if is_first():
            shutil.rmtree(folder / PARTS, ignore_errors=True)

    def encode(self, arrays: Mapping[str, np.ndarray], name: str = "") -> np.ndarray:
        """Read items with the Knowledge tower: float32 [V, D], not standardised.

        A view of the catalogue is kept block by block until its stage is done.
        """
        if name not in VIEWS:
            return super().encode(arrays, name)
        ids, made_by = self.dataset.items.ids, read_json(self.workdir / "knowledge" / "stage.json")

        def keep(start: int, work: Callable[[], np.ndarray]) -> np.ndarray:
            if not is_first():
                return work()
            path = self.workdir / "read" / PARTS / f"{name} {start:08d}.safetensors"
            few = ids[start : start + self.read_block]
            if path.is_file():
                table = read_features(path, few)
                if table.provenance.get("tower") == made_by["hash"]:
                    return table.arrays["e"]
            block = work()
            write_features(path, {"e": block}, few, {"tower": made_by["hash"]})
            return block

        run = partial(self._encode_items, self.reader_params)
        return self._read_all(run, arrays, f"read {name}", keep)

    @cached_property
    def reader_params(self) -> Params:
        """What was trained, and the backbone that it was trained on."""
        self._check_weights()
        trained = self.params("knowledge", self.reader_tower)
        return self._whole({**trained, "backbone": self.parts.params})

    def merged(self) -> Pretrained:
        """Return the decoder (or the whole multimodal model) with the trained updates added.

        Raises:
          UserError: There are no updates, or some are of what is not returned.
        """
        self._check_weights()
        trained, config = self.params("knowledge", self.reader_tower), self.knowledge_config
        own = self.parts.text
        held = backbone_parts(config) if self.parts.whole else ("decoder",)
        if config.lora is None or set(trained["lora"]) - set(held):
            raise UserError(
                f"{self.workdir} has updates of {', '.join(trained['lora']) or 'nothing'}, and "
                f"what can be written merged is {', '.join(held)}; choose "
                "knowledge.lora.targets of these alone."
            )
        tree = merged(config.lora, trained["lora"], {**trained["heads"], **self.parts.params})
        params = {name: tree[name] for name in held} if self.parts.whole else tree["decoder"]
        origin = {**own.provenance, "lora_rank": config.lora.rank}
        return replace(own, params=params, provenance=origin)
