"""What a text says that none of its sources says: numbers and names, found by rules."""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from jmrec.systems.mmrec.writers.sentences import sentences
from jmrec.systems.mmrec.writers.writer import Source

_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_WORDS = {
    **{word: value for value, word in enumerate(_SMALL.split())},
    **{word: 10 * value for value, word in enumerate(_TENS.split(), 2)},
    **{"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9},
}
_SAYS_NOTHING = {"zero", "one"}
"""Words that are rarely meant as numbers ("one of the best")."""
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_TOKEN = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_NAME = re.compile(r"[^\W\d_]+(?:['’.\-]+[^\W\d_]+)*")


def invented(text: str, sources: Sequence[str]) -> list[str]:
    """Return the numbers and names of a text that stand nowhere in its sources.

    A number is digits or a number's word ("two", "twenty-five"; not "one"); "1,000" and "thousand"
    are one number. A name is words with capitals side by side; the first word of a sentence has a
    capital anyhow and is none. These are rules: they overlook invented names that begin a sentence,
    and invented facts that name nothing.

    Args:
      text: What was written.
      sources: All that its writer was shown.

    Returns:
      What was invented, as it stands in the text, each once.

    Example:
      >>> said = "In 1,994 words, Ann Lee likes its two songs. Bob and Tom Hanks do not."
      >>> invented(said, ["Ann found 1994 words", "Lee: 2 songs", "tom is bad"])
      ['Hanks']
      >>> invented("Seen twenty-five times by Max.", ["Max saw it 25 times."])
      []
    """
    joined = "\n".join(sources)
    values = {value for _, value in _numbers(joined)}
    words = {_bare(word[0]) for word in _TOKEN.finditer(joined)}
    numbers = [shown for shown, value in _numbers(text) if value not in values]
    return list(dict.fromkeys([*numbers, *_strange(text, words)]))


def shown_to(source: Source) -> list[str]:
    """Return the texts of a source, for `invented`."""
    return [source.title, source.facts, *source.reviews]


def count_invented(texts: Iterable[str], sources: Iterable[Source]) -> dict[str, Any]:
    """Return how much of some texts was invented, for a report.

    Args:
      texts: S texts.
      sources: S sources of them.

    Returns:
      "texts": how many say anything; "with_invented": how many of these say what their source
      does not; "numbers" and "names": how many of each, over all texts.

    Example:
      >>> count_invented(["It has 7 songs."], [Source("a", reviews=("Songs!",))])
      {'texts': 1, 'with_invented': 1, 'numbers': 1, 'names': 0}
    """
    written = [(text, source) for text, source in zip(texts, sources, strict=True) if text]
    found = [invented(text, shown_to(source)) for text, source in written]
    numbers = sum(bool(list(_numbers(each))) for words in found for each in words)
    return {
        "texts": len(written),
        "with_invented": sum(map(bool, found)),
        "numbers": numbers,
        "names": sum(map(len, found)) - numbers,
    }


def _numbers(text: str) -> Iterator[tuple[str, float]]:
    """Yield (as it stands, value) of every number of a text."""
    for match in _NUMBER.finditer(text):
        digits = match[0]
        if not re.fullmatch(r"\d{1,3}(,\d{3})+(\.\d+)?", digits):
            digits = digits.replace(",", ".")
        for part in [digits.replace(",", "")] if digits.count(".") <= 1 else digits.split("."):
            yield match[0], float(part[:300])
    words = list(_TOKEN.finditer(text))
    skip = False
    for match, after in zip(words, [*words[1:], None]):
        value = _WORDS.get(match[0].lower())
        if skip or value is None:
            skip = False
            continue
        unit = _WORDS.get(after[0].lower(), 0) if after else 0
        joined = after is not None and text[match.end() : after.start()] in ("-", " ")
        if 20 <= value < 100 and 1 <= unit <= 9 and joined and after is not None:
            skip = True
            yield text[match.start() : after.end()], value + unit
        elif match[0].lower() not in _SAYS_NOTHING:
            yield match[0], value


def _strange(text: str, known: Collection[str]) -> Iterator[str]:
    """Yield the names of a text with a word that is not known; words side by side are one name."""
    for sentence in sentences(text):
        name, end = "", -1
        for number, match in enumerate(_NAME.finditer(sentence)):
            word = match[0]
            # A sentence's first word has a capital anyhow.
            plain = not number or not word[0].isupper() or re.match(r"I\b", word)
            if plain or all(part in known for part in _parts(word)):
                continue
            beside = name and sentence[end : match.start()] == " "
            if name and not beside:
                yield name
            name, end = f"{name} {word}" if beside else word, match.end()
        if name:
            yield name


def _parts(word: str) -> list[str]:
    """Return the words of which a name with hyphens or full stops is made."""
    return [_bare(part[0]) for part in _TOKEN.finditer(word)]


def _bare(word: str) -> str:
    """Return a word in small letters, without the 's of a genitive."""
    small = word.casefold()
    return small[:-2] if small.endswith(("'s", "’s")) else small
