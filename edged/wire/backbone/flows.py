"""Outgoing streams of a session: what each sends when its turn comes, within its credit.

A flow is one outgoing stream. A `UnitFlow` pulls from a GOP ring when there is room on the wire, so
what cannot be sent lags in the ring and is skipped there, by whole groups; an `EventFlow` holds a
bounded queue of parts and skips to the newest segment. Turns are given by
`edged.wire.backbone.sending`; the layout is in `edged.wire.backbone.frames`.
"""

import abc
import enum
from collections import deque
from collections.abc import Sequence
from typing import Final, Protocol

from edged.errors import EdgedError
from edged.media.access_unit import AccessUnit
from edged.media.newest import first_within
from edged.media.parts import InitSegment, Part, Rendition, SegmentEnded, SegmentsListed
from edged.media.ring_batch import RingBatch
from edged.media.track import Track
from edged.wire.backbone.events import EventsSkipped, FlowEnded, SenderEvent, UnitsSkipped
from edged.wire.backbone.frames import (
    EVENT_HEADER,
    EVENT_HEADER_BYTES,
    FLAG_CAPTURE,
    FLAG_DISCONTINUITY,
    FLAG_RANDOM_ACCESS,
    FRAGMENT_BYTES_MAX,
    FRAGMENT_HEADER,
    FRAGMENT_HEADER_BYTES,
    FRAME_HEADER_BYTES,
    INTERLEAVE_MAX,
    ITEM_BYTES_MAX,
    KIND_EVENT,
    KIND_FRAGMENT,
    KIND_UNIT,
    UNIT_HEADER,
    UNIT_HEADER_BYTES,
)
from edged.wire.backbone.messages import (
    EncodedEvent,
    StreamClosed,
    TrackChanged,
    make_message_frame,
)

Chunk = bytes | memoryview

QUANTUM_BYTES: Final = FRAGMENT_BYTES_MAX  # A stream's turn; the delay that 100 others add is 6 MB.
UNITS_PER_READ_MAX: Final = 64  # Held by a flow between turns, QUANTUM_BYTES at most (or one unit).
QUEUE_BYTES_MAX: Final = 16 * 2**20  # Parts waiting for one PoP: 4 s of a 30 Mbps channel.
QUEUE_EVENTS_MAX: Final = 1024  # And of small ones.

_pack_unit = UNIT_HEADER.pack
_UNIT_BODY: Final = UNIT_HEADER_BYTES - FRAME_HEADER_BYTES
_NO_UNITS: Sequence[AccessUnit] = ()


def choose_replay(events: list[EncodedEvent]) -> list[EncodedEvent]:
    """The newest segments, of all renditions alike, that fill half of a flow's queue at most.

    What describes the renditions is kept, and the newest segment whatever its size; the other half
    of the queue is for what is packaged until the replay has been sent.
    """
    sizes: dict[int, int] = {}
    counts: dict[int, int] = {}
    room, places = QUEUE_BYTES_MAX // 2, QUEUE_EVENTS_MAX // 2
    for encoded in events:
        event, size = encoded.event, len(encoded.meta) + len(encoded.body)
        if isinstance(event, Part | SegmentEnded):
            sizes[event.msn] = sizes.get(event.msn, 0) + size
            counts[event.msn] = counts.get(event.msn, 0) + 1
        else:
            room -= size
            places -= 1
    first = first_within(sizes, counts, room, places)
    return [
        encoded
        for encoded in events
        if not isinstance(encoded.event, Part | SegmentEnded) or encoded.event.msn >= first
    ]


class FlowState(enum.Enum):
    """Where a flow stands after its turn."""

    IDLE = enum.auto()  # Nothing to send; `wake` makes it ready.
    READY = enum.auto()  # In the round.
    BLOCKED = enum.auto()  # Its stream's credit is used up.
    STARVED = enum.auto()  # The session's credit is used up, for everyone.
    CROWDED = enum.auto()  # INTERLEAVE_MAX items are unfinished; waits for one to end.
    DONE = enum.auto()


# Looked up once: an enumeration's attributes are slow.
IDLE, READY, BLOCKED, STARVED, CROWDED, DONE = FlowState


