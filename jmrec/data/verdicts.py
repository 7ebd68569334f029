"""What people say of single recommendations: a CSV file with the columns item_id, user_id, verdict.

``drop`` takes an item away from a user, ``keep`` shows it although a model would not. A row without
a user is for all users; one with a user stands above it.
"""

import csv
import difflib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from jmrec.data.schema import AVOID, Ratings
from jmrec.errors import UserError
from jmrec.files import check_regular

KEEP, DROP = "keep", "drop"
COLUMNS = ("item_id", "user_id", "verdict")
MAX_BYTES = 100_000_000
"""Of a file of verdicts."""


@dataclass(frozen=True)
class Verdict:
    """One verdict.

    Attributes:
      item: An item id.
      user: A user id, "" for all.
      verdict: `KEEP` or `DROP`.
    """

    item: str
    user: str
    verdict: str


NOBODY = Verdict("", "", "")
"""Stands for a user who was forgotten and whom verdicts alone had named."""


def read_verdicts(path: Path, items: Sequence[str]) -> tuple[Verdict, ...]:
    """Read a file of verdicts.

    Args:
      path: The file, UTF-8.
      items: All item ids.

    Returns:
      The verdicts in the order of the file, each said once.

    Raises:
      UserError: It can not be read, or a row is broken: the first one is named.
    """
    try:
        check_regular(path, MAX_BYTES)
        lines = list(csv.reader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline="")))
    except OSError as error:
        raise UserError(f"{path} can not be read ({error.strerror}); mend that.") from None
    except (ValueError, csv.Error) as error:
        raise UserError(f"{path} is no CSV file in UTF-8 ({error}); save it as one.") from None
    header = [name.strip() for name in lines[0]] if lines else []
    for name in COLUMNS:
        if header.count(name) != 1:
            raise UserError(
                f"{path}, row 1: there is not one column {name!r}; begin the file with the line "
                f"{','.join(COLUMNS)}."
            )
    places, known = [header.index(name) for name in COLUMNS], set(items)
    found: dict[tuple[str, str], tuple[str, int]] = {}
    for row, cells in enumerate(lines[1:], 2):
        where = f"{path}, row {row}"
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(header):
            raise UserError(f"{where}: {len(cells)} cells for {len(header)} columns; mend the row.")
        item, user, verdict = (cells[place].strip() for place in places)
        if verdict not in (KEEP, DROP):
            raise UserError(f"{where}: the verdict is {verdict!r:.80}; write {KEEP} or {DROP}.")
        if item not in known:
            near = difflib.get_close_matches(item, items, 1)
            guess = f"did you mean {near[0]!r}?" if near else "name one of it."
            raise UserError(f"{where}: item {item!r:.80} is not in the catalogue; {guess}")
        said, before = found.setdefault((item, user), (verdict, row))
        if said != verdict:
            raise UserError(f"{where} says {verdict}, and row {before} says {said}; choose one.")
    return tuple(Verdict(item, user, verdict) for (item, user), (verdict, _) in found.items())


def verdicts_of(verdicts: Sequence[Verdict], user: str) -> Mapping[str, str]:
    """Return item -> verdict for a user.

    Example:
      >>> both = [Verdict("a", "", "drop"), Verdict("a", "eve", "keep")]
      >>> verdicts_of(both, "eve"), verdicts_of(both, "bob")
      ({'a': 'keep'}, {'a': 'drop'})
    """
    for_all = {each.item: each.verdict for each in verdicts if not each.user}
    own = {each.item: each.verdict for each in verdicts if user and each.user == user}
    return {**for_all, **own}


def with_verdicts(ratings: Ratings, verdicts: Sequence[Verdict], items: Sequence[str]) -> Ratings:
    """Return the rows with one more for each verdict, at the time of the last row.

    Where the label is to be avoided, what people drop has it and what they keep has it not; where
    it is wanted, the other way round.

    Args:
      ratings: N rows.
      verdicts: K of them; a user that no row has is a new one. `NOBODY` makes no row, and keeps
        the place of a user.
      items: The item ids, in row order.

    Returns:
      N + K rows.
    """
    row_of = {item: row for row, item in enumerate(items)}
    user_ids, known = list(ratings.user_ids), set(ratings.user_ids)
    for each in verdicts:
        if each == NOBODY or (each.user and each.user not in known):
            user_ids.append(each.user)
            known.add(each.user)
    verdicts = [each for each in verdicts if each != NOBODY]
    code_of = {user: code for code, user in enumerate(user_ids)}
    has = DROP if ratings.label_means == AVOID else KEEP
    count = len(verdicts)
    own = {
        "items": [row_of[each.item] for each in verdicts],
        "users": [code_of[each.user] if each.user else -1 for each in verdicts],
        "times": np.full(count, ratings.times.max(initial=0.0)),
        "labels": [each.verdict == has for each in verdicts],
        "ratings": np.full(count, np.nan),
    }
    joined: dict[str, Any] = {}
    for name, more in own.items():
        before = getattr(ratings, name)
        joined[name] = np.concatenate([before, np.asarray(more).astype(before.dtype)])
    return replace(
        ratings, user_ids=user_ids, reviews=[*ratings.reviews, *[""] * count], **joined
    )  # fmt: skip
