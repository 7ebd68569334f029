"""The tokenizer of a pretrained model: of a folder, or rebuilt from a GGUF file's metadata."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from jmrec.convert.gguf_file import Gguf
from jmrec.convert.hf import folder_of
from jmrec.convert.sources import Source
from jmrec.errors import UserError

CONTROL, USER_DEFINED = 3, 4
"""Types of tokens that are found before the text is split."""


def _byte_level() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=False)


SPLITS = {
    "gpt-2": _byte_level,
    # Every digit is a token of its own.
    "smollm": lambda: pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), _byte_level()]
    ),
}
"""How a text is split before the merges, by "tokenizer.ggml.pre"."""


def gguf_tokenizer(metadata: Mapping[str, Any]) -> Tokenizer:
    """Return the tokenizer.

    Args:
      metadata: Of the file; "tokenizer.ggml.*" is read.

    Raises:
      UserError: The file has no tokenizer, or one of a kind that is not known.

    Example:
      >>> tokenizer = gguf_tokenizer({
      ...     "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "smollm",
      ...     "tokenizer.ggml.tokens": ["<|end|>", "a", "b", "1", "2", "ab"],
      ...     "tokenizer.ggml.token_type": [3, 1, 1, 1, 1, 1], "tokenizer.ggml.merges": ["a b"]})
      >>> tokenizer.encode("ab12<|end|>").ids, tokenizer.decode([5, 3])
      ([5, 3, 4, 0], 'ab1')
    """
    kind, split = (metadata.get(f"tokenizer.ggml.{name}") for name in ("model", "pre"))
    if kind != "gpt2" or split not in SPLITS:
        raise UserError(
            f"the GGUF file has a tokenizer of kind {kind!r} ({split!r}), and only gpt2 with one "
            f"of {', '.join(SPLITS)} is read; give a folder with tokenizer.json instead."
        )
    tokens, merges, types = (
        metadata.get(f"tokenizer.ggml.{name}") for name in ("tokens", "merges", "token_type")
    )
    if not tokens or merges is None or types is None or len(types) != len(tokens):
        raise UserError("the GGUF file's tokenizer lacks its tokens or merges; fetch it again.")
    vocab = {token: i for i, token in enumerate(tokens)}
    pairs = [tuple(merge.split(" ", 1)) for merge in merges]
    try:
        tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=pairs))
    except Exception as error:  # the library raises a class of its own
        raise UserError(f"the GGUF file's tokenizer is broken ({error}); fetch it again.") from None
    tokenizer.pre_tokenizer = SPLITS[split]()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(t, normalized=False) for t, k in zip(tokens, types) if k == CONTROL]
    )
    tokenizer.add_tokens(
        [AddedToken(t, normalized=False) for t, k in zip(tokens, types) if k == USER_DEFINED]
    )
    return tokenizer


def load_tokenizer(source: Source | Path) -> Tokenizer:
    """Return the tokenizer that goes with weights.

    It neither pads nor cuts, whatever its file says: whoever makes batches does that.

    Args:
      source: A GGUF file, or a folder (or a file in one) with ``tokenizer.json``; or the path of
        such a folder.

    Raises:
      UserError: There is none, or it is broken.
    """
    if isinstance(source, Gguf):
        return gguf_tokenizer(source.metadata)
    folder = source if isinstance(source, Path) else folder_of(source)
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise UserError(
            f"{file} is missing; save the folder again with a fast tokenizer (tokenizer.json)."
        )
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises a class of its own
        raise UserError(f"{file} is no tokenizer ({error}); fetch the folder again.") from None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer
