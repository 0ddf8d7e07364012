"""A PoP does what IRS says of its live streams: `migrate` and `drain`, and tells what came of it.

What moves next, and how fast, `policy/rehoming.py` decides; how one moves, `moves.py`.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from typing import cast

import structlog
import trio

from edged.media.epochs import DRAINS_MAX
from edged.media.routing import CLASSES, ClassLabel, RoutingTable
from edged.policy.rehoming import Due, Live, Picking, Refusal, Rehoming, Wish
from edged.roles.moves import LINGER_S, MoveDone
from edged.roles.status import DrainedSeen
from edged.roles.uplinks import Uplinks
from edged.runtime.faults import contained
from edged.runtime.metrics import Metrics, MetricSpec, Sample
from edged.wire.table import REASON_CHARS_MAX, Drain, Migrate, Moved, MoveRefused

TURN_S_MIN = 0.01  # Between two turns: the highest budget is one move in each.
MIGRATE, DRAIN, FAILURE = "migrate", "drain", "failure"
CLASS_OF = {priority.label: priority for priority in CLASSES}
LABEL_OF = {priority: cast("ClassLabel", priority.label) for priority in CLASSES}

logger = structlog.get_logger("edged.pop")

SPECS = (
    MetricSpec(
        name="edged_rehoming_moved_total",
        help="Live streams that went to another origin, by what for.",
        labels=("role", "cause"),
    ),
    MetricSpec(
        name="edged_rehoming_refused_total",
        help="Moves that IRS wanted and that were not made: the stream stayed where it was.",
        labels=("role",),
    ),
    MetricSpec(
        name="edged_rehoming_waiting",
        help="Moves that IRS wants and that have not begun, those of drains included.",
        labels=("role",),
    ),
    MetricSpec(
        name="edged_rehoming_lingering",
        help="Streams that still go to the origin that they have left as well.",
        labels=("role",),
    ),
    MetricSpec(
        name="edged_rehoming_handovers_total",
        help="Channels whose parts went from one origin to the next, by whether amid a segment.",
        labels=("role", "forced"),
    ),
)


def _ignore(_: Moved | MoveRefused) -> None:
    pass


class Rehomer:
    """The moves that IRS wants of one PoP shard."""

    def __init__(self, uplinks: Uplinks, now: Callable[[], float]) -> None:
        self.tell: Callable[[Moved | MoveRefused], None] = _ignore  # IRS, once there is a client.
        self._uplinks, self._now = uplinks, now
        self._core = Rehoming()
        self._unconfirmed: set[str] = set()  # Drains that IRS has yet to repeat in this session.
        self._by_cause: Counter[str] = Counter()
        self._woken = trio.Event()

    async def run(self) -> None:
        """Make one move after the other, until cancelled."""
        while True:
            with trio.move_on_at(self._core.next_timeout()):
                await self._woken.wait()
            self._woken = trio.Event()
            self.turn()
            await trio.sleep(TURN_S_MIN)

    def turn(self) -> None:
        """Begin what is due now."""
        now = self._now()
        for due in self._core.take_due(self._streams(), now, why_not=self._why_never):
            reason = "internal error"
            with contained(logger, "move failed", channel=due.channel):
                cause = MIGRATE if due.number else DRAIN
                reason = self._uplinks.placing.moves.begin(
                    due.channel, due.to_origin, cause, partial(self._done, due), due.number
                )
            if reason:
                self._tell(self._core.settled(due.channel, reason, now))
        self._tell(self._core.expire(now))

    def _why_never(self, due: Due) -> str:
        return self._uplinks.placing.moves.why_never(due.channel, due.to_origin)

    # What IRS says.

    def command(self, command: Migrate | Drain) -> None:
        """Take on what IRS wants."""
        now = self._now()
        if isinstance(command, Drain):
            self._drain(command, now)
        else:
            logger.info(
                "migration",
                number=command.number,
                streams=len(command.moves) + sum(pick.count for pick in command.picks),
                budget_per_s=command.budget_per_s,
                deadline_s=command.left_s,
            )
            refused = self._core.migrate(
                command.number,
                [Wish(move.channel, move.from_origin, move.to_origin) for move in command.moves],
                [
                    Picking(pick.from_origin, pick.to_origin, CLASS_OF[pick.class_], pick.count)
                    for pick in command.picks
                ],
                deadline=now + command.left_s,
                budget_per_s=command.budget_per_s,
                now=now,
            )
            self._tell(refused)
        self._woken.set()

    def joined(self) -> None:
        """A session to IRS begins, or its grant: it tells all drains before its first table."""
        self._unconfirmed = set(self._core.drained)

    def taken_over(self) -> None:
        """Another IRS has our grant: it plans anew what the last one wanted and has not begun."""
        if dropped := self._core.forget_migrations():
            logger.info("migrations of the last irs dropped", streams=dropped)
        self._woken.set()

    def table_changed(self, table: RoutingTable) -> None:
        """A table is in force; a drain that IRS knows no more is undone."""
        self._uplinks.table_changed(table)
        for origin in self._unconfirmed & self._core.drained.keys():
            self._undo(origin, "irs knows nothing of it")
        self._unconfirmed = set()

    def drained(self) -> list[DrainedSeen]:
        """The origins that are to be empty."""
        streams = Counter(stream.origin for stream in self._streams())
        now = self._now()
        return [
            DrainedSeen(
                origin=origin,
                left=streams[origin],
                seconds_left=round(max(0.0, until - now), 1),
            )
            for origin, until in sorted(self._core.drained.items())
        ]

    # What became of it.

    def moved(self, moved: Moved) -> None:
        """A stream has another home, for whatever cause: IRS hears of each."""
        self._by_cause[moved.why if moved.why in (MIGRATE, DRAIN) else FAILURE] += 1
        self.tell(moved)

    def register(self, metrics: Metrics, *, role: str) -> None:
        """Have its counters read."""
        metrics.register(SPECS, partial(self._samples, role))

    def _done(self, due: Due, done: MoveDone) -> None:
        self._tell(self._core.settled(due.channel, done.refused, self._now()))
        self._woken.set()

    def _drain(self, command: Drain, now: float) -> None:
        origin = command.origin
        self._unconfirmed.discard(origin)
        if command.undone:
            self._undo(origin, "irs says so")
            return
        streams = sum(stream.origin == origin for stream in self._streams())
        if not self._core.drain(
            origin,
            until=now + command.left_s,
            lingers_s=LINGER_S,
            budget_per_s=command.budget_per_s,
            streams=streams,
            now=now,
        ):
            reason = f"{DRAINS_MAX} origins are drained already"
            self._tell([Refusal(0, "", origin, "", reason, count=streams)])
            return
        logger.info(
            "origin is drained", origin=origin, streams=streams, deadline_s=round(command.left_s, 1)
        )
        self._avoid(now)

    def _undo(self, origin: str, why: str) -> None:
        if self._core.undo_drain(origin):
            logger.info("drain of origin undone", origin=origin, why=why)
            self._avoid(self._now())

    def _avoid(self, now: float) -> None:
        """New streams go where none is drained."""
        self._uplinks.view.set_drained(self._core.drained, now)
        self._uplinks.placing.routes.changed()

    def _streams(self) -> list[Live]:
        return [
            Live(channel, placement.decision.origin, placement.request.priority)
            for channel, placement in self._uplinks.placing.placements.items()
            if placement.stream.ended is None
        ]

    def _tell(self, refusals: Iterable[Refusal]) -> None:
        for refusal in refusals:
            self.tell(
                MoveRefused(
                    number=refusal.number,
                    channel=refusal.channel,
                    from_origin=refusal.from_origin,
                    to_origin=refusal.to_origin,
                    count=refusal.count,
                    reason=refusal.reason[:REASON_CHARS_MAX],
                    class_="" if refusal.priority is None else LABEL_OF[refusal.priority],
                )
            )

    def _samples(self, role: str) -> Iterable[Sample]:
        labels, counted = {"role": role}, self._core.statistics()
        for cause in (MIGRATE, DRAIN, FAILURE):
            moved = self._by_cause[cause]
            yield Sample("edged_rehoming_moved_total", moved, {**labels, "cause": cause})
        yield Sample("edged_rehoming_refused_total", counted.refused, labels)
        left = sum(drained.left for drained in self.drained())
        yield Sample("edged_rehoming_waiting", counted.waiting + left, labels)
        lingering = self._uplinks.placing.moves.lingering
        yield Sample("edged_rehoming_lingering", lingering, labels)
        parts = self._uplinks.parts
        for forced, count in (
            ("no", parts.handovers - parts.handovers_forced),
            ("yes", parts.handovers_forced),
        ):
            yield Sample("edged_rehoming_handovers_total", count, {**labels, "forced": forced})
