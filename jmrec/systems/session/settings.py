"""What the settings of the system "session" mean, what they may be, and what goes together."""

from jmrec.config import ConfigDict
from jmrec.config.settings import Maybe, Read, Setting, Settings, Text, Whole, Word, under
from jmrec.systems.session.features import GIVEN, PARTS_OF_RUN
from jmrec.systems.settings import (
    RUN,
    SESSIONS,
    STUDENTS,
    Checks,
    check_data,
    check_students,
)

RULES = "rules"
"""The one teacher that there is."""


def read_parts(text: str) -> list[str]:
    """Return the features of a run that a name such as "k+t" lists.

    Raises:
      ValueError: One of them does not exist, or stands there twice.

    Example:
      >>> read_parts("k+t")
      ['k', 't']
    """
    parts = text.split("+")
    if not {*parts} <= {*PARTS_OF_RUN} or len({*parts}) < len(parts):
        raise ValueError(text)
    return parts


SETTINGS: Settings = {
    **RUN,
    **under("data", SESSIONS),
    "features.from": Setting(Maybe(Text()), "The run, or the folder, that holds item features."),
    "features.name": Setting(
        Read(f"one or more of {', '.join(PARTS_OF_RUN)}, joined by +", read_parts),
        "Which of a run's they are.",
    ),
    "features.width": Setting(Whole(0, 2**20), "How wide they are; only jmrec plan asks."),
    **STUDENTS,
    "students.*.features": Setting(Word(("none", GIVEN)), "Which features it reads."),
    "students.*.teacher": Setting(Word((RULES,)), "Whom it follows."),
}  # fmt: skip
"""Every setting of experiments/session.py."""


def check(config: ConfigDict) -> None:
    """Check that the settings go together.

    Raises:
      UserError: They do not; with the setting's name.
    """
    check_data(config.data)
    check_students(config)


SESSION = Checks(SETTINGS, check)
