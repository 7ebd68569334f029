"""What the report says in words: no more than the paired comparison carries."""

import math
from collections.abc import Mapping
from typing import Any

from jmrec.evaluation.results import (
    AMONG_COLD,
    BOUND,
    COVERAGE,
    LIVE,
    MODEL,
    OWN,
    POPULARITY,
    RULE,
    TEACHER,
    WEEKLY,
    Cost,
    Results,
)
from jmrec.report.serving import serving_sentences, why_served
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
    primary_interval,
    role,
    shown_student,
    signed,
    verdict_words,
)
from jmrec.report.value import value_sentences


def sentences(results: Results, cost: Cost | None = None) -> list[str]:
    """Return the result in words, the verdict first.

    Args:
      results: The contents of results.json; every key may be missing.
      cost: The contents of cost.json.

    Returns:
      Sentences that claim no more than the paired comparison carries.
    """
    rows, judge = by_name(results), primary(results)["metric"]
    rule, model = best_rule(results), best_model(results)
    said = []
    if model and rule and rule in rows:
        said += verdict(results, rows[model], rows[rule])
    elif rule and rule in rows:
        value = percent(figure(results, rows[rule]))
        said.append(f"No model was evaluated; the best rule is {rule} with {judge} {value} %.")
    elif model:
        value = percent(figure(results, rows[model]))
        said.append(f"The best model is {model} with {judge} {value} %; no rule is beside it.")
    bounds = [row for row in rows.values() if role(results, row) == BOUND]
    most = figure(results, bounds[0]) if bounds else 0.0
    if model and most > 0 and figure(results, rows[model]) > -math.inf:
        share = 100 * figure(results, rows[model]) / most
        said.append(
            f"The {bounds[0]['name']}, which knows how the data was made, reaches {judge} "
            f"{percent(most)} %; {model} reaches {share:.0f} % of that."
        )
    said += [*_weekly_sentences(results), *_live_sentences(results, model)]
    said += _cold_sentence(results, model)
    said += value_sentences(results)
    said += filter(None, [why_served(results)])
    said += serving_sentences(results, cost)
    dataset = results.get("dataset") or {}
    reads = results.get("test_reads")
    if dataset.get("split") == "validation":
        said.append("These are figures of the validation split, on which settings were chosen.")
    elif reads is not None:
        times = "once" if reads == 1 else f"{reads} times"
        said.append(f"The test split was read {times} in this workdir.")
    return said


def tiles(results: Results) -> list[tuple[str, str, str]]:
    """Return the figures to be seen first: (what it is of, figure, what stands below it)."""
    rows, judge = by_name(results), primary(results)["metric"]
    shown = []
    for what, name in (("best model", best_model(results)), ("best rule", best_rule(results))):
        if name in rows and figure(results, rows[name]) > -math.inf:
            found = primary_interval(results, rows[name])
            ends = f", {interval(found)}" if interval(found) else ""
            value = f"{percent(figure(results, rows[name]))} %"
            shown.append((f"{judge}, {what}", value, f"{name}{ends}"))
    pair = (best_model(results), best_rule(results))
    for each in primary_comparisons(results):
        if (each.get("a"), each.get("b")) == pair and interval(each.get("interval")):
            low, high = each["interval"]
            note = f"{verdict_words(each)}, {signed(low)} to {signed(high)}"
            shown.append(("model less rule, points", signed(each.get("difference")), note))
    cold = ((rows.get(str(pair[0])) or {}).get("cold") or {}).get(AMONG_COLD)
    if is_number(cold):
        shown.append((f"{AMONG_COLD} items", f"{percent(cold, 1)} %", str(pair[0])))
    return shown


def bias_sentence(results: Results) -> str:
    """Say what a student and its teacher recommend, "" where one of the two is not known."""
    rows = by_name(results)
    teachers = [row for row in rows.values() if role(results, row) == TEACHER and row.get("bias")]
    model = rows.get(str(shown_student(results))) or {}
    if not teachers or not model.get("bias") or model["name"] == teachers[0]["name"]:
        return ""
    (mine, my_count), (its, its_count) = (
        [row["bias"].get(name) for name in (COVERAGE, POPULARITY)] for row in (model, teachers[0])
    )
    if not all(map(is_number, (mine, my_count, its, its_count))):
        return ""
    return (
        f"{model['name']} puts {percent(mine, 0)} % of the catalogue into somebody's top 20, its "
        f"teacher {percent(its, 0)} %. What it recommends was clicked {my_count:.0f} times in "
        f"training on average, what its teacher recommends {its_count:.0f} times."
    )


