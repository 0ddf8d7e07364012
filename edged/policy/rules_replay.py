"""What other rules would do: a snapshot's streams placed anew, once by each set of rules.

All are placed from nothing, in the order in which they came, by the code that PoPs place with; each
origin admits by its slots, as far as they are not others' than the snapshot's. So what differs
between two replays is the rules' doing, and nothing else.
"""

from collections import deque
from collections.abc import Sequence

from msgspec import Struct

from edged.errors import PublishRefusedError, RouteUnavailableError
from edged.media.routing import (
    OriginReport,
    OriginState,
    ReportedState,
    RouteRequest,
    RoutingTable,
    Rule,
)
from edged.media.stream import PriorityClass, StreamId
from edged.policy.pop_view import PopView
from edged.policy.routing_table import choose_origin
from edged.policy.rules import label
from edged.policy.rules_snapshot import OriginTaken, PopTaken, RulesSnapshot, StreamTaken
from edged.policy.slots import Slots

ATTEMPTS_MAX = 8  # Of one stream; a publisher would be told by then.
STEP_S = 0.1  # From one stream to the next: heartbeats come meanwhile, and holds run out.
FOREVER_S = 1e8  # Of leases and states, which do not expire under our hands.


class Outcome(Struct, frozen=True, kw_only=True):
    """What becomes of one stream. `origin`: "" when it is refused; `why` says so then."""

    pop: str
    channel: str
    priority: PriorityClass
    now_at: str  # Where it is.
    origin: str
    how: str = ""  # The mechanism, as `Decision.rule`.
    matched: str = ""
    rtt_ms: float | None = None
    why: str = ""


class _Stream(Struct, frozen=True):
    key: str  # Channels may be live at two PoPs, if one of the snapshots is older.
    pop: str
    taken: StreamTaken


class _Origin:
    """What an origin has for the snapshot's streams."""

    def __init__(self, name: str, seen: Sequence[OriginTaken], ours: int) -> None:
        self.name = name
        self.changes = 0
        heard = [each for each in seen if each.report is not None]
        if heard:  # The least free: it is the newest of a crowd that grows, and promises least.
            report = min((each.report for each in heard if each.report), key=_partner_free)
            states = {each.state for each in heard}
            free, basic = report.slots_free[0], report.slots_free[-1]
            reserve = (
                max(0, free - basic) if basic else max(0, *(each.row.reserve for each in seen))
            )
            source_only = report.source_only_free
            self.state = _as_believed(report.state, states)
        else:
            free = sum(max(0, each.row.quota - each.used) for each in seen)
            reserve, source_only, self.state = 0, 0, ReportedState.UP
        total = min(ours + free, report.slots_total) if heard else ours + free
        self.slots = Slots(total, min(reserve, total), source_only)
        self.is_heard = bool(heard)

    def report(self) -> OriginReport:
        """Its heartbeat."""
        free = [self.slots.free(priority) for priority in PriorityClass]
        return OriginReport(
            self.name,
            1,
            self.state,
            self.slots.total,
            (free[0], free[1], free[2]),
            source_only_free=self.slots.source_only_free,
            preemptible=self.slots.preemptible(),
        )


class _World:
    """The network of a snapshot, empty at first."""

    def __init__(self, snapshot: RulesSnapshot, rules: Sequence[Rule] | None) -> None:
        self.now = 0.0
        self.origins = _make_origins(snapshot)
        self.views = {pop.key: _make_view(pop, rules) for pop in snapshot.pops}
        self._told: dict[tuple[str, str], int] = {}
        mine = {stream.request.channel for pop in snapshot.pops for stream in pop.streams}
        for pop in snapshot.pops:
            for other in pop.elsewhere:
                if other.channel not in mine:
                    self.views[pop.key].learn_tags(other.origin, other.tags)

    def place(self, stream: _Stream) -> tuple[Outcome, StreamId | None]:
        """Place one; also returns who has to give way for it."""
        view, request = self.views[stream.pop], stream.taken.request
        why = "refused by every origin that was tried"
        for _ in range(ATTEMPTS_MAX):
            self.now += STEP_S
            self._beat(stream.pop, view)
            try:
                decision = choose_origin(request, view, self.now)
            except RouteUnavailableError as error:
                return _refused(stream, str(error), _matched(view, request)), None
            origin = self.origins[decision.origin]
            asked = decision.terms.on_full != "reject"
            try:
                victim = origin.slots.take(_id(stream), request.priority, decision.terms)
            except PublishRefusedError as error:
                why = f"{decision.origin}: {error.reason}"
                view.refused(decision.origin, self.now, priority=request.priority, asked=asked)
                continue
            origin.changes += 1
            self._count(stream, decision.origin, 1)
            candidate = view.by_name[decision.origin]
            outcome = Outcome(
                pop=stream.pop,
                channel=request.channel,
                priority=request.priority,
                now_at=stream.taken.origin,
                origin=decision.origin,
                how=decision.rule,
                matched=decision.matched,
                rtt_ms=None if candidate.rtt_ms == float("inf") else candidate.rtt_ms,
            )
            return outcome, victim
        return _refused(stream, why, _matched(view, request)), None

    def remove(self, stream: _Stream, origin: str) -> None:
        """It has given way."""
        self.origins[origin].changes += 1
        self._count(stream, origin, -1)

    def _count(self, stream: _Stream, origin: str, sign: int) -> None:
        request = stream.taken.request
        view = self.views[stream.pop]
        if sign > 0:
            view.placed(origin, request, is_there=True)
        else:
            view.released(origin, request)
        for key, other in self.views.items():
            if key != stream.pop and request.tags:
                other.learn_tags(origin, request.tags, sign)

    def _beat(self, key: str, view: PopView) -> None:
        for name in view.by_name:
            origin = self.origins[name]
            if origin.is_heard and self._told.get((key, name)) != origin.changes:
                self._told[key, name] = origin.changes
                view.heartbeat(origin.report(), self.now)


