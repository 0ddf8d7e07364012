"""Which PoPs hold a channel before anybody asks, and which PoP takes it from which.

    origin ──▶ replica ──▶ PoP with viewers      where the replica is nearer to it than the origin
       └─────────────────▶ PoP with viewers      elsewhere

Replicas are chosen by greedy set cover: of all PoPs the one that puts most viewers within `near_ms`
of a copy, then the one that adds most to that, until there are as many as the audience is worth. A
replica takes the channel from its origin, and others take it from replicas alone: so no way is
longer than two, and none leads back. Each has the rungs that are watched there, and that is what it
costs (`reach_rungs`, `reach_budget`); where a limit binds, channels with more viewers come first.

What is so goes on unless something is better by more than noise is. What is there is judged more
kindly than what is new: a copy reaches a little further, and has to add half as much, to what
others reach for certain. A change for the better must have been one in `hold_plans` plans, and few
replicas end in a plan. What limits no longer allow ends at once.

A plan looks at few channels: each has its turn, and comes out of it where it is new, its audience
is another, or a change of it is pending. When PoPs, limits or links are others, it looks at all.
"""

import math
import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from edged.media.reach import RTT_BOUNDS_MS, ReachOrder
from edged.policy.reach_budget import FILL, Budget
from edged.policy.reach_config import ReachConfig
from edged.policy.reach_plan import ChannelReach, Matrix, Memory, ReachPlan, ReachPop, Rows, Work
from edged.policy.reach_relays import RelayPlan
from edged.policy.reach_rungs import ChannelRungs
from edged.policy.reach_ways import Ways

if TYPE_CHECKING:
    from numpy.typing import NDArray

KEEPS: Final = 0.5  # Of what a new replica must add: an old one that adds less goes.
KEEPS_AUDIENCE: Final = 0.7  # Of the audience that a number of replicas needs, until one goes.
KEEPS_NEAR: Final = 1.1  # Of `near_ms`: so far a copy that is there reaches.
ADDS_MIN: Final = 0.01  # Of the audience: a replica that adds less is not worth it.
CHANNELS_MAX: Final = 20_000  # Planned for; beyond them, those with the fewest viewers are not.
# Of two PoPs that reach about the same viewers the one nearer to the origin: 1 % for 100 ms.
RTT_WEIGHT_PER_MS: Final = 1e-4
TURNS: Final = 6  # Plans, in which each channel is looked at.
REMEMBERED_MAX: Final = 2000  # Channels whose viewers are weighed once in a plan: 8 MB.
SHIFTED: Final = 0.2  # Of the audience that it had: then it is looked at out of turn.
BUCKETS: Final = len(RTT_BOUNDS_MS)


class _Taken(NamedTuple):
    """A replica as it could be taken."""

    gain: float
    mask: int
    mbps: float


