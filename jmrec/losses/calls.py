"""One way to call every next-item loss, whatever it compares a target with.

`jmrec.losses.families` says of each loss which of the calls below is its own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp

from jmrec.kernels.spread import pick
from jmrec.losses.masks import as_float32, at_least_one, flatten_leading, mask_inputs
from jmrec.types import Array

Loss = Callable[..., jax.Array]
HIT = -1e4
"""The score of a negative that is the target itself: so low that it counts for nothing."""


@dataclass(frozen=True)
class NextItem:
    """A next-item loss that is called like all others.

    Attributes:
      loss: The loss itself.
      how: One of the functions of this module whose name begins with "over".
    """

    loss: Loss
    how: Callable[..., jax.Array]

    @property
    def couples_examples(self) -> bool:
        """Whether a batch's examples are each other's negatives: no accumulation."""
        return self.how is over_batch

    def __call__(
        self, states: Array, items: Array, targets: Array, *, valid: Array, where: Array,
        key: jax.Array, negatives: int,
    ) -> jax.Array:  # fmt: skip
        """Return the loss of each position.

        Args:
          states: [..., D].
          items: [V, D].
          targets: int [...], rows of ``items``.
          valid: bool [V], False for rows that are no candidates.
          where: bool [...], False for masked positions.
          key: What is sampled is drawn with it, for all positions at once.
          negatives: M, how many items are sampled, where some are; static.

        Returns:
          float32 [...], 0 where masked.

        Example:
          >>> from jmrec.losses import bpr
          >>> call = NextItem(bpr, over_scores)
          >>> some = {"valid": jnp.ones(8, bool), "where": jnp.ones(2, bool)}
          >>> loss = call(jnp.zeros((2, 4)), jnp.ones((8, 4)), jnp.array([0, 1]), **some,
          ...             key=jax.random.key(0), negatives=3)
          >>> loss.shape
          (2,)
        """
        return self.how(self.loss, states, items, targets, valid, where, key, negatives)


def over_catalogue(
    loss: Loss, states: Array, items: Array, targets: Array, valid: Array, where: Array,
    key: jax.Array, negatives: int,
) -> jax.Array:  # fmt: skip
    """Call ``loss(states, items, targets, valid=, where=)``: all valid items are compared."""
    return loss(states, items, targets, valid=valid, where=where)


def over_samples(
    loss: Loss, states: Array, items: Array, targets: Array, valid: Array, where: Array,
    key: jax.Array, negatives: int,
) -> jax.Array:  # fmt: skip
    """Call ``loss(states, items, targets, samples [M], log_q=[V], where=)``."""
    log_q = jnp.full(len(valid), -jnp.log(jnp.sum(valid).astype(jnp.float32)))
    samples = draw(key, valid, negatives)
    return loss(states, items, targets, samples, log_q=log_q, where=where)


def over_batch(
    loss: Loss, states: Array, items: Array, targets: Array, valid: Array, where: Array,
    key: jax.Array, negatives: int,
) -> jax.Array:  # fmt: skip
    """Call ``loss(states [N, D], own items [N, D], ids=[N], log_q=[N], where=)``.

    The targets of the batch are compared with one another. An item's share of them is its log_q, so
    that one which many positions ask for counts once.
    """
    leading = targets.shape
    states, ids, ok = (flatten_leading(each, leading) for each in (states, targets, where))
    ids = mask_inputs(ids, ok)  # a masked position has any target
    alike = (ids[:, None] == ids[None, :]) & ok[None, :]
    share = alike.sum(1) / at_least_one(ok.sum())
    log_q = jnp.log(jnp.where(ok, share, 1.0))
    own = pick(jnp.asarray(items), ids)
    return loss(states, own, ids=ids, log_q=log_q, where=ok).reshape(leading)


def over_scores(
    loss: Loss, states: Array, items: Array, targets: Array, valid: Array, where: Array,
    key: jax.Array, negatives: int,
) -> jax.Array:  # fmt: skip
    """Call ``loss(positive scores [...], negative scores [..., M], where=)``."""
    states, items = as_float32(states), as_float32(items)
    states, targets = mask_inputs(states, where), mask_inputs(jnp.asarray(targets), where)
    samples = draw(key, valid, negatives)
    scores = jnp.where(samples == targets[..., None], HIT, states @ pick(items, samples).T)
    return loss((states * pick(items, targets)).sum(-1), scores, where=where)


def over_share(
    loss: Loss, states: Array, items: Array, targets: Array, valid: Array, where: Array,
    key: jax.Array, negatives: int,
) -> jax.Array:  # fmt: skip
    """Call as `over_scores`, with ``sampling_rate=``: M as a share of the other valid items."""
    rate = jnp.minimum(negatives / at_least_one(jnp.sum(valid) - 1), 1.0)
    rated = partial(loss, sampling_rate=rate)
    return over_scores(rated, states, items, targets, valid, where, key, negatives)


def draw(key: jax.Array, valid: Array, count: int) -> jax.Array:
    """Return int [count] rows of ``valid`` [V] that are True, drawn evenly and with replacement.

    Example:
      >>> rows = draw(jax.random.key(0), jnp.array([False, True, False, True]), 100)
      >>> sorted(set(rows.tolist()))
      [1, 3]
    """
    upto = jnp.cumsum(jnp.asarray(valid))
    wanted = jax.random.randint(key, (count,), 0, jnp.maximum(upto[-1], 1))
    return jnp.searchsorted(upto, wanted, side="right")
