"""Reading many items: in blocks, of which a reading that was killed loses none."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jmrec.cluster.member import is_first, meet, place
from jmrec.features import read_features, write_features
from jmrec.sharding import batch_sharding, make_mesh, replicated

BLOCK = 512
"""Items of a block, about."""
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Blocks:
    """A folder that keeps the blocks of a long reading until it is done.

    Attributes:
      folder: The folder.
      ids: The V items' ids.
      facts: What made the blocks: others are read again.
      name: Of the reading; several may share a folder.
    """

    folder: Path
    ids: Sequence[str]
    facts: Mapping[str, str]
    name: str = ""

    def get(self, rows: slice, read: Callable[[], Arrays]) -> Arrays:
        """Return a block, from disk where it is there and was made by the same reader."""
        path = self.folder / f"{self.name}{rows.start:08d}-{rows.stop:08d}.safetensors"
        ids = self.ids[rows]
        if path.is_file():
            table = read_features(path, ids)
            if all(table.provenance.get(name) == fact for name, fact in self.facts.items()):
                return table.arrays
        block = read()
        write_features(path, block, ids, dict(self.facts))
        return block

    def clear(self) -> None:
        """Remove the folder: the reading is done."""
        if is_first():
            shutil.rmtree(self.folder, ignore_errors=True)


def read_in_blocks(
    count: int,
    size: int,
    read: Callable[[slice], Arrays],
    *,
    bar: Any = None,
    kept: Blocks | None = None,
) -> Arrays:
    """Read items block by block.

    Args:
      count: V, how many items there are.
      size: Of a block.
      read: ``rows -> arrays`` with one row an item.
      bar: A progress bar, or None.
      kept: Where blocks are kept; None keeps none.

    Returns:
      The same arrays of all items. Of blocks that are kept each process reads its own part, and
      takes those of the others from the disk that all share.

    Example:
      >>> read_in_blocks(5, 2, lambda rows: {"x": np.arange(5)[rows]})["x"].tolist()
      [0, 1, 2, 3, 4]
    """
    blocks = [slice(start, min(start + size, count)) for start in range(0, count, size)]
    process, processes = place() if kept is not None else (0, 1)
    parts: dict[int, Arrays] = {}
    for k, rows in enumerate(blocks):
        if k % processes == process:
            parts[k] = read(rows) if kept is None else kept.get(rows, lambda: read(rows))  # noqa: B023
        if bar is not None:
            bar.update(rows.stop - rows.start)
    if processes > 1 and kept is not None:
        meet()
        for k, rows in enumerate(blocks):
            if k not in parts:
                parts[k] = kept.get(rows, lambda: read(rows))  # noqa: B023
        meet()  # or the first would clear what others have not read
    return {name: np.concatenate([parts[k][name] for k in range(len(blocks))]) for name in parts[0]}


def block_size(batch: int) -> int:
    """Return how many items of a block are whole batches: about `BLOCK`."""
    whole = spread_size(batch)
    return -(-BLOCK // whole) * whole


def spread_size(batch: int) -> int:
    """Return the least number from ``batch`` on that divides over this process's devices."""
    devices = len(jax.local_devices())
    return -(-batch // devices) * devices


def padded_batches(rows: np.ndarray, batch: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Cut rows into batches of one size, so that one shape is compiled.

    Args:
      rows: int [N].
      batch: At least so many rows a batch; see `spread_size`.

    Returns:
      For each batch its rows, and the same padded to the size by repeating the last.

    Example:
      >>> [(a.tolist(), len(b)) for a, b in padded_batches(np.arange(3), 2)]
      [([0, 1], 2), ([2], 2)]
    """
    size = spread_size(batch)
    cuts = [rows[start : start + size] for start in range(0, len(rows), size)]
    return [(each, np.pad(each, (0, size - len(each)), mode="edge")) for each in cuts]


def spread(arrays: Any) -> Any:
    """Put arrays on this process's devices, their rows shared out."""
    return jax.device_put(arrays, batch_sharding(make_mesh("dp", jax.local_devices())))


def on_every_device(tree: Any) -> Any:
    """Put arrays whole on each of this process's devices."""
    return jax.device_put(tree, replicated(make_mesh("dp", jax.local_devices())))


def read_batches(
    read: Callable[..., Any], arrays: Mapping[str, np.ndarray], batch: int
) -> np.ndarray:
    """Return ``read(text, picture, picture_ok)`` of items, batch by batch.

    Args:
      read: A compiled function; each batch is shared out over this process's devices.
      arrays: "text", "picture" and "picture_ok" of the items.
      batch: Items that are read at once, about.
    """
    parts = []
    for rows, padded in padded_batches(np.arange(len(arrays["text"])), batch):
        few = [arrays[name][padded] for name in ("text", "picture", "picture_ok")]
        parts.append(np.asarray(read(*spread(few)))[: len(rows)])
    return np.concatenate(parts)
