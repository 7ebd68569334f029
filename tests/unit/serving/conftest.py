"""A small student with random parameters, as an artefact in memory."""

import jax
import numpy as np
import pytest

from jmrec.evaluation.policy import make_policy
from jmrec.models.parts.transformer import StackConfig
from jmrec.models.sessions.student import StudentConfig, student
from jmrec.serving import Artefact

ITEMS, COLD = 40, 5


@pytest.fixture(scope="session")
def artefact() -> Artefact:
    stack = StackConfig(width=16, layers=1, heads=2, kv_heads=1, mlp=16)
    config = StudentConfig(features=6, ids=64, stack=stack, gaps=True, events=3)
    rng = np.random.default_rng(0)
    params = jax.device_get(student(config).init(jax.random.key(0)))
    tables = params["context"]  # zero in a student that has not learned yet
    params["context"] = {n: rng.normal(size=t.shape).astype(np.float32) for n, t in tables.items()}
    ids = [f"i{row:02}" for row in range(ITEMS)]
    # The last items are cold: the unknown row stands for them.
    rows = np.where(np.arange(ITEMS) < ITEMS - COLD, np.arange(ITEMS), 63).astype(np.int32)
    return Artefact(
        student="small",
        config=config,
        params=params,
        features={"features": rng.normal(size=(ITEMS, 6)).astype(np.float32)},
        id_rows=rows,
        ids=ids,
        titles=[f"Title of {item}, “quoted”" for item in ids],
        policy=make_policy(ids, exclude_seen=True),
        provenance={"run": "none"},
        event_names=["", "buy", "view"],
    )


@pytest.fixture(scope="session")
def sessions(artefact: Artefact) -> list[list[str]]:
    rng = np.random.default_rng(1)
    lengths = [1, 2, 3, 50, 51, 70, *rng.integers(1, 12, 80).tolist()]
    return [[artefact.ids[row] for row in rng.integers(0, ITEMS, n)] for n in lengths]
