"""The text of a file as UTF-8: which encoding it came in, and its bytes as a whole or in parts."""

import codecs
import re
import sys
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from jmrec.data.encodings import guess_codepage, is_cp1252
from jmrec.errors import UserError

HEAD = 1_000_000
"""So many bytes of a file are enough for all that its first lines tell."""
TOLD = re.compile(r'"?sep=([^\w\s"]|\t)"?(?:\r\n|\n|\r)', re.IGNORECASE)
"""A first line that tells a spreadsheet its delimiter."""
_PART = 2**22
_UTF8 = ("utf-8", "utf-8-sig")


class Text:
    """A text file that is read in parts, and twice: its encoding is known when all is seen.

    Args:
      name: The file's name, for messages.
      parts: Returns its bytes, part by part, whenever it is called.
      encoding: See `decode`.

    Attributes:
      encoding: What it is read as.
      is_utf8: Whether all of it is UTF-8.
      is_ascii: Whether all of it is ASCII.
      has_nul: Whether a character is NUL.
      broken: Where in the text as UTF-8 the first byte is that can not be decoded, -1 of none.
      foreign: Where the first character is that is not ASCII, -1 of none and in a Unicode.

    Raises:
      UserError: if ``encoding`` is none that Python knows.

    Example:
      >>> text = Text("a.csv", lambda: ["item_id\\nGrö".encode("cp1252"), "ße".encode("cp1252")])
      >>> text.encoding, b"".join(text.parts()).decode(), text.foreign
      ('cp1252', 'item_id\\nGröße', 10)
    """

    def __init__(self, name: str, parts: Callable[[], Iterable[bytes]], encoding: str = "") -> None:
        self.name, self._parts = name, parts
        self.is_ascii, self.has_nul, self.broken, self.foreign = True, False, -1, -1
        head = self._look()
        self.is_utf8 = self.broken < 0
        self._mark = _mark(head)
        marked = self._mark == "utf-8-sig"
        self.encoding = "" if marked else encoding
        if not self.encoding:
            self.encoding = _marked(head) or ("utf-8" if self.is_utf8 else self._guess(head))
        if not self.encoding.startswith("utf-8"):
            self._look_at_text()
        elif marked and not self.is_utf8:
            self.broken -= len(codecs.BOM_UTF8)

    @property
    def is_legacy(self) -> bool:
        """Whether it is no Unicode."""
        return not self.encoding.startswith("utf")

    def parts(self) -> Iterator[bytes]:
        """Yield the text as UTF-8, without a byte order mark and a first line "sep=;"."""
        plain = self.is_utf8 and self.encoding in _UTF8
        yield from filter(None, untold(self._unmarked() if plain else self._decoded()))

    def line_of(self, place: int) -> int:
        """Return how many line breaks stand before a place in the text as UTF-8."""
        count, last = 0, b""
        for data in self.parts():
            begin = data[:place]
            count += breaks(begin) - (last == b"\r" and begin[:1] == b"\n")
            last, place = begin[-1:], place - len(begin)
            if not place:
                break
        return count

    def _unmarked(self) -> Iterator[bytes]:
        mark = codecs.BOM_UTF8
        for data in untold(self._parts()):
            yield data.removeprefix(mark)
            mark = b""

    def _decoded(self) -> Iterator[bytes]:
        first = True
        try:
            b"a".decode(self.encoding, "replace")  # not each that Python knows is one of texts
            name = codecs.lookup(self.encoding).name
            if name == "punycode":  # of names of hosts; its reader of parts forgets the last one
                raise LookupError
            if name in ("utf-16", "utf-32") and self._mark != name:  # which a whole text may lack
                name += "-le" if sys.byteorder == "little" else "-be"
            decoder = codecs.getincrementaldecoder(name)("replace")
            for part in untold(self._parts()):
                text = decoder.decode(part)
                yield _utf8(text.removeprefix("\ufeff") if first else text)
                first = first and not text
            yield _utf8(decoder.decode(b"", True))
        except (LookupError, UnicodeError):
            raise _no_encoding(self.name, self.encoding) from None

    def _look(self) -> bytes:
        """See what is not ASCII or UTF-8; return the first bytes."""
        head, at = b"", 0
        decoder = codecs.getincrementaldecoder("utf-8")()
        for data in untold(self._parts()):
            head += data[: HEAD - len(head)]
            self.has_nul = self.has_nul or b"\0" in data
            self.is_ascii = self.is_ascii and data.isascii()
            if self.broken < 0:
                self.broken = _fault(decoder, data, at)
            at += len(data)
        if self.broken < 0:
            self.broken = _fault(decoder, b"", at, final=True)
        return head

    def _look_at_text(self) -> None:
        """See the same in the text as it is decoded."""
        self.broken, self.has_nul, at = -1, False, 0
        for data in self.parts():
            self.has_nul = self.has_nul or b"\0" in data
            if self.broken < 0 and (place := data.find("\ufffd".encode())) >= 0:
                self.broken = at + place
            if self.is_legacy and self.foreign < 0 and not data.isascii():
                self.foreign = at + int(np.argmax(np.frombuffer(data, np.uint8) > 127))
            at += len(data)

    def _guess(self, head: bytes) -> str:
        """Return the encoding of text that is no UTF-8 as a whole."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        count, cp1252 = _Count(), True
        for data in untold(self._parts()):
            count.add(data, decoder.decode(data))
            cp1252 = cp1252 and is_cp1252(data)
        count.add(b"", decoder.decode(b"", True))
        return "utf-8" if count.is_damaged_utf8 else guess_codepage(head, cp1252)


class _Count:
    """Counts of a text that was decoded as UTF-8, with U+FFFD for what is broken."""

    def __init__(self) -> None:
        self.ascii = self.characters = self.broken = 0

    def add(self, data: bytes, text: str) -> None:
        """Add the bytes of a part and their text."""
        self.ascii += int((np.frombuffer(data, np.uint8) < 128).sum())
        self.characters += len(text)
        self.broken += text.count("\ufffd")

    @property
    def is_damaged_utf8(self) -> bool:
        """Whether it is damaged UTF-8, not another encoding."""
        return self.characters - self.ascii - self.broken > self.broken


def _fault(decoder: codecs.IncrementalDecoder, data: bytes, at: int, final: bool = False) -> int:
    """Return where the first broken byte of a part that begins ``at`` a byte is, -1 of none."""
    pending = decoder.getstate()[0]
    if data.isascii() and not pending:
        return -1
    try:
        decoder.decode(data, final)
    except UnicodeDecodeError as error:
        return at - len(pending) + error.start
    return -1


def breaks(data: bytes) -> int:
    r"""Return how many line breaks a text has: \n, \r, or both together.

    Example:
      >>> breaks(b"a\nb\r\nc\rd")
      3
    """
    return data.count(b"\n") + data.count(b"\r") - data.count(b"\r\n")


def without_told(data: bytes) -> bytes:
    """Return a CSV without a first line "sep=;", which tells a spreadsheet its delimiter."""
    found = TOLD.match(data[:20].decode("latin-1"))
    return data[found.end() :] if found else data


def untold(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the parts of a file, the first of 20 bytes at least, without such a line."""
    first, begun = b"", False
    for part in parts:
        if begun:
            yield part
            continue
        first += part
        if len(first) >= 20:
            begun = True
            yield without_told(first)
    if not begun:
        yield without_told(first)


