"""Ingest health over a hub: generated streams in, events and reports out."""

from collections.abc import Iterator

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from edged.ingest.plugin import Publication
from edged.media.access_unit import AccessUnit
from edged.media.events import HealthCleared, HealthWarned, StreamEvent
from edged.media.stream import Grant, PriorityClass, StreamId
from edged.media.track import formats_of
from edged.policy.ingest_health import CODES, TICK_S, IngestHealthConfig
from edged.policy.joining import Joining
from edged.roles.ingest_health import SLICE, SPECS, TICK_LATE_S_MAX, IngestHealth
from edged.runtime.event_stream import EventStream
from edged.runtime.hub import Hub
from edged.runtime.metrics import Metrics
from tests.origin.sources import X264, make_source
from tests.policy.synthetic import (
    RATES,
    audio_track,
    audio_units,
    in_order,
    video_times,
    video_track,
    video_units,
)

UNIX = 1_700_000_000.0
VIDEO, AUDIO = video_track(RATES["30"]), audio_track()
SCALES = {VIDEO.track_id: VIDEO.timescale, AUDIO.track_id: AUDIO.timescale}


def stream_units(
    seconds: float, *, gop_s: float = 2.0, payload_bytes: int = 25_000
) -> list[AccessUnit]:
    video = video_units(
        video_times(RATES["30"], seconds), gop_s, payload_bytes=payload_bytes, reorder=6000
    )
    return in_order((VIDEO.timescale, video), (AUDIO.timescale, audio_units(seconds)))


def shifted(unit: AccessUnit, seconds: float, *, discontinuity: bool = False) -> AccessUnit:
    ticks = round(seconds * SCALES[unit.track_id])
    return unit.replaced(pts=unit.pts + ticks, dts=unit.dts + ticks, discontinuity=discontinuity)


class Setting:
    """A PoP's hub, its health, and a clock of ours."""

    def __init__(self, config: IngestHealthConfig | None = None) -> None:
        self.now = 100.0
        self.hub = Hub()
        self.events: list[StreamEvent] = []
        self.health = IngestHealth(
            self.hub,
            config or IngestHealthConfig(),
            now=lambda: self.now,
            unix_now=lambda: UNIX + self.now,
            emit=self.events.append,
        )

    def publish(
        self, channel: str = "alice", priority: PriorityClass = PriorityClass.BASIC
    ) -> Publication:
        stream = self.hub.open(
            StreamId(channel, 31),
            Grant(channel=channel, priority=priority),
            started_at=self.now,
            came_from="test",
        )
        publication = Publication(
            stream,
            wallclock_us=lambda: int((UNIX + self.now) * 1e6),
            close=lambda known, reason, _: self.hub.close(known.stream, reason),
        )
        publication.set_track(VIDEO)
        publication.set_track(AUDIO)
        return publication

    def feed(self, publication: Publication, arriving: list[tuple[float, AccessUnit]]) -> None:
        """Append each unit at its time of arrival, and look once a second."""
        begun_at = self.now
        due = begun_at + TICK_S
        for at_s, unit in arriving:
            while begun_at + at_s > due:
                self.now = due
                self.health.tick()
                due += TICK_S
            self.now = begun_at + at_s
            publication.append([unit])

    def told(self) -> list[str]:
        return [
            f"{'+' if isinstance(event, HealthWarned) else '-'}{event.code}"
            for event in self.events
            if isinstance(event, HealthWarned | HealthCleared)
        ]


def timely(units: list[AccessUnit]) -> list[tuple[float, AccessUnit]]:
    return [(unit.dts / SCALES[unit.track_id], unit) for unit in units]


def test_a_good_stream() -> None:
    setting = Setting()
    publication = setting.publish()
    assert setting.health.health("alice") is None  # Nobody has looked yet.
    setting.feed(publication, timely(stream_units(30)))
    assert setting.told() == []
    report = setting.health.health("alice")
    assert report is not None
    assert report.publication == "1f"
    assert report.fps == pytest.approx(30, abs=0.01)
    assert report.fps_expected == 30
    assert report.gop_s == pytest.approx(2.0, abs=0.001)
    assert report.bitrate_bps == pytest.approx(25_000 * 8 * 30, rel=0.05)
    assert report.jitter_ms == pytest.approx(0, abs=40)
    assert report.av_skew_ms == pytest.approx(0, abs=40)
    assert (report.jumps, report.warnings) == (0, ())


def test_long_gops() -> None:
    setting = Setting()
    setting.feed(setting.publish(), timely(stream_units(20, gop_s=8.3)))
    assert setting.told() == ["+keyframe_interval"]
    (event,) = setting.events
    assert isinstance(event, HealthWarned)
    assert (event.channel, event.publication, event.severity) == ("alice", "1f", "warning")
    assert event.text.startswith("The last keyframe came 5.0 s ago; set")  # It had not ended.
    report = setting.health.health("alice")
    assert report is not None
    assert report.warnings[0].text.startswith("Keyframes come every 8.3 s; set the keyframe")
    assert report.gop_s == pytest.approx(8.3, abs=0.05)


