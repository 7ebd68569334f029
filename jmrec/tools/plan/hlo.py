"""Collectives of a compiled program, read from its HLO text."""

import math
import re
from collections import defaultdict
from dataclasses import dataclass, field

KINDS = (
    "all-reduce", "all-gather", "reduce-scatter", "all-to-all", "ragged-all-to-all",
    "collective-permute", "collective-broadcast",
)  # fmt: skip
_HEADER = re.compile(r"^(ENTRY )?%?(?P<name>[\w.\-]+) .*-> .*\{$")
_COLLECTIVE = re.compile(rf"(?P<kind>{'|'.join(KINDS)})(?P<start>-start)?\(")
_ARRAY = re.compile(r"\b(?P<type>pred|bf16|[suf]\d+\w*|c64|c128)\[(?P<dims>[\d,]*)\]")
_CALLED = re.compile(
    r"\b(?P<how>body|condition|calls|to_apply|branch_computations|true_computation|"
    r"false_computation|called_computations)=(?P<names>%[\w.\-]+|\{[^}]*\})"
)
_TURNS = re.compile(r'known_trip_count"?\s*[:=]\s*\{"?n"?\s*[:=]\s*"?(\d+)')


@dataclass
class _Computation:
    found: dict[str, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))
    calls: list[tuple[str, int]] = field(default_factory=list)


def collectives(text: str) -> dict[str, dict[str, int]]:
    """Return how often a step communicates, by kind, and how many bytes come back.

    Args:
      text: ``compiled.as_text()``.

    Returns:
      Kind -> {"count", "bytes"}: per step, the bytes of the results on one device. What stands in
      a loop counts as often as the loop turns (once where the compiler does not know).

    Example:
      >>> text = '''ENTRY %main (p: f32[8]) -> f32[8] {
      ...   ROOT %x = f32[8]{0} all-reduce(%p), to_apply=%add
      ... }'''
      >>> collectives(text)
      {'all-reduce': {'count': 1, 'bytes': 32}}
    """
    computations: dict[str, _Computation] = {}
    entry, current = "", _Computation()
    for line in text.splitlines():
        if header := _HEADER.match(line):
            current = computations[header["name"]] = _Computation()
            entry = header["name"] if header[1] else entry
        elif " = " in line:
            _read(line.split(", metadata=")[0], line, current)
    total: dict[str, list[int]] = defaultdict(lambda: [0, 0])

    def add(name: str, times: int) -> None:
        for kind, (count, size) in computations[name].found.items():
            total[kind][0] += times * count
            total[kind][1] += times * size
        for called, turns in computations[name].calls:
            if called in computations:
                add(called, times * turns)

    if entry:
        add(entry, 1)
    return {kind: {"count": total[kind][0], "bytes": total[kind][1]} for kind in sorted(total)}


def _read(line: str, whole: str, into: _Computation) -> None:
    """Note an instruction's collective and the computations that it calls."""
    result = line.split(" = ", 1)[1]
    if match := _COLLECTIVE.search(result):
        sizes = [_bytes(each) for each in _ARRAY.finditer(result[: match.start()])]
        if match["start"] and match["kind"] != "all-reduce":
            # (operands, results, and scalars that say how far it is)
            sizes = [size for size in sizes if size > 4] or sizes
            sizes = sizes[len(sizes) // 2 :]
        into.found[match["kind"]][0] += 1
        into.found[match["kind"]][1] += sum(sizes)
        return  # what it applies is an addition
    for called in _CALLED.finditer(line):
        turns = 1
        if called["how"] in ("body", "condition") and (known := _TURNS.search(whole)):
            turns = int(known[1])
        into.calls += [(name, turns) for name in re.findall(r"%([\w.\-]+)", called["names"])]


def _bytes(array: re.Match[str]) -> int:
    bits = {"pred": 8, "bf16": 16, "c64": 64, "c128": 128}.get(array["type"])
    if bits is None:
        bits = int(re.findall(r"\d+", array["type"])[0])
    count = math.prod(int(size) for size in array["dims"].split(",") if size)
    return count * bits // 8
