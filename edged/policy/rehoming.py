"""Which live streams of a PoP go to another origin next, on the word of IRS, and how fast.

    IRS ── migrate (named streams, or so many of a class) ─▶ jobs ──┐
        ── drain (all of an origin, by then) ─────────────▶ drains ─┴─ take_due ─▶ shell moves one
        ◀─ refusals, what is left at a deadline ────────────────────── settled ◀── moved, or why not

Moves of a job, and of a drain, begin one by one at its budget's pace. A stream that was refused by
where it was to go stays where it is. Named ones are tried once; in place of one that was picked
another is, while there is any; those of a drain are tried again, ever more seldom.

Of a drain partners go first: should room run out elsewhere, those who are left at an origin that is
about to stop ought to be basic ones.
"""

import math
from collections.abc import Callable, Iterable, Sequence

from msgspec import Struct

from edged.media.epochs import DRAINS_MAX
from edged.media.stream import PriorityClass

BUDGET_PER_S_MAX = 100.0  # Of one PoP: each move sends seconds of its stream again.
IN_FLIGHT_MAX = 32  # Offered and not answered; the next wait.
JOBS_MAX = 16  # Migrations at a time: a plan a second with deadlines of several.
SPREAD_FRACTION = 0.5  # Of the time that a drain has; the second half is for those refused.
STEP_S_MAX = 0.5  # Few streams are gone soon.
RETRY_S_MIN, RETRY_S_MAX = 1.0, 15.0  # A hold after a refusal lasts 0.5 to 8 s.
LOOKS_MAX = 64  # A turn, at rules, once there is a stream to pick: another might suit it better.
SETTLED_S = 30.0  # What was moved is not picked again so soon: plans must not play with it.

TOO_MANY = f"{JOBS_MAX} migrations are under way already"
SAME_NUMBER = "another migration of that number is under way"  # Of an IRS before this one.
NONE_LEFT = "no stream of that class is there"
NOT_THERE = "it is not there"
TOO_LATE = "the deadline has come"


class Live(Struct, frozen=True):
    """A stream that might be moved."""

    channel: str
    origin: str
    priority: PriorityClass


class Wish(Struct, frozen=True):
    """One stream that is wanted elsewhere."""

    channel: str
    from_origin: str
    to_origin: str


class Picking(Struct, frozen=True):
    """So many streams of a class that are wanted elsewhere."""

    from_origin: str
    to_origin: str
    priority: PriorityClass
    count: int


class Due(Struct, frozen=True):
    """A move that is to begin now. `to_origin` "": wherever there is room."""

    channel: str
    from_origin: str
    to_origin: str
    number: int  # Of the migration; 0: a drain.


WhyNot = Callable[[Due], str]


def _no_reason(due: Due) -> str:
    del due
    return ""


class Refusal(Struct, frozen=True):
    """What did not move, and why; `channel` "": `count` of a `Picking`."""

    number: int
    channel: str
    from_origin: str
    to_origin: str
    reason: str
    count: int = 1
    priority: PriorityClass | None = None  # Of a `Picking`.


class _Pick(Struct):
    """How far a picking is."""

    picking: Picking
    left: int
    reason: str = NONE_LEFT  # The last one was refused for.
    never: dict[str, str] = {}  # That may not go there, and why.
    may: set[str] = set()


class _Job(Struct):
    """One migration."""

    number: int
    deadline: float
    step_s: float
    ready_at: float
    wishes: list[Wish]
    picks: list[_Pick]
    tried: set[str] = set()  # Of what was picked.
    in_flight: int = 0

    @property
    def left(self) -> int:
        """Moves that have not begun."""
        return len(self.wishes) + sum(pick.left for pick in self.picks)


class _Drain(Struct):
    """One origin that is to be empty."""

    until: float
    step_s: float
    ready_at: float
    tries: dict[str, tuple[int, float]] = {}  # Channel -> how often, and not again before.


class RehomingStatistics(Struct, frozen=True, kw_only=True):
    """Counters since the start, and what is under way."""

    moved: int
    refused: int
    in_flight: int
    waiting: int  # Of migrations, those not begun.


