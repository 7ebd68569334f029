"""Put `jmrec serve` under load on loopback, renew its artefact meanwhile, ask senseless things.

    python tests/integration/load_serve.py --clients 64 --seconds 60 --renew 3
    python tests/integration/load_serve.py --artefact serve --seconds 60

Without --artefact two small students of random parameters take turns. Each client has one
connection and asks again as soon as it is answered: sessions one by one, and now and then several.
Printed are how many were answered, the latency as clients see it, how much the server's memory
grew, and what came of malformed requests; the exit code is 1 where one answer was wrong, an
artefact was not taken over or a malformed request was not refused by a 4xx with a sentence.
"""

import argparse
import asyncio
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import jax
import numpy as np

from jmrec.evaluation.policy import make_policy
from jmrec.models.parts.transformer import StackConfig
from jmrec.models.sessions.student import StudentConfig, student
from jmrec.serving import Artefact, write

ROOT = Path(__file__).resolve().parents[2]
HOST = "127.0.0.1"
START_SECONDS = 300
"""A server has to listen by then, on a machine that does much else."""


def make_artefact(seed: int, items: int) -> Artefact:
    """Return a student with random parameters, which numpy draws: nothing is compiled."""
    stack = StackConfig(width=32, layers=1, heads=2, kv_heads=1, mlp=64)
    config = StudentConfig(features=32, ids=1024 * -(-items // 1024) + 1024, stack=stack)
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(student(config).init, jax.random.key(0))
    ids = [f"i{row}" for row in range(items)]
    return Artefact(
        student=f"random {seed}",
        config=config,
        params=jax.tree.map(
            lambda each: rng.normal(scale=0.1, size=each.shape).astype(each.dtype), shapes
        ),
        features={"features": rng.normal(size=(items, 32)).astype(np.float32)},
        id_rows=np.arange(items, dtype=np.int32),
        ids=ids,
        titles=[f"Title of {item}" for item in ids],
        policy=make_policy(ids, exclude_seen=True),
        provenance={"run": "none"},
        event_names=[""],
    )


@contextmanager
def serving(artefact: Path, log: Path, *more: str) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """Start the command on a free port; yield the port and the process, and stop it by SIGTERM."""
    command = [sys.executable, "-m", "jmrec", "serve", str(artefact), "--port", "0", *more]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    with log.open("w") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, text=True, env=environment
        )
    try:
        end = time.monotonic() + START_SECONDS
        while " at http://" not in log.read_text():
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"the server did not start:\n{log.read_text()}")
            time.sleep(0.1)
        yield int(log.read_text().partition(f" at http://{HOST}:")[2].split()[0]), process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def memory(process: subprocess.Popen[str]) -> int:
    """Return the bytes that a process holds in memory; 0 where the system does not tell."""
    path = Path(f"/proc/{process.pid}/status")
    lines = path.read_text().splitlines() if path.is_file() else []
    return 1024 * int(next((each.split()[1] for each in lines if each[:6] == "VmRSS:"), 0))


