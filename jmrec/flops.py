"""FLOPs of a step, counted in its traced program.

XLA's own ``cost_analysis`` counts the body of a loop once, whatever the number of turns. Here a
scan counts as often as it turns, and backward passes, recomputed blocks and frozen teachers are
in, because the program says so. Only products of matrices and convolutions count, as is usual:
2 m n k for an (m, k) by (k, n) product. Products with padding count too.
"""

import math
from collections.abc import Iterator
from typing import Any

from jax.interpreters.partial_eval import dce_jaxpr


def matmul_flops(closed: Any) -> int:
    """Return the FLOPs of all products of a program, over all devices together.

    Args:
      closed: ``jax.make_jaxpr(f)(*args)``, or ``.jaxpr`` of a traced jit function.

    Returns:
      The number, without products that nothing uses. Of a branch the most expensive case counts;
      a loop without a known number of turns counts once.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> def f(x):
      ...     return jax.lax.scan(lambda c, _: (c @ x, None), x, None, length=10)[0]
      >>> matmul_flops(jax.make_jaxpr(f)(jnp.ones((4, 4))))
      1280
    """
    jaxpr, _ = dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars))
    return _sum(jaxpr)


def _sum(jaxpr: Any) -> int:
    total = 0
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        name = equation.primitive.name
        if name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            inner = math.prod(shape[axis] for axis in contracted)
            total += 2 * inner * math.prod(equation.outvars[0].aval.shape)
        elif name == "conv_general_dilated":
            # An output number is a product with all of the kernel that makes its channel.
            kernel = equation.invars[1].aval
            channels = kernel.shape[equation.params["dimension_numbers"].rhs_spec[0]]
            total += 2 * equation.outvars[0].aval.size * (kernel.size // channels)
        elif name == "cond":
            total += max(_sum(branch) for branch in equation.params["branches"])
        else:
            turns = equation.params["length"] if name == "scan" else 1
            if name == "shard_map":  # the program of one device
                turns = equation.params["mesh"].size
            total += turns * sum(_sum(inner) for inner in _inner(equation.params))
    return total


def _inner(params: Any) -> Iterator[Any]:
    """Yield the programs that an equation calls."""
    for value in params.values():
        for each in value if isinstance(value, tuple | list) else (value,):
            if hasattr(each, "eqns") or hasattr(getattr(each, "jaxpr", None), "eqns"):
                yield each
