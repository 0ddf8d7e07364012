"""Channels of all latency classes in one network, as viewers and operators find them."""

import json
import subprocess

import msgspec
import pytest
import trio

from edged.media.latency import LATENCY_LABELS
from edged.roles.common import StreamLine
from edged.tools.conform.report import Report, Verdict
from edged.wire.m3u8_reader import ReadMedia, read_media, read_multivariant
from tests.conftest import require
from tests.e2e.browser import open_browser
from tests.e2e.clip import make_clip, publish_ffmpeg
from tests.e2e.conformance import check_shown
from tests.e2e.network import Network, open_network, run_edged
from tests.e2e.test_watch_page import require_player
from tests.e2e.viewer import fetch

pytestmark = [pytest.mark.e2e, pytest.mark.light, pytest.mark.timeout(150)]

CLIP_S = 50
BEGUN_S = 14.0  # 12 s is where delta updates of a target duration of 2 s may leave out some.
WATCHED_S = 8.0
OF_PARTS = {2, 3, 10, 11, 14, 15, 16, 17, 19, 22, 23, 28, 35}  # Items that need parts.
# Target duration, longest segment, longest part (None: no parts), in s.
WANTED = {
    "default": (4, 2.1, 0.22),
    "low": (2, 1.1, 0.22),
    "ultra": (2, 1.1, 0.11),
    "standard": (4, 2.1, None),
}


async def conforms(network: Network, channel: str, found: dict[str, dict[int, Verdict]]) -> None:
    url = f"https://127.0.0.1:{network.ports['b.https']}/live/{channel}/master.m3u8"
    asked = ("conform", url, "--insecure", "--json", "--seconds", str(WATCHED_S))
    out, _ = await run_edged(network.folder, *asked, timeout_s=60)
    report = msgspec.json.decode(out, type=Report)
    assert report.broken == []
    found[channel] = {verdict.number: verdict for verdict in report.verdicts}


def check_verdicts(channel: str, found: dict[int, Verdict]) -> None:
    assert not [each for each in found.values() if each.status == "fail"], channel
    if channel == "standard":
        for number in OF_PARTS:
            verdict = found.pop(number)
            told = verdict.status, verdict.details
            assert told == ("not seen", ["there are no parts: it does not apply"]), number
    check_shown("of a class", found)


async def read_playlist(network: Network, channel: str) -> tuple[ReadMedia, str]:
    base = f"{network.playback('b')}"
    master = read_multivariant((await fetch(base, f"/live/{channel}/master.m3u8")).body)
    path = f"/live/{channel}/{master.variants[0].uri}"
    body = (await fetch(base, path)).body
    return read_media(body), body.decode()


def check_playlist(channel: str, playlist: ReadMedia, text: str) -> None:
    target_s, segment_s, part_s = WANTED[channel]
    assert playlist.target_duration_s == target_s
    whole = [segment for segment in playlist.segments if segment.is_whole]
    assert 0.9 < max(each.media_us for each in whole[1:]) / 1e6 / (segment_s - 0.1) < 1.1
    assert playlist.seconds("HOLD-BACK") == 3 * target_s
    if part_s is None:
        assert "PART" not in text
        assert "PRELOAD" not in text
        return
    assert playlist.part_target_us is not None
    assert playlist.part_target_us <= part_s * 1e6
    assert (playlist.seconds("PART-HOLD-BACK") or 0) * 1e6 >= 3 * playlist.part_target_us


async def probe(url: str) -> list[str]:
    """The codecs that ffprobe finds."""
    command = ["ffprobe", "-v", "error", "-show_entries", "stream=codec_name", "-of", "json", url]
    done = await trio.run_process(command, capture_stdout=True, stderr=subprocess.DEVNULL)
    streams = json.loads(done.stdout)["streams"]
    return sorted({stream["codec_name"] for stream in streams})


async def test_channels_of_all_classes_beside_each_other() -> None:
    require("ffmpeg", "ffprobe")
    require_player()
    clip = make_clip(seconds=CLIP_S)
    latencies: dict[str, str] = {label: label for label in LATENCY_LABELS}
    found: dict[str, dict[int, Verdict]] = {}
    with trio.fail_after(120):
        async with (
            open_network(channels=LATENCY_LABELS, latencies=latencies) as network,
            trio.open_nursery() as nursery,
        ):
            channels: tuple[str, ...] = LATENCY_LABELS
            for channel in channels:
                nursery.start_soon(publish_ffmpeg, clip, network.publish_url("a", channel))
            await network.hosts["origin"].edged.wait_log("stream opened", count=4)
            await trio.sleep(BEGUN_S)
            async with trio.open_nursery() as viewers:
                for channel in channels:
                    viewers.start_soon(conforms, network, channel, found)
            for channel in channels:
                check_playlist(channel, *(await read_playlist(network, channel)))
                url = f"{network.playback('b')}/live/{channel}/master.m3u8"
                assert await probe(url) == ["aac", "h264"], channel
            await told_to_operators(network)
            await watch(network, "standard")
            nursery.cancel_scope.cancel()
    for channel, verdicts in found.items():
        check_verdicts(channel, verdicts)
    assert found.keys() == set(LATENCY_LABELS)


async def watch(network: Network, channel: str) -> None:
    """The watch page plays on: hls.js does without parts as well."""
    async with open_browser() as browser:
        page = await browser.open_page()
        await page.navigate(f"{network.playback('b')}/watch/{channel}")
        await page.wait_for("document.querySelector('video').currentTime > 0", 15)
        before = await page.evaluate("document.querySelector('video').currentTime")
        await trio.sleep(5)
        after = await page.evaluate("document.querySelector('video').currentTime")
    assert isinstance(before, float | int)
    assert isinstance(after, float | int)
    assert after - before > 4.5


async def told_to_operators(network: Network) -> None:
    """What `edged streams` says at the origin, and at the publishers' PoP."""
    told = {}
    for host in ("origin", "a"):
        asked = ("streams", "-c", str(network.hosts[host].config), "--json")
        out, _ = await run_edged(network.folder, *asked)
        told[host] = {
            line.channel: line.latency for line in msgspec.json.decode(out, type=list[StreamLine])
        }
    assert told["a"] == {label: label for label in LATENCY_LABELS}
    assert told["origin"] == {
        "default": "default: segments of 2 s, parts of 200 ms",
        "low": "low: segments of 1 s, parts of 200 ms",
        "ultra": "ultra: segments of 1 s, parts of 100 ms",
        "standard": "standard: segments of 2 s, no parts",
    }
