"""Stage identity: what a finished stage is, when it is skipped, resumed or refused.

A stage owns a folder of the workdir. Its ``stage.json`` holds the hash of (its own settings, the
hashes of its inputs). Same hash and done: skipped. Same hash, not done: resumed. Another hash: the
run stops and names the field, or redoes it with ``stale="rerun"``.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from jmrec.cluster.member import first
from jmrec.config import difference, flatten
from jmrec.data.forgotten import whole
from jmrec.errors import UserError
from jmrec.files import remove_leftovers, write_json
from jmrec.systems.beside import SideBySide
from jmrec.systems.fit import Fits, fit_at_once
from jmrec.systems.sealed import FORMAT, STAGE, check_seal, read_stage, seal
from jmrec.tracking import Tracker
from jmrec.training import NOT_PART_OF_A_RUN
from jmrec.usage import watch


@dataclass(frozen=True, eq=False)
class Together:
    """What runs several stages at once that differ in their seed: those that hold the same one.

    Attributes:
      helps: Whether that is wanted, asked when the first of them is to run.
      fits: Seed -> folder; returns what `Stage.run` of each would train, in that order. It is
        trained up to the files that they write: `Stage.run` follows, and finds its work done.
    """

    helps: Callable[[], bool]
    fits: Callable[[Mapping[int, Path]], Fits]


@dataclass(frozen=True, eq=False)
class Stage:
    """One step of a system, which writes files into a folder of its own.

    Attributes:
      name: The stage's folder in the workdir, such as "students/distilled-0".
      settings: Its own settings, plain values (nested dicts allowed).
      inputs: Names of the stages whose files it reads.
      run: Called with the stage's folder; resumes by itself from what it finds there.
      alone: Whether the first process runs it while the others wait (for stages without
        parameters); else all run it together, and the first writes the files.
      group: The common name of stages that differ only in their seed, "" for none.
      seed: Its seed, where it has a group.
      path: Where its own settings are in the config, such as "students.distilled"; "" where
        that is not one place. The last part is the name of what it trains.
      content: Returns the identity of what it wrote, given its folder, where that is not decided
        by its settings alone: what a user brought. Every later stage that reads it, directly or
        not, keeps it, and is done again where it changed.
      outside: Names of settings that stand for what lies outside of the run. A finished run may be
        opened where that has changed or is gone.
      words: Name of a setting that stands for files -> what of them has changed, in words.
      together: What runs it and other seeds at once, where that is possible. These stand next to
        one another, read the same, and are run by all processes.
      beside: Files of the workdir that it writes outside of its folder.
      shared: Whether another run may take what it wrote (see `jmrec.systems.shared`): everything
        that decides it must be in its settings, its inputs, or files that its settings name.
    """

    name: str
    settings: Mapping[str, Any]
    inputs: tuple[str, ...]
    run: Callable[[Path], None]
    alone: bool = False
    group: str = ""
    seed: int | None = None
    path: str = ""
    content: Callable[[Path], str] | None = None
    outside: tuple[str, ...] = ()
    words: Mapping[str, str] = field(default_factory=dict)
    together: Together | None = None
    beside: tuple[str, ...] = ()
    shared: bool = True


class Sharing(Protocol):
    """Finished stages of several runs; `jmrec.systems.shared.Shared` is one."""

    def take(
        self, stage: Stage, fresh: dict[str, Any], known: Mapping[str, Any] | None
    ) -> dict[str, Any] | None:
        """Put a finished stage into the workdir; return its stage.json, None if it is made here."""

    def give(self, stage: Stage) -> None:
        """Let other runs have a stage that is done here."""


def stage_hash(settings: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """Hash a stage's settings and the hashes of its inputs.

    Example:
      >>> stage_hash({"a": 1}, {}) == stage_hash({"a": 2}, {})
      False
    """
    text = json.dumps({"settings": flatten(settings), "inputs": dict(inputs)}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def identity(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stage's settings, flat, without those that do not change what it computes.

    Example:
      >>> identity({"student": {"train": {"steps": 4, "updates_per_call": 2}}})
      {'student.train.steps': 4}
    """
    left_out = [["train", name] for name in NOT_PART_OF_A_RUN]
    flat = flatten(settings)
    return {name: x for name, x in flat.items() if name.split(".")[-2:] not in left_out}


