"""The receiving side of a session's media, sans-IO: fragments joined, credit and order enforced.

What a peer may send is bounded by the credit it was given and by INTERLEAVE_MAX unfinished items.
Bytes count as taken when they come, and a limit is raised each time a quarter of its window has
been taken: the sender always has three quarters, and a stream of 30 Mbps costs a grant per second.
"""

from edged.errors import RemoteProtocolError
from edged.media.access_unit import AccessUnit
from edged.media.parts import PackagedEvent, SegmentPiece
from edged.media.track import Track
from edged.wire.backbone.events import EventReceived, ReceiverStatistics, UnitsReceived
from edged.wire.backbone.frames import (
    EVENT_HEADER,
    EVENT_HEADER_BYTES,
    FLAG_CAPTURE,
    FLAG_DISCONTINUITY,
    FLAG_RANDOM_ACCESS,
    FRAGMENT_BYTES_MAX,
    FRAGMENT_HEADER,
    FRAGMENT_HEADER_BYTES,
    INTERLEAVE_MAX,
    ITEM_BYTES_MAX,
    KIND_EVENT,
    KIND_UNIT,
    META_BYTES_MAX,
    UNIT_HEADER,
    UNIT_HEADER_BYTES,
    make_credit_frames,
)
from edged.wire.backbone.messages import (
    GRANTS_PER_WINDOW,
    EventsOpened,
    Message,
    SegmentOpened,
    StreamClosed,
    StreamOpened,
    TrackChanged,
    parse_event_meta,
    with_body,
)

STREAMS_MAX = 10_000  # Of one session; a PoP's busiest class has hundreds.
TRACKS_MAX = 64  # Of one stream, over its whole life.

_unpack_unit = UNIT_HEADER.unpack_from


class _Inflow:
    """One incoming stream."""

    __slots__ = (
        *("config_ids", "last_seq", "limit", "packaged", "partial", "pending"),
        *("refused", "taken", "units", "wanted"),
    )

    def __init__(self, limit: int, *, packaged: bool) -> None:
        self.packaged = packaged  # Events, not units.
        self.limit = limit
        self.taken = 0
        self.refused = False  # By us: what comes until StreamClosed is dropped.
        self.last_seq = -1
        self.config_ids: dict[int, int] = {}
        self.units: list[AccessUnit] = []  # Received, not yet collected.
        self.partial = bytearray()  # Of the item begun.
        self.wanted = 0  # Bytes of the whole item; 0 while none is unfinished.
        self.pending: AccessUnit | PackagedEvent | SegmentPiece | None = None  # Its header.


