"""The loop against an optax loop by hand, against itself when killed, and against bad input."""

import dataclasses
import io
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest
from rich.console import Console

from jmrec.checkpoint import Checkpoints
from jmrec.errors import Preempted, UserError
from jmrec.tracking import Tracker
from jmrec.training import FitResult, OptimConfig, Silent, TrainConfig, Trainer

DIM = 3
CONFIG = TrainConfig(steps=12, eval_every=3, save_every=4, log_every=2)


class Quadratic:
    """Half the squared distance of a noisy w from the batch's rows, plus a moving average."""

    name = "quadratic"
    hparams = {"learning_rate": 0.1, "noise": 0.01}  # noqa: RUF012
    couples_examples = False

    def init(self, key: jax.Array) -> tuple[Any, Any]:
        return {"w": jax.random.normal(key, (DIM,))}, {"mean": jnp.zeros(DIM)}

    def logical_axes(self) -> Any:
        return {"w": ("embed",)}

    def state_axes(self) -> Any:
        return None

    def frozen(self, workdir: Path) -> tuple[Any, Any]:
        return {"centre": np.ones(DIM, np.float32)}, None

    def loss(self, params, state, frozen, batch, key, step, hparams):  # type: ignore[no-untyped-def]
        w = params["w"] + hparams["noise"] * jax.random.normal(key, (DIM,))
        rows = 0.5 * jnp.sum((w - frozen["centre"] - batch["x"]) ** 2, -1)
        ok = batch["ok"]
        total = jnp.sum(jnp.where(ok, rows, 0.0))
        mean = 0.9 * state["mean"] + 0.1 * jax.lax.stop_gradient(params["w"])
        products = (batch["x"] @ jnp.ones(DIM)).sum()  # 2 * rows * DIM FLOPs, and the only ones
        metrics = {"rows": (ok.sum(), 1), "products": (products, 1)}
        return total, ok.sum(), {"mean": mean}, metrics


class Batches:
    """Batch n is a function of n; ``lengths`` in turn are the numbers of rows."""

    def __init__(self, lengths: tuple[int, ...] = (4,), bad: int = -1, raises: int = -1) -> None:
        self.lengths, self.bad, self.raises = lengths, bad, raises

    def __getitem__(self, n: int) -> dict[str, np.ndarray]:
        if n == self.raises:
            raise RuntimeError("killed")
        rng = np.random.default_rng(n)
        rows = self.lengths[n % len(self.lengths)]
        x = rng.normal(size=(rows, DIM)).astype(np.float32)
        if n == self.bad:
            x[0, 0] = np.nan
        ok = rng.random(rows) < 0.6
        ok[0] = True
        return {"x": x, "ok": ok}


