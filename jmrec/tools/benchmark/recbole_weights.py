"""RecBole's weights, by their names in torch, as those of jmrec's encoders of the same names.

RecBole's item 0 is padding; here the last row of the table is that of unknown items.
"""

from collections.abc import Callable, Mapping

import jax
import numpy as np

from jmrec.types import Params

Weights = Mapping[str, np.ndarray]


def from_recbole(name: str, weights: Weights, params: Params) -> Params:
    """Return the weights of RecBole's model as parameters of an encoder over ids alone.

    Args:
      name: A key of `ENCODERS_OF`.
      weights: Torch's names -> arrays.
      params: Parameters of the encoder, for their shapes.

    Raises:
      ValueError: If they do not fit.

    Example:
      >>> from jmrec.models.sessions.stamp import StampConfig, stamp
      >>> w = {f"{n}.weight": np.ones((2, 2)) for n in ("w1", "w2", "w3", "mlp_a", "mlp_b")}
      >>> w |= {"item_embedding.weight": np.array([[0, 0], [1, 2], [3, 4]]), "b_a": np.ones(2)}
      >>> w |= {"w0.weight": np.ones((1, 2)), "mlp_a.bias": np.ones(2), "mlp_b.bias": np.ones(2)}
      >>> empty = stamp(StampConfig(features=0, ids=3, width=2)).init(jax.random.key(0))
      >>> from_recbole("stamp", w, empty)["ids"].tolist()
      [[1.0, 2.0], [3.0, 4.0], [0.0, 0.0]]
    """
    table = weights["item_embedding.weight"]
    found: Params = ENCODERS_OF[name](weights)
    found["ids"] = np.concatenate([table[1:], np.zeros_like(table[:1])])
    return jax.tree.map(
        lambda old, new: np.asarray(new, np.float32).reshape(old.shape), params, found
    )


def linear(weights: Weights, name: str) -> dict[str, np.ndarray]:
    """Return a matrix and, where it has one, its bias."""
    bias = weights.get(f"{name}.bias")
    matrix = {"kernel": weights[f"{name}.weight"].T}
    return matrix if bias is None else {**matrix, "bias": bias}


def norm(weights: Weights, name: str) -> dict[str, np.ndarray]:
    """Return a layer norm."""
    return {"scale": weights[f"{name}.weight"], "bias": weights[f"{name}.bias"]}


def gru(weights: Weights, name: str) -> Params:
    """Return one recurrent layer without biases."""
    return {
        "input": {"kernel": weights[f"{name}.weight_ih_l0"].T},
        "state": weights[f"{name}.weight_hh_l0"].T,
    }


def transformer(weights: Weights, under: str = "") -> Params:
    """Return positions, the first norm and the blocks."""
    found: Params = {
        "places": weights[f"{under}position_embedding.weight"],
        "norm": norm(weights, f"{under}LayerNorm"),
    }
    for n in range(sum(each.endswith("feed_forward.dense_1.weight") for each in weights)):
        layer = f"{under}trm_encoder.layer.{n}"
        attention, feed = f"{layer}.multi_head_attention", f"{layer}.feed_forward"
        found[f"block_{n}"] = {
            **{e: linear(weights, f"{attention}.{e}") for e in ("query", "key", "value")},
            "out": linear(weights, f"{attention}.dense"),
            "attention_norm": norm(weights, f"{attention}.LayerNorm"),
            "up": linear(weights, f"{feed}.dense_1"),
            "down": linear(weights, f"{feed}.dense_2"),
            "mlp_norm": norm(weights, f"{feed}.LayerNorm"),
        }
    return found


def _gru4rec(weights: Weights) -> Params:
    return {"gru_0": gru(weights, "gru_layers"), "head": linear(weights, "dense")}


def _narm(weights: Weights) -> Params:
    return {
        "gru_0": gru(weights, "gru"),
        "key": linear(weights, "a_1"),
        "query": linear(weights, "a_2"),
        "attention": {"weight": weights["v_t.weight"]},
        "head": linear(weights, "b"),
    }


def _stamp(weights: Weights) -> Params:
    return {
        "item": linear(weights, "w1"),
        "last": linear(weights, "w2"),
        "mean": {**linear(weights, "w3"), "bias": weights["b_a"]},
        "attention": {"weight": weights["w0.weight"]},
        "general": linear(weights, "mlp_a"),
        "current": linear(weights, "mlp_b"),
    }


def _core(weights: Weights) -> Params:
    return {**transformer(weights, "net."), "weigh": linear(weights, "net.fn")}


def _srgnn(weights: Weights) -> Params:
    gates = {"passed": "ih", "own": "hh"}
    return {
        "before": linear(weights, "gnn.linear_edge_in"),
        "after": linear(weights, "gnn.linear_edge_out"),
        "before_shift": weights["gnn.b_iah"],
        "after_shift": weights["gnn.b_ioh"],
        **{
            name: {"kernel": weights[f"gnn.w_{each}"].T, "bias": weights[f"gnn.b_{each}"]}
            for name, each in gates.items()
        },
        "query": linear(weights, "linear_one"),
        "key": linear(weights, "linear_two"),
        "weigh": linear(weights, "linear_three"),
        "head": linear(weights, "linear_transform"),
    }


ENCODERS_OF: dict[str, Callable[[Weights], Params]] = {
    "sasrec": transformer,
    "gru4rec": _gru4rec,
    "narm": _narm,
    "stamp": _stamp,
    "core": _core,
    "srgnn": _srgnn,
}
"""The encoders that RecBole has too; how the weights of each are named there."""
