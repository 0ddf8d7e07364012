"""A backbone session in the pump: the shell of `BackboneLink`, the same at both ends.

Media is pulled from the flows at the end of a pump turn, only as much as the socket will soon take;
what it does not take waits in the rings, where skipping is cheap. Long lists of control messages
(the directory, all streams after a reconnect) are pulled in the same way, as the peer reads.
"""

import socket
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

import structlog
import trio

from edged.errors import PeerLostError, RemoteProtocolError
from edged.media.access_unit import AccessUnit
from edged.media.parts import PackagedEvent, SegmentPiece
from edged.media.stream import PriorityClass
from edged.runtime.connection import OUT_LOW_BYTES, Connection
from edged.runtime.dscp import AF41, AF42, AF43, CS6, mark
from edged.runtime.tls import peer_identity
from edged.runtime.unsent import unsent_bytes
from edged.wire.backbone.events import (
    Expected,
    MessageReceived,
    PeerAccepted,
    PeerClosed,
    SenderEvent,
    UnitsReceived,
)
from edged.wire.backbone.flows import Flow
from edged.wire.backbone.link import BackboneLink, Event
from edged.wire.backbone.messages import Hello, Message, StreamClosed

if TYPE_CHECKING:
    from edged.runtime.pump import Pump

BURST_BYTES_MAX = 4 * 2**20  # Framed per turn while the kernel takes everything: 5 ms of 6 Gbps.
BACKLOG_BYTES = 256 * 1024  # Framed ahead while it does not: pings wait behind no more than this.
# TCP_NOTSENT_LOWAT: what the kernel holds unsent beyond what is in flight. The pump refills it as
# soon as it has room; on a slow path it is delay.
NOT_SENT_BYTES = 512 * 1024
OUT_BYTES_MAX = 8 * 2**20  # Control messages to a peer that does not read, then it is dropped.
LISTS_MAX = 600  # A minute of directory changes behind the whole list, then it is dropped too.
# Of segments that were asked for by name: no more of them waits in front of what is live, and they
# are looked at again so soon. 128 KiB are 10 ms of 100 Mbps.
SEGMENT_AHEAD_BYTES = 128 * 1024
SEGMENT_POLL_S = 0.005
DSCP = {PriorityClass.PARTNER: AF41, PriorityClass.AFFILIATE: AF42, PriorityClass.BASIC: AF43}
TCP_NOTSENT_LOWAT = getattr(socket, "TCP_NOTSENT_LOWAT", 25)

assert BACKLOG_BYTES > OUT_LOW_BYTES, "a stop for lack of room must be followed by `drained`"

logger = structlog.get_logger("edged.backbone")


class SessionOwner(Protocol):
    """Who acts on what a session brings. All of it is synchronous."""

    def session_accepted(self, session: "BackboneSession", hello: Hello) -> None:
        """The hellos are exchanged."""

    def message_received(self, session: "BackboneSession", message: Message) -> None:
        """Take a control message, in order with the media; EdgedError ends the session."""

    def units_received(
        self, session: "BackboneSession", stream_no: int, units: list[AccessUnit]
    ) -> None:
        """Take units of a stream that was opened."""

    def event_received(
        self, session: "BackboneSession", stream_no: int, event: PackagedEvent | SegmentPiece
    ) -> None:
        """Take a packaged event, or a piece of a segment, of a stream that was opened."""

    def flow_changed(self, session: "BackboneSession", event: SenderEvent) -> None:
        """Hear of an outgoing stream."""

    def session_lost(self, session: "BackboneSession", reason: str) -> None:
        """Hear of the session's end, once, if it was accepted."""


