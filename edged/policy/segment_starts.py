"""Where a stream's segments begin, for whoever cuts other renditions of the same stream."""

from msgspec import Struct

from edged.media.access_unit import AccessUnit
from edged.policy.boundary import Boundary
from edged.policy.cadence import US
from edged.policy.cutter import RenditionCutter

TIMELINE_S = 0.1  # Two timelines of a stream are further apart.


class SegmentStart(Struct, frozen=True, kw_only=True):
    """Where a segment begins: at its boundary."""

    msn: int
    discontinuity_sequence: int  # Of what is in it.
    random_access: bool  # Whether its first picture is independent of those before.
    wallclock_us: int  # Of its first picture.
    boundary: Boundary

    @property
    def offset_s(self) -> float:
        """What names its timeline: the wallclock of its time 0."""
        return self.wallclock_us / US - self.boundary.pts / self.boundary.timescale

    @classmethod
    def of_first(cls, leader: RenditionCutter, unit: AccessUnit, offset_s: int) -> "SegmentStart":
        """The one that begins with the leading rendition's first unit."""
        boundary = Boundary(
            pts=unit.pts,
            timescale=leader.track.timescale,
            segment_us=0,
            offset_s=offset_s,
        )
        return cls(
            msn=leader.msn,
            discontinuity_sequence=0,
            random_access=True,
            wallclock_us=unit.wallclock_us,
            boundary=boundary,
        )

    @classmethod
    def of_next(
        cls, leader: RenditionCutter, unit: AccessUnit, *, random_access: bool
    ) -> "SegmentStart":
        """The one that begins at the leading rendition's last boundary that is known."""
        ahead = sum(each.discontinuity for each in leader.boundaries)
        return cls(
            msn=leader.msn + len(leader.boundaries),
            discontinuity_sequence=leader.discontinuity_sequence + ahead,
            random_access=random_access,
            wallclock_us=unit.wallclock_us,
            boundary=leader.boundaries[-1],
        )
