"""Which encoding text that is not Unicode has: cp1252, Cyrillic, Greek, Chinese, Japanese, ...

Bytes fit many encodings. What tells them apart is which reading gives the characters that a
language uses most; where none of those below does, charset-normalizer is asked.
"""

import re
from collections.abc import Callable

from charset_normalizer import from_bytes

_SAMPLE = 100_000
_KANA = r"\u3041-\u30ff"


def _share(pattern: str) -> Callable[[str], float]:
    """Return the share of the characters beyond ASCII that match."""
    common = re.compile(f"[{pattern}]", re.IGNORECASE)

    def share(text: str) -> float:
        return len(common.findall(text)) / _count(text)

    return share


def _cased(common: str, small: str, large: str) -> Callable[[str], float]:
    """Return the share for a script with capitals, less where they stand inside words.

    KOI8 read as cp1251, and the other way round, begins words small and goes on in capitals.
    """
    share, swapped = _share(common), re.compile(f"[{small}][{large}]")

    def less(text: str) -> float:
        return share(text) * (1 - min(2 * len(swapped.findall(text)) / _count(text), 1))

    return less


_cyrillic = _cased("оеаинтсрвлкмдпуяыі", "а-яё", "А-ЯЁ")


def _leads(encoding: str, first: int, last: int) -> Callable[[str], float]:
    """Return the share of the characters whose first byte is that of common ones."""

    def share(text: str) -> float:
        leads = [c.encode(encoding, "ignore")[:1] for c in text]
        return sum(bytes([first]) <= lead <= bytes([last]) for lead in leads) / _count(text)

    return share


def _japanese(encoding: str, first: int, last: int) -> Callable[[str], float]:
    kana, kanji = _share(_KANA), _leads(encoding, first, last)
    signs = _share(r"\u3001-\u3010\u30fc\uff01-\uff5e")
    return lambda text: min(kana(text) * 10, kana(text) + kanji(text) + signs(text), 1.0)


_ALONE: dict[str, Callable[[str], float]] = {
    "cp1251": _cyrillic,
    "koi8_r": _cyrillic,
    "cp1253": _cased("αοιετσνηυρπκμλςάίόέύήώ", "ά-ώ", "Α-Ω"),
    "cp1255": _share("יוהלאתמרבנשקםדעח"),
    "cp1256": _share("اليمونرتبةعدسفهكحأ"),
}
"""Encodings of a byte a character, and how common the characters of a text are."""
_PAIRS: dict[str, Callable[[str], float]] = {
    "cp949": _leads("euc_kr", 0xB0, 0xC8),
    "cp932": _japanese("shift_jis", 0x88, 0x97),
    "euc_jp": _japanese("euc_jp", 0xB0, 0xCF),
    "big5": _leads("big5", 0xA4, 0xC6),
    "gb18030": _leads("gb2312", 0xB0, 0xD7),
}
"""Those of two bytes, the rarer to be mistaken first."""


def is_cp1252(data: bytes) -> bool:
    """Return whether bytes hold none that cp1252 has no character for."""
    return not re.search(rb"[\x81\x8d\x8f\x90\x9d]", data)


def guess_codepage(data: bytes, cp1252: bool | None = None) -> str:
    """Return the likeliest encoding of text that is no Unicode.

    Args:
      data: Bytes, some of them above 127; the first lines that have such are looked at.
      cp1252: What `is_cp1252` says of the whole file, where these are its first bytes.

    Example:
      >>> guess_codepage("Größe".encode("cp1252")), guess_codepage("Ботинки".encode("cp1251"))
      ('cp1252', 'cp1251')
      >>> guess_codepage("赤いカメラのセット".encode("shift_jis"))
      'cp932'
    """
    lines = list(dict.fromkeys(re.findall(rb"[^\r\n]*[\x80-\xff][^\r\n]*", data[: 10 * _SAMPLE])))
    sample = b"\n".join(lines)[:_SAMPLE]
    latin = "cp1252" if (is_cp1252(data) if cp1252 is None else cp1252) else "latin-1"
    high = len(re.findall(rb"[\x80-\xff]", sample))
    # Within words of a Latin script letters beyond ASCII stand between letters of ASCII.
    mixed = len(re.findall(rb"(?<=[A-Za-z])[\x80-\xff]|[\x80-\xff](?=[A-Za-z])", sample)) / high
    alone = len(re.findall(rb"(?<![\x80-\xff])[\x80-\xff](?![\x80-\xff])", sample)) / high
    foreign = mixed < 0.4 and alone < 0.4
    scores = {name: score(_beyond(sample, name)) for name, score in _PAIRS.items()}
    best = max(scores, key=lambda name: scores[name])
    # Common Hangul and common Chinese lie in the same bytes, and Chinese in many more.
    if scores["cp949"] > 0.97:
        best = "cp949"
    # The second byte of a pair may be a letter of ASCII.
    dense = high >= len(re.findall(rb"[A-Za-z]", sample))
    if scores[best] >= 0.8 and (foreign or dense or best == "cp932"):
        return best
    if not foreign:
        return latin
    scores = {name: score(_beyond(sample, name)) for name, score in _ALONE.items()}
    best = max(scores, key=lambda name: scores[name])
    if scores[best] >= 0.6:
        return best
    found = from_bytes(sample).best()
    return found.encoding if found else latin


def _beyond(sample: bytes, encoding: str) -> str:
    """Return the characters beyond ASCII, in order, with spaces between words."""
    text = sample.decode(encoding, errors="replace")
    return re.sub(r"[\x00-\x7f]+", " ", text)


def _count(text: str) -> int:
    """Return how many characters are no space, 1 for none."""
    return max(len(text) - text.count(" "), 1)
