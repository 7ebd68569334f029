"""What can be asked of a run of "mmrec": a tiny made-up folder, from a run to recommendations."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from jmrec.data.known import SETTLED
from jmrec.main import main
from jmrec.serving import ServedPairs, load_pairs
from jmrec.systems.mmrec.serve import pair_artefact
from jmrec.systems.mmrec.system import Mmrec
from jmrec.systems.registry import open_run
from jmrec.systems.system import Ranks, RanksPairs
from jmrec.tracking import Tracker

ROOT = Path(__file__).resolve().parents[2]
ITEMS, USERS, ROWS, DAY = 30, 16, 420, 86_400
GOOD, BAD = "warm, clever and fun", "slow, cold and dull"
STEPS = [f"--config.{group}.train.steps=4" for group in ("rank", "align")]


def write_folder(folder: Path) -> None:
    """Write a folder of films with reviews; item 29 and user u15 have no row."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    kinds = ["war", "love", "music"]
    (folder / "items.csv").write_text("item_id,title,kind,year\n" + "".join(
        f"f{row:02},Film {row:02} of {kinds[row % 3]},{kinds[row % 3]},{1950 + row}\n"
        for row in range(ITEMS)
    ))  # fmt: skip
    lines = ["item_id,user_id,timestamp,score,review"]
    for row in range(ROWS):
        item, user = int(rng.integers(0, ITEMS - 1)), int(rng.integers(0, USERS - 1))
        bad = rng.random() < (0.6 if item % 3 == user % 3 else 0.2)
        words = f"{BAD if bad else GOOD} scene {rng.integers(0, 9)}" if rng.random() < 0.9 else ""
        time = 1_600_000_000 + (row // 4) * DAY
        lines.append(f'f{item:02},u{user:02},{time},{0.2 if bad else 0.8},"{words}"')
    (folder / "interactions.csv").write_text("\n".join(lines) + "\n")
    (folder / "dataset.toml").write_text(
        '[dataset]\nname = "films"\n[items]\nid = "item_id"\ntitle = "title"\n'
        'category_columns = ["kind"]\nnumber_columns = ["year"]\n[interactions]\n'
        'item = "item_id"\nuser = "user_id"\ntime = "timestamp"\nrating = "score"\n'
        'review = "review"\nlabel = "score <= 0.5"\nlabel_means = "avoid"\n'
    )


def words(folder: Path, workdir: Path, *more: str) -> list[str]:
    """Return the command line of a run."""
    spec = f"{ROOT / 'experiments/mmrec.py'}:data=folder,size=tiny,arm=text,split=time_within_item"
    return [
        "run", "--config", spec, "--workdir", str(workdir), f"--config.data.dir={folder}",
        "--config.read.picture=none", "--config.evaluate.rivals=False", "--config.read.width=8",
        "--config.describe.sizes=(2, 4)", *STEPS, *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mmrec")
    write_folder(folder / "films")
    assert main(words(folder / "films", folder / "run")) == 0
    return folder / "run"


@pytest.fixture(autouse=True)
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Export without the new processes that time its start."""
    monkeypatch.setattr("jmrec.systems.serve_pairs.cold_start", lambda out, asked: {"load": 0.0})


def asked(capsys: pytest.CaptureFixture[str], *command: Any) -> tuple[int, str, str]:
    """Return the exit code, what was printed and what was said beside it."""
    capsys.readouterr()
    code = main([str(word) for word in command])
    out, beside = capsys.readouterr()
    return code, out, beside


def test_what_it_can_is_known_by_its_methods(run: Path) -> None:
    with Tracker(run, writes=False) as tracker:
        system = open_run(run, tracker)
    assert isinstance(system, RanksPairs)
    assert not isinstance(system, Ranks)


def test_scores_are_the_runs_own_to_the_last_bit(run: Path) -> None:
    with Tracker(run, writes=False) as tracker:
        system = open_run(run, tracker)
        assert isinstance(system, Mmrec)
        ratings, rows = system.data.ratings, system.data.rows.test
        expected = system.rankers.logits("text", rows)[0]
        for place in (0, len(rows) // 2, len(rows) - 1):
            row = rows[place]
            day = int(system.data.known.day[row])
            made = pair_artefact(system, "text", day=day, may=SETTLED)
            served = ServedPairs(made, "memory")
            user = ratings.user_ids[ratings.users[row]]
            assert served.logits(user)[ratings.items[row]] == expected[place]
            known = np.concatenate(system.data.known.levels[SETTLED : SETTLED + 1])
            own = known[(ratings.users[known] == ratings.users[row])
                        & (system.data.known.day[known] < day)]  # fmt: skip
            assert made.rated[served.user_row(user)].tolist() == sorted(set(ratings.items[own]))


def test_everything_is_known_in_the_end(run: Path) -> None:
    with Tracker(run, writes=False) as tracker:
        system = open_run(run, tracker)
        assert isinstance(system, Mmrec)
        ratings, made = system.data.ratings, pair_artefact(system, "item + user mean")
    for item in range(ITEMS):
        own = ratings.labels[ratings.items == item]
        assert made.items["count"][item] == len(own)
        assert made.items["sum"][item] == own.sum()
    for user in range(len(ratings.user_ids)):
        own = ratings.labels[ratings.users == user]
        assert (made.users["count"][user], made.users["sum"][user]) == (len(own), own.sum())
    assert made.users["count"][-1] == 0
    assert not len(made.rated[-1])


@pytest.mark.parametrize("row", ["text", "item + user mean", None])
def test_the_artefact_answers_as_the_run(
    run: Path, tmp_path: Path, row: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = ["--row", row] if row else []
    for name in ("one", "two"):
        assert main(["export", "--workdir", str(run), "--out", str(tmp_path / name), *chosen]) == 0
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
    results = json.loads((run / "evaluate" / "results.json").read_text())
    name = row or results["served"]["row"]
    served = load_pairs(tmp_path / "one")
    line = results["pairs"]["calibration"][name]
    assert served.artefact.row == name
    assert served.artefact.line.threshold == line["threshold"][0]
    assert served.artefact.line.platt.scale == line["scale"][0]
    for user in ("u03", "nobody"):
        answers = []
        for source in (["--workdir", run, *chosen], ["--serve", tmp_path / "one"]):
            code, out, _ = asked(capsys, "recommend", *source, "--user", user, "--json")
            assert code == 0
            answers.append(json.loads(out))
        assert answers[0] == answers[1] == served.recommend(user)
    cost = json.loads((run / "evaluate" / "cost.json").read_text())["serving"]
    assert (cost["served"]["name"], cost["items"], cost["asked"]) == (name, ITEMS, "user")
    assert "one user, median, ms" in (run / "evaluate" / "report.html").read_text()
    params = load_file(tmp_path / "one" / "ranker.safetensors")
    assert cost["served"]["parameters"] == sum(array.size for array in params.values())


def test_what_was_rated_and_what_is_too_probable_is_left_out(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = asked(
        capsys, "recommend", "--workdir", run, "--user", "u03", "--top", 99, "--json"
    )
    found = json.loads(out)
    with Tracker(run, writes=False) as tracker:
        ratings = open_run(run, tracker).data.ratings  # type: ignore[attr-defined]
    rated = set(ratings.items[ratings.users == ratings.user_ids.index("u03")])
    names = [each["item_id"] for each in found["items"]]
    assert code == 0
    assert not {f"f{item:02}" for item in rated} & set(names)
    assert len(names) + found["left_out"] + len(rated) == ITEMS
    chances = [each["probability"] for each in found["items"]]
    assert chances == sorted(chances)
    assert all(chance < found["threshold"] for chance in chances)


def test_the_table_for_people(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = tmp_path / "said.csv"
    said.write_text("item_id,user_id,verdict\nf29,,drop\nf29,u3,keep\n")
    more = ("--top", 99, "--verdicts", said)
    code, out, beside = asked(capsys, "recommend", "--workdir", run, "--user", "u3", *more)
    assert code == 0
    assert "user 'u3' is not known and is served as a new one; did you mean 'u" in beside
    assert "Film 29" in out
    assert "kept by hand" in out
    assert "Least probable first: score <= 0.5." in out
    _, out, beside = asked(capsys, "recommend", "--workdir", run, "--user", "u03", *more)
    assert "Film 29" not in out
    assert "not known" not in beside


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("recommend --workdir RUN --items f01", "ranks no items for sessions; recommend from it"),
        ("recommend --workdir RUN --user u03 --times 1", "--times says nothing of what --user"),
        ("recommend --workdir RUN --items f01 --verdicts x", "--verdicts says nothing of what"),
        ("recommend --workdir RUN", "one of the arguments --items --user is required"),
        ("recommend --workdir RUN --user u03 --row txt", 'did you mean "text"?'),
        ("recommend --workdir RUN --user u03 --policy FILE", "item 'f291' is not in the catalogue"),
        ("recommend --workdir RUN --user u03 --verdicts FILE", "there is not one column 'item_id'"),
        ("export --workdir RUN --out OUT --stablehlo", "leave out --stablehlo"),
        ("evaluate --workdir RUN --by month", "leave out --by"),
        ("evaluate --workdir RUN --counts live", "leave out --counts"),
        ("evaluate --workdir RUN --dump-topk OUT", "leave out --dump-topk"),
        ("embed --workdir RUN", "which reads no items after training"),
    ],
)
def test_what_can_not_be_asked_is_one_sentence(
    run: Path, tmp_path: Path, command: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text('block = ["f291"]\n')
    given = {"RUN": run, "OUT": tmp_path / "out", "FILE": tmp_path / "file"}
    code, out, beside = asked(capsys, *(given.get(word, word) for word in command.split()))
    assert (code, out) == (2, "")
    assert says in beside
    assert len(beside.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_either_split_is_evaluated_again(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    for split in ("validation", "test"):
        assert main(["evaluate", "--workdir", str(tmp_path / "run"), "--split", split]) == 0
    one, two, first = (
        json.loads((tmp_path / "run" / name / "results.json").read_text())
        for name in ("evaluate-validation", "evaluate-test", "evaluate")
    )
    assert (one["dataset"]["split"], two["dataset"]["split"]) == ("validation", "test")
    assert two["rows"] == first["rows"] != one["rows"]
    assert (first["test_reads"], two["test_reads"]) == (1, 2)


def test_verdicts_may_be_learned(run: Path, tmp_path: Path) -> None:
    films, said = run.parent / "films", tmp_path / "said.csv"
    said.write_text("item_id,user_id,verdict\nf29,u03,keep\nf28,newcomer,drop\nf28,,drop\n")
    line = words(films, tmp_path / "run", f"--config.data.verdicts={said}")
    assert main(line) == 0
    with Tracker(tmp_path / "run", writes=False) as tracker:
        system = open_run(tmp_path / "run", tracker)
        assert isinstance(system, Mmrec)
        data, made = system.data, pair_artefact(system, "text")
    assert len(data.ratings) == ROWS + 3
    assert data.ratings.labels[-3:].tolist() == [0, 1, 1]
    # Film 28 is among what is tested: a verdict for everybody would tell the answer.
    assert 28 in data.ratings.items[data.rows.test]
    assert [row in set(data.rows.train) for row in range(ROWS, ROWS + 3)] == [True, True, False]
    # No row of a test may know of them, and the item that is kept is not rated by that.
    for row in data.rows.test:
        assert (data.known.spans("item")[row] < ROWS).all()
    assert 29 not in made.rated[made.user_ids.index("u03")]
    assert "newcomer" in made.user_ids
    # A finished run answers on when the file has grown or is gone; a new run wants its stage anew.
    kept = said.read_text()
    for text in (kept + "f27,,drop\n", None):
        said.unlink() if text is None else said.write_text(text)
        assert main(["recommend", "--workdir", str(tmp_path / "run"), "--user", "u03"]) == 0
        assert main(line) == 2
    said.write_text(kept)
    assert main(line) == 0
    said.write_text("item_id,user_id,verdict\nf99,,drop\n")
    assert main([*line, "--stale=rerun"]) == 2
