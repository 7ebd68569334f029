"""Which languages texts seem to be in: a library's guess."""

from collections import Counter
from collections.abc import Iterable, Sequence

SAMPLE = 500
"""How many texts are looked at."""
_SHORT = 40
"""Characters below which a text is joined with others: a short title tells little by itself."""


def languages(texts: Sequence[str]) -> dict[str, float]:
    """Return language (ISO 639-1) -> share of the texts that seem to be in it, largest first.

    Args:
      texts: For example everything that is written of each item.

    Returns:
      Those of 5 % and more; {} without texts.

    Example:
      >>> languages(["A warm red shoe for long walks in the evening and on rainy days"])
      {'en': 1.0}
    """
    filled = [text for text in texts if any(map(str.isalpha, text))]
    if not filled:
        return {}
    import py3langid  # its model takes a second to load

    some = list(_joined(filled[:: max(len(filled) // SAMPLE, 1)]))
    count = Counter(str(py3langid.classify(text)[0]) for text in some)
    return {name: n / len(some) for name, n in count.most_common() if n >= 0.05 * len(some)}


def show_languages(shares: dict[str, float]) -> str:
    """Return languages on one line.

    Example:
      >>> show_languages({"de": 0.9, "en": 0.1})
      'de 90%, en 10%'
    """
    return ", ".join(f"{name} {share:.0%}" for name, share in shares.items())


def _joined(texts: Iterable[str]) -> Iterable[str]:
    """Yield texts of at least `_SHORT` characters, short ones joined with those that follow."""
    so_far = ""
    for text in texts:
        so_far = f"{so_far} {text}".strip()
        if len(so_far) >= _SHORT:
            yield so_far
            so_far = ""
    if so_far:
        yield so_far
