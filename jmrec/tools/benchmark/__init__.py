"""``python -m jmrec.tools.benchmark``: jmrec measured on this machine."""
