"""What has ended is gone at once: nothing large waits for the cyclic collector, which comes rarely.

A run's ring, window and packager are some 30 MiB. An origin kept those of each until the collector
came, and grew by 340 MiB in twenty minutes of a soak.
"""

import gc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from edged.origin.service import ENDED_RUNS_MAX
from edged.playback.hls import OLD_STREAMS_MAX
from tests.backbone.network import until
from tests.ingest.rtmp_peer import encoder
from tests.roles.network import KEY, Network, broadcast, configure, raw_network, running

LARGE = {
    *("LiveStream", "GopRing", "Publication", "RtmpServerSession", "Packager", "Segmenter"),
    *("_Packaged", "Inbound", "Forwarding", "Run", "HttpConnection", "H1Session"),
}
# For viewers, for two minutes: at the PoP, and at the origin for PoPs whose viewers go back.
KEPT = {"HlsStream", "StreamWindow", "HeldStream"}
RUNS = 4


@pytest.fixture
def uncollected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def count() -> Counter[str]:
    kinds = (type(each).__name__ for each in gc.get_objects())
    return Counter(kind for kind in kinds if kind in LARGE | KEPT)


async def one_run(network: Network) -> None:
    async with encoder(network.rtmp("west"), KEY) as peer:
        await peer.accepted()
        await broadcast(peer)
        with trio.fail_after(10):
            while (await network.get("/live/alice/master.m3u8", "east"))[0] != 200:  # noqa: ASYNC110 - not live there yet
                await trio.sleep(0.05)


async def test_runs_leave_nothing_behind(tmp_path: Path, uncollected: None) -> None:
    raws = raw_network(tmp_path, pops=("west", "east"))
    for raw, name in zip(raws[2:], ("west", "east"), strict=True):
        raw["pop"] = {"name": name, "publisher_grace_s": 0.0}
    async with running(*map(configure, raws)) as network:
        for _ in range(RUNS):
            await one_run(network)
        await until(lambda: not count().keys() & LARGE)
        kept = count()
        assert 0 < kept["HlsStream"] <= 1 + OLD_STREAMS_MAX
        assert kept["HeldStream"] <= ENDED_RUNS_MAX, "and the origin as many that have ended"
        assert kept["StreamWindow"] == kept["HlsStream"] + kept["HeldStream"]
