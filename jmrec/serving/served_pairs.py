"""Recommendations for users, from a serving artefact of pairs or from a run that looks like one."""

import difflib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import expit

from jmrec.data.schema import AVOID
from jmrec.data.verdicts import DROP, KEEP, read_verdicts, verdicts_of
from jmrec.errors import UserError
from jmrec.evaluation.pairs.rules import Known, rule_logits
from jmrec.evaluation.policy import make_policy, read_correction
from jmrec.features import pad_rows
from jmrec.models.dlrm import dlrm
from jmrec.models.linen import check_fit
from jmrec.serving.pairs import PairArtefact, read_pairs
from jmrec.serving.questions import (
    REFUSE,
    SKIP,
    read_choice,
    read_id,
    read_list,
    read_moment,
    read_top,
    shown,
)
from jmrec.tasks.rank import gather

BLOCK, STEP = 1024, 256
"""So many items are scored at a time; fewer are filled up to a multiple of the step."""
PINNED, KEPT, ABOVE = "pinned", "kept by hand", "above the threshold"
"""What may be said of a recommended item."""

Scorer = Callable[[int], np.ndarray]


class ServedPairs:
    """What answers for users.

    Args:
      artefact: What is served.
      where: What it was read from, for messages.

    Raises:
      UserError: Its parameters are not those of this jmrec's model.
    """

    def __init__(self, artefact: PairArtefact, where: str) -> None:
        self.artefact, self.where = artefact, where
        self.ids, self.titles = artefact.ids, artefact.titles
        self.user_ids = artefact.user_ids
        self.policy, self.verdicts = artefact.policy, artefact.verdicts
        self._row_of = {user: row for row, user in enumerate(artefact.user_ids)}
        self._item_row = {item: row for row, item in enumerate(artefact.ids)}
        make = _rule if artefact.config is None else _model
        self._score: Scorer = make(artefact, where)

    def user_row(self, user: str) -> int:
        """Return a user's row; that of one who is not known is the last."""
        return self._row_of.get(user, len(self.user_ids))

    def logits(self, user: str) -> np.ndarray:
        """Return the logits of the positive class for a user and every item, float64 [V].

        They stand for the data's own ratio of the classes and are not calibrated.
        """
        return self._score(self.user_row(user)) + self.artefact.line.added

    def recommend(
        self, user: Any, top: int = 10, at: Any = None, unknown: str = SKIP
    ) -> dict[str, Any]:
        """Recommend items that a user has not rated.

        Where the label is to be avoided, the least probable come first, and items whose probability
        is at the threshold or above are left out; where it is wanted, the most probable come first.
        A pinned item and one that people keep is shown whatever its probability; pinned ones come
        first.

        Args:
          user: A user id, a text or a whole number.
          top: How many to recommend; fewer come where there are fewer candidates.
          at: The time, for catalogues with windows of availability: unix seconds, a date as a text
            or a datetime; None is now.
          unknown: "skip" serves a user who is not known as a new one, "refuse" raises.

        Returns:
          "user", "known" (whether the user is), "nearest" (a known id like it, or None), "label",
          "label_means", "threshold", "left_out" (how many candidates were above the threshold) and
          "items", best first: {"item_id", "title", "probability", "flag"}.

        Raises:
          UserError: Something given is not what it has to be.
        """
        user, top = read_id(user, "the user"), read_top(top)
        now = time.time() if at is None else read_moment(at, "at")
        refuse = read_choice(unknown, "unknown", (SKIP, REFUSE)) == REFUSE
        made, row = self.artefact, self.user_row(user)
        near = None
        if row == len(self.user_ids):
            near = next(iter(difflib.get_close_matches(user, self.user_ids, 1)), None)
            if refuse:
                hint = f"did you mean {near!r}?" if near else "name another."
                raise UserError(f"user {shown(user)} is not known to {self.where}; {hint}")
        logits = made.line.platt.logits(self.logits(user))
        above = expit(logits) >= made.line.threshold
        can = self.policy.candidates([made.rated[row]], now)[0]
        kept = np.zeros(len(self.ids), bool)
        for item, verdict in verdicts_of(self.verdicts, user).items():
            kept[self._item_row[item]] = verdict == KEEP
            can[self._item_row[item]] &= verdict != DROP
        pinned = np.zeros(len(self.ids), bool)
        pinned[self.policy.pinned] = True
        avoid = made.label_means == AVOID
        out = can & above & ~kept & ~pinned if avoid else np.zeros(len(self.ids), bool)
        can &= ~out
        first = self.policy.pinned[can[self.policy.pinned]]
        rest = np.flatnonzero(can & ~pinned)
        rest = rest[np.argsort(logits[rest] if avoid else -logits[rest], kind="stable")]
        flags = ((PINNED, pinned), (KEPT, kept), (ABOVE, above))
        return {
            "user": user,
            "known": row < len(self.user_ids),
            "nearest": near,
            "label": made.label,
            "label_means": made.label_means,
            "threshold": made.line.threshold,
            "left_out": int(out.sum()),
            "items": [
                {
                    "item_id": self.ids[item],
                    "title": made.titles[item],
                    "probability": float(expit(logits[item])),
                    "flag": ", ".join(name for name, where in flags if where[item]),
                }
                for item in np.concatenate([first, rest])[:top].tolist()
            ],
        }

    def recommend_batch(
        self, users: Sequence[Any], top: int = 10, at: Any = None, unknown: str = SKIP
    ) -> list[dict[str, Any]]:
        """Recommend items for several users; see `recommend`."""
        named = read_list(users, "users", "user ids")
        return [self.recommend(user, top, at, unknown) for user in named]


