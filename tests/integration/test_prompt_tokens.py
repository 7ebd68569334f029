"""prompt="tokens": a Transfer tower that reads all tokens of a session's items, smoke-tested."""

from pathlib import Path

import jax
import numpy as np

from jmrec.config import load_config
from jmrec.evaluation.protocol import make_predictions, rank
from jmrec.systems.stages import walk
from jmrec.systems.tpad.system import Tpad
from jmrec.systems.work import Work
from jmrec.tracking import Tracker
from tests import tiny

ROOT = Path(__file__).resolve().parents[2]
TINY = [
    "--config.transition.prompt=tokens",
    *tiny.SHAPES,
    *tiny.updates(2, *tiny.TOWERS, "student"),
    "--config.data.window=4",
    "--config.data.toyshop.n_items=60",
    "--config.data.toyshop.sessions=100",
]


def test_a_teacher_of_tokens_teaches_and_ranks(tmp_path: Path) -> None:
    config = load_config(f"{ROOT}/experiments/tpad.py:size=tiny,students=served", TINY)
    with Tracker(tmp_path, quiet=True) as tracker:
        system = Tpad(Work(config, tmp_path, tracker))
        walk(system.stages(), tmp_path, stale="stop", tracker=tracker)
        ranker, tokens = system.teacher(), system.tokens
    model, params = ranker.encoder.model, ranker.params
    assert tokens is not None
    # The tower began with the Knowledge tower's words, which two updates hardly move.
    words = system.reader.token_vectors()["embedding"]
    np.testing.assert_allclose(params["embed"]["embedding"], words, atol=0.05)
    asked = make_predictions(system.data.dataset.splits["validation"]).take(slice(0, 6))
    found = rank(ranker, asked, n_items=60, exclude_seen=False, top=3)
    # The state of the first prediction, by hand: its items' tokens straight into the tower.
    prefix = asked.prefixes.expand()[0]
    shown = {name: table[prefix][None] for name, table in tokens.items()}
    h, _ = jax.jit(model.fns["encode_session"])(params, shown, np.ones((1, len(prefix)), bool))
    y, _ = model.fns["item_table"](params, system.features.e["both"])
    scores = np.asarray(y @ h[0, -1])
    assert found.top_ids[0].tolist() == np.argsort(-scores, kind="stable")[:3].tolist()
    np.testing.assert_allclose(found.top_scores[0], np.sort(scores)[::-1][:3], rtol=1e-4)
