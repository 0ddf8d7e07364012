"""DASH with real players: FFmpeg reads live, dash.js plays in Chromium, both of what HLS has."""

import subprocess

import pytest
import trio

from tests.conftest import require
from tests.e2e.browser import find_chromium, open_browser
from tests.e2e.clip import make_clip, publish_ffmpeg
from tests.e2e.dash_player import look, play_dash, take_dashjs
from tests.e2e.network import Network, open_network

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(150)]

CLIP_S = 60
PLAYED_S = 15.0
READ_S = 5


async def read_ffmpeg(url: str) -> dict[str, int]:
    """Have FFmpeg decode some seconds; the frames of each kind, and what it complained of."""
    command = ["ffmpeg", "-v", "warning", "-nostdin", "-i", url, "-t", str(READ_S)]
    command += ["-f", "framemd5", "-"]
    done = await trio.run_process(command, capture_stdout=True, stderr=subprocess.PIPE)
    lines = [line for line in done.stdout.decode().splitlines() if not line.startswith("#")]
    assert b"error" not in done.stderr.lower(), done.stderr.decode()
    found = {"video": 0, "audio": 0}
    for line in lines:
        found["video" if line.startswith("0,") else "audio"] += 1
    assert len({line.rpartition(",")[2] for line in lines if line.startswith("0,")}) > READ_S * 25
    return found


async def play(network: Network, url: str) -> None:
    """What dash.js plays with its stock settings, from another address than its page's."""
    async with open_browser() as browser:
        page = await browser.open_page()
        await page.navigate(f"{network.playback('a')}/live/none/of-this-name")
        await play_dash(page, url)
        await page.wait_for("document.querySelector('video').currentTime > 1", 15)
        await page.wait_for("document.querySelector('video').videoWidth > 0", 15)
        await trio.sleep(1)
        before = await look(page)
        await trio.sleep(PLAYED_S)
        after = await look(page)
    assert after.errors == []
    assert after.stalls == before.stalls, "it plays without a pause once it does"
    assert after.at_s - before.at_s > PLAYED_S - 1
    assert after.frames - before.frames > (PLAYED_S - 1) * 29
    assert after.dropped - before.dropped < 10
    assert after.audio_bytes > before.audio_bytes
    assert after.width == 320
    assert after.behind_s < 14


async def test_real_players_play_the_manifest() -> None:
    require("ffmpeg", "npm")
    find_chromium()
    take_dashjs()
    clip = make_clip(seconds=CLIP_S)
    latencies = {"plain": "default", "short": "ultra", "whole": "standard"}
    with trio.fail_after(120):
        async with (
            open_network(channels=tuple(latencies), latencies=latencies) as network,
            trio.open_nursery() as nursery,
        ):
            for channel in latencies:
                nursery.start_soon(publish_ffmpeg, clip, network.publish_url("a", channel))
            await network.hosts["origin"].edged.wait_log("stream opened", count=len(latencies))
            await trio.sleep(8)
            for channel in latencies:
                url = f"{network.playback('b')}/live/{channel}/manifest.mpd"
                found = await read_ffmpeg(url)
                assert found["video"] == READ_S * 30, channel
                assert abs(found["audio"] - READ_S * 48_000 / 1024) < 3, channel
            await play(network, f"{network.playback('b')}/live/plain/manifest.mpd")
            nursery.cancel_scope.cancel()
