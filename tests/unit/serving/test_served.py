"""What is answered: the best of the candidates, in order, one session or many."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from jmrec.errors import UserError
from jmrec.evaluation.policy import Availability, Correction, Policy, make_policy
from jmrec.evaluation.protocol import Prefixes
from jmrec.evaluation.rankers.neural import CompiledEncoder
from jmrec.models.sessions.student import student
from jmrec.serving import Artefact, Served, load, serve, write
from jmrec.serving.measure import CALLS, WARM, cold_start, latency
from jmrec.serving.stablehlo import export_scores, load_scores

IDS = ["a", "b", "c", "d", "e"]


class Fixed:
    """A ranker with the same scores for everybody."""

    name = "fixed"

    def __init__(self, scores: list[float]) -> None:
        self.values = np.array(scores, np.float32)

    def scores(self, prefixes: Prefixes, item_slice: slice) -> np.ndarray:
        return np.repeat(self.values[None, item_slice], len(prefixes), 0)


def fixed(
    scores: list[float],
    correction: Correction | None = None,
    windows: Availability | None = None,
    exclude_seen: bool = True,
) -> Served:
    policy: Policy = make_policy(IDS, exclude_seen, correction, windows)
    return Served(Fixed(scores), IDS, [item.upper() for item in IDS], policy, "here")


def ids(found: list[dict]) -> list[str]:
    return [each["item_id"] for each in found]


def test_the_best_come_first_and_equals_in_the_order_of_the_catalogue() -> None:
    served = fixed([1.0, 5.0, 5.0, float("nan"), 2.0])
    assert ids(served.recommend(["a"], top=10)) == ["b", "c", "e", "d"]
    assert ids(served.recommend(["a"], top=1)) == ["b"]
    assert served.recommend(["a"], top=1)[0] == {
        "item_id": "b", "title": "B", "score": 5.0, "pinned": False,
    }  # fmt: skip
    assert ids(fixed([1, 5, 5, 0, 2], exclude_seen=False).recommend(["b"], 3)) == ["b", "c", "e"]


def test_blocked_never_allowed_only_pinned_first() -> None:
    scores = [1.0, 5.0, 4.0, 3.0, 2.0]
    assert ids(fixed(scores, Correction(block=("b", "d"))).recommend(["a"])) == ["c", "e"]
    assert ids(fixed(scores, Correction(allow=("d", "a"))).recommend(["b"])) == ["d", "a"]
    pinned = fixed(scores, Correction(pin=("e", "a")))
    found = pinned.recommend(["c"], top=3)
    assert ids(found) == ["e", "a", "b"]
    assert [each["score"] for each in found] == [2.0, 1.0, 5.0]
    assert [each["pinned"] for each in found] == [True, True, False]
    assert ids(pinned.recommend(["c"], top=10)) == ["e", "a", "b", "d"]  # nothing comes twice
    # What the session holds is no candidate, pinned or not; and no more than what is asked comes.
    assert ids(pinned.recommend(["e"], top=3)) == ["a", "b", "c"]
    assert ids(pinned.recommend(["c"], top=1)) == ["e"]


def test_windows_are_asked_at_the_time() -> None:
    start = np.array([-np.inf, 100.0, -np.inf, -np.inf, -np.inf])
    windows = Availability(start, np.array([np.inf, np.inf, 200.0, np.inf, np.inf]))
    served = fixed([1.0, 5.0, 4.0, 3.0, 2.0], windows=windows)
    assert ids(served.recommend(["a"], 2, at=99.0)) == ["c", "d"]
    assert ids(served.recommend(["a"], 2, at=100.0)) == ["b", "c"]
    assert ids(served.recommend(["a"], 2, at=201.0)) == ["b", "d"]
    assert ids(served.recommend(["a"], 2)) == ["b", "d"]  # now


def test_nothing_left_is_an_empty_list() -> None:
    assert fixed([1.0] * 5, Correction(allow=("a",))).recommend(["a"]) == []


@pytest.mark.parametrize(
    ("session", "top", "says"),
    [
        (["item-1x"], 3, "did you mean"),
        (["a", "zzzz"], 3, r"'zzzz' is not in the catalogue of here; run jmrec embed"),
        ([], 3, "the session is empty; name at least one item"),
        (["a"], 0, "1 item or more"),
    ],
)
def test_bad_questions_are_one_sentence(session: list[str], top: int, says: str) -> None:
    served = fixed([1.0] * 5)
    served.ids[0] = "item-1"
    served = Served(served.ranker, served.ids, served.titles, served.policy, "here")
    if session == ["a", "zzzz"]:
        session = ["b", "zzzz"]
    with pytest.raises(UserError, match=says) as told:
        served.recommend(session, top, unknown="refuse")
    assert "--" not in str(told.value)


def test_many_are_answered_as_one_by_one(artefact: Artefact, sessions: list[list[str]]) -> None:
    served = serve(artefact, "memory")
    together = served.recommend_batch(sessions, top=10)
    for session, found in zip(sessions, together, strict=True):
        alone = served.recommend(session, top=10)
        assert ids(alone) == ids(found)
        np.testing.assert_allclose(
            [each["score"] for each in alone], [each["score"] for each in found], atol=1e-5
        )
        assert not set(ids(found)) & set(session)
    assert served.recommend_batch([]) == []


def test_the_scores_are_the_model_s(artefact: Artefact, sessions: list[list[str]]) -> None:
    model = student(artefact.config)

    @jax.jit
    def expected(rows: np.ndarray) -> jax.Array:
        features = artefact.features["features"]
        table, _ = model.fns["item_table"](artefact.params, features, artefact.id_rows)
        mask = np.ones((1, len(rows)), bool)
        states, _ = model.fns["encode_session"](artefact.params, table[rows][None], mask)
        return states[0, -1] @ table.T

    served = serve(artefact, "memory")
    for session in (sessions[2], sessions[5]):  # the second is longer than the window
        rows = np.array([artefact.ids.index(item) for item in session])[-50:]
        scores = np.asarray(expected(rows))
        for each in served.recommend(session, top=40):
            row = artefact.ids.index(each["item_id"])
            np.testing.assert_allclose(each["score"], scores[row], atol=1e-5)


def test_a_student_without_features_is_served(artefact: Artefact, tmp_path: Path) -> None:
    config = replace(artefact.config, features=0)
    params = {name: each for name, each in artefact.params.items() if name != "project"}
    write(replace(artefact, config=config, params=params, features={}), tmp_path / "serve")
    assert len(load(tmp_path / "serve").recommend(["i01"], top=5)) == 5


def test_a_policy_file_takes_the_place_of_the_artefact_s_own(
    artefact: Artefact, tmp_path: Path
) -> None:
    own = make_policy(artefact.ids, True, Correction(pin=("i07",)))
    write(replace(artefact, policy=own), tmp_path / "serve")
    assert load(tmp_path / "serve").recommend(["i01"])[0]["item_id"] == "i07"
    (tmp_path / "policy.toml").write_text('pin = ["i09"]\nblock = ["i07"]\n')
    found = load(tmp_path / "serve", tmp_path / "policy.toml").recommend(["i01"], top=40)
    assert found[0]["item_id"] == "i09"
    assert "i07" not in ids(found)
    assert "i01" not in ids(found)  # the data set's own rule stays
    (tmp_path / "policy.toml").write_text('pin = ["i9"]\n')
    with pytest.raises(UserError, match=r"policy.toml, pin, entry 1: item 'i9' .*did you mean"):
        load(tmp_path / "serve", tmp_path / "policy.toml")


def test_the_stablehlo_program_gives_the_same_scores(
    artefact: Artefact, tmp_path: Path, sessions: list[list[str]]
) -> None:
    served = serve(artefact, "memory")
    write(artefact, tmp_path / "serve", export_scores(served))
    load(tmp_path / "serve")
    scores = load_scores(tmp_path / "serve" / "student.stablehlo")
    windows = np.full((len(sessions), 50), -1, np.int32)
    for row, session in enumerate(sessions):
        rows = [artefact.ids.index(item) for item in session[-50:]]
        windows[row, : len(rows)] = rows
    for part in (slice(0, 1), slice(0, None)):  # any batch size
        found = scores(windows[part])
        assert found.shape == (len(windows[part]), len(artefact.ids))
        for session, line in zip(sessions[part], found, strict=True):
            best = served.recommend(session, top=10)
            seen = np.isin(artefact.ids, session)
            assert len(best) == min(10, (~seen).sum())
            order = np.argsort(np.where(seen, np.inf, -line), kind="stable")[: len(best)]
            assert [artefact.ids[row] for row in order] == ids(best)
            np.testing.assert_allclose(line[order], [e["score"] for e in best], atol=1e-5)


@pytest.mark.parametrize("data", [None, b"", b"not a program", bytes(100)])
def test_a_damaged_program_is_one_sentence(tmp_path: Path, data: bytes | None) -> None:
    path = tmp_path / "student.stablehlo"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(UserError, match="jmrec export --stablehlo"):
        load_scores(path)


def test_all_are_timed_in_turn(artefact: Artefact) -> None:
    order: list[str] = []

    class Slow(Served):
        def recommend(self, session: list[str], top: int = 10, at: float | None = None) -> list:
            order.append(self.where)
            return super().recommend(session, top, at)

    policy = make_policy(IDS, True)
    both = [Slow(Fixed([1.0] * 5), IDS, IDS, policy, where) for where in ("one", "two")]
    found = latency(both, [["a"], ["b"]], calls=10)
    assert order == ["one", "two"] * (WARM + 10)
    assert all(0 < each["median_ms"] <= each["p99_ms"] for each in found)
    assert CALLS >= 200


def test_what_a_new_process_can_not_serve_is_told(artefact: Artefact, tmp_path: Path) -> None:
    write(artefact, tmp_path / "serve")
    (tmp_path / "serve" / "items.json").unlink()
    with pytest.raises(RuntimeError, match="can not be served"):
        cold_start(tmp_path / "serve")


def test_a_single_window_needs_no_block(artefact: Artefact) -> None:
    shapes: list[tuple[int, ...]] = []
    tower = CompiledEncoder(student(artefact.config), artefact.id_rows)
    states: Callable = tower.states

    def spied(params: dict, rows: np.ndarray, items: np.ndarray, *more: np.ndarray) -> np.ndarray:
        shapes.append(items.shape)
        return states(params, rows, items, *more)

    tower.states = spied
    ranker = tower.ranker("small", artefact.params)
    ranker.prepare(artefact.features)
    served = Served(ranker, artefact.ids, artefact.titles, artefact.policy, "memory")
    served.recommend(["i01"])
    served.recommend_batch([["i01"], ["i02"]])
    assert shapes == [(1, 50), (16, 50)]


def test_pauses_and_event_types_reach_the_student(artefact: Artefact) -> None:
    served = serve(artefact, "memory")
    session, times, events = ["i01", "i07", "i03"], [100.0, 100.0, 4000.0], ["view", "", "buy"]
    model, config = student(artefact.config), artefact.config
    table, _ = model.fns["item_table"](
        artefact.params, artefact.features["features"], artefact.id_rows
    )
    rows = np.array([[1, 7, 3]])
    gap, event = np.array([[0.0, 0.0, np.log1p(3900.0)]]), np.array([[2, 0, 1]])
    mask = np.ones((1, 3), bool)
    states, _ = model.fns["encode_session"](artefact.params, table[rows], mask, gap, event)
    want = np.array(states[0, -1] @ table.T)
    want[rows[0]] = -np.inf
    found = served.recommend(session, 5, times=times, events=events)
    assert config.gaps
    assert [each["item_id"] for each in found] == [f"i{r:02}" for r in np.argsort(-want)[:5]]
    assert found[0]["score"] == pytest.approx(want.max(), rel=1e-4)
    assert found != served.recommend(session, 5)
    # Only the last 50 clicks are read, and their first has no pause before it.
    many = served.recommend(["i09"] * 60, 5, times=list(range(60)))
    assert many == served.recommend(["i09"] * 50, 5, times=list(range(50)))
    with pytest.raises(UserError, match="3 items and 2 times: give one for each item"):
        served.recommend(session, times=[1.0, 2.0])
    with pytest.raises(UserError, match=r"'by' is none that .* it knows buy, view: .* train again"):
        served.recommend(session, events=["by", "", ""])
