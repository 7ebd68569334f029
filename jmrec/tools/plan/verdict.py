"""From a stage's sizes to words: does it fit, and what would help. No jax in here."""

import math
import os
import re
from dataclasses import dataclass, field
from typing import Any

from jmrec.config import ConfigDict
from jmrec.errors import UserError
from jmrec.models.parts.transformer import remat_policy
from jmrec.tools.terminal import human

GIB = 2**30
TPU_MEMORY = {"v5e": 15.75, "v5p": 95.7, "v6e": 31.25}
"""GiB a device that the TPU compiler lets a program have."""
GPU_MEMORY = {"h100": 78.0, "h200": 139.0}
"""GiB a device that is free on an idle one; JAX takes 75 % of it by default."""
PEAK = {"v5e": 197e12, "v5p": 459e12, "v6e": 918e12, "h100": 989e12, "h200": 989e12}
"""FLOP/s a device at most, products of bfloat16 matrices, as the makers say."""
CPU_TOO_BIG = 7
"""How many times too big the CPU compiler's figure for a TPU's activations may be (seen: 2 to 7,
against the TPU compiler; with a GPU it was never compared)."""


@dataclass(frozen=True)
class Hardware:
    """What is planned for.

    Attributes:
      name: As typed, such as "v5e:16x16".
      kind: "cpu", or a key of `TPU_MEMORY` or `GPU_MEMORY`.
      devices: How many.
      memory: Bytes a device.
    """

    name: str
    kind: str
    devices: int
    memory: int

    def exact(self, tpu_compiler: bool) -> bool:
        """Whether the figures are of the hardware's own compiler."""
        return self.kind == "cpu" or (self.is_tpu and tpu_compiler)

    @property
    def is_tpu(self) -> bool:
        """Whether the TPU compiler can plan for it."""
        return self.kind in TPU_MEMORY


@dataclass(frozen=True)
class StagePlan:
    """What one stage's training step needs; bytes are a device's.

    Attributes:
      stage: Its name.
      parameters: How many numbers are trained.
      held: "parameters", "optimizer", "frozen", "batch" -> bytes, by arithmetic.
      whole: The same -> bytes over all devices, each array counted once.
      replicated: The first three -> {"bytes", "share", "largest"}: what every device holds whole,
        its share of ``whole``, and the paths of the largest.
      rows: Examples of a batch on a device.
      flops: Of a step, all devices together.
      compiled: "arguments", "activations", "code" -> bytes as the compiler says, or None.
      collectives: Kind -> {"count", "bytes"} a step, or None.
      out_of_memory: What the compiler said where it refused for want of memory.
      misfit: Why the batches do not divide over the devices.
      group: Where its settings are in the config; "" is the top.
      stacks: Where the settings of the transformer stacks are that it trains.
      seconds: How long planning it took.
      positions: Clicks that a batch holds at most; 0 where it is not one of sessions.
    """

    stage: str
    parameters: int
    held: dict[str, int]
    whole: dict[str, int]
    replicated: dict[str, dict[str, Any]]
    rows: int
    flops: int
    compiled: dict[str, int] | None = None
    collectives: dict[str, dict[str, int]] | None = None
    out_of_memory: str = ""
    misfit: str = ""
    group: str = ""
    stacks: tuple[str, ...] = ()
    seconds: float = 0.0
    positions: int = 0


@dataclass(frozen=True)
class Verdict:
    """What is said of a stage.

    Attributes:
      fits: True, False, or None where the CPU's figures do not decide it.
      low, high: Bytes a device, at least and at most.
      words: A sentence.
      knobs: What would help, most useful first; empty where nothing needs help.
    """

    fits: bool | None
    low: int
    high: int
    words: str
    knobs: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Duration:
    """How long a stage trains, by its FLOPs alone.

    Attributes:
      updates: Of a stage.
      hours: By the clock, on all devices.
      cost: Of all devices, in the unit of the price; None where none was given.
    """

    updates: int
    hours: float
    cost: float | None


def duration(
    flops: int,
    positions: int,
    hardware: Hardware,
    *,
    interactions: int,
    epochs: float = 1.0,
    use: float = 0.4,
    price: float | None = None,
) -> Duration | None:
    """Return how long a stage trains whose batches are made of sessions.

    Args:
      flops: Of a step, all devices together.
      positions: Clicks that a step reads at most.
      hardware: What it runs on.
      interactions: Of the training data.
      epochs: How often it is read.
      use: The share of `PEAK` that is reached, above 0.
      price: Of one device for an hour.

    Returns:
      The duration; None for hardware whose peak is not known.

    Example:
      >>> eight = parse_topology("h100:8")
      >>> found = duration(int(1e15), 1000, eight, interactions=10**8, price=2.0)
      >>> found.updates, round(found.hours, 2), round(found.cost, 1)
      (100000, 8.78, 140.4)
    """
    if hardware.kind not in PEAK:
        return None
    updates = math.ceil(interactions * epochs / positions)
    rate = hardware.devices * PEAK[hardware.kind] * use
    hours = updates * flops / rate / 3600
    return Duration(updates, hours, None if price is None else hours * hardware.devices * price)


