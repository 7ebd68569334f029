"""The data of one run: stage "data", and what later stages read of it."""

from collections.abc import Callable, Mapping
from functools import cached_property
from math import gcd, lcm
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jmrec.config import ConfigDict, resolve_path
from jmrec.data.forgotten import Forgotten
from jmrec.data.grown import Before
from jmrec.data.packing import packed_batches
from jmrec.data.pipeline import (
    Buckets,
    choose_buckets,
    flat_events,
    item_batches,
    session_batches,
)
from jmrec.data.prepared import EVERY, load_prepared, prepare, prepared_fingerprint
from jmrec.data.schema import Dataset
from jmrec.data.source_files import source_changes, source_checksum, source_files
from jmrec.data.toyshop import ToyShopConfig, write_toyshop
from jmrec.errors import UserError
from jmrec.evaluation.figures import figures
from jmrec.evaluation.protocol import ask, rank
from jmrec.evaluation.rankers.ease import said_of_bound
from jmrec.evaluation.rankers.known import EASE_ITEMS
from jmrec.evaluation.rankers.neural import CompiledEncoder
from jmrec.evaluation.results import HR20, RANKING
from jmrec.files import read_json, write_json
from jmrec.sharding import make_mesh, process_rows
from jmrec.systems.sealed import read_stage
from jmrec.systems.stages import Stage
from jmrec.systems.work import Work
from jmrec.tasks.resident import ResidentTask
from jmrec.types import Params, Task

FRACTIONS = (0.8, 0.1, 0.1)
"""Shares of the sessions in train, validation and test, where no sessions are wanted."""
SOURCE, CHECKSUM = "source.json", "source.sha256"
"""Of the files that the data was made of: their state, and the setting that stands for them."""
FORGOTTEN = "forgotten.json"
"""Who was taken out of a run's data and stays out, see `jmrec.data.forgotten.Forgotten`."""
BEFORE, KEPT = "before", "data.json"
"""Folder of the run that this one continues: its parameters, and what its data has to keep."""
RESIDENT = 2**30
"""Bytes of training sessions that live on an accelerator where nothing else is wanted, at most."""
INDEX = "item_index.json"
"""Item ids in the order of their rows; append-only."""


def fingerprint(folder: Path) -> str:
    """Return the identity of the data set that stage "data" wrote into its folder."""
    return prepared_fingerprint(folder / "prepared")


