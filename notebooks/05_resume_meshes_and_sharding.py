# %% [markdown]
# # 05 · Resume, meshes and sharding
#
# How one program runs on one device or on many, how its arrays are cut, and why a run that was
# killed on eight devices goes on along the same curve on one. No accelerator needed: we pretend.
#
# **Needs** jmrec and a CPU; no trained model.
# **Takes** about 20 seconds of processor time.
# Run it in a fresh kernel: how many devices there are is decided when jax starts.

# %%
import os
import sys

assert "jax" not in sys.modules, "jax runs already: restart the kernel and begin here"
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
from jmrec.xla import set_flags

set_flags()

import jax
import matplotlib.pyplot as plt
import numpy as np

plt.rcParams["figure.constrained_layout.use"] = True
print(jax.devices())

# %% [markdown]
# Eight devices, all of them slices of one CPU: nothing here gets faster, but everything is placed
# and communicated as on real ones.
#
# ## A mesh, and rules
# A **mesh** gives the devices a shape with three named axes. **Rules** say which axis of a parameter
# lies on which of them. Under `dp` every device holds all parameters and a part of the batch; under
# `fsdp` each holds a slice of the parameters too; `fsdp_tp` slices them in two directions.

# %%
from jmrec.sharding import RULES, make_mesh

for rules in ("dp", "fsdp", "fsdp_tp"):
    cut = {axis: where for axis, where in RULES[rules].items() if where}
    print(f"{rules:8}", dict(make_mesh(rules).shape), cut)

# %% [markdown]
# ## A tiny task
# jmrec's real Transfer tower at a toy size. Walks over a catalogue of random vectors; the next item
# is a fixed function of the last one. Batch *n* is a pure function of *n*: nothing has to be
# remembered to make it again. `end` is our power cut: asking for that batch fails.

# %%
from jmrec.models.parts.transformer import StackConfig
from jmrec.models.sessions.transfer import TransferConfig
from jmrec.tasks.transition import TransitionTask

ITEMS = 256
e = np.random.default_rng(0).normal(size=(ITEMS, 16)).astype(np.float32)
stack = StackConfig(width=32, layers=1, heads=2, kv_heads=2, mlp=32)
task = TransitionTask(
    TransferConfig(features=16, stack=stack, out=32),
    e,
    np.ones(ITEMS, bool),
    {"learning_rate": 1e-2, "dropout": 0.0},
)


class Walks:
    def __init__(self, end=None):
        self.end = end

    def __getitem__(self, n):
        if n == self.end:
            raise KeyboardInterrupt
        item = np.random.default_rng(n).integers(0, ITEMS, (32, 4)).astype(np.int32)
        all_of_it = np.ones(item.shape, bool)
        nothing = {"gap": np.zeros(item.shape, np.float32), "event": np.zeros_like(item)}
        target = (item * 5 + 1) % ITEMS
        return {
            "item": item,
            "target": target,
            "mask": all_of_it,
            "target_ok": all_of_it,
            **nothing,
        }


# %% [markdown]
# ## Where the arrays lie
# The same parameter under three rule sets. A colour is a device; a block of several colours is held
# by several devices (the first is drawn). This is worked out from shapes alone, before a single
# number exists: parameters are *born* sharded, so a model that fits no single device can begin.

# %%
from jmrec.training import OptimConfig, TrainConfig, Trainer


def trainer(rules, devices):
    optim = OptimConfig(schedule="cosine")
    config = TrainConfig(
        steps=40, eval_every=40, save_every=10, log_every=1, optim=optim, rules=rules
    )
    return Trainer(task, config, mesh=make_mesh(rules, jax.devices()[:devices]))


trainers = {rules: trainer(rules, 8) for rules in ("dp", "fsdp", "fsdp_tp")}
figure, axes = plt.subplots(1, 3, figsize=(10, 3.6))
for axis, (rules, each) in zip(axes, trainers.items()):
    array = max(jax.tree.leaves(each.abstract.params), key=lambda a: a.size)
    owner = np.full(array.shape, -1)
    for device, index in reversed(list(array.sharding.devices_indices_map(array.shape).items())):
        owner[index] = device.id
    axis.imshow(owner.reshape(len(owner), -1), cmap="tab10", vmin=0, vmax=9, aspect="auto")
    copies = 8 / len(np.unique(owner))
    axis.set(title=f"{rules}: {copies:.0f} cop{'y' if copies == 1 else 'ies'}")
figure.suptitle(f"the largest parameter, {array.shape}")

# %% [markdown]
# In words, for the first parameters: the logical axes (what they mean), the physical ones (where
# they lie) and what one device holds. `jmrec plan` does so for clusters that are not here.

