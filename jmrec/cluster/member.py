"""A process among others: joins them, waits for what the first does alone, sees who is gone.

Every process runs the same program. What they compute together goes through jax; this module is
for the rest, by the key-value board of jax's coordination service, which lives in process 0. Each
process says on the board every second that it lives. One that has been silent too long is gone,
and then all others end with the same sentence and exit code, wherever they are: a collective that
misses a partner may hang for ever. One that ends for a reason of its own tells the others likewise.
"""

import json
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import jax
from jax._src import distributed  # the board: jax has no public door to it

from jmrec.cluster.settings import AUTO, EXPLICIT, KEPT, Settings
from jmrec.errors import REQUEUE, Interrupted, Preempted, UserError
from jmrec.preemption import look
from jmrec.terminal import complain

BEAT = 1.0
"""Seconds between signs of life."""
JOIN_SECONDS = 300
LAST_WORDS = 90
"""Seconds that the others give the first process to write what it must after a SIGTERM."""
BOARD = "jmrec/watch/"
END, BYE = "end", "bye"
BROKEN = 1

_watch: "_Watch | None" = None
_asked = _met = 0
_alone = False


def is_first() -> bool:
    """Return whether this process writes the files, talks to W&B and prints."""
    return _watch is None or _watch.process == 0


def first(work: Callable[[], Any]) -> Any:
    """Let the first process work alone and return its result in all of them.

    All processes must call this, in the same order. Where there is only one, it is a plain call.

    Args:
      work: Called in process 0; the others wait, however long it takes, and see its files then.

    Returns:
      What ``work`` returned, through JSON where there are several processes.

    Example:
      >>> first(lambda: {"done": True})
      {'done': True}
    """
    global _asked, _alone
    if _watch is None or _alone:
        return work()
    _asked += 1
    key = f"jmrec/said/{_asked}"
    if _watch.process == 0:
        _alone = True
        try:
            value = work()
        finally:
            _alone = False
        _watch.client.key_value_set(key, json.dumps(value))
        return value
    return json.loads(_wait_for(key))


def place() -> tuple[int, int]:
    """Return (process, processes) for work that all processes share: each does its own part.

    Where one process works alone, the first within `first` too, it is (0, 1).

    Example:
      >>> place()
      (0, 1)
    """
    return (0, 1) if _watch is None or _alone else (_watch.process, _watch.processes)


def meet() -> None:
    """Wait until all processes are here: each then sees the files that the others wrote.

    Example:
      >>> meet()
    """
    global _met
    process, processes = place()
    if processes == 1:
        return
    assert _watch is not None
    _met += 1
    _watch.client.key_value_set(f"jmrec/met/{_met}/{process}", "here")
    for other in range(processes):
        _wait_for(f"jmrec/met/{_met}/{other}")


def _wait_for(key: str) -> str:
    """Return what stands on the board under a key, once it does."""
    assert _watch is not None
    while True:
        try:
            return str(_watch.client.blocking_key_value_get(key, 1_000))
        except Exception as error:  # jaxlib has one class for all
            if "DEADLINE_EXCEEDED" not in str(error):
                raise
            look()


def together(
    settings: Settings,
    work: Callable[[], None],
    explain: Callable[[BaseException], tuple[int, str] | None],
) -> int:
    """Join the cluster, work, and leave it together with the others.

    Args:
      settings: This process's place.
      work: What to do.
      explain: An exception -> (exit code, sentence), None for a bug.

    Returns:
      0. Where anything goes wrong anywhere the process ends here, with the exit code of what went
      wrong first, and process 0 says what it was.

    Raises:
      Preempted: The processes did not come together.
      UserError: jax finds no cluster.
    """
    watch = _join(settings)
    try:
        work()
        watch.client.wait_at_barrier("jmrec/done", 600_000)
    except BaseException as error:
        known = explain(error)
        if not isinstance(error, Preempted | KeyboardInterrupt):
            watch.settle()
        if known is None:
            traceback.print_exc()
            kind = type(error).__name__
            known = BROKEN, f"process {watch.process} failed ({kind}); its traceback says where."
        elif watch.process and isinstance(error, Exception):
            known = known[0], f"process {watch.process}: {known[1]}"
        if isinstance(error, Preempted | Interrupted) and watch.process:
            # All were stopped. The first has more to write, and ends the others when it is done.
            time.sleep(LAST_WORDS)
        watch.end(*known)
    watch.stop()
    jax.distributed.shutdown()
    return 0


