"""Units of tracks that have no rendition yet: how they follow each other must be seen first."""

from collections.abc import Iterable

from edged.media.access_unit import AccessUnit
from edged.media.track import Kind
from edged.policy.cadence import is_measured
from edged.policy.known_tracks import KnownTracks

START_S = 1  # The longest wait for a track that has been announced but is silent.
START_VIDEO_S = 3  # The same when audio waits for the first picture.
WAITING_UNITS_MAX = 2048  # Before the start, over all tracks; then it starts with what it knows.
WAITING_BYTES_MAX = 32 * 2**20  # The same: 3 s at 85 Mbps.
JUMP_BACK_S_MAX = 1  # Further back is another timeline; less is an encoder's disorder.
JUMP_S_MAX = 3  # Further on is another timeline, unless another track is there as well.


class WaitingUnits:
    """Units by track, in order, bounded over all tracks in number and bytes."""

    def __init__(self, tracks: KnownTracks) -> None:
        self.by_track: dict[int, list[AccessUnit]] = {}
        self.payload_bytes = 0
        self._tracks = tracks

    def __bool__(self) -> bool:
        return any(self.by_track.values())

    @property
    def first_seqs(self) -> list[int]:
        """The oldest unit of each track that has any."""
        return [units[0].seq for units in self.by_track.values() if units]

    @property
    def full(self) -> bool:
        """Whether it must start with what there is."""
        return (
            self.payload_bytes >= WAITING_BYTES_MAX
            or sum(map(len, self.by_track.values())) >= WAITING_UNITS_MAX
        )

    def add(self, unit: AccessUnit) -> int:
        """Keep a unit; returns how many were dropped for it.

        A picture before the first random access is dropped itself, and what waited is when another
        timeline begins.
        """
        track = self._tracks.of(unit)
        units = self.by_track.setdefault(unit.track_id, [])
        if not units and track.kind is Kind.VIDEO and not unit.random_access:
            return 1
        dropped = 0
        if units:
            step = unit.dts - units[-1].dts
            if not -JUMP_BACK_S_MAX * track.timescale <= step <= JUMP_S_MAX * track.timescale:
                dropped = len(units)
                self.payload_bytes -= sum(len(waiting.payload) for waiting in units)
                units.clear()
            elif step <= 0:
                unit = unit.replaced(dts=units[-1].dts + 1)
        units.append(unit)
        self.payload_bytes += len(unit.payload)
        return dropped

    def is_measured(self, track_id: int) -> bool:
        """Whether enough of the track is there to judge its pace."""
        units = self.by_track.get(track_id, [])
        return bool(units) and is_measured(self._tracks.of(units[0]), [u.dts for u in units])

    def may_start(self) -> bool:
        """Whether the first renditions may begin: all tracks are measured, or late."""
        tracks = self._tracks
        kinds = tracks.kinds
        measured = [track_id for track_id in self.by_track if self.is_measured(track_id)]
        if len(kinds) > 1 and len(measured) == len(tracks):
            return True
        awaits_video = Kind.VIDEO in kinds and not any(
            units and tracks.kind(track_id) is Kind.VIDEO
            for track_id, units in self.by_track.items()
        )
        patience_s = START_VIDEO_S if awaits_video else START_S
        return any(
            units and units[-1].dts - units[0].dts >= patience_s * tracks.timescale(track_id)
            for track_id, units in self.by_track.items()
        )

    def take(self, track_ids: Iterable[int]) -> dict[int, list[AccessUnit]]:
        """Hand out all that waits of these tracks."""
        taken = {track_id: self.by_track.pop(track_id) for track_id in track_ids}
        self.count_bytes()
        return {track_id: units for track_id, units in taken.items() if units}

    def count_bytes(self) -> None:
        """Count the payloads that are held."""
        self.payload_bytes = sum(len(u.payload) for units in self.by_track.values() for u in units)

    def drop_before_video(self, starting: dict[int, list[AccessUnit]]) -> int:
        """Drop audio from before the first picture: it would make the first segments differ.

        That is the picture of the rung that will lead. Returns how many units.
        """
        tracks = self._tracks
        video = [key for key in starting if tracks.kind(key) is Kind.VIDEO]
        if not video:
            return 0
        first = starting[min(video)][0]
        timescale = tracks.timescale(first.track_id)
        dropped = 0
        for track_id, units in starting.items():
            if tracks.kind(track_id) is Kind.AUDIO:
                own = tracks.timescale(track_id)
                kept = [unit for unit in units if unit.dts * timescale >= first.dts * own]
                dropped += len(units) - len(kept)
                units[:] = kept
        return dropped
