"""Times as they come, and who was there: guests, which column is the time, how it is written."""

import csv
import json
import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from jmrec.data.description import describe
from jmrec.data.folder import Raw, read_folder
from jmrec.data.guess import write_guess
from jmrec.data.guess_lines import NOTE
from jmrec.data.sessions import sessionise
from jmrec.data.times import read_times
from jmrec.errors import UserError
from jmrec.evaluation.policy import read_time

START = datetime(2025, 1, 20, 22, 50, 7, tzinfo=UTC)
WHEN = [START + timedelta(minutes=97 * k) for k in range(300)]
"""A click each 97 minutes, over months, days beyond the 12th and both halves of the day."""
SECONDS = [int(each.timestamp()) for each in WHEN]


def shop(
    folder: Path, columns: dict[str, Sequence[object]], parquet: bool = False, toml: str = ""
) -> Path:
    """Write a folder of nine items whose events have the columns given beside item_id."""
    folder.mkdir()
    (folder / "items.csv").write_text(
        "item_id,title\n" + "".join(f"i{k},Title {k}\n" for k in range(9))
    )
    draw = random.Random(0)
    n = len(next(iter(columns.values())))
    table = {"item_id": [f"i{draw.randrange(9)}" for _ in range(n)], **columns}
    if parquet:
        pa.parquet.write_table(pa.table(table), folder / "interactions.parquet")
    else:
        with (folder / "interactions.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([list(table), *zip(*table.values())])
    if toml:
        (folder / "dataset.toml").write_text(toml)
    return folder


def timed(folder: Path, times: Sequence[object], **settings: bool) -> Raw:
    """Read a folder whose events have these times, of ten users."""
    users = [f"u{k % 10}" for k in range(len(times))]
    return read_folder(shop(folder, {"user_id": users, "timestamp": times}), **settings)


@pytest.mark.parametrize("parquet", [False, True], ids=["csv", "parquet"])
def test_guests_are_kept_where_sessions_are_given(tmp_path: Path, parquet: bool) -> None:
    """Session 0 is a guest's, in 1 somebody logs in halfway, in 2 out, 3 is a user's."""
    none = None if parquet else ""
    users = [none, none, none, none, none, "u1", "u2", "u2", none, "u3", "u3", "u3"]
    sessions = [k // 3 for k in range(12)]
    raw = read_folder(shop(tmp_path / "s", {"session_id": sessions, "user_id": users}, parquet))
    made = sessionise(raw)
    assert raw.warnings == []
    assert raw.user is not None
    names = [*raw.user[1], None]
    assert [names[code] for code in made.users] == [None, "u1", "u2", "u3"]
    assert made.lengths.tolist() == [3, 3, 3, 3]


def test_two_users_in_a_session_are_told_apart_from_guests(tmp_path: Path) -> None:
    events = {"session_id": [1, 1, 1, 2, 2], "user_id": ["", "a", "b", "", ""]}
    raw = read_folder(shop(tmp_path / "s", events))
    assert "row 4: session '1' belongs to another user in row 3" in raw.warnings[0]
    assert raw.row.tolist() == [2, 3, 5, 6]


def test_a_folder_of_guests_has_no_users(tmp_path: Path) -> None:
    raw = read_folder(shop(tmp_path / "s", {"session_id": [1, 1, 2], "user_id": ["", "", ""]}))
    assert raw.user is None
    assert sessionise(raw).users.tolist() == [-1, -1]


def test_guests_without_sessions_are_nobody(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"user_id is empty.*2 of 3 rows"):
        read_folder(shop(tmp_path / "s", {"user_id": ["", "", "a"]}))


WRITTEN: dict[str, Callable[[datetime], str]] = {
    "utc": lambda t: t.strftime("%Y-%m-%d %H:%M:%S UTC"),
    "month-first": lambda t: t.strftime("%m/%d/%Y %I:%M:%S %p"),
    "day-first": lambda t: t.strftime("%d/%m/%Y %H:%M:%S"),
    "points": lambda t: t.strftime("%d.%m.%y %H:%M:%S"),
    "http": lambda t: format_datetime(t, usegmt=True),
    "mail": lambda t: format_datetime(t.astimezone()),
    "english": lambda t: t.strftime("%b %d, %Y, %I:%M:%S %p"),
    "german": lambda t: f"{t.day}. {('Januar', 'Februar')[t.month - 1]} {t:%Y %H:%M:%S} Uhr",
    "short-hours": lambda t: f"{t:%Y-%m-%d} {t.hour}:{t:%M:%S}",
    "apache": lambda t: t.strftime("%d/%b/%Y:%H:%M:%S +0000"),
    "ctime": lambda t: t.ctime(),
    "zone": lambda t: f"{t + timedelta(hours=2):%Y/%m/%d %H:%M:%S} +02:00",
}


@pytest.mark.parametrize("name", WRITTEN)
def test_written_times(tmp_path: Path, name: str) -> None:
    """Without a description, and by the one that init writes."""
    cells = [WRITTEN[name](each) for each in WHEN]
    raw = timed(tmp_path / "s", cells, strict=True)
    assert raw.time is not None
    assert raw.time.tolist() == SECONDS
    write_guess(tmp_path / "s")
    again = read_folder(tmp_path / "s", strict=True)
    assert again.time is not None
    assert again.time.tolist() == SECONDS


NUMBERS: dict[str, tuple[Callable[[int], str], float]] = {
    "ms": (lambda s: str(1000 * s), 1),
    "us": (lambda s: str(1_000_000 * s), 1),
    "%Y%m%d": (lambda s: f"{datetime.fromtimestamp(s, UTC):%Y%m%d}", 86_400),
    "%Y%m%d%H": (lambda s: f"{datetime.fromtimestamp(s, UTC):%Y%m%d%H}", 3_600),
    "%Y%m%d%H%M": (lambda s: f"{datetime.fromtimestamp(s, UTC):%Y%m%d%H%M}", 60),
    "excel": (lambda s: repr(s / 86_400 + 25_569), 1),
    "h": (lambda s: str(s // 3600), 3_600),
    "days": (lambda s: str(s // 86_400), 86_400),
}


@pytest.mark.parametrize("odd", ["", "soon", "0"])
@pytest.mark.parametrize("unit", NUMBERS)
def test_numbers_that_are_no_unix_seconds(tmp_path: Path, unit: str, odd: str) -> None:
    """Most cells decide; what was guessed is said with its remedy, and init writes it."""
    write, rough = NUMBERS[unit]
    cells = [write(s) for s in SECONDS]
    expected = [s // rough * rough for s in SECONDS]
    if odd:
        cells[10], expected[10:11] = odd, []
    raw = timed(tmp_path / "s", cells)
    assert raw.time is not None
    np.testing.assert_allclose(raw.time, expected, atol=0.01)
    assert sum(f'write time_format = "{unit}" under' in each for each in raw.warnings) == 1
    assert len(raw.warnings) == 1 + bool(odd)
    write_guess(tmp_path / "s")
    assert describe(tmp_path / "s").time_format == unit
    again = read_folder(tmp_path / "s")
    assert again.time is not None
    np.testing.assert_allclose(again.time, expected, atol=0.01)


def test_numbers_that_count_from_nought_are_kept(tmp_path: Path) -> None:
    raw = timed(tmp_path / "s", [7 * k for k in range(300)], strict=True)
    assert raw.time is not None
    assert raw.time.tolist() == [7.0 * k for k in range(300)]


def test_one_row_tells_the_day_from_the_month(tmp_path: Path) -> None:
    """It stands behind the first thousand; without it one has to say which is meant."""
    cells = [f"0{k % 9 + 1}/0{k % 7 + 1}/2025" for k in range(1500)]
    with pytest.raises(UserError, match=r'first.*"%d/%m/%Y" or "%m/%d/%Y" under'):
        timed(tmp_path / "unsure", cells)
    text = write_guess(tmp_path / "unsure").read_text()
    assert f"{NOTE}all dates fit %d/%m/%Y (day first) and %m/%d/%Y (month first)" in text
    assert "\ntime_format" not in text
    for last, day, month in [("13/01/2025", 0, 3), ("01/13/2025", 3, 0)]:
        raw = timed(tmp_path / f"s{day}", [*cells, last], strict=True)
        assert raw.time is not None
        found = [datetime.fromtimestamp(s, UTC) for s in raw.time[:-1]]
        assert [f"{t.day:02d}" for t in found] == [cell[day : day + 2] for cell in cells]
        assert [f"{t.month:02d}" for t in found] == [cell[month : month + 2] for cell in cells]


def test_a_column_in_two_formats_is_said(tmp_path: Path) -> None:
    cells = [str(s) for s in SECONDS]
    cells[4] = WHEN[4].isoformat()
    raw = timed(tmp_path / "both", cells)
    assert raw.time is not None
    assert raw.time.tolist() == SECONDS
    assert "two formats in one column" in raw.warnings[0]
    cells[4] = str(1000 * SECONDS[4])
    raw = timed(tmp_path / "ms", cells)
    assert raw.row.tolist() == [k + 2 for k in range(300) if k != 4]
    cells[4] = f"{WHEN[4]:%Y%m%d}"
    raw = timed(tmp_path / "day", cells)
    assert raw.row.tolist() == [k + 2 for k in range(300) if k != 4]
    assert "a number that is no time as unix seconds" in raw.warnings[0]
    cells[4] = str(1000 * SECONDS[4])  # a year that no calendar has
    users = [f"u{k % 10}" for k in range(len(cells))]
    folder = shop(tmp_path / "guess", {"user_id": users, "timestamp": cells})
    write_guess(folder)
    assert f"{1000 * SECONDS[4]} seconds after 1970" in (folder / "dataset.toml").read_text()


def test_lost_digits_are_said(tmp_path: Path) -> None:
    raw = timed(tmp_path / "s", [f"{1000 * s:.4E}" for s in SECONDS])
    assert any("last digits are lost" in each for each in raw.warnings)
    assert timed(tmp_path / "whole", [f"{s:.9e}" for s in SECONDS], strict=True).warnings == []


@pytest.mark.parametrize(
    "cell", ["2026-07-31", "31.07.2026", "20260731", "46234", "31 Jul 2026", "202607"]
)
def test_until_a_date_includes_that_day(tmp_path: Path, cell: str) -> None:
    folder = shop(tmp_path / "s", {"user_id": ["u"] * 9, "timestamp": SECONDS[:9]})
    (folder / "items.csv").write_text(
        "item_id,title,available_from,available_until\n"
        + "".join(f"i{k},T,{cell},{cell}\n" for k in range(9))
    )
    items = read_folder(folder).items
    first = datetime(2026, 7, 1 if cell == "202607" else 31, tzinfo=UTC).timestamp()
    assert items.available_from.tolist() == [first] * 9
    end = datetime(2026, 8, 1, tzinfo=UTC).timestamp() - 1
    assert items.available_until.tolist() == [end] * 9


@pytest.mark.parametrize("unit", ["min", "h", "days"])
def test_clicks_in_minutes_do_not_count_the_days_of_items(tmp_path: Path, unit: str) -> None:
    """20260731 is a date in the table of items, whatever the clicks count."""
    size = {"min": 60, "h": 3_600, "days": 86_400}[unit]
    clicks = [int(s) // size for s in SECONDS]
    columns = {"user_id": [f"u{k % 9}" for k in range(300)], "timestamp": clicks}
    folder = shop(tmp_path / "s", columns, toml=f'[dataset]\ntime_format = "{unit}"\n')
    rows = "".join(f"i{k},T,2026073{k % 2},202608{10 + k}\n" for k in range(9))
    head = "item_id,title,available_from,available_until\n"
    (folder / "items.csv").write_text(head + rows)
    raw = read_folder(folder)
    first = datetime(2026, 7, 30, tzinfo=UTC).timestamp()
    last = datetime(2026, 8, 11, tzinfo=UTC).timestamp() - 1
    assert raw.items.available_from.tolist() == [first + 86_400 * (k % 2) for k in range(9)]
    assert raw.items.available_until.tolist() == [last + 86_400 * k for k in range(9)]
    assert raw.time is not None
    assert raw.time.tolist() == [size * click for click in clicks]


def test_until_a_moment_is_that_moment(tmp_path: Path) -> None:
    folder = shop(tmp_path / "s", {"user_id": ["u"] * 9, "timestamp": SECONDS[:9]})
    rows = "".join(f"i{k},T,2026-07-31 18:00\n" for k in range(9))
    (folder / "items.csv").write_text(f"item_id,title,available_until\n{rows}")
    end = datetime(2026, 7, 31, 18, tzinfo=UTC).timestamp()
    assert read_folder(folder).items.available_until.tolist() == [end] * 9


@pytest.mark.parametrize(
    "text", ["2026-07-15", "20260715", "1784073600", "1784073600000", "15 Jul 2026", "15.7.2026"]
)
def test_times_on_the_command_line(text: str) -> None:
    assert read_time(text) == datetime(2026, 7, 15, tzinfo=UTC).timestamp()


@pytest.mark.parametrize("text", ["01/02/2026", "2026", "202607", "32.1.2026"])
def test_times_that_may_be_several_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="is no time; write a date as"):
        read_time(text)


OTHERS: dict[str, Callable[[int], object]] = {
    "order_no": lambda k: 1_600_000_000 + k,
    "category_id": lambda k: 1_563_013_552_259_662_037 + k % 5,
    "ean": lambda k: 1_406_381_333_931 + k % 9,
    "phone": lambda k: 1_555_123_456 + 7919 * (k % 10),
    "birth_date": lambda k: f"19{60 + k % 10}-05-17",
    "registered": lambda k: f"2020-03-{10 + k % 10}",
    "updated_at": lambda k: f"2025-05-17 10:{k % 60:02d}:00",
}


@pytest.mark.parametrize("before", OTHERS)
@pytest.mark.parametrize("time", ["timestamp", "Bestelldatum", "clicked", "x"])
def test_which_column_is_the_time(tmp_path: Path, before: str, time: str) -> None:
    """The other one stands before it."""
    cells = SECONDS if time == "timestamp" else [f"{t:%Y-%m-%d %H:%M:%S}" for t in WHEN]
    users = [f"u{k % 10}" for k in range(300)]
    other = [OTHERS[before](k) for k in range(300)]
    folder = shop(tmp_path / "s", {"user_id": users, before: other, time: cells})
    text = write_guess(folder).read_text()
    assert describe(folder).interactions.time == time
    assert "When it happened, 2025-01-20 22:50 to 2025-02-10 02:13;" in text


@pytest.mark.parametrize("name", ["viewed_on", "EventDay", "Kaufdatum"])
@pytest.mark.parametrize("unit", [1, 86_400], ids=["seconds", "days"])
def test_days_that_follow_each_other_are_no_counter(tmp_path: Path, name: str, unit: int) -> None:
    """Excel's days, with and without a clock: their name says that they are times."""
    seconds = [unit * (1_700_000_000 // unit + 40_000 * k // unit) for k in range(300)]
    cells = [f"{s / 86_400 + 25_569:.9g}" if unit == 1 else s // 86_400 + 25_569 for s in seconds]
    users = [f"u{k % 10}" for k in range(300)]
    folder = shop(tmp_path / "s", {"user_id": users, name: cells})
    write_guess(folder)
    assert describe(folder).interactions.time == name
    found = read_folder(folder).time
    assert found is not None
    np.testing.assert_allclose(found, seconds, atol=10, rtol=0)  # of nine digits


@pytest.mark.parametrize("other", ["order_no", "category_id", "ean", "phone", "birth_date"])
def test_no_time_is_said(tmp_path: Path, other: str, capsys: pytest.CaptureFixture[str]) -> None:
    from jmrec.main import main

    users = [f"u{k % 10}" for k in range(300)]
    cells = [OTHERS[other](k) for k in range(300)]
    folder = shop(tmp_path / "s", {"user_id": users, other: cells})
    assert main(["data", "init", str(folder)]) == 0
    assert describe(folder).interactions.time == ""
    assert "no column of interactions.csv is read as a time, so the" in capsys.readouterr().err


def test_the_range_of_times_guests_and_duplicates_are_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from jmrec.main import main

    events = {
        "session_id": [k // 5 for k in range(300)],
        "user_id": ["" if k // 5 % 2 else f"u{k // 5}" for k in range(300)],
        "timestamp": SECONDS,
    }
    folder = shop(tmp_path / "s", events)
    path = folder / "interactions.csv"
    path.write_text(path.read_text() + path.read_text().splitlines()[1] + "\n")
    assert main(["data", "check", str(folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["first_time"] == f"{WHEN[0]:%Y-%m-%d %H:%M}"
    assert found["last_time"] == f"{WHEN[-1]:%Y-%m-%d %H:%M}"
    assert (found["guest_sessions"], found["duplicate_events"], found["early_events"]) == (30, 1, 0)


@pytest.mark.parametrize("digits", [0, 1, 6, 18, 30])
def test_plain_numbers_are_read_to_the_last_bit(digits: int) -> None:
    draw = np.random.default_rng(digits)
    whole = draw.integers(1_000_000_000, 1_900_000_000, 500)
    rest = ["".join(map(str, each)) for each in draw.integers(0, 10, (500, digits))]
    cells = [f"{w}.{r}" if r else f"{w}" for w, r in zip(whole, rest)]
    cells[::50] = [f"+{cell}" for cell in cells[::50]]  # these are not plain
    truth = np.array([float(cell) for cell in cells])
    assert read_times(cells, "s").seconds.tobytes() == truth.tobytes()
    assert read_times(pa.array(["", *cells]), "s").seconds[1:].tobytes() == truth.tobytes()
