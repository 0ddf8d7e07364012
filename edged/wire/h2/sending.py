"""What one connection sends: control frames first, then responses by priority, inside the windows.

Bodies are never copied, but for those that fit into one frame with their header block: they go out
as one bytes object, so that one TLS record carries all.
"""

from collections.abc import Sequence
from typing import Final

from edged.wire.h2.frames import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME_BYTES,
    HEADERS,
    PING,
    SETTINGS_ACK,
    WINDOW_BYTES,
    WINDOW_BYTES_MAX,
    ConnectionFaultError,
    ErrorCode,
    StreamFaultError,
    make_headers,
    make_reset,
    pack_header,
)
from edged.wire.h2.limits import H2Limits
from edged.wire.h2.priorities import Schedule
from edged.wire.h2.streams import Stream, StreamTable

JOIN_BYTES_MAX: Final = 16 * 1024  # A body up to it is copied behind its header block.
DATA_BYTES_MAX: Final = 64 * 1024  # Of a frame, if the peer takes so much: others wait for it.
READY_MAX: Final = 8  # Whole responses that wait to be taken, and hold no stream any more.
# HPACK's size update to 0: our encoder never uses the dynamic table.
TABLE_GIVEN_UP: Final = b"\x20"
TABLE_BYTES: Final = 4096  # What HTTP/2 begins with.

Chunk = bytes | memoryview


