"""The short argument behind the colon: ``experiments/x.py:data=folder,size=small``."""

import ast
import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar, overload

from ml_collections import ConfigDict

from jmrec.errors import UserError

T = TypeVar("T")

_TRUE = ("true", "1", "yes", "on")
_FALSE = ("false", "0", "no", "off")
LIKE, SHOWN = 0.6, 3
"""How like the last part of a name has to be to be meant, and how many names are shown."""
NONE_WORDS = ("none", "null", "")
"""How "no value" may be written for an optional field."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is most like ``name``, or None where none is like it.

    Args:
      name: What was typed.
      known: The names that exist.

    Returns:
      A member of ``known`` or None.

    Example:
      >>> nearest("siez", ["data", "size"])
      'size'
      >>> nearest("zzz", ["data", "size"]) is None
      True
    """
    known = list(known)
    found = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if not found:
        lower = {each.lower(): each for each in known}
        found = [lower[each] for each in difflib.get_close_matches(name.lower(), lower, n=1)]
    return found[0] if found else None


def nearest_paths(path: str, known: Iterable[str]) -> list[str]:
    """Return the dotted names that are most like one that was typed, by their last part first.

    A last part is also known by its initials ("lr" is learning_rate), and the groups that were
    typed are looked for among those of each name.

    Args:
      path: What was typed.
      known: The names that exist.

    Returns:
      None, one, or a few that are equally good (at most `SHOWN`), in the order of ``known``.

    Example:
      >>> known = ["student.train.learning_rate", "vision.train.learning_rate", "student.stack"]
      >>> nearest_paths("student.lr", known)
      ['student.train.learning_rate']
      >>> nearest_paths("learning_rat", known)
      ['student.train.learning_rate', 'vision.train.learning_rate']
    """
    *groups, last = path.split(".")

    def like(a: str, b: str) -> float:
        return difflib.SequenceMatcher(None, a.lower(), b.lower()).ratio()

    def score(each: str) -> float:
        *own, name = each.split(".")
        initials = "".join(word[:1] for word in name.split("_"))
        short = len(initials) > 1 and last.lower() == initials
        inside = [max((like(group, one) for one in own), default=0.0) for group in groups]
        found = sum(inside) / len(inside) if inside else 0.0
        alike = 0.9 if short else like(last, name)
        return alike + found if alike >= LIKE else 0.0

    scores = {each: score(each) for each in known}
    best = max(scores.values(), default=0.0)
    close = [each for each, found in scores.items() if found and found > best - 1e-9]
    # What lies as deep as what was typed, where there is any.
    return [each for each in close if each.count(".") == len(groups)][:SHOWN] or close[:SHOWN]


def hint(name: str, known: Iterable[str]) -> str:
    """Return '; did you mean "x"?' or ''."""
    guess = nearest(name, known)
    return f', did you mean "{guess}"?' if guess else ""


@overload
def choose(name: str, value: str, options: Mapping[str, T]) -> T: ...
@overload
def choose(name: str, value: str, options: Sequence[str]) -> str: ...
def choose(name: str, value: str, options: Any) -> Any:
    """Return the option that ``value`` names; a wrong one is a sentence that lists them all.

    Args:
      name: What the value is called, for the message.
      value: The value given.
      options: A mapping from names to results, or a sequence of names.

    Returns:
      ``options[value]`` for a mapping, else ``value``.

    Raises:
      UserError: If the value is not one of the options.

    Example:
      >>> choose("size", "tiny", {"tiny": 32, "small": 128})
      32
      >>> choose("size", "tyni", ["tiny", "small"])
      Traceback (most recent call last):
      ...
      jmrec.errors.UserError: size="tyni" is not one of tiny, small, did you mean "tiny"?
    """
    if value not in options:
        known = ", ".join(options)
        suffix = hint(str(value), options) or "."
        raise UserError(f'{name}="{value}" is not one of {known}{suffix}')
    return options[value] if isinstance(options, Mapping) else value


def parse_arg(arg: str | None, **defaults: Any) -> ConfigDict:
    """Parse an experiment's argument, as big_vision's experiments do.

    ``a=1,b=x`` sets the names ``a`` and ``b``; a bare name sets a yes-or-no argument to True.
    Values are cast to the type of the default; where the default is None the text is kept, and
    "none" stays None. Commas inside brackets do not separate: ``sizes=(1,2),seed=3``.

    Args:
      arg: What comes after the colon, or None.
      **defaults: Every known name with its default (bool, int, float, str, tuple or None).

    Returns:
      An unlocked ConfigDict with a value for every name in ``defaults``.

    Raises:
      UserError: If a name is unknown or set twice, or a value has the wrong type.

    Example:
      >>> parse_arg("data=folder,deep", data="toyshop", size="small", deep=False).to_dict()
      {'data': 'folder', 'deep': True, 'size': 'small'}
      >>> parse_arg("siez=tiny", data="toyshop", size="small")
      Traceback (most recent call last):
      ...
      jmrec.errors.UserError: the experiment has no argument "siez", did you mean "size"? Known \
    are: data, size.
    """
    values = dict(defaults)
    given = set()
    for part in split(arg or ""):
        name, equals, text = (piece.strip() for piece in part.partition("="))
        if name not in defaults:
            known = ", ".join(sorted(defaults)) or "none"
            separator = hint(name, defaults) or ","
            known = f"Known are: {known}" if separator != "," else f"known are: {known}"
            raise UserError(f'the experiment has no argument "{name}"{separator} {known}.')
        if name in given:
            raise UserError(f'the experiment\'s argument "{name}" is set twice; set it once.')
        given.add(name)
        if not equals:
            if not isinstance(defaults[name], bool):
                raise UserError(f'the experiment\'s argument "{name}" needs a value: {name}=...')
            text = "true"
        values[name] = _cast(name, text, defaults[name])
    # Types are checked above; a None default must not pin the field to NoneType.
    return ConfigDict(values, type_safe=False)


def split(arg: str) -> list[str]:
    """Split at the commas outside brackets and drop empty parts."""
    parts, depth = [""], 0
    for letter in arg:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth <= 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part for part in parts if part.strip()]


def _cast(name: str, text: str, default: Any) -> Any:
    """Cast text to the type of the default."""
    wanted = type(default).__name__
    try:
        if isinstance(default, bool):
            if text.lower() in _TRUE + _FALSE:
                return text.lower() in _TRUE
            wanted = "true or false"
        elif default is None:
            return None if text.lower() in NONE_WORDS else text
        elif isinstance(default, str):
            return text
        elif isinstance(default, int | float):
            return type(default)(text)
        elif isinstance(default, tuple):
            value = ast.literal_eval(text)
            return tuple(value) if isinstance(value, list | tuple) else (value,)
    except (ValueError, SyntaxError):
        pass
    raise UserError(f'the experiment\'s argument {name}="{text}" must be of type {wanted}.')
