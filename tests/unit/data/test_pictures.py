"""Pictures: closed forms of the letterbox, and what does not decode."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from jmrec.data.pictures import decode_pictures, picture_problem, shrink, thumbnail
from jmrec.data.schema import Items


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
    for kind in ("PNG", "JPEG", "GIF", "WEBP", "BMP"):
        data = _encode(Image.fromarray(noise), kind)
        assert picture_problem(data) == ""
        assert picture_problem(data[: len(data) // 2])
    assert picture_problem(b"no picture").startswith("is none of PNG, JPEG")
    assert picture_problem(_encode(Image.fromarray(noise), "TIFF")).startswith("is none of")


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
