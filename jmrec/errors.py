"""What a user reads when something is wrong with the input: one sentence, exit code 2."""

import contextlib
import errno
import os
from collections.abc import Iterator


class UserError(Exception):
    """An error that the user can mend.

    The message is one sentence that says what is wrong (naming file and row where there is one)
    and what to do. ``jmrec.main`` prints it without a traceback and exits with code 2.

    Example:
      >>> str(UserError("items.csv, row 7: item_id is empty; give every item an id."))
      'items.csv, row 7: item_id is empty; give every item an id.'
    """


class SettingError(UserError, ValueError):
    """A setting that makes no sense: for callers of the library a ValueError like any other.

    Example:
      >>> issubclass(SettingError, ValueError)
      True
    """


BAD_INPUT, INTERRUPTED = 2, 130
"""The exit codes of a UserError, and of the keyboard."""

REQUEUE = 75
"""The exit code (``EX_TEMPFAIL``) on which launchers start the same command again."""


class Preempted(BaseException):
    """Raised after a SIGTERM, once the state is saved, or when other processes are missing.

    ``jmrec.main`` turns it into the exit code `REQUEUE`. Like
    KeyboardInterrupt it is no Exception: whoever catches those must not take it for a failure.
    """


class Interrupted(KeyboardInterrupt):
    """Raised after a Ctrl-C during a fit, once the state is saved; its exit code is 130."""


@contextlib.contextmanager
def no_panic(sentence: str) -> Iterator[None]:
    """Turn the panic of a library in Rust, which is no Exception, into a UserError.

    Args:
      sentence: What is said of it.

    Raises:
      UserError: The block panicked.

    Example:
      >>> with no_panic("it reads well."):
      ...     pass
    """
    try:
        yield
    except BaseException as error:
        # The class has no name in Python: every such library makes one of its own.
        if type(error).__name__ != "PanicException":
            raise
        raise UserError(sentence) from None


REFUSALS = tuple(
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EACCES", "EPERM", "ENOTDIR", "EIO")
)
"""What a system says that can not or may not read or write; nothing of it is damage."""


def refusal(error: BaseException) -> str | None:
    """Return what the system refused, or None where the error is of another kind.

    Args:
      error: Whatever was raised. Libraries in other languages give the system's reason only in
        the words of their own errors, so causes and words are searched.

    Example:
      >>> refusal(OSError(errno.ENOSPC, "No space left on device", "metrics.jsonl"))
      'metrics.jsonl: No space left on device'
      >>> refusal(RuntimeError("write failed [OS error 28: No space left on device]"))
      'No space left on device'
      >>> refusal(ValueError("a wrong shape")) is None
      True
    """
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        if isinstance(each, OSError) and each.errno in REFUSALS:
            where = f"{each.filename}: " if each.filename else ""
            return where + os.strerror(each.errno or 0)
        for code in REFUSALS:
            if os.strerror(code) in str(each):
                return os.strerror(code)
        each = each.__cause__ or each.__context__
    return None


def explain(error: BaseException) -> tuple[int, str] | None:
    """Return the exit code and the sentence for what stopped a command; None for a bug.

    Example:
      >>> explain(UserError("there is no such folder; name another."))
      (2, 'there is no such folder; name another.')
      >>> explain(ValueError("a wrong shape")) is None
      True
    """
    if isinstance(error, UserError):
        return BAD_INPUT, str(error)
    if isinstance(error, Preempted):
        return REQUEUE, f"{error} Start the same command again to go on."
    if isinstance(error, Interrupted):
        return INTERRUPTED, f"{error}."
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, "interrupted; start the same command again to go on."
    reason = refusal(error)
    if reason is None and isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        reason = f"{where}{error.strerror or error}"
    if reason is None:
        return None
    again = "mend that and start the same command again: what was finished is kept."
    return BAD_INPUT, f"{reason}; {again}"
