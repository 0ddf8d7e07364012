"""What a segmenter says of itself: its counters, and how far it is."""

from msgspec import Struct

DEVIATION_S_MAX = 0.5  # Of a rung's segments from the leading one's; beyond it changing rungs lags.


class SegmenterStatistics(Struct, kw_only=True):
    """What has been cut, and what was wrong with the stream."""

    units: int = 0
    # Before the first random access or behind lost units, or earlier than their timeline.
    units_dropped: int = 0
    parts: int = 0
    long_gops: int = 0  # Segments that had to end at a picture without random access.
    unaligned: int = 0  # The same in rungs that follow, whose random access lies elsewhere.
    deviation_s: float = (
        0.0  # By how much a rung's segment ended later than the leading one, at most.
    )
    gop_s: float = 0.0  # The leading rendition's last GOP.
    discontinuities: int = 0
    missing_s: float = 0.0  # Absent media, of the rendition that misses most.

    @property
    def misaligned(self) -> bool:
        """Whether the rungs' random access is not at the same times."""
        return self.unaligned > 0 or self.deviation_s > DEVIATION_S_MAX


class RenditionMark(Struct, frozen=True, kw_only=True):
    """How far a rendition is packaged: what an ack carries, and what a new home goes on from."""

    name: str
    msn: int
    part: int  # Index of the last one of `msn`; -1 when there is none yet.
    tfdt: int  # Where the next part begins.
    discontinuity_sequence: int
    init_digest: str
