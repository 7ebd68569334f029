"""Pictures: check, shrink for storage, decode for the models."""

import io
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from jmrec.data.schema import Items

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
BY_ID = "{id}"
"""In place of a column of pictures: the files under images/ are named by the ids of the items."""
IMAGES = "images"
"""The folder of pictures, where a description names no other."""
MAX_PIXELS = 40_000_000
"""A picture that claims more pixels is refused before it is decoded (a decompression bomb)."""

# Pillow warns from half of its own bomb limit on, on stderr; ours is lower and an error.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def picture_path(cell: str, under: str = IMAGES) -> str:
    r"""Return a cell of a picture column as a path under images/, or another folder of pictures.

    Example:
      >>> [picture_path(cell) for cell in ("7.jpg", "./images/7.jpg", "images\\a\\7.jpg")]
      ['7.jpg', '7.jpg', 'a/7.jpg']
    """
    path = cell.replace("\\", "/")
    while path.startswith("./"):
        path = path[2:].lstrip("/")
    return path.removeprefix(f"/{under}/").removeprefix(f"{under}/")


def picture_files(folder: Path, under: str = IMAGES) -> dict[str, str]:
    """Return the names of the pictures under images/ by what they are without their ending.

    Those in folders there come after those beside them, as "010/0108775015.jpg".
    """
    base = folder / under
    try:
        paths = [*sorted(base.glob("*")), *sorted(base.glob("*/*"))]
    except OSError:  # no such folder
        return {}
    found: dict[str, str] = {}
    for path in paths:
        if path.suffix.lower() in ENDINGS:
            found.setdefault(path.stem, path.relative_to(base).as_posix())
    return found


def picture_problem(data: bytes) -> str:
    """Say in a few words why a picture can not be used, "" if it can.

    Args:
      data: Encoded bytes; ``b""`` is a missing picture and no problem.

    Returns:
      A predicate ("is not a picture ..."), or "".

    Example:
      >>> picture_problem(b"")
      ''
      >>> picture_problem(b"GIF89a")
      'does not decode'
    """
    if not data:
        return ""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                return f"has more than {MAX_PIXELS:,} pixels"
            image.load()
            _bytes(image, image.format).convert("RGB")
    except Image.UnidentifiedImageError:
        if data[:3] in (b"GIF", b"\x89PN", b"\xff\xd8\xff"):
            return "does not decode"
        html = data[:200].lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml", b"<svg"))
        return f"is none of {', '.join(FORMATS)}" + (" but a web page or SVG" if html else "")
    except Image.DecompressionBombError:
        return f"has more than {MAX_PIXELS:,} pixels"
    except Exception:  # decoders raise whatever they like on broken bytes
        return "does not decode"
    return ""


def shrink(data: bytes, size: int = 512) -> bytes:
    """Return a picture as it is stored: PNG or JPEG with no side longer than ``size``.

    A PNG or JPEG that is small enough is returned byte by byte as it came.

    Args:
      data: Encoded bytes, ``b""`` where missing.
      size: The longest side in pixels.

    Returns:
      Encoded bytes.
    """
    if not data:
        return b""
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        kind = image.format
        if kind in ("PNG", "JPEG") and max(image.size) <= size:
            return data
        small = _upright(image)
        small.thumbnail((size, size), Image.Resampling.LANCZOS)
        out = io.BytesIO()
        if kind == "JPEG":
            small.save(out, "JPEG", quality=90)
        else:
            small.save(out, "PNG")
        return out.getvalue()


def thumbnail(data: bytes, size: int = 120) -> bytes:
    """Return a small JPEG of a picture for a page, always encoded anew.

    What came with the file (comments, positions, whatever a decoder overlooks) stays behind.

    Args:
      data: Encoded bytes, ``b""`` where missing.
      size: The longest side in pixels.

    Returns:
      JPEG bytes, ``b""`` where the picture is missing.

    Example:
      >>> thumbnail(b"")
      b''
    """
    if not data:
        return b""
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        image.draft("RGB", (2 * size, 2 * size))
        small = _upright(image)
        small.thumbnail((size, size), Image.Resampling.LANCZOS)
        clean = Image.new("RGB", small.size)
        clean.paste(small)
        out = io.BytesIO()
        clean.save(out, "JPEG", quality=80, optimize=True)
        return out.getvalue()


def decode_pictures(items: Items, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Decode all pictures of a catalogue to one square size.

    The whole picture is kept: it is scaled until its longer side is ``size`` and centred on
    grey. (Cropping a 2:3 poster would lose its title and a third of the scene, stretching would
    change its shapes; the grey bars are the same for all posters.)

    Args:
      items: The catalogue.
      size: Side length S in pixels.

    Returns:
      ``(pixels, ok)``: uint8 [V, S, S, 3], zeros where missing, and bool [V], False there.
    """
    pixels = np.zeros((len(items), size, size, 3), np.uint8)
    ok = np.array([bool(data) for data in items.pictures], bool)

    def decode(row: int) -> None:
        with Image.open(io.BytesIO(items.pictures[row]), formats=FORMATS) as image:
            image.draft("RGB", (2 * size, 2 * size))  # a JPEG need not be decoded in full
            pixels[row] = np.asarray(
                ImageOps.pad(
                    _upright(image), (size, size), Image.Resampling.LANCZOS, color=(128, 128, 128)
                )
            )

    with ThreadPoolExecutor() as pool:
        list(pool.map(decode, np.flatnonzero(ok).tolist()))
    return pixels, ok


def _upright(image: Image.Image) -> Image.Image:
    """Return the picture as RGB, turned as its camera says, transparent parts white."""
    kind = image.format
    image = _bytes(ImageOps.exif_transpose(image) or image, kind)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _bytes(image: Image.Image, kind: str | None) -> Image.Image:
    """Return a picture of 16 or 32 bits or of floats as one of 8 bits; Pillow would clip it.

    16 bits are scaled by their range, and so are floats from 0 to 1; other numbers have no range
    of their own: they are scaled by the picture's darkest and lightest.
    """
    if not (image.mode.startswith("I") or image.mode == "F"):
        return image
    values = np.asarray(image)
    if image.mode == "F":
        values = np.nan_to_num(values, posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    if image.mode not in ("I", "F") or kind == "PNG":
        low, high = 0.0, 65_535.0
    elif image.mode == "F" and low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    elif low == high:
        low, high = 0.0, 255.0
    out = np.empty(values.shape, np.uint8)
    for row, line in enumerate(values):  # one by one: a large picture as floats fills the memory
        scaled = (line.astype(np.float64) - low) * (255 / (high - low))
        out[row] = np.round(np.clip(scaled, 0, 255))
    return Image.fromarray(out)
