"""The publisher's side of an RTMP connection, sans-IO: for `edged publish` and for tests.

It can behave as OBS does (4096-byte chunks, whatever the server says) or as ffmpeg does (128-byte
chunks until the server sends Set Chunk Size, which it mirrors).
"""

import enum
from collections.abc import Callable
from math import inf

import msgspec
from msgspec import Struct

from edged.errors import RemoteProtocolError
from edged.media import opus
from edged.media.access_unit import AccessUnit
from edged.media.timing import rescale
from edged.media.track import Codec, Kind, Track
from edged.wire.rtmp import amf0, flv, replies
from edged.wire.rtmp import messages as m
from edged.wire.rtmp.amf0 import AmfValue, EcmaArray
from edged.wire.rtmp.chunks import CHUNK_BYTES_DEFAULT, ChunkReader, ChunkWriter
from edged.wire.rtmp.events import (
    ClientEvent,
    Closed,
    PeerTimedOut,
    PublishAccepted,
    PublishRefused,
    ReconnectRequested,
)
from edged.wire.rtmp.handshake import ClientHandshake
from edged.wire.rtmp.limits import RtmpLimits
from edged.wire.rtmp.messages import Command, Message
from edged.wire.rtmp.url import RtmpUrl

ACCEPT_TIMEOUT_S = 15.0  # From the connection to NetStream.Publish.Start; a PoP routes in between.
OBS_CHUNK_BYTES = 4096
_CONTROL, _COMMANDS, _MEDIA, _PUBLISH = 2, 3, 4, 8  # librtmp's chunk stream ids.
_MS = 1000


class Step(enum.IntEnum):
    """What we wait for."""

    HANDSHAKE = 0
    CONNECT = 1
    CREATE = 2
    START = 3
    PUBLISHING = 4
    CLOSED = 5


class RtmpClientOptions(Struct, frozen=True, kw_only=True):
    """How the client behaves."""

    chunk_size: int = OBS_CHUNK_BYTES
    mirror_chunk_size: bool = False
    handshake_scheme: int | None = None  # 0 or 1: with a digest.
    flash_ver: str = "FMLE/3.0 (compatible; edged)"
    enhanced: bool = False  # FourCC headers also for H.264 and AAC.
    amf3_commands: bool = False  # Commands in the AMF3 wrapper (type 17).
    reconnects: bool = True  # It says that it can be asked to reconnect.


FFMPEG_LIKE = RtmpClientOptions(
    chunk_size=CHUNK_BYTES_DEFAULT,
    mirror_chunk_size=True,
    handshake_scheme=1,
    flash_ver="FMLE/3.0 (compatible; Lavf)",
    reconnects=False,
)


class RtmpClientStatistics(Struct):
    """Counters of one session."""

    sent_bytes: int = 0
    received_bytes: int = 0
    units: int = 0
    acknowledged_bytes: int = 0  # As the server says.