async def answer_of(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """Read one answer: status, headers and body."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in head[1:] if ": " in line)
    return (
        int(head[0].split()[1]),
        headers,
        await reader.readexactly(int(headers.get("content-length", 0))),
    )


def request(body: bytes, path: str = "/recommend", method: str = "POST", more: str = "") -> bytes:
    """Return a request as it goes over the wire."""
    return (
        f"{method} {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n{more}\r\n"
    ).encode() + body


async def ask(port: int, raw: bytes, seconds: float = 15) -> tuple[int, bytes]:
    """Send raw bytes over a connection of their own; return status and body."""
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        writer.write(raw)
        async with asyncio.timeout(seconds):
            status, _, body = await answer_of(reader)
        return status, body
    finally:
        writer.close()


@dataclass
class Seen:
    """What the clients saw."""

    milliseconds: list[float] = field(default_factory=list)
    versions: set[str] = field(default_factory=set)
    errors: list[str] = field(default_factory=list)


async def client(port: int, ids: list[str], until: float, seen: Seen, seed: int) -> None:
    """Ask over one connection until the time is up."""
    rng = random.Random(seed)
    reader, writer = await asyncio.open_connection(HOST, port)
    while time.monotonic() < until:
        several = rng.random() < 0.02
        sessions = [rng.sample(ids, rng.randint(1, 8)) for _ in range(8 if several else 1)]
        asked = {"sessions": sessions} if several else {"session": sessions[0]}
        begin = time.perf_counter()
        try:
            writer.write(request(json.dumps({**asked, "top": 10}).encode()))
            status, headers, body = await answer_of(reader)
        except (OSError, asyncio.IncompleteReadError) as error:
            seen.errors.append(f"a request was dropped: {type(error).__name__}")
            return
        seen.milliseconds.append(1e3 * (time.perf_counter() - begin))
        seen.versions.add(headers.get("x-artefact", ""))
        found = json.loads(body)
        answers = found["answers"] if several else [found]
        right = status == 200 and all(
            len({each["item_id"] for each in one["items"]} - {*session}) == 10
            for one, session in zip(answers, sessions, strict=True)
        )
        if not right:
            seen.errors.append(f"{status}: {body[:200]!r}")
    writer.close()


async def load(
    port: int, folder: Path, ids: list[str], made: list[Artefact], clients: int, seconds: float
) -> Seen:
    """Ask with all clients, and write the artefacts of ``made`` meanwhile, evenly in time."""
    seen, until = Seen(), time.monotonic() + seconds

    async def renew() -> None:
        for artefact in made:
            await asyncio.sleep(seconds / (len(made) + 1))
            await asyncio.to_thread(write, artefact, folder)

    await asyncio.gather(
        renew(), *(client(port, ids, until, seen, seed) for seed in range(clients))
    )
    return seen


def malformed(item: str) -> list[bytes]:
    """Return 200 requests that make no sense; an item's id is in those that nearly do."""
    one = json.dumps(item)
    bodies = [
        "", "{", "[]", "null", "7", '"x"', "{}", "\x00", "{'session': [1]}", "[" * 100_000,
        f'{{"session": {one}}}', '{"session": []}', '{"session": null}', '{"session": 7}',
        '{"session": {}}', '{"session": [[]]}', '{"session": [null]}', '{"session": [true]}',
        '{"session": [1.5]}', '{"session": [{}]}', '{"session": ["not there"]' + "}",
        '{"sessions": []}', f'{{"sessions": [{one}]}}', '{"sessions": [[]]}', '{"sessions": 1}',
        f'{{"sessions": [[{one}], []]}}', f'{{"sessions": [[{one}], null]}}', '{"user": []}',
        '{"user": "eve"}', '{"users": ["eve"]}', '{"items": ["1"]}', '{"SESSION": ["1"]}',
        f'{{"session": [{one}], "sessions": [[{one}]]}}', f'{{"session": [{one}]}} {{}}',
        '{"session": [' + ",".join([one] * 1001) + "]}",
        '{"sessions": [' + ",".join([f"[{one}]"] * 257) + "]}",
        '{"sessions": [' + ",".join([f"[{one}]"] * 256) + '], "top": 1000}',
        '{"session": ["' + "x" * 1001 + '"]}', '{"session": ["' + "x" * 1_000_001 + '"]}',
        '{"session": [' + "9" * 5000 + "]}", '{"session": [NaN]}', '{"session": [Infinity]}',
    ]  # fmt: skip
    values = {
        "top": ['"5"', "2.5", "0", "-1", "null", "true", "[]", "1001", "1e400", "NaN", "9" * 400],
        "at": ['"soon"', '""', "null", "true", "[]", "{}", "1e400", "1760000000000", "9" * 400],
        "times": ["5", '"now"', "[]", "[1, 2]", '["x"]', "[null]", "[true]", "[[1]]", "[1e300]"],
        "events": ["5", '"buy"', "[]", '["buy"]', "[null]", "[7]", '["", ""]', '[["buy"]]'],
        "unknown": ['"maybe"', "null", "1", "true", "[]", '["skip"]', '"SKIP"', '""'],
        "policy": ['"policy.toml"', "null"],
        "__class__": ["1"],
        "": ["1"],
    }
    bodies += [
        f'{{"session": [{one}], {json.dumps(name)}: {value}}}'
        for name, each in values.items() for value in each
    ]  # fmt: skip
    good = json.dumps({"session": [item]}).encode()
    raw = [request(body.encode()) for body in bodies]
    raw += [request(good[:cut]) for cut in range(1, len(good) - 1, 2)]
    raw += [request(b"\xff\xfe" + good), request(good.decode().encode("utf-16"))]
    raw += [request(good, path) for path in ("/", "/recommend/", "/RECOMMEND", "/../etc/passwd",
                                             "/%00", "/recommend%0a", "//", "/docs")]  # fmt: skip
    raw += [
        request(good, method=each) for each in ("GET", "PUT", "DELETE", "PATCH", "X", "OPTIONS")
    ]
    raw += [request(b"", path, "POST") for path in ("/health", "/items", "/schema")]
    raw += [
        request(b"", f"/items?{query}", "GET")
        for query in ("offset=-1", "offset=x", "limit=0", "limit=1001", "limit=", "limit=1e3",
                      "offset=%00", "offset=99999999999999999999", "limit=%F0%9D%9F%99")
    ]  # fmt: skip
    raw += [
        request(good).replace(b"application/json", kind)
        for kind in (b"text/plain", b"", b"application/x-www-form-urlencoded", b"json")
    ]
    raw += [
        request(good).replace(HOST.encode(), host, 1)
        for host in (b"evil.example", b"evil.example:80", b"", b"127.0.0.1.evil.example")
    ]
    raw += [
        b"nonsense\r\n\r\n", b"GET\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"GET /\x00 HTTP/1.1\r\n\r\n",
        b"POST /recommend HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
        b"POST /recommend HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n",
        b"POST /recommend HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        b"POST /recommend HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost : a\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a\r\nx: " + b"y" * 20_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    ]  # fmt: skip
    rng = random.Random(0)
    while len(raw) < 200:  # a good body with one byte that JSON does not know
        at = rng.randrange(len(good) - 1)
        broken = good[:at] + bytes([rng.randrange(1, 9)]) + good[at + 1 :]
        if request(broken) not in raw:
            raw.append(request(broken))
    return raw[:200]


async def refuse_all(port: int, raw: list[bytes]) -> list[str]:
    """Return what was not refused by a 4xx with a sentence."""
    wrong = []
    for each in raw:
        try:
            status, body = await ask(port, each)
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
            wrong.append(f"{each[:120]!r}: {type(error).__name__}")
            continue
        text = body.decode()
        told = json.loads(text).get("error", "") if text.startswith("{") else text
        sentence = told.endswith(".") and 10 < len(told) < 400 and "Traceback" not in told
        if not 400 <= status < 500 or not sentence or "--" in told:
            wrong.append(f"{each[:120]!r}: {status} {text[:200]}")
    return wrong


async def taken_over(port: int, folder: Path) -> bool:
    """Return whether what was written last is served, for which a slow machine has some time."""
    last = hashlib.sha256((folder / "checksums.json").read_bytes()).hexdigest()[:12]
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        _, body = await ask(port, request(b"", "/health", "GET"))
        if json.loads(body)["artefact"] == last:
            return True
        await asyncio.sleep(0.5)
    return False


def main(arguments: list[str]) -> int:
    """Load, renew, ask senseless things; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--artefact", type=Path, help="of sessions; it is copied, not changed")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--renew", type=int, default=3)
    parser.add_argument("--items", type=int, default=2000, help="of the random students")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        folder, log = Path(temporary, "serve"), Path(temporary, "log")
        if args.artefact is None:
            both = [make_artefact(seed, args.items) for seed in (0, 1)]
            write(both[0], folder)
        else:
            from dataclasses import replace

            from jmrec.serving import read

            shutil.copytree(args.artefact, folder)
            first = read(folder)
            both = [first, replace(first, provenance={**first.provenance, "renewed": 1})]
        made = [both[(turn + 1) % 2] for turn in range(args.renew)]
        with serving(folder, log) as (port, process):
            asyncio.run(load(port, folder, both[0].ids, [], 4, min(3, args.seconds / 3)))  # warm
            before = memory(process)
            seen = asyncio.run(load(port, folder, both[0].ids, made, args.clients, args.seconds))
            last = asyncio.run(taken_over(port, folder))
            after = memory(process)
            raw = malformed(both[0].ids[0])
            wrong = asyncio.run(refuse_all(port, raw))
            alive = process.poll() is None
        text = log.read_text()
        renewed = text.count("renewed: ")
        median, late = np.quantile(seen.milliseconds, [0.5, 0.99])
        print(
            f"{len(seen.milliseconds):,} answers to {args.clients} clients in {args.seconds:g} s, "
            f"{len(seen.errors)} errors; median {median:.1f} ms, p99 {late:.1f} ms; {renewed} "
            f"artefacts taken over; memory {before / 1e6:.0f} MB {(after - before) / 1e6:+.1f}; "
            f"{len(raw) - len(wrong)} of {len(raw)} malformed requests refused by a sentence"
        )
        for each in [*seen.errors[:10], *wrong[:10]]:
            print(each)
        # Two that follow one another on a slow machine may be taken over as one.
        good = not seen.errors and not wrong and last and renewed >= min(args.renew, 1) and alive
        good = good and process.returncode == 0 and "Traceback" not in text
        if not good:
            print(text[-2000:])
        return int(not good)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
