"""What the report says in words: no more than the paired comparison carries."""

import math
from collections.abc import Mapping
from typing import Any

from jmrec.evaluation.report_serving import serving_sentences
from jmrec.evaluation.report_tables import (
    PRIMARY,
    Results,
    best_model,
    best_rule,
    figure,
    interval,
    is_number,
    percent,
    served_student,
    signed,
)


def sentences(results: Results) -> list[str]:
    """Return the result in words, the verdict first.

    Args:
      results: The contents of results.json; every key may be missing.

    Returns:
      Sentences that claim no more than the paired comparison carries.
    """
    rows = {row.get("name"): row for row in results.get("rows") or []}
    rule, model = best_rule(results), best_model(results)
    said = []
    if model and rule and rule in rows:
        said += _verdict(results, rows[model], rows[rule])
    elif rule and rule in rows:
        value = percent(figure(rows[rule]))
        said.append(f"No model was evaluated; the best rule is {rule} with {PRIMARY} {value} %.")
    elif model:
        value = percent(figure(rows[model]))
        said.append(f"The best model is {model} with {PRIMARY} {value} %; no rule is beside it.")
    oracles = [row for row in rows.values() if row.get("kind") == "oracle"]
    if oracles and model and figure(oracles[0]) > 0 and figure(rows[model]) > -math.inf:
        share = 100 * figure(rows[model]) / figure(oracles[0])
        said.append(
            f"The oracle, which knows how the data was made, reaches {PRIMARY} "
            f"{percent(figure(oracles[0]))} %; {model} reaches {share:.0f} % of that."
        )
    said += _cold_sentence(rows, model)
    said += serving_sentences(results)
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
    rows = {row.get("name"): row for row in results.get("rows") or []}
    shown = []
    for what, name in (("best model", best_model(results)), ("best rule", best_rule(results))):
        if name in rows and figure(rows[name]) > -math.inf:
            found = ((rows[name].get("interval") or {}).get("session") or {}).get(PRIMARY)
            ends = f", {interval(found)}" if interval(found) else ""
            value = f"{percent(figure(rows[name]))} %"
            shown.append((f"{PRIMARY}, {what}", value, f"{name}{ends}"))
    pair = (best_model(results), best_rule(results))
    for each in results.get("comparisons") or []:
        right = each.get("figure") == "session" and each.get("metric") == PRIMARY
        if right and (each.get("a"), each.get("b")) == pair and interval(each.get("interval")):
            low, high = each["interval"]
            note = f"{each.get('verdict')}, {signed(low)} to {signed(high)}"
            shown.append(("model less rule, points", signed(each.get("difference")), note))
    name = "HR@20 among cold"
    cold = ((rows.get(pair[0]) or {}).get("cold") or {}).get(name)
    if is_number(cold):
        shown.append(("HR@20 among cold items", f"{percent(cold, 1)} %", str(pair[0])))
    return shown


def bias_sentence(results: Results) -> str:
    """Say what student and teacher recommend, "" where one of the two is not known."""
    rows = {row.get("name"): row for row in results.get("rows") or []}
    teachers = [row for row in rows.values() if row.get("kind") == "teacher" and row.get("bias")]
    model = rows.get(served_student(results)) or {}
    if not teachers or not model.get("bias") or model["name"] == teachers[0]["name"]:
        return ""
    (mine, my_count), (its, its_count) = (
        [row["bias"].get(name) for name in ("coverage@20", "mean training count@20")]
        for row in (model, teachers[0])
    )
    if not all(map(is_number, (mine, my_count, its, its_count))):
        return ""
    return (
        f"{model['name']} puts {percent(mine, 0)} % of the catalogue into somebody's top 20, its "
        f"teacher {percent(its, 0)} %. What it recommends was clicked {my_count:.0f} times in "
        f"training on average, what its teacher recommends {its_count:.0f} times."
    )


def _verdict(results: Results, model: Mapping[str, Any], rule: Mapping[str, Any]) -> list[str]:
    """Say whether the model is above the rule, by the paired comparison and nothing else."""
    against = f"{PRIMARY} {percent(figure(model))} % against {percent(figure(rule))} %"
    model_name, rule_name = model["name"], rule["name"]
    found = reason = None
    for each in results.get("comparisons") or []:
        right = each.get("figure", "session") == "session" and each.get("metric") == PRIMARY
        if right and (each.get("a"), each.get("b")) == (model_name, rule_name):
            found = (each.get("difference"), each.get("interval"), each.get("verdict"))
            reason = each.get("reason")
        elif right and (each.get("a"), each.get("b")) == (rule_name, model_name):
            low, high = each.get("interval") or (None, None)
            turned = {"above": "below", "below": "above"}.get(each.get("verdict"))
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


def _cold_sentence(rows: Mapping[Any, Mapping[str, Any]], model: str | None) -> list[str]:
    """Compare the model on cold targets with the best rule on them."""
    name = "HR@20 among cold"
    cold = {
        str(each): row["cold"][name]
        for each, row in rows.items()
        if row.get("cold") and is_number(row["cold"].get(name))
    }
    if model not in cold:
        return []
    said = f"Among cold items only, {model} finds {percent(cold[model], 1)} % in its top 20"
    rules = [each for each in cold if rows[each].get("kind") in ("rule", "content", "blend")]
    if rules:
        best = max(rules, key=lambda each: cold[each])
        said += f"; the best rule there, {best}, finds {percent(cold[best], 1)} %"
    return [said + "."]


def _minus(value: Any) -> Any:
    return -value if is_number(value) else None
