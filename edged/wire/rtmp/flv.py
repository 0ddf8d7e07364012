"""The bodies of audio and video messages: FLV tags, legacy and Enhanced RTMP v1 and v2.

Legacy video (FLV 10.1 §E.4.3): 4 bits frame type, 4 bits codec, u8 packet type, s24 composition
time. Legacy audio (§E.4.2): 4 bits format, 4 bits of rate and shape, for AAC u8 packet type.
Enhanced video: 1 bit 1, 3 bits frame type, 4 bits packet type; enhanced audio: 4 bits 9, 4 bits
packet type. Then {ModEx: u8 size - 1 (255: u16 size - 1), data, 4 bits its type, 4 bits packet
type}*, with Multitrack 4 bits its kind, 4 bits packet type, then FourCC, and with Multitrack by its
kind {[FourCC], u8 track, [u24 size], body}*. A coded frame of avc1 and hvc1 begins with the s24
composition time.
"""

import enum

from msgspec import Struct

from edged.errors import RemoteProtocolError, UnsupportedMediaError
from edged.media.track import Codec
from edged.wire.rtmp.messages import Body

LEGACY_AVC = 7
LEGACY_HEVC = 12  # Not in any specification; encoders of some makers send it.
LEGACY_AAC = 10
AUDIO_EX = 9  # Sound format that announces an enhanced header.
FRAME_KEY = 1
FRAME_COMMAND = 5  # A seek mark: no media.
MODEX_MAX = 4  # One is defined; each costs the sender at least three bytes.
NANO_MAX = 999_999  # A millisecond's worth.
TRACKS_PER_MESSAGE_MAX = 32  # A body may name a track twice; it may not go on for ever.

_EX_VIDEO = 0x80
_LEGACY_VIDEO = {LEGACY_AVC: Codec.H264, LEGACY_HEVC: Codec.H265}
_FOURCC = {
    "video": {
        b"avc1": Codec.H264,
        b"hvc1": Codec.H265,
        b"av01": Codec.AV1,
        b"vp09": Codec.VP9,
    },
    "audio": {b"mp4a": Codec.AAC, b"Opus": Codec.OPUS},
}
_FOURCC_OF = {codec: fourcc for codecs in _FOURCC.values() for fourcc, codec in codecs.items()}
VIDEO_FOURCCS = ("avc1", "hvc1", "av01", "vp09")
AUDIO_FOURCCS = ("mp4a", "Opus")
_WITH_COMPOSITION_TIME = frozenset({Codec.H264, Codec.H265})
_MULTITRACK = {"video": 6, "audio": 5}
_MODEX = 7
_ONE_TRACK, _MANY_TRACKS, _MANY_CODECS = range(3)
_NANO_BYTES = 3
_MODEX_BYTES_LONG = 256  # This size says: the size follows in 16 bits.


class PacketType(enum.IntEnum):
    """What a packet carries; the numbers of VideoPacketType and AudioPacketType."""

    CONFIG = 0
    FRAMES = 1
    END = 2
    FRAMES_X = 3  # Video: coded frames whose composition time is 0.
    METADATA = 4  # Video: AMF name and value pairs. Audio: the channel layout.
    MPEG2TS_CONFIG = 5


# Looked up once: an enumeration's attributes are slow, and each unit passes here.
_TYPES = tuple(PacketType)
_AAC = Codec.AAC
LEGACY_VIDEO_BYTES = 5
LEGACY_AUDIO_BYTES = 2


class MediaPacket(Struct, gc=False):
    """One track's share of an audio or video message."""

    codec: Codec | None  # None for METADATA.
    type: PacketType
    payload: memoryview
    track: int = 0
    key: bool = False
    composition_ms: int = 0
    nano: int = 0  # Nanoseconds to add to the message's timestamp.


def parse_video(body: Body) -> list[MediaPacket]:
    """The packets of a video message; none for an empty body or a seek mark. Hot path.

    Raises RemoteProtocolError for a broken header and UnsupportedMediaError for another codec.
    """
    if not len(body):
        return []
    view = memoryview(body)
    first = view[0]
    if first & _EX_VIDEO:
        return _parse_enhanced(view, "video", first >> 4 & 7)
    frame_type, codec_id = first >> 4, first & 0x0F
    if frame_type == FRAME_COMMAND:
        return []
    codec = _LEGACY_VIDEO.get(codec_id)
    if codec is None:
        raise UnsupportedMediaError(
            f"legacy flv video codec {codec_id} is not supported: only H.264 (7) and H.265 (12) are"
        )
    if len(view) < LEGACY_VIDEO_BYTES:
        raise RemoteProtocolError(f"legacy video message of {len(view)} bytes")
    typ = view[1]
    if typ > PacketType.END:
        raise RemoteProtocolError(f"legacy video packet type {typ} is not known")
    composition_ms = int.from_bytes(view[2:5], "big", signed=True)
    key = frame_type == FRAME_KEY
    return [MediaPacket(codec, _TYPES[typ], view[5:], 0, key, composition_ms)]


