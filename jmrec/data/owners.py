"""Whose each session is: the user of its first event that has one."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jmrec.data.findings import part_of

Owner = tuple[int, str]
"""A row number and the user in it."""


@dataclass(frozen=True)
class Owners:
    """Sessions and their users; an `Evidence` in parts.

    Attributes:
      several: Session of several users -> the first row with a user, and that user.
      single: The same of those of one user; known where stretches hand it on, and else not looked
        up.
      rows: What it is looked up in: the sessions, the users and the rows of events with a user.
    """

    several: dict[str, Owner]
    single: dict[str, Owner] = field(default_factory=dict)
    rows: tuple[pa.Array, pa.Array, np.ndarray] | None = None

    @classmethod
    def of(cls, session: pa.Array, user: pa.Array, rows: np.ndarray) -> "Owners":
        """Return those of events.

        Args:
          session: N ids.
          user: N ids, "" for a guest.
          rows: int64 [N], their row numbers.
        """
        known = pc.not_equal(user, "")
        session, user, rows = session.filter(known), user.filter(known), rows[np.asarray(known)]
        sessions, users = session.dictionary_encode(), user.dictionary_encode()
        codes, owners = np.asarray(sessions.indices), np.asarray(users.indices)
        first = np.zeros(len(sessions.dictionary), np.int64)
        first[codes[::-1]] = np.arange(len(codes))[::-1]
        many = np.unique(codes[owners != owners[first[codes]]])
        names = sessions.dictionary.take(pa.array(many)).to_pylist()
        at = first[many]
        found = zip(rows[at].tolist(), user.take(pa.array(at)).to_pylist())
        return cls(dict(zip(names, found)), rows=(session, user, rows))

    def others(self, session: pa.Array, user: pa.Array) -> np.ndarray:
        """Return which events (int [K]) have another user than their session's first."""
        if not self.several:
            return np.zeros(0, np.int64)
        names = pa.array(list(self.several), pa.string())
        owners = pa.array([owner for _, owner in self.several.values()], pa.string())
        owner = owners.take(pc.index_in(session, value_set=names))
        other = pc.and_(pc.not_equal(user, ""), pc.not_equal(user, owner))
        return np.flatnonzero(np.asarray(pc.fill_null(other, False)))

    def summed(self) -> "Owners":
        """Return it with every session looked up, and without the rows."""
        if self.rows is None:
            return self
        session, user, rows = self.rows
        owners = zip(rows[::-1].tolist(), user[::-1].to_pylist())
        every = dict(zip(session[::-1].to_pylist(), owners))  # of several the first stays
        return Owners(self.several, {s: o for s, o in every.items() if s not in self.several})

    def merge(self, other: "Owners") -> "Owners":
        """Return whose the sessions of both are."""
        return self.absorb([other])

    def absorb(self, others: "Iterable[Owners]") -> "Owners":
        """Return whose the sessions of all are."""
        several, single = dict(self.several), dict(self.single)
        for other in others:
            for name, owner in chain(other.several.items(), other.single.items()):
                many = name in several or name in other.several
                own = several.pop(name, None) or single.pop(name, None)
                many |= own is not None and own[1] != owner[1]
                (several if many else single)[name] = min(filter(None, (own, owner)))
        return Owners(several, single)

    def parts(self, count: int) -> "list[Owners]":
        """Return it in parts, each with all that is known of its sessions."""
        out = [Owners({}) for _ in range(count)]
        for name, owner in self.several.items():
            out[part_of(name, count)].several[name] = owner
        for name, owner in self.single.items():
            out[part_of(name, count)].single[name] = owner
        return out

    def settled(self) -> "Owners":
        """Return what matters of a part that is whole: sessions of several users."""
        return Owners(self.several)
