"""When moves are asked for: for what is wrong at once, and once; now and then to come nearer."""

import pytest

from edged.errors import SolverError
from edged.media.routing import ByClass, OriginState, PathProbe, PopTelemetry
from edged.policy import linear_program
from edged.policy.flows import PLANS_PER_CHECKPOINT, LinkLimit
from edged.policy.link_map import LinkConfig, LinkMap, SiteConfig
from edged.policy.move_planner import (
    AGAIN_S,
    LOOK_S,
    NEARER_S,
    SETTLE_S,
    WINDOW_S,
    MovePlanner,
)
from edged.policy.move_refusals import HOLD_S_MIN, RefusedMove
from edged.policy.moves import DRAIN, NEARER, UnitMoves
from edged.policy.planner import OriginSupply, PopDemand
from edged.policy.pop_needs import BoundDemand
from edged.policy.restrictions import Restriction
from edged.policy.shed_patience import SHED_AFTER_S, ShedPatience
from edged.policy.solver import FlowSolver
from edged.policy.well import Well

PER_S = 10.0


class World:
    """One PoP and three origins, and moves that are made as soon as they are due."""

    def __init__(self, *, drains: bool = True) -> None:
        self.planner = MovePlanner(moves_per_s=PER_S, drains=drains)
        self.units = {"near": 0, "far": 0, "old": 0}
        self.states = dict.fromkeys(self.units, OriginState.UP)
        self.links: tuple[LinkLimit, ...] = ()
        self.rtt_ms = {"near": 5.0, "far": 50.0, "old": 4.0}
        self.ladders: dict[str, ByClass] = {}
        self.room = 500
        self.bound: tuple[BoundDemand, ...] = ()

    def plan(self, now: float, known_at: float | None = None) -> list[UnitMoves]:
        room: ByClass = (self.room, self.room, self.room)
        return self.planner.plan(
            [
                OriginSupply(
                    origin=name,
                    address="h:1",
                    state=state,
                    slots_total=1000,
                    room=room,
                    ladders=self.ladders.get(name),
                )
                for name, state in self.states.items()
            ],
            [
                PopDemand(
                    pop="p/0",
                    units={name: (0, 0, count) for name, count in self.units.items()},
                    rtt_ms=self.rtt_ms,
                    bound=self.bound,
                )
            ],
            now=now,
            reserve_fraction=0.0,
            links=self.links,
            known_at=known_at,
        )

    def make(self, moves: list[UnitMoves]) -> int:
        for move in moves:
            self.units[move.from_origin] -= move.units
            self.units[move.to_origin] += move.units
        return sum(move.units for move in moves)


def test_what_could_come_nearer_is_looked_for_now_and_then() -> None:
    world = World()
    world.states["old"] = OriginState.DOWN
    world.units["far"] = 70
    (move,) = world.plan(0.0)
    assert (move.units, move.reason) == (round(PER_S * WINDOW_S), NEARER)
    assert world.planner.moves_s([move]) == WINDOW_S
    world.make([move])
    settled_at = WINDOW_S + SETTLE_S
    assert world.plan(settled_at - 0.1) == []
    assert world.make(world.plan(settled_at)) == 30, "there may be more, while there was some"
    last_at = settled_at + 3.0 + SETTLE_S
    assert world.plan(last_at - 0.1) == []
    assert world.planner.plans == 2
    assert world.plan(last_at) == []
    world.units["far"] = 5
    assert world.plan(last_at + NEARER_S - 0.1) == []
    assert world.planner.plans == 3
    assert world.make(world.plan(last_at + NEARER_S)) == 5


def test_what_is_coming_is_told_until_it_is_settled() -> None:
    world = World()
    world.states["old"] = OriginState.DOWN
    assert world.planner.coming(0.0) == {}
    world.units["far"] = 7
    world.plan(0.0)
    settled_at = 7 / PER_S + SETTLE_S
    assert world.planner.coming(settled_at - 0.1) == {"near": 7}
    assert world.planner.coming(settled_at) == {}


