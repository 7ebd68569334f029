"""Who is taken out of a data set, and what is left of it: users and sessions that were forgotten.

Everybody else keeps the split, the row and the code that they had: a model that was trained before
still reads them as it did.
"""

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from jmrec.data.folder import Raw
from jmrec.data.schema import Dataset, Ratings, Sessions
from jmrec.data.sessions import take
from jmrec.errors import UserError
from jmrec.files import read_json

USER, SESSION = "user", "session"
Person = tuple[str, str]
"""`USER` or `SESSION`, and an id."""


@dataclass(frozen=True)
class Forgotten:
    """Keyed hashes of the ids of who was forgotten, so that they are left out next time too.

    Attributes:
      key: Hexadecimal, drawn for this list.
      codes: HMAC-SHA256 of "user:ID" and "session:ID", hexadecimal.
    """

    key: str
    codes: frozenset[str] = frozenset()

    @classmethod
    def read(cls, path: Path) -> "Forgotten | None":
        """Return what `to_json` gave, from a file; None where there is none.

        Raises:
          UserError: It is damaged.
        """
        if not path.is_file():
            return None
        found = read_json(path)
        try:
            return cls(str(found["key"]), frozenset(map(str, found["codes"])))
        except (TypeError, KeyError):
            raise UserError(
                f"{path} is damaged: nobody can tell who was forgotten; put a copy of it back, or "
                "delete it and run jmrec forget again."
            ) from None

    @classmethod
    def new(cls) -> "Forgotten":
        """Return an empty list with a key of its own."""
        return cls(secrets.token_hex(32))

    def to_json(self) -> dict[str, object]:
        """Return the list as plain values; it names nobody."""
        return {"key": self.key, "codes": sorted(self.codes)}

    def holds(self, kind: str, name: str) -> bool:
        """Whether a `USER` or a `SESSION` is in the list.

        Example:
          >>> some = Forgotten("00").adding(["ann"], [])
          >>> some.holds(USER, "ann"), some.holds(SESSION, "ann")
          (True, False)
        """
        return self._code(kind, name) in self.codes

    def adding(self, users: Collection[str], sessions: Collection[str]) -> "Forgotten":
        """Return the list with more users and sessions."""
        more = {self._code(USER, each) for each in users}
        more |= {self._code(SESSION, each) for each in sessions}
        return replace(self, codes=self.codes | more)

    def among(self, raw: Raw, dataset: Dataset) -> tuple[list[str], list[str]]:
        """Return the users of a folder and the sessions of its data set that are in the list."""
        names = [] if raw.user is None else raw.user[1]
        ids = dict.fromkeys(each for part in dataset.splits.values() for each in part.ids)
        return (
            [each for each in names if self.holds(USER, each)],
            [each for each in ids if self.holds(SESSION, each)],
        )

    def _code(self, kind: str, name: str) -> str:
        text = f"{kind}:{name}".encode()
        return hmac.new(bytes.fromhex(self.key), text, hashlib.sha256).hexdigest()


def find(
    dataset: Dataset, users: Collection[str], sessions: Collection[str], raw: Raw | None = None
) -> tuple[set[int], set[str], list[Person]]:
    """Find users and sessions in a data set.

    Args:
      dataset: The data set. It keeps the ids of users where it has ratings, or where sessions are
        named by them; else only the folder knows them.
      users: User ids.
      sessions: Session ids.
      raw: The folder that it was made of, where it is at hand.

    Returns:
      The codes of the users; the ids of all sessions, those asked for and those in which a row is
      of one of the users; and who of them is not in the data.
    """
    parts = list(dataset.splits.values())
    every = {each for part in parts for each in part.ids}
    codes: set[int] = set()
    ids = every.intersection(sessions)
    missing = [(SESSION, name) for name in sessions if name not in every]
    for name in users:
        code = _named(dataset, name)
        own = named_by(dataset, name)
        found = set() if raw is None or raw.session is None else _in_folder(raw, name)
        if code is None:
            code = _code(parts, own) if own else _code(parts, _alone(raw, name))
        if code is None and not own and not (found & every):
            missing.append((USER, name))
        codes |= set() if code is None else {code}
        ids |= own | (found & every)
    return codes, ids, missing


def _named(dataset: Dataset, user: str) -> int | None:
    """Return a user's code where the data set says it."""
    names = [] if dataset.ratings is None else dataset.ratings.user_ids
    return names.index(user) if user and user in names else None


def named_by(dataset: Dataset, user: str) -> set[str]:
    """Return the ids of sessions that are named by a user: "ann", or "ann:0", "ann:1", ..."""
    parts = list(dataset.splits.values())
    named = re.compile(re.escape(user) + r"(:\d+)?")
    own = {each for part in parts for each in part.ids if named.fullmatch(each)}
    codes = {int(c) for part in parts for each, c in zip(part.ids, part.users) if each in own}
    # Sessions with ids of their own may look like it; then the user has others too.
    others = {
        each for part in parts for each, c in zip(part.ids, part.users) if int(c) in codes
    }  # fmt: skip
    return own if len(codes) == 1 and codes != {-1} and others == own else set()


