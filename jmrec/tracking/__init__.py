"""What a run reports as it runs: metrics.jsonl, mirrors where asked, progress on the terminal.

Mirrors are Weights & Biases, TensorBoard's event files, a log file, or a `Writer` of your own.
"""

from jmrec.tracking.jsonl import mend_lines, read_curves, read_lines
from jmrec.tracking.mirror import Card, Outcome, Writer
from jmrec.tracking.tracker import Tracker

__all__ = ["Card", "Outcome", "Tracker", "Writer", "mend_lines", "read_curves", "read_lines"]
