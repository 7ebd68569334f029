"""[value] in dataset.toml: what a sale brings is read right or refused, and reaches no model."""

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from jmrec.data.anonymise import anonymise
from jmrec.data.check import check, hints, print_check
from jmrec.data.description import describe
from jmrec.data.folder import read_folder
from jmrec.data.forgotten import SESSION, USER, Forgotten, find, left_by
from jmrec.data.grown import Before, in_old_rows
from jmrec.data.guess import guess
from jmrec.data.item_arrays import with_facts
from jmrec.data.prepared import build, load_prepared, prepare, take_out
from jmrec.data.schema import Value, take_items
from jmrec.errors import UserError
from jmrec.lock import Changes

N = 6
SOLD = [10.0, 20.0, 30.0, 40.0, 50.0, 60.0]


@pytest.fixture
def shop(tmp_path: Path, write_csv: Callable[..., None]) -> Callable[..., Path]:
    """Write a folder whose items have given prices and margins, and a [value]."""

    def make(
        value: str, prices: list[object], margins: list[object] | None = None, top: str = ""
    ) -> Path:
        folder = tmp_path / "shop"
        folder.mkdir(exist_ok=True)
        margins = [""] * N if margins is None else margins
        rows = [[f"i{k}", f"Mug {k}", *each] for k, each in enumerate(zip(prices, margins))]
        write_csv(folder / "items.csv", [["item_id", "title", "price", "margin"], *rows])
        events = [[f"s{s}", f"u{s % 5}", f"i{(s + k) % N}", 100 * s + k]
                  for s in range(30) for k in range(3)]  # fmt: skip
        head = ["session_id", "user_id", "item_id", "timestamp"]
        write_csv(folder / "interactions.csv", [head, *events])
        (folder / "dataset.toml").write_text(f"{top}\n{value}")
        return folder

    return make


def value_of(folder: Path, *, strict: bool = False) -> Value:
    found = read_folder(folder, strict=strict).items.value
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("cells", "top", "expected"),
    [
        (["10", "20.5", "", "NULL", "0", "1e2"], "", [10, 20.5, np.nan, np.nan, 0, 100]),
        (["$1,250.00", "$ 3", "5", "-1", "nan", "0.1"], "", [1250, 3, 5, np.nan, np.nan, 0.1]),
        (["1.299,00 €", "EUR 3,5", "5", "6", "7", "8,1"], '[dataset]\ndecimal = ","',
         [1299, 3.5, 5, 6, 7, 8.1]),
        (["on request", "2", "3", "4", "inf", "6"], "", [np.nan, 2, 3, 4, np.nan, 6]),
    ],
)  # fmt: skip
def test_prices_are_read_with_signs_of_money_and_gaps(
    shop: Callable[..., Path], cells: list[object], top: str, expected: list[float]
) -> None:
    found = value_of(shop('[value]\ncolumn = "price"\nshare = 0.3', cells, top=top))
    np.testing.assert_array_equal(found.sold, expected)
    np.testing.assert_allclose(found.gained, 0.3 * np.array(expected), rtol=1e-15)
    assert found.sold.dtype == found.gained.dtype == np.float64
    whole = value_of(shop('[value]\ncolumn = "price"', cells, top=top))
    np.testing.assert_array_equal(whole.gained, expected)


def test_a_column_of_what_is_gained(shop: Callable[..., Path]) -> None:
    """A margin may be below 0 and may be missing where the price is known."""
    margins = [3, "", -2.5, "", 5, 61]
    folder = shop('[value]\ncolumn = "price"\ngain = "margin"', [10, 20, 30, "", 50, 60], margins)
    found = value_of(folder)
    np.testing.assert_array_equal(found.gained, [3, np.nan, -2.5, np.nan, 5, 61])
    np.testing.assert_array_equal(found.sold, [10, 20, 30, np.nan, 50, 60])
    said = [each for each in read_folder(folder).warnings if "margin" in each]
    assert len(said) == 1
    assert said[0].startswith("items.csv, row 7: margin is 61, more than the price of 60")
    with pytest.raises(UserError, match="row 7: margin is 61"):
        value_of(folder, strict=True)


