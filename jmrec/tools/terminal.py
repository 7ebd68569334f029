"""How the tools speak to people."""

import math

from rich.console import Console

from jmrec.terminal import console


def human(size: float) -> str:
    """Return bytes in a unit that people read.

    Example:
      >>> human(3 * 2**29), human(2**20), human(100)
      ('1.5 GiB', '1.0 MiB', '100 B')
    """
    power = min(max(int(math.log2(max(size, 1))) // 10, 0), 3)
    scaled = size / 1024**power
    digits = 1 if power and scaled < 100 else 0
    return f"{scaled:.{digits}f} {('B', 'KiB', 'MiB', 'GiB')[power]}"


def wide_console() -> Console:
    """Return a console that cuts no column of a table; a narrow terminal folds the lines itself."""
    return console(width=200, soft_wrap=True, highlight=False, markup=False)