def test_a_bitrate_that_drops_and_recovers() -> None:
    setting = Setting()
    units = stream_units(60)
    thin = [
        unit.replaced(payload=unit.payload[:5_000])
        if 30 < unit.dts / SCALES[unit.track_id] < 40
        else unit
        for unit in units
    ]
    setting.feed(setting.publish(), timely(thin))
    assert setting.told() == ["+bitrate_dropped", "-bitrate_dropped"]
    cleared = setting.events[1]
    assert isinstance(cleared, HealthCleared)
    assert 10 <= cleared.lasted_s <= 25


def test_jumps_of_timestamps_forth_and_back() -> None:
    setting = Setting()
    arriving = []
    jumped: set[tuple[int, float]] = set()
    for at_s, unit in timely(stream_units(60)):
        shift_s = 0.0 if at_s < 20 else 500.0 if at_s < 40 else -3.0
        is_first = shift_s != 0 and (unit.track_id, shift_s) not in jumped
        jumped.add((unit.track_id, shift_s))
        arriving.append((at_s, shifted(unit, shift_s, discontinuity=is_first)))
    setting.feed(setting.publish(), arriving)
    assert setting.told() == ["+timestamps_jump"]
    report = setting.health.health("alice")
    assert report is not None
    assert report.jumps == 4  # Twice, on two tracks.
    assert report.warnings[0].value == pytest.approx(-503, abs=0.1)
    assert report.fps == pytest.approx(30, abs=0.01)


def test_a_publisher_that_goes_on_with_a_run_has_jumped_nowhere() -> None:
    """It has a clock of its own, and the run has waited for it."""
    setting = Setting()
    first = setting.publish()
    setting.feed(first, timely(stream_units(20)))
    stream = first.stream
    stream.waiting_since = setting.now
    for _ in range(8):
        setting.now += TICK_S
        setting.health.tick()
    joining = Joining(
        formats_of(stream.tracks.values()),
        {key: (track.config_id, track.config) for key, track in stream.tracks.items()},
    )
    second = Publication(
        stream,
        wallclock_us=lambda: int((UNIX + setting.now) * 1e6),
        close=lambda *_: None,
        joins=joining,
        settle=lambda *_: stream,
    )
    second.set_track(VIDEO)
    second.set_track(AUDIO)
    stream.waiting_since = None
    arriving = [(at_s, shifted(unit, 5000.0)) for at_s, unit in timely(stream_units(20))]
    setting.feed(second, arriving)
    assert setting.told() == []
    report = setting.health.health("alice")
    assert report is not None
    assert report.jumps == 0
    assert report.fps == pytest.approx(30, abs=0.01)
    assert stream.track_statistics[VIDEO.track_id].splices == 1
    jumped = shifted(stream_units(1)[0], 9000.0, discontinuity=True)
    second.append([jumped])
    assert stream.track_statistics[jumped.track_id].jumps == 1  # Of its own making.


def test_sound_ahead_of_the_picture() -> None:
    setting = Setting()
    arriving = [
        (at_s, shifted(unit, 1.2) if unit.track_id == AUDIO.track_id else unit)
        for at_s, unit in timely(stream_units(20))
    ]
    setting.feed(setting.publish(), arriving)
    assert setting.told() == ["+av_skew"]
    report = setting.health.health("alice")
    assert report is not None
    assert report.av_skew_ms == pytest.approx(1200, abs=50)


def test_sound_that_stops() -> None:
    setting = Setting()
    arriving = [
        (at_s, unit)
        for at_s, unit in timely(stream_units(30))
        if unit.track_id == VIDEO.track_id or not 10 < at_s < 20
    ]
    setting.feed(setting.publish(), arriving)
    assert setting.told() == ["+audio_stopped", "-audio_stopped"]


def test_a_network_that_bunches() -> None:
    setting = Setting()
    arriving = [
        # Every other two seconds nothing comes, and then all at once.
        (at_s if at_s < 20 or int(at_s) % 4 < 2 else int(at_s) // 4 * 4 + 4.0, unit)
        for at_s, unit in timely(stream_units(50))
    ]
    setting.feed(setting.publish(), arriving)
    assert setting.told() == ["+jitter"]


def test_pictures_left_out() -> None:
    setting = Setting()
    arriving = [
        (at_s, unit)
        for number, (at_s, unit) in enumerate(timely(stream_units(30)))
        if at_s < 15 or unit.track_id == AUDIO.track_id or unit.random_access or number % 2
    ]
    setting.feed(setting.publish(), arriving)
    assert setting.told() == ["+fps_low", "+fps_uneven"]


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("rate", "options", "expected"),
    [
        ("30", ("-vf", "select='not(mod(n,7))+not(mod(n,3))+lt(n,10)'", "-fps_mode", "vfr"), True),
        ("30000/1001", ("-vf", "select='not(eq(mod(n,30),11))'", "-fps_mode", "vfr"), False),
        ("24000/1001", ("-bf", "3"), False),
        ("120", (), False),
    ],
    ids=["variable", "a picture left out each second", "b-frames", "120 fps"],
)
def test_files_of_a_variable_and_of_a_constant_frame_rate(
    rate: str, options: tuple[str, ...], expected: bool
) -> None:
    source = make_source(*X264, "-g", "30", *options, rate=rate, seconds=20)
    setting = Setting()
    (track,) = source.tracks
    stream = setting.hub.open(
        StreamId("alice", 31), Grant(channel="alice"), started_at=setting.now, came_from="test"
    )
    stream.set_track(track)
    begun_at, looked_at = setting.now, setting.now
    for unit in source.units:
        setting.now = begun_at + unit.dts / track.timescale
        if setting.now >= looked_at + TICK_S:
            looked_at = setting.now
            setting.health.tick()
        stream.append([unit])
    assert ("+fps_uneven" in setting.told()) is expected
    assert set(setting.told()) <= {"+fps_uneven"} | ({"+fps_low"} if expected else set())


