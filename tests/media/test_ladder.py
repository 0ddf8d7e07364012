"""The plan's own sums."""

import msgspec

from edged.media.ladder import AudioRung, LadderPlan, VideoRung


def rung(name: str = "720p", cost: float = 30.0) -> VideoRung:
    return VideoRung(
        name=name,
        track_id=0x4000,
        width=1280,
        height=720,
        bitrate_bps=2_400_000,
        maxrate_bps=2_640_000,
        buffer_bits=2_640_000,
        level=31,
        preset="veryfast",
        cost=cost,
    )


def test_what_it_costs() -> None:
    plan = LadderPlan(video_track_id=1, video=(rung(), rung("480p", 12.0)), decode_cost=5.0)
    assert plan.cost == 47.0
    assert not plan.is_empty
    assert LadderPlan().is_empty
    assert LadderPlan(notes=("class basic has no ladder",)).cost == 0


def test_sound_alone_is_not_nothing() -> None:
    sound = AudioRung(
        name="aac-2",
        track_id=0x5002,
        source_track_id=2,
        sample_rate=48_000,
        channels=2,
        bitrate_bps=128_000,
    )
    assert not LadderPlan(audio=(sound,)).is_empty


def test_it_passes_between_processes() -> None:
    plan = LadderPlan(video_track_id=1, video=(rung(),), notes=("why",))
    packed = msgspec.msgpack.encode(plan)
    assert msgspec.msgpack.decode(packed, type=LadderPlan) == plan