@pytest.mark.parametrize(
    ("value", "prices", "expected"),
    [
        ("[value]", SOLD, r"dataset.toml, \[value\]: it needs the column .* write column ="),
        ("[value]\nshare = 0.3", SOLD, r"\[value\]: it needs the column"),
        ('[value]\ncolumn = "prise"', SOLD, r"'prise', which items.csv does not have; .*'price'"),
        ('[value]\ncolumn = "price"\ngain = "no"', SOLD, "gain names the column 'no'"),
        ('[value]\ncolumn = "price"\nshare = 30', SOLD, r"share must .* write 0.3 for 30 %"),
        ('[value]\ncolumn = "price"\nshare = 0', SOLD, r"share must be above 0 and at most 1"),
        ('[value]\ncolumn = "price"\nshare = nan', SOLD, r"share must be"),
        ('[value]\ncolumn = "price"\nshare = "0.3"', SOLD, r"share must be a number"),
        ('[value]\ncolumn = "price"\nshare = 0.3\ngain = "margin"', SOLD, "take one of them out"),
        ('[value]\ncolumn = "price"\ngain = "price"', SOLD, "gain names the column itself"),
        ('[value]\ncolumn = "title"', SOLD,
         r"\[value\]: column names 'title', which holds no number .*items.csv; name a column of n"),
        ('[value]\ncolumn = "price"\ngain = "margin"', SOLD, "'margin', which holds nothing"),
        ('[value]\nprice = "price"', SOLD, r"\[value\] has no key 'price'"),
        ('value = "price"', SOLD, r"value must be a table; write \[value\]"),
        ('[value]\ncolumn = "price"', ["$5", "7 €", 3, 4, 5, 6],
         r"items.csv: \[value\] of dataset.toml reads '.5' and '7 €', money of several curren"),
        ('[value]\ncolumn = "price"', [-1, -2, -3, -4, 5, 6],
         r"items.csv, row 2: price is '-1'.* leave it empty \(4 of 6"),
        ('[value]\ncolumn = "price"', ["x", "y", "z", "w", 5, 6], r"row 2: price is 'x', not a nu"),
    ],
)  # fmt: skip
def test_what_can_not_be_read_is_refused_in_a_sentence(
    shop: Callable[..., Path], value: str, prices: list[object], expected: str
) -> None:
    with pytest.raises(UserError, match=expected) as error:
        read_folder(shop(value, prices))
    assert "\n" not in str(error.value)


def test_the_same_money_in_two_spellings_is_one_currency(shop: Callable[..., Path]) -> None:
    cells = ["US$5", "$7", "8 USD", 4, "USD 5", 6]
    assert value_of(shop('[value]\ncolumn = "price"', cells)).sold.tolist() == [5, 7, 8, 4, 5, 6]


def test_a_value_reaches_no_model(shop: Callable[..., Path]) -> None:
    """Also one that no model may read; one that models read as well stays what it was."""
    never = '[items]\nnever_use = ["price", "margin"]'
    value = '[value]\ncolumn = "price"\ngain = "margin"'
    folder = shop(value, SOLD, [1, 2, 3, 4, 5, 6], never)
    items = read_folder(folder).items
    assert items.value is not None
    assert items.value.gained.tolist() == [1, 2, 3, 4, 5, 6]
    plain = read_folder(shop("", SOLD, [1, 2, 3, 4, 5, 6], never)).items
    assert plain.value is None
    # Field by field: what models, rules and served artefacts are made of.
    for name in ("ids", "titles", "text", "pictures", "category", "category_names", "number"):
        assert getattr(items, name) == getattr(plain, name)
    assert items.number == {}
    assert with_facts(items).text == with_facts(plain).text
    read_too = '[items]\nnumber_columns = ["price"]'
    both = read_folder(shop('[value]\ncolumn = "price"', [-1, *SOLD[1:]], None, read_too)).items
    assert both.value is not None
    assert both.number["price"].tolist() == [-1, *SOLD[1:]]
    assert np.isnan(both.value.sold[0])


