"""What a scientist wants to know about reviews and labels before ranking by them."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from jmrec.data.folder import Raw
from jmrec.data.ratings import make_ratings
from jmrec.data.schema import Ratings

QUANTILES = (0, 25, 50, 75, 90, 99, 100)
PARTS = {"first 80%": (0.0, 0.8), "next 10%": (0.8, 0.9), "last 10%": (0.9, 1.0)}
"""Part of the rows in the order of time -> its limits."""
DAY = 86_400.0
_ENGLISH = (
    "the of and to a in is it that for as with this but on be are at by an not his from have he "
    "you has its all one more than or so was about what who if no too will there when"
)
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")
_MARKUP = re.compile(r"</?[a-zA-Z][^<>]*>|&[a-z]+;|&#\d+;")
_ENOUGH = 5
"""Words from which a text without a common English one is counted as another language."""


@dataclass(frozen=True)
class ReviewReport:
    """Plain numbers about labels and reviews; shares are fractions from 0 to 1, NaN of nothing.

    Attributes:
      rows: Rows in all.
      label: What the label is, "" where none is declared.
      label_means: "avoid" or "want".
      labelled: Rows with a label.
      positive: Rows where it occurs.
      positive_by_part: Part of the rows in the order of time -> (rows with a label, where it
        occurs).
      again: Rows whose user said something of the same item before.
      reviews: Rows with a review.
      lengths: Percentile -> characters of a review, of those that are not empty.
      duplicates: Reviews that repeat another row's word for word.
      markup: Reviews with HTML in them.
      other_script: Reviews most of whose letters are not Latin.
      english_words: Share of all words that are among the commonest of English; near 0.4 for
        English texts and below 0.1 for most others.
      not_english: Reviews of five words or more without one of these.
      reviewed_items: Items with a review.
      reviewed_users: Users with one.
      item_earlier: Part of the rows -> those whose item has a review of an earlier day (a row,
        where the data has no reviews).
      user_earlier: Part of the rows -> those whose user has one.
    """

    rows: int
    label: str
    label_means: str
    labelled: int
    positive: int
    positive_by_part: dict[str, tuple[int, int]]
    again: int
    reviews: int
    lengths: dict[int, float]
    duplicates: int
    markup: int
    other_script: int
    english_words: float
    not_english: int
    reviewed_items: int
    reviewed_users: int
    item_earlier: dict[str, int]
    user_earlier: dict[str, int]


def check_reviews(raw: Raw) -> ReviewReport | None:
    """Count what matters in labels and reviews.

    Args:
      raw: The validated folder.

    Returns:
      The report; None where the data has neither.
    """
    if raw.review is None and raw.label is None:
        return None
    r = make_ratings(raw)
    texts = [text for text in r.reviews if text]
    english = frozenset(_ENGLISH.split())
    words = [_words(text) for text in texts]
    common = np.array([sum(word in english for word in each) for each in words], int)
    count = np.array([len(each) for each in words], int)
    filled = np.array([bool(text) for text in r.reviews], bool)
    tells = filled if texts else np.ones(len(r), bool)
    known = r.labels >= 0
    # Whose day is not known, of them the place in the file tells what was earlier.
    day = np.floor(r.times / DAY) if raw.time is not None else r.times
    places = {name: _rows(len(r), part) for name, part in PARTS.items()}

    def earlier(codes: np.ndarray) -> dict[str, int]:
        before = _earlier(codes, day, tells)
        return {name: int(before[rows].sum()) for name, rows in places.items()}

    return ReviewReport(
        rows=len(r),
        label=r.label,
        label_means=r.label_means,
        labelled=int(known.sum()),
        positive=int((r.labels == 1).sum()),
        positive_by_part={
            name: (int(known[rows].sum()), int((r.labels[rows] == 1).sum()))
            for name, rows in places.items()
        },
        again=_again(r),
        reviews=len(texts),
        lengths=quantiles([len(text) for text in texts]),
        duplicates=len(texts) - len(set(texts)),
        markup=sum(bool(_MARKUP.search(text)) for text in texts),
        other_script=sum(_other_script(text) for text in texts),
        english_words=_share(int(common.sum()), int(count.sum())),
        not_english=int(((count >= _ENOUGH) & (common == 0)).sum()),
        reviewed_items=len(np.unique(r.items[filled])),
        reviewed_users=len(np.unique(r.users[filled & (r.users >= 0)])),
        item_earlier=earlier(r.items),
        user_earlier=earlier(r.users),
    )


def review_hints(report: ReviewReport) -> list[str]:
    """Say in plain words what in a report should make one careful; often nothing."""
    r = report
    out = []
    if r.label and r.labelled < r.rows:
        out.append(f"{_part(r.rows - r.labelled, r.rows)} rows have no label and teach nothing.")
    (labelled, positive), *_, (last, late) = r.positive_by_part.values()
    if r.label and late < 100:
        out.append(
            f"Only {late:,} of the last 10% of the rows have the label. Models will hardly be "
            "told apart on them."
        )
    shares = _share(positive, labelled), _share(late, last)
    if min(positive, late) >= 20 and max(shares) > 1.5 * min(shares):
        out.append(
            f"The label's share moves from {shares[0]:.1%} of the first 80% to {shares[1]:.1%} of "
            "the last 10%. Probabilities learned on the past will be off."
        )
    if r.again > 0.01 * r.rows:
        out.append(
            f"{_part(r.again, r.rows)} rows are of a user and an item that had one before. Look "
            "for rows that were recorded twice."
        )
    if not r.reviews:
        return out
    if r.reviews < 0.8 * r.rows:
        out.append(f"{_part(r.rows - r.reviews, r.rows)} rows have no review.")
    if r.duplicates > 0.02 * r.reviews:
        out.append(
            f"{_part(r.duplicates, r.reviews)} reviews repeat another one word for word. Look for "
            "ready-made texts."
        )
    if r.markup > 0.01 * r.reviews:
        out.append(
            f"{_part(r.markup, r.reviews)} reviews hold HTML, which is read as text. Take it out."
        )
    foreign = r.other_script + r.not_english
    if foreign > 0.1 * r.reviews:
        out.append(
            f"{_part(foreign, r.reviews)} reviews do not look English. Read them with models that "
            "know their language."
        )
    if r.lengths[50] < 20:
        out.append(f"Half of the reviews have at most {r.lengths[50]:g} characters.")
    return out


def print_reviews(report: ReviewReport, console: Console) -> None:
    """Print a report as a table, and below it the hints."""
    r = report
    table = Table(title="Labels and reviews", title_justify="left", show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()

    def parts(counts: Sequence[tuple[int, int]]) -> str:
        return ", ".join(
            f"{n / of:.1%} of the {name}" for name, (n, of) in zip(PARTS, counts) if of
        )

    if r.label:
        table.add_row("Label", f"{escape(r.label)} (to {r.label_means})")
        table.add_row("  known", _part(r.labelled, r.rows))
        table.add_row("  occurs", _part(r.positive, r.labelled))
        table.add_row("  by time", parts([(n, of) for of, n in r.positive_by_part.values()]))
    table.add_row("Same user and item before", _part(r.again, r.rows), end_section=True)
    what = "row"
    if r.reviews:
        what = "review"
        table.add_row("Reviews", _part(r.reviews, r.rows))
        table.add_row("  their characters", show_quantiles(r.lengths))
        table.add_row("  repeating another", _part(r.duplicates, r.reviews))
        table.add_row("  with HTML", _part(r.markup, r.reviews))
        table.add_row("  mostly not Latin letters", _part(r.other_script, r.reviews))
        table.add_row("  without a common English word", _part(r.not_english, r.reviews))
        table.add_row("  common English among words", f"{r.english_words:.1%}")
        table.add_row("  items, users with one", f"{r.reviewed_items:,}, {r.reviewed_users:,}")
    rows = [_rows(r.rows, part) for part in PARTS.values()]
    sizes = [part.stop - part.start for part in rows]
    for name, counts in [("item", r.item_earlier), ("user", r.user_earlier)]:
        table.add_row(
            f"Rows whose {name} has an earlier {what}", parts(list(zip(counts.values(), sizes)))
        )
    console.print(table)
    for hint in review_hints(report):
        console.print(f"[yellow]![/yellow] {escape(hint)}", highlight=False)


def _share(count: int, of: int) -> float:
    return count / of if of else float("nan")


def _part(count: int, of: int) -> str:
    return f"{count:,} of {of:,} ({count / of:.1%})" if of else "-"


def _rows(n: int, part: tuple[float, float]) -> slice:
    return slice(*(int(round(edge * n, 6)) for edge in part))


def quantiles(lengths: Sequence[int] | np.ndarray) -> dict[int, float]:
    """Return percentile -> length, {} of none.

    Example:
      >>> quantiles([1, 2, 3])[50]
      2.0
    """
    if not len(lengths):
        return {}
    return {q: float(v) for q, v in zip(QUANTILES, np.percentile(lengths, QUANTILES))}


def show_quantiles(lengths: dict[int, float]) -> str:
    """Return quantiles on one line.

    Example:
      >>> show_quantiles({0: 1.0, 50: 2.0, 90: 2.5})
      'min 1  median 2  90% 2.5'
    """
    named = {0: "min", 50: "median", 100: "max"}
    return "  ".join(f"{named.get(q, f'{q}%')} {v:g}" for q, v in lengths.items())


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _other_script(text: str) -> bool:
    """Whether most letters are not Latin.

    Example:
      >>> _other_script("schöner Film"), _other_script("Хороший film")
      (False, True)
    """
    latin = [_is_latin(letter) for letter in text if letter.isalpha()]
    return 2 * sum(latin) < len(latin)


@lru_cache(maxsize=100_000)
def _is_latin(letter: str) -> bool:
    return "LATIN" in unicodedata.name(letter, "")


def _again(ratings: Ratings) -> int:
    """Return how many rows have a user and an item that had a row before."""
    rows = ratings.users >= 0
    pairs = np.stack([ratings.users[rows], ratings.items[rows]], 1)
    return len(pairs) - len(np.unique(pairs, axis=0))


def _earlier(codes: np.ndarray, day: np.ndarray, tells: np.ndarray) -> np.ndarray:
    """Return bool [N]: whether a row of the same code (int [N], not -1) tells on an earlier day."""
    first = np.full(int(codes.max(initial=-1)) + 1, np.inf)
    mine = tells & (codes >= 0)
    np.minimum.at(first, codes[mine], day[mine])
    return (
        np.where(codes >= 0, day > first[codes], False) if len(first) else np.zeros(len(day), bool)
    )
