"""A rung that is no longer made: its viewers change to the source, and the picture goes on.

A partner takes a basic stream's slots while two viewers watch one of its rungs, which they have
chosen themselves: on our page, and with hls.js as it comes.
"""

import tempfile
from pathlib import Path

import pytest
import trio
from msgspec import Struct

from tests.bench.latency.viewer import HLS, open_stock_server, page_url
from tests.conftest import require
from tests.e2e.browser import Page, open_browser
from tests.e2e.clip import make_clip, publish_ffmpeg
from tests.e2e.machine import RUNS_MAX, Stillness, watch_machine
from tests.e2e.network import open_edged
from tests.e2e.pictures import SLACK, STILL_MS_MAX, Still, longest_still, note_pictures
from tests.e2e.test_ladder_slots import until_ladder, until_made, write_config
from tests.e2e.test_watch_page import require_player

pytestmark = [pytest.mark.e2e, pytest.mark.light, pytest.mark.timeout(180)]

MISSING = "window.edged.player.hls.levels.filter((l) => l.loadError).map((l) => l.height)"
VIDEO = "document.querySelector('video')"


class Viewer(Struct, frozen=True):
    """A page and its hls.js."""

    kind: str
    page: Page

    async def choose(self, height: int) -> None:
        """The rung of this height, until its picture is there."""
        hls = HLS[self.kind]
        await self.page.wait_for(f"{VIDEO}.currentTime > 1", 20)
        await self.page.evaluate(
            f"{hls}.nextLevel = {hls}.levels.findIndex((each) => each.height === {height})"
        )
        await self.page.wait_for(f"{VIDEO}.videoHeight === {height}", 20)

    async def seen(self) -> "Seen":
        """Since the pictures were noted."""
        found = await self.page.evaluate(f"[{VIDEO}.videoHeight, window.stalls]")
        assert isinstance(found, list)
        height, stalls = found
        return Seen(height, await longest_still(self.page), stalls)


class Seen(Struct, frozen=True):
    """What a viewer saw of it."""

    height: int
    still: Still
    stalls: int


async def watch_a_rung_go(clip: Path) -> tuple[dict[str, Seen], Stillness]:
    """By kind of viewer; and how the machine fared from just before it went."""
    with tempfile.TemporaryDirectory(prefix="edged-e2e-") as name:
        folder = Path(name)
        path, at = write_config(folder)
        rtmp, http = f"rtmp://{at['rtmp']}/live", f"http://{at['http']}"
        async with (
            open_edged(folder, "all", "run", "-c", str(path)) as edged,
            open_stock_server() as server,
            open_browser() as ours,  # A tab that is behind another stands still.
            open_browser() as another,
            trio.open_nursery() as nursery,
        ):
            await edged.wait_log("backbone session started", count=4)
            nursery.start_soon(publish_ffmpeg, clip, f"{rtmp}/key-of-one-only")
            await until_made(http, "v90p", 0)
            viewers = []
            for kind, browser in (("watch", ours), ("stock", another)):
                page = await browser.open_page(640, 360)
                await page.navigate(page_url(kind, server, http, "one"))
                viewers.append(Viewer(kind, page))
            for viewer in viewers:
                await viewer.choose(90)
            await trio.sleep(2)
            for viewer in viewers:
                await note_pictures(viewer.page)
            async with watch_machine() as stillness:
                await trio.sleep(1)
                nursery.start_soon(publish_ffmpeg, clip, f"{rtmp}/key-of-star-only")
                await until_ladder(folder, "one", "ladder preempted")
                for viewer in viewers:
                    await viewer.page.wait_for(f"{VIDEO}.videoHeight === 180", 20)
                await trio.sleep(2)
                assert await viewers[0].page.evaluate(MISSING) == [90, 120]
            seen = {viewer.kind: await viewer.seen() for viewer in viewers}
            nursery.cancel_scope.cancel()
    return seen, stillness


async def test_viewers_of_a_preempted_rung_go_on_with_the_source() -> None:
    require("ffmpeg")
    require_player()
    clip = make_clip(seconds=60)
    with trio.fail_after(170):
        for _ in range(RUNS_MAX):
            seen, stillness = await watch_a_rung_go(clip)
            print(seen)
            if not stillness.stood_still:
                break
    for each in seen.values():
        assert each.height == 180
        assert each.stalls == 0, seen
        assert each.still.ms <= SLACK * STILL_MS_MAX, seen
