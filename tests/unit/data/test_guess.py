"""`jmrec data init`: what it guesses, that check reads it, and that it overwrites nothing."""

import random
import re
from collections.abc import Callable
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from jmrec.data.description import describe
from jmrec.data.folder import read_folder
from jmrec.data.guess import write_guess
from jmrec.data.guess_columns import Column
from jmrec.data.guess_times import find_order
from jmrec.data.times import read_times
from jmrec.errors import UserError
from jmrec.main import main

PICTURE = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def german(tmp_path: Path) -> Path:
    """A shop of another language: semicolons, cp1252, decimal commas, its own names and dates."""
    shop = tmp_path / "laden"
    (shop / "images").mkdir(parents=True)
    draw = random.Random(0)
    rows = ["ArtNr;Bezeichnung;Beschreibung;Preis;Marke;Farben;verkauft;Foto;gültig ab;Quelle;EAN"]
    for i in range(60):
        (shop / f"images/{i}.png").write_bytes(PICTURE)
        text = f"Ein schöner Schuh der Nummer {i} für lange Spaziergänge am Abend, warm und weich"
        colours = ",".join(draw.sample(["rot", "blau", "grün"], 2))
        rows.append(
            f"A{i:03d};Größe {i} Schuh;{text};{i % 30 + 10},{i % 10}0;{['Acme', 'Öko'][i % 2]};"
            f"{colours};{i * 3};{i}.png;01.{i % 12 + 1:02d}.2025;Import;400{i:05d}"
        )
    events = ["Kunde;ArtNr;Zeit;Aktion"]
    for k in range(800):
        item = min(int(draw.expovariate(1 / 15)), 59)
        when = f"{1 + k // 40:02d}.11.2026 {k % 24:02d}:{k % 60:02d}"
        events.append(f"K{draw.randrange(150)};A{item:03d};{when};{'Kauf' if k % 9 else 'Klick'}")
    (shop / "LIESMICH.txt").write_text("Das ist keine Tabelle, ,, sondern ein Brief.\n")
    (shop / "Produkte.csv").write_bytes("\n".join(rows).encode("cp1252"))
    (shop / "Klicks.csv").write_bytes("\n".join(events).encode("cp1252"))
    return shop


def test_a_shop_of_another_language(german: Path) -> None:
    path = write_guess(german)
    found = describe(german)
    items, events = found.items, found.interactions
    assert (found.name, found.encoding, found.decimal) == ("laden", "cp1252", ",")
    assert found.time_format == "%d.%m.%Y %H:%M"
    assert (found.items_file, found.interactions_file) == ("Produkte.csv", "Klicks.csv")
    assert (items.id, items.title, items.description) == ("ArtNr", "Bezeichnung", "Beschreibung")
    assert items.picture == "Foto"
    assert items.text_columns == items.list_columns == ("Farben",)
    assert items.list_separator == ","
    assert items.category_columns == ("Marke",)
    assert items.available_from == "gültig ab"
    assert read_folder(german, check_pictures=False).items.available_from[0] == 1_735_689_600
    assert items.number_columns == ("Preis",)
    assert items.never_use == ("verkauft",)
    assert (events.item, events.user, events.time) == ("ArtNr", "Kunde", "Zeit")
    assert (events.session, events.event) == ("", "Aktion")
    text = path.read_text(encoding="utf-8")
    assert '"Quelle"' in text  # one value
    assert '"EAN"' in text  # an id
    # Every key stands below the comment that explains it.
    lines = text.splitlines()
    for above, line in pairwise(lines):
        assert " = " not in line.split("#")[0] or above.startswith("# "), line


def test_prices_with_marks_between_thousands_are_numbers(german: Path) -> None:
    path = german / "Produkte.csv"
    dear = re.sub(rb";(1\d),", rb";1.4\1,", path.read_bytes())
    path.write_bytes(dear)
    write_guess(german)
    found = describe(german)
    assert (found.decimal, found.items.number_columns) == (",", ("Preis",))
    assert read_folder(german, check_pictures=False).items.number["Preis"].max() > 1400


