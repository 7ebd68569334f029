"""Nothing that comes from data steers the terminal, and nothing is printed past the one place."""

import ast
import io
import unicodedata
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from rich.live import Live
from rich.table import Table
from rich.text import Text

from jmrec.terminal import clean, console, say

ROOT = Path(__file__).resolve().parents[2]
EVIL = "Alien\x1b]0;owned\x07\x1b[2J\x9b1A\r\u202egnp.exe\u2066"
BIDIRECTIONAL = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


def steers(text: str) -> list[str]:
    return [
        each for each in text
        if (unicodedata.category(each) in ("Cc", "Zl", "Zp") and each not in "\n\t")
        or unicodedata.bidirectional(each) in BIDIRECTIONAL
    ]  # fmt: skip


@given(st.text())
def test_what_is_cleaned_has_nothing_that_steers_and_all_the_rest(text: str) -> None:
    found = clean(text)
    assert not steers(found)
    assert len(found) == len(text)
    kept = [b for a, b in zip(text, found) if not steers(a) and a not in "\u200e\u200f\u061c"]
    assert kept == [a for a in text if not steers(a) and a not in "\u200e\u200f\u061c"]


def test_tables_texts_and_lines_are_cleaned_and_styles_are_not() -> None:
    out = io.StringIO()
    shown = console(file=out, force_terminal=True, width=60, color_system="standard")
    table = Table("title")
    table.add_row(EVIL)
    shown.print(table)
    shown.print(Text(EVIL), style="bold")
    shown.print(EVIL, markup=False)
    with Live(Text("live"), console=shown, auto_refresh=False):
        shown.print(EVIL, markup=False)
    say(EVIL, out)
    text = out.getvalue()
    assert text.count("Alien") == 5
    assert "\x1b[1m" in text  # rich's own bold
    for each in ("\x1b]", "\x07", "\x1b[2J\x9b", "\u202e", "\u2066", "\x9b"):
        assert each not in text


def test_nothing_prints_past_the_one_place() -> None:
    """Programs of a child process, given as texts, print numbers only."""
    found = []
    for path in sorted((ROOT / "jmrec").rglob("*.py")):
        if path.name == "terminal.py" and path.parent.name == "jmrec":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            direct = isinstance(node.func, ast.Name) and name in ("print", "Console", "Progress")
            written = name == "write" and "sys.std" in ast.unparse(node.func)
            if written or (direct and name != "Progress"):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno} {ast.unparse(node.func)}")
    # What a member of a cluster prints has been cleaned by the member.
    assert [each for each in found if "cluster/keeper.py" not in each] == []
