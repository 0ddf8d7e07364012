"""`edged conform`, pointed at our own edge as browsers see it: TLS, HTTP/2, gzip, delta updates."""

import msgspec
import pytest
import trio

from edged.policy.latency import PackagerConfig, choose_latency
from edged.tools.conform.probe import observe
from edged.tools.conform.report import Report, Verdict
from edged.tools.conform.report import judge as judge_seen
from edged.tools.test_picture import PictureConfig
from tests.conftest import require
from tests.e2e.clip import make_clip, publish_ffmpeg
from tests.e2e.conformance import check_shown
from tests.e2e.network import Network, open_network, run_edged
from tests.e2e.tiny_edge import CHANNEL, open_tiny_edge
from tests.e2e.viewer import fetch
from tests.origin.sources import X264, make_source

pytestmark = [pytest.mark.e2e, pytest.mark.light, pytest.mark.timeout(150)]

CLIP_S = 28
# Then there is something to be left out of delta updates, from 12 s on, and segments leave.
BEGUN_S = 17.0
PLAYLIST = "[playback.hls]\nplaylist_s = 16.0\n"
MASTER = "/live/one/master.m3u8"
STILL_S = 7.5  # More than 3 x TD, of a class whose TD is 2 s.
UNEVEN_S = 18
# Constant at first, so that parts are of 200 ms; then pictures are up to a second apart.
UNEVEN = "select='lt(n,60)+gt(random(1),0.75)'"
UNEVEN_MASTER = "/live/uneven/master.m3u8"


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
        async with open_network(
            channels=("one",), latencies={"one": "low"}, pops=PLAYLIST
        ) as network:
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
    check_shown("through a network", live)
    wrong = [each for each in live.values() if each.status == "fail"]
    assert not wrong, wrong
    check_shown("of what has ended", over)


async def test_what_a_variable_frame_rate_makes_unavoidable_is_warned_of() -> None:
    """And nothing fails: the command, which `judge` looks at, ends with 0."""
    require("ffmpeg")
    options = ("-vf", UNEVEN, "-fps_mode", "vfr", "-g", "20")
    clip = make_source(*X264, *options, seconds=UNEVEN_S, suffix="mp4")
    with trio.fail_after(60):
        async with open_network(channels=("uneven",)) as network, trio.open_nursery() as nursery:
            nursery.start_soon(publish_ffmpeg, clip.path, network.publish_url("a", "uneven"))
            await network.hosts["origin"].edged.wait_log("stream opened")
            await trio.sleep(4.0)
            found = await judge(network, UNEVEN_MASTER, "--seconds", "6")
            nursery.cancel_scope.cancel()
    assert found[14].status in ("pass", "warn"), found[14]
    told = [line for number in (14, 18, 21, 23) for line in found[number].details]
    assert told, "its pictures are uneven enough"
    assert all("a variable frame rate" in line or line.startswith("and ") for line in told), told


async def test_who_waits_for_what_does_not_come_is_told_so_in_time() -> None:
    """The broadcaster stands still for a while: 503 after 3 x TD, and not later (item 8)."""
    low, _ = choose_latency(PackagerConfig(), "low")
    with trio.fail_after(45):
        async with open_tiny_edge(segmenter=low) as edge, trio.open_nursery() as nursery:
            nursery.start_soon(edge.broadcast, 40.0, PictureConfig(width=320, height=180))
            await trio.sleep(4.0)

            async def stand_still() -> None:
                await trio.sleep(1.5)
                edge.paused = True
                await trio.sleep(STILL_S)
                edge.paused = False

            nursery.start_soon(stand_still)
            seen = await observe(f"{edge.address}/live/{CHANNEL}/master.m3u8", STILL_S + 3)
            nursery.cancel_scope.cancel()
    verdicts = {verdict.number: verdict for verdict in judge_seen(seen).verdicts}
    check_shown("of who stands still", verdicts)
    for log in seen.renditions:
        refused = [answer for _, answer in log.refused]
        assert {answer.status for answer in refused} == {503}, log.name
        assert all(6 <= answer.waited_s < 7 for answer in refused[:1])