def parse_audio(body: Body) -> list[MediaPacket]:
    """The packets of an audio message; see parse_video."""
    if not len(body):
        return []
    view = memoryview(body)
    sound_format = view[0] >> 4
    if sound_format == AUDIO_EX:
        return _parse_enhanced(view, "audio", FRAME_KEY)
    if sound_format != LEGACY_AAC:
        raise UnsupportedMediaError(
            f"legacy flv audio format {sound_format} is not supported: only AAC (10) is"
        )
    if len(view) < LEGACY_AUDIO_BYTES:
        raise RemoteProtocolError(f"legacy audio message of {len(view)} bytes")
    typ = view[1]
    if typ > PacketType.FRAMES:
        raise RemoteProtocolError(f"legacy audio packet type {typ} is not known")
    return [MediaPacket(_AAC, _TYPES[typ], view[2:], 0, True)]


class _Header(Struct, gc=False):
    """What all tracks of an enhanced message share."""

    medium: str
    type: PacketType
    key: bool
    nano: int


def _parse_enhanced(view: memoryview, medium: str, frame_type: int) -> list[MediaPacket]:
    packet_type = view[0] & 0x0F
    at = 1
    nano = 0
    skipped = 0
    while packet_type == _MODEX:
        if skipped == MODEX_MAX:
            raise RemoteProtocolError(f"{medium} header with more than {MODEX_MAX} ModEx")
        skipped += 1
        nano, packet_type, at = _parse_modex(view, at, nano, medium)
    if frame_type == FRAME_COMMAND and packet_type != PacketType.METADATA:
        return []
    kind = None
    if packet_type == _MULTITRACK[medium]:
        _need(view, at, 1, f"{medium} multitrack header")
        kind, packet_type = view[at] >> 4, view[at] & 0x0F
        at += 1
        if kind > _MANY_CODECS:
            raise RemoteProtocolError(f"{medium} multitrack kind {kind} is not known")
    typ = _packet_type(packet_type, f"enhanced {medium}", PacketType.MPEG2TS_CONFIG)
    header = _Header(medium, typ, frame_type == FRAME_KEY, nano)
    if kind is not None:
        return _parse_tracks(view, at, kind, header)
    fourcc = _bytes(view, at, 4, f"{medium} FourCC")
    return [_packet(header, fourcc, view[at + 4 :], 0)]


def _parse_tracks(view: memoryview, at: int, kind: int, header: _Header) -> list[MediaPacket]:
    medium = header.medium
    fourcc = b""
    if kind != _MANY_CODECS:
        fourcc = _bytes(view, at, 4, f"{medium} FourCC")
        at += 4
    packets: list[MediaPacket] = []
    while at < len(view):
        if len(packets) == TRACKS_PER_MESSAGE_MAX:
            raise RemoteProtocolError(
                f"{medium} message of more than {TRACKS_PER_MESSAGE_MAX} tracks"
            )
        if kind == _MANY_CODECS:
            fourcc = _bytes(view, at, 4, f"{medium} FourCC")
            at += 4
        _need(view, at, 1, f"{medium} track id")
        track = view[at]
        at += 1
        end = len(view)
        if kind != _ONE_TRACK:
            size = int.from_bytes(_bytes(view, at, 3, f"{medium} track size"), "big")
            at += 3
            _need(view, at, size, f"{medium} track {track}")
            end = at + size
        packets.append(_packet(header, fourcc, view[at:end], track))
        at = end
    return packets


def _parse_modex(view: memoryview, at: int, nano: int, medium: str) -> tuple[int, int, int]:
    """One ModEx at `at`: the nanoseconds now in force, the packet type, where to go on."""
    what = f"{medium} ModEx"
    size = _bytes(view, at, 1, what)[0] + 1
    at += 1
    if size == _MODEX_BYTES_LONG:
        size = int.from_bytes(_bytes(view, at, 2, what), "big") + 1
        at += 2
    data = _bytes(view, at, size, what)
    at += size
    types = _bytes(view, at, 1, what)[0]
    if (
        types >> 4 == 0 and size >= _NANO_BYTES
    ):  # TimestampOffsetNano; others are to be passed over.
        nano = int.from_bytes(data[:_NANO_BYTES], "big")
        if nano > NANO_MAX:
            raise RemoteProtocolError(f"{what}: offset of {nano} ns exceeds {NANO_MAX}")
    return nano, types & 0x0F, at + 1


