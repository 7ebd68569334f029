"""Conversion by a table: every tensor of the source used, every parameter of the model filled.

A teacher that is half loaded looks like a poor teacher, and nobody would know. So a tensor that the
table does not know, one that is missing and one of another shape each stop the conversion by name.
"""

import difflib
import fnmatch
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jmrec.convert.sources import Source
from jmrec.errors import UserError
from jmrec.types import Params

Transform = Callable[..., np.ndarray]
LAYER = "{layer}"


def identity(x: np.ndarray) -> np.ndarray:
    """Return the tensor as it is."""
    return x


def transpose(x: np.ndarray) -> np.ndarray:
    """Turn torch's matrix [out, in] into a kernel [in, out].

    Example:
      >>> transpose(np.zeros((5, 3))).shape
      (3, 5)
    """
    return x.T


def conv(x: np.ndarray) -> np.ndarray:
    """Turn torch's convolution [out, in, H, W] into a kernel [H, W, in, out].

    Example:
      >>> conv(np.zeros((8, 3, 2, 1))).shape
      (2, 1, 3, 8)
    """
    return x.transpose(2, 3, 1, 0)


def split_out(heads: int) -> Transform:
    """Return the transform from a matrix [heads * C, D] to a kernel [D, heads, C].

    Example:
      >>> split_out(2)(np.zeros((6, 5))).shape
      (5, 2, 3)
    """
    return lambda x: x.reshape(heads, -1, x.shape[1]).transpose(2, 0, 1)


def split_in(heads: int) -> Transform:
    """Return the transform from a matrix [D, heads * C] to a kernel [heads, C, D].

    Example:
      >>> split_in(2)(np.zeros((5, 6))).shape
      (2, 3, 5)
    """
    return lambda x: x.reshape(x.shape[0], heads, -1).transpose(1, 2, 0)


def halves(heads: int) -> Transform:
    """Return the transform from interleaved to split rotary pairs, over the first axis.

    In GGUF files of the llama family the rows of a head's query and key are ordered for rotations
    of neighbours (0, 1), (2, 3), ...; models here rotate row i with row i + C / 2.

    Args:
      heads: Heads of this matrix or bias: the first axis is heads * C.

    Example:
      >>> halves(1)(np.arange(6)).tolist()
      [0, 2, 4, 1, 3, 5]
    """

    def apply(x: np.ndarray) -> np.ndarray:
        pairs = x.reshape(heads, -1, 2, *x.shape[1:])
        return pairs.swapaxes(1, 2).reshape(x.shape)

    return apply


def chain(*steps: Transform) -> Transform:
    """Return the transform that does one step after the other.

    Example:
      >>> chain(transpose, split_in(1))(np.zeros((6, 5))).shape
      (1, 6, 5)
    """

    def apply(x: np.ndarray) -> np.ndarray:
        for step in steps:
            x = step(x)
        return x

    return apply


@dataclass(frozen=True)
class Entry:
    """One line of a table.

    Attributes:
      target: The parameter's path, such as "stack/blocks/attention/query/kernel".
      source: The tensor's name, or several names. With "{layer}" in it, the tensors of all layers
        become one parameter with an axis of layers in front.
      transform: A pure function of that tensor, or of those tensors (of one layer). Where it only
        moves axes, a slice of the parameter costs the memory of that slice.
    """

    target: str
    source: str | tuple[str, ...]
    transform: Transform = identity

    @property
    def sources(self) -> tuple[str, ...]:
        """The names, also where there is only one."""
        return (self.source,) if isinstance(self.source, str) else self.source

    @property
    def stacked(self) -> bool:
        """Whether the tensors of all layers become one parameter."""
        return any(LAYER in name for name in self.sources)


