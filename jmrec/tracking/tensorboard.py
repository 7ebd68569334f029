"""The mirror of a run as TensorBoard's event files."""

import importlib.util
import io
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jmrec.errors import UserError
from jmrec.tracking.mirror import Outcome

FOLDER = "tensorboard"
"""The folder of a workdir with the event files; each start adds one."""
FLUSH_SECONDS = 10


class EventFiles:
    """Curves as scalars ``STAGE/NAME``, results as text, examples as images; see `Writer`.

    TensorBoard's names have no spaces and signs: "session MRR@20" is "session_MRR_20" there.

    Args:
      workdir: The run's folder.

    Raises:
      UserError: The package tensorboardX is not installed.
    """

    title = "TensorBoard"
    patience = 60.0

    def __init__(self, workdir: Path) -> None:
        if importlib.util.find_spec("tensorboardX") is None:
            raise UserError(
                "tracking.tensorboard=true needs the package tensorboardX, which is not installed; "
                "pip install 'jmrec[tensorboard]' brings it."
            )
        self._folder = workdir / FOLDER
        self._writer: Any = None

    def begin(self) -> None:
        """Begin a file of events."""
        from tensorboardX import SummaryWriter  # a second, and not needed where it is off

        self._writer = SummaryWriter(
            str(self._folder), flush_secs=FLUSH_SECONDS,
            filename_suffix=f".{time.time_ns()}",  # else two starts in a second share a file
        )  # fmt: skip

    def log(self, stage: str, step: int, values: Mapping[str, Any]) -> None:
        """Draw one line's numbers."""
        for name, value in values.items():
            if isinstance(value, bool | int | float):
                tag = f"{stage}/{name}" if stage else name
                self._writer.add_scalar(tag, float(value), step)

    def conclude(self, outcome: Outcome) -> None:
        """Add the figures, the table, where the report lies, and the examples."""
        import numpy as np
        from PIL import Image

        for name, value in outcome.summary.items():
            if isinstance(value, int | float):
                self._writer.add_scalar(f"{outcome.split}/{name}", float(value), 0)
        self._writer.add_text(f"{outcome.split}/results", markdown(outcome), 0)
        self._writer.add_text(f"{outcome.split}/report", str(outcome.report), 0)
        for number, card in enumerate(outcome.cards, 1):
            tag = f"{outcome.split}/example {number}"
            self._writer.add_text(tag, card.caption, 0)
            if card.picture:
                pixels = np.asarray(Image.open(io.BytesIO(card.picture)).convert("RGB"))
                self._writer.add_image(tag, pixels, 0, dataformats="HWC")

    def end(self) -> None:
        """Write what is left."""
        self._writer.close()


def markdown(outcome: Outcome) -> str:
    """Return the results table in Markdown.

    Example:
      >>> print(markdown(Outcome("test", {}, ["row", "MRR@20"], [["a|b", 0.5]], Path("r.html"))))
      | row | MRR@20 |
      |---|---|
      | a\\|b | 0.5 |
    """
    lines = [outcome.columns, *outcome.rows]
    text = ["| " + " | ".join(_cell(each) for each in line) + " |" for line in lines]
    return "\n".join([text[0], "|" + "---|" * len(outcome.columns), *text[1:]])


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return " ".join(text.split()).replace("|", "\\|")
