"""Planning's arithmetic and words; what is compiled for 8 devices is in tests/multidevice."""

import json
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmrec.config import ConfigDict, load_config
from jmrec.data.item_arrays import with_facts
from jmrec.data.prepared import prepare
from jmrec.data.toyshop import FIELDS, ToyShopConfig, write_toyshop
from jmrec.errors import UserError
from jmrec.flops import matmul_flops
from jmrec.main import main
from jmrec.models.parts.transformer import StackConfig
from jmrec.models.sessions.transfer import TransferConfig, transfer_tower
from jmrec.systems.system import Sizes
from jmrec.tools.plan import plan as planning
from jmrec.tools.plan.hlo import collectives
from jmrec.tools.plan.shapes import Planner
from jmrec.tools.plan.verdict import GIB, StagePlan, duration, judge, parse_topology

CONFIG = "experiments/tpad.py:size=tiny"


def config(*overrides: str) -> ConfigDict:
    return load_config(CONFIG, list(overrides))


def sizes(**given: Any) -> StagePlan:
    """A stage of 1 GiB of parameters and 2 GiB of optimizer a device."""
    held = {"parameters": GIB, "optimizer": 2 * GIB, "frozen": 0, "batch": 0}
    facts = {"stage": "knowledge", "parameters": 1, "held": held, "whole": held,
             "replicated": {}, "rows": 4, "flops": 1, "group": "knowledge",
             "stacks": ("knowledge.stack", "knowledge.vision.stack")}  # fmt: skip
    return StagePlan(**{**facts, **given})


def compiled(activations: float) -> dict[str, int]:
    return {"arguments": 3 * GIB, "activations": int(activations * GIB), "code": 0}


@pytest.mark.parametrize(
    ("text", "devices", "gib"),
    [("v5e:16x16", 256, 15.75), ("v5p:4x4x4", 64, 95.7), ("v6e:8x8", 64, 31.25),
     ("h100:8", 8, 78.0)],
)  # fmt: skip
def test_topologies_are_read(text: str, devices: int, gib: float) -> None:
    found = parse_topology(text)
    assert (found.devices, found.memory) == (devices, int(gib * GIB))
    assert found.is_tpu == text.startswith("v")
    assert parse_topology(text, 2.0).memory == 2 * GIB


def test_fake_devices_share_this_machine() -> None:
    assert parse_topology("cpu:8").memory * 8 == pytest.approx(parse_topology("cpu:1").memory)


@pytest.mark.parametrize("text", ["v5e", "v5e:16", "v5p:4x4", "h100:2x2", "cpu:0", "k9:8", ":8"])
def test_other_topologies_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="is not understood; write cpu:8"):
        parse_topology(text)


def test_the_verdict_of_the_hardwares_own_compiler() -> None:
    v5e = parse_topology("v5e:2x2")
    fits = judge(sizes(compiled=compiled(4)), v5e, True, config())
    assert (fits.fits, fits.low, fits.high, fits.knobs) == (True, 7 * GIB, 7 * GIB, [])
    assert fits.words == "fits: 7.0 GiB of 15.8 GiB a device (44%)."
    refused = judge(sizes(out_of_memory="HLO temporaries (40.78G)"), v5e, True, config())
    assert refused.fits is False
    assert "does not fit: HLO temporaries (40.78G)" in refused.words
    # Activations were the trouble, so what makes them fewer comes first.
    assert "train.batch_size, 4 a device" in refused.knobs[0]
    assert any("knowledge.stack.remat=true" in knob for knob in refused.knobs)


def test_the_cpus_figure_is_an_upper_bound_for_a_tpu() -> None:
    v5p = parse_topology("v5p:2x2x2", 78)
    assert judge(sizes(compiled=compiled(50)), v5p, False, config()).fits is True
    unsure = judge(sizes(compiled=compiled(100)), v5p, False, config())
    assert unsure.fits is None
    assert "may fit: it needs 17.3 GiB to 103 GiB" in unsure.words
    hopeless = judge(sizes(compiled=compiled(7 * 80)), v5p, False, config())
    assert hopeless.fits is False


def test_of_a_gpus_activations_the_cpu_decides_nothing() -> None:
    h100, one = parse_topology("h100:8"), parse_topology("h100:1")
    unsure = judge(sizes(compiled=compiled(7 * 80)), h100, False, config())
    assert unsure.fits is None
    assert "may fit: it needs 4.0 GiB to" in unsure.words
    assert "MEM_FRACTION" in judge(sizes(compiled=compiled(60)), one, False, config()).words


def test_whose_compiler_is_exact() -> None:
    cpu, tpu, gpu = (parse_topology(text) for text in ("cpu:8", "v5e:4x4", "h100:8"))
    assert [each.exact(False) for each in (cpu, tpu, gpu)] == [True, False, False]
    assert [each.exact(True) for each in (tpu, gpu)] == [True, False]


