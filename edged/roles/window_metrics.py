"""What an origin's metrics say of the segments that it keeps, and gives to PoPs by name."""

from collections.abc import Iterator

from edged.backbone.segments_out import SegmentsOutStatistics
from edged.origin.service import OriginStatistics
from edged.runtime.metrics import MetricSpec, Sample

SPECS = (
    MetricSpec(
        name="edged_origin_window_bytes",
        help="Media that is kept for PoPs that come late: in memory, and on disk.",
        labels=("role", "place"),
    ),
    MetricSpec(
        name="edged_origin_segments_given_total",
        help="Segments that PoPs asked for by name, and got.",
        labels=("role",),
    ),
    MetricSpec(
        name="edged_origin_segments_given_bytes_total",
        help="Their bytes, as they went out.",
        labels=("role",),
    ),
    MetricSpec(
        name="edged_origin_segments_refused_total",
        help="Segments that PoPs asked for and did not get: most are no longer kept.",
        labels=("role",),
    ),
    MetricSpec(
        name="edged_origin_spilled_total",
        help="Segments brought to disk.",
        labels=("role",),
    ),
    MetricSpec(
        name="edged_origin_dropped_total",
        help="Segments dropped for want of room in [origin.cache].",
        labels=("role",),
    ),
    MetricSpec(
        name="edged_origin_lost_total",
        help="Segments on disk that could not be read.",
        labels=("role",),
    ),
    MetricSpec(
        name="edged_origin_evicted_early_total",
        help="Segments dropped early, as their stream had reached payload_bytes_max.",
        labels=("role",),
    ),
    MetricSpec(
        name="edged_origin_disk_usable",
        help="Whether media goes to disk now; 0 without [origin.cache] directory, too.",
        labels=("role",),
    ),
    MetricSpec(
        name="edged_origin_disk_failures_total",
        help="Attempts to make the folder or to write that failed.",
        labels=("role",),
    ),
)


def read_window_metrics(
    role: str, kept: OriginStatistics, out: SegmentsOutStatistics
) -> Iterator[Sample]:
    """Values of SPECS."""
    labels = {"role": role}
    for place, size in (("memory", kept.window_bytes), ("disk", kept.stored_bytes)):
        yield Sample("edged_origin_window_bytes", size, {**labels, "place": place})
    yield Sample("edged_origin_segments_given_total", out.given, labels)
    yield Sample("edged_origin_segments_given_bytes_total", out.given_bytes, labels)
    yield Sample("edged_origin_segments_refused_total", out.refused, labels)
    yield Sample("edged_origin_spilled_total", kept.spilled_total, labels)
    yield Sample("edged_origin_dropped_total", kept.dropped_total, labels)
    yield Sample("edged_origin_lost_total", kept.lost_total, labels)
    yield Sample("edged_origin_evicted_early_total", kept.evicted_early_total, labels)
    yield Sample("edged_origin_disk_usable", kept.disk_usable, labels)
    yield Sample("edged_origin_disk_failures_total", kept.disk_failures_total, labels)