class ReachPlanner:
    """Plans step by step, and remembers the plan before. It draws no clock and no luck."""

    def __init__(self, config: ReachConfig, *, turns: int = TURNS) -> None:
        self.config, self._turns = config, turns
        self.plan = ReachPlan()  # In force.
        self.looked_at = 0  # Channels, by this plan so far.
        self._number_of_plan = 0
        self._world: object = None  # What all channels depend on.
        self._old: list[Work] = []  # Channels that had replicas, of which some are kept first;
        self._new: list[Work] = []  # then all may get some. The last comes first.
        self._made: dict[str, ChannelReach] = {}
        self._memory: dict[str, Memory] = {}  # Of the plan in force,
        self._memory_made: dict[str, Memory] = {}  # and of the one that is made.
        self._pops: Sequence[ReachPop] = ()
        self._ended = self._waiting = 0

    def begin(
        self,
        pops: Sequence[ReachPop],
        origins: Mapping[str, str],
        between_ms: Matrix,
        links: Mapping[str, float] | None = None,
    ) -> None:
        """Plan for these from now on; `origins`: of the channels that are live.

        `between_ms`: round trips from PoP to PoP in this order, infinite where not known; `links`:
        Mbps of each.
        """
        assert between_ms.shape == (len(pops), len(pops)), "a row for each"
        config = self.config
        self._pops = pops
        self._number = {pop.pop: number for number, pop in enumerate(pops)}
        self._reach = _reach(between_ms, config.near_ms)
        self._reach_kept = _reach(between_ms, KEEPS_NEAR * config.near_ms)
        self._liking: dict[str, Matrix] = {}
        room = {name: config.link_share * mbps for name, mbps in (links or {}).items()}
        self._budget = Budget(pops, room, config.orders_per_pop_max)
        self._relays = RelayPlan(config, pops, self._number, Ways(between_ms, config), self._budget)
        self._ended = self._waiting = 0
        viewers: dict[str, int] = {}
        for pop in pops:
            for channel, row in pop.audience.items():
                viewers[channel] = viewers.get(channel, 0) + row.viewers
        viewers = {channel: count for channel, count in viewers.items() if channel in origins}
        due = self._find_due(viewers, origins, [_limits_of(pop) for pop in pops], room)
        rows: dict[str, Rows] = {channel: Rows([], []) for channel in due}
        for number, pop in enumerate(pops):
            for channel, row in pop.audience.items():
                its = rows.get(channel)
                if its is not None:
                    its.places.append(number)
                    its.rows.append(row)
        before, memory = self.plan.channels, self._memory
        self._new = [
            Work(
                name,
                origins[name],
                viewers[name],
                rows[name],
                before=before.get(name),
                memory=memory.get(name),
            )
            for name in reversed(due)
        ]
        self._old = [work for work in self._new if work.before is not None]
        self.looked_at = len(due)

    def _find_due(
        self,
        viewers: Mapping[str, int],
        origins: Mapping[str, str],
        limits: list[object],
        room: Mapping[str, float],
    ) -> list[str]:
        """Channels that are looked at now, those with most viewers first; the others go on."""
        before, least = self.plan.channels, self.config.viewers_per_replica
        worth = [item for item in viewers.items() if item[1] >= least or item[0] in before]
        worth.sort(key=lambda item: (-item[1], item[0]))
        self._number_of_plan += 1
        turn = self._number_of_plan % self._turns
        world = (self.config, limits, room)
        is_other, self._world = world != self._world, world
        due: list[str] = []
        self._made, self._memory_made = {}, {}
        for name, count in worth[:CHANNELS_MAX]:
            known, memory = before.get(name), self._memory.get(name)
            if (
                known is None
                or memory is None
                or memory.streaks
                or is_other
                or known.origin != origins[name]
                or abs(count - known.viewers) > SHIFTED * known.viewers
                or zlib.crc32(name.encode()) % self._turns == turn
            ):
                due.append(name)
            else:
                self._made[name], self._memory_made[name] = known, memory
                self._budget.go_on(known.origin, memory)
        return due

    def adopt(self, channels: Mapping[str, ChannelReach]) -> None:
        """What PoPs do already, by the word of an IRS before: it counts as the plan before."""
        self.plan, self._world = ReachPlan(channels=dict(channels)), None

    @property
    def is_done(self) -> bool:
        """Whether `finish` may be called."""
        return not self._new

    def step(self, channels: int) -> None:
        """Plan for some more, those with the most viewers first."""
        for _ in range(channels):
            if self._old:
                self._keep(self._old.pop())
            elif self._new:
                work = self._new.pop()
                made = self._plan_channel(work)
                if made is not None:
                    self._made[work.channel] = made
                    self._memory_made[work.channel] = self._remember(work, made)

    def _remember(self, work: Work, made: ChannelReach) -> Memory:
        relays: dict[int, tuple[int, float]] = {}
        for pop, via in made.via.items():
            count, mbps = relays.get(self._number[via], (0, 0.0))
            relays[self._number[via]] = (count + 1, mbps + made.via_mbps[pop])
        return Memory(
            _orders_of(made),
            work.streaks_now,
            work.idle_now,
            dict(zip(work.replicas, work.mbps, strict=True)),
            relays,
            tuple(self._number[pop] for pop in made.via),
        )

    def finish(self) -> ReachPlan:
        """Put what was planned in force."""
        assert self.is_done, "some wait"
        orders: dict[str, list[ReachOrder]] = {}
        made = sorted(self._made.values(), key=lambda each: (-each.viewers, each.channel))
        for each in made:
            for pop, order in self._memory_made[each.channel].orders:
                orders.setdefault(pop, []).append(order)
        relays = {relay for each in made for relay in each.via.values()}
        self._memory = self._memory_made
        self.plan = ReachPlan(
            channels={each.channel: each for each in made},
            orders={pop: tuple(of_pop) for pop, of_pop in orders.items()},
            relays={relay: self._pops[self._number[relay]].relay for relay in sorted(relays)},
            ended=self._ended,
            waiting=self._waiting,
            hold_mbps=round(sum(self._budget.hold_mbps), 3),
        )
        return self.plan

    # What is there already.

    def _keep(self, work: Work) -> None:
        """Keep what is worth it, and what may not end yet, as far as limits allow."""
        before, config = work.before, self.config
        assert before is not None, "it had some"
        per_replica = KEEPS_AUDIENCE * config.viewers_per_replica
        most = min(config.replicas_max, int(work.viewers / per_replica))
        left, liking = self._weigh(work).copy(), self._like(work.origin)
        for pop in before.replicas:
            number = self._number.get(pop, -1)
            if number < 0 or not liking[number] or len(work.replicas) >= config.replicas_max:
                continue
            taken = self._look_at(work, number, left)
            if not self._budget.may_hold(number):
                continue
            if not self._budget.fits(number, work.origin, taken.mbps, 1.0):
                continue
            is_worth = taken.gain >= KEEPS * ADDS_MIN * work.viewers
            if (len(work.replicas) >= most or not is_worth) and self._may_end(work, pop, 1):
                continue
            self._take(work, number, taken)
            # Only what others reach for certain makes one needless: what is new asks the reverse.
            left *= 1 - self._reach[number]

    def _may_end(self, work: Work, pop: str, count: int) -> bool:
        """Whether replicas end that have not been worth it, or (pop "") the worst, for a while."""
        streak = work.streaks.get(pop, 0) + 1
        if streak < self.config.hold_plans:
            work.streaks_now[pop] = streak
            return False
        if self._ended + count > self.config.moves_max:
            work.streaks_now[pop] = streak
            self._waiting += count
            return False
        self._ended += count
        return True

    def _look_at(self, work: Work, number: int, left: Matrix, *, new: bool = False) -> _Taken:
        """What a replica there adds to others, and costs: by the viewers that it is for."""
        reach = self._reach if new else self._reach_kept
        near = self._reach_kept[number] * left
        mask, rungs = _rungs_of(work.rungs, near.reshape(BUCKETS, -1).any(axis=0)), work.rungs
        mask |= rungs.watched.get(number, 0)
        mask = work.with_idle(self._pops[number].pop, mask or rungs.unknown)
        return _Taken(float(reach[number] @ left), mask, rungs.extra_mbps(number, mask))

    def _take(self, work: Work, number: int, taken: _Taken) -> None:
        work.replicas.append(number)
        work.held.append(taken.mask)
        work.mbps.append(taken.mbps)
        work.covered += taken.gain
        self._budget.hold(number, work.origin, taken.mbps)

    def _give_back(self, work: Work) -> None:
        for number, mbps in zip(work.replicas, work.mbps, strict=True):
            self._budget.hold(number, work.origin, -mbps, -1)
        work.replicas, work.held, work.mbps, work.covered = [], [], [], 0.0

    # What is new.

    def _plan_channel(self, work: Work) -> ChannelReach | None:
        config = self.config
        most = min(config.replicas_max, work.viewers // config.viewers_per_replica)
        left = weights = self._weigh(work)
        for number in work.replicas:
            left = left * (1 - self._reach_kept[number])
        work.covered = float(weights.sum() - left.sum())
        if most:
            self._add(work, left, most, set(work.replicas))
            if work.before is not None and work.replicas:
                self._replace(work, weights, most)
        if not work.replicas:
            return None
        names = [self._pops[number].pop for number in work.replicas]
        via, rungs, via_mbps = self._relays.take_from(work)
        for pop, mask in zip(names, work.held, strict=True):
            rungs[pop] = work.rungs.names(mask)
        return ChannelReach(
            channel=work.channel,
            origin=work.origin,
            viewers=work.viewers,
            covered=work.covered,
            replicas=tuple(names),
            via=via,
            rungs=rungs,
            mbps=dict(zip(names, work.mbps, strict=True)),
            via_mbps=via_mbps,
        )

    def _add(self, work: Work, weights: Matrix, most: int, old: set[int]) -> None:
        """Take more, the one that adds most each time."""
        left, adds_min = weights.copy(), ADDS_MIN * work.viewers
        may = self._like(work.origin).copy()
        while len(work.replicas) < most:
            if float(left.sum()) < adds_min:
                break
            gains = self._reach @ left
            while True:  # Those without room are passed over.
                number = int(np.argmax(gains * may))
                gain = float(gains[number])
                if not may[number] or gain <= 0 or gain < adds_min:
                    return
                fill = 1.0 if number in old else FILL
                taken = self._look_at(work, number, left, new=True)
                may[number] = 0.0
                if self._budget.may_hold(number) and self._budget.fits(
                    number, work.origin, taken.mbps, fill
                ):
                    break
            self._take(work, number, taken)
            left *= 1 - self._reach_kept[number]

    def _replace(self, work: Work, weights: Matrix, most: int) -> None:
        """Take others altogether where they reach so many more, again and again."""
        needed = work.covered + self.config.gain_min * work.viewers
        if float(weights.sum()) <= needed:
            return
        kept = (work.replicas, work.held, work.mbps, work.covered)
        self._give_back(work)
        self._add(work, weights, most, set(kept[0]))
        ends = len(set(kept[0]) - set(work.replicas))
        if work.covered > needed and self._may_end(work, "", ends):
            return
        self._give_back(work)
        work.replicas, work.held, work.mbps, work.covered = kept
        for number, mbps in zip(work.replicas, work.mbps, strict=True):
            self._budget.hold(number, work.origin, mbps)

    def _weigh(self, work: Work) -> Matrix:
        """Viewers by their round trip to their PoP, a row of all PoPs for each bound."""
        if work.weights is not None:
            return work.weights
        weights = np.zeros((BUCKETS, len(self._pops)))
        for place, row in zip(work.rows.places, work.rows.rows, strict=True):
            if not row.viewers:
                continue
            known = sum(row.near)
            if not known:  # They are taken for near: they chose this PoP, or were led to it.
                weights[0, place] = row.viewers
                continue
            scale = row.viewers / known
            for bucket, count in enumerate(row.near[:BUCKETS]):
                if count:
                    weights[bucket, place] = scale * count
        flat: Matrix = weights.reshape(-1)
        if self.looked_at <= REMEMBERED_MAX:
            work.weights = flat
        return flat

    def _like(self, origin: str) -> Matrix:
        """What a replica at each PoP is worth beside its reach; 0: it can be none."""
        known = self._liking.get(origin)
        if known is None:
            far = [pop.origin_ms.get(origin, math.inf) for pop in self._pops]
            known = self._liking[origin] = np.array(
                [
                    max(0.1, 1 - RTT_WEIGHT_PER_MS * ms) if ms < math.inf and pop.holds_max else 0.0
                    for ms, pop in zip(far, self._pops, strict=True)
                ]
            )
        return known


def _limits_of(pop: ReachPop) -> object:
    """What of a PoP all channels depend on."""
    return (
        *(pop.pop, pop.relay, pop.relays_max, pop.relay_mbps_max, pop.holds_max),
        *(pop.hold_mbps_max, pop.ways, frozenset(pop.origin_ms)),
    )


def _orders_of(made: ChannelReach) -> list[tuple[str, ReachOrder]]:
    channel, rungs = made.channel, made.rungs
    return [
        *((pop, ReachOrder(channel, hold=True, rungs=rungs[pop])) for pop in made.replicas),
        *((pop, ReachOrder(channel, via=via, rungs=rungs[pop])) for pop, via in made.via.items()),
    ]


def _reach(between_ms: Matrix, near_ms: float) -> Matrix:
    """By PoP that holds a copy: whether viewers of each PoP, of each bound, are near it."""
    reached = [between_ms + bound <= near_ms for bound in RTT_BOUNDS_MS]
    return np.concatenate(reached, axis=1).astype(np.float64)


def _rungs_of(rungs: ChannelRungs, places: "NDArray[np.bool_]") -> int:
    """What is watched at any of these."""
    near, mask = places.tolist(), 0
    for place, watched in rungs.watched.items():
        if near[place]:
            mask |= watched
    return mask
