"""Folders as they come: encodings, delimiters, gzip, Parquet, times, windows, filters."""

import csv
import gzip
import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from jmrec.data.columns import read_numbers
from jmrec.data.folder import Raw, read_folder
from jmrec.data.prepared import build, prepare
from jmrec.data.schema import Sessions, take_items
from jmrec.data.sessions import filter_training, sessionise, split_by_time
from jmrec.data.sources import MAX_LINE, read_bytes
from jmrec.errors import UserError


def _rewrite(path: Path, encoding: str, delimiter: str = ",") -> None:
    rows = csv.reader(io.StringIO(path.read_text(encoding="utf-8"), newline=""))
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=delimiter).writerows(rows)
    path.write_bytes(out.getvalue().encode(encoding))


def _same(shop: Path, other: Path, **settings: bool) -> Raw:
    """Both folders hold the same, to the last bit."""
    raw = read_folder(other, **settings)
    assert build(raw).fingerprint == build(read_folder(shop)).fingerprint
    return raw


@pytest.fixture
def shops(tmp_path: Path, make_shop: Callable[..., Path]) -> tuple[Path, Path]:
    return make_shop(tmp_path / "one"), make_shop(tmp_path / "two")


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"]
)
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_encodings_and_delimiters(shops: tuple[Path, Path], encoding: str, delimiter: str) -> None:
    for name in ("items.csv", "interactions.csv"):
        _rewrite(shops[1] / name, encoding, delimiter)
    raw = _same(*shops)
    assert len(raw.warnings) == (encoding == "cp1252")


def test_a_named_encoding_is_no_guess(shops: tuple[Path, Path]) -> None:
    _rewrite(shops[1] / "items.csv", "latin-1")
    toml = shops[1] / "dataset.toml"
    toml.write_text(toml.read_text().replace("[dataset]", '[dataset]\nencoding = "latin-1"'))
    _same(*shops, strict=True)


def test_gzip_and_names_of_files(shops: tuple[Path, Path]) -> None:
    _, two = shops
    items, events = two / "items.csv", two / "interactions.csv"
    (two / "items.csv.gz").write_bytes(gzip.compress(items.read_bytes()))
    events.rename(two / "clicks")
    items.unlink()
    toml = two / "dataset.toml"
    toml.write_text(toml.read_text() + '[interactions]\nfile = "clicks"\n')
    _same(*shops, strict=True)


def test_parquet_with_its_own_types(shops: tuple[Path, Path]) -> None:
    """Lists, nulls, ids and times as numbers: what a CSV says in text."""
    one, two = shops
    for name in ("items", "interactions"):
        header, *rows = csv.reader(io.StringIO((one / f"{name}.csv").read_text(), newline=""))
        columns = {key: pa.array([row[i] for row in rows]) for i, key in enumerate(header)}
        if name == "items":
            columns["tags"] = pa.array([[t for t in row[4].split("|") if t] for row in rows])
            columns["price"] = pa.array([float(row[6]) if row[6] else None for row in rows])
            columns["image"] = pa.array([row[3] or None for row in rows]).dictionary_encode()
        else:
            seconds = pa.array([int(row[3]) for row in rows])
            columns["timestamp"] = seconds.cast(pa.timestamp("s"))
            columns["rating"] = pa.array([float(row[5]) for row in rows])
        pa.parquet.write_table(pa.table(columns), two / f"{name}.parquet", row_group_size=5)
        (two / f"{name}.csv").unlink()
    _same(*shops, strict=True)


def test_ids_that_pandas_made_floats(tmp_path: Path) -> None:
    """A column of whole numbers with a gap is written as floats."""
    ids = pa.array([1.0, 2.0, None])
    pa.parquet.write_table(pa.table({"item_id": ids}), tmp_path / "items.parquet")
    (tmp_path / "interactions.csv").write_text("item_id,user_id\n1,a\n2.0,a\n2,a\n")
    raw = read_folder(tmp_path)
    assert raw.items.ids == ["1", "2"]
    assert raw.row.tolist() == [2, 3, 4]
    assert raw.warnings == [
        "interactions.csv, row 3: the item id '2.0' is not in items.parquet, which has '2', and "
        "is read as that (cells mended: 1)."
    ]


