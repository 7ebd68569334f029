"""Words for nothing are empty cells, wherever they stand, and are counted by word."""

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from jmrec.data.check import check
from jmrec.data.description import describe
from jmrec.data.folder import Raw, read_folder
from jmrec.data.guess import write_guess
from jmrec.data.missing import DOUBTFUL, MISSING
from jmrec.data.prepared import build
from jmrec.errors import UserError

WORDS = ["NULL", "null", "nan", "NaN", "None", "N/A", "NA", "\\N", "-", "k.A.", "Sin datos", "   "]
TOML = """[items]
text_columns = ["note"]
category_columns = ["brand"]
number_columns = ["price"]
"""
Rows = list[list[str]]


def _items(word: str) -> Rows:
    head = ["item_id", "title", "brand", "price", "note", "image"]
    rows = [[f"i{i}", f"Thing {i}", "ab"[i % 2], f"{i}.5", f"good {i}", ""] for i in range(9)]
    rows[2][1] = rows[3][2] = rows[4][3] = rows[5][4] = rows[6][5] = word if word != "x" else ""
    return [head, *rows]


def _events(word: str) -> Rows:
    """40 sessions of 3; every tenth event has no session, every eighth no user, one no time."""
    head = ["session_id", "user_id", "item_id", "timestamp", "event", "rating"]
    rows = [
        [f"s{k // 3}", f"u{k // 9}", f"i{k % 9}", str(10**9 + k), "view", "4"] for k in range(120)
    ]
    for k in range(0, 120, 10):
        rows[k][0] = word
    rows[7][3] = rows[8][4] = rows[11][5] = word
    return [head, *rows]


def _csv(path: Path, rows: Rows) -> None:
    path.write_text("".join(",".join(row) + "\n" for row in rows), encoding="utf-8")


def _parquet(path: Path, rows: Rows) -> None:
    columns = {name: pa.array([row[i] for row in rows[1:]]) for i, name in enumerate(rows[0])}
    pa.parquet.write_table(pa.table(columns), path.with_suffix(".parquet"))


@pytest.mark.parametrize("write", [_csv, _parquet])
@pytest.mark.parametrize("word", WORDS)
def test_a_word_for_nothing_reads_as_an_empty_cell(
    tmp_path: Path, word: str, write: Callable[[Path, Rows], None]
) -> None:
    found: list[Raw] = []
    for name, cell in (("empty", ""), ("word", word)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "dataset.toml").write_text(TOML)
        write(folder / "items.csv", _items(cell))
        write(folder / "interactions.csv", _events(cell))
        found.append(read_folder(folder))
    empty, raw = found
    assert build(raw).fingerprint == build(empty).fingerprint
    assert raw.session is not None
    rows = [row for k, row in enumerate(_events("")[1:]) if row[0] and k != 7]
    assert len(raw.item) == len(rows)
    assert sorted(raw.session[1]) == sorted({row[0] for row in rows})
    assert raw.items.titles[2] == ""
    assert raw.items.category_names["brand"] == ["", "a", "b"]
    assert np.isnan(raw.items.number["price"][4])
    assert raw.items.text["note"][5] == ""
    # 5 cells of items, 12 sessions, a time, an event and a rating.
    assert raw.words == ({word: 20} if word.strip() else {})
    said = [each for each in raw.warnings if "a word for nothing" in each]
    assert len(said) == (2 if word.strip() else 0)
    assert all("missing = [...] under [dataset]" in each for each in said)
    assert check(build(raw), raw).words == raw.words


