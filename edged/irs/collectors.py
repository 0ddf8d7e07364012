"""What IRS knows of the network: fed by heartbeats and telemetry, read by the planner.

All of it is soft state: after a restart it comes back with the first hellos and heartbeats.
"""

import ipaddress
from typing import TYPE_CHECKING

from msgspec import Struct

from edged.errors import ConfigError, RemoteProtocolError
from edged.media.routing import (
    BOUNDS_MAX,
    CLASSES,
    ORIGINS_MAX,
    BoundUnits,
    ByClass,
    OriginReport,
    OriginState,
    PopRow,
    PopTelemetry,
)
from edged.media.stream import PriorityClass
from edged.policy.capacitor import Capacitor, StateChanged
from edged.policy.planner import ARRIVALS_SMOOTHING, OriginSupply, PopDemand
from edged.policy.pop_needs import BoundDemand, bound_demand
from edged.policy.restrictions import Restriction, restrict_room
from edged.runtime.listeners import parse_address
from edged.wire.table import POPS_MAX, OriginHello

if TYPE_CHECKING:
    from collections.abc import Callable

RATE_LEAST = 0.001  # Of arrivals a second: one that came is remembered for half a minute or so.
RATE_INTERVAL_S_MIN = 0.1  # Telemetry closer together says nothing about a rate.

_Origins = tuple[tuple[str, ...], tuple[str, ...]]  # As BoundUnits: first, then.


class _Pop:
    """One PoP shard."""

    __slots__ = ("arrivals_per_s", "bound_per_s", "left_at", "told", "told_at")

    def __init__(self) -> None:
        self.told = PopTelemetry({})
        self.told_at: float | None = None
        self.arrivals_per_s = 0.0
        self.bound_per_s: dict[_Origins, float] = {}  # Of those that rules bind to these.
        self.left_at: float | None = None  # Its leases outlive its session.

    def note_bound(self, told: PopTelemetry, for_s: float) -> None:
        """Follow the arrivals of those whom rules bind; who has come no more is forgotten."""
        counts = {(each.first, each.then): each.arrivals for each in told.bound}
        for origins in self.bound_per_s.keys() | counts.keys():
            rate = counts.get(origins, 0) / max(RATE_INTERVAL_S_MIN, for_s)
            before = self.bound_per_s.get(origins, 0.0)
            self.bound_per_s[origins] = before + ARRIVALS_SMOOTHING * (rate - before)
        kept = sorted(self.bound_per_s, key=lambda each: -self.bound_per_s[each])[:BOUNDS_MAX]
        self.bound_per_s = {
            origins: rate
            for origins, rate in self.bound_per_s.items()
            if origins in counts or (rate > RATE_LEAST and origins in kept)
        }

    def bound(self) -> tuple[BoundDemand, ...]:
        """For the planner, those included that have come lately and are gone."""
        told = {(each.first, each.then): each for each in self.told.bound}
        return tuple(
            bound_demand(
                told.get((first, then), BoundUnits(first, then)),
                self.bound_per_s.get((first, then), 0.0),
            )
            for first, then in sorted(told.keys() | self.bound_per_s.keys())
        )


class PopStatus(Struct, frozen=True, kw_only=True):
    """A PoP shard as IRS sees it."""

    pop: str
    connected: bool
    arrivals_per_s: float
    told: PopTelemetry


class OriginStatus(Struct, frozen=True, kw_only=True):
    """An origin as IRS sees it."""

    origin: str
    state: OriginState
    report: OriginReport
    connected: bool
    address: str


class IrsStatus(Struct, frozen=True, kw_only=True):
    """What `edged status` and the tests see of IRS."""

    epoch: int
    version: int
    origins: list[OriginStatus]
    pops: list[PopStatus]
    acked: dict[str, tuple[int, int]]  # PoP shard -> (epoch, version) in force there.


