"""jmrec forget: nothing of somebody is left in a workdir, all others are as they were."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jmrec.config import ConfigDict, load_config
from jmrec.data import records
from jmrec.data.prepared import load_prepared
from jmrec.data.schema import SPLITS, Dataset
from jmrec.evaluation.dump import DUMPED
from jmrec.evaluation.protocol import ask
from jmrec.evaluation.windows import read_units
from jmrec.features import read_features
from jmrec.lock import only_writer, unsettled
from jmrec.main import main
from jmrec.systems.mmrec.system import Mmrec
from jmrec.systems.registry import open_run, run
from jmrec.tracking import Tracker
from tests.kills import copied_at_each_step
from tests.unit.systems.mmrec.small import small_config, write_folder

ROOT = Path(__file__).resolve().parents[2]
GONE, OTHER, LATE = "person-3-x", "person-4-x", "person-late-x"
ONLY = ("nobody-but-verdicts-1", "nobody-but-verdicts-2")


def people_folder(folder: Path, visits: bool = False) -> list[dict[str, str]]:
    """Write a folder whose ids and reviews are found wherever they stand; return its rows."""
    write_folder(folder)
    path = folder / "interactions.csv"
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for number, row in enumerate(rows):
        row["user_id"] = f"person-{row['user_id'][1:]}-x"
        if row["review"]:
            row["review"] += f" Told by {row['user_id']} as number{number}."
    if visits:
        clicks: dict[str, int] = {}
        for row in rows:  # four clicks of a user are a visit
            user = row["user_id"]
            click = clicks[user] = clicks.get(user, -1) + 1
            visit = 1000 * int(user.split("-")[1]) + click // 4
            row["session_id"] = f"visit-{visit}-x"
            begin = 1_700_000_000 + (visit * 7919 % 997) * 5000
            row["timestamp"] = str(begin + 60 * click)
            if user != GONE and visit % 3 == 0:  # guests
                row["user_id"] = ""
        (folder / "dataset.toml").write_text('[dataset]\nname = "small"\n')
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return rows


def holding(workdir: Path, words: list[str]) -> list[str]:
    """Return which files hold one of some words; prepared data is read record by record."""
    found = []
    for path in sorted(each for each in workdir.rglob("*") if each.is_file()):
        data = path.read_bytes() + path.name.encode()
        found += [f"{path.name}: {word}" for word in words if word.encode() in data]
    data = load_prepared(workdir / "data/prepared")
    plain = [*(each for part in data.splits.values() for each in part.ids)]
    if data.ratings is not None:
        plain += [*data.ratings.user_ids, *data.ratings.reviews]
    return found + [f"prepared: {w}" for w in words if any(w in each for each in plain)]


def opened(workdir: Path) -> Any:
    with Tracker(workdir, writes=False, quiet=True) as tracker:
        return open_run(workdir, tracker)


# ---- a run that ranks pairs --------------------------------------------------------------------


@pytest.fixture(scope="module")
def pairs(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, list[dict[str, str]], ConfigDict]:
    top = tmp_path_factory.mktemp("pairs")
    rows = people_folder(top / "folder")
    said = [("i1", GONE), ("i2", ONLY[0]), ("i3", ONLY[1]), ("i4", OTHER), ("i5", ONLY[0])]
    lines = [f"{item},{user},drop" for item, user in said]
    (top / "verdicts.csv").write_text("\n".join(["item_id,user_id,verdict", *lines]) + "\n")
    config = small_config(top / "folder", "arm=text,writer=extract")
    config.describe.user = ("extract",)
    config.data.verdicts = str(top / "verdicts.csv")
    how: dict[str, Any] = {"resume": "auto", "stale": "stop", "command": ["jmrec", "run"]}
    run(config, top / "run", **how)
    return top / "run", rows, config


def test_nothing_of_a_user_is_left_in_a_run_that_ranks_pairs(
    pairs: tuple[Path, list[dict[str, str]], ConfigDict], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    workdir = Path(shutil.copytree(pairs[0], tmp_path / "run"))
    own = [row["review"] for row in pairs[1] if row["user_id"] == GONE and row["review"]]
    words = [GONE, ONLY[0], *(f"number{each.split('number')[1]}" for each in own)]
    assert (
        len({each.split(":")[0] for each in holding(workdir, words)}) >= 4
    )  # else it shows little
    before, ids = opened(pairs[0]), load_prepared(workdir / "data/prepared").items.ids
    names = ["--user", GONE, "--user", ONLY[0]]
    assert main(["forget", "--workdir", str(workdir), *names]) == 0
    said = capsys.readouterr().out
    count = sum(row["user_id"] == GONE for row in pairs[1])
    assert f"{count:,} rows with {len(own):,} reviews" in said
    assert "rankers/text-0" in said
    assert "align" in said
    assert "--data=as-prepared --stale=rerun" in said
    assert f"{pairs[0].parent / 'folder'} was not changed" in said
    assert holding(workdir, words) == []
    after = opened(workdir)
    check_others(before, after)
    ask_run(workdir, tmp_path, ids, capsys)


def check_others(before: Mmrec, after: Mmrec) -> None:
    """Compare splits, vectors and texts of all others, bit for bit."""
    gone = {GONE, ONLY[0]}
    was, now = before.data.ratings, after.data.ratings
    keep = np.array([was.user_ids[code] not in gone for code in was.users])
    assert now.users.tolist() == was.users[keep].tolist()
    assert [now.user_ids[c] for c in now.users] == [was.user_ids[c] for c in was.users[keep]]
    assert now.reviews == [text for text, k in zip(was.reviews, keep) if k]
    number = np.cumsum(keep) - 1
    for name, rows in vars(after.data.known.splits).items():
        old = getattr(before.data.known.splits, name)
        assert rows.tolist() == number[old[keep[old]]].tolist()
    told = [read_features(each.work.workdir / "read/reviews.safetensors").arrays["reviews"]
            for each in (before, after)]  # fmt: skip
    assert told[1].tobytes() == told[0][keep].tobytes()
    for by in ("item", "user"):
        cuts = before.data.cuts[by], after.data.cuts[by]
        texts = [each.texts.texts(by, "extract") for each in (before, after)]
        read = [each.reader.told(by, "extract") for each in (before, after)]
        old = {(int(g), tuple(number[rows])): n
               for n, (g, rows) in enumerate(zip(cuts[0].group, cuts[0].rows))
               if keep[rows].all()}  # fmt: skip
        same = 0
        for n, (group, rows) in enumerate(zip(cuts[1].group, cuts[1].rows)):
            if (place := old.get((int(group), tuple(rows)))) is not None:
                same += 1
                assert texts[1][n] == texts[0][place]
                assert read[1][n].tobytes() == read[0][place].tobytes()
        assert same > len(cuts[1].group) // 4
    params = [each.work.params("rankers/text-0", task(each).model) for each in (before, after)]
    assert str(params[0]) == str(params[1])


def task(system: Mmrec) -> Any:
    return system.rankers.task("text", system.rankers.parts("text"))


def ask_run(workdir: Path, top: Path, ids: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Recommend, export and inspect; users who are gone are as strangers."""
    capsys.readouterr()
    for user, known in ((OTHER, True), (GONE, False), (ONLY[1], True)):
        words = ["--user", user, "--top", "3", "--row", "text", "--json"]
        assert main(["recommend", "--workdir", str(workdir), *words]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["known"] == known
        assert {each["item_id"] for each in found["items"]} <= set(ids)
    assert main(["export", "--workdir", str(workdir), "--out", str(top / "serve")]) == 0
    users = json.loads((top / "serve/users.json").read_text())["ids"]
    assert ONLY[1] in users
    assert not {GONE, ONLY[0], ""} & set(users)
    assert main(["inspect", str(workdir)]) == 0
    capsys.readouterr()


def test_a_later_run_says_it_and_trains_anew_on_the_same_splits(
    pairs: tuple[Path, list[dict[str, str]], ConfigDict], tmp_path: Path
) -> None:
    workdir, how = Path(shutil.copytree(pairs[0], tmp_path / "run")), {"resume": "auto"}
    assert main(["forget", "--workdir", str(workdir), "--user", GONE]) == 0
    before = opened(workdir).data.known.splits
    with pytest.raises(Exception, match=r"whom jmrec forget has taken out since; --stale=rerun"):
        run(pairs[2], workdir, stale="stop", command=[], **how)
    run(pairs[2], workdir, stale="rerun", command=[], **how)
    after = opened(workdir).data.known.splits
    assert [each.tolist() for each in vars(after).values()] == [
        each.tolist() for each in vars(before).values()
    ]
    run(pairs[2], workdir, stale="stop", command=[], **how)
    assert holding(workdir, [GONE]) == []


def test_unknown_people_change_nothing(
    pairs: tuple[Path, list[dict[str, str]], ConfigDict], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    workdir = Path(shutil.copytree(pairs[0], tmp_path / "run"))
    files = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}
    asks = [
        (["--user", "somebody"], "holds no user 'somebody'; look at the spelling"),
        (["--user", GONE, "--session", "s"], "holds no session 's'"),
        ([], "nobody is named"),
    ]
    for words, sentence in asks:
        assert main(["forget", "--workdir", str(workdir), *words]) == 2
        assert sentence in capsys.readouterr().err
    for path, data in files.items():
        assert path.name == "workdir.lock" or path.read_bytes() == data
    assert main(["forget", "--workdir", str(workdir), "--user", GONE]) == 0
    assert main(["forget", "--workdir", str(workdir), "--user", GONE]) == 2
    assert "taken out before" in capsys.readouterr().err
    assert main(["forget", "--workdir", str(tmp_path / "no"), "--user", GONE]) == 2
    assert main(["forget", "--workdir", str(tmp_path), "--user", GONE]) == 2


class Kill(BaseException):
    """Ends everything at once, as a signal would."""


@pytest.mark.parametrize("kill", [0, 1, 4])
def test_a_killed_forget_is_old_or_new_for_whoever_comes_next(
    pairs: tuple[Path, list[dict[str, str]], ConfigDict], tmp_path: Path, kill: int,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    workdir = Path(shutil.copytree(pairs[0], tmp_path / "run"))
    count, real = iter(range(1000)), Path.replace

    def replace(self: Path, target: Any) -> Path:
        if "changes" in self.parts and next(count) == kill:
            raise Kill
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        with pytest.raises(Kill):
            main(["forget", "--workdir", str(workdir), "--user", GONE])
    assert unsettled(workdir)
    words = ["--user", OTHER, "--top", "3"]
    assert main(["recommend", "--workdir", str(workdir), *words]) == 0
    assert not unsettled(workdir)
    assert holding(workdir, [GONE]) == []
    assert main(["forget", "--workdir", str(workdir), "--user", GONE]) == 2
    assert "taken out before" in capsys.readouterr().err


# ---- data that was prepared with --records ------------------------------------------------------


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, str]]]:
    top = tmp_path_factory.mktemp("recorded")
    rows = people_folder(top / "folder")
    toml = top / "folder/dataset.toml"
    toml.write_text(toml.read_text().replace("[items]", "session_gap_minutes = 4320\n[items]"))
    words = [str(top / "folder"), "--out", str(top / "out"), "--records"]
    assert main(["data", "prepare", *words]) == 0
    return top / "out", rows


