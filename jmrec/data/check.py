"""What a scientist wants to know about a data set before training on it."""

import hashlib
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from jmrec.data.check_reviews import (
    ReviewReport,
    check_reviews,
    print_reviews,
    quantiles,
    show_quantiles,
)
from jmrec.data.folder import Raw
from jmrec.data.languages import languages, show_languages
from jmrec.data.missing import show_words
from jmrec.data.schema import Dataset, Sessions
from jmrec.data.sessions import sessionise
from jmrec.data.split_keys import SESSION_START
from jmrec.data.splits import split_sessions
from jmrec.data.times import show_time
from jmrec.data.units import MODERN
from jmrec.data.value import ValueReport, check_value, value_hint

PAIR_MIN = 4
"""Item pairs seen fewer times than this say nothing about their direction."""


@dataclass(frozen=True)
class CheckReport:
    """Plain numbers about a data set; shares are fractions from 0 to 1.

    Attributes:
      name: The data set's.
      items: Items in the catalogue.
      events: Events in the file.
      users: Users, 0 where the data has none.
      sessions: All sessions.
      sessions_two: Those of two or more events.
      lengths: Percentile -> events in a session, over the sessions of two or more.
      split_sessions: Split -> sessions.
      split_events: Split -> events.
      split_predictions: Split -> next items that can be predicted.
      cut_events: Events left out because their session ran on into the next split.
      filtered_events: Events that k_core and min_session_length took out of training.
      missing_text: Text field -> items without it.
      missing_pictures: Items without a picture.
      identical_pictures: Items whose picture is, byte by byte, also another item's.
      time_ties: Share of transitions between events of the same time, NaN without times.
      repeated_items: Share of events whose item occurred earlier in the session.
      cold_items: Items that no training session holds.
      cold_targets: Split -> predictions whose target is a cold item.
      longest_ten: Share of the test predictions that the ten longest sessions make.
      repeated_pairs: Unordered pairs of neighbours seen at least 4 times.
      one_way_pairs: Share of these that always run in one direction, NaN without such pairs.
      one_way_events: Share of the occurrences of such pairs that belong to one-way ones.
      duplicate_sessions: Sessions of two or more that repeat an earlier one item for item.
      test_in_train: Test sessions whose very items are a session of train.
      words: Word for nothing -> cells that it filled, taken as empty.
      guest_sessions: Sessions of nobody known, where the data has users.
      duplicate_events: Events that repeat an earlier one in every cell that is read.
      first_time: That of the earliest event, in UTC; "" without times.
      last_time: That of the latest.
      early_events: Events before 1995.
      languages: Language (ISO 639-1) -> share of the items whose texts seem to be in it.
      reviews: Of labels and reviews; None where the data has neither.
      value: Of what items are worth; None where the data does not say.
    """

    name: str
    items: int
    events: int
    users: int
    sessions: int
    sessions_two: int
    lengths: dict[int, float]
    split_sessions: dict[str, int]
    split_events: dict[str, int]
    split_predictions: dict[str, int]
    cut_events: int
    filtered_events: int
    missing_text: dict[str, int]
    missing_pictures: int
    identical_pictures: int
    time_ties: float
    repeated_items: float
    cold_items: int
    cold_targets: dict[str, int]
    longest_ten: float
    repeated_pairs: int
    one_way_pairs: float
    one_way_events: float
    duplicate_sessions: int
    test_in_train: int
    words: dict[str, int] = field(default_factory=dict)
    guest_sessions: int = 0
    duplicate_events: int = 0
    first_time: str = ""
    last_time: str = ""
    early_events: int = 0
    languages: dict[str, float] = field(default_factory=dict)
    reviews: ReviewReport | None = None
    value: ValueReport | None = None


