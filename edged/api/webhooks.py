"""The shell around `edged.policy.webhooks`: takes events from the stream and posts them, signed.

Each receiver has its own connections, queue and task; one that hangs or is gone harms no other.
"""

import math
import random
import time
from collections.abc import Callable, Iterable, Sequence

import msgspec
import structlog
import trio

from edged.api.outbound import Caller, CallFailedError, make_context
from edged.errors import ConfigError
from edged.policy.outbound import place_of_url, sign
from edged.policy.webhooks import (
    Delivery,
    Outcome,
    WebhookConfig,
    WebhookQueue,
    judge_answer,
    read_retry_after,
)
from edged.runtime.event_stream import EventStream
from edged.runtime.metrics import Metrics, MetricSpec, Sample

ANSWER_BYTES_MAX = 64 * 1024  # Of an answer only the status counts.
DROPPED_LOG_S = 60.0  # Between two lines about events that were dropped.
EVENT_ID_FIELD = "Edged-Event-Id"

logger = structlog.get_logger("edged.webhooks")

_LABELS = ("role", "webhook")
SPECS = (
    MetricSpec(
        name="edged_events_webhook_queued",
        help="Events that a webhook is still to get.",
        labels=_LABELS,
    ),
    MetricSpec(
        name="edged_events_webhook_disabled",
        help="1 if the webhook answered 410, until the configuration is read anew.",
        labels=_LABELS,
    ),
    MetricSpec(
        name="edged_events_webhook_delivered_total", help="Events delivered.", labels=_LABELS
    ),
    MetricSpec(
        name="edged_events_webhook_failed_total",
        help="Attempts that failed; most are made again.",
        labels=_LABELS,
    ),
    MetricSpec(
        name="edged_events_webhook_lost_total",
        help="Events that were never delivered, by why: dropped, given_up, refused, unwanted.",
        labels=(*_LABELS, "why"),
    ),
)


class _Webhook:
    """One receiver."""

    def __init__(self, config: WebhookConfig) -> None:
        self.config = config
        self.queue = WebhookQueue(config)
        self.changed = trio.Event()
        self.gone = False  # From the configuration.
        self.scope = trio.CancelScope()
        self.failing_since: float | None = None
        self.dropped_told = 0
        self.dropped_told_at = -math.inf

    def wake(self) -> None:
        """There may be something to do."""
        self.changed.set()

    def end(self) -> None:
        """Deliver nothing more."""
        self.gone = True
        self.scope.cancel()


