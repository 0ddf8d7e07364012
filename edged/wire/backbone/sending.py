"""The sending side of a session's media, sans-IO: streams take turns, within their credit.

Each turn is a quantum of one flow (`edged.wire.backbone.flows`); a flow without credit leaves the
round until it is granted some, so it blocks nobody. A flow that raises, which is a bug, is closed
with the reason: it neither stays at the head of the round nor takes others' frames with it.

    idle --wake--> ready --no credit of its own--> blocked --grant--> ready --end--> done

Segments that were asked for by name have a round of their own, which is taken up only when nothing
live is ready, for as much as the shell allows at a time, and not below half of the session's
credit: so what is live finds the credit, and a short queue, whenever it comes.
"""

from collections import deque
from collections.abc import Sequence

import msgspec

from edged.errors import RemoteProtocolError
from edged.wire.backbone.events import EventsSkipped, SenderEvent, SenderStatistics, UnitsSkipped
from edged.wire.backbone.flows import (
    BLOCKED,
    CROWDED,
    DONE,
    IDLE,
    READY,
    STARVED,
    Chunk,
    EventFlow,
    Flow,
    UnitFlow,
    UnitSource,
)
from edged.wire.backbone.frames import INTERLEAVE_MAX
from edged.wire.backbone.segment_flow import SegmentFlow

STREAM_NO_MAX = 2**32 - 1
REASON_CHARS_MAX = 200  # Of a bug's own words: what the peer keeps of a reason.


