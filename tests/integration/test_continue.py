"""jmrec run --data=continue: new rows and items are taken, and students over ids trained on."""

import csv
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jmrec.checkpoint import load_params
from jmrec.config import ConfigDict, load_config
from jmrec.data.prepared import load_prepared
from jmrec.data.toyshop import ToyShopConfig, write_toyshop
from jmrec.errors import UserError
from jmrec.main import main
from jmrec.systems import registry
from jmrec.systems.sealed import read_stage
from jmrec.systems.session import system as session
from jmrec.systems.session.system import SessionSystem
from jmrec.systems.stages import Stage
from jmrec.systems.work import Work
from jmrec.tasks.session import id_rows
from jmrec.tracking import Tracker
from jmrec.training import host

ROOT = Path(__file__).resolve().parents[2]
STUDENT = "students/student-0"
Rows = list[list[str]]


@pytest.fixture(scope="module", autouse=True)
def _no_evaluation() -> Iterator[None]:
    """Students are judged on validation while they are trained; the report takes long."""

    def stage(system: Any, before: Sequence[Stage], command: Sequence[str] = ()) -> Stage:
        return Stage("evaluate", {}, tuple(each.name for each in before), lambda folder: None)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "evaluation_stage", stage)
        yield


def read(path: Path) -> Rows:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def write(path: Path, rows: Rows) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


