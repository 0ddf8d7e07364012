"""Demand: which streams ask for a place, when, where, for how long. One seed, one sequence.

Arrivals at each PoP are a Poisson process whose rate follows the local hour; durations are
log-normal. The rate is scaled so that the expected streams of a whole day peak at `load` times all
slots, whatever part of the day is played.
"""

import bisect
import itertools
import math
import random
from collections.abc import Iterator
from statistics import NormalDist
from typing import NamedTuple

from edged.media.stream import PriorityClass
from edged.tools.simulate.scenario import DemandConfig, FlashCrowd, Scenario, WorldFile

DAY_S = 86_400.0
DURATION_S_MAX = DAY_S  # Encoders are restarted now and then.
CELL_S = 300.0  # Of the day, over which the rate counts as constant when streams are expected.
STEP_S = 60.0  # Over which it counts as constant when streams are drawn.
PEAKEDNESS = 1.2  # Of the evening: so that demand is above half of its peak for 12 hours.
MBPS_MAX = 30.0  # What ingest lets through at most.
POISSON_EXACT_MAX = 500.0  # Beyond it a normal draw is as good.

_NORMAL = NormalDist()


class Arrival(NamedTuple):
    """One stream that asks for a place; times in s from the start of the run."""

    at: float
    pop: int
    priority: PriorityClass
    mbps: float
    ends_at: float


class Durations:
    """A log-normal distribution, cut at DURATION_S_MAX."""

    def __init__(self, mean_s: float, sigma: float) -> None:
        self._mean_s, self._sigma = mean_s, sigma
        self._mu = math.log(mean_s) - sigma**2 / 2

    def draw(self, rng: random.Random) -> float:
        """How long a stream lasts that begins now."""
        return min(DURATION_S_MAX, rng.lognormvariate(self._mu, self._sigma))

    def draw_longer(self, age_s: float, rng: random.Random) -> float:
        """How long one lasts in all that has lasted `age_s` already."""
        if not self._sigma:
            return max(age_s, self._mean_s)
        left = rng.random() * self.survival(age_s)
        if left <= 0:
            return DURATION_S_MAX
        drawn = math.exp(self._mu - self._sigma * _NORMAL.inv_cdf(left)) if left < 1 else 0.0
        return min(DURATION_S_MAX, max(age_s, drawn))

    def survival(self, age_s: float) -> float:
        """The part of streams that last longer."""
        if age_s <= 0:
            return 1.0
        if age_s >= DURATION_S_MAX:
            return 0.0
        if not self._sigma:
            return 1.0 if age_s < self._mean_s else 0.0
        return _NORMAL.cdf((self._mu - math.log(age_s)) / self._sigma)

    def lived_s(self, age_s: float) -> float:
        """The integral of `survival` up to an age: the mean of min(duration, age)."""
        age_s = min(age_s, DURATION_S_MAX)
        if age_s <= 0:
            return 0.0
        if not self._sigma:
            return min(age_s, self._mean_s)
        whole = _NORMAL.cdf((math.log(age_s) - self._mu) / self._sigma - self._sigma)
        tail = _NORMAL.cdf((self._mu - math.log(age_s)) / self._sigma)
        return self._mean_s * whole + age_s * tail


