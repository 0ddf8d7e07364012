"""What one PoP knows when it places a stream: the table that IRS pushed, and what it sees itself.

IRS may be wrong, late or dead; so the view keeps both, and says for each origin why nothing may go
there now (`blocked`), until when a class leaves it alone after a refusal (`held`), and how much the
lease still allows (`quotas` - `used`). `routing_table.choose_origin` decides over it.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

from msgspec import UNSET

from edged.media.routing import (
    CLASSES,
    ORIGINS_MAX,
    ByClass,
    OnFull,
    OriginReport,
    OriginRow,
    OriginState,
    PathProbe,
    PopTelemetry,
    RouteRequest,
    RoutingTable,
    Rule,
)
from edged.media.stream import PriorityClass
from edged.policy.bindings import Bindings
from edged.policy.capacitor import Capacitor, StateChanged
from edged.policy.full_paths import FullPaths
from edged.policy.rules import RuleSet

HOLD_S_MIN = 0.5  # Five heartbeats: by then the refusal shows in them.
HOLD_S_MAX = 8.0
RTT_SMOOTHING = 0.2  # Weight of the newest probe: a second's worth at 5 Hz.
TAGS_MAX = 20_000  # Of streams here and elsewhere; a PoP shard carries a tenth of that.

DRAINED = "to be empty, says IRS"
NOT_HELD = (-math.inf,) * len(CLASSES)


class Candidate:
    """One origin of the table, as it looks from here now."""

    __slots__ = (
        "address",
        "asked_until",
        "blocked",
        "domain",
        "held",
        "offered",
        "origin",
        "placed_since",
        "quotas",
        "row",
        "rtt_ms",
        "used",
    )

    def __init__(self, row: OriginRow, kept: int = 0) -> None:
        self.row = row
        self.origin = row.origin
        self.address = row.address
        self.domain = row.domain or f"origin {row.origin}"
        # By class: how many units we may have there in all; `kept` is for partners alone.
        self.quotas = (row.quota + kept, *(row.quota,) * (len(CLASSES) - 1))
        self.used = 0  # Units of ours there.
        self.placed_since = 0  # Units of ours that its last heartbeat does not know of.
        self.offered: dict[str, int] = {}  # By channel: those of them that it has not answered yet.
        self.rtt_ms = math.inf  # Not measured yet.
        self.held = NOT_HELD  # By class: until then nothing of it goes there.
        self.asked_until = -math.inf  # Until then nothing beyond its room is asked of it.
        self.blocked = ""  # Why nothing may go there; "" = it may.

    def heard(self) -> bool:
        """Note that a heartbeat came: it knows of what the origin took before it was sent.

        That of which the answer has come, too. What is on its way there it cannot know; returns
        whether there is such.
        """
        self.placed_since = sum(self.offered.values()) if self.offered else 0
        return bool(self.offered)


class _Hold:
    """How long an origin is left alone, by class: a refusal of one says nothing of those above."""

    __slots__ = ("length_s", "until")

    def __init__(self) -> None:
        self.until = list(NOT_HELD)
        self.length_s = [0.0] * len(CLASSES)  # Of the last hold; 0 when a stream was taken since.

    def lengthen(self, priority: PriorityClass, now: float) -> float:
        """Hold a class and those below it, each twice as long as last time; return its hold."""
        for each in CLASSES[priority:]:
            before = self.length_s[each]
            length = min(HOLD_S_MAX, 2 * before) if before else HOLD_S_MIN
            self.until[each], self.length_s[each] = now + length, length
        return self.length_s[priority]


class PopView:
    """One PoP's (or shard's) own state of routing. It draws no clock: every change says `now`."""

    def __init__(self, pop: str) -> None:
        self.pop = pop
        self.capacitor = Capacitor()
        self.table: RoutingTable | None = None
        self.rules = RuleSet((), pop)
        self.lease_until = -math.inf
        self.states_until = math.inf  # Until then the states in the rows are believed.
        self._states_believed = False
        self.ranked: list[Candidate] = []  # Nearest first.
        self.by_name: dict[str, Candidate] = {}
        self._units: dict[str, list[int]] = {}
        self._rtt_ms: dict[str, float] = {}
        self._probes: dict[str, PathProbe] = {}
        self.drained: frozenset[str] = frozenset()  # That are to be empty: nothing new goes there.
        self.full = FullPaths()  # Over links that are, so that streams were shed.
        self.carried_mbps: dict[str, tuple[float, float]] = {}  # To each origin, and from it.
        self._links: dict[str, str] = {}  # Origin -> "" when up, else why not.
        self._holds: dict[str, _Hold] = {}
        self._asked_until: dict[str, float] = {}
        self.tell_ladders: set[str] = set()  # Origins of the table.
        self._tags: dict[str, dict[str, int]] = {}  # Tag -> origin -> streams.
        self._bindings = Bindings()
        self._arrivals = self._unplaced = 0
        self._refusals: dict[str, int] = {}
        self._timeouts: dict[str, int] = {}

    @property
    def version(self) -> int:
        """Version of the table in force; 0 without one."""
        return 0 if self.table is None else self.table.version

    def accept_table(self, table: RoutingTable, now: float, *, from_disk: bool = False) -> None:
        """Put a table in force.

        From disk its addresses and rules count, but not its leases and states: they are old.
        """
        if self.table is None or table.rules != self.table.rules:
            self.rules = RuleSet(table.rules, self.pop)
        self.table = table
        self.lease_until = -math.inf if from_disk else now + table.lease_ttl_s
        self.states_until = -math.inf if from_disk else now + table.ttl_s
        self._states_believed = True
        before = self.by_name
        self.full.table_changed(now)
        kept = {} if table.kept is UNSET else table.kept
        self.by_name = {row.origin: Candidate(row, kept.get(row.origin, 0)) for row in table.rows}
        for name, candidate in self.by_name.items():
            candidate.used = sum(self._units.get(name, ()))
            if (known := before.get(name)) is not None:
                candidate.placed_since, candidate.offered = known.placed_since, known.offered
            candidate.rtt_ms = self._rtt_ms.get(name, math.inf)
            candidate.held = tuple(self._holds[name].until) if name in self._holds else NOT_HELD
            candidate.asked_until = self._asked_until.get(name, -math.inf)
        told = self.capacitor.ladders
        self.tell_ladders = {name for name in self.by_name if told(name) is not None}
        self._forget_strangers()
        self._rank()
        self.refresh(now)

    def refresh(self, now: float) -> None:
        """Work out anew what is blocked; needed when `now` has passed `states_until`."""
        if now >= self.states_until:
            self._states_believed = False
            self.states_until = math.inf  # Nothing more to expire.
        for candidate in self.by_name.values():
            candidate.blocked = self._why_blocked(candidate)

    def set_link(self, origin: str, *, up: bool, now: float, reason: str = "") -> None:
        """Say whether our session to an origin stands; before that nothing goes there."""
        self._links[origin] = "" if up else f"link down: {reason}" if reason else "link down"
        self.refresh(now)

    def set_drained(self, origins: Iterable[str], now: float) -> None:
        """Say which origins IRS wants empty, whatever the table says of them, or when it is old."""
        self.drained = frozenset(origins)
        self.refresh(now)

    def observe_rtt(
        self, origin: str, rtt_ms: float, *, loss: float = 0.0, goodput_mbps: float = 0.0
    ) -> None:
        """Take a measurement of the path; the smoothed RTT ranks the origins."""
        known = self._rtt_ms.get(origin)
        smoothed = rtt_ms if known is None else known + RTT_SMOOTHING * (rtt_ms - known)
        self.observe_path(origin, PathProbe(smoothed, loss, goodput_mbps))

    def observe_path(self, origin: str, path: PathProbe) -> None:
        """Take what was measured on the path; its RTT, smooth already, ranks the origins."""
        self._rtt_ms[origin] = path.rtt_ms
        self._probes[origin] = path
        candidate = self.by_name.get(origin)
        if candidate is not None:
            candidate.rtt_ms = path.rtt_ms
            if not self._stands(candidate):
                self._rank()

    def path(self, origin: str) -> PathProbe | None:
        """What was measured on the path to an origin; None before that."""
        return self._probes.get(origin)

    def heartbeat(self, report: OriginReport, now: float) -> list[StateChanged]:
        """Take a heartbeat that the origin sent straight to us."""
        candidate = self.by_name.get(report.origin)
        if candidate is not None:
            candidate.heard()
        changes = self.capacitor.heartbeat(report, now)
        if candidate is not None and report.ladder_cost:
            self.tell_ladders.add(report.origin)
        else:
            self.tell_ladders.discard(report.origin)
        if changes:
            self.refresh(now)
        return changes

    def next_timeout(self) -> float:
        """When `handle_timeout` has something to do."""
        return min(self.capacitor.next_timeout(), self.states_until)

    def handle_timeout(self, now: float) -> list[StateChanged]:
        """Draw the conclusions of silence. Drain what is readable before calling this."""
        changes = self.capacitor.handle_timeout(now)
        if changes or now >= self.states_until:
            self.refresh(now)
        return changes

    def placed(self, origin: str, request: RouteRequest, *, is_there: bool = False) -> None:
        """Count a stream that has just been sent to an origin, or `is_there` already."""
        self._count(origin, request, 1)
        candidate = self.by_name.get(origin)
        if candidate is not None and not is_there:
            candidate.offered[request.channel] = request.cost

    def released(self, origin: str, request: RouteRequest) -> None:
        """Count a stream that left an origin: its units are free for this PoP at once."""
        self._count(origin, request, -1)
        if (candidate := self.by_name.get(origin)) is not None:
            candidate.offered.pop(request.channel, None)

    def accepted(self, origin: str, channel: str, priority: PriorityClass) -> None:
        """Note that the origin took a stream: the next hold of its class begins short again.

        So does that of those above, which would have been taken too. The next heartbeat knows of
        the stream.
        """
        if (candidate := self.by_name.get(origin)) is not None:
            candidate.offered.pop(channel, None)
        if (hold := self._holds.get(origin)) is not None:
            hold.length_s[: priority + 1] = [0.0] * (priority + 1)

    def refused(
        self,
        origin: str,
        now: float,
        *,
        priority: PriorityClass = PriorityClass.PARTNER,
        asked: bool = False,
    ) -> float:
        """Note that the origin refused a stream (it has the final word); return the hold in s.

        `priority`: the highest class that it has no room for. It and those below are held; for
        those above slots may be kept. `asked`: it refused what it was asked beyond its room.
        """
        self._refusals[origin] = self._refusals.get(origin, 0) + 1
        length_s = self._hold(origin, priority, now)
        if asked:
            self._ask_not(origin, now + length_s)
        return length_s

    def timed_out(self, origin: str, now: float) -> float:
        """Note that the origin did not answer; return for how many seconds it is left alone."""
        self._timeouts[origin] = self._timeouts.get(origin, 0) + 1
        length_s = self._hold(origin, PriorityClass.PARTNER, now)
        self._ask_not(origin, now + length_s)
        return length_s

    def learn_tags(self, origin: str, tags: Sequence[str], count: int = 1) -> None:
        """Note that a stream of another PoP with these tags went to (-1: left) an origin."""
        for tag in tags:
            homes = self._tags.get(tag)
            if homes is None:
                if count < 0 or len(self._tags) >= TAGS_MAX:
                    continue  # At the limit a new group is placed by hash alone.
                homes = self._tags[tag] = {}
            left = homes.get(origin, 0) + count
            if left > 0:
                homes[origin] = left
            else:
                homes.pop(origin, None)
            if not homes:
                del self._tags[tag]

    @contextmanager
    def without_tags(self, origin: str, tags: Sequence[str]) -> Iterator[None]:
        """As if one stream with these tags were not at an origin."""
        counted = [tag for tag in tags if self.homes(tag).get(origin)]
        self.learn_tags(origin, counted, -1)
        try:
            yield
        finally:
            self.learn_tags(origin, counted)

    def homes(self, tag: str) -> dict[str, int]:
        """How many streams with this tag each origin has, as far as is known here."""
        return self._tags.get(tag, {})

    def rule_of(self, request: RouteRequest) -> Rule | None:
        """The rule that decides for a stream that is live: all of one origin are asked of at once.

        A thousand general rules take 0.2 ms to search.
        """
        return self._bindings.match(request, self.rules)

    def note_request(self, request: RouteRequest, *, placed: bool) -> None:
        """Count a stream that asked for a place, for telemetry."""
        self._arrivals += request.cost
        if self.rules:
            self._bindings.arrived(request)
        if not placed:
            self._unplaced += request.cost

    def take_telemetry(self) -> PopTelemetry:
        """Collect what IRS is told; the counts begin anew."""
        units: dict[str, ByClass] = {
            name: (counts[0], counts[1], counts[2])
            for name, counts in self._units.items()
            if any(counts)
        }
        telemetry = PopTelemetry(
            units,
            self._arrivals,
            self._refusals,
            self._timeouts,
            self._unplaced,
            {name: self._probes[name] for name in self.by_name if name in self._probes},
            None,
            {
                name: self.carried_mbps[name]
                for name in self.by_name
                if any(self.carried_mbps.get(name, ()))
            },
            self._bindings.take(self),
        )
        self._arrivals = self._unplaced = 0
        self._refusals, self._timeouts = {}, {}
        return telemetry

    def units_at(self, origin: str, priority: PriorityClass) -> int:
        """Units of ours there, as telemetry tells them."""
        return self._units[origin][priority] if origin in self._units else 0

    def link_state(self, origin: str) -> str:
        """Why our session to the origin does not stand; "" when it does."""
        return self._links.get(origin, "not connected yet")

    @property
    def reached(self) -> bool:
        """Whether an origin of the table has both a link and a living heartbeat here.

        If not, as when this PoP has just started, a publisher may wait a little for the first.
        """
        silent = (None, OriginState.DOWN)
        return any(
            not self.link_state(name) and self.capacitor.state(name) not in silent
            for name in self.by_name
        )

    def room(self, candidate: Candidate, *, priority: PriorityClass, now: float) -> int:
        """Units free there for this class by the origin's own heartbeats, our newest counted.

        Partners may use the row's reserve; the others must leave it.
        """
        name = candidate.origin
        free = self.capacitor.room(name, PriorityClass.PARTNER, now)
        if priority is not PriorityClass.PARTNER:
            free -= candidate.row.reserve
            free = min(free, self.capacitor.room(name, priority, now))
        return free - candidate.placed_since

    def ladders(self, candidate: Candidate, priority: PriorityClass) -> int | None:
        """Streams of a class that it would make a usual ladder of, our newest counted.

        None: no heartbeat of it has come, or none of all origins makes ladders, so it matters not.
        """
        if not self.tell_ladders or candidate.origin not in self.capacitor:
            return None
        made = self.capacitor.ladders(candidate.origin)
        return 0 if made is None else max(0, made[priority] - candidate.placed_since)

    def room_beyond(self, candidate: Candidate, priority: PriorityClass, asks: OnFull) -> int:
        """Units that the origin said it would take if asked so, our newest counted."""
        report = self.capacitor.report(candidate.origin)
        if report is None or asks == "reject":
            return 0
        beyond = report.preemptible[priority] if asks == "preempt" else report.source_only_free
        return beyond - candidate.placed_since

    def _ask_not(self, origin: str, until: float) -> None:
        self._asked_until[origin] = until
        if (candidate := self.by_name.get(origin)) is not None:
            candidate.asked_until = until

    def _why_blocked(self, candidate: Candidate) -> str:
        if why := self.link_state(candidate.origin):
            return why
        state = self.capacitor.state(candidate.origin)
        if state is not None and not state.takes_streams:
            return f"{state} by its heartbeats here"
        if candidate.origin in self.drained:
            return DRAINED
        if self._states_believed and not candidate.row.state.takes_streams:
            return f"masked in the table: {candidate.row.state}"
        return ""

    def _forget_strangers(self) -> None:
        """Keep what is known of origins that left the table (they may be back), within a bound."""
        of_paths = (self._rtt_ms, self._probes, self.carried_mbps)
        for known in (*of_paths, self._links, self._holds, self._asked_until):
            if len(known) > 2 * ORIGINS_MAX:
                for name in known.keys() - self.by_name.keys():
                    del known[name]
        for name in self._units.keys() - self.by_name.keys():
            if not any(self._units[name]):
                del self._units[name]

    def _rank(self) -> None:
        self.ranked = sorted(self.by_name.values(), key=_nearness)

    def _stands(self, candidate: Candidate) -> bool:
        """Whether it is between the two that it should be between."""
        place = self.ranked.index(candidate)
        around = self.ranked[max(0, place - 1) : place + 2]
        return all(_nearness(one) <= _nearness(other) for one, other in pairwise(around))

    def _count(self, origin: str, request: RouteRequest, sign: int) -> None:
        counts = self._units.setdefault(origin, [0] * len(CLASSES))
        counts[request.priority] += sign * request.cost
        assert counts[request.priority] >= 0, "released more than was placed"
        candidate = self.by_name.get(origin)
        if candidate is not None:
            candidate.used += sign * request.cost
            candidate.placed_since = max(0, candidate.placed_since + sign * request.cost)
        elif not any(counts):
            del self._units[origin]
        self.learn_tags(origin, request.tags, sign)
        self._bindings.count(origin, request, sign)

    def _hold(self, origin: str, priority: PriorityClass, now: float) -> float:
        hold = self._holds.setdefault(origin, _Hold())
        length_s = hold.lengthen(priority, now)
        candidate = self.by_name.get(origin)
        if candidate is not None:
            candidate.held = tuple(hold.until)
        return length_s


def _nearness(known: Candidate) -> tuple[float, str]:
    return known.rtt_ms, known.origin
