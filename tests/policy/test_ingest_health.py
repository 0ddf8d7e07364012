import hypothesis
import msgspec
import pytest
from hypothesis import strategies as st

from edged.media.stream import PriorityClass
from edged.media.track import Kind
from edged.policy.health_rules import HealthLimits
from edged.policy.ingest_health import (
    CODES,
    SAMPLES_MAX,
    HealthReport,
    IngestHealthConfig,
    StreamHealth,
    TrackSample,
    WarningRaised,
)
from tests.policy.health_feed import UNIX_MS, Feed, cleared, make_feed, raised


def warnings(feed: Feed) -> list[str]:
    return [warning.code for warning in feed.report().warnings]


@hypothesis.settings(max_examples=30)
@hypothesis.given(
    st.sampled_from([24.0, 25.0, 30000 / 1001, 30.0, 50.0, 60.0]),
    st.floats(0.5, 3.9),
    st.tuples(st.booleans(), st.booleans()),
    st.lists(st.floats(0.9, 1.4), min_size=60, max_size=60),
    st.floats(0.0, 0.25),
)
def test_a_good_stream_is_warned_of_nothing(
    fps: float, gop_s: float, has: tuple[bool, bool], ticks: list[float], skew: float
) -> None:
    announced, has_audio = has
    feed = make_feed(
        fps=fps, announced_fps=fps if announced else 0.0, gop_s=gop_s, has_audio=has_audio,
        audio_ahead_s=skew,
    )  # fmt: skip
    for tick_s in ticks:
        assert feed.tick(tick_s) == []
    report = feed.report()
    assert report.warnings == ()
    assert report.fps == pytest.approx(fps, rel=0.02)
    assert report.fps_expected == pytest.approx(fps, rel=0.02)
    assert report.gop_s == pytest.approx(gop_s, abs=1 / fps + 0.01)
    assert report.jitter_ms is not None
    assert report.jitter_ms < 50
    assert report.jumps == 0


def test_what_a_report_says() -> None:
    feed = make_feed(audio_ahead_s=0.2)
    assert feed.report().warnings == ()
    feed.run(70)
    report = feed.report()
    assert report.channel == "alice"
    assert report.publication == "1f"
    assert report.at_ms == UNIX_MS + 70_000
    assert report.fps == pytest.approx(30, abs=0.1)
    assert report.bitrate_bps == pytest.approx(6e6 + 427 * 8 * 48000 / 1024, rel=0.02)
    assert report.bitrate_60s_bps == pytest.approx(report.bitrate_bps, rel=0.02)
    assert report.gop_s == pytest.approx(2.0, abs=0.05)
    assert report.av_skew_ms == pytest.approx(200, abs=50)
    assert msgspec.json.decode(msgspec.json.encode(report), type=HealthReport) == report


def test_keyframes_too_far_apart_and_right_again() -> None:
    feed = make_feed(gop_s=8.3)
    changes = feed.run(21)
    assert raised(changes) == ["keyframe_interval"]
    (warning,) = feed.report().warnings
    assert warning.text.startswith("Keyframes come every 8.3 s; set the keyframe interval to 2 s")
    assert warning.value == pytest.approx(8.3, abs=0.05)
    assert warning.limit == 4.0
    assert UNIX_MS + 4_000 < warning.since_ms <= UNIX_MS + 7_000  # Before the GOP was over.
    feed.gop_s = 2.0
    changes = feed.run(25)
    assert cleared(changes) == ["keyframe_interval"]
    assert raised(changes) == []


def test_keyframes_that_never_come() -> None:
    feed = make_feed(gop_s=1e9)
    changes = feed.run(40)
    assert raised(changes) == ["keyframe_interval", "keyframes_missing"]
    assert feed.report().gop_s == pytest.approx(39, abs=2)
    assert feed.report().warnings[1].severity == "critical"
    feed.gop_s = 2.0
    changes = feed.run(30)
    assert set(cleared(changes)) == {"keyframe_interval", "keyframes_missing"}


def test_a_variable_frame_rate_and_a_constant_one_again() -> None:
    feed = make_feed(unevenness=0.28)
    assert raised(feed.run(30)) == []
    feed.unevenness = 0.4
    assert raised(feed.run(9)) == []
    assert raised(feed.run(5)) == ["fps_uneven"]
    (warning,) = feed.report().warnings
    assert warning.text.startswith(
        "The frame rate is not constant: it varies by 40% from picture to picture."
    )
    assert "Set a constant one (CFR)" in warning.text
    assert warning.limit == 0.3
    feed.unevenness = 0.2
    assert cleared(feed.run(40)) == [], "between the limits nothing changes"
    feed.unevenness = 0.05
    assert cleared(feed.run(18)) == []
    assert cleared(feed.run(6)) == ["fps_uneven"]


def test_a_jump_makes_no_frame_rate_variable() -> None:
    feed = make_feed()
    feed.run(20)
    assert feed.video is not None
    feed.jump(5.0)
    feed.video.uneven_ticks += 10 * 90_000
    assert "fps_uneven" not in raised(feed.run(30))


