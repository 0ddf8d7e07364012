"""When to plan: at once when something failed or arrived, else at the push interval.

Each plan at the interval renews every lease; an urgent one reaches only the PoPs it changes.
"""

from collections.abc import Callable

import trio

from edged.irs.collectors import Collectors
from edged.media.routing import OriginRow
from edged.policy.planner import plan_leases

PLAN_INTERVAL_S_MIN = 0.02  # A storm of changes is planned fifty times a second at most.

Rows = dict[str, tuple[OriginRow, ...]]  # PoP shard -> its rows.


class Planner:
    """Runs the plan and hands the rows on."""

    def __init__(
        self,
        collectors: Collectors,
        publish: Callable[[Rows, bool], None],
        *,
        push_interval_s: float,
        lease_ttl_s: float,
        reserve_fraction: float,
    ) -> None:
        """`publish(rows, renew)` is synchronous; with `renew` all are pushed, else the changed."""
        self._collectors = collectors
        self._publish = publish
        self.push_interval_s = push_interval_s
        self.lease_ttl_s = lease_ttl_s
        self.reserve_fraction = reserve_fraction
        self._urgent = trio.Event()
        self.plans = 0
        self.plan_s = 0.0  # The last one took so long.

    def hurry(self) -> None:
        """Plan as soon as possible: an origin or a PoP came, went or changed."""
        self._urgent.set()

    async def run(self) -> None:
        """Plan until cancelled."""
        renew_at = trio.current_time()
        while True:
            with trio.move_on_at(renew_at):
                await self._urgent.wait()
            await trio.lowlevel.checkpoint()  # What arrived together is planned together.
            self._urgent = trio.Event()
            started = trio.current_time()
            renew = started >= renew_at
            if renew:
                renew_at = started + self.push_interval_s
            self.plan_now(renew=renew)
            await trio.sleep(PLAN_INTERVAL_S_MIN)

    def plan_now(self, *, renew: bool) -> None:
        """Plan once."""
        now = trio.current_time()
        rows = plan_leases(
            self._collectors.supplies(now),
            self._collectors.demands(now, self.lease_ttl_s),
            reserve_fraction=self.reserve_fraction,
        )
        self.plans += 1
        self._publish(rows, renew)
        self.plan_s = trio.current_time() - now
