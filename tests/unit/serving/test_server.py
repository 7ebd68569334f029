"""The HTTP server in this process: answers, refusals, limits, time-outs, a renewed artefact."""

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from jmrec.errors import UserError
from jmrec.evaluation.policy import Correction, make_policy
from jmrec.evaluation.protocol import Prefixes
from jmrec.serving import Artefact, Served, write
from jmrec.serving.server import run
from jmrec.serving.server.app import BODY, App
from jmrec.serving.server.holder import Held, Holder

IDS = [f"i{row}" for row in range(30)]


class Scores:
    """A ranker: the later in the catalogue the better; it may be slow, or broken."""

    name, wait, broken = "scores", 0.0, False

    def scores(self, prefixes: Prefixes, item_slice: slice) -> np.ndarray:
        time.sleep(self.wait)
        if self.broken:
            raise ZeroDivisionError("a secret of the server")
        values = np.arange(len(IDS), dtype=np.float32)[None, item_slice]
        return np.repeat(values, len(prefixes), 0)


class Users:
    """An artefact of pairs as the server sees one."""

    ids, titles = IDS, IDS

    def recommend(self, user: Any, top: int = 10, **_: Any) -> dict[str, Any]:
        return {"user": str(user), "items": [{"item_id": each} for each in IDS[:top]]}

    def recommend_batch(self, users: list[Any], top: int = 10, **_: Any) -> list[dict[str, Any]]:
        return [self.recommend(user, top) for user in users]


class Fixed:
    """A holder of what never changes."""

    def __init__(self, served: Any) -> None:
        self.held = Held(served, "v1", ())

    def renew(self) -> bool:
        return False


