"""Several fits in one program against each alone: parameters, curves, checkpoints, kills."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from jmrec.checkpoint import Checkpoints
from jmrec.errors import UserError
from jmrec.training import FitResult, Member, OptimConfig, TrainConfig, Trainer
from jmrec.training.population import PopulationStep
from tests.unit.training.test_loop import CONFIG, Batches, Evaluate, Log, Quadratic

SEEDS = (2, 5, 7)
WAYS = {"one after another": False, "at once": True}
CLOSE = 1e-6
"""By `lax.map` members were seen to end in the bits of their solo runs, by `vmap` within 3e-7."""


class Own(Batches):
    """Batch n is a function of seed and n; one may be broken, or end the process."""

    def __init__(self, seed: int, bad: int = -1, raises: int = -1, lengths: Any = (4,)) -> None:
        super().__init__(lengths, bad, raises)
        self.seed, self.read = seed, list[int]()

    def __getitem__(self, n: int) -> dict[str, np.ndarray]:
        self.read.append(n)
        batch = super().__getitem__(n)
        noise = np.random.default_rng((self.seed, n)).normal(size=batch["x"].shape)
        return {**batch, "x": (batch["x"] + noise).astype(np.float32)}


def a_trainer(way: str, config: TrainConfig = CONFIG, members: int = len(SEEDS)) -> Trainer:
    trainer = Trainer(Quadratic(), config)
    trainer.step.populations[members] = PopulationStep(trainer.step, members, at_once=WAYS[way])
    return trainer


def members(
    folder: Path, logs: Sequence[Log] = (), seeds: Sequence[int] = SEEDS, **changes: Any
) -> list[Member]:
    """Return the members; ``changes`` is seed as a word -> what its batches do otherwise."""
    rates = {2: {}, 5: {"learning_rate": 0.05}, 7: {"optim": {"warmup": 3}}}
    rates |= {8: {"optim": {"average": 9}}, 9: {"optim": {"average": 2}}}
    return [
        Member(
            folder / str(seed), Own(seed, **changes.get(f"of{seed}", {})), seed, rates[seed],
            Evaluate(), logs[k] if logs else None, {"fingerprint": str(seed)},
        )
        for k, seed in enumerate(seeds)
    ]  # fmt: skip


def alone(trainer: Trainer, member: Member) -> FitResult:
    named = {f.name: getattr(member, f.name) for f in dataclasses.fields(member)}
    return trainer.fit(named.pop("workdir"), named.pop("batches"), **named)


def params(result: Any) -> np.ndarray:
    assert isinstance(result, FitResult), result
    return np.asarray(result.params["w"])


def saved(workdir: Path) -> set[int]:
    return {int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdigit()}


def same(a: Any, b: Any) -> None:
    assert isinstance(a, FitResult)
    assert isinstance(b, FitResult)
    trees = zip(
        jax.tree.leaves((a.params, a.task_state)), jax.tree.leaves((b.params, b.task_state))
    )
    for x, y in trees:
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))
    facts = [(r.step, r.best, r.best_step, r.history, r.flops) for r in (a, b)]
    assert facts[0] == facts[1]


def close(a: Any, b: Any, logs: Sequence[Log] = ()) -> None:
    """Hold a member against its solo run."""
    np.testing.assert_allclose(params(a), params(b), rtol=CLOSE, atol=CLOSE)
    np.testing.assert_allclose(a.task_state["mean"], b.task_state["mean"], rtol=CLOSE, atol=CLOSE)
    assert (a.step, a.best_step, a.flops) == (b.step, b.best_step, b.flops)
    if logs:
        for (step, row), (other, want) in zip(logs[0].lines, logs[1].lines, strict=True):
            assert (step, row.keys()) == (other, want.keys())
            np.testing.assert_allclose([*row.values()], [*want.values()], rtol=1e-5, atol=CLOSE)


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("way", WAYS)
def test_members_equal_their_solo_runs(tmp_path: Path, way: str, k: int) -> None:
    config = dataclasses.replace(CONFIG, eval_every=3, save_every=6, updates_per_call=k)
    trainer, logs = a_trainer(way, config), [Log() for _ in SEEDS]
    found = trainer.fit_members(members(tmp_path / "all", logs))
    assert trainer.compilations == 0
    assert trainer.step.populations[3].compilations == 1
    for member, result, log in zip(members(tmp_path / "alone"), found, logs):
        own = Log()
        close(result, alone(trainer, dataclasses.replace(member, tracker=own)), (log, own))
    assert len({params(each).tobytes() for each in found}) == len(SEEDS)
    # Finished, each is what its solo fit finds there: nothing is compiled, read or judged.
    for member, result in zip(members(tmp_path / "all"), found):
        dead = Evaluate(dies_at=1)
        same(
            result,
            alone(trainer, dataclasses.replace(member, batches=Own(0, raises=0), evaluate=dead)),
        )
    assert trainer.compilations == 1  # of the solo runs above


@pytest.mark.parametrize("way", WAYS)
def test_each_has_its_own_average(tmp_path: Path, way: str) -> None:
    optim, seeds = OptimConfig(average=30), (2, 8, 9)
    trainer = a_trainer(way, dataclasses.replace(CONFIG, optim=optim))
    found = trainer.fit_members(members(tmp_path / "all", seeds=seeds))
    for member, result in zip(members(tmp_path / "alone", seeds=seeds), found):
        close(result, alone(trainer, member))


@pytest.mark.parametrize("way", WAYS)
def test_one_that_stops_early_rests_while_the_others_go_on(tmp_path: Path, way: str) -> None:
    config = dataclasses.replace(CONFIG, steps=24, patience=2)
    trainer = a_trainer(way, config)
    given = members(tmp_path / "all")
    found = trainer.fit_members(given)
    solo = [alone(trainer, each) for each in members(tmp_path / "alone")]
    ends = [each.step for each in solo]
    assert len({*ends}) > 1, ends
    for result, want in zip(found, solo):
        close(result, want)
    for member, end in zip(given, ends):  # one batch may be read ahead
        assert isinstance(member.batches, Own)
        assert member.batches.read == [*range(min(end + 1, 24))]


@pytest.mark.parametrize("bad", [5, 11])
@pytest.mark.parametrize("way", WAYS)
def test_one_that_breaks_says_what_it_says_alone_and_the_others_end_well(
    tmp_path: Path, way: str, bad: int
) -> None:
    trainer, logs = a_trainer(way), [Log() for _ in SEEDS]
    found = trainer.fit_members(members(tmp_path / "all", logs, of5={"bad": bad}))
    for member, result in zip(members(tmp_path / "alone", of5={"bad": bad}), found):
        if member.seed == 5:
            with pytest.raises(UserError) as said:
                alone(trainer, member)
            assert str(result) == str(said.value)
            assert f"loss of update {bad} is nan" in str(result)
        else:
            close(result, alone(trainer, member))
    # What was saved and said of it is from before.
    kept = [saved(tmp_path / top / "5") for top in ("all", "alone")]
    assert kept[0] == kept[1]
    assert max(kept[0]) <= bad
    assert max(step for step, _ in logs[1].lines) <= bad


def test_a_score_that_is_not_finite_ends_one_member(tmp_path: Path) -> None:
    given = members(tmp_path, seeds=SEEDS[:2])
    given[1] = dataclasses.replace(given[1], evaluate=lambda p, s: {"score": float("nan")})
    good, bad = a_trainer("one after another", members=2).fit_members(given)
    assert isinstance(good, FitResult)
    assert good.step == 12
    assert "after 3 updates gave the score nan" in str(bad)


@pytest.mark.parametrize("way", WAYS)
def test_killed_and_resumed_together_they_end_in_the_same_bits(
    tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the data, between the saves of two members, and in an evaluation."""
    config = dataclasses.replace(CONFIG, steps=24, patience=3)
    trainer = a_trainer(way, config)
    lengths = {f"of{seed}": {"lengths": (4, 2)} for seed in SEEDS}
    want_logs = [Log() for _ in SEEDS]
    want = trainer.fit_members(members(tmp_path / "whole", want_logs, **lengths))
    assert len({each.step for each in want if isinstance(each, FitResult)}) > 1
    logs, folder = [Log() for _ in SEEDS], tmp_path / "killed"
    dying = {**lengths, "of5": {"lengths": (4, 2), "raises": 5}}
    with pytest.raises(RuntimeError, match="killed"):
        trainer.fit_members(members(folder, logs, **dying))
    # Every member saves at 8, for 8 is a multiple of save_every: the kill comes at the second.
    save, original = [0], Checkpoints.save

    def dies(self: Checkpoints, step: int, *args: Any, **more: Any) -> None:
        save[0] += step == 8
        if save[0] == 2:
            raise RuntimeError("killed")
        original(self, step, *args, **more)

    monkeypatch.setattr(Checkpoints, "save", dies)
    with pytest.raises(RuntimeError, match="killed"):
        trainer.fit_members(members(folder, logs, **lengths))
    monkeypatch.setattr(Checkpoints, "save", original)
    newest = [max(saved(folder / str(seed))) for seed in SEEDS]
    assert newest[0] == 8
    assert max(newest[1:]) < 8
    given = members(folder, logs, **lengths)
    given[2] = dataclasses.replace(given[2], evaluate=Evaluate(dies_at=2))
    with pytest.raises(RuntimeError, match="killed"):
        trainer.fit_members(given)
    for result, each in zip(trainer.fit_members(members(folder, logs, **lengths)), want):
        same(result, each)
    assert [log.lines for log in logs] == [log.lines for log in want_logs]
    assert trainer.step.populations[3].compilations == 2  # one a shape of batches


