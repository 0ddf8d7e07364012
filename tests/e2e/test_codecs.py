"""Enhanced RTMP to the end: several rungs and languages in, each codec played where it can be.

Chromium as Debian builds it has no HEVC: that is checked by FFmpeg and by its name in CODECS.
"""

import itertools
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from fractions import Fraction
from functools import partial
from pathlib import Path

import pytest
import trio

from edged.playback.web.pages import read_hls
from edged.tools.file_source import FileSource
from edged.tools.test_publisher import publish
from edged.wire.rtmp import parse_url
from tests.conftest import require
from tests.e2e.browser import Page, open_browser
from tests.e2e.clip import (
    RATE,
    Packets,
    Rung,
    check_same,
    make_clip,
    make_ladder_clip,
    publish_pyav,
    read_packets,
    read_renditions,
    run_ffmpeg,
)
from tests.e2e.machine import run_undisturbed
from tests.e2e.network import Demo, open_demo, run_edged
from tests.e2e.pair import open_pair
from tests.e2e.publisher import publish_clip
from tests.e2e.viewer import Viewer, fetch
from tests.wire.hls_reader import attributes_of, read_media_playlist

pytestmark = pytest.mark.e2e

SIZES = ((640, 360), (480, 270), (320, 180))
MIXED = tuple(
    Rung(codec, size, kbps)
    for codec, size, kbps in zip(("hevc", "av1", "h264"), SIZES, (600, 300, 150), strict=True)
)
PLAIN = tuple(Rung("h264", size, kbps) for size, kbps in zip(SIZES, (600, 300, 150), strict=True))
NAMES = {"hevc": "hvc1.1.", "av1": "av01.0.", "vp9": "vp09.00.", "h264": "avc1."}
STATE = "window.edged?.snapshot().state"
HLS = "window.edged.player.hls"
SWITCH_S_MAX = 12.0  # What is buffered ahead is replaced or played out; the machine is shared.


def variants_of(master: bytes) -> list[dict[str, str]]:
    """The variants' attributes, with their URI's rendition as NAME."""
    lines = master.decode().splitlines()
    found = []
    for line, uri in itertools.pairwise(lines):
        if line.startswith("#EXT-X-STREAM-INF:"):
            attributes = attributes_of(line.partition(":")[2])
            name = uri.rpartition("/")[2].removesuffix(".m3u8")
            found.append(attributes | {"NAME": name})
    return found


def alternatives_of(master: bytes) -> list[dict[str, str]]:
    found = re.findall(r"#EXT-X-MEDIA:(.*)", master.decode())
    return [attributes_of(line) for line in found]


def renditions_of(viewer: Viewer) -> Packets:
    """What FFmpeg finds in what came, by rendition."""
    found: Packets = {}
    for name, track in viewer.tracks.items():
        served = read_packets(track.init + b"".join(piece.body for piece in track.arrivals))
        (found[name],) = served.values()
    return found


async def decoded(source: str, stream: str) -> list[str]:
    """The digests of what FFmpeg decodes of a stream, without an error."""
    begin = ("-live_start_index", "0") if source.startswith("http") else ()
    text = await run_ffmpeg(
        *begin, "-xerror", "-i", source, "-map", f"0:{stream}",
        "-fps_mode", "passthrough", "-f", "framemd5", "-",
    )  # fmt: skip
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return [line.rpartition(",")[2].strip() for line in lines]


async def check_pictures(viewer: Viewer, clip: Path, rungs: int) -> None:
    """The pictures of each rung are those of the clip, one by one."""
    for index in range(rungs):
        mine = await decoded(viewer.tracks[f"v{index}"].url, "v:0")
        assert mine == await decoded(str(clip), f"v:{index}")


async def check_step(viewer: Viewer, demo: Demo, rungs: int) -> None:
    """All renditions are in step: segments, discontinuities, reports (items 28 and 29)."""
    playlists = {
        name: read_media_playlist((await fetch(demo.playback(), path(track.url))).body)
        for name, track in viewer.tracks.items()
    }
    rung_names = [f"v{index}" for index in range(rungs)]
    dates = {
        name: [
            (segment.msn, datetime.fromisoformat(segment.date_time).timestamp())
            for segment in playlists[name].segments
        ]
        for name in rung_names
    }
    lengths = {
        name: [segment.duration_us for segment in playlists[name].segments][:-1]
        for name in rung_names
    }
    for name in rung_names:
        # RTMP has milliseconds, which each rung rounds for itself where its codec has no rate.
        assert [msn for msn, _ in dates[name]] == [msn for msn, _ in dates["v0"]]
        for (_, mine), (_, leading) in zip(dates[name], dates["v0"], strict=True):
            assert abs(mine - leading) <= 0.002
        assert lengths[name] == pytest.approx(lengths["v0"], abs=2000)
        segments = playlists[name].segments
        assert all(segment.parts[0].independent for segment in segments if segment.parts)
    for name, playlist in playlists.items():
        assert playlist.header["EXT-X-DISCONTINUITY-SEQUENCE"] == "0"
        reports = {report["URI"] for report in playlist.all("EXT-X-RENDITION-REPORT")}
        assert reports == {f"{other}.m3u8" for other in playlists if other != name}


