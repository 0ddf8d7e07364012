"""IRS in the simulator: what it knows is as old as the scenario says, what it does is production's.

    telemetry, heartbeats ── age_s later ──▶ plan_leases, FlowSolver ── 50 ms ──▶ every PoP

The bookkeeping around the plan follows `edged.irs.collectors` and `edged.irs.planner`: arrivals are
smoothed, refusals are votes against an origin, a change of an origin's state is planned for at
once. Links are known as they are, where `edged.policy.well` has to estimate: each that was ever
fuller than LINK_TOLD limits plans. Prices of links are not played.
Two things are done less often, with the same result: telemetry is collected when there is a
refusal in it or a plan to be made, not each second; and heartbeats are heard ten times a second
only while something happens, else once.
"""

from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct

from edged.media.routing import CLASSES, ByClass, OriginReport, OriginState, PopTelemetry
from edged.policy.capacitor import Capacitor, StateChanged
from edged.policy.flows import PLANS_PER_CHECKPOINT, LinkLimit
from edged.policy.planner import (
    ARRIVALS_SMOOTHING,
    OriginSupply,
    PopDemand,
    PopLeases,
    plan_leases,
    without_coming,
)
from edged.policy.pop_view import PopView
from edged.policy.solver import FlowSolver
from edged.tools.simulate.board import BUSY_S, TICK_S
from edged.tools.simulate.policy import Surroundings

TELEMETRY_S = 1.0
WARM_UP_S = 5.0  # After a start, before tables are replaced.
PUSH_S = 0.05  # From a plan to the PoPs; measured between real processes it takes less.
LINK_TOLD = 0.6  # Of its bandwidth: below it a link limits nothing.

Leases = dict[str, PopLeases]  # By PoP.


class Known(Struct, frozen=True):
    """What IRS knew at one moment."""

    supplies: list[OriginSupply]
    demands: list[PopDemand]
    links: tuple[LinkLimit, ...]
    at: float


