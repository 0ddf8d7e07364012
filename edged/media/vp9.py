"""VP9: uncompressed frame headers and vpcC records (VP9 bitstream specification §6.2, VP-ISOBMFF).

vpcC: u8 1, u24 0, u8 profile, u8 level, u8 depth 4|chroma 3|full range 1,
      u8 primaries, u8 transfer, u8 matrix, u16 0
"""

import msgspec
from msgspec import Struct

from edged.errors import RemoteProtocolError, UnsupportedMediaError
from edged.media.bits import BitReader
from edged.media.track import Codec, CodecConfig
from edged.media.vui import Colour

RECORD_BYTES = 12  # codecInitializationDataSize must be 0 for VP9.
_BARE_RECORD_BYTES = 8  # As some senders have it, without version and flags.
_VERSION_AND_FLAGS = b"\1\0\0\0"
_HEADER_BYTES_MAX = 20  # How far a header is read: that of a key frame takes 17 at most.
_FRAME_MARKER = 2
_SYNC_CODE = 0x498342
_PROFILE_MAX = 3
_DEPTHS = frozenset({8, 10, 12})
_COLOUR_SPACE_RGB = 7
_CHROMA_COLLOCATED, _CHROMA_422, _CHROMA_444 = 1, 2, 3
# color_space (§7.2.2) as CICP; what is reserved stays unspecified.
_COLOURS = {1: (6, 6, 6), 2: (1, 1, 1), 3: (6, 6, 6), 4: (7, 7, 7), 5: (9, 14, 9), 7: (1, 13, 0)}
# Annex A: level, luma samples a second, luma samples a picture.
_LEVELS = (
    *((10, 829_440, 36_864), (11, 2_764_800, 73_728), (20, 4_608_000, 122_880)),
    *((21, 9_216_000, 245_760), (30, 20_736_000, 552_960), (31, 36_864_000, 983_040)),
    *((40, 83_558_400, 2_228_224), (41, 160_432_128, 2_228_224), (50, 311_951_360, 8_912_896)),
    *((51, 588_251_136, 8_912_896), (52, 1_176_502_272, 8_912_896)),
    *((60, 1_176_502_272, 35_651_584), (61, 2_353_004_544, 35_651_584)),
)
_LEVEL_HIGHEST = 62


class Record(Struct, frozen=True, kw_only=True):
    """A decoded vpcC."""

    profile: int
    level: int  # Ten times the level.
    bit_depth: int
    chroma: int  # 0 and 1 are 4:2:0, 2 is 4:2:2, 3 is 4:4:4.
    colour: Colour

    @property
    def codec_string(self) -> str:
        """VP-ISOBMFF, short form."""
        return f"vp09.{self.profile:02d}.{self.level:02d}.{self.bit_depth:02d}"


class FrameHeader(Struct, frozen=True, kw_only=True):
    """An uncompressed header; size and format are of key frames only."""

    profile: int
    key_frame: bool
    shown: bool
    width: int = 0
    height: int = 0
    bit_depth: int = 8
    chroma: int = _CHROMA_COLLOCATED
    colour: Colour = Colour()


class _Format(Struct, frozen=True):
    bit_depth: int
    chroma: int
    colour: Colour


def parse_config(record: bytes) -> CodecConfig:
    """The configuration in a vpcC record, which has no size: see `with_size`.

    A record without version and flags gets them.
    """
    parsed = parse_record(record)
    if len(record) == _BARE_RECORD_BYTES:
        record = _VERSION_AND_FLAGS + record
    return CodecConfig(codec=Codec.VP9, record=record, codec_string=parsed.codec_string)


def with_size(config: CodecConfig, key_frame: bytes) -> CodecConfig:
    """The configuration with the size that a key frame says; itself when the frame is another."""
    header = parse_frame_header(key_frame)
    if not header.key_frame or (header.width, header.height) == (config.width, config.height):
        return config
    return msgspec.structs.replace(config, width=header.width, height=header.height)


