"""Catalogue, sessions and ratings as ArrayRecord files, through TFDS without TensorFlow.

jmrec itself reads sessions and ratings from flat arrays (`jmrec.data.flat`), and from records where
an older version wrote them.
"""

import contextlib
import io
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from jmrec.data.schema import SPLITS, Dataset, Items, Ratings, Sessions
from jmrec.preemption import look

VERSION = "1.0.0"
ITEMS, SESSIONS, RATINGS = "items", "sessions", "ratings"
_CATALOGUE, _ROWS = "catalogue", "rows"  # the one split of items, of ratings ("all" is reserved)
BLOCK = 1024
"""Rows of the ratings in a record: one for each row takes minutes."""
_FILES = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
_SPLIT = {"name", "numBytes", "shardLengths"}
_INFO = {
    "configDescription", "configName", "description", "disableShuffling", "fileFormat",
    "moduleName", "name", "splits", "version",
}  # fmt: skip
"""What dataset_info.json may hold, at most."""
_BYTES = np.object_  # what TFDS calls a string of bytes


class LocalInfo(tfds.core.DatasetInfo):
    """What TFDS keeps of a data set that nobody has made before."""

    def initialize_from_bucket(self) -> None:
        """Do nothing, where TFDS would leave an empty folder among the temporary ones."""


class JmrecData(tfds.core.GeneratorBasedBuilder):
    """Writes one prepared data set, config by config.

    "items" has one split, "sessions" (where there are some) the three of time, "ratings" (where a
    label is declared) one; these two for other programs, on request. Without jmrec each opens as
    ``tfds.builder_from_directory(OUT + "/jmrec_data/items/1.0.0")``.
    """

    # TFDS would look for these beside the code, by way of a package that it does not declare.
    code_path = None
    pkg_dir_path = None
    url_infos: ClassVar[dict[str, Any]] = {}

    def __init__(self, dataset: Dataset, config: str, data_dir: Path) -> None:
        self._dataset, self._kind = dataset, config
        super().__init__(
            data_dir=data_dir,
            config=tfds.core.BuilderConfig(name=config, version=VERSION, description=config),
            file_format="array_record",  # the default needs TensorFlow, at the end of writing
        )

    def _info(self) -> LocalInfo:
        windows = self._dataset.items.has_windows
        return LocalInfo(
            builder=self,
            description="Prepared by jmrec.",
            features=features(self._kind, windows, self._chosen),
            disable_shuffling=True,
        )

    @property
    def _chosen(self) -> bool:
        """Whether some events only are targets."""
        return not all(part.targets.all() for part in self._dataset.splits.values())

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        if self._kind == ITEMS:
            return {_CATALOGUE: self._generate_items(self._dataset.items)}
        if self._kind == RATINGS:
            assert self._dataset.ratings is not None  # else this config is not written
            return {_ROWS: self._generate_ratings(self._dataset.ratings)}
        splits = self._dataset.splits
        return {name: self._generate_sessions(splits[name]) for name in SPLITS if splits[name]}

    def _generate_examples(self) -> Iterator[Any]:
        """Unused: every split has its own generator."""
        yield from ()

    def _generate_items(self, items: Items) -> Iterator[tuple[int, dict[str, Any]]]:
        count, some = len(items), items.has_windows
        windows = np.stack([items.available_from, items.available_until], 1)
        category = np.array([*items.category.values()], np.int32).reshape(-1, count).T
        number = np.array([*items.number.values()], np.float32).reshape(-1, count).T
        for row, name in enumerate(items.ids):
            look()
            yield (
                row,
                {
                    "row": row,
                    "id": name,
                    "text": [texts[row] for texts in items.text.values()],
                    "picture": items.pictures[row],
                    "category": category[row],
                    "number": number[row],
                    **({"available": windows[row]} if some else {}),
                },
            )

    def _generate_sessions(self, sessions: Sessions) -> Iterator[tuple[int, dict[str, Any]]]:
        for row, name in enumerate(sessions.ids):
            look()
            events = slice(sessions.offsets[row], sessions.offsets[row + 1])
            yield (
                row,
                {
                    "row": row,
                    "id": name,
                    "user": sessions.users[row],
                    "items": sessions.items[events],
                    "times": sessions.times[events],
                    "events": sessions.events[events],
                    "ratings": sessions.ratings[events],
                    **({"targets": sessions.targets[events]} if self._chosen else {}),
                },
            )

    def _generate_ratings(self, ratings: Ratings) -> Iterator[tuple[int, dict[str, Any]]]:
        names = [*ratings.user_ids, ""]  # the last for the code -1
        for start in range(0, len(ratings), BLOCK):
            look()
            rows = slice(start, start + BLOCK)
            yield (
                start,
                {
                    "row": start,
                    "items": ratings.items[rows],
                    "users": ratings.users[rows],
                    "user_ids": [names[code] for code in ratings.users[rows]],
                    "times": ratings.times[rows],
                    "labels": ratings.labels[rows].astype(np.int32),
                    "ratings": ratings.ratings[rows],
                    "reviews": ratings.reviews[rows],
                },
            )


