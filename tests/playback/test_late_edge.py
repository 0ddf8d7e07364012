"""An edge that came late: what it lists and lacks is fetched once for all, from who has it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec
from msgspec import Struct

from edged.media.parts import InitSegment, ListedSegment, PackagedEvent, SegmentsListed
from edged.media.stream import StreamId
from edged.playback.config import HlsConfig
from edged.playback.hls import HlsService
from edged.playback.hls_stream import READ_S_MAX
from edged.policy.rendition_window import RenditionWindow
from edged.policy.segment_cache import GONE, READ_BACK_DEN, CacheConfig
from edged.policy.window import StreamWindow
from edged.policy.window_limits import WindowLimits
from edged.policy.window_replay import make_replay
from tests.playback.fakes import PARTS, Client, Origin, World, world
from tests.playback.test_edge_cache import segments_in
from tests.policy.fake_store import FakeStore

RUN = StreamId("demo", 0x1F, 1)
BASE = "/live/demo/1f/"
MIB = 2**20
LIMITS = WindowLimits(playlist_s=3600.0, retention_s=3610.0, payload_bytes_max=2**30)
HOURS = HlsConfig(playlist_s=3600.0, retention_s=3610.0, payload_bytes_max=2**30)
NEEDED = 7  # Segments of 2 s in a playlist of the least length, 12 s, and one more.


class Asked(Struct):
    """A fetch that the edge has begun."""

    name: str
    done: Callable[[bytes | str], None]


class Late(Struct):
    """A late edge, and an origin that holds all."""

    world: World
    service: HlsService
    origin: Origin
    held: StreamWindow
    asked: list[Asked]
    names: list[str]  # All that was ever asked for.
    way: list[bool]  # The last: whether there is one to the origin.

    def push(self, run: StreamId = RUN) -> None:
        """A whole segment."""
        events = self.origin.segment()
        for event in events:
            self.held.add(event)
        self.service.window_updated(run, events)
        self.world.pump.flush()

    def give(self, result: str = "") -> list[str]:
        """The origin answers all that was asked: with `result`, or with what it has."""
        asked, self.asked[:] = list(self.asked), []
        for one in asked:
            rendition, _, msn = one.name.partition("-")
            body = self.held.segment(rendition, int(msn))
            one.done(result or (b"".join(body) if body is not None else GONE))
        self.world.pump.flush()
        return [one.name for one in asked]

    @property
    def newest(self) -> RenditionWindow:
        """The edge's, of the pictures."""
        stream = self.service._channels["demo"].newest
        assert stream is not None
        return stream.window.renditions["v0"]

    def listed(self, client: Client) -> list[str]:
        return segments_in(client.get(BASE + "v0.m3u8").body)

    def whole(self, msn: int) -> bytes:
        body = self.held.segment("v0", msn)
        assert body is not None
        return b"".join(body)


@contextmanager
def late(
    segments: int = 30, *, disk: FakeStore | None = None, part_bytes: int = 100
) -> Iterator[tuple[Late, Client]]:
    """The edge's first viewer has opened the channel, and the replay has come."""
    asked: list[Asked] = []
    names: list[str] = []
    way = [True]

    def fetch(run: StreamId, rendition: str, msn: int, done: Callable[[bytes | str], None]) -> bool:
        assert run.publication == RUN.publication
        if way[-1]:
            names.append(f"{rendition}-{msn}")
            asked.append(Asked(names[-1], done))
        return way[-1]

    with world() as made:
        service = HlsService(
            lookup={"demo": RUN}.get,
            subscribe=lambda channel: None,
            unsubscribe=lambda channel: None,
            now=made.pump.now,
            config=HOURS,
            cache=CacheConfig(memory_bytes_max=64 * MIB),
            fetch=fetch,
        )
        if disk is not None:
            service.cache._store = disk
            service.cache._limits = msgspec.structs.replace(
                service.cache._limits, disk_bytes_max=512 * MIB
            )
        made.server.mount("/live/", service)
        origin = Origin(part_bytes=part_bytes)
        held = StreamWindow(RUN, LIMITS)
        for event in origin.start():
            held.add(event)
        for _ in range(segments):
            for event in origin.segment():
                held.add(event)
        client = made.client()
        client.ask("/live/demo/master.m3u8")
        service.window_updated(RUN, make_replay(held, lists=True, cold=True))
        made.pump.flush()
        assert [answer.status for answer in client.answers()] == [200], "at once"
        yield Late(made, service, origin, held, asked, names, way), client


