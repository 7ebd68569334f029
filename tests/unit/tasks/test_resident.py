"""Sessions that live on the device give the batches that the host would gather, bit for bit."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jmrec.data.packing import packed_batches
from jmrec.data.pipeline import flat_events, session_batches
from jmrec.data.schema import Sessions
from jmrec.features import pad_rows
from jmrec.tasks.resident import ResidentTask, read_places
from jmrec.training import FitResult, Member, TrainConfig, Trainer
from jmrec.types import Batch, HParams, LossResult, Params, State

LENGTH = 6
READ = jax.jit(read_places)


def drawn(lengths: list[int], seed: int) -> Sessions:
    """Return sessions of some lengths with all that an event can say, times not always rising."""
    rng, n = np.random.default_rng(seed), sum(lengths)
    times = np.cumsum(rng.choice([0.0, 1.0, 7.5, 3600.0, 1e6], n)) + rng.choice([0.0, -30.0], n)
    return Sessions(
        [f"s{k}" for k in range(len(lengths))], np.zeros(len(lengths), int),
        np.concatenate([[0], np.cumsum(lengths)]), rng.integers(0, 50, n), times,
        rng.integers(0, 4, n), np.zeros(n), targets=rng.random(n) < 0.8,
    )  # fmt: skip


def batches(kind: str, sessions: Sessions, **more: Any) -> Any:
    if kind == "packed":
        return packed_batches(sessions, rows=4, length=LENGTH, seed=3, **more)
    return session_batches(sessions, buckets=((2, 5), (LENGTH, 3)), seed=3, **more)


def whole(events: dict[str, np.ndarray], batch: Batch) -> Batch:
    """Return what the device makes of a batch; tables are padded there."""
    found: Batch = READ({name: pad_rows(table) for name, table in events.items()}, batch)
    return found


def same(a: Batch, b: Batch) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype, name
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@pytest.mark.parametrize("kind", ["packed", "by length"])
@settings(max_examples=40, deadline=None)
@given(lengths=st.lists(st.integers(1, 15), min_size=1, max_size=30), seed=st.integers(0, 99))
def test_batches_are_those_that_the_host_gathers(kind: str, lengths: list[int], seed: int) -> None:
    sessions = drawn([2, *lengths], seed)
    sessions = replace(sessions, targets=sessions.targets | (np.arange(sum(lengths) + 2) == 1))
    streamed = batches(kind, sessions, places=True)
    said, events = batches(kind, sessions, only_places=True), flat_events(sessions)
    for n in (0, 1, 7):
        assert set(said[n]) == {"place", "mask"}
        same(whole(events, said[n]), streamed[n])


def test_without_times_and_with_items_that_are_no_targets() -> None:
    sessions, known = drawn([5, 2, 9, 3], 1), np.arange(50) % 3 > 0
    given: dict[str, Any] = {"has_time": False, "known": known}
    streamed = batches("by length", sessions, places=True, **given)[4]
    said = batches("by length", sessions, only_places=True)[4]
    found = whole(flat_events(sessions, **given), said)
    same(found, streamed)
    assert not found["gap"].any()
    assert found["target_ok"].any()


@pytest.mark.parametrize("kind", ["packed", "by length"])
def test_a_process_says_which_events_its_rows_hold(kind: str) -> None:
    sessions = drawn([5, 2, 9, 3, 4, 4], 2)
    share: Callable[[int], np.ndarray] = lambda size: np.arange(1, size, 2)  # noqa: E731
    one = batches(kind, sessions, only_places=True)
    half = batches(kind, sessions, only_places=True, read=share)
    for name, array in one[3].items():
        np.testing.assert_array_equal(half[3][name], array[1::2])


# ---- a fit ---------------------------------------------------------------------------------------


class NextItem:
    """Predicts the next item from the last; every name of a batch has a part in the loss."""

    name, couples_examples = "next item", False
    hparams: ClassVar[HParams] = {"learning_rate": 0.1}

    def init(self, key: jax.Array) -> tuple[Params, State]:
        return {"w": jax.random.normal(key, (50, 4))}, {}

    def logical_axes(self) -> Any:
        return {"w": (None, None)}

    def state_axes(self) -> Any:
        return None

    def frozen(self, workdir: Path) -> tuple[Any, Any]:
        return {"half": np.float32(0.5)}, {"half": ()}

    def loss(
        self, params: Params, state: State, frozen: Any, batch: Batch, key: jax.Array,
        step: jax.Array, hparams: HParams,
    ) -> LossResult:  # fmt: skip
        w, ok = params["w"], batch["target_ok"]
        x = w[batch["item"]] * (1 + frozen["half"] * batch["gap"] + batch["event"])[..., None]
        logits = jax.nn.log_softmax(x @ w.T)
        own = jnp.take_along_axis(logits, batch["target"][..., None], -1)[..., 0]
        return -(own * ok).sum(), ok.sum(), state, {}


CONFIG = TrainConfig(steps=8, eval_every=100, save_every=2, log_every=1)


class Ends:
    """Batches up to one, for which a Ctrl-C comes."""

    def __init__(self, batches: Any, end: int) -> None:
        self.batches, self.end = batches, end

    def __getitem__(self, n: int) -> Batch:
        if n == self.end:
            raise KeyboardInterrupt
        found: Batch = self.batches[n]
        return found


def w(result: Any) -> np.ndarray:
    assert isinstance(result, FitResult)
    return np.asarray(result.params["w"])


def test_a_fit_ends_as_on_streamed_batches_killed_or_not_alone_or_not(tmp_path: Path) -> None:
    sessions = drawn([5, 2, 9, 3, 4, 4, 11, 2], 4)
    said = batches("packed", sessions, only_places=True)
    streamed = Trainer(NextItem(), CONFIG).fit(
        tmp_path / "streamed", batches("packed", sessions), seed=1
    )
    task = ResidentTask(NextItem(), flat_events(sessions))
    trainer = Trainer(task, CONFIG)
    whole = trainer.fit(tmp_path / "whole", said, seed=1)
    np.testing.assert_allclose(w(whole), w(streamed), rtol=1e-6, atol=1e-6)
    assert whole.flops == streamed.flops > 0

    with pytest.raises(KeyboardInterrupt):
        trainer.fit(tmp_path / "killed", Ends(said, 5), seed=1)
    # Whatever held the sessions goes on: a checkpoint holds none of them.
    np.testing.assert_array_equal(w(trainer.fit(tmp_path / "killed", said, seed=1)), w(whole))
    assert trainer.compilations == 1

    four = Trainer(task, replace(CONFIG, steps=8, save_every=4, updates_per_call=4))
    again = four.fit(tmp_path / "four", said, seed=1)
    np.testing.assert_allclose(w(again), w(whole), rtol=1e-6, atol=1e-6)
    both = trainer.fit_members([Member(tmp_path / f"of two {seed}", said, seed) for seed in (1, 2)])
    np.testing.assert_allclose(w(both[0]), w(whole), rtol=1e-6, atol=1e-6)
    assert not np.allclose(w(both[1]), w(whole))
