"""The student's scores as one StableHLO program, for servers that run no Python.

The program maps sessions of 50 clicks, oldest first, to float32 [B, V] scores, for any B. A session
is three arrays [B, 50]: catalogue rows int32, padded on the right with -1; time gaps float32,
log(1 + seconds since the click before) and 0 at the first; event types int32. The last two may be 0
for a student that reads neither. The parameters and the item vectors are inside; the policy is not:
whoever runs it masks what may not be recommended.
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from jmrec.errors import UserError
from jmrec.evaluation.protocol import WINDOW
from jmrec.evaluation.rankers.neural import NeuralRanker
from jmrec.features import take_rows
from jmrec.serving.served import Served

PLATFORMS = ("cpu", "cuda", "tpu")


def check_installed() -> None:
    """Raise a UserError where what JAX needs for StableHLO files is not installed."""
    if importlib.util.find_spec("flatbuffers") is None:
        raise UserError(
            "a StableHLO file needs the package flatbuffers; pip install 'jmrec[stablehlo]'."
        )


def export_scores(served: Served) -> bytes:
    """Return the program that scores the whole catalogue.

    Raises:
      UserError: A rule is served, or what JAX needs for it is not installed.
    """
    if not isinstance(served.ranker, NeuralRanker):
        raise UserError(
            f"{served.ranker.name} is no student, and only a student's scores are exported as a "
            "StableHLO program; "
            "leave out --stablehlo, or name a student with --row."
        )
    check_installed()
    ranker, count = served.ranker, len(served.ids)
    encode = ranker.encoder.model.fns["last_state"]
    rows, items, params = jax.tree.map(jnp.asarray, (ranker.rows, ranker.items, ranker.params))

    def scores(sessions: jax.Array, gaps: jax.Array, events: jax.Array) -> jax.Array:
        mask = sessions >= 0
        read = take_rows(rows, jnp.where(mask, sessions, 0))
        state, _ = encode(params, read, mask, gaps, events)
        return state @ items[:count].T

    (batch,) = export.symbolic_shape("batch")
    dtypes = (jnp.int32, jnp.float32, jnp.int32)
    wanted = [jax.ShapeDtypeStruct((batch, WINDOW), dtype) for dtype in dtypes]
    return bytes(export.export(jax.jit(scores), platforms=PLATFORMS)(*wanted).serialize())


def load_scores(path: Path) -> Callable[..., np.ndarray]:
    """Load a program that `export_scores` made.

    Returns:
      (sessions int32 [B, 50], gaps float32 [B, 50], events int32 [B, 50]) -> float32 [B, V]; the
      last two may be left out.

    Raises:
      UserError: The file is missing or damaged.
    """
    check_installed()
    try:
        program = export.deserialize(bytearray(path.read_bytes()))
    except FileNotFoundError:
        raise UserError(f"{path} is missing; make it with jmrec export --stablehlo.") from None
    except Exception as error:  # a flatbuffer that is damaged fails in many ways
        raise UserError(
            f"{path} is damaged ({str(error) or type(error).__name__}); make it again with jmrec "
            "export --stablehlo."
        ) from None
    call = jax.jit(program.call)

    def scores(sessions: np.ndarray, gaps: Any = None, events: Any = None) -> np.ndarray:
        read = jnp.asarray(sessions, jnp.int32)
        gaps = jnp.zeros(read.shape) if gaps is None else jnp.asarray(gaps, jnp.float32)
        events = jnp.zeros(read.shape, jnp.int32) if events is None else jnp.asarray(events)
        return np.asarray(call(read, gaps, events))

    return scores
