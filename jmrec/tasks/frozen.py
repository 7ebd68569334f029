"""Stage "knowledge" on frozen features: what text and picture share, and what each of them holds.

A backbone that can not write text (MiniLM) has no generation to learn from: the heads learn to
find an item's picture by its text, and to keep what the features can be rebuilt from.
"""

from typing import ClassVar

import jax.numpy as jnp

from jmrec import losses
from jmrec.models.readers.frozen import FrozenConfig, frozen_tower
from jmrec.tasks.task import ModelTask, StepInputs
from jmrec.types import Batch, HParams, LossResult, Params


class FrozenKnowledgeTask(ModelTask):
    """The task; ``hparams``: learning_rate, dropout, temperature, contrast, rebuild.

    Args:
      config: Sizes of the heads.
      hparams: Overrides of the traced numbers.
    """

    name = "knowledge"
    defaults: ClassVar[HParams] = {
        "learning_rate": 1e-3,
        "dropout": 0.1,
        "temperature": 0.1,
        "contrast": 1.0,
        "rebuild": 1.0,
    }
    couples_examples = True

    def __init__(self, config: FrozenConfig, hparams: HParams) -> None:
        super().__init__(frozen_tower(config), hparams)
        self.terms = losses.compose({"contrast": {}, "rebuild_text": {}, "rebuild_picture": {}})

    def batch_loss(self, params: Params, batch: Batch, at: StepInputs) -> LossResult:
        """Return the contrast of an item's halves, and how far each is from its features."""
        text, picture, ok = batch["text"], batch["picture"], batch["picture_ok"]
        (a, b), _ = self.model.fns["halves"](
            params, text, picture, ok, key=at.key, train=True, dropout=at.hparams["dropout"]
        )
        (said, seen), _ = self.model.fns["rebuild"](params, a, b)
        has_text = jnp.any(text != 0, axis=1)
        both = has_text & ok
        pair = losses.symmetric_info_nce(
            a, b, temperature=at.hparams["temperature"], where=both, ids=batch["row"]
        )
        total, count, metrics = self.terms(
            {
                "contrast": (pair, both),
                "rebuild_text": (jnp.square(said - text).mean(-1), has_text),
                "rebuild_picture": (jnp.square(seen - picture).mean(-1), ok),
            },
            step=at.step,
            hparams={
                "contrast": {"weight": at.hparams["contrast"]},
                "rebuild_text": {"weight": at.hparams["rebuild"]},
                "rebuild_picture": {"weight": at.hparams["rebuild"]},
            },
        )
        return total, count, at.state, metrics
