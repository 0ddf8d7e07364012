import os
import ssl
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from edged.errors import ConfigError, PeerLostError, PublishRefusedError
from edged.media.access_unit import AccessUnit
from edged.runtime.tls import Identity, make_server_context
from edged.tools.cert import make_authority, make_host_certificate
from edged.tools.file_source import FileSource
from edged.tools.test_picture import VIDEO_TRACK_ID, PictureConfig, TestPicture
from edged.tools.test_publisher import (
    PUBLISHERS_MAX,
    QUEUE_UNITS_MAX,
    PublisherReport,
    PublishOptions,
    expand_urls,
    publish,
)
from edged.wire.rtmp import (
    PublishEnded,
    PublishRequested,
    RtmpServerSession,
    ServerEvent,
    TrackAnnounced,
)
from tests.tools.test_file_source import make_multitrack

if TYPE_CHECKING:
    from edged.media.track import Track

SMALL = PictureConfig(width=320, height=180)


class Server:
    """A server on loopback that takes whom its key list names, and remembers what came."""

    def __init__(self, refuse: Sequence[str] = ()) -> None:
        self.url = ""
        self.refuse = list(refuse)
        self.keys: list[str] = []
        self.tracks: dict[str, list[Track]] = {}
        self.units: dict[str, list[AccessUnit]] = {}
        self.ended: list[str] = []
        self.deaf = ""  # The key whose connection is not read once it is accepted.
        self.cut_after = 0  # Units of the first connection; then it is cut off. 0: never.
        self.sends_to = ""  # Where who is accepted is asked to reconnect to, if set.

    async def serve(
        self, tls: ssl.SSLContext | None = None, *, task_status: trio.TaskStatus[None]
    ) -> None:
        async with trio.open_nursery() as nursery:
            listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
            port = listeners[0].socket.getsockname()[1]
            self.url = f"{'rtmps' if tls else 'rtmp'}://localhost:{port}/live"
            wrapped = [trio.SSLListener(one, tls) if tls else one for one in listeners]
            nursery.start_soon(trio.serve_listeners, self._handle, wrapped)
            task_status.started()

    async def _handle(self, stream: trio.abc.Stream) -> None:
        session = RtmpServerSession(now=trio.current_time(), entropy=os.urandom)
        key = ""
        async with stream:
            while True:
                try:
                    data = await stream.receive_some(65536)
                except trio.BrokenResourceError:
                    return
                if not data:
                    return
                events = session.receive_data(bytes(data), trio.current_time())
                while events:
                    event = events.pop(0)
                    if isinstance(event, PublishRequested):
                        key = event.stream_key
                        events += self._decide(session, key)
                    else:
                        self._note(key, event)
                await stream.send_all(session.data_to_send())
                if key and key == self.deaf:
                    await trio.sleep_forever()
                if key in self.refuse or self._cuts(key):
                    return

    def _decide(self, session: RtmpServerSession, key: str) -> list[ServerEvent]:
        self.keys.append(key)
        if key in self.refuse:
            session.refuse_publish("NetStream.Publish.Denied", "unknown stream key")
            return []
        events = session.accept_publish(trio.current_time())
        if self.sends_to:
            assert session.request_reconnect("draining", self.sends_to)
        return events

    def _note(self, key: str, event: ServerEvent) -> None:
        if isinstance(event, TrackAnnounced):
            self.tracks.setdefault(key, []).append(event.track)
        elif isinstance(event, AccessUnit):
            self.units.setdefault(key, []).append(event)
        elif isinstance(event, PublishEnded):
            self.ended.append(key)

    def _cuts(self, key: str) -> bool:
        due = 0 < self.cut_after <= len(self.units.get(key, []))
        if due:
            self.cut_after = 0
        return due


class Flood(TestPicture):
    """A picture with units of 100 KB, far faster than real time."""

    def __init__(self) -> None:
        super().__init__(SMALL)

    def next_due_s(self) -> float | None:
        return self.counter / 600

    def skip_to(self, elapsed_s: float) -> None:
        """All of it must come."""

    def take_units(self) -> list[AccessUnit]:
        units = super().take_units()
        for unit in units:
            if unit.track_id == VIDEO_TRACK_ID:
                unit.payload += (
                    (99_996).to_bytes(4, "big") + b"\x0c" + bytes(99_995)
                )  # Filler data.
        return units


async def run(
    server: Server, keys: str, count: int = 1, options: PublishOptions | None = None
) -> list[PublisherReport]:
    reports: list[PublisherReport] = []
    await publish(
        expand_urls(server.url, keys, count),
        TestPicture(SMALL),
        options or PublishOptions(duration_s=0.15),
        report=reports.append,
        unix_now=time.time,
    )
    return reports


