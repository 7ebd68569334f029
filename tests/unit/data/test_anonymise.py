"""`jmrec data anonymise`: what is found, what is not, and that the folder stays the same data."""

import csv
import hashlib
import hmac
import io
import json
import re
import stat
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from PIL import Image

from jmrec.data.anonymise import anonymise
from jmrec.data.anonymise_texts import KINDS, tag_text
from jmrec.data.folder import read_folder
from jmrec.data.sessions import sessionise
from jmrec.errors import UserError
from jmrec.main import main
from tests.unit.data.planted import planted

NAMES = 0.55
"""Of planted names 61 (73 of 120) and 70 (42 of 60) in 100 were found whole, by their cues."""


def test_details_planted_in_five_languages_are_found() -> None:
    found, planned = Counter[str](), Counter[str]()
    for kind, detail, text in planted(30, seed=17):
        out, _ = tag_text(text)
        planned[kind] += 1
        found[kind] += out == text.replace(detail, f"[{kind}]")
    assert sorted(planned) == sorted(KINDS)
    assert planned.total() == 300
    others = [kind for kind in KINDS if kind != "name"]
    assert sum(found[kind] for kind in others) >= 0.95 * sum(planned[kind] for kind in others)
    assert all(found[kind] >= 0.9 * planned[kind] for kind in others), found
    assert found["name"] >= NAMES * planned["name"], found


def test_clean_text_stays(shared_data: Path) -> None:
    path = shared_data / "critics" / "interactions.csv"
    with path.open(encoding="utf-8", newline="") as file:
        reviews = [row["review"] for row in csv.DictReader(file)]
    words, count = 0, Counter[str]()
    for review in reviews:
        words += len(review.split())
        count += tag_text(review)[1]
        if words >= 10_000:
            break
    # The names are those of people in films after a title (Mr. Keaton), true ones by reading.
    assert count.total() <= words / 1000, count
    assert not set(count) - {"name"}


@pytest.mark.parametrize(
    "text",
    [
        "Article 4006381333930, 16 GB, 1920x1080, version 10.0.19.41, size 38-40, 1 234 567 pieces",
        "Released 12.05.2009, model WH-1000XM4, ISBN 978-3-16-148410-0, GTX 1080 TI",
        "Costs 1.299,00 EUR since 2021-05-06; see https://example.org/lamps/red-one?size=3",
        "Order 100200300400, 24-70mm f/2.8, at 12:30:45, Dr. Martens boots, 7.5 x 9.5",
    ],
)
def test_numbers_of_goods_are_no_details(text: str) -> None:
    assert tag_text(text) == (text, Counter())


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("4111 1111 1111 1112 is no card", "4111 1111 1111 1112 is no card"),
        ("pay 4111-1111-1111-1111 12/27", "pay [card] 12/27"),
        ("DE89 3704 0044 0532 0130 00 please", "[iban] please"),
        ("anna (at) example (dot) org", "[email]"),
        ("https://example.org/users/anna, fine", "[link], fine"),
        ("see 10.0.0.1 or fe80::1ff:fe23:4567:890a", "see [ip] or [ip]"),
    ],
)
def test_checksums_and_forms(text: str, right: str) -> None:
    assert tag_text(text)[0] == right


def _key(safe: Path) -> bytes:
    return bytes.fromhex(safe.with_name(f"{safe.name}.key").read_text().strip())


def _sequences(folder: Path, coded: Callable[[str, str], str]) -> list[tuple[str, list[str]]]:
    raw = read_folder(folder)
    sessions = sessionise(raw)
    parts = np.split(sessions.items, sessions.offsets[1:-1])
    return [
        (coded("session", name), [coded("item", raw.items.ids[i]) for i in part])
        for name, part in zip(sessions.ids, parts)
    ]


