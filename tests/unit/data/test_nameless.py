"""Tables whose first row is a row like the others."""

import itertools
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jmrec.data.anonymise import anonymise
from jmrec.data.folder import read_folder
from jmrec.data.guess import write_guess
from jmrec.data.more_rows import read_more_events
from jmrec.data.sources import Form, _single, open_source
from jmrec.errors import UserError

RNG = random.Random(0)
FILMS = [[str(i), f"Film {i}: The {i % 7}th (19{40 + i})", "Comedy|Drama"] for i in range(1, 41)]
FILMS[4][1] = '"Great Performances" Cats (1998)'
RATINGS = [
    [str(u), str(i), str(1 + (u + i) % 5), str(975_000_000 + 86_400 * u + 60 * n)]
    for u in range(1, 41)
    for n, i in enumerate(RNG.sample(range(1, 41), 9))
]


def write(path: Path, rows: list[list[str]], sign: str, encoding: str = "utf-8") -> None:
    text = "".join(sign.join(row) + "\n" for row in rows)
    path.write_bytes(text.encode(encoding))


def plain(folder: Path, ratings: list[list[str]]) -> Any:
    """Return what is read of the same rows with names above them."""
    folder.mkdir()
    films = [["item_id", "title", "genres"], *FILMS]
    films[5] = ["5", '"""Great Performances"" Cats (1998)"', "Comedy|Drama"]
    write(folder / "items.csv", [[*row] for row in films], ";")
    rows = [["user_id", "item_id", "rating", "timestamp"], *ratings]
    write(folder / "interactions.csv", rows, ";")
    return read_folder(folder, strict=True)


def assert_same(found: Any, truth: Any) -> None:
    assert found.items.ids == truth.items.ids
    assert found.items.titles == truth.items.titles
    assert found.item.tolist() == truth.item.tolist()
    assert np.array_equal(found.time, truth.time)
    assert np.array_equal(found.rating, truth.rating)
    assert found.user[1] == truth.user[1]
    assert found.user[0].tolist() == truth.user[0].tolist()
    assert found.row.tolist() == [row - 1 for row in truth.row.tolist()]


