"""The torch side of ``python -m jmrec.tools.benchmark backbone``, in a process of its own."""

import json
import os
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from jmrec.convert.provenance import open_source
from jmrec.tools.benchmark.backbone import (
    ALPHA,
    MODELS,
    PICTURES,
    RANK,
    RATE,
    TRAINED,
    first_updates,
    inputs_of,
)
from jmrec.tools.benchmark.turns import serve_rounds

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Updated(torch.nn.Module):
    """A frozen matrix and its low-rank update."""

    def __init__(self, base: torch.nn.Linear, a: np.ndarray) -> None:
        super().__init__()
        self.base = base
        self.a = torch.nn.Parameter(torch.from_numpy(a).to(DEVICE))
        self.b = torch.nn.Parameter(torch.zeros(RANK, base.out_features, device=DEVICE))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b = self.a.to(x.dtype), (self.b * (ALPHA / RANK)).to(x.dtype)
        return self.base(x) + (x @ a) @ b


def load(name: str, dtype: torch.dtype) -> tuple[Any, int]:
    """Return a model with its weights, and its vocabulary."""
    path = open_source(MODELS[name]).source.path
    model: Any
    if name == PICTURES:
        reference = runpy.run_path(str(Path(__file__).with_name("torch_efficientnet.py")))
        model, vocab = reference["EfficientNet"](reference["LITE0"]), 0
        model.load_state_dict(torch.load(path, weights_only=True))
    elif name.startswith("smollm2"):
        config = AutoConfig.from_pretrained(path.parent, gguf_file=path.name)
        model, vocab = AutoModelForCausalLM.from_config(config), config.vocab_size
        # transformers' own reading, without its from_pretrained, which wants accelerate too.
        tensors = load_gguf_checkpoint(str(path), return_tensors=True, model_to_load=model)
        model.load_state_dict(tensors["tensors"], strict=False)
        if name != TRAINED:
            model = model.model
    else:
        model = AutoModel.from_pretrained(path)
        vocab = model.config.vocab_size
    model = model.to(DEVICE).eval()
    for tensor in model.parameters():
        tensor.data = tensor.data.to(dtype)
    for key, buffer in model.named_buffers():
        # Rounded frequencies would turn far positions by wrong angles.
        if buffer.is_floating_point() and "inv_freq" not in key:
            buffer.data = buffer.data.to(dtype)
    return model, vocab


def trained(model: Any, inputs: list[torch.Tensor]) -> Iterator[list[np.ndarray]]:
    """Yield the losses of a round's updates."""
    model.requires_grad_(False)
    layers = model.model.layers
    start = first_updates(len(layers), model.config.hidden_size)
    for number, layer in enumerate(layers):
        attention = layer.self_attn
        attention.q_proj = Updated(attention.q_proj, start["query"][number])
        attention.v_proj = Updated(attention.v_proj, start["value"][number])
    adam = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], RATE)

    def loss_of(tokens: torch.Tensor) -> torch.Tensor:
        logits = model(input_ids=tokens, use_cache=False).logits[:, :-1].float()
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())

    run = torch.compile(loss_of, dynamic=False) if DEVICE == "cuda" else loss_of
    while True:
        losses = []
        for tokens in inputs:
            adam.zero_grad()
            loss = run(tokens)
            loss.backward()
            adam.step()
            losses.append(loss.detach())
        yield [loss.cpu().numpy() for loss in losses]


def read(name: str, model: Any, inputs: list[torch.Tensor]) -> Iterator[list[np.ndarray]]:
    """Yield what a round reads."""

    def vectors(given: torch.Tensor) -> torch.Tensor:
        if name == PICTURES:
            return model.features(given).float().mean((2, 3))
        mask = (given > 0).long()
        cache = {"use_cache": False} if name == "smollm2" else {}
        states = model(input_ids=given, attention_mask=mask, **cache).last_hidden_state.float()
        if name == "smollm2":
            return states
        wide = mask[..., None].float()
        return torch.nn.functional.normalize((states * wide).sum(1) / wide.sum(1))

    run = torch.compile(vectors, dynamic=False) if DEVICE == "cuda" else vectors
    with torch.inference_mode():
        while True:
            yield [run(each).cpu().numpy() for each in inputs]


def main(name: str, settings: dict[str, Any]) -> None:
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.set_float32_matmul_precision("high")  # TF32 on a GPU, as jax has it by itself
    dtype = getattr(torch, settings["precision"])
    model, vocab = load(name, dtype)
    given = inputs_of(name, settings, vocab)
    if name == PICTURES:
        pixels = [torch.from_numpy((each.astype(np.float32) - 127) / 128) for each in given]
        inputs = [each.permute(0, 3, 1, 2).to(DEVICE, dtype) for each in pixels]
    else:
        inputs = [torch.from_numpy(each).long().to(DEVICE) for each in given]

    def facts() -> dict[str, Any]:
        if DEVICE == "cpu":
            return {"device": "cpu"}
        peak = torch.cuda.max_memory_allocated()
        return {"device": torch.cuda.get_device_name(), "peak": peak}

    serve_rounds(trained(model, inputs) if name == TRAINED else read(name, model, inputs), facts)


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