class Rehoming:
    """The moves that one PoP is to make. Every change says `now`, monotonic."""

    def __init__(self) -> None:
        self._jobs: dict[int, _Job] = {}
        self._drains: dict[str, _Drain] = {}
        self._in_flight: dict[str, tuple[Due, _Pick | None]] = {}  # By channel.
        self._settled_until: dict[str, float] = {}
        self._untold: list[Refusal] = []  # For the next who asks.
        self._moved = self._refused = 0

    @property
    def drained(self) -> dict[str, float]:
        """The origins that are to be empty, and by when."""
        return {origin: drain.until for origin, drain in self._drains.items()}

    def migrate(
        self,
        number: int,
        wishes: Sequence[Wish],
        picks: Sequence[Picking],
        *,
        deadline: float,
        budget_per_s: float,
        now: float,
    ) -> list[Refusal]:
        """Take a migration on; returns what of it is refused at once."""
        assert budget_per_s > 0, "a budget allows something"
        job = _Job(
            number=number,
            deadline=deadline,
            step_s=1 / min(budget_per_s, BUDGET_PER_S_MAX),
            ready_at=now,
            wishes=list(wishes),
            picks=[_Pick(pick, pick.count) for pick in picks],
        )
        if number in self._jobs:
            return _refusals(job, SAME_NUMBER)
        if len(self._jobs) >= JOBS_MAX:
            return _refusals(job, TOO_MANY)
        self._jobs[number] = job
        return self.expire(now)

    def forget_migrations(self) -> int:
        """Begin no more moves of what was asked so far; returns how many were left.

        Of an IRS that is gone: its successor plans from what is. What is under way goes on.
        """
        left = sum(job.left for job in self._jobs.values())
        for number, job in list(self._jobs.items()):
            job.wishes, job.picks = [], []
            if not job.in_flight:
                del self._jobs[number]
        return left

    def drain(
        self,
        origin: str,
        *,
        until: float,
        budget_per_s: float,
        streams: int,
        now: float,
        lingers_s: float = 0.0,
    ) -> bool:
        """Have an origin emptied by then, from so many streams; False: too many are drained.

        `lingers_s`: so long a stream that has moved is still there as well. Told again it goes on
        with the newer deadline; what was tried is tried at once.
        """
        assert budget_per_s > 0, "a budget allows something"
        if origin not in self._drains and len(self._drains) >= DRAINS_MAX:
            return False
        spread_s = max(0.0, SPREAD_FRACTION * (until - lingers_s - now)) / max(1, streams)
        step_s = max(min(STEP_S_MAX, spread_s), 1 / min(budget_per_s, BUDGET_PER_S_MAX))
        known = self._drains.get(origin)
        ready_at = now if known is None else max(now, known.ready_at)
        self._drains[origin] = _Drain(until, step_s, ready_at)
        return True

    def undo_drain(self, origin: str) -> bool:
        """Leave what is there where it is; False: nobody wanted it emptied."""
        return self._drains.pop(origin, None) is not None

    def take_due(
        self, streams: Iterable[Live], now: float, *, why_not: WhyNot = _no_reason
    ) -> list[Due]:
        """The moves that begin now, of these streams; each is to be settled.

        `why_not`: of a move that nobody should try; none is picked for it, and no turn is lost.
        """
        here = {stream.channel: stream for stream in streams}
        due: list[Due] = []
        for job in list(self._jobs.values()):
            if job.ready_at <= now < job.deadline and self._has_room:
                due += self._take_of_job(job, here, now, why_not)
        for origin, drain in self._drains.items():
            if drain.ready_at <= now and self._has_room:
                due += self._take_of_drain(origin, drain, here, now)
        return due

    def settled(self, channel: str, reason: str, now: float) -> list[Refusal]:
        """A move is over: `reason` why the stream stays, "" when it has moved.

        Returns what IRS is to hear.
        """
        due, pick = self._in_flight.pop(channel)
        job = self._jobs.get(due.number)
        if job is not None:
            job.in_flight -= 1
        if not reason:
            self._moved += 1
            self._settled_until[channel] = now + SETTLED_S
            if (drain := self._drains.get(due.from_origin)) is not None:
                drain.tries.pop(channel, None)
            return self.expire(now)
        self._refused += 1
        refusal = Refusal(due.number, channel, due.from_origin, due.to_origin, reason)
        told = [refusal]
        if pick is not None and job is not None:
            pick.left, pick.reason = pick.left + 1, reason
            told = []  # Another is tried in its place.
        elif not due.number and (drain := self._drains.get(due.from_origin)) is not None:
            count, _ = drain.tries.get(channel, (0, 0.0))
            wait_s = min(RETRY_S_MAX, RETRY_S_MIN * 2 ** min(count, 8))
            drain.tries[channel] = (count + 1, now + wait_s)
            told = [] if count else told
        return [*told, *self.expire(now)]

    def expire(self, now: float) -> list[Refusal]:
        """Give up what has not begun by its deadline, and forget what is done."""
        told, self._untold = self._untold, []
        for number, job in list(self._jobs.items()):
            if now >= job.deadline and job.left:
                told += _refusals(job, TOO_LATE)
                job.wishes, job.picks = [], []
            if not job.left and not job.in_flight:
                del self._jobs[number]
        for channel in [name for name, until in self._settled_until.items() if until <= now]:
            del self._settled_until[channel]
        return told

    def next_timeout(self) -> float:
        """When `take_due` or `expire` may have something to do; inf: when something is settled.

        While as many are in flight as may be, only deadlines count.
        """
        due = [job.deadline for job in self._jobs.values() if job.left]
        if self._has_room:
            due += [job.ready_at for job in self._jobs.values() if job.left]
            due += [drain.ready_at for drain in self._drains.values()]
        return min(due, default=math.inf)

    def statistics(self) -> RehomingStatistics:
        """How many were moved, refused, and are under way."""
        return RehomingStatistics(
            moved=self._moved,
            refused=self._refused,
            in_flight=len(self._in_flight),
            waiting=sum(job.left for job in self._jobs.values()),
        )

    @property
    def _has_room(self) -> bool:
        return len(self._in_flight) < IN_FLIGHT_MAX

    def _take_of_job(
        self, job: _Job, here: dict[str, Live], now: float, why_not: WhyNot
    ) -> list[Due]:
        """One move at most: the next waits for its turn."""
        found = self._next_wish(job, here) or self._next_pick(job, here, why_not)
        if found is None:
            job.ready_at = now + STEP_S_MAX  # What is in flight may yet be refused.
            if not job.in_flight and not job.wishes:
                self._untold += _refusals(job, "")
                job.picks = []
            return []
        due, pick = found
        job.in_flight += 1
        job.ready_at = now + job.step_s
        self._in_flight[due.channel] = due, pick
        return [due]

    def _next_wish(self, job: _Job, here: dict[str, Live]) -> tuple[Due, None] | None:
        while job.wishes:
            wish = job.wishes[0]
            if wish.channel in self._in_flight:
                return None
            job.wishes.pop(0)
            stream = here.get(wish.channel)
            if stream is not None and stream.origin == wish.from_origin:
                due = Due(wish.channel, wish.from_origin, wish.to_origin, job.number)
                return due, None
            self._untold += _refusals(_Job(job.number, 0, 0, 0, [wish], []), NOT_THERE)
        return None

    def _next_pick(
        self, job: _Job, here: dict[str, Live], why_not: WhyNot
    ) -> tuple[Due, _Pick] | None:
        for pick in job.picks:
            if pick.left <= 0:
                continue
            while (due := self._most_bound(job, pick, here, why_not)) is not None:
                if reason := why_not(due):  # By now: what was known is old.
                    pick.never[due.channel] = reason
                    for each in job.picks:
                        each.may = set()
                    continue
                job.tried.add(due.channel)
                pick.left -= 1
                return due, pick
        return None

    def _most_bound(
        self, job: _Job, pick: _Pick, here: dict[str, Live], why_not: WhyNot
    ) -> Due | None:
        """Of the streams that a picking may have the first that the fewest others may have.

        So what can go anywhere is left for them, as far as LOOKS_MAX lets it be known.
        """
        wanted = pick.picking
        others = [
            other
            for other in job.picks
            if other is not pick
            and other.left > 0
            and (other.picking.from_origin, other.picking.priority)
            == (wanted.from_origin, wanted.priority)
        ]
        looks = LOOKS_MAX
        best: str | None = None
        fewest = len(others) + 1
        for stream in here.values():
            channel = stream.channel
            if (
                (stream.origin, stream.priority) != (wanted.from_origin, wanted.priority)
                or channel in job.tried
                or channel in self._in_flight
                or channel in self._settled_until
            ):
                continue
            unknown = [
                each
                for each in (pick, *others)
                if channel not in each.may and channel not in each.never
            ]
            if best is not None and looks < len(unknown):
                continue
            looks -= len(unknown)
            for each in unknown:
                _ask(stream, each, job.number, why_not)
            if reason := pick.never.get(channel):
                pick.reason = reason if pick.reason == NONE_LEFT else pick.reason
                continue
            ways = sum(channel in other.may for other in others)
            if ways < fewest:
                best, fewest = channel, ways
                if not ways:
                    break
        if best is None:
            return None
        return Due(best, wanted.from_origin, wanted.to_origin, job.number)

    def _take_of_drain(
        self, origin: str, drain: _Drain, here: dict[str, Live], now: float
    ) -> list[Due]:
        waiting = [
            stream
            for stream in here.values()
            if stream.origin == origin
            and stream.channel not in self._in_flight
            and drain.tries.get(stream.channel, (0, now))[1] <= now
        ]
        if not waiting:
            drain.ready_at = now + STEP_S_MAX
            for channel in drain.tries.keys() - here.keys():
                del drain.tries[channel]
            return []
        stream = min(waiting, key=lambda each: (each.priority, each.channel))
        due = Due(stream.channel, origin, "", 0)
        drain.ready_at = now + drain.step_s
        self._in_flight[stream.channel] = due, None
        return [due]


def _ask(stream: Live, pick: _Pick, number: int, why_not: WhyNot) -> None:
    """Learn whether a stream may be picked for it."""
    due = Due(stream.channel, stream.origin, pick.picking.to_origin, number)
    if reason := why_not(due):
        pick.never[stream.channel] = reason
    else:
        pick.may.add(stream.channel)


def _refusals(job: _Job, reason: str) -> list[Refusal]:
    """What of a job does not move; `reason` "": as the last one of each picking was refused."""
    number = job.number
    told = [
        Refusal(number, wish.channel, wish.from_origin, wish.to_origin, reason)
        for wish in job.wishes
    ]
    for pick in job.picks:
        if pick.left > 0:
            wanted = pick.picking
            why = "; ".join(filter(None, (reason, pick.reason)))
            told.append(
                Refusal(
                    number,
                    "",
                    wanted.from_origin,
                    wanted.to_origin,
                    why,
                    count=pick.left,
                    priority=wanted.priority,
                )
            )
    return told