def features(config: str, windows: bool, chosen: bool) -> tfds.features.FeaturesDict:
    """Return what a record of the items, of the sessions or of the ratings holds.

    Args:
      config: `ITEMS`, `SESSIONS` or `RATINGS`.
      windows: Whether items are available for a while only.
      chosen: Whether some events only are targets.
    """
    f = tfds.features
    many = {"shape": (None,)}
    found: dict[str, Any]
    if config == ITEMS:
        found = {
            "row": f.Scalar(np.int64),
            "id": f.Text(),
            "text": f.Sequence(f.Text()),
            "picture": f.Scalar(_BYTES),
            "category": f.Tensor(dtype=np.int32, **many),
            "number": f.Tensor(dtype=np.float32, **many),
        }
        if windows:
            found["available"] = f.Tensor(shape=(2,), dtype=np.float64, encoding=f.Encoding.BYTES)
    elif config == RATINGS:
        found = {
            "row": f.Scalar(np.int64),
            "items": f.Tensor(dtype=np.int32, **many),
            "users": f.Tensor(dtype=np.int32, **many),
            "user_ids": f.Sequence(f.Text()),
            "times": f.Tensor(dtype=np.float64, encoding=f.Encoding.BYTES, **many),
            "labels": f.Tensor(dtype=np.int32, **many),
            "ratings": f.Tensor(dtype=np.float32, **many),
            "reviews": f.Sequence(f.Text()),
        }
    else:
        found = {
            "row": f.Scalar(np.int64),
            "id": f.Text(),
            "user": f.Scalar(np.int32),
            "items": f.Tensor(dtype=np.int32, **many),
            # Otherwise TFDS keeps floats in 32 bits: unix seconds to the next two minutes.
            "times": f.Tensor(dtype=np.float64, encoding=f.Encoding.BYTES, **many),
            "events": f.Tensor(dtype=np.int32, **many),
            "ratings": f.Tensor(dtype=np.float32, **many),
        }
        if chosen:
            found["targets"] = f.Tensor(dtype=np.bool_, **many)
    return f.FeaturesDict(found)


def write_items(dataset: Dataset, out: Path) -> None:
    """Write the items of a data set under ``out``."""
    _write(dataset, [ITEMS], out)


def write_rest(dataset: Dataset, out: Path) -> None:
    """Write the sessions and ratings that a data set has, those that are not there yet."""
    some = [SESSIONS] if any(map(len, dataset.splits.values())) else []
    some += [RATINGS] if dataset.ratings is not None else []
    _write(dataset, [each for each in some if not _folder(out, each).exists()], out)


def _write(dataset: Dataset, configs: list[str], out: Path) -> None:
    with _quiet():
        for config in configs:
            JmrecData(dataset, config, out).download_and_prepare()
    shutil.rmtree(out / "downloads", ignore_errors=True)  # TFDS makes it, nothing is in it


def _folder(out: Path, config: str) -> Path:
    return out / JmrecData.name / config / VERSION


