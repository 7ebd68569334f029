"""What is set before JAX starts: flags of XLA, and where programs are kept.

Without `FLAG` some versions of JAX multiply wrongly on a CPU. There a product with an operand
that is one number repeated, of which a sum, mean or maximum is taken in the same compiled function
(``(y @ jnp.ones((20, 256))).sum()``), comes out as garbage. XLA hands that pattern to the library
YNN; the flag takes the pattern away from it. XLA reads its flags once, when JAX first uses a
device, so that only a program which starts JAX can set them: jmrec's own programs do, and so
does what `import jmrec` gives; where a module of it is imported by itself it warns.

Compiling takes much of a short run. JAX can keep what it has compiled: jmrec's commands let it do
so in the user's cache folder, of which JAX drops the oldest beyond a size.
"""

import hashlib
import os
import platform
import sys
import warnings
from collections.abc import MutableMapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from jmrec.errors import UserError

FLAG = "--xla_cpu_experimental_ynn_fusion_type"
FAULTY = ("0.10.2", "0.11.0", "0.11.1", "0.11.2", "0.12.0", "0.12.0.1")
"""The versions of jaxlib that were tried: they have the fault and know the flag. XLA ends a process
that names a flag which it does not know, so that others are left alone."""
DETERMINISTIC = "--xla_gpu_deterministic_ops"
"""With it a GPU adds in one order, whatever ran before: the same program ends in the same bits."""


def set_flags(environ: MutableMapping[str, str] | None = None) -> None:
    """Add the flag to ``XLA_FLAGS`` where jaxlib needs it; child processes inherit it.

    To be called before JAX starts. A setting of the flag that is there already stays, and so does
    the name of a file of flags, which ``XLA_FLAGS`` may be too.

    Args:
      environ: What is changed; the process's own environment where None.

    Example:
      >>> mine = {"XLA_FLAGS": f"--xla_dump_to=dump {FLAG}=2"}
      >>> set_flags(mine)
      >>> mine["XLA_FLAGS"]
      '--xla_dump_to=dump --xla_cpu_experimental_ynn_fusion_type=2'
    """
    environ = os.environ if environ is None else environ
    flags = environ.get("XLA_FLAGS", "").strip()
    if _is_missing(flags) and (not flags or flags.startswith("-")):
        environ["XLA_FLAGS"] = f"{flags} {FLAG}=".strip()


