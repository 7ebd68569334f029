"""Columns that are not as a table wants them: prices, languages, visits, orders, keys in vain."""

import random
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from jmrec.data.check import check, hints
from jmrec.data.columns import amount, read_numbers
from jmrec.data.description import describe
from jmrec.data.folder import read_folder
from jmrec.data.guess import write_guess
from jmrec.data.languages import languages
from jmrec.data.prepared import build
from jmrec.data.sessions import sessionise
from jmrec.errors import UserError

N = 30


def items(folder: Path, head: str, row: Callable[[int], str]) -> Path:
    """Write a folder with a column of N items, and 240 events of ten users."""
    folder.mkdir(exist_ok=True)
    rows = "".join(f"i{k},{row(k)}\n" for k in range(N))
    (folder / "items.csv").write_text(f"item_id,{head}\n{rows}", encoding="utf-8")
    draw = random.Random(0)
    events = "".join(
        f"u{k % 10},i{draw.randrange(N)},{1_700_000_000 + 1000 * k}\n" for k in range(240)
    )
    (folder / "interactions.csv").write_text(f"user_id,item_id,timestamp\n{events}")
    return folder


@pytest.mark.parametrize(
    ("write", "decimal"),
    [
        (lambda k: f"€ {k}.50", "."),
        (lambda k: f"${k}.50", "."),
        (lambda k: f"{k}.50 USD", "."),
        (lambda k: f'"{k},50 €"', ","),
        (lambda k: f'"CHF {k},50"', ","),
        (lambda k: "on request" if k == 7 else f"£{k}.50", "."),
    ],
)
def test_prices_have_a_currency(tmp_path: Path, write: Callable[[int], str], decimal: str) -> None:
    folder = items(tmp_path / "s", "title,price", lambda k: f"Shoe {k},{write(k)}")
    write_guess(folder)
    found = describe(folder)
    assert (found.items.number_columns, found.decimal) == (("price",), decimal)
    price = read_folder(folder).items.number["price"]
    expected = [np.nan if write(k) == "on request" else k + 0.5 for k in range(N)]
    np.testing.assert_array_equal(price, np.array(expected, np.float32))


def test_what_is_no_amount_is_left_alone() -> None:
    for cell in ("3 cm", "XL", "size 12", "A12", "12 x 3", "on request", "", "€"):
        assert amount(cell) == cell
        assert np.isnan(read_numbers([cell])[0][0])


@pytest.mark.parametrize("parquet", [False, True], ids=["csv", "parquet"])
def test_a_title_in_several_languages(tmp_path: Path, parquet: bool) -> None:
    def row(k: int) -> str:
        return f"{'' if k % 3 == 0 else f'Schuh {k}'},{'' if k % 5 == 0 else f'Shoe {k}'}"

    folder = items(tmp_path / "s", "title_de,title_en", row)
    if parquet:
        table = pyarrow.csv.read_csv(folder / "items.csv")
        pa.parquet.write_table(table, folder / "items.parquet")
        (folder / "items.csv").unlink()
    expected = [f"Shoe {k}" if k % 5 else (f"Schuh {k}" if k % 3 else "") for k in range(N)]
    write_guess(folder)
    assert 'title = ["title_en", "title_de"]' in (folder / "dataset.toml").read_text()
    assert read_folder(folder).items.titles == expected
    toml = folder / "dataset.toml"
    toml.write_text('[items]\ntitle = ["title_de", "title_en"]\n')
    expected = [f"Schuh {k}" if k % 3 else (f"Shoe {k}" if k % 5 else "") for k in range(N)]
    assert read_folder(folder).items.titles == expected
    toml.write_text('[items]\ntitle = ["title_de", "titel"]\n')
    with pytest.raises(UserError, match=r"'titel', which items\.\w+ does not have; did you mean"):
        read_folder(folder)


