"""Stage "distill": separate how users move between items (t) from what an item is (k).

Heads t and k on e are trained so that lower bounds of I(t_next; h) and I(t_last; h) rise, where h
are the frozen Transfer tower's states; an upper bound of I(k; t) falls; and k still predicts e.
Each term has a weight. The Transfer tower does not change.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jmrec import losses
from jmrec.config import choose
from jmrec.features import pad_rows, take_rows
from jmrec.models.readers.alignment import AlignmentConfig, alignment
from jmrec.sharding import row_axes
from jmrec.tasks.task import ModelTask, StepInputs
from jmrec.types import Batch, HParams, LossResult, Model, Params

LOWER: dict[str, Callable[..., Any]] = {
    "infonce": losses.infonce,
    "jsd": losses.jsd,
    "mine": losses.mine,
    "nwj": losses.nwj,
    "smile": losses.smile,
}
UPPER = ("vclub", "l1out", "orthogonal", "hsic")
TERMS = ("next", "last", "disentangle", "rebuild", "conditional")


class DistillTask(ModelTask):
    """The task; ``hparams``: learning_rate, next, last, disentangle, rebuild.

    Its loss is a `jmrec.losses.compose` sum of the `TERMS`: the bounds with their sign turned, and
    the fit of q(t | k), whose weight is 1.

    Args:
      config: Sizes of heads and critics.
      transfer: The Transfer tower.
      transfer_params: Its parameters, frozen.
      e: float32 [V, D].
      train: bool [V].
      lower: The estimator that is maximised, a key of `LOWER`.
      upper: What separates k and t, one of `UPPER`.
      items: How many training items a step draws for the terms on single items.
      hparams: Overrides of the traced numbers.
      tokens: The items' tokens, name -> [V, ...], where the Transfer tower reads them.
      schedules: Term -> how its weight changes over the run, see `jmrec.losses.schedules`.
    """

    name = "distill"
    defaults: ClassVar[HParams] = {
        "learning_rate": 1e-3,
        "next": 1.0,
        "last": 0.5,
        "disentangle": 0.1,
        "rebuild": 1.0,
    }
    couples_examples = True

    def __init__(
        self,
        config: AlignmentConfig,
        transfer: Model,
        transfer_params: Params,
        e: np.ndarray,
        train: np.ndarray,
        *,
        lower: str = "infonce",
        upper: str = "vclub",
        items: int = 256,
        hparams: HParams,
        tokens: Mapping[str, np.ndarray] | None = None,
        schedules: Mapping[str, Any] | None = None,
    ) -> None:
        choose("distill.lower", lower, tuple(LOWER))
        choose("distill.upper", upper, UPPER)
        self.terms = losses.compose(
            {name: {"schedule": (schedules or {}).get(name, "constant")} for name in TERMS}
        )
        self.transfer = transfer
        self.lower, self.upper, self.items = lower, upper, items
        tables: dict[str, Any] = {"e": pad_rows(e)}
        if tokens is not None:
            tables["tokens"] = {name: pad_rows(table) for name, table in tokens.items()}
        frozen: dict[str, Any] = {
            **tables,
            "rows": np.flatnonzero(train).astype(np.int32),
            "transfer": transfer_params,
        }
        averages = {name: np.float32(losses.MINE_START) for name in ("next", "last")}
        super().__init__(
            alignment(config),
            hparams,
            frozen=frozen,
            axes={**row_axes(tables), "transfer": transfer.logical_axes(None)},
            state=averages if lower == "mine" else {},
        )

    def batch_loss(self, params: Params, batch: Batch, at: StepInputs) -> LossResult:
        """Return alignment over session positions plus the terms on a draw of training items."""
        fns = self.model.fns
        ok = batch["target_ok"].reshape(-1)
        h, _ = self.transfer.fns["encode_session"](
            at.frozen["transfer"],
            take_rows(at.frozen.get("tokens", at.frozen["e"]), batch["item"]),
            batch["mask"],
            batch["gap"],
            batch["event"],
        )
        h = jax.lax.stop_gradient(h).reshape(ok.shape[0], -1)

        state = dict(at.state)

        def bound(rows: jax.Array, which: str) -> jax.Array:
            (_, t), _ = fns["heads"](params, take_rows(at.frozen["e"], rows.reshape(-1)))
            scores, _ = fns[f"{which}_scores"](params, t, h)
            if self.lower == "mine":
                values, state[which] = losses.mine(scores, state[which], where=ok)
                return values
            return LOWER[self.lower](scores, where=ok)

        following = bound(batch["target"], "next")
        current = bound(batch["item"], "last")
        draw = jax.random.randint(at.key, (self.items,), 0, at.frozen["rows"].shape[0])
        e = take_rows(at.frozen["e"], at.frozen["rows"][draw])
        (k, t), _ = fns["heads"](params, e)
        rebuilt, _ = fns["reconstruct"](params, k)
        shared, fit = self._shared_information(params, k, t)
        inputs = {
            "next": (-following, ok),
            "last": (-current, ok),
            # Information is never negative: where the estimate is, q(t | k) is wrong and there is
            # nothing to separate. Without this floor k and t would move away from q without end.
            "disentangle": jnp.maximum(shared.mean(), 0.0)[None],
            "rebuild": jnp.square(rebuilt - e).mean(-1),
            "conditional": jnp.atleast_1d(fit),
        }
        numbers = {name: {"weight": at.hparams.get(name, 1.0)} for name in TERMS}
        total, count, metrics = self.terms(inputs, step=at.step, hparams=numbers)
        metrics |= {
            "information_next": (following.sum(), ok.sum()),
            "information_last": (current.sum(), ok.sum()),
            self.upper: (shared.sum(), shared.size),
        }
        return total, count, state, metrics

    def _shared_information(
        self, params: Params, k: jax.Array, t: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Return (how much k and t share, the loss of fitting q(t | k)), each [items]."""
        if self.upper == "orthogonal":
            return losses.orthogonality(k, t), jnp.zeros(())
        if self.upper == "hsic":
            return losses.hsic(k, t), jnp.zeros(())
        stop = jax.lax.stop_gradient
        conditional = self.model.fns["conditional"]
        # q learns from k and t without moving them; k and t move against a fixed q.
        (mean, log_variance), _ = conditional(params, stop(k))
        fit = -losses.gaussian_log_likelihood(mean, log_variance, stop(t))
        (mean, log_variance), _ = conditional(stop(params), k)
        upper = losses.l1out if self.upper == "l1out" else losses.vclub
        return upper(mean, log_variance, t), fit / t.shape[-1]