class Sender:
    """The output of one connection. It holds no more than the streams' answers, and little beside.

    `stalled` tells that all that waits is held back by the peer's windows.
    """

    __slots__ = (
        "_control",
        "_limits",
        "_prefix",
        "_ready",
        "_streams",
        "_table_bytes",
        "_urgent",
        "control_bytes",
        "data_frames",
        "frame_bytes_max",
        "initial_window",
        "schedule",
        "sent_bytes",
        "stalled",
        "window",
    )

    def __init__(self, preface: bytes, streams: StreamTable, limits: H2Limits) -> None:
        self.schedule = Schedule()
        self.window = WINDOW_BYTES  # The connection's.
        self.initial_window = WINDOW_BYTES  # Each stream's, with its credit.
        self.frame_bytes_max = FRAME_BYTES
        self.stalled = False
        self.sent_bytes = 0  # Of bodies.
        self.data_frames = 0
        self.control_bytes = 0
        self._limits = limits
        self._streams = streams
        self._urgent = [preface]  # And the answers to PINGs, behind it.
        self._control: list[Chunk] = []
        self._ready: list[Chunk] = []
        self._prefix = b""
        self._table_bytes = TABLE_BYTES

    @property
    def wants_output(self) -> bool:
        """Whether `take` has anything to give."""
        if self._ready or self._urgent or self._control:
            return True
        return not self.stalled and bool(self.schedule.queue)

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits, not even for the peer's leave."""
        return not (self._ready or self._urgent or self._control or self.schedule.queue)

    # What goes in.

    def send_control(self, frame: bytes) -> None:
        """Queue a frame ahead of all responses."""
        self._count(len(frame))
        self._control.append(frame)

    def acknowledge_settings(self) -> None:
        """Queue the acknowledgement behind responses that are made: they are as was allowed."""
        self._count(len(SETTINGS_ACK))
        (self._ready or self._control).append(SETTINGS_ACK)

    def answer_ping(self, opaque: bytes) -> None:
        """Queue the answer to a PING, ahead of everything: the peer measures by it."""
        self._count(len(opaque))
        self._urgent.append(pack_header(len(opaque) << 8 | PING, ACK, 0) + opaque)

    def end(self, goaway: bytes) -> None:
        """The last frame; what waited is dropped."""
        self._control = [goaway]
        self._ready = []
        self.schedule.clear()

    def respond(self, stream: Stream, block: bytes, body: Sequence[bytes]) -> None:
        """Queue a response."""
        size = len(body[0]) if len(body) == 1 else sum(map(len, body))
        stream.answered = True
        if (
            size <= JOIN_BYTES_MAX
            and size <= self.window
            and size <= self.initial_window + stream.credit
            and len(block) <= FRAME_BYTES
            and not stream.receiving
            and not self._prefix
            and not self.schedule.queue
            and len(self._ready) < READY_MAX
        ):
            self._ready.append(self._join(stream.id, block, body, size))
            self._streams.close(stream)
            return
        stream.block = block
        stream.pieces = body
        stream.left = size
        self.schedule.add(stream)
        self.stalled = False

    def forget(self, stream: Stream) -> None:
        """Drop what waits of a stream."""
        self.schedule.discard(stream)

    # The peer's leave.

    def add_window(self, increment: int) -> None:
        """The connection's WINDOW_UPDATE."""
        self.window += increment
        if self.window > WINDOW_BYTES_MAX:
            raise ConnectionFaultError(
                ErrorCode.FLOW_CONTROL_ERROR,
                f"the connection's window is {self.window} bytes, at most {WINDOW_BYTES_MAX}",
            )
        self.stalled = False

    def add_stream_window(self, stream: Stream, increment: int) -> None:
        """A stream's WINDOW_UPDATE."""
        stream.credit += increment
        window = self.initial_window + stream.credit
        if window > WINDOW_BYTES_MAX:
            raise StreamFaultError(
                stream.id,
                ErrorCode.FLOW_CONTROL_ERROR,
                f"the stream's window is {window} bytes, at most {WINDOW_BYTES_MAX}",
            )
        self.stalled = False

    def set_initial_window(self, size: int) -> None:
        """SETTINGS_INITIAL_WINDOW_SIZE: all streams' windows change by as much (§6.9.2)."""
        most = max((stream.credit for stream in self._streams.live.values()), default=0)
        if size + max(0, most) > WINDOW_BYTES_MAX:
            raise ConnectionFaultError(
                ErrorCode.FLOW_CONTROL_ERROR,
                f"INITIAL_WINDOW_SIZE of {size} brings a stream's window above {WINDOW_BYTES_MAX}",
            )
        self.initial_window = size
        self.stalled = False

    def set_table_size(self, size: int) -> None:
        """SETTINGS_HEADER_TABLE_SIZE: a decoder may wait to see that a lower one was understood."""
        if size < self._table_bytes:
            self._prefix = TABLE_GIVEN_UP
            self._table_bytes = 0

    # What goes out.

    def take(self, bytes_max: int) -> list[Chunk]:
        """The next chunks, whole frames of about that many bytes."""
        ready = self._ready
        if len(ready) == 1 and not (self._urgent or self._control or self.schedule.queue):
            self._ready = []
            return ready
        chunks: list[Chunk] = []
        if self._urgent or self._control:
            chunks += self._urgent
            chunks += self._control
            self._urgent, self._control = [], []
            self.control_bytes = 0
        size = sum(map(len, chunks))
        count = 0
        while count < len(ready) and size < bytes_max:
            size += len(ready[count])
            count += 1
        chunks += ready[:count]
        del ready[:count]
        while self.schedule.queue and size < bytes_max and not ready:
            stream = self._choose()
            if stream is None:
                self.stalled = True
                break
            size += self._send(stream, chunks, bytes_max - size)
        return chunks

    def _count(self, size: int) -> None:
        self.control_bytes += size
        if self.control_bytes > self._limits.control_bytes_max:
            raise ConnectionFaultError(
                ErrorCode.ENHANCE_YOUR_CALM,
                f"{self.control_bytes} bytes of answers to control frames are not read, "
                f"at most {self._limits.control_bytes_max}",
            )

    def _join(self, stream_id: int, block: bytes, body: Sequence[bytes], size: int) -> bytes:
        """A whole response in one; the windows have room for it."""
        if not size:
            flags = END_HEADERS | END_STREAM
            return pack_header(len(block) << 8 | HEADERS, flags, stream_id) + block
        self.window -= size
        self.sent_bytes += size
        self.data_frames += 1
        return b"".join(
            (
                pack_header(len(block) << 8 | HEADERS, END_HEADERS, stream_id),
                block,
                pack_header(size << 8 | DATA, END_STREAM, stream_id),
                *body,
            )
        )

    def _choose(self) -> Stream | None:
        """The first that may send; header blocks need no window."""
        for stream in self.schedule:
            if stream.block is not None or (
                self.window > 0 and self.initial_window + stream.credit > 0
            ):
                return stream
        return None

    def _send(self, stream: Stream, chunks: list[Chunk], room: int) -> int:
        """One frame of a stream, with its header block if that has not gone out."""
        block = stream.block
        window = min(self.window, self.initial_window + stream.credit)
        size = 0
        head = b""
        if block is not None:
            stream.block = None
            if self._prefix:
                block, self._prefix = self._prefix + block, b""
            whole = stream.left <= JOIN_BYTES_MAX and stream.left <= window
            if whole and len(block) <= FRAME_BYTES:
                chunks.append(self._join(stream.id, block, stream.pieces, stream.left))
                size = stream.left + len(block)
                stream.left = 0
                self._finish(stream)
                return size
            head = make_headers(stream.id, block, self.frame_bytes_max, end=not stream.left)
            size = len(head)
        length = min(
            stream.left, window, self.frame_bytes_max, DATA_BYTES_MAX, max(room, FRAME_BYTES)
        )
        if length <= 0:
            chunks.append(head)
            if not stream.left:
                self._finish(stream)
            return size
        stream.left -= length
        stream.credit -= length
        self.window -= length
        self.sent_bytes += length
        self.data_frames += 1
        end = 0 if stream.left else END_STREAM
        chunks.append(head + pack_header(length << 8 | DATA, end, stream.id))
        _take_body(stream, length, chunks)
        if end:
            self._finish(stream)
        else:
            self.schedule.pass_turn(stream)
        return size + length

    def _finish(self, stream: Stream) -> None:
        self.schedule.discard(stream)
        if stream.receiving:
            # RFC 9113 §8.1: answered before the request was whole; the rest is not wanted.
            self._control.append(make_reset(stream.id, ErrorCode.NO_ERROR))
            self._streams.remember_reset(stream.id)
        self._streams.close(stream)


def _take_body(stream: Stream, size: int, chunks: list[Chunk]) -> None:
    """The next bytes of a stream's body, as they lie there."""
    while size:
        piece = stream.pieces[stream.piece]
        left = len(piece) - stream.offset
        if left > size:
            chunks.append(memoryview(piece)[stream.offset : stream.offset + size])
            stream.offset += size
            return
        if left:
            chunks.append(memoryview(piece)[stream.offset :] if stream.offset else piece)
        size -= left
        stream.piece += 1
        stream.offset = 0
