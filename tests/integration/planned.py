"""What `jmrec plan` counts of a run's sizes is what the run keeps, stage by stage."""

from pathlib import Path

import jax

from jmrec.config import ConfigDict, load_config
from jmrec.files import read_json
from jmrec.systems.data import INDEX
from jmrec.systems.registry import open_run
from jmrec.systems.session.system import SessionSystem
from jmrec.systems.system import Sizes
from jmrec.tools.inspect import inspect
from jmrec.tools.plan.shapes import Planner
from jmrec.tracking import Tracker

EXPERIMENTS = {"tpad", "session", "mmrec", "losses_on_gaussians"}
"""Those whose finished runs are held to their plans."""


def sizes_of(workdir: Path) -> Sizes:
    """Return what the data of a run decided; 1 where it has none."""
    index, reader = workdir / INDEX, workdir / "data" / "reader.json"
    items = len(read_json(index)) if index.is_file() else 1
    known = read_json(reader) if reader.is_file() else {"vocab": 1, "lengths": [["", 1]]}
    return Sizes(items, known["vocab"], tuple(length for _, length in known["lengths"]))


def check_parameters(workdir: Path, experiment: str) -> None:
    """Hold a finished run of an experiment to its plan."""
    assert experiment in EXPERIMENTS
    system = open_run(workdir, Tracker(workdir, quiet=True))
    config = ConfigDict(system.work.config.to_dict())
    assert config.system == load_config(f"{experiment}:size=tiny").system
    if isinstance(system, SessionSystem):
        for table in system.content().values():
            config.features.width = table.shape[1]  # which only their source knows
    planner = Planner(config, sizes_of(workdir), jax.devices()[:1])
    counted: dict[str, set[int]] = {}
    for row in inspect(workdir)["stages"]:
        if "parameters" in row:
            # "students/NAME-SEED", "critics/NAME-NATS-SEED"
            name, ends = row["stage"], {"students": 1, "rankers": 1, "critics": 2}
            name = name.rsplit("-", ends.get(name.split("/")[0], 0))[0]
            counted.setdefault(name, set()).add(row["parameters"])
    assert counted == {name: {planner.step(name).parameters} for name in planner.steps}
