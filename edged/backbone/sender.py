"""The PoP's end of the backbone: one link per origin, kept up, with a session per purpose.

A control session brings heartbeats and the directory; a media session per priority class takes
publications to the origin and brings the parts that were subscribed to. Each is reconnected by its
own task; forwardings and subscriptions survive it.
"""

import random
import ssl
from collections.abc import Iterator
from typing import Protocol

import structlog
import trio

from edged.backbone.feeds import Feeds, FeedSubscription, OnEnd, OnEvent, OnStream
from edged.backbone.fence import Fence
from edged.backbone.forwarding import Forwarding
from edged.backbone.local_end import LocalEnd
from edged.backbone.segment_fetches import Done, SegmentKey
from edged.backbone.session import OUT_BYTES_MAX, BackboneSession
from edged.backbone.statistics import OriginLinkStatistics
from edged.errors import EdgedError, PeerLostError, RemoteProtocolError
from edged.media.access_unit import AccessUnit
from edged.media.parts import PackagedEvent, SegmentPiece
from edged.media.routing import OriginReport, Terms
from edged.media.stream import DescriptionChange, PriorityClass, StreamId
from edged.runtime.connection import Connection, PumpClass
from edged.runtime.faults import contained
from edged.runtime.hub import Hub, LiveStream
from edged.runtime.listeners import connect, parse_address
from edged.runtime.pump import Pump
from edged.runtime.tls import check_plain
from edged.wire.backbone.events import FlowEnded, SenderEvent, UnitsSkipped
from edged.wire.backbone.messages import (
    FEATURE_DESCRIPTIONS,
    DescriptionWanted,
    DirectoryDelta,
    DirectoryWanted,
    Heartbeat,
    Hello,
    KeyFrameWanted,
    Message,
    ProbesOffered,
    StreamAccepted,
    StreamAck,
    StreamRefused,
    UnitsAcked,
)

BACKOFF_S_MIN, BACKOFF_S_MAX = 0.1, 5.0
STEADY_S = 10.0  # A session that lived so long starts the backoff anew.
FORWARDINGS_MAX = 10_000  # To one origin: the wire's STREAMS_MAX.
ORIGIN_ROLES = frozenset({"origin"})

logger = structlog.get_logger("edged.backbone")


class LinkOwner(Protocol):
    """What the PoP's role is to its links. All of it is synchronous."""

    def heartbeat(self, report: OriginReport) -> None:
        """An origin says how it is; the report's name is the session's."""

    def directory(self, delta: DirectoryDelta) -> bool:
        """Take a delta; False asks for the whole list."""

    def link_up(self, origin: str, priority: PriorityClass | None) -> None:
        """A session is up: media of a class, or control (None)."""

    def link_lost(self, origin: str, priority: PriorityClass | None, reason: str) -> None:
        """A session that was up is lost; it is being reconnected."""

    def accepted(self, forwarding: Forwarding) -> None:
        """The origin takes a stream."""

    def refused(self, forwarding: Forwarding, code: str, reason: str) -> None:
        """The origin does not take a stream, or no more."""

    def description_wanted(self, channel: str, change: DescriptionChange) -> None:
        """Someone at another PoP, with a key of the channel, wants it described otherwise."""

    def key_frame_wanted(self, forwarding: Forwarding, track_id: int) -> None:
        """A reader beyond the origin needs a random access point."""

    def probes_offered(self, session: BackboneSession, offer: ProbesOffered) -> None:
        """The origin answers probes where this session, the control one, is connected to."""


