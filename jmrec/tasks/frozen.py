"""Stage "knowledge" on frozen features: what text and picture share, and what each of them holds.

A backbone that can not write (MiniLM) has no generation to learn from: the heads learn to tell by
its text which picture an item has, and to keep what rebuilds the features.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jmrec import losses
from jmrec.models.frozen import FrozenConfig, frozen_tower
from jmrec.types import Batch, HParams, Params, State, SumCount


class FrozenKnowledgeTask:
    """The task; ``hparams``: learning_rate, dropout, temperature, contrast, rebuild.

    Args:
      config: Sizes of the heads.
      hparams: Overrides of the traced numbers.
    """

    name = "knowledge"
    couples_examples = True

    def __init__(self, config: FrozenConfig, hparams: HParams) -> None:
        self.model = frozen_tower(config)
        self.terms = losses.compose({"contrast": {}, "rebuild_text": {}, "rebuild_picture": {}})
        self.hparams = {
            "learning_rate": 1e-3,
            "dropout": 0.1,
            "temperature": 0.1,
            "contrast": 1.0,
            "rebuild": 1.0,
            **hparams,
        }

    def init(self, key: jax.Array) -> tuple[Params, State]:
        """Return fresh parameters; the task has no state."""
        return self.model.init(key), {}

    def logical_axes(self) -> Any:
        """Return the parameters' logical axes."""
        return self.model.logical_axes(None)

    def frozen(self, workdir: Path) -> tuple[Any, Any]:
        """Return nothing: a batch brings its features."""
        return {}, {}

    def loss(
        self,
        params: Params,
        state: State,
        frozen: Any,
        batch: Batch,
        key: jax.Array,
        step: jax.Array,
        hparams: HParams,
    ) -> tuple[jax.Array, jax.Array, State, dict[str, SumCount]]:
        """Return the contrast of an item's halves, and how far each is from its features."""
        text, picture, ok = batch["text"], batch["picture"], batch["picture_ok"]
        (a, b), _ = self.model.fns["halves"](
            params, text, picture, ok, key=key, train=True, dropout=hparams["dropout"]
        )
        (said, seen), _ = self.model.fns["rebuild"](params, a, b)
        has_text = jnp.any(text != 0, axis=1)
        both = has_text & ok
        pair = losses.symmetric_info_nce(
            a, b, temperature=hparams["temperature"], where=both, ids=batch["row"]
        )
        total, count, metrics = self.terms(
            {
                "contrast": (pair, both),
                "rebuild_text": (jnp.square(said - text).mean(-1), has_text),
                "rebuild_picture": (jnp.square(seen - picture).mean(-1), ok),
            },
            step=step,
            hparams={
                "contrast": {"weight": hparams["contrast"]},
                "rebuild_text": {"weight": hparams["rebuild"]},
                "rebuild_picture": {"weight": hparams["rebuild"]},
            },
        )
        return total, count, state, metrics
