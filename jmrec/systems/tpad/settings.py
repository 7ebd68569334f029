"""What the settings of the system "tpad" mean, what they may be, and what goes together."""

import re

from jmrec.config import ConfigDict
from jmrec.config.settings import (
    Each,
    Flag,
    Read,
    Setting,
    Settings,
    Whole,
    Word,
    under,
)
from jmrec.models.readers.vision import VisionConfig
from jmrec.systems.readers.table import PRETRAINED, READERS, reader_name
from jmrec.systems.settings import (
    BACKBONE,
    DISTORTION,
    RATE,
    READ_ITEMS,
    RUN,
    SCHEDULE,
    SESSIONS,
    SHARE,
    STACK,
    STUDENTS,
    TEMPERATURE,
    TRAIN,
    WEIGHT,
    WIDTH,
    Checks,
    check_data,
    check_schedules,
    check_stack,
    check_students,
    check_train,
    named,
)
from jmrec.systems.tpad.features import NAMES
from jmrec.tasks.distill import LOWER, TERMS, UPPER

PROMPTS = ("items", "tokens")
"""What the Transfer tower reads of an item: one soft token, or all its picture and text tokens."""


def _target(text: str) -> re.Pattern[str]:
    """Return the regular expression of a target, which may say first which layers it is of."""
    return re.compile(re.sub(r"^layers\[[^]]*\]/", "", text))


VISION: Settings = {
    **under("train", TRAIN),
    **under("hparams", DISTORTION),
}
KNOWLEDGE: Settings = {
    "vision.patch": Setting(Whole(4, 512), "Pixels a side of a patch, a multiple of 4."),
    "vision.merge": Setting(Whole(1, 64), "Patches a side that become one picture token."),
    **under("vision.stack", STACK),
    **under("stack", STACK),
    "soft": Setting(Whole(1, 1024), "Soft tokens that carry an item into the language head."),
    "width": Setting(WIDTH, "Of the heads on frozen features."),
    "lora.rank": Setting(Whole(0, 4096), "Rank of a backbone's updates; 0 has none."),
    "lora.alpha": Setting(WEIGHT, "Their scale is alpha / rank."),
    "lora.targets": Setting(
        Each(Read("a regular expression", _target), least=1), "Which matrices are updated."
    ),
    **under("train", TRAIN),
    "hparams.dropout": Setting(RATE, "The share of each layer that is dropped in training."),
    "hparams.generation": Setting(WEIGHT, "The weight of writing the hidden texts."),
    "hparams.rewrite": Setting(WEIGHT, "Of that, the weight of the texts that were shown."),
    "hparams.contrast": Setting(WEIGHT, "The weight of telling items apart."),
    "hparams.temperature": Setting(TEMPERATURE, "Of that contrast."),
    "hparams.hide_text": Setting(SHARE, "The share of text fields that are hidden in training."),
    "hparams.hide_picture": Setting(SHARE, "The share of pictures that are hidden in training."),
    "hparams.hide_tokens": Setting(SHARE, "The share of tokens that are hidden in training."),
    "hparams.rebuild": Setting(WEIGHT, "The weight of giving frozen features back."),
    **under("hparams", DISTORTION),
}
TRANSITION: Settings = {
    "prompt": Setting(Word(PROMPTS), "What the Transfer tower reads of an item."),
    **under("stack", STACK),
    "out": Setting(WIDTH, "Width of its states."),
    **under("train", TRAIN),
    "hparams.dropout": Setting(RATE, "The share of each layer that is dropped in training."),
    "hparams.temperature": Setting(TEMPERATURE, "Of its softmax over the items."),
}
DISTILL: Settings = {
    "k": Setting(WIDTH, "Width of the head k, what an item is."),
    "t": Setting(WIDTH, "Width of the head t, what it leads to."),
    "critic": Setting(WIDTH, "Width in which heads and states are compared."),
    "lower": Setting(Word(tuple(LOWER)), "The bound on information that is raised."),
    "upper": Setting(Word(UPPER), "What keeps k and t apart."),
    **under("train", TRAIN),
    **under("schedules", SCHEDULE),
    "hparams.next": Setting(WEIGHT, "The weight of t with the state that comes next."),
    "hparams.last": Setting(WEIGHT, "The weight of k with the state of the item itself."),
    "hparams.disentangle": Setting(WEIGHT, "The weight of keeping k and t apart."),
    "hparams.rebuild": Setting(WEIGHT, "The weight of giving e back from both."),
}
SETTINGS: Settings = {
    **RUN,
    **under("data", {
        **SESSIONS,
        **READ_ITEMS,
        "facts": Setting(Flag(), "Whether declared numbers and categories are read as text."),
    }),
    **under("vision", VISION),
    **under("knowledge", KNOWLEDGE),
    **under("backbone", {
        **BACKBONE,
        "mode": Setting(Word(tuple(READERS)), "How items are read, see jmrec.systems.readers."),
    }),
    **under("transition", TRANSITION),
    **under("distill", DISTILL),
    **STUDENTS,
    "students.*.features": Setting(Word(("none", *NAMES)), "Which features it reads."),
    "students.*.teacher": Setting(Word(("transfer", "rules")), "Whom it follows."),
}  # fmt: skip
"""Every setting of experiments/tpad.py."""


def check(config: ConfigDict) -> None:
    """Check that the settings go together.

    Raises:
      UserError: They do not; with the setting's name.
    """
    check_data(config.data)
    mode, knowledge = reader_name(config), config.knowledge
    size = check_stack("knowledge.vision.stack", knowledge.vision.stack)
    if mode not in PRETRAINED:
        with named("knowledge.vision"):
            VisionConfig(
                config.data.picture_size, knowledge.vision.patch, knowledge.vision.merge, size
            )
    check_stack("knowledge.stack", knowledge.stack)
    check_stack("transition.stack", config.transition.stack)
    contrasts = mode == "frozen" or knowledge.hparams.contrast > 0
    check_train("vision.train", config.vision.train)
    check_train("knowledge.train", knowledge.train, couples=contrasts)
    check_train("transition.train", config.transition.train)
    check_train("distill.train", config.distill.train, couples=True)
    check_schedules("distill.schedules", config.distill.schedules, TERMS)
    check_students(config)


TPAD = Checks(SETTINGS, check)
