"""Whatever is lost, late or begun anew: in the end IRS knows what is live at each PoP."""

import itertools
import random
from collections.abc import Callable

import hypothesis
import pytest
from hypothesis import strategies as st
from msgspec import structs

from edged.media.live import CHANNELS_MAX, LiveAsk, LiveReport, LiveRow
from edged.policy import live_registry
from edged.policy.live_registry import (
    ASK_S_MIN,
    BYTES_TOTAL_MAX,
    FULL_RETRY_S,
    KEPT_S,
    ROWS_TOTAL_MAX,
    SHORT_BYTES,
    SILENT_S_MAX,
    LiveRegistry,
    _bytes_of,
)
from edged.policy.live_teller import CONFIRM_S, LiveTeller
from tests.policy.test_live_teller import row, rows

P, Q = "p/0", "q/0"


def whole(ask: LiveAsk, live: dict[str, LiveRow]) -> LiveReport:
    return LiveReport(ask=ask.number, number=1, changed=tuple(live.values()), count=len(live))


def told(
    *pops: tuple[str, dict[str, LiveRow]], now: float = 0.0, into: LiveRegistry | None = None
) -> LiveRegistry:
    registry = LiveRegistry() if into is None else into
    for key, live in pops:
        assert registry.reported(key, whole(registry.joined(key, now), live), now) is None
    return registry


def test_what_is_told_is_known() -> None:
    registry = told((P, rows(3)))
    assert (len(registry), registry.whole, registry.counts()) == (3, True, {P: 3})
    assert registry.rows(P) == rows(3)
    (seen,) = registry.at("c1", 0.0)
    assert (seen.pop, seen.origin, seen.class_, seen.protocol) == (P, "fra1", "basic", "rtmp")
    assert (seen.publication, seen.home_epoch, seen.since) == ("1", 1, 1_700_000_000.0)
    assert registry.at("c9", 0.0) == []
    change = LiveReport(ask=1, number=2, changed=(row("c9", 2),), removed=("c1",), count=3)
    registry.reported(P, change, 1.0)
    assert registry.at("c1", 1.0) == []
    assert registry.rows(P).keys() == {"c0", "c2", "c9"}


def test_until_all_is_told_what_was_told_before_holds() -> None:
    registry = told((P, rows(3)))
    registry.left(P, 5.0)
    assert [seen.unheard_s for seen in registry.at("c0", 7.0)] == [2.0]
    ask = registry.joined(P, 8.0)
    assert not registry.whole
    assert "not told all yet" in registry.unlisted()[P]
    part = LiveReport(ask=ask.number, number=1, changed=(row("new"),), count=1, more=True)
    registry.reported(P, part, 8.0)
    assert registry.rows(P) == rows(3)
    rest = LiveReport(ask=ask.number, number=2, changed=(row("c1"),), count=2)
    registry.reported(P, rest, 8.1)
    assert registry.rows(P).keys() == {"new", "c1"}
    assert (registry.whole, len(registry)) == (True, 2)
    assert [seen.unheard_s for seen in registry.at("c1", 9.0)] == [0.0]


def test_a_pop_that_is_gone_is_forgotten_in_time() -> None:
    registry = told((P, rows(2)), (Q, rows(1)))
    registry.left(P, 5.0)
    assert registry.next_timeout() == min(5.0 + KEPT_S, SILENT_S_MAX)
    registry.reported(Q, LiveReport(ask=1, number=2, count=1), 20.0)
    assert registry.handle_timeout(5.0 + KEPT_S - 0.01) == []
    assert len(registry) == 2
    assert registry.handle_timeout(5.0 + KEPT_S) == []
    assert registry.counts() == {Q: 1}
    registry.forget(Q)
    assert (len(registry), registry.next_timeout()) == (0, float("inf"))


def test_a_channel_at_two_pops_is_a_conflict_and_the_newest_run_is_named() -> None:
    registry = told((P, {"a": row("a", 5), "b": row("b")}), (Q, {"a": row("a", 6)}), now=10.0)
    (conflict,) = registry.conflicts(12.0)
    assert (conflict.channel, conflict.pops, conflict.newest) == ("a", [P, Q], Q)
    assert conflict.for_s == 2.0
    newest, older = registry.at("a", 12.0)
    assert (newest.pop, newest.also_at, newest.newest) == (Q, [P], True)
    assert (older.pop, older.also_at, older.newest) == (P, [Q], False)
    assert len(registry) == 2
    registry.left(P, 13.0)
    assert list(registry.conflicts(13.0)) == [], "the other is not here to say so"
    registry.joined(P, 14.0)
    assert [each.for_s for each in registry.conflicts(15.0)] == [5.0]
    registry.reported(Q, LiveReport(ask=1, number=2, removed=("a",), count=0), 16.0)
    assert list(registry.conflicts(16.0)) == []
    assert [seen.pop for seen in registry.at("a", 16.0)] == [P]


