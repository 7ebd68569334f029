"""What a catalogue and its sessions look like in memory: plain frozen dataclasses of numpy arrays.

The item index (item id -> row) is the order of ``Items.ids``. Sessions are ragged and stored flat.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Value:
    """What a sale of each of V items brings, for reports; no model reads it.

    Attributes:
      column: The column that says what an item is sold at, in whose currency all numbers are.
      sold: float64 [V], what an item is sold at; NaN where missing.
      share: The part of it that is gained.
      gain: The column that says what is gained, "" where it is that share.
      gained: float64 [V], what is gained of a sale; NaN where missing. It is the share of ``sold``
        if the argument is left out.

    Example:
      >>> Value("price", np.array([10.0, np.nan]), 0.25).gained.tolist()
      [2.5, nan]
    """

    column: str
    sold: np.ndarray
    share: float = 1.0
    gain: str = ""
    gained: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def __post_init__(self) -> None:
        if not len(self.gained):
            object.__setattr__(self, "gained", self.share * self.sold)

    def at(self, rows: Sequence[int]) -> "Value":
        """Return the value of the items at ``rows``."""
        return replace(self, sold=self.sold[list(rows)], gained=self.gained[list(rows)])


@dataclass(frozen=True)
class Items:
    """The catalogue, one entry per row.

    Attributes:
      ids: V item ids, in row order.
      titles: V titles, "" where missing (also the first field of ``text``).
      text: Field name -> V strings, "" where missing; declaration order, "title" first.
      pictures: V encoded pictures (PNG or JPEG bytes), b"" where missing.
      category: Column name -> int32 [V] codes; 0 is missing.
      category_names: Column name -> names, ``names[code]``; ``names[0]`` is "".
      number: Column name -> float32 [V]; NaN where missing.
      available_from: float64 [V], unix seconds from which an item may be recommended; -inf where
        the data says nothing (for all items if the argument is left out).
      available_until: float64 [V], the last second of that; inf where the data says nothing.
      value: What a sale of each brings; None where the data does not say.
    """

    ids: list[str]
    titles: list[str]
    text: dict[str, list[str]]
    pictures: list[bytes]
    category: dict[str, np.ndarray] = field(default_factory=dict)
    category_names: dict[str, list[str]] = field(default_factory=dict)
    number: dict[str, np.ndarray] = field(default_factory=dict)
    available_from: np.ndarray = field(default_factory=lambda: np.zeros(0))
    available_until: np.ndarray = field(default_factory=lambda: np.zeros(0))
    value: Value | None = None

    def __post_init__(self) -> None:
        for name, none in [("available_from", -np.inf), ("available_until", np.inf)]:
            if not len(getattr(self, name)):
                object.__setattr__(self, name, np.full(len(self.ids), none))

    def __repr__(self) -> str:
        """Return how many there are and what is known of them."""
        known = ", ".join([*self.text, *self.category, *self.number])
        return f"Items({len(self):,}: {known}; {sum(map(bool, self.pictures)):,} pictures)"

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def has_windows(self) -> bool:
        """Whether any item is available for a limited time only."""
        return bool(np.isfinite([self.available_from, self.available_until]).any())


def take_items(items: Items, rows: Sequence[int]) -> Items:
    """Return the catalogue's items at ``rows``."""
    return Items(
        ids=[items.ids[r] for r in rows],
        titles=[items.titles[r] for r in rows],
        text={name: [column[r] for r in rows] for name, column in items.text.items()},
        pictures=[items.pictures[r] for r in rows],
        category={name: codes[list(rows)] for name, codes in items.category.items()},
        category_names=items.category_names,
        number={name: column[list(rows)] for name, column in items.number.items()},
        available_from=items.available_from[list(rows)],
        available_until=items.available_until[list(rows)],
        value=None if items.value is None else items.value.at(rows),
    )


