"""What the settings of the system "gaussians" mean, what they may be, and what goes together."""

from jmrec.config import ConfigDict
from jmrec.config.settings import Each, Number, Setting, Settings, Whole, Word, under
from jmrec.errors import SettingError
from jmrec.models.readers.critics import KINDS
from jmrec.systems.settings import RUN, TRAIN, WIDTH, Checks, check_train
from jmrec.tasks.gaussians import ESTIMATORS

SETTINGS: Settings = {
    **RUN,
    "dimensions": Setting(Whole(1, 65_536), "Numbers of x, and of y."),
    "nats": Setting(
        Each(Number(0, 100, above=True), least=1, once=True), "The true information of x and y."
    ),
    "estimators": Setting(
        Each(Word(tuple(ESTIMATORS)), least=1, once=True), "What estimates it from samples."
    ),
    "critic.kind": Setting(Word(KINDS), "How a critic compares x and y."),
    "critic.hidden": Setting(WIDTH, "Width of its hidden layer."),
    "critic.width": Setting(WIDTH, "Width in which a separable one compares."),
    "hparams.clip": Setting(Number(0, 1e6, above=True), "Where SMILE clips the log of the ratio."),
    "hparams.decay": Setting(Number(0, 1, below=True), "Of MINE's moving average."),
    **under("train", TRAIN),
    "train.batch_size": Setting(Whole(2, 2**20), "Pairs of an update, and of an estimate."),
    "evaluate.samples": Setting(Whole(4, 10**9), "Fresh pairs on which it is estimated."),
}
"""Every setting of experiments/losses_on_gaussians.py."""


def check(config: ConfigDict) -> None:
    """Check that the settings go together.

    Raises:
      UserError: They do not; with the setting's name.
    """
    check_train("train", config.train, couples=True)
    # Stages are named by six digits.
    if len({f"{each:g}" for each in config.nats}) < len(config.nats):
        raise SettingError(f"nats={tuple(config.nats)} are alike in six digits; name each once.")
    least = 2 * config.train.batch_size
    if config.evaluate.samples < least:
        raise SettingError(
            f"evaluate.samples={config.evaluate.samples} is no two batches; give {least} or more."
        )


GAUSSIANS = Checks(SETTINGS, check)
