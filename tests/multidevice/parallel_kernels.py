"""The vocabulary-parallel kernels on 8 devices, beside the closed forms of numpy; prints JSON.

Run by test_parallel_kernels.py. The item table lies on four or eight devices, the states on two or
on all; one share of the table has no valid row.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType

from jmrec.kernels import parallel_kl, parallel_softmax_cross_entropy, parallel_topk

ROWS, COUNT, CHUNK = 40, 6, 3


def inputs() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    valid = random.random(ROWS) < 0.7
    valid[10:20] = False  # a whole share
    found = {
        "teacher_states": random.normal(size=(COUNT, 4)),
        "teacher_items": random.normal(size=(ROWS, 4)),
        "teacher_bias": random.normal(size=ROWS),
        "states": random.normal(size=(COUNT, 3)).round(),
        "items": random.normal(size=(ROWS, 3)).round(),  # whole numbers: ties
        "bias": random.normal(size=ROWS).round(),
    }
    found = {name: array.astype(np.float32) for name, array in found.items()}
    targets = random.choice(np.flatnonzero(valid), COUNT).astype(np.int32)
    where = np.arange(COUNT) != 1
    found |= {"targets": targets, "valid": valid, "where": where}
    found["states"][1] = np.nan
    found["items"][15] = np.nan
    return found


def main() -> None:
    found = {}
    m = {name: jnp.asarray(array) for name, array in inputs().items()}
    for shape in ((2, 4), (1, 8)):
        mesh = jax.make_mesh(shape, ("data", "tensor"), axis_types=(AxisType.Auto,) * 2)
        for batch in ("data", None):
            where = {"mesh": mesh, "batch": batch, "valid": m["valid"]}
            masks = {**where, "where": m["where"], "chunk": CHUNK}

            def softmax(part, masks=masks):
                return parallel_softmax_cross_entropy(
                    part["states"], part["items"], m["targets"], bias=part["bias"], **masks
                )

            def kl(part, masks=masks):
                return parallel_kl(
                    m["teacher_states"], m["teacher_items"], part["states"], part["items"],
                    teacher_bias=m["teacher_bias"], student_bias=part["bias"], temperature=1.7,
                    **masks,
                )  # fmt: skip

            part = {name: m[name] for name in ("states", "items", "bias")}
            here = f"{shape[1]} {batch}"
            for name, loss in (("softmax", softmax), ("kl", kl)):

                def both(part, loss=loss):
                    values, pull = jax.vjp(loss, part)
                    return values, pull(jnp.arange(1.0, 1 + COUNT))[0]

                values, gradients = jax.jit(both)(part)
                found[f"{name} {here}"] = [values.tolist(), jax.tree.map(np.ndarray.tolist,
                    jax.tree.map(np.asarray, gradients))]  # fmt: skip
            scores, rows = jax.jit(
                lambda part, where=where: parallel_topk(
                    part["states"], part["items"], 7, bias=part["bias"], chunk=CHUNK, **where
                )
            )(part)
            found[f"topk {here}"] = [scores.tolist(), rows.tolist()]
    print("RESULT" + json.dumps(found))


if __name__ == "__main__":
    main()