def _rule(artefact: PairArtefact, where: str) -> Scorer:
    del where
    items, users, count = artefact.items, artefact.users, len(artefact.ids)

    def score(user: int) -> np.ndarray:
        own = {name: np.full(count, users[name][user]) for name in ("count", "sum")}
        known = Known(items["count"], items["sum"], own["count"], own["sum"])
        return rule_logits(known, artefact.prior)[artefact.row]

    return score


def _model(artefact: PairArtefact, where: str) -> Scorer:
    """Return what scores all items for a user's row, one compiled function."""
    assert artefact.config is not None
    model = dlrm(artefact.config)
    check_fit(
        artefact.params,
        jax.eval_shape(model.init, jax.random.key(0)),
        where,
        "export again, or use the version of jmrec that made it",
    )
    parts, count = artefact.parts, len(artefact.ids)
    sides = {"item": artefact.items, "user": artefact.users}
    read: dict[str, Any] = {}
    for p, (name, of) in enumerate(parts):
        for kind, own in (("part", "part"), ("part_ok", "ok")):
            read[f"{kind}/{p}"] = pad_rows(sides[of][f"{own}/{name}"])
    if artefact.config.past:
        past = [artefact.items[f"part/{name}"] for name in past_parts(parts)]
        read["past/item"] = pad_rows(np.concatenate(past, 1))
    kept = ("numbers", "id_row", "category", "past", "past_label", "past_mask")
    held = {
        of: {name: pad_rows(array) for name, array in table.items() if name in kept}
        for of, table in sides.items()
    }
    placed = jax.device_put((artefact.params, read, held, artefact.of_user))
    size = min(BLOCK, -(-count // STEP) * STEP)
    rows = np.arange(-(-count // size) * size, dtype=np.int32).reshape(-1, size)
    rows = np.minimum(rows, count - 1)  # what fills the last block is scored for nothing

    @jax.jit
    def block(given: Any, few: jax.Array, user: jax.Array) -> jax.Array:
        params, read, held, of_user = given
        item, own = held["item"], jax.tree.map(lambda table: table[user], held["user"])

        def each(value: jax.Array) -> jax.Array:
            return jnp.broadcast_to(value, (size, *value.shape))

        of = [few if side == "item" else each(user) for _, side in parts]
        batch = {
            "numbers": jnp.where(of_user, own["numbers"], item["numbers"][few]),
            "item_id": item["id_row"][few],
            "user_id": each(own["id_row"]),
            "category": item["category"][few],
            "part_row": jnp.stack(of, 1) if of else jnp.zeros((size, 0), jnp.int32),
            **{name: each(own[name]) for name in ("past", "past_label", "past_mask")},
        }
        found: jax.Array = model.fns["score"](params, gather(read, batch))[0]
        return found

    def score(user: int) -> np.ndarray:
        found = [np.asarray(block(placed, few, np.int32(user))) for few in rows]
        return np.concatenate(found)[:count].astype(np.float64)

    return score


def past_parts(parts: tuple[tuple[str, str], ...]) -> list[str]:
    """Return which parts are read of past items too, in their order.

    Example:
      >>> past_parts((("words", "item"), ("profile", "user"), ("picture", "item")))
      ['words', 'picture']
    """
    return [name for name, _ in parts if name in ("words", "picture")]


def load_pairs(
    path: str | Path, policy: str | Path | None = None, verdicts: str | Path | None = None
) -> ServedPairs:
    """Load a serving artefact of pairs.

    Args:
      path: The folder that `jmrec export` wrote.
      policy: A policy file in place of the lists that it was exported with, see
        `jmrec.evaluation.policy`.
      verdicts: A file of verdicts in place of those, see `jmrec.data.verdicts`.

    Raises:
      UserError: There is no artefact, it is damaged, or a file does not fit.
    """
    folder = Path(path)
    artefact = read_pairs(folder)
    served = ServedPairs(artefact, str(folder))
    if policy is not None:
        window, lists = artefact.policy.availability, read_correction(Path(policy))
        served.policy = make_policy(artefact.ids, True, lists, window, str(policy))
    if verdicts is not None:
        served.verdicts = read_verdicts(Path(verdicts), artefact.ids)
    return served
