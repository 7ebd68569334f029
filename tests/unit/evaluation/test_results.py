"""The schema of results.json: what is written can be read, and what is damaged is a sentence."""

import copy
import json
import runpy
from pathlib import Path
from typing import Any

import pytest

from jmrec.errors import UserError
from jmrec.evaluation.results import (
    FORMAT,
    KINDS,
    Results,
    kinds_of,
    make_cost,
    primary_of,
    read_cost,
    read_results,
    write_results,
)

SAMPLE = Path(__file__).parents[1] / "report" / "sample_results.py"


@pytest.fixture
def results() -> Results:
    return runpy.run_path(str(SAMPLE))["make_results"]()


def test_what_is_written_is_read(results: Results, tmp_path: Path) -> None:
    cost = make_cost({"data": {"seconds": 1.5}}, {"run": "jmrec run"})
    write_results(tmp_path, results, cost)
    found = read_results(tmp_path / "results.json")
    assert found == results
    assert read_cost(tmp_path) == cost
    # Nothing that differs from one run of a command to the next.
    text = (tmp_path / "results.json").read_text()
    assert "seconds" not in json.dumps({n: each for n, each in found.items() if n in KNOWN})
    assert "jmrec run" not in text
    assert primary_of(found, "distilled") == 0.2611
    assert primary_of(found, "nobody") is None


KNOWN = Results.__required_keys__


@pytest.mark.parametrize("key", sorted(Results.__required_keys__ - {"format"}))
def test_a_missing_part_is_named(results: Any, tmp_path: Path, key: str) -> None:
    del results[key]
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results))
    with pytest.raises(UserError, match=f"is damaged .it has no '{key}'.; run jmrec evaluate"):
        read_results(path)
    with pytest.raises(ValueError, match=f"it has no '{key}'"):
        write_results(tmp_path / "new", results, make_cost())
    assert not (tmp_path / "new").exists()


def change(results: Any, *path: Any, to: Any) -> Any:
    """Return a copy of results with one part set to something else."""
    results = copy.deepcopy(results)
    part = results
    for each in path[:-1]:
        part = part[each]
    part[path[-1]] = to
    return results


@pytest.mark.parametrize(
    ("path", "to", "said"),
    [
        (["rows"], {}, "its 'rows' is no list"),
        (["primary"], {"metric": "MRR@20"}, "'primary' lacks its fields"),
        (["rows", 3], ["x"], "row 3 lacks its fields"),
        (["comparisons", 0], {"a": "distilled"}, "comparison 0 lacks its fields"),
        (["rows", 1, "name"], "oracle", "two rows have one name"),
        (["rows", 1, "kind"], "wizard", "row 'popularity' is of the unknown kind 'wizard'"),
        (["rows", 2, "figures"], {}, "row 'first-order Markov' has no MRR@20 by session"),
        (["comparisons", 0, "b"], "ghost", "a comparison names 'ghost', which is no row"),
        (["served", "row"], "ghost", "'served' names 'ghost', which is no row"),
        (["best_rule"], "ghost", "'best_rule' names 'ghost', which is no row"),
    ],
)
def test_what_contradicts_itself_is_refused(
    results: Results, tmp_path: Path, path: list, to: Any, said: str
) -> None:
    file = tmp_path / "results.json"
    file.write_text(json.dumps(change(results, *path, to=to)))
    with pytest.raises(UserError) as caught:
        read_results(file)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_versions_are_refused_in_a_sentence(results: Any, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    del results["format"]  # as before there were formats
    path.write_text(json.dumps(results))
    with pytest.raises(UserError, match="was written by an older jmrec"):
        read_results(path)
    path.write_text(json.dumps({**results, "format": FORMAT + 1}))
    with pytest.raises(UserError, match="is of a newer jmrec"):
        read_results(path)
    for text in ("[1]", "{", ""):
        path.write_text(text)
        with pytest.raises(UserError, match="is damaged"):
            read_results(path)
    with pytest.raises(UserError, match="is missing"):
        read_results(tmp_path / "none.json")
    assert read_cost(tmp_path) == make_cost()
    (tmp_path / "cost.json").write_text(json.dumps({"format": FORMAT}))
    with pytest.raises(UserError, match="damaged"):
        read_cost(tmp_path)


def test_kinds_stand_in_the_order_of_the_table() -> None:
    assert [kind["name"] for kind in kinds_of(["control", "oracle", "rule"])] == [
        *("oracle", "rule", "control")
    ]
    assert all(name == kind["name"] for name, kind in KINDS.items())
    with pytest.raises(ValueError, match="no kind of rows is named wizard"):
        kinds_of(["rule", "wizard"])