@dataclass(frozen=True)
class Sessions:
    """S sessions with N events in all, sorted by start time.

    Attributes:
      ids: S session ids.
      users: int32 [S] user codes, -1 where the data has no users.
      offsets: int64 [S + 1]; session s owns events ``offsets[s]:offsets[s + 1]``.
      items: int32 [N] item rows.
      times: float64 [N] unix seconds, or the file's order where the data has no time.
      events: int32 [N] event types, 0 where the data has none.
      ratings: float32 [N], NaN where the data has none.
      targets: bool [N], events that are predicted, in training and in evaluation; the others are
        read alone. All are, if the argument is left out. The first event of a session is read
        alone in any case.
    """

    ids: list[str]
    users: np.ndarray
    offsets: np.ndarray
    items: np.ndarray
    times: np.ndarray
    events: np.ndarray
    ratings: np.ndarray
    targets: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))

    def __post_init__(self) -> None:
        if not len(self.targets):
            object.__setattr__(self, "targets", np.ones(len(self.items), bool))

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield each session's item rows."""
        for start, stop in zip(self.offsets[:-1], self.offsets[1:]):
            yield self.items[start:stop]

    @property
    def lengths(self) -> np.ndarray:
        """int64 [S] events per session."""
        return np.diff(self.offsets)

    @property
    def predicted(self) -> np.ndarray:
        """Bool [N]: the targets that have an event of their session before them."""
        first = np.zeros(len(self.items), bool)
        first[self.offsets[:-1][self.lengths > 0]] = True
        return self.targets & ~first

    @property
    def begins(self) -> np.ndarray:
        """float64 [S]: the time of each session's first target, inf where it has none.

        Where all events are targets it is that of the first event.
        """
        begins = np.full(len(self), np.inf)
        owner = np.repeat(np.arange(len(self)), self.lengths)
        np.minimum.at(begins, owner[self.targets], self.times[self.targets])
        return begins


AVOID, WANT = "avoid", "want"
"""What a label may mean: its items are kept from users, or shown to them."""


@dataclass(frozen=True)
class Ratings:
    """N rows in which somebody says something of an item, in the order of time.

    Attributes:
      items: int32 [N] item rows.
      users: int32 [N] user codes, -1 where a row has no user.
      user_ids: U user ids, ``user_ids[code]``; "" where a code is of nobody any more.
      times: float64 [N] unix seconds, or the file's order where the data has no time.
      labels: int8 [N]: 1 where the label occurs (the positive class), 0 where it does not, -1 where
        the row does not say.
      ratings: float32 [N], NaN where the data has none.
      reviews: N texts, "" where a row has none.
      label: What the label is, in the words of dataset.toml, such as "score <= 0.25".
      label_means: `AVOID` or `WANT`.
    """

    items: np.ndarray
    users: np.ndarray
    user_ids: list[str]
    times: np.ndarray
    labels: np.ndarray
    ratings: np.ndarray
    reviews: list[str]
    label: str
    label_means: str

    def __len__(self) -> int:
        return len(self.items)


@dataclass(frozen=True, repr=False)
class Dataset:
    """A prepared data set: catalogue, three time splits, and the rules that go with them.

    Attributes:
      name: For captions.
      items: The catalogue.
      splits: "train", "validation" and "test" sessions. One-event sessions have no target and are
        left out, unless `prepare` was asked to keep those of train.
      exclude_seen: Whether items of the session so far are excluded from the candidates.
      fingerprint: Hash of everything that prepared it.
      has_time: Whether ``Sessions.times`` are real times.
      has_users: Whether ``Sessions.users`` are real users.
      event_names: ``event_names[code]`` of ``Sessions.events``; ``event_names[0]`` is "".
      ratings: All rows with their labels and reviews; None where the data declares no label.
      id_items: int32 [K] items in the order of their rows of tables of ids; those that occur in
        training, if the argument is left out. It is given where they are others: an item whose
        training events were all taken out keeps its row.
      event_top: The highest event type that tables of types have a row for, at least; 0 where
        training says it.
    """

    name: str
    items: Items
    splits: dict[str, Sessions]
    exclude_seen: bool
    fingerprint: str
    has_time: bool = True
    has_users: bool = False
    event_names: list[str] = field(default_factory=lambda: [""])
    ratings: Ratings | None = None
    id_items: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    event_top: int = 0

    def __post_init__(self) -> None:
        if not len(self.id_items):
            found = np.flatnonzero(self.train_count).astype(np.int32)
            object.__setattr__(self, "id_items", found)

    def __repr__(self) -> str:
        """Return how much it holds; all of it is megabytes."""
        counts = ", ".join(f"{len(each):,} {name}" for name, each in self.splits.items())
        rows = "" if self.ratings is None else f"; {len(self.ratings):,} rows with a label"
        return f"Dataset({self.name!r}: {len(self.items):,} items; sessions: {counts}{rows})"

    @property
    def train_count(self) -> np.ndarray:
        """int64 [V]: how often each item occurs in the training sessions."""
        return np.bincount(self.splits["train"].items, minlength=len(self.items))
