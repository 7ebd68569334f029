"""Reading a catalogue folder: what is accepted, and what a user is told when it is not."""

import contextlib
import csv
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jmrec.data.folder import describe, read_folder
from jmrec.errors import UserError

ITEMS = [["item_id", "title"], ["a", "A"], ["b", "B"]]
EVENTS = [["item_id", "session_id", "timestamp"], ["a", "s", "1"], ["b", "s", "2"]]
FUZZ = settings(max_examples=60, deadline=None)
# Cells near to what is meant, so that every check is reached, and anything at all.
CELL = st.one_of(
    st.sampled_from(
        ["a", "b", "", " a ", "1", "-1e3", "nan", "inf", "1e99", "2026-01-02T03:04:05Z"]
    ),
    st.sampled_from(["../x.png", "/etc", "images", ".", "\0", "1700000000000", '"', "a|b", "é"]),
    st.text(max_size=8),
)


@pytest.fixture
def folder(tmp_path: Path, write_csv: Callable[..., None]) -> Path:
    write_csv(tmp_path / "items.csv", ITEMS)
    write_csv(tmp_path / "interactions.csv", EVENTS)
    return tmp_path


def test_everything_is_read(tmp_path: Path, make_shop: Callable[..., Path]) -> None:
    raw = read_folder(make_shop(tmp_path / "shop"))
    items = raw.items
    assert list(items.text) == ["title", "description", "tags"]
    assert items.titles == items.text["title"] == [f"Töy, no. {i}" for i in range(8)]
    assert items.text["description"][2:4] == ['says "2"\nand more', ""]
    assert items.text["tags"][:2] == ["", "red, big"]
    assert items.category_names == {"brand": ["", "Acme", "Zet"]}
    assert items.category["brand"].tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
    np.testing.assert_array_equal(
        items.number["price"], np.array([0.5, 1.5, 2.5, 3.5, 4.5, np.nan, 6.5, 7.5], np.float32)
    )
    assert items.pictures[1] == (tmp_path / "shop/images/1.png").read_bytes()
    assert items.pictures[6] == b""
    with (tmp_path / "shop/interactions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [items.ids[i] for i in raw.item] == [r["item_id"] for r in rows]
    assert raw.session is not None
    assert [raw.session[1][i] for i in raw.session[0]] == [r["session_id"] for r in rows]
    assert raw.time is not None
    assert raw.time.tolist() == [float(r["timestamp"]) for r in rows]
    assert raw.event_names == ["", "view"]
    assert set(raw.event) == {1}
    assert set(raw.rating) == {3.5}
    assert raw.row.tolist() == list(range(2, len(rows) + 2))


def test_defaults_without_a_description(folder: Path) -> None:
    raw = read_folder(folder)
    assert raw.items.ids == ["a", "b"]
    assert raw.user is None
    assert not raw.description.exclude_seen
    assert raw.description.items.picture == ""


def test_toml_from_elsewhere_wins(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    (folder / "dataset.toml").write_text('[dataset]\nname = "inside"\n')
    other = tmp_path_factory.mktemp("toml") / "other.toml"
    other.write_text('[dataset]\nname = "outside"\n[interactions]\ntime = ""\n')
    assert describe(folder).name == "inside"
    assert describe(folder, other).name == "outside"
    assert read_folder(folder, other).time is None


def test_bom_blank_lines_and_iso_times(folder: Path) -> None:
    (folder / "items.csv").write_bytes('\ufeffitem_id,title\r\na,"x\r\ny"\r\n\r\nb,\r\n'.encode())
    (folder / "interactions.csv").write_text(
        "item_id,session_id,timestamp\na,s,1970-01-01T00:01:00\nb,s,1970-01-01T01:00:00+01:00\n"
    )
    raw = read_folder(folder)
    assert raw.items.titles == ["x\r\ny", ""]
    assert raw.item_row.tolist() == [2, 4]
    assert raw.time is not None
    assert raw.time.tolist() == [60.0, 0.0]


def _edit(path: Path, row: int, column: int, value: str) -> None:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    rows[row - 1][column] = value
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


@pytest.mark.parametrize(
    ("file", "row", "column", "value", "expected"),
    [
        ("items", 3, 0, "i0", r"items.csv, row 3: the item id 'i0' stands in row 2 already"),
        ("items", 5, 0, " ", r"items.csv, row 5: item_id is empty"),
        ("items", 4, 3, "../dataset.toml", r"items.csv, row 4: .* lies outside images/"),
        ("items", 4, 3, "none.png", r"items.csv, row 4: .*'none.png' can not be read"),
        ("items", 4, 3, "../images", r"items.csv, row 4: .*'\.\.' in it"),
        ("items", 4, 3, "text.png", r"items.csv, row 4: .* is none of PNG, JPEG"),
        ("items", 4, 3, "cut.png", r"items.csv, row 4: .*'cut.png' does not decode"),
        ("items", 4, 3, "bomb.png", r"items.csv, row 4: .* has more than 40,000,000 pixels"),
        ("items", 4, 3, "void.png", r"items.csv, row 4: .* is an empty file"),
        ("items", 6, 6, "cheap", r"items.csv, row 6: price is 'cheap', not a number"),
        ("interactions", 7, 2, "i99", r"interactions.csv, row 7: the item id 'i99' is not in item"),
        ("interactions", 7, 2, "", r"interactions.csv, row 7: item_id is empty"),
        ("interactions", 7, 0, "", r"interactions.csv, row 7: session_id is empty"),
        ("interactions", 7, 3, "soon", r"interactions.csv, row 7: timestamp is 'soon', not a time"),
        (
            "interactions",
            7,
            3,
            "nan",
            r"interactions.csv, row 7: timestamp is 'nan', a word for nothing",
        ),
        ("interactions", 7, 3, "1700000000000", r"row 7: .* divide by 1000"),
        ("interactions", 7, 5, "5 stars", r"interactions.csv, row 7: rating is '5 stars'"),
        ("interactions", 3, 1, "u99", r"interactions.csv, row \d+: session 's\d+' belongs to ano"),
    ],
)
def test_a_broken_cell_is_named(
    tmp_path: Path,
    make_shop: Callable[..., Path],
    png: Callable[..., bytes],
    file: str,
    row: int,
    column: int,
    value: str,
    expected: str,
) -> None:
    shop = make_shop(tmp_path / "shop")
    noise = png((1, 2, 3), (64, 64))
    (shop / "images/cut.png").write_bytes(noise[: len(noise) // 2])
    (shop / "images/text.png").write_text("hello")
    (shop / "images/void.png").write_bytes(b"")
    (shop / "images/bomb.png").write_bytes(_huge(png((1, 2, 3))))
    _edit(shop / f"{file}.csv", row, column, value)
    with pytest.raises(UserError, match=expected) as error:
        read_folder(shop, strict=True)
    assert "\n" not in str(error.value)


def _huge(data: bytes) -> bytes:
    """Make a PNG claim 30,000 x 30,000 pixels."""
    header = b"IHDR" + struct.pack(">II", 30_000, 30_000) + data[24:29]
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


@pytest.mark.parametrize(
    ("toml", "expected"),
    [
        ("[dataset]\nexclude_sen = true", r"no key 'exclude_sen'; did you mean 'exclude_seen'"),
        ("[item]\n", r"no table 'item'; did you mean 'items'"),
        ("items = 3", r"items must be a table"),
        ('[items]\ntext_columns = "title"', r"text_columns must be a list of strings"),
        ("[dataset]\nsession_gap_minutes = 0", r"session_gap_minutes must be above 0"),
        ("[dataset]\nsession_gap_minutes = true", r"session_gap_minutes must be a number"),
        (
            '[items]\ntitle = "titel"',
            r"'titel', which items.csv does not have; did you mean 'title'",
        ),
        ('[interactions]\ntime = "when"', r"'when', which interactions.csv does not have"),
        (
            '[items]\nnever_use = ["brand"]\ncategory_columns = ["brand"]',
            r"'brand' stands in never",
        ),
        (
            '[items]\nlist_columns = ["brand"]',
            r"list_columns names 'brand', which is no text field",
        ),
        ('[items]\ntext_columns = ["tags", "tags"]', r"text_columns names 'tags' twice"),
        ('[items]\nid = ""', r"items.csv has no column 'item_id'"),
        ('[interactions]\nsession = ""\nuser = ""', r"neither 'session_id' nor 'user_id'"),
        ("[dataset", r"dataset.toml: (?!.*quotes).*mend the TOML"),
        ("[items]\ntitle = Name", r"dataset.toml: .*; text stands in quotes; mend the TOML"),
        ("[items]\ntext_columns = [tags]", r"text stands in quotes"),
        ("[dataset]\nexclude_seen = true 3", r"dataset.toml: (?!.*quotes).*mend the TOML"),
    ],
)
def test_a_wrong_description(
    tmp_path: Path, make_shop: Callable[..., Path], toml: str, expected: str
) -> None:
    with pytest.raises(UserError, match=expected):
        describe(make_shop(tmp_path / "shop", toml))


@pytest.mark.parametrize(
    ("file", "data", "expected"),
    [
        ("items", b"", "items.csv: no header row"),
        ("items", b"item_id,title\n", "items.csv has no rows"),
        ("interactions", b"item_id,session_id\n", "interactions.csv has no rows"),
        ("items", b"item_id,item_id\na,b\n", "'item_id' is used twice"),
        ("items", b"item_id,\na,b\n", "'' is empty"),
        (
            "items",
            b'item_id,title\na,"x\ny"\nb\n',
            "items.csv, row 3: 1 cells where the header has 2",
        ),
        ("items", b"item_id,title\na,A\nb,\xff\n", "items.csv, row 3: a cell is not UTF-8"),
        ("items", b"id\na\n", "items.csv has no column 'item_id'"),
        ("interactions", b"item_id\na\n", "neither 'session_id' nor 'user_id'"),
    ],
)
def test_a_broken_file(folder: Path, file: str, data: bytes, expected: str) -> None:
    (folder / f"{file}.csv").write_bytes(data)
    with pytest.raises(UserError, match=expected):
        read_folder(folder, strict=True)


def test_missing_files(folder: Path) -> None:
    with pytest.raises(UserError, match="is not a folder"):
        read_folder(folder / "none")
    with pytest.raises(UserError, match="can not be read"):
        read_folder(folder, folder / "none.toml")
    (folder / "interactions.csv").unlink()
    with pytest.raises(UserError, match="does not exist; give the table that name"):
        read_folder(folder)


@pytest.fixture(scope="module")
def fuzz_folder(tmp_path_factory: pytest.TempPathFactory, make_shop: Callable[..., Path]) -> Path:
    return make_shop(tmp_path_factory.mktemp("fuzz") / "shop")


def _only_user_errors(folder: Path) -> None:
    try:
        raw = read_folder(folder)
    except UserError:
        return
    assert len(raw.item) == len(raw.row) > 0
    assert raw.item.max() < len(raw.items)


@FUZZ
@given(
    row=st.integers(1, 8),
    column=st.integers(0, 6),
    cell=CELL,
    event_row=st.integers(1, 20),
    event_column=st.integers(0, 5),
    event_cell=CELL,
)
def test_any_cell(
    fuzz_folder: Path,
    write_csv: Callable[..., None],
    row: int,
    column: int,
    cell: str,
    event_row: int,
    event_column: int,
    event_cell: str,
) -> None:
    saved = {n: (fuzz_folder / f"{n}.csv").read_bytes() for n in ("items", "interactions")}
    try:
        _edit(fuzz_folder / "items.csv", row + 1, column, cell)
        _edit(fuzz_folder / "interactions.csv", event_row + 1, event_column, event_cell)
        _only_user_errors(fuzz_folder)
    finally:
        for name, data in saved.items():
            (fuzz_folder / f"{name}.csv").write_bytes(data)


@FUZZ
@given(
    data=st.one_of(
        st.binary(max_size=60),
        st.lists(st.sampled_from(["item_id", ",", "\n", '"', "a", "\r", "session_id", "é"])).map(
            lambda parts: "".join(parts).encode()
        ),
    ),
    name=st.sampled_from(["items.csv", "interactions.csv", "dataset.toml"]),
)
def test_any_bytes(tmp_path_factory: pytest.TempPathFactory, data: bytes, name: str) -> None:
    folder = tmp_path_factory.mktemp("bytes")
    (folder / "items.csv").write_text("item_id\na\n")
    (folder / "interactions.csv").write_text("item_id,session_id\na,s\n")
    (folder / name).write_bytes(data)
    _only_user_errors(folder)
    shutil.rmtree(folder)


KEYS = ["name", "exclude_seen", "session_gap_minutes", "id", "title", "text_columns", "time", "x"]
VALUES = ['"title"', "true", "3", "-1.5", "nan", "1e400", "[]", '["tags"]', "[[1]]", "{a=1}", '""']


@FUZZ
@given(
    table=st.sampled_from(["dataset", "items", "interactions"]),
    pairs=st.dictionaries(st.sampled_from(KEYS), st.sampled_from([*VALUES, "9" * 400]), max_size=3),
)
def test_any_description(fuzz_folder: Path, table: str, pairs: dict[str, str]) -> None:
    toml = fuzz_folder / "fuzz.toml"
    toml.write_text(f"[{table}]\n" + "\n".join(f"{k} = {v}" for k, v in pairs.items()))
    with contextlib.suppress(UserError):
        describe(fuzz_folder, toml)
