"""The item reader that is trained here: a vision encoder, then the Knowledge tower."""

from collections.abc import Callable, Collection, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jmrec.config import ConfigDict
from jmrec.data.item_arrays import ItemArrays
from jmrec.data.schema import Items
from jmrec.models.parts.transformer import StackConfig
from jmrec.models.readers.knowledge import KnowledgeConfig, knowledge_tower
from jmrec.models.readers.vision import VisionConfig, picture_words
from jmrec.models.sessions.transfer import ItemTokens
from jmrec.systems.readers.blocks import (
    Blocks,
    block_size,
    on_every_device,
    read_batches,
    read_in_blocks,
)
from jmrec.systems.readers.tower import TowerReader
from jmrec.systems.stages import Stage
from jmrec.systems.work import Work, numbers
from jmrec.tasks.knowledge import KnowledgeTask
from jmrec.tasks.vision import VisionTask, word_weights
from jmrec.types import Model, Params

BATCH = 256
USED = ("vision", "stack", "soft", "train")
"""What of the group "knowledge" this reader reads, besides its "hparams"."""
HEADS_ONLY = ("rebuild",)
"""Numbers of the group "knowledge" that no tower that writes has."""


def knowledge_config(config: ConfigDict, vocab: int, fields: tuple[int, ...]) -> KnowledgeConfig:
    """Return the Knowledge tower's size.

    Args:
      config: Of the experiment.
      vocab: Tokens of the tokenizer.
      fields: Tokens of each text field.
    """
    c = config.knowledge
    return KnowledgeConfig(
        vocab=vocab,
        fields=fields,
        vision=VisionConfig(
            size=config.data.picture_size,
            patch=c.vision.patch,
            merge=c.vision.merge,
            stack=StackConfig(**c.vision.stack),
        ),
        stack=StackConfig(**c.stack),
        soft=c.soft,
    )


def item_tokens(tower: KnowledgeConfig) -> ItemTokens:
    """Return what the tokens of an item are that a Knowledge tower keeps."""
    return ItemTokens(tower.vocab, tower.tokens, tower.vision.tokens, tower.stack.width)


def vision_encoder(tower: KnowledgeConfig) -> Model:
    """Return the Knowledge tower's vision encoder with a head that names words."""
    return picture_words(tower.vision, tower.stack.width, tower.vocab)


def vision_task(config: ConfigDict, tower: KnowledgeConfig, words: tuple[Any, Any]) -> VisionTask:
    """Return what stage "vision" trains, given the words' weights and priors."""
    return VisionTask(vision_encoder(tower), words, numbers(config.vision))


def knowledge_task(
    config: ConfigDict, tower: KnowledgeConfig, vision: Params | None
) -> KnowledgeTask:
    """Return what stage "knowledge" trains; ``vision`` are parameters of a trained encoder."""
    return KnowledgeTask(tower, tower_numbers(config), vision=vision)


def tower_numbers(config: ConfigDict) -> dict[str, Any]:
    """Return the traced numbers of a Knowledge tower that writes."""
    given = numbers(config.knowledge)
    return {name: number for name, number in given.items() if name not in HEADS_ONLY}


def tower_settings(config: ConfigDict, used: Collection[str]) -> dict[str, Any]:
    """Return what of the group "knowledge" a tower that writes depends on."""
    c = config.knowledge
    own = {name: number for name, number in c.hparams.items() if name not in HEADS_ONLY}
    return {**{name: c[name] for name in used}, "hparams": own}


def read_catalogue(
    work: Work,
    read: Callable[..., jax.Array],
    arrays: Mapping[str, np.ndarray],
    label: str,
    batch: int,
    kept: Blocks | None = None,
) -> np.ndarray:
    """Return ``read(text, picture, picture_ok)`` of many items, with a progress bar.

    Args:
      work: The run.
      read: A compiled function.
      arrays: Of the items.
      label: For the bar.
      batch: Items that are read at once, about.
      kept: See `read_in_blocks`.
    """

    def block(rows: slice) -> dict[str, np.ndarray]:
        return {"e": read_batches(read, {n: a[rows] for n, a in arrays.items()}, batch)}

    count = len(arrays["text"])
    with work.tracker.stage("read").progress(count, f"read {label}".strip()) as bar:
        return read_in_blocks(count, block_size(batch), block, bar=bar, kept=kept)["e"]


