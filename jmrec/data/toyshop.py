"""ToyShop, the embedded default data: a small shop made by a known process.

**Items.** Every item has nine attributes, drawn independently and evenly. Four are visual (shape 6
values, colour 8, pattern 6, mark 4), five are textual (category 6, material 6, brand 6, season 4,
price band 4). The picture shows the visual ones and nothing else; category is in the title,
brand in its column, material in the details, season in the description, all in several wordings;
the price is a number within its band. Three in four of the items that exist from the beginning also
say shape, colour and pattern in a sentence of the description, so that a model can learn to
look; no other item does, and the mark is never in words.

**Sessions.** A session's first item is drawn by popularity alone. Every next item j is drawn from
the softmax, over all items that are released and not yet in the session, of ::

    bias[j] + sum over attributes a of weight[a] * (value[j, a] == wanted[a, value[anchor, a]])

shape, colour, pattern, mark and category look at the *last* item and want the successor of its
value in one cycle through all values (the seed draws the cycles); material does so with the item
*before* the last one (no term where there is none); brand, season and price want to stay as the
session's *first* item is, which is its taste. ``ATTRIBUTES`` holds the weights; ``bias`` is a mild
popularity. A session has 2 items and a Poisson number more, at most 12.

**Time.** Sessions start evenly over 100 days and do not overlap. A fifth of the items is released
only in the last fifth of time, 60 % of these on its first day, the rest spread over it. The time
that decides what is released is that of the prefix's last event (for a first item, the session's
start). So with an 80/10/10 split by time no training session holds a new item.

**Limits**, kept by tests/unit/data/test_toyshop.py: the oracle's MRR@20 (mean over sessions of the
mean over positions, whole catalogue, seen items excluded) lies in 0.2..0.5; the best rule without
training reaches at most 60 % of it; a multinomial logistic regression on the raw pixels, trained
on the items of the beginning and tested on the new ones, is at most 80 % right on each visual
attribute.

**Measured** by ``pytest tests/unit/data/test_toyshop.py -rP`` (2 CPU cores, generator seed 0, every
eighth session of validation and test): oracle MRR@20 0.366; of it first-order Markov reaches
42 %, sequential rules 41 %, EASE 30 %, V-SKNN 29 %, item-kNN 28 %, newest first 1 %. The linear
probe reads shape 61 %, colour 80 %, pattern 49 % and mark 40 % (generator seeds 1 and 2: colour 78
and 77 %). 16 % of the validation targets and 21 % of the test targets are new.

The default was 8,000 sessions until the first students of size=small were looked at on validation:
so many say too little about so many wordings. Nothing else of the process was changed then.
"""

import csv
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from jmrec.data.toyshop_pictures import COLOURS, MARKS, PATTERNS, SHAPES, draw_picture
from jmrec.data.toyshop_reviews import Shelf, write_reviews
from jmrec.data.toyshop_texts import BRANDS, CATEGORIES, MATERIALS, SEASONS, write_texts
from jmrec.errors import UserError
from jmrec.files import replace_folder

LAST, PREVIOUS, FIRST = 0, 1, 2
"""The item of the prefix that an attribute of the next item depends on."""

NEVER = -1e9
"""The log-probability of an item that can not come next (finite, so that scores stay finite)."""

PRICE_EDGES = (5.0, 12.5, 31.0, 78.0, 195.0)
START = 1704067200  # 2024-01-01, UTC
DAY = 86400
VISUAL = ("shape", "colour", "pattern", "mark")
TEXTUAL = ("category", "material", "brand", "season", "price")
FIELDS = ("title", "description", "brand", "details")
"""An item's text fields; its price, a number, is one more where declared facts are read."""


@dataclass(frozen=True)
class Attribute:
    """One latent attribute and its part in the process.

    Attributes:
      name: Its name.
      values: How many values it has.
      weight: What a match adds to an item's logit.
      anchor: Which item of the prefix decides the wanted value: LAST, PREVIOUS or FIRST.
      stays: Whether the wanted value is the anchor's own; otherwise it is its successor in one
        cycle through all values, drawn by the seed.
    """

    name: str
    values: int
    weight: float
    anchor: int
    stays: bool


