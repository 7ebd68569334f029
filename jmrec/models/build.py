"""From Linen modules to `jmrec.types.Model`: outside `models/` nobody sees which library it was."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import PartitionSpec

from jmrec.types import Model, Params

PureFn = Callable[..., tuple[Any, dict[str, Any]]]


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
      A model whose functions are ``(params, *inputs, key=None, train=False, taps=(), **hparams)
      -> (out, tapped)``. ``key`` is the dropout key and is used in training only; asking for a
      tap that the function does not have raises KeyError.
    """

    def boxed(key: jax.Array) -> Any:
        return module.init({"params": key}, *example())["params"]

    @jax.jit  # op by op, initialisation takes half a minute
    def init(key: jax.Array) -> Params:
        return nn.unbox(boxed(key))

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
            **hparams: Any,
        ) -> tuple[Any, dict[str, Any]]:
            rngs = {"drop": key} if train and key is not None else {}
            out, intermediates = module.apply(
                {"params": params}, *inputs, method=method, rngs=rngs, **hparams
            )
            return out, {tap: intermediates[tap] for tap in taps}

        return fn

    fns = {name: pure(method) for name, method in methods.items()}
    return Model(config=config, init=init, logical_axes=logical_axes, fns=fns)
