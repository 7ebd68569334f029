"""DLRM: ranks a (user, item) pair from numbers, ids, categories and what was read of both.

Shapes: B pairs, F numbers, K categories, P parts (what was read), L past items, D the width of all
vectors that meet.

References:
  Naumov et al., Deep Learning Recommendation Model for Personalization and Recommendation Systems,
  2019: https://arxiv.org/abs/1906.00091
  Wang et al., DCN V2: Improved Deep & Cross Network and Practical Lessons for Web-scale Learning to
  Rank Systems, 2020: https://arxiv.org/abs/2008.13535
  Zhou et al., Deep Interest Network for Click-Through Rate Prediction, 2017:
  https://arxiv.org/abs/1706.06978
"""

from collections.abc import Sequence
from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from jmrec.errors import SettingError
from jmrec.kernels.spread import pick
from jmrec.models.linen import make_model, once
from jmrec.models.parts.basic import dense, drop, named
from jmrec.types import Model

CROSSES = ("dot", "dcn")
"""How vectors meet: all products of two, or layers that multiply with the input again."""
UNKNOWN = 0
"""The row of every id table for what training has not seen."""


@dataclass(frozen=True)
class DlrmConfig:
    """The model's size.

    Attributes:
      numbers: F, numbers of a pair; 0 for none.
      items: Rows of the table of items, of which row 0 is the unknown one; 0 for no table.
      users: The same of users.
      categories: K, the rows of each category's table, of which row 0 is for a missing one.
      parts: Widths of what was read, in the order in which they are given.
      past: Width of what was read of a past item; 0 reads no past.
      width: D.
      bottom: Widths of the layers over the numbers.
      top: Widths of the layers before the logit.
      cross: One of `CROSSES`.
      cross_layers: How many layers "dcn" has.
      prior: What is added to every logit: the log odds of the training rows, so that the rest has
        to learn only what differs from them.
    """

    numbers: int
    items: int = 0
    users: int = 0
    categories: tuple[int, ...] = ()
    parts: tuple[int, ...] = ()
    past: int = 0
    width: int = 16
    bottom: tuple[int, ...] = (32,)
    top: tuple[int, ...] = (64, 32)
    cross: str = "dot"
    cross_layers: int = 2
    prior: float = 0.0

    def __post_init__(self) -> None:
        if self.cross not in CROSSES:
            raise SettingError(f"cross={self.cross!r}: choose one of {', '.join(CROSSES)}.")
        if min(self.width, *self.bottom, *self.top) < 1 or self.cross_layers < 1:
            raise SettingError("the widths and layers of a DLRM must be 1 or more.")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Pairs:
    """B pairs as the model reads them.

    Attributes:
      numbers: float32 [B, F].
      item: int32 [B], rows of the items' table.
      user: int32 [B], rows of the users' table.
      category: int32 [B, K].
      parts: P arrays float32 [B, width], what was read.
      parts_ok: bool [B, P], False where there is nothing of a part.
      past: float32 [B, L, past], what was read of the user's past items, oldest first.
      past_label: int32 [B, L], 0 or 1, and 2 where it is not known.
      past_mask: bool [B, L], True at real places.
    """

    numbers: jax.Array
    item: jax.Array
    user: jax.Array
    category: jax.Array
    parts: tuple[jax.Array, ...]
    parts_ok: jax.Array
    past: jax.Array
    past_label: jax.Array
    past_mask: jax.Array


