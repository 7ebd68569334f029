"""Who did it, where no column is called a session or a user. For `jmrec data init`."""

from jmrec.data.guess_columns import Column
from jmrec.data.guess_tables import Pair
from jmrec.errors import UserError


def find_people(pair: Pair, columns: dict[str, Column]) -> tuple[str, Column, str]:
    """Find the column of orders, else the one with most values that come back.

    Args:
      pair: The two tables.
      columns: Those of the events that may be it.

    Returns:
      "session" or "user", its column, and a sentence where that is no more than a guess.

    Raises:
      UserError: if no column tells one visitor from another.
    """
    repeated = [c for c in columns.values() if c.filled and 1 < c.distinct <= len(c.filled) / 1.5]
    orders = [c for c in repeated if c.is_called("basket") and "" not in c.cells]
    if orders:
        return "session", orders[0], ""
    if pair.separator:  # a row is somebody's: what many rows share is no name
        rows = len(pair.interactions.columns[pair.item].cells)
        repeated = [c for c in repeated if 2 * len({*c.cells}) > rows]
    if not repeated:
        raise UserError(
            f"{pair.interactions.name}: no column tells one visitor from another; add one of "
            "sessions or users."
        )
    best = max(repeated, key=lambda c: c.distinct)
    return (
        "user",
        best,
        f"no column of {pair.interactions.name} is called a user or a session, and {best.name} "
        'is taken for the user because of its values; if it is another, name that as user = "..."',
    )
