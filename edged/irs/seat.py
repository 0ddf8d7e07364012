"""Whether this IRS is the active one, and what it keeps for when it is gone.

When to ask whom for an epoch, `policy.epoch_claim` decides. A standby hears all that PoPs and
origins tell and plans as the active one does; it pushes nothing. What operators asked goes two
ways: into the state file, for this IRS's next start, and as a memo to every PoP that grants us an
epoch, for its successor. PoPs decide who that is, so it hears the memo from the very majority that
makes it active; IRSs need no path to each other. Whoever ends, or is told to stand by, gives its
epochs back, so that its successor need not wait for the leases to end.
"""

import math
import random
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import structlog
import trio
from msgspec import Struct, structs

from edged.errors import EdgedError
from edged.irs.moving import BY_HAND, Moving
from edged.irs.session import drain_readable
from edged.irs.state import Action, IrsState, StateKeeper
from edged.media.epochs import REVISION_MAX, EpochAnswer, IrsMemo, Stamp, is_plausible
from edged.policy.epoch_claim import (
    Activated,
    Deactivated,
    EpochClaim,
    EpochRaised,
    Event,
    Granted,
    MemoMissed,
    MemoSeen,
    Standing,
)
from edged.runtime.metrics import MetricSpec, Sample
from edged.wire.irs_link import IrsLink

SETTLE_S = 2.0  # After a take-over, before streams are moved: what is under way is told by then.
HAND_OVER_S_MAX = 0.5  # For PoPs to answer that they have their grants back, as the process ends.
STAND_BY_S = 3.0  # For another to become active; nobody has by then, and this one goes on.
POPS_SAVED_S = 300.0  # Which PoPs are known is written so often, at least.

METRICS = (
    MetricSpec(name="edged_irs_active", help="Whether this IRS pushes tables: 1, or 0"),
    MetricSpec(name="edged_irs_epoch_grants", help="PoPs that have granted this IRS its epoch"),
    MetricSpec(name="edged_irs_epoch_majority", help="How many must; 0 where it needs none"),
    MetricSpec(name="edged_irs_takeovers_total", help="How often this IRS became the active one"),
)

log = structlog.get_logger("edged.irs")


class SeatSeen(Struct, frozen=True, kw_only=True):
    """What an IRS is among others: `edged irs status`."""

    standing: str  # "alone", "active", "standby", "campaign"
    for_s: float
    epoch: int
    leads: bool
    grants: int
    majority: int  # 0: it needs none.
    pops_known: int  # That grant.
    pops_here: int = 0  # Of these: that are heard here; where it knows who is active, a majority.
    active_at: str = ""  # Where another is active, as PoPs reach it.
    drained: list[str] = []
    state_file: str = ""
    state_problem: str = ""  # Why nothing is kept there.
    actions: list[Action] = []  # What operators asked, the newest first.


class Session(Protocol):
    """What it needs of a PoP's session."""

    link: IrsLink

    def wake(self) -> None:
        """Something is to be sent."""


