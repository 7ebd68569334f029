"""From Linen modules to `jmrec.types.Model`: outside `models/` nobody sees which library it was."""

from collections.abc import Callable, Mapping
from functools import lru_cache, wraps
from typing import Any, TypeVar, cast

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import PartitionSpec

from jmrec.errors import UserError
from jmrec.types import Model, Params

PureFn = Callable[..., tuple[Any, dict[str, Any]]]
Build = TypeVar("Build", bound=Callable[..., Model])


def once(build: Build) -> Build:
    """Let equal settings give one and the same model: what JAX has traced of it, it does not again.

    Args:
      build: Makes a model of its arguments alone. Where one can not be hashed, such as a config
        that holds a dict, each call makes its own.

    Example:
      >>> made = once(lambda width: Model(width, init=dict, logical_axes=dict, fns={}))
      >>> made(2) is made(2), made(2) is made(3)
      (True, False)
    """
    known = lru_cache(maxsize=64)(build)

    @wraps(build)
    def made(*args: Any, **kwargs: Any) -> Model:
        try:
            hash((args, tuple(kwargs.items())))
        except TypeError:
            return build(*args, **kwargs)
        return known(*args, **kwargs)

    return cast(Build, made)


@lru_cache(maxsize=128)
def compiled(model: Model, name: str) -> Callable[..., Any]:
    """Return a function of a model, compiled, without what can be tapped: ``(params, *inputs)``."""
    fn = model.fns[name]
    return jax.jit(lambda params, *inputs: fn(params, *inputs)[0])


def make_model(
    config: Any,
    module: nn.Module,
    example: Callable[[], tuple[Any, ...]],
    methods: Mapping[str, str],
) -> Model:
    """Wrap a Linen module whose methods return ``(out, intermediates)``.

    Args:
      config: The module's frozen config, kept on the model.
      module: The module; its ``__call__`` touches every parameter.
      example: Returns the arguments of ``__call__`` for initialisation (tiny zeros).
      methods: Public function name -> method name.

    Returns:
      A model whose functions are ``(params, *inputs, key=None, train=False, taps=(), lora=None,
      **hparams) -> (out, tapped)``. ``key`` is the dropout key and is used in training only; asking
      for a tap that the function does not have raises KeyError; ``lora`` holds low-rank updates of
      matrices, from `jmrec.models.parts.lora.applied`.
    """

    @jax.jit  # op by op, initialisation takes half a minute; shapes and axes come from one trace
    def boxed(key: jax.Array) -> Any:
        return module.init({"params": key}, *example())["params"]

    def init(key: jax.Array) -> Params:
        unboxed: Params = nn.unbox(boxed(key))
        return unboxed

    def logical_axes(params: Any = None) -> Any:
        del params
        specs = nn.get_partition_spec(jax.eval_shape(boxed, jax.random.key(0)))
        return jax.tree.map(tuple, specs, is_leaf=lambda x: isinstance(x, PartitionSpec))

    def pure(method: str) -> PureFn:
        def fn(
            params: Params,
            *inputs: Any,
            key: jax.Array | None = None,
            train: bool = False,
            taps: tuple[str, ...] = (),
            lora: Params | None = None,
            **hparams: Any,
        ) -> tuple[Any, dict[str, Any]]:
            rngs = {"drop": key} if train and key is not None else {}
            variables = {"params": params} if lora is None else {"params": params, "lora": lora}
            out, intermediates = module.apply(
                variables, *inputs, method=method, rngs=rngs, **hparams
            )
            return out, {tap: intermediates[tap] for tap in taps}

        return fn

    fns = {name: pure(method) for name, method in methods.items()}
    return Model(config=config, init=init, logical_axes=logical_axes, fns=fns)


REMEDY = "run again in another --workdir, or use the version of jmrec that made it"


def check_fit(params: Any, wanted: Any, where: str, remedy: str = REMEDY) -> None:
    """Check that parameters are those of a model, by path and shape, and are numbers.

    Args:
      params: A nested dict of arrays.
      wanted: The model's parameters or their shapes.
      where: What the parameters are, for the message.
      remedy: What to do, for the message.

    Raises:
      UserError: A parameter is missing, is one too many, has another shape, or holds NaN or
        infinity.

    Example:
      >>> check_fit({"w": jax.numpy.ones(2)}, {"w": jax.numpy.ones(2)}, "run/student")
      >>> try:
      ...     check_fit({"w": jax.numpy.ones(2)}, {"w": jax.numpy.ones(3)}, "run/student")
      ... except UserError as error:
      ...     print(str(error).partition(";")[0])
      run/student: 'w' has shape (2,), and this jmrec's model wants (3,)
    """

    def shapes(tree: Any) -> dict[str, tuple[int, ...]]:
        leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
        return {
            jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape)
            for path, leaf in leaves
        }

    have, want = shapes(params), shapes(wanted)
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        known = isinstance(leaf, np.ndarray) and jax.numpy.issubdtype(leaf.dtype, np.inexact)
        if known and not np.isfinite(leaf).all():
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            raise UserError(f"{where}: {name!r} holds NaN or infinity; {remedy}.")
    for name in sorted(have | want):
        if have.get(name) == want.get(name):
            continue
        if name not in have:
            found = f"{name!r} is missing"
        elif name not in want:
            found = f"{name!r} is no part of this jmrec's model"
        else:
            found = f"{name!r} has shape {have[name]}, and this jmrec's model wants {want[name]}"
        raise UserError(f"{where}: {found}; {remedy}.")
