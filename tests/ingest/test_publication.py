"""What a plug-in's publication makes of units: numbers, wallclock, and an end."""

from collections.abc import Sequence

import msgspec
import pytest
from structlog.testing import capture_logs

from edged.ingest.plugin import Publication
from edged.media.access_unit import AccessUnit
from edged.media.stream import Grant, StreamId
from edged.media.track import Codec, Track
from edged.runtime.hub import FencedError, Hub, LiveStream
from tests.wire.rtmp.peers import AAC, H264, h264_unit, unit

START_US = 1_700_000_000_000_000


class Wall:
    def __init__(self) -> None:
        self.now_us = START_US

    def __call__(self) -> int:
        return self.now_us


class Setting:
    """A hub and a publication in it."""

    def __init__(self, channel: str = "alice") -> None:
        self.hub = Hub()
        self.wall = Wall()
        self.closed: list[str] = []
        self.publication = self.publish(1, channel)

    def publish(self, number: int, channel: str = "alice") -> Publication:
        stream = self.hub.open(
            StreamId(channel, number), Grant(channel=channel), started_at=0.0, came_from="test"
        )
        publication = Publication(stream, wallclock_us=self.wall, close=self.close)
        publication.set_track(H264)
        publication.set_track(AAC)
        return publication

    def close(self, publication: Publication, reason: str, may_return: bool) -> None:
        self.closed.append(reason + (", for now" if may_return else ""))
        self.hub.close(publication.stream, reason)

    def units(self) -> list[AccessUnit]:
        ring = self.publication.stream.ring
        return ring.reader(start=ring.first_seq).read(1000, 2**30).units


def test_units_are_numbered_across_tracks_in_order_of_arrival() -> None:
    setting = Setting()
    setting.publication.append([h264_unit(0, key=True), unit(AAC, 0, b"a")])
    setting.publication.append([unit(AAC, 1024, b"b"), h264_unit(3000)])
    assert [(known.seq, known.track_id) for known in setting.units()] == [
        (0, 1),
        (1, 2),
        (2, 2),
        (3, 1),
    ]


def test_codecs_that_change_without_end_fill_no_log() -> None:
    setting = Setting()
    hevc = msgspec.structs.replace(
        H264, config=msgspec.structs.replace(H264.config, codec_string="hvc1"), codec=Codec.H265
    )
    with capture_logs() as logs:
        for number in range(100):
            setting.publication.set_track(hevc if number % 2 else H264)
    (line,) = logs
    assert line["event"].startswith("codec changes: viewers pass a discontinuity")
    assert (line["before"], line["after"], line["changes"]) == (H264.config.codec_string, "hvc1", 1)


def test_wallclock_follows_the_media_not_the_arrival() -> None:
    setting = Setting()
    setting.publication.append([h264_unit(90_000, key=True)])
    setting.wall.now_us += 5_000_000  # The network stood still; the media did not.
    setting.publication.append([unit(AAC, 48_000 + 24_000, b"a"), h264_unit(93_000, pts=96_000)])
    assert [known.wallclock_us - START_US for known in setting.units()] == [0, 500_000, 66_667]


def test_wallclock_is_anchored_anew_at_a_discontinuity_only() -> None:
    setting = Setting()
    setting.publication.append([h264_unit(0, key=True)])
    setting.wall.now_us += 7_000_000
    jumped = h264_unit(900_000_000, key=True)
    jumped.discontinuity = True
    setting.publication.append([jumped, h264_unit(900_003_000)])
    assert [known.wallclock_us - START_US for known in setting.units()] == [
        0,
        7_000_000,
        7_033_333,
    ]


def test_a_jump_of_all_tracks_costs_the_ring_nothing() -> None:
    """One late unit of the old timeline once emptied it of the new one's key frame."""
    setting = Setting()
    setting.publication.append([h264_unit(0, key=True), h264_unit(3000), unit(AAC, 0, b"a")])
    setting.wall.now_us += 1_000_000
    jumped = h264_unit(3600 * 90_000, key=True)
    jumped.discontinuity = True
    old = unit(AAC, 48_000, b"b")
    followed = unit(AAC, 3600 * 48_000 - 14_400, b"c")
    followed.discontinuity = True
    setting.publication.append([jumped, old, followed, h264_unit(3600 * 90_000 + 3000)])
    assert [known.wallclock_us - START_US for known in setting.units()] == [
        *(0, 33_333, 0),
        *(1_000_000, 1_000_000, 700_000, 1_033_333),
    ]
    assert setting.publication.stream.ring.gapless


def test_readers_are_woken_once_per_batch() -> None:
    setting = Setting()
    wakes: list[int] = []
    stream = setting.publication.stream
    stream.watch(lambda live: wakes.append(live.ring.next_seq))
    setting.publication.append([h264_unit(0, key=True), h264_unit(3000), h264_unit(6000)])
    assert wakes == [3]


