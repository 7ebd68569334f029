"""``jmrec sweep``: the trials of one experiment, run, judged on validation, and reported."""
