"""Conversion by a table: complete, or an error that names the tensor."""

import tracemalloc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from jmrec.convert import table
from jmrec.convert.sources import Safetensors
from jmrec.convert.table import Entry, chain, conv, convert, halves, split_in, split_out, transpose
from jmrec.errors import UserError
from jmrec.sharding import make_mesh, shardings

LAYERS, WIDTH, OUT = 3, 4, 6
TABLE = [
    Entry("embed", "embed.weight"),
    Entry("blocks/kernel", "h.{layer}.w", transpose),
    Entry("blocks/gain", "h.{layer}.g"),
    Entry("head", "embed.weight", transpose),  # tied
    Entry("product", ("embed.weight", "norm"), lambda x, g: x.T @ g),
]
WANTED = {
    "embed": jax.ShapeDtypeStruct((5, WIDTH), jnp.float32),
    "blocks": {
        "kernel": jax.ShapeDtypeStruct((LAYERS, WIDTH, OUT), jnp.float32),
        "gain": jax.ShapeDtypeStruct((LAYERS,), jnp.float32),
    },
    "head": jax.ShapeDtypeStruct((WIDTH, 5), jnp.float32),
    "product": jax.ShapeDtypeStruct((WIDTH,), jnp.float32),
}


class InMemory:
    """A source of arrays in memory."""

    path = Path("some weights")
    files = ()
    metadata: Mapping[str, Any] = {}

    def __init__(self, tensors: Mapping[str, np.ndarray]) -> None:
        self.tensors = dict(tensors)

    def names(self) -> list[str]:
        return sorted(self.tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.tensors[name].shape

    def read(self, name: str, index: Any = ...) -> np.ndarray:
        return self.tensors[name][index]


def tensors() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    made = {"embed.weight": (5, WIDTH), "norm": (5,)}
    for layer in range(LAYERS):
        made |= {f"h.{layer}.w": (OUT, WIDTH), f"h.{layer}.g": ()}
    return {name: np.asarray(rng.normal(size=s), np.float32) for name, s in made.items()}


def test_every_parameter_is_what_the_table_says() -> None:
    given = tensors()
    found = convert(InMemory(given), TABLE, WANTED)
    assert jax.tree.structure(found) == jax.tree.structure(WANTED)
    embed = given["embed.weight"]
    assert np.array_equal(found["embed"], embed)
    assert np.array_equal(found["head"], embed.T)
    assert np.array_equal(found["product"], embed.T @ given["norm"])
    for layer in range(LAYERS):
        assert np.array_equal(found["blocks"]["kernel"][layer], given[f"h.{layer}.w"].T)
        assert found["blocks"]["gain"][layer] == given[f"h.{layer}.g"]
    for leaf in jax.tree.leaves(found):
        assert leaf.dtype == np.float32
        assert leaf.flags.writeable


def test_a_type_by_argument() -> None:
    found = convert(InMemory(tensors()), TABLE, WANTED, dtype=jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {np.dtype(ml_dtypes.bfloat16)}
    rounded = tensors()["embed.weight"].astype(ml_dtypes.bfloat16)
    assert np.array_equal(found["embed"], rounded)


# --- each way of not fitting ------------------------------------------------------------------


def refused(given: Mapping[str, np.ndarray], entries: Any = TABLE, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        convert(InMemory(given), entries, WANTED, **options)
    said = str(caught.value)
    assert said.startswith("some weights: ")
    assert "\n" not in said
    return said


@pytest.mark.parametrize("name", tensors())
def test_a_missing_tensor_is_named(name: str) -> None:
    given = tensors()
    del given[name]
    assert f"tensor {name!r}" in refused(given)
    assert "is missing" in refused(given)


@pytest.mark.parametrize("name", tensors())
def test_a_renamed_tensor_is_named_with_its_new_name(name: str) -> None:
    given = tensors()
    given[f"{name}_v2"] = given.pop(name)
    said = refused(given)
    assert f"tensor {name!r}" in said
    assert f"(is it '{name}_v2', which nothing uses?)" in said


@pytest.mark.parametrize("name", ["extra", f"h.{LAYERS}.w", "h.0.w.scale"])
def test_an_extra_tensor_is_named_unless_it_is_ignored(name: str) -> None:
    given = {**tensors(), name: np.ones(2, np.float32)}
    assert f"no place for tensor {name!r}" in refused(given)
    assert f"no place for tensor {name!r}" in refused(given, ignore=["nothing.*", name[:-1]])
    convert(InMemory(given), TABLE, WANTED, ignore=[f"{name[:-1]}?"])


@pytest.mark.parametrize("name", tensors())
@pytest.mark.parametrize("how", ["longer", "another axis", "turned"])
def test_a_tensor_of_another_shape_is_named(name: str, how: str) -> None:
    given = tensors()
    tensor = given[name]
    given[name] = {
        "longer": np.concatenate([np.atleast_1d(tensor)] * 2),
        "another axis": tensor[None],
        "turned": tensor.T if tensor.ndim > 1 else np.zeros((2, 2), np.float32),
    }[how]
    said = refused(given)
    assert repr(name) in said
    assert f"has shape {given[name].shape}" in said


def test_an_unfilled_parameter_is_named() -> None:
    assert "fills the parameter 'blocks/gain'" in refused(
        tensors(), [e for e in TABLE if e.target != "blocks/gain"], ignore=["h.*.g"]
    )


def test_numbers_that_are_none_are_named() -> None:
    for layer in range(LAYERS):
        given = tensors()
        given[f"h.{layer}.w"][1, 2] = np.inf
        assert f"tensor 'h.{layer}.w' holds a number that is not finite" in refused(given)
    given = tensors()
    given["embed.weight"] = given["embed.weight"] * np.float32(1e6)
    assert "not finite in float16" in refused(given, dtype=np.float16)


def test_quantised_integers_are_refused() -> None:
    given = {**tensors(), "h.1.w": np.ones((OUT, WIDTH), np.int8)}
    assert "tensor 'h.1.w' holds int8" in refused(given)


def test_a_wrong_table_is_a_bug_and_no_user_error() -> None:
    source = InMemory(tensors())
    with pytest.raises(ValueError, match="two entries fill 'embed'"):
        convert(source, [*TABLE, TABLE[0]], WANTED)
    with pytest.raises(ValueError, match="no parameter 'blocks/other'"):
        convert(source, [*TABLE, Entry("blocks/other", "norm")], WANTED)


# --- transforms -------------------------------------------------------------------------------


def test_transforms_keep_what_a_layer_computes() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(2, 5, 7, 4))
    kernel = rng.normal(size=(6, 4))
    assert np.allclose(x @ transpose(kernel), np.einsum("bhwi,oi->bhwo", x, kernel))
    heads = rng.normal(size=(6, 4))  # two heads of three
    assert np.allclose(
        np.einsum("bhwd,dnc->bhwnc", x, split_out(2)(heads)).reshape(2, 5, 7, 6), x @ heads.T
    )
    y = rng.normal(size=(2, 6))
    back = rng.normal(size=(4, 6))
    assert np.allclose(np.einsum("bnc,ncd->bd", y.reshape(2, 2, 3), split_in(2)(back)), y @ back.T)
    assert conv(rng.normal(size=(8, 3, 2, 1))).shape == (2, 1, 3, 8)
    assert chain(transpose, split_in(2))(rng.normal(size=(8, 5))).shape == (2, 4, 5)


def test_halves_turns_interleaved_rotations_into_split_ones() -> None:
    rng = np.random.default_rng(2)
    heads, size, width = 2, 6, 5
    rows = rng.normal(size=(heads * size, width))
    x, angle = rng.normal(size=width), rng.normal(size=size // 2)
    # Neighbours (0, 1), (2, 3), ... as complex numbers, turned.
    pairs = (rows @ x).reshape(heads, size // 2, 2)
    turned = (pairs[..., 0] + 1j * pairs[..., 1]) * np.exp(1j * angle)
    # Here number i turns with number i + size / 2.
    a, b = np.split((halves(heads)(rows) @ x).reshape(heads, size), 2, axis=-1)
    assert np.allclose(a * np.cos(angle) - b * np.sin(angle), turned.real)
    assert np.allclose(b * np.cos(angle) + a * np.sin(angle), turned.imag)
    bias = rng.normal(size=heads * size)
    assert np.array_equal(halves(heads)(bias), halves(heads)(bias[:, None])[:, 0])


# --- straight onto a mesh ---------------------------------------------------------------------


def test_parameters_are_placed(tmp_path: Path) -> None:
    save_file(tensors(), tmp_path / "m.safetensors")
    source = Safetensors(tmp_path)
    axes = {
        "embed": ("vocab", "embed"),
        "blocks": {"kernel": ("layers", "embed", "mlp"), "gain": ("layers",)},
        "head": ("embed", "vocab"),
        "product": ("embed",),
    }
    placement = shardings(axes, WANTED, make_mesh(), "fsdp_tp")
    placed = convert(source, TABLE, WANTED, shardings=placement)
    whole = convert(source, TABLE, WANTED)
    for a, b, where in zip(*map(jax.tree.leaves, (placed, whole, placement))):
        assert a.sharding == where
        assert np.array_equal(a, b)


class OneOfFour:
    """The placement of a process that holds the second quarter of axis ``axis``."""

    def __init__(self, axis: int) -> None:
        self.axis = axis

    def addressable_devices_indices_map(self, shape: tuple[int, ...]) -> dict[str, Any]:
        quarter = shape[self.axis] // 4
        index = [slice(None)] * len(shape)
        index[self.axis] = slice(quarter, 2 * quarter)
        return {"device 1": tuple(index)}


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_process_holds_its_own_slices_only(
    tmp_path: Path, axis: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers, rows, columns = 4, 512, 512
    given = {f"h.{i}.w": np.full((rows, columns), i, np.float32) for i in range(layers)}
    for each in given.values():
        each += np.arange(columns) / 1024
    save_file(given, tmp_path / "m.safetensors")
    wanted = {"kernel": jax.ShapeDtypeStruct((layers, columns, rows), jnp.float32)}
    taken: dict[str, np.ndarray] = {}

    def take(shape: Any, where: OneOfFour, callback: Any) -> np.ndarray:
        (index,) = where.addressable_devices_indices_map(shape).values()
        taken["part"] = callback(index)
        return taken["part"]

    monkeypatch.setattr(table.jax, "make_array_from_callback", take)
    source = Safetensors(tmp_path)
    tracemalloc.start()
    convert(
        source,
        [Entry("kernel", "h.{layer}.w", transpose)],
        wanted,
        shardings={"kernel": OneOfFour(axis)},
    )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    whole = np.stack([given[f"h.{i}.w"].T for i in range(layers)])
    (index,) = OneOfFour(axis).addressable_devices_indices_map(whole.shape).values()
    assert np.array_equal(taken["part"], whole[index])
    assert peak < 0.4 * whole.nbytes  # a quarter, and what checking it costs
