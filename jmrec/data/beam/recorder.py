"""What stretches of a table find, and what they ask of the whole: `Findings` in a pipeline.

Each call of a `Recorder` is a step with a number, the same for all stretches of a file, because
which calls come depends on the description and on what the whole told, and never on single rows.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from jmrec.data.findings import Evidence, Findings, Rows
from jmrec.errors import UserError

Step = tuple[int, ...]
"""Its place among all steps, which orders them."""


class UndecidedError(Exception):
    """Some steps need to know what the whole column tells.

    Attributes:
      asked: Step -> what these rows tell.
    """

    def __init__(self, asked: dict[Step, Evidence]) -> None:
        super().__init__(asked)
        self.asked = asked


@dataclass(frozen=True)
class Found:
    """What a stretch found in one step.

    Attributes:
      row: The number of the first row, or the stretch's; the lowest one speaks for all.
      sentence: What it says; "" where nothing was found.
      bad: How many rows have the fault.
      of: How many rows were looked at.
      effect: What becomes of the bad ones; "" of what concerns a whole file.
      error: Whether it ends the reading.
    """

    row: int
    sentence: str
    bad: int = 0
    of: int = 0
    effect: str = ""
    error: bool = False

    def merge(self, other: "Found") -> "Found":
        """Return what both found; an error stands above all else.

        Example:
          >>> Found(7, "seven", 2, 9, "left").merge(Found(3, "three", 1, 5, "left"))
          Found(row=3, sentence='three', bad=3, of=14, effect='left', error=False)
        """
        first = min((self, other), key=lambda each: (not each.error, not each.sentence, each.row))
        return replace(first, bad=self.bad + other.bad, of=self.of + other.of)

    def report(self, findings: Findings) -> None:
        """Report it as one machine would have.

        Raises:
          UserError: It is an error.
        """
        if self.error:
            raise UserError(self.sentence)
        if self.sentence and self.effect:
            findings.report(self.sentence, self.bad, self.of, self.effect)
        elif self.sentence:
            findings.note(self.sentence)


Say = Callable[[Any, Findings], None]


@dataclass(frozen=True)
class Gathered:
    """What a stretch tells, of which a sentence is made when all have told; see `Findings.gather`.

    Attributes:
      evidence: What it tells.
      say: What makes sentences of it.
    """

    evidence: Evidence
    say: Say

    def merge(self, other: "Gathered") -> "Gathered":
        """Return what both tell."""
        return Gathered(self.evidence.merge(other.evidence), self.say)

    def report(self, findings: Findings) -> None:
        """Report it as one machine would have."""
        self.say(self.evidence, findings)


Record = Found | Gathered


class Recorder(Findings):
    """Findings of a stretch of a file.

    Args:
      first: Numbers that come before all of its steps.
      known: Step -> what the whole column tells.
      now: See `Findings`.

    Attributes:
      records: Step -> what was found.
    """

    def __init__(self, first: Step, known: Mapping[Step, Any], now: float) -> None:
        super().__init__()
        self.now, self.known = now, known
        self.records: dict[Step, Record] = {}
        self._prefix, self._count = first, 0

    def step(self) -> Step:
        """Return the number of the next step."""
        self._count += 1
        return (*self._prefix, self._count)

    def add(
        self,
        table: Rows,
        bad: Sequence[int] | np.ndarray,
        message: Callable[[int], str],
        effect: str,
    ) -> None:
        """Record one kind of fault, also where no row has it."""
        row, sentence = 0, ""
        if len(bad):
            first = int(bad[0])
            row, sentence = int(table.rows[first]), f"{table.where(first)}: {message(first)}"
        self.records[self.step()] = Found(row, sentence, len(bad), len(table), effect)

    def report(self, sentence: str, bad: int, of: int, effect: str) -> None:
        """Record one kind of fault of a file that is read as a whole."""
        self.records[self.step()] = Found(0, sentence, bad, of, effect)

    def note(self, sentence: str) -> None:
        """Record what concerns a file that is read as a whole."""
        self.records[self.step()] = Found(0, sentence)

    def error(self, place: int, error: UserError) -> None:
        """Record what ended the reading of the stretch with this number."""
        self.records[self.step()] = Found(place, str(error), error=True)

    def whole(self, evidence: Any) -> Any:
        """Return what the whole column tells.

        Raises:
          UndecidedError: It is not known yet.
        """
        step = self.step()
        if step not in self.known:
            raise UndecidedError({step: evidence.summed()})
        return self.known[step]

    def gather(self, evidence: Any, say: Callable[[Any, Findings], None]) -> None:
        """Record what these rows tell, for a sentence about all."""
        self.records[self.step()] = Gathered(evidence.summed(), say)

    def together(self, *steps: Callable[[], Any]) -> list[Any]:
        """Return what some steps return; what they ask of the whole is asked at once.

        Raises:
          UndecidedError: Some of it is not known yet.
        """
        out: list[Any] = []
        asked: dict[Step, Evidence] = {}
        prefix, count = self._prefix, self._count + 1
        for place, step in enumerate(steps):
            self._prefix, self._count = (*prefix, count, place), 0
            try:
                out.append(step())
            except UndecidedError as error:
                asked |= error.asked
        self._prefix, self._count = prefix, count
        if asked:
            raise UndecidedError(asked)
        return out


def merged(records: Iterable[Any]) -> Any:
    """Return what evidence or records of one step say together.

    Example:
      >>> merged([Found(3, "b", 1, 2, "left"), Found(2, "a", 1, 2, "left")]).sentence
      'a'
    """
    every = iter(records)
    out = next(every)
    if hasattr(out, "absorb"):  # what is large is not copied again and again
        return out.absorb(every)
    for other in every:
        out = out.merge(other)
    return out


class _Sentences(Findings):
    """Findings that are kept as plain values, none of which ends anything."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Found] = []

    def report(self, sentence: str, bad: int, of: int, effect: str) -> None:
        self.found.append(Found(0, sentence, bad, of, effect))

    def note(self, sentence: str) -> None:
        self.found.append(Found(0, sentence))


def plain(record: Record) -> list[dict[str, Any]]:
    """Return what all stretches have found in one step as plain values, for `replay`."""
    said = _Sentences()
    try:
        record.report(said)
    except UserError as error:
        said.found.append(Found(0, str(error), error=True))
    return [vars(each) for each in said.found]


def replay(found: Iterable[tuple[Sequence[int], list[dict[str, Any]]]], findings: Findings) -> None:
    """Report what stretches have found, in the order of the steps, as one machine would have.

    Args:
      found: Steps and what `plain` returned of them.
      findings: Gets it.

    Raises:
      UserError: see `Findings`.

    Example:
      >>> replay([((0, 2), [vars(Found(0, "second"))]), ((0, 1), [vars(Found(0, "first"))])],
      ...        said := Findings())
      >>> said.warnings
      ['first.', 'second.']
    """
    for _, each in sorted(found, key=lambda pair: tuple(pair[0])):
        for values in each:
            Found(**values).report(findings)
