"""What the command line asks of a workdir: run, evaluate, embed; `serve` does the rest."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jmrec.cluster.member import first, is_first
from jmrec.config import ConfigDict, choose, flatten, resolve_path
from jmrec.data.folder import read_folder
from jmrec.data.schema import take_items
from jmrec.errors import UserError
from jmrec.evaluation.policy import (
    Availability,
    Policy,
    join_windows,
    make_policy,
    read_correction,
)
from jmrec.features import hash_ids, read_features, write_features
from jmrec.files import read_json, write_json
from jmrec.systems import report
from jmrec.systems.adapted import AdaptedTpad
from jmrec.systems.frozen import FrozenTpad
from jmrec.systems.gaussians import GaussianStudy
from jmrec.systems.pretrained import check_out, write_converted
from jmrec.systems.stages import Stage, walk
from jmrec.systems.tables import read_standardiser
from jmrec.systems.tpad import Tpad
from jmrec.tracking import Tracker

CONFIG, INDEX, ADDED = "config.json", "item_index.json", "added"


def run(
    config: ConfigDict, workdir: Path, *, resume: str, stale: str, command: Sequence[str]
) -> None:
    """Run every stage of an experiment, then evaluate and report.

    Args:
      config: From an experiment file.
      workdir: Where everything is written.
      resume: "auto", or "never", which refuses a workdir that holds a run.
      stale: See `jmrec.systems.stages.walk`.
      command: What was typed.

    Raises:
      UserError: If the system is unknown, or the workdir holds another run.
    """
    stages = choose("system", str(config.get("system")), STAGES)

    def claim() -> None:
        if resume == "never" and workdir.is_dir() and any(workdir.iterdir()):
            raise UserError(f"{workdir} is not empty and --resume=never; name another --workdir.")
        workdir.mkdir(parents=True, exist_ok=True)

    first(claim)  # before any process writes into it
    with Tracker(
        workdir, wandb=config.wandb, config=flatten(config), quiet=not is_first()
    ) as tracker:
        walk(stages(config, workdir, tracker, command), workdir, stale=stale, tracker=tracker)
        first(lambda: write_json(workdir / CONFIG, _stored(config)))
        tracker.say(f"report: {workdir / 'evaluate' / 'report.html'}")


def _stored(config: ConfigDict) -> dict[str, Any]:
    """Return what is kept of a config: the data's paths absolute, for commands typed elsewhere."""
    kept: dict[str, Any] = config.to_dict()
    for group, name in (("data", "dir"), ("data", "toml"), ("backbone", "text"),
                        ("backbone", "picture")):  # fmt: skip
        given = kept.get(group, {}).get(name)
        if given and (path := resolve_path(given)).exists():
            kept[group][name] = str(path.absolute())
    return kept


def _tpad(config: ConfigDict, workdir: Path, tracker: Tracker) -> Tpad:
    """Return the system, on towers that it trains or on a backbone."""
    kinds = {"frozen": (FrozenTpad, "width"), "lora": (AdaptedTpad, "lora")}
    kind, setting = choose("backbone.mode", config.backbone.mode, kinds)
    if config.backbone.name == "tiny":
        kind, setting = Tpad, "stack"
    if setting not in config.knowledge:
        raise UserError(
            "backbone.name and backbone.mode decide which settings there are; choose them by "
            "experiments/tpad.py:backbone=...,mode=... and not as overrides."
        )
    return kind(config, workdir, tracker)


def _tpad_stages(
    config: ConfigDict, workdir: Path, tracker: Tracker, command: Sequence[str]
) -> list[Stage]:
    system = _tpad(config, workdir, tracker)
    split = config.evaluate.split

    def last(folder: Path) -> None:
        own = read_json(folder / "stage.json")["hash"]
        report.evaluate(system, folder, split, command=command, stage=own)

    training = system.stages()
    settings = {"evaluate": config.evaluate, "students": list(config.students)}
    return [*training, Stage("evaluate", settings, tuple(s.name for s in training), last)]


def _gaussian_stages(
    config: ConfigDict, workdir: Path, tracker: Tracker, command: Sequence[str]
) -> list[Stage]:
    return GaussianStudy(config, workdir, tracker).stages(command)


STAGES = {"tpad": _tpad_stages, "gaussians": _gaussian_stages}
"""System -> all its stages; the last is "evaluate", which writes the report."""