class MediaSender:
    """All outgoing streams of one session."""

    def __init__(self) -> None:
        self.unfinished = 0  # Items begun, in all flows.
        self._flows: dict[int, Flow] = {}
        self._ready: deque[Flow] = deque()
        self._crowded: deque[Flow] = deque()
        self._segments: deque[Flow] = deque()  # Those of `SegmentFlow` that are ready.
        self._events: list[SenderEvent] = []
        self._stream_no = 0
        self._limit = self._sent = 0
        self._reserved = 0  # Credit that is for live media.
        self._stream_window = 0
        self._items_done = self._units_skipped = self._events_skipped = 0

    def set_windows(self, session_window: int, stream_window: int) -> None:
        """The peer's hello: the credit to begin with."""
        self._limit, self._stream_window = session_window, stream_window
        self._reserved = session_window // 2

    def reserve(self) -> int:
        """The next stream number, for an opening message; its flow may begin later."""
        assert self._stream_no < STREAM_NO_MAX, "136 years of 1 stream per second"
        self._stream_no += 1
        return self._stream_no

    def open_units(
        self, stream_no: int, source: UnitSource, config_ids: dict[int, int]
    ) -> UnitFlow:
        """Begin a reserved stream; `config_ids`: by track, what its opening said."""
        flow = UnitFlow(stream_no, self._stream_window, source, config_ids)
        self._flows[stream_no] = flow
        self.wake(flow)
        return flow

    def open_events(self, stream_no: int) -> EventFlow:
        """Begin a reserved stream of packaged events."""
        flow = EventFlow(stream_no, self._stream_window)
        self._flows[stream_no] = flow
        return flow

    def open_segment(self, stream_no: int, body: Sequence[bytes]) -> SegmentFlow:
        """Begin a reserved stream of a segment's bytes, behind all that is live."""
        flow = SegmentFlow(stream_no, self._stream_window, body)
        flow.state = READY
        self._flows[stream_no] = flow
        self._segments.append(flow)
        return flow

    def wake(self, flow: Flow) -> None:
        """There is something new to send in this flow."""
        if flow.state is IDLE:
            flow.state = READY
            self._ready.append(flow)

    def close(self, flow: Flow, reason: str, out: list[Chunk]) -> None:
        """End a stream at once, wherever it stands; the StreamClosed goes into `out`."""
        if flow.state is not DONE:
            self.unfinished -= flow.unfinished
            flow.end(out, reason, ended=False)
            self._forget(flow)
            self._uncrowd()

    def grant(self, stream_no: int, limit: int) -> None:
        """The peer raised a limit; 0 is the session's. Raises RemoteProtocolError."""
        if stream_no == 0:
            self._limit = max(self._limit, limit)
            return
        if stream_no > self._stream_no:
            raise RemoteProtocolError(f"credit for stream {stream_no}, which was never opened")
        flow = self._flows.get(stream_no)
        if flow is not None and limit > flow.limit:  # Else it has just ended, or the frame is old.
            flow.limit = limit
            if flow.state is BLOCKED:
                flow.state = READY
                (self._segments if isinstance(flow, SegmentFlow) else self._ready).append(flow)

    def note(self, event: SenderEvent) -> None:
        """Flows report here."""
        if isinstance(event, UnitsSkipped):
            self._units_skipped += event.units
        elif isinstance(event, EventsSkipped):
            self._events_skipped += event.events
        self._events.append(event)

    @property
    def wants_to_send(self) -> bool:
        """Whether `fill` would make something, as far as credit is concerned."""
        return bool(self._ready) and self._sent < self._limit

    @property
    def has_segments(self) -> bool:
        """Whether `fill` would make something of a segment, were it allowed to."""
        return bool(self._segments)

    def fill(self, out: list[Chunk], bytes_max: int, segment_bytes_max: int = 0) -> int:
        """Frame what is ready, in turns, until about `bytes_max`; returns the bytes of it.

        When nothing live is left, of segments about `segment_bytes_max`.
        """
        ready = self._ready
        total = 0
        while ready and total < bytes_max:
            flow = ready[0]
            whole = len(out)
            try:
                used = flow.fill(self, out, self._limit - self._sent)
            except Exception as error:  # Told by FlowEnded: a core has no log.
                del out[whole:]
                self._close_broken(flow, error, out)
                continue
            self._sent += used
            total += used
            state = flow.state
            if state is STARVED:
                break
            ready.popleft()
            if state is READY:
                ready.append(flow)
            elif state is CROWDED:
                self._crowded.append(flow)
            elif state is DONE:
                self._forget(flow)
            if self._crowded:
                self._uncrowd()
        if self._segments and not ready and total < bytes_max:
            total += self._fill_segments(out, min(bytes_max - total, segment_bytes_max))
        return total

    def _fill_segments(self, out: list[Chunk], bytes_max: int) -> int:
        total = 0
        while self._segments and total < bytes_max:
            flow = self._segments[0]
            whole = len(out)
            try:
                used = flow.fill(self, out, self._limit - self._sent - self._reserved)
            except Exception as error:  # As above.
                del out[whole:]
                self._close_broken(flow, error, out)
                continue
            self._sent += used
            total += used
            if flow.state is STARVED:
                flow.state = READY
                break
            if flow.state is READY:
                continue  # One after the other: on a slow path the first comes in time so.
            self._segments.popleft()
            if flow.state is DONE:
                self._forget(flow)
        return total

    @property
    def has_events(self) -> bool:
        """Whether `take_events` has any."""
        return bool(self._events)

    def take_events(self) -> list[SenderEvent]:
        """What happened to flows since the last call."""
        events, self._events = self._events, []
        return events

    def statistics(self) -> SenderStatistics:
        """Counters of the session."""
        return SenderStatistics(
            flows=len(self._flows),
            items_sent=self._items_done + sum(flow.items for flow in self._flows.values()),
            bytes_sent=self._sent,
            units_skipped=self._units_skipped,
            events_skipped=self._events_skipped,
            session_credit=self._limit - self._sent,
        )

    def _close_broken(self, flow: Flow, error: Exception, out: list[Chunk]) -> None:
        """End a flow whose turn raised, as if it had not had that turn."""
        flow.end(out, f"internal error: {error!r}"[:REASON_CHARS_MAX], ended=False)
        assert flow.final is not None, "an end has been made"
        flow.final = msgspec.structs.replace(flow.final, error=error)
        self._forget(flow)
        self.unfinished = sum(other.unfinished for other in self._flows.values())
        self._uncrowd()

    def _forget(self, flow: Flow) -> None:
        self._flows.pop(flow.stream_no, None)
        self._items_done += flow.items
        for queue in (self._ready, self._crowded, self._segments):
            if flow in queue:
                queue.remove(flow)
        assert flow.final is not None, "it is forgotten when its last frame is made"
        self.note(flow.final)

    def _uncrowd(self) -> None:
        for _ in range(min(len(self._crowded), INTERLEAVE_MAX - self.unfinished)):
            flow = self._crowded.popleft()
            flow.state = READY
            self._ready.append(flow)
