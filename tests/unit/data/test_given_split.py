"""A split that comes with the data, sessions in one cell, and test windows further back."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from jmrec.data.folder import read_folder
from jmrec.data.prepared import build, load_prepared, prepare
from jmrec.data.schema import Sessions
from jmrec.data.sessions import split_by_time
from jmrec.errors import UserError

TOML = """
[interactions]
file = "train.csv.gz"
test_file = "test.csv"
session = "session"
item = "items"
item_separator = " "
"""


def shop(
    folder: Path, toml: str = TOML, test: str = "session,items,kind\n0,a  c,x\n1,d,y\n"
) -> Path:
    (folder / "items.csv").write_text("item_id,title\n" + "".join(f"{i},{i}\n" for i in "abcd"))
    rows = ["a b", "b c d", "c", "a d", "b a a"]
    lines = [f"{n},{row},{'yx'[n % 2]}" for n, row in enumerate(rows)]
    (folder / "train.csv.gz").write_bytes(
        gzip.compress(("session,items,kind\n" + "\n".join(lines) + "\n").encode())
    )
    (folder / "test.csv").write_text(test)
    (folder / "dataset.toml").write_text(toml)
    return folder


def names(part: Sessions) -> list[str]:
    return ["".join("abcd"[row] for row in rows) for rows in part]


def test_the_given_test_is_test_and_the_last_of_the_rest_is_validation(tmp_path: Path) -> None:
    dataset = prepare(shop(tmp_path), None, tmp_path / "out", fractions=(0.6, 0.2, 0.2))
    assert {name: names(part) for name, part in dataset.splits.items()} == {
        "train": ["ab", "bcd", "ad"],
        "validation": ["baa"],
        "test": ["ac"],
    }
    assert dataset.splits["test"].ids == ["test:0"]
    assert not dataset.has_time
    again = load_prepared(tmp_path / "out")
    assert again.fingerprint == dataset.fingerprint
    assert names(again.splits["test"]) == ["ac"]


def test_users_and_event_types_of_both_files_are_one_coding(tmp_path: Path) -> None:
    toml = TOML + 'event = "kind"\nuser = "session"\n'
    raw = read_folder(shop(tmp_path, toml, "session,items,kind\n1,a b,z\n9,d,x\n"))
    assert raw.event_names == ["", "x", "y", "z"]
    assert raw.event[-3:].tolist() == [3, 3, 1]
    assert raw.user is not None
    codes, users = raw.user
    assert [users[code] for code in codes[-3:]] == ["1", "1", "9"]
    assert len(set(users)) == len(users)
    assert raw.given_test is not None
    assert raw.given_test.tolist() == [False] * 11 + [True] * 3


@pytest.mark.parametrize(
    ("toml", "test", "said"),
    [
        (TOML, "session,things\n0,a b\n", "test.csv has no column 'items', which train.csv.gz has"),
        (TOML.replace("test.csv", "no.csv"), "", "no.csv"),
        (TOML, "session,items\n0,a\n", "No session of two or more events is in test"),
        (TOML.replace('" "', '""'), "session,items\n0,a b\n", "item_separator is empty"),
        (
            TOML.replace('session = "session"', 'user = "session"\nsession = ""'),
            "session,items\n0,a b\n",
            "test_file needs a column of sessions",
        ),
    ],
)
def test_what_is_wrong_is_one_sentence(tmp_path: Path, toml: str, test: str, said: str) -> None:
    with pytest.raises(UserError) as error:
        build(read_folder(shop(tmp_path, toml, test)))
    assert said in str(error.value)


def test_an_unknown_item_of_a_list_names_its_row(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"test\.csv, row 3: the item id 'q' is not in items\.csv"):
        read_folder(shop(tmp_path, test="session,items\n0,a b\n1,a q\n"), strict=True)


def many(count: int) -> Sessions:
    rng = np.random.default_rng(0)
    length = rng.integers(1, 6, count)
    offsets = np.concatenate([[0], np.cumsum(length)])
    start = np.sort(rng.uniform(0, 1000, count))
    times = np.concatenate([s + np.arange(n) * 3.0 for s, n in zip(start, length)])
    n = int(offsets[-1])
    return Sessions(
        ids=[str(i) for i in range(count)], users=np.full(count, -1), offsets=offsets,
        items=rng.integers(0, 20, n), times=times, events=np.zeros(n, int), ratings=np.zeros(n),
    )  # fmt: skip


def test_windows_further_back_follow_one_another_and_nothing_leaks() -> None:
    sessions = many(200)
    splits = [split_by_time(sessions, back=back) for back in range(4)]
    tests = [set(split["test"].ids) for split in splits]
    starts = [split["test"].times[split["test"].offsets[:-1]] for split in splits]
    for back, split in enumerate(splits):
        seen = split["train"].times.max()
        assert seen <= split["validation"].times[split["validation"].offsets[:-1]].min()
        assert split["validation"].times.max() <= starts[back].min()
        assert abs(len(split["test"]) - len(splits[0]["test"])) <= 1
        if back:
            assert not tests[back] & set().union(*tests[:back])
            assert starts[back].max() <= starts[back - 1].min()
    with pytest.raises(
        UserError, match=r"8 test windows back leave nothing to train on; .* 0 to 7"
    ):
        split_by_time(sessions, back=8)
    assert len(split_by_time(sessions, back=7)["train"]) > 0


def test_cellphones_is_read_as_its_source_says(shared_data: Path) -> None:
    root = Path(__file__).resolve().parents[3]
    raw = read_folder(shared_data / "cellphones", root / "experiments/data/cellphones.toml")
    dataset = build(raw, fractions=(0.81, 0.09, 0.1))
    counts = {name: len(part) for name, part in dataset.splits.items()}
    assert counts == {"train": 63_234, "validation": 7_026, "test": 7_766}
    # 95,876 pairs, as the peers of shared/peers.md were trained on.
    assert int((dataset.splits["train"].lengths - 1).sum()) == 95_876
    assert len(dataset.items) == 8_614
    assert not dataset.exclude_seen
    assert raw.warnings == []


def last_of(part: Sessions) -> list[str]:
    """Return each session with its targets in capitals, by a plain loop."""
    return [
        "".join(
            "abcd"[part.items[at]].upper() if part.targets[at] else "abcd"[part.items[at]]
            for at in range(part.offsets[n], part.offsets[n + 1])
        )
        for n in range(len(part))
    ]


def test_of_validation_and_test_the_last_target_alone_may_be_asked_for(tmp_path: Path) -> None:
    """Of a given split; by time; and where only some events are targets, none of them the last."""
    more = "session,items,kind\n0,a  c b,x\n1,d,y\n2,b a,x\n"
    given = read_folder(shop(tmp_path, test=more))
    every, last = (
        build(given, fractions=(0.6, 0.2, 0.2), targets=each) for each in ("every", "last")
    )
    assert {name: last_of(part) for name, part in last.splits.items()} == {
        "train": ["AB", "BCD", "AD"], "validation": ["baA"], "test": ["acB", "bA"],
    }  # fmt: skip
    assert last_of(every.splits["test"]) == ["ACB", "BA"]
    assert every.fingerprint != last.fingerprint
    kept = prepare(tmp_path, None, tmp_path / "out", fractions=(0.6, 0.2, 0.2), targets="last")
    assert kept.fingerprint == last.fingerprint
    assert last_of(load_prepared(tmp_path / "out").splits["test"]) == ["acB", "bA"]

    clicks = "session,item,time,kind\n" + "".join(
        f"{s},{item},{10 * s + n},{'x' if item in 'ab' else 'y'}\n"
        for s, items in enumerate(["ab", "ba", "abc", "bac", "cabd"])
        for n, item in enumerate(items)
    )  # fmt: skip
    (tmp_path / "clicks.csv").write_text(clicks)
    for chosen, asked in (("", ["baC", "cabD"]), ('target_events = ["x"]', ["bAc", "caBd"])):
        (tmp_path / "dataset.toml").write_text(
            '[interactions]\nfile = "clicks.csv"\nsession = "session"\nitem = "item"\n'
            f'time = "time"\nevent = "kind"\n{chosen}\n'
        )
        splits = build(read_folder(tmp_path), fractions=(0.6, 0.2, 0.2), targets="last").splits
        assert [last_of(splits[name])[0] for name in ("validation", "test")] == asked
        assert last_of(splits["train"])[2] == ("ABc" if chosen else "ABC")
