"""A reader of pictures that learns nothing: counted colours, and counted directions of edges.

References:
  Swain and Ballard, Color Indexing, 1991: https://doi.org/10.1007/BF00130487
  Dalal and Triggs, Histograms of Oriented Gradients for Human Detection, 2005:
  https://doi.org/10.1109/CVPR.2005.177
"""

import numpy as np

HUES, LEVELS, DIRECTIONS, CELLS = 16, 4, 8, 4
SHARES = (1.0, 0.5, 0.25)
"""Colours are counted in the whole picture and around its middle, where an object mostly is."""
SIDE = 32
"""Pictures are read at this size; a multiple of `CELLS`."""


def counted(pictures: np.ndarray) -> np.ndarray:
    """Return the counts of pictures.

    Args:
      pictures: uint8 [V, S, S, 3], S a multiple of 8.

    Returns:
      float32 [V, 3 (16 + 64) + 128]: square roots of shares.

    Example:
      >>> found = counted(np.full((2, 32, 32, 3), (200, 10, 10), np.uint8))
      >>> found.shape, float(found[0, 0])  # all of the colour is red
      ((2, 368), 1.0)
    """
    pixels = pictures.astype(np.float32) / 255.0
    side = pixels.shape[1]
    parts = []
    for share in SHARES:
        cut = round(side * (1 - share) / 2)
        few = pixels[:, cut : side - cut, cut : side - cut]
        parts += [_hues(few), _colours(few)]
    parts.append(_edges(pixels.mean(-1)))
    return np.sqrt(np.concatenate(parts, 1)).astype(np.float32)


def _hues(pixels: np.ndarray) -> np.ndarray:
    """Return the shares of hues, each pixel weighed by how colourful it is."""
    high, low = pixels.max(-1), pixels.min(-1)
    depth = high - low
    red, green, blue = (pixels[..., n] for n in range(3))
    safe = np.maximum(depth, 1e-9)
    sixth = np.where(
        high == red,
        ((green - blue) / safe) % 6,
        np.where(high == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    place = sixth / 6 * HUES
    below = np.floor(place).astype(int)
    part = place - below
    found = np.zeros((len(pixels), HUES), np.float32)
    for hue in range(HUES):
        near = np.where(below % HUES == hue, 1 - part, 0) + np.where(
            (below + 1) % HUES == hue, part, 0
        )
        found[:, hue] = (near * depth).sum((1, 2))
    return found / np.maximum(found.sum(1, keepdims=True), 1e-6)


def _colours(pixels: np.ndarray) -> np.ndarray:
    """Return the shares of 64 colours."""
    level = np.clip((pixels * LEVELS).astype(int), 0, LEVELS - 1)
    code = (level * np.array([LEVELS**2, LEVELS, 1])).sum(-1).reshape(len(pixels), -1)
    counts = [np.bincount(each, minlength=LEVELS**3) for each in code]
    return np.stack(counts) / code.shape[1] if counts else np.zeros((0, LEVELS**3))


def _edges(grey: np.ndarray) -> np.ndarray:
    """Return the shares of directions of edges, in each cell of a grid."""
    down, right = np.gradient(grey, axis=(1, 2))
    strength = np.hypot(down, right)
    angle = (np.arctan2(down, right) % np.pi) / np.pi
    which = np.minimum((angle * DIRECTIONS).astype(int), DIRECTIONS - 1)
    count, cell = len(grey), grey.shape[1] // CELLS
    shape = (count, CELLS, cell, CELLS, cell)
    found = np.stack(
        [np.where(which == d, strength, 0).reshape(shape).sum((2, 4)) for d in range(DIRECTIONS)],
        -1,
    ).reshape(count, -1)
    return found / np.maximum(found.sum(1, keepdims=True), 1e-6)