def convert(
    source: Source,
    entries: Iterable[Entry],
    wanted: Any,
    *,
    ignore: Collection[str] = (),
    where: str | None = None,
    dtype: Any = None,
    shardings: Any = None,
) -> Params:
    """Fill a model's parameters from a source.

    Args:
      source: The tensors.
      entries: The table. Two entries may read one tensor (a fused matrix, tied embeddings).
      wanted: The parameters' shapes, a nested dict of arrays or ``jax.ShapeDtypeStruct``.
      ignore: Names of source tensors that are left out on purpose, as shell patterns ("*.masked").
      where: What the source is, for the messages; its path where None.
      dtype: The type of all parameters; that of ``wanted`` where None.
      shardings: A tree of ``NamedSharding`` like ``wanted``: each process reads the slices of its
        own devices only, straight onto the mesh. None makes numpy arrays.

    Returns:
      The parameters, a nested dict like ``wanted``.

    Raises:
      UserError: A tensor is missing, is unknown, has another shape or holds a number that is not
        finite, or a parameter is not filled; the message names it.
      ValueError: The table itself is wrong: two entries fill one parameter, or it is not there.

    Example:
      >>> import tempfile, pathlib
      >>> from safetensors.numpy import save_file
      >>> from jmrec.convert.sources import Safetensors
      >>> path = pathlib.Path(tempfile.mkdtemp()) / "m.safetensors"
      >>> save_file({f"h.{i}.w": np.full((3, 2), i, np.float32) for i in range(2)}, path)
      >>> wanted = {"blocks": {"kernel": np.zeros((2, 2, 3), np.float32)}}
      >>> table = [Entry("blocks/kernel", "h.{layer}.w", transpose)]
      >>> convert(Safetensors(path), table, wanted)["blocks"]["kernel"][:, 0, 0].tolist()
      [0.0, 1.0]
    """
    place = str(source.path) if where is None else where
    paths, structure = jax.tree_util.tree_flatten_with_path(wanted)
    leaves = {jax.tree_util.keystr(p, simple=True, separator="/"): leaf for p, leaf in paths}
    plan = _plan(entries, leaves)
    _check_depth(source, plan, leaves, place)
    names = {target: _names(entry, leaves[target]) for target, entry in plan.items()}
    _check_names(source, names, ignore, place)
    for target in leaves:
        if target not in plan:
            raise UserError(f"{place}: nothing there fills the parameter {target!r}; {_REMEDY}.")
        _check_shapes(source, plan[target], leaves[target], place)
    placement = dict.fromkeys(leaves)
    if shardings is not None:
        placement = dict(zip(leaves, jax.tree.leaves(shardings), strict=True))
    filled = [
        _fill(source, plan[target], leaf, dtype, placement[target], place)
        for target, leaf in leaves.items()
    ]
    return jax.tree.unflatten(structure, filled)


_REMEDY = "it is of another model, or of a version that this jmrec does not know"


def _plan(entries: Iterable[Entry], leaves: Collection[str]) -> dict[str, Entry]:
    plan: dict[str, Entry] = {}
    for entry in entries:
        if entry.target in plan:
            raise ValueError(f"two entries fill {entry.target!r}")
        if entry.target not in leaves:
            raise ValueError(f"the model has no parameter {entry.target!r}")
        plan[entry.target] = entry
    return plan


def _check_depth(source: Source, plan: Mapping[str, Entry], leaves: Any, place: str) -> None:
    """Refuse more layers than there are tensors, before the names of all are listed."""
    most = len(source.names())
    for target, entry in plan.items():
        if entry.stacked and leaves[target].shape[0] > most:
            raise UserError(
                f"{place}: the configuration says {leaves[target].shape[0]:,} layers, and there "
                f"are {most:,} tensors; {_REMEDY}."
            )


def _names(entry: Entry, leaf: Any) -> list[tuple[str, ...]]:
    """Return the names of each layer's tensors; one layer where nothing is stacked."""
    layers = leaf.shape[0] if entry.stacked else 1
    return [
        tuple(name.replace(LAYER, str(layer)) for name in entry.sources) for layer in range(layers)
    ]


