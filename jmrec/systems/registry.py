"""What the command line asks of a workdir: run, evaluate, embed, recommend."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jmrec.cluster.member import first, is_first
from jmrec.config import ConfigDict, flatten, resolve_path
from jmrec.data.folder import read_folder
from jmrec.data.schema import Items
from jmrec.errors import UserError
from jmrec.evaluation.protocol import Prefixes
from jmrec.evaluation.students import Tower
from jmrec.features import hash_ids, read_features, write_features
from jmrec.files import read_json, write_json
from jmrec.systems import report
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
    if config.get("system") != "tpad":
        raise UserError(f"the system {config.get('system')!r} is unknown; there is: tpad.")

    def claim() -> None:
        if resume == "never" and workdir.is_dir() and any(workdir.iterdir()):
            raise UserError(f"{workdir} is not empty and --resume=never; name another --workdir.")
        workdir.mkdir(parents=True, exist_ok=True)

    first(claim)  # before any process writes into it
    with Tracker(
        workdir, wandb=config.wandb, config=flatten(config), quiet=not is_first()
    ) as tracker:
        system = Tpad(config, workdir, tracker)
        split = config.evaluate.split

        def last(folder: Path) -> None:
            own = read_json(folder / "stage.json")["hash"]
            report.evaluate(system, folder, split, command=command, stage=own)

        training = system.stages()
        settings = {"evaluate": config.evaluate, "students": list(config.students)}
        final = Stage("evaluate", settings, tuple(s.name for s in training), last)
        walk([*training, final], workdir, stale=stale, tracker=tracker)
        first(lambda: write_json(workdir / CONFIG, config.to_dict()))
        tracker.say(f"report: {workdir / 'evaluate' / 'report.html'}")


def open_run(workdir: Path, tracker: Tracker) -> Tpad:
    """Open a finished run.

    Raises:
      UserError: If the workdir holds none, or one of an older jmrec.
    """
    if not (workdir / CONFIG).is_file():
        raise UserError(f"{workdir} holds no finished run; make one with jmrec run.")
    config = ConfigDict(read_json(workdir / CONFIG))
    if "vision" not in config:
        raise UserError(
            f"{workdir} was made by an older jmrec, which had no stage 'vision'; run again in "
            "another --workdir."
        )
    return Tpad(config, workdir, tracker)


def evaluate(workdir: Path, split: str, dump: Path | None) -> None:
    """Evaluate a finished run on a split and write ``evaluate-SPLIT/``."""
    with Tracker(workdir) as tracker:
        system = open_run(workdir, tracker)
        report.evaluate(system, workdir / f"evaluate-{split}", split, dump=dump)
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
        toml = resolve_path(config.toml) if config.toml else None
        raw = read_folder(source, toml)
        for warning in raw.warnings:
            tracker.warn(warning)
        items = raw.items
        index: list[str] = read_json(workdir / INDEX)
        known = _read_added(system)
        if known is None:  # the towers were trained again since
            known = Added([], [], {})
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
            write_json(workdir / ADDED / "items.json", {"ids": ids, "titles": titles})
            provenance = {"stage": ADDED, "hash": _embed_hash(workdir)}
            write_features(workdir / ADDED / "features.safetensors", fresh, ids, provenance)
            present += new.ids
        if index != present:
            write_json(workdir / INDEX, present)
        return len(rows)


@dataclass(frozen=True)
class Added:
    """The items that `embed` read: ids and titles, and "e", "k", "t" -> float32 [N, D]."""

    ids: list[str]
    titles: list[str]
    features: dict[str, np.ndarray]


def _read_added(system: Tpad) -> Added | None:
    """Return the items that `embed` read, None where towers read them that are no more.

    Raises:
      UserError: What it wrote is damaged.
    """
    folder = system.workdir / ADDED
    path = folder / "features.safetensors"
    if not path.is_file():
        return Added([], [], {})
    table = read_features(path)
    if table.provenance["hash"] != _embed_hash(system.workdir):
        return None
    names = read_json(folder / "items.json")
    rows = int(table.provenance["rows"])
    ids, titles = names["ids"][:rows], names["titles"][:rows]
    if hash_ids(ids) != table.provenance["items"]:
        raise UserError(f"{folder} is damaged; delete the folder and run jmrec embed again.")
    return Added(ids, titles, table.arrays)


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


def take_items(items: Items, rows: Sequence[int]) -> Items:
    """Return the catalogue's items at ``rows``."""
    return Items(
        ids=[items.ids[r] for r in rows],
        titles=[items.titles[r] for r in rows],
        text={name: [column[r] for r in rows] for name, column in items.text.items()},
        pictures=[items.pictures[r] for r in rows],
        category={name: codes[list(rows)] for name, codes in items.category.items()},
        category_names=items.category_names,
        number={name: column[list(rows)] for name, column in items.number.items()},
        available_from=items.available_from[list(rows)],
        available_until=items.available_until[list(rows)],
    )


