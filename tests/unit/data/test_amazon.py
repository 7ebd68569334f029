"""Amazon Reviews 2023: damaged and hostile deliveries, and what a whole one becomes."""

import gzip
import hashlib
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq
import pytest

from jmrec.data import amazon_rows
from jmrec.data.amazon import DOWNLOADS, make_folder
from jmrec.data.downloads import TRIES, Web
from jmrec.errors import UserError
from tests.unit.data.amazon_delivery import (
    ITEMS,
    REVIEWS,
    Delivery,
    chunks,
    draw_items,
    draw_reviews,
    drop,
    garble,
    lines,
    pack,
    send,
    serve,
    serving,
    silence,
    status,
    then,
)

THINGS = list(draw_items(30))
SAID = list(draw_reviews(240, 24, 30))
WHOLE = {REVIEWS: pack(lines(SAID)), ITEMS: pack(lines(THINGS))}
FILES = {REVIEWS: "All_Beauty.jsonl.gz", ITEMS: "meta_All_Beauty.jsonl.gz"}


class Made(NamedTuple):
    """One try to make a folder."""

    error: str
    warnings: list[str]
    waits: list[float]
    folder: Path

    def rows(self, name: str) -> Any:
        return pq.read_table(self.folder / name).to_pylist()


Make = Callable[..., Made]


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, Any]]:
    with serving() as found:
        yield found


