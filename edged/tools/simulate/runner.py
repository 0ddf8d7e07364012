"""All runs of a scenario: each policy with each seed, and what came of them."""

import gc
from collections.abc import Callable, Sequence

import msgspec
from msgspec import Struct

from edged.tools.simulate.baselines import Greedy, LpHourly, PowerOfTwo, Static
from edged.tools.simulate.bound import Best, solve
from edged.tools.simulate.engine import Network
from edged.tools.simulate.figures import Figures, mean_of, worst_of
from edged.tools.simulate.goals import Verdict, judge
from edged.tools.simulate.incidents import schedule
from edged.tools.simulate.measuring import compare_rtt, measure
from edged.tools.simulate.policy import Policy, Surroundings
from edged.tools.simulate.production import Leases, Price
from edged.tools.simulate.recorder import Recorder, Sample
from edged.tools.simulate.rehoming import Rehoming
from edged.tools.simulate.scenario import FlashCrowd, Loaded, PolicyName

MAKERS: dict[PolicyName, Callable[[Surroundings], Policy]] = {
    "static": Static,
    "lp-hourly": LpHourly,
    "power-of-two": PowerOfTwo,
    "greedy": Greedy,
    "price": Price,
    "leases": Leases,
    "rehoming": Rehoming,
}


UNDISTURBED = "rtt_of_undisturbed"  # The figure that takes a second run.


class PolicyReport(Struct, frozen=True, kw_only=True):
    """One policy, over all seeds."""

    policy: PolicyName
    mean: Figures
    worst: Figures
    runs: list[Figures]


class Report(Struct, frozen=True, kw_only=True):
    """What `edged irs simulate` tells. The same scenario and seeds give the same, to the byte."""

    scenario: str
    seeds: list[int]
    hours: float
    slots: int
    pops: int
    origins: list[str]
    bound_served: float  # Of what was wanted, by the clairvoyant bound; mean over seeds.
    policies: list[PolicyReport]
    goals: list[Verdict] = []


class Played(Struct, frozen=True):
    """A report, and the first seed's samples by policy, for plots."""

    report: Report
    samples: dict[PolicyName, list[Sample]]


def play(loaded: Loaded, *, told: Callable[[PolicyName, int], None] | None = None) -> Played:
    """Run everything; `told` is called before each run."""
    scenario, world = loaded.scenario, loaded.world
    runs: dict[PolicyName, list[Figures]] = {name: [] for name in scenario.policies}
    samples: dict[PolicyName, list[Sample]] = {}
    served = []
    for seed in scenario.seeds:
        bounds: list[Best] | None = None
        for name in scenario.policies:
            if told is not None:
                told(name, seed)
            recorder = run(loaded, name, seed)
            if bounds is None:  # Of demand and slots alone: for all policies the same.
                bounds = [solve(kept.moment) for kept in recorder.kept]
                wanted = sum(sum(kept.moment.demand) for kept in recorder.kept)
                served.append(sum(bound.served for bound in bounds) / wanted if wanted else 1.0)
            ratio = None
            if UNDISTURBED in scenario.goals.get(name, {}):
                twin = run(without_events(loaded), name, seed)
                ratio = compare_rtt(recorder, twin, scenario.events)
            runs[name].append(
                measure(recorder, bounds, scenario.sample_s, rtt_of_undisturbed=ratio)
            )
            samples.setdefault(name, recorder.samples)
    policies = [
        PolicyReport(policy=name, mean=mean_of(found), worst=worst_of(found), runs=found)
        for name, found in runs.items()
    ]
    report = Report(
        scenario=scenario.name,
        seeds=list(scenario.seeds),
        hours=scenario.hours,
        slots=scenario.demand.slots,
        pops=len(world.pops),
        origins=[origin.name for origin in world.origins],
        bound_served=round(sum(served) / len(served), 6),
        policies=policies,
        goals=[
            verdict
            for each in policies
            for verdict in judge(scenario.goals, each.policy, each.mean, each.worst)
        ],
    )
    return Played(report, samples)


def run(loaded: Loaded, name: PolicyName, seed: int) -> Recorder:
    """One policy, one seed.

    Without the cycle collector: looking through 100,000 streams again and again took a third of
    the time, and there are no cycles to speak of.
    """
    network = Network(loaded, MAKERS[name], seed=seed)
    schedule(network)
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return network.run()
    finally:
        if was_enabled:
            gc.enable()


def without_events(loaded: Loaded) -> Loaded:
    """The same demand, and nothing befalls the network."""
    crowds = tuple(each for each in loaded.scenario.events if isinstance(each, FlashCrowd))
    return Loaded(msgspec.structs.replace(loaded.scenario, events=crowds), loaded.world)


def choose(
    loaded: Loaded, *, policies: Sequence[PolicyName] = (), seeds: int | None = None
) -> Loaded:
    """The same scenario with fewer policies, or with the seeds 1 to `seeds`."""
    scenario = loaded.scenario
    changed = msgspec.structs.replace(
        scenario,
        policies=tuple(policies) or scenario.policies,
        seeds=scenario.seeds if seeds is None else tuple(range(1, seeds + 1)),
    )
    return Loaded(changed, loaded.world)
