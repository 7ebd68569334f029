"""A finished run, and somebody's own ranker beside it."""

import io
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jmrec.api.start import PathLike, check_finished, in_words
from jmrec.errors import UserError

if TYPE_CHECKING:  # jax and seconds: not to import jmrec
    from jmrec.config import ConfigDict
    from jmrec.data.schema import Dataset, Items
    from jmrec.evaluation.protocol import Predictions
    from jmrec.evaluation.results import Comparison, Cost, ResultRow, Results
    from jmrec.evaluation.sections import Helped
    from jmrec.evaluation.summary import Row
    from jmrec.serving import Answer, Served
    from jmrec.systems.judge import Judge, Judgeable

WIDTH = 120
"""Columns of a table that is a text."""


class Run:
    """A finished run.

    `help(jmrec)` shows one at work. What it has read it keeps: after `jmrec embed`, `remember` or
    `forget`, open it anew.

    Args:
      workdir: Of the run.

    Attributes:
      workdir: The same.
      config: Its settings.
      system: What it is made of (`jmrec.systems`), for who looks inside: internal.

    Raises:
      UserError: There is none, an older jmrec made it, or its files were changed.
    """

    def __init__(self, workdir: Path) -> None:
        check_finished(workdir)
        from jmrec.xla import set_up

        set_up()
        from jmrec.systems.registry import open_run
        from jmrec.tracking import Tracker

        self.workdir = workdir
        self.system = open_run(workdir, Tracker(workdir, writes=False))
        self.config: ConfigDict = self.system.work.config
        self._answers: dict[tuple[str | None, Path | None], Served] = {}

    @property
    def results(self) -> "Results":
        """What results.json holds; `jmrec.evaluation.results` says what that is.

        Raises:
          UserError: It is missing or damaged.
        """
        from jmrec.systems.serve_rules import results_of

        return results_of(self.workdir)

    @property
    def report(self) -> Path:
        """The report, for a browser."""
        return self.workdir / "evaluate" / "report.html"

    def table(self) -> str:
        """Return the table of results, and what it says in words."""
        from jmrec.evaluation.results import read_cost

        return _table(self.results, read_cost(self.workdir / "evaluate"))

    def __repr__(self) -> str:
        try:
            return f"Run({str(self.workdir)!r})\n{self.table()}"
        except UserError as error:
            return f"Run({str(self.workdir)!r}): {error}"

    @property
    def dataset(self) -> "Dataset":
        """The data set, for a run that ranks items for sessions.

        Raises:
          UserError: It ranks none.
        """
        return self._judge.dataset

    @cached_property
    def _judge(self) -> "Judge":
        from jmrec.systems.judge import Judge
        from jmrec.systems.system import Ranks, able

        return Judge(able(self.system, Ranks))

    @in_words
    def predictions(self, split: str = "validation") -> "Predictions":
        """Return what every ranker of a split is asked, in the order of an array of scores.

        Args:
          split: "validation" or "test".

        Raises:
          UserError: The run ranks no items for sessions, or there is no such split.
        """
        return self._judge.predictions(split)

    @in_words
    def evaluate(
        self,
        ranker: "Judgeable | Sequence[Judgeable]",
        split: str = "validation",
        *,
        name: str | None = None,
        trained: bool = False,
    ) -> "Judged":
        """Judge a ranker of your own by the run's protocol, beside the run's best rule.

        That is the rule with the highest figure on the split: the hardest to beat.

        Args:
          ranker: A `jmrec.Ranker`; a function of prefixes and a slice of the items that returns
            float [prefixes, items of the slice], or one such row for all prefixes; or all scores,
            float [predictions, items], in the order of `predictions`. A list is one row of the
            table, an entry for each seed.
          split: "validation", or "test" at the very end: every reading is noted in
            test_reads.jsonl, as `jmrec evaluate --split=test` does.
          name: What the row is called; None takes the ranker's or the function's name.
          trained: Whether it was trained from a random start. Say so where it was: the verdict
            then needs three seeds, a list of three rankers. Nothing finds that out by itself.

        Returns:
          Its row, that of the best rule, and their paired difference with its interval.

        Raises:
          UserError: The run ranks no items for sessions, the ranker's scores are of a wrong shape
            or NaN, or test is to be read while another process holds the workdir.
        """
        results, own, rule = self._judge.judge(ranker, split, name=name, trained=trained)
        return Judged(results, own, rule, self._judge.predictions(split), self.dataset.items)

    @in_words
    def recommend(
        self,
        items: Sequence[Any],
        top: int = 10,
        *,
        row: str | None = None,
        policy: PathLike | None = None,
        at: Any = None,
        times: Sequence[Any] | None = None,
        events: Sequence[str] | None = None,
        unknown: str = "skip",
    ) -> "Answer":
        """Recommend items for one session, as `jmrec recommend --items` does.

        Args:
          items: Item ids, oldest first.
          top: How many to recommend.
          row: A row of the table of results; None is the run's choice.
          policy: A policy file, see `jmrec.evaluation.policy`.
          at: See `jmrec.serving.Served.recommend`, as all that follows.
          times: When each item was clicked.
          events: What each click was.
          unknown: "skip" or "refuse" items that the catalogue does not know.

        Returns:
          A list of {"item_id", "title", "score", "pinned"}, best first; ``unknown`` of it lists the
          ids that were skipped.

        Raises:
          UserError: No item is known, there is no such row, or the run ranks no items for sessions.
        """
        from jmrec.systems.serve import answering

        wanted = row, None if policy is None else Path(policy)
        if wanted not in self._answers:
            self._answers[wanted] = answering(self._judge.system, *wanted)
        return self._answers[wanted].recommend(items, top, at, times, events, unknown)

    @in_words
    def recommend_to(
        self,
        user: str,
        top: int = 10,
        *,
        row: str | None = None,
        policy: PathLike | None = None,
        verdicts: PathLike | None = None,
        at: float | None = None,
        unknown: str = "skip",
    ) -> dict[str, Any]:
        """Recommend items to one user, as `jmrec recommend --user` does.

        Args:
          user: Their id.
          top: How many to recommend.
          row: A row of the table of results; None is the run's choice.
          policy: A policy file.
          verdicts: A file of verdicts, see `jmrec.data.verdicts`.
          at: Unix seconds; None is now.
          unknown: See `jmrec.serving.ServedPairs.recommend`.

        Returns:
          See `jmrec.serving.ServedPairs.recommend`.

        Raises:
          UserError: The run ranks no items for users, or there is no such row.
        """
        from jmrec.systems.serve_pairs import recommend

        lists, said = (None if each is None else Path(each) for each in (policy, verdicts))
        return recommend(self.workdir, user, top, row, lists, said, at, unknown)

    @in_words
    def export(
        self,
        out: PathLike,
        *,
        row: str | None = None,
        policy: PathLike | None = None,
        verdicts: PathLike | None = None,
        stablehlo: bool = False,
        updatable: bool = False,
        index: float | None = None,
        keep: int | None = None,
    ) -> dict[str, Any]:
        """Write what is served, as `jmrec export` does; `jmrec.serving.load` reads it.

        Args:
          out: The folder to write.
          row: A row of the table of results; None is the run's choice.
          policy: A policy file, which becomes the artefact's own.
          verdicts: A file of verdicts, the same.
          stablehlo: Whether the scores are added as one program.
          updatable: Whether a rule gets what counting of new sessions needs.
          index: The share of the exact best items that an approximate index is to find; None is
            exact.
          keep: How many entries of an item the tables of rules keep, the largest; None is all.

        Returns:
          What was measured: size, seconds, agreement.

        Raises:
          UserError: ``out`` is something else, or another process holds the workdir.
        """
        from jmrec.systems.serve import export

        return export(
            self.workdir, Path(out), row=row, stablehlo=stablehlo, updatable=updatable,
            index=index, keep=keep, policy=None if policy is None else Path(policy),
            verdicts=None if verdicts is None else Path(verdicts),
        )  # fmt: skip


