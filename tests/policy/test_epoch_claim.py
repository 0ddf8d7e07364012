"""IRSs and PoPs with any delays, partitions, freezes, restarts and releases: never two active."""

import heapq
import itertools
import math
import random
from collections.abc import Callable

import hypothesis
import pytest
from hypothesis import strategies as st

from edged.media.epochs import (
    EPOCH_LEASE_S,
    UNASKED,
    DrainNote,
    EpochAnswer,
    EpochAsk,
    IrsMemo,
)
from edged.policy import epoch_claim
from edged.policy.epoch_claim import (
    ASKS_MAX,
    CAMPAIGN_S,
    KNOWN_S,
    MARGIN_S,
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
from edged.policy.epoch_grants import EpochGrants


class World:
    """Claims and grants joined by links that a test cuts, delays and mends; virtual time."""

    def __init__(self, irss: int, pops: int, *, seed: int = 1, delay_s: float = 0.01) -> None:
        self.now = 0.0
        self.rng = random.Random(seed)  # noqa: S311 - a test's luck
        self.delay_s = delay_s
        self.claims = {f"irs{at}": EpochClaim(f"irs{at}", 1, self.rng.random) for at in range(irss)}
        self.grants = {f"p{at}/0": EpochGrants() for at in range(pops)}
        self.frozen: set[str] = set()
        self.resigned: set[str] = set()  # Those that ask no more.
        self.sessions: dict[tuple[str, str], int] = {}  # Those that are up, by number.
        self.events: list[tuple[float, str, Event]] = []
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._arrival: dict[tuple[str, str, str], float] = {}

    def later(self, delay_s: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (self.now + delay_s, next(self._order), act))

    def connect(self, irs: str, pop: str) -> None:
        if (irs, pop) not in self.sessions:
            self.sessions[irs, pop] = next(self._order)
            self.claims[irs].joined(pop, self.now)
            self.send(irs)

    def cut(self, irs: str, pop: str) -> None:
        if self.sessions.pop((irs, pop), None) is not None:
            self.grants[pop].session_ended(irs)
            self.took(irs, self.claims[irs].left(pop, self.now))

    def connect_all(self) -> None:
        for irs, pop in itertools.product(self.claims, self.grants):
            self.connect(irs, pop)

    def took(self, irs: str, events: list[Event]) -> None:
        self.events += [(self.now, irs, event) for event in events]
        self.send(irs)
        self.check()

    def send(self, irs: str) -> None:
        for pop, ask in self.claims[irs].take_asks():
            self.carry((irs, pop), "there", lambda pop=pop, ask=ask: self.asked(irs, pop, ask))  # type: ignore[misc]

    def carry(self, path: tuple[str, str], way: str, act: Callable[[], None]) -> None:
        """As TCP: in order, and not beyond the session's end."""
        session = self.sessions.get(path)
        at = max(self.now + self.delay_s * self.rng.random(), self._arrival.get((*path, way), 0.0))
        self._arrival[*path, way] = at

        def arrive() -> None:
            if self.sessions.get(path) == session is not None:
                act()

        self.later(at - self.now, arrive)

    def asked(self, irs: str, pop: str, ask: EpochAsk) -> None:
        answer = self.grants[pop].answer(ask, irs, self.now)
        self.carry((irs, pop), "back", lambda: self.answered(irs, pop, answer))
        for other, notice in self.grants[pop].take_notices(self.now):
            self.carry(
                (other, pop),
                "back",
                lambda to=other, said=notice: self.answered(to, pop, said),  # type: ignore[misc]
            )

    def cut_all(self, irs: str) -> None:
        for pop in self.grants:
            self.cut(irs, pop)

    def stand_down(self, irs: str, for_s: float = math.inf) -> None:
        if irs in self.frozen:
            return
        until = self.now + for_s
        if until == math.inf:
            self.resigned.add(irs)
        self.took(irs, self.claims[irs].stand_down(self.now, until=until, reason="told to"))

    def stop(self, irs: str) -> None:
        """In good order; what it has said still arrives, as TCP has it."""
        self.stand_down(irs)
        self.run(3 * self.delay_s)
        self.restart(irs)

    def restart(self, irs: str) -> None:
        self.cut_all(irs)
        self.frozen.discard(irs)
        self.resigned.discard(irs)
        before = self.claims[irs]
        name = f"{before.irs}'"
        self.claims[irs] = EpochClaim(name, before.epoch + 1, self.rng.random)

    def answered(self, irs: str, pop: str, answer: EpochAnswer) -> None:
        if irs in self.frozen:  # It lies unread.
            self.later(0.05, lambda: self.answered(irs, pop, answer))
        elif (irs, pop) in self.sessions:
            self.took(irs, self.claims[irs].answered(pop, answer, self.now))

    def run(self, seconds: float) -> None:
        """Until then; time passes at messages and timers alone."""
        end = self.now + seconds
        while True:
            due = {
                irs: claim.next_timeout()
                for irs, claim in self.claims.items()
                if irs not in self.frozen
            }
            timer = min(due.values(), default=math.inf)
            message = self._queue[0][0] if self._queue else math.inf
            if min(timer, message) > end:
                self.now = end
                return
            if message <= timer:
                self.now = max(self.now, message)
                heapq.heappop(self._queue)[2]()
            else:
                self.now = max(self.now, timer)
                for irs, at in due.items():
                    if at <= self.now:
                        self.took(irs, self.claims[irs].handle_timeout(self.now))
                        assert self.claims[irs].next_timeout() > self.now
            self.check()

    def active(self) -> list[str]:
        return [
            irs
            for irs, claim in self.claims.items()
            if irs not in self.frozen and claim.leads(self.now)
        ]

    def check(self) -> None:
        """No PoP is counted, nor pushed to, by two; who may push is believed there."""
        for pop, grants in self.grants.items():
            counted = [irs for irs, claim in self.claims.items() if claim.granted(pop, self.now)]
            assert len(counted) <= 1, (self.now, pop, counted)
            for irs, claim in self.claims.items():
                if pop in claim.listeners(self.now):
                    assert grants.why_not(irs, self.now, claim.epoch) == ""


def test_one_alone_asks_nobody() -> None:
    claim = EpochClaim("a", 7, lambda: 0.5)
    assert claim.standing is Standing.ALONE
    assert claim.leads(0.0)
    assert claim.take_asks() == []
    assert claim.next_timeout() == float("inf")


def test_one_with_pops_that_grant_is_active_after_two_round_trips() -> None:
    world = World(1, 5, delay_s=0.01)
    world.connect_all()
    world.run(0.05)
    (claim,) = world.claims.values()
    assert claim.standing is Standing.ACTIVE
    assert claim.grants(world.now) == 5
    assert claim.listeners(world.now) == set(world.grants)
    kinds = [type(event) for _, _, event in world.events]
    assert kinds.count(Activated) == 1
    assert kinds.count(Granted) == 5
    world.run(60.0)
    assert not any(isinstance(event, Deactivated) for _, _, event in world.events)


def test_a_frozen_one_is_followed_within_the_lease_and_a_second_and_stands_by_when_it_is_back() -> (
    None
):
    world = World(2, 5)
    world.connect_all()
    world.run(5.0)
    (first,) = world.active()
    (second,) = world.claims.keys() - {first}
    world.frozen.add(first)
    frozen_at = world.now
    world.run(EPOCH_LEASE_S + 1.0)
    assert world.active() == [second]
    took_at = next(
        at for at, irs, event in world.events if (irs, type(event)) == (second, Activated)
    )
    assert took_at - frozen_at <= EPOCH_LEASE_S + 0.1
    assert world.claims[second].epoch > 1
    world.frozen.clear()
    assert world.active() == [second], "at once: its own grants are over"
    world.run(0.1)
    assert any(irs == first and isinstance(event, Deactivated) for _, irs, event in world.events)
    assert world.claims[first].standing is Standing.STANDBY
    assert world.claims[first].holder(world.now) == second
    world.run(20.0)
    assert world.active() == [second], "it stays as it is"


@pytest.mark.parametrize("with_first", [1, 2, 3, 4])
def test_cut_off_from_some_the_majority_decides(with_first: int) -> None:
    world = World(2, 5)
    world.connect_all()
    world.run(5.0)
    (first,) = world.active()
    (second,) = world.claims.keys() - {first}
    for at, pop in enumerate(world.grants):
        world.cut(second if at < with_first else first, pop)
    world.run(EPOCH_LEASE_S + 1.0)
    assert world.active() == [first if with_first >= 3 else second]
    world.connect_all()
    world.run(EPOCH_LEASE_S + 1.0)
    assert len(world.active()) == 1
    assert world.claims[world.active()[0]].grants(world.now) == 5


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("pops", [1, 2, 4])
def test_who_begin_together_agree(pops: int, seed: int) -> None:
    world = World(3, pops, seed=seed, delay_s=0.2)
    world.connect_all()
    world.run(6.0)
    assert len(world.active()) == 1
    assert world.claims[world.active()[0]].grants(world.now) == pops


def test_what_operators_asked_is_heard_of_the_majority() -> None:
    world = World(2, 3)
    for pop in world.grants:
        world.connect("irs0", pop)
    world.run(1.0)
    note = DrainNote(origin="fra1", since=0.0, until=90.0, left_s=90.0)
    memo = IrsMemo(epoch=1, revision=1, drains=(note,))
    for pop in ("p0/0", "p1/0"):
        world.grants[pop].keep(memo, world.now)
    world.claims["irs0"].memo = (1, 1)
    world.run(1.5)
    missed = {event.pop for _, irs, event in world.events if isinstance(event, MemoMissed)}
    assert missed == {"p2/0"}
    for pop in world.grants:
        world.cut("irs0", pop)
    for pop in ("p1/0", "p2/0"):
        world.connect("irs1", pop)
    world.run(EPOCH_LEASE_S + 1.0)
    assert world.active() == ["irs1"]
    kinds = [event for _, irs, event in world.events if irs == "irs1"]
    seen = next(event for event in kinds if isinstance(event, MemoSeen))
    assert [each.origin for each in seen.memo.drains] == ["fra1"]
    assert kinds.index(seen) < [type(event) for event in kinds].index(Activated)


def test_pops_that_are_gone_count_for_an_hour_and_those_that_do_not_grant_not_at_all() -> None:
    world = World(1, 5)
    world.connect_all()
    world.run(1.0)
    for pop in list(world.grants)[:3]:
        world.cut("irs0", pop)
    (claim,) = world.claims.values()
    assert not claim.leads(world.now)
    world.run(60.0)
    assert (claim.majority, claim.leads(world.now)) == (3, False)
    world.run(KNOWN_S)
    assert (claim.majority, claim.leads(world.now)) == (2, True)
    again = EpochClaim("b", 1, lambda: 0.5)
    again.remember({"p0/0": 10.0, "p1/0": KNOWN_S}, 100.0)
    assert again.known == {"p0/0": 90.0}
    assert not again.leads(100.0)
    again.forget("p0/0")
    assert again.leads(100.0)


def test_an_epoch_above_ours_is_outbid_and_pushed_under() -> None:
    world = World(1, 3)
    world.grants["p1/0"].saw(50)
    world.connect_all()
    world.run(1.0)
    (claim,) = world.claims.values()
    assert claim.epoch == 51
    assert EpochRaised(51) in [event for _, _, event in world.events]
    assert claim.listeners(world.now) == set(world.grants)
    assert claim.raise_epoch(60, world.now) == [EpochRaised(60)]
    assert claim.raise_epoch(60, world.now) == []
    assert claim.leads(world.now)
    assert claim.listeners(world.now) == set(), "until they have granted that one"
    world.send("irs0")
    world.run(0.1)
    assert claim.listeners(world.now) == set(world.grants)


def test_known_pops_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(epoch_claim, "KNOWN_MAX", 3)
    claim = EpochClaim("a", 1, lambda: 0.5)
    for at in range(5):
        pop = f"p{at}/0"
        claim.joined(pop, float(at))
        (_, ask), *_ = claim.take_asks()
        claim.answered(pop, EpochAnswer(number=ask.number, granted=False, epoch=0), float(at))
        claim.left(pop, float(at))
    assert set(claim.known) == {"p2/0", "p3/0", "p4/0"}
    claim.remember({"p9/0": 0.0}, 5.0)
    assert len(claim.known) == 3


def test_a_lease_ends_here_before_it_does_at_the_pop() -> None:
    assert 0 < MARGIN_S < EPOCH_LEASE_S - 2 * epoch_claim.RENEW_S
    assert CAMPAIGN_S < EPOCH_LEASE_S


DEEDS: dict[str, Callable[[World, str, str, float], None]] = {
    "wait": lambda world, irs, pop, s: None,
    "cut": lambda world, irs, pop, s: world.cut(irs, pop),
    "mend": lambda world, irs, pop, s: world.connect(irs, pop),
    "freeze": lambda world, irs, pop, s: world.frozen.add(irs),
    "thaw": lambda world, irs, pop, s: world.frozen.discard(irs),
    "cut all": lambda world, irs, pop, s: world.cut_all(irs),
    "slow": lambda world, irs, pop, s: setattr(world, "delay_s", s / 4),
    "stand down": lambda world, irs, pop, s: world.stand_down(irs, s),
    "stand down for good": lambda world, irs, pop, s: world.stand_down(irs),
    "stop": lambda world, irs, pop, s: world.stop(irs),
    "die": lambda world, irs, pop, s: world.restart(irs),
}
FAULTS = st.lists(
    st.tuples(
        st.sampled_from(sorted(DEEDS)),
        st.integers(0, 2),
        st.integers(0, 4),
        st.floats(0.0, 4.0),
    ),
    max_size=30,
)


@hypothesis.settings(deadline=None)
@hypothesis.given(FAULTS, st.integers(0, 2**16), st.integers(2, 3), st.integers(1, 5))
def test_any_faults_never_make_two_of_one_pop_and_end_with_one_active(
    faults: list[tuple[str, int, int, float]], seed: int, irss: int, pops: int
) -> None:
    world = World(irss, pops, seed=seed)
    world.connect_all()
    for what, irs_at, pop_at, wait_s in faults:
        irs, pop = f"irs{irs_at % irss}", f"p{pop_at % pops}/0"
        DEEDS[what](world, irs, pop, wait_s)
        world.run(wait_s)
        for each in world.resigned - world.frozen:
            assert world.claims[each].state is Standing.STANDBY
    world.frozen.clear()
    world.delay_s = 0.01
    for irs in list(world.resigned):
        world.restart(irs)
    world.connect_all()
    world.run(2 * EPOCH_LEASE_S + 6.0)
    assert len(world.active()) == 1
    assert world.claims[world.active()[0]].grants(world.now) == pops


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("pops", "irss"), [(1, 2), (2, 2), (5, 2), (1, 3), (5, 3)])
def test_who_stands_down_is_followed_after_some_round_trips(
    pops: int, irss: int, seed: int
) -> None:
    world = World(irss, pops, seed=seed, delay_s=0.02)
    world.connect_all()
    world.run(10.0)
    (first,) = world.active()
    note = IrsMemo(epoch=9, revision=1, drains=())
    for grants in world.grants.values():
        grants.keep(note, world.now)
    world.run(0.7)
    began_at = world.now
    world.stand_down(first)
    assert world.active() == []
    assert world.claims[first].unreleased == pops
    world.run(2 * world.delay_s)
    assert world.claims[first].unreleased == 0
    world.run(1.0)
    (second,) = world.active()
    assert second != first
    took_at = max(at for at, _, event in world.events if isinstance(event, Activated))
    assert took_at - began_at < (0.15 if irss == 2 else 1.0)
    assert world.claims[second].memo == (9, 1)
    world.run(20.0)
    assert world.active() == [second], "who has stood down asks no more"
    world.restart(first)
    world.connect_all()
    world.run(20.0)
    assert world.active() == [second], "nor does it when it is back, while another is there"


