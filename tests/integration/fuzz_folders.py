"""Give the data verbs one broken folder after the other; stop at the first that they do not answer.

    python tests/integration/fuzz_folders.py --folders 1000 --seed 0
    python tests/integration/fuzz_folders.py --right --folders 500 --seed 0

Each folder starts as a good small shop and suffers a few accidents (`accidents`), drawn by
hypothesis. An answer is exit code 0, or 2 with one sentence; a traceback, a hang, half a folder
written, a change of the user's files or a look at a file outside is none. The first of these is
made smaller by hypothesis, printed with how to get it again, and the exit code is 1.

With --right each folder is a good shop in an odd form, and what is read is compared with what was
drawn (right_folders.py).
"""

import argparse
import contextlib
import csv
import gzip
import io
import json
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pyarrow as pa
import pyarrow.parquet
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st
from PIL import Image

from jmrec.data.description import describe
from jmrec.data.prepared import load_prepared
from jmrec.main import main as jmrec

sys.path.insert(0, str(Path(__file__).resolve().parent))
from right_folders import right

SECRET = "the-secret-of-another-folder"
SECONDS = 30
"""A command that takes longer hangs."""
TABLES = ("items", "interactions")
CELLS = st.one_of(
    st.sampled_from(
        ["", " ", "i1", "I1", " i1 ", "i1.0", "i\u0301", "nan", "inf", "-1", "1e999", "1,5", "0"]
    ),
    st.sampled_from(["1700000000000", "20261121", "9999-12-31", "0001-01-01T00:00+14:00", "24:00"]),
    st.sampled_from(["../../secret.csv", "/etc/passwd", "images", "a\0b", "1.png", "images/../1"]),
    st.sampled_from(
        ["=cmd|' /C calc'!A0", "@SUM(A1)", "[/red]", "\x1b[2J", "\ufeffi1", "\u202ei1"]
    ),
    st.sampled_from(["x" * 10_000, '"', '""', 'a"b', "a\nb", "a\r\nb", "a,b;c|d\te", "\ufffd"]),
    st.sampled_from(
        ["1", "no", "TRUE", "maybe", "0.5", "<b>good</b>", "good\ni1,2", "good " * 60_000]
    ),
    st.text(max_size=12),
)
VALUES = st.one_of(
    st.sampled_from(["true", "3", "-1", "0.5", "nan", "1e400", "[]", "{a=1}", "[[1]]", "9" * 300]),
    st.sampled_from(
        ['""', '"title"', '["tags"]', '["title", "brand"]', '";"', '","', '"ms"', '"%Y%m%d"', '"%"']
    ),
    st.sampled_from(
        ['"stars <= 2"', '"stars"', '"liked"', '"event > 1"', '"stars <= x"', '"want"', '"review"']
    ),
    st.sampled_from(
        [
            '"*"',
            '"*.csv"',
            '["items.csv", "interactions.csv"]',
            '["../secret.csv", "/"]',
            '"images/.."',
        ]
    ),
    st.sampled_from(
        ['"utf-16"', '"cp1252"', '"rot13"', '"idna"', '"../secret.csv"', '"/"', '"\\u0000"']
    ),
    st.text(max_size=8),
)
KEYS = {
    "dataset": "name exclude_seen session_gap_minutes min_session_length k_core encoding delimiter "
    "decimal time_format x",
    "items": "file id title description picture pictures available_from available_until "
    "text_columns category_columns number_columns list_columns list_separator never_use",
    "interactions": "file item session user time event rating order review label label_means",
}


def write_shop(folder: Path) -> None:
    """Write the good folder: 8 items, 30 sessions, 3 pictures."""
    (folder / "images").mkdir(parents=True)
    for i in range(3):
        Image.new("RGB", (6, 9), (80 * i, 0, 0)).save(folder / f"images/{i}.png")
    random = np.random.default_rng(0)
    items: list[list[Any]] = [["item_id", "title", "image", "tags", "brand", "price"]]
    items += [
        [f"i{i}", f"Töy {i}", f"images/{i}.png" if i < 3 else "", "red|big", f"b{i % 2}", i + 0.5]
        for i in range(8)
    ]
    events: list[list[Any]] = [
        ["session_id", "user_id", "item_id", "timestamp", "event", "review", "stars", "liked"]
    ]
    events += [
        [f"s{s}", f"u{s % 7}", f"i{random.integers(8)}", 1_700_000_000 + 1000 * s + k, "view",
         f"good, number {k}" if s % 3 else "", (s + k) % 5, "yes" if s % 2 else "no"]
        for s in range(30)
        for k in range(random.integers(2, 5))
    ]  # fmt: skip
    write_rows(folder / "items.csv", items)
    write_rows(folder / "interactions.csv", events)
    (folder / "dataset.toml").write_text(
        '[dataset]\nname = "shop"\n[items]\ntext_columns = ["tags"]\ncategory_columns = ["brand"]\n'
        'number_columns = ["price"]\nlist_columns = ["tags"]\n[interactions]\n'
        'label = "stars <= 1"\n'
    )