def replay(snapshot: RulesSnapshot, rules: Sequence[Rule] | None = None) -> list[Outcome]:
    """Place all streams of a snapshot; `rules` None: by those that are in force at each PoP.

    Who gives way to a stream of a higher class is placed again at once.
    """
    world = _World(snapshot, rules)
    waiting = deque(_in_order(snapshot))
    streams = {stream.key: stream for stream in waiting}
    outcomes: dict[str, Outcome] = {}
    while waiting:
        stream = waiting.popleft()
        outcomes[stream.key], victim = world.place(stream)
        if victim is not None:
            lost = streams[victim.channel]
            world.remove(lost, outcomes[lost.key].origin)
            waiting.appendleft(lost)  # It has a class below; so this ends.
    return [outcomes[key] for key in sorted(outcomes)]


def _in_order(snapshot: RulesSnapshot) -> list[_Stream]:
    """The longest live first."""
    streams = [
        _Stream(f"{pop.key} {taken.request.channel}", pop.key, taken)
        for pop in snapshot.pops
        for taken in pop.streams
    ]
    return sorted(streams, key=lambda stream: (-stream.taken.for_s, stream.key))


def _make_origins(snapshot: RulesSnapshot) -> dict[str, _Origin]:
    seen: dict[str, list[OriginTaken]] = {}
    ours: dict[str, int] = {}
    for pop in snapshot.pops:
        for origin in pop.origins:
            seen.setdefault(origin.row.origin, []).append(origin)
        for stream in pop.streams:
            ours[stream.origin] = ours.get(stream.origin, 0) + 1
    return {name: _Origin(name, each, ours.get(name, 0)) for name, each in seen.items()}


def _make_view(pop: PopTaken, rules: Sequence[Rule] | None) -> PopView:
    view = PopView(pop.pop)
    table = RoutingTable(
        epoch=pop.epoch,
        version=pop.version,
        issued=pop.at,
        ttl_s=FOREVER_S,
        lease_ttl_s=FOREVER_S if pop.lease_left_s > 0 else 0.0,
        rows=tuple(origin.row for origin in pop.origins),
        rules=pop.rules if rules is None else tuple(rules),
    )
    view.accept_table(table, 0.0)
    for origin in pop.origins:
        name = origin.row.origin
        view.set_link(name, up=not origin.down, now=0.0, reason=origin.down)
        if origin.rtt_ms is not None:
            view.observe_rtt(name, origin.rtt_ms)
    return view


def _id(stream: _Stream) -> StreamId:
    return StreamId(stream.key, 1)


def _partner_free(report: OriginReport) -> int:
    return report.slots_free[PriorityClass.PARTNER]


def _as_believed(said: ReportedState, states: set[OriginState | None]) -> ReportedState:
    """Up if it says so and anybody takes it for up."""
    takes = any(state is not None and state.takes_streams for state in states)
    return said if takes or said is not ReportedState.UP else ReportedState.DOWN


def _matched(view: PopView, request: RouteRequest) -> str:
    rule = view.rules.first_match(request)
    return "" if rule is None else label(rule)


def _refused(stream: _Stream, why: str, matched: str) -> Outcome:
    return Outcome(
        pop=stream.pop,
        channel=stream.taken.request.channel,
        priority=stream.taken.request.priority,
        now_at=stream.taken.origin,
        origin="",
        matched=matched,
        why=why,
    )
