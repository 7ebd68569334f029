"""The numbers, ids and past of pairs: what was known before each row or question, as arrays.

Everything is computed from earlier days only (`jmrec.data.known`), for all rows of the data at
once: a row of test never changes one of training. What is served asks the same functions.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from jmrec.data.known import DAY, Known, Questions
from jmrec.data.schema import Items
from jmrec.systems.mmrec.data import GROUPS
from jmrec.tasks.rank import NOT_KNOWN

FAR = 8.0
"""A standardised number beyond this says no more than this."""
SMOOTH = 5.0
"""How many rows of the average a mean of few rows begins with."""


@dataclass(frozen=True)
class Numbers:
    """The numbers of N rows.

    Attributes:
      names: F names.
      values: float32 [N, F], standardised on the training rows.
      empty: "item" and "user" -> float32 [F], the numbers of a row of which nothing is known.
      of: "item" and "user" -> bool [F], which numbers come from earlier rows of it.
      count: "item" and "user" -> int64 [N], known rows that have a label.
      total: "item" and "user" -> float64 [N], how many of them are positive.
    """

    names: tuple[str, ...]
    values: np.ndarray
    empty: dict[str, np.ndarray]
    of: dict[str, np.ndarray]
    count: dict[str, np.ndarray]
    total: dict[str, np.ndarray]


def pair_numbers(
    known: Known, items: Items, train: np.ndarray, asked: Questions | None = None
) -> Numbers:
    """Return the numbers of all rows, or of other questions.

    Args:
      known: The rows, and what each may know.
      items: The catalogue.
      train: int64, the training rows that have a label: on these the numbers are standardised.
      asked: N questions; None asks for each row.
    """
    own = _columns(known, items, train, known.rows)
    center, scale = own.table[train].mean(0), own.table[train].std(0)
    scale = np.where(scale > 1e-6, scale, 1.0)
    found = own if asked is None else _columns(known, items, train, asked)
    nothing = np.array([found.empty.get(name, 0.0) for name in found.names])
    values = np.clip((found.table - center) / scale, -FAR, FAR)
    of = {by: np.array([found.who.get(name) == by for name in found.names]) for by in GROUPS}
    return Numbers(
        names=found.names,
        values=values.astype(np.float32),
        empty={by: np.clip((nothing - center) / scale, -FAR, FAR).astype(np.float32) for by in of},
        of=of,
        count=found.count,
        total=found.total,
    )


@dataclass(frozen=True)
class _Columns:
    """The numbers of N questions as they are: table [N, F]; the rest as in `Numbers`."""

    names: tuple[str, ...]
    table: np.ndarray
    empty: dict[str, float]
    who: dict[str, str]
    count: dict[str, np.ndarray]
    total: dict[str, np.ndarray]


def _columns(known: Known, items: Items, train: np.ndarray, asked: Questions) -> _Columns:
    ratings = known.ratings
    labels = ratings.labels
    mean = float((labels[train] == 1).mean())
    columns: dict[str, np.ndarray] = {}
    empty: dict[str, float] = {}
    who: dict[str, str] = {}
    count: dict[str, np.ndarray] = {}
    total: dict[str, np.ndarray] = {}
    rated = np.isfinite(ratings.ratings)
    middle = float(ratings.ratings[train][rated[train]].mean()) if rated[train].any() else 0.0
    for by in GROUPS:
        spans = known.spans(by, labels >= 0, asked)
        count[by], total[by] = spans.count, spans.sums((labels == 1).astype(float))
        made = {
            f"{by}: rows": (np.log1p(count[by]), 0.0),
            f"{by}: share": (smoothed_logit(count[by], total[by], mean), float(logit(mean))),
        }
        every = known.spans(by, asked=asked)
        last, some = every.newest(1)
        age = np.where(some[:, 0], asked.day - known.day[last[:, 0]], 0) * (known.unit / DAY)
        made[f"{by}: days since the last"] = (np.log1p(age), 0.0)
        made[f"{by}: any"] = ((every.count > 0).astype(float), 0.0)
        if rated[train].any():
            few = known.spans(by, rated, asked)
            sums = few.sums(np.where(rated, ratings.ratings, 0.0).astype(float))
            means = (sums + SMOOTH * middle) / (few.count + SMOOTH)
            made[f"{by}: mean rating"] = (means, middle)
        others = _residuals(known, "user" if by == "item" else "item", mean)
        against = spans.sums(np.where(labels >= 0, others, 0.0)) / (count[by] + SMOOTH)
        made[f"{by}: against the others"] = (against, 0.0)
        for name, (column, none) in made.items():
            columns[name], empty[name], who[name] = column, none, by
    for name, facts in items.number.items():
        of_train, own = facts[ratings.items[train]].astype(float), facts[asked.items].astype(float)
        there = np.isfinite(own)
        usual = np.nanmean(of_train) if np.isfinite(of_train).any() else 0.0
        columns[name] = np.where(there, own, usual)
        # Whether it is asked depends on the data, never on the questions.
        if not np.isfinite(facts[ratings.items]).all():
            columns[f"{name}: given"] = there.astype(float)
    names = tuple(columns)
    table = np.stack([columns[name] for name in names], 1)
    return _Columns(names, table, empty, who, count, total)


def _residuals(known: Known, by: str, mean: float) -> np.ndarray:
    """Return how far each row's label lies from what was known of its item or user, float64 [N].

    Of a user it tells who finds fault with what others like, of an item what mild users dislike.
    """
    positive = (known.ratings.labels == 1).astype(float)
    spans = known.spans(by, known.ratings.labels >= 0)
    return positive - (spans.sums(positive) + SMOOTH * mean) / (spans.count + SMOOTH)


def logit(share: np.ndarray | float) -> np.ndarray | float:
    """Return the log odds of a share.

    Example:
      >>> float(logit(0.5))
      0.0
    """
    return np.log(share) - np.log1p(-np.asarray(share))


def smoothed_logit(count: np.ndarray, total: np.ndarray, mean: float) -> np.ndarray:
    """Return the log odds of a smoothed mean: (total + 5 mean) / (count + 5).

    Example:
      >>> bool(smoothed_logit(np.array([0.0]), np.array([0.0]), 0.2)[0] == logit(0.2))
      True
    """
    return np.asarray(logit((total + SMOOTH * mean) / (count + SMOOTH)))


def id_rows(groups: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Return places in a table of ids: 0 where training has not seen one, else 1 + id.

    Args:
      groups: int [N] item rows or user codes, -1 for none.
      seen: int, the groups of the training rows.

    Example:
      >>> id_rows(np.array([3, 1, 2, -1]), np.array([3, 1])).tolist()
      [4, 2, 0, 0]
    """
    return np.where(np.isin(groups, seen) & (groups >= 0), groups + 1, 0).astype(np.int32)


