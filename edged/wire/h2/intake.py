"""Requests out of HEADERS and DATA: streams open, bodies grow, what is too much is refused."""

from typing import Final

from edged.wire.h2 import frames
from edged.wire.h2.events import Event, RequestRefused, StreamReset
from edged.wire.h2.frames import (
    END_HEADERS,
    END_STREAM,
    FRAME_BYTES,
    HAS_PRIORITY,
    HEADER_BYTES,
    HEADERS,
    PRIORITY_BYTES,
    STREAM_ID_MAX,
    WINDOW_BYTES,
    ConnectionFaultError,
    ErrorCode,
    StreamFaultError,
)
from edged.wire.h2.head import H2Request, Head
from edged.wire.h2.hpack import KNOWN, Entry, HpackDecoder, HpackError, KnownStrings
from edged.wire.h2.limits import FloodGuard, H2Limits
from edged.wire.h2.priorities import DEFAULT, parse_priority
from edged.wire.h2.reader import Frame
from edged.wire.h2.requests import (
    PATH,
    VOCABULARY,
    MalformedError,
    RefusedError,
    check_trailers,
    read_head,
)
from edged.wire.h2.sending import Sender
from edged.wire.h2.streams import Stream, StreamTable
from edged.wire.h2.usual import UsualRequest, learn_usual

WINDOW_RETURNED_BYTES: Final = WINDOW_BYTES // 2  # Of the connection's window, given back at once.
_HEAD = (b":method", b"HEAD")
_WHOLE: Final = END_STREAM | END_HEADERS  # The flags of a frame that is a request.


