"""What the stages of a run are and cost, for its results and its report."""

from collections.abc import Sequence
from pathlib import Path

from jmrec.evaluation.results import StageCost, StageFacts
from jmrec.files import read_json
from jmrec.systems.stages import read_stage


def facts_by_stage(workdir: Path, names: Sequence[str]) -> dict[str, StageFacts]:
    """Return the group and seed of each stage that there is, for results.json."""
    every = {name: read_stage(workdir / name) for name in names}
    return {
        name: {"group": facts["group"], "seed": facts["seed"]}
        for name, facts in every.items()
        if facts is not None
    }


def cost_by_stage(workdir: Path, names: Sequence[str]) -> dict[str, StageCost]:
    """Return what each finished stage cost, for cost.json.

    Args:
      workdir: The run's folder.
      names: Stages, in the order of the report.

    Returns:
      Stage -> {"seconds", "peak_memory" in bytes of the first process (None where unknown), where
      something was trained "updates" and "flops", and of a stage that was taken from another run
      "made_by", that run: seconds and memory are what it cost there}.
    """
    found: dict[str, StageCost] = {}
    for name in names:
        facts = read_stage(workdir / name)
        if facts is None:
            continue
        entry: StageCost = {
            "seconds": float(facts["seconds"]),
            "peak_memory": facts.get("peak_memory"),
        }
        if "made_by" in facts:
            entry["made_by"] = facts["made_by"]
        trained = workdir / name / "metrics.json"
        if trained.is_file():
            metrics = read_json(trained)
            entry["updates"], entry["flops"] = metrics.get("step"), metrics.get("flops")
        found[name] = entry
    return found
