"""Next-item losses: which of the catalogue's items comes next."""

from typing import Any

import jax
import jax.numpy as jnp

from jmrec.kernels.catalogue import catalogue_cross_entropy
from jmrec.kernels.spread import pick
from jmrec.losses.masks import (
    as_float32,
    at_least_one,
    check_shape,
    entry_mask,
    flatten_leading,
    full_mask,
    mask_inputs,
    mask_losses,
    pair_mask,
)
from jmrec.types import Array


def full_softmax(
    states: Array,
    items: Array,
    targets: Array,
    *,
    bias: Array | None = None,
    valid: Array | None = None,
    where: Array | None = None,
    temperature: Any = 1.0,
    chunk: int | None = None,
) -> jax.Array:
    """Return -log softmax(<state, item> / temperature + bias)[target] over the whole catalogue.

    Compatible with jit, vmap and grad (states, items, bias, temperature). The [..., V] logits are
    not built when V > chunk.

    Use: by default; the exact loss, at the memory of a sampled one. Costs N V D multiplications.
    Formula: log sum_v exp z_v - z_target, z = <state, item> / T + bias.

    Args:
      states: [..., D].
      items: [V, D].
      targets: int [...], rows of ``items``; ignored where masked.
      bias: [V], added to the logits after the division by the temperature.
      valid: bool [V], False for rows that are no candidates.
      where: bool [...], False for masked positions.
      temperature: > 0, a number or a traced scalar.
      chunk: Items per block, static; None is what suits the devices.

    Returns:
      float32 [...], 0 where masked; +inf where a target is out of range or not valid.

    Raises:
      ValueError: If the shapes do not fit.

    References:
      Wijmans et al., Cut Your Losses in Large-Vocabulary Language Models, 2024 (the logits in
      blocks): https://arxiv.org/abs/2411.09009

    Example:
      >>> import jax.numpy as jnp
      >>> losses = full_softmax(jnp.zeros((2, 3, 4)), jnp.ones((8, 4)), jnp.zeros((2, 3), int))
      >>> losses.shape, round(float(losses[0, 0]), 4)
      ((2, 3), 2.0794)
    """
    states = jnp.asarray(states)
    leading = states.shape[:-1]
    check_shape("targets", targets, leading)
    check_shape("where", where, leading)
    states = mask_inputs(states, where)
    scaled = (as_float32(states) / temperature).astype(states.dtype)
    losses = catalogue_cross_entropy(
        flatten_leading(scaled, leading),
        items,
        flatten_leading(targets, leading),
        bias=bias,
        valid=valid,
        where=None if where is None else flatten_leading(where, leading),
        chunk=chunk,
    )
    return losses.reshape(leading)


def sampled_softmax(
    states: Array,
    items: Array,
    targets: Array,
    samples: Array,
    *,
    log_q: Array | None = None,
    correct_target: bool = False,
    where: Array | None = None,
    temperature: Any = 1.0,
) -> jax.Array:
    """Return -log softmax of the target among itself and sampled items, corrected for the sampling.

    Compatible with jit, vmap and grad (states, items, temperature). Samples that are the target
    (accidental hits) are left out. With ``log_q`` the sum over the samples estimates that over the
    whole catalogue without bias, so more samples come nearer to `full_softmax`.

    Use: for catalogues so large that not even blocks of all items can be scored at every step.
    Formula: log(exp z_target + sum_j exp(z_j - log(M q_j))) - z_target, z = <state, item> / T.

    Args:
      states: [..., D].
      items: [V, D], a table of ids or of features.
      targets: int [...], rows of ``items``; ignored where masked.
      samples: int [M], rows of ``items`` drawn for all positions, or [..., M] for each its own.
      log_q: [V], the log-probability with which one draw gives each item; None for no correction
        (right up to a constant only if all items are drawn alike).
      correct_target: Whether the target's logit is corrected like those of the samples, as is
        common. It is not sampled, so the uncorrected form is the unbiased one; the common form
        lifts rare targets further.
      where: bool [...], False for masked positions.
      temperature: > 0, a number or a traced scalar.

    Returns:
      float32 [...], 0 where masked; +inf where a target is out of range.

    Raises:
      ValueError: If the shapes do not fit.

    References:
      Jean, Cho, Memisevic, Bengio, On Using Very Large Target Vocabulary for Neural Machine
      Translation, 2014: https://arxiv.org/abs/1412.2007
      Khrylchenko et al., Correcting the LogQ Correction: Revisiting Sampled Softmax for Large-Scale
      Retrieval, 2025: https://arxiv.org/abs/2507.09331

    Example:
      >>> import jax.numpy as jnp
      >>> states, items, everything = jnp.ones((1, 2)), jnp.ones((8, 2)), jnp.arange(8)
      >>> loss = sampled_softmax(states, items, jnp.array([3]), everything,
      ...                        log_q=jnp.full(8, -jnp.log(8.0)))
      >>> round(float(loss[0]), 4)  # every item drawn once: log 8
      2.0794
    """
    states, items = as_float32(states), as_float32(items)
    targets, samples = jnp.asarray(targets), jnp.asarray(samples)
    leading = states.shape[:-1]
    check_shape("targets", targets, leading)
    check_shape("where", where, leading)
    check_shape("log_q", log_q, items.shape[:1])
    shared = samples.ndim == 1
    if not shared:
        check_shape("samples", samples[..., 0], leading)
        samples = mask_inputs(samples, where)
    states, targets = mask_inputs(states, where) / temperature, mask_inputs(targets, where)
    own = (states * pick(items, targets)).sum(axis=-1)
    drawn = pick(items, samples)
    others = states @ drawn.T if shared else jnp.einsum("...d,...md->...m", states, drawn)
    if log_q is not None:
        log_count = as_float32(log_q) + jnp.log(jnp.float32(samples.shape[-1]))
        others = others - log_count[samples]
        own = own - log_count[targets] if correct_target else own
    others = jnp.where(samples == targets[..., None], -jnp.inf, others)
    together = jnp.concatenate([own[..., None], others], axis=-1)
    known = (targets >= 0) & (targets < items.shape[0])
    losses = jnp.where(known, jax.nn.logsumexp(together, axis=-1) - own, jnp.inf)
    return mask_losses(losses, where)


