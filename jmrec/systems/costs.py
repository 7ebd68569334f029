"""What the stages of a run are and cost, and what made them, for its results and its report."""

import os
import platform
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import jax

import jmrec
from jmrec.evaluation.results import Cost, StageCost, StageFacts, make_cost
from jmrec.evaluation.shares import ranked_by_each
from jmrec.files import read_json
from jmrec.systems.sealed import read_stage
from jmrec.usage import watch

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")
"""Whose versions are noted."""
PATIENCE = 10
"""Seconds that git is waited for."""


def cost_of(workdir: Path, names: Sequence[str], command: Sequence[str] = ()) -> Cost:
    """Return the cost.json of an evaluation: what the stages cost, and what made the results.

    Args:
      workdir: The run's folder.
      names: Its stages before the evaluation.
      command: The command line by which the run was made, if it is known.
    """
    cost = make_cost(cost_by_stage(workdir, names), {"run": " ".join(command)} if command else {})
    cost["made"] = made()
    return cost


@contextmanager
def evaluation_cost() -> Iterator[StageCost]:
    """Measure the block: seconds, the bytes that the process held at most, and who ranked what.

    All processes come here.

    Yields:
      A dict that is filled when the block ends.
    """
    entry, started = StageCost(), time.monotonic()
    with ranked_by_each() as ranked, watch() as peak:
        yield entry
    entry["seconds"], entry["peak_memory"] = round(time.monotonic() - started, 2), peak.bytes
    if ranked:
        entry["ranked"] = ranked


def made() -> dict[str, str]:
    """Return when, by which versions and on which machine something is made, in words.

    What is not known is left out; no name of a machine or of a person is in it.

    Example:
      >>> {"date", "versions", "devices", "system"} <= made().keys()
      True
    """
    versions = {"jmrec": jmrec.__version__, "Python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:  # vendored: then nobody knows
            continue
    kinds = Counter(each.device_kind for each in jax.devices())
    found = {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "commit": _commit(Path(jmrec.__file__).parents[1]),
        "versions": ", ".join(f"{name} {each}" for name, each in versions.items()),
        "devices": ", ".join(
            name if count == 1 else f"{count} x {name}" for name, count in kinds.items()
        ),
        "processor": _processor(),
        "system": f"{platform.system()} {platform.machine()}",
    }
    return {name: each for name, each in found.items() if each}


def _commit(root: Path) -> str:
    """Return the commit of a checkout, "" where it is none, or where git does not say."""
    if not (root / ".git").exists():
        return ""
    words = [
        "git",
        "-C",
        str(root),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=12",
        "--exclude=*",
    ]
    try:
        found = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return found.stdout.strip().replace("-dirty", ", with changes that are in no commit")


def _processor() -> str:
    """Return the processor, the cores that may be used, and the memory."""
    name = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = (line.partition(":") for line in info.read_text(errors="replace").splitlines())
        name = next((value.strip() for key, _, value in lines if key.strip() == "model name"), name)
    parts = [name] if name else []
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
        parts.append(f"{cores} core{'' if cores == 1 else 's'} to use")
    if {"SC_PHYS_PAGES", "SC_PAGE_SIZE"} <= os.sysconf_names.keys():
        bytes_ = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        parts.append(f"{bytes_ / 2**30:.0f} GiB of memory")
    return ", ".join(parts)


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
