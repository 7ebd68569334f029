"""Every command that README and docs/ show is run here, on a small shop, in one session.

Only those whose comment says what they need ("# needs hours") are left out. The folder of the
session holds what the pages speak of: SHOP, files of new clicks, settings in a file. What trains
gets fewer updates than the page's own command; nothing else is changed.
"""

import csv
import http.client
import json
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jmrec.config import load_config
from jmrec.data.toyshop import ToyShopConfig, write_toyshop
from jmrec.main import main
from tests import tiny
from tests.integration.load_serve import HOST, serving
from tests.pages import MARK, ROOT, SHOWN, commands, fenced, read

ORDER = [
    "README.md",
    *(f"docs/how-to/{name}.md" for name in (
        "own-data", "data-check", "plan", "settings", "evaluate", "leaderboard", "sessions",
        "serving", "people", "resume", "rare-class")),
    "docs/explanation/mutual-information.md",
]  # fmt: skip
"""Pages with commands that are run, in the order of the session: later ones use earlier runs."""
FEW = {
    "tpad": [*tiny.SHAPES, *tiny.updates(2), *tiny.updates(4, "student")],
    "session": ["--config.student.train.steps=4", "--config.student.train.eval_every=2",
                "--config.student.train.batch_size=8", "--config.seeds=(0,)",
                "--config.data.toyshop.n_items=60", "--config.data.toyshop.sessions=200"],
    "mmrec": ["--config.data.toyshop.n_items=80", "--config.data.toyshop.reviews=1200",
              "--config.data.toyshop.users=40", "--config.align.train.steps=2",
              "--config.rank.train.steps=4", "--config.rank.train.eval_every=2"],
    "gaussians": ["--config.train.steps=4", "--config.evaluate.samples=256"],
}  # fmt: skip
"""System -> overrides that make a run of it short."""
FORMS = (
    r"jmrec ", r"bash launch/\w+\.sh", r"\. \.venv/bin/activate\b", r"pip install", r"mkdocs ",
    r"python \S+\.py", r"curl ", r"JMREC_\w+=\S+ bash launch/\w+\.sh", r"sbatch .*# needs SLURM",
    r"docker .*# needs Docker", r"kubectl .*# needs Kubernetes",
)  # fmt: skip
"""What a line of shell on a page may be: launchers have tests of their own."""
SCRIPT = re.compile(r"launch/\w+\.\w+|(?<=python )\S+\.py")


