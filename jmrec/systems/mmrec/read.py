"""Stages "look" and "read": texts and pictures become numbers, each once.

A reader of texts maps any text to one vector: "lsa" counts words and keeps their main directions,
"backbone" is a pretrained encoder (MiniLM). A reader of pictures does the same: "vision" is a small
encoder that is trained here to name the words of an item from its picture, "backbone" a pretrained
one (EfficientNet), "counts" counts colours and edges, "none" looks at none.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jmrec.cluster.member import is_first
from jmrec.config import ConfigDict, choose
from jmrec.data.item_arrays import ItemArrays
from jmrec.data.pictures import decode_pictures
from jmrec.data.schema import Items
from jmrec.features import read_features, write_features
from jmrec.models.parts.transformer import StackConfig
from jmrec.models.readers.vision import VisionConfig, picture_words
from jmrec.systems.mmrec.counted import SIDE, counted
from jmrec.systems.mmrec.data import RatingData, item_words
from jmrec.systems.mmrec.describe import Descriptions, stage_name
from jmrec.systems.readers.backbone import Backbone, check_backbone
from jmrec.systems.readers.blocks import Blocks, read_batches
from jmrec.systems.stages import Stage
from jmrec.systems.work import Work, numbers
from jmrec.tasks.vision import VisionTask, word_weights
from jmrec.types import Model

TEXTS, PICTURES = ("lsa", "backbone"), ("counts", "vision", "backbone", "none")
"""Who reads texts, and who reads pictures."""
ITEMS, REVIEWS = "items.safetensors", "reviews.safetensors"
BATCH = 256


def vision_model(settings: ConfigDict, vocab: int) -> Model:
    """Return the encoder of pictures that is trained here, with the head that names words.

    Args:
      settings: The group "vision".
      vocab: Tokens of the tokenizer.
    """
    c = settings
    size = VisionConfig(c.picture_size, c.patch, c.merge, StackConfig(**c.stack))
    return picture_words(size, c.out, vocab)


class Reader:
    """Reads the texts and pictures of one run.

    Args:
      work: The run; its groups "read", "vision" and "backbone".
      data: Its rows.
      written: What was written of reviews and pictures, which is read too.

    Raises:
      UserError: A reader is not known, or its settings make no sense.
    """

    def __init__(self, work: Work, data: RatingData, written: Descriptions) -> None:
        self.work, self.data, self.written = work, data, written
        self._lsa_of: tuple[Any, Any] | None = None
        c = work.config
        choose("read.text", c.read.text, TEXTS)
        choose("read.picture", c.read.picture, PICTURES)
        if "backbone" in (c.read.text, c.read.picture):
            check_backbone(c.backbone)

    def fit(self, folder: Path) -> None:
        """Fit, on the training items, the words that a picture may be named with."""
        if self.work.config.read.picture == "vision":
            ItemArrays.fit(folder, self.data.items, self.data.train_items, self._words)

    @property
    def _words(self) -> dict[str, Any]:
        c = self.work.config.vision
        return {
            "vocab": c.vocab, "max_tokens": c.max_tokens, "picture_size": c.picture_size,
            "facts": False,
        }  # fmt: skip

    @property
    def data_settings(self) -> dict[str, Any]:
        """What stage "data" depends on besides its own settings."""
        if self.work.config.read.picture != "vision":
            return {}
        return {"words": self._words, "protocol": self.work.config.protocol}

    def stages(self) -> list[Stage]:
        """Return the stages "look" (where an encoder is trained here) and "read"."""
        c = self.work.config
        own = {"read": c.read, "protocol": c.protocol, "seed": c.seed}
        before = ("data", *(stage_name(*each) for each in self.written.wanted))
        stages = []
        if c.read.picture == "vision":
            look = {"vision": c.vision, "protocol": c.protocol, "seed": c.seed}
            stages.append(Stage("look", look, ("data",), self._look))
            before += ("look",)
        if "backbone" in (c.read.text, c.read.picture):
            what = ("text", "picture", "picture_size", "layers", "lengths", "dtype")
            own["backbone"] = {name: c.backbone[name] for name in what}
        return [*stages, Stage("read", own, before, self._read)]

    # ---- stage "look" --------------------------------------------------------------------------

    @cached_property
    def _arrays(self) -> tuple[ItemArrays, dict[str, np.ndarray]]:
        fitted = ItemArrays.load(self.work.workdir / "data")
        arrays = fitted.read(self.data.items)
        return fitted, {**arrays, "text": fitted.words(arrays["text"])}

    @cached_property
    def _vision(self) -> Model:
        return vision_model(self.work.config.vision, self._arrays[0].vocab)

    def _look(self, folder: Path) -> None:
        """Stage "look": the vision encoder, on the pictures of the training items."""
        (fitted, arrays), rows = self._arrays, self.data.train_items
        seen = rows[arrays["picture_ok"][rows]]
        if not len(seen):
            self.work.tracker.say("look: no training item has a picture, so nothing is learned")
            return
        c = self.work.config.vision
        words = word_weights(arrays["text"][rows], fitted.vocab)
        task = VisionTask(self._vision, words, numbers(c))
        batches = self.data.run_data.items(arrays, seen, c.train.batch_size)
        self.work.fit(folder, "look", task, c.train, batches, fingerprint=self.data.fingerprint)

    def _pictures(self, folder: Path) -> tuple[np.ndarray, np.ndarray]:
        """Return float32 [V, C] and bool [V], zeros where an item has no picture."""
        name = self.work.config.read.picture
        learned = (self.work.workdir / "look" / "params").is_dir()
        if name == "none" or (name == "vision" and not learned):
            count = len(self.data.items)
            return np.zeros((count, 1), np.float32), np.zeros(count, bool)
        if name == "counts":
            pixels, ok = decode_pictures(self.data.items, SIDE)
            return np.where(ok[:, None], counted(pixels), 0.0).astype(np.float32), ok
        if name == "backbone":
            ids, provenance = self.data.items.ids, self._backbone.provenance
            kept = Blocks(folder / "parts", ids, provenance, "pictures ")
            tracker = self.work.tracker.stage("read")
            found = self._backbone.read(_only_pictures(self.data.items), tracker, kept)
            return found["picture"], found["picture_ok"]
        params, arrays = self.work.params("look", self._vision), self._arrays[1]
        pooled = jax.jit(lambda _, picture, ok: self._vision.fns["pooled"](params, picture)[0])
        seen, ok = read_batches(pooled, arrays, BATCH), arrays["picture_ok"]
        return np.where(ok[:, None], seen, 0.0).astype(np.float32), ok

    # ---- stage "read" --------------------------------------------------------------------------

    @cached_property
    def _backbone(self) -> Backbone:
        return Backbone(self.work.config.backbone, facts=False)

    def _read(self, folder: Path) -> None:
        """Stage "read": the vectors of items' texts and pictures, and of every review."""
        data = self.data
        words, reviews = item_words(data.items), list(data.ratings.reviews)
        known = {text for row in data.known.splits.train if (text := reviews[row])}
        known |= {text for row in data.train_items if (text := words[row])}
        said = self._texts(folder, words, "words", known)
        told = self._texts(folder, reviews, "reviews", known)
        seen, ok = self._pictures(folder)
        provenance = {"texts": self.provenance}

        def write(file: str, tables: dict[str, np.ndarray], ids: Sequence[str]) -> None:
            if is_first():
                write_features(folder / file, tables, ids, provenance)

        write(ITEMS, {"words": said, "picture": seen, "picture_ok": ok}, data.items.ids)
        write(REVIEWS, {"reviews": told}, [str(row) for row in range(len(reviews))])
        for what, name in self.written.wanted:
            texts = self.written.texts(what, name)
            keys = [str(number) for number in range(len(texts))]
            read = self._texts(folder, texts, f"{what}-{name}", known)
            write(written_file(what, name), {"texts": read}, keys)
        Blocks(folder / "parts", (), {}).clear()

    def told(self, what: str, name: str) -> np.ndarray:
        """Return the vectors of what a writer wrote, float32 [C, D]."""
        return read_features(self.work.workdir / "read" / written_file(what, name)).arrays["texts"]

    def _texts(self, folder: Path, texts: Sequence[str], name: str, known: set[str]) -> np.ndarray:
        """Return float32 [N, D]; "" gives zeros."""
        if self.work.config.read.text == "lsa":
            return self._lsa(frozenset(known), texts)
        ids = [str(row) for row in range(len(texts))]
        kept = Blocks(folder / "parts", ids, self._backbone.provenance, f"{name} ")
        items = Items(ids, list(texts), {name: list(texts)}, [b""] * len(texts))
        found = self._backbone.read(items, self.work.tracker.stage("read"), kept)
        return found["text"]

    def _lsa(self, known: frozenset[str], texts: Sequence[str]) -> np.ndarray:
        """Return the main directions of counted words.

        References:
          Deerwester et al., Indexing by Latent Semantic Analysis, 1990:
          https://doi.org/10.1002/(SICI)1097-4571(199009)41:6<391::AID-ASI1>3.0.CO;2-9
        """
        fitted = self._fitted_lsa(known)
        found = np.zeros((len(texts), self.work.config.read.width), np.float32)
        some = [row for row, text in enumerate(texts) if text]
        if some and fitted is not None:
            vectorizer, svd = fitted
            made = svd.transform(vectorizer.transform([texts[row] for row in some]))
            found[some, : made.shape[1]] = made
        return found

    def _fitted_lsa(self, known: frozenset[str]) -> tuple[Any, Any] | None:
        """Return the TfidfVectorizer and the TruncatedSVD; None without two words to count."""
        # Here, so that a wrong setting is answered before it is loaded.
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import TfidfVectorizer

        if self._lsa_of is None:
            for least in (2, 1):  # in a few short texts no word stands twice
                vectorizer = TfidfVectorizer(sublinear_tf=True, min_df=least, max_features=50_000)
                try:
                    counted = vectorizer.fit_transform(sorted(known))
                except ValueError:  # no word is left
                    continue
                width = min(int(self.work.config.read.width), counted.shape[1] - 1)
                if width >= 1:
                    svd = TruncatedSVD(width, random_state=0).fit(counted)
                    self._lsa_of = vectorizer, svd
                    break
        return self._lsa_of

    @property
    def provenance(self) -> str:
        """Who read, as one text."""
        c = self.work.config
        facts: dict[str, Any] = {"text": c.read.text, "picture": c.read.picture}
        if "backbone" in facts.values():
            facts["backbone"] = self._backbone.provenance
        return json.dumps(facts, sort_keys=True)

    def tables(self) -> Mapping[str, np.ndarray]:
        """Return what stage "read" wrote.

        Returns:
          "words" [V, D], "picture" [V, C], "picture_ok" [V] and "reviews" [N, D].
        """
        folder = self.work.workdir / "read"
        ids = [str(row) for row in range(len(self.data.ratings))]
        return {
            **read_features(folder / ITEMS, self.data.items.ids).arrays,
            **read_features(folder / REVIEWS, ids).arrays,
        }


def written_file(what: str, name: str) -> str:
    """Return the file of the vectors of a writer's texts.

    Example:
      >>> written_file("item", "llm")
      'item-llm.safetensors'
    """
    return f"{what}-{name}.safetensors"


def _only_pictures(items: Items) -> Items:
    """Return the items without their texts."""
    return Items(items.ids, [""] * len(items), {"title": [""] * len(items)}, items.pictures)