def write_rows(path: Path, rows: list[list[Any]], delimiter: str = ",") -> None:
    with path.open("w", newline="", encoding="utf-8", errors="surrogatepass") as file:
        csv.writer(file, delimiter=delimiter, escapechar="\\").writerows(rows)


def read_rows(path: Path) -> list[list[Any]]:
    text = path.read_bytes().decode("utf-8", errors="replace")
    return list(csv.reader(io.StringIO(text, newline="")))


# Every accident is a function of the folder and what hypothesis drew for it.


def set_cell(shop: Path, table: str, row: int, column: int, value: str) -> None:
    rows = read_rows(shop / f"{table}.csv")
    row %= len(rows)
    rows[row][column % len(rows[row])] = value
    write_rows(shop / f"{table}.csv", rows)


def set_column(shop: Path, table: str, column: int, value: str) -> None:
    rows = read_rows(shop / f"{table}.csv")
    for row in rows[1:]:
        row[column % len(row)] = value
    write_rows(shop / f"{table}.csv", rows)


def change_row(shop: Path, table: str, row: int, how: str) -> None:
    rows = read_rows(shop / f"{table}.csv")
    row %= len(rows)
    if how == "twice":
        rows.insert(row, rows[row])
    elif how == "gone":
        del rows[row]
    elif how == "short":
        rows[row] = rows[row][:-1]
    elif how == "long":
        rows[row] = [*rows[row], "more"]
    else:
        rows = rows[:row]
    write_rows(shop / f"{table}.csv", rows)


def change_bytes(shop: Path, name: str, place: int, count: int, new: bytes) -> None:
    data = (shop / name).read_bytes()
    place %= len(data) + 1
    (shop / name).write_bytes(data[:place] + new + data[place + count :])


def encode(shop: Path, table: str, encoding: str, errors: str = "replace") -> None:
    path = shop / f"{table}.csv"
    path.write_bytes(path.read_bytes().decode("utf-8", "replace").encode(encoding, errors))


def delimit(shop: Path, table: str, delimiter: str) -> None:
    write_rows(shop / f"{table}.csv", read_rows(shop / f"{table}.csv"), delimiter)


def pack(shop: Path, table: str, cut: int) -> None:
    path = shop / f"{table}.csv"
    data = gzip.compress(path.read_bytes())
    path.unlink()
    path.with_suffix(".csv.gz").write_bytes(data[: len(data) - cut])


def to_parquet(shop: Path, table: str, kind: str, place: int) -> None:
    path = shop / f"{table}.csv"
    header, *rows = read_rows(path)
    columns = {name: [r[i] if i < len(r) else None for r in rows] for i, name in enumerate(header)}
    out = {name: pa.array(column, pa.string()) for name, column in columns.items()}
    name = header[place % len(header)]
    with contextlib.suppress(pa.ArrowException):
        if kind == "lists":
            out[name] = pa.array([[cell, "x"] for cell in columns[name]])
        elif kind == "structs":
            out[name] = pa.array([{"a": cell} for cell in columns[name]])
        elif kind == "bytes":
            out[name] = pa.array([b"\xff\xfe"] * len(rows))
        elif kind == "nulls":
            out[name] = pa.nulls(len(rows))
        else:
            out[name] = pa.array(range(len(rows)), pa.int64()).cast(kind)
    path.unlink()
    pa.parquet.write_table(pa.table(out), path.with_suffix(".parquet"))


def to_json(shop: Path, table: str, kind: str, place: int, new: bytes) -> None:
    path = shop / f"{table}.csv"
    header, *rows = read_rows(path)
    name = header[place % len(header)]
    values = {"lists": ["x", 1], "structs": {"a": [{}]}, "nulls": None, "bool": True, "int32": 3}
    data = b""
    for row in rows:
        line = dict(zip(header, row)) | {name: values.get(kind, 1e300)}
        data += json.dumps(line).encode() + b"\n"
    path.unlink()
    place = place * 37 % (len(data) + 1)
    path.with_suffix(".jsonl").write_bytes(data[:place] + new + data[place + len(new) :])


