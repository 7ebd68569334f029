"""Prompts: a template filled with a source, cut to a budget of tokens, in a chat's form."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from jmrec.convert.families import Pretrained
from jmrec.convert.gguf_file import Gguf
from jmrec.convert.hf import MAX_JSON, folder_of
from jmrec.convert.sources import first_line
from jmrec.convert.tokenizer import load_tokenizer
from jmrec.errors import SettingError, UserError, no_panic
from jmrec.files import member
from jmrec.systems.mmrec.writers.writer import Source, one_line

FIELDS = ("title", "facts", "reviews")
ENDS = (
    "<|im_end|>",
    "<|endoftext|>",
    "<end_of_utterance>",
    "<|eot_id|>",
    "<|end_of_text|>",
    "</s>",
)
"""Tokens that end an answer in the families that are read; those that a tokenizer has count."""
_FIELD = re.compile(r"\{(\w*)\}")
LONGEST_TOKEN = 16
"""Characters of a text that are looked at for each token of its budget."""


def check_template(template: str) -> None:
    """Refuse a template with a field that no source has.

    Raises:
      SettingError: It has one.

    Example:
      >>> check_template("Reviews of {titel}: {reviews}")
      Traceback (most recent call last):
        ...
      jmrec.errors.SettingError: the prompt has the field {titel}; it may have {title}, {facts} and
      {reviews}.
    """
    for name in _FIELD.findall(template):
        if name not in FIELDS:
            raise SettingError(
                f"the prompt has the field {{{name}}}; it may have {{title}}, {{facts}} and "
                "{reviews}."
            )


def fill(template: str, values: Mapping[str, str]) -> str:
    """Put values in the places of a template's fields; braces in the values are only braces.

    Example:
      >>> fill("{title}: {reviews}", {"title": "{reviews}", "facts": "", "reviews": "a {b}"})
      '{reviews}: a {b}'
    """
    return _FIELD.sub(lambda match: values[match[1]], template)


@dataclass(frozen=True)
class Words:
    """The tokenizer of a model that writes, with its form of a chat.

    Attributes:
      tokenizer: The tokenizer.
      chat_template: Jinja's text, "" where the model has none.
      ends: The tokens that end an answer.
    """

    tokenizer: Tokenizer
    chat_template: str
    ends: tuple[int, ...]

    @classmethod
    def of(cls, model: Pretrained) -> "Words":
        """Read what stands beside a model's weights.

        Raises:
          UserError: There is no tokenizer, or a file is broken.
        """
        tokenizer = load_tokenizer(model.source)
        known = {each for end in ENDS if (each := tokenizer.token_to_id(end)) is not None}
        if isinstance(model.source, Gguf):
            metadata: Mapping[str, Any] = model.source.metadata
            template = metadata.get("tokenizer.chat_template", "")
            ends = metadata.get("tokenizer.ggml.eos_token_id")
        else:
            here = model.source if isinstance(model.source, Path) else folder_of(model.source)
            template, ends = _chat_template(here), _json(here, "generation_config.json")
            ends = ends.get("eos_token_id")
        known |= {end for end in (ends if isinstance(ends, list) else [ends]) if type(end) is int}
        return cls(tokenizer, template if isinstance(template, str) else "", tuple(sorted(known)))

    @cached_property
    def _specials(self) -> re.Pattern[str]:
        added = self.tokenizer.get_added_tokens_decoder().values()
        names = sorted((each.content for each in added), key=len, reverse=True)
        return re.compile("|".join(map(re.escape, names)) or r"(?!)")

    def plain(self, text: str) -> str:
        """Return a text of data on one line, without the words that steer a model.

        Example:
          >>> from tokenizers import models
          >>> tokenizer = Tokenizer(models.BPE())
          >>> _ = tokenizer.add_special_tokens(["<|end|>"])
          >>> Words(tokenizer, "", ()).plain("good<|end|>\\nbad")
          'good bad'
        """
        return one_line(self._specials.sub(" ", text))

    def tokens(self, text: str) -> list[int]:
        """Return a text's tokens; none is added before or behind it."""
        return list(self._encode(text).ids)

    def _encode(self, text: str) -> Any:
        with no_panic("the writer's tokenizer breaks down on the texts; choose another writer."):
            return self.tokenizer.encode(text, add_special_tokens=False)

    def cut(self, text: str, budget: int) -> str:
        """Return a text of data, or its first ``budget`` tokens."""
        short = self.plain(text[: LONGEST_TOKEN * budget])
        offsets = self._encode(short).offsets
        return short if len(offsets) <= budget else short[: offsets[budget - 1][1]].rstrip()

    def newest(self, reviews: Sequence[str], budget: int) -> list[str]:
        """Return the newest reviews that fit into a budget of tokens, oldest of them first.

        Args:
          reviews: Oldest first; empty ones are left out.
          budget: In tokens, each with its dash and line. The newest review is cut to fit if need
            be; no other is.
        """
        kept: list[str] = []
        for review in reversed(reviews):
            # A little more than fits, so that what is too long shows as too long.
            short = self.plain(review[: LONGEST_TOKEN * (budget + 1)])
            if not short:
                continue
            size = len(self.tokens(_bullet(short)))
            if size > budget and not kept:
                over = len(self.tokens(_bullet("")))
                return [self.cut(review, max(budget - over, 1))]
            if size > budget:
                break
            budget -= size
            kept.append(short)
        return kept[::-1]

    def chat(self, system: str, content: Any, answer: str) -> str:
        """Return a prompt in the model's own form of a chat; without one, its texts one by one.

        Args:
          system: What the model is told that it is; "" leaves it to the template.
          content: The user's words, or parts such as {"type": "text", "text": "..."}.
          answer: With which words the answer begins.

        Raises:
          UserError: The model's template does not go with this.
        """
        if not self.chat_template:
            words = content if isinstance(content, str) else "".join(map(_shown, content))
            return "\n\n".join(filter(None, [system, words])) + "\n\n" + answer
        messages = [{"role": "user", "content": content}]
        if system:
            told = system if isinstance(content, str) else [{"type": "text", "text": system}]
            messages.insert(0, {"role": "system", "content": told})
        try:
            return self._form.render(messages=messages, add_generation_prompt=True) + answer
        except (TemplateError, TypeError, ValueError) as error:
            why = first_line(error)
            raise UserError(
                f"the writer's chat template refuses the prompt ({why}); set chat=false, or choose "
                "another writer."
            ) from None

    @cached_property
    def _form(self) -> Any:
        # As transformers does: a template comes with foreign weights, and may only read.
        form = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        form.filters["tojson"] = json.dumps
        form.globals.update({"raise_exception": _refuse, "bos_token": "", "eos_token": ""})
        return form.from_string(self.chat_template)


