"""Stage "align": texts and pictures in one latent space, whoever read them."""

from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jmrec.cluster.member import is_first
from jmrec.config import choose
from jmrec.features import Standardiser
from jmrec.files import read_json, write_json
from jmrec.models.readers.frozen import FrozenConfig, frozen_tower
from jmrec.systems.mmrec.data import RatingData
from jmrec.systems.mmrec.read import Reader
from jmrec.systems.stages import Stage
from jmrec.systems.work import Work, numbers
from jmrec.tasks.frozen import FrozenKnowledgeTask
from jmrec.types import Model, Params

SPACES = ("latent", "raw")
"""Whether a ranker reads what the heads make of the readers' vectors, or the vectors themselves."""
COSINES = "cosines.json"


class Space:
    """The latent space of one run.

    Args:
      work: The run; its group "align".
      data: Its rows.
      reader: Who read texts and pictures.
    """

    def __init__(self, work: Work, data: RatingData, reader: Reader) -> None:
        self.work, self.data, self.reader = work, data, reader
        choose("align.space", work.config.align.space, SPACES)

    def stage(self) -> Stage:
        """Return the stage "align"."""
        c = self.work.config
        own = {"align": c.align, "protocol": c.protocol, "seed": c.seed}
        return Stage("align", own, ("data", "read"), self._align)

    @cached_property
    def _read(self) -> dict[str, np.ndarray]:
        return dict(self.reader.tables())

    @cached_property
    def _standardised(self) -> dict[str, np.ndarray]:
        """Words and pictures of the catalogue, standardised on training items; zeros stay."""
        read, rows = self._read, self.data.train_items
        return {
            "words": self._scalers["words"](read["words"]) * _some(read["words"]),
            "picture": self._scalers["picture"](read["picture"]) * read["picture_ok"][:, None],
            "rows": rows,
        }

    @cached_property
    def _scalers(self) -> dict[str, Standardiser]:
        read, rows = self._read, self.data.train_items
        has = {"words": _some(read["words"])[:, 0], "picture": read["picture_ok"]}
        found = {}
        for name, ok in has.items():
            known = rows[ok[rows]]
            found[name] = Standardiser.fit(read[name], known if len(known) else rows)
        return found

    @cached_property
    def config(self) -> FrozenConfig:
        """Sizes of the heads."""
        read = self._read
        return FrozenConfig(
            read["words"].shape[1], read["picture"].shape[1], int(self.work.config.align.width)
        )

    @cached_property
    def model(self) -> Model:
        """The heads."""
        return frozen_tower(self.config)

    def _align(self, folder: Path) -> None:
        """Stage "align": heads that find an item's picture by its text and lose neither."""
        work, c = self.work, self.work.config.align
        given = self._standardised
        arrays = {
            "text": given["words"].astype(np.float32),
            "picture": given["picture"].astype(np.float32),
            "picture_ok": self._read["picture_ok"],
        }
        task = FrozenKnowledgeTask(self.config, numbers(c))
        batches = self.data.run_data.items(arrays, self.data.train_items, c.train.batch_size)
        work.fit(folder, "align", task, c.train, batches, fingerprint=self.data.fingerprint)
        before = self.model.init(jax.random.key(work.config.seed))
        after = work.params("align", self.model)
        found = {"before": self._cosines(before), "after": self._cosines(after)}
        if is_first():
            write_json(folder / COSINES, found)

    def _halves(self, params: Params, words: np.ndarray) -> np.ndarray:
        """Return the latent vectors of texts, from standardised ones."""
        matrix = np.asarray(params["text"]["kernel"])
        return words.astype(np.float32) @ matrix

    def _cosines(self, params: Params) -> dict[str, float | None]:
        """Return the mean cosine of an item's text and picture, and of two items'."""
        given, ok = self._standardised, self._read["picture_ok"] & _some(self._read["words"])[:, 0]
        rows = np.flatnonzero(ok)
        if len(rows) < 2:
            return {"own": None, "other": None}
        said = _unit(self._halves(params, given["words"][rows]))
        seen = _unit(given["picture"][rows].astype(np.float32) @ np.asarray(
            params["picture"]["kernel"]))  # fmt: skip
        return {
            "own": float((said * seen).sum(1).mean()),
            "other": float((said * np.roll(seen, 1, 0)).sum(1).mean()),
        }

    @property
    def cosines(self) -> dict[str, Any]:
        """What stage "align" measured: "before" and "after", each "own" and "other"."""
        found: dict[str, Any] = read_json(self.work.workdir / "align" / COSINES)
        return found

    @cached_property
    def _params(self) -> Params:
        return self.work.params("align", self.model)

    @property
    def _raw(self) -> bool:
        return bool(self.work.config.align.space == "raw")

    def texts(self, read: np.ndarray) -> np.ndarray:
        """Return texts in the space, from the reader's vectors; zeros stay zeros.

        Args:
          read: float32 [N, D] from the reader of texts.

        Returns:
          float32 [N, W].
        """
        given = self._scalers["words"](read)
        found = given if self._raw else self._halves(self._params, given)
        return self._scaled(found, "words") * _some(read)

    def pictures(self) -> np.ndarray:
        """Return the catalogue's pictures in the space, float32 [V, W]."""
        given = self._standardised["picture"].astype(np.float32)
        found = given if self._raw else given @ np.asarray(self._params["picture"]["kernel"])
        return self._scaled(found, "picture") * self._read["picture_ok"][:, None]

    def words(self) -> np.ndarray:
        """Return the items' own texts in the space, float32 [V, W]."""
        return self.texts(self._read["words"])

    def reviews(self) -> np.ndarray:
        """Return every review in the space, float32 [N, W]; zeros where a row has none."""
        return self.texts(self._read["reviews"])

    @property
    def picture_ok(self) -> np.ndarray:
        """Bool [V], items with a picture."""
        return self._read["picture_ok"]

    def told(self, what: str, name: str) -> np.ndarray:
        """Return what a writer wrote in the space, float32 [C, W]."""
        return self.texts(self.reader.told(what, name))

    @cached_property
    def _scales(self) -> dict[str, float]:
        """Name -> one over the spread of the training items' vectors, so that all are alike."""
        given, rows = self._standardised, self.data.train_items
        found = {}
        for name in ("words", "picture"):
            made = given[name].astype(np.float32)
            if not self._raw:
                kernel = self._params["text" if name == "words" else name]["kernel"]
                made = made @ np.asarray(kernel)
            spread = float(np.sqrt(np.square(made[rows]).mean()))
            found[name] = 1.0 / spread if spread > 1e-9 else 1.0
        return found

    def _scaled(self, found: np.ndarray, name: str) -> np.ndarray:
        return (found * self._scales[name]).astype(np.float32)


def _some(read: np.ndarray) -> np.ndarray:
    """Return bool [N, 1]: rows that are not zeros."""
    return np.any(read != 0, axis=1, keepdims=True)


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9)
