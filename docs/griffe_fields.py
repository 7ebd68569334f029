"""How the reference shows what jmrec's docstrings state in fields of their own.

Those are ``Use: ...`` and ``Formula: ...`` of a loss, and one ``Example:`` with a doctest.
"""

import re
from typing import Any

import griffe

FIELD = re.compile(r"^(Use|Formula): (.*?)(?=\n(?:Use|Formula):|\n\s*\n|\Z)", re.S | re.M)


def shown(docstring: str) -> str:
    """Return a docstring whose fields are paragraphs of Markdown, a formula as code.

    Example:
      >>> shown("Return x.\\n\\nUse: where x\\n  is wanted.\\nFormula: a * b.\\n\\nArgs:")
      'Return x.\\n\\n**Use:** where x is wanted.\\n\\n**Formula:** `a * b`\\n\\nArgs:'
    """

    def paragraph(found: re.Match[str]) -> str:
        text = " ".join(found[2].split())
        if found[1] == "Formula" and "`" not in text:
            text = f"`{text.rstrip('.')}`"
        return f"**{found[1]}:** {text}" + ("\n" if found.string[found.end() :].strip() else "")

    words, example, doctest = re.sub(r"^Example:$", "Examples:", docstring, flags=re.M).partition(
        "Examples:\n"
    )
    words = re.sub(r"\n{3,}", "\n\n", FIELD.sub(paragraph, words))
    # Outside of code, <state, item> is no tag of HTML.
    parts = re.split(r"(`+[^`]*`+)", words)
    parts[::2] = [part.replace("<", "&lt;") for part in parts[::2]]
    return "".join(parts) + example + doctest


class Fields(griffe.Extension):
    """Changes docstrings before they are parsed; griffe finds it by its base."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring of one object of a package."""
        if obj.docstring is not None:
            obj.docstring.value = shown(obj.docstring.value)
