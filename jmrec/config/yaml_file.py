"""Overrides from a YAML file: ``--overrides more.yaml``, beside ``--config.name=value``."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from jmrec.config.compare import flatten
from jmrec.config.load import override_words, resolve_path
from jmrec.errors import UserError

OVERRIDE = "override"
"""Where a value is from that is no file's: ``--config.name=value``, or an argument from Python."""
MOST_BYTES = 2**20
"""Of a file of settings; what is larger is something else."""


def read_overrides(path: str | Path) -> dict[str, Any]:
    """Read settings from a YAML file.

    Args:
      path: Of the file: a mapping of settings to values, nested by groups or with dotted names.

    Returns:
      Dotted name -> plain value, as `jmrec.config.load.override_words` takes it. Whether there is
      such a setting is not looked at.

    Raises:
      UserError: The file is not there, is no such YAML, or names a setting twice.

    Example:
      >>> import pathlib, tempfile
      >>> path = pathlib.Path(tempfile.mkdtemp()) / "more.yaml"
      >>> _ = path.write_text("seed: 3\\nstudent:\\n  train: {steps: 50}\\n")
      >>> read_overrides(path)
      {'seed': 3, 'student.train.steps': 50}
    """
    found = resolve_path(path)
    if not found.is_file():
        raise UserError(f"there is no file of overrides {path}; name one that exists.")
    if found.stat().st_size > MOST_BYTES:
        raise UserError(f"{path} is larger than a file of overrides can be; name another.")
    try:
        return _values(found.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no text in UTF-8; save it as such.") from error
    except RecursionError as error:
        raise UserError(f"{path} is nested too deeply; write settings as name: value.") from error
    except (UserError, ValueError) as error:  # of a date that does not exist
        raise UserError(f"{path}: {str(error).rstrip('.')}.") from error


def overridden(words: Sequence[str]) -> list[str]:
    """Return the names of the settings that overrides set.

    Args:
      words: As the command line has them; see `jmrec.config.load.load_config`.

    Example:
      >>> overridden(["--config.seed=3", "--config.data.dir", "shop", "--noconfig.deterministic"])
      ['seed', 'data.dir', 'deterministic']
    """
    found = (re.match(r"--?(?:no)?config\.([^=\s]+)", word) for word in words)
    return [each[1] for each in found if each is not None]


def _values(text: str) -> dict[str, Any]:
    """Return the settings of a YAML text; see `read_overrides`."""
    try:
        top = yaml.compose(text, Loader=yaml.SafeLoader)
        if top is None:
            return {}
        names = [name for name, _ in _named(top)]
        values = flatten(yaml.safe_load(text))
    except TypeError as error:
        raise UserError(f"{error}; give numbers, texts, or lists of them.") from error
    except (yaml.YAMLError, AttributeError) as error:  # PyYAML's answer to !!timestamp x
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        problem = getattr(error, "problem", None) or "something in it can not be read"
        raise UserError(f"{where}this is no YAML, for {problem}; mend it.") from error
    if twice := sorted(name for name, count in Counter(names).items() if count > 1):
        raise UserError(f"{twice[0]} stands there twice; drop one.")
    override_words(values)
    return values


def _named(top: yaml.Node) -> Iterator[tuple[str, yaml.Node]]:
    """Yield the dotted name and the node of each value.

    Raises:
      UserError: It is no mapping of names, or something is written once and meant twice.
    """
    pending, seen = [("", top)], set[int]()
    while pending:
        group, node = pending.pop()
        if not isinstance(node, yaml.MappingNode):
            raise UserError("this is no list of settings; write them as name: value.")
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode) or key.tag.endswith(":merge"):
                raise UserError(f"line {line}: this is no name of a setting; write one.")
            if id(value) in seen:
                raise UserError(f"line {line}: an alias; write the value itself.")
            seen.add(id(value))
            name = f"{group}{key.value}"
            if isinstance(value, yaml.MappingNode) and value.value:
                pending.append((f"{name}.", value))
            else:
                yield name, value
