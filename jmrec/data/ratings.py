"""The rows of a folder in the order of time, with their labels and reviews."""

import numpy as np

from jmrec.data.folder import Raw
from jmrec.data.schema import Ratings


def make_ratings(raw: Raw) -> Ratings:
    """Return all rows of a catalogue folder as something to be ranked.

    Args:
      raw: The validated folder. Without a label in its description all labels are -1.

    Returns:
      The rows in the order of time, ties in that of the order column and then of the file; where
      the data has no time, in the order of the file, which then is the time.
    """
    n = len(raw.item)
    position = np.arange(n, dtype=np.float64)
    tie = position if raw.order is None else raw.order
    time = position if raw.time is None else raw.time
    order = np.lexsort((position, tie, time))
    codes, names = (np.full(n, -1), []) if raw.user is None else raw.user
    label = np.full(n, -1, np.int8) if raw.label is None else raw.label
    columns = raw.description.interactions
    return Ratings(
        items=raw.item[order],
        users=codes[order].astype(np.int32),
        user_ids=names,
        times=time[order],
        labels=label[order],
        ratings=raw.rating[order],
        reviews=[""] * n if raw.review is None else [raw.review[i] for i in order],
        label=columns.label,
        label_means=columns.label_means,
    )