def all_texts(out: Path, rows: int) -> list[str]:
    """Return every id and review that prepared data holds, as jmrec reads it and as records."""
    data = load_prepared(out)
    assert data.ratings is not None
    assert len(data.ratings) == rows
    found = [*data.ratings.user_ids, *data.ratings.reviews]
    how = {"users": len(data.ratings.user_ids), "label": "", "label_means": ""}
    held = records.read_ratings(out, **how)  # type: ignore[arg-type]
    assert held.reviews == data.ratings.reviews
    assert held.items.tolist() == data.ratings.items.tolist()
    for split in SPLITS:
        session = records.read_sessions(out, split)
        assert session.ids == data.splits[split].ids
        assert session.items.tolist() == data.splits[split].items.tolist()
        found += session.ids
    return [*found, *held.user_ids, *held.reviews]


def test_nothing_is_left_in_the_records_that_other_programs_read(
    recorded: tuple[Path, list[dict[str, str]]], tmp_path: Path
) -> None:
    out = Path(shutil.copytree(recorded[0], tmp_path / "out"))
    own = [row for row in recorded[1] if row["user_id"] == GONE]
    words = [GONE, *(row["review"].split()[-1] for row in own if row["review"])]
    count = len(recorded[1])
    assert all(any(word in text for text in all_texts(out, count)) for word in words)
    assert main(["forget", "--workdir", str(out), "--user", GONE]) == 0
    texts = all_texts(out, count - len(own))
    assert not [word for word in words if any(word in text for text in texts)]
    for path in sorted(each for each in out.rglob("*") if each.is_file()):
        data = path.read_bytes()
        assert not [word for word in words if word.encode() in data], path
    metadata = json.loads((out / "metadata.json").read_text())
    assert sorted(metadata["checksums"]) == sorted(p.name for p in (out / "flat").iterdir())


