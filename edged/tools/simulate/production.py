"""Production's own policies: a `PopView` for each PoP, which chooses by `choose_origin`.

`price`: no IRS; each PoP decides by the origins' heartbeats. `leases`: IRS pushes tables.

All views share one `Capacitor`, fed by the `Board`: they hear the same, so each would believe the
same. What a PoP alone knows is its own: what it placed, holds after refusals, its sessions, paths.
"""

import math

from edged.errors import RouteUnavailableError
from edged.media.routing import OriginReport, OriginRow, OriginState, RouteRequest, RoutingTable
from edged.media.stream import PriorityClass
from edged.policy.capacitor import StateChanged
from edged.policy.planner import PopLeases
from edged.policy.pop_view import PopView
from edged.policy.routing_table import choose_origin
from edged.tools.simulate.irs import IrsModel, Known
from edged.tools.simulate.policy import NOWHERE, Policy, Surroundings
from edged.tools.simulate.streams import Stream

REQUESTS = [RouteRequest(channel="simulated", priority=priority) for priority in PriorityClass]


def channel_of(stream: Stream) -> str:
    """Its channel: each stream has one of its own."""
    return stream.stream_id.channel


def request_of(stream: Stream) -> RouteRequest:
    """What its PoP places."""
    return RouteRequest(channel=channel_of(stream), priority=stream.priority)


class Price(Policy):
    """By price alone."""

    retries = True

    def __init__(self, around: Surroundings) -> None:
        super().__init__(around)
        self._places = {name: place for place, name in enumerate(self.origins)}
        self.views = [PopView(name) for name in self.pops]
        # By origin: PoPs that have placed there what its last heartbeat may not know of.
        self.placed_since: dict[str, list[PopView]] = {name: [] for name in self.origins}
        self._refused: set[int] = set()  # PoPs that were, since they told IRS.

    def begin(self, now: float) -> None:
        """Every PoP has its sessions, has measured its paths, and a table without leases."""
        config, around = self.around.scenario.irs, self.around
        rows = [
            OriginRow(
                origin.name,
                f"{origin.name}:1940",
                OriginState.UP,
                reserve=math.ceil(slots * config.reserve_fraction),
                domain=origin.domain,
            )
            for origin, slots in zip(around.world.origins, around.slots, strict=True)
        ]
        rows.sort(key=lambda row: row.origin)
        table = RoutingTable(
            epoch=0,
            version=1,
            issued=0.0,
            ttl_s=config.table_ttl_s,
            lease_ttl_s=0.0,
            rows=tuple(rows),
        )
        for view, rtt_ms in zip(self.views, around.rtt_ms, strict=True):
            view.capacitor = around.board.capacitor
            for name, rtt in zip(self.origins, rtt_ms, strict=True):
                view.set_link(name, up=True, now=now)
                if math.isfinite(rtt):
                    view.observe_rtt(name, rtt)
            view.accept_table(table, now)

    def choose(self, stream: Stream, now: float) -> int:
        """As production does."""
        view, request = self.views[stream.pop], REQUESTS[stream.priority]
        try:
            decision = choose_origin(request, view, now)
        except RouteUnavailableError:
            view.note_request(request, placed=False)
            return NOWHERE
        return self._places[decision.origin]

    def offered(self, stream: Stream) -> None:
        """Count it, for telemetry too."""
        view, request = self.views[stream.pop], request_of(stream)
        name = self.origins[stream.origin]
        view.note_request(request, placed=True)
        view.placed(name, request)
        self.placed_since[name].append(view)

    def released(self, stream: Stream) -> None:
        """Count it no more."""
        self.views[stream.pop].released(self.origins[stream.origin], request_of(stream))

    def accepted(self, stream: Stream) -> None:
        """The next hold of its class begins short."""
        view = self.views[stream.pop]
        view.accepted(self.origins[stream.origin], channel_of(stream), stream.priority)

    def refused(self, stream: Stream, now: float, *, drains: bool) -> None:
        """Hold the origin, and tell IRS with the next telemetry."""
        priority = PriorityClass.PARTNER if drains else stream.priority
        name = self.origins[stream.origin]
        self.views[stream.pop].refused(name, now, priority=priority)
        self._refused.add(stream.pop)

    def unanswered(self, stream: Stream, now: float) -> None:
        """The same, as a time-out."""
        self.views[stream.pop].timed_out(self.origins[stream.origin], now)
        self._refused.add(stream.pop)

    def link_changed(self, pop: int, origin: int, now: float, *, up: bool) -> None:
        """Nothing goes where there is no session."""
        self.views[pop].set_link(self.origins[origin], up=up, now=now)

    def rtt_measured(self, pop: int, origin: int, rtt_ms: float) -> None:
        """The view smooths it."""
        self.views[pop].observe_rtt(self.origins[origin], rtt_ms)

    def tick(self, now: float, heard: list[OriginReport], changes: list[StateChanged]) -> None:
        """What `PopView.heartbeat` and `handle_timeout` do beside the shared Capacitor."""
        for report in heard:
            if placed := self.placed_since[report.origin]:
                self.placed_since[report.origin] = still = []
                for view in dict.fromkeys(placed):
                    candidate = view.by_name.get(report.origin)
                    if candidate is not None and candidate.heard():
                        still.append(view)
        if changes:
            for view in self.views:
                view.refresh(now)


class Leases(Price):
    """By leases that IRS pushes; where they do not reach, by price."""

    def __init__(self, around: Surroundings) -> None:
        super().__init__(around)
        self.irs = IrsModel(around, self.views, self._accept)
        self._version = 1

    def begin(self, now: float) -> None:
        """IRS has heard every origin once when it plans first."""
        super().begin(now)
        self.irs.begin(now)

    def tick(self, now: float, heard: list[OriginReport], changes: list[StateChanged]) -> None:
        """IRS hears the same."""
        super().tick(now, heard, changes)
        self.irs.tick(now, heard, self._refused)

    def about_to_change(self, now: float) -> None:
        """IRS hears at a slower pace while nothing happens; not now."""
        self.irs.catch_up(now)

    def irs_changed(self, now: float, *, up: bool) -> None:
        """It dies with all that it knows."""
        self.irs.set_alive(now, alive=up)

    def telemetry_aged(self, age_s: float) -> None:
        """Plans are made of older states."""
        self.irs.age_s = age_s

    def _accept(self, leases: dict[str, PopLeases], known: Known, now: float) -> None:
        del known
        self._version += 1
        config = self.around.scenario.irs
        for view in self.views:
            planned = leases.get(view.pop)
            if planned is not None and planned.rows:
                table = RoutingTable(
                    epoch=1,
                    version=self._version,
                    issued=0.0,
                    ttl_s=config.table_ttl_s,
                    lease_ttl_s=config.lease_ttl_s,
                    rows=planned.rows,
                    kept=planned.kept,
                )
                view.accept_table(table, now)
