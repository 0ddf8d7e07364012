"""Leases: shares of what is free, never more than that, towards the best placement."""

import math
from functools import partial

import hypothesis
import msgspec
import pytest
from hypothesis import strategies as st

from edged.errors import SolverError
from edged.media.routing import UNITS_MAX, ByClass, OriginRow, OriginState
from edged.policy import planner
from edged.policy.flows import FlowProblem, FlowSolution, FlowSolve, LinkLimit
from edged.policy.planner import LeasePlan, OriginSupply, PopDemand
from edged.policy.pop_needs import BoundDemand
from edged.policy.solver import FlowSolver

# All that is free, for round numbers; what else is done has a test of its own.
plan_leases = partial(planner.plan_leases, margin_fraction=0.0)


def reserves(origins: list[OriginSupply], pops: list[PopDemand], fraction: float) -> dict[str, int]:
    """What a plan of `plan_leases` keeps for partners."""
    kept = planner.find_reserves(origins, pops, fraction_max=fraction, horizon_s=10.0)
    return {known.origin: units for known, units in zip(origins, kept, strict=True)}


def supply(
    origin: str, room: int, *, total: int = 1000, state: OriginState = OriginState.UP
) -> OriginSupply:
    return OriginSupply(
        origin=origin,
        address=f"{origin}:1",
        state=state,
        slots_total=total,
        room=(room, room, room),
    )


def fail(problem: FlowProblem) -> FlowSolution:
    raise SolverError("nothing works")


STATES = st.sampled_from(list(OriginState))
ROOM = st.integers(0, 500)
UNITS = st.tuples(st.integers(0, 30), st.integers(0, 60), st.integers(0, 300))
SUPPLIES = st.builds(
    OriginSupply,
    origin=st.sampled_from(["o1", "o2", "o3", "o4"]),
    address=st.just("h:1"),
    state=STATES,
    slots_total=ROOM,
    room=st.tuples(ROOM, ROOM, ROOM),
    ladders=st.none() | st.tuples(ROOM, ROOM, ROOM),
)
DEMANDS = st.builds(
    PopDemand,
    pop=st.sampled_from(["a/0", "b/0", "c/0", "c/1"]),
    units=st.dictionaries(st.sampled_from(["o1", "o2", "gone"]), UNITS),
    arrivals_per_s=st.floats(0, 1e4),
    rtt_ms=st.dictionaries(
        st.sampled_from(["o1", "o2", "o3", "gone"]),
        st.floats(0, 1e6) | st.sampled_from([math.inf, math.nan]),
        max_size=4,
    ),
)
PLACES = st.sampled_from(["o1", "o2", "o3", "gone"])
BOUNDS = st.builds(
    lambda names, cut, **given: BoundDemand(
        first=tuple(sorted(names[:cut])), then=tuple(sorted(names[cut:])), **given
    ),
    st.lists(PLACES, max_size=3, unique=True),
    st.integers(0, 3),
    units=st.dictionaries(PLACES, UNITS, max_size=2),
    arrivals_per_s=st.floats(0, 100),
    newcomers=st.booleans(),
)
BOUND_DEMANDS = st.builds(
    lambda pop, bound: msgspec.structs.replace(pop, bound=tuple(bound)),
    DEMANDS,
    st.lists(BOUNDS, max_size=3, unique_by=lambda each: (each.first, each.then)),
)
LINKS = st.lists(
    st.builds(
        LinkLimit,
        name=st.sampled_from(["cable", "dish"]),
        mbps=st.floats(-100, 3000),
        mbps_per_unit=st.just(6.0),
        pairs=st.lists(
            st.tuples(st.sampled_from(["a", "b", "c"]), st.sampled_from(["o1", "o2", "o3"])),
            unique=True,
        ).map(tuple),
    ),
    max_size=2,
    unique_by=lambda link: link.name,
).map(tuple)
WORLDS = st.tuples(
    st.lists(SUPPLIES, max_size=4, unique_by=lambda known: known.origin),
    st.lists(DEMANDS, max_size=4, unique_by=lambda known: known.pop),
    st.floats(0, 0.5),
)
World = tuple[list[OriginSupply], list[PopDemand], float]


def leased(plan: LeasePlan, pops: list[PopDemand], origin: str) -> dict[str, int]:
    """Units beyond what is there, by shard."""
    units = {}
    for pop in pops:
        (row,) = [row for row in plan.leases[pop.pop].rows if row.origin == origin]
        units[pop.pop] = row.quota - sum(pop.units.get(origin, (0, 0, 0)))
    return units


