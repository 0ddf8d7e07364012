"""`edged conform`, pointed at our own edge as browsers see it: TLS, HTTP/2, gzip, delta updates."""

import msgspec
import pytest
import trio

from edged.tools.conform.report import Report, Verdict
from tests.conftest import require
from tests.e2e.clip import make_clip, publish_ffmpeg
from tests.e2e.network import Network, open_network, run_edged
from tests.e2e.viewer import fetch

pytestmark = [pytest.mark.e2e, pytest.mark.alone, pytest.mark.timeout(150)]

CLIP_S = 37
BEGUN_S = 26.5  # Then there is something to be left out of delta updates.
# What such a stream gives no occasion for: the request that is blocked too long (8: nothing stands
# still), segments that leave (20: it is young), byte ranges (25: each part is a file).
UNSEEN = {8, 20, 25}
MASTER = "/live/one/master.m3u8"


async def judge(network: Network, path: str, *arguments: str) -> dict[int, Verdict]:
    """What the command says, by item."""
    url = f"https://127.0.0.1:{network.ports['b.https']}{path}"
    asked = ("conform", url, "--insecure", "--json", *arguments)
    out, _ = await run_edged(network.folder, *asked, timeout_s=60)
    report = msgspec.json.decode(out, type=Report)
    assert report.broken == []
    return {verdict.number: verdict for verdict in report.verdicts}


async def test_our_edge_conforms() -> None:
    require("ffmpeg")
    clip = make_clip(seconds=CLIP_S)
    with trio.fail_after(120):
        async with open_network(channels=("one",)) as network:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(publish_ffmpeg, clip, network.publish_url("a", "one"))
                await network.hosts["origin"].edged.wait_log("stream opened")
                await trio.sleep(BEGUN_S)
                master = await fetch(network.playback("b"), MASTER)
                live = await judge(network, MASTER, "--seconds", "6")
            # The channel is offline now; who watches its last run sees the end of it.
            lines = master.body.decode().splitlines()
            media = next(line for line in lines if line.endswith(".m3u8"))
            over = await judge(network, f"/live/one/{media}", "--seconds", "5")
    host = live.pop(34)  # ECN is for the client's host to ask for, and few do.
    assert host.status in ("pass", "warn")
    assert all("no ECN (our own host" in told for told in host.details), host
    wrong = [verdict for verdict in live.values() if verdict.status in ("fail", "warn")]
    assert not wrong, wrong
    assert {number for number, each in live.items() if each.status == "not seen"} <= UNSEEN | {5}
    assert over[5].status == "pass", "its requests are answered at once when it has ended"
