"""Prepare a catalogue folder once, and load what was prepared."""

import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from jmrec.data import flat, records
from jmrec.data.description import Description
from jmrec.data.fingerprint import fingerprint
from jmrec.data.folder import Raw, read_folder
from jmrec.data.forgotten import Forgotten, Left, find, left_by, without
from jmrec.data.grown import Before, check_split, in_old_rows, with_old_ids
from jmrec.data.pictures import shrink
from jmrec.data.ratings import make_ratings
from jmrec.data.schema import SPLITS, Dataset, Ratings, Sessions
from jmrec.data.sessions import filter_training, last_alone, no_sessions
from jmrec.data.split_keys import SESSION_START
from jmrec.data.splits import split_sessions
from jmrec.errors import UserError, refusal

FORMAT = 2
RECORDS_ONLY = 1
"""The format of data whose sessions and ratings are records alone."""
EVERY, LAST = "every", "last"
"""Which items of a session are predicted in validation and test: each one, or the last alone."""
METADATA = "metadata.json"
PICTURE_SIZE = 512


def build(
    raw: Raw,
    *,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
    keep_single: bool = False,
    picture_size: int | None = None,
    back: int = 0,
    sessions: bool = True,
    targets: str = EVERY,
    before: Before | None = None,
) -> Dataset:
    """Make the data set of a catalogue folder in memory; pictures stay as they are on disk.

    Args:
      raw: The validated folder.
      fractions: Shares of the sessions in train, validation and test.
      keep_single: Whether train keeps sessions of one event, see `split_by_time`.
      picture_size: The size pictures will be stored at (it enters the fingerprint).
      back: See `split_by_time`.
      sessions: Whether sessions are made; without, the three splits are empty, and the data set is
        its rows with labels, which need none.
      targets: `EVERY` or `LAST`, which items of validation and test sessions are predicted.
      before: The data set that this one continues: old items keep their rows. None for none.

    Returns:
      The data set; its fingerprint covers the content and these settings, no path and no date.

    Raises:
      UserError: if the sessions can not be split, or there is neither a session nor a label.
    """
    raw = raw if before is None else in_old_rows(raw, before)
    check_labels(raw.description, sessions=sessions, labelled=raw.label is not None)
    splits = dict.fromkeys(SPLITS, no_sessions())
    if sessions:
        splits = split_sessions(raw, fractions, keep_single=keep_single, back=back)
    dataset = Dataset(
        name=raw.description.name,
        items=raw.items,
        splits=splits,
        exclude_seen=raw.description.exclude_seen,
        fingerprint="",
        has_time=raw.time is not None,
        has_users=raw.user is not None,
        event_names=raw.event_names,
        ratings=None if raw.label is None else make_ratings(raw),
    )
    return finished(
        dataset, raw.description, fractions=fractions, keep_single=keep_single,
        picture_size=picture_size, back=back, sessions=sessions, targets=targets, before=before,
    )  # fmt: skip


def check_labels(description: Description, *, sessions: bool, labelled: bool) -> None:
    """Check that there is something to prepare: sessions, or rows with labels.

    Raises:
      UserError: There is neither.
    """
    if not sessions and not labelled:
        raise UserError(
            f"{description.interactions_file}: without sessions the rows need a label; write "
            '[interactions] label = "..." in dataset.toml.'
        )


