"""An IRS among others: active while a majority of PoPs has granted it an epoch.

    STANDBY ── a majority of PoPs is free ──▶ CAMPAIGN ── granted by a majority ──▶ ACTIVE
       ▲                                          │ refused, or CAMPAIGN_S             │
       └────────── release, wait by chance ───────┴──── the majority is no more ───────┘

A standby looks once a second, and at the end of the leases that it has heard of; where one is given
back, PoPs say so at once. Whoever is to end gives all back (`stand_down`) and asks for none again.
A grant counts from when it was asked for, so it ends here before it does at the PoP, and it is
forgotten before it is given back: two IRSs never count the same PoP at a time. (A machine whose
clock stood still errs until its next renewal; PoPs then refuse what it says.)

The majority is of the PoPs that are known to grant: those that are here, and those that were within
KNOWN_S. PoPs with one IRS alone do not grant, and are no part of this: where there are only such,
the IRS is alone and needs no grant.
"""

import enum
import math
from collections.abc import Callable, Mapping
from typing import Literal

from msgspec import Struct

from edged.media.epochs import (
    EPOCH_LEASE_S,
    EPOCH_MAX,
    UNASKED,
    EpochAnswer,
    EpochAsk,
    IrsMemo,
    Stamp,
)

RENEW_S = 1.0  # Two renewals may be lost.
LOOK_S = 1.0
LOOK_S_MIN = 0.1
MARGIN_S = 0.2  # Of a lease: clocks run at different speeds.
CAMPAIGN_S = 0.6  # A round trip to the farthest PoPs, and some.
WAIT_S_MIN, WAIT_S_MAX = 0.1, 1.0  # After a campaign that was lost: two must not meet for ever.
KNOWN_S = 3600.0  # A PoP that is gone for longer counts no more.
KNOWN_MAX = 1024  # Twice the shards of a network.
ASKS_MAX = 4  # Unanswered, of one PoP; older ones are not counted when they come.


class Standing(enum.StrEnum):
    """What an IRS is among others."""

    ALONE = "alone"  # No PoP has another IRS.
    STANDBY = "standby"
    CAMPAIGN = "campaign"
    ACTIVE = "active"


class Granted(Struct, frozen=True):
    """This PoP takes tables of our epoch from now on, once we are active.

    `begins`: it did not before, and is to be told of drains before its first table.
    """

    pop: str
    begins: bool


class Activated(Struct, frozen=True):
    """A majority has granted us this epoch."""

    epoch: int


class Deactivated(Struct, frozen=True):
    """The majority is no more: nothing is to be pushed."""

    reason: str


class EpochRaised(Struct, frozen=True):
    """We use a higher epoch: what was made under the one before is not to be pushed any more."""

    epoch: int


class MemoSeen(Struct, frozen=True):
    """A PoP shows what another IRS, or an earlier run of ours, has left there."""

    memo: IrsMemo


class MemoMissed(Struct, frozen=True):
    """A PoP that has granted us an epoch has an older memo than we."""

    pop: str


Event = Granted | Activated | Deactivated | EpochRaised | MemoSeen | MemoMissed
Kind = Literal["look", "want", "release"]


class _Asked(Struct):
    kind: Kind
    epoch: int
    at: float


class _Pop(Struct):
    """The session of one PoP that grants."""

    number: int = 0
    asked: dict[int, _Asked] = {}
    granted_until: float = -math.inf
    granted_epoch: int = 0
    answered: bool = False
    busy_until: float = math.inf  # Another has it; unknown before the first answer.
    holder: str = ""  # Where that one is, as this PoP reaches it.
    raised_at: float = -math.inf  # When it last had us use a higher epoch.


