"""One run: one policy, one seed, virtual time.

    arrival ─▶ PoP chooses ─ offer, half a round trip ─▶ origin: its slots have the final word
                   ▲                                        │ accepts: the stream is live
                   └──── refusal, half a round trip ────────┘

Time goes in ticks of a heartbeat (100 ms); within one, events are in order to the microsecond. An
accepted stream counts as such at its PoP when the origin decides, half a round trip early; an
ending one frees its slot at once. Both change nothing but moments shorter than a tick.
"""

import heapq
import itertools
import math
import random
from collections.abc import Callable

from edged.media.routing import CLASSES
from edged.policy.departures import LOST_S_MAX, STALLED_S_MAX
from edged.tools.simulate.board import TICK_S, Board
from edged.tools.simulate.bound import Moment
from edged.tools.simulate.demand import STEP_S, Demand
from edged.tools.simulate.geography import Geography, share_slots
from edged.tools.simulate.policy import NOWHERE, LinkSeen, Policy, Surroundings
from edged.tools.simulate.recorder import CLEAR_S_MAX, Recorder
from edged.tools.simulate.scenario import Loaded
from edged.tools.simulate.streams import Site, Stage, Stream

TICKS_PER_STEP = round(STEP_S / TICK_S)
SETTLE_TICKS = 20  # Before the first stream: heartbeats are heard.
WATCH_TICKS = 5  # Between looks at links of which others were cut.
WAIT_S = 0.25  # Until a stream that has lost its origin and found none looks again.

Action = Callable[[Stream, int], None]


