"""IRS asks for moves of what it has collected: of PoPs that are here, once, and says so."""

import sys
from collections.abc import Sequence

import msgspec
import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from edged.irs.collectors import Collectors
from edged.irs.migrating import LATE_S_MAX, LOOK_INTERVAL_S, METRICS, Migrating
from edged.media.routing import OriginReport, PathProbe, PopTelemetry, ReportedState
from edged.policy import linear_program
from edged.policy.flows import LinkLimit
from edged.policy.move_refusals import HOLD_S_MIN
from edged.policy.moves import NEARER, UnitMoves
from edged.policy.planner import PlanPolicy
from edged.wire.table import Moved, MoveRefused, OriginHello


class Asked:
    """A network of two origins and two PoPs, and what is asked for."""

    def __init__(self) -> None:
        self.world = Collectors()
        self.calls: list[tuple[float, list[UnitMoves], float]] = []
        self.links: tuple[LinkLimit, ...] = ()
        self.migrating = Migrating(
            self.world,
            self.take,
            moves_per_s=100.0,
            reserve_fraction=0.0,
            policy="leases",
            warmup_s=0.0,
            links=lambda: self.links,
        )
        for name in ("near", "far"):
            hello = OriginHello(origin=name, incarnation=1, address=f"{name}:1")
            self.world.origin_joined(hello)
            self.beat(name, ReportedState.UP)
        for key in ("ams/0", "lhr/0"):
            self.world.pop_joined(key)

    def take(self, moves: Sequence[UnitMoves], within_s: float) -> None:
        self.calls.append((round(trio.current_time(), 3), list(moves), within_s))

    def beat(self, name: str, state: ReportedState) -> None:
        self.world.heartbeat(OriginReport(name, 1, state, 1000, (900, 900, 900)), 0.0)

    def tell(self, key: str, **units: int) -> None:
        probes = {"near": PathProbe(rtt_ms=5.0), "far": PathProbe(rtt_ms=90.0)}
        placed = {name: (0, 0, count) for name, count in units.items()}
        self.world.telemetry(key, PopTelemetry(placed, probes=probes), trio.current_time())


async def test_who_is_here_is_asked_once_and_it_is_said(autojump_clock: MockClock) -> None:
    asked = Asked()
    asked.tell("ams/0", far=20)
    asked.tell("lhr/0", far=20)
    asked.world.pop_left("lhr/0", 0.0)
    assert asked.migrating.coming() == {}
    with capture_logs() as logged, trio.move_on_after(2.5):
        await asked.migrating.run()
    ((at, moves, within_s),) = asked.calls
    assert (at, within_s) == (LOOK_INTERVAL_S, 0.2)
    assert asked.migrating.coming() == {"near": 20}
    await trio.sleep(0.2)
    assert asked.migrating.coming() == {}, "the origins' heartbeats tell by now"
    assert [(move.pop, move.from_origin, move.to_origin, move.units) for move in moves] == [
        ("ams/0", "far", "near", 20)
    ]
    assert [(line["event"], line["streams"], line["reasons"]) for line in logged] == [
        ("streams are to move", 20, {NEARER: 20})
    ]
    samples = {sample.labels["reason"]: sample.value for sample in asked.migrating.read_metrics()}
    assert samples == {"link": 0, "drain": 0, "nearer": 20, "room": 0}
    assert {sample.name for sample in asked.migrating.read_metrics()} == {
        spec.name for spec in METRICS
    }
    assert len(asked.world.pops()) == 2  # A look forgets nobody.


async def test_an_overloaded_link_is_seen_soon(autojump_clock: MockClock) -> None:
    asked = Asked()
    asked.tell("ams/0", near=30)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(asked.migrating.run)
        await trio.sleep(10.1)
        assert asked.calls == []
        asked.links = (
            LinkLimit(name="cable", mbps=60.0, mbps_per_unit=6.0, pairs=(("ams", "near"),)),
        )
        await trio.sleep(1.0)
        ((_, (move,), _),) = asked.calls
        assert (move.units, move.reason) == (20, "link cable")
        nursery.cancel_scope.cancel()
    assert asked.migrating.planned == {"link": 20}


async def test_what_was_refused_is_not_asked_again_so_soon_but_another_is(
    autojump_clock: MockClock,
) -> None:
    asked = Asked()
    asked.migrating.refused("ams/0", refusal("near", "far"))  # Of an IRS before: nothing yet.
    asked.tell("ams/0", near=30)
    asked.links = (LinkLimit(name="cable", mbps=60.0, mbps_per_unit=6.0, pairs=(("ams", "near"),)),)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(asked.migrating.run)
        await trio.sleep(1.0)
        asked.migrating.refused("ams/0", refusal("near", "far"))
        asked.migrating.refused("ams/0", msgspec.structs.replace(refusal("far", "near"), number=0))
        refused_at = trio.current_time()
        await trio.sleep(HOLD_S_MIN - 0.5)
        asked.tell("ams/0", near=30)
        assert len(asked.calls) == 1, "there is no other"
        await trio.sleep(2.0)
        assert len(asked.calls) == 2
        assert asked.calls[1][0] >= refused_at + HOLD_S_MIN
        asked.migrating.refused("ams/0", refusal("near", "far"))
        hello = OriginHello(origin="third", incarnation=1, address="third:1")
        asked.world.origin_joined(hello)
        asked.beat("third", ReportedState.UP)
        await trio.sleep(3.0)
        asked.tell("ams/0", near=30)
        await trio.sleep(1.0)
        nursery.cancel_scope.cancel()
    assert [move.to_origin for move in asked.calls[2][1]] == ["third"]


