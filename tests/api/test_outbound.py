"""Calls to real servers of loopback, which are good, bad and worse."""

from pathlib import Path

import pytest
import trio
import trio.testing

import edged
from edged.api.outbound import Answer, CallFailedError, make_context, open_caller
from edged.errors import ConfigError
from tests.api.service import (
    Behaviour,
    breaking_off,
    dripping,
    flooding,
    hanging,
    make_tls,
    replying,
    serving,
)

BYTES_MAX = 4096


async def call(url: str, *, ca: str = "", body: bytes = b"{}", timeout_s: float = 2.0) -> Answer:
    async with open_caller(url, ca=ca, connections_max=2) as caller:
        return await caller.post(body, {"X-Field": "1"}, timeout_s=timeout_s, bytes_max=BYTES_MAX)


async def test_a_call_and_its_answer() -> None:
    async with serving() as service:
        service.behaviour = replying(201, b"answer", "Retry-After: 7")
        assert await call(service.url, body=b'{"a":1}') == Answer(201, b"answer", "7")
        (received,) = service.received
        assert received.path == "/hook?x=1"
        assert received.body == b'{"a":1}'
        assert received.fields["x-field"] == "1"
        assert received.fields["content-type"] == "application/json"
        assert received.fields["user-agent"] == f"edged/{edged.__version__}"
        assert received.fields["accept-encoding"] == "identity"


@pytest.mark.parametrize("size", [BYTES_MAX, BYTES_MAX + 1])
async def test_an_answer_has_its_limit(size: int) -> None:
    async with serving() as service:
        service.behaviour = replying(200, bytes(size))
        if size <= BYTES_MAX:
            assert len((await call(service.url)).body) == size
            return
        with pytest.raises(CallFailedError, match="answered with more than 4096 bytes"):
            await call(service.url)


@pytest.mark.parametrize(
    ("behaviour", "text"),
    [
        (hanging, "no whole answer within 0.1 s"),
        (dripping, "no whole answer within 0.1 s"),
        (flooding, "answered with more than 4096 bytes"),
        (breaking_off, "peer closed connection without sending complete"),
    ],
)
async def test_what_is_no_answer(behaviour: Behaviour, text: str) -> None:
    async with serving() as service:
        service.behaviour = behaviour
        with pytest.raises(CallFailedError, match=text), trio.fail_after(1):
            await call(service.url, timeout_s=0.1)


async def test_nobody_there() -> None:
    async with serving() as service:
        service.scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(CallFailedError, match=r"All connection attempts failed|refused"):
            await call(service.url)


async def test_a_redirect_is_an_answer_like_any_other() -> None:
    async with serving() as target, serving() as service:
        service.behaviour = replying(307, b"", f"Location: {target.url}")
        assert (await call(service.url)).status == 307
        assert target.received == []


async def test_no_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as proxy, serving() as service:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        assert (await call(service.url)).status == 200
        assert proxy.received == []


async def test_no_cookie_comes_back() -> None:
    async with serving() as service:
        service.behaviour = replying(200, b"", "Set-Cookie: a=b")
        async with open_caller(service.url, ca="", connections_max=1) as caller:
            for _ in range(2):
                await caller.post(b"", {}, timeout_s=2, bytes_max=10)
        assert "cookie" not in service.received[1].fields


async def test_tls_with_the_ca_that_was_named(tmp_path: Path) -> None:
    async with serving(make_tls(tmp_path, "127.0.0.1")) as service:
        assert service.url.startswith("https://")
        assert (await call(service.url, ca=str(tmp_path / "ca.pem"))).status == 200


@pytest.mark.parametrize("wrong", ["authority", "host", "expired"])
async def test_a_wrong_certificate(wrong: str, tmp_path: Path) -> None:
    hosts = ("192.0.2.7",) if wrong == "host" else ("127.0.0.1",)
    tls = make_tls(tmp_path, *hosts, days_ago=3 if wrong == "expired" else 0, days=1)
    ca = "" if wrong == "authority" else str(tmp_path / "ca.pem")
    async with serving(tls) as service:
        with pytest.raises(CallFailedError, match="CERTIFICATE_VERIFY_FAILED"):
            await call(service.url, ca=ca)
        assert service.received == []


def test_a_ca_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    with pytest.raises(ConfigError, match=r"ca '.*ca.pem' cannot be used: "):
        make_context(str(tmp_path / "ca.pem"))
    with pytest.raises(ConfigError, match="No such file"):
        make_context(str(tmp_path / "none.pem"))