def parse_record(record: bytes) -> Record:
    """Decode vpcC, with or without version and flags."""
    if len(record) == RECORD_BYTES:
        if record[:4] != _VERSION_AND_FLAGS:
            raise UnsupportedMediaError(
                f"vpcC of version and flags {record[:4].hex()}: not 1 and 0"
            )
        record = record[4:]
    if len(record) != _BARE_RECORD_BYTES:
        raise RemoteProtocolError(f"vpcC of {len(record)} bytes, not {RECORD_BYTES}")
    profile, level, packed = record[0], record[1], record[2]
    if profile > _PROFILE_MAX or packed >> 4 not in _DEPTHS:
        raise RemoteProtocolError(f"vpcC: profile {profile}, bit depth {packed >> 4}")
    colour = Colour(record[3], record[4], record[5], full_range=bool(packed & 1))
    return Record(
        profile=profile, level=level, bit_depth=packed >> 4, chroma=packed >> 1 & 7, colour=colour
    )


def make_record(key_frame: bytes, frame_rate_num: int = 0, frame_rate_den: int = 1) -> bytes:
    """vpcC of a stream with this key frame; without a rate its level is that of the size alone."""
    header = parse_frame_header(key_frame)
    if not header.key_frame:
        raise RemoteProtocolError("VP9: a configuration needs a key frame")
    samples = header.width * header.height
    level = next(
        (
            level
            for level, rate_max, samples_max in _LEVELS
            if samples <= samples_max and samples * frame_rate_num <= rate_max * frame_rate_den
        ),
        _LEVEL_HIGHEST,
    )
    colour = header.colour
    packed = header.bit_depth << 4 | header.chroma << 1 | colour.full_range
    fields = (header.profile, level, packed, colour.primaries, colour.transfer, colour.matrix)
    return _VERSION_AND_FLAGS + bytes(fields) + bytes(2)


def is_random_access(payload: bytes) -> bool:
    """Whether the payload, a frame or a superframe, begins with a key frame."""
    return parse_frame_header(payload).key_frame


def parse_frame_header(frame: bytes) -> FrameHeader:
    """Decode the start of an uncompressed_header (§6.2), as far as the size."""
    bits = BitReader(frame[:_HEADER_BYTES_MAX], "VP9 frame header")
    if bits.read(2) != _FRAME_MARKER:
        raise RemoteProtocolError(f"not a VP9 frame: {frame[:4].hex()}")
    profile = bits.read(1) | bits.read(1) << 1
    if profile == _PROFILE_MAX and bits.flag():
        raise UnsupportedMediaError("VP9 profile above 3")
    if bits.flag():  # show_existing_frame
        return FrameHeader(profile=profile, key_frame=False, shown=True)
    key_frame, shown = not bits.flag(), bits.flag()
    bits.skip(1)  # error_resilient_mode
    if not key_frame:
        return FrameHeader(profile=profile, key_frame=False, shown=shown)
    if bits.read(24) != _SYNC_CODE:
        raise RemoteProtocolError(f"VP9 key frame without its sync code: {frame[:5].hex()}")
    form = _read_format(bits, profile)
    return FrameHeader(
        profile=profile,
        key_frame=True,
        shown=shown,
        width=bits.read(16) + 1,
        height=bits.read(16) + 1,
        bit_depth=form.bit_depth,
        chroma=form.chroma,
        colour=form.colour,
    )


def _read_format(bits: BitReader, profile: int) -> _Format:
    """color_config (§6.2.2). The odd profiles are those with chroma other than 4:2:0."""
    depth = 8
    if profile > 1:
        depth = 12 if bits.flag() else 10
    space = bits.read(3)
    primaries, transfer, matrix = _COLOURS.get(space, (2, 2, 2))
    if space == _COLOUR_SPACE_RGB:
        if not profile & 1:
            raise RemoteProtocolError(f"VP9: RGB in profile {profile}")
        bits.skip(1)
        return _Format(depth, _CHROMA_444, Colour(primaries, transfer, matrix, full_range=True))
    colour = Colour(primaries, transfer, matrix, full_range=bits.flag())
    if not profile & 1:
        return _Format(depth, _CHROMA_COLLOCATED, colour)
    across, down = bits.flag(), bits.flag()
    bits.skip(1)
    if across and not down:
        return _Format(depth, _CHROMA_422, colour)
    if across or down:
        raise UnsupportedMediaError("VP9 in 4:4:0 or 4:2:0 of an odd profile")
    return _Format(depth, _CHROMA_444, colour)
