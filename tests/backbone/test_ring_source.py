from edged.backbone.ring_source import RingSource, choose_start, gop_start
from edged.media.stream import Grant, StreamId
from edged.media.track import Codec
from edged.runtime.hub import CONFIGS_MAX, LiveStream
from tests.backbone.network import append
from tests.wire.backbone.builders import make_track, make_unit


def make_stream(codec: Codec = Codec.H264) -> LiveStream:
    stream = LiveStream(
        StreamId("alice", 7), Grant(channel="alice"), started_at=0.0, came_from="test"
    )
    stream.set_track(make_track(codec=codec))
    return stream


def test_a_source_reads_lags_and_ends() -> None:
    stream = make_stream()
    source = RingSource(stream, "oldest")
    append(stream, 25)
    assert source.lag_units == 25
    assert [unit.seq for unit in source.read(10, 2**30).units] == list(range(10))
    assert source.lag_units == 15
    assert source.ended is None
    stream.end("bye")
    assert source.ended == "bye"


def test_a_source_knows_the_configurations_of_old_units() -> None:
    stream = make_stream()
    source = RingSource(stream, "oldest")
    stream.set_track(make_track(config_id=1))
    assert source.track(1, 0) == make_track()
    assert source.track(1, 1) == make_track(config_id=1)
    assert source.track(2, 0) is None
    for config_id in range(2, CONFIGS_MAX + 3):
        stream.set_track(make_track(config_id=config_id))
    assert source.track(1, 0) is None


def test_the_start_is_what_the_origin_wants_else_the_gop_to_be_packaged() -> None:
    stream = make_stream()
    assert choose_start(stream, -1, -1) == "oldest"
    append(stream, 60)
    assert choose_start(stream, 47, 12) == 47
    assert choose_start(stream, 1000, 12) == 60
    assert choose_start(stream, -1, -1) == "oldest"
    assert choose_start(stream, -1, 44) == 40
    assert choose_start(stream, -1, 39) == 40
    assert choose_start(stream, -1, 38) == 30
    assert choose_start(stream, -1, 1000) == 50


def test_without_video_every_unit_is_a_start() -> None:
    stream = make_stream(Codec.AAC)
    stream.append([make_unit(seq, random_access=True) for seq in range(20)])
    assert gop_start(stream, 13) == 13


def test_what_is_no_longer_held_begins_with_the_oldest() -> None:
    stream = make_stream()
    append(stream, 100, payload=bytes(700_000))
    assert stream.ring.first_seq > 5
    assert gop_start(stream, 5) == "oldest"
    assert gop_start(make_stream(), 0) == "oldest"
