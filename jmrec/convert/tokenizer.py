"""The tokenizer of a pretrained model: of a folder, or rebuilt from a GGUF file's metadata."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from jmrec.convert.gguf_file import Gguf
from jmrec.convert.hf import folder_of
from jmrec.convert.sources import Source, first_line
from jmrec.errors import UserError, no_panic
from jmrec.files import member

MAX_BYTES = 200_000_000
"""Of a tokenizer's file; those of the largest vocabularies have 40 million."""
TRIAL_SECONDS = 7
"""Of a processor's time; the largest vocabularies take one."""
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
    if kind != "gpt2" or not isinstance(split, str) or split not in SPLITS:
        raise UserError(
            f"the GGUF file has a tokenizer of kind {kind!r:.80} ({split!r:.80}), and only gpt2 "
            f"with one of {', '.join(SPLITS)} is read; give a folder with tokenizer.json instead."
        )
    tokens = _all(metadata.get("tokenizer.ggml.tokens"), str)
    merges = _all(metadata.get("tokenizer.ggml.merges"), str)
    types = _all(metadata.get("tokenizer.ggml.token_type"), int)
    if not tokens or merges is None or types is None or len(types) != len(tokens):
        raise UserError("the GGUF file's tokenizer lacks its tokens or merges; fetch it again.")
    vocab = {token: i for i, token in enumerate(tokens)}
    pairs = [tuple(merge.split(" ", 1)) for merge in merges]
    try:
        with no_panic("the GGUF file's tokenizer breaks down; fetch it again."):
            tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=pairs))
    except UserError:
        raise
    except Exception as error:  # the library raises a class of its own
        why = first_line(error)
        raise UserError(f"the GGUF file's tokenizer is broken ({why}); fetch it again.") from None
    tokenizer.pre_tokenizer = SPLITS[split]()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(t, normalized=False) for t, k in zip(tokens, types) if k == CONTROL]
    )
    tokenizer.add_tokens(
        [AddedToken(t, normalized=False) for t, k in zip(tokens, types) if k == USER_DEFINED]
    )
    return tokenizer


def _all(values: Any, kind: type) -> list[Any] | None:
    """Return a list whose values are all of one kind, None where it is anything else."""
    return values if isinstance(values, list) and {*map(type, values)} <= {kind} else None


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
    file = member(folder, "tokenizer.json", MAX_BYTES)
    if file is None:
        raise UserError(
            f"{folder / 'tokenizer.json'} is missing; save the folder again with a fast tokenizer "
            "(tokenizer.json)."
        )
    if fault := _fault(file):
        raise UserError(f"{file} is no tokenizer ({fault}); fetch the folder again.")
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


_TRIAL = """
import resource, string, sys
seconds = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
from tokenizers import Tokenizer
try:
    tokenizer = Tokenizer.from_file(sys.argv[1])
    for letter in string.printable:
        tokenizer.encode(64 * letter + "!")
except BaseException as error:
    sys.stdout.buffer.write((str(error).splitlines() or ["it fails"])[0][:160].encode())
    sys.exit(1)
"""


def _fault(file: Path) -> str:
    """Return what is wrong with a tokenizer in a few words, "" where it works.

    Its regular expressions are programs: they may panic, or go on for hours. So it is loaded and
    tried once in a process of its own, whose seconds are counted.
    """
    command = [sys.executable, "-P", "-c", _TRIAL, str(file.absolute()), str(TRIAL_SECONDS)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=20 * TRIAL_SECONDS)
    except subprocess.TimeoutExpired:
        return "it takes too long"
    if done.returncode < 0:
        return f"it takes more than {TRIAL_SECONDS} seconds, or breaks down"
    return done.stdout.decode(errors="replace") or "it breaks down" if done.returncode else ""
