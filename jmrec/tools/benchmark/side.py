"""The jmrec side of ``python -m jmrec.tools.benchmark backbone``, in a process of its own."""

import json
import sys
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jmrec.convert.families import FAMILIES, load_pretrained
from jmrec.flops import matmul_flops
from jmrec.losses import token_cross_entropy
from jmrec.models.parts.lora import LoraConfig, applied
from jmrec.systems.pretrained import computing_in
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
from jmrec.types import Model, Params


def reading(model: Model, params: Params, name: str) -> tuple[Any, tuple[Any, ...]]:
    """Return a jitted function of (*held, inputs), and what it holds."""
    function = {"minilm": "sentence", "smollm2": "encode", PICTURES: "pooled"}[name]

    def read(params: Params, given: jax.Array) -> jax.Array:
        # As a catalogue is embedded: with a mask, here of full rows.
        masks = () if name == PICTURES else (given > 0,)
        return model.fns[function](params, given, *masks)[0].astype(jnp.float32)

    return jax.jit(read), (params,)


def trainer(model: Model, params: Params) -> tuple[Any, tuple[Any, ...]]:
    """Return a jitted update of low-rank updates, and (parameters, updates, Adam's state)."""
    config = LoraConfig(rank=RANK, alpha=ALPHA)
    attention = params["stack"]["blocks"]["attention"]
    start = first_updates(*attention["query"]["kernel"].shape[:2])
    updates: Params = {}
    for name, a in start.items():
        layers, _, out = attention[name]["kernel"].shape
        updates[name] = {"a": jnp.asarray(a), "b": jnp.zeros((layers, RANK, out))}
    lora = {"stack": {"blocks": {"attention": updates}}}
    adam = optax.adam(RATE)

    @partial(jax.jit, donate_argnums=(1, 2))
    def step(params: Params, lora: Params, state: Any, text: jax.Array) -> Any:
        def loss(lora: Params) -> jax.Array:
            low = applied(config, lora, params)
            logits, _ = model.fns["lm_logits"](params, text, text > 0, lora=low)
            return token_cross_entropy(logits[:, :-1], text[:, 1:]).mean()

        value, grads = jax.value_and_grad(loss)(lora)
        change, state = adam.update(grads, state)
        return optax.apply_updates(lora, change), state, value

    return step, (params, lora, adam.init(lora))


def matmul_rate(dtype: str, size: int | None = None) -> float:
    """Return the measured FLOP/s of a large product of matrices, of ``size`` rows and columns."""
    size = size or (8192 if jax.default_backend() != "cpu" else 2048)
    x = jnp.ones((size, size), dtype)
    product = jax.jit(lambda x: x @ x)
    jax.block_until_ready(product(x))
    start = time.perf_counter()
    for _ in range(5):
        last = product(x)
    jax.block_until_ready(last)
    return 5 * 2 * size**3 / (time.perf_counter() - start)


def main(name: str, settings: dict[str, Any]) -> None:
    """Serve the rounds of one model."""
    dtype = settings["precision"]
    found = load_pretrained(MODELS[name], dtype=dtype)
    model = FAMILIES[found.family].model(computing_in(found.model.config, dtype))
    params = jax.device_put(found.params)
    training = name == TRAINED
    run, held = trainer(model, params) if training else reading(model, params, name)
    inputs = inputs_of(name, settings, getattr(model.config, "vocab", 0))
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), held)
    flops = sum(matmul_flops(run.trace(*shapes, each).jaxpr) for each in inputs)

    def rounds(held: tuple[Any, ...]) -> Iterator[list[np.ndarray]]:
        while True:
            out = []
            for each in inputs:
                result = run(*held, each)
                if training:
                    held = (held[0], *result[:2])
                out.append(result[-1] if training else result)
            yield [np.asarray(each) for each in out]

    def facts() -> dict[str, Any]:
        device = jax.local_devices()[0]
        memory = device.memory_stats() or {}
        peak = {"peak": memory["peak_bytes_in_use"]} if "peak_bytes_in_use" in memory else {}
        return {"flops": flops, "rate": matmul_rate(dtype), "device": device.device_kind, **peak}

    serve_rounds(rounds(held), facts)


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