def test_who_stands_down_for_a_while_goes_on_if_nobody_takes_over() -> None:
    world = World(1, 3)
    world.connect_all()
    world.run(5.0)
    epoch = world.claims["irs0"].epoch
    world.stand_down("irs0", 3.0)
    assert [type(event) for _, _, event in world.events][-1] is Deactivated
    world.run(2.9)
    assert world.active() == []
    world.run(0.2)
    assert world.active() == ["irs0"]
    assert world.claims["irs0"].epoch == epoch, "it is still its own"
    world.stand_down("irs0", 3.0)
    events = len(world.events)
    world.stand_down("irs0", 3.0)
    assert len(world.events) == events, "it had stood down already"


def test_who_has_stood_down_for_another_may_follow_that_one() -> None:
    world = World(2, 3)
    world.connect_all()
    world.run(5.0)
    (first,) = world.active()
    (second,) = world.claims.keys() - {first}
    world.stand_down(first, 1000.0)
    world.run(1.5)
    assert world.active() == [second]
    world.stand_down(second)
    world.run(0.1)
    assert world.active() == [first], "long before the 1,000 s"
    world.stand_down(first)
    world.run(1000.0)
    assert world.active() == []


def test_who_has_one_pop_of_five_is_not_the_active_one() -> None:
    claim = EpochClaim("a", 1, lambda: 0.5)
    names = [f"p{n}" for n in range(5)]
    claim.remember(dict.fromkeys(names, 0.0), 0.0)
    for name in names:
        claim.joined(name, 0.0)
    for granted, name in enumerate(names, start=1):
        (number,) = [ask.number for pop, ask in claim.take_asks() if pop == name] or [1]
        busy = EpochAnswer(number=number, granted=False, epoch=0, left_s=2.0, holder="b")
        claim.answered(name, busy, 0.1)
        assert claim.holder(0.2) == ("b" if granted >= 3 else "")


