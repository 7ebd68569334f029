"""``jmrec config show``: every setting of an experiment: its value, what it means, who reads it.

What a setting means and may be stands in one place, its line in the table of its system
(`jmrec.systems.registry.SETTINGS`). Who reads it is found by trying: a stage reads a setting whose
change would make the stage another one, so that a workdir would refuse it.
"""

import json
import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from jmrec.config import OVERRIDE, ConfigDict, flatten, load_config, own_of_rows
from jmrec.config.settings import Each, Flag, Kind, Maybe, Number, Whole, Word, find_setting
from jmrec.errors import UserError
from jmrec.systems.registry import CONFIG, NOWHERE, SETTINGS, read_config, system_class
from jmrec.systems.settings import ANY_SYSTEM
from jmrec.systems.stages import identity, stage_hash
from jmrec.systems.work import Work
from jmrec.terminal import say
from jmrec.tracking import Tracker

EXPERIMENT = "experiment"
"""Where the value of a setting is from that was not overridden."""
WIDEST = 100
"""Characters of a line on a wide terminal."""


class Line(TypedDict):
    """A setting.

    Attributes:
      name: Dotted; of a group that takes any field and has none it ends in ``*``.
      value: Plain; absent where only the other configuration has it.
      means: What it decides, a sentence; "" where nothing is known of it.
      may: What it may be, such as "a whole number from 1 to 9"; "" the same.
      source: "experiment", "override", or the file of overrides that has it.
      read_by: The stages that a change would redo, without their seeds; they then change those that
        read them. None where that can not be said on this machine.
      instead: What is read in its place, where each row has it of its own.
      other: Its value in the configuration that this one is compared with, absent where that has
        no such setting.
    """

    name: str
    value: NotRequired[Any]
    means: str
    may: str
    source: str
    read_by: list[str] | None
    instead: NotRequired[list[str]]
    other: NotRequired[Any]


def open_config(spec: str, overrides: Sequence[str] = ()) -> ConfigDict:
    """Return the configuration of an experiment, or of a finished run.

    Args:
      spec: As ``jmrec run`` takes it, or the workdir of a finished run.
      overrides: As ``jmrec run`` takes them; none with a run.

    Raises:
      UserError: There is neither, or a setting is not known.
    """
    if not (Path(spec) / CONFIG).is_file():
        if (Path(spec) / "workdir.lock").is_file():
            raise UserError(
                f"{spec} is a run that has not ended, and keeps its settings when it has; name its "
                "experiment."
            )
        return load_config(spec, list(overrides))
    if overrides:
        raise UserError(
            f"{spec} is a finished run, which can not be overridden; drop the settings."
        )
    return read_config(Path(spec))


def describe(
    config: ConfigDict, sources: Mapping[str, str], other: ConfigDict | None = None, find: str = ""
) -> list[Line]:
    """Return every setting of a configuration, sorted by name.

    Args:
      config: Of an experiment.
      sources: Setting -> where its value is from, of those that were overridden.
      other: Another configuration: only settings that differ from it are returned.
      find: Only those whose name or meaning has this in it.

    Raises:
      UserError: There is no such system.
    """
    known = SETTINGS.get(str(config.get("system")))
    table = ANY_SYSTEM if known is None else known.settings
    flat = _flat(config)
    theirs = flat if other is None else _flat(other)
    found: list[Line] = []
    reads = _Readers(config)
    for name in [*flat, *(each for each in theirs if each not in flat)]:
        has, had = name in flat, name in theirs
        if other is not None and has and had and flat[name] == theirs[name]:
            continue
        setting = find_setting(table, name)
        line: Line = {
            "name": name, "means": setting.means if setting else "",
            "may": setting.kind.says if setting else "",
            "source": sources.get(name, EXPERIMENT), "read_by": None,
        }  # fmt: skip
        if find.lower() not in f"{name} {line['means']}".lower():
            continue
        if has:
            line["value"] = flat[name]
            own = own_of_rows(config, name)
            line["read_by"] = [] if own else reads.of(name, setting.kind if setting else None)
            if own:
                line["instead"] = own
        if other is not None and had:
            line["other"] = theirs[name]
        found.append(line)
    return found


