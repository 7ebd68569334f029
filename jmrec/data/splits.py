"""Which of the ways to split sessions a catalogue folder asks for."""

from collections.abc import Collection, Sequence

import numpy as np

from jmrec.data.description import Description
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
    test = None
    sessions = sessionise(raw)
    if raw.given_test is not None:
        assert raw.session is not None  # describe() asks for it
        codes, names = raw.session
        test = {names[code] for code in np.unique(codes[raw.given_test])}
    return split_as_described(
        sessions, raw.description, fractions, keep_single=keep_single, back=back, test=test,
        labelled=raw.label is not None,
    )  # fmt: skip


def split_as_described(
    sessions: Sessions,
    description: Description,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
    *,
    keep_single: bool = False,
    back: int = 0,
    test: Collection[str] | None = None,
    labelled: bool = False,
) -> dict[str, Sessions]:
    """Return sessions in their three splits.

    Args:
      sessions: All sessions, see `sessionise`.
      description: What the columns mean.
      fractions: See `split_sessions`, as the next two.
      keep_single: The same.
      back: The same.
      test: Session ids of a test split that is given, None where none is.
      labelled: Whether the rows have labels, which need no sessions.
    """
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
    if test is None:
        try:
            return split_by_time(sessions, fractions, keep_single=keep_single, back=back)
        except UserError as error:
            if not labelled:
                raise
            raise UserError(
                f"{str(error).removesuffix('.')}; or, as rows that are ranked by a label need no "
                "sessions, give jmrec data check and prepare --no-sessions."
            ) from None
    if back:
        raise UserError("the test split of this data is given, so there are no earlier ones.")
    return split_given(sessions, np.array([each in test for each in sessions.ids]), fractions)
