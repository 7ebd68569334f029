"""A small "mmrec" with every stage it may have, for tests/integration/kill_and_resume.py.

Hypothesis: a run that is killed and started again ends in the same bits as one that is not.

Command:
  jmrec run --config tests/integration/kill_mmrec.py --workdir runs/killed
"""

from pathlib import Path

from jmrec.config import ConfigDict, load_config

MMREC = Path(__file__).resolve().parents[2] / "experiments" / "mmrec.py"


def get_config(arg: str | None = None) -> ConfigDict:
    """Return experiments/mmrec.py:size=tiny, cut down; saves are frequent."""
    config = load_config(f"{MMREC}:{arg or 'size=tiny,arm=both,writer=extract'}")
    config.data.toyshop.update(n_items=60, users=40, reviews=600)
    config.read.picture = "vision"
    config.vision.vocab = 320
    config.vision.out = 16
    config.vision.stack.update(width=32, mlp=64)
    config.read.width = config.align.width = 8
    config.rank.past = 3
    for stage in (config.vision, config.align, config.rank):
        stage.train.update(steps=8, batch_size=16, eval_every=4, save_every=2)
    return config
