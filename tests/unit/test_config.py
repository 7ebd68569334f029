"""Experiment arguments, overrides and the sentences that a mistyped one gets."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from absl import flags
from ml_collections import config_dict

from jmrec.config import (
    ConfigDict,
    choose,
    config_from,
    config_hash,
    difference,
    flatten,
    load_config,
    nearest,
    parse_arg,
    placeholder,
    resolve_path,
)
from jmrec.errors import UserError

EXPERIMENT = """
from jmrec.config import ConfigDict, parse_arg, placeholder

def get_config(arg=None):
    arg = parse_arg(arg, data="toyshop", size="small", seeds=3, deep=False)
    config = ConfigDict()
    config.seed = 0
    config.seeds = arg.seeds
    config.deep = arg.deep
    config.name = arg.data
    config.rate = 1e-3
    config.widths = (32, 64)
    config.names = ("a", "b")
    config.rules = ["ease", "knn"]
    config.empty = ()
    config.limit = placeholder(int)
    config.anything = None
    config.data = ConfigDict({"dir": placeholder(str), "image_size": 64})
    config.train = ConfigDict({"steps": 10, "batch_size": 8})
    config.train.warmup = config.train.get_ref("steps") // 2
    return config
"""


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    path = tmp_path / "x.py"
    path.write_text(EXPERIMENT)
    return path


def error(function, *args, **kwargs) -> str:
    with pytest.raises(UserError) as caught:
        function(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- the short argument ---------------------------------------------------------------------


def test_parse_arg_casts_to_the_default_type() -> None:
    arg = parse_arg(
        "i=3,f=2,s=7,b=false,t=(1,2),n=x,bare",
        **{"i": 1, "f": 0.5, "s": "a", "b": True, "t": (0,), "n": None, "bare": False, "rest": 4},
    )
    assert arg.to_dict() == {
        **{"i": 3, "f": 2.0, "s": "7", "b": False, "t": (1, 2), "n": "x", "bare": True},
        "rest": 4,
    }
    assert type(arg.f) is float


@pytest.mark.parametrize("empty", [None, "", " ", ","])
def test_parse_arg_without_argument_gives_the_defaults(empty: str | None) -> None:
    assert parse_arg(empty, a=1, b=None).to_dict() == {"a": 1, "b": None}


@pytest.mark.parametrize(
    ("arg", "said"),
    [
        ("sized=3", ["sized", '"size"', "data, size"]),
        ("qqqqqqq=3", ["qqqqqqq", "data, size"]),
        ("size=two", ['size="two"', "int"]),
        ("size=2.5", ["int"]),
        ("size", ["size=..."]),
        ("size=1,size=2", ["twice"]),
    ],
)
def test_parse_arg_says_what_is_wrong(arg: str, said: list[str]) -> None:
    message = error(parse_arg, arg, size=1, data="x")
    assert all(each in message for each in said), message


def test_choose_lists_the_options() -> None:
    assert choose("size", "tiny", {"tiny": 1}) == 1
    message = error(choose, "size", "smal", ["tiny", "small"])
    assert "tiny, small" in message
    assert 'did you mean "small"' in message


def test_nearest_ignores_case() -> None:
    assert nearest("DIR", ["dir", "seed"]) == "dir"


# --- the file -------------------------------------------------------------------------------


def test_argument_and_overrides_reach_the_config(experiment: Path) -> None:
    config = load_config(
        f"{experiment}:data=folder,deep",
        [
            "--config.seed=3",
            "--config.data.dir=a=b, c",
            "--config.rate=1",
            "--config.widths=(1,2,3)",
            "--config.names=x,y",
            "--config.rules=['pop']",
            "--config.limit",
            "5",
            "--noconfig.deep",
            "--config.empty=(1,)",
            "--config.anything=[1, 'a']",
        ],
    )
    assert config.seed == 3
    assert config.name == "folder"
    assert config.data.dir == "a=b, c"
    assert config.rate == 1.0
    assert type(config.rate) is float
    assert config.widths == (1, 2, 3)
    assert config.names == ("x", "y")
    assert list(config.rules) == ["pop"]
    assert config.limit == 5
    assert config.deep is False
    assert config.empty == (1,)
    assert config.anything == [1, "a"]
    assert config.is_locked


@pytest.mark.parametrize("text", ["(64, 128)", "[64,128]", "64,128", " 64 , 128 "])
def test_a_tuple_may_be_written_in_several_ways(experiment: Path, text: str) -> None:
    assert load_config(str(experiment), [f"--config.widths={text}"]).widths == (64, 128)


@pytest.mark.parametrize(
    ("text", "words"),
    [("attention/(query|value)$", ("attention/(query|value)$",)), ("(x|y),z", ("(x|y)", "z")),
     ("(a,b)", ("a", "b")), ("layers[0:2]/up,a{1,2}", ("layers[0:2]/up", "a{1,2}"))],
)  # fmt: skip
def test_words_keep_their_own_brackets(experiment: Path, text: str, words: tuple[str, ...]) -> None:
    assert load_config(str(experiment), [f"--config.names={text}"]).names == words


def test_a_file_written_anew_within_a_second_is_read_anew(
    experiment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python's own imports tell files apart by their size and the second they were written in."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    written = experiment.stat()
    assert load_config(str(experiment)).train.steps == 10
    experiment.write_text(EXPERIMENT.replace('"steps": 10', '"steps": 20'))
    os.utime(experiment, ns=(written.st_atime_ns, written.st_mtime_ns))
    assert load_config(str(experiment)).train.steps == 20


def test_a_reference_follows_its_override(experiment: Path) -> None:
    assert load_config(str(experiment), ["--config.train.steps=40"]).train.warmup == 20


@pytest.mark.parametrize("none", ["none", "None", "null", ""])
def test_none_empties_optional_fields_only(experiment: Path, none: str) -> None:
    config = load_config(str(experiment), [f"--config.data.dir={none}", f"--config.limit={none}"])
    assert config.data.dir is None
    assert config.limit is None
    assert "does not fit" in error(load_config, str(experiment), [f"--config.seed={none}"])
    assert load_config(str(experiment), [f"--config.name={none}"]).name == none


def test_bools_take_the_usual_words(experiment: Path) -> None:
    for word in ("--config.deep", "--config.deep=true", "--config.deep=1", "--config.deep=True"):
        assert load_config(str(experiment), [word]).deep is True
    assert load_config(f"{experiment}:deep", ["--config.deep=false"]).deep is False


def test_a_field_whose_name_is_no_python_name(experiment: Path) -> None:
    text = experiment.read_text().replace(
        "    return config",
        '    config.students = ConfigDict({"id-only": {"logit": 0.0}})\n    return config',
    )
    other = experiment.with_name("dashed.py")
    other.write_text(text)
    config = load_config(str(other), ["--config.students.id-only.logit=0.5"])
    assert config.students["id-only"].logit == 0.5
    message = error(load_config, str(other), ["--config.students.id-only.logit=much"])
    assert '--config.students.id-only.logit="much" does not fit' in message


def test_the_last_override_wins_and_loads_share_nothing(experiment: Path) -> None:
    first = load_config(str(experiment), ["--config.seed=1", "--config.seed=2"])
    second = load_config(str(experiment))
    assert (first.seed, second.seed) == (2, 0)


def test_global_flags_stay_untouched(experiment: Path) -> None:
    before = set(flags.FLAGS)
    load_config(str(experiment), ["--config.seed=1"])
    assert set(flags.FLAGS) == before


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("--config.sede=1", ['"sede"', 'did you mean "seed"']),
        ("--config.dir=x", ['did you mean "data.dir"']),
        ("--config.data.dri=x", ['did you mean "data.dir"']),
        ("--config.training.steps=1", ['did you mean "train.steps"']),
        ("--config.zzzzzzzz=1", ["known at the top", "seed"]),
        ("--config.seed.x=1", ["config.seed is a value"]),
        ("--config.seed=x", ['--config.seed="x"', "type int", "it is 0"]),
        ("--config.seed=1.5", ["type int"]),
        ("--config.rate=fast", ["type float"]),
        ("--config.deep=perhaps", ["type bool"]),
        ("--config.limit=many", ["type int"]),
        ("--config.widths=('a','b')", ["type int"]),
        ("--config.widths=(1.5,)", ["type int"]),
        ("--config.data=x", ["group of fields", "--config.data.dir=value"]),
        ("--config.seed", ["needs a value"]),
        ("--noconfig.seed", ["not a yes-or-no field"]),
        ("--seed=1", ['"--seed=1"', "--config.name=value"]),
        ("seed=1", ["--config.name=value"]),
    ],
)
def test_a_wrong_override_is_one_sentence(experiment: Path, override: str, said: list[str]) -> None:
    message = error(load_config, str(experiment), [override])
    assert all(each in message for each in said), message


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("def get_config(:\n", ["line 1", "SyntaxError"]),
        ("x = 1\n", ["no function get_config"]),
        ("def get_config():\n    return 3\n", ["must return a ConfigDict", "int"]),
        ("def get_config(arg):\n    x = {}\n    return x['k']\n", ["line 3", "KeyError", "'k'"]),
        ("import nonesuch\n", ["line 1", "nonesuch"]),
    ],
)
def test_a_broken_file_is_one_sentence(tmp_path: Path, source: str, said: list[str]) -> None:
    path = tmp_path / "broken.py"
    path.write_text(source)
    message = error(load_config, str(path))
    assert all(each in message for each in [str(path), *said]), message


def test_an_argument_for_a_file_that_takes_none(tmp_path: Path) -> None:
    path = tmp_path / "plain.py"
    path.write_text(
        "from jmrec.config import ConfigDict\ndef get_config():\n    return ConfigDict()\n"
    )
    assert load_config(f"{path}").to_dict() == {}
    assert load_config(f"{path}:").to_dict() == {}
    assert "takes no argument" in error(load_config, f"{path}:size=tiny")


def test_a_wrong_path_names_the_nearest(experiment: Path) -> None:
    message = error(load_config, str(experiment.with_name("y.py")))
    assert "there is no experiment file" in message
    assert str(experiment) in message
    assert "no experiment file" in error(load_config, "experiments/tpad")


def test_a_bare_name_is_an_experiment_of_jmrec_and_a_path_is_what_looks_like_one(
    tmp_path: Path, experiment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(experiment, "tpad.py")
    assert load_config("tpad").system == "tpad"
    assert load_config("tpad:size=tiny") == load_config("experiments/tpad.py:size=tiny")
    assert load_config("tpad:backbone=hf:a/b.py").backbone.text == "a/b.py"
    for spec in ("tpad.py", "./tpad.py"):
        assert load_config(spec).to_dict() == load_config(f"{experiment}").to_dict()
    assert error(load_config, "tapd:size=tiny") == (
        'no experiment "tapd" comes with jmrec, did you mean "tpad"?'
    )
    (tmp_path / "tpad.py").rename("mine.py")
    assert 'did you mean "mine.py"?' in error(load_config, "mine")
    message = error(load_config, "qqqqqq")
    known = (
        "there are losses_on_gaussians, mmrec, session, tpad, and the path of a file ends in .py."
    )
    assert known in message
    assert "must look like tpad:size=tiny" in error(load_config, ":size=tiny")


def test_relative_paths_work_from_any_folder(
    tmp_path: Path, experiment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_config("x.py").seed == 0  # the working folder
    assert resolve_path("jmrec/errors.py").is_file()  # the checkout
    (tmp_path / "jmrec").mkdir()
    (tmp_path / "jmrec" / "errors.py").touch()
    assert resolve_path("jmrec/errors.py") == Path("jmrec/errors.py")  # the working folder first
    assert resolve_path("no/such/file") == Path("no/such/file")


# --- flat, hashed, compared -----------------------------------------------------------------


def test_flatten_survives_json() -> None:
    config = ConfigDict(
        {"a": (1, 2.5), "b": {"c": None, "d": {}}, "e": [{"f": 1}], "g": placeholder(int)}
    )
    config.h = config_dict.FieldReference(3)
    config.b.path = np.float32(0.5)
    flat = flatten(config)
    assert flat == {
        **{"a": [1, 2.5], "b.c": None, "b.d": {}, "b.path": 0.5, "e": [{"f": 1}]},
        **{"g": None, "h": 3},
    }
    assert json.loads(json.dumps(flat)) == flat
    assert flatten(flat) == flat
    with pytest.raises(TypeError, match=r"config\.x holds a set"):
        flatten({"x": {1}})


def test_hash_sees_every_value_but_not_the_order() -> None:
    base = {"a": 1, "b": {"c": 2.0, "d": "x"}}
    assert config_hash(ConfigDict(base)) == config_hash({"b": {"d": "x", "c": 2.0}, "a": 1})
    others = [
        {"a": 2, "b": {"c": 2.0, "d": "x"}},
        {"a": 1, "b": {"c": 2.0, "d": "y"}},
        {"a": 1, "b": {"c": 2.0, "d": None}},
        {"a": 1, "b": {"c": 2.0}},
        {"a": True, "b": {"c": 2.0, "d": "x"}},
    ]
    assert len({config_hash(each) for each in [base, *others]}) == 6


def test_hash_is_the_same_in_another_process() -> None:
    code = "from jmrec.config import config_hash; print(config_hash({'a': (1, 2), 'b': 'x'}))"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert found == config_hash({"b": "x", "a": [1, 2]})


def test_difference_names_fields(experiment: Path) -> None:
    old = load_config(str(experiment))
    new = load_config(str(experiment), ["--config.train.steps=12", "--config.widths=(1,)"])
    assert difference(old, new) == [
        "train.steps: 10 -> 12",
        "train.warmup: 5 -> 6",
        "widths: [32, 64] -> [1]",
    ]
    assert difference(json.loads(json.dumps(flatten(old))), old) == []
    assert difference({"a": 1}, {"b": "x"}) == ["a: 1 -> (absent)", 'b: (absent) -> "x"']


@pytest.mark.parametrize(
    "module", ["jmrec.config", "jmrec.tools.sweep.sweep", "jmrec.cluster.keeper"]
)
def test_what_needs_no_jax_loads_none(module: str) -> None:
    code = f"import sys, {module}; sys.exit('jax' in sys.modules)"
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    assert subprocess.run([sys.executable, "-c", code], env=env, check=False).returncode == 0


OPEN = """
from jmrec.config import ConfigDict

