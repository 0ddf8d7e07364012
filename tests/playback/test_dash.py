"""Manifests as viewers get them: beside the playlists, made once, of the very segments of HLS."""

import gzip
from collections.abc import Iterator
from xml.etree import ElementTree

import pytest
from msgspec import Struct

from edged.errors import RemoteProtocolError
from edged.media.parts import InitSegment, Part, StreamEnded
from edged.media.stream import StreamId
from edged.playback import dash
from edged.playback.dash import INITS_MAX, DashManifests, FirstShown
from edged.playback.hls import FIRST_SEGMENT_S_MAX, HlsService
from edged.policy.window import StreamWindow
from edged.wire.cmaf.reader import read_init
from edged.wire.mpd import render_manifest
from edged.wire.prepared import PreparedResponse, prepare
from tests.playback.fakes import Client, Origin, World, world
from tests.policy.synthetic import (
    RATES,
    audio_track,
    audio_units,
    in_order,
    segment,
    video_times,
    video_track,
    video_units,
)
from tests.wire.mpd_schema import check_mpd

STREAM = StreamId(channel="demo", publication=0xAB)
NS = {"": "urn:mpeg:dash:schema:mpd:2011"}
UNIX = 1_700_000_050.5


class Edge(Struct):
    """A service with one channel, and viewers of it."""

    world: World
    service: HlsService
    origin: Origin
    live: dict[str, StreamId]

    def begin(self) -> None:
        self.live["demo"] = STREAM
        self.asks("master.m3u8")  # So that it comes here.
        self.feed(self.origin.start())

    def feed(self, events: list) -> None:  # type: ignore[type-arg]
        self.service.window_updated(STREAM, events)
        self.world.pump.flush()

    def segments(self, count: int = 1) -> None:
        for _ in range(count):
            self.feed(self.origin.segment())

    def asks(self, path: str, **how: str) -> Client:
        client = self.world.client()
        client.ask(f"/live/demo/{path}", **how)
        return client


@pytest.fixture
def edge() -> Iterator[Edge]:
    with world() as made:
        live: dict[str, StreamId] = {}
        service = HlsService(
            lookup=live.get,
            subscribe=lambda _: None,
            unsubscribe=lambda _: None,
            now=lambda: made.pump.time,
        )
        made.server.mount("/live/", service)
        yield Edge(made, service, Origin(), live)


def read(body: bytes) -> ElementTree.Element:
    assert check_mpd(body) == [], body.decode()
    return ElementTree.fromstring(body)  # noqa: S314 - our own


def test_a_channel_s_manifest_waits_for_media_and_names_segments_of_hls(edge: Edge) -> None:
    edge.live["demo"] = STREAM
    waiting = edge.asks("manifest.mpd")
    assert waiting.answers() == []
    edge.begin()
    edge.segments()
    (answer,) = waiting.answers()
    assert answer.status == 200
    assert answer.fields["content-type"] == "application/dash+xml"
    assert answer.fields["access-control-allow-origin"] == "*"
    assert answer.fields["cache-control"] == "max-age=1"
    mpd = read(answer.body)
    location = mpd.find("Location", NS)
    assert location is not None
    assert location.text == "ab/manifest.mpd"
    templates = list(mpd.iterfind(".//SegmentTemplate", NS))
    assert len(templates) == 2
    for template in templates:
        media = template.attrib["media"].replace("$Number$", template.attrib["startNumber"])
        for uri in (media, template.attrib["initialization"]):
            (found,) = edge.asks(uri).answers()
            assert found.status == 200, uri
            assert found.body


def test_the_run_s_own_manifest_names_what_is_beside_it(edge: Edge) -> None:
    edge.begin()
    edge.segments(2)
    (answer,) = edge.asks("ab/manifest.mpd").answers()
    mpd = read(answer.body)
    assert mpd.find("Location", NS) is None
    template = mpd.find(".//SegmentTemplate", NS)
    assert template is not None
    assert template.get("media") == "v0-$Number$.m4s"
    (again,) = edge.asks("ab/manifest.mpd", method="HEAD").answers(head=True)
    assert again.fields["etag"] == answer.fields["etag"]


def test_gzip_and_conditions_as_of_playlists(edge: Edge) -> None:
    edge.begin()
    edge.segments()
    (plain,) = edge.asks("ab/manifest.mpd").answers()
    (zipped,) = edge.asks("ab/manifest.mpd", fields="Accept-Encoding: gzip\r\n").answers()
    assert (zipped.fields["content-encoding"], zipped.fields["vary"]) == ("gzip", "accept-encoding")
    assert gzip.decompress(zipped.body) == plain.body
    tag = plain.fields["etag"]
    (same,) = edge.asks("ab/manifest.mpd", fields=f"If-None-Match: {tag}\r\n").answers()
    assert same.status == 304
    edge.segments()
    (newer,) = edge.asks("ab/manifest.mpd", fields=f"If-None-Match: {tag}\r\n").answers()
    assert newer.status == 200