def open_run(workdir: Path, tracker: Tracker) -> Tpad:
    """Open a finished run.

    Raises:
      UserError: If the workdir holds none, one of another system, or one of an older jmrec.
    """
    if not (workdir / CONFIG).is_file():
        raise UserError(f"{workdir} holds no finished run; make one with jmrec run.")
    config = ConfigDict(read_json(workdir / CONFIG))
    if (other := config.get("system")) != "tpad":
        raise UserError(
            f"{workdir} is a run of the system {other!r}, which has no items to recommend; name a "
            "run of experiments/tpad.py."
        )
    known = flatten(config)
    lacks = next((name for name in ("context.gap", "backbone.mode") if name not in known), None)
    if lacks is not None:
        raise UserError(
            f"{workdir} was made by an older jmrec, whose config has no {lacks!r}; run again in "
            "another --workdir."
        )
    return _tpad(config, workdir, tracker)


def is_run(folder: Path) -> bool:
    """Tell whether a folder is the workdir of a finished run."""
    try:
        found = json.loads((folder / CONFIG).read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and "system" in found


def convert_run(workdir: Path, out: Path, dtype: str | None = None) -> dict[str, Any]:
    """Write the backbone of a run with ``mode=lora``, its updates merged, as a converted model.

    Args:
      workdir: A finished run.
      out: The folder to write.
      dtype: "float32" or "bfloat16"; None is float32.

    Returns:
      As `jmrec.systems.pretrained.convert_to`.

    Raises:
      UserError: The run trained no updates of a backbone, or ``out`` holds something else.
    """
    check_out(out)
    with Tracker(workdir, quiet=True) as tracker:
        system = open_run(workdir, tracker)
        if not isinstance(system, AdaptedTpad):
            raise UserError(
                f"{workdir} trained no low-rank updates of a backbone (mode=lora), so that there "
                "is nothing to merge; convert the source itself."
            )
        found = system.merged()
    if dtype is not None:
        found = replace(found, params=jax.tree.map(lambda x: x.astype(dtype), found.params))
    return write_converted(found, out)


def evaluate(
    workdir: Path,
    split: str,
    dump: Path | None,
    policy: Path | None = None,
    by: str | None = None,
) -> None:
    """Evaluate a finished run on a split and write ``evaluate-SPLIT/``.

    Args:
      workdir: A finished run.
      split: "validation" or "test".
      dump: A folder for every row's recommendations, or None.
      policy: A policy file whose effect on the served student is reported, or None.
      by: "week" or "month", to see how rows age; None does not.
    """
    with Tracker(workdir) as tracker:
        system = open_run(workdir, tracker)
        made = None
        if policy is not None:
            # Items that were added later may be named, and are no candidates here.
            made = whole_catalogue(system, policy).policy.first(len(system.dataset.items))
        folder = workdir / f"evaluate-{split}"
        report.evaluate(system, folder, split, dump=dump, policy=made, by=by)
        tracker.say(f"report: {workdir / f'evaluate-{split}' / 'report.html'}")


def embed(workdir: Path, folder: Path | None) -> int:
    """Read the items that a catalogue folder gained since the run; train nothing.

    New items get new rows after the old ones, in ``added/``: their ids and titles, and their
    features e, k and t. Old rows stay as they are.

    Args:
      workdir: A finished run.
      folder: The catalogue folder; None is the run's own.

    Returns:
      How many items are new.

    Raises:
      UserError: If there is no run, or the folder can not be read; a broken row is left out with
        a warning.
    """
    with Tracker(workdir) as tracker:
        system = open_run(workdir, tracker)
        config = system.config.data
        own = resolve_path(config.dir) if config.dir else workdir / "data" / "toyshop"
        source = folder or own
        if folder is None and not own.is_dir():
            raise UserError(f"the run's folder {own} is not here; name it with --dir.")
        toml = resolve_path(config.toml) if config.toml else None
        raw = read_folder(source, toml)
        for warning in raw.warnings:
            tracker.warn(warning)
        items = raw.items
        index: list[str] = read_json(workdir / INDEX)
        known = read_added(system)
        if known is None:  # the towers were trained again since
            known = Added([], [], {}, None)
        present = list(system.dataset.items.ids) + known.ids
        rows = _rows_to_read(items.ids, present, index, source)
        if rows:
            new = take_items(items, rows)
            scaler = read_standardiser(workdir / "read")
            e = scaler(system.encode(system.reader.read(new), "new items"))
            k, t = system.heads(e)
            fresh = {
                "e": e,
                "k": read_standardiser(workdir / "embed", "k/")(k),
                "t": read_standardiser(workdir / "embed", "t/")(t),
            }
            if known.ids:
                fresh = {n: np.concatenate([known.features[n], fresh[n]]) for n in fresh}
            ids, titles = known.ids + new.ids, known.titles + list(new.titles)
            # Names, features, index: the features count, so that a kill in between is harmless.
            # Names without features are not looked at; the index is mended by the next embed.
            windows = join_windows(known.windows, len(known.ids), Availability.of(new), len(new))
            names = {"ids": ids, "titles": titles, **(windows.to_json() if windows else {})}
            write_json(workdir / ADDED / "items.json", names)
            provenance = {"stage": ADDED, "hash": _embed_hash(workdir)}
            write_features(workdir / ADDED / "features.safetensors", fresh, ids, provenance)
            present += new.ids
        if index != present:
            write_json(workdir / INDEX, present)
        return len(rows)


@dataclass(frozen=True)
class Added:
    """The items that `embed` read.

    Attributes:
      ids: N item ids.
      titles: N titles.
      features: "e", "k", "t" -> float32 [N, D].
      windows: When they may be recommended; None is always.
    """

    ids: list[str]
    titles: list[str]
    features: dict[str, np.ndarray]
    windows: Availability | None


def read_added(system: Tpad) -> Added | None:
    """Return the items that `embed` read, None where towers read them that are no more.

    Raises:
      UserError: What it wrote is damaged.
    """
    folder = system.workdir / ADDED
    path = folder / "features.safetensors"
    if not path.is_file():
        return Added([], [], {}, None)
    table = read_features(path)
    if table.provenance["hash"] != _embed_hash(system.workdir):
        return None
    names = read_json(folder / "items.json")
    rows = int(table.provenance["rows"])
    ids, titles = names["ids"][:rows], names["titles"][:rows]
    if hash_ids(ids) != table.provenance["items"]:
        raise UserError(f"{folder} is damaged; delete the folder and run jmrec embed again.")
    windows = Availability.from_json(names)
    return Added(ids, titles, table.arrays, windows and windows.first(rows))


@dataclass(frozen=True)
class Catalogue:
    """All items of a run, those that `embed` read last, and the policy for them."""

    ids: list[str]
    titles: list[str]
    added: Added
    policy: Policy


def whole_catalogue(system: Tpad, policy: Path | None, with_added: bool = True) -> Catalogue:
    """Read a run's items, the added ones by choice, and a policy file for them.

    Raises:
      UserError: The towers were trained again since `embed`, or the policy does not fit.
    """
    items = system.dataset.items
    added = read_added(system) if with_added else Added([], [], {}, None)
    if added is None:
        raise UserError(
            f"{system.workdir} was trained again since jmrec embed read its added items; run jmrec "
            "embed again."
        )
    ids = list(items.ids) + added.ids
    windows = join_windows(Availability.of(items), len(items), added.windows, len(added.ids))
    correction = None if policy is None else read_correction(policy)
    made = make_policy(ids, system.dataset.exclude_seen, correction, windows, str(policy))
    return Catalogue(ids, list(items.titles) + added.titles, added, made)


def _embed_hash(workdir: Path) -> str:
    return str(read_json(workdir / "embed" / "stage.json")["hash"])


def _rows_to_read(
    ids: Sequence[str], present: Sequence[str], index: Sequence[str], source: Path
) -> list[int]:
    """Return the folder's rows that have no features yet, in the order of their new rows.

    An item that the index names keeps its place there.
    """
    place = {item: row for row, item in enumerate(index)}
    have = set(present)
    rows = [row for row, item in enumerate(ids) if item not in have]
    rows.sort(key=lambda row: (place.get(ids[row], len(place)), row))
    lost = next((item for item in index if item not in have.union(ids)), None)
    if lost is not None:
        raise UserError(
            f"item {lost!r} was read by an earlier jmrec embed and is not in {source} any more; "
            "put it back, or name the folder with --dir."
        )
    return rows