def test_init_knows_the_columns_of_public_files(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()
    write(folder / "movies.dat", FILMS, "::", "latin-1")
    write(folder / "ratings.dat", RATINGS, "::")
    write_guess(folder)
    text = (folder / "dataset.toml").read_text()
    assert 'column_names = ["user_id", "item_id", "rating", "timestamp"]' in text
    assert_same(read_folder(folder, strict=True), plain(tmp_path / "plain", RATINGS))


@pytest.mark.parametrize(
    ("films", "ratings"), [("films.csv", "ratings.dat"), ("movies.dat", "mine.csv")]
)
def test_what_other_files_mean_nobody_guesses(tmp_path: Path, films: str, ratings: str) -> None:
    """Numbers of users may be those of films, a rating the number of a visit."""
    write(tmp_path / films, FILMS, "::")
    write(tmp_path / ratings, RATINGS, "::")
    file = films if films != "movies.dat" else ratings
    with pytest.raises(UserError, match=rf"{file}, row 1: .* column_names = \[...\] under the"):
        write_guess(tmp_path)
    assert not (tmp_path / "dataset.toml").exists()


@pytest.mark.parametrize("sign", ["::", ";", "\t"])
def test_named_by_hand_they_are_read_as_with_names_above(tmp_path: Path, sign: str) -> None:
    folder = tmp_path / "shop"
    toml = TOML.replace('delimiter = "::"', f"delimiter = {json.dumps(sign)}")
    shop(folder, toml if sign == "::" else toml.replace(f"delimiter = {json.dumps(sign)}", ""))
    rows = [[*row] for row in FILMS]
    if sign != "::":  # which knows no quotes
        rows[4][1] = '"""Great Performances"" Cats (1998)"'
    write(folder / "items.csv", rows, sign)
    assert_same(read_folder(folder, strict=True), plain(tmp_path / "plain", RATINGS))


def test_events_alone(tmp_path: Path) -> None:
    """Of two files of events the one with more rows; items are what it names."""
    clicks = [
        [str(s), f"2014-04-{1 + s % 28:02d}T10:{n:02d}:09.277Z", str(214_500_000 + n * s % 31), "0"]
        for s in range(1, 60)
        for n in range(1, 5)
    ]
    buys = [[*row[:3], "1046", "1"] for row in clicks[::9]]
    write(tmp_path / "yoochoose-clicks.dat", clicks, ",")
    write(tmp_path / "yoochoose-buys.dat", buys, ",")
    write_guess(tmp_path)
    text = (tmp_path / "dataset.toml").read_text()
    assert "yoochoose-buys.dat is not read: yoochoose-clicks.dat has more rows" in text
    raw = read_folder(tmp_path, strict=True)
    assert [raw.items.ids[row] for row in raw.item] == [row[2] for row in clicks]
    assert raw.session is not None
    assert [raw.session[1][row] for row in raw.session[0]] == [row[0] for row in clicks]
    (tmp_path / "yoochoose-clicks.dat").rename(tmp_path / "mine.dat")
    (tmp_path / "dataset.toml").unlink()
    (tmp_path / "yoochoose-buys.dat").unlink()
    with pytest.raises(UserError, match=r"mine.dat, row 1: '1' looks like a value.*column_names"):
        write_guess(tmp_path)


TOML = """
[items]
column_names = ["item_id", "title", "genres"]
delimiter = "::"
[interactions]
column_names = ["user_id", "item_id", "rating", "timestamp"]
"""


def shop(folder: Path, toml: str = TOML) -> Path:
    folder.mkdir()
    write(folder / "items.csv", FILMS, "::")
    write(folder / "interactions.csv", RATINGS, ",")
    (folder / "dataset.toml").write_text(toml)
    return folder


def test_a_file_that_names_them_all_the_same(tmp_path: Path) -> None:
    """New events may come from a program that writes names."""
    folder = shop(tmp_path / "shop")
    raw = read_folder(folder, strict=True)
    names = [["user_id", "item_id", "rating", "timestamp"]]
    write(tmp_path / "with.csv", [*names, *RATINGS[:9]], ",")
    write(tmp_path / "without.csv", RATINGS[:9], ",")
    for name in ("with.csv", "without.csv"):
        more = read_more_events(tmp_path / name, raw.description, raw.items)
        assert more.item.tolist() == raw.item[:9].tolist()


def test_a_bad_row_is_called_by_its_number(tmp_path: Path) -> None:
    folder = shop(tmp_path / "shop")
    rows = [RATINGS[0], ["1", "2"], *RATINGS[2:9], ["1", "2", "3", "4", "5"], ["7", "99", "1", "1"]]
    (folder / "interactions.csv").write_text("".join(",".join(row) + "\n" for row in rows))
    said = "\n".join(read_folder(folder).warnings)
    assert "interactions.csv, row 2: 2 cells where the first row has 4" in said
    assert "row 11" in said


@pytest.mark.parametrize(
    ("toml", "says"),
    [
        (TOML.replace('"title", ', ""),
         r"items.csv, row 1: 3 cells, and \[items\] column_names in dataset.toml has 2 names"),
        (TOML.replace('"title"', '"item_id"'), "the column name 'item_id' is used twice"),
        (TOML.replace('"::"', '":::"'), "delimiter must be one character, such as"),
        (TOML.replace('["item_id", "title", "genres"]', '"item_id"'), "must be a list of strings"),
        (TOML.replace("[items]", "[dataset]\ncolumn_names = []\n[items]"), "no key 'column_names'"),
    ],
    ids=["few", "twice", "delimiter", "text", "dataset"],
)  # fmt: skip
def test_what_is_refused(tmp_path: Path, toml: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        read_folder(shop(tmp_path / "shop", toml))


def test_names_are_for_tables_of_cells(tmp_path: Path) -> None:
    form = Form(column_names=("a", "b"))
    (tmp_path / "a.jsonl").write_text('{"b": 1, "a": 2}\n')
    with pytest.raises(UserError, match=r"a.jsonl names its columns itself"):
        open_source(tmp_path, "items", "a.jsonl", form)
    (tmp_path / "a.csv").write_bytes("1::x\n2::y\n".encode("utf-16"))
    with pytest.raises(UserError, match="save it as UTF-8"):
        open_source(tmp_path, "items", "a.csv", form)


def test_two_colons_inside_cells_are_no_delimiter(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("item_id,title\n1,std::vector\n2,std::map\n3,Cup\n")
    assert open_source(tmp_path, "items", "a.csv").header == ["item_id", "title"]
    (tmp_path / "b.csv").write_text("item_id,title\n" + "1,std::vector\n" * 9)
    assert open_source(tmp_path, "items", "b.csv").header == ["item_id", "title"]


@settings(max_examples=200, deadline=None)
@given(text=st.text(st.sampled_from(":a\n"), max_size=30), cuts=st.lists(st.integers(0, 30)))
def test_parts_are_cut_anywhere(text: str, cuts: list[int]) -> None:
    edges = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    parts = [text[a:b].encode() for a, b in itertools.pairwise(edges)]
    assert b"".join(_single(lambda: parts)) == text.replace("::", "\x1e").encode()


def test_a_copy_without_people_names_its_columns(tmp_path: Path) -> None:
    folder = shop(tmp_path / "shop")
    anonymise(folder, tmp_path / "out")
    raw, copy = read_folder(folder), read_folder(tmp_path / "out", strict=True)
    assert "column_names" not in (tmp_path / "out" / "dataset.toml").read_text()
    assert sorted(copy.items.titles) == sorted(raw.items.titles)
    assert len(copy.item) == len(raw.item)
