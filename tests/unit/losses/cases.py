"""One table of cases: how every public loss is called by the checks of test_contract.py."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jmrec import losses

B, D, V, P, K = 6, 4, 11, 5, 7
WHERE = np.array([True, False, True, True, False, True])


@dataclass(frozen=True, eq=False)
class Case:
    """A loss of ``arrays`` (masked by example) and ``shared`` (not masked).

    ``pairs``: the arrays are [B, B], masked by row and by column.
    ``cut``: arrays that get no gradient on purpose, though the value depends on them.
    ``surrogate``: ``arrays -> values``, another function whose gradient, at the case's arrays, is
    the one that the loss should have, for losses whose gradient is not that of their value.
    ``entries``: array -> its axis that ``valid`` masks.
    ``truth``: ``arrays and shared, in float64 -> values [B]`` where nothing is masked: a closed
    form in numpy. A loss none of whose cases has one is named in TRUTHS of test_table.py.
    """

    loss: Callable
    arrays: dict[str, np.ndarray]
    shared: dict[str, np.ndarray] = field(default_factory=dict)
    pairs: bool = False
    cut: tuple[str, ...] = ()
    surrogate: Callable | None = None
    entries: dict[str, int] = field(default_factory=dict)
    valid: np.ndarray | None = None
    truth: Callable | None = None

    def pick(self, keep: np.ndarray) -> dict[str, np.ndarray]:
        if self.pairs:
            return {key: array[keep][:, keep] for key, array in self.arrays.items()}
        return {key: array[keep] for key, array in self.arrays.items()}


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


TARGETS = np.array([3, 0, 10, 3, 7, 1], np.int32)
IDS = np.array([7, 7, 7, 2, 2, 3], np.int32)
TWO = {"a": normal(B, D), "b": normal(B, D, seed=1)}
UNLIKE = {"a": normal(B, D), "b": normal(B, D - 1)}
LOGITS = {"a": normal(B, V), "b": normal(B, V, seed=1)}
LISTS = {"scores": normal(B, K), "labels": normal(B, K, seed=1)}
SCORES = {"scores": normal(B, B)}
GAUSSIAN = {
    "mean": normal(B, D),
    "log_variance": 0.3 * normal(B, D, seed=1),
    "y": normal(B, D, seed=2),
}
STATES = {"states": normal(B, D), "targets": TARGETS}
ITEMS = {"items": normal(V, D), "bias": normal(V)}
VALID = np.arange(V) != 5
LISTED = np.arange(K) != 4
TOKENS = {"a": normal(B, P, 8), "b": normal(B, P, 4)}
LENGTHS = np.arange(P) < 4
SAMPLES = np.array([3, 9, 1, 1, 6, 2, 10], np.int32)
LOG_Q = np.log(np.arange(1, V + 1) / np.arange(1, V + 1).sum()).astype(np.float32)
COUNTS = np.array([90.0, 7.0, 3.0], np.float32)
CLASSES = {"logits": normal(B, 3), "labels": np.array([0, 2, 1, 0, 1, 2], np.int32)}
BINARY = {"logits": normal(B), "labels": np.array([0, 1, 1, 0, 0, 1], np.int32)}
AVERAGE = np.float32(0.3)


def pair_loss(loss: Callable, **settings: Any) -> Callable:
    return lambda a, where: loss(a["a"], a["b"], where=where, **settings)


def score_loss(loss: Callable, **settings: Any) -> Callable:
    return lambda a, where: loss(a["scores"], where=where, **settings)


def list_loss(loss: Callable, **settings: Any) -> Callable:
    return lambda a, where: loss(a["scores"], a["labels"], where=where, **settings)


def gaussian_loss(loss: Callable) -> Callable:
    return lambda a, where: loss(a["mean"], a["log_variance"], a["y"], where=where)


def class_loss(loss: Callable, *more: np.ndarray, **settings: Any) -> Callable:
    return lambda a, where: loss(a["logits"], a["labels"], *more, where=where, **settings)


def softmax_loss(a: dict, where: Any, chunk: int) -> jax.Array:
    return losses.full_softmax(
        a["states"], a["items"], a["targets"], bias=a["bias"], valid=VALID, where=where,
        temperature=0.7, chunk=chunk,
    )  # fmt: skip


def sampled_loss(a: dict, where: Any, **settings: Any) -> jax.Array:
    return losses.sampled_softmax(
        a["states"], a["items"], a["targets"], a.get("samples", SAMPLES), log_q=LOG_Q,
        temperature=0.7, where=where, **settings,
    )  # fmt: skip


def in_batch_loss(a: dict, where: Any, **settings: Any) -> jax.Array:
    return losses.in_batch_softmax(
        a["a"], a["b"], ids=a["ids"], log_q=jnp.asarray(LOG_Q)[a["targets"]], where=where,
        temperature=0.7, **settings,
    )  # fmt: skip


def catalogue_loss(a: dict, where: Any, chunk: int) -> jax.Array:
    return losses.catalogue_kl(
        a["b"], a["teacher_items"], a["a"], a["items"], student_bias=a["bias"], temperature=2.0,
        valid=VALID, where=where, chunk=chunk,
    )  # fmt: skip


def topk_loss(a: dict, where: Any, divergence: Callable) -> jax.Array:
    return losses.topk_kl(
        a["a"], a["a_tail"], a["b"], a["b_tail"], temperature=2.0, valid=LISTED, where=where,
        divergence=divergence,
    )  # fmt: skip


def cached_loss(a: dict, where: Any, chunk: int) -> jax.Array:
    return losses.catalogue_topk(
        a["a"], a["tail"], a["rows"], a["states"], a["items"], student_bias=a["bias"],
        temperature=2.0, valid=VALID, where=where, chunk=chunk,
    )  # fmt: skip


def layers_loss(a: dict, where: Any) -> jax.Array:
    teachers, students = [a["a"], a["b"], a["c"]], [a["d"], a["e"]]
    return losses.layer_map(teachers, students, [(0, 0), (2, 1), (-2, -1)], where=where)


def mine_surrogate(a: dict) -> jax.Array:
    """MINE's gradient: that of the mean over pairs, divided by the moving average as it stands."""
    scores = a["scores"]
    others = WHERE[:, None] & WHERE[None, :] & ~np.eye(B, dtype=bool)
    mean = jnp.where(others, jnp.exp(scores), 0.0).sum() / others.sum()
    base = np.exp(SCORES["scores"].astype(np.float64))[others].mean()
    average = 0.9 * np.exp(float(AVERAGE)) + 0.1 * base
    return jnp.where(WHERE, jnp.diagonal(scores) - mean / average, 0.0)


