"""Webhooks: which events go where, in which order, how often and how long they are tried.

One queue per webhook. The events of a channel are delivered one after the other: while one is under
way or waits to be tried again, those behind it wait; other channels go on. An event is delivered at
least once, so a receiver that has to know compares ids. Nothing of it outlives the process.
"""

import enum
import heapq
import math
from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta, Struct

from edged.media.events import EventKind, StreamEvent
from edged.policy.outbound import find_secret_problem, find_url_problem

if TYPE_CHECKING:
    import random

WEBHOOKS_MAX = 32  # Each has connections of its own.
BACKOFF_S_MIN = 1.0  # Before the second attempt; it doubles from there.
BACKOFF_S_MAX = 60.0
RETRY_AFTER_S_MAX = 600.0  # No receiver may ask for more.
GONE = 410  # RFC 9110 §15.5.11: it is so for good.
RETRIED = frozenset({408, 429})  # Of 4xx those that say: later (RFC 9110 §15.5.9, RFC 6585 §4).
NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,31}\Z"


class WebhookConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `[[webhooks]]`: a receiver of events."""

    name: Annotated[str, Meta(pattern=NAME_PATTERN)]  # What logs and metrics call it.
    url: str
    secret: str  # Signs each delivery.
    events: tuple[EventKind, ...] = ()  # Empty: all.
    ca: str = ""  # A PEM file; empty: the system's CAs.
    timeout_s: Annotated[float, Meta(gt=0, le=60)] = 5.0
    retry_for_s: Annotated[float, Meta(ge=0, le=86_400)] = 3600.0
    queue_max: Annotated[int, Meta(ge=1, le=100_000)] = 1_000
    concurrency_max: Annotated[int, Meta(ge=1, le=64)] = 4

    def __repr__(self) -> str:
        """Show no URL and no secret: a dump of the configuration must not bring one into a log."""
        return f"WebhookConfig(name={self.name!r}, url=hidden, secret=hidden)"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        """The same for rich's tracebacks."""
        return [("name", self.name)]


def find_problems(configs: Sequence[WebhookConfig]) -> list[str]:
    """Say what is wrong with the tables beyond their types: one line each, "KEY: what"."""
    problems = []
    if len(configs) > WEBHOOKS_MAX:
        problems.append(f"webhooks: {len(configs)} exceed {WEBHOOKS_MAX}")
    names: dict[str, int] = {}
    for index, config in enumerate(configs):
        key = f"webhooks[{index}]"
        if problem := find_url_problem(config.url):
            problems.append(f"{key}.url: {problem}")
        if problem := find_secret_problem(config.secret):
            problems.append(f"{key}.secret: {problem}")
        if (first := names.setdefault(config.name, index)) != index:
            problems.append(f"{key}.name: {config.name!r} is taken by webhooks[{first}]")
    return problems


class Outcome(enum.Enum):
    """What an attempt came to."""

    DELIVERED = "delivered"
    GONE = "gone"  # The receiver wants nothing any more.
    REFUSED = "refused"  # It will never take this one.
    FAILED = "failed"  # Now; perhaps later.


def judge_answer(status: int | None) -> Outcome:
    """What an HTTP status means; None: there was no answer.

    A redirect has failed: it is not followed, and may be gone when a site's maintenance is over.
    """
    if status is None:
        return Outcome.FAILED
    if 200 <= status < 300:  # noqa: PLR2004 - RFC 9110 §15.3
        return Outcome.DELIVERED
    if status == GONE:
        return Outcome.GONE
    if 400 <= status < 500 and status not in RETRIED:  # noqa: PLR2004 - RFC 9110 §15.5
        return Outcome.REFUSED
    return Outcome.FAILED


def read_retry_after(field: str) -> float:
    """Seconds of a Retry-After field (RFC 9110 §10.2.3), bounded; 0 for a date or anything else."""
    if not field.isascii() or not field.isdigit():
        return 0.0
    return min(float(field[:9]), RETRY_AFTER_S_MAX)


def choose_pause(attempts: int, rng: "random.Random") -> float:
    """Seconds to wait after so many attempts: twice as long each time, and half of it by chance."""
    whole = min(BACKOFF_S_MAX, BACKOFF_S_MIN * 2.0 ** min(attempts - 1, 32))
    return whole * (0.5 + 0.5 * rng.random())


class Delivery(Struct, eq=False):
    """An event on its way to one receiver."""

    number: int  # In order of arrival.
    event: StreamEvent
    body: bytes
    queued_at: float
    attempts: int = 0
    under_way: bool = False
    over: bool = False  # Delivered, or lost.


class WebhookStatistics(Struct):
    """Counts since the start."""

    delivered: int = 0
    failed: int = 0  # Attempts.
    dropped: int = 0  # The queue was full.
    given_up: int = 0  # Tried for too long.
    refused: int = 0  # By the receiver, for good.
    unwanted: int = 0  # Queued or come while it was disabled.


