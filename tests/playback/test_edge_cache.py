"""The cache of an edge, through its HTTP server: bounds, one fetch per object, what a disk does."""

import gc
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
import trio
from msgspec import Struct
from structlog.testing import capture_logs

from edged.media.parts import PackagedEvent, Part, SegmentEnded, StreamEnded
from edged.media.stream import StreamId
from edged.playback.config import HlsConfig
from edged.playback.hls import ENDED_KEPT_S, HlsService
from edged.playback.hls_stream import READ_S_MAX
from edged.playback.http import HttpServer, Router
from edged.policy.edge_cache import SEGMENT_BYTES, Shelf
from edged.policy.segment_cache import (
    LEAVING_BYTES_MAX,
    READ_BACK_DEN,
    CacheConfig,
    CacheCounters,
)
from edged.runtime.pump import Pump
from tests.playback.fakes import PARTS, Client, Origin, World, world
from tests.playback.test_h2_connection import Client as H2Client
from tests.playback.test_hls import fetch
from tests.policy.fake_store import FakeStore

RUN = StreamId(channel="demo", publication=0x1F)
BASE = "/live/demo/1f/"
MASTER = "/live/demo/master.m3u8"
MIB = 2**20
HOURS = HlsConfig(playlist_s=3600.0, retention_s=3610.0, payload_bytes_max=2**30)


class Edge(Struct):
    """A server with the service, and what it keeps its media on."""

    world: World
    service: HlsService
    store: FakeStore
    live: dict[str, StreamId]

    @property
    def counters(self) -> CacheCounters:
        return self.service.cache.counters

    def hits(self) -> int:
        """All of them, as the metrics have it."""
        return self.counters.hits + self.service.hits + self.world.server.stood_total()

    def push(self, events: list[PackagedEvent], stream_id: StreamId = RUN) -> None:
        self.service.window_updated(stream_id, events)
        self.world.pump.flush()

    def read(self) -> None:
        self.store.go()
        self.world.pump.flush()

    def check(self) -> None:
        """What is counted is what is held."""
        held = [s for s, _ in self.service._held()]
        memory_bytes = stored_bytes = 0
        for stream in held:
            for window in stream.window.renditions.values():
                kept = window.segments.values()
                memory_bytes += sum(s.payload_bytes for s in kept if not s.stored)
                memory_bytes += sum(len(i.data) for i in window.inits.values())
                memory_bytes += SEGMENT_BYTES * len(window.segments)
                stored_bytes += sum(s.payload_bytes for s in kept if s.stored)
        told = self.service.cache.statistics()
        assert (told.memory_bytes, told.stored_bytes) == (memory_bytes, stored_bytes)
        if self.store.at_once:
            assert sum(map(len, self.store.files.values())) == stored_bytes


@contextmanager
def edge(
    cache: CacheConfig, config: HlsConfig = HOURS, *, disk: bool = True, channels: int = 1
) -> Iterator[Edge]:
    live = {"demo": RUN}
    for number in range(1, channels):
        live[f"c{number}"] = StreamId(channel=f"c{number}", publication=0x1F)
    with world() as made:
        store = FakeStore()
        service = HlsService(
            lookup=live.get,
            subscribe=lambda channel: None,
            unsubscribe=lambda channel: None,
            now=made.pump.now,
            config=config,
            cache=cache,
        )
        if disk:
            service.cache._store = store
            service.cache.reconfigure(msgspec.structs.replace(cache, directory=Path("/fake")))
        made.server.mount("/live/", service)
        yield Edge(made, service, store, live)
    del made, service
    gc.collect()  # 100 MiB and more, in cycles.


def start(made: Edge, origin: Origin, *, segments: int = 2, run: StreamId = RUN) -> Client:
    client = made.world.client()
    client.ask(f"/live/{run.channel}/master.m3u8")
    made.push(origin.start(), run)
    for _ in range(segments):
        made.push(origin.segment(), run)
    assert [answer.status for answer in client.answers()] == [200]
    return client


def segments_in(playlist: bytes) -> list[str]:
    return re.findall(r"^(v0-\d+\.m4s)$", playlist.decode(), re.MULTILINE)


