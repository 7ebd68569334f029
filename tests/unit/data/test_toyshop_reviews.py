"""ToyShop's reviews keep their stated limits, and their oracle is the process it claims to be."""

import csv
import hashlib
import re
import tomllib
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import sparse
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.model_selection import cross_val_score

from jmrec.data.toyshop import ToyShopConfig, write_toyshop
from jmrec.data.toyshop_reviews import DISLIKES, TASTES, ReviewOracle
from jmrec.data.toyshop_texts import LOOKS
from jmrec.errors import UserError

# Nothing here looks at a picture, so they are small.
SIZE = ToyShopConfig(
    items=400, sessions=100, reviews=16_000, users=128, look_share=0.25, picture_size=8
)
SMALL = ToyShopConfig(items=60, sessions=60, reviews=600, users=40, picture_size=8)
SEEN = ("shape", "colour", "pattern", "mark")
SAID = ("category", "material", "brand", "season")
LOOK = {
    word: (SEEN.index(name), value)
    for name, words in LOOKS.items()
    for value, wordings in enumerate(words)
    for word in wordings
}
LOOK_WORDS = re.compile(
    rf"(?<![\w-])(?:{'|'.join(map(re.escape, sorted(LOOK, key=len, reverse=True)))})(?![\w-])"
)


def told(text: str) -> np.ndarray:
    """Float [visual attributes, 8]: 1 for what a text says of a look."""
    found = np.zeros((len(SEEN), 8))
    for word in LOOK_WORDS.findall(text.lower()):
        found[LOOK[word]] = 1
    return found


class Reviews:
    """Written reviews, read back with csv alone, and what models make of them."""

    def __init__(self, folder: Path) -> None:
        with (folder / "reviews.csv").open(encoding="utf-8", newline="") as file:
            lines = list(csv.DictReader(file))
        self.folder, self.oracle = folder, ReviewOracle(folder)
        self.lines = lines
        self.labels = np.array([int(line["disliked"]) for line in lines])
        self.times = np.array([int(line["timestamp"]) for line in lines])
        self.texts = [line["review"] for line in lines]
        users, items = ([line[key] for line in lines] for key in ("user_id", "item_id"))
        self.probability = self.oracle.probability(users, items)
        self.users = np.array([int(user[1:]) for user in users])
        self.items = np.array([int(item[1:]) for item in items])
        with np.load(folder / "truth.npz") as truth:
            self.names, self.attributes = truth["names"].tolist(), truth["attributes"]
        self.start = int(0.9 * len(lines))

    def share(self, scores: np.ndarray) -> float:
        """PR-AUC on the last tenth of the rows, as a share of the oracle's."""
        test = self.labels[self.start :]
        best = average_precision_score(test, self.probability[self.start :])
        return float(average_precision_score(test, scores[-len(test) :]) / best)

    def rules(self) -> dict[str, float]:
        """Smoothed means over the earlier rows, in logits."""
        overall, found = self.labels[: self.start].mean(), []
        for key in (self.items, self.users):
            count, sad, rate = np.zeros(key.max() + 1), np.zeros(key.max() + 1), []
            for row, label in zip(key, self.labels):
                rate.append((sad[row] + 10 * overall) / (count[row] + 10))
                count[row] += 1
                sad[row] += label
            found.append(np.log(rate) - np.log1p(-np.array(rate)))
        item, user = found
        return {
            name: self.share(s)
            for name, s in [("item", item), ("user", user), ("both", item + user)]
        }

    @cached_property
    def words(self) -> sparse.csr_array:
        return sparse.csr_array(CountVectorizer(dtype=np.float32).fit_transform(self.texts))

    def earlier_words(self, key: np.ndarray) -> sparse.csr_array:
        """TF-IDF of all reviews of a row's item (or user) before it."""
        same = sparse.csr_array((np.ones(len(key), np.float32), (np.arange(len(key)), key)))
        counts = sparse.tril(same @ same.T, -1, "csr") @ self.words
        return sparse.csr_array(TfidfTransformer(sublinear_tf=True).fit_transform(counts))

    def logistic(self, features: sparse.csr_array | np.ndarray, c: float) -> float:
        model = LogisticRegression(C=c, max_iter=300)
        model.fit(features[: self.start], self.labels[: self.start])
        return self.share(model.decision_function(features[self.start :]))

    def one_hot(self, names: tuple[str, ...]) -> np.ndarray:
        values = self.attributes[self.items][:, [self.names.index(name) for name in names]]
        return np.concatenate([np.eye(8)[column] for column in values.T], 1)

    def told_before(self) -> np.ndarray:
        """What the item's text and all reviews before a row say of its look, float [N, 32]."""
        with (self.folder / "items.csv").open(encoding="utf-8", newline="") as file:
            known = np.stack([told(line["description"]) for line in csv.DictReader(file)])
        rows = []
        for item, text in zip(self.items, self.texts):
            rows.append(known[item].ravel())
            known[item] = np.maximum(known[item], told(text))
        return np.stack(rows)

    def by_taste(self, features: np.ndarray) -> float:
        """Logistic regression that knows features of the item and each user's true group."""
        taste = np.eye(TASTES)[self.oracle.process.taste[self.users]]
        crossed = taste[:, :, None] * features[:, None]
        return self.logistic(crossed.reshape(len(taste), -1), 0.3)

    def by_user(self, names: tuple[str, ...], width: int = 2, weight: float = 8e-4) -> float:
        """A factorisation: a vector per user times one per attribute value, found from ids."""
        features, users = jnp.asarray(self.one_hot(names), jnp.float32), jnp.asarray(self.users)
        keys, n = jax.random.split(jax.random.key(0)), self.start
        params = {
            "user": 0.1 * jax.random.normal(keys[0], (self.users.max() + 1, width)),
            "value": 0.1 * jax.random.normal(keys[1], (features.shape[1], width)),
            "level": jnp.zeros(features.shape[1]),
            "bias": jnp.array(-2.7),
        }

        def logits(p: dict[str, jax.Array]) -> jax.Array:
            met = ((features @ p["value"]) * p["user"][users]).sum(-1)
            return met + features @ p["level"] + p["bias"]

        def loss(p: dict[str, jax.Array]) -> jax.Array:
            fit = optax.sigmoid_binary_cross_entropy(logits(p)[:n], self.labels[:n]).mean()
            squares = (
                (p["user"] ** 2).sum() / 10 + (p["value"] ** 2).sum() + (p["level"] ** 2).sum()
            )
            return fit + weight * squares

        optimiser = optax.adam(0.05)

        def step(carry: tuple, _: None) -> tuple:
            p, state = carry
            update, state = optimiser.update(jax.grad(loss)(p), state)
            return (optax.apply_updates(p, update), state), None

        def fit(p: dict[str, jax.Array]) -> jax.Array:
            (p, _), _ = jax.lax.scan(step, (p, optimiser.init(p)), None, length=200)
            return logits(p)

        return self.share(np.asarray(jax.jit(fit)(params)))


