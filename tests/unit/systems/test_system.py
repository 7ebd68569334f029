"""Every registered system: its protocol, its planned steps; students' inputs; what it lacks."""

from pathlib import Path

import pytest

from jmrec.config import load_config
from jmrec.errors import UserError
from jmrec.systems.registry import SYSTEMS, system_class
from jmrec.systems.stages import identity
from jmrec.systems.system import (
    LACKS,
    Continues,
    Merges,
    Ranks,
    RanksPairs,
    ReadsItems,
    Sizes,
    System,
    able,
)
from jmrec.systems.work import Work
from jmrec.tracking import Tracker

SPECS = {
    "tpad": "tpad:size=tiny",
    "mmrec": "mmrec:size=tiny",
    "session": "session:size=tiny",
    "gaussians": "losses_on_gaussians:size=tiny",
}
CAN = {
    "tpad": {Ranks, ReadsItems, Merges},
    "session": {Ranks, Continues},
    "gaussians": set[type](),
    "mmrec": {RanksPairs},
}


def made(workdir: Path, spec: str, *overrides: str) -> System:
    config = load_config(spec, list(overrides))
    return system_class(config)(Work(config, workdir, Tracker(workdir, quiet=True)))


def test_every_system_is_tested_here() -> None:
    assert set(SPECS) == set(CAN) == set(SYSTEMS)


@pytest.mark.parametrize("name", SPECS)
def test_a_system_keeps_the_contract_and_reads_nothing(name: str, tmp_path: Path) -> None:
    system = made(tmp_path, SPECS[name])
    assert system.name == name
    stages = system.stages()
    assert stages[-1].name == "evaluate"
    done: set[str] = set()
    for stage in stages:
        assert set(stage.inputs) <= done  # every input comes before its reader
        done.add(stage.name)
    assert len(done) == len(stages)
    assert not list(tmp_path.rglob("stage.json"))


TRAINS = {"vision", "knowledge", "transition", "distill", "look", "align"}


@pytest.mark.parametrize("name", SPECS)
def test_the_planned_steps_are_the_stages_that_train(name: str, tmp_path: Path) -> None:
    stages = made(tmp_path, SPECS[name]).stages()
    # All values of the information share a critic's step: the group without its last number.
    trained = {
        stage.group.rsplit("-", 1)[0] if name == "gaussians" else stage.group or stage.name
        for stage in stages
        if stage.group or stage.name in TRAINS
    }
    config = load_config(SPECS[name])
    assert set(system_class(config).plan_steps(config, Sizes(50, 300, (4, 4)))) == trained


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("capability", LACKS)
def test_what_a_system_lacks_is_said_with_its_name(
    name: str, capability: type, tmp_path: Path
) -> None:
    system = made(tmp_path, SPECS[name])
    if capability in CAN[name]:
        assert able(system, capability) is system
        return
    with pytest.raises(UserError) as refused:
        able(system, capability)
    assert f"the system {name!r}, which {LACKS[capability].says}" in str(refused.value)


def inputs(system: System) -> dict[str, set[str]]:
    return {each.group: set(each.inputs) for each in system.stages() if each.group}


def test_a_student_waits_for_what_it_reads_alone(tmp_path: Path) -> None:
    found = inputs(made(tmp_path, "tpad:size=tiny", "--config.students.text-only.features=e"))
    assert found["students/id-only"] == {"data"}
    assert found["students/undistilled"] == {"data", "read"}
    assert found["students/text-only"] == {"data", "read"}
    assert found["students/distilled"] == {"data", "embed", "read", "transition"}


def test_a_given_source_and_the_rules_are_waited_for(tmp_path: Path) -> None:
    assert inputs(made(tmp_path, "session:size=tiny,teacher=rules")) == {
        "students/student": {"data", "teach"}
    }


def test_what_mmrec_reads_of_cuts_is_part_of_what_its_stages_are(tmp_path: Path) -> None:
    """The mean of reviews up to a cut has no writer whose stage would say where cuts end."""
    own, other = (
        {each.name: each.settings for each in made(tmp_path, "mmrec:size=tiny", *more).stages()}
        for more in ((), ("--config.describe.sizes=(2, 8)",))
    )
    changed = {
        name for name, settings in own.items() if identity(settings) != identity(other[name])
    }
    assert changed == {"rankers/text-0", "rankers/both-0", "evaluate"}
