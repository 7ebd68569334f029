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
from jmrec.tools.benchmark_backbone import MODELS, inputs_of, serve_rounds


def rounds_of(name: str, settings: dict[str, Any]) -> Iterator[list[np.ndarray]]:
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    path = open_source(MODELS[name]).source.path
    model: Any
    if name == "efficientnet":
        reference = runpy.run_path(str(Path(__file__).with_name("torch_efficientnet.py")))
        model = reference["EfficientNet"](reference["LITE0"])
        model.load_state_dict(torch.load(path, weights_only=True))
        vocab = 0
    elif name == "smollm2":
        config = AutoConfig.from_pretrained(path.parent, gguf_file=path.name)
        whole = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        # transformers' own reading, without its from_pretrained, which wants accelerate too.
        tensors = load_gguf_checkpoint(str(path), return_tensors=True, model_to_load=whole)
        whole.load_state_dict(tensors["tensors"], strict=False)
        model, vocab = whole.model, config.vocab_size
    else:
        model = AutoModel.from_pretrained(path, dtype=torch.float32)
        vocab = model.config.vocab_size
    model = model.eval()

    def read(given: np.ndarray) -> np.ndarray:
        if name == "efficientnet":
            pixels = torch.from_numpy((given.astype(np.float32) - 127) / 128).permute(0, 3, 1, 2)
            return model.features(pixels).mean((2, 3)).numpy()
        tokens = torch.from_numpy(given).long()
        mask = (tokens > 0).long()
        states = model(input_ids=tokens, attention_mask=mask).last_hidden_state
        if name == "smollm2":
            return states.numpy()
        wide = mask[..., None].float()
        mean = (states * wide).sum(1) / wide.sum(1)
        return torch.nn.functional.normalize(mean).numpy()

    inputs = inputs_of(name, settings, vocab)
    with torch.inference_mode():
        while True:
            yield [read(each) for each in inputs]


if __name__ == "__main__":
    serve_rounds(rounds_of(sys.argv[1], json.loads(sys.argv[2])))