def walk(
    stages: Sequence[Stage],
    workdir: Path,
    *,
    stale: str = "stop",
    tracker: Tracker,
    sharing: Sharing | None = None,
    beside: SideBySide | None = None,
) -> dict[str, str]:
    """Run the stages in order, skipping what is done.

    With several processes the first decides and writes stage.json, and the others do the same.

    Args:
      stages: In an order in which every input comes before the stages that read it.
      workdir: The run's folder.
      stale: "stop" refuses a stage that was made with other settings; "rerun" deletes and redoes
        it and the stages that depend on it.
      tracker: For messages.
      sharing: Where finished stages are taken from and left, by one process.
      beside: What runs stages side by side that need not wait for each other; None: one after the
        other.

    Returns:
      Stage name -> hash.

    Raises:
      UserError: If a stage was made with other settings and ``stale`` is "stop".
    """
    plan = _plan(stages)

    def check() -> None:
        # Before anything runs: a refusal must not come after hours of an early stage.
        for stage, fresh in plan:
            _note_contents(plan, workdir, stage, fresh)
            known = read_stage(workdir / stage.name)
            if known is not None and stale != "rerun" and _differs(known, fresh):
                raise UserError(_what_changed(stage, known, fresh))

    first(check)

    def begin(stage: Stage, fresh: dict[str, Any], shared: Sharing | None) -> dict[str, Any]:
        known: dict[str, Any] = first(
            lambda: _begin(plan, workdir, stage, fresh, stale, tracker, shared)
        )
        return known

    settled = set[str]()
    for stage, fresh in plan:
        if stage.name in settled:
            continue
        group = [(stage, fresh)]
        if stage.together is not None and stage.together.helps():
            group = [each for each in plan if each[0].together is stage.together]
        elif beside is not None and len(ready := _ready(plan, stage, workdir)) > 1:

            def opens(name: str, ready: Ready = ready) -> bool:
                return not begin(*ready[name], sharing)["done"]

            beside([*ready], opens)
            settled |= ready.keys()
            if sharing is not None:
                for each, _ in ready.values():
                    sharing.give(each)
            continue
        # What several train at once depends on which of them were left.
        shared = sharing if len(group) == 1 else None
        open_ = [(*each, known) for each in group if not (known := begin(*each, shared))["done"]]
        settled |= {each.name for each, _ in group}
        _run(open_, workdir)
        if shared is not None:
            shared.give(stage)
    return {stage.name: fresh["hash"] for stage, fresh in plan}


Ready = dict[str, tuple[Stage, dict[str, Any]]]
"""Stages by name, each with the stage.json that it begins with."""


def _ready(plan: Sequence[tuple[Stage, dict[str, Any]]], first_one: Stage, workdir: Path) -> Ready:
    """Return by name a stage and those right after it that read nothing of them and are to run.

    What is done, or is trained at once with others, does not belong to them; nor does what follows
    one that reads any of them.
    """
    place = [stage for stage, _ in plan].index(first_one)
    found, passed = Ready(), set[str]()
    for stage, fresh in plan[place:]:
        at_once = stage.together is not None and stage.together.helps()
        if passed & {*stage.inputs} or stage.alone or at_once:
            break
        passed.add(stage.name)
        known = read_stage(workdir / stage.name)
        if known is None or not known["done"] or _differs(known, fresh):
            found[stage.name] = stage, fresh
    return found if first_one.name in found else {}


def run_one(stages: Sequence[Stage], name: str, workdir: Path) -> None:
    """Run a stage that a walk with ``beside`` has begun, in a process of its own.

    Args:
      stages: Of the run.
      name: Its name.
      workdir: The run's folder.

    Raises:
      UserError: It was not begun, or with other settings or data.
    """
    plan = _plan(stages)
    stage, fresh = next(each for each in plan if each[0].name == name)
    _note_contents(plan, workdir, stage, fresh)
    known = read_stage(workdir / name)
    if known is None or _differs(known, fresh):
        raise UserError(f"stage {name} of {workdir} was not begun so; start jmrec run again.")
    if not known["done"]:
        _run([(stage, fresh, known)], workdir)


def begin_some(
    stages: Sequence[Stage], wanted: Sequence[Stage], workdir: Path, tracker: Tracker
) -> list[tuple[Stage, dict[str, Any]]]:
    """Begin stages whose inputs are done, and run none; `walk` resumes each.

    Args:
      stages: Of the run.
      wanted: Those of them that are begun.
      workdir: The run's folder.
      tracker: For messages.

    Returns:
      Those that are not done yet, each with what it reads: inputs and contents of its stage.json.

    Raises:
      UserError: One was made with other settings.
    """
    plan, found = _plan(stages), []
    for stage, fresh in plan:
        if stage not in wanted:
            continue
        if not _begin(plan, workdir, stage, fresh, "stop", tracker)["done"]:
            found.append((stage, {name: fresh[name] for name in ("inputs", "contents")}))
    return found


