"""Every encoder served, explained and exported, also those that jmrec has never seen."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmrec.errors import UserError
from jmrec.evaluation.explain import explain
from jmrec.evaluation.protocol import Prefixes
from jmrec.evaluation.rankers.neural import CompiledEncoder, NeuralRanker
from jmrec.models.sessions.srgnn import srgnn
from jmrec.models.sessions.table import (
    ENCODERS,
    encoder_name,
    item_vectors,
    session_model,
    session_rows,
)
from jmrec.models.sessions.transfer import ItemTokens, TransferConfig
from jmrec.serving import Artefact, load, serve, write
from jmrec.serving.artefact import read
from jmrec.serving.stablehlo import export_scores, load_scores
from tests.unit.models.test_sessions import CONFIGS as SMALL
from tests.unit.models.test_sessions import TINY
from tests.unit.models.toy_encoders import (
    MeanConfig,
    Whole,
    WholeConfig,
    registered,
    state,
    toy,
    vectors,
)

CONFIGS = {
    "mean": MeanConfig(features=6, ids=64, scale=0.5),
    "whole": WholeConfig(features=6, ids=64, gaps=True),
    "whole, ids alone": WholeConfig(features=0, ids=64),
}


@pytest.fixture(autouse=True)
def toys() -> Iterator[None]:
    with registered():
        yield


@pytest.fixture(params=CONFIGS)
def made(request: pytest.FixtureRequest, artefact: Artefact) -> Artefact:
    """The artefact of a toy."""
    config = CONFIGS[request.param]
    params = jax.device_get(session_model(config).init(jax.random.key(0)))
    features = artefact.features if config.features else {}
    return replace(artefact, config=config, params=params, features=features)


def by_hand(made: Artefact, rows: list[int], gap: np.ndarray | None = None) -> np.ndarray:
    """The scores of all items after a session, in numpy."""
    table = vectors(made.params, made.features.get("features"), made.id_rows)
    gap = np.zeros(len(rows), np.float32) if gap is None else gap
    return table @ state(made.config, made.params, table[rows], gap)


def test_what_is_exported_answers_as_by_hand(
    made: Artefact, tmp_path: Path, sessions: list[list[str]]
) -> None:
    write(made, tmp_path / "serve")
    assert read(tmp_path / "serve").config == made.config
    served = load(tmp_path / "serve")
    asked = sessions[:12]
    together = served.recommend_batch(asked, top=40)
    for session, found in zip(asked, together, strict=True):
        want = by_hand(made, [made.ids.index(item) for item in session][-50:])
        for each in found:
            row = made.ids.index(each["item_id"])
            np.testing.assert_allclose(each["score"], want[row], rtol=1e-4, atol=1e-5)
        alone = served.recommend(session, top=40)
        np.testing.assert_allclose(
            [each["score"] for each in alone], [each["score"] for each in found], atol=1e-5
        )
    times = [100.0, 160.0, 4000.0]
    gap = np.log1p(np.diff(times, prepend=times[0])).astype(np.float32)
    found = served.recommend(["i01", "i07", "i03"], 5, times=times, events=["view", "", "buy"])
    want = by_hand(made, [1, 7, 3], gap)
    assert found[0]["score"] == pytest.approx(np.delete(want, [1, 7, 3]).max(), rel=1e-4)


def test_an_encoder_that_is_not_there_is_one_sentence(
    made: Artefact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(made, tmp_path / "serve")
    monkeypatch.delitem(ENCODERS, encoder_name(made.config))
    with pytest.raises(UserError, match=r"serve.json: there is no model '\w+', known are student"):
        load(tmp_path / "serve")


def test_the_program_gives_the_same_scores(
    made: Artefact, tmp_path: Path, sessions: list[list[str]]
) -> None:
    (tmp_path / "program").write_bytes(export_scores(serve(made, "memory")))
    scores = load_scores(tmp_path / "program")
    windows = np.full((4, 50), -1, np.int32)
    asked = [[made.ids.index(item) for item in session[-50:]] for session in sessions[1:5]]
    for row, items in enumerate(asked):
        windows[row, : len(items)] = items
    found = scores(windows)
    for row, items in enumerate(asked):
        np.testing.assert_allclose(found[row], by_hand(made, items), rtol=1e-4, atol=1e-4)


def test_a_program_may_read_tokens(tmp_path: Path, artefact: Artefact) -> None:
    """What an encoder reads of items may be several tables."""
    config = TransferConfig(6, TINY, 8, ItemTokens(vocab=9, text=3, seen=2, width=4))
    model, rng = session_model(config), np.random.default_rng(0)
    ranker = CompiledEncoder(model).ranker("tokens", model.init(jax.random.key(0)))
    tokens = {
        "text": rng.integers(1, 9, (40, 3)).astype(np.int32),
        "seen": rng.normal(size=(40, 2, 4)).astype(np.float32),
        "picture_ok": rng.random(40) < 0.5,
    }
    ranker.prepare({**artefact.features, "tokens": tokens})
    served = serve(artefact, "memory")
    served.ranker = ranker
    (tmp_path / "program").write_bytes(export_scores(served))
    windows = np.full((1, 50), -1, np.int32)
    windows[0, :3] = 3, 1, 4
    found = load_scores(tmp_path / "program")(windows)[0]
    np.testing.assert_allclose(found, all_scores(ranker, [3, 1, 4]), rtol=1e-4, atol=1e-5)


def all_scores(ranker: NeuralRanker, rows: list[int]) -> np.ndarray:
    windows = np.full((1, 50), -1, np.int32)
    windows[0, : len(rows)] = rows
    none, zero = np.zeros((1, 50), np.int32), np.zeros(1, np.int32)
    one = Prefixes(windows, none.astype(np.float32), none, zero, zero + len(rows) - 1, zero)
    return ranker.scores(one, slice(0, 40))[0]


def test_every_position_of_a_window_is_ranked_from_its_own_past(made: Artefact) -> None:
    """As evaluation asks: many predictions of few windows, and some of none."""
    ranker = CompiledEncoder(session_model(made.config), made.id_rows).ranker("toy", made.params)
    ranker.prepare(made.features)
    rng = np.random.default_rng(0)
    windows = rng.integers(0, 40, (3, 7)).astype(np.int32)
    windows[1, 2:] = -1
    gaps = np.where(windows < 0, 0, rng.random((3, 7))).astype(np.float32)
    window, end = np.array([0, 0, 0, 1, 2], np.int32), np.array([0, 3, 6, 1, 5], np.int32)
    prefixes = Prefixes(windows, gaps, np.zeros_like(windows), window, end, np.zeros(5))
    found = ranker.scores(prefixes, slice(4, 20))
    for row, (w, e) in enumerate(zip(window, end)):
        want = by_hand(made, windows[w, : e + 1].tolist(), gaps[w, : e + 1])[4:20]
        np.testing.assert_allclose(found[row], want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["whole", "srgnn"])
def test_prefixes_of_an_encoder_that_is_not_causal_share_few_shapes(
    name: str, artefact: Artefact, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Among them more than a block of one length, and none of another."""
    monkeypatch.setattr("jmrec.evaluation.rankers.neural.WINDOWS", 2)
    kind = ENCODERS[name].config
    model = session_model(kind(features=0, ids=66, width=8))  # a size that no other test compiles
    encoder = CompiledEncoder(model, artefact.id_rows)
    params = model.init(jax.random.key(0))
    ranker = encoder.ranker(name, params)
    ranker.prepare({})
    windows = np.random.default_rng(0).integers(0, 40, (60, 50)).astype(np.int32)
    none, window = np.zeros_like(windows), np.arange(60, dtype=np.int32)
    end = np.repeat([0, 1, 3, 20, 49], [5, 20, 31, 3, 1])
    prefixes = Prefixes(windows, none.astype(np.float32), none, window, end, np.zeros(60))
    found = ranker.states(prefixes)
    assert encoder.states._cache_size() == 3  # of 1, 4 and 50 items
    read = toy(Whole)(model.config) if name == "whole" else srgnn(model.config)
    encode = jax.jit(read.fns["encode_session"])
    for row, last in enumerate(end):
        x = ranker.items[windows[row, : last + 1]][None]
        want, _ = encode(params, x, np.ones((1, last + 1), bool))
        np.testing.assert_allclose(found[row], want[0], rtol=1e-4, atol=1e-6)


