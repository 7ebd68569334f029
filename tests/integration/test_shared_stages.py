"""A run that takes shared stages ends as one alone; nothing that it reads is outside its key."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ml_collections import ConfigDict
from PIL import Image

from jmrec.config import flatten, load_config
from jmrec.errors import UserError
from jmrec.files import read_json
from jmrec.main import main
from jmrec.systems.registry import system_class
from jmrec.systems.shared import SHARED, Shared
from jmrec.systems.stages import Stage, walk
from jmrec.systems.work import Work
from jmrec.tracking import Tracker, read_curves
from tests.integration.kill_and_resume import compare
from tests.wandb_file import records

EXPERIMENT = str(Path(__file__).with_name("kill_experiment.py"))
WORDS = ["--config.evaluate.split=validation"]
IN_ANY_KEY = ("rules", "deterministic")
UNUSED = {
    "data": {"evaluate.ease_items"},  # it warns that there will be no row
    "vision": {f"knowledge.{name}" for name in (
        "soft", "stack.heads", "stack.kv_heads", "stack.layers", "stack.mlp"
    )},  # it takes the encoder of the tower's config
    "knowledge": {"knowledge.hparams.rebuild"},  # left out where it is read
}  # fmt: skip
"""What a stage reads of the config and drops."""


class Reads:
    """The leaves of a config that are read while it is switched on."""

    def __init__(self, config: ConfigDict) -> None:
        self.paths: dict[int, str] = {}
        self.seen: set[str] = set()
        self.on = False
        self._name(config, "")
        self._config = config  # ids are its nodes' as long as it lives

    def _name(self, node: ConfigDict, path: str) -> None:
        self.paths[id(node)] = path
        for name in node.keys():  # noqa: SIM118  a ConfigDict iterates over values too
            each = dict.get(node._fields, name)
            if isinstance(each, ConfigDict):
                self._name(each, f"{path}{name}.")

    def note(self, node: ConfigDict, name: str) -> None:
        if self.on and id(node) in self.paths:
            self.seen.add(self.paths[id(node)] + name)

    @contextmanager
    def patched(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """Hear of every reading of a value, and of every conversion of a whole group."""
        plain = ConfigDict.__getitem__

        def get(node: ConfigDict, name: str) -> Any:
            value = plain(node, name)
            if not isinstance(value, ConfigDict):
                self.note(node, name)
            return value

        def whole(method: str) -> Callable[..., Any]:
            old = getattr(ConfigDict, method)

            def heard(node: ConfigDict, *args: Any, **more: Any) -> Any:
                if self.on and id(node) in self.paths:
                    for name in flatten(node):
                        self.seen.add(self.paths[id(node)] + name)
                return old(node, *args, **more)

            return heard

        with monkeypatch.context() as patch:
            patch.setattr(ConfigDict, "__getitem__", get)
            for method in ("to_dict", "items", "values", "iteritems", "itervalues"):
                if hasattr(ConfigDict, method):
                    patch.setattr(ConfigDict, method, whole(method))
            yield


def keys(config: ConfigDict, workdir: Path) -> dict[str, str]:
    """Return for each stage all settings that are in its key: its own and those of its inputs."""
    stages = system_class(config)(Work(config, workdir, Tracker(workdir, quiet=True))).stages()
    found: dict[str, str] = {}
    for stage in stages:
        own = json.dumps(flatten(stage.settings), sort_keys=True, default=str)
        found[stage.name] = own + "".join(found[name] for name in stage.inputs)
    return found


def others(value: Any) -> list[Any]:
    """Return other values of a setting."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, value * 2, value - 1]
    if isinstance(value, float):
        return [value * 0.5 + 0.01]
    if isinstance(value, tuple):
        return [value[:-1], (*value, *value[-1:])]
    return []


def in_key(spec: ConfigDict, path: str, stage: str, workdir: Path) -> bool | None:
    """Tell whether a stage has another key where one setting is another; None: none was found."""
    before = keys(spec, workdir)[stage]
    for value in others(flatten(spec).get(path)):
        changed = spec.copy_and_resolve_references()
        node, name = changed, path
        while "." in name:
            first, name = name.split(".", 1)
            node = node[first]
        node.unlock()
        node[name] = value
        try:
            return keys(changed, workdir)[stage] != before
        except (UserError, KeyError, ValueError, TypeError):
            continue
    return None


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, set[str]]]:
    """Make a run alone, each stage by a system of its own; return what each read of the config."""
    home = tmp_path_factory.mktemp("shared") / "sweep"
    workdir = home / "one"
    workdir.mkdir(parents=True)
    config = load_config(EXPERIMENT, WORDS)
    reads, found = Reads(config), dict[str, set[str]]()
    work = Work(config, workdir, Tracker(workdir, quiet=False), prints=False)

    def afresh(place: int, name: str) -> Callable[[Path], None]:
        def run(folder: Path) -> None:
            stage = system_class(config)(work).stages()[place]
            reads.seen, reads.on = set(), True
            try:
                stage.run(folder)
            finally:
                reads.on = False
            found[name] = reads.seen

        return run

    stages: list[Stage] = [
        replace(each, run=afresh(place, each.name), together=None)
        for place, each in enumerate(system_class(config)(work).stages())
    ]
    store = Shared.of(work)
    assert store is not None
    with pytest.MonkeyPatch.context() as patch, reads.patched(patch), store:
        walk(stages, workdir, tracker=work.tracker, sharing=store)
    return workdir, found


