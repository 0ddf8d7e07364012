"""Small networks to simulate in tests."""

import random
from pathlib import Path

import msgspec

from edged.tools.simulate.scenario import (
    DemandConfig,
    Event,
    IrsConfig,
    Link,
    Loaded,
    Origin,
    PolicyName,
    Pop,
    Scenario,
    WorldFile,
)

SCENARIOS = Path(__file__).parents[3] / "config" / "scenarios"
BRIEF_H = 0.05  # 1,800 ticks.

WORLD = WorldFile(
    pops=(
        Pop(name="nyc", latitude=40.7, longitude=-74.0, utc_h=-5.0, weight=2.0),
        Pop(name="bos", latitude=42.4, longitude=-71.1, utc_h=-5.0, weight=1.0),
        Pop(name="lhr", latitude=51.5, longitude=-0.1, utc_h=0.0, weight=2.0),
        Pop(name="nrt", latitude=35.7, longitude=139.7, utc_h=9.0, weight=2.0),
    ),
    origins=(
        Origin(name="nyc1", at="nyc", share=2.0, domain="us"),
        Origin(name="lhr1", at="lhr", share=1.0, domain="eu"),
        Origin(name="nrt1", at="nrt", share=1.0, domain="ap"),
    ),
    links=(
        Link(a="nyc", b="lhr", gbps=1.0),
        Link(a="nyc", b="nrt", gbps=1.0),
        Link(a="lhr", b="nrt", gbps=0.5),
    ),
)


def brief(
    *events: Event,
    slots: int = 200,
    load: float = 0.8,
    hours: float = BRIEF_H,
    policies: tuple[PolicyName, ...] = ("price", "leases"),
    seeds: tuple[int, ...] = (1,),
    irs: IrsConfig | None = None,
    duration_s: float = 120.0,
) -> Loaded:
    """Some minutes of a small network; its demand is the same all day."""
    scenario = Scenario(
        name="brief",
        world="none",
        seeds=seeds,
        policies=policies,
        hours=hours,
        warm_up_s=30.0,
        sample_s=10.0,
        bound_s=60.0,
        demand=DemandConfig(slots=slots, load=load, duration_mean_s=duration_s, night=1.0),
        irs=irs or IrsConfig(),
        events=events,
    )
    return Loaded(scenario, WORLD)


def without_links(loaded: Loaded) -> Loaded:
    """The same, with a way of its own between any two places."""
    return Loaded(loaded.scenario, msgspec.structs.replace(loaded.world, links=()))


def luck(seed: int) -> random.Random:
    """Chance that comes again."""
    return random.Random(seed)  # noqa: S311 - nothing secret
