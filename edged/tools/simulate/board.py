"""What is heard of origins: heartbeats at 10 Hz, by production's own Capacitor.

All PoPs share one, for all hear the same: a heartbeat counts one interval after it was sent, as if
every PoP were the farthest one. While all beat, one that says the same as the last is taken in once
a second: it would change nothing but when its origin was heard, and `catch_up` makes up for that.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from edged.policy.capacitor import HEARTBEAT_INTERVAL_S, Capacitor, StateChanged
from edged.tools.simulate.streams import Site

if TYPE_CHECKING:
    from edged.media.routing import OriginReport

TICK_S = HEARTBEAT_INTERVAL_S
TICKS_PER_SECOND = round(1 / TICK_S)
BUSY_S = 30.0  # After something happened: probation and ramps are over.


class Board:
    """The heartbeats of all origins, as PoPs hear them."""

    def __init__(self, sites: Sequence[Site]) -> None:
        self._sites = sites
        self.capacitor = Capacitor()
        self.heard: list[OriginReport] = []  # In this tick.
        self.heard_at = -math.inf
        self._sent: list[OriginReport] = []
        self._taken: dict[str, OriginReport] = {}
        self._busy_until = -math.inf
        self._ticks = 0

    def tick(self, now: float) -> list[StateChanged]:
        """Hear what was sent a tick ago, judge who is silent, and have all send again."""
        self.heard, self._sent, self.heard_at = self._sent, [], now
        changes: list[StateChanged] = []
        capacitor = self.capacitor
        self._ticks += 1
        silent = len(self.heard) < len(self._sites)
        each = silent or now < self._busy_until or self._ticks % TICKS_PER_SECOND == 0
        for report in self.heard:
            if each or self._taken.get(report.origin) is not report:
                self._taken[report.origin] = report
                changes += capacitor.heartbeat(report, now)
        if silent and now >= capacitor.next_timeout() - TICK_S / 100:
            changes += capacitor.handle_timeout(now)
        self._sent = [site.report() for site in self._sites if site.works]
        return changes

    def catch_up(self, now: float) -> None:
        """Something is about to happen to an origin: take in all heartbeats, from now on each."""
        for report in self.heard:
            self.capacitor.heartbeat(report, self.heard_at)
        self._busy_until = now + BUSY_S

    def takes(self, origin: str) -> bool:
        """Whether streams may go there."""
        state = self.capacitor.state(origin)
        return state is not None and state.takes_streams
