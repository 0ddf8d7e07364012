"""Keeps what IRS sees for an hour, for the page that draws it: a sample each 5 s, and what happens.

What is known only as it happens (moves, refusals, origins that fail) is noted then, at its time;
all else is read when a sample is taken.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import structlog
import trio

from edged.media.routing import NO_UNITS, PopTelemetry
from edged.media.stream import PriorityClass
from edged.policy.capacitor import StateChanged
from edged.policy.moves import UnitMoves
from edged.policy.network_events import EventGatherer
from edged.policy.network_history import SAMPLE_INTERVAL_S, HistoryLines, NetworkHistory
from edged.policy.network_sample import (
    ORIGIN_STATES,
    POP_STATES,
    UNKNOWN,
    IrsPoint,
    NetworkEvent,
    NetworkSample,
    Pair,
    Row,
    differences,
    link_row,
)
from edged.policy.shedding import UnitSheds
from edged.runtime.faults import contained
from edged.runtime.metrics import MetricSpec, Sample
from edged.wire.table import Moved, MoveRefused, ShedDone

if TYPE_CHECKING:
    from edged.irs.service import IrsService

METRICS = (
    MetricSpec(name="edged_irs_network_samples", help="Samples kept for the network page"),
    MetricSpec(name="edged_irs_network_bytes", help="What they take"),
)

log = structlog.get_logger("edged.irs.watch")


class NetworkWatch:
    """Of one IRS. All but `run` is synchronous."""

    def __init__(self, service: "IrsService", now_unix: Callable[[], float], run: str) -> None:
        """`run` names this start of IRS."""
        self.history = NetworkHistory(run)
        self._service, self._now_unix = service, now_unix
        self._gatherer = EventGatherer()
        self._counts: dict[str, list[int]] = {}  # PoP -> arrivals, refusals, unplaced, since then.
        self._before: NetworkSample | None = None

    async def run(self) -> None:
        """Take samples until cancelled."""
        while True:
            with contained(log, "network not sampled"):
                self.sample()
            await trio.sleep(SAMPLE_INTERVAL_S)

    def lines(self, cursor: str) -> HistoryLines:
        """What comes behind a cursor."""
        return self.history.after(cursor)

    def read_metrics(self) -> Iterable[Sample]:
        """Values of METRICS."""
        kept = self.history.statistics()
        yield Sample("edged_irs_network_samples", kept.lines)
        yield Sample("edged_irs_network_bytes", kept.bytes)

    # As it happens.

    def told(self, key: str, told: PopTelemetry) -> None:
        """A PoP shard has told what came to it since it did last."""
        counts = self._counts.setdefault(_name(key), [0, 0, 0])
        counts[0] += told.arrivals
        counts[1] += sum(told.refusals.values()) + sum(told.timeouts.values())
        counts[2] += told.unplaced

    def origins_changed(self, changes: Iterable[StateChanged]) -> None:
        """Origins are in another state."""
        for change in changes:
            self._gatherer.add(
                NetworkEvent(
                    at=self._now_unix(),
                    kind="origin",
                    origin=change.origin,
                    before="" if change.before is None else change.before.value,
                    after=change.after.value,
                    why=change.reason,
                )
            )

    def moves_wanted(self, number: int, moves: Sequence[UnitMoves]) -> None:
        """PoPs were asked to move streams."""
        at = self._now_unix()
        for move in moves:
            self._gatherer.want((number, move.pop, move.from_origin, move.to_origin), move.reason)
            self._gatherer.add(
                NetworkEvent(
                    at=at,
                    kind="wanted",
                    pop=_name(move.pop),
                    origin=move.from_origin,
                    to=move.to_origin,
                    why=move.reason,
                    count=move.units,
                )
            )

    def moved(self, key: str, moved: Moved) -> None:
        """A stream has another home."""
        wanted = (moved.number, key, moved.from_origin, moved.to_origin)
        self._gatherer.add(
            NetworkEvent(
                at=self._now_unix(),
                kind="moved",
                pop=_name(key),
                origin=moved.from_origin,
                to=moved.to_origin,
                before=moved.why,
                why=self._gatherer.why_wanted(wanted) if moved.number else "",
                channels=(moved.channel,),
            )
        )

    def kept(self, key: str, refused: MoveRefused) -> None:
        """Streams stay where they were, though they were wanted elsewhere."""
        self._gatherer.add(
            NetworkEvent(
                at=self._now_unix(),
                kind="kept",
                pop=_name(key),
                origin=refused.from_origin,
                to=refused.to_origin,
                why=refused.reason,
                count=refused.count,
                channels=(refused.channel,) if refused.channel else (),
            )
        )

    def shed(self, key: str, done: ShedDone) -> None:
        """A PoP has ended streams for which a link has no room."""
        if not done.ended:
            return
        self._gatherer.add(
            NetworkEvent(
                at=self._now_unix(),
                kind="shed",
                pop=_name(key),
                origin=done.origin,
                link=done.link,
                why=done.class_,
                count=done.ended,
                channels=done.channels,
            )
        )

    def closed(self, sheds: Sequence[UnitSheds]) -> None:
        """Streams have to go: new ones of their class cross those links by lease alone."""
        classes: dict[str, PriorityClass] = {}
        for each in sheds:
            classes[each.link] = min(each.priority, classes.get(each.link, each.priority))
        for link, priority in classes.items():
            self._gatherer.add(
                NetworkEvent(
                    at=self._now_unix(), kind="full", link=link, after="begun", why=priority.label
                )
            )

    def opened(self, link: str) -> None:
        """That is over."""
        self._gatherer.add(NetworkEvent(at=self._now_unix(), kind="full", link=link, after="over"))

    # Each SAMPLE_INTERVAL_S.

    def sample(self) -> None:
        """Look at everything, and keep it."""
        links = self._service.links
        taken = self._look()
        before, self._before = self._before, taken
        for event in differences(before, taken) if before is not None else ():
            self._gatherer.add(event)
        self.history.add(taken, links.places, self._gatherer.take())

    def _look(self) -> NetworkSample:
        service = self._service
        pops, flows, units = self._look_at_pops()
        links = service.links.status()
        reach, relays = service.reach.look()
        return NetworkSample(
            at=self._now_unix(),
            irs=self._look_at_irs(),
            pops=pops,
            origins=dict(self._look_at_origins(units)),
            links={link.link: link_row(link) for link in links},
            flows=flows,
            reach=reach,
            relays=relays,
            drains=service.moving.notes(),
            limits=tuple(service.sources.held),
            link_why={link.link: link.why for link in links if link.why},
        )

    def _look_at_pops(self) -> tuple[dict[str, Row], dict[Pair, int], dict[str, list[int]]]:
        """PoPs, all their shards together; units from each to each origin; units there by class."""
        here: dict[str, int] = {}
        offers: dict[str, tuple[int, int]] = {}  # State, load: of the shard that has most to do.
        streams: dict[str, int] = {}
        flows: dict[Pair, int] = {}
        units: dict[str, list[int]] = {}
        for pop in self._service.collectors.pops():
            name = _name(pop.pop)
            here[name] = here.get(name, 0) or int(pop.connected)
            if pop.told.ingest is not None and pop.told.ingest.state in POP_STATES:
                offer = pop.told.ingest
                seen = (POP_STATES.index(offer.state), round(100 * offer.load))
                offers[name] = max(offers.get(name, seen), seen)
            total = streams.get(name, 0)
            for origin, counts in pop.told.units.items():
                partner, affiliate, basic = counts
                if not (count := partner + affiliate + basic):
                    continue
                total += count
                flows[name, origin] = flows.get((name, origin), 0) + count
                if (there := units.get(origin)) is None:
                    there = units[origin] = list(NO_UNITS)
                there[0] += partner
                there[1] += affiliate
                there[2] += basic
            streams[name] = total
        counted, self._counts = self._counts, {}
        rows: dict[str, Row] = {}
        for name in sorted(here):
            state, load = offers.get(name, (UNKNOWN, UNKNOWN))
            told = counted.get(name, [0, 0, 0])
            rows[name] = (here[name], state, streams[name], *told, load)
        return rows, flows, units

    def _look_at_origins(self, units: dict[str, list[int]]) -> Iterator[tuple[str, Row]]:
        for origin in self._service.status().origins:
            report, limit = (
                origin.report,
                self._service.collectors.restricted.get(origin.origin),
            )
            row = (
                ORIGIN_STATES.index(origin.state.value),
                int(origin.connected),
                report.slots_total,
                max(0, report.slots_total - report.slots_free[PriorityClass.PARTNER]),
                *units.get(origin.origin, NO_UNITS),
                100 if limit is None else round(100 * limit.usable),
            )
            yield origin.origin, row

    def _look_at_irs(self) -> IrsPoint:
        service = self._service
        plan = service.planner.last
        unserved = 0.0
        if plan is not None and plan.solution is not None:
            unserved = sum(map(sum, plan.solution.all_unserved()))
        return IrsPoint(
            standing=service.seat.claim.standing.value,
            epoch=service.epoch,
            version=service.version,
            fallback="" if plan is None else plan.failure,
            unserved=round(unserved),
        )


def _name(key: str) -> str:
    """The PoP of a shard: of "lhr/2", "lhr"."""
    return key.partition("/")[0]
