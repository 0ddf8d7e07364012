"""The internal stream of events: whoever notices something emits it, whoever cares subscribes.

Emitting is synchronous and never waits: it may happen in the pump's turn. Each subscriber has a
queue of its own; one that does not keep up loses the oldest, which is counted, and holds up nobody.
"""

import secrets
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable

import msgspec
import structlog
import trio

from edged.media.events import KINDS, StreamEvent
from edged.runtime.metrics import Metrics, MetricSpec, Sample

QUEUE_MAX = 10_000  # Every stream of a full PoP going live and offline at once, with room.
EVENT_ID_BYTES = 16

logger = structlog.get_logger("edged.events")

SPECS = (
    MetricSpec(
        name="edged_events_emitted_total",
        help="Events of live streams, by kind.",
        labels=("role", "kind"),
    ),
    MetricSpec(
        name="edged_events_dropped_total",
        help="Events that a subscriber did not take in time.",
        labels=("role", "subscriber"),
    ),
)


class Subscription:
    """One subscriber's queue."""

    def __init__(self, name: str, queue_max: int, close: Callable[["Subscription"], None]) -> None:
        self.name = name
        self.dropped_total = 0
        self._queue: deque[StreamEvent] = deque()
        self._queue_max = queue_max
        self._close = close
        self._filled = trio.Event()

    def __len__(self) -> int:
        return len(self._queue)

    def put(self, event: StreamEvent) -> None:
        """What the stream calls."""
        if len(self._queue) >= self._queue_max:
            self._queue.popleft()
            self.dropped_total += 1
        self._queue.append(event)
        self._filled.set()

    async def receive(self) -> StreamEvent:
        """Wait for the next event. For one task at a time."""
        while not self._queue:
            self._filled = trio.Event()
            await self._filled.wait()
        return self._queue.popleft()

    def close(self) -> None:
        """Subscribe no more."""
        self._close(self)


class EventStream:
    """All events of one role."""

    def __init__(
        self,
        pop: str,
        *,
        unix_now: Callable[[], float] = time.time,
        entropy: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        """`pop` is the name that events have as the place where they happened."""
        self._pop, self._unix_now, self._entropy = pop, unix_now, entropy
        self._subscriptions: list[Subscription] = []
        self._emitted: Counter[str] = Counter()

    def subscribe(self, name: str, *, queue_max: int = QUEUE_MAX) -> Subscription:
        """Get all events from now on; `name` is what metrics call the subscriber."""
        assert queue_max >= 1, "an event has to fit"
        subscription = Subscription(name, queue_max, self._subscriptions.remove)
        self._subscriptions.append(subscription)
        return subscription

    def emit(self, event: StreamEvent) -> StreamEvent:
        """Add id, time and place to an event, log it in one line, and hand it to all."""
        event = msgspec.structs.replace(
            event,
            event_id=self._entropy(EVENT_ID_BYTES).hex(),
            at_ms=int(self._unix_now() * 1000),
            pop=self._pop,
        )
        self._emitted[event.kind] += 1
        logger.info("event", kind=event.kind, **msgspec.structs.asdict(event))
        for subscription in self._subscriptions:
            subscription.put(event)
        return event

    def register(self, metrics: Metrics, *, role: str) -> None:
        """Have the counts read at each scrape."""

        def read() -> Iterable[Sample]:
            for kind in KINDS:
                labels = {"role": role, "kind": kind}
                yield Sample("edged_events_emitted_total", self._emitted[kind], labels)
            for subscription in self._subscriptions:
                labels = {"role": role, "subscriber": subscription.name}
                yield Sample("edged_events_dropped_total", subscription.dropped_total, labels)

        metrics.register(SPECS, read)
