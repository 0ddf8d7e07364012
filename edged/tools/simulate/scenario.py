"""Scenarios of the simulator: one frozen Struct per TOML table, and the world that they run on.

A scenario names its world, a file beside it, so that several share one.
"""

import typing
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from edged.errors import ConfigError
from edged.media.routing import ORIGINS_MAX, Name
from edged.runtime.structs import Problem, convert_all, read_toml
from edged.tools.simulate.goals import find_goal_problems

POPS_MAX = 1000  # Ten times the network that edged is modelled on.
LINKS_MAX = 5000
EVENTS_MAX = 1000
SEEDS_MAX = 100
HOURS_MAX = 7 * 24.0
SLOTS_MAX = 1_000_000  # Streams are held in memory, about 400 B each.
FILE_BYTES_MAX = 2**20
# Arrivals in all are what a run takes time for: 10^7 are some minutes.
ARRIVALS_MAX = 50_000_000
SAMPLES_MAX = 100_000  # Each has a number per origin; more can't be seen in a plot.

PolicyName = Literal["static", "lp-hourly", "power-of-two", "greedy", "price", "leases", "rehoming"]
POLICIES: tuple[PolicyName, ...] = (
    "static",
    "lp-hourly",
    "power-of-two",
    "greedy",
    "price",
    "leases",
    "rehoming",
)

