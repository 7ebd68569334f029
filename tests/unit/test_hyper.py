"""The combinators of sweeps: their laws, and the sentences for what is no space."""

import itertools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jmrec.config import fixed, load_config, load_hyper, product, subsample, sweep, zipit
from jmrec.config.hyper import same
from jmrec.errors import UserError

PATIENT = settings(deadline=None, max_examples=50)
ROOT = Path(__file__).resolve().parents[2]
VALUES = st.lists(
    st.one_of(
        st.none(), st.booleans(), st.integers(-99, 99), st.text("ab,='\" ", max_size=3),
        st.floats(allow_nan=False, allow_infinity=False),
        st.lists(st.integers(0, 3), max_size=2),
    ),
    min_size=1, max_size=4, unique_by=lambda value: repr((isinstance(value, bool), value)),
).filter(lambda xs: not any(same(a, b) for a, b in itertools.combinations(xs, 2)))  # fmt: skip


@PATIENT
@given(VALUES, VALUES, VALUES)
def test_a_product_is_every_combination_in_order(a: list, b: list, c: list) -> None:
    spaces = [sweep(name, values) for name, values in (("a", a), ("x.b", b), ("c", c))]
    found = product(*spaces)
    assert [tuple(trial.values()) for trial in found] == list(itertools.product(a, b, c))
    assert all(list(trial) == ["a", "x.b", "c"] for trial in found)
    assert product(product(*spaces[:2]), spaces[2]) == found
    assert product(spaces[0], product(*spaces[1:])) == found
    assert product(spaces[0]) == spaces[0]
    assert product(spaces[0], product()) == spaces[0]


@PATIENT
@given(VALUES, st.integers(1, 4))
def test_zipped_spaces_go_together(values: list, count: int) -> None:
    numbers = sweep("n", range(len(values)))
    found = zipit(sweep("a", values), numbers, fixed("f", True))
    expected = [{"a": value, "n": n, "f": True} for n, value in enumerate(values)]
    assert found == expected
    longer = sweep("n", range(len(values) + count))
    if len(values) == 1:
        assert len(zipit(sweep("a", values), longer)) == len(longer)
    else:
        with pytest.raises(UserError, match="must be of one length"):
            zipit(sweep("a", values), longer)


@PATIENT
@given(st.integers(1, 30), st.data(), st.integers(0, 5))
def test_a_subsample_keeps_the_order_and_repeats_nothing(
    size: int, data: st.DataObject, seed: int
) -> None:
    count = data.draw(st.integers(1, size))
    space = sweep("n", range(size))
    found = subsample(space, count, seed)
    assert found == subsample(space, count, seed)
    drawn = [trial["n"] for trial in found]
    assert len(drawn) == count
    assert drawn == sorted(set(drawn))
    assert set(drawn) <= set(range(size))
    if count == size:
        assert found == space


def test_seeds_draw_differently() -> None:
    space = sweep("n", range(50))
    assert subsample(space, 5, 0) != subsample(space, 5, 1)


def test_trials_share_nothing() -> None:
    space = sweep("n", (1, 2))
    for made in (subsample(space, 2), product(space), zipit(space)):
        made[0]["n"] = 7
        assert space == [{"n": 1}, {"n": 2}]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda: sweep("a", ()), "no values"),
        (lambda: sweep("a", (1, 2, 1.0)), "lists 1.0 twice"),
        (lambda: sweep("a b", (1,)), "no name"),
        (lambda: sweep("--config.a", (1,)), "no name"),
        (lambda: sweep("a", (float("nan"),)), "cannot be swept"),
        (lambda: sweep("a", ([1.0, float("inf")],)), "cannot be swept"),
        (lambda: sweep("a", ({"b": 1},)), "cannot be swept"),
        (lambda: sweep("a", ({},)), "cannot be swept"),
        (lambda: fixed("a", object()), "cannot be swept"),
        (lambda: product(sweep("a", (1,)), fixed("a", 2)), 'sets "a" twice'),
        (lambda: zipit(sweep("a", (1,)), fixed("a", 2)), 'sets "a" twice'),
        (lambda: product(sweep("a", (1,)), []), "one trial or more"),
        (lambda: product({"a": 1}), "give it spaces"),
        (lambda: subsample(sweep("a", (1,)), 2), "ask for 1 to 1"),
        (lambda: subsample(sweep("a", (1,)), 0), "ask for 1 to 1"),
    ],
)
def test_what_is_no_space_is_a_sentence(wrong, says: str) -> None:
    with pytest.raises(UserError) as caught:
        wrong()
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_true_and_one_are_two_values() -> None:
    assert sweep("a", (True, 1)) == [{"a": True}, {"a": 1}]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("", "has no function get_hyper; a sweep needs one"),
        ("def get_hyper(): return []", "one trial or more"),
        ("def get_hyper(): return [3]", "trial 0 of get_hyper is 3, not a dict"),
        ("def get_hyper(): return [{'a': {1}}]", "cannot be swept"),
        ("def get_hyper():\n    return 1 / 0", "line 2: the experiment file fails with ZeroDiv"),
    ],
)
def test_a_broken_get_hyper_is_a_sentence(tmp_path: Path, body: str, says: str) -> None:
    path = tmp_path / "x.py"
    path.write_text(body)
    with pytest.raises(UserError, match=says):
        load_hyper(f"{path}:size=tiny")


def test_get_hyper_may_take_the_argument(tmp_path: Path) -> None:
    path = tmp_path / "x.py"
    path.write_text("def get_hyper(arg=None): return [{'a': arg}]\n")
    assert load_hyper(f"{path}:size=tiny") == [{"a": "size=tiny"}]
    assert load_hyper(str(path)) == [{"a": None}]


@pytest.mark.parametrize("ablate", ["none", "text_only"])
def test_tpad_trains_the_served_student_alone_where_asked(ablate: str) -> None:
    spec = f"{ROOT / 'experiments/tpad.py'}:size=tiny,ablate={ablate}"
    whole, served = load_config(spec), load_config(f"{spec},students=served")
    assert list(served.students) == [whole.evaluate.serve]
    assert served.students[whole.evaluate.serve] == whole.students[whole.evaluate.serve]
    assert len(load_hyper(spec)) == 6


@pytest.mark.parametrize("name", ["tpad", "session"])
def test_the_best_row_is_served_of_folders_and_a_student_of_toyshop(name: str) -> None:
    spec = f"{ROOT / 'experiments'}/{name}.py:size=tiny"
    shown = load_config(spec)
    assert shown.evaluate.serve in shown.students
    for more in ("", ",students=served", ",ablate=id_only") if name == "tpad" else ("",):
        own = load_config(f"{spec},data=folder{more}")
        assert own.evaluate.serve == "best"
        assert len(own.students) == (len(shown.students) if not more else 1)
