import contextlib
import socket
import time

import pytest

from edged.errors import ConfigError
from edged.runtime.datagrams import (
    DATAGRAM_BYTES_MAX,
    WAITED_S_MAX,
    Datagram,
    answer,
    bind_datagrams,
    connect_datagrams,
    mark_datagrams,
    receive,
)

WAIT_S_MAX = 2.0


def received(sock: socket.socket) -> Datagram:
    until = time.monotonic() + WAIT_S_MAX
    while time.monotonic() < until:
        if (datagram := receive(sock)) is not None:
            return datagram
        time.sleep(0.001)
    raise AssertionError("nothing came")


@pytest.mark.parametrize(
    ("host", "asked"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.2"),  # noqa: S104 - of a test
        ("::1", "::1"),
        ("::", "::1"),
        ("::", "127.0.0.2"),  # Another than the kernel would answer from.
    ],
)
def test_a_question_is_answered_from_where_it_went(host: str, asked: str) -> None:
    with bind_datagrams(host, 0) as server:
        port = server.getsockname()[1]
        with connect_datagrams((asked, port)) as client:
            assert receive(client) is None
            client.send(b"question")
            datagram = received(server)
            assert datagram.data == b"question"
            assert answer(server, datagram, b"answer")
            assert received(client).data == b"answer"


def test_the_time_that_it_waited_is_known() -> None:
    server = bind_datagrams("127.0.0.1", 0)
    with server, connect_datagrams(server.getsockname()) as client:
        waited_s, tries = 0.0, 0
        while waited_s < 0.05 and tries < 10:  # The kernel stamps a little after it is asked to.
            sent_at, tries = time.monotonic(), tries + 1
            client.send(b"x")
            time.sleep(0.1)
            waited_s = received(server).waited_s
        assert 0.1 <= waited_s < time.monotonic() - sent_at + 0.01
        client.send(b"x")
        assert received(server).waited_s < 0.05


def test_a_port_where_nobody_is_says_so_and_can_be_tried_again() -> None:
    with bind_datagrams("127.0.0.1", 0) as gone:
        address = gone.getsockname()
    with connect_datagrams(address) as client:
        client.send(b"x")
        with pytest.raises(ConnectionRefusedError):
            received(client)
        with bind_datagrams(*address) as server:
            client.send(b"y")
            assert received(server).data == b"y"


def test_what_cannot_be_bound_says_why() -> None:
    with bind_datagrams("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"cannot bind UDP 127.0.0.1:{port}: Address alr"):
            bind_datagrams("127.0.0.1", port)
    with pytest.raises(ConfigError, match=r"cannot bind UDP 192.0.2.1:0: Cannot assign"):
        bind_datagrams("192.0.2.1", 0)


@pytest.mark.parametrize(("behind_s", "told"), [(59.0, True), (61.0, False), (-1.0, False)])
def test_a_clock_that_was_set_meanwhile_tells_no_wait(
    monkeypatch: pytest.MonkeyPatch, behind_s: float, told: bool
) -> None:
    """WAITED_S_MAX is 60: who waited longer, or less than not at all, has not waited."""
    assert WAITED_S_MAX == 60.0
    server = bind_datagrams("127.0.0.1", 0)
    with server, connect_datagrams(server.getsockname()) as client:
        client.send(b"x")
        now = time.time()
        monkeypatch.setattr("edged.runtime.datagrams.time.time", lambda: now + behind_s)
        waited_s = received(server).waited_s
        assert waited_s == (pytest.approx(behind_s, abs=0.1) if told else 0.0)


@pytest.mark.parametrize("more", [0, 1, 3000])
def test_a_long_one_is_cut(more: int) -> None:
    server = bind_datagrams("127.0.0.1", 0)
    with server, connect_datagrams(server.getsockname()) as client:
        client.send(b"x" * (DATAGRAM_BYTES_MAX + more))
        assert len(received(server).data) == DATAGRAM_BYTES_MAX


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_they_are_marked(host: str) -> None:
    with bind_datagrams(host, 0) as server:
        mark_datagrams(server, 34)
        assert server.getsockopt(socket.IPPROTO_IP, socket.IP_TOS) == 34 << 2
        if host == "::1":
            assert server.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS) == 34 << 2


def test_a_socket_that_is_full_is_a_probe_lost() -> None:
    with bind_datagrams("127.0.0.1", 0) as server:
        nowhere = Datagram(b"", 0.0, ("127.0.0.1", 0), ())
        assert not answer(server, nowhere, b"x")
    with contextlib.closing(server):
        assert not answer(server, nowhere, b"x")