def pair_past(known: Known, length: int, asked: Questions | None = None) -> dict[str, np.ndarray]:
    """Return what each row's user said of earlier items.

    Args:
      known: The rows.
      length: L, the newest rows that are read.
      asked: N questions; None asks for each row.

    Returns:
      "past" int32 [N, L] item rows, "past_label" int32 [N, L] and "past_mask" bool [N, L].
    """
    rows, mask = known.spans("user", asked=asked).newest(length)
    labels = known.ratings.labels[rows]
    return {
        "past": np.where(mask, known.ratings.items[rows], 0).astype(np.int32),
        "past_label": np.where(labels < 0, NOT_KNOWN, labels).astype(np.int32),
        "past_mask": mask,
    }


def pair_arrays(
    known: Known,
    items: Items,
    numbers: Numbers,
    train: np.ndarray,
    past: int,
    asked: Questions | None = None,
) -> dict[str, np.ndarray]:
    """Return what of N pairs a batch holds, but for labels and the rows of parts.

    Args:
      known: The rows.
      items: The catalogue.
      numbers: Of the pairs.
      train: int64, the training rows that have a label.
      past: L, how many earlier rows of the user are read; 0 is none.
      asked: N questions; None asks for each row.
    """
    asked = known.rows if asked is None else asked
    seen = {by: known.rows.groups(by)[train] for by in GROUPS}
    codes: Mapping[str, np.ndarray] = items.category
    category = np.zeros((len(asked), len(codes)), np.int32)
    for k, column in enumerate(codes.values()):
        own = column[asked.items]
        category[:, k] = np.where(np.isin(own, column[seen["item"]]), own, 0)
    return {
        "numbers": numbers.values,
        "item_id": id_rows(asked.items, seen["item"]),
        "user_id": id_rows(asked.users, seen["user"]),
        "category": category,
        **pair_past(known, max(past, 1), asked),
    }
