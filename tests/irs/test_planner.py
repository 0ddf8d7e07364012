"""When IRS plans: at once when asked, else at the interval; storms are bounded."""

import trio
from trio.testing import MockClock

from edged.irs.collectors import Collectors
from edged.irs.planner import PLAN_INTERVAL_S_MIN, Planner, Rows
from edged.media.routing import OriginReport, ReportedState
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
    assert [(row.origin, row.quota, row.reserve) for row in rows["lhr/0"]] == [("o1", 9, 1)]