def path(url: str) -> str:
    return "/" + url.split("/", 3)[3]


async def check_served(demo: Demo, viewer: Viewer, clip: Path, rungs: tuple[Rung, ...]) -> None:
    for track in viewer.tracks.values():
        track.check_flow()
    check_same(read_renditions(clip), renditions_of(viewer))
    await check_step(viewer, demo, len(rungs))
    await check_pictures(viewer, clip, len(rungs))
    shown = variants_of(viewer.master)
    assert [variant["NAME"] for variant in shown] == [f"v{n}" for n in range(len(rungs))]
    rates = [int(variant["BANDWIDTH"]) for variant in shown]
    assert rates == sorted(rates, reverse=True)
    for variant, rung in zip(shown, rungs, strict=True):
        video, *audio = variant["CODECS"].split(",")
        assert video.startswith(NAMES[rung.codec])
        assert audio == ["mp4a.40.2"]
        assert variant["RESOLUTION"] == f"{rung.size[0]}x{rung.size[1]}"
        assert variant["FRAME-RATE"] == f"{RATE}.000"


async def test_ffmpegs_multitrack_of_three_codecs_and_two_sounds() -> None:
    """FFmpeg's own muxer, which knows nothing of us, by E-RTMP v2 multitrack."""
    require("ffmpeg")
    clip = make_ladder_clip(MIXED, (("aac", "eng"), ("aac", "deu")))
    with trio.fail_after(90):
        async with open_demo() as demo:
            viewer = Viewer(demo.playback("east"), "mine")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(publish_pyav, clip, demo.publish_url("west"))
                await viewer.watch()
            assert sorted(viewer.tracks) == ["a0", "a1", "v0", "v1", "v2"]
            await check_served(demo, viewer, clip, MIXED)
            (ended,) = demo.log("packaging ended")
            assert (ended["unaligned"], ended["units_dropped"]) == (0, 0)


async def test_our_multitrack_of_three_codecs_and_two_languages(tmp_path: Path) -> None:
    """`edged publish --file` sends all that is in a file, with its languages."""
    require("ffmpeg")
    clip = make_ladder_clip(MIXED, (("aac", "eng"), ("aac", "deu")))
    with trio.fail_after(90):
        async with open_demo() as demo:
            viewer = Viewer(demo.playback("east"), "mine")
            arguments = ("publish", demo.publish_url("west"), "--file", str(clip), "--once")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run_edged, tmp_path, *arguments)
                await viewer.watch()
            await check_served(demo, viewer, clip, MIXED)
            shown = alternatives_of(viewer.master)
            assert [(a["LANGUAGE"], a["NAME"], a["DEFAULT"], a["CHANNELS"]) for a in shown] == [
                ("eng", "eng", "YES", "2"),
                ("deu", "deu", "NO", "2"),
            ]
            assert {variant["AUDIO"] for variant in variants_of(viewer.master)} == {"audio"}


async def test_aac_and_opus_of_one_language_are_a_group_each() -> None:
    require("ffmpeg")
    clip = make_ladder_clip(PLAIN[1:], (("aac", "eng"), ("opus", "eng")), seconds=4)
    with trio.fail_after(60):
        async with open_demo() as demo:
            viewer = Viewer(demo.playback("east"), "mine")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(publish_pyav, clip, demo.publish_url("west"))
                await viewer.watch()
            check_same(read_renditions(clip), renditions_of(viewer))
            shown = [(v["NAME"], v["AUDIO"], v["CODECS"]) for v in variants_of(viewer.master)]
            assert [(name, group) for name, group, _ in shown] == [
                ("v0", "audio-mp4a"),
                ("v1", "audio-mp4a"),
                ("v0", "audio-opus"),
                ("v1", "audio-opus"),
            ]
            for _, group, codecs in shown:
                assert re.fullmatch(r"avc1\.[0-9a-f]{6},(mp4a\.40\.2|opus)", codecs), (
                    "exactly what it is"
                )
                assert codecs.endswith("opus") == (group == "audio-opus")


