"""Converted models on disk: what ``jmrec convert`` writes and what a run reads instead of a source.

A folder holds ``params`` (an ordinary checkpoint, whose metadata say the family, the config and the
provenance) and the files of the source's tokenizer and picture processor, where it has any.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Collection
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import jax

from jmrec.checkpoint import load_params, save_params
from jmrec.config import config_from, resolve_path
from jmrec.convert.families import (
    FAMILIES,
    Pretrained,
    first_layers,
    load_pretrained,
)
from jmrec.convert.gguf_file import Gguf
from jmrec.convert.hf import folder_of
from jmrec.convert.provenance import WHEEL
from jmrec.convert.sources import Safetensors, Source
from jmrec.convert.tokenizer import MAX_BYTES as MAX_BESIDE
from jmrec.convert.tokenizer import load_tokenizer
from jmrec.errors import UserError
from jmrec.files import MANIFEST, manifest_fault, member, replace_folder, write_manifest
from jmrec.models.linen import check_fit

BESIDE = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"),
    *("vocab.json", "merges.txt", "chat_template.jinja", "generation_config.json"),
    *("preprocessor_config.json", "processor_config.json", "sentence_bert_config.json"),
)
"""The files of a Hugging Face folder that go with its weights."""


def convert_to(
    where: str | os.PathLike[str], out: Path, family: str | None = None, dtype: str | None = None
) -> dict[str, Any]:
    """Convert pretrained weights into a folder, which appears whole or not at all.

    Args:
      where: As for `jmrec.convert.families.load_pretrained`.
      out: The folder to write. An older one that this function wrote is replaced.
      family: A key of ``FAMILIES``; None detects it.
      dtype: "float32" or "bfloat16"; None keeps the model's own float32.

    Returns:
      json-able: "family", "config", "provenance", "parameters" (how many numbers) and "files".

    Raises:
      UserError: The source cannot be read or does not fit, or ``out`` holds something else.
    """
    check_out(out)
    return write_converted(load_pretrained(where, family, dtype=dtype), out)


def write_converted(found: Pretrained, out: Path) -> dict[str, Any]:
    """Write a model with its weights into a folder; see `convert_to`."""
    check_out(out)
    about = {
        "family": found.family,
        "config": json.loads(json.dumps(asdict(found.model.config))),
        "provenance": found.provenance,
    }
    side = out.with_name(f"{out.name}.tmp")
    shutil.rmtree(side, ignore_errors=True)
    try:
        side.mkdir(parents=True)
        copied = _copy_beside(found.source, side)
        save_params(side / "params", found.params, about)
        write_manifest(side)
        replace_folder(side, out)
    except BaseException:
        shutil.rmtree(side, ignore_errors=True)
        raise
    return {**about, "parameters": parameter_count(found.params), "files": ["params", *copied]}


def check_out(out: Path) -> None:
    """Raise UserError where a folder may not be written: it is no converted model."""
    if out.exists() and not _is_replaceable(out):
        raise UserError(f"{out} is there and is no converted model; name another --out.")


def _is_replaceable(out: Path) -> bool:
    """Tell whether a path is an empty folder, or one that `convert_to` wrote."""
    if not out.is_dir():
        return False
    names = {path.name for path in out.iterdir()}
    return not names or {"params", MANIFEST} <= names <= {"params", MANIFEST, *BESIDE}


def _copy_beside(source: Source | Path, side: Path) -> list[str]:
    """Copy the tokenizer and the picture processor of a folder; write the one of a GGUF file."""
    if isinstance(source, Gguf) and "tokenizer.ggml.model" in source.metadata:
        load_tokenizer(source).save(str(side / "tokenizer.json"))
        return ["tokenizer.json"]
    if not isinstance(source, Path | Safetensors):
        return []
    folder = source if isinstance(source, Path) else folder_of(source)
    found = {name: path for name in BESIDE if (path := member(folder, name, MAX_BESIDE))}
    for name, path in found.items():
        shutil.copyfile(path, side / name)
    return list(found)


def read_converted(folder: str | os.PathLike[str], placement: Any = None) -> Pretrained:
    """Read what ``convert_to`` wrote.

    Args:
      folder: The folder.
      placement: A tree of ``NamedSharding`` like the parameters; None gives numpy arrays.

    Returns:
      The model with its weights.

    Raises:
      UserError: It is no such folder, is damaged, or a newer jmrec's.
    """
    path = Path(folder)
    if not (path / "params").is_dir():
        raise UserError(
            f"{path} is no converted model; make one: jmrec convert SOURCE --out {path}."
        )
    if fault := manifest_fault(path):
        raise UserError(f"{path} is damaged ({fault}); convert it again: jmrec convert.")
    params, about = load_params(path / "params")
    try:
        family = FAMILIES[about["family"]]
        config = config_from(family.config_class, about["config"])
        model = family.model(config)
        shapes = jax.eval_shape(model.init, jax.random.key(0))
    except (ArithmeticError, LookupError, TypeError, ValueError):
        raise UserError(
            f"{path} holds a model that this jmrec does not know; convert it again, or use the "
            "version that made it."
        ) from None
    check_fit(params, shapes, str(path), "convert it again, or use the version that made it")
    if placement is not None:
        params = jax.tree.map(jax.device_put, params, placement)
    # The source alone does not identify it: two runs may have tuned one source.
    held = hashlib.sha256((path / MANIFEST).read_bytes()).hexdigest()
    return Pretrained(about["family"], model, params, about["provenance"] | {"held": held}, path)


def find_pretrained(
    where: str | os.PathLike[str],
    what: str,
    families: Collection[str],
    *,
    layers: int = 0,
    dtype: str = "float32",
    remat: str = "none",
) -> Pretrained:
    """Read a model with its weights, from a source or as ``jmrec convert`` wrote it.

    Args:
      where: What `jmrec.convert.families.load_pretrained` takes, or a folder of `convert_to`.
      what: What it is wanted for, for the message.
      families: What it may be.
      layers: Keep the first ones only; 0 keeps all.
      dtype: In which it computes, "float32" or "bfloat16".
      remat: Which blocks are recomputed in a backward pass, see
        `jmrec.models.parts.transformer.StackConfig`.

    Raises:
      UserError: It can not be read, is of another family, or has not so many layers.
    """
    path = os.fspath(where)
    if not path.startswith(WHEEL):
        path = str(resolve_path(path))
    converted = (Path(path) / "params").is_dir()
    found = read_converted(path) if converted else load_pretrained(path)
    if found.family not in families:
        raise UserError(
            f"{where} is a model of the family {found.family}, which is no {what}; name one of "
            f"{', '.join(families)}."
        )
    if layers:
        found = first_layers(found, layers)
    config = computing_in(found.model.config, dtype, remat)
    return replace(found, model=FAMILIES[found.family].model(config))


def computing_in(config: Any, dtype: str, remat: str = "none") -> Any:
    """Return a model's config, and those within it, with another compute dtype and remat.

    Example:
      >>> from jmrec.models.readers.decoder import DecoderConfig
      >>> computing_in(DecoderConfig(vocab=9), "bfloat16").stack.dtype
      'bfloat16'
    """
    new: dict[str, Any] = {}
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            new[field.name] = computing_in(value, dtype, remat)
        elif field.name in ("dtype", "remat"):
            new[field.name] = dtype if field.name == "dtype" else remat
    return replace(config, **new)


def parameter_count(params: Any) -> int:
    """Return how many numbers a tree of parameters has."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
