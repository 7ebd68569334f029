"""Are the keys of ``dataset.toml`` known, and are their values of the right kind?"""

import difflib
import math
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from jmrec.data.sources import PAIR, read_bytes, regular_file
from jmrec.data.split_keys import SPLITS_BY
from jmrec.data.units import UNITS
from jmrec.errors import UserError

MAX_TOML = 1_000_000


def check_settings(file: str, settings: dict[str, Any], table: str = "dataset") -> None:
    """Refuse values of [dataset] that mean nothing; ``table`` is the one that says them."""
    rules = [
        ("session_gap_minutes", lambda v: 0 < v < math.inf, "must be above 0; give minutes"),
        (
            "split",
            lambda v: v in SPLITS_BY,
            f"must be one of {', '.join(SPLITS_BY)}",
        ),
        ("min_session_length", lambda v: 2 <= v <= 1000, "must lie between 2 and 1000"),
        ("k_core", lambda v: 1 <= v <= 10**6, "must lie between 1 and 1000000"),
        ("decimal", lambda v: v in (".", ","), 'must be "." or ","'),
        (
            "delimiter",
            lambda v: v in ("", PAIR) or (len(v) == 1 and v.isascii() and v not in '"\r\n\0'),
            f'must be one character, such as ";", or {PAIR!r}',
        ),
        ("quoting", lambda v: v in ("", "none"), 'must be "none" or left out'),
        (
            "name",
            lambda v: len(v) <= 200 and v.isprintable(),
            "must be short and on one line; give the data a plain name",
        ),
        (
            "time_format",
            lambda v: v in ("", *UNITS) or re.search("%[a-zA-Z]", v),
            f'must be {", ".join(map(repr, UNITS))} or a pattern such as "%d.%m.%Y %H:%M"',
        ),
    ]
    for key, good, words in rules:
        if not good(settings[key]):
            raise UserError(f"{file}, [{table}]: {key} {words}.")


def check_known(file: str, where: str, given: dict[str, Any], known: Sequence[str]) -> None:
    """Refuse keys that are none of those ``known``, and name the nearest."""
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)[0]
            raise UserError(
                f"{file}: {f'{where} has no key' if where else 'there is no table'} {key!r}; "
                f"did you mean {near!r}?"
            )


def read_settings(
    file: str, table: str, given: dict[str, Any], defaults: dict[str, Any]
) -> dict[str, Any]:
    """Check the keys and types of one table against its defaults."""
    check_known(file, f"[{table}]", given, list(defaults))
    out = dict(defaults)
    for key, value in given.items():
        default = defaults[key]
        kind, ok = {
            bool: ("true or false", isinstance(value, bool)),
            int: ("a whole number", isinstance(value, int) and not isinstance(value, bool)),
            float: (
                "a number",
                isinstance(value, int | float)
                and not isinstance(value, bool)
                and abs(value) < 1e15,
            ),
            str: ("a string", isinstance(value, str)),
            tuple: (
                "a list of strings",
                isinstance(value, list) and all(isinstance(v, str) for v in value),
            ),
        }[type(default)]
        if not ok:
            raise UserError(f"{file}, [{table}]: {key} must be {kind}; mend this line.")
        out[key] = type(default)(value)
    return out


def check_pictures(file: str, folder: str) -> None:
    """Refuse what is no folder inside the catalogue folder."""
    parts = PurePosixPath(folder).parts
    if not parts or ".." in parts or folder.startswith("/") or "\\" in folder or "\0" in folder:
        raise UserError(
            f"{file}, [items]: pictures is {folder[:80]!r}; name a folder that lies inside the "
            'catalogue folder, such as "photos".'
        )


def read_toml(folder: Path, toml: str | Path | None) -> tuple[str, dict[str, Any]]:
    """Return the description's file name and its tables; none where the folder has none.

    Args:
      folder: The catalogue folder.
      toml: A description to use instead of ``folder/dataset.toml``, or None.

    Raises:
      UserError: It can not be read, or is no TOML.
    """
    path = folder / "dataset.toml" if toml is None else Path(toml)
    if toml is None and not (path.exists() or path.is_symlink()):
        return path.name, {}
    if toml is not None and not path.exists():
        raise UserError(f"{path} can not be read; name the TOML that describes the data.")
    if regular_file(path, folder if toml is None else path.resolve().parent) > MAX_TOML:
        raise UserError(f"{path.name} has more than {MAX_TOML:,} bytes; write a shorter one.")
    text = ""
    try:
        text = read_bytes(path, MAX_TOML).decode("utf-8-sig")
        return path.name, tomllib.loads(text)
    except (tomllib.TOMLDecodeError, ValueError, RecursionError) as error:
        place = re.search(r"at line (\d+)", str(error))
        line = text.split("\n")[int(place[1]) - 1] if place else ""
        bare = re.search(r"=\s*\[?\s*(?!true|false|inf|nan)[^\s\"'\[\]{\d+.#-]", line)
        remedy = "text stands in quotes; " if bare else ""
        raise UserError(f"{path.name}: {error}; {remedy}mend the TOML.") from None