def test_words_are_counted_one_by_one(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    events = _events("x")
    for row in events[1:]:
        row[1] = str(
            draw.choice(["u1", "u2", "u3", "NULL", "nan", "-"], p=[0.3, 0.3, 0.2, 0.1, 0.06, 0.04])
        )
        row[4], row[5] = "view", "4"
    events[8][3] = "1000000007"
    truth = Counter(row[1] for row in events[1:] if row[1] in ("NULL", "nan", "-"))
    events = [row[1:] for row in events]
    (tmp_path / "dataset.toml").write_text('[items]\ntext_columns = ["note"]\n')
    _csv(tmp_path / "items.csv", _items("x"))
    _csv(tmp_path / "interactions.csv", events)
    raw = read_folder(tmp_path)
    assert raw.words == truth
    (said,) = [each for each in raw.warnings if "a word for nothing" in each]
    for word, n in truth.items():
        assert f"{word!r} {n}" in said
    with pytest.raises(UserError, match=r"user_id is '.*', a word for nothing"):
        read_folder(tmp_path, strict=True)


def test_one_key_says_otherwise(tmp_path: Path) -> None:
    _csv(tmp_path / "items.csv", _items("None"))
    _csv(tmp_path / "interactions.csv", _events("NA"))
    (tmp_path / "dataset.toml").write_text(
        "[dataset]\nmissing = []\n" + TOML.replace('"price"', "")
    )
    raw = read_folder(tmp_path)
    assert raw.session is not None
    assert "NA" in raw.session[1]
    assert (raw.items.titles[2], raw.words) == ("None", {})
    assert raw.items.category_names["brand"] == ["", "None", "a", "b"]
    (tmp_path / "dataset.toml").write_text('[dataset]\nmissing = ["NA", "x"]\n' + TOML)
    raw = read_folder(tmp_path)
    assert raw.session is not None
    assert "NA" not in raw.session[1]
    assert raw.items.titles[2] == "None"
    assert not any("word for nothing" in each for each in raw.warnings)  # it is said, no guess


def test_ids_of_items_are_what_the_table_of_items_says(tmp_path: Path) -> None:
    """A country or an element may be called NA."""
    (tmp_path / "items.csv").write_text("item_id,title\nNA,Namibia\nDE,Germany\n")
    (tmp_path / "interactions.csv").write_text("item_id,user_id\nNA,u\nDE,u\nNULL,u\nNA,v\nDE,v\n")
    raw = read_folder(tmp_path)
    assert raw.items.ids == ["NA", "DE"]
    assert raw.item.tolist() == [0, 1, 0, 1]
    assert any(
        "item_id is 'NA', an id that looks like a word for nothing" in w for w in raw.warnings
    )
    assert any("the item id 'NULL' is not in items.csv" in each for each in raw.warnings)


def test_init_writes_the_key_and_sees_the_kind_of_a_column(tmp_path: Path) -> None:
    items, events = _items("\\N"), _events("NULL")
    for row in items[2:5]:
        row[3] = "\\N"
    _csv(tmp_path / "items.csv", items)
    _csv(tmp_path / "interactions.csv", events)
    text = write_guess(tmp_path).read_text(encoding="utf-8")
    found = describe(tmp_path)
    assert "price" in found.items.number_columns
    assert {"NULL", "\\N"} <= set(found.missing)
    assert "('NULL' 15, '\\\\N' 8 here)" in text
    raw = read_folder(tmp_path)
    assert not any("word for nothing" in each for each in raw.warnings)
    assert raw.words["NULL"] == 15
    assert asdict(check(build(raw), raw))["words"] == raw.words


def test_init_names_words_that_may_be_values_and_empties_none(tmp_path: Path) -> None:
    """A shirt without a pattern, a film without an age limit: only the owner can tell."""
    items = _items("x")
    for row in items[1:9]:
        row[2] = "ohne"
    _csv(tmp_path / "items.csv", items)
    _csv(tmp_path / "interactions.csv", _events("x"))
    text = write_guess(tmp_path).read_text(encoding="utf-8")
    assert f"# They may mean nothing too; if so, add them: 'ohne' in {items[0][2]!r} (8).\n" in text
    assert not DOUBTFUL & {word.casefold() for word in MISSING}
    assert "ohne" not in describe(tmp_path).missing
    assert not read_folder(tmp_path).words.get("ohne")
