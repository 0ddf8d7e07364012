"""What a DASH manifest says, before it is text: policy fills these in, `wire.mpd` renders them.

The names are those of ISO/IEC 23009-1. Media is that of the HLS playlists, by the same addresses.
"""

from msgspec import Struct

from edged.media.track import Kind


class Representation(Struct, frozen=True, kw_only=True):
    """One rung, or one audio rendition, in one period."""

    name: str
    codecs: str  # RFC 6381.
    bandwidth_bps: int
    timescale: int
    presentation_offset: int  # Ticks: the media time at which the period begins.
    start_number: int  # MSN of the first of `segments`.
    segments: tuple[tuple[int, int], ...]  # When each is presented first, and how long; ticks.
    init_uri: str
    media_uri: str  # With $Number$ for the MSN.
    width: int = 0
    height: int = 0
    sar_num: int = 1  # The shape of a sample of that width and height.
    sar_den: int = 1
    frame_rate_num: int = 0
    frame_rate_den: int = 1
    channels: int = 0


class AdaptationSet(Struct, frozen=True, kw_only=True):
    """Representations between which players change as bandwidth goes."""

    number: int  # The same in all periods.
    kind: Kind
    representations: tuple[Representation, ...]
    language: str = "und"  # RFC 5646.
    label: str = ""
    is_main: bool = True
    is_aligned: bool = False  # Segments of all representations begin and end together.
    begins_independent: bool = False  # Each segment with random access.


class Period(Struct, frozen=True, kw_only=True):
    """Media on one timeline."""

    name: str
    start_us: int  # Since 1970, which is the manifest's availabilityStartTime.
    sets: tuple[AdaptationSet, ...]


class Manifest(Struct, frozen=True, kw_only=True):
    """The manifest at one instant."""

    periods: tuple[Period, ...]  # Not empty.
    published_us: int  # Since 1970.
    update_s: float  # minimumUpdatePeriod.
    depth_s: float  # timeShiftBufferDepth.
    delay_s: float  # suggestedPresentationDelay.
    segment_s_max: float
    ended_us: int | None = None  # When the presentation ends, since 1970; None while it is live.
