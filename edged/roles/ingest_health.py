"""The health of all streams published at a PoP, looked at once a second."""

from collections.abc import Callable, Iterable, Iterator

import structlog
import trio

from edged.media.events import HealthCleared, HealthWarned, StreamEvent, ignore_event
from edged.media.track import Track
from edged.policy.ingest_health import (
    CODES,
    TICK_S,
    Change,
    HealthReport,
    IngestHealthConfig,
    StreamHealth,
    TrackSample,
    WarningRaised,
)
from edged.runtime.hub import Hub, LiveStream
from edged.runtime.metrics import Metrics, MetricSpec, Sample
from edged.runtime.track_statistics import TrackStatistics

SLICE = 25  # Streams looked at without a pause: half a millisecond.
TICK_LATE_S_MAX = 0.5  # Later than this we have slept, and what has come may lie unread.

logger = structlog.get_logger("edged.health")

SPECS = (
    MetricSpec(
        name="edged_ingest_warnings",
        help="Streams that their broadcaster is warned of now, by what is wrong.",
        labels=("role", "code"),
    ),
    MetricSpec(
        name="edged_ingest_warned_total",
        help="Warnings raised, by what was wrong.",
        labels=("role", "code"),
    ),
)


class IngestHealth:
    """All live streams of one PoP."""

    def __init__(
        self,
        hub: Hub,
        config: IngestHealthConfig,
        *,
        now: Callable[[], float],
        unix_now: Callable[[], float],
        emit: Callable[[StreamEvent], object] = ignore_event,
    ) -> None:
        self._hub, self._config, self._emit = hub, config, emit
        self._now, self._unix_now = now, unix_now
        self._known: dict[LiveStream, StreamHealth | None] = {}  # None: judging it has failed.
        self._warned = dict.fromkeys(CODES, 0)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look once a second until cancelled, a few streams at a time: the pump must not wait."""
        task_status.started()
        while True:
            due = self._now() + TICK_S
            await trio.sleep(TICK_S)
            for _ in self._look(slept=self._now() - due > TICK_LATE_S_MAX):
                await trio.lowlevel.checkpoint()

    def tick(self, *, slept: bool = False) -> None:
        """Look at all streams; `slept` when we are late ourselves, which is no stream's fault."""
        for _ in self._look(slept=slept):
            pass

    def _look(self, *, slept: bool) -> Iterator[None]:
        """The same with a pause after every SLICE streams."""
        streams = list(self._hub)
        for number, stream in enumerate(streams, 1):
            if stream.ended is None:
                self._check(stream, slept=slept)
            if number % SLICE == 0:
                yield
        for gone in [stream for stream in self._known if stream.ended is not None]:
            del self._known[gone]

    def _check(self, stream: LiveStream, *, slept: bool) -> None:
        if stream not in self._known:
            self._known[stream] = StreamHealth(self._config.limits(stream.grant.priority))
        health = self._known[stream]
        if health is None:
            return
        try:
            samples = [
                take_sample(track, stream.track_statistics[track.track_id])
                for track in stream.tracks.values()
            ]
            now_ms = int(self._unix_now() * 1000)
            waits = stream.waiting_since is not None  # For its publisher: that is told otherwise.
            changes = health.tick(samples, self._now(), now_ms, slept=slept or waits)
        except Exception:  # A bug ends the judging of this stream, never the role.
            logger.exception("health check failed", channel=stream.channel)
            self._known[stream] = None
            return
        for change in changes:
            self._tell(stream, change)

    def health(self, channel: str) -> HealthReport | None:
        """How a stream is, as of the last second; None when it is not live here, or too new."""
        stream = self._hub.get(channel)
        health = None if stream is None else self._known.get(stream)
        if stream is None or health is None:
            return None
        return health.report(channel, f"{stream.stream_id.publication:x}")

    def register(self, metrics: Metrics, *, role: str) -> None:
        """Have the counts read at each scrape."""

        def read() -> Iterable[Sample]:
            current = dict.fromkeys(CODES, 0)
            for health in self._known.values():
                for warning in health.warnings if health is not None else ():
                    current[warning.code] += 1
            for code in CODES:
                labels = {"role": role, "code": code}
                yield Sample("edged_ingest_warnings", current[code], labels)
                yield Sample("edged_ingest_warned_total", self._warned[code], labels)

        metrics.register(SPECS, read)

    def _tell(self, stream: LiveStream, change: Change) -> None:
        channel, publication = stream.channel, f"{stream.stream_id.publication:x}"
        if isinstance(change, WarningRaised):
            warning = change.warning
            self._warned[warning.code] += 1
            self._emit(
                HealthWarned(
                    channel=channel,
                    publication=publication,
                    code=warning.code,
                    severity=warning.severity,
                    text=warning.text,
                    value=warning.value,
                    limit=warning.limit,
                )
            )
        else:
            self._emit(
                HealthCleared(
                    channel=channel,
                    publication=publication,
                    code=change.code,
                    lasted_s=change.lasted_s,
                )
            )


def take_sample(track: Track, counters: TrackStatistics) -> TrackSample:
    """What a track's counters say now."""
    config = track.config
    return TrackSample(
        track_id=track.track_id,
        kind=track.kind,
        timescale=track.timescale,
        units=counters.units,
        payload_bytes=counters.payload_bytes,
        random_accesses=counters.random_accesses,
        gop_us=counters.gop_us,
        last_dts=counters.last_dts,
        jumps=counters.jumps,
        jump_ticks=counters.jump_ticks,
        splices=counters.splices,
        uneven_ticks=counters.uneven_ticks,
        frame_rate=config.frame_rate_num / config.frame_rate_den if config.frame_rate_num else 0.0,
    )
