"""What writers with a language model share: batches of one shape, decoding, clean texts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np

from jmrec.convert.families import Pretrained
from jmrec.generate import MIN_WIDTH, Generator, decoder_config, make_generator
from jmrec.models.linen import compiled
from jmrec.sharding import make_mesh
from jmrec.systems.mmrec.writers.prompt import Words
from jmrec.systems.mmrec.writers.sentences import sentences
from jmrec.systems.mmrec.writers.writer import in_order, one_line
from jmrec.systems.readers.blocks import on_every_device, spread_size

HF = "hf:"
_FULL_STOP = (".", "!", "?", "…", '."', '!"', '?"', ".)", "。")
"""With what a whole sentence ends."""


@dataclass(frozen=True)
class Task:
    """One text to be written.

    Attributes:
      place: Of its source.
      prompt: Tokens.
      begun: The words with which the answer begins, which are part of the text.
      pixels: Frames uint8 [F, S, S, 3] of its picture, or None.
    """

    place: int
    prompt: list[int]
    begun: str = ""
    pixels: np.ndarray | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Frames and padded length: only prompts of one shape are written together."""
        return (0 if self.pixels is None else len(self.pixels)), width_of(len(self.prompt))


def width_of(tokens: int) -> int:
    """Return to how many tokens a prompt is padded, as `jmrec.generate.pad_prompts` does.

    Example:
      >>> width_of(3), width_of(129)
      (16, 256)
    """
    return max(MIN_WIDTH, 2 ** math.ceil(math.log2(max(tokens, 1))))


@dataclass(frozen=True)
class Speaker:
    """A language model that writes greedily, always in batches of one size.

    Each prompt is computed in a shape that its own length decides, in a batch that is always full
    (rows are repeated to fill it), so that which prompts stand beside it decides nothing but the
    row it stands in. Where a device computes all rows of a product alike, a text is then the same
    whatever the batch; a device that does not may choose another word where two are equally good
    up to rounding.

    Attributes:
      model: The weights.
      max_new: The most tokens of a text.
      batch: Prompts at once; rounded up to a multiple of the devices.
    """

    model: Pretrained
    max_new: int
    batch: int

    @cached_property
    def words(self) -> Words:
        """The tokenizer."""
        return Words.of(self.model)

    @property
    def room(self) -> int:
        """The most tokens of a prompt."""
        return decoder_config(self.model.model).context - self.max_new

    def batches(self, tasks: Sequence[Task]) -> list[list[Task]]:
        """Return tasks of one shape each, by length, at most `batch` together."""
        found = []
        for shape in sorted({task.shape for task in tasks}):
            same = [task for task in tasks if task.shape == shape]
            same.sort(key=lambda task: len(task.prompt))
            found += [[same[n] for n in group] for group in in_order(len(same), self._size)]
        return found

    def write(self, tasks: Sequence[Task]) -> list[tuple[int, str]]:
        """Return (place, text) of every task."""
        found = []
        for group in self.batches(tasks):
            full = [*group, *[group[-1]] * (self._size - len(group))]
            frames = [task.pixels for task in full if task.pixels is not None]
            seen = self._see(self._params, np.stack(frames)) if frames else None
            tokens = self._generate(self._params, [task.prompt for task in full], seen=seen)
            for task, ids in zip(group, tokens):
                said = self.words.tokenizer.decode(ids, skip_special_tokens=True)
                found.append((task.place, clean(task.begun + said)))
        return found

    @cached_property
    def _alone(self) -> bool:
        # Of several processes one writes, and does not ask the others' devices.
        return jax.process_count() > 1 or jax.local_device_count() == 1

    @cached_property
    def _size(self) -> int:
        return self.batch if self._alone else spread_size(self.batch)

    @cached_property
    def _params(self) -> Any:
        return jax.device_put(self.model.params) if self._alone else on_every_device(
            self.model.params
        )  # fmt: skip

    @cached_property
    def _generate(self) -> Generator:
        mesh = None if self._alone else make_mesh()
        stop = self.words.ends
        return make_generator(self.model.model, max_new=self.max_new, stop=stop, mesh=mesh)

    @cached_property
    def _see(self) -> Any:
        return compiled(self.model.model, "see")


def clean(text: str) -> str:
    """Return what a model wrote as one line of whole sentences, none of them twice.

    A last sentence that broke off is dropped, unless it is the only one.

    Example:
      >>> clean("- A fine film.\\n- A fine film. It is\\x07 long. And it")
      'A fine film. It is long.'
    """
    lines = [one_line(line).lstrip("-*•# ") for line in text.replace("\ufffd", "").splitlines()]
    found = [each for line in lines for each in sentences(line)]
    once = list({each.casefold(): each for each in found}.values())
    if len(once) > 1 and not once[-1].endswith(_FULL_STOP):
        once.pop()
    return " ".join(once)
