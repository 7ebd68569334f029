"""Pictures and their prompts against transformers' own processors."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoImageProcessor, Idefics3Processor, PreTrainedTokenizerFast
from transformers.models.smolvlm.processing_smolvlm import get_image_prompt_string

from jmrec.convert.pictures import AROUND, IMAGE, WHOLE, picture_processor, picture_prompt
from jmrec.errors import UserError

COLOURS = {"image_mean": [0.48, 0.45, 0.4], "image_std": [0.26, 0.25, 0.3]}
CASES: dict[str, dict[str, Any]] = {
    "clip": {
        "image_processor_type": "CLIPImageProcessor",
        **{"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}, **COLOURS},
    },
    "siglip": {
        "image_processor_type": "SiglipImageProcessor",
        **{"size": {"height": 32, "width": 32}, **COLOURS},
    },
    "idefics3": {
        "image_processor_type": "Idefics3ImageProcessor",
        **{"size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 32}, **COLOURS},
    },
    "smolvlm": {
        "image_processor_type": "SmolVLMImageProcessor",
        **{"size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 32}, **COLOURS},
        "do_image_splitting": False,
    },
}


def folder(path: Path, kind: str) -> Path:
    (path / "preprocessor_config.json").write_text(json.dumps(CASES[kind]))
    return path


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    """Noise over a gradient: grey, with transparency, wide, high, smaller than the frame."""
    rng = np.random.default_rng(0)
    made = []
    for size, mode in [((50, 40), "RGB"), ((20, 90), "RGB"), ((70, 31), "L"), ((10, 12), "RGBA")]:
        ramp = np.linspace(0, 200, size[1])[None, :, None] + rng.integers(0, 56, (*size, 4))
        made.append(Image.fromarray(ramp.astype(np.uint8), "RGBA").convert(mode))
    return made


@pytest.mark.parametrize("kind", CASES)
def test_pixels_are_those_of_transformers(kind: str, pictures: list, tmp_path: Path) -> None:
    theirs = AutoImageProcessor.from_pretrained(folder(tmp_path, kind), backend="pil")
    split = hasattr(theirs, "do_image_splitting")
    rows = [pictures[:2], pictures[2:3], pictures[3:]] if split else [[p] for p in pictures]
    got = picture_processor(tmp_path)(rows)
    assert got.pixels.dtype == np.uint8
    x = got.pixels / 255.0
    x = (x - np.array(COLOURS["image_mean"])) / np.array(COLOURS["image_std"])
    x = x.transpose(0, 1, 4, 2, 3)
    if split:
        want = theirs(rows, return_row_col_info=True, return_tensors="np")
        real = want["pixel_attention_mask"].any((2, 3))
        np.testing.assert_array_equal(got.mask, real)
        np.testing.assert_allclose(x[real], want["pixel_values"][real], rtol=0, atol=1e-5)
        assert [list(map(list, grids)) for grids in got.grids] == [
            [list(each) for each in zip(r, c)] for r, c in zip(want["rows"], want["cols"])
        ]
    else:
        want = theirs(pictures, return_tensors="np")["pixel_values"]
        np.testing.assert_allclose(x[:, 0], want, rtol=0, atol=1e-5)
        assert got.mask.all()


def test_rows_without_pictures_have_no_frames(pictures: list, tmp_path: Path) -> None:
    got = picture_processor(folder(tmp_path, "siglip"))([[], [pictures[0]]])
    assert got.mask.tolist() == [[False], [True]]
    assert not got.pixels[0].any()


def test_a_folder_without_a_processor_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="preprocessor_config"):
        picture_processor(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"image_processor_type": "NoSuch"}')
    with pytest.raises(UserError, match="does not make a processor"):
        picture_processor(tmp_path)


def test_prompts_are_those_of_transformers(pictures: list, tmp_path: Path) -> None:
    names = [AROUND, IMAGE, WHOLE, "<end_of_utterance>", "\n", "a", "[UNK]"]
    names += [f"<row_{r}_col_{c}>" for r in range(1, 4) for c in range(1, 4)]
    words = Tokenizer(models.WordLevel({n: i for i, n in enumerate(names)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    words.add_special_tokens([name for name in names if name != "a"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]")
    path = folder(tmp_path, "idefics3")
    theirs = Idefics3Processor(
        AutoImageProcessor.from_pretrained(path, backend="pil"), tokenizer, image_seq_len=4
    )
    rows = [[picture] for picture in pictures]
    want = theirs(images=rows, text=["a <image> a"] * 4)["input_ids"]
    grids = picture_processor(path)(rows).grids
    got = [words.encode(f"a {picture_prompt(grid, 4)} a").ids for (grid,) in grids]
    assert got == want
    assert len({len(ids) for ids in got}) > 1
    for grid in [(0, 0), (1, 2), (3, 2)]:
        assert picture_prompt(grid, 5) == get_image_prompt_string(
            *grid,
            5,
            fake_token_around_image=AROUND,
            image_token=IMAGE,
            global_image_token=WHOLE,
        )
