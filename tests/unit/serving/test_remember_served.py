"""Exported rules count new sessions as the run does that they are of."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from jmrec.errors import UserError
from jmrec.serving import load
from jmrec.serving.remember import remember as remember_served
from jmrec.serving.remember import undo as undo_served
from jmrec.serving.rules import read_rule, write_rule
from jmrec.serving.server.holder import Holder
from jmrec.systems.card import card_of
from jmrec.systems.remember import remember
from jmrec.systems.serve_rules import rule_artefact, served_row
from tests.kills import copied_at_each_step
from tests.unit.data.test_remembered import BEGIN, Row, write
from tests.unit.systems.test_remember import (
    BLEND,
    CUT,
    NEW,
    answers,
    export,
    made,
    rows,
    run,
    state,
)

__all__ = ["made", "rows", "run"]  # fixtures


@pytest.mark.parametrize("name", [BLEND, "EASE", "V-SKNN", "content-kNN (pixels)"])
def test_an_artefact_counts_as_the_run_does(
    name: str, run: Any, rows: list[Row], tmp_path: Path
) -> None:
    serve_dir = export(run, tmp_path / "serve", name)
    (tmp_path / "items.csv").write_text(NEW)
    clicks = [["x", "u1", "n1", BEGIN + 90_000, "view"], ["x", "u1", "i2", BEGIN + 90_001, "buy"]]
    files = [(rows[CUT:290], None, False), ([*rows[290:320], *clicks], "items.csv", False),
             (rows[320:350], None, True), (rows[350:], None, False)]  # fmt: skip
    before, states = answers(read_rule(serve_dir)), []
    for n, (part, items, solve) in enumerate(files):
        states.append(state(serve_dir))
        path, more = write(tmp_path / f"{n}.csv", part), items and tmp_path / items
        remember(run, path, more, solve=solve)
        said = " ".join(remember_served(serve_dir, path, more, solve=solve))
        assert f"{n}.csv: {len(part)} new events of" in said
        assert ("The weights of EASE stay as they are" in said) == (
            not solve and name in (BLEND, "EASE")
        )
        fresh = export(run, tmp_path / f"fresh-{n}", name)
        assert state(serve_dir) == state(fresh)  # every file of it, to the last bit
        assert answers(read_rule(serve_dir)) == answers(read_rule(fresh))
        assert load(serve_dir).ids == load(fresh).ids
    assert answers(read_rule(serve_dir)) != before
    with pytest.raises(UserError, match="were counted before; nothing is changed"):
        remember_served(serve_dir, path)
    for left, old in zip((3, 2, 1, 0), states[::-1]):
        assert undo_served(serve_dir) == [f"The last batch is taken back; {left} are left."]
        assert state(serve_dir) == old
    with pytest.raises(UserError, match="remembers nothing that could be taken back"):
        undo_served(serve_dir)


def test_only_the_part_that_counts_holds_people(run: Any, rows: list[Row], tmp_path: Path) -> None:
    out = export(run, tmp_path / "serve")
    remember_served(out, write(tmp_path / "a.csv", [["visit-x", "jane-x", "i1", BEGIN, "view"]]))
    holding = {
        path.relative_to(out).parts[0]
        for path in out.rglob("*")
        if path.is_file() and any(word in path.read_bytes() for word in (b"visit-x", b"jane-x"))
    }
    assert holding == {"updatable"}
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in out.rglob("*"))
    flat = out / "updatable/batches/0001/batch.json"
    flat.write_text(flat.read_text().replace("jane", "june"))
    with pytest.raises(UserError, match=r"updatable/batches/0001/batch\.json is not what was writ"):
        load(out)


def test_an_artefact_that_can_not_count_says_so(run: Any, rows: list[Row], tmp_path: Path) -> None:
    out, path = export(run, tmp_path / "serve", updatable=False), write(tmp_path / "a.csv", rows)
    assert not (out / "updatable").exists()
    with pytest.raises(UserError, match=r"make it again with jmrec export --updatable"):
        remember_served(out, path)
    with pytest.raises(UserError, match="holds no serving artefact"):
        remember_served(tmp_path, path)
    plain, counts = export(run, tmp_path / "one"), {}
    shutil.rmtree(plain / "updatable")
    for name in ("rule.safetensors", "serve.json", "items.json"):
        counts[name] = (plain / name).read_bytes() == (out / name).read_bytes()
    assert all(counts.values())  # what answers is the same with it and without


def test_a_kill_while_an_artefact_is_renewed_leaves_the_old_or_the_new(
    run: Any, rows: list[Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    top = tmp_path / "top"
    top.mkdir()
    out, path = export(run, top / "serve", "V-SKNN"), write(tmp_path / "a.csv", rows[CUT:])
    old = state(out)
    with copied_at_each_step(top, tmp_path / "k", monkeypatch):
        remember_served(out, path)
    new, states = state(out), []
    copies = sorted((tmp_path / "k").iterdir())
    for copy in copies:
        load(copy / "serve")
        states.append(state(copy / "serve") == new)
        assert states[-1] or state(copy / "serve") == old
    assert states == sorted(states)
    assert 1 <= sum(states) < len(states) >= 10
    remember_served(copies[0] / "serve", path)
    assert state(copies[0] / "serve") == new
    assert sorted(each.name for each in top.iterdir()) == [".serve.lock", "serve"]


def test_a_server_takes_over_what_was_counted(run: Any, rows: list[Row], tmp_path: Path) -> None:
    out = export(run, tmp_path / "serve", "popularity")
    holder = Holder(out, None, None, print)
    before = holder.held.served.recommend_batch([["i1"]])  # type: ignore[union-attr]
    assert not holder.renew()
    remember_served(out, write(tmp_path / "a.csv", rows[CUT:]))
    assert holder.renew()
    assert holder.held.served.recommend_batch([["i1"]]) != before  # type: ignore[union-attr]


def test_the_model_card_stays(run: Any, rows: list[Row], tmp_path: Path) -> None:
    """It is what an export of a run that remembers the same would write."""

    def exported(name: str) -> Path:
        made = rule_artefact(run, served_row(run, "popularity"), None, updatable=True)
        write_rule(made, tmp_path / name, card_of(run, "popularity", made))
        return tmp_path / name / "README.md"

    card, part = exported("serve"), write(tmp_path / "a.csv", rows[CUT:320])
    before = card.read_text()
    assert before.startswith("# popularity, trained and judged on ")
    remember_served(card.parent, part)
    remember(run, part)
    assert card.read_text() == before == exported("fresh").read_text()
    assert state(card.parent) == state(tmp_path / "fresh")
    load(card.parent)  # the checksums hold
    undo_served(card.parent)
    assert card.read_text() == before
