"""How streams and metrics are described, by every role alike."""

import pytest

from edged.media import aac
from edged.media.stream import Grant, StreamId
from edged.media.track import Codec, CodecConfig, Track
from edged.roles.common import SPECS, RoleMetrics, describe_stream, new_instance
from edged.runtime.hub import Hub, LiveStream
from edged.runtime.metrics import Metrics
from edged.runtime.pump import Pump
from tests.policy.synthetic import (
    RATES,
    audio_track,
    audio_units,
    in_order,
    video_times,
    video_track,
    video_units,
)


def live(hub: Hub) -> LiveStream:
    return hub.open(
        StreamId("alice", 0xABC, 2), Grant(channel="alice"), started_at=100.0, came_from="rtmp x"
    )


def test_a_stream_in_words_and_numbers() -> None:
    stream = live(Hub())
    stream.set_track(video_track(RATES["29.97"]))
    stream.set_track(audio_track())
    units = in_order(
        (90_000, video_units(video_times(RATES["29.97"], 5.0), 2, payload_bytes=10_000)),
        (48_000, audio_units(5.0)),
    )
    stream.append(units)
    line = describe_stream("pop a", stream, 105.0, goes_to="fra1", viewers=3)
    assert line.publication == "abc"
    assert line.home_epoch == 2
    assert line.video == "h264 1280x720 29.97 fps"
    assert line.audio == "aac 48 kHz"
    assert line.seconds == 5.0
    payload_bytes = sum(len(unit.payload) for unit in units)
    assert line.mbps == pytest.approx(payload_bytes * 8 / 5e6, abs=0.001)
    assert line.gop_s == 2.0
    assert line.ring_mib == pytest.approx(stream.ring.payload_bytes / 2**20, abs=0.01)
    assert (line.came_from, line.goes_to, line.viewers) == ("rtmp x", "fra1", 3)


def test_a_stream_that_waits_says_so_and_since_when() -> None:
    stream = live(Hub())
    assert describe_stream("pop a", stream, 105.0, goes_to="", viewers=0).state == "live"
    stream.waiting_since = 102.0
    line = describe_stream("pop a", stream, 105.4, goes_to="", viewers=0)
    assert line.state == "waiting for its publisher 3 s"
    assert describe_stream("pop a", stream, 101.0, goes_to="", viewers=0).state.endswith(" 0 s")


def test_a_stream_that_has_only_begun() -> None:
    line = describe_stream("pop a", live(Hub()), 100.0, goes_to="fra1", viewers=0)
    assert (line.video, line.audio, line.mbps, line.gop_s) == ("", "", 0.0, 0.0)


def test_what_a_track_does_not_say_is_left_out() -> None:
    stream = live(Hub())
    config = CodecConfig(codec=Codec.AV1, record=b"", codec_string="av01.0.04M.08")
    stream.set_track(Track(track_id=1, codec=Codec.AV1, timescale=90_000, config=config))
    sound = aac.parse_config(aac.make_config(44_100, 2))
    for track_id in (2, 3):
        stream.set_track(Track(track_id=track_id, codec=Codec.AAC, timescale=44_100, config=sound))
    line = describe_stream("pop a", stream, 101.0, goes_to="", viewers=0)
    assert line.video == "av1"
    assert line.audio == "aac 44.1 kHz, aac 44.1 kHz"


def test_instances_are_chance() -> None:
    assert len({new_instance() for _ in range(100)}) == 100
    assert all(0 <= new_instance() < 2**63 for _ in range(100))


async def test_pump_and_hub_are_scraped() -> None:
    hub, metrics = Hub(), Metrics()
    stream = live(hub)
    stream.set_track(video_track(RATES["30"]))
    units = in_order((90_000, video_units(video_times(RATES["30"], 1.0), 1, payload_bytes=100)))
    stream.append(units)
    for role in ("pop a", "pop b"):
        RoleMetrics(role, Pump(), hub).register(metrics)
    text = metrics.render().decode()
    for spec in SPECS:
        assert f'{spec.name}{{role="pop a"}}' in text
        assert f'{spec.name}{{role="pop b"}}' in text
    assert 'edged_hub_streams{role="pop a"} 1.0' in text
    assert 'edged_hub_units_total{role="pop a"} 30.0' in text
    assert 'edged_hub_ring_bytes{role="pop a"} 3000.0' in text
