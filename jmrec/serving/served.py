"""Recommendations from a serving artefact, or from a run that looks like one."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jmrec.errors import UserError
from jmrec.evaluation.policy import Policy, make_policy, nearest, read_correction
from jmrec.evaluation.protocol import WINDOW, Prefixes, comparable
from jmrec.evaluation.rankers.neural import WINDOWS, CompiledEncoder, NeuralRanker
from jmrec.models.build import check_fit
from jmrec.models.sessions.table import session_model
from jmrec.serving.artefact import Artefact, read

SCORES = 2**24
"""At most so many scores are held at a time."""


class Served:
    """A catalogue, a prepared ranker and a policy: what answers sessions.

    Args:
      ranker: A session encoder, prepared with the V items.
      ids: V item ids.
      titles: V titles.
      policy: Of the V items.
      where: What is served, for messages.
      event_names: ``event_names[code]`` of the event types that the ranker was trained with.
      exported: Whether an artefact is served, else a run; for messages.
    """

    def __init__(
        self,
        ranker: NeuralRanker,
        ids: Sequence[str],
        titles: Sequence[str],
        policy: Policy,
        where: str,
        event_names: Sequence[str] = ("",),
        exported: bool = False,
    ) -> None:
        self.ranker, self.policy, self.where = ranker, policy, where
        self.event_names, self.exported = list(event_names), exported
        self.ids, self.titles = list(ids), list(titles)
        self._row_of = {item: row for row, item in enumerate(self.ids)}

    def recommend(
        self,
        session: Sequence[str],
        top: int = 10,
        at: float | None = None,
        times: Sequence[float] | None = None,
        events: Sequence[str] | None = None,
    ) -> list[dict[str, Any]]:
        """Recommend items for one session.

        Args:
          session: Item ids, oldest first; the last 50 are read.
          top: How many to recommend; fewer come where there are fewer candidates.
          at: Unix seconds, for catalogues with windows of availability; None is now.
          times: Unix seconds of each click, for a student that reads time gaps; None is no gaps.
          events: The event type of each click, for one that reads those; None is none.

        Returns:
          Best first: {"item_id", "title", "score", "pinned"}. Pinned items come first, with the
          score that they have.

        Raises:
          UserError: If an id or an event type is unknown, or nothing is asked.
        """
        found = self.recommend_batch(
            [session], top, at,
            None if times is None else [times], None if events is None else [events],
        )  # fmt: skip
        return found[0]

    def recommend_batch(
        self,
        sessions: Sequence[Sequence[str]],
        top: int = 10,
        at: float | None = None,
        times: Sequence[Sequence[float]] | None = None,
        events: Sequence[Sequence[str]] | None = None,
    ) -> list[list[dict[str, Any]]]:
        """Recommend items for several sessions; see `recommend`."""
        if top < 1:
            raise UserError("ask for 1 item or more (--top).")
        now = time.time() if at is None else at
        asked = [self._rows(session) for session in sessions]

        def zeros(kind: Any) -> list[np.ndarray]:
            return [np.zeros(len(rows), kind) for rows in asked]

        gaps = zeros(np.float32) if times is None else self._gaps(asked, times)
        codes = zeros(np.int32) if events is None else self._codes(asked, events)
        size = max(1, min(WINDOWS, SCORES // max(len(self.ids), 1)))
        found = []
        for start in range(0, len(asked), size):
            here = slice(start, start + size)
            part = asked[here]
            prefixes = _prefixes(part, gaps[here], codes[here])
            scores = comparable(self.ranker.scores(prefixes, slice(0, len(self.ids))))
            scores[~self.policy.candidates(part, now)] = -np.inf
            found += [self._best(line, top) for line in scores]
        return found

    def _rows(self, session: Sequence[str]) -> np.ndarray:
        if not len(session):
            raise UserError("name at least one item of the session (--items).")
        for item in session:
            if item not in self._row_of:
                raise UserError(
                    f"item {item!r} is not in the catalogue of {self.where}; "
                    f"{nearest(item, self.ids, self.exported)}"
                )
        return np.array([self._row_of[item] for item in session], np.int32)

    def _gaps(
        self, asked: Sequence[np.ndarray], times: Sequence[Sequence[float]]
    ) -> list[np.ndarray]:
        self._check(asked, times, "times")
        # A window's first item has no item before it that the student reads.
        each = [np.asarray(t, np.float64)[-WINDOW:] for t in times]
        return [np.log1p(np.maximum(np.diff(t, prepend=t[0]), 0)).astype(np.float32) for t in each]

    def _codes(
        self, asked: Sequence[np.ndarray], events: Sequence[Sequence[str]]
    ) -> list[np.ndarray]:
        self._check(asked, events, "events")
        known = ", ".join(filter(None, self.event_names))
        trained = f"it knows {known}: name one of those" if known else "it knows none"
        for event in (event for each in events for event in each):
            if event not in self.event_names:
                raise UserError(
                    f"event type {event!r} is none that {self.where} was trained with; {trained}, "
                    "leave out --events, or train again with data that has it."
                )
        code = {name: at for at, name in enumerate(self.event_names)}
        return [np.array([code[event] for event in each], np.int32)[-WINDOW:] for each in events]

    @staticmethod
    def _check(asked: Sequence[np.ndarray], given: Sequence[Sequence[Any]], what: str) -> None:
        for rows, each in zip(asked, given, strict=True):
            if len(rows) != len(each):
                raise UserError(
                    f"{len(rows)} items and {len(each)} {what}: give one for each item of the "
                    f"session, or none (--{what})."
                )

    def _best(self, scores: np.ndarray, top: int) -> list[dict[str, Any]]:
        """Return the best of float32 [V], -inf where an item is no candidate."""
        pinned = self.policy.pinned
        first = pinned[~np.isneginf(scores[pinned])]
        rest = scores.copy() if len(first) else scores
        rest[first] = -np.inf
        best = np.concatenate([first, best_rows(rest, top)])[:top]
        return [
            {
                "item_id": self.ids[row],
                "title": self.titles[row],
                "score": float(scores[row]),
                "pinned": place < len(first),
            }
            for place, row in enumerate(best.tolist())
        ]


def best_rows(scores: np.ndarray, top: int) -> np.ndarray:
    """Return the rows of the best scores, best first, the smaller row first among equals.

    Example:
      >>> best_rows(np.array([1.0, 3.0, 3.0, -np.inf, 2.0], np.float32), 4).tolist()
      [1, 2, 4, 0]
    """
    if top < len(scores):
        least = np.partition(scores, len(scores) - top)[len(scores) - top]
        rows = np.flatnonzero((scores >= least) & (scores > -np.inf))
    else:
        rows = np.flatnonzero(scores > -np.inf)
    return rows[np.argsort(-scores[rows], kind="stable")][:top]


def _prefixes(
    sessions: Sequence[np.ndarray], gaps: Sequence[np.ndarray], events: Sequence[np.ndarray]
) -> Prefixes:
    """Lay sessions out as a Ranker reads them, the last WINDOW items of each."""
    read = [rows[-WINDOW:] for rows in sessions]
    windows = np.full((len(read), WINDOW), -1, np.int32)
    pause, codes = np.zeros(windows.shape, np.float32), np.zeros(windows.shape, np.int32)
    for row, items in enumerate(read):
        windows[row, : len(items)] = items
        pause[row, : len(items)] = gaps[row][-WINDOW:]
        codes[row, : len(items)] = events[row][-WINDOW:]
    return Prefixes(
        windows=windows,
        gaps=pause,
        events=codes,
        window=np.arange(len(read), dtype=np.int32),
        end=np.array([len(items) - 1 for items in read], np.int32),
        time=np.zeros(len(read)),
    )


def serve(artefact: Artefact, where: str, exported: bool = False) -> Served:
    """Make an artefact in memory ready to answer.

    Args:
      artefact: What is served.
      where: What it was read from, for messages.
      exported: Whether it was read from an artefact's folder, not made from a run.

    Raises:
      UserError: Its parameters are not those of this jmrec's encoder.
    """
    model = session_model(artefact.config)
    check_fit(
        artefact.params,
        jax.eval_shape(model.init, jax.random.key(0)),
        where,
        "export again, or use the version of jmrec that made it",
    )
    ranker = CompiledEncoder(model, artefact.id_rows).ranker(artefact.student, artefact.params)
    ranker.prepare(artefact.features)
    return Served(
        ranker,
        artefact.ids,
        artefact.titles,
        artefact.policy,
        where,
        artefact.event_names,
        exported,
    )


def load(path: str | Path, policy: str | Path | None = None) -> Served:
    """Load a serving artefact.

    Args:
      path: The folder that `jmrec export` wrote.
      policy: A policy file in place of the lists that it was exported with, see
        `jmrec.evaluation.policy`.

    Raises:
      UserError: There is no artefact, it is damaged, or the policy file does not fit.
    """
    folder = Path(path)
    artefact = read(folder)
    served = serve(artefact, str(folder), exported=True)
    if policy is not None:
        own = artefact.policy
        lists = read_correction(Path(policy))
        served.policy = make_policy(
            artefact.ids, own.exclude_seen, lists, own.availability, str(policy)
        )
    return served
