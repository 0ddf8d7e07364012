"""Glass to glass over a network of 50 ms there and back that loses one packet in a hundred.

The proxy (`proxy.py`) holds all of a connection up with each loss until TCP has sent the packet
again. Playlists, sound and picture share the connection, as over HTTP/2.

hls.js begins to play when it has loaded all parts that there are of a segment, one after the other,
each for a round trip, and keeps what it is late by then; so the channel's class is `low`, whose
segments last a second.
"""

from functools import partial

import pytest

from tests.bench.latency.viewer import open_stock_server, page_url
from tests.e2e.browser import open_browser
from tests.e2e.proxy import Weather, open_proxy
from tests.e2e.test_glass_to_glass import (
    LONG_S,
    SLACK,
    begin,
    on_air,
    watch_kept_up,
)
from tests.e2e.test_watch_page import require_player

# Not part of CI yet: two of seven short runs of stock hls.js had a stall, and our page has given up
# what it had asked for and begun anew.
pytestmark = [pytest.mark.e2e, pytest.mark.alone, pytest.mark.slow]

RTT_S, LOSS = 0.05, 0.01
P99_MS_MAX = 1_500.0
SHORT, LONG = pytest.mark.timeout(150), pytest.mark.timeout(3 * LONG_S + 200)


@pytest.mark.parametrize(
    ("viewer", "channel", "seconds", "slack"),
    [
        pytest.param("stock", "three", 9.0, SLACK, marks=SHORT),
        pytest.param("watch", "two", 9.0, SLACK, marks=SHORT),
        pytest.param("stock", "three", LONG_S, 1.0, marks=LONG),
        pytest.param("watch", "two", LONG_S, 1.0, marks=LONG),
    ],
)
async def test_losses_are_not_seen(viewer: str, channel: str, seconds: float, slack: float) -> None:
    """hls.js as it comes, and our page with parts of 100 ms: no stall, at most 1.5 s late."""
    require_player()
    weather = Weather(rtt_s=RTT_S, loss=LOSS)
    async with (
        on_air(channel) as (network, pictures),
        open_proxy(network.ports["b.https"], weather) as proxy,
        open_stock_server() as server,
        open_browser() as browser,
    ):
        edge = f"https://127.0.0.1:{proxy.port}"
        page, url = await browser.open_page(), page_url(viewer, server, edge, channel)

        await begin(page, url)
        look_again = partial(begin, page, url)
        watched = await watch_kept_up(page, pictures[channel], seconds, look_again)
    print(f"{viewer}: {watched.tell()}, {weather.losses} packets lost")
    watched.check()
    assert weather.losses > 0
    assert watched.glass.p99_ms <= slack * P99_MS_MAX, watched.tell()
