"""HTTP/2 over TLS, as browsers and curl speak it: a real stream on one connection."""

import pytest
import trio

from tests.conftest import require
from tests.e2e.browser import Page, open_browser
from tests.e2e.clip import make_clip, publish_ffmpeg
from tests.e2e.network import open_network
from tests.e2e.test_watch_page import STATE, require_player, stats

pytestmark = [pytest.mark.e2e, pytest.mark.alone, pytest.mark.timeout(120)]

PROTOCOLS = (
    "[...new Set(performance.getEntriesByType('resource')"
    ".filter((each) => each.name.includes('/live/')).map((each) => each.nextHopProtocol))]"
)
REQUESTS = (
    "performance.getEntriesByType('resource').filter((each) => each.name.includes('/live/')).length"
)
WATCHED_S = 5.0


async def curl(*arguments: str) -> str:
    done = await trio.run_process(
        ["curl", "-sk", "--max-time", "10", *arguments], capture_stdout=True, check=False
    )
    assert done.returncode == 0, done
    return done.stdout.decode()


async def test_a_browser_plays_over_one_connection_of_http_2() -> None:
    require("ffmpeg", "curl")
    require_player()
    clip = make_clip(seconds=30)
    with trio.fail_after(100):
        async with (
            open_network(channels=("one",)) as network,
            open_browser() as browser,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(publish_ffmpeg, clip, network.publish_url("a", "one"))
            await network.hosts["a"].edged.wait_log("stream placed")
            base = f"https://127.0.0.1:{network.ports['b.https']}"
            page = await browser.open_page()
            await page.navigate(f"{base}/watch/one")
            await page.wait_for(f"{STATE} === 'live'", 20)
            stalls, frames = await counts(page)
            await trio.sleep(WATCHED_S)
            stalls_after, frames_after = await counts(page)
            assert stalls_after == stalls
            assert frames_after - frames > (WATCHED_S - 2) * 24, "of 30 a second"
            assert await page.evaluate(PROTOCOLS) == ["h2"]
            requests = await page.evaluate(REQUESTS)
            assert isinstance(requests, int)
            assert requests > 5 * WATCHED_S, "parts and playlists, of sound and picture"
            metrics = await curl(f"http://127.0.0.1:{network.ports['b.metrics']}/metrics")
            (line,) = [each for each in metrics.splitlines() if "_multiplexed_connections{" in each]
            assert float(line.rpartition(" ")[2]) == 1, "Chromium needs no second one"

            # Another client, another stack; and who speaks HTTP/1.1 alone is served as before.
            for version, told in (("--http2", "2"), ("--http1.1", "1.1")):
                asked = ("-o", "-", "-w", "\n%{http_version} %{http_code}", "--compressed")
                answer = await curl(version, *asked, f"{base}/live/one/master.m3u8")
                assert answer.startswith("#EXTM3U"), answer
                assert answer.endswith(f"{told} 200")
            assert await curl("--http2", "-I", f"{base}/live/one/master.m3u8") != ""
            nursery.cancel_scope.cancel()


async def counts(page: Page) -> tuple[int, int]:
    """Stalls so far, and pictures shown."""
    seen = await stats(page)
    shown = await page.evaluate(
        "document.querySelector('video').getVideoPlaybackQuality().totalVideoFrames"
    )
    assert isinstance(seen["stalls"], int)
    assert isinstance(shown, int)
    return seen["stalls"], shown
