"""Units of rungs that came to a key frame before the leading rung did.

Where encoders align their key frames, those of a rung may still arrive a little earlier than the
leading one's: they are sent in another order, or it has no B-frames and decodes them later. Whether
a segment ends there is for the leading rung to say, so the rung's units wait for it, but not for
long.
"""

from edged.media.access_unit import AccessUnit
from edged.policy.cutter import RenditionCutter

# A few B-frames; more, and the leading rung counts as silent. It is less than a follower's segment
# may be longer than the leading one's, so that audio does not end by itself meanwhile.
HELD_S_MAX = 0.4
HELD_UNITS_MAX = 128  # Of a rung: 0.4 s at 300 fps.
HELD_BYTES_MAX = 8 * 2**20  # Of a rung; what is beyond goes into its segment, which is bounded too.


class HeldUnits:
    """Units by track; the first of each is a key frame."""

    def __init__(self) -> None:
        self.by_track: dict[int, list[AccessUnit]] = {}

    def __bool__(self) -> bool:
        return bool(self.by_track)

    @property
    def first_seqs(self) -> list[int]:
        """The oldest unit of each track that has any."""
        return [units[0].seq for units in self.by_track.values()]

    def add(self, unit: AccessUnit) -> None:
        """Hold a unit."""
        self.by_track.setdefault(unit.track_id, []).append(unit)

    def due(
        self,
        cutters: dict[int, RenditionCutter],
        leader: RenditionCutter,
        came: RenditionCutter,
        now: AccessUnit,
    ) -> tuple[list[int], list[int]]:
        """Tracks whose wait is over, now that this unit of `came` is here, and those in vain.

        In vain: the leading rung is too far behind, or there is no room for more.
        """
        over: list[int] = []
        in_vain: list[int] = []
        for track_id, units in self.by_track.items():
            rung = cutters[track_id]
            if rung.boundaries or is_decided(leader, units[0], rung.track.timescale):
                over.append(track_id)
            elif self._is_vain(units, rung, leader, came, now):
                in_vain.append(track_id)
        return over, in_vain

    @staticmethod
    def _is_vain(
        units: list[AccessUnit],
        rung: RenditionCutter,
        leader: RenditionCutter,
        came: RenditionCutter,
        now: AccessUnit,
    ) -> bool:
        if len(units) > HELD_UNITS_MAX or sum(len(u.payload) for u in units) > HELD_BYTES_MAX:
            return True
        since_s = now.dts / came.track.timescale - units[0].dts / rung.track.timescale
        if came is rung or came is leader:
            return abs(since_s) > HELD_S_MAX  # Further back is another timeline.
        return since_s > HELD_S_MAX


def is_decided(leader: RenditionCutter, key: AccessUnit, timescale: int) -> bool:
    """Whether the leading rung has come to the time at which `key` is presented."""
    last, gops, own = leader.last, leader.gops, leader.track.timescale
    if last is None:
        return True  # It begins anew: times do not compare.
    reach = last.dts
    if gops.last_dts is not None:
        reach = max(reach, gops.last_dts + gops.shift)
    return 2 * reach * timescale >= 2 * key.pts * own - leader.cadence.gap_ticks * timescale
