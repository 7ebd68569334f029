"""The one small run that notebooks 02, 03, 04 and 06 look at: made by the first, then reused.

It is TPAD on ToyShop, smaller than ``size=tiny``: large enough to show something, too small to
prove anything. It lies in ``runs/notebooks`` of the checkout, or where ``JMREC_NOTEBOOKS_RUN`` says.
"""

import os
from pathlib import Path

import matplotlib

from jmrec.xla import set_flags

set_flags()  # before jax starts

from jmrec.config import load_config
from jmrec.systems.registry import open_run, run
from jmrec.systems.tpad.system import Tpad
from jmrec.tracking import Tracker

CHECKOUT = Path(__file__).resolve().parents[1]
EXPERIMENT = f"{CHECKOUT / 'experiments/tpad.py'}:size=tiny,students=served"
SMALLER = [
    "--config.seeds=0,1,2",  # three students, so that a claim is possible
    "--config.data.toyshop.n_items=256",
    "--config.data.toyshop.sessions=1200",
    "--config.data.vocab=600",
    "--config.vision.train.steps=100",
    "--config.knowledge.train.steps=40",
    "--config.knowledge.train.batch_size=32",
    "--config.transition.train.steps=80",
    "--config.transition.train.eval_every=40",
    "--config.distill.train.steps=40",
    "--config.student.train.steps=60",
    "--config.student.train.eval_every=30",
    "--config.student.train.batch_size=64",
]


def shared_run() -> Tpad:
    """Return the finished run, after making it where it is not there yet."""
    folder = Path(os.environ.get("JMREC_NOTEBOOKS_RUN", CHECKOUT / "runs/notebooks"))
    config = load_config(EXPERIMENT, SMALLER)
    # The report lays out its own plots: a notebook's style is not for them.
    with matplotlib.rc_context({"figure.constrained_layout.use": False}):
        # What is done is skipped; what was made with other settings is made again.
        run(config, folder, resume="auto", stale="rerun", command=["notebooks/shared_run.py"])
    system = open_run(folder, Tracker(folder, quiet=True))
    assert isinstance(system, Tpad)
    return system


if __name__ == "__main__":
    shared_run()
