"""The RTMP shell in a real pump, with our client core as the encoder."""

import contextlib
import socket
import struct
from collections.abc import AsyncIterator

import msgspec
import pytest
import trio
from structlog.testing import capture_logs

from edged.errors import PublishRefusedError
from edged.ingest import rtmp as rtmp_module
from edged.ingest import rtmp_publisher
from edged.ingest.plugin import PrepareReload, Publication, PublisherControl, PublishRequest
from edged.ingest.rtmp import RtmpConfig, serve_rtmp
from edged.ingest.rtmp_publisher import RtmpPublisher
from edged.media.access_unit import AccessUnit
from edged.media.stream import Grant, StreamId
from edged.media.track import Codec
from edged.runtime.hub import Hub
from edged.runtime.listeners import parse_address
from edged.runtime.pump import Pump
from edged.wire.rtmp import AmfValue, PublishAccepted, ReconnectRequested, RtmpClientOptions
from edged.wire.rtmp import messages as m
from tests.ingest.rtmp_peer import Encoder, encoder, until
from tests.wire.rtmp.peers import AAC, H264, h264_unit, unit

WALL_US = 1_700_000_000_000_000


class Door:
    """Lets in whoever knows the word; decides when the test says so."""

    def __init__(self, pump: Pump) -> None:
        self.pump = pump
        self.hub = Hub()
        self.requests: list[PublishRequest] = []
        self.controls: list[PublisherControl] = []
        self.publications: list[Publication] = []
        self.ended: list[str] = []
        self.lost = 0  # Of these: who may come back.
        self.may_decide = trio.Event()
        self.may_decide.set()
        self.fails_with: Exception | None = None
        self.prepares: dict[str, PrepareReload] = {}

    def on_reload(self, name: str, prepare: PrepareReload) -> None:
        self.prepares[name] = prepare

    async def publish(self, request: PublishRequest, control: PublisherControl) -> Publication:
        self.requests.append(request)
        self.controls.append(control)
        await self.may_decide.wait()
        if self.fails_with is not None:
            raise self.fails_with
        if request.stream_key.partition("?")[0] != "secret":
            raise PublishRefusedError("unknown_key", "the stream key is not valid here")
        stream = self.hub.open(
            StreamId("alice", len(self.publications) + 1),
            Grant(channel="alice"),
            started_at=0.0,
            came_from="test",
        )
        self.publications.append(
            Publication(stream, wallclock_us=lambda: WALL_US, close=self._close)
        )
        return self.publications[-1]

    def _close(self, publication: Publication, reason: str, may_return: bool) -> None:
        self.ended.append(reason)
        self.lost += may_return
        self.hub.close(publication.stream, reason)

    def units(self) -> list[AccessUnit]:
        ring = self.publications[-1].stream.ring
        return ring.reader(start=ring.first_seq).read(1000, 2**30).units


class Service:
    def __init__(self, door: Door, addresses: dict[str, str]) -> None:
        self.door = door
        self.address = addresses["rtmp"]
        self.addresses = addresses


@contextlib.asynccontextmanager
async def serving(config: RtmpConfig | None = None) -> AsyncIterator[Service]:
    pump = Pump()
    door = Door(pump)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pump.run)
        addresses = await nursery.start(
            serve_rtmp, config or RtmpConfig(listen="127.0.0.1:0"), door
        )
        yield Service(door, addresses)
        nursery.cancel_scope.cancel()


async def test_a_publisher_s_units_arrive_numbered_and_timed() -> None:
    async with serving() as service, encoder(service.address) as peer:
        await peer.accepted()
        peer.session.send_track(H264)
        peer.session.send_track(AAC)
        sent = [
            h264_unit(0, key=True),
            unit(AAC, 0, b"sound 1"),
            unit(AAC, 1024, b"sound 2"),
            h264_unit(3000, pts=6000),
        ]
        for one in sent:
            peer.session.send_unit(one, H264 if one.track_id == 1 else AAC)
        await peer.flush()
        door = service.door
        await until(lambda: len(door.units()) == 4)
        got = door.units()
        assert [one.seq for one in got] == [0, 1, 2, 3]
        assert [one.payload for one in got] == [one.payload for one in sent]
        assert [one.pts for one in got] == [0, 0, 1024, 6000]
        assert [one.wallclock_us - WALL_US for one in got] == [0, 0, 21_333, 66_667]
        assert [one.random_access for one in got] == [True, True, True, False]
        tracks = door.publications[0].stream.tracks
        assert [track.config for track in tracks.values()] == [H264.config, AAC.config]
        assert door.requests[0].protocol == "rtmp"
        assert door.requests[0].app == "live"
        assert door.requests[0].peer.startswith("127.0.0.1:")
        assert "edged" in door.requests[0].encoder


