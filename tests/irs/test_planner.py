"""When IRS plans: at once when asked, else at the interval; storms are bounded."""

import random
import subprocess
import sys

import msgspec
import pytest
import structlog
import trio
from trio.testing import MockClock

from edged.irs.collectors import Collectors
from edged.irs.planner import METRICS, PLAN_INTERVAL_S_MIN, Planner, Rows
from edged.media.routing import OriginReport, PathProbe, PopTelemetry, ReportedState
from edged.policy import linear_program
from edged.policy.flows import PLANS_PER_CHECKPOINT
from edged.wire.table import OriginHello


class Published:
    """Records what was published, when."""

    def __init__(self) -> None:
        self.calls: list[tuple[float, bool, Rows]] = []
        self.world = Collectors()
        self.planner = Planner(
            self.world, self.take, push_interval_s=1.0, lease_ttl_s=10.0, reserve_fraction=0.1
        )

    def take(self, rows: Rows, renew: bool) -> None:
        self.calls.append((round(trio.current_time(), 3), renew, rows))


async def test_leases_are_renewed_at_the_interval(autojump_clock: MockClock) -> None:
    published = Published()
    with trio.move_on_after(2.5):
        await published.planner.run()
    assert [(at, renew) for at, renew, _ in published.calls] == [
        (0.0, True),
        (1.0, True),
        (2.0, True),
    ]


async def test_an_urgent_plan_comes_at_once_and_storms_are_bounded(
    autojump_clock: MockClock,
) -> None:
    published = Published()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(published.planner.run)
        await trio.sleep(0.3)
        published.planner.hurry()
        await trio.sleep(0.3)
        assert [(at, renew) for at, renew, _ in published.calls][1:] == [(0.3, False)]
        for _ in range(100):
            published.planner.hurry()
            await trio.sleep(0.001)
        assert len(published.calls) <= 2 + 0.1 / PLAN_INTERVAL_S_MIN + 1
        nursery.cancel_scope.cancel()
    assert published.planner.plans == len(published.calls)


async def test_a_storm_does_not_stop_renewal(autojump_clock: MockClock) -> None:
    published = Published()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(published.planner.run)
        for _ in range(300):
            published.planner.hurry()
            await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    assert sum(renew for _, renew, _ in published.calls) >= 3


async def test_the_plan_is_of_what_was_collected(autojump_clock: MockClock) -> None:
    published = Published()
    world = published.world
    world.pop_joined("lhr/0")
    world.origin_joined(OriginHello(origin="o1", incarnation=1, address="h:1"))
    world.heartbeat(OriginReport("o1", 1, ReportedState.UP, 10, (10, 10, 10)), 0.0)
    published.planner.plan_now(renew=True)
    ((_, _, rows),) = published.calls
    assert [(row.origin, row.quota, row.reserve) for row in rows["lhr/0"].rows] == [("o1", 9, 1)]
    assert rows["lhr/0"].kept == {"o1": 1}
    plan = published.planner.last
    assert plan is not None
    assert (plan.policy, plan.failure) == ("leases", "")


async def test_who_is_on_its_way_has_a_slot_that_is_in_no_lease(autojump_clock: MockClock) -> None:
    published = Published()
    coming = {"o1": 4}
    planner = Planner(
        published.world, published.take, push_interval_s=1.0, lease_ttl_s=10.0,
        reserve_fraction=0.1, coming=lambda: coming,
    )  # fmt: skip
    serve(published)
    planner.plan_now(renew=True)
    coming.clear()
    planner.plan_now(renew=True)
    quotas = [rows["lhr/0"].rows[0].quota for _, _, rows in published.calls]
    assert quotas == [5, 9]


def serve(published: Published) -> None:
    """Bring an origin and a PoP."""
    published.world.pop_joined("lhr/0")
    published.world.origin_joined(OriginHello(origin="o1", incarnation=1, address="h:1"))
    published.world.heartbeat(OriginReport("o1", 1, ReportedState.UP, 10, (10, 10, 10)), 0.0)


