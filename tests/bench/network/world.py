"""The simulator's world, seen as IRS sees a network: an hour of it with its mishaps, as samples."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

import edged
from edged.errors import EdgedError
from edged.media.epochs import DrainNote
from edged.media.routing import CLASSES, OriginReport
from edged.media.stream import PriorityClass
from edged.policy.moves import UnitMoves
from edged.policy.network_events import EventGatherer
from edged.policy.network_history import KEEPS_S, SAMPLE_INTERVAL_S
from edged.policy.network_sample import (
    LINK_STATES,
    ORIGIN_STATES,
    UNKNOWN,
    IrsPoint,
    LinkPlace,
    NetworkEvent,
    NetworkMap,
    NetworkSample,
    Row,
    SitePlace,
    differences,
)
from edged.policy.well import CLEAR_AT, PRICE_FULL_MS, RAISE_AT
from edged.tools.simulate.engine import Network
from edged.tools.simulate.incidents import schedule
from edged.tools.simulate.rehoming import Rehoming
from edged.tools.simulate.scenario import (
    CapacityLost,
    DemandConfig,
    FlashCrowd,
    Link,
    LinkCut,
    Loaded,
    OriginDead,
    Scenario,
    Upgrade,
    WorldFile,
)
from edged.tools.simulate.streams import Stage, Stream

WORLD = Path(edged.__file__).parent.parent / "config" / "scenarios" / "world.toml"
WORLD_SLOTS = 100_000  # For which its links were made,
LINKS_SHARE = 0.6  # with more room than there is here.
MINUTE = 1 / 60


class Taken(Struct, frozen=True, kw_only=True):
    """A sample, and what happened since the one before."""

    sample: NetworkSample
    events: list[NetworkEvent]


def make_scenario(slots: int) -> Loaded:
    """An evening at 87 % with two cut links, a dead origin, a drain, a crowd and lost slots."""
    world = msgspec.toml.decode(WORLD.read_bytes(), type=WorldFile)
    share = LINKS_SHARE * slots / WORLD_SLOTS
    links = tuple(msgspec.structs.replace(each, gbps=each.gbps * share) for each in world.links)
    events = (
        LinkCut(at_h=9 * MINUTE, for_h=13 * MINUTE, link="nyc-lhr"),
        LinkCut(at_h=10 * MINUTE, for_h=12 * MINUTE, link="nyc-ams"),
        OriginDead(at_h=29 * MINUTE, for_h=6 * MINUTE, origin="chi1"),
        FlashCrowd(at_h=38 * MINUTE, for_h=5 * MINUTE, pops=("gru", "gig"), times=4.0),
        Upgrade(at_h=46 * MINUTE, origins=("ams1",), drain_s=240.0, restart_s=30.0),
        CapacityLost(at_h=57 * MINUTE, origin="fra1", left=0.85),
    )
    scenario = Scenario(
        name="an hour",
        world="world.toml",
        seeds=(1,),
        start_hour=21.0,
        hours=1.0,
        demand=DemandConfig(slots=slots, load=0.87),
        events=events,
    )
    return Loaded(scenario, msgspec.structs.replace(world, links=links))


def map_of(world: WorldFile) -> NetworkMap:
    """Each PoP is a site."""
    return NetworkMap(
        sites=tuple(SitePlace(pop.name, pop.latitude, pop.longitude) for pop in world.pops),
        links=tuple(
            LinkPlace(link.name, (link.a, link.b), 1000 * link.gbps) for link in world.links
        ),
        site_of_pop={pop.name: pop.name for pop in world.pops},
        site_of_origin={origin.name: origin.at for origin in world.origins},
    )


class Watched(Network):
    """A run that is sampled as IRS samples its network."""

    def __init__(self, loaded: Loaded, *, began_unix: float) -> None:
        super().__init__(loaded, Rehoming, seed=1)
        assert isinstance(self.policy, Rehoming), "it moves streams"
        self.taken: list[Taken] = []
        self._world = loaded.world
        self._began_unix = began_unix
        self._gatherer = EventGatherer()
        self._counts: dict[int, Counter[str]] = {}
        self._priced: set[str] = set()
        self._before: NetworkSample | None = None
        planner = self.policy._planner
        self._plan = planner.plan
        planner.plan = self._plan_seen  # type: ignore[method-assign] # To hear of its reasons.

    def begin(self) -> None:
        """Have samples taken."""
        for number in range(round(KEEPS_S / SAMPLE_INTERVAL_S) + 1):
            self.call_at(number * SAMPLE_INTERVAL_S, self._sample)

    # As it happens.

    def _plan_seen(self, *args: object, **named: object) -> list[UnitMoves]:
        moves = self._plan(*args, **named)  # type: ignore[arg-type]
        for move in moves:
            pop = move.pop.partition("/")[0]
            reason = self._as_production_says(move.reason)
            self._gatherer.want((1, pop, move.from_origin, move.to_origin), reason)
            places = {"pop": pop, "origin": move.from_origin, "to": move.to_origin}
            self._note("wanted", **places, count=move.units, why=reason)
        return moves

    def _as_production_says(self, reason: str) -> str:
        """A link's direction: the simulator says "nyc>lhr", IRS "nyc-lhr to lhr"."""
        one, way, other = reason.removeprefix("link ").partition(">")
        for link in self._world.links if way else ():
            if {one, other} == {link.a, link.b}:
                return f"link {link.name} to {other}"
        return reason

    def _note(self, kind: str, **more: object) -> None:
        event = NetworkEvent(at=self._unix, kind=kind, **more)  # type: ignore[arg-type]
        self._gatherer.add(event)

    def _decide_move(self, stream: Stream, to: int) -> None:
        before = stream.origin
        super()._decide_move(stream, to)
        if stream.origin != before:
            pop = self._pops[stream.pop]
            pair = (self.sites[before].name, self.sites[to].name)
            why = self._gatherer.why_wanted((1, pop, *pair))
            self._moved(stream, pair[0], pair[1], "migrate", why)

    def _decide(self, stream: Stream, number: int) -> None:
        was_moving = stream.stage is Stage.MOVING
        super()._decide(stream, number)
        if was_moving and stream.stage is Stage.LIVE:
            lost = self._lost.pop(stream.stream_id.channel, "")
            drains = any(site.name == lost and site.drains for site in self.sites)
            to = self.sites[stream.origin].name
            self._moved(stream, lost, to, "drain" if drains else "link down: closed", "")

    def _moved(self, stream: Stream, origin: str, to: str, before: str, why: str) -> None:
        pop = self._pops[stream.pop]
        channels = (f"channel-{stream.stream_id.channel}",)
        places = {"pop": pop, "origin": origin, "to": to}
        self._note("moved", **places, why=why, before=before, channels=channels)

    def _attempt(self, stream: Stream, number: int) -> None:
        if stream.stage is Stage.MOVING and stream.origin >= 0:
            self._lost.setdefault(stream.stream_id.channel, self.sites[stream.origin].name)
        elif not stream.offers:
            self._count(stream, "arrivals")
        super()._attempt(stream, number)

    _lost: dict[str, str] = {}  # noqa: RUF012 - of the one run of a process

    def _refused(self, stream: Stream, number: int) -> None:
        self._count(stream, "refusals")
        super()._refused(stream, number)

    def _no_place(self, stream: Stream) -> None:
        if stream.stage is not Stage.MOVING:
            self._count(stream, "unplaced")
        super()._no_place(stream)

    def _count(self, stream: Stream, what: str) -> None:
        self._counts.setdefault(stream.pop, Counter())[what] += 1

    def _beat(self) -> None:
        changes = self.board.tick(self.now)
        for change in changes:
            if self.now > 0:
                before = "" if change.before is None else change.before.value
                states = {"before": before, "after": change.after.value}
                self._note("origin", origin=change.origin, why=change.reason, **states)
        self.policy.tick(self.now, self.board.heard, changes)

    # Each interval.

    @property
    def _unix(self) -> float:
        return self._began_unix + self.now

    def _sample(self) -> None:
        sample = NetworkSample(
            at=self._unix,
            irs=IrsPoint(standing="active", epoch=7, version=round(self.now)),
            pops={name: self._pop_row(number) for number, name in enumerate(self._pops)},
            origins=dict(self._origin_rows()),
            links=dict(self._link_rows()),
            flows={
                (pop, site.name): units
                for number, pop in enumerate(self._pops)
                for site, units in zip(self.sites, self.recorder.live[number], strict=True)
                if units
            },
            drains=tuple(
                DrainNote(origin=site.name, since=0, until=0, by="the upgrade")
                for site in self.sites
                if site.drains
            ),
            link_why={link.name: "silent on every path" for link in self._cut()},
        )
        for event in () if self._before is None else differences(self._before, sample):
            self._gatherer.add(event)
        self._before, self._counts = sample, {}
        self.taken.append(Taken(sample=sample, events=self._gatherer.take()))

    def _pop_row(self, number: int) -> Row:
        counts = self._counts.get(number, Counter())
        streams = sum(self.recorder.live[number])
        told = (counts["arrivals"], counts["refusals"], counts["unplaced"])
        return (1, 0, streams, *told, UNKNOWN)

    def _origin_rows(self) -> Iterator[tuple[str, Row]]:
        capacitor = self.board.capacitor
        for site in self.sites:
            state, report = capacitor.state(site.name), capacitor.report(site.name)
            assert state is not None, "it was heard"
            assert isinstance(report, OriginReport), "it was heard"
            used = max(0, report.slots_total - report.slots_free[PriorityClass.PARTNER])
            if site.drains:
                used = len(site.streams)
            classes = Counter(stream.priority for stream in site.streams)
            units = [classes[each] for each in CLASSES]
            number = ORIGIN_STATES.index("drain" if site.drains else state.value)
            row = (number, int(site.alive), report.slots_total, used if site.alive else 0)
            yield site.name, (*row, *units, 100)

    def _link_rows(self) -> Iterator[tuple[str, Row]]:
        seen = self.links()
        cut = self._cut()
        for index, link in enumerate(self._world.links):
            there, back = (
                seen[name].load if name in seen else 0.0
                for name in (f"{link.a}>{link.b}", f"{link.b}>{link.a}")
            )
            use = max(there, back)
            if use >= RAISE_AT:
                self._priced.add(link.name)
            elif use < CLEAR_AT:
                self._priced.discard(link.name)
            price = PRICE_FULL_MS * max(0.0, use - CLEAR_AT) / (1 - CLEAR_AT)
            state = LINK_STATES.index("cut" if link in cut else "up")
            rtt = UNKNOWN if state else round(10 * self.geography._length_ms[index])
            yield (
                link.name,
                (
                    *(state, round(100 * there), round(100 * back), rtt, UNKNOWN if state else 0),
                    max(1, round(price)) if link.name in self._priced else 0,
                ),
            )

    def _cut(self) -> list[Link]:
        return [
            link
            for link, is_up in zip(self._world.links, self.geography._up, strict=True)
            if not is_up
        ]


def play(slots: int, *, ends_unix: float) -> tuple[NetworkMap, Sequence[Taken]]:
    """Play the hour; the last sample is of `ends_unix`."""
    loaded = make_scenario(slots)
    network = Watched(loaded, began_unix=ends_unix - KEEPS_S)
    schedule(network)
    network.begin()
    network.run()
    if not network.taken:
        raise EdgedError("the scenario is over before it was sampled")
    return map_of(loaded.world), network.taken
