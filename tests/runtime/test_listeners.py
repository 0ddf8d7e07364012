"""Listening and connecting on loopback, and every way in which they fail."""

import errno
import socket
import ssl
import struct
import time
from functools import partial
from pathlib import Path

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from edged.errors import ConfigError, PeerLostError
from edged.runtime import listeners
from edged.runtime.connection import Connection
from edged.runtime.listeners import (
    SHED_LAG_S,
    connect,
    open_listener,
    parse_address,
    peer_name,
    serve,
)
from edged.runtime.pump import Pump, PumpClass
from edged.runtime.tls import Identity, make_server_context
from edged.tools.cert import make_authority, make_host_certificate
from tests.runtime.test_pump import Recorder, receive, running_pump


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1:1935", ("127.0.0.1", 1935)),
        ("[::1]:1", ("::1", 1)),
        (":80", ("::", 80)),
        ("host.example:65535", ("host.example", 65535)),
    ],
)
def test_parse_address(address: str, expected: tuple[str, int]) -> None:
    assert parse_address(address) == expected


@pytest.mark.parametrize(
    "address",
    [
        *("", "host", "host:", "host:x", "host:65536", "1.2.3.4:-1", "host:1_0", "host: 1"),
        *("host:\N{SUPERSCRIPT TWO}", "host:\N{ARABIC-INDIC DIGIT THREE}", f"host:{'9' * 5000}"),
    ],
)
def test_parse_address_refuses(address: str) -> None:
    with pytest.raises(ConfigError, match='is not "HOST:PORT"'):
        parse_address(address)


def test_peer_name() -> None:
    assert peer_name(("::ffff:10.0.0.1", 5, 0, 0)) == "10.0.0.1:5"
    assert peer_name(("::1", 5, 0, 0)) == "[::1]:5"
    assert peer_name("") == ""


