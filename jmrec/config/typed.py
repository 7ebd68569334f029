"""Plain values to frozen dataclasses, every field checked against its type."""

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from jmrec.config.arguments import hint
from jmrec.errors import SettingError


def config_from(kind: Any, value: Any, where: str = "config") -> Any:
    """Return a value as the type of a field has it; a mapping becomes a dataclass.

    Args:
      kind: A frozen dataclass, or the type of one of its fields: bool, int, float, str, None, a
        dataclass, tuples and unions of those.
      value: Plain, such as ``json.loads(json.dumps(dataclasses.asdict(config)))`` gives.
      where: What the value is called, for messages.

    Raises:
      SettingError: A field is unknown, missing or of another type, or the values do not go
        together.

    Example:
      >>> from dataclasses import make_dataclass
      >>> Size = make_dataclass("Size", [("width", int), ("shape", tuple[int, ...], ())])
      >>> config_from(Size, {"width": 8, "shape": [2, 3]})
      Size(width=8, shape=(2, 3))
      >>> config_from(Size, {"width": "wide"}, "stack")
      Traceback (most recent call last):
      ...
      jmrec.errors.SettingError: stack.width is 'wide'; give it a value of type int.
    """
    options = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    for option in options:
        if not _fits(option, value):
            continue
        if is_dataclass(option) and not is_dataclass(value):
            return _dataclass(option, value, where)
        if get_origin(option) is tuple:
            inner = get_args(option)
            kinds = inner[:1] * len(value) if inner[-1] is ... else inner
            if len(kinds) != len(value):
                raise SettingError(f"{where} has {len(value)} values; give it {len(kinds)}.")
            pairs = enumerate(zip(kinds, value))
            return tuple(config_from(each, part, f"{where}[{n}]") for n, (each, part) in pairs)
        return value
    wanted = " or ".join(_name(option) for option in options)
    raise SettingError(f"{where} is {value!r}; give it a value of type {wanted}.")


def _fits(kind: Any, value: Any) -> bool:
    """Tell whether a plain value is of a kind, its parts aside."""
    if kind is Any:
        return True
    if kind is None or kind is NoneType:
        return value is None
    if get_origin(kind) is tuple:
        return isinstance(value, list | tuple)
    if is_dataclass(kind):
        return isinstance(value, Mapping) or type(value) is kind
    if kind in (int, float) and isinstance(value, bool):
        return False
    return isinstance(value, int | float if kind is float else kind)


def _dataclass(kind: Any, values: Mapping[str, Any], where: str) -> Any:
    types = get_type_hints(kind)
    known = [each for each in fields(kind) if each.init]
    names = [each.name for each in known]
    for name in values:
        if name not in names:
            guess = hint(name, names)
            raise SettingError(f"{where} has no field {name!r}{guess or '; drop it.'}")
    for each in known:
        needed = each.default is MISSING and each.default_factory is MISSING
        if needed and each.name not in values:
            raise SettingError(f"{where}.{each.name} is missing; give it.")
    made = {name: config_from(types[name], values[name], f"{where}.{name}") for name in values}
    try:
        return kind(**made)
    except SettingError:
        raise
    except ValueError as error:
        raise SettingError(f"{where}: {error}") from error


def _name(kind: Any) -> str:
    if kind is None or kind is NoneType:
        return "None"
    return kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind)
