"""Stages "rankers/NAME-SEED": the DLRMs of a run, and their scores for every row."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jmrec.config import ConfigDict, choose
from jmrec.data.known import Cuts, Questions
from jmrec.data.pipeline import item_batches
from jmrec.features import ROWS, pad_rows
from jmrec.models.dlrm import UNKNOWN, DlrmConfig, dlrm
from jmrec.systems.fit import seeded
from jmrec.systems.mmrec.data import GROUPS, RatingData
from jmrec.systems.mmrec.describe import MEAN, NONE, Descriptions
from jmrec.systems.mmrec.features import Numbers, pair_arrays, pair_numbers
from jmrec.systems.mmrec.space import Space
from jmrec.systems.stages import Stage
from jmrec.systems.work import Work, numbers
from jmrec.tasks.rank import STRATEGIES, Balance, RankTask, gather
from jmrec.training import Trainer
from jmrec.types import Params

ARMS = ("ids", "text", "picture", "both")
"""What of an item is read: nothing but ids and numbers, its texts and reviews, its picture, all."""
CONTROLS = ("no reviews", "half the reviews", "reviews shuffled", "pictures permuted")
REMOVALS = {
    "text": ("words", "reviews", "profile"),
    "picture": ("picture", "seen"),
    "history": (),
    "ids": (),
}
"""What can be removed of all pairs, and which parts go with it. The history is what numbers and
attention know of earlier rows; what those rows said is text."""
BLOCK = 4096


@dataclass(frozen=True)
class Part:
    """One thing that is read of a pair.

    Attributes:
      name: "words", "reviews", "profile", "picture" or "seen".
      table: float32 [rows, W].
      ok: bool [rows], where there is something.
      row: int32 [N], the table's row of each pair, a row of the data or a question.
      of: "item" or "user" where it is made of earlier rows, "" else.
    """

    name: str
    table: np.ndarray
    ok: np.ndarray
    row: np.ndarray
    of: str = ""


PAST_PARTS = ("words", "picture")
"""What of a past item is read."""


def ranker_settings(config: ConfigDict, name: str) -> ConfigDict:
    """Return the group "rank" with what a ranker changes of it."""
    found = ConfigDict(config.rank.to_dict())
    found.update(config.rankers[name].to_dict())
    return found


def dlrm_config(
    settings: ConfigDict,
    widths: Mapping[str, int],
    balance: Balance,
    *,
    numbers: int,
    items: int,
    users: int,
    categories: tuple[int, ...],
) -> DlrmConfig:
    """Return a ranker's size.

    Args:
      settings: From `ranker_settings`.
      widths: Name of a part -> its width, in the order in which parts are read.
      balance: The classes, with the ranker's strategy.
      numbers: How many numbers a pair has.
      items: Of the catalogue.
      users: Of the data.
      categories: How many values each category of an item has, a missing one among them.
    """
    c = settings
    return DlrmConfig(
        numbers=numbers,
        items=table_rows(items) if c.ids else 0,
        users=table_rows(users) if c.ids else 0,
        categories=categories,
        parts=tuple(widths.values()),
        past=sum(widths.get(name, 0) for name in PAST_PARTS) if c.past else 0,
        width=c.width,
        bottom=tuple(c.bottom),
        top=tuple(c.top),
        cross=c.cross,
        cross_layers=c.cross_layers,
        # The log odds that the strategy's loss sees.
        prior=float(np.log(balance.odds) - balance.shift),
    )


class _Made(NamedTuple):
    """What is compiled and read once for all seeds of a ranker."""

    task: RankTask
    arrays: dict[str, np.ndarray]
    trainer: Trainer
    score: Callable[[Params, np.ndarray], np.ndarray]


class DlrmRankers:
    """The rankers of one run, one a name of the config's "rankers".

    Args:
      work: The run; its groups "rank" and "rankers".
      data: Its rows.
      texts: What was written of reviews.
      space: What was read.

    Raises:
      UserError: A ranker's settings make no sense.
    """

    def __init__(self, work: Work, data: RatingData, texts: Descriptions, space: Space) -> None:
        self.work, self.data, self.told, self.space = work, data, texts, space
        self._tables: dict[tuple[str, str], np.ndarray] = {}
        self._last: tuple[str, _Made] | None = None
        c = work.config
        for name, variant in c.rankers.items():
            choose(f"rankers.{name}.arm", variant.arm, ARMS)
            choose(f"rankers.{name}.strategy", variant.strategy, STRATEGIES)
            for by in ("item", "user"):
                known = (MEAN, NONE, *c.describe[by])
                choose(f"rankers.{name}.{by}_reviews", variant[f"{by}_reviews"], known)

    @property
    def names(self) -> list[str]:
        """All rankers, in the order of the config."""
        return list(self.work.config.rankers)

    @property
    def seeds(self) -> tuple[int, ...]:
        """Each ranker is trained once with each."""
        return tuple(self.work.config.seeds)

    def settings(self, name: str) -> ConfigDict:
        """Return the group "rank" with what a ranker changes of it."""
        return ranker_settings(self.work.config, name)

    def stages(self, before: tuple[str, ...]) -> list[Stage]:
        """Return a stage for each ranker and seed.

        Args:
          before: The stages that they read.
        """
        found = []
        for name in self.names:
            for seed in self.seeds:
                found.append(self._stage(name, seed, before))
        return found

    def _stage(self, name: str, seed: int, before: tuple[str, ...]) -> Stage:
        named = seeded(f"rankers.{name}", seed)
        c = self.work.config
        own = {"ranker": self.settings(name), "protocol": c.protocol, "seed": seed}
        if c.rankers[name].arm in ("text", "both"):
            own["sizes"] = c.describe.sizes

        def run(folder: Path) -> None:
            self._train(folder, name, seed, named.name)

        return Stage(named.name, own, before, run, group=named.group, seed=seed, path=named.path)

    # ---- what is read ---------------------------------------------------------------------------

    @cached_property
    def pair_numbers(self) -> Numbers:
        """The numbers of all rows."""
        return pair_numbers(self.data.known, self.data.items, self.data.rows.train)

    def parts(self, name: str, asked: Questions | None = None) -> list[Part]:
        """Return what a ranker reads of pairs beside numbers and ids.

        Args:
          name: The ranker.
          asked: N questions; None asks for each row.
        """
        variant = self.work.config.rankers[name]
        item = (self.data.known.rows if asked is None else asked).items.astype(np.int32)
        found = []
        if variant.arm in ("text", "both"):
            words = self.space.words()
            found.append(Part("words", words, _some(words), item))
            for by, part in (("item", "reviews"), ("user", "profile")):
                how, cuts = variant[f"{by}_reviews"], self.data.cuts[by]
                if how != NONE:
                    table = self._said(by, how, cuts)
                    row = cuts.of_row if asked is None else cuts.newest(asked)
                    found.append(Part(part, table, _some(table), row.astype(np.int32), by))
        if variant.arm in ("picture", "both"):
            found.append(Part("picture", self.space.pictures(), self.space.picture_ok, item))
            how = self.work.config.describe.picture
            if how != NONE:
                table = self.space.told("picture", how)
                found.append(Part("seen", table, _some(table), item))
        return found

    def _said(self, by: str, how: str, cuts: Cuts) -> np.ndarray:
        """Return what was said up to each cut, float32 [C, W]; computed once."""
        if (by, how) not in self._tables:
            self._tables[by, how] = self._read_said(by, how, cuts)
        return self._tables[by, how]

    def _read_said(self, by: str, how: str, cuts: Cuts) -> np.ndarray:
        if how != MEAN:
            return self.space.told(by, how)
        reviews = self.space.reviews()
        empty = np.zeros(reviews.shape[1], np.float32)
        return np.stack([reviews[rows].mean(0) if len(rows) else empty for rows in cuts.rows])

    def arrays(
        self, name: str, parts: list[Part], asked: Questions | None = None
    ) -> dict[str, np.ndarray]:
        """Return what a batch holds of all N rows, or of other questions; those have no label."""
        data, past = self.data, int(self.settings(name).past)
        train, numbers = data.rows.train, self.pair_numbers
        if asked is not None:
            numbers = pair_numbers(data.known, data.items, train, asked)
        found = pair_arrays(data.known, data.items, numbers, train, past, asked)
        rows = np.zeros((len(found["item_id"]), len(parts)), np.int32)
        for p, part in enumerate(parts):
            rows[:, p] = part.row
        if asked is None:
            found["label"] = np.maximum(data.ratings.labels, 0).astype(np.int32)
        return {**found, "part_row": rows}

    def tables(self, name: str, parts: list[Part]) -> dict[str, Any]:
        """Return what `jmrec.tasks.rank.gather` reads beside a batch."""
        n, found = self.pair_numbers, {}
        for p, part in enumerate(parts):
            found[f"part/{p}"] = pad_rows(part.table)
            found[f"part_ok/{p}"] = pad_rows(part.ok)
        of_items = [part.table for part in parts if part.name in PAST_PARTS]
        if self.settings(name).past and of_items:
            found["past/item"] = pad_rows(np.concatenate(of_items, 1))
        for by in ("item", "user"):
            found[f"empty/{by}"], found[f"of/{by}"] = n.empty[by], n.of[by]
            found[f"hides/{by}"] = np.array([part.of == by for part in parts], bool)
        return found

    def config(self, name: str, parts: list[Part], balance: Balance) -> DlrmConfig:
        """Return a ranker's size."""
        items = self.data.items
        return dlrm_config(
            self.settings(name), {part.name: part.table.shape[1] for part in parts}, balance,
            numbers=len(self.pair_numbers.names), items=len(items),
            users=len(self.data.ratings.user_ids),
            categories=tuple(len(names) for names in items.category_names.values()),
        )  # fmt: skip

    def balance(self, name: str) -> Balance:
        """Return how the classes stand in the training rows, with a ranker's strategy."""
        c, labels = self.settings(name), self.data.ratings.labels[self.data.rows.train]
        return Balance(
            c.strategy, int((labels == 0).sum()), int((labels == 1).sum()), c.share, c.beta,
            c.hparams.tau,
        )  # fmt: skip

    def task(self, name: str, parts: list[Part]) -> RankTask:
        """Return what a ranker's stage trains."""
        balance = self.balance(name)
        return RankTask(
            self.config(name, parts, balance), balance, self.tables(name, parts),
            numbers(self.settings(name)),
        )  # fmt: skip

    # ---- training -------------------------------------------------------------------------------

    def _train(self, folder: Path, name: str, seed: int, stage: str) -> None:
        made, c = self._made(name), self.settings(name)
        rows = self.data.rows.train
        labels = self.data.ratings.labels
        positive = np.tile(rows[labels[rows] == 1], made.task.balance.repeats)
        drawn = np.concatenate([rows[labels[rows] == 0], positive])
        batches = item_batches(
            made.arrays, np.sort(drawn), batch_size=c.train.batch_size, seed=seed,
            read=self.data.process_rows(),
        )  # fmt: skip
        # Here, so that a wrong setting is answered before it is loaded.
        from sklearn.metrics import average_precision_score, roc_auc_score

        held = self.data.rows.validation
        truth = labels[held] == 1

        def evaluate(params: Params, _: Any) -> dict[str, float]:
            found = made.score(params, held)
            return {
                "score": float(average_precision_score(truth, found)),
                "ROC-AUC": float(roc_auc_score(truth, found)),
            }

        self.work.fit(
            folder, stage, made.trainer, c.train, batches, fingerprint=self.data.fingerprint,
            seed=seed, evaluate=evaluate,
        )  # fmt: skip

    def _made(self, name: str) -> "_Made":
        """Return what the seeds of a ranker share; they come one after another."""
        if self._last is None or self._last[0] != name:
            self._last = None  # freed before there is another
            parts = self.parts(name)
            task, arrays = self.task(name, parts), self.arrays(name, parts)
            trainer = self.work.trainer(task, self.settings(name).train)
            score = scorer(task, task.frozen_inputs, arrays)
            self._last = name, _Made(task, arrays, trainer, score)
        return self._last[1]

    # ---- scores ---------------------------------------------------------------------------------

    def logits(
        self, name: str, rows: np.ndarray, control: str = "", without: str = ""
    ) -> np.ndarray:
        """Return the logits of the positive class, at the data's own ratio of the classes.

        Args:
          name: The ranker.
          rows: int64 [M], rows of the ratings.
          control: One of `CONTROLS`, or "" for the ranker as it is.
          without: One of `removals`, or "".

        Returns:
          float64 [seeds, M].
        """
        self._last = None  # all are trained
        gone = REMOVALS[without] if without else ()
        parts = [
            replace(part, ok=part.ok & (part.name not in gone))
            for part in (self._controlled(part, control) for part in self.parts(name))
        ]
        task, arrays = self.task(name, parts), self.arrays(name, parts)
        if without == "history":
            arrays |= self._no_history(arrays)
        if without == "ids":
            arrays |= {f"{by}_id": np.full_like(arrays[f"{by}_id"], UNKNOWN) for by in GROUPS}
        score = scorer(task, task.frozen_inputs, arrays)
        every = []
        for seed in self.seeds:
            stage = seeded(f"rankers.{name}", seed).name
            every.append(score(self.work.params(stage, task.model), rows) + task.balance.shift)
        return np.stack(every)

    def _controlled(self, part: Part, control: str) -> Part:
        """Return a part as a control shows it."""
        random = np.random.default_rng(self.work.config.seed)
        said = part.name in ("reviews", "profile")
        if control == "no reviews" and said:
            return Part(part.name, part.table, np.zeros_like(part.ok), part.row, part.of)
        if control == "half the reviews" and said:
            fewer = _earlier_cut(self.data.cuts[part.of])
            return Part(part.name, part.table, part.ok, fewer[part.row].astype(np.int32), part.of)
        if control == "reviews shuffled" and said:
            some = np.flatnonzero(part.ok)
            other = np.arange(len(part.ok))
            other[some] = random.permutation(some)
            return Part(part.name, part.table, part.ok, other[part.row].astype(np.int32), part.of)
        if control == "pictures permuted" and part.name in ("picture", "seen"):
            order = random.permutation(len(part.table))
            return Part(part.name, part.table[order], part.ok[order], part.row, part.of)
        return part

    def _no_history(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return what batches hold of pairs of which nothing earlier is known."""
        known, values = self.pair_numbers, arrays["numbers"]
        for by in GROUPS:
            values = np.where(known.of[by], known.empty[by], values)
        return {"numbers": values, "past_mask": np.zeros_like(arrays["past_mask"])}

    def removals(self, name: str) -> list[str]:
        """Return what of `REMOVALS` a ranker reads at all."""
        read = {part.name for part in self.parts(name) if part.ok.any()}
        wanted = [what for what, parts in REMOVALS.items() if read & set(parts)]
        return [*wanted, "history", *(["ids"] if self.settings(name).ids else [])]

    def controls(self, name: str) -> list[str]:
        """Return the controls that change anything of a ranker."""
        read = {part.name for part in self.parts(name) if part.ok.any()}
        wanted = []
        if read & {"reviews", "profile"}:
            wanted += list(CONTROLS[:3])
        return wanted + (["pictures permuted"] if "picture" in read else [])


def _earlier_cut(cuts: Cuts) -> np.ndarray:
    """Return for each cut the newest one of its group with at most half as many reviews."""
    size = np.array([len(rows) for rows in cuts.rows], np.int64)
    order = np.lexsort((size, cuts.group))
    width = int(size.max(initial=0)) + 1
    key = cuts.group[order].astype(np.int64) * width + size[order]
    # The last one in the order whose size is at most the half; a group begins with an empty cut.
    place = np.searchsorted(key, cuts.group.astype(np.int64) * width + size // 2, side="right") - 1
    return np.asarray(order[place])


def _some(table: np.ndarray) -> np.ndarray:
    return np.any(table != 0, axis=1)


def table_rows(count: int) -> int:
    """Return the rows of a table of ids: one more, padded so that any topology can share it.

    Example:
      >>> table_rows(5), table_rows(1024)
      (1024, 2048)
    """
    return -(-(count + 1) // ROWS) * ROWS


def scorer(
    task: RankTask, tables: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> Callable[[Params, np.ndarray], np.ndarray]:
    """Return ``(params, rows) -> logits`` of many rows, one compiled shape.

    Args:
      task: Whose model scores.
      tables: See `jmrec.tasks.rank.gather`.
      arrays: Of all rows.
    """
    placed, block = jax.device_put(dict(tables)), _block(task.model.config)

    def score(params: Params, rows: np.ndarray) -> np.ndarray:
        found = np.zeros(len(rows))
        size = min(BLOCK, -(-max(len(rows), 1) // 256) * 256)
        for start in range(0, len(rows), size):
            few = rows[start : start + size]
            padded = np.pad(few, (0, size - len(few)), mode="edge")
            batch = {name: array[padded] for name, array in arrays.items() if name != "label"}
            found[start : start + size] = np.asarray(block(params, placed, batch))[: len(few)]
        return found

    return score


@lru_cache(maxsize=16)
def _block(config: DlrmConfig) -> Callable[[Params, Any, Any], jax.Array]:
    """Return what scores some rows: compiled once for all seeds, controls and removals."""
    score = dlrm(config).fns["score"]
    return jax.jit(lambda params, tables, batch: score(params, gather(tables, batch))[0])
