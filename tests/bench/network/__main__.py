"""What the network page's history costs IRS, and an hour of the simulator's world to look at.

python -m tests.bench.network               # sizes and CPU time, in some minutes
python -m tests.bench.network --serve 9465  # plays an hour first, for minutes, and serves the page
"""

import argparse
import gzip
import hashlib
import json
import random
import statistics
import time
from collections.abc import Callable

import msgspec
import trio

from edged.api.admin import AdminConfig
from edged.irs.service import IrsConfig, IrsService
from edged.media.routing import OriginReport, PathProbe, PopTelemetry, ReportedState
from edged.policy.link_map import LinkConfig, SiteConfig
from edged.policy.network_history import KEEPS_S, SAMPLE_INTERVAL_S, HistoryLines, NetworkHistory
from edged.policy.well import LinkStatus
from edged.roles.admin_http import serve_admin_http
from edged.wire.table import OriginHello
from tests.bench.network.world import play

TOKEN = "the-token-of-this-network"  # noqa: S105 - it opens nothing
SAMPLES = round(KEEPS_S / SAMPLE_INTERVAL_S)
SERVES_S = 3600.0
STREAMS = 100_000
STREAM_S = 3600.0  # So long one lasts: as many come as go.
SMALL = (100, 12, 54)
LARGE = (200, 99, 300)


