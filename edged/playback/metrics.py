"""The playback edge's metrics, read from its counters when they are scraped."""

from collections.abc import Iterator

from edged.playback.hls import HlsService
from edged.playback.http import HttpServer
from edged.runtime.metrics import Metrics, MetricSpec, Sample

METRICS = (
    MetricSpec(
        name="edged_playback_connections", help="Viewers' connections open now.", labels=("role",)
    ),
    MetricSpec(
        name="edged_playback_multiplexed_connections",
        help="Of these, those over HTTP/2.",
        labels=("role",),
    ),
    MetricSpec(
        name="edged_playback_connections_total",
        help="Viewers' connections accepted.",
        labels=("role",),
    ),
    MetricSpec(
        name="edged_playback_responses_total",
        help="HTTP responses by status.",
        labels=(
            "role",
            "status",
        ),
    ),
    MetricSpec(
        name="edged_playback_body_bytes_total",
        help="Bytes of response bodies queued for viewers.",
        labels=("role",),
    ),
    MetricSpec(
        name="edged_playback_refused_total",
        help="Connections closed for a malformed or excessive request.",
        labels=("role",),
    ),
    MetricSpec(
        name="edged_playback_stalled_total",
        help="Connections dropped because they read too slowly.",
        labels=("role",),
    ),
    MetricSpec(
        name="edged_playback_streams", help="Runs of channels held here now.", labels=("role",)
    ),
    MetricSpec(
        name="edged_playback_window_bytes",
        help="Bytes of media held for viewers now.",
        labels=("role",),
    ),
    MetricSpec(
        name="edged_playback_blocked_requests",
        help="Requests blocked on media now.",
        labels=("role",),
    ),
    MetricSpec(
        name="edged_playback_released_total",
        help="Blocked requests answered by new media.",
        labels=("role",),
    ),
    MetricSpec(
        name="edged_playback_fenced_total",
        help="Batches of events dropped because a newer run or epoch is here.",
        labels=("role",),
    ),
    MetricSpec(
        name="edged_playback_parts_refused_total",
        help="Parts not taken: of a replay, or from before the first whole segment.",
        labels=("role",),
    ),
    MetricSpec(
        name="edged_playback_parts_missing_total",
        help="Parts that never came; players see gaps.",
        labels=("role",),
    ),
    MetricSpec(
        name="edged_playback_segments_missing_total",
        help="Segments of which nothing came; players see gaps.",
        labels=("role",),
    ),
    MetricSpec(
        name="edged_playback_evicted_early_total",
        help="Segments dropped early, as their stream had reached payload_bytes_max.",
        labels=("role",),
    ),
    MetricSpec(
        name="edged_playback_evicted_needed_total",
        help="Of these, segments that players may still have asked for.",
        labels=("role",),
    ),
    MetricSpec(
        name="edged_playback_viewers",
        help="Viewers of a channel here, estimated from playlist requests.",
        labels=(
            "role",
            "channel",
        ),
    ),
)


def register(metrics: Metrics, server: HttpServer, service: HlsService, *, role: str) -> None:
    """Add one role's playback metrics to the process's."""

    def read() -> Iterator[Sample]:
        labels = {"role": role}
        http, hls = server.statistics(), service.statistics()
        yield Sample("edged_playback_connections", http.connections, labels)
        yield Sample("edged_playback_multiplexed_connections", http.h2_connections, labels)
        yield Sample("edged_playback_connections_total", http.connections_total, labels)
        for status, count in http.responses_total.items():
            yield Sample("edged_playback_responses_total", count, {**labels, "status": str(status)})
        yield Sample("edged_playback_body_bytes_total", http.body_bytes_total, labels)
        yield Sample("edged_playback_refused_total", http.refused_total, labels)
        yield Sample("edged_playback_stalled_total", http.stalled_total, labels)
        yield Sample("edged_playback_streams", hls.streams, labels)
        yield Sample("edged_playback_window_bytes", hls.payload_bytes, labels)
        yield Sample("edged_playback_blocked_requests", hls.blocked, labels)
        yield Sample("edged_playback_released_total", hls.released_total, labels)
        yield Sample("edged_playback_fenced_total", hls.fenced_total, labels)
        yield Sample("edged_playback_parts_refused_total", hls.parts_refused_total, labels)
        yield Sample("edged_playback_parts_missing_total", hls.parts_missing_total, labels)
        yield Sample("edged_playback_segments_missing_total", hls.segments_missing_total, labels)
        yield Sample("edged_playback_evicted_early_total", hls.segments_evicted_early_total, labels)
        yield Sample(
            "edged_playback_evicted_needed_total", hls.segments_evicted_needed_total, labels
        )
        for channel in service.watched():
            viewers = service.viewers(channel)
            yield Sample("edged_playback_viewers", viewers, {**labels, "channel": channel})

    metrics.register(METRICS, read)
