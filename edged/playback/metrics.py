"""The playback edge's metrics, read from its counters when they are scraped."""

from collections.abc import Iterator

import msgspec

from edged.playback.edge_cache import EdgeCache
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
        name="edged_playback_upgraded_total",
        help="Connections handed over to another protocol, as WebSocket.",
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
        name="edged_playback_segments_lost_total",
        help="Segments that were at an origin and that nobody had any more; playlists begin later.",
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
        name="edged_cache_hits_total",
        help="Requests for media that was in memory.",
        labels=("role",),
    ),
    MetricSpec(
        name="edged_cache_collapsed_total",
        help="Requests for media that was on its way for another, and came for both.",
        labels=("role",),
    ),
    MetricSpec(
        name="edged_cache_misses_total",
        help="First requests for media on its way from an origin, there by name, or on disk.",
        labels=("role",),
    ),
    MetricSpec(
        name="edged_cache_hit_ratio",
        help="Of the requests for media since the start those that were no misses.",
        labels=("role",),
    ),
    MetricSpec(
        name="edged_cache_fetches_total",
        help="Parts and inits pushed by an origin; segments asked of one; segments from disk.",
        labels=("role", "source"),
    ),
    MetricSpec(
        name="edged_cache_bytes",
        help="What is held now: in memory, in memory as read back or asked for, and on disk.",
        labels=("role", "place"),
    ),
    MetricSpec(
        name="edged_cache_spilled_total",
        help="Segments brought to disk.",
        labels=("role",),
    ),
    MetricSpec(
        name="edged_cache_dropped_total",
        help="Segments dropped for want of room in [playback.cache].",
        labels=("role",),
    ),
    MetricSpec(
        name="edged_cache_lost_total",
        help="Segments on disk that could not be read.",
        labels=("role",),
    ),
    MetricSpec(
        name="edged_cache_disk_usable",
        help="Whether media goes to disk now; 0 without [playback.cache] directory, too.",
        labels=("role",),
    ),
    MetricSpec(
        name="edged_cache_disk_failures_total",
        help="Attempts to make the folder or to write that failed.",
        labels=("role",),
    ),
    MetricSpec(
        name="edged_playback_manifests_total",
        help="Requests for DASH manifests.",
        labels=("role",),
    ),
    MetricSpec(
        name="edged_playback_viewers",
        help="Viewers of a channel here, estimated from requests for playlists and manifests.",
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
        yield Sample("edged_playback_upgraded_total", http.upgraded_total, labels)
        yield Sample("edged_playback_streams", hls.streams, labels)
        yield Sample("edged_playback_window_bytes", hls.payload_bytes, labels)
        yield Sample("edged_playback_blocked_requests", hls.blocked, labels)
        yield Sample("edged_playback_released_total", hls.released_total, labels)
        yield Sample("edged_playback_fenced_total", hls.fenced_total, labels)
        yield Sample("edged_playback_parts_refused_total", hls.parts_refused_total, labels)
        yield Sample("edged_playback_parts_missing_total", hls.parts_missing_total, labels)
        yield Sample("edged_playback_segments_missing_total", hls.segments_missing_total, labels)
        yield Sample("edged_playback_segments_lost_total", hls.segments_lost_total, labels)
        yield Sample("edged_playback_evicted_early_total", hls.segments_evicted_early_total, labels)
        yield Sample(
            "edged_playback_evicted_needed_total", hls.segments_evicted_needed_total, labels
        )
        yield from _read_cache(service.cache, server.stood_total() + service.hits, labels)
        yield Sample("edged_playback_manifests_total", hls.manifests_total, labels)
        for channel in service.watched():
            viewers = service.viewers(channel)
            yield Sample("edged_playback_viewers", viewers, {**labels, "channel": channel})

    metrics.register(METRICS, read)


def _read_cache(cache: EdgeCache, ready: int, labels: dict[str, str]) -> Iterator[Sample]:
    """`ready`: hits that did not get as far as the cache."""
    held = cache.statistics()
    counters = msgspec.structs.replace(cache.counters, hits=cache.counters.hits + ready)
    yield Sample("edged_cache_hits_total", counters.hits, labels)
    yield Sample("edged_cache_collapsed_total", counters.collapsed, labels)
    yield Sample("edged_cache_misses_total", counters.misses, labels)
    yield Sample("edged_cache_hit_ratio", counters.hit_ratio, labels)
    for source, count in (
        ("origin", counters.fetched_origin),
        ("asked", counters.fetched_asked),
        ("disk", counters.fetched_disk),
    ):
        yield Sample("edged_cache_fetches_total", count, {**labels, "source": source})
    for place, size in (
        ("memory", held.memory_bytes),
        ("read back", held.read_back_bytes),
        ("disk", held.stored_bytes),
    ):
        yield Sample("edged_cache_bytes", size, {**labels, "place": place})
    yield Sample("edged_cache_spilled_total", counters.spilled, labels)
    yield Sample("edged_cache_dropped_total", counters.dropped, labels)
    yield Sample("edged_cache_lost_total", counters.lost, labels)
    yield Sample("edged_cache_disk_usable", held.disk_usable, labels)
    yield Sample("edged_cache_disk_failures_total", cache.disk_failures, labels)
