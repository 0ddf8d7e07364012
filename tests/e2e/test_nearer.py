"""A viewer whose network was away for some seconds comes back to live by itself, unheard."""

import pytest
import trio

from tests.e2e.browser import open_browser
from tests.e2e.proxy import Weather, open_proxy
from tests.e2e.test_glass_to_glass import on_air
from tests.e2e.test_watch_page import STATE, require_player, stats

pytestmark = [pytest.mark.e2e, pytest.mark.alone, pytest.mark.slow, pytest.mark.timeout(240)]

RTT_S = 0.02
AWAY_S = 3.0
BACK_S_MAX = (
    110.0  # Three seconds at a twentieth more, and half a minute until a stall is forgotten.
)
NEAR_S = 0.35
BEHIND = "window.edged.snapshot().behindS - window.firstHoldBackS"
RATE = "document.querySelector('video').playbackRate"


async def test_after_an_outage_it_is_where_it_was() -> None:
    require_player()
    weather = Weather(rtt_s=RTT_S)
    async with (
        on_air("two") as (network, _),
        open_proxy(network.ports["b.https"], weather) as proxy,
        open_browser() as browser,
    ):
        page = await browser.open_page()
        await page.navigate(f"https://127.0.0.1:{proxy.port}/watch/two")
        await page.wait_for(f"{STATE} === 'live'", 20)
        await trio.sleep(4)
        before = await stats(page)
        await page.evaluate("window.firstHoldBackS = window.edged.snapshot().holdBackS")
        weather.rtt_s = 2 * AWAY_S  # What is sent now comes so much later.
        await trio.sleep(AWAY_S)
        weather.rtt_s = RTT_S
        await page.wait_for(f"{STATE} === 'live' && {BEHIND} > 1", 20)
        fell_back = await stats(page)
        await page.wait_for(f"{RATE} > 1", 10)
        began_at = trio.current_time()
        await page.wait_for(f"{BEHIND} < {NEAR_S} && {RATE} === 1", BACK_S_MAX)
        took_s = trio.current_time() - began_at
        after = await stats(page)
    print(f"{fell_back['behindS']} s behind, back after {took_s:.0f} s; {after}")
    assert float(str(fell_back["stalls"])) > float(str(before["stalls"]))
    assert after["stalls"] == fell_back["stalls"], "none by coming nearer"
    assert after["seeksToEdge"] == before["seeksToEdge"]
    assert float(str(after["holdBackS"])) == pytest.approx(
        float(str(before["holdBackS"])), abs=0.05
    )
    assert after["rewound"] is False
