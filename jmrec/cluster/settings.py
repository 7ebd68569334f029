"""How a process learns of its cluster: from the environment, and only where it says so."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from jmrec.errors import UserError

EXPLICIT = ("JMREC_COORDINATOR", "JMREC_PROCESSES", "JMREC_PROCESS")
AUTO = "JMREC_CLUSTER"
SILENCE = "JMREC_SILENCE"
KEPT = "JMREC_KEEPER"
"""Set by the keeper for its child: the number of the socket between them."""


@dataclass(frozen=True)
class Settings:
    """A process's place in its cluster.

    Attributes:
      coordinator: "host:port" of process 0; None where JAX finds out (SLURM, Cloud TPU,
        Kubernetes with the package ``kubernetes``).
      processes, process: How many there are, and which this is; None likewise.
      silence: Seconds after which a process that gives no sign of life counts as gone.
    """

    coordinator: str | None
    processes: int | None
    process: int | None
    silence: float = 30.0


def _number(environment: Mapping[str, str], name: str, least: float) -> float:
    try:
        value = float(environment[name])
    except ValueError:
        value = least - 1
    if value < least:
        raise UserError(f"{name}={environment[name]} is no number of {least:g} or more; mend it.")
    return value


def read_settings(environment: Mapping[str, str] = os.environ) -> Settings | None:
    """Return this process's place in a cluster, None where the run has one process.

    Args:
      environment: ``JMREC_COORDINATOR=host:port``, ``JMREC_PROCESSES=2``, ``JMREC_PROCESS=0`` say
        it outright; ``JMREC_CLUSTER=auto`` lets JAX find out. ``JMREC_SILENCE`` is the number of
        seconds after which a silent process counts as gone (default 30).

    Raises:
      UserError: The variables contradict each other or are not complete.

    Example:
      >>> read_settings({}) is None
      True
      >>> read_settings({"JMREC_COORDINATOR": "a:1", "JMREC_PROCESSES": "2", "JMREC_PROCESS": "1"})
      Settings(coordinator='a:1', processes=2, process=1, silence=30.0)
    """
    silence = _number(environment, SILENCE, 5) if SILENCE in environment else 30.0
    automatic = environment.get(AUTO, "")
    if automatic not in ("", "auto"):
        raise UserError(f"{AUTO}={automatic} is not understood; say auto, or leave it away.")
    present = [name for name in EXPLICIT if environment.get(name)]
    if automatic and present:
        raise UserError(f"{AUTO}=auto and {present[0]} are both set; leave one of them away.")
    if automatic:
        return Settings(None, None, None, silence)
    if not present:
        return None
    missing = [name for name in EXPLICIT if name not in present]
    if missing:
        raise UserError(f"{present[0]} is set and {missing[0]} is not; set all of them, or none.")
    processes = int(_number(environment, "JMREC_PROCESSES", 1))
    process = int(_number(environment, "JMREC_PROCESS", 0))
    if process >= processes:
        raise UserError(
            f"JMREC_PROCESS={process} is not below JMREC_PROCESSES={processes}; count from 0."
        )
    coordinator = environment["JMREC_COORDINATOR"]
    if not coordinator.rpartition(":")[2].isdigit():
        raise UserError(f"JMREC_COORDINATOR={coordinator} has no port; say HOST:PORT.")
    return None if processes == 1 else Settings(coordinator, processes, process, silence)
