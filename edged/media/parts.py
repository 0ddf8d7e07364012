"""The packaged form of a stream: what an origin pushes and a PoP serves."""

from msgspec import Struct

from edged.media.latency import DEFAULT_LATENCY, Latency
from edged.media.track import Kind


class Rendition(Struct, frozen=True, kw_only=True):
    """One playlist's worth of media: the video of a rung, or an audio rendition."""

    name: str  # Unique in the stream and safe in a URL: "v0", "a0".
    kind: Kind
    timescale: int
    codec_string: str
    part_target_us: int  # Smallest multiple of the frame duration >= the configured; never changes.
    target_duration_s: int  # TARGETDURATION; the same for all renditions; never changes.
    width: int = 0
    height: int = 0
    sar_num: int = 1  # The shape of a sample; nothing of HLS says it.
    sar_den: int = 1
    frame_rate_num: int = 0
    frame_rate_den: int = 1
    channels: int = 0
    language: str = "und"  # RFC 5646.
    label: str = ""  # What people call it; empty where the publisher does not say.
    alone: bool = False  # Of audio: offered without a picture, too.
    away: bool = False  # Nothing more of it comes until it is announced anew: viewers leave it now.
    latency: Latency = DEFAULT_LATENCY  # The same for all renditions; never changes.


class InitSegment(Struct, frozen=True, kw_only=True):
    """ftyp + moov of a rendition; `digest` is in its URI, so no URI names two byte strings."""

    rendition: str
    digest: str  # First 16 hex digits of SHA-256 of `data`.
    data: bytes


class Part(Struct, frozen=True, kw_only=True):
    """One partial segment: a moof + mdat; the concatenated parts of an MSN are the segment."""

    rendition: str
    msn: int
    index: int  # From 0 in each segment.
    tfdt: int  # baseMediaDecodeTime, ticks.
    duration: int  # Ticks.
    wallclock_us: int  # Of what is presented first: PROGRAM-DATE-TIME.
    init_digest: str
    payload: bytes
    independent: bool = False
    discontinuity: bool = False  # EXT-X-DISCONTINUITY stands before this part's segment.
    discontinuity_sequence: int = 0  # Discontinuities of the run so far, its segment's included.
    gap: bool = False
    ends_segment: bool = False  # Already known to be the last of its segment when it was cut.
    next_msn: int = 0  # The packager's forecast of what follows: the preload hint.
    next_index: int = 0
    last_seq: int = 0  # Highest unit seq inside.


class SegmentEnded(Struct, frozen=True, kw_only=True):
    """The segment's last part has been pushed; it has `parts` parts."""

    rendition: str
    msn: int
    parts: int
    duration: int  # Ticks.


class ListedSegment(Struct, frozen=True, array_like=True):
    """A whole segment as playlists have it, without its media."""

    msn: int
    duration: int  # Ticks, above 0.
    wallclock_us: int  # Of what is presented first: PROGRAM-DATE-TIME.
    payload_bytes: int  # Of its media, which can be fetched by name; 0 for a gap.
    discontinuity: bool = False
    discontinuity_sequence: int = 0  # Discontinuities of the run so far, this one's included.
    gap: bool = False
    tfdt: int = 0  # Of its first part: baseMediaDecodeTime, ticks.
    independent: bool = True  # Whether that begins with random access.


class SegmentsListed(Struct, frozen=True, kw_only=True):
    """What an origin holds of a rendition and does not push: older segments, in order of MSN.

    They share an init, which has come. Without segments it only tells `oldest_msn`.
    """

    rendition: str
    oldest_msn: int  # What is older can be had from that origin no more.
    init_digest: str = ""
    segments: tuple[ListedSegment, ...] = ()


class SegmentPiece(Struct, frozen=True):
    """The next bytes of a segment that was asked for by name."""

    payload: bytes


class StreamEnded(Struct, frozen=True, kw_only=True):
    """The publication ended: playlists get EXT-X-ENDLIST."""

    reason: str


PackagedEvent = Rendition | InitSegment | Part | SegmentEnded | SegmentsListed | StreamEnded
