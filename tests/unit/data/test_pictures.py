"""Pictures: closed forms of the letterbox, and what does not decode."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jmrec.data.folder import read_folder
from jmrec.data.guess import write_guess
from jmrec.data.pictures import decode_pictures, picture_problem, shrink, thumbnail
from jmrec.data.schema import Items
from jmrec.errors import UserError


def _items(*pictures: bytes) -> Items:
    names = [str(i) for i in range(len(pictures))]
    return Items(names, names, {"title": names}, list(pictures))


def _encode(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def test_letterbox(png: Callable[..., bytes]) -> None:
    pixels, ok = decode_pictures(_items(png((200, 0, 0), (20, 40)), b"", png((0, 9, 0))), 8)
    assert pixels.shape == (3, 8, 8, 3)
    assert pixels.dtype == np.uint8
    assert ok.tolist() == [True, False, True]
    assert (pixels[0, :, 2:6] == [200, 0, 0]).all()
    assert (pixels[0, :, [0, 1, 6, 7]] == 128).all()
    assert not pixels[1].any()


def test_nothing_is_turned_or_mirrored() -> None:
    corner = np.zeros((16, 16, 3), np.uint8)
    corner[:8, 8:] = 250  # top right
    pixels, _ = decode_pictures(_items(_encode(Image.fromarray(corner), "PNG")), 8)
    assert (pixels[0, :3, 5:] > 240).all()
    assert pixels[0, 5:].max() < 10


def test_modes(png: Callable[..., bytes]) -> None:
    clear = _encode(Image.new("RGBA", (8, 8), (0, 0, 0, 0)), "PNG")
    grey = _encode(Image.new("L", (8, 8), 77), "JPEG")
    palette = _encode(Image.new("RGB", (8, 8), (255, 0, 0)).convert("P"), "GIF")
    turned = Image.new("RGB", (8, 4), (0, 0, 200))
    exif = turned.getexif()
    exif[0x0112] = 6  # rotate by a quarter
    turned_jpeg = _encode(turned, "JPEG", exif=exif, quality=100)
    pixels, _ = decode_pictures(_items(clear, grey, palette, turned_jpeg), 8)
    assert (pixels[0] == 255).all()
    assert np.abs(pixels[1].astype(int) - 77).max() <= 2
    assert (pixels[2] == [255, 0, 0]).all()
    assert (pixels[3, :, [0, 7]] == 128).all()  # upright: the bars are at the sides
    assert (pixels[3, :, 2:6, 2] > 150).all()


def test_shrink(png: Callable[..., bytes]) -> None:
    small = png((1, 2, 3), (512, 100))
    assert shrink(small) is small
    assert shrink(b"") == b""
    for kind, stored in [("JPEG", "JPEG"), ("PNG", "PNG"), ("BMP", "PNG"), ("WEBP", "PNG")]:
        data = _encode(Image.new("RGB", (100, 60), (0, 99, 0)), kind)
        with Image.open(io.BytesIO(shrink(data, 50))) as image:
            assert (image.format, image.size) == (stored, (50, 30))
            assert abs(np.asarray(image.convert("RGB"))[0, 0, 1].item() - 99) <= 3


def test_problems(png: Callable[..., bytes]) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    for kind in ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"):
        data = _encode(Image.fromarray(noise), kind)
        assert picture_problem(data) == ""
        assert picture_problem(data[: len(data) // 2])
    assert picture_problem(b"no picture").startswith("is none of PNG, JPEG")
    assert picture_problem(_encode(Image.fromarray(noise), "PPM")).startswith("is none of")


@pytest.mark.parametrize("size", [(7000, 7000), (14000, 14000)])
def test_bombs_are_not_decoded(size: tuple[int, int]) -> None:
    data = _encode(Image.new("1", size), "PNG")
    assert len(data) < 100_000
    assert "more than 40,000,000 pixels" in picture_problem(data)


def test_a_thumbnail_is_encoded_anew_and_says_nothing_of_its_file() -> None:
    image = Image.new("RGB", (400, 300), (200, 30, 30))
    exif = Image.Exif()
    exif[0x010E] = "taken at home"
    large = _encode(image, "JPEG", exif=exif, comment=b"secret words")
    little = _encode(image.resize((30, 40)), "PNG")
    for data, side in ((large, 120), (little, 40)):
        small = thumbnail(data, 120)
        with Image.open(io.BytesIO(small)) as found:
            assert found.format == "JPEG"
            assert max(found.size) == side
            assert not found.getexif()
        assert b"secret" not in small
        assert b"home" not in small
    assert thumbnail(b"") == b""


RAMP = np.tile(np.linspace(0, 1, 32), (32, 1))


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ((RAMP * 65_535).astype(np.uint16), "PNG"),
        ((RAMP * 65_535).astype(np.uint16), "TIFF"),
        ((RAMP * 1_000_000 - 5_000).astype(np.int32), "TIFF"),
        (RAMP.astype(np.float32), "TIFF"),
        ((RAMP * 700 - 300).astype(np.float32), "TIFF"),
    ],
    ids=["16", "16-tiff", "32-tiff", "float", "float-any"],
)
def test_many_bits_are_scaled_and_not_clipped(values: np.ndarray, kind: str) -> None:
    data = _encode(Image.fromarray(values), kind)
    assert picture_problem(data) == ""
    for encoded in (data, shrink(data, 32)):
        pixels, ok = decode_pictures(_items(encoded), 32)
        assert ok.all()
        truth = np.repeat((RAMP * 255)[..., None], 3, 2)
        assert np.abs(pixels[0] - truth).max() <= 1
    with Image.open(io.BytesIO(thumbnail(data))) as small:
        assert np.abs(np.asarray(small)[..., 0] - RAMP * 255).max() <= 4


def test_half_dark_stays_so() -> None:
    """16 bits have a range of their own, and numbers that are none are dark."""
    grey = np.full((8, 8), 20_000, np.uint16)
    holes = np.full((8, 8), 0.5, np.float32)
    holes[0] = np.nan
    grey_png, holes_tiff = (
        _encode(Image.fromarray(grey), "PNG"),
        _encode(Image.fromarray(holes), "TIFF"),
    )
    pixels, _ = decode_pictures(_items(grey_png, holes_tiff), 8)
    assert np.abs(pixels[0].astype(int) - round(20_000 / 257)).max() <= 1
    assert (pixels[1, 0] == 0).all()
    assert np.abs(pixels[1, 1:].astype(int) - 128).max() <= 1


def _shop(folder: Path, png: Callable[..., bytes], cells: list[str] | None) -> Path:
    (folder / "images").mkdir()
    for i in range(8):
        (folder / f"images/{i}.png").write_bytes(png((30 * i, 0, 0)))
    head = "item_id,title" + ("" if cells is None else ",foto")
    rows = [f"{i},Thing {i}" + ("" if cells is None else f",{cells[i]}") for i in range(8)]
    (folder / "items.csv").write_text("\n".join([head, *rows]))
    events = [f"{k // 4},{k * 7 % 8},{10**9 + k}" for k in range(80)]
    (folder / "interactions.csv").write_text("session_id,item_id,timestamp\n" + "\n".join(events))
    return folder


@pytest.mark.parametrize(
    "form", ["./images/{}.png", "images\\{}.png", ".\\images\\{}.png", "/images/{}.png", "{}.png"]
)
def test_paths_of_other_systems(tmp_path: Path, png: Callable[..., bytes], form: str) -> None:
    """And init says nothing else than the reader."""
    shop = _shop(tmp_path, png, [form.format(i) for i in range(8)])
    text = write_guess(shop).read_text(encoding="utf-8")
    assert 'picture = "foto"' in text
    assert "These files stand in" not in text
    raw = read_folder(shop, strict=True)
    assert raw.items.pictures == [png((30 * i, 0, 0)) for i in range(8)]


def test_files_that_bear_ids_need_no_column(tmp_path: Path, png: Callable[..., bytes]) -> None:
    shop = _shop(tmp_path, png, None)
    truth = [png((30 * i, 0, 0)) for i in range(8)]
    assert read_folder(shop, strict=True).items.pictures == truth
    path = write_guess(shop)
    assert 'picture = "{id}"' in path.read_text(encoding="utf-8")
    assert read_folder(shop, strict=True).items.pictures == truth
    path.write_text('[items]\npicture = ""\n')
    assert read_folder(shop, strict=True).items.pictures == [b""] * 8
    path.unlink()
    (shop / "images/3.png").rename(shop / "images/3.PNG")
    assert read_folder(shop, strict=True).items.pictures == truth
    (shop / "images/3.PNG").rename(shop / "images/three.png")
    assert read_folder(shop, strict=True).items.pictures == [*truth[:3], b"", *truth[4:]]


def test_pictures_that_no_item_names_are_said(tmp_path: Path, png: Callable[..., bytes]) -> None:
    shop = _shop(tmp_path, png, None)
    for path in (shop / "images").iterdir():
        path.rename(path.with_stem(f"photo-{path.stem}"))
    (said,) = read_folder(shop).warnings
    assert said.startswith("images/ holds 8 pictures and no item names one; name the column of")
    with pytest.raises(UserError, match="images/ holds 8 pictures"):
        read_folder(shop, strict=True)
