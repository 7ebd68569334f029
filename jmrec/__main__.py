"""``python -m jmrec``: the command, where it is not on the PATH."""

from jmrec.main import entry

if __name__ == "__main__":
    entry()