class Crowd:
    """An IRS that hears of PoPs, origins and links without a network."""

    def __init__(self, pops: int, origins: int, links: int) -> None:
        self.rng = random.Random(1)  # noqa: S311 - a bench's
        self.pops = [f"pop{number}" for number in range(pops)]
        self.origins = [f"origin{number}" for number in range(origins)]
        sites = tuple(
            SiteConfig(
                name=f"site{number}",
                pops=(pop,),
                origins=tuple(self.origins[number::pops]),
                latitude=self.rng.uniform(-50, 65),
                longitude=self.rng.uniform(-180, 180),
            )
            for number, pop in enumerate(self.pops)
        )
        around = min(links, pops)
        pairs = [(number, (number + 1) % pops) for number in range(around)]
        pairs += [(number, (7 * number + pops // 2) % pops) for number in range(links - around)]
        config = IrsConfig(
            sites=sites,
            links=tuple(
                LinkConfig(name=f"link{number}", ends=(f"site{a}", f"site{b}"), mbps=1e5)
                for number, (a, b) in enumerate(pairs)
            ),
        )
        self.unix = 1_700_000_000.0
        self.service = IrsService(config, entropy=self.rng.randbytes, now_unix=lambda: self.unix)
        most = max(2, 2 * STREAMS // (pops * origins))
        self.units = {
            pop: {name: [0, 0, self.rng.randrange(1, most)] for name in self.origins}
            for pop in self.pops
        }
        for name in self.origins:
            hello = OriginHello(origin=name, incarnation=1, address=f"{name}:1940")
            self.service.collectors.origin_joined(hello)
        for pop in self.pops:
            self.service.collectors.pop_joined(f"{pop}/0")
        self.service.links.status = self.links  # type: ignore[method-assign] # The Well is not measured here.
        self.probes = {
            pop: {name: PathProbe(self.rng.uniform(5, 200), probed=True) for name in self.origins}
            for pop in self.pops
        }

    def links(self) -> list[LinkStatus]:
        """Each a little fuller or emptier than before."""
        return [
            msgspec.structs.replace(
                link,
                state="up",
                utilisation=(0.6 + self.rng.gauss(0, 0.01), 0.4 + self.rng.gauss(0, 0.01)),
                rtt_ms=30 + self.rng.gauss(0, 0.5),
                loss=0.0,
                told_as=(link.link,),
            )
            for link in self.service.links.well.links()
        ]

    def tell(self) -> None:
        """Telemetry and heartbeats of 5 s; some streams came, some went."""
        collectors = self.service.collectors
        now = trio.current_time()
        for name in self.origins:
            free = self.rng.randrange(100, 4000)
            report = OriginReport(name, 1, ReportedState.UP, 5000, (free, free, free))
            collectors.heartbeat(report, now)
        for _ in range(round(2 * STREAMS / STREAM_S * SAMPLE_INTERVAL_S)):
            counts = self.units[self.rng.choice(self.pops)][self.rng.choice(self.origins)]
            counts[2] = max(1, counts[2] + self.rng.choice((-1, 1)))
        for pop in self.pops:
            units = {name: (a, b, c) for name, (a, b, c) in self.units[pop].items()}
            mbps = {name: (6.0 * c, 0.1) for name, (_, _, c) in units.items()}
            arrivals = self.rng.randrange(5)
            told = PopTelemetry(units, arrivals, probes=self.probes[pop], mbps=mbps)
            self.service.watch.told(f"{pop}/0", told)
            collectors.telemetry(f"{pop}/0", told, now)


async def measure(pops: int, origins: int, links: int, samples: int = SAMPLES) -> None:
    """Print what an hour of such a network takes; every PoP has streams at every origin."""
    crowd = Crowd(pops, origins, links)
    watch = crowd.service.watch
    took: list[float] = []
    for _ in range(samples):
        crowd.tell()
        crowd.unix += SAMPLE_INTERVAL_S
        began = time.thread_time()
        watch.sample()
        took.append(1000 * (time.thread_time() - began))
    kept = watch.history.statistics()
    answers = read_all(watch.history.after)
    took.sort()
    typical = statistics.median(took)
    print(
        f"{pops} PoPs, {origins} origins, {links} links: a sample {typical:.1f} ms, p99 "
        f"{took[int(0.99 * len(took))]:.1f} ms, {typical / (10 * SAMPLE_INTERVAL_S):.2f} % "
        f"of a core; "
        f"{kept.bytes / 2**20:.1f} MiB hold {kept.seconds / 60:.0f} min; to look anew "
        f"{len(answers)} answers, {sum(map(sent, answers)) / 2**20:.2f} MiB by gzip, an answer "
        f"{1000 * slowest(watch.history):.1f} ms at most"
    )


def read_all(after: Callable[[str], HistoryLines]) -> list[HistoryLines]:
    """As the page does."""
    answers: list[HistoryLines] = []
    cursor, run = "", ""
    while (lines := after(cursor)).text:
        answers.append(lines)
        first, *_, last = [json.loads(each) for each in lines.text.splitlines()] * 2
        run = first["whole"]["run"] if "whole" in first else run
        cursor = f"{run}-{last['seq']}"
    return answers


def sent(lines: HistoryLines) -> int:
    return len(lines.gzip or gzip.compress(lines.text))


def slowest(history: NetworkHistory) -> float:
    """Seconds of CPU time for the answer that takes longest."""
    worst = 0.0

    def timed(cursor: str) -> HistoryLines:
        nonlocal worst
        began = time.thread_time()
        lines = history.after(cursor)
        worst = max(worst, time.thread_time() - began)
        return lines

    read_all(timed)
    return worst


async def serve(port: int, slots: int) -> None:
    """Play an hour, and serve the page; the last sample goes on being the newest."""
    print(f"an hour of {slots} streams is played: about {slots / 600:.0f} s")
    places, taken = play(slots, ends_unix=time.time())
    history = NetworkHistory("0123abcd")
    late = time.time() - taken[-1].sample.at
    for each in taken:
        events = [msgspec.structs.replace(event, at=event.at + late) for event in each.events]
        sample = msgspec.structs.replace(each.sample, at=each.sample.at + late)
        history.add(sample, places, events)
    config = AdminConfig(
        listen=f"127.0.0.1:{port}", token_sha256=hashlib.sha256(TOKEN.encode()).hexdigest()
    )
    print(f"http://127.0.0.1:{port}/network#{TOKEN}")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            serve_admin_http, config, lambda _query: b"{}", lambda line: line, history.after
        )
        for number in range(round(SERVES_S / SAMPLE_INTERVAL_S)):
            await trio.sleep(SAMPLE_INTERVAL_S)
            each = taken[-1 - number % 2]  # Something moves.
            sample = msgspec.structs.replace(each.sample, at=time.time())
            history.add(sample, places, [])
        nursery.cancel_scope.cancel()


async def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.network")
    parser.add_argument("--serve", type=int, metavar="PORT")
    parser.add_argument("--slots", type=int, default=20_000, help="of the world that is played")
    options = parser.parse_args()
    if options.serve is not None:
        await serve(options.serve, options.slots)
        return
    for size in (SMALL, LARGE):
        await measure(*size)


if __name__ == "__main__":
    trio.run(main)
