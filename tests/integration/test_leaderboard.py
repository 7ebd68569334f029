"""``jmrec leaderboard`` on a tiny shop: killed and started again it gives the same JSON."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jmrec.data.toyshop import ToyShopConfig, write_toyshop
from jmrec.errors import BAD_INPUT
from jmrec.evaluation.windows import read_units
from jmrec.main import main
from jmrec.metrics.bootstrap import resampling_counts
from jmrec.systems.work import Work
from tests.integration.session_runs import TINY, recommended, refusal, stages_of

ENCODERS = ("student", "stamp")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shop, and a folder of features beside it."""
    folder = tmp_path_factory.mktemp("board") / "shop"
    write_toyshop(folder, ToyShopConfig(seed=3, items=60, sessions=200))
    (folder / "truth.npz").unlink()
    table = folder.parent / "table"
    table.mkdir()
    np.save(table / "features.npy", np.random.default_rng(0).normal(size=(60, 7)))
    (table / "ids.json").write_text(json.dumps([f"t{row:04}" for row in range(60)]))
    return folder


def words(shop: Path, workdir: Path, *more: str) -> list[str]:
    spec = f"session:data=folder,size=tiny,items=ids+both,encoder={'+'.join(ENCODERS)}"
    config = [f"--config={spec}", *TINY, f"--config.data.dir={shop}", "--config.seeds=(0,1)"]
    config += [f"--config.features.from={shop.parent / 'table'}", "--config.evaluate.serve=best"]
    return ["leaderboard", *config, "--workdir", str(workdir), "--best=1", "--always=", *more]


@pytest.fixture(scope="module")
def whole(shop: Path) -> Path:
    workdir = shop.parent / "whole"
    assert main(words(shop, workdir)) == 0
    return workdir


