"""What the functions and the commands share: how an experiment is started, how errors are said."""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from jmrec.errors import UserError, explain

Given = ParamSpec("Given")
Found = TypeVar("Found")
PathLike = str | os.PathLike[str]
Overrides = Mapping[str, Any] | Sequence[str]
"""Dotted setting -> value; or words as the command line has them."""


def in_words(function: Callable[Given, Found]) -> Callable[Given, Found]:
    """Return a function that raises what a command would answer by a sentence as a UserError.

    Example:
      >>> @in_words
      ... def read():
      ...     raise PermissionError(13, "Permission denied", "items.csv")
      >>> read()
      Traceback (most recent call last):
      ...
      jmrec.errors.UserError: items.csv: Permission denied; mend that and start the same command \
    again: what was finished is kept.
    """

    @wraps(function)
    def worded(*args: Given.args, **kwargs: Given.kwargs) -> Found:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            known = None if isinstance(error, UserError) else explain(error)
            if known is None:
                raise
            raise UserError(known[1]) from error

    return worded


def check_finished(workdir: Path) -> None:
    """Refuse a workdir without a finished run, before anything is imported or made there.

    Raises:
      UserError: There is none.
    """
    if not workdir.is_dir():
        raise UserError(
            f"{workdir} is no folder: there is no finished run; name the workdir of one."
        )
    if not (workdir / "config.json").is_file():
        raise UserError(f"{workdir} holds no finished run; make one with jmrec run.")


def start(
    experiment: str,
    workdir: Path,
    overrides: Overrides | None = None,
    *,
    origins: int = 1,
    only: Sequence[str] | None = None,
    sources: Mapping[str, str] | None = None,
    **how: Any,
) -> None:
    """Run an experiment as `jmrec run` does.

    Args:
      experiment: See `run`.
      workdir: See `run`.
      overrides: See `run`.
      origins: How many test windows; see `jmrec.systems.rolling.roll`.
      only: Of the rows that it trains, those that are to be trained; None is all.
      sources: Setting that is overridden -> where its value is from; None: all are from here.
      **how: Of `jmrec.systems.registry.run`.
    """
    from jmrec.config import OVERRIDE, load_config, only_rows, overridden, override_words

    if origins != 1 and how.pop("share", False):
        raise UserError("--share goes without --origins: no two windows have a stage in common.")
    words = override_words(overrides)
    config = load_config(experiment, words)  # a slip needs no models to be seen
    if only:
        config = only_rows(config, only)
    from jmrec.systems import registry
    from jmrec.xla import set_deterministic

    if config.get("deterministic", False):
        set_deterministic()  # before anything starts a device
    if sources is None:
        sources = dict.fromkeys(overridden(words), OVERRIDE)
    how["given"] = {"experiment": experiment, "settings": dict(sorted(sources.items()))}
    command = ["jmrec", "run", "--config", experiment, *words, "--workdir", str(workdir)]
    command += [f"--only={','.join(only)}"] if only else []
    if origins == 1:
        registry.run(config, workdir, command=command, **how)
    else:
        from jmrec.systems.rolling import roll

        roll(config, workdir, origins, command=[*command, f"--origins={origins}"], **how)