def visits(folder: Path) -> dict[tuple[str, int, int], str]:
    """Write sessions that are numbered user by user, rows shuffled; return what each step is of."""
    items(folder, "title", lambda k: f"Shoe {k}")
    draw = random.Random(3)
    steps = {
        (f"u{u}", s, k): f"i{draw.randrange(N)}"
        for u in range(20)
        for s in range(3)
        for k in range(4)
    }
    rows = [f"{u},{s},{i},2025-03-{s + 1:02d},{10 + k}\n" for (u, s, k), i in steps.items()]
    draw.shuffle(rows)
    head = "user_id,session_id,item_id,date,n\n"
    (folder / "interactions.csv").write_text(head + "".join(rows))
    return steps


def test_sessions_are_numbered_user_by_user(tmp_path: Path) -> None:
    """And a column that orders the events of a day is found."""
    steps = visits(tmp_path / "s")
    write_guess(tmp_path / "s")
    text = (tmp_path / "s/dataset.toml").read_text()
    assert 'session = ["user_id", "session_id"]' in text
    assert '\norder = "n"' in text
    raw = read_folder(tmp_path / "s", strict=True)
    made = sessionise(raw)
    found = {name: [raw.items.ids[i] for i in one] for name, one in zip(made.ids, made)}
    assert found == {f"{u}:{s}": [steps[u, s, k] for k in range(4)] for u, s, _ in steps}


SPELT: dict[str, Callable[[str], str]] = {
    "as floats": lambda user: f"{user}.0",
    "zeros lost": lambda user: user.lstrip("0"),
    "no width": lambda user: f"{user}\u200b",
}


