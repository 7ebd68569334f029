"""ToyShop keeps its stated limits, and its oracle is the process it claims to be."""

import csv
import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from scipy.linalg import solve_triangular
from sklearn.linear_model import LogisticRegression

from jmrec.data.folder import read_folder
from jmrec.data.toyshop import (
    FIRST,
    LAST,
    NEVER,
    PREVIOUS,
    START,
    VISUAL,
    Oracle,
    ToyShopConfig,
    make_process,
    write_toyshop,
)
from jmrec.data.toyshop_texts import LOOKS
from jmrec.errors import UserError

Scorer = Callable[[list[int], float], np.ndarray]


class Shop:
    """A written ToyShop, read back with csv alone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.oracle = Oracle(folder)
        self.process = self.oracle.process
        rows = {item: row for row, item in enumerate(self.oracle.ids)}
        sessions: dict[str, list[tuple[int, float]]] = {}
        with (folder / "interactions.csv").open(encoding="utf-8") as file:
            for line in csv.DictReader(file):
                event = (rows[line["item_id"]], float(line["timestamp"]))
                sessions.setdefault(line["session_id"], []).append(event)
        self.sessions = sorted(sessions.values(), key=lambda events: events[0][1])
        self.new = self.process.released > START
        n = len(self.sessions)
        self.splits = np.split(np.arange(n), [int(0.8 * n), int(0.9 * n)])

    def part(self, k: int) -> list[list[tuple[int, float]]]:
        return [self.sessions[s] for s in self.splits[k]]

    def mrr(self, sessions: list[list[tuple[int, float]]], score: Scorer) -> float:
        """MRR@20, mean over sessions of the mean over positions; ties count against the scorer."""
        means = []
        for session in sessions:
            items = [item for item, _ in session]
            values = []
            for p in range(1, len(items)):
                scores = np.array(score(items[:p], session[p - 1][1]), np.float64)
                target = scores[items[p]]
                scores[items[:p]] = -np.inf
                rank = int((scores >= target).sum())
                values.append(1 / rank if rank <= 20 else 0.0)
            means.append(np.mean(values))
        return float(np.mean(means))


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    folder = tmp_path_factory.mktemp("toyshop") / "shop"
    write_toyshop(folder, ToyShopConfig())
    return Shop(folder)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    folder = tmp_path_factory.mktemp("toyshop") / "tiny"
    write_toyshop(folder, ToyShopConfig.tiny())
    return Shop(folder)


def rules(shop: Shop) -> dict[str, Scorer]:
    """The rules without training, written out once more."""
    size = len(shop.oracle.ids)
    train = [[item for item, _ in session] for session in shop.part(0)]
    held = np.zeros((len(train), size), np.float32)
    following, sequential = np.zeros((size, size)), np.zeros((size, size))
    for s, items in enumerate(train):
        held[s, items] = 1
        for p, item in enumerate(items):
            for q in range(p + 1, len(items)):
                sequential[item, items[q]] += 1 / (q - p)
            if p + 1 < len(items):
                following[item, items[p + 1]] += 1
    together = held.T @ held
    count = together.diagonal().copy()
    popular = 1e-3 * count / count.sum()
    cosine = together / np.sqrt(np.outer(count, count) + 1e-9)
    inverse = np.linalg.inv(together + 50 * np.eye(size))
    ease = -inverse / inverse.diagonal()
    np.fill_diagonal(ease, 0)

    def decayed(table: np.ndarray, decay: float) -> Scorer:
        return lambda items, _: (
            sum(decay**k * table[item] for k, item in enumerate(reversed(items))) + popular
        )

    def v_sknn(items: list[int], _: float) -> np.ndarray:
        near = held[:, items] @ ((np.arange(len(items)) + 1) / len(items)).astype(np.float32)
        best = np.argsort(-near, kind="stable")[:100]
        return near[best] @ held[best] + popular

    released = shop.process.released
    noise = np.random.default_rng(0).random(size)
    return {
        "popularity": lambda items, _: popular,
        "markov": lambda items, _: following[items[-1]] + popular,
        "sequential": lambda items, _: sequential[items[-1]] + popular,
        "sequential, whole prefix": decayed(sequential, 0.5),
        "item-knn": decayed(cosine, 0.7),
        "ease": decayed(ease, 0.4),
        "v-sknn": v_sknn,
        "newest": lambda _, time: np.where(released <= time, released, 0) + noise,
    }


def test_the_oracle_lies_in_its_range_and_above_every_rule(shop: Shop) -> None:
    held_out = shop.part(1) + shop.part(2)
    part = held_out[::8]  # v-sknn is slow
    oracle = shop.mrr(part, shop.process.log_probabilities)
    shares = {name: shop.mrr(part, rule) / oracle for name, rule in rules(shop).items()}
    print(f"oracle {oracle:.3f}", {name: round(share, 3) for name, share in shares.items()})
    assert 0.2 <= oracle <= 0.5
    assert max(shares.values()) <= 0.6
    assert shares["newest"] < 0.1


@pytest.fixture(scope="module", params=[0, 1, 2])
def looks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """The pictures of three generator seeds; they do not depend on the number of sessions."""
    if request.param == ToyShopConfig().seed:
        return request.getfixturevalue("shop")
    folder = tmp_path_factory.mktemp("looks") / "shop"
    write_toyshop(folder, ToyShopConfig(seed=request.param, sessions=100))
    return Shop(folder)


def test_a_linear_probe_on_pixels_is_weak(looks: Shop) -> None:
    paths = [looks.folder / "images" / f"{item}.png" for item in looks.oracle.ids]
    pictures = np.stack([np.asarray(Image.open(path), np.float32).ravel() for path in paths])
    pictures = pictures / 255 - 0.5
    # A linear probe with an L2 penalty knows pictures by their inner products alone, so these
    # coordinates, along the old pictures made orthogonal, give the same probe: half the numbers.
    inner = pictures[~looks.new].astype(np.float64) @ pictures.T.astype(np.float64)
    triangle = np.linalg.cholesky(inner[:, ~looks.new])
    pictures = solve_triangular(triangle, inner, lower=True).T.astype(np.float32)
    found = {}
    for name in VISUAL:
        values = looks.process.attributes[:, looks.process.names.index(name)]
        probe = LogisticRegression(C=0.03, max_iter=150)
        probe.fit(pictures[~looks.new], values[~looks.new])
        found[name] = probe.score(pictures[looks.new], values[looks.new])
    print({name: round(accuracy, 3) for name, accuracy in found.items()})
    assert max(found.values()) <= 0.8


def test_new_items_are_targets_in_validation_and_test_only(shop: Shop) -> None:
    shares = []
    for k in range(3):
        targets = np.array([item for session in shop.part(k) for item, _ in session[1:]])
        shares.append(shop.new[targets].mean())
    print("new targets:", np.round(shares, 3))
    assert not any(shop.new[item] for session in shop.part(0) for item, _ in session)
    assert 0.12 <= shares[1] <= 0.28
    assert 0.12 <= shares[2] <= 0.28
    seen = {item for session in shop.part(0) for item, _ in session}
    assert seen == set(np.flatnonzero(~shop.new).tolist())


def test_events_are_in_order_and_released(shop: Shop) -> None:
    previous_end = 0.0
    for session in shop.sessions:
        times = [time for _, time in session]
        assert times == sorted(set(times))
        assert times[0] > previous_end
        previous_end = times[-1]
        assert len({item for item, _ in session}) == len(session)
        assert all(shop.process.released[item] <= time for item, time in session)


def test_looks_stand_in_three_quarters_of_the_old_texts_and_in_no_new_one(shop: Shop) -> None:
    """Every item that mentions a look mentions its own, and the words occur nowhere else."""
    attributes, names = shop.process.attributes, shop.process.names
    told = np.zeros(len(shop.oracle.ids), bool)
    with (shop.folder / "items.csv").open(encoding="utf-8") as file:
        for row, line in enumerate(csv.DictReader(file)):
            text = " ".join(v for k, v in line.items() if k not in ("item_id", "image")).lower()
            for name, words in LOOKS.items():
                found = {
                    value
                    for value, wordings in enumerate(words)
                    if any(re.search(rf"(?<![\w-]){re.escape(w)}(?![\w-])", text) for w in wordings)
                }
                if found:
                    assert found == {attributes[row, names.index(name)]}, (line, name)
                    told[row] = True
    assert not told[shop.new].any()
    assert 0.7 <= told[~shop.new].mean() <= 0.8


def test_the_same_config_writes_the_same_bytes(tiny: Shop, tmp_path: Path) -> None:
    def digest(folder: Path) -> dict[str, str]:
        return {
            str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }

    write_toyshop(tmp_path / "again", ToyShopConfig.tiny())
    write_toyshop(tmp_path / "other", ToyShopConfig.tiny(seed=1))
    assert digest(tmp_path / "again") == digest(tiny.folder)
    assert digest(tmp_path / "other") != digest(tiny.folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "other"]


def test_the_reader_reads_it(tiny: Shop) -> None:
    raw = read_folder(tiny.folder)
    assert raw.items.ids == tiny.oracle.ids
    assert list(raw.items.text) == ["title", "description", "brand", "details"]
    assert all(raw.items.pictures)
    assert raw.description.exclude_seen
    assert len(raw.item) == sum(len(session) for session in tiny.sessions)


def _by_hand(shop: Shop, prefix: list[int], time: float) -> np.ndarray:
    """The docstring's formula, item by item."""
    process = shop.process
    anchors = {LAST: prefix[-1], PREVIOUS: prefix[-2] if len(prefix) > 1 else None}
    anchors[FIRST] = prefix[0]
    weights = np.zeros(len(process.bias))
    for item in range(len(weights)):
        if item in prefix or process.released[item] > time:
            continue
        logit = process.bias[item]
        for a, where in enumerate(process.anchor):
            anchor = anchors[int(where)]
            if anchor is None:
                continue
            wanted = process.wanted[a, process.attributes[anchor, a]]
            logit += process.weight[a] if process.attributes[item, a] == wanted else 0.0
        weights[item] = np.exp(logit)
    return weights / weights.sum()