class IrsModel:
    """One IRS."""

    def __init__(
        self,
        around: Surroundings,
        views: Sequence[PopView],
        accept: Callable[[Leases, Known, float], None],
    ) -> None:
        """`accept(leases, known, now)` is called when a plan has reached the PoPs."""
        self._around, self._views, self._accept = around, views, accept
        self._config = around.scenario.irs
        self.age_s = self._config.telemetry_age_s
        self.capacitor = Capacitor()
        self.alive = True
        self.coming: Callable[[float], Mapping[str, int]] = lambda _known_at: {}  # To origins.
        self.plans = self.fallbacks = 0
        self._solver = FlowSolver()
        self._told_links: set[str] = set()
        self._life = 0  # Which start of it; what was under way in another is lost.
        self._last: list[OriginReport] = []
        self._heard_at = self._told_at = self._busy_until = float("-inf")
        self._arrivals: dict[str, float] = {}
        self._rates: dict[str, float] = {}
        self._rated_at = 0.0
        self._domains = {origin.name: origin.domain for origin in around.world.origins}

    def begin(self, now: float) -> None:
        """Plan as soon as every origin was heard, then at the interval."""
        self._busy_until = now + BUSY_S
        self._rated_at = now
        life = self._life
        self._around.call_at(now + 3 * TICK_S, lambda: self._look(now + 3 * TICK_S, life))

    def tick(self, now: float, heard: list[OriginReport], refused: set[int]) -> None:
        """Hear heartbeats and telemetry; `refused` are PoPs (by number) that have to complain."""
        self._last = heard
        if not self.alive:
            refused.clear()
            return
        changes: list[StateChanged] = []
        if now < self._busy_until or now - self._heard_at >= TELEMETRY_S - TICK_S / 2:
            changes += self._hear(now)
        if now - self._told_at >= TELEMETRY_S - TICK_S / 2:
            self._told_at = now
            for pop in sorted(refused):
                changes += self._collect(self._views[pop], now)[1]
            refused.clear()
        if changes:
            self._busy_until = now + BUSY_S
            self._snapshot(now, self._life)

    def catch_up(self, now: float) -> None:
        """Hear everything up to now, and each heartbeat from now on."""
        if self.alive and now >= self._busy_until:
            for report in self._last:
                self.capacitor.heartbeat(report, self._around.board.heard_at)
        self._busy_until = now + BUSY_S

    def set_alive(self, now: float, *, alive: bool) -> None:
        """Die, or start with nothing known."""
        self.alive = alive
        self._life += 1
        if not alive:
            return
        self.capacitor = Capacitor()
        self._solver = FlowSolver()
        self._arrivals, self._rates = {}, {}
        self._told_links = set()
        for view in self._views:
            view.take_telemetry()  # What was told to nobody.
        self._rated_at, self._busy_until = now, now + BUSY_S
        life = self._life
        self._around.call_at(now + WARM_UP_S, lambda: self._look(now + WARM_UP_S, life))

    def _hear(self, now: float) -> list[StateChanged]:
        changes: list[StateChanged] = []
        for report in self._last:
            changes += self.capacitor.heartbeat(report, now)
        if now >= self.capacitor.next_timeout() - TICK_S / 100:
            changes += self.capacitor.handle_timeout(now)
        self._heard_at = now
        return changes

    def _collect(self, view: PopView, now: float) -> tuple[PopTelemetry, list[StateChanged]]:
        """Take a PoP's telemetry; its bad experiences are votes."""
        told = view.take_telemetry()
        self._arrivals[view.pop] = self._arrivals.get(view.pop, 0.0) + told.arrivals
        changes: list[StateChanged] = []
        for counts, refused in ((told.refusals, True), (told.timeouts, False)):
            for origin in counts:
                changes += self.capacitor.vote_against(
                    origin, view.pop, voters=len(self._views), now=now, refused=refused
                )
        return told, changes

    def _look(self, now: float, life: int) -> None:
        """Take a snapshot at each interval."""
        if life != self._life:
            return
        self._snapshot(now, life)
        after = now + self._config.push_interval_s
        self._around.call_at(after, lambda: self._look(after, life))

    def know(self, now: float) -> Known:
        """Collect everything that PoPs and origins tell."""
        told = {}
        for view in self._views:
            told[view.pop], _ = self._collect(view, now)  # What votes decide is planned for here.
        self._rate(now)
        demands = [
            PopDemand(
                pop=f"{pop}/0",
                units=each.units,
                arrivals_per_s=self._rates.get(pop, 0.0),
                rtt_ms={origin: probe.rtt_ms for origin, probe in each.probes.items()},
            )
            for pop, each in told.items()
        ]
        return Known(self._supplies(now), demands, self._links(), now)

    def _snapshot(self, now: float, life: int) -> None:
        """Keep what is known now, to be planned with when it is as old as that is."""
        state = self.know(now)
        ready = now + self.age_s + PUSH_S
        self._around.call_at(ready, lambda: self._push(state, ready, life))

    def _push(self, state: Known, now: float, life: int) -> None:
        if life == self._life:
            self.plan(state, now)

    def plan(self, state: Known, now: float) -> None:
        """Plan, and push what comes of it."""
        if self.plans % PLANS_PER_CHECKPOINT == 0:
            self._solver.restart()
        plan = plan_leases(
            without_coming(state.supplies, self.coming(state.at)),
            state.demands,
            reserve_fraction=self._config.reserve_fraction,
            solve=self._solver.solve,
            horizon_s=self._config.lease_ttl_s,
            links=state.links,
        )
        self.plans += 1
        self.fallbacks += bool(plan.failure)
        leases = {key.partition("/")[0]: each for key, each in plan.leases.items()}
        self._accept(leases, state, now)

    def _links(self) -> tuple[LinkLimit, ...]:
        """The links that count, with the part of them that may be used."""
        most = self._config.link_use_max
        if not most:
            return ()
        links = self._around.links()
        self._told_links.update(name for name, link in links.items() if link.load > LINK_TOLD)
        return tuple(
            LinkLimit(
                name=name,
                mbps=most * links[name].mbps,
                mbps_per_unit=links[name].mbps_per_unit,
                pairs=links[name].pairs,
            )
            for name in sorted(self._told_links & links.keys())
        )

    def _rate(self, now: float) -> None:
        """Smooth arrivals as if they had been told each second."""
        passed_s = now - self._rated_at
        if passed_s < TELEMETRY_S / 2:
            return
        weight = 1 - (1 - ARRIVALS_SMOOTHING) ** (passed_s / TELEMETRY_S)
        for view in self._views:
            rate = self._arrivals.pop(view.pop, 0.0) / passed_s
            before = self._rates.get(view.pop, 0.0)
            self._rates[view.pop] = before + weight * (rate - before)
        self._rated_at = now

    def _supplies(self, now: float) -> list[OriginSupply]:
        supplies = []
        for name in self.capacitor.origins:
            report, state = self.capacitor.report(name), self.capacitor.state(name)
            assert report is not None, "it was heard"
            supplies.append(
                OriginSupply(
                    origin=name,
                    address=f"{name}:1940",
                    state=state or OriginState.DOWN,
                    slots_total=report.slots_total,
                    room=self._room(name, now),
                    domain=self._domains[name],
                )
            )
        return supplies

    def _room(self, origin: str, now: float) -> ByClass:
        partner, affiliate, basic = (
            self.capacitor.room(origin, priority, now) for priority in CLASSES
        )
        return (partner, affiliate, basic)
