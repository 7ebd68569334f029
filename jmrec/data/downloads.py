"""Files over HTTP: sizes first, resumed, checked, politely; and nothing but HTTP.

A server is a stranger: it drops connections, asks to wait, changes a file while it is read, leads
elsewhere. What is there in part is kept as ``NAME.part`` and goes on from there, if the server says
that it is still the same file; a file has its name only when it is whole.
"""

import email.utils
import hashlib
import http.client
import re
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jmrec import __version__
from jmrec.errors import UserError
from jmrec.files import check_regular, read_json, write_json
from jmrec.preemption import look

TRIES = 6
"""How often the same thing may fail, one time after the other."""
LONGEST_WAIT = 600.0
"""Seconds; a server that asks for more is asked again another day."""
MAX_FILE = 200_000_000_000
"""Bytes of a file whose size the server does not tell; the largest category has a tenth of it."""
_BLOCK, _PROGRESS, _RESTARTS = 2**20, 2**16, 3
_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


class _Again(Exception):
    """Something that may pass: why, and how long the server asks to wait (None: it does not)."""

    def __init__(self, why: str, wait: float | None = None) -> None:
        super().__init__(why)
        self.wait = wait


class Unreachable(UserError):
    """A server that does not answer, however often it is asked, or asks to wait for too long."""


@dataclass(frozen=True)
class Fetched:
    """A file that is there and whole.

    Attributes:
      url: Where it came from, "" where somebody put it there.
      bytes: Its size.
      sha256: Its checksum.
    """

    url: str
    bytes: int
    sha256: str