def bullets(reviews: Sequence[str]) -> str:
    """Return reviews as lines with dashes."""
    return "\n".join(f"- {review}" for review in reviews)


def values_of(words: Words, source: Source, facts: int, reviews: int) -> dict[str, str]:
    """Return what the fields of a template stand for.

    Args:
      words: Of the model that reads it.
      source: What is described.
      facts: The most tokens of its facts, and of its title.
      reviews: The most tokens of its reviews.
    """
    return {
        "title": words.cut(source.title, facts),
        "facts": words.cut(source.facts, facts),
        "reviews": bullets(words.newest(source.reviews, reviews)),
    }


def _bullet(review: str) -> str:
    return f"- {review}\n"


def _shown(part: Mapping[str, str]) -> str:
    return part["text"] if part["type"] == "text" else "<image>"


def _refuse(message: str) -> None:
    raise TemplateError(message)


def _json(folder: Path, name: str) -> dict[str, Any]:
    file = member(folder, name, MAX_JSON)
    if file is None:
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} can not be read ({error}); fetch the folder again.") from None
    return found if isinstance(found, dict) else {}


def _chat_template(folder: Path) -> str:
    """Return the template beside a Hugging Face model, from wherever it is kept."""
    file = member(folder, "chat_template.jinja", MAX_JSON)
    if file is not None:
        return file.read_text(encoding="utf-8")
    for name in ("chat_template.json", "processor_config.json", "tokenizer_config.json"):
        found = _json(folder, name).get("chat_template")
        if isinstance(found, str):
            return found
    return ""
