"""Configurations as plain flat dicts: to store, to hash, and to say what changed."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict, FieldReference

_MISSING = "(absent)"


def flatten(config: ConfigDict | Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration as one flat dict of plain values.

    Args:
      config: A ConfigDict or mapping, nested or already flat.

    Returns:
      Dotted field name -> None, bool, int, float, str, list, or ``{}`` for a group without
      fields, sorted by name. Tuples become lists, so that a configuration read back from JSON
      is equal to the one that was written.

    Raises:
      TypeError: If a value is none of these.

    Example:
      >>> flatten({"seed": 1, "data": {"dir": "shop", "shape": (2, 3)}})
      {'data.dir': 'shop', 'data.shape': [2, 3], 'seed': 1}
    """
    flat: dict[str, Any] = {}

    def visit(prefix: str, value: Any) -> None:
        if isinstance(value, Mapping | ConfigDict) and len(value):
            for name in value:
                visit(f"{prefix}.{name}" if prefix else str(name), value[name])
        elif prefix:
            flat[prefix] = _plain(prefix, value)

    visit("", config)
    return dict(sorted(flat.items()))


def config_hash(config: ConfigDict | Mapping[str, Any]) -> str:
    """Return a hash of all fields and values, the same on every machine.

    Args:
      config: A ConfigDict or mapping, nested or flat.

    Returns:
      16 hexadecimal digits.

    Example:
      >>> config_hash({"a": {"b": 1}}) == config_hash({"a.b": 1})
      True
      >>> config_hash({"a": 1}) == config_hash({"a": 2})
      False
    """
    text = json.dumps(flatten(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def difference(a: ConfigDict | Mapping[str, Any], b: ConfigDict | Mapping[str, Any]) -> list[str]:
    """Return what changed from ``a`` to ``b``, one line a field.

    Args:
      a: The old configuration.
      b: The new configuration.

    Returns:
      Lines ``field: old -> new``, sorted by field; empty where nothing changed.

    Example:
      >>> difference({"seed": 1, "data": {"dir": "x"}}, {"seed": 2, "data": {"dir": "x"}})
      ['seed: 1 -> 2']
    """
    old, new = flatten(a), flatten(b)
    return [
        f"{name}: {_show(old, name)} -> {_show(new, name)}"
        for name in sorted(old.keys() | new.keys())
        if _show(old, name) != _show(new, name)
    ]


def _show(flat: Mapping[str, Any], name: str) -> str:
    return json.dumps(flat[name]) if name in flat else _MISSING


def _plain(name: str, value: Any) -> Any:
    """Return value as what JSON gives back, or raise with the field's name."""
    if isinstance(value, FieldReference):
        value = value.get()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple):
        return [_plain(name, each) for each in value]
    if isinstance(value, Mapping | ConfigDict):
        return {str(key): _plain(name, value[key]) for key in value}
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:  # a numpy scalar
        return value.item()
    raise TypeError(f"config.{name} holds a {type(value).__name__}, which is not a plain value")
