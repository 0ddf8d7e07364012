"""The origin's end of the backbone: PoPs' units come in, parts go out, heartbeats tell how it is.

Everything runs in the pump's callbacks but the tick: acks every ACK_INTERVAL_S, heartbeats at
10 Hz, the directory's changes with them.
"""

import ssl
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Protocol

import msgspec
import structlog
import trio
from msgspec import Struct

from edged.backbone.directory import OriginDirectory
from edged.backbone.fence import Fence
from edged.backbone.inbound import ORPHAN_S_MAX, InboundStatistics, InboundStreams
from edged.backbone.inbound_stream import Inbound, stop_failed
from edged.backbone.local_end import LocalEnd
from edged.backbone.probe_answers import ProbeAnswers
from edged.backbone.segments_out import Given, SegmentsOut, SegmentsOutStatistics
from edged.backbone.session import OUT_BYTES_MAX, BackboneSession
from edged.backbone.subscriptions import Replay, Subscriptions, SubscriptionStatistics
from edged.errors import RemoteProtocolError
from edged.media.access_unit import AccessUnit
from edged.media.parts import PackagedEvent, SegmentPiece
from edged.media.routing import OriginReport, Terms
from edged.media.stream import Grant, PriorityClass, StreamId
from edged.media.track import Track, formats_of
from edged.runtime.connection import Connection, PumpClass
from edged.runtime.faults import contained
from edged.runtime.hub import Hub, LiveStream
from edged.runtime.listeners import parse_address, serve
from edged.runtime.pump import Pump
from edged.runtime.supervision import Supervisor
from edged.runtime.tls import check_plain
from edged.wire.backbone.events import FlowEnded, SenderEvent, UnitsSkipped
from edged.wire.backbone.messages import (
    FEATURE_PREEMPTION,
    DescriptionWanted,
    DirectoryDelta,
    DirectoryEntry,
    DirectoryWanted,
    Heartbeat,
    Hello,
    KeyFrameWanted,
    Message,
    RenditionAck,
    SegmentWanted,
    StreamOpened,
    StreamRefused,
    make_message_frame,
)

ACK_INTERVAL_S = 0.05
HEARTBEAT_TICKS = 2  # 10 Hz.
SESSIONS_MAX = 4096  # 4 per PoP shard: a thousand shards.
POP_ROLES = frozenset({"pop"})
CONTROL_MESSAGES = (DirectoryWanted, DescriptionWanted)  # What a PoP may say on a control session.

logger = structlog.get_logger("edged.backbone")


class OriginHost(Protocol):
    """What the origin's role is to the server. All of it is synchronous."""

    def admit(self, stream_id: StreamId, grant: Grant, tracks: list[Track], terms: Terms) -> None:
        """Let a stream in, or raise PublishRefusedError: the origin has the final word."""

    def stream_opened(self, stream: LiveStream, opened: StreamOpened) -> None:
        """A publication is in the hub, without units as yet; `opened` has what to splice to."""

    def stream_closed(self, stream: LiveStream, reason: str) -> None:
        """A publication left the hub."""

    def replay(
        self, channel: str, *, lists: bool, cold: bool
    ) -> tuple[StreamId, list[PackagedEvent]] | None:
        """What a late subscriber of a packaged channel gets first, as `policy.window_replay`."""

    def give_segment(self, stream_id: StreamId, rendition: str, msn: int, given: Given) -> None:
        """Have `given` called with a segment's bytes, or with why there are none."""

    def report(self) -> OriginReport:
        """The heartbeat of now."""


class ServerStatistics(Struct, frozen=True, kw_only=True):
    """Counters of the origin's end."""

    sessions: int
    inbound: InboundStatistics
    subscriptions: SubscriptionStatistics
    segments: SegmentsOutStatistics


class PeerStatistics(Struct, kw_only=True):
    """What comes from a PoP shard and goes there, by the sessions that are up."""

    sessions: int = 0
    received_bytes: int = 0
    sent_bytes: int = 0


