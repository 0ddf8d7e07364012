"""The live-stream hub: the publications of this process, their rings and readers' wake-ups.

All of it is synchronous: whoever appends (ingest plug-in, backbone receiver) wakes the readers
once per batch; a reader's wake only notes that there is work for the end of the pump's turn. A
reader that fails is woken no more: its bug harms neither the other readers nor who appends. The hub
has no task and holds what all others share: it can't be begun anew but with its role and process.
"""

from collections.abc import Callable, Iterator, Sequence

import structlog

from edged.errors import EdgedError
from edged.media.access_unit import AccessUnit
from edged.media.gop_ring import GopRing
from edged.media.stream import Grant, StreamId
from edged.media.track import CodecConfig, Track
from edged.runtime.track_statistics import TrackStatistics

RING_BYTES_MAX = 24 * 2**20  # Two GOPs of 2 s at 30 Mbps, and half as much again.
RING_US_MAX = 20_000_000  # Two GOPs of OBS's default of 8.3 s, and a little.
TRACKS_MAX = 16  # Above any multitrack encoder seen.
CONFIGS_MAX = 64  # Configurations of a publication that readers may still ask for.

logger = structlog.get_logger("edged.hub")

Wake = Callable[["LiveStream"], None]


class FencedError(EdgedError):
    """A publication or epoch older than the one that is live tried to go on."""


class LiveStream:
    """One publication in this process."""

    def __init__(
        self, stream_id: StreamId, grant: Grant, *, started_at: float, came_from: str
    ) -> None:
        self.stream_id = stream_id
        self.grant = grant
        self.started_at = started_at  # Monotonic.
        self.came_from = came_from  # Where its units come from: "rtmp 10.0.0.7:50112".
        self.encoder = ""  # As the broadcaster's program names itself, where it is published.
        self.ring = GopRing(bytes_max=RING_BYTES_MAX, duration_us_max=RING_US_MAX)
        self.tracks: dict[int, Track] = {}
        self.track_statistics: dict[int, TrackStatistics] = {}
        self.ended: str | None = None
        self.goes_on = False  # It ended in this process only: another has it now.
        self.waiting_since: float | None = None  # Monotonic: its publisher is lost, may come back.
        self._configs: dict[tuple[int, int], CodecConfig] = {}
        self._wakes: dict[int, Wake] = {}
        self._wake_ids = 0

    @property
    def channel(self) -> str:
        """The lasting name."""
        return self.stream_id.channel

    @property
    def units(self) -> int:
        """Access units of all tracks so far."""
        return sum(known.units for known in self.track_statistics.values())

    def append(self, units: Sequence[AccessUnit]) -> None:
        """Take units in `seq` order and wake the readers once."""
        assert self.ended is None, "a publication that ended takes no units"
        ring = self.ring
        for unit in units:
            ring.append(unit)
            statistics = self.track_statistics[unit.track_id]
            statistics.units += 1
            statistics.payload_bytes += len(unit.payload)
            step = unit.dts - statistics.last_dts
            statistics.uneven_ticks += abs(step - statistics.step_ticks)
            statistics.step_ticks, statistics.last_dts = step, unit.dts
            if unit.random_access:
                statistics.random_accesses += 1
                if statistics.gop_started_us and not unit.discontinuity:
                    statistics.gop_us = unit.wallclock_us - statistics.gop_started_us
                statistics.gop_started_us = unit.wallclock_us
        self._wake()

    def note_jump(self, track_id: int, ticks: int) -> None:
        """The timestamps of a track have jumped; rare, so `append` need not look for it."""
        statistics = self.track_statistics[track_id]
        statistics.jumps += 1
        statistics.jump_ticks = ticks

    def note_splice(self, track_id: int) -> None:
        """Another publisher goes on with a track, by its own clock."""
        self.track_statistics[track_id].splices += 1

    def set_track(self, track: Track) -> None:
        """Add a track, or give it a new configuration; units of it name its `config_id`."""
        if track.track_id not in self.tracks and len(self.tracks) >= TRACKS_MAX:
            raise EdgedError(
                f"channel {self.channel!r}: more than {TRACKS_MAX} tracks in one publication"
            )
        self.tracks[track.track_id] = track
        self.track_statistics.setdefault(track.track_id, TrackStatistics())
        self._configs[track.track_id, track.config_id] = track.config
        if len(self._configs) > CONFIGS_MAX:
            del self._configs[next(iter(self._configs))]
        self._wake()

    def config(self, track_id: int, config_id: int) -> CodecConfig | None:
        """The configuration that a unit names; None when it is so old that it is gone."""
        return self._configs.get((track_id, config_id))

    def watch(self, wake: Wake) -> Callable[[], None]:
        """Call `wake` after every append, track change and the end; returns how to stop."""
        self._wake_ids += 1
        wake_id = self._wake_ids
        self._wakes[wake_id] = wake

        def unwatch() -> None:
            self._wakes.pop(wake_id, None)

        return unwatch

    def trim_below(self, seq: int) -> None:
        """Units below are packaged at the origin; the ring may let them go when it needs room."""
        self.ring.trim_below(seq)

    def end(self, reason: str) -> None:
        """No more units; the readers are woken for the last time."""
        if self.ended is None:
            self.ended = reason
            self._wake()

    def _wake(self) -> None:
        for wake_id, wake in tuple(self._wakes.items()):
            try:
                wake(self)
            except Exception:  # Else it would unwind into the session of many streams.
                logger.exception("reader failed", channel=self.channel, reader=repr(wake))
                self._wakes.pop(wake_id, None)


class Hub:
    """The publications of one process, by channel; the newest one only."""

    def __init__(self) -> None:
        self._streams: dict[str, LiveStream] = {}
        self._units_before = 0  # Of the publications that are gone.

    def open(
        self, stream_id: StreamId, grant: Grant, *, started_at: float, came_from: str
    ) -> LiveStream:
        """Begin a publication; an older one of the channel ends, an older newcomer is fenced."""
        live = self._streams.get(stream_id.channel)
        if live is not None:
            if stream_id <= live.stream_id:
                raise FencedError(
                    f"fenced: channel {stream_id.channel!r} publication {stream_id.publication:x} "
                    f"epoch {stream_id.home_epoch} is not newer than "
                    f"{live.stream_id.publication:x} epoch {live.stream_id.home_epoch}"
                )
            self._units_before += live.units
            live.end("taken over by a newer publication")
        stream = LiveStream(stream_id, grant, started_at=started_at, came_from=came_from)
        self._streams[stream_id.channel] = stream
        return stream

    def get(self, channel: str) -> LiveStream | None:
        """The live publication of a channel."""
        return self._streams.get(channel)

    def close(self, stream: LiveStream, reason: str) -> None:
        """End a publication and forget it, unless a newer one has taken its place."""
        stream.end(reason)
        if self._streams.get(stream.channel) is stream:
            self._units_before += stream.units
            del self._streams[stream.channel]

    def __iter__(self) -> Iterator[LiveStream]:
        return iter(list(self._streams.values()))

    def __len__(self) -> int:
        return len(self._streams)

    @property
    def units_total(self) -> int:
        """Access units of all publications there were."""
        return self._units_before + sum(stream.units for stream in self._streams.values())

    @property
    def ring_bytes(self) -> int:
        """Payload bytes held by all rings: what the metric `edged_hub_ring_bytes` says."""
        return sum(stream.ring.payload_bytes for stream in self._streams.values())