@pytest.mark.parametrize(
    ("time_format", "cell"),
    [
        ("", "1763748300"),
        ("", "2025-11-21T18:05:00Z"),
        ("", "2025-11-21 18:05"),
        ("", "2025-11-21T19:05:00+01:00"),
        ("ms", "1763748300000"),
        ("us", "1763748300000000"),
        ("%d.%m.%Y %H:%M", "21.11.2025 18:05"),
        ("%m/%d/%Y %H:%M:%S", "11/21/2025 18:05:00"),
        ("%d.%m.%Y", "2025-11-21T18:05"),
    ],
)
def test_times(tmp_path: Path, time_format: str, cell: str) -> None:
    (tmp_path / "items.csv").write_text("item_id\na\n")
    (tmp_path / "interactions.csv").write_text(f"item_id,user_id,timestamp\na,u,{cell}\n")
    (tmp_path / "dataset.toml").write_text(f'[dataset]\ntime_format = "{time_format}"\n')
    raw = read_folder(tmp_path, strict=True)
    assert raw.time is not None
    assert raw.time.tolist() == [1_763_748_300.0]


def test_decimal_comma(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("item_id;price\na;3,5\nb;-2\n")
    (tmp_path / "interactions.csv").write_text("item_id;user_id\na;u\n")
    (tmp_path / "dataset.toml").write_text(
        '[dataset]\ndecimal = ","\n[items]\nnumber_columns = ["price"]\n'
    )
    assert read_folder(tmp_path, strict=True).items.number["price"].tolist() == [3.5, -2.0]


@pytest.mark.parametrize(
    ("decimal", "cells", "expected"),
    [
        (",", ["1.409,83", "1.500", "12,5", "1.234.567", "-1.000,5"],
         [1409.83, 1500, 12.5, 1234567, -1000.5]),
        (".", ["1,409.83", "1,500", "12.5", "1,234,567", "0.409"],
         [1409.83, 1500, 12.5, 1234567, 0.409]),
        (",", ["1.409", "7.5", "0.125"], [1.409, 7.5, 0.125]),  # points, as Parquet writes them
        (",", ["1.409", "7,5", "0.409"], [1.409, 7.5, 0.409]),
        (",", ["12.34,5", "1.2345,6", "1.409,83"], [None, None, 1409.83]),
        (".", ["1,409", "7.5"], [None, 7.5]),
        (",", ["1.409", "7,5"], [None, 7.5]),
        (",", ["1.409", "1.409,5", "7.5"], [None, 1409.5, 7.5]),
    ],
)  # fmt: skip
def test_marks_between_thousands(
    decimal: str, cells: list[str], expected: list[float | None]
) -> None:
    found, _ = read_numbers(cells, decimal)
    assert [None if value != value else value for value in found.tolist()] == expected


@pytest.mark.parametrize(
    ("decimal", "cell", "says"),
    [
        (",", "1.409", r"row 3: price is '1\.409', which may be 1409 or 1,409; write which of the "
         r"two it is\.$"),
        (".", "1,409", r"which may be 1409 or 1\.409; .* or write decimal = \",\" under \[dataset"),
    ],
)  # fmt: skip
def test_a_number_of_two_meanings_is_refused(
    tmp_path: Path, decimal: str, cell: str, says: str
) -> None:
    (tmp_path / "items.csv").write_text(f"item_id;price\na;5\nb;{cell}\n")
    (tmp_path / "interactions.csv").write_text("item_id;user_id\na;u\n")
    (tmp_path / "dataset.toml").write_text(
        f'[dataset]\ndecimal = "{decimal}"\n[items]\nnumber_columns = ["price"]\n'
    )
    with pytest.raises(UserError, match=says):
        read_folder(tmp_path, strict=True)


def test_a_wrong_encoding_is_told_by_its_key(tmp_path: Path) -> None:
    rows = ["item_id;title", *(f"{i};Größe {i} für Füße" for i in range(6)), "6;plain", "7;plain"]
    (tmp_path / "items.csv").write_bytes("\n".join(rows).encode("cp1252"))
    (tmp_path / "interactions.csv").write_text("item_id;user_id\n0;u\n")
    toml = tmp_path / "dataset.toml"
    toml.write_text('[dataset]\nencoding = "utf-8"\n')
    with pytest.raises(
        UserError, match=r'row 2: a cell is not UTF-8; .* encoding = "\.\.\." .*\(6 of 8 rows'
    ):
        read_folder(tmp_path)
    rows = [*rows[:4], *(f"{i};plain" for i in range(3, 8))]
    (tmp_path / "items.csv").write_bytes("\n".join(rows).encode("cp1252"))
    (warning,) = read_folder(tmp_path).warnings
    assert 'encoding = "..." under [dataset]' in warning
    assert "broken: 3)" in warning  # cells; each has four broken characters
    (tmp_path / "items.csv").write_bytes("item_id;Größe\na;1\n".encode("cp1252"))
    toml.write_text('[dataset]\nencoding = "utf-8"\n[items]\nnumber_columns = ["Größe"]\n')
    with pytest.raises(UserError, match=r"its header is not utf-8: name its encoding as encoding"):
        read_folder(tmp_path)


def test_windows_are_carried(tmp_path: Path, make_shop: Callable[..., Path]) -> None:
    shop = make_shop(tmp_path / "shop")
    plain = build(read_folder(shop))
    assert not plain.items.has_windows
    assert plain.items.available_until.tolist() == [np.inf] * 8
    path = shop / "items.csv"
    rows = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"), newline="")))
    rows[0] += ["available_from", "until"]
    for row in rows[1:]:
        row += (
            ["", "2026-01-02"] if row[0] == "i1" else ["86400", ""] if row[0] == "i2" else ["", ""]
        )
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    toml = shop / "dataset.toml"
    toml.write_text(toml.read_text() + 'available_until = "until"\n')
    items = prepare(shop, None, tmp_path / "out", strict=True).items
    assert items.available_from.dtype == items.available_until.dtype == np.float64
    assert items.available_from.tolist() == [-np.inf, -np.inf, 86400.0, *[-np.inf] * 5]
    assert items.available_until.tolist() == [np.inf, 1_767_398_399.0, *[np.inf] * 6]
    assert take_items(items, [2, 1]).available_from.tolist() == [86400.0, -np.inf]
    assert build(read_folder(shop)).fingerprint != plain.fingerprint


def test_event_names_are_carried(tmp_path: Path, make_shop: Callable[..., Path]) -> None:
    dataset = prepare(make_shop(tmp_path / "shop"), None, tmp_path / "out")
    assert dataset.event_names == ["", "view"]
    assert set(dataset.splits["train"].events.tolist()) == {1}


def _brute(lists: list[list[int]], k_core: int, length: int) -> list[list[int]]:
    while True:
        flat = [i for x in lists for i in x]
        new = [[i for i in x if flat.count(i) >= k_core] for x in lists]
        new = [x for x in new if len(x) >= length]
        if new == lists:
            return lists
        lists = new


@pytest.mark.parametrize(("k_core", "length"), [(1, 3), (2, 2), (4, 3), (6, 2)])
def test_filters_against_plain_loops(
    make_sessions: Callable[..., Sessions], k_core: int, length: int
) -> None:
    random = np.random.default_rng(k_core)
    lists = [
        (40 * random.random(random.integers(2, 7)) ** 3).astype(int).tolist() for _ in range(30)
    ]
    train = filter_training(make_sessions(lists), k_core=k_core, min_session_length=length)
    assert [x.tolist() for x in train] == _brute(lists, k_core, length)
    assert 0 < len(train) < 30
    assert len(train.times) == len(train.items)


def _filtered(raw: Raw, k_core: int = 3, length: int = 3) -> Raw:
    description = replace(raw.description, k_core=k_core, min_session_length=length)
    return replace(raw, description=description)


def _events(count: int) -> tuple[Sequence[int], Sequence[int]]:
    random = np.random.default_rng(1)
    session = np.sort(random.integers(60, size=count))
    return (25 * random.random(count) ** 4).astype(int).tolist(), session.tolist()


def test_filters_touch_training_alone(make_raw: Callable[..., Raw]) -> None:
    item, session = _events(240)
    raw = make_raw(item, session=session, time=range(240))
    plain, filtered = build(raw).splits, build(_filtered(raw)).splits
    assert len(filtered["train"].items) < len(plain["train"].items)
    for name in ("validation", "test"):
        assert filtered[name].ids == plain[name].ids
        np.testing.assert_array_equal(filtered[name].items, plain[name].items)
    assert build(_filtered(raw, 1, 2)).fingerprint == build(raw).fingerprint
    assert build(_filtered(raw)).fingerprint != build(raw).fingerprint


def test_validation_and_test_have_no_say_in_the_filters(make_raw: Callable[..., Raw]) -> None:
    """Whatever items the later splits hold, the same is taken out of training."""
    item, session = _events(240)
    raw = make_raw(item, session=session, time=range(240))
    before = build(_filtered(raw)).splits
    start = before["validation"].times[0]
    assert raw.time is not None
    for value in (0, max(item)):
        # Were later events counted, item `value` would be frequent, and all others rarer.
        other = replace(raw, item=np.where(raw.time >= start, value, raw.item).astype(np.int32))
        after = build(_filtered(other)).splits
        assert after["train"].ids == before["train"].ids
        np.testing.assert_array_equal(after["train"].items, before["train"].items)
        assert set(after["test"].items.tolist()) == {value}
    count = np.bincount(split_by_time(sessionise(raw))["train"].items, minlength=max(item) + 1)
    gone = set(np.flatnonzero(count < 3).tolist())
    assert gone  # something is rare in training
    assert not gone & set(before["train"].items.tolist())


def test_filters_that_leave_nothing(make_raw: Callable[..., Raw]) -> None:
    item, session = _events(240)
    with pytest.raises(UserError, match="k_core = 999 and min_session_length = 3 leave no session"):
        build(_filtered(make_raw(item, session=session, time=range(240)), 999))


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz"])
def test_a_line_that_is_too_long_is_found_while_the_file_is_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    pack = gzip.compress if name.endswith(".gz") else bytes
    line = np.random.default_rng(0).integers(65, 90, MAX_LINE // 2, np.uint8).tobytes()
    path.write_bytes(pack(b"a,b\n" + (line + b",1\r") * 4 + b"1,2\n"))
    assert len(read_bytes(path)) > 2 * MAX_LINE
    path.write_bytes(pack(b"a,b\n" + line + b",1\n" + line * 3 + b",1\n"))
    with pytest.raises(UserError, match=f"{name}, line 3 has more than 16,777,216 bytes; save"):
        read_bytes(path)


def test_rows_that_end_with_a_delimiter_beside_a_broken_one(tmp_path: Path) -> None:
    """A row whose title has a delimiter too many has more cells, and names no column."""
    rows = ["item_id,title,", *(f"i{k},Hat {k}," for k in range(9)), "i9,Cap, red, small,"]
    (tmp_path / "items.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "interactions.csv").write_text("item_id,user_id\ni1,a\ni2,a\n")
    raw = read_folder(tmp_path)
    assert raw.items.text["title"][:9] == [f"Hat {k}" for k in range(9)]
