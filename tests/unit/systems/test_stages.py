"""Stage identity: skipped, resumed, refused by name, redone with what follows."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from jmrec.checkpoint import save_params
from jmrec.errors import UserError
from jmrec.files import read_json, write_json
from jmrec.systems.costs import cost_by_stage, facts_by_stage
from jmrec.systems.fit import Fits, seeded
from jmrec.systems.sealed import read_stage
from jmrec.systems.stages import Stage, Together, check_run, walk
from jmrec.tracking import Tracker
from jmrec.training import Member, Trainer


def make(log: list[str], width: int = 1, fail: bool = False) -> list[Stage]:
    def stage(name: str):
        def run(folder: Path) -> None:
            log.append(name)
            if fail and name == "b":
                raise KeyboardInterrupt
            (folder / "out").write_text(name)

        return run

    return [
        Stage("a", {"width": width}, (), stage("a")),
        Stage("b", {}, ("a",), stage("b")),
        Stage("c", {"other": 1}, (), stage("c")),
    ]


def test_a_stage_says_what_it_is_one_of_outside_its_hash(tmp_path: Path) -> None:
    seen: list[str] = []
    known = seeded("students.deep", 3)
    facts = {"group": known.group, "seed": known.seed, "path": known.path}
    plain = Stage(known.name, {"width": 1}, (), lambda folder: seen.append(folder.name))
    hashes = walk([plain], tmp_path, tracker=Tracker(tmp_path))
    assert facts_by_stage(tmp_path, [known.name, "none"]) == {
        "students/deep-3": {"group": "", "seed": None}
    }
    # A jmrec that wrote no such facts named the folder by them.
    path = tmp_path / known.name / "stage.json"
    old = {name: each for name, each in read_json(path).items() if name not in facts}
    write_json(path, old)
    found = read_stage(path.parent)
    assert found is not None
    assert {name: found[name] for name in facts} == facts
    assert walk([replace(plain, **facts)], tmp_path, tracker=Tracker(tmp_path)) == hashes
    assert seen == ["deep-3"]
    write_json(tmp_path / "read" / "stage.json", old)
    assert (read_stage(tmp_path / "read") or {})["group"] == ""


def test_done_stages_are_skipped_and_half_done_ones_resumed(tmp_path: Path) -> None:
    tracker, log = Tracker(tmp_path), []
    with pytest.raises(KeyboardInterrupt):
        walk(make(log, fail=True), tmp_path, tracker=tracker)
    assert log == ["a", "b"]
    walk(make(log), tmp_path, tracker=tracker)
    assert log == ["a", "b", "b", "c"]
    walk(make(log), tmp_path, tracker=tracker)
    assert log == ["a", "b", "b", "c"]
    write_json(tmp_path / "b" / "metrics.json", {"step": 8, "flops": 1200})
    cost = cost_by_stage(tmp_path, ["a", "b", "nothing"])
    assert list(cost) == ["a", "b"]
    assert cost["a"]["seconds"] >= 0
    assert cost["a"]["peak_memory"] > 10_000_000  # no Python is smaller
    assert (cost["b"]["updates"], cost["b"]["flops"]) == (8, 1200)


def test_changed_settings_stop_and_name_the_field(tmp_path: Path) -> None:
    tracker, log = Tracker(tmp_path), []
    walk(make(log), tmp_path, tracker=tracker)
    with pytest.raises(UserError, match=r"stage a .*width: 1 -> 2.*--stale=rerun"):
        walk(make(log, width=2), tmp_path, tracker=tracker)
    assert log == ["a", "b", "c"]
    assert (tmp_path / "b" / "out").is_file()


def test_a_stale_stage_is_refused_before_a_new_one_runs(tmp_path: Path) -> None:
    tracker, log = Tracker(tmp_path), []
    walk(make(log), tmp_path, tracker=tracker)
    new = Stage("new", {}, (), lambda folder: log.append("new"))
    with pytest.raises(UserError, match="stage a "):
        walk([new, *make(log, width=2)], tmp_path, tracker=tracker)
    assert log == ["a", "b", "c"]


def test_rerun_redoes_the_stage_and_what_follows_only(tmp_path: Path) -> None:
    tracker, log = Tracker(tmp_path), []
    walk(make(log), tmp_path, tracker=tracker)
    walk(make(log, width=2), tmp_path, stale="rerun", tracker=tracker)
    assert log == ["a", "b", "c", "a", "b"]


def test_a_changed_input_is_named(tmp_path: Path) -> None:
    tracker, log = Tracker(tmp_path), []
    stages = make(log)
    walk(stages, tmp_path, tracker=tracker)
    facts = read_json(tmp_path / "b" / "stage.json")
    assert facts["inputs"].keys() == {"a"}
    other = [Stage("a", {"width": 1}, (), stages[0].run), Stage("b", {}, (), stages[1].run)]
    with pytest.raises(UserError, match=r"stage b .*input"):
        walk(other, tmp_path, tracker=tracker)


def test_damaged_json_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(UserError, match=r"x\.json is damaged"):
        read_json(tmp_path / "x.json")
    with pytest.raises(UserError, match="missing"):
        read_json(tmp_path / "y.json")


def finished(tmp_path: Path, brought: str = "red", width: int = 1) -> tuple[list[Stage], list[str]]:
    """Walk three stages, of which the first keeps what a user brought."""
    log: list[str] = []

    def run(name: str, text: str) -> Callable[[Path], None]:
        def write(folder: Path) -> None:
            log.append(name)
            (folder / "out").write_text(text)
            save_params(folder / "params", {"w": np.full(3, len(text), np.float32)}, {"a": 1})

        return write

    stages = [
        Stage("data", {}, (), run("data", brought), content=lambda f: (f / "out").read_text()),
        Stage("fit", {"width": width}, ("data",), run("fit", "fit")),
        Stage("last", {}, ("fit",), run("last", "last")),
    ]
    walk(stages, tmp_path, tracker=Tracker(tmp_path))
    return stages, log


@pytest.mark.parametrize(
    "damage",
    [
        lambda top: (top / "fit" / "out").write_text("fat"),
        lambda top: (top / "fit" / "out").unlink(),
        # Parameters of another stage, whole with their own checksums.
        lambda top: (
            shutil.rmtree(top / "fit" / "params"),
            shutil.copytree(top / "data" / "params", top / "fit" / "params"),
        ),
    ],
)
def test_a_file_that_is_not_what_its_stage_wrote_is_refused(
    tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    stages, log = finished(tmp_path)
    check_run(stages, tmp_path, "config.json")
    damage(tmp_path)
    for look in (
        lambda: check_run(stages, tmp_path, "config.json"),
        lambda: walk(stages, tmp_path, tracker=Tracker(tmp_path)),
    ):
        with pytest.raises(UserError, match=r"fit is damaged \(.*\); delete .*fit"):
            look()
    assert log == ["data", "fit", "last"]


def test_a_link_in_the_place_of_a_file_is_refused(tmp_path: Path) -> None:
    stages, _ = finished(tmp_path)
    (tmp_path / "elsewhere").write_text("fit")
    (tmp_path / "fit" / "out").unlink()
    (tmp_path / "fit" / "out").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="'out' names no plain file"):
        check_run(stages, tmp_path, "config.json")


def test_a_config_that_says_something_else_is_refused_by_the_field(tmp_path: Path) -> None:
    stages, _ = finished(tmp_path)
    other = [stages[0], replace(stages[1], settings={"width": 2}), stages[2]]
    with pytest.raises(UserError, match=r"config.json does not say .* fit .*width: 1 -> 2"):
        check_run(other, tmp_path, "config.json")


def test_stages_made_of_other_data_are_refused_or_done_again(tmp_path: Path) -> None:
    stages, _ = finished(tmp_path)
    # The data changed under the same settings, and its stage was made anew.
    shutil.rmtree(tmp_path / "data")
    with pytest.raises(UserError, match="stage fit was made of other data"):
        finished(tmp_path, "blue")
    with pytest.raises(UserError, match="stage fit was made of other data"):
        check_run(stages, tmp_path, "config.json")
    log: list[str] = []
    again = [replace(each, run=lambda folder, n=each.name: log.append(n)) for each in stages]
    walk(again, tmp_path, stale="rerun", tracker=Tracker(tmp_path))
    assert log == ["fit", "last"]
    check_run(stages, tmp_path, "config.json")


def test_an_unfinished_run_is_no_run_to_open(tmp_path: Path) -> None:
    stages, _ = finished(tmp_path)
    facts = read_json(tmp_path / "fit" / "stage.json")
    write_json(tmp_path / "fit" / "stage.json", {**facts, "done": False})
    with pytest.raises(UserError, match="fit is not finished"):
        check_run(stages, tmp_path, "config.json")


def test_a_run_of_an_older_jmrec_has_no_checksums_and_is_opened(tmp_path: Path) -> None:
    stages, _ = finished(tmp_path)
    for name in ("data", "fit", "last"):
        path = tmp_path / name / "stage.json"
        facts = read_json(path)
        write_json(path, {k: v for k, v in facts.items() if k not in ("files", "contents")})
    (tmp_path / "fit" / "out").write_text("fat")
    check_run(stages, tmp_path, "config.json")


def test_what_lies_outside_of_a_finished_run_may_be_said_in_other_words(tmp_path: Path) -> None:
    stages, _ = finished(tmp_path)
    moved = [stages[0], replace(stages[1], settings={"width": 2}), stages[2]]
    check_run(moved, tmp_path, "config.json", outside=["width"])
    own = [stages[0], replace(moved[1], outside=("width",)), stages[2]]
    check_run(own, tmp_path, "config.json")


class Seeds:
    """Seeds of a student and a stage after them; it keeps what was run, and may be killed."""

    def __init__(self, seeds: tuple[int, ...] = (0, 1, 2), helps: bool = True) -> None:
        self.log: list[str] = []
        self.breaks: set[int] = set()
        self.killed_in = ""
        self.width = 1
        self.together = Together(lambda: helps, self.fits)
        self.seeds = seeds

    def fits(self, folders: Mapping[int, Path]) -> Fits:
        """Return what is trained at once, this being its trainer."""
        members = [Member(folder, [], seed) for seed, folder in folders.items()]
        return Fits(lambda: cast(Trainer, self), members, {}, None)

    def fit_members(self, members: Sequence[Member]) -> list[UserError | None]:
        """Do the work of each, if it is not done; a kill comes in the midst."""
        folders = {member.seed: Path(member.workdir) for member in members}
        self.log.append(f"together {[*folders]}")
        for seed, folder in folders.items():
            assert not read_json(folder / "stage.json")["done"]
            if self.killed_in == f"together {seed}":
                raise KeyboardInterrupt
            (folder / "checkpoints").mkdir(exist_ok=True)
            (folder / "checkpoints" / "work").write_text(str(self.width))
        return [UserError(f"seed {n} broke.") if n in self.breaks else None for n in folders]

    def one(self, seed: int, folder: Path) -> None:
        self.log.append(f"one {seed}")
        if self.killed_in == f"one {seed}":
            raise KeyboardInterrupt
        work = folder / "checkpoints" / "work"
        assert work.is_file() == self.together.helps()
        (folder / "out").write_text(work.read_text() if work.is_file() else str(self.width))

    def stages(self) -> list[Stage]:
        every = [Stage("data", {}, (), lambda folder: self.log.append("data"))]
        for seed in self.seeds:
            known = seeded("students.deep", seed)
            every.append(
                Stage(
                    known.name, {"width": self.width, "seed": seed}, ("data",),
                    partial(self.one, seed), group=known.group, seed=seed, together=self.together,
                )
            )  # fmt: skip
        names = tuple(stage.name for stage in every)
        return [*every, Stage("last", {}, names, lambda folder: self.log.append("last"))]

    def walk(self, workdir: Path, **more: str) -> list[str]:
        """Walk; return what was run."""
        self.log.clear()
        with suppress(KeyboardInterrupt):
            walk(self.stages(), workdir, tracker=Tracker(workdir, quiet=True), **more)
        return [*self.log]


ALL = ["together [0, 1, 2]", "one 0", "one 1", "one 2", "last"]


def test_seeds_are_run_at_once_and_each_is_then_a_stage_like_any_other(tmp_path: Path) -> None:
    at_once, alone = Seeds(), Seeds(helps=False)
    assert at_once.walk(tmp_path / "a") == ["data", *ALL]
    assert alone.walk(tmp_path / "b") == ["data", *ALL[1:]]
    for name in ("students/deep-0", "students/deep-1", "students/deep-2", "last"):
        a, b = (read_json(tmp_path / top / name / "stage.json") for top in "ab")
        assert a.keys() == b.keys()
        assert {**a, "seconds": 0, "peak_memory": 0} == {**b, "seconds": 0, "peak_memory": 0}
        assert a["done"]
    check_run(at_once.stages(), tmp_path / "a", "config.json")
    # Whether it is done at once is no part of what it is; a seed more is run alone.
    assert at_once.walk(tmp_path / "b") == []
    more = Seeds((0, 1, 2, 5), helps=False)
    assert more.walk(tmp_path / "a", stale="rerun") == ["one 5", "last"]


@pytest.mark.parametrize(
    ("killed_in", "before", "after"),
    [
        ("together 1", ALL[:1], ALL),
        ("one 0", ALL[:2], ALL),
        ("one 1", ALL[:3], ["together [1, 2]", *ALL[2:]]),
        # One is left: it is run as any other, and finds its work done.
        ("one 2", ALL[:4], ALL[3:]),
    ],
)
def test_a_kill_while_seeds_are_run_at_once_settles(
    tmp_path: Path, killed_in: str, before: list[str], after: list[str]
) -> None:
    seeds = Seeds()
    seeds.killed_in = killed_in
    assert seeds.walk(tmp_path) == ["data", *before]
    seeds.killed_in = ""
    assert seeds.walk(tmp_path) == after
    check_run(seeds.stages(), tmp_path, "config.json")
    assert seeds.walk(tmp_path) == []


def test_half_done_seeds_of_other_settings_are_refused_or_made_anew(tmp_path: Path) -> None:
    """All seeds begin before any is trained, so that none takes over the work of another width."""
    seeds = Seeds()
    seeds.killed_in = "one 1"
    seeds.walk(tmp_path)
    seeds.killed_in, seeds.width = "", 2
    with pytest.raises(UserError, match=r"stage students/deep-0 .*width: 1 -> 2"):
        seeds.walk(tmp_path)
    assert seeds.walk(tmp_path, stale="rerun") == ALL
    for seed in seeds.seeds:
        assert (tmp_path / f"students/deep-{seed}/out").read_text() == "2"


def test_a_seed_that_breaks_is_said_after_the_others_are_finished(tmp_path: Path) -> None:
    seeds = Seeds()
    seeds.breaks = {0}
    with pytest.raises(UserError, match="seed 0 broke"):
        seeds.walk(tmp_path)
    assert seeds.log == ["data", "together [0, 1, 2]", "one 1", "one 2"]
    done = {s: read_json(tmp_path / f"students/deep-{s}/stage.json")["done"] for s in seeds.seeds}
    assert done == {0: False, 1: True, 2: True}
    seeds.breaks = set()
    (tmp_path / "students/deep-0/checkpoints/work").write_text("1")
    assert seeds.walk(tmp_path) == ["one 0", "last"]


def test_seeds_share_the_seconds_of_what_is_done_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds, clock = Seeds(), [0.0]
    at_once = seeds.fit_members

    def slow(members: Sequence[Member]) -> list[UserError | None]:
        clock[0] += 30.0
        return at_once(members)

    monkeypatch.setattr(seeds, "fit_members", slow)
    monkeypatch.setattr("jmrec.systems.stages.time.monotonic", lambda: clock[0])
    seeds.walk(tmp_path)
    names = [f"students/deep-{seed}" for seed in seeds.seeds]
    assert [cost["seconds"] for cost in cost_by_stage(tmp_path, names).values()] == [10.0] * 3
