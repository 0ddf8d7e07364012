"""The first picture: published at PoP west of the real demo, watched at PoP east in Chromium."""

import time
from fractions import Fraction

import pytest
import trio
from msgspec import Struct

from edged.playback.web.pages import read_hls
from edged.tools.test_picture import PictureConfig, TestPicture
from edged.tools.test_publisher import publish
from edged.wire.rtmp import parse_url
from tests.conftest import require
from tests.e2e.browser import Page, open_browser
from tests.e2e.glass import GlassReport, read_glass, start_glass
from tests.e2e.machine import run_undisturbed
from tests.e2e.network import Demo, open_demo

pytestmark = [pytest.mark.e2e, pytest.mark.alone]

FPS = Fraction(30)
WATCHED_S = 15.0  # Ten minutes, and over TLS, in `test_glass_to_glass`.
FRAMES_SHARE_MIN = 0.95
GLASS_P50_MS_MAX = 2400.0  # Twice the goal: CI's machine is shared.
SHOWN_MS_OFF_MAX = 300.0  # The page's own figure from the truth.
START_S_MAX = (
    30.0  # From the start of `edged demo` to a moving picture, the browser's own included.
)
STATE = "window.edged?.snapshot().state"
# The time ranges that hls.js has in each of its two source buffers.
NOTE_BUFFERS = """window.edged.player.hls.on(Hls.Events.BUFFER_APPENDED, (_, data) => {
  window.buffered = Object.fromEntries(Object.entries(data.timeRanges).map(([kind, ranges]) =>
    [kind, ranges.length ? ranges.end(ranges.length - 1) - window.edged.video.currentTime : 0]));
})"""


def require_player() -> None:
    """Tests load nothing from a CDN: without the vendored hls.js, npm is missing."""
    require("chromium")
    if read_hls() is None:
        require("npm")
        pytest.fail("npm is here, but hls.js is not: install the project again")


async def stats(page: Page) -> dict[str, object]:
    """The page's own figures."""
    seen = await page.evaluate("window.edged.snapshot()")
    assert isinstance(seen, dict)
    return seen


async def number(page: Page, script: str) -> float:
    """The value of an expression that is a number."""
    value = await page.evaluate(script)
    assert isinstance(value, int | float), f"{script} is {value!r}"
    return float(value)


async def frames_presented(page: Page) -> float:
    """So far, without the dropped ones."""
    return await number(
        page,
        "(q => q.totalVideoFrames - q.droppedVideoFrames)(edged.video.getVideoPlaybackQuality())",
    )


async def frames_share(page: Page, seconds: float) -> float:
    """Of the frames that are due from now on, those presented."""
    began_at, presented = trio.current_time(), await frames_presented(page)
    await trio.sleep(seconds)
    presented = await frames_presented(page) - presented
    return presented / (float(FPS) * (trio.current_time() - began_at))


class Watched(Struct, frozen=True, kw_only=True):
    """What a viewer had of 30 seconds."""

    frames_share: float
    glass: GlassReport
    settled: dict[str, object]  # The page's figures before, and after.
    seen: dict[str, object]
    buffered: object
    title: object
    console: list[str]


async def watch(page: Page, demo: Demo, picture: TestPicture) -> Watched:
    """Open the watch page at PoP east and stay."""
    page.console.clear()
    await page.navigate(f"{demo.playback('east')}/watch/mine")
    # Before the first frame the channel is not there yet: its 404 is no error of the page.
    await page.wait_for(f"{STATE} === 'live'", 30)
    await page.evaluate(NOTE_BUFFERS)
    await trio.sleep(1)  # Over the seek at start.
    page.console[:] = [line for line in page.console if "404" not in line]
    settled = await stats(page)
    await start_glass(page)
    share = await frames_share(page, WATCHED_S)
    return Watched(
        frames_share=share,
        seen=await stats(page),
        glass=await read_glass(page, started_unix_us=picture.started_unix_us, fps=FPS),
        settled=settled,
        buffered=await page.evaluate("window.buffered"),
        title=await page.evaluate("document.getElementById('latency').textContent"),
        console=list(page.console),
    )