class Judged:
    """A ranker of somebody's own beside a run's best rule.

    All figures are fractions; tables show percent.

    Args:
      results: As results.json has it: the rule's row, then the own one.
      own: The own row as measured.
      rule: That of the rule.
      predictions: What both were asked.
      items: The catalogue.

    Attributes:
      results: The same.
      row: The own row: "figures", "interval", "slices", "cold", "bias".
      best_rule: That of the rule.
      difference: The own figure less the rule's, by the primary figure: "difference", "interval"
        (paired, 95 %) and "verdict".
      predictions: The same.
      ranks: int64 [seeds, predictions], the place of what came next in the own order, 1 for the
        first; larger than the catalogue where that was no candidate.
      rule_ranks: int64 [1, predictions], that in the rule's.
    """

    def __init__(
        self, results: "Results", own: "Row", rule: "Row", predictions: "Predictions",
        items: "Items",
    ) -> None:  # fmt: skip
        self._rows, self._items = (own, rule), items
        self.predictions = predictions
        self.ranks, self.rule_ranks = own.ranks(), rule.ranks()
        self.results = results
        self.best_rule: ResultRow = results["rows"][0]
        self.row: ResultRow = results["rows"][1]
        self.difference: Comparison = results["comparisons"][0]

    def helped(self, seed: int = 0) -> "Helped":
        """Return in how many sessions the own ranker is better than the rule, and examples.

        Args:
          seed: By which examples are drawn.

        Returns:
          Shares of sessions "helped", "harmed" and the "same"; some that are "better" and some
          "worse", each with the ids of its "past", of what came "next", and the "places" of that in
          both orders; and the titles of these "items".
        """
        from jmrec.evaluation.helped import helped

        return helped(*self._rows, self.predictions, self._items, seed)

    def table(self) -> str:
        """Return both rows as a table, and what it says in words."""
        return _table(self.results)

    def __repr__(self) -> str:
        return f"Judged({self.row['name']!r})\n{self.table()}"


def _table(results: "Results", cost: "Cost | None" = None) -> str:
    """Return what `print_results` prints, without colours."""
    from jmrec.report.terminal import print_results
    from jmrec.terminal import console

    out = io.StringIO()
    print_results(results, cost, console(file=out, width=WIDTH, color_system=None))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())
