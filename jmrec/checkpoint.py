"""Checkpoints: the only importer of orbax.

A checkpoint is a state (any tree of arrays, typed PRNG keys included) and a json-able metadata
dict. Orbax writes into a temporary folder and renames it, so that there are whole checkpoints
and none others. It does not notice a flipped bit in an array, so a manifest of checksums is added
and compared before anything is read.
"""

import json
import logging
import os
import shutil
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from orbax.checkpoint import v1 as ocp

from jmrec.errors import UserError, refusal
from jmrec.files import manifest_fault, replace_folder, write_manifest

log = logging.getLogger(__name__)

FORMAT = 1
"""The version of what is written; a greater one is refused. None given is 1."""

CHECKED = ("fingerprint", "config", "train")
"""The metadata fields that must not change between a run and its resumption."""


def _is_news(record: logging.LogRecord) -> bool:
    return record.levelno < logging.ERROR or "orbax" not in record.pathname


# Orbax logs a failed write with a traceback for each of its threads, and raises it as well.
logging.getLogger("absl").addFilter(_is_news)


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
        self._writer = ThreadPoolExecutor(1, "checkpoint")
        self._pending: tuple[int, Future[None]] | None = None
        self._failed = False
        self._tidy()
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
            # Orbax raises a failed save once more; `wait` has said it.
            with suppress(Exception) if self._failed else nullcontext():
                self._checkpointer.close()
            self._writer.shutdown()

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
        step = int(step)
        if step in self.steps():  # orbax would delete it first, and a kill then lose it
            self._rename([(str(step), f"{step}.replaced")])
        response = self._checkpointer.save_async(
            step,
            state,
            force=True,
            metrics=None if metric is None else {"score": float(metric)},
            custom_metadata={"metadata": dict(metadata), "format": FORMAT},
        )
        self._pending = (step, self._writer.submit(self._seal, response, step))

    def _seal(self, response: Any, step: int) -> None:
        """Wait for a save, then add the checksums; in another thread."""
        response.result()
        if jax.process_index() == 0:
            write_manifest(self.directory / str(step))
            shutil.rmtree(self.directory / f"{step}.replaced", ignore_errors=True)

    def wait(self) -> None:
        """Wait until the last save is on disk; raise what went wrong with it.

        Raises:
          UserError: The disk is full, or may not be written.
        """
        if self._pending is None:
            return
        (step, future), self._pending = self._pending, None
        try:
            future.result()
        except Exception as error:
            self._failed = True
            if (reason := refusal(error)) is None:
                raise
            raise UserError(
                f"{self.directory}: checkpoint {step} could not be written ({reason}); mend that "
                "and start the same command again: those before it are whole."
            ) from error

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
          UserError: There is none, none can be read, the metadata differ, or it may not be read
            (which is no damage: nothing is set aside).
        """
        self.wait()
        candidates = [step] if step is not None else sorted(self.steps(), reverse=True)
        damaged: list[int] = []
        reason = ""
        for candidate in candidates:
            try:
                if fault := self._fault(candidate):
                    raise ValueError(fault)
                metadata = _metadata(self._checkpointer.metadata(candidate))
                if expected is not None:
                    check_metadata(metadata, expected)
                state = self._checkpointer.load(candidate, abstract_state)
            except UserError:
                raise
            except Exception as error:  # orbax and tensorstore raise many kinds
                if refused := refusal(error):
                    raise UserError(
                        f"{self.directory / str(candidate)} can not be read ({refused}); mend "
                        "that and start the same command again."
                    ) from error
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
        self._rename([(str(step), self._aside(str(step))) for step in damaged])

    def _aside(self, step: str) -> str:
        """Return a free name for a damaged checkpoint."""
        target, number = f"{step}.damaged", 1
        while (self.directory / target).exists():
            number += 1
            target = f"{step}.damaged-{number}"
        return target

    def _rename(self, names: Iterable[tuple[str, str]]) -> None:
        """Rename folders behind orbax's back: closed before, opened after."""
        self._checkpointer.close()
        if jax.process_index() == 0:
            for old, new in names:
                (self.directory / old).rename(self.directory / new)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("jmrec checkpoints renamed")
        self._open()

    def _tidy(self) -> None:
        """Mend what orbax would stumble over when it opens the directory.

        What was being replaced when a kill came is put back, unless the new one is whole. A
        checkpoint whose description is damaged is set aside: orbax reads them all at once.
        """
        if jax.process_index() == 0:
            for old in self.directory.glob("*.replaced"):
                step = old.with_suffix("")
                if step.exists():
                    shutil.rmtree(old)
                else:
                    old.rename(step)
            for path in self.directory.glob("*"):
                if path.name.isdigit() and (fault := _description_fault(path)):
                    aside = self._aside(path.name)
                    log.warning(
                        "%s: checkpoint %s is damaged (%s); it is now %s",
                        self.directory, path.name, fault, aside,
                    )  # fmt: skip
                    path.rename(self.directory / aside)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("jmrec checkpoints tidied")

    def _fault(self, step: int) -> str:
        """Return what the checksums tell against a checkpoint, "" for nothing; alike in all."""
        fault = ""
        if jax.process_index() == 0:
            fault = manifest_fault(self.directory / str(step)) or ""
        if jax.process_count() > 1 and multihost_utils.broadcast_one_to_all(np.bool_(fault)):
            fault = fault or "its checksums differ"
        return fault