@pytest.fixture
def make(server: tuple[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Make a folder of a delivery; nobody really waits."""
    monkeypatch.setenv("no_proxy", "*")
    base, handler = server

    def once(delivery: Delivery, base: str = base, sums: dict[str, str] | None = None) -> Made:
        handler.delivery = delivery
        waits: list[float] = []
        said: list[str] = []
        now = [1_000_000.0]

        def sleep(seconds: float) -> None:
            waits.append(seconds)
            now[0] += seconds

        try:
            web = Web(base, sleep=sleep, clock=lambda: now[0], timeout=0.2, warn=said.append)
            make_folder(tmp_path / "shop", "All_Beauty", web, sums=sums, warn=said.append)
        except UserError as error:
            return Made(str(error), said, waits, tmp_path / "shop")
        return Made("", said, waits, tmp_path / "shop")

    return once


@pytest.fixture(scope="module")
def right(server: tuple[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The tables of a whole delivery."""
    base, handler = server
    folder = tmp_path_factory.mktemp("right") / "shop"
    handler.delivery = Delivery(WHOLE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("no_proxy", "*")
        make_folder(folder, "All_Beauty", Web(base))
    return Made("", [], [], folder)


class Case(NamedTuple):
    """A delivery and what has to become of it.

    Attributes:
      name: Of the test.
      damage: Changes a whole delivery.
      says: "" where all is resumed in silence or with a wait; else a part of the one sentence.
      refused: Whether nothing is made; else it is made, and what is said is counted.
      reviews: How many interactions there are more, where rows are lost.
    """

    name: str
    damage: Callable[[Delivery], Any]
    says: str = ""
    refused: bool = False
    reviews: int = 0


def plan(path: str, *how: Any) -> Callable[[Delivery], Any]:
    return lambda delivery: delivery.plan.update({path: list(how)})


def head(path: str, how: Any) -> Callable[[Delivery], Any]:
    return lambda delivery: delivery.heads.update({path: how})


def with_lines(path: str, change: Callable[[list[bytes]], list[bytes]]) -> Callable[..., Any]:
    def damage(delivery: Delivery) -> None:
        rows = gzip.decompress(WHOLE[path]).splitlines(keepends=True)
        delivery.put(path, pack(b"".join(change(rows))))

    return damage


def with_row(path: str, at: int = 5, **cells: Any) -> Callable[..., Any]:
    """Change cells of a row; a cell that is None is taken out."""

    def change(rows: list[bytes]) -> list[bytes]:
        row = json.loads(rows[at]) | cells
        row = {k: v for k, v in row.items() if v is not None}
        return [*rows[:at], json.dumps(row).encode() + b"\n", *rows[at + 1 :]]

    return with_lines(path, change)


def more(path: str, line: bytes) -> Callable[..., Any]:
    return with_lines(path, lambda rows: [*rows[:5], line, *rows[5:]])


def lies_of_206(handler: Any, path: str) -> None:
    """Go on with another file, whatever the server was asked to compare."""
    handler.delivery.put(path, pack(lines(SAID[1:])))
    serve(handler, path, honest=False)


def changed(delivery: Delivery) -> None:
    delivery.put(REVIEWS, pack(lines(SAID[:-1])))


def no_marks(delivery: Delivery) -> None:
    delivery.etags[REVIEWS] = ""


def both(*damages: Callable[[Delivery], Any]) -> Callable[[Delivery], Any]:
    return lambda delivery: [each(delivery) for each in damages]


AGAIN = [drop(900)] * (TRIES - 1)
BOMB = pack(b" " * 999 + b"\n" + b" " * 3_000_000)
CASES = [
    # The connection.
    Case("drop at once", plan(REVIEWS, drop(0))),
    Case("drop in the middle", plan(REVIEWS, drop(1500))),
    Case("drop five times", plan(REVIEWS, *AGAIN)),
    Case("drop one byte before the end", plan(REVIEWS, drop(len(WHOLE[REVIEWS]) - 1))),
    Case("drop both files", both(plan(REVIEWS, drop(700)), plan(ITEMS, drop(300)))),
    Case("drop always", plan(REVIEWS, *[drop(0)] * 99), "can not be had", True),
    Case("no HTTP", plan(REVIEWS, garble)),
    Case("no HTTP ever", plan(REVIEWS, *[garble] * 99), "can not be had", True),
    Case("silence", plan(ITEMS, silence)),
    Case("chunks that end early", plan(REVIEWS, chunks)),
    Case("no length", plan(REVIEWS, lambda h, p: send(h, WHOLE[p], length=None))),
    # What a busy server says.
    Case("429", plan(REVIEWS, status(429, Retry_After="7"))),
    Case("429 to a date", plan(REVIEWS, status(429, Retry_After="Mon, 12 Jan 1970 13:47:00 GMT"))),
    Case("429 for a day", plan(REVIEWS, status(429, Retry_After="86400")), "86,400 seconds", True),
    Case("503 after a drop", plan(REVIEWS, drop(800), status(503), status(503))),
    Case("500 thrice", plan(ITEMS, *[status(500)] * 3)),
    Case("500 always", plan(ITEMS, *[status(500)] * 99), "says 500", True),
    Case("429 to HEAD", head(REVIEWS, status(429, Retry_After="1")), "says 429", True),
    Case("no HEAD", head(REVIEWS, status(405))),
    Case("404", head(ITEMS, status(404)), "says 404", True),
    Case("403 at GET", plan(REVIEWS, status(403)), "says 403", True),
    # What goes on with another file.
    Case("no ranges", plan(REVIEWS, drop(900), lambda h, p: serve(h, p, ranges=False))),
    Case("no marks", both(no_marks, plan(REVIEWS, drop(900)))),
    Case("changes its mind", plan(REVIEWS, drop(900), then(changed)), "was said to have", True),
    Case("goes on with another", plan(REVIEWS, drop(900), lies_of_206), "was said", True),
    Case("416", plan(REVIEWS, drop(900), status(416))),
    Case("changed after HEAD", plan(ITEMS, then(lambda d: d.put(ITEMS, pack(b"{}\n")))),
         "was said to have", True),
    # Lengths, checksums, and what is no gzip.
    Case("too long a length", plan(REVIEWS, lambda h, p: send(h, WHOLE[p], length=99_999)),
         "was said to have", True),
    Case("too long a length, also told",
         both(head(REVIEWS, lambda h, p: send(h, b"", length=99_999)),
              plan(REVIEWS, *[lambda h, p: send(h, WHOLE[p], length=99_999)] * 99)),
         "can not be had", True),
    Case("too short a length",
         both(head(REVIEWS, lambda h, p: send(h, b"", length=500)),
              plan(REVIEWS, lambda h, p: send(h, WHOLE[p], length=500))), "cut", True),
    Case("cut gzip", lambda d: d.put(REVIEWS, WHOLE[REVIEWS][:-300]), "cut or damaged", True),
    Case("gzip without its end", lambda d: d.put(ITEMS, WHOLE[ITEMS][:-4]), "cut", True),
    Case("flipped bits", lambda d: d.put(REVIEWS, WHOLE[REVIEWS][:900] + b"\xff" * 9
                                         + WHOLE[REVIEWS][909:]), "can not be unpacked", True),
    Case("a web page", lambda d: d.put(REVIEWS, b"<html>Sign in</html>"), "unpacked", True),
    Case("empty", lambda d: d.put(REVIEWS, b""), "no review", True),
    Case("wrong checksum", lambda d: None, "should have", True),
    Case("bomb", lambda d: d.put(REVIEWS, BOMB), "decompression bomb", True),
    Case("bomb of one line", lambda d: d.put(ITEMS, pack(b"{" * 3_000_000)), "bomb", True),
    # Elsewhere.
    Case("to a file", plan(REVIEWS, status(302, Location="file:///etc/passwd")), "no HTTP", True),
    Case("to another host", head(ITEMS, status(301, Location="http://10.0.0.1/x")), "--host", True),
    Case("to another port", plan(ITEMS, status(307, Location="http://127.0.0.1:9/")), "--ho", True),
    Case("in a circle", plan(ITEMS, *[status(302, Location=ITEMS)] * 99), "in a circle", True),
    Case("to where it is", plan(ITEMS, status(302, Location=ITEMS))),
    # Lines.
    Case("broken lines", more(REVIEWS, b'{"rating": 5, "tit\n\xff\xfe\n[1]\n17\nnull\n'),
         "no JSON object, so perhaps cut; it is left out (lines like that: 5)"),
    Case("line of 10 MB", more(ITEMS, b'{"title": "' + b"x" * 10_000_000 + b'"}\n'), "more than"),
    Case("deep line", more(REVIEWS, b"[" * 50_000 + b"\n"), "no JSON object"),
    Case("most lines broken", with_lines(REVIEWS, lambda r: [b"?\n"] * 600 + r), "of 840", True),
    Case("no key", with_row(REVIEWS, user_id=None), "no user_id", reviews=-1),
    Case("no time", with_row(REVIEWS, timestamp="soon"), "no timestamp", reviews=-1),
    Case("no rating", with_row(REVIEWS, rating="good"), "no rating"),
    Case("item without id", with_row(ITEMS, parent_asin=17), "no parent_asin"),
    Case("items missing", with_lines(ITEMS, lambda rows: rows[:-9]), "missing, such as"),
    Case("duplicates", with_lines(REVIEWS, lambda rows: rows + rows), "reviews left out: 240"),
    Case("items twice", with_lines(ITEMS, lambda rows: rows + rows), "a second line of an item"),
    Case("price", with_row(ITEMS, price="ask us"), "a price that is no number"),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_damaged_delivery_is_resumed_refused_or_counted(
    case: Case, make: Make, right: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And once the server has mended it, the folder is made all the same."""
    if "bomb" in case.name:
        monkeypatch.setattr(amazon_rows, "BOMB_BYTES", 1_000_000)
    delivery = Delivery(WHOLE)
    case.damage(delivery)
    sums = {FILES[REVIEWS]: "0" * 64} if case.name == "wrong checksum" else None
    made = make(delivery, sums=sums)
    tables = sorted(path.name for path in right.folder.iterdir())
    if case.refused:
        assert case.says in made.error, made
        assert made.error.endswith(".")
        assert "\n" not in made.error
        assert sorted(p.name for p in made.folder.iterdir()) in (
            [DOWNLOADS, "workdir.lock"], ["workdir.lock"],
        )  # fmt: skip
        for name in FILES.values():  # as the sentence says
            if "delete it" in made.error and name in made.error:
                (made.folder / DOWNLOADS / name).unlink(missing_ok=True)
        made = make(Delivery(WHOLE))
    assert made.error == ""
    assert sorted(path.name for path in made.folder.iterdir()) == tables
    if case.says and not case.refused:
        assert len([each for each in made.warnings if case.says in each]) == 1, made.warnings
        assert all("\n" not in each for each in made.warnings)
    events, catalogue = made.rows("interactions.parquet"), made.rows("items.parquet")
    assert len(events) == 240 + case.reviews
    assert {row["parent_asin"] for row in catalogue} == {row["parent_asin"] for row in THINGS}
    if case.refused or not case.says:
        for name in tables:
            if name.endswith((".parquet", ".toml")):
                assert (made.folder / name).read_bytes() == (right.folder / name).read_bytes()


def test_there_are_fifty() -> None:
    assert len(CASES) >= 50
    assert len({case.name for case in CASES}) == len(CASES)


def test_a_part_goes_on_where_it_was(make: Make) -> None:
    """In one run, and in the next one; what is whole is not asked for again."""
    size = len(WHOLE[REVIEWS])
    delivery = Delivery(WHOLE)
    delivery.plan[REVIEWS] = [drop(1500), drop(300), *[drop(0)] * 4, *[drop(0)] * 99]
    made = make(delivery)
    assert "can not be had" in made.error
    assert made.waits == [1.0, 2.0, 4.0, 8.0, 16.0]
    asked = [ranges for method, path, ranges in delivery.log if (method, path) == ("GET", REVIEWS)]
    assert asked == ["", "bytes=1500-", *["bytes=1800-"] * 4]
    part = made.folder / DOWNLOADS / f"{FILES[REVIEWS]}.part"
    assert part.read_bytes() == WHOLE[REVIEWS][:1800]

    delivery = Delivery(WHOLE)
    made = make(delivery)
    assert made.error == ""
    log = [(method, ranges) for method, path, ranges in delivery.log if path == REVIEWS]
    assert log == [("HEAD", ""), ("GET", "bytes=1800-")]
    assert (206, size - 1800) in delivery.sent
    assert (made.folder / DOWNLOADS / FILES[REVIEWS]).read_bytes() == WHOLE[REVIEWS]
    source = json.loads((made.folder / "source.json").read_text())
    assert source["files"][FILES[REVIEWS]] == {
        "url": delivery_url(made, source), "bytes": size,
        "sha256": hashlib.sha256(WHOLE[REVIEWS]).hexdigest(),
    }  # fmt: skip
    delivery = Delivery(WHOLE)
    assert make(delivery).error == ""
    assert delivery.log == []
    (made.folder / DOWNLOADS / FILES[REVIEWS]).write_bytes(WHOLE[REVIEWS][:-1])
    assert "is not what was downloaded; delete it" in make(delivery).error


def delivery_url(made: Made, source: Any) -> str:
    url = str(source["files"][FILES[REVIEWS]]["url"])
    assert url.startswith("http://127.0.0.1:")
    assert url.endswith(REVIEWS)
    return url


def test_another_file_does_not_go_on_in_the_part_of_the_first(make: Make, right: Made) -> None:
    delivery = Delivery(WHOLE)
    delivery.plan[REVIEWS] = [drop(1500)] * 99
    delivery.plan[REVIEWS] = [drop(1500), *[status(503)] * 99]
    assert "says 503" in make(delivery).error
    delivery = Delivery(WHOLE)
    delivery.put(REVIEWS, pack(lines(SAID[:-1])))
    made = make(delivery)
    assert made.error == ""
    assert any("another file now" in each for each in made.warnings)
    assert len(made.rows("interactions.parquet")) == len(right.rows("interactions.parquet")) - 1


def test_nothing_is_made_of_two_files_of_one_size(make: Make) -> None:
    """The server goes on with another one, though it was asked to compare."""
    one, other = (
        gzip.compress(lines([row | {"rating": rating} for row in SAID]), 0, mtime=0)
        for rating in (2.0, 4.0)
    )
    assert len(one) == len(other)
    delivery = Delivery(WHOLE | {REVIEWS: one})

    def lie(handler: Any, path: str) -> None:
        delivery.put(REVIEWS, other)
        serve(handler, path, honest=False)

    delivery.plan[REVIEWS] = [drop(len(one) // 2), lie]
    made = make(delivery)
    assert made.error == ""
    assert (made.folder / DOWNLOADS / FILES[REVIEWS]).read_bytes() == other


def test_a_server_is_waited_for_as_it_asks(make: Make) -> None:
    delivery = Delivery(WHOLE)
    date = "Mon, 12 Jan 1970 13:47:20 GMT"  # the clock starts 40 seconds before it
    delivery.plan[REVIEWS] = [
        status(429, Retry_After="7"), status(503, Retry_After="33"), status(503, Retry_After=date),
        status(500), status(503, Retry_After="soon"),
    ]  # fmt: skip
    made = make(delivery)
    assert made.error == ""
    assert made.waits == [7.0, 33.0, 0.0, 8.0, 16.0]


def test_files_that_are_there_are_taken_and_no_server_is_asked(make: Make, right: Made) -> None:
    folder = right.folder.parent / "own"
    there = make(Delivery({})).folder / DOWNLOADS
    there.mkdir(parents=True)
    for path, name in FILES.items():
        (there / name).write_bytes(WHOLE[path])
    delivery = Delivery({})
    made = make(delivery)
    assert made.error == ""
    assert delivery.log == []
    assert not folder.exists()
    name = "interactions.parquet"
    assert (made.folder / name).read_bytes() == (right.folder / name).read_bytes()
    # Their checksums beside them, right and wrong.
    sums = {name: hashlib.sha256(WHOLE[path]).hexdigest() for path, name in FILES.items()}
    (there / "SHA256SUMS").write_text("".join(f"{d}  x/{n}\n" for n, d in sums.items()))
    assert make(delivery).error == ""
    (there / FILES[ITEMS]).write_bytes(WHOLE[ITEMS] + b"\0")
    assert "should have" in make(delivery).error
    (there / "SHA256SUMS").write_text("what is this?\n")
    assert "SHA256SUMS, line 1" in make(delivery).error


@pytest.mark.parametrize(
    "base", ["file:///etc", "ftp://host/x", "http://", "/etc", "http://me@host/", "http://h:port/"]
)
def test_a_base_is_an_address_of_http(base: str, make: Make) -> None:
    assert "no address that jmrec asks" in make(Delivery(WHOLE), base=base).error


def test_where_a_redirect_may_lead() -> None:
    web = Web("https://data.org/a", ["Mirror.org"])
    for url in ("https://data.org/b", "https://data.org:443/b", "https://mirror.org/x"):
        assert web.may_ask(url), url
    for url in (
        "http://data.org/b", "https://data.org:8443/b", "https://data.org.evil.com/", "file:///x",
        "https://data.org@evil.com/", "//data.org/b", "https://mirror.org:22/", "https://10.0.0.1/",
        "https://data.org/ b", "https://data.org/\n", "data:text/plain,x", "http://data.org:443/b", "http://mirror.org/x",
    ):  # fmt: skip
        assert not web.may_ask(url), url
    assert Web("http://data.org").may_ask("https://data.org/b")


def test_the_order_of_the_lines_does_not_matter_to_a_user(make: Make, right: Made) -> None:
    mixed = list(SAID)
    random.Random(1).shuffle(mixed)
    made = make(Delivery(WHOLE | {REVIEWS: pack(lines(mixed))}))
    for name in ("interactions.parquet", "interactions_5core.parquet"):
        rows = [sorted(map(str, each.rows(name))) for each in (made, right)]
        assert rows[0] == rows[1]


def test_a_kill_while_tables_are_made_leaves_the_old_ones(
    make: Make, monkeypatch: pytest.MonkeyPatch, right: Made
) -> None:
    folder = make(Delivery(WHOLE)).folder
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    there = folder / DOWNLOADS
    (there / FILES[REVIEWS]).write_bytes(pack(lines(SAID[:99])))
    (there / f"{FILES[REVIEWS]}.json").unlink()
    with monkeypatch.context() as patch:
        patch.setattr("jmrec.data.amazon.core_of", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            make(Delivery({}))
    after = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    before.pop("workdir.lock"), after.pop("workdir.lock")
    assert after == before
    assert not list(folder.rglob("*.tmp"))
    assert not (folder / "changes").exists()
    # A description that somebody has edited stays; one that is missing comes back.
    (folder / "dataset.toml").write_text("# mine\n")
    (folder / "reviews.toml").unlink()
    made = make(Delivery({}))
    assert len(made.rows("interactions.parquet")) == 99
    assert (folder / "dataset.toml").read_text() == "# mine\n"
    assert (folder / "reviews.toml").read_bytes() == (right.folder / "reviews.toml").read_bytes()
