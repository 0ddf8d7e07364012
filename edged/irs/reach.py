"""IRS's side of reach: PoPs tell what is watched, and are told what to hold, and to take from whom.

Nothing is planned before those that are here have told, or have had time to: an IRS that has just
taken over leaves all as it is until then, and goes on from what PoPs say that they do.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Set
from typing import TYPE_CHECKING, Protocol

import structlog
import trio
from msgspec import Struct

from edged.media.reach import Audience, AudienceRow, Reach
from edged.policy.network_sample import NetworkMap
from edged.policy.reach_config import ReachConfig
from edged.runtime.metrics import MetricSpec, Sample
from edged.wire.irs_link import IrsLink
from edged.wire.table import POPS_MAX

if TYPE_CHECKING:
    from edged.policy.reach import ChannelReach, Matrix, ReachPlan, ReachPlanner, ReachPop

WAIT_S_MAX = 15.0  # For PoPs that are here and do not tell.
KEPT_S = 30.0  # What a PoP told holds so long after its session: it serves all the same.
IDLE_S = 5.0  # Between looks whether there is anything to plan.
STEP_CHANNELS = 20  # Planned at a time: 4 ms of the loop, of 100 PoPs.
SEEN_MAX = 1000  # Channels shown.

METRICS = (
    MetricSpec(name="edged_irs_reach_channels", help="Channels that have replicas by plan"),
    MetricSpec(name="edged_irs_reach_replicas", help="Replicas of channels by plan"),
    MetricSpec(name="edged_irs_reach_relayed", help="Channels at PoPs that another relays"),
    MetricSpec(name="edged_irs_reach_viewers", help="Viewers of channels that have replicas"),
    MetricSpec(name="edged_irs_reach_covered", help="Of these, how many are near a replica"),
    MetricSpec(name="edged_irs_reach_plan_seconds", help="CPU time of the last plan"),
)

log = structlog.get_logger("edged.irs.reach")


class Session(Protocol):
    """What it needs of a PoP's session."""

    link: IrsLink

    def wake(self) -> None:
        """Something is to be sent."""


class ReachSeen(Struct, frozen=True, kw_only=True):
    """One channel, for people."""

    channel: str
    origin: str
    viewers: int
    covered: int
    replicas: list[str]
    via: dict[str, str]
    rungs: dict[str, int]  # Viewers of each, at all PoPs.


class ReachAnswer(Struct, frozen=True, kw_only=True):
    """What is planned: `edged reach` where IRS runs."""

    enabled: bool
    planned_s_ago: float | None  # None: nothing is planned yet.
    waiting_for: list[str]  # PoP shards that have not told what is watched there.
    channels: int
    replicas: int
    relayed: int
    seen: list[ReachSeen]  # Those with the most viewers.


class _Told:
    """A PoP shard, as it told last."""

    def __init__(self, audience: Audience) -> None:
        self.audience = audience
        self.rows = {row.channel: row for row in audience.rows}
        self.left_at: float | None = None
        self.origin_ms: Mapping[str, float] = {}  # When it was planned for last.


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
        places: Callable[[], NetworkMap],
    ) -> None:
        """`listeners`: PoP shards that do what we say; `may`: whether this IRS is to say anything.

        `origin_ms`: of each PoP shard, round trips to origins. `config` None: nothing is planned.
        """
        self.config = config
        self._sessions, self._listeners, self._may, self._epoch = sessions, listeners, may, epoch
        self._origin_of, self._origin_ms, self._places = origin_of, origin_ms, places
        self._told: dict[str, _Told] = {}
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
        before, told = self._told.get(key), _Told(audience)
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
            seen=[
                ReachSeen(
                    channel=each.channel,
                    origin=each.origin,
                    viewers=each.viewers,
                    covered=round(each.covered),
                    replicas=list(each.replicas),
                    via=each.via,
                    rungs=self._rungs(each.channel),
                )
                for each in chosen
            ],
        )

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
        planner.begin(pops, self._origins(), self._between_ms(pops))
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
        from edged.policy.reach import ChannelReach  # noqa: PLC0415

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
        from edged.policy.reach import ReachPop  # noqa: PLC0415

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
                holds_max=told.audience.holds_max,
                origin_ms=told.origin_ms,
                audience=told.rows,
            )
            for key, told in sorted(self._told.items())
        ][:POPS_MAX]

    def _origins(self) -> dict[str, str]:
        channels = {channel for told in self._told.values() for channel in told.rows}
        found = {channel: self._origin_of(channel) for channel in channels}
        return {channel: origin for channel, origin in found.items() if origin}

    def _between_ms(self, pops: "list[ReachPop]") -> "Matrix":
        from edged.policy.reach_distances import estimate_ms  # noqa: PLC0415

        known = self._places()
        return estimate_ms(
            pops,
            measured={
                (key, peer): ms
                for key, told in self._told.items()
                for peer, ms in told.audience.peers.items()
            },
            site_of_pop=known.site_of_pop,
            places={
                site.name: (site.latitude, site.longitude)
                for site in known.sites
                if site.latitude is not None and site.longitude is not None
            },
        )

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


def _note(before: "ReachPlan", plan: "ReachPlan") -> None:
    """Say how much has changed."""
    was = {(each.channel, pop) for each in before.channels.values() for pop in each.replicas}
    now = {(each.channel, pop) for each in plan.channels.values() for pop in each.replicas}
    was_via = {(c, *way) for c, each in before.channels.items() for way in each.via.items()}
    now_via = {(c, *way) for c, each in plan.channels.items() for way in each.via.items()}
    if was != now or was_via != now_via:
        log.info(
            "reach is planned otherwise",
            replicas=len(now),
            replicas_begun=len(now - was),
            replicas_ended=len(was - now),
            relayed=len(now_via),
            relays_changed=len(was_via ^ now_via),
        )
