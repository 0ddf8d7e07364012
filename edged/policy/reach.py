"""Which PoPs hold a channel before anybody asks, and which PoP takes it from which.

    origin ──▶ replica ──▶ PoP with viewers      where the replica is nearer to it than the origin
       └─────────────────▶ PoP with viewers      elsewhere

Replicas are chosen by greedy set cover: of all PoPs the one that puts most viewers within `near_ms`
of a copy, then the one that adds most to that, until there are as many as the audience is worth. A
replica takes the channel from its origin, and others take it from replicas alone: so no way is
longer than two, and none leads back.

What is so goes on unless something is better by more than noise is: replicas stay in the order in
which they were chosen while each still adds half of what a new one must add.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from edged.media.reach import RTT_BOUNDS_MS, AudienceRow, ReachOrder
from edged.policy.reach_config import ReachConfig

KEEPS: Final = 0.5  # Of what a new replica must add: an old one that adds less goes.
KEEPS_AUDIENCE: Final = 0.7  # Of the audience that a number of replicas needs, until one goes.
ADDS_MIN: Final = 0.01  # Of the audience: a replica that adds less is not worth it.
SWITCHES: Final = 0.1  # Of the audience: other replicas must reach so much more.
CHANNELS_MAX: Final = 20_000  # Planned for; beyond them, those with the fewest viewers are not.
# Of two PoPs that reach about the same viewers the one nearer to the origin: 1 % for 100 ms.
RTT_WEIGHT_PER_MS: Final = 1e-4
IDLE_PLANS: Final = 6  # Without a viewer, until a PoP is no longer to take a channel from a relay.
BUCKETS: Final = len(RTT_BOUNDS_MS)

Matrix = NDArray[np.float64]


class ReachPop(Struct, frozen=True, kw_only=True):
    """A PoP shard that takes orders."""

    pop: str
    relay: str = ""  # Where others subscribe; "": it relays nothing.
    relays_max: int = 0
    holds_max: int = 0  # 0: it holds nothing in advance, as one that drains.
    origin_ms: Mapping[str, float] = {}  # Round trips to origins, as far as they are known.
    audience: Mapping[str, AudienceRow] = {}  # By channel.


class ChannelReach(Struct, frozen=True, kw_only=True):
    """What is planned for one channel."""

    channel: str
    origin: str
    viewers: int
    covered: float  # Viewers within near_ms of a replica.
    replicas: tuple[str, ...]
    via: dict[str, str] = {}  # PoP shard -> the replica that relays it there.


class ReachPlan(Struct, frozen=True, kw_only=True):
    """What all PoPs are to do."""

    channels: dict[str, ChannelReach] = {}  # Those with replicas.
    orders: dict[str, tuple[ReachOrder, ...]] = {}  # By PoP shard, whoever has any.
    relays: dict[str, str] = {}  # Where those are that relay something: HOST:PORT.


class _Choice(NamedTuple):
    """Replicas, by number, and how many viewers they reach."""

    replicas: list[int]
    covered: float


class ReachPlanner:
    """Plans step by step, and remembers the plan before. It draws no clock and no luck."""

    def __init__(self, config: ReachConfig) -> None:
        self.config = config
        self.plan = ReachPlan()  # In force.
        self._waiting: list[tuple[str, int]] = []
        self._made: dict[str, ChannelReach] = {}
        # By PoP and channel that it takes from a relay: for how many plans nobody has watched.
        self._idle: dict[tuple[str, str], int] = {}
        self._idle_before = self._idle
        self._pops: Sequence[ReachPop] = ()
        self._origins: Mapping[str, str] = {}

    def begin(
        self, pops: Sequence[ReachPop], origins: Mapping[str, str], between_ms: Matrix
    ) -> None:
        """Plan for these from now on; `origins`: of the channels that are live.

        `between_ms`: round trips from PoP to PoP in this order, infinite where not known.
        """
        assert between_ms.shape == (len(pops), len(pops)), "a row for each"
        self._pops, self._origins = pops, origins
        self._number = {pop.pop: number for number, pop in enumerate(pops)}
        self._between_ms = between_ms
        reached = [between_ms + bound <= self.config.near_ms for bound in RTT_BOUNDS_MS]
        self._reach = np.concatenate(reached, axis=1).astype(np.float64)
        self._holds = [0] * len(pops)
        self._relays = [0] * len(pops)
        self._orders = [0] * len(pops)
        for before in self.plan.channels.values():
            for pop in before.replicas:
                self._count(self._holds, pop, 1)
            for relay in before.via.values():
                self._count(self._relays, relay, 1)
        viewers: dict[str, int] = {}
        for shard in pops:
            for channel, row in shard.audience.items():
                if row.viewers and channel in origins:
                    viewers[channel] = viewers.get(channel, 0) + row.viewers
        self._made = {}
        self._idle_before, self._idle = self._idle, {}
        most = sorted(viewers.items(), key=lambda item: (-item[1], item[0]))
        self._waiting = most[:CHANNELS_MAX][::-1]
        for channel in self.plan.channels.keys() - viewers.keys():
            self._forget(channel)

    def adopt(self, channels: Mapping[str, ChannelReach]) -> None:
        """What PoPs do already, by the word of an IRS before: it counts as the plan before."""
        self.plan = ReachPlan(channels=dict(channels))

    @property
    def is_done(self) -> bool:
        """Whether `finish` may be called."""
        return not self._waiting

    def step(self, channels: int) -> None:
        """Plan for some more, those with the most viewers first."""
        for _ in range(min(channels, len(self._waiting))):
            channel, viewers = self._waiting.pop()
            made = self._plan_channel(channel, viewers)
            if made is not None:
                self._made[channel] = made

    def finish(self) -> ReachPlan:
        """Put what was planned in force."""
        assert self.is_done, "some wait"
        orders: dict[str, list[ReachOrder]] = {}
        relays: dict[str, str] = {}
        for made in self._made.values():  # By audience.
            for pop in made.replicas:
                orders.setdefault(pop, []).append(ReachOrder(made.channel, hold=True))
            for pop, relay in made.via.items():
                orders.setdefault(pop, []).append(ReachOrder(made.channel, via=relay))
                relays[relay] = self._pops[self._number[relay]].relay
        self.plan = ReachPlan(
            channels=self._made,
            orders={pop: tuple(of_pop) for pop, of_pop in orders.items()},
            relays=relays,
        )
        return self.plan

    def _count(self, counts: list[int], pop: str, change: int) -> None:
        number = self._number.get(pop)
        if number is not None:
            counts[number] += change

    def _forget(self, channel: str) -> None:
        before = self.plan.channels.get(channel)
        if before is not None:
            for pop in before.replicas:
                self._count(self._holds, pop, -1)
            for relay in before.via.values():
                self._count(self._relays, relay, -1)

    def _plan_channel(self, channel: str, viewers: int) -> ChannelReach | None:
        origin, before = self._origins[channel], self.plan.channels.get(channel)
        if viewers < KEEPS_AUDIENCE * self.config.viewers_per_replica:
            self._forget(channel)
            return None
        chosen = self._choose(channel, origin, viewers, before)
        replicas = tuple(self._pops[number].pop for number in chosen.replicas)
        old = () if before is None else before.replicas
        for pop in old:
            self._count(self._holds, pop, -(pop not in replicas))
        for pop in replicas:
            self._count(self._holds, pop, pop not in old)
        for number in chosen.replicas:
            self._orders[number] += 1
        via = self._take_from(channel, origin, chosen.replicas, before)
        if not replicas:
            return None
        return ChannelReach(
            channel=channel,
            origin=origin,
            viewers=viewers,
            covered=chosen.covered,
            replicas=replicas,
            via=via,
        )

    # Replicas.

    def _choose(
        self, channel: str, origin: str, viewers: int, before: ChannelReach | None
    ) -> _Choice:
        config = self.config
        weights = self._weigh(channel)
        liking = self._like(origin)
        old = [] if before is None else [self._number.get(pop, -1) for pop in before.replicas]
        most = min(config.replicas_max, viewers // config.viewers_per_replica)
        most_kept = int(viewers / (KEEPS_AUDIENCE * config.viewers_per_replica))
        most_kept = min(config.replicas_max, most_kept)
        kept, covered, left = list[int](), 0.0, weights.copy()
        for number in old:
            if number < 0 or not liking[number] or len(kept) >= most_kept:
                continue
            if not self._may_hold(number, kept=True):
                continue
            gain = float(self._reach[number] @ left)
            if gain >= KEEPS * ADDS_MIN * viewers:
                kept.append(number)
                covered += gain
                left *= 1 - self._reach[number]
        numbers = range(len(self._pops))
        free = np.array([self._may_hold(number, kept=number in old) for number in numbers])
        liking = np.where(free, liking, 0.0)
        chosen = self._add(_Choice(kept, covered), left, liking, most, ADDS_MIN * viewers)
        if old:
            fresh = self._add(_Choice([], 0.0), weights, liking, most, ADDS_MIN * viewers)
            if fresh.covered > chosen.covered + SWITCHES * viewers:
                return fresh
        return chosen

    def _add(
        self, begun: _Choice, weights: Matrix, liking: Matrix, most: int, adds_min: float
    ) -> _Choice:
        replicas, covered, left = list(begun.replicas), begun.covered, weights.copy()
        while len(replicas) < most:
            gains = self._reach @ left
            number = int(np.argmax(gains * liking))
            gain = float(gains[number])
            if not liking[number] or gain <= 0 or gain < adds_min:
                break
            replicas.append(number)
            covered += gain
            left *= 1 - self._reach[number]
        return _Choice(replicas, covered)

    def _weigh(self, channel: str) -> Matrix:
        """Viewers by their round trip to their PoP, a row of all PoPs for each bound."""
        weights = np.zeros((BUCKETS, len(self._pops)))
        for number, pop in enumerate(self._pops):
            row = pop.audience.get(channel)
            if row is None or not row.viewers:
                continue
            near = row.near[: BUCKETS + 1]
            known = sum(near)
            if not known:  # They are taken for near: they chose this PoP, or were led to it.
                weights[0, number] = row.viewers
                continue
            for bucket, count in enumerate(near[:BUCKETS]):
                weights[bucket, number] = row.viewers * count / known
        return weights.reshape(-1)

    def _like(self, origin: str) -> Matrix:
        """What a replica at each PoP is worth beside its reach; 0: it can be none."""
        far = [pop.origin_ms.get(origin, math.inf) for pop in self._pops]
        return np.array(
            [
                max(0.1, 1 - RTT_WEIGHT_PER_MS * ms) if ms < math.inf and pop.holds_max else 0.0
                for ms, pop in zip(far, self._pops, strict=True)
            ]
        )

    def _may_hold(self, number: int, *, kept: bool) -> bool:
        """Whether a PoP may hold one more, or `kept`: one that it holds already."""
        room = self._pops[number].holds_max - self._holds[number]
        return self._may_have(number) and (room >= 0 if kept else room > 0)

    def _may_have(self, number: int) -> bool:
        return self._orders[number] < self.config.orders_per_pop_max

    # Relays.

    def _take_from(
        self, channel: str, origin: str, replicas: Sequence[int], before: ChannelReach | None
    ) -> dict[str, str]:
        """Which PoPs take it from which replica; the others take it from the origin."""
        old = {} if before is None else before.via
        relays = [number for number in replicas if self._pops[number].relay]
        via: dict[str, str] = {}
        for pop, relay in old.items():
            number = self._number.get(relay, -1)
            place = self._number.get(pop, -1)
            if (
                number in relays
                and place not in (-1, *replicas)
                and self._may_have(place)
                and self._has_had_viewers(place, channel)
                and self._stays(place, number, relays, self._origin_ms(place, origin))
            ):
                via[pop] = relay
                self._orders[place] += 1
            else:
                self._count(self._relays, relay, -1)
        for place, shard in enumerate(self._pops):
            if shard.pop in via or place in replicas or not self._has_viewers(place, channel):
                continue
            nearest = self._nearest(place, relays, self._origin_ms(place, origin))
            if nearest is not None and self._may_have(place):
                via[shard.pop] = self._pops[nearest].pop
                self._relays[nearest] += 1
                self._orders[place] += 1
        return via

    def _has_had_viewers(self, place: int, channel: str) -> bool:
        """Whether it has viewers, or had some a few plans ago: the last come and go."""
        key = (self._pops[place].pop, channel)
        idle = 0 if self._has_viewers(place, channel) else self._idle_before.get(key, 0) + 1
        if idle:
            self._idle[key] = idle
        return idle < IDLE_PLANS

    def _has_viewers(self, place: int, channel: str) -> bool:
        row = self._pops[place].audience.get(channel)
        return row is not None and row.viewers > 0

    def _origin_ms(self, place: int, origin: str) -> float:
        """Of a PoP that has not measured it nothing is said: it goes to the origin."""
        return self._pops[place].origin_ms.get(origin, -math.inf)

    def _stays(self, place: int, relay: int, relays: Sequence[int], origin_ms: float) -> bool:
        """Whether it goes on to take it from this relay."""
        if self._relays[relay] > self._pops[relay].relays_max:
            return False
        ms, margin = float(self._between_ms[relay, place]), self.config.margin_ms
        best = min(float(self._between_ms[each, place]) for each in relays)
        return ms + margin / 2 <= origin_ms and ms <= best + margin

    def _nearest(self, place: int, relays: Sequence[int], origin_ms: float) -> int | None:
        """The nearest relay with room, if it is nearer than the origin."""
        free = [each for each in relays if self._relays[each] < self._pops[each].relays_max]
        ways = [(float(self._between_ms[each, place]), each) for each in free]
        ms, number = min(ways, default=(math.inf, -1))
        return number if ms + self.config.margin_ms <= origin_ms else None
