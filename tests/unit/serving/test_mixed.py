"""A blend of rules and a student, exported: it answers as the sum of both by hand does."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jmrec.errors import UserError
from jmrec.evaluation.choice import on_validation
from jmrec.evaluation.evidence import Evidence
from jmrec.evaluation.explain import removals
from jmrec.evaluation.protocol import Ranker, make_predictions
from jmrec.evaluation.rankers.blend import Blend, fit_blend, fit_mixed
from jmrec.evaluation.rankers.known import Known
from jmrec.evaluation.rankers.rules import RULES, fit_again
from jmrec.evaluation.results import MIX, mixed_name
from jmrec.files import write_manifest
from jmrec.serving import Artefact, load, serve
from jmrec.serving.folder import MIXED, kind_of
from jmrec.serving.mixed import MixedArtefact, read_mixed, split_mixed, write_mixed
from jmrec.serving.rules import RuleArtefact
from jmrec.serving.stablehlo import export_scores
from tests.unit.evaluation.conftest import build_dataset, build_sessions
from tests.unit.serving.conftest import COLD, ITEMS

RNG = np.random.default_rng(7)
TRAIN = [RNG.integers(0, ITEMS - COLD, RNG.integers(2, 9)).tolist() for _ in range(80)]
ASKED = [[3], [4, 4, 7], [0, ITEMS - 1, 2], RNG.integers(0, ITEMS, 12).tolist()]
NAMES, WEIGHTS, OWN = ("EASE", "V-SKNN", "newest first"), [1.0, 0.35, 0.1], 0.75


@pytest.fixture(scope="module")
def known() -> Known:
    validation = build_sessions(TRAIN[:30])
    splits = {"train": build_sessions(TRAIN), "validation": validation}
    return Known(build_dataset(splits, [f"text {row % 7}" for row in range(ITEMS)]))


@pytest.fixture
def student(artefact: Artefact) -> Ranker:
    return serve(artefact, "memory").ranker


@pytest.fixture
def made(artefact: Artefact, known: Known) -> MixedArtefact:
    members = [list(RULES[name](known))[-1] for name in NAMES]
    rules = RuleArtefact(
        row=mixed_name(artefact.student), features={}, ids=artefact.ids, titles=artefact.titles,
        rule=Blend(members, WEIGHTS, ITEMS, {"how": "by hand"}, mixed_name(artefact.student)),
        policy=artefact.policy, provenance={"run": "none"}, event_names=artefact.event_names,
    )  # fmt: skip
    return MixedArtefact(rules, artefact, OWN)


def by_hand(made: MixedArtefact, student: Ranker, session: list[int]) -> np.ndarray:
    """Each part's scores with mean 0 and deviation 1, in float64, weighed and added."""
    rules: Any = made.rules.rule
    prefixes = make_predictions(build_sessions([[*session, 0]])).prefixes
    total = np.zeros(ITEMS)
    for part, weight in [*zip(rules.members, WEIGHTS), (student, OWN)]:
        scores = np.asarray(part.scores(prefixes, slice(0, ITEMS)), np.float64)[len(session) - 1]
        total += weight * (scores - scores.mean()) / scores.std()
    return total


def test_it_answers_as_by_hand(made: MixedArtefact, student: Ranker, tmp_path: Path) -> None:
    write_mixed(made, tmp_path / "serve")
    assert kind_of(tmp_path / "serve") == MIXED
    served = load(tmp_path / "serve")
    assert (served.ranker.name, getattr(served.ranker, "kind", "")) == (made.rules.row, MIX)
    for session in ASKED:
        wanted = by_hand(made, student, session)
        found = served.recommend([made.ids[row] for row in session], top=ITEMS)
        assert len(found) == ITEMS - len({*session})  # what was seen is no candidate
        for each in found:
            row = made.ids.index(each["item_id"])
            assert each["score"] == pytest.approx(wanted[row], rel=1e-3, abs=1e-3)
    asked = [[made.ids[row] for row in session] for session in ASKED]
    in_memory = serve(made, "memory").recommend_batch(asked)
    assert served.recommend_batch(asked) == in_memory
    # Times and types reach the student.
    timed = served.recommend(asked[1], times=[0.0, 9.0, 5e6], events=["buy", "", "view"])
    assert timed != served.recommend(asked[1])


