"""A session encoder by itself, for a training loop of one's own: no run, no experiment."""

from dataclasses import dataclass, fields
from typing import Any, get_type_hints

import jax
import jax.numpy as jnp

from jmrec.config import choose
from jmrec.errors import UserError
from jmrec.models.parts.transformer import StackConfig
from jmrec.models.sessions.table import (
    ENCODERS,
    item_vectors,
    session_config,
    session_model,
    session_rows,
)
from jmrec.types import Array, Model, Params


@dataclass(frozen=True, eq=False)
class SessionModel(Model):
    """A session encoder over V items: ``init(key) -> params``, and `apply`.

    Attributes:
      items: V, where items are known by their ids; 0 where by their features alone.
    """

    items: int = 0

    def apply(
        self,
        params: Params,
        item: Array,
        features: Array | None = None,
        *,
        gap: Array | None = None,
        event: Array | None = None,
        key: jax.Array | None = None,
        dropout: jax.Array | float = 0.0,
        id_dropout: jax.Array | float = 0.0,
    ) -> tuple[jax.Array, jax.Array]:
        """Return what sessions and items are to the model.

        Compatible with jit, vmap and grad (params, features).

        Args:
          params: From ``init``.
          item: int [B, L], rows of the catalogue, oldest first; below 0 is padding, at the right.
          features: float32 [V, F], for a model that was built with ``features=F``.
          gap: float32 [B, L], for one with ``gaps=True``: log(1 + seconds since the item before).
          event: int [B, L], for one with ``events``: the type of each click.
          key: Draws what is dropped; None drops nothing, as when a model is used.
          dropout: Share of what is dropped inside the encoder.
          id_dropout: Share of items whose id is hidden, for a model with ids and features.

        Returns:
          states float32 [B, L, D], what is known after each item, of it and those before alone; and
          vectors float32 [V, D]. The score of item v after position l is
          ``states[b, l] @ vectors[v]``.

        Raises:
          ValueError: ``features`` are given and not wanted, or wanted and not given.
        """
        wanted = self.config.features
        shape = None if features is None else features.shape
        if (shape is not None) != bool(wanted) or (shape is not None and shape[-1] != wanted):
            raise ValueError(f"features are of shape {shape}, and the model reads {wanted} of each")
        item, train = jnp.asarray(item), key is not None
        features = None if features is None else jnp.asarray(features)
        table, session = (None, None) if key is None else jax.random.split(key)
        count = self.items if shape is None else shape[0]
        catalogue = {"features": features, "ids": jnp.arange(count)}
        drawn = {"key": table, "train": train, "id_dropout": id_dropout}
        vectors = item_vectors(self, params, catalogue, **drawn)
        rows = session_rows(self, params, catalogue, vectors, **drawn)
        x = jax.tree.map(lambda each: each[jnp.maximum(item, 0)], rows)
        states, _ = self.fns["encode_session"](
            params, x, item >= 0, gap, event, key=session, train=train, dropout=dropout
        )
        return states, vectors


def build(
    name: str,
    *,
    items: int = 0,
    features: int = 0,
    width: int = 64,
    gaps: bool = False,
    events: int = 0,
    **options: Any,
) -> SessionModel:
    """Return a session encoder by its registered name.

    Args:
      name: A key of `jmrec.models.sessions.table.ENCODERS`, such as "sasrec" or "gru4rec".
        "bert4rec" is trained to name hidden items, which `jmrec.run` does and a loop that asks for
        the next item does not; so it learns little there.
      items: V, where each item is to have a vector of its own; 0 is none.
      features: F, the width of the items' features, where it is to read some; 0 is none.
      width: D, of states and item vectors.
      gaps: Whether it reads the time between clicks, where it can.
      events: How many types of click it reads, where it can; 0 is none.
      **options: Further fields of its config, and of its stack of blocks (``layers``, ``heads``,
        ``kv_heads``, ``mlp``) where it has one: ``help(ENCODERS["sasrec"].config)`` lists them. One
        that knows places (``positions``) has to know as many as sessions are read by: 50.

    Returns:
      The model; its parameters are made by ``init``.

    Raises:
      UserError: There is no such encoder, it has no such option, or a value does not fit.

    Example:
      >>> import jax
      >>> model = build("gru4rec", items=100, width=16)
      >>> params = model.init(jax.random.key(0))
      >>> states, vectors = model.apply(params, [[5, 7, 9], [3, 4, -1]])
      >>> states.shape, vectors.shape
      ((2, 3, 16), (100, 16))
    """
    choose("encoder", name, ENCODERS)
    if items < 0 or features < 0 or not (items or features):
        raise UserError(f"{name} has to know items by something; give items=V, features=F or both.")
    known = get_type_hints(ENCODERS[name].config)
    blocks = [each.name for each in fields(StackConfig)] if known.get("stack") else []
    stack = {each: options.pop(each) for each in blocks if each in options}
    heads = {"heads": 2, "kv_heads": 2} if blocks and not {"heads", "kv_heads"} & {*stack} else {}
    if "out" in known:  # where states have a width of their own
        options.setdefault("out", width)
    config = session_config(
        name,
        {"stack": {"width": width, **heads, **stack}, "options": options},
        features=features,
        ids=items + 1 if items else 0,  # the last row is that of an item without one
        gaps=gaps,
        events=events,
        group="",
    )
    made = session_model(config)
    own = {each.name: getattr(made, each.name) for each in fields(Model)}
    return SessionModel(**own, items=items)
