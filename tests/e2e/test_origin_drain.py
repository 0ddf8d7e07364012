"""`edged drain origin` under live ffmpeg publishers: viewers at another PoP get every packet."""

import msgspec
import pytest
import trio

from edged.roles.status import RoutesSeen
from tests.conftest import require
from tests.e2e.clip import check_same, make_clip, publish_ffmpeg, read_packets
from tests.e2e.network import run_edged, wait_until
from tests.e2e.pair import Pair, open_pair
from tests.e2e.viewer import Viewer, fetch

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

MASTER = "/live/one/master.m3u8"
CHANNELS = ("one", "two", "three", "four", "five", "six")
# Each has room for half of them and one that IRS keeps for partners: both are full then.
ORIGIN = """
slots = 4
slots_reserve = 0
packager = { segment_s = 1.0, target_duration_s = 2 }
"""


LADDER = """
[origin.ladder]
preset = "ultrafast"
rungs = [{height = 120, kbps = 200}]
"""


async def drain(pair: Pair, *arguments: str, code: int = 0) -> str:
    """Ask IRS; what it printed."""
    path = str(pair.folder / "irs.toml")
    out, errors = await run_edged(pair.folder, "drain", "origin", *arguments, "-c", path, code=code)
    return out + errors


async def until_planned(pair: Pair) -> None:
    """Until the PoP has leases for all origins: before, nothing is kept for partners."""
    path = str(pair.folder / "ams1.toml")
    with trio.fail_after(10):
        while True:
            out, _ = await run_edged(pair.folder, "routes", "-c", path, "--json")
            (seen,) = msgspec.json.decode(out, type=list[RoutesSeen])
            quotas = [origin.quota for origin in seen.origins]
            if seen.lease_left_s > 0 and len(quotas) == len(pair.origins) and all(quotas):
                return
            await trio.sleep(0.1)


async def test_nobody_notices_and_a_full_origin_gets_nothing() -> None:
    require("ffmpeg")
    clip = make_clip(seconds=13)
    with trio.fail_after(90):
        async with open_pair(pops=("ams1", "lon1"), channels=CHANNELS, origin_keys=ORIGIN) as pair:
            viewers = {name: Viewer(pair.playback("lon1"), name) for name in CHANNELS}
            await until_planned(pair)
            async with trio.open_nursery() as nursery:
                for channel in CHANNELS:
                    nursery.start_soon(publish_ffmpeg, clip, pair.publish_url(channel))
                    nursery.start_soon(viewers[channel].watch)
                await pair.pop.wait_log("stream placed", count=len(CHANNELS))
                homes = pair.homes()
                left, full = sorted(pair.origins, key=[*homes.values()].count)
                leaving = [name for name, home in homes.items() if home == left]
                assert 2 <= len(leaving) <= 3
                await wait_until(lambda: all(viewers[name].tracks for name in CHANNELS), 12.0)
                told = await drain(pair, left, "--deadline", "0.7s", code=1)
                count = len(leaving)
                assert f"origin {left}: {count} left (ams1/0 {count}), 0 moved" in told
                assert "no room" in told
                for event in ("stream moved", "stream not moved", "stream goes on elsewhere"):
                    assert pair.pop.log(event) == []

                path = pair.folder / f"{full}.toml"  # With room there it goes on by itself.
                path.write_text(path.read_text().replace("slots = 4", "slots = 40"))
                await run_edged(pair.folder, "reload", "-c", str(path))
                await pair.pop.wait_log("stream moved", count=count)
                assert pair.pop.log("publisher ended") == []
            assert len(pair.origins[left].log("packaging ended")) == count
            with trio.fail_after(10):  # PoPs tell once a second.
                while f"origin {left}: empty, {count} moved" not in await drain(pair):  # noqa: ASYNC110
                    await trio.sleep(0.2)
            moved = [str(line["channel"]) for line in pair.pop.log("stream moved")]
            assert sorted(moved) == sorted(leaving)
            for viewer in viewers.values():
                for track in viewer.tracks.values():
                    assert (track.discontinuities, track.gaps, len(track.inits)) == (0, 0, 1)
                check_same(read_packets(clip), viewer.packets())
            closed = [
                line for origin in pair.origins.values() for line in origin.log("stream closed")
            ]
            assert [line["units_lost"] for line in closed] == [0] * (len(CHANNELS) + len(moved))
            assert len(pair.pop.log("publisher started")) == len(CHANNELS)
            assert [line["why"] for line in pair.irs.log("stream moved")] == ["drain"] * count
            assert f"{left} has streams again" in await drain(pair, left, "--undo")


@pytest.mark.slow
async def test_an_encoded_rung_goes_along_and_nobody_notices() -> None:
    """It is encoded anew at the other origin: players change over where a segment begins."""
    require("ffmpeg")
    clip = make_clip(seconds=30)
    with trio.fail_after(110):
        async with open_pair(pops=("ams1", "lon1"), origin_tables=LADDER) as pair:
            playback, viewer = pair.playback("lon1"), Viewer(pair.playback("lon1"), "one")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(publish_ffmpeg, clip, pair.publish_url())
                home = await pair.home()
                with trio.fail_after(20):
                    while b"x120" not in (await fetch(playback, MASTER)).body:  # noqa: ASYNC110
                        await trio.sleep(0.3)
                nursery.start_soon(viewer.watch)
                await wait_until(lambda: "v120p" in viewer.tracks)
                await trio.sleep(3)
                await drain(pair, home, "--deadline", "20s", "--no-wait")
                await pair.pop.wait_log("stream moved")
            for track in viewer.tracks.values():
                track.check_flow(stall_s_max=1.0)
            rung = viewer.tracks["v120p"]
            published_s = sum(piece.duration_us for piece in viewer.tracks["v0"].arrivals) / 1e6
            rung_s = sum(piece.duration_us for piece in rung.arrivals) / 1e6
            assert published_s - 8 < rung_s <= published_s + 0.1, "it began later"
            encoders = [origin.log("ladder started") for origin in pair.origins.values()]
            assert [len(lines) for lines in encoders] == [1, 1]
