"""Any rule, exported, answers as plain loops over the training sessions do; damage is refused."""

import json
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jmrec.errors import UserError
from jmrec.evaluation.evidence import Evidence
from jmrec.evaluation.policy import Availability, Correction, make_policy
from jmrec.evaluation.protocol import Ranker, make_predictions
from jmrec.evaluation.rankers import codec
from jmrec.evaluation.rankers.blend import Blend
from jmrec.evaluation.rankers.content import FeatureNeighbours
from jmrec.evaluation.rankers.known import Known
from jmrec.evaluation.rankers.rules import RULES, fit_again, fit_rules, rule_names
from jmrec.files import write_manifest
from jmrec.serving import Artefact, load, serve, write
from jmrec.serving.folder import RULE, kind_of
from jmrec.serving.rules import RuleArtefact, read_rule, write_rule
from jmrec.serving.server import requests
from jmrec.serving.server.holder import Holder
from jmrec.serving.stablehlo import export_scores
from tests.unit.evaluation.conftest import build_dataset, build_sessions

V, COLD = 20, 2
"""Items, of which so many are never clicked in training."""
RNG = np.random.default_rng(5)
TRAIN = [RNG.integers(0, V - COLD, RNG.integers(1, 9)).tolist() for _ in range(60)]
ASKED = [[3], [4, 4, 7], [0, V - 1, 2], RNG.integers(0, V, 12).tolist(), [5, 1, 9, 5]]
COLOURS, SHAPES = ("amber", "cobalt", "ivory"), ("bowl", "lamp", "chair", "vase")
TEXTS = [f"{COLOURS[i % 3]} {SHAPES[i % 4]} {SHAPES[i % 4]} number{i}" for i in range(V)]
PIXELS = RNG.normal(size=(V, 6)).astype(np.float32)
IDS = [f"i{row:02}" for row in range(V)]
LINEAR = ("sequential rules", "item-kNN", "EASE")
NAMES = rule_names(["pixels"])


@pytest.fixture(scope="module")
def known() -> Known:
    validation = build_sessions([[1, 2, 3], [4, 5], [6, 2, 7, 1]])
    return Known(build_dataset({"train": build_sessions(TRAIN), "validation": validation}, TEXTS))


def rule_of(name: str, known: Known) -> Ranker:
    """Return a rule with the last of its settings: V-SKNN then takes all that are alike."""
    if name == "blend of rules":
        members = [rule_of(each, known) for each in (*BLENDED, *NAMES[-2:-1])]
        return Blend(members, WEIGHTS, V, {"how": "by hand"})
    if name in RULES:
        return list(RULES[name](known))[-1]
    rule = list(FeatureNeighbours.grid("pixels", known))[-1]
    rule.prepare({"pixels": PIXELS})
    return rule


BLENDED, WEIGHTS = ("Markov + popularity", "V-SKNN", "content-kNN (TF-IDF)"), [1.0, 0.35, 0.1, 0.5]


def artefact_of(rule: Ranker, **more: Any) -> RuleArtefact:
    names = codec.feature_names(rule)
    made = RuleArtefact(
        row=rule.name, rule=rule, features=dict.fromkeys(names, PIXELS), ids=IDS,
        titles=[f"Title {item}" for item in IDS], policy=make_policy(IDS, exclude_seen=False),
        provenance={"run": "none"}, event_names=["", "buy"],
    )  # fmt: skip
    return replace(made, **more)


# ---- the truth, by loops over lists --------------------------------------------------------------


def count(i: int, j: int) -> int:
    return sum(a == i and b == j for one in TRAIN for a, b in pairwise(one))


POPULAR = np.array([sum(one.count(i) for one in TRAIN) for i in range(V)], float)
HELD = np.array([[float(i in one) for i in range(V)] for one in TRAIN])


