"""Bounds and estimates of mutual information, one value per example; their mean is the estimate.

Lower bounds take the critic's scores [B, B] of all pairs: the diagonal holds the joint pairs (x_i,
y_i), the rest pairs from the product of the marginals. *Maximise* their mean. Upper bounds take a
conditional Gaussian q(y | x), which `gaussian_log_likelihood` trains; *minimise* their mean while q
does not change. All couple the examples of a batch: no accumulation.

Values are in nats. The critic with which a bound is tight is named at each.
"""

import math
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
from jmrec.types import Array

MINE_START = -math.inf
"""The log of `mine`'s moving average before its first batch."""


def infonce(scores: Array, *, where: Array | None = None) -> jax.Array:
    """Return per-example InfoNCE lower bounds of I(x; y).

    Compatible with jit, vmap and grad. Tight for large B with the critic log p(y|x) + c(x); never
    above the log of the number of unmasked examples.

    Use: first: it has the least variance, and it never reports more than the batch can show.
    Formula: s_ii - log sum_j exp s_ij + log n.

    Args:
      scores: [B, B], critic of (x_i, y_j).
      where: bool [B], False for masked examples (their row and column).

    Returns:
      float32 [B], 0 where masked; the mean over unmasked examples is the bound.

    Raises:
      ValueError: If the shapes do not fit.

    References:
      van den Oord, Li, Vinyals, Representation Learning with Contrastive Predictive Coding, 2018:
      https://arxiv.org/abs/1807.03748

    Example:
      >>> import jax.numpy as jnp
      >>> round(float(infonce(100 * jnp.eye(4))[0]), 4)  # log 4
      1.3863
    """
    scores = _square(scores, where)
    size = scores.shape[0]
    allowed = pair_mask(where, size) | jnp.eye(size, dtype=bool)
    lse = jax.nn.logsumexp(jnp.where(allowed, scores, -jnp.inf), axis=1)
    log_count = jnp.log(at_least_one(full_mask(where, size).sum()))
    return mask_losses(jnp.diagonal(scores) - lse + log_count, where)


def nwj(scores: Array, *, where: Array | None = None) -> jax.Array:
    """Return per-example NWJ (f-GAN KL) lower bounds of I(x; y).

    Compatible with jit, vmap and grad. Unbiased at any B; tight with the critic
    1 + log p(y|x) / p(y); its variance grows with exp(I).

    Use: for a bound without a ceiling where I is small (some 2 nats).
    Formula: s_ii - mean_{j != i} exp(s_ij - 1).

    Args:
      scores: [B, B], critic of (x_i, y_j).
      where: bool [B], False for masked examples (their row and column).

    Returns:
      float32 [B], 0 where masked: the critic of the joint pair less the mean of exp(critic - 1)
      over the row's other pairs.

    Raises:
      ValueError: If the shapes do not fit.

    References:
      Nguyen, Wainwright, Jordan, Estimating divergence functionals, 2010:
      https://arxiv.org/abs/0809.0853

    Example:
      >>> import jax.numpy as jnp
      >>> round(float(nwj(jnp.ones((4, 4)))[0]), 4)  # independent: the log ratio is 0
      0.0
    """
    scores = _square(scores, where)
    marginal = _row_mean(jnp.exp(_off_diagonal(scores, where, -jnp.inf) - 1.0), where)
    return mask_losses(jnp.diagonal(scores) - marginal, where)


def jsd(scores: Array, *, where: Array | None = None) -> jax.Array:
    """Return per-example lower bounds of the Jensen-Shannon divergence of joint and marginals.

    Compatible with jit, vmap and grad. It is log 2 less the cross-entropy of a classifier of joint
    against other pairs: stable, at most log 2, tight with the critic log p(y|x) / p(y), and growing
    with I(x; y), but not a value of it.

    Use: to raise the information stably where its value in nats is not needed.
    Formula: log 2 - (softplus(-s_ii) + mean_{j != i} softplus(s_ij)) / 2.

    Args:
      scores: [B, B], critic of (x_i, y_j).
      where: bool [B], False for masked examples (their row and column).

    Returns:
      float32 [B], 0 where masked.

    Raises:
      ValueError: If the shapes do not fit.

    References:
      Hjelm et al., Learning deep representations by mutual information estimation and maximization,
      2018: https://arxiv.org/abs/1808.06670

    Example:
      >>> import jax.numpy as jnp
      >>> round(float(jsd(jnp.zeros((4, 4)))[0]), 4)  # a critic that can not tell
      0.0
    """
    scores = _square(scores, where)
    marginal = _row_mean(jax.nn.softplus(_off_diagonal(scores, where, -jnp.inf)), where)
    joint = jax.nn.softplus(-jnp.diagonal(scores))
    return mask_losses(math.log(2.0) - 0.5 * (joint + marginal), where)