async def test_several_rungs_go_on_at_another_origin() -> None:
    """The first one dies: of no rung and no language a unit is missing, or there twice."""
    require("ffmpeg")
    clip = make_ladder_clip(PLAIN, (("aac", "eng"), ("aac", "deu")), seconds=14)
    with trio.fail_after(70):
        async with open_pair() as pair:
            viewer = Viewer(pair.http, "one")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(publish_clip, clip, pair.publish_url())

                async def kill() -> None:
                    harmed = await pair.home()
                    await trio.sleep(5.3)
                    pair.origins[harmed].process.kill()

                nursery.start_soon(kill)
                await viewer.watch()
            assert sorted(viewer.tracks) == ["a0", "a1", "v0", "v1", "v2"]
            for track in viewer.tracks.values():
                track.check_flow(stall_s_max=3.0)
            check_same(read_renditions(clip), renditions_of(viewer))
            assert len(pair.pop.log("publisher started")) == 1
            assert len(pair.pop.log("stream goes on elsewhere")) == 1


# In Chromium, with the watch page's hls.js, which is as it comes.


def require_player() -> None:
    require("chromium", "ffmpeg")
    if read_hls() is None:
        require("npm")
        pytest.fail("npm is here, but hls.js is not: install the project again")


@asynccontextmanager
async def watching(clip: Path) -> AsyncIterator[Page]:
    """The clip published at one PoP, looped; the other PoP's watch page in Chromium."""
    async with open_demo() as demo, open_browser() as browser, trio.open_nursery() as nursery:
        place = parse_url(demo.publish_url("west"))
        run = partial(publish, [place], FileSource(clip), unix_now=time.time)
        await nursery.start(lambda task_status: run(task_status=task_status))
        page = await browser.open_page()
        await page.navigate(f"{demo.playback('east')}/watch/mine")
        yield page
        nursery.cancel_scope.cancel()


async def snapshot(page: Page) -> dict[str, object]:
    seen = await page.evaluate("window.edged.snapshot()")
    assert isinstance(seen, dict)
    return seen


async def check_smooth(page: Page, act: Callable[[], Awaitable[None]]) -> None:
    """While that is done the picture moves all the time.

    A busy machine may drop frames, but there is no stall.
    """

    async def run() -> tuple[int, float]:
        before, began_at = await snapshot(page), trio.current_time()
        await act()
        after, seconds = await snapshot(page), trio.current_time() - began_at
        frames = int(str(after["totalFrames"])) - int(str(before["totalFrames"]))
        return int(str(after["stalls"])) - int(str(before["stalls"])), frames / seconds

    stalls, rate = await run_undisturbed(run)
    assert stalls == 0
    assert rate > 0.6 * RATE


@pytest.mark.alone
@pytest.mark.parametrize(
    "pair",
    [
        "vp9-opus",
        "av1-opus",
        pytest.param("h264-aac", marks=pytest.mark.slow),  # Others have the browser play it, too.
        pytest.param("av1-aac", marks=pytest.mark.slow),
    ],
)
async def test_chromium_plays(pair: str) -> None:
    require_player()
    video, _, audio = pair.partition("-")
    with trio.fail_after(90):
        async with watching(make_clip(video, audio)) as page:
            await page.wait_for(f"{STATE} === 'live'", 20)
            await trio.sleep(2)  # Over any seek at start.
            await check_smooth(page, partial(trio.sleep, 4))
            codec = await page.evaluate(f"{HLS}.levels[0].videoCodec")
            assert str(codec).startswith(NAMES[video])
            fatal = [e for e in (await snapshot(page))["errors"] if "fatal" in str(e)]  # type: ignore[attr-defined]
            assert fatal == []


@pytest.mark.alone
async def test_chromium_takes_the_rungs_that_it_can_play() -> None:
    """Of HEVC, AV1 and H.264 Debian's Chromium lacks the first, by CODECS alone."""
    require_player()
    with trio.fail_after(90):
        async with watching(make_ladder_clip(MIXED, (("aac", "eng"), ("aac", "deu")))) as page:
            await page.wait_for(f"{STATE} === 'live'", 20)
            has_hevc = await page.evaluate(
                "MediaSource.isTypeSupported('video/mp4; codecs=\"hvc1.1.6.L63.90\"')"
            )
            levels = await page.evaluate(
                f"{HLS}.levels.map((level) => level.videoCodec.slice(0, 4))"
            )
            assert isinstance(levels, list)
            assert sorted(levels) == sorted(["av01", "avc1"] + ["hvc1"] * bool(has_hevc))
            await trio.sleep(2)
            await check_smooth(page, partial(trio.sleep, 3))


