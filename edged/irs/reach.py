"""IRS's side of reach: PoPs tell what is watched, and are told what to hold, and to take from whom.

Nothing is planned before those that are here have told, or have had time to: an IRS that has just
taken over leaves all as it is until then, and goes on from what PoPs say that they do.
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Set
from typing import TYPE_CHECKING, Protocol

import structlog
import trio

from edged.irs.reach_seen import PopWay, ReachAnswer, ReachSeen, Told, count_reach, find_ways
from edged.media.reach import Audience, AudienceRow, Reach
from edged.policy.link_map import LinkMap
from edged.policy.network_sample import NetworkMap, Pair, Row
from edged.policy.reach_config import ReachConfig
from edged.runtime.metrics import MetricSpec, Sample
from edged.wire.irs_link import IrsLink
from edged.wire.table import POPS_MAX

if TYPE_CHECKING:
    from edged.policy.reach import ReachPlanner
    from edged.policy.reach_plan import ChannelReach, Matrix, ReachPlan, ReachPop

WAIT_S_MAX = 15.0  # For PoPs that are here and do not tell.
KEPT_S = 30.0  # What a PoP told holds so long after its session: it serves all the same.
IDLE_S = 5.0  # Between looks whether there is anything to plan.
STEP_CHANNELS = 10  # Planned at a time: some 2 ms of the loop, of 100 PoPs.
DISTANCES_S = 30.0  # For which round trips between PoPs are taken to stay as they are.
SEEN_MAX = 1000  # Channels shown.

METRICS = (
    MetricSpec(name="edged_irs_reach_channels", help="Channels that have replicas by plan"),
    MetricSpec(name="edged_irs_reach_replicas", help="Replicas of channels by plan"),
    MetricSpec(name="edged_irs_reach_relayed", help="Channels at PoPs that another relays"),
    MetricSpec(name="edged_irs_reach_viewers", help="Viewers of channels that have replicas"),
    MetricSpec(name="edged_irs_reach_covered", help="Of these, how many are near a replica"),
    MetricSpec(name="edged_irs_reach_plan_seconds", help="CPU time of the last plan"),
    MetricSpec(
        name="edged_irs_reach_hold_mbps",
        help="What replicas hold by plan that nobody watches there",
    ),
    MetricSpec(
        name="edged_irs_reach_moves_waiting", help="Replicas that are to end, beyond moves_max"
    ),
)

log = structlog.get_logger("edged.irs.reach")


class Session(Protocol):
    """What it needs of a PoP's session."""

    link: IrsLink

    def wake(self) -> None:
        """Something is to be sent."""