def test_a_class_has_its_limit() -> None:
    setting = Setting(IngestHealthConfig(basic_mbps_max=5.0, partner_mbps_max=10.0))
    setting.feed(setting.publish("bob", PriorityClass.PARTNER), timely(stream_units(20)))
    assert setting.told() == []
    setting.feed(setting.publish("alice"), timely(stream_units(20)))
    assert "+bitrate_high" in setting.told()


def test_a_new_run_begins_well_and_what_has_ended_is_forgotten() -> None:
    setting = Setting()
    first = setting.publish()
    setting.feed(first, timely(stream_units(20, gop_s=8.3)))
    first.end("closed by peer")
    setting.health.tick()
    assert setting.health.health("alice") is None
    assert setting.health._known == {}
    setting.feed(setting.publish(), timely(stream_units(10)))
    assert setting.told() == ["+keyframe_interval"]  # Of the first: its end is told otherwise.
    report = setting.health.health("alice")
    assert report is not None
    assert report.warnings == ()


def test_a_stream_that_cannot_be_judged_harms_no_other() -> None:
    setting = Setting()
    broken = setting.publish("broken")
    del broken.stream.track_statistics[VIDEO.track_id]
    with capture_logs() as logs:
        setting.feed(setting.publish(), timely(stream_units(10, gop_s=8.3)))
    assert [line["event"] for line in logs] == ["health check failed"]  # Once.
    assert setting.told() == ["+keyframe_interval"]
    assert setting.health.health("broken") is None


def test_its_numbers() -> None:
    setting, metrics = Setting(), Metrics()
    setting.health.register(metrics, role="pop ams1")
    publication = setting.publish()
    setting.feed(publication, timely(stream_units(10, gop_s=8.3)))
    text = metrics.render().decode()
    assert 'edged_ingest_warnings{code="keyframe_interval",role="pop ams1"} 1.0' in text
    assert 'edged_ingest_warnings{code="jitter",role="pop ams1"} 0.0' in text
    assert text.count("edged_ingest_warned_total{") == len(CODES)
    assert all(spec.name in text for spec in SPECS)
    publication.end("closed by peer")
    setting.health.tick()
    text = metrics.render().decode()
    assert 'edged_ingest_warnings{code="keyframe_interval",role="pop ams1"} 0.0' in text
    assert 'edged_ingest_warned_total{code="keyframe_interval",role="pop ams1"} 1.0' in text


def test_warnings_are_events_in_one_line_each() -> None:
    setting = Setting()
    stream = EventStream("ams1")
    setting.health._emit = stream.emit
    with capture_logs() as logs:
        setting.feed(setting.publish(), timely(stream_units(10, gop_s=8.3)))
    (line,) = logs
    assert (line["event"], line["kind"]) == ("event", "health_warned")
    assert (line["code"], line["channel"]) == ("keyframe_interval", "alice")


async def test_it_looks_once_a_second_and_knows_when_it_slept(autojump_clock: MockClock) -> None:
    looks: list[tuple[float, bool]] = []
    begun_at = trio.current_time()

    class Watched(IngestHealth):
        def _look(self, *, slept: bool) -> Iterator[None]:
            looks.append((trio.current_time() - begun_at, slept))
            return super()._look(slept=slept)

    health = Watched(Hub(), IngestHealthConfig(), now=trio.current_time, unix_now=lambda: UNIX)
    async with trio.open_nursery() as nursery:
        await nursery.start(health.run)
        await trio.sleep(2.5)
        autojump_clock.jump(0.5 + TICK_LATE_S_MAX + 0.1)  # As if the loop had stood still.
        await trio.sleep(1.5)
        nursery.cancel_scope.cancel()
    assert [slept for _, slept in looks] == [False, False, True, False]
    assert looks[2][0] == pytest.approx(3.6)


def test_it_pauses_after_a_few_streams() -> None:
    setting = Setting()
    publications = [setting.publish(f"c{number}") for number in range(2 * SLICE + 1)]
    pauses = 0
    for _ in setting.health._look(slept=False):
        pauses += 1
        publications[-1].end("while others are looked at")
    assert pauses == 2
    assert setting.health.health("c0") is not None
    assert setting.health.health(f"c{2 * SLICE}") is None
    assert len(setting.health._known) == 2 * SLICE