@pytest.mark.alone
async def test_chromium_changes_rungs_without_a_stall() -> None:
    require_player()
    clip = make_ladder_clip(PLAIN, (("aac", "eng"), ("aac", "deu")), seconds=12, gop=60)
    with trio.fail_after(120):
        async with watching(clip) as page:
            await page.wait_for(f"{STATE} === 'live'", 20)
            await page.wait_for(f"{HLS}.levels.length === 3")
            heights = await page.evaluate(f"{HLS}.levels.map((level) => level.height)")
            assert heights == [180, 270, 360], "hls.js sorts them by bit rate"
            await trio.sleep(2)

            async def change() -> None:
                for level, height in ((0, 180), (2, 360), (1, 270), (2, 360)):
                    await page.evaluate(f"{HLS}.nextLevel = {level}")
                    shown = f"window.edged.video.videoHeight === {height}"
                    await page.wait_for(shown, SWITCH_S_MAX)
                    await trio.sleep(1.5)

            await check_smooth(page, change)


@pytest.mark.alone
async def test_chromium_changes_languages_without_a_stall() -> None:
    """Which tone is heard, told by the spectrum of what the page plays."""
    require_player()
    clip = make_ladder_clip(PLAIN, (("aac", "eng"), ("aac", "deu")), seconds=12, gop=60)
    with trio.fail_after(120):
        async with watching(clip) as page:
            await page.wait_for(f"{STATE} === 'live'", 20)
            tracks = await page.evaluate(f"{HLS}.audioTracks.map((t) => [t.name, t.lang])")
            assert tracks == [["eng", "eng"], ["deu", "deu"]]
            await page.evaluate(LISTEN)
            await page.wait_for("Math.abs(window.tone() - 440) < 40", SWITCH_S_MAX)

            async def change() -> None:
                for number, tone in ((1, 880), (0, 440)):
                    await page.evaluate(f"{HLS}.nextAudioTrack = {number}")
                    await page.wait_for(f"Math.abs(window.tone() - {tone}) < 40", SWITCH_S_MAX)
                    await trio.sleep(1.5)

            await check_smooth(page, change)


async def options(page: Page, menu: str) -> object:
    return await page.evaluate(
        f"[...document.querySelectorAll('#{menu} label span')].map((each) => each.textContent)"
    )


async def choose(page: Page, menu: str, value: int | str) -> None:
    """As a viewer does."""
    await page.evaluate(f"document.querySelector('#{menu} input[value=\"{value}\"]').click()")


@pytest.mark.alone
async def test_the_watch_page_offers_qualities_languages_and_latencies() -> None:
    """And for another quality the picture does not stand still."""
    require_player()
    clip = make_ladder_clip(PLAIN, (("aac", "eng"), ("aac", "deu")), seconds=12, gop=60)
    with trio.fail_after(120):
        async with watching(clip) as page:
            await page.wait_for(f"{STATE} === 'live'", 20)
            await page.wait_for("!document.getElementById('quality').hidden")
            assert await options(page, "quality") == ["Auto", "360p30", "270p30", "180p30"]
            assert await options(page, "language") == ["English", "German"]
            assert await options(page, "latency-mode") == ["Low", "Standard"]
            await check_keyboard(page)
            await trio.sleep(2)

            async def change() -> None:
                await choose(page, "quality", 0)
                await page.wait_for("window.edged.video.videoHeight === 180", SWITCH_S_MAX)
                await page.wait_for("document.getElementById('now').textContent === '180p30'")
                chosen = "document.querySelector('#quality input:checked').value"
                assert await page.evaluate(chosen) == "0"
                await trio.sleep(1.5)
                await choose(page, "quality", -1)
                await page.wait_for(f"{HLS}.autoLevelEnabled")
                await trio.sleep(3)

            await check_smooth(page, change)
            await choose(page, "language", 1)
            await page.wait_for(f"{HLS}.audioTrack === 1")
            assert [line for line in page.console if "404" not in line] == []