def linear_matrix(name: str, settings: dict[str, Any]) -> tuple[np.ndarray, float]:
    """Return the item-item scores of a linear rule, and the scale of its trace of popularity."""
    found = np.zeros((V, V))
    if name == "sequential rules":
        for one in TRAIN:
            for i in range(len(one)):
                for j in range(i + 1, min(i + settings["steps"], len(one) - 1) + 1):
                    found[one[i], one[j]] += (j - i) ** -settings["power"]
        return found, 1.0
    if name == "item-kNN":
        weight = HELD.sum(1) ** -settings["length power"]
        together = (HELD * weight[:, None]).T @ HELD
        norm = np.sqrt(np.diag(together) + settings["shrink"] + 1e-9)
        found = together / np.outer(norm, norm)
        np.fill_diagonal(found, 0)
        return found, 0.1
    for item in range(V):  # EASE: a ridge regression of each item on the others
        others = np.delete(np.arange(V), item)
        gram = HELD[:, others].T @ HELD[:, others] + settings["l2"] * np.eye(V - 1)
        found[others, item] = np.linalg.solve(gram, HELD[:, others].T @ HELD[:, item])
    return found, 0.01


def tfidf() -> np.ndarray:
    """Return unit rows of TF-IDF with words and pairs of words, as the last setting has them."""
    terms = [words + [" ".join(pair) for pair in pairwise(words)]
             for words in (text.split() for text in TEXTS)]  # fmt: skip
    seen = [row for row in range(V) if POPULAR[row]]
    vocabulary = sorted({term for row in seen for term in terms[row]})
    table = np.zeros((V, len(vocabulary)))
    for column, term in enumerate(vocabulary):
        frequency = sum(term in terms[row] for row in seen)
        for row in range(V):
            if term in terms[row]:
                times = 1 + np.log(terms[row].count(term))
                table[row, column] = times * (np.log((1 + len(seen)) / (1 + frequency)) + 1)
    return table / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-12)


def pixels(center: bool) -> np.ndarray:
    table = PIXELS.astype(float)
    table = table - table[POPULAR > 0].mean(0) if center else table
    return table / np.linalg.norm(table, axis=1, keepdims=True)


def truth(name: str, rule: Any, session: list[int]) -> np.ndarray:
    """Return the scores of all items after a session."""
    settings = rule.settings
    back = list(enumerate(session[::-1]))
    if name == "popularity":
        return POPULAR / POPULAR.sum()
    if name == "recent popularity":
        clicks = [(item, place) for place, item in enumerate(i for one in TRAIN for i in one)]
        last, half = clicks[-1][1], settings["half-life / training period"]
        found = np.zeros(V)
        for item, place in clicks:
            found[item] += 0.5 ** ((last - place) / (last * half))
        return found / found.max() + 1e-6 * POPULAR / POPULAR.sum()
    if name == "session popularity":
        return np.array([session.count(i) for i in range(V)]) + POPULAR / POPULAR.max()
    if name == "newest first":  # of those that are new, the early rows first
        flat = [i for one in TRAIN for i in one]
        first = {i: flat.index(i) if i in flat else np.inf for i in range(V)}
        order = sorted(range(V), key=lambda i: (first[i], -i))
        return np.array([order.index(i) for i in range(V)]) / V
    if name == "Markov + popularity":
        after = np.array([count(session[-1], j) for j in range(V)], float)
        return (after + settings["backoff"] * POPULAR / POPULAR.sum()) / (
            after.sum() + settings["backoff"]
        )
    if name in LINEAR:
        matrix, scale = linear_matrix(name, settings)
        trace = 1e-6 * scale * POPULAR / POPULAR.max()
        return sum(settings["decay"] ** age * (matrix[i] + trace) for age, i in back)
    if name == "V-SKNN":
        weights = dict.fromkeys(session, 0.0)
        for place, i in enumerate(session, 1):
            weights[i] += place / len(session)
        votes = []
        for one in TRAIN:
            alike = sum(w for i, w in weights.items() if i in one)
            alike /= len(set(one)) ** settings["length power"]
            shared = [age for age, i in back if i in one]
            votes.append(alike / (1 + min(shared)) if shared else 0.0)
        best = max(votes)
        return np.array(votes) @ HELD / (best or 1.0) + 1e-6 * POPULAR / POPULAR.max()
    if name == "blend of rules":
        total = np.zeros(V)
        for member, weight in zip(rule.members, rule.weights):
            scores = truth(member.name, member, session)
            total += weight * (scores - scores.mean()) / scores.std()
        return total
    table = tfidf() if name == "content-kNN (TF-IDF)" else pixels(settings["center"])
    return sum(settings["decay"] ** age * (table @ table[i]) for age, i in back)


