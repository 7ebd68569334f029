"""Of your own folder the row is served that is best on validation, by every verb; tiny runs."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from jmrec.data.prepared import load_prepared
from jmrec.data.toyshop import ToyShopConfig, write_toyshop
from jmrec.evaluation.protocol import ask, rank
from jmrec.evaluation.results import role_of
from jmrec.main import main
from jmrec.serving import load, serve
from jmrec.systems.registry import open_run
from jmrec.systems.serve import build, measure, write_any
from jmrec.systems.serve_agree import describe
from jmrec.systems.serve_rules import evaluated_rule, served_row
from jmrec.systems.system import Ranks, able
from jmrec.tracking import Tracker
from tests.integration.session_runs import SESSION, SOURCE, recommended, refusal, results, words

BEST = "--config.evaluate.serve=best"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("best") / "shop"
    write_toyshop(folder, ToyShopConfig(seed=3, items=60, sessions=200))
    (folder / "truth.npz").unlink()
    return folder


@pytest.fixture(scope="module")
def run(shop: Path) -> Path:
    """Ids and a folder of features, so that there is a content rule of them."""
    table = shop.parent / "table"
    table.mkdir()
    ids = [f"t{row:04}" for row in range(60)]
    np.save(table / "features.npy", np.random.default_rng(0).normal(size=(60, 7)))
    (table / "ids.json").write_text(json.dumps(ids))
    folder = shop.parent / "run"
    assert main(words(shop, folder, "both", f"{SOURCE}{table}", BEST)) == 0
    assert main(["evaluate", "--workdir", str(folder), "--split=validation"]) == 0
    return folder


@pytest.fixture(autouse=True)
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Export without the new processes that time its start."""
    monkeypatch.setattr("jmrec.systems.serve.cold_start", lambda out: {"load": 0.0})