def test_three_have_it_and_one_lets_go() -> None:
    registry = told(*((key, {"a": row("a", at)}) for at, key in enumerate((P, Q, "r/1"))))
    assert [each.pops for each in registry.conflicts(0.0)] == [[P, Q, "r/1"]]
    registry.reported(Q, LiveReport(ask=1, number=2, removed=("a",), count=0), 1.0)
    assert [each.pops for each in registry.conflicts(1.0)] == [[P, "r/1"]]


def test_people_look_by_name_pop_and_origin() -> None:
    west = {"p1": row("p1"), "x2": row("x2", origin="ams1"), "p3": row("p3", origin="ams1")}
    registry = told(("west/0", west), ("west/2", {"p4": row("p4")}), ("east/0", rows(3)))
    find = registry.find
    found, matching = find(0.0, most=2)
    assert ([seen.channel for seen in found], matching) == (["c0", "c1"], 7)
    assert [s.channel for s in find(0.0, pop="west", most=9)[0]] == ["p1", "p3", "x2", "p4"]
    assert [s.channel for s in find(0.0, pop="west/2", most=9)[0]] == ["p4"]
    assert [s.channel for s in find(0.0, text="p", origin="ams1", most=9)[0]] == ["p3"]
    assert find(0.0, text="nobody", most=9) == ([], 0)


def test_a_report_that_is_missing_has_all_told_again_but_not_too_often() -> None:
    registry = told((P, rows(2)))
    late = LiveReport(ask=1, number=3, changed=(row("c7"),), count=4)
    assert registry.reported(P, late, ASK_S_MIN) == LiveAsk(number=2)
    assert registry.reported(P, late, ASK_S_MIN) is None, "it is of an ask before"
    assert registry.rows(P) == rows(2)
    wrong = LiveReport(ask=2, number=1, changed=(row("a"),), count=9)
    assert registry.reported(P, wrong, ASK_S_MIN + 0.1) is None
    assert registry.next_timeout() == 2 * ASK_S_MIN
    again = registry.handle_timeout(2 * ASK_S_MIN)
    assert again == [(P, LiveAsk(number=4))]
    registry.reported(P, whole(again[0][1], rows(1)), 3.0)
    assert (registry.rows(P), registry.whole) == (rows(1), True)
    registry.reported(P, LiveReport(ask=4, number=1, count=0), 3.0)
    assert registry.rows(P) == rows(1), "told already"


def test_one_that_tells_no_more_is_asked_again() -> None:
    registry = told((P, rows(2)))
    assert registry.next_timeout() == SILENT_S_MAX
    assert registry.handle_timeout(SILENT_S_MAX) == [(P, LiveAsk(number=2))]
    assert registry.next_timeout() == 2 * SILENT_S_MAX
    assert SILENT_S_MAX > 2 * CONFIRM_S


def test_one_pop_may_tell_so_many_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_registry, "CHANNELS_MAX", 3)
    registry = told((P, rows(3)))
    assert not registry.unlisted()
    more = LiveReport(ask=1, number=2, changed=(row("x"),), count=4)
    assert registry.reported(P, more, 1.0) is None
    words = "there is no room for its channels: more than 3 of a pop"
    assert registry.unlisted() == {P: words}
    assert (registry.rows(P), len(registry)) == ({}, 0)
    assert registry.next_timeout() > 1.0, "it is asked again, later"
    assert CHANNELS_MAX > 3


def test_a_registry_that_is_full_leaves_whole_pops_out_and_takes_them_later() -> None:
    registry = LiveRegistry(rows_max=5)
    for key, count in ((P, 3), (Q, 2)):
        registry.reported(key, whole(registry.joined(key, 0.0), rows(count)), 0.0)
    assert registry.counts() == {P: 3, Q: 2}
    registry.reported("r/0", whole(registry.joined("r/0", 0.0), rows(1)), 1.0)
    assert registry.counts() == {P: 3, Q: 2, "r/0": 0}
    words = "there is no room for its channels: more than 5 of all pops"
    assert registry.unlisted() == {"r/0": words}
    assert registry.full() == {"r/0": "more than 5 of all pops"}
    registry.left(P, 2.0)
    registry.forget(P)
    registry.reported(Q, LiveReport(ask=1, number=2, count=2), 20.0)
    ((key, ask),) = registry.handle_timeout(1.0 + FULL_RETRY_S)
    assert key == "r/0"
    registry.reported(key, whole(ask, rows(3)), 32.0)
    assert registry.counts() == {Q: 2, "r/0": 3}
    assert registry.unlisted() == {}


