# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""`chunks.ChunkReader` compiled: the same bytes give the same messages, state and errors.

(But for a piece that ends in an error: units before it are counted here, though none is given.)

It does one thing more: the usual media message (a raw AVC or AAC frame of track 0 whose
configuration is known and whose time follows the last one's) it makes an access unit of at once,
as `tracks.TrackAssembler` would, in the buffer in which the message was put together. All else it
leaves to the assembler, as a `Message`, and with it what comes after that in the same piece: so
nothing overtakes a new configuration.

Built where a C compiler is at hand (`edged/build.py`); `reader` takes `chunks` where it is not.
Bytes come from strangers: each address is checked against a length before it is used, in the loop
that reads headers, and in `Stream.take` for what is written.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from libc.stdint cimport int32_t, int64_t, uint32_t
from libc.string cimport memcpy

from edged.errors import RemoteProtocolError
from edged.media import h264
from edged.media.nal import NALS_PER_UNIT_MAX as _NALS_MAX
from edged.media.access_unit import make_unit
from edged.media.track import Codec
from edged.wire.rtmp.chunks import CHUNK_BYTES_DEFAULT, ChunkStream, ReaderState
from edged.wire.rtmp.limits import CHUNK_BYTES_MAX as _CHUNK_MAX
from edged.wire.rtmp.limits import CHUNK_BYTES_SMALL as _CHUNK_SMALL
from edged.wire.rtmp.messages import Message, u32_of
from edged.wire.rtmp.tracks import AHEAD_MS_MAX, BACK_MS_MAX

cdef extern from "Python.h":
    object PyObject_Vectorcall(object callable, PyObject **args, size_t count, PyObject *names)

cdef enum:
    SET_CHUNK_SIZE = 1
    ABORT = 2
    AUDIO = 8
    VIDEO = 9
    EXTENDED = 0xFFFFFF
    CONTINUE = 3  # fmt.
    AUDIO_HEAD = 2  # FLV's bytes before a raw AAC frame,
    VIDEO_HEAD = 5  # and before an AVC one.
    AVC_KEY = 0x17  # FLV §E.4.3.1: frame type, codec id.
    AVC_INTER = 0x27
    AAC_SOUND = 10
    VIDEO_TRACK = 1  # Of track 0 on the wire.
    AUDIO_TRACK = 2

cdef Py_ssize_t CHUNK_BYTES_MAX = _CHUNK_MAX
cdef Py_ssize_t CHUNK_BYTES_SMALL = _CHUNK_SMALL
cdef Py_ssize_t NALS_MAX = _NALS_MAX
cdef int64_t BACK_MS = BACK_MS_MAX
cdef int64_t AHEAD_MS = AHEAD_MS_MAX
# Within these no product below leaves 64 bits; beyond them the assembler counts, in Python's
# integers.
cdef int64_t MS_MAX = <int64_t> 1 << 40  # 35 years on the wire.
cdef int64_t TIMESCALE_MAX = 192_000
cdef int64_t SPAN_MAX = <int64_t> 1 << 40  # Ticks since the grid's anchor: 66 days at 192 kHz.
cdef int64_t FRAME_DEN_MAX = 1 << 20
cdef int64_t FRAME_NUM_MAX = <int64_t> 1 << 40
cdef object H264 = Codec.H264
cdef object AAC = Codec.AAC
cdef object MAKE_UNIT = make_unit


cdef class Stream:
    """What a chunk stream remembers between chunks: `chunks.ChunkStream`, whose names these are."""

    cdef uint32_t timestamp
    cdef uint32_t delta
    cdef uint32_t field
    cdef bint extended
    cdef Py_ssize_t length
    cdef int kind
    cdef uint32_t stream_id
    cdef Py_ssize_t missing
    cdef Py_ssize_t reserved
    cdef unsigned char head[VIDEO_HEAD]  # The message's first bytes, where they are FLV's own.
    cdef Py_ssize_t head_bytes  # How many those are; the rest goes into `body`.
    cdef Py_ssize_t filled  # Of both.
    cdef bytes body  # None until there is some of it.

    cdef int take(self, const unsigned char *data, Py_ssize_t size) except -1:
        """Add bytes to the message begun. Raises RuntimeError beyond its end."""
        cdef Py_ssize_t count, at
        if size > self.missing or size < 0:
            raise RuntimeError(f"{size} bytes for a message that misses {self.missing}")
        if size == 0:
            return 0
        self.missing -= size
        if self.filled < self.head_bytes:
            count = min(size, self.head_bytes - self.filled)
            memcpy(&self.head[self.filled], data, count)
            self.filled += count
            data += count
            size -= count
            if size == 0:
                return 0
        at = self.filled - self.head_bytes
        if self.body is None:
            self.body = PyBytes_FromStringAndSize(NULL, self.length - self.head_bytes)
        memcpy(PyBytes_AS_STRING(self.body) + at, data, size)
        self.filled += size
        return 0

    cdef bytes so_far(self):
        """The message's bytes that have come."""
        cdef bytes head = PyBytes_FromStringAndSize(
            <char *> self.head, min(self.filled, self.head_bytes)
        )
        if self.body is None:
            return head
        if self.head_bytes == 0 and self.filled == self.length:
            return self.body
        return head + self.body[: self.filled - self.head_bytes]

    cdef void forget(self) noexcept:
        """Nothing of a message is held any longer."""
        self.body = None
        self.filled = 0
        self.missing = 0
        self.reserved = 0

    cdef void begin(self) noexcept:
        """The header is read: make ready for the message's bytes."""
        self.missing = self.reserved = self.length
        self.filled = 0
        self.body = None
        self.head_bytes = 0
        if self.kind == VIDEO and self.length > VIDEO_HEAD:
            self.head_bytes = VIDEO_HEAD
        elif self.kind == AUDIO and self.length > AUDIO_HEAD:
            self.head_bytes = AUDIO_HEAD


cdef class ChunkReader:
    """Turns bytes into whole messages, and usual media messages into access units."""

    cdef object _limits
    cdef bytes _header  # Of a chunk header cut by the end of a piece.
    cdef dict _streams
    cdef Stream _current
    cdef Py_ssize_t _left
    cdef Py_ssize_t _reserved
    cdef bint _interleaved
    cdef Py_ssize_t _message_bytes_max
    cdef Py_ssize_t _buffered_bytes_max
    cdef Py_ssize_t _messages_max
    cdef readonly Py_ssize_t chunk_size
    cdef readonly bint only_units  # Whether all that `receive_data` returned last are units.
    cdef Tracks _tracks

    def __init__(self, limits, state=None):
        if state is None:
            state = ReaderState()
        self._limits = limits
        self._header = bytes(state.header)
        self._streams = {csid: _load(stream) for csid, stream in state.streams.items()}
        self._current = None if state.current is None else self._streams[state.current]
        self._left = state.left
        if self._current is not None and not 0 <= self._left <= self._current.missing:
            raise ValueError(f"a chunk of {self._left} bytes in {self._current.missing} missing")
        self._reserved = state.reserved
        self._interleaved = state.interleaved
        self._messages_max = limits.messages_per_s_max
        self.chunk_size = state.chunk_size
        self._tracks = None
        self.lift()

    def restrict(self, bytes_max):
        """Take no message longer than that, nor begun ones that hold more together."""
        self._message_bytes_max = min(bytes_max, self._limits.message_bytes_max)
        self._buffered_bytes_max = self._message_bytes_max

    def lift(self):
        """Take what the limits allow."""
        self._message_bytes_max = self._limits.message_bytes_max
        self._buffered_bytes_max = self._limits.buffered_bytes_max

    def settle(self):
        """Note in the assembler's state what the units made here have changed of it.

        To be called before anyone reads it or has the assembler go on, but for what `receive_data`
        returned.
        """
        if self._tracks is not None:
            self._tracks.settle()
            self._tracks = None

    def state(self):
        """A copy, in `chunks`' own terms; what was ahead of the assembler is settled."""
        self.settle()
        current = next((csid for csid, s in self._streams.items() if s is self._current), None)
        return ReaderState(
            chunk_size=self.chunk_size,
            header=bytearray(self._header),
            current=current,
            left=self._left,
            reserved=self._reserved,
            interleaved=self._interleaved,
            streams={csid: _dump(stream) for csid, stream in self._streams.items()},
        )

    @property
    def bytes_wanted(self):
        """As `chunks.ChunkReader.bytes_wanted`."""
        cdef Py_ssize_t behind
        if self._current is None:
            return 1
        if self._interleaved:
            return self._left
        behind = self._current.missing - self._left
        return self._left + behind + (behind + self.chunk_size - 1) / self.chunk_size

    def receive_data(self, data, media=None):
        """What `data` completes: messages, and in their place the units of `media`'s tracks.

        `media`: an AssemblerState, in which `settle` notes the units; None makes no units. Raises
        RemoteProtocolError for a broken header and for each limit.
        """
        cdef Py_buffer view
        cdef Py_ssize_t size
        if self._header:
            data = self._header + bytes(data)
            self._header = b""
        if media is None:
            self.settle()
        elif self._tracks is None or self._tracks.media is not media:
            self.settle()
            self._tracks = Tracks(media)
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            size = view.len
            if self._current is not None and size < self._left:  # The usual: nothing ends here.
                self._current.take(<const unsigned char *> view.buf, size)
                self._left -= size
                return []
            try:
                return self._read_chunks(<const unsigned char *> view.buf, size)
            except BaseException:
                self._current = None  # What it said no longer holds; the session is over.
                raise
        finally:
            PyBuffer_Release(&view)

    cdef list _read_chunks(self, const unsigned char *data, Py_ssize_t end):
        cdef list items = []
        cdef Tracks tracks = self._tracks
        cdef Stream stream = self._current
        cdef Py_ssize_t position = 0, stop, begun
        self.only_units = True
        while True:
            if stream is not None:
                stop = position + self._left
                if stop > end:
                    stream.take(data + position, end - position)
                    self._current, self._left = stream, stop - end
                    return items
                stream.take(data + position, self._left)
                if not stream.missing:
                    item = None if tracks is None else tracks.make_unit(stream)
                    if item is None:
                        # The assembler's turn; and of all that follows, which may build on this.
                        self.settle()
                        tracks = None
                        self.only_units = False
                        item = Message(
                            stream.kind, stream.timestamp, stream.stream_id, stream.so_far()
                        )
                    self._finish(stream, item)
                    items.append(item)
                    if len(items) > self._messages_max:
                        raise RemoteProtocolError(
                            f"more than {self._messages_max} messages in one piece"
                        )
                    if self.chunk_size < CHUNK_BYTES_SMALL:
                        self._check_chunks(end - stop)
                position = stop
            if position >= end:
                break
            begun = self._read_header(data, position, end)
            if begun == 0:
                self._header = PyBytes_FromStringAndSize(
                    <const char *> data + position, end - position
                )
                break
            position = begun
            stream = self._current
        self._current = None
        return items

    cdef int _check_chunks(self, Py_ssize_t size) except -1:
        if size > self._messages_max * self.chunk_size:
            raise RemoteProtocolError(
                f"more than {self._messages_max} chunks of {self.chunk_size} bytes in one piece"
            )
        return 0

    cdef int _finish(self, Stream stream, item) except -1:
        """Let go of the message that was whole; what it says of chunks takes effect."""
        self._reserved -= stream.reserved
        stream.forget()
        if stream.kind == SET_CHUNK_SIZE:
            self._set_chunk_size(item)
        elif stream.kind == ABORT:
            self._abort(item)
        return 0

    cdef int _set_chunk_size(self, message) except -1:
        value = u32_of(message, "set chunk size")
        if not 1 <= value < 2**31:  # §5.4.1: the top bit is zero.
            raise RemoteProtocolError(f"chunk size {value} is not in 1..2147483647")
        self.chunk_size = min(value, CHUNK_BYTES_MAX)
        return 0

    cdef int _abort(self, message) except -1:
        """Forget the message begun on the named chunk stream (§5.4.2)."""
        cdef Stream stream = self._streams.get(u32_of(message, "abort"))
        if stream is not None:
            self._reserved -= stream.reserved
            stream.forget()
        return 0

    cdef Py_ssize_t _read_header(
        self, const unsigned char *data, Py_ssize_t position, Py_ssize_t end
    ) except -1:
        """Read a chunk header and make its stream current.

        Returns where the payload begins; 0, having changed nothing, when the header is cut short.
        """
        cdef int fmt = data[position] >> 6
        cdef Py_ssize_t csid = data[position] & 0x3F, after
        cdef const unsigned char *head
        cdef uint32_t field, value
        cdef bint extended
        cdef Stream stream
        if csid >= 2:
            position += 1
        else:
            after = position + 2 + csid
            if after > end:
                return 0
            csid = 64 + data[position + 1] + (256 * data[position + 2] if csid == 1 else 0)
            position = after
        after = position + (11 if fmt == 0 else 7 if fmt == 1 else 3 if fmt == 2 else 0)
        if after > end:
            return 0
        found = self._streams.get(csid)
        stream = found if found is not None else self._new_stream(csid, fmt)
        head = data + position
        if fmt == CONTINUE:
            field, extended = stream.field, stream.extended
        else:
            field = <uint32_t> head[0] << 16 | <uint32_t> head[1] << 8 | head[2]
            extended = field == EXTENDED
        if extended:
            if after + 4 > end:
                return 0
            value = _u32(data + after)
            if fmt != CONTINUE or value == field:
                field = value
                after += 4
            # Else the sender does not repeat it, as some encoders do not: these are payload.
        stream.field, stream.extended = field, extended
        if not stream.missing:
            self._begin(stream, csid, fmt, head)
        elif fmt != CONTINUE:
            raise RemoteProtocolError(
                f"chunk of fmt {fmt} on chunk stream {csid} inside a message, "
                f"{stream.missing} bytes before its end"
            )
        if found is None:
            self._streams[csid] = stream
        self._current = stream
        self._left = min(self.chunk_size, stream.missing)
        return after

    cdef Stream _new_stream(self, Py_ssize_t csid, int fmt):
        if fmt > 1:  # librtmp begins its control stream with fmt 1.
            raise RemoteProtocolError(f"chunk stream {csid} begins with fmt {fmt}")
        if len(self._streams) >= self._limits.chunk_streams_max:
            raise RemoteProtocolError(
                f"chunk stream {csid} is one more than {self._limits.chunk_streams_max}"
            )
        return Stream()

    cdef int _begin(self, Stream s, Py_ssize_t csid, int fmt, const unsigned char *head) except -1:
        """A new message begins on the stream: its header, and whether we can hold it."""
        if fmt <= 1:
            s.length = <Py_ssize_t> head[3] << 16 | <Py_ssize_t> head[4] << 8 | head[5]
            s.kind = head[6]
        if fmt == 0:
            s.stream_id = (
                <uint32_t> head[10] << 24 | <uint32_t> head[9] << 16
                | <uint32_t> head[8] << 8 | head[7]
            )
            s.timestamp = s.field
            # §5.3.1.2.4: fmt 3 after fmt 0 adds the timestamp itself; but none steps 4 h 39 m.
            s.delta = 0 if s.extended else s.field
        else:
            if fmt != CONTINUE:
                s.delta = s.field
            s.timestamp = s.timestamp + s.delta
        if s.length > self._message_bytes_max:
            raise RemoteProtocolError(
                f"message of {s.length} bytes on chunk stream {csid} exceeds "
                f"{self._message_bytes_max}"
            )
        if self._reserved:
            self._interleaved = True
        s.begin()
        self._reserved += s.length
        if self._reserved > self._buffered_bytes_max:
            raise RemoteProtocolError(
                f"messages begun hold {self._reserved} bytes, more than {self._buffered_bytes_max}"
            )
        return 0


cdef inline uint32_t _u32(const unsigned char *data) noexcept:
    return (
        <uint32_t> data[0] << 24 | <uint32_t> data[1] << 16 | <uint32_t> data[2] << 8 | data[3]
    )


cdef Stream _load(state):
    cdef Stream stream = Stream()
    cdef bytes body = bytes(state.body)
    stream.timestamp, stream.delta, stream.field = state.timestamp, state.delta, state.field
    stream.extended, stream.length, stream.kind = state.extended, state.length, state.kind
    stream.stream_id = state.stream_id
    if state.missing:
        if len(body) + state.missing != stream.length or state.missing < 0:
            raise ValueError(f"{len(body)} and {state.missing} bytes are no {stream.length}")
        stream.begin()
        stream.take(<const unsigned char *> PyBytes_AS_STRING(body), PyBytes_GET_SIZE(body))
    stream.reserved = state.reserved
    return stream


cdef object _dump(Stream stream):
    return ChunkStream(
        timestamp=stream.timestamp,
        delta=stream.delta,
        field=stream.field,
        extended=stream.extended,
        length=stream.length,
        kind=stream.kind,
        stream_id=stream.stream_id,
        missing=stream.missing,
        reserved=stream.reserved,
        body=bytearray(stream.so_far()) if stream.missing else bytearray(),
    )


include "fast_units.pxi"
