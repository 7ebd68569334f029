"""The cases of the attack: damages, hostile models, artefacts, policies and settings."""

import json
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
from attack_bench import MARK, ROOT, Bench, Case

# ---------------------------------------------------------------- damages


def damages(bench: Bench, path: Path, other: Path | None) -> Iterator[tuple[str, bytes | None]]:
    """Yield ways to damage a file: a name and the new bytes, None to take it away."""
    data, rng = path.read_bytes(), bench.rng
    yield "gone", None
    yield "empty", b""
    yield "half", data[: len(data) // 2]
    if data:
        place = rng.randrange(len(data))
        yield f"bit at {place}", data[:place] + bytes([data[place] ^ 16]) + data[place + 1 :]
    yield "noise", rng.randbytes(200)
    if other is not None and other.is_file() and other.read_bytes() != data:
        yield "another run's", other.read_bytes()
    if path.suffix == ".json":
        try:
            whole = json.loads(data)
        except ValueError:
            return
        for kind, value in _changed(whole, rng):
            yield kind, (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()


EVIL: list[Any] = [
    None, -1, 0, 2**70, float("nan"), "evil.Evil", "../../etc/passwd", [], {}, True, "x\x1b[2J",
]  # fmt: skip


def _changed(whole: Any, rng: random.Random) -> Iterator[tuple[str, Any]]:
    """Yield copies of a JSON value with one leaf changed."""
    leaves = list(_leaves(whole))
    for at in rng.sample(leaves, min(len(leaves), 2)):
        value = rng.choice(EVIL)
        copy = json.loads(json.dumps(whole))
        branch = copy
        for each in at[:-1]:
            branch = branch[each]
        if not at or branch[at[-1]] == value:
            continue
        if isinstance(branch[at[-1]], bool):
            value = not branch[at[-1]]
        branch[at[-1]] = value
        yield f"{'.'.join(map(str, at))}={value!r}"[:80], copy


def _leaves(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    pairs = (
        value.items() if isinstance(value, dict)
        else enumerate(value) if isinstance(value, list) else ()
    )  # fmt: skip
    found = False
    for name, each in pairs:
        found = True
        yield from _leaves(each, (*at, name))
    if not found and at:
        yield at


SHOWN = {"config.json", "stage.json", "metrics.json", "results.json", "cost.json"}
"""Files that `jmrec inspect` prints."""


def damage_cases(bench: Bench, whole: bool) -> Iterator[Case]:
    """Yield damages of every file of the run and of the artefacts."""
    serve, rule = bench.folder / "serve", bench.folder / "rule"
    session = ["--items", "1,2,3", "--json"]
    ids = json.loads((serve / "items.json").read_text())["ids"]
    session[1] = ",".join(ids[:2] + ids[-1:])
    answers = {
        bench.run: [
            ["recommend", "--workdir", str(bench.run), *session],
            ["inspect", str(bench.run), "--json"],
        ],
        serve: [["recommend", "--serve", str(serve), *session]],
        rule: [["recommend", "--serve", str(rule), *session]],
    }
    for top, commands in answers.items():
        for words in commands:
            bench.base(words)
        files = [p for p in sorted(top.rglob("*")) if p.is_file() and p.suffix != ".py"]
        files = [p for p in files if "checkpoints" not in p.parts or p.name.startswith("_")]
        for path in files:
            relative = path.relative_to(top)
            other = bench.folder / "other" / relative if top == bench.run else None
            kinds = list(damages(bench, path, other))
            for kind, data in kinds if whole else bench.rng.sample(kinds, 1):
                words = commands[0]
                if len(commands) > 1 and bench.rng.random() < 0.3:
                    words = commands[1]
                good, cost = bench.base(words)
                yield Case(
                    f"{words[0]}: {top.name}/{relative} {kind}", words, good, cost,
                    *_swapped(path, data),
                    # It prints what stands in these: a changed number is a number shown.
                    shows=words[0] == "inspect" and path.name in SHOWN,
                )  # fmt: skip


def _swapped(path: Path, data: bytes | None) -> tuple[Callable[[], None], Callable[[], None]]:
    """Return how to put other bytes in a file's place, and how to undo it."""
    aside = path.with_name(path.name + ".aside")
    store = Path(tempfile.gettempdir()) / f"jmrec-attack-{os.getpid()}"

    def prepare() -> None:
        shutil.copy2(path, store)
        if data is None:
            path.unlink()
        else:
            path.write_bytes(data)

    def restore() -> None:
        shutil.copy2(store, path)
        aside.unlink(missing_ok=True)

    return prepare, restore


# ---------------------------------------------------------------- hostile files


def llama(folder: Path, **more: Any) -> Path:
    """Write a tiny Llama as Hugging Face has it."""
    import numpy as np
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 300,
        "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4, "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0, "max_position_embeddings": 128, "hidden_act": "silu",
        "tie_word_embeddings": False, "attention_bias": False, "mlp_bias": False,
    }  # fmt: skip
    shapes = {"model.embed_tokens": (300, 8), "model.norm": (8,), "lm_head": (300, 8)}
    for layer in range(2):
        at = f"model.layers.{layer}"
        shapes |= {
            f"{at}.self_attn.q_proj": (8, 8), f"{at}.self_attn.k_proj": (4, 8),
            f"{at}.self_attn.v_proj": (4, 8), f"{at}.self_attn.o_proj": (8, 8),
            f"{at}.mlp.gate_proj": (12, 8), f"{at}.mlp.up_proj": (12, 8),
            f"{at}.mlp.down_proj": (8, 12), f"{at}.input_layernorm": (8,),
            f"{at}.post_attention_layernorm": (8,),
        }  # fmt: skip
    rng = np.random.default_rng(0)
    tensors = {f"{k}.weight": rng.normal(size=s).astype(np.float32) for k, s in shapes.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps({**config, **more}))
    return folder


NUMBERS: list[Any] = [-1, 0, 2**70, 10**6, "x", None, float("nan"), [], {}, True, 1e308, "9" * 5000]


def model_cases(bench: Bench, count: int) -> Iterator[Case]:
    """Yield foreign model files and folders that are wrong in one way."""
    top = bench.folder / "models"
    whole = llama(top / "whole")
    words = ["convert", str(whole), "--out", str(top / "out")]
    shutil.rmtree(top / "out", ignore_errors=True)
    answer = bench.worker.ask(words, 600)
    assert answer.code == 0, answer.err
    cost = answer.seconds
    config = json.loads((whole / "config.json").read_text())
    makers: list[tuple[str, Callable[[Path], Path]]] = []
    for name in (
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "head_dim",
        "num_attention_heads", "num_key_value_heads", "rms_norm_eps", "rope_theta",
    ):  # fmt: skip
        makers += [
            (f"config {name}={str(value)[:12]!r}", _config_maker(name, value))
            for value in NUMBERS
            if value != config[name]
        ]
    makers += [(f"safetensors {n}", _bytes_maker(n)) for n in range(25)]
    makers += [(f"torch {name}", _torch_maker(program)) for name, program in torch_programs()]
    makers += [(f"link {kind}", _link_maker(kind)) for kind in ("fifo", "device", "out", "index")]
    makers += [(f"tokenizer {n}", _tokenizer_maker(n)) for n in range(4)]
    bench.rng.shuffle(makers)
    for number, (name, maker) in enumerate(makers[:count] if count < len(makers) else makers):
        source = maker(top / f"case-{number}")
        out = top / f"out-{number}"
        # What the tensors leave open (a rope base, an epsilon, blanks of a header) may be accepted.
        yield Case(
            f"convert: {name}", ["convert", str(source), "--out", str(out)], None, cost,
            part="llama, 5,800 parameters",
            restore=lambda source=source, out=out: _remove(source, out),  # type: ignore[misc]
        )  # fmt: skip


def _remove(*paths: Path) -> None:
    for path in paths:
        shutil.rmtree(path, ignore_errors=True)
        path.unlink(missing_ok=True)


def _config_maker(name: str, value: Any) -> Callable[[Path], Path]:
    return lambda folder: llama(folder, **{name: value})


def _bytes_maker(number: int) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        rng = random.Random(number)
        path = llama(folder) / "model.safetensors"
        data = bytearray(path.read_bytes())
        kind = number % 5
        if kind == 0:
            data[:8] = rng.choice([2**63, len(data), 0, 10**9]).to_bytes(8, "little")
        elif kind == 1:
            data = data[: rng.randrange(len(data))]
        elif kind == 2:
            end = 8 + int.from_bytes(data[:8], "little")
            data[rng.randrange(8, end)] = rng.randrange(256)
        elif kind == 3:
            header = b'{"a":{"dtype":"F32","shape":[%d],"data_offsets":[0,4]}}' % 2**60
            data = bytearray(len(header).to_bytes(8, "little") + header + b"\0" * 4)
        else:
            header = b'{"a":' * 2000 + b"1" + b"}" * 2000
            data = bytearray(len(header).to_bytes(8, "little") + header)
        path.write_bytes(bytes(data))
        return folder

    return make


def torch_programs() -> list[tuple[str, bytes]]:
    """Return pickles as a file of torch.save may hold them."""
    call = b"(S'echo ran > " + b"$" + MARK.encode() + b"'\ntR."
    nested = b"\x80\x02" + b"(" * 50_000 + b"t" * 50_000 + b"."
    keys = b"\x80\x02}" + b"K\x01" + b"\x85" * 100_000 + b"K\x01s."
    return [
        ("os.system", b"cos\nsystem\n" + call),
        ("builtins.eval", b"cbuiltins\neval\n(S'1'\ntR."),
        ("a module that lies there", b"cevil\nEvil\n(tR."),
        ("nested tuples", nested),
        ("tuples as keys", keys),
        ("shared tuples", b"\x80\x02)" + b"2\x86" * 60 + b"."),
        (
            "a long integer",
            b"\x80\x02\x8b" + (2**20).to_bytes(4, "little") + b"\x7f" * 2**20 + b".",
        ),
        ("no end", b"\x80\x02}"),
        ("a number", b"\x80\x02K\x01."),
        ("put far away", b"\x80\x02}r\xff\xff\xff\x7f."),
    ]


def _torch_maker(program: bytes) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        import zipfile

        path = path.with_suffix(".pt")
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("archive/data.pkl", program)
            file.writestr("archive/version", "3\n")
        return path

    return make


def _link_maker(kind: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = llama(folder) / "model.safetensors"
        if kind == "index":
            index = {"metadata": {}, "weight_map": {"lm_head.weight": "../whole/model.safetensors"}}
            (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        path.unlink()
        if kind == "fifo":
            os.mkfifo(path)
        elif kind == "device":
            path.symlink_to("/dev/zero")
        elif kind == "out":
            path.symlink_to("/etc/passwd")
        return folder

    return make


def _tokenizer_maker(number: int) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        llama(folder)
        split = {
            "type": "Split",
            "pattern": {"Regex": "("},
            "behavior": "Isolated",
            "invert": False,
        }
        vocab = {"[UNK]": 0, "a": 1}
        whole: dict[str, Any] = {
            "version": "1.0", "truncation": None, "padding": None, "added_tokens": [],
            "normalizer": None, "pre_tokenizer": None, "post_processor": None, "decoder": None,
            "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]"},
        }  # fmt: skip
        if number == 0:
            whole["pre_tokenizer"] = split
        elif number == 1:
            whole["model"] = {"type": "BPE", "vocab": vocab, "merges": [["a", "b"]]}
        elif number == 2:
            whole["added_tokens"] = [{"id": 2**63, "content": "x"}]
        else:
            whole["model"] = {"type": "Unigram", "vocab": [], "unk_id": 10**9}
        (folder / "tokenizer.json").write_text(json.dumps(whole))
        return folder

    return make


def artefact_cases(bench: Bench, count: int) -> Iterator[Case]:
    """Yield artefacts that were changed and sealed anew, and policy files."""
    from jmrec.files import write_manifest

    serve, top = bench.folder / "serve", bench.folder / "artefacts"
    ids = json.loads((serve / "items.json").read_text())["ids"]
    session = ["--items", ",".join(ids[:2]), "--json"]
    policies = [
        b"allow = 1", b"allow = [1, 2]", b"block = ['nobody']", b"pin = [[]]", b"\xff\xfe", b"a = ",
        b"allow = ['a'", b"[allow]\nx = 1", b"pin = ['" + b"9" * 6000 + b"']", b"block = 1e400",
        b"allow = []\nallow = []", b"x = " + b"[" * 5000, b"n = " + b"9" * 5000, b"\0" * 10,
        b"allow = ['\\u001b[2J']",
    ]  # fmt: skip
    cases: list[tuple[str, Callable[[Path], list[str]]]] = []
    for number, text in enumerate(policies):

        def policy(folder: Path, text: bytes = text) -> list[str]:
            path = folder.with_suffix(".toml")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text)
            return ["recommend", "--serve", str(serve), *session, "--policy", str(path)]

        cases.append((f"policy {number}", policy))
    items = json.loads((serve / "items.json").read_text())
    changed: list[tuple[Path, str, str, Any]] = []
    for source in (serve, bench.folder / "rule"):
        facts = json.loads((source / "serve.json").read_text())
        leaves = [at for at in _leaves(facts) if at[0] not in ("provenance", "student")]
        for at in leaves:
            for value in bench.rng.sample(EVIL, 3):
                what = ".".join(map(str, at))
                changed.append((source, "serve.json", what, _with(facts, at, value)))
    for name, wrong in (
        ("ids", ids[:-1]), ("ids", [None, *ids[1:]]), ("ids", [ids[1], *ids[1:]]), ("ids", {}),
        ("titles", items["titles"][1:]), ("titles", [None, *items["titles"][1:]]), ("titles", "x"),
        ("available_from", [1.0]), ("available_until", ["soon"] * len(ids)),
    ):  # fmt: skip
        wrong_items = {**items, name: wrong}
        changed.append((serve, "items.json", f"{name} {str(wrong)[:20]}", wrong_items))
    bench.rng.shuffle(changed)
    for source, file, what, value in changed:

        def artefact(
            folder: Path, source: Path = source, file: str = file, value: Any = value
        ) -> list[str]:
            shutil.copytree(source, folder)
            (folder / file).write_text(json.dumps(value))
            (folder / "checksums.json").unlink()
            write_manifest(folder)
            return ["recommend", "--serve", str(folder), *session]

        cases.append((f"{source.name}: {file} {what}", artefact))
    for number, (name, maker) in enumerate(cases[:count]):
        words = maker(top / f"case-{number}")
        own = bench.folder / "rule" if name.startswith("rule:") else serve
        good, cost = bench.base(["recommend", "--serve", str(own), *session])
        yield Case(name, words, good, cost, restore=lambda: _remove(top))


def _with(whole: Any, at: tuple[Any, ...], value: Any) -> Any:
    copy = json.loads(json.dumps(whole))
    branch = copy
    for each in at[:-1]:
        branch = branch[each]
    branch[at[-1]] = value
    return copy


def config_cases(bench: Bench, count: int) -> Iterator[Case]:
    """Yield settings that make no sense, or that are no settings."""
    values = {
        "student.stack.width": ["0", "-8", "7", "x", "1e9", "none"],
        "student.stack.heads": ["0", "3", "-1"],
        "student.train.steps": ["-1", "x", "1e400"],
        "student.train.batch_size": ["0", "-4", "2.5"],
        "student.train.learning_rate": ["nan", "-1", "x"],
        "data.fractions": ["(1,)", "(0.8,0.1,0.2)", "(nan,0,1)", "x"],
        "data.window": ["0", "-1", "x"],
        "evaluate.split": ["train", "7"],
        "evaluate.serve": ["nobody"],
        "rules": ["x"],
        "seeds": ["()", "(0,0)", "x"],
        "seed": ["x", "1.5"],
        "student.distill": ["x", "kl2"],
        "student.train.warmup": ["-1"],
        "data.back": ["-1", "99"],
        "student.options": ["x"],
        "no_such": ["1"],
        "system": ["x"],
    }
    every = [(name, value) for name, each in values.items() for value in each]
    bench.rng.shuffle(every)
    config = ["--config", f"{ROOT / 'experiments' / 'session.py'}:size=tiny"]
    for number, (name, value) in enumerate(every[:count]):
        out = bench.folder / f"config-{number}"
        words = ["run", *config, f"--config.{name}={value}", "--workdir", str(out)]
        yield Case(f"config {name}={value}", words, None, 5.0, restore=lambda out=out: _remove(out))  # type: ignore[misc]