def check(dataset: Dataset, raw: Raw) -> CheckReport:
    """Count what matters in a data set.

    Args:
      dataset: From `jmrec.data.prepared.build` or `prepare`, with the default fractions; what is
        said of its splits is nought where it was made without sessions.
      raw: The folder it was made from.

    Returns:
      The report.
    """
    sessions = sessionise(raw)
    lengths = sessions.lengths
    two = lengths[lengths >= 2]
    splits, items = dataset.splits, dataset.items
    cold = dataset.train_count == 0
    test_predictions = _by_session(splits["test"])
    whole = dict(zip(sessions.ids, lengths))
    kept = sum(int(n) for s in splits.values() for i, n in zip(s.ids, s.lengths) if whole[i] >= 2)
    split, filtered = len(splits["train"]) > 0, 0
    by_event = raw.description.split != SESSION_START
    if split and max(raw.description.k_core - 1, raw.description.min_session_length - 2) > 0:
        before = split_sessions(raw)["train"]
        filtered = len(before.items) - len(splits["train"].items)
    pairs, one_way, one_way_events = _directions(sessions, len(items))
    keys = [x.tobytes() for x in sessions if len(x) >= 2]
    in_train = {x.tobytes() for x in splits["train"] if len(x) >= 2}
    first = sessions.offsets[1:-1]
    same_time = np.delete(np.diff(sessions.times), first - 1) == 0
    return CheckReport(
        name=dataset.name,
        items=len(items),
        events=len(raw.item),
        users=len(raw.user[1]) if raw.user else 0,
        sessions=len(sessions),
        sessions_two=len(two),
        lengths=quantiles(two),
        split_sessions={name: len(part) for name, part in splits.items()},
        split_events={name: len(part.items) for name, part in splits.items()},
        split_predictions={name: int(part.predicted.sum()) for name, part in splits.items()},
        # Split by event, histories are cut and nothing is left out.
        cut_events=int(two.sum()) - kept - filtered if split and not by_event else 0,
        filtered_events=filtered,
        missing_text={name: texts.count("") for name, texts in items.text.items()},
        missing_pictures=items.pictures.count(b""),
        identical_pictures=_identical(items.pictures),
        time_ties=_share(same_time) if dataset.has_time else float("nan"),
        repeated_items=_repeats(sessions, len(items)) / len(raw.item),
        cold_items=int(cold.sum()),
        cold_targets={
            name: int(cold[splits[name].items[splits[name].predicted]].sum())
            for name in ("validation", "test")
        },
        longest_ten=float(np.sort(test_predictions)[-10:].sum() / test_predictions.sum())
        if split
        else float("nan"),
        repeated_pairs=pairs,
        one_way_pairs=one_way,
        one_way_events=one_way_events,
        duplicate_sessions=len(keys) - len(set(keys)),
        test_in_train=sum(x.tobytes() in in_train for x in splits["test"]),
        words=dict(raw.words),
        guest_sessions=int((sessions.users < 0).sum()) if raw.user else 0,
        duplicate_events=_duplicates(raw),
        first_time="" if raw.time is None else show_time(float(raw.time.min())),
        last_time="" if raw.time is None else show_time(float(raw.time.max())),
        early_events=0 if raw.time is None else int((raw.time < MODERN).sum()),
        languages=languages([" ".join(each) for each in zip(*items.text.values())]),
        reviews=check_reviews(raw),
        value=None if items.value is None else check_value(items.value),
    )


