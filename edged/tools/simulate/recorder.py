"""What a run is judged by: counts of streams, and samples of the whole network over time.

Everything counts from the start on, not while warming up; but what is live then is live.
"""

import math
from collections.abc import Sequence

from msgspec import Struct

from edged.media.routing import CLASSES
from edged.tools.simulate.bound import Moment
from edged.tools.simulate.geography import Arc, Geography
from edged.tools.simulate.streams import Site, Stage, Stream

CALM_USE_MAX = 0.99  # Of all slots: below it every first try should do.
SETTLED_S = 1.0  # Nobody leaves while warming up; where more is wanted no slot at all is free then.
CLEAR_LOAD_MAX = 0.9  # Of each link's bandwidth, some seconds after others were cut.
CLEAR_S_MAX = 60.0  # So long links are watched then; streams that begin later are another matter.
SHED_S_MAX = 10.0  # By then what cannot be carried is to be gone.
DELAYS_MAX = 1_000_000  # Of moved streams, kept for their percentile.


class Sample(Struct, frozen=True, kw_only=True):
    """The network at one time; counts are since the sample before."""

    at_h: float
    wanted: int  # Streams that would be live if none had been rejected.
    live: int
    slots: int
    use: list[float]  # By origin, of its slots; NaN is never there: 0 when it has none.
    came: int
    first_try: int
    rejected: int
    rtt_ms: float  # Mean over live streams.
    link_load: float  # Of the fullest link.


class Kept(Struct, frozen=True, kw_only=True):
    """What a moment's bound is compared with."""

    at_h: float
    moment: Moment
    live: int
    rtt_sum_ms: float


class CutMade(Struct, kw_only=True):
    """The network when a link was cut, and what was shed then."""

    at: float
    moment: Moment  # Of live streams: a row for each class of each PoP.
    shed: dict[tuple[int, int], int] = {}  # By PoP and class, within SHED_S_MAX.


