"""The key callback against real services of loopback: good ones, and all that they can do wrong."""

import re
from collections.abc import Awaitable
from pathlib import Path

import msgspec
import pytest
import trio
from structlog.testing import capture_logs

from edged.api import key_callback
from edged.api.key_callback import SPECS, KeyCallback
from edged.errors import ConfigError, PublishRefusedError
from edged.media.stream import Grant
from edged.policy.key_callback import KeyQuestion
from edged.policy.outbound import sign
from edged.policy.stream_keys import KEY_CHARS_MAX, KeyCallbackConfig
from edged.runtime.metrics import Metrics
from tests.api.service import (
    Behaviour,
    Received,
    Service,
    breaking_off,
    dripping,
    flooding,
    hanging,
    make_tls,
    replying,
    serving,
)
from tests.backbone.network import until

UNIX = 1_700_000_000.0
KEY = "key-of-alice"
SECRET = "0123456789abcdef" * 2
GRANT = replying(200, {"channel": "alice", "title": "Alice"})


def question(key: str = KEY, peer: str = "10.0.0.7:50112", protocol: str = "rtmp") -> KeyQuestion:
    return KeyQuestion(app="live", stream_key=key, protocol=protocol, peer=peer, encoder="OBS")


class Asking:
    """A key callback that runs."""

    def __init__(self, config: KeyCallbackConfig) -> None:
        self.callback = KeyCallback(config, "ams1", unix_now=lambda: UNIX)
        self.checks = 0
        self.refuses_with: PublishRefusedError | None = None

    def check(self) -> None:
        self.checks += 1
        if self.refuses_with is not None:
            raise self.refuses_with

    def ask(self, asked: KeyQuestion) -> Awaitable[Grant]:
        return self.callback.ask(asked, self.check)

    async def refused(self, asked: KeyQuestion) -> PublishRefusedError:
        with pytest.raises(PublishRefusedError) as refusal:
            await self.ask(asked)
        assert not asked.stream_key or asked.stream_key not in str(refusal.value)
        return refusal.value


async def start(nursery: trio.Nursery, service: Service, **settings: object) -> Asking:
    raw = {"url": service.url, "timeout_s": 2.0, **settings}
    asking = Asking(msgspec.convert(raw, KeyCallbackConfig))
    await nursery.start(asking.callback.run)
    return asking


async def test_a_key_is_asked_about_and_the_answer_kept() -> None:
    async with serving() as service, trio.open_nursery() as nursery:
        service.behaviour = GRANT
        asking = await start(nursery, service, secret=SECRET)
        for _ in range(3):
            assert await asking.ask(question()) == Grant(channel="alice", title="Alice")
        (received,) = service.received
        assert received.json()["stream_key"] == KEY
        assert received.json()["pop"] == "ams1"
        for name, value in sign(SECRET, int(UNIX), received.body).items():
            assert received.fields[name.lower()] == value
        await asking.ask(question(protocol="rtmps"))
        assert len(service.received) == 2
        metrics = Metrics()
        asking.callback.register(metrics, role="pop ams1")
        text = metrics.render().decode()
        assert 'edged_keys_callback_calls_total{role="pop ams1"} 2.0' in text
        assert 'edged_keys_callback_cached_total{role="pop ams1"} 2.0' in text
        assert all(spec.name in text for spec in SPECS)
        nursery.cancel_scope.cancel()


async def test_without_a_secret_nothing_is_signed() -> None:
    async with serving() as service, trio.open_nursery() as nursery:
        service.behaviour = GRANT
        asking = await start(nursery, service, cache_ttl_s=0)
        for _ in range(2):
            await asking.ask(question())
        assert len(service.received) == 2
        assert not any(name.startswith("edged-") for name in service.received[0].fields)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_the_service_refuses(status: int) -> None:
    async with serving() as service, trio.open_nursery() as nursery:
        service.behaviour = replying(status, {"reason": "your account is closed"})
        asking = await start(nursery, service, negative_ttl_s=0.05)
        for _ in range(2):
            refusal = await asking.refused(question())
            assert (refusal.code, refusal.reason) == ("unknown_key", "your account is closed")
        assert len(service.received) == 1
        await trio.sleep(0.06)
        service.behaviour = GRANT
        assert (await asking.ask(question())).channel == "alice"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("behaviour", "detail"),
    [
        (hanging, "no whole answer within 0.5 s"),
        (dripping, "no whole answer within 0.5 s"),
        (flooding, "answered with more than 1024 bytes"),
        (replying(200, b" " * 1025), "answered with more than 1024 bytes"),
        (breaking_off, "peer closed connection"),
        (replying(200, b"<html>"), "answered with what is no grant"),
        (replying(200, {"channel": "alice", KEY: True}), "unknown field `<hidden>`"),
        (replying(200, {"channel": KEY.upper()}), "answered with what is no grant"),
        (replying(302, b"", "Location: /elsewhere"), "status 302; redirects are not followed"),
        (replying(500), "answered with status 500"),
        (replying(204), "answered with status 204"),
    ],
)
async def test_without_an_answer_nobody_is_let_in(behaviour: Behaviour, detail: str) -> None:
    async with serving() as service, trio.open_nursery() as nursery:
        service.behaviour = behaviour
        timeout_s = 0.5 if "within" in detail else 5.0
        asking = await start(nursery, service, timeout_s=timeout_s, response_bytes_max=1024)
        with capture_logs() as logs:
            refusal = await asking.refused(question())
        assert refusal.code == "auth_unavailable"
        assert detail in refusal.detail
        assert detail not in refusal.reason  # What the encoder is told.
        assert logs == []
        assert asking.callback.failed_total == 1
        service.behaviour = GRANT  # It is not kept.
        assert (await asking.ask(question())).channel == "alice"
        nursery.cancel_scope.cancel()


