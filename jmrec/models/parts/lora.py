"""Low-rank updates of a frozen model's matrices: a small tree of their own, trained alone.

A tree of updates has, for each matrix that a pattern names, "a" [layers, in, r] and "b"
[layers, r, out] in the place of its "kernel". `applied` makes of it what a model's functions take
as ``lora=``, and `merged` adds it to the parameters.

References:
  Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, https://arxiv.org/abs/2106.09685
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jmrec.errors import UserError
from jmrec.types import Params

STACKS = ("blocks",)
"""Parts of a path under which parameters have an axis of layers in front."""
_RANGE = re.compile(r"^layers\[(\d*):(\d*)\]/(.*)$")


@dataclass(frozen=True)
class LoraConfig:
    """Which matrices are updated, and by how much.

    Attributes:
      targets: Regular expressions, each found somewhere in the path of a matrix (such as
        "stack/blocks/attention/query"). With "layers[a:b]/" before it, an expression names the
        layers a to b - 1 only; a or b may be left out. The first that fits a matrix counts.
      rank: r.
      alpha: The update is alpha / rank times the product of "a" and "b".
    """

    targets: tuple[str, ...] = ("attention/(query|value)$",)
    rank: int = 8
    alpha: float = 16.0

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise UserError(f"a LoRA of rank {self.rank} has no numbers; choose 1 or more.")
        if not self.targets:
            raise UserError("a LoRA without targets changes nothing; name at least one.")


@dataclass(frozen=True)
class _Place:
    """A matrix to update: its path, shape [layers, in, out] or [in, out], and the layers."""

    path: tuple[str, ...]
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def stacked(self) -> bool:
        return len(self.shape) == 3

    def lead(self) -> tuple[int, ...]:
        return (self.stop - self.start,) if self.stacked else ()


def _places(config: LoraConfig, shapes: Any) -> list[_Place]:
    """Return the matrices that the targets name, in the order of the tree."""
    kernels = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(shapes)[0]:
        *parts, last = (str(entry.key) for entry in path)
        stacked = any(part in STACKS for part in parts)
        if last == "kernel" and len(leaf.shape) == 2 + stacked:
            kernels[tuple(parts)] = tuple(leaf.shape)
    found: dict[tuple[str, ...], _Place] = {}
    for target in config.targets:
        cut = _RANGE.match(target)
        pattern = cut[3] if cut else target
        try:
            fits = [path for path in kernels if re.search(pattern, "/".join(path))]
        except re.error as error:
            raise UserError(f"LoRA target {target!r} is no regular expression ({error}).") from None
        if not fits:
            near = ", ".join("/".join(path) for path in list(kernels)[:8])
            raise UserError(f"LoRA target {target!r} names no matrix; there are {near}, ...")
        for path in fits:
            shape = kernels[path]
            depth = shape[0] if len(shape) == 3 else 1
            start, stop = 0, depth
            if cut:
                start, stop = int(cut[1] or 0), int(cut[2] or depth)
            if cut and len(shape) == 2:
                raise UserError(
                    f"LoRA target {target!r}: {'/'.join(path)} has no layers to choose."
                )
            if not 0 <= start < stop <= depth:
                raise UserError(
                    f"LoRA target {target!r} names layers {start} to {stop}, and "
                    f"{'/'.join(path)} has {depth}; choose a range of these."
                )
            found.setdefault(path, _Place(path, shape, start, stop))
    return [found[path] for path in kernels if path in found]


def _nested(leaves: Mapping[tuple[str, ...], Any]) -> Params:
    tree: Params = {}
    for path, leaf in leaves.items():
        here = tree
        for part in path[:-1]:
            here = here.setdefault(part, {})
        here[path[-1]] = leaf
    return tree


def _at(tree: Any, path: tuple[str, ...]) -> Any:
    for part in path:
        tree = tree[part]
    return tree


def init_lora(config: LoraConfig, shapes: Any, key: jax.Array) -> Params:
    """Return fresh updates, which change nothing: "a" is random and "b" is zero.

    Args:
      config: Targets and rank.
      shapes: The parameters of the model, or their shapes.
      key: A typed key.

    Raises:
      UserError: A target names no matrix, or layers that are not there.

    Example:
      >>> params = {"blocks": {"query": {"kernel": jnp.ones((4, 6, 10))}}, "norm": jnp.ones(6)}
      >>> lora = init_lora(LoraConfig(("layers[1:]/query",), rank=2), params, jax.random.key(0))
      >>> jax.tree.map(jnp.shape, lora)
      {'blocks': {'query': {'a': (3, 6, 2), 'b': (3, 2, 10)}}}
    """
    leaves = {}
    for number, place in enumerate(_places(config, shapes)):
        size_in, size_out = place.shape[-2:]
        shape = (*place.lead(), size_in, config.rank)
        bound = size_in**-0.5  # Kaiming's uniform with a = sqrt(5), as the paper's code has it
        a = jax.random.uniform(jax.random.fold_in(key, number), shape, minval=-bound, maxval=bound)
        leaves[(*place.path, "a")] = a
        leaves[(*place.path, "b")] = jnp.zeros((*place.lead(), config.rank, size_out))
    return _nested(leaves)


def lora_axes(config: LoraConfig, shapes: Any, axes: Any) -> Any:
    """Return the logical axes of the updates.

    Args:
      config: Targets and rank.
      shapes: The parameters of the model, or their shapes.
      axes: Their logical axes.

    Example:
      >>> params = {"out": {"kernel": jnp.ones((6, 10))}}
      >>> axes = {"out": {"kernel": ("heads", "mlp")}}
      >>> lora_axes(LoraConfig(("out",)), params, axes)
      {'out': {'a': ('heads', None), 'b': (None, 'mlp')}}
    """
    leaves = {}
    for place in _places(config, shapes):
        *lead, size_in, size_out = _at(axes, (*place.path, "kernel"))
        leaves[(*place.path, "a")] = (*lead, size_in, None)
        leaves[(*place.path, "b")] = (*lead, None, size_out)
    return _nested(leaves)


def applied(config: LoraConfig, lora: Params, shapes: Any) -> Params:
    """Return updates as a model's functions take them (``lora=``): scaled, for every layer.

    Layers outside of a range get zeros. It is differentiable, and the gradient of a stage is taken
    through it.

    Args:
      config: Targets, rank and alpha.
      lora: From `init_lora`.
      shapes: The parameters of the model, or their shapes.

    Example:
      >>> params = {"blocks": {"query": {"kernel": jnp.ones((4, 6, 10))}}}
      >>> config = LoraConfig(("layers[1:2]/query",), rank=2)
      >>> lora = init_lora(config, params, jax.random.key(0))
      >>> jax.tree.map(jnp.shape, applied(config, lora, params))
      {'blocks': {'query': {'a': (4, 6, 2), 'b': (4, 2, 10)}}}
    """
    leaves = {}
    for place in _places(config, shapes):
        for name, scale in (("a", 1.0), ("b", config.alpha / config.rank)):
            array = _at(lora, place.path)[name] * scale
            if place.stacked:
                around = (place.start, place.shape[0] - place.stop)
                array = jnp.pad(array, [around, (0, 0), (0, 0)])
            leaves[(*place.path, name)] = array
    return _nested(leaves)


def merged(config: LoraConfig, lora: Params, params: Params) -> Params:
    """Return the parameters with the updates added to their matrices, for export.

    Args:
      config: Targets, rank and alpha.
      lora: From `init_lora`, trained.
      params: The parameters of the model; they are left as they are.

    Example:
      >>> params = {"out": {"kernel": jnp.zeros((1, 1))}}
      >>> lora = {"out": {"a": jnp.array([[2.0]]), "b": jnp.array([[3.0]])}}
      >>> config = LoraConfig(("out",), rank=1, alpha=1.0)
      >>> merged(config, lora, params)["out"]["kernel"].tolist()
      [[6.0]]
    """
    full = applied(config, lora, params)
    sums = {}
    for place in _places(config, params):
        both = _at(full, place.path)
        kernel = _at(params, (*place.path, "kernel"))
        product = jnp.matmul(both["a"], both["b"], precision="highest")
        sums[(*place.path, "kernel")] = (kernel + product).astype(kernel.dtype)

    def leaf(path: Any, old: Any) -> Any:
        return sums.get(tuple(str(entry.key) for entry in path), old)

    return jax.tree_util.tree_map_with_path(leaf, params)
