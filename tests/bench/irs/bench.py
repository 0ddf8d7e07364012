"""What IRS costs: its linear programs, and the service with a hundred PoPs over loopback.

The service is a process of its own, run by `edged run`; origins and PoPs are the real clients, all
in this process, so what it costs them to take in tables is part of the times.
"""

import contextlib
import gc
import os
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import trio
from msgspec import Struct

from edged.irs.client import IrsClientConfig, OriginClient, PopClient
from edged.media.routing import (
    OriginReport,
    OriginState,
    ReportedState,
    RouteRequest,
    RoutingTable,
)
from edged.media.stream import PriorityClass
from edged.policy.flows import FlowProblem
from edged.policy.planner import OriginSupply, PopDemand, plan_leases
from edged.policy.pop_needs import BoundDemand
from edged.policy.pop_view import PopView
from edged.policy.solver import FlowSolver
from edged.wire.table import OriginHello
from tests.bench.ingest.processes import cpu_s
from tests.e2e.network import open_edged, take_ports, wait_until

CLASS_SHARES = (0.05, 0.15, 0.8)
LOAD = 0.986  # Of all slots, as at the evening's peak.
LEASE_TTL_S = 10.0
JOIN_S_MAX = 30.0
EVENT_S_MAX = 5.0


class World:
    """PoPs and origins somewhere, and the streams between them."""

    def __init__(self, pops: int, origins: int, *, streams: int, seed: int) -> None:
        self.rng = random.Random(seed)  # noqa: S311 - a world, not a secret
        self.pops = [f"p{n:03}" for n in range(pops)]
        self.origins = [f"o{n:02}" for n in range(origins)]
        self.rtt_ms = [[self.rng.uniform(2, 150) for _ in self.origins] for _ in self.pops]
        weights = [self.rng.lognormvariate(0, 1) for _ in self.pops]
        sizes = [self.rng.uniform(0.5, 1.5) for _ in self.origins]
        self.slots = [round(streams / LOAD * size / sum(sizes)) for size in sizes]
        self.demand = [
            [round(streams * weight / sum(weights) * share) for share in CLASS_SHARES]
            for weight in weights
        ]
        self.draining: set[str] = set()

    def problem(self) -> FlowProblem:
        """What there is to place now."""
        return FlowProblem(
            pops=self.pops,
            origins=self.origins,
            demand=[list(classes) for classes in self.demand],
            capacity=[
                [0.0] * 3
                if name in self.draining
                else [slots, slots - slots // 500, slots - slots // 500]
                for name, slots in zip(self.origins, self.slots, strict=True)
            ],
            rtt_ms=[[float(round(rtt)) for rtt in row] for row in self.rtt_ms],
        )

    def step(self) -> None:
        """A second later: streams come and go, paths change, an origin fails or is back."""
        rng = self.rng
        for classes in self.demand:
            for k in range(3):
                classes[k] = max(0, classes[k] + rng.randrange(-3, 4))
        for row in self.rtt_ms:
            for place, rtt in enumerate(row):
                row[place] = max(1.0, rtt + rng.gauss(0, 0.2))
        if rng.random() < 0.02:
            self.draining ^= {rng.choice(self.origins)}


class Times(Struct, frozen=True, kw_only=True):
    """Milliseconds."""

    p50: float
    p99: float
    most: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Times":
        ordered = sorted(seconds)
        last = len(ordered) - 1
        return cls(
            p50=1000 * ordered[last // 2],
            p99=1000 * ordered[min(last, round(last * 0.99))],
            most=1000 * ordered[last],
        )


@contextlib.contextmanager
def settled() -> Iterator[None]:
    """Collect garbage as edged does: what was there at its start is not looked at again."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def time_solver(pops: int, origins: int, *, steps: int, cold: bool) -> Times:
    """Solve a world's problem, second by second."""
    world = World(pops, origins, streams=1000 * pops, seed=1)
    solver = FlowSolver()
    solver.solve(world.problem())
    taken = []
    with settled():
        for _ in range(steps):
            world.step()
            problem = world.problem()
            if cold:
                solver.restart()
            started = time.perf_counter()
            solver.solve(problem)
            taken.append(time.perf_counter() - started)
    return Times.of(taken)


def bind(
    world: World, row: int, units: dict[str, tuple[int, int, int]], parts: int
) -> tuple[BoundDemand, ...]:
    """So many parts of the streams of a PoP, each pinned to an origin of its own."""
    pinned = [world.origins[(row + n) % len(world.origins)] for n in range(parts)]
    return tuple(
        BoundDemand(
            first=(origin,),
            units={origin: (0, 0, units.get(origin, (0, 0, 0))[2] // 2)},
            arrivals_per_s=0.1,
        )
        for origin in pinned
    )


def time_plan(pops: int, origins: int, *, steps: int, parts: int = 0) -> Times:
    """Plan all leases of a world that is where the solver would have it, second by second.

    `parts`: into how many rules part the streams of each PoP, beside those that are free.
    """
    world = World(pops, origins, streams=1000 * pops, seed=2)
    placement = FlowSolver().solve(world.problem())
    solver, taken = FlowSolver(), []
    with settled():
        for _ in range(steps):
            world.step()
            demands = []
            used = [0] * origins
            for row, pop in enumerate(world.pops):
                units = {}
                for place, origin in enumerate(world.origins):
                    partner, affiliate, basic = (round(n) for n in placement.units[row][place])
                    basic = max(0, basic + world.rng.randrange(-2, 3)) if basic else 0
                    if partner or affiliate or basic:
                        units[origin] = (partner, affiliate, basic)
                        used[place] += partner + affiliate + basic
                rtts = dict(zip(world.origins, world.rtt_ms[row], strict=True))
                demands.append(
                    PopDemand(
                        pop=f"{pop}/0",
                        units=units,
                        arrivals_per_s=0.5,
                        rtt_ms=rtts,
                        bound=bind(world, row, units, parts),
                    )
                )
            supplies = [
                OriginSupply(
                    origin=origin,
                    address=f"{origin}:1",
                    state=OriginState.DRAIN if origin in world.draining else OriginState.UP,
                    slots_total=slots,
                    room=(max(0, slots - taken_),) * 3,
                )
                for origin, slots, taken_ in zip(world.origins, world.slots, used, strict=True)
            ]
            started = time.perf_counter()
            plan = plan_leases(supplies, demands, reserve_fraction=0.002, solve=solver.solve)
            taken.append(time.perf_counter() - started)
            assert plan.policy == "leases", plan.failure
    return Times.of(taken)


class Served(Struct, frozen=True, kw_only=True):
    """What the service took."""

    cores: float  # Of CPU, pushing to all.
    rss_mb: float
    events: Times  # From an origin's word until the last PoP has the table that tells of it.
    tables: float  # Taken by a PoP in a second.


class _Network:
    """Origins and PoPs of the bench."""

    def __init__(self, world: World, address: str) -> None:
        self.world = world
        config = IrsClientConfig(addresses=(address,))
        self.free = dict(zip(world.origins, world.slots, strict=True))
        self.views = [PopView(pop) for pop in world.pops]
        self.tables = 0
        self.said_at: float | None = None  # When the origin of an event said it first.
        self.waiting: set[str] = set()  # PoPs that have not heard of it.
        self.wanted: tuple[str, bool] = ("", False)
        self.heard = trio.Event()
        self.clients = [
            PopClient(config, view, on_table=lambda table, pop=view.pop: self.take(pop, table))  # type: ignore[misc]
            for view in self.views
        ]
        self.sources = [
            OriginClient(
                config,
                OriginHello(origin=name, incarnation=1, address="127.0.0.1:9"),
                lambda name=name: self.report(name),  # type: ignore[misc]
            )
            for name in world.origins
        ]

    def report(self, name: str) -> OriginReport:
        draining = name in self.world.draining
        if self.wanted == (name, draining) and self.said_at is None:
            self.said_at = trio.current_time()
        total = self.world.slots[self.world.origins.index(name)]
        state = ReportedState.DRAIN if draining else ReportedState.UP
        free = max(0, self.free[name])
        return OriginReport(name, 1, state, total, (free, free, free))

    def take(self, pop: str, table: RoutingTable) -> None:
        self.tables += 1
        name, draining = self.wanted
        if pop not in self.waiting or self.said_at is None:
            return
        states = {row.origin: row.state for row in table.rows}
        if (states.get(name) is OriginState.DRAIN) == draining:
            self.waiting.discard(pop)
            if not self.waiting:
                self.heard.set()

    def fill(self) -> None:
        """Place the streams where the solver has them."""
        solution = FlowSolver().solve(self.world.problem())
        for row, view in enumerate(self.views):
            for place, name in enumerate(self.world.origins):
                view.observe_rtt(name, self.world.rtt_ms[row][place])
                for k, units in enumerate(solution.units[row][place]):
                    if units:
                        request = RouteRequest(
                            channel="c", priority=PriorityClass(k), cost=round(units)
                        )
                        view.placed(name, request, is_there=True)
                        self.free[name] -= request.cost

    async def live(self) -> None:
        """Streams come and go, half a stream a second at each PoP; paths are probed."""
        rng = self.world.rng
        request = RouteRequest(channel="c")
        there: dict[str, list[str]] = {view.pop: [] for view in self.views}
        while True:
            await trio.sleep(0.02)
            view = rng.choice(self.views)
            view.note_request(request, placed=True)
            name = rng.choice(self.world.origins)
            view.observe_rtt(name, max(1.0, rng.gauss(50, 20)))
            if self.free[name] > 0:
                view.placed(name, request, is_there=True)
                self.free[name] -= 1
                there[view.pop].append(name)
            if len(there[view.pop]) > 3:
                left = there[view.pop].pop(0)
                view.released(left, request)
                self.free[left] += 1

    async def tell(self, name: str) -> float:
        """An origin begins or ends to drain; the seconds until the last PoP knows."""
        self.heard, self.said_at = trio.Event(), None
        self.waiting = set(self.world.pops)
        self.world.draining ^= {name}
        self.wanted = (name, name in self.world.draining)
        with trio.fail_after(EVENT_S_MAX):
            await self.heard.wait()
        assert self.said_at is not None
        return trio.current_time() - self.said_at


async def serve(
    pops: int, origins: int, *, push_interval_s: float, seconds: float, events: int
) -> Served:
    """Run the service and all its peers; measure it at its pushes, then event by event."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ports = take_ports(("irs", "metrics"))
        (folder / "irs.toml").write_text(
            f"[irs]\nlisten = '127.0.0.1:{ports['irs']}'\npush_interval_s = {push_interval_s}\n"
            f"lease_ttl_s = {LEASE_TTL_S}\nwarmup_s = 0\n"
            f"[admin]\nsocket = '{folder}/admin.sock'\n"
            f"[metrics]\nlisten = '127.0.0.1:{ports['metrics']}'\n"
        )
        async with open_edged(folder, "irs", "run", "-c", "irs.toml") as irs:
            await irs.wait_log("irs listens")
            network = _Network(
                World(pops, origins, streams=1000 * pops, seed=3), f"127.0.0.1:{ports['irs']}"
            )
            network.fill()
            async with trio.open_nursery() as nursery:
                for source in network.sources:
                    nursery.start_soon(source.run)
                for client in network.clients:
                    nursery.start_soon(client.run)
                nursery.start_soon(network.live)
                await wait_until(lambda: _all_have_tables(network, origins), JOIN_S_MAX)
                await trio.sleep(3.0)
                before, tables, started = cpu_s([irs.process.pid]), network.tables, time.monotonic()
                await trio.sleep(seconds)
                lasted = time.monotonic() - started
                cores = (cpu_s([irs.process.pid]) - before) / lasted
                pushed = (network.tables - tables) / lasted / pops
                taken = []
                for number in range(events):
                    taken.append(await network.tell(network.world.origins[number // 2 % origins]))
                    await trio.sleep(0.3 + network.world.rng.random() * 0.2)
                rss = _rss_bytes(irs.process.pid)
                nursery.cancel_scope.cancel()
    return Served(cores=cores, rss_mb=rss / 1e6, events=Times.of(taken), tables=pushed)


def _all_have_tables(network: _Network, origins: int) -> bool:
    return all(view.table is not None and len(view.table.rows) == origins for view in network.views)


def _rss_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
