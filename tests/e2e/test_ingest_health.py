"""Encoders that are set up wrongly, in real time: log and status page say what is wrong."""

from collections.abc import Sequence
from functools import partial

import msgspec
import pytest
import trio

from edged.media.access_unit import AccessUnit
from edged.media.track import Kind, Track
from tests.conftest import require
from tests.e2e.browser import open_browser
from tests.e2e.clip import make_clip, publish_ffmpeg, read_units
from tests.e2e.network import Demo, LogLine, open_demo, run_edged
from tests.e2e.publisher import publish_units
from tests.origin.sources import X264, make_source

pytestmark = [pytest.mark.e2e, pytest.mark.light]

SECONDS = 14
SKEW_S = 1.0
BACK_S, BACK_FROM_S = 2.0, 10.5  # More than what is taken for jitter; so late that the skew shows.
DROP_FROM_S = 11.0  # What is usual is known after 10 s.
SPOILT_S = 24
FILLER = (5001).to_bytes(4) + b"\x0c" + b"\xff" * 5000  # A NAL of filler data: 1.2 Mbps.
SHOWN_S_MAX = 5.0
TOLD = {
    "mine": ["set the keyframe interval to 2 s"],
    "demo": ["the audio is ahead", "The bitrate has dropped to", "s back; viewers see a break"],
}


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
    """In the log and, in the broadcaster's language, on the status page."""
    require("ffmpeg")
    require("chromium")
    clip = make_clip(seconds=SECONDS, gop=300)
    tracks, units = read_units(make_clip(seconds=SPOILT_S, gop=60))
    with trio.fail_after(100):
        async with open_demo() as demo, open_browser() as browser:
            page = await browser.open_page(1440, 900)
            await page.navigate(demo.addresses.status)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(publish_ffmpeg, clip, demo.publish_url("west"))
                nursery.start_soon(
                    partial(
                        publish_units, tracks, spoilt(tracks, units),
                        demo.publish_url("west", "demo"), start_ms=60_000, leave=False,
                    )
                )  # fmt: skip
                for channel in TOLD:
                    row = f"document.querySelector('[data-channel={channel}] .row')"
                    await page.wait_for(f"!!{row}", SHOWN_S_MAX)
                    await page.evaluate(f"{row}.click()")
                for channel, told in TOLD.items():
                    warnings = f"document.querySelector('[data-channel={channel}] .warnings')"
                    for text in told:
                        seen = f"{warnings}.textContent.includes({text!r})"
                        await page.wait_for(seen, SPOILT_S)
            found = warned(demo, "mine")
            assert set(found) == {"keyframe_interval"}
            assert str(found["keyframe_interval"]["text"]).startswith("The last keyframe came ")
            found = warned(demo, "demo")
            assert abs(float(str(found["av_skew"]["value"])) - SKEW_S) < 0.2
            assert "the audio is ahead" in str(found["av_skew"]["text"])
            assert "s back; viewers see a break" in str(found["timestamps_jump"]["text"])
            assert "The bitrate has dropped to" in str(found["bitrate_dropped"]["text"])
            # Jitter: what was sent at once.
            assert set(found) <= {"av_skew", "timestamps_jump", "bitrate_dropped", "jitter"}


async def test_a_variable_frame_rate_is_named_wherever_people_look() -> None:
    """What RFC 8216bis asks of parts cannot be had of it: log, status page and `edged streams`."""
    require("ffmpeg")
    require("chromium")
    pick = "select='gt(random(1),0.4)+lt(n,10)'"
    clip = make_source(*X264, "-vf", pick, "-fps_mode", "vfr", "-g", "20", seconds=20, suffix="mp4")
    with trio.fail_after(60):
        async with open_demo() as demo, open_browser() as browser:
            page = await browser.open_page(1440, 900)
            await page.navigate(demo.addresses.status)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(publish_ffmpeg, clip.path, demo.publish_url("west"))
                row = "document.querySelector('[data-channel=mine] .row')"
                await page.wait_for(f"!!{row}", SHOWN_S_MAX)
                await page.evaluate(f"{row}.click()")
                warnings = "document.querySelector('[data-channel=mine] .warnings')"
                seen = f"{warnings}.textContent.includes('The frame rate is not constant')"
                await page.wait_for(seen, SPOILT_S)
                text, _ = await run_edged(demo.folder, "streams", "--json")
                lines = {
                    line["role"]: line
                    for line in msgspec.json.decode(text)
                    if line["channel"] == "mine"
                }
            assert "fps_uneven" in lines["pop west"]["health"]
            (found,) = [line for code, line in warned(demo, "mine").items() if code == "fps_uneven"]
            assert "Set a constant one (CFR)" in str(found["text"])


def spoilt(tracks: Sequence[Track], units: Sequence[AccessUnit]) -> list[AccessUnit]:
    """Sound ahead of the picture; a bitrate that drops; at last all times set back."""
    kinds = {track.track_id: track.kind for track in tracks}
    scales = {track.track_id: track.timescale for track in tracks}
    result = []
    for unit in units:
        at_s = unit.dts / scales[unit.track_id]
        is_audio = kinds[unit.track_id] is Kind.AUDIO
        shift_s = SKEW_S if is_audio else 0.0
        if at_s > BACK_FROM_S:
            shift_s -= BACK_S
        ticks = round(shift_s * scales[unit.track_id])
        payload = unit.payload if is_audio or at_s > DROP_FROM_S else unit.payload + FILLER
        result.append(unit.replaced(dts=unit.dts + ticks, pts=unit.pts + ticks, payload=payload))
    return result
