"""Capacitor: the state machine of one origin, and doubt in ourselves."""

import math

import hypothesis
import pytest
from hypothesis import strategies as st

from edged.errors import RemoteProtocolError
from edged.media.routing import ORIGINS_MAX, OriginReport, OriginState, ReportedState
from edged.media.stream import PriorityClass
from edged.policy.capacitor import (
    DOUBT_AFTER_S,
    FULL_PART,
    PROBATION_S,
    VOTE_HOLD_S,
    Capacitor,
    StateChanged,
)

BASIC, PARTNER = PriorityClass.BASIC, PriorityClass.PARTNER
UP, SUSPECT, DOWN = OriginState.UP, OriginState.SUSPECT, OriginState.DOWN
PROBATION, DRAIN = OriginState.PROBATION, OriginState.DRAIN


def beat(
    origin: str = "o1",
    *,
    free: int = 100,
    incarnation: int = 1,
    state: ReportedState = ReportedState.UP,
) -> OriginReport:
    return OriginReport(origin, incarnation, state, 100, (free, free, free // 2))


class Clock:
    """Drives a capacitor as its shell does: heartbeats at 10 Hz, timers on time."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.core = Capacitor()
        self.changes: list[StateChanged] = []

    def run(self, seconds: float, *beating: str, free: int = 100) -> list[str]:
        """Let time pass with these origins beating; returns the states entered."""
        seen = len(self.changes)
        end = self.now + seconds
        next_beat = self.now
        while True:
            at = min(next_beat if beating else math.inf, max(self.now, self.core.next_timeout()))
            if at > end:
                break
            self.now = at
            if beating and at == next_beat:
                for origin in beating:
                    self.changes += self.core.heartbeat(beat(origin, free=free), at)
                next_beat += 0.1
            if at >= self.core.next_timeout():
                self.changes += self.core.handle_timeout(at)
                assert self.core.next_timeout() > at
        self.now = end
        return [f"{change.origin} {change.after}" for change in self.changes[seen:]]


def test_silence_makes_suspect_then_down_and_a_clean_return_takes_ten_seconds() -> None:
    clock = Clock()
    assert clock.run(1.0, "o1") == ["o1 up"]
    assert clock.run(1.0) == ["o1 suspect", "o1 down"]
    assert clock.changes[-1].reason.startswith("silent for 300 ms")
    assert clock.run(9.9, "o1") == ["o1 probation"]
    assert clock.run(0.3, "o1") == ["o1 up"]
    assert clock.changes[-1].reason == f"{PROBATION_S:g} s without fault"


def test_down_at_exactly_three_intervals() -> None:
    core = Capacitor()
    core.heartbeat(beat(), 0.0)
    assert core.next_timeout() == pytest.approx(0.2)
    assert core.handle_timeout(0.19) == []
    assert [change.after for change in core.handle_timeout(0.2)] == [SUSPECT]
    assert core.room("o1", BASIC, 0.2) == 0
    assert core.next_timeout() == pytest.approx(0.3)
    assert [change.after for change in core.handle_timeout(0.3)] == [DOWN]
    assert core.next_timeout() == math.inf


def test_one_late_heartbeat_costs_nothing() -> None:
    core = Capacitor()
    core.heartbeat(beat(), 0.0)
    core.handle_timeout(0.2)
    assert [change.after for change in core.heartbeat(beat(), 0.25)] == [UP]
    assert core.room("o1", BASIC, 0.25) == 50


def test_room_drops_at_once_and_rises_by_ten_percent_a_second() -> None:
    core = Capacitor()
    core.heartbeat(beat(free=80), 0.0)
    assert core.room("o1", PARTNER, 0.0) == 80
    core.heartbeat(beat(free=10), 0.1)
    assert core.room("o1", PARTNER, 0.1) == 10
    core.heartbeat(beat(free=90), 0.2)
    rooms = []
    for tenth in range(2, 103):
        core.heartbeat(beat(free=90), tenth / 10)
        rooms.append(core.room("o1", PARTNER, tenth / 10))
    assert rooms[0] == 10
    assert rooms[10] == 20
    assert rooms[-1] == 90
    assert core.room("o1", BASIC, 10.2) == 45


def test_probation_begins_without_room_and_a_fault_begins_it_anew() -> None:
    clock = Clock()
    clock.run(0.5, "o1")
    clock.run(0.5)
    assert clock.core.room("o1", PARTNER, clock.now) == 0
    clock.run(5.0, "o1")
    assert 45 <= clock.core.room("o1", PARTNER, clock.now) <= 50
    assert clock.run(0.2) == ["o1 suspect"]
    assert clock.run(9.8, "o1") == ["o1 probation"]
    assert clock.run(0.3, "o1") == ["o1 up"]


def test_restart_is_noticed_by_its_incarnation() -> None:
    core = Capacitor()
    core.heartbeat(beat(incarnation=1), 0.0)
    assert core.heartbeat(beat(incarnation=2), 0.1) == [
        StateChanged("o1", UP, PROBATION, "restarted")
    ]
    assert core.room("o1", PARTNER, 0.1) == 0
    assert core.room("o1", PARTNER, 0.6) == 5


def test_what_an_origin_says_of_itself_counts_at_once() -> None:
    core = Capacitor()
    core.heartbeat(beat(), 0.0)
    assert core.heartbeat(beat(state=ReportedState.DRAIN), 0.1)[0].after is DRAIN
    assert core.room("o1", PARTNER, 0.1) == 0
    assert core.heartbeat(beat(), 0.2)[0].after is UP  # The drain was called off,
    assert core.room("o1", PARTNER, 0.2) == 0  # and the room ramps.
    assert core.heartbeat(beat(state=ReportedState.DOWN), 0.3)[0].after is DOWN
    assert core.heartbeat(beat(), 0.4)[0].after is PROBATION


def test_draining_origin_that_falls_silent_is_down() -> None:
    clock = Clock()
    clock.core.heartbeat(beat(state=ReportedState.DRAIN), clock.now)
    assert clock.run(1.0) == ["o1 suspect", "o1 down"]


def test_a_late_timer_of_ours_convicts_nobody() -> None:
    core = Capacitor()
    for origin in ("o1", "o2", "o3"):
        core.heartbeat(beat(origin), 0.0)
    assert core.handle_timeout(0.35) == []  # We were paused for 350 ms.
    assert core.next_timeout() == pytest.approx(0.45)
    for origin in ("o1", "o2"):
        core.heartbeat(beat(origin), 0.4)
    assert [(c.origin, c.after) for c in core.handle_timeout(0.45)] == [("o3", SUSPECT)]
    assert [(c.origin, c.after) for c in core.handle_timeout(0.55)] == [("o3", DOWN)]


def test_an_observer_that_is_always_late_still_convicts() -> None:
    core = Capacitor()
    core.heartbeat(beat(), 0.0)
    now = 0.0
    changes: list[StateChanged] = []
    while not changes and now < 10:
        now = core.next_timeout() + 0.1
        changes = core.handle_timeout(now)
    assert changes
    while changes[-1].after is not DOWN and now < 10:
        now = core.next_timeout() + 0.1
        changes += core.handle_timeout(now)
    assert now < 3


def test_most_origins_silent_at_once_is_doubted_first() -> None:
    clock = Clock()
    clock.run(1.0, "o1", "o2", "o3")
    started = clock.now
    assert clock.run(0.5, "o3") == ["o1 suspect", "o2 suspect"]
    assert sorted(clock.run(1.0, "o3")) == ["o1 down", "o2 down"]
    assert clock.changes[-1].reason == f"silent for {1000 * DOUBT_AFTER_S:.0f} ms"
    assert clock.now == started + 1.5


def test_doubt_ends_when_the_others_are_heard_again() -> None:
    clock = Clock()
    clock.run(1.0, "o1", "o2", "o3")
    assert clock.run(0.5, "o3") == ["o1 suspect", "o2 suspect"]
    assert clock.run(0.15, "o2", "o3") == ["o2 up", "o1 down"]


def test_one_of_two_is_no_doubt_of_ourselves() -> None:
    clock = Clock()
    clock.run(1.0, "o1", "o2")
    assert clock.run(0.5, "o2") == ["o1 suspect", "o1 down"]


def test_pops_outvote_a_healthy_looking_origin() -> None:
    clock = Clock()
    clock.run(1.0, "o1")
    core = clock.core
    assert core.vote_against("o1", "lhr", voters=3, now=clock.now, refused=False) == []
    assert core.vote_against("o1", "lhr", voters=3, now=clock.now, refused=False) == []
    changes = core.vote_against("o1", "ams", voters=3, now=clock.now, refused=True)
    assert [(c.after, c.reason) for c in changes] == [(SUSPECT, "outvoted by 2 PoPs")]
    assert clock.run(VOTE_HOLD_S - 0.2, "o1") == []
    assert clock.run(0.4, "o1") == ["o1 probation"]
    assert clock.core.room("o1", PARTNER, clock.now) < 5
    assert clock.run(10.0, "o1") == ["o1 up"]


def test_votes_age_and_a_single_pop_suffices_when_it_is_alone() -> None:
    clock = Clock()
    clock.run(1.0, "o1")
    core = clock.core
    assert core.vote_against("o1", "lhr", voters=2, now=clock.now, refused=False) == []
    clock.run(4.0, "o1")
    assert core.vote_against("o1", "ams", voters=2, now=clock.now, refused=False) == []
    assert core.vote_against("o1", "ams", voters=1, now=clock.now, refused=False) != []
    assert core.vote_against("o1", "ams", voters=1, now=clock.now, refused=False) == []
    assert core.vote_against("nobody", "ams", voters=1, now=clock.now, refused=False) == []


def test_outvoted_origin_that_falls_silent_is_down_on_time() -> None:
    clock = Clock()
    clock.run(1.0, "o1")
    clock.core.vote_against("o1", "lhr", voters=1, now=clock.now, refused=False)
    assert clock.run(0.4) == ["o1 down"]


def test_a_full_origin_may_refuse() -> None:
    core = Capacitor()
    core.heartbeat(beat(free=0), 0.0)
    assert core.vote_against("o1", "lhr", voters=1, now=0.0, refused=True) == []
    assert core.vote_against("o1", "lhr", voters=1, now=0.0, refused=False) != []


@pytest.mark.parametrize(
    ("free", "is_full"), [(100 * FULL_PART, True), (100 * FULL_PART + 1, False)]
)
def test_an_origin_is_full_at_a_part_of_its_slots(free: float, is_full: bool) -> None:
    core = Capacitor()
    core.heartbeat(OriginReport("o1", 1, ReportedState.UP, 100, (50, 50, int(free))), 0.0)
    changes = core.vote_against("o1", "lhr", voters=1, now=0.0, refused=True)
    assert (changes == []) is is_full


def test_one_origin_too_many_takes_the_place_of_a_dead_one_or_is_refused() -> None:
    core = Capacitor()
    for n in range(ORIGINS_MAX):
        core.heartbeat(beat(f"o{n}"), 0.0)
    with pytest.raises(RemoteProtocolError, match="one more than 256"):
        core.heartbeat(beat("extra"), 0.0)
    core.heartbeat(beat("o7", state=ReportedState.DOWN), 0.0)
    core.heartbeat(beat("extra"), 0.0)
    assert "o7" not in core
    assert len(core.origins) == ORIGINS_MAX
    assert core.state("o7") is None
    assert core.report("o7") is None
    assert core.room("o7", BASIC, 0.0) == 0


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["beat o1", "beat o2", "beat o3", "restart o1", "drain o2", "down o3"])
        | st.sampled_from(["vote o1", "timer", "timer", "timer", "late"]),
        st.floats(0.0, 0.4),
        st.integers(0, 100),
    ),
    max_size=60,
)


@hypothesis.given(EVENTS)
@hypothesis.settings(max_examples=60, deadline=None)
def test_whatever_happens_the_invariants_hold(events: list[tuple[str, float, int]]) -> None:
    core, now = Capacitor(), 0.0
    incarnation = 1
    for event, delay, free in events:
        what, _, origin = event.partition(" ")
        if what == "timer":
            now = max(now, min(core.next_timeout(), now + 1))
            core.handle_timeout(now)
        else:
            now += delay
        if what == "late":
            core.handle_timeout(now)
        elif what == "vote":
            core.vote_against(origin, "lhr", voters=1, now=now, refused=False)
        elif origin:
            incarnation += what == "restart"
            said = {"drain": ReportedState.DRAIN, "down": ReportedState.DOWN}.get(
                what, ReportedState.UP
            )
            core.heartbeat(beat(origin, free=free, state=said, incarnation=incarnation), now)
        if what == "timer":
            assert core.next_timeout() >= now
        for name in core.origins:
            state, report = core.state(name), core.report(name)
            assert state is not None
            assert report is not None
            room = core.room(name, PARTNER, now)
            assert 0 <= room <= report.slots_free[PARTNER]
            assert room == 0 or state.takes_streams
