"""One RTMP publisher's session in the pump: its core's bytes, events and deadlines.

Its bytes are handled without a task. A task exists only from a publish request to its answer, while
reading pauses.
"""

import secrets
from typing import TYPE_CHECKING

import structlog
import trio

from edged.errors import EdgedError, PublishRefusedError, RemoteProtocolError
from edged.ingest.plugin import DRAINING, PUBLISH_TIMEOUT_S, PublishRequest
from edged.ingest.publication import Publication
from edged.media.access_unit import AccessUnit
from edged.runtime.connection import Connection
from edged.wire import rtmp

if TYPE_CHECKING:
    from edged.ingest.rtmp import RtmpIngest

REFUSED_CODE = "NetStream.Publish.BadName"  # The only code for it that encoders know.
FAILED_CODE = "NetStream.Publish.Failed"  # What is broken off after it was granted, or before.
LOW_WATER_BYTES_MIN = 4096  # Below it the extra system call costs more than the wake-up it saves.

logger = structlog.get_logger("edged.rtmp")


class RtmpPublisher:
    """One publisher's session in the pump: a `PumpHandler` and a `PublisherControl`."""

    def __init__(self, connection: Connection, owner: "RtmpIngest") -> None:
        self._connection = connection
        self._owner = owner
        self._protocol = "rtmp" if connection.ssl is None else "rtmps"
        self._started_at = connection.pump.now()
        self._core = rtmp.RtmpServerSession(
            now=self._started_at, entropy=secrets.token_bytes, limits=owner.limits
        )
        self._publication: Publication | None = None
        self._publication_over = False
        self._authorising: trio.CancelScope | None = None
        self._closed: str | None = None  # Why we close: what the peer still says is not heard.
        self._after()

    # The pump's side.

    def data_received(self, data: memoryview, now: float) -> None:
        """Feed the core; units go straight into the publication."""
        try:
            if events := self._core.receive_data(data, now):
                self._handle(events)
        except EdgedError as error:
            self._fail(error)
        else:
            self._after()

    def handle_timeout(self, now: float) -> None:
        """Let the core judge: handshake, publish and silence deadlines."""
        self._handle(self._core.handle_timeout(now))
        self._after()

    def drained(self) -> None:
        """Nothing waits for room here."""

    def connection_lost(self, reason: str) -> None:
        """End the publication, and log the session in one line."""
        if self._authorising is not None:
            self._authorising.cancel()
        statistics = self._core.statistics()
        self._core.close(FAILED_CODE, reason)  # The pump may keep us a while: hold no buffers.
        channel = None
        if self._publication is not None:
            channel = self._publication.stream.channel
            self._end_publication(reason, lost=True)
        logger.info(
            "publisher ended" if channel else "connection ended",
            channel=channel,
            peer=self._connection.peer,
            protocol=self._protocol,
            reason=reason,
            duration_s=round(self._connection.pump.now() - self._started_at, 3),
            received_bytes=self._connection.received_bytes,
            units=statistics.units,
            units_unusable=statistics.units_unusable or None,
        )
        self._owner.forget(self)

    # What the network wants of the publisher.

    def stop(self, code: str, reason: str) -> None:
        """Tell the encoder why, then close."""
        self._core.close(f"NetStream.Publish.{code}", reason)
        self._close(reason)

    def drain(self, reconnect_url: str | None) -> None:
        """Ask an encoder that can to reconnect, and close for the others.

        E-RTMP v2, "Reconnect Request": we go on taking what comes until the encoder disconnects.
        """
        if self._core.request_reconnect("this PoP is draining", reconnect_url or ""):
            self._after()
        else:
            self.stop("Rejected", DRAINING)

    def want_key_frame(self) -> None:
        """RTMP has no means to ask for one."""

    def cap_bitrate(self, bits_per_second: int) -> None:
        """RTMP has no means to say so."""

    # Inside.

    def _handle(self, events: list[rtmp.Event]) -> None:
        units: list[AccessUnit] = []
        for event in events:
            if type(event) is AccessUnit:
                units.append(event)
                continue
            if units:
                self._append(units)
                units = []
            self._handle_rare(event)
            if self._closed is not None:
                return
        if units:
            self._append(units)

    def _append(self, units: list[AccessUnit]) -> None:
        if self._publication is not None:
            self._publication.append(units)

    def _handle_rare(self, event: rtmp.Event) -> None:
        match event:
            case rtmp.PublishRequested() if self._owner.over:
                self._refuse(*DRAINING.split(": ", 1))
            case rtmp.PublishRequested():
                self._connection.pause_reading()
                self._connection.set_receive_low_water(1)
                self._owner.start_soon(self._authorise, event)
            case rtmp.TrackAnnounced():
                if self._publication is not None:
                    self._publication.set_track(event.track)
                    config = event.track.config
                    logger.info(
                        "track",
                        channel=self._publication.stream.channel,
                        track=event.track.track_id,
                        codec=config.codec_string,
                        size=f"{config.width}x{config.height}" if config.width else None,
                        sample_rate=config.sample_rate or None,
                        language=None if event.track.language == "und" else event.track.language,
                        name=event.track.name or None,
                    )
            case rtmp.UnitsUnusable():
                if self._publication is not None:
                    logger.warning(
                        "units dropped",
                        channel=self._publication.stream.channel,
                        track=event.track_id,
                        reason=event.reason,
                    )
            case rtmp.PublishEnded():
                self._close(event.reason)
            case rtmp.PeerTimedOut():
                self._close(event.reason, lost=True)
            case rtmp.PlayRefused():
                self._close("play over RTMP is not offered; watch over LL-HLS")
            case _:
                pass  # Metadata and data messages: nothing downstream reads them yet.

    async def _authorise(self, event: rtmp.PublishRequested) -> None:
        try:
            publication = await self._ask_door(event)
            if publication is not None:
                self._begin(publication, event)
        except EdgedError as error:
            self._fail(error)
        except Exception as bug:  # A session's bug ends that session, never the others.
            logger.exception("session failed", peer=self._connection.peer, error=repr(bug))
            self._connection.abort(f"internal error: {bug!r}")

    async def _ask_door(self, event: rtmp.PublishRequested) -> Publication | None:
        """The publication; None when it was refused, or the publisher did not wait for it."""
        self._connection.spoke = True
        request = PublishRequest(
            protocol=self._protocol,
            app=event.app,
            stream_key=event.stream_key,
            peer=self._connection.peer,
            encoder=event.encoder,
        )
        publication: Publication | None = None
        try:
            with trio.CancelScope() as self._authorising, trio.fail_after(PUBLISH_TIMEOUT_S):
                self._owner.reserve(self)
                if self._connection.lost is None:
                    publication = await self._owner.door.publish(request, self)
        except PublishRefusedError as error:
            self._refuse(error.code, error.reason, error.detail)
        except trio.TooSlowError:
            self._refuse("timeout", f"no decision within {PUBLISH_TIMEOUT_S:g} s; try again")
        finally:
            self._authorising = None
            if publication is None:
                self._owner.give_back(self)
        over = self._closed or self._connection.lost
        if publication is not None and over is not None:
            if self._closed is None:
                publication.lose(over)
            else:
                publication.end(over)
            return None
        return publication

    def _begin(self, publication: Publication, event: rtmp.PublishRequested) -> None:
        assert self._publication is None, "a connection publishes once"
        self._publication = publication
        self._owner.granted(self)
        logger.info(
            "publisher started",
            channel=publication.stream.channel,
            publication=f"{publication.stream.stream_id.publication:x}",
            priority=publication.grant.priority.label,
            peer=self._connection.peer,
            protocol=self._protocol,
            encoder=event.encoder or None,
        )
        self._handle(self._core.accept_publish(self._connection.pump.now()))
        self._connection.resume_reading()
        self._after()

    def _fail(self, error: EdgedError) -> None:
        """The publisher broke the protocol, or sends what nobody can carry."""
        if isinstance(error, RemoteProtocolError):
            self._break_off("broken_protocol", str(error))
        else:
            self._break_off("unsupported_media", str(error))

    def _break_off(self, code: str, reason: str) -> None:
        """Tell the publisher why, and close."""
        self._core.close(FAILED_CODE, f"{code}: {reason}")
        self._close(f"{code}: {reason}")

    def _refuse(self, code: str, reason: str, detail: str = "") -> None:
        if self._closed is not None:  # The publisher was told something else.
            return
        logger.warning(
            "publisher refused",
            peer=self._connection.peer,
            protocol=self._protocol,
            code=code,
            reason=reason,
            detail=detail or None,
        )
        self._core.refuse_publish(REFUSED_CODE, f"{code}: {reason}")
        self._close(f"refused: {code}: {reason}")

    def _close(self, reason: str, *, lost: bool = False) -> None:
        """Close when what the core still has to say has left; the publication ends at once."""
        self._closed = self._closed or reason
        self._after()
        self._connection.close(reason)
        self._end_publication(self._closed, lost=lost)

    def _end_publication(self, reason: str, *, lost: bool = False) -> None:
        """Once: viewers need not wait for the publisher to hang up too.

        `lost`: it has not said goodbye, nor have we, so it may come back.
        """
        if self._publication is None or self._publication_over:
            return
        self._publication_over = True
        if lost:
            self._publication.lose(reason)
        else:
            self._publication.end(reason)

    def _after(self) -> None:
        """After every input: collect the output, re-read the deadline, ask for what is missing."""
        core, connection = self._core, self._connection
        if core.outbox:
            connection.write(core.data_to_send())
        connection.set_timeout(core.deadline)
        wanted = core.bytes_wanted
        connection.set_receive_low_water(wanted if wanted >= LOW_WATER_BYTES_MIN else 1)
