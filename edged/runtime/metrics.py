"""Metrics: one Prometheus registry per process, filled when it is scraped.

Hot paths keep plain integers; a collector reads them at scrape time: counting costs nothing here.
"""

from collections.abc import Callable, Iterable

from msgspec import Struct
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

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


class Metrics(Collector):
    """The metrics of the services in this process."""

    def __init__(self) -> None:
        self.specs: dict[str, MetricSpec] = {}
        self._reads: list[Read] = []
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def register(self, specs: Iterable[MetricSpec], read: Read) -> None:
        """Add a service's metrics; several instances of a service may give the same specs."""
        for spec in specs:
            assert self.specs.get(spec.name, spec) == spec, f"metric {spec.name} means two things"
            self.specs[spec.name] = spec
        self._reads.append(read)

    def collect(self) -> Iterable[Metric]:
        """Read every service; what prometheus_client calls at each scrape."""
        families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for read in self._reads:
            for sample in read():
                spec = self.specs[sample.name]
                family = families.get(spec.name)
                if family is None:
                    kind = (
                        CounterMetricFamily if spec.name.endswith("_total") else GaugeMetricFamily
                    )
                    family = families[spec.name] = kind(spec.name, spec.help, labels=spec.labels)
                family.add_metric([sample.labels[label] for label in spec.labels], sample.value)
        return families.values()

    def render(self) -> bytes:
        """The exposition that a scraper gets."""
        return generate_latest(self._registry)
