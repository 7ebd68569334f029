"""README, CONTRIBUTING, docs/ and the like: what they name is there, and what they show works."""

import importlib
import itertools
import json
import re
import runpy
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from jmrec import __version__
from jmrec.commands import VERBS, parser
from jmrec.config import flatten, load_config
from jmrec.systems.registry import check_settings
from jmrec.tools.leaderboard.board import read_board
from jmrec.tools.leaderboard.page import page as leaderboard_page
from jmrec.tools.sweep.trials import expand
from tests.pages import DOCS, PAGES, ROOT, SHOWN, commands, read

EXAMPLE = re.compile(r"^```python file=(\S+)", re.M)
"""A file that is not there: a page shows how it would be written."""
PATH = re.compile(
    r"(?<![\w/.-])((?:jmrec|tests|experiments|launch|notebooks|docs)/[\w./-]*[\w/])(?![\w*])"
)
LINK = re.compile(r"(?<!!)\[(?:[^\]\[]|\[[^\]]*\])*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
INLINE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
SPEC = re.compile(r"\b(?:experiments/\w+\.py|tpad|session|mmrec):\w+=\S+")
PACKAGES = (
    "api", "config", "data", "evaluation", "kernels", "losses", "metrics", "models", "serving",
    "tasks", "training",
)  # fmt: skip
"""Whose public names the reference has."""
INTRODUCE = (
    "README",
    "docs/index",
    "docs/explanation",
    "docs/how-to",
    "docs/results/index",
    "docs/limits",
)
"""Beginnings of pages that introduce terms."""
EMPHASIS = (
    "high", "inputs", "k", "loss", "low", "move", "n", "read by", "reads", "t", "the rules win",
    "which item it is",
)  # fmt: skip
"""What stands in italics or bold on those pages and is no term."""
hooks = runpy.run_path(str(DOCS / "hooks.py"))


def slug(heading: str) -> str:
    """Return the anchor of a heading, as both the site and a repository's page make it."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower())


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```$|^ {4}[^\n]*$", "", text, flags=re.M | re.S)


def anchors(text: str) -> set[str]:
    found = {slug(each) for each in re.findall(r"^#+ (.+)$", without_code(text), re.M)}
    return found | set(re.findall(r"^::: (\S+)$", text, re.M))


def pages_with_anchors() -> dict[Path, set[str]]:
    made = {DOCS / name: text for name, text in hooks["generated"]().items()}
    for page in PAGES:
        text = read(page)
        wanted = hooks["DIRECTIVE"].findall(text)
        slow = any(kind in ("losses", "commands") for kind, _ in wanted)
        made[ROOT / page] = text if slow else hooks["expanded"](text)
    return {path: anchors(text) for path, text in made.items()}


@pytest.mark.parametrize("page", PAGES)
def test_every_path_that_a_page_names_exists(page: str) -> None:
    text = read(page)
    for example in [
        *EXAMPLE.findall(text),
        "experiments/data/NAME.toml",
        "jmrec/systems/NAME/settings.py",
    ]:
        text = text.replace(example, "")
    named = {name.rstrip("/") for name in PATH.findall(text)}
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_the_experiment_in_contributing_runs(tmp_path: Path) -> None:
    blocks = re.findall(
        r"```python file=experiments/narrow.py\n(.*?)```", read("CONTRIBUTING.md"), re.S
    )
    assert len(blocks) == 1
    file = tmp_path / "narrow.py"
    file.write_text(blocks[0])
    config = load_config(f"{file}:size=small")
    assert config.distill.k == 32
    assert config.distill.t == load_config("experiments/tpad.py:size=small").distill.t


def test_the_citation_names_this_version_and_both_papers() -> None:
    cited = yaml.safe_load(read("CITATION.cff"))
    assert cited["version"] == __version__
    papers = {each["identifiers"][0]["value"] for each in cited["references"]}
    assert papers == {"arXiv:2504.10538", "arXiv:2408.04211"}


def test_the_readme_is_one_page() -> None:
    assert len(read("README.md").splitlines()) <= 130


def test_every_link_leads_somewhere() -> None:
    known = pages_with_anchors()
    wrong = []
    for page in PAGES:
        for targets in LINK.findall(without_code(read(page))):
            target = "".join(targets)
            if target.startswith(("https://", "http://")):
                continue
            name, _, anchor = target.partition("#")
            path = ((ROOT / page).parent / name).resolve() if name else ROOT / page
            if path not in known and not path.is_file():
                wrong.append(f"{page}: {target}")
            elif anchor and anchor not in known[path]:
                wrong.append(f"{page}: {target} (no such heading)")
    assert wrong == []


def test_every_page_is_in_the_navigation_and_says_what_it_is_for() -> None:
    def leaves(found: Any) -> Iterator[str]:
        if isinstance(found, str):
            yield found
        else:
            for each in found.values() if isinstance(found, dict) else found:
                yield from leaves(each)

    named = list(leaves(yaml.safe_load(read("mkdocs.yml"))["nav"]))
    lying = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    assert sorted(named) == sorted(lying | hooks["generated"]().keys())
    boards = {path.relative_to(DOCS).as_posix() for path in DOCS.glob("results/leaderboard-*.md")}
    for name in lying - boards:  # which a command writes
        title, _, first = (DOCS / name).read_text(encoding="utf-8").partition("\n\n")
        assert title.startswith("# "), name
        assert re.match(
            r"After (this page|these \w+ notebooks|one of these pages|these pages)", first
        ), name


@pytest.mark.parametrize("page", SHOWN)
def test_every_command_that_a_page_shows_is_understood(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, code in re.findall(
        r'^```python title="([\w.]+)"\n(.*?)^```', read(page), re.S | re.M
    ):
        Path(name).write_text(code, encoding="utf-8")
    top = parser(VERBS)
    for line in commands(page):
        args, rest = top.parse_known_args(shlex.split(line, comments=True)[1:])
        assert all(word.startswith("--config.") for word in rest), line
        if getattr(args, "config", None):
            check_settings(load_config(args.config, rest))
        if args.verb == "sweep":
            expand(args.config, rest, tmp_path / "sweep")


@pytest.mark.parametrize("page", SHOWN)
def test_every_argument_of_an_experiment_that_a_page_names_is_accepted(page: str) -> None:
    for code in INLINE.findall(read(page)):
        for spec in SPEC.findall(code):
            name, _, given = spec.partition(":")
            pairs = [pair.partition("=") for pair in given.split(",")]
            for values in itertools.product(*(pair[2].split("|") for pair in pairs)):
                words = [f"{pair[0]}={value}" for pair, value in zip(pairs, values)]
                load_config(f"{name}:{','.join(words)}")


def test_every_setting_that_a_page_names_is_one() -> None:
    specs = ("tpad:data=folder,students=rules", "tpad:data=folder,backbone=assembled", "session",
             "session:data=folder,encoder=sasrec", "mmrec", "mmrec:data=folder")  # fmt: skip
    names = set().union(*(flatten(load_config(spec)) for spec in specs))
    wrong = []
    for page in SHOWN:
        for code in INLINE.findall(read(page)):
            for setting in re.findall(r"--config\.([\w.]+)", code):
                if setting == "NAME" or setting.startswith("student.options."):
                    continue
                wanted = re.compile(
                    re.sub(r"\b[A-Z]+\b", r"[^.]+", setting.replace(".", r"\.")) + r"(\.|$)"
                )
                if not any(wanted.match(name) for name in names):
                    wrong.append(f"{page}: {setting}")
    assert wrong == []


def test_every_option_that_a_page_names_is_one() -> None:
    sources = [*(ROOT / "jmrec").rglob("*.py"), *(ROOT / "launch").iterdir()]
    sources += [*(ROOT / "tests/integration").glob("*.py")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources if path.is_file())
    known = set(re.findall(r"--[a-z][\w-]*", text)) | {"--help"}
    wrong = []
    for page in SHOWN:
        for code in INLINE.findall(read(page)):
            if not code.startswith(("mkdocs", "pip")):
                named = set(re.findall(r"(?<!\S)--(?!config)[a-z][\w-]*", code))
                wrong += [f"{page}: {each}" for each in sorted(named - known)]
    assert wrong == []


def test_the_terms_of_the_glossary_are_unique_and_in_order() -> None:
    terms = re.findall(r"^### (.+)$", read("docs/glossary.md"), re.M)
    assert terms == sorted(terms, key=str.lower)
    assert len({slug(term) for term in terms}) == len(terms)


@pytest.mark.parametrize("page", [page for page in SHOWN if page.startswith(INTRODUCE)])
def test_the_glossary_has_every_term_that_a_page_introduces(page: str) -> None:
    """A term is introduced in italics or bold; the glossary has it as a heading or in italics."""
    glossary = read("docs/glossary.md").lower()
    terms = {*re.findall(r"^### (.+)$", glossary, re.M), *re.findall(r"\*([^*]+)\*", glossary)}
    text = re.sub(r"`[^`]*`", "", without_code(read(page))).partition("\n## Papers")[0]
    for bold, italic in re.findall(r"\*\*([^*]+)\*\*|(?<![\w*])\*([^*]+)\*(?!\*)", text):
        word = " ".join((bold or italic).lower().split()).replace("@20", "@k")
        if word not in EMPHASIS and not word.endswith(".") and len(word) < 40:  # a paper
            assert {word, word.removesuffix("s"), f"{word} item"} & terms, word


def test_the_table_of_the_readme_is_the_one_in_the_results() -> None:
    def figures(page: str) -> list[list[str]]:
        rows = [line.split("|")[2:-1] for line in read(page).splitlines() if line.startswith("| ")]
        return [[cell.strip() for cell in row] for row in rows if len(row) == 5]

    readme, results = figures("README.md"), figures("docs/results/toyshop.md")
    assert len(readme) > 5
    assert all(row in results for row in readme)


@pytest.mark.parametrize("name", PACKAGES)
def test_the_reference_has_every_public_name(name: str) -> None:
    asked = "\n".join(path.read_text() for path in (DOCS / "reference").glob("*.md"))
    folders = re.findall(r"^<!-- modules: (\S+) -->$", asked, re.M)
    assert len(folders) == len(set(folders))
    covered = {module for folder in folders for module in hooks["modules"](folder)}
    here = ROOT / "jmrec" / name
    there = {path.relative_to(ROOT).with_suffix("").as_posix() for path in here.rglob("*.py")}
    modules = {each.replace("/", ".") for each in there if not each.endswith("__init__")}
    assert modules - covered == set()
    package = importlib.import_module(f"jmrec.{name}")
    for public in getattr(package, "__all__", dir(package)):
        module = getattr(getattr(package, public), "__module__", None) or ""
        if not public.startswith("_") and module.startswith(f"jmrec.{name}."):
            assert module in covered, public


def test_the_reference_and_the_help_have_every_name_of_the_face() -> None:
    import jmrec

    page = read("docs/reference/python.md")
    assert "<!-- modules: jmrec/api -->" in page
    for name in {*jmrec.__all__, "open"} - {"__version__"}:
        found = getattr(jmrec, name)
        assert (found.__doc__ or "").strip(), name
        module = getattr(found, "__module__", found.__name__)
        assert module.startswith("jmrec.api.") or f"jmrec.{name}" in page, name


def test_a_page_gets_what_it_asks_for() -> None:
    shown = hooks["expanded"](
        "# A\n\n<!-- section: A loss -->\n\n<!-- modules: jmrec/metrics -->\n"
    )
    assert "soft_margin" in shown
    assert '```python title="jmrec/losses/next_item.py"' in shown
    assert "A data set" not in shown
    assert "::: jmrec.metrics.ranks" in shown
    linked = "as [CONTRIBUTING](../../CONTRIBUTING.md#a-loss) says, [or](not.md)"
    assert hooks["expanded"](linked) == "as CONTRIBUTING says, [or](not.md)"
    with pytest.raises(ValueError, match="no heading 'A dream'"):
        hooks["expanded"]("<!-- section: A dream -->")
    help_of_all = hooks["commands"]()
    assert all(f"## jmrec {verb}" in help_of_all for verb in VERBS)


def test_a_notebook_shows_what_it_printed_until_it_changes(tmp_path: Path) -> None:
    percent = runpy.run_path(str(DOCS / "percent.py"))
    path, folder = tmp_path / "01_short.py", tmp_path / "01_short"
    path.write_text(
        "# %% [markdown]\n# # Short\n#\n# Words.\n\n# %%\nimport matplotlib.pyplot as plt\n"
        "print(6 * 7)\n\n# %% [markdown]\n# More.\n\n# %%\nplt.plot([1, 2])\n"
    )
    folder.mkdir()
    assert percent["outputs"](path) is None
    assert percent["STALE"] in percent["page"](path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPLBACKEND", "Agg")
        percent["run"](path, folder)
    made = percent["notebook"](path, folder)
    path.with_suffix(".ipynb").write_text(json.dumps(made))
    (first, none), (nothing, (png,)) = percent["outputs"](path)
    assert (first, none, nothing) == ("42\n", [], "")
    assert percent["figures"](path) == {"outputs/01_short/01-0.png": png}
    shown = percent["page"](path)
    assert shown.startswith("# Short\n\n*This page is")
    assert "print(6 * 7)\n```\n\n```text\n42\n```" in shown
    assert (
        "plt.plot([1, 2])\n```\n\n![What the cell above draws](outputs/01_short/01-0.png)" in shown
    )
    assert percent["STALE"] not in shown
    path.write_text(path.read_text().replace("7", "8"))
    assert "42" not in percent["page"](path)


def test_a_docstring_is_shown_with_its_formula_as_code() -> None:
    shown = runpy.run_path(str(DOCS / "griffe_fields.py"))["shown"]
    before = (
        "Return <s, i> of `<b>`.\n\nUse: where x\n  is.\nFormula: a < b.\n\nArgs:\n  x: 1.\n\n"
        "Example:\n  >>> 1 < 2"
    )
    assert shown(before) == (
        "Return &lt;s, i> of `<b>`.\n\n**Use:** where x is.\n\n**Formula:** `a < b`\n\nArgs:\n"
        "  x: 1.\n\nExamples:\n  >>> 1 < 2"
    )


def test_a_page_of_a_leaderboard_is_what_its_files_say() -> None:
    boards = [
        path for path in (DOCS / "results").glob("leaderboard-*.json") if ".cost" not in path.name
    ]
    assert boards
    for path in boards:
        assert path.with_suffix(".md").read_text() == leaderboard_page(*read_board(path))