def verdict(results: Results, model: Mapping[str, Any], rule: Mapping[str, Any]) -> list[str]:
    """Say whether the model is above the rule, by the paired comparison and nothing else."""
    mine, its = (percent(figure(results, row)) for row in (model, rule))
    against = f"{primary(results)['metric']} {mine} % against {its} %"
    model_name, rule_name = model["name"], rule["name"]
    found: tuple[Any, Any, Any] | None = None
    reason = None
    for each in primary_comparisons(results):
        if (each.get("a"), each.get("b")) == (model_name, rule_name):
            found = (each.get("difference"), each.get("interval"), each.get("verdict"))
            reason = each.get("reason")
        elif (each.get("a"), each.get("b")) == (rule_name, model_name):
            low, high = each.get("interval") or (None, None)
            turned = {"above": "below", "below": "above"}.get(str(each.get("verdict")))
            found = (_minus(each.get("difference")), (_minus(high), _minus(low)), turned)
            reason = each.get("reason")
    if found is None or not interval(found[1]):
        return [
            f"The best model is {model_name}, the best rule {rule_name} ({against}); no paired "
            "comparison of the two was made, so neither is called better."
        ]
    difference, pair, verdict = found
    words = {
        "above": f"The best model, {model_name}, is above the best rule, {rule_name}",
        "below": f"The best model, {model_name}, does not beat the best rule, {rule_name}: "
        "it is below it",
    }.get(
        str(verdict),
        f"The best model, {model_name}, does not beat the best rule, {rule_name}: "
        "the two cannot be told apart",
    )
    if reason:  # the interval may exclude 0 all the same
        words = (
            f"Nothing is claimed of the best model, {model_name}, and the best rule, {rule_name}, "
            f"for there are {reason}"
        )
    said = [
        f"{words}: {against}, a paired difference of {signed(difference)} points "
        f"(95 % interval {signed(pair[0])} to {signed(pair[1])})."
    ]
    seeds = model.get("seeds", 1)
    if not reason and verdict == "above" and is_number(seeds) and seeds < 3:
        plural = "" if seeds == 1 else "s"
        said.append(f'This rests on {seeds} seed{plural}; "above" needs at least three.')
    return said


def _weekly_sentences(results: Results) -> list[str]:
    """Say what rows reach that are counted anew every Monday, beside what training left."""
    said = []
    for name, row in by_name(results).items():
        own = name.removesuffix(f", {WEEKLY}")
        if row.get("counts") == WEEKLY and (apart := _apart(results, name, own)):
            value = percent(figure(results, row))
            said.append(
                f"Counted anew every Monday, as by jmrec remember, {own} reaches "
                f"{primary(results)['metric']} {value} %, less itself as training left it: {apart}."
            )
    return said


def _live_sentences(results: Results, model: str | None) -> list[str]:
    """Say what the best rule reaches with live counts, and how models stand to it."""
    rows, live = by_name(results), results.get("best_live_rule")
    if live not in rows:
        return []
    judge, value = primary(results)["metric"], percent(figure(results, rows[str(live)]))
    said = f"Where rules count all that was before each prediction, the best is {live}: "
    said += f"{judge} {value} %"
    if apart := _apart(results, model, live):
        said += f"; {model}, which knows training alone, less this rule: {apart}"
    sentences = [f"{said}."]
    for name, row in rows.items():
        apart = _apart(results, name, live)
        if row.get("counts") == LIVE and role(results, row) == MODEL and apart:
            own = percent(figure(results, row))
            sentences.append(f"{name} reaches {own} %; less the best live rule: {apart}.")
    return sentences


def _apart(results: Results, a: str | None, b: str | None) -> str:
    """Return by how much a row is above another, in words; "" where nobody compared them."""
    for each in primary_comparisons(results):
        if (each.get("a"), each.get("b")) == (a, b) and interval(each.get("interval")):
            low, high = each["interval"]
            said = f"95 % interval {signed(low)} to {signed(high)}"
            if reason := each.get("reason"):
                said += f"; nothing is claimed, for there are {reason}"
            return f"{signed(each.get('difference'))} points ({said})"
    return ""


def _cold_sentence(results: Results, model: str | None) -> list[str]:
    """Compare the model on cold targets with the best rule on them."""
    rows = by_name(results)
    cold = {
        name: row["cold"][AMONG_COLD]
        for name, row in rows.items()
        if row.get("cold") and is_number(row["cold"].get(AMONG_COLD))
    }
    if model is None or model not in cold:
        return []
    said = f"Among cold items only, {model} finds {percent(cold[model], 1)} % in its top 20"
    rules = [each for each in cold if role(results, rows[each]) == RULE]
    if rules:
        best = max(rules, key=lambda each: cold[each])
        # Beside a ranker of somebody's own stands one rule alone, which is the best of all items.
        alone = rows[model].get("kind") == OWN
        which = best if alone else f"the best rule there, {best},"
        said += f"; {which} finds {percent(cold[best], 1)} %"
        if alone:
            said += ", and a rule that reads items may find more (run.table())"
    return [said + "."]


def _minus(value: Any) -> Any:
    return -value if is_number(value) else None
