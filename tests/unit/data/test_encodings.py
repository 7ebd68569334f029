"""Encodings of all scripts, a file each, and files whose first row names nothing."""

from pathlib import Path

import pytest

from jmrec.data.description import describe
from jmrec.data.encodings import guess_codepage
from jmrec.data.folder import read_folder
from jmrec.data.guess import write_guess
from jmrec.errors import UserError

TITLES = {
    "cp1252": ["Größe", "schöne Füße", "Café crème à l’été", "pequeño año", "5 € – “neu”"],
    "cp1251": ["Красные ботинки", "Чашка синяя", "Телефон Samsung", "ИГРА", "Книга"],
    "koi8_r": ["Красные ботинки", "Чашка синяя", "Телефон", "Книга"],
    "cp1253": ["Κόκκινα παπούτσια", "Ένα μπλε καπέλο", "βιβλίο"],
    "cp1255": ["נעליים אדומות", "כובע כחול", "ספר"],
    "cp1256": ["حذاء أحمر", "قبعة زرقاء للمشي", "كتاب جيد"],
    "gb18030": ["男士运动鞋透气跑步", "手机壳 iPhone 保护套", "不锈钢保温杯500ml", "红鞋"],
    "big5": ["紅色皮鞋 適合散步", "藍色帽子", "不鏽鋼保溫杯"],
    "shift_jis": ["青いシャツ", "子供用の自転車", "ソニーのカメラ", "表|紙", "赤い靴"],
    "euc_jp": ["青いシャツ", "子供用の自転車", "ソニーのカメラ", "赤い靴"],
    "euc_kr": ["빨간 신발", "산책에 좋은 모자", "책"],
}
EVENTS = "item_id;user_id\n" + "".join(f"{k % 9};u{k // 3}\n" for k in range(60))


def _items(titles: list[str]) -> list[str]:
    return [f"{titles[i % len(titles)]} {i}" for i in range(9)]


def _write(folder: Path, encoding: str, titles: list[str]) -> None:
    text = "item_id;title\n" + "".join(f'{i};"{title}"\n' for i, title in enumerate(titles))
    (folder / "items.csv").write_bytes(text.encode(encoding))


@pytest.mark.parametrize("encoding", TITLES)
def test_every_script_is_read(tmp_path: Path, encoding: str) -> None:
    titles = _items(TITLES[encoding])
    _write(tmp_path, encoding, titles)
    (tmp_path / "interactions.csv").write_text(EVENTS)
    raw = read_folder(tmp_path)
    assert raw.items.titles == titles
    (said,) = raw.warnings
    assert "row 2: a cell is not UTF-8, so the file is read as" in said
    write_guess(tmp_path)
    raw = read_folder(tmp_path, strict=True)  # named now
    assert raw.items.titles == titles


@pytest.mark.parametrize("encoding", [name for name in TITLES if name != "cp1255"])
def test_one_title_is_enough(encoding: str) -> None:
    same = {"shift_jis": "cp932", "euc_kr": "cp949"}
    for title in TITLES[encoding][:2]:
        assert guess_codepage(f"item_id,title\n1,{title}\n".encode(encoding)) == same.get(
            encoding, encoding
        )


@pytest.mark.parametrize("other", ["utf-8", "utf-8-sig", "cp1251", "utf-16"])
def test_each_file_has_its_encoding(tmp_path: Path, other: str) -> None:
    titles = _items(TITLES["cp1252"])
    _write(tmp_path, "cp1252", titles)
    events = "item_id;user_id;event\n" + "".join(f"{k % 9};u{k // 3};Клик\n" for k in range(60))
    (tmp_path / "interactions.csv").write_bytes(events.encode(other))
    write_guess(tmp_path)
    found = describe(tmp_path)
    assert (found.encoding, found.forms["items"]) == ("", {"encoding": "cp1252"})
    raw = read_folder(tmp_path)
    assert raw.items.titles == titles
    assert raw.event_names == ["", "Клик"]
    assert raw.warnings == []


def test_a_byte_order_mark_is_believed_and_utf8_is_said(tmp_path: Path) -> None:
    _write(tmp_path, "cp1252", _items(TITLES["cp1252"]))
    toml = tmp_path / "dataset.toml"
    toml.write_text('[dataset]\nencoding = "cp1252"\n')
    (tmp_path / "interactions.csv").write_bytes(EVENTS.encode("utf-8-sig"))
    raw = read_folder(tmp_path, strict=True)
    assert len(raw.item) == 60
    (tmp_path / "interactions.csv").write_text(EVENTS.replace("u1\n", "ü1\n"), encoding="utf-8")
    (said,) = read_folder(tmp_path).warnings
    assert "interactions.csv is UTF-8 and is read as cp1252" in said
    toml.write_text('[items]\nencoding = "cp1252"\n')
    raw = read_folder(tmp_path, strict=True)
    assert raw.user is not None
    assert "ü1" in raw.user[1]


ROWS = [[f"{i}", f"Thing {i}", ["red", "blue"][i % 2], f"{i}.5"] for i in range(1, 30)]
CLICKS = [[f"s{k // 3}", f"{k % 29 + 1}", f"{1_700_000_000 + k}", "view"] for k in range(90)]


def _table(path: Path, rows: list[list[str]], head: str = "") -> None:
    path.write_text(head + "".join(",".join(row) + "\n" for row in rows))


@pytest.mark.parametrize("drop", [[], [0], [0, 3], [2, 3]])
@pytest.mark.parametrize("table", ["items", "interactions"])
def test_a_file_without_a_header_is_noticed(tmp_path: Path, table: str, drop: list[int]) -> None:
    """By its numbers, or by its words alone."""
    for name, rows in (("items", ROWS), ("interactions", CLICKS)):
        kept = [[c for i, c in enumerate(row) if i not in drop] for row in rows]
        if name == table:
            _table(tmp_path / f"{name}.csv", kept)
        else:
            head = (
                "item_id,title,colour,price" if name == "items" else "session_id,item_id,time,event"
            )
            _table(tmp_path / f"{name}.csv", rows, head + "\n")
    with pytest.raises(UserError, match=f"{table}.csv, row 1: .* looks like a value"):
        read_folder(tmp_path)
    with pytest.raises(UserError, match=f"{table}.csv, row 1: .* looks like a value"):
        write_guess(tmp_path)


@pytest.mark.parametrize(
    "head",
    ["item_id,title,colour,price", "Artikel,Name,Farbe,2019", "0,1,2,3", "nr,red,blue,2020"],
)
def test_a_header_is_one(tmp_path: Path, head: str) -> None:
    _table(tmp_path / "items.csv", ROWS, head + "\n")
    _table(tmp_path / "interactions.csv", CLICKS, "session_id,item_id,timestamp,event\n")
    write_guess(tmp_path)
    assert len(read_folder(tmp_path).items) == 29


def test_tables_that_were_joined_have_a_header(tmp_path: Path) -> None:
    """The header stands once more in the middle."""
    rows = [*ROWS[:9], ["nr", "what", "colour", "price"], *ROWS[9:]]
    _table(tmp_path / "items.csv", rows, "nr,what,colour,price\n")
    _table(tmp_path / "interactions.csv", CLICKS, "session_id,item_id,timestamp,event\n")
    write_guess(tmp_path)
    assert len(read_folder(tmp_path).items) == 30
