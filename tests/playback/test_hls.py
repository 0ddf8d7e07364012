"""The LL-HLS edge, by the numbers of the conformance checklist. Items 10 to 19 are `wire.m3u8`'s.

On virtual time over socket pairs; the tests marked e2e run over the real pump on loopback.
"""

import gzip
import re
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import msgspec
import pytest
import trio
from msgspec import Struct
from structlog.testing import capture_logs
from trio.testing import MockClock

from edged.errors import RemoteProtocolError
from edged.media.parts import PackagedEvent, Rendition, SegmentEnded, StreamEnded
from edged.media.stream import StreamId
from edged.playback.config import HlsConfig
from edged.playback.edge_cache import EdgeCache
from edged.playback.hls import (
    ENDED_KEPT_S,
    FIRST_PART_S_MAX,
    FIRST_SEGMENT_S_MAX,
    FULL_WHY,
    OLD_STREAMS_MAX,
    HlsService,
)
from edged.playback.http import HttpServer, Router
from edged.playback.waiting import Exchange
from edged.policy.segment_cache import CacheConfig
from edged.policy.segment_rule import LATE_S_MAX, SegmenterConfig
from edged.policy.waiting_units import START_VIDEO_S
from edged.runtime.pump import Pump
from edged.wire.prepared import PreparedResponse, prepare
from edged.wire.request import RequestReceived
from tests.playback.fakes import DIGEST, PARTS, Answer, Client, Origin, World, world

RUN = StreamId(channel="demo", publication=0x1F)
BASE = "/live/demo/1f/"
MASTER = "/live/demo/master.m3u8"


class Edge(Struct):
    """A world with the service mounted, and what the role would be told."""

    world: World
    service: HlsService
    live: dict[str, StreamId]
    subscribed: list[str]
    unsubscribed: list[str]

    def push(self, events: list[PackagedEvent], stream_id: StreamId = RUN) -> None:
        self.service.window_updated(stream_id, events)
        self.world.pump.flush()

    def unavailable(self, reason: str = "not_live: restarted") -> None:
        self.service.channel_unavailable("demo", reason)
        self.world.pump.flush()

    def watch(self, origin: Origin, *, segments: int = 2) -> Client:
        """A client that has opened the channel, with so many segments whole."""
        client = self.world.client()
        client.ask(MASTER)
        self.push(origin.start())
        for _ in range(segments * PARTS):
            self.push(origin.both())
        if segments:
            assert [answer.status for answer in client.answers()] == [200]
        return client


@pytest.fixture
def edge() -> Iterator[Edge]:
    with world() as made:
        live = {"demo": RUN}
        subscribed: list[str] = []
        unsubscribed: list[str] = []
        service = HlsService(
            lookup=live.get,
            subscribe=subscribed.append,
            unsubscribe=unsubscribed.append,
            now=made.pump.now,
        )
        made.server.mount("/live/", service)
        yield Edge(made, service, live, subscribed, unsubscribed)


def text(answer: Answer) -> str:
    assert answer.status == 200, answer.body
    return answer.body.decode()


def parts(playlist: str) -> list[str]:
    return re.findall(r'#EXT-X-PART:.*?URI="([^"]+)"', playlist)


def hint(playlist: str) -> str | None:
    found = re.search(r'#EXT-X-PRELOAD-HINT:TYPE=PART,URI="([^"]+)"', playlist)
    return found[1] if found else None


# A channel that is not here yet.


def test_a_first_viewer_subscribes_and_waits_for_media(edge: Edge) -> None:
    origin = Origin()
    first, second = edge.world.client(), edge.world.client()
    first.ask(MASTER)
    second.ask(MASTER)
    assert edge.subscribed == ["demo"]
    edge.push(origin.start())
    for _ in range(PARTS - 1):
        edge.push(origin.both())
    edge.push(origin.part("v0"))
    assert first.answers() == [], "a multivariant playlist names every rendition"
    edge.push(origin.part("a0"))  # Its segment is whole, too.
    for client in (first, second):
        (answer,) = client.answers()
        assert answer.fields["content-type"] == "application/vnd.apple.mpegurl"
        assert "\n1f/v0.m3u8\n" in text(answer)
        assert 'URI="1f/a0.m3u8"' in text(answer)
    assert edge.service.watched() == ["demo"]
    assert [shown.name for shown in edge.service.renditions("demo")] == ["v0", "a0"]
    assert edge.service.renditions("other") == []
    edge.push([*origin.segment(), StreamEnded(reason="bye")])
    assert edge.service.renditions("demo") == []


def test_a_silent_rendition_is_waited_for_until_the_second_whole_segment(edge: Edge) -> None:
    origin = Origin()
    client = edge.watch(origin, segments=0)
    for _ in range(2 * PARTS):
        assert client.answers() == []
        edge.push(origin.video())
    playlist = text(client.answers()[0])
    assert "\n1f/v0.m3u8\n" in playlist
    assert "a0.m3u8" not in playlist


def test_a_run_that_ends_within_its_first_segment_is_answered(edge: Edge) -> None:
    origin = Origin()
    client = edge.watch(origin, segments=0)
    other = edge.world.client()
    other.ask(BASE + "v0.m3u8?_HLS_msn=0")
    edge.push(origin.both())
    assert client.answers() == other.answers() == []
    edge.push([StreamEnded(reason="changed its mind")])
    assert "\nv0-0.m4s\n" in text(other.answers()[0])
    del edge.live["demo"]
    assert client.answers()[0].status == 404, "the channel is no longer live"


def test_a_channel_that_is_not_live_is_not_found(edge: Edge) -> None:
    client = edge.world.client()
    assert client.get("/live/other/master.m3u8").status == 404
    assert client.get("/live/other/master.m3u8").body == b"the channel is not live\n"
    assert edge.subscribed == []
    assert edge.service.statistics().channels == 0, "asking costs no memory"


def test_the_wait_for_media_is_bounded(edge: Edge) -> None:
    limits = {
        MASTER: FIRST_SEGMENT_S_MAX,
        BASE + "v0.m3u8": FIRST_PART_S_MAX,
        BASE + "v0-7.0.m4s": FIRST_PART_S_MAX,
    }
    for target, limit_s in limits.items():
        client = edge.world.client()
        client.ask(target)
        edge.world.pump.advance(limit_s - 0.1)
        assert client.answers() == []
        edge.world.pump.advance(0.2)
        (answer,) = client.answers()
        assert answer.status == 503
        assert answer.fields["retry-after"] == "1"
        assert answer.fields["cache-control"] == "no-store"
    assert edge.service.statistics().blocked == 0


def test_the_wait_for_media_spans_the_longest_start() -> None:
    """Its length is bounded by what the packager and hls.js do, not by taste."""
    config = SegmenterConfig()
    longest_s = config.target_duration_s + LATE_S_MAX
    assert START_VIDEO_S + 2 * longest_s <= FIRST_SEGMENT_S_MAX, "another rendition is silent"
    assert FIRST_SEGMENT_S_MAX < 20, "hls.js: manifestLoadPolicy"
    assert START_VIDEO_S + longest_s <= FIRST_PART_S_MAX, "the same, until the first is whole"
    assert FIRST_PART_S_MAX < 10, "hls.js: playlistLoadPolicy"


def test_a_first_segment_of_five_seconds_is_waited_for(edge: Edge) -> None:
    origin = Origin(parts=2 * PARTS)
    client = edge.watch(origin, segments=0)
    edge.world.pump.advance(1.0)
    for _ in range(2 * PARTS):  # A GOP of 4 s, in parts of 200 ms.
        assert client.answers() == []
        edge.world.pump.advance(0.2)
        edge.push(origin.both())
    assert "1f/v0.m3u8" in text(client.answers()[0])