def _description_fault(folder: Path) -> str | None:
    """Return what is wrong with the files that orbax reads of a checkpoint when it lists it."""
    names = ("_CHECKPOINT_METADATA", "metrics/metrics")
    if fault := manifest_fault(folder, names):
        return fault
    for path in (folder / name for name in names):
        try:
            if path.is_file():
                json.loads(path.read_bytes())
        except ValueError:
            return f"{path.relative_to(folder)} is broken"
    return None


def _metadata(described: Any) -> dict[str, Any]:
    """Return our metadata from orbax's; orbax says nothing where its file is broken.

    Raises:
      UserError: A newer jmrec wrote it.
      ValueError: It is broken, or no jmrec wrote it.
    """
    custom = described.custom_metadata
    if not isinstance(custom, Mapping) or "metadata" not in custom:
        raise ValueError("its metadata are broken or not jmrec's")
    if custom.get("format", 1) > FORMAT:
        raise UserError(
            f"{described.path}: format {custom['format']} is of a newer jmrec, this one reads "
            f"format {FORMAT}; use the version that wrote it, or another --workdir."
        )
    return dict(custom["metadata"])


def _one_line(error: BaseException) -> str:
    """Return the first line of the first cause: orbax wraps what tensorstore says."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]


def save_params(path: str | os.PathLike[str], params: Any, metadata: Mapping[str, Any]) -> None:
    """Write the parameters of a finished stage, whole or not at all; older ones are replaced.

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
    side = target.with_name(f"{target.name}.tmp")
    # The name "params" lets the tree be any pytree, even a single array.
    ocp.save(
        side,
        {"params": params},
        overwrite=True,
        custom_metadata={"metadata": dict(metadata), "format": FORMAT},
    )
    if jax.process_index() == 0:
        write_manifest(side)
        replace_folder(side, target)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("jmrec parameters written")


def load_params(path: str | os.PathLike[str], abstract: Any = None) -> tuple[Any, dict[str, Any]]:
    """Read what ``save_params`` wrote.

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
        if fault := manifest_fault(source):
            raise ValueError(fault)
        described = ocp.metadata(source)
        metadata = _metadata(described)
        target = {"params": abstract}
        if abstract is None:
            target = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), described.metadata)
        params = ocp.load(source, target)["params"]
    except UserError:
        raise
    except Exception as error:  # orbax and tensorstore raise many kinds
        if reason := refusal(error):
            raise UserError(f"{source} can not be read ({reason}); mend that.") from error
        raise UserError(
            f"{source}: the parameters cannot be read ({_one_line(error)}); delete "
            f"{source.parent / 'stage.json'} and start jmrec run again: the stage makes them anew."
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


@dataclass(frozen=True)
class Recorded:
    """An array as a checkpoint describes it.

    Attributes:
      shape: Its shape.
      dtype: Its type; a typed PRNG key is recorded as uint32.
      mesh: Mesh axis -> size where it was saved from; {} where no mesh is recorded.
      spec: Per array axis, the mesh axis (or axes) that it was cut over, or None.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    mesh: dict[str, int]
    spec: tuple[Any, ...]


