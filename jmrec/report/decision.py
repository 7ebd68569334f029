"""What the results say to do: which row to serve, and how sure that is.

Validation chooses, test only confirms. So the row that is spoken of is the served one, which
validation chose or a person named, never the best of the test figures; and where the test split
speaks against it, what is advised is the rule that validation prefers.
"""

import math
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from jmrec.evaluation.results import (
    BEST,
    FROZEN,
    LEARNED,
    MIX,
    MODEL,
    OWN,
    PLAIN,
    RULE,
    Cost,
    Results,
)
from jmrec.report.tables import (
    best_model,
    best_rule,
    by_name,
    figure,
    interval,
    is_number,
    percent,
    primary,
    primary_comparisons,
    role,
    section,
    signed,
)

WINS, RULE_WINS, NO_DIFFERENCE = "a model wins", "a rule wins", "no difference shown"
FEW_SEEDS, NOT_CONFIRMED, NOT_COMPARED = "too few seeds", "not confirmed", "not compared"
ONLY_RULES, NO_RULES, VALIDATION = "only rules", "no rules", "validation only"
"""The cases, of which a table is one."""
TOLD, SAME = ("above", "below"), "not told apart"
ENOUGH = 3
"""Seeds that a verdict on what is learned needs."""
EFFORT = {PLAIN: 0, "content": 1, "blend": 2, MIX: 4}
"""How much there is to build and to keep running for a row of a kind; 3 for any other."""
SEEDS = "--config.seeds=(0,1,2)"
HARDLY, SOME = 0.005, 0.02
"""Shares of the clicks on new items that are as good as none, and that are worth speaking of."""
WINDOWS = "compare the two on windows that nobody has looked at (jmrec run --origins=3)"
OUT = "served"
"""The folder that is named for the artefact."""


@dataclass(frozen=True)
class Apart:
    """A paired difference of two rows by the primary figure.

    Attributes:
      difference: The first less the second, a fraction.
      ends: Its 95 % interval.
      verdict: "above", "below" or "not told apart".
      few: Whether the interval excludes 0, and only seeds are missing for a verdict.
    """

    difference: float
    ends: tuple[float, float]
    verdict: str
    few: bool = False

    def turned(self) -> "Apart":
        """Return the second less the first."""
        verdict = {"above": "below", "below": "above"}.get(self.verdict, self.verdict)
        return Apart(-self.difference, (-self.ends[1], -self.ends[0]), verdict, self.few)

    @property
    def size(self) -> str:
        """By how much one is ahead: "7.80 points [6.10, 9.52]", never below 0."""
        low, high = self.ends if self.difference >= 0 else (-self.ends[1], -self.ends[0])
        return f"{100 * abs(self.difference):.2f} points {ends_of((low, high))}"

    @property
    def signed(self) -> str:
        """The difference with its sign and interval."""
        return f"{signed(self.difference)} points {ends_of(self.ends)}"


@dataclass(frozen=True)
class Decision:
    """What to do.

    Attributes:
      case: One of the cases above.
      headline: In a sentence or two.
      row: Which row to serve; None where the results do not carry any.
      command: What does so, or what is missing before anybody can decide.
      does: What the command is for.
    """

    case: str
    headline: str
    row: str | None = None
    command: str = ""
    does: str = ""


def ends_of(pair: Any) -> str:
    """Return an interval of fractions as "[−0.12, +1.40]" in points, "" where there is none.

    Example:
      >>> ends_of([-0.0012, 0.014]), ends_of(None)
      ('[−0.12, 1.40]', '')
    """
    if not interval(pair):
        return ""
    return "[" + ", ".join(f"{100 * x:.2f}".replace("-", "−") for x in pair) + "]"