def recommend(
    workdir: Path, session: Sequence[str], top: int, student: str | None
) -> list[dict[str, Any]]:
    """Recommend items for one session with a run's student (its first seed).

    The candidates are the whole catalogue, new items (`embed`) included, less the session's own
    items where the data set excludes them.

    Args:
      workdir: A finished run.
      session: Item ids, oldest first; the last 50 are read.
      top: How many to recommend.
      student: Its name; None is the run's choice.

    Returns:
      Best first: {"item_id", "title", "score"}.

    Raises:
      UserError: If an id or the student is unknown, or nothing is asked.
    """
    with Tracker(workdir) as tracker:
        system = open_run(workdir, tracker)
        name = student or system.config.evaluate.serve
        if name not in system.config.students:
            raise UserError(
                f"there is no student {name!r}; choose one of {', '.join(system.config.students)}."
            )
        if top < 1 or not session:
            raise UserError("name at least one item in --items, and a --top of 1 or more.")
        ids = list(system.dataset.items.ids)
        titles = list(system.dataset.items.titles)
        features = system.student_features(name)
        added = _read_added(system)
        if added is None:
            raise UserError(
                f"{workdir} was trained again since jmrec embed read its added items; run jmrec "
                "embed again."
            )
        if added.ids:
            ids, titles = ids + added.ids, titles + added.titles
            features = _with_added(system, name, features, added)
        unknown = next((item for item in session if item not in set(ids)), None)
        if unknown is not None:
            near = difflib.get_close_matches(unknown, ids, 1)
            hint = f"did you mean {near[0]!r}?" if near else "run jmrec embed if it is new."
            raise UserError(f"item {unknown!r} is not in the catalogue of {workdir}; {hint}")
        rows = report.choose_rows(ids, session)
        _, tower = system.student_trainer(name)
        if len(ids) > len(system.dataset.items):
            # A new item has no id of its own: the last, unknown row stands for it.
            unknown_row = max(tower.model.config.ids - 1, 0)
            known_rows = np.zeros(0, np.int32) if tower.ids is None else tower.ids
            more = np.full(len(ids) - len(known_rows), unknown_row, np.int32)
            tower = Tower(tower.model, np.concatenate([known_rows, more]))
        params = system.params(f"students/{name}-{system.config.seeds[0]}", tower.model)
        ranker = tower.ranker(name, params)
        ranker.prepare(features)
        prefix = rows[-50:]
        prefixes = Prefixes(
            windows=np.pad(prefix, (0, 50 - len(prefix)), constant_values=-1)[None],
            gaps=np.zeros((1, 50), np.float32),
            window=np.zeros(1, np.int32),
            end=np.array([len(prefix) - 1], np.int32),
            time=np.zeros(1),
        )
        scores = ranker.scores(prefixes, slice(0, len(ids)))[0]
        if system.dataset.exclude_seen:
            scores[rows] = -np.inf
        best = np.argsort(-scores, kind="stable")[:top]
        return [
            {"item_id": ids[r], "title": titles[r], "score": float(scores[r])}
            for r in best
            if np.isfinite(scores[r])
        ]


def _with_added(
    system: Tpad, name: str, features: dict[str, np.ndarray], added: Added
) -> dict[str, np.ndarray]:
    """Append the features of the items that `embed` read."""
    heads = system.config.students[name].features
    if heads == "none":
        return features
    more = np.concatenate([added.features[head] for head in heads.split("+")], 1)
    return {"features": np.concatenate([features["features"], more])}