async def test_several_tracks_are_announced_with_what_the_metadata_says_of_them() -> None:
    with capture_logs() as logs:
        async with serving() as service, encoder(service.address) as peer:
            await peer.accepted()
            picture = h264_unit(0, key=True).payload
            names: dict[str, AmfValue] = {"1": {"language": "de", "title": "Deutsch"}}
            peer.session.send_metadata({"audioTrackIdInfoMap": names})
            tracks = [
                msgspec.structs.replace(track, track_id=track_id)
                for track_id, track in ((1, H264), (3, H264), (2, AAC), (4, AAC))
            ]
            for track in tracks:
                peer.session.send_track(track)
                payload = picture if track.codec is Codec.H264 else b"x"
                peer.session.send_unit(unit(track, 0, payload), track)
            await peer.flush()
            door = service.door
            await until(lambda: len(door.units()) == 4)
            known = door.publications[0].stream.tracks
            assert list(known) == [1, 3, 2, 4]
            assert [(t.language, t.name) for t in known.values()][2:] == [
                ("und", ""),
                ("de", "Deutsch"),
            ]
    told = [line for line in logs if line["event"] == "track"]
    assert [(line["track"], line["language"], line["name"]) for line in told][2:] == [
        (2, None, None),
        (4, "de", "Deutsch"),
    ]


async def test_units_without_configuration_are_dropped_and_told_of_once() -> None:
    with capture_logs() as logs:
        async with serving() as service:
            async with encoder(service.address) as peer:
                await peer.accepted()
                peer.session.send_track(H264)
                other = msgspec.structs.replace(H264, track_id=3)
                peer.session._tracks[3] = 2  # Its number on the wire, without its announcement.
                for index in range(3):
                    one = h264_unit(3000 * index, key=True).replaced(track_id=3)
                    peer.session.send_unit(one, other)
                peer.session.send_unit(h264_unit(0, key=True), H264)
                await peer.flush()
                await until(service.door.units)
            await until(lambda: service.door.ended)
    (line,) = [line for line in logs if line["event"] == "units dropped"]
    assert (line["channel"], line["track"], line["log_level"]) == ("alice", 3, "warning")
    assert line["reason"] == "h264 access unit on track 3 before its configuration"
    (ended,) = [line for line in logs if line["event"] == "publisher ended"]
    assert (ended["units"], ended["units_unusable"]) == (1, 3)


async def test_reading_pauses_until_the_door_has_decided() -> None:
    async with serving() as service:
        service.door.may_decide = trio.Event()
        async with encoder(service.address) as peer:
            await until(lambda: service.door.requests)
            (session,) = service.door.controls
            assert isinstance(session, RtmpPublisher)
            taken = session._connection.received_bytes
            await peer.stream.send_all(bytes(1000))  # No RTMP: it would end the session.
            await trio.sleep(0.02)
            assert session._connection.received_bytes == taken
            assert session._connection.lost is None
            service.door.may_decide.set()
            await until(lambda: peer.closed)


async def test_bytes_that_came_right_after_the_request_are_kept_for_the_answer() -> None:
    """An encoder that does not wait for the answer: FCPublish and metadata come with `publish`."""
    async with serving() as service, encoder(service.address) as peer:
        call = peer.session._call

        def call_and_go_on(name: str, values: list[AmfValue], stream_id: int = 0) -> None:
            call(name, values, stream_id)
            if name == "publish":
                peer.session.send_metadata({"framerate": 30.0})
                call("FCUnpublish", [None, "secret"], 0)

        peer.session._call = call_and_go_on  # type: ignore[method-assign]
        await until(lambda: peer.closed)
        assert peer.events == [PublishAccepted()]
        await until(lambda: service.door.ended)
        assert service.door.ended == ["publisher sent FCUnpublish"]


