"""The contract of an item reader."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from jmrec.data.schema import Items
from jmrec.models.sessions.transfer import ItemTokens
from jmrec.systems.readers.blocks import Blocks
from jmrec.systems.stages import Stage
from jmrec.types import Params


class ItemReader(Protocol):
    """Reads items: turns their text and picture into features e.

    A system holds one. How it is trained is up to it: its stages come after "data", the last of
    them is "knowledge", and after that it can read.
    """

    @property
    def data_settings(self) -> Mapping[str, Any]:
        """What stage "data" depends on besides its own settings; {} is nothing."""

    def fit(self, folder: Path, items: Items, rows: np.ndarray) -> None:
        """Fit what turns items into arrays on those at ``rows``, the training items.

        Args:
          folder: Of stage "data", where it is kept.
          items: The whole catalogue.
          rows: int [N].
        """

    def stages(self) -> list[Stage]:
        """Return the stages after "data" up to "knowledge"."""

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """What it reads of the run's catalogue: "text", "picture", "picture_ok", each [V, ...]."""

    def read(self, items: Items) -> dict[str, np.ndarray]:
        """Return the same of other items."""

    def encode(
        self, arrays: Mapping[str, np.ndarray], view: str, kept: Blocks | None = None
    ) -> np.ndarray:
        """Return the features of items, float32 [V, D], not standardised.

        Args:
          arrays: From `arrays` or `read`, whole or as a view shows them.
          view: What they show, for the progress bar.
          kept: Where what is done of a long reading is kept; None keeps nothing.
        """

    @property
    def features(self) -> int:
        """D, the width of e."""

    @property
    def provenance(self) -> dict[str, str]:
        """Which pretrained weights the features come from; {} is none."""

    @property
    def parameters(self) -> int:
        """How many numbers it has, pretrained ones included."""


@runtime_checkable
class TokenReader(Protocol):
    """An item reader that keeps an item's tokens, for a Transfer tower that reads those."""

    def item_tokens(self) -> ItemTokens:
        """What the tokens of an item are."""

    def tokens(self) -> dict[str, np.ndarray]:
        """Return "text" int32 [V, T], "seen" float32 [V, P, width] and "picture_ok" bool [V]."""

    def token_vectors(self) -> Params:
        """Return the vectors of the tokenizer's tokens, to begin with."""