def hsic_surrogate(a: dict) -> jax.Array:
    """HSIC whose bandwidths are held at those of the case's arrays."""
    scaled = {}
    n = WHERE.sum()
    for key, x in UNLIKE.items():
        squares = ((x[WHERE][:, None] - x[WHERE][None]) ** 2).sum(-1)
        scaled[key] = a[key] / np.sqrt(squares.sum() / (n * (n - 1)))
    return losses.hsic(scaled["a"], scaled["b"], where=WHERE, bandwidth=np.sqrt(0.5))


CASES = {
    "full_softmax, one block": Case(
        partial(softmax_loss, chunk=V), STATES, ITEMS, entries={"items": 0, "bias": 0}, valid=VALID
    ),
    "full_softmax, blocks": Case(
        partial(softmax_loss, chunk=4), STATES, ITEMS, entries={"items": 0, "bias": 0}, valid=VALID
    ),
    "sampled_softmax, shared": Case(sampled_loss, STATES, {"items": ITEMS["items"]}),
    "sampled_softmax, own": Case(
        partial(sampled_loss, correct_target=True),
        {**STATES, "samples": np.arange(B * 5, dtype=np.int32).reshape(B, 5) * 7 % V},
        {"items": ITEMS["items"]},
    ),
    "in_batch_softmax": Case(pair_loss(losses.in_batch_softmax), TWO),
    "in_batch_softmax, logq": Case(
        partial(in_batch_loss, correct_target=True), {**TWO, "ids": IDS, "targets": TARGETS}
    ),
    "bpr": Case(
        pair_loss(losses.bpr),
        {"a": normal(B), "b": normal(B, seed=1)},
        truth=lambda a: np.logaddexp(0, a["b"] - a["a"]),
    ),
    "bpr, several negatives": Case(pair_loss(losses.bpr), {"a": normal(B), "b": normal(B, 3)}),
    "bce": Case(
        pair_loss(losses.bce, calibration=0.75, sampling_rate=0.1, valid=LISTED),
        {"a": normal(B), "b": normal(B, K)},
        entries={"b": 1},
        valid=LISTED,
    ),
    "gbce": Case(
        pair_loss(losses.gbce, sampling_rate=0.1, valid=LISTED),
        {"a": normal(B), "b": normal(B, K)},
        entries={"b": 1},
        valid=LISTED,
        truth=lambda a: (
            (
                (1 - 0.75 * 0.9) * np.logaddexp(0, -a["a"])
                + np.where(LISTED, np.logaddexp(0, a["b"]), 0).sum(1)
            )
            / (1 + LISTED.sum(-1))
        ),
    ),
    "token_cross_entropy": Case(
        lambda a, where: losses.token_cross_entropy(
            a["logits"], a["targets"], where=where, label_smoothing=0.1
        ),
        {"logits": normal(B, V), "targets": TARGETS},
    ),
    "bag_cross_entropy": Case(
        lambda a, where: losses.bag_cross_entropy(
            a["logits"], a["tokens"], a["weights"], where=where
        ),
        {"logits": normal(B, V), "tokens": np.arange(B * 5, dtype=np.int32).reshape(B, 5) % V},
        {"weights": np.abs(normal(V))},
    ),
    **{
        f"{loss.__name__}, valid": Case(
            pair_loss(loss, temperature=2.0, valid=VALID),
            LOGITS,
            cut=("a",),
            entries={"a": 1, "b": 1},
            valid=VALID,
        )
        for loss in (losses.kl, losses.reverse_kl, losses.jensen_shannon, losses.skew_kl)
    },
    "jensen_shannon": Case(pair_loss(losses.jensen_shannon, share=0.2), LOGITS, cut=("a",)),
    "decoupled_kd": Case(
        lambda a, where: losses.decoupled_kd(
            a["a"], a["b"], a["targets"], temperature=2.0, valid=VALID, where=where
        ),
        {**LOGITS, "targets": TARGETS},
        cut=("a",),
        entries={"a": 1, "b": 1},
        valid=VALID,
    ),
    "catalogue_kl, blocks": Case(
        partial(catalogue_loss, chunk=4),
        TWO,
        {**ITEMS, "teacher_items": normal(V, D, seed=1)},
        cut=("b", "teacher_items"),
        entries={"items": 0, "bias": 0, "teacher_items": 0},
        valid=VALID,
    ),
    **{
        f"topk_kl, {loss.__name__}": Case(
            partial(topk_loss, divergence=loss),
            {
                "a": normal(B, K),
                "b": normal(B, K, seed=1),
                "a_tail": normal(B, seed=2),
                "b_tail": normal(B, seed=3),
            },
            cut=("a", "a_tail"),
            entries={"a": 1, "b": 1},
            valid=LISTED,
        )
        for loss in (losses.kl, losses.jensen_shannon)
    },
    "catalogue_topk": Case(
        partial(cached_loss, chunk=4),
        {
            "a": normal(B, 3),
            "tail": normal(B, seed=2),
            "rows": np.array([[0, 3, 4], [1, 2, 6], [9, 5, -1], [7, 8, 1], [2, 0, 1], [10, 4, 9]]),
            "states": normal(B, D),
        },
        ITEMS,
        cut=("a", "tail"),
        entries={"items": 0, "bias": 0},
        valid=VALID,
    ),
    "importance_weighted": Case(
        lambda a, where: losses.importance_weighted(a["a"], a["b"], a["c"], where=where),
        {"a": normal(B), "b": np.abs(normal(B, seed=1)) + 0.1, "c": np.abs(normal(B, seed=2))},
        cut=("b", "c"),
    ),
    "listnet": Case(
        list_loss(losses.listnet, valid=LISTED),
        LISTS,
        cut=("labels",),
        entries={"scores": 1, "labels": 1},
        valid=LISTED,
    ),
    "list_mle": Case(
        list_loss(losses.list_mle, valid=LISTED),
        LISTS,
        entries={"scores": 1, "labels": 1},
        valid=LISTED,
    ),
    "plackett_luce": Case(
        lambda a, where: losses.plackett_luce(
            a["scores"], rest=a["rest"], valid=LISTED, where=where
        ),
        {"scores": normal(B, K), "rest": normal(B)},
        entries={"scores": 1},
        valid=LISTED,
    ),
    "rank_distil": Case(
        pair_loss(losses.rank_distil, push=0.5, valid=LISTED),
        {"a": normal(B, K), "b": normal(B, 3)},
        entries={"a": 1},
        valid=LISTED,
    ),
    "pairwise_margin": Case(
        list_loss(losses.pairwise_margin, valid=LISTED),
        LISTS,
        entries={"scores": 1, "labels": 1},
        valid=LISTED,
    ),
    "feature_mse": Case(pair_loss(losses.feature_mse), TWO, cut=("a",)),
    "feature_mse, directions": Case(pair_loss(losses.feature_mse, normalize=True), TWO, cut=("a",)),
    "feature_cosine": Case(pair_loss(losses.feature_cosine), TWO, cut=("a",)),
    "fitnets": Case(
        lambda a, where: losses.fitnets(
            a["a"], a["b"], a["projection"], bias=a["bias"], where=where
        ),
        UNLIKE,
        {"projection": normal(D - 1, D), "bias": normal(D)},
        cut=("a",),
    ),
    "layer_map": Case(
        layers_loss, {key: normal(B, D, seed=n) for n, key in enumerate("abcde")}, cut=("abc")
    ),
    "distance_relations": Case(pair_loss(losses.distance_relations), UNLIKE, cut=("a",)),
    "angle_relations": Case(pair_loss(losses.angle_relations), UNLIKE, cut=("a",)),
    "similarity_preserving": Case(pair_loss(losses.similarity_preserving), UNLIKE, cut=("a",)),
    "cka": Case(pair_loss(losses.cka), UNLIKE, cut=("a",)),
    "attention_transfer": Case(
        pair_loss(losses.attention_transfer, valid=LENGTHS),
        TOKENS,
        cut=("a",),
        entries={"a": 1, "b": 1},
        valid=LENGTHS,
    ),
    "minilm_relations": Case(
        pair_loss(losses.minilm_relations, heads=2, valid=LENGTHS),
        TOKENS,
        cut=("a",),
        entries={"a": 1, "b": 1},
        valid=LENGTHS,
    ),
    "info_nce": Case(pair_loss(losses.info_nce, temperature=0.5), TWO),
    "info_nce, ids": Case(
        lambda a, where: losses.info_nce(
            a["a"], a["b"], temperature=0.5, where=where, ids=a["ids"], normalize=False
        ),
        {**TWO, "ids": IDS},
    ),
    "symmetric_info_nce": Case(pair_loss(losses.symmetric_info_nce, temperature=0.5), TWO),
    "sigmoid_contrast": Case(
        lambda a, where: losses.sigmoid_contrast(
            a["a"], a["b"], temperature=0.5, bias=-1.0, where=where, ids=a["ids"]
        ),
        {**TWO, "ids": IDS},
    ),
    "crd": Case(pair_loss(losses.crd, temperature=0.5, data_size=40), TWO),
    "supervised_contrast": Case(
        lambda a, where: losses.supervised_contrast(
            a["a"], a["labels"], temperature=0.5, where=where
        ),
        {"a": normal(B, D), "labels": np.array([0, 1, 0, 1, 1, 0], np.int32)},
    ),
    "infonce": Case(score_loss(losses.infonce), SCORES, pairs=True),
    "nwj": Case(score_loss(losses.nwj), SCORES, pairs=True),
    "mine": Case(
        lambda a, where: losses.mine(a["scores"], AVERAGE, decay=0.9, where=where)[0],
        SCORES,
        pairs=True,
        surrogate=mine_surrogate,
    ),
    "jsd": Case(score_loss(losses.jsd), SCORES, pairs=True),
    "smile": Case(score_loss(losses.smile, clip=0.8), SCORES, pairs=True),
    "club": Case(score_loss(losses.club), SCORES, pairs=True),
    "gaussian_log_likelihood": Case(gaussian_loss(losses.gaussian_log_likelihood), GAUSSIAN),
    "vclub": Case(gaussian_loss(losses.vclub), GAUSSIAN),
    "l1out": Case(gaussian_loss(losses.l1out), GAUSSIAN),
    "orthogonality": Case(pair_loss(losses.orthogonality), UNLIKE),
    "cross_covariance": Case(pair_loss(losses.cross_covariance), UNLIKE),
    "coral": Case(pair_loss(losses.coral), TWO),
    "hsic": Case(pair_loss(losses.hsic, bandwidth=1.5), UNLIKE),
    "hsic, own bandwidth": Case(pair_loss(losses.hsic), UNLIKE, surrogate=hsic_surrogate),
    "class_weighted": Case(class_loss(losses.class_weighted, 1 / COUNTS), CLASSES),
    "class_weighted, binary": Case(class_loss(losses.class_weighted, 1 / COUNTS[:2]), BINARY),
    "focal": Case(class_loss(losses.focal, weights=1 / COUNTS), CLASSES),
    "focal, binary": Case(class_loss(losses.focal, gamma=0.5), BINARY),
    "logit_adjusted": Case(class_loss(losses.logit_adjusted, COUNTS), CLASSES),
    "logit_adjusted, binary": Case(class_loss(losses.logit_adjusted, COUNTS[:2], tau=0.5), BINARY),
    "class_balanced": Case(class_loss(losses.class_balanced, COUNTS, gamma=1.0), CLASSES),
    "class_balanced, binary": Case(class_loss(losses.class_balanced, COUNTS[:2]), BINARY),
    "pairwise_logistic": Case(class_loss(losses.pairwise_logistic), BINARY),
}