def test_a_refused_subscription_is_told(edge: Edge) -> None:
    client = edge.world.client()
    client.ask(MASTER)
    other = edge.world.client()
    other.ask(BASE + "v0.m3u8")
    edge.service.channel_unavailable("demo", "the origin is full")
    edge.service.channel_unavailable("nobody asked", "x")
    edge.world.pump.flush()
    for answer in (*client.answers(), *other.answers()):
        assert (answer.status, answer.body) == (503, b"the origin is full\n")
    assert edge.service.statistics().blocked == 0
    client.ask(MASTER)
    assert edge.subscribed == ["demo", "demo"], "the next viewer tries again"


def test_who_asks_for_the_master_in_another_way_hears_of_it_in_that_way(edge: Edge) -> None:
    def refuse(reason: str) -> PreparedResponse:
        return prepare(503, [f"<{reason}>".encode()], content_type="a/b", cache_control="no-store")

    class Other:
        def respond(
            self, request: RequestReceived, exchange: Exchange, now: float
        ) -> PreparedResponse | None:
            return edge.service.respond_master("demo", exchange, now, base="/x/", refuse=refuse)

    edge.world.server.mount("/other/", Other())
    viewer, late, refused = (edge.world.client() for _ in range(3))
    late.ask("/other/demo")
    edge.world.pump.advance(FIRST_SEGMENT_S_MAX)
    assert [answer.body for answer in late.answers()] == [b"<the channel has no media here yet>"]
    viewer.ask(MASTER)
    refused.ask("/other/demo")
    assert edge.service.statistics().blocked == 2
    edge.service.channel_unavailable("demo", "the origin\nis full")
    edge.world.pump.flush()
    assert [answer.body for answer in viewer.answers()] == [b"the origin is full\n"]
    assert [answer.body for answer in refused.answers()] == [b"<the origin is full>"]
    assert edge.service.statistics().blocked == 0


def test_a_viewer_who_changed_pops_waits_for_the_same_run(edge: Edge) -> None:
    origin = Origin(first_msn=40)
    client = edge.world.client()
    client.ask(BASE + "v0.m3u8?_HLS_msn=40&_HLS_part=1")
    assert edge.subscribed == ["demo"]
    edge.push(origin.start() + origin.both())
    assert client.answers() == [], "the playlist is here, its part 1 is not"
    edge.push(origin.both())
    assert parts(text(client.answers()[0]))[-1] == "v0-40.1.m4s"


def test_a_run_that_just_began_answers_media_requests_before_a_whole_segment(edge: Edge) -> None:
    """Items 1, 2, 7, 22, 23 and 24 hold from the first part on, whatever a first viewer awaits."""
    origin = Origin()
    names = ["v0.m3u8", "a0.m3u8", "v0.m3u8?_HLS_msn=0", "v0.m3u8?_HLS_msn=0&_HLS_part=1"]
    names += ["v0-0.0.m4s", "v0-0.1.m4s", f"v0-{DIGEST}.mp4", "v0-0.9.m4s", "v0.m3u8?_HLS_msn=2"]
    master = edge.world.client()
    master.ask(MASTER)
    clients = {name: edge.world.client() for name in names}
    for name, client in clients.items():
        client.ask(BASE + name)
    assert edge.subscribed == ["demo"]
    assert edge.service.statistics().blocked == 10

    def answered() -> dict[str, int]:
        found = {name: client.answers() for name, client in clients.items()}
        return {name: answers[0].status for name, answers in found.items() if answers}

    edge.push(origin.start() + origin.part("v0"))
    assert answered() == {}, "the audio may come yet"
    edge.push(origin.part("a0"))
    origin.index = 1
    assert answered() == {
        "v0.m3u8": 200,
        "a0.m3u8": 200,
        "v0-0.0.m4s": 200,
        f"v0-{DIGEST}.mp4": 200,
        "v0-0.9.m4s": 404,
        "v0.m3u8?_HLS_msn=2": 400,
    }
    playlist = text(edge.world.client().get(BASE + "v0.m3u8"))
    assert parts(playlist) == ["v0-0.0.m4s"]
    assert hint(playlist) == "v0-0.1.m4s"
    edge.push(origin.both())
    assert answered() == {"v0.m3u8?_HLS_msn=0&_HLS_part=1": 200, "v0-0.1.m4s": 200}
    assert edge.service.statistics().blocked == 2
    edge.push(origin.segment())
    assert answered() == {"v0.m3u8?_HLS_msn=0": 200}
    assert master.answers()[0].status == 200


def test_waiting_for_a_newer_run_is_not_prolonged_by_the_older(edge: Edge) -> None:
    origin = Origin()
    edge.watch(origin)
    edge.live["demo"] = StreamId(channel="demo", publication=0x20)
    client = edge.world.client()
    client.ask("/live/demo/20/v0.m3u8")
    for _ in range(int(FIRST_PART_S_MAX / 0.2) - 1):
        edge.push(origin.both())
        edge.world.pump.advance(0.2)
    assert client.answers() == []
    edge.world.pump.advance(0.3)
    assert client.answers()[0].status == 503


def test_a_rendition_without_media_yet_waits(edge: Edge) -> None:
    origin = Origin()
    client = edge.watch(origin, segments=0)
    edge.push(origin.part("v0"))
    other = edge.world.client()
    other.ask(BASE + "a0.m3u8")
    assert other.answers() == []
    edge.push(origin.part("a0"))
    assert parts(text(other.answers()[0])) == ["a0-0.0.m4s"]
    assert client.answers() == [], "the multivariant playlist waits on"
    origin.index = 1
    edge.push(origin.segment())
    assert client.answers()[0].status == 200


# Blocking reload.


def test_item_1_an_msn_alone_blocks_until_the_segment_is_whole(edge: Edge) -> None:
    origin = Origin()
    client = edge.watch(origin)
    client.ask(BASE + "v0.m3u8?_HLS_msn=2")
    for _ in range(PARTS):
        assert client.answers() == []
        edge.push(origin.both())
    playlist = text(client.answers()[0])
    assert "\nv0-2.m4s\n" in playlist
    assert "\nv0-3.m4s\n" not in playlist


def test_item_2_a_part_blocks_until_it_is_there(edge: Edge) -> None:
    origin = Origin()
    client = edge.watch(origin)
    client.ask(BASE + "v0.m3u8?_HLS_msn=2&_HLS_part=1")
    edge.push(origin.both())
    assert client.answers() == []
    edge.push(origin.both())
    assert parts(text(client.answers()[0]))[-1] == "v0-2.1.m4s"
    client.ask(BASE + "v0.m3u8?_HLS_msn=2&_HLS_part=1")
    assert len(client.answers()) == 1, "what is there is answered at once"


def test_item_3_a_part_past_the_last_is_part_0_of_the_next(edge: Edge) -> None:
    origin = Origin()
    client = edge.watch(origin)
    edge.push(origin.both())
    client.ask(BASE + "v0.m3u8?_HLS_msn=2&_HLS_part=5")
    edge.push(origin.both(ends=True))  # Segment 2 has two parts only.
    assert client.answers() == []
    edge.push(origin.both())
    assert parts(text(client.answers()[0]))[-1] == "v0-3.0.m4s"


def test_item_4_old_requests_get_the_entire_playlist(edge: Edge) -> None:
    origin = Origin(first_msn=100)
    client = edge.watch(origin, segments=20)
    newest = text(client.get(BASE + "v0.m3u8"))
    assert "v0-100.m4s" not in newest
    for query in ("_HLS_msn=119", "_HLS_msn=100&_HLS_part=3", "_HLS_msn=3", "_HLS_msn=0"):
        assert text(client.get(f"{BASE}v0.m3u8?{query}")) == newest