class Dlrm(nn.Module):
    """The module; see `dlrm` for the pure function."""

    config: DlrmConfig

    @nn.compact
    def __call__(
        self, pairs: Pairs, dropout: jax.Array | float = 0.0
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Return the logits float32 [B] of the positive class; tap "vectors" [B, n, D]."""
        c = self.config
        vectors: list[jax.Array] = []
        if c.numbers:
            vectors.append(self._layers(pairs.numbers, (*c.bottom, c.width), "bottom"))
        if c.items:
            vectors.append(pick(self._table("items", c.items), pairs.item))
        if c.users:
            vectors.append(pick(self._table("users", c.users), pairs.user))
        for k, rows in enumerate(c.categories):
            vectors.append(self._table(f"category{k}", rows, None)[pairs.category[:, k]])
        read = [
            jnp.where(
                pairs.parts_ok[:, p, None],
                dense(c.width, (None, "embed"), jnp.float32, f"part{p}", bias=True)(part),
                0.0,
            )
            for p, part in enumerate(pairs.parts)
        ]
        vectors += read
        if c.past:
            vectors.append(self._attend(pairs, sum(read, jnp.zeros((len(pairs.item), c.width)))))
        key = self.make_rng("drop") if self.has_rng("drop") else None
        x = drop(jnp.stack(vectors, 1), dropout, key)
        met = self._cross(x)
        logit = dense(1, ("mlp", None), jnp.float32, "logit", bias=True)
        out = logit(self._layers(met, c.top, "top"))[:, 0]
        return out + c.prior, {"vectors": x}

    def _table(self, name: str, rows: int, axis: str | None = "item") -> jax.Array:
        # From 0.02 on it took hundreds of updates until ids and parts met at all.
        table = named(nn.initializers.normal(0.1), axis, None if axis else "embed")
        found: jax.Array = self.param(name, table, (rows, self.config.width))
        return found

    def _layers(self, x: jax.Array, widths: Sequence[int], name: str) -> jax.Array:
        for n, width in enumerate(widths):
            x = nn.relu(dense(width, (None, "mlp"), jnp.float32, f"{name}{n}", bias=True)(x))
        return x

    def _cross(self, x: jax.Array) -> jax.Array:
        """Return what the vectors [B, n, D] say together, beside themselves."""
        c, (batch, count, width) = self.config, x.shape
        flat = x.reshape(batch, count * width)
        if c.cross == "dot":
            products = jnp.einsum("bid,bjd->bij", x, x)
            upper = jnp.triu_indices(count, 1)
            return jnp.concatenate([flat, products[:, upper[0], upper[1]]], 1)
        out = flat
        for n in range(c.cross_layers):
            layer = dense(count * width, (None, "mlp"), jnp.float32, f"cross{n}", bias=True)
            out = flat * layer(out) + out
        return out

    def _attend(self, pairs: Pairs, target: jax.Array) -> jax.Array:
        """Return the past [B, D] as this item sees it; zeros where there is none."""
        width = self.config.width
        past = dense(width, (None, "embed"), jnp.float32, "past", bias=True)(pairs.past)
        label = self.param(
            "past_label", named(nn.initializers.normal(0.02), None, "embed"), (3, width)
        )
        value = past + label[pairs.past_label]
        query = dense(width, (None, "embed"), jnp.float32, "query", bias=True)(target)
        score = jnp.einsum("bd,bld->bl", query, value) / jnp.sqrt(1.0 * width)
        score = jnp.where(pairs.past_mask, score, -1e9)
        weight = jax.nn.softmax(score, -1) * pairs.past_mask
        # The sign of what a user said of alike items has to survive the average.
        both = value * target[:, None] + value
        return jnp.einsum("bl,bld->bd", weight, both)


def example_pairs(config: DlrmConfig, rows: int = 1, past: int = 1) -> Pairs:
    """Return pairs of zeros, in the model's shapes."""
    return Pairs(
        numbers=jnp.zeros((rows, config.numbers)),
        item=jnp.zeros(rows, jnp.int32),
        user=jnp.zeros(rows, jnp.int32),
        category=jnp.zeros((rows, len(config.categories)), jnp.int32),
        parts=tuple(jnp.zeros((rows, width)) for width in config.parts),
        parts_ok=jnp.zeros((rows, len(config.parts)), bool),
        past=jnp.zeros((rows, past, config.past)),
        past_label=jnp.zeros((rows, past), jnp.int32),
        past_mask=jnp.zeros((rows, past), bool),
    )


@once
def dlrm(config: DlrmConfig) -> Model:
    """Return the model: fn ``score`` maps `Pairs` to logits float32 [B].

    Example:
      >>> config = DlrmConfig(numbers=3, items=4, users=4, parts=(5,), prior=-2.0)
      >>> model = dlrm(config)
      >>> params = model.init(jax.random.key(0))
      >>> logits, _ = jax.jit(model.fns["score"])(params, example_pairs(config, 2))
      >>> logits.shape
      (2,)
    """
    return make_model(config, Dlrm(config), lambda: (example_pairs(config),), {"score": "__call__"})