def test_two_exports_are_the_same_bytes(made: MixedArtefact, tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_mixed(made, tmp_path / name)
    one, two = ({p.name: p.read_bytes() for p in (tmp_path / n).iterdir()} for n in ("one", "two"))
    assert one == two
    assert read_mixed(tmp_path / "one").weight == OWN


def test_the_reasons_add_up(made: MixedArtefact, student: Ranker, known: Known) -> None:
    ranker, evidence = made.ranker(student), Evidence(known)
    for session in ASKED[1:]:
        wanted = by_hand(made, student, session)
        for item in (2, ITEMS - 1):
            parts = evidence.parts(ranker, np.array(session), item)
            assert sum(part.value for part in parts) == pytest.approx(wanted[item], abs=2e-3)
            assert any(f"{student.name}: what it has learned" in part.words for part in parts)
    # Times and types of the clicks reach the student here too.
    prefix, gaps, events = np.array([4, 4, 7]), np.array([0.0, 2.0, 9.0]), np.array([1, 0, 2])
    parts = evidence.parts(ranker, prefix, 2, gaps, events)
    asked = removals(prefix, 3, gaps, events)
    wanted = float(ranker.scores(asked, slice(0, ITEMS))[0, 2])
    assert sum(part.value for part in parts) == pytest.approx(wanted, abs=2e-3)
    assert wanted != pytest.approx(by_hand(made, student, [4, 4, 7])[2], abs=2e-3)


def test_the_weights_are_those_of_a_blend_with_one_more_member(
    student: Ranker, known: Known
) -> None:
    asked = make_predictions(known.dataset.splits["validation"])
    common: Any = {"n_items": ITEMS, "exclude_seen": False}
    rules = [next(iter(RULES[name](known))) for name in NAMES]
    plain = fit_blend(rules, asked, **common)
    found = fit_mixed(rules, student, asked, **common)
    wanted = fit_blend([*rules, student], asked, **common)
    assert found.weights == wanted.weights
    # It begins as the blend of the rules, so that it is no worse on validation.
    begun = fit_mixed([*rules, plain], student, asked, **common)
    assert on_validation([begun], asked, **common) >= on_validation([plain], asked, **common)
    assert (found.name, found.kind) == ("blend of rules and small", MIX)
    settings = {rule.name: getattr(rule, "settings") for rule in rules}  # noqa: B009
    chosen = {**found.settings, student.name: 0.2}
    again = fit_again(known.dataset, found.name, {**settings, found.name: chosen}, student=student)
    assert [each.name for each in getattr(again, "members")][-1] == student.name  # noqa: B009
    assert list(getattr(again, "weights"))[-1] == 0.2  # noqa: B009


def test_what_blends_nothing_is_no_artefact_of_both(made: MixedArtefact, student: Ranker) -> None:
    ranker = made.ranker(student)
    rules, weight = split_mixed(ranker, student.name)
    assert (weight, list(rules.weights)) == (OWN, WEIGHTS)
    alone = replace(ranker, members=[student], weights=[1.0])
    assert split_mixed(alone, student.name) == (None, 1.0)
    assert rules is not None
    assert split_mixed(rules, student.name) == (rules, 0.0)
    with pytest.raises(UserError, match="is no student, and only a student's scores"):
        export_scores(serve(made, "memory"))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"student weight": float("nan")}, "student weight is no weight"),
        ({"student weight": -1}, "student weight is no weight"),
        ({"student weight": "much"}, "student weight is no weight"),
        ({"student weight": True}, "student weight is no weight"),
        ({"row": "another"}, "is not the rule's name"),
        ({"model": "none"}, "there is no model 'none'"),
    ],
)
def test_damage_is_refused(
    made: MixedArtefact, tmp_path: Path, change: dict[str, Any], why: str
) -> None:
    folder = tmp_path / "serve"
    write_mixed(made, folder)
    facts = json.loads((folder / "serve.json").read_text())
    (folder / "serve.json").write_text(json.dumps({**facts, **change}))
    (folder / "checksums.json").unlink()
    write_manifest(folder)
    with pytest.raises(UserError, match=why):
        load(folder)
    (folder / "student.safetensors").unlink()
    with pytest.raises(UserError):
        load(folder)
