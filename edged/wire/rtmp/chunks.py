"""Chunk streams: messages cut into chunks and put together again, both ways (Adobe RTMP 1.0 §5.3).

A chunk is: 2 bits fmt, 6 bits chunk stream id (0: one more byte, 64 + it; 1: two more, 64 + b0 +
256 b1); then by fmt: 0 u24 timestamp, u24 length, u8 type, u32 little-endian message stream id;
1 u24 delta, u24 length, u8 type; 2 u24 delta; 3 nothing. A timestamp field of 0xFFFFFF is followed
by the u32 itself, which every fmt-3 chunk of that chunk stream repeats. Then chunk size bytes, or
what is left of the message.

This is the hot path: 20,000 pieces a second pass here, most of them in the middle of a message.
"""

from collections.abc import Mapping

from msgspec import Struct

from edged.errors import RemoteProtocolError
from edged.wire.rtmp.limits import CHUNK_BYTES_MAX, CHUNK_BYTES_SMALL, RtmpLimits
from edged.wire.rtmp.messages import ABORT, SET_CHUNK_SIZE, Message, u32_of

EXTENDED = 0xFFFFFF  # Field value that says: the timestamp follows in 32 bits (§5.3.1.3).
CHUNK_BYTES_DEFAULT = 128
_FULL, _SAME_STREAM, _SAME_LENGTH, _CONTINUE = range(4)  # fmt (§5.3.1.2).
_HEADER_BYTES = (11, 7, 3, 0)  # Message header by fmt.
_ONE_BYTE_MIN = 2  # Chunk stream ids that one byte holds.
_ONE_BYTE_MAX = 63
_ONE_MORE_CHUNK = _CONTINUE << 6 | _ONE_BYTE_MIN


class ChunkStream(Struct):
    """What a chunk stream remembers between chunks; plain data."""

    timestamp: int = 0
    delta: int = 0  # Added by a new message of fmt 3.
    field: int = 0  # Value of the last extended timestamp.
    extended: bool = False
    length: int = 0
    kind: int = 0
    stream_id: int = 0
    missing: int = 0  # Bytes of the message begun that are not here yet; 0: none begun.
    reserved: int = 0  # What the message begun counts for in buffered_bytes_max.
    body: bytearray = bytearray()


class ReaderState(Struct):
    """All of a ChunkReader; plain data."""

    chunk_size: int = CHUNK_BYTES_DEFAULT
    header: bytearray = bytearray()  # Of a chunk header cut by the end of a piece.
    current: int | None = None  # The chunk stream whose chunk is being read.
    left: int = 0  # Payload bytes of that chunk still to come.
    reserved: int = 0
    interleaved: bool = False
    streams: dict[int, ChunkStream] = {}