class BackboneSession:
    """One connection; a pump handler."""

    def __init__(
        self,
        pump: "Pump",
        connection: Connection,
        owner: SessionOwner,
        hello: Hello,
        *,
        roles: frozenset[str],
        name: str | None,
        client: bool,
        marks: bool = True,
    ) -> None:
        """`marks`: its socket gets the DSCP of what it carries."""
        identity = None if connection.ssl is None else peer_identity(connection.ssl)
        expected = Expected(
            roles=roles,
            name=name,
            certified=None if identity is None else (identity.role, identity.name),
        )
        self.connection = connection
        self.link = BackboneLink(hello, expected, client=client, now=pump.now())
        self.lost: str | None = None
        self.lost_event = trio.Event()
        self._burst_bytes = BACKLOG_BYTES
        self._pump = pump
        self._owner = owner
        self._flush_due = False  # `wake` has asked for a flush in this turn.
        self._lists: deque[Iterator[bytes]] = deque()
        self._log = logger.bind(peer=connection.peer)
        self._marks = marks
        _limit_unsent(connection)
        self._mark(hello)
        self.schedule()

    @property
    def peer(self) -> Hello:
        """The peer's hello; only once the session is accepted."""
        assert self.link.peer is not None, "the session is not accepted yet"
        return self.link.peer

    @property
    def usable(self) -> bool:
        """Accepted and not lost: something may be sent."""
        return self.link.peer is not None and self.lost is None

    def send(self, message: Message) -> None:
        """Queue a control message."""
        if self.usable:
            self.link.send(message)
            self.schedule()

    def send_encoded(self, frame: bytes) -> None:
        """Queue a MESSAGE frame made once for many sessions."""
        if self.usable:
            self.link.send_encoded(frame)
            self.schedule()

    def send_list(self, frames: Iterator[bytes]) -> None:
        """Queue MESSAGE frames, too many for one turn: each is made when there is room for it.

        Lists queued before go first; messages of `send` go in between.
        """
        if not self.usable:
            return
        if len(self._lists) >= LISTS_MAX:
            self.connection.abort(f"peer reads too slowly: {LISTS_MAX} lists wait for it")
            return
        self._lists.append(frames)
        self.schedule()

    def wake(self, flow: Flow) -> None:
        """A flow has something new. Hot path: called for each batch of each publication."""
        self.link.sender.wake(flow)
        if not self._flush_due:
            self._flush_due = True
            self._pump.at_flush(self.flush)

    def schedule(self) -> None:
        """Flush at the end of this turn."""
        self._pump.at_flush(self.flush)

    def close_flow(self, flow: Flow, reason: str) -> None:
        """End an outgoing stream at once."""
        if self.usable:
            self.link.close_flow(flow, reason)
            self.schedule()

    def withdraw(self, stream_no: int, reason: str, *, ended: bool = False) -> None:
        """Close a stream that was offered and not begun."""
        self.send(StreamClosed(stream_no, reason, ended))

    def close(self, code: str, reason: str) -> None:
        """End the session, telling the peer why."""
        if self.lost is None:
            self.link.close(code, reason)
            self.connection.write_many(self.link.data_to_send(0))
            self.connection.close(f"{code}: {reason}")

    def flush(self) -> None:
        """Frame what the socket will soon take, and hand it over."""
        self._flush_due = False
        connection = self.connection
        if connection.lost is not None or self.lost is not None:
            return
        queued = connection.out_bytes
        if queued:
            self._burst_bytes = BACKLOG_BYTES
        if self._lists:
            self._take_listed(BACKLOG_BYTES - queued)
        ahead = 0
        if self.link.sender.has_segments and not queued:
            ahead = SEGMENT_AHEAD_BYTES - unsent_bytes(connection.sock)
        out = self.link.data_to_send(self._burst_bytes - queued, ahead)
        if out:
            connection.write_many(out)
        if not queued and self.link.sender.wants_to_send:
            # All of the last burst was taken and there is more: the path bears a larger one.
            self._burst_bytes = min(2 * self._burst_bytes, BURST_BYTES_MAX)
        timeout = self.link.next_timeout()
        if self.link.sender.has_segments and not queued:
            timeout = min(timeout, self._pump.now() + SEGMENT_POLL_S)
        connection.set_timeout(timeout)
        if self.link.sender.has_events:
            for event in self.link.sender.take_events():
                self._owner.flow_changed(self, event)

    def _take_listed(self, room: int) -> None:
        """Take from the lists, up to the backlog: then `drained` is sure to come for the rest."""
        while self._lists and room > 0:
            try:
                frame = next(self._lists[0], None)
            except Exception as error:  # The peer must not take half a list for the whole.
                self.connection.abort(f"internal error: {error!r}")
                raise
            if frame is None:
                self._lists.popleft()
            else:
                self.link.send_encoded(frame)
                room -= len(frame)

    # The pump's side.

    def data_received(self, data: memoryview, now: float) -> None:
        """Take bytes; a protocol error is told to the peer before the connection closes."""
        try:
            try:
                events = self.link.receive_data(data, now)
            except RemoteProtocolError:
                self._deliver(self.link.take_events())
                raise
            self._deliver(events)
        except RemoteProtocolError as error:
            self.link.refuse(error)
            self.connection.write_many(self.link.data_to_send(0))
            self.connection.close(str(error))
            return
        self._pump.at_flush(self.flush)

    def handle_timeout(self, now: float) -> None:
        """Ping, or find the peer lost; the pump has drained what was readable in this turn."""
        try:
            self.link.handle_timeout(now)
        except PeerLostError as error:
            self.connection.abort(str(error))
            return
        self.schedule()

    def drained(self) -> None:
        """The socket takes more."""
        self.schedule()

    def connection_lost(self, reason: str) -> None:
        """Hear of the end from the pump."""
        self.lost = reason
        self._lists.clear()
        hello = self.link.peer
        self.lost_event.set()
        if hello is not None:
            self._log.info(
                "backbone session ended",
                remote=f"{hello.role}/{hello.name}",
                purpose=hello.purpose,
                reason=reason,
                received_bytes=self.connection.received_bytes,
                sent_bytes=self.connection.sent_bytes,
            )
            self._owner.session_lost(self, reason)
        else:
            self._log.info("backbone session refused", reason=reason)

    def _deliver(self, events: list[Event]) -> None:
        for event in events:
            if self.lost is not None:
                return
            if isinstance(event, UnitsReceived):
                self._owner.units_received(self, event.stream_no, event.units)
            elif isinstance(event, MessageReceived):
                self._owner.message_received(self, event.message)
            elif isinstance(event, PeerAccepted):
                self._accepted(event.hello)
            elif isinstance(event, PeerClosed):
                self.connection.abort(event.reason)
            else:
                self._owner.event_received(self, event.stream_no, event.event)

    def _accepted(self, hello: Hello) -> None:
        self.connection.spoke = True
        self._mark(self.link.hello)
        self._log.info(
            "backbone session started",
            remote=f"{hello.role}/{hello.name}",
            shard=hello.shard,
            purpose=hello.purpose,
            priority=hello.priority.label if hello.purpose == "media" else None,
            tls=self.connection.ssl is not None,
        )
        self._owner.session_accepted(self, hello)

    def _mark(self, hello: Hello) -> None:
        if self._marks:
            dscp = CS6 if hello.purpose == "control" else DSCP[hello.priority]
            mark(self.connection.sock, dscp)


def _limit_unsent(connection: Connection) -> None:
    """Set how much may wait unsent in the kernel."""
    try:
        connection.sock.setsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT, NOT_SENT_BYTES)
    except OSError as error:  # Then what waits there is delay.
        logger.debug("socket option refused", peer=connection.peer, error=error)
