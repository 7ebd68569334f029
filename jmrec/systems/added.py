"""Items that were added to a run after training: read by ``jmrec embed``, kept in ``added/``."""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jmrec.config import resolve_path
from jmrec.data.folder import read_folder
from jmrec.data.ids import plain_id
from jmrec.data.schema import Items, take_items
from jmrec.errors import UserError
from jmrec.evaluation.policy import (
    Availability,
    Policy,
    join_windows,
    make_policy,
    read_correction,
)
from jmrec.evaluation.rankers.content import texts_of
from jmrec.features import hash_ids, read_features, write_features
from jmrec.files import read_json, write_json
from jmrec.systems.data import INDEX
from jmrec.systems.system import Ranks, ReadsItems

ADDED = "added"


@dataclass(frozen=True)
class Added:
    """The items that `embed` read.

    Attributes:
      ids: N item ids.
      titles: N titles.
      features: Table -> float32 [N, D], such as "e", "k", "t".
      windows: When they may be recommended; None is always.
      texts: All that they say, as `texts_of` joins it; their titles where an older jmrec read them.
    """

    ids: list[str]
    titles: list[str]
    features: dict[str, np.ndarray]
    windows: Availability | None
    texts: list[str]


def embed(system: ReadsItems, folder: Path | None) -> int:
    """Read the items that are new in a catalogue folder since the run; train nothing.

    New items get new rows after the old ones, in ``added/``: their ids and titles, and their
    tables. Old rows stay as they are.

    Args:
      system: A finished run.
      folder: The catalogue folder; None is the run's own.

    Returns:
      How many items are new.

    Raises:
      UserError: The folder can not be read; a broken row is left out with a warning.
    """
    work = system.work
    config, workdir = work.config.data, work.workdir
    own = resolve_path(config.dir) if config.dir else workdir / "data" / "toyshop"
    source = folder or own
    if folder is None and not own.is_dir():
        raise UserError(f"the run's folder {own} is not here; name it with --dir.")
    raw = read_folder(source, resolve_path(config.toml) if config.toml else None)
    for warning in raw.warnings:
        work.tracker.warn(warning)
    items = raw.items
    index: list[str] = read_json(workdir / INDEX)
    # None: the towers were trained again since.
    known = read_added(system) or Added([], [], {}, None, [])
    present = list(system.data.dataset.items.ids) + known.ids
    rows = _rows_to_read(items.ids, present, index, source)
    known_as = respelt([items.ids[row] for row in rows], present)
    for item, name in known_as.items():
        work.tracker.warn(
            f"the item {item!r} is {name!r} of the run in another spelling and is not read as a "
            "new one; give it another id if it is one."
        )
    rows = [row for row in rows if items.ids[row] not in known_as]
    if rows:
        new = take_items(items, rows)
        fresh = system.read_new(new)
        if known.ids:
            fresh = {n: np.concatenate([known.features[n], fresh[n]]) for n in fresh}
        ids, titles = known.ids + new.ids, known.titles + list(new.titles)
        # In this order a kill in between is harmless: names without features are not used, and
        # the next embed repairs the index.
        windows = join_windows(known.windows, len(known.ids), Availability.of(new), len(new))
        names = {
            "ids": ids,
            "titles": titles,
            "texts": known.texts + texts_of(new),
            **(windows.to_json() if windows else {}),
        }
        write_json(workdir / ADDED / "items.json", names)
        provenance = {
            "stage": ADDED,
            "hash": system.tables_hash(),
            "names": _hash_names(names, len(ids)),
        }
        write_features(workdir / ADDED / "features.safetensors", fresh, ids, provenance)
        present += new.ids
    if index != present:
        write_json(workdir / INDEX, present)
    return len(rows)


def read_added(system: Ranks) -> Added | None:
    """Return the items that `embed` read, None where the towers were trained again since.

    Raises:
      UserError: What `embed` wrote is damaged.
    """
    folder = system.work.workdir / ADDED
    path = folder / "features.safetensors"
    if not isinstance(system, ReadsItems) or not path.is_file():
        return Added([], [], {}, None, [])
    table = read_features(path)
    if table.provenance["hash"] != system.tables_hash():
        return None
    names = read_json(folder / "items.json")
    rows = int(table.provenance["rows"])
    try:
        ids, titles = names["ids"][:rows], names["titles"][:rows]
        whole = hash_ids(ids) == table.provenance["items"]
        # Tables of an older jmrec say nothing of titles and windows.
        known = table.provenance.get("names")
        whole = whole and known in (None, _hash_names(names, rows))
    except (TypeError, ValueError, KeyError):
        whole = False
    if not whole:
        raise UserError(
            f"{folder / 'items.json'} is damaged; delete the folder {folder} and run jmrec embed "
            "again."
        )
    windows = Availability.from_json(names)
    texts = names.get("texts", names["titles"])[:rows]
    return Added(ids, titles, table.arrays, windows and windows.first(rows), texts)


