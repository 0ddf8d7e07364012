import contextlib
import ssl
import time
from pathlib import Path
from typing import TYPE_CHECKING, cast
from unittest.mock import Mock

import msgspec
import pytest
import trio

from edged.errors import ConfigError, PeerLostError
from edged.ingest import rtmp as rtmp_module
from edged.ingest.rtmp import RtmpConfig, RtmpIngest, RtmpTlsConfig
from edged.runtime.tls import Identity
from edged.tools.cert import make_authority, make_host_certificate
from edged.wire.rtmp import RtmpClientOptions
from tests.fuzz.fakes import StillConnection, StillPump
from tests.ingest.rtmp_peer import encoder, until
from tests.ingest.test_rtmp_publisher import serving
from tests.wire.rtmp.peers import H264, h264_unit

if TYPE_CHECKING:
    from edged.ingest import plugin
    from edged.runtime.connection import Connection

WALL_US = 1_700_000_000_000_000


async def test_reloaded_limits_are_for_sessions_from_now_on() -> None:
    async with serving() as service, encoder(service.address) as old:
        await old.accepted()
        service.door.prepares["rtmp"](RtmpConfig(publishers_max=1, message_bytes_max=65536))()
        async with encoder(service.address) as new:
            assert "full: this PoP takes 1 publishers" in (await new.refused()).description
        old.session.send_track(H264)
        large = h264_unit(0, key=True, size=70_000)
        old.session.send_unit(large, H264)
        await old.flush()
        (publication,) = service.door.publications
        await until(lambda: publication.stream.units == 1)
        service.door.prepares["rtmp"](RtmpConfig(message_bytes_max=65536))()
        async with encoder(service.address) as new:
            await new.accepted()
            new.session.send_track(H264)
            new.session.send_unit(large, H264)
            with contextlib.suppress(trio.BrokenResourceError):
                await new.flush()
            assert "exceeds 65536" in (await new.stopped()).description
        assert not old.closed


async def test_a_reloaded_certificate_is_checked_first(tmp_path: Path) -> None:
    make_authority(tmp_path, "test", now=time.time())
    files = make_host_certificate(tmp_path, Identity("pop", "a"), now=time.time())
    tls = RtmpTlsConfig(
        listen="127.0.0.1:0", certificate=Path(files.certificate), key=Path(files.key)
    )
    async with serving(RtmpConfig(listen="127.0.0.1:0", tls=tls)) as service:
        gone = msgspec.structs.replace(tls, certificate=tmp_path / "gone.pem")
        with pytest.raises(ConfigError, match=r"gone\.pem"):
            service.door.prepares["rtmp"](RtmpConfig(publishers_max=1, tls=gone))
        for _ in range(2):  # Nothing has changed: two may publish.
            service.door.prepares["rtmp"](RtmpConfig(tls=tls))()


async def test_publishers_beyond_the_limit_are_turned_away() -> None:
    config = RtmpConfig(listen="127.0.0.1:0", publishers_max=1)
    async with serving(config) as service, encoder(service.address) as first:
        await first.accepted()
        async with encoder(service.address) as second:
            refused = await second.refused()
            assert refused.description == "full: this PoP takes 1 publishers; try again later"
    # A place is free again as soon as its publisher is gone.
    async with serving(config) as service:
        for _ in range(2):
            async with encoder(service.address) as peer:
                await peer.accepted()
            await until(lambda: service.door.ended == ["closed by peer"])
            service.door.ended.clear()


async def test_those_who_wait_for_the_door_have_their_places() -> None:
    """Else all who came while it decided would pass the limit together."""
    config = RtmpConfig(listen="127.0.0.1:0", publishers_max=1)
    async with serving(config) as service:
        service.door.may_decide = trio.Event()
        async with encoder(service.address, "wrong-key") as first:
            await until(lambda: service.door.requests)
            async with encoder(service.address) as second:
                assert (await second.refused()).description.startswith("full: ")
            service.door.may_decide.set()
            assert (await first.refused()).description.startswith("unknown_key: ")
        async with encoder(service.address) as third:  # A refused one gives its place back.
            await third.accepted()


async def test_one_address_cannot_take_all_places_without_a_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rtmp_module, "PENDING_PER_ADDRESS_MAX", 2)
    async with serving() as service, contextlib.AsyncExitStack() as stack:
        host, _, port = service.address.rpartition(":")
        silent = [
            await stack.enter_async_context(await trio.open_tcp_stream(host, int(port)))
            for _ in range(2)
        ]
        async with encoder(service.address) as third:
            await until(lambda: third.closed)
            assert third.events == []
        await silent[0].aclose()
        await trio.sleep(0.05)
        publishers = []
        for _ in range(3):  # Those that publish no longer count.
            publishers.append(await stack.enter_async_context(encoder(service.address)))
            await publishers[-1].accepted()


@pytest.mark.pure
def test_a_network_of_ipv6_counts_as_one_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """A subscriber has 2^64 of them (RFC 6177): each would have had places of its own."""
    monkeypatch.setattr(rtmp_module, "PENDING_PER_ADDRESS_MAX", 2)
    pump = StillPump()
    ingest = RtmpIngest(RtmpConfig(), cast("plugin.Door", None), cast("trio.Nursery", Mock()))

    def connect(peer: str) -> None:
        connection = StillConnection(pump)
        connection.peer = peer
        ingest.make_session(cast("Connection", connection))

    connect("[2001:db8:1:2::1]:50112")
    connect("[2001:db8:1:2:ffff::9]:50113")
    with pytest.raises(PeerLostError, match=r"^2 connections from 2001:db8:1:2::/64 have not"):
        connect("[2001:db8:1:2::3]:50114")
    connect("[2001:db8:1:3::1]:50115")
    for port in (1, 2):
        connect(f"10.0.0.7:{port}")
    with pytest.raises(PeerLostError, match=r"^2 connections from 10\.0\.0\.7 have not"):
        connect("10.0.0.7:3")


async def test_rtmps_beside_rtmp(tmp_path: Path) -> None:
    make_authority(tmp_path, "test", now=time.time())
    files = make_host_certificate(
        tmp_path, Identity("pop", "a"), now=time.time(), hosts=["127.0.0.1"]
    )
    config = RtmpConfig(
        listen="127.0.0.1:0",
        tls=RtmpTlsConfig(
            certificate=Path(files.certificate), key=Path(files.key), listen="127.0.0.1:0"
        ),
    )
    context = ssl.create_default_context(cafile=files.ca)
    async with serving(config) as service:
        address = service.addresses["rtmps"]
        options = RtmpClientOptions(enhanced=True)
        async with encoder(address, tls=context, options=options) as peer:
            await peer.accepted()
            assert service.door.requests[0].protocol == "rtmps"
            peer.session.send_track(H264)
            for count in range(30):
                peer.session.send_unit(h264_unit(count * 3000, key=not count, size=5000), H264)
            for chunk in peer.session.chunks_to_send():  # OBS: a TLS record per chunk.
                await peer.stream.send_all(chunk)
            await until(lambda: len(service.door.units()) == 30)
