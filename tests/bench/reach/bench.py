"""Replicas of channels in the simulator's world: 100 PoPs, 10 origins, an audience by chance.

Channels have as many viewers as Zipf's law gives them. Each has a home, a PoP's city, and its
viewers are the more at a PoP the more people are there and the nearer that is to its home; of big
channels some are everywhere. Viewers are 2 to 25 ms from their PoP.
"""

import math
import random
import time
from pathlib import Path

import msgspec
import numpy as np
from msgspec import Struct

from edged.irs.reach import STEP_CHANNELS
from edged.media.reach import RTT_BOUNDS_MS, AudienceRow
from edged.policy.reach import TURNS, ReachPlanner
from edged.policy.reach_config import ReachConfig
from edged.policy.reach_distances import estimate_ms
from edged.policy.reach_plan import ReachPlan, ReachPop
from edged.runtime.process import settle_memory
from edged.tools.simulate.geography import Geography
from edged.tools.simulate.scenario import Origin, WorldFile

WORLD = Path(__file__).parents[3] / "config/scenarios/world.toml"
BIG_VIEWERS = 2000
LADDER = {"v0": 6.0, "v1": 3.0, "v2": 1.2, "v3": 0.4}  # Mbps.
SOUND_MBPS = 0.13
WATCHED = (0.45, 0.3, 0.2, 0.05)  # Of the viewers, of each of these.
HOME_MS = 60.0  # So far from its home a channel has 1/e of its share of viewers.
TAIL_MS = (2.0, 25.0)


class Figures(Struct, frozen=True, kw_only=True):
    """Of one seed."""

    channels: int
    planned: int
    big: int  # Channels with BIG_VIEWERS, of which the rest tells.
    replicas: float  # In the mean.
    replicas_most: int
    pulled: float  # PoPs that pull-through would have a copy at.
    covered: float  # Part of the viewers who are within 40 ms of a replica, at their worst channel,
    covered_mean: float  # and of all of them.
    from_origins: float  # Copies that leave an origin, over those of pull-through.
    carried: float  # Copies times round trips that they are carried over, over pull-through's.
    first_ms: float  # Round trip of a PoP's first viewer's first part beyond the PoP, in the mean,
    first_pulled_ms: float  # and with pull-through.
    plan_s: float  # CPU of the first plan,
    replan_s: float  # and of the dearest of those after it, when viewers change by 5 % at random.
    looked_at: int  # Channels, by that.
    hold_mbps: float  # What replicas hold that nobody watches there,
    whole_mbps: float  # and what that would be of whole ladders.
    step_s: float  # The longest that the loop was held up.
    changed: int  # Orders that changed when all viewers changed by 5 % at random.


class _World:
    def __init__(self) -> None:
        self.file = msgspec.toml.decode(WORLD.read_bytes(), type=WorldFile)
        self.to_origin = Geography(self.file).rtt_ms
        everywhere = tuple(Origin(name=pop.name, at=pop.name, share=1.0) for pop in self.file.pops)
        self.between = np.array(
            Geography(msgspec.structs.replace(self.file, origins=everywhere)).rtt_ms
        )


def measure(seed: int, channels: int, viewers: int, everywhere: float) -> Figures:
    """Plan for one audience; `everywhere`: how much channels are liked however far from home."""
    rng = random.Random(seed)  # noqa: S311 - an audience by chance
    world = _World()
    pops, homes, tails = _draw(world, rng, channels, viewers, everywhere)
    names = [origin.name for origin in world.file.origins]
    between = estimate_ms(
        pops,
        measured={
            (one.pop, other.pop): float(world.between[a, b])
            for a, one in enumerate(pops)
            for b, other in enumerate(pops)
            if a != b
        },
        site_of_pop={},
        places={},
    )
    origins = {channel: names[home] for channel, home in homes.items()}
    settle_memory()  # As a process that has started does.
    planner = ReachPlanner(ReachConfig())
    plan_s, step_s = _plan(planner, pops, origins, between)
    plan, replan_s, looked_at = planner.plan, 0.0, 0
    for _ in range(2 * TURNS):
        used_s, again_s = _plan(planner, [_shake(pop, rng) for pop in pops], origins, between)
        replan_s, step_s = max(replan_s, used_s), max(step_s, again_s)
        looked_at = max(looked_at, planner.looked_at)
    told = dict(_orders(plan))
    changed = len(told.items() ^ dict(_orders(planner.plan)).items())
    return _figure(
        world,
        pops,
        tails,
        plan,
        Figures(
            channels=channels,
            planned=len(plan.channels),
            plan_s=plan_s,
            replan_s=replan_s,
            looked_at=looked_at,
            hold_mbps=plan.hold_mbps,
            whole_mbps=_whole_mbps(plan, pops),
            step_s=step_s,
            changed=changed,
            **dict.fromkeys(_LATER, 0),
        ),
    )


_LATER = (
    *("big", "replicas", "replicas_most", "pulled", "covered", "covered_mean"),
    *("from_origins", "carried", "first_ms", "first_pulled_ms"),
)


def _whole_mbps(plan: ReachPlan, pops: list[ReachPop]) -> float:
    """What replicas would cost if each came whole where nobody watches, as it is packaged."""
    audience = {pop.pop: pop.audience for pop in pops}
    whole = sum(LADDER.values()) + SOUND_MBPS
    return sum(
        whole - sum(LADDER[rung] for rung in row.rungs) - SOUND_MBPS
        if (row := audience[pop].get(reach.channel)) is not None
        else whole
        for reach in plan.channels.values()
        for pop in reach.replicas
    )


