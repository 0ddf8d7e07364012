"""A viewer's network becomes slow and fast again: the player leaves a rung and comes back to it."""

import time
from functools import partial

import pytest
import trio
from msgspec import Struct

from edged.tools.file_source import FileSource
from edged.tools.test_publisher import publish
from edged.wire.rtmp import parse_url
from tests.conftest import require
from tests.e2e.browser import Page, open_browser
from tests.e2e.clip import Rung, make_ladder_clip
from tests.e2e.machine import run_undisturbed
from tests.e2e.network import open_network
from tests.e2e.pictures import SLACK, STILL_MS_MAX, Still, longest_still, note_pictures
from tests.e2e.proxy import Weather, open_proxy
from tests.e2e.test_watch_page import STATE, require_player, stats

pytestmark = [pytest.mark.e2e, pytest.mark.alone, pytest.mark.timeout(270)]

RUNGS = (
    Rung("h264", (640, 360), 1600),
    Rung("h264", (480, 270), 650),
    Rung("h264", (320, 180), 200),
)
SLOW_BYTES_PER_S = 1_000_000 / 8
RTT_S = 0.02
DOWN_S_MAX = 10.0
SLOW_S = 7.0  # From the change down: what comes after it must hold.
GOP_S = 1.0
UP_S_MAX = 20.0  # hls.js takes one rung at a time, and not on the first good sign.
COUNTED = ("stalls", "starts", "seeksToEdge")  # In the page's snapshot.
HEIGHT = "window.edged.video.videoHeight"
NOTE_HEIGHTS = """(() => {
  window.heights = [window.edged.video.videoHeight];
  window.edged.video.addEventListener("resize", () => window.heights.push(window.edged.video.videoHeight));
})()"""  # noqa: E501 - a line of the page's


class Adapted(Struct, frozen=True):
    """What a viewer had of it."""

    stalls: int
    starts: int  # That the page began anew,
    seeks: int  # and that it jumped to the live edge.
    still: Still
    slow: list[int]  # The heights while it was slow, the first before.
    after: list[int]


async def adapt(page: Page, url: str, weather: Weather) -> Adapted:
    """Watch over a good network, then a slow one, then the good one."""
    weather.down.bytes_per_s = None
    await page.navigate(url)
    await page.wait_for(f"{STATE} === 'live'", 20)
    await page.wait_for(f"{HEIGHT} === 360", 10)
    await trio.sleep(3)  # Over any seek at start.
    await page.wait_for(f"{HEIGHT} === 360", UP_S_MAX)  # A busy machine is a slow network, too.
    await page.evaluate(NOTE_HEIGHTS)
    await note_pictures(page)
    before = await stats(page)
    weather.down.bytes_per_s = SLOW_BYTES_PER_S
    await page.wait_for(f"{HEIGHT} < 360", DOWN_S_MAX)
    await trio.sleep(SLOW_S)
    slow = await page.evaluate("window.heights.splice(0)")
    weather.down.bytes_per_s = None
    await page.wait_for(f"{HEIGHT} === 360", UP_S_MAX)
    await trio.sleep(2)
    still = await longest_still(page)
    after, heights = await stats(page), await page.evaluate("window.heights")
    assert isinstance(slow, list)
    assert isinstance(heights, list)
    assert after["protocol"] == "h2"
    more = {name: int(str(after[name])) - int(str(before[name])) for name in COUNTED}
    return Adapted(
        stalls=more["stalls"],
        starts=more["starts"],
        seeks=more["seeksToEdge"],
        still=still,
        slow=slow,
        after=heights,
    )


async def test_down_the_ladder_and_up_again() -> None:
    """A second from live, over TLS and HTTP/2, to 1 Mbps and back; rungs by E-RTMP multitrack."""
    require("ffmpeg")
    require_player()
    clip = make_ladder_clip(RUNGS, (("aac", "eng"),), seconds=45, gop=round(30 * GOP_S))
    weather = Weather(rtt_s=RTT_S)
    with trio.fail_after(260):
        async with (
            open_network(channels=("one",)) as network,
            open_proxy(network.ports["b.https"], weather) as proxy,
            open_browser() as browser,
            trio.open_nursery() as nursery,
        ):
            place = parse_url(network.publish_url("a", "one"))
            run = partial(publish, [place], FileSource(clip), unix_now=time.time)
            await nursery.start(lambda task_status: run(task_status=task_status))
            await network.hosts["a"].edged.wait_log("stream placed")
            await trio.sleep(3)  # A segment or two.
            page = await browser.open_page()
            url = f"https://127.0.0.1:{proxy.port}/watch/one"
            # Mostly a picture stands for 50 ms. Where a rung has to be left between two key frames,
            # and the browser has decoded beyond the first, the last one does until the second: a
            # GOP at most, and not in two of three.
            is_short = await watch_once(page, url, weather)
            if not is_short:
                assert await watch_once(page, url, weather)
                assert await watch_once(page, url, weather)
            nursery.cancel_scope.cancel()


async def watch_once(page: Page, url: str, weather: Weather) -> bool:
    """There and back; whether no picture stood for long."""
    adapted = await run_undisturbed(lambda: adapt(page, url, weather))
    print(adapted)
    assert adapted.slow[0] == 360
    assert max(adapted.slow[1:]) < 360, "1 Mbps is too little for it"
    assert 360 in adapted.after
    assert (adapted.stalls, adapted.starts, adapted.seeks) == (0, 0, 0), adapted
    assert adapted.still.ms <= 1000 * GOP_S, adapted
    return adapted.still.ms <= SLACK * STILL_MS_MAX