def _packet(header: _Header, fourcc: bytes, payload: memoryview, track: int) -> MediaPacket:
    medium, typ = header.medium, header.type
    if typ is PacketType.METADATA:
        return MediaPacket(None, typ, payload, track)
    codec = _FOURCC[medium].get(fourcc)
    if codec is None:
        raise UnsupportedMediaError(
            f"{medium} codec {fourcc!r} of enhanced rtmp is not supported: only "
            f"{', '.join(VIDEO_FOURCCS if medium == 'video' else AUDIO_FOURCCS)} are"
        )
    if typ is PacketType.MPEG2TS_CONFIG:
        raise UnsupportedMediaError("an MPEG-2 TS sequence start is not supported")
    if typ is PacketType.FRAMES_X and medium == "audio":
        raise RemoteProtocolError("enhanced audio packet type 3 is not known")
    composition_ms = 0
    if typ is PacketType.FRAMES and codec in _WITH_COMPOSITION_TIME:
        _need(payload, 0, 3, "composition time")
        composition_ms = _s24(payload, 0)
        payload = payload[3:]
    if typ is PacketType.FRAMES_X:
        typ = PacketType.FRAMES
    return MediaPacket(codec, typ, payload, track, header.key, composition_ms, header.nano)


def make_config(codec: Codec, record: bytes, track: int = 0, *, enhanced: bool = False) -> bytes:
    """The body of a sequence header. Track 0 of H.264 and AAC is legacy unless `enhanced`."""
    if not track and not enhanced and codec is Codec.H264:
        return bytes([FRAME_KEY << 4 | LEGACY_AVC, PacketType.CONFIG, 0, 0, 0]) + record
    if not track and not enhanced and codec is Codec.AAC:
        return bytes([LEGACY_AAC << 4 | 0x0F, PacketType.CONFIG]) + record
    return _enhanced_header(codec, PacketType.CONFIG, True, track, 0) + record


def make_frames(
    codec: Codec,
    payload: bytes,
    *,
    key: bool,
    composition_ms: int = 0,
    track: int = 0,
    nano: int = 0,
    enhanced: bool = False,
) -> bytes:
    """The body of a message with one access unit; see make_config."""
    composition = (composition_ms & 0xFFFFFF).to_bytes(3, "big")
    if not track and not nano and not enhanced:
        if codec is Codec.H264:
            frame_type = FRAME_KEY if key else 2
            head = bytes([frame_type << 4 | LEGACY_AVC, PacketType.FRAMES])
            return head + composition + payload
        if codec is Codec.AAC:
            return bytes([LEGACY_AAC << 4 | 0x0F, PacketType.FRAMES]) + payload
    typ = PacketType.FRAMES
    middle = b""
    if codec in _WITH_COMPOSITION_TIME:
        if composition_ms:
            middle = composition
        else:
            typ = PacketType.FRAMES_X
    return _enhanced_header(codec, typ, key, track, nano) + middle + payload


def _enhanced_header(codec: Codec, typ: PacketType, key: bool, track: int, nano: int) -> bytes:
    medium = codec.kind.value
    head = _EX_VIDEO | (FRAME_KEY if key else 2) << 4 if medium == "video" else AUDIO_EX << 4
    inner = _MULTITRACK[medium] if track else typ
    tail = bytes([_ONE_TRACK << 4 | typ]) if track else b""
    tail += _FOURCC_OF[codec] + (bytes([track]) if track else b"")
    if nano:
        modex = bytes([_NANO_BYTES - 1]) + nano.to_bytes(_NANO_BYTES, "big") + bytes([inner])
        return bytes([head | _MODEX]) + modex + tail
    return bytes([head | inner]) + tail


def _packet_type(value: int, what: str, greatest: PacketType) -> PacketType:
    if value > greatest:
        raise RemoteProtocolError(f"{what} packet type {value} is not known")
    return PacketType(value)


def _need(view: memoryview, at: int, size: int, what: str) -> None:
    if at + size > len(view):
        raise RemoteProtocolError(f"{what} ends at byte {at + size}, its message at {len(view)}")


def _bytes(view: memoryview, at: int, size: int, what: str) -> bytes:
    _need(view, at, size, what)
    return bytes(view[at : at + size])


def _s24(view: memoryview, at: int) -> int:
    return int.from_bytes(view[at : at + 3], "big", signed=True)
