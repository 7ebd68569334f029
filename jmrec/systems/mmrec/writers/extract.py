"""The writer "extract": the sentences of the reviews that are nearest to what all of them say."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from jmrec.systems.mmrec.writers.sentences import sentences
from jmrec.systems.mmrec.writers.writer import Source, at_least, in_order

BATCH = 64
"""Sources between two savings."""


@dataclass(frozen=True)
class Extract:
    """The writer, and its settings.

    Attributes:
      sentences: How many are taken.
      most: Sentences that are looked at: the newest, where there are more.
      characters: A longer sentence is cut there, at a space.
    """

    sentences: int = 3
    most: int = 2000
    characters: int = 300

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            at_least(f"describe.extract.{name}", value, 1)

    @property
    def provenance(self) -> dict[str, str]:
        """Name and settings."""
        return {"writer": "extract", "settings": json.dumps(asdict(self), sort_keys=True)}

    def batches(self, sources: Sequence[Source]) -> list[list[int]]:
        """Return batches in the order of the sources."""
        return in_order(len(sources), BATCH)

    def write(self, sources: Sequence[Source]) -> list[str]:
        """Return the chosen sentences of each source, in the order of the reviews."""
        return [self._text(source.reviews) for source in sources]

    def _text(self, reviews: Sequence[str]) -> str:
        # What no sentence can come of is not split: a review may have a million characters.
        room = self.most * self.characters
        found = [short for review in reviews for each in sentences(review[:room])
                 if (short := _cut(each, self.characters))]  # fmt: skip
        once = list({each.casefold(): each for each in found[-self.most :]}.values())
        return " ".join(once[place] for place in nearest(once, self.sentences))


def nearest(texts: Sequence[str], count: int) -> list[int]:
    """Return the places of the texts nearest to the centroid of all, ascending.

    Args:
      texts: N texts. Each is a TF-IDF vector of unit length (those without a word are zeros),
        whose rare words are rare among these texts.
      count: How many; of equally near ones the first.

    References:
      Radev et al., Centroid-based summarization of multiple documents, 2004,
      https://doi.org/10.1016/j.ipm.2003.10.006

    Example:
      >>> nearest(["a dull film", "the cat", "a film, dull and long", "a long film"], 2)
      [0, 2]
    """
    if len(texts) <= count:
        return list(range(len(texts)))
    # Here, so that a wrong setting is answered before it is loaded.
    from sklearn.feature_extraction.text import TfidfVectorizer

    try:
        vectors = TfidfVectorizer(dtype=np.float64).fit_transform(texts)
    except ValueError:  # not one word in all of them
        return list(range(count))
    closeness = vectors @ np.asarray(vectors.mean(0)).ravel()
    # The last digits depend on the order of summation.
    order = np.argsort(-np.round(closeness, 9), kind="stable")
    return sorted(order[:count].tolist())


def _cut(sentence: str, most: int) -> str:
    if len(sentence) <= most:
        return sentence
    return sentence[:most].rsplit(" ", 1)[0].rstrip(" ,;:-") + "…"