@pytest.mark.parametrize(
    ("where", "prefix", "says"),
    [
        ("bilder", "", 'pictures = "bilder"'),
        ("bilder", "bilder/", 'pictures = "bilder"'),
        ("", "", "These files stand beside the tables: move them to a folder images/."),
        (None, "", "'Foto' names files that are not in this folder: put them into images/"),
    ],
)
def test_pictures_that_stand_in_another_folder(
    german: Path, where: str | None, prefix: str, says: str
) -> None:
    images, path = german / "images", german / "Produkte.csv"
    target = german.parent / "elsewhere" if where is None else german / where
    target.mkdir(exist_ok=True)
    for file in images.iterdir():
        file.rename(target / file.name)
    images.rmdir()
    path.write_bytes(re.sub(rb";(\d+\.png)", rb";" + prefix.encode() + rb"\1", path.read_bytes()))
    text = write_guess(german).read_text(encoding="utf-8")
    found = describe(german).items
    assert says in text
    assert found.picture == ("" if where is None else "Foto")
    assert "Foto" not in found.text_columns
    if where == "bilder":  # without it the sentence says where they stand
        assert all(read_folder(german, check_pictures=False).items.pictures)
        path = german / "dataset.toml"
        path.write_text(text.replace('pictures = "bilder"', ""), encoding="utf-8")
        with pytest.raises(
            UserError, match='is not in images/ but in bilder/; write pictures = "b'
        ):
            read_folder(german, check_pictures=False)
        path.write_text(text.replace('pictures = "bilder"', 'pictures = "../x"'), encoding="utf-8")
        with pytest.raises(UserError, match=r"pictures is '../x'; name a folder that lies inside"):
            describe(german)


def test_pictures_of_another_folder_that_are_named_by_ids(german: Path) -> None:
    (german / "images").rename(german / "fotos")
    for path in (german / "fotos").iterdir():
        path.rename(path.with_name(f"A{int(path.stem):03d}.png"))
    table = german / "Produkte.csv"
    table.write_bytes(re.sub(rb";\d+\.png", b";", table.read_bytes()))
    write_guess(german)
    assert (describe(german).items.picture, describe(german).items.pictures) == ("{id}", "fotos")
    assert all(read_folder(german, check_pictures=False).items.pictures)


def _by_month(german: Path) -> None:
    """Part the clicks: the later ones as UTF-8 in another order of columns, with another time."""
    head, *rows = (german / "Klicks.csv").read_text(encoding="cp1252").splitlines()
    later = ["Aktion,Zeit,ArtNr,Kunde"]
    for row in rows[300:]:
        user, item, time, action = row.split(";")
        iso = datetime.strptime(time, "%d.%m.%Y %H:%M").isoformat() + "Z"
        later.append(f"{action},{iso},{item},{user}")
    (german / "Klicks.csv").unlink()
    (german / "Klicks_9.csv").write_text("\n".join([head, *rows[:300]]), encoding="cp1252")
    (german / "Klicks_10.csv").write_text("\n".join(later), encoding="utf-8")


