"""Hostile sources of weights: each is one sentence within seconds, and nothing is followed.

See test_torch_file.py for what a pickle may ask for; here it asks for too much.
"""

import json
import os
import signal
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from jmrec.convert.families import load_pretrained
from jmrec.convert.hf import read_pixels
from jmrec.convert.llama import hf_of_gguf
from jmrec.convert.pictures import picture_processor
from jmrec.convert.provenance import open_source
from jmrec.convert.tokenizer import load_tokenizer
from jmrec.convert.torch_file import TorchFile
from jmrec.errors import UserError
from jmrec.files import member
from jmrec.systems.pretrained import convert_to
from tests.unit.convert import torch_by_hand
from tests.unit.convert.test_convert_command import weights
from tests.unit.convert.test_gguf_file import text


@pytest.fixture(autouse=True)
def _seconds() -> Iterator[None]:
    """Ten on an idle machine; whoever runs tests has others beside them."""

    def stop(*_: object) -> None:
        pytest.fail("it hangs")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 20, 1)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


# A pair of the pair before, and so on: 2^60 values for whoever looks at all; and one tuple in
# another, too deep for the stack of whoever follows them.
PAIRS = b")q\x00" + b"h\x00h\x00\x86q\x00" * 60
DEEP = b")" + b"\x85" * 200_000
TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n"
HUNDRED_THOUSAND = b"](" + b"N" * 100_000 + b"eq\x00"
PICKLES = {
    "a key of pairs": PAIRS + b"}h\x00K\x01s.",
    "keys of pairs": b"}(" + PAIRS + b"h\x00K\x01u.",
    "a dictionary of pairs": b"(" + PAIRS + b"h\x00h\x00d.",
    "a set of pairs": PAIRS + b"\x8f(h\x00\x90.",
    "a frozen set of pairs": PAIRS + b"(h\x00\x91.",
    "an ordered dictionary of pairs": PAIRS
    + b"ccollections\nOrderedDict\n](h\x00K\x01\x86e\x85R.",
    "a name of pairs": PAIRS + b"h\x00h\x00\x93.",
    "a storage of pairs": PAIRS + b"(U\x07storagectorch\nFloatStorage\nh\x00U\x03cpuK\x01tQ.",
    "a kind of pairs": PAIRS + b"(h\x00ctorch\nFloatStorage\nU\x010U\x03cpuK\x01tQ.",
    "a deep key": b"}" + DEEP + b"K\x01s.",
    "a deep value": b"}U\x01a" + DEEP + b"s.",
    "a long key": b"}X" + struct.pack("<I", 2_000) + b"a" * 2_000 + b"K\x01s.",
    "5,000 digits": b"I" + b"9" * 5_000 + b"\n.",
    "a key of 5,000 digits": b"}\x8b" + struct.pack("<I", 4_000) + b"\x7f" * 4_000 + b"K\x01s.",
    "many steps": b"N" * 2_000_000 + b".",
    "many marks": b"N" * 450_000 + b"(t" * 250_000 + b".",
    "no mark": b"N" * 450_000 + b"t.",
    "copies of a list": b"ccollections\nOrderedDict\nq\x01](" + b"K\x01K\x02\x86" * 50_000
    + b"eq\x02\x85R" + b"h\x01h\x02\x85R" * 100_000 + b".",
    "lists in lists": HUNDRED_THOUSAND + (b"](" + b"h\x00" * 100_000 + b"eq\x00") * 8 + b".",
    "a long text": b"\x8d" + struct.pack("<Q", 2**40) + b"abc.",
    "a shape of many": HUNDRED_THOUSAND + TENSOR + b"(NK\x00h\x00h\x00tR.",
}  # fmt: skip


@pytest.mark.parametrize("name", PICKLES)
def test_a_torch_file_that_asks_for_too_much(tmp_path: Path, name: str) -> None:
    program = b"\x80\x04" + PICKLES[name]
    for path in (torch_by_hand.in_zip(tmp_path / "z.pth", program), tmp_path / "legacy.pth"):
        if path.name == "legacy.pth":
            path.write_bytes(program)
        with pytest.raises(UserError) as caught:
            TorchFile(path)
        assert str(caught.value).startswith(str(path))
        assert len(str(caught.value)) < 500


