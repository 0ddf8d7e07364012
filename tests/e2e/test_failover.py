"""Origins die, freeze and come back under live streams: nobody notices.

The network is of `edged` processes under TLS (in `test_outages` without); the publisher is our
client core, the viewer fetches each part.
"""

import contextlib
import signal
from pathlib import Path

import pytest
import trio

from tests.e2e.clip import check_same, make_clip, read_packets
from tests.e2e.network import open_edged
from tests.e2e.pair import Pair, open_pair
from tests.e2e.publisher import publish_clip
from tests.e2e.viewer import Viewer

pytestmark = [pytest.mark.e2e, pytest.mark.light]

STALL_S_MAX = 3.0  # Of what a viewer gets; measured are 1.1 s, and CI's machine is shared.


async def watch_through(
    pair: Pair, clip: Path, harm: signal.Signals, *, back_after_s: float
) -> str:
    """Publish a clip and watch it whole, while its origin is harmed; returns which that was."""
    viewer = Viewer(pair.http, "one")
    harmed = ""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(publish_clip, clip, pair.publish_url())

        async def do_harm() -> None:
            nonlocal harmed
            harmed = await pair.home()
            await trio.sleep(5.3)
            process = pair.origins[harmed].process
            process.send_signal(harm)
            if back_after_s:
                await trio.sleep(back_after_s)
                process.send_signal(signal.SIGCONT)

        nursery.start_soon(do_harm)
        await viewer.watch()
    for track in viewer.tracks.values():
        track.check_flow(stall_s_max=STALL_S_MAX)
    check_same(read_packets(clip), viewer.packets())
    return harmed


@pytest.mark.parametrize(
    ("harm", "back_after_s"),
    [
        # Of twenty at once: in `test_outages`.
        pytest.param(signal.SIGKILL, 0.0, marks=pytest.mark.slow),
        pytest.param(signal.SIGSTOP, 4.0, marks=pytest.mark.slow),
        # Of one that drains: in `test_operations`.
        pytest.param(signal.SIGTERM, 0.0, marks=pytest.mark.slow),
    ],
    ids=["dies", "freezes", "stops"],
)
async def test_a_stream_goes_on_at_another_origin(
    harm: signal.Signals, back_after_s: float
) -> None:
    """Not a unit is missing, not one is there twice, and the publisher stays connected."""
    clip = make_clip(seconds=14)
    with trio.fail_after(70):
        async with open_pair(secure=True) as pair:
            harmed = await watch_through(pair, clip, harm, back_after_s=back_after_s)
            assert await pair.home(2) != harmed
            assert len(pair.pop.log("publisher started")) == 1
            (moved,) = pair.pop.log("stream goes on elsewhere")
            assert moved["before"] == harmed
            (ended,) = pair.pop.log("publisher ended")
            assert "publisher sent" in str(ended["reason"])


async def test_a_latency_class_goes_along_to_another_origin() -> None:
    """Its parts there are those that the first origin would have made: 100 ms, not one amiss."""
    clip = make_clip(seconds=14)
    with trio.fail_after(70):
        async with open_pair(secure=True, latency="ultra") as pair:
            harmed = await watch_through(pair, clip, signal.SIGKILL, back_after_s=0.0)
            after = await pair.home(2)
            assert after != harmed
            for origin in (harmed, after):
                (line, *_) = (
                    line
                    for line in pair.origins[origin].log("stream opened")
                    if line["logger"] == "edged.origin"
                )
                assert line["latency"] == "ultra: segments of 1 s, parts of 100 ms"


@pytest.mark.slow  # Of each process: in `test_outages`.
async def test_a_short_pause_moves_nothing() -> None:
    clip = make_clip(seconds=8)
    with trio.fail_after(60):
        async with open_pair(secure=True) as pair:
            await watch_through(pair, clip, signal.SIGSTOP, back_after_s=0.35)
            assert pair.pop.log("stream goes on elsewhere") == []
            assert len(pair.pop.log("stream placed")) == 1


async def test_a_stream_outlives_the_restart_of_its_only_origin() -> None:
    """What it had packaged is gone with it; what it needs to go on is at the PoP."""
    clip = make_clip(seconds=14)
    with trio.fail_after(70):
        async with open_pair(("fra1",), secure=True) as pair, contextlib.AsyncExitStack() as stack:
            viewer = Viewer(pair.http, "one")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(publish_clip, clip, pair.publish_url())
                nursery.start_soon(viewer.watch)
                await pair.home()
                await trio.sleep(5.3)
                pair.origins["fra1"].process.kill()
                await pair.origins["fra1"].process.wait()
                path = str(pair.folder / "fra1.toml")
                await stack.enter_async_context(
                    open_edged(pair.folder, "fra1-again", "run", "-c", path)
                )
            for track in viewer.tracks.values():
                track.check_flow(stall_s_max=2 * STALL_S_MAX)  # It has to start first.
            check_same(read_packets(clip), viewer.packets())
            assert len(pair.pop.log("publisher started")) == 1