class BackboneServer:
    """Accepts PoPs' sessions. `tls` None is plain TCP, for loopback only (else ConfigError)."""

    def __init__(  # noqa: PLR0913 -- each by its name, most with a default
        self,
        pump: Pump,
        hub: Hub,
        host: OriginHost,
        *,
        local: LocalEnd,
        listen: str,
        tls: ssl.SSLContext | None,
        fence: Fence | None = None,
        unix_clock: Callable[[], float] = time.time,
        supervisor: Supervisor | None = None,
        probe_port: int | None = None,
    ) -> None:
        """`supervisor` begins the listener and the tick anew, each by itself.

        `probe_port`: UDP; None is that of the listener, 0 answers no probes.
        """
        if tls is None:
            check_plain(parse_address(listen)[0], "backbone")
        self._pump, self._host = pump, host
        self._local, self._listen, self._tls = local, listen, tls
        self._unix_clock = unix_clock
        self._supervisor = supervisor or Supervisor(f"origin {local.name}")
        self._sessions: dict[BackboneSession, None] = {}
        self._directory = OriginDirectory(local.name, local.instance)
        self._listing: set[BackboneSession] = set()  # To them the whole directory is under way.
        replay: Replay = host.replay
        self._subscriptions = Subscriptions(hub, replay)
        self._segments = SegmentsOut(host)
        self._inbound = InboundStreams(
            hub,
            fence or Fence(),
            admit=host.admit,
            opened=self._stream_opened,
            closed=self._stream_closed,
            described=self._stream_described,
            changed=self._stream_changed,
        )
        self.probes = ProbeAnswers(probe_port, pump.now)
        self._ticks = 0

    async def run(self, *, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen and tick until cancelled; starts with the address bound."""
        async with trio.open_nursery() as nursery:
            address: str = await self._supervisor.start(nursery, "backbone listener", self._serve)
            answers = partial(self.probes.run, address)
            self._supervisor.start_soon(nursery, "probe answers", answers)
            task_status.started(address)
            try:
                await self._supervisor.keep("backbone tick", self._run_ticks)
            finally:
                for session in list(self._sessions):
                    session.close("drain", "the origin is stopping")

    def publish_event(self, stream_id: StreamId, event: PackagedEvent) -> None:
        """Push a packaged event to the PoPs that subscribe to the channel."""
        self._subscriptions.publish_event(stream_id, event)

    def packaged(
        self,
        stream_id: StreamId,
        packaged_seq: int,
        renditions: list[RenditionAck],
        splice: bytes = b"",
    ) -> None:
        """Parts were published; acked with the next tick. `splice` as in StreamAck."""
        self._inbound.packaged(stream_id, packaged_seq, renditions, splice)
        entry = self._directory.get(stream_id.channel)
        if entry is not None and entry.stream_id == stream_id:
            inbound = self._inbound.find(stream_id)
            formats = () if inbound is None else formats_of(inbound.stream.tracks.values())
            count = len(renditions)
            self._directory.set(msgspec.structs.replace(entry, renditions=count, formats=formats))

    def want_key_frame(self, stream_id: StreamId, track_id: int) -> None:
        """A reader here needs a random access point: ask upstream."""
        self._inbound.want_key_frame(stream_id, track_id)

    def stop_stream(self, stream_id: StreamId, code: str, reason: str) -> None:
        """End a stream here and tell its PoP why: `drain` makes it go elsewhere."""
        inbound = self._inbound.find(stream_id)
        if inbound is not None:
            self._inbound.stop(inbound, code, reason)

    def preempt_stream(self, stream_id: StreamId, reason: str) -> None:
        """End a stream that gives way to one of a higher class; its PoP takes it elsewhere."""
        inbound = self._inbound.find(stream_id)
        session = None if inbound is None else inbound.session
        if session is not None and FEATURE_PREEMPTION not in session.peer.features:
            self.stop_stream(stream_id, "drain", reason)
        else:
            self.stop_stream(stream_id, "preempted", reason)

    @property
    def streams(self) -> list[Inbound]:
        """What comes in."""
        return list(self._inbound)

    def statistics(self) -> ServerStatistics:
        """Counters since the start."""
        return ServerStatistics(
            sessions=len(self._sessions),
            inbound=self._inbound.statistics(),
            subscriptions=self._subscriptions.statistics(),
            segments=self._segments.statistics(),
        )

    def peers(self) -> dict[tuple[str, int], PeerStatistics]:
        """The PoP shards (name, shard) that are connected."""
        found: dict[tuple[str, int], PeerStatistics] = {}
        for session in self._sessions:
            peer = found.setdefault((session.peer.name, session.peer.shard), PeerStatistics())
            peer.sessions += 1
            peer.received_bytes += session.connection.received_bytes
            peer.sent_bytes += session.connection.sent_bytes
        return found

    def tick(self, now: float) -> None:
        """Acks; every other time heartbeats, the directory's changes and orphans."""
        self._inbound.send_acks()
        self._ticks += 1
        if self._ticks % HEARTBEAT_TICKS:
            return
        self._send_changes()
        heartbeat = make_message_frame(Heartbeat(self._host.report()))
        for session in self._sessions:
            if session.peer.purpose == "control":
                session.send_encoded(heartbeat)
        self._inbound.expire(now)

    # What sessions call.

    def session_accepted(self, session: BackboneSession, hello: Hello) -> None:
        """A PoP is here; on a control session it gets the whole directory."""
        if hello.purpose == "control":
            self._send_directory(session)
            self.probes.session_accepted(session)
        self._sessions[session] = None

    def message_received(self, session: BackboneSession, message: Message) -> None:
        """Act on a PoP's control message."""
        control = session.peer.purpose == "control"
        if control is not isinstance(message, CONTROL_MESSAGES):
            raise RemoteProtocolError(
                f"{type(message).__name__} on a {session.peer.purpose} session"
            )
        if isinstance(message, DirectoryWanted):
            self._send_directory(session)
        elif isinstance(message, DescriptionWanted):
            self._inbound.want_description(message)
        elif isinstance(message, KeyFrameWanted):
            stream_id = self._subscriptions.channel_of(session, message.stream_no)
            if stream_id is not None:
                self._inbound.want_key_frame(stream_id, message.track_id)
        elif isinstance(message, SegmentWanted):
            self._segments.wanted(session, message)
        elif isinstance(message, StreamRefused) and self._segments.refused(
            session, message.stream_no
        ):
            pass
        elif not self._inbound.handle(
            session, message, self._pump.now()
        ) and not self._subscriptions.handle(session, message):
            raise RemoteProtocolError(f"{type(message).__name__} from a PoP")

    def units_received(
        self, session: BackboneSession, stream_no: int, units: list[AccessUnit]
    ) -> None:
        """Append to the hub."""
        try:
            self._inbound.units_received(session, stream_no, units)
        except Exception as error:
            stop_failed(self._inbound, self._inbound.stop, session, stream_no, error)

    def event_received(
        self, session: BackboneSession, stream_no: int, event: PackagedEvent | SegmentPiece
    ) -> None:
        """Refuse: PoPs push no parts."""
        raise RemoteProtocolError(
            f"{session.peer.name}: {type(event).__name__} on stream {stream_no} from a PoP"
        )

    def flow_changed(self, session: BackboneSession, event: SenderEvent) -> None:
        """Log what a slow subscriber missed; what ended on its way there may go on."""
        if isinstance(event, FlowEnded):
            self._subscriptions.flow_ended(session, event)
            self._segments.flow_ended(session, event)
        elif isinstance(event, UnitsSkipped):
            logger.debug(
                "subscriber skipped",
                pop=session.peer.name,
                stream_no=event.stream_no,
                units=event.units,
            )

    def session_lost(self, session: BackboneSession, reason: str) -> None:
        """Keep the PoP's streams for a while, and forget its subscriptions."""
        logger.debug("keeping streams", pop=session.peer.name, reason=reason, s_max=ORPHAN_S_MAX)
        self._sessions.pop(session, None)
        self.probes.session_lost(session)
        self._listing.discard(session)
        self._inbound.session_lost(session, self._pump.now())
        self._subscriptions.session_lost(session)
        self._segments.session_lost(session)

    async def _run_ticks(self) -> None:
        due = self._pump.now()
        while True:
            self.tick(self._pump.now())
            due = max(due + ACK_INTERVAL_S, self._pump.now())
            await trio.sleep_until(due)

    async def _serve(self, *, task_status: trio.TaskStatus[str]) -> None:
        await serve(
            self._pump,
            self._listen,
            self._make_session,
            PumpClass.BACKBONE,
            tls=self._tls,
            connections_max=SESSIONS_MAX,
            makes_room=True,
            out_bytes_max=OUT_BYTES_MAX,
            task_status=task_status,
        )

    def _make_session(self, connection: Connection) -> BackboneSession:
        return BackboneSession(
            self._pump,
            connection,
            self,
            self._local.hello("media", PriorityClass.BASIC),
            roles=POP_ROLES,
            name=None,
            client=False,
            marks=self._local.marks,
        )

    def _send_directory(self, session: BackboneSession) -> None:
        if session in self._listing:
            return  # Asked again for each piece of a delta that did not fit.
        self._send_changes(but=session)  # Those who have the list go on from it.
        self._listing.add(session)
        session.send_list(self._list_directory(session, self._directory.whole()))

    def _list_directory(
        self, session: BackboneSession, whole: Iterator[DirectoryDelta]
    ) -> Iterator[bytes]:
        for delta in whole:
            yield make_message_frame(delta)
        self._listing.discard(session)

    def _send_changes(self, but: BackboneSession | None = None) -> None:
        """Tell every PoP what changed in the directory, behind what it is still being told."""
        frames = [make_message_frame(delta) for delta in self._directory.take_deltas()]
        for session in self._sessions:
            if frames and session is not but and session.peer.purpose == "control":
                session.send_list(iter(frames))

    def _stream_opened(self, stream: LiveStream, opened: StreamOpened) -> None:
        self._host.stream_opened(stream, opened)
        inbound = self._inbound.find(stream.stream_id)
        self._directory.set(
            DirectoryEntry(
                stream_id=stream.stream_id,
                title=stream.grant.title,
                category=stream.grant.category,
                labels=stream.grant.labels,
                priority=stream.grant.priority,
                tags=stream.grant.tags,
                latency=stream.grant.latency,
                pop=inbound.peer.partition("/")[2] if inbound is not None else "",
                started_at=self._unix_clock(),
            )
        )
        self._subscriptions.stream_opened(stream)

    def _stream_described(self, stream: LiveStream) -> None:
        """The directory tells it to every PoP with its next changes."""
        entry = self._directory.get(stream.channel)
        if entry is not None and entry.stream_id == stream.stream_id:
            told = msgspec.structs.asdict(stream.grant.description)
            self._directory.set(msgspec.structs.replace(entry, **told))

    def _stream_changed(self, inbound: Inbound) -> None:
        """A stream has gone on under a newer epoch, or has begun or ceased to wait."""
        stream, entry = inbound.stream, self._directory.get(inbound.stream_id.channel)
        if entry is None or entry.stream_id.publication != stream.stream_id.publication:
            return
        if entry.stream_id != stream.stream_id:
            self._subscriptions.stream_taken_over(stream)
        self._directory.set(
            msgspec.structs.replace(
                entry,
                stream_id=stream.stream_id,
                **msgspec.structs.asdict(stream.grant.description),
                priority=stream.grant.priority,
                tags=stream.grant.tags,
                latency=stream.grant.latency,
                pop=inbound.peer.partition("/")[2],
                waiting=inbound.waits,
            )
        )

    def _stream_closed(self, stream: LiveStream, reason: str) -> None:
        entry = self._directory.get(stream.channel)
        if entry is not None and entry.stream_id == stream.stream_id:
            self._directory.remove(stream.channel)
        # The stream has left the hub already: a bug there keeps no session from going on.
        with contained(logger, "stream failed to close", channel=stream.channel):
            self._host.stream_closed(stream, reason)
