"""Reading an experiment file and laying the command line's overrides over it."""

import ast
import inspect
import keyword
import os
import re
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from jmrec.config.arguments import NONE_WORDS, hint, nearest_paths, split
from jmrec.config.hyper import Overrides, checked
from jmrec.config.rows import check_counts
from jmrec.errors import UserError

OPEN = "options"
"""The name of groups that take any field: what reads them knows the fields and their types."""
PACKAGE = Path(__file__).resolve().parents[1]
INSTALLED = (PACKAGE / "experiments").is_dir()
"""Whether this is an installed copy, which holds the experiments inside; a checkout has them beside
the package."""
EXPERIMENTS = (PACKAGE if INSTALLED else PACKAGE.parent) / "experiments"
FOLDER = "jmrec_experiments"
"""What the folder of an experiment file is called while the file is run."""


def resolve_path(path: str | Path) -> Path:
    """Find a path that the user wrote: in the working folder first, then where jmrec comes from.

    Args:
      path: A path, absolute or relative.

    Returns:
      The first that exists of: the path itself; the path in the checkout or, where jmrec was
      installed without one, ``experiments/...`` as shipped. Where none does, the path as it was
      given.

    Example:
      >>> resolve_path("experiments/tpad.py").is_file()
      True
    """
    given = Path(path).expanduser()
    if given.is_absolute() or given.exists():
        return given
    if INSTALLED and given.parts[:1] != (EXPERIMENTS.name,):
        return given
    shipped = EXPERIMENTS.parent / given
    return shipped if shipped.exists() else given


def experiments() -> dict[str, Path]:
    """Return the experiments that come with jmrec, by their names.

    Example:
      >>> experiments()["tpad"].name
      'tpad.py'
    """
    return {
        path.stem: path
        for path in sorted(EXPERIMENTS.glob("*.py"))
        if "def get_config(" in path.read_text(encoding="utf-8")
    }


def load_config(spec: str, overrides: list[str] | tuple[str, ...] = ()) -> ConfigDict:
    """Run an experiment file and apply overrides to what it returns.

    Args:
      spec: ``name`` of an experiment that comes with jmrec, or ``path.py``, a relative one as in
        ``resolve_path``; with ``:arg`` behind it where ``get_config`` is to have an argument.
      overrides: ``--config.name=value`` (also ``--config.name value`` as two entries, and
        ``--config.flag``, ``--noconfig.flag`` for a bool). Values are checked against the type
        of the field. "none" empties a field that is optional (a ``placeholder`` or None).

    Returns:
      A locked ConfigDict of its own: loading twice shares nothing.

    Raises:
      UserError: If the file is not there or fails, a field is unknown or a value does not fit.
        A group whose name is "options" takes any field, and Python literals or text as values.

    Example:
      >>> import pathlib, tempfile
      >>> path = pathlib.Path(tempfile.mkdtemp()) / "x.py"
      >>> _ = path.write_text(
      ...     "from jmrec.config import ConfigDict, parse_arg\\n"
      ...     "def get_config(arg=None):\\n"
      ...     "    return ConfigDict({'seed': 0, 'size': parse_arg(arg, size='small').size})\\n")
      >>> load_config(f"{path}:size=tiny", ["--config.seed=3"]).to_dict()
      {'seed': 3, 'size': 'tiny'}
      >>> load_config(f"{path}", ["--config.sede=3"])
      Traceback (most recent call last):
      ...
      jmrec.errors.UserError: the configuration has no field "sede", did you mean "seed"?
    """
    path, arg = _split_spec(spec)
    config = _run_file(path, arg, "get_config")
    if not isinstance(config, ConfigDict):
        raise UserError(
            f"{path}: get_config must return a ConfigDict, not {type(config).__name__}."
        )
    values = _read_overrides(list(overrides), config)
    check_counts(config, values)
    return _apply(config, values)