def same_data(one: Dataset, other: Dataset) -> bool:
    assert one.ratings is not None
    assert other.ratings is not None
    parts = [*zip(one.splits.values(), other.splits.values()), (one.ratings, other.ratings)]
    return one.fingerprint == other.fingerprint and all(
        str(vars(a)) == str(vars(b)) for a, b in parts
    )


def test_a_kill_at_any_step_leaves_old_or_new_data_and_it_can_be_ended(
    recorded: tuple[Path, list[dict[str, str]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = Path(shutil.copytree(recorded[0], tmp_path / "out"))
    words = ["forget", "--user", GONE, "--workdir"]
    with copied_at_each_step(out, tmp_path / "killed", monkeypatch):
        assert main([*words, str(out)]) == 0
    old, new = load_prepared(recorded[0]), load_prepared(out)
    assert not same_data(old, new)
    rows = {len(data.ratings): data for data in (old, new) if data.ratings is not None}
    files = {path.relative_to(out) for path in out.rglob("*")}
    states = []
    for copy in sorted((tmp_path / "killed").iterdir()):
        with only_writer(copy, print):
            pass  # whoever comes next puts in place what counts
        found = load_prepared(copy)
        assert found.ratings is not None
        states.append(same_data(found, new))
        assert states[-1] or same_data(found, old)
        assert {path.relative_to(copy) for path in copy.rglob("*")} == files
        if len(states) == 1 or sum(states) == 1:  # the first of each
            assert main([*words, str(copy)]) == (2 if states[-1] else 0)
            assert same_data(load_prepared(copy), new)
            texts = all_texts(copy, min(rows))
            assert not [text for text in texts if GONE in text]
    assert states == sorted(states)  # from one step on it is the new
    assert 10 < sum(states) < len(states)


# ---- a run that ranks items for sessions -------------------------------------------------------


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, str]]]:
    top = tmp_path_factory.mktemp("sessions")
    rows = people_folder(top / "folder", visits=True)
    config = load_config(
        f"{ROOT}/experiments/session.py:data=folder,size=tiny,items=ids,encoder=student,teacher=rules",
        [f"--config.data.dir={top / 'folder'}", "--config.student.train.steps=2",
         "--config.student.train.eval_every=2", "--config.student.train.batch_size=16",
         "--config.students.student.distill=topk_kl", "--config.data.window=6",
         "--config.teach.folds=2", "--config.evaluate.serve=student"],
    )  # fmt: skip
    run(config, top / "run", resume="auto", stale="stop", command=["jmrec", "run"])
    dump = ["--split", "test", "--dump-topk", str(top / "run/topk")]
    assert main(["evaluate", "--workdir", str(top / "run"), *dump]) == 0
    return top / "run", rows


