"""All rows of a results table, ranked one after the other, and which of them is served."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jmrec.cluster.member import is_first
from jmrec.data.schema import Dataset
from jmrec.data.toyshop import Oracle
from jmrec.evaluation.choice import DIGITS, best_of, choose_row, figure_of, on_validation
from jmrec.evaluation.dump import dump_topk
from jmrec.evaluation.protocol import Predictions, Ranker, at_target
from jmrec.evaluation.rankers.blend import Blend, fit_mixed
from jmrec.evaluation.rankers.live import FORMS, live_name
from jmrec.evaluation.rankers.neural import shuffle_prefixes
from jmrec.evaluation.rankers.past import Past
from jmrec.evaluation.rankers.rules import (
    CHOSEN_BY,
    choose_live,
    choose_live_mixed,
    fit_rules,
    rule_names,
)
from jmrec.evaluation.rankers.weekly import Mondays, weekly
from jmrec.evaluation.results import (
    FROZEN,
    LIVE,
    MIX,
    PLAIN,
    RANKING,
    WEEKLY,
    RowCost,
    ServedRow,
    mixed_name,
)
from jmrec.evaluation.summary import Row, measure
from jmrec.systems.data import ease_items
from jmrec.systems.students import NO_FEATURES, Students
from jmrec.systems.system import Entry, Ranks
from jmrec.usage import watch

ALL = "all"
"""Of ``counts``: rows that are WEEKLY and rows that are LIVE."""
PERMUTED = ("pictures permuted", "texts permuted")
"""Views that the student is shown as a control."""


@dataclass(frozen=True)
class Table:
    """All rows, which is served, its rankers where that is no student, what each row cost.

    And the rows that are the served one without a part of it.
    """

    rows: list[Row]
    served: ServedRow
    rankers: Sequence[Ranker]
    cost: dict[str, RowCost]
    parts: Sequence[str] = ()


@dataclass(frozen=True)
class Later:
    """All events, and what rows are asked that count what came after training.

    Attributes:
      counts: LIVE, WEEKLY or ALL of both.
      past: All events.
      validation: The predictions of validation, at the moment of what is predicted.
      predictions: Those that are reported on, likewise.
    """

    counts: str
    past: Past
    validation: Predictions
    predictions: Predictions

    @classmethod
    def of(
        cls, counts: str, dataset: Dataset, validation: Predictions, predictions: Predictions
    ) -> "Later":
        """Return it for the predictions of validation, and of the split that is reported on."""
        asked = at_target(validation), at_target(predictions)
        since = min(each.prefixes.time.min(initial=np.inf) for each in asked)
        return cls(counts, Past(dataset, float(since)), *asked)

    def asks(self, counts: str) -> bool:
        """Return whether rows with these counts are wanted."""
        return self.counts in (counts, ALL)


def controls(students: Students, name: str) -> list[Entry]:
    """Return the controls: a student on shuffled sessions, or on permuted features."""
    variant = students.variant(name)
    seeds, ranker = students.seeds(name), partial(students.ranker, name)
    shuffled = Entry(f"{name}, order shuffled", "control", seeds, ranker, True)
    if variant.view != "both" or variant.features == NO_FEATURES:
        return [shuffled]
    views = students.features.views(variant.features)
    return [shuffled] + [
        Entry(f"{name}, {shown}", "control", seeds, partial(ranker, view=shown))
        for shown in PERMUTED if shown in views
    ]  # fmt: skip


class _Rows:
    """The rows so far, and what each cost."""

    def __init__(
        self,
        system: Ranks,
        split: str,
        validation: Predictions,
        predictions: Predictions,
        dump: Path | None,
    ) -> None:
        self.data, self.config, self.split = system.data, system.work.config, split
        self.validation, self.predictions, self.dump = validation, predictions, dump
        dataset = system.data.dataset
        self.common: dict[str, Any] = {
            "n_items": len(dataset.items), "exclude_seen": dataset.exclude_seen,
        }  # fmt: skip
        self.rows, self.cost = list[Row](), dict[str, RowCost]()

    @contextmanager
    def costs(self, name: str, what: Literal["fit", "rank"]) -> Iterator[None]:
        """Measure what is done for a row."""
        entry, started = self.cost.setdefault(name, {}), time.monotonic()
        with watch() as peak:
            yield
        entry[what] = round(time.monotonic() - started, 2)
        entry["peak_memory"] = max(peak.bytes or 0, entry.get("peak_memory") or 0) or None

    def add(
        self,
        name: str,
        kind: str,
        rankers: Sequence[Ranker],
        shuffled: bool = False,
        later: Later | None = None,
        counts: str = FROZEN,
    ) -> None:
        """Rank a row; one that counts what came after training is asked as ``later`` says."""
        of = later or self
        asked = shuffle_prefixes(of.predictions, self.config.seed) if shuffled else of.predictions
        with self.costs(name, "rank"):
            row = measure(
                name, kind, rankers, asked, of.validation, **self.common,
                cold=~self.data.train_items, warm_loss=self.config.evaluate.get("warm_loss"),
                counts=counts,
            )  # fmt: skip
        self.rows.append(row)
        if self.dump is not None and is_first():
            for seed, ranked in enumerate(row.ranked):
                safe = "".join(c if c.isalnum() else "-" for c in name)
                dump_topk(self.dump / f"{safe}-{seed}.npz", asked, ranked)

    def add_entry(self, entry: Entry) -> list[Ranker]:
        """Rank a row of the system's; return its rankers, one a seed."""
        rankers = [entry.ranker(seed) for seed in entry.seeds]
        self.add(entry.name, entry.kind, rankers, entry.shuffled)
        return rankers

    def add_without_each(self, blends: Sequence[Ranker]) -> list[str]:
        """Rank a row of blends without each of their members; return the rows' names."""
        found = without_each(blends)
        for name, less in found.items():
            self.add(name, "control", less)
        return list(found)

    def early(self, rankers: Sequence[Ranker], later: Later | None = None) -> float:
        """Return the figure on validation of the row that was added last."""
        if self.split == "validation":
            return figure_of(self.rows[-1].ranks(), self.predictions)
        return on_validation(rankers, (later or self).validation, **self.common)

    def add_mixed(self, rankers: Sequence[Blend], live: Later | None = None) -> float:
        """Rank a row that blends rules and a student; return its figure on validation."""
        counts = FROZEN if live is None else LIVE
        self.add(rankers[0].name, MIX, rankers, later=live, counts=counts)
        figure = self.early(rankers, live)
        rankers[0].settings[CHOSEN_BY] = round(figure, DIGITS)
        return figure

    def add_weekly(self, rankers: Sequence[Ranker], mondays: Mondays, later: Later) -> None:
        """Rank a row as it is when it is counted anew every Monday."""
        forms = [weekly(each, mondays) for each in rankers]
        self.add(forms[0].name, forms[0].kind, forms, later=later, counts=WEEKLY)