def _begin(
    plan: Sequence[tuple[Stage, dict[str, Any]]],
    workdir: Path,
    stage: Stage,
    fresh: dict[str, Any],
    stale: str,
    tracker: Tracker,
    sharing: Sharing | None = None,
) -> dict[str, Any]:
    """Make a stage's folder ready to run in; return its stage.json."""
    _note_contents(plan, workdir, stage, fresh)
    folder = workdir / stage.name
    known = read_stage(folder)
    # The data before it may only now be known.
    if known is not None and stale != "rerun" and _differs(known, fresh):
        raise UserError(_what_changed(stage, known, fresh))
    stale_folder = folder.with_name(f"{folder.name}.stale")
    shutil.rmtree(stale_folder, ignore_errors=True)
    if known is not None and _differs(known, fresh):
        tracker.say(f"{stage.name}: settings or data changed, done again")
        # Renamed first: a kill must not leave half of it where the new stage would resume.
        folder.rename(stale_folder)
        shutil.rmtree(stale_folder)
        known = None
    if sharing is not None and (taken := sharing.take(stage, fresh, known)) is not None:
        return taken
    if known is not None and known["done"]:
        check_seal(folder, known)
        tracker.say(f"{stage.name}: done before, skipped")
        return known
    if known is None:
        write_json(folder / STAGE, fresh)
    remove_leftovers(folder)
    steps = (folder / "checkpoints").glob("*")
    if not any(path.name.isdigit() for path in steps):  # else the fit says where it resumes
        place = [each.name for each, _ in plan].index(stage.name) + 1
        how = "resumed" if known else "started"
        tracker.say(f"{stage.name}: {how}, {place} of {len(plan)} stages")
    return dict(known or fresh)


def _run(begun: Sequence[tuple[Stage, dict[str, Any], dict[str, Any]]], workdir: Path) -> None:
    """Run stages that have begun: several are of one `Together`.

    One that can not go on keeps no other from being finished.

    Args:
      begun: (stage, its fresh stage.json, the one that there is).
      workdir: The run's folder.
    """
    faults: Mapping[int, UserError] = {}
    shared, peak_of_all = 0.0, None
    if len(begun) > 1:
        together = begun[0][0].together
        assert together is not None
        started = time.monotonic()
        with watch() as peak:
            folders = {s.seed: workdir / s.name for s, _, _ in begun if s.seed is not None}
            (ends,) = fit_at_once([together.fits(folders)])
            faults = {seed: end for seed, end in zip(folders, ends) if isinstance(end, UserError)}
        shared, peak_of_all = (time.monotonic() - started) / len(begun), peak.bytes
    for stage, fresh, known in begun:
        if stage.seed in faults:
            continue
        folder, started = workdir / stage.name, time.monotonic()
        with watch() as peak:
            if stage.alone:
                first(lambda: stage.run(folder))  # noqa: B023
            else:
                stage.run(folder)
        spent = round(known["seconds"] + shared + time.monotonic() - started, 1)
        peaks = (known.get("peak_memory"), peak_of_all, peak.bytes)
        most = max((each for each in peaks if each is not None), default=None)
        done = {**fresh, "done": True, "seconds": spent, "peak_memory": most}
        first(lambda: write_json(folder / STAGE, {**done, "files": seal(folder)}))  # noqa: B023
    for fault in faults.values():
        raise fault


def check_run(
    stages: Sequence[Stage], workdir: Path, config: str, outside: Sequence[str] = ()
) -> None:
    """Check that what a finished run's answers depend on is what its stages wrote.

    Args:
      stages: Of the run, by its own config.
      workdir: Its folder.
      config: Where its config is, for messages.
      outside: Settings of any stage that say where something lies outside of the run, which
        config.json keeps in other words.

    Raises:
      UserError: A stage is not finished or was made with other settings than the config says, on
        other data than there is (the same data before people were taken out of it are no others),
        or one of its files is not what was written. Of the last stage, which only reports, the
        settings are compared where it is finished.
    """
    plan = _plan(stages, workdir, outside)
    for stage, fresh in plan:
        folder, last = workdir / stage.name, stage is plan[-1][0]
        known = read_stage(folder)
        if last and (known is None or not known["done"]):
            continue
        if known is None or not known["done"]:
            raise UserError(f"{folder} is not finished; start jmrec run again.")
        if known.get("format", 1) < FORMAT:  # an older jmrec kept less of what it made
            continue
        _note_contents(plan, workdir, stage, fresh)
        if known["hash"] != fresh["hash"]:
            changed = _changed(known, fresh)
            raise UserError(
                f"{config} does not say what stage {stage.name} was made with ({changed}); put "
                "back what was changed, or run again in another --workdir."
            )
        if _differs(known, fresh, whole):
            raise UserError(_what_changed(stage, known, fresh))
        if not last:
            check_seal(folder, known)


