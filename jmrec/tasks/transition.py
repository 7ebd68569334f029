"""Stage "transition": train the Transfer tower to predict the next item from cached features e."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from jmrec import losses
from jmrec.features import pad_rows
from jmrec.models.transfer import TransferConfig, transfer_tower
from jmrec.types import Batch, HParams, Params, State, SumCount


class TransitionTask:
    """The task; ``hparams``: learning_rate, dropout, temperature.

    Args:
      config: The Transfer tower's size.
      e: float32 [V, D], the Knowledge tower's features (standardised), the whole catalogue.
      train: bool [V], items that occur in training: the softmax sees no others.
      hparams: Overrides of the traced numbers.
    """

    name = "transition"

    def __init__(
        self, config: TransferConfig, e: np.ndarray, train: np.ndarray, hparams: HParams
    ) -> None:
        self.model = transfer_tower(config)
        self.tables = {"e": pad_rows(e), "valid": pad_rows(train)}
        self.hparams = {"learning_rate": 1e-3, "dropout": 0.1, "temperature": 1.0, **hparams}

    def init(self, key: jax.Array) -> tuple[Params, State]:
        """Return fresh parameters; the task has no state."""
        return self.model.init(key), {}

    def logical_axes(self) -> Any:
        """Return the parameters' logical axes."""
        return self.model.logical_axes(None)

    def frozen(self, workdir: Path) -> tuple[Any, Any]:
        """Return the feature table and the mask of training items."""
        return self.tables, {"e": (None, None), "valid": (None,)}

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
        """Return the softmax cross-entropy of <h, y> / temperature over the training items."""
        h, _ = self.model.fns["encode_session"](
            params, frozen["e"][batch["item"]], batch["mask"],
            key=key, train=True, dropout=hparams["dropout"],
        )  # fmt: skip
        y, _ = self.model.fns["item_table"](params, frozen["e"])
        ok = batch["target_ok"]
        loss = losses.full_softmax(
            h, y, batch["target"],
            valid=frozen["valid"], where=ok, temperature=hparams["temperature"],
        )  # fmt: skip
        return loss.sum(), ok.sum(), state, {"next_item": (loss.sum(), ok.sum())}