class Running:
    """A server in a thread, and what it logged."""

    def __init__(self, holder: Any, **limits: Any) -> None:
        self.lines: list[str] = []
        self.app = App(holder, self.lines.append, **limits)
        self.socket = run.listen("127.0.0.1", 0)
        self.port = self.socket.getsockname()[1]
        self.server = run.make_server(self.app)
        self.thread = threading.Thread(target=self.server.run, args=([self.socket],), daemon=True)
        self.thread.start()
        wait(lambda: self.server.started)

    def ask(
        self, body: Any = None, path: str = "/recommend", method: str = "", **headers: str
    ) -> tuple[int, Any, dict[str, str]]:
        """Return status, JSON and headers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        kind = {"Content-Type": "application/json"}
        method = method or ("GET" if body is None else "POST")
        connection.request(method, path, raw, {**kind, **headers})
        found = connection.getresponse()
        text = found.read()
        connection.close()
        return found.status, json.loads(text or b"null"), dict(found.getheaders())

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(30)
        assert not self.thread.is_alive()


def wait(done: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def scores() -> Scores:
    return Scores()


@pytest.fixture
def server(scores: Scores) -> Iterator[Running]:
    served = Served(scores, IDS, [f"Title {item}" for item in IDS], make_policy(IDS, True), "here")
    running = Running(Fixed(served), body_seconds=0.5, answer_seconds=1.0)
    yield running
    running.stop()


def test_one_and_many_are_answered(server: Running) -> None:
    status, found, headers = server.ask({"session": ["i29", "gone", "i0"], "top": 2})
    assert (status, headers["x-artefact"]) == (200, "v1")
    assert [each["item_id"] for each in found["items"]] == ["i28", "i27"]
    assert found["items"][0] == {
        "item_id": "i28", "title": "Title i28", "score": 28.0, "pinned": False,
    }  # fmt: skip
    assert found["unknown"] == ["gone"]
    status, found, _ = server.ask({"sessions": [["i1"], ["gone"], ["i29"]], "top": 1})
    assert status == 200
    named = [[each["item_id"] for each in one["items"]] for one in found["answers"]]
    assert named == [["i29"], [], ["i28"]]
    status, found, _ = server.ask({"session": ["i1", "gone"], "unknown": "refuse"})
    assert (status, "item 'gone' is not in the catalogue" in found["error"]) == (422, True)
    # The log: a line each, with milliseconds, and nothing of what was asked.
    assert [line.split()[:3] for line in server.lines] == [
        ["POST", "/recommend", status] for status in ("200", "200", "422")
    ]
    assert all(" ms" in line for line in server.lines)
    assert "for 3" in server.lines[1]
    assert not any("gone" in line or "i1" in line for line in server.lines)
    _, health, _ = server.ask(path="/health")
    assert (health["status"], health["items"], health["answered"]) == ("ok", 30, 4)
    assert 0 < health["median_ms"] <= health["p99_ms"]


def test_items_are_listed_page_by_page(server: Running) -> None:
    pages = [server.ask(path=f"/items?offset={at}&limit=7")[1] for at in range(0, 35, 7)]
    assert [each["item_id"] for page in pages for each in page["items"]] == IDS
    assert pages[0]["total"] == 30
    assert pages[0]["items"][1] == {"item_id": "i1", "title": "Title i1"}
    assert len(server.ask(path="/items")[1]["items"]) == 30


def test_the_schema_tells_what_is_taken(server: Running) -> None:
    _, schema, _ = server.ask(path="/schema")
    check = jsonschema.Draft202012Validator(schema)
    good = [{"session": ["i1"]}, {"session": [7]}, {"sessions": [["i1"]], "top": 3}]
    bad = [{"session": "i1"}, {"session": []}, {"sessions": [[]]}, {"session": ["i1"], "top": 0}]
    for each in good:
        assert check.is_valid(each)
    for each in bad:
        assert not check.is_valid(each)
        assert server.ask(each)[0] == 422


def test_an_artefact_of_pairs_is_asked_for_users() -> None:
    running = Running(Fixed(Users()))
    assert running.ask({"user": 7, "top": 1})[1] == {"user": "7", "items": [{"item_id": "i0"}]}
    status, found, _ = running.ask({"users": ["eve", 7]})
    assert (status, [each["user"] for each in found["answers"]]) == (200, ["eve", "7"])
    assert running.ask({"session": ["i1"]})[0] == 422
    assert running.ask(path="/health")[1]["answers"] == "users"
    running.stop()


def test_a_fault_of_the_server_is_told_to_its_log_alone(server: Running, scores: Scores) -> None:
    scores.broken = True
    status, found, _ = server.ask({"session": ["i1"]})
    assert (status, found) == (500, {"error": "the server has a fault, which its log describes."})
    assert any("ZeroDivisionError: a secret" in line for line in server.lines)
    scores.broken = False
    assert server.ask({"session": ["i1"]})[0] == 200


def test_too_much_and_too_slow_are_refused(server: Running, scores: Scores) -> None:
    large = json.dumps({"session": ["x" * (BODY + 1)]}).encode()
    status, found, headers = server.ask(large)
    assert (status, headers["connection"]) == (413, "close")
    assert found["error"].startswith("a question has at most 1,000,000 bytes")
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as slow:
        slow.sendall(
            b"POST /recommend HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 100\r\n\r\n{"
        )
        assert slow.recv(1000).startswith(b"HTTP/1.1 408 ")
    scores.wait = 3.0
    assert server.ask({"session": ["i1"]})[0] == 503
    scores.wait = 0.0
    wait(lambda: server.ask({"session": ["i1"]})[0] == 200)


def test_headers_that_do_not_end_are_waited_for_only_so_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run, "HEADER_SECONDS", 0.3)
    served = Served(Scores(), IDS, IDS, make_policy(IDS, True), "here")
    running = Running(Fixed(served))
    for begun in (b"", b"GET /health HTT", b"GET /health HTTP/1.1\r\nHost: loc"):
        with socket.create_connection(("127.0.0.1", running.port), timeout=30) as slow:
            slow.sendall(begun)
            assert slow.recv(100) == b""  # the server hung up
    with socket.create_connection(("127.0.0.1", running.port), timeout=30) as kept:
        for _ in range(2):  # a connection that asked may wait for longer, and ask again
            kept.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            found = b""
            while not found.endswith(b"}"):
                found += kept.recv(10_000)
            assert found.startswith(b"HTTP/1.1 200 ")
            time.sleep(0.6)
        kept.sendall(b"GET /health HTT")
        assert kept.recv(100) == b""
    running.stop()


def test_only_the_machine_s_own_names_are_answered(server: Running) -> None:
    for host in ("localhost", f"localhost:{server.port}", "127.0.0.1", "127.8.8.8:1", "[::1]:80"):
        assert server.ask(path="/health", Host=host)[0] == 200
    for host in ("shop.example", "127.0.0.1.shop.example", "localhost.evil:80", ""):
        status, found, _ = server.ask(path="/health", Host=host)
        assert (status, found["error"].endswith(".")) == (421, True)
    assert server.ask(b"{}", Host="localhost", **{"Content-Type": "text/plain"})[0] == 415


def test_a_renewed_artefact_takes_over(artefact: Artefact, tmp_path: Path) -> None:
    folder, told = tmp_path / "serve", []
    write(artefact, folder)
    holder = Holder(folder, None, None, told.append)
    first = holder.held
    assert not holder.renew()
    with pytest.raises(UserError) as told_of:
        first.served.recommend(["gone"])
    assert str(tmp_path) not in str(told_of.value)  # no path goes over the wire
    pinned = replace(artefact, policy=make_policy(artefact.ids, True, Correction(pin=("i07",))))
    write(pinned, folder)
    assert holder.renew()
    assert holder.held.version != first.version
    assert holder.held.served.recommend(["i01"])[0]["item_id"] == "i07"
    # A damaged one is told once, and what was served goes on.
    held = holder.held
    (folder / "items.json").write_text("{}")
    (folder / "checksums.json").write_text("{ }")
    assert not holder.renew()
    assert not holder.renew()
    assert len(told) == 1
    assert "is not served, the older one is" in told[0]
    assert holder.held is held
    (folder / "checksums.json").unlink()
    assert not holder.renew()
    assert len(told) == 1  # half written: waited for
    with pytest.raises(UserError):
        Holder(folder, None, None, told.append)
    with pytest.raises(UserError, match="holds no serving artefact"):
        Holder(tmp_path / "none", None, None, told.append)


def test_no_request_is_dropped_while_an_artefact_is_renewed(
    artefact: Artefact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jmrec.serving.server.app.RENEW_SECONDS", 0.05)
    folder = tmp_path / "serve"
    write(artefact, folder)
    running = Running(Holder(folder, None, None, lambda _: None))
    first = running.ask({"session": ["i01"]})[2]["x-artefact"]
    pinned = replace(artefact, policy=make_policy(artefact.ids, True, Correction(pin=("i07",))))
    write(pinned, folder)
    found: list[tuple[int, str, str]] = []

    def renewed() -> bool:
        status, body, headers = running.ask({"session": ["i01"]})
        found.append((status, headers["x-artefact"], body["items"][0]["item_id"]))
        return found[-1][1] != first

    wait(renewed, 300)
    assert {status for status, *_ in found} == {200}
    # Each answer is of the artefact that it names.
    assert all((item == "i07") == (version != first) for _, version, item in found)
    said = f"renewed: {found[-1][1]}, 40 items"  # an answer may come just before it
    wait(lambda: any(line.startswith(said) for line in running.lines), 300)
    running.stop()


def test_what_can_not_be_listened_on_is_one_sentence(server: Running) -> None:
    with pytest.raises(UserError, match=f"port {server.port} of 127.0.0.1 can not be used"):
        run.listen("127.0.0.1", server.port)
    with pytest.raises(UserError, match=r"no address of this machine|can not be used"):
        run.listen("host.invalid", 80)