class TrainedReader(TowerReader):
    """The item reader of one run.

    Args:
      work: The run.
      data: Its data.
    """

    data_settings: Mapping[str, Any] = {}
    provenance: dict[str, str] = {}  # noqa: RUF012  no weights come from elsewhere

    def fit(self, folder: Path, items: Items, rows: np.ndarray) -> None:
        """Train the tokenizer on the training items."""
        ItemArrays.fit(folder, items, rows, self.work.config.data)

    def stages(self) -> list[Stage]:
        """Return the stages "vision" and "knowledge"."""
        c = self.work.config
        vision = {"vision": c.vision, "encoder": c.knowledge.vision, "out": c.knowledge.stack.width}
        return [
            Stage("vision", {**vision, "seed": c.seed}, ("data",), self._vision),
            Stage(
                "knowledge", {"knowledge": tower_settings(c, USED), "seed": c.seed}, ("vision",),
                self._knowledge,
            ),
        ]  # fmt: skip

    def _vision(self, folder: Path) -> None:
        """Stage "vision": the vision encoder, on the pictures of the training items."""
        work, c, rows = self.work, self.work.config.vision, self.data.train_rows
        arrays = {**self.arrays, "text": self.item_arrays.words(self.arrays["text"])}
        words = word_weights(arrays["text"][rows], self.item_arrays.vocab)
        task = vision_task(work.config, self.config, words)
        seen = rows[self.arrays["picture_ok"][rows]]
        if not len(seen):
            work.tracker.say("vision: no training item has a picture, so there is nothing to learn")
            return
        batches = self.data.items(arrays, seen, c.train.batch_size)
        fingerprint = self.data.dataset.fingerprint
        work.fit(folder, "vision", task, c.train, batches, fingerprint=fingerprint)

    def _knowledge(self, folder: Path) -> None:
        """Stage "knowledge": the Knowledge tower, on the training items."""
        work = self.work
        learned = (work.workdir / "vision" / "params").is_dir()
        encoder = vision_encoder(self.config)
        vision = work.params("vision", encoder)["vision"] if learned else None
        self.train_tower(folder, knowledge_task(work.config, self.config, vision))

    @cached_property
    def config(self) -> KnowledgeConfig:
        """The Knowledge tower's size, with the vocabulary and fields of this run."""
        fields = tuple(self.item_arrays.lengths.values())
        return knowledge_config(self.work.config, self.item_arrays.vocab, fields)

    @cached_property
    def model(self) -> Model:
        """The Knowledge tower."""
        return knowledge_tower(self.config)

    @property
    def params(self) -> Params:
        """The Knowledge tower's parameters, numpy arrays."""
        return self.work.params("knowledge", self.model)

    @property
    def parameters(self) -> int:
        """How many numbers the Knowledge tower has."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.params))

    def encode(
        self, arrays: Mapping[str, np.ndarray], view: str, kept: Blocks | None = None
    ) -> np.ndarray:
        """Read items with the Knowledge tower; see `ItemReader`."""
        read = partial(self.compiled, on_every_device(self.params))
        return read_catalogue(self.work, read, arrays, view, BATCH, kept)

    def item_tokens(self) -> ItemTokens:
        """What the tokens of an item are; see `TokenReader`."""
        return item_tokens(self.config)

    def tokens(self) -> dict[str, np.ndarray]:
        """Return all tokens of the catalogue's items; see `TokenReader`."""
        params = on_every_device(self.params)
        look = jax.jit(lambda text, picture, ok: self.model.fns["see"](params, picture)[0])
        seen = read_catalogue(self.work, look, self.arrays, "picture tokens", BATCH)
        return {"text": self.arrays["text"], "seen": seen, "picture_ok": self.arrays["picture_ok"]}

    def token_vectors(self) -> Params:
        """Return the Knowledge tower's token vectors [vocab, width]."""
        return self.params["embed"]
