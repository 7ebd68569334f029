"""The numbers, ids and past of pairs: what was known before each row, as arrays.

Everything is computed from earlier days only (`jmrec.data.known`), for all rows of the data at
once: a row of test never changes one of training.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from jmrec.data.known import DAY, Known
from jmrec.data.schema import Items
from jmrec.tasks.rank import NOT_KNOWN

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


def pair_numbers(known: Known, items: Items, train: np.ndarray) -> Numbers:
    """Return the numbers of all rows.

    Args:
      known: The rows, and what each may know.
      items: The catalogue.
      train: int64, the training rows that have a label: on these the numbers are standardised.
    """
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
    for by in ("item", "user"):
        spans = known.spans(by, labels >= 0)
        count[by], total[by] = spans.count, spans.sums((labels == 1).astype(float))
        made = {
            f"{by}: rows": (np.log1p(count[by]), 0.0),
            f"{by}: share": (smoothed_logit(count[by], total[by], mean), logit(mean)),
        }
        every = known.spans(by)
        last, some = every.newest(1)
        age = np.where(some[:, 0], known.day - known.day[last[:, 0]], 0) * (known.unit / DAY)
        made[f"{by}: days since the last"] = (np.log1p(age), 0.0)
        made[f"{by}: any"] = ((every.count > 0).astype(float), 0.0)
        if rated[train].any():
            few = known.spans(by, rated)
            sums = few.sums(np.where(rated, ratings.ratings, 0.0).astype(float))
            means = (sums + SMOOTH * middle) / (few.count + SMOOTH)
            made[f"{by}: mean rating"] = (means, middle)
        others = _residuals(known, "user" if by == "item" else "item", mean)
        against = spans.sums(np.where(labels >= 0, others, 0.0)) / (count[by] + SMOOTH)
        made[f"{by}: against the others"] = (against, 0.0)
        for name, (column, none) in made.items():
            columns[name], empty[name], who[name] = column, none, by
    for name, facts in items.number.items():
        own = facts[ratings.items].astype(float)
        there = np.isfinite(own)
        columns[name] = np.where(there, own, np.nanmean(own[train]) if there[train].any() else 0.0)
        if not there.all():
            columns[f"{name}: given"] = there.astype(float)
    names = tuple(columns)
    table = np.stack([columns[name] for name in names], 1)
    center, scale = table[train].mean(0), table[train].std(0)
    scale = np.where(scale > 1e-6, scale, 1.0)
    nothing = np.array([empty.get(name, 0.0) for name in names])
    # A number far beyond those of training says no more than a large one of them.
    values = np.clip((table - center) / scale, -8.0, 8.0)
    of = {by: np.array([who.get(name) == by for name in names]) for by in ("item", "user")}
    return Numbers(
        names=names,
        values=values.astype(np.float32),
        empty={by: ((nothing - center) / scale).astype(np.float32) for by in of},
        of=of,
        count=count,
        total=total,
    )


def _residuals(known: Known, by: str, mean: float) -> np.ndarray:
    """Return how far each row's label lies from what was known of its item or user, float64 [N].

    Of a user it tells who finds fault with what others like, of an item what even mild ones dislike.
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


def id_rows(groups: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Return each row's place in a table of ids: 0 where training has not seen it, else 1 + id.

    Args:
      groups: int [N] item rows or user codes, -1 for none.
      train: int64, the training rows.

    Example:
      >>> id_rows(np.array([3, 1, 2, -1]), np.array([0, 1])).tolist()
      [4, 2, 0, 0]
    """
    seen = np.isin(groups, groups[train]) & (groups >= 0)
    return np.where(seen, groups + 1, 0).astype(np.int32)


def pair_past(known: Known, length: int) -> dict[str, np.ndarray]:
    """Return what each row's user said of earlier items.

    Args:
      known: The rows.
      length: L, the newest rows that are read.

    Returns:
      "past" int32 [N, L] item rows, "past_label" int32 [N, L] and "past_mask" bool [N, L].
    """
    rows, mask = known.spans("user").newest(length)
    labels = known.ratings.labels[rows]
    return {
        "past": np.where(mask, known.ratings.items[rows], 0).astype(np.int32),
        "past_label": np.where(labels < 0, NOT_KNOWN, labels).astype(np.int32),
        "past_mask": mask,
    }


def pair_arrays(
    known: Known, items: Items, numbers: Numbers, train: np.ndarray, past: int
) -> dict[str, np.ndarray]:
    """Return what of all N rows a batch holds, but for the rows of parts.

    Args:
      known: The rows.
      items: The catalogue.
      numbers: Of the rows.
      train: int64, the training rows that have a label.
      past: L, how many earlier rows of the user are read; 0 is none.
    """
    ratings = known.ratings
    codes: Mapping[str, np.ndarray] = items.category
    category = np.zeros((len(ratings), len(codes)), np.int32)
    for k, column in enumerate(codes.values()):
        own = column[ratings.items]
        category[:, k] = np.where(np.isin(own, own[train]), own, 0)
    return {
        "numbers": numbers.values,
        "item_id": id_rows(ratings.items, train),
        "user_id": id_rows(ratings.users, train),
        "category": category,
        "label": np.maximum(ratings.labels, 0).astype(np.int32),
        **pair_past(known, max(past, 1)),
    }