Hours = Annotated[float, Meta(ge=0, le=HOURS_MAX)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
Weight = Annotated[float, Meta(gt=0, le=1e6)]
Text = Annotated[str, Meta(max_length=200)]


class Pop(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A PoP of the world; `weight` is its share of the demand."""

    name: Name
    city: Text = ""
    latitude: Annotated[float, Meta(ge=-90, le=90)]
    longitude: Annotated[float, Meta(ge=-180, le=180)]
    utc_h: Annotated[float, Meta(ge=-12, le=14)]
    weight: Weight


class Origin(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An origin of the world; `share` is its part of all slots."""

    name: Name
    at: Name
    share: Weight
    domain: Text = ""


class Link(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A link of the backbone; `gbps` in each direction."""

    a: Name
    b: Name
    gbps: Annotated[float, Meta(gt=0, le=1e6)]

    @property
    def name(self) -> str:
        """As events name it: "lhr-nyc"; either order will do there."""
        return f"{self.a}-{self.b}"


class WorldFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file that `world` of a scenario names."""

    pops: Annotated[tuple[Pop, ...], Meta(min_length=1, max_length=POPS_MAX)]
    origins: Annotated[tuple[Origin, ...], Meta(min_length=1, max_length=ORIGINS_MAX)]
    links: Annotated[tuple[Link, ...], Meta(max_length=LINKS_MAX)] = ()


class DemandConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[demand]`: streams that ask for a place.

    `load`: the expected peak of concurrent streams over the slots of all origins. Durations and
    bitrates are log-normal; `sigma` is the standard deviation of the logarithm.
    """

    slots: Annotated[int, Meta(ge=10, le=SLOTS_MAX)] = 100_000  # Of all origins.
    load: Annotated[float, Meta(gt=0, le=10)] = 1.0
    duration_mean_s: Annotated[float, Meta(ge=10, le=86_400)] = 3600.0
    duration_sigma: Annotated[float, Meta(ge=0, le=3)] = 1.0
    mbps_mean: Annotated[float, Meta(gt=0, le=100)] = 6.0
    mbps_sigma: Annotated[float, Meta(ge=0, le=2)] = 0.35
    partner: Fraction = 0.05
    affiliate: Fraction = 0.25  # The rest is basic.
    night: Fraction = 0.25  # Demand at the lowest, over that at the peak.
    peak_hour: Annotated[float, Meta(ge=0, lt=24)] = 20.0  # Local time.

    def __post_init__(self) -> None:
        """Raise ValueError where keys contradict each other."""
        if self.partner + self.affiliate > 1:
            raise ValueError(
                f"partner {self.partner:g} + affiliate {self.affiliate:g} must not exceed 1"
            )


class IrsConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[irs]`: keys as in IRS's own file; `telemetry_age_s`: how old what it knows is."""

    push_interval_s: Annotated[float, Meta(ge=0.5, le=60)] = 5.0
    telemetry_age_s: Annotated[float, Meta(ge=0, le=120)] = 1.0
    lease_ttl_s: Annotated[float, Meta(ge=1, le=600)] = 15.0
    table_ttl_s: Annotated[float, Meta(ge=1, le=3600)] = 30.0
    reserve_fraction: Annotated[float, Meta(ge=0, le=0.5)] = 0.002
    link_use_max: Annotated[float, Meta(ge=0, le=1)] = 0.88  # 0: IRS knows nothing of links.

    def __post_init__(self) -> None:
        """Raise ValueError where keys contradict each other."""
        if self.lease_ttl_s < 2 * self.push_interval_s:
            raise ValueError(
                f"lease_ttl_s {self.lease_ttl_s:g} must be at least twice push_interval_s"
                f" {self.push_interval_s:g}, or leases expire between pushes"
            )


class _Event(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    """What happens `at_h` hours after the start, and is over `for_h` later (0: never)."""

    at_h: Hours
    for_h: Hours = 0.0


class OriginDead(_Event, frozen=True, kw_only=True, tag="origin-dead"):
    """An origin's process is killed: its sessions break, its streams have to go elsewhere."""

    origin: Name


class OriginFrozen(_Event, frozen=True, kw_only=True, tag="origin-frozen"):
    """An origin stops without a word: sessions stand, nothing makes progress."""

    origin: Name


class CapacityLost(_Event, frozen=True, kw_only=True, tag="capacity-lost"):
    """An origin has only this part of its slots; who holds one keeps it."""

    origin: Name
    left: Fraction


class LinkCut(_Event, frozen=True, kw_only=True, tag="link-cut"):
    """A link of the backbone is gone: routes change (IRS does not steer them)."""

    link: Text


class IrsDead(_Event, frozen=True, kw_only=True, tag="irs-dead"):
    """IRS says nothing; leases expire."""


class StaleTelemetry(_Event, frozen=True, kw_only=True, tag="stale-telemetry"):
    """What IRS knows is so old, heartbeats that it hears included."""

    age_s: Annotated[float, Meta(ge=0, le=120)]


class FlashCrowd(_Event, frozen=True, kw_only=True, tag="flash-crowd"):
    """So many times as many streams begin at these PoPs (none named: everywhere)."""

    pops: Annotated[tuple[Name, ...], Meta(max_length=POPS_MAX)] = ()
    times: Annotated[float, Meta(gt=0, le=100)]


class Upgrade(_Event, frozen=True, kw_only=True, tag="upgrade"):
    """Origins are drained and restarted one after the other (none named: all)."""

    origins: Annotated[tuple[Name, ...], Meta(max_length=ORIGINS_MAX)] = ()
    drain_s: Annotated[float, Meta(ge=1, le=7200)] = 600.0
    restart_s: Annotated[float, Meta(ge=1, le=3600)] = 20.0
    pause_s: Annotated[float, Meta(ge=0, le=7200)] = 60.0  # Before the next.


Event = (
    OriginDead
    | OriginFrozen
    | CapacityLost
    | LinkCut
    | IrsDead
    | StaleTelemetry
    | FlashCrowd
    | Upgrade
)
KINDS: dict[str, type[Event]] = {
    str(kind.__struct_config__.tag): kind for kind in typing.get_args(Event)
}


class Scenario(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file."""

    name: Text
    world: Text
    seeds: Annotated[
        tuple[Annotated[int, Meta(ge=0, le=2**31)], ...], Meta(min_length=1, max_length=SEEDS_MAX)
    ] = (1,)
    policies: Annotated[tuple[PolicyName, ...], Meta(min_length=1)] = POLICIES
    start_hour: Annotated[float, Meta(ge=0, lt=24)] = 0.0  # UTC.
    hours: Annotated[float, Meta(gt=0, le=HOURS_MAX)] = 24.0
    warm_up_s: Annotated[float, Meta(ge=0, le=86_400)] = 1200.0  # Before it, uncounted.
    sample_s: Annotated[float, Meta(ge=1, le=3600)] = 60.0
    bound_s: Annotated[float, Meta(ge=1, le=86_400)] = 900.0  # Between solutions of the bound.
    demand: DemandConfig = DemandConfig()
    irs: IrsConfig = IrsConfig()
    events: Annotated[tuple[Event, ...], Meta(max_length=EVENTS_MAX)] = ()
    # What figures are to be, at least or at most, by policy and name.
    goals: dict[PolicyName, dict[str, Annotated[float, Meta(ge=0)]]] = {}


class Loaded(Struct, frozen=True):
    """A scenario with its world."""

    scenario: Scenario
    world: WorldFile


def load_scenario(path: Path) -> Loaded:
    """Read a scenario and its world; raises ConfigError that names every problem found."""
    problems: list[Problem] = []
    raw = read_toml(path, FILE_BYTES_MAX, problems)
    if raw is None:
        raise _refused(path, problems)
    events = _convert_events(raw.pop("events", []), problems)
    scenario = convert_all(raw, Scenario, "", problems)
    if scenario is not None and "\0" in scenario.world:
        problems.append(Problem("world", f"{scenario.world!r} cannot be the name of a file"))
    if scenario is None or problems:
        raise _refused(path, problems)
    scenario = msgspec.structs.replace(scenario, events=events)
    world_path = path.parent / scenario.world
    raw = read_toml(world_path, FILE_BYTES_MAX, problems)
    world = None if raw is None else convert_all(raw, WorldFile, "", problems)
    if world is None:
        raise _refused(world_path, problems)
    told = [f"{world_path}: {problem}" for problem in find_world_problems(world)]
    told += [f"{path}: {problem}" for problem in find_problems(scenario, world)]
    if told:
        raise ConfigError("\n".join(told))
    return Loaded(scenario, world)


def find_world_problems(world: WorldFile) -> list[str]:
    """Say what is wrong with a world beyond its types."""
    pops = {pop.name for pop in world.pops}
    problems = _repeated("pops", [pop.name for pop in world.pops])
    problems += _repeated("origins", [origin.name for origin in world.origins])
    problems += _repeated("links", ["-".join(sorted((each.a, each.b))) for each in world.links])
    problems += [
        f"origins.at: {origin.name} is at {origin.at!r}, which is none of the {len(pops)} pops"
        for origin in world.origins
        if origin.at not in pops
    ]
    for link in world.links:
        problems += [
            f"links: {link.name} ends at {end!r}, which is none of the {len(pops)} pops"
            for end in (link.a, link.b)
            if end not in pops
        ]
        if link.a == link.b:
            problems.append(f"links: {link.name} joins a PoP with itself")
    return problems


def find_problems(scenario: Scenario, world: WorldFile) -> list[str]:
    """Say where a scenario contradicts itself or its world."""
    known = {
        "origin": {origin.name for origin in world.origins},
        "pop": {pop.name for pop in world.pops},
        "link": {name for each in world.links for name in (each.name, f"{each.b}-{each.a}")},
    }
    problems = _repeated("policies", scenario.policies)
    problems += _repeated("seeds", [str(seed) for seed in scenario.seeds])
    problems += find_goal_problems(scenario.goals, scenario.policies)
    for index, event in enumerate(scenario.events):
        where = f"events[{index}]"
        if event.at_h >= scenario.hours:
            problems.append(
                f"{where}.at_h: {event.at_h:g} is not before the end, {scenario.hours:g}"
            )
        problems += [
            f"{where}.{what}: {name!r} is none of the world's {len(known[what])} {what}s"
            for what, name in _named(event)
            if name not in known[what]
        ]
        if isinstance(event, FlashCrowd | StaleTelemetry) and not event.for_h:
            problems.append(f"{where}.for_h: 0 is not allowed here: say when it is over")
    total_h = scenario.hours + scenario.warm_up_s / 3600
    times = max((e.times for e in scenario.events if isinstance(e, FlashCrowd)), default=1.0)
    demand = scenario.demand
    streams = demand.slots * demand.load * max(1.0, times) * 3600 / demand.duration_mean_s * total_h
    if streams > ARRIVALS_MAX:
        problems.append(
            f"demand: {streams:.0f} streams in {total_h:g} hours may exceed {ARRIVALS_MAX}:"
            " fewer slots or hours, or longer streams"
        )
    samples = scenario.hours * 3600 / min(scenario.sample_s, scenario.bound_s)
    if samples > SAMPLES_MAX:
        problems.append(f"sample_s, bound_s: {samples:.0f} samples exceed {SAMPLES_MAX}")
    return problems


def _refused(path: Path, problems: Sequence[Problem]) -> ConfigError:
    return ConfigError("\n".join(f"{path}: {problem}" for problem in problems))


def _named(event: Event) -> list[tuple[str, str]]:
    """What an event speaks of: kind of thing and name."""
    match event:
        case OriginDead() | OriginFrozen() | CapacityLost():
            return [("origin", event.origin)]
        case LinkCut():
            return [("link", event.link)]
        case FlashCrowd():
            return [("pop", name) for name in event.pops]
        case Upgrade():
            return [("origin", name) for name in event.origins]
        case _:
            return []


def _repeated(where: str, names: Sequence[str]) -> list[str]:
    counts = Counter(names)
    return [f"{where}: {name} is there {n} times" for name, n in counts.items() if n > 1]


def _convert_events(raw: object, problems: list[Problem]) -> tuple[Event, ...]:
    if not isinstance(raw, list) or len(raw) > EVENTS_MAX:
        problems.append(Problem("events", f"must be tables [[events]], {EVENTS_MAX} at most"))
        return ()
    events = []
    for index, table in enumerate(raw):
        key = f"events[{index}]"
        kind = table.get("kind") if isinstance(table, dict) else None
        if (wanted := KINDS.get(str(kind))) is None:
            what = "is missing" if kind is None else f"{kind!r} is not allowed"
            problems.append(Problem(f"{key}.kind", f"{what}; one of {', '.join(KINDS)}"))
            continue
        rest = {name: value for name, value in table.items() if name != "kind"}
        event: Event | None = convert_all(rest, wanted, key, problems)
        if event is not None:
            events.append(event)
    return tuple(events)
