"""Supervised services: begun anew after a fault, never before they have started, never for ever."""

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from edged.errors import ConfigError
from edged.runtime.metrics import Metrics
from edged.runtime.supervision import BACKOFF_S_MAX, BACKOFF_S_MIN, HEALTHY_S, Supervisor


@pytest.fixture
def clock(autojump_clock: MockClock) -> MockClock:
    return autojump_clock


class Fragile:
    """Fails each time after so many seconds."""

    def __init__(self, *lives_s: float) -> None:
        self.lives_s = list(lives_s)
        self.begun_at: list[float] = []
        self.cleaned_up = 0

    async def run(self, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        self.begun_at.append(trio.current_time())
        task_status.started(len(self.begun_at))
        try:
            if self.lives_s:
                await trio.sleep(self.lives_s.pop(0))
                raise RuntimeError("a bug")
            await trio.sleep_forever()
        finally:
            self.cleaned_up += 1


async def test_a_service_that_fails_is_begun_anew_and_its_siblings_do_not_notice(
    clock: MockClock,
) -> None:
    supervisor, fragile, steady = Supervisor("pop a"), Fragile(1.0, 1.0, 1.0), Fragile()
    metrics = Metrics()
    supervisor.register(metrics)
    with capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            supervisor.start_soon(nursery, "steady", steady.run)
            assert await supervisor.start(nursery, "fragile", fragile.run) == 1
            assert b'restarts_total{role="pop a",service="fragile"} 0.0' in metrics.render()
            await trio.sleep(10)
            nursery.cancel_scope.cancel()
    waits = [b - a - 1.0 for a, b in zip(fragile.begun_at, fragile.begun_at[1:], strict=False)]
    assert waits == pytest.approx([BACKOFF_S_MIN, 2 * BACKOFF_S_MIN, 4 * BACKOFF_S_MIN])
    assert len(steady.begun_at) == 1
    assert fragile.cleaned_up == 4
    assert [(line["event"], line["service"]) for line in logs] == [
        ("service failed, begun anew", "fragile")
    ] * 3
    assert isinstance(logs[0]["exc_info"], RuntimeError)
    assert b'restarts_total{role="pop a",service="fragile"} 3.0' in metrics.render()


async def test_the_delay_is_bounded_and_forgotten_by_a_healthy_service(clock: MockClock) -> None:
    supervisor = Supervisor("origin b")
    fragile = Fragile(*[0.0] * 12, HEALTHY_S, 0.0)
    async with trio.open_nursery() as nursery:
        supervisor.start_soon(nursery, "fragile", fragile.run)
        await trio.sleep(300)
        nursery.cancel_scope.cancel()
    times = fragile.begun_at
    assert times[12] - times[11] == pytest.approx(BACKOFF_S_MAX)
    assert times[13] - times[12] == pytest.approx(HEALTHY_S + BACKOFF_S_MIN)


async def test_what_keeps_a_service_from_starting_is_its_callers_to_hear() -> None:
    supervisor = Supervisor("pop a")

    async def refuse(*, task_status: trio.TaskStatus[str]) -> None:
        raise ConfigError("the port is taken")

    with pytest.raises(ExceptionGroup) as caught:
        async with trio.open_nursery() as nursery:
            await supervisor.start(nursery, "listener", refuse)
    assert caught.group_contains(ConfigError, match="taken")
    assert supervisor.restarts["listener"] == 0


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
async def test_what_is_meant_for_the_process_passes_through(error: type[BaseException]) -> None:
    async def interrupted() -> None:
        raise error

    with pytest.raises(BaseExceptionGroup):
        async with trio.open_nursery() as nursery:
            Supervisor("pop a").start_soon(nursery, "service", interrupted)


async def test_a_service_that_returns_is_over() -> None:
    runs: list[int] = []

    async def once() -> None:
        runs.append(1)

    async def once_started(*, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        runs.append(2)

    supervisor = Supervisor("pop a")
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            supervisor.start_soon(nursery, "once", once)
            await supervisor.start(nursery, "again", once_started)
    assert sorted(runs) == [1, 2]


async def test_a_service_of_several_tasks_is_begun_anew_as_a_whole(clock: MockClock) -> None:
    """A nursery raises groups; one with a cancellation in it is the caller's."""
    begun: list[trio.CancelScope] = []

    async def fail() -> None:
        raise RuntimeError("a bug")

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            begun.append(nursery.cancel_scope)
            nursery.start_soon(trio.sleep_forever)
            if len(begun) < 3:
                nursery.start_soon(fail)

    async with trio.open_nursery() as nursery:
        Supervisor("pop a").start_soon(nursery, "service", run)
        await trio.sleep(30)
        nursery.cancel_scope.cancel()
    assert len(begun) == 3
