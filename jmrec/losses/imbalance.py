"""Classification when classes are not equally frequent, or not equally hard.

Every loss takes multi-class logits [..., K], or binary logits [...]: one number z for "it is class
1", which are two-class logits (0, z). Labels are class numbers, so 0 or 1 for binary logits.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jmrec.losses.masks import as_float32, check_shape, mask_inputs, mask_losses
from jmrec.types import Array


def class_weighted(
    logits: Array, labels: Array, weights: Array, *, where: Array | None = None
) -> jax.Array:
    """Return the cross-entropy times the weight of the true class.

    Compatible with jit, vmap and grad (logits, weights).

    Use: where errors on one class cost more, or as the plainest answer to a rare one. It moves the
      threshold: the probabilities are those of re-weighted data.
    Formula: -w_y log softmax(z)_y.

    Args:
      logits: [..., K], or [...] for two classes.
      labels: int [...].
      weights: [K] (2 for binary logits), not negative.
      where: bool [...], False for masked examples.

    Returns:
      float32 [...], 0 where masked.

    Raises:
      ValueError: If the shapes do not fit.

    References:
      King, Zeng, Logistic Regression in Rare Events Data, 2001 (weighting):
      https://doi.org/10.1093/oxfordjournals.pan.a004868

    Example:
      >>> import jax.numpy as jnp
      >>> loss = class_weighted(jnp.zeros(2), jnp.array([0, 1]), jnp.array([1.0, 10.0]))
      >>> [round(float(x), 4) for x in loss]
      [0.6931, 6.9315]
    """
    return focal(logits, labels, gamma=0.0, weights=weights, where=where)


def focal(
    logits: Array,
    labels: Array,
    *,
    gamma: Any = 2.0,
    weights: Array | None = None,
    where: Array | None = None,
) -> jax.Array:
    """Return the cross-entropy, with examples that are right already counted less.

    Compatible with jit, vmap and grad (logits, weights).

    Use: where many easy negatives drown few hard examples. Its probabilities are underconfident:
      calibrate before they are read as such.
    Formula: -w_y (1 - p_y)**gamma log p_y, p = softmax(z).

    Args:
      logits: [..., K], or [...] for two classes.
      labels: int [...].
      gamma: At least 0, a number or a traced scalar; 0 is the cross-entropy.
      weights: [K] (2 for binary logits), the alpha of the paper; None for 1.
      where: bool [...], False for masked examples.

    Returns:
      float32 [...], 0 where masked.

    Raises:
      ValueError: If the shapes do not fit.

    References:
      Lin et al., Focal Loss for Dense Object Detection, 2017: https://arxiv.org/abs/1708.02002

    Example:
      >>> import jax.numpy as jnp
      >>> round(float(focal(jnp.zeros(1), jnp.array([1]))[0]), 4)  # log 2 / 4
      0.1733
    """
    logits, labels = _classes(logits, labels, where)
    check_shape("weights", weights, logits.shape[-1:])
    own = jnp.arange(logits.shape[-1]) == labels[..., None]
    lse = jax.nn.logsumexp(logits, axis=-1)
    loss = lse - jnp.where(own, logits, 0.0).sum(axis=-1)
    # log(1 - p), from the others' own sum: 1 - exp(-loss) would lose it where p nears 1.
    log_rest = jax.nn.logsumexp(jnp.where(own, -jnp.inf, logits), axis=-1) - lse
    log_rest = jnp.maximum(log_rest, -1e30)  # gamma 0 times -inf is no number
    losses = jnp.exp(jnp.asarray(gamma, jnp.float32) * log_rest) * loss
    if weights is not None:
        losses = as_float32(weights)[labels] * losses
    return mask_losses(losses, where)


def logit_adjusted(
    logits: Array, labels: Array, prior: Array, *, tau: Any = 1.0, where: Array | None = None
) -> jax.Array:
    """Return the cross-entropy of logits to which the log of each class's share is added.

    Compatible with jit, vmap and grad (logits).

    Use: to rank classes (or items) as if all were equally frequent: the logits learn what the share
      does not explain. It aims at the balanced error, where weights hardly move a separable task.
    Formula: -log softmax(z + tau log prior)_y.

    Args:
      logits: [..., K], or [...] for two classes.
      labels: int [...].
      prior: [K] (2 for binary logits), positive, each class's share of the training data; its sum
        does not matter.
      tau: A number or a traced scalar; 0 is the cross-entropy.
      where: bool [...], False for masked examples.

    Returns:
      float32 [...], 0 where masked.

    Raises:
      ValueError: If the shapes do not fit.

    References:
      Menon et al., Long-Tail Learning via Logit Adjustment, 2020: https://arxiv.org/abs/2007.07314

    Example:
      >>> import jax.numpy as jnp
      >>> loss = logit_adjusted(jnp.zeros(1), jnp.array([1]), jnp.array([0.9, 0.1]))
      >>> round(float(loss[0]), 4)  # -log 0.1
      2.3026
    """
    logits, labels = _classes(logits, labels, where)
    check_shape("prior", prior, logits.shape[-1:])
    return focal(logits + tau * jnp.log(as_float32(prior)), labels, gamma=0.0, where=where)


def class_balanced(
    logits: Array,
    labels: Array,
    counts: Array,
    *,
    beta: Any = 0.999,
    gamma: Any = 0.0,
    where: Array | None = None,
) -> jax.Array:
    """Return the cross-entropy (or `focal`) weighted by one over each class's effective number.

    Compatible with jit, vmap and grad (logits).

    Use: as `class_weighted`, with weights from the counts alone: beta 0 is none, beta near 1 is one
      over the count, between them examples of a frequent class are taken to repeat one another.
    Formula: -w_y (1 - p_y)**gamma log p_y, w ~ (1 - beta) / (1 - beta**count), of mean 1.

    Args:
      logits: [..., K], or [...] for two classes.
      labels: int [...].
      counts: [K] (2 for binary logits), examples of each class; a class without any weighs nothing.
      beta: In [0, 1), a number or a traced scalar.
      gamma: Of `focal`, a number or a traced scalar.
      where: bool [...], False for masked examples.

    Returns:
      float32 [...], 0 where masked.

    Raises:
      ValueError: If the shapes do not fit.

    References:
      Cui, Jia, Lin, Song, Belongie, Class-Balanced Loss Based on Effective Number of Samples, 2019:
      https://arxiv.org/abs/1901.05555

    Example:
      >>> import jax.numpy as jnp
      >>> counts = jnp.array([99.0, 1.0])
      >>> loss = class_balanced(jnp.zeros(2), jnp.array([0, 1]), counts, beta=0.0)
      >>> [round(float(x), 4) for x in loss]
      [0.6931, 0.6931]
    """
    weights = effective_number_weights(counts, beta)
    return focal(logits, labels, gamma=gamma, weights=weights, where=where)


def pairwise_logistic(logits: Array, labels: Array, *, where: Array | None = None) -> jax.Array:
    """Return how far each example of class 1 ranks above those of class 0.

    Compatible with jit, vmap and grad (logits). Couples the examples: needs an [N, N] array.

    Use: where the order counts (the area under the ROC curve); beside a cross-entropy, since it
      says nothing of the level of the logits.
    Formula: of an example i of class 1, mean over j of class 0 of log(1 + exp(z_j - z_i)).

    Args:
      logits: [N], binary.
      labels: int [N].
      where: bool [N], False for masked examples.

    Returns:
      float32 [N], 0 for class 0, where masked, and where there is no example of class 0.

    Raises:
      ValueError: If the shapes do not fit.

    References:
      Burges et al., Learning to Rank using Gradient Descent, 2005:
      https://doi.org/10.1145/1102351.1102363

    Example:
      >>> import jax.numpy as jnp
      >>> loss = pairwise_logistic(jnp.zeros(3), jnp.array([0, 1, 0]))
      >>> [round(float(x), 4) for x in loss]
      [0.0, 0.6931, 0.0]
    """
    logits, labels = as_float32(logits), jnp.asarray(labels)
    check_shape("labels", labels, logits.shape)
    check_shape("where", where, labels.shape)
    logits = mask_inputs(logits, where)
    rest = labels == 0
    if where is not None:
        rest = rest & jnp.asarray(where)
    above = jax.nn.softplus(logits[None, :] - logits[:, None])
    mean = jnp.where(rest[None, :], above, 0.0).sum(axis=1) / jnp.maximum(rest.sum(), 1)
    return mask_losses(jnp.where(labels == 1, mean, 0.0), where)


def effective_number_weights(counts: Array, beta: Any = 0.999) -> jax.Array:
    """Return one over the effective number of each class, scaled to a mean of 1.

    Args:
      counts: [K], examples of each class.
      beta: In [0, 1), a number or a traced scalar.

    Returns:
      float32 [K], 0 for a class without examples; their mean over the other classes is 1.

    References:
      Cui, Jia, Lin, Song, Belongie, Class-Balanced Loss Based on Effective Number of Samples, 2019:
      https://arxiv.org/abs/1901.05555

    Example:
      >>> import jax.numpy as jnp
      >>> effective_number_weights(jnp.array([3.0, 1.0, 0.0]), 0.0).tolist()
      [1.0, 1.0, 0.0]
    """
    counts = as_float32(counts)
    some = counts > 0
    log_beta = jnp.log(jnp.asarray(beta, jnp.float32))
    effective = -jnp.expm1(jnp.where(some, counts, 1.0) * log_beta)
    weights = jnp.where(some, 1.0 / effective, 0.0)
    return weights * some.sum() / jnp.where(some.any(), weights.sum(), 1.0)


def _classes(logits: Array, labels: Array, where: Array | None) -> tuple[jax.Array, jax.Array]:
    """Logits [..., K] and labels [...], masked; binary logits z become (0, z)."""
    logits, labels = as_float32(logits), jnp.asarray(labels)
    if logits.ndim == labels.ndim:
        check_shape("labels", labels, logits.shape)
        logits = jnp.stack([jnp.zeros_like(logits), logits], axis=-1)
    check_shape("labels", labels, logits.shape[:-1])
    check_shape("where", where, labels.shape)
    return mask_inputs(logits, where), mask_inputs(labels, where)