def test_by_what_is_known_of_before_nothing_is_asked_for_again() -> None:
    """Though the link still looks too full: that was so ten seconds ago."""
    world = World()
    world.states["old"] = OriginState.DOWN
    world.units["near"] = 100
    world.links = (LinkLimit(name="cable", mbps=360.0, mbps_per_unit=6.0, pairs=(("p", "near"),)),)
    assert sum(move.units for move in world.plan(20.0, known_at=10.0)) == 40
    settled_at = 20.0 + WINDOW_S + SETTLE_S
    assert world.plan(settled_at + 9.9, known_at=settled_at - 0.1) == []
    assert world.planner.coming(settled_at - 0.1) == {"far": 40}
    assert world.planner.coming(settled_at) == {}
    assert world.plan(settled_at + 10.0, known_at=settled_at) != []


def test_few_moves_are_looked_at_again_no_sooner_than_that() -> None:
    world = World()
    world.states["old"] = OriginState.DOWN
    world.units["far"] = 1
    assert world.make(world.plan(0.0)) == 1
    world.units["far"] = 1
    assert world.plan(AGAIN_S - 0.1) == [], "though it is settled"
    assert world.make(world.plan(AGAIN_S)) == 1


def test_nothing_comes_nearer_to_lose_its_ladder_but_leaves_what_drains() -> None:
    world = World()
    world.states["old"] = OriginState.DOWN
    world.units["far"] = 70
    world.ladders = {"near": (9, 9, 3), "far": (9, 9, 9)}
    assert [move.units for move in world.plan(0.0)] == [3]
    world.ladders = {"far": (9, 9, 9)}
    assert world.plan(NEARER_S) == [], "near makes none at all"
    world.states["far"] = OriginState.DRAIN
    assert world.make(world.plan(NEARER_S + 10.0)) == round(PER_S * WINDOW_S)


def test_what_is_wrong_is_seen_to_at_once_and_nothing_is_asked_for_twice() -> None:
    world = World()
    world.states["old"] = OriginState.DOWN
    world.units["near"] = 100
    assert world.plan(0.0) == []  # All is well.
    world.links = (LinkLimit(name="cable", mbps=180.0, mbps_per_unit=6.0, pairs=(("p", "near"),)),)
    assert world.plan(LOOK_S - 0.1) == []  # It has only just looked.
    first = world.plan(LOOK_S)
    assert (world.make(first), first[0].reason) == (40, "link cable")
    again_at = LOOK_S + WINDOW_S + SETTLE_S
    assert world.plan(again_at - 0.1) == []
    assert world.make(world.plan(again_at)) == 30
    assert world.units == {"near": 30, "far": 70, "old": 0}
    assert world.plan(1e3) == []


def test_what_no_move_can_save_is_named_where_that_is_wanted() -> None:
    """Both ways carry 50 in all; of 100 half is shed, and the moves are those of the rest."""
    world = World()
    world.states["old"] = OriginState.DOWN
    world.units["near"] = 100
    world.links = (
        LinkLimit(name="cable", mbps=30.0, mbps_per_unit=1.0, pairs=(("p", "near"),)),
        LinkLimit(name="dish", mbps=20.0, mbps_per_unit=1.0, pairs=(("p", "far"),)),
    )
    moves = world.plan(0.0)
    assert (sum(move.units for move in moves), world.planner.sheds) == (20, [])
    world.planner = MovePlanner(moves_per_s=PER_S, shed=FlowSolver())
    moves = world.plan(0.0)
    (shed,) = world.planner.sheds
    assert (shed.pop, shed.origin, shed.units, shed.link) == ("p/0", "near", 50, "cable")
    assert [(move.to_origin, move.units) for move in moves] == [("far", 20)]
    assert world.plan(1.0) == []
    assert world.planner.sheds == [], "it is not asked for twice"


def crowded(planner: MovePlanner, room: int) -> World:
    """A hundred at `near`, whose link carries thirty; `far` has that much room."""
    world = World()
    world.planner, world.room = planner, room
    world.states["old"] = OriginState.DOWN
    world.units["near"] = 100
    world.links = (LinkLimit(name="cable", mbps=30.0, mbps_per_unit=1.0, pairs=(("p", "near"),)),)
    return world


def patient() -> MovePlanner:
    return MovePlanner(
        moves_per_s=100.0,
        shed=FlowSolver(),
        patience=ShedPatience.of_production(),
    )


