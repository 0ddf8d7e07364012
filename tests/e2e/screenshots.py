"""Pictures of what people look at: the watch, the status and the network page, as most see them.

python -m tests.e2e.screenshots FOLDER          # twelve files: desktop and phone, light and dark
python -m tests.e2e.screenshots FOLDER network  # four of the network page, after a minute's play
"""

import sys
import time
from functools import partial
from pathlib import Path

import trio

from edged.policy.network_history import NetworkHistory
from tests.bench.network.world import play
from tests.e2e.browser import Page, open_browser
from tests.e2e.clip import RATE, Rung, make_ladder_clip
from tests.e2e.publisher import publish_clip
from tests.e2e.test_codecs import SEEK_BACK
from tests.e2e.test_network_page import serving
from tests.e2e.test_status_page import GOP_S, TOKEN, Setting, open_setting
from tests.e2e.test_watch_page import STATE

SCREENS = {"desktop": (1440, 900, False), "phone": (390, 844, True)}
SCHEMES = ("light", "dark")
SETTLED_S = 14.0  # The ingest health has something to say by then, and there is a seek bar.
RUNGS = tuple(
    Rung("h264", size, kbps)
    for size, kbps in (((640, 360), 900), ((480, 270), 500), ((320, 180), 200))
)
SLOTS = 2000  # Of the world that the network page shows.
CUT_AT = 215  # The sample with two links cut, and one that fills.
SOUNDS = (("aac", "eng"), ("aac", "deu"))


async def take_all(page: Page, name: str, folder: Path) -> None:
    """One page on all screens."""
    for screen, (width, height, mobile) in SCREENS.items():
        await page.set_viewport(width, height, scale=2.0 if mobile else 1.0, mobile=mobile)
        for scheme in SCHEMES:
            await page.set_colour_scheme(scheme)
            await trio.sleep(0.5)
            path = folder / f"{name}-{screen}-{scheme}.png"
            await page.take_screenshot(path)
            print(path)


async def show_controls(page: Page) -> None:
    """They leave the picture alone otherwise; and someone has gone back a few seconds."""
    await page.evaluate("document.getElementById('stage').classList.add('choosing')")
    await page.evaluate(SEEK_BACK)


async def show(setting: Setting, folder: Path) -> None:
    async with open_browser() as browser:
        status = await browser.open_page()
        await status.navigate(f"{setting.page}#{TOKEN}")
        watch = await browser.open_page()
        await watch.navigate(f"{setting.http}/watch/one")
        await watch.wait_for(f"{STATE} === 'live'", 20)
        await trio.sleep(SETTLED_S)
        await show_controls(watch)
        await take_all(watch, "watch", folder)
        await watch.evaluate("document.getElementById('settings').click()")
        await take_all(watch, "menu", folder)
        await watch.close()
        await take_all(status, "status", folder)


async def show_network(history: NetworkHistory, folder: Path) -> None:
    """An hour of the simulator's world, at its most interesting moment."""
    with trio.fail_after(60):
        async with serving(history.after) as address, open_browser() as browser:
            page = await browser.open_page(1440, 900)
            await page.navigate(f"{address}#{TOKEN}")
            await page.wait_for("document.querySelectorAll('.spot').length > 100", 20)
            await page.evaluate(
                "const slider = document.getElementById('slider');"
                f"slider.value = {CUT_AT}; slider.dispatchEvent(new Event('input'))"
            )
            await take_all(page, "network", folder)


def play_hour() -> NetworkHistory:
    history = NetworkHistory("0a1b")
    places, taken = play(SLOTS, ends_unix=time.time())
    for each in taken:
        history.add(each.sample, places, each.events)
    return history


async def main(folder: Path) -> None:
    clip = make_ladder_clip(RUNGS, SOUNDS, seconds=60, gop=round(GOP_S * RATE))
    with trio.fail_after(120):
        async with open_setting() as setting, trio.open_nursery() as nursery:
            nursery.start_soon(publish_clip, clip, setting.rtmp)
            await setting.pop.wait_log("stream placed")
            await show(setting, folder)
            nursery.cancel_scope.cancel()


if __name__ == "__main__":
    into = Path(sys.argv[1])
    into.mkdir(parents=True, exist_ok=True)
    if sys.argv[2:] == ["network"]:
        trio.run(partial(show_network, play_hour(), into))
    else:
        trio.run(main, into)
