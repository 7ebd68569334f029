"""Session encoders as Rankers: one pass over a window gives the states at all its positions.

``prepare`` takes the feature table, so the same trained encoder ranks with the features of
another view (pictures permuted, texts permuted) without training.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jmrec.data.packing import fill_rows
from jmrec.evaluation.protocol import Predictions, Prefixes
from jmrec.features import pad_rows, take_rows
from jmrec.models.sessions.table import causal, item_vectors, packs, session_rows
from jmrec.types import Model, Params

WINDOWS = 64
"""Windows are encoded in blocks of this many, so that one shape is compiled. A single window, which
is what serving asks for, goes alone; so does each where a session is all the tokens of its items,
whose attention grows with their number squared. Of prefixes that are shorter, a block has more."""
ROWS = 16
"""Rows of a block, where windows share rows."""


def prefix_lengths(longest: int) -> tuple[int, ...]:
    """Return what prefixes that are encoded one by one are padded to: few lengths, each a shape.

    Example:
      >>> prefix_lengths(50)
      (1, 4, 16, 50)
    """
    shorter = (4**n for n in range(longest.bit_length()))
    return (*(length for length in shorter if length < longest), longest)


class CompiledEncoder:
    """The jitted functions of a session encoder, compiled once and shared by its seeds.

    Args:
      model: From `jmrec.models.sessions.table.session_model`.
      ids: int32 [V], the catalogue's rows of the encoder's id table; None for one that has none.
    """

    def __init__(self, model: Model, ids: np.ndarray | None = None) -> None:
        self.model, self.ids = model, ids
        self.causal, self.packs = causal(model.config), packs(model.config)
        self.table = jax.jit(lambda params, catalogue: item_vectors(model, params, catalogue))
        # The states after all items, or of an encoder that is not causal after the last one.
        encode = model.fns["encode_session" if self.causal else "last_state"]
        self.states = jax.jit(
            lambda params, rows, items, mask, gap, event: encode(
                params, take_rows(rows, items), mask, gap, event
            )[0]
        )

    def ranker(self, name: str, params: Params) -> "NeuralRanker":
        """Return a Ranker with these parameters."""
        return NeuralRanker(name, self, params)


class NeuralRanker:
    """A Ranker that scores items by the dot product of a session state and an item vector."""

    def __init__(self, name: str, encoder: CompiledEncoder, params: Params) -> None:
        self.name = name
        self.encoder, self.params = encoder, params
        self._kept: tuple[Prefixes, np.ndarray] | None = None

    def prepare(self, features: Mapping[str, Any]) -> None:
        """Compute the item vectors of the whole catalogue.

        Args:
          features: "features" [V, F], where the encoder reads some, and "tokens", name -> [V, ...],
            where it reads sessions of those.
        """
        given = (
            dict(features) if self.encoder.ids is None else {**features, "ids": self.encoder.ids}
        )
        catalogue = _padded(given)
        vectors = self.encoder.table(self.params, catalogue)
        self.rows: Any = session_rows(self.encoder.model, self.params, catalogue, vectors)
        self.items = np.asarray(vectors)
        self._kept = None

    def vectors(self, features: np.ndarray | None, ids: np.ndarray) -> np.ndarray:
        """Return what the vectors of items would be with other features or ids.

        Args:
          features: float32 [R, F], None for an id-only encoder.
          ids: int32 [R], rows of the id table.

        Returns:
          float32 [R, D].
        """
        catalogue = _padded({"features": features, "ids": ids})
        return np.asarray(self.encoder.table(self.params, catalogue))[: len(ids)]

    def states(self, prefixes: Prefixes) -> np.ndarray:
        """Return the session state at each prediction, float32 [P, D]."""
        last = self._kept  # read once: another thread may ask of other prefixes meanwhile
        if last is not None and last[0] is prefixes:
            return last[1]
        if not self.encoder.causal:
            states = self._each(prefixes)
        elif len(prefixes.windows) > 1 and not isinstance(self.rows, dict) and self.encoder.packs:
            states = self._packed(prefixes)
        else:
            states = self._alone(prefixes)
        self._kept = (prefixes, states)
        return states

    def _alone(self, prefixes: Prefixes) -> np.ndarray:
        """Return the states, each window in a row of its own."""
        windows = prefixes.windows
        size = 1 if len(windows) == 1 or isinstance(self.rows, dict) else WINDOWS
        context = (windows, windows >= 0, prefixes.gaps, prefixes.events)
        return self._encode(context, size)[prefixes.window, prefixes.end]

    def _each(self, prefixes: Prefixes) -> np.ndarray:
        """Return the states, each prefix in a row of its own, with others of about its length."""
        most, alone = prefixes.windows.shape[1], len(prefixes) == 1
        lengths = np.array((most,) if alone else prefix_lengths(most))
        kind = np.searchsorted(lengths, prefixes.end + 1)
        states = np.zeros((len(prefixes), self.items.shape[1]), np.float32)
        for n in np.unique(kind):
            own, length = np.flatnonzero(kind == n), lengths[n]
            window, mask = prefixes.window[own], np.arange(length) <= prefixes.end[own, None]
            items, gaps, events = (
                array[window, :length]
                for array in (prefixes.windows, prefixes.gaps, prefixes.events)
            )
            size = 1 if alone or isinstance(self.rows, dict) else WINDOWS * most // length
            states[own] = self._encode((items, mask, gaps, events), size)
        return states

    def _packed(self, prefixes: Prefixes) -> np.ndarray:
        """Return the states; a window is read as far as it is asked of, several share a row."""
        length = np.zeros(len(prefixes.windows), int)
        np.maximum.at(length, prefixes.window, prefixes.end + 1)
        rows = fill_rows(length, prefixes.windows.shape[1])
        window = np.argsort(length, kind="stable")[rows.place]
        begin = np.zeros(len(length), int)
        first = np.flatnonzero((rows.number > 0) & (rows.within == 0))
        begin[window.flat[first]] = first
        arrays = (prefixes.windows, prefixes.gaps, prefixes.events)
        items, gaps, events = (array[window, rows.within] for array in arrays)
        states = self._encode((items, rows.number, gaps, events), ROWS)
        return states.reshape(-1, states.shape[-1])[begin[prefixes.window] + prefixes.end]

    def _encode(self, context: tuple[np.ndarray, ...], size: int) -> np.ndarray:
        """Return the states of items, mask, gaps and events [R, L], in blocks of rows."""
        count = len(context[0])
        blocks = []
        for start in range(0, count, size):
            some = slice(start, start + size)
            missing = [(0, max(some.stop - count, 0)), (0, 0)]
            items, mask, gap, event = (np.pad(array[some], missing) for array in context)
            items = np.where(mask > 0, items, 0)
            states = self.encoder.states(self.params, self.rows, items, mask, gap, event)
            blocks.append(np.asarray(states))
        return np.concatenate(blocks)[:count]

    def scores(self, prefixes: Prefixes, item_slice: slice) -> np.ndarray:
        """Return float32 [P, slice]."""
        return self.states(prefixes) @ self.items[item_slice].T


def _padded(catalogue: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tables of V items on the device, with the rows that tables are padded to."""
    tables = {name: table for name, table in catalogue.items() if table is not None}
    return jax.tree.map(lambda table: jnp.asarray(pad_rows(table)), tables)


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
