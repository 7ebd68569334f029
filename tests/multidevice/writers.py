"""Run by test_generation.py in its own process, with 8 fake devices; prints json.

python writers.py
"""

import json
from typing import Any

import jax

from jmrec.generate import make_generator
from jmrec.models.parts.lora import LoraConfig, applied, init_lora
from jmrec.models.parts.transformer import StackConfig
from jmrec.models.readers.decoder import DecoderConfig, decoder
from jmrec.sharding import make_mesh, put_tree, shardings

STACK = StackConfig(width=16, layers=1, heads=4, kv_heads=2, mlp=16)
CONFIG = DecoderConfig(vocab=32, stack=STACK, context=40)
LORA = LoraConfig(rank=2)
PROMPTS = [[1, 2, 3], [4], [5, 6, 7, 8, 9, 10, 1, 2, 3], [11, 12], [31]]


def main() -> dict[str, Any]:
    model = decoder(CONFIG)
    keys = iter(jax.random.split(jax.random.key(0), 99))

    def noise(tree: Any) -> Any:
        return jax.tree.map(lambda p: 0.7 * jax.random.normal(next(keys), p.shape), tree)

    params = noise(model.init(jax.random.key(0)))
    lora = applied(LORA, noise(init_lora(LORA, params, jax.random.key(0))), params)
    sampled = {"key": jax.random.key(3), "temperature": 1.5, "top_p": 0.9}
    found: dict[str, Any] = {"texts": {}, "sampled": {}, "query": {}}
    for rules in ("one", "dp", "fsdp_tp"):
        placed, mesh = params, None
        if rules != "one":
            mesh = make_mesh(rules)
            tree = shardings(model.logical_axes(params), params, mesh, rules)
            placed = put_tree(params, tree)
            query = placed["stack"]["blocks"]["attention"]["query"]["kernel"]
            found["query"][rules] = query.addressable_shards[0].data.shape
        write = make_generator(
            model, max_new=8, stop=[5], mesh=mesh, rules="dp" if mesh is None else rules
        )
        found["texts"][rules] = write(placed, PROMPTS, lora=lora)
        found["sampled"][rules] = write(placed, PROMPTS, lora=lora, **sampled)
    return found


if __name__ == "__main__":
    print("RESULT" + json.dumps(main()))
