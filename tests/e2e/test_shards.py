"""Several processes of one PoP on a host: they share its ports, and its channels by the origin."""

import contextlib
import json
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path

import pytest
import trio
from msgspec import Struct

from edged.errors import PeerLostError
from edged.wire.rtmp import Closed
from tests.e2e.clip import check_same, make_clip, read_packets
from tests.e2e.network import (
    POLL_S,
    START_TIMEOUT_S,
    Edged,
    open_edged,
    run_edged,
    take_ports,
    wait_until,
)
from tests.e2e.publisher import publish_clip
from tests.e2e.viewer import HttpClient, ServerClosedError, Viewer, fetch
from tests.ports import take_port

pytestmark = pytest.mark.e2e

CHANNELS = ("one", "two", "three", "four")
STALL_S_MAX = 3.0  # Of a viewer who has to connect again; the sibling has to get the channel first.
TRIES_MAX = 12  # To come to the other shard: each succeeds with 1/2.


class Shards(Struct):
    """A network whose PoP is two processes."""

    folder: Path
    stack: contextlib.AsyncExitStack
    shards: dict[int, Edged]
    rtmp: dict[int, str]  # Where each takes publishers; one address if it is shared.
    http: dict[int, str]
    metrics: int  # The port of shard 1.
    starts: int = 0

    async def start(self, shard: int, name: str = "pop.toml") -> None:
        self.starts += 1
        self.shards[shard] = await self.stack.enter_async_context(
            open_edged(
                self.folder, f"shard-{shard}-{self.starts}",
                "run", "-c", str(self.folder / name), "--shard", str(shard), doomed=True,
            )
        )  # fmt: skip
        with trio.fail_after(START_TIMEOUT_S):
            while not self.shards[shard].log("role started"):
                self.shards[shard].check()
                await trio.sleep(POLL_S)
        await self.shards[shard].wait_log("backbone session started", count=4)

    def publish_url(self, channel: str, shard: int = 1) -> str:
        return f"rtmp://{self.rtmp[shard]}/live/key-of-{channel}-only"

    def base(self, shard: int = 1) -> str:
        return f"http://{self.http[shard]}"

    def homes(self) -> dict[str, int]:
        """Which shard each publisher came to last, of those that publish now."""
        live: dict[str, int] = {}
        for shard, edged in self.shards.items():
            if edged.process.poll() is not None:
                continue
            counts: Counter[str] = Counter()
            for event, step in (("publisher started", 1), ("publisher ended", -1)):
                for line in edged.log(event):
                    counts[str(line["channel"])] += step
            live |= {channel: shard for channel, count in counts.items() if count > 0}
        return live

    async def wait_gone(self, channel: str) -> None:
        """Until it is listed nowhere: else the next would take a live run over."""
        await wait_until(lambda: channel not in self.homes())
        quiet = 0
        while quiet < 10:  # Both shards have to have heard of it; each answers half of the time.
            page = await fetch(self.base(), "/streams.json")
            quiet = 0 if f'"{channel}"'.encode() in page.body else quiet + 1
            await trio.sleep(0.02)

    async def metric(self, shard: int, name: str) -> float:
        """Of the shard alone, at the port that is derived for it."""
        page = await fetch(f"http://127.0.0.1:{self.metrics + shard - 1}", "/metrics")
        (line,) = [line for line in page.body.decode().splitlines() if line.startswith(f"{name}{{")]
        assert f'role="pop ams1/{shard}"' in line
        return float(line.rpartition(" ")[2])

    async def streams(self, *options: str) -> list[dict[str, object]]:
        text, _ = await run_edged(self.folder, "streams", "-c", "pop.toml", "--json", *options)
        lines: list[dict[str, object]] = json.loads(text)
        return lines


