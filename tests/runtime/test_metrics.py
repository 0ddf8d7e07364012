"""Metrics are read when scraped, and rendered as Prometheus expects."""

import pytest
from structlog.testing import capture_logs

from edged.runtime.metrics import Metrics, MetricSpec, Sample

SPECS = [
    MetricSpec(name="edged_test_units_total", help="Units.", labels=("pop",)),
    MetricSpec(name="edged_test_ring_bytes", help="Bytes."),
]


def test_render() -> None:
    metrics = Metrics()
    units = 0
    metrics.register(
        SPECS,
        lambda: [
            Sample("edged_test_units_total", units, {"pop": "a"}),
            Sample("edged_test_ring_bytes", 7),
        ],
    )
    metrics.register(SPECS, lambda: [Sample("edged_test_units_total", 2, {"pop": "b"})])
    units = 5
    text = metrics.render().decode()
    assert 'edged_test_units_total{pop="a"} 5.0' in text
    assert 'edged_test_units_total{pop="b"} 2.0' in text
    assert "edged_test_ring_bytes 7.0" in text
    assert text.count("# TYPE edged_test_units_total counter") == 1


def test_a_name_means_one_thing() -> None:
    metrics = Metrics()
    metrics.register(SPECS, list)
    with pytest.raises(AssertionError, match="means two things"):
        metrics.register([MetricSpec(name="edged_test_ring_bytes", help="Other.")], list)


def test_a_service_that_cannot_be_read_hides_no_other() -> None:
    metrics = Metrics()
    metrics.register(SPECS, lambda: [Sample("edged_test_ring_bytes", 1 / 0)])
    metrics.register(SPECS, lambda: [Sample("edged_test_units_total", 2, {"no": "such label"})])
    metrics.register(SPECS, lambda: [Sample("edged_test_ring_bytes", 7)])
    with capture_logs() as logs:
        text = metrics.render().decode()
    assert "edged_test_ring_bytes 7.0" in text
    assert "edged_metrics_failures_total 2.0" in text
    assert [line["event"] for line in logs] == ["metrics of a service failed"] * 2