def without_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a host whose kernel was started with ipv6.disable=1."""
    make = socket.socket

    def make_socket(family: int, kind: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return make(family, kind)

    monkeypatch.setattr("edged.runtime.listeners.socket.socket", make_socket)


@pytest.mark.parametrize("address", ["[::]:0", ":0"])
def test_without_ipv6_all_addresses_are_those_of_ipv4(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    without_ipv6(monkeypatch)
    with capture_logs() as logs, open_listener(address) as listener:
        assert listener.getsockname()[0] == "0.0.0.0"  # noqa: S104 - what is expected
    assert [line["event"] for line in logs] == ["no IPv6 on this host, listening on IPv4 alone"]


def test_without_ipv6_one_of_its_addresses_is_a_mistake_that_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    without_ipv6(monkeypatch)
    with pytest.raises(ConfigError, match=r"cannot listen on '\[::1\]:0': Address family not supp"):
        open_listener("[::1]:0")


@pytest.mark.parametrize("address", ["a..b:0", f"{'x' * 70}.example:0"])
def test_a_name_that_is_none_is_named(address: str) -> None:
    with pytest.raises(ConfigError, match="cannot listen on"):
        open_listener(address)


def test_an_address_in_use_is_named() -> None:
    with open_listener("127.0.0.1:0") as first:
        port = first.getsockname()[1]
        with pytest.raises(ConfigError, match=f"cannot listen on '127.0.0.1:{port}': Address"):
            open_listener(f"127.0.0.1:{port}")


async def test_serve_and_connect() -> None:
    async with running_pump() as pump, trio.open_nursery() as nursery:
        made: list[Recorder] = []

        def make(connection: Connection) -> Recorder:
            made.append(Recorder(connection))
            return made[-1]

        bound = await nursery.start(partial(serve, pump, "127.0.0.1:0", make, PumpClass.PUBLISHER))
        client = await connect(pump, bound, Recorder, PumpClass.BACKBONE)
        client.write(b"hello")
        handler = client.handler
        assert isinstance(handler, Recorder)
        with trio.fail_after(5):
            while not made:  # noqa: ASYNC110 - the maker is synchronous
                await trio.sleep(0.001)
        await made[0].until(lambda: bytes(made[0].received) == b"hello")
        assert made[0].connection.peer.startswith("127.0.0.1:")
        made[0].connection.write(b"bye")
        await handler.until(lambda: bytes(handler.received) == b"bye")
        nursery.cancel_scope.cancel()


async def test_connections_beyond_the_limit_are_refused_until_one_leaves() -> None:
    async with running_pump() as pump, trio.open_nursery() as nursery:
        bound = await nursery.start(
            partial(serve, pump, "127.0.0.1:0", Recorder, PumpClass.VIEWER, connections_max=1)
        )
        host, port = parse_address(bound)
        with socket.create_connection((host, port)) as first:
            await trio.sleep(0.01)
            with socket.create_connection((host, port)) as second:
                second.setblocking(False)
                assert await receive(second, 1) == b""
            first.close()
            await trio.sleep(0.02)
            with socket.create_connection((host, port)) as third:
                third.setblocking(False)
                await trio.sleep(0.02)
                with pytest.raises(BlockingIOError):
                    third.recv(1)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("makes_room", [True, False])
async def test_slow_callers_who_fill_a_listener_make_room(
    makes_room: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those who have said what they are for stay, and so do those who have just come.

    A listener whose handlers do not tell which those are, as a plug-in's, ends nobody.
    """
    monkeypatch.setattr(listeners, "ROOM_AFTER_S", 0.2)
    async with running_pump() as pump, trio.open_nursery() as nursery:
        bound = await nursery.start(
            partial(
                serve,
                pump,
                "127.0.0.1:0",
                Recorder,
                PumpClass.PUBLISHER,
                connections_max=3,
                makes_room=makes_room,
            )
        )

        callers: list[trio.SocketStream] = []

        async def call(*, spoke: bool = False) -> trio.SocketStream:
            callers.append(await trio.open_tcp_stream(*parse_address(bound)))
            await trio.sleep(0.02)
            if spoke:
                next(reversed(pump._connections.values())).spoke = True
            return callers[-1]

        async def is_open(stream: trio.SocketStream) -> bool:
            with trio.move_on_after(0.02):
                return await stream.receive_some(1) != b""
            return True

        first = [await call(spoke=True), await call(), await call()]
        assert not await is_open(await call()), "those are here since a moment ago"
        await trio.sleep(0.25)
        if not makes_room:
            assert not await is_open(await call())
            assert [await is_open(caller) for caller in first] == [True, True, True]
            for caller in callers:
                await caller.aclose()
            nursery.cancel_scope.cancel()
            return
        first += [await call(spoke=True), await call(spoke=True)]
        assert [await is_open(caller) for caller in first] == [True, False, False, True, True]
        await trio.sleep(0.25)
        assert not await is_open(await call()), "all who are here have spoken"
        await first[0].aclose()
        await trio.sleep(0.02)
        assert await is_open(await call())
        for caller in callers:
            await caller.aclose()
        nursery.cancel_scope.cancel()


async def test_at_the_limit_a_newcomer_is_judged_quickly_whoever_is_there() -> None:
    async with running_pump() as pump:
        places, pairs = (
            listeners._Places("here", makes_room=True),
            [socket.socketpair() for _ in range(200)],
        )
        for ours, theirs in pairs:
            connection = pump.add(ours, Recorder, PumpClass.VIEWER, peer="test")
            places.give(connection, -1.0)
            connection.spoke = True
            theirs.close()
        for left in range(len(pairs), 0, -listeners.SPOKEN_PER_CALL_MAX):
            assert len(places._silent) == left
            assert not places.has_room(len(pairs), pump.now())
        assert not places._silent