WIDE = "\N{GRINNING FACE}" * 256  # Four bytes each.


@pytest.mark.parametrize("more", [0, 1])
def test_a_registry_is_bounded_in_bytes_as_well(more: int) -> None:
    """At the limit all is known; with a byte less the PoP that does not fit is left out whole."""
    live = {
        channel: row(channel, origin="o" * 63, protocol="p" * 64)
        for channel in (f"{at}{WIDE[1:]}" for at in range(5))
    }
    needed = sum(_bytes_of(each) for each in live.values())
    assert needed > 5 * 4 * 256
    registry = told((P, rows(2)), into=LiveRegistry(bytes_max=2 * _bytes_of(row("c0")) + needed))
    registry._bytes_max -= more
    registry.reported(Q, whole(registry.joined(Q, 0.0), live), 0.0)
    assert registry.counts() == {P: 2, Q: 0 if more else 5}
    assert registry.full() == ({Q: "more than 0 MiB with those of all pops"} if more else {})
    assert registry.why_full(P) == registry.why_full("none") == ""
    if more:
        registry.forget(P)
        ((_, ask),) = registry.handle_timeout(FULL_RETRY_S)
        assert registry.reported(Q, whole(ask, live), FULL_RETRY_S) is None
        assert registry.counts() == {Q: 5}
        assert registry.full() == {}


def test_a_row_that_grows_counts_as_it_is() -> None:
    registry = told((P, {"c0": row("c0")}))
    before = registry._bytes
    grown = structs.replace(row("c0"), protocol="p" * 64, home_epoch=2)
    registry.reported(P, LiveReport(ask=1, number=2, changed=(grown,), count=1), 1.0)
    assert (registry._total, registry._bytes) == (1, before + 64 + 49 - SHORT_BYTES)
    registry.reported(P, LiveReport(ask=1, number=3, changed=(row("c0"),), count=1), 2.0)
    assert registry._bytes == before
    registry.forget(P)
    assert (registry._total, registry._bytes) == (0, 0)


def test_as_many_rows_as_may_be_fit_with_names_of_sixty_characters() -> None:
    assert ROWS_TOTAL_MAX * _bytes_of(row("c" * 60)) <= BYTES_TOTAL_MAX


def test_what_a_pop_leaves_out_is_told() -> None:
    registry = LiveRegistry()
    report = structs.replace(whole(registry.joined(P, 0.0), rows(2)), omitted=7)
    registry.reported(P, report, 0.0)
    assert registry.unlisted() == {P: "7 channels beyond what a PoP tells"}


def test_names_are_kept_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_registry, "NAMES_MAX", 4)
    live = {f"c{at}": row(f"c{at}", origin=f"o{at % 2}", protocol="srt") for at in range(6)}
    registry = told((P, live))
    assert len({id(each.origin) for each in registry.rows(P).values()}) == 2
    live = {f"c{at}": row(f"c{at}", origin=f"o{at}") for at in range(50)}
    registry.reported(P, whole(registry.joined(P, 1.0), live), 1.0)
    assert registry.rows(P) == live


