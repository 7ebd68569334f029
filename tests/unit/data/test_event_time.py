"""Splits by the time of each event, and events that are read and not predicted."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jmrec.data.check import check
from jmrec.data.folder import read_folder
from jmrec.data.pipeline import session_batches
from jmrec.data.prepared import build, load_prepared, prepare
from jmrec.data.schema import SPLITS, Dataset, Sessions
from jmrec.data.sessions import split_by_event
from jmrec.errors import UserError
from jmrec.evaluation.protocol import ask, make_predictions, rank
from jmrec.evaluation.rankers.cooccurrence import LinearRule, cosine, markov, tie_break
from jmrec.evaluation.rankers.known import Known
from jmrec.evaluation.rankers.popularity import popularity_grid

TWEETINGS = Path(__file__).resolve().parents[3] / "experiments/data/tweetings.toml"
ROWS = list[tuple[str, str, int, str]]
Asked = list[tuple[str, tuple[str, ...], str, float]]


def draw(users: int = 12, n: int = 400, seed: int = 0) -> ROWS:
    """Return rows (user, item, time, event) in no order, some of one time."""
    random = np.random.default_rng(seed)
    return [
        (
            f"u{random.integers(users)}",
            f"i{random.integers(9)}",
            int(1_700_000_000 + 3600 * random.integers(200)),
            "purchase" if random.random() < 0.3 else "view",
        )
        for _ in range(n)
    ]


@pytest.fixture
def shop(tmp_path: Path, write_csv: Callable[..., None]) -> Callable[..., Path]:
    def make(rows: ROWS, toml: str) -> Path:
        write_csv(tmp_path / "items.csv", [("item_id", "title"), *((f"i{k}", f"Thing {k}")
                                                                   for k in range(9))])  # fmt: skip
        head = ("user_id", "item_id", "timestamp", "event")
        write_csv(tmp_path / "interactions.csv", [head, *rows])
        (tmp_path / "dataset.toml").write_text(toml)
        return tmp_path

    return make


def asked(dataset: Dataset, split: str) -> Asked:
    """Return (user, items so far, target, time of the target) of each prediction."""
    sessions, ids = dataset.splits[split], dataset.items.ids
    made = make_predictions(sessions)
    out = []
    for row, position, target in zip(made.session, made.position, made.target, strict=True):
        begin = sessions.offsets[row]
        past = tuple(ids[i] for i in sessions.items[begin : begin + position])
        time = sessions.times[begin + position]
        out.append((sessions.ids[row], past, ids[target], float(time)))
    return sorted(out)


def by_hand(rows: ROWS, wanted: str = "") -> dict[str, Asked]:
    """Predict every event from the user's earlier ones, row by row, as the issue's words say it."""
    ordered = sorted(rows, key=lambda row: row[2])  # ties keep the file's order
    times = [row[2] for row in ordered]
    cuts = [times[int(0.8 * len(rows))], times[int(0.9 * len(rows))], float("inf")]
    found: dict[str, Asked] = {s: [] for s in SPLITS}
    past: dict[str, list[str]] = {}
    for user, item, time, event in ordered:
        split = next(name for name, end in zip(SPLITS, cuts) if time < end)
        own = past.setdefault(user, [])
        if own and wanted in ("", event):
            found[split].append((user, tuple(own), item, float(time)))
        own.append(item)
    return {name: sorted(each) for name, each in found.items()}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("wanted", ["", "purchase"])
def test_every_event_is_predicted_once_from_what_came_before(
    shop: Callable[..., Path], seed: int, wanted: str
) -> None:
    rows = draw(seed=seed)
    chosen = f'[interactions]\ntarget_events = ["{wanted}"]\n' if wanted else ""
    folder = shop(rows, f'[dataset]\nsplit = "event_time"\n{chosen}')
    raw = read_folder(folder)
    dataset = build(raw)
    right = by_hand(rows, wanted)
    for split in ("validation", "test"):
        assert asked(dataset, split) == right[split]
    # Training ends at the boundary: no event of validation or test is in it.
    train = dataset.splits["train"]
    assert train.times.max() < min(time for *_, time in right["validation"])
    assert sorted(np.diff(train.offsets))[0] >= 2
    batches = session_batches(train, buckets=((7, 4),), seed=0, places=True)
    learned = set()
    for batch in (batches[n] for n in range(40)):
        follows = batch["place"][batch["mask"]] + 1
        names = np.array(dataset.event_names)[train.events[follows]]
        ok = batch["target_ok"][batch["mask"]]
        assert ok.tolist() == [wanted in ("", name) for name in names]
        learned |= {(train.ids[np.searchsorted(train.offsets, at, "right") - 1], train.times[at])
                    for at in follows[ok]}  # fmt: skip
    assert learned == {(user, time) for user, _, _, time in right["train"]}
    report = check(dataset, raw)
    assert report.split_predictions["test"] == len(right["test"])
    assert report.cut_events == 0


def test_long_histories_are_asked_at_every_target_and_read_the_newest(
    shop: Callable[..., Path],
) -> None:
    rows = draw(users=2, n=600, seed=5)
    dataset = build(read_folder(shop(rows, '[dataset]\nsplit = "event_time"\n')))
    right = by_hand(rows)["test"]
    assert len(right[0][1]) > 200
    assert asked(dataset, "test") == right
    made, ids = ask(dataset, "test"), dataset.items.ids
    for row in range(len(made)):
        window = made.prefixes.windows[made.prefixes.window[row]][: made.prefixes.end[row] + 1]
        start = made.seen_start[row]
        past = made.seen_items[start : start + made.position[row]]
        assert window.tolist() == past[-50:].tolist(), ids
    assert made.place.tolist() == [
        place for row in range(2) for place in range(1, 1 + int((made.session == row).sum()))
    ]


def test_what_is_prepared_is_loaded_with_its_targets(
    shop: Callable[..., Path], tmp_path: Path
) -> None:
    folder = shop(draw(), '[dataset]\nsplit = "event_time"\n')
    out = tmp_path / "prepared"
    made, loaded = prepare(folder, None, out), load_prepared(out)
    right = build(read_folder(folder))
    plain = build(read_folder(shop(draw(), "")))
    assert made.fingerprint == loaded.fingerprint != plain.fingerprint
    for split in SPLITS:
        found = loaded.splits[split].targets
        if split != "train":
            assert 0 < found.sum() < len(found)
        np.testing.assert_array_equal(found, right.splits[split].targets)
    assert plain.splits["test"].targets.all()


def test_purchases_alone_are_predicted_where_sessions_are_split_by_their_start(
    shop: Callable[..., Path],
) -> None:
    rows = draw(n=800)
    toml = '[dataset]\nsession_gap_minutes = 600\n[interactions]\ntarget_events = ["purchase"]\n'
    every = build(read_folder(shop(rows, "[dataset]\nsession_gap_minutes = 600\n")))
    some = build(read_folder(shop(rows, toml)))
    for split in SPLITS:
        assert some.splits[split].ids == every.splits[split].ids
        np.testing.assert_array_equal(some.splits[split].items, every.splits[split].items)
    buys = {(user, float(time), item) for user, item, time, event in rows if event == "purchase"}
    views = {(user, float(time), item) for user, item, time, event in rows if event == "view"}
    wanted = [
        each for each in asked(every, "test")
        if (each[0].split(":")[0], each[3], each[2]) in buys - views
    ]  # fmt: skip
    found = [each for each in asked(some, "test")
             if (each[0].split(":")[0], each[3], each[2]) not in views]  # fmt: skip
    assert found == wanted
    assert 0 < len(found) < len(asked(every, "test"))


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ('[dataset]\nsplit = "event"\n', "event_time"),
        ('[dataset]\nsplit = "event_time"\n[interactions]\ntime = ""\n', "a column of times"),
        ('[dataset]\nsplit = "last_out"\n[interactions]\ntime = ""\n', "a column of times"),
        ("[dataset]\nvalidation_from = 1\ntest_from = 2\n", 'need split = "event_time"'),
        ('[dataset]\nsplit = "event_time"\ntest_from = 2\n', "write both"),
        ('[dataset]\nsplit = "event_time"\ntest_from = 2\nvalidation_from = 2\n', "later than"),
        ('[dataset]\nsplit = "event_time"\ntest_from = 2\nvalidation_from = 1\n', "No event of"),
        ('[dataset]\nsplit = "last_out"\nsession_gap_minutes = 0.01\n', "long enough for train"),
        ('[interactions]\ntarget_events = ["buy"]\n', "'buy'"),
        ('[interactions]\nevent = ""\ntarget_events = ["view"]\n', "a column of events"),
        ("[interactions]\ntarget_events = 3\n", "a list of strings"),
    ],
)
def test_what_makes_no_sense_is_refused(shop: Callable[..., Path], toml: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        build(read_folder(shop(draw(), toml)))


def test_splits_of_papers_have_no_earlier_windows(shop: Callable[..., Path]) -> None:
    for keys in (
        '"last_out"',
        '"event_time"\nvalidation_from = 1700200000\ntest_from = 1700400000',
    ):
        raw = read_folder(shop(draw(), f"[dataset]\nsplit = {keys}\n"))
        one, other = build(raw), build(raw, fractions=(0.6, 0.2, 0.2))  # no shares decide
        assert [asked(one, name) for name in SPLITS] == [asked(other, name) for name in SPLITS]
        with pytest.raises(UserError, match="earlier"):
            build(raw, back=1)


def test_k_core_leaves_the_last_events_alone(shop: Callable[..., Path]) -> None:
    """And jmrec data check says what it takes out, whatever splits."""
    rows = [*draw(), ("u1", "i8", 1_800_000_000, "view")]
    plain = build(read_folder(shop(rows, '[dataset]\nsplit = "last_out"\n')))
    raw = read_folder(shop(rows, '[dataset]\nsplit = "last_out"\nk_core = 45\n'))
    cored = build(raw)
    for name in ("validation", "test"):
        assert asked(cored, name) == asked(plain, name)
    counts = np.bincount(cored.splits["train"].items, minlength=9)
    assert min(counts[counts > 0]) >= 45 > min(np.bincount(plain.splits["train"].items))
    gone = len(plain.splits["train"].items) - len(cored.splits["train"].items)
    assert check(cored, raw).filtered_events == gone > 0


def test_one_moment_is_in_one_split() -> None:
    times = np.array([0.0, 1, 1, 1, 1, 1, 1, 1, 2, 3])
    one = Sessions(["a"], np.array([0]), np.array([0, 10]), np.arange(10), times,
                   np.zeros(10, int), np.zeros(10))  # fmt: skip
    with pytest.raises(UserError, match="No event of train"):
        split_by_event(one, (0.6, 0.2, 0.2))
    with pytest.raises(UserError, match="No event of validation"):
        split_by_event(one, (0.8, 0.05, 0.15))


def test_tweetings_rules_reach_what_an_independent_program_reached(shared_data: Path) -> None:
    """The frozen table of SOURCE.md: HR@20 and MRR@20 over all predictions of test."""
    dataset = build(read_folder(shared_data / "tweetings", TWEETINGS, check_pictures=False))
    predictions, train, n = ask(dataset, "test"), dataset.splits["train"], len(dataset.items)
    assert len(predictions) == 6031
    assert len(ask(dataset, "validation")) == 6014
    near, trace = tie_break(train, n, 0.1)
    rules = {
        (0.164, 0.039): next(iter(popularity_grid(Known(dataset)))),
        # A back-off of 1 orders equal counts by popularity and nothing else.
        (0.173, 0.057): markov(train, n, 1.0),
        (0.170, 0.053): LinearRule("kNN", cosine(train, n, 0.0, 0.0), near, trace, 1.0, 2),
    }
    for (hits, reciprocal), rule in rules.items():
        ranks = rank(rule, predictions, n_items=n, exclude_seen=True, top=0).ranks[0]
        assert (ranks <= 20).mean() == pytest.approx(hits, abs=0.002), rule.name
        found = np.where(ranks <= 20, 1 / ranks, 0.0).mean()
        assert found == pytest.approx(reciprocal, abs=0.002), rule.name
