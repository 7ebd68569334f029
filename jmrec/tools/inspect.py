"""``jmrec inspect``: what a checkpoint holds, and how two differ, on any machine with a CPU."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from jmrec.checkpoint import Recorded, describe, list_checkpoints, read_arrays
from jmrec.config import difference, flatten
from jmrec.errors import UserError
from jmrec.features import read_features
from jmrec.files import read_json
from jmrec.systems.registry import CONFIG, read_config
from jmrec.systems.sealed import read_stage
from jmrec.tools.terminal import human, wide_console

AT_ONCE = 2**28
"""Bytes of each side that are in memory while two checkpoints are compared."""
COUNTERS = ("step", "best", "best_step", "stale")
NOT_SETTINGS = ("mesh", "versions", "loop")


def inspect(path: Path, step: int | None = None) -> dict[str, Any]:
    """Describe a workdir, a stage, its checkpoints, one of them, or parameters.

    Args:
      path: The folder.
      step: Which checkpoint; None is the newest.

    Returns:
      json-able. A workdir: "kind" is "run", "settings" and "stages". Everything else: "kind" is
      "checkpoint" or "params", "step", "steps", "written", "settings", "metrics", "best", "mesh",
      "versions", "parameters", "bytes", and "arrays" (each "path", "shape", "dtype", "bytes",
      "spec").

    Raises:
      UserError: There is nothing here, or it is damaged.
    """
    names = stage_names(path)
    if not names:
        return _describe(*_locate(path, step))
    return {
        "kind": "run",
        "path": str(path),
        "settings": _of_run(path),
        "stages": [_overview(path / name, name) for name in names],
    }


def compare(a: Path, b: Path, step: int | None = None) -> dict[str, Any]:
    """Compare two checkpoints, or two runs stage by stage.

    Args:
      a: As for `inspect`.
      b: Another of the same kind: both are workdirs, or neither is.
      step: Which checkpoint of both; None is each one's newest.

    Returns:
      json-able: "settings" of the runs (lines ``name: a -> b``), none where "unfinished" names a
      run; "pairs", one a stage, each with "a", "b", "settings", "only_a", "only_b" (paths),
      "shapes" (path -> two texts), "values" (path -> largest absolute difference, None where one of
      the two is not finite), "relative" (the same over the largest entry of the array), "equal"
      (number of arrays of the same bits) and "bit_equal" (whether all are), of a run also "stage";
      "stages_only_a", "stages_only_b";
      "bit_equal" of all. Feature tables count as arrays.

    Raises:
      UserError: One of them is not there or is damaged, or only one is a workdir.
    """
    stages_a, stages_b = stage_names(a), stage_names(b)
    if bool(stages_a) != bool(stages_b):
        run, other = (a, b) if stages_a else (b, a)
        raise UserError(f"{run} is a whole run and {other} is not; name a stage of it.")
    settings, unfinished = list[str](), list[str]()
    if not stages_a:
        pairs = [_compare(_locate(a, step), _locate(b, step))]
    else:
        both = [name for name in stages_a if name in stages_b]
        pairs = [{"stage": name, **_compare_stages(a / name, b / name, step)} for name in both]
        if not (unfinished := [str(run) for run in (a, b) if not (run / CONFIG).is_file()]):
            settings = difference(_of_run(a), _of_run(b))
    return {
        "settings": settings,
        "unfinished": unfinished,
        "pairs": pairs,
        "stages_only_a": [name for name in stages_a if name not in stages_b],
        "stages_only_b": [name for name in stages_b if name not in stages_a],
        "bit_equal": stages_a == stages_b and all(pair["bit_equal"] for pair in pairs),
    }


def _of_run(workdir: Path) -> dict[str, Any]:
    """Return the settings of a run, {} where it is not finished."""
    return flatten(read_config(workdir)) if (workdir / CONFIG).is_file() else {}


def stage_names(path: Path) -> list[str]:
    """Return the stages of a workdir, each after those that it reads; [] where it is none."""
    if not path.is_dir():
        raise UserError(f"{path}: there is no such folder; name a workdir, stage or checkpoint.")
    inputs: dict[str, list[str]] = {}
    for file in [*path.glob("*/stage.json"), *path.glob("*/*/stage.json")]:
        name = file.parent.relative_to(path).as_posix()
        facts = _facts(file.parent)
        # A folder of runs holds stages that are not of one run.
        if "/" not in name or facts.get("group", "").startswith(f"{name.split('/')[0]}/"):
            inputs[name] = [str(each) for each in facts.get("inputs", {})]
    depth: dict[str, int] = {}
    for _ in inputs:  # a chain of stages is no longer than there are stages
        depth = {
            name: max((1 + depth.get(each, 0) for each in reads if each in inputs), default=0)
            for name, reads in inputs.items()
        }
    return sorted(inputs, key=lambda name: (depth[name], name))


def _facts(folder: Path) -> dict[str, Any]:
    """Return what a stage says of itself, {} where it is damaged: its row will say so."""
    try:
        return read_stage(folder) or {}
    except UserError:
        return {}


def _has_arrays(stage: Path) -> bool:
    steps = (stage / "checkpoints").glob("*")
    return (stage / "params").is_dir() or any(path.name.isdigit() for path in steps)


def _locate(path: Path, step: int | None) -> tuple[Path, Path, list[int]]:
    """Return (folder of the arrays, folder of the stage, steps that there are)."""
    if (path / "_CHECKPOINT_METADATA").exists():
        stage = path.parent.parent if path.name.isdigit() else path.parent
        return path, stage, [int(path.name)] if path.name.isdigit() else []
    if path.name == "params":
        return path, path.parent, []
    directory = path if path.name == "checkpoints" else path / "checkpoints"
    if not directory.is_dir():
        if (path / "params").is_dir() and step is None:
            return path / "params", path, []
        raise UserError(f"{path} holds no checkpoint; name a workdir, a stage or a checkpoint.")
    steps = sorted(list_checkpoints(directory))
    if not steps:
        raise UserError(f"{directory} holds no whole checkpoint; train first.")
    if step is not None and step not in steps:
        raise UserError(f"{directory} has no step {step}; there are {', '.join(map(str, steps))}.")
    chosen = steps[-1] if step is None else step
    return directory / str(chosen), directory.parent, steps


def _overview(folder: Path, name: str) -> dict[str, Any]:
    """Describe a stage in a row; one that is damaged says so and hides no other."""
    row: dict[str, Any] = {"stage": name, "done": False, "seconds": 0.0}
    try:
        facts = read_json(folder / "stage.json")
        row |= {"done": bool(facts.get("done")), "seconds": facts.get("seconds", 0.0)}
        if _has_arrays(folder):
            found = _describe(*_locate(folder, None))
            row |= {key: found[key] for key in ("step", "steps", "best", "parameters", "bytes")}
    except UserError as error:
        row["damaged"] = str(error)
    return row


def _describe(folder: Path, stage: Path, steps: list[int]) -> dict[str, Any]:
    arrays, metadata, written = describe(folder)
    counters = [name for name in COUNTERS if name in arrays]
    now = {name: array.item() for name, array in read_arrays(folder, counters).items()}
    history = metadata.get("loop", {}).get("history", [])
    metrics, best = history[-1] if history else {}, None
    if now.get("best") is not None and math.isfinite(now["best"]):
        best = {"score": now["best"], "step": now["best_step"]}
    elif not counters and (stage / "metrics.json").is_file():
        known = read_json(stage / "metrics.json")
        metrics = (known.get("history") or [{}])[-1]
        if known.get("best") is not None:
            best = {"score": known["best"], "step": known["best_step"]}
    return {
        "kind": "checkpoint" if counters else "params",
        "path": str(folder),
        "step": now.get("step"),
        "steps": steps,
        "written": written,
        "settings": _settings(metadata, stage),
        "metrics": metrics,
        "best": best,
        "mesh": metadata.get("mesh") or next((each.mesh for each in arrays.values()), {}),
        "versions": metadata.get("versions", {}),
        "parameters": sum(
            math.prod(each.shape) for name, each in arrays.items() if name.startswith("params/")
        ),
        "bytes": sum(_bytes(each) for each in arrays.values()),
        "arrays": [
            {
                "path": name,
                "shape": list(each.shape),
                "dtype": str(each.dtype),
                "bytes": _bytes(each),
                "spec": [list(axis) if isinstance(axis, tuple) else axis for axis in each.spec],
            }
            for name, each in arrays.items()
        ],
    }


def _settings(metadata: Mapping[str, Any], stage: Path) -> dict[str, Any]:
    """Return all settings that are recorded, flat."""
    own = {key: value for key, value in metadata.items() if key not in NOT_SETTINGS}
    if (stage / "stage.json").is_file():
        own["stage.settings"] = read_json(stage / "stage.json").get("settings", {})
    return flatten(own)


def _bytes(array: Recorded) -> int:
    return math.prod(array.shape) * array.dtype.itemsize


def _compare_stages(a: Path, b: Path, step: int | None) -> dict[str, Any]:
    """Compare the arrays, feature tables and settings of one stage in two runs."""
    if _has_arrays(a) and _has_arrays(b):
        pair = _compare(_locate(a, step), _locate(b, step))
    else:
        lone = ["params"] if _has_arrays(a) != _has_arrays(b) else []
        pair = {
            "a": str(a),
            "b": str(b),
            "settings": difference(_settings({}, a), _settings({}, b)),
            "only_a": lone if _has_arrays(a) else [],
            "only_b": lone if _has_arrays(b) else [],
            "shapes": {},
            "values": {},
            "relative": {},
            "equal": 0,
        }
    left, right = (_tables(stage) for stage in (a, b))
    pair["only_a"] += sorted(left.keys() - right.keys())
    pair["only_b"] += sorted(right.keys() - left.keys())
    for name in sorted(left.keys() & right.keys()):
        one, other = left[name], right[name]
        if (one.dtype, one.shape) != (other.dtype, other.shape):
            pair["shapes"][name] = [f"{each.dtype}{list(each.shape)}" for each in (one, other)]
        elif one.tobytes() != other.tobytes():
            pair["values"][name], pair["relative"][name] = _furthest(one, other)
        else:
            pair["equal"] += 1
    parts = ("only_a", "only_b", "shapes", "values")
    return {**pair, "bit_equal": not any(pair[part] for part in parts)}


def _tables(stage: Path) -> dict[str, np.ndarray]:
    """Return "file/table" -> array of all feature tables of a stage."""
    return {
        f"{path.name}/{name}": array
        for path in sorted(stage.glob("*.safetensors"))
        for name, array in read_features(path).arrays.items()
    }


def _compare(a: tuple[Path, Path, list[int]], b: tuple[Path, Path, list[int]]) -> dict[str, Any]:
    (arrays_a, metadata_a, _), (arrays_b, metadata_b, _) = describe(a[0]), describe(b[0])
    recorded = [
        {**_settings(metadata, place[1]), **flatten(
            {name: metadata.get(name, {}) for name in ("mesh", "versions")}
        )}
        for metadata, place in ((metadata_a, a), (metadata_b, b))
    ]  # fmt: skip
    both = [name for name in arrays_a if name in arrays_b]
    shapes, same = {}, {}
    for name in both:
        texts = [f"{each[name].dtype}{list(each[name].shape)}" for each in (arrays_a, arrays_b)]
        if texts[0] == texts[1]:
            same[name] = arrays_a[name]
        else:
            shapes[name] = texts
    values: dict[str, float | None] = {}
    relative: dict[str, float | None] = {}
    for group in _groups(same):
        left, right = read_arrays(a[0], group), read_arrays(b[0], group)
        for name in group:
            if left[name].tobytes() != right[name].tobytes():
                values[name], relative[name] = _furthest(left[name], right[name])
    only_a = [name for name in arrays_a if name not in arrays_b]
    only_b = [name for name in arrays_b if name not in arrays_a]
    return {
        "a": str(a[0]),
        "b": str(b[0]),
        "settings": difference(*recorded),
        "only_a": only_a,
        "only_b": only_b,
        "shapes": shapes,
        "values": values,
        "relative": relative,
        "equal": len(same) - len(values),
        "bit_equal": not (only_a or only_b or shapes or values),
    }


def _groups(arrays: Mapping[str, Recorded]) -> Iterator[list[str]]:
    """Yield the names in groups of at most `AT_ONCE` bytes, or of one array."""
    group: list[str] = []
    size = 0
    for name, array in arrays.items():
        if group and size + _bytes(array) > AT_ONCE:
            yield group
            group, size = [], 0
        group.append(name)
        size += _bytes(array)
    if group:
        yield group


def _furthest(a: np.ndarray, b: np.ndarray) -> tuple[float | None, float | None]:
    """Return the largest difference, and that over the largest entry of the two.

    None where only one of two numbers is finite.
    """
    wide_a, wide_b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    alike = (wide_a == wide_b) | (np.isnan(wide_a) & np.isnan(wide_b))
    wide_a, wide_b = np.where(alike, 0.0, wide_a), np.where(alike, 0.0, wide_b)
    far = np.abs(wide_a - wide_b)
    if not np.isfinite(far).all():
        return None, None
    finite = [np.abs(np.asarray(x, np.float64))[np.isfinite(x)] for x in (a, b)]
    largest = max(x.max(initial=0.0) for x in finite)
    return float(far.max()), float(far.max() / largest) if largest else 0.0


# ---- for people ----------------------------------------------------------------------------------


def show(found: Mapping[str, Any]) -> None:
    """Print what `inspect` found."""
    out = wide_console()
    if found["kind"] == "run":
        table = Table("stage", "state", "steps", "best", "parameters", "bytes", box=None)
        for row in found["stages"]:
            state = f"done in {row['seconds']:.0f} s" if row["done"] else "not done"
            best = row.get("best")
            table.add_row(
                row["stage"],
                "DAMAGED" if "damaged" in row else state,
                ", ".join(map(str, row.get("steps", []))),
                f"{best['score']:.4g} at {best['step']}" if best else "",
                f"{row['parameters']:,}" if "parameters" in row else "",
                human(row["bytes"]) if "bytes" in row else "",
            )
        out.print(f"{found['path']}: a run of {len(found['stages'])} stages")
        out.print(table)
        for row in found["stages"]:
            if "damaged" in row:
                out.print(row["damaged"])
        _print_settings(out, found["settings"])
        return
    step = "" if found["step"] is None else f", {found['step']} updates done"
    out.print(f"{found['path']}: {found['kind']}{step}, written {found['written'] or '?'}")
    if found["steps"]:
        out.print(f"steps that there are: {', '.join(map(str, found['steps']))}")
    if found["best"]:
        out.print(f"best: {found['best']['score']:.6g} after {found['best']['step']} updates")
    for name in ("metrics", "mesh", "versions"):
        if found[name]:
            facts = ", ".join(f"{key} {_short(value)}" for key, value in found[name].items())
            out.print(f"{name}: {facts}")
    _print_settings(out, found["settings"])
    table = Table("array", "shape", "dtype", "bytes", "cut over", box=None)
    moments = [each for each in found["arrays"] if each["path"].startswith("opt_state/")]
    for each in found["arrays"]:
        if each not in moments:
            table.add_row(
                each["path"], "x".join(map(str, each["shape"])) or "-", each["dtype"],
                human(each["bytes"]), _cut(each["spec"]),
            )  # fmt: skip
    out.print(table)
    if moments:
        size = human(sum(each["bytes"] for each in moments))
        out.print(f"opt_state: {len(moments)} arrays, {size} (--json lists them)")
    out.print(f"in all: {found['parameters']:,} parameters, {human(found['bytes'])}")


def show_comparison(found: Mapping[str, Any], everything: bool = False) -> None:
    """Print what `compare` found: of runs a line for each stage, or everything."""
    out = wide_console()
    for run in found["unfinished"]:
        out.print(f"{run} is not finished, so that settings are compared by stage (--all)")
    for line in found["settings"]:
        out.print(f"setting {line}")
    for pair in found["pairs"]:
        if "stage" in pair and not everything:
            out.print(f"{pair['stage']}: {_summary(pair)}")
            continue
        out.print(f"{pair['a']} and {pair['b']}:")
        for line in pair["settings"]:
            out.print(f"  setting {line}")
        for side in ("a", "b"):
            names = pair[f"only_{side}"]
            if names:
                more = f" and {len(names) - 3} more" if len(names) > 3 else ""
                out.print(f"  only in {pair[side]}: {', '.join(names[:3])}{more}")
        for name, (left, right) in pair["shapes"].items():
            out.print(f"  {name}: {left} and {right}")
        for name, furthest in pair["values"].items():
            far = "one is not finite"
            if furthest is not None:
                far = f"max |difference| {furthest:.3g}, {pair['relative'][name]:.3g} relative"
            out.print(f"  {name}: {far}")
        equal = f"{pair['equal']} arrays are equal, bit by bit; the others are above"
        out.print(f"  {_summary(pair) if pair['bit_equal'] else equal}")
    for side, where in (("a", "first"), ("b", "second")):
        if names := found[f"stages_only_{side}"]:
            out.print(f"only in the {where}: {', '.join(names)}")
    out.print("bit-equal" if found["bit_equal"] else "not bit-equal")


def _summary(pair: Mapping[str, Any]) -> str:
    """Return one line on a pair: the largest difference, and over the array's largest entry."""
    lone = len(pair["only_a"]) + len(pair["only_b"])
    other, differ, equal = len(pair["shapes"]), len(pair["values"]), pair["equal"]
    if not (lone or other or differ):
        return f"all {equal} arrays are equal, bit by bit" if equal else "no arrays to compare"
    parts = []
    if differ:
        parts.append(f"{differ} of {equal + differ} arrays differ")
        if None in pair["values"].values():
            parts[0] += ", some are not finite in one"
        else:
            most = [max(pair[key], key=pair[key].get) for key in ("values", "relative")]
            parts[0] += (
                f", by {pair['values'][most[0]]:.3g} at most ({most[0]}), relative to the array's "
                f"largest entry by {pair['relative'][most[1]]:.3g} ({most[1]})"
            )
    parts += [f"{other} have other shapes"] * bool(other) + [f"{lone} are in one only"] * bool(lone)
    return "; ".join(parts)


def _print_settings(out: Any, settings: Mapping[str, Any]) -> None:
    if settings:
        out.print("settings:")
        for name, value in settings.items():
            out.print(f"  {name}: {_short(value)}")


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _cut(spec: Sequence[Any]) -> str:
    if not any(spec):
        return ""
    return ", ".join("+".join(axis) if isinstance(axis, list) else axis or "-" for axis in spec)
