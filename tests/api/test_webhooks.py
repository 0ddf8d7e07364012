"""Webhooks against real receivers of loopback: they fail, hang, leave and come back."""

import contextlib
import hashlib
import hmac
import random
import re
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import msgspec
import pytest
import trio
from structlog.testing import capture_logs

from edged.api import webhooks as webhooks_module
from edged.api.webhooks import SPECS, Webhooks
from edged.errors import ConfigError
from edged.media.events import StreamWentLive
from edged.policy import webhooks as policy
from edged.policy.webhooks import WebhookConfig
from edged.runtime.event_stream import EventStream
from edged.runtime.metrics import Metrics
from tests.api.service import Received, Service, hanging, make_tls, replying, serving
from tests.backbone.network import until

SECRET = "0123456789abcdef" * 2
README = Path(__file__).parents[2] / "README.md"


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts follow each other more quickly than in earnest."""
    monkeypatch.setattr(policy, "BACKOFF_S_MIN", 0.02)
    monkeypatch.setattr(policy, "BACKOFF_S_MAX", 0.1)


class Setting:
    def __init__(self, *configs: WebhookConfig) -> None:
        self.events = EventStream("ams1")
        self.webhooks = Webhooks(configs, self.events, rng=random.Random(1))  # noqa: S311 - seeded
        self.metrics = Metrics()
        self.webhooks.register(self.metrics, role="pop ams1")

    def live(self, channel: str = "alice", number: int = 0) -> None:
        self.events.emit(StreamWentLive(channel=channel, publication=f"{number:x}"))

    def value(self, name: str, hook: str = "studio", why: str = "") -> float:
        label = f'role="pop ams1",webhook="{hook}"' + (f',why="{why}"' if why else "")
        text = self.metrics.render().decode()
        match = re.search(rf"^{name}{{{label}}} (.+)$", text, re.MULTILINE)
        assert match is not None, text
        return float(match[1])


def config_for(service: Service, name: str = "studio", **settings: object) -> WebhookConfig:
    raw = {"name": name, "url": service.url, "secret": SECRET, "timeout_s": 2.0, **settings}
    return msgspec.convert(raw, WebhookConfig)


@contextlib.asynccontextmanager
async def running(*configs: WebhookConfig) -> AsyncIterator[Setting]:
    setting = Setting(*configs)
    async with trio.open_nursery() as nursery:
        await nursery.start(setting.webhooks.run)
        yield setting
        nursery.cancel_scope.cancel()


def numbers(service: Service, channel: str = "alice") -> list[int]:
    found = [received.json() for received in service.received]
    return [int(str(event["publication"]), 16) for event in found if event["channel"] == channel]


def verifier() -> "type":
    """The function that the README gives to receivers, as it stands there."""
    match = re.search(r"```python\n(def is_genuine.*?)```", README.read_text(), re.DOTALL)
    assert match is not None
    assert match[1].count("\n") <= 6
    names: dict[str, object] = {"hmac": hmac, "hashlib": hashlib, "time": time, "Mapping": Mapping}
    exec(match[1], names)  # noqa: S102 - our own example
    return names["is_genuine"]  # type: ignore[return-value]


async def test_an_event_is_posted_and_verified_as_the_readme_says() -> None:
    is_genuine = verifier()
    async with serving() as service, running(config_for(service)) as setting:
        setting.live()
        await until(lambda: service.received)
        (received,) = service.received
        event = received.json()
        assert event["event"] == "stream_went_live"
        assert event["channel"] == "alice"
        assert event["pop"] == "ams1"
        fields = {name.title(): value for name, value in received.fields.items()}
        assert fields["Edged-Event-Id"] == event["event_id"]
        assert fields["Content-Type"] == "application/json"
        assert is_genuine(SECRET, fields, received.body)
        assert not is_genuine(SECRET + "x", fields, received.body)
        assert not is_genuine(SECRET, fields, received.body + b" ")
        stale = {**fields, "Edged-Timestamp": str(int(time.time()) - 400)}
        assert not is_genuine(SECRET, stale, received.body)
        await until(lambda: setting.value("edged_events_webhook_delivered_total") == 1)
        assert setting.value("edged_events_webhook_queued") == 0
        text = setting.metrics.render().decode()
        assert all(spec.name in text for spec in SPECS)


async def test_500_and_then_200_in_order() -> None:
    async with serving() as service, running(config_for(service)) as setting:
        failures = 3

        async def fail_at_first(stream: trio.abc.Stream, received: Received) -> None:
            status = 500 if len(service.received) <= failures else 200
            await replying(status)(stream, received)

        service.behaviour = fail_at_first
        with capture_logs() as logs:
            for number in range(4):
                setting.live(number=number)
            await until(lambda: setting.value("edged_events_webhook_delivered_total") == 4)
        assert numbers(service) == [0, 0, 0, 0, 1, 2, 3]
        ids = {received.fields["edged-event-id"] for received in service.received[:4]}
        assert len(ids) == 1  # One event, delivered four times.
        told = [line["event"] for line in logs if line["event"] not in ("event", "webhook")]
        assert told == ["webhook fails", "webhook works again"]
        assert setting.value("edged_events_webhook_failed_total") == 3


async def test_a_receiver_restarts_and_gets_all_in_order() -> None:
    async with serving() as service, trio.open_nursery() as nursery:
        async with running(config_for(service)) as setting:
            setting.live(number=0)
            await until(lambda: service.received)
            service.scope.cancel()
            await trio.sleep(0.02)
            for number in range(1, 5):
                setting.live(number=number)
            await until(lambda: setting.value("edged_events_webhook_failed_total") >= 2)
            await nursery.start(service.run)
            await until(lambda: setting.value("edged_events_webhook_delivered_total") == 5)
            assert numbers(service) == [0, 1, 2, 3, 4]
        nursery.cancel_scope.cancel()


async def test_a_receiver_that_hangs_harms_no_other_and_is_tried_again() -> None:
    async with serving() as slow, serving() as quick:
        slow.behaviour = hanging
        configs = config_for(slow, timeout_s=0.1), config_for(quick, "other")
        async with running(*configs) as setting:
            for number in range(3):
                setting.live(number=number)
            await until(lambda: len(quick.received) == 3)
            assert setting.value("edged_events_webhook_delivered_total") == 0
            await until(lambda: len(slow.received) >= 2)
            slow.behaviour = replying(200)
            await until(lambda: setting.value("edged_events_webhook_delivered_total") == 3)
            assert numbers(slow)[-2:] == [1, 2]


async def test_one_channel_that_fails_holds_no_other_up() -> None:
    async with serving() as service, running(config_for(service)) as setting:

        async def fail_for_alice(stream: trio.abc.Stream, received: Received) -> None:
            status = 503 if received.json()["channel"] == "alice" else 200
            await replying(status)(stream, received)

        service.behaviour = fail_for_alice
        setting.live("alice")
        for number in range(3):
            setting.live("bob", number)
        await until(lambda: setting.value("edged_events_webhook_delivered_total") == 3)
        assert numbers(service, "bob") == [0, 1, 2]


@pytest.mark.parametrize(("status", "why"), [(400, "refused"), (404, "refused"), (410, "unwanted")])
async def test_what_is_not_wanted_is_not_tried_again(status: int, why: str) -> None:
    async with serving() as service, running(config_for(service)) as setting:
        service.behaviour = replying(status)
        with capture_logs() as logs:
            setting.live()
            await until(lambda: setting.value("edged_events_webhook_lost_total", why=why) == 1)
        setting.live()
        if status != 410:
            await until(lambda: len(service.received) == 2)
        await trio.sleep(0.05)
        assert len(service.received) == (1 if status == 410 else 2)
        assert setting.value("edged_events_webhook_disabled") == (status == 410)
        (line,) = [line for line in logs if line["log_level"] in ("warning", "error")]
        assert line["why"] == f"status {status}"
        assert SECRET not in str(logs)
        assert "hook?x=1" not in str(logs)


async def test_read_anew_what_was_gone_is_tried_again() -> None:
    async with serving() as service, serving() as other:
        service.behaviour = replying(410)
        config = config_for(service)
        async with running(config, config_for(other, "other")) as setting:
            setting.live(number=0)
            await until(lambda: setting.value("edged_events_webhook_disabled") == 1)
            service.behaviour = replying(200)
            setting.webhooks.reload([config])
            setting.live(number=1)
            await until(lambda: numbers(service) == [0, 1])
            await trio.sleep(0.02)
            assert numbers(other) == [0]  # It is configured no more.
            with pytest.raises(ConfigError, match="webhook 'studio': ca '/none' cannot be used"):
                setting.webhooks.reload([config_for(service, ca="/none")])
            setting.live(number=2)
            await until(lambda: numbers(service) == [0, 1, 2])


async def test_a_receiver_that_moved_gets_what_was_queued() -> None:
    async with serving() as old, serving() as new:
        old.behaviour = replying(500)
        async with running(config_for(old)) as setting:
            for number in range(3):
                setting.live(number=number)
            await until(lambda: old.received)
            setting.webhooks.reload([config_for(new)])
            await until(lambda: numbers(new) == [0, 1, 2])


async def test_the_queue_is_bounded_and_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks_module, "DROPPED_LOG_S", 0.1)
    async with serving() as service, running(config_for(service, queue_max=3)) as setting:
        service.behaviour = hanging
        setting.live(number=0)
        await until(lambda: service.received)
        with capture_logs() as logs:
            for number in range(1, 8):
                setting.live(number=number)
            await trio.sleep(0.02)
            for number in range(8, 11):
                setting.live(number=number)
            await trio.sleep(0.15)
        told = [line["dropped"] for line in logs if "queue is full" in line["event"]]
        assert told == [5, 3]
        assert setting.value("edged_events_webhook_lost_total", why="dropped") == 8
        assert setting.value("edged_events_webhook_queued") == 3


async def test_given_up_after_its_time() -> None:
    async with serving() as service, running(config_for(service, retry_for_s=0.1)) as setting:
        service.behaviour = replying(500)
        setting.live()
        await until(lambda: setting.value("edged_events_webhook_lost_total", why="given_up") == 1)
        assert 1 <= len(service.received) <= 10


async def test_a_redirect_is_not_followed_and_tls_is_verified(tmp_path: Path) -> None:
    tls, ca = make_tls(tmp_path, "127.0.0.1"), str(tmp_path / "ca.pem")
    async with serving(tls) as service, serving() as elsewhere:
        service.behaviour = replying(307, b"", f"Location: {elsewhere.url}")
        configs = config_for(service, ca=ca), config_for(service, "wary")
        async with running(*configs) as setting:
            setting.live()
            await until(lambda: setting.value("edged_events_webhook_failed_total") >= 2)
            await until(lambda: setting.value("edged_events_webhook_failed_total", "wary") >= 2)
            assert elsewhere.received == []
            service.behaviour = replying(200)
            await until(lambda: setting.value("edged_events_webhook_delivered_total") == 1)
            assert setting.value("edged_events_webhook_delivered_total", "wary") == 0


async def test_only_the_kinds_that_were_asked_for() -> None:
    async with serving() as service:
        config = config_for(service, events=["stream_went_offline"])
        async with running(config) as setting:
            setting.live()
            await trio.sleep(0.05)
            assert service.received == []


async def test_what_can_be_sent_is_waited_for() -> None:
    async with serving() as service, serving() as failing:
        failing.behaviour = replying(500)
        async with running(config_for(service), config_for(failing, "other")) as setting:
            await setting.webhooks.wait_sent()
            for number in range(20):
                setting.live(number=number)
            with trio.fail_after(5):
                await setting.webhooks.wait_sent()
            assert len(service.received) == 20


async def test_begun_anew_it_goes_on_with_what_was_under_way() -> None:
    async with serving() as service:
        service.behaviour = hanging
        setting = Setting(config_for(service, concurrency_max=1))
        async with trio.open_nursery() as nursery:
            await nursery.start(setting.webhooks.run)
            for number in range(2):
                setting.live(number=number)
            await until(lambda: service.received)
            nursery.cancel_scope.cancel()
        service.behaviour = replying(200)
        async with trio.open_nursery() as nursery:
            await nursery.start(setting.webhooks.run)
            await until(lambda: numbers(service) == [0, 0, 1])
            nursery.cancel_scope.cancel()


async def test_read_anew_while_it_waits_to_be_begun_anew() -> None:
    """Its receivers are those of the new file then, and none is lost."""
    async with serving() as first, serving() as second:
        setting = Setting(config_for(first))
        async with trio.open_nursery() as nursery:
            await nursery.start(setting.webhooks.run)
            nursery.cancel_scope.cancel()
        setting.webhooks.reload([config_for(second), config_for(first, "other")])
        async with trio.open_nursery() as nursery:
            await nursery.start(setting.webhooks.run)
            setting.live(number=1)
            await until(lambda: numbers(first) == numbers(second) == [1])
            nursery.cancel_scope.cancel()


async def test_a_receiver_that_leaves_at_once_gets_nothing() -> None:
    async with serving() as service, running() as setting:
        setting.webhooks.reload([config_for(service)])
        setting.webhooks.reload([])  # Before its task has begun.
        setting.live()
        await trio.sleep(0.05)
        assert service.received == []


async def test_a_bug_fails_the_attempt_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as service, running(config_for(service)) as setting:
        calls = 0

        def judge(status: int | None) -> policy.Outcome:
            nonlocal calls
            calls += 1
            if calls == 1:
                raise RuntimeError("a bug")
            return policy.judge_answer(status)

        monkeypatch.setattr(webhooks_module, "judge_answer", judge)
        setting.live()
        await until(lambda: setting.value("edged_events_webhook_delivered_total") == 1)
        assert len(service.received) == 2
