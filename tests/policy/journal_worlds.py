"""Plans of small networks, as IRS would put them into its journal."""

import random
from collections.abc import Iterator

import msgspec

from edged.media.routing import Match, OriginState, Rule
from edged.policy.flows import PLANS_PER_CHECKPOINT, LinkLimit
from edged.policy.migration import Migration
from edged.policy.move_orders import MovesAsked, digest_of_moves
from edged.policy.move_refusals import RefusedMove
from edged.policy.moves import MoveInputs, UnitMoves
from edged.policy.plan_journal import (
    MovesRecord,
    PlanInputs,
    PlanRecord,
    RulesRecord,
    ShedsRecord,
    TablesRecord,
    digest_of,
    record_tables,
)
from edged.policy.planner import LeasePlan, OriginSupply, PlanPolicy, PopDemand
from edged.policy.pop_needs import BoundDemand
from edged.policy.pushed_tables import (
    Push,
    Pushed,
    TableDigests,
    Variant,
    digest_of_rules,
    make_tables,
)
from edged.policy.shed_orders import ShedsAsked, digest_of_units
from edged.policy.shedding import of_pops, plan_sheds, without, without_leaving
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
            tables=push_tables(plan, number),
        )  # fmt: skip


RULES = (Rule(name="vip", match=Match(tag="vip"), avoid=("ams",), on_full="preempt"),)
VARIANTS = (Variant(2, knows_kept=True), Variant(1, knows_kept=True), Variant(1, knows_kept=False))


def rules_record() -> RulesRecord:
    """Of the rules that all the plans are pushed with."""
    return RulesRecord(digest=digest_of_rules(RULES), rules=RULES)


def push_tables(plan: LeasePlan, number: int) -> TablesRecord:
    """To all PoPs but one, of different versions."""
    push = Push(
        epoch=EPOCH, version=number + 1, issued=BEGAN_UNIX + number + 0.5, ttl_s=30.0,
        lease_ttl_s=10.0,
    )  # fmt: skip
    pops = [pop for place, pop in enumerate(sorted(plan.leases)) if place != number % 6]
    variants = {pop: VARIANTS[place % 3] for place, pop in enumerate(pops)}
    tables = make_tables(push, plan.leases, RULES, variants)
    pushed = Pushed(push=push, rules=RULES, variants=variants, tables=tables)
    return record_tables(pushed, TableDigests())


def bind(rng: random.Random, pops: list[PopDemand]) -> list[PopDemand]:
    """Some of what is at `fra` may go to one other origin alone, or not at all."""
    return [
        msgspec.structs.replace(
            pop,
            bound=(
                BoundDemand(first=("nyc",), units={"fra": (0, 0, there // 2)}),
                BoundDemand(
                    first=("ams",),
                    then=("fra",),
                    units={"fra": (0, 0, there // 3)},
                    fixed={"fra": (0, 0, rng.randrange(3))},
                ),
            ),
        )
        for pop in pops
        for _, _, there in pop.units.values()
    ]


def make_moves(
    count: int,
    *,
    seed: int = 1,
    first: int = 0,
    per_checkpoint: int = PLANS_PER_CHECKPOINT,
    rules: bool = True,
) -> Iterator[MovesRecord]:
    """Plans of moves, one after the other; `rules`: as of format 3."""
    rng, migration = random.Random(seed), Migration()  # noqa: S311 - no secret
    for number in range(first, first + count):
        given = make_inputs(rng)
        pops = bind(rng, given.pops) if rules else given.pops
        refused = tuple(RefusedMove(pop.pop, "fra", "ams", "basic") for pop in pops[: number % 3])
        inputs = MoveInputs(
            origins=given.origins, pops=pops, links=given.links, budget=30,
            reserve_fraction=0.01, gain_ms_min=5.0, drains=True, rules=rules,
            refused=refused if rules else (),
        )  # fmt: skip
        cold = number % per_checkpoint == 0
        if cold:
            migration.restart()
        moves = migration.plan(inputs.problem())
        asked = None
        if moves:
            told = tuple(sorted({move.pop for move in moves})[:4])
            asked = MovesAsked(
                number=number, deadline=BEGAN_UNIX + 9, left_s=4.0, moves_per_s=7.5, picks_max=5,
                told=told, digest=b"",
            )  # fmt: skip
            asked = msgspec.structs.replace(asked, digest=asked.remake(moves))
        yield MovesRecord(
            number=number, unix=BEGAN_UNIX + number, epoch=EPOCH, cold=cold, inputs=inputs,
            failure="", digest=digest_of_moves(moves), asked=asked,
        )  # fmt: skip


def make_sheds(count: int, *, seed: int = 1) -> Iterator[MovesRecord]:
    """Plans of moves over a link that is too small: of three two by which something has to go."""
    rng, migration, solver = random.Random(seed), Migration(), FlowSolver()  # noqa: S311
    link = LinkLimit(
        name="x", mbps=20.0, mbps_per_unit=5.0, pairs=tuple((f"pop{n}", "fra") for n in range(5))
    )
    moves: list[UnitMoves] = []
    for number in range(count):
        given = make_inputs(rng)
        origins = [msgspec.structs.replace(each, room=(2, 1, 0)) for each in given.origins]
        names = [each.origin for each in origins]
        refused = (RefusedMove(given.pops[0].pop, names[0], names[-1]),) if number % 2 else ()
        lasting = refused if number % 4 == 1 else ()
        inputs = MoveInputs(
            origins=[msgspec.structs.replace(each, state=OriginState.UP) for each in origins],
            pops=given.pops, links=(link,), budget=30, reserve_fraction=0.01, gain_ms_min=5.0,
            drains=True, rules=True, refused=refused,
        )  # fmt: skip
        leaving = list(moves)
        of_sheds = msgspec.structs.replace(inputs, refused=lasting).problem()
        named = plan_sheds(without_leaving(of_sheds, leaving), solver.solve)
        gone = named if number % 3 else []
        problem = of_sheds if gone else inputs.problem()
        moves = migration.plan(without(problem, gone))
        asked = None
        if gone:
            sheds_of_pops = of_pops(problem, gone)
            told = tuple(sorted({each.pop for each in sheds_of_pops}))
            asked = ShedsAsked(epoch=EPOCH, number=number, targets_max=3, told=told, digest=b"")
            asked = msgspec.structs.replace(asked, digest=asked.remake(sheds_of_pops, inputs.pops))
        sheds = ShedsRecord(
            leaving=leaving, digest=digest_of_units(named), refused=lasting, gone=bool(gone),
            asked=asked,
        )  # fmt: skip
        yield MovesRecord(
            number=number, unix=BEGAN_UNIX + number, epoch=EPOCH, cold=number == 0, inputs=inputs,
            failure="", digest=digest_of_moves(moves), asked=None, sheds=sheds,
        )  # fmt: skip