def measure_all(
    system: Ranks,
    split: str,
    validation: Predictions,
    predictions: Predictions,
    dump: Path | None = None,
    later: Later | None = None,
    parts: bool = False,
) -> Table:
    """Rank every row of the table, and choose the one that is served.

    Args:
      system: A run whose training stages are done.
      split: "validation" or "test".
      validation: Predictions of validation, on which is chosen.
      predictions: Of the split.
      dump: A folder for every row's recommendations, or None.
      later: Where rows are shown too that count what came after training: live ones are all rules
        that can and their blend with a student, weekly ones the served row and the rule that is
        best on validation.
      parts: Whether a blend that is served is ranked without each of its members too.
    """
    students, dataset = system.students, system.data.dataset
    table = _Rows(system, split, validation, predictions, dump)
    # A student that is served by its name is chosen by nothing.
    values, choosing = dict[str, float](), students.wanted not in students.names
    entries, others = system.rankers(), dict[str, Sequence[Ranker]]()
    live = later if later is not None and later.asks(LIVE) else None
    content = dict(system.content())
    fitted, counted = _fit_rules(system, table, content, live)
    total = 1 + len(fitted) + len(counted) + len(entries) + choosing
    with system.work.tracker.stage("evaluate").progress(total, f"evaluate on {split}") as bar:
        if system.data.truth.is_file():
            oracle = Oracle(system.data.truth)
            table.add(oracle.name, "oracle", [oracle])
        for rule in fitted:
            table.add(rule.name, getattr(rule, "kind", PLAIN), [rule])
            others[rule.name] = [rule]
            values[rule.name] = getattr(rule, "settings")[CHOSEN_BY]  # noqa: B009
            bar.update(1)
        for rule in counted:
            table.add(rule.name, getattr(rule, "kind", PLAIN), [rule], later=live, counts=LIVE)
            bar.update(1)
        for each in entries:
            rankers = table.add_entry(each)
            if choosing and each.name in students.names:
                values[each.name] = table.early(rankers)
            bar.update(1)
        if choosing:
            name, seeds = _student_of_mixed(students, values)
            with table.costs(mixed_name(name), "fit"):
                mixed = [fit_mixed(fitted, each, validation, **table.common) for each in seeds]
            own = mixed_name(name)
            others[own], values[own] = mixed, table.add_mixed(mixed)
            if live is not None:
                with table.costs(live_name(own), "fit"):
                    mixed = [
                        choose_live_mixed(fitted, counted, each, live.validation, **table.common)
                        for each in seeds
                    ]
                table.add_mixed(mixed, live)
            bar.update(1)
        served = _served(students, values, choosing)
        if later is not None and later.asks(WEEKLY):
            mondays = Mondays(dataset, later.past, fitted, content, ease_items(system.work.config))
            best = best_of({rule.name: values[rule.name] for rule in fitted})
            for name in dict.fromkeys([best, served["row"]]):
                if name in others:  # a student counts nothing
                    table.add_weekly(others[name], mondays, later)
        for each in controls(students, served.get("student", served["row"])):
            table.add_entry(each)
        answering = others.get(served["row"], ())
        without = table.add_without_each(answering) if parts else []
        bar.update(1)
    return Table(table.rows, served, answering, table.cost, without)


