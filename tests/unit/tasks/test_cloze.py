"""Encoders that are trained to name hidden items."""

import jax
import numpy as np
import pytest

from jmrec.config import load_config
from jmrec.errors import UserError
from jmrec.models.sessions.bert4rec import Bert4recConfig, bert4rec
from jmrec.systems.registry import check_settings
from jmrec.tasks.cloze import cloze
from jmrec.tasks.session import StudentTask

V, B, L = 12, 400, 6


def batch_of(seed: int = 0) -> dict[str, np.ndarray]:
    """Sessions of 2 to 7 items, the last of which is a target alone; some may not be targets."""
    rng = np.random.default_rng(seed)
    whole = rng.integers(0, V, (B, L + 1))
    mask = np.arange(L) < rng.integers(1, L + 1, (B, 1))
    return {
        "item": np.where(mask, whole[:, :-1], 0).astype(np.int32),
        "target": np.where(mask, whole[:, 1:], 0).astype(np.int32),
        "mask": mask,
        "target_ok": mask & (whole[:, 1:] != 3),
        "gap": np.zeros((B, L), np.float32),
        "event": np.zeros((B, L), np.int32),
    }


@pytest.mark.parametrize("seed", range(3))
def test_what_is_hidden(seed: int) -> None:
    batch, key = batch_of(seed), jax.random.key(seed)
    item, real, hidden = (np.asarray(each) for each in cloze(batch, key, 0.3, 0.5))
    share, only = [], 0
    for row in range(B):
        n = int(batch["mask"][row].sum())
        whole = [*batch["item"][row, :n], batch["target"][row, n - 1]]
        assert item[row, : n + 1].tolist() == whole
        assert real[row].tolist() == [place <= n for place in range(L + 1)]
        may = [bool(batch["target_ok"][row, max(place - 1, 0)]) for place in range(n + 1)]
        found = np.flatnonzero(hidden[row]).tolist()
        assert all(place <= n and may[place] for place in found)
        assert bool(found) == any(may)
        if sum(may) > 3:
            final = max(place for place in range(n + 1) if may[place])
            only += found == [final]
            share.append(len(found) / sum(may) if found != [final] else np.nan)
    assert 0.4 < only / len(share) < 0.65  # half of them, and those where nothing else was drawn
    assert 0.25 < np.nanmean(share) < 0.5  # of those with something drawn


def test_the_loss_names_hidden_items_from_both_sides_and_from_nothing_else() -> None:
    config = Bert4recConfig(features=0, ids=16, width=8, layers=1)
    train = np.ones(V, bool)
    task = StudentTask(config, None, train, None, {"dropout": 0.0, "id_dropout": 0.0})
    params, state = task.init(jax.random.key(0))
    batch, key = batch_of(), jax.random.key(5)
    frozen = task.frozen(None)[0]
    total, count, _, _ = task.loss(params, state, frozen, batch, key, 0, task.hparams)

    # The same by hand: each hidden item's logarithm of the softmax over the catalogue.
    model = bert4rec(config)
    table = np.asarray(params["ids"])[:V]
    item, real, hidden = cloze(batch, jax.random.fold_in(key, 3), config.hide, config.last)
    shown = np.where(hidden[..., None], 99.0, table[item])  # what is hidden is not read
    states = np.asarray(model.fns["fill"](params, shown, real, hidden)[0], np.float64)
    logits = states @ table.T
    norm = np.log(np.exp(logits).sum(-1))
    right = np.take_along_axis(logits, np.asarray(item)[..., None], -1)[..., 0]
    want = np.where(hidden, norm - right, 0).sum()
    assert int(count) == int(hidden.sum())
    assert float(total) == pytest.approx(want, rel=1e-5)


def test_padding_and_what_is_hidden_change_nothing_and_later_items_do() -> None:
    model = bert4rec(Bert4recConfig(features=0, ids=16, width=8))
    params = model.init(jax.random.key(0))
    x = np.random.default_rng(0).normal(size=(1, 5, 8)).astype(np.float32)
    mask, hidden = np.arange(5)[None] < 4, np.arange(5)[None] == 1

    def state(x: np.ndarray) -> np.ndarray:
        return np.asarray(model.fns["fill"](params, x, mask, hidden)[0])[0, 1]

    for place, same in ((1, True), (4, True), (0, False), (3, False)):
        other = x.copy()
        other[0, place, 0] += 1.0
        assert np.allclose(state(other), state(x), atol=1e-6) == same


def test_a_teacher_is_refused_before_anything_runs() -> None:
    config = load_config("session:size=tiny,encoder=bert4rec,teacher=rules", [])
    with pytest.raises(UserError, match="bert4rec learns to name hidden items and follows no"):
        check_settings(config)