class ChunkReader:
    """Turns bytes into whole messages. Set Chunk Size and Abort take effect here, and go on.

    `fast.ChunkReader` is the same, compiled, and makes units of the usual media messages.
    """

    only_units = False

    def __init__(self, limits: RtmpLimits, state: ReaderState | None = None) -> None:
        state = state if state is not None else ReaderState()
        self._limits = limits
        self._header = state.header
        self._streams = state.streams
        self._current = None if state.current is None else state.streams[state.current]
        self._left = state.left
        self._reserved = state.reserved
        self._interleaved = state.interleaved  # A message has begun inside another.
        self._message_bytes_max = limits.message_bytes_max
        self._buffered_bytes_max = limits.buffered_bytes_max
        self.chunk_size = state.chunk_size

    def restrict(self, bytes_max: int) -> None:
        """Take no message longer than that, nor begun ones that hold more together."""
        bytes_max = min(bytes_max, self._limits.message_bytes_max)
        self._message_bytes_max = self._buffered_bytes_max = bytes_max

    def lift(self) -> None:
        """Take what the limits allow."""
        self._message_bytes_max = self._limits.message_bytes_max
        self._buffered_bytes_max = self._limits.buffered_bytes_max

    def state(self) -> ReaderState:
        """The live state, not a copy."""
        current = next((csid for csid, s in self._streams.items() if s is self._current), None)
        return ReaderState(
            chunk_size=self.chunk_size,
            header=self._header,
            current=current,
            left=self._left,
            reserved=self._reserved,
            interleaved=self._interleaved,
            streams=self._streams,
        )

    @property
    def bytes_wanted(self) -> int:
        """Bytes on the wire until a message may be whole, at the least; 1 when unknown.

        From a sender that interleaves messages it is what is left of the chunk: the next one may
        complete a message that is not to wait.
        """
        stream = self._current
        if stream is None:
            return 1
        if self._interleaved:
            return self._left
        behind = stream.missing - self._left
        return self._left + behind + -(-behind // self.chunk_size)  # A fmt-3 header is >= 1 byte.

    def settle(self) -> None:
        """Nothing is ahead of the assembler here."""

    def receive_data(self, data: bytes | memoryview, _media: object = None, /) -> list[Message]:
        """The messages that `data` completes; their bodies may be views of it.

        Raises RemoteProtocolError for a broken header and for each limit.
        """
        size = len(data)
        stream = self._current
        if stream is not None and size < self._left:  # The usual case: nothing ends here.
            stream.body += data
            stream.missing -= size
            self._left -= size
            return []
        if self._header:
            data = bytes(self._header) + data
            self._header.clear()
            size = len(data)
        return self._read_chunks(memoryview(data), size)

    def _read_chunks(  # noqa: C901 (the hot loop: a call for each branch would double its cost)
        self, view: memoryview, end: int
    ) -> list[Message]:
        messages: list[Message] = []
        messages_max = self._limits.messages_per_s_max
        streams = self._streams
        stream, left = self._current, self._left
        position = 0
        while True:
            if stream is not None:
                stop = position + left
                if stop > end:
                    stream.body += view[position:end]
                    stream.missing -= end - position
                    self._current, self._left = stream, stop - end
                    return messages
                if stream.missing > left:
                    stream.body += view[position:stop]
                    stream.missing -= left
                else:
                    messages.append(self._finish(stream, view[position:stop]))
                    if len(messages) > messages_max:
                        raise RemoteProtocolError(f"more than {messages_max} messages in one piece")
                    if self.chunk_size < CHUNK_BYTES_SMALL:
                        self._check_chunks(end - stop)
                position = stop
            if position >= end:
                break
            first = view[position]
            if first >= _ONE_MORE_CHUNK:  # The usual header: the message goes on.
                stream = streams.get(first & 0x3F)
                if stream is not None and (left := stream.missing) and not stream.extended:
                    if left > self.chunk_size:  # noqa: PLR1730 (min costs twice as much)
                        left = self.chunk_size
                    position += 1
                    continue
            begun = self._read_header(view, position, end)
            if begun == 0:
                self._header += view[position:end]
                break
            position = begun
            stream, left = self._current, self._left
        self._current = None
        return messages

    def _check_chunks(self, size: int) -> None:
        """Raise RemoteProtocolError where tiny chunks make of `size` bytes too much work."""
        chunks_max = self._limits.messages_per_s_max
        if size > chunks_max * self.chunk_size:
            raise RemoteProtocolError(
                f"more than {chunks_max} chunks of {self.chunk_size} bytes in one piece"
            )

    def _finish(self, stream: ChunkStream, rest: memoryview) -> Message:
        """The message that `rest` completes."""
        body: memoryview | bytearray
        if stream.body:
            body = stream.body
            body += rest
            stream.body = bytearray()
        else:
            body = rest  # It came whole: no copy.
        stream.missing = 0
        self._reserved -= stream.reserved
        stream.reserved = 0
        message = Message(stream.kind, stream.timestamp, stream.stream_id, body)
        if stream.kind == SET_CHUNK_SIZE:
            self._set_chunk_size(message)
        elif stream.kind == ABORT:
            self._abort(message)
        return message

    def _set_chunk_size(self, message: Message) -> None:
        value = u32_of(message, "set chunk size")
        if not 1 <= value < 2**31:  # §5.4.1: the top bit is zero.
            raise RemoteProtocolError(f"chunk size {value} is not in 1..2147483647")
        self.chunk_size = min(value, CHUNK_BYTES_MAX)

    def _abort(self, message: Message) -> None:
        """Forget the message begun on the named chunk stream (§5.4.2)."""
        stream = self._streams.get(u32_of(message, "abort"))
        if stream is not None:
            stream.body = bytearray()
            stream.missing = 0
            self._reserved -= stream.reserved
            stream.reserved = 0

    def _read_header(self, view: memoryview, position: int, end: int) -> int:
        """Read a chunk header and make its stream current.

        Returns where the payload begins; 0, having changed nothing, when the header is cut short.
        """
        fmt = view[position] >> 6
        csid, position = _read_id(view, position, end)
        after = position + _HEADER_BYTES[fmt]
        if position == 0 or after > end:
            return 0
        stream = self._streams.get(csid) or self._new_stream(csid, fmt)
        head = view[position:after]
        if fmt == _CONTINUE:
            field, extended = stream.field, stream.extended
        else:
            field = int.from_bytes(head[:3], "big")
            extended = field == EXTENDED
        if extended:
            if after + 4 > end:
                return 0
            value = int.from_bytes(view[after : after + 4], "big")
            if fmt != _CONTINUE or value == field:
                field = value
                after += 4
            # Else the sender does not repeat it, as some encoders do not: these are payload.
        stream.field, stream.extended = field, extended
        if not stream.missing:
            self._begin(stream, csid, fmt, head)
        elif fmt != _CONTINUE:
            raise RemoteProtocolError(
                f"chunk of fmt {fmt} on chunk stream {csid} inside a message, "
                f"{stream.missing} bytes before its end"
            )
        self._streams[csid] = stream
        self._current = stream
        self._left = min(self.chunk_size, stream.missing)
        return after

    def _new_stream(self, csid: int, fmt: int) -> ChunkStream:
        if fmt > _SAME_STREAM:  # librtmp begins its control stream with fmt 1.
            raise RemoteProtocolError(f"chunk stream {csid} begins with fmt {fmt}")
        if len(self._streams) >= self._limits.chunk_streams_max:
            raise RemoteProtocolError(
                f"chunk stream {csid} is one more than {self._limits.chunk_streams_max}"
            )
        return ChunkStream(body=bytearray())

    def _begin(self, s: ChunkStream, csid: int, fmt: int, head: memoryview) -> None:
        """A new message begins on the stream: its header, and whether we can hold it."""
        if fmt <= _SAME_STREAM:
            s.length = int.from_bytes(head[3:6], "big")
            s.kind = head[6]
        if fmt == _FULL:
            s.stream_id = int.from_bytes(head[7:11], "little")
            s.timestamp = s.field
            # §5.3.1.2.4: fmt 3 after fmt 0 adds the timestamp itself; but none steps 4 h 39 m.
            s.delta = 0 if s.extended else s.field
        else:
            if fmt != _CONTINUE:
                s.delta = s.field
            s.timestamp = (s.timestamp + s.delta) & 0xFFFFFFFF
        if s.length > self._message_bytes_max:
            raise RemoteProtocolError(
                f"message of {s.length} bytes on chunk stream {csid} exceeds "
                f"{self._message_bytes_max}"
            )
        if self._reserved:
            self._interleaved = True
        s.missing = s.reserved = s.length
        self._reserved += s.length
        if self._reserved > self._buffered_bytes_max:
            raise RemoteProtocolError(
                f"messages begun hold {self._reserved} bytes, more than {self._buffered_bytes_max}"
            )


def _read_id(view: memoryview, position: int, end: int) -> tuple[int, int]:
    """A chunk stream id and where it ends; that is 0 when it is cut short."""
    csid = view[position] & 0x3F
    if csid >= _ONE_BYTE_MIN:
        return csid, position + 1
    after = position + 2 + csid
    if after > end:
        return 0, 0
    return 64 + int.from_bytes(view[position + 1 : after], "little"), after


class WriterStream(Struct):
    """What the peer remembers of one of our chunk streams."""

    timestamp: int
    delta: int  # -1 when the last message was of fmt 0.
    length: int
    kind: int
    stream_id: int


class ChunkWriter:
    """Turns messages into chunks, with the shortest header that the protocol allows."""

    def __init__(
        self,
        chunk_size: int = CHUNK_BYTES_DEFAULT,
        streams: Mapping[int, WriterStream] | None = None,
    ) -> None:
        self.chunk_size = chunk_size
        self.streams: dict[int, WriterStream] = dict(streams or {})

    def write(self, csid: int, message: Message) -> list[bytes]:
        """The message's chunks, each with its header."""
        assert _ONE_BYTE_MIN <= csid <= _ONE_BYTE_MAX, "edged needs no long chunk stream ids"
        header, extended = self._header(csid, message)
        body = memoryview(message.body)
        chunks = [header + bytes(body[: self.chunk_size])]
        if len(body) > self.chunk_size:
            again = bytes([_CONTINUE << 6 | csid]) + extended
            size = self.chunk_size
            chunks += [again + body[at : at + size] for at in range(size, len(body), size)]
        return chunks

    def _header(self, csid: int, message: Message) -> tuple[bytes, bytes]:
        """The first chunk's header, and the extended timestamp that the others repeat."""
        length = len(message.body)
        last = self.streams.get(csid)
        delta = -1 if last is None else (message.timestamp - last.timestamp) & 0xFFFFFFFF
        if last is None or last.stream_id != message.stream_id or delta >= 2**31:
            fmt, field, delta = _FULL, message.timestamp, -1
        else:
            field = delta
            same = last.length == length and last.kind == message.kind
            fmt = _SAME_LENGTH if same else _SAME_STREAM
            if same and delta == last.delta < EXTENDED:
                fmt = _CONTINUE
        self.streams[csid] = WriterStream(
            message.timestamp, delta, length, message.kind, message.stream_id
        )
        extended = field.to_bytes(4, "big") if field >= EXTENDED else b""
        header = bytes([fmt << 6 | csid])
        if fmt != _CONTINUE:
            header += min(field, EXTENDED).to_bytes(3, "big")
        if fmt <= _SAME_STREAM:
            header += length.to_bytes(3, "big") + bytes([message.kind])
        if fmt == _FULL:
            header += message.stream_id.to_bytes(4, "little")
        return header + extended, extended