def smile(scores: Array, clip: Any = 5.0, *, where: Array | None = None) -> jax.Array:
    """Return per-example SMILE estimates of I(x; y).

    Compatible with jit, vmap and grad. ``clip=inf`` is the Donsker-Varadhan bound that MINE
    maximises; a finite clip trades a little bias (it may exceed I) for much less variance.
    Tight with the critic log p(y|x) / p(y) + c.

    Use: for the value of large informations, where `infonce` ends at log B, with a critic that
    `jsd` trains. Its own gradient lets a flexible critic's scores grow without end beyond the clip.
    Formula: s_ii - log mean_{j != k} exp clip(s_jk, -clip, clip).

    Args:
      scores: [B, B], critic of (x_i, y_j).
      clip: The marginal term's scores are clipped to [-clip, clip]; a number or a traced scalar.
      where: bool [B], False for masked examples (their row and column).

    Returns:
      float32 [B], 0 where masked: the critic of the joint pair less the log of the mean of
      exp(clipped critic) over all other pairs of the batch.

    Raises:
      ValueError: If the shapes do not fit.

    References:
      Song, Ermon, Understanding the Limitations of Variational Mutual Information Estimators, 2019:
      https://arxiv.org/abs/1910.06222

    Example:
      >>> import jax.numpy as jnp
      >>> round(float(smile(jnp.full((4, 4), 3.0), 5.0)[0]), 4)
      0.0
    """
    scores = _square(scores, where)
    size = scores.shape[0]
    pairs = pair_mask(where, size)
    some, marginal = _log_mean_exp(jnp.clip(scores, -clip, clip), pairs)
    joint = jnp.diagonal(scores)
    return mask_losses(jnp.where(some, joint - marginal, 0.0), where)