def test_a_notice_of_a_pop_that_has_not_answered_yet_means_nothing() -> None:
    claim = EpochClaim("a", 1, lambda: 0.5)
    notice = EpochAnswer(number=UNASKED, granted=False, epoch=0)
    assert claim.answered("p/0", notice, 0.0) == [], "of a session that is over"
    claim.joined("p/0", 0.0)
    claim.take_asks()
    assert claim.answered("p/0", notice, 0.0) == []
    assert claim.state is Standing.STANDBY
    assert claim.known == {}
    busy = EpochAnswer(number=1, granted=False, epoch=0, left_s=2.0, holder="b")
    claim.answered("p/0", busy, 0.1)
    assert claim.holder(0.2) == "b"
    claim.answered("p/0", notice, 0.2)
    assert claim.holder(0.2) == ""
    assert [ask.kind for _, ask in claim.take_asks()] == ["want"]


def test_of_asks_without_an_answer_the_newest_count() -> None:
    claim = EpochClaim("a", 1, lambda: 0.5)
    claim.joined("p/0", 0.0)
    asks = claim.take_asks()
    while len(asks) <= ASKS_MAX:
        claim.handle_timeout(claim.next_timeout())
        asks += claim.take_asks()
    (_, dropped), (_, kept), *_ = asks
    for ask, known in ((dropped, set[str]()), (kept, {"p/0"})):
        answer = EpochAnswer(number=ask.number, granted=False, epoch=0)
        claim.answered("p/0", answer, ASKS_MAX + 1.0)
        assert claim.known.keys() == known