def test_nothing_is_named_before_it_was_so_for_long_enough() -> None:
    world = crowded(patient(), room=0)
    shed_at = []
    for tick in range(20):
        world.plan(float(tick))
        if world.planner.sheds:
            shed_at.append(tick)
            assert sum(each.units for each in world.planner.sheds) == 70
            assert world.planner.last is not None
            assert world.planner.last.sheds == world.planner.sheds
    assert shed_at == [3, 16], "and once its room would be believed, where nobody has obeyed"
    for tick in range(20, 29):
        world.plan(float(tick))
        assert world.planner.sheds == []
    world.planner.stand_by()
    world.plan(29.0)
    assert world.planner.sheds == [], "another one has planned meanwhile"


def test_what_is_told_by_old_telemetry_alone_sheds_nobody() -> None:
    world = crowded(patient(), room=0)
    for tick in range(20):
        world.plan(float(tick), known_at=min(2.0, float(tick)))
        assert world.planner.sheds == [], "it was so for two seconds, as far as is known"
    world.plan(20.0, known_at=3.0)
    assert world.planner.sheds


def test_a_move_that_was_refused_once_is_no_reason_to_shed_but_one_that_always_is() -> None:
    world = crowded(patient(), room=500)
    refused = RefusedMove("p/0", "near", "far", "basic")
    world.planner.refusals.note(refused, "just moved", 0.0)
    for tick in range(int(HOLD_S_MIN)):
        assert world.plan(float(tick)) == []
        assert world.planner.sheds == []
    assert world.planner.plans > SHED_AFTER_S
    world.planner.refusals.note(refused, "just moved", HOLD_S_MIN)
    for tick in range(10, 16):
        world.plan(float(tick))
        if world.planner.sheds:
            break
    assert [each.units for each in world.planner.sheds] == [70]
    last = world.planner.last
    assert last is not None
    assert last.lasting == (refused,)


def test_what_moves_and_is_told_of_at_both_homes_costs_nobody_else() -> None:
    """All fits after 70 moves, which linger where they were: 100 and 70 are told of meanwhile."""
    world = crowded(patient(), room=70)
    moves = world.plan(0.0)
    assert sum(move.units for move in moves) == 70
    world.units["far"], world.room = 70, 0
    for tick in range(1, 9):
        world.plan(float(tick))
        assert world.planner.sheds == []
    world.units["near"] = 30
    for tick in range(9, 30):
        world.plan(float(tick))
        assert world.planner.sheds == []


def test_a_link_is_relieved_by_those_who_may_leave_and_what_may_not_is_no_hurry() -> None:
    """Of 30 over a link for 10 a rule keeps 25: five leave, and that is all there is to do."""
    world = World()
    world.states["old"] = OriginState.DOWN
    world.units["near"] = 30
    world.bound = (BoundDemand(first=("near",), units={"near": (0, 0, 25)}),)
    world.links = (LinkLimit(name="cable", mbps=10.0, mbps_per_unit=1.0, pairs=(("p", "near"),)),)
    moves = world.plan(0.0)
    assert [(move.pop, move.to_origin, move.units) for move in moves] == [("p/0", "far", 5)]
    world.make(moves)
    assert world.plan(10.0) == []
    plans = world.planner.plans
    assert world.plan(11.0) == []
    assert world.planner.plans == plans, "it looks no sooner again than when all is well"


def test_of_what_may_not_leave_a_link_is_shed_what_it_cannot_carry() -> None:
    world = World()
    world.planner = MovePlanner(moves_per_s=PER_S, shed=FlowSolver())
    world.states["old"] = OriginState.DOWN
    world.units["near"] = 30
    world.bound = (BoundDemand(first=("near",), units={"near": (0, 0, 25)}),)
    world.links = (LinkLimit(name="cable", mbps=10.0, mbps_per_unit=1.0, pairs=(("p", "near"),)),)
    moves = world.plan(0.0)
    assert [(each.pop, each.origin, each.units) for each in world.planner.sheds] == [
        ("p/0", "near", 15)
    ]
    assert sum(move.units for move in moves) == 5


