"""How a video track's pictures are to be shown: sample shape and colours, from its configuration.

What `colr` and `pasp` boxes say (ISO/IEC 14496-12 §12.1.4, §12.1.5), for any codec.
"""

from msgspec import Struct

from edged.media import av1, h264, h265, vp9
from edged.media.track import Codec, CodecConfig
from edged.media.vui import Colour


class Picture(Struct, frozen=True):
    """Shape of a sample, and colours; `Colour()` when the stream does not say."""

    sar_num: int = 1
    sar_den: int = 1
    colour: Colour = Colour()


def describe_picture(config: CodecConfig) -> Picture:
    """What the configuration says of the picture; RemoteProtocolError if its record is broken."""
    match config.codec:
        case Codec.H264:
            avc = h264.parse_sps(h264.parse_record(config.record).sps[0])
            return Picture(avc.sar_num, avc.sar_den, avc.colour)
        case Codec.H265:
            hevc = h265.parse_sps(h265.parse_record(config.record).sps[0])
            return Picture(hevc.sar_num, hevc.sar_den, hevc.colour)
        case Codec.AV1:
            return Picture(colour=av1.parse_record(config.record).colour)
        case Codec.VP9:
            return Picture(colour=vp9.parse_record(config.record).colour)
        case _:
            return Picture()