def supply_with(origin: str, room: int, ladders: int | None) -> OriginSupply:
    made = None if ladders is None else (2 * ladders, ladders, ladders)
    return msgspec.structs.replace(supply(origin, room), ladders=made)


def quotas_with(
    ladders: tuple[int | None, int | None], *, arrivals_per_s: float = 4.0, **given: object
) -> dict[str, int]:
    """Of a PoP to which ams1 is nearer than lhr1, beside one that is in London."""
    origins = [
        supply_with(name, 60, each) for name, each in zip(("ams1", "lhr1"), ladders, strict=True)
    ]
    pops = [
        PopDemand(pop="ams/0", arrivals_per_s=arrivals_per_s, rtt_ms=NEAR_AMS),
        PopDemand(pop="lhr/0", rtt_ms=NEAR_LHR),
    ]
    solve = FlowSolver().solve
    plan = plan_leases(origins, pops, reserve_fraction=0.0, solve=solve, **given)  # type: ignore[arg-type]
    assert not plan.failure
    return {row.origin: row.quota for row in plan.leases["ams/0"].rows}


def test_who_comes_gets_leases_where_ladders_are_still_made() -> None:
    need = math.ceil(40 + 2 * math.sqrt(40))
    assert quotas_with((None, None))["ams1"] >= need
    assert quotas_with((60, 60)) == quotas_with((None, None))
    assert quotas_with((0, 60))["lhr1"] >= need
    assert quotas_with((None, 60))["lhr1"] >= need, "it makes none at all"
    parted = quotas_with((30, 60))
    assert parted["ams1"] >= 29
    assert parted["lhr1"] >= need - 30
    assert quotas_with((0, 0)) == quotas_with((None, None)), "where none is made, as without"
    assert quotas_with((0, 1))["ams1"] >= need - 1, "what no ladder is for comes as near as it can"


def test_a_full_link_is_not_crossed_for_a_ladder() -> None:
    cable = LinkLimit(name="cable", mbps=60.0, mbps_per_unit=6.0, pairs=(("ams", "lhr1"),))
    assert quotas_with((0, 60), links=(cable,))["lhr1"] == 10


@hypothesis.given(WORLDS, st.sampled_from(["solver", "none", "fails"]))
@hypothesis.settings(max_examples=150, deadline=None)
def test_no_plan_hands_out_more_than_is_free(world: World, solver: str) -> None:
    origins, pops, reserve = world
    solve = {"solver": FlowSolver().solve, "none": None, "fails": fail}[solver]
    plan = plan_leases(origins, pops, reserve_fraction=reserve, solve=solve)
    assert set(plan.leases) == {pop.pop for pop in pops}
    assert plan.policy == ("leases" if solver == "solver" else "proportional")
    assert plan.failure == ("nothing works" if solver == "fails" else "")
    names = sorted(known.origin for known in origins)
    to_keep_at = reserves(sorted(origins, key=lambda known: known.origin), pops, reserve)
    for known in origins:
        assert all([row.origin for row in of.rows] == names for of in plan.leases.values())
        shares = leased(plan, pops, known.origin)
        kept = sum(of.kept.get(known.origin, 0) for of in plan.leases.values())
        partner = known.room[0]
        to_keep = to_keep_at[known.origin]
        free = max(0, min(partner - to_keep, *known.room))
        there = sum(sum(pop.units.get(known.origin, (0, 0, 0))) for pop in pops)
        if not known.state.takes_streams or not pops:
            assert (set(shares.values()) <= {0}, kept) == (True, 0)
        elif partner >= to_keep:
            assert min(shares.values()) >= 0
            assert sum(shares.values()) == free  # Nothing is idle.
            assert kept == partner - free
        else:  # Partners have eaten into what is kept for them: it fills again as streams leave.
            missing = min(to_keep - partner, there)
            assert sum(shares.values()) == free - missing
            assert kept == partner - free + missing
        for of in plan.leases.values():
            (row,) = [row for row in of.rows if row.origin == known.origin]
            assert (row.state, row.reserve) == (known.state, to_keep)
            assert row.quota >= 0
            assert all(units > 0 for units in of.kept.values())