def refusal(at: str, to: str) -> MoveRefused:
    return MoveRefused(
        number=1, channel="", from_origin=at, to_origin=to, reason="rule avoids it", class_="basic"
    )


async def test_where_some_are_refused_and_others_go_it_is_asked_again_each_time(
    autojump_clock: MockClock,
) -> None:
    """Of each forty one is refused: the link is not left too full for longer each time."""
    asked = Asked()
    asked.migrating.moved("ams/0", moved(1))  # Of an IRS before.
    near = 90
    asked.tell("ams/0", near=near)
    asked.links = (LinkLimit(name="cable", mbps=60.0, mbps_per_unit=6.0, pairs=(("ams", "near"),)),)
    held_until = 0.0
    for turn in range(4):
        asked.migrating.look()
        assert len(asked.calls) == turn + 1
        assert trio.current_time() >= held_until
        near -= 5
        asked.migrating.moved("ams/0", moved(1))
        await trio.sleep(1.0)
        asked.migrating.refused("ams/0", refusal("near", "far"))
        held_until = trio.current_time() + HOLD_S_MIN
        await trio.sleep(HOLD_S_MIN - 0.1)
        asked.tell("ams/0", near=near)
        asked.migrating.look()
        assert len(asked.calls) == turn + 1, "held"
        await trio.sleep(1.1)
        asked.tell("ams/0", near=near)
    asked.migrating.moved("ams/0", moved(0))
    asked.migrating.look()
    await trio.sleep(1.0)
    asked.migrating.refused("ams/0", refusal("near", "far"))
    await trio.sleep(HOLD_S_MIN + 1.0)
    asked.tell("ams/0", near=near)
    asked.migrating.look()
    assert len(asked.calls) == 5, "nothing was moved that was asked for: it is held for longer"


def moved(number: int) -> Moved:
    return Moved(
        channel="x",
        publication=1,
        home_epoch=2,
        from_origin="near",
        to_origin="far",
        unit_seq=0,
        why="migrate",
        number=number,
    )


async def test_the_next_plan_waits_until_all_have_told_of_the_last_but_not_for_ever(
    autojump_clock: MockClock,
) -> None:
    """`lhr` is late: it tells of before the moves for ten seconds."""
    asked = Asked()
    asked.tell("lhr/0")
    asked.tell("ams/0", near=30)
    asked.links = (LinkLimit(name="cable", mbps=60.0, mbps_per_unit=6.0, pairs=(("ams", "near"),)),)
    asked.migrating.look()
    assert asked.migrating.coming() == {"far": 20}
    for _ in range(10):
        await trio.sleep(1.0)
        asked.tell("ams/0", near=30)
        asked.migrating.look()
    assert len(asked.calls) == 1
    assert asked.migrating.coming() == {}, "the origin itself tells how full it is"
    asked.tell("lhr/0")
    asked.migrating.look()
    assert len(asked.calls) == 2
    await trio.sleep(LATE_S_MAX + 3.0)
    asked.tell("ams/0", near=30)
    asked.migrating.look()
    assert len(asked.calls) == 3, "lhr tells nothing any more"


async def test_drains_are_the_pops_own(autojump_clock: MockClock) -> None:
    asked = Asked()
    asked.tell("ams/0", near=3)
    asked.beat("near", ReportedState.DRAIN)
    asked.migrating.look()
    assert asked.calls == []


@pytest.mark.parametrize(("policy", "warmup_s"), [("proportional", 0.0), ("leases", 60.0)])
async def test_nothing_moves_without_the_solver_or_before_the_origins_are_heard(
    autojump_clock: MockClock, policy: PlanPolicy, warmup_s: float
) -> None:
    asked = Asked()
    asked.migrating.policy, asked.migrating.warmup_s = policy, warmup_s
    asked.tell("ams/0", far=20)
    with trio.move_on_after(20.0):
        await asked.migrating.run()
    assert asked.calls == []


async def test_a_solver_that_fails_is_said_once_until_it_works_again(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Asked()

    async def look_for_s(seconds: float) -> list[str]:
        asked.tell("ams/0", far=20)
        with capture_logs() as logged, trio.move_on_after(seconds):
            await asked.migrating.run()
        return [str(line["event"]) for line in logged]

    monkeypatch.setattr(linear_program, "COLUMNS_MAX", 0)
    assert await look_for_s(200.0) == ["no moves planned"]
    assert asked.calls == []
    monkeypatch.undo()
    assert "no moves planned" not in await look_for_s(100.0)
    assert asked.calls
    monkeypatch.setattr(linear_program, "COLUMNS_MAX", 0)
    asked.migrating._planner = None  # The solver keeps what it has made of a network.
    assert await look_for_s(200.0) == ["no moves planned"]


async def test_moves_are_planned_by_what_is_configured_now(autojump_clock: MockClock) -> None:
    asked = Asked()
    asked.migrating.look()
    await trio.sleep(100.0)
    asked.migrating.moves_per_s, asked.migrating.reserve_fraction = 10.0, 0.5
    asked.world.heartbeat(OriginReport("near", 1, ReportedState.UP, 1000, (510, 510, 510)), 0.0)
    asked.tell("ams/0", far=20)
    asked.migrating.look()
    ((_, (move,), within_s),) = asked.calls
    assert (move.units, within_s) == (10, 1.0), "half of all slots are kept"


async def test_without_the_library_nothing_moves(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Asked()
    asked.tell("ams/0", far=20)
    monkeypatch.setitem(sys.modules, "edged.policy.move_planner", None)
    with capture_logs() as logged:
        asked.migrating.look()
        asked.migrating.look()
    assert [line["event"] for line in logged] == ["no moves planned"]
    assert asked.calls == []