class Intake:
    """The requests of one connection. `now` and `events` are those of the bytes in work."""

    __slots__ = (
        "_decoder",
        "_flood",
        "_known",
        "_limits",
        "_sender",
        "_streams",
        "_usual",
        "_window_used",
        "body_bytes",
        "early",
        "events",
        "now",
        "refused",
        "refusing",
        "requests",
    )

    def __init__(
        self,
        sender: Sender,
        streams: StreamTable,
        limits: H2Limits,
        flood: FloodGuard,
        known: KnownStrings | None,
    ) -> None:
        self.now = 0.0
        self.events: list[Event] = []
        self.refusing = False  # The peer was told that nothing more is taken.
        self.early: dict[int, tuple[int, bool]] = {}  # Priorities of streams that are to come.
        self.requests = self.refused = self.body_bytes = 0
        self._sender = sender
        self._streams = streams
        self._limits = limits
        self._flood = flood
        self._known: Final = known or KNOWN
        self._decoder = HpackDecoder(VOCABULARY, self._known)
        self._usual: UsualRequest | None = None
        self._window_used = 0  # Of the connection's, and not given back.

    def expire(self, now: float, events: list[Event]) -> None:
        """Refuse requests that are not whole in time; raises `ConnectionFaultError`."""
        s_max = self._limits.request_s_max
        told = f"request not complete after {s_max:g} s"
        self.events = events
        for stream in [*self._streams.receiving.values()]:
            if now < stream.began_at + s_max:
                break
            if stream.refused:  # It has its answer, or will never have one, and still sends.
                self.drop(stream.id, told)
                self._streams.remember_reset(stream.id)
                self._sender.send_control(frames.make_reset(stream.id, ErrorCode.CANCEL))
            else:
                stream.began_at = now  # For the answer.
                self._streams.receiving[stream.id] = self._streams.receiving.pop(stream.id)
                self._refuse(stream, 408, told)

    def drop(self, stream_id: int, why: str) -> None:
        """A stream has died."""
        stream = self._streams.live.get(stream_id)
        if stream is None:
            return
        self._sender.forget(stream)
        self._streams.close(stream)
        if stream.told:
            self.events.append(StreamReset(stream_id, why))

    def take_usual(self, data: bytes) -> H2Request | None:
        """The request that these bytes are, if they are a client's usual one and nothing else.

        If not, nothing has happened: they are to be taken apart.
        """
        usual, size = self._usual, len(data)
        if usual is None or usual.changes != self._decoder.changes or size <= HEADER_BYTES:
            return None
        flags, at = data[4], HEADER_BYTES
        if data[3] != HEADERS or flags & ~HAS_PRIORITY != _WHOLE or size > at + FRAME_BYTES:
            return None
        stream_id = _number(data, 5)
        if flags & HAS_PRIORITY:
            at += PRIORITY_BYTES
            if size <= at or _number(data, HEADER_BYTES) == stream_id:
                return None
        streams = self._streams
        if (
            data[0] << 16 | data[1] << 8 | data[2] != size - HEADER_BYTES
            or stream_id <= streams.last_id
            or not stream_id & 1
            or len(streams.live) >= self._limits.streams_max
            or self.refusing
            or self.early
        ):
            return None
        request = usual.read(data, at, self._limits, self._known)
        if request is None:
            return None
        streams.advance(stream_id)
        stream = Stream(stream_id, self.now)
        stream.urgency, stream.incremental = usual.priority
        self._open_told(stream)
        return H2Request(stream_id, request)

    def take_headers(self, frame: Frame) -> None:
        """A request begins, or its trailers end it."""
        _, flags, stream_id, block, dependency = frame
        changes = self._decoder.changes
        try:
            entries = self._decoder.decode(block)
        except HpackError as error:
            raise ConnectionFaultError(ErrorCode.COMPRESSION_ERROR, str(error)) from None
        streams = self._streams
        if stream_id <= streams.last_id or not stream_id & 1:
            self._take_trailers(flags, stream_id, entries)
            return
        streams.advance(stream_id)
        early = self._take_early(stream_id) if self.early else None
        if self.refusing:
            streams.remember_reset(stream_id)  # The second GOAWAY has said so.
            return
        if dependency == stream_id:  # RFC 7540 §5.3.1.
            raise _stream_fault(stream_id, "the stream depends on itself")
        if len(streams.live) >= self._limits.streams_max:
            told = f"more than {self._limits.streams_max} streams at once"
            raise StreamFaultError(stream_id, ErrorCode.REFUSED_STREAM, told)
        stream = Stream(stream_id, self.now, receiving=not flags & END_STREAM)
        head = self._read_head(stream, block, entries)
        if head is None:
            return
        if early is not None:
            stream.urgency, stream.incremental = early
        elif head.priority is not None:
            stream.urgency, stream.incremental = parse_priority(head.priority)
        if stream.receiving:
            stream.request = head.request
            stream.content_length = head.content_length
            stream.body = bytearray()
            self._open(stream)
            return
        self._open_told(stream)
        self.events.append(H2Request(stream_id, head.request))
        self._learn(block, entries, changes, head)

    def _learn(self, block: bytes, entries: list[Entry], changes: int, head: Head) -> None:
        """Note a request after which the table is as it was before."""
        if changes != self._decoder.changes:
            return
        path_bytes = sum(len(field[1]) for field, _, kind in entries if kind == PATH)
        self._usual = learn_usual(
            block,
            head.request,
            rest_bytes=self._decoder.list_bytes - path_bytes,
            changes=changes,
            priority=DEFAULT if head.priority is None else parse_priority(head.priority),
        )

    def _open_told(self, stream: Stream) -> None:
        """Open a stream with a request that is whole."""
        self._streams.live[stream.id] = stream
        stream.told = True
        self.requests += 1

    def _take_early(self, stream_id: int) -> tuple[int, bool] | None:
        """The priority that came before its stream; those of streams that were skipped go."""
        for passed in [other for other in self.early if other < stream_id]:
            del self.early[passed]
        return self.early.pop(stream_id, None)

    def _read_head(self, stream: Stream, block: bytes, entries: list[Entry]) -> Head | None:
        """The request; None if it is refused."""
        try:
            self._check_size(block, entries)
            head = read_head(entries, self._limits)
            if head.content_length is not None:
                self._check_length(head.content_length, stream.receiving)
        except MalformedError as error:
            raise _stream_fault(stream.id, str(error)) from None
        except RefusedError as refusal:
            self._open(stream)
            is_head = any(field == _HEAD for field, _, _ in entries)
            self._refuse(stream, refusal.status, str(refusal), head_only=is_head)
            return None
        return head

    def _open(self, stream: Stream) -> None:
        self._streams.live[stream.id] = stream
        if stream.receiving:
            self._streams.receiving[stream.id] = stream

    def _check_size(self, block: bytes, entries: list[Entry]) -> None:
        limits, size = self._limits, max(len(block), self._decoder.list_bytes)
        if len(entries) > limits.fields_max:
            raise RefusedError(431, f"more than {limits.fields_max} header fields")
        if size > limits.head_bytes_max:
            raise RefusedError(431, f"header exceeds {limits.head_bytes_max} bytes")

    def _check_length(self, length: int, receiving: bool) -> None:
        if length and not receiving:
            raise MalformedError(f"content-length is {length}, but no DATA follows")
        if length > self._limits.body_bytes_max:
            raise RefusedError(413, f"body exceeds {self._limits.body_bytes_max} bytes")

    def _refuse(self, stream: Stream, status: int, reason: str, *, head_only: bool = False) -> None:
        if stream.request is not None:
            head_only = stream.request.method == "HEAD"
        stream.refused = stream.told = True
        stream.request = stream.body = None
        self.refused += 1
        self.events.append(RequestRefused(stream.id, status, reason, head_only))

    def _take_trailers(self, flags: int, stream_id: int, entries: list[Entry]) -> None:
        stream = self._streams.live.get(stream_id)
        if stream is None:
            self._check_closed("HEADERS", stream_id, opens=True)
            return
        if not stream.receiving:
            told = "HEADERS behind the request's end"
            raise StreamFaultError(stream_id, ErrorCode.STREAM_CLOSED, told)
        if not flags & END_STREAM:
            raise _stream_fault(stream_id, "second HEADERS without END_STREAM")
        try:
            check_trailers(entries)
        except MalformedError as error:
            raise _stream_fault(stream_id, str(error)) from None
        self._complete(stream)

    def take_data(self, frame: Frame) -> None:
        """A piece of a body."""
        _, flags, stream_id, data, size = frame
        self._take_window(size)
        stream = self._streams.live.get(stream_id)
        if stream is None:
            self._check_closed("DATA", stream_id)
            return
        if not stream.receiving:
            told = "DATA behind the request's end"
            raise StreamFaultError(stream_id, ErrorCode.STREAM_CLOSED, told)
        if not data and not flags & END_STREAM:
            self._flood.count("empty DATA frames", self._limits.empty_data_max, self.now)
        # Until it has our SETTINGS the peer may use the window that all begin with.
        window = max(WINDOW_BYTES, self._limits.body_bytes_max + 1)
        stream.window_used += size
        if stream.window_used > window:
            told = f"DATA of {stream.window_used} bytes in a window of {window}"
            raise StreamFaultError(stream_id, ErrorCode.FLOW_CONTROL_ERROR, told)
        if size > len(data) and not flags & END_STREAM:
            stream.window_used -= size - len(data)
            update = frames.make_window_update(stream_id, size - len(data))
            self._sender.send_control(update)
        self.body_bytes += len(data)
        if not stream.refused:
            self._take_body(stream, data)
        if flags & END_STREAM:
            self._complete(stream)

    def _take_body(self, stream: Stream, data: bytes) -> None:
        limits, streams, body = self._limits, self._streams, stream.body
        assert body is not None, "a request that is not refused has a body"
        size = len(body) + len(data)
        length = stream.content_length
        if length is not None and size > length:
            raise _stream_fault(stream.id, f"content-length is {length}, but {size} bytes came")
        if size > limits.body_bytes_max:
            self._refuse(stream, 413, f"body exceeds {limits.body_bytes_max} bytes")
        elif streams.bodies_bytes + len(data) > limits.bodies_bytes_max:
            told = f"more than {limits.bodies_bytes_max} bytes of bodies at once"
            self._refuse(stream, 503, told)
        else:
            body += data
            stream.body_bytes += len(data)
            streams.bodies_bytes += len(data)

    def _complete(self, stream: Stream) -> None:
        request, body, length = stream.request, stream.body, stream.content_length
        if request is not None and body is not None and length not in (None, len(body)):
            told = f"content-length is {length}, but {len(body)} bytes came"
            raise _stream_fault(stream.id, told)
        self._streams.receiving.pop(stream.id, None)
        stream.receiving = False
        if request is None or body is None:
            return  # It was refused.
        stream.request = stream.body = None
        stream.told = True
        self.requests += 1
        whole = request.for_target(request.path, request.query, bytes(body))
        self.events.append(H2Request(stream.id, whole))

    def _take_window(self, size: int) -> None:
        """Give the connection's window back as it is used.

        It is never exhausted then, nor does it bound anything: `bodies_bytes_max` does.
        """
        self._window_used += size
        if self._window_used > WINDOW_RETURNED_BYTES:
            self._sender.send_control(frames.make_window_update(0, self._window_used))
            self._window_used = 0

    def _check_closed(self, name: str, stream_id: int, *, opens: bool = False) -> None:
        """A frame of a stream that does not live: harmless only if we have reset it."""
        streams = self._streams
        if streams.is_idle(stream_id) or (opens and streams.was_skipped(stream_id)):
            told = f"{name} of stream {stream_id}, the last is {streams.last_id}"
            raise ConnectionFaultError(ErrorCode.PROTOCOL_ERROR, told)
        if not streams.was_reset(stream_id):
            told = f"{name} of stream {stream_id}, which is closed"
            raise ConnectionFaultError(ErrorCode.STREAM_CLOSED, told)
        self._flood.count("frames of streams reset", self._limits.late_max, self.now)


def _number(data: bytes, at: int) -> int:
    """Of a stream, in four bytes."""
    high = data[at] << 24 | data[at + 1] << 16
    return (high | data[at + 2] << 8 | data[at + 3]) & STREAM_ID_MAX


def _stream_fault(stream_id: int, told: str) -> StreamFaultError:
    return StreamFaultError(stream_id, ErrorCode.PROTOCOL_ERROR, told)