def set_up() -> None:
    """Set what a process of jmrec's needs before JAX starts; child processes inherit it.

    The command line does this first, and so does what runs or opens something from Python. Where
    JAX has started a device it is too late for flags: then who lacks them is warned as ever.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if not has_started():
        set_flags()
        set_cache()
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # Grain reads absl's flags


def set_flags_in_time() -> None:
    """Set the flag for who asks jmrec for what computes before JAX has started a device.

    Where a module of jmrec was imported by itself before, its importer is warned and left alone.
    """
    if "jmrec.types" not in sys.modules and not has_started():
        set_flags()


def has_started() -> bool:
    """Return whether JAX has started a device; it is not started, nor loaded, by this.

    Example:
      >>> isinstance(has_started(), bool)
      True
    """
    bridge = sys.modules.get("jax._src.xla_bridge")  # jax has no public door to it
    return bridge is not None and bool(bridge.backends_are_initialized())


def set_deterministic(environ: MutableMapping[str, str] | None = None) -> None:
    """Let a GPU compute the same bits whenever it runs the same program; a CPU does so anyway.

    To be called before JAX starts a device, as `set_flags`. A setting of the flag that is there
    already stays.

    Args:
      environ: What is changed; the process's own environment where None.

    Raises:
      UserError: It comes too late: JAX runs on a GPU already, without the flag. Or ``XLA_FLAGS``
        names a file of flags, to which nothing can be added here.

    Example:
      >>> mine = {"XLA_FLAGS": "--xla_dump_to=dump"}
      >>> set_deterministic(mine)
      >>> mine["XLA_FLAGS"]
      '--xla_dump_to=dump --xla_gpu_deterministic_ops=true'
    """
    environ = os.environ if environ is None else environ
    flags = environ.get("XLA_FLAGS", "").strip()
    if flags and not flags.startswith("-"):
        if DETERMINISTIC not in _names(_text_of(flags)):
            raise UserError(
                f"deterministic=true needs {DETERMINISTIC}=true, but XLA_FLAGS names a file of "
                f"flags without it; add that line to {flags}."
            )
    elif DETERMINISTIC not in _names(flags):
        if _on_gpu():
            raise UserError(
                "deterministic=true comes too late, for JAX runs on a GPU already; start jmrec run "
                f"as a program of its own, or with XLA_FLAGS={DETERMINISTIC}=true."
            )
        environ["XLA_FLAGS"] = f"{flags} {DETERMINISTIC}=true".strip()


def _on_gpu() -> bool:
    """Return whether JAX has started, on a GPU; it is not started by this."""
    return has_started() and bool(sys.modules["jax"].default_backend() == "gpu")


CACHE_BYTES = 2 << 30
CACHE = {
    "JAX_COMPILATION_CACHE_MAX_SIZE": str(CACHE_BYTES),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.3",
}


def set_cache(environ: MutableMapping[str, str] | None = None) -> None:
    """Let JAX keep what it compiles in the user's cache folder; child processes inherit it.

    To be called before JAX starts. Nothing is changed where ``JAX_COMPILATION_CACHE_DIR`` names
    another folder, where ``JAX_ENABLE_COMPILATION_CACHE`` is false, and where the folder can not be
    made or others may write to it: what lies there is run. It has the name of jaxlib's version and
    of the machine's kind, for a home may be shared.

    Args:
      environ: What is read and changed; the process's own environment where None.
    """
    environ = os.environ if environ is None else environ
    wanted = environ.get("JAX_ENABLE_COMPILATION_CACHE", "true").lower()
    if "JAX_COMPILATION_CACHE_DIR" in environ or wanted in ("0", "false", "no", "off", "f", "n"):
        return
    home = environ.get("XDG_CACHE_HOME") or str(Path(environ.get("HOME", "")) / ".cache")
    folder = Path(home) / "jmrec" / f"jax-{jaxlib()}-{machine()}"
    if not folder.is_absolute():
        return
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        known = folder.stat()
        private = known.st_uid == os.getuid() and not known.st_mode & 0o022
    except OSError:
        return
    if private and os.access(folder, os.W_OK):
        environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
        for name, value in CACHE.items():
            environ.setdefault(name, value)


def machine() -> str:
    """Return a short name of this kind of machine: its processor and what that can do.

    Example:
      >>> len(machine())
      12
    """
    known = [platform.system(), platform.machine(), platform.processor()]
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").partition("\n\n")[0].splitlines()
        known += sorted(
            line for line in lines if line.startswith(("model name", "flags", "Features"))
        )
    except OSError:
        pass  # not Linux
    return hashlib.sha256("\n".join(known).encode()).hexdigest()[:12]


def warn_without_flags() -> None:
    """Warn if jaxlib needs the flag and ``XLA_FLAGS`` does not name it; change nothing.

    Example:
      >>> warn_without_flags()  # the tests set it
    """
    if _is_missing(os.environ.get("XLA_FLAGS", "")):
        warnings.warn(
            f"jaxlib {jaxlib()} computes some matrix products with constants wrongly on "
            f"a CPU; add {FLAG}= to the environment variable XLA_FLAGS before JAX starts, for "
            "example by jmrec.xla.set_flags().",
            RuntimeWarning,
            stacklevel=3,
        )


def _is_missing(flags: str) -> bool:
    return jaxlib() in FAULTY and FLAG not in _names(flags)


def jaxlib() -> str:
    """Return the version of jaxlib, "none" where it is not installed, which its importer says.

    Example:
      >>> jaxlib() == version("jaxlib")
      True
    """
    try:
        return version("jaxlib")
    except PackageNotFoundError:
        return "none"


def _names(flags: str) -> list[str]:
    return [each.split("=")[0] for each in flags.split()]


def _text_of(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""