def _check_nothing_is_gone(system: Ranks) -> None:
    """Check that there is nothing of added items where nothing of them was found.

    `embed` writes the index last, so that one that knows them has had their features beside it.

    Raises:
      UserError: There were some.
    """
    folder = system.work.workdir / ADDED
    if not isinstance(system, ReadsItems) or not folder.is_dir():
        return
    index: list[str] = read_json(system.work.workdir / INDEX)
    if len(index) > len(system.data.dataset.items):
        raise UserError(
            f"the features of {index[-1]!r} and all that jmrec embed read are gone from {folder}; "
            "run jmrec embed again."
        )


def _hash_names(names: Mapping[str, Any], rows: int) -> str:
    """Return a hash of what is written of the first added items; later ones change nothing."""
    few = {name: each[:rows] for name, each in names.items()}
    windows = Availability.from_json(few)  # None where all are open
    known = [few["ids"], few["titles"], windows and windows.to_json()]
    known += [few["texts"]] if "texts" in few else []
    text = json.dumps(known, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Catalogue:
    """All items of a run, those that `embed` read at the end, and the policy for them."""

    ids: list[str]
    titles: list[str]
    added: Added
    policy: Policy


def whole_catalogue(
    system: Ranks, policy: Path | None, with_added: bool = True, more: Items | None = None
) -> Catalogue:
    """Read a run's items, with or without the added ones, and a policy file for them.

    Args:
      system: A finished run.
      policy: A policy file, or None.
      with_added: Whether items are among them that `embed` read.
      more: Further items, which come last; those that `embed` has read by now are not read twice.

    Raises:
      UserError: The towers were trained again since `embed`, what it wrote is damaged or gone, or
        the policy does not fit.
    """
    dataset = system.data.dataset
    items = dataset.items
    added = read_added(system) if with_added else Added([], [], {}, None, [])
    if with_added and added is not None and not added.ids:
        _check_nothing_is_gone(system)
    if added is None:
        raise UserError(
            f"{system.work.workdir} was trained again since jmrec embed read its added items; run "
            "jmrec embed again."
        )
    if more is not None:
        added = _with_more(added, more, {*items.ids, *added.ids})
    ids = list(items.ids) + added.ids
    windows = join_windows(Availability.of(items), len(items), added.windows, len(added.ids))
    correction = None if policy is None else read_correction(policy)
    made = make_policy(ids, dataset.exclude_seen, correction, windows, str(policy))
    return Catalogue(ids, list(items.titles) + added.titles, added, made)


def _with_more(added: Added, more: Items, known: Collection[str]) -> Added:
    """Return added items with further ones at their end, of which no tower has read anything."""
    new = take_items(more, [row for row, item in enumerate(more.ids) if item not in known])
    none = {
        name: np.concatenate([table, np.zeros((len(new), *table.shape[1:]), table.dtype)])
        for name, table in added.features.items()
    }
    windows = join_windows(added.windows, len(added.ids), Availability.of(new), len(new))
    return Added(
        added.ids + new.ids, added.titles + new.titles, none, windows, added.texts + texts_of(new)
    )


def respelt(new: Sequence[str], present: Sequence[str]) -> dict[str, str]:
    """Return the new ids that are known ones in another spelling, and which.

    Example:
      >>> respelt(["1.0", "9", "0002"], ["1", "2", "3"])
      {'1.0': '1', '0002': '2'}
    """
    spelt = {plain_id(item): item for item in present}
    return {item: spelt[plain_id(item)] for item in new if plain_id(item) in spelt}


def _rows_to_read(
    ids: Sequence[str], present: Sequence[str], index: Sequence[str], source: Path
) -> list[int]:
    """Return the folder's rows that have no features yet, in the order of their new rows.

    An item that is in the index keeps its row there.
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
