"""Every setting of every shipped experiment is held to its line of the table before anything runs.

What may pass is said here anew, by names: settings that are free texts, may be 0, or may be empty.
"""

import functools
import itertools
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ml_collections import ConfigDict

from jmrec.config import flatten, load_config
from jmrec.config.settings import (
    Each,
    Flag,
    Maybe,
    Number,
    Read,
    Setting,
    Text,
    Whole,
    Word,
    check_config,
    find_setting,
    under,
)
from jmrec.errors import UserError
from jmrec.systems.registry import SETTINGS, SYSTEMS, check_settings, system_class
from jmrec.systems.stages import identity, stage_hash
from jmrec.systems.work import Work
from jmrec.tracking import Tracker

TESTS = Path(__file__).resolve().parents[2]
SHIPPED = {
    "tpad": [
        *(f"data={data},size={size}" for data in ("toyshop", "folder")
          for size in ("tiny", "small", "base")),
        *(f"size=tiny,ablate={each}" for each in (
            "no_generation", "no_disentanglement", "no_alignment", "k_only", "t_only", "no_logit",
            "text_only", "picture_only", "id_only", "no_context", "no_facts")),
        *(f"size={size},backbone={each}" for size in ("tiny", "small", "base")
          for each in ("minilm", "smollm2", "assembled", "hf:folder", "hf:folder,mode=lora")),
        "size=tiny,students=served", "size=tiny,students=rules", "backbone=minilm,mode=lora",
    ],
    "session": [
        *(f"data={data},size={size},items={items}" for data in ("toyshop", "folder")
          for size in ("tiny", "small", "base") for items in ("ids", "features", "both")),
        "size=tiny,teacher=rules", "data=folder,protocol=paper,encoder=gru4rec+sasrec",
    ],
    "losses_on_gaussians": [
        "size=tiny", "size=small", "size=tiny,critic=bilinear", "size=tiny,critic=concatenated",
        "nats=(0.5,1,2,4,8),estimators=infonce+nwj", "dimensions=3",
    ],
    "mmrec": [
        *(f"data={data},size={size}" for data in ("toyshop", "folder")
          for size in ("tiny", "small", "base")),
        *(f"size=tiny,arm={each}" for each in ("ids", "text", "picture", "both")),
        *(f"size=tiny,strategy={each}" for each in (
            "class_weights", "focal", "logit_adjustment", "class_balanced", "balanced_sampling",
            "pairwise", "all")),
        *(f"size=tiny,writer={each}" for each in ("extract", "llm", "none", "all")),
        "split=time_within_item", "split=unseen_items", "size=tiny,backbone=minilm",
    ],
}  # fmt: skip
SPECS = [f"{name}:{arg}" for name, args in SHIPPED.items() for arg in args]

FREE = (
    r"wandb\.(project|name|group|tags)", r"data\.(dir|toml|verdicts)", r"features\.from",
    r"backbone\.(text|picture)", r"knowledge\.lora\.targets",
    r"describe\.writers\.(\w+\.source|caption\.prompt)",
)  # fmt: skip
"""Any text is one of these: names, paths, patterns, prompts."""
EITHER = (r"backbone\.name", r"students\.(id-only|student|gru4rec|sasrec)\.ids")
"""What these may be depends on others."""
EMPTY = (
    r"wandb\.tags", r"backbone\.text", r"describe\.writers\.\w+\.source", r"describe\.(item|user)",
    r"(rank|rankers\.[\w-]+)\.(top|bottom)",
)  # fmt: skip
"""These may be an empty text or list."""
ZERO = (
    r"seed", r"data\.toyshop\.seed", r"data\.back", r"protocol\.fold", r"features\.width",
    r".*train\.(learning_rate|patience|population|warmup|weight_decay|muon|clip|average)",
    r".*stack\.layers", r"knowledge\.lora\.(rank|alpha)", r"backbone\.(picture_size|layers)",
    r".*hparams\.(?!.*temperature)(?!clip).*", r"students\.[\w-]+\.logit",
    r"evaluate\.(warm_loss|value\.\w+)", r"data\.toyshop\.look_share", r"read\.width",
    r"(rank|rankers\.[\w-]+)\.(past|beta)",
)  # fmt: skip
"""0 has a meaning here: none, all, the first, off, or a weight that does away with a term."""