def override_words(overrides: Mapping[str, Any] | Sequence[str] | None) -> list[str]:
    """Return overrides as the command line has them, which `load_config` reads.

    Args:
      overrides: Dotted setting -> value, as Python has it: a number, a text, a bool, None, a path,
        or a list of such; or words that are in this form already.

    Raises:
      UserError: A name is none, or a value is no such value.

    Example:
      >>> override_words({"student.train.steps": 8, "seeds": (0, 1), "data.toml": None})
      ['--config.student.train.steps=8', '--config.seeds=[0, 1]', '--config.data.toml=none']
    """
    if overrides is None:
        return []
    if not isinstance(overrides, Mapping):
        listed = isinstance(overrides, Sequence) and not isinstance(overrides, str)
        if not listed or not all(isinstance(word, str) for word in overrides):
            raise UserError(f'overrides are a dict, such as {{"seed": 1}}, and not "{overrides}".')
        return list(overrides)
    words = []
    for name, value in overrides.items():
        value = str(value) if isinstance(value, os.PathLike) else value
        value = checked(name, value, "is no value of a setting")
        text = "none" if value is None else str(value)
        words.append(f"--config.{name}={text.lower() if isinstance(value, bool) else text}")
    return words


def load_hyper(spec: str) -> list[Overrides]:
    """Run an experiment file and return the trials of its ``get_hyper``.

    Args:
      spec: As in ``load_config``; ``get_hyper`` may take the argument behind the colon, or none.

    Returns:
      One dict of overrides a trial, in order.

    Raises:
      UserError: If the file fails, has no ``get_hyper``, or returns anything but trials.

    Example:
      >>> load_hyper("tpad:size=tiny")[0]
      {'student.train.learning_rate': 0.001, 'student.train.weight_decay': 0.01}
    """
    path, arg = _split_spec(spec)
    trials = _run_file(path, arg, "get_hyper")
    if not isinstance(trials, list | tuple) or not trials:
        raise UserError(f"{path}: get_hyper must return a list with one trial or more.")
    for number, trial in enumerate(trials):
        if not isinstance(trial, dict):
            raise UserError(f"{path}: trial {number} of get_hyper is {trial!r:.60}, not a dict.")
    return [{name: checked(name, trial[name]) for name in trial} for trial in trials]


def _split_spec(spec: str) -> tuple[Path, str | None]:
    """Split ``name:arg`` or ``path.py:arg`` and find the file; a path has a slash or ends .py."""
    named = re.fullmatch(r"([^/:]+)(?::(.*))?", spec, flags=re.DOTALL)
    if named is not None and not named[1].endswith(".py"):
        known = experiments()
        if named[1] not in known:
            files = [each.name for each in Path().glob("*.py")]
            guess = hint(named[1], [*known, *files])
            rest = f"; there are {', '.join(known)}, and the path of a file ends in .py."
            raise UserError(f'no experiment "{named[1]}" comes with jmrec{guess or rest}')
        return known[named[1]], named[2]
    match = re.fullmatch(r"(.*?\.py)(?::(.*))?", spec, flags=re.DOTALL)
    if match is None:
        raise UserError(
            f'--config="{spec}" is no experiment file; it must look like '
            "tpad:size=tiny, experiments/tpad.py or experiments/tpad.py:size=tiny."
        )
    path = resolve_path(match[1])
    if not path.is_file():
        others = [str(each) for each in sorted(path.parent.glob("*.py"))]
        if not others and not path.is_absolute():
            others = [f"experiments/{name}.py" for name in experiments()]
        raise UserError(f'there is no experiment file "{match[1]}"{hint(str(path), others) or "."}')
    return path, match[2]


def _run_file(path: Path, arg: str | None, name: str) -> Any:
    """Run the file as a module of its own and call its function ``name``."""
    module = ModuleType(f"{FOLDER}.{path.stem}")
    module.__file__, module.__package__ = str(path), FOLDER
    try:
        # Not through an import: its bytecode goes by the second, and a sweep may be written again
        # within one.
        with _siblings(path.parent):
            exec(compile(path.read_bytes(), str(path), "exec"), vars(module))
        function = getattr(module, name, None)
        if not callable(function):
            why = "an experiment file" if name == "get_config" else "a sweep"
            raise UserError(f"{path} has no function {name}; {why} needs one.")
        takes_arg = bool(inspect.signature(function).parameters)
        if arg and not takes_arg and name == "get_config":
            raise UserError(f'{path} takes no argument; leave ":{arg}" away.')
        return function(arg) if takes_arg else function()
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{path}, line {_line(error, path)}: the experiment file fails with "
            f"{type(error).__name__}: {_one_line(error)}; mend the file."
        ) from error


