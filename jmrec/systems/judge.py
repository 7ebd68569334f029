"""A ranker of somebody's own, judged by a run's protocol beside the run's best rule."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from jmrec.config import choose
from jmrec.data.schema import Dataset
from jmrec.errors import UserError
from jmrec.evaluation.choice import best_of
from jmrec.evaluation.protocol import Predictions, Prefixes, Ranker, ask
from jmrec.evaluation.rankers.rules import CHOSEN_BY
from jmrec.evaluation.results import MEASURES, OWN, PLAIN, RULE, Results, role_of
from jmrec.evaluation.summary import Row, compare, measure, summarise
from jmrec.evaluation.value import worth_of_lists
from jmrec.lock import only_writer
from jmrec.systems.evaluate import note_reading
from jmrec.systems.serve_rules import evaluated_rule, results_of, served_row
from jmrec.systems.system import Ranks
from jmrec.terminal import warn

Scores: TypeAlias = Callable[[Prefixes, slice], ArrayLike]
"""A function of P prefixes and a slice of the catalogue: float [P, slice length], or [slice length]
where it says the same after every prefix."""
Judgeable: TypeAlias = Ranker | Scores | np.ndarray
"""What can be judged: a Ranker, a function of that kind, or all scores float [predictions, V]."""
SPLITS = ("validation", "test")


class Judge:
    """Ranks by the protocol of one run; what it needs more than once it keeps.

    Args:
      system: A finished run that ranks items for sessions.
    """

    def __init__(self, system: Ranks) -> None:
        self.system = system
        self._asked: dict[str, Predictions] = {}
        self._rules: dict[str, Row] = {}

    @property
    def dataset(self) -> Dataset:
        """The run's data set."""
        return self.system.data.dataset

    def predictions(self, split: str) -> Predictions:
        """Return what every row of a split is asked, the same object each time.

        Raises:
          UserError: It is neither validation nor test.
        """
        choose("split", split, SPLITS)
        if split not in self._asked:
            self._asked[split] = ask(self.dataset, split)
        return self._asked[split]

    def judge(
        self,
        given: Judgeable | Sequence[Judgeable],
        split: str,
        *,
        name: str | None = None,
        trained: bool = False,
    ) -> tuple[Results, Row, Row]:
        """Rank a split by somebody's own ranker; a reading of test is noted in the workdir.

        Args:
          given: What ranks; several are the seeds of one row.
          split: "validation" or "test".
          name: Of the row; None is the ranker's own.
          trained: Whether chance had a part in it: then fewer than three seeds claim nothing.

        Returns:
          As results.json has it, the run's best rule, the row, and the two compared; then the
          measured row and that of the rule.

        Raises:
          UserError: What was given can not be judged, or test is to be read while another command
            writes into the workdir.
        """
        asked, dataset = self.predictions(split), self.dataset
        best = self._best(split)
        many = list(given) if isinstance(given, list | tuple) else [given]
        if not many:
            raise UserError("there is nothing to judge; give a ranker, or one for each seed.")
        rankers = [Own(each, name, asked, split, len(dataset.items)) for each in many]
        row_name = rankers[0].name
        row_name = f"{row_name} (yours)" if row_name == best else row_name
        content = dict(self.system.content())
        for each in rankers:
            each.prepare(content)
        reads = self._reads(split)
        # All scores of test say nothing of validation, on which the offset of cold items is chosen.
        whole = split == "validation" or not any(each.whole for each in rankers)
        mine = self._measured(row_name, OWN, rankers, split, cold=whole)
        rule = self._rule(best, split)
        results = summarise(
            [rule, mine], asked, dataset, split, system=self.system.name,
            warm_loss=self.system.work.config.evaluate.get("warm_loss"), test_reads=reads,
        )  # fmt: skip
        said = mine if trained else replace(mine, kind=PLAIN)  # nothing was drawn: no seeds to ask
        results["comparisons"] = [compare(said, rule, asked, *each) for each in MEASURES]
        if (value := dataset.items.value) is not None:
            results["value"] = worth_of_lists([rule, mine], asked, value, best)
        return results, mine, rule

    def _best(self, split: str) -> str:
        """Return the rule that is hardest to beat on a split.

        Of one that the run's own evaluation did not read that is the best on validation.
        """
        results = results_of(self.system.work.workdir)
        if split == results["dataset"]["split"] and results["best_rule"]:
            return results["best_rule"]
        rules = [row for row in results["rows"] if role_of(row["kind"]) == RULE]
        return best_of({row["name"]: row["settings"][CHOSEN_BY] for row in rules})

    def _reads(self, split: str) -> int:
        """Return how often test was read, this time included."""
        workdir = self.system.work.workdir
        if split != "test":
            return results_of(workdir)["test_reads"]
        with only_writer(workdir, warn):
            return note_reading(workdir, split)

    def _rule(self, name: str, split: str) -> Row:
        """Return the row of a rule as the run's own evaluation has it."""
        if split not in self._rules:
            ranker = evaluated_rule(self.system, served_row(self.system, name))
            kind = getattr(ranker, "kind", PLAIN)
            assert role_of(kind)
            self._rules[split] = self._measured(name, kind, [ranker], split)
        return self._rules[split]

    def _measured(
        self, name: str, kind: str, rankers: Sequence[Ranker], split: str, cold: bool = True
    ) -> Row:
        data = self.system.data
        return measure(
            name, kind, rankers, self.predictions(split), self.predictions("validation"),
            n_items=len(self.dataset.items), exclude_seen=self.dataset.exclude_seen,
            cold=~data.train_items & cold,
            warm_loss=self.system.work.config.evaluate.get("warm_loss"),
        )  # fmt: skip