def list_checkpoints(directory: str | os.PathLike[str]) -> dict[int, float | None]:
    """Return step -> score (None without) of the whole checkpoints; nothing on disk is changed."""
    with ocp.training.Checkpointer(Path(directory).absolute()) as checkpointer:
        return {
            found.step: found.metrics["score"] if found.metrics else None
            for found in checkpointer.checkpoints
        }


def describe(
    path: str | os.PathLike[str],
) -> tuple[dict[str, Recorded], dict[str, Any], str]:
    """Describe what ``save_params`` or ``Checkpoints.save`` wrote, without reading its arrays.

    No device of the mesh that it was saved from is needed.

    Args:
      path: The folder of the parameters, or of one step.

    Returns:
      (path in the tree such as "params/embed" -> its record, metadata, when it was written).

    Raises:
      UserError: It cannot be read.

    Example:
      >>> import tempfile
      >>> path = Path(tempfile.mkdtemp()) / "params"
      >>> save_params(path, {"w": np.ones((2, 3), np.float32)}, {"stage": "student"})
      >>> arrays, metadata, _ = describe(path)
      >>> arrays["params/w"].shape, arrays["params/w"].spec, metadata
      ((2, 3), (), {'stage': 'student'})
    """
    source = Path(path).absolute()
    try:
        described = ocp.metadata(source)
        leaves = jax.tree_util.tree_flatten_with_path(described.metadata)[0]
        arrays = {_name(place): _recorded(leaf) for place, leaf in leaves}
        written = described.commit_timestamp
        return arrays, _metadata(described), str(written or "")[:19]
    except Exception as error:  # orbax and tensorstore raise many kinds
        raise _unreadable(source, error) from error


def read_arrays(path: str | os.PathLike[str], names: Iterable[str]) -> dict[str, np.ndarray]:
    """Read some arrays of a checkpoint, whatever mesh they were saved from.

    Args:
      path: As for ``describe``.
      names: Paths in the tree, from ``describe``.

    Returns:
      Name -> array.

    Raises:
      UserError: They cannot be read.
    """
    source, wanted = Path(path).absolute(), set(names)

    def target(place: Any, leaf: Any) -> Any:
        return np.empty(leaf.shape, leaf.dtype) if _name(place) in wanted else ocp.PLACEHOLDER

    try:
        tree = jax.tree_util.tree_map_with_path(target, ocp.metadata(source).metadata)
        found = jax.tree_util.tree_flatten_with_path(ocp.load(source, tree))[0]
    except Exception as error:  # orbax and tensorstore raise many kinds
        raise _unreadable(source, error) from error
    return {_name(place): np.asarray(leaf) for place, leaf in found if _name(place) in wanted}


def _name(place: Any) -> str:
    return jax.tree_util.keystr(place, simple=True, separator="/")


def _recorded(leaf: Any) -> Recorded:
    sharding = getattr(leaf, "sharding_metadata", None)  # numpy arrays have none
    named = hasattr(sharding, "partition_spec")
    mesh = zip(sharding.axis_names, sharding.shape) if named else ()
    return Recorded(
        tuple(leaf.shape),
        np.dtype(leaf.dtype),
        {str(axis): int(size) for axis, size in mesh},
        tuple(sharding.partition_spec) if named else (),
    )


def _unreadable(source: Path, error: Exception) -> UserError:
    return UserError(
        f"{source} cannot be read ({_one_line(error)}); it is damaged or no checkpoint of jmrec, "
        "name another."
    )