def test_item_5_directives_are_ignored_when_ended(edge: Edge) -> None:
    origin = Origin()
    client = edge.watch(origin)
    blocked = edge.world.client()
    blocked.ask(BASE + "v0.m3u8?_HLS_msn=2&_HLS_part=3")
    edge.push([StreamEnded(reason="the publisher left")])
    for answer in (blocked.answers()[0], client.get(BASE + "v0.m3u8?_HLS_msn=999&_HLS_part=9")):
        assert text(answer).rstrip().splitlines()[-1].startswith("#EXT-X-RENDITION-REPORT")
        assert "#EXT-X-ENDLIST\n" in text(answer)


def test_item_6_a_part_without_an_msn_is_a_bad_request(edge: Edge) -> None:
    client = edge.watch(Origin())
    answer = client.get(BASE + "v0.m3u8?_HLS_part=1")
    assert (answer.status, answer.body) == (400, b"_HLS_part needs _HLS_msn\n")
    assert answer.fields["cache-control"] == "max-age=4", "item 33: it never becomes answerable"
    assert client.get(BASE + "v0.m3u8?_HLS_msn=x").status == 400
    answer = client.get(BASE + "v0.m3u8?_HLS_msn=1&_HLS_msn=2")
    assert (answer.status, answer.fields["cache-control"]) == (400, "max-age=4")


def test_item_7_too_far_ahead_is_a_bad_request_at_once(edge: Edge) -> None:
    client = edge.watch(Origin())  # Segments 0 and 1 are whole.
    assert client.get(BASE + "v0.m3u8?_HLS_msn=4").status == 400
    assert client.get(BASE + "v0.m3u8?_HLS_msn=2&_HLS_part=15").status == 400
    answer = client.get(BASE + "v0.m3u8?_HLS_msn=99999999999999999999")
    assert answer.fields["cache-control"] == "no-store", "later it is answerable"
    for query in ("_HLS_msn=3", "_HLS_msn=2&_HLS_part=14"):
        waiting = edge.world.client()
        waiting.ask(f"{BASE}v0.m3u8?{query}")
        assert waiting.answers() == []


def test_item_8_blocked_for_three_target_durations_is_an_error(edge: Edge) -> None:
    client = edge.watch(Origin())
    other = edge.world.client()
    client.ask(BASE + "v0.m3u8?_HLS_msn=2&_HLS_part=0")
    other.ask(BASE + "v0-2.0.m4s")
    edge.world.pump.advance(11.9)
    assert client.answers() == other.answers() == []
    edge.world.pump.advance(0.2)
    for answer in (*client.answers(), *other.answers()):
        assert answer.status == 503
        assert answer.body == b"nothing new came within 12 s\n"
        assert answer.fields["cache-control"] == "no-store"
    assert edge.service.statistics().blocked == 0


def test_item_9_requests_are_idempotent_and_playlists_atomic(edge: Edge) -> None:
    origin = Origin()
    client = edge.watch(origin)
    other = edge.world.client()
    client.ask(BASE + "v0.m3u8?_HLS_msn=2&_HLS_part=0")
    edge.push(origin.both() + origin.both())  # Both parts come in one batch.
    answer = client.answers()[0]
    assert parts(text(answer))[-1] == "v0-2.1.m4s"
    for query in ("_HLS_msn=2&_HLS_part=0", "_HLS_part=0&_HLS_msn=2&_HLS_new=1&x", "_HLS_skip=YES"):
        assert other.get(f"{BASE}v0.m3u8?{query}").body == answer.body


def test_item_26_delta_updates_at_once_and_when_they_come(edge: Edge) -> None:
    origin = Origin()
    client = edge.watch(origin, segments=20)
    first = text(client.get(f"{BASE}v0.m3u8?_HLS_skip=YES"))
    assert "#EXT-X-SKIP" not in first, "nobody has seen an earlier one"
    edge.push(origin.both())
    whole, update = (text(client.get(f"{BASE}v0.m3u8{query}")) for query in ("", "?_HLS_skip=YES"))
    assert "#EXT-X-SKIP" not in whole
    assert "\n#EXT-X-SKIP:SKIPPED-SEGMENTS=3\n" in update, "5 to 7 of 5 to 20"
    other = edge.world.client()
    other.ask(BASE + "v0.m3u8?_HLS_msn=20&_HLS_part=1")
    client.ask(BASE + "v0.m3u8?_HLS_msn=20&_HLS_part=1&_HLS_skip=v2")
    edge.push(origin.both())
    assert "#EXT-X-SKIP" not in text(other.answers()[0])
    update = text(client.answers()[0])
    assert "#EXT-X-SKIP" in update
    assert parts(update)[-1] == "v0-20.1.m4s"


@pytest.mark.parametrize("lost", [True, False])
def test_item_26_an_update_skips_nothing_that_its_asker_cannot_have_seen(
    edge: Edge, lost: bool
) -> None:
    """Behind a burst, or more lost segments than are listed; found by a review."""
    origin = Origin()
    client = edge.watch(origin, segments=15)
    before = text(client.get(BASE + "v0.m3u8"))
    known = [int(number) for number in re.findall(r"\nv0-(\d+)\.m4s", before)]
    client.ask(f"{BASE}v0.m3u8?_HLS_msn={known[-1] + 1}&_HLS_part=0&_HLS_skip=YES")
    if lost:
        origin.msn += 20
        edge.push(origin.both())
    else:
        edge.push([event for _ in range(14 * PARTS) for event in origin.both()])
    update = text(client.answers()[0])
    found = re.search(r"MEDIA-SEQUENCE:(\d+)\n", update)
    assert found is not None
    skipped = re.search(r"SKIPPED-SEGMENTS=(\d+)", update)
    first, count = int(found[1]), int(skipped[1]) if skipped else 0
    assert set(range(first, first + count)) <= set(known)


def test_item_32_playlists_as_gzip_for_who_takes_it(edge: Edge) -> None:
    origin = Origin()
    client = edge.watch(origin)
    for target in (MASTER, BASE + "v0.m3u8", BASE + "v0.m3u8?_HLS_msn=1"):
        plain = client.get(target)
        client.ask(target, "GET", "Accept-Encoding: gzip, br\r\n")
        (packed,) = client.answers()
        assert gzip.decompress(packed.body) == plain.body
        assert packed.fields["content-encoding"] == "gzip"
        assert "content-encoding" not in plain.fields
        assert plain.fields["vary"] == packed.fields["vary"] == "accept-encoding"
        assert plain.fields["cache-control"] == packed.fields["cache-control"]
        assert plain.fields["etag"] != packed.fields["etag"]
    waiting = BASE + "v0.m3u8?_HLS_msn=2&_HLS_part=0"
    other = edge.world.client()
    client.ask(waiting, "GET", "Accept-Encoding: gzip\r\n")
    other.ask(waiting)
    edge.push(origin.both())
    assert gzip.decompress(client.answers()[0].body) == other.answers()[0].body


def test_ranges_and_conditions(edge: Edge) -> None:
    origin = Origin()
    client = edge.watch(origin)
    whole = client.get(BASE + "v0-0.m4s")
    assert whole.fields["accept-ranges"] == "bytes"
    client.ask(BASE + "v0-0.m4s", "GET", "Range: bytes=3-900\r\n")
    (ranged,) = client.answers()
    assert (ranged.status, ranged.body) == (206, whole.body[3:901])
    assert ranged.fields["access-control-allow-origin"] == "*"
    for target in (BASE + "v0-0.m4s", BASE + "v0-1.3.m4s", BASE + "v0.m3u8", MASTER):
        tag = client.get(target).fields["etag"]
        client.ask(target, "GET", f"If-None-Match: {tag}\r\n")
        (unchanged,) = client.answers()
        assert (unchanged.status, unchanged.body) == (304, b"")
    # A part that is yet to come: who waits for a range of it, and who for all.
    other = edge.world.client()
    client.ask(BASE + "v0-2.0.m4s", "GET", "Range: bytes=1-2\r\n")
    other.ask(BASE + "v0-2.0.m4s")
    edge.push(origin.both())
    whole = other.answers()[0]
    ranged = client.answers()[0]
    assert (ranged.status, ranged.body) == (206, whole.body[1:3])
    assert edge.world.server.statistics().responses_total[206] == 2