class MediaReceiver:
    """All incoming streams of one session."""

    def __init__(self, *, session_window: int, stream_window: int) -> None:
        self._session_window, self._stream_window = session_window, stream_window
        self._session_low = session_window - session_window // GRANTS_PER_WINDOW
        self._stream_low = stream_window - stream_window // GRANTS_PER_WINDOW
        self._limit = session_window
        self._taken = 0
        self._inflows: dict[int, _Inflow] = {}
        self._highest_no = 0
        self._unfinished = 0
        self._fresh: list[int] = []  # Streams with units not yet collected.
        self._received: list[EventReceived] = []
        self._grants: dict[int, int] = {}
        self._units_received = self._events_received = 0

    @property
    def has_events(self) -> bool:
        """Whether `take_events` has any."""
        return bool(self._fresh or self._received)

    def note(self, message: Message) -> None:
        """Follow the peer's control messages about its streams. Raises RemoteProtocolError."""
        if isinstance(message, StreamOpened):
            inflow = self._open(message.stream_no, packaged=False)
            for track in message.tracks:
                self._set_track(inflow, track)
        elif isinstance(message, EventsOpened | SegmentOpened):
            self._open(message.stream_no, packaged=True)
        elif isinstance(message, TrackChanged):
            found = self._find(message.stream_no)
            if found is not None:
                self._set_track(found, message.track)
        elif isinstance(message, StreamClosed):
            found = self._find(message.stream_no)
            if found is not None:
                self._drop_partial(found)
                del self._inflows[message.stream_no]
                self._grants.pop(message.stream_no, None)

    def refuse(self, stream_no: int) -> None:
        """Drop what still comes of a stream until the peer closes it."""
        inflow = self._inflows.get(stream_no)
        if inflow is not None:
            inflow.refused = True
            inflow.units = []
            self._drop_partial(inflow)
            self._grants.pop(stream_no, None)

    def receive(self, frame: memoryview) -> None:
        """Take a whole UNIT, EVENT or FRAGMENT frame. Raises RemoteProtocolError."""
        kind = frame[4]
        if kind == KIND_UNIT:
            header = _unpack_unit(frame)
            inflow = self._count(header[4], len(frame))
            if inflow is not None:
                self._take_unit(inflow, header, frame)
        elif kind == KIND_EVENT:
            event_header = EVENT_HEADER.unpack_from(frame)
            inflow = self._count(event_header[4], len(frame))
            if inflow is not None:
                self._take_event(inflow, event_header, frame)
        else:
            stream_no = FRAGMENT_HEADER.unpack_from(frame)[2]
            inflow = self._count(stream_no, len(frame))
            if inflow is not None:
                self._take_fragment(inflow, stream_no, frame)

    def _count(self, stream_no: int, size: int) -> _Inflow | None:
        """Count a frame against the credit, and renew it; None if the frame is to be dropped."""
        self._taken += size
        if self._taken > self._limit:
            raise RemoteProtocolError(f"session credit of {self._limit} bytes exceeded")
        if self._limit - self._taken <= self._session_low:
            self._limit = self._taken + self._session_window
            self._grants[0] = self._limit
        inflow = self._inflows.get(stream_no)
        if inflow is None:
            state = "after it was closed" if 0 < stream_no <= self._highest_no else "never opened"
            raise RemoteProtocolError(f"media of stream {stream_no}, {state}")
        inflow.taken += size
        if inflow.taken > inflow.limit:
            raise RemoteProtocolError(
                f"stream {stream_no}: credit of {inflow.limit} bytes exceeded"
            )
        if inflow.refused:
            return None
        if inflow.limit - inflow.taken <= self._stream_low:
            inflow.limit = inflow.taken + self._stream_window
            self._grants[stream_no] = inflow.limit
        return inflow

    def take_events(self) -> list[UnitsReceived | EventReceived]:
        """Collect what has come whole; the order within each stream is the sender's."""
        events: list[UnitsReceived | EventReceived] = []
        for stream_no in self._fresh:
            inflow = self._inflows.get(stream_no)
            if inflow is not None and inflow.units:
                events.append(UnitsReceived(stream_no, inflow.units))
                inflow.units = []
        self._fresh = []
        events += self._received
        self._received = []
        return events

    def credit_to_send(self) -> bytes:
        """CREDIT frames for limits raised since the last call; empty if none was."""
        if not self._grants:
            return b""
        grants, self._grants = self._grants, {}
        return make_credit_frames(grants)

    def statistics(self) -> ReceiverStatistics:
        """Counters of the session."""
        return ReceiverStatistics(
            streams=len(self._inflows),
            units_received=self._units_received,
            events_received=self._events_received,
            bytes_received=self._taken,
            partial_bytes=sum(len(inflow.partial) for inflow in self._inflows.values()),
        )

    def _open(self, stream_no: int, *, packaged: bool) -> _Inflow:
        if not self._highest_no < stream_no < 2**32:
            raise RemoteProtocolError(
                f"stream {stream_no} opened after stream {self._highest_no}: numbers only rise"
            )
        if len(self._inflows) >= STREAMS_MAX:
            raise RemoteProtocolError(f"more than {STREAMS_MAX} streams in one session")
        self._highest_no = stream_no
        inflow = self._inflows[stream_no] = _Inflow(self._stream_window, packaged=packaged)
        return inflow

    def _find(self, stream_no: int) -> _Inflow | None:
        inflow = self._inflows.get(stream_no)
        if inflow is None and not 0 < stream_no <= self._highest_no:
            raise RemoteProtocolError(f"message about stream {stream_no}, which was never opened")
        return inflow

    def _set_track(self, inflow: _Inflow, track: Track) -> None:
        if not (0 <= track.track_id < 2**16 and 0 <= track.config_id < 2**32):
            raise RemoteProtocolError(
                f"track {track.track_id} config {track.config_id}: allowed are 16 and 32 bits"
            )
        if not 0 < track.timescale < 2**32:
            raise RemoteProtocolError(f"timescale {track.timescale}: allowed is 1 to 2**32 - 1")
        inflow.config_ids[track.track_id] = track.config_id
        if len(inflow.config_ids) > TRACKS_MAX:
            raise RemoteProtocolError(f"more than {TRACKS_MAX} tracks in one stream")

    def _take_unit(self, inflow: _Inflow, header: tuple[int, ...], frame: memoryview) -> None:
        _, _, flags, track_id, stream_no, config_id, unit_bytes, seq, dts, pts, wall, capture = (
            header
        )
        if inflow.packaged or inflow.wanted:
            raise RemoteProtocolError(f"stream {stream_no}: a unit inside of another item")
        if inflow.config_ids.get(track_id) != config_id:
            raise RemoteProtocolError(
                f"stream {stream_no}: unit {seq} needs config {config_id} of track {track_id}, "
                "which was not announced"
            )
        if seq <= inflow.last_seq:
            raise RemoteProtocolError(
                f"stream {stream_no}: unit {seq} after unit {inflow.last_seq}"
            )
        inflow.last_seq = seq
        here = len(frame) - UNIT_HEADER_BYTES
        whole = here == unit_bytes
        unit = AccessUnit(
            track_id=track_id,
            seq=seq,
            config_id=config_id,
            pts=pts,
            dts=dts,
            wallclock_us=wall,
            payload=bytes(frame[UNIT_HEADER_BYTES:]) if whole else b"",
            random_access=flags & FLAG_RANDOM_ACCESS != 0,
            discontinuity=flags & FLAG_DISCONTINUITY != 0,
            capture_us=capture if flags & FLAG_CAPTURE else None,
        )
        if whole:
            self._units_received += 1
            if not inflow.units:
                self._fresh.append(stream_no)
            inflow.units.append(unit)
        else:
            self._begin(inflow, stream_no, unit, unit_bytes, frame[UNIT_HEADER_BYTES:])

    def _take_event(self, inflow: _Inflow, header: tuple[int, ...], frame: memoryview) -> None:
        _, _, code, meta_bytes, stream_no, body_bytes = header
        if not inflow.packaged or inflow.wanted:
            raise RemoteProtocolError(f"stream {stream_no}: an event inside of another item")
        start = EVENT_HEADER_BYTES + meta_bytes
        if not 0 < meta_bytes <= META_BYTES_MAX or start > len(frame):
            raise RemoteProtocolError(
                f"stream {stream_no}: event with {meta_bytes} bytes of meta in a frame of "
                f"{len(frame)}, allowed are 1 to {META_BYTES_MAX}"
            )
        event = parse_event_meta(code, frame[EVENT_HEADER_BYTES:start])
        if len(frame) - start == body_bytes:
            self._finish(inflow, stream_no, event, bytes(frame[start:]))
        else:
            self._begin(inflow, stream_no, event, body_bytes, frame[start:])

    def _begin(
        self,
        inflow: _Inflow,
        stream_no: int,
        pending: AccessUnit | PackagedEvent | SegmentPiece,
        wanted: int,
        piece: memoryview,
    ) -> None:
        """Keep an item's first fragment."""
        if wanted > ITEM_BYTES_MAX:
            raise RemoteProtocolError(
                f"stream {stream_no}: item of {wanted} bytes, allowed are {ITEM_BYTES_MAX}"
            )
        if not 0 < len(piece) <= min(FRAGMENT_BYTES_MAX, wanted - 1):
            raise RemoteProtocolError(
                f"stream {stream_no}: first fragment of {len(piece)} bytes of {wanted}"
            )
        if self._unfinished >= INTERLEAVE_MAX:
            raise RemoteProtocolError(f"more than {INTERLEAVE_MAX} unfinished items")
        self._unfinished += 1
        inflow.pending, inflow.wanted = pending, wanted
        inflow.partial += piece

    def _take_fragment(self, inflow: _Inflow, stream_no: int, frame: memoryview) -> None:
        piece = frame[FRAGMENT_HEADER_BYTES:]
        pending = inflow.pending
        if pending is None:
            raise RemoteProtocolError(f"stream {stream_no}: a fragment of nothing")
        if len(inflow.partial) + len(piece) > inflow.wanted:
            raise RemoteProtocolError(
                f"stream {stream_no}: fragments exceed the item's {inflow.wanted} bytes"
            )
        inflow.partial += piece
        if len(inflow.partial) < inflow.wanted:
            return
        body = bytes(inflow.partial)
        self._drop_partial(inflow)
        self._finish(inflow, stream_no, pending, body)

    def _finish(
        self,
        inflow: _Inflow,
        stream_no: int,
        pending: AccessUnit | PackagedEvent | SegmentPiece,
        body: bytes,
    ) -> None:
        if isinstance(pending, AccessUnit):
            self._units_received += 1
            pending.payload = body
            if not inflow.units:
                self._fresh.append(stream_no)
            inflow.units.append(pending)
        else:
            self._events_received += 1
            self._received.append(EventReceived(stream_no, with_body(pending, body)))

    def _drop_partial(self, inflow: _Inflow) -> None:
        if inflow.pending is not None:
            self._unfinished -= 1
            inflow.pending, inflow.wanted = None, 0
            inflow.partial = bytearray()
