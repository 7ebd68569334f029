"""Pictures as a pretrained tower wants them, by transformers' processors on Pillow, without torch.

Shapes: B rows, F frames of a row, S their side in pixels.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from jmrec.convert.hf import MAX_JSON, read_pixels
from jmrec.convert.sources import first_line
from jmrec.errors import UserError
from jmrec.files import member

AROUND, WHOLE, IMAGE = "<fake_token_around_image>", "<global-img>", "<image>"
"""The words with which Idefics3 and SmolVLM frame pictures."""


@dataclass(frozen=True)
class Frames:
    """The frames of some rows of pictures.

    Attributes:
      pixels: uint8 [B, F, S, S, 3]; a tower normalises them itself. A row's frames come first.
      mask: bool [B, F], which frames are real.
      grids: For each row, (rows, columns) of the frames into which each picture was cut; (0, 0)
        where it is one frame, and else the whole picture follows its cuts as one more.
    """

    pixels: np.ndarray
    mask: np.ndarray
    grids: tuple[tuple[tuple[int, int], ...], ...]


def picture_processor(
    folder: str | os.PathLike[str],
) -> Callable[[Sequence[Sequence[Image.Image]]], Frames]:
    """Return the function that resizes, crops and cuts pictures as a model's folder says.

    It stops at bytes, four times smaller than the floats that transformers would go on to make: the
    towers of `jmrec.models.readers.vit` take off the mean and divide.

    Args:
      folder: With ``preprocessor_config.json``.

    Returns:
      A function of B rows of pictures (a row may have several, or none).

    Raises:
      UserError: There is no such file, or transformers does not know its processor.
    """
    read_pixels(folder)
    for name in ("processor_config.json", "config.json"):  # transformers looks there as well
        member(Path(folder), name, MAX_JSON)
    from transformers import AutoImageProcessor

    try:
        processor = AutoImageProcessor.from_pretrained(
            folder, backend="pil", local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # errors of many kinds
        why = first_line(error)
        raise UserError(
            f"{folder}: transformers does not make a processor of its preprocessor_config.json "
            f"({why}); fetch the folder again."
        ) from None

    def process(pictures: Sequence[Sequence[Image.Image]]) -> Frames:
        made = [_frames(processor, list(row)) for row in pictures]
        most = max((len(frames) for frames, _ in made), default=0)
        side = next((frames.shape[1:] for frames, _ in made if len(frames)), (0, 0, 3))
        pixels = np.zeros((len(made), most, *side), np.uint8)
        mask = np.zeros((len(made), most), bool)
        for i, (frames, _) in enumerate(made):
            if len(frames):
                pixels[i, : len(frames)] = frames
                mask[i, : len(frames)] = True
        return Frames(pixels, mask, tuple(grids for _, grids in made))

    return process


def _frames(
    processor: Callable[..., dict[str, np.ndarray]], pictures: list[Image.Image]
) -> tuple[np.ndarray, tuple[tuple[int, int], ...]]:
    """Return the frames [F, S, S, 3] of one row, and the grid of each of its pictures."""
    if not pictures:
        return np.zeros((0, 0, 0, 3), np.uint8), ()
    asked = {"do_rescale": False, "do_normalize": False, "return_tensors": "np"}
    if hasattr(processor, "do_image_splitting"):
        made = processor([pictures], return_row_col_info=True, **asked)
        pixels = made["pixel_values"][0]
        rows, columns = (np.asarray(made[name])[0].tolist() for name in ("rows", "cols"))
        grids = tuple(zip(rows, columns))
    else:
        pixels = processor(pictures, **asked)["pixel_values"]
        grids = ((0, 0),) * len(pictures)
    return np.asarray(pixels).transpose(0, 2, 3, 1).astype(np.uint8), grids


def picture_prompt(grid: tuple[int, int], tokens: int) -> str:
    """Return the words that stand for a picture in a prompt of Idefics3 or SmolVLM.

    Args:
      grid: From `Frames`.
      tokens: Picture tokens of a frame.

    Example:
      >>> picture_prompt((0, 0), 2)
      '<fake_token_around_image><global-img><image><image><fake_token_around_image>'
      >>> picture_prompt((1, 2), 1).count(IMAGE)
      3
    """
    rows, columns = grid
    seen = IMAGE * tokens
    cuts = "".join(
        "".join(f"{AROUND}<row_{r}_col_{c}>{seen}" for c in range(1, columns + 1)) + "\n"
        for r in range(1, rows + 1)
    )
    return f"{cuts}{chr(10) if cuts else ''}{AROUND}{WHOLE}{seen}{AROUND}"
