"""A delivery of Amazon Reviews 2023 that is drawn, and a server on this machine that misbehaves."""

import contextlib
import gzip
import hashlib
import json
import random
import re
import threading
import time as clock
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Rows = list[dict[str, Any]]
REVIEWS = "/data/raw/review_categories/All_Beauty.jsonl.gz"
ITEMS = "/data/raw/meta_categories/meta_All_Beauty.jsonl.gz"


def draw_items(count: int, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Yield items in the published form."""
    draw = random.Random(f"items {seed}")
    words = ["soft", "cream", "brush", "hair", "nail", "oil", "rose", "set", "pack", "care"]
    for n in range(count):
        text = [" ".join(draw.choices(words, k=12)) for _ in range(3)]
        picture = f"https://m.media-amazon.com/images/I/{n}"
        yield {
            "main_category": "All Beauty", "title": f"Thing {n} {text[0][:30]}",
            "average_rating": round(draw.uniform(1, 5), 1), "rating_number": draw.randrange(5000),
            "features": text[1:], "description": [text[0]], "price": round(draw.uniform(1, 90), 2),
            "images": [{"thumb": f"{picture}t.jpg", "large": f"{picture}l.jpg", "hi_res": None,
                        "variant": "MAIN"}],
            "videos": [], "store": f"Store {n % 7}", "categories": ["Beauty", text[0][:5]],
            "details": {"Brand": f"Brand {n % 5}", "Best Sellers Rank": {"All Beauty": n}},
            "parent_asin": f"B{n:09d}", "bought_together": None,
        }  # fmt: skip


def draw_reviews(count: int, users: int, items: int, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Yield reviews in the published form, no user's of an item twice, from 2015 to 2023.

    Some users and items have many. Half of the reviews come within hours of the user's one before.
    """
    draw, seen = random.Random(f"reviews {seed}"), set[tuple[int, int]]()
    last: dict[int, int] = {}
    words = ["I", "love", "this", "it", "broke", "after", "a", "week", "nice", "smell", "again"]
    while len(seen) < count:
        user, item = (int(most * draw.random() ** 2) for most in (users, items))
        if (user, item) in seen:
            continue
        seen.add((user, item))
        time = draw.randrange(1_420_000_000_000, 1_690_000_000_000)
        if draw.random() < 0.5:
            time = last.get(user, time) + draw.randrange(20_000_000)
        last[user] = time
        yield {
            "rating": float(draw.randint(1, 5)), "title": " ".join(draw.choices(words, k=3)),
            "text": " ".join(draw.choices(words, k=30)), "images": [], "asin": f"A{item:09d}",
            "parent_asin": f"B{item:09d}", "user_id": f"AE{user:026d}",
            "timestamp": time,
            "helpful_vote": draw.randrange(9), "verified_purchase": draw.random() < 0.9,
        }  # fmt: skip


def lines(rows: Rows) -> bytes:
    """Return rows as JSON lines."""
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def pack(data: bytes) -> bytes:
    """Return gzip; the same bytes each time."""
    return gzip.compress(data, mtime=0)


class Delivery:
    """What the server has and how it behaves.

    Attributes:
      files: Path -> bytes.
      etags: Path -> what tells its version; "" sends none.
      plan: Path -> what the next requests with GET meet, one each; after them all is well.
      log: Method, path and Range of each request.
      sent: Status and bytes of each answer.
    """

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = dict(files)
        self.etags = {path: f'"{hashlib.md5(data).hexdigest()}"' for path, data in files.items()}
        self.plan: dict[str, list[Callable[[Any, str], None]]] = {}
        self.heads: dict[str, Callable[[Any, str], None]] = {}
        self.log: list[tuple[str, str, str]] = []
        self.sent: list[tuple[int, int]] = []

    def put(self, path: str, data: bytes) -> None:
        """Change a file, as a server does that changes its mind."""
        self.files[path], self.etags[path] = data, f'"{hashlib.md5(data).hexdigest()}"'


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    delivery: Delivery

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self._answer(self.delivery.heads.get(self.path, serve))

    def do_GET(self) -> None:
        plan = self.delivery.plan.get(self.path)
        self._answer(plan.pop(0) if plan else serve)

    def _answer(self, how: Callable[[Any, str], None]) -> None:
        self.delivery.log.append((self.command, self.path, self.headers.get("Range") or ""))
        self.close_connection = True
        with contextlib.suppress(ConnectionError):
            how(self, self.path)


def send(
    handler: Any, body: bytes, status: int = 200, length: int | None = -1, **headers: str
) -> None:
    """Send an answer; ``length`` may lie (-1: the truth, None: none is told)."""
    handler.delivery.sent.append((status, len(body)))
    handler.send_response(status)
    for name, value in headers.items():
        if value:
            handler.send_header(name.replace("_", "-"), value)
    if length is not None:
        handler.send_header("Content-Length", str(len(body) if length == -1 else length))
    handler.send_header("Connection", "close")
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(body)


def serve(handler: Any, path: str, *, ranges: bool = True, honest: bool = True) -> None:
    """Send a file, or its end where that is asked for and the file is still the same."""
    have = handler.delivery
    if path not in have.files:
        return send(handler, b"no such file", 404)
    data, etag = have.files[path], have.etags[path]
    asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range") or "")
    if asked and ranges and (not honest or handler.headers.get("If-Range") == etag):
        start = int(asked[1])
        if start >= len(data):
            return send(handler, b"", 416, ETag=etag)
        told = f"bytes {start}-{len(data) - 1}/{len(data)}"
        return send(handler, data[start:], 206, ETag=etag, Content_Range=told)
    return send(handler, data, ETag=etag)


def drop(after: int) -> Callable[[Any, str], None]:
    """Send a part and go away."""

    def how(handler: Any, path: str) -> None:
        data = handler.delivery.files[path]
        asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range") or "")
        start = int(asked[1]) if asked else 0
        told = f"bytes {start}-{len(data) - 1}/{len(data)}" if asked else ""
        etag = handler.delivery.etags[path]
        part, left = data[start : start + after], len(data) - start
        send(handler, part, 206 if asked else 200, left, ETag=etag, Content_Range=told)

    return how


def status(code: int, **headers: str) -> Callable[[Any, str], None]:
    """Send nothing but a status."""
    return lambda handler, path: send(handler, b"sorry", code, **headers)


def then(change: Callable[[Delivery], None], how: Callable[[Any, str], None] = serve) -> Any:
    """Change something of the delivery, then behave."""

    def both(handler: Any, path: str) -> None:
        change(handler.delivery)
        how(handler, path)

    return both


def garble(handler: Any, path: str) -> None:
    """Say what is no HTTP."""
    handler.wfile.write(b"hello\r\n\r\nI am no server")


def silence(handler: Any, path: str) -> None:
    """Say nothing for longer than anybody waits."""
    clock.sleep(0.4)


def chunks(handler: Any, path: str) -> None:
    """Send a file in chunks, the last one cut."""
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.wfile.write(b"400\r\n" + handler.delivery.files[path][:500])


@contextlib.contextmanager
def serving() -> Iterator[tuple[str, type[_Handler]]]:
    """Serve on a port of this machine; yield the base address and what to set a delivery on."""
    handler = type("Handler", (_Handler,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/data", handler
    finally:
        server.shutdown()
        server.server_close()