def finished(
    dataset: Dataset,
    description: Description,
    *,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
    keep_single: bool = False,
    picture_size: int | None = None,
    back: int = 0,
    sessions: bool = True,
    targets: str = EVERY,
    before: Before | None = None,
) -> Dataset:
    """Return a data set whose training is filtered as its description says, with a fingerprint.

    Args:
      dataset: Its splits as they were split.
      description: What the columns mean.
      fractions: See `build`, as all that follow.
      keep_single: The same.
      picture_size: The same.
      back: The same.
      sessions: The same.
      targets: The same.
      before: The same.
    """
    filters = {"k_core": description.k_core, "min_session_length": description.min_session_length}
    filtered = sessions and filters != {"k_core": 1, "min_session_length": 2}
    splits = dict(dataset.splits)
    if filtered:
        splits["train"] = filter_training(splits["train"], **filters)
    if targets == LAST:
        splits |= {name: last_alone(splits[name]) for name in ("validation", "test")}
    some = np.zeros(0, np.int32)  # those of training, which may be fewer now
    dataset = replace(dataset, splits=splits, id_items=some)
    settings = {
        "format": 1,  # of what is hashed, whatever the files are
        "fractions": [float(f) for f in fractions],
        "keep_single": keep_single,
        "session_gap_minutes": description.session_gap_minutes,
        "picture_size": picture_size or PICTURE_SIZE,
    }
    # Only where they are used, so that data prepared before there were filters stays the same.
    settings |= filters if filtered else {}
    settings |= {} if description.split == SESSION_START else {"split": description.split}
    moments = (description.validation_from, description.test_from)
    settings |= {"moments": moments} if any(moments) else {}
    settings |= {"back": back} if back else {}
    settings |= {"targets": LAST} if targets == LAST else {}
    settings |= {} if sessions else {"sessions": False}
    if before is not None:
        check_split(dataset, before)
        dataset = with_old_ids(dataset, before)
        settings |= {"continues": before.fingerprint}
    return replace(dataset, fingerprint=fingerprint(dataset, settings))


def prepare(
    folder: str | Path,
    toml: str | Path | None,
    out: str | Path,
    *,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
    keep_single: bool = False,
    picture_size: int | None = None,
    back: int = 0,
    sessions: bool = True,
    targets: str = EVERY,
    strict: bool = False,
    before: Before | None = None,
    forgotten: Forgotten | None = None,
    with_records: bool = False,
    warn: Callable[[str], None] = lambda sentence: None,
) -> Dataset:
    """Validate, sessionise, split by time and write a catalogue folder once.

    Everything is checked before anything is written, and ``out`` appears whole or not at all.
    With the same input and settings a second call only loads.

    Args:
      folder: The catalogue folder.
      toml: A description to use instead of ``folder/dataset.toml``, or None.
      out: The folder to write; it must not exist, be empty, or hold the same data.
      fractions: Shares of the sessions in train, validation and test.
      keep_single: Whether train keeps sessions of one event, see `split_by_time`.
      picture_size: The longest side of a stored picture (None: 512); larger ones are re-encoded.
      back: See `split_by_time`.
      sessions: See `build`.
      targets: See `build`.
      strict: Whether a broken row is an error; else it is left out.
      before: See `build`.
      forgotten: Who is left out once sessions are split, so that all others are in the split in
        which they would be without it.
      with_records: Whether sessions and ratings are written as ArrayRecord too, for other programs.
      warn: Called with each sentence about what was left out or mended.

    Returns:
      The data set as `load_prepared` reads it.

    Raises:
      UserError: if the folder is not valid or ``out`` holds something else.
    """
    out = Path(out)
    raw = read_folder(folder, toml, strict=strict)
    for warning in raw.warnings:
        warn(warning)
    dataset = build(
        raw,
        fractions=fractions,
        keep_single=keep_single,
        picture_size=picture_size,
        back=back,
        sessions=sessions,
        targets=targets,
        before=before,
    )
    if forgotten is not None:
        codes, ids, _ = find(dataset, *forgotten.among(raw, dataset), raw)
        dataset = without(dataset, left_by(dataset, codes, ids))
    if is_there(dataset, out, folder):
        stored = load_prepared(out)
        if with_records:
            records.write_rest(stored, out)
        return stored
    with ThreadPoolExecutor() as pool:
        found = filter(None, dataset.items.pictures)
        small = iter(list(pool.map(partial(shrink, size=picture_size or PICTURE_SIZE), found)))
    pictures = [next(small) if data else b"" for data in dataset.items.pictures]
    dataset = replace(dataset, items=replace(dataset.items, pictures=pictures))
    return write(dataset, out, with_records)


