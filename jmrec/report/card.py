"""The model card of a serving artefact: a README.md from results.json and what was exported.

The same run gives the same bytes: no time, no path and nothing measured on a machine is in it. What
comes from data is cleaned, so that a name can be no heading, link or picture.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jmrec.evaluation.results import FIGURES, LEARNED, LOG_LOSS, PAIR, RULE, Results, spoken
from jmrec.report.decision import apart, decide, rival_model
from jmrec.report.serving import kept_sentences
from jmrec.report.tables import (
    MISSING,
    best_rule,
    by_name,
    counted,
    interval,
    is_number,
    percent,
    primary,
    role,
    section,
    verdict_words,
)
from jmrec.terminal import clean

LONGEST = 200
"""Characters of a text of the data that are shown."""
NO_LICENCE = "none stated: ask its makers before you use it"
SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~!$&])")


@dataclass(frozen=True)
class Weights:
    """Pretrained weights that had a part in an artefact: what they read, where they are from."""

    part: str
    source: str
    licence: str = ""
    sha256: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class About:
    """What is known of an artefact besides the results of its run.

    Attributes:
      row: The row that is served.
      answers: For what it recommends: "sessions of items" or "users".
      provenance: As in ``serve.json``.
      policy: "allow" (None for all), "block" and "pin": lists of ids.
      files: Name -> what is in it.
      foreign: Whether it reads features of items that somebody else's program made.
      weights: The pretrained weights by which the items were read.
    """

    row: str
    answers: str
    provenance: Mapping[str, Any]
    policy: Mapping[str, Sequence[str] | None]
    files: Mapping[str, str]
    foreign: bool = False
    weights: Sequence[Weights] = ()


def escaped(text: Any) -> str:
    r"""Return a text as Markdown that is this text and nothing else, on one line.

    Example:
      >>> print(escaped("a *b* [c](http://d)\n# <e>"))
      a \*b\* \[c\](http:\//d) \# \<e\>
    """
    line = " ".join(clean(str(text)).split())
    line = line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"
    line = SPECIAL.sub(r"\\\1", line).replace("://", r":\//")
    return re.sub(r"(?i)\bwww\.", r"www\\.", line)


def weights_in(provenance: Any, part: str = "") -> Iterator[Weights]:
    """Yield the pretrained weights that a provenance names, however deep; texts may be JSON.

    Args:
      provenance: Of features: mappings that name a "source" are weights.
      part: What they read.
    """
    if isinstance(provenance, str):
        try:
            found = json.loads(provenance)
        except ValueError:  # a text that is no JSON names no weights
            return
        if isinstance(found, Mapping):
            yield from weights_in(found, part)
    elif isinstance(provenance, Mapping):
        if isinstance(provenance.get("source"), str):
            sums = provenance.get("sha256")
            yield Weights(
                part=part,
                source=provenance["source"],
                licence=str(provenance.get("licence") or ""),
                sha256=sums if isinstance(sums, Mapping) else {},
            )
            return
        for name in sorted(provenance):
            yield from weights_in(provenance[name], str(name))


def model_card(results: Results | None, about: About) -> str:
    """Return the README.md of an artefact.

    Args:
      results: Of the run's own evaluation; None where it was not evaluated.
      about: What was exported.
    """
    dataset = about.provenance.get("dataset", "")
    parts = [f"# {escaped(about.row)}, trained and judged on {escaped(dataset)}", _what(about)]
    if results is None:
        parts.append("## Figures\n\nThe run was not evaluated, so nothing is known of its quality.")
    else:
        parts += [_data(results, about), _protocol(results), _figures(results, about.row)]
    parts += [_limits(results, about), _licences(about), _files(about)]
    return "\n\n".join(parts) + "\n"


def _what(about: About) -> str:
    asked = "one user" if about.answers == "users" else "one anonymous session"
    example = "--user USER" if about.answers == "users" else "--items A,B,C"
    why = about.provenance.get("why")
    version = escaped(about.provenance.get("jmrec", ""))
    return (
        f"A serving artefact of jmrec {version}: it recommends items of one catalogue for {asked}. "
        f"{escaped_long(why or '')}\n\n"
        f"```bash\njmrec recommend --serve FOLDER {example} --top 10\n"
        "jmrec serve FOLDER --port 8000\n```"
    )


def _data(results: Results, about: About) -> str:
    head = section(results, "dataset")
    lines = [("Name", escaped(head.get("name", MISSING)))]
    lines += [("Fingerprint", escaped(about.provenance.get("fingerprint", MISSING)))]
    lines += [("Items of the catalogue", counted(head.get("items")))]
    for name in ("sessions", "rows"):
        found: Any = head.get(name) or {}
        if found:
            shown = ", ".join(f"{counted(n)} {escaped(split)}" for split, n in found.items())
            lines.append((name.capitalize(), shown))
    if head.get("label means"):
        lines.append(("A positive means", escaped(head["label means"])))
    return "## Data\n\n" + _table(("", ""), lines)


def _protocol(results: Results) -> str:
    reads: Any = results.get("test_reads")
    times = {1: "once"}.get(reads, f"{reads} times")
    said = f" Test was read {times} in this workdir." if is_number(reads) else ""
    return f"## Protocol\n\n{escaped_long(results.get('caption', ''))}{said}"


def escaped_long(text: str) -> str:
    """Return a paragraph as Markdown: `escaped`, however long."""
    return " ".join(escaped(word) for word in clean(str(text)).split())


def _figures(results: Results, name: str) -> str:
    """Return the served row beside the best rule, with intervals, and what follows."""
    rows, judge, split = by_name(results), primary(results), section(results, "dataset")
    shown = [each for each in dict.fromkeys([name, _other(results, name)]) if each in rows]
    if name not in rows:
        return f"## Figures\n\n{escaped(name)} is no row of the run's table of results."
    figures = {figure: what for figure, what in FIGURES.items() if _has(rows[name], figure)}
    if judge["figure"] == PAIR:
        figures = {PAIR: "over rows of a user and an item"}
    lines = []
    for figure, what in figures.items():
        for metric in _metrics(rows[name], figure, judge["metric"]):
            cells = [
                _value(metric, (rows[each].get("figures") or {}).get(figure, {}).get(metric),
                       (rows[each].get("interval") or {}).get(figure, {}).get(metric))
                for each in shown
            ]  # fmt: skip
            lines.append((f"{metric}, {what}", *cells))
    table = _table(("in %, with 95 % intervals", *map(escaped, shown)), lines)
    parts = [f"## Figures\n\nOf the {escaped(split.get('split', 'test'))} split.\n\n{table}"]
    if len(shown) == 2 and (found := apart(results, *shown)) is not None:
        words = verdict_words(
            {"verdict": found.verdict, **({"reason": "few"} if found.few else {})}
        )
        parts.append(
            f"{escaped(shown[0])} less {escaped(shown[1])}, {spoken(judge)}, paired: "
            f"{found.signed.replace('[', '(').replace(']', ')')}: {words}."
        )
    if name == section(results, "served").get("row") and (said := decide(results)) is not None:
        parts.append(escaped_long(said.headline))
    return "\n\n".join(parts)


def _other(results: Results, name: str) -> str | None:
    """Return what a row is to be seen beside: the best rule, of that rule the best model."""
    rule = best_rule(results)
    return rule if rule != name else rival_model(results)


def _has(row: Mapping[str, Any], figure: str) -> bool:
    return bool((row.get("figures") or {}).get(figure))


def _metrics(row: Mapping[str, Any], figure: str, judged: str) -> list[str]:
    """Return the metric by which is judged, and all others that have an interval."""
    found = ((row.get("interval") or {}).get(figure) or {}).keys()
    return list(dict.fromkeys([judged, *sorted(found)]))


def _value(metric: str, value: Any, ends: Any) -> str:
    if metric == LOG_LOSS and is_number(value):
        around = f" ({ends[0]:.3f}–{ends[1]:.3f})" if interval(ends) else ""
        return f"{value:.4f} nats{around}"
    around = f" ({interval(ends)})" if interval(ends) else ""
    return f"{percent(value)}{around}"


def _limits(results: Results | None, about: About) -> str:
    said = [
        "Figures are of what people did in the past, judged offline: who is shown these lists may "
        "act otherwise, and nothing here says what they sell.",
        "It knows one catalogue; items that came later are unknown until they are added.",
    ]
    row = by_name(results).get(about.row) if results else None
    what = role(results, row) if results and row else ""
    if row and what in LEARNED:
        seeds = row.get("seeds", 1)
        seed = about.provenance.get("seed")
        which = f" This artefact holds one of them, seed {seed}." if is_number(seed) else ""
        many = "of one seed" if seeds == 1 else f"means over {counted(seeds)} seeds"
        said.append(f"The figures are {many} of training.{which if seeds != 1 else ''}")
        if is_number(seeds) and seeds < 3:
            said.append("With fewer than three seeds nothing is claimed of what was trained.")
    if results and section(results, "dataset").get("split") == "validation":
        said.append("The figures are of validation, on which settings were chosen: they flatter.")
    cold: Any = (row or {}).get("cold") or {}
    if is_number(cold.get("HR@20")) and is_number(cold.get("n")):
        said.append(
            f"Of {counted(cold['n'])} targets that training never saw, its first 20 hold "
            f"{percent(cold['HR@20'], 1)} %."
        )
    said += kept_sentences(about.provenance.get("kept"))
    if about.provenance.get("added"):
        said.append(
            f"{counted(about.provenance['added'])} items were added after training; the figures "
            "are without them."
        )
    if what == RULE:
        said.append(
            "Sessions may be counted into it after it was exported (jmrec remember); the figures "
            "are those of the export."
        )
    lists = {name: about.policy.get(name) for name in ("allow", "block", "pin")}
    if lists["allow"] is not None or lists["block"] or lists["pin"]:
        allowed = "all" if lists["allow"] is None else f"{len(lists['allow']):,}"
        said.append(
            f"People have corrected it: {allowed} items allowed, {len(lists['block'] or ()):,} "
            f"blocked, {len(lists['pin'] or ()):,} pinned. The figures are without that."
        )
    return "## Limits\n\n" + "\n".join(f"- {each}" for each in said)


def _licences(about: About) -> str:
    if not about.weights:
        said = "No pretrained weights had a part in it."
        if about.foreign:
            said = "Its features of items were made elsewhere: ask there what they were made with."
        return f"## Pretrained weights\n\n{said}"
    lines = []
    for each in about.weights:
        sums = ", ".join(f"{name} {value[:16]}" for name, value in sorted(each.sha256.items()))
        lines.append(
            (escaped(each.part), escaped(each.source), escaped(each.licence or NO_LICENCE),
             escaped(sums or MISSING))
        )  # fmt: skip
    heads = ("for", "source", "licence", "SHA-256 begins with")
    return "## Pretrained weights\n\n" + _table(heads, lines)


def _files(about: About) -> str:
    lines = [(f"`{name}`", what) for name, what in sorted(about.files.items())]
    return "## Files\n\n" + _table(("file", "what is in it"), lines)


def _table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [heads, ["---"] * len(heads), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