# ---- what is exported ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_an_exported_rule_answers_as_loops_over_the_sessions_do(
    name: str, known: Known, tmp_path: Path
) -> None:
    rule = rule_of(name, known)
    write_rule(artefact_of(rule), tmp_path / "serve")
    assert kind_of(tmp_path / "serve") == RULE
    served = load(tmp_path / "serve")
    asked = [[IDS[i] for i in session] for session in ASKED]
    for session, found in zip(ASKED, served.recommend_batch(asked, top=V), strict=True):
        wanted = truth(name, rule, session)
        scores = {each["item_id"]: each["score"] for each in found}
        assert len(scores) == V
        got = np.array([scores[item] for item in IDS])
        # float32 against float64; of the oldest clicks those below a ten-thousandth are left out.
        assert got == pytest.approx(wanted, rel=2e-4, abs=2e-5 * max(1.0, np.abs(wanted).max()))
        assert [each["score"] for each in found] == sorted(scores.values(), reverse=True)
    # What is read back is what was written, to the last bit.
    again = make_predictions(build_sessions(ASKED)).prefixes
    for part in (slice(0, V), slice(3, 11)):
        np.testing.assert_array_equal(served.ranker.scores(again, part), rule.scores(again, part))
    together = served.recommend_batch(asked, top=V)
    assert together == serve(artefact_of(rule), "memory").recommend_batch(asked, top=V)
    # One by one products of dense tables are added up in another order.
    for session, found in zip(asked, together, strict=True):
        alone = {each["item_id"]: each["score"] for each in served.recommend(session, top=V)}
        assert alone == pytest.approx(
            {each["item_id"]: each["score"] for each in found}, rel=1e-4, abs=1e-4
        )


@pytest.mark.parametrize("name", NAMES)
def test_the_reasons_add_up_to_the_score(name: str, known: Known) -> None:
    rule, evidence = rule_of(name, known), Evidence(known)
    for session in ASKED:
        wanted = truth(name, rule, session)
        for item in (2, 5, V - 1):
            parts = evidence.parts(rule, np.array(session), item)
            assert sum(part.value for part in parts) == pytest.approx(
                wanted[item], rel=1e-3, abs=2e-5 * max(1.0, np.abs(wanted).max())
            )
            assert all(part.click is None or part.click < len(session) for part in parts)


def test_reasons_count_what_the_sessions_hold(known: Known) -> None:
    evidence, pair = Evidence(known), next((a, b) for one in TRAIN for a, b in pairwise(one))
    i, j = pair
    (why,) = evidence.parts(rule_of("Markov + popularity", known), np.array([7, i]), j)
    left = sum(a == i for one in TRAIN for a in one[:-1])
    assert (why.click, why.words) == (1, f"after it, {count(i, j)} of {left} clicks went here")
    both = sum(i in one and j in one for one in TRAIN)
    (why,) = evidence.parts(rule_of("EASE", known), np.array([i]), j)
    assert why.words == f"beside it in {both} of its {sum(i in one for one in TRAIN)} sessions"
    first, *_ = evidence.parts(rule_of("V-SKNN", known), np.array([i]), j)
    alike = sum(i in one for one in TRAIN)
    assert first.words.startswith(f"{both} of the {alike} past sessions most like this one")
    (why,) = evidence.parts(rule_of("newest first", known), np.array([i]), V - 1)
    assert why.words == "never clicked in the training sessions, so it is new"


