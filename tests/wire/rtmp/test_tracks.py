import contextlib
import itertools

import hypothesis
import msgspec
import pytest
from hypothesis import strategies as st

from edged.errors import RemoteProtocolError, UnsupportedMediaError
from edged.media import aac, h264, opus
from edged.media.access_unit import AccessUnit
from edged.media.track import Codec, Track
from edged.wire.rtmp import amf0, flv
from edged.wire.rtmp import messages as m
from edged.wire.rtmp.events import (
    DataReceived,
    ServerEvent,
    TrackAnnounced,
    UnitsUnusable,
)
from edged.wire.rtmp.limits import RtmpLimits
from edged.wire.rtmp.messages import Message
from edged.wire.rtmp.tracks import TIME_MS_MAX, TrackAssembler
from tests.wire.rtmp.peers import AAC, H264, OPUS, OPUS_20_MS, PPS, SPS, h264_unit

Values = dict[str, amf0.AmfValue]
AVCC = h264.make_record([SPS], [PPS])
# One without VUI timing.
SPS_UNTIMED = bytes.fromhex("6742000af84f2e02d4040413c2")


class Feed:
    """A TrackAssembler and the bodies to give it."""

    def __init__(self, limits: RtmpLimits | None = None) -> None:
        self.assembler = TrackAssembler(limits if limits is not None else RtmpLimits())

    def video(self, timestamp: int, body: bytes) -> list[ServerEvent]:
        events: list[ServerEvent] = []
        message = Message(m.VIDEO, timestamp & 0xFFFFFFFF, 1, body)
        self.assembler.receive_video(message, events)
        return events

    def audio(self, timestamp: int, body: bytes) -> list[ServerEvent]:
        events: list[ServerEvent] = []
        message = Message(m.AUDIO, timestamp & 0xFFFFFFFF, 1, body)
        self.assembler.receive_audio(message, events)
        return events

    def track(self, events: list[ServerEvent]) -> Track:
        (event,) = events
        assert isinstance(event, TrackAnnounced)
        return event.track

    def h264(self, record: bytes = AVCC, track: int = 0) -> Track:
        return self.track(self.video(0, flv.make_config(Codec.H264, record, track)))

    def aac(self, config: bytes = b"") -> Track:
        record = config or aac.make_config(48_000, 2)
        return self.track(self.audio(0, flv.make_config(Codec.AAC, record)))

    def opus(self) -> Track:
        head = opus.head_from_dops(OPUS.config.record)
        return self.track(self.audio(0, flv.make_config(Codec.OPUS, head)))

    def frame(
        self, ms: int, composition_ms: int = 0, *, key: bool = False, nano: int = 0, track: int = 0
    ) -> AccessUnit:
        payload = h264_unit(0, key=key).payload
        body = flv.make_frames(
            Codec.H264,
            payload,
            key=key,
            composition_ms=composition_ms,
            nano=nano,
            track=track,
        )
        return only_unit(self.video(ms, body))

    def sound(self, ms: int, codec: Codec = Codec.AAC, payload: bytes = b"aac") -> AccessUnit:
        return only_unit(self.audio(ms, flv.make_frames(codec, payload, key=True)))


def only_unit(events: list[ServerEvent]) -> AccessUnit:
    (event,) = events
    assert isinstance(event, AccessUnit)
    return event


def test_a_legacy_h264_track() -> None:
    feed = Feed()
    track = feed.h264()
    assert (track.track_id, track.codec, track.timescale, track.config_id) == (
        1,
        Codec.H264,
        90_000,
        0,
    )
    assert (track.config.width, track.config.height) == (128, 72)
    assert track.config.record == AVCC
    unit = feed.frame(1000, 66, key=True)
    assert (unit.track_id, unit.seq, unit.config_id, unit.wallclock_us) == (1, 0, 0, 0)
    assert (unit.dts, unit.pts) == (90_000, 96_000)  # 66 ms are two frames.
    assert unit.random_access
    assert not unit.discontinuity
    assert unit.payload == h264_unit(0, key=True).payload


def test_a_key_frame_in_name_only_is_no_random_access() -> None:
    feed = Feed()
    feed.h264()
    body = flv.make_frames(Codec.H264, h264_unit(0, key=False).payload, key=True)
    assert not only_unit(feed.video(0, body)).random_access


