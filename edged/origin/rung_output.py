"""What a ladder has published, across the children that made it.

A child that was begun anew counts its configurations from 0 and begins a GOP. Where a rung's
configuration is the one that viewers have nothing changes for them; where it is another one, its
first unit is a discontinuity. What was shown already is not shown again: decode times rise, unless
the source's timeline began anew while there was no child to say so.
"""

from collections.abc import Callable

from msgspec import Struct, structs

from edged.errors import RemoteProtocolError
from edged.media.access_unit import AccessUnit
from edged.media.track import CodecConfig, Track
from edged.policy.segment_starts import TIMELINE_S

US_PER_S = 1_000_000


class _Published(Struct):
    """A rung's track."""

    config: CodecConfig
    config_id: int
    timescale: int
    last_dts: int | None = None
    last_wallclock_us: int = 0
    changed: bool = False  # Since its last unit.


class RungOutput:
    """Between a child and whoever takes a ladder's tracks and units."""

    def __init__(
        self,
        publish_track: Callable[[Track], None],
        publish_units: Callable[[list[AccessUnit]], None],
    ) -> None:
        self.units = 0
        self.units_dropped = 0  # As they were shown already.
        self._publish_track, self._publish_units = publish_track, publish_units
        self._published: dict[int, _Published] = {}
        self._announced: set[int] = set()  # By this child.

    def begin_child(self) -> None:
        """What comes is another child's."""
        self._announced.clear()

    def set_track(self, track: Track) -> None:
        """A rung's track as the child has it."""
        track_id = track.track_id
        self._announced.add(track_id)
        known = self._published.get(track_id)
        if known is None:
            self._published[track_id] = known = _Published(track.config, 0, track.timescale)
        elif known.config == track.config:
            return
        else:
            known.config, known.changed = track.config, True
            known.config_id += 1
        self._publish_track(structs.replace(track, config_id=known.config_id))

    def take(self, units: list[AccessUnit]) -> None:
        """Publish a child's units. Raises RemoteProtocolError for one of no track."""
        fresh: list[AccessUnit] = []
        for unit in units:
            if unit.track_id not in self._announced:
                raise RemoteProtocolError(f"a unit of track {unit.track_id}, which is not known")
            known = self._published[unit.track_id]
            is_apart = unit.discontinuity or known.changed or _is_anew(known, unit)
            if not is_apart and known.last_dts is not None and unit.dts <= known.last_dts:
                self.units_dropped += 1
                continue
            known.last_dts, known.changed = unit.dts, False
            known.last_wallclock_us = max(known.last_wallclock_us, unit.wallclock_us)
            unit.config_id, unit.discontinuity = known.config_id, is_apart
            unit.seq = self.units
            self.units += 1
            fresh.append(unit)
        if fresh:
            self._publish_units(fresh)

    def last_dts(self, track_ids: set[int]) -> int | None:
        """How far the furthest of these rungs has been shown."""
        known = (self._published.get(track_id) for track_id in track_ids)
        return max((k.last_dts for k in known if k and k.last_dts is not None), default=None)


def _is_anew(known: _Published, unit: AccessUnit) -> bool:
    """Whether a unit that lies behind was captured later than what was shown."""
    if known.last_dts is None or unit.wallclock_us <= known.last_wallclock_us:
        return False
    later_s = (unit.wallclock_us - known.last_wallclock_us) / US_PER_S
    return later_s - (unit.dts - known.last_dts) / known.timescale > TIMELINE_S