class Own:
    """What somebody gave as a Ranker whose answers are looked at.

    Args:
      given: See `Judgeable`.
      name: Of the row; None is its own.
      asked: The predictions of the split, in whose order all scores are.
      split: Its name.
      n_items: V.

    Raises:
      UserError: It is nothing that ranks.
    """

    kind = OWN

    def __init__(
        self, given: Any, name: str | None, asked: Predictions, split: str, n_items: int
    ) -> None:
        if isinstance(given, type):
            raise UserError(
                f"{given.__name__} is a class; give a ranker made of it: {given.__name__}()."
            )
        self._ask, self._prepare = _functions(given, asked, split, n_items)
        self.whole = not callable(given) and not isinstance(given, Ranker)
        own = getattr(given, "name", None) or getattr(given, "__name__", None)
        if not isinstance(own, str) or own == "<lambda>":
            own = "your own"
        self.name = str(name or own)
        found = getattr(given, "settings", None)
        self.settings = dict(found) if isinstance(found, Mapping) else {}

    def prepare(self, features: Mapping[str, np.ndarray]) -> None:
        """Pass the feature tables on."""
        if self._prepare is not None:
            self._prepare(features)

    def scores(self, prefixes: Prefixes, item_slice: slice) -> np.ndarray:
        """Return float32 [P, slice length].

        Raises:
          UserError: It is of another shape, holds no numbers, or one that is NaN.
        """
        wanted = len(prefixes), item_slice.stop - item_slice.start
        given = self._ask(prefixes, item_slice)
        try:
            found = np.asarray(given, np.float32)
        except (TypeError, ValueError) as error:
            raise UserError(f"the scores of {self.name} are no array of numbers.") from error
        if found.shape == wanted[1:]:
            found = np.broadcast_to(found, wanted)
        if found.shape != wanted:
            raise UserError(
                f"the scores of {self.name} are of shape {found.shape}, and {wanted} was asked: a "
                "row for each prefix, a column for each item of the slice."
            )
        if np.isnan(found).any():
            row, column = np.argwhere(np.isnan(found))[0]
            raise UserError(
                f"{self.name} scores item {item_slice.start + column} NaN after a session of "
                f"{prefixes.end[row] + 1} items, which nothing can be compared with; give a number."
            )
        return found


def _functions(
    given: Any, asked: Predictions, split: str, n_items: int
) -> tuple[Scores, Callable[[Mapping[str, np.ndarray]], None] | None]:
    """Return what scores, and what prepares for it, None where nothing does."""
    if isinstance(given, Ranker):
        return given.scores, given.prepare
    if hasattr(given, "scores"):
        lacks = next(each for each in ("name", "prepare") if not hasattr(given, each))
        raise UserError(
            f"{type(given).__name__} has scores and no {lacks}; let its class inherit from "
            "jmrec.Ranker and give it a name."
        )
    if callable(given):
        return given, None
    if not hasattr(given, "__array__"):
        raise UserError(
            f"a {type(given).__name__} ranks nothing; give a jmrec.Ranker, a function of prefixes "
            "and a slice that returns scores, or all scores as one array."
        )
    table, wanted = np.asarray(given), (len(asked), n_items)
    if table.shape != wanted:
        raise UserError(
            f"the scores are of shape {table.shape}, and {split} has {wanted[0]} predictions among "
            f"{n_items} items: give an array {wanted}, in the order of run.predictions({split!r})."
        )
    places = asked.prefixes.last_event  # every prediction has another last event, ascending

    def of_table(prefixes: Prefixes, item_slice: slice) -> np.ndarray:
        return np.asarray(table[np.searchsorted(places, prefixes.last_event), item_slice])

    return of_table, None
