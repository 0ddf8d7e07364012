"""Half an hour of a network's life: publishers and viewers come and go, processes die.

    ./tests/run -m slow tests/soak          # EDGED_SOAK_S says for how long, default 1800

Memory stays flat, and when all have gone nothing is left: no stream, no connection, no
subscription, no task, no descriptor. The PoP and the origin that are measured are never killed.
"""

import contextlib
import os
import random
import re
import signal
import statistics
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import structlog
import trio
from msgspec import Struct

from tests.conftest import require
from tests.e2e.clip import make_clip
from tests.e2e.network import Edged, open_edged
from tests.e2e.pair import Pair, open_pair
from tests.e2e.viewer import HttpClient

SOAK_S = float(os.environ.get("EDGED_SOAK_S", "1800"))
PUBLISHERS = 50
VIEWERS = 200
CHANNELS = tuple(f"s{number:02}" for number in range(PUBLISHERS))
POPS = ("ams1", "ams2")
ORIGINS = ("fra1", "fra2", "fra3")
STEADY = ("ams1", "fra1")  # Measured; the others die.
SAMPLE_S = 10.0
SETTLE_S = 160.0  # After all have left: 10 s of grace, 15 of orphans, 2 minutes of ended runs.
GROWTH_MAX = 1.15  # Of the last quarter's peak over the second's: the first fills the windows.
SLOPE_MAX = 1.05  # Of the last quarter's median over the third's.
PARTS_SHARE_MIN = 0.1  # Of the median, what viewers get in each SAMPLE_S.
FDS_SPARE = 4

pytestmark = [pytest.mark.slow, pytest.mark.timeout(SOAK_S + 300)]
logger = structlog.get_logger("soak")


class Sample(Struct):
    """One process at one moment."""

    at: float
    resident_bytes: float
    fds: float
    tasks: float
    left: dict[str, float]  # What must be gone at the end.


LEFT_OF_ALL = ("edged_hub_streams", "edged_hub_ring_bytes")
LEFT = {
    "ams1": (
        *(*LEFT_OF_ALL, "edged_backbone_subscriptions"),
        *("edged_backbone_forwardings", "edged_playback_connections", "edged_playback_streams"),
        *("edged_playback_blocked_requests", "edged_ingest_waiting"),
    ),
    "fra1": (*LEFT_OF_ALL, "edged_origin_subscriptions"),
}


async def read_sample(pair: Pair, host: str) -> Sample:
    """Its metrics, summed over labels."""
    async with HttpClient(f"http://127.0.0.1:{pair.ports[f'{host}.metrics']}") as client:
        text = (await client.get("/metrics")).body.decode()
    values: dict[str, float] = {}
    for name, value in re.findall(r"^(edged_\w+)(?:\{[^}]*\})? (\S+)$", text, re.MULTILINE):
        values[name] = values.get(name, 0.0) + float(value)
    return Sample(
        at=trio.current_time(),
        resident_bytes=values["edged_process_resident_bytes"],
        fds=values["edged_process_fds"],
        tasks=values["edged_process_tasks"],
        left={name: values[name] for name in LEFT[host]},
    )


async def publish_for_ever(clip: Path, pair: Pair, channel: str, rng: random.Random) -> None:
    """One encoder after another: some end, some are killed, some come back at once."""
    while True:
        await trio.sleep(rng.uniform(0, 15))
        pop = rng.choice(POPS)
        seconds = rng.uniform(8, 45)
        process = await trio.lowlevel.open_process(
            ["ffmpeg", "-v", "quiet", "-nostdin", "-re", "-stream_loop", "-1", "-i", str(clip),
             "-t", f"{seconds:.1f}", "-c", "copy", "-f", "flv", pair.publish_url(channel, pop)],
        )  # fmt: skip
        try:
            with trio.move_on_after(seconds * rng.choice((0.5, 2.0))):
                await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()


class Watched(Struct):
    """What viewers got."""

    parts: int = 0
    parts_bytes: int = 0


async def watch_for_ever(pair: Pair, rng: random.Random, got: Watched) -> None:
    """A viewer of one channel after another: the playlist, its newest part, blocking reloads."""
    while True:
        await trio.sleep(rng.uniform(0, 3))
        with contextlib.suppress(OSError, AssertionError, trio.TooSlowError, IndexError,
                                 trio.BrokenResourceError):  # fmt: skip
            with trio.move_on_after(rng.uniform(5, 40)):
                await _watch(pair.playback(rng.choice(POPS)), rng.choice(CHANNELS), got)


async def _watch(base: str, channel: str, got: Watched) -> None:
    async with HttpClient(base) as client:
        master = await client.get(f"/live/{channel}/master.m3u8")
        if master.status != 200:
            await trio.sleep(2)
            return
        lines = master.body.decode().splitlines()
        media = next(line for line in lines if line and not line.startswith("#"))
        folder = f"/live/{channel}/{media.rpartition('/')[0]}"
        query = ""
        while True:
            answer = await client.get(f"/live/{channel}/{media}{query}")
            if answer.status != 200 or b"EXT-X-ENDLIST" in answer.body:
                return
            parts = re.findall(r'EXT-X-PART:[^\n]*URI="(\w+-(\d+)\.(\d+)\.m4s)"',
                               answer.body.decode())  # fmt: skip
            name, msn, index = parts[-1]
            part = await client.get(f"{folder}/{name}")
            got.parts += part.status == 200
            got.parts_bytes += len(part.body) if part.status == 200 else 0
            query = f"?_HLS_msn={msn}&_HLS_part={int(index) + 3}"


