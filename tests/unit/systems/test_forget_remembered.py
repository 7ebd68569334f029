"""``jmrec forget`` takes people out of remembered sessions too; nobody else changes."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from jmrec.data.live import live_dataset
from jmrec.data.remembered import read_remembered
from jmrec.data.schema import Sessions
from jmrec.errors import UserError
from jmrec.files import write_json
from jmrec.systems.forget import forget
from jmrec.systems.remember import remember
from jmrec.systems.remembered import remembered_of
from jmrec.systems.shared import SHARED
from tests.unit.data.test_remembered import Row, made_rows, plain, write
from tests.unit.systems.test_remember import CUT, StandIn, make_data

KINDS = {
    "sessions": "",
    "history": '[dataset]\nsplit = "event_time"\n[interactions]\nsession = ""\n',
    "pauses": '[dataset]\nsession_gap_minutes = 10\n[interactions]\nsession = ""\n',
}
GONE = "person-3-x"


def rows_of(seed: int) -> list[Row]:
    """Return events whose users and sessions are found wherever they stand."""
    rows = made_rows(seed)
    # Every visit is of one user, so that whose a session is does not depend on who looks.
    return [[f"visit-{s[1:]}-x", f"person-{int(s[1:]) % 9}-x", *rest] for s, _, *rest in rows]


@pytest.fixture(scope="module", params=list(KINDS))
def made(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    top, kind = tmp_path_factory.mktemp("made"), str(request.param)
    workdir = make_data(top, rows_of(12)[:CUT], KINDS[kind])
    system: Any = StandIn(workdir, top / "folder", "student")
    for n, (start, stop) in enumerate([(CUT, 300), (300, 330), (330, 1000)]):
        remember(system, write(top / f"{n}.csv", rows_of(12)[start:stop]))
    return kind, workdir


@pytest.fixture
def run(made: tuple[str, Path], tmp_path: Path) -> Any:
    return StandIn(
        Path(shutil.copytree(made[1], tmp_path / "run")), made[1].parent / "folder", "student"
    )


def live(workdir: Path) -> Sessions:
    system: Any = StandIn(workdir, Path("nowhere"))
    known = remembered_of(system)
    assert known is not None
    return live_dataset(system.data.dataset, known).splits["train"]


def holding(folder: Path, words: list[str]) -> list[str]:
    data = [(path, path.read_bytes()) for path in sorted(folder.rglob("*")) if path.is_file()]
    return [path.name for path, held in data if any(word.encode() in held for word in words)]


def test_nothing_of_a_user_is_left_and_nobody_else_changes(
    made: tuple[str, Path], run: Any
) -> None:
    kind, workdir = made[0], run.work.workdir
    before = live(workdir)
    visits = [f"visit-{n}-x" for n in range(3, 70, 9)]
    words = [GONE, *visits] if kind == "sessions" else [GONE]
    assert len(holding(workdir / "remembered", words)) >= 3
    (taken,) = forget(workdir, [GONE], [], Path(run.work.config.data.dir))
    assert f"So are {taken.remembered:,} events that were remembered" in " ".join(taken.sentences())
    own = sum(row[1] == GONE for row in rows_of(12)[CUT:])
    assert taken.remembered >= own > 5
    assert holding(workdir, words) == []
    after = live(workdir)
    gone = [
        name in visits or name.rpartition(":")[0] == GONE or name == GONE for name in before.ids
    ]
    others = [part for part, away in zip(plain(before), gone) if not away]
    assert plain(after) == others
    assert after.ids == [name for name, away in zip(before.ids, gone) if not away]
    assert 0 < len(others) < len(before)
    # And they do not come back with the next file that names them.
    top = workdir.parent
    with pytest.raises(UserError, match="no event of it is left"):
        remember(run_again(run), write(top / "a.csv", [r for r in rows_of(12) if r[1] == GONE]))
    with pytest.raises(UserError, match=r"holds no user .* any more: taken out before"):
        forget(workdir, [GONE], [], Path(run.work.config.data.dir))


def run_again(run: Any) -> Any:
    return StandIn(run.work.workdir, Path(run.work.config.data.dir), "student")


def test_a_session_that_came_later_goes(made: tuple[str, Path], run: Any) -> None:
    workdir = run.work.workdir
    before = live(workdir)
    known = read_remembered(workdir / "remembered")
    assert known is not None
    frozen = {each for part in run.data.dataset.splits.values() for each in part.ids}
    late = [name for name in before.ids if name not in frozen]
    both = [name for name in before.ids if name in frozen and name in known.batches[0].events.ids]
    shared = workdir.parent / SHARED / "data-0"  # what the trials of a sweep share
    for name in [*late[-1:], *both[:1]]:
        old = live(workdir)
        write_json(shared / "key.json", {"by": "trial-0000"})
        (taken,) = forget(workdir, [], [name])
        assert not shared.exists()
        assert taken.remembered > 0
        assert (taken.sessions > 0) == (name in frozen)
        assert name not in live(workdir).ids
        assert len(live(workdir)) == len(old) - 1
    assert (made[0] == "history") == (not late)
    assert late or both


@pytest.mark.parametrize("made", ["sessions"], indirect=True)
def test_without_the_folder_nobody_knows_whose_sessions_are(
    made: tuple[str, Path], run: Any
) -> None:
    before = holding(run.work.workdir, [GONE])
    with pytest.raises(UserError, match="name it with --dir"):
        forget(run.work.workdir, [GONE], [])
    assert holding(run.work.workdir, [GONE]) == before
