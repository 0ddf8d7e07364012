"""The pages in Chromium, before one edge in this process: no publisher, no backbone."""

from fractions import Fraction

import pytest
import trio

from edged.playback.web.pages import read_hls
from edged.tools.bitstrip import COUNTER_MAX, counter_cells
from tests.conftest import require
from tests.e2e.browser import Browser, Page, open_browser
from tests.e2e.glass import SCRIPT, read_glass, start_glass
from tests.e2e.tiny_edge import CHANNEL, TITLE, TinyEdge, open_tiny_edge

pytestmark = pytest.mark.e2e

STATE = "window.edged?.snapshot().state"


def require_player() -> None:
    """Tests load nothing from a CDN: without the vendored hls.js, npm is missing."""
    require("chromium")
    if read_hls() is None:
        require("npm")
        pytest.fail("npm is here, but hls.js is not: install the project again")


async def stats(page: Page) -> dict[str, object]:
    seen = await page.evaluate("window.edged.snapshot()")
    assert isinstance(seen, dict)
    return seen


def problems(page: Page) -> list[str]:
    """What the console shows beside the 404 that an offline channel is."""
    return [line for line in page.console if "404" not in line]


async def open_watch(browser: Browser, edge: TinyEdge, channel: str = CHANNEL) -> Page:
    page = await browser.open_page()
    await page.navigate(f"{edge.address}/watch/{channel}")
    return page


async def test_offline_channel_says_so_and_landing_page_is_empty() -> None:
    require("chromium")
    with trio.fail_after(60):
        async with open_tiny_edge() as edge, open_browser() as browser:
            page = await open_watch(browser, edge, "no%20one")
            await page.wait_for(f"{STATE} === 'offline'")
            assert await page.evaluate("document.title") == "no one · edged"
            assert (
                await page.evaluate("document.getElementById('badge-text').textContent")
                == "Offline"
            )
            veil = "document.getElementById('veil-head').textContent"
            assert await page.evaluate(veil) == "no one is offline"
            assert await page.evaluate("document.getElementById('unmute').hidden")
            await page.wait_for("window.edged.clock.known")
            offset = (await stats(page))["clockOffsetMs"]
            assert isinstance(offset, float | int)
            assert abs(offset) < 50  # The same clock.
            for width in (390, 320):
                await page.set_viewport(width, 700, mobile=True)
                overflow = "document.documentElement.scrollWidth - innerWidth"
                assert await page.evaluate(overflow) == 0
            assert problems(page) == []
            await page.navigate(f"{edge.address}/")
            await page.wait_for("!document.getElementById('empty').hidden")
            assert problems(page) == []


@pytest.mark.alone
async def test_stream_comes_is_measured_ends_and_comes_back() -> None:
    require_player()
    with trio.fail_after(90):
        async with (
            open_tiny_edge() as edge,
            open_browser() as browser,
            trio.open_nursery() as nursery,
        ):
            page = await open_watch(browser, edge)
            await page.wait_for(f"{STATE} === 'offline'")
            nursery.start_soon(edge.broadcast, 16.0)
            await page.wait_for(f"{STATE} === 'live'", 12)
            await trio.sleep(2)  # Over any seek at start.
            await start_glass(page)
            await trio.sleep(4)
            seen = await stats(page)
            tolerance = "window.edged.player.hls.streamController.fragmentTracker.bufferPadding"
            told = await page.evaluate(tolerance)
            assert told == 0.004, (
                "a name of hls.js's own: a segment's short last part is not missed"
            )
            assert edge.picture is not None
            glass = await read_glass(
                page, started_unix_us=edge.picture.started_unix_us, fps=Fraction(30)
            )
            assert glass.unread == 0
            assert len(glass.samples) > 80
            assert glass.p50_ms < 2400
            latency = seen["latencyMs"]
            assert isinstance(latency, int)
            assert abs(latency - glass.p50_ms) < 250  # The page's own figure is the truth.
            assert (seen["width"], seen["height"], seen["rung"]) == (1280, 720, "720p30")
            assert (seen["stalls"], seen["title"], seen["muted"]) == (0, TITLE, True)
            await page.evaluate("document.getElementById('unmute').click()")
            assert (await stats(page))["muted"] is False
            await page.wait_for(f"{STATE} === 'ended'", 20)
            nursery.start_soon(edge.broadcast, 60.0)
            await page.wait_for(f"{STATE} === 'live'", 12)
            assert problems(page) == []
            nursery.cancel_scope.cancel()


@pytest.mark.light
async def test_a_freeze_is_shown_and_overcome() -> None:
    require_player()
    with trio.fail_after(90):
        async with (
            open_tiny_edge() as edge,
            open_browser() as browser,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(edge.broadcast, 80.0)
            page = await open_watch(browser, edge)
            await page.wait_for(f"{STATE} === 'live'", 15)
            edge.paused = True
            await page.wait_for(f"{STATE} === 'stalled'", 10)
            assert (await stats(page))["stalls"] == 1
            edge.paused = False
            await page.wait_for(f"{STATE} === 'live'", 30)
            nursery.cancel_scope.cancel()


async def test_the_strip_is_decoded_in_the_browser_as_in_python() -> None:
    require("chromium")
    counters = [0, 1, 2**31, COUNTER_MAX, 0x1234_5678, 0xDEAD_BEEF]
    with trio.fail_after(60):
        async with open_browser() as browser:
            page = await browser.open_page()
            await page.evaluate(SCRIPT.read_text())
            for counter in counters:
                cells = [bool(counter_cells(counter) >> (39 - cell) & 1) for cell in range(40)]
                literal = str(cells).lower()
                assert await page.evaluate(f"window.glass.decode({literal})") == counter
                cells[20] = not cells[20]
                literal = str(cells).lower()
                assert await page.evaluate(f"window.glass.decode({literal})") is None
