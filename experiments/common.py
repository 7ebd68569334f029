"""What experiments share: sizes, training runs, data, session students. No experiment by itself."""

from collections.abc import Mapping, Sequence
from typing import Any

from jmrec.config import ConfigDict, choose, flatten, placeholder, sweep, zipit

SIZES = ("tiny", "small", "base")
"""Tests (a minute or two on a laptop), a CPU, a GPU."""


def stack(width: int, layers: int, heads: int, kv_heads: int, mlp: int) -> ConfigDict:
    """Return the size of one stack of transformer blocks."""
    return ConfigDict(
        {"width": width, "layers": layers, "heads": heads, "kv_heads": kv_heads, "mlp": mlp,
         "remat": "none", "dtype": "float32"}
    )  # fmt: skip


def training(
    steps: int, batch_size: int, learning_rate: float, evaluate: int, patience: int = 0
) -> ConfigDict:
    """Return the settings of one training run; ``evaluate`` is also the interval of saves.

    With ``patience`` nobody knows where it ends, so that the learning rate does not fall.
    """
    return ConfigDict(
        {
            "steps": steps,
            "batch_size": batch_size,
            "accumulate": 1,
            "updates_per_call": 1,
            "learning_rate": learning_rate,
            "eval_every": evaluate,
            "save_every": evaluate,
            "patience": patience,
            "warmup": min(100, steps // 10),
            "schedule": "constant" if patience else "cosine",
            "weight_decay": 0.01,
            "muon": 0.0,
            "clip": 1.0,
            "average": 0,
        }
    )


def track_settings() -> dict[str, Any]:
    """Return where metrics go besides metrics.jsonl: nowhere, unless one of these says so."""
    named = {"name": placeholder(str), "group": placeholder(str), "tags": ()}
    return {
        "wandb": {"mode": "disabled", "project": "jmrec", **named},
        "tracking": {"tensorboard": False, "log": False},
    }


def run_settings(system: str, size: str) -> ConfigDict:
    """Return the settings that every experiment begins with.

    Args:
      system: Its name.
      size: One of `SIZES`: the small ones of tests have one seed.
    """
    return ConfigDict(
        {
            "system": system,
            "seed": 0,
            "seeds": (0,) if size == "tiny" else (0, 1, 2),
            "rules": "dp",
            # Whether a GPU computes the same bits each time, slower; a CPU does so anyway.
            "deterministic": False,
            **track_settings(),
        }
    )


def session_data(source: str, size: str) -> ConfigDict:
    """Return the data of an experiment on sessions.

    Args:
      source: "toyshop", the shop that jmrec draws itself, or "folder".
      size: One of `SIZES`.
    """
    toyshop = is_toyshop(source)
    return ConfigDict(
        {
            "source": source,
            "dir": placeholder(str),
            "toml": placeholder(str),
            "fractions": (0.8, 0.1, 0.1),
            "back": 0,
            # Of a long session so many items are read.
            "window": 12 if toyshop else 50,
            "toyshop": {
                "seed": 0,
                "n_items": 400 if size == "tiny" else 2000,
                "sessions": 1500 if size == "tiny" else 20_000,
            },
        }
    )


def is_toyshop(source: str) -> bool:
    """Tell which of the two kinds of data is wanted."""
    return bool(choose("data", source, {"toyshop": True, "folder": False}))


def session_context() -> ConfigDict:
    """Return what is read of a session beside its items.

    Whoever asks a student that reads time gaps has to say when each item was clicked.
    """
    return ConfigDict({"gap": False, "event": True})


def constant(*terms: str) -> ConfigDict:
    """Return schedules of loss terms that change nothing over a run.

    A schedule is a table of jmrec.losses.schedules, such as {"name": "linear", "steps": 100}.
    """
    return ConfigDict({name: {"name": "constant"} for name in terms})


def session_student(source: str, size: str) -> ConfigDict:
    """Return what all session students of an experiment share.

    Args:
      source: "toyshop" or "folder".
      size: One of `SIZES`.
    """
    toyshop, pick = is_toyshop(source), SIZES.index(size)
    student = ConfigDict()
    # Which of jmrec.models.sessions reads sessions; options are the fields that only it has.
    student.encoder = "student"
    student.options = ConfigDict()
    student.stack = (
        stack(64, 1, 2, 2, 128),
        stack(64, 2 if toyshop else 1, 2, 2, 128),
        stack(128, 2, 4, 4, 256),
    )[pick]
    student.train = (
        training(200, 128, 1e-2 if toyshop else 2e-3, 50),
        training(400, 128, 1e-2, 100) if toyshop else training(20_000, 8, 5e-3, 250, patience=5),
        training(6000, 512, 1e-3, 300),
    )[pick]
    # Seeds trained at once in one program; 0 is all on an accelerator, one by one on a CPU.
    student.train.population = 0
    if toyshop and size != "base":
        student.train.weight_decay = 1.0
    # The next-item loss, of jmrec.losses.NEXT_ITEM, and how many items it samples where it does.
    student.loss = "full_softmax"
    student.negatives = 128
    # How it follows its teacher: kl, topk_kl, topk_reverse_kl, topk_jensen_shannon, topk_skew_kl.
    student.distill = "kl"
    # How many items the topk_ ones follow one by one.
    student.top = 100
    student.schedules = constant("next_item", "teacher")
    student.hparams = ConfigDict({"dropout": 0.2, "id_dropout": 0.5, "teacher_temperature": 1.0})
    if size == "small" and not toyshop:
        # So many updates see a session some fifty times: half of what is read is hidden.
        student.train.weight_decay, student.hparams.dropout = 0.1, 0.5
        # At one rate the last updates go to and fro around what they are after.
        student.train.average = 200
    return student


def id_only(source: str, size: str, variant: Mapping[str, Any]) -> ConfigDict:
    """Return a student that reads ids alone: ``variant`` with what suits one.

    Without features there is nothing to fall back on where an id is dropped.
    """
    own = ConfigDict({**variant, "features": "none", "ids": True, "hparams": {"id_dropout": 0.0}})
    if is_toyshop(source) and size != "base":
        own.train = ConfigDict({"weight_decay": 0.1})
    return own


PUBLISHED: dict[str, dict[str, float]] = {
    "gru4rec": {"dropout": 0.3},
    "narm": {"dropout": 0.5},
    "stamp": {"dropout": 0.0},
    "srgnn": {"dropout": 0.0},
    "bert4rec": {"dropout": 0.2},
    "core": {"dropout": 0.2},
    "caser": {"dropout": 0.4},
    "sasrec": {"dropout": 0.5},
    "hstu": {"dropout": 0.2},
    "ligr": {"dropout": 0.2},
}
"""Session encoder -> its own hparams: those of RecBole's model of that name; of HSTU what its
authors use on MovieLens, of LiGR what RecTools' transformers have. Further rates and CORE's
temperature (0.07) are fields of an encoder's config. An encoder that is not here has what
`session_student` says."""


def published(encoder: str, variant: Mapping[str, Any]) -> ConfigDict:
    """Return a student with the published settings of its encoder, where there are some."""
    own = ConfigDict(variant)
    if encoder in PUBLISHED:
        own.hparams = ConfigDict({**own.get("hparams", {}), **PUBLISHED[encoder]})
    return own


def sweep_students(config: ConfigDict, name: str, values: Sequence[Any]) -> list[dict[str, Any]]:
    """Return one trial for each value of a setting of all students, such as "encoder".

    A student that has a value of its own (students.NAME.SETTING) reads that one; so the trial sets
    it there too.
    """
    flat = flatten(config)
    own = [f"students.{student}.{name}" for student in config.students]
    own = [each for each in own if each in flat]
    everybody = [] if len(own) == len(config.students) else [f"student.{name}"]
    return zipit(*(sweep(each, values) for each in everybody + own))


def as_in_papers(config: ConfigDict, size: str) -> None:
    """Change an experiment on sessions to how papers on session encoders train and judge.

    What differs from jmrec's own protocol is here, and nothing else does:

    * Validation is the last 10 % of the sessions that are not of a benchmark's own test split
      (where the data gives none, the newest 10 % are test).
    * Of a validation and a test session the last item alone is predicted. So HR@20 is the P@20 of
      papers, and every choice (the best update, the settings of rules, the served row) is made by
      MRR@20 of the last item.
    * Training goes on until ten evaluations, of about an epoch each, bring no better one: Adam
      without weight decay, at one learning rate. Here alone the average of about the last half
      epoch's parameters is judged and kept (student.train.average=0: the last ones, as there).

    Whether items of the session stay candidates is said by dataset.toml in both. Papers cut each
    training session into all its beginnings; here every position of a session has a loss, which is
    the same set of pairs, read once.

    Args:
      config: Of the experiment; it is changed.
      size: One of `SIZES`.
    """
    config.data.fractions = (0.81, 0.09, 0.1)
    config.data.targets = "last"
    config.student.train = (
        training(200, 32, 1e-2, 25, patience=3),
        training(60_000, 4, 1e-3, 800, patience=10),
        training(20_000, 64, 1e-3, 100, patience=10),
    )[SIZES.index(size)]
    config.student.train.weight_decay, config.student.train.population = 0.0, 0
    config.student.train.average = config.student.train.eval_every // 2
    for student in config.students.values():
        if "train" in student:
            del student["train"]


def evaluation(source: str, student: str) -> ConfigDict:
    """Return how an experiment on sessions is evaluated.

    The score offset of cold items may cost warm targets the share ``warm_loss`` of their MRR@20.
    The rule EASE holds weights of the ``ease_items`` most frequent items: N take 12 N^2 bytes, and
    its time grows with N^3.

    Args:
      source: "toyshop" or "folder". Of your own data the row is served that is best on validation,
        a student or a rule.
      student: The student that is served of ToyShop.
    """
    serve = student if is_toyshop(source) else "best"
    return ConfigDict({"split": "test", "serve": serve, "warm_loss": 0.1, "ease_items": 20_000})
