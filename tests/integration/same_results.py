"""Say where the results of one run differ from those of another, made by an older jmrec or by this.

    python tests/integration/same_results.py OLD_WORKDIR NEW_WORKDIR [--tolerance T]

Every ``results.json`` of the old workdir is compared with the one at the same place in the new
one. What commit 4cbbd67 wrote (no "format") is first put into today's schema; seconds, memory and
what was typed, which stand in ``cost.json`` today, are left out. Prints each difference with its
path and exits with 1 where there is one. Kept until the next release.
"""

import argparse
import json
import math
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NEW_SECTIONS = ("format", "system", "primary", "kinds", "served", "stages")
"""What 4cbbd67 did not say at all."""
IN_COST = ("cost", "commands", "serving")


def translate(old: dict[str, Any]) -> dict[str, Any]:
    """Return a results.json of 4cbbd67 in today's schema, without what it did not say."""
    if "format" in old:
        return {name: each for name, each in old.items() if name not in NEW_SECTIONS}
    kept = {name: each for name, each in old.items() if name not in IN_COST}
    if "estimates" in kept:
        return _study(kept)
    for name in ("policy", "examples"):
        if kept.get(name):
            section = dict(kept[name])
            kept[name] = {"row": section.pop("student"), **section}
    return kept


def _study(old: dict[str, Any]) -> dict[str, Any]:
    """Return the results of a study of estimators, its seeds together in rows."""
    rows: dict[str, dict[str, Any]] = {}
    for each in old["estimates"]:
        name, nats, objective = each["name"], each["nats"], each["objective"]
        group = f"critics/{objective}-{nats:g}" if objective else ""
        settings = {"estimator": name, "nats": nats, "objective": objective, "group": group}
        row = rows.setdefault(
            f"{name} at {nats:g} nats",
            {"kind": each["kind"], "interval": {}, "settings": settings, "estimates": []},
        )
        own = ("seed", "mean", "error", "highest", "true")
        row["estimates"].append({part: each[part] for part in own})
    for name, row in rows.items():
        means = [each["mean"] for each in row["estimates"]]
        row |= {"name": name, "seeds": len(means)}
        row["figures"] = {"estimate": {"nats": sum(means) / len(means)}}
    found = old["settings"]
    found["train"].setdefault("updates_per_call", 1)  # there is a setting for it now
    caption = (
        f"Gaussians of {found['dimensions']} dimensions, {found['samples']:,} fresh pairs in "
        f"{found['batches']} batches of {found['batch_size']}: the mean of the batches' estimates "
        f"in nats, with its standard error. A {found['critic']['kind']} critic, "
        f"{found['train']['steps']:,} updates on pairs that never come twice."
    )
    return {
        "caption": caption,
        "dataset": {"name": "correlated Gaussians"},
        "rows": list(rows.values()),
        "comparisons": [],
        "best_rule": None,
        "test_reads": 0,
        "curves": old["curves"],
        "study": {**found, "closed_form": old["closed_form"]},
        "checks": old["checks"],
    }


def differences(old: Any, new: Any, tolerance: float = 0.0, path: str = "") -> Iterator[str]:
    """Yield a line for each place where two values differ.

    Args:
      old: What JSON holds.
      new: The same.
      tolerance: By so much two numbers may differ; 0 asks for the same.
      path: Where they stand.
    """
    if isinstance(old, dict) and isinstance(new, dict):
        for name in [*old, *(name for name in new if name not in old)]:
            where = f"{path}/{name}"
            if name not in new or name not in old:
                yield f"{where}: only in the {'old' if name in old else 'new'}"
            else:
                yield from differences(old[name], new[name], tolerance, where)
    elif isinstance(old, list) and isinstance(new, list):
        if len(old) != len(new):
            yield f"{path}: {len(old)} entries -> {len(new)}"
        for place, (one, other) in enumerate(zip(old, new)):
            label = one.get("name", place) if isinstance(one, dict) else place
            yield from differences(one, other, tolerance, f"{path}/{label}")
    elif not _same(old, new, tolerance):
        yield f"{path}: {old!r} -> {new!r}"


def _same(old: Any, new: Any, tolerance: float) -> bool:
    numbers = all(isinstance(x, int | float) and not isinstance(x, bool) for x in (old, new))
    if numbers and tolerance:
        return math.isclose(old, new, rel_tol=0.0, abs_tol=tolerance)
    return type(old) is type(new) and old == new


def compare(old: Path, new: Path, tolerance: float = 0.0) -> list[str]:
    """Return the differences of all results.json of two workdirs.

    Args:
      old: A workdir of 4cbbd67, or of this jmrec.
      new: A workdir of this jmrec.
      tolerance: See `differences`.
    """
    found = sorted(path.relative_to(old) for path in old.rglob("results.json"))
    if not found:
        return [f"{old} holds no results.json"]
    lines = []
    for name in found:
        if not (new / name).is_file():
            lines.append(f"{name}: only in the old")
            continue
        sides = [translate(json.loads((each / name).read_text())) for each in (old, new)]
        lines += [f"{name}{line}" for line in differences(*sides, tolerance)]
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--tolerance", type=float, default=0.0)
    asked = parser.parse_args()
    lines = compare(asked.old, asked.new, asked.tolerance)
    for line in lines:
        print(re.sub(r"\s+", " ", line))
    print(f"{len(lines)} differences" if lines else "the same")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