def read_items(
    out: Path, fields: list[str], category_names: dict[str, list[str]], numbers: list[str]
) -> Items:
    """Read the catalogue back.

    Args:
      out: The folder that they were written under.
      fields: Names of the text fields, in order.
      category_names: Category column -> names by code, in order.
      numbers: Names of the number columns, in order.

    Returns:
      The items, equal to those written.
    """
    records = _records(out, ITEMS, _CATALOGUE)
    text = {name: [r["text"][i].decode() for r in records] for i, name in enumerate(fields)}
    category = np.array([r["category"] for r in records], np.int32)
    number = np.array([r["number"] for r in records], np.float32)
    none = (-np.inf, np.inf)  # data without windows has no such feature
    windows = np.array([r.get("available", none) for r in records], np.float64)
    return Items(
        ids=[r["id"].decode() for r in records],
        titles=text["title"],
        text=text,
        pictures=[r["picture"] for r in records],
        category={name: category[:, i] for i, name in enumerate(category_names)},
        category_names=category_names,
        number={name: number[:, i] for i, name in enumerate(numbers)},
        available_from=windows[:, 0],
        available_until=windows[:, 1],
    )


def read_sessions(out: Path, split: str) -> Sessions:
    """Read one split of the sessions back, equal to what was written."""
    records = _records(out, SESSIONS, split)
    lengths = [len(r["items"]) for r in records]

    return Sessions(
        ids=[r["id"].decode() for r in records],
        users=np.array([r["user"] for r in records], np.int32),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        items=_flat(records, "items", np.int32),
        times=_flat(records, "times", np.float64),
        events=_flat(records, "events", np.int32),
        ratings=_flat(records, "ratings", np.float32),
        **({"targets": _flat(records, "targets", bool)} if "targets" in (*records, {})[0] else {}),
    )


def read_ratings(out: Path, *, users: int, label: str, label_means: str) -> Ratings:
    """Read the ratings back.

    Args:
      out: The folder that they were written under.
      users: How many codes of users there are.
      label: What the label is.
      label_means: What it means.

    Returns:
      The ratings, equal to those written if each user id has a row; the id of another is "".
    """
    records = _records(out, RATINGS, _ROWS)
    codes = _flat(records, "users", np.int32)
    ids = _flat(records, "user_ids", np.object_)
    names = dict(zip(codes.tolist(), ids))
    return Ratings(
        items=_flat(records, "items", np.int32),
        users=codes,
        user_ids=[names.get(code, b"").decode() for code in range(users)],
        times=_flat(records, "times", np.float64),
        labels=_flat(records, "labels", np.int8),
        ratings=_flat(records, "ratings", np.float32),
        reviews=[review.decode() for record in records for review in record["reviews"]],
        label=label,
        label_means=label_means,
    )


def _flat(records: list[dict[str, Any]], key: str, dtype: Any) -> np.ndarray:
    """Return the arrays of a key, one after the other."""
    return np.concatenate([r[key] for r in records] or [[]]).astype(dtype)


def _records(out: Path, config: str, split: str) -> list[dict[str, Any]]:
    folder = _folder(out, config)
    _check_description(folder, config)
    with _quiet():
        builder = tfds.builder_from_directory(folder)
        source = builder.as_data_source(split)
        records = list(source.__getitems__(list(range(len(source)))))
    return sorted(records, key=lambda record: record["row"])


def _check_description(folder: Path, config: str) -> None:
    """Refuse a folder that describes anything else than what jmrec writes.

    TFDS imports the classes that features.json names and opens the files that dataset_info.json
    names, so both are compared before it reads them.

    Raises:
      ValueError: It does.
    """
    features = json.loads((folder / "features.json").read_bytes())
    if features not in [_as_written(config, more) for more in (False, True)]:
        raise ValueError("features.json is not what jmrec writes")
    info = json.loads((folder / "dataset_info.json").read_bytes())
    names = [split.pop("filepathTemplate") for split in info["splits"]]
    if (
        set(info) - _INFO
        or info["name"] != JmrecData.name
        or info["fileFormat"] != "array_record"
        or any(set(split) - _SPLIT for split in info["splits"])
        or any(name != _FILES for name in names)
    ):
        raise ValueError("dataset_info.json is not what jmrec writes")


def _as_written(config: str, more: bool) -> Any:
    """Return features.json as TFDS writes it, with what only some data has, or without."""
    with tempfile.TemporaryDirectory() as folder:
        features(config, more, more).save_config(folder)
        return json.loads((Path(folder) / "features.json").read_bytes())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep TFDS from talking about downloads where nothing is downloaded."""
    tfds.disable_progress_bar()
    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(before)