def decide(results: Results, cost: Cost | None = None) -> Decision | None:
    """Return what the results say to do, None where they have no row to speak of.

    Args:
      results: The contents of results.json; every key may be missing.
      cost: The contents of cost.json, for the commands' workdir.

    Example:
      >>> rows = [{"name": "EASE", "kind": "rule"}]
      >>> kinds = [{"name": "rule", "role": "rule", "title": "Rules"}]
      >>> decide({"rows": rows, "kinds": kinds, "best_rule": "EASE"}).headline
      'Only rules were measured on this data: serve EASE.'
    """
    chosen = _spoken_of(results)
    if chosen is None:
        return None
    if (own := _of_own(results)) is not None:
        return own
    if section(results, "dataset").get("split") == "validation":
        found = _on_validation(results, chosen)
    else:
        found = _by_role(results, chosen)
        if said := of_new_items(results, found.row):
            found = replace(found, headline=f"{found.headline} But {said}")
    return _with_command(results, found, cost)


def apart(results: Results, a: str | None, b: str | None) -> Apart | None:
    """Return the paired difference of two rows, whichever way round it was compared."""
    for each in primary_comparisons(results):
        sides = each.get("a"), each.get("b")
        if sides not in ((a, b), (b, a)) or not interval(each.get("interval")):
            continue
        if not is_number(each.get("difference")):
            continue
        low, high = each["interval"]
        verdict = str(each.get("verdict"))
        verdict = verdict if verdict in TOLD else SAME
        found = Apart(each["difference"], (low, high), verdict, bool(each.get("reason")))
        return found if sides == (a, b) else found.turned()
    return None


def _spoken_of(results: Results) -> str | None:
    """Return the row that validation chose or somebody named; without one the best model."""
    rows = by_name(results)
    own = (section(results, "pairs").get("chosen") or {}).get("model")  # by validation
    named = section(results, "served").get("row")
    for name in (named, own, best_model(results), best_rule(results)):
        if name in rows:
            return str(name)
    return None


def _by_role(results: Results, chosen: str) -> Decision:
    rows, rule = by_name(results), best_rule(results)
    if role(results, rows[chosen]) == RULE:
        other = rival_model(results)
        if other is None:
            said = f"Only rules were measured on {_shop(results)}: serve {chosen}."
            return Decision(ONLY_RULES, said, chosen)
        return _rule_served(results, chosen, other)
    if rule is None or rule not in rows:
        said = f"No rule stands beside {chosen} on {_shop(results)}, so nothing says whether"
        return Decision(NO_RULES, f"{said} training pays.", chosen)
    return _model_served(results, chosen, rule)


def rival_model(results: Results) -> str | None:
    """Return the model that a served rule is seen beside: the best on validation, if one is."""
    rows, values = by_name(results), _on_choice(results)
    student = section(results, "served").get("student")
    if student in rows:
        return str(student)
    models = {name: value for name, value in values.items() if role(results, rows[name]) == MODEL}
    return max(models, key=lambda name: models[name]) if models else best_model(results)


def preferred_rule(results: Results) -> str | None:
    """Return the rule that is best on validation; of this table where nothing is known of that."""
    rows, values = by_name(results), _on_choice(results)
    rules = {name: value for name, value in values.items() if role(results, rows[name]) == RULE}
    best = max(rules, key=lambda name: rules[name]) if rules else best_rule(results)
    return best if best in rows else None


def _on_choice(results: Results) -> dict[str, float]:
    """Return the figure on validation of the rows of which it is known."""
    values: Any = (section(results, "served").get("choice") or {}).get("validation") or {}
    rows = by_name(results)
    return {name: each for name, each in values.items() if is_number(each) and name in rows}


