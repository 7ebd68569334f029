"""Stage "knowledge": train the Knowledge tower to write hidden text, and to match text and picture.

A random subset of an item's text fields is hidden from the prompt and is the target of the
language head, given the picture and the rest; sometimes all the text is hidden (describe the
picture), sometimes the picture is. ``contrast`` adds picture-text contrast over whole items.
"""

from typing import ClassVar

import jax
import jax.numpy as jnp

from jmrec import losses
from jmrec.models.readers.assembled import AssembledConfig, assembled, backbone_axes
from jmrec.models.readers.knowledge import KnowledgeConfig, knowledge_tower, token_fields
from jmrec.tasks.task import ModelTask, StepInputs
from jmrec.tasks.vision import DISTORTION, distort
from jmrec.types import Batch, HParams, LossResult, Params


class KnowledgeTask(ModelTask):
    """The task; ``hparams``: learning_rate, dropout, generation, rewrite, contrast, temperature.

    Its loss is a `jmrec.losses.compose` sum of generation, rewrite (times generation) and contrast,
    each a mean over items.

    ``rewrite`` weighs the shown fields, which are written too: e has to say what the item is, also
    where nothing of it helps to guess the hidden fields.

    ``hide_text`` and ``hide_picture`` are the shares of items whose whole text, or whose picture,
    is hidden from the prompt; ``hide_tokens`` of the tokens that are left are hidden too, and
    pictures are distorted (see `jmrec.tasks.vision.distort`): a catalogue is small, and a tower
    that remembers its items one by one knows nothing of new ones.

    Args:
      config: The tower's size, or the parts that it is assembled of.
      hparams: Overrides of the traced numbers.
      vision: Parameters of a trained vision encoder; None for random ones.
      backbone: The pretrained parameters of an assembled tower, which stay as they are.
    """

    name = "knowledge"
    defaults: ClassVar[HParams] = {
        "learning_rate": 1e-3,
        "dropout": 0.0,
        "generation": 1.0,
        "rewrite": 0.5,
        "contrast": 1.0,
        "temperature": 0.1,
        "hide_text": 0.4,
        "hide_picture": 0.1,
        "hide_tokens": 0.2,
        **DISTORTION,
    }

    def __init__(
        self,
        config: KnowledgeConfig | AssembledConfig,
        hparams: HParams,
        vision: Params | None = None,
        backbone: Params | None = None,
    ) -> None:
        frozen, axes = {}, {}
        if backbone is not None:
            assert isinstance(config, AssembledConfig)
            frozen, axes = {"backbone": backbone}, {"backbone": backbone_axes(config)}
        super().__init__(
            assembled(config) if isinstance(config, AssembledConfig) else knowledge_tower(config),
            hparams,
            frozen=frozen,
            axes=axes,
            known={} if vision is None else {"vision": vision},
        )
        self.token_field = jnp.array(token_fields(config.fields), jnp.int32)
        self.couples_examples = self.hparams["contrast"] > 0
        names = ["generation", "rewrite", *(["contrast"] if self.couples_examples else [])]
        self.terms = losses.compose({name: {} for name in names})

    def prompt(
        self, batch: Batch, key: jax.Array, hparams: HParams
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Choose what is shown: (shown bool [B, T], hidden bool [B, T], picture_ok bool [B])."""
        count = len(self.model.config.fields)
        keys = jax.random.split(key, 5)
        size = batch["row"].shape[0]
        hidden = jax.random.bernoulli(keys[0], 0.5, (size, count))
        hidden |= jax.nn.one_hot(jax.random.randint(keys[1], (size,), 0, count), count) > 0
        hidden |= jax.random.uniform(keys[2], (size, 1)) < hparams["hide_text"]
        unseen = jax.random.uniform(keys[3], (size,)) < hparams["hide_picture"]
        picture_ok = batch["picture_ok"] & ~(unseen & ~hidden.all(-1))
        real = batch["text"] > 0
        hidden_tokens = hidden[:, self.token_field] & real
        kept = jax.random.uniform(keys[4], real.shape) >= hparams["hide_tokens"]
        return real & ~hidden_tokens & kept, hidden_tokens, picture_ok

    def batch_loss(self, params: Params, batch: Batch, at: StepInputs) -> LossResult:
        """Return the mean over items of (mean token cross-entropy, contrast)."""
        fns, text, params = self.model.fns, batch["text"], {**params, **at.frozen}
        key_prompt, key_read, key_write, key_pair, key_distort = jax.random.split(at.key, 5)
        picture = distort(key_distort, batch["picture"], at.hparams)
        drop = {"train": True, "dropout": at.hparams["dropout"]}
        shown, hidden, picture_ok = self.prompt(batch, key_prompt, at.hparams)
        seen, _ = fns["see"](params, picture)
        e, _ = fns["encode_item"](params, text, seen, shown, picture_ok, key=key_read, **drop)
        logits, _ = fns["lm_logits"](params, e, text, key=key_write, **drop)
        # A field begins with a marker that names it: given, not predicted.
        first = jnp.concatenate([jnp.array([True]), jnp.diff(self.token_field) != 0])
        written = (text > 0) & ~first & (picture_ok | shown.any(1))[:, None]
        token = losses.token_cross_entropy(logits, text, where=written)

        def mean(where: jax.Array) -> jax.Array:
            return jnp.where(where, token, 0.0).sum(1) / jnp.maximum(where.sum(1), 1)

        predicted, copied = written & hidden, written & ~hidden
        known = written.any(1)
        own = jnp.arange(logits.shape[-1]) == text[..., None]
        best = logits.max(-1) == jnp.where(own, logits, 0.0).sum(-1)
        right = best & predicted
        values = {"generation": mean(predicted), "rewrite": mean(copied)}
        if self.couples_examples:
            kept = jax.random.uniform(key_pair, text.shape) >= at.hparams["hide_tokens"]
            said = (text > 0) & kept
            read, _ = fns["encode_item"](params, text, None, said, None, key=key_pair, **drop)
            (a, b), _ = fns["contrast"](params, seen, read)
            pair_ok = batch["picture_ok"] & said.any(1)
            values["contrast"] = losses.symmetric_info_nce(
                a, b, temperature=at.hparams["temperature"], where=pair_ok, ids=batch["row"]
            )
            known |= pair_ok
        weights = {**at.hparams, "rewrite": at.hparams["generation"] * at.hparams["rewrite"]}
        total, count, metrics = self.terms(
            {name: (value, known) for name, value in values.items()},
            step=at.step,
            hparams={name: {"weight": weights[name]} for name in values},
        )
        metrics["token_accuracy"] = (right.sum(), predicted.sum())
        return total, count, at.state, metrics