async def check_keyboard(page: Page) -> None:
    """The menu opens by a key, is walked through by arrows, and closes by Escape."""

    async def press(key: str, code: int = 0) -> None:
        for kind in ("keyDown", "keyUp"):
            await page.command(
                "Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code,
                **({"text": key} if len(key) == 1 and kind == "keyDown" else {}),
            )  # fmt: skip

    await press("s")
    await page.wait_for("document.getElementById('menu').matches(':popover-open')")
    await page.wait_for("document.activeElement?.value === '-1'")
    assert await page.evaluate("document.getElementById('settings').ariaExpanded") == "true"
    await press("ArrowDown", 40)
    await page.wait_for(f"{HLS}.autoLevelEnabled === false")
    await press("ArrowUp", 38)
    await page.wait_for(f"{HLS}.autoLevelEnabled")
    await press("Escape", 27)
    await page.wait_for("!document.getElementById('menu').matches(':popover-open')")


@pytest.mark.alone
async def test_the_watch_page_goes_back_in_time_and_to_either_latency() -> None:
    require_player()
    with trio.fail_after(110):
        async with watching(make_clip(seconds=12, gop=60)) as page:
            await page.wait_for(f"{STATE} === 'live'", 20)
            for menu in ("quality", "language"):
                assert await page.evaluate(f"document.getElementById('{menu}').hidden") is True
            assert await page.evaluate("document.getElementById('seek').hidden") is True
            await page.wait_for("!document.getElementById('seek').hidden", 20)

            async def travel() -> None:
                await page.evaluate(SEEK_BACK)
                await page.wait_for("window.edged.snapshot().rewound")
                behind = "window.edged.snapshot().behindS"
                await page.wait_for(f"{behind} > 7 && {behind} < 12")
                await page.wait_for("!document.getElementById('to-live').hidden")
                await trio.sleep(1)
                await page.evaluate("document.getElementById('to-live').click()")
                await page.wait_for(f"{behind} < 2.5")
                await choose(page, "latency-mode", "standard")
                await page.wait_for(f"{behind} > 5")
                await trio.sleep(3)
                await choose(page, "latency-mode", "low")
                await page.wait_for(f"{behind} < 2.5", 10)
                await trio.sleep(1)

            await check_smooth(page, travel)
            await choose(page, "latency-mode", "standard")
            await page.navigate(str(await page.evaluate("location.href")))
            await page.wait_for("window.edged?.snapshot().latencyMode === 'standard'")
            for width, height in ((1280, 800), (390, 760)):
                await page.set_viewport(width, height, mobile=width < 500)
                overflow = "document.documentElement.scrollWidth - innerWidth"
                assert await page.evaluate(overflow) == 0


SEEK_BACK = """(() => {
  const bar = document.getElementById("seek-at");
  bar.dispatchEvent(new Event("input"));
  bar.value = "-8";
  bar.dispatchEvent(new Event("change"));
})()"""
LISTEN = """(() => {
  const context = new AudioContext();
  const analyser = context.createAnalyser();
  analyser.fftSize = 8192;
  const { video } = window.edged;
  video.muted = false;
  context.createMediaElementSource(video).connect(analyser);
  const bins = new Float32Array(analyser.frequencyBinCount);
  window.tone = () => {
    analyser.getFloatFrequencyData(bins);
    return bins.indexOf(Math.max(...bins)) * context.sampleRate / analyser.fftSize;
  };
})()"""


async def test_hevc_is_named_and_decoded() -> None:
    """FFmpeg as the player that has it: the pictures are those of the clip."""
    require("ffmpeg", "ffprobe")
    clip = make_clip("hevc", "opus", seconds=4)
    with trio.fail_after(60):
        async with open_demo() as demo:
            viewer = Viewer(demo.playback("east"), "mine")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(publish_pyav, clip, demo.publish_url("west"))
                await viewer.watch()
            await check_pictures(viewer, clip, 1)
            (variant,) = variants_of(viewer.master)
            video, audio = variant["CODECS"].split(",")
            assert re.fullmatch(r"hvc1\.1\.6\.L\d+(\.[0-9A-F]{1,2})*", video)
            assert audio == "opus"
            done = await trio.run_process(
                ["ffprobe", "-v", "error", "-show_streams", "-of", "json",
                 viewer.tracks["v0"].url],
                capture_stdout=True,
            )  # fmt: skip
            (stream,) = json.loads(done.stdout)["streams"]
            assert (stream["codec_name"], stream["codec_tag_string"]) == ("hevc", "hvc1")
            assert Fraction(stream["r_frame_rate"]) == RATE
