"""People are taken out of prepared data: none of theirs is left, all others are as they were."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jmrec.data.folder import read_folder
from jmrec.data.forgotten import SESSION, USER, Forgotten, find, left_by, whole
from jmrec.data.prepared import load_prepared, prepare, take_out
from jmrec.data.records import read_sessions
from jmrec.data.schema import SPLITS, Dataset
from jmrec.errors import UserError
from jmrec.lock import Changes
from jmrec.tasks.session import id_rows

Row = tuple[str, str, str, int, str, int]
"""Session, user ("" for a guest), item, time (of one row only), review, stars."""
KINDS = {
    "sessions of users and guests": (("session_id", "user_id"), "", True),
    "users with pauses": (("user_id",), "session_gap_minutes = 60\n", True),
    "users, rows with a label": (("user_id",), '[interactions]\nlabel = "stars <= 2"\n', False),
    "sessions, users and a label": (
        ("session_id", "user_id"), '[interactions]\nlabel = "stars <= 2"\n', True,
    ),
}  # fmt: skip
GONE = "u3"


def draw(seed: int, visits: int = 90) -> list[Row]:
    """Return rows in which some visits are of guests, and somebody logs in halfway."""
    random = np.random.default_rng(seed)
    rows: list[Row] = []
    time = 1_700_000_000
    for visit in range(visits):
        user = f"u{random.integers(8)}" if random.random() < 0.7 else ""
        time += 50_000
        halfway = random.random() < 0.3
        for click in range(int(random.integers(2, 6))):
            time += int(random.integers(1, 600))
            who = "" if halfway and click == 0 else user
            said = f"What {who or 'a guest'} says at {time}." if random.random() < 0.8 else ""
            rows.append((f"v{visit}", who, f"i{random.integers(12)}", time, said,
                         int(random.integers(1, 6))))  # fmt: skip
    return rows


def write(folder: Path, rows: Sequence[Row], kind: str, write_csv: Callable[..., None]) -> Path:
    columns, toml, _sessions = KINDS[kind]
    folder.mkdir()
    if "session_id" not in columns:  # the guests would be nobody
        rows = [row for row in rows if row[1]]
    head = ("session_id", "user_id", "item_id", "timestamp", "review", "stars")
    places = [place for place, name in enumerate(head) if place > 1 or name in columns]
    write_csv(folder / "items.csv", [("item_id", "title"), *((f"i{k}", f"Thing {k}")
                                                              for k in range(12))])  # fmt: skip
    write_csv(folder / "interactions.csv",
              [[row[place] for place in places] for row in (head, *rows)])  # fmt: skip
    text = f'[dataset]\nname = "shop"\n{toml}'
    (folder / "dataset.toml").write_text(text if "[int" in text else text + "[interactions]\n")
    return folder


def sessions_of(dataset: Dataset) -> dict[str, list[tuple[Any, ...]]]:
    """Return all that is known of each session, by split, by plain values."""
    found: dict[str, list[tuple[Any, ...]]] = {}
    for name, part in dataset.splits.items():
        found[name] = []
        for at, session in enumerate(part.ids):
            own = slice(part.offsets[at], part.offsets[at + 1])
            columns = (part.items, part.times, part.events, part.ratings, part.targets)
            found[name].append((session, int(part.users[at]), *(c[own].tobytes() for c in columns)))
    return found


def rows_of(dataset: Dataset) -> list[tuple[Any, ...]]:
    if (r := dataset.ratings) is None:
        return []
    names = [*r.user_ids, ""]
    return [
        (int(r.items[n]), int(r.users[n]), names[r.users[n]], float(r.times[n]), int(r.labels[n]),
         r.reviews[n])
        for n in range(len(r))
    ]  # fmt: skip


def of_gone(rows: Sequence[Row], times: Sequence[float], by_visit: bool) -> bool:
    """Whether one of some times is of who goes, or of a visit in which they are."""
    visit = {row[3]: row[0] for row in rows}
    theirs = {row[0] if by_visit else row[3] for row in rows if row[1] == GONE}
    return any((visit[int(t)] if by_visit else int(t)) in theirs for t in times)


def forget(out: Path, left: Any) -> Dataset:
    changes = Changes(out)
    take_out(out, left, changes.new)
    changes.commit()
    return load_prepared(out)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", KINDS)
def test_a_user_goes_and_all_others_stay_bit_for_bit(
    kind: str, seed: int, tmp_path: Path, write_csv: Callable[..., None]
) -> None:
    columns, _, sessions = KINDS[kind]
    rows = draw(seed)
    folder = write(tmp_path / "shop", rows, kind, write_csv)
    out = tmp_path / "out"
    before = prepare(folder, None, out, sessions=sessions)
    catalogue = sorted((out / "jmrec_data/items").rglob("*.array_record*"))
    kept = [path.read_bytes() for path in catalogue]
    by_visit = "session_id" in columns
    raw = read_folder(folder) if by_visit else None
    codes, ids, missing = find(before, [GONE], [], raw)
    assert not missing
    after = forget(out, left_by(before, codes, ids))
    # The truth is in the rows: every time stands in one of them.
    for name in SPLITS:
        part = before.splits[name]
        stays = [
            not of_gone(rows, part.times[part.offsets[at] : part.offsets[at + 1]], by_visit)
            for at in range(len(part))
        ]
        was = [each for each, keep in zip(sessions_of(before)[name], stays) if keep]
        assert sessions_of(after)[name] == was
        assert not sessions or not all(stays) or name != "train"
    stays = [not of_gone(rows, [row[3]], by_visit and sessions) for row in rows_of(before)]
    assert rows_of(after) == [row for row, keep in zip(rows_of(before), stays) if keep]
    assert after.ratings is None or GONE not in after.ratings.user_ids
    assert [path.read_bytes() for path in catalogue] == kept
    assert whole(after.fingerprint) == before.fingerprint != after.fingerprint
    # Nobody is there twice: a second time they are unknown.
    assert find(after, [GONE], [], None)[2] == [(USER, GONE)] or by_visit


@pytest.mark.parametrize("kind", KINDS)
def test_who_was_forgotten_stays_out_where_the_folder_is_prepared_again(
    kind: str, tmp_path: Path, write_csv: Callable[..., None]
) -> None:
    columns, _, sessions = KINDS[kind]
    folder = write(tmp_path / "shop", draw(7), kind, write_csv)
    out = tmp_path / "out"
    before = prepare(folder, None, out, sessions=sessions)
    visits = before.splits["test"].ids[:1] if sessions else []
    raw = read_folder(folder) if "session_id" in columns else None
    codes, ids, _ = find(before, [GONE, "u5"], visits, raw)
    after = forget(out, left_by(before, codes, ids))
    # One after the other is the same as both at once, and as preparing without them.
    one = tmp_path / "one"
    prepare(folder, None, one, sessions=sessions)
    for name in (GONE, "u5"):
        codes, ids, _ = find(load_prepared(one), [name], [], raw)
        forget(one, left_by(load_prepared(one), codes, ids))
    here = [each for each in visits if find(load_prepared(one), [], [each])[1]]
    forget(one, left_by(load_prepared(one), *find(load_prepared(one), [], here)[:2]))
    list_ = Forgotten.new().adding([GONE, "u5"], visits)
    again = prepare(folder, None, tmp_path / "again", sessions=sessions, forgotten=list_)
    for other in (load_prepared(one), again):
        assert sessions_of(other) == sessions_of(after)
        assert rows_of(other) == rows_of(after)
        assert other.fingerprint == after.fingerprint
        assert other.id_items.tolist() == after.id_items.tolist() == before.id_items.tolist()
    text = str(list_.to_json())
    assert GONE not in text.replace(list_.key, "") or not list_.holds(USER, GONE)


def test_items_keep_their_row_of_the_table_of_ids(
    tmp_path: Path, write_csv: Callable[..., None]
) -> None:
    kind = "sessions of users and guests"
    rows = [row for row in draw(1) if row[2] != "i4" or row[0] == "v2"]
    rows.insert(0, ("v2", "", "i4", 1_600_000_000, "", 3))
    out = tmp_path / "out"
    before = prepare(write(tmp_path / "shop", rows, kind, write_csv), None, out)
    own = before.items.ids.index("i4")
    assert before.train_count[own]
    after = forget(out, left_by(before, *find(before, [], ["v2"])[:2]))
    assert not after.train_count[own]
    was = id_rows(before.train_count > 0, 1024, before.id_items)
    now = id_rows(after.train_count > 0, 1024, after.id_items)
    others = np.arange(len(was)) != own
    # The item is as one that nobody has clicked; no other item moves.
    assert was[others].tolist() == now[others].tolist()
    assert now[own] == 1023


def test_a_session_may_look_as_if_a_user_had_named_it(
    tmp_path: Path, write_csv: Callable[..., None]
) -> None:
    kind = "sessions of users and guests"
    rows = [("u3:1" if row[0] == "v9" else row[0], *row[1:]) for row in draw(2)]
    rows = [(row[0], "u1" if row[0] == "u3:1" else row[1], *row[2:]) for row in rows]
    folder = write(tmp_path / "shop", rows, kind, write_csv)  # type: ignore[arg-type]
    before = prepare(folder, None, tmp_path / "out")
    _, ids, missing = find(before, ["u3"], [], read_folder(folder))
    assert ids == {row[0] for row in rows if row[1] == "u3"} & {
        each for part in before.splits.values() for each in part.ids
    }
    assert not missing
    # Without the folder nobody can tell: the user is not known.
    assert find(before, ["u3"], [])[2] == [(USER, "u3")]
    assert find(before, [], ["nobody"])[2] == [(SESSION, "nobody")]


def test_the_last_people_are_not_taken_out(tmp_path: Path, write_csv: Callable[..., None]) -> None:
    folder = write(tmp_path / "shop", draw(3), "users with pauses", write_csv)
    before = prepare(folder, None, tmp_path / "out")
    left = left_by(before, range(100), [])
    with pytest.raises(UserError, match=r"all that .* holds; delete the folder"):
        take_out(tmp_path / "out", left, Changes(tmp_path / "out").new)
    assert sessions_of(load_prepared(tmp_path / "out")) == sessions_of(before)


def test_a_damaged_list_is_said(tmp_path: Path) -> None:
    path = tmp_path / "forgotten.json"
    assert Forgotten.read(path) is None
    path.write_text('{"key": "00"}')
    with pytest.raises(UserError, match="is damaged: nobody can tell who was forgotten"):
        Forgotten.read(path)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "users, rows with a label"])
def test_data_of_an_older_version_forgets_too(
    kind: str,
    tmp_path: Path,
    write_csv: Callable[..., None],
    as_before: Callable[[Path], None],
) -> None:
    """It is flat arrays then, and its records are those of who is left."""
    folder = write(tmp_path / "shop", draw(4), kind, write_csv)
    one, old = tmp_path / "one", tmp_path / "old"
    before = prepare(folder, None, one)
    prepare(folder, None, old)
    as_before(old)
    left = left_by(before, *find(before, [GONE], before.splits["test"].ids[:1])[:2])
    after = forget(one, left)
    assert not any(keep.all() for keep in (left.sessions["test"], left.rows) if len(keep))
    found = forget(old, left)
    assert (old / "metadata.json").read_bytes() == (one / "metadata.json").read_bytes()
    for each in (found, replace(found, splits={n: read_sessions(old, n) for n in SPLITS})):
        assert sessions_of(each) == sessions_of(after)
    assert rows_of(found) == rows_of(after)
    assert not (one / "jmrec_data/sessions").exists()
