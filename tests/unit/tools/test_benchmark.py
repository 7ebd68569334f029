"""The benchmark tool: its data is a good folder, made from a seed; its figures are plausible."""

import json
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from scipy.special import expit, softmax
from scipy.special import ndtr as norm_cdf

from jmrec.data.folder import read_folder
from jmrec.data.prepared import prepare
from jmrec.models.sessions.sasrec import SasrecConfig
from jmrec.models.sessions.table import ENCODERS, item_vectors, session_model
from jmrec.tools.benchmark.__main__ import main
from jmrec.tools.benchmark.data import write_folder
from jmrec.tools.benchmark.recbole_weights import ENCODERS_OF, from_recbole
from jmrec.tools.benchmark.sessions_side import DROPOUT, training
from jmrec.training.step import TrainStep
from tests.parity import recbole_side


def test_the_folder_is_made_from_its_seed(tmp_path: Path) -> None:
    for name, seed in [("a", 0), ("b", 0), ("c", 1)]:
        write_folder(tmp_path / name, 2_000, seed)
    files = [
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in "abc"
    ]
    assert files[0] == files[1] != files[2]
    raw = read_folder(tmp_path / "a", strict=True)
    assert len(raw.item) == 2_000
    assert raw.event_names == ["", "buy", "cart", "view"]


def test_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "--rows", "2000", "--records", "--pictures", "40"]) == 0
    out = capsys.readouterr().out
    found = json.loads(out.splitlines()[-1])
    assert found["folder_mb"] > 40 * 0.005
    assert (found["benchmark"], found["rows"], found["items"]) == ("data", 2000, 40)
    assert 50 < found["prepare_peak_mb"] < 2000
    assert 0 < found["prepare_cpu_seconds"] < 180
    assert found["prepared_mb"] > 0
    assert 0 < found["sessions_load_seconds"] < found["records_load_seconds"]
    assert found["records_write_seconds"] > 0
    assert "prepare peak mb" in out


def test_one_answer_among_many(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--items", "5000", "--sessions", "300", "--ease-items", "40", "--calls", "3"]
    assert main(["serve", *words]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    names = [row["row"] for row in found["table"]]
    assert names[-2:] == ["sasrec", "blend of all"]
    assert {"EASE", "V-SKNN", "content-kNN (TF-IDF)"} < {*names}
    assert all(0 < row["median_ms"] <= row["p99_ms"] for row in found["table"])
    assert 2 < found["mean_length"] < 8
    assert main(["serve", "--items", "9"]) == 2
    assert "--items=9 is too small; give 60 or more." in capsys.readouterr().err


def test_a_population_needs_two(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["population", "--members", "1"]) == 2
    assert "--members=1 is too small; give 2 or more." in capsys.readouterr().err


def test_pictures_are_of_items_and_polars_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "--rows", "1000", "--pictures", "41"]) == 2
    assert "--pictures=41 is not from 0 to the 20 items" in capsys.readouterr().err
    assert main(["data", "--rows", "1000", "--polars", sys.executable]) == 2
    assert "could not run polars" in capsys.readouterr().err


def test_too_few_rows(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "--rows", "10"]) == 2
    assert "give 1000 or more" in capsys.readouterr().err


