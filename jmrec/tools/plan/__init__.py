"""``jmrec plan``: training steps compiled from shapes for hardware that is not here."""
