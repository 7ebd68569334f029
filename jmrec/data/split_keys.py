"""The keys of ``dataset.toml`` that say in which split an event is a target."""

from jmrec.data.roles import InteractionColumns

SESSION_START, EVENT_TIME, LAST_OUT = "session_start", "event_time", "last_out"
"""What decides it: when its session began, its own time, or its place in its session."""
SPLITS_BY = (SESSION_START, EVENT_TIME, LAST_OUT)


def split_fault(
    split: str, validation_from: float, test_from: float, test_file: str, events: InteractionColumns
) -> str:
    """Return what is wrong with the keys of a split, in words; "" where nothing is.

    Args:
      split: One of `SPLITS_BY`.
      validation_from: Unix seconds from which on events are validation; 0 where not given.
      test_from: Those from which on they are test.
      test_file: The file of a test split that is given, "" where none is.
      events: The columns of interactions.

    Example:
      >>> split_fault("event_time", 9.0, 5.0, "", InteractionColumns())
      'test_from must be later than validation_from; give unix seconds'
    """
    moments = bool(validation_from or test_from)
    if split != SESSION_START and (test_file or not events.time):
        lacks = "no test_file beside it" if test_file else "a column of times"
        return f'split = "{split}" needs {lacks}; mend that, or leave split out'
    if moments and split != EVENT_TIME:
        return f'validation_from and test_from need split = "{EVENT_TIME}"; write it, or leave them'
    if moments and not (validation_from and test_from):
        return "validation_from and test_from are given together or not at all; write both"
    if moments and test_from <= validation_from:
        return "test_from must be later than validation_from; give unix seconds"
    return ""
