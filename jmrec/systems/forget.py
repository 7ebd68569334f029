"""``jmrec forget``: users and sessions are taken out of what a workdir or prepared data keep.

What was learned from them stays in parameters until it is learned anew; that is said, not hidden.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from jmrec.config import resolve_path
from jmrec.data.folder import Raw, read_folder
from jmrec.data.forgotten import (
    SESSION,
    USER,
    Forgotten,
    Left,
    Person,
    find,
    left_by,
    named_by,
)
from jmrec.data.prepared import METADATA, load_prepared, take_out
from jmrec.data.remembered import read_remembered
from jmrec.errors import UserError
from jmrec.evaluation.dump import is_dump, keep_dump, split_of
from jmrec.evaluation.helped import kept_helped
from jmrec.evaluation.protocol import ask
from jmrec.evaluation.results import RESULTS, read_cost, read_results, write_results
from jmrec.evaluation.windows import keep_units, read_units, write_units
from jmrec.files import checksums, read_json, write_json
from jmrec.lock import Changes, only_writer
from jmrec.report.page import write_report
from jmrec.serving.folder import SERVE
from jmrec.systems.data import BEFORE, FORGOTTEN
from jmrec.systems.evaluate import UNITS
from jmrec.systems.examples import pictures_of
from jmrec.systems.registry import CONFIG, open_run
from jmrec.systems.remembered import REMEMBERED, knows, take_out_people
from jmrec.systems.sealed import STAGE, UNSEALED, read_stage
from jmrec.systems.shared import drop
from jmrec.systems.system import KeepsPeople
from jmrec.terminal import warn
from jmrec.tracking import Tracker

PREPARED = "data/prepared"
REPORT = "report.html"
READ_SPLITS = ("validation", "test")
"""The splits that are ranked, and shown in reports and dumps."""


@dataclass
class Taken:
    """What was taken out of one folder, and what still holds something of it.

    Attributes:
      home: The workdir, or the folder of prepared data.
      sessions, events, rows, reviews: How many went.
      remembered: How many events went of those that were remembered after training.
      shared: See `jmrec.data.forgotten.Left`.
      trained: Stages whose parameters were learned with them.
      made: What else was made with them and is as it was: artefacts, dumps that nobody can read.
      begun: Stages of a run that was not finished, which are gone.
      source: The folder that still holds them, or None.
      command: What trains anew, "" for prepared data.
    """

    home: Path
    sessions: int = 0
    events: int = 0
    rows: int = 0
    reviews: int = 0
    remembered: int = 0
    shared: int = 0
    trained: list[str] = field(default_factory=list)
    made: list[str] = field(default_factory=list)
    begun: list[str] = field(default_factory=list)
    source: Path | None = None
    command: str = ""

    def sentences(self) -> list[str]:
        """Return all of it in words."""
        rows = f", {self.rows:,} rows with {self.reviews:,} reviews" if self.rows else ""
        said = [
            f"{self.home}: taken out: {self.sessions:,} sessions with {self.events:,} events{rows}."
        ]
        if self.remembered:
            said.append(f"So are {self.remembered:,} events that were remembered after training.")
        if self.shared:
            said.append(
                f"{self.shared:,} rows of guests went with them that stand at the same item and "
                "time and can not be told apart."
            )
        if self.begun:
            said.append(
                f"The run was not finished: {', '.join(self.begun)} went too; the same jmrec run "
                "makes them anew without them."
            )
        if self.trained:
            said.append(
                "Trained with them, and still as it was, parameters and checkpoints: "
                f"{', '.join(self.trained)}; so are the figures of the report. Without them anew: "
                f"{self.command}"
            )
        if self.made:
            said.append(f"Made with them, and still as it was: {', '.join(self.made)}.")
        if self.source is not None:
            last = f" ({FORGOTTEN} of the workdir keeps them out of it)" if self.command else ""
            said.append(
                f"{self.source} was not changed: take them out there too, or they are prepared "
                f"wherever it is read anew{last}."
            )
        said.append(
            "What jmrec export or --dump-topk wrote elsewhere is as it was (of V-SKNN, or a blend "
            "with it, and with --updatable, sessions): write it anew."
        )
        return said


def forget(
    folder: Path, users: Sequence[str], sessions: Sequence[str], source: Path | None = None
) -> list[Taken]:
    """Take users and sessions out of a workdir, or of a folder of prepared data.

    Args:
      folder: The workdir of a run, of several test windows or of a sweep; or what
        `jmrec data prepare` wrote.
      users: User ids.
      sessions: Session ids.
      source: The catalogue folder, if it is not the one of the run; it is only read.

    Returns:
      For each run inside what was taken out of it, where there was something.

    Raises:
      UserError: Somebody is in none of the data: then nothing is changed.
    """
    who = [*((USER, name) for name in users), *((SESSION, name) for name in sessions)]
    homes = _homes(folder)
    here: dict[Path, list[Person]] = {}
    for home in homes:
        with only_writer(home, warn):
            lacks = _Home(home, source).lacking(who)
        here[home] = [each for each in who if each not in lacks]
    missing = [each for each in who if not any(each in found for found in here.values())]
    if missing:
        raise UserError(_unknown(folder, missing, homes))
    taken = []
    for home, found in here.items():
        if found:
            drop(home)  # what runs of a sweep share holds them too
            with only_writer(home, warn):
                taken.append(_Home(home, source).forget(found))
    return taken


def _homes(folder: Path) -> list[Path]:
    """Return the folders of prepared data, and of runs, that a folder is or holds."""
    inside = [path for name in ("back-*", "trial-*") for path in sorted(folder.glob(name))]
    homes = [
        home
        for home in (folder, *inside)
        if (home / METADATA).is_file() or (home / PREPARED / METADATA).is_file()
    ]
    if not homes:
        raise UserError(
            f"{folder} holds no prepared data; name the workdir of a run, or a folder that jmrec "
            "data prepare wrote."
        )
    return homes


def _unknown(folder: Path, missing: Sequence[Person], homes: Sequence[Path]) -> str:
    lists = [found for home in homes if (found := Forgotten.read(home / FORGOTTEN))]
    names = ", ".join(f"{kind} {name!r}" for kind, name in missing[:3])
    if any(all(each.holds(*who) for who in missing) for each in lists):
        return f"{folder} holds no {names} any more: taken out before; there is nothing to do."
    more = ""
    if missing[0][0] == USER:
        more = "; ids of users may stand in the catalogue folder alone: name it with --dir"
    return f"{folder} holds no {names}; look at the spelling{more}."


class _Home:
    """One workdir, or one folder of prepared data, whose lock is held.

    Args:
      home: The folder.
      source: The catalogue folder; None is the one of the run.
    """

    def __init__(self, home: Path, source: Path | None) -> None:
        self.home = home
        self.is_run = (home / PREPARED / METADATA).is_file()
        self.prepared = home / PREPARED if self.is_run else home
        self.dataset = load_prepared(self.prepared)
        self.remembered = read_remembered(home / REMEMBERED) if self.is_run else None
        self.source = source
        self._toml: Path | None = None
        if self.is_run:
            self._find_source()

    def _find_source(self) -> None:
        """Find the catalogue folder of a run."""
        stage = read_stage(self.home / "data")
        known: dict[str, Any] = {} if stage is None else dict(stage["settings"])
        if (self.home / CONFIG).is_file():  # its paths are absolute
            kept = read_json(self.home / CONFIG)["data"]
            known |= {f"data.{name}": value for name, value in kept.items()}
        folder, toml = known.get("data.dir"), known.get("data.toml")
        if known.get("data.source") == "toyshop":
            folder = self.home / "data" / "toyshop"
        self._toml = None if toml is None else resolve_path(toml)
        if self.source is None and folder and resolve_path(folder).is_dir():
            self.source = resolve_path(folder)

    def _raw(self, users: Sequence[str]) -> Raw | None:
        """Return the folder, where it alone can tell which sessions are of a user."""
        sessions = any(map(len, self.dataset.splits.values()))
        if not sessions or self.source is None or all(named_by(self.dataset, u) for u in users):
            return None
        try:
            return read_folder(self.source, self._toml, check_pictures=False)
        except UserError as error:
            warn(f"{self.source} is not asked for sessions of users: {error}")
            return None

    def _find(self, who: Sequence[Person]) -> tuple[set[int], set[str], list[Person]]:
        users = [name for kind, name in who if kind == USER]
        sessions = [name for kind, name in who if kind == SESSION]
        return find(self.dataset, users, sessions, self._raw(users))

    def lacking(self, who: Sequence[Person]) -> list[Person]:
        """Return who is not in the data."""
        lacks = self._find(who)[2]
        said = self.home / "data" / "verdicts.json"
        known = {user for _, user, _ in read_json(said)} if said.is_file() else set()
        lacks = [(kind, name) for kind, name in lacks if kind != USER or name not in known]
        return [each for each in lacks if not self._remembers(each)]

    def _remembers(self, who: Person) -> bool:
        """Whether somebody who is not found in the data was remembered after training.

        A user whose sessions have ids of their own may be in the data all the same, which the
        catalogue folder alone can tell: without it nobody knows what else is to be taken out.
        """
        known = self.remembered
        if known is None or not knows(self.dataset, known, who):
            return False
        own = not known.reading.description.interactions.session
        sure = who[0] == SESSION or own or not self.dataset.has_users
        return sure or self._raw([who[1]]) is not None

    def forget(self, who: Sequence[Person]) -> Taken:
        """Take people out of everything that is kept here."""
        codes, ids, _ = self._find(who)
        left = left_by(self.dataset, codes, ids)
        taken = self._count(left)
        changes = Changes(self.home)
        if not self.is_run:
            take_out(self.prepared, left, changes.new)
            changes.commit()
            return taken
        if self.remembered is not None:
            users = [name for kind, name in who if kind == USER]
            gone = ids.union(name for kind, name in who if kind == SESSION)
            taken.remembered = take_out_people(self.dataset, self.remembered, users, gone, changes)
        self._change_run(who, left, changes, taken)
        if not (taken.sessions or taken.rows):  # they came after training
            taken.trained = []
        changes.commit()
        return taken

    def _count(self, left: Left) -> Taken:
        parts = self.dataset.splits.items()
        ids = {each for name, part in parts
               for each, keep in zip(part.ids, left.sessions[name]) if not keep}  # fmt: skip
        events = sum(int((~left.events(name, self.dataset)).sum()) for name, _ in parts)
        taken = Taken(self.home, len(ids), events, source=self.source, shared=left.shared)
        if (ratings := self.dataset.ratings) is not None:
            gone = np.flatnonzero(~left.rows)
            taken.rows, taken.reviews = len(gone), sum(bool(ratings.reviews[row]) for row in gone)
        return taken

    def _change_run(
        self, who: Sequence[Person], left: Left, changes: Changes, taken: Taken
    ) -> None:
        users = [name for kind, name in who if kind == USER]
        sessions = [name for kind, name in who if kind == SESSION]
        stages = {
            path.parent.relative_to(self.home).as_posix(): path.parent
            for depth in ("*", "*/*")
            for path in sorted(self.home.glob(f"{depth}/{STAGE}"))
        }
        facts = {name: read_stage(path) for name, path in stages.items()}
        finished = (self.home / CONFIG).is_file() and all(f and f["done"] for f in facts.values())
        system = None
        if finished:
            with Tracker(self.home, writes=False) as tracker:
                system = open_run(self.home, tracker)
        after = take_out(self.prepared, left, lambda name: changes.new(f"{PREPARED}/{name}"))
        if isinstance(system, KeepsPeople):
            system.without(left, after, users, changes)
        if not finished:
            taken.begun = [name for name in stages if name != "data"]
            for name in taken.begun:
                changes.remove(name)
        for folder in sorted(self.home.glob("evaluate*")):
            if folder.name not in changes.removed:
                self._keep_results(folder, left, users, changes)
        taken.made += self._keep_dumps(left, changes)
        known = Forgotten.read(self.home / FORGOTTEN) or Forgotten.new()
        write_json(changes.new(FORGOTTEN), known.adding(users, sessions).to_json())
        _seal(self.home, [name for name in stages if name not in changes.removed], changes)
        taken.trained = [
            name for name, path in stages.items()
            if name not in changes.removed
            and ((path / "params").is_dir() or (path / "checkpoints").is_dir())
        ]  # fmt: skip
        taken.made += [str(path.parent) for path in sorted(self.home.rglob(SERVE))]
        taken.made += _naming(self.home, [name for _, name in who])
        again = read_cost(self.home / "evaluate")["commands"].get("run", "") if finished else ""
        before = ""
        if (self.home / BEFORE).is_dir():  # else a run would begin with its parameters
            taken.trained.append(BEFORE)
            before = f"rm -r {self.home / BEFORE}, then "
        taken.command = (
            f"{before}{again or 'the command of the run with'} --data=as-prepared --stale=rerun"
        )

    def _keep_results(
        self, folder: Path, left: Left, users: Sequence[str], changes: Changes
    ) -> None:
        """Write results and report anew without the examples that show one of them."""
        if not (folder / RESULTS).is_file():
            return
        results = read_results(folder / RESULTS)
        split = str(results["dataset"].get("split", ""))
        keep = left.sessions.get(split, np.zeros(0, bool))
        if shown := results.get("examples"):
            results["examples"] = _keep_examples(shown, keep)
        if "helped" in results:
            results["helped"] = kept_helped(results["helped"], keep)
        if (ratings := self.dataset.ratings) is not None and (pairs := results.get("pairs")):
            rows, items = ratings.items[~left.rows], self.dataset.items
            names = {name for row in rows for name in (items.titles[row], items.ids[row])}
            results["pairs"] = _keep_pairs(pairs, names, users)
        # write_results wants the names of the files in one folder.
        place = changes.new(f"{folder.name}/{RESULTS}").parent
        write_results(place, results, read_cost(folder))
        changes.new(f"{folder.name}/cost.json")
        shown_items = pictures_of(self.dataset.items, results)
        write_report(
            results, changes.new(f"{folder.name}/{REPORT}"), read_cost(folder), shown_items
        )
        if (folder / UNITS).is_file() and len(keep):
            asked = ask(self.dataset, split)
            kept = keep_units(read_units(folder / UNITS), asked, keep)
            write_units(changes.new(f"{folder.name}/{UNITS}"), kept)

    def _keep_dumps(self, left: Left, changes: Changes) -> list[str]:
        """Write dumps inside the workdir anew; return those of which nobody knows the split."""
        if not any(map(len, self.dataset.splits.values())):
            return []
        found = [path for path in sorted(self.home.rglob("*.npz")) if is_dump(path)]
        asked = {name: ask(self.dataset, name) for name in READ_SPLITS} if found else {}
        unknown = []
        for path in found:
            name = path.relative_to(self.home).as_posix()
            if split := split_of(path, asked):
                keep_dump(path, changes.new(name), left.sessions[split])
            else:
                unknown.append(str(path))
        return unknown


def _keep_examples(shown: dict[str, Any], keep: np.ndarray) -> dict[str, Any]:
    """Return example sessions without those that go."""
    number = np.cumsum(keep) - 1
    sessions = [
        {**each, "session": int(number[each["session"]])}
        for each in shown.get("sessions", ()) if keep[each["session"]]
    ]  # fmt: skip
    if not sessions:
        return {}
    names = {
        item
        for each in sessions
        for item in [*each["past"], each["next"]["item"], *(r["item"] for r in each["recommended"])]
    }
    facts = {item: fact for item, fact in shown["items"].items() if item in names}
    return {**shown, "sessions": sessions, "items": facts}


def _keep_pairs(pairs: dict[str, Any], items: set[str], users: Sequence[str]) -> dict[str, Any]:
    """Return what is shown of single rows without items (titles and ids) and users of those."""

    def stays(shown: str) -> bool:
        of_item = any(shown.startswith((f"{name} (", f"item {name} after")) for name in items)
        return not of_item and not any(shown.startswith(f"user {user} after") for user in users)

    kept = {**pairs, "samples": [each for each in pairs["samples"] if stays(each["item"])]}
    if why := pairs.get("why"):
        few = [each for each in why["examples"] if each["item"] not in items]
        kept["why"] = {**why, "examples": few}
    return kept


def _naming(home: Path, names: Sequence[str]) -> list[str]:
    """Return the logs in a folder in whose messages somebody is named."""
    quoted = [repr(name).encode() for name in names]
    logs = [path for kind in ("*.log", "*.txt") for path in sorted(home.rglob(kind))]
    return [str(path) for path in logs if any(name in path.read_bytes() for name in quoted)]


def _seal(home: Path, stages: Sequence[str], changes: Changes) -> None:
    """Write the checksums of what is new into stage.json of the stages that it is of."""
    for stage in stages:
        facts = read_stage(home / stage)
        new = [name for name in changes.names if name.startswith(f"{stage}/")]
        if facts is None or not facts["done"] or not new:
            continue
        sums = dict(facts["files"])
        for name in new:
            own = name.removeprefix(f"{stage}/")
            if own.split("/")[0] in UNSEALED:
                continue
            path = changes.current(name)
            sums = {each: s for each, s in sums.items() if f"{each}/".find(f"{own}/") != 0}
            inside = checksums(path if path.is_dir() else path.parent)
            if path.is_dir():
                sums |= {f"{own}/{each}": s for each, s in inside.items()}
            else:
                sums[own] = inside[path.name]
        write_json(changes.new(f"{stage}/{STAGE}"), {**facts, "files": sums})