def in_batch_softmax(
    states: Array,
    items: Array,
    *,
    ids: Array | None = None,
    log_q: Array | None = None,
    correct_target: bool = False,
    where: Array | None = None,
    temperature: Any = 1.0,
) -> jax.Array:
    """Return -log softmax of each state's item among the items of the batch.

    Compatible with jit, vmap and grad (states, items, temperature). It couples the examples of a
    batch: no accumulation.

    Use: where item vectors are made by a tower and only those of the batch are at hand. Without
      ``log_q`` popular items are pushed down, because they are negatives more often.
    Formula: log(exp z_ii + sum_{j != i} exp(z_ij - log((n - 1) q_j))) - z_ii.

    Args:
      states: [B, D].
      items: [B, D]; row i is the item that follows state i, and a negative of the others.
      ids: int [B], which item each row is: rows of the same item are no negatives of one another
        (accidental hits). None: all differ.
      log_q: [B], the log of each item's share of the targets in the data; None for no correction.
      correct_target: Whether the own item's logit is corrected too, see `sampled_softmax`.
      where: bool [B], False for masked pairs: no loss, and no negatives of others.
      temperature: > 0, a number or a traced scalar.

    Returns:
      float32 [B], 0 where masked, and 0 for a pair without negatives unless its logit is corrected.

    Raises:
      ValueError: If the shapes do not fit.

    References:
      Yi et al., Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations,
      2019: https://doi.org/10.1145/3298689.3346996

    Example:
      >>> import jax.numpy as jnp
      >>> losses = in_batch_softmax(jnp.zeros((4, 2)), jnp.ones((4, 2)))
      >>> round(float(losses[0]), 4)  # log 4
      1.3863
    """
    states, items = as_float32(states), as_float32(items)
    if states.ndim != 2 or states.shape != items.shape:
        raise ValueError(f"states and items must both be [B, D]: {states.shape} and {items.shape}")
    size = states.shape[0]
    for name, array in (("ids", ids), ("log_q", log_q), ("where", where)):
        check_shape(name, array, (size,))
    states, items = mask_inputs(states, where), mask_inputs(items, where)
    logits = states @ items.T / temperature
    own = jnp.diagonal(logits)
    negative = pair_mask(where, size)
    if log_q is not None:
        draws = at_least_one(full_mask(where, size).sum() - 1)
        log_count = mask_inputs(as_float32(log_q), where) + jnp.log(draws)
        logits = logits - log_count
        own = own - log_count if correct_target else own
    if ids is not None:
        ids = jnp.asarray(ids)
        negative &= ids[:, None] != ids[None, :]
    others = jnp.where(negative, logits, -jnp.inf)
    together = jnp.concatenate([own[:, None], others], axis=1)
    return mask_losses(jax.nn.logsumexp(together, axis=1) - own, where)


