"""What a PoP tells of its publishers and of its links to origins."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from edged.runtime.metrics import MetricSpec, Sample

if TYPE_CHECKING:
    from edged.roles.pop import PopRole

SPECS = (
    MetricSpec(name="edged_ingest_accepted_total", help="Publications accepted.", labels=("role",)),
    MetricSpec(name="edged_ingest_refused_total", help="Publishers refused.", labels=("role",)),
    MetricSpec(
        name="edged_ingest_waiting",
        help="Streams that wait for a publisher that has lost its connection.",
        labels=("role",),
    ),
    MetricSpec(
        name="edged_ingest_returned_total",
        help="Publishers that came back in time, to the same stream.",
        labels=("role",),
    ),
    MetricSpec(
        name="edged_backbone_sessions",
        help="Sessions that are up, of four: control and three classes.",
        labels=("role", "origin"),
    ),
    MetricSpec(
        name="edged_backbone_forwardings",
        help="Streams that go to this origin.",
        labels=("role", "origin"),
    ),
    MetricSpec(
        name="edged_backbone_subscriptions",
        help="Channels whose parts come from this origin.",
        labels=("role", "origin"),
    ),
    MetricSpec(
        name="edged_backbone_reconnects_total",
        help="Sessions that were lost and made anew.",
        labels=("role", "origin"),
    ),
    MetricSpec(
        name="edged_backbone_units_skipped_total",
        help="Units that a stream without credit left behind in its ring.",
        labels=("role", "origin"),
    ),
    MetricSpec(
        name="edged_backbone_rtt_seconds",
        help="Smoothed round trip to this origin, through both ends' queues.",
        labels=("role", "origin"),
    ),
)


def read(pop: "PopRole") -> Iterable[Sample]:
    """Values of SPECS."""
    labels = {"role": pop.name}
    yield Sample("edged_ingest_accepted_total", pop.door.accepted_total, labels)
    yield Sample("edged_ingest_refused_total", pop.door.refused_total, labels)
    yield Sample("edged_ingest_waiting", pop.door.waiting, labels)
    yield Sample("edged_ingest_returned_total", pop.door.returned_total, labels)
    for link in pop.uplinks.statistics():
        path = {**labels, "origin": link.origin}
        yield Sample("edged_backbone_sessions", len(link.up), path)
        yield Sample("edged_backbone_forwardings", link.forwardings, path)
        yield Sample("edged_backbone_subscriptions", link.subscriptions, path)
        yield Sample("edged_backbone_reconnects_total", link.reconnects, path)
        yield Sample("edged_backbone_units_skipped_total", link.units_skipped, path)
        if link.control is not None and link.control.rtt_s is not None:
            yield Sample("edged_backbone_rtt_seconds", link.control.rtt_s, path)
