"""The checkpoints of one run."""

import json
import logging
import os
import shutil
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from orbax.checkpoint import v1 as ocp

from jmrec.checkpoint.metadata import FORMAT, check_metadata, one_line, own_metadata
from jmrec.checkpoint.params import saving
from jmrec.errors import UserError, refusal
from jmrec.files import MANIFEST, manifest_fault, write_manifest

log = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints of one run: the last few and the best.

    Args:
      directory: Their folder, with one folder a step; made where it is missing.
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
            context=saving(),
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
        if jax.process_index() == 0:
            with suppress(OSError):  # which the save itself will say
                self._sealing(step).touch()
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
            self._checksums(step)
            shutil.rmtree(self.directory / f"{step}.replaced", ignore_errors=True)

    def _checksums(self, step: int) -> None:
        """Add a checkpoint's checksums, which makes it whole."""
        write_manifest(self.directory / str(step))
        self._sealing(step).unlink(missing_ok=True)

    def _sealing(self, step: int) -> Path:
        """Return the file that is there while a checkpoint may still be without checksums."""
        return self.directory / f"{step}.sealing"

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
            with suppress(OSError):
                self._sealing(step).unlink(missing_ok=True)
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
        reasons: list[str] = []
        for candidate in candidates:
            try:
                if fault := self._fault(candidate):
                    raise ValueError(fault)
                metadata = own_metadata(self._checkpointer.metadata(candidate))
                if expected is not None:
                    check_metadata(metadata, expected)
                state = self._checkpointer.load(candidate, abstract_state)
                if jax.process_index() == 0 and self._sealing(candidate).is_file():
                    self._checksums(candidate)  # which a kill left out
            except UserError:
                raise
            except Exception as error:  # orbax and tensorstore raise many kinds
                if refused := refusal(error):
                    raise UserError(
                        f"{self.directory / str(candidate)} can not be read ({refused}); mend "
                        "that and start the same command again."
                    ) from error
                reasons.append(f"{candidate}: {one_line(error)}")
                damaged.append(candidate)
                continue
            if damaged:
                self._set_aside(damaged, candidate, "; ".join(reasons))
            return state, metadata
        if not candidates:
            raise UserError(f"{self.directory}: there is no checkpoint; train first.")
        raise UserError(
            f"{self.directory}: no checkpoint of step {', '.join(map(str, candidates))} can be "
            f"read ({'; '.join(reasons)}); move the folder away to start again."
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
        checkpoint whose description is damaged is set aside: orbax reads them all at once. What
        was begun when a kill came, and is not there, is forgotten.
        """
        if jax.process_index() == 0:
            for begun in self.directory.glob("*.sealing"):
                if not begun.with_suffix("").exists():
                    begun.unlink()
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
            folder = self.directory / str(step)
            fault = manifest_fault(folder) or ""
            # Only where a kill came between the last byte and the checksums they are not there.
            if not (folder / MANIFEST).is_file() and not self._sealing(step).is_file():
                fault = f"{MANIFEST} is missing"
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