def instead(shop: Path, name: str, what: str) -> None:
    path = shop / name
    path.unlink()
    if what == "folder":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "loop":
        path.symlink_to(path.name)
    elif what == "outside":
        path.symlink_to(shop.parent / "secret.csv")
    elif what == "html":
        path.write_text("<!DOCTYPE html><title>404</title>")
    elif what == "empty":
        path.write_bytes(b"")
    elif what == "zip":
        path.write_bytes(b"PK\x03\x04" + bytes(50))


def set_key(shop: Path, table: str, key: int, value: str) -> None:
    keys = KEYS[table].split()
    path = shop / "dataset.toml"
    line = f"[{table}]\n{keys[key % len(keys)]} = {value}\n"
    text = path.read_bytes().decode("utf-8", "replace").replace(f"[{table}]\n", line)
    path.write_text(text, encoding="utf-8", errors="replace")


FILES = st.sampled_from(["items.csv", "interactions.csv", "dataset.toml", "images/1.png"])
WHERE = st.integers(0, 200)
KINDS = ["lists", "structs", "bytes", "nulls", "int32", "float64", "date32", "timestamp[s]", "bool"]
ACCIDENTS: dict[Callable[..., None], list[st.SearchStrategy[Any]]] = {
    set_cell: [st.sampled_from(TABLES), WHERE, WHERE, CELLS],
    set_column: [st.sampled_from(TABLES), WHERE, CELLS],
    change_row: [
        st.sampled_from(TABLES),
        WHERE,
        st.sampled_from(["twice", "gone", "short", "long", "end"]),
    ],
    change_bytes: [
        FILES,
        st.integers(0, 3000),
        st.integers(0, 20),
        st.one_of(
            st.binary(max_size=6), st.sampled_from([b'"', b"\0", b"\xff", b"\n\n", b"\xef\xbb\xbf"])
        ),
    ],
    encode: [
        st.sampled_from(TABLES),
        st.sampled_from(["utf-8-sig", "utf-16", "utf-16-le", "utf-32", "cp1252", "utf-7"]),
    ],
    delimit: [st.sampled_from(TABLES), st.sampled_from([";", "\t", "|", ":"])],
    pack: [st.sampled_from(TABLES), st.sampled_from([0, 0, 0, 1, 9, 30])],
    to_parquet: [st.sampled_from(TABLES), st.sampled_from(KINDS), WHERE],
    to_json: [st.sampled_from(TABLES), st.sampled_from(KINDS), WHERE, st.binary(max_size=6)],
    instead: [
        FILES,
        st.sampled_from(["folder", "pipe", "loop", "outside", "html", "empty", "zip", "nothing"]),
    ],
    set_key: [st.sampled_from(list(KEYS)), WHERE, VALUES],
}
accident = st.sampled_from(list(ACCIDENTS)).flatmap(
    lambda f: st.tuples(st.just(f), st.tuples(*ACCIDENTS[f]))
)
plans = st.fixed_dictionaries(
    {
        "accidents": st.lists(accident, min_size=1, max_size=4),
        "strict": st.booleans(),
        "init": st.booleans(),
    }
)


def contents(folder: Path) -> dict[str, Any]:
    """Return what is in a folder: bytes of files, kinds of what is none."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        if path.is_file()
        else (path.lstat().st_mode, path.is_symlink())
        for path in sorted(folder.rglob("*"))
    }


@contextlib.contextmanager
def no_longer_than(seconds: int) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise AssertionError(f"it hangs: no answer within {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def ask(*words: str) -> tuple[int, str]:
    """Run a jmrec command; return its exit code and what it said, which must be sentences."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), no_longer_than(SECONDS):
        code = jmrec(words)
    said = err.getvalue()
    lines = said.splitlines()
    errors = [line for line in lines if not line.startswith("jmrec: warning: ")]
    assert code in (0, 2), f"exit code {code}"
    assert "Traceback" not in out.getvalue() + said, said
    assert SECRET not in out.getvalue() + said, "it read a file outside the folder"
    assert len(errors) == (code == 2), f"exit code {code} with {errors}"
    for line in lines:
        assert line.startswith("jmrec: "), line
        assert line.endswith((".", "?")), line
        assert len(line) < 2_000, line
    return code, said