class RtmpClientSession:
    """One broadcast to a server."""

    def __init__(
        self,
        *,
        now: float,
        entropy: Callable[[int], bytes],
        url: RtmpUrl,
        options: RtmpClientOptions | None = None,
    ) -> None:
        self._url = url
        self._options = options if options is not None else RtmpClientOptions()
        self._step = Step.HANDSHAKE
        self._deadline = now + ACCEPT_TIMEOUT_S
        self._handshake = ClientHandshake(now, entropy, self._options.handshake_scheme)
        self._reader = ChunkReader(RtmpLimits())
        self._writer = ChunkWriter()
        self._out: list[bytes] = [self._handshake.first()]
        self._transaction = 0
        self._stream_id = 0
        self._window = 0  # 0: the server wants no acks.
        self._acknowledged = 0
        self._counters = RtmpClientStatistics()
        self._tracks: dict[int, int] = {}  # Track id -> number on the wire, by kind.

    @property
    def step(self) -> Step:
        """How far the session is."""
        return self._step

    @property
    def queued_bytes(self) -> int:
        """Bytes that wait for data_to_send: whoever sends units keeps an eye on it."""
        return sum(map(len, self._out))

    def statistics(self) -> RtmpClientStatistics:
        """The counters as they are now."""
        return msgspec.structs.replace(self._counters)

    def receive_data(
        self,
        data: bytes | memoryview,
        now: float,  # noqa: ARG002 (the verb has it in every core)
    ) -> list[ClientEvent]:
        """Take bytes from the server. Raises RemoteProtocolError; the session is over then."""
        if self._step is Step.CLOSED:
            return []
        if self._step is Step.HANDSHAKE:
            answer, data = self._handshake.receive_data(data)
            if answer:
                self._out.append(answer)
            if not self._handshake.done:
                return []
            self._connect()
        self._counters.received_bytes += len(data)
        messages = self._reader.receive_data(data)
        received = self._counters.received_bytes
        if self._window and received - self._acknowledged >= self._window:
            self._acknowledged = received
            self._send_u32(m.ACKNOWLEDGEMENT, received & 0xFFFFFFFF)
        events: list[ClientEvent] = []
        for message in messages:
            if self.step is not Step.CLOSED:  # A message before may have ended it.
                self._receive_message(message, events)
        return events

    def data_to_send(self) -> bytes:
        """What is to be written to the server now."""
        return b"".join(self.chunks_to_send())

    def chunks_to_send(self) -> list[bytes]:
        """The same, chunk by chunk: OBS sends each alone, so under TLS each is a record."""
        chunks, self._out = self._out, []
        self._counters.sent_bytes += sum(map(len, chunks))
        return chunks

    def next_timeout(self) -> float:
        """When handle_timeout is due; infinite once the broadcast is accepted."""
        return self._deadline

    def handle_timeout(self, now: float) -> list[ClientEvent]:
        """A server that has not answered by then is given up."""
        if now < self._deadline:
            return []
        waited_for = self._step.name.lower()
        self._end()
        return [PeerTimedOut(f"no answer to {waited_for} within {ACCEPT_TIMEOUT_S} s")]

    def send_metadata(self, values: dict[str, AmfValue]) -> None:
        """onMetaData: `framerate`, `width`, `encoder` and so on."""
        body = amf0.encode(["@setDataFrame", "onMetaData", EcmaArray(values)])
        self._send(_MEDIA, m.DATA_AMF0, body, self._stream_id)

    def send_track(self, track: Track, dts: int = 0) -> None:
        """The track's configuration, first and whenever it changes, at `dts` of the track."""
        assert self._step is Step.PUBLISHING, "the server has accepted"
        if track.track_id not in self._tracks:
            same = [i for i in self._tracks.values() if i % 2 == (track.kind is Kind.AUDIO)]
            self._tracks[track.track_id] = 2 * len(same) + (track.kind is Kind.AUDIO)
        record = track.config.record
        if track.codec is Codec.OPUS:
            record = opus.head_from_dops(record)
        body = flv.make_config(
            track.codec,
            record,
            self._tracks[track.track_id] // 2,
            enhanced=self._options.enhanced,
        )
        self._send_media(track, body, _milliseconds(dts, track))

    def send_unit(self, unit: AccessUnit, track: Track, *, nano: int = 0) -> None:
        """An access unit of a track that send_track has announced."""
        assert self._step is Step.PUBLISHING, "the server has accepted"
        dts_ms = _milliseconds(unit.dts, track)
        body = flv.make_frames(
            track.codec,
            unit.payload,
            key=unit.random_access,
            composition_ms=_milliseconds(unit.pts, track) - dts_ms,
            track=self._tracks[track.track_id] // 2,
            nano=nano,
            enhanced=self._options.enhanced,
        )
        self._counters.units += 1
        self._send_media(track, body, dts_ms)

    def close(self) -> None:
        """End the broadcast in good order; then the shell writes what is queued and closes."""
        if self._step is Step.PUBLISHING:
            self._call("FCUnpublish", [None, self._url.stream_key])
            self._call("deleteStream", [None, float(self._stream_id)])
        self._end()

    def _end(self) -> None:
        self._step = Step.CLOSED
        self._deadline = inf

    def _connect(self) -> None:
        options = self._options
        if options.chunk_size != CHUNK_BYTES_DEFAULT:
            self._send_u32(m.SET_CHUNK_SIZE, options.chunk_size)
            self._writer.chunk_size = options.chunk_size
        self._step = Step.CONNECT
        codecs: list[AmfValue] = [*flv.VIDEO_FOURCCS, *flv.AUDIO_FOURCCS]
        caps = replies.CAPS_MULTITRACK | replies.CAPS_MODEX
        if options.reconnects:
            caps |= replies.CAPS_RECONNECT
        self._call(
            "connect",
            [
                {
                    "app": self._url.app,
                    "type": "nonprivate",
                    "flashVer": options.flash_ver,
                    "tcUrl": self._url.tc_url,
                    "fourCcList": codecs,
                    "capsEx": float(caps | replies.CAPS_NANO),
                }
            ],
        )

    def _receive_message(self, message: Message, events: list[ClientEvent]) -> None:
        match message.kind:
            case m.SET_CHUNK_SIZE if self._options.mirror_chunk_size:
                self._send_u32(m.SET_CHUNK_SIZE, self._reader.chunk_size)
                self._writer.chunk_size = self._reader.chunk_size
            case m.WINDOW_ACKNOWLEDGEMENT_SIZE:
                self._window = m.u32_of(message, "window ack size") // 2
            case m.SET_PEER_BANDWIDTH:
                window = m.u32_of(message, "set peer bandwidth")
                self._send_u32(m.WINDOW_ACKNOWLEDGEMENT_SIZE, window)
            case m.ACKNOWLEDGEMENT:
                self._counters.acknowledged_bytes = m.u32_of(message, "acknowledgement")
            case m.USER_CONTROL if bytes(message.body[:2]) == m.PING_REQUEST.to_bytes(2, "big"):
                answer = m.PING_RESPONSE.to_bytes(2, "big") + bytes(message.body[2:6])
                self._send(_CONTROL, m.USER_CONTROL, answer)
            case m.COMMAND_AMF0 | m.COMMAND_AMF3:
                self._receive_command(m.decode_command(message), events)

    def _receive_command(self, command: Command, events: list[ClientEvent]) -> None:
        if command.name == "onStatus":
            self._receive_status(command.members(1), events)
        elif command.name == "_error" and command.transaction_id == self._transaction:
            self._refused(command.members(1), events)
        elif command.name == "_result" and command.transaction_id == self._transaction:
            if self._step is Step.CONNECT:
                self._step = Step.CREATE
                self._call("releaseStream", [None, self._url.stream_key])
                self._call("FCPublish", [None, self._url.stream_key])
                self._call("createStream", [None])
            elif self._step is Step.CREATE:
                stream_id = command.arguments[1] if len(command.arguments) > 1 else None
                if not isinstance(stream_id, float) or not 0 < stream_id < 2**32:
                    raise RemoteProtocolError(f"createStream gave the stream id {stream_id!r}")
                self._stream_id = int(stream_id)
                self._step = Step.START
                self._call("publish", [None, self._url.stream_key, "live"], self._stream_id)

    def _receive_status(self, info: dict[str, AmfValue], events: list[ClientEvent]) -> None:
        code = str(info.get("code", ""))
        description = str(info.get("description", ""))
        if code == "NetConnection.Connect.ReconnectRequest":
            tc_url = info.get("tcUrl")
            events.append(
                ReconnectRequested(tc_url if isinstance(tc_url, str) else "", description)
            )
        elif code == "NetStream.Publish.Start" and self._step is Step.START:
            self._step = Step.PUBLISHING
            self._deadline = inf
            events.append(PublishAccepted())
        elif info.get("level") == "error":
            if self._step is Step.PUBLISHING:
                self._end()
                events.append(Closed(code, description))
            else:
                self._refused(info, events)

    def _refused(self, info: dict[str, AmfValue], events: list[ClientEvent]) -> None:
        self._end()
        events.append(PublishRefused(str(info.get("code", "")), str(info.get("description", ""))))

    def _call(self, name: str, values: list[AmfValue], stream_id: int = 0) -> None:
        self._transaction += 1
        body = m.encode_command(name, self._transaction, values)
        csid = _PUBLISH if stream_id else _COMMANDS
        if self._options.amf3_commands:
            self._send(csid, m.COMMAND_AMF3, b"\0" + body, stream_id)
        else:
            self._send(csid, m.COMMAND_AMF0, body, stream_id)

    def _send_u32(self, kind: int, value: int) -> None:
        self._send(_CONTROL, kind, value.to_bytes(4, "big"))

    def _send_media(self, track: Track, body: bytes, timestamp: int) -> None:
        kind = m.AUDIO if track.kind is Kind.AUDIO else m.VIDEO
        self._send(_MEDIA, kind, body, self._stream_id, timestamp & 0xFFFFFFFF)

    def _send(
        self, csid: int, kind: int, body: bytes, stream_id: int = 0, timestamp: int = 0
    ) -> None:
        self._out += self._writer.write(csid, Message(kind, timestamp, stream_id, body))


def _milliseconds(ticks: int, track: Track) -> int:
    return rescale(ticks, track.timescale, _MS)
