"""CMAF init segments: ftyp and moov of one track (ISO/IEC 14496-12, 14496-15, 23000-19).

    ftyp
    moov: mvhd, trak: tkhd, mdia: mdhd, hdlr, minf: vmhd | smhd, dinf, stbl: stsd (the sample entry)
          mvex: trex

A box is u32 size, four characters, payload; a full box's payload begins with u8 version and u24
flags. All integers are big-endian. There is no edit list: timestamps say where media stands.
"""

import re
import struct

from edged.errors import RemoteProtocolError, UnsupportedMediaError
from edged.media.picture import Picture, describe_picture
from edged.media.track import Codec, CodecConfig, Kind, Track

TRACK_ID = 1  # Each rendition is a file of its own, with one track.
RECORD_BYTES_MAX = (
    32 * 2**10
)  # Parameter sets are some 100 bytes; the playback window takes 64 KiB.
MATRIX = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)  # Unity.
DPI_72 = 0x00480000
AUDIO_SAMPLE_BITS = 16  # 14496-12 §12.2.3: the template value; decoders ignore it.
_ISO_639 = re.compile("[a-z]{3}")


def make_init(track: Track) -> bytes:
    """The init segment of one track.

    Raises `UnsupportedMediaError` for a codec that has no CMAF sample entry here, or when its
    configuration is too large.
    """
    record = track.config.record
    if len(record) > RECORD_BYTES_MAX:
        raise UnsupportedMediaError(
            f"{track.codec} configuration has {len(record)} bytes, limit {RECORD_BYTES_MAX}"
        )
    ftyp = box(b"ftyp", b"iso6" + bytes(4) + b"iso6" + b"cmfc" + b"mp41")
    mvex = box(b"mvex", full_box(b"trex", 0, 0, struct.pack(">5I", TRACK_ID, 1, 0, 0, 0)))
    return ftyp + box(b"moov", _mvhd(), _trak(track), mvex)


def box(kind: bytes, *payloads: bytes) -> bytes:
    """One box (14496-12 §4.2)."""
    size = 8 + sum(map(len, payloads))
    return b"".join((struct.pack(">I4s", size, kind), *payloads))


def full_box(kind: bytes, version: int, flags: int, *payloads: bytes) -> bytes:
    """One box with version and flags."""
    return box(kind, struct.pack(">I", version << 24 | flags), *payloads)


def _mvhd() -> bytes:
    times = struct.pack(">4I", 0, 0, 1000, 0)  # Created, modified, timescale, duration: live.
    rate_volume = struct.pack(">IH10x", 0x10000, 0x100)
    return full_box(b"mvhd", 0, 0, times, rate_volume, MATRIX, bytes(24), struct.pack(">I", 2))


def _trak(track: Track) -> bytes:
    config = track.config
    video = track.kind is Kind.VIDEO
    picture = _describe(config)
    entry = _video_entry(config, picture) if video else _audio_entry(config)
    # The picture as it is shown; the sample entry has it as it is coded (14496-12 §8.3.2.1).
    shown_width = (config.width << 16) * picture.sar_num // picture.sar_den
    tkhd = full_box(
        b"tkhd",
        0,
        7,  # Enabled, in movie, in preview.
        struct.pack(">5I8x", 0, 0, TRACK_ID, 0, 0),
        struct.pack(">hhhH", 0, 0 if video else 1, 0 if video else 0x100, 0),
        MATRIX,
        struct.pack(">II", min(shown_width, 2**32 - 1), config.height << 16),
    )
    language = _language(track.language)
    mdhd = full_box(b"mdhd", 0, 0, struct.pack(">4IHH", 0, 0, track.timescale, 0, language, 0))
    handler = b"vide" if video else b"soun"
    hdlr = full_box(b"hdlr", 0, 0, struct.pack(">4x4s12x", handler), b"edged\0")
    header = full_box(b"vmhd", 0, 1, bytes(8)) if video else full_box(b"smhd", 0, 0, bytes(4))
    url = full_box(b"url ", 0, 1)  # The media is in this file.
    dinf = box(b"dinf", full_box(b"dref", 0, 0, struct.pack(">I", 1), url))
    stbl = box(
        b"stbl",
        full_box(b"stsd", 0, 0, struct.pack(">I", 1), entry),
        full_box(b"stts", 0, 0, bytes(4)),
        full_box(b"stsc", 0, 0, bytes(4)),
        full_box(b"stsz", 0, 0, bytes(8)),
        full_box(b"stco", 0, 0, bytes(4)),
    )
    return box(b"trak", tkhd, box(b"mdia", mdhd, hdlr, box(b"minf", header, dinf, stbl)))