async def test_a_service_that_is_not_there_and_comes_back() -> None:
    async with serving() as service, trio.open_nursery() as nursery:
        service.behaviour = GRANT
        asking = await start(nursery, service)
        service.scope.cancel()
        await trio.sleep(0.02)
        refusal = await asking.refused(question())
        assert refusal.code == "auth_unavailable"
        await nursery.start(service.run)
        await asking.ask(question())
        nursery.cancel_scope.cancel()


async def test_tls_is_verified(tmp_path: Path) -> None:
    tls, ca = make_tls(tmp_path, "127.0.0.1"), str(tmp_path / "ca.pem")
    async with serving(tls) as service, trio.open_nursery() as nursery:
        service.behaviour = GRANT
        trusting = await start(nursery, service, ca=ca)
        assert (await trusting.ask(question())).channel == "alice"
        wary = await start(nursery, service)
        refusal = await wary.refused(question())
        assert refusal.code == "auth_unavailable"
        assert "CERTIFICATE_VERIFY_FAILED" in refusal.detail
        assert len(service.received) == 1
        nursery.cancel_scope.cancel()


async def test_a_ca_that_is_none_ends_the_start(tmp_path: Path) -> None:
    config = KeyCallbackConfig(url="https://127.0.0.1/", ca=str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="cannot be used"):
        await KeyCallback(config, "ams1").run()


async def test_one_call_answers_all_who_ask_meanwhile() -> None:
    async with serving() as service, trio.open_nursery() as nursery:
        service.behaviour = hanging
        asking = await start(nursery, service)
        grants: list[Grant] = []
        first = trio.CancelScope()

        async def ask() -> None:
            grants.append(await asking.ask(question()))

        async def ask_and_leave() -> None:
            with first:
                await asking.ask(question())

        release = trio.Event()

        async def wait_and_grant(stream: trio.abc.Stream, received: Received) -> None:
            await release.wait()
            await GRANT(stream, received)

        service.behaviour = wait_and_grant
        async with trio.open_nursery() as askers:
            askers.start_soon(ask_and_leave)
            await until(lambda: service.received)
            for _ in range(5):
                askers.start_soon(ask)
            await trio.sleep(0.02)
            first.cancel()  # Who asked first leaves: the others still get their answer.
            await trio.sleep(0.02)
            release.set()
        assert [grant.channel for grant in grants] == ["alice"] * 5
        assert len(service.received) == 1
        nursery.cancel_scope.cancel()


async def test_a_refusal_is_raised_anew_for_each() -> None:
    async with serving() as service, trio.open_nursery() as nursery:
        service.behaviour = hanging
        asking = await start(nursery, service, timeout_s=0.1)
        refusals: list[PublishRefusedError] = []

        async def ask() -> None:
            refusals.append(await asking.refused(question()))

        async with trio.open_nursery() as askers:
            for _ in range(3):
                askers.start_soon(ask)
        assert len({id(refusal) for refusal in refusals}) == 3
        assert {refusal.code for refusal in refusals} == {"auth_unavailable"}
        assert len(service.received) == 1
        nursery.cancel_scope.cancel()


async def test_a_call_that_nobody_waits_for_ends() -> None:
    async with serving() as service, trio.open_nursery() as nursery:
        service.behaviour = hanging
        asking = await start(nursery, service)
        with trio.move_on_after(0.05):
            await asking.ask(question())
        await until(lambda: service.received and not service.open)
        assert asking.callback._calls == {}
        assert asking.callback._places == {}
        service.behaviour = GRANT
        assert (await asking.ask(question())).channel == "alice"
        nursery.cancel_scope.cancel()


