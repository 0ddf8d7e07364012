"""What one run keeps in memory, and that nobody is left waiting. Its answers are test_hls.py's."""

import contextlib
from collections.abc import Iterator
from typing import cast

import hypothesis
import pytest
from hypothesis import strategies as st
from msgspec import Struct, structs

from edged.errors import RemoteProtocolError
from edged.media.latency import Latency
from edged.media.parts import InitSegment, Rendition, StreamEnded
from edged.media.playlist import MediaPlaylist
from edged.media.stream import StreamId
from edged.playback.hls_stream import HlsStream
from edged.playback.http import HttpConnection
from edged.playback.waiting import Exchange, Waiters
from edged.policy.rendition_window import MISSING_MAX, PARTS_MAX
from edged.policy.viewer_count import ViewerCount
from edged.policy.window_limits import WindowLimits
from edged.policy.window_replay import make_replay
from edged.wire.content_coding import CodedBlock
from edged.wire.m3u8 import OlderText, render_blocks
from edged.wire.prepared import PreparedResponse
from edged.wire.request import RequestReceived
from tests.playback.fakes import DIGEST, PARTS, Client, Origin, World, world
from tests.policy.window_events import ended, init, part, rendition, whole

LIMITS = WindowLimits(playlist_s=12.0, retention_s=4.0)


class OneStream:
    """A service with one run: the last piece of the path is the name."""

    def __init__(self, now: float) -> None:
        self.stream = HlsStream(StreamId(channel="demo", publication=1), LIMITS, now=lambda: now)
        self.count = ViewerCount(now)

    def respond(
        self, request: RequestReceived, exchange: Exchange, now: float
    ) -> PreparedResponse | None:
        name = request.path.rpartition("/")[2]
        ready = self.stream.ready.get(name)
        return ready or self.stream.respond(name, request, exchange, now, self.count)


class Place(Struct):
    world: World
    service: OneStream
    origin: Origin

    @property
    def stream(self) -> HlsStream:
        return self.service.stream

    def step(self, parts: int = 1) -> None:
        for _ in range(parts):
            self.stream.add(self.origin.both())
            self.stream.release(self.world.pump.time, self.service.count)
        self.world.pump.flush()

    def asks(self, name: str) -> Client:
        client = self.world.client()
        client.ask(f"/live/{name}")
        return client


@pytest.fixture
def place() -> Iterator[Place]:
    with world() as made:
        service = OneStream(made.pump.time)
        made.server.mount("/live/", service)
        found = Place(made, service, Origin())
        found.stream.add(found.origin.start())
        yield found


def test_responses_are_made_once_and_dropped_with_their_segment(place: Place) -> None:
    client = place.world.client()
    held: set[int] = set()
    for msn in range(20):
        place.step(PARTS)
        for name in (f"v0-{msn}.m4s", f"a0-{msn}.m4s", f"v0-{msn}.3.m4s"):
            assert client.get(f"/live/{name}").status == 200
            made = place.stream.ready[name]
            client.get(f"/live/{name}")
            assert place.stream.ready[name] is made
        held.add(len(place.stream.ready))
    assert max(held) <= 3 * 17, "12 s, as long again (item 20) and three segments: 15 or 16"
    assert "v0-19.m4s" in place.stream.ready
    assert "v0-3.m4s" not in place.stream.ready


def test_inits_no_longer_in_use_are_dropped(place: Place) -> None:
    client = place.world.client()
    place.step()
    client.get(f"/live/v0-{DIGEST}.mp4")
    assert f"v0-{DIGEST}.mp4" in place.stream.ready
    other = InitSegment(rendition="v0", digest="f" * 16, data=b"other")
    place.stream.add([other])
    assert client.get(f"/live/v0-{'f' * 16}.mp4").body == b"other"
    assert client.get(f"/live/v0-{DIGEST}.mp4").status == 200, "still listed"
    place.stream.add([InitSegment(rendition="v0", digest="e" * 16, data=b"third")])
    assert list(place.stream.ready) == [f"v0-{DIGEST}.mp4"], "the second was never used"


