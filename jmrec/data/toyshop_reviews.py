"""ToyShop's reviews: what users say of its items, with a known probability of each dislike.

**Tastes.** Every user belongs to one of three groups, evenly. A group dislikes two colours, two
shapes, two materials and one season, drawn by the seed so that no two groups dislike the same.
`DISLIKES` holds how much. A row is disliked with probability ::

    sigmoid(bias + sum of the dislikes that the item meets + grumpiness of the user + flaw of the
            item)

``bias`` is set so that the mean of that over all rows is 0.06; grumpiness and flaw are small and
normal. A dislike is likely only where a colour and a material meet: the colour stands in the
picture (and in the words of some items that exist from the beginning; ``look_share`` of the config
says how many), the material in the item's text and in reviews, and the user decides which
of both count. So whoever knows only one of the three knows little.

**Rows.** They lie evenly over the shop's days. The user is drawn by an activity between 0.7 and
1.3 times the mean, the item by its popularity among those that are released and that the
user has not reviewed yet; neither depends on taste.

**Words** are those of `jmrec.data.toyshop_review_texts`: a tone that mostly fits the label,
sometimes a fact of the item, a reason, a hint at the author's taste, and in 4 % of the
rows a word for what the picture shows.

Own random streams draw all of this: the shop without reviews keeps its bytes.

**Limits**, kept by tests/unit/data/test_toyshop_reviews.py at 400 items, 128 users and 16,000
reviews; all figures are PR-AUC on the last tenth of the rows. The oracle's lies in 0.4..0.8. Of it
reach: the best of item mean, user mean and both at most 60 %; a bag of words over known reviews at
most 65 %; a logistic regression that knows the groups and all attributes at least 90 %, with the
textual or the visual ones alone at most 75 %; a factorisation that knows user ids and attributes at
least 85 %.

**Measured** there, generator seeds 0 and 1, ``look_share`` 0.25: oracle 0.657 and 0.705 (ROC-AUC
0.945 and 0.954). Of it: item mean 29 and 32 %, item + user mean 30 and 33 %, bag of words 24 and
33 %, all attributes 93 and 97 %, textual ones 51 and 42 %, those and every look that the words
known by then tell 68 % twice (74 and 78 % with a ``look_share`` of 0.75, so ask for less of it),
visual ones 46 and 51 %, all attributes with user ids 89 and 90 %.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import expit

from jmrec.data.toyshop_review_texts import write_review
from jmrec.data.toyshop_texts import LOOKS
from jmrec.errors import UserError

TASTES = 3
DISLIKED_SHARE = 0.06
DISLIKES = {"colour": (4.2, 2), "shape": (1.5, 2), "material": (4.2, 2), "season": (1.5, 1)}
"""Attribute -> what a disliked value adds to the logit, how many values a group dislikes."""
GRUMPINESS, FLAW = 0.1, 0.15
"""Standard deviations, in logits."""
FIRST_STREAM = 4
"""The shop itself draws from the streams before."""
TRUTH = "reviews_truth.npz"


@dataclass(frozen=True)
class Shelf:
    """The items that reviews are about.

    Attributes:
      ids: V item ids.
      names: A attribute names.
      attributes: int64 [V, A] values, as in `jmrec.data.toyshop.Process`.
      popularity: float64 [V] in logits.
      released: float64 [V] unix seconds, the first of them the beginning of time.
    """

    ids: list[str]
    names: tuple[str, ...]
    attributes: np.ndarray
    popularity: np.ndarray
    released: np.ndarray


@dataclass(frozen=True)
class ReviewProcess:
    """All that is known of who dislikes what.

    Attributes:
      attributes: int64 [V, A] values of the items.
      effects: float64 [TASTES, A, most values] what a value adds to a group's logit.
      taste: int64 [U] the group of each user.
      grumpiness: float64 [U].
      flaw: float64 [V].
      bias: float64 [].
    """

    attributes: np.ndarray
    effects: np.ndarray
    taste: np.ndarray
    grumpiness: np.ndarray
    flaw: np.ndarray
    bias: np.ndarray

    def reasons(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Return what each attribute adds to the logit of each row.

        Args:
          users: int [N] user rows.
          items: int [N] item rows.

        Returns:
          float64 [N, A].
        """
        columns = np.arange(self.attributes.shape[1])
        return self.effects[self.taste[users][:, None], columns, self.attributes[items]]

    def probability(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Return the probability that a user dislikes an item.

        Args:
          users: int [N] user rows.
          items: int [N] item rows.

        Returns:
          float64 [N].
        """
        own = self.grumpiness[users] + self.flaw[items]
        return np.asarray(expit(self.bias + own + self.reasons(users, items).sum(1)))


def _draw_effects(shelf: Shelf, rng: np.random.Generator) -> np.ndarray:
    most = int(shelf.attributes.max()) + 1
    effects = np.zeros((TASTES, len(shelf.names), most))
    for name, (weight, count) in DISLIKES.items():
        a = shelf.names.index(name)
        values = rng.permutation(int(shelf.attributes[:, a].max()) + 1)
        for taste in range(TASTES):
            effects[taste, a, values[taste * count : (taste + 1) * count]] = weight
    return effects


def _draw_rows(
    shelf: Shelf, reviews: int, users: int, seconds: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return times, users and items, int64 [N] each."""
    since = (np.arange(reviews) + rng.random(reviews)) * seconds / reviews
    times = int(shelf.released.min()) + np.floor(since).astype(np.int64)
    activity = rng.uniform(0.7, 1.3, users)
    user = rng.choice(users, reviews, p=activity / activity.sum())
    item = np.zeros(reviews, np.int64)
    free = np.ones((users, len(shelf.ids)), bool)
    for row, (u, time) in enumerate(zip(user, times)):
        # The Gumbel-max trick: a draw from the softmax.
        scores = shelf.popularity + rng.gumbel(size=len(shelf.ids))
        item[row] = np.where(free[u] & (shelf.released <= time), scores, -np.inf).argmax()
        free[u, item[row]] = False
    return times, user, item


def write_reviews(
    folder: Path, shelf: Shelf, *, seed: int, reviews: int, users: int, seconds: int
) -> None:
    """Write ``reviews.csv``, its description ``reviews.toml`` and ``reviews_truth.npz``.

    Args:
      folder: The folder of the shop.
      shelf: The shop's items.
      seed: The shop's seed.
      reviews: N, how many reviews.
      users: U, how many users write them.
      seconds: Length of time.
    """
    streams = [np.random.default_rng([seed, FIRST_STREAM + k]) for k in range(4)]
    effects = _draw_effects(shelf, streams[0])
    taste = streams[0].permutation(np.arange(users) % TASTES)
    grumpiness = GRUMPINESS * streams[0].standard_normal(users)
    flaw = FLAW * streams[0].standard_normal(len(shelf.ids))
    times, user, item = _draw_rows(shelf, reviews, users, seconds, streams[1])

    def at(bias: float) -> ReviewProcess:
        level = np.array(bias)
        return ReviewProcess(shelf.attributes, effects, taste, grumpiness, flaw, level)

    def excess(bias: float) -> float:
        return float(at(bias).probability(user, item).mean()) - DISLIKED_SHARE

    from scipy.optimize import brentq  # here: it takes a while to load

    truth = at(brentq(excess, -30.0, 30.0))
    disliked = streams[2].random(reviews) < truth.probability(user, item)
    why = _draw_reasons(truth.reasons(user, item), shelf.names, streams[3])
    user_ids = [f"u{u:04d}" for u in range(users)]
    with (folder / "reviews.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["user_id", "item_id", "timestamp", "review", "disliked"])
        for row, (u, i) in enumerate(zip(user.tolist(), item.tolist())):
            values = dict(zip(shelf.names, shelf.attributes[i].tolist()))
            sad = bool(disliked[row])
            review = write_review(values, int(taste[u]), sad, why[row], streams[3])
            writer.writerow([user_ids[u], shelf.ids[i], times[row], review, int(sad)])
    (folder / "reviews.toml").write_text(_DESCRIPTION, encoding="utf-8")
    np.savez(
        folder / TRUTH,
        user_ids=np.array(user_ids),
        item_ids=np.array(shelf.ids),
        **{name: getattr(truth, name) for name in ReviewProcess.__dataclass_fields__},
    )


def _draw_reasons(
    reasons: np.ndarray, names: tuple[str, ...], rng: np.random.Generator
) -> list[str]:
    """Return for each row one of its reasons, drawn by weight; "" where it has none."""
    below = reasons.cumsum(1)
    drawn = (below <= rng.random(len(reasons))[:, None] * below[:, -1:]).sum(1)
    words = ["looks" if name in LOOKS else name for name in names] + [""]
    return [words[k] for k in drawn]


_DESCRIPTION = """\
[dataset]
name = "toyshop reviews"

[items]
id = "item_id"
title = "title"
description = "description"
picture = "image"
text_columns = ["brand", "details"]
number_columns = ["price"]

[interactions]
file = "reviews.csv"
item = "item_id"
user = "user_id"
time = "timestamp"
review = "review"
label = "disliked"
label_means = "avoid"
"""


class ReviewOracle:
    """Knows how likely each user dislikes each item: the best that any model can do.

    Args:
      path: A ToyShop folder with reviews, or its ``reviews_truth.npz``.

    Attributes:
      process: The process behind the reviews.
      user_ids: U user ids in the order of its rows.
      item_ids: V item ids, likewise.

    Raises:
      UserError: if there is no ``reviews_truth.npz``.
    """

    def __init__(self, path: Path | str) -> None:
        path = Path(path)
        path = path / TRUTH if path.is_dir() else path
        if not path.is_file():
            raise UserError(
                f"{path} does not exist; only a ToyShop folder written with reviews has one."
            )
        with np.load(path, allow_pickle=False) as truth:
            self.user_ids: list[str] = truth["user_ids"].tolist()
            self.item_ids: list[str] = truth["item_ids"].tolist()
            fields = ReviewProcess.__dataclass_fields__
            self.process = ReviewProcess(**{name: truth[name] for name in fields})

    def probability(self, users: Sequence[str], items: Sequence[str]) -> np.ndarray:
        """Return the true probability of the label of each row.

        Args:
          users: N user ids.
          items: N item ids.

        Returns:
          float64 [N].

        Raises:
          KeyError: if an id is not of this shop.
        """
        user_row = {name: row for row, name in enumerate(self.user_ids)}
        item_row = {name: row for row, name in enumerate(self.item_ids)}
        return self.process.probability(
            np.array([user_row[name] for name in users], np.int64),
            np.array([item_row[name] for name in items], np.int64),
        )