def _language(language: str) -> int:
    """ISO 639-2/T, three letters of five bits (14496-12 §8.4.2.3); others become `und`."""
    if _ISO_639.fullmatch(language) is None:
        language = "und"
    first, second, third = (ord(letter) - 0x60 for letter in language)
    return first << 10 | second << 5 | third


_VIDEO_ENTRIES = {
    Codec.H264: (b"avc1", b"avcC"),  # 14496-15 §5.4.2.1
    Codec.H265: (b"hvc1", b"hvcC"),  # 14496-15 §8.4.1.1
    Codec.AV1: (b"av01", b"av1C"),  # AV1-ISOBMFF §2.2
    Codec.VP9: (b"vp09", b"vpcC"),  # VP-ISOBMFF; the record holds its version and flags.
}


def _describe(config: CodecConfig) -> Picture:
    """Shape and colours; a record that does not parse says nothing, and is the decoder's matter."""
    try:
        return describe_picture(config)
    except RemoteProtocolError:
        return Picture()


def _video_entry(config: CodecConfig, picture: Picture) -> bytes:
    if config.codec not in _VIDEO_ENTRIES:
        raise UnsupportedMediaError(f"codec {config.codec} has no CMAF sample entry")
    if not (0 < config.width < 2**16 and 0 < config.height < 2**16):
        raise UnsupportedMediaError(
            f"{config.codec} picture of {config.width}x{config.height} does not fit a sample entry"
        )
    entry, record = _VIDEO_ENTRIES[config.codec]
    size = struct.pack(">6xH16xHH", 1, config.width, config.height)
    fixed = struct.pack(">II4xH32sHh", DPI_72, DPI_72, 1, b"", 24, -1)
    return box(entry, size, fixed, box(record, config.record), _shape(picture), _colours(picture))


def _shape(picture: Picture) -> bytes:
    """pasp (14496-12 §12.1.4); nothing for square samples."""
    if picture.sar_num == picture.sar_den:
        return b""
    return box(b"pasp", struct.pack(">II", picture.sar_num, picture.sar_den))


def _colours(picture: Picture) -> bytes:
    """colr of type nclx (14496-12 §12.1.5); nothing when the stream does not say."""
    colour = picture.colour
    if not colour.known:
        return b""
    points = struct.pack(">HHH", colour.primaries, colour.transfer, colour.matrix)
    return box(b"colr", b"nclx", points, bytes([colour.full_range << 7]))


def _audio_entry(config: CodecConfig) -> bytes:
    # Rates beyond 16.16 are written as 0: the decoder's own record has them.
    rate = config.sample_rate << 16 if config.sample_rate < 2**16 else 0
    head = struct.pack(">6xH8xHH4xI", 1, config.channels, AUDIO_SAMPLE_BITS, rate)
    if config.codec is Codec.AAC:
        return box(b"mp4a", head, _esds(config.record))
    if config.codec is Codec.OPUS:
        return box(b"Opus", head, box(b"dOps", config.record))
    raise UnsupportedMediaError(f"codec {config.codec} has no CMAF sample entry")


def _esds(record: bytes) -> bytes:
    """ES descriptor of MPEG-4 audio (14496-1 §7.2.6.5, 14496-14 §5.6)."""
    # objectTypeIndication 0x40; streamType audio, not upstream, reserved bit set; rates unknown.
    decoder = struct.pack(">BB3xII", 0x40, 0x15, 0, 0) + _descriptor(5, record)
    sl_config = _descriptor(6, b"\x02")
    es = struct.pack(">HB", TRACK_ID, 0) + _descriptor(4, decoder) + sl_config
    return full_box(b"esds", 0, 0, _descriptor(3, es))


def _descriptor(tag: int, payload: bytes) -> bytes:
    """One descriptor; its size in four groups of seven bits (14496-1 §8.3.3)."""
    size = len(payload)
    groups = (size >> 21 | 0x80, size >> 14 & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size & 0x7F)
    return bytes((tag, *groups)) + payload