@pytest.fixture(scope="module")
def shops(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a folder as it was, and as it is later: more rows, more items, in another order."""
    top = tmp_path_factory.mktemp("shops")
    write_toyshop(top / "now", ToyShopConfig(items=60, sessions=400))
    shutil.copytree(top / "now", top / "then")
    rows, items = read(top / "now/interactions.csv"), read(top / "now/items.csv")
    first = set(sorted({row[0] for row in rows[1:]})[:300])
    early = [row for row in rows[1:] if row[0] in first]
    write(top / "then/interactions.csv", [rows[0], *early])
    known = {row[1] for row in early[: len(early) // 2]}
    write(top / "then/items.csv", [items[0], *(row for row in items[1:] if row[0] in known)])
    write(top / "then/interactions.csv",
          [rows[0], *(row for row in early if row[1] in known)])  # fmt: skip
    old = {tuple(row) for row in read(top / "then/interactions.csv")}
    first = {row[0] for row in old}
    write(top / "now/interactions.csv",
          [row for row in rows if tuple(row) in old or row[0] not in first])  # fmt: skip
    write(top / "now/items.csv", [items[0], *reversed(items[1:])])
    return top / "then", top / "now"


def config_of(folder: Path, *more: str) -> ConfigDict:
    return load_config(
        f"{ROOT}/experiments/session.py:data=folder,size=tiny,items=ids,encoder=student",
        [f"--config.data.dir={folder}", "--config.student.train.steps=12",
         "--config.student.train.eval_every=4", "--config.student.train.save_every=4",
         "--config.student.train.batch_size=16", "--config.data.window=8",
         "--config.evaluate.serve=student", *more],
    )  # fmt: skip


def run(folder: Path, workdir: Path, data: str = "compare", *more: str) -> None:
    registry.run(
        config_of(folder, *more), workdir, resume="auto", stale="stop", command=[], data=data
    )


@pytest.fixture(scope="module")
def finished(shops: tuple[Path, Path], _no_evaluation: None) -> tuple[Path, Path]:
    top = shops[0].parent
    shutil.copytree(shops[0], top / "shop")
    run(top / "shop", top / "run")
    return top / "shop", top / "run"


@pytest.fixture
def done(
    shops: tuple[Path, Path], finished: tuple[Path, Path], tmp_path: Path
) -> tuple[Path, Path, Callable[[], None]]:
    """Return a finished run's workdir, its folder, and what lets that grow."""
    folder, workdir = finished[0], tmp_path / "run"
    shutil.copytree(finished[1], workdir)
    shutil.rmtree(folder)
    shutil.copytree(shops[0], folder)

    def grow() -> None:
        for name in ("items.csv", "interactions.csv"):
            shutil.copy(shops[1] / name, folder / name)

    return workdir, folder, grow


def params_of(folder: Path) -> dict[str, np.ndarray]:
    found, _ = load_params(folder / "params")
    flat: dict[str, np.ndarray] = {}

    def walk(tree: Any, name: str) -> None:
        if isinstance(tree, dict):
            for key, each in tree.items():
                walk(each, f"{name}/{key}")
        else:
            flat[name] = tree

    walk(found, "")
    return flat


def test_old_rows_stay_and_training_goes_on_from_what_was_trained(
    done: tuple[Path, Path, Callable[[], None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    workdir, folder, grow = done
    before, trained = load_prepared(workdir / "data/prepared"), params_of(workdir / STUDENT)
    index = json.loads((workdir / "item_index.json").read_text())
    hash_ = read_stage(workdir / STUDENT)["hash"]  # type: ignore[index]
    grow()
    begun: list[Any] = []
    real = host.Run._begin

    def begin(self: Any, member: Any) -> Any:
        found = real(self, member)
        begun.append((int(found[0].step), {k: np.asarray(v) for k, v in _flat(found[0].params)}))
        return found

    monkeypatch.setattr(host.Run, "_begin", begin)
    run(folder, workdir, "continue")
    after = load_prepared(workdir / "data/prepared")
    now = json.loads((workdir / "item_index.json").read_text())
    assert now == after.items.ids
    assert now[: len(index)] == index == before.items.ids
    file = [row[0] for row in read(folder / "items.csv")[1:]]
    assert now[len(index) :] == [item for item in file if item not in index]
    assert len(now) > len(index)
    for name in ("titles", "pictures"):
        assert getattr(after.items, name)[: len(index)] == getattr(before.items, name)
    assert len({each for each in before.items.pictures if each}) > 1
    # Tables of ids: the same rows, the same numbers; new rows are as that of an unknown item.
    rows = [id_rows(each.train_count > 0, 1024, each.id_items) for each in (before, after)]
    seen = before.train_count > 0
    assert (after.train_count > 0)[: len(seen)][seen].all()
    assert rows[1][: len(seen)][seen].tolist() == rows[0][seen].tolist()
    (step, start), *_ = begun
    assert step == 0
    assert start.keys() == trained.keys()
    for name, array in trained.items():
        if name.endswith("/ids"):
            owned = int(seen.sum())
            assert start[name][:owned].tobytes() == array[:owned].tobytes()
            assert (start[name][owned:] == array[-1]).all()
        else:
            assert start[name].tobytes() == array.tobytes()
    ended = params_of(workdir / STUDENT)
    assert any(ended[name].tobytes() != array.tobytes() for name, array in start.items())
    # What it says of itself.
    facts = read_stage(workdir / STUDENT)
    assert facts is not None
    assert facts["settings"]["begins.stage"] == hash_
    assert facts["settings"]["begins.data"] == before.fingerprint
    _, metadata = load_params(workdir / STUDENT / "params")
    assert metadata["begins"]["stage"] == hash_
    assert read_stage(workdir / "data")["settings"]["continues"] == before.fingerprint  # type: ignore[index]
    # Not worse than chance, by the reciprocal rank that training was judged by.
    score = json.loads((workdir / STUDENT / "metrics.json").read_text())["best"]
    assert score > np.mean(1 / np.arange(1, len(now) + 1))
    check_afterwards(workdir, folder, now)


def _flat(tree: Any, name: str = "") -> Any:
    for key, each in tree.items():
        if isinstance(each, dict):
            yield from _flat(each, f"{name}/{key}")
        else:
            yield f"{name}/{key}", each


def check_afterwards(workdir: Path, folder: Path, index: list[str]) -> None:
    """The same command again does nothing, others take the run, and it may grow once more."""
    made = (workdir / STUDENT / "stage.json").read_bytes()
    run(folder, workdir, "continue")
    run(folder, workdir)
    assert (workdir / STUDENT / "stage.json").read_bytes() == made
    assert main(["recommend", "--workdir", str(workdir), "--items", index[-1], "--top", "3"]) == 0
    rows = read(folder / "interactions.csv")
    last = str(int(max(float(row[2]) for row in rows[1:])) + 100_000)
    write(folder / "interactions.csv", [*rows, ["late", index[0], last, *rows[1][3:]],
                                        ["late", index[1], last, *rows[1][3:]]])  # fmt: skip
    with pytest.raises(UserError, match="--data=continue trains students over ids on"):
        run(folder, workdir)
    run(folder, workdir, "continue")
    facts = read_stage(workdir / STUDENT)
    assert facts is not None
    assert facts["settings"]["begins.stage"] == json.loads(made)["hash"]


class Kill(BaseException):
    """Ends everything at once, as a signal would."""


def test_killed_anywhere_it_ends_in_the_same_bits(
    done: tuple[Path, Path, Callable[[], None]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workdir, folder, grow = done
    killed = Path(shutil.copytree(workdir, tmp_path / "killed"))
    grow()
    run(folder, workdir, "continue")
    real_step, real_prepare = host.Members.step, SessionSystem.carried

    def after_six(self: Any, *args: Any) -> Any:
        if self.n >= 6:
            raise Kill
        return real_step(self, *args)

    def at_once(self: Any) -> Any:
        real_prepare(self)
        raise Kill

    kills = ((SessionSystem, "carried", at_once), (host.Members, "step", after_six))
    for place, name, broken in kills:
        with monkeypatch.context() as patch:
            patch.setattr(place, name, broken)
            with pytest.raises(Kill):
                run(folder, killed, "continue")
    run(folder, killed, "continue")
    one, other = params_of(workdir / STUDENT), params_of(killed / STUDENT)
    assert {k: v.tobytes() for k, v in one.items()} == {k: v.tobytes() for k, v in other.items()}
    hashes = [read_stage(each / STUDENT)["hash"] for each in (workdir, killed)]  # type: ignore[index]
    assert hashes[0] == hashes[1]


def gone_item(folder: Path) -> None:
    rows = read(folder / "items.csv")
    gone = rows.pop()[0]
    write(folder / "items.csv", rows)
    events = read(folder / "interactions.csv")
    write(folder / "interactions.csv", [row for row in events if row[1] != gone])


def gone_rows(folder: Path) -> None:
    rows = read(folder / "interactions.csv")
    first = rows[1][0]
    write(folder / "interactions.csv", [row for row in rows if row[0] != first])


def edited_key(folder: Path) -> None:
    path = folder / "dataset.toml"
    path.write_text(path.read_text() + "\n# another line\n")
    rows = read(folder / "interactions.csv")
    write(folder / "interactions.csv", [*rows, rows[-1]])


def older_rows(folder: Path) -> None:
    rows = read(folder / "interactions.csv")
    times = [float(row[2]) for row in rows[1:]]
    early = [[f"e{row[0]}", row[1], str(int(float(row[2]) - max(times) + min(times) - 9)), *row[3:]]
             for row in rows[1:]]  # fmt: skip
    write(folder / "interactions.csv", [*rows, *early])


@pytest.mark.parametrize(
    ("change", "sentence", "more"),
    [
        (gone_item, r"items\.csv: 1 items of before are gone, such as '.*'", ()),
        (gone_rows, r"rows of before are gone or were edited \(one of them is of session", ()),
        (edited_key, r"dataset\.toml was edited, so that old rows may be read in another way", ()),
        (older_rows, r"targets of validation are earlier than what was learned from before", ()),
        (
            gone_rows,
            r"made with other settings \(.*learning_rate",
            ("student.train.learning_rate=0.1",),
        ),
    ],
)
def test_what_can_not_be_continued_is_refused_and_nothing_changes(
    done: tuple[Path, Path, Callable[[], None]], change: Callable[[Path], None],
    sentence: str, more: Sequence[str],
) -> None:  # fmt: skip
    workdir, folder, _ = done
    change(folder)
    files = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=sentence):
        run(folder, workdir, "continue", *(f"--config.{each}" for each in more))
    assert all(
        path.name == "workdir.lock" or path.read_bytes() == data for path, data in files.items()
    )


def test_without_a_finished_run_there_is_nothing_to_continue(
    shops: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="no finished run to continue"):
        run(shops[0], tmp_path / "run", "continue")


@pytest.mark.parametrize(
    "spec", ["tpad.py:data=folder,size=tiny", "mmrec.py:data=folder,size=tiny"]
)
def test_other_systems_refuse_by_name(spec: str, shops: tuple[Path, Path], tmp_path: Path) -> None:
    config = load_config(f"{ROOT}/experiments/{spec}", [f"--config.data.dir={shops[0]}"])
    tracker = Tracker(tmp_path, quiet=True)
    system = registry.system_class(config)(Work(config, tmp_path, tracker))
    with pytest.raises(UserError, match=r"a run of the system '(tpad|mmrec)'.* --stale=rerun"):
        registry.grown.begin(system, lambda: system)
