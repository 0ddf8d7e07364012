"""Faults of edged that something contained: counted where they are logged.

Whoever catches what should not have been raised logs it with its traceback (`exc_info`) and goes
on. This processor of structlog counts such lines by their event, before any of them is dropped.
"""

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Protocol

from structlog.typing import EventDict

from edged.runtime.metrics import MetricSpec, Sample

EVENTS_MAX = 200  # Names of events are constants of the program; a plug-in's may not be.
OTHER = "other"

SPECS = (
    MetricSpec(
        name="edged_faults_total",
        help="Faults of edged that ended less than the process, by the event that the log has.",
        labels=("event",),
    ),
)


class Exceptions(Protocol):
    """A logger, as far as it is needed here."""

    def exception(self, event: str, **fields: object) -> object:
        """Log with the traceback of what is being handled."""


# Of the process, as structlog's configuration is.
_counts: Counter[str] = Counter()


def count_faults(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Count a line that has a traceback."""
    if event.get("exc_info"):
        name = str(event.get("event"))
        _counts[name if name in _counts or len(_counts) < EVENTS_MAX else OTHER] += 1
    return event


def read_faults() -> Iterable[Sample]:
    """The counts of now."""
    return [Sample(SPECS[0].name, count, {"event": name}) for name, count in _counts.items()]


@contextlib.contextmanager
def contained(logger: Exceptions, event: str, **fields: object) -> Iterator[None]:
    """Run what may not end what stands around it: what it raises is logged, and forgotten.

    For one of many in a loop, whose others are to have their turn. Not for who has a peer to tell.
    """
    try:
        yield
    except Exception:
        logger.exception(event, **fields)