def _model_served(results: Results, chosen: str, rule: str) -> Decision:
    """Decide where something trained is served; ``rule`` is the best of test: the hardest."""
    found, safe = apart(results, chosen, rule), preferred_rule(results) or rule
    shop, metric = _shop(results), primary(results)["metric"]
    best = f"the best rule, {rule}"
    if found is None:
        said = f"{chosen} and {best}, were not compared on {shop}: nothing is decided."
        return Decision(NOT_COMPARED, said, chosen)
    # What was open to choose before test was read: the served row, and the rule of validation.
    plain = apart(results, chosen, safe) if safe != rule else None
    over = ""
    if plain is not None and plain.verdict == "above":
        over = f"{chosen} wins by {plain.size} of {metric} over {safe}, the best rule on validation"
    free = f"serve {safe}, which needs no training{_by_choice(results, safe)}"
    if found.few:
        ahead, behind = (chosen, best) if found.difference > 0 else (f"{best},", chosen)
        said = f"{_seeds(results, chosen)} so far, so nothing is claimed: on {shop} {ahead} is "
        said += f"{found.size} of {metric} ahead of {behind}. Train {ENOUGH} seeds ({SEEDS}) to "
        said += f"know; until then {free}."
        return Decision(FEW_SEEDS, said, safe)
    if found.verdict == "above":
        said = f"On {shop} {chosen} wins by {found.size} of {metric}"
        said += f"{_values(results, chosen, rule)} over {best}: serve it{_or(results, chosen)}."
        return Decision(WINS, said, chosen)
    if found.verdict == "below" and over:
        said = f"On {shop} {over}. But of test the best rule is {rule}, {found.size} above it: "
        return Decision(NOT_CONFIRMED, f"{said}serve {chosen}, and {WINDOWS}.", chosen)
    if found.verdict == "below":
        lost = f"{best}, is {found.size} of {metric}{_values(results, rule, chosen)} above"
        if _chosen_by_validation(results):
            said = f"Validation chose {chosen}, and test does not confirm it: on {shop} {lost} it"
            return Decision(NOT_CONFIRMED, f"{said}. {free[0].upper()}{free[1:]}.", safe)
        return Decision(RULE_WINS, f"On {shop} {lost} {chosen}: {free}.", safe)
    if over:
        said = f"On {shop} {over}: serve it. The best rule of test, {rule}, can not be told from it"
        return Decision(WINS, f"{said} ({found.signed}).", chosen)
    said = f"No difference is shown on {shop} between {chosen} and {best} ({found.signed} of "
    said += f"{metric}): {free}{_more_seeds(results, chosen)}."
    return Decision(NO_DIFFERENCE, said, safe)


def _rule_served(results: Results, chosen: str, other: str) -> Decision:
    """Decide where a rule is served and something trained stands beside it."""
    found, shop, metric = apart(results, chosen, other), _shop(results), primary(results)["metric"]
    free = f"serve {chosen}, which needs no training"
    if found is None:
        said = f"{chosen} and {other} were not compared on {shop}: nothing tells whether training "
        return Decision(NOT_COMPARED, f"{said}pays. Until something does, {free}.", chosen)
    if found.few:
        ahead, behind = (chosen, other) if found.difference > 0 else (other, chosen)
        said = f"{_seeds(results, other)} of {other} so far, so nothing is claimed: on {shop} "
        said += f"{ahead} is {found.size} of {metric} ahead of {behind}. Train {ENOUGH} seeds "
        return Decision(FEW_SEEDS, f"{said}({SEEDS}) to know; until then {free}.", chosen)
    if found.verdict == "above":
        said = f"On {shop} {chosen} wins by {found.size} of {metric}"
        said += f"{_values(results, chosen, other)} over {_title(results, other)}, {other}: serve "
        return Decision(RULE_WINS, f"{said}it{_or(results, chosen)}.", chosen)
    if found.verdict == "below":
        by = "Validation chose" if _chosen_by_validation(results) else "evaluate.serve names"
        said = f"{by} {chosen}, and test does not confirm it: on {shop} {other} is {found.size} of "
        said += f"{metric}{_values(results, other, chosen)} above it. Test is there to confirm and "
        said += f"not to choose: serve {chosen}, and {WINDOWS}."
        return Decision(NOT_CONFIRMED, said, chosen)
    said = f"No difference is shown on {shop} between {chosen} and {other} ({found.signed} of "
    said += f"{metric}): {free}{_more_seeds(results, other)}."
    return Decision(NO_DIFFERENCE, said, chosen)


