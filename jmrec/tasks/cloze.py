"""What a cloze hides of sessions, for encoders that learn to fill in hidden items."""

import jax
import jax.numpy as jnp

from jmrec.types import Batch


def cloze(
    batch: Batch, key: jax.Array, hide: jax.Array | float, last: jax.Array | float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return whole sessions and which of their items are hidden.

    Args:
      batch: ``item``, ``mask``, ``target`` and ``target_ok``, [B, L] as in `jmrec.types`; ``mask``
        is bool with padding at the right.
      key: What draws.
      hide: Share of the items that are hidden.
      last: Share of the sessions of which the last item alone is hidden; so it is too where
        nothing else was drawn.

    Returns:
      ``item`` int32 [B, L + 1], the items and behind them the last target; ``real`` bool, where
      there are any; ``hidden`` bool, those to fill in. An item is never hidden that may not be a
      target, the first one where the second may not.

    Example:
      >>> row = jnp.array([[3, 1, 4]])
      >>> batch = {"item": row, "target": row + 1, "mask": row > 0, "target_ok": row != 1}
      >>> item, real, hidden = cloze(batch, jax.random.key(0), 0.0, 0.0)
      >>> item.tolist(), hidden.astype(int).tolist()
      ([[3, 4, 2, 5]], [[0, 0, 0, 1]])
    """
    item = jnp.concatenate([batch["item"][:, :1], batch["target"]], 1)
    real = jnp.concatenate([batch["mask"][:, :1], batch["mask"]], 1)
    may = jnp.concatenate([batch["target_ok"][:, :1], batch["target_ok"]], 1) & real
    key_items, key_sessions = jax.random.split(key)
    drawn = may & (jax.random.uniform(key_items, may.shape) < hide)
    only_last = jax.random.uniform(key_sessions, (len(may), 1)) < last
    places = jnp.arange(may.shape[1])
    final = may & (places == jnp.where(may, places, -1).max(1, keepdims=True))
    nothing = ~drawn.any(1, keepdims=True)
    return item, real, jnp.where(only_last | nothing, final, drawn)
