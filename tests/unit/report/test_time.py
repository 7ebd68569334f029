"""The report's figures over time: a line a period, and a plot with the same numbers."""

import io
from typing import Any

import pytest
from rich.console import Console

from jmrec.evaluation.results import kinds_of
from jmrec.report.sentences import sentences
from jmrec.report.tables import best_model
from jmrec.report.terminal import print_results
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
        "sessions": [1200, 7], "predictions": [5000, 9], "few": 30,
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
    assert [line.cells[0].note for line in table.lines] == ["", "few"]
    assert "whatever a row knew" in table.note
    assert "less than 30 sessions" in table.note
    plot = time_plot(RESULTS)
    assert plot is not None
    assert "MRR@20 by month for distilled, EASE, teacher" in plot
    for words in ("2026-01", "1,200 sessions", "2026-03", "7 sessions"):
        assert words in plot


def test_rows_that_count_on_stand_behind_their_own() -> None:
    forms = ("EASE, live", "EASE, weekly", "distilled, live", "popularity, live")
    over_time = {**RESULTS["over_time"]}
    over_time["rows"] = {**over_time["rows"], **dict.fromkeys(forms, over_time["rows"]["EASE"])}
    found = {**RESULTS, "over_time": over_time, "best_live_rule": "popularity, live"}
    assert shown_names(found) == [
        "distilled", "distilled, live", "EASE", "EASE, weekly", "EASE, live", "teacher",
        "popularity, live",
    ]  # fmt: skip
    plot = time_plot(found)
    assert plot is not None
    assert "EASE, weekly" in plot
    lines = [part for part in plot.split("<path") if "stroke-dasharray" in part]
    styles = {part.split("stroke-dasharray:")[1].split(";")[0].split('"')[0] for part in lines}
    assert len(styles) >= 2  # weekly is dashed, live is dotted, and both are of their row's colour


@pytest.mark.parametrize("width", [80, 140])
def test_the_terminal_shows_the_last_periods(width: int) -> None:
    names = [f"2026-{month:02}" for month in range(1, 13)] + [f"2027-{m:02}" for m in range(1, 10)]
    values = [n / 100 for n in range(len(names))]
    rows = {"EASE": {"value": values, "interval": [[0.0, 0.5]] * len(names)}}
    over_time = {
        "by": "month", "metric": "MRR@20", "periods": names,
        "sessions": [100, *[20] * 20], "few": 30, "rows": rows,
    }  # fmt: skip
    shown = io.StringIO()
    print_results({**RESULTS, "over_time": over_time}, None, Console(file=shown, width=width))
    said = " ".join(shown.getvalue().split())
    assert [name in said for name in names] == [False] * 5 + [True] * 16
    assert "The report has the 5 before." in said
    assert "20.00" in said  # percent, of the last
    assert "By month" not in _printed({k: v for k, v in RESULTS.items() if k != "over_time"})


def _printed(results: Any) -> str:
    shown = io.StringIO()
    print_results(results, None, Console(file=shown, width=100))
    return shown.getvalue()


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


def test_what_counting_on_is_worth_is_said_in_words() -> None:
    def row(name: str, counts: str, value: float) -> dict[str, Any]:
        figures = {"session": {"MRR@20": value}}
        return {"name": name, "kind": "student", "counts": counts, "figures": figures}

    def less(a: str, b: str, difference: float, **more: str) -> dict[str, Any]:
        ends = {"difference": difference, "interval": [difference - 0.01, difference + 0.01]}
        return {"a": a, "b": b, "figure": "session", "metric": "MRR@20", **ends, **more}

    popular = {**row("popularity, live", "live", 0.09), "kind": "rule"}
    few = "fewer than 3 seeds: distilled"
    more = [
        row("distilled, weekly", "weekly", 0.05),
        row("distilled, live", "live", 0.095),
        popular,
    ]
    found = {
        **RESULTS, "rows": [*RESULTS["rows"], *more], "best_live_rule": "popularity, live",
        "comparisons": [
            less("distilled, weekly", "distilled", 0.01),
            less("distilled, live", "distilled", 0.055),
            less("distilled, live", "popularity, live", 0.005, reason=few),
        ],
    }  # fmt: skip
    said = sentences(found)
    assert (
        "Counted anew every Monday, as by jmrec remember, distilled reaches MRR@20 5.00 %, less "
        "itself as training left it: +1.00 points (95 % interval +0.00 to +2.00)."
    ) in said
    assert (
        "distilled, live reaches 9.50 %; less the best live rule: +0.50 points (95 % interval "
        "−0.50 to +1.50; nothing is claimed, for there are fewer than 3 seeds: distilled)."
    ) in said
    # The best model is one that can be served.
    assert best_model(found) == "distilled"


def test_without_periods_there_is_nothing() -> None:
    assert time_table({"rows": []}) is None
    assert (
        time_plot({**RESULTS, "over_time": {**RESULTS["over_time"], "periods": ["2026-01"]}})
        is None
    )
