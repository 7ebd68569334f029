"""What mkdocs makes pages of that lies elsewhere: notebooks, docstrings, CONTRIBUTING.

A page in docs/ may hold such lines, each between empty lines:

    <!-- section: A loss -->         what stands below that heading of CONTRIBUTING.md
    <!-- modules: jmrec/losses -->   the reference of each module of a folder
    <!-- losses -->                  every loss with its formula, from the docstrings
    <!-- commands -->                the help of every verb

and each notebook becomes the page tutorials/NAME.md. Only the two functions at the end know mkdocs,
so that tests read the pages without it.
"""

import argparse
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "docs"))

from percent import NOTEBOOKS, figures, page  # noqa: E402

DIRECTIVE = re.compile(r"^<!-- (section|modules|losses|commands)(?:: (.+))? -->$", re.M)


def section(heading: str) -> str:
    """Return what stands below a heading of CONTRIBUTING.md, up to the next one of its kind."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    if found is None:
        raise ValueError(f"CONTRIBUTING.md has no heading {heading!r}")
    # The first word behind the fence is for the highlighter, the rest for a test.
    shown = re.sub(r"^```(\w+) (?:file|append)=(\S+)$", r'```\1 title="\2"', found[1], flags=re.M)
    return shown.replace("\n### ", "\n## ").strip()


def modules(folder: str) -> list[str]:
    """Return the names of the public modules of a folder, in the order of the alphabet."""
    paths = sorted((ROOT / folder).glob("*.py"))
    names = [path.relative_to(ROOT).with_suffix("").as_posix() for path in paths]
    return [name.replace("/", ".") for name in names if not Path(name).name.startswith("_")]


def losses() -> str:
    """Return the index of the losses, without its title."""
    from jmrec.xla import set_flags

    set_flags()
    from jmrec.tools.losses import index  # loads jax

    return index().partition("\n\n")[2].replace("\\<", "&lt;")


def verbs(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Yield the parsers of the verbs below one, each that has no verbs of its own."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                yield from verbs(each)
            return
    yield parser


def commands() -> str:
    """Return the help of every verb."""
    from jmrec.commands import VERBS, parser

    os.environ["COLUMNS"] = "92"  # what argparse takes for the width of the terminal
    return "\n\n".join(
        f"## {each.prog}\n\n```text\n{each.format_help().rstrip()}\n```"
        for each in verbs(parser(VERBS))
    )


BESIDE = re.compile(r"\[([^\]]*)\]\((?:\.\./)+CONTRIBUTING\.md[^)]*\)")
"""A link to a file that the site does not have: whoever reads a page as a file follows it."""


def expanded(markdown: str) -> str:
    """Return a page with what its lines of the form ``<!-- ... -->`` ask for in their place."""

    def wanted(found: re.Match[str]) -> str:
        if found[1] == "section":
            return section(found[2])
        if found[1] == "modules":
            return "\n\n".join(f"::: {name}" for name in modules(found[2]))
        return losses() if found[1] == "losses" else commands()

    return DIRECTIVE.sub(wanted, BESIDE.sub(r"\1", markdown))


def generated() -> dict[str, str]:
    """Return the pages that lie nowhere: their paths in the site's source, and their Markdown."""
    return {f"tutorials/{path.stem}.md": page(path) for path in NOTEBOOKS}


def on_files(files: Any, config: Any) -> Any:
    """Add the notebooks as pages, and their figures."""
    from mkdocs.structure.files import File

    for path, markdown in generated().items():
        files.append(File.generated(config, path, content=markdown))
    for notebook in NOTEBOOKS:
        for name, data in figures(notebook).items():
            files.append(File.generated(config, f"tutorials/{name}", content=data))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put in what a page asks for."""
    return expanded(markdown)
