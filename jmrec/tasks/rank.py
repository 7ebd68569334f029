"""Stage "rank": a DLRM learns which pairs are of the positive class, though few of them are.

A strategy names the answer to the imbalance. Those that weigh or draw the classes in another ratio
than the data move every logit by a known number, which `shift` returns.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jmrec import losses
from jmrec.kernels.spread import pick
from jmrec.losses.imbalance import effective_number_weights
from jmrec.models.dlrm import UNKNOWN, DlrmConfig, Pairs, dlrm
from jmrec.sharding import row_axes
from jmrec.tasks.task import ModelTask, StepInputs
from jmrec.types import Array, Batch, HParams, LossResult, Params

STRATEGIES = (
    "none", "class_weights", "focal", "logit_adjustment", "class_balanced", "balanced_sampling",
    "pairwise",
)  # fmt: skip
"""none is the cross-entropy; pairwise adds `jmrec.losses.pairwise_logistic` to it."""
NOT_KNOWN = 2
"""The label of a past row that has none."""


@dataclass(frozen=True)
class Balance:
    """How the classes stand in the training rows.

    Attributes:
      strategy: One of `STRATEGIES`.
      negative: Rows of class 0.
      positive: Rows of class 1.
      share: With "balanced_sampling", the share of class 1 among the rows that are drawn.
      beta: Of "class_balanced", see `jmrec.losses.class_balanced`.
      tau: Of "logit_adjustment", see `jmrec.losses.logit_adjusted`.
    """

    strategy: str
    negative: int
    positive: int
    share: float = 0.5
    beta: float = 0.999
    tau: float = 1.0

    @property
    def odds(self) -> float:
        """Rows of class 1 for one of class 0."""
        return self.positive / self.negative

    @property
    def weights(self) -> tuple[float, float]:
        """The weights of both classes in the loss."""
        if self.strategy == "class_weights":
            return (1.0, 1.0 / self.odds)
        if self.strategy == "class_balanced":
            counts = np.array([self.negative, self.positive], np.float32)
            low, high = np.asarray(effective_number_weights(counts, self.beta)).tolist()
            return low, high
        return (1.0, 1.0)

    @property
    def repeats(self) -> int:
        """How often a row of class 1 is drawn for one draw of a row of class 0."""
        if self.strategy != "balanced_sampling":
            return 1
        return max(1, round(self.share / (1.0 - self.share) / self.odds))

    @property
    def shift(self) -> float:
        """What is added to a logit so that it stands for the data's own ratio of the classes.

        References:
          Elkan, The Foundations of Cost-Sensitive Learning, 2001:
          https://dl.acm.org/doi/10.5555/1642194.1642224
        """
        if self.strategy == "logit_adjustment":
            return float(self.tau * np.log(self.odds))
        low, high = self.weights
        return -float(np.log(high / low * self.repeats))


class RankTask(ModelTask):
    """The task; ``hparams`` are those of ``defaults``.

    With the share ``hide_item`` a pair is shown as if nothing of its item had been known: no id, no
    earlier row, no review; ``hide_user`` does so with the user. ``id_dropout`` takes the id alone.

    Args:
      config: The model's size.
      balance: The classes, and the strategy.
      tables: What `gather` reads, see there.
      hparams: Overrides of the traced numbers.
    """

    name = "rank"
    defaults: ClassVar[HParams] = {
        "learning_rate": 1e-3,
        "dropout": 0.1,
        "id_dropout": 0.3,
        "hide_item": 0.1,
        "hide_user": 0.1,
        "gamma": 2.0,
        "pairwise": 1.0,
    }

    def __init__(
        self,
        config: DlrmConfig,
        balance: Balance,
        tables: Mapping[str, Any],
        hparams: HParams,
    ) -> None:
        cut = ("part/", "part_ok/", "past/")
        axes = row_axes({name: each for name, each in tables.items() if name.startswith(cut)})
        super().__init__(dlrm(config), hparams, frozen=tables, axes=axes)
        self.balance = balance
        # Here and not in a step, where what JAX computes is no number yet.
        self.weights = np.array(balance.weights, np.float32)
        self.couples_examples = balance.strategy == "pairwise"

    def batch_loss(self, params: Params, batch: Batch, at: StepInputs) -> LossResult:
        """Return the strategy's loss over pairs with a label."""
        keys = jax.random.split(at.key, 4)
        h, rows = at.hparams, batch["label"].shape

        def some(key: jax.Array, share: Any) -> jax.Array:
            return jax.random.uniform(key, rows) < share

        hidden = {"item": some(keys[0], h["hide_item"]), "user": some(keys[1], h["hide_user"])}
        dropped = {
            "item": hidden["item"] | some(keys[2], h["id_dropout"]),
            "user": hidden["user"] | some(keys[3], h["id_dropout"]),
        }
        pairs = gather(at.frozen, batch, hidden, dropped)
        logits, _ = self.model.fns["score"](
            params, pairs, key=at.key, train=True, dropout=h["dropout"]
        )
        loss = self._loss(logits, batch["label"], h)
        metrics = {"cross_entropy": (losses.focal(logits, batch["label"], gamma=0.0).sum(),
                                     jnp.asarray(loss.size, jnp.float32))}  # fmt: skip
        return loss.sum(), jnp.asarray(loss.size, jnp.float32), at.state, metrics

    def _loss(self, logits: jax.Array, labels: jax.Array, h: HParams) -> jax.Array:
        b = self.balance
        if b.strategy == "focal":
            return losses.focal(logits, labels, gamma=h["gamma"])
        if b.strategy == "logit_adjustment":
            prior = np.array([b.negative, b.positive], np.float32)
            return losses.logit_adjusted(logits, labels, prior, tau=b.tau)
        plain = losses.class_weighted(logits, labels, self.weights)
        if b.strategy == "pairwise":
            pair = losses.pairwise_logistic(logits, labels)
            return plain + h["pairwise"] * pair * (labels.size / jnp.maximum(labels.sum(), 1))
        return plain