def test_a_tensor_without_a_place_for_its_numbers(tmp_path: Path) -> None:
    # One number, seen 2^40 times.
    program = torch_by_hand.program({"w": torch_by_hand.tensor("0", 1, (2**40,), (0,))})
    with pytest.raises(UserError, match="more numbers than its storage"):
        TorchFile(torch_by_hand.in_zip(tmp_path / "m.pth", program, **{"0": bytes(4)}))


def folder_of(path: Path, **config: Any) -> Path:
    """Write a Hugging Face folder whose weights are one small tensor."""
    path.mkdir(exist_ok=True)
    save_file({"w": np.ones((3, 4), np.float32)}, path / "model.safetensors")
    (path / "config.json").write_text(json.dumps(config))
    (path / "preprocessor_config.json").write_text("{}")
    return path


SIZE: dict[str, Any] = {
    **{"hidden_size": 16, "intermediate_size": 12, "num_hidden_layers": 2, "vocab_size": 30},
    **{"num_attention_heads": 2, "max_position_embeddings": 32},
}
VISION = {**SIZE, "image_size": 8, "patch_size": 2}
KINDS: dict[str, dict[str, Any]] = {
    "bert": {**SIZE, "layer_norm_eps": 1e-12, "type_vocab_size": 2},
    "llama": {**SIZE, "num_key_value_heads": 1, "rms_norm_eps": 1e-5, "rope_theta": 1e4},
    "clip_vision_model": {**VISION, "layer_norm_eps": 1e-5},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "value", [-1, 0, "12", 2**70, float("nan"), None, [1], True, 1e300, {"a": 1}], ids=repr
)
def test_every_number_of_a_configuration_has_a_range(tmp_path: Path, kind: str, value: Any) -> None:
    config = KINDS[kind]
    for name in config:
        folder = folder_of(tmp_path / "m", **{"model_type": kind, **config, name: value})
        with pytest.raises(UserError) as caught:
            load_pretrained(folder)
        said = str(caught.value)
        assert said.startswith(str(folder))
        # The tensors fit nothing: a default in the place of null may be said later.
        assert name in said or value is None or isinstance(value, dict)


@pytest.mark.parametrize("layers", [1_000_000, 2**70])
def test_layers_are_counted_before_they_are_named(tmp_path: Path, layers: int) -> None:
    for kind in ("qwen2", "bert"):
        folder = folder_of(tmp_path / "m", model_type=kind, **{**SIZE, "num_hidden_layers": layers})
        with pytest.raises(UserError, match=r"num_hidden_layers is .* from 1 to 2000"):
            load_pretrained(folder)
        size = {**SIZE, "num_hidden_layers": 2_000, "num_key_value_heads": 2}
        folder = folder_of(tmp_path / "m", model_type=kind, **size)
        with pytest.raises(UserError, match="says 2,000 layers, and there are 1 tensors"):
            load_pretrained(folder)


def test_classes_are_not_counted(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "m", model_type="bert", **SIZE, num_labels=10**12)
    with pytest.raises(UserError, match="2 layers, and there are 1 tensors"):
        load_pretrained(folder)


def test_5000_digits_in_any_json_are_a_sentence(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "m")
    digits = '{"model_type": "bert", "weight_map": {"w": ' + "9" * 5_000 + "}}"
    for name in ("config.json", "preprocessor_config.json", "model.safetensors.index.json"):
        before = folder_of(tmp_path / "m", model_type="siglip_vision_model", **VISION)
        (before / name).write_text(digits)
        with pytest.raises(UserError, match=name):
            load_pretrained(before)
        (before / name).unlink()
    header = b'{"w": {"dtype": "F32", "shape": [' + b"9" * 5_000 + b'], "data_offsets": [0, 4]}}'
    path = folder / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    with pytest.raises(UserError, match="no whole safetensors file"):
        open_source(path)


