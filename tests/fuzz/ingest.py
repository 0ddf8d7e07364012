"""Fuzz targets of ingest: AMF, FLV and Enhanced RTMP tags, codec records, whole RTMP sessions."""

import contextlib
import functools
import random
from collections.abc import Callable, Sequence
from pathlib import Path

from edged.errors import EdgedError
from edged.ingest.plugin import Publication
from edged.media import aac, av1, h264, h265, opus, vp9
from edged.media.access_unit import AccessUnit
from edged.media.stream import Grant, StreamId
from edged.media.track import Codec, CodecConfig, Track
from edged.origin.packager import Packager
from edged.policy.segment_rule import SegmenterConfig
from edged.runtime.hub import LiveStream
from edged.wire.cmaf.init import make_init
from edged.wire.rtmp import (
    PublishRequested,
    RtmpServerSession,
    ServerEvent,
    TrackAnnounced,
    amf0,
    flv,
    is_compiled,
    use_compiled,
)
from edged.wire.rtmp import messages as m
from edged.wire.rtmp.chunks import ChunkReader, ChunkWriter
from edged.wire.rtmp.limits import RtmpLimits
from edged.wire.rtmp.reader import HAS_FAST
from tests.fuzz.script import Script, Target, block, in_pieces
from tests.wire.rtmp.peers import H264_CONFIG, OPUS_CONFIG, entropy
from tests.wire.rtmp.twins import TwinSessions

CAPTURE = Path(__file__).parents[1] / "captures" / "ffmpeg-h264-aac.rtmp"
HANDSHAKE_BYTES = 1 + 2 * 1536
CONFIGS: dict[Codec, Callable[[bytes], CodecConfig]] = {
    Codec.H264: h264.parse_config,
    Codec.H265: h265.parse_config,
    Codec.AV1: av1.parse_config,
    Codec.VP9: vp9.parse_config,
    Codec.AAC: aac.parse_config,
    Codec.OPUS: opus.parse_config,
}
RANDOM_ACCESS: dict[Codec, Callable[[bytes], bool]] = {
    Codec.H264: h264.is_random_access,
    Codec.H265: h265.is_random_access,
    Codec.AV1: av1.is_random_access,
    Codec.VP9: vp9.is_random_access,
}
CODECS = list(CONFIGS)


@functools.cache
def captured() -> list[m.Message]:
    """What ffmpeg said after the handshake: commands, then two seconds of media."""
    reader = ChunkReader(RtmpLimits())
    data = CAPTURE.read_bytes()[HANDSHAKE_BYTES:]
    return [
        m.Message(one.kind, one.timestamp, one.stream_id, bytes(one.body))
        for one in reader.receive_data(data)
    ]


@functools.cache
def _prologue() -> list[m.Message]:
    """Of it, what comes before the media."""
    kinds = [message.kind in m.MEDIA for message in captured()]
    return captured()[: kinds.index(True)]


# A decoder configuration of each codec, as encoders of today make it: x264, x265, SVT-AV1, libvpx,
# FFmpeg's AAC encoder, libopus.
RECORDS: dict[Codec, bytes] = {
    Codec.H264: H264_CONFIG.record,
    Codec.H265: bytes.fromhex(
        "0101600000009000000000001ef000fcfdf8f800000f03a00001001840010c01ffff01600000030090000003"
        "000003001e959809a10001002942010101600000030090000003000003001ea02083165959ae4caf01680800"
        "0003000800000300f040a2000100064401c173d089"
    ),
    Codec.AV1: bytes.fromhex("81000c000a0a00000002aff7895f2008"),
    Codec.VP9: bytes.fromhex("01000000000a820202020000"),
    Codec.AAC: bytes.fromhex("119056e500"),
    Codec.OPUS: OPUS_CONFIG.record,
}


@functools.cache
def frames() -> dict[Codec, bytes]:
    """The first picture of each video codec, as its track carries it."""
    return {
        Codec.H264: next(
            bytes(one.body)[5:]
            for one in captured()
            if one.kind == m.VIDEO and bytes(one.body[:2]) == b"\x17\x01"
        ),
        Codec.H265: bytes([0, 0, 0, 4, 38, 1, 0x80, 0]),
        Codec.AV1: bytes.fromhex(
            "12000a0a00000002aff7895f2008322d1000968010408200000086c0cf6b148f9584f145e5e7ccf267e2d6"
            "2aedb03f92b5dc8cfe664a947e68ab143bcc"
        ),
        Codec.VP9: bytes.fromhex(
            "824983420003f002f60038241c184a000030600000673fffff3d8bd3e19a12a2e45a19ffffffff3ec02a54"
            "9fffffff9f601529bf798f78da668fe7197f8793f91a48"
        ),
    }