class OriginLink:
    """All sessions from this PoP shard to one origin, or to a PoP shard that relays: "ams1/0"."""

    def __init__(  # noqa: PLR0913 -- each by its name
        self,
        pump: Pump,
        hub: Hub,
        owner: LinkOwner,
        *,
        local: LocalEnd,
        origin: str,
        address: str,
        tls: ssl.SSLContext | None,
        rng: random.Random,
        fence: Fence,
        roles: frozenset[str] = ORIGIN_ROLES,
    ) -> None:
        """`roles`: what the certificate there has to say, one of them."""
        host = parse_address(address)[0]
        if tls is None:
            check_plain(host, f"backbone to {origin}")
        self.origin, self.address, self._roles = origin, address, roles
        self.unreachable, self.down_why = False, ""  # By control's last attempt; and by any.
        self._pump, self._owner, self._local, self._tls, self._rng = pump, owner, local, tls, rng
        self._sessions: dict[PriorityClass | None, BackboneSession] = {}
        self.sessions = self._sessions  # Those that are up; control is None.
        self._forwardings: dict[Forwarding, PriorityClass] = {}
        self._by_stream_no: dict[tuple[BackboneSession, int], Forwarding] = {}
        self._feeds = Feeds(origin, hub, fence)
        self._reconnects = self._units_skipped = 0
        self._received_before = self._sent_before = 0  # Bytes of sessions that are gone.

    async def run(self) -> None:
        """Keep the sessions up until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep, None)
            for priority in PriorityClass:
                nursery.start_soon(self._keep, priority)

    def move(self, address: str) -> None:
        """The origin has another address now; ConfigError if it is none, or plain off loopback."""
        if address == self.address:
            return
        host = parse_address(address)[0]
        if self._tls is None:
            check_plain(host, f"backbone to {self.origin}")
        self.address = address
        for session in list(self._sessions.values()):
            session.close("moved", f"{self.origin} is at {address} now")

    def is_up(self, priority: PriorityClass | None) -> bool:
        """Whether the session of a class, or the control session (None), is up."""
        return priority in self._sessions

    def forward(
        self,
        stream: LiveStream,
        stream_id: StreamId | None = None,
        *,
        after: Forwarding | None = None,
        takes_over: bool = False,
        hold: bool = False,
        terms: Terms | None = None,
    ) -> Forwarding:
        """Send a publication to this origin, from now on and whenever the session is up.

        `stream_id` has the home_epoch of this home, if it is not the stream's own; `after` is the
        forwarding to the origin before, for the splice; `takes_over` as in StreamOpened; `hold`
        offers it on the next session, or by `offer_held`, not on the one that is up; `terms` as
        in Forwarding. Raises EdgedError at FORWARDINGS_MAX.
        """
        if len(self._forwardings) >= FORWARDINGS_MAX:
            raise EdgedError(f"{FORWARDINGS_MAX} streams go to {self.origin} already")
        forwarding = Forwarding(
            stream,
            stream_id or stream.stream_id,
            self.origin,
            after=after,
            takes_over=takes_over,
            terms=terms,
        )
        priority = forwarding.terms.carried_as(stream.grant.priority)
        self._forwardings[forwarding] = priority
        if not hold:
            self.offer_held(forwarding)
        return forwarding

    def offer_held(self, forwarding: Forwarding) -> None:
        """Offer what waits on the session that is up, if one is."""
        session = self._sessions.get(self._forwardings[forwarding])
        if session is not None and (frame := self._offer(forwarding, session)) is not None:
            session.send_encoded(frame)

    def stop_forwarding(self, forwarding: Forwarding, reason: str) -> None:
        """Send no more of it to this origin; no word comes of it any more."""
        forwarding.close(reason)
        self._drop(forwarding)

    def subscribe_parts(
        self,
        channel: str,
        on_event: OnEvent,
        *,
        on_end: OnEnd | None = None,
        priority: PriorityClass = PriorityClass.BASIC,
        cold: bool = False,
        rungs: tuple[str, ...] | None = None,
    ) -> FeedSubscription:
        """Have the channel's packaged events pushed here, until `unsubscribe`.

        After a reconnect the origin replays its window: events seen before come again.
        `on_end(code, reason)`: the origin ended it. `cold`: none is here. `rungs`: these alone.
        """
        subscription = self._feeds.add_parts(channel, on_event, on_end, priority, cold, rungs)
        self._feeds.open(subscription, self._sessions.get(priority))
        return subscription

    def subscribe_units(
        self,
        channel: str,
        on_stream: OnStream,
        *,
        on_end: OnEnd | None = None,
        priority: PriorityClass = PriorityClass.BASIC,
    ) -> FeedSubscription:
        """Have the channel's units pushed into this process's hub, until `unsubscribe`.

        `on_stream` is called with each publication that the channel has there.
        """
        subscription = self._feeds.add_units(channel, on_stream, on_end, priority)
        self._feeds.open(subscription, self._sessions.get(priority))
        return subscription

    def unsubscribe(self, subscription: FeedSubscription) -> None:
        """End a subscription."""
        self._feeds.remove(subscription, self._sessions.get(subscription.priority))

    def fetch_segment(self, priority: PriorityClass, key: SegmentKey, done: Done) -> bool:
        """As `SegmentFetches.fetch`, on the session of a class."""
        session = self._sessions.get(priority)
        return self._feeds.fetches.fetch(session, key, done, self._pump.now())

    def want_description(self, channel: str, change: DescriptionChange) -> bool:
        """Have a channel described otherwise that is published elsewhere; False: no way to ask."""
        session = self._sessions.get(None)
        if session is None or FEATURE_DESCRIPTIONS not in session.peer.features:
            return False
        session.send(DescriptionWanted(channel, change.title, change.category, change.labels))
        return True

    def expire(self, now: float) -> None:
        """Conclude what has waited long enough; call it about once a second."""
        self._feeds.expire(now)

    @property
    def forwardings(self) -> list[Forwarding]:
        """The streams that go to this origin."""
        return list(self._forwardings)

    def statistics(self) -> OriginLinkStatistics:
        """How the link fares."""
        control = self._sessions.get(None)
        connections = [session.connection for session in self._sessions.values()]
        return OriginLinkStatistics(
            origin=self.origin,
            address=self.address,
            up=sorted("control" if p is None else p.label for p in self._sessions),
            forwardings=len(self._forwardings),
            subscriptions=len(self._feeds),
            reconnects=self._reconnects,
            units_skipped=self._units_skipped,
            received_bytes=self._received_before + sum(each.received_bytes for each in connections),
            sent_bytes=self._sent_before + sum(each.sent_bytes for each in connections),
            control=None if control is None else control.link.statistics(self._pump.now()),
        )

    # What sessions call.

    def session_accepted(self, session: BackboneSession, hello: Hello) -> None:
        """Open on it what waits for it."""
        priority = None if hello.purpose == "control" else hello.priority
        self._sessions[priority] = session
        if priority is not None:
            session.send_list(self._offers(session, priority))
            self._feeds.session_up(session, priority)
        self._owner.link_up(self.origin, priority)

    def message_received(self, session: BackboneSession, message: Message) -> None:
        """Act on an origin's control message."""
        control = session.peer.purpose == "control"
        if control is not isinstance(message, Heartbeat | DirectoryDelta | ProbesOffered):
            raise RemoteProtocolError(
                f"{type(message).__name__} on a {session.peer.purpose} session"
            )
        match message:
            case Heartbeat():
                self._check_name(message.report.origin)
                self._owner.heartbeat(message.report)
            case DirectoryDelta():
                self._check_name(message.origin)
                if not self._owner.directory(message):
                    session.send(DirectoryWanted(message.from_version))
            case ProbesOffered():
                self._owner.probes_offered(session, message)
            case UnitsAcked():
                self._take_acks(session, message.acks)
            case StreamAccepted() | StreamRefused() | KeyFrameWanted() | DescriptionWanted():
                self._about_forwarding(session, message)
            case _:
                if not self._feeds.handle(session, message, self._pump.now()):
                    raise RemoteProtocolError(f"{type(message).__name__} from an origin")

    def _take_acks(self, session: BackboneSession, acks: list[StreamAck]) -> None:
        now = self._pump.now()
        for ack in acks:
            forwarding = self._by_stream_no.get((session, ack.stream_no))
            if forwarding is not None:
                try:
                    forwarding.acked(ack, now)
                except Exception as error:
                    self._break_off(forwarding, error)

    def units_received(
        self, session: BackboneSession, stream_no: int, units: list[AccessUnit]
    ) -> None:
        """Units that were subscribed to."""
        self._feeds.units_received(session, stream_no, units)

    def event_received(
        self, session: BackboneSession, stream_no: int, event: PackagedEvent | SegmentPiece
    ) -> None:
        """Parts that were subscribed to, and segments that were asked for."""
        self._feeds.event_received(session, stream_no, event)

    def flow_changed(self, session: BackboneSession, event: SenderEvent) -> None:
        """An outgoing stream lagged, or ended."""
        forwarding = self._by_stream_no.get((session, event.stream_no))
        if isinstance(event, UnitsSkipped):
            self._units_skipped += event.units
            if forwarding is not None:
                forwarding.units_skipped += event.units
                logger.warning(
                    "units skipped",
                    channel=forwarding.stream_id.channel,
                    origin=self.origin,
                    units=event.units,
                    in_all=forwarding.units_skipped,
                )
        elif isinstance(event, FlowEnded) and forwarding is not None:
            if event.error is not None:
                channel = forwarding.stream_id.channel
                logger.error("forwarding broke", channel=channel, exc_info=event.error)
            if not forwarding.finished:
                forwarding.flow_ended(event.reason)
            self._drop(forwarding)

    def session_lost(self, session: BackboneSession, reason: str) -> None:
        """What went over it waits for the next."""
        priority = None if session.peer.purpose == "control" else session.peer.priority
        if self._sessions.get(priority) is session:
            del self._sessions[priority]
            self._received_before += session.connection.received_bytes
            self._sent_before += session.connection.sent_bytes
        for key in [key for key in self._by_stream_no if key[0] is session]:
            self._by_stream_no.pop(key).session_lost()
        self._feeds.session_lost(session, self._pump.now())
        self._owner.link_lost(self.origin, priority, reason)

    def _about_forwarding(
        self,
        session: BackboneSession,
        message: StreamAccepted | StreamRefused | KeyFrameWanted | DescriptionWanted,
    ) -> None:
        if isinstance(message, DescriptionWanted):
            change = DescriptionChange(
                title=message.title, category=message.category, labels=message.labels
            )
            self._owner.description_wanted(message.channel, change)
            return
        forwarding = self._by_stream_no.get((session, message.stream_no))
        if forwarding is None:
            return  # Closed by us meanwhile.
        try:
            self._take_word(forwarding, message)
        except Exception as error:
            self._break_off(forwarding, error)

    def _take_word(
        self, forwarding: Forwarding, message: StreamAccepted | StreamRefused | KeyFrameWanted
    ) -> None:
        if isinstance(message, StreamAccepted):
            forwarding.accepted(message.wanted_seq)
            self._owner.accepted(forwarding)
        elif isinstance(message, KeyFrameWanted):
            self._owner.key_frame_wanted(forwarding, message.track_id)
        else:
            code, reason = message.code[:64], message.reason[:500]
            forwarding.refused(code, reason, message.newest)
            self._drop(forwarding)
            logger.warning(
                "stream refused",
                channel=forwarding.stream_id.channel,
                origin=self.origin,
                code=code,
                reason=reason,
            )
            self._owner.refused(forwarding, code, reason)

    def _offers(self, session: BackboneSession, priority: PriorityClass) -> Iterator[bytes]:
        """Offer all that waited for the session, as many at a time as it takes."""
        for forwarding, its_priority in list(self._forwardings.items()):
            if its_priority is priority and forwarding.state == "waiting":
                frame = self._offer(forwarding, session)
                if frame is not None:
                    yield frame

    def _offer(self, forwarding: Forwarding, session: BackboneSession) -> bytes | None:
        try:
            frame = forwarding.offer(session)
        except EdgedError as error:  # Its tracks do not fit a message: nobody could play it.
            forwarding.refused("unsupported_media", str(error))
            self._drop(forwarding)
            self._owner.refused(forwarding, "unsupported_media", str(error))
            return None
        except Exception as bug:  # The others are offered all the same.
            self._break_off(forwarding, bug)
            return None
        self._by_stream_no[session, forwarding.stream_no] = forwarding
        return frame

    def _break_off(self, forwarding: Forwarding, error: Exception) -> None:
        """End the one stream that a bug has met, not the session of many; its publisher is told.

        What the peer does wrong (an EdgedError) is raised again: the session is to judge it.
        """
        if isinstance(error, EdgedError):
            raise error
        channel = forwarding.stream_id.channel
        logger.error("forwarding failed", channel=channel, origin=self.origin, exc_info=error)
        with contained(logger, "forwarding failed to end", channel=channel):
            self._drop(forwarding)
            forwarding.refused("internal", "a fault of the PoP")
            self._owner.refused(forwarding, "internal", "a fault of the PoP")

    def _drop(self, forwarding: Forwarding) -> None:
        self._forwardings.pop(forwarding, None)
        for key in [key for key, held in self._by_stream_no.items() if held is forwarding]:
            del self._by_stream_no[key]

    def _check_name(self, name: str) -> None:
        if name != self.origin:
            raise RemoteProtocolError(f"{self.origin} speaks for {name[:64]!r}")

    async def _keep(self, priority: PriorityClass | None) -> None:
        """Connect, wait for the loss, wait a little, connect again."""
        purpose = "control" if priority is None else priority.label
        backoff_s, reason = BACKOFF_S_MIN, ""
        while True:
            started_at = self._pump.now()
            try:
                session = await self._connect(priority)
            except PeerLostError as error:
                if str(error) != reason:
                    logger.warning(
                        "backbone down", origin=self.origin, session=purpose, reason=str(error)
                    )
                reason = self.down_why = str(error)
                self.unreachable |= priority is None
            else:
                self.unreachable &= priority is not None
                try:
                    await session.lost_event.wait()
                finally:
                    session.close("drain", "the PoP is stopping")
                reason, self.down_why = "", session.lost or ""
                self._reconnects += 1
                if self._pump.now() - started_at >= STEADY_S:
                    backoff_s = BACKOFF_S_MIN
            await trio.sleep(backoff_s * self._rng.uniform(0.5, 1.0))
            backoff_s = min(backoff_s * 2, BACKOFF_S_MAX)

    async def _connect(self, priority: PriorityClass | None) -> BackboneSession:
        hello = (
            self._local.hello("control", PriorityClass.PARTNER)
            if priority is None
            else self._local.hello("media", priority)
        )

        def make_session(connection: Connection) -> BackboneSession:
            return BackboneSession(
                self._pump,
                connection,
                self,
                hello,
                roles=self._roles,
                name=self.origin.partition("/")[0],
                client=True,
                marks=self._local.marks,
            )

        connection = await connect(
            self._pump,
            self.address,
            make_session,
            PumpClass.BACKBONE,
            tls=self._tls,
            out_bytes_max=OUT_BYTES_MAX,
        )
        session = connection.handler
        assert isinstance(session, BackboneSession), "the handler is what make_session made"
        return session
