"""Labels and reviews of a folder: what is read, in which order, and that it is read back."""

import json
import operator
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jmrec.data import flat, records
from jmrec.data.folder import Raw, read_folder
from jmrec.data.prepared import build, load_prepared, prepare
from jmrec.data.ratings import make_ratings
from jmrec.data.schema import Ratings
from jmrec.errors import UserError

ROWS = [
    # user, item, time, stars, liked, review
    ("u1", "a", 300, "1", "yes", "late, but good"),
    ("u2", "b", 100, "2.5", "no", ""),
    ("u1", "b", 100, "", "TRUE", 'two\nlines and "quotes"'),
    ("u3", "a", 200, "4", "0", "<b>bold</b> &amp; plain"),
    ("u2", "a", 100, "2", "", "ünïcode 好"),
    ("u1", "b", 400, "5", "1.0", "again"),
]
HEADER = ["user_id", "item_id", "timestamp", "stars", "liked", "review"]
WriteCsv = Callable[[Path, Sequence[Sequence[object]]], None]


@pytest.fixture
def shop(tmp_path: Path, write_csv: WriteCsv) -> Path:
    folder = tmp_path / "shop"
    folder.mkdir()
    write_csv(folder / "items.csv", [["item_id", "title"], ["a", "A"], ["b", "B"]])
    write_csv(folder / "interactions.csv", [HEADER, *ROWS])
    return folder


def labelled(folder: Path, label: str, more: str = "") -> Path:
    (folder / "dataset.toml").write_text(f"[interactions]\nlabel = {json.dumps(label)}\n{more}")
    return folder


@pytest.mark.parametrize(
    ("sign", "compare"),
    [("<=", operator.le), ("<", operator.lt), (">=", operator.ge), (">", operator.gt),
     ("==", operator.eq)],
)  # fmt: skip
def test_a_rule_over_a_column_of_numbers(
    shop: Path, sign: str, compare: Callable[[float, float], bool]
) -> None:
    label = read_folder(labelled(shop, f"stars {sign} 2")).label
    assert label is not None
    assert label.dtype == np.int8
    assert label.tolist() == [int(compare(float(row[3]), 2)) if row[3] else -1 for row in ROWS]


def test_a_column_of_yes_and_no(shop: Path) -> None:
    label = read_folder(labelled(shop, "liked")).label
    assert label is not None
    assert label.tolist() == [1, 0, 1, 0, -1, 1]


def test_decimal_commas(shop: Path, write_csv: WriteCsv) -> None:
    rows = [[c.replace(".", ",") if isinstance(c, str) else c for c in row] for row in ROWS]
    write_csv(shop / "interactions.csv", [HEADER, *rows])
    labelled(shop, "stars <= 2.5", '[dataset]\ndecimal = ","\n')
    label = read_folder(shop).label
    assert label is not None
    assert label.tolist() == [1, 1, -1, 0, 1, 0]


def test_without_a_label_nothing_is_to_be_ranked(shop: Path) -> None:
    raw = read_folder(shop)
    assert raw.label is None
    assert raw.review is not None  # a column of the default name
    with pytest.raises(UserError, match="without sessions the rows need a label; write"):
        build(raw, sessions=False)
    (shop / "dataset.toml").write_text('[interactions]\nreview = ""\n')
    assert read_folder(shop).review is None


def test_rows_stand_in_the_order_of_time_and_then_of_the_file(shop: Path) -> None:
    ratings = make_ratings(read_folder(labelled(shop, "liked", 'label_means = "want"\n')))
    order = [1, 2, 4, 3, 0, 5]
    assert ratings.reviews == [ROWS[i][5] for i in order]
    assert [ratings.user_ids[code] for code in ratings.users] == [ROWS[i][0] for i in order]
    assert ratings.items.tolist() == [1, 1, 0, 0, 0, 1]
    assert ratings.times.tolist() == [100, 100, 100, 200, 300, 400]
    assert ratings.labels.tolist() == [0, 1, -1, 0, 1, 1]
    assert (ratings.label, ratings.label_means) == ("liked", "want")


def test_without_times_the_file_tells_the_order(make_raw: Callable[..., Raw]) -> None:
    raw = replace(make_raw([2, 0, 1], session=[0, 0, 0]), review=["x", "", "y"])
    ratings = make_ratings(raw)
    assert ratings.items.tolist() == [2, 0, 1]
    assert ratings.times.tolist() == [0, 1, 2]
    assert ratings.users.tolist() == [-1, -1, -1]
    assert (ratings.user_ids, ratings.reviews) == ([], ["x", "", "y"])


