"""Any fitted rule <-> arrays and plain values, by the name of its class; nothing is pickled.

A class is known by the decorator `servable` of `jmrec.evaluation.rankers.servable`.

The fields of its dataclass are what is kept: arrays under their names, sparse ones in three parts
(``matrix/data``, ``matrix/indices``, ``matrix/indptr``), members of a blend under their numbers
(``0/matrix``), and all else in JSON. Nothing is lost: a table that is mostly 0 is kept in three
parts too, numbers as halves and places in two bytes where that holds them exactly. What is read
back is checked: shapes, types, ranges.
"""

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import scipy.sparse as sp

import jmrec.evaluation.rankers.rules  # noqa: F401 (with them their classes are known)
from jmrec.errors import UserError
from jmrec.evaluation.protocol import Ranker
from jmrec.evaluation.rankers.blend import Blend
from jmrec.evaluation.rankers.content import FeatureNeighbours
from jmrec.evaluation.rankers.cooccurrence import compact
from jmrec.evaluation.rankers.servable import SERVABLE
from jmrec.evaluation.rankers.small import TABLES, halves, whole
from jmrec.evaluation.results import RULE, role_of

CLASS, SHAPES, MEMBERS, EXPONENTS = "class", "shapes", "members", "exponents"
AXES = {
    "values": "V", "prior": "V", "share": "V", "seen": "V", "matrix": "VV", "held": "SV",
    "vectors": "VD", "among": "V", "block": "DD",
}  # fmt: skip
"""What the axes of an array are: V items, else any number; of others the first is V."""
NUMBERS: dict[str, tuple[float, float]] = {
    "decay": (0, 1), "k": (1, 1e9), "sample": (1, 1e9), "length_power": (0, 10), "last": (1, 1e9),
}  # fmt: skip
"""Between which numbers a field is, both included; others are finite."""
SPARSE = 0.5
"""A table with fewer entries than this share is kept without its zeros."""
DEEPEST = 4
"""How far blends may hold blends."""


def feature_names(rule: Ranker) -> list[str]:
    """Return the names of the feature tables that a rule reads.

    Example:
      >>> feature_names(FeatureNeighbours("pixels", np.ones(2, bool)))
      ['pixels']
    """
    if isinstance(rule, Blend):
        return sorted({name for member in rule.members for name in feature_names(member)})
    return [rule.feature] if isinstance(rule, FeatureNeighbours) else []


