"""The flag without which some versions of JAX multiply wrongly on a CPU.

There a product with an operand that is one number repeated, of which a sum, mean or maximum is
taken in the same compiled function (``(y @ jnp.ones((20, 256))).sum()``), comes out as garbage. XLA
hands that pattern to the library YNN; the flag takes the pattern away from it. XLA reads its flags
once, when JAX first uses a device, so that only a program which starts JAX can set them: jmrec's
own programs do, and where jmrec is a library it warns.
"""

import os
import warnings
from collections.abc import MutableMapping
from importlib.metadata import version

FLAG = "--xla_cpu_experimental_ynn_fusion_type"
FAULTY = ("0.10.2", "0.11.0", "0.11.1", "0.11.2", "0.12.0", "0.12.0.1")
"""The versions of jaxlib that were tried: they have the fault and know the flag. XLA ends a process
that names a flag which it does not know, so that others are left alone."""


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


def warn_without_flags() -> None:
    """Warn if jaxlib needs the flag and ``XLA_FLAGS`` does not name it; change nothing.

    Example:
      >>> warn_without_flags()  # the tests set it
    """
    if _is_missing(os.environ.get("XLA_FLAGS", "")):
        warnings.warn(
            f"jaxlib {version('jaxlib')} computes some matrix products with constants wrongly on "
            f"a CPU; add {FLAG}= to the environment variable XLA_FLAGS before JAX starts, for "
            "example by jmrec.xla.set_flags().",
            RuntimeWarning,
            stacklevel=3,
        )


def _is_missing(flags: str) -> bool:
    named = (each.split("=")[0] for each in flags.split())
    return version("jaxlib") in FAULTY and FLAG not in named
