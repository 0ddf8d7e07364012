"""The API's metrics, read from its counters when they are scraped."""

from collections.abc import Iterator

from edged.runtime.metrics import Metrics, MetricSpec, Sample


class ApiCounters:
    """Counters since the start, by operation."""

    def __init__(self) -> None:
        self.requests: dict[tuple[str, str, int], int] = {}  # Method, route, status.
        self.seconds: dict[str, float] = {}  # By route, of those that waited for an answer.
        self.in_work = 0

    def note(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answer; `route` is an operation's path or "other": there are few of them."""
        key = (method if route != "other" else "any", route, status)
        self.requests[key] = self.requests.get(key, 0) + 1
        self.seconds[route] = self.seconds.get(route, 0.0) + seconds


METRICS = (
    MetricSpec(
        name="edged_api_requests_total",
        help="Requests to the API answered, by operation and status.",
        labels=("role", "method", "route", "status"),
    ),
    MetricSpec(
        name="edged_api_request_seconds_total",
        help="Time that these took, from whole request to answer.",
        labels=("role", "route"),
    ),
    MetricSpec(
        name="edged_api_requests_in_work",
        help="Requests to the API that are being answered now.",
        labels=("role",),
    ),
)


def register(metrics: Metrics, counters: ApiCounters, *, role: str) -> None:
    """Add one role's API metrics to the process's."""

    def read() -> Iterator[Sample]:
        labels = {"role": role}
        for (method, route, status), count in counters.requests.items():
            path = {**labels, "method": method, "route": route, "status": str(status)}
            yield Sample("edged_api_requests_total", count, path)
        for route, seconds in counters.seconds.items():
            yield Sample("edged_api_request_seconds_total", seconds, {**labels, "route": route})
        yield Sample("edged_api_requests_in_work", counters.in_work, labels)

    metrics.register(METRICS, read)
