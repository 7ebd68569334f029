"""An artefact of pairs: answers against brute force, files that come back, and damage."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from scipy.special import expit, logit

from jmrec.data.verdicts import Verdict
from jmrec.errors import UserError
from jmrec.evaluation.policy import Availability, Correction, make_policy
from jmrec.files import write_manifest
from jmrec.metrics.calibration import Platt
from jmrec.models.dlrm import DlrmConfig, Pairs, dlrm
from jmrec.serving import (
    PairArtefact,
    ServedPairs,
    load,
    load_pairs,
    read_pairs,
    write,
    write_pairs,
)
from jmrec.serving.folder import flatten_params
from jmrec.serving.measure import USERS, cold_start, latency
from jmrec.serving.pairs import Line

ITEMS, PEOPLE, PAST = 30, 6, 4
IDS = [f"i{row:02}" for row in range(ITEMS)]
NAMES = [f"user{row}" for row in range(PEOPLE)]
CONFIG = DlrmConfig(
    numbers=5, items=64, users=16, categories=(4,), parts=(6, 3, 2), past=8, width=8, prior=-1.5
)
PARTS = (("words", "item"), ("profile", "user"), ("picture", "item"))
FILES = (
    "serve.json", "ranker.safetensors", "items.safetensors", "items.json", "users.safetensors",
    "users.json", "rated.safetensors",
)  # fmt: skip


@pytest.fixture(scope="module")
def pairs() -> PairArtefact:
    rng, people = np.random.default_rng(0), PEOPLE + 1

    def table(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    params = jax.device_get(dlrm(CONFIG).init(jax.random.key(0)))
    params["items"], params["users"] = table(64, 8), table(16, 8)
    items = {
        "numbers": table(ITEMS, 5),
        "id_row": np.arange(ITEMS, dtype=np.int32) + 1,
        "category": rng.integers(0, 4, (ITEMS, 1)).astype(np.int32),
        "part/words": table(ITEMS, 6),
        "ok/words": rng.random(ITEMS) < 0.8,
        "part/picture": table(ITEMS, 2),
        "ok/picture": rng.random(ITEMS) < 0.8,
    }
    users = {
        "numbers": table(people, 5),
        "id_row": np.array([*range(1, people), 0], np.int32),
        "part/profile": table(people, 3),
        "ok/profile": np.arange(people) < PEOPLE,
        "past": rng.integers(0, ITEMS, (people, PAST)).astype(np.int32),
        "past_label": rng.integers(0, 3, (people, PAST)).astype(np.int32),
        "past_mask": np.arange(people)[:, None] > np.arange(PAST),
    }
    users["past_mask"][-1] = False
    rated = [np.unique(rng.integers(0, ITEMS, n)).astype(np.int32) for n in range(PEOPLE)]
    return PairArtefact(
        row="both",
        config=CONFIG,
        params=params,
        prior=0.2,
        parts=PARTS,
        of_user=np.array([False, True, False, True, True]),
        line=Line(-0.3, Platt(4.0, 7.2), 0.5),
        label="rotten",
        label_means="avoid",
        ids=IDS,
        titles=[f"Title of {item}, “quoted”" for item in IDS],
        user_ids=NAMES,
        items=items,
        users=users,
        rated=[*rated, np.zeros(0, np.int32)],
        policy=make_policy(IDS, True),
        verdicts=(),
        provenance={"run": "none"},
    )


@pytest.fixture(scope="module")
def rule(pairs: PairArtefact) -> PairArtefact:
    rng = np.random.default_rng(1)
    tables = [
        {"count": count.astype(np.float64), "sum": np.floor(count * 0.3)}
        for count in (rng.integers(0, 50, ITEMS), np.array([*rng.integers(0, 50, PEOPLE), 0]))
    ]
    return replace(
        pairs, row="item + user mean", config=None, params={}, parts=(),
        of_user=np.zeros(0, bool), items=tables[0], users=tables[1],
    )  # fmt: skip


@pytest.fixture
def folder(pairs: PairArtefact, tmp_path: Path) -> Path:
    write_pairs(pairs, tmp_path / "serve")
    return tmp_path / "serve"


def brute(made: PairArtefact, user: int) -> np.ndarray:
    """Return the logits of all items, one pair at a time."""
    assert made.config is not None
    score, found = jax.jit(dlrm(made.config).fns["score"]), []
    past = np.concatenate([made.items["part/words"], made.items["part/picture"]], 1)
    for item in range(ITEMS):
        sides = [(made.items, item) if of == "item" else (made.users, user) for _, of in PARTS]
        numbers = [
            made.users["numbers"][user, f] if own else made.items["numbers"][item, f]
            for f, own in enumerate(made.of_user)
        ]
        pair = Pairs(
            numbers=np.array([numbers], np.float32),
            item=made.items["id_row"][[item]],
            user=made.users["id_row"][[user]],
            category=made.items["category"][[item]],
            parts=tuple(t[f"part/{name}"][[row]] for (name, _), (t, row) in zip(PARTS, sides)),
            parts_ok=np.array([[t[f"ok/{n}"][row] for (n, _), (t, row) in zip(PARTS, sides)]]),
            past=past[made.users["past"][[user]]],
            past_label=made.users["past_label"][[user]],
            past_mask=made.users["past_mask"][[user]],
        )
        found.append(float(score(made.params, pair)[0][0]) + made.line.added)
    return np.array(found)


def test_the_scores_are_those_of_one_pair_at_a_time(pairs: PairArtefact) -> None:
    served = ServedPairs(pairs, "memory")
    for row, user in ((0, "user0"), (4, "user4"), (PEOPLE, "somebody new")):
        np.testing.assert_allclose(served.logits(user), brute(pairs, row), rtol=1e-5, atol=1e-5)


def test_a_rule_is_counts_and_sums(rule: PairArtefact) -> None:
    found, prior = ServedPairs(rule, "memory").logits("user2"), rule.prior

    def mean(table: dict[str, np.ndarray], row: Any) -> Any:
        return (table["sum"][row] + 5 * prior) / (table["count"][row] + 5)

    item, user = mean(rule.items, slice(None)), mean(rule.users, 2)
    expected = logit(item) + logit(user) - logit(prior) + rule.line.added
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("means", ["avoid", "want"])
@pytest.mark.parametrize("user", ["user3", "user5", "somebody new"])
def test_recommendations_are_those_of_a_sort(pairs: PairArtefact, means: str, user: str) -> None:
    made = replace(pairs, label_means=means)
    served = ServedPairs(made, "memory")
    chance = expit(4.0 * served.logits(user) + 7.2)
    row = served.user_row(user)
    unseen = [item for item in range(ITEMS) if item not in made.rated[row]]
    good = [item for item in unseen if means == "want" or chance[item] < 0.5]
    order = sorted(good, key=lambda item: chance[item] if means == "avoid" else -chance[item])
    found = served.recommend(user, top=ITEMS)
    assert [each["item_id"] for each in found["items"]] == [IDS[item] for item in order]
    assert [each["probability"] for each in found["items"]] == chance[order].tolist()
    assert found["left_out"] == len(unseen) - len(good)
    assert found["known"] == (user in NAMES)
    assert len(served.recommend(user, 3)["items"]) == min(3, len(good))
    flags = {each["flag"] for each in found["items"]}
    assert flags <= ({""} if means == "avoid" else {"", "above the threshold"})


def test_who_is_not_known_is_new_and_the_nearest_name_is_told(pairs: PairArtefact) -> None:
    served = ServedPairs(pairs, "memory")
    found, other = served.recommend("usr4"), served.recommend("?")
    assert (found["known"], found["nearest"]) == (False, "user4")
    assert (other["known"], other["nearest"]) == (False, None)
    assert found["items"] == other["items"]
    with pytest.raises(UserError, match="1 item or more"):
        served.recommend("user4", top=0)
    with pytest.raises(UserError, match="'usr4' is not known to memory; did you mean 'user4'"):
        served.recommend("usr4", unknown="refuse")


def test_users_are_named_by_numbers_too_and_many_are_asked_at_once(pairs: PairArtefact) -> None:
    numbered = replace(pairs, user_ids=[str(row) for row in range(10, 10 + PEOPLE)])
    served, named = ServedPairs(numbered, "memory"), ServedPairs(pairs, "memory")
    want = [named.recommend(f"user{row}", 4)["items"] for row in (3, 0)]
    for users in ([13, 10], np.array([13, 10]), [13.0, "10"]):
        found = served.recommend_batch(users, np.int64(4))
        assert [(each["known"], each["items"]) for each in found] == [(True, each) for each in want]
    for user in (None, 1.5, True, ["10"], b"10"):
        with pytest.raises(UserError, match=r"the user is .*, which is no id"):
            served.recommend(user)
    for top, at in (("5", None), (2.5, None), (3, "soon"), (3, 1.7e12)):
        with pytest.raises(UserError, match=r"^(top|at)"):
            served.recommend("10", top, at)
    with pytest.raises(UserError, match="no list of user ids"):
        served.recommend_batch("10")


def test_people_stand_above_the_model(pairs: PairArtefact) -> None:
    served = ServedPairs(pairs, "memory")
    plain = served.recommend("user1", ITEMS)
    shown = [each["item_id"] for each in plain["items"]]
    rated = {IDS[item] for item in pairs.rated[1]}
    above = [item for item in IDS if item not in shown and item not in rated]
    assert len(above) > 3  # else there is nothing to test
    served.verdicts = (
        Verdict(above[0], "", "keep"), Verdict(above[1], "user1", "keep"),
        Verdict(above[2], "user2", "keep"), Verdict(shown[0], "", "drop"),
        Verdict(shown[1], "", "drop"), Verdict(shown[1], "user1", "keep"),
        Verdict(next(iter(rated)), "", "keep"),
    )  # fmt: skip
    served.policy = make_policy(IDS, True, Correction(pin=(above[3],), block=(shown[2],)))
    found = served.recommend("user1", ITEMS)
    names = [each["item_id"] for each in found["items"]]
    assert names[0] == above[3]  # pinned, though above the threshold
    assert set(names) == {*shown, *above[:2], above[3]} - {shown[0], shown[2]}
    assert found["left_out"] == plain["left_out"] - 3
    flags = {each["item_id"]: each["flag"] for each in found["items"]}
    assert flags[above[3]] == "pinned, above the threshold"
    assert flags[above[0]] == "kept by hand, above the threshold"
    assert flags[shown[1]] == "kept by hand"


def test_windows_are_kept(pairs: PairArtefact) -> None:
    start = np.full(ITEMS, -np.inf)
    start[:20] = 100.0
    windows = Availability(start, np.full(ITEMS, np.inf))
    served = ServedPairs(replace(pairs, policy=make_policy(IDS, True, None, windows)), "memory")
    early, late = (served.recommend("user0", ITEMS, at=at)["items"] for at in (99.0, 100.0))
    assert {each["item_id"] for each in early} == {
        each["item_id"] for each in late if each["item_id"] >= "i20"
    }


@pytest.mark.parametrize("kind", ["pairs", "rule"])
def test_what_is_written_comes_back(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    start = np.full(ITEMS, -np.inf)
    start[3] = 1e9
    full: PairArtefact = replace(
        request.getfixturevalue(kind),
        policy=make_policy(IDS, True, Correction(block=("i02",), pin=("i05",)),
                           Availability(start, np.full(ITEMS, np.inf))),
        verdicts=(Verdict("i07", "user3", "drop"), Verdict("i08", "", "keep")),
    )  # fmt: skip
    for name in ("one", "two"):
        write_pairs(full, tmp_path / name)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
    shutil.rmtree(tmp_path / "two")
    again = read_pairs(tmp_path / "one")
    for each in ("row", "config", "prior", "parts", "line", "label", "label_means", "ids"):
        assert getattr(again, each) == getattr(full, each)
    for each in ("titles", "user_ids", "verdicts", "provenance"):
        assert getattr(again, each) == getattr(full, each)
    assert again.policy.correction == full.policy.correction
    for table, other in (
        (again.items, full.items), (again.users, full.users),
        (flatten_params(again.params), flatten_params(full.params)),
        (dict(enumerate(again.rated)), dict(enumerate(full.rated))),
    ):  # fmt: skip
        assert table.keys() == other.keys()
        for each, array in table.items():
            np.testing.assert_array_equal(array, other[each])
            assert array.dtype == other[each].dtype
    served, memory = load_pairs(tmp_path / "one"), ServedPairs(full, "memory")
    for user in (*NAMES, "new"):
        assert served.recommend(user, ITEMS) == memory.recommend(user, ITEMS)


def test_files_are_in_place_of_what_was_exported(folder: Path, tmp_path: Path) -> None:
    policy, said = tmp_path / "policy.toml", tmp_path / "said.csv"
    policy.write_text('pin = ["i09"]\n')
    said.write_text("item_id,user_id,verdict\ni08,,drop\n")
    served = load_pairs(folder, policy, said)
    assert served.recommend("new", ITEMS)["items"][0]["item_id"] == "i09"
    assert served.verdicts == (Verdict("i08", "", "drop"),)


@pytest.mark.parametrize("name", [*FILES, "checksums.json"])
@pytest.mark.parametrize("how", ["a byte", "cut", "gone", "a folder", "a link"])
def test_damage_is_one_sentence(folder: Path, tmp_path: Path, name: str, how: str) -> None:
    path = folder / name
    data = path.read_bytes()
    if how == "a byte":
        middle = len(data) // 2
        path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    elif how == "cut":
        path.write_bytes(data[: len(data) // 2])
    else:
        path.unlink()
    if how == "a folder":
        path.mkdir()
    if how == "a link" and name != "checksums.json":
        (tmp_path / "elsewhere").write_bytes(data)
        path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="jmrec export") as caught:
        load_pairs(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


LIES: list[tuple[str, Any]] = [
    ("model", "student"), ("model", "rule"), ("prior", 1.5),
    ("prior", "much"), ("threshold", float("nan")), ("threshold", -1), ("label_means", "both"),
    ("parts", [["words", "item"]]), ("parts", [["words", "shop"]] * 3), ("of_user", [True]),
    ("logit", {"added": 0.0, "scale": 0.0, "shift": 0.0}), ("policy", {"pin": ["nobody"]}),
    ("logit", {"added": float("inf"), "scale": 1.0, "shift": 0.0}), ("format", 99),
    *[("config", {**vars(CONFIG), name: value}) for name, value in (
        ("items", 2**40), ("items", 3), ("width", 2**30), ("cross_layers", 10**9), ("parts", [6]),
        ("bottom", [8] * 10_000), ("numbers", 4), ("past", 9), ("prior", float("nan")),
        ("categories", [2]), ("evil", 1),
    )],
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), LIES)
def test_a_lie_with_right_checksums_is_refused(folder: Path, name: str, value: Any) -> None:
    facts = json.loads((folder / "serve.json").read_text())
    (folder / "serve.json").write_text(json.dumps({**facts, name: value}))
    write_manifest(folder)
    with pytest.raises(UserError) as caught:
        load_pairs(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("file", "name"), [("items.json", "titles"), ("items.json", "ids"), ("users.json", "ids")]
)
@pytest.mark.parametrize("how", ["one less", "one more", "none"])
def test_lists_of_another_length_are_refused(folder: Path, file: str, name: str, how: str) -> None:
    facts = json.loads((folder / file).read_text())
    lists = {"one less": facts[name][:-1], "one more": [*facts[name], "another"], "none": []}
    (folder / file).write_text(json.dumps({**facts, name: lists[how]}))
    write_manifest(folder)
    with pytest.raises(UserError) as caught:
        load_pairs(folder)
    assert "\n" not in str(caught.value)


def test_a_rule_that_nobody_knows_is_refused(rule: PairArtefact, tmp_path: Path) -> None:
    write_pairs(replace(rule, row="no such rule"), tmp_path / "serve")
    with pytest.raises(UserError, match="'no such rule' is no rule"):
        load_pairs(tmp_path / "serve")


@pytest.mark.parametrize(
    ("side", "name", "value"),
    [
        ("users", "past", np.full((PEOPLE + 1, PAST), ITEMS, np.int32)),
        ("users", "past_label", np.full((PEOPLE + 1, PAST), 3, np.int32)),
        ("users", "id_row", np.full(PEOPLE + 1, 16, np.int32)),
        ("items", "category", np.full((ITEMS, 1), -1, np.int32)),
        ("items", "part/words", np.zeros((ITEMS, 5), np.float32)),
        ("items", "numbers", np.zeros((ITEMS, 5))),
    ],
)
def test_tables_that_lead_beside_the_model_are_refused(
    pairs: PairArtefact, tmp_path: Path, side: str, name: str, value: np.ndarray
) -> None:
    wrong = replace(pairs, **{side: {**getattr(pairs, side), name: value}})
    write_pairs(wrong, tmp_path / "serve")
    with pytest.raises(UserError, match="damaged"):
        load_pairs(tmp_path / "serve")


def test_rated_items_are_items(pairs: PairArtefact, tmp_path: Path) -> None:
    wrong = replace(pairs, rated=[*pairs.rated[:-1], np.array([ITEMS], np.int32)])
    write_pairs(wrong, tmp_path / "serve")
    with pytest.raises(UserError, match="out of its range"):
        load_pairs(tmp_path / "serve")


def test_each_kind_says_how_it_is_asked(artefact: Any, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="answers for users, not for sessions of items"):
        load(folder)
    write(artefact, tmp_path / "sessions")
    with pytest.raises(UserError, match="answers for sessions of items, not for users"):
        load_pairs(tmp_path / "sessions")
    with pytest.raises(UserError, match="holds no serving artefact"):
        load_pairs(tmp_path)
    write(artefact, folder)  # an older artefact of another kind is replaced
    assert load(folder).ids


def test_it_is_timed_in_a_process_of_its_own(folder: Path) -> None:
    assert cold_start(folder, USERS)["load"] > 0
    found = latency([load_pairs(folder)], NAMES, calls=5)
    assert 0 < found[0]["median_ms"] <= found[0]["p99_ms"]