class Log(Silent):
    """Keeps what is logged."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, dict[str, float]]] = []

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self.lines.append((step, dict(metrics)))

    def truncate(self, step: int) -> None:
        self.lines = [line for line in self.lines if line[0] <= step]


class Evaluate:
    """A score that peaks early, so that best and last differ; may die at a call."""

    def __init__(self, dies_at: int = -1) -> None:
        self.calls, self.dies_at = 0, dies_at

    def __call__(self, params: Any, state: Any) -> dict[str, float]:
        self.calls += 1
        if self.calls == self.dies_at:
            raise RuntimeError("killed")
        w = np.asarray(params["w"])
        return {"score": -float(abs(w[0] - 1)), "second": float(w[1])}


@pytest.fixture(scope="module")
def trainer() -> Trainer:
    """One compilation for all tests of the plain settings."""
    return Trainer(Quadratic(), CONFIG)


def same(a: FitResult, b: FitResult) -> None:
    for x, y in zip(
        jax.tree.leaves((a.params, a.task_state)), jax.tree.leaves((b.params, b.task_state))
    ):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))
    assert (a.step, a.best, a.best_step, a.history) == (b.step, b.best, b.best_step, b.history)
    assert a.flops == b.flops > 0


def test_equals_an_optax_loop_by_hand(tmp_path: Path) -> None:
    optim = OptimConfig(clip=0.5, weight_decay=0.1, schedule="linear", warmup=2)
    config = dataclasses.replace(CONFIG, optim=optim)
    log = Log()
    got = Trainer(Quadratic(), config).fit(tmp_path, Batches(), seed=5, tracker=log)

    init_key, run_key = jax.random.split(jax.random.key(5))
    w = jax.random.normal(init_key, (DIM,))
    tx = optax.chain(optax.clip_by_global_norm(0.5), optax.scale_by_adam(b1=0.9, b2=0.98))
    opt_state = tx.init(w)
    losses = []

    @jax.jit
    def update(w, opt_state, n, x, ok):  # type: ignore[no-untyped-def]
        noise = 0.01 * jax.random.normal(jax.random.fold_in(run_key, n), (DIM,))

        def total(w):  # type: ignore[no-untyped-def]
            return jnp.sum(jnp.where(ok, 0.5 * jnp.sum((w + noise - 1 - x) ** 2, -1), 0.0))

        value, grad = jax.value_and_grad(total)(w)
        updates, opt_state = tx.update(grad / ok.sum(), opt_state)
        rate = 0.1 * jnp.where(n < 2, (n + 1.0) / 2, 1 - jnp.clip((n - 2.0) / 10, 0, 1))
        return w - rate * updates, opt_state, value / ok.sum()

    for n in range(12):
        batch = Batches()[n]
        w, opt_state, loss = update(w, opt_state, n, batch["x"], batch["ok"])
        losses.append((float(loss), int(batch["ok"].sum())))
    # The optimiser's numbers are traced there and constants here: the last bit may differ.
    np.testing.assert_allclose(np.asarray(got.params["w"]), np.asarray(w), rtol=0, atol=2e-7)
    assert got.step == 12
    assert [step for step, _ in log.lines] == [2, 4, 6, 8, 10, 12]
    # A line of the log is the mean over the rows of its updates, not the mean of means.
    (a, m), (b, n) = losses[:2]
    assert log.lines[0][1]["loss"] == pytest.approx((a * m + b * n) / (m + n), rel=1e-6)


def test_accumulation_is_exact_with_uneven_masks(tmp_path: Path) -> None:
    optim = OptimConfig(clip=0.0)
    one, three = (
        Trainer(Quadratic(), dataclasses.replace(CONFIG, accumulate=a, optim=optim)).fit(
            tmp_path / str(a), Batches((6,)), seed=1, hparams={"noise": 0.0}
        )
        for a in (1, 3)
    )
    np.testing.assert_allclose(one.params["w"], three.params["w"], rtol=2e-6)


def test_accumulation_is_refused_where_examples_are_coupled(tmp_path: Path) -> None:
    task = Quadratic()
    task.couples_examples = True
    with pytest.raises(UserError, match="couples the examples"):
        Trainer(task, dataclasses.replace(CONFIG, accumulate=2))


def test_accumulation_must_divide_the_batch(tmp_path: Path) -> None:
    trainer = Trainer(Quadratic(), dataclasses.replace(CONFIG, accumulate=3))
    with pytest.raises(UserError, match="batch 0 has"):
        trainer.fit(tmp_path, Batches(), seed=0)


@pytest.mark.parametrize("patience", [0, 2])
def test_killed_and_resumed_ends_in_the_same_bits(tmp_path: Path, patience: int) -> None:
    config = dataclasses.replace(CONFIG, steps=24, patience=patience)
    trainer = Trainer(Quadratic(), config)
    whole_log = Log()
    whole = trainer.fit(
        tmp_path / "whole", Batches(), seed=2, evaluate=Evaluate(), tracker=whole_log
    )
    assert 0 < whole.best_step < whole.step
    assert (whole.step < 24) == bool(patience)
    rng = np.random.default_rng(patience)
    for trial in range(2 if patience else 1):
        # Killed twice: once in the data, once in an evaluation of the second attempt.
        workdir, log = tmp_path / str(trial), Log()
        kill = int(rng.integers(1, whole.step))
        with pytest.raises(RuntimeError, match="killed"):
            trainer.fit(workdir, Batches(raises=kill), seed=2, evaluate=Evaluate(), tracker=log)
        with pytest.raises(RuntimeError, match="killed"):
            trainer.fit(workdir, Batches(), seed=2, evaluate=Evaluate(dies_at=1), tracker=log)
        again = trainer.fit(workdir, Batches(), seed=2, evaluate=Evaluate(), tracker=log)
        same(whole, again)
        assert log.lines == whole_log.lines
        # A finished fit returns at once: neither data nor evaluation are asked.
        done = trainer.fit(workdir, Batches(raises=0), seed=2, evaluate=Evaluate(dies_at=1))
        same(whole, done)
    assert trainer.compilations == 1


def test_one_compilation_per_shape_and_none_for_seeds_or_hparams(tmp_path: Path) -> None:
    trainer = Trainer(Quadratic(), CONFIG)
    a = trainer.fit(tmp_path / "a", Batches((4, 2)), seed=0)
    assert trainer.compilations == 2
    b = trainer.fit(tmp_path / "b", Batches((4, 2)), seed=1)
    c = trainer.fit(tmp_path / "c", Batches((4, 2)), seed=0, hparams={"learning_rate": 1})
    trainer.fit(tmp_path / "a", Batches((4, 2)), seed=0)
    assert trainer.compilations == 2
    assert trainer.step.jitted._cache_size() == 2
    assert a.flops == b.flops == 2 * DIM * (6 * 4 + 6 * 2)
    assert not np.array_equal(a.params["w"], b.params["w"])
    assert not np.array_equal(a.params["w"], c.params["w"])


@pytest.mark.parametrize("muon", [0.0, 1.0])
def test_decay_clip_warmup_and_the_end_are_traced(tmp_path: Path, muon: float) -> None:
    """One program for all of them, and each ends where optax ends with constants."""
    config = OptimConfig(muon=muon, schedule="cosine", weight_decay=0.3)
    trainer = Trainer(Matrix(), dataclasses.replace(CONFIG, optim=config))
    ends = set()
    every = (
        {},
        *({"weight_decay": 0.0}, {"weight_decay": 0.05}, {"warmup": 3}),
        {"warmup": 7, "weight_decay": 1.0},
        *({"steps": 9}, {"steps": 40, "warmup": 2}),
        *({"clip": 0.0}, {"clip": 0.5}),
    )
    asked = [given for given in every if not (muon and "clip" in given)]
    for n, given in enumerate(asked):
        got = trainer.fit(tmp_path / str(n), Batches(), seed=5, hparams={"optim": given})
        want = by_constants(dataclasses.replace(config, **{"steps": 12, **given}))
        # Muon's iterations make more of the last bit of a learning rate.
        np.testing.assert_allclose(got.params["w"], want, atol=1e-5 if muon else 2e-7)
        ends.add(np.asarray(want).tobytes())
    assert len(ends) == len(asked)
    assert trainer.compilations == 1
    assert trainer.step.jitted._cache_size() == 1
    has = "steps, warmup, weight" if muon else "clip, steps, warmup, weight"
    with pytest.raises(UserError, match=rf"no hparams\.optim\.b1; it has {has}"):
        trainer.fit(tmp_path / "b", Batches(), seed=5, hparams={"optim": {"b1": 0.5}})
    if muon:  # whose clip is a constant
        with pytest.raises(UserError, match=r"no hparams\.optim\.clip; it has steps, warmup"):
            trainer.fit(tmp_path / "c", Batches(), seed=5, hparams={"optim": {"clip": 0.5}})
    with pytest.raises(UserError, match=r"needs more steps than optim\.warmup=12"):
        trainer.fit(tmp_path / "w", Batches(), seed=5, hparams={"optim": {"warmup": 12}})


class Matrix(Quadratic):
    """The same with a matrix, which decays and which Muon takes."""

    hparams = {"learning_rate": 0.1}  # noqa: RUF012

    def init(self, key: jax.Array) -> tuple[Any, Any]:
        return {"w": jax.random.normal(key, (DIM, DIM)), "b": jnp.ones(DIM)}, {}

    def logical_axes(self) -> Any:
        return {"w": ("embed", "mlp"), "b": ("mlp",)}

    def loss(self, params, state, frozen, batch, key, step, hparams):  # type: ignore[no-untyped-def]
        out = batch["x"] @ params["w"] + params["b"] - 1.0
        total = jnp.where(batch["ok"][:, None], jnp.square(out), 0.0).sum()
        return total, batch["ok"].sum(), {}, {}


def by_constants(config: OptimConfig) -> jax.Array:
    """Fit a Matrix with an optax chain whose numbers are constants and parts that are not used."""
    init_key, _ = jax.random.split(jax.random.key(5))
    task, decayed = Matrix(), {"w": True, "b": False}
    params, _ = task.init(init_key)
    parts = [optax.clip_by_global_norm(config.clip)] if config.clip else []
    if config.muon:
        dims = {"w": optax.contrib.MuonDimensionNumbers(0, 1), "b": None}
        parts.append(
            optax.contrib.muon(
                -config.muon, adam_learning_rate=-1.0, adam_b1=0.9, adam_b2=0.98,
                muon_weight_dimension_numbers=lambda params: dims,
            )
        )  # fmt: skip
    else:
        parts.append(optax.scale_by_adam(b1=0.9, b2=0.98))
    if config.weight_decay:
        parts.append(optax.add_decayed_weights(config.weight_decay, mask=decayed))
    fall = optax.cosine_decay_schedule(0.1, config.steps - config.warmup)
    rise = optax.linear_schedule(0.0, 0.1, max(config.warmup, 1))  # ours begins one step on

    @jax.jit
    def update(params, opt_state, n, batch):  # type: ignore[no-untyped-def]
        def mean(params):  # type: ignore[no-untyped-def]
            total, count, _, _ = task.loss(params, {}, None, batch, None, n, {})
            return total / count

        updates, opt_state = tx.update(jax.grad(mean)(params), opt_state, params)
        rate = jnp.where(n < config.warmup, rise(n + 1), fall(n - config.warmup))
        return jax.tree.map(lambda p, u: p - rate * u, params, updates), opt_state

    tx = optax.chain(*parts)
    opt_state = tx.init(params)
    for n in range(CONFIG.steps):
        params, opt_state = update(params, opt_state, n, Batches()[n])
    return params["w"]


def test_several_updates_per_call_are_the_same_updates(tmp_path: Path) -> None:
    logs = Log(), Log()
    config = dataclasses.replace(CONFIG, eval_every=6, save_every=6)
    one = Trainer(Quadratic(), config).fit(
        tmp_path / "1", Batches(), seed=0, evaluate=Evaluate(), tracker=logs[0]
    )
    trainer = Trainer(Quadratic(), dataclasses.replace(config, updates_per_call=3))
    three = trainer.fit(tmp_path / "3", Batches(), seed=0, evaluate=Evaluate(), tracker=logs[1])
    np.testing.assert_allclose(one.params["w"], three.params["w"], rtol=1e-6)
    assert [step for step, _ in logs[0].lines] == [step for step, _ in logs[1].lines]
    assert trainer.compilations == 1
    assert one.flops == three.flops == 2 * DIM * 12 * 4
    # Killed, it goes on from the last multiple; its checkpoints are also those of another K.
    for k, again in ((3, trainer), (1, Trainer(Quadratic(), config))):
        folder = tmp_path / f"killed {k}"
        with pytest.raises(RuntimeError, match="killed"):
            trainer.fit(folder, Batches(raises=8), seed=0, evaluate=Evaluate())
        assert (folder / "checkpoints" / "6").is_dir()
        resumed = again.fit(folder, Batches(), seed=0, evaluate=Evaluate())
        np.testing.assert_allclose(resumed.params["w"], three.params["w"], rtol=1e-6)
        if again is trainer:
            same(three, resumed)
    with pytest.raises(UserError, match="several shapes"):
        trainer.fit(tmp_path / "s", Batches((4, 2)), seed=0)
    with pytest.raises(UserError, match="update 4 is nan"):
        trainer.fit(tmp_path / "n", Batches(bad=4), seed=0)
    with pytest.raises(UserError, match=r"updates_per_call=5 does not divide train\.steps"):
        Trainer(Quadratic(), dataclasses.replace(config, updates_per_call=5))


@pytest.mark.parametrize("bad", [0, 5, 11])
def test_a_loss_that_is_not_finite_names_the_update(
    trainer: Trainer, tmp_path: Path, bad: int
) -> None:
    with pytest.raises(UserError, match=f"loss of update {bad} is nan.*batch {bad}"):
        trainer.fit(tmp_path, Batches(bad=bad), seed=0)
    # What was saved is from before it.
    steps = [int(p.name) for p in (tmp_path / "checkpoints").iterdir() if p.name.isdigit()]
    assert all(step <= bad for step in steps)


def test_other_data_or_settings_refuse_to_resume(trainer: Trainer, tmp_path: Path) -> None:
    trainer.fit(tmp_path, Batches(), seed=0, metadata={"fingerprint": {"split": "a"}})
    with pytest.raises(UserError, match=r"fingerprint\.split \(was 'a', now 'b'\)"):
        trainer.fit(tmp_path, Batches(), seed=0, metadata={"fingerprint": {"split": "b"}})
    kept = {"fingerprint": {"split": "a"}}
    with pytest.raises(UserError, match=r"train\.seed \(was 0, now 1\)"):
        trainer.fit(tmp_path, Batches(), seed=1, metadata=kept)
    with pytest.raises(UserError, match=r"train\.hparams\.noise"):
        trainer.fit(tmp_path, Batches(), seed=0, metadata=kept, hparams={"noise": 1.0})
    with pytest.raises(UserError, match=r"no hparams\.nose"):
        trainer.fit(tmp_path, Batches(), seed=0, metadata=kept, hparams={"nose": 1.0})
    for field in ("weight_decay", "clip", "warmup"):
        given = {field: 2}
        with pytest.raises(UserError, match=rf"train\.optim\.{field} \(was .*, now 2\)"):
            trainer.fit(tmp_path, Batches(), seed=0, metadata=kept, hparams={"optim": given})
        other = Trainer(Quadratic(), dataclasses.replace(CONFIG, optim=OptimConfig(**given)))
        with pytest.raises(UserError, match=rf"train\.optim\.{field} \(was .*, now 2\)"):
            other.fit(tmp_path, Batches(), seed=0, metadata=kept)
    # How often it is logged is no part of the run; "never" begins anew.
    other = Trainer(Quadratic(), dataclasses.replace(CONFIG, log_every=5, keep=1))
    assert other.fit(tmp_path, Batches(raises=0), seed=0, metadata=kept).step == 12
    assert trainer.fit(tmp_path, Batches(), seed=1, metadata=kept, resume="never").step == 12


def test_a_damaged_newest_checkpoint_is_reported_and_the_one_before_used(
    trainer: Trainer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = trainer.fit(tmp_path / "whole", Batches(), seed=0, evaluate=Evaluate())
    with pytest.raises(RuntimeError, match="killed"):
        trainer.fit(tmp_path / "hurt", Batches(raises=10), seed=0, evaluate=Evaluate())
    folder = tmp_path / "hurt" / "checkpoints"
    newest = max((p for p in folder.iterdir() if p.name.isdigit()), key=lambda p: int(p.name))
    for path in newest.rglob("*"):
        if path.is_file() and path.parent.name == "d":
            path.write_bytes(b"not what was written")
    again = trainer.fit(tmp_path / "hurt", Batches(), seed=0, evaluate=Evaluate())
    same(whole, again)
    assert f"checkpoint {newest.name} is damaged" in caplog.text


def test_evaluation_must_be_finite(trainer: Trainer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="after 3 updates gave the score nan"):
        trainer.fit(tmp_path, Batches(), seed=0, evaluate=lambda p, s: {"score": float("nan")})


def test_fits_outside_the_main_thread(trainer: Trainer, tmp_path: Path) -> None:
    found: list[FitResult] = []
    thread = threading.Thread(
        target=lambda: found.append(trainer.fit(tmp_path / "t", Batches(), seed=0))
    )
    thread.start()
    thread.join()
    same(found[0], trainer.fit(tmp_path / "m", Batches(), seed=0))


SIGNALLED = """
import os, signal, sys
sys.path.insert(0, {here!r})
from test_loop import CONFIG, Batches, Evaluate, Quadratic
from jmrec.errors import explain
from jmrec.training import Trainer

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's "&" ignores it

