"""Texts on disk, one line each: a describing that was killed loses no batch that was done."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jmrec.cluster.member import first
from jmrec.errors import UserError
from jmrec.systems.mmrec.writers.writer import Source, Writer
from jmrec.tracking.jsonl import mend_lines, read_lines

TEXTS = "texts.jsonl"
"""The usual name of the file in a stage's folder."""


def describe(
    writer: Writer, sources: Sequence[Source], path: Path, progress: Any = None
) -> list[str]:
    """Return a text for each source: from disk where the same writer wrote it, else written now.

    The first process of a job writes, batch by batch, and each batch is on the disk before the
    next one begins; the others wait and read the file. In the end the file has one line for each
    source, in their order, and nothing else: the same bytes, however often it was killed.

    Args:
      writer: Who writes. What another writer, or one with other settings, wrote is not used.
      sources: S sources with different keys. Of one that has changed the text is written anew.
      path: The file, in the folder of a stage.
      progress: Has ``update(n)``, and is told how many texts are there; None shows nothing.

    Returns:
      S texts.

    Raises:
      UserError: Two sources have one key, or the file is not what was written.
    """
    if len({source.key for source in sources}) != len(sources):
        raise UserError("two sources have the same key; give every source a key of its own.")
    first(lambda: _write_missing(writer, sources, path, progress))
    texts = read_texts(path)
    if missing := [source.key for source in sources if source.key not in texts]:
        raise UserError(f"{path} lacks {missing[0]!r}; is it on a disk that all processes share?")
    return [texts[source.key] for source in sources]


def read_texts(path: Path) -> dict[str, str]:
    """Return key -> text of a file that `describe` wrote, in its order.

    Raises:
      UserError: It is missing.
    """
    if not path.exists():
        raise UserError(f"{path} is missing; run the stage that describes again.")
    return {entry["key"]: entry["text"] for entry in _entries(path).values()}


def source_hash(provenance: Mapping[str, str], source: Source) -> str:
    """Return the hash of all that decides a text.

    Args:
      provenance: The writer's.
      source: What is described. Its key is only its name, and does not count.

    Example:
      >>> one, other = Source("a", reviews=("good",)), Source("a", reviews=("go", "od"))
      >>> source_hash({}, one) == source_hash({}, Source("b", reviews=("good",)))
      True
      >>> source_hash({}, one) == source_hash({}, other)
      False
    """
    picture = hashlib.sha256(source.picture).hexdigest()
    parts = [dict(provenance), source.title, source.facts, list(source.reviews), picture]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _write_missing(writer: Writer, sources: Sequence[Source], path: Path, progress: Any) -> None:
    provenance = writer.provenance
    hashes = [source_hash(provenance, source) for source in sources]
    mend_lines(path)
    known = _entries(path) if path.exists() else {}
    done: dict[int, str] = {
        n: known[source.key]["text"]
        for n, source in enumerate(sources)
        if source.key in known and known[source.key]["hash"] == hashes[n]
    }
    _tell(progress, len(done))
    todo = [n for n in range(len(sources)) if n not in done]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="ascii") as file:
        for batch in writer.batches([sources[n] for n in todo]):
            places = [todo[n] for n in batch]
            texts = writer.write([sources[n] for n in places])
            done.update(zip(places, texts, strict=True))
            file.write("".join(_line(sources[n], hashes[n], done[n]) for n in places))
            file.flush()
            os.fsync(file.fileno())
            _tell(progress, len(places))
    whole = "".join(_line(source, hashes[n], done[n]) for n, source in enumerate(sources))
    if path.read_text(encoding="ascii") != whole:
        side = path.with_name(f"{path.name}.tmp")
        side.write_text(whole, encoding="ascii")
        side.replace(path)


def keep_texts(path: Path, out: Path, kept: Sequence[tuple[str, str]]) -> None:
    """Write some texts of a file under other keys.

    Args:
      path: What `describe` wrote.
      out: The file to write.
      kept: (new key, key in ``path``), in the order in which they are written.
    """
    known = _entries(path)
    lines = [json.dumps({**known[old], "key": new}) + "\n" for new, old in kept]
    out.write_text("".join(lines), encoding="ascii")


def _line(source: Source, digest: str, text: str) -> str:
    return json.dumps({"key": source.key, "hash": digest, "text": text}) + "\n"


def _entries(path: Path) -> dict[str, dict[str, str]]:
    """Return key -> entry; of several lines of one key the last, and only whole ones count."""
    return {
        entry["key"]: entry
        for _, entry in read_lines(path)
        if all(isinstance(entry.get(name), str) for name in ("key", "hash", "text"))
    }


def _tell(progress: Any, count: int) -> None:
    if progress is not None and count:
        progress.update(count)
