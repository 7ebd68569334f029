"""`jmrec data prepare --runner direct` prepares what one machine does, however it is cut."""

import csv
import json
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from PIL import Image

from jmrec.data.prepared import load_prepared
from jmrec.data.toyshop import ToyShopConfig, write_toyshop
from jmrec.errors import UserError
from jmrec.main import main as jmrec

pytest.importorskip("apache_beam")

ROOT = Path(__file__).resolve().parents[2]
THREADS = ["direct_num_workers=4", "direct_running_mode=multi_threading"]


@pytest.fixture(scope="module")
def fuzz() -> ModuleType:
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    try:
        import fuzz_beam
    finally:
        sys.path.pop(0)
    return fuzz_beam


def assert_same(
    fuzz: ModuleType,
    folder: Path,
    sizes: tuple[int, ...],
    toml: Path | None = None,
    options: list[str] = [],  # noqa: B006 (never changed)
    **settings: Any,
) -> Any:
    """Compare both ways; return what one machine made."""
    one = fuzz.by_one(folder, toml, folder.parent / "one", **settings)
    beam = fuzz.by_beam(
        folder, toml, folder.parent / "beam", sizes=fuzz.Sizes(*sizes), options=options, **settings
    )
    assert fuzz.differences(one, beam) == []
    assert not [path for path in folder.parent.iterdir() if path.name.startswith(".")]
    return one


def test_toyshop(fuzz: ModuleType, tmp_path: Path) -> None:
    write_toyshop(tmp_path / "toy", ToyShopConfig(items=60, sessions=300, picture_size=8))
    one = assert_same(fuzz, tmp_path / "toy", (3_000, 90, 5, 17), picture_size=6)
    assert one.files


def test_toyshop_with_reviews(fuzz: ModuleType, tmp_path: Path) -> None:
    config = ToyShopConfig(items=60, sessions=60, reviews=600, users=40, picture_size=8)
    write_toyshop(tmp_path / "toy", config)
    toml = tmp_path / "toy" / "reviews.toml"
    one = assert_same(
        fuzz, tmp_path / "toy", (9_000, 70, 3, 50), toml, THREADS, sessions=False, with_records=True
    )
    assert "flat/ratings.safetensors" in one.files


def test_movies_cut(fuzz: ModuleType, tmp_path: Path, shared_data: Path) -> None:
    """Real rows: 3,000 events and most of their items, 30 of them with a picture."""
    movies = shared_data / "movies"
    folder = tmp_path / "movies"
    (folder / "images").mkdir(parents=True)
    events = list(csv.reader((movies / "interactions.csv").open(encoding="utf-8")))[:3_001]
    known = {row[events[0].index("item_id")] for row in events[1:]}
    items = list(csv.reader((movies / "items.csv").open(encoding="utf-8")))
    picture = items[0].index("image")
    few = [row for row in items[1:] if row[0] in known]
    few = [row for n, row in enumerate(few) if n % 20]
    for n, row in enumerate(few):
        if n < 30 and row[picture]:
            shutil.copy(movies / "images" / row[picture], folder / "images" / row[picture])
        else:
            row[picture] = ""
    for name, rows in (("items", [items[0], *few]), ("interactions", events)):
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as out:
            csv.writer(out).writerows(rows)
    toml = ROOT / "experiments" / "data" / "movies.toml"
    one = assert_same(fuzz, folder, (30_000, 700, 4, 9), toml, picture_size=100)
    assert any("rows left out" in warning for warning in one.warnings)
    assert one.files


