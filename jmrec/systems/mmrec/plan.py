"""The training steps of "mmrec" from shapes alone: the rankers' own tasks, given no data."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from jmrec.config import ConfigDict
from jmrec.errors import UserError
from jmrec.models.readers.frozen import FrozenConfig
from jmrec.systems.mmrec.counted import SIDE, counted
from jmrec.systems.mmrec.describe import NONE
from jmrec.systems.mmrec.rank import PAST_PARTS, dlrm_config, ranker_settings
from jmrec.systems.mmrec.read import vision_model
from jmrec.systems.planned import shape
from jmrec.systems.system import PlannedStep, Sizes
from jmrec.systems.work import numbers
from jmrec.tasks.frozen import FrozenKnowledgeTask
from jmrec.tasks.rank import Balance, RankTask
from jmrec.tasks.vision import VisionTask

NUMBERS = 11
"""The numbers of a pair: five of what was known of each side, and one column of an item's."""
CLASSES = (940, 60)
"""Rows of the classes: they decide a number of the model and no shape."""


def planned_rankers(config: ConfigDict, sizes: Sizes) -> dict[str, Callable[[], PlannedStep]]:
    """Return stage -> its training step; see `jmrec.systems.system.System`.

    What is learned of pretrained readers' vectors is left out: only the weights know their width.

    Raises:
      UserError: The rankers read vectors whose width only data knows.
    """
    if config.align.space != "latent":
        raise UserError(
            "align.space=raw: only the readers know how wide their vectors are; plan with latent."
        )
    steps: dict[str, Callable[[], PlannedStep]] = {}
    c = config.read
    if c.picture == "vision":
        steps["look"] = partial(_look, config, sizes)
    if c.text == "lsa" and c.picture in SEEN:
        steps["align"] = partial(_align, config)
    for name in config.rankers:
        steps[f"rankers/{name}"] = partial(_ranker, config, sizes, name)
    return steps


SEEN: dict[str, Callable[[ConfigDict], int]] = {
    "counts": lambda config: counted(np.zeros((1, SIDE, SIDE, 3), np.uint8)).shape[1],
    "vision": lambda config: 2 * int(config.vision.out),
    "none": lambda config: 1,
}
"""read.picture -> the width of a picture's vector."""


def _look(config: ConfigDict, sizes: Sizes) -> PlannedStep:
    c, rows = config.vision, int(config.vision.train.batch_size)
    words = shape((sizes.vocab,))
    task = VisionTask(vision_model(c, sizes.vocab), (words, words), numbers(c))
    side = int(c.picture_size)
    batch = {
        "row": shape((rows,), np.int32),
        "text": shape((rows, sum(sizes.fields)), np.int32),
        "picture": shape((rows, side, side, 3), np.uint8),
        "picture_ok": shape((rows,), bool),
    }
    return PlannedStep(task, c.train, batch, (rows,), "vision", ("vision.stack",))


def _align(config: ConfigDict) -> PlannedStep:
    c, rows = config.align, int(config.align.train.batch_size)
    text, picture = int(config.read.width), SEEN[config.read.picture](config)
    task = FrozenKnowledgeTask(FrozenConfig(text, picture, int(c.width)), numbers(c))
    batch = {
        "row": shape((rows,), np.int32),
        "text": shape((rows, text)),
        "picture": shape((rows, picture)),
        "picture_ok": shape((rows,), bool),
    }
    return PlannedStep(task, c.train, batch, (rows,), "align")


def _ranker(config: ConfigDict, sizes: Sizes, name: str) -> PlannedStep:
    c, width = ranker_settings(config, name), int(config.align.width)
    users = int(config.data.toyshop.users) if config.data.source == "toyshop" else sizes.items
    # A cut for about every four reviews is more than there are.
    rows = {"words": sizes.items, "reviews": sizes.events // 4, "profile": sizes.events // 4,
            "picture": sizes.items, "seen": sizes.items}  # fmt: skip
    read = []
    if c.arm in ("text", "both"):
        read += ["words"]
        read += ["reviews"] if c.item_reviews != NONE else []
        read += ["profile"] if c.user_reviews != NONE else []
    if c.arm in ("picture", "both"):
        read += ["picture"] + (["seen"] if config.describe.picture != NONE else [])
    tables: dict[str, Any] = {}
    for p, part in enumerate(read):
        padded = -(-rows[part] // 1024) * 1024
        tables[f"part/{p}"] = shape((padded, width))
        tables[f"part_ok/{p}"] = shape((padded,), bool)
    past = width * sum(part in PAST_PARTS for part in read)
    if c.past and past:
        tables["past/item"] = shape((-(-sizes.items // 1024) * 1024, past))
    for by in ("item", "user"):
        tables[f"empty/{by}"], tables[f"of/{by}"] = shape((NUMBERS,)), shape((NUMBERS,), bool)
        tables[f"hides/{by}"] = shape((len(read),), bool)
    balance = Balance(c.strategy, *CLASSES, c.share, c.beta, c.hparams.tau)
    size = dlrm_config(
        c, dict.fromkeys(read, width), balance, numbers=NUMBERS, items=sizes.items, users=users,
        categories=(),
    )  # fmt: skip
    task = RankTask(size, balance, tables, numbers(c))
    batch, length = int(c.train.batch_size), max(int(c.past), 1)
    arrays = {
        "numbers": shape((batch, NUMBERS)),
        "item_id": shape((batch,), np.int32),
        "user_id": shape((batch,), np.int32),
        "category": shape((batch, 0), np.int32),
        "label": shape((batch,), np.int32),
        "past": shape((batch, length), np.int32),
        "past_label": shape((batch, length), np.int32),
        "past_mask": shape((batch, length), bool),
        "part_row": shape((batch, len(read)), np.int32),
        "row": shape((batch,), np.int32),
    }
    return PlannedStep(task, c.train, arrays, (batch,), "rank")