@pytest.mark.slow  # 25 s: in CI `test_glass_to_glass` looks at such a page.
@pytest.mark.timeout(200)
async def test_a_while_at_the_other_pop() -> None:
    require_player()
    picture = TestPicture(PictureConfig())
    with trio.fail_after(180):
        async with open_demo() as demo, open_browser() as browser, trio.open_nursery() as nursery:
            nursery.start_soon(broadcast, demo, picture)
            page = await browser.open_page()
            watched = await run_undisturbed(lambda: watch(page, demo, picture))
            await check_controls(page)
            nursery.cancel_scope.cancel()
    glass, seen = watched.glass, watched.seen
    assert watched.frames_share >= FRAMES_SHARE_MIN, seen
    shown = {sample.counter for sample in glass.samples}
    assert len(shown) >= FRAMES_SHARE_MIN * WATCHED_S * FPS, "and they advanced"
    assert glass.unread == 0
    assert glass.p50_ms <= GLASS_P50_MS_MAX
    latency = seen["latencyMs"]
    assert isinstance(latency, int)
    assert abs(latency - glass.p50_ms) <= SHOWN_MS_OFF_MAX, f"{glass.p50_ms:.0f} ms in truth"
    assert str(watched.title).replace(",", "").isdigit(), "and the person sees it"
    assert (seen["state"], seen["stalls"], seen["starts"]) == ("live", 0, 1)
    assert seen["seeksToEdge"] in (0, 1)
    assert (seen["rung"], seen["errors"]) == ("720p30", watched.settled["errors"])
    # hls.js may nudge itself once, on the small buffer after the seek at start.
    assert watched.settled["errors"] in ([], ["bufferNudgeOnStall"]), "at the start at most one"
    assert isinstance(watched.buffered, dict)
    assert sorted(watched.buffered) == ["audio", "video"]
    assert all(ahead_s > 0 for ahead_s in watched.buffered.values()), watched.buffered
    assert watched.console == []


async def broadcast(demo: Demo, picture: TestPicture) -> None:
    """Publish at west until cancelled."""
    await publish([parse_url(demo.publish_url("west"))], picture, unix_now=time.time)


async def check_controls(page: Page) -> None:
    """They have left the picture alone by now, and come back when someone reaches for them."""
    idle = "document.getElementById('stage').classList.contains('idle')"
    assert await page.evaluate(idle)
    for x in (200, 210):
        await page.command("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=300)
    await page.wait_for(f"!{idle}")
    bar = "getComputedStyle(document.getElementById('bar')).opacity"
    await page.wait_for(f"{bar} === '1'")
    await page.wait_for(f"{bar} === '0'", 6)


async def test_a_moving_picture_soon_after_the_demo_starts() -> None:
    """With the demo's own publisher, as a person sees it who types `edged demo`."""
    require_player()
    started_at = time.monotonic()
    with trio.fail_after(90):
        async with open_demo("--publisher") as demo, open_browser() as browser:
            page = await browser.open_page()
            await page.navigate(demo.addresses.watch["east"])
            await page.wait_for(f"{STATE} === 'live'", 30)
            first = await number(page, "edged.video.currentTime")
            await page.wait_for(f"edged.video.currentTime > {first}")
            took_s = time.monotonic() - started_at
            assert took_s < START_S_MAX
            await trio.sleep(1)  # Over the seek at start.
            share = await run_undisturbed(lambda: frames_share(page, 2.0))
            assert share >= FRAMES_SHARE_MIN, await stats(page)
            landing = await browser.open_page()
            await landing.navigate(f"{demo.playback('west')}/")
            await landing.wait_for("document.querySelector('.card h2')?.textContent")
            card = await landing.evaluate("document.querySelector('.card').href")
            assert card == demo.addresses.watch["west"]
