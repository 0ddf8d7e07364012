"""Whether the machine itself stood still: a virtual one is stopped by its host now and then.

What a viewer saw meanwhile says nothing of edged, so such a run is repeated, a few times at most. A
sleeper sees it: this process does next to nothing, so one that wakes late was not let run.
"""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import trio

SLEEP_S = 0.02
LATE_S_MAX = 0.2  # A player with 200 ms parts holds half a second: this leaves it the half.
RUNS_MAX = 3

T = TypeVar("T")


class Stillness:
    """What the sleeper saw."""

    def __init__(self) -> None:
        self.late_s_max = 0.0

    @property
    def stood_still(self) -> bool:
        """Whether the machine did."""
        return self.late_s_max > LATE_S_MAX

    async def watch(self) -> None:
        """Sleep again and again until cancelled."""
        while True:
            wanted = trio.current_time() + SLEEP_S
            await trio.sleep_until(wanted)
            self.late_s_max = max(self.late_s_max, trio.current_time() - wanted)


@contextlib.asynccontextmanager
async def watch_machine() -> AsyncIterator[Stillness]:
    """Watch while the block runs."""
    stillness = Stillness()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stillness.watch)
        yield stillness
        nursery.cancel_scope.cancel()


async def run_undisturbed(run: Callable[[], Awaitable[T]]) -> T:
    """What `run` gave while the machine went on; after RUNS_MAX disturbed runs, what it gave."""
    for _ in range(RUNS_MAX):
        async with watch_machine() as stillness:
            result = await run()
        if not stillness.stood_still:
            break
    return result