def test_it_is_explained_by_what_scoring_again_gives(made: Artefact) -> None:
    ranker = serve(made, "memory").ranker
    prefix, item = [3, 17, 9], 21
    bare = np.zeros((1, 6), np.float32) if made.config.features else None
    without = {"text": list(ranker.vectors(bare, made.id_rows[[item]]))}
    (why,) = explain(ranker, np.array(prefix), np.array([item]), without, np.ones(40, bool), 50)
    whole = by_hand(made, prefix)[item]
    assert why.score == pytest.approx(whole, abs=1e-4)
    for place, removal in enumerate(why.past):
        again = by_hand(made, prefix[:place] + prefix[place + 1 :])[item]
        assert removal is not None
        assert removal.contribution == pytest.approx(whole - again, abs=1e-4)
    table = vectors(made.params, made.features.get("features"), made.id_rows)
    x = vectors(made.params, bare, made.id_rows[[item]])[0]
    changed = x @ state(made.config, made.params, table[prefix])
    text = why.own["text"]
    assert text is not None
    assert text.contribution == pytest.approx(whole - changed, abs=1e-4)


def test_an_artefact_of_format_1_names_no_model_and_is_a_student(
    artefact: Artefact, tmp_path: Path, sessions: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jmrec.serving.artefact.FORMAT", 1)
    plain = {"config": {"features": 6, "ids": 64, "gaps": True, "events": 3, "stack": {
        "width": 16, "layers": 1, "heads": 2, "kv_heads": 1, "mlp": 16, "rope_scaling": None,
    }}}  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr("jmrec.models.codec.encode", lambda config: plain)
        write(artefact, tmp_path / "old")
    monkeypatch.undo()
    assert read(tmp_path / "old").config == artefact.config
    expected = serve(artefact, "memory").recommend_batch(sessions[:8], top=40)
    assert load(tmp_path / "old").recommend_batch(sessions[:8], top=40) == expected


@pytest.mark.parametrize("name", [name for name, each in ENCODERS.items() if name != "transfer"])
def test_every_encoder_is_served_exported_and_explained_as_one_session_by_itself(
    name: str, artefact: Artefact, tmp_path: Path
) -> None:
    config, rng = SMALL[name], np.random.default_rng(1)
    model = session_model(config)
    noise = lambda p: (p + 0.2 * rng.normal(size=p.shape)).astype(np.float32)  # noqa: E731
    params = jax.tree.map(noise, jax.device_get(model.init(jax.random.key(0))))
    made = replace(artefact, config=config, params=params)
    params = jax.tree.map(jnp.asarray, params)
    catalogue = {**made.features, "ids": made.id_rows}
    table = item_vectors(model, params, catalogue)
    read = np.asarray(session_rows(model, params, catalogue, table))
    encode = jax.jit(lambda *given: model.fns["encode_session"](params, *given)[0][0, -1])

    def alone(rows: list[int], gap: np.ndarray | None = None) -> np.ndarray:
        """The scores of all items, from a row that holds this session and no padding."""
        one = np.ones((1, len(rows)), bool), np.zeros((1, len(rows)), np.float32)
        gap = one[1] if gap is None else gap[None]
        return np.asarray(table @ encode(read[rows][None], one[0], gap, np.zeros_like(gap, int)))

    asked = [[3, 17, 9], [3, 9, 3], [38, 2, 5]]  # 38 is a cold item
    write(made, tmp_path / "serve")
    served = load(tmp_path / "serve")
    for rows, found in zip(asked, served.recommend_batch([[made.ids[r] for r in a] for a in asked],
                                                         top=40), strict=True):  # fmt: skip
        want = alone(rows)
        assert len(found) == len(made.ids) - len(set(rows))
        for each in found:
            row = made.ids.index(each["item_id"])
            np.testing.assert_allclose(each["score"], want[row], rtol=1e-4, atol=1e-4)
    times = [100.0, 160.0, 4000.0]
    gap = np.log1p(np.diff(times, prepend=times[0])).astype(np.float32)
    found = served.recommend([made.ids[row] for row in asked[0]], 1, times=times)
    best = np.delete(alone(asked[0], gap), asked[0]).max()
    assert found[0]["score"] == pytest.approx(best, rel=1e-4, abs=1e-4)
    (tmp_path / "program").write_bytes(export_scores(served))
    windows = np.full((4, 50), -1, np.int32)
    windows[:3, :3] = asked
    scores = load_scores(tmp_path / "program")(windows)
    for row, items in enumerate(asked):
        np.testing.assert_allclose(scores[row], alone(items), rtol=1e-4, atol=1e-4)
    (why,) = explain(served.ranker, np.array(asked[0]), np.array([21]), {}, np.ones(40, bool), 50)
    assert why.score == pytest.approx(alone(asked[0])[21], abs=1e-4)
    for place, removal in enumerate(why.past):
        again = alone(asked[0][:place] + asked[0][place + 1 :])[21]
        assert removal is not None
        assert removal.contribution == pytest.approx(alone(asked[0])[21] - again, abs=2e-4)