def test_one_of_a_killed_population_may_go_on_alone_and_back(tmp_path: Path) -> None:
    trainer = a_trainer("at once")
    with pytest.raises(RuntimeError, match="killed"):
        trainer.fit_members(members(tmp_path / "all", of2={"raises": 10}))
    solo = alone(trainer, members(tmp_path / "all")[1])
    found = trainer.fit_members(members(tmp_path / "all"))
    same(found[1], solo)
    for result, member in zip(found, members(tmp_path / "alone")):
        close(result, alone(trainer, member))


@pytest.mark.parametrize("way", WAYS)
def test_who_rests_is_handed_through_as_it_is(way: str) -> None:
    trainer = a_trainer(way, members=2)
    step, alone = trainer.step.populations[2], trainer.step
    first = [jax.device_get(alone.initialise(seed)) for seed in (2, 5)]
    numbers = step.place_numbers([trainer._given({})[0]] * 2)
    frozen = alone.place_frozen(*trainer.task.frozen(Path()))
    state, hosts = step.join([alone.initialise(seed) for seed in (2, 5)]), [Own(2)[0], Own(5)[0]]
    state, metrics, _ = step.advance(state, frozen, hosts, numbers, [True, False])
    moved, rested = (jax.device_get(step.member(state, k)) for k in (0, 1))
    for was, now in zip(jax.tree.leaves(first[1]), jax.tree.leaves(rested), strict=True):
        np.testing.assert_array_equal(*map(bits, (was, now)))
    assert (int(moved.step), int(rested.step)) == (1, 0)
    assert not np.array_equal(moved.params["w"], first[0].params["w"])
    assert [*np.asarray(metrics["loss"][1])][1] == 0


def test_too_many_for_the_device_is_a_sentence_and_fewer_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = a_trainer("at once")
    with pytest.raises(RuntimeError, match="killed"):
        trainer.fit_members(members(tmp_path, of2={"raises": 10}))
    step, jitted = trainer.step.populations[3], trainer.step.populations[3].jitted

    class Full:
        trace = jitted.trace

        def __call__(self, *given: Any) -> Any:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory: 9 GiB.")

    monkeypatch.setattr(step, "jitted", Full())
    with pytest.raises(
        UserError, match=r"^3 at once do not fit .*train\.population below 3, 1 for"
    ):
        trainer.fit_members(members(tmp_path))
    assert all(alone(trainer, each).step == 12 for each in members(tmp_path))


def bits(leaf: Any) -> np.ndarray:
    key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if key else leaf)