def test_the_whole_window_is_listed_and_a_segment_is_fetched_once_for_all() -> None:
    with late() as (edge, client):
        assert edge.listed(client) == [f"v0-{msn}.m4s" for msn in range(30)]
        edge.give()
        viewers = [edge.world.client() for _ in range(50)]
        for viewer in viewers:
            viewer.ask(BASE + "v0-3.m4s")
        assert [one.name for one in edge.asked] == ["v0-3"]
        assert [viewer.answers() for viewer in viewers] == [[]] * 50
        counters = edge.service.cache.counters
        assert (counters.misses, counters.collapsed) == (1, 49)
        edge.give()
        answers = [answer for viewer in viewers for answer in viewer.answers()]
        assert {(answer.status, answer.body) for answer in answers} == {(200, edge.whole(3))}
        assert client.get(BASE + "v0-3.m4s").body == edge.whole(3), "from memory"
        assert edge.names.count("v0-3") == 1
        assert counters.fetched_asked == len(edge.names)
        assert client.get(BASE + "v0-3.0.m4s").status == 404, "its parts are over"


def test_a_playlist_of_the_least_length_comes_by_itself() -> None:
    """Should the origin be lost, viewers have that much, of what is too much to be pushed."""
    with late(part_bytes=MIB // PARTS) as (edge, client):
        assert list(edge.newest.in_memory) == [27, 28, 29]
        needed = range(29 - NEEDED + 1, 27)
        assert edge.names == [f"{name}-{msn}" for name in ("v0", "a0") for msn in needed]
        client.ask(f"{BASE}v0-{needed[0]}.m4s")
        assert len(edge.names) == len(set(edge.names)), "who asks for it waits for the same"
        edge.give()
        (answer,) = client.answers()
        assert answer.body == edge.whole(needed[0])


def test_what_the_origin_has_no_more_leaves_the_playlist() -> None:
    with late() as (edge, client):
        edge.give()
        client.ask(BASE + "v0-5.m4s")
        edge.give(GONE)
        assert [answer.status for answer in client.answers()] == [404]
        assert edge.listed(client)[0] == "v0-6.m4s"
        assert client.get(BASE + "v0-5.m4s").status == 404
        client.ask(BASE + "v0-4.m4s")
        edge.give()
        assert [answer.body for answer in client.answers()] == [edge.whole(4)], "by its name"
        assert edge.service.statistics().segments_lost_total == 1
        client.ask(BASE + "v0-6.m4s")
        (asked,) = edge.asked
        asked.done(b"short")
        assert [answer.status for answer in client.answers()] == [404], "it is another's"


def test_what_cannot_be_had_now_is_said_so() -> None:
    with late() as (edge, client):
        edge.give()
        client.ask(BASE + "v0-5.m4s")
        edge.give("the way to the origin was lost")
        (answer,) = client.answers()
        assert (answer.status, answer.fields["retry-after"]) == (503, "1")
        edge.way.append(False)
        answer = client.get(BASE + "v0-5.m4s")
        assert (answer.status, answer.fields["retry-after"]) == (503, "1")
        edge.way.append(True)
        client.ask(BASE + "v0-5.m4s")
        edge.world.pump.advance(READ_S_MAX + 0.1)
        assert [answer.status for answer in client.answers()] == [503], "it takes too long"
        client.ask(BASE + "v0-5.m4s")
        assert [one.name for one in edge.asked] == ["v0-5"], "and is still on its way"
        edge.give()
        assert [answer.status for answer in client.answers()] == [200]
        assert edge.listed(client)[0] == "v0-0.m4s"


def test_after_a_failover_what_came_here_is_served_and_the_rest_is_gone() -> None:
    with late() as (edge, client):
        edge.give()
        for msn in (3, 4):
            client.ask(f"{BASE}v0-{msn}.m4s")
            edge.give()
            assert len(client.answers()) == 1
        edge.push()
        successor = msgspec.structs.replace(RUN, home_epoch=2)
        told = [SegmentsListed(rendition=name, oldest_msn=30) for name in ("v0", "a0")]
        edge.service.window_updated(successor, [*edge.origin.start(), *told])
        edge.push(successor)
        first = 29 - NEEDED + 1
        assert edge.listed(client) == [f"v0-{msn}.m4s" for msn in range(first, 32)]
        edge.way.append(False)
        for msn in (3, 4, 27, 29, 30):
            assert client.get(f"{BASE}v0-{msn}.m4s").body == edge.whole(msn)
        for msn in (0, 5, first - 1):
            assert client.get(f"{BASE}v0-{msn}.m4s").status == 404


def test_no_more_is_kept_in_memory_than_its_share() -> None:
    part_bytes = MIB // PARTS
    share = 64 * MIB // READ_BACK_DEN
    with late(part_bytes=part_bytes) as (edge, client):
        edge.give()
        for msn in range(12):
            client.ask(f"{BASE}v0-{msn}.m4s")
            edge.give()
            assert [answer.status for answer in client.answers()] == [200]
            told = edge.service.cache.statistics()
            assert told.read_back_bytes <= share
            window = edge.service._channels["demo"].newest
            assert window is not None
            kept = sum(one.fetched_bytes for one in window.window.renditions.values())
            assert kept == told.read_back_bytes
        assert client.get(BASE + "v0-11.m4s").status == 200
        client.ask(BASE + "v0-0.m4s")
        assert edge.give() == ["v0-0"], "it is fetched anew"
        assert [answer.status for answer in client.answers()] == [200]
        successor = msgspec.structs.replace(RUN, home_epoch=2)
        told_anew = SegmentsListed(rendition="v0", oldest_msn=30)
        edge.service.window_updated(successor, [*edge.origin.start("v0"), told_anew])
        for msn in range(9, 12):
            assert client.get(f"{BASE}v0-{msn}.m4s").status == 200


def test_with_a_disk_what_was_fetched_stays() -> None:
    store = FakeStore()
    with late(disk=store) as (edge, client):
        edge.give()
        client.ask(BASE + "v0-3.m4s")
        edge.give()
        assert [answer.body for answer in client.answers()] == [edge.whole(3)]
        assert store.files["1/v0-3.m4s"] == edge.whole(3)
        told = edge.service.cache.statistics()
        assert told.stored_bytes == sum(map(len, store.files.values()))
        assert client.get(BASE + "v0-3.m4s").status == 200, "from memory for now"
        successor = msgspec.structs.replace(RUN, home_epoch=2)
        gone = SegmentsListed(rendition="v0", oldest_msn=30)
        edge.service.window_updated(successor, [*edge.origin.start("v0"), gone])
        stream = edge.service._channels["demo"].newest
        assert stream is not None
        stream.forget("v0", 3)
        client.ask(BASE + "v0-3.m4s")
        store.go()
        edge.world.pump.flush()
        assert [answer.body for answer in client.answers()] == [edge.whole(3)]
        assert edge.names.count("v0-3") == 1


def test_a_run_that_is_let_go_waits_for_nothing() -> None:
    with late() as (edge, client):
        client.ask(BASE + "v0-3.m4s")
        edge.world.pump.time += 200.0
        edge.service.channel_unavailable("demo", "lost")
        edge.service.sweep(edge.world.pump.time + 4000.0)
        edge.world.pump.flush()
        assert [answer.status for answer in client.answers()] == [404]
        edge.give()
        assert edge.service.cache.statistics().read_back_bytes == 0


def of(rendition: str, events: list[PackagedEvent]) -> list[PackagedEvent]:
    return [event for event in events if getattr(event, "rendition", "") == rendition]


def test_who_waits_where_all_has_been_lost_hears_of_what_comes_next() -> None:
    """Nothing but what was away is listed, and its origin has it no more."""
    with late() as (edge, _):
        asked: list[Callable[[bytes | str], None]] = []

        def fetch(_: StreamId, __: str, ___: int, done: Callable[[bytes | str], None]) -> bool:
            asked.append(done)
            return True

        service = HlsService(
            lookup={"demo": RUN}.get,
            subscribe=lambda channel: None,
            unsubscribe=lambda channel: None,
            now=edge.world.pump.now,
            config=HOURS,
            cache=CacheConfig(memory_bytes_max=64 * MIB),
            fetch=fetch,
        )
        edge.world.server.remount("/live/", service)
        origin = Origin()
        video, audio = origin.start("v0"), origin.start("a0")
        events = [event for _ in range(8) for event in origin.segment()]
        (init,) = (event for event in video if isinstance(event, InitSegment))
        listed = SegmentsListed(
            rendition="v0",
            oldest_msn=0,
            init_digest=init.digest,
            segments=tuple(
                ListedSegment(msn, 180_000, 1_700_000_000_000_000 + msn * 2_000_000, 1000)
                for msn in range(8)
            ),
        )
        edge.world.client().ask("/live/demo/master.m3u8")
        sound = of("a0", events)
        service.window_updated(RUN, [*video, listed, *audio, *sound])
        client = edge.world.client()
        client.ask(BASE + "v0.m3u8?_HLS_msn=8&_HLS_part=0")
        edge.world.pump.flush()
        for done in asked:
            done(GONE)
        more = origin.segment()
        service.window_updated(RUN, of("a0", more))
        edge.world.pump.flush()
        assert client.answers() == []
        service.window_updated(RUN, of("v0", more))
        edge.world.pump.flush()
        (answer,) = client.answers()
        assert answer.status == 200