@functools.cache
def loaded(spec: str) -> ConfigDict:
    return load_config(spec)


def like(name: str, patterns: tuple[str, ...]) -> bool:
    return any(re.fullmatch(each, name) for each in patterns)


def changed(config: ConfigDict, name: str, value: Any) -> ConfigDict:
    """Return a copy in which a setting has another value, of whatever type."""
    nested = config.to_dict()
    *groups, last = name.split(".")
    group = nested
    for each in groups:
        group = group[each]
    group[last] = value
    return ConfigDict(nested, type_safe=False)


def wrong_values(name: str, value: Any) -> Iterator[tuple[Any, bool]]:
    """Yield values of the kinds of the issue, and whether a setting of this name may have them."""
    text, many = isinstance(value, str) or value is None, isinstance(value, list)
    yield "no such word", text and like(name, FREE)
    yield -1, False
    yield -0.5, False
    number = isinstance(value, int | float) and not isinstance(value, bool)
    yield type(value)(0) if number else 0, number and like(name, ZERO)
    yield "", text and like(name, EMPTY)
    yield (), many and like(name, EMPTY)
    yield (-1,), False
    yield ("no such word",), many and like(name, FREE)
    yield 10**12, False
    yield 1e30, False
    yield math.nan, False
    yield math.inf, False
    yield None, value is None
    yield {"a": 1}, False
    yield "7", text and like(name, FREE)
    yield value is not True, isinstance(value, bool) or name.endswith("remat")


def refused(config: ConfigDict, name: str = "", value: Any = None) -> str | None:
    """Return the sentence that answers a config, where a setting has another value if one is named.

    Most values are refused by the setting's own line, which is asked first as it is quick.
    """
    try:
        if name:
            check_config({name: value}, SETTINGS[config.system].settings)
            config = changed(config, name, value)
        check_settings(config)
    except UserError as error:
        return str(error)
    return None


@pytest.mark.parametrize("spec", [*SPECS, *map(str, sorted(TESTS.glob("integration/kill_*m*.py")))])
def test_what_comes_with_jmrec_is_known_and_passes(spec: str) -> None:
    if "resume" not in spec:
        assert check_settings(loaded(spec)) == []


def test_every_line_of_every_table_can_be_shown_to_somebody() -> None:
    assert SETTINGS.keys() == SYSTEMS.keys()
    for name, (table, _) in SETTINGS.items():
        for pattern, setting in table.items():
            assert setting.means.endswith("."), (name, pattern)
            assert setting.kind.says, (name, pattern)


def test_a_setting_without_a_line_is_said_with_the_nearest_that_has_one() -> None:
    config = load_config("session:size=tiny")
    with config.unlocked():
        config.student.train.lerning_rate = 0.1
    assert check_settings(config) == [
        "student.train.lerning_rate is no setting that the system session knows; did you mean "
        "student.train.learning_rate?"
    ]


@functools.cache
def leaves() -> dict[tuple[str, str], ConfigDict]:
    """(System, setting) -> a config that has it."""
    found: dict[tuple[str, str], ConfigDict] = {}
    for spec in SPECS:
        config = loaded(spec)
        for name, value in flatten(config).items():
            if value != {}:
                found.setdefault((config.system, name), config)
    return found


def is_sentence(said: str, name: str) -> bool:
    """Tell whether it is one sentence that names the setting, or its group."""
    named = any(part in said for part in name.split(".")[-2:])
    return named and "\n" not in said and said.endswith((".", "?"))


