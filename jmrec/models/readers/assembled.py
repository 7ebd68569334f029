"""The Knowledge tower on pretrained parts: any vision encoder, a matrix, any decoder.

The parts stay as they are ("backbone"); what is trained are the layers around them ("heads") and
low-rank updates of their matrices ("lora"). Shapes: B items, S side of pictures, P picture tokens,
T text tokens, D width of the decoder.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jmrec.errors import SettingError
from jmrec.models.linen import make_model, once
from jmrec.models.parts.basic import dense
from jmrec.models.parts.lora import LoraConfig, applied, init_lora, lora_axes
from jmrec.models.readers.decoder import Decoder, DecoderConfig
from jmrec.models.readers.efficientnet import EfficientNet, EfficientNetConfig
from jmrec.models.readers.knowledge import READER_FNS, KnowledgeTower, features_width
from jmrec.models.readers.vision import fold
from jmrec.models.readers.vit import ViT, ViTConfig
from jmrec.types import Model, Params

PARTS = ("vision", "decoder", "connector")
"""What a backbone may hold; the connector only where it is pretrained too."""


@dataclass(frozen=True)
class AssembledConfig:
    """What the tower is made of.

    Attributes:
      fields: Number of tokens of each text field, in the order of the ``text`` array.
      vision: The vision encoder.
      decoder: The decoder.
      size: S, the side of the pictures.
      merge: Cells of the vision encoder per side that are merged into one token.
      whole: Whether the connector belongs to the backbone, as in Idefics3.
      lora: Which matrices of the backbone are updated; None leaves all as they are.
      soft: Soft tokens that carry e into the language head.
      contrast: Width of the space in which pictures and texts are compared.
    """

    fields: tuple[int, ...]
    vision: EfficientNetConfig | ViTConfig
    decoder: DecoderConfig
    size: int = 224
    merge: int = 1
    whole: bool = False
    lora: LoraConfig | None = None
    soft: int = 4
    contrast: int = 64

    def __post_init__(self) -> None:
        if isinstance(self.vision, ViTConfig) and self.size != self.vision.size:
            raise SettingError(f"a tower for {self.vision.size} pixels can not see {self.size}.")

    @property
    def seen(self) -> int:
        """P, picture tokens of an item."""
        if isinstance(self.vision, ViTConfig):
            side = self.vision.side
        else:
            side = -(-self.size // 2)
            for block in self.vision.blocks:
                side = -(-side // block.stride)
        return (side // self.merge) ** 2

    @property
    def width(self) -> int:
        """D, the width of the decoder."""
        return self.decoder.stack.width

    @property
    def dtype(self) -> str:
        """Compute dtype of the decoder."""
        return self.decoder.stack.dtype

    @property
    def vocab(self) -> int:
        """Tokens of the tokenizer."""
        return self.decoder.vocab

    @property
    def features(self) -> int:
        """Width of e."""
        return features_width(self.width, self.fields)


class AssembledTower(KnowledgeTower):
    """The module, all parameters in one tree; see `assembled` for the pure functions."""

    config: AssembledConfig
    # A pretrained decoder begins as it was: what is added to its words is small at first.
    condition_gain = 1e-4

    def setup(self) -> None:
        """Declare the layers."""
        c = self.config
        if isinstance(c.vision, EfficientNetConfig):
            self.vision = EfficientNet(c.vision)
        else:
            self.vision = ViT(c.vision)
        self.connector = dense(c.width, (None, "embed"), jnp.dtype(c.dtype), "connector")
        self.decoder = Decoder(c.decoder)
        self.declare()

    def see(self, picture: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Encode pictures [B, S, S, 3] in 0..255 to picture tokens [B, P, D]."""
        c = self.config
        if isinstance(c.vision, EfficientNetConfig):
            seen, tapped = self.vision.features(picture)
        else:
            seen, tapped = self.vision.see(picture)
            # CLIP's own token says what the patches say.
            seen = seen[:, -(c.vision.side**2) :]
            seen = seen.reshape(len(seen), c.vision.side, c.vision.side, -1)
        rows = seen.shape[1] // c.merge * c.merge
        seen = fold(seen[:, :rows, :rows], c.merge)
        return self.connector(seen.reshape(len(seen), -1, seen.shape[-1])), tapped

    def words(self, text: jax.Array) -> jax.Array:
        """Return the decoder's vectors of tokens."""
        return self.decoder.embed(text)

    def states(
        self, x: jax.Array, positions: jax.Array, mask: jax.Array, dropout: jax.Array | float
    ) -> jax.Array:
        """Run the decoder."""
        return self.decoder.stack(x, positions, mask, dropout)[0]

    def logits(self, states: jax.Array) -> jax.Array:
        """Return the decoder's own logits."""
        return self.decoder.logits(states)

    def scaled(self, e: jax.Array) -> jax.Array:
        """Return e with a mean square of 1: a pretrained decoder's states are large."""
        return e * jax.lax.rsqrt(jnp.mean(jnp.square(e), -1, keepdims=True) + 1e-6)

    def __call__(
        self, text: jax.Array, picture: jax.Array, text_ok: jax.Array, picture_ok: jax.Array
    ) -> jax.Array:
        """Touch every parameter once, for initialisation."""
        self.vision(picture)
        return super().__call__(text, picture, text_ok, picture_ok)