class Mortal:
    """A process that is killed now and then, and started again."""

    def __init__(self, pair: Pair, name: str, first: Edged) -> None:
        self.pair, self.name, self.edged = pair, name, first
        self.lives = 0

    async def run(self, pause: Callable[[], Awaitable[None]], rng: random.Random) -> None:
        """Until cancelled; whatever lives then is ended in good order."""
        while True:
            await pause()
            how = rng.choice(("kill", "kill", "stop", "pause"))
            logger.info("harm", host=self.name, how=how)
            if how == "pause":
                self.edged.process.send_signal(signal.SIGSTOP)
                await trio.sleep(rng.uniform(0.1, 2.0))
                self.edged.process.send_signal(signal.SIGCONT)
                continue
            self.edged.process.send_signal(signal.SIGKILL if how == "kill" else signal.SIGTERM)
            await self.edged.process.wait()
            self.lives += 1
            path = str(self.pair.folder / f"{self.name}.toml")
            async with open_edged(
                self.pair.folder, f"{self.name}-{self.lives}", "run", "-c", path, doomed=True
            ) as self.edged:
                await self.run(pause, rng)


def check_flat(host: str, samples: list[Sample]) -> None:
    """The memory of the last quarter is that of the second."""
    quarter = len(samples) // 4
    second = max(sample.resident_bytes for sample in samples[quarter : 2 * quarter])
    last = max(sample.resident_bytes for sample in samples[3 * quarter :])
    told = [round(sample.resident_bytes / 2**20) for sample in samples]
    print(f"{host}: MiB in RAM every {SAMPLE_S:g} s: {told}")
    grown = f"{host} grew from {second / 2**20:.0f} to {last / 2**20:.0f} MiB"
    assert last <= GROWTH_MAX * second, grown
    third, fourth = (
        statistics.median(sample.resident_bytes for sample in samples[number * quarter :][:quarter])
        for number in (2, 3)
    )
    grown = f"{host} goes on growing, from {third / 2**20:.0f} to {fourth / 2**20:.0f} MiB"
    assert fourth <= SLOPE_MAX * third, grown


async def test_half_an_hour() -> None:
    require("ffmpeg")
    clip = make_clip(seconds=20)
    rng = random.Random(SOAK_S)  # noqa: S311 - a seed, no secret
    samples: dict[str, list[Sample]] = {host: [] for host in STEADY}
    got, got_each = Watched(), list[int]()
    doomed = ("irs", "ams2", "fra2", "fra3")
    async with open_pair(ORIGINS, POPS, CHANNELS, doomed=doomed) as pair:
        before = {host: await read_sample(pair, host) for host in STEADY}
        mortals = [
            Mortal(pair, name, host)
            for name, host in (("irs", pair.irs), *pair.origins.items(), *pair.pops.items())
            if name in doomed
        ]
        async with trio.open_nursery() as nursery:

            async def pause() -> None:
                await trio.sleep(rng.uniform(20, 60))

            for mortal in mortals:
                nursery.start_soon(mortal.run, pause, rng)
            with trio.move_on_after(SOAK_S):
                async with trio.open_nursery() as crowd:
                    for channel in CHANNELS:
                        crowd.start_soon(publish_for_ever, clip, pair, channel, rng)
                    for _ in range(VIEWERS):
                        crowd.start_soon(watch_for_ever, pair, rng, got)
                    while True:
                        await trio.sleep(SAMPLE_S)
                        for host in STEADY:
                            samples[host].append(await read_sample(pair, host))
                        got_each.append(got.parts - sum(got_each))
            nursery.cancel_scope.cancel()  # The mortals end; those that measured are alone.
        print(f"{got.parts} parts, {got.parts_bytes / 2**30:.1f} GiB, came to viewers; of each"
              f" {SAMPLE_S:g} s at least {min(got_each)}")  # fmt: skip
        assert min(got_each[1:]) > PARTS_SHARE_MIN * statistics.median(got_each), got_each
        assert statistics.median(got_each) > VIEWERS, got_each
        await trio.sleep(SETTLE_S)
        for host in STEADY:
            after = await read_sample(pair, host)
            left = {name: value for name, value in after.left.items() if value}
            peak = max(sample.left["edged_hub_streams"] for sample in samples[host])
            print(f"{host}: {peak:.0f} streams at most; tasks {before[host].tasks:.0f} before,"
                  f" {after.tasks:.0f} after; descriptors {before[host].fds:.0f},"
                  f" {after.fds:.0f}; left {left};"
                  f" {after.resident_bytes / 2**20:.0f} MiB in RAM")  # fmt: skip
            assert peak > PUBLISHERS / 4, "it had something to do"
            assert not left, f"{host} keeps {left}"
            assert after.tasks <= before[host].tasks
            assert after.fds <= before[host].fds + FDS_SPARE
            check_flat(host, samples[host])