def show(lines: Sequence[Line], others: str = "") -> None:
    """Print settings for people: a line of name and value, and below it what that means.

    Args:
      lines: From `describe`.
      others: What the other configuration is called, where the lines compare with one.
    """
    width = min(shutil.get_terminal_size().columns, WIDEST)
    for line in lines:
        says = [line["means"]] if line["means"] else ["Nothing is known of it."]
        if line["may"]:
            says += [f"{line['may'][0].upper()}{line['may'][1:]}."]
        if line["read_by"]:
            says += [f"Read by {', '.join(line['read_by'])}."]
        elif "instead" in line:
            says += [f"No stage reads it here, but {', '.join(line['instead'])}."]
        elif line["read_by"] is not None:
            says += ["No stage reads it here."]
        elif "value" in line:
            says += ["Who reads it depends on other settings too."]
        if line["source"] == OVERRIDE:
            says += ["From the command line."]
        elif line["source"] != EXPERIMENT:
            says += [f"From {line['source']}."]
        value = _shown(line, "value")
        if others:
            value += f"    (in {others}: {_shown(line, 'other')})"
        say(f"{line['name']} = {value}")
        words = textwrap.TextWrapper(
            width, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False,
            break_long_words=False,
        )  # fmt: skip
        say(words.fill(" ".join(says)))
    if not lines:
        say("nothing differs" if others else "no setting has that in its name or its meaning")


def _shown(line: Line, key: str) -> str:
    if key not in line:
        return "absent"
    value = line[key]  # type: ignore[literal-required]
    return "none" if value is None else json.dumps(value, ensure_ascii=False)


def _flat(config: ConfigDict) -> dict[str, Any]:
    """Return settings by name; a group that is empty as one setting ``group.*``, None."""
    flat = flatten(config)
    return {f"{n}.*" if each == {} else n: None if each == {} else each for n, each in flat.items()}


class _Readers:
    """Finds the stages that read a setting.

    Args:
      config: The experiment's.
    """

    def __init__(self, config: ConfigDict) -> None:
        # Values of any type may be tried.
        self._config = ConfigDict(config.to_dict(), type_safe=False)
        self._stages = self._made()

    def of(self, name: str, kind: Kind | None) -> list[str] | None:
        """Return the stages that another value of a setting would change, None if that is unknown.

        Args:
          name: Dotted.
          kind: What it may be.
        """
        if self._stages is None or kind is None or name.endswith("*"):
            return None
        *groups, last = name.split(".")
        group = self._config
        for each in groups:
            group = group[each]
        value = group[last]
        for wanted in _others(kind, value):
            group[last] = wanted
            made = self._made()
            group[last] = value
            if made is not None:
                both = {**self._stages, **made}
                return [each for each in both if self._stages.get(each) != made.get(each)]
        # No other value goes with the rest: who has it among its settings by this name.
        by_name = [each for each, own in self._stages.items() if any(name in one for one, _ in own)]
        return by_name or None

    def _made(self) -> dict[str, set[tuple[tuple[str, ...], str]]] | None:
        """Return stage, without its seed -> names and hash of its settings; None: it can not be."""
        work = Work(self._config, NOWHERE, Tracker(NOWHERE, quiet=True, writes=False))
        found: dict[str, set[tuple[tuple[str, ...], str]]] = {}
        try:
            for each in system_class(self._config)(work).stages():
                own = identity(each.settings)
                facts = (tuple(own), stage_hash(own, {}))
                found.setdefault(each.group or each.name, set()).add(facts)
        except Exception:  # of values that do not go together, and weights that are not here
            return None
        return found


def _others(kind: Kind, value: Any) -> Iterator[Any]:
    """Yield other values of a kind.

    Example:
      >>> list(_others(Flag(), True)), list(_others(Whole(0, 9), 9))
      ([False], [4, 8])
    """
    match kind:
        case Flag():
            yield not value
        case Whole():
            wanted = (2 * value, value // 2, value + 1, value - 1)  # a width goes with its heads
            yield from (n for n in wanted if kind.least <= n <= kind.most and n != value)
        case Number():
            yield (value + (kind.most if value < kind.most else kind.least)) / 2
        case Word():
            yield from (each for each in kind.options if each != value)
        case Maybe():
            yield from _others(kind.kind, "" if value is None else value)
        case Each():
            inner = list(value)
            first = inner[0] if inner else kind.kind.least if isinstance(kind.kind, Whole) else ""
            yield from ([each, *inner[1:]] for each in _others(kind.kind, first))
        case _:  # a text, or whatever a function reads
            yield from (each for each in ("none", "true", f"{value}x") if each != value)
