"""Which of the ways to split sessions a catalogue folder asks for."""

from collections.abc import Sequence

import numpy as np

from jmrec.data.folder import Raw
from jmrec.data.schema import Sessions
from jmrec.data.sessions import (
    sessionise,
    split_by_event,
    split_by_time,
    split_given,
    split_last_out,
)
from jmrec.data.split_keys import EVENT_TIME, LAST_OUT
from jmrec.errors import UserError


def split_sessions(
    raw: Raw,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
    *,
    keep_single: bool = False,
    back: int = 0,
) -> dict[str, Sessions]:
    """Return the sessions of a folder in its three splits, as its description says.

    Args:
      raw: The validated folder.
      fractions: Shares of train, validation and test, where neither moments nor places decide.
      keep_single: Whether train keeps sessions of one event, see `split_by_time`.
      back: See `split_by_time`.

    Returns:
      "train", "validation" and "test".

    Raises:
      UserError: if the sessions can not be split like that.
    """
    sessions, description = sessionise(raw), raw.description
    if description.split == EVENT_TIME:
        moments = (description.validation_from, description.test_from)
        return split_by_event(
            sessions, fractions, keep_single=keep_single, back=back,
            moments=moments if any(moments) else None,
        )  # fmt: skip
    if description.split == LAST_OUT:
        if back:
            raise UserError(f'split = "{LAST_OUT}" has no earlier test windows; leave back out.')
        return split_last_out(sessions, keep_single=keep_single)
    if raw.given_test is None:
        try:
            return split_by_time(sessions, fractions, keep_single=keep_single, back=back)
        except UserError as error:
            if raw.label is None:
                raise
            raise UserError(
                f"{str(error).removesuffix('.')}; or, as rows that are ranked by a label need no "
                "sessions, give jmrec data check and prepare --no-sessions."
            ) from None
    if back:
        raise UserError("the test split of this data is given, so there are no earlier ones.")
    assert raw.session is not None  # describe() asks for it
    codes, names = raw.session
    test = {names[code] for code in np.unique(codes[raw.given_test])}
    return split_given(sessions, np.array([each in test for each in sessions.ids]), fractions)