def gather(
    tables: Mapping[str, Array],
    batch: Batch,
    hidden: Mapping[str, jax.Array] | None = None,
    dropped: Mapping[str, jax.Array] | None = None,
) -> Pairs:
    """Return pairs as the model reads them, from row numbers and tables.

    Args:
      tables: For each part p of what is read "part/p" float32 [rows, width] and "part_ok/p" bool
        [rows]; "past/item" float32 [V, width], what is read of past items, where a past is read;
        "empty/item" and "empty/user" float32 [F], the numbers of a pair whose item (or user) was
        never seen, and "of/item", "of/user" bool [F] and "hides/item", "hides/user" bool [P],
        which numbers and parts come from earlier rows.
      batch: "numbers" [B, F], "item_id", "user_id" int32 [B], "category" [B, K], "part_row" int32
        [B, P], "past" int32 [B, L], "past_label", "past_mask".
      hidden: "item" and "user" bool [B], pairs that are shown as if nothing had been known; None
        shows all.
      dropped: The same for ids alone.
    """
    numbers, count = batch["numbers"], batch["part_row"].shape[1]
    parts = tuple(pick(tables[f"part/{p}"], batch["part_row"][:, p]) for p in range(count))
    some = [pick(tables[f"part_ok/{p}"], batch["part_row"][:, p]) for p in range(count)]
    ok = jnp.stack(some, 1) if some else jnp.zeros((len(numbers), 0), bool)
    ids = {"item": batch["item_id"], "user": batch["user_id"]}
    mask = batch["past_mask"]
    for who in ids if hidden is not None else ():
        assert hidden is not None
        gone = hidden[who][:, None]
        numbers = jnp.where(gone & tables[f"of/{who}"], tables[f"empty/{who}"], numbers)
        ok = ok & ~(gone & tables[f"hides/{who}"])
        if who == "user":
            mask = mask & ~gone
    if dropped is not None:
        ids = {who: jnp.where(dropped[who], UNKNOWN, own) for who, own in ids.items()}
    past = batch["past"]
    read = pick(tables["past/item"], past) if "past/item" in tables else jnp.zeros((*past.shape, 0))
    return Pairs(
        numbers=jnp.asarray(numbers),
        item=ids["item"],
        user=ids["user"],
        category=batch["category"],
        parts=parts,
        parts_ok=ok,
        past=jnp.asarray(read),
        past_label=batch["past_label"],
        past_mask=mask,
    )