@pytest.mark.parametrize("times", ["", "hour", "day", "week"])
@pytest.mark.parametrize("items", [False, True])
def test_sessions_stay_one_to_one(
    tmp_path: Path, make_shop: Callable[..., Path], times: str, items: bool
) -> None:
    shop, safe = make_shop(tmp_path / "shop"), tmp_path / "safe"
    anonymise(shop, safe, times=times, items=items)

    def coded(kind: str, name: str) -> str:
        if kind == "item" and not items:
            return name
        return (
            kind[0]
            + hmac.new(_key(safe), f"{kind}\0{name}".encode(), hashlib.sha256).hexdigest()[:24]
        )

    before, after = _sequences(shop, coded), _sequences(safe, lambda _, name: name)
    assert before == after
    assert stat.S_IMODE(safe.with_name("safe.key").stat().st_mode) == 0o600
    written = b"".join(path.read_bytes() for path in safe.rglob("*.csv"))
    assert not re.search(rb"\b[su]\d{1,2}\b|secret", written)
    if times:
        step = {"hour": 3600, "day": 86400, "week": 604800}[times]
        monday = 4 * 86400 if times == "week" else 0
        assert not np.any((read_folder(safe).time - monday) % step)  # type: ignore[operator]
    assert main(["data", "check", str(safe), "--strict"]) == 0


