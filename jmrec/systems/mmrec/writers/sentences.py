"""Cutting a text into sentences, by rules: a full stop ends one where it ends no abbreviation."""

import re

_WORDS = """
mr mrs ms dr prof st sr jr vs fig vol ed eds rev gen col lt sgt capt cmdr hon gov sen rep
e.g i.e cf al op approx est dept univ assn bros inc ltd co corp mt ft
jan feb mar apr jun jul aug sep sept oct nov dec
"""
ABBREVIATIONS = frozenset(_WORDS.split())
"""Words after whose full stop a sentence goes on, although a capital letter may follow."""
_END = re.compile(
    # A full stop, and quotes or brackets that close; then a space and what begins a sentence.
    # Possessive, so that a million dots take no longer than a million letters.
    r"""(?<![.!?…])[.!?…]++["'”’»)\]]*+(?=\s++["'“‘«(\[¿¡]*+[^\W_a-zß-öø-ÿ])|[。！？]++|\n\s*\n"""
)
_LAST = re.compile(r"(\S{1,24})\.$")


def sentences(text: str) -> list[str]:
    """Return the sentences of a text, without the spaces around them.

    A full stop after an initial ("J. R. R. Tolkien"), or after one of `ABBREVIATIONS`, ends
    none. Time grows with the length alone.

    Args:
      text: Any text.

    Example:
      >>> sentences('Mr. Fox is fun. "Bold!" He said so, e.g. in 3.5 lines... Why? no reason')
      ['Mr. Fox is fun.', '"Bold!"', 'He said so, e.g. in 3.5 lines...', 'Why? no reason']
    """
    found, start = [], 0
    for match in _END.finditer(text):
        if match[0] == "." and _goes_on(text[max(start, match.end() - 26) : match.end()]):
            continue
        found.append(text[start : match.end()])
        start = match.end()
    found.append(text[start:])
    return [kept for each in found if (kept := " ".join(each.split()))]


def _goes_on(before: str) -> bool:
    """Tell whether the full stop at the end of a text belongs to an abbreviation."""
    match = _LAST.search(before)
    if match is None:
        return False
    word = match[1].lstrip("\"'“‘«([")
    return (len(word) == 1 and word.isupper() and word != "I") or word.lower() in ABBREVIATIONS