@pytest.mark.parametrize("numbered", [False, True], ids=["sessions", "user by user"])
@pytest.mark.parametrize("spelt", SPELT)
def test_a_user_in_two_spellings_is_one(tmp_path: Path, spelt: str, numbered: bool) -> None:
    """Whether sessions are numbered user by user is seen with the users as they are read."""
    width = 3 if spelt == "zeros lost" else 0
    folder = items(tmp_path / "s", "title", lambda k: f"Shoe {k}")
    steps: dict[str, list[str]] = {}
    rows, draw = [], random.Random(5)
    for k in range(240):
        user = f"{k % 12 + 7:0{width}d}"
        name = str(k // 48 + 1) if numbered else f"s{k % 12 + 12 * (k // 48)}"
        item = f"i{draw.randrange(N)}"
        steps.setdefault(f"{user}:{name}" if numbered else name, []).append(item)
        rows.append(f"{SPELT[spelt](user) if k // 12 % 2 else user},{name},{item},{k}\n")
    head = "user_id,session_id,item_id,order\n"
    (folder / "interactions.csv").write_text(head + "".join(rows), encoding="utf-8")
    write_guess(folder)
    raw = read_folder(folder)
    made = sessionise(raw)
    found = {name: [raw.items.ids[i] for i in one] for name, one in zip(made.ids, made)}
    assert found == steps
    assert len(set(made.users)) == 12


@pytest.mark.parametrize(
    ("name", "kind"),
    [("weight", pa.float64()), ("weight", pa.float32()), ("x", pa.decimal128(9, 3))],
)
def test_numbers_of_parquet_have_a_point(tmp_path: Path, name: str, kind: pa.DataType) -> None:
    """Also beside a CSV whose decimals follow a comma; 1.125 is no thousand."""
    folder = items(tmp_path / "s", "title", lambda k: f"Shoe {k}")
    (folder / "items.csv").unlink()
    weights = [1.125 + k % 7 for k in range(N)]
    columns = {"item_id": [f"i{k}" for k in range(N)], "title": [f"Shoe {k}" for k in range(N)]}
    exact = [Decimal(w) for w in weights] if pa.types.is_decimal(kind) else weights
    pa.parquet.write_table(
        pa.table(columns | {name: pa.array(exact, kind)}), folder / "items.parquet"
    )
    rows = "".join(f'u{k % 9},i{k % N},{1_700_000_000 + 99 * k},"{k % 9},5"\n' for k in range(200))
    (folder / "interactions.csv").write_text("user_id,item_id,timestamp,rating\n" + rows)
    write_guess(folder)
    raw = read_folder(folder, strict=True)
    assert raw.description.decimal == ","
    assert raw.items.number[name].tolist() == weights
    assert raw.rating.tolist() == [k % 9 + 0.5 for k in range(200)]


@pytest.mark.parametrize("cells", ["users", "times"])
def test_ids_and_times_tell_no_decimal_sign(tmp_path: Path, cells: str) -> None:
    """Users come as 7.0, times with half seconds, from a program; the prices are German."""
    folder = items(tmp_path / "s", "title,price", lambda k: f'Shoe {k},"{k % 20},25"')
    user = "{}.0" if cells == "users" else "{}"
    time = "{}.5" if cells == "times" else "{}"
    rows = "".join(
        f"{user.format(k % 9)},i{k % N},{time.format(1_700_000_000 + 99 * k)}\n" for k in range(200)
    )
    (folder / "interactions.csv").write_text("user_id,item_id,timestamp\n" + rows)
    write_guess(folder)
    raw = read_folder(folder, strict=True)
    assert raw.items.number["price"].tolist() == [k % 20 + 0.25 for k in range(N)]
    assert raw.time is not None
    assert raw.time.tolist() == [
        1_700_000_000 + 99 * k + 0.5 * (cells == "times") for k in range(200)
    ]


@pytest.mark.parametrize("day", ["%Y-%m-%d", "%Y%m%d", "%d.%m.%Y", "%d %b %Y"])
@pytest.mark.parametrize("clock", ["%H:%M", "%I:%M %p", "%H:%M:%S"])
def test_a_clock_beside_a_date_of_any_form(tmp_path: Path, day: str, clock: str) -> None:
    folder = items(tmp_path / "s", "title", lambda k: f"Shoe {k}")
    seconds = [1_740_787_200 + 7_260 * k for k in range(240)]
    rows = "".join(
        f"u{k % 9},i{k % N},{datetime.fromtimestamp(s, UTC).strftime(f'{day},{clock}')}\n"
        for k, s in enumerate(seconds)
    )
    (folder / "interactions.csv").write_text("user_id,item_id,date,clock\n" + rows)
    write_guess(folder)
    raw = read_folder(folder)
    assert raw.time is not None
    assert raw.time.tolist() == seconds


def test_a_clock_beside_a_date_is_part_of_the_time(tmp_path: Path) -> None:
    folder = items(tmp_path / "s", "title", lambda k: f"Shoe {k}")
    rows = "".join(
        f"u{k % 9},i{k % N},2025-03-{k % 20 + 1:02d},{k % 24}:{k % 60:02d}\n" for k in range(200)
    )
    (folder / "interactions.csv").write_text("user_id,item_id,date,clock\n" + rows)
    write_guess(folder)
    assert 'time = ["date", "clock"]' in (folder / "dataset.toml").read_text()
    raw = read_folder(folder, strict=True)
    assert raw.time is not None
    first = 1_740_787_200  # 2025-03-01
    expected = [first + 86_400 * (k % 20) + 3600 * (k % 24) + 60 * (k % 60) for k in range(200)]
    assert raw.time.tolist() == expected


def test_lists_with_the_same_separator_are_found_together(tmp_path: Path) -> None:
    def row(k: int) -> str:
        colours = "red|blue" if k % 2 else "red"
        return (
            f"Shoe {k},{colours},{'wool|silk' if k % 9 == 0 else ['wool', 'silk', 'felt'][k % 3]}"
        )

    folder = items(tmp_path / "s", "title,colours,stuff", row)
    write_guess(folder)
    found = describe(folder).items
    assert (found.list_columns, found.list_separator) == (("colours", "stuff"), "|")


@pytest.mark.parametrize("separator", ["|", ";", " | "])
@pytest.mark.parametrize("price", ["${:,}.50", "{:,}.50 EUR", "{:,}.50"])
def test_marks_between_thousands_make_no_list(tmp_path: Path, price: str, separator: str) -> None:
    """Two columns of prices do not outvote the one of lists."""

    def row(k: int) -> str:
        prices = [price.format(1000 * (k % 3 + 1) + n * k) for n in (0, 10)]
        return (
            f'Shoe {k},"{prices[0]}","{prices[1]}",{separator.join(["red", "big", "new"][k % 2 :])}'
        )

    folder = items(tmp_path / "s", "title,price,cost,tags", row)
    write_guess(folder)
    found = read_folder(folder, strict=True).items
    assert found.text["tags"] == [", ".join(["red", "big", "new"][k % 2 :]) for k in range(N)]
    assert found.number["price"].tolist() == [1000 * (k % 3 + 1) + 0.5 for k in range(N)]


@pytest.mark.parametrize("separator", [" ", "|", ";"])
def test_a_session_in_one_cell_is_found(tmp_path: Path, separator: str) -> None:
    folder = items(tmp_path / "s", "title", lambda k: f"Shoe {k}")
    draw = random.Random(0)
    baskets = [[f"i{draw.randrange(N)}" for _ in range(1 + b % 4)] for b in range(60)]
    rows = "".join(
        f"b{b},{separator.join(one)},{1_700_000_000 + b}\n" for b, one in enumerate(baskets)
    )
    (folder / "interactions.csv").write_text("basket_id,items,timestamp\n" + rows)
    write_guess(folder)
    raw = read_folder(folder, strict=True)
    assert raw.description.interactions.item_separator == separator
    assert [[raw.items.ids[i] for i in one] for one in sessionise(raw)] == baskets


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("[dataset]\nsession_gap_minutes = 9", "of the column 'session_id'; take it out, or write"),
        ("[dataset]\ntime_format = 'ms'", "as no time is read; take it out, or name the column"),
        ("[items]\nlist_separator = ';'", "as no list is read"),
        ("[interactions]\nlabel_means = 'want'", "as no label is read"),
        ("[dataset]\ndecimal = ','", "as no number is read"),
    ],
)
def test_a_key_in_vain_is_said(tmp_path: Path, line: str, says: str) -> None:
    folder = items(tmp_path / "s", "title", lambda k: f"Shoe {k}")
    (folder / "interactions.csv").write_text("session_id,item_id\n1,i1\n1,i2\n2,i3\n")
    (folder / "dataset.toml").write_text(line)
    (warning,) = read_folder(folder).warnings
    key = line.split("\n")[1].split(" ")[0]
    assert f"{key} has no effect" in warning
    assert says in warning


