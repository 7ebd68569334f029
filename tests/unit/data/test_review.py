"""Folders as a reviewer found them: ids, times, windows and prices that were misread or refused."""

import csv
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from jmrec.data.folder import Raw, read_folder
from jmrec.data.guess import write_guess
from jmrec.data.guess_lines import NOTE

START = datetime(2025, 1, 27, 9, 5, tzinfo=UTC)
WHEN = [START + timedelta(hours=5 * k) for k in range(240)]
DAYS = [datetime(each.year, each.month, each.day, tzinfo=UTC).timestamp() for each in WHEN]
ITEMS = {"item_id": [f"i{k}" for k in range(9)], "title": [f"Title of {k}" for k in range(9)]}


def guessed(folder: Path, events: dict[str, list[str]], items: dict[str, Sequence[object]]) -> Raw:
    """Read a folder by the description that init writes."""
    folder.mkdir()
    for name, columns in (("items", items), ("interactions", events)):
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([list(columns), *zip(*columns.values())])
    write_guess(folder)
    return read_folder(folder)


def events(**columns: list[str]) -> dict[str, list[str]]:
    """Return the columns of 240 events, four a session."""
    ids = {"session_id": [f"s{k // 4}" for k in range(240)]}
    return ids | {"item_id": [f"i{k * 5 % 9}" for k in range(240)]} | columns


ISO = [each.isoformat() for each in WHEN]


@pytest.mark.parametrize(
    ("item", "event"),
    [("{:05}", "{}"), ("{}", "{}.0"), ("{}.0", "{}"), ("{}", "{:07}"), ("59{:03}", "059{:03}")],
)
def test_init_links_ids_that_are_spelt_in_two_ways(tmp_path: Path, item: str, event: str) -> None:
    ids = [item.format(k) for k in range(9)]
    clicks = events(item_id=[event.format(k * 5 % 9) for k in range(240)], timestamp=ISO)
    raw = guessed(tmp_path / "s", clicks, ITEMS | {"item_id": ids})
    assert [raw.items.ids[i] for i in raw.item] == [ids[k * 5 % 9] for k in range(240)]
    assert "is read as that" in raw.warnings[0]


def test_row_numbers_of_pandas_are_a_column(tmp_path: Path) -> None:
    clicks = {"": [str(k) for k in range(240)]} | events(timestamp=ISO)
    raw = guessed(tmp_path / "s", clicks, {"": range(9), **ITEMS})
    assert raw.warnings == []
    assert (raw.description.items.id, len(raw.item)) == ("item_id", 240)


@pytest.mark.parametrize(
    "other", ["date_inscription", "orderid", "bestellnummer", "numero"], ids=str
)
def test_the_time_is_that_of_the_event(tmp_path: Path, other: str) -> None:
    old = [str(1_700_000_000 + 7 * k * k) for k in range(240)]
    if other.startswith("date"):
        old = [f"2024-0{k // 4 % 7 + 1}-11 10:00:00" for k in range(240)]
    raw = guessed(tmp_path / "s", events(**{other: old, "date_clic": ISO}), ITEMS)
    assert raw.description.interactions.time == "date_clic"


def test_an_order_number_alone_is_no_time(tmp_path: Path) -> None:
    old = [str(1_700_000_000 + 7 * k * k) for k in range(240)]
    assert guessed(tmp_path / "s", events(orderid=old), ITEMS).time is None


@pytest.mark.parametrize("form", ["%y%m%d", "%m %d, %Y", "%d %m, %Y"])
def test_dates_of_few_digits_and_with_a_comma(tmp_path: Path, form: str) -> None:
    raw = guessed(tmp_path / "s", events(timestamp=[w.strftime(form) for w in WHEN]), ITEMS)
    assert raw.time is not None
    np.testing.assert_array_equal(raw.time, DAYS)
    assert raw.description.time_format == form


def test_months_are_no_days_of_two_digits(tmp_path: Path) -> None:
    """201003 is March 2010, though it may be 3 October 2020."""
    months = [f"2010{k % 12 + 1:02}" for k in range(240)]
    raw = guessed(tmp_path / "s", events(timestamp=months), ITEMS)
    assert raw.description.time_format == "%Y%m"


def test_a_guest_who_logs_in_does_not_cut_sessions(tmp_path: Path) -> None:
    """The guest is "0"; sessions are named over all users."""
    users = ["0" if k % 4 < 2 else f"u{k // 4 % 11}" for k in range(240)]
    raw = guessed(tmp_path / "s", events(user_id=users, timestamp=ISO), ITEMS)
    assert raw.description.interactions.session == "session_id"


@pytest.mark.parametrize(
    ("start", "end", "wanted"),
    [
        ("2/1/2025", "7/31/2026", ("2025-02-01", "2026-08-01")),
        ("1.2.2025", "31.7.2026", ("2025-02-01", "2026-08-01")),
        ("20250201", "20260731", ("2025-02-01", "2026-08-01")),
        ("45689", "46234", ("2025-02-01", "2026-08-01")),
    ],
)
def test_windows_are_written_in_their_own_way(
    tmp_path: Path, start: str, end: str, wanted: tuple[str, str]
) -> None:
    """The events say 27.01.2025; a window of 2/1/2025 to 7/31/2026 has the month first."""
    clicks = events(timestamp=[each.strftime("%d.%m.%Y %H:%M") for each in WHEN])
    names = ("gueltig_ab", "gueltig_bis") if "." in start else ("available_from", "available_until")
    raw = guessed(tmp_path / "s", clicks, ITEMS | {names[0]: [start] * 9, names[1]: [end] * 9})
    first, last = (datetime.fromisoformat(f"{day}T00:00Z").timestamp() for day in wanted)
    assert raw.items.available_from.tolist() == [first] * 9
    assert raw.items.available_until.tolist() == [last - 1] * 9


@pytest.mark.parametrize(
    "write",
    [
        lambda k: f"CHF {k + 1}'250.50",
        lambda k: f"{k + 1}\u202f250,50\u00a0€",
        lambda k: f"{k + 1} 250,50",
        lambda k: f"₹{k + 1},250.50",
    ],
)
def test_marks_between_thousands(tmp_path: Path, write: Callable[[int], str]) -> None:
    prices = [write(k) for k in range(9)]
    raw = guessed(tmp_path / "s", events(timestamp=ISO), ITEMS | {"price": prices})
    assert raw.items.number["price"].tolist() == [1000 * (k + 1) + 250.5 for k in range(9)]


def test_lakhs(tmp_path: Path) -> None:
    prices = [f"{k + 1},10,250.50" for k in range(9)]
    raw = guessed(tmp_path / "s", events(timestamp=ISO), ITEMS | {"price": prices})
    assert raw.items.number["price"].tolist() == [100_000 * (k + 1) + 10_250.5 for k in range(9)]


def test_a_price_that_becomes_a_text_is_said(tmp_path: Path) -> None:
    prices = [f"{k + 1}.50-{k + 3}.00" for k in range(9)]
    guessed(tmp_path / "s", events(timestamp=ISO), ITEMS | {"price": prices})
    notes = [n for n in (tmp_path / "s/dataset.toml").read_text().splitlines() if NOTE in n]
    assert len(notes) == 1
    assert "'price' is called a price" in notes[0]