def test_files_of_each_month_are_one_table(
    german: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_guess(german)
    whole = read_folder(german, check_pictures=False)
    (german / "dataset.toml").unlink()
    _by_month(german)
    (german / "Klicks_alt.csv").write_bytes((german / "Klicks_9.csv").read_bytes()[:4000])
    (german / "Verkauf.csv").write_text(
        "ArtNr;Menge\n" + "".join(f"A{i % 60:03d};{i % 7}\n" for i in range(200))
    )
    (german / "Umsatz.csv").write_text("Monat;Umsatz\n1;12.000,00\n2;11.500,50\n")
    assert main(["data", "init", str(german)]) == 0
    said = capsys.readouterr().err
    assert "Klicks_9.csv and Klicks_10.csv have the same columns and are read one" in said
    assert "Klicks_alt.csv is not read: most of its rows stand in Klicks_9.csv too." in said
    assert "Verkauf.csv is not read, though its column 'ArtNr' holds ids of items, as a" in said
    assert "Umsatz" not in said
    found = describe(german)
    assert found.files("interactions") == ("Klicks_9.csv", "Klicks_10.csv")
    assert (found.interactions.user, found.interactions.time) == ("Kunde", "Zeit")
    assert found.time_format == ""
    text = (german / "dataset.toml").read_text(encoding="utf-8")
    assert (
        "# Found out where it is not given (here: '01.11.2026 00:00' in Klicks_9.csv, "
        "'2026-11-08T12:00:00Z' in Klicks_10.csv).\n# time_format = \"%d.%m.%Y %H:%M\"\n"
    ) in text
    assert '# target_events = ["Kauf", "Klick"]\n' in text
    raw = read_folder(german, check_pictures=False)
    assert raw.time is not None
    assert raw.time.tolist() == whole.time.tolist()  # type: ignore[union-attr]
    assert raw.item.tolist() == whole.item.tolist()
    assert raw.user == (pytest.approx(whole.user[0]), whole.user[1])  # type: ignore[index]


def test_of_catalogues_of_each_month_one_is_read(german: Path) -> None:
    """They hold the same items; which one says so."""
    rows = (german / "Produkte.csv").read_text(encoding="cp1252").splitlines()
    for month, more in ((1, "alt"), (2, "neu")):
        lines = [rows[0], *(row.replace("Schuh", f"Schuh {more}") for row in rows[1:])]
        path = german / f"Produkte_{month}.csv"
        path.write_text("\n".join(lines), encoding="cp1252")
    (german / "Produkte.csv").unlink()
    text = write_guess(german).read_text(encoding="utf-8")
    assert describe(german).items_file == "Produkte_2.csv"
    assert "Produkte_1.csv is not read, though its column 'ArtNr' holds ids of items" in text


def test_a_folder_without_a_description_is_sent_to_init(german: Path) -> None:
    with pytest.raises(UserError, match=r"items.csv does not exist.*run jmrec data init .*laden"):
        read_folder(german)
    (german / "dataset.toml").write_text('[dataset]\nname = "laden"\n')
    with pytest.raises(UserError, match=r'items.csv does not exist.*\[items\] file = "\.\.\."'):
        read_folder(german)


def test_check_reads_it_unchanged(
    tmp_path: Path, make_shop: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    shop = make_shop(tmp_path / "shop", "")
    assert main(["data", "init", str(shop)]) == 0
    written = (shop / "dataset.toml").read_bytes()
    assert main(["data", "check", str(shop), "--strict"]) == 0
    assert (shop / "dataset.toml").read_bytes() == written
    found = describe(shop)
    assert found.items.picture == "image"
    assert found.interactions.session == "session_id"
    assert found.interactions.event == "event"
    assert "was written: a guess" in capsys.readouterr().out


def test_nothing_is_overwritten(
    tmp_path: Path, make_shop: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    shop = make_shop(tmp_path / "shop")
    before = (shop / "dataset.toml").read_bytes()
    assert main(["data", "init", str(shop)]) == 2
    assert "exists and is not overwritten; edit it" in capsys.readouterr().err
    assert (shop / "dataset.toml").read_bytes() == before
    (shop / "dataset.toml").unlink()
    (shop / "dataset.toml").symlink_to(tmp_path / "elsewhere")
    assert main(["data", "init", str(shop)]) == 2
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, "holds no table; put one of items"),
        ({"a.csv": "x,y\n1,2\n2,3\n", "b.csv": "u,v\nq,r\nq,s\n"}, "no column of one table names"),
        (
            {"items.csv": "item_id\na\nb\n", "interactions.csv": "item_id\na\na\nb\n"},
            "no column te",
        ),
    ],
)
def test_nothing_to_guess(tmp_path: Path, files: dict[str, str], expected: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=expected):
        write_guess(tmp_path)
    assert not (tmp_path / "dataset.toml").exists()