@pytest.fixture(scope="module", params=[0, 1])
def reviews(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Reviews:
    folder = tmp_path_factory.mktemp("reviews") / "shop"
    write_toyshop(folder, replace(SIZE, seed=request.param))
    return Reviews(folder)


def test_the_oracle_lies_in_its_range_and_above_every_rule(reviews: Reviews) -> None:
    test = slice(reviews.start, None)
    oracle = average_precision_score(reviews.labels[test], reviews.probability[test])
    area = roc_auc_score(reviews.labels[test], reviews.probability[test])
    rules = reviews.rules()
    print(f"oracle PR-AUC {oracle:.3f}, ROC-AUC {area:.3f}", rules)
    assert 0.4 <= oracle <= 0.8
    assert max(rules.values()) <= 0.6


def test_a_bag_of_words_is_not_enough(reviews: Reviews) -> None:
    item = reviews.earlier_words(reviews.items)
    both = sparse.hstack([item, reviews.earlier_words(reviews.users)], "csr")
    shares = {name: reviews.logistic(x, 1.0) for name, x in [("item", item), ("both", both)]}
    print("bag of words", shares)
    assert max(shares.values()) <= 0.65


def test_text_and_picture_are_needed_and_enough(reviews: Reviews) -> None:
    said, seen = reviews.one_hot(SAID), reviews.one_hot(SEEN)
    known = {
        "both": reviews.by_taste(np.concatenate([said, seen], 1)),
        "text": reviews.by_taste(said),
        "all words": reviews.by_taste(np.concatenate([said, reviews.told_before()], 1)),
        "picture": reviews.by_taste(seen),
        "both, users by id": reviews.by_user(SEEN + SAID),
    }
    print(known)
    assert known["both"] >= 0.9
    assert known["both, users by id"] >= 0.85
    assert max(known["text"], known["all words"], known["picture"]) <= 0.75


def test_a_users_reviews_tell_the_taste(reviews: Reviews) -> None:
    users = sparse.csr_array(
        (np.ones(len(reviews.users)), (reviews.users, np.arange(len(reviews.users))))
    )
    words = TfidfTransformer().fit_transform(users @ reviews.words)
    model = LogisticRegression(C=100.0, max_iter=300)
    right = cross_val_score(model, words, reviews.oracle.process.taste, cv=4)
    print("taste from all reviews of a user:", right)
    assert right.mean() >= 0.9


def test_dislike_is_rare_and_calibrated(reviews: Reviews) -> None:
    assert 0.04 <= reviews.labels.mean() <= 0.08
    order = np.argsort(reviews.probability)
    for rows in np.split(
        order, np.searchsorted(reviews.probability[order], [0.01, 0.03, 0.1, 0.4, 0.7])
    ):
        p = reviews.probability[rows]
        assert len(rows) > 50
        assert abs(reviews.labels[rows].sum() - p.sum()) < 4 * np.sqrt((p * (1 - p)).sum())


def test_rows_are_in_order_released_and_not_twice(reviews: Reviews) -> None:
    with np.load(reviews.folder / "truth.npz") as truth:
        released = truth["released"]
    assert len(reviews.labels) == SIZE.reviews
    assert (np.diff(reviews.times) >= 0).all()
    assert (released[reviews.items] <= reviews.times).all()
    assert len(set(zip(reviews.users, reviews.items))) == SIZE.reviews
    assert np.bincount(reviews.users).min() >= 40
    new = released > released.min()
    assert not new[reviews.items[: int(0.8 * SIZE.reviews)]].any()
    assert 0.1 <= new[reviews.items[reviews.start :]].mean() <= 0.3


def test_few_reviews_name_a_look_and_always_the_items_own(reviews: Reviews) -> None:
    named = np.stack([told(text) for text in reviews.texts])
    own = reviews.one_hot(SEEN).reshape(named.shape)
    assert (named <= own).all()
    named_share = named.any((1, 2)).mean()
    assert 0.03 <= named_share <= 0.05


def test_the_wording_varies(reviews: Reviews) -> None:
    assert len(set(reviews.texts)) > 0.8 * len(reviews.texts)
    assert all(text.strip() for text in reviews.texts)


def test_the_oracle_is_the_formula(reviews: Reviews) -> None:
    process = reviews.oracle.process
    for row in range(0, SIZE.reviews, 97):
        user, item = reviews.users[row], reviews.items[row]
        logit = process.bias + process.grumpiness[user] + process.flaw[item]
        for name in DISLIKES:
            a = reviews.names.index(name)
            logit += process.effects[process.taste[user], a, reviews.attributes[item, a]]
        assert reviews.probability[row] == pytest.approx(1 / (1 + np.exp(-logit)))


def test_no_two_groups_dislike_the_same(reviews: Reviews) -> None:
    effects = reviews.oracle.process.effects
    for name, (weight, count) in DISLIKES.items():
        met = effects[:, reviews.names.index(name)]
        assert ((met > 0).sum(1) == count).all()
        assert ((met > 0).sum(0) <= 1).all()
        assert met.max() == weight
    others = [a for a, name in enumerate(reviews.names) if name not in DISLIKES]
    assert not effects[:, others].any()


def test_the_same_config_writes_the_same_bytes_and_moves_none_of_the_shop(tmp_path: Path) -> None:
    def digest(folder: Path) -> dict[str, str]:
        return {
            str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }

    plain = replace(SMALL, reviews=0)
    for name, config in [("one", SMALL), ("two", SMALL), ("plain", plain)]:
        write_toyshop(tmp_path / name, config)
    write_toyshop(tmp_path / "other", replace(SMALL, seed=1))
    one, shop = digest(tmp_path / "one"), digest(tmp_path / "plain")
    assert one == digest(tmp_path / "two")
    assert one["reviews.csv"] != digest(tmp_path / "other")["reviews.csv"]
    assert set(one) - set(shop) == {"reviews.csv", "reviews.toml", "reviews_truth.npz"}
    assert {name: one[name] for name in shop} == shop


def test_the_description_is_that_of_the_shop_with_reviews(tmp_path: Path) -> None:
    write_toyshop(tmp_path / "shop", SMALL)
    shop, reviews = (
        tomllib.loads((tmp_path / "shop" / f"{name}.toml").read_text())
        for name in ("dataset", "reviews")
    )
    assert reviews["items"] == shop["items"]
    assert reviews["interactions"]["label_means"] == "avoid"
    with (tmp_path / "shop" / reviews["interactions"]["file"]).open() as file:
        header = next(csv.reader(file))
    columns = [reviews["interactions"][key] for key in ("user", "item", "time", "review", "label")]
    assert header == columns


def test_mistakes_are_told_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="ask for at most 960 reviews"):
        replace(SMALL, reviews=1000)
    write_toyshop(tmp_path / "shop", replace(SMALL, reviews=0))
    with pytest.raises(UserError, match="written with reviews"):
        ReviewOracle(tmp_path / "shop")
