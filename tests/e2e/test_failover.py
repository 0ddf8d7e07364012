"""Origins die, freeze and come back under live streams: nobody notices.

The network is of `edged` processes; the publisher is our client core, the viewer fetches each part.
"""

import contextlib
import signal
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import trio
from msgspec import Struct

from tests.e2e.clip import check_same, make_clip, read_packets
from tests.e2e.network import Edged, open_edged, take_ports
from tests.e2e.publisher import publish_clip
from tests.e2e.viewer import Viewer

pytestmark = pytest.mark.e2e

ORIGINS = ("fra1", "fra2")
KEY = "key-of-one-only"
STALL_S_MAX = 3.0  # Of what a viewer gets; measured are 1.1 s, and CI's machine is shared.


class Pair(Struct):
    """A PoP and its origins, two unless said otherwise."""

    folder: Path
    pop: Edged
    origins: dict[str, Edged]
    rtmp: str
    http: str

    async def home(self, count: int = 1) -> str:
        """Which origin has the stream, after it was placed so many times."""
        line = await self.pop.wait_log("stream placed", count=count)
        return str(line["origin"])


@contextlib.asynccontextmanager
async def open_pair(names: Sequence[str] = ORIGINS) -> AsyncIterator[Pair]:
    """An IRS, origins that the test may kill, and a PoP."""
    with tempfile.TemporaryDirectory(prefix="edged-e2e-") as name:
        folder = Path(name)
        ports = take_ports(["irs", *names, "rtmp", "http"])
        at = {what: f"127.0.0.1:{port}" for what, port in ports.items()}
        client = f'[irs_client]\naddresses = ["{at["irs"]}"]\n'
        texts = {"irs": f'[irs]\nlisten = "{at["irs"]}"\nwarmup_s = 0.0\n'}
        for origin in names:
            texts[origin] = f'[origin]\nname = "{origin}"\nlisten = "{at[origin]}"\n{client}'
        texts["pop"] = (
            f'[pop]\nname = "ams1"\n{client}[ingest.rtmp]\nlisten = "{at["rtmp"]}"\n'
            f'[playback]\nlisten = "{at["http"]}"\n'
            f'[[stream_keys.static]]\nchannel = "one"\nkey = "{KEY}"\n'
        )
        async with contextlib.AsyncExitStack() as stack:
            hosts: dict[str, Edged] = {}
            for host, text in texts.items():
                path = folder / f"{host}.toml"
                common = f'[admin]\nsocket = "{folder}/{host}.sock"\n'
                path.write_text(text + common + '[metrics]\nlisten = "127.0.0.1:0"\n')
                hosts[host] = await stack.enter_async_context(
                    open_edged(folder, host, "run", "-c", str(path), doomed=host in ORIGINS)
                )
            await hosts["pop"].wait_log("backbone session started", count=4 * len(names))
            yield Pair(
                folder=folder,
                pop=hosts["pop"],
                origins={origin: hosts[origin] for origin in names},
                rtmp=f"rtmp://{at['rtmp']}/live",
                http=f"http://{at['http']}",
            )


async def watch_through(
    pair: Pair, clip: Path, harm: signal.Signals, *, back_after_s: float
) -> str:
    """Publish a clip and watch it whole, while its origin is harmed; returns which that was."""
    viewer = Viewer(pair.http, "one")
    harmed = ""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(publish_clip, clip, f"{pair.rtmp}/{KEY}")

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
    [(signal.SIGKILL, 0.0), (signal.SIGSTOP, 4.0), (signal.SIGTERM, 0.0)],
    ids=["dies", "freezes", "stops"],
)
async def test_a_stream_goes_on_at_another_origin(
    harm: signal.Signals, back_after_s: float
) -> None:
    """Not a unit is missing, not one is there twice, and the publisher stays connected."""
    clip = make_clip(seconds=14)
    with trio.fail_after(70):
        async with open_pair() as pair:
            harmed = await watch_through(pair, clip, harm, back_after_s=back_after_s)
            assert await pair.home(2) != harmed
            assert len(pair.pop.log("publisher started")) == 1
            (moved,) = pair.pop.log("stream goes on elsewhere")
            assert moved["before"] == harmed
            (ended,) = pair.pop.log("publisher ended")
            assert "publisher sent" in str(ended["reason"])


async def test_a_short_pause_moves_nothing() -> None:
    clip = make_clip(seconds=8)
    with trio.fail_after(60):
        async with open_pair() as pair:
            await watch_through(pair, clip, signal.SIGSTOP, back_after_s=0.35)
            assert pair.pop.log("stream goes on elsewhere") == []
            assert len(pair.pop.log("stream placed")) == 1


async def test_a_stream_outlives_the_restart_of_its_only_origin() -> None:
    """What it had packaged is gone with it; what it needs to go on is at the PoP."""
    clip = make_clip(seconds=14)
    with trio.fail_after(70):
        async with open_pair(("fra1",)) as pair, contextlib.AsyncExitStack() as stack:
            viewer = Viewer(pair.http, "one")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(publish_clip, clip, f"{pair.rtmp}/{KEY}")
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
