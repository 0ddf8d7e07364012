"""Metrics: one Prometheus registry per process, filled when it is scraped.

Hot paths keep plain integers; a collector reads them at scrape time: counting costs nothing here.
A service whose values cannot be read is left out of that scrape, which is logged and counted.
"""

from collections.abc import Callable, Iterable

import structlog
from msgspec import Struct
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

logger = structlog.get_logger("edged.metrics")

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Sample(Struct, frozen=True):
    """One value of one metric now. Counters' names end in `_total`."""

    name: str
    value: float
    labels: dict[str, str] = {}


class MetricSpec(Struct, frozen=True, kw_only=True):
    """What a metric means; the README's reference is checked against these."""

    name: str
    help: str
    labels: tuple[str, ...] = ()


Read = Callable[[], Iterable[Sample]]

FAILURES = MetricSpec(
    name="edged_metrics_failures_total",
    help="Services whose values could not be read at a scrape; the log has it.",
)


Family = CounterMetricFamily | GaugeMetricFamily


class Metrics(Collector):
    """The metrics of the services in this process."""

    def __init__(self) -> None:
        self.specs: dict[str, MetricSpec] = {}
        self._reads: list[Read] = []
        self._failures = 0
        self._registry = CollectorRegistry()
        self.register([FAILURES], lambda: [Sample(FAILURES.name, self._failures)])
        self._registry.register(self)

    def register(self, specs: Iterable[MetricSpec], read: Read) -> None:
        """Add a service's metrics; several instances of a service may give the same specs."""
        for spec in specs:
            assert self.specs.get(spec.name, spec) == spec, f"metric {spec.name} means two things"
            self.specs[spec.name] = spec
        self._reads.append(read)

    def collect(self) -> Iterable[Metric]:
        """Read every service; what prometheus_client calls at each scrape."""
        families: dict[str, Family] = {}
        # The count of failures, which was registered first, last: with those of this scrape.
        for read in (*self._reads[1:], self._reads[0]):
            try:
                for sample in read():
                    self._add(families, sample)
            except Exception:  # A service's bug must not make the others' values unseen.
                self._failures += 1
                logger.exception("metrics of a service failed", read=repr(read))
        return families.values()

    def _add(self, families: dict[str, Family], sample: Sample) -> None:
        spec = self.specs[sample.name]
        family = families.get(spec.name)
        if family is None:
            kind = CounterMetricFamily if spec.name.endswith("_total") else GaugeMetricFamily
            family = families[spec.name] = kind(spec.name, spec.help, labels=spec.labels)
        family.add_metric([sample.labels[label] for label in spec.labels], sample.value)

    def render(self) -> bytes:
        """The exposition that a scraper gets."""
        return generate_latest(self._registry)