class Seat:
    """Of one IRS. All but `run` is synchronous."""

    def __init__(
        self,
        sessions: Mapping[str, Session],
        moving: Moving,
        state_file: str,
        *,
        entropy: Callable[[int], bytes],
        now_unix: Callable[[], float],
        granted: Callable[[str], None],
        changed: Callable[[], None],
        warmup_s: float = 0.0,
        rng: random.Random | None = None,
    ) -> None:
        """`granted(pop)`: a PoP listens from now on; `changed`: tables are to be made anew.

        `warmup_s`: for so long it asks no PoP for an epoch. A majority of the first to come back
        would be none of all, and what it knows of drains may be old.
        """
        self._sessions, self._moving, self._warmup_s = sessions, moving, warmup_s
        self._now_unix, self._granted, self._changed = now_unix, granted, changed
        self.keeper = StateKeeper(state_file, self._state)
        self.keeper.on_loaded = self._loaded
        state = self.keeper.load()
        epoch = max(1, int(now_unix()))
        if is_plausible(state.epoch, now_unix()):
            epoch = max(epoch, state.epoch + 1)
        else:
            log.warning("epoch of the state file lies years ahead", epoch=state.epoch)
        self._restored: IrsState | None = state
        rng = rng or random.Random()  # noqa: S311 - spreads waits, keeps no secret
        self.claim = EpochClaim(entropy(8).hex(), epoch, rng.random)
        known = is_plausible(state.memo.epoch, now_unix())
        self.claim.memo = state.memo.stamp if known else (0, 1)
        self._begun: set[str] = set()  # PoPs that are to be told of drains, and resumed, first.
        self._kept: tuple[int, Stamp, int] | None = None
        self._woken = trio.Event()
        self._released = trio.Event()  # One more PoP has answered that it has its grant back.
        moving.on_asked = self._asked

    def start(self) -> None:
        """Take up what the last run left, before the first peer is here."""
        state, self._restored = self._restored, None
        if state is None:
            return
        unix, now = self._now_unix(), trio.current_time()
        self.claim.changed_at = now
        self.claim.wait_until(now + self._warmup_s)
        self.claim.remember({pop: max(0.0, unix - at) for pop, at in state.pops.items()}, now)
        if state.memo.drains:
            self._moving.adopt(
                structs.replace(note, left_s=max(0.0, note.until - unix))
                for note in state.memo.drains
            )

    @property
    def epoch(self) -> int:
        """Of our tables."""
        return self.claim.epoch

    @property
    def leads(self) -> bool:
        """Whether this IRS decides for the network now."""
        return self.claim.leads(trio.current_time())

    @property
    def moves(self) -> bool:
        """Whether it may have streams moved: not at once after a take-over."""
        now = trio.current_time()
        alone = self.claim.standing is Standing.ALONE
        return alone or (self.claim.leads(now) and now - self.claim.changed_at >= SETTLE_S)

    def check_leads(self) -> None:
        """Raise EdgedError where an operator's word would have no effect."""
        if self.leads:
            return
        seen = self.status()
        where = (
            f"the active one is {seen.active_at}: ask there"
            if seen.active_at
            else (
                f"{seen.grants} of {seen.pops_known} pops grant it an epoch, {seen.majority} must"
            )
        )
        raise EdgedError(f"this irs stands by; {where}")

    def stand_by(self, *, by: str = BY_HAND) -> None:
        """Let another IRS be active; EdgedError where this one is not, or has no other beside it.

        It asks for no epoch for STAND_BY_S, and then only while nobody else has one.
        """
        self.check_leads()
        if self.claim.standing is Standing.ALONE:
            raise EdgedError("no pop names another irs beside this one: nobody could take over")
        self._stand_down(f"{by} wants another irs to be active", STAND_BY_S)
        self.keeper.keep(Action(at=self._now_unix(), by=by, what="stand by", origin=""))

    async def hand_over(self) -> None:
        """Give back what PoPs have granted, before the process ends; it asks for nothing again."""
        began_at = trio.current_time()
        grants = self.claim.grants(began_at)
        self._stand_down("this irs ends", math.inf)
        with trio.move_on_after(HAND_OVER_S_MAX):
            while self.claim.unreleased:
                self._released = trio.Event()
                await self._released.wait()
        if grants:
            log.info(
                "epochs given back",
                pops=grants,
                unanswered=self.claim.unreleased or None,
                after_s=round(trio.current_time() - began_at, 3),
            )

    def _stand_down(self, reason: str, for_s: float) -> None:
        now = trio.current_time()
        self._follow(self.claim.stand_down(now, until=now + for_s, reason=reason))

    def listeners(self) -> set[str]:
        """PoPs that take our tables now."""
        granted = self.claim.listeners(trio.current_time())
        return {
            pop
            for pop, session in self._sessions.items()
            if not session.link.grants_epochs or (pop in granted and not session.link.paused)
        }

    async def run(self) -> None:
        """Ask and renew until cancelled."""
        self._follow([])
        saved_at = trio.current_time()
        while True:
            with trio.move_on_at(min(self.claim.next_timeout(), saved_at + POPS_SAVED_S)):
                await self._woken.wait()
            self._woken = trio.Event()
            await drain_readable()
            now = trio.current_time()
            if now >= self.claim.next_timeout():
                self._follow(self.claim.handle_timeout(now))
            if now - saved_at >= POPS_SAVED_S:
                saved_at = now
                self.keeper.keep()

    def joined(self, pop: str, link: IrsLink) -> None:
        """A PoP's session begins."""
        now = trio.current_time()
        self._begun.discard(pop)
        if link.grants_epochs:
            link.pause()
            self.claim.joined(pop, now)
        else:
            self._follow(self.claim.left(pop, now))
            self.claim.forget(pop)
            self._granted(pop)
        self._follow([])

    def left(self, pop: str) -> None:
        """It has ended."""
        self._begun.discard(pop)
        self._follow(self.claim.left(pop, trio.current_time()))
        self._released.set()

    def answered(self, pop: str, answer: EpochAnswer) -> None:
        """A PoP answers what it was asked."""
        self._follow(self.claim.answered(pop, answer, trio.current_time()))
        self._released.set()

    def raise_epoch(self, epoch: int) -> None:
        """Use a higher epoch: a PoP has a table of one above ours."""
        self._follow(self.claim.raise_epoch(epoch, trio.current_time()))

    def grants_us(self, pop: str) -> bool | None:
        """Whether a PoP grants us an epoch now; None: it is here, and grants nobody one."""
        session = self._sessions.get(pop)
        if session is not None and not session.link.grants_epochs:
            return None
        return self.claim.granted(pop, trio.current_time())

    def status(self) -> SeatSeen:
        """What we are, for people."""
        claim, now = self.claim, trio.current_time()
        standing = claim.standing
        alone = standing is Standing.ALONE
        return SeatSeen(
            standing=standing.value,
            for_s=round(now - claim.changed_at, 1),
            epoch=claim.epoch,
            leads=claim.leads(now),
            grants=claim.grants(now),
            majority=0 if alone else claim.majority,
            pops_known=len(claim.known),
            pops_here=claim.here,
            active_at="" if alone or claim.leads(now) else claim.holder(now),
            drained=[note.origin for note in self._moving.notes()],
            state_file=self.keeper.path,
            state_problem=self.keeper.why_not_kept(now),
            actions=list(self.keeper.recent),
        )

    def read_metrics(self) -> Iterable[Sample]:
        """Values of METRICS."""
        now = trio.current_time()
        alone = self.claim.standing is Standing.ALONE
        yield Sample("edged_irs_active", self.claim.leads(now))
        yield Sample("edged_irs_epoch_grants", self.claim.grants(now))
        yield Sample("edged_irs_epoch_majority", 0 if alone else self.claim.majority)
        yield Sample("edged_irs_takeovers_total", self.claim.activations)

    def _follow(self, events: Iterable[Event]) -> None:
        """Do what the claim says, and send what it asks."""
        for event in events:
            self._take(event)
        if self._begun and self.leads:
            self._begin()
        self._send_asks()
        known = (self.epoch, self.claim.memo, self.claim.changes)
        if known != self._kept:
            self._kept = known
            self.keeper.keep()
        self._woken.set()

    def _take(self, event: Event) -> None:
        match event:
            case MemoSeen(memo):
                self._adopt(memo)
            case Granted(pop, begins):
                self._note_grant(pop, begins=begins)
            case MemoMissed(pop):
                self._leave_memo(pop)
            case Activated(epoch):
                log.info("irs is active", epoch=epoch, grants=self.status().grants)
                if self.claim.memo > (0, 0):  # Else it has no newer word on drains.
                    self._restamp()
            case EpochRaised():
                for link in self._asked_links():
                    link.withdraw()
            case Deactivated(reason):
                log.warning("irs stands by", reason=reason)
                for link in self._asked_links():
                    link.pause()

    def _note_grant(self, pop: str, *, begins: bool) -> None:
        """Have a PoP resumed that listens from now on, or did already while its answer was lost."""
        session = self._sessions.get(pop)
        if begins or (session is not None and session.link.paused):
            self._begun.add(pop)
        self._changed()

    def _begin(self) -> None:
        now = trio.current_time()
        begun, self._begun = self._begun, set()
        for pop in begun:
            if not self.claim.granted(pop, now):
                self._begun.add(pop)  # Until it grants again.
                continue
            session = self._sessions.get(pop)
            if session is not None:
                session.link.resume()
                self._granted(pop)
        self._changed()

    def _asked_links(self) -> list[IrsLink]:
        """Of PoPs that are asked for epochs."""
        links = [session.link for session in self._sessions.values()]
        return [link for link in links if link.grants_epochs]

    def _send_asks(self) -> None:
        now = trio.current_time()
        for pop, ask in self.claim.take_asks():
            session = self._sessions.get(pop)
            if session is not None and session.link.grants_epochs:
                session.link.ask(ask, now)
                session.wake()

    # What operators asked.

    def _memo(self) -> IrsMemo:
        epoch, revision = self.claim.memo
        return IrsMemo(epoch=epoch, revision=revision, drains=self._moving.notes())

    def _asked(self, what: str, origin: str, by: str) -> None:
        """An operator did something: it is kept, and left with PoPs."""
        self._restamp()
        action = Action(at=self._now_unix(), by=by, what=what, origin=origin)
        self.keeper.keep(action)

    def _restamp(self) -> None:
        """Make what is drained now the newest word on it."""
        epoch, revision = self.claim.memo[0], self.claim.memo[1] + 1
        if self.epoch > epoch or revision > REVISION_MAX:
            epoch, revision = max(self.epoch, epoch + 1), 1
        self.claim.memo = (epoch, revision)
        for pop in self._sessions:
            self._leave_memo(pop)

    def _leave_memo(self, pop: str) -> None:
        """Leave it, as it is by now, with a PoP that has granted us its epoch, if we lead."""
        session, now = self._sessions.get(pop), trio.current_time()
        if session is None or not self.leads or not self.claim.granted(pop, now):
            return
        session.link.ask(self._memo(), now)
        session.wake()

    def _adopt(self, memo: IrsMemo) -> None:
        """Another IRS, or one before us, knew more."""
        log.info("drains heard of a pop", epoch=memo.epoch, drains=len(memo.drains))
        self.claim.memo = memo.stamp
        self._moving.adopt(memo.drains)
        if self.leads:
            self._restamp()

    def _loaded(self, state: IrsState) -> None:
        """The state file could be read after all: what it has counts if nobody knew better."""
        unix = self._now_unix()
        if is_plausible(state.epoch, unix):
            self.raise_epoch(state.epoch + 1)
        if state.memo.stamp > self.claim.memo and is_plausible(state.memo.epoch, unix):
            drains = tuple(
                structs.replace(note, left_s=max(0.0, note.until - unix))
                for note in state.memo.drains
            )
            self._adopt(structs.replace(state.memo, drains=drains))

    def _state(self) -> IrsState:
        unix = self._now_unix()
        now = trio.current_time()
        pops = {pop: unix - max(0.0, now - at) for pop, at in self.claim.known.items()}
        return IrsState(epoch=self.epoch, memo=self._memo(), pops=pops)
