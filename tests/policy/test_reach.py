"""Replicas and relays: worlds by chance, and what must hold in each."""

import math
import random

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from msgspec import structs

from edged.media.reach import RTT_BOUNDS_MS, AudienceRow, ReachOrder
from edged.policy.reach import (
    ADDS_MIN,
    IDLE_PLANS,
    KEEPS_AUDIENCE,
    Matrix,
    ReachPlan,
    ReachPlanner,
    ReachPop,
)
from edged.policy.reach_config import ReachConfig

CONFIG = ReachConfig(viewers_per_replica=10, replicas_max=3)
ORIGINS = ("fra1", "nyc1")


def row(channel: str, viewers: int, near: tuple[int, ...] = ()) -> AudienceRow:
    return AudienceRow(channel, viewers, near)


def pop_at(
    name: str,
    viewers: dict[str, int],
    *,
    origin_ms: float = 100.0,
    relays: int = 100,
    holds: int = 9,
) -> ReachPop:
    return ReachPop(
        pop=name,
        relay="127.0.0.1:1" if relays else "",
        relays_max=relays,
        holds_max=holds,
        origin_ms={"fra1": origin_ms},
        audience={channel: row(channel, count) for channel, count in viewers.items()},
    )


def line(pops: list[ReachPop], places_ms: list[float]) -> Matrix:
    """PoPs along a line."""
    at = np.array(places_ms)
    assert len(pops) == len(at)
    distances: Matrix = np.abs(at[:, None] - at[None, :])
    return distances


def plan(
    planner: ReachPlanner,
    pops: list[ReachPop],
    between_ms: Matrix,
    origins: dict[str, str] | None = None,
) -> ReachPlan:
    channels = {channel for pop in pops for channel in pop.audience}
    planner.begin(pops, origins or dict.fromkeys(channels, "fra1"), between_ms)
    while not planner.is_done:
        planner.step(3)
    return planner.finish()


def check(
    made: ReachPlan, pops: list[ReachPop], between_ms: Matrix, config: ReachConfig, *, fresh: bool
) -> None:
    """What holds of every plan; `fresh`: of a first one."""
    number = {pop.pop: place for place, pop in enumerate(pops)}
    holds: dict[str, int] = {}
    relayed: dict[str, int] = {}
    for channel, reach in made.channels.items():
        assert 0 < len(reach.replicas) <= config.replicas_max
        assert len(set(reach.replicas)) == len(reach.replicas)
        assert reach.viewers == sum(
            pop.audience[channel].viewers for pop in pops if channel in pop.audience
        )
        assert 0 <= reach.covered <= reach.viewers + 1e-6
        assert len(reach.replicas) <= reach.viewers / (KEEPS_AUDIENCE * config.viewers_per_replica)
        for pop in reach.replicas:
            holds[pop] = holds.get(pop, 0) + 1
            assert pops[number[pop]].origin_ms.get(reach.origin, math.inf) < math.inf
        for pop, relay in reach.via.items():
            relayed[relay] = relayed.get(relay, 0) + 1
            assert relay in reach.replicas, "a relay takes it from the origin"
            assert pop not in reach.replicas, "and what is relayed is not relayed on"
            here, there = pops[number[pop]], pops[number[relay]]
            assert there.relay
            row = here.audience.get(channel)
            assert not fresh or (row is not None and row.viewers > 0), "for nobody"
            ms = between_ms[number[relay], number[pop]]
            assert ms + config.margin_ms / 2 <= here.origin_ms[reach.origin]
    for pop, count in holds.items():
        assert count <= pops[number[pop]].holds_max
    for relay, count in relayed.items():
        assert count <= pops[number[relay]].relays_max
    for pop, orders in made.orders.items():
        assert len(orders) <= config.orders_per_pop_max
        assert len({order.channel for order in orders}) == len(orders), "one word on each channel"
        for order in orders:
            reach = made.channels[order.channel]
            assert order.hold is (pop in reach.replicas)
            assert order.via == reach.via.get(pop, "")
            assert not order.via or made.relays[order.via] == pops[number[order.via]].relay
    told = sum(len(reach.replicas) + len(reach.via) for reach in made.channels.values())
    assert told == sum(map(len, made.orders.values()))


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[ReachPop], Matrix, dict[str, str]]:
    rng = random.Random(draw(st.integers(0, 2**32)))  # noqa: S311 - a test's chance
    count, channels = draw(st.integers(1, 8)), draw(st.integers(1, 5))
    at = [(rng.uniform(0, 150), rng.uniform(0, 150)) for _ in range(count)]
    between = np.array([[math.dist(one, other) for other in at] for one in at])
    for _ in range(draw(st.integers(0, 5))):  # Not all of them are known.
        one, other = rng.randrange(count), rng.randrange(count)
        if one != other:
            between[one, other] = between[other, one] = math.inf
    pops = []
    for number in range(count):
        audience = {}
        for channel in map(str, range(channels)):
            if rng.random() < 0.6:
                viewers = rng.randrange(60)
                near = tuple(rng.randrange(9) for _ in range(rng.randrange(len(RTT_BOUNDS_MS) + 2)))
                audience[channel] = row(channel, viewers, near)
        pops.append(
            ReachPop(
                pop=f"p{number}/0",
                relay=rng.choice(("", "127.0.0.1:1")),
                relays_max=rng.randrange(4),
                holds_max=rng.randrange(4),
                origin_ms={o: rng.uniform(1, 200) for o in ORIGINS if rng.random() < 0.9},
                audience=audience,
            )
        )
    return pops, between, {channel: rng.choice(ORIGINS) for channel in map(str, range(channels))}