@pytest.mark.parametrize(
    ("label", "more", "says"),
    [
        ("lik", "", "label names the column 'lik', which interactions.csv does not have; did you"),
        ("lik", "", "did you mean 'liked'?"),
        ("star <= 2", "", "label names the column 'star', which interactions.csv does not have"),
        ("stars <= two", "", "label is 'stars <= two', neither a column nor a rule; write COLUMN"),
        ("stars =< 2", "", "label is 'stars =< 2', neither a column nor a rule; write COLUMN"),
        ("stars = 2", "", "label is 'stars = 2', neither a column nor a rule; write COLUMN"),
        ("stars <= 1e999", "", "neither a column nor a rule; write"),
        ("liked", 'label_means = "buy"\n', 'label_means must be "avoid" or "want"; mend'),
        ("liked", 'item_separator = " "\n', "so its label is of none of them; write"),
        ("review <= 3", "", "interactions.csv, row 2: review is 'late, but good', not a number"),
        ("review <= 3", "", "(5 of 6 rows are like that)"),
        ("stars", "", "interactions.csv, row 3: stars is '2.5', none of 1 and 0, true and false"),
        ("stars", "", 'or say which numbers are meant as label = "stars <= 2" in dataset.toml'),
        ("review", "", "row 2: review is 'late, but good', none of 1 and 0, true and false, yes"),
    ],
)  # fmt: skip
def test_what_is_refused(shop: Path, label: str, more: str, says: str) -> None:
    with pytest.raises(UserError) as error:
        read_folder(labelled(shop, label, more))
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_an_item_list_needs_no_review_column(shop: Path) -> None:
    (shop / "dataset.toml").write_text('[interactions]\nitem_separator = " "\n')
    with pytest.raises(UserError, match=r'its review is of none of them; write review = ""'):
        read_folder(shop)


def test_a_number_beside_yes_and_no_is_counted_as_no_label(shop: Path) -> None:
    path = shop / "interactions.csv"
    path.write_text(path.read_text(encoding="utf-8").replace("TRUE", "7"), encoding="utf-8")
    raw = read_folder(labelled(shop, "liked"))
    assert raw.label is not None
    assert raw.label.tolist() == [1, 0, -1, 0, -1, 1]
    (warning,) = raw.warnings
    assert "row 4: liked is '7', none of 1 and 0" in warning
    assert warning.endswith("(cells taken as empty: 1).")
    with pytest.raises(UserError, match="row 4: liked is '7'"):
        read_folder(shop, strict=True)


def test_a_given_test_file_has_labels_and_reviews_too(shop: Path, write_csv: WriteCsv) -> None:
    for name, rows in [("interactions.csv", ROWS[:4]), ("later.csv", ROWS[4:])]:
        write_csv(shop / name, [["session_id", *HEADER], *[("s" + row[0], *row) for row in rows]])
    raw = read_folder(labelled(shop, "liked", 'test_file = "later.csv"\n'))
    assert raw.review == [row[5] for row in ROWS]
    assert raw.label is not None
    assert raw.label.tolist() == [1, 0, 1, 0, -1, 1]


@pytest.mark.parametrize("block", [0, 2, 1024])
def test_round_trip(
    shop: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    as_before: Callable[[Path], None],
    block: int,
) -> None:
    """Flat, and as records of so many rows."""
    out = tmp_path / "out"
    labelled(shop, "stars <= 2")
    made = prepare(shop, None, out, sessions=False)
    if block:
        monkeypatch.setattr(records, "BLOCK", block)
        as_before(out)
    truth = make_ratings(read_folder(shop))
    for dataset in (made, load_prepared(out)):
        found = dataset.ratings
        assert found is not None
        assert all(len(part) == 0 for part in dataset.splits.values())
        for name, value in vars(truth).items():
            if isinstance(value, np.ndarray):
                assert getattr(found, name).dtype == value.dtype, name
                np.testing.assert_array_equal(getattr(found, name), value, err_msg=name)
            else:
                assert getattr(found, name) == value, name
    metadata = json.loads((out / "metadata.json").read_text())
    assert metadata["ratings"] == {"label": "stars <= 2", "label_means": "avoid"}
    assert metadata["counts"]["ratings"] == {
        "rows": 6, "users": 3, "reviews": 5, "labelled": 5, "positive": 2,
    }  # fmt: skip
    assert not (out / "jmrec_data" / "sessions").exists()
    assert prepare(shop, None, out, sessions=False).fingerprint == made.fingerprint
    with pytest.raises(UserError, match="holds other data"):
        prepare(labelled(shop, "stars <= 1"), None, out, sessions=False)
    with pytest.raises(UserError, match=r"too few to split; .*; or, .* give .* --no-sessions"):
        prepare(shop, None, tmp_path / "other")


