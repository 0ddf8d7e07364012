"""Channels from PoP to PoP: taken from one that IRS says, and given to others.

What is taken from another PoP is watched: when it falls silent, is lost or refuses, the channel is
taken from its origin again, at once and by our own word, and that PoP is avoided for a while. All
else is done by and by. Whichever way a channel goes, who brought it before is heard until the next
has caught up (`parts_in`).
"""

import math
import random
import ssl
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Protocol

import structlog
import trio
from msgspec import Struct

from edged.backbone.feeds import OnEvent
from edged.backbone.fence import Fence
from edged.backbone.local_end import LocalEnd
from edged.backbone.relay_server import RelayServer
from edged.media.parts import PackagedEvent, SegmentsListed
from edged.media.reach import ReachOrder
from edged.media.stream import PriorityClass, StreamId
from edged.playback.audience import read_mbps
from edged.playback.hls import Channel
from edged.playback.relaying import replay_of
from edged.policy.reach_config import PopReachConfig
from edged.policy.reach_orders import Pace, ReachOrders
from edged.policy.relay_choice import RelayChoice, RelayFacts
from edged.policy.relay_progress import Progress
from edged.roles.parts_sources import is_relay
from edged.roles.relay_links import RelayLinks
from edged.roles.wanted_rungs import WantedRungs
from edged.runtime.faults import contained
from edged.runtime.metrics import Metrics, MetricSpec, Sample
from edged.runtime.pump import Pump
from edged.runtime.supervision import Supervisor

TICK_S = 0.1
LATE_S_MAX = 0.3  # Later than this we have slept, and what came meanwhile may lie unread.
MEASURE_S = 5.0
GUESS_MBPS = 10.0  # Of a channel that nothing is known of yet: all its renditions.
AGAIN_S = 1.0  # And as much again by chance: until one that did not get where it went goes again.

SPECS = (
    MetricSpec(
        name="edged_reach_relayed", help="Channels that another PoP relays here.", labels=("role",)
    ),
    MetricSpec(
        name="edged_reach_relays", help="Subscriptions of other PoPs here.", labels=("role",)
    ),
    MetricSpec(
        name="edged_reach_changes_total",
        help="Channels that went to a relay, or back to their origin, by why.",
        labels=("role", "to", "why"),
    ),
    MetricSpec(
        name="edged_reach_relays_refused_total",
        help="Subscriptions of other PoPs that were refused.",
        labels=("role",),
    ),
)

logger = structlog.get_logger("edged.pop")


class Parts(Protocol):
    """`PartsIn`, as far as it is asked here."""

    def go(self, channel: str) -> None:
        """Take a channel from where it is to come from by now."""

    def sources(self, channel: str) -> tuple[str, ...]:
        """Who brings it, the next one first."""

    def priority(self, channel: str) -> PriorityClass | None:
        """Of the session that the first of these brings it by."""

    def received(self, channel: str) -> int:
        """How many events the first of these has brought, of a replay that is not whole too."""

    def want_rungs(self, channel: str, rungs: tuple[str, ...] | None) -> None:
        """Have these pushed alone, by all who bring it."""


class SourceSeen(Struct, frozen=True, kw_only=True):
    """Where a channel comes from, that a relay is ordered for or brings: for people."""

    channel: str
    source: str  # "ams1/0", or an origin; "": it is not here.
    ordered: str  # "": it is to come from its origin.
    why: str  # Why it does not come from where it is ordered to.


class _Taker:
    """Takes what a relay brings of one channel."""

    def __init__(self, relay: str, now: Callable[[], float]) -> None:
        self.relay = relay
        self.take: OnEvent = _drop
        self.progress = Progress(now())
        self._now = now

    def __call__(self, stream_id: StreamId, event: PackagedEvent) -> None:
        self.progress.took(stream_id.publication, event, self._now())
        self.take(stream_id, event)


