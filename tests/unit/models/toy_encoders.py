"""Two session encoders that a test may put into the table: a causal one and one that is not.

Each is what a new file in jmrec/models/sessions would be, with its numpy twin.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from jmrec.models.linen import make_model
from jmrec.models.parts.basic import drop, named
from jmrec.models.sessions.items import ItemVectors
from jmrec.models.sessions.table import ENCODERS, SessionEncoder
from jmrec.types import Model


@dataclass(frozen=True)
class MeanConfig:
    """Of a causal encoder that reads no context."""

    features: int
    ids: int
    width: int = 8
    scale: float = 1.0


@dataclass(frozen=True)
class WholeConfig:
    """Of an encoder that reads a session as a whole, time gaps included, and event types not."""

    features: int
    ids: int
    width: int = 8
    gaps: bool = False
    power: int = 1


class Toy(nn.Module):
    """What both have: item vectors, and a vector for time."""

    config: Any

    def setup(self) -> None:
        c = self.config
        self.items = ItemVectors(c.width, c.features, c.ids)
        nn.share_scope(self, self.items)
        self.time = self.param("time", named(nn.initializers.normal(1.0), "embed"), (c.width,))

    def item_table(self, features, ids, id_dropout=0.0):
        return self.items(features, ids, id_dropout)

    def dropped(self, x, rate):
        return drop(x, rate, self.make_rng("drop") if self.has_rng("drop") else None)

    def __call__(self, features, ids):
        x, _ = self.item_table(features, ids)
        return self.encode_session(x[None], jnp.ones((1, len(x)), bool))[0]


class Mean(Toy):
    """The mean of the items so far, and a vector."""

    def encode_session(self, x, mask, dropout=0.0):
        x = jnp.where(mask[..., None], self.dropped(x, dropout), 0.0)
        count = jnp.maximum(jnp.cumsum(mask, 1), 1)[..., None]
        return self.config.scale * jnp.cumsum(x, 1) / count + self.time, {"x": x}


class Whole(Toy):
    """Items weighted by their place from the end: one state [B, D] for the whole session."""

    def encode_session(self, x, mask, gap=None, dropout=0.0):
        x = self.dropped(x, dropout)
        length = jnp.maximum(mask.sum(1, keepdims=True), 1)
        weight = jnp.where(mask, (jnp.arange(mask.shape[1]) + 1) / length, 0) ** self.config.power
        if self.config.gaps and gap is not None:
            x = x + gap[..., None] * self.time
        return (x * weight[..., None]).sum(1), {"x": x}


def toy(module: type[nn.Module]):
    def build(config: Any) -> Model:
        def example():
            return jnp.zeros((2, config.features)) if config.features else None, jnp.zeros(2, int)

        names = ("item_table", "encode_session")
        return make_model(config, module(config), example, {name: name for name in names})

    return build


TOYS = {
    "mean": SessionEncoder(MeanConfig, toy(Mean)),
    "whole": SessionEncoder(WholeConfig, toy(Whole), causal=False),
}


@contextmanager
def registered() -> Iterator[None]:
    """Put both into the table for a while."""
    before = dict(ENCODERS)
    ENCODERS.update(TOYS)
    try:
        yield
    finally:
        ENCODERS.clear()
        ENCODERS.update(before)


def vectors(params, features: np.ndarray | None, ids: np.ndarray) -> np.ndarray:
    """The item vectors, in numpy."""
    x = np.zeros((len(ids), len(params["time"])), np.float32)
    if features is not None:
        x = x + features @ np.asarray(params["project"]["kernel"])
    return x + np.asarray(params["ids"])[ids] if "ids" in params else x


def state(config: Any, params, x: np.ndarray, gap: np.ndarray | None = None) -> np.ndarray:
    """The state after the items x [n, D], in numpy: what the encoders say in words."""
    time = np.asarray(params["time"])
    if isinstance(config, MeanConfig):
        return config.scale * x.mean(0) + time
    if config.gaps and gap is not None:
        x = x + gap[:, None] * time
    weight = (np.arange(len(x)) + 1) / len(x)
    return (x * weight[:, None] ** config.power).sum(0)