class Collectors:
    """Capacitor's feed and what PoPs tell (the Well's feed: path probes)."""

    def __init__(self) -> None:
        self.capacitor = Capacitor()
        # How an origin of this state stands in tables; who drains some says so here.
        self.state_of: Callable[[str, OriginState], OriginState] = lambda _, state: state
        self.tolls_ms: dict[tuple[str, str], float] = {}  # PoP, origin: as the Well prices links.
        self.restricted: dict[str, Restriction] = {}  # Origins, as failure sources say.
        self.on_told: Callable[[str, PopTelemetry], None] = lambda _, __: None
        self._hellos: dict[str, OriginHello] = {}
        self._pops: dict[str, _Pop] = {}

    def origin_joined(self, hello: OriginHello) -> None:
        """Learn where an origin is; it counts from its first heartbeat."""
        self._hellos[hello.origin] = hello
        if len(self._hellos) > 2 * ORIGINS_MAX:
            for name in self._hellos.keys() - self.capacitor.origins - {hello.origin}:
                del self._hellos[name]  # The capacitor has forgotten it, or it never beat.

    def address(self, origin: str) -> str:
        """Where an origin said that PoPs reach it; "" when it has not said."""
        hello = self._hellos.get(origin)
        return "" if hello is None else hello.address

    def state(self, origin: str) -> OriginState | None:
        """As tables have it; None when it was never heard."""
        state = self.capacitor.state(origin)
        return None if state is None else self.state_of(origin, state)

    def heartbeat(self, report: OriginReport, now: float) -> list[StateChanged]:
        """Take an origin's heartbeat."""
        return self.capacitor.heartbeat(report, now)

    def pop_joined(self, key: str) -> None:
        """Count a PoP in; raises RemoteProtocolError when there are too many."""
        if key not in self._pops and len(self._pops) >= POPS_MAX:
            gone = [name for name, pop in self._pops.items() if pop.left_at is not None]
            if not gone:
                raise RemoteProtocolError(f"pop {key!r} is one more than {POPS_MAX}")
            del self._pops[gone[0]]
        self._pops.setdefault(key, _Pop()).left_at = None

    def pop_left(self, key: str, now: float) -> None:
        """Note that a PoP's session ended; it is planned for until its leases have expired."""
        if (pop := self._pops.get(key)) is not None:
            pop.left_at = now

    def telemetry(self, key: str, told: PopTelemetry, now: float) -> list[StateChanged]:
        """Take what a PoP tells; its bad experiences are votes against an origin."""
        self.on_told(key, told)
        pop = self._pops[key]
        if pop.told_at is not None:
            rate = told.arrivals / max(RATE_INTERVAL_S_MIN, now - pop.told_at)
            pop.arrivals_per_s += ARRIVALS_SMOOTHING * (rate - pop.arrivals_per_s)
            pop.note_bound(told, now - pop.told_at)
        pop.told, pop.told_at = told, now
        if not told.refusals and not told.timeouts:
            return []
        # Shards of a host share its paths: they are one witness.
        here = {_name(other) for other, pop in self._pops.items() if pop.left_at is None}
        changes: list[StateChanged] = []
        for counts, refused in ((told.refusals, True), (told.timeouts, False)):
            for origin, count in counts.items():
                if count:
                    changes += self.capacitor.vote_against(
                        origin, _name(key), voters=len(here), now=now, refused=refused
                    )
        return changes

    def supplies(self, now: float) -> list[OriginSupply]:
        """Every origin that has beaten, for the planner."""
        supplies = []
        for name in self.capacitor.origins:
            hello, report = self._hellos.get(name), self.capacitor.report(name)
            state = self.state(name)
            if hello is None or report is None or state is None:
                continue
            room = self._room(name, now)
            if (restriction := self.restricted.get(name)) is not None and state.takes_streams:
                room = restrict_room(room, report.slots_total, restriction.usable)
                state = OriginState.DRAIN if restriction.usable <= 0 else state
            supplies.append(
                OriginSupply(
                    origin=name,
                    address=hello.address,
                    state=state,
                    slots_total=report.slots_total,
                    room=room,
                    domain=hello.domain,
                    ladders=self.capacitor.ladders(name),
                )
            )
        return supplies

    def units(self) -> dict[str, dict[str, int]]:
        """Of each PoP that is connected, how many it has where."""
        return {
            key: {origin: sum(counts) for origin, counts in pop.told.units.items()}
            for key, pop in self._pops.items()
            if pop.left_at is None
        }

    def slots_used(self, origin: str) -> int | None:
        """How many slots an origin's own heartbeat says it has taken; None while none comes."""
        report, state = self.capacitor.report(origin), self.capacitor.state(origin)
        if report is None or state is OriginState.DOWN:
            return None
        return report.slots_total - report.slots_free[PriorityClass.PARTNER]

    def demands(self, now: float, lease_ttl_s: float) -> list[PopDemand]:
        """Every PoP that is here, or whose leases may still be in force."""
        for key, pop in list(self._pops.items()):
            if pop.left_at is not None and now - pop.left_at >= lease_ttl_s:
                del self._pops[key]
        return [
            PopDemand(
                pop=key,
                units=pop.told.units,
                arrivals_per_s=pop.arrivals_per_s,
                rtt_ms=self._distances_ms(key, pop.told),
                bound=pop.bound(),
            )
            for key, pop in sorted(self._pops.items())
        ]

    def told_at(self) -> float | None:
        """When the PoP that is here and has told nothing for longest told last; None: none has."""
        told = [pop.told_at for pop in self._pops.values() if pop.left_at is None]
        return min((at for at in told if at is not None), default=None)

    def origin_ms(self) -> dict[str, dict[str, float]]:
        """Of each PoP that is connected, its round trips to origins."""
        return {
            key: {origin: probe.rtt_ms for origin, probe in pop.told.probes.items()}
            for key, pop in self._pops.items()
        }

    def _distances_ms(self, key: str, told: PopTelemetry) -> dict[str, float]:
        """Round trips, and what the links on the way cost beside."""
        measured = {origin: probe.rtt_ms for origin, probe in told.probes.items()}
        if self.tolls_ms:
            name = _name(key)
            for origin in measured:
                measured[origin] += self.tolls_ms.get((name, origin), 0.0)
        return measured

    def _room(self, origin: str, now: float) -> ByClass:
        partner, affiliate, basic = (
            self.capacitor.room(origin, priority, now) for priority in CLASSES
        )
        return (partner, affiliate, basic)

    def offers(self) -> dict[tuple[str, int], PopRow]:
        """Every PoP shard that is connected and says where publishers reach it."""
        rows = {}
        for key, pop in self._pops.items():
            if pop.left_at is None and pop.told.ingest is not None:
                name, _, shard = key.rpartition("/")
                rows[name, int(shard)] = PopRow(name, int(shard), pop.told.ingest)
        return rows

    def pops(self) -> list[PopStatus]:
        """Every PoP, for people."""
        return [
            PopStatus(
                pop=key,
                connected=pop.left_at is None,
                arrivals_per_s=pop.arrivals_per_s,
                told=pop.told,
            )
            for key, pop in sorted(self._pops.items())
        ]


def _name(key: str) -> str:
    """The PoP of a shard: of "lhr/2", "lhr"."""
    return key.partition("/")[0]


def check_reachable(hello: OriginHello) -> None:
    """Raise RemoteProtocolError where PoPs could not connect to: every table would carry it."""
    try:
        host, port = parse_address(hello.address)
    except ConfigError as error:
        raise RemoteProtocolError(f"origin {hello.origin!r}: {error}") from error
    try:
        anywhere = ipaddress.ip_address(host).is_unspecified
    except ValueError:
        anywhere = False  # A name.
    if anywhere or not port:
        raise RemoteProtocolError(
            f"origin {hello.origin!r}: address {hello.address!r} cannot be connected to"
        )