@pytest.mark.parametrize("form", ["semicolon", "parquet", "json", "packed", "quotes"])
def test_other_forms_are_the_same_data(
    tmp_path: Path, make_shop: Callable[..., Path], form: str
) -> None:
    shop, safe = make_shop(tmp_path / "shop"), tmp_path / "safe"
    toml = (shop / "dataset.toml").read_text()
    for name in ("items", "interactions"):
        path = shop / f"{name}.csv"
        table = pa.csv.read_csv(path, parse_options=pa.csv.ParseOptions(newlines_in_values=True))
        if form == "parquet":
            pa.parquet.write_table(table, shop / f"{name}.parquet")
            path.unlink()
        elif form == "json":
            lines = [json.dumps(row, default=str) for row in table.to_pylist()]
            (shop / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
            path.unlink()
        elif form == "packed":
            with pa.CompressedOutputStream(str(shop / f"{name}.csv.gz"), "gzip") as out:
                out.write(path.read_bytes())
            path.unlink()
        elif form == "semicolon":
            rows = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"), newline="")))
            with path.open("w", encoding="cp1252", newline="") as file:
                csv.writer(file, delimiter=";").writerows(rows)
    if form == "semicolon":
        keys = 'encoding = "cp1252"\ndelimiter = ";"\ntime_format = "s"'
        toml = toml.replace("[dataset]", f"[dataset]\n{keys}")
    (shop / "dataset.toml").write_text(toml)
    anonymise(shop, safe)
    a, b = read_folder(shop), read_folder(safe)
    assert (a.items.ids, a.items.text) == (b.items.ids, b.items.text)
    np.testing.assert_array_equal(a.items.number["price"], b.items.number["price"])
    np.testing.assert_array_equal(a.items.category["brand"], b.items.category["brand"])
    for name in ("item", "time", "rating", "event"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    assert not b.warnings
    ending = {"parquet": ".parquet", "json": ".jsonl", "packed": ".csv.gz"}.get(form, ".csv")
    begin = {"parquet": b"PAR1", "json": b'{"', "packed": b"\x1f\x8b"}.get(form, b"item_id,")
    assert (safe / f"items{ending}").read_bytes().startswith(begin)


def test_users_without_sessions_an_order_a_label_and_reviews(tmp_path: Path) -> None:
    shop, safe = tmp_path / "shop", tmp_path / "safe"
    shop.mkdir()
    (shop / "items.csv").write_text(
        "item_id,title\n" + "".join(f"i{i},Thing {i}\n" for i in range(5))
    )
    start = datetime(2026, 3, 2, 7, tzinfo=UTC).timestamp()
    rows = [
        f"anna{k // 9},i{k % 5},{int(start + 7000 * k)},{k % 3},mail a{k}@example.org,{k % 2}.5\n"
        for k in range(60)
    ]
    head = "user_id,item_id,timestamp,order,review,score\n"
    (shop / "interactions.csv").write_text(head + "".join(rows))
    (shop / "dataset.toml").write_text(
        '# of anna\n[interactions]\nreview = "review"\nlabel = "score <= 0.5"\n'
    )
    report = anonymise(shop, safe, times="day")
    assert report.found == {"email": 60}
    before, after = sessionise(read_folder(shop)), sessionise(read_folder(safe))
    np.testing.assert_array_equal(before.offsets, after.offsets)
    np.testing.assert_array_equal(before.items, after.items)
    a, b = read_folder(shop), read_folder(safe)
    assert a.label is not None
    assert b.label is not None
    assert a.label.sum() == b.label.sum() == 30
    everything = b"".join(path.read_bytes() for path in safe.rglob("*") if path.is_file())
    assert b"anna" not in everything
    assert b"example.org" not in everything
    assert b"[email]" in everything


def test_the_same_key_gives_the_same_codes(tmp_path: Path, make_shop: Callable[..., Path]) -> None:
    shop = make_shop(tmp_path / "shop")
    anonymise(shop, tmp_path / "a")
    anonymise(shop, tmp_path / "b", key=tmp_path / "a.key")
    anonymise(shop, tmp_path / "c")
    a, b, c = ((tmp_path / each / "interactions.csv").read_bytes() for each in "abc")
    assert a == b != c
    assert not (tmp_path / "b.key").exists()
    assert "secret" in (tmp_path / "a.report.txt").read_text()  # the column left behind


def test_pictures_lose_all_but_their_pixels(tmp_path: Path, make_shop: Callable[..., Path]) -> None:
    shop, safe = make_shop(tmp_path / "shop"), tmp_path / "safe"
    pixels = np.random.default_rng(0).integers(0, 255, (40, 24, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "Anna's garden"  # turned; a description
    exif.get_ifd(0x8825)[1] = "N"
    picture = Image.fromarray(pixels)
    picture.save(shop / "images" / "0.png", exif=exif)
    jpeg = io.BytesIO()
    picture.save(jpeg, "JPEG", exif=exif, comment=b"Anna")
    jpeg_bytes = jpeg.getvalue() + b"THUMBNAIL OF ANNA"
    (shop / "images" / "1.png").write_bytes(jpeg_bytes)
    wide = Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30) * 100)
    wide.save(shop / "images" / "2.png")
    report = anonymise(shop, safe)
    raw = read_folder(safe)
    assert report.pictures == sum(map(bool, raw.items.pictures)) == 6
    everything = b"".join(raw.items.pictures)
    assert not any(word in everything for word in (b"Anna", b"Exif", b"eXIf", b"THUMB", b"ANNA"))
    out = [Image.open(io.BytesIO(data)) for data in raw.items.pictures[:3]]
    np.testing.assert_array_equal(np.asarray(out[0]), np.rot90(pixels, -1))
    decoded = np.asarray(Image.open(io.BytesIO(jpeg_bytes)))
    np.testing.assert_array_equal(np.asarray(out[1]), np.rot90(decoded, -1))
    np.testing.assert_array_equal(np.asarray(out[2]), np.asarray(wide))
    assert not any(image.getexif() or image.info for image in out)


def test_nothing_is_written_where_something_fails(
    tmp_path: Path, make_shop: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = make_shop(tmp_path / "shop")
    full = tmp_path / "full"
    full.mkdir()
    (full / "x").write_text("mine")
    (tmp_path / "bad.key").write_text("abc\n")
    cases = [
        (full, {}),
        (shop / "inside", {}),
        (tmp_path / "new" / "safe", {"key": tmp_path / "new" / "safe" / "k"}),
        (tmp_path / "safe", {"key": tmp_path / "bad.key"}),
        (tmp_path / "safe", {"key": tmp_path / "none.key"}),
    ]
    before = sorted(tmp_path.rglob("*"))
    for out, options in cases:
        with pytest.raises(UserError):
            anonymise(shop, out, **options)
        assert sorted(tmp_path.rglob("*")) == before
    with monkeypatch.context() as patch:
        patch.setattr("jmrec.data.anonymise.toml_text", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            anonymise(shop, tmp_path / "new" / "safe")
    assert sorted(tmp_path.rglob("*")) == before
    monkeypatch.setattr("jmrec.data.anonymise.missing_modules", lambda: ["stdnum"])
    with pytest.raises(UserError, match=r"pip install 'jmrec\[anonymise\]'"):
        anonymise(shop, tmp_path / "safe")


def test_the_command_prints_what_it_writes(
    tmp_path: Path, make_shop: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    shop = make_shop(tmp_path / "shop")
    assert main(["data", "anonymise", str(shop), "--out", str(tmp_path / "safe"), "--items"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    written = (tmp_path / "safe.report.txt").read_text()
    assert "40 sessions" in written
    assert "Limits:" in written
    assert " ".join(written.split()) in said