def parse_topology(text: str, memory_gib: float | None = None) -> Hardware:
    """Read ``cpu:8``, ``h100:8`` or ``v5e:16x16``.

    Args:
      text: As typed.
      memory_gib: GiB a device in place of the table's.

    Returns:
      The hardware; the devices of ``cpu:N`` share this machine's memory.

    Raises:
      UserError: It is not one of these.

    Example:
      >>> parse_topology("v5e:4x4").devices, parse_topology("h100:8").memory // GIB
      (16, 78)
    """
    known = {**TPU_MEMORY, **GPU_MEMORY}
    match = re.fullmatch(r"([a-z0-9]+):(\d+(?:x\d+)*)", text)
    kind, sizes = (match[1], [int(n) for n in match[2].split("x")]) if match else ("", [])
    axes = {"v5p": (3,), "v5e": (2,), "v6e": (2,)}.get(kind, (1,))
    if kind not in (*known, "cpu") or len(sizes) not in axes or not all(sizes):
        raise UserError(
            f"--topology {text!r} is not understood; write cpu:8, h100:8, v5e:16x16, v6e:8x8 or "
            "v5p:4x4x4."
        )
    devices = math.prod(sizes)
    if memory_gib is not None:
        if not memory_gib > 0:
            raise UserError(f"--memory {memory_gib:g} is no memory; write GiB above 0.")
        memory = int(memory_gib * GIB)
    elif kind == "cpu":
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // devices
    else:
        memory = int(known[kind] * GIB)
    return Hardware(text, kind, devices, memory)


def judge(plan: StagePlan, hardware: Hardware, exact: bool, config: ConfigDict) -> Verdict:
    """Say whether a stage fits and what would help.

    Args:
      plan: The stage's sizes.
      hardware: Whose memory counts.
      exact: Whether the hardware's own compiler gave the sizes (`Hardware.exact`); otherwise the
        CPU's did, whose activations are taken for an upper bound.
      config: The experiment's, for the knobs that it still has.

    Returns:
      The verdict.
    """
    held = sum(plan.held.values())
    # The gradients are all there at once, before they are clipped by their global norm.
    low = high = held + plan.held["parameters"]
    if plan.compiled:
        held = max(held, plan.compiled["arguments"])
        high = held + plan.compiled["activations"] + plan.compiled["code"]
        if exact:
            low = high
        elif hardware.is_tpu:
            low = max(low, held + plan.compiled["activations"] // CPU_TOO_BIG)
    high = max(low, high)
    of = f"of {human(hardware.memory)} a device"
    if plan.out_of_memory:
        fits, words = False, f"does not fit: {plan.out_of_memory}"
    elif low > hardware.memory:
        fits, words = False, f"does not fit: it needs at least {human(low)} {of}."
    elif not plan.compiled:
        return Verdict(None, low, high, f"does not run: {plan.misfit}")
    elif high <= hardware.memory:
        fits, words = True, f"fits: {human(high)} {of} ({high / hardware.memory:.0%})."
    else:
        fits = None
        words = (
            f"may fit: it needs {human(low)} to {human(high)} {of} (activations as the CPU's "
            f"compiler sees them, which for a TPU is up to {CPU_TOO_BIG} times too big)."
        )
    if plan.misfit:
        words += f" But it does not run yet: {plan.misfit}"
    elif hardware.kind in GPU_MEMORY and fits and high > 0.75 * hardware.memory:
        words += " Set XLA_PYTHON_CLIENT_MEM_FRACTION=0.95: JAX takes 75 % of a GPU by itself."
    return Verdict(fits, low, high, words, [] if fits else _knobs(plan, hardware, high, config))


def _knobs(plan: StagePlan, hardware: Hardware, high: int, config: ConfigDict) -> list[str]:
    """Say what would help, for the greatest part first."""
    prefix = f"--config.{plan.group}." if plan.group else "--config."
    state = plan.held["parameters"] + plan.held["optimizer"]
    state_whole = plan.whole["parameters"] + plan.whole["optimizer"]
    activations = high - state - plan.held["frozen"] - plan.held["batch"]
    if plan.out_of_memory:
        activations = max(activations, hardware.memory)
    for_state, for_activations = [], []
    if hardware.devices > 1 and config.rules == "dp":
        for_state.append(
            f"--rules fsdp (spreads parameters and optimizer, {human(state_whole)}, over the "
            f"{hardware.devices} devices)"
        )
    elif config.rules != "dp" and 3 * state_whole < hardware.memory:
        for_activations.append(
            f"--rules dp (parameters and optimizer are only {human(state_whole)}, and XLA cuts "
            "activations by the batch alone)"
        )
    narrower = f"--config.{plan.stacks[0]}" if plan.stacks else prefix.rstrip(".")
    for_state.append(f"narrower or fewer layers in {narrower}")
    if plan.rows > 1:
        size = _setting(config, plan.group).train.batch_size
        for_activations.append(
            f"a batch smaller than {size} ({prefix}train.batch_size, {plan.rows} a device)"
        )
    for name in plan.stacks:
        stack = _setting(config, name)
        if not remat_policy(stack.remat)[0]:
            for_activations.append(f"--config.{name}.remat=true (recomputes blocks)")
        if stack.dtype == "float32":
            for_activations.append(f"--config.{name}.dtype=bfloat16 (halves activations)")
    for_frozen = ["fewer items or narrower features"]
    if hardware.devices > 1 and config.rules == "dp":
        for_frozen.insert(0, "--rules fsdp (cuts the tables of items by their rows)")
    parts = [(state, for_state), (activations, for_activations), (plan.held["frozen"], for_frozen)]
    parts = [part for part in sorted(parts, key=lambda part: -part[0]) if part[0] > 0.1 * high]
    return [knob for _, knobs in parts for knob in knobs]


def _setting(config: ConfigDict, path: str) -> Any:
    """Return what stands at a path of the config; "" is the config itself."""
    for part in filter(None, path.split(".")):
        config = config[part]
    return config