def get_config():
    return ConfigDict({"student": {"width": 8, "options": {"known": 3}, "others": {}}})
"""


def test_options_take_fields_that_the_experiment_does_not_know(tmp_path: Path) -> None:
    path = tmp_path / "x.py"
    path.write_text(OPEN)
    words = ["hidden=64", "cell=gru", "rate=1e-3", "bias=true", "sizes=(1, 2)", "known=4"]
    config = load_config(str(path), [f"--config.student.options.{word}" for word in words])
    assert config.student.options.to_dict() == {
        "hidden": 64, "cell": "gru", "rate": 1e-3, "bias": True, "sizes": (1, 2), "known": 4,
    }  # fmt: skip
    assert load_config(str(path)).student.options.to_dict() == {"known": 3}


def test_what_every_row_has_of_its_own_is_not_set_for_all(tmp_path: Path) -> None:
    path = tmp_path / "rows.py"
    path.write_text(
        "from jmrec.config import ConfigDict\n"
        "def get_config(arg=None):\n"
        "    return ConfigDict({\n"
        "        'student': {'encoder': 'a', 'train': {'steps': 1, 'rate': 0.1}},\n"
        "        'students': {'one': {'encoder': 'a', 'train': {'steps': 2}},\n"
        "                     'two': {'encoder': 'b'}},\n"
        "        'seed': 0, 'seeds': (0,)})\n"
    )
    with pytest.raises(UserError) as caught:
        load_config(str(path), ["--config.student.encoder=c"])
    assert str(caught.value) == (
        "config.student.encoder would change nothing: config.students.one.encoder and "
        "config.students.two.encoder is what counts; set that."
    )
    # What one row at least reads is set, and so is a name that only looks like a group's.
    found = load_config(
        str(path),
        ["--config.student.train.steps=5", "--config.student.train.rate=0.2", "--config.seed=3"],
    )
    assert (found.student.train.steps, found.student.train.rate, found.seed) == (5, 0.2, 3)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("--config.student.others.hidden=64", 'no field "student.others.hidden"'),
        ("--config.student.hidden=64", 'no field "student.hidden"'),
        ("--config.student.options.a.b=64", 'no field "student.options.a.b"'),
        ("--config.student.options=64", "like --config.student.options.NAME=value"),
        ("--config.student.options.known=x", "the field is of type int"),
        ("--config.student.options.hidden", "needs a value"),
        ("--config.options.hidden=64", 'no field "options.hidden"'),
    ],
)
def test_nothing_else_is_open(tmp_path: Path, override: str, said: str) -> None:
    path = tmp_path / "x.py"
    path.write_text(OPEN)
    with pytest.raises(UserError) as caught:
        load_config(str(path), [override])
    assert said in str(caught.value)


@dataclass(frozen=True)
class Inner:
    width: int
    dropout: float = 0.1


@dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner
    more: tuple[Inner, ...] = ()
    pair: tuple[int, str] = (1, "a")
    flag: bool | str = False
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.name == "bad":
            raise ValueError("a bad name")


def test_a_dataclass_is_made_of_plain_values() -> None:
    plain: dict[str, Any] = {
        "name": "x", "inner": {"width": 3, "dropout": 1}, "more": [{"width": 1}, {"width": 2}],
        "pair": [2, "b"], "flag": "none", "limit": None,
    }  # fmt: skip
    want = Outer("x", Inner(3, 1), (Inner(1), Inner(2)), (2, "b"), "none")
    assert config_from(Outer, plain) == want
    assert config_from(Outer, {**plain, "inner": Inner(3, 1)}) == want
    assert config_from(Outer, {**plain, "flag": True, "limit": 4}).limit == 4


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"inner": {"wdith": 3}}, "x.inner has no field 'wdith', did you mean \"width\"?"),
        ({"inner": {}}, "x.inner.width is missing"),
        ({"inner": {"width": 3.0}}, "x.inner.width is 3.0; give it a value of type int."),
        ({"inner": {"width": True}}, "x.inner.width is True"),
        ({"inner": None}, "x.inner is None; give it a value of type Inner."),
        ({"more": [{"width": 1}, {"width": "2"}]}, "x.more[1].width is '2'"),
        ({"more": "abc"}, "x.more is 'abc'"),
        ({"pair": [1]}, "x.pair has 1 values; give it 2."),
        ({"limit": "4"}, "x.limit is '4'; give it a value of type int or None."),
        ({"name": "bad"}, "x: a bad name"),
    ],
)
def test_what_is_no_dataclass_is_one_sentence(change: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as caught:
        config_from(Outer, {"name": "x", "inner": {"width": 3}, **change}, "x")
    assert said in str(caught.value)
