"""ToyShop's pictures: one object on a coloured background, drawn with Pillow.

An object shows four attributes: shape, colour (its hue), pattern (how it is filled) and mark (a
small white glyph near the picture's edge). A white outline sets the object off. Everything else
is chance: position, size, a slight turn, saturation and brightness, the phase of the pattern, the
four strong colours that the background blends. So a pixel says little by itself, and a model has
to find the object first.
"""

import colorsys

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

SHAPES = ("disc", "square", "triangle", "star", "cross", "crescent")
COLOURS = ("red", "orange", "lime", "green", "cyan", "blue", "violet", "pink")
PATTERNS = ("solid", "banded", "pinstriped", "dotted", "checked", "rimmed")
MARKS = ("none", "dot", "bar", "plus")

_ZOOM = 4  # drawn larger and reduced, which smooths the edges
_CLOUDS = 2  # the background is a smoothed grid of so many random colours a side


def _rgb(hue: float, saturation: float, value: float) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def _polygon(angles: np.ndarray, radii: np.ndarray) -> np.ndarray:
    return np.stack([radii * np.sin(angles), -radii * np.cos(angles)], axis=1)


def _silhouette(
    shape: str, size: int, centre: np.ndarray, radius: float, turn: float
) -> Image.Image:
    """Return the mask ("L", 0 or 255) of one shape."""
    mask = Image.new("L", (size, size), 0)
    draw = ImageDraw.Draw(mask)

    def disc(middle: np.ndarray, r: float, fill: int) -> None:
        draw.ellipse((*(middle - r).tolist(), *(middle + r).tolist()), fill=fill)

    if shape == "disc":
        disc(centre, 0.95 * radius, 255)
        return mask
    if shape == "crescent":
        disc(centre, 1.05 * radius, 255)
        bite = np.array([np.cos(turn), np.sin(turn)]) * 0.55 * radius
        disc(centre + bite, 0.75 * radius, 0)
        return mask
    if shape == "square":
        points = _polygon(np.pi / 4 + np.arange(4) * np.pi / 2, np.full(4, 1.2))
    elif shape == "triangle":
        points = _polygon(np.arange(3) * 2 * np.pi / 3, np.full(3, 1.25))
    elif shape == "star":
        points = _polygon(np.arange(10) * np.pi / 5, np.tile([1.25, 0.52], 5))
    else:
        arm = 0.38
        corners = [(arm, 1.1), (arm, arm), (1.1, arm)]
        quarter = np.array([(x, -y) for x, y in corners])
        spin = np.array([[0.0, -1.0], [1.0, 0.0]])
        points = np.concatenate([quarter @ np.linalg.matrix_power(spin, k).T for k in range(4)])
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    corners_xy = points @ rotation.T * radius + centre
    draw.polygon([tuple(point) for point in corners_xy.tolist()], fill=255)
    return mask


def _shade(
    pattern: str, size: int, phase: np.ndarray, period: float, mask: Image.Image, rim: int
) -> Image.Image:
    """Return the mask of the darker part of the object's filling."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float64)
    u, v = (x + phase[0]) % period / period, (y + phase[1]) % period / period
    if pattern == "banded":
        dark = v < 0.5
    elif pattern == "pinstriped":
        dark = u < 0.5
    elif pattern == "dotted":
        dark = (u - 0.5) ** 2 + (v - 0.5) ** 2 < 0.32**2
    elif pattern == "checked":
        dark = (u < 0.5) ^ (v < 0.5)
    else:
        dark = np.zeros((size, size), bool)
    shade = Image.fromarray((255 * dark).astype(np.uint8))
    if pattern == "rimmed":
        inner = np.asarray(mask) > 0
        for _ in range(rim):  # one pixel of erosion a time
            inner = (
                inner
                & np.roll(inner, 1, 0)
                & np.roll(inner, -1, 0)
                & np.roll(inner, 1, 1)
                & np.roll(inner, -1, 1)
            )
        shade = Image.fromarray((255 * ~inner).astype(np.uint8))
    return ImageChops.multiply(shade, mask)


def _glyph(draw: ImageDraw.ImageDraw, mark: str, middle: np.ndarray, r: float) -> None:
    """Draw the mark in white on a dark disc."""
    if mark == "none":
        return
    x, y = middle.tolist()
    draw.ellipse((x - r, y - r, x + r, y + r), fill=(25, 25, 25))
    a, b = 0.75 * r, 0.25 * r
    if mark == "dot":
        draw.ellipse((x - 2 * b, y - 2 * b, x + 2 * b, y + 2 * b), fill="white")
    if mark in ("bar", "plus"):
        draw.rectangle((x - a, y - b, x + a, y + b), fill="white")
    if mark == "plus":
        draw.rectangle((x - b, y - a, x + b, y + a), fill="white")


def draw_picture(
    shape: int, colour: int, pattern: int, mark: int, size: int, rng: np.random.Generator
) -> Image.Image:
    """Draw one item.

    Args:
      shape: Index into ``SHAPES``.
      colour: Index into ``COLOURS``, 45 degrees of hue from one to the next.
      pattern: Index into ``PATTERNS``.
      mark: Index into ``MARKS``.
      size: Width and height in pixels.
      rng: Draws all that is chance in the picture.

    Returns:
      An RGB picture of ``size`` x ``size`` pixels.

    Example:
      >>> draw_picture(0, 1, 2, 3, 32, np.random.default_rng(0)).size
      (32, 32)
    """
    full = _ZOOM * size
    hue = colour / len(COLOURS) + rng.uniform(-0.03, 0.03)
    radius = full * rng.uniform(0.27, 0.32)
    centre = full / 2 + full * rng.uniform(-0.12, 0.12, 2)
    turn = rng.uniform(-0.12, 0.12)

    clouds = np.array(
        [_rgb(*hsv) for hsv in rng.uniform((0, 0.6, 0.5), (1, 1, 0.95), (_CLOUDS**2, 3))]
    ).reshape(_CLOUDS, _CLOUDS, 3)
    ground = Image.fromarray(clouds.astype(np.uint8))
    picture = ground.resize((full, full), Image.Resampling.BICUBIC)

    bright = rng.uniform(0.6, 1.0)
    strong = rng.uniform(0.45, 0.8)
    mask = _silhouette(SHAPES[shape], full, centre, radius, turn)
    period = full * rng.uniform(0.215, 0.235)
    phase = period * rng.uniform(-0.2, 0.2, 2) - centre
    shade = _shade(PATTERNS[pattern], full, phase, period, mask, rim=round(0.055 * full))
    halo = mask.filter(ImageFilter.BoxBlur(round(0.035 * full))).point([0] * 8 + [255] * 248)
    picture.paste((255, 255, 255), (0, 0), halo)
    picture.paste(_rgb(hue, strong, bright), (0, 0), mask)
    ink = (255, 255, 255) if PATTERNS[pattern] == "dotted" else _rgb(hue, strong, 0.25 * bright)
    picture.paste(ink, (0, 0), shade)

    along, side = rng.uniform(0.1, 0.9), rng.integers(4)
    spot = np.array([along, 0.11 if side < 2 else 0.89])
    _glyph(ImageDraw.Draw(picture), MARKS[mark], full * spot[:: 1 if side % 2 else -1], 0.1 * full)
    return picture.resize((size, size), Image.Resampling.BOX)