def write_shop(folder: Path) -> None:
    """Write a folder as a shop has it: ids that are numbers, people, and no description."""
    write_toyshop(folder, ToyShopConfig(seed=3, items=80, sessions=240))
    (folder / "truth.npz").unlink()
    (folder / "dataset.toml").unlink()
    for name in ("items.csv", "interactions.csv"):
        with (folder / name).open(newline="") as file:
            rows = list(csv.DictReader(file))
        for row in rows:
            row["item_id"] = str(int(row["item_id"].removeprefix("t")))
            if name == "interactions.csv":
                row["user_id"] = str(4650 + int(row["session_id"].removeprefix("s")) // 3)
        write_csv(folder / name, rows)


def write_csv(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def add_items() -> None:
    """Add an item to the folder, as a shop does after training."""
    shutil.copy("SHOP/items.csv", "before.csv")
    with Path("SHOP/items.csv").open("a", newline="") as file:
        csv.writer(file).writerow(["900", "A new satchel", "Just in.", "Hokuto", "", "9.5", ""])


def take_items_back() -> None:
    """Let the folder be what the run was trained on."""
    shutil.copy("before.csv", "SHOP/items.csv")


def export_to_count_on() -> None:
    """Serve a rule of the run, which counts on."""
    words = ["export", "--workdir", "runs/shop", "--out", "serve", "--updatable", "--row", "V-SKNN"]
    assert main(words) == 0


def write_files() -> None:
    """Write what the pages name as files of the reader."""
    Path("policy.toml").write_text('block = ["11"]\n')
    (mine,) = re.findall(r"```yaml\n# mine.yaml\n(.*?)```", read("docs/how-to/settings.md"), re.S)
    Path("mine.yaml").write_text(mine)
    late = 1_760_000_000
    clicks = [
        ("9001", "n1", "12", late),
        ("9001", "n1", "901", late + 60),
        ("9001", "n1", "3", late + 90),
    ]
    write_csv(Path("week32.csv"), [
        {"session_id": session, "item_id": item, "timestamp": str(time), "user_id": user}
        for user, session, item, time in clicks
    ])  # fmt: skip
    new = dict.fromkeys(("title", "description", "brand", "details", "price", "image"), "")
    write_csv(Path("new_items.csv"), [{"item_id": "901", **new, "title": "A lamp"}])
    Path("results").mkdir()
    for kind in ("json", "cost.json"):
        board = ROOT / "docs/results" / f"leaderboard-movies.{kind}"
        shutil.copy(board, Path("results") / f"shop.{kind}")


BEFORE: dict[str, Callable[[], object]] = {
    "jmrec embed": add_items,
    "jmrec inspect runs/shop runs/other": lambda: shutil.copytree("runs/shop", "runs/other"),
    "jmrec run --config session:data=folder,size=small,items=both": take_items_back,
    "jmrec remember --workdir runs/shop --interactions": export_to_count_on,
}
"""Beginning of a command -> what happened before it, in the page's own words."""


def run(line: str) -> None:
    """Run a command as a page shows it; an experiment with fewer updates."""
    words = shlex.split(line, comments=True)[1:]
    if words[0] == "serve":
        with serving(Path(words[1]), Path("log")) as (port, _):
            asked = http.client.HTTPConnection(HOST, port, timeout=60)
            asked.request("GET", "/health")
            assert asked.getresponse().status == 200
        return
    if words[0] == "run":
        system = load_config(words[words.index("--config") + 1]).system
        words += FEW[system]
        if system == "gaussians":
            words += ["--config.estimators=infonce", "--config.nats=(2.0,)"]
    assert main(words) == 0, line


def shown() -> Iterator[tuple[str, str]]:
    """Yield (page, command) of the session, each command once."""
    seen: set[str] = set()
    for page in ORDER:
        for line in commands(page):
            words = " ".join(shlex.split(line, comments=True))
            if not MARK.search(line) and words not in seen:
                seen.add(words)
                yield page, line


def test_every_command_is_run_or_says_what_it_needs() -> None:
    run_here = {line for _, line in shown()}
    for page in SHOWN:
        left = [line for line in commands(page) if not MARK.search(line)]
        assert page in ORDER or not left, page
    assert len(run_here) > 30


@pytest.mark.parametrize("page", SHOWN)
def test_every_other_line_of_shell_is_of_a_known_form(page: str) -> None:
    for line in fenced(page):
        assert any(re.match(form, line) for form in FORMS), line
        for named in SCRIPT.findall(line):
            assert (ROOT / named).is_file(), line


def test_the_session_of_all_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_shop(tmp_path / "SHOP")
    write_files()
    for _, line in shown():
        for begins, prepare in BEFORE.items():
            if line.startswith(begins):
                prepare()
        run(line)
        if line.startswith("jmrec recommend --serve"):  # the page goes on in Python
            (python,) = re.findall(
                r"^```python\n(.*?)^```$", read("docs/how-to/serving.md"), re.M | re.S
            )
            space: dict[str, Any] = {}
            exec(python, space)
            assert space["lists"][1].unknown == ["gone"]
    # What pages say of it afterwards.
    assert (tmp_path / "runs/shop/evaluate/report.html").is_file()
    kept = json.loads((tmp_path / "runs/mine/config.json").read_text())
    assert kept["student"]["train"]["learning_rate"] == 0.003
    with (tmp_path / "SAFE/interactions.csv").open(newline="") as file:
        assert "4651" not in {cell for row in csv.reader(file) for cell in row}  # codes hold digits
