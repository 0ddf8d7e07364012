"""The PoP's side of the ingest plug-in contract: key, channel's own run, place, publication."""

import secrets
import time
from collections.abc import Callable, Sequence

import structlog
import trio

from edged.errors import PublishRefusedError
from edged.ingest.plugin import HttpRoute, Publication, PublisherControl, PublishRequest
from edged.media.routing import RouteRequest
from edged.media.stream import Grant, StreamId
from edged.policy.attempts import Attempts
from edged.policy.stream_keys import StreamKeys
from edged.policy.takeover import PUBLICATION_CHANCE_BITS, TAKEN_OVER
from edged.roles.descriptions import Descriptions
from edged.roles.uplinks import Uplinks
from edged.runtime.hub import Hub, LiveStream
from edged.runtime.pump import Pump

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
        descriptions: Descriptions | None = None,
        unix_now: Callable[[], float] = time.time,
    ) -> None:
        self.pump = pump
        self.refused_total = 0
        self.accepted_total = 0
        self.routes: list[HttpRoute] = []  # What plug-ins add to the API.
        self._hub, self._keys, self._uplinks = hub, keys, uplinks
        self._placing, self._runs = uplinks.placing, uplinks.placing.runs
        self._attempts = Attempts()
        self._descriptions = descriptions or Descriptions(hub, uplinks, pump.now)
        self._unix_now = unix_now
        self._controls: dict[LiveStream, PublisherControl] = {}
        self._emptied = trio.Event()

    async def publish(self, request: PublishRequest, control: PublisherControl) -> Publication:
        """Check the key, place the stream; raises `PublishRefusedError` with code and reason."""
        try:
            grant = self._descriptions.adopt(self._check_key(request))
            route = RouteRequest(
                channel=grant.channel,
                priority=grant.priority,
                tags=grant.tags,
                protocol=request.protocol,
            )
            await self._placing.wait_route(route)
            return self._publish(request, grant, route, control)
        except PublishRefusedError:
            self.refused_total += 1
            raise

    def add_routes(self, routes: Sequence[HttpRoute]) -> None:
        """Keep a plug-in's HTTP handlers for the API, which is made when all have started."""
        self.routes += routes

    def check(self, key: str, protocol: str, peer: str) -> Grant:
        """Whether a key would be let in now, by that protocol, without a publication.

        Raises `PublishRefusedError` as `publish` does, but not for want of a route. A wrong key
        counts.
        """
        grant = self.identify(key, peer, protocol)
        live = self._hub.get(grant.channel)
        self._runs.takes_over(
            grant.channel,
            here=live is not None and live.ended is None,
            listed=self._uplinks.lookup(grant.channel),
            now=self.pump.now(),
        )
        return grant

    def identify(self, key: str, peer: str, protocol: str | None = None) -> Grant:
        """Whose key it is; raises `PublishRefusedError`. A wrong key counts."""
        now = self.pump.now()
        self._attempts.check(peer, now)
        try:
            return self._keys.identify(key, self._unix_now(), protocol)
        except PublishRefusedError as error:
            self._attempts.note_refused(peer, error.code, now)
            raise

    def stop_all(self, code: str, reason: str) -> None:
        """Tell every publisher why it has to go."""
        for control in list(self._controls.values()):
            control.stop(code, reason)

    async def wait_empty(self) -> None:
        """Wait until every publisher is gone."""
        while self._controls:
            self._emptied = trio.Event()
            await self._emptied.wait()

    def _check_key(self, request: PublishRequest) -> Grant:
        now = self.pump.now()
        self._attempts.check(request.peer, now)
        try:
            return self._keys.check(
                request.app, request.stream_key, self._unix_now(), request.protocol
            )
        except PublishRefusedError as error:
            self._attempts.note_refused(request.peer, error.code, now)
            raise

    def _publish(
        self,
        request: PublishRequest,
        grant: Grant,
        route: RouteRequest,
        control: PublisherControl,
    ) -> Publication:
        self._placing.check_route(route)  # Else a newcomer without a place would end the incumbent.
        channel, now = grant.channel, self.pump.now()
        older = self._hub.get(channel)
        takes_over = self._runs.takes_over(
            channel,
            here=older is not None and older.ended is None,
            listed=self._uplinks.lookup(channel),
            now=now,
        )
        chance = secrets.randbits(PUBLICATION_CHANCE_BITS)
        number = self._runs.next_publication(channel, self._unix_now(), chance)
        stream = self._hub.open(
            StreamId(channel, number),
            grant,
            started_at=now,
            came_from=f"{request.protocol} {request.peer}",
        )
        self._runs.begun(stream.stream_id)
        if takes_over:
            self._runs.taken_over(channel, now)
        if older is not None and older in self._controls:
            self._controls[older].stop("Rejected", TAKEN_OVER)
        try:
            self._placing.place(stream, route, lambda error: _give_up(channel, control, error))
        except BaseException:
            self._hub.close(stream, "no origin takes it")
            raise
        self._controls[stream] = control
        self.accepted_total += 1
        return Publication(
            stream, wallclock_us=lambda: int(self._unix_now() * 1e6), close=self._close
        )

    def _close(self, stream: LiveStream, reason: str) -> None:
        is_known = self._controls.pop(stream, None) is not None
        self._hub.close(stream, reason)
        if is_known:
            self._placing.end(stream)
            self._descriptions.ended(stream.channel)
        if not self._controls:
            self._emptied.set()


def _give_up(channel: str, control: PublisherControl, error: PublishRefusedError) -> None:
    """Stop a publisher that was let in; the log has what it is not told."""
    logger.warning(
        "publication given up",
        channel=channel,
        code=error.code,
        reason=error.reason,
        detail=error.detail or None,
    )
    if error.code == "fenced":  # By a newer publisher, or by the number of one that has ended.
        control.stop("Rejected", error.reason)
    else:
        control.stop("Failed", f"{error.code}: {error.reason}")