@pytest.mark.parametrize("system", SYSTEMS)
def test_no_wrong_value_of_any_setting_passes(system: str) -> None:
    ours = {name: config for (of, name), config in leaves().items() if of == system}
    assert len(ours) > 20
    faults = []
    for name, config in ours.items():
        for value, may in wrong_values(name, flatten(config)[name]):
            said = refused(config, name, value)
            expected = (said is not None) is not may or like(name, EITHER)
            if not expected or not (said is None or is_sentence(said, name)):
                faults.append((name, value, said))
    assert not faults, faults[:20]


@pytest.mark.parametrize(
    ("spec", "change", "says"),
    [
        ("tpad", "evaluate.serve=distiled", 'did you mean "distilled"?'),
        ("tpad", "evaluate.serve=EASY", 'did you mean "EASE"?'),
        ("session", "evaluate.serve=bests", 'did you mean "best"?'),
        ("session", "evaluate.serve=content-kNN (Knowledge tower)", "is not one of best, student"),
        ("tpad", "students.distilled.view=texts", "students.distilled.view"),
        ("tpad", "students.distilled.features=k,t", 'did you mean "k+t"?'),
        ("tpad", "student.stack.heads=3", "student.stack: width 64 over heads 3"),
        ("tpad", "knowledge.vision.patch=5", "knowledge.vision: picture size 32"),
        ("tpad", "distill.schedules.next.name=linear", 'distill.schedules.next: the schedule "lin'),
        ("tpad", "student.train.accumulate=3", "does not divide a batch of 128"),
        ("tpad", "distill.train.accumulate=2", "distill.train: the loss couples"),
        ("tpad", "student.train.updates_per_call=7", "student.train: train.updates_per_call=7"),
        ("tpad", "data.fractions=(0.8,0.1,0.2)", "data.fractions"),
        ("tpad", "data.back=8", "data.back=8 leaves nothing to train on"),
        ("tpad", "data.toyshop.n_items=10", "data.toyshop.n_items=10 does not fit"),
        ("tpad", "backbone.mode=forzen", 'did you mean "frozen"?'),
        ("tpad", "backbone.mode=lora", "do not go together"),
        ("tpad", "knowledge.stack.remat=save_only_these_names", "knowledge.stack.remat"),
        ("tpad", "wandb.mode=onlin", 'did you mean "online"?'),
        ("tpad", "rules=fdsp", 'did you mean "fsdp"?'),
        ("tpad", "seeds=(1,1)", "each once"),
        ("session", "students.student.encoder=gru", "students.student.encoder"),
        ("session", "students.student.features=k", "students.student.features"),
        ("session", "features.name=k++t", "features.name=k++t"),
        ("losses_on_gaussians", "nats=(1.0,1.0000001)", "alike in six digits"),
        ("losses_on_gaussians", "evaluate.samples=100", "evaluate.samples=100"),
        ("losses_on_gaussians", "train.updates_per_call=7", "train.updates_per_call=7"),
        ("mmrec", "protocol.fold=5", "protocol.fold=5"),
        ("mmrec", "protocol.day=0.0", "protocol.day=0.0 does not fit; give a number above 0"),
        ("mmrec", "evaluate.recall=50.0", "evaluate.recall=50.0 does not fit"),
        ("mmrec", "evaluate.value.hit=-1.0", "evaluate.value.hit=-1.0 does not fit"),
        ("mmrec", "evaluate.by=items", 'did you mean "item"?'),
        ("mmrec", "evaluate.serve=bothe", 'did you mean "both"?'),
        ("mmrec", "describe.sizes=(4,2)", "describe.sizes"),
        ("mmrec", "describe.item=labels", "describe.item[0]"),
        ("mmrec", "rankers.both.item_reviews=llm", "rankers.both.item_reviews"),
        ("mmrec", "describe.writers.llm.prompt=What?", "{reviews}"),
        ("mmrec", "describe.picture=label", 'did you mean "labels"?'),
    ],
)
def test_what_does_not_go_together_is_said(spec: str, change: str, says: str) -> None:
    said = refused(load_config(f"{spec}:size=tiny", [f"--config.{change}"]))
    assert said is not None
    assert says in said
    assert said.endswith((".", "?"))


