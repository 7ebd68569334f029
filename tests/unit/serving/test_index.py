"""An approximate index: which items it looks at, what it finds of them, what it never breaks."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jmrec.errors import UserError
from jmrec.evaluation.policy import Correction, make_policy
from jmrec.files import write_manifest
from jmrec.serving import Artefact, load, serve, write
from jmrec.serving.index import TOP, Index, exact_best, make_index, places

WIDTH = 16


def drawn(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, WIDTH)).astype(np.float32)


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    """Forty groups of items that are alike."""
    return (4 * drawn(40, 0)[:, None] + drawn(2000, 1).reshape(40, 50, WIDTH)).reshape(-1, WIDTH)


def test_the_recall_that_is_stated_is_what_brute_force_finds(vectors: np.ndarray) -> None:
    states = vectors[::10] + drawn(200, 2)
    made = make_index(vectors, states, 0.9)
    best = np.argsort(-(states[1::2] @ vectors.T), axis=1)[:, :TOP]
    found = [np.isin(rows, made.rows(state)).mean() for rows, state in zip(best, states[1::2])]
    assert made.recall == pytest.approx(np.mean(found), abs=1e-4)
    assert made.recall > 0.8
    looked = np.mean([len(made.rows(state)) for state in states]) / len(vectors)
    assert looked < 0.5
    assert make_index(vectors, states, 0.5).look <= made.look
    np.testing.assert_array_equal(make_index(vectors, states, 0.9).cell, made.cell)


def test_the_exact_best_over_several_blocks(
    vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jmrec.serving.index.BLOCK", 30)
    states = drawn(5, 3)
    wanted = np.sort(np.argsort(-(states @ vectors.T), axis=1)[:, :7], axis=1)
    np.testing.assert_array_equal(np.sort(exact_best(vectors, states, 7), axis=1), wanted)


def test_places_count_the_cells_before() -> None:
    centres = np.eye(3, WIDTH, dtype=np.float32)
    states = np.array([[1.0, 3.0, 2.0, *[0.0] * (WIDTH - 3)]], np.float32)
    found = places(centres, centres, np.arange(3, dtype=np.int32), states)
    assert sorted(found.tolist()) == [0, 1, 2]


@pytest.mark.parametrize(("recall", "count"), [(0.0, 9), (1.5, 9), (float("nan"), 9), (0.9, 1)])
def test_what_makes_no_sense_is_refused(recall: float, count: int) -> None:
    with pytest.raises(UserError, match="index"):
        make_index(drawn(30, 0), drawn(count, 1), recall)


def halves(artefact: Artefact, look: int) -> Artefact:
    """Return an artefact whose even items are in one cell and whose odd ones are in another."""
    cell = (np.arange(len(artefact.ids)) % 2).astype(np.int32)
    centres = np.stack([np.zeros(WIDTH, np.float32), np.ones(WIDTH, np.float32)])
    return replace(artefact, index=Index(centres, cell, look, 0.5, 10))


def test_answers_are_the_exact_ones_among_what_is_looked_at(
    artefact: Artefact, sessions: list[list[str]], tmp_path: Path
) -> None:
    exact = serve(artefact, "memory").recommend_batch(sessions, top=40)
    write(halves(artefact, 1), tmp_path / "serve")
    served = load(tmp_path / "serve")
    assert served.index is not None
    assert served.index.facts == {"look": 1, "recall": 0.5, "sessions": 10, "top": TOP}
    parities = set()
    for session, found, all_of in zip(sessions, served.recommend_batch(sessions, top=9), exact):
        # A session that has seen most of its half is answered from all items.
        own = [int(each["item_id"][1:]) % 2 for each in found]
        half = [each for each in all_of if int(each["item_id"][1:]) % 2 == own[0]]
        wanted = (half if len(half) >= 9 else all_of)[:9]
        assert [each["item_id"] for each in found] == [each["item_id"] for each in wanted]
        np.testing.assert_allclose(
            [each["score"] for each in found], [each["score"] for each in wanted], atol=1e-5
        )
        assert not {*session} & {each["item_id"] for each in found}
        parities.add(own[0])
    assert parities == {0, 1}


def test_the_policy_is_kept_and_pinned_items_come_first(
    artefact: Artefact, sessions: list[list[str]]
) -> None:
    lists = Correction(block=("i00", "i01"), pin=("i38", "i39"))
    ruled = replace(artefact, policy=make_policy(artefact.ids, True, lists))
    exact = serve(ruled, "memory")
    near = serve(halves(ruled, 1), "memory")
    for session in sessions[:20]:
        answers = [each.recommend(session, top=6) for each in (near, exact)]
        first, wanted = ([x["item_id"] for x in each if x["pinned"]] for each in answers)
        assert first == wanted
        found = [each["item_id"] for each in answers[0]]
        assert not {*found} & {"i00", "i01", *session}
    # Where nothing is left in the cells, all items are looked at.
    few = make_policy(artefact.ids, True, Correction(allow=("i03", "i04", "i07")))
    small = replace(halves(artefact, 1), policy=few)
    found = serve(small, "memory").recommend(["i10"], top=3)
    assert {each["item_id"] for each in found} == {"i03", "i04", "i07"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("centres", np.zeros((2, WIDTH + 1), np.float32)),
        ("centres", np.full((2, WIDTH), np.nan, np.float32)),
        ("cell", np.full(40, 2, np.int32)),
        ("cell", np.zeros(39, np.int32)),
    ],
)
def test_an_index_that_is_none_is_refused(
    artefact: Artefact, tmp_path: Path, name: str, value: np.ndarray
) -> None:
    folder = tmp_path / "serve"
    write(halves(artefact, 1), folder)
    path = folder / "index.safetensors"
    save_file({**load_file(path), name: value}, path)
    write_manifest(folder)
    with pytest.raises(UserError, match="damaged"):
        load(folder)