def test_nothing_of_a_user_is_left_in_a_run_of_sessions(
    sessions: tuple[Path, list[dict[str, str]]], tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    workdir = Path(shutil.copytree(sessions[0], tmp_path / "run"))
    before = load_prepared(workdir / "data/prepared")
    theirs = {row["session_id"] for row in sessions[1] if row["user_id"] == GONE}
    shown = before.splits["test"].ids[0]  # and one that the reports may show
    gone = theirs | {shown}
    asked = ["--user", GONE, "--session", shown]
    answer = ["recommend", "--workdir", str(workdir), "--items", "i1,i2", "--json"]
    capsys.readouterr()
    assert main(answer) == 0
    said = capsys.readouterr().out
    assert main(["forget", "--workdir", str(workdir), *asked]) == 0
    assert "students/student-0" in capsys.readouterr().out
    assert main(answer) == 0
    assert capsys.readouterr().out == said  # parameters and rows of items are as they were
    assert holding(workdir, [GONE, *gone]) == []
    after = load_prepared(workdir / "data/prepared")
    for name, part in before.splits.items():
        assert after.splits[name].ids == [each for each in part.ids if each not in gone]
    # The soft labels of all others, and what is kept of each session that was tested.
    keep = np.repeat([each not in gone for each in before.splits["train"].ids],
                     before.splits["train"].lengths)  # fmt: skip
    tables = [read_features(each / "teach/lessons.safetensors").arrays
              for each in (sessions[0], workdir)]  # fmt: skip
    for name, array in tables[0].items():
        assert tables[1][name].tobytes() == array[keep].tobytes()
    check_tested(sessions[0], workdir, gone)
    assert main(["export", "--workdir", str(workdir), "--out", str(tmp_path / "serve")]) == 0


def check_tested(old: Path, new: Path, gone: set[str]) -> None:
    """Compare dumps, units and examples with those of before."""
    before, after = (load_prepared(each / "data/prepared") for each in (old, new))
    ids = [data.splits["test"].ids for data in (before, after)]
    dumps = sorted(path.name for path in (old / "topk").glob("*.npz"))
    assert dumps == sorted(path.name for path in (new / "topk").glob("*.npz"))
    for name in dumps:
        with np.load(old / "topk" / name) as was, np.load(new / "topk" / name) as now:
            rows = np.array([ids[0][each] not in gone for each in was["session"]])
            assert not rows.all()
            assert [ids[1][n] for n in now["session"]] == [
                ids[0][n] for n, keep in zip(was["session"], rows) if keep
            ]
            for each in DUMPED[1:]:
                np.testing.assert_array_equal(now[each], was[each][rows])
    for folder in ("evaluate", "evaluate-test"):
        was, now = (read_units(each / folder / "units.npz") for each in (old, new))
        tested = np.unique(ask(before, "test").session)
        stays = np.array([ids[0][n] not in gone for n in tested])
        np.testing.assert_array_equal(now.values, was.values[:, :, stays])
        left = np.unique(ask(after, "test").session)
        users = after.splits["test"].users[left]
        np.testing.assert_array_equal(now.cluster, np.where(users >= 0, users, -1 - left))
        examples = [json.loads((each / folder / "results.json").read_text())["examples"]
                    for each in (old, new)]  # fmt: skip
        was_shown = [ids[0][each["session"]] for each in examples[0]["sessions"]]
        now_shown = [ids[1][each["session"]] for each in examples[1].get("sessions", ())]
        assert now_shown == [each for each in was_shown if each not in gone]


def test_prepared_data_and_a_run_that_is_not_finished(
    sessions: tuple[Path, list[dict[str, str]]], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    workdir, out = tmp_path / "run", tmp_path / "out"
    shutil.copytree(sessions[0], workdir)
    shutil.copytree(workdir / "data/prepared", out)
    path = workdir / "students/student-0/stage.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "done": False}))
    assert main(["forget", "--workdir", str(workdir), "--user", GONE]) == 0
    said = capsys.readouterr().out
    assert "not finished: evaluate, teach, students/student-0 went too" in said
    assert not (workdir / "teach").exists()
    assert not path.exists()
    assert holding(workdir, [GONE]) == []
    # Prepared data says nobody's sessions by itself: the folder does.
    assert main(["forget", "--workdir", str(out), "--user", GONE]) == 2
    assert "--dir" in capsys.readouterr().err
    folder = ["--dir", str(sessions[0].parent / "folder")]
    assert main(["forget", "--workdir", str(out), "--user", GONE, *folder]) == 0
    one, other = load_prepared(out), load_prepared(workdir / "data/prepared")
    assert one.fingerprint == other.fingerprint