def is_there(dataset: Dataset, out: Path, folder: str | Path) -> bool:
    """Return whether a folder holds a data set already; a folder that is not there does not.

    Args:
      dataset: The data set, see `build`.
      out: The folder.
      folder: The catalogue folder, for messages.

    Raises:
      UserError: It holds something else, or the data set is damaged.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    known = _metadata(out)
    if known.get("fingerprint") != dataset.fingerprint:
        raise UserError(
            f"{out} holds other data than {folder} with these settings would give; "
            "name another folder or delete this one."
        )
    fresh = json.loads(json.dumps(_describe(dataset)))
    # Of the pictures those are counted that could be stored.
    open_ = dict.fromkeys(("format", "counts", "checksums"))
    if known | open_ != fresh | open_:
        raise UserError(_damaged(out))
    return True


def write(dataset: Dataset, out: Path, with_records: bool) -> Dataset:
    """Write a data set into a folder, as a whole or not at all.

    Args:
      dataset: The data set; its pictures as they are to be stored.
      out: The folder; it must not exist, or be empty.
      with_records: See `prepare`.

    Returns:
      The data set.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        temporary.chmod(0o755)
        records.write_items(dataset, temporary)
        if with_records:
            records.write_rest(dataset, temporary)
        _write_metadata(dataset, flat.write(dataset, temporary), temporary / METADATA)
        if out.exists():
            out.rmdir()
        temporary.rename(out)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return dataset


def load_prepared(out: str | Path) -> Dataset:
    """Load a prepared data set.

    Args:
      out: The folder that `prepare` wrote.

    Returns:
      The data set, equal to what was prepared.

    Raises:
      UserError: if the folder holds no prepared data or is damaged.
    """
    out = Path(out)
    metadata = _metadata(out)
    if not metadata:
        raise UserError(f"{out} holds no prepared data; make it with `jmrec data prepare`.")
    if metadata.get("format") not in (RECORDS_ONLY, FORMAT):
        raise UserError(
            f"{out} was prepared by another version of jmrec; delete the folder and prepare again."
        )
    fault: str | None = ""
    try:
        if metadata["format"] == FORMAT:
            some = {name: name in metadata for name in ("ratings", "value")}
            fault = flat.fault(out, metadata["checksums"], **some)
        if not fault:
            dataset = _read(out, metadata)
            fault = None if _counts(dataset) == metadata["counts"] else "it holds other counts"
    except Exception as error:  # TFDS and array_record raise many kinds on damage
        if reason := refusal(error):
            raise UserError(f"{out} can not be read ({reason}); mend that.") from None
        fault = ""
    if fault is not None:
        raise UserError(_damaged(out, fault))
    return dataset


def _read(out: Path, metadata: dict[str, Any]) -> Dataset:
    """Read what was prepared; any error is damage."""
    columns, label = metadata["columns"], metadata.get("ratings")
    splits = dict.fromkeys(SPLITS, no_sessions())
    ratings = None
    if metadata["format"] == RECORDS_ONLY:
        full = [name for name in SPLITS if metadata["counts"]["sessions"][name]]
        splits |= {name: records.read_sessions(out, name) for name in full}
        if label is not None:
            users = metadata["counts"]["ratings"]["users"]
            ratings = records.read_ratings(out, users=users, **label)
    else:
        splits = {name: flat.read_sessions(out, name) for name in SPLITS}
        if label is not None:
            ratings = flat.read_ratings(out, **label)
    items = records.read_items(out, columns["text"], columns["category"], columns["number"])
    if (value := metadata.get("value")) is not None:
        items = replace(items, value=(read := flat.read_value(out, **value)))
        if len(read.sold) != len(items):
            raise ValueError("the value of some items is missing")
    tables: list[Sessions | Ratings] = [*splits.values(), *([] if ratings is None else [ratings])]
    for table in tables:
        if ((table.items < 0) | (table.items >= len(items))).any():
            raise ValueError("an item is not in the catalogue")
    return Dataset(
        name=metadata["name"],
        items=items,
        splits=splits,
        exclude_seen=metadata["exclude_seen"],
        fingerprint=metadata["fingerprint"],
        has_time=metadata["has_time"],
        has_users=metadata["has_users"],
        event_names=metadata["event_names"],
        ratings=ratings,
        id_items=np.array(metadata.get("id_items", ()), np.int32),
        event_top=metadata.get("event_top", 0),
    )