@hypothesis.given(
    st.lists(SUPPLIES, max_size=4, unique_by=lambda known: known.origin),
    st.lists(BOUND_DEMANDS, max_size=4, unique_by=lambda known: known.pop),
    st.floats(0, 0.5),
    LINKS,
    st.sampled_from(["solver", "none"]),
)
@hypothesis.settings(max_examples=200, deadline=None)
def test_rules_hold_in_every_lease_and_no_more_than_is_free_is_given(
    origins: list[OriginSupply],
    pops: list[PopDemand],
    reserve: float,
    links: tuple[LinkLimit, ...],
    solver: str,
) -> None:
    solve = FlowSolver().solve if solver == "solver" else None
    plan = plan_leases(origins, pops, reserve_fraction=reserve, solve=solve, links=links)
    assert not plan.failure
    to_keep_at = reserves(sorted(origins, key=lambda known: known.origin), pops, reserve)
    for known in origins:
        shares = leased(plan, pops, known.origin)
        kept = {pop: of.kept.get(known.origin, 0) for pop, of in plan.leases.items()}
        partner, to_keep = known.room[0], to_keep_at[known.origin]
        free = max(0, min(partner - to_keep, *known.room)) if known.state.takes_streams else 0
        assert sum(max(0, share) for share in shares.values()) <= free
        if known.state.takes_streams:
            assert sum(shares.values()) + sum(kept.values()) <= max(0, partner)
        for pop in pops:
            if may_go(pop, known.origin) or may_go_with_shards(pops, pop, known.origin):
                continue
            assert shares[pop.pop] <= 0
    if plan.problem is not None and plan.solution is not None:
        for name, row in zip(plan.problem.pops, plan.solution.units, strict=True):
            for origin, units in zip(plan.problem.origins, row, strict=True):
                assert (name, origin) not in plan.problem.forbidden or not any(units)


def may_go(pop: PopDemand, origin: str) -> bool:
    """Whether anything of a shard may go to an origin, as its rules have it."""
    free = {each: list(units) for each, units in pop.units.items()}
    arrivals = pop.arrivals_per_s
    for bound in pop.bound:
        if origin in bound.first or origin in bound.then:
            return True
        arrivals -= bound.arrivals_per_s
        for at, units in bound.units.items():
            there = free.get(at, [0, 0, 0])
            free[at] = [max(0, one - less) for one, less in zip(there, units, strict=True)]
    newcomers = any(bound.newcomers for bound in pop.bound)
    return not newcomers or arrivals > 0 or any(map(any, free.values()))


def may_go_with_shards(pops: list[PopDemand], pop: PopDemand, origin: str) -> bool:
    """Shards of a PoP share what comes to it."""
    return any(other.name == pop.name and may_go(other, origin) for other in pops)


