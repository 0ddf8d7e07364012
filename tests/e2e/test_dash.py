"""DASH with real players: FFmpeg reads live, dash.js plays in Chromium, both of what HLS has."""

import re
from pathlib import Path

import pytest
import trio

from tests.conftest import require
from tests.e2e.browser import open_browser
from tests.e2e.clip import make_clip, publish_ffmpeg
from tests.e2e.dash_player import look, play_dash, take_dashjs
from tests.e2e.network import Network, open_network
from tests.e2e.viewer import fetch
from tests.wire.mpd_schema import check_mpd

pytestmark = [pytest.mark.e2e, pytest.mark.light, pytest.mark.timeout(150)]

CLIP_S = 60
PLAYED_S = 18.0  # Those of before the takeover are over by then.
READ_S = 5
VIDEO = "document.querySelector('video')"


async def read_ffmpeg(url: str) -> dict[str, int]:
    """Have FFmpeg decode some seconds; the frames of each kind, and what it complained of."""
    command = ["ffmpeg", "-v", "warning", "-nostdin", "-i", url, "-t", str(READ_S)]
    command += ["-f", "framemd5", "-"]
    done = await trio.run_process(command, capture_stdout=True, capture_stderr=True)
    lines = [line for line in done.stdout.decode().splitlines() if not line.startswith("#")]
    assert b"error" not in done.stderr.lower(), done.stderr.decode()
    found = {"video": 0, "audio": 0}
    for line in lines:
        found["video" if line.startswith("0,") else "audio"] += 1
    assert len({line.rpartition(",")[2] for line in lines if line.startswith("0,")}) > READ_S * 25
    return found


async def publish_until_taken_over(clip: Path, url: str) -> None:
    with pytest.raises(AssertionError, match="ffmpeg"):
        await publish_ffmpeg(clip, url)


async def play(network: Network, newcomer: Path) -> None:
    """What dash.js plays with its stock settings, of another address than its page's, by HTTP/2.

    Meanwhile another publisher takes the channel over.
    """
    url = f"https://127.0.0.1:{network.ports['b.https']}/live/plain/manifest.mpd"
    async with open_browser() as browser, trio.open_nursery() as nursery:
        page = await browser.open_page()
        await page.navigate(f"{network.playback('a')}/live/none/of-this-name")
        await play_dash(page, url)
        await page.wait_for(f"{VIDEO}.getVideoPlaybackQuality().totalVideoFrames > 30", 15)
        before = await look(page)
        nursery.start_soon(publish_ffmpeg, newcomer, network.publish_url("a", "plain"))
        await trio.sleep(PLAYED_S)
        after = await look(page)
        told = await fetch(network.playback("b"), "/live/plain/manifest.mpd")
        assert check_mpd(told.body) == []
        starts = [
            float(s) for s in re.findall(rb'<Period id="\d" start="PT([0-9.]+)S">', told.body)
        ]
        assert len(starts) == 2
        assert before.at_s < starts[1] < after.at_s, "it has played from one into the other"
        nursery.cancel_scope.cancel()
    assert after.errors == []
    assert after.stalls == before.stalls, (before, after)  # It plays without a pause.
    assert after.at_s - before.at_s > PLAYED_S - 1
    assert after.frames - before.frames > (PLAYED_S - 1) * 29
    assert after.dropped - before.dropped < 10
    assert after.audio_bytes > before.audio_bytes
    assert after.width == 320
    assert after.behind_s < 14


async def test_real_players_play_the_manifest() -> None:
    require("ffmpeg", "npm", "chromium")
    take_dashjs()
    clip = make_clip(seconds=CLIP_S)
    latencies = {"plain": "default", "short": "ultra", "whole": "standard"}
    with trio.fail_after(120):
        async with (
            open_network(channels=tuple(latencies), latencies=latencies) as network,
            trio.open_nursery() as nursery,
        ):
            for channel in latencies:
                publish = publish_until_taken_over if channel == "plain" else publish_ffmpeg
                nursery.start_soon(publish, clip, network.publish_url("a", channel))
            await network.hosts["origin"].edged.wait_log("stream opened", count=len(latencies))
            await trio.sleep(8)
            for channel in latencies:
                url = f"{network.playback('b')}/live/{channel}/manifest.mpd"
                found = await read_ffmpeg(url)
                # Sound begins first, by as much as pictures are reordered.
                assert READ_S * 30 - 3 < found["video"] <= READ_S * 30, channel
                assert abs(found["audio"] - READ_S * 48_000 / 1024) < 3, channel
            await play(network, make_clip(seconds=CLIP_S, tone=880))
            nursery.cancel_scope.cancel()
