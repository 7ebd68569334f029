"""The rules' table and its refusals; what needs several devices is in tests/multidevice."""

import logging

import jax
import numpy as np
import pytest
from jax.sharding import AxisType

from jmrec.errors import UserError
from jmrec.sharding import RULES, make_mesh, put_batch, shardings
from jmrec.sharding.mesh import mesh_shape
from jmrec.sharding.rules import LOGICAL_AXES


def shape(*sizes: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(sizes, "float32")


def test_the_mesh_is_auto() -> None:
    for rules in RULES:
        mesh = make_mesh(rules)
        assert mesh.axis_names == ("data", "fsdp", "tensor")
        assert mesh.axis_types == (AxisType.Auto,) * 3


@pytest.mark.parametrize("n", [1, 2, 3, 8, 12])
@pytest.mark.parametrize("rules", sorted(RULES))
def test_the_mesh_uses_every_device(rules: str, n: int) -> None:
    assert np.prod(mesh_shape(rules, n)) == n


def test_every_rule_set_knows_every_logical_axis() -> None:
    assert all(set(table) == set(LOGICAL_AXES) for table in RULES.values())


def test_a_shape_that_does_not_fit_is_refused() -> None:
    with pytest.raises(UserError, match="does not fit"):
        make_mesh("dp", shape=(7, 3, 2))
    with pytest.raises(UserError, match="not known"):
        make_mesh("pipeline")
    with pytest.raises(UserError, match="not known"):
        shardings({}, {}, make_mesh(), "pipeline")


def test_axes_become_specs() -> None:
    axes = {"table": ("item", None), "scale": ("layers", None), "rate": (), "list": [("mlp",)]}
    axes["words"] = ("vocab", "embed")
    shapes = {"table": shape(8, 4), "scale": shape(2, 3), "rate": shape(), "list": [shape(6)]}
    shapes["words"] = shape(8, 4)
    found = {
        rules: jax.tree.map(lambda s: tuple(s.spec), shardings(axes, shapes, make_mesh(), rules))
        for rules in RULES
    }
    assert found["dp"]["table"] == (None, None)
    assert found["fsdp"]["table"] == ("fsdp", None)
    assert found["tp"]["table"] == ("tensor", None)
    assert found["fsdp_tp"]["table"] == (("fsdp", "tensor"), None)
    assert found["fsdp_tp"]["words"] == ("tensor", "fsdp")
    assert found["fsdp_tp"]["scale"] == (None, None)
    assert found["fsdp_tp"]["rate"] == ()
    assert found["fsdp_tp"]["list"] == [("tensor",)]


def test_wrong_axes_raise() -> None:
    mesh = make_mesh()
    with pytest.raises(ValueError, match=r"\['w'\].*no rule.*'colour'"):
        shardings({"w": ("colour",)}, {"w": shape(2)}, mesh, "dp")
    with pytest.raises(ValueError, match="'mlp' and 'heads' both lie on the mesh axis 'tensor'"):
        shardings({"w": ("mlp", "heads")}, {"w": shape(2, 2)}, mesh, "fsdp_tp")
    with pytest.raises(ValueError, match="do not fit shape"):
        shardings({"w": ("mlp",)}, {"w": shape(2, 2)}, mesh, "dp")
    with pytest.raises(ValueError, match="do not fit the arrays"):
        shardings({"v": ("mlp",)}, {"w": shape(2)}, mesh, "dp")


def test_no_axes_replicate_and_unused_rules_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    whole = shardings(None, {"w": shape(2, 2)}, make_mesh(), "fsdp")
    assert whole["w"].is_fully_replicated
    with caplog.at_level(logging.INFO, "jmrec.sharding.rules"):
        shardings({"w": ("embed", "mlp")}, {"w": shape(2, 2)}, make_mesh(), "fsdp_tp")
    assert "vocab, item, heads, kv_heads" in caplog.text


def test_a_batch_keeps_its_values_and_types() -> None:
    mesh = make_mesh(devices=jax.devices()[:1])
    batch = {"item": np.arange(6, dtype=np.int32).reshape(2, 3), "mask": np.ones((2, 3), bool)}
    placed = put_batch(batch, mesh)
    for name, array in batch.items():
        assert placed[name].dtype == array.dtype
        np.testing.assert_array_equal(placed[name], array)
    with pytest.raises(UserError, match="'rate' has no batch axis"):
        put_batch({"rate": np.float32(1)}, mesh)
