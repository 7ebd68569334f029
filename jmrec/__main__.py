"""``python -m jmrec``: the command, where it is not on the PATH."""

import sys
from pathlib import Path

if __name__ == "__main__":
    # "python -m" looks for every module in the working folder first, and that may be a stranger's.
    if sys.path[:1] in ([""], [str(Path.cwd())]):
        del sys.path[0]
    from jmrec.main import entry

    entry()
