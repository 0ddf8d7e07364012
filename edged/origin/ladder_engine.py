"""The ladder of one stream: units of the source in, tracks and units of the rungs out.

It does one thing at a time, in the order of the source's units; the encoders' threads are all that
runs beside it. What FFmpeg says of broken input is counted, and the stream goes on.
"""

from msgspec import Struct

from edged.errors import EdgedError
from edged.media.access_unit import AccessUnit
from edged.media.ladder import LadderPlan
from edged.media.track import CodecConfig, Track
from edged.origin.ladder_audio import AudioLadder
from edged.origin.ladder_video import VideoLadder

CONFIGS_MAX = 64  # Of all tracks; units in flight name the last of their track or the one before.

Output = Track | AccessUnit


class EngineStatistics(Struct, frozen=True, kw_only=True):
    """Counters of a ladder."""

    units_taken: int
    units_made: int
    pictures: int  # Decoded.
    errors: int  # Units that could not be decoded.
    corrected_samples: int


class LadderEngine:
    """Makes what a plan says."""

    def __init__(self, plan: LadderPlan) -> None:
        self._plan = plan
        self._tracks: dict[int, Track] = {}
        self._configs: dict[tuple[int, int], CodecConfig] = {}
        self._video: VideoLadder | None = None
        self._audio: dict[int, AudioLadder] = {}  # By the source's track.
        self._taken = self._made = 0

    def set_plan(self, plan: LadderPlan) -> list[Output]:
        """Make this from the next random access on."""
        out: list[Output] = []
        if plan.video_track_id != self._plan.video_track_id and self._video is not None:
            out += self._video.finish()
            self._video = None
        self._plan = plan
        if self._video is not None:
            self._video.set_plan(plan)
        wanted = {rung.source_track_id: rung for rung in plan.audio}
        for track_id, maker in list(self._audio.items()):
            if maker.rung != wanted.get(track_id):
                out += maker.finish()
                del self._audio[track_id]
        return self._count(out)

    def set_track(self, track: Track) -> None:
        """A track of the source is new, or units from now on need this configuration."""
        self._tracks[track.track_id] = track
        self._configs[track.track_id, track.config_id] = track.config
        if len(self._configs) > CONFIGS_MAX:
            del self._configs[next(iter(self._configs))]

    def want(self, names: frozenset[str]) -> list[Output]:
        """Make only these rungs of video, until the plan changes."""
        return self._count([] if self._video is None else self._video.want(names))

    def take(self, unit: AccessUnit) -> list[Output]:
        """What the next unit of the source completes. Raises EdgedError if it fits no track."""
        self._taken += 1
        track_id = unit.track_id
        track = self._tracks.get(track_id)
        config = self._configs.get((track_id, unit.config_id))
        if track is None or config is None:
            raise EdgedError(f"unit {unit.seq}: config {unit.config_id} of track {track_id} is new")
        if track_id == self._plan.video_track_id and self._plan.video:
            if self._video is None:
                self._video = VideoLadder(self._plan, track)
            return self._count(self._video.take(unit, config))
        maker = self._audio.get(track_id)
        if maker is None:
            rung = next((r for r in self._plan.audio if r.source_track_id == track_id), None)
            if rung is None:
                return []
            maker = self._audio[track_id] = AudioLadder(rung, track)
        return self._count(maker.take(unit, config))

    def finish(self) -> list[Output]:
        """Everything that is held back; the source has ended."""
        out: list[Output] = [] if self._video is None else self._video.finish()
        for maker in self._audio.values():
            out += maker.finish()
        return self._count(out)

    def statistics(self) -> EngineStatistics:
        """What it has done."""
        errors = sum(maker.errors for maker in self._audio.values())
        return EngineStatistics(
            units_taken=self._taken,
            units_made=self._made,
            pictures=0 if self._video is None else self._video.pictures,
            errors=errors + (0 if self._video is None else self._video.errors),
            corrected_samples=sum(maker.corrected_samples for maker in self._audio.values()),
        )

    def _count(self, out: list[Output]) -> list[Output]:
        """Number units in the order in which they come out."""
        for each in out:
            if isinstance(each, AccessUnit):
                each.seq = self._made
                self._made += 1
        return out
