"""Recommendations from a serving artefact, or from a run that looks like one."""

import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jmrec.errors import UserError
from jmrec.evaluation.policy import Policy, make_policy, nearest, read_correction
from jmrec.evaluation.protocol import WINDOW, Prefixes, Ranker
from jmrec.evaluation.rankers.neural import WINDOWS, CompiledEncoder
from jmrec.evaluation.top_list import comparable
from jmrec.models.linen import check_fit
from jmrec.models.sessions.table import session_model
from jmrec.serving.artefact import Artefact, read
from jmrec.serving.folder import MIXED, RULE, kind_of
from jmrec.serving.questions import (
    REFUSE,
    SKIP,
    read_choice,
    read_each,
    read_id,
    read_list,
    read_moment,
    read_top,
    shown,
)

if TYPE_CHECKING:  # scipy and its linear algebra: not to serve a student
    from jmrec.serving.index import Index
    from jmrec.serving.mixed import MixedArtefact
    from jmrec.serving.rules import RuleArtefact

SCORES = 2**24
"""At most so many scores are held at a time."""


class Answer(list[dict[str, Any]]):
    """The items that are recommended to a session, best first.

    Args:
      items: Each is {"item_id", "title", "score", "pinned"}.
      unknown: The ids of the session that the catalogue does not know, as often as they stand in
        it: they were skipped.

    Example:
      >>> found = Answer([], unknown=["x9"])
      >>> len(found), found.unknown
      (0, ['x9'])
    """

    def __init__(self, items: Iterable[dict[str, Any]], unknown: Iterable[str] = ()) -> None:
        super().__init__(items)
        self.unknown = list(unknown)


