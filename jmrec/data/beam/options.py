"""Where pipelines run, in the words of the command line; Beam is not imported here."""

import importlib.util
import re
from collections.abc import Sequence
from dataclasses import dataclass

from jmrec.errors import UserError

RUNNERS = {
    "direct": "this machine",
    "dataflow": "Google Cloud Dataflow",
    "flink": "Apache Flink",
    "spark": "Apache Spark",
}
"""Name of a runner -> where it runs."""
_OPTION = re.compile(r"(?:--)?([A-Za-z][A-Za-z0-9_]*)(?:=(.*))?", re.DOTALL)
_OURS = ("runner", "streaming", "save_main_session")


class StoppedError(UserError):
    """A pipeline did not come to its end; what others have finished stays."""


@dataclass(frozen=True)
class Runner:
    """Where pipelines run.

    Attributes:
      name: One of `RUNNERS`.
      options: Further options of Beam, each as on its command line: ``--project=mine``.
      staging: A folder for the files between workers and the one that starts them, of any file
        system that Beam knows; "" for one beside the result.
    """

    name: str = "direct"
    options: tuple[str, ...] = ()
    staging: str = ""


def read_runner(name: str, options: Sequence[str] = (), staging: str = "") -> Runner:
    """Check where pipelines shall run.

    Args:
      name: One of `RUNNERS`.
      options: Each ``key=value``, or ``key`` alone for a switch.
      staging: See `Runner`.

    Raises:
      UserError: a name that is none, an option that can not be one, or Beam is not installed.

    Example:
      >>> read_runner("direct", ["direct_num_workers=4"]).options
      ('--direct_num_workers=4',)
    """
    if name not in RUNNERS:
        raise UserError(f"--runner is {name[:40]!r}; give one of {', '.join(RUNNERS)}.")
    flags = []
    for option in options:
        found = _OPTION.fullmatch(option)
        if not found:
            raise UserError(
                f"--runner-option is {option[:80]!r}; write key=value, with a key of Beam's "
                "pipeline options."
            )
        if found[1] in _OURS:
            raise UserError(f"--runner-option {found[1]} is set by jmrec; leave it out.")
        flags.append(f"--{found[1]}" + ("" if found[2] is None else f"={found[2]}"))
    if name == "dataflow" and "://" not in staging:
        raise UserError("--runner=dataflow needs --staging gs://BUCKET/FOLDER; add it.")
    if importlib.util.find_spec("apache_beam") is None:
        raise UserError("--runner needs Apache Beam; pip install 'jmrec[beam]'.")
    return Runner(name, tuple(flags), staging)