def try_folder(plan: dict[str, Any]) -> int:
    """Make one folder and see how jmrec answers; return the exit code of prepare."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        shop, out = root / "shop", root / "out"
        (root / "secret.csv").write_text(f"item_id,title\n{SECRET},{SECRET}\n")
        write_shop(shop)
        # What is put in a file's place comes last: another accident would wait for a pipe.
        for do, arguments in sorted(plan["accidents"], key=lambda each: each[0] is instead):
            # A second accident may find nothing that it could still break.
            with contextlib.suppress(OSError, LookupError, ArithmeticError, ValueError, csv.Error):
                do(shop, *arguments)
        before = contents(shop)
        if plan["init"]:
            with contextlib.suppress(OSError):
                (shop / "dataset.toml").unlink()
                before.pop("dataset.toml")
            code, _ = ask("data", "init", str(shop))
            if code == 0:
                describe(shop)  # what it wrote must be read
                before["dataset.toml"] = (shop / "dataset.toml").read_bytes()
        strict = ["--strict"] if plan["strict"] else []
        checked, _ = ask("data", "check", str(shop), *strict)
        assert not out.exists()
        prepared, _ = ask("data", "prepare", str(shop), "--out", str(out), *strict)
        assert checked == prepared, f"check says {checked}, prepare {prepared}"
        assert contents(shop) == before, "the user's folder was changed"
        left = sorted(path.name for path in root.iterdir())
        assert left == (["out"] if prepared == 0 else []) + ["secret.csv", "shop"], left
        if prepared == 0:
            dataset = load_prepared(out)
            assert all(SECRET not in text for text in dataset.items.titles + dataset.items.ids)
            assert SECRET.encode() not in b"".join(dataset.items.pictures)
            if dataset.ratings is not None:
                assert all(SECRET not in review for review in dataset.ratings.reviews)
        return prepared


def show(plan: dict[str, Any]) -> str:
    """Return a plan as one line."""
    said = [f"{do.__name__}{arguments!r}" for do, arguments in plan["accidents"]]
    return f"{', '.join(said)[:2000]} (strict: {plan['strict']}, init: {plan['init']})"


def fuzz(folders: int, seed: int, progress: Callable[[str], None]) -> dict[int, int]:
    """Try so many folders; return how many were answered with each exit code.

    Raises:
      AssertionError: at the first that was not answered, or whatever jmrec raised.
    """
    answers = {0: 0, 2: 0}

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=folders,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(plan=plans)
    def run(plan: dict[str, Any]) -> None:
        try:
            answers[try_folder(plan)] += 1
        except Exception as error:
            # Said before hypothesis makes it smaller, which may take long.
            progress(f"not answered: {type(error).__name__}: {str(error)[:300]}\n  {show(plan)}")
            raise
        if sum(answers.values()) % 50 == 0:
            progress(
                f"{sum(answers.values())} folders: {answers[0]} prepared, {answers[2]} refused"
            )

    run()
    return answers


def main(argv: list[str] | None = None) -> int:
    """Run the fuzzer; return 1 if a folder was not answered or read wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folders", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--right", action="store_true", help="compare what is read with the truth")
    parser.add_argument("--only", type=int, help="with --right: this folder alone")
    args = parser.parse_args(argv)
    print(f"seed {args.seed}", flush=True)
    if args.right:
        count = right(args.folders, args.seed, ask, lambda line: print(line, flush=True), args.only)
        print(f"{sum(count.values())} folders: {count['read']} read right, {count['refused']} that "
              f"nobody can read refused, {count['wrong']} wrong")  # fmt: skip
        return int(count["wrong"] > 0)
    try:
        answers = fuzz(args.folders, args.seed, lambda line: print(line, flush=True))
    except Exception as error:  # whatever it is, it is not an answer
        traceback.print_exception(error)
        print("\nnot answered; again with:\n  python tests/integration/fuzz_folders.py "
              f"--folders {args.folders} --seed {args.seed}")  # fmt: skip
        return 1
    print(f"{sum(answers.values())} folders, all answered: {answers[0]} prepared, "
          f"{answers[2]} refused with a sentence")  # fmt: skip
    return 0


if __name__ == "__main__":
    from absl import flags

    flags.FLAGS.mark_as_parsed()  # Grain reads absl's flags
    sys.exit(main())