def test_known_pops_are_forgotten_though_nobody_is_here() -> None:
    claim = EpochClaim("a", 1, lambda: 0.5)
    claim.remember({"gone/0": 10.0}, 100.0)
    assert not claim.leads(100.0)
    assert claim.next_timeout() == 90.0 + KNOWN_S
    claim.handle_timeout(90.0 + KNOWN_S)
    assert claim.standing is Standing.ALONE
    assert claim.leads(90.0 + KNOWN_S)
    assert claim.next_timeout() == math.inf


def test_no_campaign_begins_before_its_time() -> None:
    world = World(1, 1)
    world.claims["irs0"].wait_until(5.0)
    world.connect_all()
    world.run(4.9)
    assert world.active() == []
    world.run(1.0)
    assert world.active() == ["irs0"]


def test_who_was_active_is_not_told_of_once_its_grants_are_over() -> None:
    world = World(2, 3)
    world.connect_all()
    world.run(5.0)
    (first,) = world.active()
    (second,) = world.claims.keys() - {first}
    for pop in world.grants:
        world.cut(first, pop)
    for pop in ("p1/0", "p2/0"):
        world.cut(second, pop)
    world.run(0.5)
    assert world.claims[second].holder(world.now) in (first, "")
    world.run(EPOCH_LEASE_S)
    assert not world.active()
    assert world.claims[second].holder(world.now) == ""


def test_a_faulty_pop_does_not_drive_the_epoch() -> None:
    claim = EpochClaim("b", 100, lambda: 0.5)
    for pop in "pqr":
        claim.joined(pop, 0.0)
    now, asked = 0.0, 0
    for _ in range(4000):
        now += 0.0005
        if now >= claim.next_timeout():
            claim.handle_timeout(now)
        for pop, ask in claim.take_asks():
            asked += 1
            bad = pop == "r"
            answer = EpochAnswer(
                number=ask.number, granted=ask.kind == "want" and not bad,
                epoch=max(ask.epoch, claim.epoch) if bad else ask.epoch,
            )  # fmt: skip
            claim.answered(pop, answer, now)
    assert claim.epoch <= 104, "once a second"
    assert asked < 40
    assert claim.leads(now)