def test_without_value_nothing_changes(shop: Callable[..., Path], tmp_path: Path) -> None:
    """The fingerprint is that of before there was [value]; with one it follows the numbers."""
    prints = []
    for value, prices in [
        ("", SOLD), ('[value]\ncolumn = "price"', SOLD),
        ('[value]\ncolumn = "price"\nshare = 0.5', SOLD),
        ('[value]\ncolumn = "price"', [11.0, *SOLD[1:]]),
    ]:  # fmt: skip
        dataset = build(read_folder(shop(value, prices)))
        prints.append(dataset.fingerprint)
    assert prints[0] == "5e5114c77fcb03c9aaefd4924d2f26a51e0993df2b293db01ef87e14666efb04"
    assert len(set(prints)) == 4
    prepare(shop("", SOLD), None, tmp_path / "out")
    metadata = json.loads((tmp_path / "out/metadata.json").read_text())
    assert "value" not in metadata
    assert "flat/value.safetensors" not in str(metadata)
    assert not (tmp_path / "out/flat/value.safetensors").exists()


def test_prepared_read_back_and_damaged(shop: Callable[..., Path], tmp_path: Path) -> None:
    folder = shop('[value]\ncolumn = "price"\ngain = "margin"', SOLD, [1, "", -2, 4, 5, 6])
    out = tmp_path / "out"
    dataset = prepare(folder, None, out)
    again, found = load_prepared(out), prepare(folder, None, out)
    for each in (again, found):
        assert each.fingerprint == dataset.fingerprint
        assert each.items.value is not None
        assert (each.items.value.column, each.items.value.gain) == ("price", "margin")
        np.testing.assert_array_equal(each.items.value.sold, SOLD)
        np.testing.assert_array_equal(each.items.value.gained, [1, np.nan, -2, 4, 5, 6])
    path = out / "flat/value.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(UserError, match="is damaged"):
        load_prepared(out)
    path.write_bytes(whole)
    load_prepared(out)


def test_data_prepared_before_still_opens(
    shop: Callable[..., Path], tmp_path: Path, as_before: Callable[[Path], None]
) -> None:
    prepare(shop("", SOLD), None, tmp_path / "out")
    as_before(tmp_path / "out")
    assert load_prepared(tmp_path / "out").items.value is None


def test_who_is_forgotten_takes_no_value_along(shop: Callable[..., Path], tmp_path: Path) -> None:
    folder, out = shop('[value]\ncolumn = "price"\nshare = 0.3', SOLD), tmp_path / "out"
    dataset = prepare(folder, None, out)
    codes, ids, missing = find(dataset, ["u3"], ["s0"], read_folder(folder))
    assert not missing
    changes = Changes(tmp_path)
    left = take_out(out, left_by(dataset, codes, ids), lambda name: changes.new(f"out/{name}"))
    changes.commit()
    again = load_prepared(out)
    assert again.fingerprint == left.fingerprint != dataset.fingerprint
    assert again.items.value is not None
    np.testing.assert_array_equal(again.items.value.sold, SOLD)
    forgotten = Forgotten.new().adding(["u3"], ["s0"])
    assert forgotten.holds(USER, "u3")
    assert forgotten.holds(SESSION, "s0")
    anew = prepare(folder, None, tmp_path / "anew", forgotten=forgotten)
    assert anew.items.value is not None
    np.testing.assert_array_equal(anew.items.value.gained, again.items.value.gained)


def test_values_follow_their_items_when_a_folder_has_grown(shop: Callable[..., Path]) -> None:
    raw = read_folder(shop('[value]\ncolumn = "price"', SOLD))
    dataset = build(replace(raw, items=raw.items))
    before = replace(Before.of(dataset), items=["i4", "i1"])
    moved = in_old_rows(raw, before).items
    assert moved.ids == ["i4", "i1", "i0", "i2", "i3", "i5"]
    assert moved.value is not None
    assert moved.value.sold.tolist() == [50, 20, 10, 30, 40, 60]
    some = take_items(moved, [1, 0]).value
    assert some is not None
    assert some.gained.tolist() == [20, 50]