# Media.


def test_item_20_segments_outlive_the_playlist(edge: Edge) -> None:
    """Each for its duration and the longest playlist's, here 90 s beyond a window of 30 s."""
    origin = Origin()
    client = edge.watch(origin, segments=20)  # 40 s.
    playlist = text(client.get(BASE + "v0.m3u8"))
    assert "\nv0-0.m4s\n" not in playlist
    assert "#EXT-X-MEDIA-SEQUENCE:5\n" in playlist
    assert client.get(BASE + "v0-0.m4s").status == 200
    assert client.get(BASE + "v0-0.3.m4s").status == 200
    for _ in range(45 * PARTS):
        edge.push(origin.both())
    edge.world.pump.advance(1)  # So long an answer may stand (`StandingAnswers`).
    assert client.get(BASE + "v0-0.m4s").status == 404
    assert client.get(BASE + "v0-0.3.m4s").status == 404, "nor do its bytes stay in memory"
    assert client.get(BASE + "v0-10.m4s").status == 200


def test_media_is_what_the_origin_made(edge: Edge) -> None:
    origin = Origin(part_bytes=20_000)
    client = edge.watch(origin)
    part = client.get(BASE + "v0-1.3.m4s")
    assert part.body.startswith(b"v0-1.3;...")
    assert len(part.body) == 20_000
    assert part.fields["content-type"] == "video/mp4"
    segment = client.get(BASE + "v0-1.m4s")
    assert len(segment.body) == 200_000
    assert segment.body[60_000:80_000] == part.body
    init = client.get(f"{BASE}a0-{DIGEST}.mp4")
    assert init.body == b"init of a0"
    assert init.fields["content-type"] == "audio/mp4"


def test_item_22_a_live_playlist_hints_at_the_next_part(edge: Edge) -> None:
    origin = Origin()
    client = edge.watch(origin, segments=1)
    assert hint(text(client.get(BASE + "v0.m3u8"))) == "v0-1.0.m4s"
    for index in range(PARTS):
        edge.push(origin.both())
        following = f"v0-1.{index + 1}.m4s" if index < PARTS - 1 else "v0-2.0.m4s"
        assert hint(text(client.get(BASE + "v0.m3u8"))) == following


def test_item_23_a_hinted_part_blocks_and_comes_whole(edge: Edge) -> None:
    origin = Origin(part_bytes=30_000)
    client = edge.watch(origin)
    name = hint(text(client.get(BASE + "v0.m3u8")))
    client.ask(f"{BASE}{name}")
    edge.push(origin.part("a0"))
    assert client.read() == b"", "not a byte before all of them"
    edge.push(origin.part("v0"))
    (answer,) = client.answers()
    assert answer.status == 200
    assert answer.body.startswith(f"{str(name)[:-4]};".encode())
    assert len(answer.body) == 30_000


def test_item_24_what_is_not_hinted_is_not_found(edge: Edge) -> None:
    client = edge.watch(Origin())
    for name in (
        "v0-2.1.m4s",
        "v0-2.m4s",
        "v0-1.10.m4s",
        "v0-01.3.m4s",
        "v0-1.3.4.m4s",
        "v0-.m4s",
        "v0-+1.m4s",
        "v0-" + "9" * 400 + ".m4s",
        "v1-1.m4s",
        "v0-ffffffffffffffff.mp4",
        "v0.mpd",
        "",
    ):
        answer = client.get(BASE + name)
        assert answer.status == 404, name
    for path in (
        "/live/",
        "/live/demo",
        "/live/demo/x",
        "/live/demo/1f/v0.m3u8/",
        "/live/demo/1F/",
    ):
        assert client.get(path).status == 404, path


def test_item_24_an_abandoned_hint_is_not_found(edge: Edge) -> None:
    origin = Origin()
    client = edge.watch(origin)
    edge.push(origin.both())
    other = edge.world.client()
    client.ask(BASE + "v0-2.2.m4s?x=y")
    assert client.answers()[0].status == 404, "2.1 is hinted, and only that"
    client.ask(BASE + "v0-2.1.m4s")
    edge.push(origin.both())
    other.ask(BASE + "v0-2.2.m4s")
    edge.push(origin.both(ends=True))
    assert [client.answers()[0].status, other.answers()[0].status] == [200, 200]
    edge.push(origin.both())
    client.ask(BASE + "v0-3.1.m4s")
    edge.push([SegmentEnded(rendition="v0", msn=3, parts=1, duration=18_000)])
    assert client.answers()[0].status == 404, "the segment ended without it"


def test_item_24_there_is_no_hint_with_endlist(edge: Edge) -> None:
    origin = Origin()
    client = edge.watch(origin)
    client.ask(BASE + "v0-2.0.m4s")
    edge.push([StreamEnded(reason="over")])
    assert client.answers()[0].status == 404
    playlist = text(client.get(BASE + "v0.m3u8"))
    assert "PRELOAD-HINT" not in playlist
    assert client.get(BASE + "v0-2.0.m4s").status == 404


def test_item_33_cache_control(edge: Edge) -> None:
    client = edge.watch(Origin())

    def cached(target: str) -> tuple[int, str]:
        answer = client.get(target)
        return answer.status, answer.fields["cache-control"]

    assert cached(BASE + "v0.m3u8?_HLS_msn=1") == (200, "max-age=24")
    assert cached(BASE + "x9.m3u8?_HLS_msn=1") == (404, "max-age=16")
    assert cached("/live/demo/2a/v0.m3u8?_HLS_msn=1") == (404, "max-age=16")
    assert cached(BASE + "v0.m3u8") == (200, "max-age=2")
    assert cached(MASTER) == (200, "max-age=2")
    assert cached(BASE + "x9.m3u8") == (404, "max-age=4")
    assert cached("/live/demo/2a/v0.m3u8") == (404, "max-age=4")
    for name in ("v0-1.m4s", "v0-1.3.m4s", f"v0-{DIGEST}.mp4"):
        assert cached(BASE + name) == (200, "max-age=24")
    for name in ("v0-01.m4s", "v0-1.3.4.m4s", "v0-" + "9" * 400 + ".m4s", "v1-1.m4s", "v0.mpd"):
        assert cached(BASE + name) == (404, "max-age=4"), "this never comes to exist"
    # Not the item's "error = 1 TD": at the live edge and beyond it a name soon exists, and a shared
    # cache in front must not go on saying that it does not.
    for name in ("v0-9.m4s", "v0-2.m4s", "v0-2.1.m4s", "v0-1.10.m4s", "a0-2.3.m4s"):
        assert cached(BASE + name) == (404, "no-store"), name


def test_item_33_a_segment_of_the_past_stays_not_found(edge: Edge) -> None:
    client = edge.watch(Origin(first_msn=100))
    for name in ("v0-99.m4s", "v0-99.0.m4s", "v0-100.77.m4s"):
        answer = client.get(BASE + name)
        assert (answer.status, answer.fields["cache-control"]) == (404, "max-age=4"), name


def test_an_abandoned_hint_is_not_found_but_may_come_yet(edge: Edge) -> None:
    """As when the run comes back after its subscription was lost."""
    client = edge.watch(Origin())
    client.ask(BASE + "v0-2.0.m4s")
    edge.unavailable()
    (answer,) = client.answers()
    assert (answer.status, answer.fields["cache-control"]) == (404, "no-store")