def test_of_several_tables_of_items_the_one_that_says_most_is_read(tmp_path: Path) -> None:
    ids = range(1, 31)
    rows = {
        "links.csv": ["movieId,imdbId,tmdbId", *(f"{i},{99_000 + i},{7 * i}" for i in ids)],
        "movies.csv": ["movieId,title,genres", *(f"{i},Film {i % 7} and {i},Drama" for i in ids)],
        "ratings.csv": ["userId,movieId,rating,timestamp"],
        "tags.csv": ["userId,movieId,tag,timestamp"],
    }
    for k in range(240):
        when = 1_700_000_000 + 60 * k
        rows["ratings.csv"].append(f"{k // 8},{k * 7 % 30 + 1},{k % 5 + 1},{when}")
        rows["tags.csv"] += [f"{k // 8},{k % 30 + 1},odd,{when}"] * (k % 9 == 0)
    for name, lines in rows.items():
        (tmp_path / name).write_text("\n".join(lines))
    write_guess(tmp_path)
    raw = read_folder(tmp_path)
    assert raw.description.items_file == "movies.csv"
    assert raw.description.interactions_file == "ratings.csv"
    assert raw.items.titles[:2] == ["Film 1 and 1", "Film 2 and 2"]
    text = (tmp_path / "dataset.toml").read_text()
    assert "links.csv is not read" in text
    assert "tags.csv is not read" in text


def test_each_file_that_is_not_read_is_said_once(tmp_path: Path) -> None:
    """Where events stand alone, beside several files of the same columns."""
    events = ["visitorid,artistid,itemid,timestamp"]
    events += [f"{k // 5},{k % 4},{k * 7 % 30},{1_433_221_332_117 + k}" for k in range(200)]
    (tmp_path / "events.csv").write_text("\n".join(events))
    for part in (1, 2):
        facts = [f"{1_435_460_400_000 + part},{i},{p},{i * part}" for i in range(30) for p in "ab"]
        (tmp_path / f"facts_{part}.csv").write_text(
            "timestamp,itemid,fact,value\n" + "\n".join(facts)
        )
    write_guess(tmp_path)
    text = (tmp_path / "dataset.toml").read_text()
    assert text.count("not read:") == 1
    assert "facts_1.csv and facts_2.csv are not read: they have no column" in text
    assert 'id = "itemid"' in text


PEOPLE = "".join(f"u{k},{20 + k},Town {k % 3}\n" for k in range(12))


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"shoes.csv": "i0,Shoe,3.5\n" + "".join(f"i{k},Hat {k},{k}.5\n" for k in range(1, 9))},
         "shoes.csv, row 1: '3.5' looks like a value"),
        ({"shoes.csv": "item_id,title\n" + "".join(f"i{k},a, b\n" for k in range(9))},
         "shoes.csv, row 2: 3 cells where the header has 2"),
    ],
    ids=["no header", "broken"],
)  # fmt: skip
def test_people_are_no_items(tmp_path: Path, files: dict[str, str], says: str) -> None:
    """Where the table of items can not be read, neither that of users nor the events become it."""
    clicks = "".join(f"u{k % 12},i{k % 9},{1_700_000_000 + 99 * k}\n" for k in range(200))
    named = {"people.csv": "id,age,town\n" + PEOPLE, "clicks.csv": "user_id,item,ts\n" + clicks}
    for name, text in (named | files).items():
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=re.escape(says)):
        write_guess(tmp_path)


def test_without_a_table_of_items_people_are_not_taken_for_it(tmp_path: Path) -> None:
    clicks = "".join(f"u{k % 12},i{k % 9},{1_700_000_000 + 99 * k}\n" for k in range(200))
    (tmp_path / "people.csv").write_text("id,age,town\n" + PEOPLE)
    (tmp_path / "clicks.csv").write_text("user_id,item,ts\n" + clicks)
    text = write_guess(tmp_path).read_text()
    assert "people.csv is not read: it has no column of ids of items" in text
    found = describe(tmp_path)
    assert found.items_of_events
    assert (found.items_file, found.items.id) == ("clicks.csv", "item")


def test_a_table_that_is_broken_and_not_needed_is_passed_over(tmp_path: Path) -> None:
    """And an item that stands there twice is looked at once: its code is no number to be read."""
    shoes = [f"i{k},Shoe {k},{4_260_000_000_000 + 7919 * k}\n" for k in range(30)]
    clicks = "".join(f"u{k % 12},i{k % 30},{1_700_000_000 + 99 * k}\n" for k in range(200))
    (tmp_path / "shoes.csv").write_text("item_id,title,ean\n" + "".join([*shoes, shoes[7]]))
    (tmp_path / "clicks.csv").write_text("user_id,item,ts\n" + clicks)
    (tmp_path / "people.csv").write_text("id,town\n" + PEOPLE)
    write_guess(tmp_path)
    found = describe(tmp_path)
    assert (found.items_file, found.interactions_file) == ("shoes.csv", "clicks.csv")
    assert (found.items.title, found.items.number_columns) == ("title", ())