class ReachBoard:
    """Of one IRS. All but `run` is synchronous."""

    def __init__(
        self,
        sessions: Mapping[str, Session],
        config: ReachConfig | None,
        *,
        listeners: Callable[[], Set[str]],
        may: Callable[[], bool],
        epoch: Callable[[], int],
        origin_of: Callable[[str], str],
        origin_ms: Callable[[], Mapping[str, Mapping[str, float]]],
        backbone: Callable[[], tuple[NetworkMap, LinkMap]],
    ) -> None:
        """`listeners`: PoP shards that do what we say; `may`: whether this IRS is to say anything.

        `origin_ms`: of each PoP shard, round trips to origins. `config` None: nothing is planned.
        """
        self.config = config
        self._sessions, self._listeners, self._may, self._epoch = sessions, listeners, may, epoch
        self._origin_of, self._origin_ms, self._backbone = origin_of, origin_ms, backbone
        self._between: tuple[object, float, Matrix] | None = None  # Of what, and until when.
        self._told: dict[str, Told] = {}
        self._heard: set[str] = set()  # Of those that are here.
        self._number = 0
        self._planner: ReachPlanner | None = None
        self._began_at: float | None = None  # When this IRS began to ask.
        self._planned_at: float | None = None
        self._plan_s = 0.0

    def reconfigure(self, config: ReachConfig | None) -> None:
        """Plan otherwise from the next plan on; without a table orders expire."""
        self.config = config
        if self._planner is not None and config is not None:
            self._planner.config = config
        if config is None:
            self._begin_anew()

    def begun(self, key: str) -> None:
        """A PoP listens from now on, for the first time or again: it is told what holds."""
        self._heard.discard(key)
        if self.config is not None and key in self._listeners():
            self._send(key)

    def left(self, key: str) -> None:
        """A PoP's session has ended."""
        self._heard.discard(key)
        if (told := self._told.get(key)) is not None:
            told.left_at = trio.current_time()

    def told(self, key: str, audience: Audience) -> None:
        """A PoP tells what is watched there."""
        before, told = self._told.get(key), Told(audience)
        told.origin_ms = {} if before is None else before.origin_ms
        self._told[key] = told
        self._heard.add(key)

    async def run(self) -> None:
        """Plan and tell until cancelled."""
        while True:
            await trio.sleep(IDLE_S if self.config is None else self.config.interval_s)
            if self.config is None or not self._may():
                self._begin_anew()
                continue
            if self._is_ready(self.config):
                await self._plan(self.config)
            for key in self._reaching():
                self._send(key)

    def answer(self, channel: str = "") -> ReachAnswer:
        """What people ask."""
        plan = None if self._planner is None else self._planner.plan
        known = {} if plan is None else plan.channels
        chosen = [each for each in known.values() if channel in ("", each.channel)][:SEEN_MAX]
        now = trio.current_time()
        return ReachAnswer(
            enabled=self.config is not None,
            planned_s_ago=None if self._planned_at is None else round(now - self._planned_at, 1),
            waiting_for=sorted(set(self._reaching()) - self._heard) if self.config else [],
            channels=len(known),
            replicas=sum(len(each.replicas) for each in known.values()),
            relayed=sum(len(each.via) for each in known.values()),
            hold_mbps=0.0 if plan is None else round(plan.hold_mbps, 1),
            moves_waiting=0 if plan is None else plan.waiting,
            seen=[self._seen(each) for each in chosen],
        )

    def _seen(self, reach: "ChannelReach") -> ReachSeen:
        known = {pop: self._told.get(pop) for pop in (*reach.replicas, *reach.via)}
        far = {pop: told.origin_ms.get(reach.origin) for pop, told in known.items() if told}
        return ReachSeen(
            channel=reach.channel,
            origin=reach.origin,
            viewers=reach.viewers,
            covered=round(reach.covered),
            replicas=list(reach.replicas),
            via=reach.via,
            rungs=self._rungs(reach.channel),
            mbps={pop: round(mbps, 2) for pop, mbps in reach.mbps.items()},
            holds={pop: list(rungs) for pop, rungs in reach.rungs.items()},
            origin_ms={pop: round(ms, 1) for pop, ms in far.items() if ms is not None},
        )

    def ways(self, channel: str) -> list[PopWay]:
        """Each PoP that has a channel, or is to have it, and by which way; who holds it first."""
        plan = None if self._planner is None else self._planner.plan.channels.get(channel)
        return find_ways(channel, self._told, plan, self._origin_of(channel))

    def look(self) -> tuple[dict[str, Row], dict[Pair, int]]:
        """For the page: of each PoP a row (`REACH_ROW`); and channels from each PoP to another."""
        return count_reach(self._told, None if self._planner is None else self._planner.plan)

    def read_metrics(self) -> Iterable[Sample]:
        """Values of METRICS."""
        plan = None if self._planner is None else self._planner.plan
        known = [] if plan is None else list(plan.channels.values())
        yield Sample("edged_irs_reach_channels", len(known))
        yield Sample("edged_irs_reach_replicas", sum(len(each.replicas) for each in known))
        yield Sample("edged_irs_reach_relayed", sum(len(each.via) for each in known))
        yield Sample("edged_irs_reach_viewers", sum(each.viewers for each in known))
        yield Sample("edged_irs_reach_covered", sum(each.covered for each in known))
        yield Sample("edged_irs_reach_plan_seconds", self._plan_s)
        yield Sample("edged_irs_reach_hold_mbps", 0.0 if plan is None else plan.hold_mbps)
        yield Sample("edged_irs_reach_moves_waiting", 0 if plan is None else plan.waiting)

    def _reaching(self) -> list[str]:
        listeners = self._listeners()
        return [
            key
            for key, session in self._sessions.items()
            if key in listeners and session.link.reaches
        ]

    def _begin_anew(self) -> None:
        """What others say meanwhile, PoPs will tell."""
        self._planner = self._began_at = self._planned_at = None

    def _is_ready(self, config: ReachConfig) -> bool:
        now = trio.current_time()
        if self._began_at is None:
            self._began_at = now
        wait_s = max(WAIT_S_MAX, 3 * config.interval_s)
        missing = set(self._reaching()) - self._heard
        return self._planned_at is not None or not missing or now >= self._began_at + wait_s

    async def _plan(self, config: ReachConfig) -> None:
        """Plan in steps, between which the loop goes on; what is told meanwhile waits."""
        began = time.thread_time()
        planner = self._planner or self._load(config)
        pops = self._pops()
        links = self._backbone()[1].links
        planner.begin(
            pops,
            self._origins(),
            self._between_ms(pops),
            {key: link.mbps for link in links.values() for key in _directions(link.name)},
        )
        used_s = time.thread_time() - began
        while not planner.is_done:
            await trio.lowlevel.checkpoint()
            began = time.thread_time()
            planner.step(STEP_CHANNELS)
            used_s += time.thread_time() - began
        if self.config is config and self._may():
            before, plan = planner.plan, planner.finish()
            self._plan_s, self._planned_at = used_s, trio.current_time()
            self._planner = planner
            _note(before, plan)

    def _load(self, config: ReachConfig) -> "ReachPlanner":
        """The planner, with numpy: loaded when it is first needed, for IRS alone."""
        from edged.policy.reach import ReachPlanner  # noqa: PLC0415

        planner = ReachPlanner(config)
        planner.adopt(self._done_already())
        return planner

    def _done_already(self) -> "dict[str, ChannelReach]":
        """What PoPs hold and relay."""
        from edged.policy.reach_plan import ChannelReach  # noqa: PLC0415

        held: dict[str, list[tuple[int, str]]] = {}
        via: dict[str, dict[str, str]] = {}
        for key, told in sorted(self._told.items()):
            for row in told.rows.values():
                if row.held:
                    held.setdefault(row.channel, []).append((-row.viewers, key))
                elif row.via:
                    via.setdefault(row.channel, {})[key] = row.via
        return {
            channel: ChannelReach(
                channel=channel,
                origin=self._origin_of(channel),
                viewers=0,
                covered=0.0,
                replicas=tuple(key for _, key in sorted(of_channel)),
                via=via.get(channel, {}),
            )
            for channel, of_channel in held.items()
        }

    def _pops(self) -> "list[ReachPop]":
        from edged.policy.reach_plan import ReachPop  # noqa: PLC0415

        now, origin_ms = trio.current_time(), self._origin_ms()
        for key, told in list(self._told.items()):
            if told.left_at is not None and now >= told.left_at + KEPT_S:
                del self._told[key]
            told.origin_ms = origin_ms.get(key) or told.origin_ms
        return [
            ReachPop(
                pop=key,
                relay=told.audience.relay,
                relays_max=told.audience.relays_max,
                relay_mbps_max=_limit(told.audience.relay_mbps_max),
                holds_max=told.audience.holds_max,
                hold_mbps_max=_limit(told.audience.hold_mbps_max),
                ways=self._ways(key, told.origin_ms),
                origin_ms=told.origin_ms,
                audience=told.rows,
            )
            for key, told in sorted(self._told.items())
        ][:POPS_MAX]

    def _ways(self, key: str, origins: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """Which links, and which way, parts come by from each origin."""
        links, pop = self._backbone()[1], key.partition("/")[0]
        ways = {origin: links.way(pop, origin) for origin in origins} if links.links else {}
        return {
            origin: tuple(_directions(each.link)[each.forward] for each in way)
            for origin, way in ways.items()
            if way
        }

    def _origins(self) -> dict[str, str]:
        channels = {channel for told in self._told.values() for channel in told.rows}
        found = {channel: self._origin_of(channel) for channel in channels}
        return {channel: origin for channel, origin in found.items() if origin}

    def _between_ms(self, pops: "list[ReachPop]") -> "Matrix":
        from edged.policy.reach_distances import estimate_ms  # noqa: PLC0415

        known, now = self._backbone()[0], trio.current_time()
        measured = {
            (key, peer): ms
            for key, told in self._told.items()
            for peer, ms in told.audience.peers.items()
        }
        of = (known, [(pop.pop, frozenset(pop.origin_ms)) for pop in pops], measured.keys())
        if self._between is not None and self._between[0] == of and now < self._between[1]:
            return self._between[2]
        between = estimate_ms(
            pops,
            measured=measured,
            site_of_pop=known.site_of_pop,
            places={
                site.name: (site.latitude, site.longitude)
                for site in known.sites
                if site.latitude is not None and site.longitude is not None
            },
        )
        self._between = of, now + DISTANCES_S, between
        return between

    def _rungs(self, channel: str) -> dict[str, int]:
        rungs: dict[str, int] = {}
        for told in self._told.values():
            row: AudienceRow | None = told.rows.get(channel)
            for rung, viewers in ({} if row is None else row.rungs).items():
                rungs[rung] = rungs.get(rung, 0) + viewers
        return dict(sorted(rungs.items()))

    def _send(self, key: str) -> None:
        """All that a PoP is to do, or that it is to tell first."""
        session, config = self._sessions.get(key), self.config
        if session is None or config is None or not session.link.reaches:
            return
        orders, relays = None, {}
        if self._planner is not None and self._planned_at is not None:
            orders = self._planner.plan.orders.get(key, ())
            names = {order.via for order in orders if order.via}
            relays = {name: self._planner.plan.relays[name] for name in names}
        self._number += 1
        reach = Reach(
            epoch=self._epoch(),
            number=self._number,
            ttl_s=config.ttl_s,
            orders=orders,
            relays=relays,
        )
        session.link.tell_reach(reach, trio.current_time())
        session.wake()


def _limit(mbps: float | None) -> float:
    return math.inf if mbps is None else mbps


def _directions(link: str) -> tuple[str, str]:
    """Both ways of a link: towards its second end, and its first."""
    return f"{link} >", f"{link} <"


def _note(before: "ReachPlan", plan: "ReachPlan") -> None:
    """Say how much has changed."""
    names = before.channels.keys() | plan.channels.keys()
    pairs = [(before.channels.get(name), plan.channels.get(name)) for name in names]
    changed = [(was, now) for was, now in pairs if was is not now]
    was, now = _copies(each for each, _ in changed), _copies(each for _, each in changed)
    was_via, now_via = _relayed(each for each, _ in changed), _relayed(each for _, each in changed)
    if was != now or was_via != now_via:
        log.info(
            "reach is planned otherwise",
            replicas=sum(len(each.replicas) for each in plan.channels.values()),
            replicas_begun=len(now - was),
            replicas_ended=len(was - now),
            relayed=sum(len(each.via) for each in plan.channels.values()),
            relays_changed=len(was_via ^ now_via),
            moves_waiting=plan.waiting,
        )


def _copies(channels: "Iterable[ChannelReach | None]") -> set[tuple[str, str]]:
    return {(each.channel, pop) for each in channels if each is not None for pop in each.replicas}


def _relayed(channels: "Iterable[ChannelReach | None]") -> set[tuple[str, ...]]:
    return {
        (each.channel, *way) for each in channels if each is not None for way in each.via.items()
    }