def _fit_rules(
    system: Ranks, table: _Rows, content: Mapping[str, np.ndarray], live: Later | None
) -> tuple[list[Ranker], list[Ranker]]:
    """Return the rules, fitted, and their live forms where those are asked for."""
    work, dataset = system.work, system.data.dataset
    tracker = work.tracker.stage("evaluate")

    def shown(bar: Any) -> Callable[[str, int, int], None]:
        before = [0]

        def tell(name: str, done: int, total: int) -> None:
            bar.update(done - before[0])
            before[0] = done

        return tell

    with tracker.progress(len(rule_names(content)), "fit rules") as bar:
        fitted = fit_rules(
            dataset, table.validation, features=content, ease_items=ease_items(work.config),
            measured=lambda name: table.costs(name, "fit"), progress=shown(bar),
        )  # fmt: skip
    if live is None:
        return fitted, []
    with tracker.progress(len(FORMS) + 1, "fit live rules") as bar:
        return fitted, choose_live(
            fitted, dataset, live.validation, live.past, features=content, progress=shown(bar)
        )


def without_each(rankers: Sequence[Ranker]) -> dict[str, list[Blend]]:
    """Return blends without one of their members, the others weighing what they weigh.

    Args:
      rankers: The blends of one row, one a seed. Nothing is returned of what is no blend, or has
        one member.

    Returns:
      Name of a row -> its blends, of a member that not all seeds have those that have it without
      it and the others as they are.
    """
    blends = [each for each in rankers if isinstance(each, Blend) and len(each.members) > 1]
    if len(blends) < len(rankers):
        return {}
    names = dict.fromkeys(member.name for blend in blends for member in blend.members)
    return {
        f"{blends[0].name}, without {name}": [_without(blend, name) for blend in blends]
        for name in names
    }


def _without(blend: Blend, name: str) -> Blend:
    kept = [each for each in zip(blend.members, blend.weights) if each[0].name != name]
    return replace(blend, members=[m for m, _ in kept], weights=[w for _, w in kept], settings={})


def _student_of_mixed(students: Students, values: Mapping[str, float]) -> tuple[str, list[Ranker]]:
    """Return the student that is blended with the rules, the wanted or the best: one a seed."""
    own = {mixed_name(name): name for name in students.names}
    best = best_of({name: values[name] for name in students.names})
    name = own.get(students.wanted, best)
    return name, [students.ranker(name, seed) for seed in students.seeds(name)]


def _served(students: Students, values: Mapping[str, float], choosing: bool) -> ServedRow:
    """Return the row that is served, and the student that is shown where it is a rule.

    Args:
      students: Of the run.
      values: The figure on validation of each row that can be served.
      choosing: Whether that decides.

    Raises:
      UserError: A rule is wanted that the data has not.
    """
    if not choosing:
        return {"row": students.wanted, "beside": []}
    name, choice = choose_row(students.wanted, values, RANKING)
    served: ServedRow = {"row": name, "beside": [], "choice": choice}
    if name not in students.names:
        mixed = {mixed_name(each): each for each in students.names}
        best = best_of({each: values[each] for each in students.names})
        served["student"] = mixed.get(name, best)
    return served