class WebhookQueue:
    """What one receiver is still to get."""

    def __init__(self, config: WebhookConfig) -> None:
        self.config = config
        self.disabled = False  # The receiver is gone; until the configuration is read anew.
        self.statistics = WebhookStatistics()
        self._kinds = frozenset(config.events)
        self._channels: dict[str, deque[Delivery]] = {}
        self._queued: OrderedDict[int, Delivery] = OrderedDict()  # All, by number.
        self._waiting: list[tuple[float, int, Delivery]] = []  # A heap: the first of each channel.
        self._under_way = 0
        self._first_attempts = 0  # Of those under way.
        self._numbers = 0

    def __len__(self) -> int:
        return len(self._queued)

    @property
    def under_way(self) -> int:
        """Attempts that have not been settled."""
        return self._under_way

    @property
    def is_fresh(self) -> bool:
        """Whether something is on its way, or could be, that has not failed yet."""
        self.next_timeout()  # What is over is not among those that wait.
        return self._first_attempts > 0 or bool(self._waiting and self._waiting[0][0] == -math.inf)

    def wants(self, event: StreamEvent) -> bool:
        """Whether events of its kind go there."""
        return not self._kinds or event.kind in self._kinds

    def push(self, event: StreamEvent, body: bytes, now: float) -> None:
        """Queue an event that it wants; when it is full, the oldest that is not under way goes."""
        if self.disabled:
            self.statistics.unwanted += 1
            return
        if len(self._queued) >= self.config.queue_max:
            self.statistics.dropped += 1
            oldest = next((one for one in self._queued.values() if not one.under_way), None)
            if oldest is None:
                return  # All there is room for is under way.
            self._remove(oldest)
        self._numbers += 1
        delivery = Delivery(self._numbers, event, body, now)
        self._queued[delivery.number] = delivery
        line = self._channels.setdefault(event.channel, deque())
        line.append(delivery)
        if len(line) == 1:
            self._wait(delivery, -math.inf)

    def take_over(self, older: "WebhookQueue") -> None:
        """Go on with what an older configuration of the same receiver was still to get."""
        self.statistics = older.statistics
        for delivery in older._queued.values():
            if self.wants(delivery.event):
                self.push(delivery.event, delivery.body, delivery.queued_at)

    def take(self, now: float) -> Delivery | None:
        """The next one to attempt now, if there is one; `settle` it when that is over."""
        if self.next_timeout() > now:
            return None
        _, _, delivery = heapq.heappop(self._waiting)
        delivery.under_way = True
        delivery.attempts += 1
        self._under_way += 1
        self._first_attempts += delivery.attempts == 1
        return delivery

    def next_timeout(self) -> float:
        """When `take` may have something; infinity until something is pushed or settled."""
        while self._waiting and self._waiting[0][2].over:
            heapq.heappop(self._waiting)
        if not self._waiting or self._under_way >= self.config.concurrency_max:
            return math.inf
        return self._waiting[0][0]

    def settle(
        self,
        delivery: Delivery,
        outcome: Outcome,
        now: float,
        rng: "random.Random",
        *,
        retry_after_s: float = 0.0,
    ) -> bool:
        """Note what an attempt came to; True if the event is lost by it."""
        assert delivery.under_way, "what was taken is settled once"
        delivery.under_way = False
        self._under_way -= 1
        self._first_attempts -= delivery.attempts == 1
        if outcome is Outcome.DELIVERED:
            self.statistics.delivered += 1
        else:
            self.statistics.failed += 1
        if delivery.over:
            return False  # The receiver was gone meanwhile.
        if outcome is Outcome.FAILED:
            pause_s = max(choose_pause(delivery.attempts, rng), retry_after_s)
            if now + pause_s - delivery.queued_at <= self.config.retry_for_s:
                self._wait(delivery, now + pause_s)
                return False
            self.statistics.given_up += 1
        elif outcome is Outcome.REFUSED:
            self.statistics.refused += 1
        elif outcome is Outcome.GONE:
            self._disable()
            return True
        self._remove(delivery)
        return outcome is not Outcome.DELIVERED

    def _wait(self, delivery: Delivery, until: float) -> None:
        heapq.heappush(self._waiting, (until, delivery.number, delivery))

    def _remove(self, delivery: Delivery) -> None:
        """Delivered or lost: the next of its channel may go."""
        delivery.over = True
        del self._queued[delivery.number]
        line = self._channels[delivery.event.channel]
        was_first = line[0] is delivery
        line.remove(delivery)
        if not line:
            del self._channels[delivery.event.channel]
        elif was_first:
            self._wait(line[0], -math.inf)

    def _disable(self) -> None:
        self.disabled = True
        self.statistics.unwanted += len(self._queued)
        for delivery in self._queued.values():
            delivery.over = True
        self._queued.clear()
        self._channels.clear()
        self._waiting.clear()