def _plan(
    stages: Sequence[Stage], finished: Path | None = None, outside: Sequence[str] = ()
) -> list[tuple[Stage, dict[str, Any]]]:
    """Return each stage and the stage.json that it begins with.

    Args:
      stages: In order.
      finished: The workdir of a finished run, whose settings of what lies outside are taken.
      outside: More names of those.
    """
    hashes: dict[str, str] = {}
    plan: list[tuple[Stage, dict[str, Any]]] = []
    for stage in stages:
        inputs = {name: hashes[name] for name in stage.inputs}
        settings = identity(stage.settings)
        known = None if finished is None else read_stage(finished / stage.name)
        if known is not None:
            taken = settings.keys() & {*stage.outside, *outside} & known["settings"].keys()
            settings |= {name: known["settings"][name] for name in taken}
        hashes[stage.name] = stage_hash(settings, inputs)
        fresh: dict[str, Any] = {
            "format": FORMAT,
            "hash": hashes[stage.name],
            "settings": settings,
            "inputs": inputs,
            "contents": {},
            "done": False,
            "seconds": 0.0,
            "peak_memory": None,
            # Not in the hash: these name the stage and do not change what it computes.
            "group": stage.group,
            "seed": stage.seed,
            "path": stage.path,
        }
        plan.append((stage, fresh))
    return plan


def _note_contents(
    plan: Sequence[tuple[Stage, dict[str, Any]]], workdir: Path, stage: Stage, fresh: dict[str, Any]
) -> None:
    """Note in a fresh stage.json what the stages before it wrote of what a user brought."""
    reads = list(stage.inputs)
    for before, _ in reversed(plan):
        if before.name not in reads:
            continue
        reads += before.inputs
        folder = workdir / before.name
        facts = None if before.content is None else read_stage(folder)
        if before.content is not None and facts is not None and facts["done"]:
            fresh["contents"][before.name] = before.content(folder)


def _differs(
    known: Mapping[str, Any], fresh: Mapping[str, Any], same: Callable[[str], str] = str
) -> bool:
    """Whether a stage was made with other settings, or on other data.

    Args:
      known: The stage.json that there is.
      fresh: The one with which it would begin now.
      same: Of two contents that this maps alike, neither is other data.
    """
    contents = known.get("contents")  # an older jmrec wrote none
    return known["hash"] != fresh["hash"] or (
        contents is not None
        and any(
            same(contents.get(name, now)) != same(now) for name, now in fresh["contents"].items()
        )
    )


def _what_changed(stage: Stage, known: Mapping[str, Any], fresh: Mapping[str, Any]) -> str:
    """Name the field, or the input, that differs from the finished stage's."""
    if known.get("format", 1) < FORMAT:
        return (
            f"stage {stage.name} was made by an older jmrec, whose stages depended on other "
            "settings and inputs; use another --workdir, or --stale=rerun to redo it and what "
            "follows."
        )
    redo = "use another --workdir, or --stale=rerun to redo it and what follows."
    before, now = known["settings"], fresh["settings"]
    changed = {name for name in {*before, *now} if before.get(name) != now.get(name)}
    if changed and changed <= stage.words.keys():
        files = "; ".join(stage.words[name] for name in sorted(changed))
        return (
            f"stage {stage.name} was made of other files ({files}); --data=as-prepared goes on "
            "with what was prepared, --data=continue trains students over ids on with what is new, "
            f"or {redo}"
        )
    if not _differs(known, fresh, whole):
        return (
            f"stage {stage.name} was made with people in the data whom jmrec forget has taken out "
            "since; --stale=rerun makes it and what follows anew without them (other commands take "
            "the run as it is)."
        )
    if known["hash"] == fresh["hash"]:
        return f"stage {stage.name} was made of other data than the run holds now; {redo}"
    return f"stage {stage.name} was made with other settings ({_changed(known, fresh)}); {redo}"


def _changed(known: Mapping[str, Any], fresh: Mapping[str, Any]) -> str:
    """Return which settings or inputs of a stage differ, in words."""
    changed = difference(known["settings"], fresh["settings"])
    if not changed:
        inputs = sorted(k for k, v in fresh["inputs"].items() if known["inputs"].get(k) != v)
        changed = [f"its input {name}" for name in inputs] or ["its inputs"]
    return "; ".join(changed[:3])
