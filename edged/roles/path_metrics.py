"""Metrics of the paths between PoPs and origins, at both ends."""

from collections.abc import Iterator

from edged.backbone.probe_answers import ProbeAnswers
from edged.policy.pop_view import PopView
from edged.runtime.metrics import MetricSpec, Sample

_PATH = ("role", "origin")
SPECS = (
    MetricSpec(
        name="edged_backbone_path_rtt_seconds",
        help="Smoothed round trip of the path alone, by probes, else TCP's.",
        labels=_PATH,
    ),
    MetricSpec(
        name="edged_backbone_path_jitter_seconds",
        help="Mean deviation of the probes' round trips.",
        labels=_PATH,
    ),
    MetricSpec(
        name="edged_backbone_path_loss",
        help="The part of the last 10 s' probes, else of TCP's segments, that was lost.",
        labels=_PATH,
    ),
    MetricSpec(
        name="edged_backbone_path_goodput_bytes_per_second",
        help="Bytes per second that TCP delivers to this origin, as measured lately.",
        labels=_PATH,
    ),
    MetricSpec(
        name="edged_backbone_path_silent_seconds",
        help="For how long nothing has come back although it should have.",
        labels=_PATH,
    ),
    MetricSpec(
        name="edged_backbone_path_probed",
        help="1 if probes come back, 0 if TCP alone tells of the path.",
        labels=_PATH,
    ),
)
ANSWER_SPECS = (
    MetricSpec(
        name="edged_backbone_probes_answered_total",
        help="Probes of PoPs that this origin answered.",
        labels=("role",),
    ),
    MetricSpec(
        name="edged_backbone_probes_ignored_total",
        help="Datagrams that are malformed, forged, or had come before.",
        labels=("role",),
    ),
    MetricSpec(
        name="edged_backbone_probes_limited_total",
        help="Probes not answered as their PoP sent too many.",
        labels=("role",),
    ),
)


def read_paths(role: str, view: PopView) -> Iterator[Sample]:
    """Values of SPECS, of the origins in a PoP's table."""
    for origin in view.by_name:
        path = view.path(origin)
        if path is None:
            continue
        values = (
            path.rtt_ms / 1000,
            path.jitter_ms / 1000,
            path.loss,
            path.goodput_mbps * 1e6 / 8,
            path.silent_s,
            int(path.probed),
        )
        for spec, value in zip(SPECS, values, strict=True):
            yield Sample(spec.name, value, {"role": role, "origin": origin})


def read_answers(role: str, probes: ProbeAnswers) -> Iterator[Sample]:
    """Values of ANSWER_SPECS."""
    counts = probes.statistics()
    values = (counts.answered, counts.ignored, counts.limited)
    for spec, value in zip(ANSWER_SPECS, values, strict=True):
        yield Sample(spec.name, value, {"role": role})
