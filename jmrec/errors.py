"""What a user is told when something is wrong with the input: one sentence, exit code 2."""


class UserError(Exception):
    """An error that the user can mend.

    The message is one sentence that says what is wrong (naming file and row where there is one)
    and what to do. ``jmrec.main`` prints it without a traceback and exits with code 2.

    Example:
      >>> str(UserError("items.csv, row 7: item_id is empty; give every item an id."))
      'items.csv, row 7: item_id is empty; give every item an id.'
    """


class Preempted(Exception):
    """Raised after a SIGTERM, once the state is saved, or when other processes are missing.

    ``jmrec.main`` turns it into exit code 75 (``EX_TEMPFAIL``), on which launchers requeue.
    """