@contextlib.asynccontextmanager
async def open_shards(*, shared: bool) -> AsyncIterator[Shards]:
    """An IRS, an origin and two shards: with one file and the same ports, or with their own."""
    with tempfile.TemporaryDirectory(prefix="edged-e2e-") as name:
        folder = Path(name)
        names = [f"{what}{shard}" for what in ("rtmp", "http") for shard in (1, 2)]
        ports = take_ports(["irs", "backbone", *names])
        metrics = take_port(neighbours=1)
        at = {what: f"127.0.0.1:{port}" for what, port in ports.items()}
        if shared:
            at["rtmp2"], at["http2"] = at["rtmp1"], at["http1"]
        client = f'[irs_client]\naddresses = ["{at["irs"]}"]\n'
        keys = "".join(
            f'[[stream_keys.static]]\nchannel = "{channel}"\nkey = "key-of-{channel}-only"\n'
            for channel in CHANNELS
        )
        texts = {
            "irs": f'[irs]\nlisten = "{at["irs"]}"\nwarmup_s = 0.0\n',
            "origin": f'[origin]\nname = "fra1"\nlisten = "{at["backbone"]}"\n{client}',
        }
        for shard in (1, 2):
            texts["pop" if shared else f"pop{shard}"] = (
                # One that is sent away to come again is not waited for: its next run is a new one.
                f'[pop]\nname = "ams1"\npublisher_grace_s = 0.5\n'
                f'{client}table_file = "{folder}/table"\n'
                f'[ingest.rtmp]\nlisten = "{at[f"rtmp{shard}"]}"\n'
                f'[playback]\nlisten = "{at[f"http{shard}"]}"\n{keys}'
            )
        for host, text in texts.items():
            place = folder / ("pop.sock" if host.startswith("pop") else f"{host}.sock")
            port = metrics if host.startswith("pop") else 0
            common = f'[admin]\nsocket = "{place}"\n[metrics]\nlisten = "127.0.0.1:{port}"\n'
            (folder / f"{host}.toml").write_text(text + common)
        async with contextlib.AsyncExitStack() as stack:
            for host in ("irs", "origin"):
                path = str(folder / f"{host}.toml")
                await stack.enter_async_context(open_edged(folder, host, "run", "-c", path))
            both = Shards(
                folder,
                stack,
                {},
                {shard: at[f"rtmp{shard}"] for shard in (1, 2)},
                {shard: at[f"http{shard}"] for shard in (1, 2)},
                metrics,
            )
            async with trio.open_nursery() as nursery:
                for shard in (1, 2):
                    path = "pop.toml" if shared else f"pop{shard}.toml"
                    nursery.start_soon(both.start, shard, path)
            yield both


async def publish_at(
    both: Shards, channel: str, shard: int, clip: Path, *, task_status: trio.TaskStatus[None]
) -> None:
    """Publish at a shard of the two that share a port: the kernel chooses, so come again."""
    for _ in range(TRIES_MAX):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(publish_clip, clip, both.publish_url(channel))
            await wait_until(lambda: channel in both.homes())
            if both.homes()[channel] == shard:
                task_status.started()
                return  # Not before it has ended.
            nursery.cancel_scope.cancel()
        await both.wait_gone(channel)
    raise AssertionError(f"{TRIES_MAX} times the kernel chose the other shard")


class PatientViewer(Viewer):
    """A viewer that connects again when a connection is lost, as players do."""

    lost = 0

    async def _get(self, client: HttpClient, url: str) -> bytes:
        while True:
            try:
                return await super()._get(client, url)
            except (trio.BrokenResourceError, OSError, ServerClosedError):
                self.lost += 1
                await client.forget()


async def test_two_shards_share_the_ports() -> None:
    """One file for both: publishers and viewers come to either, and one shard dies alone."""
    clip = make_clip(seconds=8)
    with trio.fail_after(60):
        async with open_shards(shared=True) as both, trio.open_nursery() as nursery:
            for shard in (1, 2):
                await nursery.start(publish_at, both, CHANNELS[shard], shard, clip)
            assert both.homes() == {CHANNELS[1]: 1, CHANNELS[2]: 2}
            roles = {line["channel"]: line["role"] for line in await both.streams()}
            assert roles == {CHANNELS[1]: "pop ams1/1", CHANNELS[2]: "pop ams1/2"}
            stays = PatientViewer(both.base(), CHANNELS[2])
            await stays.join()
            nursery.start_soon(partial(stays.watch, join=False))
            await watch_one(both, CHANNELS[1], 0)
            for _ in range(20):
                assert (await fetch(both.base(), "/streams.json")).status == 200
            for shard in (1, 2):
                assert await both.metric(shard, "edged_playback_connections_total") > 1
            both.shards[1].process.kill()
            await both.shards[1].process.wait()
            await wait_until(lambda: all(t.ended for t in stays.tracks.values()), 15)
            for track in stays.tracks.values():
                track.check_flow(stall_s_max=STALL_S_MAX)
            check_same(read_packets(clip), stays.packets(), whole=False)
            nursery.cancel_scope.cancel()