class Killing(Batches):
    def __getitem__(self, n):
        if n == 5:
            os.kill(os.getpid(), signal.{name})
        return super().__getitem__(n)

before = signal.getsignal(signal.{name})
try:
    Trainer(Quadratic(), CONFIG).fit({workdir!r}, Killing(), seed=2, evaluate=Evaluate())
except BaseException as error:
    assert signal.getsignal(signal.{name}) == before
    code, sentence = explain(error)
    print(sentence)
    sys.exit(code)
"""


@pytest.mark.parametrize(
    ("name", "code", "says"),
    [
        ("SIGTERM", 75, r"SIGTERM after (\d+) updates; the state is saved\. Start .* to go on\."),
        (
            "SIGINT",
            130,
            r"interrupted after (\d+) updates; the state is saved; the same command goes on\.",
        ),
    ],
)
def test_a_signal_saves_and_the_run_goes_on(
    trainer: Trainer, tmp_path: Path, name: str, code: int, says: str
) -> None:
    here = str(Path(__file__).resolve().parent)
    script = textwrap.dedent(SIGNALLED).format(here=here, workdir=str(tmp_path / "run"), name=name)
    root = Path(__file__).resolve().parents[3]
    found = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert found.returncode == code, found.stderr[-2000:]
    sentence = re.fullmatch(says, found.stdout.strip())
    assert sentence is not None, found.stdout
    assert (tmp_path / "run" / "checkpoints" / sentence[1]).is_dir()
    said = io.StringIO()
    with Tracker(tmp_path, console=Console(file=said)) as tracker:
        again = trainer.fit(
            tmp_path / "run", Batches(), seed=2, evaluate=Evaluate(), tracker=tracker.stage("a")
        )
    assert f"a: resumed at {sentence[1]}\n" in said.getvalue()
    same(trainer.fit(tmp_path / "whole", Batches(), seed=2, evaluate=Evaluate()), again)


def test_metadata_says_where_the_run_stood(trainer: Trainer, tmp_path: Path) -> None:
    trainer.fit(tmp_path, Batches(), seed=3, metadata={"config": {"a": [1]}})
    found = json.loads((tmp_path / "checkpoints/12/_CHECKPOINT_METADATA").read_text())
    kept = found["custom_metadata"]["metadata"]
    assert kept["config"] == {"a": [1]}
    assert kept["train"]["seed"] == 3
    assert kept["mesh"] == {"data": 1, "fsdp": 1, "tensor": 1}


@pytest.mark.parametrize("when", ["restoring", "closing"])
def test_a_sigterm_outside_the_updates_is_not_lost(
    trainer: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    name = {"restoring": "latest_step", "closing": "close"}[when]
    original = getattr(Checkpoints, name)

    def signalled(self: Checkpoints) -> object:
        signal.raise_signal(signal.SIGTERM)
        return original(self)

    monkeypatch.setattr(Checkpoints, name, signalled)
    with pytest.raises(Preempted, match="state is saved"):
        trainer.fit(tmp_path / "run", Batches(), seed=2, evaluate=Evaluate())
    monkeypatch.setattr(Checkpoints, name, original)
    again = trainer.fit(tmp_path / "run", Batches(), seed=2, evaluate=Evaluate())
    same(trainer.fit(tmp_path / "whole", Batches(), seed=2, evaluate=Evaluate()), again)