@pytest.mark.parametrize(
    "wrong",
    [
        {"image_std": [0, 1, 1]},
        {"image_std": [float("nan")] * 3},
        {"image_mean": [0.5]},
        {"image_mean": "red"},
        {"size": {"height": 10**9, "width": 1}},
        {"crop_size": -1},
    ],
    ids=repr,
)
def test_numbers_of_pictures_have_a_range(tmp_path: Path, wrong: dict[str, Any]) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(wrong))
    with pytest.raises(UserError, match=r"preprocessor_config\.json: "):
        read_pixels(tmp_path)


METADATA: dict[str, Any] = {
    **{"general.architecture": "llama", "llama.block_count": 2, "llama.embedding_length": 8},
    **{"llama.feed_forward_length": 8, "llama.attention.head_count": 2},
    **{"llama.attention.head_count_kv": 1, "llama.context_length": 16},
    **{"llama.attention.layer_norm_rms_epsilon": 1e-5, "llama.rope.freq_base": 1e4},
    **{"llama.attention.key_length": 4, "tokenizer.ggml.tokens": ["a"]},
}


@pytest.mark.parametrize("value", [-1, 0, "12", float("nan"), 2**63, [1]], ids=repr)
def test_every_number_of_a_gguf_file_has_a_range(value: Any) -> None:
    hf_of_gguf(METADATA)
    for name in METADATA:
        if name == "tokenizer.ggml.tokens" and isinstance(value, list):
            continue
        with pytest.raises(UserError):
            hf_of_gguf({**METADATA, name: value})
    for name in set(METADATA) - {"llama.rope.freq_base", "llama.attention.key_length"}:
        with pytest.raises(UserError):
            hf_of_gguf({key: each for key, each in METADATA.items() if key != name})


@pytest.mark.parametrize("kind", ["numbers", "texts", "lists", "keys"])
def test_a_gguf_file_with_a_long_list(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "m.gguf"
    size, keys = 24_000_000, 1
    inner, width = {"numbers": (0, 1), "texts": (8, 8), "lists": (9, 12), "keys": (0, 1)}[kind]
    body = text("long") + struct.pack("<IIQ", 9, inner, size // width) + bytes(size)
    if kind == "keys":
        keys = 100_000
        body = b"".join(text(f"{i:06}") + struct.pack("<IB", 0, 1) for i in range(keys))
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, keys) + body)
    if kind == "numbers":
        assert len(open_source(path).source.metadata["long"]) == size
        return
    with pytest.raises(UserError, match="longer than those of any model"):
        open_source(path)


def tokenizer_of(folder: Path, pattern: str) -> None:
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated"}
    model = {"type": "BPE", "vocab": {"a": 0, "!": 1}, "merges": []}
    whole = {"version": "1.0", "added_tokens": [], "model": model}
    whole["pre_tokenizer"] = {**split, "invert": False}
    (folder / "tokenizer.json").write_text(json.dumps(whole))


@pytest.mark.parametrize("pattern", ["(a+)+$", r"^(?:(a?)(?=\1))*$", "(", r"\g<0>"])
def test_a_regular_expression_that_panics_or_never_ends(tmp_path: Path, pattern: str) -> None:
    tokenizer_of(tmp_path, r"\p{L}+")
    assert load_tokenizer(tmp_path).encode("aa!a").ids == [0, 0, 1, 0]
    tokenizer_of(tmp_path, pattern)
    with pytest.raises(UserError, match=r"tokenizer\.json is no tokenizer \("):
        load_tokenizer(tmp_path)