SMALL = CacheConfig(memory_bytes_max=64 * MIB, disk_bytes_max=512 * MIB)
# Segments of 1 MiB of each rendition: so 20 s are 20 MiB, and a minute does not fit.
PART_BYTES = MIB // PARTS


def test_what_does_not_fit_memory_goes_to_disk_and_comes_back_once() -> None:
    with edge(SMALL) as made:
        origin = Origin(part_bytes=PART_BYTES)
        client = start(made, origin, segments=100)
        made.check()
        told = made.service.cache.statistics()
        assert told.memory_bytes <= 64 * MIB * 3 // 4
        assert told.stored_bytes > 140 * MIB
        playlist = client.get(BASE + "v0.m3u8").body
        assert segments_in(playlist) == [f"v0-{msn}.m4s" for msn in range(100)]

        viewers = [made.world.client() for _ in range(50)]
        for viewer in viewers:
            viewer.ask(BASE + "v0-3.m4s")
        assert [viewer.answers() for viewer in viewers] == [[]] * 50
        before = msgspec.structs.replace(made.counters)
        made.read()
        bodies = {answer.body for viewer in viewers for answer in viewer.answers()}
        (body,) = bodies
        whole = b"".join(f"v0-3.{n};".encode().ljust(PART_BYTES, b".") for n in range(PARTS))
        assert body == whole
        assert made.store.reads == 1, "one read for all"
        assert (before.misses, before.collapsed) == (1, 49)
        assert made.counters.fetched_disk == 1
        assert client.get(BASE + "v0-3.m4s").body == whole, "from memory"
        assert made.store.reads == 1
        assert client.get(BASE + "v0-3.0.m4s").status == 404, "its parts are over"
        assert client.get(BASE + "v0-99.0.m4s").status == 200


def test_what_was_on_disk_is_answered_as_all_else() -> None:
    """Ranges, conditions, HEAD; over HTTP/1.1 and HTTP/2."""
    with edge(SMALL) as made:
        origin = Origin(part_bytes=PART_BYTES)
        client = start(made, origin, segments=100)
        held = client.get(BASE + "v0-99.m4s")
        for name, fields, status in (
            ("v0-1", "Range: bytes=0-99\r\n", 206),
            ("v0-2", 'If-None-Match: "1"\r\n', 304),
            ("v0-3", "", 200),
        ):
            client.ask(f"{BASE}{name}.m4s", fields=fields)
            made.read()
            (answer,) = client.answers()
            assert answer.status == status
            if status == 200:
                same = {k: v for k, v in held.fields.items() if k != "date"}
                assert {k: v for k, v in answer.fields.items() if k != "date"} == same
            if status == 206:
                assert answer.body == b"v0-1.0;".ljust(100, b".")
        client.ask(BASE + "v0-4.m4s", "HEAD")
        made.read()
        (answer,) = client.answers(head=True)
        assert answer.fields["content-length"] == str(PARTS * PART_BYTES)
        viewer = H2Client(made.world)
        stream = viewer.ask(BASE + "v0-5.m4s")
        viewer.read()
        assert stream not in viewer.answers or not viewer.answers[stream].ended
        made.read()
        for _ in range(100):
            viewer.read()
        assert viewer.answers[stream].status == 200
        assert len(viewer.answers[stream].body) == PARTS * PART_BYTES
        viewer.sock.close()


def test_without_a_disk_memory_is_bounded_and_the_playlist_is_what_is_held() -> None:
    with edge(SMALL, disk=False) as made:
        origin = Origin(part_bytes=PART_BYTES)
        client = start(made, origin)
        for _ in range(100):
            made.push(origin.segment())
            made.check()
            assert made.service.cache.statistics().memory_bytes <= 64 * MIB
        listed = segments_in(client.get(BASE + "v0.m3u8").body)
        assert 25 <= len(listed) <= 32
        assert all(client.get(BASE + name).status == 200 for name in listed)
        assert made.counters.dropped > 100
        assert made.counters.spilled == 0