def write_messy(folder: Path, kind: str) -> None:
    """Write a shop whose columns are decided by rows far from those that the decision is for."""
    (folder / "images").mkdir(parents=True)
    for name in ("7.png", "8.png"):
        Image.new("RGB", (9, 9), (7, 8, 9)).save(folder / "images" / name)
    (folder / "images" / "9.png").write_bytes(b"\x89PNG broken")
    items = [["item_id", "title", "image"]]
    items += [[f"{i:03}", f"item {i}", f"{i}.png" if i < 12 else ""] for i in range(20)]
    with (folder / "items.csv").open("w", newline="") as file:
        csv.writer(file).writerows(items)
    rng = random.Random(5)
    header = ["session_id", "user_id", "item_id", "timestamp", "event", "rating", "order", "stars"]
    rows = []
    for n in range(240):
        s = n // 4
        day = f"{1 + s % 12:02}/{1 + n % 9:02}/2024 {n % 24}:{n % 60:02}"
        rows.append([f"{s}", f"u{s % 9}", f"{rng.randrange(20):03}", day, "view",
                     f"1.{rng.randrange(100, 999)}", f"{n % 5}", f"{1 + n % 5}"])  # fmt: skip
    late: dict[int, dict[str, str]] = {
        3: {"session_id": "55.0"}, 20: {"user_id": "NULL"}, 30: {"user_id": ""},
        77: {"item_id": "7"}, 90: {"item_id": "nobody"}, 120: {"user_id": "someone else"},
        150: {"event": "=cmd|' /C calc'!A0"}, 160: {"timestamp": "soon"}, 170: {"rating": "ten"},
        180: {"order": "-"}, 190: {"stars": "many"}, 200: {"item_id": "008\u200b"},
        210: {"event": "buy"}, 230: {"timestamp": "12/31/2024 1:05"}, 233: {"rating": "1.409,83"},
        236: {"timestamp": "2024-03-01T10:00:00Z"}, 238: {"timestamp": "03/04/2031 1:00"},
    }  # fmt: skip
    for n, cells in late.items():
        for name, cell in cells.items():
            rows[n][header.index(name)] = cell
    rows[100].append("one cell too many")
    toml = '[dataset]\ndecimal = ","\n[interactions]\nlabel = "stars <= 2"\n'
    if kind == "csv":
        with (folder / "interactions.csv").open("w", newline="", encoding="utf-8") as out:
            csv.writer(out).writerows([header, *rows])
    elif kind == "jsonl":
        lines = [dict(zip(header, row)) for row in rows]
        for n, line in enumerate(lines):
            line["stars"] = 2.5 if n % 7 == 0 else n % 5  # type: ignore[assignment]
        text = "\n".join(json.dumps(line) for line in lines)
        (folder / "interactions.jsonl").write_text(text.replace('{"session_id": "40"', "{", 1))
    else:
        columns = {name: [row[i] for row in rows] for i, name in enumerate(header)}
        table = pa.table({name: pa.array(cells) for name, cells in columns.items()})
        pa.parquet.write_table(table, folder / "interactions.parquet", row_group_size=17)
        toml += 'test_file = "test.csv"\n'
        test = [[f"t{n // 3}", f"{'a' if n < 60 else 'u'}{6 - n // 3 % 7}", *row[2:]]
                for n, row in enumerate(rows[:90])]  # fmt: skip
        test[50][4], test[85][3], test[86][5] = "added", "12/31/2024 1:05", "1.409,83"
        with (folder / "test.csv").open("w", newline="", encoding="utf-8") as out:
            csv.writer(out).writerows([header, *test])
    (folder / "dataset.toml").write_text(toml)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet and a test split"])
def test_what_one_stretch_alone_can_not_know(fuzz: ModuleType, tmp_path: Path, kind: str) -> None:
    write_messy(tmp_path / "shop", kind)
    one = assert_same(fuzz, tmp_path / "shop", (700, 11, 3, 4))
    assert one.error == ""
    assert len(one.warnings) > 12
    first, kept = (2, 229) if kind == "csv" else (1, 230)  # a CSV has a header, and a row too long
    (zones,) = (warning for warning in one.warnings if "without a zone" in warning)
    assert f"row {first}: timestamp is '01/01/2024 0:00' without a zone, and " in zones
    assert f"'2024-03-01T10:00:00Z' in row {first + 236} has one" in zones
    assert zones.endswith(f"(cells kept as they are: {kept}).")


def test_strict_the_first_fault_is_the_error(fuzz: ModuleType, tmp_path: Path) -> None:
    write_messy(tmp_path / "shop", "csv")
    for path in (tmp_path / "shop" / "images").glob("*"):
        path.unlink()
    (tmp_path / "shop" / "dataset.toml").write_text(
        '[items]\npicture = ""\n[dataset]\ndecimal = ","\nmissing = []\n'
    )
    one = assert_same(fuzz, tmp_path / "shop", (700, 11, 3, 4), strict=True)
    assert "row 102: 9 cells" in one.error


def test_six_folders_of_the_fuzzer(fuzz: ModuleType) -> None:
    said: list[str] = []
    count = fuzz.fuzz(6, 3, said.append)
    assert count["different"] == 0, said
    assert count["prepared"] > 0


KILLED = """
import os, signal, sys
from apache_beam.io.filesystems import FileSystems
from jmrec.main import main
before, lists = FileSystems.rename, []
def rename(old, new):  # the list of the second pipeline, whose other files are all written
    lists.append(new)
    if len(lists) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    before(old, new)
FileSystems.rename = rename
main(sys.argv[1:])
"""