def test_after_its_end_a_publication_takes_nothing_and_says_so() -> None:
    setting = Setting()
    publication = setting.publication
    assert publication.ended is None
    publication.append([h264_unit(0, key=True)])
    setting.publish(2)  # Taken over.
    assert publication.ended == "taken over by a newer publication"
    publication.append([h264_unit(3000)])
    publication.set_track(H264)
    publication.end("closed by peer")
    assert setting.closed == ["closed by peer"]
    assert [known.seq for known in setting.units()] == [0]
    assert setting.hub.get("alice") is not publication.stream


class Judge:
    """A `Joins` that says what a test has it say."""

    def __init__(self) -> None:
        self.fits: bool | None = None
        self.done = False
        self.config_shifts: dict[int, int] = {}
        self.held: list[Track | AccessUnit] = []

    def add_track(self, track: Track) -> None:
        self.held.append(track)

    def add_units(self, units: Sequence[AccessUnit]) -> None:
        self.held += units

    def take(self) -> list[Track | AccessUnit]:
        held, self.held = self.held, []
        return held


class Joined(Setting):
    """A second publisher that is to go on with the first one's stream."""

    def __init__(self) -> None:
        super().__init__()
        self.publication.append([h264_unit(0, key=True)])
        self.judge = Judge()
        self.settled: list[bool] = []
        self.own: LiveStream | None = None
        self.joining = Publication(
            self.publication.stream,
            wallclock_us=self.wall,
            close=self.close,
            joins=self.judge,
            settle=self.settle,
        )
        self.publication.over = "taken over"

    def settle(self, publication: Publication, fits: bool) -> LiveStream:
        assert publication is self.joining
        self.settled.append(fits)
        return publication.stream if self.own is None else self.own


def test_who_joins_is_held_until_it_fits_and_goes_on_in_the_stream() -> None:
    setting = Joined()
    joining, judge = setting.joining, setting.judge
    setting.wall.now_us += 5_000_000
    joining.set_track(H264)
    joining.append([h264_unit(90_000, key=True)])
    assert (len(setting.units()), setting.settled) == (1, [])
    setting.publication.append([h264_unit(3000)])  # Nothing is taken of the older any more.
    assert setting.publication.ended == "taken over"
    judge.fits, judge.done, judge.config_shifts = True, True, {1: 3, 2: 0}
    joining.append([h264_unit(93_000)])
    joining.append([h264_unit(96_000), unit(AAC, 0, b"a")])
    joining.set_track(H264)
    assert setting.settled == [True]
    went = setting.units()
    assert [(u.seq, u.dts, u.config_id) for u in went] == [
        (0, 0, 0), (1, 90_000, 0), (2, 93_000, 0), (3, 96_000, 3), (4, 0, 0),
    ]  # fmt: skip
    assert went[1].wallclock_us == START_US + 5_000_000  # Of when it came.
    assert joining.stream.tracks[1].config_id == 3
    joining.lose("closed by peer")
    assert setting.closed == ["closed by peer, for now"]


def test_who_does_not_fit_goes_on_in_a_stream_of_its_own() -> None:
    setting = Joined()
    setting.own = LiveStream(
        StreamId("alice", 9), Grant(channel="alice"), started_at=0.0, came_from="test"
    )
    setting.joining.set_track(H264)
    setting.judge.fits = False
    setting.joining.append([h264_unit(90_000, key=True)])
    setting.joining.append([h264_unit(93_000)])
    assert setting.settled == [False]
    assert setting.joining.stream is setting.own
    assert setting.own.ring.next_seq == 2
    assert len(setting.units()) == 1


def test_who_does_not_fit_and_finds_no_place_is_over() -> None:
    setting = Joined()
    setting.own = LiveStream(
        StreamId("alice", 9), Grant(channel="alice"), started_at=0.0, came_from="test"
    )
    setting.own.end("no origin takes it")
    setting.judge.fits = False
    setting.joining.set_track(H264)
    setting.joining.append([h264_unit(90_000, key=True)])
    assert setting.joining.ended == "no origin takes it"
    assert setting.own.ring.next_seq == 0


def test_an_older_publication_cannot_come_back() -> None:
    setting = Setting()
    with pytest.raises(FencedError, match="is not newer than"):
        setting.publish(1)


def test_the_grant_is_the_stream_s() -> None:
    assert Setting().publication.grant == Grant(channel="alice")


def test_jumps_are_noted_with_their_size() -> None:
    setting = Setting()
    setting.publication.append([h264_unit(0, key=True), unit(AAC, 0, b"a")])
    jumped, back = h264_unit(900_000, key=True), h264_unit(3000, key=True)
    jumped.discontinuity = back.discontinuity = True
    setting.publication.append([jumped, h264_unit(903_000), unit(AAC, 1024, b"b"), back])
    statistics = setting.publication.stream.track_statistics
    assert statistics[H264.track_id].jumps == 2
    assert statistics[H264.track_id].jump_ticks == 3000 - 903_000  # From the unit before it.
    assert statistics[AAC.track_id].jumps == 0
    setting.publication.append([h264_unit(6000)])
    first = h264_unit(90_000, key=True)
    first.discontinuity = True
    setting.publication.append([first])
    assert statistics[H264.track_id].jump_ticks == 90_000 - 6000  # From the last batch's last.
