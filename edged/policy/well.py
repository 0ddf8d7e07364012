"""The Well: what the backbone's links carry and what they can, from what PoPs see of paths.

Every PoP tells the round trip, loss and silence of its path to each origin, and the Mbps that it
carries there and back. From these and the map (`link_map`) each link gets a state (`link_cuts`), a
round trip and a loss (`link_fit`), and a use of its bandwidth each way. Load that is not ours shows
where TCP waits for a path and but one of its links can be why: that link then is full.

A link's price rises when RAISE_AT of its bandwidth is used, and is gone again below CLEAR_AT; in
between it stays what it was, so streams do not go to and fro.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Literal

from msgspec import Struct, structs

from edged.errors import SolverError
from edged.media.routing import PathProbe, PopTelemetry
from edged.policy.flows import RTT_MS_MAX, LinkLimit
from edged.policy.link_cuts import LinkChanged, LinkCuts, PathState
from edged.policy.link_map import LinkMap, Pair, Way
from edged.policy.restrictions import Restriction

RAISE_AT = 0.85
CLEAR_AT = 0.75
# Of the bandwidth, by streams that are placed: they come and go between plans, and 0.9 is the most.
USE_MAX = 0.88
PRICE_FULL_MS = 50.0  # Of a link that is full: a detour of so much is worth it.
PRICE_STEP = 0.05  # Of use: a price that moved with each sample would move streams.
TOLD_S_MAX = 5.0  # Older than this, what a PoP told says nothing of now.
SILENT_S = 1.0  # Beyond two round trips: five probes without an answer, and TCP quiet too.
FIT_INTERVAL_S = 1.0
MBPS_PER_UNIT = 6.0  # While nothing is carried that could tell.
MBPS_PER_UNIT_RANGE = (0.1, 1000.0)
OUTSIDE_S = 30.0  # So long a load that is not ours counts after it was seen.
BUSY_MBPS = 1.0  # A path that carries less shows no link to be free.
TCP_WEIGHT = 0.3  # Of a round trip that TCP tells: it has acks that waited.
LOSS_MAX = 0.99
LIMITED_FROM = 0.5  # Of what units may use.
UNITS_WIDE = 2000  # A second's flash crowd, of the whole network that edged is modelled on.
HYSTERESIS = 0.9  # By so much less a limit is let go of: the program begins cold with another set.
USE_PRICED_MAX = 2.0

_STEP_MS = PRICE_FULL_MS * PRICE_STEP / (1 - CLEAR_AT)
_STEPS_LEAST = round((RAISE_AT - CLEAR_AT) / PRICE_STEP)

LinkStateName = Literal["up", "cut", "closed", "unknown"]  # Closed: not to be used.


class LinkSupply(Struct, frozen=True, kw_only=True):
    """One direction of a link, for the planner."""

    link: str
    towards: str  # The site that it leads to.
    state: LinkStateName
    price_ms: float  # Of RTT, for whoever crosses it.
    mbps: float  # That units of `pairs` may use in all.
    mbps_left: float  # Of it, not in use.
    mbps_per_unit: float
    pairs: tuple[Pair, ...]  # (PoP, origin) whose streams go this way.

    def limit(self) -> LinkLimit:
        """As the solver takes it."""
        return LinkLimit(
            name=direction_name(self.link, self.towards),
            mbps=self.mbps,
            mbps_per_unit=self.mbps_per_unit,
            pairs=self.pairs,
        )


def direction_name(link: str, towards: str) -> str:
    """How limits name a link one way."""
    return f"{link} to {towards}"


class LinkStatus(Struct, frozen=True, kw_only=True):
    """A link for people; pairs of numbers are towards the second of its ends, and the first."""

    link: str
    ends: tuple[str, str]
    mbps: float
    state: LinkStateName
    why: str  # Of the state, when it last changed; or of why it may be used in part alone.
    ours_mbps: tuple[float, float]
    outside_mbps: tuple[float, float]
    utilisation: tuple[float, float]
    price_ms: float
    rtt_ms: float | None  # Of `told_as`, together; None where it cannot be told.
    loss: float | None
    told_as: tuple[str, ...]  # It and those that it is not told from.
    closed: tuple[str, str] = ("", "")  # To new streams of this class and below; "": to none.


class _Seen(Struct, frozen=True):
    """One path of a PoP, all its shards together."""

    probe: PathProbe
    alive: bool
    to_mbps: float
    from_mbps: float
    units: int


class _Link:
    """What is known of one link."""

    __slots__ = (
        *("loss", "ours", "outside", "outside_until", "price_ms"),
        *("rtt_ms", "seen", "told_as", "why"),
    )

    def __init__(self, name: str) -> None:
        self.seen = False  # A path across it was ever told of.
        self.why = ""
        self.ours = [0.0, 0.0]
        self.outside = [0.0, 0.0]
        self.outside_until = [-math.inf, -math.inf]
        self.price_ms = 0.0
        self.rtt_ms: float | None = None
        self.loss: float | None = None
        self.told_as: tuple[str, ...] = (name,)


class Well:
    """All links. It draws no clock; `update` is to be called about twice a second."""

    def __init__(self, link_map: LinkMap) -> None:
        self.map = link_map
        self.failure = ""  # Why links could not be fitted last; what was known stands.
        self._cuts = LinkCuts(link_map)
        self._links = {name: _Link(name) for name in link_map.links}
        self._told: dict[str, tuple[float, PopTelemetry]] = {}  # By shard.
        self._paths: dict[Pair, _Seen] = {}
        self._rtt_ms: dict[tuple[str, ...], float] = {}
        self._fit_rtt = _Fit()
        self._fit_loss = _Fit()
        self._fit_at = -math.inf
        self._restricted: dict[str, Restriction] = {}
        self._limited: set[tuple[str, str]] = set()  # Link, towards: as `limits` had them.
        self._ways: dict[Pair, Way] = {}
        self._crossed: dict[tuple[str, bool], tuple[Pair, ...]] = {}
        self._find_ways()

    def observe(self, key: str, told: PopTelemetry, now: float) -> None:
        """Take what a PoP shard ("lhr/0") tells."""
        self._told[key] = (now, told)

    def forget(self, key: str) -> None:
        """A shard is gone."""
        self._told.pop(key, None)

    def restrict(self, restricted: Mapping[str, Restriction]) -> None:
        """Use these links no more than that, from now on, and others as they are."""
        self._restricted = {name: each for name, each in restricted.items() if name in self._links}
        self._cuts.closed = frozenset(
            name for name, each in self._restricted.items() if each.usable <= 0
        )
        self._find_ways()

    def update(self, now: float, *, heard: Collection[str]) -> list[LinkChanged]:
        """Conclude anew; `heard`: origins whose heartbeats come in."""
        self._told = {key: told for key, told in self._told.items() if now - told[0] < TOLD_S_MAX}
        self._paths = self._gather()
        states = {
            pair: PathState(seen.alive, seen.probe.rtt_ms) for pair, seen in self._paths.items()
        }
        changes = self._cuts.update(states, heard, self._rtt_ms, now)
        for change in changes:
            self._links[change.link].why = change.reason
        if changes:
            self._find_ways()
        if changes or now - self._fit_at >= FIT_INTERVAL_S:
            self._fit_at = now
            self._fit()
        self._load(now)
        return changes

    def toll_ms(self, pop: str, origin: str) -> float:
        """What the links between them cost in all, as milliseconds of RTT."""
        way = self._ways.get((pop, origin), ())
        return min(RTT_MS_MAX, math.fsum(self._links[each.link].price_ms for each in way))

    def tolls_ms(self) -> dict[Pair, float]:
        """The same of all pairs of which it is not 0."""
        if not any(link.price_ms for link in self._links.values()):
            return {}
        tolls = {pair: self.toll_ms(*pair) for pair in self._ways}
        return {pair: toll for pair, toll in tolls.items() if toll}

    def supplies(self) -> tuple[LinkSupply, ...]:
        """Every direction of a link that streams of some pair take, by name."""
        return tuple(
            self._supply(link, forward, pairs)
            for (link, forward), pairs in sorted(self._crossed.items())
        )

    def limits(self) -> tuple[LinkLimit, ...]:
        """The supplies that a plan may come near, as the solver takes them.

        Each costs it time. A direction less than half used, with room for more units than come
        anywhere between two plans, needs none.
        """
        limits = []
        for supply in self.supplies():
            limit, key = supply.limit(), (supply.link, supply.towards)
            less = HYSTERESIS if key in self._limited else 1.0
            left = supply.mbps_left / supply.mbps_per_unit
            wide = supply.mbps_left > (1 - LIMITED_FROM * less) * supply.mbps
            if wide and left * less >= UNITS_WIDE:
                self._limited.discard(key)
            else:
                self._limited.add(key)
                limits.append(limit)
        return tuple(limits)

    def links(self) -> list[LinkStatus]:
        """Every link, by name."""
        return [self._status(name, link) for name, link in self._links.items()]

    # What PoPs told.

    def _find_ways(self) -> None:
        """Where streams of every pair go, the links that are cut left out."""
        self._ways = {pair: self._cuts.way(pair) or () for pair in self.map.pairs}
        crossed: dict[tuple[str, bool], list[Pair]] = {}
        for pair, way in self._ways.items():
            for crossing in way:
                crossed.setdefault((crossing.link, crossing.forward), []).append(pair)
        self._crossed = {key: tuple(pairs) for key, pairs in crossed.items()}

    def _gather(self) -> dict[Pair, _Seen]:
        found: dict[Pair, list[tuple[PopTelemetry, PathProbe | None]]] = {}
        for key, (_, told) in sorted(self._told.items()):
            pop = key.partition("/")[0]
            for origin in {**told.probes, **told.mbps}:
                if (pop, origin) in self._ways:
                    found.setdefault((pop, origin), []).append((told, told.probes.get(origin)))
        return {
            pair: seen
            for pair, shards in found.items()
            if (seen := _merge_shards(pair[1], shards)) is not None
        }

    # What links are.

    def _fit(self) -> None:
        rtt: list[tuple[frozenset[str], float, float]] = []
        loss: list[tuple[frozenset[str], float, float]] = []
        for pair, seen in sorted(self._paths.items()):
            links = frozenset(crossing.link for crossing in self._ways[pair])
            if links and seen.alive:
                probe = seen.probe
                rtt.append((links, probe.rtt_ms, 1.0 if probe.probed else TCP_WEIGHT))
                nepers = -math.log1p(-min(probe.loss, LOSS_MAX))
                loss.append((links, 1000 * nepers, 1.0 if probe.probed else TCP_WEIGHT))
        try:
            trips, losses = self._fit_rtt(rtt), self._fit_loss(loss)
        except SolverError as error:
            self.failure = str(error)
            return
        self.failure = ""
        self._rtt_ms = {told_as: value for told_as, value in trips if value is not None}
        for told_as, value in trips:
            for name in told_as:
                link = self._links[name]
                link.rtt_ms, link.told_as = value, told_as
        for told_as, value in losses:
            for name in told_as:
                self._links[name].loss = None if value is None else -math.expm1(-value / 1000)

    def _load(self, now: float) -> None:
        for link in self._links.values():
            link.ours = [0.0, 0.0]
            for way in (0, 1):
                if now >= link.outside_until[way]:
                    link.outside[way] = 0.0
        free: set[tuple[str, bool]] = set()
        for pair, seen in self._paths.items():
            for crossing in self._ways[pair]:
                link = self._links[crossing.link]
                link.seen |= seen.alive
                link.ours[not crossing.forward] += seen.to_mbps
                link.ours[crossing.forward] += seen.from_mbps
                if seen.alive and not seen.probe.limited and seen.to_mbps >= BUSY_MBPS:
                    free.add((crossing.link, crossing.forward))
        for pair, seen in self._paths.items():
            if seen.alive and seen.probe.limited:
                self._find_outside(pair, free, now)
        for name, link in self._links.items():
            uses = self._uses(name, link)
            shut = name in self._cuts.without
            link.price_ms = RTT_MS_MAX if shut else next_price(link.price_ms, max(uses))

    def _find_outside(self, pair: Pair, free: set[tuple[str, bool]], now: float) -> None:
        """A path that is full, while we fill none of its links: one is filled by others."""
        suspects = []
        for crossing in self._ways[pair]:
            ours = self._links[crossing.link].ours[not crossing.forward]
            mbps = self.map.links[crossing.link].mbps
            if ours >= RAISE_AT * mbps:
                return  # That is why.
            if (crossing.link, crossing.forward) not in free:
                suspects.append((crossing, mbps - ours))
        if len(suspects) == 1:
            crossing, outside = suspects[0]
            link, way = self._links[crossing.link], int(not crossing.forward)
            link.outside[way], link.outside_until[way] = outside, now + OUTSIDE_S

    def _uses(self, name: str, link: _Link) -> tuple[float, float]:
        mbps = self._bandwidth(name)
        first, second = (
            (ours + outside) / mbps for ours, outside in zip(link.ours, link.outside, strict=True)
        )
        return first, second

    # What planners and people get.

    def _supply(self, name: str, forward: bool, pairs: tuple[Pair, ...]) -> LinkSupply:
        link, config = self._links[name], self.map.links[name]
        seen = [self._paths[pair] for pair in pairs if pair in self._paths]
        units = sum(each.units for each in seen)
        to = math.fsum(each.to_mbps for each in seen)
        back = math.fsum(each.from_mbps for each in seen)
        least, most = MBPS_PER_UNIT_RANGE
        per_unit = min(most, max(least, to / units)) if units and to > 0 else MBPS_PER_UNIT
        way, bandwidth = int(not forward), USE_MAX * self._bandwidth(name)
        # What others of ours take of this direction: parts that come back to the PoPs over there.
        free = bandwidth - link.outside[way] - (link.ours[way] - to)
        if units and back > 0:  # And what comes back for these has to fit into the other one.
            other = bandwidth - link.outside[1 - way] - (link.ours[1 - way] - back)
            free = min(free, other * per_unit * units / back)
        mbps = 0.0 if name in self._cuts.without else max(0.0, free)
        return LinkSupply(
            link=name,
            towards=config.ends[forward],
            state=self._state(name, link),
            price_ms=link.price_ms,
            mbps=mbps,
            mbps_left=max(0.0, mbps - to),
            mbps_per_unit=per_unit,
            pairs=pairs,
        )

    def _bandwidth(self, name: str) -> float:
        """What may be used of it; of one that is closed it is what there is."""
        restriction = self._restricted.get(name)
        part = 1.0 if restriction is None or restriction.usable <= 0 else restriction.usable
        return part * self.map.links[name].mbps

    def _state(self, name: str, link: _Link) -> LinkStateName:
        if name in self._cuts.cut:
            return "cut"
        if name in self._cuts.closed:
            return "closed"
        return "up" if link.seen else "unknown"

    def _status(self, name: str, link: _Link) -> LinkStatus:
        config, cut = self.map.links[name], name in self._cuts.cut
        restriction = self._restricted.get(name)
        return LinkStatus(
            link=name,
            ends=config.ends,
            mbps=config.mbps,
            state=self._state(name, link),
            why=link.why if restriction is None or cut else restriction.reason,
            ours_mbps=(link.ours[0], link.ours[1]),
            outside_mbps=(link.outside[0], link.outside[1]),
            utilisation=self._uses(name, link),
            price_ms=link.price_ms,
            rtt_ms=link.rtt_ms,
            loss=link.loss,
            told_as=link.told_as,
        )


class _Fit:
    """A `LinkFitter`, loaded when it is first asked: HiGHS and numpy take 25 MB, for IRS alone."""

    def __init__(self) -> None:
        self._fit: Callable[[Sequence[tuple[frozenset[str], float, float]]], _Fitted] | None = None

    def __call__(self, measured: Sequence[tuple[frozenset[str], float, float]]) -> "_Fitted":
        """Links told as one, with the value of them, from (links, value, weight) of paths."""
        if not measured:
            return []
        if self._fit is None:
            try:
                from edged.policy.link_fit import LinkFitter, Measured  # noqa: PLC0415
            except ImportError as error:
                raise SolverError(f"the solver cannot be loaded: {error}") from error
            fitter = LinkFitter()
            self._fit = lambda paths: [
                (fitted.links, fitted.value)
                for fitted in fitter.fit([Measured(*path) for path in paths])
            ]
        return self._fit(measured)


_Fitted = list[tuple[tuple[str, ...], float | None]]


def next_price(price_ms: float, use: float) -> float:
    """The price of a link whose bandwidth is used so far, after what it was.

    Whatever it is, it sinks only when the use has by RAISE_AT - CLEAR_AT.
    """
    steps = 0 if price_ms >= RTT_MS_MAX else round(price_ms / _STEP_MS)
    wanted = math.ceil((min(use, USE_PRICED_MAX) - CLEAR_AT) / PRICE_STEP - 1e-9)
    if wanted > steps and use >= RAISE_AT:
        steps = wanted
    elif use < CLEAR_AT:
        steps = 0
    elif use < CLEAR_AT + (steps * PRICE_STEP) - (RAISE_AT - CLEAR_AT) - 1e-9:
        steps = max(wanted, _STEPS_LEAST)
    return steps * _STEP_MS


def _merge_shards(
    origin: str, shards: Sequence[tuple[PopTelemetry, PathProbe | None]]
) -> _Seen | None:
    """One path: it lives if it does for one of the shards. None where none has measured it."""
    probes = [probe for _, probe in shards if probe is not None]
    if not probes:
        return None
    living = [probe for probe in probes if is_alive(probe)]
    best = min(living or probes, key=lambda probe: (not probe.probed, probe.rtt_ms))
    if any(probe.limited for probe in living) and not best.limited:
        best = structs.replace(best, limited=True)
    carried: list[tuple[float, float]] = [told.mbps.get(origin, (0.0, 0.0)) for told, _ in shards]
    return _Seen(
        probe=best,
        alive=bool(living),
        to_mbps=math.fsum(to for to, _ in carried),
        from_mbps=math.fsum(back for _, back in carried),
        units=sum(sum(told.units.get(origin, ())) for told, _ in shards),
    )


def is_alive(probe: PathProbe) -> bool:
    """Whether anything comes back on the path."""
    return probe.silent_s < SILENT_S + 2 * probe.rtt_ms / 1000