# %%
from jmrec.sharding import dump_shardings, replicated_share

for rules in ("dp", "fsdp"):
    shapes = trainers[rules].abstract.params
    lines = dump_shardings(task.logical_axes(), shapes, trainers[rules].mesh, rules).splitlines()
    print(rules, *lines[:6], sep="\n  ")

# %% [markdown]
# The price of `dp` is memory: everything everywhere. The price of `fsdp` is communication: slices
# are gathered when they are used.


# %%
def bytes_on_one_device(tree):
    return sum(
        np.prod(a.sharding.shard_shape(a.shape)) * a.dtype.itemsize for a in jax.tree.leaves(tree)
    )


figure, axis = plt.subplots(figsize=(6, 3))
held = {rules: bytes_on_one_device(each.abstract.params) / 1024 for rules, each in trainers.items()}
axis.bar(held.keys(), held.values())
axis.set(ylabel="KiB of parameters on one device")
for rules, each in trainers.items():
    placement = jax.tree.map(lambda a: a.sharding, each.abstract.params)
    print(
        f"{rules}: {replicated_share(each.abstract.params, placement):.0%} lie whole on every device"
    )

# %% [markdown]
# ## One run, never stopped
# Forty updates on one device. jmrec keeps the curve in `metrics.jsonl`; `read_curves` reads it.

# %%
import tempfile
from contextlib import suppress
from pathlib import Path

from rich.console import Console

from jmrec.tracking import Tracker, read_curves

home = Path(tempfile.mkdtemp())


def fit(each, folder, batches):
    with (
        suppress(KeyboardInterrupt),
        Tracker(home / folder, console=Console(quiet=True)) as tracker,
    ):
        each.fit(home / folder, batches, seed=0, tracker=tracker)
    return read_curves(home / folder)[""]


one = trainer("dp", 1)
never_stopped = fit(one, "never stopped", Walks())

# %% [markdown]
# ## The same run, killed on eight devices, resumed on one
# A checkpoint every ten updates; the power fails at update 25. So the checkpoint of update 20 is the
# newest, and what came after it is lost. Nobody tells the second fit where to begin: it finds out.

# %%
killed = fit(trainers["fsdp"], "moved", Walks(end=25))
print("checkpoints:", sorted(path.name for path in (home / "moved/checkpoints").iterdir()))
moved = fit(one, "moved", Walks())
print("updates in the curve before the cut and after:", killed["step"][-1], moved["step"][-1])

# %%
figure, (curve, apart) = plt.subplots(1, 2, figsize=(11, 3.2))
curve.plot(
    never_stopped["step"], never_stopped["loss"], lw=6, alpha=0.3, label="1 device, never stopped"
)
curve.plot(killed["step"], killed["loss"], ".-", label="8 devices (fsdp), killed")
after = slice(20, None)
curve.plot(moved["step"][after], moved["loss"][after], ".-", label="resumed on 1 device")
curve.set(xlabel="update", ylabel="loss")
curve.legend(fontsize=8)
difference = np.abs(np.array(moved["loss"]) / np.array(never_stopped["loss"]) - 1)
apart.plot(moved["step"], difference, ".", label="the two runs")
apart.axhline(np.finfo(np.float32).eps, color="black", ls=":", label="what float32 can resolve")
apart.set(xlabel="update", ylabel="relative difference of the losses")
apart.legend(fontsize=8)
assert difference.max() < 1e-4

# %% [markdown]
# The curves lie on each other. They are not the same bits: eight devices add up in another order
# than one, and floating-point sums depend on it. On the *same* devices a killed run ends in the same
# bits (a test of jmrec kills one at random moments and compares).
#
# Why does it work? The step is the position: batch *n* and the random key of update *n* are
# functions of *n*, so there is no iterator state to save. And a restore names the shapes with the
# *current* mesh's shardings, so each device reads the slices that it needs now.
#
# ## Limits
# Eight slices of one CPU say nothing of speed. jmrec's rules are tested on such fake devices and on
# one machine; no figure in its documents was measured on a cluster.
#
# ## Questions to try
# 1. Kill at update 19 and at update 20. From which checkpoint does each go on?
# 2. Resume with `trainers["fsdp_tp"]` instead of `one`. Does the curve care?
# 3. Give the walks 12 rows instead of 32. What does jmrec say on eight devices, and on one?
# 4. Change `ITEMS` to 250. Do the curves still agree, and what happened to the table's rows?
# 5. Before the resume, train with another `seed=`. What does jmrec refuse, and why is that better than
#    going on?