def test_keys_that_are_used_are_not_said(tmp_path: Path) -> None:
    folder = items(tmp_path / "s", "title", lambda k: f"Shoe {k}")
    (folder / "dataset.toml").write_text(
        '[dataset]\nsession_gap_minutes = 9\ntime_format = "s"\nencoding = "utf-8"\n'
    )
    assert read_folder(folder, strict=True).warnings == []


TEXTS = {
    "en": "A warm shoe for long walks in the evening, made of soft leather and wool",
    "de": "Ein warmer Schuh für lange Spaziergänge am Abend, aus weichem Leder und Wolle",
    "fr": "Une chaussure chaude pour les longues promenades du soir, en cuir souple et laine",
    "es": "Un zapato cálido para los largos paseos de la tarde, hecho de cuero suave y lana",
}


@pytest.mark.parametrize("language", TEXTS)
def test_languages_are_guessed(tmp_path: Path, language: str) -> None:
    assert languages([TEXTS[language]] * 9 + ["", "12"]) == {language: 1.0}
    text = TEXTS[language].replace(",", "")
    folder = items(tmp_path / "s", "title", lambda k: f"{text} {k}")
    rows = "".join(f"{k // 4},i{k % N},{1_700_000_000 + k}\n" for k in range(240))
    (folder / "interactions.csv").write_text("session_id,item_id,timestamp\n" + rows)
    raw = read_folder(folder)
    report = check(build(raw), raw)
    assert next(iter(report.languages)) == language
    warned = any("know English only" in hint for hint in hints(report))
    assert warned == (language != "en")
