"""Neighbours by content: TF-IDF of the items' texts, and cosine on any feature table."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse as sp

from jmrec.data.schema import Items
from jmrec.errors import UserError
from jmrec.evaluation.protocol import Prefixes, Ranker
from jmrec.evaluation.rankers.bags import add_product, context_weights, last_bag
from jmrec.evaluation.rankers.known import Known
from jmrec.evaluation.rankers.servable import servable

SMALL = 4096
"""Of so many items all cosines are held (64 MB) to answer one session at a time."""


def texts_of(items: Items) -> list[str]:
    """Return V strings: an item's text fields and the names of its categories.

    Args:
      items: The catalogue; its declared columns hold nothing that must not be used.
    """
    fields = [*items.text.values()]
    for name, codes in items.category.items():
        fields.append([items.category_names[name][code] for code in codes])
    return [" . ".join(part for part in parts if part) for parts in zip(*fields)]


@servable
@dataclass
class TextNeighbours:
    """Cosine between the TF-IDF vectors of the session (decayed sum) and of an item.

    Vocabulary and document frequencies come from the training items alone; an item without
    text scores 0.

    Attributes:
      vectors: float32 [V, D] sparse, unit rows.
      decay: Factor for every step back in the prefix.
      settings: What was chosen, for the table.
    """

    vectors: sp.csr_array
    decay: float
    settings: dict[str, Any] = field(default_factory=dict)
    name: str = "content-kNN (TF-IDF)"
    kind: str = "content"

    def __post_init__(self) -> None:
        self._of_word = self.vectors.T.tocsr()
        self._cosines: np.ndarray | None = None

    @classmethod
    def grid(cls, known: Known) -> Iterator[Ranker]:
        """Yield the rule under every setting; nothing where no item has a text."""
        if not any(any(values) for values in known.items.text.values()):
            return
        # Here, so that a wrong setting is answered before it is loaded.
        from sklearn.feature_extraction.text import TfidfVectorizer

        texts = texts_of(known.items)
        seen = [text for text, ok in zip(texts, known.seen) if ok]
        for ngrams in (1, 2):
            maker = TfidfVectorizer(
                sublinear_tf=True, stop_words="english", ngram_range=(1, ngrams), dtype=np.float32
            )
            try:
                maker.fit(seen)
            except ValueError:  # no word is left: every item scores the same
                vectors = sp.csr_array((len(texts), 1), dtype=np.float32)
            else:
                vectors = sp.csr_array(maker.transform(texts))
            for decay in (0.0, 0.8, 0.95):
                yield cls(vectors, decay, {"words": ngrams, "decay": decay})

    def prepare(self, features: Mapping[str, np.ndarray]) -> None:
        """Need nothing of the features."""

    def scores(self, prefixes: Prefixes, item_slice: slice) -> np.ndarray:
        """Return float32 [P, slice length]."""
        n_items = self.vectors.shape[0]
        if len(prefixes) == 1:
            bag = last_bag(prefixes, self.decay)
            if n_items > SMALL:
                return bag.within(self.vectors).product(self._of_word)[None, item_slice]
            if self._cosines is None:  # by the first answer
                self._cosines = (self.vectors @ self._of_word).toarray()
            return bag.product(self._cosines)[None, item_slice]
        words = context_weights(prefixes, n_items, self.decay) @ self.vectors
        scores = np.zeros((len(prefixes), item_slice.stop - item_slice.start), np.float32)
        add_product(scores, words, self._of_word, item_slice)
        return scores


@servable
@dataclass
class FeatureNeighbours:
    """Cosine between a session's features (decayed sum of unit rows) and an item's.

    ``prepare`` brings the table. Where ``center`` is set, the mean of the training items is
    taken off first: the vectors of language models point into a narrow cone. An item whose
    features are all 0 or not finite has none and scores 0.

    Attributes:
      feature: The table's name in ``prepare``.
      seen: bool [V], the items of the training sessions.
      center: Whether to take the mean off.
      decay: Factor for every step back in the prefix.
      settings: What was chosen, for the table.
    """

    feature: str
    seen: np.ndarray
    center: bool = True
    decay: float = 0.8
    settings: dict[str, Any] = field(default_factory=dict)
    name: str = ""
    kind: str = "content"

    def __post_init__(self) -> None:
        self.name = self.name or f"content-kNN ({self.feature})"
        self._unit: np.ndarray | None = None

    @classmethod
    def grid(cls, feature: str, known: Known) -> Iterator[Ranker]:
        """Yield the rule on a feature table under every setting."""
        for center in (False, True):
            for decay in (0.0, 0.8, 0.95):
                yield cls(feature, known.seen, center, decay, {"center": center, "decay": decay})

    def prepare(self, features: Mapping[str, np.ndarray]) -> None:
        """Take the table.

        Args:
          features: Must hold this rule's, float [V, D].

        Raises:
          UserError: If the table is absent or has another number of rows.
        """
        if self.feature not in features:
            raise UserError(f"no feature table named {self.feature!r} was given; make it first.")
        table = np.asarray(features[self.feature], np.float32)
        if len(table) != len(self.seen):
            raise UserError(
                f"feature table {self.feature!r} has {len(table)} rows and the catalogue "
                f"{len(self.seen)}; run embed again."
            )
        known = np.isfinite(table).all(axis=1) & (table != 0).any(axis=1)
        table = np.where(known[:, None], table, 0.0)
        if self.center and (known & self.seen).any():
            table = np.where(known[:, None], table - table[known & self.seen].mean(axis=0), 0.0)
        norm = np.linalg.norm(table, axis=1, keepdims=True)
        self._unit = (table / np.maximum(norm, 1e-12)).astype(np.float32)

    def scores(self, prefixes: Prefixes, item_slice: slice) -> np.ndarray:
        """Return float32 [P, slice length].

        Raises:
          UserError: If ``prepare`` has not brought the table.
        """
        unit = self.unit
        bag = context_weights(prefixes, len(unit), self.decay)
        return (bag @ unit) @ unit[item_slice].T

    @property
    def unit(self) -> np.ndarray:
        """Unit rows of the table, float32 [V, D].

        Raises:
          UserError: If ``prepare`` has not brought the table.
        """
        if self._unit is None:
            raise UserError(f"no feature table named {self.feature!r} was given; make it first.")
        return self._unit
