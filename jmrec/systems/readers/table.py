"""The item readers by name."""

from collections.abc import Callable

from jmrec.config import ConfigDict, choose
from jmrec.errors import UserError
from jmrec.systems.data import RunData
from jmrec.systems.readers.frozen import FrozenReader
from jmrec.systems.readers.lowrank import LowRankReader
from jmrec.systems.readers.reader import ItemReader
from jmrec.systems.readers.trained import TrainedReader
from jmrec.systems.work import Work

READERS: dict[str, Callable[[Work, RunData], ItemReader]] = {
    "trained": TrainedReader,
    "frozen": FrozenReader,
    "lora": LowRankReader,
}
"""backbone.mode -> the reader."""
PRETRAINED = ("frozen", "lora")
"""Those that read with the weights that backbone.text and backbone.picture name."""


def reader_name(config: ConfigDict) -> str:
    """Return which reader an experiment's ``backbone.mode`` names.

    Raises:
      UserError: There is no such reader, or it does not go with backbone.name.
    """
    c = config.backbone
    own = c.name == "tiny"
    if own and c.mode == "frozen" and "lora" not in config.knowledge:
        return "trained"  # how runs before format 2 say it
    mode = choose("backbone.mode", c.mode, tuple(READERS))
    if own == (mode in PRETRAINED):
        raise UserError(
            f"backbone.name={c.name} and backbone.mode={mode} do not go together; choose both by "
            "experiments/tpad.py:backbone=...,mode=... and not as overrides."
        )
    return mode


def make_reader(work: Work, data: RunData) -> ItemReader:
    """Return the item reader of a run."""
    return READERS[reader_name(work.config)](work, data)
