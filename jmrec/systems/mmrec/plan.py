"""The training steps of "mmrec" from shapes alone: the rankers' own tasks, given no data."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from jmrec.config import ConfigDict
from jmrec.errors import UserError
from jmrec.systems.mmrec.describe import NONE
from jmrec.systems.mmrec.rank import PAST_PARTS, dlrm_config, ranker_settings
from jmrec.systems.planned import shape
from jmrec.systems.system import PlannedStep, Sizes
from jmrec.systems.work import numbers
from jmrec.tasks.rank import Balance, RankTask

NUMBERS = 11
"""The numbers of a pair: five of what was known of each side, and one column of an item's."""
CLASSES = (940, 60)
"""Rows of the classes: they decide a number of the model and no shape."""


def planned_rankers(config: ConfigDict, sizes: Sizes) -> dict[str, Callable[[], PlannedStep]]:
    """Return stage -> its training step; see `jmrec.systems.system.System`.

    Raises:
      UserError: The rankers read vectors whose width only data knows.
    """
    if config.align.space != "latent":
        raise UserError(
            "align.space=raw: only the readers know how wide their vectors are; plan with latent."
        )
    return {f"rankers/{name}": partial(_ranker, config, sizes, name) for name in config.rankers}


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
