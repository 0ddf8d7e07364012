"""Services that outlive their own failures: a bug in one ends neither the process nor its siblings.

A service's `run` that raises is logged with its traceback, counted, and called again after a delay
that doubles with each failure in a row. What is wrong before it has started (a port that is taken,
a certificate that cannot be read) is its caller's to hear, as without supervision. What cannot be
begun anew because others' state is in it (the pump, the hub) is not supervised: its end is the
role's, and so the process's.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import TypeVar

import structlog
import trio

from edged.runtime.metrics import Metrics, MetricSpec, Sample

BACKOFF_S_MIN = 0.1  # Before the first restart: a fault that passes is hardly noticed,
BACKOFF_S_MAX = 10.0  # and one that stays fills no log.
HEALTHY_S = 60.0  # A service that has run so long has no failures behind it.

logger = structlog.get_logger("edged.supervision")

T = TypeVar("T")

SPECS = (
    MetricSpec(
        name="edged_service_restarts_total",
        help="Services begun anew after a fault of edged; the log has it.",
        labels=("role", "service"),
    ),
)


class Supervisor:
    """All supervised services of one role, and how often each had to be begun anew."""

    def __init__(self, role: str) -> None:
        self.restarts: Counter[str] = Counter()
        self._role = role

    def register(self, metrics: Metrics) -> None:
        """Have the counts read at each scrape."""
        metrics.register(SPECS, self._samples)

    def start_soon(
        self, nursery: trio.Nursery, name: str, run: Callable[[], Awaitable[None]]
    ) -> None:
        """Run a service in a nursery, until it returns or is cancelled."""
        self.restarts[name] += 0  # A service without a failure is to be seen, too.
        nursery.start_soon(self.keep, name, run, name=f"{self._role}: {name}")

    async def start(
        self, nursery: trio.Nursery, name: str, run: Callable[..., Awaitable[None]]
    ) -> T:
        """The same, once it has told by `task_status` that it has started, and with what.

        Raises what kept it from that.
        """
        self.restarts[name] += 0

        async def keep(*, task_status: trio.TaskStatus[T]) -> None:
            first = _FirstStart(task_status)
            try:
                await run(task_status=first)
            except Exception as error:
                if not first.told:
                    raise
                await self._failed(name, error, BACKOFF_S_MIN)
            else:
                return
            again = partial(run, task_status=trio.TASK_STATUS_IGNORED)
            await self.keep(name, again, 2 * BACKOFF_S_MIN)

        value: T = await nursery.start(keep, name=f"{self._role}: {name}")
        return value

    async def run(self, name: str, run: Callable[..., Awaitable[None]]) -> None:
        """As `start`, but in this task, until the service returns."""
        async with trio.open_nursery() as nursery:
            await self.start(nursery, name, run)

    async def keep(
        self,
        name: str,
        run: Callable[[], Awaitable[None]],
        backoff_s: float = BACKOFF_S_MIN,
        *,
        of: str | None = None,
    ) -> None:
        """Run a service in this task until it returns, begun anew whenever it raises.

        Several services of one name are counted as one; the log says `of` what each was.
        """
        self.restarts[name] += 0
        while True:
            began_at = trio.current_time()
            try:
                await run()
            except Exception as error:
                if trio.current_time() - began_at >= HEALTHY_S:
                    backoff_s = BACKOFF_S_MIN
                await self._failed(name, error, backoff_s, of)
                backoff_s = min(2 * backoff_s, BACKOFF_S_MAX)
            else:
                return

    async def _failed(
        self, name: str, error: Exception, backoff_s: float, of: str | None = None
    ) -> None:
        self.restarts[name] += 1
        logger.error(
            "service failed, begun anew",
            role=self._role,
            service=name,
            of=of,
            after_s=round(backoff_s, 1),
            failures=self.restarts[name],
            exc_info=error,
        )
        await trio.sleep(backoff_s)

    def _samples(self) -> Iterable[Sample]:
        for name, count in self.restarts.items():
            yield Sample(SPECS[0].name, count, {"role": self._role, "service": name})


class _FirstStart(trio.TaskStatus[T]):
    """Hands on that a service has started, and remembers that it did."""

    def __init__(self, task_status: trio.TaskStatus[T]) -> None:
        self.told = False
        self._task_status = task_status

    def started(self, value: T | None = None) -> None:
        self.told = True
        self._task_status.started(value)  # type: ignore[arg-type]