def test_asking_for_nonsense_costs_no_memory(place: Place) -> None:
    place.step(PARTS)
    client = place.world.client()
    for number in range(50):
        for name in (
            f"v0-{number:016x}.mp4",
            f"v0-{number + 1}.m4s",
            f"x{number}.m3u8",
            f"{number}",
        ):
            assert client.get(f"/live/{name}").status == 404
    assert place.stream.ready == {}
    assert place.stream.blocked == 0


@pytest.mark.pure
def test_playlists_are_rendered_once_a_version(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def render(playlist: MediaPlaylist, older: OlderText, *, delta: bool) -> list[CodedBlock]:
        nonlocal calls
        calls += 1
        return render_blocks(playlist, older, delta=delta)

    monkeypatch.setattr("edged.playback.playlist.render_blocks", render)
    place.step()
    waiting = [place.asks("v0.m3u8?_HLS_msn=0&_HLS_part=1") for _ in range(5)]
    place.step()
    assert [len(client.answers()) for client in waiting] == [1] * 5
    for _ in range(3):
        place.asks("v0.m3u8").answers()
    assert calls == 1


def test_the_multivariant_playlist_is_rendered_once_a_version(place: Place) -> None:
    assert place.stream.multivariant() is None
    place.step(PARTS - 1)
    assert place.stream.multivariant() is None, "no whole segment"
    place.step()
    first = place.stream.multivariant()
    absolute = place.stream.multivariant("/live/demo/")
    place.step(PARTS)
    assert first is not None
    assert place.stream.multivariant() is first
    assert absolute is not None
    assert place.stream.multivariant("/live/demo/") is absolute
    assert b"\n/live/demo/" in absolute.body[0]
    assert absolute.head.split(b"\r\n")[3] == first.head.split(b"\r\n")[3]  # Cache-Control.


def test_a_segment_too_large_to_send_is_refused(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edged.playback.hls_stream.RESPONSE_BYTES_MAX", 999)
    place.step(PARTS)
    client = place.world.client()
    assert client.get("/live/v0-0.0.m4s").status == 200
    answer = client.get("/live/v0-0.m4s")
    assert (answer.status, answer.body) == (503, b"v0-0.m4s exceeds 999 bytes\n")


class Asker:
    """What a connection is to the stream: it waits in a group, and is answered once."""

    def __init__(self, stream: HlsStream, name: str, query: str) -> None:
        self.stream, self.name, self.query = stream, name, query
        self.polled: int | None = None
        self.group: Waiters | None = None
        self.answer_given: PreparedResponse | None = None
        self.retry(0.0)

    @property
    def exchange(self) -> HttpConnection:
        return cast("HttpConnection", self)

    def wait(self, group: Waiters, until: float, expired: PreparedResponse) -> None:
        assert self.answer_given is None
        self.group = group
        group[self.exchange] = None

    def answer_ahead(self, response: PreparedResponse) -> bool:
        return False

    def retry(self, now: float) -> None:
        self.group = None
        count = ViewerCount(now)
        request = RequestReceived(
            method="GET", path=self.name, query=self.query, fields=[], keep_alive=True
        )
        response = self.stream.respond(self.name, request, self.exchange, now, count)
        if response is not None:
            self.answer(response, now)

    def answer(self, response: PreparedResponse, now: float) -> None:
        assert self.answer_given is None, "each request is answered once"
        self.group = None
        self.answer_given = response


class Step(Struct, frozen=True):
    """One event, told by how far it is ahead of its rendition's newest segment."""

    kind: str
    name: str
    ahead: int
    index: int
    discontinuities: int


STEPS = st.builds(
    Step,
    st.sampled_from(("part", "part", "part", "ended", "ended", "absurd", "over", "lost")),
    st.sampled_from(("v0", "a0")),
    st.sampled_from((-1, 0, 0, 0, 1, 1, 2, MISSING_MAX, MISSING_MAX + 1, MISSING_MAX + 2, 1000)),
    st.integers(0, 5),
    st.integers(0, 3),
)


def take(stream: HlsStream, step: Step) -> None:
    msn = max(stream.window.renditions[step.name].last_msn + step.ahead, 0)
    with contextlib.suppress(RemoteProtocolError):
        match step.kind:
            case "part":
                numbers = {"discontinuity_sequence": step.discontinuities}
                stream.add([part(msn, step.index, step.name, **numbers)])
            case "ended":
                stream.add([ended(msn, step.name, step.index)])
            case "absurd":
                stream.add([part(msn, 0, "x0")])
            case "over":
                stream.add([StreamEnded(reason="over")])
            case _ if stream.ended_at is None:
                stream.end_here("the origin is gone")
                stream.release(0.0, ViewerCount(0.0))
                stream.reopen()
    stream.release(0.0, ViewerCount(0.0))


def ask(stream: HlsStream, index: int) -> list[Asker]:
    """Ask for all that a player may wait for."""
    askers = []
    for name, window in stream.window.renditions.items():
        for query in ("", f"_HLS_msn={window.last_msn}", f"_HLS_msn={window.last_msn + 1}"):
            askers.append(Asker(stream, f"{name}.m3u8", query))
            if query:
                askers.append(Asker(stream, f"{name}.m3u8", f"{query}&_HLS_part={index}"))
        askers.append(Asker(stream, str(window.hint_name), ""))
    return askers


@pytest.mark.pure
@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.example(
    [
        *[Step("part", "v0", -1, 0, 0)] * 4,
        Step("part", "v0", -1, 5, 0),
        Step("ended", "v0", 1, 0, 0),
    ]
)
@hypothesis.given(st.lists(STEPS, min_size=1, max_size=25))
def test_any_order_leaves_nobody_waiting_for_what_is_there(steps: list[Step]) -> None:
    limits = WindowLimits(playlist_s=12.0, retention_s=4.0, payload_bytes_max=4000)
    stream = HlsStream(StreamId(channel="demo", publication=1), limits, now=lambda: 0.0)
    stream.add([rendition(), init(), rendition("a0"), init("a0")])
    askers = ask(stream, 0)
    stream.add([*whole(0), part(0, 0, "a0")])
    stream.release(0.0, ViewerCount(0.0))
    for step in steps:
        askers += ask(stream, step.index)
        take(stream, step)
        waiting = [asker for asker in askers if asker.answer_given is None]
        assert all(asker.group is not None for asker in waiting)
        assert stream.blocked == len(waiting)
        assert not waiting or stream.ended_at is None
        for asker in waiting:
            shown = stream.window.renditions[asker.name[:2]]
            assert shown.listed
            if asker.query:
                msn, _, index = asker.query.removeprefix("_HLS_msn=").partition("&_HLS_part=")
                edge = shown.last_msn, shown.last_part
                # Past a whole segment's last part is part 0 of the next, which may have begun.
                next_begun = bool(index) and edge == (int(msn) + 1, -1)
                assert next_begun or edge < (int(msn), int(index or PARTS_MAX))
            else:
                assert asker.name == shown.hint_name
    stream.abandon(0.0)
    assert all(asker.answer_given is not None for asker in askers)


def test_abandoning_leaves_nobody_waiting(place: Place) -> None:
    clients = [place.asks("v0.m3u8")]
    place.step()
    names = ("v0.m3u8?_HLS_msn=0&_HLS_part=5", "v0.m3u8?_HLS_msn=0", "v0-0.1.m4s", "a0.m3u8")
    clients += [place.asks(name) for name in names]
    assert place.stream.blocked == 3
    place.stream.abandon(place.world.pump.time)
    place.world.pump.flush()
    assert [client.answers()[0].status for client in clients] == [200, 404, 404, 404, 200]
    assert place.stream.blocked == 0


def test_a_rendition_that_is_away_is_missing_at_once_for_all_who_wait(place: Place) -> None:
    """RFC 8216bis has players change the variant when a media playlist can't be loaded."""
    place.step(PARTS + 1)
    names = ("v0.m3u8?_HLS_msn=1&_HLS_part=1", "v0-1.1.m4s", "a0.m3u8?_HLS_msn=1&_HLS_part=1")
    clients = [place.asks(name) for name in names]
    assert place.stream.blocked == 3
    assert place.world.client().get("/live/v0.m3u8").status == 200, "made, and held for the next"
    told = next(e for e in place.origin.start() if isinstance(e, Rendition) and e.name == "v0")
    place.stream.add([structs.replace(told, away=True)])
    place.stream.release(place.world.pump.time, place.service.count)
    place.world.pump.flush()
    assert place.stream.blocked == 1, "the sound goes on"
    answers = [client.answers()[0] for client in clients[:2]]
    answers += [place.world.client().get(f"/live/{name}") for name in (names[0], "v0.m3u8")]
    for answer in answers:
        assert answer.status == 404
        assert answer.fields["cache-control"] == "no-store", "it may come back"
    assert place.world.client().get("/live/v0-1.0.m4s").status == 200
    place.stream.add([told])
    place.step()
    assert clients[2].answers()[0].status == 200
    assert place.world.client().get("/live/v0.m3u8").status == 200


def test_a_run_that_ends_before_its_first_part(place: Place) -> None:
    clients = [place.asks("v0.m3u8"), place.asks("v0.m3u8?_HLS_msn=3")]
    assert place.stream.blocked == 2
    place.stream.add([StreamEnded(reason="changed its mind")])
    place.stream.release(place.world.pump.time, place.service.count)
    place.world.pump.flush()
    answers = [client.answers()[0] for client in clients]
    assert [answer.status for answer in answers] == [404, 404]
    assert [a.fields["cache-control"] for a in answers] == ["max-age=4", "max-age=16"]
    assert place.stream.multivariant() is None


def test_what_comes_after_the_end_changes_nothing(place: Place) -> None:
    place.stream.add([StreamEnded(reason="over")])
    before = make_replay(place.stream.window)
    place.stream.add([init("v9"), part(0, 0, "v9"), rendition("v9"), init("v9"), ended(0)])
    assert make_replay(place.stream.window) == before


def test_lost_parts_are_gaps(place: Place) -> None:
    place.step()
    place.origin.index = 2  # Part 1 is lost.
    client = place.asks("v0-0.1.m4s")
    place.step()
    assert client.answers()[0].status == 404
    assert b"GAP=YES" in place.world.client().get("/live/v0.m3u8").body


@pytest.fixture
def plain(place: Place) -> Place:
    """A place whose run has no parts for viewers."""
    latency = Latency(name="standard", parts=False)
    service = OneStream(place.world.pump.time)
    place.service.stream = service.stream
    place.stream.add(
        [
            structs.replace(event, latency=latency) if isinstance(event, Rendition) else event
            for event in place.origin.start()
        ]
    )
    return place


def test_without_parts_viewers_wait_for_whole_segments(plain: Place) -> None:
    first, part_of = plain.asks("v0.m3u8"), plain.asks("v0-0.0.m4s")
    (answer,) = part_of.answers()
    assert answer.status == 404, "no playlist hints at it"
    plain.step(PARTS - 1)
    assert first.answers() == []
    plain.step()
    (answer,) = first.answers()
    assert answer.status == 200
    assert b"v0-0.m4s" in answer.body
    assert b"EXT-X-PART" not in answer.body
    assert b"EXT-X-PRELOAD-HINT" not in answer.body
    assert b"PART-HOLD-BACK" not in answer.body
    assert b"CAN-BLOCK-RELOAD=YES" in answer.body
    assert plain.asks("v0-0.m4s").answers()[0].status == 200
    assert plain.asks("v0-0.0.m4s").answers()[0].status == 404


def test_without_parts_one_segment_releases_who_wait_and_no_part_does(plain: Place) -> None:
    plain.step(PARTS)
    waiting = [plain.asks(f"v0.m3u8?_HLS_msn={query}") for query in ("1", "1&_HLS_part=0")]
    plain.step(PARTS - 1)
    assert [client.answers() for client in waiting] == [[], []]
    made = len(plain.stream.ready)
    plain.step()
    for client in waiting:
        (answer,) = client.answers()
        assert b"v0-1.m4s" in answer.body
        assert b'RENDITION-REPORT:URI="a0.m3u8",LAST-MSN=0\n' in answer.body or (
            b'RENDITION-REPORT:URI="a0.m3u8",LAST-MSN=1\n' in answer.body
        )
    assert len(plain.stream.ready) == made
    too_far = plain.asks("v0.m3u8?_HLS_msn=4").answers()
    assert too_far[0].status == 400