def test_a_trial_that_takes_stages_ends_as_one_alone(
    made: tuple[Path, dict[str, set[str]]], capsys: pytest.CaptureFixture[str]
) -> None:
    one, _ = made
    two = one.parent / "two"
    for student in (one.parent / SHARED).glob("students.*/"):
        shutil.rmtree(student)
    words = ["run", "--config", EXPERIMENT, *WORDS, "--workdir", str(two), "--share"]
    assert main([*words, "--config.wandb.mode=offline", "--config.tracking.log=true"]) == 0
    said = capsys.readouterr().err
    taken = ("data", "vision", "knowledge", "read", "transition", "distill", "embed")
    for name in taken:
        assert f"{name}: taken from one" in said
    assert "students/distilled-0: started" in said
    for name in ("evaluate/results.json", "metrics.jsonl", "item_index.json"):
        assert (two / name).read_bytes() == (one / name).read_bytes(), name
    # Every parameter, feature and figure; checkpoints stay with who made them.
    shutil.copytree(one, one.parent / "bare", ignore=shutil.ignore_patterns("checkpoints"))
    mirrors = ("checkpoints", "wandb", "wandb_id", "run.log")
    shutil.copytree(two, one.parent / "taker", ignore=shutil.ignore_patterns(*mirrors))
    notes = ("workdir.lock", "config.json", "stage.json", "cost.json")
    faults = compare(one.parent / "bare", one.parent / "taker")
    assert not [each for each in faults if not any(name in each for name in notes)]
    cost = read_json(two / "evaluate" / "cost.json")["stages"]
    assert {name for name, each in cost.items() if "made_by" in each} == {*taken}
    report = (two / "evaluate" / "report.html").read_text()
    assert "Some stages were taken from one" in report
    check_mirrors(two)


def check_mirrors(workdir: Path) -> None:
    """Hold what W&B and the log file have to the run's own files."""
    (path,) = workdir.glob("wandb/offline-run-*/*.wandb")
    history, summary = [], dict[str, Any]()
    for record in records(path):
        if record.WhichOneof("record_type") == "history":
            history.append({"/".join(each.nested_key) or each.key: json.loads(each.value_json)
                            for each in record.history.item})  # fmt: skip
        elif record.WhichOneof("record_type") == "summary":
            summary |= {"/".join(x.nested_key) or x.key: json.loads(x.value_json)
                        for x in record.summary.update}  # fmt: skip
    for stage, curve in read_curves(workdir).items():  # those of taken stages too
        drawn = [(row[f"{stage}/step"], row[f"{stage}/loss"])
                 for row in history if f"{stage}/loss" in row]  # fmt: skip
        known = list(zip(curve["step"], curve["loss"]))
        assert drawn == [each for each in known if each[1] is not None]
        assert drawn
    results = read_json(workdir / "evaluate" / "results.json")
    for row in results["rows"]:
        figure = row["figures"]["session"]["MRR@20"]
        assert summary[f"validation/{row['name']}/session MRR@20"] == figure
    assert summary["validation/served/row"] == results["served"]["row"]
    media = history[-1]
    folder = path.parent / "files"
    table = json.loads((folder / media["validation/results/path"]).read_text())
    assert [line[0] for line in table["data"]] == [row["name"] for row in results["rows"]]
    page = (workdir / "evaluate" / "report.html").read_bytes()
    assert (folder / media["validation/report/path"]).read_bytes() == page
    names = media["validation/examples/filenames"]
    assert len(names) == len(results["examples"]["sessions"])
    colours = Image.open(folder / names[0]).convert("RGB").getcolors(100_000)
    assert colours is None or len(colours) > 50  # pictures of toys, not a white sheet
    told = (workdir / "run.log").read_text()
    (line,) = [each for each in told.splitlines() if "knowledge step 8:" in each]
    assert "loss=" in line
    assert f"validation served/row={results['served']['row']}" in told


def test_every_setting_that_a_stage_reads_is_in_its_key(
    made: tuple[Path, dict[str, set[str]]],
) -> None:
    workdir, found = made
    config = load_config(EXPERIMENT, WORDS)
    looked, outside = 0, []
    for stage, read in found.items():
        if stage == "evaluate":
            continue
        for path in sorted(read):
            if path in IN_ANY_KEY or path in UNUSED.get(stage, ()):
                continue
            known = in_key(config, path, stage, workdir)
            looked += known is not None
            if known is False:
                outside.append(f"{stage} reads {path}")
    assert not outside, "\n".join(outside)
    assert looked > 60
    assert {"students/distilled-0", "knowledge", "transition"} <= found.keys()