def encode(rule: Ranker) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return what is kept of a rule: plain values, and arrays by name.

    Args:
      rule: Fitted.

    Raises:
      UserError: Its class is not `servable`.

    Example:
      >>> facts, arrays = encode(FeatureNeighbours("pixels", np.ones(2, bool)))
      >>> facts["class"], list(arrays)
      ('FeatureNeighbours', ['seen'])
      >>> decode(facts, arrays, 2).name
      'content-kNN (pixels)'
    """
    arrays: dict[str, np.ndarray] = {}
    return _encode(rule, "", arrays), arrays


def _encode(rule: Any, at: str, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    known = type(rule).__name__
    if SERVABLE.get(known) is not type(rule):
        raise UserError(
            f"{rule.name} is a rule that can not be written; decorate its class {known} with "
            "servable, or serve another row."
        )
    facts: dict[str, Any] = {CLASS: known, SHAPES: {}, EXPONENTS: {}}
    for field in fields(rule):
        value = getattr(rule, field.name)
        dense = field.name in TABLES and isinstance(value, np.ndarray)
        if dense and np.count_nonzero(value) < SPARSE * value.size:
            value = sp.csr_array(value)
        if sp.issparse(value):
            facts[SHAPES][field.name] = list(value.shape)
            data = value.data
            if (exact := halves(data)) is not None:
                data, facts[EXPONENTS][field.name] = exact
            arrays[f"{at}{field.name}/data"] = np.ascontiguousarray(data)
            for part in ("indices", "indptr"):
                arrays[f"{at}{field.name}/{part}"] = _short(getattr(value, part))
        elif isinstance(value, np.ndarray):
            arrays[f"{at}{field.name}"] = np.ascontiguousarray(value)
        elif field.name == MEMBERS:
            facts[MEMBERS] = [_encode(m, f"{at}{n}/", arrays) for n, m in enumerate(value)]
        else:
            facts[field.name] = value
    return facts


def decode(facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray], n_items: int) -> Ranker:
    """Return the rule that `encode` was given; it is to be prepared with its features.

    Args:
      facts: Plain values, of whoever wrote the file.
      arrays: The arrays.
      n_items: V.

    Raises:
      ValueError: They do not fit each other, or this jmrec's rules.
      KeyError: One is missing.
    """
    return _decode(facts, arrays, n_items, "", DEEPEST)


def _decode(
    facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray], n_items: int, at: str, deep: int
) -> Ranker:
    if not isinstance(facts, Mapping) or facts.get(CLASS) not in SERVABLE:
        raise ValueError(f"{at or 'the rule'} is of no class of rules")
    cls = SERVABLE[facts[CLASS]]
    found: dict[str, Any] = {}
    for field in fields(cls):
        name, place = field.name, f"{at}{field.name}"
        if name == MEMBERS:
            if deep < 1 or not facts[MEMBERS]:
                raise ValueError(f"{place}: a blend of nothing, or too deep")
            found[name] = [
                _decode(each, arrays, n_items, f"{at}{n}/", deep - 1)
                for n, each in enumerate(facts[MEMBERS])
            ]
        elif f"{place}/data" in arrays:
            exponent = facts.get(EXPONENTS, {}).get(name)  # an older jmrec kept no halves
            read = _sparse(
                place, facts[SHAPES][name], arrays, AXES.get(name, "VD"), n_items, exponent
            )
            found[name] = compact(read) if name in TABLES else read
        elif place in arrays:
            found[name] = _dense(place, arrays[place], AXES.get(name), n_items)
        else:
            found[name] = _plain(name, facts[name])
    if cls is Blend and (
        found["n_items"] != n_items or len(found["weights"]) != len(found[MEMBERS])
    ):
        raise ValueError(f"{at or 'the rule'}: a blend of other items, or without its weights")
    rule: Ranker = cls(**found)
    return rule


def _dense(name: str, array: np.ndarray, axes: str | None, n_items: int) -> np.ndarray:
    """Return an array whose axes, type and numbers are those of a rule."""
    axes = axes or "V".ljust(array.ndim, "D")
    fits = array.ndim == len(axes) and all(
        size == n_items for size, axis in zip(array.shape, axes) if axis == "V"
    )
    if not fits or array.dtype not in (np.float32, np.bool_) or not np.isfinite(array).all():
        raise ValueError(f"{name} is {array.dtype}{list(array.shape)}, or holds what is no number")
    return array


def _short(places: np.ndarray) -> np.ndarray:
    """Return whole numbers, 0 or more, in as few bytes as hold them.

    Example:
      >>> _short(np.array([5, 6])).dtype, _short(np.array([5, 40_000])).dtype
      (dtype('int16'), dtype('int32'))
    """
    most = int(places.max(initial=0))
    kinds = (np.int16, np.int32, np.int64)
    return places.astype(next(kind for kind in kinds if most <= np.iinfo(kind).max))


def _sparse(
    name: str,
    shape: Any,
    arrays: Mapping[str, np.ndarray],
    axes: str,
    n_items: int,
    exponent: Any,
) -> sp.csr_array:
    data, indices, pointer = (arrays[f"{name}/{part}"] for part in ("data", "indices", "indptr"))
    if data.dtype == np.float16 and exponent is not None:
        if isinstance(exponent, bool) or not isinstance(exponent, int) or abs(exponent) > 200:
            raise ValueError(f"{name}, exponent={str(exponent)[:20]} is none")
        data = whole(data, exponent)
    rows, columns = (_whole(f"{name}, shape", size) for size in shape)
    sizes = {"V": n_items, "S": len(pointer) - 1, "D": columns}
    if (rows, columns) != tuple(sizes[axis] for axis in axes) or len(pointer) != rows + 1:
        raise ValueError(f"{name} is not of {n_items} items")
    if any(each.ndim != 1 for each in (data, indices, pointer)) or data.dtype != np.float32:
        raise ValueError(f"{name} is no sparse table")
    if not np.isfinite(data).all() or any(each.dtype.kind != "i" for each in (indices, pointer)):
        raise ValueError(f"{name} holds what is no number")
    pointer, indices = pointer.astype(np.int64), indices.astype(np.int64)
    found = sp.csr_array((data, indices, pointer), shape=(rows, columns))
    found.check_format(full_check=True)  # every index lies inside
    return found


def _whole(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
        raise ValueError(f"{name}={str(value)[:20]} is no size")
    return value


def _plain(name: str, value: Any) -> Any:
    """Return a value that is no array, checked."""
    if name == "settings":
        fits = isinstance(value, dict)
    elif name == "kind":
        fits = role_of(value) == RULE
    elif name in ("name", "feature"):
        fits = isinstance(value, str)
    elif name == "center":
        fits = isinstance(value, bool)
    elif name == "weights":
        fits = isinstance(value, list) and all(_between(each, 0, 1e6) for each in value)
    elif value is None:
        fits = name == "last"
    else:
        fits = _between(value, *NUMBERS.get(name, (-math.inf, math.inf)))
        if name in ("k", "sample", "last", "n_items"):
            fits = fits and isinstance(value, int)
    if not fits:
        raise ValueError(f"{name}={str(value)[:20]} is none that a rule has")
    return value


def _between(value: Any, least: float, most: float) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and least <= value <= most and math.isfinite(value)
