"""Stage "transition": train the Transfer tower to predict the next item of a session."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jmrec import losses
from jmrec.features import pad_rows, take_rows
from jmrec.models.sessions.table import session_model
from jmrec.models.sessions.transfer import TransferConfig
from jmrec.types import Batch, HParams, Params, State, SumCount


class TransitionTask:
    """The task; ``hparams``: learning_rate, dropout, temperature.

    Args:
      config: The Transfer tower's size.
      e: float32 [V, D], the Knowledge tower's features (standardised), the whole catalogue.
      train: bool [V], items that occur in training: the softmax sees no others.
      hparams: Overrides of the traced numbers.
      tokens: The items' tokens, name -> [V, ...], where the tower reads them instead of e.
      words: The Knowledge tower's token vectors [vocab, width], to begin with; None for fresh ones.
    """

    name = "transition"

    def __init__(
        self,
        config: TransferConfig,
        e: np.ndarray,
        train: np.ndarray,
        hparams: HParams,
        tokens: Mapping[str, np.ndarray] | None = None,
        words: Any = None,
    ) -> None:
        self.model, self.words = session_model(config), words
        self.tables: dict[str, Any] = {"e": pad_rows(e), "valid": pad_rows(train)}
        if tokens is not None:
            self.tables["tokens"] = {name: pad_rows(table) for name, table in tokens.items()}
        self.hparams = {"learning_rate": 1e-3, "dropout": 0.1, "temperature": 1.0, **hparams}

    def init(self, key: jax.Array) -> tuple[Params, State]:
        """Return fresh parameters, but words that are known already; the task has no state."""
        params = self.model.init(key)
        return (params if self.words is None else {**params, "embed": self.words}), {}

    def logical_axes(self) -> Any:
        """Return the parameters' logical axes."""
        return self.model.logical_axes(None)

    def frozen(self, workdir: Path) -> tuple[Any, Any]:
        """Return the feature table, the mask of training items and, where read, the tokens."""
        return self.tables, jax.tree.map(lambda table: (None,) * table.ndim, self.tables)

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
            params, take_rows(frozen.get("tokens", frozen["e"]), batch["item"]), batch["mask"],
            batch["gap"], batch["event"], key=key, train=True, dropout=hparams["dropout"],
        )  # fmt: skip
        y, _ = self.model.fns["item_table"](params, frozen["e"])
        ok = batch["target_ok"]
        loss = losses.full_softmax(
            h, y, batch["target"],
            valid=frozen["valid"], where=ok, temperature=hparams["temperature"],
        )  # fmt: skip
        return loss.sum(), ok.sum(), state, {"next_item": (loss.sum(), ok.sum())}