@pytest.mark.slow  # 32 s: the encoders of the shard that died go on at the other, and it is back.
async def test_two_shards_share_the_ports_and_one_may_die() -> None:
    clip = make_clip(seconds=16)
    with trio.fail_after(115):
        async with open_shards(shared=True) as both, trio.open_nursery() as nursery:
            await publish_everything(both, clip, nursery)
            roles = {str(line["channel"]): line["role"] for line in await both.streams()}
            assert roles == dict(
                zip(CHANNELS, ["pop ams1/1"] * 2 + ["pop ams1/2"] * 2, strict=True)
            )
            assert len(await both.streams("--shard", "2")) == 2

            stay = [PatientViewer(both.base(), channel) for channel in CHANNELS[2:]]
            for viewer in stay:
                await viewer.join()
                nursery.start_soon(partial(viewer.watch, join=False))
            await watch_all(both, times=4)
            for shard in (1, 2):
                assert await both.metric(shard, "edged_playback_connections_total") > 10

            both.shards[1].process.kill()
            await both.shards[1].process.wait()
            for channel in CHANNELS[:2]:  # Encoders connect again by themselves.
                nursery.start_soon(publish_clip, make_clip(seconds=10), both.publish_url(channel))
            await wait_until(lambda: both.homes() == dict.fromkeys(CHANNELS, 2))
            # The sibling takes their runs over where they stopped, as another PoP would.
            await both.shards[2].wait_log("publisher returned", count=2)
            await both.start(1)
            await watch_all(both, times=2, returned=CHANNELS[:2])
            for _ in range(40):
                assert (await fetch(both.base(), "/streams.json")).status == 200
            assert await both.metric(1, "edged_playback_connections_total") > 5
            await wait_until(
                lambda: all(t.ended for viewer in stay for t in viewer.tracks.values()), 15
            )
            for viewer in stay:  # Nothing of what is published at the shard that lives is missing.
                for track in viewer.tracks.values():
                    track.check_flow(stall_s_max=STALL_S_MAX)
                check_same(read_packets(clip), viewer.packets(), whole=False)
            nursery.cancel_scope.cancel()


async def publish_everything(both: Shards, clip: Path, nursery: trio.Nursery) -> None:
    """Two channels at each shard."""
    for channel, shard in zip(CHANNELS, (1, 1, 2, 2), strict=True):
        await nursery.start(publish_at, both, channel, shard, clip)


async def watch_all(both: Shards, *, times: int, returned: Sequence[str] = ()) -> None:
    """Watch each channel so often at once, by connections that come to either shard."""
    async with trio.open_nursery() as nursery:
        for _ in range(times):
            for channel in CHANNELS:
                nursery.start_soon(watch_one, both, channel, int(channel in returned))


async def watch_one(both: Shards, channel: str, discontinuities_max: int) -> None:
    viewer = await Viewer(both.base(), channel).watch(seconds=3.0)
    assert viewer.tracks.keys() == {"v0", "a0"}
    for track in viewer.tracks.values():
        assert track.discontinuities <= discontinuities_max  # Where the encoder began anew.
        track.discontinuities = 0
        track.check_flow(stall_s_max=STALL_S_MAX)
        assert sum(arrival.duration_us for arrival in track.arrivals) > 2_000_000


async def test_a_takeover_at_the_sibling_is_as_at_another_pop() -> None:
    """And the viewers at either shard get the new run; it has another codec, so it is one."""
    old, new = make_clip(seconds=10), make_clip("hevc", seconds=14, tone=880)
    with trio.fail_after(90):
        async with open_shards(shared=False) as both, trio.open_nursery() as nursery:
            told: list[Closed] = []

            async def publish_old() -> None:
                publisher = await publish_clip(old, both.publish_url("one"))
                told.extend(event for event in publisher.events if isinstance(event, Closed))

            nursery.start_soon(publish_old)
            before = Viewer(both.base(2), "one")  # Published at shard 1, watched at shard 2.
            await before.watch(seconds=2)
            check_same(read_packets(old), before.packets(), whole=False)
            nursery.start_soon(publish_clip, new, both.publish_url("one", 2))
            await wait_until(lambda: bool(told))
            assert "taken over" in told[0].description
            for shard in (1, 2):
                viewer = Viewer(both.base(shard), "one")
                await join_run(viewer, but=before)
                await viewer.watch(seconds=2, join=False)
                check_same(read_packets(new), viewer.packets(), whole=False)
            # Two encoders must not evict each other for ever, at one shard or at two.
            for shard in (1, 2):
                with pytest.RaisesGroup(PeerLostError, flatten_subgroups=True) as caught:
                    await publish_clip(old, both.publish_url("one", shard))
                assert "takeover" in str(caught.value.exceptions[0])
            nursery.cancel_scope.cancel()


async def join_run(viewer: Viewer, *, but: Viewer) -> None:
    """Join until what is joined is another run."""
    with trio.fail_after(5):
        while True:
            await viewer.join()
            if (
                viewer.tracks["v0"].url.rpartition("/")[0]
                != but.tracks["v0"].url.rpartition("/")[0]
            ):
                return
            await trio.sleep(0.05)
