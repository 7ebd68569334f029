"""Stage "transition": train the Transfer tower to predict the next item of a session."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from jmrec import losses
from jmrec.features import pad_rows, take_rows
from jmrec.models.sessions.table import item_vectors, session_model
from jmrec.models.sessions.transfer import TransferConfig
from jmrec.sharding import row_axes
from jmrec.tasks.task import ModelTask, StepInputs
from jmrec.types import Batch, HParams, LossResult, Params


class TransitionTask(ModelTask):
    """The task; ``hparams``: learning_rate, dropout, temperature.

    Args:
      config: The Transfer tower's size.
      e: float32 [V, D], the Knowledge tower's features (standardised), the whole catalogue.
      train: bool [V], items that occur in training: the softmax sees no others.
      hparams: Overrides of the traced numbers.
      tokens: The items' tokens, name -> [V, ...], where the tower reads them instead of e.
      words: The Knowledge tower's token vectors [vocab, width], to start from; None for
        random ones.
    """

    name = "transition"
    defaults: ClassVar[HParams] = {"learning_rate": 1e-3, "dropout": 0.1, "temperature": 1.0}

    def __init__(
        self,
        config: TransferConfig,
        e: np.ndarray,
        train: np.ndarray,
        hparams: HParams,
        tokens: Mapping[str, np.ndarray] | None = None,
        words: Any = None,
    ) -> None:
        frozen: dict[str, Any] = {"e": pad_rows(e), "valid": pad_rows(train)}
        if tokens is not None:
            frozen["tokens"] = {name: pad_rows(table) for name, table in tokens.items()}
        known = {} if words is None else {"embed": words}
        super().__init__(
            session_model(config), hparams, frozen=frozen, axes=row_axes(frozen), known=known
        )

    def batch_loss(self, params: Params, batch: Batch, at: StepInputs) -> LossResult:
        """Return the softmax cross-entropy of <h, y> / temperature over the training items."""
        shown = take_rows(at.frozen.get("tokens", at.frozen["e"]), batch["item"])
        h, _ = self.model.fns["encode_session"](
            params, shown, batch["mask"], batch["gap"], batch["event"],
            key=at.key, train=True, dropout=at.hparams["dropout"],
        )  # fmt: skip
        y = item_vectors(self.model, params, {"features": at.frozen["e"]})
        ok = batch["target_ok"]
        loss = losses.full_softmax(
            h, y, batch["target"],
            valid=at.frozen["valid"], where=ok, temperature=at.hparams["temperature"],
        )  # fmt: skip
        return loss.sum(), ok.sum(), at.state, {"next_item": (loss.sum(), ok.sum())}
