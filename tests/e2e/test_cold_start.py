"""A PoP's first viewer of a channel: how long the first part takes to come, from a far origin."""

import statistics
from urllib.parse import urljoin

import pytest
import trio

from tests.conftest import require
from tests.e2e.clip import make_clip, publish_ffmpeg
from tests.e2e.network import Network, open_network
from tests.e2e.viewer import HttpClient, Viewer
from tests.wire.hls_reader import read_media_playlist

pytestmark = [pytest.mark.e2e, pytest.mark.light, pytest.mark.timeout(120)]

RTT_S = 0.2
OWN_S_MAX = 0.05  # Beside the round trip.
SLACK = 3  # Of our own time, as CI's machine is shared: never of a second round trip.
CLIP_S = 14
WARM_S = 7.0  # Two segments and more are packaged then.
CHANNELS = ("one", "two", "three")


async def first_part_s(network: Network, channel: str) -> float:
    """From a viewer's request, with which PoP b subscribes, to the newest part in full."""
    base = network.playback("b")
    async with HttpClient(base) as client:
        assert (await client.get("/time")).status == 200  # The connection is up.
        begun_at = trio.current_time()
        viewer = Viewer(base, channel)
        master = await client.get(viewer.master_url)
        assert master.status == 200, "the PoP knows of the stream by the directory"
        uri = next(line for line in master.body.decode().splitlines() if line.endswith(".m3u8"))
        url = urljoin(viewer.master_url, uri)
        playlist = read_media_playlist((await client.get(url)).body)
        newest = [part.uri for segment in playlist.segments for part in segment.parts][-1]
        part = await client.get(urljoin(url, newest))
        assert part.status == 200
        assert part.body
        return trio.current_time() - begun_at


async def test_the_first_part_comes_a_round_trip_after_the_first_request() -> None:
    require("ffmpeg")
    clip = make_clip(seconds=CLIP_S)
    async with (
        open_network(channels=CHANNELS, origin_rtt_s=RTT_S) as network,
        trio.open_nursery() as nursery,
    ):
        for channel in CHANNELS:
            nursery.start_soon(publish_ffmpeg, clip, network.publish_url("a", channel))
        await trio.sleep(WARM_S)
        times = [await first_part_s(network, channel) for channel in CHANNELS]
        nursery.cancel_scope.cancel()
    print("first part after", *(f"{1000 * took:.0f} ms" for took in times))
    assert min(times) >= RTT_S, "it is not here before it has been asked for"
    assert statistics.median(times) <= RTT_S + SLACK * OWN_S_MAX, times