def _join(settings: Settings) -> "_Watch":
    """Come together with the other processes; nothing may have touched a device before."""
    global _watch
    _tell({"waited": JOIN_SECONDS})
    explicit = settings.coordinator is not None
    # It would take SIGTERM for itself, and nobody here asks it.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            coordinator_address=settings.coordinator,
            num_processes=settings.processes,
            process_id=settings.process,
            cluster_detection_method="deactivate" if explicit else None,
            initialization_timeout=JOIN_SECONDS,
            # Ours comes first: jax aborts.
            heartbeat_timeout_seconds=int(max(100, 4 * settings.silence)),
            shutdown_timeout_seconds=30,
        )
    except ValueError as error:  # what jax was given, or found, is not enough
        raise UserError(
            f"jax finds no cluster here ({_first_line(error)}); set {', '.join(EXPLICIT)}, or "
            f"leave {AUTO} away."
        ) from error
    except Exception as error:
        reason = _first_line(error)
        raise Preempted(
            f"The processes of this run did not come together ({reason}); look that all were "
            "started and reach each other."
        ) from error
    state = distributed.global_state
    place = {
        "process": state.process_id,
        "processes": state.num_processes,
        "coordinator": state.coordinator_address,
    }
    _tell(place)
    if state.process_id:
        logging.getLogger("jmrec").setLevel(logging.ERROR)
    _watch = _Watch(state.client, state.process_id, state.num_processes, settings.silence)
    _watch.start()
    return _watch


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:200]


def _tell(place: Mapping[str, Any]) -> None:
    """Tell the keeper, and end when it does."""
    if KEPT not in os.environ:
        return
    number = int(os.environ[KEPT])
    os.write(number, json.dumps(place).encode() + b"\n")
    if "process" not in place:
        threading.Thread(target=_end_with_keeper, args=(number,), daemon=True).start()


def _end_with_keeper(number: int) -> None:
    with suppress(OSError):  # a reset is an end too
        while os.read(number, 1):
            pass
    os._exit(REQUEUE)


class _Watch(threading.Thread):
    """Says that this process lives, and looks whether the others do."""

    def __init__(self, client: Any, process: int, processes: int, silence: float) -> None:
        super().__init__(name="watch", daemon=True)
        self.client, self.process, self.processes = client, process, processes
        self._silence = silence
        self._beats: dict[int, tuple[str, float]] = {}
        self._stopped, self._ending = threading.Event(), threading.Lock()

    def run(self) -> None:
        """Beat and look, once a second."""
        count, answered = 0, time.monotonic()
        while not self._stopped.wait(BEAT):
            count += 1
            try:
                self._say(str(count))
                board = self._board()
            except Exception:
                if time.monotonic() - answered > self._silence:
                    self._leave(REQUEUE, self._gone([0]))
                continue
            answered = now = time.monotonic()
            if END in board:
                self._leave(**json.loads(board[END]))
            for other in range(self.processes):
                beat = board.get(str(other), "")
                if other not in self._beats or self._beats[other][0] != beat:
                    self._beats[other] = beat, now
            silent = [p for p, (_, at) in self._beats.items() if now - at > self._silence]
            if silent and not self._stopped.is_set():
                self.end(REQUEUE, self._gone(silent))

    def stop(self) -> None:
        """Beat no more."""
        self._stopped.set()
        self.join()

    def settle(self) -> None:
        """Return once every other process has given a new sign of life.

        What went wrong here may only be the echo of a process that is gone. Then this does not
        return: the watch ends the process.
        """
        others = [process for process in range(self.processes) if process != self.process]
        for _ in range(2):
            before = {process: self._beats.get(process) for process in others}
            while any(self._beats.get(process) == before[process] for process in others):
                time.sleep(BEAT / 4)

    def end(self, code: int, sentence: str) -> None:
        """End all processes; what was said first counts."""
        try:
            self.client.key_value_set(
                BOARD + END, json.dumps({"code": code, "sentence": sentence}), allow_overwrite=False
            )
        except Exception:
            try:
                said = json.loads(self._board()[END])
                code, sentence = said["code"], said["sentence"]
            except Exception:
                code, sentence = REQUEUE, self._gone([0])
        self._leave(code, sentence)

    def _gone(self, processes: list[int]) -> str:
        names = ", ".join(str(process) for process in processes)
        verb = "is" if len(processes) == 1 else "are"
        return (
            f"process {names} of {self.processes} {verb} gone; start the same command again, in "
            "all processes, to go on."
        )

    def _leave(self, code: int, sentence: str) -> None:
        """End this process; process 0 last, because the board is in it."""
        with self._ending:  # never left: the other thread waits here for the end
            if self.process == 0 or sentence == self._gone([0]):
                complain(sentence)
            now = time.monotonic()
            lively = [p for p, (_, at) in self._beats.items() if p and now - at < 5]
            try:
                self._say(BYE)
                while self.process == 0 and time.monotonic() < now + 10:
                    board = self._board()
                    if all(board.get(str(process)) == BYE for process in lively):
                        break
                    time.sleep(BEAT / 4)
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)

    def _say(self, value: str) -> None:
        self.client.key_value_set(f"{BOARD}{self.process}", value, allow_overwrite=True)

    def _board(self) -> dict[str, str]:
        pairs = self.client.key_value_dir_get(BOARD)
        return {key.removeprefix(BOARD): value for key, value in pairs}
