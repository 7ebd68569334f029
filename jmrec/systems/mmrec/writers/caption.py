"""The writer "caption": a vision-language model says what the picture shows."""

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from jmrec.convert.hf import folder_of
from jmrec.convert.pictures import IMAGE, Frames, picture_processor, picture_prompt
from jmrec.data.pictures import FORMATS, picture_problem, shrink
from jmrec.errors import SettingError, UserError
from jmrec.systems.mmrec.writers.prompt import check_template, fill, values_of
from jmrec.systems.mmrec.writers.speaker import HF, Speaker, Task
from jmrec.systems.mmrec.writers.writer import Source, at_least, in_order
from jmrec.systems.pretrained import find_pretrained


@dataclass(frozen=True)
class Caption:
    """The writer, and its settings.

    Attributes:
      source: The folder of an Idefics3 or SmolVLM, "hf:FOLDER".
      prompt: What it is asked about the picture; may have "{title}" and "{facts}".
      answer: With which words its answer begins, and so the text.
      fact_tokens: The most tokens of the facts, and of the title.
      max_new: The most tokens that are written.
      side: Pictures are made no larger than this before the model's own processor cuts them into
        frames; fewer frames are faster. 0 leaves them.
      batch: Pictures at once.
      dtype: "float32" or "bfloat16".
    """

    source: str = ""
    prompt: str = "Describe this picture in one sentence."
    answer: str = ""
    fact_tokens: int = 64
    max_new: int = 60
    side: int = 512
    batch: int = 4
    dtype: str = "float32"

    def __post_init__(self) -> None:
        check_template(self.prompt)
        if "{reviews}" in self.prompt:
            raise SettingError(
                "describe.caption.prompt has {reviews}, which are no part of a picture; drop it."
            )
        for name, least in (("fact_tokens", 1), ("max_new", 1), ("batch", 1), ("side", 0)):
            at_least(f"describe.caption.{name}", getattr(self, name), least)

    @cached_property
    def _speaker(self) -> Speaker:
        if not self.source:
            raise UserError(
                "the writer caption needs the folder of a SmolVLM or Idefics3; name it: "
                "--config.describe.caption.source=hf:FOLDER."
            )
        where = self.source.removeprefix(HF)
        found = find_pretrained(where, "writer about pictures", ("idefics3",), dtype=self.dtype)
        return Speaker(found, self.max_new, self.batch)

    @cached_property
    def _process(self) -> Any:
        source = self._speaker.model.source
        return picture_processor(source if isinstance(source, Path) else folder_of(source))

    @property
    def provenance(self) -> dict[str, str]:
        """Name, settings with the prompt, and weights."""
        settings = {name: value for name, value in asdict(self).items() if name != "batch"}
        return {
            "writer": "caption",
            "settings": json.dumps(settings, sort_keys=True),
            "weights": json.dumps(self._speaker.model.provenance, sort_keys=True),
        }

    def batches(self, sources: Sequence[Source]) -> list[list[int]]:
        """Return batches in the order of the sources: pictures are decoded when they are read."""
        return in_order(len(sources), self.batch)

    def write(self, sources: Sequence[Source]) -> list[str]:
        """Return what each picture shows; "" where there is none or it does not decode."""
        texts = [""] * len(sources)
        tasks = [
            self._task(place, source)
            for place, source in enumerate(sources)
            if source.picture and not picture_problem(source.picture)
        ]
        for place, text in self._speaker.write(tasks):
            texts[place] = text
        return texts

    def _task(self, place: int, source: Source) -> Task:
        speaker = self._speaker
        words, config = speaker.words, speaker.model.model.config
        data = shrink(source.picture, self.side) if self.side else source.picture
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            frames: Frames = self._process([[image.convert("RGB")]])
        asked = fill(self.prompt, values_of(words, source, self.fact_tokens, 1))
        parts = [{"type": "image"}, {"type": "text", "text": asked}]
        framed = words.chat("", parts, self.answer)
        shown = picture_prompt(frames.grids[0][0], config.tokens)
        tokens = words.tokens(framed.replace(IMAGE, shown, 1))
        pixels = frames.pixels[0]
        count, wanted = tokens.count(config.decoder.image_token), len(pixels) * config.tokens
        if count != wanted:
            raise UserError(
                f"{self.source}: its tokenizer makes {count} image tokens of a picture that has "
                f"{wanted}; fetch the folder again, with its tokenizer and chat template."
            )
        if len(tokens) > speaker.room:
            raise UserError(
                f"the picture of {source.key!r} and the prompt have {len(tokens):,} tokens and "
                f"there is room for {speaker.room:,}; lower describe.caption.side."
            )
        return Task(place, tokens, self.answer, pixels)