# AMF.


def run_amf(data: bytes) -> int:
    """Decode the body of a command or of metadata."""
    with contextlib.suppress(EdgedError):
        amf0.decode(data)
    return 0


def amf_seeds() -> Sequence[bytes]:
    """The commands and metadata of ffmpeg, and a nest."""
    nest = b"\x03\0\1a" * 20 + b"\5" + b"\0\0\x09" * 20
    return [*(bytes(o.body) for o in captured() if o.kind in m.VALUES), nest, b"\x0a\0\0\0\1\5"]


# FLV tags.


def run_flv(data: bytes) -> int:
    """Parse one message as video or audio, and each configuration in it."""
    parse = flv.parse_audio if data[:1] > b"\x7f" else flv.parse_video
    with contextlib.suppress(EdgedError):
        for packet in parse(data[1:]):
            if packet.codec is not None:
                CONFIGS[packet.codec](bytes(packet.payload))
    return 0


def flv_seeds() -> Sequence[bytes]:
    """Of each codec a configuration and a frame, single and multitrack, with nanoseconds."""
    seeds = []
    for codec, record in RECORDS.items():
        side = b"\0" if codec.kind == "video" else b"\x80"
        made = [flv.make_config(codec, record, track, enhanced=True) for track in (0, 1, 3)]
        seeds += [side + config for config in made]
        seeds.append(side + flv.make_config(codec, record))
    media = [one for one in captured() if one.kind in m.MEDIA]
    seeds += [_side(one) + bytes(one.body) for one in media[:6]]
    seeds.append(b"\0\x96\x00avc1\x00" + bytes.fromhex("000000000141"))  # One track.
    seeds.append(b"\0\x96\x10avc1\x00\0\0\5\0\0\0\1A\x01\0\0\5\0\0\0\1A")  # Many of one codec.
    seeds.append(b"\0\x96\x20hvc1\x00\0\0\5\0\0\0\1Aavc1\x01\0\0\5\0\0\0\1A")  # Many of many.
    seeds.append(b"\0\x97\x02\0\x01\x00\x11avc1\0\0\0\0\0\0\1A")  # ModEx.
    return seeds


def _side(message: m.Message) -> bytes:
    """The byte by which `run_flv` tells video from audio."""
    return b"\0" if message.kind == m.VIDEO else b"\x80"


# Codec records.


def run_codecs(data: bytes) -> int:
    """A record of one codec, to its init segment; or a frame looked at for random access."""
    if not data:
        return 0
    codec = CODECS[data[0] % len(CODECS)]
    if data[0] & 0x80:
        look = RANDOM_ACCESS.get(codec)
        with contextlib.suppress(EdgedError):
            if codec is Codec.AAC:
                aac.strip_adts(data[1:])
            elif codec is Codec.OPUS:
                opus.packet_duration(data[1:])
            elif codec is Codec.AV1:
                av1.strip_temporal_delimiters(data[1:])
        with contextlib.suppress(EdgedError):
            if look is not None:
                look(data[1:])
        return 0
    try:
        config = CONFIGS[codec](data[1:])
        timescale = 90_000 if codec.kind == "video" else config.sample_rate
        track = Track(track_id=1, codec=codec, timescale=timescale, config=config)
        return len(make_init(track))
    except EdgedError:
        return 0


def codec_seeds() -> Sequence[bytes]:
    """A record and a picture of each."""
    seeds = [bytes([CODECS.index(codec)]) + record for codec, record in RECORDS.items()]
    seeds += [bytes([0x80 + CODECS.index(codec)]) + frame for codec, frame in frames().items()]
    return seeds


# Whole sessions.

KINDS = (
    *(m.VIDEO, m.VIDEO, m.AUDIO, m.COMMAND_AMF0, m.DATA_AMF0, m.SET_CHUNK_SIZE, m.ABORT),
    *(m.ACKNOWLEDGEMENT, m.USER_CONTROL, m.WINDOW_ACKNOWLEDGEMENT_SIZE, m.SET_PEER_BANDWIDTH),
    *(m.AGGREGATE, m.COMMAND_AMF3, m.DATA_AMF3, m.SHARED_OBJECT_AMF0, 99),
)
VIDEO_INDEX, AUDIO_INDEX = KINDS.index(m.VIDEO), KINDS.index(m.AUDIO)
OPS = 6
OP_MESSAGE, OP_CAPTURED, OP_RAW, OP_TIME, OP_SPOILT, OP_MEDIA = range(OPS)
CONFIG, KEY = 8, 16  # Flags of OP_MEDIA; 1 is an enhanced header.


