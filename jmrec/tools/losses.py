"""``python -m jmrec.tools.losses``: an index of the losses, as Markdown, from their docstrings."""

import inspect
import re
from collections.abc import Callable
from typing import Any

from jmrec.terminal import say
from jmrec.xla import set_flags

FIELDS = ("Use", "Formula")
"""Paragraphs of a docstring that the index shows, each ``Name: text`` up to the next or a blank."""


def field(docstring: str, name: str) -> str:
    """Return the text of a field of a docstring as one line, "" where it has none.

    Example:
      >>> field('Return x.\\n\\nUse: where x\\n  is wanted.\\nFormula: x.\\n\\nArgs:', "Use")
      'where x is wanted.'
    """
    stop = "|".join(f"{each}:" for each in FIELDS)
    found = re.search(rf"^{name}: (.*?)(?=\n(?:{stop})|\n\s*\n|\Z)", docstring, re.S | re.M)
    return " ".join(found.group(1).split()) if found else ""


def references(docstring: str) -> list[str]:
    """Return the references of a docstring, each "authors, title, year: address" in one line."""
    found = re.search(r"^References:\n(.*?)(?=\n\s*\n|\Z)", docstring, re.S | re.M)
    if not found:
        return []
    text = " ".join(found.group(1).split())
    return [each.strip() for each in re.findall(r".*?https?://\S+(?:\s\([^)]*\))?", text)]


def entry(loss: Callable[..., Any]) -> str:
    """Return the Markdown of one loss: its first line, formula, use and references."""
    docstring = inspect.getdoc(loss) or ""
    lines = [f"### `{loss.__name__}`", "", docstring.split("\n\n")[0].replace("<", "\\<"), ""]
    formula, use = field(docstring, "Formula"), field(docstring, "Use")
    if formula:
        lines += [f"- Formula: `{formula.rstrip('.')}`"]
    if use:
        lines += [f"- Use: {use}"]
    lines += [f"- Reference: {each}" for each in references(docstring)]
    return "\n".join(lines)


def index() -> str:
    """Return the whole page."""
    from jmrec.losses import FAMILIES  # after the flags

    parts = ["# Losses", "Arrays in, per-example float32 arrays out; `where=` masks on every one."]
    for family, losses in FAMILIES.items():
        module = inspect.getmodule(losses[0])
        summary = (inspect.getdoc(module) or "").split("\n\n")[0].replace("\n", " ")
        parts += [f"## {family[0].upper()}{family[1:]}", summary]
        parts += [entry(loss) for loss in losses]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    set_flags()
    say(index().removesuffix("\n"))
