"""A program of a user's, never run: .ci/run has mypy read it, as mypy reads theirs by py.typed.

What mypy has to refuse is marked, and a mark that nothing needs is an error too.
"""

from typing import assert_type

import jax
import numpy as np

import jmrec
from jmrec.data.schema import Dataset
from jmrec.evaluation.protocol import Predictions, Prefixes
from jmrec.evaluation.results import Results


class Mine(jmrec.Ranker):
    """A ranker of their own."""

    name = "mine"

    def scores(self, prefixes: Prefixes, item_slice: slice) -> np.ndarray:
        """Return the items in their order."""
        return np.tile(np.arange(item_slice.start, item_slice.stop), (len(prefixes), 1))


def from_a_folder_to_a_decision(folder: str) -> str:
    """Use every name."""
    assert_type(jmrec.load_folder(folder), Dataset)
    settings = {"data.dir": folder, "seeds": (0, 1, 2)}
    assert_type(jmrec.prepare("session:data=folder", "run", settings), Dataset)
    run = jmrec.run("session:data=folder", "run", settings, stale="rerun")
    assert_type(run, jmrec.Run)
    run = jmrec.open("run")
    assert_type(run.results, Results)
    assert_type(run.predictions(), Predictions)
    judged = run.evaluate(Mine(), split="validation")
    assert_type(judged, jmrec.Judged)
    run.evaluate([Mine(), Mine(), Mine()], trained=True)
    run.evaluate(lambda prefixes, item_slice: np.zeros((len(prefixes), 3)))
    run.evaluate(np.zeros((3, 4)))
    model = jmrec.models.build("sasrec", items=9, width=8)
    states, vectors = model.apply(model.init(jax.random.key(0)), np.zeros((2, 3), int))
    loss = jmrec.losses.full_softmax(states, vectors, np.zeros((2, 3), int))
    assert_type(loss, jax.Array)
    try:
        print([each["title"] for each in run.recommend(["a"], top=3)])
    except jmrec.UserError as error:
        return str(error)
    return judged.row["name"] + run.table() + jmrec.__version__


def slips(run: jmrec.Run) -> None:
    """Write what mypy refuses."""
    jmrec.lod_folder("x")  # type: ignore[attr-defined]
    jmrec.run("session")  # type: ignore[call-arg]
    run.evaluate("popularity")  # type: ignore[arg-type]
    run.evaluate(Mine(), splits="test")  # type: ignore[call-arg]
    run.results["best_rul"]  # type: ignore[typeddict-item]
    jmrec.models.build("sasrec", item=9.0, items="9")  # type: ignore[arg-type]