class Recorder:
    """Counts of one run."""

    def __init__(self, pops: int, origins: int) -> None:
        self.wanted = [0] * pops  # Streams by PoP, those that found no place included.
        self.wanted_total = 0
        self.wanted_kbps = [0] * pops
        self.slots = 0  # Of all origins that take streams, as of this tick.
        self.live = [[0] * origins for _ in range(pops)]
        self.kbps = [[0] * origins for _ in range(pops)]
        self.live_total = 0
        self.came_by_class = [0] * len(CLASSES)
        self.rejected_by_class = [0] * len(CLASSES)
        self.cut_by_class = [0] * len(CLASSES)
        self.first_tries = 0
        self.offers = 0
        self.decided = 0  # Streams that came, and were accepted or rejected.
        self.calm = self.calm_first_tries = 0
        self.full = self.full_offers = 0
        self.moved = 0
        self.rehomed_total = 0
        self.moved_first_tries = 0
        self.delays_s: list[float] = []
        self.rtt_histogram: dict[int, int] = {}  # Whole ms, rounded up -> stream samples.
        self.samples: list[Sample] = []
        self.kept: list[Kept] = []
        self.clear_s: float | None = None  # The longest; None: no link was cut.
        self.shed_total = 0
        self.link_cuts: list[CutMade] = []
        self._before = (0, 0, 0)  # Of the last sample: came, first tries, rejected.
        self._by_arc: dict[Arc, list[tuple[int, int]]] | None = None

    # Streams.

    def came(self, stream: Stream) -> None:
        """A stream asks for a place."""
        self.wanted[stream.pop] += 1
        self.wanted_kbps[stream.pop] += stream.kbps
        self.wanted_total += 1
        stream.calm = self.live_total <= CALM_USE_MAX * self.slots
        stream.full = self.wanted_total > self.slots
        if stream.at >= SETTLED_S:
            self.came_by_class[stream.priority] += 1

    def placed(self, stream: Stream, at: float, *, moved: bool) -> None:
        """An origin has it; `at`: when its PoP hears so."""
        self._arrived(stream)
        if moved:
            self.moved += 1
            self.moved_first_tries += stream.offers == 1
            if len(self.delays_s) < DELAYS_MAX:
                self.delays_s.append(at - stream.since)
        elif stream.at >= SETTLED_S:
            self._count_decided(stream, first_try=stream.offers == 1)

    def rehomed(self, stream: Stream) -> None:
        """It was moved while it was live; `left` was called for where it was."""
        self._arrived(stream)
        self.rehomed_total += 1

    def _arrived(self, stream: Stream) -> None:
        self.live[stream.pop][stream.origin] += 1
        self.kbps[stream.pop][stream.origin] += stream.kbps
        self.live_total += 1

    def gave_up(self, stream: Stream, *, was_live: bool) -> None:
        """Nobody takes it."""
        if stream.at < SETTLED_S and not was_live:
            return
        if was_live:
            self.cut_by_class[stream.priority] += 1
        else:
            self.rejected_by_class[stream.priority] += 1
            self._count_decided(stream, first_try=False)

    def shed(self, stream: Stream, now: float) -> None:
        """It was ended where it was live, as links could not carry it; `left` was called."""
        self.shed_total += 1
        if self.link_cuts and now - self.link_cuts[-1].at <= SHED_S_MAX:
            counts = self.link_cuts[-1].shed
            key = (stream.pop, stream.priority)
            counts[key] = counts.get(key, 0) + 1

    def left(self, stream: Stream) -> None:
        """It is not at its origin any more."""
        self.live[stream.pop][stream.origin] -= 1
        self.kbps[stream.pop][stream.origin] -= stream.kbps
        self.live_total -= 1

    def ended(self, stream: Stream) -> None:
        """Its publisher is done, placed or not."""
        self.wanted[stream.pop] -= 1
        self.wanted_total -= 1
        self.wanted_kbps[stream.pop] -= stream.kbps
        if stream.stage is Stage.WAITING and stream.at >= SETTLED_S:  # Before anybody took it.
            self.came_by_class[stream.priority] -= 1

    def _count_decided(self, stream: Stream, *, first_try: bool) -> None:
        self.decided += 1
        self.offers += max(1, stream.offers)
        self.first_tries += first_try
        if stream.calm:
            self.calm += 1
            self.calm_first_tries += first_try
        if stream.full:
            self.full += 1
            self.full_offers += max(1, stream.offers)

    # Samples.

    def rerouted(self) -> None:
        """Routes are others now."""
        self._by_arc = None

    def cut_link(self, now: float, moment: Moment) -> None:
        """A link was cut; of those at one time the last counts."""
        if self.link_cuts and self.link_cuts[-1].at == now:
            self.link_cuts.pop()
        self.link_cuts.append(CutMade(at=now, moment=moment))

    def watch(self, since_cut_s: float, geography: Geography) -> None:
        """Look at the links alone, some time after one was cut."""
        full = self._measure_links(geography) > CLEAR_LOAD_MAX
        self.clear_s = max(self.clear_s or 0.0, since_cut_s if full else 0.0)

    def sample(self, now: float, sites: Sequence[Site], geography: Geography) -> None:
        """Look at everything."""
        rtt_sum_ms = self._measure_rtt(geography.rtt_ms)
        counts = (sum(self.came_by_class), self.first_tries, sum(self.rejected_by_class))
        came, first_try, rejected = (
            after - before for before, after in zip(self._before, counts, strict=True)
        )
        self._before = counts
        self.samples.append(
            Sample(
                at_h=now / 3600,
                wanted=self.wanted_total,
                live=self.live_total,
                slots=sum(site.capacity for site in sites),
                use=[
                    site.slots.used / site.slots.total if site.works and site.slots.total else 0.0
                    for site in sites
                ],
                came=came,
                first_try=first_try,
                rejected=rejected,
                rtt_ms=rtt_sum_ms / self.live_total if self.live_total else 0.0,
                link_load=self._measure_links(geography),
            )
        )

    def keep(self, now: float, moment: Moment, rtt_ms: list[list[float]]) -> None:
        """Remember a moment, to be compared with its bound."""
        self.kept.append(
            Kept(
                at_h=now / 3600,
                moment=moment,
                live=self.live_total,
                rtt_sum_ms=math.fsum(
                    count * rtt
                    for counts, row in zip(self.live, rtt_ms, strict=True)
                    for count, rtt in zip(counts, row, strict=True)
                    if count and rtt < math.inf
                ),
            )
        )

    def _measure_rtt(self, rtt_ms: list[list[float]]) -> float:
        total = 0.0
        histogram = self.rtt_histogram
        for counts, row in zip(self.live, rtt_ms, strict=True):
            for count, rtt in zip(counts, row, strict=True):
                if count and rtt < math.inf:
                    total += count * rtt
                    whole = math.ceil(rtt)
                    histogram[whole] = histogram.get(whole, 0) + count
        return total

    def arc_loads(self, geography: Geography) -> dict[Arc, float]:
        """Mbps over each direction of a link that any route crosses."""
        return {
            arc: sum(self.kbps[pop][origin] for pop, origin in pairs) / 1000
            for arc, pairs in self.crossing(geography).items()
        }

    def crossing(self, geography: Geography) -> dict[Arc, list[tuple[int, int]]]:
        """PoPs and origins whose route crosses each direction of a link."""
        if self._by_arc is None:
            self._by_arc = {}
            for pop, row in enumerate(geography.routes):
                for origin, route in enumerate(row):
                    for arc in route:
                        self._by_arc.setdefault(arc, []).append((pop, origin))
        return self._by_arc

    def _measure_links(self, geography: Geography) -> float:
        return max(
            (
                mbps / (1000 * geography.gbps[link])
                for (link, _), mbps in self.arc_loads(geography).items()
            ),
            default=0.0,
        )