def test_irregular_keyframes() -> None:
    feed = make_feed()
    changes = []
    for number in range(20):
        feed.gop_s = 1.2 if number % 2 else 3.0
        changes += feed.run(feed.gop_s)
    assert raised(changes) == ["keyframes_irregular"]
    (warning,) = feed.report().warnings
    assert warning.severity == "info"
    feed.gop_s = 2.0
    assert cleared(feed.run(40)) == ["keyframes_irregular"]


def test_a_bitrate_that_drops() -> None:
    feed = make_feed()
    assert feed.run(60) == []
    feed.video_bps = 2e6
    changes = feed.run(10)
    assert raised(changes) == ["bitrate_dropped"]
    (warning,) = feed.report().warnings
    assert "has dropped to 2." in warning.text
    feed.video_bps = 6e6
    assert cleared(feed.run(20)) == ["bitrate_dropped"]


def test_a_short_dip_of_the_bitrate_is_none_of_our_business() -> None:
    feed = make_feed()
    feed.run(60)
    feed.video_bps = 1e6
    changes = feed.run(2)
    feed.video_bps = 6e6
    assert changes + feed.run(20) == []


def test_a_lower_bitrate_that_stays_becomes_the_usual() -> None:
    feed = make_feed()
    feed.run(60)
    feed.video_bps = 2e6
    changes = feed.run(120)
    assert (raised(changes), cleared(changes)) == (["bitrate_dropped"], ["bitrate_dropped"])


@pytest.mark.parametrize("announced", [30.0, 0.0])
def test_pictures_that_are_left_out(announced: float) -> None:
    feed = make_feed(announced_fps=announced)
    assert feed.run(60) == []
    feed.fps = 20.0
    changes = feed.run(10)
    assert raised(changes) == ["fps_low"]
    (warning,) = feed.report().warnings
    assert warning.text.startswith("Pictures come at 20.0 per second instead of ")
    assert ("instead of 30:" in warning.text) == bool(announced)
    feed.fps = 30.0
    assert cleared(feed.run(30)) == ["fps_low"]


def test_a_network_that_stalls_and_catches_up_leaves_no_picture_out() -> None:
    feed = make_feed()
    feed.run(30)
    changes = []
    for _ in range(10):
        feed.late_s = 2.0
        changes += feed.run(2)
        feed.late_s = 0.0
        changes += feed.run(2)
    assert raised(changes) == ["jitter"]
    assert feed.report().jitter_ms == pytest.approx(2000, abs=100)
    assert "up to 1967 ms late" in feed.report().warnings[0].text
    assert cleared(feed.run(30)) == ["jitter"]


@pytest.mark.parametrize("seconds", [3600.0, -40.0])
def test_a_jump_is_told_for_a_minute(seconds: float) -> None:
    feed = make_feed()
    feed.run(30)
    feed.jump(seconds)
    changes = feed.run(10)
    assert raised(changes) == ["timestamps_jump"]
    report = feed.report()
    assert report.jumps == 2  # On both tracks.
    (warning,) = report.warnings
    way = "forward" if seconds > 0 else "back"
    assert f"jumped {abs(seconds):.1f} s {way}" in warning.text
    assert warning.value == seconds
    changes = feed.run(80)
    assert (raised(changes), cleared(changes)) == ([], ["timestamps_jump"])
    assert feed.report().fps == pytest.approx(30, abs=0.2)


def test_a_publisher_that_goes_on_with_a_run_has_jumped_nowhere() -> None:
    feed = make_feed()
    feed.run(30)
    feed.splice(-25.0)
    assert feed.run(60) == []
    assert feed.report().jumps == 0
    assert feed.report().fps == pytest.approx(30, abs=0.2)


@pytest.mark.parametrize(("ahead_s", "first"), [(0.8, "audio"), (-0.8, "video")])
def test_sound_and_picture_apart(ahead_s: float, first: str) -> None:
    feed = make_feed()
    feed.run(20)
    feed.audio_ahead_s = ahead_s
    assert raised(feed.run(12)) == ["av_skew"]
    report = feed.report()
    assert report.av_skew_ms == pytest.approx(ahead_s * 1000, abs=50)
    assert f"the {first} is ahead" in report.warnings[0].text
    feed.audio_ahead_s = 0.1
    assert cleared(feed.run(20)) == ["av_skew"]


@pytest.mark.parametrize(
    ("which", "code"), [("audio_goes_on", "audio_stopped"), ("video_goes_on", "video_stopped")]
)
def test_a_track_that_stops(which: str, code: str) -> None:
    feed = make_feed(video_bps=1e5)
    feed.run(20)
    setattr(feed, which, False)
    changes = feed.run(10)
    assert raised(changes)[0] == code
    assert set(raised(changes)) <= {code, "bitrate_dropped"}
    setattr(feed, which, True)
    changes = feed.run(30)
    assert code in cleared(changes)
    assert warnings(feed) == []


