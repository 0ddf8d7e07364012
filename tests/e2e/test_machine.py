import time

import trio
import trio.testing

from tests.e2e.machine import LATE_S_MAX, RUNS_MAX, SLEEP_S, run_undisturbed, watch_machine


async def test_a_machine_that_goes_on() -> None:
    async with watch_machine() as stillness:
        await trio.sleep(0.05)
    assert not stillness.stood_still


async def test_a_run_in_which_it_stood_still_is_repeated() -> None:
    runs: list[int] = []

    async def run() -> int:
        runs.append(len(runs))
        await trio.sleep(0.03)
        if len(runs) == 1:
            time.sleep(LATE_S_MAX + 0.03)  # noqa: ASYNC251 - nothing in this process runs on
        await trio.sleep(0.03)
        return runs[-1]

    assert await run_undisturbed(run) == 1


async def test_a_machine_that_never_goes_on_is_judged_all_the_same(
    autojump_clock: trio.testing.MockClock,
) -> None:
    runs: list[int] = []

    async def run() -> int:
        runs.append(len(runs))
        await trio.sleep(SLEEP_S / 2)  # The sleeper sleeps by now.
        autojump_clock.jump(LATE_S_MAX + 1)
        await trio.sleep(0.03)
        return runs[-1]

    assert await run_undisturbed(run) == RUNS_MAX - 1
