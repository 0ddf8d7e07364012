"""The policies that production is compared with: each does what its name says."""

from collections import Counter

import pytest

from edged.media.stream import PriorityClass
from edged.tools.simulate.baselines import CHECKS_FAIL_S, Greedy, LpHourly, PowerOfTwo, Static
from edged.tools.simulate.board import TICK_S, Board
from edged.tools.simulate.bound import Moment
from edged.tools.simulate.demand import Arrival
from edged.tools.simulate.geography import Geography
from edged.tools.simulate.policy import NOWHERE, Surroundings
from edged.tools.simulate.scenario import Loaded
from edged.tools.simulate.streams import Site, Stream
from tests.tools.simulate.worlds import WORLD, brief, luck

SLOTS = [100, 50, 50]


class Bench:
    """What a policy has around it, without a run."""

    def __init__(
        self, loaded: Loaded | None = None, demand: tuple[int, ...] = (60, 20, 60, 40)
    ) -> None:
        self.sites = [
            Site(index, origin.name, slots)
            for index, (origin, slots) in enumerate(zip(WORLD.origins, SLOTS, strict=True))
        ]
        self.board = Board(self.sites)
        self.calls: list[float] = []
        self.moves: list[tuple[Stream, int]] = []
        geography = Geography(WORLD)
        self.around = Surroundings(
            scenario=(loaded or brief()).scenario,
            world=WORLD,
            slots=SLOTS,
            rtt_ms=geography.rtt_ms,
            board=self.board,
            rng=luck(1),
            moment=lambda: Moment(
                demand=list(demand),
                mbps=[6.0 * count for count in demand],
                slots=SLOTS,
                rtt_ms=geography.rtt_ms,
                routes=geography.routes,
                gbps=geography.gbps,
            ),
            links=dict,
            call_at=lambda at, call: self.calls.append(at),
            streams_at=lambda origin: self.sites[origin].streams,
            move=lambda stream, to: self.moves.append((stream, to)),
            shed=lambda stream: None,
        )
        for tick in range(5):
            self.board.tick(tick * TICK_S)

    def silence(self, origin: int) -> None:
        self.sites[origin].frozen = True
        for tick in range(5, 15):
            self.board.tick(tick * TICK_S)


def stream(pop: int, tried: int = 0) -> Stream:
    made = Stream(Arrival(0.0, pop, PriorityClass.BASIC, 6.0, 60.0), 1)
    made.tried = tried
    return made


def test_static_goes_to_the_nearest_until_checks_have_failed() -> None:
    policy = Static(Bench().around)
    assert [policy.choose(stream(pop), 0.0) for pop in range(4)] == [0, 0, 1, 2]
    policy.link_changed(0, 0, 10.0, up=False)
    policy.link_changed(1, 0, 12.0, up=False)
    assert policy.choose(stream(0), 10.0 + CHECKS_FAIL_S - 0.1) == 0
    assert policy.choose(stream(0), 10.0 + CHECKS_FAIL_S) == 1
    policy.link_changed(0, 0, 30.0, up=True)
    assert policy.choose(stream(0), 30.0) == 0
    for origin in range(3):
        policy.link_changed(0, origin, 40.0, up=False)
    assert policy.choose(stream(0), 60.0) == NOWHERE
    assert not policy.retries
    assert not policy.hears_freezes


def test_static_shares_pops_among_origins_at_one_place() -> None:
    bench = Bench()
    bench.around.slots = [300, 100, 100]
    bench.around.rtt_ms = [[5.0, 5.0, 9.0]] * 400
    policy = Static(bench.around)
    chosen = Counter(policy.choose(stream(pop), 0.0) for pop in range(400))
    assert chosen[0] == pytest.approx(300, abs=4)
    assert chosen[1] == pytest.approx(100, abs=4)


def test_power_of_two_prefers_the_less_loaded() -> None:
    bench = Bench()
    policy = PowerOfTwo(bench.around)
    policy.tick(0.5, bench.board.heard, [])
    even = Counter(policy.choose(stream(0), 0.5) for _ in range(2000))
    assert even[0] > even[1] + even[2] - 200, "drawn by slots"
    for number in range(60):
        bench.sites[0].take(Stream(Arrival(0.0, 0, PriorityClass.BASIC, 1.0, 9.0), number))
    for tick in range(5, 8):
        bench.board.tick(tick * TICK_S)
    policy.tick(0.8, bench.board.heard, [])
    assert Counter(policy.choose(stream(0), 0.8) for _ in range(500))[0] > 100, "too early to know"
    policy.tick(2.0, bench.board.heard, [])
    loaded = Counter(policy.choose(stream(0), 2.0) for _ in range(2000))
    assert loaded[0] == pytest.approx(2000 / 4, rel=0.2), "only when it is drawn twice"


def test_none_is_asked_twice_nor_when_it_is_silent() -> None:
    bench = Bench()
    policy = PowerOfTwo(bench.around)
    assert {policy.choose(stream(0, tried=0b101), 1.0) for _ in range(50)} == {1}
    assert policy.choose(stream(0, tried=0b111), 1.0) == NOWHERE
    bench.silence(1)
    assert policy.choose(stream(0, tried=0b101), 1.5) == NOWHERE


def test_lp_hourly_draws_by_the_program() -> None:
    bench = Bench(demand=(60, 20, 60, 40))
    policy = LpHourly(bench.around)
    policy.begin(0.0)
    assert bench.calls == [3600.0]
    assert {policy.choose(stream(3), 0.0) for _ in range(50)} == {2}
    london = Counter(policy.choose(stream(2), 0.0) for _ in range(3000))
    assert london[1] / 3000 == pytest.approx(50 / 60, abs=0.03), "its 50 slots, of 60"
    assert london[0] / 3000 == pytest.approx(10 / 60, abs=0.03)
    assert not policy.retries


def test_greedy_goes_on_to_the_nearest_of_the_rest() -> None:
    bench = Bench(demand=(60, 20, 40, 0))
    policy = Greedy(bench.around)
    policy.begin(0.0)
    assert bench.calls == [300.0]
    assert {policy.choose(stream(2), 0.0) for _ in range(20)} == {1}
    assert policy.choose(stream(2, tried=0b010), 0.0) == 0
    assert policy.choose(stream(2, tried=0b011), 0.0) == 2
    assert policy.choose(stream(2, tried=0b111), 0.0) == NOWHERE
    assert {policy.choose(stream(3), 0.0) for _ in range(20)} == {2}, "nobody there: the nearest"