def test_kernels(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--items", "40,300", "--batch", "6", "--width", "8", "--chunk", "64", "--repeats", "1"]
    assert main(["kernels", *words]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    rows = {(row["kernel"], row["items"]): row for row in found["table"]}
    assert set(rows) == {(k, n) for k in ("softmax", "kl") for n in (40, 300)}
    for (kernel, items), row in rows.items():
        assert row["values_apart"] < 1e-5
        assert row["states_apart"] < 1e-5
        assert row["items_apart"] < 1e-5
        arrays = 1 if kernel == "softmax" else 2
        assert row["dense_least_mb"] == round(4 * 6 * items * arrays / 1e6, 1)
        assert row["time"] > 0


def test_sessions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_folder(tmp_path / "shop", 2_000, 0)
    words = ["--dir", str(tmp_path / "shop"), "--pairs", "60", "--batch", "60", "--rounds", "1"]
    assert main(["sessions", "--encoder", "gru4rec", *words]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    sides = {row["side"]: row for row in found["table"]}
    assert found["encoder"] == "gru4rec"
    assert list(sides) == ["jmrec train", "jmrec train sampled", "jmrec evaluate"]
    assert all(row["per_second"] > 0 and row["peak_mb"] > 50 for row in sides.values())
    dataset = prepare(tmp_path / "shop", None, tmp_path / "prepared")
    assert found["items"] == len(dataset.items)
    assert found["pairs"] == sum(max(len(each) - 1, 0) for each in dataset.splits["train"])
    assert found["predictions"] == sum(len(each) > 1 for each in dataset.splits["test"])


def test_an_encoder_that_does_not_pack_trains_on_batches_by_length(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shapes, update = [], TrainStep.__call__

    def seen(self: TrainStep, state: Any, frozen: Any, batch: Any, numbers: Any) -> Any:
        shapes.append(batch["item"].shape)
        return update(self, state, frozen, batch, numbers)

    monkeypatch.setattr(TrainStep, "__call__", seen)
    data = {"items": np.arange(40, dtype=np.int32) % 9, "offsets": np.array([0, 3, 7, 20, 40])}
    settings = {"encoder": "srgnn", "seed": 0, "batch": 200, "pairs": 1}
    rounds, facts = training({**data, "n_items": np.array(9)}, settings, sampled=False)
    (loss,) = next(rounds)
    assert loss == pytest.approx(np.log(9), rel=0.2)  # it has learned nothing yet
    assert facts["units"] > 100  # a batch has about 200 positions
    assert len(set(shapes)) > 1  # the first round, which is not timed, compiles them all
    every = set(shapes)
    for _ in range(3):
        first = len(shapes)
        next(rounds)
        assert len(shapes) == first + 1
    assert set(shapes) == every


def test_recboles_weights_are_read_by_their_names() -> None:
    """Against the formulas of the paper, in numpy, for one session."""
    random = np.random.default_rng(0)
    shapes = {"item_embedding.weight": (6, 64), "position_embedding.weight": (50, 64)}
    layer = "trm_encoder.layer.0."
    for name in ("query", "key", "value", "dense"):
        shapes |= {f"{layer}multi_head_attention.{name}.weight": (64, 64),
                   f"{layer}multi_head_attention.{name}.bias": (64,)}  # fmt: skip
    shapes |= {f"{layer}feed_forward.dense_1.weight": (256, 64),
               f"{layer}feed_forward.dense_1.bias": (256,),
               f"{layer}feed_forward.dense_2.weight": (64, 256),
               f"{layer}feed_forward.dense_2.bias": (64,)}  # fmt: skip
    for name in (
        "LayerNorm",
        f"{layer}multi_head_attention.LayerNorm",
        f"{layer}feed_forward.LayerNorm",
    ):
        shapes |= {f"{name}.weight": (64,), f"{name}.bias": (64,)}
    w = {name: random.normal(0, 0.2, shape) for name, shape in shapes.items()}
    model = session_model(SasrecConfig(features=0, ids=6, layers=1))
    params = from_recbole("sasrec", w, model.init(jax.random.key(0)))
    table = item_vectors(model, params, {"ids": np.arange(5)})
    session = np.array([3, 0, 4])
    found = model.fns["encode_session"](params, table[session][None], np.ones((1, 3), bool))[0][0]

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        x = (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True)
        return x * w[f"{name}.weight"] + w[f"{name}.bias"]

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    x = norm(
        w["item_embedding.weight"][session + 1] + w["position_embedding.weight"][:3], "LayerNorm"
    )
    attention = f"{layer}multi_head_attention"
    q, k, v = (
        linear(x, f"{attention}.{each}").reshape(3, 2, 32) for each in ("query", "key", "value")
    )
    logits = np.einsum("thc,shc->hts", q, k) / np.sqrt(32)
    logits = np.where(np.tril(np.ones((3, 3), bool)), logits, -np.inf)
    seen = np.einsum("hts,shc->thc", softmax(logits, -1), v).reshape(3, 64)
    x = norm(linear(seen, f"{attention}.dense") + x, f"{attention}.LayerNorm")
    y = linear(x, f"{layer}feed_forward.dense_1")
    y = linear(y * norm_cdf(y), f"{layer}feed_forward.dense_2")
    np.testing.assert_allclose(found, norm(y + x, f"{layer}feed_forward.LayerNorm"), atol=1e-5)


W, H = 4, 6
ITEM = {"item_embedding.weight": (6, W)}
GRU = {"weight_ih_l0": (3 * H, W), "weight_hh_l0": (3 * H, H)}
NAMES = {
    "gru4rec": {f"gru_layers.{n}": s for n, s in GRU.items()}
    | {"dense.weight": (W, H), "dense.bias": (W,)},
    "narm": {f"gru.{n}": s for n, s in GRU.items()}
    | {"a_1.weight": (H, H), "a_2.weight": (H, H), "v_t.weight": (1, H), "b.weight": (W, 2 * H)},
    "stamp": {f"{n}.weight": (W, W) for n in ("w1", "w2", "w3", "mlp_a", "mlp_b")}
    | {"w0.weight": (1, W), "b_a": (W,), "mlp_a.bias": (W,), "mlp_b.bias": (W,)},
    "srgnn": {"gnn.w_ih": (3 * W, 2 * W), "gnn.w_hh": (3 * W, W)}
    | {f"gnn.b_{n}h": (size * W,) for n, size in (("i", 3), ("h", 3), ("ia", 1), ("io", 1))}
    | {f"gnn.linear_edge_{n}.weight": (W, W) for n in ("in", "out")}
    | {f"gnn.linear_edge_{n}.bias": (W,) for n in ("in", "out")}
    | {f"linear_{n}.weight": (W, W) for n in ("one", "two")}
    | {f"linear_{n}.bias": (W,) for n in ("one", "two", "transform")}
    | {"linear_three.weight": (1, W), "linear_transform.weight": (W, 2 * W)},
}
"""Torch's names and shapes in RecBole."""


def by_torch(w: dict[str, np.ndarray], name: str, x: np.ndarray) -> np.ndarray:
    return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0.0)


def gated(own: np.ndarray, given: np.ndarray, h: np.ndarray, new_share: bool) -> np.ndarray:
    """A gated recurrent unit; whether its gate is the new part's share or the old one's."""
    (r, z, n), (a, b, c) = np.split(given, 3, -1), np.split(own, 3, -1)
    z, n = expit(z + b), np.tanh(n + expit(r + a) * c)
    return (1 - z) * h + z * n if new_share else (1 - z) * n + z * h


def recurrent(w: dict[str, np.ndarray], name: str, x: np.ndarray) -> np.ndarray:
    h, states = np.zeros(H), []
    for each in x:
        own, given = (w[f"{name}.weight_hh_l0"] @ h, w[f"{name}.weight_ih_l0"] @ each)
        states.append(h := gated(own, given, h, new_share=False))
    return np.array(states)


def by_recbole(name: str, w: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """The state after three different items, as RecBole writes it."""
    if name == "gru4rec":
        return by_torch(w, "dense", recurrent(w, "gru_layers", x)[-1])
    if name == "narm":
        h = recurrent(w, "gru", x)
        alpha = by_torch(w, "v_t", expit(by_torch(w, "a_1", h) + by_torch(w, "a_2", h[-1])))
        return by_torch(w, "b", np.concatenate([(alpha * h).sum(0), h[-1]]))
    if name == "stamp":
        mean = x.mean(0)
        hidden = by_torch(w, "w1", x) + by_torch(w, "w2", x[-1]) + by_torch(w, "w3", mean)
        memory = (by_torch(w, "w0", expit(hidden + w["b_a"])) * x).sum(0) + mean
        return np.tanh(by_torch(w, "mlp_a", memory)) * np.tanh(by_torch(w, "mlp_b", x[-1]))
    before, after = np.eye(3, k=-1), np.eye(3, k=1)
    given = [before @ by_torch(w, "gnn.linear_edge_in", x) + w["gnn.b_iah"],
             after @ by_torch(w, "gnn.linear_edge_out", x) + w["gnn.b_ioh"]]  # fmt: skip
    given = np.concatenate(given, 1) @ w["gnn.w_ih"].T + w["gnn.b_ih"]
    h = gated(x @ w["gnn.w_hh"].T + w["gnn.b_hh"], given, x, new_share=True)
    alpha = expit(by_torch(w, "linear_one", h[-1]) + by_torch(w, "linear_two", h))
    whole = (by_torch(w, "linear_three", alpha) * h).sum(0)
    return by_torch(w, "linear_transform", np.concatenate([whole, h[-1]]))


@pytest.mark.parametrize("name", NAMES)
def test_the_weights_of_recboles_other_models_are_read_by_their_names(name: str) -> None:
    random = np.random.default_rng(1)
    w = {n: random.normal(0, 0.5, shape) for n, shape in {**ITEM, **NAMES[name]}.items()}
    hidden = {"hidden": H} if name in ("gru4rec", "narm") else {}
    model = session_model(ENCODERS[name].config(features=0, ids=6, width=W, **hidden))
    params = from_recbole(name, w, model.init(jax.random.key(0)))
    table = item_vectors(model, params, {"ids": np.arange(5)})
    session = np.array([3, 0, 4])
    found = jax.jit(model.fns["encode_session"])(
        params, table[session][None], np.ones((1, 3), bool)
    )
    want = by_recbole(name, w, w["item_embedding.weight"][session + 1])
    np.testing.assert_allclose(found[0][0, -1], want, rtol=1e-5, atol=1e-5)


def test_recboles_models_are_those_of_the_encoders() -> None:
    assert set(ENCODERS_OF) == set(recbole_side.MODELS) == set(DROPOUT)
    assert set(ENCODERS_OF) <= set(ENCODERS)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["kernels", "--items", "many"], "--items=many is no list of sizes"),
        (["kernels", "--batch", "0"], "--batch=0 is too small"),
        (
            ["backbone", "--models", "bert"],
            "'bert' is none of minilm, smollm2, ",
        ),
        (["backbone", "--lengths", "1"], "--lengths=1 are no lengths"),
        (["backbone", "--size", "8"], "--size 32 or more"),
    ],
)
def test_what_makes_no_sense_is_said(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert said in capsys.readouterr().err