def test_before_its_first_segment_a_run_has_no_manifest(edge: Edge) -> None:
    edge.begin()
    (answer,) = edge.asks("ab/manifest.mpd").answers()
    assert (answer.status, answer.fields["cache-control"]) == (404, "no-store")
    (unknown,) = edge.asks("cd/manifest.mpd").answers()
    assert unknown.status == 404


def test_a_channel_that_is_not_live_has_none(edge: Edge) -> None:
    (answer,) = edge.asks("manifest.mpd").answers()
    assert answer.status == 404


def test_media_that_does_not_come_is_told(edge: Edge) -> None:
    edge.live["demo"] = STREAM
    waiting = edge.asks("manifest.mpd")
    edge.world.pump.advance(FIRST_SEGMENT_S_MAX + 1)
    (answer,) = waiting.answers()
    assert answer.status == 503


def test_of_a_run_that_has_ended_the_end_is_told(edge: Edge) -> None:
    edge.begin()
    edge.segments(2)
    edge.feed([StreamEnded(reason="over")])
    (answer,) = edge.asks("ab/manifest.mpd").answers()
    mpd = read(answer.body)
    assert mpd.get("minimumUpdatePeriod") is None
    assert mpd.get("mediaPresentationDuration") is not None


def test_who_reads_it_again_and_again_is_a_viewer(edge: Edge) -> None:
    edge.begin()
    edge.segments()
    client = edge.world.client()
    for _ in range(4):
        assert client.get("/live/demo/ab/manifest.mpd").status == 200
        edge.world.pump.advance(2.0)
        edge.segments()
    assert edge.service.viewers("demo") == 1
    assert edge.service.statistics().manifests_total == 4


def made(body: bytes, gzip: bool) -> PreparedResponse:
    del gzip
    return prepare(200, [body], content_type="x", cache_control="max-age=1")


def test_it_is_rendered_once_a_version(monkeypatch: pytest.MonkeyPatch) -> None:
    rendered = 0

    def counting(*arguments: object, **how: object) -> bytes:
        nonlocal rendered
        rendered += 1
        return render_manifest(*arguments, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(dash, "render_manifest", counting)
    window, origin = StreamWindow(STREAM), Origin()
    manifests = DashManifests(window, unix_now=lambda: UNIX)
    assert manifests.respond(made, base="", gzip=False) is None
    for event in [*origin.start(), *origin.segment()]:
        window.add(event)
    first = manifests.respond(made, base="", gzip=False)
    assert manifests.respond(made, base="", gzip=False) is first
    assert rendered == 1
    manifests.respond(made, base="ab/", gzip=False)
    assert rendered == 2
    for event in origin.both():
        window.add(event)
    assert manifests.respond(made, base="", gzip=False) is first, "a part changes nothing"
    manifests.forget()
    assert manifests.respond(made, base="", gzip=False) is not first


def test_pictures_that_are_reordered_are_named_by_when_they_are_presented() -> None:
    rate = RATES["30"]
    video = video_units(video_times(rate, 6.0), 2.0, reorder=6000)
    units = in_order((90_000, video), (48_000, audio_units(6.0)))
    window = StreamWindow(STREAM)
    for event in segment((video_track(rate), audio_track()), units).events:
        window.add(event)
    bodies: list[bytes] = []

    def keep(body: bytes, gzip: bool) -> PreparedResponse:
        bodies.append(body)
        return made(body, gzip)

    DashManifests(window, unix_now=lambda: UNIX).respond(keep, base="", gzip=False)
    video_times_told = [s.get("t") for s in read(bodies[0]).iterfind(".//S", NS)]
    assert video_times_told[0] == "6000", "decoded at 0, presented two pictures later"


def test_inits_that_are_read_are_bounded_and_media_that_is_none_is_not_looked_into() -> None:
    first_shown = FirstShown()
    run = segment((video_track(RATES["30"]),), list(video_units(video_times(RATES["30"], 3.0), 1)))
    init = next(event for event in run.events if isinstance(event, InitSegment))
    first = next(event for event in run.events if isinstance(event, Part))
    for number in range(INITS_MAX + 2):
        free = (8 + number).to_bytes(4, "big") + b"free" + bytes(number)
        assert first_shown(init.data + free, first) == 0
    assert len(first_shown.inits) == INITS_MAX
    with pytest.raises(RemoteProtocolError):
        read_init(b"no init")
    assert first_shown(b"no init", first) == 0