def test_item_36_cors_on_all_answers(edge: Edge) -> None:
    client = edge.watch(Origin())
    for target in (
        MASTER,
        BASE + "v0.m3u8",
        BASE + "v0-1.3.m4s",
        BASE + "no",
        BASE + "v0.m3u8?_HLS_part=1",
    ):
        fields = client.get(target).fields
        assert fields["access-control-allow-origin"] == "*"
        assert fields["timing-allow-origin"] == "*"
        assert fields["access-control-expose-headers"] == "age, content-range, date, etag"
        assert "date" in fields


def test_one_byte_string_per_address(edge: Edge) -> None:
    """What a shared cache needs: no cookies, no redirects, the same for everyone."""
    origin = Origin()
    one, two = edge.watch(origin), edge.world.client()
    for target in (MASTER, BASE + "v0.m3u8?_HLS_msn=1", BASE + "a0-1.m4s"):
        assert one.get(target) == two.get(target)


# Many at once, and those who leave.


def test_waiters_are_released_together_with_shared_bytes(edge: Edge) -> None:
    origin = Origin(part_bytes=40_000)
    edge.watch(origin)
    clients = [edge.world.client() for _ in range(60)]
    for index, client in enumerate(clients):
        client.ask(BASE + ("v0.m3u8?_HLS_msn=2&_HLS_part=0" if index % 2 else "v0-2.0.m4s"))
    assert edge.service.statistics().blocked == 60
    edge.push(origin.both())
    bodies = {client.answers()[0].body for client in clients}
    assert len(bodies) == 2
    assert edge.service.statistics().blocked == 0
    assert edge.service.statistics().released_total == 61


def test_early_disconnects_of_blocked_requests(edge: Edge) -> None:
    origin = Origin()
    edge.watch(origin)
    clients = [edge.world.client() for _ in range(9)]
    for index, client in enumerate(clients):
        client.ask(
            BASE + ("v0.m3u8?_HLS_msn=2&_HLS_part=0", "v0.m3u8?_HLS_msn=2", "v0-2.0.m4s")[index % 3]
        )
    waiting = edge.world.client()
    waiting.ask("/live/demo/master.m3u8")
    for client in clients[:6]:
        client.close()
    edge.world.pump.turn()
    assert edge.service.statistics().blocked == 3
    edge.push(origin.both())
    assert [len(client.answers()) for client in clients[6:]] == [1, 0, 1]


def test_pipelined_reloads_are_answered_in_order(edge: Edge) -> None:
    origin = Origin()
    client = edge.watch(origin)
    client.send(
        b"".join(
            f"GET {BASE}{name} HTTP/1.1\r\nHost: e\r\n\r\n".encode()
            for name in ("v0.m3u8?_HLS_msn=2&_HLS_part=0", "v0-2.0.m4s", "v0-2.1.m4s", "a0-1.m4s")
        )
    )
    edge.push(origin.both())
    assert [answer.body[:8] for answer in client.answers()] == [b"#EXTM3U\n", b"v0-2.0;."]
    edge.push(origin.both())
    assert [answer.body[:8] for answer in client.answers()] == [b"v0-2.1;.", b"a0-1.0;."]


def test_head_of_a_blocked_part(edge: Edge) -> None:
    origin = Origin()
    client = edge.watch(origin)
    client.ask(BASE + "v0-2.0.m4s", "HEAD")
    assert client.answers(head=True) == []
    edge.push(origin.both())
    (answer,) = client.answers(head=True)
    assert answer.fields["content-length"] == "100"


def test_viewers_are_counted(edge: Edge) -> None:
    origin = Origin()
    edge.watch(origin)
    players = [(edge.world.client(), edge.world.client()) for _ in range(5)]
    for index in range(PARTS):
        for video, audio in players:
            video.ask(f"{BASE}v0.m3u8?_HLS_msn=2&_HLS_part={index}")
            audio.ask(f"{BASE}a0.m3u8?_HLS_msn=2&_HLS_part={index}")
        edge.world.pump.advance(0.2)
        edge.push(origin.both())
    assert edge.service.viewers("demo") == 5
    assert edge.service.viewers("nobody") == 0
    edge.world.pump.advance(12)
    assert edge.service.viewers("demo") == 0


def test_plain_players_are_counted_too(edge: Edge) -> None:
    edge.watch(Origin())
    players = [edge.world.client() for _ in range(3)]
    for _ in range(5):
        for player in players:
            player.get(BASE + "v0.m3u8")
        edge.world.pump.advance(2)
    assert edge.service.viewers("demo") == 3


# Runs that follow one another.


def test_a_newer_publication_ends_the_older(edge: Edge) -> None:
    edge.watch(Origin())
    blocked = edge.world.client()
    blocked.ask(BASE + "v0.m3u8?_HLS_msn=2")
    newer = StreamId(channel="demo", publication=0x20)
    edge.live["demo"] = newer
    fresh = Origin()
    edge.push(fresh.start() + fresh.both(), newer)
    assert "#EXT-X-ENDLIST" in text(blocked.answers()[0])
    client = edge.world.client()
    client.ask(MASTER)
    assert client.answers() == [], "never the older again"
    edge.push(fresh.segment(), newer)
    assert "\n20/v0.m3u8\n" in text(client.answers()[0])
    assert "\n20/v0.m3u8\n" in text(client.get(MASTER))
    assert client.get(BASE + "v0-1.m4s").status == 200, "its viewers may finish"
    edge.push(Origin().start(), RUN)
    assert edge.service.statistics().fenced_total == 1


def test_an_older_home_epoch_is_fenced(edge: Edge) -> None:
    origin = Origin()
    client = edge.watch(origin)
    later = StreamId(channel="demo", publication=0x1F, home_epoch=3)
    edge.push(origin.both(), later)
    stale = origin.both()
    edge.push(stale, RUN)
    assert parts(text(client.get(BASE + "v0.m3u8")))[-1] == "v0-2.0.m4s"
    edge.push(stale, later)
    assert parts(text(client.get(BASE + "v0.m3u8")))[-1] == "v0-2.1.m4s"
    assert edge.service.statistics().fenced_total == 1


def test_a_replay_after_rehoming_changes_nothing(edge: Edge) -> None:
    first, second = Origin(), Origin()
    client = edge.watch(first)
    before = client.get(BASE + "v0.m3u8").body
    edge.push(second.start())
    for _ in range(2 * PARTS):
        edge.push(second.both())
    assert client.get(BASE + "v0.m3u8").body == before


def test_the_end_and_the_next_run(edge: Edge) -> None:
    client = edge.watch(Origin())
    del edge.live["demo"]
    edge.push([StreamEnded(reason="over")])
    assert client.get(MASTER).status == 404
    assert "#EXT-X-ENDLIST" in text(client.get(BASE + "v0.m3u8"))
    newer = edge.live["demo"] = StreamId(channel="demo", publication=0x20)
    client.ask(MASTER)
    assert edge.subscribed == ["demo", "demo"]
    fresh = Origin()
    edge.push(fresh.start() + fresh.segment(), newer)
    assert "\n20/v0.m3u8\n" in text(client.answers()[0])


def test_the_directorys_newer_run_is_waited_for_though_the_older_goes_on(edge: Edge) -> None:
    older = Origin()
    edge.watch(older)
    newer = edge.live["demo"] = StreamId(channel="demo", publication=0x20)
    client, late = edge.world.client(), edge.world.client()
    client.ask(MASTER)
    fresh = Origin()
    edge.push(older.both())
    assert client.answers() == []
    edge.push(fresh.start() + fresh.segment(), newer)
    assert "\n20/v0.m3u8\n" in text(client.answers()[0])
    edge.live["demo"] = StreamId(channel="demo", publication=0x21)
    late.ask(MASTER)
    for _ in range(int(FIRST_SEGMENT_S_MAX / 0.2)):
        edge.push(fresh.both(), newer)
        edge.world.pump.advance(0.2)
    edge.world.pump.advance(0.2)
    assert late.answers()[0].status == 503, "the older run does not prolong the wait"


