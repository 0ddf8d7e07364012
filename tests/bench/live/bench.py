"""An IRS process that is killed and started anew, and PoPs that tell it who is live at them."""

import contextlib
import os
import signal
import tempfile
import time
from pathlib import Path

import msgspec
import trio
from msgspec import Struct

from edged.api.admin import ask
from edged.errors import EdgedError
from edged.irs.client import IrsClientConfig, PopClient
from edged.irs.live_board import LiveAnswer
from edged.media.live import LiveRow
from edged.policy.pop_view import PopView
from tests.bench.ingest.processes import cpu_s
from tests.e2e.network import Edged, open_edged, take_ports, wait_until

POLL_S = 0.01
JOIN_S_MAX = 60.0
ORIGINS = tuple(f"origin{number}" for number in range(10))


class Rebuilt(Struct, frozen=True, kw_only=True):
    """What a restart cost."""

    channels: int
    joined_s: float  # From the listener until the last PoP had a session.
    known_s: float  # From the listener until all was known.
    told_s: float  # From the last session until all was known.
    cpu_s: float  # Of IRS, from its listener until then.
    rss_mb: float
    cores: float  # Of IRS's CPU later, with `changes_per_s` at each PoP.


def make_rows(pop: int, count: int) -> dict[str, LiveRow]:
    """What is live at one PoP."""
    return {
        name: LiveRow(
            name,
            (pop << 40) + number,
            1,
            ORIGINS[number % len(ORIGINS)],
            ("partner", "affiliate", "basic", "basic")[number % 4],
            ("rtmp", "rtmps", "srt")[number % 3],
            1_700_000_000.25 + number,
        )
        for number in range(count)
        for name in [f"channel-of-pop-{pop}-{number}"]
    }


class _Network:
    def __init__(self, pops: int, streams: int, address: str) -> None:
        self.rows = [make_rows(pop, streams) for pop in range(pops)]
        config = IrsClientConfig(addresses=(address,))
        self.clients = [
            PopClient(config, PopView(f"pop{number}"), live=lambda rows=rows: rows)  # type: ignore[misc]
            for number, rows in enumerate(self.rows)
        ]

    @property
    def joined(self) -> bool:
        return all(client.sessions for client in self.clients)

    async def churn(self, changes_per_s: float) -> None:
        """Streams go to another origin, so many a second at each PoP."""
        turn = 0
        while True:
            await trio.sleep(1.0 / changes_per_s)
            turn += 1
            for rows in self.rows:
                name = list(rows)[turn % len(rows)]
                row = rows[name]
                rows[name] = msgspec.structs.replace(row, origin=ORIGINS[turn % len(ORIGINS)])


async def rebuild(
    pops: int, streams: int, *, seconds: float, changes_per_s: float = 2.0
) -> Rebuilt:
    """Have IRS know it, kill it, and start it anew; then watch it for a while."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (port,) = take_ports(("irs",)).values()
        (folder / "irs.toml").write_text(
            f"[irs]\nlisten = '127.0.0.1:{port}'\nwarmup_s = 0\n"
            f"[admin]\nsocket = '{folder}/admin.sock'\n"
        )
        network = _Network(pops, streams, f"127.0.0.1:{port}")
        async with trio.open_nursery() as nursery:
            async with open_edged(folder, "first", "run", "-c", "irs.toml", doomed=True) as irs:
                await irs.wait_log("irs listens")
                for client in network.clients:
                    nursery.start_soon(client.run)
                await wait_until(lambda: network.joined, JOIN_S_MAX)
                await _known(folder, pops * streams)
                irs.process.send_signal(signal.SIGKILL)
                await irs.process.wait()
            async with open_edged(folder, "again", "run", "-c", "irs.toml") as irs:
                rebuilt = await _watch(irs, folder, network, pops * streams)
                nursery.start_soon(network.churn, changes_per_s)
                await trio.sleep(2.0)
                before, started = cpu_s([irs.process.pid]), time.monotonic()
                await trio.sleep(seconds)
                spent = cpu_s([irs.process.pid]) - before
                nursery.cancel_scope.cancel()
    return msgspec.structs.replace(rebuilt, cores=spent / (time.monotonic() - started))


async def _watch(irs: Edged, folder: Path, network: _Network, channels: int) -> Rebuilt:
    while not irs.log("irs listens"):  # noqa: ASYNC110 - it writes a file
        await trio.sleep(POLL_S)
    listens_at, before = trio.current_time(), cpu_s([irs.process.pid])
    joined_at = 0.0

    async def watch_sessions() -> None:
        nonlocal joined_at
        while not network.joined:  # noqa: ASYNC110 - of many
            await trio.sleep(POLL_S / 2)
        joined_at = trio.current_time()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch_sessions)
        await _known(folder, channels)
    known_at = trio.current_time()
    return Rebuilt(
        channels=channels,
        joined_s=joined_at - listens_at,
        known_s=known_at - listens_at,
        told_s=known_at - joined_at,
        cpu_s=cpu_s([irs.process.pid]) - before,
        rss_mb=_rss_bytes(irs.process.pid) / 1e6,
        cores=0.0,
    )


async def _known(folder: Path, channels: int) -> None:
    with trio.fail_after(JOIN_S_MAX):
        while True:
            with contextlib.suppress(EdgedError):  # It listens for PoPs a moment before it answers.
                said = await ask(folder / "admin.sock", "live", {"limit": "1"})
                (answer,) = msgspec.json.decode(said, type=list[LiveAnswer])
                if answer.channels == channels and not answer.unlisted:
                    return
            await trio.sleep(POLL_S)


def _rss_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