def test_the_oracle_is_the_formula(tiny: Shop) -> None:
    sessions = [s for s in tiny.part(1) if len(s) >= 3][:5]
    windows = np.full((5, 50), -1, np.int32)
    for w, session in enumerate(sessions):
        windows[w, : len(session)] = [item for item, _ in session]
    pairs = [(w, end) for w in range(5) for end in (0, 1)]
    times = np.array([sessions[w][end][1] for w, end in pairs])
    window, end = np.array(pairs).T
    prefixes = SimpleNamespace(windows=windows, window=window, end=end, time=times)
    scores = tiny.oracle.scores(prefixes, slice(0, 200))
    for p, (w, e) in enumerate(pairs):
        expected = _by_hand(tiny, windows[w, : e + 1].tolist(), times[p])
        np.testing.assert_allclose(np.exp(scores[p]), expected, rtol=1e-9, atol=0)
        assert np.exp(scores[p]).sum() == pytest.approx(1.0)
        assert (scores[p][windows[w, : e + 1]] == NEVER).all()
        assert (scores[p][tiny.process.released > times[p]] == NEVER).all()
    np.testing.assert_array_equal(tiny.oracle.scores(prefixes, slice(50, 90)), scores[:, 50:90])


def test_the_clicks_follow_the_oracle(shop: Shop) -> None:
    """Calibration: attribute matches occur as often as the oracle says, and so do its top picks."""
    process, a = shop.process, 0
    matched, expected, variance = 0.0, 0.0, 0.0
    first, first_expected, first_variance = 0.0, 0.0, 0.0
    for session in shop.part(2):
        items = [item for item, _ in session]
        for p in range(1, len(items)):
            chance = np.exp(process.log_probabilities(items[:p], session[p - 1][1]))
            fits = (
                process.attributes[:, a] == process.wanted[a, process.attributes[items[p - 1], a]]
            )
            share = chance[fits].sum()
            matched, expected = matched + fits[items[p]], expected + share
            variance += share * (1 - share)
            best = chance.argmax()
            first, first_expected = first + (items[p] == best), first_expected + chance[best]
            first_variance += chance[best] * (1 - chance[best])
    assert abs(matched - expected) < 4 * np.sqrt(variance)
    assert abs(first - first_expected) < 4 * np.sqrt(first_variance)


def test_the_wanted_values_are_one_cycle_or_stay() -> None:
    process = make_process(ToyShopConfig(), np.random.default_rng(3))
    for a, name in enumerate(process.names):
        wanted = process.wanted[a][process.wanted[a] >= 0]
        value, walked = 0, []
        for _ in wanted:
            walked.append(value)
            value = int(wanted[value])
        stays = process.anchor[a] == FIRST
        assert sorted(wanted) == list(range(len(wanted))), name
        assert len(set(walked)) == (1 if stays else len(wanted)), name


def test_mistakes_are_told_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="too small"):
        ToyShopConfig(items=10)
    with pytest.raises(UserError, match="only a ToyShop folder"):
        Oracle(tmp_path)
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(UserError, match="no ToyShop"):
        write_toyshop(tmp_path, ToyShopConfig.tiny())
    assert (tmp_path / "precious.txt").read_text() == "mine"