class World:
    """PoPs and one IRS over paths that lose, delay and turn messages about; virtual time."""

    def __init__(self, pops: int, seed: int) -> None:
        self.rng = random.Random(seed)  # noqa: S311 - a test's luck
        self.now = 0.0
        self.live: dict[str, dict[str, LiveRow]] = {f"p{at}/0": {} for at in range(pops)}
        self.tellers: dict[str, LiveTeller] = {}  # Of sessions that are up.
        self.registry = LiveRegistry()
        self.bad = True
        self._flying: list[tuple[float, int, str, LiveTeller, LiveAsk | LiveReport]] = []
        self._order = itertools.count()

    def send(self, key: str, message: LiveAsk | LiveReport) -> None:
        """Messages of a session end with it; while paths are bad any may be lost or late."""
        copies = self.rng.choice((0, 1, 1, 1, 2)) if self.bad else 1
        for _ in range(copies):
            late_s = self.rng.random() * 0.5 if self.bad else 0.0
            flying = (self.now + late_s, next(self._order), key, self.tellers[key], message)
            self._flying.append(flying)

    def connect(self, key: str) -> None:
        self.cut(key)
        self.tellers[key] = LiveTeller()
        self.send(key, self.registry.joined(key, self.now))

    def cut(self, key: str) -> None:
        if self.tellers.pop(key, None) is not None:
            self.registry.left(key, self.now)

    def end(self, key: str, channel: str) -> None:
        self.live[key].pop(channel, None)

    def restart_irs(self) -> None:
        self.tellers.clear()
        self.registry = LiveRegistry()

    def restart_pop(self, key: str) -> None:
        self.cut(key)
        self.live[key].clear()

    def run(self, seconds: float, step_s: float = 0.1) -> None:
        for _ in range(max(1, round(seconds / step_s))):
            self.now += step_s
            for key, teller in self.tellers.items():
                if (report := teller.report(self.live[key], self.now)) is not None:
                    self.send(key, report)
            if self.registry.next_timeout() <= self.now:
                for key, ask in self.registry.handle_timeout(self.now):
                    self.send(key, ask)
                assert self.registry.next_timeout() > self.now
            self._arrive()
            self.check()

    def _arrive(self) -> None:
        due = sorted(each for each in self._flying if each[0] <= self.now)
        self._flying = [each for each in self._flying if each[0] > self.now]
        for _, _, key, teller, message in due:
            if self.tellers.get(key) is not teller:
                continue
            if isinstance(message, LiveAsk):
                teller.asked(message)
            elif (ask := self.registry.reported(key, message, self.now)) is not None:
                self.send(key, ask)

    def check(self) -> None:
        """What is looked up by channel, by PoP and counted is the same."""
        registry = self.registry
        by_pop = {key: registry.rows(key) for key in self.live}
        channels = {channel for live in by_pop.values() for channel in live}
        assert len(registry) == len(channels)
        held = sum(len(pop.rows) + len(pop.coming or ()) for pop in registry._pops.values())
        assert registry._total == held
        assert registry._bytes == sum(
            _bytes_of(each)
            for pop in registry._pops.values()
            for each in (*pop.rows.values(), *(pop.coming or {}).values())
        )
        for channel in channels:
            seen = registry.at(channel, self.now)
            assert {each.pop for each in seen} == {k for k in by_pop if channel in by_pop[k]}
            assert [each.newest for each in seen] == [True] + [False] * (len(seen) - 1)
        both = {
            channel
            for channel in channels
            if sum(channel in by_pop[key] for key in self.tellers if key in by_pop) > 1
        }
        assert {each.channel for each in registry.conflicts(self.now)} == both


DEEDS: dict[str, Callable[[World, str, str, int], None]] = {
    "live": lambda world, key, channel, n: world.live[key].update({channel: row(channel, n)}),
    "gone": lambda world, key, channel, n: world.end(key, channel),
    "connect": lambda world, key, channel, n: world.connect(key),
    "cut": lambda world, key, channel, n: world.cut(key),
    "irs": lambda world, key, channel, n: world.restart_irs(),
    "pop": lambda world, key, channel, n: world.restart_pop(key),
    "wait": lambda world, key, channel, n: world.run(n / 4),
}


@hypothesis.settings(deadline=None)
@hypothesis.given(
    st.lists(
        st.tuples(
            st.sampled_from(sorted(DEEDS)),
            st.integers(0, 3),
            st.integers(0, 5),
            st.integers(0, 12),
        ),
        max_size=40,
    ),
    st.integers(1, 4),
    st.integers(0, 2**16),
)
def test_in_the_end_the_registry_is_what_pops_have(
    deeds: list[tuple[str, int, int, int]], pops: int, seed: int
) -> None:
    world = World(pops, seed)
    for key in world.live:
        world.connect(key)
    for what, pop_at, channel_at, number in deeds:
        DEEDS[what](world, f"p{pop_at % pops}/0", f"c{channel_at}", number)
        world.run(0.1)
    world.bad = False
    for key in world.live:
        if key not in world.tellers:
            world.connect(key)
    world.run(SILENT_S_MAX + 2 * CONFIRM_S, step_s=0.5)
    assert {key: world.registry.rows(key) for key in world.live} == world.live
    assert world.registry.whole


@hypothesis.settings(deadline=None)
@hypothesis.given(st.integers(0, 2**16), st.integers(1, 3))
def test_over_paths_that_keep_order_nothing_is_known_that_was_not_so(seed: int, pops: int) -> None:
    """As TCP has it: sessions end, but what arrives is in order, and all that was before it."""
    world = World(pops, seed)
    world.bad = False
    was: dict[str, list[dict[str, LiveRow]]] = {key: [{}] for key in world.live}
    for _ in range(60):
        key = world.rng.choice(sorted(world.live))
        what = world.rng.choice(("live", "live", "gone", "connect", "cut"))
        DEEDS[what](world, key, f"c{world.rng.randrange(5)}", world.rng.randrange(9))
        was[key].append(dict(world.live[key]))
        world.run(0.2)  # An ask, and its answer.
        for each in world.live:
            assert world.registry.rows(each) in was[each]
        if key in world.tellers:
            assert world.registry.rows(key) == world.live[key]
    assert world.registry.asks < 61, "nobody was asked twice in a session"