def test_a_run_that_continues_has_the_prices_of_now(
    shop: Callable[..., Path], tmp_path: Path
) -> None:
    """Old items keep their rows though the file turned round, a new one and a new price came."""
    folder = shop('[value]\ncolumn = "price"\nshare = 0.5', SOLD)
    dataset = prepare(folder, None, tmp_path / "before")
    head, *rows = (folder / "items.csv").read_text().splitlines()
    rows = [row.replace(",60.0,", ",66,") for row in ["new,New mug,7,", *reversed(rows)]]
    (folder / "items.csv").write_text("\n".join([head, *rows]) + "\n")
    prepare(folder, None, tmp_path / "now", before=Before.of(dataset))
    items = load_prepared(tmp_path / "now").items
    assert items.ids == [*dataset.items.ids, "new"]
    assert items.value is not None
    assert items.value.sold.tolist() == [*SOLD[:5], 66, 7]
    assert items.value.gained.tolist() == [5, 10, 15, 20, 25, 33, 3.5]


def test_check_tells_the_range_and_what_is_missing(shop: Callable[..., Path]) -> None:
    folder = shop('[value]\ncolumn = "price"\ngain = "margin"', [10, 20, "", 40, 50, 60],
                  [0.1, 0.2, 0.3, "", "", 0.9])  # fmt: skip
    raw = read_folder(folder)
    report = check(build(raw), raw)
    assert report.value is not None
    assert report.value.ranges == {"price": (10, 40, 60), "margin": (0.1, 0.25, 0.9)}
    assert report.value.missing == {"price": 1, "margin": 2}
    # Shares where money is meant are no error, but nobody should miss it.
    assert any("'margin' lies between 0 and 1" in each for each in hints(report))
    console = Console(file=io.StringIO(), width=120)
    print_check(report, console)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    for text in ("sold at (price)", "10 to 60, median 40", "without margin", "2 (33.3%)"):
        assert text in shown
    raw = read_folder(shop('[value]\ncolumn = "price"\ngain = "margin"', SOLD,
                           [-1, 2, 3, 4, 5, 6]))  # fmt: skip
    fine = check(build(raw), raw)
    assert fine.value is not None
    assert fine.value.losses == 1
    assert not any("between 0 and 1" in each for each in hints(fine))
    raw = read_folder(shop("", SOLD))
    assert check(build(raw), raw).value is None


def test_init_proposes_it_and_leaves_it_out(shop: Callable[..., Path], tmp_path: Path) -> None:
    folder = shop("", SOLD)
    (folder / "dataset.toml").unlink()
    text = guess(folder)
    assert '\n# [value]\n# column = "price"\n' in text
    (folder / "dataset.toml").write_text(text)
    assert describe(folder).value.column == ""
    used = text.replace("# [value]", "[value]").replace("# column", "column")
    (folder / "dataset.toml").write_text(used.replace("# share", "share"))
    assert (describe(folder).value.column, describe(folder).value.share) == ("price", 0.3)


def test_a_folder_to_give_away_has_no_value(shop: Callable[..., Path], tmp_path: Path) -> None:
    margins = [9.75, 1, 2, 3, 4, 5]
    folder = shop('[value]\ncolumn = "price"\ngain = "margin"', SOLD, margins,
                  '[items]\nnumber_columns = ["price"]')  # fmt: skip
    report = anonymise(folder, tmp_path / "safe")
    assert "items.csv, margin" in report.dropped
    assert "9.75" not in (tmp_path / "safe/items.csv").read_text()
    items = read_folder(tmp_path / "safe").items
    assert items.value is None
    (price,) = items.number.values()
    assert sorted(price.tolist()) == SOLD