class Webhooks:
    """All receivers of one role's events."""

    def __init__(
        self,
        configs: Sequence[WebhookConfig],
        events: EventStream,
        *,
        rng: random.Random | None = None,
        unix_now: Callable[[], float] = time.time,
    ) -> None:
        self._webhooks = {config.name: _Webhook(config) for config in configs}
        self._subscription = events.subscribe("webhooks")
        self._rng = rng or random.Random()  # noqa: S311 - jitter of attempts, no secret
        self._unix_now = unix_now
        self._settled = trio.Event()
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Deliver until cancelled; raises `ConfigError` when a CA file cannot be used."""
        for webhook in self._webhooks.values():
            check_ca(webhook.config)
        async with trio.open_nursery() as nursery:
            for webhook in self._webhooks.values():
                nursery.start_soon(self._run_webhook, webhook)
            self._nursery = nursery
            task_status.started()
            try:
                await self._hand_out()
            finally:
                self._nursery = None  # Whom a reload brings from now on, the next run begins.

    async def _hand_out(self) -> None:
        while True:
            event = await self._subscription.receive()
            wanting = [webhook for webhook in self._webhooks.values() if webhook.queue.wants(event)]
            body = msgspec.json.encode(event) if wanting else b""
            for webhook in wanting:
                webhook.queue.push(event, body, trio.current_time())
                webhook.wake()

    async def wait_sent(self) -> None:
        """Wait until all has been sent, but for what has failed and is to be tried again."""
        while len(self._subscription) or any(
            webhook.queue.is_fresh for webhook in self._webhooks.values()
        ):
            self._settled = trio.Event()
            with trio.move_on_after(0.01):  # An event may just be on its way into a queue.
                await self._settled.wait()

    def reload(self, configs: Sequence[WebhookConfig]) -> None:
        """Take a new configuration: a receiver that keeps its name keeps its queue.

        Those that were gone are tried again. What is under way to one that changes may come twice.
        On ConfigError nothing has changed.
        """
        for config in configs:
            check_ca(config)
        kept: dict[str, _Webhook] = {}
        for config in configs:
            known = self._webhooks.pop(config.name, None)
            if known is not None and known.config == config and not known.queue.disabled:
                kept[config.name] = known
                continue
            kept[config.name] = _Webhook(config)
            if known is not None:
                known.end()
                kept[config.name].queue.take_over(known.queue)
            if self._nursery is not None:
                self._nursery.start_soon(self._run_webhook, kept[config.name])
        for gone in self._webhooks.values():
            gone.end()
        self._webhooks = kept

    def register(self, metrics: Metrics, *, role: str) -> None:
        """Have the counts read at each scrape."""

        def read() -> Iterable[Sample]:
            for name, webhook in self._webhooks.items():
                counts, labels = webhook.queue.statistics, {"role": role, "webhook": name}
                values = (
                    len(webhook.queue),
                    int(webhook.queue.disabled),
                    counts.delivered,
                    counts.failed,
                )
                for spec, value in zip(SPECS, values, strict=False):
                    yield Sample(spec.name, value, labels)
                for why in ("dropped", "given_up", "refused", "unwanted"):
                    lost = {**labels, "why": why}
                    yield Sample(SPECS[-1].name, getattr(counts, why), lost)

        metrics.register(SPECS, read)

    async def _run_webhook(self, webhook: _Webhook) -> None:
        config, queue = webhook.config, webhook.queue
        logger.info(
            "webhook",
            webhook=config.name,
            url=place_of_url(config.url),
            events=list(config.events) or "all",
        )
        with trio.CancelScope() as webhook.scope:
            if webhook.gone:
                return
            caller = Caller(config.url, ca=config.ca)
            async with trio.open_nursery() as nursery:
                while True:
                    while (delivery := queue.take(trio.current_time())) is not None:
                        nursery.start_soon(self._deliver, webhook, caller, delivery)
                    due = min(queue.next_timeout(), self._tell_dropped(webhook))
                    webhook.changed = trio.Event()
                    with trio.move_on_at(due):
                        await webhook.changed.wait()

    async def _deliver(self, webhook: _Webhook, caller: Caller, delivery: Delivery) -> None:
        """One attempt."""
        config, outcome, retry_after_s, why = webhook.config, Outcome.FAILED, 0.0, ""
        fields = {
            EVENT_ID_FIELD: delivery.event.event_id,
            **sign(config.secret, int(self._unix_now()), delivery.body),
        }
        try:
            answer = await caller.post(
                delivery.body, fields, timeout_s=config.timeout_s, bytes_max=ANSWER_BYTES_MAX
            )
            outcome = judge_answer(answer.status)
            retry_after_s = read_retry_after(answer.retry_after)
            why = f"status {answer.status}"
        except CallFailedError as error:
            why = str(error)
        except trio.Cancelled:  # It can be tried again, should this service be begun anew.
            webhook.queue.settle(delivery, Outcome.FAILED, trio.current_time(), self._rng)
            raise
        except Exception:  # A bug fails this attempt, never the role.
            logger.exception("webhook attempt failed", webhook=config.name)
            why = "it failed inside"
        now = trio.current_time()
        is_lost = webhook.queue.settle(
            delivery, outcome, now, self._rng, retry_after_s=retry_after_s
        )
        self._tell(webhook, delivery, outcome, why, is_lost=is_lost, now=now)
        webhook.wake()
        self._settled.set()

    def _tell(
        self,
        webhook: _Webhook,
        delivery: Delivery,
        outcome: Outcome,
        why: str,
        *,
        is_lost: bool,
        now: float,
    ) -> None:
        """Log that a receiver begins to fail, works again, or will never have an event."""
        log = logger.bind(webhook=webhook.config.name)
        if outcome is Outcome.GONE:
            log.error("webhook disabled until the configuration is read anew", why=why)
        elif is_lost:
            log.warning(
                "webhook event lost",
                kind=delivery.event.kind,
                channel=delivery.event.channel,
                event_id=delivery.event.event_id,
                attempts=delivery.attempts,
                why=why,
            )
        if outcome is Outcome.FAILED and webhook.failing_since is None:
            webhook.failing_since = now
            log.warning("webhook fails", why=why)
        elif outcome is Outcome.DELIVERED and webhook.failing_since is not None:
            log.info("webhook works again", after_s=round(now - webhook.failing_since, 1))
            webhook.failing_since = None

    def _tell_dropped(self, webhook: _Webhook) -> float:
        """Say how many events were dropped, once per interval; when to look again."""
        dropped = webhook.queue.statistics.dropped
        if dropped == webhook.dropped_told:
            return math.inf
        now, due = trio.current_time(), webhook.dropped_told_at + DROPPED_LOG_S
        if now < due:
            return due
        logger.warning(
            "webhook queue is full: the oldest events were dropped",
            webhook=webhook.config.name,
            dropped=dropped - webhook.dropped_told,
            queue_max=webhook.config.queue_max,
        )
        webhook.dropped_told, webhook.dropped_told_at = dropped, now
        return math.inf


def check_ca(config: WebhookConfig) -> None:
    """Raise `ConfigError` when the file of CAs cannot be used."""
    try:
        make_context(config.ca)
    except ConfigError as error:
        raise ConfigError(f"webhook {config.name!r}: {error}") from error