class Web:
    """Reads files from one server, a request at a time.

    Args:
      base: The address that all is found under; its host is asked, and none but it.
      hosts: Further hosts that may be asked, and that a redirect may lead to.
      pace: The fewest seconds from the start of one request to that of the next.
      timeout: Seconds in which a server has to say something.
      sleep: Waits for some seconds.
      clock: Returns unix seconds.
      warn: Called with a sentence where something is tried again.
      progress: Called with the address of a file, the bytes that are there, and how many it has.

    Raises:
      UserError: The base is no address of HTTP.

    Example:
      >>> Web("file:///etc")
      Traceback (most recent call last):
        ...
      jmrec.errors.UserError: file:///etc is no address that jmrec asks; give one that begins with
      https:// or http://.
    """

    def __init__(
        self,
        base: str,
        hosts: Collection[str] = (),
        *,
        pace: float = 0.0,
        timeout: float = 60.0,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.time,
        warn: Callable[[str], None] = lambda sentence: None,
        progress: Callable[[str, int, int | None], None] = lambda url, have, of: None,
    ) -> None:
        self.base = base.rstrip("/")
        self.hosts = frozenset(host.lower() for host in hosts)
        self.pace, self.timeout, self.sleep, self.clock = pace, timeout, sleep, clock
        self.warn, self.progress = warn, progress
        self._asked = -float("inf")
        self._home = _split(base)
        # Not build_opener: its handlers also open file:, ftp: and data: addresses.
        self._opener = urllib.request.OpenerDirector()
        for handler in (
            urllib.request.ProxyHandler(),
            urllib.request.HTTPHandler(),
            urllib.request.HTTPSHandler(),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.HTTPErrorProcessor(),
            _Redirects(self),
        ):
            self._opener.add_handler(handler)

    def may_ask(self, url: str) -> bool:
        """Whether an address is one of HTTP, on the base's host or one of the further hosts."""
        try:
            parts = _split(url)
        except UserError:
            return False
        if parts.scheme == "http" and self._home.scheme == "https":
            return False
        if (parts.hostname or "").lower() in self.hosts:
            return _port(parts) in (80, 443)
        upgraded = (_port(self._home), _port(parts)) == (80, 443)
        same = _port(parts) == _port(self._home) or upgraded
        return parts.hostname == self._home.hostname and same

    def size(self, url: str) -> int | None:
        """Return how many bytes a file has, None where the server does not tell.

        Raises:
          UserError: There is no such file, or the server does not answer.
        """

        def ask() -> int | None:
            try:
                with self._open(url, "HEAD", {}) as response:
                    return _length(response)
            except _NotServed:
                return None

        return self._patiently(url, ask)

    def read(self, url: str, most: int) -> bytes:
        """Return a small file.

        Args:
          url: Where it is.
          most: The most bytes that it may have.

        Raises:
          UserError: There is no such file, the server does not answer, or it is larger.
        """

        def ask() -> bytes:
            with self._open(url, "GET", {}) as response:
                data, length = b"", _length(response)
                while len(data) <= most and (block := _receive(response)):
                    data += block
            if len(data) > most:
                raise UserError(f"{url} has more than {most:,} bytes; leave it out.")
            if length is not None and len(data) < length:
                raise _Again(f"it ended after {len(data):,} of {length:,} bytes")
            return data

        return self._patiently(url, ask)

    def fetch(
        self, url: str, path: Path, *, expected: int | None = None, sha256: str = ""
    ) -> Fetched:
        """Bring a file to a place, or go on with one that is there in part.

        Beside it stands ``NAME.json``, which says where it came from and its checksum. A file that
        somebody else put there is taken as it is.

        Args:
          url: Where it is.
          path: Where it is to be; its folder exists.
          expected: The size that was told before, None where none was.
          sha256: The checksum that it has to have, "" where none is known.

        Raises:
          UserError: It can not be had whole, or is not what it should be.
        """
        about = path.with_name(f"{path.name}.json")
        if path.exists():
            return _as_recorded(path, about, sha256)
        part = path.with_name(f"{path.name}.part")
        _Transfer(self, url, part, expected).run()
        found = _digest(part)
        if sha256 and found != sha256.lower():
            part.unlink()
            raise UserError(
                f"{url} has the SHA-256 {found} and should have {sha256.lower()}; what came is "
                "deleted: run the command again, or mend the checksum."
            )
        fetched = Fetched(url, part.stat().st_size, found)
        write_json(about, vars(fetched))
        part.replace(path)
        part.with_name(f"{part.name}.json").unlink(missing_ok=True)
        return fetched

    def _patiently(self, url: str, ask: Callable[[], Any]) -> Any:
        """Return what ``ask`` returns, which is tried again where that may help."""
        for failed in range(TRIES):
            try:
                return ask()
            except _Again as again:
                self._wait(url, again, failed)

    def _wait(self, url: str, again: _Again, failed: int) -> None:
        """Wait after a failure, the one after ``failed`` others.

        Raises:
          UserError: It has failed too often, or the server asks for too long a wait.
        """
        if failed + 1 >= TRIES:
            raise Unreachable(
                f"{url} can not be had: {again}, {TRIES} times; try later, what is there is kept."
            ) from None
        wait = min(60.0, 2.0**failed) if again.wait is None else max(0.0, again.wait)
        if wait > LONGEST_WAIT:
            raise Unreachable(
                f"{url}: the server asks to wait for {wait:,.0f} seconds; try later, what is there "
                "is kept."
            ) from None
        self.warn(f"{url}: {again}; asked again in {wait:g} seconds.")
        self.sleep(wait)

    def _open(self, url: str, method: str, headers: Mapping[str, str]) -> Any:
        """Send a request; return the response, whose status is of 200 to 299.

        Raises:
          _Again: It failed in a way that may pass.
          UserError: It failed in another.
        """
        if not self.may_ask(url):
            raise UserError(_elsewhere(url, "the data"))
        look()
        if (early := self._asked + self.pace - self.clock()) > 0:
            self.sleep(early)
        self._asked = self.clock()
        # A packed file is to come as it is.
        own = {"User-Agent": f"jmrec/{__version__}", "Accept-Encoding": "identity"}
        request = urllib.request.Request(url, headers=own | dict(headers), method=method)
        try:
            return self._opener.open(request, timeout=self.timeout)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code in _BUSY:
                wait = _retry_after(error.headers.get("Retry-After"), self.clock())
                raise _Again(f"the server says {error.code}", wait) from None
            if 300 <= error.code < 400:
                to = urllib.parse.urljoin(url, error.headers.get("Location") or "")
                circle = f"{url} leads in a circle; give another base address."
                raise UserError(circle if self.may_ask(to) else _elsewhere(to, url)) from None
            if (error.code == 416 and "Range" in headers) or (
                error.code in (405, 501) and method == "HEAD"
            ):
                raise _NotServed from None
            raise UserError(
                f"{url} can not be had (the server says {error.code}); check the category and the "
                "base address."
            ) from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, ssl.SSLCertVerificationError):
                raise UserError(
                    f"{url}: the server can not prove who it is ({reason.verify_message}); check "
                    "the address, or the certificates of this machine."
                ) from None
            raise _Again(_words(reason)) from None