@pytest.mark.parametrize(
    ("url", "key", "count", "keys"),
    [
        ("rtmp://host/live/abc", None, 1, ["abc"]),
        ("rtmp://host/live", "abc?x=1", 1, ["abc?x=1"]),
        ("rtmp://host/live/", "k-{n}", 3, ["k-1", "k-2", "k-3"]),
        ("rtmps://host:444/live/k{n}", None, 2, ["k1", "k2"]),
    ],
)
def test_urls_are_expanded(url: str, key: str | None, count: int, keys: list[str]) -> None:
    places = expand_urls(url, key, count)
    assert [place.stream_key for place in places] == keys
    assert {place.app for place in places} == {"live"}


@pytest.mark.parametrize(
    ("url", "count", "why"),
    [
        ("rtmp://host/live/secret", 2, "need"),
        ("http://host/live/secret", 1, "rtmp"),
        ("rtmp://host/live/secret{n}", PUBLISHERS_MAX + 1, "count"),
        ("rtmp://host/live/secret", 0, "count"),
    ],
)
def test_urls_that_cannot_be_are_refused_without_the_key(url: str, count: int, why: str) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        expand_urls(url, None, count)
    assert "secret" not in str(caught.value)


@pytest.mark.e2e
async def test_one_encode_reaches_several_keys(nursery: trio.Nursery) -> None:
    server = Server()
    await nursery.start(server.serve)
    reports = await run(server, "key-{n}", 3, PublishOptions(duration_s=0.5))
    nursery.cancel_scope.cancel()
    assert sorted(server.keys) == sorted(server.ended) == ["key-1", "key-2", "key-3"]
    first = server.units["key-1"]
    assert first[0].random_access
    assert len(first) > 25
    for key in server.keys:
        assert [track.config for track in server.tracks[key]] == [
            track.config for track in TestPicture(SMALL).tracks
        ]
        payloads = [unit.payload for unit in server.units[key]]
        assert payloads[0] in [unit.payload for unit in first if unit.random_access]
    assert sorted(report.event for report in reports) == ["accepted"] * 3 + ["ended"] * 3
    assert "key" not in repr(reports)


@pytest.mark.e2e
async def test_all_tracks_of_a_file_arrive_with_their_names(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    server = Server()
    await nursery.start(server.serve)
    source = FileSource(make_multitrack(tmp_path / "all.mkv"), loop=False)
    await publish(expand_urls(server.url, "key"), source, unix_now=time.time)
    nursery.cancel_scope.cancel()
    tracks = {track.track_id: track for track in server.tracks["key"]}
    assert list(tracks) == [1, 3, 2, 4], "video has odd ids here"
    assert [track.config for track in tracks.values()] == [t.config for t in source.tracks]
    assert [(t.language, t.name) for t in tracks.values()][2:] == [
        ("eng", "Sound 0"),
        ("deu", "Sound 1"),
    ]
    for track_id in tracks:
        units = [unit for unit in server.units["key"] if unit.track_id == track_id]
        assert len(units) >= 30
        assert units[0].random_access


@pytest.mark.e2e
async def test_a_refusal_is_told_with_its_reason_and_not_retried(nursery: trio.Nursery) -> None:
    server = Server(refuse=["wrong"])
    await nursery.start(server.serve)
    with pytest.raises(PublishRefusedError, match="unknown stream key") as caught:
        await run(server, "wrong")
    nursery.cancel_scope.cancel()
    assert caught.value.code == "NetStream.Publish.Denied"
    assert server.keys == ["wrong"]


@pytest.mark.e2e
async def test_one_refusal_does_not_stop_the_others(nursery: trio.Nursery) -> None:
    server = Server(refuse=["k1"])
    await nursery.start(server.serve)
    reports = await run(server, "k{n}", 2, PublishOptions(duration_s=0.4))
    nursery.cancel_scope.cancel()
    assert [report.index for report in reports if report.event == "refused"] == [0]
    assert [report.index for report in reports if report.event == "ended"] == [1]
    assert "k1" not in server.units
    assert len(server.units["k2"]) > 5


@pytest.mark.e2e
async def test_a_lost_connection_is_made_again(nursery: trio.Nursery) -> None:
    server = Server()
    server.cut_after = 10
    await nursery.start(server.serve)
    reports = await run(server, "abc", options=PublishOptions(duration_s=1.2))
    nursery.cancel_scope.cancel()
    assert [report.event for report in reports] == ["accepted", "lost", "accepted", "ended"]
    assert reports[1].retry_s is not None
    assert server.keys == ["abc", "abc"]
    video = server.tracks["abc"][0].track_id
    times = [unit.dts for unit in server.units["abc"] if unit.track_id == video]
    assert len(times) > 10
    assert times == sorted(times)  # A reconnection goes on in the source's time.
    assert len(server.tracks["abc"]) == 4  # Announced again.


@pytest.mark.e2e
async def test_a_lost_connection_ends_it_when_told_not_to_reconnect(nursery: trio.Nursery) -> None:
    server = Server()
    server.cut_after = 10
    await nursery.start(server.serve)
    with pytest.raises(PeerLostError):
        await run(server, "abc", options=PublishOptions(duration_s=5, reconnect=False))
    nursery.cancel_scope.cancel()
    assert server.keys == ["abc"]


@pytest.mark.e2e
async def test_nobody_listening_says_so() -> None:
    server = Server()
    server.url = "rtmp://127.0.0.1:1/live"
    with pytest.raises(PeerLostError, match="refused"):
        await run(server, "abc", options=PublishOptions(duration_s=5, reconnect=False))


@pytest.mark.e2e
async def test_a_server_that_speaks_something_else_is_said_so() -> None:
    async def speak(stream: trio.abc.Stream) -> None:
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 200)
        await stream.receive_some()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, speak, 0)
        server = Server()
        server.url = f"rtmp://127.0.0.1:{listeners[0].socket.getsockname()[1]}/live"
        with pytest.raises(PeerLostError, match="version"):
            await run(server, "abc", options=PublishOptions(duration_s=5, reconnect=False))
        nursery.cancel_scope.cancel()