def _check_names(
    source: Source, names: dict[str, list[tuple[str, ...]]], ignore: Collection[str], place: str
) -> None:
    have = set(source.names())
    used = {name: target for target, each in names.items() for layer in each for name in layer}
    missing = [name for name in used if name not in have]
    extra = sorted(
        name
        for name in have - set(used)
        if not any(fnmatch.fnmatchcase(name, pattern) for pattern in ignore)
    )
    if missing:
        name = missing[0]
        # Likeness of long names, or to many, takes minutes.
        near = difflib.get_close_matches(
            name, [each for each in extra[:1000] if len(each) < 200], 1
        )
        hint = f" (is it {near[0]!r}, which nothing uses?)" if near else ""
        more = f", and {len(missing) - 1} more are" if len(missing) > 1 else ""
        raise UserError(
            f"{place}: tensor {name!r}, which fills {used[name]!r}, is missing{hint}{more}; "
            f"{_REMEDY}."
        )
    if extra:
        more = f" and {len(extra) - 1} more" if len(extra) > 1 else ""
        raise UserError(
            f"{place}: the model has no place for tensor {extra[0][:200]!r}{more}; {_REMEDY}."
        )


def _check_shapes(source: Source, entry: Entry, leaf: Any, place: str) -> None:
    want = tuple(leaf.shape[1:]) if entry.stacked else tuple(leaf.shape)
    for layer in _names(entry, leaf):
        shapes = [source.shape(name) for name in layer]
        try:
            # All strides of these are zero: they cost nothing, and neither do moved axes.
            made = entry.transform(*(np.broadcast_to(np.float32(1), s) for s in shapes)).shape
        except (ValueError, IndexError, TypeError):  # a number of axes that it does not take
            made = None
        if made != want:
            turned = "" if made in (None, shapes[0]) else f" (turned: {made})"
            shown = " and ".join(f"{n!r} has shape {s}" for n, s in zip(layer, shapes))
            raise UserError(
                f"{place}: tensor {shown}{turned}, and {entry.target!r} wants {want}; {_REMEDY}."
            )


def _fill(source: Source, entry: Entry, leaf: Any, dtype: Any, sharding: Any, place: str) -> Any:
    """Return one parameter: a numpy array, or an array of the mesh made of its own slices."""
    shape = tuple(leaf.shape)
    kind = np.dtype(leaf.dtype if dtype is None else dtype)
    floating = jnp.issubdtype(kind, jnp.floating)
    everything = (slice(None),) * len(shape)
    indices: list[Any] = [everything]
    if sharding is not None:
        indices = list(sharding.addressable_devices_indices_map(shape).values())
    parts: dict[Any, np.ndarray] = {}
    for index in indices:
        size = [len(range(*cut.indices(n))) for cut, n in zip(index, shape)]
        parts[_bounds(index, shape)] = np.empty(size, kind)
    # A tensor is read once, and each part takes its slice of it.
    for layer, each in enumerate(_names(entry, leaf)):
        tensor = entry.transform(*(source.read(name) for name in each))
        if floating and not jnp.issubdtype(tensor.dtype, jnp.floating):
            raise UserError(
                f"{place}: tensor {each[0]!r} holds {tensor.dtype} and no floating numbers: it is "
                "quantised in a way that is not read here; use the weights in bfloat16 or float32."
            )
        for bounds, part in parts.items():
            cut = tuple(slice(*ends) for ends in bounds)
            piece = part
            if entry.stacked:
                first, last = bounds[0]
                if not first <= layer < last:
                    continue
                piece, cut = part[layer - first, ...], cut[1:]
            with np.errstate(over="ignore"):  # what is too large is reported below
                piece[...] = tensor[cut]
            if floating and not np.isfinite(piece).all():
                raise UserError(
                    f"{place}: tensor {each[0]!r} holds a number that is not finite in {kind}; "
                    "fetch it again, or convert it to a wider type."
                )
    if sharding is None:
        return parts[_bounds(everything, shape)]
    return jax.make_array_from_callback(shape, sharding, lambda i: parts[_bounds(i or (), shape)])


def _bounds(index: Sequence[slice], shape: Sequence[int]) -> tuple[tuple[int, int], ...]:
    return tuple(cut.indices(size)[:2] for cut, size in zip(index, shape))
