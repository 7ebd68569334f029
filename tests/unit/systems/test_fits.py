"""What an experiment's settings of a fit become."""

from pathlib import Path

import pytest

from jmrec.config import load_config
from jmrec.models.layers import StackConfig, remat_policy
from jmrec.systems.fits import train_config

SPEC = f"{Path(__file__).resolve().parents[3]}/experiments/tpad.py:size=tiny"


def test_accumulation_is_an_argument() -> None:
    train = load_config(SPEC, ["--config.transition.train.accumulate=4"]).transition.train
    assert train_config(train, "dp").accumulate == 4
    assert train_config(load_config(SPEC).transition.train, "dp").accumulate == 1


@pytest.mark.parametrize(("word", "recomputes"), [("none", False), ("true", True),
                                                  ("dots_saveable", True)])  # fmt: skip
def test_what_is_recomputed_is_an_argument(word: str, recomputes: bool) -> None:
    stack = load_config(SPEC, [f"--config.knowledge.stack.remat={word}"]).knowledge.stack
    assert remat_policy(StackConfig(**stack).remat)[0] is recomputes