def decode(name: str, data: bytes, encoding: str = "") -> tuple[bytes, str]:
    """Return text as UTF-8 without a byte order mark, and the encoding it came in.

    Bytes that can not be decoded become U+FFFD.

    Args:
      name: The file's name, for messages.
      data: The bytes.
      encoding: Its name; "" finds out: a byte order mark, UTF-8, UTF-16, else `guess_codepage`.
        A byte order mark of UTF-8 is believed more than a name.

    Raises:
      UserError: if ``encoding`` is none that Python knows.

    Example:
      >>> decode("items.csv", "Größe".encode("cp1252"))[1]
      'cp1252'
    """
    if not encoding or data.startswith(codecs.BOM_UTF8):
        encoding = guess_encoding(data)
    try:
        if encoding in _UTF8:
            data = data.removeprefix(codecs.BOM_UTF8)
            if is_utf8(data):
                return data, encoding
        return _utf8(data.decode(encoding, errors="replace").removeprefix("\ufeff")), encoding
    except (LookupError, UnicodeError):
        raise _no_encoding(name, encoding) from None


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", errors="replace")


def _no_encoding(name: str, encoding: str) -> UserError:
    return UserError(
        f"{name} can not be read as {encoding[:40]!r}, which is no text encoding; write "
        '[dataset] encoding = "utf-8", "cp1252", "utf-16" or another that Python knows.'
    )


def is_utf8(data: bytes, *, whole: bool = True) -> bool:
    """Return whether bytes are UTF-8; those that are not ``whole`` may end in a character.

    Example:
      >>> is_utf8(b"\\xc3"), is_utf8(b"\\xc3", whole=False), is_utf8(b"\\xe9t", whole=False)
      (False, True, False)
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    for begin in range(0, len(data), _PART):  # the text is many times as large
        if _fault(decoder, data[begin : begin + _PART], begin) >= 0:
            return False
    return _fault(decoder, b"", len(data), final=whole) < 0


def guess_encoding(data: bytes) -> str:
    """Return the encoding that text seems to have; a file's head may end in a character.

    Example:
      >>> guess_encoding(b"item_id,title"), guess_encoding("a,b".encode("utf-16"))
      ('utf-8', 'utf-16')
    """
    if marked := _marked(data):
        return marked
    if is_utf8(data, whole=len(data) != HEAD):  # the head may end in a character
        return "utf-8"
    count = _Count()
    count.add(data, data.decode("utf-8", errors="replace"))
    return "utf-8" if count.is_damaged_utf8 else guess_codepage(data)


def _marked(data: bytes) -> str:
    """Return the encoding that a byte order mark or NULs between ASCII letters tell, else ""."""
    if mark := _mark(data):
        return mark
    sample = data[:2000]  # ASCII letters in UTF-16 are every second byte
    for first, name in [(1, "utf-16-le"), (0, "utf-16-be")]:
        if len(sample) > 3 and sample[first::2].count(0) > 0.4 * len(sample) / 2 > 0:
            return name if sample[1 - first :: 2].count(0) == 0 else "utf-8"
    return ""


def _mark(data: bytes) -> str:
    marks = {
        codecs.BOM_UTF8: "utf-8-sig",
        codecs.BOM_UTF32_LE: "utf-32",
        codecs.BOM_UTF32_BE: "utf-32",
        codecs.BOM_UTF16_LE: "utf-16",
        codecs.BOM_UTF16_BE: "utf-16",
    }
    return next((name for mark, name in marks.items() if data.startswith(mark)), "")