class Relaying:
    """Of one PoP shard; the `Relays` of its parts."""

    def __init__(  # noqa: PLR0913 -- each by its name
        self,
        config: PopReachConfig,
        orders: ReachOrders,
        parts: Parts,
        *,
        channels: Callable[[], Mapping[str, Channel]],
        origin_of: Callable[[str], str],
        origin_ms: Callable[[str], float | None],
        pump: Pump,
        local: LocalEnd,
        fence: Fence,
        client_tls: ssl.SSLContext | None,
        server_tls: ssl.SSLContext | None,
        supervisor: Supervisor,
        rng: random.Random | None = None,
        now: Callable[[], float] = trio.current_time,
    ) -> None:
        """`channels`: of playback; `origin_of`: where the newest run of a channel is, or ""."""
        self.draining = False
        self.address = ""  # Where other PoPs reach us; "": nowhere.
        self._config, self._orders, self._parts = config, orders, parts
        self._channels, self._origin_of, self._origin_ms = channels, origin_of, origin_ms
        self._now, self._supervisor = now, supervisor
        self._rng = rng or random.Random()  # noqa: S311 - spreads what is done, keeps no secret
        self.choice = RelayChoice(self._rng, config.relayed_max)
        self._pace = Pace(config.changes_per_s)
        self.links = RelayLinks(
            pump, local, fence, tls=client_tls, supervisor=supervisor, rng=self._rng
        )
        self.links.on_changed = self._wake
        self._chosen: dict[str, str] = {}  # Channel -> the relay that it is to come from.
        self._takers: dict[tuple[str, str], _Taker] = {}  # By channel and relay.
        self._went: dict[str, tuple[str, float]] = {}  # Whither last, and when it may go again.
        self._failed: dict[str, str] = {}  # Channels that leave a relay that fails them, and why.
        # Of channels that come here, by publication and rendition: what origins say of theirs.
        self._oldest: dict[str, tuple[int, dict[str, int]]] = {}
        self._why: dict[str, str] = {}  # Of those that do not come from where they are ordered to.
        self._changes: Counter[tuple[str, str]] = Counter()
        self._mbps_out, self._measured_at = 0.0, -math.inf
        self._measured = 0  # Subscriptions, when that was measured.
        self._woken = trio.Event()
        self.wanted = WantedRungs(orders, channels=channels, push=parts.want_rungs, now=now)
        self.server: RelayServer | None = None
        if config.listen is not None:
            self.server = RelayServer(pump, self, local=local, listen=config.listen, tls=server_tls)
            self.server.on_rungs, self.wanted.server = self.wanted.changed, self.server

    def reconfigure(self, config: PopReachConfig) -> None:
        """Go by other limits; the listener stays as it is."""
        self._config = config
        self.choice.relayed_max, self._pace.per_s = config.relayed_max, config.changes_per_s

    async def run(self, *, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen, link and choose until cancelled; starts with the address bound, or ""."""
        async with trio.open_nursery() as nursery:
            self.links.nursery = nursery
            bound = ""
            if self.server is not None:
                bound = await self._supervisor.start(nursery, "relay listener", self.server.run)
                self.address = self._config.address or bound
            task_status.started(bound)
            await self._supervisor.keep("relays", self._run_ticks)

    def _wake(self) -> None:
        self._woken.set()

    async def _run_ticks(self) -> None:
        while True:
            due = self._now() + TICK_S
            with trio.move_on_at(due):
                await self._woken.wait()
            self._woken = trio.Event()
            now = self._now()
            if now > due + LATE_S_MAX:
                for taker in self._takers.values():
                    taker.progress.slept(now)
            self.tick(now)

    def tick(self, now: float) -> None:
        """Leave what fails, and come nearer to what is ordered."""
        self.choice.expire(now)
        in_force = {} if self.draining else self._orders.in_force(now)
        orders = {name: order for name, order in in_force.items() if order.via}
        used = {relay for _, relay in self._takers}  # One that is being left brings until then.
        wanted = dict.fromkeys(order.via for order in orders.values())
        self.links.keep(wanted, self._orders.relays, used, now)
        self._find_failed(now)
        self._change(self._find_changes(orders, now), now)
        self.wanted.look(now)
        if now >= self._measured_at + MEASURE_S:
            self._measured_at, self._mbps_out = now, self._measure()

    # What parts ask (`Relays`).

    def source(self, channel: str) -> str:
        """Which relay a channel is to come from; "": its origin."""
        return self._chosen.get(channel, "")

    def rungs(self, channel: str) -> tuple[str, ...] | None:
        """Which rungs of it are to be pushed here; None: all."""
        return self.wanted.rungs(channel)

    def taker(self, channel: str, relay: str, take: OnEvent) -> OnEvent:
        """What takes what comes from a relay, and hands it on."""
        known = self._takers.get((channel, relay))
        if known is None:
            known = self._takers[channel, relay] = _Taker(relay, self._now)
        known.take = take
        return known

    def ended(self, channel: str, relay: str, why: str) -> None:
        """A relay brings a channel no more, by its own word."""
        self._avoid(relay, channel, why, self._now())
        if self._chosen.get(channel) == relay:
            del self._chosen[channel]
            self._changes["origin", "refused"] += 1

    def stays(self, channel: str, source: str) -> None:
        """Nothing has come of the next one: it comes from where it came from before."""
        if is_relay(source):
            self._chosen[channel] = source
        else:
            self._chosen.pop(channel, None)

    def shown(self, stream_id: StreamId, events: list[PackagedEvent]) -> None:
        """Playback has these now."""
        if self.server is not None:
            with contained(logger, "parts not relayed", channel=stream_id.channel):
                self._note_oldest(stream_id, events)
                self.server.publish(stream_id, events)

    def gone(self, channel: str, reason: str) -> None:
        """Nothing more of a channel comes here."""
        if self.server is not None:
            self._oldest.pop(channel, None)
            self.server.end(channel, "gone", reason[:200])

    # What the relay server asks (`RelayHost`).

    def why_not(self, channel: str) -> str:
        """Why a channel is not relayed to one more PoP now; "" if it is."""
        assert self.server is not None, "who asks is a client of it"
        if self.draining:
            return "the PoP drains"
        if self.server.subscriptions >= self._config.relays_max:
            return f"{self._config.relays_max} subscriptions of PoPs are open"
        mbps = self._mbps_out + self._granted_mbps(channel)
        if mbps >= self._config.relay_mbps_max:
            return f"{mbps:.0f} Mbps are relayed already"
        sources = (*self._parts.sources(channel), self._chosen.get(channel, ""))
        if not sources[0]:
            return "it is not here"
        relay = next(filter(is_relay, sources), "")
        return f"it is taken from {relay} itself" if relay else ""

    def replay(
        self, channel: str, *, lists: bool, cold: bool
    ) -> tuple[StreamId, list[PackagedEvent]] | None:
        """What a late subscriber of a channel gets first."""
        oldest = self._oldest.get(channel, (-1, {}))[1]
        return replay_of(self._channels().get(channel), oldest, lists=lists, cold=cold)

    def _note_oldest(self, stream_id: StreamId, events: list[PackagedEvent]) -> None:
        for event in events:
            if isinstance(event, SegmentsListed):
                known = self._oldest.get(stream_id.channel)
                if known is None or known[0] != stream_id.publication:
                    known = self._oldest[stream_id.channel] = (stream_id.publication, {})
                known[1][event.rendition] = event.oldest_msn

    # What people and IRS are told.

    @property
    def relays_max(self) -> int:
        """Subscriptions of other PoPs that are taken; 0 while none are."""
        return 0 if self.draining or self.server is None else self._config.relays_max

    def peers(self) -> dict[str, float]:
        """Measured round trips to PoPs that relay."""
        return self.links.peers()

    def avoided(self) -> dict[str, str]:
        """Relays that are not gone to for a while, and why."""
        return dict(self.choice.avoided(self._now()))

    def relayed_on(self) -> dict[str, int]:
        """Channels that go from here to other PoPs, and to how many."""
        return {} if self.server is None else self.server.counts()

    def brings(self, channel: str) -> str:
        """Who brings a channel here; "": nobody."""
        return next(iter(self._parts.sources(channel)), "")

    def origin(self, channel: str) -> tuple[str, float | None]:
        """Where a channel is live, and how far that is."""
        origin = self._origin_of(channel)
        return origin, self._origin_ms(origin) if origin else None

    def rungs_pushed(self, channel: str) -> tuple[str, ...] | None:
        """Which of its rungs are pushed here; None: all."""
        return self.wanted.seen(channel)

    def seen(self) -> list[SourceSeen]:
        """Each channel that comes from a relay, or is ordered to."""
        orders = self._orders.in_force(self._now())
        ordered = {name: order.via for name, order in orders.items() if order.via}
        return [
            SourceSeen(
                channel=channel,
                source=next(iter(self._parts.sources(channel)), ""),
                ordered=ordered.get(channel, ""),
                why=self._why.get(channel, ""),
            )
            for channel in sorted(ordered.keys() | self._chosen.keys())
        ]

    def register(self, metrics: Metrics, *, role: str) -> None:
        """Have its state read at each scrape."""

        def read() -> list[Sample]:
            labels = {"role": role}
            server = self.server
            relays = 0 if server is None else server.subscriptions
            refused = 0 if server is None else server.refused
            return [
                Sample("edged_reach_relayed", len(self._chosen), labels),
                Sample("edged_reach_relays", relays, labels),
                Sample("edged_reach_relays_refused_total", refused, labels),
                *(
                    Sample("edged_reach_changes_total", count, {**labels, "to": to, "why": why})
                    for (to, why), count in self._changes.items()
                ),
            ]

        metrics.register(SPECS, read)

    # Choosing.

    def _find_failed(self, now: float) -> None:
        """Find what has to leave a relay at once."""
        stalled: dict[str, list[str]] = {}
        brings: Counter[str] = Counter()
        for (channel, relay), taker in list(self._takers.items()):
            sources = self._parts.sources(channel)
            if relay not in sources:
                del self._takers[channel, relay]
                continue
            if relay != sources[0]:
                continue  # It is being left.
            brings[relay] += 1
            taker.progress.received(self._parts.received(channel), now)
            if not self.links.is_up(relay, self._parts.priority(channel)):
                whole = not self.links.is_up(relay, None)
                self._fail(relay, "" if whole else channel, "the way there was lost", now)
            elif taker.progress.is_stalled(now, alive=self.links.is_alive(relay, now)):
                stalled.setdefault(relay, []).append(channel)
            elif taker.progress.is_slow(now):
                self._fail(relay, channel, "parts of it are missing, or late", now)
        for relay, channels in stalled.items():
            if len(channels) == brings[relay] and not self.links.is_alive(relay, now):
                self._fail(relay, "", "nothing came from there any more", now)
            else:
                for channel in channels:
                    self._fail(relay, channel, "nothing came of it any more", now)

    def _fail(self, relay: str, channel: str, why: str, now: float) -> None:
        leave = [
            name
            for name, at in self._takers
            if at == relay and channel in ("", name) and name not in self._failed
            if self._source_now(name) == relay
        ]
        if leave:
            self._avoid(relay, channel, why, now)
            self._failed.update(dict.fromkeys(leave, why))

    def _source_now(self, channel: str) -> str:
        """Which relay brings a channel, or is to next; "": its origin. What was chosen may fail."""
        source = next(iter(self._parts.sources(channel)), "")
        return source if is_relay(source) else ""

    def _avoid(self, relay: str, channel: str, why: str, now: float) -> None:
        self.choice.avoid(relay, channel, why, now)
        logger.warning("relay is avoided", relay=relay, channel=channel or None, reason=why)

    def _find_changes(self, orders: Mapping[str, ReachOrder], now: float) -> dict[str, str]:
        """Where channels are to come from that come from elsewhere now."""
        changes: dict[str, str] = {}
        others = 0  # Of those before, which come from relays.
        self._why = {}
        brought = dict.fromkeys((*self._chosen, *(channel for channel, _ in self._takers)))
        for channel in [*brought, *(orders.keys() - brought.keys())]:
            order = orders.get(channel)
            wanted = "" if order is None else order.via
            if not self._parts.sources(channel):
                self._chosen.pop(channel, None)  # Nobody watches it; it begins at its origin.
                self._why[channel] = "it is not here"
                continue
            if wanted:
                facts = self._facts(channel, wanted)
                why = self.choice.why_not(channel, wanted, facts, now, others=others)
                if why:
                    self._why[channel], wanted = why, ""
            others += bool(wanted)
            if wanted != self._source_now(channel):
                changes[channel] = wanted
        self._failed = {name: why for name, why in self._failed.items() if name in changes}
        self._went = {name: known for name, known in self._went.items() if now < known[1]}
        return changes

    def _facts(self, channel: str, relay: str) -> RelayFacts:
        return RelayFacts(
            is_up=self.links.is_up(relay, self._parts.priority(channel)),
            ms=self.links.ms(relay),
            origin_ms=self._origin_ms(self._origin_of(channel)),
            relayed_on=0 if self.server is None else self.server.count(channel),
            down_why=self.links.down_why(relay),
        )

    def _change(self, changes: Mapping[str, str], now: float) -> None:
        """Make as many as may be, those that fail and are watched first, the rest by chance."""
        order = sorted(changes)
        self._rng.shuffle(order)
        channels = self._channels()

        def rank(name: str) -> tuple[bool, int]:
            channel = channels.get(name)
            viewers = 0 if channel is None else channel.count.viewers(now)
            return name not in self._failed, -viewers

        for channel in sorted(order, key=rank):
            failed = self._failed.get(channel)
            if failed is None and len(self._parts.sources(channel)) > 1:
                continue  # It is just being handed over.
            relay = changes[channel]
            whither, again_at = self._went.get(channel, ("", -math.inf))
            if whither == relay and now < again_at:
                continue  # There it did not get.
            if not self._pace.take(now):
                self._why[channel] = "so many changes at a time"
                return
            self._failed.pop(channel, None)
            self._went[channel] = (relay, now + AGAIN_S * (1 + self._rng.random()))
            if relay:
                self._chosen[channel] = relay
            else:
                self._chosen.pop(channel, None)
            cause = "ordered" if failed is None else "failed"
            self._changes["relay" if relay else "origin", cause] += 1
            logger.info("channel goes", channel=channel, to=relay or "its origin", why=cause)
            with contained(logger, "channel failed to go", channel=channel):
                self._parts.go(channel)

    def _granted_mbps(self, channel: str) -> float:
        """What those that were taken since the last measurement may come to."""
        assert self.server is not None, "who asks is a client of it"
        more = self.server.subscriptions - self._measured
        if more <= 0:
            return 0.0
        known = self._channels().get(channel)
        this = 0.0 if known is None else read_mbps([known])
        usual = self._mbps_out / self._measured if self._measured else 0.0
        return more * (max(this, usual) or GUESS_MBPS)

    def _measure(self) -> float:
        self._measured = 0 if self.server is None else self.server.subscriptions
        channels, counts = self._channels(), self.relayed_on()
        return sum(
            count * read_mbps([channels[name]])
            for name, count in counts.items()
            if name in channels
        )


def _drop(stream_id: StreamId, event: PackagedEvent) -> None:
    """Until it is said who takes it."""