def _of_own(results: Results) -> Decision | None:
    """Say how a ranker of somebody's own does beside the best rule; there is no command for it."""
    own = next((name for name, row in by_name(results).items() if row.get("kind") == OWN), None)
    rule = best_rule(results)
    found = None if own is None or rule is None else apart(results, own, rule)
    if own is None or found is None:
        return None
    split, metric = section(results, "dataset").get("split"), primary(results)["metric"]
    beside = f"the best rule on {split} of {_shop(results)}, {rule}"
    if found.few:
        said = f"{_seeds(results, own)}, so nothing is claimed: {own} less {beside}, is "
        return Decision(FEW_SEEDS, f"{said}{found.signed} of {metric}. Judge {ENOUGH} seeds.", None)
    if found.verdict == SAME:
        said = f"No difference is shown between {own} and {beside} ({found.signed} of {metric})."
        return Decision(NO_DIFFERENCE, said, None)
    said = f"{own} is {found.size} of {metric} {found.verdict} {beside}."
    if found.verdict == "below":
        return Decision(RULE_WINS, said, None)
    if split == "validation":
        said += ' If you chose anything by that figure, judge it once on split="test", at the end.'
    return Decision(WINS, said, None)


def _on_validation(results: Results, chosen: str) -> Decision:
    """Say what a table of validation carries: a choice, which test has to confirm."""
    value, metric = figure(results, by_name(results)[chosen]), primary(results)["metric"]
    reaches = "" if value == -math.inf else f", with {metric} {100 * value:.2f} %"
    by = "Validation chooses" if _chosen_by_validation(results) else "These settings would serve"
    said = f"{by} {chosen} on {_shop(results)}{reaches}. These are the figures on which settings "
    return Decision(VALIDATION, f"{said}were chosen: confirm it on test before you serve it.")


def of_new_items(results: Results, name: str | None) -> str:
    """Return a sentence where a row never shows what nobody has clicked, and something else does.

    Args:
      results: The contents of results.json; every key may be missing.
      name: A row that is served, or might be.

    Returns:
      "" where it shows new items, or nothing does, or nothing is known of it.
    """
    rows = by_name(results)
    shown = {
        each: row["cold"]["HR@20"]
        for each, row in rows.items()
        if is_number((row.get("cold") or {}).get("HR@20"))
        and row.get("counts", FROZEN) == FROZEN
        and role(results, row) in (RULE, MODEL)
    }
    if name not in shown or shown[name] >= HARDLY:
        return ""
    # Test is there to confirm, so that it is not asked which other row: what is served, or else the
    # best of validation.
    values, served = _on_choice(results), section(results, "served")
    known = [served.get("row"), served.get("student"), *sorted(values, key=lambda x: -values[x])]
    other = next((each for each in known if shown.get(str(each), 0.0) >= SOME), None)
    if other is None:
        return ""
    return (
        f"{name} hardly ever shows an item that training has not seen: of "
        f"{rows[name]['cold']['n']:,} clicks on such items its first 20 hold "
        f"{percent(shown[name], 1)} %, those of {other} {percent(shown[other], 1)} %. Where new "
        f"items matter, serve that (--row {shlex.quote(other)})."
    )


def _with_command(results: Results, found: Decision, cost: Cost | None) -> Decision:
    """Add what is typed next."""
    home = shlex.quote(_workdir(results, cost))
    if found.case == VALIDATION:
        command = f"jmrec evaluate --workdir {home} --split=test"
        return replace(found, command=command, does="To confirm it")
    if found.row is None or by_name(results)[found.row].get("counts", FROZEN) != FROZEN:
        return found
    command = f"jmrec export --workdir {home} --out {OUT}"
    does, own = f"To serve {found.row}", section(results, "served").get("row")
    if found.row != own:
        command += f" --row {shlex.quote(found.row)}"
        does += f" (without --row it is {own})" if own else ""
    return replace(found, command=command, does=does)