async def test_a_solver_that_fails_is_said_once_and_leases_go_on(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    published = Published()
    serve(published)
    planner = published.planner
    with structlog.testing.capture_logs() as logged:
        planner.plan_now(renew=True)
        assert logged == []
        with monkeypatch.context() as patch:
            patch.setattr(linear_program, "ITERATIONS_MAX", 0)
            patch.setattr(linear_program, "COLUMNS_MAX", 0)
            published.world.pop_joined("ams/0")  # Another program is needed.
            for _ in range(3):
                planner.plan_now(renew=True)
        planner.plan_now(renew=True)
    said = [(line["log_level"], line["event"]) for line in logged]
    assert said == [
        ("warning", "leases planned without the solver"),
        ("info", "leases planned by the solver again"),
    ]
    assert "exceeds 0" in logged[0]["reason"]
    assert (planner.plans, planner.fallbacks) == (5, 3)
    for _, _, rows in published.calls[1:]:
        assert sum(of.rows[0].quota for of in rows.values()) == 9
    samples = {sample.name: sample.value for sample in planner.read_metrics()}
    assert set(samples) == {spec.name for spec in METRICS}
    assert samples["edged_irs_plans_fallback_total"] == 3
    assert 0 < samples["edged_irs_solve_seconds"] < samples["edged_irs_plan_seconds"]


async def test_what_has_no_room_anywhere_is_counted_by_class(autojump_clock: MockClock) -> None:
    """Nine slots and the one for partners, and streams whose origin has left the table."""
    published = Published()
    serve(published)
    published.world.telemetry("lhr/0", PopTelemetry({"gone": (1, 0, 12)}), 0.0)
    published.planner.plan_now(renew=True)
    assert {
        sample.labels["class"]: sample.value
        for sample in published.planner.read_metrics()
        if sample.name == "edged_irs_unserved_units"
    } == {"partner": 0, "affiliate": 0, "basic": 3}


async def test_without_the_library_leases_go_on(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    monkeypatch.setitem(sys.modules, "edged.policy.solver", None)
    published = Published()
    serve(published)
    published.planner.plan_now(renew=True)
    published.planner.plan_now(renew=True)
    plan = published.planner.last
    assert plan is not None
    assert plan.failure.startswith("the solver cannot be loaded: ")
    assert published.planner.fallbacks == 2
    assert published.calls[-1][2]["lhr/0"].rows[0].quota == 9


async def test_the_solver_begins_cold_at_checkpoints(autojump_clock: MockClock) -> None:
    """From there all that is planned can be planned again, byte for byte."""
    published = Published()
    serve(published)
    cold = []
    for count in range(2 * PLANS_PER_CHECKPOINT + 1):
        published.world.telemetry("lhr/0", PopTelemetry({"o1": (0, 0, count % 7)}), float(count))
        published.planner.plan_now(renew=True)
        plan = published.planner.last
        assert plan is not None
        assert plan.solution is not None
        if plan.solution.cold:
            cold.append(count)
    assert cold == [0, PLANS_PER_CHECKPOINT, 2 * PLANS_PER_CHECKPOINT]


async def test_the_same_told_again_gives_the_same_rows_byte_for_byte(
    autojump_clock: MockClock,
) -> None:
    runs = []
    for _ in range(2):
        rng = random.Random(7)  # noqa: S311 - a history, not a secret
        published = Published()
        world = published.world
        names = [f"o{n}" for n in range(4)]
        for name in names:
            world.origin_joined(OriginHello(origin=name, incarnation=1, address="h:1"))
        for pop in range(9):
            world.pop_joined(f"p{pop}/0")
        for second in range(60):
            for name in names:
                free = rng.randrange(50)
                report = OriginReport(name, 1, ReportedState.UP, 300, (free, free, free))
                world.heartbeat(report, float(second))
            for pop in range(9):
                told = PopTelemetry(
                    {name: (1, 5, rng.randrange(30)) for name in names},
                    rng.randrange(5),
                    probes={name: PathProbe(rtt_ms=rng.uniform(1, 90)) for name in names},
                )
                world.telemetry(f"p{pop}/0", told, float(second))
            if second == 40:
                world.pop_joined("late/0")
            published.planner.plan_now(renew=True)
        assert published.planner.fallbacks == 0
        runs.append([msgspec.msgpack.encode(rows) for _, _, rows in published.calls])
    assert runs[0] == runs[1]
    assert len(set(runs[0])) > 50


async def test_a_bug_in_who_keeps_plans_keeps_nobody_from_planning(
    autojump_clock: MockClock,
) -> None:
    published, kept = Published(), list[tuple[int, bool]]()

    def broken(*_: object) -> None:
        raise KeyError("bug")

    published.planner.keepers += [broken, lambda number, cold, *_: kept.append((number, cold))]
    with structlog.testing.capture_logs() as logged, trio.move_on_after(1.5):
        await published.planner.run()
    assert len(published.calls) == 2
    assert kept == [(0, True), (1, False)]
    assert [(line["event"], line["log_level"]) for line in logged] == [
        ("plan not kept", "error")
    ] * 2


async def test_without_the_solver_leases_are_proportional(autojump_clock: MockClock) -> None:
    published = Published()
    serve(published)
    published.planner.policy = "proportional"
    with structlog.testing.capture_logs() as logged:
        published.planner.plan_now(renew=True)
    plan = published.planner.last
    assert plan is not None
    assert (plan.policy, plan.failure, published.planner.fallbacks) == ("proportional", "", 0)
    assert logged == []


def test_who_does_not_plan_does_not_load_the_solver() -> None:
    """numpy and HiGHS take 25 MB: a PoP or an origin does without."""
    code = (
        "import sys\n"
        "import edged.cli.main, edged.config, edged.roles.all_in_one\n"
        "print(*{'numpy', 'highspy', 'edged.policy.solver'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    assert done.stdout.split() == []
