"""Several processes, played by threads, rank what one ranks and read what one reads."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jmrec.evaluation import shares
from jmrec.evaluation.protocol import Prefixes, make_predictions, rank
from jmrec.systems.readers import blocks
from tests.unit.evaluation.test_protocol import Table, sessions_of

PROCESSES = 3


class Processes:
    """Threads that take themselves for processes; what goes by jax goes by a list here."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.own, self.sent = threading.local(), [None] * PROCESSES
        self.gate = threading.Barrier(PROCESSES, timeout=30)
        for module in (shares, blocks):
            patch.setattr(module, "place", lambda: (self.own.number, PROCESSES))
        patch.setattr(blocks, "meet", self.gate.wait)
        patch.setattr(shares.multihost_utils, "process_allgather", self.gather)

    def gather(self, array: Any) -> np.ndarray:
        self.sent[self.own.number] = array
        self.gate.wait()
        found = np.stack(self.sent)
        self.gate.wait()
        return found

    def run(self, work: Callable[[int], Any]) -> list[Any]:
        """Return what each process made, or why it ended."""
        results: list[Any] = [None] * PROCESSES

        def one(number: int) -> None:
            self.own.number = number
            try:
                results[number] = work(number)
            except Exception as error:
                results[number] = error
                self.gate.abort()

        threads = [threading.Thread(target=one, args=(n,)) for n in range(PROCESSES)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        return results


@pytest.mark.parametrize("batch", [4, 1000])
def test_each_ranks_its_part_and_all_know_all(monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    random = np.random.default_rng(0)
    asked = make_predictions(
        sessions_of([random.integers(0, 30, random.integers(2, 9)).tolist() for _ in range(12)])
    )
    table = random.normal(size=(11, 30)).astype(np.float32)
    common: dict[str, Any] = {
        "n_items": 30, "exclude_seen": True, "cold": np.arange(30) > 25, "offsets": (0.0, 0.5),
        "top": 5, "batch": batch,
    }  # fmt: skip
    alone = rank(Table(table), asked, **common)
    looked: list[int] = [0] * PROCESSES

    def work(number: int) -> Any:
        class Counted(Table):
            def scores(self, prefixes: Prefixes, item_slice: slice) -> np.ndarray:
                looked[number] += len(prefixes)
                return super().scores(prefixes, item_slice)

        with shares.ranked_by_each() as ranked:
            found = rank(Counted(table), asked, **common)
        return found, ranked

    for found, ranked in Processes(monkeypatch).run(work):
        np.testing.assert_array_equal(found.ranks, alone.ranks)
        np.testing.assert_array_equal(found.top_ids, alone.top_ids)
        np.testing.assert_array_equal(found.top_scores, alone.top_scores)
        assert ranked == looked
    assert sum(looked) == len(asked)
    assert max(looked) < len(asked) / 2


def test_one_prediction_is_ranked_by_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = make_predictions(sessions_of([[1, 2]]))
    table = np.eye(4, dtype=np.float32)
    found = Processes(monkeypatch).run(
        lambda _: rank(Table(table), asked, n_items=4, exclude_seen=False)
    )
    assert [each.ranks.tolist() for each in found] == [found[0].ranks.tolist()] * PROCESSES


def test_each_reads_its_blocks_and_one_that_is_killed_loses_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    items = np.arange(20, dtype=np.float32)[:, None]
    read: list[tuple[int, int]] = []
    end_at = 10

    def work(number: int) -> Any:
        kept = blocks.Blocks(tmp_path, [str(n) for n in range(20)], {"hash": "one"})

        def once(rows: slice) -> dict[str, np.ndarray]:
            if rows.start == end_at:
                raise KeyError("killed")
            read.append((number, rows.start))
            return {"x": items[rows]}

        return blocks.read_in_blocks(20, 2, once, kept=kept)["x"]

    ended = Processes(monkeypatch).run(work)
    assert {type(each) for each in ended} == {KeyError, threading.BrokenBarrierError}
    before, end_at = sorted(read), -1
    read.clear()
    for found in Processes(monkeypatch).run(work):
        np.testing.assert_array_equal(found, items)
    # What was read before is read by nobody again, and each block by the one whose it is.
    every = [(n // 2 % PROCESSES, n) for n in range(0, 20, 2)]
    assert sorted([*before, *read]) == sorted(every)
    assert (end_at, len(before)) == (-1, len(every) - len(read))
    assert len(read) >= 1