async def test_an_unknown_key_is_told_why_and_disconnected() -> None:
    with capture_logs() as logs:
        async with serving() as service, encoder(service.address, "wrong-key") as peer:
            refusal = await peer.refused()
            assert refusal.code == "NetStream.Publish.BadName"
            assert refusal.description == "unknown_key: the stream key is not valid here"
            assert b"NetStream.Publish.Start" not in peer.received
            assert not service.door.publications
    (line,) = [line for line in logs if line["event"] == "publisher refused"]
    assert (line["code"], line["protocol"]) == ("unknown_key", "rtmp")
    assert "wrong-key" not in str(logs)


async def test_who_asks_when_the_plugin_has_ended_is_told_so() -> None:
    """Its connections are the pump's, and live on until that lets them go."""
    pump = Pump()
    with capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump.run)
            async with trio.open_nursery() as plugin:
                door = Door(pump)
                config = RtmpConfig(listen="127.0.0.1:0")
                addresses = await plugin.start(serve_rtmp, config, door)
                stream = await trio.open_tcp_stream(*parse_address(addresses["rtmp"]))
                peer = Encoder(stream, addresses["rtmp"])
                await peer.flush()  # Its handshake.
                first = await stream.receive_some(65536)
                plugin.cancel_scope.cancel()
            peer.received += first
            peer.session.receive_data(bytes(first), trio.current_time())
            async with stream:
                nursery.start_soon(peer.run)
                assert (await peer.refused()).description.startswith("drain: this PoP is draining")
            nursery.cancel_scope.cancel()
    assert door.requests == []
    assert "session failed" not in [line["event"] for line in logs]


async def test_a_door_that_does_not_answer_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rtmp_publisher, "PUBLISH_TIMEOUT_S", 0.02)
    async with serving() as service:
        service.door.may_decide = trio.Event()
        async with encoder(service.address) as peer:
            assert (await peer.refused()).description.startswith("timeout: no decision within")


async def test_a_bug_in_the_door_ends_that_session_only() -> None:
    with capture_logs() as logs:
        async with serving() as service:
            service.door.fails_with = ZeroDivisionError("oh")
            async with encoder(service.address) as peer:
                await until(lambda: peer.closed)
            service.door.fails_with = None
            async with encoder(service.address) as peer:
                await peer.accepted()
    assert "session failed" in [line["event"] for line in logs]


async def test_a_publisher_that_leaves_while_it_waits_harms_nobody() -> None:
    async with serving() as service:
        door = service.door
        door.may_decide = trio.Event()
        async with encoder(service.address) as peer:
            await until(lambda: door.requests)
            assert isinstance(peer.stream, trio.SocketStream)
            reset = struct.pack("ii", 1, 0)  # Closing then resets: no FIN, which pausing hides.
            peer.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        session = door.controls[0]
        assert isinstance(session, RtmpPublisher)
        await until(lambda: session not in session._owner._pending)
        door.may_decide.set()
        async with encoder(service.address) as peer:
            await peer.accepted()
        assert len(door.publications) == 1


async def test_the_end_of_a_session_ends_the_publication_and_is_one_line() -> None:
    with capture_logs() as logs:
        async with serving() as service:
            async with encoder(service.address) as peer:
                await peer.accepted()
                peer.session.send_track(AAC)
                peer.session.send_unit(unit(AAC, 0, b"x"), AAC)
                await peer.flush()
                await until(service.door.units)
            await until(lambda: service.door.ended)
            assert service.door.ended == ["closed by peer"]
            assert service.door.lost == 1, "without a goodbye: it may come back"
    (started,) = [line for line in logs if line["event"] == "publisher started"]
    (ended,) = [line for line in logs if line["event"] == "publisher ended"]
    assert (started["channel"], started["priority"]) == ("alice", "basic")
    assert (ended["channel"], ended["reason"], ended["units"]) == ("alice", "closed by peer", 1)
    assert "secret" not in str(logs)


async def test_an_end_in_good_order_is_answered() -> None:
    async with serving() as service, encoder(service.address) as peer:
        await peer.accepted()
        peer.session.close()
        await peer.flush()
        await until(lambda: peer.closed)
        assert b"NetStream.Unpublish.Success" in peer.received
        await until(lambda: service.door.ended)
        assert service.door.ended[0].startswith("publisher sent")
        assert service.door.lost == 0