def test_what_may_go_nowhere_is_shed_though_others_of_its_kind_are_elsewhere() -> None:
    """One stream that a rule keeps at `far` is no place there for those that it keeps at `near`."""
    world = World()
    world.planner = MovePlanner(moves_per_s=PER_S, shed=FlowSolver())
    world.states["old"] = OriginState.DOWN
    world.units.update(near=25, far=1)
    world.bound = (
        BoundDemand(first=("near",), units={"near": (0, 0, 25)}),
        BoundDemand(first=("far",), units={"far": (0, 0, 1)}),
    )
    world.links = (LinkLimit(name="cable", mbps=10.0, mbps_per_unit=1.0, pairs=(("p", "near"),)),)
    assert world.plan(0.0) == []
    assert [(each.pop, each.origin, each.units) for each in world.planner.sheds] == [
        ("p/0", "near", 15)
    ]


def test_nothing_leaves_what_its_rule_prefers_to_come_nearer_but_off_a_full_link() -> None:
    world = World()
    world.states["old"] = OriginState.DOWN
    world.units["near"], world.units["far"] = 3, 8
    units = {"near": (0, 0, 3), "far": (0, 0, 6)}
    world.bound = (BoundDemand(first=("far",), then=("near",), units=units),)
    assert world.make(world.plan(0.0)) == 2, "what no rule binds; and a rule alone moves nothing"
    world.links = (LinkLimit(name="cable", mbps=1.0, mbps_per_unit=1.0, pairs=(("p", "far"),)),)
    assert world.make(world.plan(10.0)) == 5
    assert world.units["far"] == 1


@pytest.mark.parametrize("drains", [True, False])
def test_a_drain_is_its_own_only_where_it_is_told_so(drains: bool) -> None:
    world = World(drains=drains)
    world.units["old"] = 3
    world.states["old"] = OriginState.DRAIN
    moves = world.plan(0.0)
    assert [(move.to_origin, move.units, move.reason) for move in moves] == (
        [("near", 3, DRAIN)] if drains else []
    )


def test_a_plan_that_fails_is_not_tried_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.units["far"] = 5
    with monkeypatch.context() as patch:
        patch.setattr(linear_program, "COLUMNS_MAX", 0)
        with pytest.raises(SolverError, match="exceeds 0"):
            world.plan(0.0)
        assert world.plan(LOOK_S - 0.1) == []
    assert world.plan(LOOK_S) == []
    assert world.make(world.plan(NEARER_S)) == 5


def test_the_solver_begins_cold_at_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    restarts = []
    monkeypatch.setattr(
        world.planner._migration, "restart", lambda: restarts.append(world.planner.plans)
    )
    for count in range(PLANS_PER_CHECKPOINT + 1):
        world.plan(count * NEARER_S)
    assert restarts == [0, PLANS_PER_CHECKPOINT]


@pytest.mark.parametrize(("usable", "leave"), [(1.0, 0), (0.5, 0), (0.05, 3), (0.0, 10)])
def test_of_a_link_under_maintenance_live_streams_leave_that_are_too_many(
    usable: float, leave: int
) -> None:
    """Each of 6 Mbps, of 1000 across the one link to `far`; 0.9 of what may be used is theirs."""
    world = World()
    world.units["far"] = 10
    world.rtt_ms = dict.fromkeys(world.units, 9.0)
    sites = [SiteConfig(name="a", pops=("p",), origins=("near",))]
    sites.append(SiteConfig(name="b", origins=("far",)))
    link = LinkConfig(name="cable", ends=("a", "b"), mbps=1000.0)
    well = Well(LinkMap([link], sites))
    probe = PathProbe(rtt_ms=9.0, probed=True)
    told = PopTelemetry({"far": (0, 0, 10)}, probes={"far": probe}, mbps={"far": (60.0, 0.0)})
    well.observe("p/0", told, 0.0)
    if usable < 1:
        held = Restriction(kind="link", name="cable", reason="splicing", usable=usable)
        well.restrict({"cable": held})
    well.update(0.0, heard=["near", "far"])
    world.links = well.limits()
    moves = world.plan(0.0)
    assert sum(move.units for move in moves) == leave
    assert {(move.from_origin, move.reason) for move in moves} <= {("far", "link cable to b")}
