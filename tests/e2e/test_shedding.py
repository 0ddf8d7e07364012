"""A link too small for all that is live, with ffmpeg publishers: who goes, who stays, who is told.

Six publishers, one of them a partner's, go over one link, which then carries three and a half.
"""

from pathlib import Path

import pytest
import trio

from edged.roles.placement import LINK_FULL
from edged.roles.placement import SHED as SHED_REASON
from tests.conftest import require
from tests.e2e.clip import check_same, make_clip, publish_ffmpeg, read_packets
from tests.e2e.network import run_edged, wait_until
from tests.e2e.pair import Pair, open_pair
from tests.e2e.viewer import Viewer

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(150)]

BASICS = ("one", "two", "three", "four", "five")
SHED = ["five", "four", "three"]  # The newest first.
LINK = "ams-fra to fra"
TOLD = SHED_REASON.format("basic")
WHY = f"shed: link {LINK} is full"
USE_MAX = 0.88  # Of a link.
CARRIED = 3.5  # Streams: whole ones stay.
CLIP_S = 34
MAP = """
[[irs.sites]]
name = "ams"
pops = ["ams1"]
[[irs.sites]]
name = "fra"
origins = ["fra1"]
[[irs.links]]
name = "ams-fra"
ends = ["ams", "fra"]
mbps = 1000.0
"""
PARTNER = """
[[stream_keys.static]]
channel = "star"
key = "key-of-star-only"
class = "partner"
"""


class Encoder:
    """An ffmpeg that may be ended by who it publishes to."""

    def __init__(self) -> None:
        self.failed = False
        self.errors = ""

    async def publish(self, clip: Path, url: str) -> None:
        done = await trio.run_process(
            ["ffmpeg", "-v", "error", "-nostdin", "-re", "-i", str(clip), "-c", "copy", "-f", "flv",
             url], capture_stderr=True, check=False,
        )  # fmt: skip
        self.errors = done.stderr.decode(errors="replace")
        self.failed = done.returncode != 0


async def explain(pair: Pair, channel: str) -> str:
    out, _ = await run_edged(
        pair.folder, "route", "explain", channel, "-c", str(pair.folder / "ams1.toml")
    )
    return " ".join(out.split())


async def test_exactly_what_has_to_go_is_ended_and_the_partner_loses_nothing() -> None:
    require("ffmpeg")
    clip = make_clip(seconds=CLIP_S)
    stream_mbps = len(clip.read_bytes()) * 8 / CLIP_S / 1e6
    encoders = {channel: Encoder() for channel in BASICS}
    async with open_pair(
        origins=("fra1",), channels=BASICS, irs_keys=MAP, pop_tables=PARTNER, doomed=()
    ) as pair:
        viewer = Viewer(pair.http, "star")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(publish_ffmpeg, clip, pair.publish_url("star"))
            nursery.start_soon(viewer.watch)
            await pair.pop.wait_log("stream placed")
            for order, channel in enumerate(BASICS):
                nursery.start_soon(encoders[channel].publish, clip, pair.publish_url(channel))
                await pair.pop.wait_log("stream placed", count=order + 2)
            await trio.sleep(8)
            assert pair.irs.log("streams have to go") == []
            took_s = await make_small(pair, stream_mbps * CARRIED / USE_MAX)
            await wait_until(lambda: sum(each.failed for each in encoders.values()) == len(SHED))
            lines = pair.pop.log("stream shed")
            assert [line["channel"] for line in lines] == SHED
            assert {(line["link"], line["priority"]) for line in lines} == {(LINK, "basic")}
            assert {name for name, each in encoders.items() if each.failed} == set(SHED)

            again = Encoder()
            await again.publish(clip, pair.publish_url("five"))
            assert again.failed
            assert LINK_FULL.format("basic") in again.errors
            explained = await explain(pair, "five")
            assert "would be refused: no route for 'five'" in explained
            assert f"{WHY}, order 1," in explained
            await trio.sleep(6)
            assert len(pair.pop.log("stream shed")) == len(SHED), "no more than had to go"
        (order_line,) = pair.irs.log("streams were shed")
        assert (order_line["wanted"], order_line["streams"]) == (len(SHED), len(SHED))
        events = pair.pop.log("event")
        assert [line["channel"] for line in events if line["kind"] == "stream_shed"] == SHED
        reasons = {
            line["channel"]: line["reason"]
            for line in events
            if line["kind"] == "stream_went_offline" and line["channel"] in SHED
        }
        assert reasons == dict.fromkeys(SHED, TOLD)
        for track in viewer.tracks.values():
            assert (track.discontinuities, track.gaps, len(track.inits)) == (0, 0, 1)
        check_same(read_packets(clip), viewer.packets())
        closed = pair.origins["fra1"].log("stream closed")
        assert [line["units_lost"] for line in closed] == [0] * (len(BASICS) + 1)
    in_words = sum(TOLD in encoders[channel].errors for channel in SHED)
    assert in_words > 0, "one that is just sending may see the end alone"
    print(f"shed {took_s:.1f} s after the link was too small; ffmpeg told {in_words} of 3 in words")


async def make_small(pair: Pair, mbps: float) -> float:
    """Have the link carry no more; how long it took until the last had gone."""
    path = pair.folder / "irs.toml"
    path.write_text(path.read_text().replace("mbps = 1000.0", f"mbps = {mbps:.4f}"))
    await run_edged(pair.folder, "reload", "-c", str(path))
    began_at = trio.current_time()
    await pair.pop.wait_log("stream shed", count=len(SHED))
    return trio.current_time() - began_at
