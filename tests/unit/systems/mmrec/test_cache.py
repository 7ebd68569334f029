"""Texts on disk: killed anywhere and started again, they are those of a run that was not."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from jmrec.cluster import member
from jmrec.errors import UserError
from jmrec.systems.mmrec.cache import TEXTS, describe, read_texts
from jmrec.systems.mmrec.writers.writer import Source

SOURCES = [Source(f"item {n}", reviews=(f"review {n}\u2028é",) * (n % 3)) for n in range(7)]
WANT = [f"{n % 3} reviews of item {n}\u2028\n" for n in range(7)]


@dataclass
class Pen:
    """Writes two at a time, the last ones first; dies at its batch number ``dies``."""

    name: str = "pen"
    dies: int = -1
    written: list[str] = field(default_factory=list)

    @property
    def provenance(self) -> dict[str, str]:
        return {"writer": self.name}

    def batches(self, sources: Sequence[Source]) -> list[list[int]]:
        order = list(range(len(sources)))[::-1]
        return [order[n : n + 2] for n in range(0, len(order), 2)]

    def write(self, sources: Sequence[Source]) -> list[str]:
        if len(self.written) // 2 == self.dies:
            raise KeyboardInterrupt
        self.written += [source.key for source in sources]
        return [f"{len(s.reviews)} reviews of {s.key}\u2028\n" for s in sources]


@dataclass
class Counter:
    count: int = 0

    def update(self, n: int = 1) -> None:
        self.count += n


def test_killed_at_any_batch_it_goes_on(tmp_path: Path) -> None:
    assert describe(Pen(), SOURCES, tmp_path / "whole" / TEXTS) == WANT
    whole = (tmp_path / "whole" / TEXTS).read_bytes()
    for dies in range(4):
        path = tmp_path / str(dies) / TEXTS
        with pytest.raises(KeyboardInterrupt):
            describe(Pen(dies=dies), SOURCES, path)
        pen, bar = Pen(), Counter()
        assert describe(pen, SOURCES, path, bar) == WANT
        assert len(pen.written) == 7 - 2 * dies
        assert bar.count == 7
        assert path.read_bytes() == whole
        again = Pen(dies=0)
        assert describe(again, SOURCES, path) == WANT
        assert again.written == []


def test_cut_at_any_byte_it_goes_on(tmp_path: Path) -> None:
    path = tmp_path / TEXTS
    describe(Pen(), SOURCES, path)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        pen = Pen()
        assert describe(pen, SOURCES, path) == WANT
        assert len(pen.written) == 7 - whole[:length].count(b"\n")
        assert path.read_bytes() == whole


def test_another_writer_or_other_sources_are_written_anew(tmp_path: Path) -> None:
    path = tmp_path / TEXTS
    describe(Pen(), SOURCES, path)
    pen = Pen("quill")
    describe(pen, SOURCES, path)
    assert len(pen.written) == 7
    for changed in (
        replace(SOURCES[2], title="new"), replace(SOURCES[2], facts="new"),
        replace(SOURCES[2], picture=b"new"), replace(SOURCES[2], reviews=("new",)),
        replace(SOURCES[2], reviews=()),
    ):  # fmt: skip
        pen = Pen("quill")
        describe(pen, [*SOURCES[:2], changed, *SOURCES[3:]], path)
        assert pen.written == ["item 2"]
    # Fewer sources: what is not asked for any more is not kept. A new one is the only one written.
    pen = Pen("quill")
    describe(pen, [*SOURCES[3:], Source("item 9")], path)
    assert pen.written == ["item 9"]
    assert list(read_texts(path)) == ["item 3", "item 4", "item 5", "item 6", "item 9"]


def test_broken_lines_and_keys(tmp_path: Path) -> None:
    path = tmp_path / TEXTS
    with pytest.raises(UserError, match="is missing"):
        read_texts(path)
    with pytest.raises(UserError, match="the same key"):
        describe(Pen(), [SOURCES[0], SOURCES[0]], path)
    describe(Pen(), SOURCES, path)
    lines = path.read_text().splitlines(keepends=True)
    lines[1] = '{"key": "item 1", "hash": 3}\n'
    lines[2] = "}{\n"
    lines[3] = json.dumps(["item 3"]) + "\n"
    path.write_text("".join(lines))
    pen = Pen()
    assert describe(pen, SOURCES, path) == WANT
    assert sorted(pen.written) == ["item 1", "item 2", "item 3"]
    assert describe(Pen(), [], tmp_path / "empty" / TEXTS) == []


def test_only_the_first_process_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, pen, asked = tmp_path / TEXTS, Pen(), []
    describe(Pen(), SOURCES, path)
    before = path.read_bytes()

    def another(work: object) -> None:
        asked.append(work)

    monkeypatch.setattr("jmrec.systems.mmrec.cache.first", another)
    assert describe(pen, SOURCES, path) == WANT
    assert pen.written == []
    assert len(asked) == 1
    assert path.read_bytes() == before
    path.unlink()
    with pytest.raises(UserError, match="is missing"):
        describe(pen, SOURCES, path)
    assert member.is_first()
