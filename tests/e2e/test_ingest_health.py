"""Encoders that are set up wrongly, in real time: the PoP's log names what a broadcaster did."""

from collections.abc import Sequence
from functools import partial

import msgspec
import pytest
import trio

from edged.media.track import AccessUnit, Kind
from tests.conftest import require
from tests.e2e.clip import make_clip, publish_ffmpeg, read_units
from tests.e2e.network import Demo, LogLine, open_demo
from tests.e2e.publisher import publish_units

pytestmark = pytest.mark.e2e

SECONDS = 14
SKEW_S = 1.0
BACK_S, BACK_FROM_S = 2.0, 10.5  # More than what is taken for jitter; so late that the skew shows.


def warned(demo: Demo, channel: str) -> dict[str, LogLine]:
    """The first warning of each code."""
    lines = [line for line in demo.log("event") if line["kind"] == "health_warned"]
    mine = [line for line in lines if line["channel"] == channel and line["pop"] == "west"]
    return {str(line["code"]): line for line in reversed(mine)}


async def test_good_encoders_are_warned_of_nothing() -> None:
    require("ffmpeg")
    with trio.fail_after(60):
        async with open_demo() as demo:
            await publish_ffmpeg(make_clip(seconds=SECONDS, gop=60), demo.publish_url("west"))
            await demo.wait_log("publisher ended")
            assert warned(demo, "mine") == {}
            kinds = [line["kind"] for line in demo.log("event")]
            assert kinds == ["stream_went_live", "stream_went_offline"]


async def test_what_is_wrong_is_named() -> None:
    require("ffmpeg")
    clip = make_clip(seconds=SECONDS, gop=300)
    tracks, units = read_units(make_clip(seconds=SECONDS, gop=60))
    kinds = {track.track_id: track.kind for track in tracks}
    scales = {track.track_id: track.timescale for track in tracks}

    def spoilt(units: Sequence[AccessUnit]) -> list[AccessUnit]:
        """Sound ahead of the picture, and at last all times set back."""
        result = []
        for unit in units:
            shift_s = SKEW_S if kinds[unit.track_id] is Kind.AUDIO else 0.0
            if unit.dts / scales[unit.track_id] > BACK_FROM_S:
                shift_s -= BACK_S
            ticks = round(shift_s * scales[unit.track_id])
            result.append(msgspec.structs.replace(unit, dts=unit.dts + ticks, pts=unit.pts + ticks))
        return result

    with trio.fail_after(60):
        async with open_demo() as demo:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(publish_ffmpeg, clip, demo.publish_url("west"))
                nursery.start_soon(
                    partial(
                        publish_units, tracks, spoilt(units), demo.publish_url("west", "demo"),
                        start_ms=60_000, leave=False,
                    )
                )  # fmt: skip
            found = warned(demo, "mine")
            assert set(found) == {"keyframe_interval"}
            assert str(found["keyframe_interval"]["text"]).startswith("The last keyframe came ")
            found = warned(demo, "demo")
            assert "av_skew" in found
            assert abs(float(str(found["av_skew"]["value"])) - SKEW_S) < 0.2
            assert "the audio is ahead" in str(found["av_skew"]["text"])
            assert "timestamps_jump" in found
            assert "s back; viewers see a break" in str(found["timestamps_jump"]["text"])
            assert set(found) <= {"av_skew", "timestamps_jump", "jitter"}  # What was sent at once.
