"""The smallest real TPAD: every stage and one distilled student, for tests/integration/kill_*.py.

Hypothesis: a run that is killed and started again ends in the same bits as one that is not.

Command:
  jmrec run --config tests/integration/kill_experiment.py --workdir runs/killed
"""

from pathlib import Path
from typing import Any

from jmrec.config import ConfigDict, load_config, sweep

TPAD = Path(__file__).resolve().parents[2] / "experiments" / "tpad.py"


def get_config(arg: str | None = None) -> ConfigDict:
    """Return experiments/tpad.py:size=tiny, cut down; saves are frequent."""
    config = load_config(f"{TPAD}:{arg or 'size=tiny'}")
    config.data.toyshop.n_items, config.data.toyshop.sessions = 60, 160
    # The shapes of tests/tiny.py: what is made of either is compiled once.
    config.data.update(vocab=320, max_tokens=8, picture_size=16, window=12)
    config.knowledge.vision.merge = 1
    for owner in (config.knowledge, config.knowledge.vision, config.transition, config.student):
        owner.stack.update(width=32, layers=1, mlp=64)
    stages = (config.vision, config.knowledge, config.transition, config.distill, config.student)
    for stage in stages:
        stage.train.update(steps=8, batch_size=16, eval_every=4, save_every=2)
    config.students = ConfigDict({"distilled": config.students.distilled.to_dict()})
    return config


def get_hyper(arg: str | None = None) -> list[dict[str, Any]]:
    """Return two trials of ``jmrec sweep``."""
    return sweep("student.train.learning_rate", (3e-3, 1e-2))
