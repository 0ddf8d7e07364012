"""What is heard of origins: heartbeats at 10 Hz, by production's own Capacitor.

All PoPs share one, for all hear the same: a heartbeat counts one interval after it was sent, as if
every PoP were the farthest one.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from edged.policy.capacitor import HEARTBEAT_INTERVAL_S, Capacitor, StateChanged
from edged.tools.simulate.streams import Site

if TYPE_CHECKING:
    from edged.media.routing import OriginReport

TICK_S = HEARTBEAT_INTERVAL_S


class Board:
    """The heartbeats of all origins, as PoPs hear them."""

    def __init__(self, sites: Sequence[Site]) -> None:
        self._sites = sites
        self.capacitor = Capacitor()
        self.heard: list[OriginReport] = []  # In this tick.
        self.heard_at = -math.inf
        self._sent: list[OriginReport] = []

    def tick(self, now: float) -> list[StateChanged]:
        """Hear what was sent a tick ago, judge who is silent, and have all send again."""
        self.heard, self._sent, self.heard_at = self._sent, [], now
        changes: list[StateChanged] = []
        capacitor = self.capacitor
        for report in self.heard:
            changes += capacitor.heartbeat(report, now)
        if len(self.heard) < len(self._sites) and now >= capacitor.next_timeout() - TICK_S / 100:
            changes += capacitor.handle_timeout(now)
        self._sent = [site.report() for site in self._sites if site.works]
        return changes

    def takes(self, origin: str) -> bool:
        """Whether streams may go there."""
        state = self.capacitor.state(origin)
        return state is not None and state.takes_streams