def test_a_disk_that_fails_is_as_none() -> None:
    with edge(SMALL) as made:
        origin = Origin(part_bytes=PART_BYTES)
        client = start(made, origin, segments=50)
        stored = made.service.cache.statistics().stored_bytes
        assert stored
        made.store.good = False
        for _ in range(20):
            made.push(origin.segment())
            made.check()
        made.store.usable = False
        for _ in range(80):
            made.push(origin.segment())
            made.check()
            assert made.service.cache.statistics().memory_bytes <= 64 * MIB
        assert not made.store.files, "a playlist has no holes: what is older has gone, too"
        listed = segments_in(client.get(BASE + "v0.m3u8").body)
        assert len(listed) >= 20
        assert all(client.get(BASE + name).status == 200 for name in listed)


def test_what_the_disk_has_lost_is_not_listed() -> None:
    with edge(SMALL) as made:
        origin = Origin(part_bytes=PART_BYTES)
        client = start(made, origin, segments=100)
        (folder,) = {name.partition("/")[0] for name in made.store.files}
        del made.store.files[f"{folder}/v0-10.m4s"]
        client.ask(BASE + "v0-10.m4s")
        made.read()
        assert [answer.status for answer in client.answers()] == [404]
        assert segments_in(client.get(BASE + "v0.m3u8").body)[0] == "v0-11.m4s"
        assert made.counters.lost == 1
        made.check()


def test_a_disk_that_is_slow_holds_nobody_for_ever_and_memory_stays_bounded() -> None:
    with edge(SMALL) as made:
        origin = Origin(part_bytes=PART_BYTES)
        client = start(made, origin, segments=100)
        client.ask(BASE + "v0-1.m4s")
        made.world.pump.advance(READ_S_MAX + 0.1)
        assert [answer.status for answer in client.answers()] == [503]
        made.read()
        assert client.get(BASE + "v0-1.m4s").status == 200, "it came all the same"
        made.store.at_once = False
        for _ in range(60):
            made.push(origin.segment())
            made.check()
            assert made.service.cache._leaving_bytes <= LEAVING_BYTES_MAX
            assert made.service.cache.statistics().memory_bytes <= 64 * MIB
        made.read()
        assert made.service.cache._leaving_bytes == 0
        made.check()


def test_what_was_read_is_bounded_too() -> None:
    with edge(SMALL) as made:
        origin = Origin(part_bytes=PART_BYTES)
        client = start(made, origin, segments=100)
        for msn in range(30):
            client.ask(f"{BASE}v0-{msn}.m4s")
            made.read()
            assert [answer.status for answer in client.answers()] == [200]
            told = made.service.cache.statistics()
            assert told.read_back_bytes <= 64 * MIB // READ_BACK_DEN
            assert told.read_back_bytes + told.memory_bytes <= 64 * MIB
        assert made.store.reads == 30
        client.get(BASE + "v0-29.m4s")
        assert made.store.reads == 30
        client.ask(BASE + "v0-0.m4s")
        made.read()
        assert made.store.reads == 31


def test_the_disk_is_bounded_and_the_playlist_is_what_is_on_it() -> None:
    cache = CacheConfig(memory_bytes_max=64 * MIB, disk_bytes_max=100 * MIB)
    with edge(cache) as made:
        origin = Origin(part_bytes=PART_BYTES)
        client = start(made, origin)
        for _ in range(120):
            made.push(origin.segment())
            made.check()
            assert made.service.cache.statistics().stored_bytes <= 100 * MIB
        listed = segments_in(client.get(BASE + "v0.m3u8").body)
        assert 64 <= len(listed) <= 72
        client.ask(BASE + listed[0])
        made.read()
        assert [answer.status for answer in client.answers()] == [200]


def test_channels_that_nobody_watches_make_room_for_one_that_is() -> None:
    with edge(SMALL, disk=False, channels=2) as made:
        cold, warm = Origin(part_bytes=PART_BYTES), Origin(part_bytes=PART_BYTES)
        other = made.live["c1"]
        start(made, cold, segments=12, run=other)
        made.world.pump.advance(20.0)
        client = start(made, warm, segments=20)
        made.check()
        windows = {s.window.stream_id.channel: s.window for s, _ in made.service._held()}
        assert len(windows["demo"].renditions["v0"].listed) == 20, "all of it"
        assert 6 <= len(windows["c1"].renditions["v0"].listed) < 12, "never less than it must"
        assert client.get(BASE + "v0-0.m4s").status == 200


