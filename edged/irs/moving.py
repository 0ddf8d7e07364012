"""What IRS wants of live streams: origins that are drained, and migrations; who is told, who obeys.

    operator ── drain origin ─▶ DRAIN in every table; Drain to each PoP, now and when one joins
    planner  ── request_moves ▶ Migrate to the PoPs: so many of a class, and they pick which
    PoPs     ── Moved, MoveRefused ─▶ log, counts; what is left is told by their telemetry

A PoP picks its streams because it knows what no list here could keep up with: which are there now,
which rule forbids, which is moving already. IRS needs no list of who is live where.

Drains outlive a restart of IRS by its state file, and its end by what PoPs keep of them for other
IRSs (`seat.py`); all else is soft state.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol, cast

import structlog
from msgspec import Struct, field

from edged.errors import EdgedError
from edged.media.epochs import BY_CHARS_MAX, DRAINS_MAX, DrainNote
from edged.media.routing import ClassLabel, OriginState
from edged.policy.move_orders import MoveOrder, MovesAsked, digest_of_orders, make_orders
from edged.policy.moves import UnitMoves
from edged.runtime.metrics import MetricSpec, Sample
from edged.wire.irs_link import IrsLink
from edged.wire.table import PICKS_MAX, Drain, Migrate, Moved, MoveRefused, Pick

MIGRATE_S_MAX = 60.0  # A plan is old by then.
BUDGET_PER_S_MIN = 1.0  # Of a drain at a PoP, which may have streams there by now.
REASONS_MAX = 32  # Counted apart; the rest are "others".
BY_HAND = "an operator"

Units = Mapping[str, Mapping[str, int]]  # Of each PoP, by origin.

METRICS = (
    MetricSpec(
        name="edged_irs_moves_total",
        help="Moves of live streams, as PoPs told: moved or refused",
        labels=("outcome", "cause"),
    ),
    MetricSpec(name="edged_irs_moves_wanted_total", help="Streams that PoPs were asked to move"),
    MetricSpec(name="edged_irs_drains", help="Origins that are drained"),
    MetricSpec(name="edged_irs_drain_streams_left", help="Streams still at such an origin"),
)

log = structlog.get_logger("edged.irs.moving")


def _ignore(what: str, origin: str, by: str) -> None:
    del what, origin, by


class DrainSeen(Struct, frozen=True, kw_only=True):
    """One origin that is drained: a line of `edged drain origin`."""

    origin: str
    left: int  # Streams, as PoPs told last.
    left_by_pop: dict[str, int]
    seconds_left: float
    moved: int = 0
    refused: dict[str, int] = {}  # Reason -> how often, the most frequent first.
    not_told: list[str] = []  # PoPs with streams there that are too old to move them.
    held: int | None = None  # Slots by the origin's own heartbeat; None: it is not heard.

    @property
    def is_empty(self) -> bool:
        """Whether neither PoPs nor the origin itself know of a stream there."""
        return not self.left and not self.held


class _Drain(Struct):
    until_unix: float
    ends_at: float
    budget_per_s: float
    by: str
    since_unix: float
    moved: int = 0
    refused: Counter[str] = field(default_factory=Counter)


class Session(Protocol):
    """What it needs of a PoP's session."""

    link: IrsLink

    def wake(self) -> None:
        """Something is to be sent."""


