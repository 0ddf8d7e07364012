"""A PoP does what IRS orders for reach: channels are here before anybody watches them.

It tells who watches what as well, to an IRS that has sent orders, or has asked.
"""

import math
import random
from collections.abc import Callable
from typing import Protocol

import structlog
import trio
from msgspec import Struct, structs

from edged.media.reach import ROWS_BYTES_MAX, ROWS_MAX, Audience, AudienceRow, Reach
from edged.playback.audience import read_audience, read_mbps
from edged.playback.hls import Channel
from edged.policy.reach_config import PopReachConfig
from edged.policy.reach_orders import HeldSeen, Holding, Pace, ReachOrders, Retries
from edged.roles.channel_ways import ChannelWay, as_list, why_from_there
from edged.roles.parts_sources import is_relay
from edged.roles.relaying import SourceSeen
from edged.roles.wanted_rungs import Wanted
from edged.runtime.faults import contained
from edged.runtime.metrics import Metrics, MetricSpec, Sample
from edged.wire.table import encoded_bytes

LOOK_S = 1.0
GUESS_MBPS = 10.0  # Of a channel of which no segment is whole yet: all its renditions.
TELL_S = 5.0  # Who watches what changes no faster in a way that orders follow.

SPECS = (
    MetricSpec(name="edged_reach_held", help="Channels that are here by order.", labels=("role",)),
    MetricSpec(
        name="edged_reach_held_mbps",
        help="What comes in of those that are here by order and nobody watches, in Mbps.",
        labels=("role",),
    ),
    MetricSpec(
        name="edged_reach_refused", help="Orders that cannot be carried out now.", labels=("role",)
    ),
)

logger = structlog.get_logger("edged.pop")


class Holder(Protocol):
    """The playback edge, as far as channels are held in it."""

    @property
    def channels(self) -> dict[str, Channel]:
        """All that are known here, by name."""

    def hold(self, name: str) -> str:
        """Have a channel come here, and stay; why it does not."""

    def let_go(self, name: str) -> None:
        """It may go when nobody watches it."""


class Relays(Protocol):
    """Who relays channels here and from here (`Relaying`)."""

    draining: bool
    address: str

    @property
    def relays_max(self) -> int:
        """Subscriptions of other PoPs that are taken."""

    def source(self, channel: str) -> str:
        """Which relay brings a channel."""

    def peers(self) -> dict[str, float]:
        """Measured round trips to PoPs that relay."""

    def relayed_on(self) -> dict[str, int]:
        """Channels that go from here to other PoPs, and to how many."""

    def brings(self, channel: str) -> str:
        """Who brings a channel here; "": nobody."""

    def origin(self, channel: str) -> tuple[str, float | None]:
        """Where a channel is live, and how far that is."""

    def rungs_pushed(self, channel: str) -> Wanted:
        """Which of its rungs are pushed here; None: all."""

    def seen(self) -> list[SourceSeen]:
        """Each channel that comes from a relay, or is ordered to."""

    def avoided(self) -> dict[str, str]:
        """Relays that are not gone to for a while, and why."""

    def reconfigure(self, config: PopReachConfig) -> None:
        """Go by other limits."""


class ReachAtPop(Struct, frozen=True, kw_only=True):
    """What a PoP does of reach: `edged reach` where one runs."""

    pop: str
    epoch: int  # Of the newest orders; -1: none have come.
    number: int
    orders: int  # In force.
    expires_s: float
    held: list[HeldSeen]
    sources: list[SourceSeen] = []  # Channels that come from other PoPs, or are ordered to.
    avoided: dict[str, str] = {}  # PoPs that nothing is taken from for a while, and why.
    relayed_on: dict[str, int] = {}  # Channels that go from here to so many other PoPs.


