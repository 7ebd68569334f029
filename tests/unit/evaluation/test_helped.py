"""Whom the served row helps and harms, and slices by category: against loops over sessions."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from jmrec.data.schema import Dataset, Sessions
from jmrec.evaluation.figures import NONE_GIVEN, OTHERS, categories, slices
from jmrec.evaluation.helped import EXAMPLES, helped, kept_helped, two_rows
from jmrec.evaluation.protocol import Predictions, Ranked, make_predictions
from jmrec.evaluation.summary import Row


@pytest.fixture(scope="module")
def dataset(
    make_sessions: Callable[..., Sessions], make_dataset: Callable[..., Dataset]
) -> Dataset:
    rng = np.random.default_rng(0)
    lists = [rng.integers(0, 30, rng.integers(2, 30)).tolist() for _ in range(60)]
    test = make_sessions(lists)
    return make_dataset({"train": test, "test": test}, [f"thing {n}" for n in range(30)])


@pytest.fixture(scope="module")
def asked(dataset: Dataset) -> Predictions:
    return make_predictions(dataset.splits["test"])


def a_row(name: str, asked: Predictions, seed: int, seeds: int = 1) -> Row:
    rng = np.random.default_rng(seed)
    none = np.zeros((len(asked), 0))
    drawn = [rng.integers(1, 30, (1, len(asked))) for _ in range(seeds)]
    drawn[0][0, asked.session < 10] = 25  # sessions in which nobody is better
    ranked = [Ranked(np.where(asked.session < 10, 25, each), none, none) for each in drawn]
    return Row(name, "student" if seeds > 1 else "rule", ranked)


def test_shares_by_loops(dataset: Dataset, asked: Predictions) -> None:
    own, other = a_row("own", asked, 1, seeds=3), a_row("other", asked, 2)
    found = helped(own, other, asked, dataset.items)

    def mean(row: Row, session: int) -> float:
        at = [i for i in range(len(asked)) if asked.session[i] == session and asked.place[i] <= 20]
        values = [
            np.mean([1 / rank if rank <= 20 else 0 for rank in row.ranks()[:, i]]) for i in at
        ]
        return float(np.mean(values))

    apart = {n: mean(own, n) - mean(other, n) for n in range(60)}
    better = [n for n, each in apart.items() if each > 1e-9]
    worse = [n for n, each in apart.items() if each < -1e-9]
    assert better
    assert worse
    assert found["sessions"] == 60
    assert found["helped"] == pytest.approx(len(better) / 60)
    assert found["harmed"] == pytest.approx(len(worse) / 60)
    assert found["same"] == pytest.approx(1 - (len(better) + len(worse)) / 60)
    assert found["same"] >= 1 / 6
    assert found.get("gain") == pytest.approx(np.mean([apart[n] for n in better]))
    assert found.get("loss") == pytest.approx(np.mean([apart[n] for n in worse]))
    for part, sessions, sign in ((found["better"], better, -1), (found["worse"], worse, 1)):
        assert len(part) == EXAMPLES
        for each in part:
            assert each["session"] in sessions
            assert sign * (each["places"][0] - each["places"][1]) > 0
            # The session is that of the split, with the item that came next.
            whole = dataset.splits["test"].items[slice(*_bounds(dataset, each["session"]))]
            length = each["cut"] + len(each["past"])
            assert each["past"] == [str(item) for item in whole[each["cut"] : length]]
            assert each["next"] == str(whole[length])
            assert found["items"][each["next"]] == {"title": f"thing {whole[length]}"}
    assert found == helped(own, other, asked, dataset.items)
    assert found["better"] != helped(own, other, asked, dataset.items, seed=1)["better"]


def _bounds(dataset: Dataset, session: int) -> tuple[int, int]:
    offsets = dataset.splits["test"].offsets
    return int(offsets[session]), int(offsets[session + 1])


def test_examples_of_who_goes_go(dataset: Dataset, asked: Predictions) -> None:
    found = helped(a_row("own", asked, 1, 3), a_row("other", asked, 2), asked, dataset.items)
    gone = found["better"][0]["session"]
    keep = np.arange(60) != gone
    kept = kept_helped(found, keep)
    old = [each["session"] for each in found["better"] + found["worse"] if each["session"] != gone]
    new = [each["session"] for each in kept["better"] + kept["worse"]]
    assert new == [n - (n > gone) for n in old]
    assert kept["helped"] == found["helped"]
    shown = {x for each in kept["better"] + kept["worse"] for x in [*each["past"], each["next"]]}
    assert set(kept["items"]) == shown


def test_which_two_rows(asked: Predictions) -> None:
    rows = [a_row(name, asked, n) for n, name in enumerate(("rule", "other rule", "gru"))]

    def names(served: str, rule: str | None, student: str | None = None) -> list[str] | None:
        more = {"student": student} if student else {}
        found = two_rows({"row": served, "beside": [], **more}, rule, rows)  # type: ignore[typeddict-item]
        return None if found is None else [each.name for each in found]

    assert names("gru", "rule") == ["gru", "rule"]
    assert names("rule", "rule", "gru") == ["rule", "gru"]
    assert names("other rule", "rule", "gru") == ["other rule", "rule"]
    assert names("rule", "rule") is None
    assert names("gru", None) is None
    assert names("nobody", "rule") is None
    assert two_rows(None, "rule", rows) is None


def test_slices_by_category_by_loops(dataset: Dataset, asked: Predictions) -> None:
    codes = np.array([0, 0] + [1 + n % 11 for n in range(28)], np.int32)
    names = ["", *"abcdefghij", OTHERS]  # a category may have any name
    items = dataclasses.replace(
        dataset.items, category={"kind": codes, "alike": np.ones(30, np.int32)},
        category_names={"kind": names, "alike": ["", "one"]},
    )  # fmt: skip
    parts = categories(items, asked)
    assert list(parts) == ["kind of the target"]
    own = parts["kind of the target"]
    assert len(own) in (9, 10)  # eight, the others, and none
    assert np.stack(list(own.values())).sum(0).tolist() == [1] * len(asked)
    counts = [int(mask.sum()) for name, mask in own.items() if name not in (OTHERS, NONE_GIVEN)]
    assert counts == sorted(counts, reverse=True)
    ranks = a_row("own", asked, 1).ranks()
    found = slices(ranks, asked, dataset.train_count, parts)["kind of the target"]
    for name, entry in found.items():
        by_session: dict[int, list[float]] = {}
        for i in range(len(asked)):
            code = codes[asked.target[i]]
            if asked.place[i] > 20 or not own[name][i]:
                continue
            assert (code == 0) == (name == NONE_GIVEN)
            if name not in (OTHERS, NONE_GIVEN):
                assert names[code] == name
            rank = ranks[0, i]
            by_session.setdefault(int(asked.session[i]), []).append(1 / rank if rank <= 20 else 0)
        assert entry["n"] == sum(map(len, by_session.values()))
        assert entry["MRR@20"] == pytest.approx(np.mean([np.mean(v) for v in by_session.values()]))


def test_data_without_categories_has_no_such_slice(dataset: Dataset, asked: Predictions) -> None:
    assert categories(dataset.items, asked) == {}
