"""The hub: one live publication per channel, readers woken once per batch, older ones fenced."""

import pytest
from structlog.testing import capture_logs

from edged.errors import EdgedError
from edged.media.access_unit import AccessUnit
from edged.media.stream import Grant, StreamId
from edged.media.track import Codec, CodecConfig, Track
from edged.runtime import hub as hub_module
from edged.runtime.hub import FencedError, Hub, LiveStream

CONFIG = CodecConfig(codec=Codec.H264, record=b"avcC", codec_string="avc1.64001f")
GRANT = Grant(channel="demo")


def make_track(track_id: int = 0, config_id: int = 0) -> Track:
    return Track(
        track_id=track_id, codec=Codec.H264, timescale=90000, config=CONFIG, config_id=config_id
    )


def unit(seq: int, *, random_access: bool = False) -> AccessUnit:
    return AccessUnit(
        track_id=0,
        seq=seq,
        config_id=0,
        pts=seq * 3000,
        dts=seq * 3000,
        wallclock_us=1_000_000 + seq * 33_333,
        payload=b"x" * 10,
        random_access=random_access,
    )


def open_stream(hub: Hub, publication: int = 1, home_epoch: int = 1) -> LiveStream:
    stream = hub.open(
        StreamId("demo", publication, home_epoch), GRANT, started_at=0.0, came_from="rtmp test"
    )
    stream.set_track(make_track())
    return stream


def test_readers_are_woken_once_per_batch() -> None:
    hub = Hub()
    stream = open_stream(hub)
    wakes: list[int] = []
    unwatch = stream.watch(lambda live: wakes.append(live.ring.next_seq))
    stream.append([unit(0, random_access=True), unit(1), unit(2)])
    assert wakes == [3]
    unwatch()
    stream.append([unit(3)])
    assert wakes == [3]


def test_a_reader_may_leave_while_being_woken() -> None:
    stream = open_stream(Hub())
    woken: list[str] = []

    def first(_: LiveStream) -> None:
        woken.append("first")
        unwatch_second()

    stream.watch(first)
    unwatch_second = stream.watch(lambda _: woken.append("second"))
    stream.append([unit(0, random_access=True)])
    stream.append([unit(1)])
    assert woken == ["first", "second", "first"]


def test_a_reader_that_fails_is_woken_no_more_and_harms_nobody() -> None:
    stream = open_stream(Hub())
    woken: list[str] = []

    def broken(_: LiveStream) -> None:
        woken.append("broken")
        raise KeyError("bug")

    stream.watch(broken)
    stream.watch(lambda _: woken.append("sound"))
    with capture_logs() as logs:
        stream.append([unit(0, random_access=True)])
        stream.append([unit(1)])
    assert woken == ["broken", "sound", "sound"]
    (line,) = logs
    assert (line["event"], line["channel"], line["exc_info"]) == ("reader failed", "demo", True)


def test_a_newer_publication_ends_the_older() -> None:
    hub = Hub()
    old = open_stream(hub, publication=1)
    new = open_stream(hub, publication=2)
    assert old.ended == "taken over by a newer publication"
    assert hub.get("demo") is new
    hub.close(old, "left")
    assert hub.get("demo") is new
    assert len(hub) == 1


@pytest.mark.parametrize(("publication", "home_epoch"), [(2, 2), (2, 1), (1, 9)])
def test_what_is_not_newer_is_fenced(publication: int, home_epoch: int) -> None:
    hub = Hub()
    live = open_stream(hub, publication=2, home_epoch=2)
    with pytest.raises(FencedError, match="fenced: channel 'demo' publication"):
        open_stream(hub, publication, home_epoch)
    assert live.ended is None


def test_a_higher_epoch_of_the_same_publication_goes_on() -> None:
    hub = Hub()
    open_stream(hub, publication=2, home_epoch=1)
    assert open_stream(hub, publication=2, home_epoch=2).ended is None


def test_the_end_is_told_once_with_its_first_reason() -> None:
    hub = Hub()
    stream = open_stream(hub)
    wakes: list[str | None] = []
    stream.watch(lambda live: wakes.append(live.ended))
    hub.close(stream, "closed by peer")
    hub.close(stream, "again")
    assert wakes == ["closed by peer"]
    assert hub.get("demo") is None
    assert list(hub) == []


def test_statistics_and_ring_bytes() -> None:
    hub = Hub()
    stream = open_stream(hub)
    stream.append([unit(seq, random_access=seq % 3 == 0) for seq in range(7)])
    statistics = stream.track_statistics[0]
    assert (statistics.units, statistics.payload_bytes) == (7, 70)
    assert (statistics.random_accesses, statistics.gop_us) == (3, 99_999)
    assert hub.ring_bytes == 70


def test_configurations_are_kept_for_readers_behind() -> None:
    stream = open_stream(Hub())
    other = CodecConfig(codec=Codec.H264, record=b"other", codec_string="avc1.42001e")
    stream.set_track(
        Track(track_id=0, codec=Codec.H264, timescale=90000, config=other, config_id=1)
    )
    assert stream.config(0, 0) == CONFIG
    assert stream.config(0, 1) == other
    assert stream.config(0, 2) is None


def test_configurations_are_bounded() -> None:
    stream = open_stream(Hub())
    for config_id in range(hub_module.CONFIGS_MAX + 1):
        stream.set_track(make_track(config_id=config_id))
    assert stream.config(0, 0) is None
    assert stream.config(0, hub_module.CONFIGS_MAX) == CONFIG


def test_tracks_at_the_limit_and_one_past_it() -> None:
    stream = open_stream(Hub())
    for track_id in range(hub_module.TRACKS_MAX):
        stream.set_track(make_track(track_id))
    with pytest.raises(EdgedError, match="more than 16 tracks"):
        stream.set_track(make_track(hub_module.TRACKS_MAX))


def test_units_are_counted_beyond_the_publications_that_brought_them() -> None:
    hub = Hub()
    first = open_stream(hub, publication=1)
    first.append([unit(0, random_access=True), unit(1)])
    second = open_stream(hub, publication=2)
    second.append([unit(0, random_access=True)])
    hub.close(first, "closed by peer")
    assert hub.units_total == 3
    hub.close(second, "closed by peer")
    hub.close(second, "again")
    assert hub.units_total == 3


def test_the_time_without_a_publisher_is_no_gop() -> None:
    stream = open_stream(Hub())
    for seq, at_s, discontinuity in ((0, 1, False), (1, 3, False), (2, 20, True), (3, 21, False)):
        key = unit(seq, random_access=True)
        key.wallclock_us, key.discontinuity = at_s * 1_000_000, discontinuity
        stream.append([key])
        gop_us = stream.track_statistics[0].gop_us
        assert gop_us == {0: 0, 1: 2_000_000, 2: 2_000_000, 3: 1_000_000}[seq]


def test_jumps_are_counted_with_the_last_one_s_size() -> None:
    stream = open_stream(Hub())
    stream.note_jump(0, 900_000)
    stream.note_jump(0, -45_000)
    statistics = stream.track_statistics[0]
    assert (statistics.jumps, statistics.jump_ticks) == (2, -45_000)
    stream.note_splice(0)
    assert (statistics.jumps, statistics.splices) == (2, 1)
