"""Session encoders as Rankers: one pass over a window gives the states at all its positions.

``prepare`` takes the feature table, so the same trained encoder ranks with the features of
another view (pictures permuted, texts permuted) without training.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jmrec.data.packing import fill_rows
from jmrec.evaluation.protocol import Predictions, Prefixes
from jmrec.features import pad_rows, take_rows
from jmrec.kernels.spread import over, shares
from jmrec.models.sessions.table import causal, item_vectors, packs, session_rows
from jmrec.sharding import make_mesh, put_tree, row_axes, shardings
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
      rules: The sharding rules of the run. Where they share out the rows of tables, each of this
        process's devices computes, holds and scores its own rows; None is one device.
    """

    def __init__(
        self, model: Model, ids: np.ndarray | None = None, rules: str | None = None
    ) -> None:
        self.model, self.ids = model, ids
        self.causal, self.packs = causal(model.config), packs(model.config)
        self.rules, mesh = rules, None if rules is None else make_mesh(rules, jax.local_devices())
        self.mesh = mesh if mesh is not None and shares(mesh) else None
        self.table, self.read, self.states = _compiled(model, self.mesh)

    def placed(self, params: Params) -> Params:
        """Return parameters on the devices, where the rules say."""
        if self.mesh is None:
            return jax.tree.map(jnp.asarray, params)  # or each answer would send them there
        axes = self.model.logical_axes(None)
        return cast(Params, put_tree(params, shardings(axes, params, self.mesh, str(self.rules))))

    def catalogue(self, tables: Mapping[str, Any]) -> dict[str, Any]:
        """Return the tables of V items on the devices, with the rows that they are padded to."""
        given = {name: table for name, table in tables.items() if table is not None}
        padded = jax.tree.map(pad_rows, given)
        if self.mesh is None:
            return jax.tree.map(jnp.asarray, padded)
        placement = shardings(row_axes(padded), padded, self.mesh, str(self.rules))
        return cast(dict[str, Any], put_tree(padded, placement))

    def ranker(self, name: str, params: Params) -> "NeuralRanker":
        """Return a Ranker with these parameters."""
        return NeuralRanker(name, self, params)


@lru_cache(maxsize=64)
def _compiled(model: Model, mesh: Mesh | None) -> tuple[Callable[..., Any], ...]:
    """Return what gives the item vectors, what sessions read of them, and the states."""
    # The states after all items, or of an encoder that is not causal after the last one.
    encode = model.fns["encode_session" if causal(model.config) else "last_state"]

    def table(params: Params, catalogue: Any) -> jax.Array:
        with over(mesh):
            return item_vectors(model, params, catalogue)

    def read(params: Params, catalogue: Any, vectors: jax.Array) -> Any:
        with over(mesh):
            return session_rows(model, params, catalogue, vectors)

    def states(params: Params, rows: Any, items: Any, mask: Any, gap: Any, event: Any) -> Any:
        with over(mesh):
            return encode(params, take_rows(rows, items), mask, gap, event)[0]

    return jax.jit(table), read if mesh is None else jax.jit(read), jax.jit(states)


class NeuralRanker:
    """A Ranker that scores items by the dot product of a session state and an item vector."""

    def __init__(self, name: str, encoder: CompiledEncoder, params: Params) -> None:
        self.name = name
        self.encoder, self.params = encoder, encoder.placed(params)
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
        catalogue = self.encoder.catalogue(given)
        vectors = self.encoder.table(self.params, catalogue)
        self.rows: Any = self.encoder.read(self.params, catalogue, vectors)
        self.width, self._kept = vectors.shape[1], None
        self._shares = None if self.encoder.mesh is None else shares_of(vectors)
        # Of vectors that lie on several devices a copy is made when somebody asks for it.
        self._vectors = np.asarray(vectors) if self._shares is None else vectors

    @property
    def items(self) -> np.ndarray:
        """The item vectors, float32 [V padded, D]."""
        return np.asarray(self._vectors)

    def vectors(self, features: np.ndarray | None, ids: np.ndarray) -> np.ndarray:
        """Return what the vectors of items would be with other features or ids.

        Args:
          features: float32 [R, F], None for an id-only encoder.
          ids: int32 [R], rows of the id table.

        Returns:
          float32 [R, D].
        """
        catalogue = self.encoder.catalogue({"features": features, "ids": ids})
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
        states = np.zeros((len(prefixes), self.width), np.float32)
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
            parts = [array[some] for array in context]
            if some.stop > count:
                parts = [np.pad(part, [(0, some.stop - count), (0, 0)]) for part in parts]
            items, mask, gap, event = parts
            items = np.where(mask > 0, items, 0)
            states = self.encoder.states(self.params, self.rows, items, mask, gap, event)
            blocks.append(np.asarray(states))
        return blocks[0][:count] if len(blocks) == 1 else np.concatenate(blocks)[:count]

    def scores(self, prefixes: Prefixes, item_slice: slice) -> np.ndarray:
        """Return float32 [P, slice]."""
        states = self.states(prefixes)
        if self._shares is not None:
            return share_scores(states, self._shares, item_slice)
        scores: np.ndarray = states @ self.items[item_slice].T
        return scores


Shares = list[tuple[int, jax.Array]]
"""The first row of each device's share of a table, and the share."""


def shares_of(table: jax.Array) -> Shares:
    """Return the shares of a table [V, D] on this process's devices, each once, by their rows."""
    found = {shard.index[0].start or 0: shard.data for shard in table.addressable_shards}
    return sorted(found.items())


@partial(jax.jit, static_argnums=3)
def _dot(states: jax.Array, share: jax.Array, start: Any, size: int) -> jax.Array:
    rows = jax.lax.dynamic_slice_in_dim(share, start, size)
    return jnp.matmul(states, rows.T, precision="highest")


def share_scores(states: np.ndarray, shares: Shares, wanted: slice) -> np.ndarray:
    """Return states @ table[wanted].T, each device its own rows.

    Args:
      states: float32 [P, D].
      shares: Of the table.
      wanted: Rows of the table.

    Returns:
      float32 [P, rows].

    Example:
      >>> table = jnp.arange(6.0)[:, None]
      >>> share_scores(np.ones((1, 1)), [(0, table[:3]), (3, table[3:])], slice(2, 5)).tolist()
      [[2.0, 3.0, 4.0]]
    """
    waiting = []
    for first, share in shares:
        begin, end = max(wanted.start - first, 0), min(wanted.stop - first, len(share))
        if begin < end:
            # One size, so that one program a device serves all slices; what is too much is cut off.
            size = min(wanted.stop - wanted.start, len(share))
            start = min(begin, len(share) - size)
            here = jax.device_put(states, share.device)
            scores = _dot(here, share, np.int32(start), size)
            waiting.append((scores, slice(begin - start, end - start)))
    return np.concatenate([np.asarray(scores)[:, some] for scores, some in waiting], axis=1)


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
