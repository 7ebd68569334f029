"""``jmrec run --data=continue``: a folder has grown, and a finished run is trained on with it."""

import shutil
from collections.abc import Callable

from jmrec.config import difference, resolve_path
from jmrec.data.folder import read_folder
from jmrec.data.grown import ANEW, Before, check_grown, in_old_rows
from jmrec.data.prepared import EVERY, build
from jmrec.errors import UserError
from jmrec.files import read_json, write_json
from jmrec.lock import Changes
from jmrec.systems.data import BEFORE, CHECKSUM, INDEX, KEPT, SOURCE
from jmrec.systems.sealed import STAGE, read_stage
from jmrec.systems.stages import identity
from jmrec.systems.system import Continues, Ranks, System, able


def begin(system: System, finished: Callable[[], System]) -> bool:
    """Make a workdir ready to train on with a folder that has grown; whoever calls it holds it.

    Afterwards ``before/`` holds the parameters of the finished run and what its data has to keep,
    and the stages that have to be done are not there: an ordinary run does them, and resumes them.

    Args:
      system: Of the run, with the folder as it is now.
      finished: Opens the run as it was finished.

    Returns:
      Whether there is anything to do; False where the folder has not changed, or the work was
      begun before.

    Raises:
      UserError: It can not be continued; nothing is changed.
    """
    workdir, tracker = system.work.workdir, system.work.tracker
    carried = able(system, Continues).carried()
    stages = system.stages()
    data = stages[0]
    known, now = read_stage(workdir / data.name), identity(data.settings)
    if known is None and not (workdir / BEFORE / KEPT).is_file():
        raise UserError(f"{workdir} holds no finished run to continue; leave out --data=continue.")
    if known is None or known["settings"].get(CHECKSUM) == now.get(CHECKSUM):
        return False
    for stage in stages:
        facts = read_stage(workdir / stage.name)
        if facts is None or not facts["done"]:
            raise UserError(
                f"stage {stage.name} of {workdir} is not finished; finish it with "
                "--data=as-prepared before you continue with what is new."
            )
        same = {CHECKSUM: now.get(CHECKSUM)}
        if changed := difference(
            {**facts["settings"], **same}, {**identity(stage.settings), **same}
        ):
            raise UserError(
                f"stage {stage.name} was made with other settings ({'; '.join(changed[:3])}); "
                "--data=continue goes on with the same ones."
            )
    kept = _check(able(system, Ranks), able(finished(), Ranks))
    changes = Changes(workdir)
    folder = changes.new(BEFORE)
    for name in carried:
        (folder / name).mkdir(parents=True)
        shutil.copytree(workdir / name / "params", folder / name / "params")
        shutil.copy(workdir / name / STAGE, folder / name / STAGE)
    write_json(folder / KEPT, kept.to_json())
    for stage in stages:
        changes.remove(stage.name)
    changes.commit()
    tracker.say(f"data: {data.words.get(CHECKSUM, '')}; {', '.join(carried)} are trained on")
    return True


def _check(system: Ranks, finished: Ranks) -> Before:
    """Check that the folder can be continued with; return what its data has to keep."""
    workdir, c, old = system.work.workdir, system.work.config.data, finished.data.dataset
    known = read_json(workdir / "data" / SOURCE)
    toml = None if c.toml is None else resolve_path(c.toml)
    name = "dataset.toml" if toml is None else toml.name
    same = [files[name][2] if name in files else "" for files in (known, system.data.files)]
    if same[0] != same[1]:
        raise UserError(
            f"{name} was edited, so that old rows may be read in another way than before; {ANEW}."
        )
    before = Before.of(old)
    raw = read_folder(resolve_path(c.dir), toml)
    if raw.given_test is not None:
        raise UserError(
            f"the test split of {old.name} is given, so that nobody can tell which of it is later "
            f"than what was learned; {ANEW}."
        )
    build(
        raw, fractions=tuple(c.get("fractions", (0.8, 0.1, 0.1))), back=c.get("back", 0),
        targets=c.get("targets", EVERY), before=before,
    )  # fmt: skip
    check_grown(old, in_old_rows(raw, before))
    if read_json(workdir / INDEX)[: len(before.items)] != before.items:
        raise UserError(f"{workdir / INDEX} is not of this run; put it back, or {ANEW}.")
    return before