@contextmanager
def _siblings(folder: Path) -> Iterator[None]:
    """Let a file of a folder import from its neighbours: ``from .common import stack``.

    The neighbours are read again as well, and nothing of them stays imported.
    """
    package = ModuleType(FOLDER)
    package.__path__ = [str(folder)]
    kept, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    # Of an experiment that loads another while it is read itself.
    outer = {name: sys.modules.pop(name) for name in _neighbours()}
    sys.modules[FOLDER] = package
    try:
        yield
    finally:
        sys.dont_write_bytecode = kept
        for name in _neighbours():
            del sys.modules[name]
        sys.modules.update(outer)


def _neighbours() -> list[str]:
    return [name for name in sys.modules if name.partition(".")[0] == FOLDER]


def _line(error: Exception, path: Path) -> int:
    """Return the last line of the file itself that the error went through."""
    if isinstance(error, SyntaxError):
        return error.lineno or 0
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    return (lines[-1] or 0) if lines else 0


def _read_overrides(overrides: list[str], config: ConfigDict) -> dict[str, str]:
    """Turn the command line's arguments into field -> text, with every field known."""
    values: dict[str, str] = {}
    arguments = iter(overrides)
    for argument in arguments:
        match = re.fullmatch(r"--?(no)?config\.([^=\s]+)(?:=(.*))?", argument, flags=re.DOTALL)
        if match is None:
            raise UserError(
                f'"{argument}" is not understood; a setting is written --config.name=value.'
            )
        negated, name, text = match.groups()
        default = _field(config, name)
        is_bool = config_type(config, name) is bool
        if negated and not is_bool:
            raise UserError(f"config.{name} is not a yes-or-no field; write --config.{name}=value.")
        if text is None and is_bool:
            text = "false" if negated else "true"
        elif text is None:
            text = next(arguments, None)
            if text is None or text.startswith("--"):
                raise UserError(f"--config.{name} needs a value: --config.{name}=value.")
        if isinstance(default, ConfigDict):
            inner = next(iter(default), "name")
            if name.rsplit(".", 1)[-1] == OPEN:
                inner = "NAME"
            raise UserError(
                f"config.{name} is a group of fields; set one of them, "
                f"like --config.{name}.{inner}=value."
            )
        values[name] = text
    return values


def _field(config: ConfigDict, name: str) -> Any:
    """Return a field's value by its dotted name, or say which field is nearest."""
    value: Any = config
    for depth, part in enumerate(parts := name.split(".")):
        if not isinstance(value, ConfigDict):
            group = ".".join(parts[:depth])
            raise UserError(f'config.{group} is a value and has no field "{part}".')
        if part not in value:
            if depth == len(parts) - 1 and parts[-2:-1] == [OPEN]:
                return None
            raise UserError(f'the configuration has no field "{name}"{_field_hint(config, name)}')
        value = value[part]
    return value


def _names(config: ConfigDict, prefix: str = "") -> list[str]:
    """Return the dotted names of all fields and groups."""
    names = []
    for name in config:
        names.append(prefix + name)
        if isinstance(config[name], ConfigDict):
            names += _names(config[name], f"{prefix}{name}.")
    return names


def _field_hint(config: ConfigDict, name: str) -> str:
    """Name the nearest fields, or else the groups."""
    guesses = [f'"{each}"' for each in nearest_paths(name, _names(config))]
    if not guesses:
        return f"; known at the top are {', '.join(config)}."
    *first, last = guesses
    return f", did you mean {', '.join(first)}{' or ' if first else ''}{last}?"


def config_type(config: ConfigDict, name: str) -> type:
    """Return the type that a field was declared with (NoneType where it is a bare None)."""
    *groups, last = name.split(".")
    for group in groups:
        config = config[group]
    return config.get_type(last) if last in config else type(None)


