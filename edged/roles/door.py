"""The PoP's side of the ingest plug-in contract: key, channel's own run, place, publication."""

import secrets
import time
from collections.abc import Callable

import structlog
import trio

from edged.errors import PublishRefusedError
from edged.ingest.plugin import Publication, PublisherControl, PublishRequest
from edged.media.routing import RouteRequest
from edged.media.stream import StreamId
from edged.policy.stream_keys import StreamKeys
from edged.roles.uplinks import Placement, Uplinks
from edged.runtime.hub import Hub, LiveStream
from edged.runtime.pump import Pump

PUBLICATION_CHANCE_BITS = 12  # Two PoPs in one millisecond get different publications.
TAKEOVER_INTERVAL_S = 30.0  # Two encoders with one key must not evict each other for ever.
TAKEN_OVER = "taken over by a newer publisher"

logger = structlog.get_logger("edged.pop")


class PopDoor:
    """Lets publishers in. One per PoP, for all its plug-ins."""

    def __init__(
        self,
        pump: Pump,
        hub: Hub,
        keys: StreamKeys,
        uplinks: Uplinks,
        *,
        unix_now: Callable[[], float] = time.time,
    ) -> None:
        self.pump = pump
        self.refused_total = 0
        self.accepted_total = 0
        self._hub, self._keys, self._uplinks = hub, keys, uplinks
        self._unix_now = unix_now
        self._controls: dict[LiveStream, tuple[Placement, PublisherControl]] = {}
        self._taken_over: dict[str, float] = {}  # Channel -> when, for TAKEOVER_INTERVAL_S.
        self._emptied = trio.Event()

    async def publish(self, request: PublishRequest, control: PublisherControl) -> Publication:
        """Check the key, place the stream; raises `PublishRefusedError` with code and reason."""
        try:
            await self._uplinks.wait_route(RouteRequest(channel="", protocol=request.protocol))
            return self._publish(request, control)
        except PublishRefusedError:
            self.refused_total += 1
            raise

    def stop_all(self, code: str, reason: str) -> None:
        """Tell every publisher why it has to go."""
        for _, control in list(self._controls.values()):
            control.stop(code, reason)

    async def wait_empty(self) -> None:
        """Wait until every publisher is gone."""
        while self._controls:
            self._emptied = trio.Event()
            await self._emptied.wait()

    def stop(self, channel: str, code: str, reason: str) -> bool:
        """Stop one channel's publisher; False when it has none here."""
        stream = self._hub.get(channel)
        entry = self._controls.get(stream) if stream is not None else None
        if entry is None:
            return False
        entry[1].stop(code, reason)
        return True

    def _publish(self, request: PublishRequest, control: PublisherControl) -> Publication:
        unix_now = self._unix_now()
        grant = self._keys.check(request.app, request.stream_key, unix_now, request.protocol)
        route = RouteRequest(
            channel=grant.channel,
            priority=grant.priority,
            tags=grant.tags,
            protocol=request.protocol,
        )
        self._uplinks.check_route(route)  # Else a newcomer without a place would end the incumbent.
        older = self._hub.get(grant.channel)
        if older is not None and older.ended is None:
            self._note_takeover(grant.channel)
        stream = self._hub.open(
            StreamId(grant.channel, self._new_publication(unix_now, grant.channel, older)),
            grant,
            started_at=self.pump.now(),
            came_from=f"{request.protocol} {request.peer}",
        )
        if older is not None and older in self._controls:
            self._controls[older][1].stop("Rejected", TAKEN_OVER)

        def give_up(code: str, reason: str) -> None:
            if code == "fenced":  # The newer publisher is at another PoP.
                control.stop("Rejected", TAKEN_OVER)
            else:
                control.stop("Failed", f"{code}: {reason}")

        try:
            placement = self._uplinks.place(stream, route, give_up)
        except BaseException:
            self._hub.close(stream, "no origin takes it")
            raise
        self._controls[stream] = (placement, control)
        self.accepted_total += 1
        return Publication(
            stream, wallclock_us=lambda: int(self._unix_now() * 1e6), close=self._close
        )

    def _close(self, stream: LiveStream, reason: str) -> None:
        entry = self._controls.pop(stream, None)
        self._hub.close(stream, reason)
        if entry is not None:
            self._uplinks.end(entry[0].stream)
        if not self._controls:
            self._emptied.set()

    def _note_takeover(self, channel: str) -> None:
        now = self.pump.now()
        self._taken_over = {
            name: at for name, at in self._taken_over.items() if now - at < TAKEOVER_INTERVAL_S
        }
        if channel in self._taken_over:
            raise PublishRefusedError(
                "takeover",
                f"channel {channel!r} is live and was taken over"
                f" {now - self._taken_over[channel]:.0f} s ago; a second time is refused for"
                f" {TAKEOVER_INTERVAL_S:g} s: do two encoders use the same key?",
            )
        self._taken_over[channel] = now

    def _new_publication(self, unix_now: float, channel: str, older: LiveStream | None) -> int:
        """A number greater than those of earlier runs anywhere: time first, then chance."""
        number = int(unix_now * 1000) << PUBLICATION_CHANCE_BITS
        number |= secrets.randbits(PUBLICATION_CHANCE_BITS)
        known = self._uplinks.lookup(channel)  # Its PoP's clock may be ahead of ours.
        floor = max(
            older.stream_id.publication if older is not None else 0,
            known.publication if known is not None else 0,
        )
        return max(number, floor + 1)