def test_rows_without_users_and_without_a_review_column(
    make_raw: Callable[..., Raw], tmp_path: Path
) -> None:
    raw = make_raw([2, 0, 1], session=[0, 0, 0], time=[5, 4, 3])
    dataset = build(replace(raw, label=np.array([1, 0, -1], np.int8)), sessions=False)
    records.write_rest(dataset, tmp_path)
    flat.write(dataset, tmp_path)
    check_no_users(records.read_ratings(tmp_path, users=0, label="", label_means="avoid"))
    check_no_users(flat.read_ratings(tmp_path, label="", label_means="avoid"))


def check_no_users(found: Ratings) -> None:
    assert (found.users.tolist(), found.user_ids) == ([-1] * 3, [])
    assert found.labels.tolist() == [-1, 0, 1]
    assert found.reviews == ["", "", ""]


def test_sessions_and_ratings_stand_side_by_side(
    make_shop: Callable[..., Path], tmp_path: Path
) -> None:
    shop = make_shop(tmp_path / "shop")
    plain = build(read_folder(shop))
    toml = shop / "dataset.toml"
    toml.write_text(toml.read_text() + '[interactions]\nlabel = "timestamp < 20000"\n')
    dataset = prepare(shop, None, tmp_path / "out", with_records=True)
    assert dataset.ratings is not None
    assert plain.ratings is None
    assert dataset.splits["test"].ids == plain.splits["test"].ids
    assert len(dataset.ratings) == len(read_folder(shop).item)
    assert np.array_equal(dataset.ratings.labels == 1, dataset.ratings.times < 20000)
    assert (tmp_path / "out/jmrec_data/ratings/1.0.0/features.json").is_file()


def test_the_fingerprint_knows_labels_and_reviews(shop: Path) -> None:
    def fingerprint() -> str:
        return build(read_folder(shop), sessions=False).fingerprint

    labelled(shop, "liked")
    prints = [fingerprint()]
    for label, more in [("liked", 'label_means = "want"'), ("stars <= 2", "")]:
        labelled(shop, label, more)
        prints.append(fingerprint())
    path = shop / "interactions.csv"
    path.write_text(path.read_text(encoding="utf-8").replace("again", "Again"), encoding="utf-8")
    prints.append(fingerprint())
    assert len(set(prints)) == len(prints) == 4


@pytest.mark.parametrize(
    ("times", "settings", "known"),
    [
        (True, {}, "a9d84efa26ce33358e8a1be8d6f6ae0231a2e9a9a694e52e6effa60bf3e35f6a"),
        (
            False,
            {"keep_single": True, "fractions": (0.6, 0.2, 0.2)},
            "4477837fc022bf9d424e5057e7740c9629948e0a054a390cf8f97f01c78242b6",
        ),
    ],
)
def test_data_prepared_before_there_were_labels_stays_the_same(
    make_raw: Callable[..., Raw], times: bool, settings: dict[str, Any], known: str
) -> None:
    """Computed by the version before; a review column alone changes nothing either."""
    n = 24
    raw = make_raw(
        [0, 1, 2, 1, 0, 2, 1, 2] * 3,
        session=[i // 2 for i in range(n)],
        user=[i // 4 for i in range(n)],
        time=[60.0 * i for i in range(n)] if times else None,
    )
    words = ["a", "b", "c"]
    items = replace(raw.items, titles=words, text={"title": words}, pictures=[b"", b"png", b""])
    raw = replace(
        raw, items=items, event=np.arange(n, dtype=np.int32) % 2, event_names=["", "view"],
        review=["words"] * n,
    )  # fmt: skip
    assert build(raw, **settings).fingerprint == known