def _apply(config: ConfigDict, values: dict[str, str]) -> ConfigDict:
    """Set the fields through config_flags, which parses and checks by type."""
    plain: list[str] = []
    parsed: dict[str, Any] = {}
    for name, text in values.items():
        default, kind = _field(config, name), config_type(config, name)
        if default is None and text.lower() in NONE_WORDS:
            parsed[name] = None
        elif kind in (list, tuple) or isinstance(default, list | tuple):
            parsed[name] = _sequence(name, text, default)
        elif kind is type(None):  # a bare None may become anything
            parsed[name] = _literal(text)
        else:
            plain.append(f"--config.{_path(name)}={text}")
    # Flags of its own: nothing global is touched, and every call starts afresh.
    values_of_flags = flags.FlagValues()
    argv = ["jmrec", *plain]
    try:
        config_flags.DEFINE_config_dict(
            "config", config, flag_values=values_of_flags, sys_argv=argv
        )
    except flags.Error as error:
        raise UserError(
            f"{' '.join(plain)}: a field here cannot be set on the command line; "
            "set it in the experiment file."
        ) from error
    for argument in plain:
        # One at a time, so that the message names the field that does not fit.
        try:
            values_of_flags(["jmrec", argument])
        except (flags.Error, TypeError, ValueError, AttributeError, KeyError) as error:
            path, _, text = argument.removeprefix("--config.").partition("=")
            name = next(each for each in values if _path(each) == path)
            wanted = config_type(config, name).__name__
            raise UserError(
                f'--config.{name}="{text}" does not fit: the field is of type {wanted}'
                f"{_now(config, name)}."
            ) from error
    result: ConfigDict = values_of_flags["config"].value
    with result.unlocked():
        for name, value in parsed.items():
            *groups, last = name.split(".")
            group = result
            for each in groups:
                group = group[each]
            group[last] = value
    return result.lock()


def _path(name: str) -> str:
    """Return a dotted name as config_flags reads it: a part that is no Python name in brackets.

    Example:
      >>> _path("students.id-only.logit"), _path("features.from")
      ('students["id-only"].logit', 'features["from"]')
    """
    first, *others = name.split(".")
    plain = [each.isidentifier() and not keyword.iskeyword(each) for each in others]
    parts = (f".{each}" if ok else f'["{each}"]' for each, ok in zip(others, plain))
    return first + "".join(parts)


def _literal(text: str) -> Any:
    """Return what the text says as a Python literal, else the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return {"true": True, "false": False}.get(text, text)


def _unwrapped(text: str) -> str:
    """Return what stands in brackets, where they are around all of it.

    Example:
      >>> _unwrapped("(a,b)"), _unwrapped("x/(a|b)"), _unwrapped("(a),(b)")
      ('a,b', 'x/(a|b)', '(a),(b)')
    """
    text, depth = text.strip(), 0
    for place, letter in enumerate(text):
        depth += (letter in "([") - (letter in ")]")
        if depth == 0 and place < len(text) - 1:
            return text
    return text[1:-1] if text[:1] in ("(", "[") else text


def _sequence(name: str, text: str, default: Any) -> Any:
    """Parse ``(1, 2)`` or ``a,b`` and check the elements against the default's."""
    kind = type(default) if isinstance(default, list | tuple) else tuple
    value = _literal(text)
    if isinstance(value, str) and value == text:  # not a literal: words, with or without brackets
        value = [part.strip() for part in split(_unwrapped(text))]
    value = kind(value if isinstance(value, list | tuple) else [value])
    wanted = {type(each) for each in default or ()}
    if len(wanted) == 1:
        element = wanted.pop()
        if element is float:
            value = kind(float(each) if type(each) is int else each for each in value)
        if element is str:
            value = kind(each if isinstance(each, str) else str(each) for each in value)
        if any(type(each) is not element for each in value):
            raise UserError(
                f'--config.{name}="{text}" does not fit: the field holds values of type '
                f"{element.__name__} (it is {default})."
            )
    return value


def _now(config: ConfigDict, name: str) -> str:
    value = _field(config, name)
    return "" if value is None else f" (it is {value!r})"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