def test_a_column_that_follows_popularity_is_never_used(tmp_path: Path) -> None:
    """Its name says nothing; its values do."""
    draw = random.Random(0)
    clicks = [int(40 * draw.random() ** 3) for _ in range(2000)]
    rows = [
        f"{i},thing {i} of all,{clicks.count(i) + draw.random()},{draw.random()}" for i in range(40)
    ]
    (tmp_path / "items.csv").write_text("item_id,title,heat,weight\n" + "\n".join(rows))
    events = [f"{k // 4},{i},{1.7e9 + k}" for k, i in enumerate(clicks)]
    (tmp_path / "interactions.csv").write_text("session_id,item_id,timestamp\n" + "\n".join(events))
    write_guess(tmp_path)
    found = describe(tmp_path).items
    assert found.never_use == ("heat",)
    assert found.number_columns == ("weight",)


def test_reviews_are_guessed_and_a_label_is_only_proposed(tmp_path: Path) -> None:
    draw = random.Random(0)
    (tmp_path / "items.csv").write_text(
        "item_id,title\n" + "".join(f"{i},T {i}\n" for i in range(9))
    )
    rows = [
        f"u{draw.randrange(40)},{draw.randrange(9)},{1.7e9 + k},{k % 10 + 1},"
        f'"The film number {k} was good, or so they say","x{k} y z","{k % 4 == 0}"'
        for k in range(300)
    ]
    head = "user_id,item_id,timestamp,stars,comment,text,returned\n"
    (tmp_path / "interactions.csv").write_text(head + "\n".join(rows))
    text = write_guess(tmp_path).read_text(encoding="utf-8")
    events = describe(tmp_path).interactions
    assert (events.review, events.rating, events.label) == ("comment", "stars", "")
    assert '# label = "returned"' in text
    assert "its cells are yes or no, 25.0% of them yes" in text
    # Without that column a rule over the ratings, whose share is said.
    (tmp_path / "dataset.toml").unlink()
    (tmp_path / "interactions.csv").write_text(
        head.replace(",returned", "") + "\n".join(row.rpartition(",")[0] for row in rows)
    )
    text = write_guess(tmp_path).read_text(encoding="utf-8")
    assert '20.0% of the cells.\n# label = "stars <= 2"' in text


def test_a_column_called_review_that_holds_none_is_switched_off(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("item_id,title\na,A\nb,B\n")
    rows = [f"u{k % 3},{'ab'[k % 2]},{1.7e9 + k},{k}" for k in range(30)]
    (tmp_path / "interactions.csv").write_text(
        "user_id,item_id,timestamp,review\n" + "\n".join(rows)
    )
    text = write_guess(tmp_path).read_text(encoding="utf-8")
    assert "'review' does not look like it.\nreview = \"\"" in text
    assert describe(tmp_path).interactions.review == ""


@pytest.mark.parametrize("step", ["init", "check", "prepare"])
def test_help_has_a_worked_example(step: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(["data", step, "--help"])
    assert done.value.code == 0
    out = capsys.readouterr().out
    assert f"$ jmrec data {step} SHOP" in out
    assert max(map(len, out.splitlines())) <= 110


def test_an_order_is_looked_for_among_more_owners_and_times_than_memory_has_room_for() -> None:
    """As many sessions as events, each at its own second; and a few that tie, in the order kept."""
    count = 200_000
    owners = [f"s{n}" for n in range(count)] + ["tied"] * 80_000
    seconds = [*range(count), *np.repeat(np.arange(8000), 10).tolist()]
    times = read_times([str(1_600_000_000 + second) for second in seconds])
    place = [0] * count + [*range(10)] * 8000
    column = Column.of("place", [str(each) for each in place])
    assert find_order([column], times, owners, ".") is column
    assert find_order([column], times, [f"u{n}" for n in range(len(owners))], ".") is None