def mine(
    scores: Array, average: Array, *, decay: Any = 0.99, where: Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """Return per-example MINE estimates of I(x; y), and the moving average that they need.

    Compatible with jit, vmap and grad (scores). The value is the Donsker-Varadhan bound of the
    batch, whose gradient is biased, because the log of a batch's mean is not the mean log. MINE
    divides the gradient of the mean by a moving average over many batches instead. That average is
    state: hand it in, keep what comes back, begin with `MINE_START`.

    Use: as `smile` without its clip; it wants long averages and small steps.
    Formula: s_ii - log mean_{j != k} exp s_jk, the last term's gradient divided by the average.

    Args:
      scores: [B, B], critic of (x_i, y_j).
      average: float32 scalar, the log of the moving average of exp(critic) over pairs that do not
        belong together; `MINE_START` before the first batch, which then sets it.
      decay: Share of the old average that stays, in [0, 1); a number or a traced scalar.
      where: bool [B], False for masked examples (their row and column).

    Returns:
      (float32 [B], 0 where masked; the new average, as it was when there is no pair).

    Raises:
      ValueError: If the shapes do not fit.

    References:
      Belghazi et al., MINE: Mutual Information Neural Estimation, 2018:
      https://arxiv.org/abs/1801.04062

    Example:
      >>> import jax.numpy as jnp
      >>> values, average = mine(jnp.full((4, 4), 3.0), MINE_START)
      >>> round(float(values[0]), 4), round(float(average), 4)
      (0.0, 3.0)
      >>> round(float(mine(jnp.zeros((4, 4)), average, decay=0.5)[1]), 4)  # log((e**3 + 1) / 2)
      2.3554
    """
    scores = _square(scores, where)
    pairs = pair_mask(where, scores.shape[0])
    check_shape("average", average, ())
    average = jax.lax.stop_gradient(as_float32(average))
    some, log_mean = _log_mean_exp(scores, pairs)
    decay = jnp.asarray(decay, jnp.float32)
    mixed = jnp.logaddexp(jnp.log(decay) + average, jnp.log1p(-decay) + log_mean)
    moved = jnp.where(jnp.isneginf(average), log_mean, mixed)
    moved = jax.lax.stop_gradient(jnp.where(some, moved, average))
    # The value of log_mean with the gradient of mean / moving average.
    ratio = jnp.exp(log_mean - jnp.where(some, moved, 0.0))
    marginal = jax.lax.stop_gradient(log_mean - ratio) + ratio
    values = jnp.where(some, jnp.diagonal(scores) - marginal, 0.0)
    return mask_losses(values, where), moved


def gaussian_log_likelihood(
    mean: Array, log_variance: Array, y: Array, *, where: Array | None = None
) -> jax.Array:
    """Return log q(y | x) of a diagonal Gaussian, what the conditional of an upper bound maximises.

    Compatible with jit, vmap and grad. Stop the gradient of ``y`` (and of what ``mean`` reads) when
    only q is to learn.

    Use: to train the conditional q(y | x) that `vclub` and `l1out` need.
    Formula: -sum_d ((y - mean)**2 / variance + log variance + log 2 pi) / 2.

    Args:
      mean: [..., D].
      log_variance: [..., D].
      y: [..., D].
      where: bool [...], False for masked examples.

    Returns:
      float32 [...], summed over D, 0 where masked.

    Raises:
      ValueError: If the shapes do not fit.

    References:
      Barber, Agakov, The IM Algorithm: A Variational Approach to Information Maximization, 2003:
      https://papers.nips.cc/paper/2410-information-maximization-in-noisy-channels-a-variational-approach

    Example:
      >>> import jax.numpy as jnp
      >>> zeros = jnp.zeros((1, 2))
      >>> round(float(gaussian_log_likelihood(zeros, zeros, zeros)[0]), 4)  # -log(2 pi)
      -1.8379
    """
    mean, log_variance, y = _gaussian(mean, log_variance, y, where)
    squares = jnp.square(y - mean) * jnp.exp(-log_variance)
    return mask_losses(-0.5 * (squares + log_variance + math.log(2 * math.pi)).sum(axis=-1), where)


def club(log_likelihoods: Array, *, where: Array | None = None) -> jax.Array:
    """Return per-example CLUB upper bounds of I(x; y), from a given conditional.

    Compatible with jit, vmap and grad. The mean leaves j = i out, which makes it unbiased. An upper
    bound when the log-likelihoods are those of the true conditional; for a learned Gaussian `vclub`
    is the same without a [B, B] array.

    Use: to lower an information whose conditional is known, or of any kind that can be evaluated.
    Formula: log p(y_i | x_i) - mean_{j != i} log p(y_j | x_i).

    Args:
      log_likelihoods: [B, B], log p(y_j | x_i) in row i and column j.
      where: bool [B], False for masked examples (their row and column).

    Returns:
      float32 [B], 0 where masked, and 0 for an example without others.

    Raises:
      ValueError: If the shapes do not fit.

    References:
      Cheng et al., CLUB: A Contrastive Log-ratio Upper Bound of Mutual Information, 2020:
      https://arxiv.org/abs/2006.12013

    Example:
      >>> import jax.numpy as jnp
      >>> [float(x) for x in club(jnp.array([[0.0, -2.0], [-4.0, -1.0]]))]
      [2.0, 3.0]
    """
    log_q = _square(log_likelihoods, where, "log_likelihoods")
    others = _row_mean(_off_diagonal(log_q, where, 0.0), where)
    some = pair_mask(where, log_q.shape[0]).any(axis=1)
    return mask_losses(jnp.where(some, jnp.diagonal(log_q) - others, 0.0), where)


def vclub(mean: Array, log_variance: Array, y: Array, *, where: Array | None = None) -> jax.Array:
    """Return per-example vCLUB upper bounds of I(x; y), in the all-pairs form.

    Compatible with jit, vmap and grad. Each example's log q(y_i | x_i) less the mean of
    log q(y_j | x_i) over *all other* examples j != i (leaving j = i out makes it unbiased). For a
    Gaussian q that mean needs the first two moments of y only: O(B D) work, no [B, B] array. An
    upper bound when q is the true conditional, or close enough to it.

    Use: to lower the information of two codes; q has to be trained beside it.
    Formula: log q(y_i | x_i) - mean_{j != i} log q(y_j | x_i).

    Args:
      mean: [B, D], of q(y | x_i).
      log_variance: [B, D], of q(y | x_i).
      y: [B, D].
      where: bool [B], False for masked examples.

    Returns:
      float32 [B], 0 where masked, and 0 for an example without others.

    Raises:
      ValueError: If the shapes do not fit.

    References:
      Cheng et al., CLUB: A Contrastive Log-ratio Upper Bound of Mutual Information, 2020:
      https://arxiv.org/abs/2006.12013

    Example:
      >>> import jax.numpy as jnp
      >>> y = jnp.array([[1.0], [-1.0]])
      >>> [float(x) for x in vclub(y, jnp.zeros((2, 1)), y)]  # 0.5 * (1 - (-1)) ** 2
      [2.0, 2.0]
    """
    mean, log_variance, y = _gaussian(mean, log_variance, y, where)
    if y.ndim != 2:
        raise ValueError(f"y must be [B, D], not {y.shape}")
    count = full_mask(where, y.shape[0]).sum()
    centre = y.sum(axis=0) / at_least_one(count)
    variance = jnp.square(mask_inputs(y - centre, where)).sum(axis=0) / at_least_one(count)
    mean_square = variance + jnp.square(centre - mean)  # over all j, i included
    others = count.astype(jnp.float32) / at_least_one(count - 1)
    excess = others * (mean_square - jnp.square(y - mean)) * jnp.exp(-log_variance)
    return mask_losses(0.5 * excess.sum(axis=-1), where)


def l1out(mean: Array, log_variance: Array, y: Array, *, where: Array | None = None) -> jax.Array:
    """Return per-example leave-one-out upper bounds of I(x; y).

    Compatible with jit, vmap and grad. Each example's log q(y_i | x_i) less the log of the mean of
    q(y_i | x_j) over the others; needs a [B, B] array. An upper bound when q is the true
    conditional.

    Use: as `vclub`, tighter and with more variance, for batches whose [B, B] array fits.
    Formula: log q(y_i | x_i) - log mean_{j != i} q(y_i | x_j).

    Args:
      mean: [B, D], of q(y | x_i).
      log_variance: [B, D], of q(y | x_i).
      y: [B, D].
      where: bool [B], False for masked examples.

    Returns:
      float32 [B], 0 where masked, and 0 for an example without others.

    Raises:
      ValueError: If the shapes do not fit.

    References:
      Poole et al., On Variational Bounds of Mutual Information, 2019:
      https://arxiv.org/abs/1905.06922

    Example:
      >>> import jax.numpy as jnp
      >>> y = jnp.array([[1.0], [-1.0]])
      >>> [float(x) for x in l1out(y, jnp.zeros((2, 1)), y)]
      [2.0, 2.0]
    """
    mean, log_variance, y = _gaussian(mean, log_variance, y, where)
    if y.ndim != 2:
        raise ValueError(f"y must be [B, D], not {y.shape}")
    size = y.shape[0]
    count = full_mask(where, size).sum()
    centre = y.sum(axis=0) / at_least_one(count)  # keeps the expanded square accurate
    y, mean = mask_inputs(y - centre, where), mask_inputs(mean - centre, where)
    precision = jnp.exp(-log_variance)
    squares = (
        jnp.square(y) @ precision.T
        - 2.0 * y @ (mean * precision).T
        + (jnp.square(mean) * precision).sum(axis=1)
    )
    log_q = -0.5 * (squares + log_variance.sum(axis=1))  # [i, j]: y_i under q(. | x_j)
    own = jnp.diagonal(log_q)
    pairs = pair_mask(where, size)
    some = pairs.any(axis=1)
    log_q = jnp.where(some[:, None], jnp.where(pairs, log_q, -jnp.inf), 0.0)
    others = jax.nn.logsumexp(log_q, axis=1) - jnp.log(at_least_one(count - 1))
    return mask_losses(jnp.where(some, own - others, 0.0), where)


def _square(scores: Array, where: Array | None, name: str = "scores") -> jax.Array:
    """Scores as float32 with masked rows and columns 0."""
    scores = as_float32(scores)
    if scores.ndim != 2 or scores.shape[0] != scores.shape[1]:
        raise ValueError(f"{name} must be [B, B], not {scores.shape}")
    check_shape("where", where, scores.shape[:1])
    return mask_inputs(mask_inputs(scores, where).T, where).T


def _off_diagonal(scores: jax.Array, where: Array | None, fill: float) -> jax.Array:
    return jnp.where(pair_mask(where, scores.shape[0]), scores, fill)


def _log_mean_exp(scores: jax.Array, pairs: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return whether there is a pair, and the log of the mean of exp(scores) over the pairs."""
    some = pairs.any()
    # Without a pair nothing is used: a finite entry keeps the logsumexp's gradient finite.
    scores = jnp.where(some, jnp.where(pairs, scores, -jnp.inf), 0.0)
    return some, jax.nn.logsumexp(scores) - jnp.log(at_least_one(pairs.sum()))


def _row_mean(values: jax.Array, where: Array | None) -> jax.Array:
    """Mean over each row's pairs with other examples; the rest of ``values`` is 0 already."""
    count = full_mask(where, values.shape[0]).sum()
    return values.sum(axis=1) / at_least_one(count - 1)


def _gaussian(
    mean: Array, log_variance: Array, y: Array, where: Array | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    check_shape("mean", mean, jnp.shape(y))
    check_shape("log_variance", log_variance, jnp.shape(y))
    check_shape("where", where, jnp.shape(y)[:-1])
    mean, log_variance, y = (
        mask_inputs(as_float32(array), where) for array in (mean, log_variance, y)
    )
    return mean, log_variance, y