def hints(report: CheckReport) -> list[str]:
    """Say in plain words what in a report should make one careful; often nothing."""
    r = report
    out = []
    if r.one_way_pairs > 0.9 and r.repeated_pairs >= 20:
        out.append(
            f"{r.one_way_pairs:.0%} of the repeated item pairs run in one direction only. People "
            "are not that regular: the order may be the catalogue's. Compare with the row that "
            "shuffles sessions."
        )
    if r.time_ties > 0.1:
        out.append(
            f"{r.time_ties:.0%} of the transitions are between events of the same time. Their "
            "order is the file's and may mean nothing."
        )
    if r.longest_ten > 0.2:
        out.append(
            f"The ten longest sessions make {r.longest_ten:.0%} of the test predictions. Read the "
            "figures per session, not per prediction."
        )
    for split, count in r.cold_targets.items():
        if count > 0.05 * r.split_predictions[split]:
            out.append(
                f"{count / r.split_predictions[split]:.0%} of the {split} targets never occur in "
                "training. Models of item ids can not reach them."
            )
    if r.test_in_train > 0.05 * r.split_sessions["test"]:
        out.append(
            f"{r.test_in_train / r.split_sessions['test']:.0%} of the test sessions stand in "
            "training item for item. Memory is rewarded."
        )
    if r.duplicate_sessions > 0.05 * r.sessions_two:
        out.append(
            f"{r.duplicate_sessions:,} sessions repeat an earlier one item for item. Look for "
            "events that were recorded twice."
        )
    if r.repeated_items > 0.1:
        out.append(
            f"{r.repeated_items:.0%} of the events are items that the session had before. Decide "
            "whether seen items are candidates (exclude_seen)."
        )
    if r.cut_events > 0.01 * r.events:
        out.append(
            f"{r.cut_events:,} events were left out because their sessions run across a split. "
            "Are the sessions longer than they should be?"
        )
    if 0 < r.split_sessions["test"] < 300:
        out.append(
            f"The test split has {r.split_sessions['test']:,} sessions only. Differences of a few "
            "points will not be told apart."
        )
    for name, count in r.missing_text.items():
        if count > 0.2 * r.items:
            out.append(f"{count / r.items:.0%} of the items have no {name}.")
    out += _time_hints(r)
    if 1 - r.languages.get("en", 0.0) >= 0.3 and r.languages:
        out.append(
            f"The texts seem to be {show_languages(r.languages)}. The readers minilm and smollm2 "
            "know English only: train the reader here, or bring one that knows the language."
        )
    if r.value is not None and (hint := value_hint(r.value)):
        out.append(hint)
    if r.missing_pictures > 0.2 * r.items:
        out.append(f"{r.missing_pictures / r.items:.0%} of the items have no picture.")
    if r.identical_pictures > 0.05 * r.items:
        out.append(
            f"{r.identical_pictures / r.items:.0%} of the items share a picture with another. "
            "A placeholder? Leave the cell empty instead."
        )
    return out


def _time_hints(r: CheckReport) -> list[str]:
    """Say what of the times and of repeated events should make one careful."""
    out = []
    if not r.first_time:
        out.append(
            "No time is read, so sessions are split in the order of the file. If a column says "
            'when things happened, name it as [interactions] time = "..." in dataset.toml.'
        )
    if r.early_events:
        out.append(
            f"{_part(r.early_events, r.events)} events are from before 1995. Times that are no "
            "unix seconds look like that: see time_format in dataset.toml."
        )
    if r.duplicate_events > 0.001 * r.events and r.first_time:
        out.append(
            f"{_part(r.duplicate_events, r.events)} events repeat another in every cell. Look for "
            "rows that were exported twice."
        )
    return out