def test_a_lost_subscription_ends_the_run_here(edge: Edge) -> None:
    origin = Origin()
    client = edge.watch(origin)
    edge.push(origin.both())
    targets = ("v0.m3u8?_HLS_msn=2", "v0.m3u8?_HLS_msn=2&_HLS_part=1", "a0.m3u8?_HLS_msn=3")
    blocked = [edge.world.client() for _ in targets]
    for waiting, target in zip(blocked, targets, strict=True):
        waiting.ask(BASE + target)
    del edge.live["demo"]
    edge.unavailable()
    answers = [waiting.answers()[0] for waiting in blocked]
    for answer in (*answers, client.get(BASE + "v0.m3u8")):
        assert "#EXT-X-ENDLIST" in text(answer)
        assert answer.fields["cache-control"] == "no-store", "the run may yet come back"
    cut = client.get(BASE + "v0-2.m4s")
    assert (cut.status, len(cut.body)) == (200, 100)
    assert cut.fields["cache-control"] == "no-store", "elsewhere this segment is longer"
    assert client.get(MASTER).status == 404
    edge.service.sweep(edge.world.pump.time + ENDED_KEPT_S)
    client.get(BASE + "v0.m3u8")
    assert edge.service.statistics().channels == 0, "polling keeps nothing"


def test_after_a_lost_subscription_the_newer_run_is_served(edge: Edge) -> None:
    client = edge.watch(Origin())
    edge.unavailable()
    newer = edge.live["demo"] = StreamId(channel="demo", publication=0x20)
    client.ask(MASTER)
    assert client.answers() == [], "not the older run"
    assert edge.subscribed == ["demo", "demo"]
    fresh = Origin()
    edge.push(fresh.start() + fresh.segment(), newer)
    assert "\n20/v0.m3u8\n" in text(client.answers()[0])


def test_after_a_lost_subscription_the_same_run_is_served_again(edge: Edge) -> None:
    first, again = Origin(), Origin()
    client = edge.watch(first)
    segment = client.get(BASE + "v0-1.m4s").body
    edge.push(first.both())
    edge.unavailable()
    assert edge.subscribed == ["demo"]
    edge.push(again.start())  # Was on its way.
    assert edge.service.statistics().fenced_total == 1
    client.ask(MASTER)
    assert client.answers() == []
    assert edge.subscribed == ["demo", "demo"]
    edge.push(first.both())  # Of the former subscription.
    assert edge.service.statistics().fenced_total == 2
    edge.push(again.start() + again.segment() + again.segment())
    edge.push(again.segment() + again.both())
    assert "\n1f/v0.m3u8\n" in text(client.answers()[0])
    playlist = text(client.get(BASE + "v0.m3u8"))
    assert "#EXT-X-ENDLIST" not in playlist
    assert hint(playlist) == "v0-3.1.m4s"
    assert client.get(BASE + "v0-1.m4s").body == segment
    whole = client.get(BASE + "v0-2.m4s")
    assert len(whole.body) == 1000
    assert whole.fields["cache-control"] == "max-age=24"
    assert edge.service.statistics().streams == 1


def replay_of(origin: Origin, first_msn: int) -> list[PackagedEvent]:
    """What an origin that has come as far as `origin` replays: from some segment on."""
    again = Origin(first_msn)
    again.count = 2 * first_msn * PARTS
    events = again.start()
    while (again.msn, again.index) < (origin.msn, origin.index):
        events += again.both()
    return events


def test_item_20_a_subscription_that_comes_back_goes_on_with_what_was_held(edge: Edge) -> None:
    origin = Origin()
    client = edge.watch(origin, segments=20)  # 40 s: 5 segments have left the playlist.
    edge.push(origin.both())
    before = text(client.get(BASE + "v0.m3u8"))
    edge.unavailable()
    client.ask(MASTER)
    assert client.answers() == []
    for _ in range(3):
        origin.both()  # Missed here.
    edge.push(replay_of(origin, 13))  # The last 16 s.
    assert client.answers()[0].status == 200
    after = text(client.get(BASE + "v0.m3u8"))
    assert after.startswith(before[: before.index("#EXT-X-PRELOAD-HINT")]), "only more of it"
    assert parts(after)[-4:] == [f"v0-20.{index}.m4s" for index in range(4)]
    assert hint(after) == "v0-20.4.m4s"
    for msn in (0, 5, 12, 19):
        answer = client.get(f"{BASE}v0-{msn}.m4s")
        assert (answer.status, answer.fields["cache-control"]) == (200, "max-age=24"), msn
        assert answer.body.startswith(f"v0-{msn}.0;".encode())
    assert client.get(BASE + "v0-20.m4s").status == 404, "it grows again"
    edge.push(origin.segment())
    assert len(client.get(BASE + "v0-20.m4s").body) == 1000
    assert "GAP" not in text(client.get(BASE + "v0.m3u8"))


def test_only_what_never_changes_stands(edge: Edge) -> None:
    """Whoever is told a playlist is counted as a viewer; and what is cut off may yet grow."""
    origin = Origin()
    client = edge.watch(origin, segments=4)
    standing = edge.world.server.standing
    for path in (MASTER, BASE + "v0.m3u8", BASE + "v0.m3u8?_HLS_msn=2", BASE + "v0-9.3.m4s"):
        for _ in range(2):
            client.get(path)
        assert not standing.answers, path
    lasting = [BASE + "v0-3.m4s", BASE + "v0-3.1.m4s", f"{BASE}a0-{DIGEST}.mp4"]
    bodies = [client.get(path).body for path in lasting for _ in range(2)]
    assert len(standing.answers) == 3
    edge.unavailable()
    assert [client.get(path).body for path in lasting for _ in range(2)] == bodies
    edge.world.pump.advance(1)
    for path in (BASE + "v0-2.m4s", BASE + "v0-2.1.m4s"):
        for _ in range(2):
            assert client.get(path).fields["cache-control"] == "no-store"
    assert not standing.answers


def test_item_21_a_subscription_that_comes_back_late_has_a_gap(edge: Edge) -> None:
    origin = Origin()
    client = edge.watch(origin, segments=6)
    edge.unavailable()
    client.ask(MASTER)
    for _ in range(10):
        origin.segment()
    edge.push(replay_of(origin, 10))
    playlist = text(client.get(BASE + "v0.m3u8")) if client.answers() else ""
    assert "#EXT-X-MEDIA-SEQUENCE:1\n" in playlist
    assert playlist.count("#EXT-X-GAP") == 4
    assert client.get(BASE + "v0-0.m4s").status == 200
    assert client.get(BASE + "v0-7.m4s").status == 404


def test_a_run_that_comes_back_with_a_newer_home_begins_anew(edge: Edge) -> None:
    """Who has another home may have been cut otherwise: nothing is mixed."""
    client = edge.watch(Origin(), segments=20)
    edge.unavailable()
    client.ask(MASTER)
    later = StreamId(channel="demo", publication=0x1F, home_epoch=2)
    fresh = Origin()
    edge.push(fresh.start() + fresh.segment(), later)
    assert client.answers()[0].status == 200
    assert "#EXT-X-MEDIA-SEQUENCE:0\n" in text(client.get(BASE + "v0.m3u8"))
    assert client.get(BASE + "v0-19.m4s").status == 404


def test_a_run_that_comes_back_otherwise_than_it_was_begins_anew(edge: Edge) -> None:
    """No origin of ours does that; if one does, the channel must not stay dark."""
    client = edge.watch(Origin())
    edge.unavailable()
    client.ask(MASTER)
    fresh = Origin(first_msn=7)
    events = [
        msgspec.structs.replace(event, part_target_us=300_000)
        if isinstance(event, Rendition)
        else event
        for event in fresh.start() + fresh.segment()
    ]
    edge.push(events)
    assert client.answers()[0].status == 200
    assert "#EXT-X-MEDIA-SEQUENCE:7\n" in text(client.get(BASE + "v0.m3u8"))
    assert edge.service.statistics().streams == 1


