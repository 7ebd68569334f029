"""Frozen pretrained encoders: every item's text and picture goes through them once.

A catalogue is read in blocks of items. A block that is done is kept on disk, so that a reading that
was killed is resumed; texts of a block are sorted by length into the declared buckets, one compiled
shape each, and batches are shared out over the devices.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np

from jmrec.config import ConfigDict, choose
from jmrec.convert.families import Pretrained
from jmrec.convert.tokenizer import load_tokenizer
from jmrec.data.item_arrays import with_facts
from jmrec.data.languages import languages, show_languages
from jmrec.data.pictures import decode_pictures
from jmrec.data.schema import Items, take_items
from jmrec.errors import UserError, no_panic
from jmrec.models.linen import compiled
from jmrec.models.parts.transformer import remat_policy
from jmrec.models.readers.efficientnet import EfficientNetConfig
from jmrec.systems.pretrained import find_pretrained, parameter_count
from jmrec.systems.readers.blocks import (
    BLOCK,
    Blocks,
    on_every_device,
    padded_batches,
    read_in_blocks,
    spread,
)
from jmrec.tracking import Tracker

READS = {"bert": "sentence", "llama": "sentence", "idefics3": "sentence"}
"""Families that read texts, each with its function for one vector a text."""
LOOKS = {"efficientnet": "pooled", "vit": "encode_picture", "idefics3": "encode_picture"}
"""Families that look at pictures, each with its function for one vector a picture."""
WHOLE = "idefics3"
"""The family that does both, and so needs no other vision encoder."""


ENGLISH = ("minilm", "smollm2", "assembled")
"""Backbones whose text encoder learned from English alone."""


def language_warning(items: Items, backbone: str) -> str:
    """Return what is to be said where a backbone may not know the language of the texts, or "".

    Args:
      items: What it will read.
      backbone: Its name.

    Example:
      >>> language_warning(Items(["1"], ["A red shoe"], {"title": ["A red shoe"]}, [b""]), "minilm")
      ''
    """
    if backbone not in ENGLISH:
        return ""
    found = languages([" ".join(each) for each in zip(*items.text.values())])
    if not found or found.get("en", 0.0) > 0.7:
        return ""
    return (
        f"the texts seem to be {show_languages(found)}, and {backbone} knows English only; "
        "train the reader here (backbone=tiny), or bring one that knows the language "
        "(backbone=hf:FOLDER)."
    )


@dataclass(frozen=True)
class Backbone:
    """The pretrained encoders of one run.

    Attributes:
      settings: "text" and "picture" (what `find_pretrained` reads), "layers" of the text's reader
        (0 is all), "lengths" (buckets of tokens), "batch", "picture_size" (0 is the model's own)
        and "dtype" (in which they compute).
      facts: Whether declared numbers and categories are read as text.
    """

    settings: ConfigDict
    facts: bool = True

    @cached_property
    def text(self) -> Pretrained:
        """The reader of texts.

        Raises:
          UserError: The weights are not there, or the settings do not fit them.
        """
        c = self.settings
        found = find_pretrained(
            c.text, "reader of texts", tuple(READS), layers=c.layers, dtype=c.dtype
        )
        context = getattr(found.model.config, "decoder", found.model.config).context
        if max(c.lengths) > context:
            raise UserError(
                f"backbone.lengths={tuple(c.lengths)} is longer than the {context} tokens that "
                f"{c.text} reads; shorten it."
            )
        return found

    @cached_property
    def picture(self) -> Pretrained:
        """The reader of pictures; raises UserError where the weights are not there."""
        if self.text.family == WHOLE:
            return self.text
        c = self.settings
        return find_pretrained(c.picture, "reader of pictures", tuple(LOOKS), dtype=c.dtype)

    @property
    def picture_size(self) -> int:
        """Side of the pictures that are read.

        Raises:
          UserError: The model can not see pictures of the size that is set.
        """
        return picture_size(self.settings, self.picture.model.config)

    @property
    def provenance(self) -> dict[str, str]:
        """What made the features, for those who read them."""
        named = ("lengths", "batch", "dtype")
        settings = {k: v for k, v in self.settings.to_dict().items() if k in named}
        return {
            **origins({"text": self.text, "picture": self.picture}),
            "settings": json.dumps({**settings, "picture_size": self.picture_size}),
        }

    def read(
        self, items: Items, tracker: Tracker | None = None, kept: Blocks | None = None
    ) -> dict[str, np.ndarray]:
        """Read items.

        Args:
          items: V items.
          tracker: Shows progress; None is silent.
          kept: Where what is done of a long reading is kept; None keeps nothing.

        Returns:
          "text" float32 [V, D] (zeros without text), "picture" float32 [V, C] (zeros without
          picture) and "picture_ok" bool [V].
        """
        if tracker is None:
            return self._block(items)

        def block(rows: slice) -> dict[str, np.ndarray]:
            return self._block(take_items(items, list(range(rows.start, rows.stop))))

        if said := language_warning(items, str(self.settings.name)):
            tracker.warn(said)
        begin = time.perf_counter()
        with tracker.progress(len(items), "read") as bar:
            found = read_in_blocks(len(items), BLOCK, block, bar=bar, kept=kept)
        seconds = time.perf_counter() - begin
        tracker.say(
            f"read {len(items)} items in {seconds:.1f} s, {len(items) / seconds:.1f} items/s"
        )
        return found

    def _block(self, items: Items) -> dict[str, np.ndarray]:
        pixels, ok = decode_pictures(items, self.picture_size)
        shown = jax.ShapeDtypeStruct((1, *pixels.shape[1:]), pixels.dtype)
        picture = np.zeros((len(items), self._width(self._look, self.picture, shown)), np.float32)
        for rows, padded in padded_batches(np.flatnonzero(ok), self.settings.batch):
            seen = self._look(self._picture_params, spread(pixels[padded]))
            picture[rows] = np.asarray(seen, np.float32)[: len(rows)]
        return {"text": self._read_texts(items), "picture": picture, "picture_ok": ok}

    def _read_texts(self, items: Items) -> np.ndarray:
        known = with_facts(items) if self.facts else items
        texts = [
            ". ".join(value for column in known.text.values() if (value := column[row]))
            for row in range(len(items))
        ]
        longest = max(self.settings.lengths)
        tokenizer = self._tokenizer
        with no_panic(
            "the backbone's tokenizer breaks down on the texts; choose another backbone."
        ):
            tokens = [each.ids for each in tokenizer.encode_batch(texts)]
        one = jax.ShapeDtypeStruct((1, longest), np.int32), jax.ShapeDtypeStruct((1, longest), bool)
        out = np.zeros((len(items), self._width(self._say, self.text, *one)), np.float32)
        size = np.array([len(each) for each in tokens])
        has = np.array([bool(text) for text in texts], bool)
        lengths = sorted(self.settings.lengths)
        bucket = np.searchsorted(lengths, np.minimum(size, longest))
        for index, length in enumerate(lengths):
            here = np.flatnonzero(has & (bucket == index))
            for rows, padded in padded_batches(here, self.settings.batch):
                ids = np.zeros((len(padded), length), np.int32)
                for place, row in enumerate(padded):
                    ids[place, : size[row]] = tokens[row]
                mask = np.arange(length) < size[padded, None]
                read = self._say(self._text_params, spread(ids), spread(mask))
                out[rows] = np.asarray(read, np.float32)[: len(rows)]
        return out

    # ---- the compiled readers -----------------------------------------------------------------

    @cached_property
    def _text_params(self) -> Any:
        return on_every_device(self.text.params)

    @cached_property
    def _picture_params(self) -> Any:
        if self.picture is self.text:
            return self._text_params
        return on_every_device(self.picture.params)

    @cached_property
    def _say(self) -> Callable[..., jax.Array]:
        return compiled(self.text.model, READS[self.text.family])

    @cached_property
    def _look(self) -> Callable[..., jax.Array]:
        return compiled(self.picture.model, LOOKS[self.picture.family])

    @staticmethod
    def _width(read: Callable[..., jax.Array], reader: Pretrained, *given: Any) -> int:
        return int(jax.eval_shape(read, reader.params, *given).shape[-1])

    @cached_property
    def _tokenizer(self) -> Any:
        tokenizer = load_tokenizer(self.text.source)
        tokenizer.enable_truncation(max(self.settings.lengths))
        return tokenizer


def origins(parts: Mapping[str, Pretrained]) -> dict[str, str]:
    """Return where pretrained parts came from and how many parameters they have, as JSON texts."""
    return {
        name: json.dumps(
            {**part.provenance, "parameters": parameter_count(part.params)}, sort_keys=True
        )
        for name, part in parts.items()
    }


def pretrained_parameters(provenance: Mapping[str, str]) -> int:
    """Return how many parameters the weights have that `origins` named."""
    parts = [json.loads(provenance[name]) for name in ("text", "picture") if name in provenance]
    # A whole multimodal model brings both parts at once.
    return sum({part["source"]: part.get("parameters", 0) for part in parts}.values())


def picture_size(settings: Mapping[str, Any], config: Any) -> int:
    """Return the side of the pictures that a model is shown.

    Args:
      settings: With "picture_size", 0 for the model's own.
      config: The model's.

    Raises:
      UserError: The model can not see pictures of the size that is set.
    """
    size, own = int(settings["picture_size"]), getattr(config, "vision", config)
    if size and size != own.size and not isinstance(own, EfficientNetConfig):
        raise UserError(
            f"backbone.picture_size={size}: this model sees {own.size} pixels a side and no other "
            "size; set it to 0."
        )
    return size or int(own.size)


def check_backbone(settings: Mapping[str, Any]) -> None:
    """Refuse settings that make no sense before anything is read.

    Raises:
      UserError: They do not.
    """
    lengths, size = settings["lengths"], settings["picture_size"]
    if not lengths or min(lengths) < 3 or settings["batch"] < 1 or (size < 32 and size != 0):
        raise UserError(
            "backbone: lengths must be 3 or more, batch 1 or more and picture_size 32 or more (or "
            "0, the model's own); mend that setting."
        )
    if settings["layers"] < 0 or settings["merge"] < 1:
        raise UserError(
            f"backbone.layers={settings['layers']}, backbone.merge={settings['merge']}: give 0 for "
            "all layers or their number, and 1 or more cells to be merged."
        )
    choose("backbone.dtype", settings["dtype"], ("float32", "bfloat16"))
    remat_policy(settings["remat"])
