"""What the towers read of a catalogue: text tokens and pixels, made the same way for every stage.

The tokenizer and the lengths of the fields come from the training items only and are kept with
the run, so that an item added later is read as the training items were.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from jmrec.data.pictures import decode_pictures
from jmrec.data.schema import Items
from jmrec.data.text import (
    SPECIALS,
    encode_fields,
    item_texts,
    load_tokenizer,
    save_tokenizer,
    train_tokenizer,
)
from jmrec.errors import UserError
from jmrec.files import read_json, write_json

VIEWS = ("both", "text", "picture", "pictures permuted", "texts permuted")
"""How the Knowledge tower may be shown the catalogue; the last two are controls."""

FACTS = "facts"
"""The text field that says an item's declared numbers and categories."""


@dataclass(frozen=True)
class ItemArrays:
    """How the text and picture of items become arrays.

    Attributes:
      folder: The tokenizer's.
      lengths: Text field -> its number of tokens.
      picture_size: Of a side, in pixels.
      vocab: Tokens of the tokenizer.
      facts: Whether declared numbers and categories are read.
      pretrained: Whether the tokenizer is a pretrained model's, which names the fields in words.
    """

    folder: Path
    lengths: dict[str, int]
    picture_size: int
    vocab: int
    facts: bool = True
    pretrained: bool = False

    @classmethod
    def fit(
        cls,
        folder: Path,
        items: Items,
        rows: np.ndarray,
        settings: Mapping[str, Any],
        pretrained: Tokenizer | None = None,
    ) -> "ItemArrays":
        """Train the tokenizer on the items at ``rows`` and choose the fields' lengths.

        A field is as long as 95 % of the training items need, at most ``max_tokens``. A
        ``pretrained`` tokenizer is taken as it is.
        """
        known = with_facts(items) if settings["facts"] else items
        texts, given = known.text, pretrained is not None
        tokenizer = pretrained or train_tokenizer(item_texts(known, rows, texts), settings["vocab"])
        longest = {name: int(settings["max_tokens"]) for name in texts}
        tokens = encode_fields(tokenizer, known, longest, given)[rows]
        need = np.ceil(np.quantile((tokens > 0).sum(-1), 0.95, axis=0)).astype(int)
        # Three tokens hold a marker, one word and the end.
        lengths = {name: max(int(n), 3) for name, n in zip(texts, need)}
        save_tokenizer(folder, tokenizer, {"fields": list(texts), "items": len(rows)})
        facts = {
            "lengths": list(lengths.items()),
            "picture_size": settings["picture_size"],
            "vocab": tokenizer.get_vocab_size(),
            "facts": bool(settings["facts"]),
            "pretrained": given,
        }
        write_json(folder / "reader.json", facts)
        return cls.load(folder)

    @classmethod
    def load(cls, folder: Path) -> "ItemArrays":
        """Load what `fit` kept."""
        facts = read_json(folder / "reader.json")
        return cls(
            folder,
            {name: int(n) for name, n in facts["lengths"]},
            int(facts["picture_size"]),
            int(facts["vocab"]),
            bool(facts["facts"]),
            bool(facts.get("pretrained", False)),
        )

    def read(self, items: Items) -> dict[str, np.ndarray]:
        """Return text int32 [V, T], picture uint8 [V, S, S, 3] and picture_ok bool [V]."""
        tokenizer, _ = load_tokenizer(self.folder, not self.pretrained)
        known = with_facts(items) if self.facts else items
        tokens = encode_fields(tokenizer, known, self.lengths, self.pretrained)
        fields = [tokens[:, f, :n] for f, n in enumerate(self.lengths.values())]
        picture, ok = decode_pictures(items, self.picture_size)
        return {"text": np.concatenate(fields, 1), "picture": picture, "picture_ok": ok}

    def words(self, text: np.ndarray) -> np.ndarray:
        """Return the words among tokens [V, T], 0 elsewhere.

        Special tokens are no words, and what is declared as a number or a category is left out:
        the digits of a price only make noise where words are learned from pictures.
        """
        fields = [np.full(n, name != FACTS) for name, n in self.lengths.items()]
        return np.where(np.concatenate(fields) & (text >= len(SPECIALS)), text, 0)


def with_facts(items: Items) -> Items:
    """Return the items with their declared categories and numbers as one more text field.

    Example:
      >>> items = Items(["a"], ["Mug"], {"title": ["Mug"]}, [b""],
      ...               number={"year": np.array([1995.0], np.float32)})
      >>> with_facts(items).text
      {'title': ['Mug'], 'facts': ['year 1995']}
    """
    if FACTS in items.text:
        raise UserError(
            f"the text column {FACTS!r} has a name that jmrec uses itself (for declared numbers "
            "and categories); rename it in items.csv and dataset.toml."
        )
    if not items.category and not items.number:
        return items
    facts = []
    for row in range(len(items)):
        known = [
            f"{name} {items.category_names[name][codes[row]]}"
            for name, codes in items.category.items()
            if codes[row]
        ]
        known += [
            f"{name} {column[row]:.6g}"
            for name, column in items.number.items()
            if np.isfinite(column[row])
        ]
        facts.append(", ".join(known))
    return replace(items, text={**items.text, FACTS: facts})


def view(arrays: Mapping[str, np.ndarray], name: str, seed: int) -> dict[str, np.ndarray]:
    """Return the arrays as one of `VIEWS` shows them.

    Args:
      arrays: From `ItemArrays.read`.
      name: The view.
      seed: Of the permutation in the controls.

    Returns:
      The same arrays with pictures or texts hidden, or permuted across items.
    """
    order = np.random.default_rng(seed).permutation(len(arrays["text"]))
    shown = dict(arrays)
    if name == "text":
        shown["picture_ok"] = np.zeros_like(arrays["picture_ok"])
    elif name == "picture":
        shown["text"] = np.zeros_like(arrays["text"])
    elif name == "pictures permuted":
        shown |= {key: arrays[key][order] for key in ("picture", "picture_ok")}
    elif name == "texts permuted":
        shown["text"] = arrays["text"][order]
    return shown