ATTRIBUTES = (
    Attribute("shape", len(SHAPES), 2.4, LAST, False),
    Attribute("colour", len(COLOURS), 2.6, LAST, False),
    Attribute("pattern", len(PATTERNS), 1.5, LAST, False),
    Attribute("mark", len(MARKS), 0.4, LAST, False),
    Attribute("category", len(CATEGORIES), 3.2, LAST, False),
    Attribute("material", len(MATERIALS), 2.4, PREVIOUS, False),
    Attribute("brand", len(BRANDS), 2.8, FIRST, True),
    Attribute("season", len(SEASONS), 0.6, FIRST, True),
    Attribute("price", len(PRICE_EDGES) - 1, 0.6, FIRST, True),
)


@dataclass(frozen=True)
class ToyShopConfig:
    """How large a ToyShop is and by which seed it is drawn.

    Attributes:
      seed: Draws everything.
      items: Items in the catalogue.
      sessions: Sessions.
      mean_length: Mean session length (2 plus a Poisson number, at most ``longest``).
      longest: Longest session.
      cold_share: Share of the items that are released in the last fifth of time.
      early_share: Share of those that are released within the first day of that fifth.
      look_share: Share of the other items whose description says what the picture shows.
      popularity: Standard deviation of the items' popularity, in logits.
      novelty: What a new item's popularity is raised by.
      picture_size: Width and height of the pictures.
      days: Length of time.
      reviews: Reviews beside the sessions; see `jmrec.data.toyshop_reviews`.
      users: Users who write them.
    """

    seed: int = 0
    items: int = 2000
    sessions: int = 20_000
    mean_length: float = 5.5
    longest: int = 12
    cold_share: float = 0.2
    early_share: float = 0.6
    look_share: float = 0.75
    popularity: float = 0.25
    novelty: float = 0.2
    picture_size: int = 32
    days: int = 100
    reviews: int = 0
    users: int = 128

    def __post_init__(self) -> None:
        if self.items < 50 or self.sessions < 50:
            raise UserError(
                f"ToyShop with {self.items} items and {self.sessions} sessions is too small; ask "
                "for at least 50 of both."
            )
        if not 2 <= self.longest <= self.items // 4:
            raise UserError(
                f"ToyShop's longest session of {self.longest} items does not fit its {self.items} "
                "items; choose a number from 2 to a quarter of the items."
            )
        most = self.users * int((1 - self.cold_share) * self.items) // 2
        if not 0 <= self.reviews <= most:
            raise UserError(
                f"ToyShop with {self.reviews} reviews by {self.users} users does not fit its "
                f"{self.items} items, which nobody reviews twice; ask for at most {most} reviews."
            )

    @classmethod
    def tiny(cls, seed: int = 0) -> "ToyShopConfig":
        """Return a small shop for tests: 200 items, 600 sessions.

        Example:
          >>> ToyShopConfig.tiny().items
          200
        """
        return cls(seed=seed, items=200, sessions=600)


@dataclass(frozen=True)
class Process:
    """All that is known of how sessions are made.

    Attributes:
      names: A attribute names.
      attributes: int64 [V, A] values.
      wanted: int64 [A, most values] the wanted value of the next item for each value of the
        anchor; -1 beyond the attribute's values.
      weight: float64 [A].
      anchor: int64 [A], LAST, PREVIOUS or FIRST.
      bias: float64 [V] popularity in logits.
      released: float64 [V] unix seconds from which an item can be clicked.
    """

    names: tuple[str, ...]
    attributes: np.ndarray
    wanted: np.ndarray
    weight: np.ndarray
    anchor: np.ndarray
    bias: np.ndarray
    released: np.ndarray

    @cached_property
    def _matches(self) -> np.ndarray:
        """What each value of each attribute adds to the logits, float64 [A, most values, V]."""
        values = np.arange(self.wanted.shape[1])
        fits = self.attributes.T[:, None, :] == values[None, :, None]
        return self.weight[:, None, None] * fits

    def log_probabilities(self, prefix: Sequence[int], time: float) -> np.ndarray:
        """Return the log-probability of every item to come next.

        Args:
          prefix: Item rows of the session so far; may be empty.
          time: Unix seconds of the last of them (or of the session's start).

        Returns:
          float64 [V]; ``NEVER`` for seen items and those that are not yet released.
        """
        rows = np.asarray(prefix, np.int64)
        logits = self.bias.copy()
        if len(rows):
            for a, where in enumerate(self.anchor):
                if where == PREVIOUS and len(rows) < 2:
                    continue
                anchor = rows[{LAST: -1, PREVIOUS: -2, FIRST: 0}[int(where)]]
                logits += self._matches[a, self.wanted[a, self.attributes[anchor, a]]]
        possible = self.released <= time
        possible[rows] = False
        top = logits[possible].max()
        logits -= top + np.log(np.exp(logits[possible] - top).sum())
        return np.where(possible, logits, NEVER)