class FlowOwner(Protocol):
    """What a flow needs of its session's sender."""

    unfinished: int  # Items begun, in all flows.

    def wake(self, flow: "Flow") -> None:
        """Put the flow into the round."""

    def note(self, event: SenderEvent) -> None:
        """Keep an event for the shell."""


class UnitSource(Protocol):
    """Where a unit flow pulls from: a ring's cursor, and the publication's tracks."""

    def read(self, units_max: int, bytes_max: int, /) -> RingBatch:
        """The next units; empty when there are none now."""

    @property
    def lag_units(self) -> int:
        """Units not yet read."""

    def track(self, track_id: int, config_id: int) -> Track | None:
        """The track with the configuration that a unit names; None when it is gone."""

    @property
    def ended(self) -> str | None:
        """Why no more units will come."""


class Flow(abc.ABC):
    """One outgoing stream; made by FlowOwner."""

    def __init__(self, stream_no: int, limit: int) -> None:
        self.stream_no = stream_no
        self.state = IDLE
        self.limit = limit  # Credit: the peer takes frames up to here, counted from 0.
        self.sent = 0
        self.items = 0
        self.skipped = 0
        self.final: FlowEnded | None = None  # What the last frame said, once it is made.
        self._tail: memoryview | None = None  # What is left of the item begun.

    @property
    def credit(self) -> int:
        """Bytes that may be sent now."""
        return self.limit - self.sent

    @property
    def unfinished(self) -> bool:
        """Whether an item has begun and not ended."""
        return self._tail is not None

    @abc.abstractmethod
    def fill(self, owner: FlowOwner, out: list[Chunk], room: int) -> int:
        """Take a turn: frame into `out`, within `room` of session credit; bytes framed."""

    def end(self, out: list[Chunk], reason: str, *, ended: bool) -> None:
        """Make the last frame."""
        out.append(make_message_frame(StreamClosed(self.stream_no, reason, ended)))
        self.state = DONE
        self.final = FlowEnded(self.stream_no, reason, ended)
        self._tail = None

    def _begin(
        self, owner: FlowOwner, out: list[Chunk], room: int, header: Sequence[Chunk], body: bytes
    ) -> int:
        """Begin an item if credit covers all of it; else 0, with `state` saying why not."""
        header_bytes = sum(map(len, header))
        rest = max(0, len(body) - FRAGMENT_BYTES_MAX)
        fragments = -(-rest // FRAGMENT_BYTES_MAX)
        whole = header_bytes + len(body) + fragments * FRAGMENT_HEADER_BYTES
        first = whole - rest - fragments * FRAGMENT_HEADER_BYTES
        if whole > self.limit - self.sent:
            self.state = BLOCKED
            return 0
        if first > room:
            self.state = STARVED
            return 0
        if rest:
            if owner.unfinished >= INTERLEAVE_MAX:
                self.state = CROWDED
                return 0
            owner.unfinished += 1
            view = memoryview(body)
            self._tail = view[FRAGMENT_BYTES_MAX:]
            out += header
            out.append(view[:FRAGMENT_BYTES_MAX])
        else:
            out += header
            out.append(body)
        self.sent += first
        self.items += 1
        return first

    def _continue(self, owner: FlowOwner, out: list[Chunk], room: int) -> int:
        """Send the next fragment of the item begun."""
        tail = self._tail
        assert tail is not None, "an item was begun"
        piece = tail[:FRAGMENT_BYTES_MAX]
        size = len(piece)
        cost = size + FRAGMENT_HEADER_BYTES
        if cost > room:
            self.state = STARVED
            return 0
        out.append(FRAGMENT_HEADER.pack(size + 4, KIND_FRAGMENT, self.stream_no))
        out.append(piece)
        self.sent += cost
        if len(tail) > size:
            self._tail = tail[size:]
        else:
            self._tail = None
            owner.unfinished -= 1
        self.state = READY
        return cost


class UnitFlow(Flow):
    """The units of one publication."""

    def __init__(
        self, stream_no: int, limit: int, source: UnitSource, config_ids: dict[int, int]
    ) -> None:
        super().__init__(stream_no, limit)
        self._source = source
        self._config_ids = config_ids  # track_id -> config_id that the peer knows.
        self._units: Sequence[AccessUnit] = _NO_UNITS  # Read, not yet framed.
        self._discontinuity = False  # The next unit follows a gap of ours.

    def fill(self, owner: FlowOwner, out: list[Chunk], room: int) -> int:
        """Frame up to a quantum of units. Hot path: everything a PoP forwards goes through here."""
        if self._tail is not None:
            return self._continue(owner, out, room)
        units = self._units or self._read(owner, out)
        if not units:
            return 0
        self.state = READY
        used = count = 0
        stream_no, configs, append = self.stream_no, self._config_ids, out.append
        space = min(room, self.limit - self.sent)
        if not self._discontinuity:
            for unit in units:
                payload = unit.payload
                size = len(payload)
                cost = size + UNIT_HEADER_BYTES
                if (
                    size > FRAGMENT_BYTES_MAX
                    or cost > space
                    or configs.get(unit.track_id) != unit.config_id
                    or unit.discontinuity
                    or unit.capture_us is not None
                ):
                    break
                append(
                    _pack_unit(
                        size + _UNIT_BODY,
                        KIND_UNIT,
                        FLAG_RANDOM_ACCESS if unit.random_access else 0,
                        unit.track_id,
                        stream_no,
                        unit.config_id,
                        size,
                        unit.seq,
                        unit.dts,
                        unit.pts,
                        unit.wallclock_us,
                        0,
                    )
                )
                append(payload)
                space -= cost
                used += cost
                count += 1
        self.sent += used
        self.items += count
        if count < len(units):
            self._units = units[count:]
            return used + self._fill_one(owner, out, room - used)
        self._units = _NO_UNITS
        if not self._source.lag_units and self._source.ended is None:
            self.state = IDLE
        return used

    def _read(self, owner: FlowOwner, out: list[Chunk]) -> Sequence[AccessUnit]:
        batch = self._source.read(UNITS_PER_READ_MAX, QUANTUM_BYTES)
        if batch.skipped:
            self.skipped += batch.skipped
            self._discontinuity = True
            owner.note(UnitsSkipped(self.stream_no, batch.skipped))
        if not batch.units:
            self.state = IDLE
            if self._source.ended is not None:
                self.end(out, self._source.ended, ended=True)
        return batch.units

    def _fill_one(self, owner: FlowOwner, out: list[Chunk], room: int) -> int:
        """Frame the next unit, which is not of the usual sort."""
        unit = self._units[0]
        if self._config_ids.get(unit.track_id) != unit.config_id:
            track = self._source.track(unit.track_id, unit.config_id)
            if track is None:
                self._drop_first(owner)  # Nobody could decode it.
                return 0
            try:
                out.append(make_message_frame(TrackChanged(self.stream_no, track)))
            except EdgedError:
                self._drop_first(owner)  # A configuration of a megabyte is none.
                return 0
            self._config_ids[unit.track_id] = unit.config_id
        size = len(unit.payload)
        if size > ITEM_BYTES_MAX:
            self._drop_first(owner)
            return 0
        flags = FLAG_RANDOM_ACCESS if unit.random_access else 0
        if unit.discontinuity or self._discontinuity:
            flags |= FLAG_DISCONTINUITY
        if unit.capture_us is not None:
            flags |= FLAG_CAPTURE
        header = _pack_unit(
            min(size, FRAGMENT_BYTES_MAX) + _UNIT_BODY,
            KIND_UNIT,
            flags,
            unit.track_id,
            self.stream_no,
            unit.config_id,
            size,
            unit.seq,
            unit.dts,
            unit.pts,
            unit.wallclock_us,
            unit.capture_us or 0,
        )
        used = self._begin(owner, out, room, (header,), unit.payload)
        if used:
            self._discontinuity = False
            self._units = self._units[1:]
        return used

    def _drop_first(self, owner: FlowOwner) -> None:
        """Leave a unit out that cannot go, as if the ring had lost it."""
        self._units = self._units[1:]
        self._discontinuity = True
        self.skipped += 1
        owner.note(UnitsSkipped(self.stream_no, 1))


class EventFlow(Flow):
    """The packaged events of one publication, for one subscriber."""

    def __init__(self, stream_no: int, limit: int) -> None:
        super().__init__(stream_no, limit)
        self.queued_bytes = 0
        self._queue: deque[EncodedEvent] = deque()
        self._ended: str | None = None
        self._broken: dict[str, int] = {}  # Rendition -> MSN of which parts were dropped.

    @property
    def ending(self) -> bool:
        """Whether nothing may be pushed any more: the publication is over."""
        return self._ended is not None

    def push(self, owner: FlowOwner, encoded: EncodedEvent) -> None:
        """Queue an event; at the limit everything but the newest segments' start is dropped."""
        event = encoded.event
        if isinstance(event, (Part, SegmentEnded)):
            broken = self._broken.get(event.rendition)
            if broken is not None:
                if event.msn <= broken or isinstance(event, SegmentEnded) or event.index:
                    self._skip(owner, 1)
                    return
                del self._broken[event.rendition]
        self._queue.append(encoded)
        self.queued_bytes += len(encoded.meta) + len(encoded.body)
        if self.queued_bytes > QUEUE_BYTES_MAX or len(self._queue) > QUEUE_EVENTS_MAX:
            self._skip_to_newest(owner)
        owner.wake(self)

    def end_after(self, owner: FlowOwner, reason: str) -> None:
        """Close when the queue has been sent; the publication is over."""
        self._ended = reason
        owner.wake(self)

    def fill(self, owner: FlowOwner, out: list[Chunk], room: int) -> int:
        """Frame up to a quantum of events."""
        if self._tail is not None:
            return self._continue(owner, out, room)
        self.state = READY
        used = 0
        while used < QUANTUM_BYTES and not self.unfinished:
            if not self._queue:
                self.state = IDLE
                if self._ended is not None:
                    self.end(out, self._ended, ended=True)
                return used
            encoded = self._queue[0]
            taken = self._begin(owner, out, room - used, self._header(encoded), encoded.body)
            if not taken:
                return used
            used += taken
            self._queue.popleft()
            self.queued_bytes -= len(encoded.meta) + len(encoded.body)
        return used

    def _header(self, encoded: EncodedEvent) -> tuple[bytes, bytes]:
        size = len(encoded.body)
        header = EVENT_HEADER.pack(
            EVENT_HEADER_BYTES
            - FRAME_HEADER_BYTES
            + len(encoded.meta)
            + min(size, FRAGMENT_BYTES_MAX),
            KIND_EVENT,
            encoded.code,
            len(encoded.meta),
            self.stream_no,
            size,
        )
        return header, encoded.meta

    def _skip_to_newest(self, owner: FlowOwner) -> None:
        """Keep what describes each rendition, and its newest segment if its start is here."""
        newest: dict[str, int] = {}
        for encoded in self._queue:
            event = encoded.event
            if isinstance(event, Part) and event.index == 0:
                newest[event.rendition] = max(event.msn, newest.get(event.rendition, event.msn))
        kept: deque[EncodedEvent] = deque()
        for encoded in self._queue:
            event = encoded.event
            if isinstance(event, Part | SegmentEnded):
                if event.msn >= newest.get(event.rendition, event.msn + 1):
                    kept.append(encoded)
                elif event.rendition not in newest:
                    self._broken[event.rendition] = event.msn
            else:
                kept.append(encoded)
        if sum(len(e.meta) + len(e.body) for e in kept) > QUEUE_BYTES_MAX // 2 or (
            len(kept) > QUEUE_EVENTS_MAX // 2
        ):
            kept = self._only_descriptions()
        self._skip(owner, len(self._queue) - len(kept))
        self._queue = kept
        self.queued_bytes = sum(len(e.meta) + len(e.body) for e in kept)

    def _only_descriptions(self) -> deque[EncodedEvent]:
        """The last word on each rendition; its parts come again from the next segment on."""
        last: dict[tuple[type, str], EncodedEvent] = {}
        for encoded in self._queue:
            event = encoded.event
            if isinstance(event, Rendition):
                last[Rendition, event.name] = encoded
            elif isinstance(event, InitSegment):
                last[InitSegment, event.rendition] = encoded
            elif isinstance(event, Part | SegmentEnded):
                self._broken[event.rendition] = event.msn
            elif not isinstance(event, SegmentsListed):  # It goes with the parts behind it.
                last[type(event), ""] = encoded
        return deque(last.values())

    def _skip(self, owner: FlowOwner, count: int) -> None:
        if count:
            self.skipped += count
            owner.note(EventsSkipped(self.stream_no, count))