@pytest.mark.e2e
async def test_rtmps_is_verified(nursery: trio.Nursery, tmp_path: Path) -> None:
    make_authority(tmp_path, "test", now=time.time())
    files = make_host_certificate(
        tmp_path, Identity("pop", "p1"), now=time.time(), hosts=["localhost"]
    )
    server = Server()
    await nursery.start(server.serve, make_server_context(files.certificate, files.key))
    trusting = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    reports = await run(server, "abc", options=PublishOptions(duration_s=0.4, tls=trusting))
    assert [report.event for report in reports] == ["accepted", "ended"]
    assert server.units["abc"][0].random_access
    with pytest.raises(PeerLostError, match="certificate"):
        await run(server, "abc", options=PublishOptions(duration_s=5, reconnect=False))
    nursery.cancel_scope.cancel()


@pytest.mark.e2e
async def test_a_server_that_reads_nothing_costs_only_itself(nursery: trio.Nursery) -> None:
    """At the limit of its queue the slow connection skips; the other goes on in time."""
    server = Server()
    server.deaf = "k1"
    await nursery.start(server.serve)
    reports: list[PublisherReport] = []
    await publish(
        expand_urls(server.url, "k{n}", 2),
        Flood(),
        PublishOptions(duration_s=1.0, reconnect=False),
        report=reports.append,
        unix_now=time.time,
    )
    nursery.cancel_scope.cancel()
    assert {report.index for report in reports if report.event == "skipped"} == {0}
    assert f"{2 * QUEUE_UNITS_MAX} units" in next(r.reason for r in reports if r.event == "skipped")
    assert len(server.units["k2"]) > 200


async def test_asked_to_reconnect_it_goes_where_it_is_sent() -> None:
    """And comes back when it is not taken there."""
    here, there = Server(), Server()
    reports: list[PublisherReport] = []
    async with trio.open_nursery() as nursery:
        await nursery.start(here.serve)
        await nursery.start(there.serve)
        here.sends_to = there.url

        async def publish_it() -> None:
            await publish(
                expand_urls(here.url, "key"),
                TestPicture(SMALL),
                PublishOptions(duration_s=60),
                report=reports.append,
                unix_now=time.time,
            )

        nursery.start_soon(publish_it)
        with trio.fail_after(20):
            while not there.units.get("key"):  # noqa: ASYNC110 - on the far side of a socket
                await trio.sleep(0.01)
            assert here.keys == ["key"]
            (asked,) = [
                each for each in reports if "asks to connect again: draining" in each.reason
            ]
            assert asked.place == here.url
            here.sends_to, there.cut_after = "", 1
            while len(here.keys) < 2:  # noqa: ASYNC110
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()


async def test_asked_to_go_nowhere_it_comes_back() -> None:
    here = Server()
    async with trio.open_nursery() as nursery:
        await nursery.start(here.serve)
        here.sends_to = "http://nowhere/live"

        async def publish_it() -> None:
            await publish(
                expand_urls(here.url, "key"),
                TestPicture(SMALL),
                PublishOptions(duration_s=60),
                unix_now=time.time,
            )

        nursery.start_soon(publish_it)
        with trio.fail_after(20):
            while len(here.keys) < 2:  # noqa: ASYNC110 - on the far side of a socket
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
