"""Losses that keep two feature vectors of an example apart. They couple the batch: no accumulation.

Each returns per-example contributions whose mean over the unmasked examples is the estimate.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jmrec.losses.masks import (
    as_float32,
    at_least_one,
    check_shape,
    full_mask,
    mask_inputs,
    mask_losses,
    pair_mask,
)
from jmrec.losses.vectors import centre, squared_distances
from jmrec.types import Array


def orthogonality(a: Array, b: Array, *, where: Array | None = None) -> jax.Array:
    """Return contributions to the mean squared cross-correlation of two sets of features.

    Compatible with jit, vmap and grad. With the batch's columns standardised, C = a^T b / n is the
    [Da, Db] matrix of correlations and the estimate is ||C||_F**2 / (Da Db), between 0 (no linear
    relation) and 1; Da and Db may differ. Example i contributes a_i^T C b_i / (Da Db). Independent
    features still give about 1 / n.

    Use: to part two codes cheaply, blind to their scale and to what is not linear.
    Formula: ||corr(a, b)||_F**2 / (Da Db).

    Args:
      a: [B, Da].
      b: [B, Db].
      where: bool [B], False for masked examples.

    Returns:
      float32 [B], 0 where masked; single contributions may be negative, their mean is not. A column
      that does not vary correlates with nothing.

    Raises:
      ValueError: If the shapes do not fit.

    References:
      Cogswell et al., Reducing Overfitting in Deep Networks by Decorrelating Representations, 2015:
      https://arxiv.org/abs/1511.06068 (a penalty on off-diagonal covariances, here across two sets)

    Example:
      >>> import jax.numpy as jnp
      >>> a = jnp.array([[1.0], [-1.0], [1.0], [-1.0]])
      >>> b = jnp.array([[1.0], [1.0], [-1.0], [-1.0]])
      >>> float(orthogonality(a, b).mean())
      0.0
      >>> round(float(orthogonality(a, -2 * a).mean()), 4)
      1.0
    """
    a, b, size = _two(a, b, where)
    count = at_least_one(full_mask(where, size).sum())
    a, b = _standardise(a, where), _standardise(b, where)
    correlation = a.T @ b / count
    contributions = ((a @ correlation) * b).sum(axis=1) / correlation.size
    return mask_losses(contributions, where)


def hsic(
    a: Array, b: Array, *, where: Array | None = None, bandwidth: Any | None = None
) -> jax.Array:
    """Return contributions to the Hilbert-Schmidt independence criterion with Gaussian kernels.

    Compatible with jit, vmap and grad. The estimate is the biased one, tr(K H L H) / n**2: at least
    0, and in the limit 0 only for independent features. Needs [B, B] arrays.

    Use: to part two codes where what joins them need not be linear.
    Formula: tr(K H L H) / n**2.

    Args:
      a: [B, Da].
      b: [B, Db].
      where: bool [B], False for masked examples.
      bandwidth: The s of exp(-distance**2 / (2 s**2)), a number or a traced scalar, for both
        kernels. None takes, for each, s**2 = half the batch's mean squared distance, without a
        gradient into it.

    Returns:
      float32 [B], 0 where masked; single contributions may be negative, their mean is not.

    Raises:
      ValueError: If the shapes do not fit.

    References:
      Gretton et al., Measuring Statistical Dependence with Hilbert-Schmidt Norms, 2005:
      https://link.springer.com/chapter/10.1007/11564089_7

    Example:
      >>> import jax.numpy as jnp
      >>> a = jnp.array([[0.0], [1.0], [2.0]])
      >>> float(hsic(a, jnp.ones((3, 2)), bandwidth=1.0).sum())  # a constant tells nothing
      0.0
    """
    a, b, size = _two(a, b, where)
    count = at_least_one(full_mask(where, size).sum())
    kernel_a = _centre(_gaussian_kernel(a, where, bandwidth), where)
    kernel_b = _centre(_gaussian_kernel(b, where, bandwidth), where)
    return mask_losses((kernel_a * kernel_b).sum(axis=1) / count, where)


def cross_covariance(a: Array, b: Array, *, where: Array | None = None) -> jax.Array:
    """Return contributions to half the squared Frobenius norm of the cross-covariance.

    Compatible with jit, vmap and grad. Unlike `orthogonality` it sees the features' scale: it can
    be made small by shrinking them, so something else must hold their size (a reconstruction, say).

    Use: to part two codes of one example, as XCov parts the class from the style.
    Formula: ||a^T b / n||_F**2 / 2, with centred columns.

    Args:
      a: [B, Da].
      b: [B, Db].
      where: bool [B], False for masked examples.

    Returns:
      float32 [B], 0 where masked; single contributions may be negative, their mean is not.

    Raises:
      ValueError: If the shapes do not fit.

    References:
      Cheung et al., Discovering Hidden Factors of Variation in Deep Networks, 2014:
      https://arxiv.org/abs/1412.6583

    Example:
      >>> import jax.numpy as jnp
      >>> a = jnp.array([[2.0], [-2.0]])
      >>> float(cross_covariance(a, a).mean())  # the variance is 4
      8.0
    """
    a, b, size = _two(a, b, where)
    count = at_least_one(full_mask(where, size).sum())
    a, b = centre(a, where), centre(b, where)
    covariance = a.T @ b / count
    return mask_losses(0.5 * ((a @ covariance) * b).sum(axis=1), where)


def coral(a: Array, b: Array, *, where: Array | None = None) -> jax.Array:
    """Return contributions to the CORAL distance of two sets of features.

    Compatible with jit, vmap and grad. It brings two distributions *together*, in their second
    moments, row i of one having nothing to do with row i of the other; it does not part a from b.

    Use: to lessen the discrepancy of two domains (a teacher's and a student's features, warm and
      cold items), not to disentangle.
    Formula: ||cov(a) - cov(b)||_F**2 / (4 D**2), covariances with n - 1.

    Args:
      a: [B, D].
      b: [B, D].
      where: bool [B], False for masked examples, of both.

    Returns:
      float32 [B], 0 where masked; single contributions may be negative, their mean is not.

    Raises:
      ValueError: If the shapes do not fit.

    References:
      Sun, Saenko, Deep CORAL: Correlation Alignment for Deep Domain Adaptation, 2016:
      https://arxiv.org/abs/1607.01719

    Example:
      >>> import jax.numpy as jnp
      >>> a = jnp.array([[1.0], [-1.0], [0.0]])
      >>> float(coral(a, a[::-1] + 5.0).mean()), float(coral(a, 0 * a).mean())
      (0.0, 0.25)
    """
    a, b, size = _two(a, b, where)
    if a.shape != b.shape:
        raise ValueError(f"a and b must both be [B, D]: {a.shape} and {b.shape}")
    count = full_mask(where, size).sum()
    others = at_least_one(count - 1)
    a, b = centre(a, where), centre(b, where)
    gap = (a.T @ a - b.T @ b) / others
    contributions = ((a @ gap) * a - (b @ gap) * b).sum(axis=1) * at_least_one(count) / others
    return mask_losses(contributions / (4.0 * a.shape[1] ** 2), where)


def _two(a: Array, b: Array, where: Array | None) -> tuple[jax.Array, jax.Array, int]:
    a, b = as_float32(a), as_float32(b)
    if a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[0]:
        raise ValueError(f"a [B, Da] and b [B, Db] do not fit: {a.shape} and {b.shape}")
    check_shape("where", where, a.shape[:1])
    return mask_inputs(a, where), mask_inputs(b, where), a.shape[0]


def _standardise(x: jax.Array, where: Array | None) -> jax.Array:
    """Columns with mean 0 and variance 1 over the unmasked rows, masked rows 0."""
    count = at_least_one(full_mask(where, x.shape[0]).sum())
    x = centre(x, where)
    variance = jnp.square(x).sum(axis=0) / count
    return x * jax.lax.rsqrt(variance + 1e-8)


def _gaussian_kernel(x: jax.Array, where: Array | None, bandwidth: Any | None) -> jax.Array:
    """[B, B] of exp(-distance**2 / (2 s**2)), 1 on the diagonal."""
    pairs = pair_mask(where, x.shape[0])
    squares = jnp.where(pairs, squared_distances(x, where), 0.0)
    if bandwidth is None:
        doubled = jax.lax.stop_gradient(squares.sum() / at_least_one(pairs.sum()))
        doubled = jnp.where(doubled > 0, doubled, 1.0)
    else:
        doubled = 2.0 * jnp.square(bandwidth)
    return jnp.exp(-squares / doubled)


def _centre(kernel: jax.Array, where: Array | None) -> jax.Array:
    """H K H over the unmasked examples; masked rows and columns are 0."""
    mask = full_mask(where, kernel.shape[0])
    both = mask[:, None] & mask[None, :]
    count = at_least_one(mask.sum())
    kernel = jnp.where(both, kernel, 0.0)
    rows = kernel.sum(axis=1, keepdims=True) / count
    centred = kernel - rows - rows.T + rows.sum() / count
    return jnp.where(both, centred, 0.0)
