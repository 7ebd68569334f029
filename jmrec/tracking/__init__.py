"""What a run reports as it runs: metrics.jsonl always, W&B when asked, progress on the terminal."""

from jmrec.tracking.jsonl import mend_lines, read_curves
from jmrec.tracking.tracker import Tracker

__all__ = ["Tracker", "mend_lines", "read_curves"]