def shaken(pops: list[ReachPop], rng: random.Random, noise: float) -> list[ReachPop]:
    return [
        structs.replace(
            pop,
            audience={
                channel: structs.replace(
                    row, viewers=round(row.viewers * (1 + rng.uniform(-noise, noise)))
                )
                for channel, row in pop.audience.items()
            },
            origin_ms={
                name: ms * (1 + rng.uniform(-noise, noise)) for name, ms in pop.origin_ms.items()
            },
        )
        for pop in pops
    ]


@hypothesis.given(worlds(), worlds(), st.integers(1, 6))
def test_no_plan_exceeds_a_limit_or_makes_a_loop(
    one: tuple[list[ReachPop], Matrix, dict[str, str]],
    other: tuple[list[ReachPop], Matrix, dict[str, str]],
    orders: int,
) -> None:
    """Also when the plan before was for another world: PoPs and limits come and go."""
    config = structs.replace(CONFIG, orders_per_pop_max=orders)
    planner = ReachPlanner(config)
    for turn, (pops, between, origins) in enumerate((one, other, one, one)):
        # A way that was planned before stays for some plans when its last viewer has gone.
        check(plan(planner, pops, between, origins), pops, between, config, fresh=not turn)


# Not at random: at the very margins noise still moves a replica now and then.
@hypothesis.settings(derandomize=True)
@hypothesis.given(worlds(), st.integers(0, 2**32))
def test_plans_do_not_flap_with_noise(
    world: tuple[list[ReachPop], Matrix, dict[str, str]], seed: int
) -> None:
    pops, between, origins = world
    # Where limits bind, it is the order of channels that decides, and that is noise.
    pops = [structs.replace(pop, holds_max=99, relays_max=99) for pop in pops]
    rng = random.Random(seed)  # noqa: S311 - a test's chance
    worlds = [shaken(pops, rng, 0.02) for _ in range(2)]
    planner = ReachPlanner(CONFIG)
    seen = []
    for turn in range(12):
        made = plan(planner, worlds[turn % 2], between, origins)
        seen.append({name: (reach.replicas, reach.via) for name, reach in made.channels.items()})
    assert seen[-1] == seen[-2] == seen[-3] == seen[-4]


