"""Calls to real servers of loopback, which are good, bad and worse."""

import contextlib
import gc
from pathlib import Path

import pytest
import trio
import trio.testing

import edged
from edged.api.outbound import Answer, Caller, CallFailedError, make_context
from edged.errors import ConfigError
from tests.api.service import (
    Behaviour,
    Received,
    breaking_off,
    dripping,
    flooding,
    hanging,
    head,
    make_tls,
    replying,
    serving,
)

BYTES_MAX = 4096


def saying(text: bytes) -> Behaviour:
    async def say(stream: trio.abc.Stream, received: Received) -> None:
        await stream.send_all(text)
        await stream.aclose()

    return say


async def call(url: str, *, ca: str = "", body: bytes = b"{}", timeout_s: float = 2.0) -> Answer:
    caller = Caller(url, ca=ca)
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
        assert received.fields["host"] == service.address


async def say_it_twice(stream: trio.abc.Stream, received: Received) -> None:
    """An interim answer, and then one in chunks."""
    await stream.send_all(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n")
    await stream.send_all(b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n")


async def talk_of_old(stream: trio.abc.Stream, received: Received) -> None:
    """HTTP/1.0: the body ends with the connection."""
    await stream.send_all(b"HTTP/1.0 200 OK\r\n\r\nabc")
    await stream.aclose()


@pytest.mark.parametrize("behaviour", [say_it_twice, talk_of_old])
async def test_the_ways_of_http(behaviour: Behaviour) -> None:
    async with serving() as service:
        service.behaviour = behaviour
        assert await call(service.url) == Answer(200, b"abc")


async def test_hanging_up_early_does_not_hide_the_answer() -> None:
    async def refuse(stream: trio.SocketStream) -> None:
        await stream.send_all(head(413, 0))
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, refuse, [listener])
        port = listener.socket.getsockname()[1]
        with contextlib.suppress(CallFailedError):  # Unless a reset has overtaken it.
            answer = await call(f"http://127.0.0.1:{port}/", body=bytes(8 * 2**20))
            assert answer.status == 413
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("url", "host", "target"),
    [
        ("https://example.net", "example.net", "/"),
        ("https://example.net:443/a?b=c", "example.net", "/a?b=c"),
        ("https://example.net:8443/", "example.net:8443", "/"),
        ("http://[::1]:80/x", "[::1]", "/x"),
        ("http://[::1]:81/x", "[::1]:81", "/x"),
    ],
)
def test_what_is_asked_for(url: str, host: str, target: str) -> None:
    caller = Caller(url, ca="")
    assert (caller._authority, caller._target) == (host, target)


@pytest.mark.parametrize("is_tls", [False, True])
async def test_whenever_it_is_cancelled_nothing_stays_open(tmp_path: Path, is_tls: bool) -> None:
    """A library that is often used for this leaves its socket open in the middle of a handshake."""
    tls = make_tls(tmp_path, "127.0.0.1") if is_tls else None
    ca = str(tmp_path / "ca.pem") if is_tls else ""
    async with serving(tls) as service:
        caller = Caller(service.url, ca=ca)
        for step in range(100):
            service.behaviour = (hanging, replying(200), breaking_off)[step % 3]
            with trio.move_on_after(step * 0.0002), contextlib.suppress(CallFailedError):
                await caller.post(b"{}", {}, timeout_s=1, bytes_max=10)
        gc.collect()  # A socket left open is an error by our warnings filter.


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
        (saying(b""), "closed the connection without an answer"),
        (saying(b"HTTP/1.1 101 Switching\r\n\r\n"), "without a pending proposal"),
        (saying(b"SSH-2.0-OpenSSH\r\n\r\n"), "illegal status line"),
        (saying(b"HTTP/1.1 200 OK\r\nX: " + bytes([120]) * 2**16), "too long|too large|Receive"),
    ],
)
async def test_what_is_no_answer(behaviour: Behaviour, text: str) -> None:
    async with serving() as service:
        service.behaviour = behaviour
        with pytest.raises(CallFailedError, match=text):
            await call(service.url, timeout_s=0.1 if "within" in text else 5.0)


async def test_nobody_there() -> None:
    async with serving() as service:
        service.scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(CallFailedError, match="Connection refused"):
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
        caller = Caller(service.url, ca="")
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
