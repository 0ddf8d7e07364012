"""What is placed, and where: simulated streams, and origins with production's own slots."""

import enum

from edged.errors import PublishRefusedError
from edged.media.routing import CLASSES, OriginReport, ReportedState
from edged.media.stream import StreamId
from edged.policy.slots import Slots
from edged.tools.simulate.demand import Arrival

MBPS_STEPS = 1000  # Bitrates are summed as whole kbps, so that sums do not drift.


class Stage(enum.IntEnum):
    """How far a stream has come."""

    WAITING = 0  # It has not been accepted yet.
    LIVE = 1
    MOVING = 2  # Its origin is gone, another has not accepted it yet.
    OVER = 3  # Ended, rejected, or cut off.


class Stream:
    """One stream, from asking for a place to its end."""

    __slots__ = (
        "at",
        "calm",
        "counted",
        "ends_at",
        "full",
        "going",
        "kbps",
        "offers",
        "origin",
        "pop",
        "priority",
        "since",
        "stage",
        "stream_id",
        "tried",
    )

    def __init__(self, arrival: Arrival, number: int) -> None:
        self.at = arrival.at
        self.pop = arrival.pop
        self.priority = arrival.priority
        self.kbps = round(arrival.mbps * MBPS_STEPS)
        self.ends_at = arrival.ends_at
        self.stream_id = StreamId(str(number), 1)
        self.stage = Stage.WAITING
        self.origin = -1  # Where it is, or is offered.
        self.offers = 0  # So many origins were asked, since it came or had to move.
        self.tried = 0  # These, as bits.
        self.counted = False  # Its PoP counts it at `origin`.
        self.since = arrival.at  # It came, or lost its origin.
        self.going = False  # It is offered to another origin while it is live.
        self.calm = self.full = False  # How the network was when it came.


class Site:
    """One origin. It has the final word on each stream.

    As by default in production it keeps no slots for partners by itself: leases and prices do.
    """

    def __init__(self, index: int, name: str, total: int) -> None:
        self.index = index
        self.name = name
        self.configured = total
        self.incarnation = 1
        self.alive = True  # Its process runs.
        self.frozen = False
        self.drains = False
        self.streams: dict[Stream, None] = {}  # In the order in which they came.
        self.slots = Slots(total, 0)
        self._said = (0, 0, False, 0)
        self._report: OriginReport | None = None

    @property
    def works(self) -> bool:
        """Whether it answers, beats and makes progress."""
        return self.alive and not self.frozen

    @property
    def capacity(self) -> int:
        """Slots for new streams and old, as one who sees everything counts them."""
        return self.slots.total if self.works and not self.drains else 0

    def resize(self, total: int) -> None:
        """Have other slots; who holds one keeps it."""
        self.slots.resize(total, 0)

    def take(self, stream: Stream) -> bool:
        """Accept a stream, or refuse it."""
        assert self.works, "who is dead accepts nothing"
        if self.drains:
            return False
        try:
            self.slots.take(stream.stream_id, stream.priority)
        except PublishRefusedError:
            return False
        self.streams[stream] = None
        return True

    def give_back(self, stream: Stream) -> None:
        """Let go of a stream."""
        del self.streams[stream]
        self.slots.give_back(stream.stream_id)

    def lose_all(self) -> list[Stream]:
        """Forget all streams, as with the process."""
        lost = list(self.streams)
        self.streams.clear()
        self.slots = Slots(self.slots.total, self.slots.reserve)
        return lost

    def report(self) -> OriginReport:
        """Its heartbeat now; the one before if it says the same."""
        said = (self.slots.used, self.slots.total, self.drains, self.incarnation)
        if self._report is None or said != self._said:
            self._said, self._report = said, self._make_report()
        return self._report

    def _make_report(self) -> OriginReport:
        state = ReportedState.DRAIN if self.drains else ReportedState.UP
        partner, affiliate, basic = (self.slots.free(priority) for priority in CLASSES)
        free = (0, 0, 0) if self.drains else (partner, affiliate, basic)
        return OriginReport(self.name, self.incarnation, state, self.slots.total, free)