def _code(parts: Sequence[Sessions], ids: Collection[str]) -> int | None:
    """Return the only code of a user that some sessions have."""
    found = {int(c) for part in parts for each, c in zip(part.ids, part.users) if each in ids}
    return found.pop() if len(found) == 1 and found != {-1} else None


def _in_folder(raw: Raw, user: str) -> set[str]:
    """Return the ids of the sessions of a folder in which a row is of a user."""
    if raw.user is None or raw.session is None or user not in raw.user[1]:
        return set()
    own = raw.user[0] == raw.user[1].index(user)
    return {raw.session[1][code] for code in np.unique(raw.session[0][own])}


def _alone(raw: Raw | None, user: str) -> set[str]:
    """Return those of `_in_folder` in which no row is of another user."""
    if raw is None or raw.user is None or raw.session is None or user not in raw.user[1]:
        return set()
    other = (raw.user[0] >= 0) & (raw.user[0] != raw.user[1].index(user))
    shared = {raw.session[1][code] for code in np.unique(raw.session[0][other])}
    return _in_folder(raw, user) - shared


@dataclass(frozen=True)
class Left:
    """What stays of a data set.

    Attributes:
      sessions: Split -> bool [S].
      rows: Bool [N], rows of the ratings; empty where there are none.
      shared: How many of the rows that go can not be told from rows of a session that goes: they
        have no user, and stand at the same item and time.
    """

    sessions: dict[str, np.ndarray]
    rows: np.ndarray
    shared: int = 0

    def events(self, split: str, dataset: Dataset) -> np.ndarray:
        """Return which events of a split stay, bool [N]."""
        return np.repeat(self.sessions[split], dataset.splits[split].lengths)


def left_by(dataset: Dataset, codes: Collection[int], ids: Collection[str]) -> Left:
    """Return what stays where users (by codes) and sessions (by ids) go."""
    sessions, gone = {}, []
    for name, part in dataset.splits.items():
        away = np.isin(part.users, list(codes)) & (part.users >= 0)
        away |= np.array([each in ids for each in part.ids], bool)
        sessions[name] = ~away
        gone.append(take(part, np.flatnonzero(away)))
    ratings = dataset.ratings
    if ratings is None:
        return Left(sessions, np.zeros(0, bool))
    own = np.isin(ratings.users, list(codes)) & (ratings.users >= 0)
    # Rows do not say their session: those of guests and of sessions alone are found by what is in
    # them.
    events = {
        (int(item), float(time), int(who))
        for part in gone
        for item, time, user in zip(part.items, part.times, np.repeat(part.users, part.lengths))
        for who in (user, -1)
    }
    rows = zip(ratings.items.tolist(), ratings.times.tolist(), ratings.users.tolist())
    same = np.array([each in events for each in rows], bool)
    count = sum(len(part.items) for part in gone)
    return Left(sessions, ~(own | same), max(0, int((same & ~own).sum()) - count))


def without(dataset: Dataset, left: Left) -> Dataset:
    """Return a data set with what stays of it.

    Items keep their rows in tables of ids, users their codes. The fingerprint says of which data it
    is made, and what is left: see `whole`.
    """
    splits = {
        name: take(part, np.flatnonzero(left.sessions[name]))
        for name, part in dataset.splits.items()
    }
    ratings = dataset.ratings
    if ratings is not None:
        ratings = _rows(ratings, left.rows) if left.rows.any() else None
    top = int(dataset.splits["train"].events.max(initial=0))
    kept = replace(
        dataset, splits=splits, ratings=ratings, id_items=dataset.id_items,
        event_top=max(dataset.event_top, top),
    )  # fmt: skip
    if all(mask.all() for mask in (*left.sessions.values(), left.rows)):
        return dataset
    return replace(kept, fingerprint=f"{whole(dataset.fingerprint)}{_LESS}{_digest(kept)}")


def _rows(ratings: Ratings, keep: np.ndarray) -> Ratings:
    rows = np.flatnonzero(keep)
    have = set(ratings.users[rows].tolist())
    arrays = {
        name: getattr(ratings, name)[rows]
        for name in ("items", "users", "times", "labels", "ratings")
    }
    return replace(
        ratings, **arrays, reviews=[ratings.reviews[row] for row in rows],
        user_ids=[name if code in have else "" for code, name in enumerate(ratings.user_ids)],
    )  # fmt: skip


_LESS = "-"


def whole(fingerprint: str) -> str:
    """Return the fingerprint that a data set had before anybody was taken out of it.

    Example:
      >>> whole("5c1e-77ab"), whole("5c1e")
      ('5c1e', '5c1e')
    """
    return fingerprint.split(_LESS)[0]


def _digest(dataset: Dataset) -> str:
    """Return a short hash of who is left."""
    digest = hashlib.sha256()
    tables: list[Sessions | Ratings] = [*dataset.splits.values()]
    tables += [] if dataset.ratings is None else [dataset.ratings]
    for table in tables:
        for value in vars(table).values():
            data = value.tobytes() if isinstance(value, np.ndarray) else json.dumps(value).encode()
            digest.update(f"{len(data)}:".encode())
            digest.update(data)
    return digest.hexdigest()[:16]
