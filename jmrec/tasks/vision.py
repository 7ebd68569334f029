"""Stage "vision": teach the vision encoder to name the words of an item from its picture alone.

Before it is a part of the Knowledge tower the encoder learns by itself: one pass over pictures is
much cheaper than a language model's over texts, and most of a text says nothing about the picture.
The target is the bag of the words (tokens, in fact) of the item's text; rare ones weigh more.

References:
  Joulin et al., Learning Visual Features from Large Weakly Supervised Data,
  https://arxiv.org/abs/1511.02251
  Huang et al., Classification Done Right for Vision-Language Pre-Training,
  https://arxiv.org/abs/2411.03313
"""

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jmrec import losses
from jmrec.tasks.task import ModelTask, StepInputs
from jmrec.types import Batch, HParams, LossResult, Model, Params

DISTORTION: HParams = {"zoom": 0.3, "move": 0.125, "flip": 0.5, "brighten": 0.3}
"""How far `distort` goes where nothing else is said."""


def distort(key: jax.Array, picture: jax.Array, hparams: HParams) -> jax.Array:
    """Zoom, move, mirror and brighten pictures at random, as if the item had another photograph.

    Args:
      key: The key.
      picture: uint8 [B, S, S, C], in 0..255.
      hparams: ``zoom`` (largest logarithm of the scale), ``move`` (largest part of a side),
        ``flip`` (share of mirrored pictures), ``brighten`` (largest logarithm of the factor).

    Returns:
      float32 [B, S, S, C] in 0..255; beyond the border the edge is repeated.

    Example:
      >>> still = {"zoom": 0.0, "move": 0.0, "flip": 0.0, "brighten": 0.0}
      >>> picture = jnp.arange(12, dtype=jnp.uint8).reshape(1, 2, 2, 3)
      >>> bool((distort(jax.random.key(0), picture, still) == picture).all())
      True
    """
    batch, size = picture.shape[:2]
    keys = jax.random.split(key, 4)

    def uniform(key: jax.Array, shape: tuple[int, ...], most: jax.Array | float) -> jax.Array:
        return jax.random.uniform(key, shape, minval=-1.0) * most

    scale = jnp.exp(uniform(keys[0], (batch, 1, 1), hparams["zoom"]))
    middle = (size - 1) / 2
    move = uniform(keys[1], (batch, 2, 1), hparams["move"] * size)
    sign = jnp.where(jax.random.bernoulli(keys[2], hparams["flip"], (batch, 1)), -1.0, 1.0)
    sign = jnp.stack([jnp.ones_like(sign), sign], 1)
    at = jnp.clip(sign * (jnp.arange(size) - middle) / scale + move + middle, 0, size - 1)
    # Linear interpolation is a matrix a side, and the columns' matrix mirrors too.
    weights = jnp.maximum(0.0, 1.0 - jnp.abs(at[..., None] - jnp.arange(size)))
    moved = jnp.einsum(
        "bis,bjt,bstc->bijc", weights[:, 0], weights[:, 1], picture.astype(jnp.float32)
    )
    return jnp.clip(
        moved * jnp.exp(uniform(keys[3], (batch, 1, 1, 1), hparams["brighten"])), 0.0, 255.0
    )


def word_weights(text: np.ndarray, vocab: int) -> tuple[np.ndarray, np.ndarray]:
    """Return what each token weighs, and how likely it is to be the target.

    Args:
      text: int [N, T] tokens of the training items, 0 is padding.
      vocab: Tokens of the tokenizer.

    Returns:
      weights: float32 [vocab], log of items per item that has the token; 0 where none has.
      prior: float32 [vocab], log of the token's share of all weight, which is about its share of
        the targets (a bag is normalised by item); -20 where it is never one.

    Example:
      >>> weights, prior = word_weights(np.array([[1, 2], [1, 0]]), 4)
      >>> [round(float(w), 2) for w in weights], prior.tolist()
      ([0.0, 0.0, 0.69, 0.0], [-20.0, -20.0, 0.0, -20.0])
    """
    count = np.zeros(vocab)
    for row in text:
        count[np.unique(row)] += 1
    count[0] = 0
    weights = np.where(count > 0, np.log(len(text) / np.maximum(count, 1)), 0.0)
    mass = count * weights
    share = mass / max(mass.sum(), 1e-9)
    prior = np.where(share > 0, np.log(np.maximum(share, 1e-9)), -20.0)
    return weights.astype(np.float32), prior.astype(np.float32)


class VisionTask(ModelTask):
    """The task; ``hparams``: learning_rate, zoom, move, flip, brighten (see `distort`).

    Args:
      model: From `jmrec.models.readers.vision.picture_words`.
      words: The tokens' weights and priors, float32 [vocab] each, from `word_weights`. What is
        learned is added to the prior.
      hparams: Overrides of the traced numbers.
    """

    name = "vision"
    defaults: ClassVar[HParams] = {"learning_rate": 1e-3, **DISTORTION}

    def __init__(
        self, model: Model, words: tuple[np.ndarray, np.ndarray], hparams: HParams
    ) -> None:
        super().__init__(model, hparams, frozen=dict(zip(("weights", "prior"), words)))

    def batch_loss(self, params: Params, batch: Batch, at: StepInputs) -> LossResult:
        """Return the cross-entropy of the words' weighted bag, over items with a picture."""
        picture = distort(at.key, batch["picture"], at.hparams)
        logits, _ = self.model.fns["name_words"](params, picture)
        ok = batch["picture_ok"] & (batch["text"] > 0).any(-1)
        loss = losses.bag_cross_entropy(
            logits + at.frozen["prior"], batch["text"], at.frozen["weights"], where=ok
        )
        return loss.sum(), ok.sum(), at.state, {"words": (loss.sum(), ok.sum())}
