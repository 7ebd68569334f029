"""Who brings texts in a language that a backbone never learned is told so before it reads them."""

import pytest

from jmrec.data.schema import Items
from jmrec.systems.readers.backbone import language_warning

GERMAN = [
    "Ein warmer roter Schuh für lange Spaziergänge am Abend und an regnerischen Tagen",
    "Die leichte Jacke hält den Wind ab und passt in jede kleine Tasche",
]
ENGLISH = [
    "A warm red shoe for long walks in the evening and on rainy days",
    "The light jacket keeps the wind out and fits into every small bag",
]


def items(texts: list[str]) -> Items:
    return Items([str(n) for n in range(len(texts))], texts, {"title": texts}, [b""] * len(texts))


@pytest.mark.parametrize(
    ("texts", "backbone", "said"),
    [
        (GERMAN * 5, "minilm", True),
        (GERMAN * 5, "smollm2", True),
        (GERMAN * 5, "hf", False),
        (ENGLISH * 5, "minilm", False),
        (ENGLISH * 4 + GERMAN * 4, "minilm", True),
        (ENGLISH * 9 + GERMAN, "minilm", False),
        (["", "12"], "minilm", False),
    ],
)
def test_the_language_is_told(texts: list[str], backbone: str, said: bool) -> None:
    found = language_warning(items(texts), backbone)
    assert bool(found) == said
    if said:
        assert "de " in found
        assert found.count(".") == 1
