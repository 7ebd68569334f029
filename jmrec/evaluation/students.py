"""Students and teachers as Rankers: one causal pass over a window scores all its positions.

``prepare`` takes the feature table, so the same trained student ranks with the features of
another view (pictures permuted, texts permuted) without training.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jmrec.evaluation.protocol import Predictions, Prefixes
from jmrec.features import pad_rows, take_rows
from jmrec.types import Model, Params

WINDOWS = 64
"""Windows are encoded in blocks of this many, so that one shape is compiled. A single window, which
is what serving asks for, goes alone; so does each where a session is all the tokens of its items,
whose attention grows with their number squared."""


class Tower:
    """The jitted functions of a model with ``item_table`` and ``encode_session``.

    Built once per architecture and shared by its seeds.

    Args:
      model: A student, or the Transfer tower.
      ids: int32 [V], the catalogue's rows of the student's id table; None for the Transfer tower,
        which has no ids and reads the features "e" of a session's items directly.
    """

    def __init__(self, model: Model, ids: np.ndarray | None = None) -> None:
        self.model, self.ids = model, ids
        self.table = jax.jit(lambda params, *args: model.fns["item_table"](params, *args)[0])
        self.states = jax.jit(
            lambda params, rows, items, mask, gap, event: model.fns["encode_session"](
                params, take_rows(rows, items), mask, gap, event
            )[0]
        )

    def ranker(self, name: str, params: Params) -> "TowerRanker":
        """Return a Ranker with these parameters."""
        return TowerRanker(name, self, params)


class TowerRanker:
    """A Ranker that scores items by the dot product of a session state and an item vector."""

    def __init__(self, name: str, tower: Tower, params: Params) -> None:
        self.name = name
        self.tower, self.params = tower, params
        self._kept: tuple[Prefixes, np.ndarray] | None = None

    def prepare(self, features: Mapping[str, Any]) -> None:
        """Compute the item vectors of the whole catalogue from features [V, F].

        Args:
          features: "features" of a student, if it has any; "e" of the Transfer tower, and "tokens",
            name -> [V, ...], where it reads sessions of those.
        """
        if self.tower.ids is None:
            e = jnp.asarray(pad_rows(features["e"]))
            table = self.tower.table(self.params, e)
            tokens = features.get("tokens")
            self.rows: Any = e
            if tokens is not None:
                self.rows = jax.tree.map(lambda rows: jnp.asarray(pad_rows(rows)), tokens)
        else:
            given = features.get("features")
            given = None if given is None else pad_rows(given)
            table = self.tower.table(self.params, given, pad_rows(self.tower.ids))
            self.rows = table
        self.items = np.asarray(table)
        self._kept = None

    def vectors(self, features: np.ndarray | None, ids: np.ndarray) -> np.ndarray:
        """Return what a student's items would be with other features or ids.

        Args:
          features: float32 [R, F], None for an id-only student.
          ids: int32 [R], rows of the id table.

        Returns:
          float32 [R, D].
        """
        given = None if features is None else pad_rows(features)
        return np.asarray(self.tower.table(self.params, given, pad_rows(ids)))[: len(ids)]

    def states(self, prefixes: Prefixes) -> np.ndarray:
        """Return the session state at each prediction, float32 [P, D]."""
        if self._kept is not None and self._kept[0] is prefixes:
            return self._kept[1]
        windows = prefixes.windows
        size = 1 if len(windows) == 1 or isinstance(self.rows, dict) else WINDOWS
        blocks = []
        for start in range(0, len(windows), size):
            kept = slice(start, start + size)
            missing = [(0, max(kept.stop - len(windows), 0)), (0, 0)]
            block = np.pad(windows[kept], missing, constant_values=-1)
            gap, event = (
                np.pad(prefixes.gaps[kept], missing),
                np.pad(prefixes.events[kept], missing),
            )
            mask = block >= 0
            items = np.where(mask, block, 0)
            states = self.tower.states(self.params, self.rows, items, mask, gap, event)
            blocks.append(np.asarray(states))
        states = np.concatenate(blocks)[prefixes.window, prefixes.end]
        self._kept = (prefixes, states)
        return states

    def scores(self, prefixes: Prefixes, item_slice: slice) -> np.ndarray:
        """Return float32 [P, slice]."""
        return self.states(prefixes) @ self.items[item_slice].T


def shuffle_prefixes(predictions: Predictions, seed: int) -> Predictions:
    """Return the same predictions with each prefix in a random order: a control.

    Every prediction gets a window of its own, so that no item moves across its own prefix's end.

    Args:
      predictions: The predictions.
      seed: Of the shuffling.

    Returns:
      Predictions with as many windows as predictions.
    """
    rng = np.random.default_rng(seed)
    old = predictions.prefixes
    windows = np.full((len(old), old.windows.shape[1]), -1, np.int32)
    events = np.zeros(windows.shape, np.int32)
    for row, (window, end) in enumerate(zip(old.window, old.end)):
        order = rng.permutation(end + 1)
        windows[row, : end + 1] = old.windows[window, order]
        events[row, : end + 1] = old.events[window, order]
    prefixes = Prefixes(
        windows=windows,
        gaps=np.zeros(windows.shape, np.float32),
        events=events,
        window=np.arange(len(old), dtype=np.int32),
        end=old.end,
        time=old.time,
    )
    fields = {**vars(predictions), "prefixes": prefixes}
    return Predictions(**fields)
