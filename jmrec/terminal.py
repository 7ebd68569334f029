"""The one place that prints: what comes from data can not steer the terminal.

A title or a licence in a stranger's file may hold control characters, which move the cursor, hide
text or type for the reader, and marks that turn the order of letters. All that is printed goes
through `clean`: by `say` and `warn`, or by a `console`. What an encoding lacks is printed as
escapes, and ends nothing.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook
from rich.segment import Segment

# Control characters but tab and line feed; marks of direction; separators of lines.
_STEERS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]"
)


def clean(text: str) -> str:
    r"""Return a text in which nothing steers a terminal; each such character becomes U+FFFD.

    Example:
      >>> clean("Alien\x1b[2J") == "Alien\ufffd[2J"
      True
    """
    return _STEERS.sub("\ufffd", text)


def fit(text: str, encoding: str | None) -> str:
    r"""Return a text that an encoding can write; what it lacks becomes a backslash and its number.

    Args:
      text: Any text, names of files in no encoding included.
      encoding: Of the output, None where it takes any text.

    Example:
      >>> print(fit("Jalapeño \u041c", "cp1252"), fit("Jalapeño", None))
      Jalapeño \u041c Jalapeño
    """
    if encoding is None:
        return text
    try:
        return text.encode(encoding, "backslashreplace").decode(encoding)
    except LookupError:  # an output that names no encoding of Python's
        return text


def say(text: str, file: TextIO | None = None) -> None:
    """Print a text and a line feed, cleaned.

    Args:
      text: What to print.
      file: Where to; None is standard output.
    """
    out = file or sys.stdout
    out.write(fit(clean(text), getattr(out, "encoding", None)) + "\n")
    out.flush()


def complain(sentence: str) -> None:
    """Print why a command ends, on standard error."""
    say(f"jmrec: {sentence}", sys.stderr)


def warn(sentence: str) -> None:
    """Print a warning on standard error."""
    complain(f"warning: {sentence}")


class _Cleaned:
    """Something that rich renders, cleaned before styles become codes."""

    def __init__(self, renderable: ConsoleRenderable) -> None:
        self._renderable = renderable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for each in console.render(self._renderable, options):
            if each.control:
                yield each
            else:
                yield Segment(fit(clean(each.text), console.encoding), each.style)


class _Cleaning(RenderHook):
    """Cleans all that a console prints."""

    def process_renderables(
        self, renderables: Sequence[ConsoleRenderable]
    ) -> list[ConsoleRenderable]:
        """Return them, each cleaned when it is rendered."""
        return [_Cleaned(each) for each in renderables]


def console(**options: Any) -> Console:
    r"""Return a rich console whose output is cleaned.

    Args:
      **options: Of `rich.console.Console`.

    Example:
      >>> import io
      >>> out = io.StringIO()
      >>> console(file=out).print("Alien\x1b[2J")
      >>> out.getvalue() == "Alien\ufffd[2J\n"
      True
    """
    made = Console(**options)
    made.push_render_hook(_Cleaning())
    return made