def test_parameters_that_do_not_fit_want_to_be_spread() -> None:
    held = {"parameters": 9 * GIB, "optimizer": 18 * GIB, "frozen": GIB, "batch": 0}
    stage = sizes(held=held, whole=held)
    for_dp = judge(stage, parse_topology("v5e:4x4"), False, config())
    assert for_dp.fits is False
    assert for_dp.words.startswith("does not fit: it needs at least 37.0 GiB")
    assert for_dp.knobs[0].startswith("--rules fsdp (spreads parameters and optimizer, 27.0 GiB")
    alone = judge(stage, parse_topology("h100:1", 16), False, config())
    assert not any("--rules" in knob for knob in alone.knobs)
    spread = config("--config.rules=fsdp")
    assert "--rules dp" not in str(judge(stage, parse_topology("v5e:4x4"), False, spread).knobs)


def test_knobs_that_are_turned_already_are_not_offered() -> None:
    turned = config(
        "--config.knowledge.stack.remat=true", "--config.knowledge.stack.dtype=bfloat16",
        "--config.rules=fsdp",
    )  # fmt: skip
    stage = sizes(compiled=compiled(500), rows=1)
    knobs = judge(stage, parse_topology("v5e:4x4"), False, turned).knobs
    assert not any("knowledge.stack." in knob for knob in knobs)
    assert not any("batch_size" in knob for knob in knobs)
    assert knobs[0].startswith("--rules dp")


def test_a_batch_that_does_not_divide_is_said() -> None:
    v5e = parse_topology("v5e:16x16")
    verdict = judge(sizes(misfit="a batch of 8 does not divide"), v5e, True, config())
    assert verdict.fits is None
    assert verdict.words == "does not run: a batch of 8 does not divide"
    stage = sizes(misfit="a batch of 8 does not divide", compiled=compiled(1))
    assert "But it does not run yet" in judge(stage, v5e, True, config()).words


HLO = """\
HloModule jit_step, entry_computation_layout={(f32[8]{0})->f32[8]{0}}

%add (x: f32[], y: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%x, %y)
}

%body (p: (s32[], f32[64])) -> (s32[], f32[64]) {
  %gathered = bf16[4,64]{1,0:T(8,128)(2,1)S(1)} all-gather(%q), channel_id=1, dimensions={0}
  ROOT %out = (s32[], f32[64]{0}) tuple(%i, %g), metadata={op_name="all-reduce(x)"}
}

%fused.1 (p: f32[8]) -> f32[2] {
  ROOT %scattered = f32[2]{0} reduce-scatter(%p), channel_id=2, to_apply=%add
}

ENTRY %main.1_spmd (p: f32[8]) -> f32[8] {
  %w = (s32[], f32[64]{0}) while(%t), condition=%cond, body=%body, metadata={op_name="while"}, \
backend_config={"known_trip_count":{"n":"5"},"x":"y"}
  %f = f32[2]{0} fusion(%p), kind=kCustom, calls=%fused.1
  %both = (f32[8]{0:T(128)}, /*index=1*/pred[16]{0}) all-reduce(%a, %b), to_apply=%add
  %s = (f32[8]{0}, f32[32]{0}) all-gather-start(%p), channel_id=3, dimensions={0}
  %d = f32[32]{0} all-gather-done(%s)
  %c = (f32[8]{0}, f32[8]{0}, u32[], u32[]) collective-permute-start(%p), channel_id=4
  ROOT %e = f32[8]{0} add(%p, %p)
}
"""


def test_collectives_are_counted_with_the_turns_of_their_loops() -> None:
    assert collectives(HLO) == {
        "all-gather": {"count": 6, "bytes": 5 * 4 * 64 * 2 + 32 * 4},
        "all-reduce": {"count": 1, "bytes": 8 * 4 + 16},
        "collective-permute": {"count": 1, "bytes": 32},
        "reduce-scatter": {"count": 1, "bytes": 8},
    }
    assert collectives("HloModule empty") == {}


def stack_flops(c: StackConfig, batch: int, length: int) -> int:
    """Products of one forward pass through a stack, as written on paper."""
    head = c.width // c.heads
    projections = c.width * (2 * c.width + 2 * c.kv_heads * head)
    attention = 2 * length * c.heads * head
    return 2 * batch * length * c.layers * (projections + attention + 3 * c.width * c.mlp)


