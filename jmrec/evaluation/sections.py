"""Sections of results.json with a form of their own; `jmrec.evaluation.results` is the whole."""

from typing import NotRequired, TypedDict


class Moments(TypedDict):
    """The mean of several estimates, its standard error and the highest of them."""

    mean: float
    error: float
    highest: float


class Estimate(Moments):
    """One seed's estimates, and in "true" the same pairs asked with what made them."""

    seed: int
    true: Moments


class Check(TypedDict):
    """Something that must hold of an estimate, and whether it does."""

    name: str
    nats: float
    seed: int
    says: str
    value: float
    limit: float
    holds: bool


class HelpedSession(TypedDict):
    """A session in which the served row and the other rank what came next apart.

    ``past`` are item ids, oldest first, and ``cut`` says how many before them are not shown;
    ``places`` are those of the item ``next`` by the served row (the mean of seeds) and the other.
    """

    session: int
    past: list[str]
    cut: int
    next: str
    places: list[float]


class HelpedItem(TypedDict):
    """What is shown of an item: its title."""

    title: str


class Helped(TypedDict):
    """In how many sessions a row is better than another by the primary figure, and in how many not.

    ``row`` is the served one and ``other`` the best rule, or the best student where that rule is
    served. ``helped``, ``harmed`` and ``same`` are shares of the ``sessions``; ``better`` and
    ``worse`` are examples, drawn by lot.
    """

    row: str
    other: str
    metric: str
    sessions: int
    helped: float
    harmed: float
    same: float
    gain: NotRequired[float | None]
    loss: NotRequired[float | None]
    better: list[HelpedSession]
    worse: list[HelpedSession]
    items: dict[str, HelpedItem]
