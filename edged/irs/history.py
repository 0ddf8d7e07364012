"""What the network was asked for is kept on disk, for `edged irs forecast`.

A standby hears what the active IRS does and keeps it as well, each in a file of its own: who takes
over has all of it, and nobody's rows are another's. Nothing waits for the disk: rows that cannot be
written yet wait, QUEUE_MAX at most.
"""

import math
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Annotated

import structlog
import trio
from msgspec import Meta, Struct

from edged.irs.collectors import Collectors
from edged.irs.disk_thread import DiskThread
from edged.irs.history_file import HistoryError, HistoryFile
from edged.irs.links import BackboneConfig
from edged.media.routing import OriginState, PopTelemetry
from edged.policy.day_plan import Network
from edged.policy.demand import SAMPLE_S, DemandMeter, DemandRow, slot_of
from edged.policy.well import is_alive
from edged.runtime.metrics import MetricSpec, Sample

QUEUE_MAX = 100_000  # Rows: ten days of a hundred PoPs.
KEPT_S = 180.0  # What is counted is written so often: a process that is killed loses no more.
RETRY_S = 60.0  # After a failure of the disk.
ANSWER_S_MAX = 60.0  # Of a write; beyond, it is said that the disk hangs.
END_S_MAX = 2.0  # For what is not written yet, as the process ends.

METRICS = (
    MetricSpec(name="edged_irs_demand_writes_total", help="Writes of demand to disk"),
    MetricSpec(name="edged_irs_demand_lost_total", help="Rows of demand that are not kept"),
)

log = structlog.get_logger("edged.irs.history")


class HistoryConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[irs.history]`: what each PoP is asked for is kept on disk, for forecasts."""

    file: Path
    days: Annotated[int, Meta(ge=2, le=1000)] = 60


def network_of(collectors: Collectors, config: BackboneConfig, reserve_fraction: float) -> Network:
    """The network as it is heard now, nothing of it cut or drained."""
    capacitor = collectors.capacitor
    origins = {}
    for name in capacitor.origins:
        report = capacitor.report(name)
        if report is not None and capacitor.state(name) is not OriginState.DOWN:
            origins[name] = report.slots_total
    rtt_ms: dict[str, dict[str, float]] = {}
    back_mbps: dict[str, dict[str, float]] = {}
    for pop in collectors.pops():
        if not pop.connected:
            continue
        name = pop.pop.partition("/")[0]
        trips, came = rtt_ms.setdefault(name, {}), back_mbps.setdefault(name, {})
        for origin, probe in pop.told.probes.items():
            if is_alive(probe):  # Shards of a host are at one place: the best that they measured.
                trips[origin] = min(probe.rtt_ms, trips.get(origin, math.inf))
        for origin, (_, back) in pop.told.mbps.items():
            came[origin] = came.get(origin, 0.0) + back
    return Network(
        origins=origins,
        rtt_ms=rtt_ms,
        back_mbps=back_mbps,
        links=config.links,
        sites=config.sites,
        paths=config.paths,
        reserve_fraction=reserve_fraction,
    )


class History:
    """Takes what PoPs tell, and writes what comes of it in a thread.

    `problem` says why the last attempt failed, "" if it did not.
    """

    def __init__(
        self,
        config: HistoryConfig,
        network: Callable[[], Network],
        now_unix: Callable[[], float],
        *,
        warmup_s: float = 0.0,
    ) -> None:
        """`warmup_s`: so long not all shards of a PoP need to be back."""
        self.config = config
        self.kept = 0
        self.problem = ""
        self._network, self._now_unix, self._warmup_s = network, now_unix, warmup_s
        self._meter = DemandMeter(now_unix())
        self._rows: dict[tuple[int, str], DemandRow] = {}
        self._writing: list[DemandRow] = []  # Until they are on disk; the thread empties it.
        self._dropped = 0
        self._wanted = trio.Event()
        self._thread = DiskThread()
        self._asked_at = math.inf
        self._file: HistoryFile | None = None

    def told(self, shard: str, told: PopTelemetry) -> None:
        """A PoP shard tells."""
        self._meter.note(shard, told, trio.current_time())

    async def run(self) -> None:
        """Sample and write until cancelled; what is not written then is, if the disk is quick."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._sample)
                nursery.start_soon(self._write_on)
        finally:
            with trio.move_on_after(END_S_MAX) as scope:
                scope.shield = True
                self._queue(self._meter.flush())
                while self._rows or self._writing:
                    if not await self._write_queued():
                        break
            self._thread.close(self._close)

    @property
    def lost(self) -> int:
        """Rows that waited for too long, and what had no place in a row."""
        return self._dropped + self._meter.lost

    def why_not_kept(self, now: float) -> str:
        """Why nothing is kept; "" while all is well."""
        waited_s = now - self._asked_at
        if waited_s > ANSWER_S_MAX:
            return f"{self.config.file}: the disk has not answered for {waited_s:.0f} s"
        return self.problem

    def read_metrics(self) -> Iterable[Sample]:
        """Values of METRICS."""
        yield Sample("edged_irs_demand_writes_total", self.kept)
        yield Sample("edged_irs_demand_lost_total", self.lost)

    async def _sample(self) -> None:
        await trio.sleep(self._warmup_s)
        kept_at = trio.current_time()
        while True:
            now = trio.current_time()
            self._queue(self._meter.sample(now, self._now_unix()))
            if now - kept_at >= KEPT_S:
                kept_at = now
                self._queue(self._meter.flush())
            await trio.sleep(SAMPLE_S)

    def _queue(self, rows: list[DemandRow]) -> None:
        for row in rows:
            key = (row.slot, row.pop)
            known = self._rows.get(key)
            self._rows[key] = row if known is None else known.plus(row)
            if len(self._rows) > QUEUE_MAX:
                del self._rows[next(iter(self._rows))]
                self._dropped += 1
        if rows:
            self._wanted.set()

    async def _write_on(self) -> None:
        while True:  # At once, too: a file that cannot be made is known before the first row.
            self._wanted = trio.Event()
            if await self._write_queued():
                await self._wanted.wait()
            else:
                await trio.sleep(RETRY_S)

    async def _write_queued(self) -> bool:
        await self._thread.idle()
        await trio.lowlevel.checkpoint_if_cancelled()
        if not self._writing:
            self._writing, self._rows = list(self._rows.values()), {}
        if not self._writing and self._file is not None:
            return True
        self._asked_at = trio.current_time()
        write = partial(self._write, self._writing, self._network(), slot_of(self._now_unix()))
        try:
            await self._thread.run(write)
        except HistoryError as error:
            if str(error) != self.problem:
                log.warning("demand is not kept", reason=str(error))
            self.problem = str(error)
            return False
        finally:
            self._asked_at = math.inf
        if self.problem:
            log.info("demand is kept again", file=str(self.config.file))
        self.problem = ""
        return True

    def _write(self, rows: list[DemandRow], network: Network, slot: int) -> None:
        """In the thread, which may be left alone with it: what is on disk is not written again."""
        try:
            if self._file is None:
                self._file = HistoryFile(self.config.file)
            self._file.add(rows, network, slot, self.config.days)
        except HistoryError:
            self._close()
            raise
        self.kept += 1
        self._writing = []

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()
