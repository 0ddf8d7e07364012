"""What a unit flow pulls from: a publication's ring by a cursor, and its tracks."""

import msgspec

from edged.media.gop_ring import GopRing, Start
from edged.media.ring_batch import RingBatch
from edged.media.track import Kind, Track
from edged.runtime.hub import LiveStream

SCAN_UNITS = 1024  # Read at once while looking for a GOP's start.


class RingSource:
    """A `UnitSource` over a live stream; lives as long as its flow."""

    def __init__(self, stream: LiveStream, start: Start | int) -> None:
        self._stream = stream
        self._ring = stream.ring
        self._cursor = stream.ring.reader(start=start)

    def read(self, units_max: int, bytes_max: int, /) -> RingBatch:
        """The next units; empty when there are none now."""
        return self._cursor.read(units_max, bytes_max)

    @property
    def lag_units(self) -> int:
        """Units not yet read."""
        return self._ring.next_seq - self._cursor.next_seq

    def track(self, track_id: int, config_id: int) -> Track | None:
        """The track with the configuration that a unit names; None when it is gone."""
        track = self._stream.tracks.get(track_id)
        if track is None or track.config_id == config_id:
            return track
        config = self._stream.config(track_id, config_id)
        if config is None:
            return None
        return msgspec.structs.replace(track, config=config, config_id=config_id)

    @property
    def ended(self) -> str | None:
        """Why no more units will come."""
        return self._stream.ended


def choose_start(stream: LiveStream, wanted_seq: int, packaged_seq: int) -> Start | int:
    """Where sending begins, given what the peer wants and what was packaged.

    `wanted_seq` >= 0 is taken at its word. Else the peer knows nothing of the stream: it gets the
    GOP in which the first unit not yet packaged lies, so that it can decode that unit; or, when
    nothing was packaged or that is no longer held, the oldest.
    """
    ring = stream.ring
    if wanted_seq >= 0:
        return min(wanted_seq, ring.next_seq)
    if packaged_seq < 0:
        return "oldest"
    return gop_start(stream, min(packaged_seq + 1, ring.next_seq))


def gop_start(stream: LiveStream, seq: int) -> Start | int:
    """The last random access of a video track at or below `seq`; `seq` itself without video."""
    video = {track.track_id for track in stream.tracks.values() if track.kind is Kind.VIDEO}
    ring: GopRing = stream.ring
    if not video:
        return seq
    found: Start | int = "oldest"
    cursor = ring.reader(start="oldest")
    while cursor.next_seq <= seq:
        units = cursor.read(SCAN_UNITS, 2**62).units
        if not units:
            break
        for unit in units:
            if unit.random_access and unit.track_id in video and unit.seq <= seq:
                found = unit.seq
    return found