class EpochClaim:
    """What one IRS asks of PoPs, and what it may do. `now` is monotonic."""

    def __init__(
        self,
        irs: str,
        epoch: int,
        chance: Callable[[], float],
    ) -> None:
        """`chance`: 0 to 1, of waits."""
        self.irs = irs
        self.epoch = epoch
        self.state = Standing.STANDBY
        self.memo: Stamp = (0, 0)  # Of what we have.
        self.changed_at = -math.inf  # When the state was last another.
        self.activations = 0
        self._chance = chance
        self._pops: dict[str, _Pop] = {}
        self.changes = 0  # Of which PoPs are known.
        self._known: dict[str, float] = {}  # PoPs that grant, by when each was heard last.
        self._asks: list[tuple[str, EpochAsk]] = []
        self._next_at = math.inf  # Of looks and renewals.
        self._wait_until = -math.inf
        self._yield_until = -math.inf  # Unless another has a majority by then.

    @property
    def standing(self) -> Standing:
        """Ours, for people."""
        return self.state if self._pops or self._known else Standing.ALONE

    @property
    def majority(self) -> int:
        """So many PoPs must grant."""
        return len(self._known) // 2 + 1

    @property
    def known(self) -> dict[str, float]:
        """PoPs that grant, by when each was here last; inf: it is."""
        return {pop: math.inf if pop in self._pops else at for pop, at in self._known.items()}

    @property
    def here(self) -> int:
        """How many of these have a session with us."""
        return len(self._pops)

    def holder(self, now: float) -> str:
        """Where another IRS is active, as PoPs reach it; "" where none is known to be."""
        if self._lost(now) < self.majority:
            return ""
        return next((p.holder for p in self._pops.values() if p.holder and now < p.busy_until), "")

    def wait_until(self, at: float) -> None:
        """Begin no campaign before."""
        self._wait_until = max(self._wait_until, at)

    def grants(self, now: float) -> int:
        """How many have granted, by our clock."""
        return sum(now < pop.granted_until for pop in self._pops.values())

    def leads(self, now: float) -> bool:
        """Whether this IRS may plan moves and take an operator's word."""
        if not self._pops and not self._known:
            return True
        return self.state is Standing.ACTIVE and self.grants(now) >= self.majority

    def listeners(self, now: float) -> set[str]:
        """PoPs that grant and take our tables."""
        if not self.leads(now):
            return set()
        return {
            name
            for name, pop in self._pops.items()
            if now < pop.granted_until and pop.granted_epoch == self.epoch
        }

    def take_asks(self) -> list[tuple[str, EpochAsk]]:
        """What is to be sent, to whom."""
        asks, self._asks = self._asks, []
        return asks

    def granted(self, pop: str, now: float) -> bool:
        """Whether a PoP keeps what we leave with it."""
        known = self._pops.get(pop)
        return known is not None and now < known.granted_until

    @property
    def unreleased(self) -> int:
        """How many PoPs have yet to answer that they were given back what they granted."""
        return sum(
            any(asked.kind == "release" for asked in pop.asked.values())
            for pop in self._pops.values()
        )

    # Inputs.

    def stand_down(self, now: float, *, until: float, reason: str) -> list[Event]:
        """Give every grant back for another IRS to be active.

        No campaign begins before `until`, or before another has been active; inf: none at all.
        """
        self._yield_until = max(self._yield_until, until)
        if self.state is Standing.STANDBY:
            return []
        was_active = self.state is Standing.ACTIVE
        self._stand_back(now)
        self._next_at = now + LOOK_S_MIN  # Who has it next is of interest now.
        return [Deactivated(reason)] if was_active else []

    def remember(self, known: Mapping[str, float], now: float) -> None:
        """Count PoPs of an earlier run: how many seconds ago each was here."""
        for pop, ago_s in known.items():
            if ago_s < KNOWN_S and len(self._known) < KNOWN_MAX:
                self._known.setdefault(pop, now - ago_s)

    def joined(self, pop: str, now: float) -> None:
        """A session of a PoP that grants begins; one before it is over."""
        self._pops[pop] = _Pop()
        self._ask(pop, "look" if self.state is Standing.STANDBY else "want", now)
        self._next_at = min(self._next_at, now + LOOK_S)

    def left(self, pop: str, now: float) -> list[Event]:
        """Its session has ended, and with it what it granted."""
        if self._pops.pop(pop, None) is None:
            return []
        if pop in self._known:
            self._known[pop] = now
        return self._judge(now)

    def forget(self, pop: str) -> None:
        """A PoP is here that does not grant: it has no IRS but this one."""
        self.changes += self._known.pop(pop, None) is not None

    def raise_epoch(self, epoch: int, now: float) -> list[Event]:
        """Use at least this epoch from now on."""
        if epoch <= self.epoch:
            return []
        self.epoch = min(epoch, EPOCH_MAX)
        if self.state is not Standing.STANDBY:
            for pop in self._pops:
                self._ask(pop, "want", now)
        return [EpochRaised(self.epoch)]

    def answered(self, name: str, answer: EpochAnswer, now: float) -> list[Event]:
        """A PoP answers."""
        pop = self._pops.get(name)
        if pop is None:
            return []
        if answer.number == UNASKED:
            return self._given_back(pop, now)
        asked = pop.asked.pop(answer.number, None)
        if asked is None:
            return []  # Released since, or too old.
        events: list[Event] = []
        pop.answered = True
        self._know(name, pop, now)
        if answer.memo is not None and answer.memo.stamp > self.memo:
            self.memo = answer.memo.stamp
            events.append(MemoSeen(answer.memo))
        if answer.granted:
            if answer.begins or pop.granted_epoch != asked.epoch:
                events.append(Granted(name, answer.begins))
            pop.granted_until = max(pop.granted_until, asked.at + EPOCH_LEASE_S - MARGIN_S)
            pop.granted_epoch = asked.epoch
            pop.busy_until = -math.inf
            if answer.stamp < self.memo:
                events.append(MemoMissed(name))
        else:
            self._note_holder(pop, answer, now)
            if asked.kind == "want":
                pop.granted_until = -math.inf
                higher = answer.epoch >= self.epoch and asked.epoch <= answer.epoch
                if not answer.left_s and higher and now - pop.raised_at >= RENEW_S:
                    pop.raised_at = now  # A faulty PoP must not have us do so all the time.
                    events += self.raise_epoch(answer.epoch + 1, now)
        return events + self._judge(now)

    def _given_back(self, pop: _Pop, now: float) -> list[Event]:
        if pop.answered:
            pop.busy_until = -math.inf
        return self._judge(now)

    def _note_holder(self, pop: _Pop, answer: EpochAnswer, now: float) -> None:
        pop.busy_until = now + answer.left_s if answer.left_s else -math.inf
        pop.holder = answer.holder
        if self._yield_until < math.inf and self._lost(now) >= self.majority:
            self._yield_until = -math.inf  # Another is active, as was wanted.

    def next_timeout(self) -> float:
        """When `handle_timeout` has something to do."""
        times = [self._next_at]
        times += [at + KNOWN_S for pop, at in self._known.items() if pop not in self._pops]
        if self.state is Standing.CAMPAIGN:
            times.append(self.changed_at + CAMPAIGN_S)
        elif self.state is Standing.ACTIVE:
            times.append(self._majority_ends_at())
        else:
            times.append(self._campaign_at())
        return min(times)

    def handle_timeout(self, now: float) -> list[Event]:
        """Look, renew, begin or give up, as it is time for."""
        for pop in [pop for pop, at in self.known.items() if now >= at + KNOWN_S]:
            del self._known[pop]
            self.changes += 1
        if now >= self._next_at:
            kind: Kind = "look" if self.state is Standing.STANDBY else "want"
            for pop in self._pops:
                self._ask(pop, kind, now)
            self._next_at = now + (LOOK_S if kind == "look" else RENEW_S)
            self._next_at = self._next_at if self._pops else math.inf
        return self._judge(now)

    # What follows.

    def _judge(self, now: float) -> list[Event]:
        grants = self.grants(now)
        match self.state:
            case Standing.ACTIVE if grants < self.majority:
                reason = f"{grants} of {len(self._known)} pops grant an epoch, not {self.majority}"
                self._stand_back(now)
                return [Deactivated(reason)]
            case Standing.CAMPAIGN if self._known and grants >= self.majority:
                self._become(Standing.ACTIVE, now)
                self.activations += 1
                self._next_at = min(self._next_at, now + RENEW_S)
                return [Activated(self.epoch)]
            case Standing.CAMPAIGN:
                hopeless = len(self._pops) - self._lost(now) < self.majority
                if hopeless or now >= self.changed_at + CAMPAIGN_S:
                    self._stand_back(now)
            case Standing.STANDBY if self._campaign_at() <= now:
                self._become(Standing.CAMPAIGN, now)
                for pop in self._pops:
                    self._ask(pop, "want", now)
                self._next_at = now + RENEW_S
        return []

    def _know(self, name: str, pop: _Pop, now: float) -> None:
        """Count a PoP, unless it is new and has yet to answer whether it grants."""
        if name not in self._known:
            if any(asked.kind == "want" for asked in pop.asked.values()):
                return
            if len(self._known) >= KNOWN_MAX:
                gone = min(self._known.keys() - self._pops.keys(), key=self._known.__getitem__)
                del self._known[gone]
            self.changes += 1
        self._known[name] = now

    def _stand_back(self, now: float) -> None:
        """Give back what was granted: it is no majority, and may make one for another."""
        if self.state is Standing.CAMPAIGN:
            wait_s = WAIT_S_MIN + (WAIT_S_MAX - WAIT_S_MIN) * self._chance()
            self._wait_until = now + wait_s
        self._become(Standing.STANDBY, now)
        for name, pop in self._pops.items():
            pop.granted_until = -math.inf
            pop.asked.clear()  # A grant that is on its way was given back as well.
            pop.answered = False  # What was heard may be old: we may have been frozen.
            self._ask(name, "release", now)
        self._next_at = max(now + LOOK_S_MIN, self._wait_until)

    def _become(self, state: Standing, now: float) -> None:
        self.state, self.changed_at = state, now

    def _ask(self, name: str, kind: Kind, now: float) -> None:
        pop = self._pops[name]
        pop.number += 1
        pop.asked[pop.number] = _Asked(kind, self.epoch, now)
        while len(pop.asked) > ASKS_MAX:
            del pop.asked[next(iter(pop.asked))]
        ask = EpochAsk(irs=self.irs, number=pop.number, kind=kind, epoch=self.epoch, memo=self.memo)
        self._asks.append((name, ask))

    def _lost(self, now: float) -> int:
        """How many PoPs have said that another has them."""
        return sum(now < pop.busy_until for pop in self._pops.values() if pop.answered)

    def _campaign_at(self) -> float:
        return max(self._majority_free_at(), self._wait_until, self._yield_until)

    def _majority_free_at(self) -> float:
        """When, as far as was heard, a majority is free of others' grants; those new count, too."""
        times = sorted(pop.busy_until for pop in self._pops.values() if pop.answered)
        majority = len(self._known.keys() | self._pops.keys()) // 2 + 1
        return times[majority - 1] if len(times) >= majority else math.inf

    def _majority_ends_at(self) -> float:
        times = sorted((pop.granted_until for pop in self._pops.values()), reverse=True)
        return times[self.majority - 1] if len(times) >= self.majority else -math.inf