def test_a_rule_is_fitted_again_as_it_was_chosen(known: Known) -> None:
    validation = make_predictions(known.dataset.splits["validation"])
    features = {"pixels": PIXELS}
    fitted = fit_rules(known.dataset, validation, features=features)
    assert tuple(rule.name for rule in fitted) == NAMES
    # As results.json keeps them: keys in another order.
    chosen = json.loads(json.dumps({rule.name: rule.settings for rule in fitted}, sort_keys=True))
    asked = make_predictions(build_sessions(ASKED)).prefixes
    for rule in fitted:
        again = fit_again(known.dataset, rule.name, chosen, features)
        assert again.settings == rule.settings
        np.testing.assert_array_equal(
            again.scores(asked, slice(0, V)), rule.scores(asked, slice(0, V))
        )
    chosen["EASE"]["l2"] = 3.0
    with pytest.raises(UserError, match="the settings of EASE are none that this jmrec tries"):
        fit_again(known.dataset, "EASE", chosen, features)


def test_people_are_nowhere_in_what_is_exported(known: Known, tmp_path: Path) -> None:
    train = build_sessions(TRAIN, users=list(range(len(TRAIN))))
    train = replace(train, ids=[f"visit-of-Jane-{n}" for n in range(len(TRAIN))])
    own = Known(build_dataset({"train": train}, TEXTS))
    made = artefact_of(rule_of("blend of rules", own))
    write_rule(made, tmp_path / "serve")
    assert made.sessions() == len(TRAIN)
    assert artefact_of(rule_of("EASE", own)).sessions() == 0
    for path in (tmp_path / "serve").iterdir():
        assert b"Jane" not in path.read_bytes()


def test_policy_and_windows_are_obeyed(known: Known, tmp_path: Path) -> None:
    start = np.full(V, -np.inf)
    start[3] = 1e9
    lists = Correction(block=("i05",), pin=("i09", "i02"))
    policy = make_policy(IDS, True, lists, Availability(start, np.full(V, np.inf)))
    write_rule(artefact_of(rule_of("V-SKNN", known), policy=policy), tmp_path / "serve")
    served = load(tmp_path / "serve")
    found = [each["item_id"] for each in served.recommend(["i01", "i02"], top=V, at=5e8)]
    assert found[0] == "i09"
    assert not {"i01", "i02", "i03", "i05"} & set(found)
    assert "i03" in [each["item_id"] for each in served.recommend(["i01"], top=V, at=2e9)]
    (tmp_path / "policy.toml").write_text('allow = ["i05", "i06"]\n')
    other = load(tmp_path / "serve", tmp_path / "policy.toml").recommend(["i01"], top=V)
    assert {each["item_id"] for each in other} == {"i05", "i06"}
    # As of a student: clicks may come with times and types, which a rule does not read.
    assert served.recommend(["i01"], times=[5.0], events=["buy"]) == served.recommend(["i01"])
    with pytest.raises(UserError, match=r"V-SKNN is no student, .* StableHLO program; leave out"):
        export_scores(served)


# ---- damage --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(known: Known, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rule") / "serve"
    write_rule(artefact_of(rule_of("blend of rules", known)), folder)
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "serve"))


@pytest.mark.parametrize("name", ["serve.json", "rule.safetensors", "items.json", "checksums.json"])
@pytest.mark.parametrize("how", ["a byte", "cut", "gone"])
def test_damage_is_one_sentence(folder: Path, name: str, how: str) -> None:
    path = folder / name
    data = path.read_bytes()
    middle = len(data) // 2
    if how == "a byte":
        path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    elif how == "cut":
        path.write_bytes(data[:middle])
    else:
        path.unlink()
    with pytest.raises(UserError, match="jmrec export") as caught:
        load(folder)
    assert "\n" not in str(caught.value)