async def test_calls_are_bounded_in_all_and_per_address() -> None:
    async with serving() as service, trio.open_nursery() as nursery:

        async def slowly(stream: trio.abc.Stream, received: Received) -> None:
            await trio.sleep(0.02)
            await GRANT(stream, received)

        service.behaviour = slowly
        asking = await start(nursery, service, concurrency_max=3, per_address_max=2)
        async with trio.open_nursery() as askers:
            for number in range(8):  # Of one /64, which is one subscriber.
                askers.start_soon(asking.ask, question(f"a-key{number}", f"[2001:db8::{number}]:1"))
            await until(lambda: service.open == 2)
            await trio.sleep(0.005)
            assert service.open_max == 2
            for number in range(8):
                askers.start_soon(asking.ask, question(f"b-key{number}", f"10.0.0.{number}:1"))
        assert service.open_max == 3
        assert len(service.received) == 16
        nursery.cancel_scope.cancel()


async def test_who_waits_in_vain_for_a_slot_is_told_to_come_again() -> None:
    async with serving() as service, trio.open_nursery() as nursery:
        service.behaviour = hanging
        asking = await start(nursery, service, concurrency_max=1, timeout_s=0.2)
        details: list[str] = []

        async def ask(key: str) -> None:
            details.append((await asking.refused(question(key))).detail)

        async with trio.open_nursery() as askers:
            askers.start_soon(ask, "key-one")
            await until(lambda: service.received)
            askers.start_soon(ask, "key-two")
        assert "key callback: no whole answer within 0.2 s" in details
        assert all(re.search("no slot within 0.2 s|no whole answer", told) for told in details)
        nursery.cancel_scope.cancel()


async def test_who_may_not_ask_any_more_after_the_wait_does_not() -> None:
    async with serving() as service, trio.open_nursery() as nursery:
        service.behaviour = GRANT
        asking = await start(nursery, service)
        asking.refuses_with = PublishRefusedError("rate_limited", "too many")
        assert (await asking.refused(question())).code == "rate_limited"
        assert service.received == []
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("key", ["", "x" * (KEY_CHARS_MAX + 1), "\ud800"])
async def test_keys_that_are_none_are_not_asked_about(key: str) -> None:
    async with serving() as service, trio.open_nursery() as nursery:
        service.behaviour = GRANT
        asking = await start(nursery, service)
        assert (await asking.refused(question(key))).code == "unknown_key"
        assert service.received == []
        nursery.cancel_scope.cancel()


async def test_a_grant_that_has_expired_lets_nobody_in() -> None:
    async with serving() as service, trio.open_nursery() as nursery:
        service.behaviour = replying(200, {"channel": "alice", "expires_at": UNIX - 1})
        asking = await start(nursery, service)
        assert (await asking.refused(question())).code == "expired_key"
        nursery.cancel_scope.cancel()


async def test_before_it_runs_there_is_no_answer() -> None:
    asking = Asking(KeyCallbackConfig(url="http://127.0.0.1:1/"))
    refusal = await asking.refused(question())
    assert (refusal.code, refusal.detail) == ("auth_unavailable", "key callback: it is not running")


async def test_a_bug_ends_the_call_and_shows_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(status: int, body: bytes, key: str) -> None:
        raise RuntimeError(f"of {key}")

    monkeypatch.setattr(key_callback, "read_answer", fail)
    async with serving() as service, trio.open_nursery() as nursery:
        asking = await start(nursery, service)
        with capture_logs() as logs:
            refusal = await asking.refused(question())
        assert refusal.code == "auth_unavailable"
        (line,) = logs
        assert "RuntimeError: of <hidden>" in line["exception"]
        nursery.cancel_scope.cancel()


def test_the_configuration_shows_no_secret() -> None:
    config = KeyCallbackConfig(url="https://example.net/token", secret=SECRET)
    for shown in (repr(config), str(config.__rich_repr__())):
        assert SECRET not in shown
        assert "token" not in shown


async def test_an_unknown_latency_class_lets_the_publisher_in_with_the_default() -> None:
    async with serving() as service, trio.open_nursery() as nursery:
        asking = await start(nursery, service)
        with capture_logs() as logs:
            service.behaviour = replying(200, {"channel": "alice", "latency": "hyper"})
            assert await asking.ask(question()) == Grant(channel="alice")
            service.behaviour = replying(200, {"channel": "bob", "latency": "low"})
            assert (await asking.ask(question("key-of-bob"))).latency == "low"
        (line,) = logs
        assert line == {
            "event": "key callback names an unknown latency class",
            "log_level": "warning",
            "channel": "alice",
            "latency": "'hyper' is none of default, low, ultra, standard",
            "taken": "default",
        }
        nursery.cancel_scope.cancel()
