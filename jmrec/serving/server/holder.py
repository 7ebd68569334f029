"""The artefact that answers, and the one that takes its place when its folder is written anew."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jmrec.errors import UserError
from jmrec.files import MANIFEST
from jmrec.serving.folder import PAIRS, kind_of
from jmrec.serving.served import Served, load
from jmrec.serving.served_pairs import ServedPairs, load_pairs

SERVED = "what is served"
"""Its name in messages: the folder's is not told over the wire."""
TRIES = 3
"""An artefact that is replaced while it is read is read again, so often."""


@dataclass(frozen=True)
class Held:
    """What answers.

    Attributes:
      served: The artefact, warm: it has answered before.
      version: Twelve digits that differ where a file of it does.
      mark: Of the files that it was read from.
    """

    served: Served | ServedPairs
    version: str
    mark: tuple[Any, ...]


class Holder:
    """One artefact of a folder at a time.

    Args:
      folder: What `jmrec export` wrote.
      policy: A policy file in place of the artefact's lists, or None.
      verdicts: A file of verdicts for an artefact of pairs, or None.
      warn: Told of a renewed artefact that can not be read.

    Raises:
      UserError: There is none, it is damaged, or a file does not fit.
    """

    def __init__(
        self, folder: Path, policy: Path | None, verdicts: Path | None, warn: Callable[[str], None]
    ) -> None:
        self.folder, self.policy, self.verdicts = folder, policy, verdicts
        self._warn = warn
        self.held = self._load()
        self._refused: tuple[Any, ...] | None = None

    def renew(self) -> bool:
        """Take over what was written since; return whether that was so.

        Whoever answers meanwhile answers from the older one. What can not be read is told once,
        and the older one stays.
        """
        mark = self._mark()
        if mark in (self.held.mark, self._refused) or None in mark:
            return False
        try:
            self.held = self._load()
        except UserError as error:
            if self._mark() == mark:  # whole and wrong, not half written
                self._refused = mark
                self._warn(f"the renewed artefact is not served, the older one is: {error}")
            return False
        return True

    def _mark(self) -> tuple[Any, ...]:
        """Return what changes with the files; None for one that is missing."""

        def of(path: Path) -> Any:
            try:
                found = path.stat()
            except OSError:
                return None
            return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size

        own = [self.folder / MANIFEST, self.policy, self.verdicts]
        return tuple(of(path) for path in own if path is not None)

    def _load(self) -> Held:
        for _ in range(TRIES):
            mark = self._mark()
            try:
                served = self._read()
                sums = (self.folder / MANIFEST).read_bytes()
            except (UserError, OSError):
                if self._mark() == mark:
                    raise
                continue
            if self._mark() == mark:
                served.where = SERVED
                asked = served.ids[:1] if isinstance(served, Served) else ""
                for count in (1, 2):  # one goes alone, several in a block: both are compiled now
                    served.recommend_batch([asked] * count)
                return Held(served, hashlib.sha256(sums).hexdigest()[:12], mark)
        raise UserError(f"{self.folder} changes while it is read; start again when it is written.")

    def _read(self) -> Served | ServedPairs:
        if kind_of(self.folder) == PAIRS:
            return load_pairs(self.folder, self.policy, self.verdicts)
        if self.verdicts is not None:
            raise UserError(f"{self.folder} answers for sessions, of which verdicts say nothing.")
        return load(self.folder, self.policy)