def changed(folder: Path, at: tuple[Any, ...], value: Any) -> None:
    """Change a leaf of serve.json and seal the folder anew."""
    facts = json.loads((folder / "serve.json").read_text())
    branch = facts
    for each in at[:-1]:
        branch = branch[each]
    branch[at[-1]] = value
    (folder / "serve.json").write_text(json.dumps(facts))
    (folder / "checksums.json").unlink()
    write_manifest(folder)


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (("rule", "class"), "os.system"),
        (("rule", "class"), ["blend"]),
        (("rule", "members"), []),
        (("rule", "weights"), [1.0]),
        (("rule", "members", 1, "k"), 2**70),
        (("rule", "members", 1, "k"), 3),  # another rule, if a sound one
        (("rule", "members", 0, "decay"), float("nan")),
        (("rule", "members", 3, "feature"), "../../etc/passwd"),
        (("rule", "members", 1, "shapes", "held"), [10**9, 10**9]),
        (("rule", "n_items"), V - 1),
        (("row",), "EASE"),
        (("policy", "exclude_seen"), 7),
        (("format",), 99),
        (("kind",), {}),
        (("rule",), None),
    ],
)
def test_what_was_changed_and_sealed_anew_is_refused(
    folder: Path, at: tuple[Any, ...], value: Any
) -> None:
    changed(folder, at, value)
    with pytest.raises(UserError) as caught:
        load(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("values", np.zeros(V - 1, np.float32)),
        ("values", np.zeros(V, np.int64)),
        ("values", np.full(V, np.nan, np.float32)),
        ("values", np.zeros((V, 1), np.float32)),
    ],
)
def test_tables_of_another_shape_are_refused(name: str, wrong: np.ndarray, known: Known) -> None:
    facts, arrays = codec.encode(rule_of("popularity", known))
    codec.decode(facts, arrays, V)
    with pytest.raises(ValueError, match="values"):
        codec.decode(facts, {**arrays, name: wrong}, V)


def test_a_sparse_table_that_points_beside_itself_is_refused(known: Known) -> None:
    facts, arrays = codec.encode(rule_of("V-SKNN", known))
    for part, wrong in (("indices", V), ("indices", -1), ("indptr", 10**6)):
        table = {**arrays, f"held/{part}": arrays[f"held/{part}"].astype(np.int64)}
        table[f"held/{part}"][1] = wrong
        with pytest.raises(ValueError):  # noqa: PT011 (scipy's words)
            codec.decode(facts, table, V)
    with pytest.raises(ValueError, match="not of 19 items"):
        codec.decode(facts, arrays, 19)


def test_the_class_of_every_rule_is_servable(known: Known) -> None:
    for name in NAMES:
        facts, arrays = codec.encode(rule_of(name, known))
        json.dumps(facts)
        assert codec.decode(facts, arrays, V).name == name

    class Stranger:
        name = "stranger"

    with pytest.raises(UserError, match="stranger is a rule that can not be written; decorate"):
        codec.encode(Stranger())  # type: ignore[arg-type]


def test_a_rule_takes_the_place_of_another_artefact(folder: Path, known: Known) -> None:
    write_rule(artefact_of(rule_of("popularity", known)), folder)
    assert read_rule(folder).row == "popularity"


def test_the_server_takes_over_a_rule_in_place_of_a_student(
    artefact: Artefact, known: Known, tmp_path: Path
) -> None:
    out, told = tmp_path / "serve", list[str]()
    write(artefact, out)
    holder = Holder(out, None, None, told.append)
    body = b'{"sessions": [["i01"], ["i02", "gone"]], "top": 3}'
    before, _ = requests.answer(holder.held.served, body)
    write_rule(artefact_of(rule_of("V-SKNN", known)), out)
    assert holder.renew()
    found, count = requests.answer(holder.held.served, body)
    assert (count, told) == (2, [])
    assert found != before
    answers = json.loads(found)["answers"]
    assert [len(each["items"]) for each in answers] == [3, 3]
    assert answers[1]["unknown"] == ["gone"]