@pytest.mark.parametrize("rounding", [0, 500, 999])
def test_milliseconds_become_exact_times(rounding: int) -> None:
    """Of an hour and more of 30 frames a second and AAC at 44.1 kHz, however it is rounded."""
    feed = Feed()
    feed.h264()
    feed.aac(aac.make_config(44_100, 2))
    first_video = feed.frame(0, key=True).dts
    first_audio = feed.sound(0).dts
    for index in (1, 2, 3, *range(4, 110_000, 290)):
        ms = (index * 1_000_000 // 30 + rounding) // 1000
        unit = feed.frame(ms, 66)
        assert unit.dts - first_video == index * 3000
        assert unit.pts - unit.dts == 6000
        ms = (index * 1024 * 1_000_000 // 44_100 + rounding) // 1000
        assert feed.sound(ms).dts - first_audio == index * 1024


def test_times_go_on_through_the_wrap_of_32_bits() -> None:
    """After 49.7 days, in one unbroken line; audio and video may cross it in any order."""
    feed = Feed()
    feed.h264()
    feed.aac()
    wrap = 2**32
    dts = [feed.frame(ms).dts for ms in (wrap - 67, wrap - 33)]
    sounds = [feed.sound(wrap - 20).dts, feed.sound(wrap + 1).dts]
    dts += [feed.frame(ms).dts for ms in (wrap, wrap + 33)]
    assert [b - a for a, b in itertools.pairwise(dts)] == [3000, 3000, 3000]
    assert sounds[1] - sounds[0] == 1024
    assert dts[2] // 90 == pytest.approx(wrap, abs=2)


def test_times_go_on_through_4_h_39_m() -> None:
    feed = Feed()
    feed.h264()
    dts = [feed.frame(0xFFFFFF + ms).dts for ms in (-34, 0, 33, 66)]
    assert [b - a for a, b in itertools.pairwise(dts)] == [3000, 3000, 3000]


def test_jitter_is_evened_out_and_dts_rises() -> None:
    feed = Feed()
    feed.h264(h264.make_record([SPS_UNTIMED], [PPS]))
    units = [feed.frame(ms) for ms in (1000, 1033, 1020, 1033, 40, 41)]
    times = [unit.dts for unit in units]
    assert times[:4] == [90_000, 92_970, 92_971, 92_972]
    assert not any(unit.discontinuity for unit in units)
    assert times == sorted(set(times))


@pytest.mark.parametrize(("step_ms", "begins_anew"), [(-1000, False), (-1001, True)])
def test_steps_back_at_the_limit_and_one_past_it(step_ms: int, begins_anew: bool) -> None:
    feed = Feed()
    feed.h264()
    before = feed.frame(5000)
    unit = feed.frame(5000 + step_ms)
    assert unit.discontinuity == begins_anew
    assert (unit.dts < before.dts) == begins_anew


@pytest.mark.parametrize(("step_ms", "begins_anew"), [(10_000, False), (10_001, True)])
def test_steps_ahead_at_the_limit_and_one_past_it(step_ms: int, begins_anew: bool) -> None:
    feed = Feed()
    feed.aac()
    feed.sound(5000)
    assert feed.sound(5000 + step_ms).discontinuity == begins_anew
    assert not feed.sound(5021 + step_ms).discontinuity


@pytest.mark.parametrize("direction", [1, -1])
def test_jumps_at_the_limit_of_time_and_past_it(direction: int) -> None:
    feed = Feed()
    feed.aac()
    jump = direction * (2**31 - 1)
    feed.assembler.state.unroller.value = direction * TIME_MS_MAX - jump
    feed.assembler.state.tracks[2].last_ms = 0
    assert feed.sound(direction * TIME_MS_MAX).discontinuity
    with pytest.raises(RemoteProtocolError, match=r"timestamps jumped on to -?\d+ ms"):
        feed.sound(direction * TIME_MS_MAX + jump)


def test_nanoseconds_are_added() -> None:
    feed = Feed()
    feed.h264(h264.make_record([SPS_UNTIMED], [PPS]))
    unit = feed.frame(33, 1, nano=333_333)
    assert unit.dts == 3000
    assert unit.pts == 3090


@pytest.mark.parametrize(
    ("framerate", "frame"),
    [(29.97, 3003), (30000 / 1001, 3003), (25.0, 3600), (12.5, 7200), (59.94, 1502)],
)
def test_the_metadata_frame_rate_serves_where_the_codec_has_none(
    framerate: float, frame: int
) -> None:
    feed = Feed()
    feed.assembler.set_frame_rate(framerate)
    feed.h264(h264.make_record([SPS_UNTIMED], [PPS]))
    feed.frame(0)
    assert feed.frame(frame // 90).dts == frame
    late = Feed()  # The same when the metadata comes after the configuration.
    late.h264(h264.make_record([SPS_UNTIMED], [PPS]))
    late.assembler.set_frame_rate(framerate)
    late.frame(0)
    assert late.frame(frame // 90).dts == frame


@pytest.mark.parametrize("framerate", [0.0, -1.0, 301.0, float("nan"), float("inf")])
def test_a_frame_rate_out_of_bounds_is_passed_over(framerate: float) -> None:
    feed = Feed()
    feed.assembler.set_frame_rate(framerate)
    assert feed.assembler.state.frame_rate_num == 0


def test_the_same_configuration_again_says_nothing_and_a_new_one_raises_config_id() -> None:
    feed = Feed()
    feed.h264()
    first = feed.frame(0)
    assert feed.video(10, flv.make_config(Codec.H264, AVCC)) == []
    other = h264.make_record([SPS, SPS], [PPS])
    assert feed.h264(other).config_id == 1
    unit = feed.frame(33)
    assert unit.config_id == 1
    assert unit.dts - first.dts == 3000, "the grid goes on"
    slower = feed.h264(h264.make_record([SPS_UNTIMED], [PPS]))
    assert slower.config_id == 2
    assert feed.frame(66).dts == 66 * 90


def test_a_track_may_change_its_codec_and_timescale() -> None:
    feed = Feed()
    feed.aac(aac.make_config(44_100, 2))
    before = feed.sound(1000)
    track = feed.opus()
    assert (track.codec, track.timescale, track.config_id) == (Codec.OPUS, 48_000, 1)
    after = feed.sound(1020, Codec.OPUS, OPUS_20_MS)
    assert after.dts / 48_000 - before.dts / 44_100 == pytest.approx(0.020, abs=0.002)
    (told,) = feed.audio(1040, flv.make_frames(Codec.AAC, b"aac", key=True))
    assert isinstance(told, UnitsUnusable)


def test_opus_packets_of_changing_duration() -> None:
    feed = Feed()
    feed.opus()
    ten_ms = b"\xf4"  # CELT, 10 ms.
    times = [
        feed.sound(0, Codec.OPUS, OPUS_20_MS).dts,
        feed.sound(20, Codec.OPUS, OPUS_20_MS).dts,
        feed.sound(41, Codec.OPUS, ten_ms).dts,
        feed.sound(50, Codec.OPUS, ten_ms).dts,
        feed.sound(61, Codec.OPUS, OPUS_20_MS).dts,
        feed.sound(80, Codec.OPUS, OPUS_20_MS).dts,
    ]
    assert times == [0, 960, 1920, 2400, 2880, 3840]


def test_short_nal_lengths_become_four_bytes() -> None:
    feed = Feed()
    short = AVCC[:4] + bytes([AVCC[4] & 0xFC | 1]) + AVCC[5:]
    track = feed.track(feed.video(0, flv.make_config(Codec.H264, short)))
    assert track.config.record == AVCC
    body = flv.make_frames(Codec.H264, b"\0\x03\x65ab\0\0\0\x01\x41", key=True)
    unit = only_unit(feed.video(0, body))
    assert unit.payload == b"\0\0\0\x03\x65ab\0\0\0\x01\x41"
    empty = flv.make_frames(Codec.H264, b"\0\0", key=True)
    assert feed.video(33, empty) == []


def test_nal_lengths_that_do_not_add_up_are_refused() -> None:
    feed = Feed()
    feed.h264()
    with pytest.raises(RemoteProtocolError):
        feed.video(0, flv.make_frames(Codec.H264, b"\0\0\0\x09abc", key=True))


def test_units_before_their_configuration_are_dropped_counted_and_told_of_once() -> None:
    feed = Feed()
    body = flv.make_frames(Codec.H264, h264_unit(0, key=True).payload, key=True)
    assert feed.video(0, body) == [
        UnitsUnusable(1, "h264 access unit on track 1 before its configuration")
    ]
    assert feed.video(33, body) == []
    feed.h264()
    assert only_unit(feed.video(66, body)).random_access
    other = flv.make_frames(Codec.H265, b"\0\0\0\x01x", key=True, enhanced=True)
    (told,) = feed.video(99, other)
    assert isinstance(told, UnitsUnusable), "it is of another codec than its configuration"
    assert feed.assembler.state.units_unusable == 3
    track = flv.make_frames(Codec.H264, b"\0\0\0\x01x", key=True, track=1)
    (told,) = feed.video(0, track)
    assert isinstance(told, UnitsUnusable)
    assert told.track_id == 3


def test_a_track_that_appears_later_is_announced_then() -> None:
    feed = Feed()
    feed.h264()
    assert feed.frame(0, key=True).track_id == 1
    late = feed.h264(track=7)
    assert (late.track_id, late.config_id) == (15, 0)
    assert feed.frame(33, track=7, key=True).track_id == 15
    assert feed.frame(66).track_id == 1


def test_a_track_named_twice_in_a_message_gives_two_units_in_order() -> None:
    feed = Feed()
    feed.h264(track=1)
    payload = h264_unit(0, key=False).payload
    one = bytes([1]) + (3 + len(payload)).to_bytes(3, "big") + b"\0\0\0" + payload
    body = bytes([0x80 | 0x20 | 6, 0x10 | 1]) + b"avc1" + one + one  # ManyTracks.
    first, second = feed.video(40, body)
    assert isinstance(first, AccessUnit)
    assert isinstance(second, AccessUnit)
    assert second.dts == first.dts + 1


def test_the_metadata_names_tracks_whether_it_comes_before_or_after() -> None:
    values: Values = {
        "audioTrackIdInfoMap": {
            "0": {"language": "en", "title": "English"},
            "1": {"language": "de"},
        }
    }
    feed = Feed()
    events: list[ServerEvent] = []
    feed.assembler.receive_metadata(values, events)
    assert events == []
    first = feed.aac()
    assert (first.language, first.name, first.config_id) == ("en", "English", 0)
    late = Feed()
    before = late.aac()
    assert (before.language, before.name) == ("und", "")
    late.assembler.receive_metadata(values, events)
    named = late.track(events)
    assert named == msgspec.structs.replace(first, config_id=1)
    events.clear()
    late.assembler.receive_metadata(values, events)
    assert events == [], "the same once more"
    assert late.sound(0).config_id == 1


def test_the_metadata_has_a_frame_rate_for_each_track() -> None:
    feed = Feed()
    values: Values = {
        "framerate": 60.0,
        "videoTrackIdInfoMap": {"1": {"framerate": 25.0}, "2": {"framerate": 9000.0}},
    }
    feed.assembler.receive_metadata(values, [])
    for track in range(3):
        feed.h264(h264.make_record([SPS_UNTIMED], [PPS]), track)
    grids = [feed.assembler.state.tracks[track_id].grid for track_id in (1, 3, 5)]
    assert [grid.frame_num / grid.frame_den for grid in grids if grid] == [1500, 3600, 1500]


def test_tracks_at_the_limit_and_one_past_it() -> None:
    feed = Feed(RtmpLimits(tracks_max=2))
    assert [feed.h264(track=track).track_id for track in (0, 5)] == [1, 11]
    with pytest.raises(RemoteProtocolError, match="track 2 is one more than 2"):
        feed.aac()
    assert feed.h264(h264.make_record([SPS_UNTIMED], [PPS])).config_id == 1


def test_what_holds_no_media_is_passed_over() -> None:
    feed = Feed()
    feed.h264()
    assert feed.video(0, b"") == []
    assert feed.video(0, b"\x17\x01\0\0\0") == []
    assert feed.video(0, b"\x17\x02\0\0\0") == []  # End of sequence.
    assert feed.audio(0, b"\x94Opus\x01\x02\0\0\0\x03") == []
    assert feed.video(0, b"\x94av01") == []


def test_colour_information_is_a_data_message() -> None:
    values: list[amf0.AmfValue] = ["colorInfo", {"colorConfig": {"bitDepth": 10.0}}]
    assert Feed().video(7, b"\x94hvc1" + amf0.encode(values)) == [
        DataReceived("colorInfo", values[1:], 7)
    ]


@hypothesis.given(
    st.lists(st.tuples(st.integers(0, 2**32 - 1), st.binary(max_size=24)), max_size=6),
    st.sampled_from([b"", b"\x17\x00\0\0\0", b"\x17\x01\0\0\0", b"\x27\x01\0\0\0", b"\x90hvc1"]),
    st.sampled_from([b"", b"\xaf\x00", b"\xaf\x01", b"\x90Opus", b"\x91Opus", b"\x91av01"]),
)
@hypothesis.settings(max_examples=80, deadline=None)
def test_garbage_raises_only_what_it_may(
    messages: list[tuple[int, bytes]], video: bytes, audio: bytes
) -> None:
    feed = Feed()
    feed.h264()
    feed.aac()
    for timestamp, body in messages:
        with contextlib.suppress(RemoteProtocolError, UnsupportedMediaError):
            feed.video(timestamp, video + body)
        with contextlib.suppress(RemoteProtocolError, UnsupportedMediaError):
            feed.audio(timestamp, audio + body)


@hypothesis.given(st.lists(st.tuples(st.integers(-2000, 12_000), st.integers(0, 200)), max_size=30))
@hypothesis.settings(max_examples=60, deadline=None)
def test_dts_rises_except_at_a_discontinuity(steps: list[tuple[int, int]]) -> None:
    feed = Feed()
    feed.h264()
    ms, last = 2**32 - 3000, None
    for step, composition_ms in steps:
        ms += step
        unit = feed.frame(ms, composition_ms)
        assert unit.pts >= unit.dts
        assert last is None or unit.discontinuity or unit.dts > last.dts
        last = unit


def test_constants_of_the_pair() -> None:
    assert (H264.track_id, AAC.track_id) == (1, 2)
