"""Plans of small networks, as IRS would put them into its journal."""

import random
from collections.abc import Iterator

from edged.media.routing import OriginState
from edged.policy.flows import PLANS_PER_CHECKPOINT, LinkLimit
from edged.policy.plan_journal import PlanInputs, PlanRecord, digest_of
from edged.policy.planner import OriginSupply, PlanPolicy, PopDemand
from edged.policy.solver import FlowSolver

BEGAN_UNIX = 1_790_000_000.0
EPOCH = 7


def make_inputs(rng: random.Random, policy: PlanPolicy = "leases") -> PlanInputs:
    """Three origins, five PoPs, a link; some of it scarce."""
    origins = [
        OriginSupply(
            origin=name,
            address=f"{name}:1",
            state=rng.choice((OriginState.UP, OriginState.UP, OriginState.DRAIN)),
            slots_total=100,
            room=(room, room - 1, room - 2),
        )
        for name in ("ams", "fra", "nyc")
        for room in (rng.randrange(2, 60),)
    ]
    pops = [
        PopDemand(
            pop=f"pop{number}/0",
            units={"fra": (rng.randrange(3), rng.randrange(3), rng.randrange(20))},
            arrivals_per_s=rng.choice((0.0, 0.4, 9.7)),
            rtt_ms={each.origin: rng.uniform(1, 90) for each in origins},
        )
        for number in range(5)
    ]
    link = LinkLimit(name="x", mbps=400.0, mbps_per_unit=5.0, pairs=(("pop0", "nyc"),))
    return PlanInputs(
        origins=origins, pops=pops, links=(link,), policy=policy, reserve_fraction=0.01,
        horizon_s=10.0,
    )  # fmt: skip


def make_records(
    count: int, *, seed: int = 1, first: int = 0, per_checkpoint: int = PLANS_PER_CHECKPOINT
) -> Iterator[PlanRecord]:
    """Plans one after the other, the solver cold each `per_checkpoint`, the first with it."""
    rng, solver = random.Random(seed), FlowSolver()  # noqa: S311 - no secret
    for number in range(first, first + count):
        policy: PlanPolicy = "proportional" if number % 7 == 5 else "leases"
        inputs = make_inputs(rng, policy)
        cold = number % per_checkpoint == 0
        if cold:
            solver.restart()
        plan = inputs.make_plan(solver.solve)
        yield PlanRecord(
            number=number, unix=BEGAN_UNIX + number, epoch=EPOCH, version=number + 1, cold=cold,
            inputs=inputs, failure=plan.failure, digest=digest_of(plan),
        )  # fmt: skip