def _workdir(results: Results, cost: Cost | None) -> str:
    """Return the run's folder as its own command names it, "RUN" where that is not known."""
    try:
        words = shlex.split(str(section(cost or {}, "commands").get("run", "")))
    except ValueError:
        words = []
    home = "RUN"
    for word, after in zip(words, [*words[1:], ""]):
        if word == "--workdir" and after:
            home = after
        elif word.startswith("--workdir="):
            home = word.removeprefix("--workdir=")
    found: Any = section(results, "over_time")
    # Windows pooled: the newest is a run of its own.
    return f"{home}/back-0" if found and "predictions" not in found else home


def _or(results: Results, chosen: str) -> str:
    """Return ", or X, ..." for what nobody can tell from the winner, the least effort first.

    Beside a model that wins stand only those that win too.
    """
    same, rows, rule = [], by_name(results), best_rule(results)
    model = role(results, rows[chosen]) == MODEL
    for name, row in rows.items():
        if name == chosen or role(results, row) != MODEL or row.get("counts", FROZEN) != FROZEN:
            continue
        found, wins = apart(results, name, chosen), apart(results, name, rule)
        if found is None or found.few or found.verdict != SAME:
            continue
        if not model or (wins is not None and wins.verdict == "above"):
            same.append((_effort(row), name, found))
    if not same:
        return ""
    _, least, found = min(same, key=lambda each: each[0])
    return f", or {least}, which can not be told from it ({found.signed})"


def _values(results: Results, a: str, b: str) -> str:
    """Return the two figures in percent, as " (6.21 % against 6.00 %)"."""
    rows = by_name(results)
    both = [figure(results, rows[name]) for name in (a, b)]
    if not all(map(math.isfinite, both)):
        return ""
    return f" ({100 * both[0]:.2f} % against {100 * both[1]:.2f} %)"


def _effort(row: Any) -> int:
    return EFFORT.get(str(row.get("kind")), 3)


def _shop(results: Results) -> str:
    return str(section(results, "dataset").get("name") or "this data")


def _title(results: Results, name: str) -> str:
    """Return what a model beside a served rule is."""
    return "the best model on validation" if name in _on_choice(results) else "the best model"


def _chosen_by_validation(results: Results) -> bool:
    choice: Any = section(results, "served").get("choice") or {}
    return choice.get("wanted") == BEST


def _by_choice(results: Results, name: str) -> str:
    """Return by what a rule is the best, where that is known."""
    values = {
        each: value for each, value in _on_choice(results).items()
        if role(results, by_name(results)[each]) == RULE
    }  # fmt: skip
    best = bool(values) and name == max(values, key=lambda each: values[each])
    return ", and is the best rule on validation" if best else ""


def _seeds(results: Results, name: str) -> str:
    """Return how many seeds a row has: "One seed"."""
    seeds: Any = by_name(results)[name].get("seeds", 1)
    return {1: "One seed", 2: "Two seeds"}.get(seeds, f"{seeds} seeds")


def _more_seeds(results: Results, *names: str) -> str:
    """Return that more seeds may show a difference, where there are few."""
    few = [
        name for name in _learned(results, names)
        if is_number(by_name(results)[name].get("seeds", 1))
        and by_name(results)[name].get("seeds", 1) < ENOUGH
    ]  # fmt: skip
    if not few:
        return ""
    seeds = _seeds(results, few[0]).lower()
    return f". {few[0]} has {seeds}; {ENOUGH} may show one"


def _learned(results: Results, names: Iterable[str]) -> list[str]:
    return [name for name in names if role(results, by_name(results)[name]) in LEARNED]