async def test_viewers_are_shed_when_the_loop_lags_and_publishers_are_not() -> None:
    async with running_pump() as pump, trio.open_nursery() as nursery:
        for pump_class, kept in ((PumpClass.VIEWER, False), (PumpClass.PUBLISHER, True)):
            bound = await nursery.start(partial(serve, pump, "127.0.0.1:0", Recorder, pump_class))
            pump._note_lag(10.0)
            with socket.create_connection(parse_address(bound)) as caller:
                caller.setblocking(False)
                await trio.sleep(0.01)
                if kept:
                    with pytest.raises(BlockingIOError):
                        caller.recv(1)
                else:
                    assert await receive(caller, 1) == b""
        nursery.cancel_scope.cancel()


async def test_connect_says_why_it_failed() -> None:
    with open_listener("127.0.0.1:0") as listener:
        closed = peer_name(listener.getsockname())
    async with running_pump() as pump:
        with pytest.raises(PeerLostError, match=f"cannot connect to {closed}: .*refused"):
            await connect(pump, closed, Recorder, PumpClass.BACKBONE)


async def test_a_reset_before_the_handshake_ends_nothing_else(tmp_path: Path) -> None:
    make_authority(tmp_path, "test", now=time.time())
    files = make_host_certificate(tmp_path, Identity("pop", "ams1"), now=time.time())
    context = make_server_context(files.certificate, files.key)
    async with running_pump() as pump, trio.open_nursery() as nursery:
        bound = await nursery.start(
            partial(
                serve,
                pump,
                "127.0.0.1:0",
                Recorder,
                PumpClass.PUBLISHER,
                tls=context,
                connections_max=1,
            )
        )
        for _ in range(3):
            caller = socket.create_connection(parse_address(bound))
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            caller.close()
        await trio.sleep(0.05)
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
        connection = await connect(pump, bound, Recorder, PumpClass.BACKBONE, tls=client)
        assert connection.lost is None
        nursery.cancel_scope.cancel()


async def test_how_many_may_connect_can_change_meanwhile() -> None:
    most = 1
    async with running_pump() as pump, trio.open_nursery() as nursery:
        bound = await nursery.start(
            partial(
                serve,
                pump,
                "127.0.0.1:0",
                Recorder,
                PumpClass.PUBLISHER,
                connections_max=lambda: most,
            )
        )
        callers = [await trio.open_tcp_stream(*parse_address(bound))]
        refused = await trio.open_tcp_stream(*parse_address(bound))
        with trio.fail_after(5):
            assert await refused.receive_some(1) == b""
        most = 2
        callers.append(await trio.open_tcp_stream(*parse_address(bound)))
        await trio.sleep(0.02)
        most = 0  # Who is there stays.
        for caller in callers:
            with trio.move_on_after(0.02) as waiting:
                await caller.receive_some(1)
            assert waiting.cancelled_caught
            await caller.aclose()
        await refused.aclose()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("address", ["nowhere", "a..b:7410", f"{'x' * 70}.example:1", ":99999"])
async def test_an_address_that_is_none_is_a_lost_peer(address: str) -> None:
    async with running_pump() as pump:
        with pytest.raises(PeerLostError, match="cannot connect to"):
            await connect(pump, address, Recorder, PumpClass.BACKBONE)


async def test_an_idle_pump_forgets_its_lag(autojump_clock: MockClock) -> None:
    pump = Pump()
    pump._note_lag(0.6)
    assert pump.lag_s == pytest.approx(0.6)
    await trio.sleep(2.0)
    assert pump.lag_s < SHED_LAG_S


async def test_callers_turned_away_are_said_once_and_counted() -> None:
    async with running_pump() as pump, trio.open_nursery() as nursery:
        with capture_logs() as logs:
            bound = await nursery.start(
                partial(serve, pump, "127.0.0.1:0", Recorder, PumpClass.VIEWER, connections_max=0)
            )
            for _ in range(3):
                with socket.create_connection(parse_address(bound)) as caller:
                    caller.setblocking(False)
                    assert await receive(caller, 1) == b""
        told = [line for line in logs if line["event"] == "callers turned away"]
        assert [(line["reason"], line["count"]) for line in told] == [("0 connections are open", 1)]
        nursery.cancel_scope.cancel()
