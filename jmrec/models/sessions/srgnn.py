"""SR-GNN: a session is the graph of its transitions, and what passes along its edges.

The graph of a longer session is another one, also for the items that came before; so the encoder is
not causal, and each prefix is encoded by itself. Two clicks are of one item if its vectors are the
same; to an encoder all unknown items are one.

References:
  Wu, Tang, Zhu, Wang, Xie, Tan, Session-based Recommendation with Graph Neural Networks,
  https://arxiv.org/abs/1811.00855
"""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from jmrec.models.parts.basic import Initialiser, Linear, dense, even_init, named
from jmrec.models.sessions.items import OverItems, check_sizes, over_items
from jmrec.types import Model


@dataclass(frozen=True)
class SrgnnConfig:
    """The encoder's size.

    Attributes:
      features: Width of the items' features, 0 for none.
      ids: Rows of the table of item ids, 0 for none.
      width: Of item vectors and states.
      steps: How many times what the items hold passes along the edges.
    """

    features: int
    ids: int
    width: int = 64
    steps: int = 1

    def __post_init__(self) -> None:
        check_sizes(self, "srgnn", "steps")


def neighbours(x: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return the graph of each session, in terms of positions.

    An edge goes from an item to each item that follows it somewhere, once.

    Args:
      x: Item vectors [B, L, D].
      mask: bool [B, L], real positions, which stand together.

    Returns:
      ``before`` float32 [B, L, L]: entry [b, i, j] is the share of the item of j among those with
      an edge to the item of i; an item that stands in several places has it in the first of them.
      ``after``, the same of those with an edge from the item of i. ``first`` int32 [B, L], where
      the item of a position stands first.

    Example:
      >>> clicks = jnp.array([1.0, 2.0, 1.0, 3.0])  # 1 -> 2, 2 -> 1, 1 -> 3
      >>> before, after, first = neighbours(clicks[None, :, None], jnp.ones((1, 4), bool))
      >>> after[0].tolist()
      [[0.0, 0.5, 0.0, 0.5], [1.0, 0.0, 0.0, 0.0], [0.0, 0.5, 0.0, 0.5], [0.0, 0.0, 0.0, 0.0]]
      >>> first.tolist()
      [[0, 1, 0, 3]]
    """
    both = mask[:, :, None] & mask[:, None, :]
    same = both & (x[:, :, None] == x[:, None, :]).all(-1)
    first = jnp.argmax(same, -1)
    node = first == jnp.arange(mask.shape[1])
    alike = same.astype(jnp.float32)
    # The item of i is followed by the item of j: at some place p it stands, and that at p + 1.
    edges = jnp.einsum("bip,bpj->bij", alike[:, :, :-1], alike[:, 1:]) > 0

    def shares(each: jax.Array) -> jax.Array:
        counted = (each & node[:, None]).astype(jnp.float32)
        return counted / jnp.maximum(counted.sum(-1, keepdims=True), 1.0)

    return shares(jnp.swapaxes(edges, 1, 2)), shares(edges), first


class Srgnn(OverItems):
    """The module; see `srgnn` for the pure functions."""

    config: SrgnnConfig

    def id_init(self) -> Initialiser:
        """Return what draws the table of item ids."""
        return even_init(self.config.width**-0.5)

    def setup(self) -> None:
        """Declare the layers."""
        super().setup()
        width, init = self.config.width, self.id_init()

        def layer(name: str, size: int = width, bias: bool = True) -> Linear:
            return dense(size, ("embed", "out"), jnp.float32, name, bias=bias, init=init)

        zeros = named(nn.initializers.zeros_init(), "out")
        self.before, self.after = layer("before"), layer("after")
        self.before_shift = self.param("before_shift", zeros, (width,))
        self.after_shift = self.param("after_shift", zeros, (width,))
        self.passed, self.own = layer("passed", 3 * width), layer("own", 3 * width)
        self.query, self.key = layer("query"), layer("key")
        self.weigh = dense(1, ("embed", None), jnp.float32, "weigh", init=init)
        self.head = layer("head")

    def encode_session(
        self, x: jax.Array, mask: jax.Array, dropout: jax.Array | float = 0.0
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Encode item vectors x [B, L, width] with mask bool [B, L] to one state [B, width].

        Padding is at the right. Dropout is on the item vectors (the paper has none).
        """
        before, after, first = neighbours(x, mask)
        h = jnp.take_along_axis(self.dropped(x, dropout), first[..., None], 1)
        for _ in range(self.config.steps):
            from_before = before @ self.before(h) + self.before_shift
            from_after = after @ self.after(h) + self.after_shift
            given = self.passed(jnp.concatenate([from_before, from_after], -1))
            reset, update, new = jnp.split(given, 3, -1)
            own_reset, own_update, own_new = jnp.split(self.own(h), 3, -1)
            update = jax.nn.sigmoid(update + own_update)
            new = jnp.tanh(new + jax.nn.sigmoid(reset + own_reset) * own_new)
            h = (1 - update) * h + update * new
        end = jnp.maximum(mask.sum(1) - 1, 0)[:, None, None]
        last = jnp.take_along_axis(h, end, 1)
        weight = self.weigh(jax.nn.sigmoid(self.query(last) + self.key(h)))
        whole = jnp.where(mask[..., None], weight * h, 0.0).sum(1)
        return self.head(jnp.concatenate([whole, last[:, 0]], -1)), {"items": h}


def srgnn(config: SrgnnConfig) -> Model:
    """Return SR-GNN: fns ``item_table`` and ``encode_session``.

    Example:
      >>> model = srgnn(SrgnnConfig(features=0, ids=5, width=16))
      >>> params = model.init(jax.random.key(0))
      >>> x, _ = model.fns["item_table"](params, None, jnp.zeros(7, int))
      >>> state, _ = jax.jit(model.fns["encode_session"])(params, x[None], jnp.ones((1, 7), bool))
      >>> state.shape
      (1, 16)
    """
    return over_items(Srgnn(config))