@once
def assembled(config: AssembledConfig) -> Model:
    """Return the tower: fns ``see``, ``encode_item``, ``lm_logits`` and ``contrast``.

    Its parameters, as ``init`` makes them, are what is trained: "heads" and "lora". The functions
    want a third branch beside them, "backbone", with the pretrained "vision" and "decoder" (and
    "connector" where the config is ``whole``).

    References:
      Liu et al., Visual Instruction Tuning, https://arxiv.org/abs/2304.08485
      Hu et al., LoRA: Low-Rank Adaptation of Large Language Models,
      https://arxiv.org/abs/2106.09685

    Example:
      >>> from jmrec.models.readers.efficientnet import BlockConfig
      >>> from jmrec.models.parts.transformer import StackConfig
      >>> tiny = StackConfig(width=8, layers=2, heads=2, kv_heads=1, mlp=8)
      >>> vision = EfficientNetConfig(8, (BlockConfig(8, expand=2),), stem=8, head=16, classes=5)
      >>> config = AssembledConfig((3, 2), vision, DecoderConfig(vocab=10, stack=tiny), size=8,
      ...                          lora=LoraConfig(rank=2))
      >>> model = assembled(config)
      >>> params = model.init(jax.random.key(0))
      >>> sorted(params["heads"]), sorted(params["lora"]["decoder"]["stack"]["blocks"]["attention"])
      (['condition', 'connector', 'contrast_picture', 'contrast_text', 'end', 'soft'],
       ['query', 'value'])
      >>> full = {**params, "backbone": fresh_backbone(config, jax.random.key(1))}
      >>> seen, _ = jax.jit(model.fns["see"])(full, jnp.zeros((2, 8, 8, 3), jnp.uint8))
      >>> e, _ = jax.jit(model.fns["encode_item"])(
      ...     full, jnp.ones((2, 5), int), seen, jnp.ones((2, 5), bool), jnp.ones(2, bool))
      >>> seen.shape, e.shape == (2, config.features)
      ((2, 16, 8), True)
    """
    whole = _whole_tower(config)
    shapes = jax.eval_shape(whole.init, jax.random.key(0))
    held = backbone_parts(config)

    @jax.jit  # the backbone's own fresh parameters are not even made
    def init(key: jax.Array) -> Params:
        tree = whole.init(key)
        heads = {name: branch for name, branch in tree.items() if name not in held}
        lora = {} if config.lora is None else init_lora(config.lora, shapes, key)
        return {"heads": heads, "lora": lora}

    def logical_axes(params: Any = None) -> Any:
        del params
        axes = whole.logical_axes(None)
        heads = {name: branch for name, branch in axes.items() if name not in held}
        lora = {} if config.lora is None else lora_axes(config.lora, shapes, axes)
        return {"heads": heads, "lora": lora}

    def bound(fn: Callable[..., Any]) -> Callable[..., Any]:
        def call(params: Params, *inputs: Any, **settings: Any) -> Any:
            tree = {**params["heads"], **params["backbone"]}
            if config.lora is not None:
                settings["lora"] = applied(config.lora, params["lora"], shapes)
            return fn(tree, *inputs, **settings)

        return call

    fns = {name: bound(fn) for name, fn in whole.fns.items()}
    return Model(config=config, init=init, logical_axes=logical_axes, fns=fns)


def backbone_parts(config: AssembledConfig) -> tuple[str, ...]:
    """Return the names of the backbone's branches."""
    return PARTS if config.whole else PARTS[:2]


def backbone_axes(config: AssembledConfig) -> Any:
    """Return the logical axes of the backbone's parameters."""
    axes = _whole_tower(config).logical_axes(None)
    return {name: axes[name] for name in backbone_parts(config)}


def fresh_backbone(config: AssembledConfig, key: jax.Array) -> Params:
    """Return random parameters in the place of pretrained ones, for tests and plans."""
    tree = _whole_tower(config).init(key)
    return {name: tree[name] for name in backbone_parts(config)}


@once
def _whole_tower(config: AssembledConfig) -> Model:
    def example() -> tuple[jax.Array, ...]:
        tokens = sum(config.fields)
        return (
            jnp.ones((1, tokens), jnp.int32),
            jnp.zeros((1, config.size, config.size, 3), jnp.uint8),
            jnp.ones((1, tokens), bool),
            jnp.ones((1,), bool),
        )

    return make_model(config, AssembledTower(config), example, {name: name for name in READER_FNS})
