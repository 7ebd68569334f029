"""The pages of README, CONTRIBUTING and docs/, and the commands that they show."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [
    *("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"),
    *sorted(path.relative_to(ROOT).as_posix() for path in DOCS.rglob("*.md")),
]
SHOWN = ["README.md", *(page for page in PAGES if page.startswith("docs/"))]
"""Pages whose commands stand for themselves; those of CONTRIBUTING are run by test_extensions."""
MARK = re.compile(r"\s#.*\bneeds \w")
"""At the end of a command that no test runs: a comment that says what it needs."""


def read(page: str) -> str:
    """Return the text of a page."""
    return (ROOT / page).read_text(encoding="utf-8")


def joined(text: str) -> list[str]:
    """Return lines of shell, each command as one line."""
    whole = re.sub(r"\\\n\s*", "", text)
    return [line.strip() for line in whole.splitlines() if line.strip()]


def fenced(page: str) -> list[str]:
    """Return the commands of a page that stand in blocks of bash."""
    return joined("\n".join(re.findall(r"^```bash\n(.*?)^```$", read(page), re.M | re.S)))


def commands(page: str) -> list[str]:
    """Return the commands of a page that begin with jmrec, in blocks of bash or indented ones."""
    text = re.sub(r"^```(?!bash)\w+.*?^```$", "", read(page), flags=re.M | re.S)
    blocks = re.findall(r"^```bash\n(.*?)^```$|((?:^ {4}.+\n)+)", text, re.M | re.S)
    return [line for line in joined("\n".join(map("".join, blocks))) if line.startswith("jmrec ")]