FILES = (
    *("config.json", "model.safetensors", "model.safetensors.index.json"),
    *("preprocessor_config.json", "README.md", "tokenizer.json"),
)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "link out", "link to nothing"])
def test_only_plain_files_of_a_model_folder_are_opened(
    tmp_path: Path, name: str, kind: str
) -> None:
    folder = folder_of(tmp_path / "m", model_type="siglip_vision_model", **VISION)
    tokenizer_of(folder, "a")
    path = folder / name
    path.unlink(missing_ok=True)
    secret = tmp_path / "secret"
    secret.write_text("{}")
    {
        "pipe": lambda: os.mkfifo(path),
        "device": lambda: path.symlink_to("/dev/zero"),
        "folder": path.mkdir,
        "link out": lambda: path.symlink_to(secret),
        "link to nothing": lambda: path.symlink_to(tmp_path / "none"),
    }[kind]()
    read = {"tokenizer.json": load_tokenizer, "README.md": open_source}.get(name, load_pretrained)
    with pytest.raises(UserError) as caught:
        read(folder)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["preprocessor_config.json", "processor_config.json"])
def test_a_picture_processor_opens_plain_files(tmp_path: Path, name: str) -> None:
    folder = folder_of(tmp_path / "m")
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with pytest.raises(UserError, match=name):
        picture_processor(folder)


def test_no_code_of_a_stranger_makes_a_picture_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_of(tmp_path / "m")
    mapped = {"AutoImageProcessor": "evil.Evil"}
    (folder / "preprocessor_config.json").write_text(json.dumps({"auto_map": mapped}))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'it ran')!r}, 'w')")
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # to whoever asks
    with pytest.raises(UserError, match="does not make a processor"):
        picture_processor(folder)
    assert not (tmp_path / "it ran").exists()


def test_a_file_that_the_user_names_is_regular(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.pth")
    for path in (tmp_path / "m.pth", Path("/dev/zero")):
        with pytest.raises(UserError, match="no regular file"):
            open_source(path)
    save_file({"w": np.ones(2)}, tmp_path / "real.safetensors")
    (tmp_path / "link.safetensors").symlink_to("real.safetensors")
    assert open_source(tmp_path / "link.safetensors").source.names() == ["w"]


def test_links_within_the_cache_of_hugging_face_are_followed(tmp_path: Path) -> None:
    cache = tmp_path / "models--x--y"
    for name in ("blobs", "snapshots/1234"):
        (cache / name).mkdir(parents=True)
    snapshot = cache / "snapshots/1234"
    save_file({"w": np.ones(2)}, cache / "blobs/abc")
    (snapshot / "model.safetensors").symlink_to("../../blobs/abc")
    assert open_source(snapshot).source.names() == ["w"]
    (tmp_path / "here").symlink_to(snapshot)
    assert open_source(tmp_path / "here").source.names() == ["w"]
    # But not to what lies beside the blobs, or further away.
    (cache / "token").write_text("secret")
    for target in ("../../token", "../../../outside", "../../blobs"):
        (tmp_path / "outside").write_text("secret")
        (snapshot / "config.json").unlink(missing_ok=True)
        (snapshot / "config.json").symlink_to(target)
        with pytest.raises(UserError, match=r"config\.json"):
            member(snapshot, "config.json")


def test_names_lead_nowhere_else(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "x").write_text("secret")
    for name in ("../x", "..", ".", "", str(tmp_path / "x"), "a\0b"):
        with pytest.raises(UserError):
            member(tmp_path / "m", name)


@pytest.mark.parametrize("name", ["tokenizer.json", "preprocessor_config.json", "vocab.txt"])
def test_convert_copies_nothing_that_a_link_points_to(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from jmrec.convert import efficientnet
    from tests.unit.convert.test_convert_command import TINY

    monkeypatch.setitem(efficientnet.LITE, "tiny", TINY)
    folder = tmp_path / "m"
    folder.mkdir()
    save_file(weights(), folder / "model.safetensors")
    (tmp_path / "secret").write_text("secret")
    (folder / name).symlink_to(tmp_path / "secret")
    with pytest.raises(UserError, match=f"{name} leads out of its folder"):
        convert_to(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(UserError, match="no regular file"):
        convert_to(folder, tmp_path / "out")
    (folder / name).unlink()
    (folder / name).write_text("{}")
    assert convert_to(folder, tmp_path / "out")["files"] == ["params", name]
