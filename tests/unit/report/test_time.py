"""The report's figures over time: a line a period, and a plot with the same numbers."""

from jmrec.evaluation.results import kinds_of
from jmrec.report.sentences import sentences
from jmrec.report.time import shown_names, time_plot, time_table

RESULTS = {
    "kinds": kinds_of(["rule", "student", "teacher", "control"]),
    "rows": [
        {"name": name, "kind": kind, "figures": {"session": {"MRR@20": value}}}
        for name, kind, value in (
            ("EASE", "rule", 0.05), ("popularity", "rule", 0.01), ("distilled", "student", 0.04),
            ("id-only", "student", 0.02), ("teacher", "teacher", 0.03),
            ("distilled, order shuffled", "control", 0.02),
        )
    ],
    "comparisons": [{"a": "distilled", "b": "EASE"}, {"a": "distilled", "b": "teacher"}],
    "best_rule": "EASE",
    "over_time": {
        "by": "month", "metric": "MRR@20", "periods": ["2026-01", "2026-03"],
        "sessions": [1200, 7],
        "rows": {
            name: {"value": [0.01, 0.02 * n], "interval": [[0.0, 0.02], [0.01, 0.2]]}
            for n, name in enumerate(("EASE", "popularity", "distilled", "id-only", "teacher"))
        },
    },
}  # fmt: skip


def test_each_period_is_a_line_of_what_matters() -> None:
    assert shown_names(RESULTS) == ["distilled", "EASE", "teacher"]
    table = time_table(RESULTS)
    assert table is not None
    assert table.columns == ["sessions", "distilled", "EASE", "teacher"]
    assert [line.name for line in table.lines] == ["2026-01", "2026-03"]
    assert [cell.text for cell in table.lines[0].cells] == ["1,200", "1.00", "1.00", "1.00"]
    assert [cell.text for cell in table.lines[1].cells] == ["7", "4.00", "0.00", "8.00"]
    plot = time_plot(RESULTS)
    assert plot is not None
    assert "MRR@20 by month for distilled, EASE, teacher" in plot


def test_the_best_live_rule_is_shown_too_and_said_in_words() -> None:
    live = {"name": "popularity, live", "kind": "rule", "counts": "live",
            "figures": {"session": {"MRR@20": 0.09}}}  # fmt: skip
    over_time = {**RESULTS["over_time"]}
    over_time["rows"] = {**over_time["rows"], live["name"]: over_time["rows"]["EASE"]}
    ends = {
        "figure": "session",
        "metric": "MRR@20",
        "difference": -0.05,
        "interval": [-0.06, -0.04],
    }
    found = {
        **RESULTS, "over_time": over_time, "rows": [*RESULTS["rows"], live],
        "best_live_rule": live["name"],
        "comparisons": [{"a": "distilled", "b": live["name"], "verdict": "below", **ends}],
    }  # fmt: skip
    assert shown_names(found) == ["distilled", "EASE", "teacher", "popularity, live"]
    said = [each for each in sentences(found) if "popularity, live" in each]
    assert said == [
        "Where rules count all that was before each prediction, the best is popularity, live: "
        "MRR@20 9.00 %; distilled, which knows training alone, less this rule: −5.00 points (95 % "
        "interval −6.00 to −4.00)."
    ]
    assert not any("live" in each for each in sentences(RESULTS))


def test_without_periods_there_is_nothing() -> None:
    assert time_table({"rows": []}) is None
    assert (
        time_plot({**RESULTS, "over_time": {**RESULTS["over_time"], "periods": ["2026-01"]}})
        is None
    )