class Reaching:
    """Of one PoP shard. All but `run` is synchronous."""

    def __init__(
        self,
        pop: str,
        config: PopReachConfig | None,
        playback: Holder,
        now: Callable[[], float],
        rng: random.Random | None = None,
    ) -> None:
        """`pop`: as people know it; `config` None: no orders are taken."""
        self._obeys, config = config is not None, config or PopReachConfig()
        self.tell: Callable[[Audience], None] = lambda _: None
        self.relays: Relays | None = None
        self._draining = False
        self.orders = ReachOrders()
        rng = rng or random.Random()  # noqa: S311 - spreads ends, keeps no secret
        self.holding = Holding(config.holds_max, config.grace_s, rng)
        self._pop, self._config, self._playback, self._now = pop, config, playback, now
        self._pace = Pace(config.changes_per_s)
        self._told_at: float | None = None  # Until an IRS has sent something, nobody is told.
        self._mbps = 0.0
        self._retries = Retries(rng)
        self._woken = trio.Event()

    @property
    def draining(self) -> bool:
        """Nothing new is held or relayed then, and what is held ends."""
        return self._draining

    @draining.setter
    def draining(self, draining: bool) -> None:
        self._draining = draining
        if self.relays is not None:
            self.relays.draining = draining

    def reconfigure(self, config: PopReachConfig | None) -> None:
        """Go by other limits from the next look on; without a table orders are over."""
        self._obeys, config = config is not None, config or PopReachConfig()
        if not self._obeys:
            self.orders.until, self._told_at = -math.inf, None
        if self.relays is not None:
            self.relays.reconfigure(config)
        self._config = config
        self.holding.holds_max, self.holding.grace_s = config.holds_max, config.grace_s
        self._pace.per_s = config.changes_per_s

    def ordered(self, reach: Reach) -> None:
        """IRS says what is to be here."""
        if not self._obeys:
            return
        if why := self.orders.take(reach, self._now()):
            logger.warning("orders of reach not taken", reason=why)
            return
        if self._told_at is None or reach.orders is None:
            self._told_at = self._now() - TELL_S
        self._woken.set()

    async def run(self) -> None:
        """Carry orders out, and tell, until cancelled."""
        while True:
            with contained(logger, "orders of reach not carried out"):
                self.look(self._now())
            with trio.move_on_after(LOOK_S):
                await self._woken.wait()
            self._woken = trio.Event()

    def look(self, now: float) -> None:
        """Come nearer to what is ordered, and tell if it is time."""
        orders = {} if self.draining else self.orders.in_force(now)
        wanted = {} if self.relays is None else dict.fromkeys(self.relays.relayed_on())
        wanted |= {order.channel: None for order in orders.values() if order.hold}
        self.holding.update(
            wanted,
            now,
            begin=self._hold,
            end=self._playback.let_go,
            may=lambda: self._pace.take(now),
        )
        if self._told_at is not None and now >= self._told_at + TELL_S:
            self._told_at = now
            self._mbps = self._measure(now)
            self.tell(self._audience(now))

    def seen(self, channel: str = "") -> ReachAtPop:
        """What people ask: of all channels, or of one."""
        now = self._now()
        epoch, number = self.orders.stamp
        in_force, relays = self.orders.in_force(now), self.relays
        sources = [] if relays is None else relays.seen()
        return ReachAtPop(
            pop=self._pop,
            epoch=epoch,
            number=number,
            orders=len(in_force),
            expires_s=round(self.orders.until - now, 1) if in_force else 0.0,
            held=[each for each in self.holding.seen(now) if channel in ("", each.channel)],
            sources=[each for each in sources if channel in ("", each.channel)],
            avoided={} if relays is None else relays.avoided(),
            relayed_on={} if relays is None else relays.relayed_on(),
        )

    def way(self, channel: str) -> ChannelWay:
        """How a channel comes here, and why so."""
        seen, relays = self.seen(channel), self.relays
        known = self._playback.channels.get(channel)
        at = seen.sources[0] if seen.sources else None
        source, origin, relay = "", "", "" if at is None else at.ordered
        origin_ms = relay_ms = None
        if relays is not None:
            source, (origin, origin_ms) = relays.brings(channel), relays.origin(channel)
            relay = relay or (source if is_relay(source) else "")
            relay_ms = relays.peers().get(relay)
        return ChannelWay(
            source=source,
            origin=origin,
            origin_ms=None if origin_ms is None else round(origin_ms, 2),
            relay=relay,
            relay_ms=relay_ms,
            why=why_from_there(source, relay, at, seen.held),
            held=any(each.held for each in seen.held),
            rungs=None if relays is None else as_list(relays.rungs_pushed(channel)),
            relayed_on=seen.relayed_on.get(channel, 0),
            viewers=0 if known is None else known.count.viewers(self._now()),
        )

    def register(self, metrics: Metrics, *, role: str) -> None:
        """Have its state read at each scrape."""

        def read() -> list[Sample]:
            labels, seen = {"role": role}, self.holding.seen(self._now())
            return [
                Sample("edged_reach_held", len(self.holding.held), labels),
                Sample("edged_reach_held_mbps", self._mbps, labels),
                Sample("edged_reach_refused", sum(not each.held for each in seen), labels),
            ]

        metrics.register(SPECS, read)

    def _hold(self, channel: str) -> str:
        known = self._playback.channels.get(channel)
        if channel not in self.holding.held:
            if self._mbps >= self._config.hold_mbps_max:
                return f"{self._mbps:.0f} Mbps of channels that nobody watches come in already"
            why = self._playback.hold(channel)
            if not why:
                self._mbps += GUESS_MBPS  # Until it is measured.
            return why
        now = self._now()
        if known is not None and known.subscribed:
            self._retries.goes_on(channel, now)
            return self._playback.hold(channel)
        why = self._retries.why_not(channel, now)
        if not why and not self._pace.take(now):
            why = "so many changes at a time"
        if why:
            return why
        if not (why := self._playback.hold(channel)):
            self._retries.tried(channel, now)
        return why

    def _measure(self, now: float) -> float:
        """What comes in of channels that are here by order, and of them nobody watches as yet."""
        held = self.holding.held
        self._retries.keep(held)
        return sum(
            read_mbps([channel], now) or (0.0 if _is_known(channel) else GUESS_MBPS)
            for channel in self._playback.channels.values()
            if channel.name in held
        )

    def _audience(self, now: float) -> Audience:
        relays, rows = self.relays, list(read_audience(self._playback.channels.values(), now))
        rows.sort(key=lambda row: (not row.held, -row.viewers))
        if relays is not None:
            rows = [structs.replace(row, via=relays.source(row.channel)) for row in rows]
        told: list[AudienceRow] = []
        left = ROWS_BYTES_MAX
        for row in rows[:ROWS_MAX]:
            left -= encoded_bytes(row)
            if left < 0:
                break
            told.append(row)
        return Audience(
            rows=tuple(told),
            omitted=len(rows) - len(told),
            holds_max=0 if self.draining else self._config.holds_max,
            relay=relays.address if relays is not None and relays.relays_max else "",
            relays_max=0 if relays is None else relays.relays_max,
            peers={} if relays is None else relays.peers(),
            hold_mbps_max=self._config.hold_mbps_max,
            relay_mbps_max=self._config.relay_mbps_max,
        )


def _is_known(channel: Channel) -> bool:
    """Whether what comes in of it can be told: nothing, or what a whole segment says."""
    stream = channel.newest
    if not channel.subscribed:
        return True
    if stream is None:
        return False
    windows = stream.window.renditions.values()
    return stream.ended_at is not None or any(each.has_whole_segment for each in windows)
