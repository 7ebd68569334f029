"""EfficientNet-Lite in torch, written from its papers: what jmrec's is compared with.

Names are those of the published torch weights. Batch normalisation is a layer of its own here, and
padding is put on by hand, the odd row and column at the end.
"""

from collections.abc import Sequence

import torch
from torch import nn

# Repeats, side of the kernel, stride, expansion and channels of the stages of lite0.
LITE0 = [
    *[(1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80)],
    *[(3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320)],
]


class Same(nn.Conv2d):
    """A convolution whose output has ceil(size / stride) rows and columns."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pads: list[int] = []
        for axis in (3, 2):
            size, side, stride = x.shape[axis], self.kernel_size[0], self.stride[0]
            total = max((-(-size // stride) - 1) * stride + side - size, 0)
            pads += [total // 2, total - total // 2]
        return super().forward(nn.functional.pad(x, pads))


def norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


class Block(nn.Module):
    def __init__(self, channels: int, side: int, stride: int, expand: int, out: int) -> None:
        super().__init__()
        wide = channels * expand
        if expand > 1:
            self._expand_conv = Same(channels, wide, 1, bias=False)
            self._bn0 = norm(wide)
        self._depthwise_conv = Same(wide, wide, side, stride, groups=wide, bias=False)
        self._bn1 = norm(wide)
        self._project_conv = Same(wide, out, 1, bias=False)
        self._bn2 = norm(out)
        self.expands, self.skips = expand > 1, stride == 1 and channels == out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        before = x
        if self.expands:
            x = nn.functional.relu6(self._bn0(self._expand_conv(x)))
        x = nn.functional.relu6(self._bn1(self._depthwise_conv(x)))
        x = self._bn2(self._project_conv(x))
        return x + before if self.skips else x


class EfficientNet(nn.Module):
    """Pictures [B, 3, H, W] that are normalised already, to logits [B, classes]."""

    def __init__(
        self,
        stages: Sequence[tuple[int, int, int, int, int]],
        stem: int = 32,
        head: int = 1280,
        classes: int = 1000,
    ) -> None:
        super().__init__()
        self._conv_stem = Same(3, stem, 3, 2, bias=False)
        self._bn0 = norm(stem)
        blocks, channels = [], stem
        for repeats, side, stride, expand, out in stages:
            for repeat in range(repeats):
                blocks.append(Block(channels, side, 1 if repeat else stride, expand, out))
                channels = out
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = Same(channels, head, 1, bias=False)
        self._bn1 = norm(head)
        self._fc = nn.Linear(head, classes)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        return nn.functional.relu6(self._bn1(self._conv_head(x)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._fc(self.features(x).mean((2, 3)))
