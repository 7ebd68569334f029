"""Files of verdicts: what is read, and one sentence with the row for what is broken."""

from pathlib import Path

import pytest

from jmrec.data.verdicts import Verdict, read_verdicts, verdicts_of
from jmrec.errors import UserError

ITEMS = ["i1", "i2", "a, b"]


def written(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "verdicts.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_columns_may_stand_in_any_order_and_rows_twice(tmp_path: Path) -> None:
    text = (
        '\ufeffwhy,verdict, item_id,user_id\r\nbad,drop,i1,\r\n,keep,"a, b",eve\r\n\r\n,drop,i1,\n'
    )
    found = read_verdicts(written(tmp_path, text), ITEMS)
    assert found == (Verdict("i1", "", "drop"), Verdict("a, b", "eve", "keep"))
    assert verdicts_of(found, "eve") == {"i1": "drop", "a, b": "keep"}
    assert verdicts_of(found, "bob") == verdicts_of(found, "") == {"i1": "drop"}


HEAD = "item_id,user_id,verdict\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "row 1: there is not one column 'item_id'; begin the file with the line item_id,"),
        ("item_id,verdict\ni1,drop\n", "row 1: there is not one column 'user_id'"),
        ("item_id,item_id,user_id,verdict\n", "row 1: there is not one column 'item_id'"),
        (HEAD + "i1,,drop\ni1,,hide\n", "row 3: the verdict is 'hide'; write keep or drop."),
        (HEAD + "i1,,\n", "row 2: the verdict is ''; write keep or drop."),
        (HEAD + "i11,,drop\n", "row 2: item 'i11' is not in the catalogue; did you mean 'i1'?"),
        (HEAD + "zzz,,drop\n", "row 2: item 'zzz' is not in the catalogue; name one of it."),
        (HEAD + "i1,drop\n", "row 2: 2 cells for 3 columns; mend the row."),
        (HEAD + "i1,eve,drop\ni2,,keep\ni1,eve,keep\n", "row 4 says keep, and row 2 says drop"),
        (b"item_id,user_id,verdict\n\xff\xfe", "is no CSV file in UTF-8"),
        (HEAD + 'i1,"' + "x" * 200_000 + '",drop\n', "is no CSV file"),
    ],
)
def test_what_is_broken_is_named(tmp_path: Path, text: str | bytes, says: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(UserError) as caught:
        read_verdicts(path, ITEMS)
    said = str(caught.value)
    assert said.startswith(str(path))
    assert says in said
    assert len(said) < 400


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="can not be read"):
        read_verdicts(tmp_path / "none.csv", ITEMS)