class RunData:
    """The prepared data set of one run, and batches of it. Read when it is first asked for.

    Args:
      work: The run.
      sessions: Whether sessions are made; without them it is the rows with a label that count.
    """

    def __init__(self, work: Work, sessions: bool = True) -> None:
        self.work, self.sessions_wanted = work, sessions
        self.files: dict[str, list[int | str]] = {}

    def stage(
        self, finish: Callable[[Path], None] | None = None, **more: Mapping[str, Any]
    ) -> Stage:
        """Return the stage "data".

        Args:
          finish: Called with the stage's folder when the data set is prepared.
          **more: Further settings that decide what the stage writes.
        """

        def run(folder: Path) -> None:
            self._prepare(folder)
            if finish is not None:
                finish(folder)

        c = self.work.config.data
        own = {name: c[name] for name in c if name != "toyshop" or c.source == "toyshop"}
        source, words = self._source()
        if (before := self.before) is not None:
            source |= {"continues": before.fingerprint}
        return Stage(
            "data", {"data": own, **source, **more}, (), run, alone=True, content=fingerprint,
            outside=(CHECKSUM,), words=words, beside=(INDEX,),
        )  # fmt: skip

    def _source(self) -> tuple[dict[str, Any], dict[str, str]]:
        """Return the setting that stands for the folder's content, and what changed, in words."""
        c, folder = self.work.config.data, self.work.workdir / "data"
        known = read_stage(folder)
        before = None if known is None else known["settings"].get(CHECKSUM)
        if c.source == "toyshop" or c.dir is None or (known is not None and before is None):
            return {}, {}  # its settings say all; or an older jmrec kept nothing
        found, group = resolve_path(c.dir), CHECKSUM.split(".")[0]
        if not found.is_dir() or (known is not None and not self.work.compares):
            return ({} if known is None else {group: {"sha256": before}}), {}
        toml = None if c.toml is None else resolve_path(c.toml)
        old = read_json(folder / SOURCE) if (folder / SOURCE).is_file() else {}
        self.files = source_files(found, toml, old)
        return {group: {"sha256": source_checksum(self.files)}}, {
            CHECKSUM: source_changes(old, self.files)
        }

    def _prepare(self, folder: Path) -> None:
        c = self.work.config.data
        toml: str | Path | None = c.toml
        if c.source == "toyshop":
            source = folder / "toyshop"
            if not (source / "truth.npz").is_file():
                sizes = c.toyshop.to_dict()
                # A ConfigDict has a method "items", so that no override could reach such a field.
                write_toyshop(source, ToyShopConfig(items=sizes.pop("n_items"), **sizes))
            toml = toml if self.sessions_wanted else source / "reviews.toml"
        elif c.dir is None:
            raise UserError("data=folder needs your catalogue folder: --config.data.dir=FOLDER.")
        else:
            source = resolve_path(c.dir)
        toml = None if toml is None else resolve_path(toml)
        dataset = prepare(
            source, toml, folder / "prepared", fractions=tuple(c.get("fractions", FRACTIONS)),
            back=c.get("back", 0), targets=c.get("targets", EVERY),
            sessions=self.sessions_wanted, warn=self.work.tracker.warn,
            forgotten=Forgotten.read(self.work.workdir / FORGOTTEN), before=self.before,
        )  # fmt: skip
        write_json(self.work.workdir / INDEX, dataset.items.ids)
        if self.sessions_wanted and (
            said := said_of_bound(dataset.train_count, ease_items(self.work.config))
        ):
            self.work.tracker.warn(said)
        if self.files:
            write_json(folder / SOURCE, self.files)

    @property
    def before(self) -> Before | None:
        """What the data has to keep of the run that this one continues, if there is one."""
        path = self.work.workdir / BEFORE / KEPT
        return Before.from_json(read_json(path)) if path.is_file() else None

    @property
    def truth(self) -> Path:
        """The truth behind ToyShop; no file where the data is real."""
        return self.work.workdir / "data" / "toyshop" / "truth.npz"

    @cached_property
    def dataset(self) -> Dataset:
        """The prepared data set."""
        return load_prepared(self.work.workdir / "data" / "prepared")

    @cached_property
    def train_items(self) -> np.ndarray:
        """Bool [V], items that occur in training."""
        return self.dataset.train_count > 0

    @property
    def train_rows(self) -> np.ndarray:
        """Rows of the items that occur in training, int64, ascending."""
        return np.flatnonzero(self.train_items)

    @cached_property
    def context(self) -> dict[str, Any]:
        """What of a session's context is read: "gaps" (bool) and "events" (types, 0 is none)."""
        c, train = self.work.config.context, self.dataset.splits["train"]
        types = max(int(train.events.max(initial=0)), self.dataset.event_top) + 1
        return {
            "gaps": bool(c.gap and self.dataset.has_time),
            "events": types if c.event and types > 1 else 0,
        }

    def sessions(
        self, train: ConfigDict, *, packed: bool, seed: int | None = None, places: bool = False
    ) -> Any:
        """Return training batches of sessions, this process's share.

        Args:
          train: The settings of the fit. A batch has ``batch_size`` windows of full length, or so
            many more as need as many positions.
          packed: Whether several short sessions may share a row; else those of about the same
            length are a batch.
          seed: Of the order; the run's own where None.
          places: Whether batches say the place of an event among all training events.
        """
        config = self.work.config
        draw: dict[str, Any] = {
            "seed": config.seed if seed is None else seed,
            "read": process_rows(make_mesh(config.rules)),
            "places": places,
            "only_places": self.on_device,
        }
        sessions = self.dataset.splits["train"]
        if packed:
            length = config.data.window
            return packed_batches(sessions, rows=train.batch_size, length=length, **draw)
        return session_batches(sessions, buckets=self._buckets(train), **draw)

    @cached_property
    def on_device(self) -> bool:
        """Whether the training sessions live on the device."""
        events = len(self.dataset.splits["train"].items)
        return live_on_device(self.work.config, events, jax.default_backend())

    def task(self, task: Task) -> Task:
        """Return a task as it is trained on the batches of `sessions`."""
        if not self.on_device:
            return task
        return ResidentTask(task, flat_events(self.dataset.splits["train"]))

    def _buckets(self, train: ConfigDict) -> Buckets:
        """Return the shapes of batches that are not packed, chosen from how long sessions are."""
        return choose_buckets(
            self.dataset.splits["train"], self.work.config.data.window, train.batch_size,
            unit=rows_unit(train.batch_size, train.accumulate),
        )  # fmt: skip

    def batches_fingerprint(self, train: ConfigDict, *, packed: bool) -> str:
        """Return what decides the batches of `sessions`, beside the seed."""
        kind = "rows" if packed else f"batches of {self._buckets(train)}"
        return f"{self.dataset.fingerprint} in {kind}"

    def items(self, arrays: Mapping[str, np.ndarray], rows: np.ndarray, batch_size: int) -> Any:
        """Return training batches of items, this process's share."""
        config = self.work.config
        read = process_rows(make_mesh(config.rules))
        return item_batches(arrays, rows, batch_size=batch_size, seed=config.seed, read=read)

    def validate(
        self, encoder: CompiledEncoder, features: Mapping[str, Any]
    ) -> Callable[[Params, Any], dict[str, float]]:
        """Return the evaluation during training: the primary figure on validation."""
        predictions = ask(self.dataset, "validation")
        predictions = predictions.take(np.flatnonzero(predictions.place <= 20))

        def evaluate(params: Params, task_state: Any) -> dict[str, float]:
            ranker = encoder.ranker("validation", params)
            ranker.prepare(features)
            ranked = rank(
                ranker, predictions, n_items=len(self.dataset.items),
                exclude_seen=self.dataset.exclude_seen, top=0,
            )  # fmt: skip
            found = figures(ranked.ranks[0], predictions)[RANKING["figure"]]
            return {"score": found[RANKING["metric"]] or 0.0, HR20: found[HR20] or 0.0}

        return evaluate