class Network:
    """Streams, origins and routes; `incidents` changes it from outside."""

    def __init__(
        self, loaded: Loaded, make_policy: Callable[[Surroundings], Policy], *, seed: int
    ) -> None:
        """`make_policy` is given what a policy may know."""
        scenario, world = loaded.scenario, loaded.world
        self.scenario = scenario
        self._pops = [pop.name for pop in world.pops]
        self.now = -scenario.warm_up_s - SETTLE_TICKS * TICK_S
        self.geography = Geography(world)
        slots = share_slots(scenario.demand.slots, (origin.share for origin in world.origins))
        self.sites = [
            Site(index, origin.name, total)
            for index, (origin, total) in enumerate(zip(world.origins, slots, strict=True))
        ]
        self.board = Board(self.sites)
        self.recorder = Recorder(len(world.pops), len(world.origins))
        self._demand = Demand(scenario, world)
        self._luck = random.Random(f"demand {seed}")  # noqa: S311 - replayable
        self._numbers = itertools.count()
        self._order = itertools.count()
        self._events: list[tuple[float, int, Action, Stream, int]] = []
        self._calls: list[tuple[float, int, Callable[[], None]]] = []
        self._later: dict[int, list[tuple[float, int, Action, Stream, int]]] = {}
        self._tick = math.floor(self.now / TICK_S)
        self._cut_at = -math.inf
        self.policy = make_policy(
            Surroundings(
                scenario=scenario,
                world=world,
                slots=slots,
                rtt_ms=[list(row) for row in self.geography.rtt_ms],
                board=self.board,
                rng=random.Random(f"policy {seed}"),  # noqa: S311 - the same
                moment=self.moment,
                links=self.links,
                call_at=self.call_at,
                streams_at=lambda origin: self.sites[origin].streams,
                move=self.move,
                shed=self.shed,
            )
        )

    def run(self) -> Recorder:
        """Play the whole scenario."""
        for arrival in self._demand.initial(self._luck):
            stream = Stream(arrival, next(self._numbers))
            self._put(stream.at, self._arrive, stream)
        self.policy.begin(self.now)
        sample_ticks = max(1, round(self.scenario.sample_s / TICK_S))
        bound_ticks = max(1, round(self.scenario.bound_s / TICK_S))
        end = round(self.scenario.hours * 3600 / TICK_S)
        while self._tick <= end:
            self.now = self._tick * TICK_S
            if self._tick >= 0 and self._tick % sample_ticks == 0:
                self.recorder.sample(self.now, self.sites, self.geography)
            if self._tick > 0 and self._tick % bound_ticks == 0:
                self.recorder.keep(self.now, self.moment(), self.geography.rtt_ms)
            if self._tick >= 0 and self._tick % TICKS_PER_STEP == 0:
                self._draw()
            self.recorder.slots = sum(site.capacity for site in self.sites)
            if self._tick % WATCH_TICKS == 0:
                self._watch()
            self._beat()
            self._play((self._tick + 1) * TICK_S)
            self._tick += 1
        return self.recorder

    def call_at(self, at: float, call: Callable[[], None]) -> None:
        """Have something done at a time; what is past is done now."""
        heapq.heappush(self._calls, (max(at, self.now), next(self._order), call))

    def moment(self) -> Moment:
        """The truth of now, demand that found no place included."""
        started = self.now >= -self.scenario.warm_up_s
        wanted = self.recorder.wanted if started else self._expected()
        kbps = self.recorder.wanted_kbps
        mean = self.scenario.demand.mbps_mean
        return Moment(
            demand=list(wanted),
            mbps=[total / 1000 for total in kbps] if started else [mean * n for n in wanted],
            slots=[site.capacity for site in self.sites],
            rtt_ms=[list(row) for row in self.geography.rtt_ms],
            routes=[list(row) for row in self.geography.routes],
            gbps=list(self.geography.gbps),
        )

    def _live_moment(self) -> Moment:
        """What is live now, by PoP and class, and the links as far as IRS is to use them."""
        demand = [0] * (len(self._pops) * len(CLASSES))
        for site in self.sites:
            for stream in site.streams:
                demand[stream.pop * len(CLASSES) + stream.priority] += 1
        live = self.recorder.live_total
        mean = sum(map(sum, self.recorder.kbps)) / 1000 / live if live else 0.0
        use = self.scenario.irs.link_use_max
        return Moment(
            demand=demand,
            mbps=[mean * units for units in demand],
            slots=[site.capacity for site in self.sites],
            rtt_ms=[list(row) for row in self.geography.rtt_ms for _ in CLASSES],
            routes=[list(row) for row in self.geography.routes for _ in CLASSES],
            gbps=[use * each for each in self.geography.gbps],
        )

    def links(self) -> dict[str, LinkSeen]:
        """Each direction of each link that is crossed, by name ("lhr>nyc")."""
        recorder, mean = self.recorder, self.scenario.demand.mbps_mean
        crossing = recorder.crossing(self.geography)
        seen = {}
        for arc, mbps in recorder.arc_loads(self.geography).items():
            bandwidth = 1000 * self.geography.gbps[arc[0]]
            units = sum(recorder.live[pop][origin] for pop, origin in crossing[arc])
            seen[self.geography.name_of(arc)] = LinkSeen(
                mbps=bandwidth,
                mbps_per_unit=mbps / units if units else mean,
                load=mbps / bandwidth,
                pairs=tuple(
                    (self._pops[pop], self.sites[origin].name) for pop, origin in crossing[arc]
                ),
            )
        return seen

    def shed(self, stream: Stream) -> None:
        """End a live stream, as the links cannot carry it."""
        if stream.stage is not Stage.LIVE:
            return
        self.sites[stream.origin].give_back(stream)
        self.recorder.left(stream)
        self.recorder.shed(stream, self.now)
        stream.stage = Stage.OVER
        self._release(stream)

    # What happens from outside.

    def lose(self, site: Site, *, link_falls: bool) -> None:
        """An origin stops: its streams have to go elsewhere once their PoPs know.

        `link_falls`: its sessions break, so they know at once. Else they see no progress.
        """
        self.board.catch_up(self.now)
        self.policy.about_to_change(self.now)
        site.alive, site.frozen = not link_falls, not link_falls
        by_pop: dict[int, list[Stream]] = {}
        for stream in site.lose_all():
            self.recorder.left(stream)
            stream.stage, stream.since = Stage.MOVING, self.now
            by_pop.setdefault(stream.pop, []).append(stream)
        for pop, rtt in enumerate(self.geography.rtt_ms):
            lost = by_pop.get(pop, [])
            half_s = self._half_s(rtt[site.index])
            if link_falls:
                wait_s = half_s
            elif self.policy.hears_freezes:  # Placements are judged four times a second.
                wait_s = STALLED_S_MAX + WAIT_S * (pop % 10) / 10
            else:
                wait_s = LOST_S_MAX + WAIT_S
            self.call_at(self.now + wait_s, self._noticing(site, pop, lost, link_falls=link_falls))

    def restore(self, site: Site) -> None:
        """An origin is back, empty: started anew or thawed, its old streams fenced."""
        self.board.catch_up(self.now)
        self.policy.about_to_change(self.now)
        was_down = not site.alive
        site.incarnation += was_down
        site.alive, site.frozen, site.drains = True, False, False
        if was_down:
            for pop, rtt in enumerate(self.geography.rtt_ms):
                self.call_at(
                    self.now + self._half_s(rtt[site.index]),
                    self._linking(pop, site.index, up=True),
                )

    def let_go(self, stream: Stream, site: Site) -> None:
        """A draining origin lets go of a stream, which its PoP then takes elsewhere."""
        if stream.stage is not Stage.LIVE or stream.origin != site.index or not site.works:
            return
        site.give_back(stream)
        self.recorder.left(stream)
        stream.stage, stream.since = Stage.MOVING, self.now
        self.policy.refused(stream, self.now, drains=True)
        self._release(stream)
        self._begin_again(stream)

    def move(self, stream: Stream, to: int) -> None:
        """Offer a live stream to another origin; its own has it until that one takes it."""
        if stream.stage is not Stage.LIVE or stream.going or stream.origin == to:
            return
        stream.going = True
        self.policy.move_begun(stream, to)
        half_s = self._half_s(self.geography.rtt_ms[stream.pop][to])
        self._put(self.now + half_s, self._decide_move, stream, to)

    def _decide_move(self, stream: Stream, to: int) -> None:
        stream.going = False
        site = self.sites[to]
        taken = stream.stage is Stage.LIVE and site.works and site.take(stream)
        self.policy.move_ended(stream, to, self.now, taken=taken)
        if taken:
            self.sites[stream.origin].give_back(stream)
            self.recorder.left(stream)
            stream.origin = to
            self.recorder.rehomed(stream)

    def set_link(self, name: str, *, up: bool) -> None:
        """Cut or mend a link: probes find the new round trips, five times a second."""
        if not up:
            self._cut_at = self.now
        before = [list(row) for row in self.geography.rtt_ms]
        self.geography.set_link(name, up=up)
        self.recorder.rerouted()
        self.policy.rerouted(self.now)
        if not up:
            self.recorder.cut_link(self.now, self._live_moment())
        for pop, (old, new) in enumerate(zip(before, self.geography.rtt_ms, strict=True)):
            for origin, (one, other) in enumerate(zip(old, new, strict=True)):
                if math.isfinite(one) is not math.isfinite(other):
                    self.call_at(self.now, self._linking(pop, origin, up=math.isfinite(other)))
                if one != other and math.isfinite(other):
                    for probe in range(25):  # After as many, less than 1 % of the old is left.
                        self.call_at(
                            self.now + (probe + 1) * 0.2, self._probing(pop, origin, other)
                        )

    # A stream's way.

    def _arrive(self, stream: Stream, _number: int) -> None:
        self.recorder.came(stream)
        self._put(stream.ends_at, self._end, stream)
        self._attempt(stream, 0)

    def _attempt(self, stream: Stream, _number: int) -> None:
        if stream.stage is Stage.OVER:
            return
        origin = self.policy.choose(stream, self.now)
        if origin == NOWHERE:
            self._no_place(stream)
            return
        stream.origin = origin
        stream.offers += 1
        stream.tried |= 1 << origin
        stream.counted = True
        self.policy.offered(stream)
        half_s = self._half_s(self.geography.rtt_ms[stream.pop][origin])
        self._put(self.now + half_s, self._decide, stream, stream.offers)

    def _decide(self, stream: Stream, number: int) -> None:
        """An offer has reached its origin."""
        if stream.stage is Stage.OVER or stream.offers != number or not stream.counted:
            return
        site = self.sites[stream.origin]
        half_s = self._half_s(self.geography.rtt_ms[stream.pop][stream.origin])
        if not site.alive:
            self._put(self.now + half_s, self._unanswered, stream, number)
        elif site.frozen:
            self._put(self.now + STALLED_S_MAX, self._unanswered, stream, number)
        elif site.take(stream):
            moved = stream.stage is Stage.MOVING
            stream.stage = Stage.LIVE
            self.policy.accepted(stream)
            self.recorder.placed(stream, self.now + half_s, moved=moved)
        else:
            self._put(self.now + half_s, self._refused, stream, number)

    def _refused(self, stream: Stream, number: int) -> None:
        if stream.stage is Stage.OVER or stream.offers != number or not stream.counted:
            return
        drains = self.sites[stream.origin].drains
        self.policy.refused(stream, self.now, drains=drains)
        self._release(stream)
        self._try_again(stream)

    def _unanswered(self, stream: Stream, number: int) -> None:
        if stream.stage is Stage.OVER or stream.offers != number or not stream.counted:
            return
        self.policy.unanswered(stream, self.now)
        self._release(stream)
        self._try_again(stream)

    def _try_again(self, stream: Stream) -> None:
        if self.policy.retries:
            self._attempt(stream, 0)
        else:
            self._no_place(stream)

    def _no_place(self, stream: Stream) -> None:
        """Nobody takes it: a new one is rejected; one that was live waits a little."""
        if stream.stage is Stage.MOVING and self.now - stream.since < LOST_S_MAX:
            stream.tried = 0
            self._put(self.now + WAIT_S, self._attempt, stream)
            return
        self.recorder.gave_up(stream, was_live=stream.stage is Stage.MOVING)
        stream.stage = Stage.OVER

    def _end(self, stream: Stream, _number: int) -> None:
        """Its publisher is done, wherever it is."""
        self.recorder.ended(stream)
        if stream.stage is Stage.OVER:
            return
        if stream.stage is Stage.LIVE:
            self.sites[stream.origin].give_back(stream)
            self.recorder.left(stream)
        stream.stage = Stage.OVER
        self._release(stream)

    def _begin_again(self, stream: Stream) -> None:
        stream.offers = stream.tried = 0
        self._attempt(stream, 0)

    def _release(self, stream: Stream) -> None:
        if stream.counted:
            stream.counted = False
            self.policy.released(stream)

    # Time.

    def _beat(self) -> None:
        changes = self.board.tick(self.now)
        self.policy.tick(self.now, self.board.heard, changes)

    def _watch(self) -> None:
        """Until the limit is up each look stands for the time up to the next."""
        since_s = self.now - self._cut_at
        if 0 <= since_s <= CLEAR_S_MAX:
            until_s = min(CLEAR_S_MAX, since_s + WATCH_TICKS * TICK_S)
            self.recorder.watch(until_s, self.geography)

    def _play(self, until: float) -> None:
        """Everything that is due before `until`, in order."""
        events, calls = self._events, self._calls
        for event in self._later.pop(self._tick, ()):
            heapq.heappush(events, event)
        while True:
            at = events[0][0] if events else math.inf
            if calls and calls[0][0] <= at and calls[0][0] < until:
                self.now, _, call = heapq.heappop(calls)
                call()
            elif at < until:
                self.now, _, action, stream, number = heapq.heappop(events)
                action(stream, number)
            else:
                return

    def _put(self, at: float, action: Action, stream: Stream, number: int = 0) -> None:
        event = (at, next(self._order), action, stream, number)
        tick = int(at // TICK_S)
        if tick <= self._tick:
            heapq.heappush(self._events, event)
        else:
            self._later.setdefault(tick, []).append(event)

    def _draw(self) -> None:
        for arrival in self._demand.step(self.now, self._luck):
            stream = Stream(arrival, next(self._numbers))
            self._put(stream.at, self._arrive, stream)

    def _half_s(self, rtt_ms: float) -> float:
        return rtt_ms / 2000 if rtt_ms < math.inf else 0.0

    def _expected(self) -> list[int]:
        """Streams by PoP that will be there at the start."""
        total = self._demand.expected(0.0)
        rates = self._demand.rates(0.0)
        return [round(total * rate / math.fsum(rates)) for rate in rates]

    def _noticing(
        self, site: Site, pop: int, lost: list[Stream], *, link_falls: bool
    ) -> Callable[[], None]:
        def notice() -> None:
            if link_falls:
                self.policy.link_changed(pop, site.index, self.now, up=False)
            for stream in lost:
                self._release(stream)
                if stream.stage is not Stage.MOVING:
                    continue
                if link_falls or self.policy.hears_freezes:
                    self._begin_again(stream)
                else:
                    self._no_place(stream)

        return notice

    def _linking(self, pop: int, origin: int, *, up: bool) -> Callable[[], None]:
        return lambda: self.policy.link_changed(pop, origin, self.now, up=up)

    def _probing(self, pop: int, origin: int, rtt_ms: float) -> Callable[[], None]:
        return lambda: self.policy.rtt_measured(pop, origin, rtt_ms)