@hypothesis.given(worlds())
def test_more_replicas_never_reach_fewer(
    world: tuple[list[ReachPop], Matrix, dict[str, str]],
) -> None:
    pops, between, origins = world
    pops = [structs.replace(pop, holds_max=99) for pop in pops]
    before: dict[str, float] = {}
    for most in range(1, 6):
        planner = ReachPlanner(structs.replace(CONFIG, replicas_max=most, viewers_per_replica=1))
        made = plan(planner, pops, between, origins)
        for channel, covered in before.items():
            assert made.channels[channel].covered >= covered - 1e-6
        before = {name: reach.covered for name, reach in made.channels.items()}


def test_the_first_replica_reaches_most_and_the_next_what_it_does_not() -> None:
    names = ["a/0", "b/0", "c/0", "far/0"]
    pops = [pop_at(name, {"x": count}) for name, count in zip(names, (30, 10, 30, 30), strict=True)]
    between = line(pops, [0.0, 30.0, 60.0, 200.0])
    made = plan(ReachPlanner(CONFIG), pops, between).channels["x"]
    assert made.replicas == ("b/0", "far/0")
    assert made.covered == 100


def test_viewers_that_are_far_from_their_pop_count_where_a_copy_is_within_reach_of_them() -> None:
    pops = [pop_at("a/0", {}), pop_at("b/0", {"x": 60})]
    between = line(pops, [0.0, 15.0])
    near = structs.replace(pops[1], audience={"x": row("x", 60, (0, 0, 10, 20, 0, 30))})
    made = plan(ReachPlanner(CONFIG), [pops[0], near], between).channels["x"]
    assert made.replicas == ("b/0",)
    assert made.covered == 30  # Half of them are beyond 40 ms of anywhere.


def test_a_relay_is_taken_from_only_where_it_is_nearer_than_the_origin() -> None:
    pops = [
        pop_at("a/0", {"x": 100}, origin_ms=80),
        pop_at("b/0", {"x": 10}, origin_ms=80, holds=0),
        pop_at("c/0", {"x": 10}, origin_ms=24, holds=0),
    ]
    between = line(pops, [0.0, 20.0, 20.0])
    made = plan(ReachPlanner(CONFIG), pops, between)
    assert made.channels["x"].replicas == ("a/0",)
    assert made.channels["x"].via == {"b/0": "a/0"}
    assert made.orders == {
        "a/0": (ReachOrder("x", hold=True),),
        "b/0": (ReachOrder("x", via="a/0"),),
    }
    assert made.relays == {"a/0": "127.0.0.1:1"}


def test_the_last_viewer_who_comes_and_goes_changes_nothing() -> None:
    holder = pop_at("a/0", {"x": 100}, origin_ms=80)
    watched = pop_at("b/0", {"x": 1}, origin_ms=80, holds=0)
    empty = pop_at("b/0", {}, origin_ms=80, holds=0)
    between = line([holder, watched], [0.0, 20.0])
    planner = ReachPlanner(CONFIG)
    seen = [plan(planner, [holder, empty], between).channels["x"].via]
    for _ in range(4):
        turns = (watched, empty, empty)
        seen += [plan(planner, [holder, pop], between).channels["x"].via for pop in turns]
    assert seen[0] == {}
    assert seen[1:] == [{"b/0": "a/0"}] * 12
    for _ in range(IDLE_PLANS):
        made = plan(planner, [holder, empty], between)
    assert made.channels["x"].via == {}
    assert len(planner._idle) <= 1


@pytest.mark.parametrize(("ms", "stays"), [(77.4, True), (77.6, False)])
def test_a_relay_is_kept_until_it_is_no_nearer(ms: float, stays: bool) -> None:
    pops = [
        pop_at("a/0", {"x": 100}, origin_ms=80),
        pop_at("b/0", {"x": 10}, origin_ms=80, holds=0),
    ]
    planner = ReachPlanner(CONFIG)
    assert plan(planner, pops, line(pops, [0.0, 74.0])).channels["x"].via == {"b/0": "a/0"}
    made = plan(planner, pops, line(pops, [0.0, ms])).channels["x"]
    assert made.via == ({"b/0": "a/0"} if stays else {})
    assert plan(ReachPlanner(CONFIG), pops, line(pops, [0.0, ms])).channels["x"].via == {}


