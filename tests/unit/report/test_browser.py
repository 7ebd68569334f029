"""The page in a real browser: nothing complains, nothing is asked of anybody, it fits every width.

Needs Chromium, which `.ci/run` installs; where it is missing these tests are skipped, in CI they
fail.
"""

import copy
import io
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from jmrec.report.page import write_report

WIDTHS = {"phone": 390, "laptop": 1280, "paper": 703}
"""CSS pixels; paper is A4 less its margins, as it is printed."""


HERE = Path(__file__).parent
browser = runpy.run_path(str(HERE / "browser.py"))
sample = runpy.run_path(str(HERE / "sample_results.py"))


def hostile(results: dict[str, Any]) -> dict[str, Any]:
    """Return results whose names would ask, run or break something if they were not escaped."""
    results = copy.deepcopy(results)
    for number, facts in enumerate(results["examples"]["items"].values()):
        facts["title"] = (
            f'<img src="http://evil.test/{number}" onerror="console.error(1)"> '
            f"<script>console.error({number})</script> \u202e" + "W" * 4000
        )
    results["rows"][1]["name"] = "<style>@import 'http://evil.test/a.css'</style>" + "w" * 300
    results["caption"] = '"><script src="http://evil.test/b.js"></script>' + "v" * 3000
    return results


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    program = browser["find_chromium"]()
    with browser["Browser"](program, tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def write(folder: Path, results: dict[str, Any]) -> str:
    picture = io.BytesIO()
    Image.new("RGB", (80, 120), (30, 90, 160)).save(picture, "JPEG")
    first = next(iter(results["examples"]["items"]))
    pictures = {first: picture.getvalue()}
    path = write_report(results, folder / "report.html", sample["make_cost"](), pictures)
    return path.as_uri()


@pytest.mark.parametrize("evil", [False, True])
def test_it_is_whole_quiet_and_fits(page: Any, tmp_path: Path, evil: bool) -> None:
    results = sample["make_results"]()
    page.requests.clear()
    address = write(tmp_path, hostile(results) if evil else results)
    page.open(address)
    for name, width in WIDTHS.items():
        for dark in (False, True):
            page.show(width, media="print" if name == "paper" else "", dark=dark)
            found = page.evaluate(
                "[document.documentElement.scrollWidth, document.body.scrollWidth,"
                " getComputedStyle(document.body).backgroundColor]"
            )
            assert max(found[:2]) <= width, (name, found)
            assert found[2] == ("rgb(20, 23, 27)" if dark and name != "paper" else
                                "rgb(255, 255, 255)")  # fmt: skip
    asked = [each for each in page.requests if not each.startswith("data:image/jpeg;base64,")]
    assert asked == [address]
    assert page.complaints == []
    assert page.evaluate("document.scripts.length") == 1  # the page's own
    assert page.evaluate("document.querySelectorAll('main h2').length") > 8
    pictures = (
        "[...document.images].map(each => each.complete && each.naturalWidth > 0 && each.alt)"
    )
    shown = page.evaluate(pictures)
    assert shown
    assert all(shown)


def test_a_table_is_sorted_and_put_back(page: Any, tmp_path: Path) -> None:
    page.show(1280)
    page.open(write(tmp_path, sample["small_results"]()))
    table = "document.querySelectorAll('table.sorts')[0]"
    shown = (
        f"[...{table}.tBodies[0].rows].map(row => [row.cells[0].textContent.trim(),"
        " parseFloat(row.cells[2]?.firstChild.textContent)])"
    )
    press = f"{table}.querySelectorAll('thead tr:last-child button')[2].click()"
    before = page.evaluate(shown)
    page.evaluate(press)
    falling = page.evaluate(shown)
    names = {name for name, value in before if value is not None}
    assert {name for name, _ in falling} == names  # the headings of kinds are away
    numbers = [value for _, value in falling]
    assert numbers == sorted(numbers, reverse=True)
    state = f"{table}.querySelectorAll('[aria-sort=descending]').length"
    assert page.evaluate(state) == 1
    page.evaluate(press)
    assert page.evaluate(shown) == falling[::-1]
    page.evaluate(press)
    assert page.evaluate(shown) == before
    # Comparisons with one row stay apart from those with another.
    table = "document.querySelector('table.apart')"
    shown = (
        f"[...{table}.tBodies[0].rows].map(row => [row.classList.contains('kind'),"
        " row.textContent.trim().replace(/\\s+/g, ' '), parseFloat("
        "(row.cells[1]?.firstChild.textContent || '').replace('\u2212', '-'))])"
    )

    def groups() -> list[list[tuple[str, float]]]:
        found: list[list[tuple[str, float]]] = []
        for heads, name, value in page.evaluate(shown):
            if heads:
                found.append([])
            found[-1].append((name, value))
        return found

    before = groups()
    page.evaluate(f"{table}.querySelectorAll('thead button')[1].click()")
    after = groups()
    assert [sorted(map(str, each)) for each in after] == [sorted(map(str, e)) for e in before]
    assert len(after) > 1
    for _, *rows in after:
        assert [value for _, value in rows] == sorted([value for _, value in rows], reverse=True)
    assert page.complaints == []


def test_the_pointer_may_rest_anywhere_in_a_row(page: Any, tmp_path: Path) -> None:
    page.show(1280)
    page.open(write(tmp_path, sample["small_results"]()))
    found = page.evaluate("""[...document.querySelectorAll("figure svg .tip")].map(tip => {
        tip.scrollIntoView({block: "center", behavior: "instant"});
        const box = tip.getBoundingClientRect();
        const there = document.elementFromPoint(box.x + 0.9 * box.width, box.y + box.height / 2);
        const own = each => each?.closest(".tip")?.querySelector("title").textContent;
        return [box.height > 3, own(there), tip.querySelector("title").textContent];
    })""")
    rows = [each for each in found if ": MRR@20 " in each[2] and "(" in each[2]]
    assert len(rows) == len(sample["small_results"]()["rows"])
    assert [each for each in rows if not each[0] or each[1] != each[2]] == []


def test_no_other_script_runs(page: Any, tmp_path: Path) -> None:
    """Had something not been escaped, the page's own policy would stop it."""
    path = Path(write(tmp_path, sample["small_results"]()).removeprefix("file://"))
    bad = "<img src=x onerror='window.bad=1'><script>window.bad=2</script>"
    path.write_text(path.read_text().replace("<h1>", f"{bad}<h1>"))
    page.open(path.as_uri())
    assert page.evaluate("window.bad") is None
    assert page.complaints
    page.complaints.clear()


def test_what_is_folded_is_printed(page: Any, tmp_path: Path) -> None:
    page.open(write(tmp_path, sample["small_results"]()))
    seen = "document.querySelector('details table').checkVisibility()"
    page.show(1280)
    assert page.evaluate(seen) is False
    page.show(WIDTHS["paper"], media="print")
    assert page.evaluate(seen) is True
    assert page.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert page.pdf().startswith(b"%PDF")


def test_a_page_that_asks_and_complains_is_noticed(page: Any, tmp_path: Path) -> None:
    """The browser's eyes are open: what the first test wants absent is seen where it is there."""
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<!doctype html><img src='http://evil.test/a.png'><script>console.error('loud')</script>"
        "<script>throw new Error('thrown')</script><div style='width:2000px'>wide</div>"
    )
    page.requests.clear()
    page.show(390)
    page.open(bad.as_uri())
    assert "http://evil.test/a.png" in page.requests
    said = " ".join(page.complaints)
    page.complaints.clear()
    assert "loud" in said
    assert "Uncaught" in said
    assert page.evaluate("document.documentElement.scrollWidth") >= 2000