def tower(layers: int) -> tuple[TransferConfig, Any, Any, Any]:
    stack = StackConfig(width=64, layers=layers, heads=4, kv_heads=2, mlp=128)
    c = TransferConfig(features=48, stack=stack, out=32)
    model = transfer_tower(c)
    params = jax.eval_shape(model.init, jax.random.key(0))
    e, mask = jax.ShapeDtypeStruct((16, 24, 48), np.float32), jax.ShapeDtypeStruct((16, 24), bool)

    def forward(params: Any, e: Any, mask: Any) -> Any:
        return jnp.square(model.fns["encode_session"](params, e, mask)[0]).sum()

    return c, forward, params, (e, mask)


@pytest.mark.parametrize("layers", [2, 8, 9])
def test_flops_are_those_on_paper_also_under_scan(layers: int) -> None:
    c, forward, params, inputs = tower(layers)
    tokens = 16 * 24
    on_paper = stack_flops(c.stack, 16, 24)
    # token, head, and the direct path from 5 places.
    on_paper += 2 * tokens * (48 * 64 + 64 * 32 + 5 * 64 * 32)
    assert matmul_flops(jax.make_jaxpr(forward)(params, *inputs)) == on_paper
    both = matmul_flops(jax.make_jaxpr(jax.grad(forward))(params, *inputs))
    # Backward costs twice forward, but the features themselves need no gradient.
    assert both == 3 * on_paper - 2 * tokens * 48 * 64


def test_flops_agree_with_xla_where_nothing_is_scanned() -> None:
    _, forward, params, inputs = tower(2)  # short stacks are unrolled
    gradient = jax.jit(jax.grad(forward))
    lowered = gradient.lower(params, *inputs)
    counted = matmul_flops(gradient.trace(params, *inputs).jaxpr)
    cost = lowered.compile({"xla_backend_optimization_level": 0}).cost_analysis()
    # XLA counts the elementwise work too.
    assert 0.9 * cost["flops"] < counted < cost["flops"]


def test_products_that_nobody_reads_do_not_count() -> None:
    x = jnp.ones((3, 4))

    def f(x: Any) -> Any:
        @jax.jit
        def two(x: Any) -> Any:
            return x @ x.T, x.T @ x

        return two(x)[0]

    assert matmul_flops(jax.make_jaxpr(f)(x)) == 2 * 3 * 4 * 3