def ease_items(config: ConfigDict) -> int:
    """Return of how many items the rule EASE holds weights at most, in a run's settings.

    Example:
      >>> ease_items(ConfigDict({"evaluate": {"ease_items": 7}})), ease_items(ConfigDict())
      (7, 20000)
    """
    return int(config.get("evaluate", ConfigDict()).get("ease_items", EASE_ITEMS))


def live_on_device(config: ConfigDict, events: int, kind: str) -> bool:
    """Return whether training sessions of so many events live on the device.

    Example:
      >>> live_on_device(ConfigDict(), 1000, "gpu"), live_on_device(ConfigDict(), 1000, "cpu")
      (True, False)
      >>> live_on_device(ConfigDict(), 10**8, "gpu")
      False
    """
    wanted, each = config.get("on_device", "auto"), 17  # bytes: four numbers and a truth value
    fits = kind != "cpu" and events * each <= RESIDENT
    return bool(wanted == "always" or (wanted == "auto" and fits))


def rows_unit(batch_size: int, accumulate: int) -> int:
    """Return a number that divides the rows of every batch of sessions, and ``batch_size``.

    A batch that can be shared out, over devices or microbatches, is so whichever its sessions are.

    Example:
      >>> rows_unit(32, 1), rows_unit(24, 3), rows_unit(512, 1)
      (16, 24, 512)
    """
    return lcm(batch_size if batch_size >= 256 else gcd(batch_size, 16), accumulate)
