"""RTMP and RTMPS ingest: the shell around `edged.wire.rtmp`.

A session's bytes are handled in the pump, without a task. A task exists only from a publish request
to its answer, while reading pauses.
"""

import os
import secrets
import ssl
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import msgspec
import structlog
import trio
from msgspec import Meta, Struct

from edged.errors import EdgedError, PeerLostError, PublishRefusedError, RemoteProtocolError
from edged.ingest.plugin import (
    DRAINING,
    PUBLISH_TIMEOUT_S,
    Door,
    IngestPlugin,
    Publication,
    PublishRequest,
)
from edged.media.place import place_of
from edged.media.track import AccessUnit, Codec
from edged.runtime.listeners import serve
from edged.runtime.pump import Connection, PumpClass
from edged.runtime.supervision import Supervisor
from edged.runtime.tls import PublicTls, keep_certificates
from edged.wire import rtmp

REFUSED_CODE = "NetStream.Publish.BadName"  # The only code for it that encoders know.
FAILED_CODE = "NetStream.Publish.Failed"  # What is broken off after it was granted, or before.
# Connections that have not published yet, from one address, of IPv6 its /64: a site behind one may
# restart all its encoders at once, but a stranger with one must not keep everyone else out.
PENDING_PER_ADDRESS_MAX = 64
PENDING_MAX = 1024  # From all addresses, beside `publishers_max`; each lives a few seconds.
OUT_BYTES_MAX = (
    64 * 1024
)  # Replies and acknowledgements only: a publisher that reads none is broken.
LOW_WATER_BYTES_MIN = 4096  # Below it the extra system call costs more than the wake-up it saves.

SESSIONS_FROM_NOW_ON = "for sessions from now on"

logger = structlog.get_logger("edged.rtmp")


class RtmpTlsConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[ingest.rtmp.tls]`: RTMPS beside RTMP."""

    certificate: Path
    key: Path
    listen: str = "[::]:1936"


class RtmpConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[ingest.rtmp]`: Enhanced RTMP over TCP."""

    listen: str = "[::]:1935"
    handshake_timeout_s: Annotated[float, Meta(gt=0, le=60)] = 5.0
    publish_timeout_s: Annotated[float, Meta(gt=0, le=60)] = 10.0  # From the handshake to publish.
    silence_timeout_s: Annotated[float, Meta(gt=0, le=600)] = 10.0  # Without audio or video.
    message_bytes_max: Annotated[int, Meta(ge=65536, le=8 * 2**20)] = 8 * 2**20
    publishers_max: Annotated[int, Meta(ge=1)] = 2_000  # Beyond it we refuse, not queue.
    tls: RtmpTlsConfig | None = None


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
        except Exception as error:  # A session's bug ends that session, never the others.
            logger.exception("session failed", peer=self._connection.peer, error=repr(error))
            self._connection.abort(f"internal error: {error!r}")

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


class RtmpIngest:
    """All RTMP sessions of a PoP, over all its listeners."""

    def __init__(self, config: RtmpConfig, door: Door, nursery: trio.Nursery) -> None:
        self.config = config
        self.door = door
        self.limits = _limits_of(config)
        self.start_soon = nursery.start_soon
        self._pending: dict[RtmpPublisher, str] = {}  # Not granted yet: where they come from.
        self._pending_from: Counter[str] = Counter()
        self._publishing: set[RtmpPublisher] = set()  # And those about to.

    def make_session(self, connection: Connection) -> RtmpPublisher:
        """Begin a session on a connection that was just accepted. Raises PeerLostError."""
        place = place_of(connection.peer)
        if self._pending_from[place] >= PENDING_PER_ADDRESS_MAX:
            raise PeerLostError(
                f"{PENDING_PER_ADDRESS_MAX} connections from {place} have not published yet"
            )
        session = RtmpPublisher(connection, self)
        self._pending[session] = place
        self._pending_from[place] += 1
        return session

    def reconfigure(self, config: RtmpConfig) -> None:
        """Take limits into use for the sessions from now on; those that are there keep theirs."""
        self.config, self.limits = config, _limits_of(config)

    def reserve(self, session: RtmpPublisher) -> None:
        """Take a place before the door is asked, which others may be waiting for as well.

        Raises PublishRefusedError when there are as many publishers as may be.
        """
        if len(self._publishing) >= self.config.publishers_max:
            raise PublishRefusedError(
                "full", f"this PoP takes {self.config.publishers_max} publishers; try again later"
            )
        self._publishing.add(session)

    def give_back(self, session: RtmpPublisher) -> None:
        """It was not let in."""
        self._publishing.discard(session)

    def granted(self, session: RtmpPublisher) -> None:
        """It publishes now."""
        self._no_longer_pending(session)

    def forget(self, session: RtmpPublisher) -> None:
        """Its connection is gone."""
        self._no_longer_pending(session)
        self._publishing.discard(session)

    def _no_longer_pending(self, session: RtmpPublisher) -> None:
        address = self._pending.pop(session, None)
        if address is not None:
            self._pending_from[address] -= 1
            if not self._pending_from[address]:
                del self._pending_from[address]


def _limits_of(config: RtmpConfig) -> rtmp.RtmpLimits:
    return rtmp.RtmpLimits(
        handshake_timeout_s=config.handshake_timeout_s,
        publish_timeout_s=config.publish_timeout_s,
        media_silence_s_max=config.silence_timeout_s,
        message_bytes_max=config.message_bytes_max,
        # One message, and what of others lies between its chunks.
        buffered_bytes_max=config.message_bytes_max * 3 // 2,
    )


async def serve_rtmp(
    config: Struct,
    door: Door,
    *,
    task_status: trio.TaskStatus[dict[str, str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Listen for publishers until cancelled.

    `EDGED_PURE_PYTHON=1` in the environment leaves the compiled RTMP core out: should it be at
    fault, or to see lines in a profile.
    """
    config = msgspec.convert(config, RtmpConfig)
    rtmp.use_compiled(os.environ.get("EDGED_PURE_PYTHON", "") in ("", "0"))
    if not rtmp.is_compiled():
        logger.warning("the RTMP core is not compiled: ingest takes half as much CPU again")
    tls = None
    if config.tls is not None:
        tls = PublicTls(str(config.tls.certificate), str(config.tls.key))
    async with trio.open_nursery() as nursery:
        ingest = RtmpIngest(config, door, nursery)

        def prepare_reload(new: Struct) -> Callable[[], None]:
            new = msgspec.convert(new, RtmpConfig)
            take = None
            if tls is not None and new.tls is not None:
                take = tls.prepare(str(new.tls.certificate), str(new.tls.key))

            def commit() -> None:
                ingest.reconfigure(new)
                if take is not None:
                    take()

            return commit

        door.on_reload("rtmp", prepare_reload)

        async def listen(address: str, context: ssl.SSLContext | None) -> str:
            bound: str = await nursery.start(
                lambda task_status: serve(
                    door.pump,
                    address,
                    ingest.make_session,
                    PumpClass.PUBLISHER,
                    tls=context,
                    connections_max=lambda: ingest.config.publishers_max + PENDING_MAX,
                    makes_room=True,
                    out_bytes_max=OUT_BYTES_MAX,
                    task_status=task_status,
                )
            )
            return bound

        addresses = {"rtmp": await listen(config.listen, None)}
        if config.tls is not None and tls is not None:
            addresses["rtmps"] = await listen(config.tls.listen, tls.context)
            certificates = partial(keep_certificates, tls)
            Supervisor("ingest.rtmp").start_soon(nursery, "certificates", certificates)
        task_status.started(addresses)
        await trio.sleep_forever()


plugin = IngestPlugin(
    name="rtmp",
    config_type=RtmpConfig,
    serve=serve_rtmp,
    codecs=(Codec.H264, Codec.H265, Codec.AV1, Codec.VP9, Codec.AAC, Codec.OPUS),
    live_keys={
        "handshake_timeout_s": SESSIONS_FROM_NOW_ON,
        "publish_timeout_s": SESSIONS_FROM_NOW_ON,
        "silence_timeout_s": SESSIONS_FROM_NOW_ON,
        "message_bytes_max": SESSIONS_FROM_NOW_ON,
        "publishers_max": "counts for publishers from now on; nobody is sent away",
        "tls.certificate": "shown to connections from now on",
        "tls.key": "used for connections from now on",
    },
)
