"""A PoP grants one IRS at a time the right to push it tables: an epoch, for a lease.

    nobody ── want(epoch above all before) ──▶ granted ── want, in time ──▶ granted, renewed
      ▲                                          │
      └──────────── release, or EPOCH_LEASE_S ───┘      others' wants are refused meanwhile

An epoch is only ever one IRS's at a PoP: what another has had is refused. Tables and commands are
taken from the session alone by which the epoch was granted. An IRS that never asks is one from
before epochs were granted: it is believed while nobody else has a grant. When a lease is given back
before its end, the others that ask are told at once.
"""

import math
from collections.abc import Iterable

from msgspec import structs

from edged.media.epochs import EPOCH_LEASE_S, UNASKED, DrainNote, EpochAnswer, EpochAsk, IrsMemo


class EpochGrants:
    """What one PoP has granted. `session` is an address of IRS; `now` is monotonic."""

    def __init__(self) -> None:
        self.epoch = 0  # The highest that was granted, or came with a table.
        self.holder = ""  # The session by which it was granted; "" when that has ended.
        self._owner = ""  # The IRS that has, or had, this epoch; "" when that is not known.
        self._irs = ""  # The IRS that has the lease.
        self._until = -math.inf
        self._askers: set[str] = set()  # Sessions of IRSs that know that they must ask.
        self._given_back = ""  # By which session, and nobody has been told yet.
        self._memo = IrsMemo()
        self._memo_at = -math.inf

    def answer(self, ask: EpochAsk, session: str, now: float) -> EpochAnswer:
        """Grant what is asked, or say why not."""
        self._askers.add(session)
        held = now < self._until
        others = held and self._irs != ask.irs
        granted = begins = False
        if ask.kind == "want":
            mine = ask.irs == self._owner and ask.epoch == self.epoch
            granted = not others and (mine or ask.epoch > self.epoch)
            begins = granted and not (held and self.holder == session)
            if granted:
                self.epoch, self._owner = ask.epoch, ask.irs
                self._irs, self.holder = ask.irs, session
                self._until = now + EPOCH_LEASE_S
        elif ask.kind == "release" and held and not others:
            self._until = -math.inf
            self._given_back = session
        stamp = self._memo.stamp
        return EpochAnswer(
            number=ask.number,
            granted=granted,
            begins=begins,
            epoch=self.epoch,
            left_s=self._until - now if others else 0.0,
            holder=self.holder if others else "",
            stamp=stamp,
            memo=self._memo_now(now) if stamp > ask.memo else None,
        )

    def take_notices(self, now: float) -> list[tuple[str, EpochAnswer]]:
        """Which sessions are to be told what, when a lease was given back; each is told once."""
        by, self._given_back = self._given_back, ""
        if not by or now < self._until:
            return []
        notice = EpochAnswer(
            number=UNASKED, granted=False, epoch=self.epoch, stamp=self._memo.stamp
        )
        return [(session, notice) for session in sorted(self._askers - {by})]

    def saw(self, epoch: int) -> None:
        """A table of this epoch is in force."""
        if epoch > self.epoch:
            self.epoch, self._owner = epoch, ""

    def why_not(self, session: str, now: float, epoch: int | None = None) -> str:
        """Why nothing is taken from a session, or no table of this epoch; "" if it is."""
        held = now < self._until
        if not held and session not in self._askers:
            return ""
        if not held or self.holder != session:
            whose = f"{self.holder or 'another irs'} has it" if held else "nobody has it now"
            return f"no epoch is granted to this irs: {whose}"
        if epoch is not None and epoch != self.epoch:
            return f"epoch {epoch} is not granted, {self.epoch} is"
        return ""

    def active(self, now: float) -> str:
        """The session that has the grant; "" when nobody has, or it has ended."""
        return self.holder if now < self._until else ""

    def keep(self, memo: IrsMemo, now: float) -> None:
        """Keep what the active IRS leaves for the others, if it is newer."""
        if memo.stamp > self._memo.stamp:
            self._memo, self._memo_at = memo, now

    def session_ended(self, session: str) -> None:
        """An IRS is gone, or only its session: its grant lasts as long as it was given."""
        self._askers.discard(session)
        if self.holder == session:
            self.holder = ""

    def _memo_now(self, now: float) -> IrsMemo:
        return structs.replace(
            self._memo, drains=tuple(_age(self._memo.drains, max(0.0, now - self._memo_at)))
        )


def _age(notes: Iterable[DrainNote], by_s: float) -> Iterable[DrainNote]:
    return (structs.replace(note, left_s=max(0.0, note.left_s - by_s)) for note in notes)