def make_process(config: ToyShopConfig, rng: np.random.Generator) -> Process:
    """Draw the items' attributes, the cycles, popularity and release times."""
    columns = [rng.permutation(np.arange(config.items) % a.values) for a in ATTRIBUTES]
    wanted = np.full((len(ATTRIBUTES), max(a.values for a in ATTRIBUTES)), -1, np.int64)
    for a, attribute in enumerate(ATTRIBUTES):
        cycle = rng.permutation(attribute.values)
        wanted[a, cycle] = cycle if attribute.stays else np.roll(cycle, -1)
    bias = config.popularity * rng.standard_normal(config.items)

    new = rng.permutation(config.items)[: round(config.cold_share * config.items)]
    fifth = config.days * DAY / 5
    hour, day = 3600.0, float(DAY)
    early = round(config.early_share * len(new))
    after = np.concatenate(
        [rng.uniform(hour, day, early), rng.uniform(day, 0.95 * fifth, len(new) - early)]
    )
    released = np.full(config.items, float(START))
    released[new] = START + 4 * fifth + np.floor(after)
    bias[new] += config.novelty
    return Process(
        names=tuple(a.name for a in ATTRIBUTES),
        attributes=np.stack(columns, axis=1).astype(np.int64),
        wanted=wanted,
        weight=np.array([a.weight for a in ATTRIBUTES]),
        anchor=np.array([a.anchor for a in ATTRIBUTES], np.int64),
        bias=bias,
        released=released,
    )


def make_sessions(
    process: Process, config: ToyShopConfig, rng: np.random.Generator
) -> list[list[tuple[int, int]]]:
    """Draw the sessions: lists of (item row, unix seconds), in the order of time.

    Session s starts in the first half of the s-th of ``config.sessions`` equal spans of time and
    ends within it, so sessions do not overlap.
    """
    span = config.days * DAY / config.sessions
    longest_gap = max(2, int(min(90.0, span / 2 / config.longest)))
    sessions = []
    for s in range(config.sessions):
        length = min(2 + int(rng.poisson(config.mean_length - 2)), config.longest)
        time = START + int(s * span + rng.uniform(1, span / 2))
        session: list[tuple[int, int]] = []
        for _ in range(length):
            scores = process.log_probabilities([row for row, _ in session], time)
            # The Gumbel-max trick: a draw from the softmax.
            row = int(np.argmax(scores + rng.gumbel(size=config.items)))
            time += int(rng.integers(min(5, longest_gap - 1), longest_gap)) if session else 0
            session.append((row, time))
        sessions.append(session)
    return sessions