class RtmpRun:
    """One session that a script drives; with a packager behind it, as in the network."""

    def __init__(self, data: bytes, *, packaged: bool) -> None:
        self.script = Script(data)
        self.now = 0.0
        self.core = self.make_core()
        self.writer = ChunkWriter(128)
        self.out = 0
        self.piece = 1 + self.script.below(65536)
        self.timestamp = 0
        self.publication: Publication | None = None
        self.packager: Packager | None = None
        self.packaged = packaged

    def make_core(self) -> RtmpServerSession | TwinSessions:
        """The core in Python: coverage guides a fuzzer there."""
        compiled = is_compiled()
        use_compiled(False)
        core = RtmpServerSession(now=0.0, entropy=entropy)
        use_compiled(compiled)
        return core

    def run(self) -> int:
        """Play the script to its end, or to the session's."""
        flags = self.script.number()
        try:
            self._feed(CAPTURE.read_bytes()[:HANDSHAKE_BYTES] if flags & 1 else b"")
            if flags & 2:
                for message in _prologue():
                    self._send(message)
            while not self.script.done:
                self._step()
        except EdgedError as error:
            self.core.close("NetStream.Publish.Failed", str(error))
            self._collect()
        if self.packager is not None:
            self.packager.close("the script is over")
        return self.out

    def _step(self) -> None:
        script = self.script
        choice = script.number()
        kind, flags = choice % OPS, choice // OPS
        known = captured()
        if kind == OP_MESSAGE:
            what = KINDS[script.below(len(KINDS))]
            self._send(m.Message(what, self._time(), flags >> 4, script.block()), 2 + flags % 8)
        elif kind == OP_CAPTURED:
            self._send(known[script.number(2) % len(known)])
        elif kind == OP_RAW:
            self._feed(script.block())
        elif kind == OP_TIME:
            self.now += script.number(2) / 256
            self._take(self.core.handle_timeout(self.now))
            assert self.core.deadline > self.now, "a timeout is never in the past"
        elif kind == OP_SPOILT:
            message = known[script.number(2) % len(known)]
            body = bytearray(message.body)
            for _ in range(1 + flags % 4):
                at = script.number(2) % (len(body) or 1)
                body[at : at + script.below(4)] = script.take(script.below(4))
            self._send(m.Message(message.kind, self._time(), message.stream_id, bytes(body)))
        else:
            self._send_media(CODECS[script.below(len(CODECS))], flags)

    def _send_media(self, codec: Codec, flags: int) -> None:
        """A configuration or a frame of any codec on any track."""
        track = self.script.below(4)
        kind = m.VIDEO if codec.kind == "video" else m.AUDIO
        if flags & CONFIG:
            body = flv.make_config(codec, RECORDS[codec], track, enhanced=bool(flags & 1))
        else:
            payload = frames().get(codec, b"\xfc") if flags & KEY else self.script.block()
            body = flv.make_frames(
                codec, payload, key=bool(flags & KEY), track=track, enhanced=bool(flags & 1)
            )
        self._send(m.Message(kind, self._time(), 1, body))

    def _time(self) -> int:
        change = self.script.number()
        if change < 250:
            self.timestamp += change
        else:
            self.timestamp = self.script.number(4)  # It jumps.
        self.timestamp &= 0xFFFFFFFF
        return self.timestamp

    def _send(self, message: m.Message, csid: int = 4) -> None:
        self._feed(b"".join(self.writer.write(csid, message)))
        if message.kind == m.SET_CHUNK_SIZE and len(message.body) >= 4:
            size = int.from_bytes(message.body[:4], "big") & 0x7FFFFFFF
            self.writer.chunk_size = max(1, min(size, 0xFFFFFF))

    def _feed(self, data: bytes) -> None:
        for piece in in_pieces(data, max(self.piece, len(data) // 64)):
            self._take(self.core.receive_data(memoryview(bytearray(piece)), self.now))

    def _take(self, events: list[ServerEvent]) -> None:
        self._collect()
        for event in events:
            if isinstance(event, PublishRequested):
                self._begin()
                self._take(self.core.accept_publish(self.now))
            elif self.publication is None:
                continue
            elif isinstance(event, TrackAnnounced):
                self.publication.set_track(event.track)
            elif isinstance(event, AccessUnit):
                self.publication.append([event])

    def _begin(self) -> None:
        if not self.packaged:
            return
        stream = LiveStream(StreamId("a", 1), Grant(channel="a"), started_at=0.0, came_from="fuzz")
        self.publication = Publication(
            stream, wallclock_us=lambda: int(self.now * 1e6) + 1, close=lambda *_: None
        )
        packager = self.packager = Packager(stream, SegmenterConfig(), lambda _: None)

        def wake(_: LiveStream) -> None:
            packager.wake()
            packager.progress()

        stream.watch(wake)

    def _collect(self) -> None:
        self.out += len(self.core.data_to_send())
        self.core.statistics()


def run_rtmp(data: bytes) -> int:
    """The session's core alone: twice as fast."""
    return RtmpRun(data, packaged=False).run()


class TwinRun(RtmpRun):
    """The same with the compiled core beside it, of which nothing may differ."""

    def make_core(self) -> RtmpServerSession | TwinSessions:
        return TwinSessions()


def run_twins(data: bytes) -> int:
    """The core in Python and the compiled one; only the former where there is no other."""
    return (TwinRun if HAS_FAST else RtmpRun)(data, packaged=False).run()


def run_packaged(data: bytes) -> int:
    """The core, the hub and the packager."""
    return RtmpRun(data, packaged=True).run()


def rtmp_seeds() -> Sequence[bytes]:
    """A stranger; a publisher of the capture; all codecs on several tracks; leaps in time."""
    places = range(len(_prologue()), len(captured()))
    media = b"".join(op(OP_CAPTURED) + at.to_bytes(2, "big") for at in places)
    tracks = [(index, track) for track in (0, 1) for index in range(len(CODECS))]
    configs = [op(OP_MEDIA, CONFIG | 1) + bytes([*place, 5]) for place in tracks]
    picture = op(OP_MEDIA, KEY | 1)
    round_of = b"".join(picture + bytes([*place, 33]) for place in tracks)
    raw = CAPTURE.read_bytes()
    pieces = in_pieces(raw[HANDSHAKE_BYTES:][:3000], 700)
    rng = random.Random(1)  # noqa: S311 - seeds are the same in every run
    many = (
        (b"\x96\x10avc1\x00\0\0\5\0\0\0\1A\x01\0\0\5\0\0\0\1A", VIDEO_INDEX),
        (b"\x96\x20hvc1\x00\0\0\5\0\0\0\1Aavc1\x01\0\0\5\0\0\0\1A", VIDEO_INDEX),
        (b"\x97\x02\0\x01\x00\x11avc1\0\0\0\0\0\0\1A", VIDEO_INDEX),
        (b"\x95\x11Opus\x00\0\0\1\xfc\x01\0\0\1\xfc", AUDIO_INDEX),
    )
    multitrack = b"".join(
        op(OP_MESSAGE, 16) + bytes([kind, 33]) + block(body) for body, kind in many * 3
    )
    leaps = b"".join(picture + bytes([0, 0, 255]) + rng.randbytes(4) for _ in range(40))
    one = len(configs) // 2
    return [
        b"\xff\xff\x01" + b"".join(op(OP_RAW) + block(piece) for piece in pieces),
        b"\x00\x40\x03" + media,
        *(b"\x10\x00\x03" + config + round_of * 4 for config in configs),
        b"\x10\x00\x03" + b"".join(configs) + round_of * 40,
        b"\x10\x00\x03" + configs[0] + configs[one - 2] + leaps,
        b"\x10\x00\x03" + configs[0] + configs[one] + configs[one - 1] + multitrack,
        b"\x00\x00\x00" + op(OP_RAW) + block(raw[:1600]),
        b"\x10\x00\x03" + media[:60] + (op(OP_TIME) + b"\x1e\0") * 3,
    ]


def op(kind: int, flags: int = 0) -> bytes:
    """One step's first byte."""
    return bytes([kind + OPS * flags])


TARGETS = [
    Target(name="amf", run=run_amf, seeds=amf_seeds),
    Target(name="flv", run=run_flv, seeds=flv_seeds),
    Target(name="codecs", run=run_codecs, seeds=codec_seeds),
    Target(name="rtmp", run=run_rtmp, seeds=rtmp_seeds),
    Target(name="twins", run=run_twins, seeds=rtmp_seeds),
    Target(name="packaged", run=run_packaged, seeds=rtmp_seeds),
]