def test_the_best_on_validation_is_served_and_it_is_told(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = results(run, "evaluate-validation")
    figure = {
        row["name"]: row["figures"]["session"]["MRR@20"]
        for row in table["rows"]
        if role_of(row["kind"]) in ("rule", "model")
    }
    found = results(run)
    served = found["served"]
    best = max(figure, key=lambda name: round(figure[name], 5))
    assert served["row"] == table["served"]["row"] == best
    assert found["dataset"]["split"] == "test"
    assert served["choice"]["validation"] == pytest.approx(figure, abs=1e-5)
    # Eight updates teach a student little: a rule is best, and the student stands beside it.
    assert {row["name"]: row["kind"] for row in found["rows"]}[best] != "student"
    assert (served["student"], served["beside"]) == ("student", ["student"])
    pairs = [(each["a"], each["b"]) for each in found["comparisons"]]
    assert ("student", best) in pairs
    assert ("student", "student, order shuffled") in pairs
    assert "students/student-0" in found["curves"]
    page = (run / "evaluate" / "report.html").read_text()
    assert f"Served is {best}, the best of {len(figure)} rows on validation" in page
    assert "adds to its score" in page
    assert main(["evaluate", "--workdir", str(run), "--split=validation"]) == 0
    assert f"Served is {best}" in " ".join(capsys.readouterr().out.split())


def test_the_reasons_are_those_of_the_served_rule(run: Path) -> None:
    found = results(run)["examples"]
    assert (found["row"], found["seed"]) == (results(run)["served"]["row"], None)
    shown = [each for session in found["sessions"] for each in session["recommended"]]
    assert shown
    for each in shown:
        assert each["past"] == []
        assert sum(part["value"] for part in each["parts"]) == pytest.approx(
            each["score"], rel=1e-3, abs=1e-4
        )


def test_it_is_recommended_and_exported_by_default(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best = results(run)["served"]["row"]
    answer = recommended(capsys, "--workdir", str(run))
    assert answer == recommended(capsys, "--workdir", str(run), "--row", best)
    assert len(answer) == 20
    assert main(["export", "--workdir", str(run), "--out", str(tmp_path / "serve")]) == 0
    said = capsys.readouterr().out
    assert f"Served is {best}, the best of" in said
    assert recommended(capsys, "--serve", str(tmp_path / "serve")) == answer
    artefact = json.loads((tmp_path / "serve" / "serve.json").read_text())
    assert artefact["row"] == best
    assert artefact["provenance"]["why"].startswith(f"Served is {best}, the best of")
    page = (run / "evaluate" / "report.html").read_text()
    assert f"Serving: {best} answers a session" in page
    assert " 0 parameters" not in page


def test_every_row_can_be_asked_for(run: Path, tmp_path: Path) -> None:
    """All rows that can be served: the artefact answers as the run does, which is as it ranked."""
    system = able(open_run(run, Tracker(run, quiet=True)), Ranks)
    dataset = load_prepared(run / "data" / "prepared")
    sessions = [[dataset.items.ids[row] for row in each] for each in dataset.splits["test"]][:20]
    names = list(results(run)["served"]["choice"]["validation"])
    assert {"student", "EASE", "V-SKNN", "blend of rules", "newest first"} < {*names}
    assert {"content-kNN (TF-IDF)", "content-kNN (item features)"} < {*names}
    assert "blend of rules and student" in names
    answers = {}
    for name in names:
        row, made = served_row(system, name), build(system, name, None)
        assert row.why == f"Served is {name}: --row names it."
        write_any(made, tmp_path / "serve")
        section = measure(system, row, made, tmp_path / "serve", calls=2)
        assert section["served"]["name"] == name
        assert section["same top 20"]["same"] == section["same top 20"]["sessions"] > 100
        found = load(tmp_path / "serve").recommend_batch(sessions, top=20)
        assert found == serve(made, "the run").recommend_batch(sessions, top=20)
        answers[name] = json.dumps(found)
    assert len(set(answers.values())) > len(names) - 3  # the popularities may agree


def test_a_smaller_artefact_says_what_it_costs(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    at, out = ["export", "--workdir", str(run), "--row", "EASE"], tmp_path / "serve"
    assert main([*at, "--out", str(out), "--keep", "2", "--json"]) == 0
    section = json.loads(capsys.readouterr().out)
    system = able(open_run(run, Tracker(run, quiet=True)), Ranks)
    own = evaluated_rule(system, served_row(system, "EASE"))
    by_hand = {"whole": own, "kept": load(out).ranker}
    asked = ask(system.data.dataset, "validation")
    for name, ranker in by_hand.items():
        ranked = rank(
            ranker, asked, n_items=len(system.data.dataset.items),
            exclude_seen=system.data.dataset.exclude_seen, top=0,
        )  # fmt: skip
        near = asked.place <= 20
        gain = np.where(ranked.ranks[0] <= 20, 1.0 / ranked.ranks[0], 0.0)[near]
        of_each = [gain[asked.session[near] == k].mean() for k in np.unique(asked.session[near])]
        assert section["keep"][name] == pytest.approx(np.mean(of_each), abs=1e-9)
    assert section["keep"]["entries"] == 2
    assert section["keep"]["kept"] != section["keep"]["whole"]
    assert section["same top 20"]["same"] < section["same top 20"]["sessions"]
    cost = f"{100 * section['keep']['kept']:.2f} % with them"
    said = " ".join(describe(section))
    assert (
        f"the 2 largest entries; the run's figures are of all. MRR@20 on validation is {cost}"
        in said
    )
    assert f"Of the run's 20 best it names {section['same top 20']['shared']:.0%} on" in said
    # Whoever gets the folder reads it, and whoever reads the report.
    page = " ".join((run / "evaluate" / "report.html").read_text().split())
    for text in ((out / "README.md").read_text(), page):
        assert "the 2 largest entries" in text
        assert cost in text
    assert json.loads((out / "serve.json").read_text())["provenance"]["kept"] == section["keep"]
    for more, why in (
        (["--keep", "0"], "keeps nothing"),
        (["--keep", "9", "--updatable"], "could not be counted on"),
        (["--keep", "9", "--row", "student"], "a student holds no tables of rules"),
    ):
        assert why in refusal(capsys, [*at, "--out", str(tmp_path / "no"), *more])
    assert not (tmp_path / "no").exists()


def test_what_can_not_be_is_one_sentence(
    run: Path, shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    at = ["--workdir", str(run)]
    said = refusal(capsys, ["recommend", *at, *SESSION, "--row", "eaze"])
    assert '--row="eaze" is not one of student, popularity' in said
    said = refusal(capsys, ["recommend", *at, *SESSION, "--row", "student, order shuffled"])
    assert "is not one of" in said
    best = results(run)["served"]["row"]
    said = refusal(capsys, ["export", *at, "--out", str(tmp_path / "out"), "--stablehlo"])
    assert (
        f"{best} is no student, and only a student's scores are exported as a StableHLO program"
        in said
    )
    assert not (tmp_path / "out").exists()
    fresh = str(tmp_path / "fresh")
    said = refusal(capsys, words(shop, Path(fresh), "ids", "--config.evaluate.serve=bast"))
    assert 'did you mean "best"' in said
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    shutil.rmtree(copy / "evaluate")
    said = refusal(capsys, ["recommend", "--workdir", str(copy), *SESSION])
    assert "is not evaluated yet, which says what is best" in said
    recommended(capsys, "--workdir", str(copy), "--row", "student")


def test_a_rule_that_is_named_is_served(
    run: Path, shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    table = shop.parent / "table"
    more = [f"{SOURCE}{table}", "--config.evaluate.serve=EASE", "--stale=rerun"]
    assert main(words(shop, copy, "both", *more)) == 0
    served = results(copy)["served"]
    assert (served["row"], served["student"], served["choice"]["wanted"]) == (
        "EASE", "student", "EASE",
    )  # fmt: skip
    by_run = recommended(capsys, "--workdir", str(copy))
    assert by_run == recommended(capsys, "--workdir", str(run), "--row", "EASE")


def test_the_rules_of_a_blend_with_a_student_count_on(run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    items, clicks = tmp_path / "items.csv", tmp_path / "new.csv"
    names = (shop_of(copy) / "items.csv").read_text().splitlines()[0].split(",")
    new = {"item_id": "new-1", "title": "A blue lamp"}
    items.write_text(f"{','.join(names)}\n{','.join(new.get(name, '') for name in names)}\n")
    head = (shop_of(copy) / "interactions.csv").read_text().splitlines()[0].split(",")
    rows = [("new-1" if n % 2 else "t0001", f"later-{n // 4}", 2e9 + n) for n in range(40)]
    cells = [{"item_id": i, "session_id": s, "timestamp": f"{t:.0f}"} for i, s, t in rows]
    lines = [",".join(each.get(name, "") for name in head) for each in cells]
    clicks.write_text("\n".join([",".join(head), *lines]) + "\n")
    name = "blend of rules and student"

    def made() -> tuple[list[str], list[float]]:
        system = able(open_run(copy, Tracker(copy, quiet=True)), Ranks)
        artefact = build(system, name, None)
        found = serve(artefact, "the run").recommend(["t0001"], top=61)
        write_any(artefact, tmp_path / "serve")
        assert load(tmp_path / "serve").recommend(["t0001"], top=61) == found
        return [each["item_id"] for each in found], [each["score"] for each in found]

    before = made()
    words = ["remember", "--workdir", str(copy)]
    assert main([*words, "--interactions", str(clicks), "--items", str(items)]) == 0
    ids, scores = made()
    assert "new-1" not in before[0]
    assert ids.index("new-1") < 10  # what everybody goes on to after t0001
    assert np.isfinite(scores).all()
    assert main([*words, "--undo"]) == 0
    assert made() == before


def test_rows_that_count_what_came_after_training_stand_beside_the_others(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = results(run)
    copy, mixed = Path(shutil.copytree(run, tmp_path / "run")), "blend of rules and student"
    words = ["evaluate", "--workdir", str(copy), "--split=test", "--by=day", "--counts=all"]
    assert main(words) == 0
    found = results(copy, "evaluate-test")
    rows = {row["name"]: row for row in found["rows"]}
    # Frozen rows, and what is served, are what they were.
    assert [row for row in found["rows"] if "counts" not in row] == before["rows"]
    assert (found["served"], found["best_rule"]) == (before["served"], before["best_rule"])
    live = rows[f"{mixed}, live"]
    assert (live["kind"], live["counts"], live["seeds"]) == ("mix", "live", 1)
    members = {name for name in live["settings"] if "MRR@20" not in name}
    assert members <= rows.keys()
    assert not {f"{name}, live" for name in members} & rows.keys()  # each is live that can be
    # One that adds nothing is left out: then it is the live blend of rules, asked and chosen alike.
    same = [(row["settings"], row["figures"]) for row in (live, rows["blend of rules, live"])]
    assert "student" in members or same[0] == same[1]
    weekly = {name for name, row in rows.items() if row.get("counts") == "weekly"}
    figures = before["served"]["choice"]["validation"]
    rules = {name: figures[name] for name in figures if role_of(rows[name]["kind"]) == "rule"}
    best = max(rules, key=lambda name: rules[name])
    assert weekly == {f"{best}, weekly", f"{before['served']['row']}, weekly"}
    pairs = {(each["a"], each["b"]) for each in found["comparisons"]}
    assert {(live["name"], found["best_live_rule"]), (live["name"], mixed)} <= pairs
    assert {(f"{best}, weekly", best)} <= pairs
    assert {row["cold"]["n"] for row in found["rows"]} == {live["cold"]["n"]}
    assert found["over_time"]["rows"].keys() == rows.keys()
    assert found["over_time"]["by"] == "day"
    said = " ".join(capsys.readouterr().out.split())
    for words_of in ("Counted anew every Monday", f"{live['name']} reaches", "By day"):
        assert words_of in said
    page = (copy / "evaluate-test" / "report.html").read_text()
    assert live["name"] in page
    assert 'aria-label="MRR@20 by day for' in page


def shop_of(run: Path) -> Path:
    """The catalogue folder of a run."""
    return Path(json.loads((run / "config.json").read_text())["data"]["dir"])


def test_what_each_part_of_the_served_blend_is_worth(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    assert main(["evaluate", "--workdir", str(copy), "--split=validation", "--parts"]) == 0
    found = results(copy, "evaluate-validation")
    rows, served = {row["name"]: row for row in found["rows"]}, found["served"]["row"]
    weights = {name: w for name, w in rows[served]["settings"].items() if "MRR@20" not in name}
    assert len(weights) > 1
    assert {name for name in rows if ", without " in name} == {
        f"{served}, without {name}" for name in weights
    }
    system = able(open_run(copy, Tracker(copy, quiet=True)), Ranks)
    dataset, asked = system.data.dataset, ask(system.data.dataset, "validation")
    every = slice(0, len(dataset.items))
    total = {}
    for name, weight in weights.items():
        student = name in system.students.names
        ranker = (
            system.students.ranker(name, 0)
            if student
            else evaluated_rule(system, served_row(system, name))
        )
        scores = np.asarray(ranker.scores(asked.prefixes, every), np.float64)
        spread = scores.std(1, keepdims=True)
        scores = (scores - scores.mean(1, keepdims=True)) / np.where(spread > 1e-9, spread, np.inf)
        total[name] = weight * scores
    blocked = np.zeros((len(asked), len(dataset.items)), bool)
    if asked.available is not None:
        blocked |= ~asked.available.open(asked.time, every)
    if dataset.exclude_seen:
        blocked[asked.seen()] = True
    near = asked.place <= 20
    for name in weights:
        scores = sum(each for other, each in total.items() if other != name)
        scores[blocked] = -np.inf
        wanted = scores[np.arange(len(asked)), asked.target][:, None]
        place = (scores >= wanted - 1e-6).sum(1)
        gain = np.where(place <= 20, 1 / place, 0)[near]
        mean = np.mean([gain[asked.session[near] == s].mean() for s in set(asked.session[near])])
        row = rows[f"{served}, without {name}"]
        assert row["figures"]["session"]["MRR@20"] == pytest.approx(mean, abs=1e-3), name
        pair = next(p for p in found["comparisons"] if p["b"] == row["name"])
        assert pair["a"] == served
    assert "without" in capsys.readouterr().out