def board_of(workdir: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((workdir / "leaderboard.json").read_text())
    return found


def test_killed_after_one_student_and_started_again_it_is_the_same(
    whole: Path, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workdir, member, trained = shop.parent / "killed", Work.member, list[str]()

    def only_one(self: Work, folder: Path, name: str, *args: Any, **settings: Any) -> Any:
        if trained:
            raise KeyboardInterrupt
        trained.append(name)
        return member(self, folder, name, *args, **settings)

    with monkeypatch.context() as patched:
        patched.setattr(Work, "member", only_one)
        assert main(words(shop, workdir)) != 0
    assert len(trained) == 1
    kept = (workdir / trained[0] / "stage.json").stat().st_mtime_ns
    assert not (workdir / "test_reads.jsonl").exists()
    assert main(words(shop, workdir)) == 0
    assert (workdir / trained[0] / "stage.json").stat().st_mtime_ns == kept
    assert (workdir / "leaderboard.json").read_bytes() == (whole / "leaderboard.json").read_bytes()


def test_the_encoder_that_is_best_on_validation_alone_has_every_seed(whole: Path) -> None:
    found = {
        name: json.loads((whole / "students" / f"{name}-0" / "metrics.json").read_text())["best"]
        for name in ("student", "stamp", "student-both", "stamp-both")
    }
    best = max(found, key=lambda name: found[name]).removesuffix("-both")
    other = next(each for each in ENCODERS if each != best)
    seeds = {best: (0, 1), other: (0,)}
    wanted = {
        f"students/{name}{end}-{seed}"
        for name in ENCODERS for end in ("", "-both") for seed in seeds[name]
    }  # fmt: skip
    assert stages_of(whole) == {"data", "features", "evaluate", *wanted}
    assert len((whole / "test_reads.jsonl").read_text().splitlines()) == 1
    for row in board_of(whole)["rows"]:
        if row["encoder"]:
            assert row["seeds"] == len(seeds[row["encoder"]])
            if row["seeds"] == 1:
                assert row["validation"] == pytest.approx(found[row["name"]], abs=1e-5)


def test_rows_and_differences_are_those_of_the_sessions(whole: Path) -> None:
    board, units = board_of(whole), read_units(whole / "evaluate" / "units.npz")
    rows = {row["name"]: row for row in board["rows"]}
    reads = {name: row["reads"] for name, row in rows.items() if row["encoder"]}
    assert reads == {
        "student": "ids", "stamp": "ids", "student-both": "ids + features",
        "stamp-both": "ids + features",
    }  # fmt: skip
    assert {"EASE", "V-SKNN", "blend of rules", "content-kNN (item features)"} < rows.keys()
    assert not any("shuffled" in name for name in rows)
    learned = [name for name, row in rows.items() if row["encoder"] or row["kind"] == "mix"]
    assert len(learned) == len(reads) + 1
    value = {name: units.values[n] for n, name in enumerate(units.names)}
    rules = [name for name, row in rows.items() if row["kind"] in ("rule", "content", "blend")]
    assert board["best_rule"] == max(rules, key=lambda name: value[name][0].mean())

    def p_of(a: str, b: str, metric: int) -> tuple[float, float]:
        drawn = value[a][metric] - value[b][metric]
        who = np.unique(units.cluster, return_inverse=True)[1]
        means = [float(np.average(drawn, weights=w[who])) for w in resampling_counts(who.max() + 1)]
        rare = min(sum(each <= 0 for each in means), sum(each >= 0 for each in means))
        return float(drawn.mean()), min(1.0, 2 * (rare + 1) / 2001)

    pairs = [(each["name"], each["ids"], each["less"]) for each in board["content"]]
    assert {pair[:2] for pair in pairs} == {("student-both", "student"), ("stamp-both", "stamp")}
    for family in (
        [(name, board["best_rule"], rows[name]["less"]) for name in learned],
        pairs,
    ):
        for m, metric in enumerate(("MRR@20", "HR@20")):
            every = [p_of(a, b, m)[1] for a, b, _ in family]
            for a, b, less in family:
                difference, p = p_of(a, b, m)
                assert less[metric]["difference"] == pytest.approx(difference)
                assert less[metric]["p"] == pytest.approx(p, abs=2e-3)
                # Holm by his own words: the largest of (how many are not smaller) x p up to it.
                steps = [q * sum(r >= q for r in every) for q in every if q <= p]
                assert less[metric]["holm"] == pytest.approx(min(1.0, max(steps)), abs=1e-2)
                assert less[metric]["verdict"] == "not told apart"  # of two seeds at most
    assert all(row["less"] == {} for name, row in rows.items() if name not in learned)


def test_the_workdir_is_a_finished_run_that_other_verbs_open(
    whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = next(each["name"] for each in board_of(whole)["rows"] if each["seeds"] == 2)
    found = recommended(capsys, "--workdir", str(whole), "--row", row)
    assert len(found) == 20


def test_costs_stand_apart_and_the_page_is_made_of_the_files_alone(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cost = json.loads((whole / "leaderboard.cost.json").read_text())
    board = board_of(whole)
    assert list(cost) == sorted(row["name"] for row in board["rows"])
    for each in cost.values():
        assert each["seconds"] >= 0
        assert each["rank"] >= 0
        assert each["peak_memory"] > 2**20
    assert "seconds" not in (whole / "leaderboard.json").read_text()
    for name in ("leaderboard.json", "leaderboard.cost.json"):
        (tmp_path / name).write_bytes((whole / name).read_bytes())
    assert main(["leaderboard", "--page", str(tmp_path / "leaderboard.json")]) == 0
    page = (tmp_path / "leaderboard.md").read_text()
    assert page == (whole / "leaderboard.md").read_text()
    for row in board["rows"]:
        figure = 100 * row["figures"]["session"]["MRR@20"]
        assert any(line.startswith(f"| {row['name']} | ") and f"{figure:.2f} (" in line
                   for line in page.splitlines())  # fmt: skip
    for title in ("less the best rule", "What features add", "Warm and cold", "Cost"):
        assert title in page
    (tmp_path / "leaderboard.cost.json").unlink()
    assert main(["leaderboard", "--page", str(tmp_path / "leaderboard.json")]) == 0
    assert "## Cost" not in (tmp_path / "leaderboard.md").read_text()
    (tmp_path / "leaderboard.json").write_text('{"format": 1}')
    assert "is no leaderboard" in refusal(
        capsys, ["leaderboard", "--page", str(tmp_path / "leaderboard.json")]
    )


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--best=-1"], "--best=-1"),
        (["--always=sasrek"], "no encoder 'sasrek'"),
        (["--config=tpad:size=tiny,encoder=x"], "encoder"),
        (["--config=losses_on_gaussians:size=tiny"], "encoder"),
    ],
)
def test_what_is_no_leaderboard_is_refused(
    more: list[str], says: str, shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["leaderboard", "--config=session:data=folder,size=tiny", f"--config.data.dir={shop}"]
    assert says in refusal(capsys, [*asked, "--workdir", str(tmp_path / "run"), *more])
    assert not (tmp_path / "run").exists()
    assert main(["leaderboard"]) == BAD_INPUT


def test_both_passes_train_as_many_at_a_time_as_is_asked(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def run(*args: Any, **how: Any) -> None:
        asked.append((how["parallel"], how.get("stop", "")))

    monkeypatch.setattr("jmrec.tools.leaderboard.train.registry.run", run)
    monkeypatch.setattr("jmrec.tools.leaderboard.train.best_encoders", lambda *_: [])
    monkeypatch.setattr("jmrec.tools.leaderboard.train.make_board", lambda *_: ({}, {}))
    monkeypatch.setattr("jmrec.tools.leaderboard.train.write_board", lambda *_: None)
    monkeypatch.setattr("jmrec.tools.leaderboard.train.write_page", lambda *_: None)
    assert main(words(shop, tmp_path / "board", "--parallel=2")) == 0
    assert asked == [(2, "evaluate"), (2, "")]