def print_check(report: CheckReport, console: Console) -> None:
    """Print a report as a table, and below it the hints."""
    r = report
    table = Table(title=f"Data: {escape(r.name)}", title_justify="left", show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()

    table.add_row("Items", f"{r.items:,}")
    for name, count in r.missing_text.items():
        table.add_row(f"  without {escape(name)}", _part(count, r.items))
    table.add_row("  their languages, by a guess", show_languages(r.languages) or "-")
    table.add_row("  without picture", _part(r.missing_pictures, r.items))
    table.add_row("  sharing a picture", _part(r.identical_pictures, r.items))
    if r.split_sessions["train"]:
        table.add_row("  never in training", _part(r.cold_items, r.items))
    if r.value is not None:
        _value(r.value, r.items, table)
    table.add_section()
    table.add_row("Events", f"{r.events:,}")
    between = f"{r.first_time} to {r.last_time} (UTC)" if r.first_time else "not in the data"
    table.add_row("  their times", between)
    table.add_row("  repeating another in every cell", _part(r.duplicate_events, r.events))
    table.add_row("Users", f"{r.users:,}" if r.users else "not in the data")
    table.add_row("Sessions", f"{r.sessions:,}")
    if r.guest_sessions:
        table.add_row("  of guests, without a user", _part(r.guest_sessions, r.sessions))
    table.add_row("  of two or more", _part(r.sessions_two, r.sessions))
    table.add_row("  their lengths", show_quantiles(r.lengths))
    table.add_row("  repeating another", _part(r.duplicate_sessions, r.sessions_two))
    table.add_row("Events of an item seen before", _percent(r.repeated_items))
    table.add_row("Transitions within one time", _percent(r.time_ties))
    table.add_row(
        f"Pairs seen {PAIR_MIN}+ times, one-way",
        f"{_percent(r.one_way_pairs)} of {r.repeated_pairs:,} pairs, "
        f"{_percent(r.one_way_events)} of their events",
        end_section=True,
    )
    if r.words:
        table.add_row(
            "Cells with a word for nothing", escape(show_words(r.words)), end_section=True
        )
    if r.split_sessions["train"]:
        _splits(r, table)
    console.print(table)
    for hint in hints(report):
        console.print(f"[yellow]![/yellow] {escape(hint)}", highlight=False)
    if r.reviews is not None:
        print_reviews(r.reviews, console)


def _value(value: ValueReport, items: int, table: Table) -> None:
    """Add the rows about what items are worth; ``items`` is how many there are."""
    for what, (name, (low, middle, high)) in zip(("sold at", "gained"), value.ranges.items()):
        between = f"{low:,.10g} to {high:,.10g}, median {middle:,.10g}"
        table.add_row(f"  {what} ({escape(name)})", between)
        table.add_row(f"  without {escape(name)}", _part(value.missing[name], items))
    if len(value.ranges) == 1:
        table.add_row("  gained of it", f"{value.share:.4g}")
    if value.losses:
        table.add_row("  sold at a loss", _part(value.losses, items))


def _splits(r: CheckReport, table: Table) -> None:
    """Add the rows about the splits."""
    for name, count in r.split_sessions.items():
        cold = r.cold_targets.get(name)
        predictions = r.split_predictions[name]
        table.add_row(
            f"Split: {name}",
            f"{count:,} sessions, {predictions:,} predictions"
            + ("" if cold is None else f", {_part(cold, predictions)} of a cold item"),
        )
    table.add_row("  ten longest of test", f"{_percent(r.longest_ten)} of its predictions")
    table.add_row("  test sessions in train", _part(r.test_in_train, r.split_sessions["test"]))
    table.add_row("  events cut at a split", f"{r.cut_events:,}")
    if r.filtered_events:
        table.add_row("  events filtered out of train", f"{r.filtered_events:,}")


def _part(count: int, of: int) -> str:
    return f"{count:,} ({count / of:.1%})" if of else "-"


def _percent(share: float) -> str:
    return "-" if np.isnan(share) else f"{share:.1%}"


def _share(flags: np.ndarray) -> float:
    return float(flags.mean()) if len(flags) else float("nan")


def _by_session(sessions: Sessions) -> np.ndarray:
    """Return how many predictions are made of each session, int64 [S]."""
    owner = np.repeat(np.arange(len(sessions)), sessions.lengths)
    return np.bincount(owner[sessions.predicted], minlength=len(sessions))


def _duplicates(raw: Raw) -> int:
    """Return how many events repeat an earlier one in every column that is read."""
    columns = [raw.item, raw.event, raw.rating, raw.time, raw.order, raw.label]
    columns += [group[0] for group in (raw.session, raw.user) if group is not None]
    if raw.review is not None:
        columns.append(np.unique(np.array(raw.review), return_inverse=True)[1])
    cells = [np.nan_to_num(column, nan=-9.5) for column in columns if column is not None]
    order = np.lexsort(cells)
    return int(np.all([np.diff(column[order]) == 0 for column in cells], 0).sum())


def _identical(pictures: list[bytes]) -> int:
    counts = Counter(hashlib.sha256(data).digest() for data in pictures if data)
    return sum(count for count in counts.values() if count > 1)


def _repeats(sessions: Sessions, n_items: int) -> int:
    session = np.repeat(np.arange(len(sessions)), sessions.lengths)
    return len(sessions.items) - len(np.unique(session * n_items + sessions.items))


def _directions(sessions: Sessions, n_items: int) -> tuple[int, float, float]:
    """Return (pairs seen at least PAIR_MIN times, share one-way, share of events one-way)."""
    last = sessions.offsets[1:-1] - 1
    a = np.delete(sessions.items[:-1], last).astype(np.int64)
    b = np.delete(sessions.items[1:], last).astype(np.int64)
    a, b = a[a != b], b[a != b]
    pair, index = np.unique(np.minimum(a, b) * n_items + np.maximum(a, b), return_inverse=True)
    total = np.bincount(index, minlength=len(pair))
    forward = np.bincount(index, weights=a < b, minlength=len(pair))
    often = total >= PAIR_MIN
    one_way = ((forward == 0) | (forward == total))[often]
    total = total[often]
    if not len(total):
        return 0, float("nan"), float("nan")
    return len(total), float(one_way.mean()), float(total[one_way].sum() / total.sum())
