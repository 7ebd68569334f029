"""Files of verdicts: what is read, and one sentence with the row for what is broken."""

from pathlib import Path

import numpy as np
import pytest

from jmrec.data.schema import Ratings
from jmrec.data.verdicts import Verdict, read_verdicts, verdicts_of, with_verdicts
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


@pytest.mark.parametrize("means", ["avoid", "want"])
def test_verdicts_become_rows_at_the_end(means: str) -> None:
    ratings = Ratings(
        items=np.array([1, 0], np.int32), users=np.array([0, -1], np.int32), user_ids=["eve"],
        times=np.array([5.0, 7.0]), labels=np.array([1, -1], np.int8),
        ratings=np.array([0.5, np.nan], np.float32), reviews=["good", ""], label="low",
        label_means=means,
    )  # fmt: skip
    said = [Verdict("i2", "eve", "drop"), Verdict("i1", "bob", "keep"), Verdict("i1", "", "drop")]
    found = with_verdicts(ratings, said, ITEMS)
    assert found.items.tolist() == [1, 0, 1, 0, 0]
    assert found.users.tolist() == [0, -1, 0, 1, -1]
    assert found.user_ids == ["eve", "bob"]
    assert found.times.tolist() == [5.0, 7.0, 7.0, 7.0, 7.0]
    dropped = int(means == "avoid")
    assert found.labels.tolist() == [1, -1, dropped, 1 - dropped, dropped]
    assert found.reviews == ["good", "", "", "", ""]
    for name in ("items", "users", "times", "labels", "ratings"):
        assert getattr(found, name).dtype == getattr(ratings, name).dtype
        np.testing.assert_array_equal(getattr(found, name)[:2], getattr(ratings, name))