def test_a_subscription_that_is_lost_again_and_again(edge: Edge) -> None:
    client = edge.watch(Origin())
    for number in range(2, 6):
        edge.unavailable()
        client.ask(MASTER)
        assert client.answers() == [], "the old run is not served"
        assert edge.subscribed == ["demo"] * number
        edge.unavailable("full: no room")
        (answer,) = client.answers()
        assert (answer.status, answer.body) == (503, b"full: no room\n")
        edge.subscribed.pop()
        client.ask(MASTER)
        fresh = Origin()
        edge.push(fresh.start() + fresh.segment())
        assert client.answers()[0].status == 200
    assert edge.service.statistics().streams == 1
    assert edge.service.statistics().blocked == 0


def test_a_run_that_begins_right_behind_anothers_end_is_subscribed_to(edge: Edge) -> None:
    """So that it is given back when nobody watches it."""
    edge.watch(Origin())
    edge.push([StreamEnded(reason="over")])
    newer = edge.live["demo"] = StreamId(channel="demo", publication=0x20)
    fresh = Origin()
    edge.push(fresh.start() + fresh.segment(), newer)
    assert edge.subscribed == ["demo", "demo"]
    edge.service.sweep(edge.world.pump.time + HlsConfig().unwatched_s)
    assert edge.unsubscribed == ["demo"]


def test_ended_runs_are_bounded_in_number_and_time(edge: Edge) -> None:
    client = edge.watch(Origin())
    for publication in range(0x20, 0x26):
        fresh = Origin()
        edge.push(fresh.start() + fresh.both(), StreamId(channel="demo", publication=publication))
    assert edge.service.statistics().streams == OLD_STREAMS_MAX + 1
    assert client.get(BASE + "v0-1.m4s").status == 404
    edge.push([StreamEnded(reason="over")], StreamId(channel="demo", publication=0x25))
    edge.service.sweep(edge.world.pump.time + ENDED_KEPT_S)
    assert edge.service.statistics().streams == 0
    assert edge.service.statistics().channels == 0


def test_an_unwatched_channel_is_given_back(edge: Edge) -> None:
    origin = Origin()
    client = edge.watch(origin)
    edge.world.pump.advance(HlsConfig().unwatched_s - 1)
    client.get(BASE + "v0.m3u8")
    edge.world.pump.advance(2)
    edge.service.sweep(edge.world.pump.time)
    assert edge.unsubscribed == []
    edge.world.pump.advance(HlsConfig().unwatched_s)
    edge.service.sweep(edge.world.pump.time)
    assert edge.unsubscribed == ["demo"]
    assert edge.service.statistics().channels == 0
    edge.push(origin.both())  # Was on its way.
    assert edge.service.statistics().channels == 0
    again = edge.world.client()
    again.ask(MASTER)
    edge.push(origin.both())
    fresh = Origin()
    edge.push(fresh.start() + fresh.segment())
    assert [answer.status for answer in again.answers()] == [200]


def test_a_channel_that_is_held_is_here_before_anybody_asks(edge: Edge) -> None:
    assert edge.service.hold("demo") == ""
    assert edge.service.hold("demo") == "", "again is no more"
    assert edge.subscribed == ["demo"]
    origin = Origin()
    edge.push(origin.start() + origin.segment())
    edge.service.sweep(edge.world.pump.time + 9 * HlsConfig().unwatched_s)
    assert edge.unsubscribed == []
    assert [watched for _, watched in edge.service._held()] == [False], "it goes first from memory"
    client = edge.world.client()
    client.ask(MASTER)
    assert [answer.status for answer in client.answers()] == [200], "nobody waits for it"
    edge.service.let_go("demo")
    edge.service.sweep(edge.world.pump.time)
    assert edge.unsubscribed == [], "it is watched"
    edge.service.sweep(edge.world.pump.time + HlsConfig().unwatched_s)
    assert edge.unsubscribed == ["demo"]
    edge.service.let_go("nobody")


def test_a_channel_that_is_held_for_nobody_goes_at_once(edge: Edge) -> None:
    edge.service.hold("demo")
    edge.service.let_go("demo")
    edge.service.sweep(edge.world.pump.time)
    assert edge.unsubscribed == ["demo"]
    assert edge.service.channels == {}


def test_a_channel_that_is_held_comes_again_with_its_next_run(edge: Edge) -> None:
    edge.service.hold("demo")
    origin = Origin()
    edge.push([*origin.start(), *origin.segment(), StreamEnded(reason="over")])
    del edge.live["demo"]
    assert edge.service.hold("demo") == "the channel is not live"
    edge.live["demo"] = following = StreamId(channel="demo", publication=0x25)
    assert edge.service.hold("demo") == ""
    assert edge.subscribed == ["demo", "demo"]
    edge.push(Origin().start(), following)
    assert [channel.held for channel in edge.service.channels.values()] == [True]


def test_what_is_not_live_or_has_no_room_is_not_held(edge: Edge) -> None:
    assert edge.service.hold("other") == "the channel is not live"
    assert edge.service.channels == {}
    edge.service.cache = EdgeCache(
        CacheConfig(memory_bytes_max=2**20), edge.service._held, now=lambda: 0.0
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EdgeCache, "is_full", True)
        assert edge.service.hold("demo") == FULL_WHY
    assert edge.subscribed == []


@pytest.mark.parametrize("target", [MASTER, BASE + "v0.m3u8"])
def test_a_channel_with_blocked_requests_is_watched(edge: Edge, target: str) -> None:
    client = edge.world.client()
    client.ask(target)
    edge.service.sweep(edge.world.pump.time + HlsConfig().unwatched_s)
    assert edge.unsubscribed == []


def test_absurd_events_are_the_origins_fault(edge: Edge) -> None:
    origin = Origin()
    client = edge.watch(origin)
    client.ask(BASE + "v0-2.0.m4s")
    with pytest.raises(RemoteProtocolError):
        edge.push(origin.part("v0") + origin.part("v7"))
    edge.world.pump.flush()
    assert len(client.answers()) == 1, "what came before it counts"


def test_an_end_far_ahead_is_survived(edge: Edge) -> None:
    """It had emptied the playlist, on which others still waited."""
    origin = Origin()
    client = edge.watch(origin)
    client.ask(BASE + "v0.m3u8?_HLS_msn=2&_HLS_part=0")
    edge.push([SegmentEnded(rendition="v0", msn=30, parts=0, duration=180_000)])
    assert "#EXT-X-GAP" in text(client.answers()[0])
    assert edge.world.client().get(BASE + "v0.m3u8").status == 200
    assert client.get(BASE + "v0-1.m4s").status == 200, "item 20"


def test_item_20_bytes_that_run_out_are_told_once_a_run_and_counted() -> None:
    with world() as made, capture_logs() as logs:
        service = HlsService(
            lookup=lambda channel: RUN,
            subscribe=lambda channel: None,
            unsubscribe=lambda channel: None,
            now=made.pump.now,
            config=HlsConfig(payload_bytes_max=2**20),
        )
        made.server.mount("/live/", service)
        made.client().ask(MASTER)
        origin = Origin(part_bytes=4_000)
        service.window_updated(RUN, origin.start())
        for _ in range(12):
            service.window_updated(RUN, origin.segment())
        assert service.statistics().segments_evicted_early_total == 0
        for _ in range(30):
            service.window_updated(RUN, origin.segment())
        statistics = service.statistics()
        assert statistics.segments_evicted_early_total > 10
        assert statistics.segments_evicted_needed_total == statistics.segments_evicted_early_total
        service.window_updated(RUN, [StreamEnded(reason="over")])
        service.sweep(made.pump.time + ENDED_KEPT_S)
        assert service.statistics().streams == 0
        counted = msgspec.structs.replace(statistics, channels=0, streams=0, payload_bytes=0)
        assert service.statistics() == counted, "totals never fall"
    (told,) = [log for log in logs if log["log_level"] == "warning"]
    assert told["event"] == "media dropped early"
    assert told["channel"] == "demo"
    assert told["payload_bytes_max"] == 2**20
    assert told["kept_s"] < told["needed_s"] == 36.0