@pytest.mark.parametrize("groups", [1, 3])
def test_flops_of_convolutions_are_those_of_xla(groups: int) -> None:
    x, kernel = jnp.ones((2, 6, 9, 8)), jnp.ones((12, 6 // groups, 3, 2))

    def f(x: Any, kernel: Any) -> Any:
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "VALID", feature_group_count=groups)

    cost = jax.jit(f).lower(x, kernel).compile().cost_analysis()
    counted = matmul_flops(jax.make_jaxpr(f)(x, kernel))
    assert counted == 2 * (2 * 12 * 7 * 7) * (6 // groups * 3 * 2)
    assert counted == cost["flops"]


def test_the_process_sees_the_devices_that_are_planned_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flag = "--xla_force_host_platform_device_count"
    monkeypatch.setenv("XLA_FLAGS", f"--xla_a=1 {flag}=2")
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    env = planning.environment(8, tpu=False)
    assert env["XLA_FLAGS"].split() == ["--xla_a=1", f"{flag}=8"]
    assert env["JAX_PLATFORMS"] == "cpu"


def test_a_compiler_that_breaks_down_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in = tmp_path / "python"
    stand_in.write_text(
        "#!/bin/sh\ncat > /dev/null\n"
        'echo \'{"progress": "knowledge: compiling for 8 devices ..."}\'\nkill -SEGV $$\n'
    )
    stand_in.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stand_in))
    assert main(["plan", "--config", CONFIG, "--topology", "cpu:8"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "knowledge: compiling for 8 devices ..."
    assert said[1].startswith("jmrec: the compiler broke down in knowledge (ended by signal 11)")


def test_of_toyshop_as_many_text_fields_are_assumed_as_it_has(tmp_path: Path) -> None:
    write_toyshop(tmp_path / "shop", ToyShopConfig(items=50, sessions=60))
    items = prepare(tmp_path / "shop", None, tmp_path / "prepared").items
    assert tuple(items.text) == FIELDS
    facts, plain = (
        planning.assumed_sizes(config(f"--config.data.facts={on}"))["fields"]
        for on in ("true", "false")
    )
    assert facts == [config().data.max_tokens] * len(with_facts(items).text)
    assert len(plain) == len(items.text)


def test_bad_arguments_are_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    wrong = ["--fields a,b", "--items 0", "--vocab 0", "--memory 0", "--rules=x --config.nothing=1"]
    for words in (each.split() for each in wrong):
        assert main(["plan", "--config", CONFIG, "--topology", "cpu:2", *words]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_a_plan_for_people_names_every_figure(capsys: pytest.CaptureFixture[str]) -> None:
    whole = {"bytes": GIB, "share": 1.0, "largest": ["embed/kernel"]}
    stage = sizes(
        compiled=compiled(30), replicated={"parameters": whole},
        collectives={"all-reduce": {"count": 3, "bytes": 2**20}},
    )  # fmt: skip
    hardware = parse_topology("v5e:2x4")
    verdict = judge(stage, hardware, False, config())
    row = {**json.loads(json.dumps(stage.__dict__)), "verdict": verdict.__dict__}
    planning.show(
        {"topology": "v5e:2x4", "devices": 8, "memory": hardware.memory, "rules": "dp",
         "compiler": "cpu", "exact": False, "assumed": {"items": 5, "vocab": 6, "fields": [1, 2]},
         "stages": [row], "seconds": 3.0, "peak_memory": GIB}
    )  # fmt: skip
    printed = capsys.readouterr().out
    for text in ("8 devices of 15.8 GiB", "<30.0 GiB", "may fit", "would help: a batch smaller",
                 "all-reduce 3 x, 1.0 MiB", "embed/kernel", "too big for a TPU",
                 "Google Cloud Platform Terms of Service"):  # fmt: skip
        assert text in printed


D, H = 64, 128
ATTENTION, MLP = 4 * (D * D + D), 8 * D * D
SASREC = 50 * D + 2 * D + 2 * (ATTENTION + MLP + 5 * D + 4 * D)
GRU = 3 * H * (D + H)
PARAMETERS = {
    "sasrec": SASREC,
    "core": SASREC + D + 1,
    "gru4rec": GRU + H * D + D,
    "narm": GRU + 2 * H * H + H + 2 * H * D,
    "stamp": 5 * D * D + 3 * D + D,
    "srgnn": 4 * (D * D + D) + 2 * D + 9 * D * D + 6 * D + D + 2 * D * D + D,
    "bert4rec": SASREC + D + D + D * D + D + 2 * D,
    "hstu": 50 * D + 2 * (4 * D * D + 50 + 129 + D * D + D),
    "ligr": 50 * D + 2 * (ATTENTION + 4 * D + 2 * (D * D + D) + 12 * D * D),
}
"""By the formulas of the papers, beside the table of ids."""


def test_a_session_encoder_is_planned_with_all_its_parameters() -> None:
    spec = f"experiments/session.py:data=folder,size=tiny,items=ids,encoder={'+'.join(PARAMETERS)}"
    config = load_config(spec, ["--config.data.dir=nowhere", "--config.context.gap=True"])
    planner = Planner(config, Sizes(1000, 400, (8,)), jax.devices()[:1])
    found = {name: planner.step(f"students/{name}").parameters for name in PARAMETERS}
    assert found == {name: 1024 * D + count for name, count in PARAMETERS.items()}


def test_sessions_that_live_on_an_accelerator_are_planned_there() -> None:
    spec = "experiments/session.py:data=folder,size=tiny,items=ids"
    config = load_config(spec, ["--config.data.dir=nowhere"])
    sizes = {"few": Sizes(1000, 400, (8,), 5000), "many": Sizes(1000, 400, (8,), 10**8)}
    found = {}
    for kind, much in (("cpu", "few"), ("h100", "few"), ("h100", "many")):
        step = Planner(config, sizes[much], jax.devices()[:1], kind).step("students/sasrec")
        table = step.frozen.get("events", {})
        taken = sum(each.size * each.dtype.itemsize for each in table.values())
        found[kind, much] = taken, set(step.batch) == {"place", "mask"}
        if table:
            assert step.trace().jaxpr.out_avals  # the loss reads all it needs of the events
    assert found["cpu", "few"] == found["h100", "many"] == (0, False)
    assert found["h100", "few"] == (17 * 5120, True)


@pytest.mark.parametrize(
    "wrong",
    [{"interactions": 0}, {"epochs": 0.0}, {"use": 0.0}, {"use": 1.1}, {"price": -1.0},
     {"epochs": float("nan")}],
)  # fmt: skip
def test_a_length_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    good = {"interactions": 10, "epochs": 1.0, "use": 0.4, "price": None}
    assert planning.read_length(**good) == good
    assert planning.read_length(**{**good, "interactions": None}) is None
    with pytest.raises(UserError, match="--interactions"):
        planning.read_length(**{**good, **wrong})


def test_hours_are_flops_by_the_rate_of_all_devices() -> None:
    length = {"interactions": 1001, "epochs": 2.0, "use": 0.5, "price": 3.0}
    found = duration(flops=10**18, positions=100, hardware=parse_topology("v5p:2x2x2"), **length)
    assert found is not None
    assert found.updates == 21
    assert found.hours == pytest.approx(21e18 / (8 * 459e12 * 0.5) / 3600)
    assert found.cost == pytest.approx(found.hours * 8 * 3.0)
    assert duration(1, 1, parse_topology("cpu:8"), interactions=1) is None