class Demand:
    """The demand of one scenario."""

    def __init__(self, scenario: Scenario, world: WorldFile) -> None:
        self.config: DemandConfig = scenario.demand
        self._scenario = scenario
        self._pops = world.pops
        self._names = {pop.name: index for index, pop in enumerate(world.pops)}
        self._crowds = [event for event in scenario.events if isinstance(event, FlashCrowd)]
        self.durations = Durations(self.config.duration_mean_s, self.config.duration_sigma)
        cells = round(DAY_S / CELL_S)
        edges = [self.durations.lived_s(index * CELL_S) for index in range(cells + 1)]
        self._lived = [after - before for before, after in itertools.pairwise(edges)]
        shape = [self.shape((index + 0.5) * CELL_S / 3600) for index in range(cells)]
        # Of a PoP of weight 1 by its local time, for a peak of one arrival a second: how many live.
        self._live = [
            math.fsum(shape[(now - age) % cells] * lived for age, lived in enumerate(self._lived))
            for now in range(cells)
        ]
        totals = [
            math.fsum(pop.weight * self._live_at(pop.utc_h, at * CELL_S) for pop in world.pops)
            for at in range(cells)
        ]
        self._scale = self.config.load * self.config.slots / max(totals)
        # What routing saves: the regions' own peaks, over the peak of all together.
        own = max(self._live) * math.fsum(pop.weight for pop in world.pops)
        self.peaks_ratio = own / max(totals)

    def shape(self, local_hour: float) -> float:
        """Demand at a local hour, 1 at its peak."""
        night = self.config.night
        turn = math.cos(2 * math.pi * (local_hour - self.config.peak_hour) / 24)
        high, low = 1.0, math.exp(-2 * PEAKEDNESS)
        return night + (1 - night) * (math.exp(PEAKEDNESS * (turn - 1)) - low) / (high - low)

    def rates(self, at: float) -> list[float]:
        """Arrivals per second and PoP at a time of the run."""
        return [
            self._scale
            * pop.weight
            * self.shape(self._utc_h(at) + pop.utc_h)
            * self._times(index, at)
            for index, pop in enumerate(self._pops)
        ]

    def expected(self, at: float) -> float:
        """Streams that live at a time of the run, flash crowds aside."""
        utc_s = self._utc_h(at) * 3600
        return self._scale * math.fsum(
            pop.weight * self._live_at(pop.utc_h, utc_s) for pop in self._pops
        )

    def initial(self, rng: random.Random) -> Iterator[Arrival]:
        """Those that live at the start; they ask for a place in the time of warming up before."""
        start_s = self._utc_h(0.0) * 3600
        ages = range(len(self._lived))
        for index, pop in enumerate(self._pops):
            hours = [(start_s - (age + 0.5) * CELL_S) / 3600 + pop.utc_h for age in ages]
            expected = [
                self._scale * pop.weight * self.shape(hour) * lived
                for hour, lived in zip(hours, self._lived, strict=True)
            ]
            count = draw_poisson(math.fsum(expected), rng)
            for age in rng.choices(ages, expected, k=count) if count else ():
                age_s = (age + rng.random()) * CELL_S
                ends_at = self.durations.draw_longer(age_s, rng) - age_s
                at = -rng.random() * self._scenario.warm_up_s
                yield Arrival(at, index, self._draw_class(rng), self._draw_mbps(rng), ends_at)

    def step(self, at: float, rng: random.Random) -> list[Arrival]:
        """Those that come in the STEP_S from `at` on, in order."""
        rates = self.rates(at + STEP_S / 2)
        bounds = list(itertools.accumulate(rates))
        found: list[Arrival] = []
        if bounds[-1] <= 0:
            return found
        gap, draw = rng.expovariate, rng.random
        now = at + gap(bounds[-1])
        while now < at + STEP_S:
            index = bisect.bisect(bounds, draw() * bounds[-1], 0, len(bounds) - 1)
            ends_at = now + self.durations.draw(rng)
            found.append(Arrival(now, index, self._draw_class(rng), self._draw_mbps(rng), ends_at))
            now += gap(bounds[-1])
        return found

    def _utc_h(self, at: float) -> float:
        return self._scenario.start_hour + at / 3600

    def _live_at(self, utc_h: float, utc_s: float) -> float:
        return self._live[math.floor((utc_s + utc_h * 3600) / CELL_S) % len(self._live)]

    def _times(self, pop: int, at: float) -> float:
        times = 1.0
        for crowd in self._crowds:
            inside = crowd.at_h * 3600 <= at < (crowd.at_h + crowd.for_h) * 3600
            if inside and (not crowd.pops or self._pops[pop].name in crowd.pops):
                times *= crowd.times
        return times

    def _draw_class(self, rng: random.Random) -> PriorityClass:
        luck = rng.random()
        if luck < self.config.partner:
            return PriorityClass.PARTNER
        if luck < self.config.partner + self.config.affiliate:
            return PriorityClass.AFFILIATE
        return PriorityClass.BASIC

    def _draw_mbps(self, rng: random.Random) -> float:
        sigma = self.config.mbps_sigma
        mu = math.log(self.config.mbps_mean) - sigma**2 / 2
        return min(MBPS_MAX, rng.lognormvariate(mu, sigma))


def draw_poisson(mean: float, rng: random.Random) -> int:
    """How many events a Poisson process of this mean has."""
    if mean > POISSON_EXACT_MAX:
        return max(0, round(rng.gauss(mean, math.sqrt(mean))))
    bound, product, count = math.exp(-mean), rng.random(), 0
    while product > bound:
        product *= rng.random()
        count += 1
    return count