class _NotServed(Exception):
    """The server has nothing from that byte on, or tells no sizes."""


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect to where the data may come from, with the same method."""

    def __init__(self, web: Web) -> None:
        self.web = web

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request:
        """Return the request to the new address.

        Raises:
          UserError: It leads elsewhere.
        """
        if not self.web.may_ask(newurl):
            fp.close()
            raise UserError(_elsewhere(newurl, req.full_url))
        return urllib.request.Request(newurl, headers=dict(req.headers), method=req.get_method())


class _Transfer:
    """One file on its way into ``part``; what is known of it stands beside in ``part.json``."""

    def __init__(self, web: Web, url: str, part: Path, expected: int | None) -> None:
        self.web, self.url, self.part, self.expected = web, url, part, expected
        self.about = part.with_name(f"{part.name}.json")
        self.known: dict[str, Any] = {}
        self.best, self.failed, self.restarts = 0, 0, 0

    def run(self) -> None:
        """Go on until the file is whole."""
        if self.part.exists() and self.about.exists():
            check_regular(self.part)
            found = read_json(self.about)
            same = isinstance(found, dict) and found.get("url") == self.url
            self.known = found if same and _validator(found) else {}
        while not self._whole():
            try:
                self._ask()
            except _NotServed:
                self._restart("it has no bytes after those that are there")
            except _Again as again:
                have = self._have()
                if have >= self.best + _PROGRESS:
                    self.best, self.failed = have, 0
                self.web._wait(self.url, again, self.failed)
                self.failed += 1

    def _have(self) -> int:
        return self.part.stat().st_size if self.known and self.part.exists() else 0

    def _whole(self) -> bool:
        length = self.known.get("length")
        return length is not None and self.part.exists() and self._have() == length

    def _ask(self) -> None:
        headers, have = {}, self._have()
        if have and _validator(self.known):
            headers = {"Range": f"bytes={have}-", "If-Range": _validator(self.known)}
        with self.web._open(self.url, "GET", headers) as response:
            length = _length(response)
            if response.status == 206 and headers:
                said = _RANGE.fullmatch(response.headers.get("Content-Range") or "")
                total = int(said[3]) if said and int(said[1]) == have else -1
                now = {**_marks(response), "length": total}
                if now != {name: self.known.get(name) for name in now}:
                    return self._restart("the server has another file now")
            else:
                marks = _marks(response)
                if have and marks != {name: self.known.get(name) for name in marks}:
                    self._restart("the server has another file now")
                have = 0
                self.known = {"url": self.url, **marks, "length": length}
                self._check_length(length)
                self.part.write_bytes(b"")
                write_json(self.about, self.known)
            with self.part.open("ab") as file:
                while block := _receive(response):
                    look()
                    file.write(block)
                    have += len(block)
                    self.web.progress(self.url, have, self.known["length"])
                    if have > (MAX_FILE if self.known["length"] is None else self.known["length"]):
                        raise UserError(f"{self.url} goes on after its end; try another mirror.")
        if self.known["length"] is None and response.status == 200:
            self.known["length"] = have  # nothing said how long: the end of the answer is its end
        elif have < self.known["length"]:
            raise _Again(f"it ended after {have:,} of {self.known['length']:,} bytes")

    def _check_length(self, length: int | None) -> None:
        if None not in (length, self.expected) and length != self.expected:
            raise UserError(
                f"{self.url} was said to have {self.expected:,} bytes and has {length:,}; run the "
                "command again to see what it is now."
            )

    def _restart(self, why: str) -> None:
        """Begin anew.

        Raises:
          UserError: It was begun too often.
        """
        self.restarts += 1
        self.part.unlink(missing_ok=True)
        self.known = {}
        if self.restarts > _RESTARTS:
            raise UserError(f"{self.url} can not be had: {why}, again and again; try later.")
        self.web.warn(f"{self.url}: {why}; begun anew.")


def _as_recorded(path: Path, about: Path, sha256: str) -> Fetched:
    """Return what is known of a file that is there.

    Raises:
      UserError: It is not what was downloaded, or not what it should be.
    """
    check_regular(path)
    found = Fetched("", path.stat().st_size, _digest(path))
    recorded = read_json(about) if about.exists() else vars(found)
    if not isinstance(recorded, dict) or recorded.get("sha256") != found.sha256:
        raise UserError(f"{path} is not what was downloaded; delete it and run the command again.")
    if sha256 and found.sha256 != sha256.lower():
        raise UserError(
            f"{path} has the SHA-256 {found.sha256} and should have {sha256.lower()}; delete it "
            "and run the command again, or mend the checksum."
        )
    return Fetched(str(recorded.get("url", "")), found.bytes, found.sha256)


def _split(url: str) -> urllib.parse.SplitResult:
    try:
        parts = urllib.parse.urlsplit(url)
        good = bool(parts.scheme in ("http", "https") and parts.hostname and not parts.username)
        good = good and _port(parts) > 0  # it may be no number
    except ValueError:
        good = False
    if not good or not url.isascii() or not url.isprintable() or " " in url:
        raise UserError(
            f"{url[:200]} is no address that jmrec asks; give one that begins with https:// or "
            "http://."
        )
    return parts


def _port(parts: urllib.parse.SplitResult) -> int:
    return parts.port or {"http": 80, "https": 443}[parts.scheme]


def _elsewhere(url: str, by: str) -> str:
    return (
        f"{by} leads to {url[:200]}, which is no HTTP address of the same host; name the host with "
        "--host if you trust it."
    )


def _receive(response: Any) -> bytes:
    try:
        return bytes(response.read(_BLOCK))
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _Again(_words(error)) from None


def _words(error: object) -> str:
    if isinstance(error, TimeoutError):
        return "the server says nothing"
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"the connection broke ({' '.join(str(said).split())[:80]})"


def _length(response: Any) -> int | None:
    said = response.headers.get("Content-Length") or ""
    return int(said) if said.isdecimal() and len(said) < 16 else None


def _marks(response: Any) -> dict[str, str]:
    """Return what tells one version of a file from another."""
    headers = response.headers
    return {"etag": headers.get("ETag") or "", "modified": headers.get("Last-Modified") or ""}


def _validator(known: Mapping[str, Any]) -> str:
    """Return what a server compares before it goes on, "" where nothing is known."""
    etag = str(known.get("etag") or "")
    return etag if etag.startswith('"') else str(known.get("modified") or "")


def _retry_after(said: str | None, now: float) -> float | None:
    """Return the seconds that a server asks to wait, None where it does not say.

    Example:
      >>> _retry_after("7", 0.0), _retry_after("Thu, 01 Jan 1970 00:01:00 GMT", 20.0)
      (7.0, 40.0)
    """
    if said is None or said.strip().isdecimal():
        return None if said is None else float(said.strip()[:9])
    try:
        return email.utils.parsedate_to_datetime(said).timestamp() - now
    except (ValueError, TypeError, OverflowError):
        return None


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