async def linger(peer: Encoder, door: Door) -> RtmpPublisher:
    """The peer reads no more and what is queued for it stays: a close will have to wait."""
    (session,) = door.controls
    assert isinstance(session, RtmpPublisher)
    assert isinstance(peer.stream, trio.SocketStream)
    peer.listening.cancel()
    connection = session._connection
    peer.stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    before = 0
    while not connection.out_bytes or connection.out_bytes != before:
        if not connection.out_bytes:
            connection.write(bytes(rtmp_module.OUT_BYTES_MAX // 2))
        before = connection.out_bytes
        await trio.sleep(0.06)  # Longer than TCP delays an acknowledgement, which makes room.
    return session


async def test_a_publish_right_after_an_unpublish_is_not_asked_of_the_door() -> None:
    with capture_logs() as logs:
        async with serving() as service:
            async with encoder(service.address) as peer:
                await peer.accepted()
                session = await linger(peer, service.door)
                peer.session._call("FCUnpublish", [None, "secret"], 0)
                peer.session._call("publish", [None, "secret", "live"], 1)
                await peer.flush()
                await until(lambda: session._closed)
                await trio.sleep(0.02)
                assert session._connection.lost is None
                assert len(service.door.requests) == 1
                assert session._publication is service.door.publications[0]
            await until(lambda: service.door.ended)
            assert service.door.ended == ["publisher sent FCUnpublish"]
            assert len(service.door.hub) == 0
    assert [line["event"] for line in logs].count("publisher started") == 1


@pytest.mark.parametrize("key", ["secret", "wrong-key"])
async def test_a_session_stopped_while_the_door_decides_never_begins(key: str) -> None:
    with capture_logs() as logs:
        async with serving() as service:
            service.door.may_decide = trio.Event()
            async with encoder(service.address, key) as peer:
                await until(lambda: service.door.requests)
                session = await linger(peer, service.door)
                session.stop("Rejected", "the PoP drains")
                service.door.may_decide.set()
                await until(lambda: session._authorising is None)
                assert session._connection.lost is None
            await until(lambda: session not in session._owner._pending)
            assert service.door.ended == ["the PoP drains"] * len(service.door.publications)
            assert len(service.door.publications) == (key == "secret")
    (line,) = [line for line in logs if line["event"] not in ("listening", "stopped listening")]
    assert (line["event"], line["reason"]) == ("connection ended", "the PoP drains")


async def test_what_the_network_wants_of_a_publisher() -> None:
    async with serving() as service, encoder(service.address) as peer:
        await peer.accepted()
        (control,) = service.door.controls
        control.want_key_frame()
        control.cap_bitrate(1_000_000)  # RTMP cannot say either.
        control.stop("Rejected", "taken over by a newer publisher")
        closed = await peer.stopped()
        assert closed.code == "NetStream.Publish.Rejected"
        assert closed.description == "taken over by a newer publisher"
        await until(lambda: service.door.ended)
        assert service.door.ended == ["taken over by a newer publisher"]


@pytest.mark.parametrize("reconnects", [True, False], ids=["can be asked", "cannot"])
@pytest.mark.parametrize("url", ["rtmp://other.example/live", None])
async def test_drained_an_encoder_is_asked_to_reconnect_or_closed(
    reconnects: bool, url: str | None
) -> None:
    """E-RTMP v2: until it disconnects, what it sends is taken."""
    options = RtmpClientOptions(reconnects=reconnects)
    async with serving() as service, encoder(service.address, options=options) as peer:
        await peer.accepted()
        (control,) = service.door.controls
        control.drain(url)
        if not reconnects:
            closed = await peer.stopped()
            assert closed.code == "NetStream.Publish.Rejected"
            assert closed.description == "drain: this PoP is draining; connect again"
            return
        await until(lambda: len(peer.events) > 1)
        assert peer.events[1] == ReconnectRequested(url or "", "this PoP is draining")
        peer.session.send_track(H264)
        peer.session.send_unit(h264_unit(0, key=True), H264)
        await peer.flush()
        (publication,) = service.door.publications
        await until(lambda: publication.stream.units == 1)
        control.stop("Rejected", "drain: enough")
        assert (await peer.stopped()).description == "drain: enough"


async def test_play_is_refused_with_a_reason() -> None:
    async with serving() as service:
        host, _, port = service.address.rpartition(":")
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            peer = Encoder(stream, service.address)
            call = peer.session._call  # Our client core cannot play.

            def call_play(name: str, values: list[AmfValue], stream_id: int = 0) -> None:
                call("play" if name == "publish" else name, values, stream_id)

            peer.session._call = call_play  # type: ignore[method-assign]
            with trio.fail_after(5):
                await peer.run()
            assert b"this server takes publishers only" in peer.received
            assert not service.door.requests


@pytest.mark.parametrize(
    ("config", "sends", "reason"),
    [
        (RtmpConfig(listen="127.0.0.1:0", handshake_timeout_s=0.03), b"", "no handshake within"),
        (RtmpConfig(listen="127.0.0.1:0"), b"GET / HTTP/1.1\r\n\r\n", "version"),
    ],
    ids=["silence", "no RTMP"],
)
async def test_who_does_not_speak_rtmp_is_dropped(
    config: RtmpConfig, sends: bytes, reason: str
) -> None:
    with capture_logs() as logs:
        async with serving(config) as service:
            host, _, port = service.address.rpartition(":")
            async with await trio.open_tcp_stream(host, int(port)) as stream:
                if sends:
                    await stream.send_all(sends)
                with trio.fail_after(5):
                    assert await stream.receive_some() == b""
            await trio.sleep(0.01)
    (line,) = [line for line in logs if line["event"] == "connection ended"]
    assert reason in line["reason"]


@pytest.mark.parametrize(
    ("config", "publishes", "reason"),
    [
        (
            RtmpConfig(listen="127.0.0.1:0", silence_timeout_s=0.05),
            True,
            "no audio or video for 0.05 s",
        ),
        (RtmpConfig(listen="127.0.0.1:0", publish_timeout_s=0.05), False, "no publish within"),
    ],
    ids=["media stops", "never publishes"],
)
async def test_deadlines(config: RtmpConfig, publishes: bool, reason: str) -> None:
    with capture_logs() as logs:
        async with serving(config) as service:
            async with encoder(service.address) as peer:
                if not publishes:
                    peer.session._call = lambda *_: None  # type: ignore[method-assign]
                await until(lambda: peer.closed)
            await until(lambda: any("ended" in line["event"] for line in logs))
            assert service.door.lost == publishes, "who falls silent may come back"
    (line,) = [line for line in logs if line["event"] in ("publisher ended", "connection ended")]
    assert reason in line["reason"]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"\x2f\xff", "unsupported_media: legacy flv audio format 2 is not supported"),
        (b"\xaf\x02", "broken_protocol: legacy audio packet type 2 is not known"),
    ],
)
async def test_a_publisher_that_cannot_be_carried_is_told_why(body: bytes, told: str) -> None:
    with capture_logs() as logs:
        async with serving() as service, encoder(service.address) as peer:
            await peer.accepted()
            peer.session._send(4, m.AUDIO, body, peer.session._stream_id)
            await peer.flush()
            closed = await peer.stopped()
            assert (closed.code, closed.description[: len(told)]) == (
                "NetStream.Publish.Failed",
                told,
            )
            await until(lambda: service.door.ended)
            assert service.door.ended[0].startswith(told), "at once, though the peer is still here"
            assert service.door.lost == 0, "we have ended it"
    assert any(str(line.get("reason")).startswith(told) for line in logs)


async def test_a_message_beyond_the_limit_ends_the_session() -> None:
    config = RtmpConfig(listen="127.0.0.1:0", message_bytes_max=65536)
    async with serving(config) as service, encoder(service.address) as peer:
        await peer.accepted()
        peer.session.send_track(H264)
        peer.session.send_unit(h264_unit(0, key=True, size=65000), H264)
        await peer.flush()
        await until(service.door.units)
        peer.session.send_unit(h264_unit(3000, size=66000), H264)
        with contextlib.suppress(trio.BrokenResourceError):
            await peer.flush()
        await until(lambda: service.door.ended)
        assert "65536" in service.door.ended[0]
