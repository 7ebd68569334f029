"""Train the critic, or the conditional, that estimators of mutual information read.

What is trained and what is estimated are two things: the Jensen-Shannon bound and SMILE share the
critic that the Jensen-Shannon bound trains, vCLUB and L1Out the conditional of greatest likelihood.

References:
  Poole et al., On Variational Bounds of Mutual Information, 2019:
  https://arxiv.org/abs/1905.06922
  Song, Ermon, Understanding the Limitations of Variational Mutual Information Estimators, 2019:
  https://arxiv.org/abs/1910.06222
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jmrec import losses
from jmrec.config import choose
from jmrec.models.readers.critics import ConditionalConfig, CriticConfig, conditional, critic
from jmrec.tasks.task import ModelTask, StepInputs
from jmrec.types import Batch, HParams, LossResult, Params, SumCount

LIKELIHOOD = "likelihood"
"""The objective that trains a conditional; all others train a critic."""
CRITICS: dict[str, Callable[[jax.Array, Any], jax.Array]] = {
    "infonce": lambda scores, clip: losses.infonce(scores),
    "nwj": lambda scores, clip: losses.nwj(scores),
    # Its value needs no average, only its gradient does.
    "mine": lambda scores, clip: losses.mine(scores, jnp.float32(losses.MINE_START))[0],
    "jsd": lambda scores, clip: losses.jsd(scores),
    "smile": losses.smile,
}
"""What trains a critic, by the scores [B, B] and SMILE's clip: per-example values [B]."""
OBJECTIVES = (*CRITICS, LIKELIHOOD)


@dataclass(frozen=True)
class Estimator:
    """One estimator of I(x; y).

    Attributes:
      kind: What its expectation is known to be: "lower" (at most I), "upper" (at least I with the
        true conditional) or "estimate" (neither).
      objective: What trains what it reads, one of `OBJECTIVES`; "" where it reads the truth.
      values: Per-example values [B], of (scores [B, B], clip) or (mean, log-variance, y).
      best: What the best critic has beyond the log of the density ratio.
    """

    kind: str
    objective: str
    values: Callable[..., jax.Array]
    best: float = 0.0


def _club(mean: jax.Array, log_variance: jax.Array, y: jax.Array) -> jax.Array:
    """Return CLUB from the log-likelihoods of all pairs."""
    shape = (*mean.shape[:1], *y.shape)
    mean, log_variance = (jnp.broadcast_to(each[:, None], shape) for each in (mean, log_variance))
    every = losses.gaussian_log_likelihood(mean, log_variance, jnp.broadcast_to(y, shape))
    return losses.club(every)


ESTIMATORS: dict[str, Estimator] = {
    "infonce": Estimator("lower", "infonce", CRITICS["infonce"]),
    "nwj": Estimator("lower", "nwj", CRITICS["nwj"], best=1.0),
    "mine": Estimator("lower", "mine", CRITICS["mine"]),
    # The best critic of the Jensen-Shannon bound is the log ratio, NWJ's is 1 more.
    "jsd": Estimator("lower", "jsd", lambda scores, clip: losses.nwj(1.0 + scores)),
    "smile": Estimator("estimate", "jsd", CRITICS["smile"]),
    "smile_own": Estimator("estimate", "smile", CRITICS["smile"]),
    "club": Estimator("upper", "", _club),
    "vclub": Estimator("estimate", LIKELIHOOD, losses.vclub),
    "l1out": Estimator("estimate", LIKELIHOOD, losses.l1out),
}
"""Name -> estimator. "smile_own" is SMILE with a critic that its own gradient trains."""


def reads_critic(name: str) -> bool:
    """Return whether an estimator reads a critic, and not a conditional."""
    return ESTIMATORS[name].objective in CRITICS


class CriticTask(ModelTask):
    """The task; ``hparams``: learning_rate, clip (SMILE's), decay (of MINE's moving average).

    Args:
      objective: What is maximised, one of `OBJECTIVES`.
      config: The critic; its widths are the conditional's too.
      estimators: Keys of `ESTIMATORS` whose values are logged, those that this objective trains.
      hparams: Overrides of the traced numbers.
    """

    name = "gaussians"
    defaults: ClassVar[HParams] = {"learning_rate": 1e-3, "clip": 5.0, "decay": 0.99}
    couples_examples = True

    def __init__(
        self,
        objective: str,
        config: CriticConfig,
        estimators: Sequence[str] = tuple(ESTIMATORS),
        hparams: HParams | None = None,
    ) -> None:
        self.objective = choose("objective", objective, OBJECTIVES)
        self.estimators = [name for name in estimators if ESTIMATORS[name].objective == objective]
        start = {"average": np.float32(losses.MINE_START)}
        super().__init__(
            conditional(ConditionalConfig(config.x, config.y, config.hidden))
            if objective == LIKELIHOOD
            else critic(config),
            hparams or {},
            state=start if objective == "mine" else {},
        )

    def batch_loss(self, params: Params, batch: Batch, at: StepInputs) -> LossResult:
        """Return the objective, negative, and the batch's estimates."""
        y, state = batch["y"], at.state
        read = self.read(params, batch["x"], y)
        if self.objective == LIKELIHOOD:
            values = losses.gaussian_log_likelihood(*read)
        elif self.objective == "mine":
            values, average = losses.mine(read[0], state["average"], decay=at.hparams["decay"])
            state = {"average": average}
        else:
            values = CRITICS[self.objective](read[0], at.hparams["clip"])
        found = self.values(jax.lax.stop_gradient(read), at.hparams["clip"])
        metrics: dict[str, SumCount] = {n: (each.sum(), len(y)) for n, each in found.items()}
        return -values.sum(), jnp.float32(len(y)), state, metrics

    def read(self, params: Params, x: jax.Array, y: jax.Array) -> tuple[jax.Array, ...]:
        """Return what estimators read: (scores [B, B],), or mean and log-variance and y."""
        if self.objective == LIKELIHOOD:
            (mean, log_variance), _ = self.model.fns["gaussian"](params, x)
            return mean, log_variance, y
        return (self.model.fns["scores"](params, x, y)[0],)

    def values(self, read: tuple[jax.Array, ...], clip: Any) -> Mapping[str, jax.Array]:
        """Return estimator -> per-example values [B], of what `read` returned."""
        more = () if self.objective == LIKELIHOOD else (clip,)
        return {name: ESTIMATORS[name].values(*read, *more) for name in self.estimators}
