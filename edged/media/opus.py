"""Opus: headers, dOps records, packet durations (RFC 6716, RFC 7845, Opus in ISOBMFF).

OpusHead: "OpusHead", u8 1, u8 channels, u16le pre-skip, u32le input rate, i16le gain, u8 family
dOps:      u8 0, u8 channels, u16 pre-skip, u32 input rate, i16 gain, u8 family
both, for a family other than 0: u8 streams, u8 coupled streams, channels x u8 mapping
"""

import struct

from msgspec import Struct

from edged.errors import RemoteProtocolError, UnsupportedMediaError
from edged.media.track import Codec, CodecConfig

SAMPLE_RATE = 48_000  # Of timestamps and decoders, whatever the input's was (RFC 7845 §4).
PACKET_SAMPLES_MAX = 5760  # 120 ms (RFC 6716 §3.2.5).
FRAMES_MAX = 48  # 120 ms of frames of 2.5 ms.
_MAGIC = b"OpusHead"
_HEAD = struct.Struct("<8sBBHIhB")
_DOPS = struct.Struct(">BBHIhB")
_FAMILY_RTP = 0  # Mono or stereo, in one stream.
_FAMILY_CHANNELS_MAX = 2
_HEAD_VERSION_MAX = 15  # RFC 7845 §5.1: the upper four bits are the major version.
_FRAME_COUNT_CODE = 3
# RFC 6716 §3.1, Table 2: samples of a frame by configuration number.
_FRAME_SAMPLES = (
    *(3 * (480, 960, 1920, 2880)),  # SILK, three bandwidths
    *(2 * (480, 960)),  # Hybrid, two
    *(4 * (120, 240, 480, 960)),  # CELT, four
)


class Header(Struct, frozen=True, kw_only=True):
    """What OpusHead and dOps say."""

    channels: int
    pre_skip: int  # Samples at 48 kHz to drop at the start.
    input_sample_rate: int  # For information only.
    output_gain: int  # dB x 256.
    family: int
    mapping: bytes  # Streams, coupled streams, channel mapping; empty with family 0.


def parse_config(record: bytes) -> CodecConfig:
    """The configuration in a dOps record."""
    header = parse_record(record)
    return CodecConfig(
        codec=Codec.OPUS,
        record=record,
        codec_string="opus",
        sample_rate=SAMPLE_RATE,
        channels=header.channels,
    )


def parse_record(record: bytes) -> Header:
    """Decode dOps."""
    if len(record) < _DOPS.size:
        raise RemoteProtocolError(f"dOps of {len(record)} bytes, less than {_DOPS.size}")
    version, *fields = _DOPS.unpack_from(record)
    if version:
        raise UnsupportedMediaError(f"dOps of version {version}: only 0 is known")
    return _make_header(fields, record[_DOPS.size :], "dOps")


def parse_head(head: bytes) -> Header:
    """Decode OpusHead."""
    if len(head) < _HEAD.size or not head.startswith(_MAGIC):
        raise RemoteProtocolError(f"not an OpusHead: {head[:12].hex() or 'empty'}")
    _, version, *fields = _HEAD.unpack_from(head)
    if version > _HEAD_VERSION_MAX:
        raise UnsupportedMediaError(f"OpusHead of version {version}: only 0 to 15 are known")
    return _make_header(fields, head[_HEAD.size :], "OpusHead")


def make_record(header: Header) -> bytes:
    """The dOps that says so."""
    return _DOPS.pack(0, *_fields(header)) + header.mapping


def make_head(header: Header) -> bytes:
    """The OpusHead that says so."""
    return _HEAD.pack(_MAGIC, 1, *_fields(header)) + header.mapping


def dops_from_head(head: bytes) -> bytes:
    """The dOps record of a stream with this OpusHead."""
    return make_record(parse_head(head))


def head_from_dops(record: bytes) -> bytes:
    """The OpusHead of a stream with this dOps record."""
    return make_head(parse_record(record))


def packet_duration(packet: bytes) -> int:
    """Samples at 48 kHz in a packet (RFC 6716 §3.1, §3.2). Hot path."""
    if not packet:
        raise RemoteProtocolError("an Opus packet without a byte")
    toc = packet[0]
    code = toc & 3
    if code == _FRAME_COUNT_CODE:
        if len(packet) < 2:  # noqa: PLR2004 - the TOC byte and the frame count byte
            raise RemoteProtocolError("an Opus packet ends before its frame count")
        frames = packet[1] & 0x3F
    else:
        frames = 2 if code else 1
    samples = frames * _FRAME_SAMPLES[toc >> 3]
    if not 0 < samples <= PACKET_SAMPLES_MAX:
        raise RemoteProtocolError(
            f"an Opus packet of {samples} samples, not within 1 to {PACKET_SAMPLES_MAX}"
        )
    return samples


def _fields(header: Header) -> tuple[int, int, int, int, int]:
    return (
        header.channels,
        header.pre_skip,
        header.input_sample_rate,
        header.output_gain,
        header.family,
    )


def _make_header(fields: list[int], rest: bytes, what: str) -> Header:
    channels, pre_skip, input_rate, gain, family = fields
    if not channels:
        raise RemoteProtocolError(f"{what}: no channels")
    mapping = b""
    if family == _FAMILY_RTP:
        if channels > _FAMILY_CHANNELS_MAX:
            raise RemoteProtocolError(f"{what}: {channels} channels in mapping family 0, 2 at most")
    else:
        mapping = rest[: 2 + channels]
        if len(mapping) < 2 + channels:
            raise RemoteProtocolError(f"{what} ends within its channel mapping")
        streams, coupled = mapping[0], mapping[1]
        if not streams or coupled > streams:
            raise RemoteProtocolError(f"{what}: {streams} streams, {coupled} of them coupled")
    return Header(
        channels=channels,
        pre_skip=pre_skip,
        input_sample_rate=input_rate,
        output_gain=gain,
        family=family,
        mapping=mapping,
    )
