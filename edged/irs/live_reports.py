"""A PoP's side of who is live where: each IRS that asks is told what is published here."""

from collections.abc import Callable, Mapping

import structlog
import trio

from edged.media.live import LiveAsk, LiveReport, LiveRow
from edged.policy.live_teller import LiveTeller
from edged.runtime.faults import contained

LOOK_S = 1.0  # As telemetry by default.

log = structlog.get_logger("edged.irs.client")


class LiveReports:
    """Of one PoP. `send(session, report)` has a session by its address of IRS."""

    def __init__(
        self,
        rows: Callable[[], Mapping[str, LiveRow]],
        send: Callable[[str, LiveReport], None],
    ) -> None:
        self._rows, self._send = rows, send
        self._tellers: dict[str, LiveTeller] = {}  # Of those that have asked.
        self._woken = trio.Event()

    def asked(self, session: str, ask: LiveAsk) -> None:
        """An IRS asks; it is told at once."""
        self._tellers.setdefault(session, LiveTeller()).asked(ask)
        self._woken.set()

    def ended(self, session: str) -> None:
        """A session is over."""
        self._tellers.pop(session, None)

    async def run(self) -> None:
        """Look and tell until cancelled."""
        while True:
            self.tell()
            now = trio.current_time()
            times = [each.next_timeout() for each in self._tellers.values()]
            with trio.move_on_at(min([now + LOOK_S, *times])):
                await self._woken.wait()
            self._woken = trio.Event()

    def tell(self) -> None:
        """Tell what is new, to whom it is."""
        if not self._tellers:
            return
        with contained(log, "who is live not told"):  # Tables come by the same sessions.
            rows, now = self._rows(), trio.current_time()
            for session, teller in self._tellers.items():
                if (report := teller.report(rows, now)) is not None:
                    self._send(session, report)
