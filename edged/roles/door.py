"""The PoP's side of the ingest plug-in contract: key, channel's own run, place, publication."""

import secrets
import time
from collections.abc import Callable

import structlog
import trio

from edged.errors import PublishRefusedError
from edged.ingest.plugin import PrepareReload, Publication, PublisherControl, PublishRequest
from edged.media.routing import RouteRequest
from edged.media.stream import Grant, StreamId
from edged.policy.attempts import Attempts
from edged.policy.blocks import Blocks
from edged.policy.stream_keys import StreamKeys
from edged.policy.takeover import PUBLICATION_CHANCE_BITS, TAKEN_OVER
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
        unix_now: Callable[[], float] = time.time,
    ) -> None:
        self.pump = pump
        self.refused_total = 0
        self.accepted_total = 0
        self._hub, self._keys, self._uplinks = hub, keys, uplinks
        self._placing, self._runs = uplinks.placing, uplinks.placing.runs
        self._attempts = Attempts()
        self._blocks = Blocks()
        self._unix_now = unix_now
        self._controls: dict[LiveStream, PublisherControl] = {}
        self._requests: dict[LiveStream, PublishRequest] = {}
        self._emptied = trio.Event()
        self._draining = ""  # Why nobody is let in now.
        self.prepares: dict[str, PrepareReload] = {}  # Of the plug-ins, by name.

    async def publish(self, request: PublishRequest, control: PublisherControl) -> Publication:
        """Check the key, place the stream; raises `PublishRefusedError` with code and reason."""
        try:
            self._check_open()
            grant = self._check_key(request)
            self._blocks.check(grant.channel, self.pump.now())
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

    def on_reload(self, name: str, prepare: PrepareReload) -> None:
        """Have a plug-in's `prepare` called when the file is read again."""
        self.prepares[name] = prepare

    @property
    def published(self) -> list[LiveStream]:
        """What is published here now."""
        return list(self._controls)

    def refuse_all(self, reconnect_url: str | None) -> None:
        """Let nobody in from now on: this PoP drains."""
        where = f"publish to {reconnect_url}" if reconnect_url else "publish to another"
        self._draining = f"this PoP is draining; {where}"

    def admit_again(self) -> None:
        """Let publishers in as before."""
        self._draining = ""

    def drain(self, stream: LiveStream, reconnect_url: str | None) -> None:
        """Have a publisher go elsewhere, if it is still here."""
        control = self._controls.get(stream)
        if control is not None:
            control.drain(reconnect_url)

    def stop(self, stream: LiveStream, code: str, reason: str) -> None:
        """Tell a publisher why it has to go, if it is still here."""
        control = self._controls.get(stream)
        if control is not None:
            control.stop(code, reason)

    def kick(self, channel: str, reason: str, *, block_s: float = 0.0) -> bool:
        """End a publication for good; with `block_s` refuse the channel for so long.

        Says whether it was live here. Raises EdgedError when the block can't be; then nothing has
        changed.
        """
        if block_s:
            self._blocks.block(channel, reason, seconds=block_s, now=self.pump.now())
        stream = next((known for known in self._controls if known.channel == channel), None)
        if stream is None:
            return False
        told = f"kicked: {reason}"
        control = self._controls[stream]
        self._close(stream, told)  # At once, whatever the plug-in would wait for.
        control.stop("Rejected", told)
        return True

    def use_keys(self, keys: StreamKeys) -> list[str]:
        """Check publishers by other keys from now on; nobody is sent away.

        Returns the channels that are live though their key would no longer be let in.
        """
        self._keys = keys
        invalid = []
        for stream, request in self._requests.items():
            try:
                now = self._unix_now()
                grant = keys.check(request.app, request.stream_key, now, request.protocol)
            except PublishRefusedError:
                invalid.append(stream.channel)
            else:
                if grant.channel != stream.channel:
                    invalid.append(stream.channel)
        return sorted(invalid)

    def stop_all(self, code: str, reason: str) -> None:
        """Tell every publisher why it has to go."""
        for control in list(self._controls.values()):
            control.stop(code, reason)

    async def wait_empty(self) -> None:
        """Wait until every publisher is gone."""
        while self._controls:
            self._emptied = trio.Event()
            await self._emptied.wait()

    def _check_open(self) -> None:
        if self._draining:
            raise PublishRefusedError("drain", self._draining)

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
        self._check_open()  # Since it began to wait for a route.
        self._blocks.check(grant.channel, self.pump.now())
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
        self._requests[stream] = request
        self.accepted_total += 1
        return Publication(
            stream, wallclock_us=lambda: int(self._unix_now() * 1e6), close=self._close
        )

    def _close(self, stream: LiveStream, reason: str) -> None:
        is_known = self._controls.pop(stream, None) is not None
        self._requests.pop(stream, None)
        self._hub.close(stream, reason)
        if is_known:
            self._placing.end(stream)
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
