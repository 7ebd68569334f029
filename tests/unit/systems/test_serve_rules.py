"""Which row of a run is served, and what rules know of items that were added after training."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from jmrec.config import ConfigDict
from jmrec.errors import UserError
from jmrec.evaluation.policy import Availability, make_policy
from jmrec.evaluation.protocol import ask, make_predictions
from jmrec.evaluation.rankers.content import texts_of
from jmrec.evaluation.rankers.rules import fit_rules
from jmrec.evaluation.results import make_cost, write_results
from jmrec.evaluation.summary import Row, measure, summarise
from jmrec.serving import serve
from jmrec.serving.rules import RuleArtefact
from jmrec.systems import serve_rules
from jmrec.systems.added import Added, Catalogue
from jmrec.systems.serve_rules import items_with, rule_artefact, served_row
from tests.unit.evaluation.conftest import build_dataset, build_sessions

V = 12
TEXTS = [f"{('amber', 'cobalt', 'ivory')[i % 3]} {('bowl', 'lamp')[i % 2]}" for i in range(V)]
RNG = np.random.default_rng(2)
LISTS = [RNG.integers(0, V, RNG.integers(2, 7)).tolist() for _ in range(50)]
PIXELS = RNG.normal(size=(V + 2, 5)).astype(np.float32)
PIXELS[V] = PIXELS[3]
"""The first added item looks as item 3 does, and is called so."""
NEW = Added(
    ids=["new-a", "new-b"], titles=["A", "B"], features={"e": PIXELS[V:]}, windows=None,
    texts=[TEXTS[3], "something else"],
)  # fmt: skip


class StandIn:
    """What a finished run answers, without its stages."""

    def __init__(self, workdir: Path, wanted: str, ease_items: int = 20_000) -> None:
        splits = {"train": build_sessions(LISTS), "validation": build_sessions(LISTS[:9])}
        dataset = build_dataset(splits, TEXTS, exclude_seen=True)
        self.data = SimpleNamespace(dataset=dataset)
        config = ConfigDict({"evaluate": {"ease_items": ease_items}})
        self.work = SimpleNamespace(workdir=workdir, config=config)
        self.students = SimpleNamespace(names=["student"], wanted=wanted)

    def content(self, added: Any = None) -> dict[str, np.ndarray]:
        return {"pixels": PIXELS if added else PIXELS[:V]}


@pytest.fixture
def run(tmp_path: Path) -> StandIn:
    return evaluated(StandIn(tmp_path, "best"))


def evaluated(system: StandIn) -> StandIn:
    dataset = system.data.dataset
    asked = ask(dataset, "validation")
    common: dict[str, Any] = {"n_items": V, "exclude_seen": True, "cold": np.zeros(V, bool)}
    rows: list[Row] = [
        measure(rule.name, rule.kind, [rule], asked, asked, **common)
        for rule in fit_rules(
            dataset,
            asked,
            features=system.content(),
            ease_items=system.work.config.evaluate.ease_items,
        )
    ]
    rows.append(Row("student", "student", [rows[0].ranked[0]]))
    choice = {"wanted": "best", "figure": "session", "metric": "MRR@20", "validation": {"EASE": 1}}
    served: Any = {"row": "EASE", "beside": ["student"], "student": "student", "choice": choice}
    results = summarise(rows, asked, dataset, "validation", served=served)
    write_results(system.work.workdir / "evaluate", results, make_cost())
    return system


def test_the_row_is_the_results_or_the_one_asked_for(run: Any, tmp_path: Path) -> None:
    row = served_row(run)
    assert row.name == "EASE"
    assert row.why.startswith("Served is EASE, the best of 1 rows on validation")
    assert row.rules is not None
    assert served_row(run, "V-SKNN").why == "Served is V-SKNN: --row names it."
    assert served_row(run, "student").rules is None
    named = StandIn(tmp_path, "student")
    assert served_row(named).why == "Served is student: evaluate.serve names it."  # type: ignore[arg-type]
    assert served_row(run, "best").name == "EASE"
    with pytest.raises(UserError, match='--row="teacher" is not one of student, popularity'):
        served_row(run, "teacher")


@pytest.mark.parametrize("wanted", ["best", "EASE"])
def test_a_run_that_is_not_evaluated_says_so(wanted: str, tmp_path: Path) -> None:
    system: Any = StandIn(tmp_path, wanted)
    with pytest.raises(UserError, match=r"is not evaluated yet, .* start jmrec run again"):
        served_row(system)
    assert served_row(system, "student").name == "student"


def scores(artefact: RuleArtefact, session: list[str]) -> dict[str, float]:
    found = serve(artefact, "here").recommend(session, top=V + 2)
    return {each["item_id"]: each["score"] for each in found}


@pytest.mark.parametrize("ease_items", [20_000, V, 5])
def test_added_items_are_to_a_rule_what_unseen_ones_are(
    ease_items: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run: Any = evaluated(StandIn(tmp_path, "best", ease_items))
    items = run.data.dataset.items
    ids = [*items.ids, *NEW.ids]
    whole = Catalogue(ids, [*items.titles, *NEW.titles], NEW, make_policy(ids, True))
    plain = {}
    for name in served_row(run).rules or {}:
        if name != "student":
            plain[name] = rule_artefact(run, served_row(run, name), None)
    monkeypatch.setattr(serve_rules, "whole_catalogue", lambda *_, **__: whole)
    assert len(plain) == 12
    for name, before in plain.items():
        after = rule_artefact(run, served_row(run, name), None)
        assert (len(before.ids), len(after.ids)) == (V, V + 2)
        assert after.provenance["added"] == 2
        old, new = scores(before, ["1", "5"]), scores(after, ["1", "5"])
        if name not in ("blend of rules", "newest first"):  # those are of the whole catalogue
            assert {item: new[item] for item in old} == pytest.approx(old, rel=1e-4, abs=1e-6)
        if name == "newest first":
            assert list(new)[:2] in (["new-b", "new-a"], ["new-a", "new-b"])
        elif name.startswith("content-kNN"):  # it is known by what it says, or how it looks
            assert new["new-a"] == pytest.approx(new["3"], rel=1e-4)
        elif name != "blend of rules":
            assert [new["new-a"], new["new-b"]] == pytest.approx([0, 0], abs=1e-6)
        # And an added item may stand in a session.
        assert np.isfinite([*scores(after, ["new-a"]).values()]).all()
    own: Any = rule_artefact(run, served_row(run, "EASE"), None).rule
    assert ("items" in own.settings) == (ease_items < V)
    # After a session of the added item alone the content rules find what is like it.
    like = scores(rule_artefact(run, served_row(run, "content-kNN (pixels)"), None), ["new-a"])
    assert next(iter(like)) == "3"


def test_a_catalogue_with_added_items_says_what_is_known_of_them(run: Any) -> None:
    items = run.data.dataset.items
    windows = Availability(np.array([5.0, -np.inf]), np.array([np.inf, np.inf]))
    found = items_with(items, Added(NEW.ids, NEW.titles, NEW.features, windows, NEW.texts))
    assert len(found) == V + 2
    assert texts_of(found)[:V] == texts_of(items)
    assert texts_of(found)[V:] == NEW.texts
    assert found.available_from[V:].tolist() == [5.0, -np.inf]
    assert found.has_windows
    assert make_predictions(build_sessions([[V, 1]])).prefixes.last().tolist() == [V]