# --- kinds of values ------------------------------------------------------------------------------

INSIDE = Number(0, 1, above=True, below=True)


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (Flag(), [True, False], [0, 1, "true", None]),
        (Whole(-2, 3), [-2, 0, 3], [-3, 4, 1.0, "1", True, None]),
        (Number(0, 1), [0, 1, 0.5], [-0.1, 1.1, math.nan, math.inf, "0", True, None]),
        (INSIDE, [1e-9, 0.5, 0.999], [0, 1, 0.0, 1.0]),
        (Word(("a", "b")), ["a", "b"], ["c", "", "A", 1, None, ["a"]]),
        (Text(), ["a", " a\n"], ["", "  ", "a\0", 1, None]),
        (Text(empty=True), ["", "a"], [1, None]),
        (Each(Whole(0, 9)), [[], (1, 1), [9]], [1, "1", [10], [True], None]),
        (Each(Whole(0, 9), least=1, once=True), [[1], [2, 1]], [[], [1, 1]]),
        (Each(Whole(0, 9), rising=True), [[], [1, 2]], [[1, 1], [2, 1]]),
        (Each(INSIDE, least=2, most=2, total=1.0), [[0.5, 0.5]], [[0.5], [0.4, 0.5], [1.0, 0.0]]),
        (Maybe(Text()), [None, "a"], ["", 1]),
        (Read("a number", float), ["1", 2], ["x", None, []]),
    ],
)
def test_a_kind_takes_what_it_says(kind: Any, good: list[Any], bad: list[Any]) -> None:
    for value in good:
        kind.check("name", value)
    for value in bad:
        with pytest.raises(UserError, match=r"^name"):
            kind.check("name", value)
    assert kind.says


def test_the_line_with_the_fewest_stars_counts() -> None:
    named = {"a.b.c": "c", "a.*.c": "star", "*.b.*": "two", "*.*.*": "all"}
    for names in itertools.permutations(named):
        table = {each: Setting(Flag(), named[each]) for each in names}
        for name, means in (("a.b.c", "c"), ("a.x.c", "star"), ("x.b.x", "two"), ("x.y.z", "all")):
            found = find_setting(table, name)
            assert found is not None
            assert found.means == means
        assert find_setting(table, "a.b") is None


def test_a_group_is_no_value_and_a_value_no_group() -> None:
    table = under("students.*", {"ids": Setting(Flag(), "Whether."), "k.l": Setting(Flag(), "No.")})
    assert check_config({"students": {}}, table) == []
    assert check_config({"students": {"a": {"ids": True}}}, table) == []
    for config in ({"students": 3}, {"students": {"a": 3}}, {"students": {"a": {"k": 3}}}):
        with pytest.raises(UserError, match="is a group of settings"):
            check_config(config, table)
    with pytest.raises(UserError, match=r"students\.a\.ids"):
        check_config({"students": {"a": {"ids": {"b": 1}}}}, table)


@pytest.mark.parametrize("name", ["tpad", "session", "mmrec", "losses_on_gaussians"])
def test_a_workdir_goes_on_with_deterministic_and_without(name: str, tmp_path: Path) -> None:
    def hashes(*overrides: str) -> dict[str, str]:
        config = load_config(f"{name}:size=tiny", [f"--config.{each}" for each in overrides])
        work = Work(config, tmp_path, Tracker(tmp_path, quiet=True))
        stages = system_class(config)(work).stages()
        return {each.name: stage_hash(identity(each.settings), {}) for each in stages}

    plain = hashes()
    assert len(plain) > 1
    assert hashes("deterministic=true") == plain
    assert hashes("seeds=(7,)") != plain
