"""The API's metrics."""

from edged.api.metrics import METRICS, ApiCounters, register
from edged.runtime.metrics import Metrics


def test_they_are_read_when_scraped() -> None:
    metrics, counters = Metrics(), ApiCounters()
    register(metrics, counters, role="pop ams1")
    counters.note("GET", "/api/v1/streams", 200, 0.25)
    counters.note("GET", "/api/v1/streams", 200, 0.5)
    counters.note("BREW", "other", 404, 0.0)
    counters.in_work = 2
    text = metrics.render().decode()
    labels = 'method="GET",role="pop ams1",route="/api/v1/streams",status="200"'
    assert f"edged_api_requests_total{{{labels}}} 2.0" in text
    assert 'method="any",role="pop ams1",route="other",status="404"} 1.0' in text
    assert 'seconds_total{role="pop ams1",route="/api/v1/streams"} 0.75' in text
    assert 'edged_api_requests_in_work{role="pop ams1"} 2.0' in text
    assert all(spec.name in text for spec in METRICS)


def test_strangers_make_no_new_series() -> None:
    counters = ApiCounters()
    for number in range(100):
        counters.note(f"M{number}", "other", 404, 0.0)
    assert counters.requests == {("any", "other", 404): 100}