def test_a_full_cache_takes_on_no_more_channels() -> None:
    with edge(SMALL, disk=False, channels=2) as made, capture_logs() as logs:
        origin = Origin(part_bytes=6 * PART_BYTES)
        start(made, origin, segments=20)
        assert made.service.cache.is_full
        stream = made.service._channels["demo"].streams["1f"]
        assert len(stream.window.renditions["v0"].listed) == 7, "those that list parts, 12 s"
        other = made.world.client()
        answer = other.get("/live/c1/master.m3u8")
        assert answer.status == 503
        assert b"memory" in answer.body
        assert other.get(MASTER).status == 200, "who is here stays"
        made.push([StreamEnded(reason="over")])
        made.service.sweep(made.world.pump.time + HOURS.playlist_s)
        assert not made.service.cache.is_full
        other.ask("/live/c1/master.m3u8")
        assert other.answers() == [], "waits for the channel"
    told = [log for log in logs if log["event"].startswith("cache is full")]
    assert len(told) == 1


@pytest.mark.parametrize("epoch", [2, 1], ids=["another origin", "the same, after a while"])
def test_an_origins_failover_leaves_what_is_held_as_it_is(epoch: int) -> None:
    """The run goes on from a replay of the last segments, that of another under a newer epoch."""
    with edge(SMALL) as made:
        origin = Origin(part_bytes=PART_BYTES)
        client = start(made, origin, segments=60)
        before = segments_in(client.get(BASE + "v0.m3u8").body)
        client.ask(BASE + "v0-2.m4s")
        made.read()
        (answer,) = client.answers()
        newer = StreamId(channel="demo", publication=0x1F, home_epoch=epoch)
        if epoch == RUN.home_epoch:
            made.service.channel_unavailable("demo", "lost: the origin is gone")
            made.world.pump.flush()
            client.ask(MASTER)
        made.live["demo"] = newer
        replay = Origin(part_bytes=PART_BYTES, first_msn=55)
        made.push([e for _ in range(5) for e in (*replay.start(), *replay.segment())], newer)
        made.push([*origin.start(), *origin.segment()], newer)
        client.answers()
        listed = segments_in(client.get(BASE + "v0.m3u8").body)
        assert listed == [*before, "v0-60.m4s"]
        made.check()
        for name in ("v0-1.m4s", "v0-2.m4s"):
            client.ask(BASE + name)
            made.read()
            (again,) = client.answers()
            assert again.status == 200
        assert again.body == answer.body


def test_what_was_dropped_before_it_was_read_is_not_lost() -> None:
    with edge(SMALL) as made:
        origin = Origin(part_bytes=PART_BYTES)
        client = start(made, origin, segments=60)
        client.ask(BASE + "v0-0.m4s")
        window = made.service._channels["demo"].streams["1f"].window.renditions["v0"]
        window.evict()
        made.push(origin.both())
        made.read()
        assert [answer.status for answer in client.answers()] == [404]
        assert made.counters.lost == 0
        assert next(iter(window.segments)) == 1
        made.check()