def bpr(positive_scores: Array, negative_scores: Array, *, where: Array | None = None) -> jax.Array:
    """Return -log sigmoid(positive - negative), Bayesian personalised ranking.

    Compatible with jit, vmap and grad.

    Use: to rank one item above few sampled ones, where probabilities do not matter.
    Formula: log(1 + exp(s_negative - s_positive)).

    Args:
      positive_scores: [...].
      negative_scores: [...], or [..., M] for M negatives, over which the loss is averaged.
      where: bool [...], False for masked positions.

    Returns:
      float32 [...], 0 where masked.

    Raises:
      ValueError: If the shapes do not fit.

    References:
      Rendle et al., BPR: Bayesian Personalized Ranking from Implicit Feedback, 2009:
      https://arxiv.org/abs/1205.2618

    Example:
      >>> import jax.numpy as jnp
      >>> round(float(bpr(jnp.array([1.0]), jnp.array([1.0]))[0]), 4)
      0.6931
    """
    positive, negative = as_float32(positive_scores), as_float32(negative_scores)
    check_shape("where", where, positive.shape)
    several = negative.ndim == positive.ndim + 1
    check_shape("negative_scores", negative[..., 0] if several else negative, positive.shape)
    positive, negative = mask_inputs(positive, where), mask_inputs(negative, where)
    if several:
        losses = jax.nn.softplus(negative - positive[..., None]).mean(axis=-1)
    else:
        losses = jax.nn.softplus(negative - positive)
    return mask_losses(losses, where)


def bce(
    positive_scores: Array,
    negative_scores: Array,
    *,
    calibration: Any = 0.0,
    sampling_rate: Any = 1.0,
    valid: Array | None = None,
    where: Array | None = None,
) -> jax.Array:
    """Return the binary cross-entropy of a positive and its sampled negatives, gBCE by choice.

    Compatible with jit, vmap and grad (scores). Few negatives make a model overconfident: it never
    meets most of the items that it should not like. gBCE raises the positive's sigmoid to a power
    beta <= 1 that undoes this, from the share of the catalogue that is sampled.

    Use: with few negatives a position. ``calibration`` 0 is plain BCE, 1 gives probabilities that
      are right for the whole catalogue; 0.75 was good in the paper.
    Formula: -(beta log sigmoid(s_positive) + sum_m log(1 - sigmoid(s_m))) / (1 + M),
      beta = 1 - calibration (1 - sampling_rate).

    Args:
      positive_scores: [...].
      negative_scores: [..., M].
      calibration: t in [0, 1], a number or a traced scalar.
      sampling_rate: M / (catalogue - 1), in (0, 1]; a number or a traced scalar.
      valid: bool, broadcastable to [..., M], False for negatives that do not count.
      where: bool [...], False for masked positions.

    Returns:
      float32 [...], 0 where masked.

    Raises:
      ValueError: If the shapes do not fit.

    References:
      Petrov, Macdonald, gSASRec: Reducing Overconfidence in Sequential Recommendation Trained with
      Negative Sampling, 2023: https://arxiv.org/abs/2308.07192

    Example:
      >>> import jax.numpy as jnp
      >>> round(float(bce(jnp.zeros(1), jnp.zeros((1, 3)))[0]), 4)  # log 2
      0.6931
    """
    positive, negative = as_float32(positive_scores), as_float32(negative_scores)
    check_shape("where", where, positive.shape)
    check_shape("negative_scores", negative[..., 0], positive.shape)
    mask = entry_mask("valid", valid, negative.shape)
    positive, negative = mask_inputs(positive, where), mask_inputs(negative, where)
    negative = jnp.where(mask, negative, 0.0)
    beta = 1.0 - calibration * (1.0 - sampling_rate)
    losses = beta * jax.nn.softplus(-positive)
    losses += jnp.where(mask, jax.nn.softplus(negative), 0.0).sum(axis=-1)
    return mask_losses(losses / (1 + mask.sum(axis=-1)), where)


def gbce(
    positive_scores: Array,
    negative_scores: Array,
    *,
    sampling_rate: Any,
    calibration: Any = 0.75,
    valid: Array | None = None,
    where: Array | None = None,
) -> jax.Array:
    """Return `bce` calibrated as its authors advise, for a given share of sampled negatives.

    Compatible with jit, vmap and grad (scores).

    Use: as `bce`, by its name alone. Every negative of gSASRec is drawn for its own position; where
      one draw serves a whole batch, take more of them.
    Formula: that of bce.

    Args:
      positive_scores: [...].
      negative_scores: [..., M].
      sampling_rate: M / (catalogue - 1), in (0, 1]; a number or a traced scalar.
      calibration: t in [0, 1], a number or a traced scalar.
      valid: bool, broadcastable to [..., M], False for negatives that do not count.
      where: bool [...], False for masked positions.

    Returns:
      float32 [...], 0 where masked.

    Raises:
      ValueError: If the shapes do not fit.

    References:
      Petrov, Macdonald, gSASRec: Reducing Overconfidence in Sequential Recommendation Trained with
      Negative Sampling, 2023: https://arxiv.org/abs/2308.07192

    Example:
      >>> import jax.numpy as jnp
      >>> loss = gbce(jnp.zeros(1), jnp.zeros((1, 3)), sampling_rate=0.2)
      >>> round(float(loss[0]), 4)  # (0.4 + 3) / 4 log 2
      0.5892
    """
    return bce(
        positive_scores, negative_scores, calibration=calibration, sampling_rate=sampling_rate,
        valid=valid, where=where,
    )  # fmt: skip
