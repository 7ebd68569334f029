"""Prepare one odd folder after the other on one machine and by a Beam pipeline, and compare.

    python tests/integration/fuzz_beam.py --folders 50 --seed 0

Half of the folders are broken shops of fuzz_folders.py, the others good shops in odd forms, of
right_folders.py. All of both has to be equal: every record and file that is written, every warning
and the sentence of an error. The pipelines are cut at random: stretches of a few rows,
one worker or four, in threads or, every tenth time, in processes. What differs is printed, and the
exit code is then 1. It needs the extra `beam`.
"""

import argparse
import contextlib
import csv
import random
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import hypothesis
from array_record.python.array_record_module import ArrayRecordReader
from hypothesis import HealthCheck, Phase

from jmrec.data.beam.driver import prepare as by_pipelines
from jmrec.data.beam.options import read_runner
from jmrec.data.beam.staged import SIZES, Sizes
from jmrec.data.guess import write_guess
from jmrec.data.prepared import prepare
from jmrec.errors import UserError

sys.path.insert(0, str(Path(__file__).resolve().parent))
from fuzz_folders import instead, plans, show, write_shop
from right_folders import draw_form, write_folder
from right_forms import settle


class Prepared(NamedTuple):
    """What came of a folder: the warnings, the error, the files by name."""

    warnings: list[str]
    error: str
    files: dict[str, list[bytes]]


def by_one(folder: Path, toml: Path | None, out: Path, **settings: Any) -> Prepared:
    """Prepare a folder on one machine."""
    return _prepared(prepare, folder, toml, out, settings)


def by_beam(
    folder: Path,
    toml: Path | None,
    out: Path,
    *,
    sizes: Sizes = SIZES,
    options: Sequence[str] = (),
    **settings: Any,
) -> Prepared:
    """Prepare a folder by pipelines of the direct runner."""
    more = {"sizes": sizes, "runner": read_runner("direct", options)}
    return _prepared(by_pipelines, folder, toml, out, settings | more)


def _prepared(
    do: Callable[..., Any], folder: Path, toml: Path | None, out: Path, settings: dict[str, Any]
) -> Prepared:
    said: list[str] = []
    error = ""
    try:
        do(folder, toml, out, warn=said.append, **settings)
    except UserError as refused:
        error = str(refused)
    files = [path for path in out.rglob("*") if path.is_file()]
    return Prepared(said, error, {str(p.relative_to(out)): contents(p) for p in files})


def contents(path: Path) -> list[bytes]:
    """Return the records of an ArrayRecord file, whose own bytes are not the same twice."""
    if ".array_record" not in path.name:
        return [path.read_bytes()]
    reader = ArrayRecordReader(str(path))
    found = reader.read_all()
    reader.close()
    return list(found)


def differences(one: Prepared, beam: Prepared) -> list[str]:
    """Return what differs, in words."""
    found = []
    if one.warnings != beam.warnings:
        found.append(f"warnings {one.warnings} and {beam.warnings}")
    if one.error != beam.error:
        found.append(f"error {one.error!r} and {beam.error!r}")
    names = sorted({*one.files, *beam.files})
    return found + [f"file {n}" for n in names if one.files.get(n) != beam.files.get(n)]


def sizes_of(rng: random.Random) -> Sizes:
    """Draw how the work is cut."""
    return Sizes(
        stretch=rng.choice([60, 300, 2000, 10**6]),
        block=rng.choice([3, 20, 1000]),
        parts=rng.choice([1, 3, 8]),
        pictures=rng.choice([1, 2, 50]),
    )


def workers(place: int) -> list[str]:
    """Return the options of a runner: one worker, four threads, or two processes."""
    if place % 10 == 9:
        return ["direct_num_workers=2", "direct_running_mode=multi_processing"]
    return ["direct_num_workers=4", "direct_running_mode=multi_threading"] if place % 2 else []


def compare(folder: Path, place: int, seed: int, **settings: Any) -> tuple[Prepared, list[str]]:
    """Prepare a folder in both ways; return what one machine made of it, and what differs."""
    root = folder.parent
    one = by_one(folder, None, root / "one", **settings)
    sizes = sizes_of(random.Random(f"{seed} {place}"))
    beam = by_beam(folder, None, root / "beam", sizes=sizes, options=workers(place), **settings)
    left = sorted(path.name for path in root.iterdir() if path.name.startswith("."))
    return one, differences(one, beam) + [f"{name} was left" for name in left]


def broken_shop(folder: Path, plan: dict[str, Any]) -> None:
    """Write a shop to which what a plan of fuzz_folders.py says has happened."""
    write_shop(folder)
    for do, arguments in sorted(plan["accidents"], key=lambda each: each[0] is instead):
        with contextlib.suppress(OSError, LookupError, ArithmeticError, ValueError, csv.Error):
            do(folder, *arguments)


def fuzz(folders: int, seed: int, progress: Callable[[str], None]) -> dict[str, int]:
    """Compare so many folders; return how many were prepared, refused and different."""
    count = {"prepared": 0, "refused": 0, "different": 0}
    place = 0

    def judge(what: str, folder: Path, **settings: Any) -> None:
        nonlocal place
        one, different = compare(folder, place, seed, **settings)
        count["different" if different else "refused" if one.error else "prepared"] += 1
        for each in different:
            progress(f"{what}: {each[:1500]}")
        place += 1
        if place % 10 == 0:
            progress(f"{place} folders: {count}")

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=(folders + 1) // 2, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @hypothesis.given(plan=plans)
    def broken(plan: dict[str, Any]) -> None:
        if place >= (folders + 1) // 2:
            return
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / "shop"
            broken_shop(folder, plan)
            judge(show(plan), folder, strict=plan["strict"])

    broken()
    number = 0
    while place < folders:
        number += 1
        form = settle(draw_form(random.Random(f"{seed}-{number}")))
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / "shop"
            write_folder(folder, form, f"{seed}-{number}")
            try:
                write_guess(folder)
            except UserError:
                continue  # nobody can read it
            judge(f"shop {number}: {form}", folder)
    return count


def main(argv: list[str] | None = None) -> int:
    """Run the comparison; return 1 if something differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folders", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    count = fuzz(args.folders, args.seed, lambda line: print(line, flush=True))
    print(f"{sum(count.values())} folders: {count}")
    return int(count["different"] > 0)


if __name__ == "__main__":
    from absl import flags

    flags.FLAGS.mark_as_parsed()  # Grain reads absl's flags
    sys.exit(main())
