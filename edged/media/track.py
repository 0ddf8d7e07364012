"""Tracks, codec configurations and access units: the canonical form of a live stream."""

import enum
from collections.abc import Iterable

from msgspec import Struct


class Kind(enum.StrEnum):
    """What a track carries."""

    VIDEO = "video"
    AUDIO = "audio"
    DATA = "data"


class Codec(enum.StrEnum):
    """Codecs that the canonical stream can name."""

    H264 = "h264"
    H265 = "h265"
    AV1 = "av1"
    VP8 = "vp8"
    VP9 = "vp9"
    AAC = "aac"
    OPUS = "opus"
    SCTE35 = "scte35"
    ID3 = "id3"

    @property
    def kind(self) -> Kind:
        """The kind of track that this codec makes."""
        if self in _AUDIO:
            return Kind.AUDIO
        return Kind.DATA if self in _DATA else Kind.VIDEO


_AUDIO = frozenset({Codec.AAC, Codec.OPUS})
_DATA = frozenset({Codec.SCTE35, Codec.ID3})


class CodecConfig(Struct, frozen=True, kw_only=True):
    """What a decoder must know before the first access unit.

    `record` is the decoder configuration as ISO BMFF stores it: the payload of avcC (14496-15
    §5.3.3), hvcC (§8.3.3), av1C (AV1-ISOBMFF §2.3), vpcC (VP-ISOBMFF, with its version and flags),
    dOps (Opus-in-ISOBMFF §4.3.2), or the AudioSpecificConfig (14496-3 §1.6.2.1). The other fields
    are decoded from it.
    """

    codec: Codec
    record: bytes
    codec_string: str  # RFC 6381, as in the CODECS attribute: "avc1.64001f".
    width: int = 0  # Display pixels after cropping; 0 for audio.
    height: int = 0
    frame_rate_num: int = 0  # 0 when the stream does not say.
    frame_rate_den: int = 1
    sample_rate: int = 0  # Hz; 0 for video.
    channels: int = 0
    samples_per_unit: int = 0  # AAC 1024 or 960, Opus 0 (its packets differ).

    def __post_init__(self) -> None:
        """Refuse a rate that nobody could divide by, from whichever peer or plug-in it comes."""
        if self.frame_rate_den < 1 or self.frame_rate_num < 0:
            raise ValueError(f"frame rate {self.frame_rate_num}/{self.frame_rate_den} is none")


class Track(Struct, frozen=True, kw_only=True):
    """One elementary stream of a publication, with its configuration now in force."""

    track_id: int
    codec: Codec
    timescale: int  # Ticks per second of pts and dts.
    config: CodecConfig
    config_id: int = 0  # Rises by one each time `config` changes; units name the one they need.
    language: str = "und"
    name: str = ""

    @property
    def kind(self) -> Kind:
        """What the track carries."""
        return self.codec.kind


class TrackFormat(Struct, frozen=True, array_like=True):
    """What of a track never changes in a run, whoever sends it."""

    track_id: int
    codec: str  # Of `Codec`; as text, because a newer peer may name one that is not known here.
    timescale: int


def formats_of(tracks: Iterable[Track]) -> tuple[TrackFormat, ...]:
    """The formats of tracks, by track; data tracks do not count, as nobody plays them."""
    media = (track for track in tracks if track.kind is not Kind.DATA)
    formats = (TrackFormat(track.track_id, str(track.codec), track.timescale) for track in media)
    return tuple(sorted(formats, key=lambda known: known.track_id))
