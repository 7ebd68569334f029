"""Checkpoints: the only importer of orbax.

A checkpoint is a state (any tree of arrays, typed PRNG keys included) and a json-able metadata
dict. Orbax writes into a temporary folder and renames it, so that there are whole checkpoints
and none others.
"""

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from orbax.checkpoint import v1 as ocp

from jmrec.errors import UserError

log = logging.getLogger(__name__)

CHECKED = ("fingerprint", "config", "train")
"""The metadata fields that must not change between a run and its resumption."""


def _differences(stored: Any, expected: Any, name: str) -> list[str]:
    if isinstance(stored, Mapping) and isinstance(expected, Mapping):
        out: list[str] = []
        for key in sorted({*stored, *expected}, key=str):
            field = f"{name}.{key}"
            if key not in stored:
                out.append(f"{field} (was absent, now {expected[key]!r})")
            elif key not in expected:
                out.append(f"{field} (was {stored[key]!r}, now absent)")
            else:
                out += _differences(stored[key], expected[key], field)
        return out
    same = stored == expected or (stored != stored and expected != expected)
    return [] if same else [f"{name} (was {stored!r}, now {expected!r})"]


def check_metadata(stored: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Refuse to resume a run whose data or settings changed.

    Args:
      stored: The metadata of a checkpoint.
      expected: The metadata of the run that would go on from it. Of both, the fields
        "fingerprint", "config" and "train" are compared, those that ``expected`` has.

    Raises:
      UserError: A field differs; the message names it with its old and new value.

    Example:
      >>> check_metadata({"config": {"lr": 0.1}}, {"config": {"lr": 0.1}})
      >>> check_metadata({"config": {"lr": 0.1}}, {"config": {"lr": 0.2}})
      Traceback (most recent call last):
        ...
      jmrec.errors.UserError: the checkpoint is of another run: config.lr (was 0.1, now 0.2)
      changed; restore the old setting, or train anew in another workdir.
    """
    # Through json, because that is how the stored side came: tuples are lists by now.
    plain = json.loads(json.dumps({name: expected[name] for name in CHECKED if name in expected}))
    changed: list[str] = []
    for name, value in plain.items():
        changed += _differences(stored.get(name), value, name)
    if changed:
        raise UserError(
            f"the checkpoint is of another run: {'; '.join(changed[:5])} changed; "
            "restore the old setting, or train anew in another workdir."
        )


class Checkpoints:
    """The checkpoints of one run: the last few and the best.

    Args:
      directory: Where they lie, one folder a step; made where it is missing.
      keep: How many of the last are kept, 1 or more. The two best are kept as well: the second
        best is the best again where the newest, being the best, turns out to be damaged.

    Example:
      >>> import tempfile
      >>> import jax.numpy as jnp
      >>> with Checkpoints(Path(tempfile.mkdtemp()) / "checkpoints") as checkpoints:
      ...     checkpoints.save(3, {"w": jnp.ones(2)}, metadata={"fingerprint": "a"}, metric=0.5)
      ...     checkpoints.wait()
      ...     target = {"w": jax.ShapeDtypeStruct((2,), jnp.float32)}
      ...     state, metadata = checkpoints.restore(target)
      >>> state["w"].tolist(), metadata["fingerprint"]
      ([1.0, 1.0], 'a')
    """

    def __init__(self, directory: str | os.PathLike[str], keep: int = 2) -> None:
        self.directory = Path(directory).absolute()
        self._keep = keep
        self._open()

    def _open(self) -> None:
        policies = ocp.training.preservation_policies
        self._checkpointer = ocp.training.Checkpointer(
            self.directory,
            cleanup_tmp_directories=True,
            preservation_policy=policies.AnyPreservationPolicy(
                [
                    policies.LatestN(self._keep),
                    policies.BestN(
                        get_metric_fn=lambda metrics: metrics["score"],
                        n=2,
                        keep_checkpoints_without_metrics=False,
                    ),
                ]
            ),
        )
        self._response: Any = None

    def __enter__(self) -> "Checkpoints":
        """Return self."""
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for the last write and close."""
        self.close()

    def close(self) -> None:
        """Wait for the last write and release the threads."""
        try:
            self.wait()
        finally:
            self._checkpointer.close()

    def save(
        self, step: int, state: Any, *, metadata: Mapping[str, Any], metric: float | None = None
    ) -> None:
        """Write a checkpoint in the background; the state is copied before this returns.

        Args:
          step: Updates done; a checkpoint of the same step is replaced.
          state: A tree of arrays.
          metadata: A json-able dict.
          metric: What "best" means, greater is better; None takes no part.
        """
        self.wait()
        self._response = self._checkpointer.save_async(
            int(step),
            state,
            force=True,
            overwrite=int(step) in self.steps(),
            metrics=None if metric is None else {"score": float(metric)},
            custom_metadata={"metadata": dict(metadata)},
        )

    def wait(self) -> None:
        """Wait until the last save is on disk; raise what went wrong with it."""
        if self._response is not None:
            response, self._response = self._response, None
            response.result()

    def steps(self) -> list[int]:
        """Return the steps of the whole checkpoints, ascending."""
        return [checkpoint.step for checkpoint in self._checkpointer.checkpoints]

    def latest_step(self) -> int | None:
        """Return the newest step, or None."""
        return max(self.steps(), default=None)

    def best_step(self) -> int | None:
        """Return the step of the greatest metric (the earliest of equals), or None."""
        scored = [
            (-checkpoint.metrics["score"], checkpoint.step)
            for checkpoint in self._checkpointer.checkpoints
            if checkpoint.metrics
        ]
        return min(scored)[1] if scored else None

    def restore(
        self,
        abstract_state: Any,
        step: int | None = None,
        *,
        expected: Mapping[str, Any] | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Read a checkpoint.

        Args:
          abstract_state: A tree of ``jax.ShapeDtypeStruct`` with the *current* mesh's shardings.
          step: Which; by default the newest that can be read. Newer ones that cannot are
            reported and set aside (renamed ``<step>.damaged``).
          expected: Metadata to compare with before the state is read (``check_metadata``).

        Returns:
          (state, metadata).

        Raises:
          UserError: There is none, none can be read, or the metadata differ.
        """
        self.wait()
        candidates = [step] if step is not None else sorted(self.steps(), reverse=True)
        damaged: list[int] = []
        reason = ""
        for candidate in candidates:
            try:
                metadata = _metadata(self._checkpointer.metadata(candidate))
            except Exception as error:  # orbax and tensorstore raise many kinds
                reason = _one_line(error)
                damaged.append(candidate)
                continue
            if expected is not None:
                check_metadata(metadata, expected)
            try:
                state = self._checkpointer.load(candidate, abstract_state)
            except Exception as error:
                reason = _one_line(error)
                damaged.append(candidate)
                continue
            if damaged:
                self._set_aside(damaged, candidate, reason)
            return state, metadata
        if not candidates:
            raise UserError(f"{self.directory}: there is no checkpoint; train first.")
        raise UserError(
            f"{self.directory}: no checkpoint of step {', '.join(map(str, candidates))} can be "
            f"read ({reason}); delete the folder to start again."
        )

    def _set_aside(self, damaged: list[int], used: int, reason: str) -> None:
        """Rename what cannot be read; done only once an older one was read the same way."""
        log.warning(
            "%s: checkpoint %s is damaged (%s); going on from checkpoint %d",
            self.directory,
            ", ".join(map(str, damaged)),
            reason,
            used,
        )
        self._checkpointer.close()
        if jax.process_index() == 0:
            for step in damaged:
                target = self.directory / f"{step}.damaged"
                number = 1
                while target.exists():
                    number += 1
                    target = self.directory / f"{step}.damaged-{number}"
                (self.directory / str(step)).rename(target)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("jmrec damaged checkpoints set aside")
        self._open()


def _metadata(described: Any) -> dict[str, Any]:
    """Return our metadata from orbax's; orbax says nothing where its file is broken."""
    custom = described.custom_metadata
    if not isinstance(custom, Mapping) or "metadata" not in custom:
        raise ValueError("the metadata file is broken")
    return dict(custom["metadata"])


def _one_line(error: BaseException) -> str:
    """Return the first line of the first cause: orbax wraps what tensorstore says."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]


def save_params(path: str | os.PathLike[str], params: Any, metadata: Mapping[str, Any]) -> None:
    """Write the parameters of a finished stage, atomically; an older file is replaced.

    With several processes all must call it at once, with the same values.

    Args:
      path: The folder to write.
      params: A tree of arrays.
      metadata: A json-able dict.

    Example:
      >>> import tempfile
      >>> path = Path(tempfile.mkdtemp()) / "params"
      >>> save_params(path, {"w": np.ones(2, np.float32)}, {"stage": "student"})
      >>> params, metadata = load_params(path)
      >>> params["w"].tolist(), metadata
      ([1.0, 1.0], {'stage': 'student'})
    """
    target = Path(path).absolute()
    # The name "params" lets the tree be any pytree, even a single array.
    ocp.save(
        target, {"params": params}, overwrite=True, custom_metadata={"metadata": dict(metadata)}
    )


def load_params(path: str | os.PathLike[str], abstract: Any = None) -> tuple[Any, dict[str, Any]]:
    """Read what ``save_params`` wrote.

    With several processes all must call it at once: orbax counts its operations.

    Args:
      path: The folder.
      abstract: A tree of ``jax.ShapeDtypeStruct`` with shardings; None for numpy arrays in
        nested dicts and lists.

    Returns:
      (params, metadata).

    Raises:
      UserError: There are none, they cannot be read, or they do not fit ``abstract``.
    """
    source = Path(path).absolute()
    if not source.is_dir():
        raise UserError(f"{source}: there are no parameters here; run the stage that makes them.")
    try:
        described = ocp.metadata(source)
        metadata = _metadata(described)
        target = {"params": abstract}
        if abstract is None:
            target = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), described.metadata)
        params = ocp.load(source, target)["params"]
    except Exception as error:  # orbax and tensorstore raise many kinds
        raise UserError(
            f"{source}: the parameters cannot be read ({_one_line(error)}); make them again."
        ) from error
    return params, metadata


def check_fit(params: Any, wanted: Any, where: str) -> None:
    """Check that parameters are those of a model, by path and shape.

    Args:
      params: A nested dict of arrays.
      wanted: The model's parameters or their shapes.
      where: What the parameters are, for the message.

    Raises:
      UserError: A parameter is missing, is one too many, or has another shape.

    Example:
      >>> check_fit({"w": np.ones(2)}, {"w": np.ones(2)}, "run/knowledge")
      >>> try:
      ...     check_fit({"w": np.ones(2)}, {"w": np.ones(3)}, "run/knowledge")
      ... except UserError as error:
      ...     print(str(error).partition(";")[0])
      run/knowledge: 'w' has shape (2,), and this jmrec's model wants (3,)
    """

    def shapes(tree: Any) -> dict[str, tuple[int, ...]]:
        leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
        return {
            jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape)
            for path, leaf in leaves
        }

    have, want = shapes(params), shapes(wanted)
    for name in sorted(have | want):
        if have.get(name) == want.get(name):
            continue
        if name not in have:
            found = f"{name!r} is missing"
        elif name not in want:
            found = f"{name!r} is no part of this jmrec's model"
        else:
            found = f"{name!r} has shape {have[name]}, and this jmrec's model wants {want[name]}"
        raise UserError(
            f"{where}: {found}; run again in another --workdir, or use the version of jmrec that "
            "made it."
        )