def _damaged(out: Path, fault: str = "") -> str:
    said = f" ({fault})" if fault else ""
    return (
        f"{out} is damaged{said}; delete the folder and prepare again (in a run, delete "
        "data/stage.json of the workdir too and start jmrec run again)."
    )


def prepared_fingerprint(out: str | Path) -> str:
    """Return the fingerprint of a prepared data set, "" where there is none; nothing is loaded."""
    return str(_metadata(Path(out)).get("fingerprint", ""))


def _metadata(out: Path) -> dict[str, Any]:
    try:
        metadata = json.loads((out / METADATA).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return metadata if isinstance(metadata, dict) else {}


def take_out(out: str | Path, left: Left, new: Callable[[str], Path]) -> Dataset:
    """Write a prepared data set anew without some people; the catalogue is not touched.

    Args:
      out: The folder that `prepare` wrote.
      left: Who is left, of what `load_prepared` reads.
      new: Returns where to write what takes the place of a file or a folder of ``out``.

    Returns:
      The data set without them.

    Raises:
      UserError: Nobody is left.
    """
    out = Path(out)
    dataset = without(load_prepared(out), left)
    if not any(map(len, dataset.splits.values())) and not len(dataset.ratings or ()):
        raise UserError(f"they are all that {out} holds; delete the folder instead.")
    metadata = new(METADATA)
    with tempfile.TemporaryDirectory(dir=metadata.parent) as name:
        side = Path(name)
        sums = flat.write(dataset, side)
        (side / flat.FOLDER).rename(new(flat.FOLDER))
        held = [
            each for each in (records.SESSIONS, records.RATINGS) if _records(out, each).exists()
        ]
        if held:
            records.write_rest(dataset, side)
        for each in held:
            place = new(_records(Path(), each).as_posix())
            made = _records(side, each)
            made.rename(place) if made.exists() else place.mkdir()
    _write_metadata(dataset, sums, metadata)
    return dataset


def _records(out: Path, config: str) -> Path:
    return out / records.JmrecData.name / config


def _write_metadata(dataset: Dataset, sums: dict[str, str], path: Path) -> None:
    text = json.dumps(_describe(dataset) | {"checksums": sums}, indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def _describe(dataset: Dataset) -> dict[str, Any]:
    items, ratings = dataset.items, dataset.ratings
    about = {
        "format": FORMAT,
        "name": dataset.name,
        "fingerprint": dataset.fingerprint,
        "exclude_seen": dataset.exclude_seen,
        "has_time": dataset.has_time,
        "has_users": dataset.has_users,
        "counts": _counts(dataset),
        "event_names": dataset.event_names,
        "columns": {
            "text": list(items.text),
            "number": list(items.number),
            "category": items.category_names,
        },
    }
    # Only where they are others, so that data prepared before stays the same.
    plain = np.flatnonzero(dataset.train_count)
    if not np.array_equal(dataset.id_items, plain):
        about["id_items"] = dataset.id_items.tolist()
    if dataset.event_top:
        about["event_top"] = dataset.event_top
    if ratings is not None:
        about["ratings"] = {"label": ratings.label, "label_means": ratings.label_means}
    if (value := items.value) is not None:
        about["value"] = {"column": value.column, "share": value.share, "gain": value.gain}
    return about


def _counts(dataset: Dataset) -> dict[str, Any]:
    counts: dict[str, Any] = {
        "items": len(dataset.items),
        "pictures": sum(map(bool, dataset.items.pictures)),
        "sessions": {name: len(part) for name, part in dataset.splits.items()},
        "events": {name: len(part.items) for name, part in dataset.splits.items()},
    }
    if dataset.ratings is not None:
        counts["ratings"] = _count_ratings(dataset.ratings)
    return counts


def _count_ratings(ratings: Ratings) -> dict[str, int]:
    return {
        "rows": len(ratings),
        "users": len(ratings.user_ids),
        "reviews": sum(map(bool, ratings.reviews)),
        "labelled": int((ratings.labels >= 0).sum()),
        "positive": int((ratings.labels == 1).sum()),
    }
