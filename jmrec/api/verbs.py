"""`jmrec.load_folder`, `prepare`, `run` and `open`."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from jmrec.api.finished import Run
from jmrec.api.start import Overrides, PathLike, in_words, start
from jmrec.errors import UserError

if TYPE_CHECKING:  # jax and seconds: not to import jmrec
    from jmrec.data.schema import Dataset


@in_words
def load_folder(
    folder: PathLike, toml: PathLike | None = None, *, strict: bool = False, sessions: bool = True
) -> "Dataset":
    """Read and check a catalogue folder, as `jmrec data check` does; nothing is written.

    Args:
      folder: With a table of items, a table of interactions and a dataset.toml.
      toml: A description in place of dataset.toml.
      strict: Whether any fault of a row is an error; else such rows are left out, with a warning.
      sessions: Whether sessions are made; without, the data set is its rows with labels.

    Returns:
      The data set: its catalogue, and its sessions in three splits by time.

    Raises:
      UserError: One sentence that names file, row and remedy.

    Example:
      >>> import jmrec, tempfile
      >>> from jmrec.data.toyshop import ToyShopConfig, write_toyshop
      >>> shop = tempfile.mkdtemp() + "/shop"
      >>> write_toyshop(shop, ToyShopConfig(items=60, sessions=100))
      >>> dataset = jmrec.load_folder(shop)
      >>> len(dataset.items), {name: len(each) for name, each in dataset.splits.items()}
      (60, {'train': 80, 'validation': 10, 'test': 10})
    """
    from jmrec.config import resolve_path
    from jmrec.data.folder import read_folder
    from jmrec.data.prepared import build
    from jmrec.terminal import warn

    raw = read_folder(
        Path(folder), None if toml is None else resolve_path(Path(toml)), strict=strict
    )
    dataset = build(raw, sessions=sessions)
    for warning in raw.warnings:
        warn(warning)
    return dataset


@in_words
def prepare(
    experiment: PathLike,
    workdir: PathLike,
    overrides: Overrides | None = None,
    *,
    quiet: bool = False,
) -> "Dataset":
    """Prepare the data of an experiment and train nothing; `run` in the same workdir goes on.

    Args:
      experiment: See `run`.
      workdir: See `run`.
      overrides: See `run`.
      quiet: See `run`.

    Returns:
      The prepared data set, which can be loaded by `jmrec.data.prepared.load_prepared` too.

    Raises:
      UserError: As `run`.

    Example:
      >>> import jmrec, tempfile
      >>> small = {"data.toyshop.n_items": 60, "data.toyshop.sessions": 100}
      >>> dataset = jmrec.prepare("session:size=tiny", tempfile.mkdtemp(), small, quiet=True)
      >>> dataset.name, len(dataset.splits["train"])
      ('toyshop', 80)
    """
    _begin(experiment, workdir, overrides, quiet=quiet, last="data")
    from jmrec.data.prepared import load_prepared

    return load_prepared(Path(workdir) / "data" / "prepared")


@in_words
def run(
    experiment: PathLike,
    workdir: PathLike,
    overrides: Overrides | None = None,
    *,
    resume: str = "auto",
    stale: str = "stop",
    data: str = "compare",
    quiet: bool = False,
) -> "Run":
    """Run every stage of an experiment; called again, it goes on where it stopped.

    It is `jmrec run`: the same checks before anything starts, the same lock on the workdir, the
    same bytes of results.json. While something trains, SIGTERM and Ctrl-C save first, then raise
    `jmrec.errors.Preempted` and KeyboardInterrupt; at other times they are Python's own, and what
    was finished is kept. A run of several processes is the command's alone.

    Args:
      experiment: The name of one that comes with jmrec or the path of one, with arguments after a
        colon: "tpad:data=folder,size=tiny".
      workdir: Where everything is written; made where it is missing.
      overrides: Dotted setting -> value, such as {"data.dir": "SHOP", "seeds": (0, 1, 2)}.
      resume: "auto", or "never", which refuses a workdir that is not empty.
      stale: What is done with a stage that was made with other settings: "stop" or "rerun".
      data: What is done with a folder that was prepared before: "compare" it and stop where it has
        changed, go on "as-prepared", or "continue" with what is new.
      quiet: Whether nothing is printed; else progress and warnings go to standard error.

    Returns:
      The finished run.

    Raises:
      UserError: A setting or the data is wrong, or another process holds the workdir.
    """
    _begin(experiment, workdir, overrides, resume=resume, stale=stale, data=data, quiet=quiet)
    return Run(Path(workdir))


def _begin(
    experiment: PathLike,
    workdir: PathLike,
    overrides: Overrides | None,
    *,
    resume: str = "auto",
    stale: str = "stop",
    data: str = "compare",
    quiet: bool = False,
    last: str = "",
) -> None:
    """Check what the parser checks of a command, then `start`."""
    from jmrec.cluster.settings import read_settings
    from jmrec.config import choose
    from jmrec.terminal import console
    from jmrec.xla import set_up

    choose("resume", resume, ("auto", "never"))
    choose("stale", stale, ("stop", "rerun"))
    choose("data", data, ("compare", "as-prepared", "continue"))
    if read_settings() is not None:
        raise UserError(
            "a run of several processes is started by jmrec run and not from Python; leave the "
            "variables JMREC_... away, or use the command."
        )
    set_up()
    start(
        os.fspath(experiment), Path(workdir), overrides, resume=resume, stale=stale, data=data,
        last=last, prints=False, console=console(stderr=True, quiet=quiet),
    )  # fmt: skip


@in_words
def open(workdir: PathLike) -> "Run":
    """Open a finished run, whoever made it.

    Args:
      workdir: Of the run.

    Raises:
      UserError: There is none, an older jmrec made it, or its files were changed.
    """
    return Run(Path(workdir))