def test_replicas_stay_while_they_add_half_of_what_a_new_one_must() -> None:
    planner = ReachPlanner(CONFIG)

    def replicas(viewers: int) -> tuple[str, ...]:
        pops = [pop_at("a/0", {"x": 1000 - viewers}), pop_at("b/0", {"x": viewers})]
        return plan(planner, pops, line(pops, [0.0, 100.0])).channels["x"].replicas

    least = int(1000 * ADDS_MIN)
    assert replicas(least - 1) == ("a/0",)
    assert replicas(least) == ("a/0", "b/0")
    assert replicas(least // 2) == ("a/0", "b/0")
    assert replicas(least // 2 - 1) == ("a/0",)
    assert replicas(least - 1) == ("a/0",)


def test_much_better_places_are_gone_to() -> None:
    planner = ReachPlanner(structs.replace(CONFIG, replicas_max=1))

    def replicas(*viewers: int) -> tuple[str, ...]:
        names = ("a/0", "b/0")
        pops = [pop_at(name, {"x": count}) for name, count in zip(names, viewers, strict=True)]
        return plan(planner, pops, line(pops, [0.0, 100.0])).channels["x"].replicas

    assert replicas(60, 40) == ("a/0",)
    assert replicas(46, 54) == ("a/0",)
    assert replicas(40, 60) == ("b/0",)


def test_an_audience_that_goes_takes_its_replicas_with_it() -> None:
    planner = ReachPlanner(CONFIG)

    def replicas(viewers: int) -> tuple[str, ...]:
        pops = [pop_at("a/0", {"x": viewers})]
        made = plan(planner, pops, line(pops, [0.0])).channels.get("x")
        return () if made is None else made.replicas

    assert [replicas(9), replicas(10), replicas(7), replicas(6), replicas(9)] == [
        (),
        ("a/0",),
        ("a/0",),
        (),
        (),
    ]
    assert replicas(0) == ()
    assert planner.plan == ReachPlan()


def test_pops_that_hold_nothing_are_served_by_the_origin_or_a_relay() -> None:
    pops = [pop_at("a/0", {"x": 100}, holds=0), pop_at("b/0", {})]
    made = plan(ReachPlanner(CONFIG), pops, line(pops, [0.0, 10.0]))
    assert made.channels["x"].replicas == ("b/0",)
    assert made.channels["x"].via == {"a/0": "b/0"}
    assert made.channels["x"].covered == 100


@pytest.mark.parametrize("room", [1, 2])
def test_a_relay_serves_no_more_than_it_says(room: int) -> None:
    names = ["a/0", "b/0", "c/0", "d/0"]
    pops = [pop_at("a/0", {"x": 999}, relays=room)]
    pops += [pop_at(name, {"x": 5}, relays=0) for name in names[1:]]
    planner = ReachPlanner(CONFIG)
    for _ in range(2):
        made = plan(planner, pops, line(pops, [0.0, 1.0, 2.0, 3.0]))
        assert len(made.channels["x"].via) == room
    fewer = [structs.replace(pops[0], relays_max=room - 1), *pops[1:]]
    assert len(plan(planner, fewer, line(pops, [0.0, 1.0, 2.0, 3.0])).channels["x"].via) == room - 1


def test_a_channel_that_is_live_no_more_is_planned_no_more() -> None:
    pops = [pop_at("a/0", {"x": 100, "y": 100})]
    planner = ReachPlanner(CONFIG)
    assert plan(planner, pops, line(pops, [0.0])).channels.keys() == {"x", "y"}
    made = plan(planner, pops, line(pops, [0.0]), {"y": "fra1"})
    assert made.channels.keys() == {"y"}
    assert made.orders == {"a/0": (ReachOrder("y", hold=True),)}
