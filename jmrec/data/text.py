"""Text: a byte-level BPE tokenizer trained on the training items, and fields as token arrays."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from jmrec.data.schema import Items
from jmrec.errors import UserError, no_panic, refusal

MAX_FIELDS = 16
PAD, BOS, EOS, SEP, UNK, IMAGE = range(6)
SPECIALS = (
    "[PAD]",
    "[BOS]",
    "[EOS]",
    "[SEP]",
    "[UNK]",
    "[IMAGE]",
    *(f"[FIELD {i}]" for i in range(MAX_FIELDS)),
)
"""Special tokens; a token's id is its place here."""
FIELD = SPECIALS.index("[FIELD 0]")
"""Field i begins with token ``FIELD + i``."""
MIN_VOCABULARY = len(SPECIALS) + 256

_TOKENIZER, _PROVENANCE = "tokenizer.json", "tokenizer_provenance.json"


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Train a byte-level BPE tokenizer on the texts given and on nothing else.

    Every byte has a token, so no text is out of vocabulary. The same texts give the same
    tokenizer.

    Args:
      texts: What to learn from; ``item_texts`` of the training items.
      vocab_size: The most tokens, special ones (`SPECIALS`) included.

    Returns:
      The tokenizer.

    Raises:
      UserError: if the vocabulary can not hold the special tokens and the 256 bytes.

    References:
      Sennrich, Haddow, Birch, "Neural Machine Translation of Rare Words with Subword Units",
      https://arxiv.org/abs/1508.07909

    Example:
      >>> tokenizer = train_tokenizer(["red shoe", "red hat"] * 9, 300)
      >>> tokenizer.token_to_id("[PAD]"), tokenizer.decode(tokenizer.encode("red hat").ids)
      (0, ' red hat')
    """
    if vocab_size < MIN_VOCABULARY:
        raise UserError(
            f"A vocabulary of {vocab_size} is too small; give at least {MIN_VOCABULARY} "
            "(every byte and the special tokens)."
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=list(SPECIALS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def item_texts(items: Items, rows: Sequence[int] | np.ndarray, fields: Iterable[str]) -> list[str]:
    """Return the texts of some items, those that are not missing.

    Args:
      items: The catalogue.
      rows: Rows of the items, for example those that occur in training.
      fields: Names of the text fields.

    Returns:
      At most ``len(rows) * len(fields)`` strings.

    Raises:
      UserError: if the data has no such field.
    """
    columns = [_field(items, name) for name in fields]
    return [column[row] for row in rows for column in columns if column[row]]


def encode_fields(
    tokenizer: Tokenizer, items: Items, lengths: Mapping[str, int], named: bool = False
) -> np.ndarray:
    """Encode text fields as token ids.

    Field i is ``[FIELD i] tokens [EOS]``, its text cut so that the whole is at most its length;
    a missing field is all padding. Nothing that a text says is read as a special token.

    Args:
      tokenizer: From `train_tokenizer`; or a pretrained one, where ``named``.
      items: The catalogue, V items.
      lengths: Field name -> length, in the order of the fields; F of them.
      named: A field is the tokens of "name: text", as a pretrained model has seen such things
        written. Token 0 pads; where it is a word (a "!" in some vocabularies), it is left out.

    Returns:
      int32 [V, F, T], T the largest length; 0 is padding.

    Raises:
      UserError: if the data has no such field, a length is below 3, or there are too many.

    Example:
      >>> tokenizer = train_tokenizer(["red shoe"], 300)
      >>> items = Items(["a", "b"], ["re", ""], {"title": ["re", ""]}, [b"", b""])
      >>> encode_fields(tokenizer, items, {"title": 5})[:, 0, [0, -1]].tolist()
      [[6, 2], [0, 0]]
      >>> ids = encode_fields(tokenizer, items, {"title": 12}, named=True)[0, 0]
      >>> decode_tokens(tokenizer, ids)
      'title: re'
    """
    if not 0 < len(lengths) <= MAX_FIELDS or min(lengths.values()) < 3:
        raise UserError(
            f"The text fields {dict(lengths)} can not be encoded; "
            f"name 1 to {MAX_FIELDS} fields with lengths of at least 3."
        )
    out = np.zeros((len(items), len(lengths), max(lengths.values())), np.int32)
    before = tokenizer.encode_special_tokens
    tokenizer.encode_special_tokens = True  # "[PAD]" in a description is five characters
    try:
        for i, (name, length) in enumerate(lengths.items()):
            texts = _field(items, name)
            if named:
                texts = [text and f"{name}: {text}" for text in texts]
            remedy = "choose another backbone, or mend the texts"
            with no_panic(f"the tokenizer breaks down on the field {name!r}; {remedy}."):
                found = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
            for row, ids in enumerate([each.ids for each in found]):
                if named:
                    ids = [token for token in ids if token != PAD][:length]
                elif texts[row]:
                    ids = [FIELD + i, *ids[: length - 2], EOS]
                out[row, i, : len(ids)] = ids
    finally:
        tokenizer.encode_special_tokens = before
    return out


def decode_tokens(tokenizer: Tokenizer, ids: Iterable[int]) -> str:
    """Return the text of token ids, special tokens left out.

    Example:
      >>> decode_tokens(train_tokenizer(["red shoe"], 300), [FIELD, *b"", EOS, PAD])
      ''
    """
    return str(tokenizer.decode([int(i) for i in ids], skip_special_tokens=True)).strip()


def save_tokenizer(folder: Path, tokenizer: Tokenizer, provenance: Mapping[str, Any]) -> None:
    """Write ``tokenizer.json`` and beside it what it was trained on.

    Args:
      folder: An existing folder.
      tokenizer: The tokenizer.
      provenance: JSON values: the fields, how many items, the data's fingerprint, ...
    """
    body = tokenizer.to_str(pretty=True)
    facts = {**provenance, "sha256": hashlib.sha256(body.encode()).hexdigest()}
    text = json.dumps(facts, indent=1, ensure_ascii=False, sort_keys=True)
    for name, content in ((_TOKENIZER, body), (_PROVENANCE, text + "\n")):
        side = folder / f"{name}.tmp"
        side.write_text(content, encoding="utf-8")
        side.replace(folder / name)


def load_tokenizer(folder: Path, own: bool = True) -> tuple[Tokenizer, dict[str, Any]]:
    """Read a tokenizer and its provenance back.

    Args:
      folder: Where `save_tokenizer` wrote them.
      own: It is from `train_tokenizer`, and has its special tokens.

    Raises:
      UserError: if the folder holds none, one that is damaged or may not be read, or one with
        other special tokens.
    """
    try:
        body = (folder / _TOKENIZER).read_text(encoding="utf-8")
        with no_panic("it breaks down."):
            tokenizer = Tokenizer.from_str(body)
        provenance = json.loads((folder / _PROVENANCE).read_text(encoding="utf-8"))
        # None was written by an older jmrec.
        whole = provenance.pop("sha256", None) in (None, hashlib.sha256(body.encode()).hexdigest())
    except Exception as error:  # the tokenizers library raises bare Exception on a damaged file
        if reason := refusal(error):
            raise UserError(f"the tokenizer can not be read ({reason}); mend that.") from None
        whole = False
    if not whole or (own and not all(_is_special(tokenizer))):
        raise UserError(
            f"{folder} holds no whole tokenizer of jmrec; make it again (in a run, delete "
            "data/stage.json of the workdir and start jmrec run again)."
        )
    return tokenizer, provenance


def _is_special(tokenizer: Tokenizer) -> Iterator[bool]:
    for i, token in enumerate(SPECIALS):
        yield tokenizer.token_to_id(token) == i


def _field(items: Items, name: str) -> list[str]:
    if name not in items.text:
        raise UserError(
            f"The data has no text field {name!r}; choose from {', '.join(items.text)}."
        )
    return items.text[name]
