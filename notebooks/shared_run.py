"""The one small run that notebooks 02, 03, 04 and 06 look at: made by the first, then reused.

It is TPAD on ToyShop, smaller than ``size=tiny``: large enough to show something, too small to
prove anything. It lies in ``runs/notebooks`` of the checkout, or where ``JMREC_NOTEBOOKS_RUN`` says.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib

import jmrec

if TYPE_CHECKING:
    from jmrec.systems.tpad.system import Tpad

CHECKOUT = Path(__file__).resolve().parents[1]
EXPERIMENT = f"{CHECKOUT / 'experiments/tpad.py'}:size=tiny,students=served"
SMALLER = {
    "seeds": (0, 1, 2),  # three students, so that a claim is possible
    "data.toyshop.n_items": 256,
    "data.toyshop.sessions": 1200,
    "data.vocab": 600,
    "vision.train.steps": 100,
    "knowledge.train.steps": 40,
    "knowledge.train.batch_size": 32,
    "transition.train.steps": 80,
    "transition.train.eval_every": 40,
    "distill.train.steps": 40,
    "student.train.steps": 60,
    "student.train.eval_every": 30,
    "student.train.batch_size": 64,
}


def shared_run() -> "Tpad":
    """Return the finished run, after making it where it is not there yet."""
    folder = Path(os.environ.get("JMREC_NOTEBOOKS_RUN", CHECKOUT / "runs/notebooks"))
    # The report lays out its own plots: a notebook's style is not for them.
    with matplotlib.rc_context({"figure.constrained_layout.use": False}):
        # What is done is skipped; what was made with other settings is made again.
        return jmrec.run(EXPERIMENT, folder, SMALLER, stale="rerun").system


if __name__ == "__main__":
    shared_run()
