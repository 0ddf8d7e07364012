"""Parts that fail are run again, with patience; sessions that fail end alone."""

import math
import socket

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from edged.errors import ConfigError, PublishRefusedError
from edged.runtime.connection import Connection, PumpClass
from edged.runtime.keeping import (
    RESTART_S_MAX,
    RESTART_S_MIN,
    START_S_MAX,
    STEADY_S,
    Part,
    keep_running,
    run_for,
)
from tests.runtime.test_pump import Recorder, running_pump


class Script:
    """A part that does, at each start, what it is told: run so long, then raise or return."""

    def __init__(self, *acts: tuple[float, Exception | None]) -> None:
        self.acts = list(acts)
        self.starts: list[float] = []
        self.report = True

    async def __call__(self, *, task_status: trio.TaskStatus[dict[str, str]]) -> None:
        self.starts.append(trio.current_time())
        seconds, error = self.acts.pop(0) if self.acts else (math.inf, None)
        if not self.report or seconds < 0:
            if error is not None:
                raise error
            await trio.sleep_forever()
        task_status.started({"toy": "127.0.0.1:1"})
        async with trio.open_nursery() as nursery:  # As a part has one: its errors come in groups.
            await trio.sleep(seconds)
            if error is not None:
                raise error
            nursery.cancel_scope.cancel()


async def run_it(script: Script, part: Part, seconds: float) -> dict[str, str]:
    with trio.move_on_after(seconds):
        async with trio.open_nursery() as nursery:
            started: dict[str, str] = await nursery.start(keep_running, part, script)
            await trio.sleep_forever()
    return started


async def test_one_that_runs_is_left_alone(autojump_clock: MockClock) -> None:
    part, script = Part("toy"), Script()
    assert not part.up
    with capture_logs() as logs:
        assert await run_it(script, part, 1000) == {"toy": "127.0.0.1:1"}
    assert (part.up, part.failures_total, logs) == (True, 0, [])


async def test_one_that_fails_is_run_again_more_and_more_slowly(autojump_clock: MockClock) -> None:
    part, script = Part("toy"), Script(*[(1.0, ValueError("no"))] * 9)
    with capture_logs() as logs:
        await run_it(script, part, 10_000)
    waits = [b - a - 1.0 for a, b in zip(script.starts, script.starts[1:], strict=False)]
    assert waits == pytest.approx([1, 2, 4, 8, 16, 32, 60, 60, 60])
    assert (waits[0], waits[-1]) == (RESTART_S_MIN, RESTART_S_MAX)
    assert (part.up, part.failures_total, part.failure) == (True, 9, "it ended by itself")
    failures = [line for line in logs if line["event"] == "part failed, the others go on"]
    assert len(failures) == 9
    assert {(line["part"], line["reason"], line["log_level"]) for line in failures} == {
        ("toy", "ValueError: no", "error")
    }
    assert len([line for line in logs if line["event"] == "part started again"]) == 9


async def test_after_a_steady_run_it_is_quick_again(autojump_clock: MockClock) -> None:
    part = Part("toy")
    script = Script((0, None), (0, None), (0, None), (STEADY_S, None))
    await run_it(script, part, 1000)
    a, b = script.starts[-2:]
    assert b - a == pytest.approx(STEADY_S + RESTART_S_MIN)


async def test_one_that_ends_by_itself_has_failed(autojump_clock: MockClock) -> None:
    part, script = Part("toy"), Script((5.0, None))
    with capture_logs() as logs:
        await run_it(script, part, 100)
    assert logs[0]["reason"] == "it ended by itself"
    assert len(script.starts) == 2


async def test_a_first_start_that_fails_holds_nobody_up(autojump_clock: MockClock) -> None:
    part, script = Part("toy"), Script((-1.0, RuntimeError("broken")))
    assert await run_it(script, part, 0.5) == {}
    assert (part.up, part.failure) == (False, "RuntimeError: broken")


async def test_one_that_does_not_start_in_time_has_failed(autojump_clock: MockClock) -> None:
    part, script = Part("toy"), Script()
    script.report = False
    begun_at = trio.current_time()
    async with trio.open_nursery() as nursery:
        assert await nursery.start(keep_running, part, script) == {}
        assert trio.current_time() - begun_at == pytest.approx(START_S_MAX)
        nursery.cancel_scope.cancel()
    assert part.failure == "it did not start in 30 s"


async def test_a_mistake_in_the_file_is_for_its_author(autojump_clock: MockClock) -> None:
    part, script = Part("toy"), Script((-1.0, ConfigError("cannot listen on 'x'")))
    with pytest.RaisesGroup(ConfigError, flatten_subgroups=True):
        await run_it(script, part, 100)
    # Later it is as any failure: the address may be free again.
    part = Part("toy")
    script = Script((1.0, None), (-1.0, ConfigError("cannot listen on 'x'")), (-1.0, KeyError(1)))
    with capture_logs() as logs:
        await run_it(script, part, 100)
    assert [line["reason"] for line in logs if line["log_level"] == "error"] == [
        "it ended by itself",
        "cannot listen on 'x'",
        "KeyError: 1",
    ]
    assert part.up


@pytest.mark.parametrize(
    ("error", "reason", "logged"),
    [
        (None, None, False),
        (PublishRefusedError("full", "no room"), "full: no room", False),
        (ValueError("a bug"), "internal error: ValueError('a bug')", True),
        (
            ExceptionGroup("two", [PublishRefusedError("full", "one"), ConfigError("other")]),
            "full: one; other",
            False,
        ),
    ],
    ids=["none", "refused", "bug", "group"],
)
async def test_a_task_ends_its_own_session(
    error: Exception | None, reason: str | None, logged: bool
) -> None:
    async def work() -> None:
        if error is not None:
            raise error

    async with running_pump() as pump:
        ours, theirs = socket.socketpair()
        connection: Connection = pump.add(ours, Recorder, PumpClass.PUBLISHER, peer="a peer")
        with theirs, capture_logs() as logs:
            await run_for(connection, work)
        assert connection.lost == reason
        assert [line["event"] for line in logs if line["log_level"] == "error"] == (
            ["session failed"] if logged else []
        )
