"""The tracks of a stream as a segmenter knows them: configurations, and names of renditions."""

from edged.errors import RemoteProtocolError
from edged.media.access_unit import AccessUnit
from edged.media.track import Kind, Track

TRACKS_MAX = 32  # What a window takes.
CONFIGS_MAX = 4  # Of a track: units in flight name the last one or the one before.


class KnownTracks:
    """Tracks by id; video becomes the renditions v0, v1, ..., audio a0, a1, ... as they begin."""

    def __init__(self) -> None:
        self.configs: dict[int, dict[int, Track]] = {}  # By track and configuration.
        self.names: dict[int, str] = {}  # Of their renditions.

    def __contains__(self, track_id: int) -> bool:
        return track_id in self.configs

    def __len__(self) -> int:
        return len(self.configs)

    def add(self, track: Track) -> None:
        """Take a track, or its new configuration. Raises RemoteProtocolError past a limit."""
        track_id = track.track_id
        configs = self.configs.get(track_id)
        if track.timescale <= 0 or (
            configs is not None
            and (track.kind, track.timescale) != (self.kind(track_id), self.timescale(track_id))
        ):
            raise RemoteProtocolError(
                f"track {track_id} may not become {track.kind} of timescale {track.timescale}"
            )
        if configs is None:
            if len(self.configs) >= TRACKS_MAX:
                raise RemoteProtocolError(f"track {track_id} exceeds {TRACKS_MAX} tracks")
            configs = self.configs[track_id] = {}
        configs[track.config_id] = track
        if len(configs) > CONFIGS_MAX:
            del configs[min(configs)]

    def name(self, track: Track) -> str:
        """The name of the track's rendition, given when it is first asked for."""
        if track.track_id not in self.names:
            taken = sum(name.startswith(track.kind[0]) for name in self.names.values())
            self.names[track.track_id] = f"{track.kind[0]}{taken}"
        return self.names[track.track_id]

    def of(self, unit: AccessUnit) -> Track:
        """The track with the configuration that the unit names. Raises RemoteProtocolError."""
        track = self.configs[unit.track_id].get(unit.config_id)
        if track is None:
            raise RemoteProtocolError(
                f"unit {unit.seq} of track {unit.track_id} names unknown config {unit.config_id}"
            )
        return track

    def kind(self, track_id: int) -> Kind:
        """What the track carries; this never changes."""
        return next(iter(self.configs[track_id].values())).kind

    def timescale(self, track_id: int) -> int:
        """Its ticks per second, which never change either."""
        return next(iter(self.configs[track_id].values())).timescale

    @property
    def kinds(self) -> set[Kind]:
        """The kinds that there are."""
        return {self.kind(track_id) for track_id in self.configs}
