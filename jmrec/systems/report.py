"""The last stages of a run: rank everything on a split, then write the report.

Rules choose their settings on validation, rankers their cold offset; the split is read once, and
a reading of test is noted in ``test_reads.jsonl``.
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from jmrec.cluster.member import first, is_first
from jmrec.data.toyshop import Oracle
from jmrec.errors import UserError
from jmrec.evaluation.drift import over_time
from jmrec.evaluation.dump import dump_topk
from jmrec.evaluation.effect import correction_effect
from jmrec.evaluation.neural import shuffle_prefixes
from jmrec.evaluation.policy import Policy
from jmrec.evaluation.pool import units_of, write_units
from jmrec.evaluation.protocol import Ranker, ask
from jmrec.evaluation.report import print_results, write_report
from jmrec.evaluation.rules import fit_rules
from jmrec.evaluation.summary import Row, measure, summarise
from jmrec.files import write_json
from jmrec.systems.examples import examples, pictures_of
from jmrec.systems.stages import cost_by_stage
from jmrec.systems.tpad import Tpad
from jmrec.tracking import mend_lines, read_curves

UNITS = "units.npz"
"""Beside results.json: what pooled test windows are made of."""
CONTROLS = ("pictures permuted", "texts permuted")


def evaluate(
    system: Tpad,
    folder: Path,
    split: str,
    *,
    dump: Path | None = None,
    policy: Policy | None = None,
    by: str | None = None,
    command: Sequence[str] = (),
    stage: str = "",
) -> None:
    """Rank every rule, student and teacher of a run on a split; write results.json and the report.

    Args:
      system: A run whose training stages are done.
      folder: Where ``results.json`` and ``report.html`` go.
      split: "validation" or "test".
      dump: A folder for every row's recommendations, see `jmrec.evaluation.dump`.
      policy: Whose correction's effect on the served student is reported, or None.
      by: "week" or "month": report every row by calendar period too. None does not.
      command: What was typed, for the report.
      stage: The hash of the stage that this is, "" for none. A stage that was killed and is
        started again gives the same numbers: it reads test once.
    """
    config, dataset, tracker = system.config, system.dataset, system.tracker
    if by is not None and not dataset.has_time:
        raise UserError(f"{dataset.name} has no times, so there is no --by={by}; leave it out.")
    reads = first(lambda: _note_reading(system.workdir, split, stage))
    validation, predictions = ask(dataset, "validation"), ask(dataset, split)
    cold = ~system.train_items
    warm_loss = config.evaluate.get("warm_loss")
    rows: list[Row] = []

    def add(name: str, kind: str, rankers: Sequence[Ranker], shuffled: bool = False) -> None:
        asked = shuffle_prefixes(predictions, config.seed) if shuffled else predictions
        rows.append(
            measure(
                name, kind, rankers, asked, validation,
                n_items=len(dataset.items), exclude_seen=dataset.exclude_seen, cold=cold,
                warm_loss=warm_loss,
            )
        )  # fmt: skip
        if dump is not None and is_first():
            for seed, ranked in enumerate(rows[-1].ranked):
                safe = "".join(c if c.isalnum() else "-" for c in name)
                dump_topk(dump / f"{safe}-{seed}.npz", asked, ranked)

    variants, seeds = list(config.students), list(config.seeds)
    truth = system.workdir / "data" / "toyshop" / "truth.npz"
    total = 1 + len(variants) + len(CONTROLS) + 2
    with tracker.stage("evaluate").progress(total, f"evaluate on {split}") as bar:
        if truth.is_file():
            add("oracle", "oracle", [Oracle(truth)])
        features = {"Knowledge tower": system.e["both"]}
        for rule in fit_rules(dataset, validation, features=features):
            add(rule.name, getattr(rule, "kind", "rule"), [rule])
        bar.update(1)
        for name in variants:
            add(name, "student", [system.student_ranker(name, seed) for seed in seeds])
            bar.update(1)
        add("teacher", "teacher", [system.teacher_ranker()])
        bar.update(1)
        served = config.evaluate.serve
        own = [system.student_ranker(served, seed) for seed in seeds]
        add(f"{served}, order shuffled", "control", own, shuffled=True)
        bar.update(1)
        if config.students[served].view == "both" and config.students[served].features != "none":
            for shown in CONTROLS:
                rankers = [system.student_ranker(served, seed, shown) for seed in seeds]
                add(f"{served}, {shown}", "control", rankers)
                bar.update(1)

    effect = None
    if policy is not None:
        plain = next(row for row in rows if row.name == served)
        effect = correction_effect(plain, own, predictions, policy)
    # Parameters are read by all processes together, so that this stands before they part.
    why = examples(system, predictions)
    names = [row.name for row in rows]
    others = [*[n for n in variants if n != served], "teacher"]
    others += [name for name in names if name.startswith(f"{served}, ")]
    pairs = [(served, other) for other in others]
    # What another teacher gave.
    taught = [n for n in variants if n != served and config.students[n].logit > 0]
    pairs += [(n, "undistilled") for n in taught if "undistilled" in variants]
    curves = {
        name: curve for name, curve in read_curves(system.workdir).items() if "/" not in name
        or name.startswith(f"students/{served}-")
    }  # fmt: skip
    if not is_first():  # every process ranks, the first writes what came out
        return
    results = summarise(
        rows,
        predictions,
        dataset,
        split,
        pairs=pairs,
        warm_loss=warm_loss,
        test_reads=reads,
        commands={"run": " ".join(command)} if command else {},
        cost=cost_by_stage(system.workdir, [stage.name for stage in system.stages()]),
        curves=curves,
        policy=effect,
    )
    if by is not None:
        asked = dataset.splits[split]
        results["over_time"] = over_time(rows, predictions, asked.times[asked.offsets[:-1]], by)
    results["examples"] = why
    write_json(folder / "results.json", results)
    write_units(folder / UNITS, units_of(rows, predictions))
    pictures = pictures_of(dataset.items, results)
    write_report(results, folder / "report.html", pictures)
    print_results(results, Console())


def _note_reading(workdir: Path, split: str, stage: str = "") -> int:
    """Append a reading of test to test_reads.jsonl; return how many there are."""
    path = workdir / "test_reads.jsonl"
    mend_lines(path)
    lines = path.read_text().splitlines() if path.is_file() else []
    again = stage and any(json.loads(line).get("stage") == stage for line in lines)
    if split == "test" and not again:
        line = {"split": split, "time": datetime.now(UTC).isoformat(timespec="seconds")}
        lines.append(json.dumps({**line, "stage": stage} if stage else line))
        with path.open("a") as file:
            file.write(lines[-1] + "\n")
    return len(lines)