def _orders(plan: ReachPlan) -> list[tuple[tuple[str, str], object]]:
    return [
        ((pop, order.channel), (order.hold, order.via))
        for pop, orders in plan.orders.items()
        for order in orders
    ]


def _plan(
    planner: ReachPlanner, pops: list[ReachPop], origins: dict[str, str], between: np.ndarray
) -> tuple[float, float]:
    began = time.process_time()
    planner.begin(pops, origins, between)
    step_s = time.process_time() - began
    while not planner.is_done:
        at = time.process_time()
        planner.step(STEP_CHANNELS)
        step_s = max(step_s, time.process_time() - at)
    at = time.process_time()
    planner.finish()
    now = time.process_time()
    return now - began, max(step_s, now - at)


def _shake(pop: ReachPop, rng: random.Random) -> ReachPop:
    audience = {
        channel: msgspec.structs.replace(row, viewers=round(row.viewers * rng.uniform(0.95, 1.05)))
        for channel, row in pop.audience.items()
    }
    return msgspec.structs.replace(pop, audience=audience)


def _draw(
    world: _World, rng: random.Random, channels: int, viewers: int, everywhere: float
) -> tuple[list[ReachPop], dict[str, int], dict[tuple[str, str], list[float]]]:
    """PoPs with their audience; the origin of each channel; viewers' own round trips."""
    places = world.file.pops
    harmonic = sum(1 / rank for rank in range(1, channels + 1))
    audiences: list[dict[str, AudienceRow]] = [{} for _ in places]
    homes: dict[str, int] = {}
    tails: dict[tuple[str, str], list[float]] = {}
    for rank in range(1, channels + 1):
        channel = f"channel-{rank}"
        home = rng.choices(range(len(places)), [pop.weight for pop in places])[0]
        homes[channel] = min(range(len(world.file.origins)), key=lambda o: world.to_origin[home][o])
        weights = [
            pop.weight * (everywhere + math.exp(-world.between[place][home] / HOME_MS))
            for place, pop in enumerate(places)
        ]
        count = max(1, round(viewers / rank / harmonic))
        drawn = rng.choices(range(len(places)), weights, k=count)
        for place in set(drawn):
            its = drawn.count(place)
            rtts = [rng.uniform(*TAIL_MS) for _ in range(min(its, 50))]
            near = [0] * (len(RTT_BOUNDS_MS) + 1)
            for ms in rtts:
                near[sum(ms > bound for bound in RTT_BOUNDS_MS)] += 1
            chosen = rng.choices(tuple(LADDER), WATCHED, k=min(its, 50))
            audiences[place][channel] = AudienceRow(
                channel,
                its,
                tuple(near),
                {rung: chosen.count(rung) for rung in dict.fromkeys(chosen)},
                mbps=LADDER,
                base_mbps=SOUND_MBPS,
            )
            tails[places[place].name, channel] = rtts
    pops = [
        ReachPop(
            pop=f"{pop.name}/0",
            relay=f"{pop.name}.example.net:1950",
            relays_max=1000,
            holds_max=200,
            origin_ms={
                origin.name: world.to_origin[place][number]
                for number, origin in enumerate(world.file.origins)
            },
            audience=audiences[place],
        )
        for place, pop in enumerate(places)
    ]
    return pops, homes, tails


def _figure(
    world: _World,
    pops: list[ReachPop],
    tails: dict[tuple[str, str], list[float]],
    plan: ReachPlan,
    begun: Figures,
) -> Figures:
    number = {pop.pop: place for place, pop in enumerate(pops)}
    big = [reach for reach in plan.channels.values() if reach.viewers >= BIG_VIEWERS]
    covered, all_covered, all_viewers = list[float](), 0.0, 0
    sent = pulled = 0
    carried = carried_pulled = first = first_pulled = 0.0
    for reach in big:
        within = 0.0
        copies = [number[pop] for pop in reach.replicas]
        for place, pop in enumerate(pops):
            row = pop.audience.get(reach.channel)
            to_origin = pop.origin_ms[reach.origin]
            if pop.pop in reach.replicas:
                sent, carried = sent + 1, carried + to_origin
            if row is None:
                continue
            nearest = min(float(world.between[copy][place]) for copy in copies)
            rtts = tails[pop.pop.partition("/")[0], reach.channel]
            within += row.viewers * sum(ms + nearest <= 40 for ms in rtts) / len(rtts)
            pulled, carried_pulled = pulled + 1, carried_pulled + to_origin
            first_pulled += to_origin
            relay = reach.via.get(pop.pop)
            if relay is not None:
                way = float(world.between[number[relay]][place])
                carried, first = carried + way, first + way
            elif pop.pop not in reach.replicas:
                sent, carried, first = sent + 1, carried + to_origin, first + to_origin
        covered.append(within / reach.viewers)
        all_covered, all_viewers = all_covered + within, all_viewers + reach.viewers
    counts = [len(reach.replicas) for reach in big]
    return msgspec.structs.replace(
        begun,
        big=len(big),
        replicas=sum(counts) / len(big),
        replicas_most=max(counts),
        pulled=pulled / len(big),
        covered=min(covered),
        covered_mean=all_covered / all_viewers,
        from_origins=sent / pulled,
        carried=carried / carried_pulled,
        first_ms=first / pulled,
        first_pulled_ms=first_pulled / pulled,
    )
