"""The index of the losses lists every one of them, with what their docstrings say."""

import inspect

import pytest

from jmrec import losses
from jmrec.tools.losses import entry, field, index, references


def test_every_public_loss_is_listed_once() -> None:
    page = index()
    headings = [line[5:-1] for line in page.splitlines() if line.startswith("### `")]
    assert headings == list(losses.LOSSES)
    assert len(headings) == len(set(headings)) > 40
    assert [line[3:] for line in page.splitlines() if line.startswith("## ")] == [
        family.capitalize() for family in losses.FAMILIES
    ]


@pytest.mark.parametrize("name", losses.LOSSES)
def test_every_loss_says_what_it_is_when_to_use_it_and_where_it_is_from(name: str) -> None:
    docstring = inspect.getdoc(losses.LOSSES[name]) or ""
    assert docstring.startswith("Return ")
    assert field(docstring, "Use").endswith(".")
    assert field(docstring, "Formula")
    assert references(docstring)
    for part in ("Compatible with jit", "Args:", "Returns:", "Raises:", "Example:"):
        assert part in docstring
    shown = entry(losses.LOSSES[name])
    assert "- Formula: `" in shown
    assert "- Use: " in shown
    assert "- Reference: " in shown
    assert "http" in shown


def test_fields_are_cut_where_they_end() -> None:
    docstring = (
        "Return x.\n\nSome words.\n\nUse: where x\n  is wanted.\nFormula: x\n  + y."
        "\n\nArgs:\n  x: 1."
        "\n\nReferences:\n  A, B, Title,\n  2001: https://a.b/c (a note)\n  C, Other, 2002:\n"
        "  https://d.e\n\nExample:\n  >>> 1\n"
    )
    assert field(docstring, "Use") == "where x is wanted."
    assert field(docstring, "Formula") == "x + y."
    assert references(docstring) == [
        "A, B, Title, 2001: https://a.b/c (a note)",
        "C, Other, 2002: https://d.e",
    ]
    assert field("Return x.", "Use") == ""
    assert references("Return x.") == []
