"""The light session student: item vectors from features and ids, a causal session encoder.

The encoder is attention (SASRec) beside a direct, linear path from the ends of the session.

References:
  Kang and McAuley, Self-Attentive Sequential Recommendation, https://arxiv.org/abs/1808.09781
"""

from dataclasses import dataclass, field

import flax.linen as nn
import jax
import jax.numpy as jnp

from jmrec.errors import SettingError
from jmrec.models.linen import make_model
from jmrec.models.parts.basic import dense, drop
from jmrec.models.parts.transformer import Stack, StackConfig, causal, positions_of
from jmrec.models.sessions.context import Context, Direct
from jmrec.models.sessions.items import ItemVectors
from jmrec.types import Model


@dataclass(frozen=True)
class StudentConfig:
    """The student's size.

    Attributes:
      features: Width of the feature table (k and t side by side); 0 for an id-only student.
      ids: Rows of the id table, the last one is the shared unknown row; 0 for no ids.
      stack: The causal session encoder, whose width is the width of the item vectors.
      gaps: Whether the time between events is read.
      events: Number of event types that are read; 0 reads none.
    """

    features: int
    ids: int
    stack: StackConfig = field(default_factory=StackConfig)
    gaps: bool = False
    events: int = 0

    def __post_init__(self) -> None:
        if not self.features and not self.ids:
            raise SettingError("a student needs features, ids or both.")


class Student(nn.Module):
    """The module; see `student` for the pure functions."""

    config: StudentConfig

    def setup(self) -> None:
        """Declare the layers."""
        c = self.config
        width = c.stack.width
        self.items = ItemVectors(width, c.features, c.ids)
        nn.share_scope(self, self.items)
        self.context = Context(width, c.gaps, c.events)
        self.stack = Stack(c.stack)
        self.direct = Direct(width)
        self.head = dense(width, ("embed", "out"), jnp.float32, "head", bias=True)

    def item_table(
        self, features: jax.Array | None, ids: jax.Array, id_dropout: jax.Array | float = 0.0
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Return item vectors x = W [k; t; id], float32 [V, width]; see `ItemVectors`."""
        return self.items(features, ids, id_dropout)

    def encode_session(
        self,
        x: jax.Array,
        mask: jax.Array,
        gap: jax.Array | None = None,
        event: jax.Array | None = None,
        dropout: jax.Array | float = 0.0,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Encode item vectors x [B, L, width] with mask [B, L] to states [B, L, width].

        ``mask`` is bool, or int32: see `jmrec.models.parts.transformer.causal`. ``gap`` and
        ``event`` [B, L] are those of the batch; see `jmrec.models.sessions.context.Context`.
        """
        key = self.make_rng("drop") if self.has_rng("drop") else None
        x = drop(x + self.context(mask, gap, event), dropout, key)
        states, layers = self.stack(x, positions_of(mask), causal(mask), dropout)
        out = self.head(states.astype(jnp.float32)) + self.direct(x, mask)
        return out * self.config.stack.width**-0.5, {"states": states, "layers": layers}

    def __call__(self, features: jax.Array | None, ids: jax.Array) -> jax.Array:
        """Touch every parameter once, for initialisation."""
        x, _ = self.item_table(features, ids)
        return self.encode_session(x[None], jnp.ones((1, x.shape[0]), bool))[0]


def student(config: StudentConfig) -> Model:
    """Return the student: fns ``item_table`` and ``encode_session``.

    Example:
      >>> tiny = StackConfig(width=16, layers=1, heads=2, kv_heads=1, mlp=16)
      >>> model = student(StudentConfig(features=3, ids=5, stack=tiny))
      >>> params = model.init(jax.random.key(0))
      >>> x, _ = model.fns["item_table"](params, jnp.ones((7, 3)), jnp.zeros(7, int))
      >>> states, _ = jax.jit(model.fns["encode_session"])(params, x[None], jnp.ones((1, 7), bool))
      >>> states.shape
      (1, 7, 16)
    """

    def example() -> tuple[jax.Array | None, ...]:
        features = jnp.zeros((2, config.features)) if config.features else None
        return features, jnp.zeros(2, jnp.int32)

    names = ("item_table", "encode_session")
    return make_model(config, Student(config), example, {name: name for name in names})