def write_toyshop(path: Path | str, config: ToyShopConfig | None = None) -> None:
    """Write a ToyShop as a catalogue folder; the same config gives the same bytes.

    Args:
      path: The folder to make: ``items.csv``, ``interactions.csv``, ``images/``,
        ``dataset.toml`` and, for the oracle, ``truth.npz``; with reviews also ``reviews.csv``,
        ``reviews.toml`` and ``reviews_truth.npz``.
      config: Size and seed; the default shop where None.

    Raises:
      UserError: if something that is no ToyShop lies at ``path``.

    Example:
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     write_toyshop(Path(folder) / "shop", ToyShopConfig(items=50, sessions=50))
      ...     sorted(path.name for path in (Path(folder) / "shop").iterdir())
      ['dataset.toml', 'images', 'interactions.csv', 'items.csv', 'truth.npz']
    """
    path, config = Path(path), config or ToyShopConfig()
    if (
        path.exists()
        and not (path / "truth.npz").is_file()
        and (path.is_file() or any(path.iterdir()))
    ):
        raise UserError(f"{path} holds something that is no ToyShop; choose another folder for it.")
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        folder.chmod(0o755)
        # One stream each, so that a change of wording moves no pixel and no click.
        streams = [np.random.default_rng([config.seed, k]) for k in range(4)]
        process = make_process(config, streams[0])
        sessions = make_sessions(process, config, streams[1])
        ids = [f"t{row:04d}" for row in range(config.items)]
        _write_items(folder, process, config, ids, streams[2])
        _write_pictures(folder, process, config, ids, streams[3])
        with (folder / "interactions.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["session_id", "item_id", "timestamp"])
            for s, session in enumerate(sessions):
                writer.writerows([f"s{s:05d}", ids[row], time] for row, time in session)
        (folder / "dataset.toml").write_text(_DESCRIPTION, encoding="utf-8")
        if config.reviews:
            shelf = Shelf(ids, process.names, process.attributes, process.bias, process.released)
            write_reviews(
                folder, shelf, seed=config.seed, reviews=config.reviews, users=config.users,
                seconds=config.days * DAY,
            )  # fmt: skip
        np.savez(
            folder / "truth.npz",
            ids=np.array(ids),
            names=np.array(process.names),
            attributes=process.attributes,
            wanted=process.wanted,
            weight=process.weight,
            anchor=process.anchor,
            bias=process.bias,
            released=process.released,
        )
        replace_folder(folder, path)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


_DESCRIPTION = """\
[dataset]
name = "toyshop"
exclude_seen = true

[items]
id = "item_id"
title = "title"
description = "description"
picture = "image"
text_columns = ["brand", "details"]
number_columns = ["price"]

[interactions]
item = "item_id"
session = "session_id"
time = "timestamp"
"""


def _write_items(
    folder: Path, process: Process, config: ToyShopConfig, ids: list[str], rng: np.random.Generator
) -> None:
    with (folder / "items.csv").open("w", newline="", encoding="utf-8") as file:
        columns = ["item_id", "title", "description", "brand", "details", "price", "image"]
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        for row, item in enumerate(ids):
            values = dict(zip(process.names, process.attributes[row].tolist()))
            # New items never say what they look like: their pictures have to be read.
            look = rng.random() < config.look_share and process.released[row] <= START
            low, high = PRICE_EDGES[values["price"] : values["price"] + 2]
            price = np.exp(rng.uniform(np.log(low), np.log(high)))
            texts = write_texts(values, bool(look), rng)
            writer.writerow(
                {"item_id": item, "price": f"{price:.2f}", "image": f"{item}.png"} | texts
            )


def _write_pictures(
    folder: Path, process: Process, config: ToyShopConfig, ids: list[str], rng: np.random.Generator
) -> None:
    (folder / "images").mkdir()
    columns = [process.names.index(name) for name in VISUAL]
    for row, item in enumerate(ids):
        shape, colour, pattern, mark = process.attributes[row, columns].tolist()
        picture = draw_picture(shape, colour, pattern, mark, config.picture_size, rng)
        picture.save(folder / "images" / f"{item}.png")


class Oracle:
    """Ranks by the process's own probabilities: the best that any model can do.

    It knows what a model can know at that time: the session so far and which items
    are released. Item rows are the rows of ``items.csv``.

    Args:
      path: A ToyShop folder, or its ``truth.npz``.

    Raises:
      UserError: if there is no ``truth.npz``.
    """

    name: ClassVar[str] = "oracle"

    def __init__(self, path: Path | str) -> None:
        path = Path(path)
        path = path / "truth.npz" if path.is_dir() else path
        if not path.is_file():
            raise UserError(f"{path} does not exist; only a ToyShop folder has an oracle.")
        with np.load(path, allow_pickle=False) as truth:
            self.ids: list[str] = truth["ids"].tolist()
            self.process = Process(
                names=tuple(truth["names"].tolist()),
                **{k: truth[k] for k in Process.__dataclass_fields__ if k != "names"},
            )

    def prepare(self, features: Mapping[str, np.ndarray]) -> None:
        """Do nothing: the oracle needs no features."""

    def scores(self, prefixes: Any, item_slice: slice) -> np.ndarray:
        """Return the true log-probability of each item of a slice to come next.

        Args:
          prefixes: P prefixes with ``windows`` int [W, L], ``window`` int [P], ``end`` int [P]
            (prefix p is ``windows[window[p], : end[p] + 1]``) and ``time`` float [P], the unix
            seconds of its last event.
          item_slice: Catalogue rows.

        Returns:
          float64 [P, slice length]; ``NEVER`` where an item was seen or is not yet released.
        """
        rows = [
            self.process.log_probabilities(prefixes.windows[w, : end + 1], time)[item_slice]
            for w, end, time in zip(prefixes.window, prefixes.end, prefixes.time)
        ]
        empty = len(self.ids[item_slice])
        return np.stack(rows) if rows else np.zeros((0, empty))