def test_a_stored_segment_too_large_to_send_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with edge(SMALL) as made:
        client = start(made, Origin(part_bytes=PART_BYTES), segments=60)
        monkeypatch.setattr("edged.playback.hls_stream.RESPONSE_BYTES_MAX", MIB // 2)
        assert client.get(BASE + "v0-0.m4s").status == 503
        assert made.store.reads == 0


def test_what_cannot_go_is_not_looked_at_for_each_part(monkeypatch: pytest.MonkeyPatch) -> None:
    with edge(SMALL, disk=False) as made:
        origin = Origin(part_bytes=6 * PART_BYTES)
        start(made, origin, segments=20)
        looks = 0
        shelves = made.service.cache._all_shelves

        def count() -> list[Shelf]:
            nonlocal looks
            looks += 1
            return shelves()

        monkeypatch.setattr(made.service.cache, "_all_shelves", count)
        for _ in range(10):
            made.push([msgspec.structs.replace(origin.part("a0")[0], payload=b"x")])
            origin.index += 1
            made.world.pump.time += 0.1
        assert 1 <= looks <= 3


def test_a_run_that_is_let_go_takes_its_files_along() -> None:
    with edge(SMALL) as made:
        origin = Origin(part_bytes=PART_BYTES)
        client = start(made, origin, segments=60)
        assert made.store.files
        client.ask(BASE + "v0-1.m4s")
        made.push([StreamEnded(reason="over")])
        made.service.sweep(made.world.pump.time + ENDED_KEPT_S)
        assert made.store.files, "kept for as long as its playlist is"
        made.service.sweep(made.world.pump.time + HOURS.playlist_s)
        made.world.pump.flush()
        assert not made.store.files
        told = made.service.cache.statistics()
        assert (told.memory_bytes, told.stored_bytes, told.read_back_bytes) == (0, 0, 0)
        assert [answer.status for answer in client.answers()] == [404]
        made.read()  # What it waited for comes too late.
        assert made.service.cache.statistics().read_back_bytes == 0


def test_reconfigured_it_keeps_to_what_is_said_now() -> None:
    big = CacheConfig(memory_bytes_max=512 * MIB)
    with edge(big, disk=False) as made:
        origin = Origin(part_bytes=PART_BYTES)
        start(made, origin, segments=100)
        assert made.service.cache.statistics().memory_bytes > 200 * MIB
        made.service.cache.reconfigure(SMALL)
        made.push(origin.both())
        assert made.service.cache.statistics().memory_bytes <= 64 * MIB


@pytest.mark.e2e
def test_a_thousand_viewers_of_one_channel_fetch_each_object_once() -> None:
    """Each of 1,000 follows the live edge by blocking requests for the hinted parts.

    Goal of the edge: a hit ratio of at least 99.9 %, where the first of all who ask for an object
    is a miss, though the origin had pushed it for nobody in particular.
    """
    viewers, rounds = 1000, 3
    with edge(SMALL, disk=False) as made:
        origin = Origin()
        client = start(made, origin, segments=2)
        clients = [client] + [made.world.client() for _ in range(viewers - 1)]
        pushed = made.counters.fetched_origin
        counted = made.hits() + made.counters.collapsed
        for _ in range(rounds):
            names = [f"v0-{origin.msn}.{origin.index}.m4s", f"a0-{origin.msn}.{origin.index}.m4s"]
            for viewer in clients:
                viewer.sock.setblocking(True)
                for name in names:
                    viewer.sock.sendall(f"GET {BASE}{name} HTTP/1.1\r\nHost: e\r\n\r\n".encode())
                viewer.sock.setblocking(False)
            made.world.pump.turn()
            made.push(origin.both())
            made.world.pump.turn()
            made.world.pump.turn()
            for viewer in clients:
                answers = viewer.answers()
                assert [answer.status for answer in answers] == [200, 200]
                assert [a.body.partition(b";")[0].decode() + ".m4s" for a in answers] == names
        assert made.counters.fetched_origin - pushed == rounds * 2, "each part came once"
        asked = rounds * 2 * viewers
        counters = made.counters
        assert made.hits() + counters.collapsed + counters.misses - counted == asked
        assert counters.misses <= rounds * 2, "at most one an object"
        assert 1 - counters.misses / asked >= 0.999


def long_run(segments: int, *, names: tuple[str, ...] = ("v0", "a0")) -> Iterator[PackagedEvent]:
    """Segments of one part, as of a stream of hours, of 20 KB."""
    payload = bytes(20_000)
    for msn in range(segments):
        for name in names:
            scale = 90_000 if name == "v0" else 48_000
            yield Part(
                rendition=name,
                msn=msn,
                index=0,
                tfdt=msn * 2 * scale,
                duration=2 * scale,
                wallclock_us=(1_700_000_000 + 2 * msn) * 1_000_000,
                init_digest="0123456789abcdef",
                payload=payload,
                independent=True,
            )
            yield SegmentEnded(rendition=name, msn=msn, parts=1, duration=2 * scale)


@pytest.mark.parametrize(
    "hours", [0.5, pytest.param(12.0, marks=pytest.mark.slow, id="12 hours, with -m slow")]
)
def test_hours_of_a_stream_stay_within_the_bounds(hours: float) -> None:
    """An hour is listed and one more kept: 12 MiB of that in memory, the rest on a small disk."""
    cache = CacheConfig(memory_bytes_max=64 * MIB, disk_bytes_max=128 * MIB)
    config = msgspec.structs.replace(HOURS, payload_bytes_max=16 * MIB)
    with edge(cache, config) as made:
        client = made.world.client()
        client.ask(MASTER)
        made.push(Origin().start())
        stream = made.service._channels["demo"].newest
        assert stream is not None
        windows = stream.window.renditions.values
        events = long_run(int(hours * 1800))
        for count, event in enumerate(events):
            made.service.window_updated(RUN, [event])
            if count % 400 == 0:
                made.check()
                told = made.service.cache.statistics()
                segments = sum(len(w.segments) for w in windows())
                assert told.memory_bytes - SEGMENT_BYTES * segments <= 12 * MIB + 100_000
                assert told.stored_bytes <= 128 * MIB
                assert segments <= 2 * 3700
        window = stream.window.renditions["v0"]
        assert len(window.listed) == min(int(hours * 1800), 1800)
        assert window.segments_missing == window.parts_missing == 0
        assert len(stream._playlist("v0").names) <= 60
        assert not window.dropped
        old = segments_in(client.get(BASE + "v0.m3u8").body)[0] if client.answers() else ""
        client.ask(BASE + old)
        made.read()
        assert [answer.status for answer in client.answers()] == [200]


def files_in(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in folder.rglob("*") if path.is_file()}


@pytest.mark.e2e
async def test_a_real_disk_behind_real_sockets(tmp_path: Path) -> None:
    """100 MiB of a stream where 64 MiB fit memory: 200 who seek back cost two reads."""
    pump = Pump()
    server = HttpServer(Router())
    service = HlsService(
        lookup=lambda channel: RUN,
        subscribe=lambda channel: None,
        unsubscribe=lambda channel: None,
        now=pump.now,
        spread=pump.spread,
        config=HOURS,
        cache=CacheConfig(memory_bytes_max=64 * MIB, directory=tmp_path),
    )
    server.mount("/live/", service)
    origin = Origin(part_bytes=PART_BYTES)
    bodies: list[bytes] = []
    with trio.fail_after(40):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump.run)
            nursery.start_soon(service.run)
            address: str = await nursery.start(server.serve, pump, "127.0.0.1:0")
            nursery.start_soon(fetch, address, MASTER)
            disk = service.cache.disk
            assert disk is not None
            while not disk.usable:  # noqa: ASYNC110 - a thread
                await trio.sleep(0.01)
            await trio.sleep(0.1)
            service.window_updated(RUN, origin.start())
            for _ in range(50):
                service.window_updated(RUN, origin.segment())
                while service.cache._leaving_bytes:  # noqa: ASYNC110 - a thread
                    await trio.sleep(0.002)
            assert service.cache.counters.spilled > 40
            assert service.cache.counters.dropped == 0
            assert files_in(tmp_path)["v0-0.m4s"] == PARTS * PART_BYTES

            async def seek(name: str) -> None:
                bodies.append((await fetch(address, BASE + name)).partition(b"\r\n\r\n")[2])

            async with trio.open_nursery() as viewers:
                for _ in range(100):
                    viewers.start_soon(seek, "v0-0.m4s")
                    viewers.start_soon(seek, "v0-1.m4s")
            assert service.cache.counters.fetched_disk == 2
            nursery.cancel_scope.cancel()
    assert len(bodies) == 200
    assert {len(body) for body in bodies} == {PARTS * PART_BYTES}
    assert {body[:7] for body in bodies} == {b"v0-0.0;", b"v0-1.0;"}
    assert files_in(tmp_path) == {}
