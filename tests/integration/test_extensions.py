"""What CONTRIBUTING says of an extension is all that it takes: each is added to a copy, and runs.

The blocks of code are put where their first lines say, in a copy of the tree. Then the files that
were written or changed are counted, everything runs by the command on a small ToyShop, and the
copy's own tests pass.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from jmrec.features import read_features
from tests.integration.test_wheel import source_files

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w+) (file|append)=(\S+)\n(.*?)^```$", re.M | re.S)
ITEMS = 120
SHOP = (
    f"--config.data.toyshop.n_items={ITEMS}",
    "--config.data.toyshop.sessions=300",
    "--config.data.window=5",
)  # one bucket of lengths: half the compilations
STUDENT = (
    "--config.student.train.steps=4", "--config.student.train.eval_every=4",
    "--config.student.train.batch_size=16", "--config.student.stack.width=16",
)  # fmt: skip


@dataclass
class Touched:
    """What an extension touches: new files (a folder of its own is one), and lines put into others.

    In a table that is an import and an entry, 2 at most.
    """

    new: int = 0
    changed: set[str] = field(default_factory=set)
    lines: int = 0


# Section -> the design's count: new files or folders; files that gain lines; lines in tables.
ALLOWED = {
    "A session encoder": Touched(1, {"jmrec/models/sessions/table.py"}, 2),
    "One that is not causal": Touched(1, {"jmrec/models/sessions/table.py"}, 2),
    "A loss": Touched(
        0,
        {"jmrec/losses/next_item.py", "jmrec/losses/families.py", "tests/unit/losses/cases.py"},
        2,
    ),
    "A data set": Touched(),
    "An item reader": Touched(1, {"jmrec/systems/readers/table.py"}, 2),
    "A ranker": Touched(1, {"jmrec/evaluation/rankers/rules.py"}, 2),
    "A system": Touched(1, {"jmrec/systems/registry.py"}, 2),
    "A verb": Touched(1, {"jmrec/commands/__init__.py"}, 1),
    "An experiment": Touched(1),
}
NO_TABLE = {"jmrec/losses/next_item.py", "tests/unit/losses/cases.py"}


def sections(page: str) -> dict[str, str]:
    """Heading -> what stands below it."""
    parts = re.split(r"^##+ (.+)\n", page, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def put_between(text: str, wanted: str) -> str:
    """Put the lines of a block of the kind diff that begin with + behind the others, in order."""
    lines, place = text.splitlines(keepends=True), 0
    for line in wanted.splitlines(keepends=True):
        if line.startswith("+"):
            lines.insert(place, line[1:])
            place += 1
        else:
            place = lines.index(line[1:], place) + 1
    return "".join(lines)


def apply(section: str, tree: Path) -> None:
    """Do what the blocks of a section say."""
    for kind, how, name, text in BLOCK.findall(section):
        path = tree / name
        if kind == "diff":
            path.write_text(put_between(path.read_text(), text))
        elif how == "append":
            path.write_text(f"{path.read_text()}\n\n{text}")
        else:
            assert not path.exists(), f"{name} is there already"
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)


def snapshot(tree: Path) -> dict[str, str]:
    """Path -> contents of all text files but what Python and the runs leave."""
    return {
        path.relative_to(tree).as_posix(): path.read_text(encoding="utf-8", errors="replace")
        for path in tree.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def touched(before: dict[str, str], after: dict[str, str]) -> Touched:
    """Count what changed between two snapshots."""
    assert before.keys() <= after.keys()
    folders = {Path(name).parent for name in before}
    new = after.keys() - before.keys()
    units = {str(parent) if (parent := Path(name).parent) not in folders else name for name in new}
    changed = {name for name in before if after[name] != before[name]}
    tables = changed - NO_TABLE
    lines = sum(len(after[name].splitlines()) - len(before[name].splitlines()) for name in tables)
    return Touched(len(units), changed, lines)


def copied(folder: Path) -> Path:
    """Copy the tree, without what is not of the project."""
    for name in source_files():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)
    return folder


def ran(tree: Path, *words: str) -> str:
    """Run Python in a copy, with the copy's package; return what it printed."""
    done = subprocess.run(
        [sys.executable, *words], cwd=tree, env={**os.environ, "PYTHONPATH": str(tree)},
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy with every extension, whose files are counted one extension after the other."""
    folder, texts = copied(tmp_path_factory.mktemp("extended") / "jmrec"), sections(PAGE)
    before = snapshot(folder)
    for name, allowed in ALLOWED.items():
        apply(texts[name], folder)
        after = snapshot(folder)
        assert touched(before, after) == allowed, f"{name} touches more, or less, than it may"
        before = after
    return folder


def results(workdir: Path) -> tuple[dict, dict[str, str]]:
    """Return results.json of a run, and row -> kind."""
    found = json.loads((workdir / "evaluate" / "results.json").read_text())
    return found, {row["name"]: row["kind"] for row in found["rows"]}


@pytest.fixture(scope="module")
def encoders(tree: Path) -> Path:
    """A run of both encoders with the new loss, beside the new ranker."""
    workdir = tree.parent / "encoders"
    config = "experiments/session.py:size=tiny,encoder=average+rising"
    ran(
        tree, "-m", "jmrec", "run", "--config", config, "--config.student.loss=soft_margin",
        "--config.student.negatives=8", *STUDENT, *SHOP, "--workdir", str(workdir),
    )  # fmt: skip
    return workdir


def test_every_block_of_the_page_is_of_an_extension() -> None:
    named = {name: len(BLOCK.findall(text)) for name, text in sections(PAGE).items()}
    assert {name for name, count in named.items() if count} == ALLOWED.keys() - {"A data set"}
    assert PAGE.count("```") == 2 * sum(named.values())
    # The page as it is shown hides the first line of a block.
    shown = re.findall(
        r"^(New file|In|At the end of) `(\S+)`:\n\n```(\w+) (\w+)=(\S+)$", PAGE, re.M
    )
    assert len(shown) == sum(named.values())
    for where, name, kind, how, path in shown:
        assert name == path
        assert where == {"diff": "In", "append": "At the end of"}.get(
            kind if kind == "diff" else how, "New file"
        )


@pytest.mark.parametrize(
    "more",
    [
        "```python file=jmrec/commands/helpers.py\nx = 1\n```\n",
        "```diff file=jmrec/main.py\n import sys\n+import time\n```\n",
        '```diff file=jmrec/commands/__init__.py\n     "count",\n+    "recount",\n```\n',
    ],
    ids=["file", "other file", "line"],
)
def test_one_more_file_or_line_is_found(tmp_path: Path, more: str) -> None:
    tree, verb = copied(tmp_path), sections(PAGE)["A verb"]
    before = snapshot(tree)
    apply(verb, tree)
    assert touched(before, snapshot(tree)) == ALLOWED["A verb"]
    apply(more, tree)
    assert touched(before, snapshot(tree)) != ALLOWED["A verb"]


def test_encoders_loss_and_ranker_are_in_the_results(encoders: Path) -> None:
    found, kinds = results(encoders)
    assert kinds["average"] == kinds["rising"] == "student"
    assert kinds["together"] == "rule"
    config = json.loads((encoders / "config.json").read_text())
    assert config["student"]["loss"] == "soft_margin"
    assert {"students/average-0", "students/rising-0"} <= found["stages"].keys()
    rows = {row["name"]: row["figures"]["session"]["MRR@20"] for row in found["rows"]}
    assert len({rows["average"], rows["rising"], rows["together"]}) == 3


def test_exported_encoders_recommend_as_their_run_does(tree: Path, encoders: Path) -> None:
    """All commands in one process, which spares starting it."""
    index = json.loads((encoders / "item_index.json").read_text())
    asked = ["--items", ",".join(index[:3]), "--top", "5", "--json"]
    words = []
    for name in ("average", "rising"):
        own, out = ["--workdir", str(encoders), "--row", name], str(tree.parent / name)
        words += [["export", *own, "--out", out], ["recommend", *own, *asked],
                  ["recommend", "--serve", out, *asked]]  # fmt: skip
    code = (
        "from jmrec.main import main\n"
        f"for each in {words}:\n    print('>')\n    assert not main(each)"
    )
    said = ran(tree, "-c", code).split(">\n")[1:]
    for first, name in ((0, "average"), (3, "rising")):
        by_run, served = (json.loads(text) for text in said[first + 1 : first + 3])
        assert by_run == served
        kept = [path.read_text() for path in (tree.parent / name).rglob("*.json")]
        assert any(f'"model": "{name}"' in text for text in kept)
    assert said[1] != said[4]


def test_a_reader_reads_for_tpad(tree: Path) -> None:
    workdir = tree.parent / "reader"
    steps = [f"--config.{stage}.train.steps=2" for stage in ("transition", "distill", "student")]
    ran(
        tree, "-m", "jmrec", "run", "--config", "experiments/tpad.py:size=tiny,students=served",
        "--config.backbone.mode=bag", *STUDENT, *steps, *SHOP, "--workdir", str(workdir),
    )  # fmt: skip
    found, kinds = results(workdir)
    assert kinds["distilled"] == "student"
    assert "vision" not in found["stages"]
    e = read_features(workdir / "read" / "features.safetensors").arrays["both"]
    assert e.shape == (ITEMS, 131)


def test_a_system_of_two_stages_and_a_verb_on_its_run(tree: Path) -> None:
    workdir = tree.parent / "popular"
    ran(
        tree, "-m", "jmrec", "run", "--config", "experiments/session.py:size=tiny",
        "--config.system=popular", *SHOP, "--workdir", str(workdir),
    )  # fmt: skip
    found, kinds = results(workdir)
    assert found["system"] == "popular"
    assert kinds == {"popularity": "rule", "session popularity": "rule"}
    assert {path.parent.name for path in workdir.glob("*/stage.json")} == {"data", "evaluate"}
    assert ran(tree, "-m", "jmrec", "count", "--workdir", str(workdir)) == f"{ITEMS} items\n"


def test_the_copy_passes_its_own_tests(tree: Path) -> None:
    """Layers and style; the contract of the new loss, of the new encoders, of the new rule."""
    chosen = "house or circle or soft_margin or average or rising or lists or index or rules"
    files = [f"tests/unit/{name}.py" for name in (
        "test_layers", "losses/test_table", "losses/test_contract", "losses/test_calls",
        "models/test_sessions", "evaluation/test_rules",
    )]  # fmt: skip
    said = ran(
        tree, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", *files, "-k", chosen,
    )  # fmt: skip
    for name in (
        "test_layers.py::test_the_house_keeps_its_order",
        "test_table.py::test_every_public_loss_has_every_check[soft_margin]",
        "test_contract.py::test_values_are_those_of_the_closed_form[soft_margin]",
        "test_calls.py::test_every_next_item_loss_has_one_value_a_position_and_masks_the_rest"
        "[soft_margin]",
        "test_sessions.py::test_a_later_item_changes_no_earlier_state_and_padding_none[average]",
        "test_sessions.py::test_a_later_item_changes_no_earlier_state_and_padding_none[rising]",
        "test_rules.py::test_fit_rules_chooses_by_session_averaged_mrr",
    ):
        assert re.search(rf"^PASSED \S*{re.escape(name)}$", said, re.M), said[-4000:]
    ran(tree, "-m", "ruff", "check", ".")
    ran(tree, "-m", "ruff", "format", "--check", ".")
