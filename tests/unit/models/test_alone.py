"""A session encoder for a training loop of one's own scores as evaluation scores with it."""

import jax
import numpy as np
import pytest

from jmrec.evaluation.protocol import Prefixes
from jmrec.evaluation.rankers.neural import CompiledEncoder
from jmrec.models import build
from jmrec.models.sessions.table import ENCODERS


@pytest.mark.parametrize("name", ["core", "srgnn"])
def test_an_encoder_by_itself_scores_as_evaluation_does(name: str) -> None:
    model = build(name, items=60, width=8)
    params = model.init(jax.random.key(1))
    rng = np.random.default_rng(0)
    windows = rng.integers(0, 60, (3, 5)).astype(np.int32)
    windows[0, :2], windows[1, 3:] = 0, -1  # item 0 is an item, and no padding
    prefixes = Prefixes(
        windows=windows, gaps=np.zeros((3, 5), np.float32), events=np.zeros((3, 5), np.int32),
        window=np.array([0, 0, 1, 2], np.int32), end=np.array([0, 4, 2, 3], np.int32),
        time=np.zeros(4),
    )  # fmt: skip
    ranker = CompiledEncoder(model, np.arange(60, dtype=np.int32)).ranker(name, params)
    ranker.prepare({})
    states, vectors = model.apply(params, prefixes.windows)
    scores = np.asarray(states[prefixes.window, prefixes.end] @ vectors.T)
    np.testing.assert_allclose(ranker.scores(prefixes, slice(0, 60)), scores, atol=1e-5)


def test_every_encoder_can_be_built() -> None:
    for name, entry in ENCODERS.items():
        known = {"features": 5} if entry.reads == "features" else {"items": 7}
        model = build(name, width=8, **known)
        features = None if "items" in known else np.ones((7, 5), np.float32)
        shapes = jax.eval_shape(
            lambda key, model=model, features=features: model.apply(
                model.init(key), [[1, 2, -1]], features, key=key, dropout=0.1
            ),
            jax.random.key(0),
        )
        assert [each.shape for each in shapes] == [(1, 3, 8), (7, 8)], name


def test_features_are_asked_for() -> None:
    model = build("student", features=5, width=8, layers=1)
    assert model.config.stack.layers == 1
    with pytest.raises(ValueError, match="features are of shape None"):
        model.apply(model.init(jax.random.key(0)), [[0]])