def pinned(origin: str, arrivals_per_s: float = 0.0, **given: object) -> BoundDemand:
    return BoundDemand(first=(origin,), arrivals_per_s=arrivals_per_s, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("solve", [None, FlowSolver().solve])
def test_who_may_go_nowhere_else_gets_what_there_is(solve: FlowSolve | None) -> None:
    """All of ams is pinned to lhr1, which is the nearest to lhr, too; lhr has ams1 beside."""
    pops = [
        PopDemand(
            pop="ams/0",
            arrivals_per_s=4.0,
            rtt_ms=NEAR_AMS,
            bound=(pinned("lhr1", 4.0, newcomers=True),),
        ),
        PopDemand(pop="lhr/0", arrivals_per_s=4.0, rtt_ms=NEAR_LHR),
    ]
    origins = [supply("ams1", 500), supply("lhr1", 60)]
    plan = plan_leases(origins, pops, reserve_fraction=0.0, solve=solve)
    quotas = {pop: {row.origin: row.quota for row in of.rows} for pop, of in plan.leases.items()}
    assert quotas["ams/0"]["ams1"] == 0  # Its rules forbid it.
    assert quotas["lhr/0"]["ams1"] == 500
    if solve is None:
        assert quotas["ams/0"]["lhr1"] == 30
    else:  # First what it needs, then its part of the rest.
        assert quotas["ams/0"]["lhr1"] >= 40 + 2 * math.sqrt(40)


@pytest.mark.parametrize("solve", [None, FlowSolver().solve])
def test_who_is_pinned_to_what_is_full_gets_nothing_elsewhere(solve: FlowSolve | None) -> None:
    bound = pinned("lhr1", 4.0, units={"ams1": (0, 0, 9)}, newcomers=True)
    pops = [
        PopDemand(pop="ams/0", units={"ams1": (0, 0, 9)}, arrivals_per_s=4.0, bound=(bound,)),
        PopDemand(pop="lhr/0"),
    ]
    plan = plan_leases(
        [supply("ams1", 500), supply("lhr1", 3)], pops, reserve_fraction=0.0, solve=solve
    )
    quotas = {row.origin: row.quota for row in plan.leases["ams/0"].rows}
    assert quotas["ams1"] == 9  # What is there already.
    if plan.problem is not None and plan.solution is not None:
        assert [(pin.pop, pin.origin) for pin in plan.problem.pins] == [("ams to lhr1", "lhr1")]
        assert sum(plan.solution.pins_unserved[0]) == 40 + 9 - 3


def test_what_is_displaced_gets_leases_where_its_rules_let_it_go() -> None:
    down = supply("ams1", 0, state=OriginState.DOWN)
    pops = [
        PopDemand(
            pop="ams/0",
            units={"ams1": (0, 0, 30)},
            rtt_ms={"lhr1": 5.0, "fra1": 9.0},
            bound=(BoundDemand(first=("fra1",), units={"ams1": (0, 0, 20)}),),
        ),
        PopDemand(pop="lhr/0", rtt_ms={"lhr1": 1.0, "fra1": 9.0}),
    ]
    plan = plan_leases(
        [down, supply("lhr1", 12), supply("fra1", 21)],
        pops,
        reserve_fraction=0.0,
        solve=FlowSolver().solve,
    )
    quotas = {row.origin: row.quota for row in plan.leases["ams/0"].rows}
    assert quotas["fra1"] >= 20
    assert plan.problem is not None
    assert plan.problem.pops == ["ams", "lhr"]
    assert [pin.pop for pin in plan.problem.pins] == ["ams to fra1"]


@hypothesis.given(WORLDS, LINKS)
@hypothesis.settings(max_examples=80, deadline=None)
def test_no_lease_goes_over_a_link_that_has_no_room(
    world: World, links: tuple[LinkLimit, ...]
) -> None:
    origins, pops, _ = world
    plan = plan_leases(origins, pops, reserve_fraction=0.0, solve=FlowSolver().solve, links=links)
    known = {supply.origin for supply in origins}
    for link in links:
        there = new = 0
        for pop in pops:
            for origin in known:
                if (pop.name, origin) in link.pairs:
                    there += sum(pop.units.get(origin, (0, 0, 0)))
                    new += leased(plan, [pop], origin)[pop.pop]
        assert new * 6 <= max(0.0, link.mbps - there * 6) + 1e-6


@hypothesis.given(WORLDS)
@hypothesis.settings(max_examples=30, deadline=None)
def test_the_same_inputs_give_the_same_plan(world: World) -> None:
    origins, pops, reserve = world
    plans = [
        plan_leases(given, [*pops], reserve_fraction=reserve, solve=FlowSolver().solve).leases
        for given in (origins, origins[::-1])
    ]
    assert plans[0] == plans[1]


def test_demand_gets_more_and_price_rises_with_use() -> None:
    """Without the solver: by arrivals alone."""
    pops = [
        PopDemand(pop="a/0", arrivals_per_s=2.0),
        PopDemand(pop="b/0", units={"o1": (0, 0, 7)}),
    ]
    rows = plan_leases(
        [supply("o1", 400), supply("o2", 1000), supply("o3", 0, total=0)],
        pops,
        reserve_fraction=0.002,
    ).leases
    assert [(row.origin, row.quota, row.reserve) for row in rows["a/0"].rows] == [
        ("o1", 299, 2),
        ("o2", 748, 2),
        ("o3", 0, 0),
    ]
    assert rows["b/0"].rows[0].quota == 7 + 99
    assert rows["a/0"].rows[0].price > rows["a/0"].rows[1].price == 0.0


@pytest.mark.parametrize("solve", [None, FlowSolver().solve])
def test_a_pop_of_several_shards_is_one_pop_until_publishers_come(
    solve: FlowSolve | None,
) -> None:
    """Four shards that nobody publishes at take no more than another PoP of one process."""
    pops = [PopDemand(pop=f"lhr/{shard}") for shard in range(1, 5)] + [PopDemand(pop="ams/0")]
    plan = plan_leases([supply("o1", 800)], pops, reserve_fraction=0.0, solve=solve)
    quotas = {pop: of.rows[0].quota for pop, of in plan.leases.items()}
    assert quotas == {"lhr/1": 100, "lhr/2": 100, "lhr/3": 100, "lhr/4": 100, "ams/0": 400}


@pytest.mark.parametrize("solve", [None, FlowSolver().solve])
def test_the_busy_shard_gets_more_than_its_siblings(solve: FlowSolve | None) -> None:
    pops = [PopDemand(pop="lhr/1", arrivals_per_s=7.0), PopDemand(pop="lhr/2")]
    plan = plan_leases([supply("o1", 800)], pops, reserve_fraction=0.0, solve=solve)
    assert {pop: of.rows[0].quota for pop, of in plan.leases.items()} == {"lhr/1": 750, "lhr/2": 50}


NEAR_AMS = {"ams1": 2.0, "lhr1": 10.0}
NEAR_LHR = {"ams1": 10.0, "lhr1": 2.0}


def test_free_slots_go_to_those_who_are_near() -> None:
    pops = [
        PopDemand(pop="ams/0", arrivals_per_s=1.0, rtt_ms=NEAR_AMS),
        PopDemand(pop="lhr/0", arrivals_per_s=1.0, rtt_ms=NEAR_LHR),
    ]
    origins = [supply("ams1", 60), supply("lhr1", 60)]
    plan = plan_leases(origins, pops, reserve_fraction=0.0, solve=FlowSolver().solve)
    for origin, near, far in (("ams1", "ams/0", "lhr/0"), ("lhr1", "lhr/0", "ams/0")):
        shares = leased(plan, pops, origin)
        assert shares[near] >= 17 + shares[far]  # 10 arrivals in 10 s, and twice their deviation.
        assert shares[far] > 0  # For a surge: no free slot is idle.


def test_scarce_slots_go_to_those_who_have_no_other_near() -> None:
    """Both are nearest to ams1, but only for par it is far to anywhere else."""
    pops = [
        PopDemand(pop="ams/0", arrivals_per_s=1.0, rtt_ms={"ams1": 2.0, "fra1": 6.0}),
        PopDemand(pop="par/0", arrivals_per_s=1.0, rtt_ms={"ams1": 8.0, "fra1": 90.0}),
    ]
    origins = [supply("ams1", 17), supply("fra1", 100)]
    plan = plan_leases(origins, pops, reserve_fraction=0.0, solve=FlowSolver().solve)
    assert leased(plan, pops, "ams1") == {"ams/0": 0, "par/0": 17}


@pytest.mark.parametrize("state", [OriginState.DOWN, OriginState.SUSPECT, OriginState.DRAIN, None])
def test_who_had_much_at_an_origin_that_fails_gets_room_elsewhere(
    state: OriginState | None,
) -> None:
    """None: it has left the table altogether."""
    lost: ByClass = (5, 10, 75)
    pops = [
        PopDemand(pop="ams/0", units={"dead1": lost}, rtt_ms=NEAR_AMS),
        PopDemand(pop="lhr/0", units={"lhr1": lost}, rtt_ms=NEAR_AMS),
    ]
    origins = [supply("ams1", 60), supply("lhr1", 40)]
    if state is not None:
        origins.append(supply("dead1", 0, state=state))
    plan = plan_leases(origins, pops, reserve_fraction=0.0, solve=FlowSolver().solve)
    total = {
        pop: sum(leased(plan, pops, name)[pop] for name in ("ams1", "lhr1")) for pop in plan.leases
    }
    assert total["ams/0"] >= 90
    assert total["lhr/0"] <= 10


def test_the_reserve_is_shared_among_partners_alone() -> None:
    pops = [PopDemand(pop="ams/0", units={"o1": (29, 0, 0)}), PopDemand(pop="lhr/0")]
    plan = plan_leases([supply("o1", 40)], pops, reserve_fraction=0.031, solve=FlowSolver().solve)
    assert leased(plan, pops, "o1") == {"ams/0": 5, "lhr/0": 4}
    assert {pop: of.kept for pop, of in plan.leases.items()} == {
        "ams/0": {"o1": 30},
        "lhr/0": {"o1": 1},
    }


def test_an_origin_of_its_own_reserve_keeps_no_second_one() -> None:
    """It says itself that the others have 40 less."""
    origin = OriginSupply(
        origin="o1", address="h:1", state=OriginState.UP, slots_total=1000, room=(60, 20, 20)
    )
    plan = plan_leases([origin], [PopDemand(pop="a/0")], reserve_fraction=0.002)
    assert plan.leases["a/0"].rows[0].quota == 20
    assert plan.leases["a/0"].kept == {"o1": 40}


def test_partners_in_the_reserve_take_from_what_the_others_may_refill() -> None:
    """Of 10 kept slots 7 are in use: as streams leave, the first 7 are not given to the others."""
    pops = [PopDemand(pop="a/0", units={"o1": (7, 0, 93)})]
    plan = plan_leases([supply("o1", 3, total=100)], pops, reserve_fraction=0.1)
    (row,) = plan.leases["a/0"].rows
    assert (row.quota, plan.leases["a/0"].kept) == (93, {"o1": 10})


def test_a_lie_about_slots_makes_no_table_that_a_pop_refuses() -> None:
    liar = supply("o1", UNITS_MAX, total=UNITS_MAX)
    plan = plan_leases([liar], [PopDemand(pop="a/0", units={"o1": (1, 2, 3)})], reserve_fraction=0)
    (row,) = plan.leases["a/0"].rows
    assert msgspec.convert(msgspec.to_builtins(row), OriginRow).quota == UNITS_MAX


def test_a_plan_says_how_it_came_about() -> None:
    pops = [PopDemand(pop="a/0", units={"o1": (0, 0, 9)}, arrivals_per_s=1.0)]
    plan = plan_leases(
        [supply("o1", 4)], pops, reserve_fraction=0.0, solve=FlowSolver().solve, horizon_s=10.0
    )
    assert plan.problem is not None
    assert plan.solution is not None
    assert plan.problem.demand == [(0, 0, 19)]
    assert plan.problem.capacity == [(13, 13, 13)]
    assert plan.solution.unserved == [[0.0, 0.0, 6.0]]


def test_nothing_and_nobody_can_be_planned_for() -> None:
    for solve in (None, FlowSolver().solve):
        assert plan_leases([], [], reserve_fraction=0.1, solve=solve).leases == {}
        alone = plan_leases([], [PopDemand(pop="a/0")], reserve_fraction=0.1, solve=solve)
        assert alone.leases["a/0"].rows == ()
        assert plan_leases([supply("o1", 9)], [], reserve_fraction=0.1, solve=solve).leases == {}


@pytest.mark.parametrize("solve", [None, FlowSolver().solve])
def test_a_margin_of_each_origin_is_in_no_lease(solve: FlowSolve | None) -> None:
    """What has been placed by the leases before is not in what the origins said."""
    origins = [supply("o1", 100), supply("o2", 1, total=100)]
    plan = planner.plan_leases(origins, [PopDemand(pop="a/0")], reserve_fraction=0.0, solve=solve)
    quotas = [row.quota for row in plan.leases["a/0"].rows]
    assert quotas == [100 - math.floor(1000 * planner.MARGIN_PART), 1]


@pytest.mark.parametrize("solve", [None, FlowSolver().solve])
def test_of_the_last_slots_of_all_hardly_a_margin_is_kept(solve: FlowSolve | None) -> None:
    """One that is full beside others that are not has the whole one, or who asks is refused."""
    pop = PopDemand(pop="a/0")
    full, empty = supply("o1", 20, total=10_000), supply("o2", 400, total=10_000)
    plan = planner.plan_leases([full, empty], [pop], reserve_fraction=0.0, solve=solve)
    assert [row.quota for row in plan.leases["a/0"].rows] == [0, 380]
    other = supply("o2", 10, total=10_000)
    plan = planner.plan_leases([full, other], [pop], reserve_fraction=0.0, solve=solve)
    assert [row.quota for row in plan.leases["a/0"].rows] == [17, 7]


def test_as_much_is_kept_for_partners_as_they_need_who_come() -> None:
    """At most the fraction, which is what is kept while nothing is known of them."""
    partners = PopDemand(pop="a/0", units={"o1": (90, 0, 10)}, arrivals_per_s=0.5)
    others = PopDemand(pop="b/0", units={"o1": (0, 0, 900)}, arrivals_per_s=99.0)
    unknown = PopDemand(pop="a/0", arrivals_per_s=99.0)
    origins = [supply("o1", 100), supply("o2", 100)]
    found = {
        name: planner.find_reserves(origins, pops, fraction_max=0.02, horizon_s=10.0)
        for name, pops in {"known": [partners, others], "unknown": [unknown], "none": []}.items()
    }
    # 0.45 a second, for 10 s: 4.5 and four deviations, where partners are; and one of each.
    assert found == {"known": [14, 1], "unknown": [20, 20], "none": [20, 20]}


def test_what_is_on_its_way_has_its_room() -> None:
    near, far = supply("o1", 50), supply("o2", 3)
    left = planner.without_coming([near, far], {"o1": 20, "o2": 5, "gone": 1})
    assert [origin.room for origin in left] == [(30, 30, 30), (0, 0, 0)]
    assert planner.without_coming([near], {}) == [near]