def test_what_never_came_is_counted(edge: Edge) -> None:
    origin = Origin()
    edge.watch(origin, segments=1)
    edge.push(origin.both())
    origin.index = 3
    edge.push(origin.both())  # Parts 1 and 2 are lost in both renditions.
    origin.segment()
    origin.segment()
    edge.push(origin.both())  # A segment, too, and the end of the one before it.
    edge.push(replay_of(origin, origin.msn))
    statistics = edge.service.statistics()
    assert statistics.parts_missing_total == 2 * 2 + 2
    assert statistics.segments_missing_total == 2
    assert statistics.parts_refused_total == 2


async def test_the_sweeper_runs(autojump_clock: MockClock) -> None:
    given_back: list[str] = []
    with world() as made:
        service = HlsService(
            lookup=lambda channel: RUN,
            subscribe=lambda channel: None,
            unsubscribe=given_back.append,
            now=trio.current_time,
        )
        made.pump.time = trio.current_time()
        made.server.mount("/live/", service)
        client = made.client()
        client.ask(MASTER)
        client.close()
        made.pump.turn()
        with trio.move_on_after(2 * HlsConfig().unwatched_s):
            await service.run()
    assert given_back == ["demo"]


# Over the real pump.


@asynccontextmanager
async def on_loopback(listen: str = "127.0.0.1:0") -> AsyncIterator[tuple[str, HlsService]]:
    pump = Pump()
    server = HttpServer(Router())
    service = HlsService(
        lookup=lambda channel: RUN,
        subscribe=lambda channel: None,
        unsubscribe=lambda channel: None,
        now=pump.now,
    )
    server.mount("/live/", service)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pump.run)
        address: str = await nursery.start(server.serve, pump, listen)
        yield address, service
        nursery.cancel_scope.cancel()


async def fetch(address: str, target: str) -> bytes:
    host, _, port = address.rpartition(":")
    stream = await trio.open_tcp_stream(host.strip("[]"), int(port))
    async with stream:
        await stream.send_all(
            f"GET {target} HTTP/1.1\r\nHost: e\r\nConnection: close\r\n\r\n".encode()
        )
        received = b""
        async for data in stream:
            received += data
    return received


@pytest.mark.e2e
async def test_real_sockets_end_to_end() -> None:
    origin = Origin(part_bytes=60_000)
    answers: dict[str, bytes] = {}
    with trio.fail_after(20):
        async with on_loopback() as (address, service), trio.open_nursery() as nursery:

            async def ask(target: str) -> None:
                answers[target] = await fetch(address, target)

            nursery.start_soon(ask, MASTER)
            await trio.sleep(0.1)
            service.window_updated(RUN, origin.start() + origin.both())
            nursery.start_soon(ask, BASE + "v0.m3u8?_HLS_msn=0&_HLS_part=1")
            nursery.start_soon(ask, BASE + "v0-0.1.m4s")
            await trio.sleep(0.1)
            assert answers == {}
            service.window_updated(RUN, origin.both())
            while len(answers) < 2:  # noqa: ASYNC110 - those two; the service has no tasks
                await trio.sleep(0.02)
            assert MASTER not in answers
            service.window_updated(RUN, origin.segment())
            nursery.start_soon(ask, BASE + "v0-0.m4s")
    assert b"1f/v0.m3u8" in answers[MASTER]
    assert b"v0-0.1.m4s" in answers[BASE + "v0.m3u8?_HLS_msn=0&_HLS_part=1"]
    assert answers[BASE + "v0-0.1.m4s"].partition(b"\r\n\r\n")[2].startswith(b"v0-0.1;.")
    assert len(answers[BASE + "v0-0.m4s"].partition(b"\r\n\r\n")[2]) == 600_000


@pytest.mark.e2e
async def test_viewers_by_ipv6_and_ipv4() -> None:
    """What listens at all addresses, as it is shipped, serves both at one port."""
    origin = Origin(part_bytes=60_000)
    with trio.fail_after(20):
        async with (
            on_loopback("[::1]:0") as (six, service),
            on_loopback("[::]:0") as (all_of, other),
        ):
            port = all_of.rpartition(":")[2]
            for each in (service, other):
                each._channel("demo", 0.0)
                each.window_updated(RUN, origin.start())
            for event in origin.segment():
                service.window_updated(RUN, [event])
                other.window_updated(RUN, [event])
            assert six.startswith("[::1]:")
            for address in (six, f"[::1]:{port}", f"127.0.0.1:{port}"):
                for target, size in (
                    (MASTER, 0),
                    (BASE + "v0.m3u8", 0),
                    (BASE + "v0-0.m4s", 600_000),
                ):
                    head, _, body = (await fetch(address, target)).partition(b"\r\n\r\n")
                    assert head.startswith(b"HTTP/1.1 200 "), (address, target)
                    assert len(body) == size or (not size and body.startswith(b"#EXTM3U"))


@pytest.mark.e2e
async def test_many_real_waiters_are_released_at_once() -> None:
    count = 300
    origin = Origin(part_bytes=50_000)
    with trio.fail_after(30):
        async with on_loopback() as (address, service):
            done: list[float] = []

            async def wait() -> None:
                await fetch(address, BASE + "v0-0.1.m4s")
                done.append(trio.current_time())

            async with trio.open_nursery() as nursery:
                nursery.start_soon(fetch, address, MASTER)
                await trio.sleep(0.1)
                service.window_updated(RUN, origin.start() + origin.both())
                for _ in range(count):
                    nursery.start_soon(wait)
                while service.statistics().blocked < count:  # noqa: ASYNC110 - the service has no tasks
                    await trio.sleep(0.02)
                started = trio.current_time()
                service.window_updated(RUN, origin.both())
                service.window_updated(RUN, origin.segment())
    assert len(done) == count
    assert max(done) - started < 5, "seconds, on a busy machine"


@pytest.mark.e2e
async def test_a_real_viewer_that_does_not_read_holds_nobody_up() -> None:
    origin = Origin(part_bytes=900_000)
    with trio.fail_after(20):
        async with on_loopback() as (address, service):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fetch, address, MASTER)
                await trio.sleep(0.1)
                service.window_updated(RUN, origin.start() + origin.segment())
            host, _, port = address.rpartition(":")
            with socket.create_connection((host, int(port))) as slow:
                slow.sendall(f"GET {BASE}v0-0.m4s HTTP/1.1\r\nHost: e\r\n\r\n".encode() * 30)
                await trio.sleep(0.2)
                answer = await fetch(address, BASE + "v0-0.m4s")
    assert len(answer) > 9_000_000


def test_reconfigured_a_stream_keeps_as_much_as_is_said_now(edge: Edge) -> None:
    origin = Origin()
    edge.watch(origin, segments=12)
    window = edge.service._channels["demo"].newest
    assert window is not None
    listed = len(window.window.renditions["v0"].listed)
    edge.service.reconfigure(HlsConfig(playlist_s=12.0, retention_s=22.0))
    for _ in range(PARTS):
        edge.push(origin.both())
    assert len(window.window.renditions["v0"].listed) < listed
    assert edge.service._limits.playlist_s == 12.0