class Served:
    """A catalogue, a prepared ranker and a policy: what answers sessions.

    Args:
      ranker: A session encoder or a rule, prepared with the V items.
      ids: V item ids.
      titles: V titles.
      policy: Of the V items.
      where: What is served, for messages.
      event_names: ``event_names[code]`` of the event types that the ranker was trained with.
      exported: Whether an artefact is served, else a run; for messages.
      index: Which items an answer looks at, of a student; None is all.
    """

    def __init__(
        self,
        ranker: Ranker,
        ids: Sequence[str],
        titles: Sequence[str],
        policy: Policy,
        where: str,
        event_names: Sequence[str] = ("",),
        exported: bool = False,
        index: "Index | None" = None,
    ) -> None:
        self.index = index
        self.ranker, self.policy, self.where = ranker, policy, where
        self.event_names, self.exported = list(event_names), exported
        self.ids, self.titles = list(ids), list(titles)
        self._row_of = {item: row for row, item in enumerate(self.ids)}

    def recommend(
        self,
        session: Sequence[Any],
        top: int = 10,
        at: Any = None,
        times: Sequence[Any] | None = None,
        events: Sequence[str] | None = None,
        unknown: str = SKIP,
    ) -> Answer:
        """Recommend items for one session.

        Args:
          session: Item ids, oldest first, texts or whole numbers; the last 50 that the catalogue
            knows are read.
          top: How many to recommend; fewer come where there are fewer candidates.
          at: The time, for catalogues with windows of availability: unix seconds, a date as a text
            or a datetime; None is now.
          times: The time of each click, for a student that reads time gaps; None is no gaps.
          events: The event type of each click, for one that reads those; None is none.
          unknown: "skip" leaves out items that the catalogue does not know, with what is said of
            them; "refuse" raises.

        Returns:
          Best first: {"item_id", "title", "score", "pinned"}. Pinned items come first, with the
          score that they have. ``unknown`` of it lists the ids that were skipped.

        Raises:
          UserError: If nothing is asked, or no item of the session is known, or something given
            is not what it has to be.
        """
        items = read_list(session, "the session", "item ids")
        found = self.recommend_batch(
            [items], top, at,
            None if times is None else [times], None if events is None else [events], unknown,
        )[0]  # fmt: skip
        if len(found.unknown) == len(items):
            raise UserError(self._strange(found.unknown[0]))
        return found

    def recommend_batch(
        self,
        sessions: Sequence[Sequence[Any]],
        top: int = 10,
        at: Any = None,
        times: Sequence[Sequence[Any]] | None = None,
        events: Sequence[Sequence[str]] | None = None,
        unknown: str = SKIP,
    ) -> list[Answer]:
        """Recommend items for several sessions; see `recommend`.

        The answer for a session of which no item is known is empty.
        """
        top = read_top(top)
        refuse = read_choice(unknown, "unknown", (SKIP, REFUSE)) == REFUSE
        now = time.time() if at is None else read_moment(at, "at")
        named = [self._named(each) for each in read_list(sessions, "sessions", "sessions")]
        known = [[item in self._row_of for item in each] for each in named]
        strange = [[i for i, ok in zip(*each) if not ok] for each in zip(named, known)]
        if refuse and any(strange):
            raise UserError(self._strange(next(each for each in strange if each)[0]))

        def of_known(lists: Sequence[Sequence[Any]]) -> list[list[Any]]:
            return [[each for each, ok in zip(*line) if ok] for line in zip(lists, known)]

        asked = [np.array([self._row_of[i] for i in each], np.int32) for each in of_known(named)]
        gaps, codes = None, None
        if times is not None:
            given = read_each(times, len(named), "times", "times", read_moment)
            gaps = _gaps(of_known(self._fitting(named, given, "times")))
        if events is not None:
            words = read_each(events, len(named), "events", "event types", self._code)
            codes = of_known(self._fitting(named, words, "events"))
        found = [Answer([], each) for each in strange]
        rows = [row for row, each in enumerate(asked) if len(each)]
        size = max(1, min(WINDOWS, SCORES // max(len(self.ids), 1)))
        for start in range(0, len(rows), size):
            few = rows[start : start + size]
            part = [asked[row] for row in few]
            prefixes = _prefixes(
                part,
                [
                    np.zeros(len(each)) if gaps is None else gaps[row]
                    for row, each in zip(few, part)
                ],
                [
                    np.zeros(len(each)) if codes is None else codes[row]
                    for row, each in zip(few, part)
                ],
            )
            if self.index is None:
                scores = comparable(self.ranker.scores(prefixes, slice(0, len(self.ids))))
                scores[~self.policy.candidates(part, now)] = -np.inf
                for row, line in zip(few, scores):
                    found[row].extend(self._best(line, top))
            else:
                for row, answer in zip(few, self._near(self.index, prefixes, part, now, top)):
                    found[row].extend(answer)
        return found

    def _near(
        self, index: "Index", prefixes: Prefixes, sessions: list[np.ndarray], now: float, top: int
    ) -> Iterator[list[dict[str, Any]]]:
        """Yield the answer to each session from the items that an index looks at.

        Where the policy leaves fewer than ``top`` of those, all items are looked at.
        """
        ranker: Any = self.ranker
        for state, seen in zip(ranker.states(prefixes), sessions):
            candidates = self.policy.candidates([seen], now)[0]
            rows = np.union1d(index.rows(state), self.policy.pinned)
            rows = rows[candidates[rows]]
            if len(rows) < top:
                rows = np.flatnonzero(candidates)
            yield self._best(comparable(ranker.items[rows] @ state), top, rows)

    def _named(self, session: Any) -> list[str]:
        items = read_list(session, "the session", "item ids")
        if not items:
            raise UserError("the session is empty; name at least one item.")
        return [
            read_id(item, f"entry {place} of the session") for place, item in enumerate(items, 1)
        ]

    def _strange(self, item: str) -> str:
        return (
            f"item {shown(item)} is not in the catalogue of {self.where}; "
            f"{nearest(item, self.ids, self.exported)}"
        )

    def _code(self, event: Any, what: str) -> int:
        name = "" if event is None else event
        if name not in self.event_names:
            known = ", ".join(filter(None, self.event_names))
            trained = f"it knows {known}: name one of those" if known else "it knows none"
            raise UserError(
                f"{what}: event type {shown(event)} is none that {self.where} was trained with; "
                f"{trained}, leave out the events, or train again with data that has it."
            )
        return self.event_names.index(name)

    @staticmethod
    def _fitting(
        named: Sequence[Sequence[str]], given: Sequence[Sequence[Any]], what: str
    ) -> Sequence[Sequence[Any]]:
        for items, each in zip(named, given, strict=True):
            if len(items) != len(each):
                raise UserError(
                    f"{len(items)} items and {len(each)} {what}: give one for each item of the "
                    "session, or none."
                )
        return given

    def _best(
        self, scores: np.ndarray, top: int, rows: np.ndarray | None = None
    ) -> list[dict[str, Any]]:
        """Return the best of float32 [N], -inf where an item is no candidate.

        Args:
          scores: Of all items, or of ``rows``.
          top: How many.
          rows: int [N], ascending; None is all.
        """
        pinned = self.policy.pinned
        if rows is not None:
            pinned = np.searchsorted(rows, pinned[np.isin(pinned, rows)])
        first = pinned[~np.isneginf(scores[pinned])]
        rest = scores.copy() if len(first) else scores
        rest[first] = -np.inf
        best = np.concatenate([first, best_rows(rest, top)])[:top]
        return [
            {
                "item_id": self.ids[row],
                "title": self.titles[row],
                "score": float(scores[at]),
                "pinned": place < len(first),
            }
            for place, (at, row) in enumerate(
                zip(best.tolist(), (best if rows is None else rows[best]).tolist())
            )
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


def _gaps(times: Sequence[Sequence[float]]) -> list[np.ndarray]:
    """Return log(1 + seconds) since the click before, float32, of the last WINDOW clicks."""
    # A window's first item has no item before it that the student reads.
    last = [np.asarray(each, np.float64)[-WINDOW:] for each in times]
    return [np.log1p(np.maximum(np.diff(t, prepend=t[:1]), 0)).astype(np.float32) for t in last]


def _prefixes(
    sessions: Sequence[np.ndarray], gaps: Sequence[Any], events: Sequence[Any]
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


def serve(
    artefact: "Artefact | RuleArtefact | MixedArtefact", where: str, exported: bool = False
) -> Served:
    """Make an artefact in memory ready to answer.

    Args:
      artefact: What is served.
      where: What it was read from, for messages.
      exported: Whether it was read from an artefact's folder, not made from a run.

    Raises:
      UserError: Its parameters are not those of this jmrec's encoder.
    """
    return Served(
        _ranker(artefact, where),
        artefact.ids,
        artefact.titles,
        artefact.policy,
        where,
        artefact.event_names,
        exported,
        artefact.index if isinstance(artefact, Artefact) else None,
    )


def _ranker(artefact: "Artefact | RuleArtefact | MixedArtefact", where: str) -> Ranker:
    """Return what answers, prepared."""
    if isinstance(artefact, Artefact):
        return _student(artefact, where)
    from jmrec.serving.mixed import MixedArtefact

    if isinstance(artefact, MixedArtefact):
        return artefact.ranker(_student(artefact.student, where))
    return artefact.rule


def _student(artefact: Artefact, where: str) -> Ranker:
    """Return a student, prepared.

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
    if artefact.index is not None and artefact.index.centres.shape[1] != ranker.width:
        raise UserError(f"{where} is damaged (its index is of other vectors); export again.")
    return ranker


def load(path: str | Path, policy: str | Path | None = None) -> Served:
    """Load a serving artefact, of a student, of a rule or of both.

    Args:
      path: The folder that `jmrec export` wrote.
      policy: A policy file in place of the lists that it was exported with, see
        `jmrec.evaluation.policy`.

    Raises:
      UserError: There is no artefact, it is damaged, or the policy file does not fit.
    """
    folder = Path(path)
    artefact: Artefact | RuleArtefact | MixedArtefact
    kind = kind_of(folder)
    if kind == RULE:
        from jmrec.serving.rules import read_rule

        artefact = read_rule(folder)
    elif kind == MIXED:
        from jmrec.serving.mixed import read_mixed

        artefact = read_mixed(folder)
    else:
        artefact = read(folder)
    served = serve(artefact, str(folder), exported=True)
    if policy is not None:
        own = artefact.policy
        lists = read_correction(Path(policy))
        served.policy = make_policy(
            artefact.ids, own.exclude_seen, lists, own.availability, str(policy)
        )
    return served