def test_killed_it_goes_on_and_nothing_is_half_written(
    fuzz: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from jmrec.data.beam import jobs

    write_toyshop(tmp_path / "toy", ToyShopConfig(items=50, sessions=80, picture_size=8))
    words = ["data", "prepare", str(tmp_path / "toy"), "--out", str(tmp_path / "out")]
    words += ["--runner", "direct"]
    ended = subprocess.run([sys.executable, "-c", KILLED, *words], cwd=ROOT, capture_output=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert not (tmp_path / "out").exists()
    (left,) = tmp_path.glob(".out.beam")
    half = {path.name for path in left.glob("events-*/*")}
    assert any(name.startswith("sessions-") for name in half)
    assert jobs.LIST not in half
    run, names = jobs.run, []

    def counted(name: str, *rest: Any) -> None:
        names.append(name)
        run(name, *rest)

    monkeypatch.setattr(jobs, "run", counted)
    assert jmrec(words) == 0
    assert names == ["events"]  # the pictures were finished
    assert not left.exists()
    one = fuzz.by_one(tmp_path / "toy", None, tmp_path / "one")
    assert {path: fuzz.contents(tmp_path / "out" / path) for path in one.files} == one.files


def to_bilder(folder: Path) -> None:
    """Put the pictures of a messy shop into Bilder/, and six more."""
    pictures = (folder / "images").rename(folder / "Bilder")
    for number in range(6):
        shutil.copy(pictures / "7.png", pictures / f"{number}.png")


def test_pictures_of_another_folder(fuzz: ModuleType, tmp_path: Path) -> None:
    write_messy(tmp_path / "shop", "csv")
    to_bilder(tmp_path / "shop")
    toml = (tmp_path / "shop" / "dataset.toml").read_text()
    one = assert_same(fuzz, tmp_path / "shop", (10_000, 100, 1, 4))
    assert any("is not in images/ but in Bilder/" in warning for warning in one.warnings)
    (tmp_path / "shop" / "dataset.toml").write_text(f'{toml}[items]\npictures = "Bilder"\n')
    shutil.rmtree(tmp_path / "one")
    shutil.rmtree(tmp_path / "beam")
    one = assert_same(fuzz, tmp_path / "shop", (10_000, 100, 1, 4))
    assert any("can not be read from Bilder/" in warning for warning in one.warnings)
    dataset = load_prepared(tmp_path / "beam")
    assert sum(map(bool, dataset.items.pictures)) == 8


def test_several_files_of_items(fuzz: ModuleType, tmp_path: Path) -> None:
    write_toyshop(tmp_path / "toy", ToyShopConfig(items=60, sessions=90, picture_size=8))
    path = tmp_path / "toy" / "items.csv"
    header, *rows = path.read_text().splitlines(keepends=True)
    path.rename(path.with_suffix(".old"))
    for part in (0, 1):
        own = rows[part * 30 : 30 + part * 10_000]
        (tmp_path / "toy" / f"items_{part}.csv").write_text("".join([header, *own]))
    toml = tmp_path / "toy" / "dataset.toml"
    assert "file =" not in toml.read_text()
    toml.write_text(toml.read_text().replace("[items]", '[items]\nfile = "items_*.csv"'))
    one = assert_same(fuzz, tmp_path / "toy", (9_000, 70, 3, 50))
    assert one.files


def test_several_files_of_events(fuzz: ModuleType, tmp_path: Path) -> None:
    """Each has its own form, delimiter and order of columns; one alone tells no order of dates."""
    write_messy(tmp_path / "shop", "csv")
    folder = tmp_path / "shop"
    path = folder / "interactions.csv"
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    path.unlink()
    rows = [[*row[:5], f"{n % 5},5", *row[6:]] for n, row in enumerate(rows)]
    july = [[*row[:4], "größer", *row[5:]][::-1] for row in rows[120:180]]
    for name, own, mark, encoding in (
        ("may.csv", [header, *rows[:60]], ",", "utf-8"),
        ("july.csv", [header[::-1], *july], ";", "cp1252"),
    ):
        with (folder / name).open("w", newline="", encoding=encoding) as out:
            csv.writer(out, delimiter=mark).writerows(own)
    june = [dict(zip(header[::-1], row[:8][::-1])) for row in rows[60:120]]
    lines = [json.dumps(row | {"rating": n / 8}) for n, row in enumerate(june)]
    (folder / "june.jsonl").write_text("\n".join([*lines, "{broken"]))
    columns: dict[str, Any] = {name: [r[i] for r in rows[180:]] for i, name in enumerate(header)}
    columns["rating"] = [n / 7 for n in range(60)]
    pa.parquet.write_table(pa.table(columns), folder / "august.parquet", row_group_size=17)
    toml = (folder / "dataset.toml").read_text()
    files = 'file = ["may.csv", "june.jsonl", "july.csv", "august.parquet"]\n'
    files += 'test_file = "test.csv"\n'
    given = [[f"t{n // 3}", f"{'a' if n % 2 else 'u'}{n // 3 % 7}", *row[2:]]
             for n, row in enumerate(rows[:90])]  # fmt: skip
    given[50][3] = "12/31/2024 1:05"
    with (folder / "test.csv").open("w", newline="", encoding="utf-8") as out:
        csv.writer(out).writerows([header, *given])
    (folder / "dataset.toml").write_text(toml + files)
    one = assert_same(fuzz, folder, (1_500, 20, 3, 4), options=THREADS)
    assert one.error == ""
    said = " ".join(one.warnings)
    assert "june.jsonl, row 61: no JSON object" in said
    assert "july.csv, row 2: a cell is not UTF-8, so the file is read as cp1252" in said
    assert "august.parquet, row 59: timestamp is '03/04/2031 1:00', which is yet to come" in said
    assert "another user in row" in said  # of another file


def test_what_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(*words: str) -> str:
        assert jmrec(["data", "prepare", str(tmp_path), "--out", str(tmp_path / "o"), *words]) == 2
        return capsys.readouterr().err

    assert "need --runner" in said("--runner-option", "region=x")
    assert "write key=value" in said("--runner", "direct", "--runner-option", "no such thing")
    assert "is set by jmrec" in said("--runner", "flink", "--runner-option", "runner=Mine")
    assert "needs --staging" in said("--runner", "dataflow")
    staged = ("--runner", "dataflow", "--staging", "gs://mine/folder")
    assert "do not see" in said(*staged)
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    assert "pip install 'jmrec[beam]'" in said("--runner", "direct")


def test_threads_send_whole_elements() -> None:
    """Beam's own send every second, in the midst of an element; its outcome hardly ever tells."""
    from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions

    from jmrec.data.beam import jobs

    options = PipelineOptions([f"--{option}" for option in THREADS])
    found = jobs._direct(options)
    assert options.view_as(DirectOptions).direct_running_mode == "in_memory"  # else it is replaced
    assert options.view_as(DirectOptions).direct_num_workers == 4
    assert found._default_environment.data_buffer_time_limit_ms < 0


def test_a_runner_that_can_not_be_reached_is_a_sentence(tmp_path: Path) -> None:
    from jmrec.data.beam.driver import prepare
    from jmrec.data.beam.options import read_runner

    write_messy(tmp_path / "shop", "csv")
    flink = read_runner("flink", ["flink_master=127.0.0.1:1", "flink_submit_uber_jar"])
    with pytest.raises(UserError, match="--runner=flink: the pipeline of the pictures ended"):
        prepare(tmp_path / "shop", None, tmp_path / "out", runner=flink)
    assert not (tmp_path / "out").exists()


def test_a_folder_on_another_file_system(fuzz: ModuleType, tmp_path: Path) -> None:
    """What Beam knows by an address is prepared like the same folder here."""
    from apache_beam.io.filesystem import FileMetadata
    from apache_beam.io.localfilesystem import LocalFileSystem

    def here(path: str) -> str:
        return path.removeprefix("faked:/")

    class Faked(LocalFileSystem):
        """The disk, by addresses."""

        @classmethod
        def scheme(cls) -> str:
            return "faked"

        def join(self, base: str, *paths: str) -> str:
            return "/".join([base.rstrip("/"), *paths])

        def _list(self, path: str) -> Any:
            for each in super()._list(here(path)):
                yield FileMetadata(f"faked:/{each.path}", each.size_in_bytes, 7.0)

        def has_dirs(self) -> bool:
            return True

        def open(self, path: str, *rest: Any, **more: Any) -> Any:
            return super().open(here(path), *rest, **more)

        def exists(self, path: str) -> bool:
            return super().exists(here(path))

    write_messy(tmp_path / "shop", "csv")
    to_bilder(tmp_path / "shop")
    toml = (tmp_path / "shop" / "dataset.toml").read_text()
    address: Any = f"faked:/{tmp_path}/shop"
    for pictures, lost in (
        ("images", "in images/ but in Bilder/"),
        ("Bilder", "read from Bilder/"),
    ):
        own = f'[items]\npictures = "{pictures}"\n'
        (tmp_path / "shop" / "dataset.toml").write_text(toml + own)
        one = fuzz.by_one(tmp_path / "shop", None, tmp_path / "one" / pictures)
        out = tmp_path / "beam" / pictures
        beam = fuzz.by_beam(address, None, out, sizes=fuzz.Sizes(700, 11, 3, 4))
        assert beam.error == ""
        assert fuzz.differences(one, beam) == []
        assert one.files
        assert any(lost in warning for warning in one.warnings)