def test_an_announced_track_that_never_comes() -> None:
    feed = make_feed(audio_goes_on=False)
    assert raised(feed.run(10)) == ["audio_stopped"]


def test_when_nothing_comes_no_track_is_to_blame() -> None:
    feed = make_feed()
    feed.run(20)
    feed.audio_goes_on = feed.video_goes_on = False
    changes = feed.run(10)
    assert "stalled" in raised(changes)
    assert not {"audio_stopped", "video_stopped"} & set(raised(changes))
    feed.audio_goes_on = feed.video_goes_on = True
    assert "stalled" in cleared(feed.run(30))
    assert warnings(feed) == []


def test_a_bitrate_above_what_the_class_may_have() -> None:
    config = IngestHealthConfig(basic_mbps_max=5.0, partner_mbps_max=20.0)
    assert config.limits(PriorityClass.PARTNER).bitrate_bps_max == 20e6
    assert config.limits(PriorityClass.AFFILIATE).bitrate_bps_max == 0
    feed = make_feed(config.limits(PriorityClass.BASIC))
    assert raised(feed.run(30)) == ["bitrate_high"]
    assert "6.16 Mbps, more than the 5.00" in feed.report().warnings[0].text
    assert make_feed(config.limits(PriorityClass.PARTNER)).run(30) == []


def test_time_in_which_we_slept_counts_against_nobody() -> None:
    feed = make_feed()
    feed.run(30)
    feed.late_s = 6.0  # What has come meanwhile is not read yet.
    changes = feed.tick(6.0, slept=True)
    feed.late_s = 0.0
    assert changes + feed.run(30) == []
    assert feed.report().jitter_ms == pytest.approx(0, abs=50)


def test_only_audio() -> None:
    health = StreamHealth(HealthLimits())
    for second in range(30):
        sample = TrackSample(
            2, Kind.AUDIO, 48_000, second * 47, second * 20_000, 0, 0, second * 48_000, 0, 0
        )
        assert health.tick([sample], float(second), second * 1000) == []
    report = health.report("alice", "1f")
    assert (report.fps, report.gop_s, report.av_skew_ms) == (None, None, None)
    assert report.bitrate_bps == 160_000


def test_without_tracks_there_is_nothing_to_say() -> None:
    health = StreamHealth(HealthLimits())
    for second in range(30):
        assert health.tick([], float(second), 0) == []
    data = TrackSample(3, Kind.DATA, 1000, 1, 1, 0, 0, 0, 0, 0)
    assert health.tick([data], 31.0, 0) == []


def test_what_it_keeps_is_bounded() -> None:
    feed = make_feed()
    feed.run(30, tick_s=0.01)
    assert len(feed.health._points) == SAMPLES_MAX
    feed.run(200)
    assert len(feed.health._points) <= 62


def test_two_ticks_at_once_make_no_infinite_rate() -> None:
    health = StreamHealth(HealthLimits())
    for at, size in ((0.0, 0), (5e-324, 1000)):
        sample = TrackSample(
            track_id=0,
            kind=Kind.VIDEO,
            timescale=1000,
            units=1,
            payload_bytes=size,
            random_accesses=1,
            gop_us=0,
            last_dts=0,
            jumps=0,
            jump_ticks=0,
            splices=0,
            frame_rate=30.0,
        )
        health.tick([sample], at, 0, slept=False)
    assert health.report("alice", "1f").bitrate_bps == 0


_counts = st.integers(-(2**40), 2**40)
_samples = st.builds(
    TrackSample,
    track_id=st.integers(0, 3),
    kind=st.sampled_from(Kind),
    timescale=st.sampled_from([1, 1000, 90_000]),
    units=_counts,
    payload_bytes=_counts,
    random_accesses=_counts,
    gop_us=_counts,
    last_dts=_counts,
    jumps=_counts,
    jump_ticks=_counts,
    splices=_counts,
    frame_rate=st.sampled_from([0.0, 30.0, 1e9]),
)


@hypothesis.given(
    st.lists(st.tuples(st.lists(_samples, max_size=4), st.floats(0, 100), st.booleans()))
)
def test_no_counters_are_too_strange(
    ticks: list[tuple[list[TrackSample], float, bool]],
) -> None:
    health, now = StreamHealth(HealthLimits(bitrate_bps_max=1.0)), 0.0
    is_raised = dict.fromkeys(CODES, False)
    for samples, pause, slept in ticks:
        now += pause
        for change in health.tick(samples, now, int(now * 1000), slept=slept):
            code = change.warning.code if isinstance(change, WarningRaised) else change.code
            assert is_raised[code] != isinstance(change, WarningRaised)
            is_raised[code] = not is_raised[code]
        report = health.report("alice", "1f")
        assert [warning.code for warning in report.warnings] == [
            code for code in CODES if is_raised[code]
        ]
        msgspec.json.encode(report)