class Moving:
    """The moves that IRS wants. All of it is synchronous; `now` is monotonic."""

    def __init__(
        self,
        sessions: Mapping[str, Session],
        units: Callable[[], Units],
        slots_used: Callable[[str], int | None],
        *,
        now: Callable[[], float],
        now_unix: Callable[[], float],
        changed: Callable[[], None],
        moves_per_s: float,
    ) -> None:
        """`sessions`: by PoP shard; `units`: of each PoP, how many it has where, told last.
        `slots_used`: how many an origin says that it has, None while it says nothing.

        `changed`: tables are to be made anew. `moves_per_s`: of all PoPs together. `on_asked` hears
        what operators ask: "drain" or "undo drain", of which origin, and by whom.
        """
        self.moves_per_s = moves_per_s
        self._sessions, self._units, self._slots_used = sessions, units, slots_used
        self._now, self._now_unix, self._changed = now, now_unix, changed
        self.on_asked: Callable[[str, str, str], None] = _ignore
        self._drains: dict[str, _Drain] = {}
        self.asked: MovesAsked | None = None  # Last, by a plan.
        self._number = 0
        self._wanted = 0
        self._counts: Counter[tuple[str, str]] = Counter()  # By outcome and cause.

    # What the planner asks.

    def state_of(self, origin: str, state: OriginState) -> OriginState:
        """How an origin stands in tables: one that is drained takes nothing new."""
        return OriginState.DRAIN if origin in self._drains and state.takes_streams else state

    def request_moves(self, moves: Sequence[UnitMoves], within_s: float) -> int:
        """Have PoPs move streams; returns the number of the migration, by which they answer.

        The budget is shared by the PoPs in proportion to what each is to move. One that is not
        connected, or too old, is left out, which is logged: the next plan sees that they are still
        where they were.
        """
        self._number += 1
        left_s = min(within_s, MIGRATE_S_MAX)
        deadline = self._now_unix() + left_s
        orders = make_orders(moves, moves_per_s=self.moves_per_s, picks_max=PICKS_MAX)
        told = [order for order in orders if self._migrate(order, deadline, left_s)]
        self.asked = MovesAsked(
            number=self._number,
            deadline=deadline,
            left_s=left_s,
            moves_per_s=self.moves_per_s,
            picks_max=PICKS_MAX,
            told=tuple(order.pop for order in told),
            digest=digest_of_orders(told, self._number, deadline, left_s),
        )
        left_out = [order.pop for order in orders if order not in told]
        log.info(
            "moves wanted",
            number=self._number,
            streams=sum(move.units for move in moves),
            pops=len(orders),
            left_out=left_out or None,
            within_s=left_s,
        )
        return self._number

    def _migrate(self, order: MoveOrder, deadline: float, left_s: float) -> bool:
        session = self._sessions.get(order.pop)
        message = Migrate(
            moves=(),
            picks=tuple(
                Pick(from_origin, to_origin, cast("ClassLabel", class_), count)
                for from_origin, to_origin, class_, count in order.picks
            ),
            deadline=deadline,
            left_s=left_s,
            budget_per_s=order.budget_per_s,
            number=self._number,
        )
        if session is None or not session.link.command(message, self._now()):
            return False
        session.wake()
        self._wanted += order.units
        return True

    # What an operator asks.

    def drain(
        self, origin: str, *, deadline_s: float, known: Iterable[str], by: str = BY_HAND
    ) -> DrainSeen:
        """Have an origin emptied; again, by another deadline. EdgedError where that is no sense."""
        names = sorted(known)
        if origin not in names:
            raise EdgedError(
                f"origin {origin[:63]!r} is unknown here; known: {', '.join(names) or 'none'}"
            )
        if origin not in self._drains and len(self._drains) >= DRAINS_MAX:
            raise EdgedError(f"{DRAINS_MAX} origins are drained already: undo one of them first")
        now = self._now()
        before = self._drains.get(origin)
        unix = self._now_unix()
        self._drains[origin] = drain = _Drain(
            unix + deadline_s, now + deadline_s, self.moves_per_s, by, unix
        )
        if before is not None:
            drain.moved, drain.refused = before.moved, before.refused
        self._tell(origin, drain)
        self._changed()
        self.on_asked("drain", origin, by)
        seen = self.drain_seen(origin)
        log.warning(
            "origin is drained", origin=origin, by=by, streams=seen.left, deadline_s=deadline_s
        )
        return seen

    def undo_drain(self, origin: str, *, by: str = BY_HAND) -> DrainSeen:
        """Let an origin have streams again; EdgedError if it was not drained."""
        if origin not in self._drains:
            drained = ", ".join(sorted(self._drains)) or "none"
            raise EdgedError(f"origin {origin[:63]!r} is not drained; drained: {drained}")
        seen = self.drain_seen(origin)
        del self._drains[origin]
        self._tell(origin, None)
        self._changed()
        self.on_asked("undo drain", origin, by)
        log.warning("drain of origin undone", origin=origin, by=by, streams=seen.left)
        return seen

    def notes(self) -> tuple[DrainNote, ...]:
        """Every drain, for who is to know of it when this IRS is gone."""
        now = self._now()
        return tuple(
            DrainNote(
                origin=origin,
                since=drain.since_unix,
                until=drain.until_unix,
                left_s=max(0.0, drain.ends_at - now),
                by=drain.by[:BY_CHARS_MAX],
            )
            for origin, drain in sorted(self._drains.items())
        )

    def adopt(self, notes: Iterable[DrainNote]) -> None:
        """Drain what is drained by these, and nothing else: another IRS, or one before us, knew."""
        before, now = self._drains, self._now()
        self._drains = {}
        for note in notes:
            ends_at = now + note.left_s
            drain = _Drain(note.until, ends_at, self.moves_per_s, note.by, note.since)
            known = before.get(note.origin)
            if known is not None:
                drain.moved, drain.refused = known.moved, known.refused
            self._drains[note.origin] = drain
            if known is None or known.until_unix != note.until:
                log.info("drain of origin known", origin=note.origin, by=note.by)
                self._tell(note.origin, drain)
        for origin in before.keys() - self._drains.keys():
            log.info("drain of origin is over", origin=origin)
            self._tell(origin, None)
        self._changed()

    def drains_seen(self) -> list[DrainSeen]:
        """How far each drain is."""
        return [self.drain_seen(origin) for origin in sorted(self._drains)]

    def drain_seen(self, origin: str) -> DrainSeen:
        """How far one is."""
        drain = self._drains[origin]
        left = {pop: there[origin] for pop, there in self._units().items() if there.get(origin)}
        return DrainSeen(
            origin=origin,
            left=sum(left.values()),
            left_by_pop=left,
            seconds_left=round(max(0.0, drain.ends_at - self._now()), 1),
            moved=drain.moved,
            refused=dict(drain.refused.most_common()),
            not_told=sorted(pop for pop in left if pop in self._sessions and not self._obeys(pop)),
            held=self._slots_used(origin),
        )

    # What PoPs tell.

    def joined(self, pop: str) -> None:
        """A PoP is here: it is told of every drain before its first table."""
        units = self._units() if self._drains else {}
        for origin, drain in self._drains.items():
            self._tell_one(pop, origin, drain, units)

    def moved(self, pop: str, moved: Moved) -> None:
        """A stream has another home."""
        cause = moved.why if moved.why in ("migrate", "drain") else "failure"
        self._counts["moved", cause] += 1
        if cause == "drain" and (drain := self._drains.get(moved.from_origin)) is not None:
            drain.moved += 1
        log.info(
            "stream moved",
            pop=pop,
            channel=moved.channel,
            publication=f"{moved.publication:x}",
            home_epoch=moved.home_epoch,
            origin=moved.to_origin,
            from_origin=moved.from_origin,
            unit_seq=moved.unit_seq,
            why=moved.why or None,
            number=moved.number or None,
        )

    def refused(self, pop: str, refused: MoveRefused) -> None:
        """A stream stays where it was."""
        cause = "migrate" if refused.number else "drain"
        self._counts["refused", cause] += refused.count
        drain = self._drains.get(refused.from_origin)
        if cause == "drain" and drain is not None:
            known = refused.reason in drain.refused or len(drain.refused) < REASONS_MAX
            drain.refused[refused.reason if known else "others"] += refused.count
        log.info(
            "stream not moved",
            pop=pop,
            channel=refused.channel or None,
            count=refused.count,
            origin=refused.from_origin,
            wanted_at=refused.to_origin or None,
            reason=refused.reason,
            number=refused.number or None,
        )

    def read_metrics(self) -> Iterable[Sample]:
        """Values of METRICS."""
        for outcome, causes in (
            ("moved", ("migrate", "drain", "failure")),
            ("refused", ("migrate", "drain")),
        ):
            for cause in causes:
                labels = {"outcome": outcome, "cause": cause}
                yield Sample("edged_irs_moves_total", self._counts[outcome, cause], labels)
        yield Sample("edged_irs_moves_wanted_total", self._wanted)
        yield Sample("edged_irs_drains", len(self._drains))
        left = sum(seen.left for seen in self.drains_seen())
        yield Sample("edged_irs_drain_streams_left", left)

    def _tell(self, origin: str, drain: _Drain | None) -> None:
        units = self._units()
        for pop in list(self._sessions):
            self._tell_one(pop, origin, drain, units)

    def _tell_one(self, pop: str, origin: str, drain: _Drain | None, units: Units) -> None:
        """Tell a PoP of a drain, or that it is over; its budget is by what it has there."""
        session, now = self._sessions[pop], self._now()
        message = Drain(origin=origin, until=self._now_unix(), undone=True)
        if drain is not None:
            there = sum(of.get(origin, 0) for of in units.values())
            share = units.get(pop, {}).get(origin, 0) / max(1, there)
            message = Drain(
                origin=origin,
                until=drain.until_unix,
                left_s=max(0.0, drain.ends_at - now),
                budget_per_s=max(drain.budget_per_s * share, BUDGET_PER_S_MIN),
            )
        if session.link.command(message, now):
            session.wake()

    def _obeys(self, pop: str) -> bool:
        return self._sessions[pop].link.moves_streams
