"""One publication and where it goes, with what is to be judged of that."""

from collections.abc import Callable

from edged.backbone.forwarding import Forwarding
from edged.errors import PublishRefusedError
from edged.media.routing import RouteRequest
from edged.policy.routing_table import Decision
from edged.runtime.hub import LiveStream

# What publishers are told names no origin: the detail beside it does, for the log.
NO_ROUTE = "the network cannot take the stream now; try again"
CUT_OFF = "the network has lost the way to where the stream went; publish again"
# Of a class; which link is for operators alone.
SHED = "shed: a link of the network is full, and {} streams give way; try again later"
LINK_FULL = "a link of the network is full, and has no room for {} streams now; try again later"
BROKE_OFF = "the stream broke off inside the network; publish again"
NO_PLACE = "the network needs the stream's place for one of a higher class; try again later"

GiveUp = Callable[[PublishRefusedError], None]


class Placement:
    """A publication and where it goes."""

    def __init__(
        self,
        stream: LiveStream,
        request: RouteRequest,
        decision: Decision,
        forwarding: Forwarding,
        give_up: GiveUp,
        *,
        renumbered: int,
        joins: bool,
        placed_at: float,
    ) -> None:
        self.stream = stream
        self.request = request
        self.decision = decision
        self.forwarding = forwarding
        self.give_up = give_up  # Called when no origin takes it any more.
        self.renumbered = renumbered  # How often it was fenced off by a run that had ended.
        # The run is another PoP's until this origin accepts it from us, so it has no other home.
        self.joins = joins
        self.placed_at = placed_at
        self.accepted = False  # By this origin, once.
        self.silent_since: float | None = None  # The origin; while it is taken for dead.
        self.fenced_at: float | None = None  # Not accepted but fenced off; by what, will show.
        self.offered_at: float | None = None  # Without an answer as yet.
        self.held_at: float | None = None  # Its origin let go of it, and no other takes it;
        self.held_code = ""  # with this code.
        self.offers = -1  # The forwarding's count of sessions that `offered_at` belongs to.

    @property
    def can_go_on(self) -> bool:
        """Whether another origin, or this one started anew, can go on where this one stopped."""
        before = self.forwarding
        if not before.splice:
            return before.packaged_seq < 0
        # Else the ring has let go of what a successor needs.
        return self.stream.ring.first_seq <= before.packaged_seq + 1

    @property
    def held_refusal(self) -> PublishRefusedError:
        """What its publisher is told when it was held for too long."""
        code = self.held_code
        detail = f"origin {self.decision.origin} has let go of it ({code}), and no other takes it"
        return PublishRefusedError(code, NO_PLACE if code == "preempted" else CUT_OFF, detail)

    def go_on(self, forwarding: Forwarding, decision: Decision, now: float) -> None:
        """Another origin has it now."""
        self.forwarding, self.decision, self.placed_at = forwarding, decision, now
        self.accepted = True
        self.silent_since = self.fenced_at = self.offered_at = self.held_at = None
        self.offers = -1

    def slept(self, late_s: float) -> None:
        """The time in which we were not there counts for nobody."""
        self.placed_at += late_s
        if self.silent_since is not None:
            self.silent_since += late_s
        if self.offered_at is not None:
            self.offered_at += late_s
        if self.fenced_at is not None:
            self.fenced_at += late_s
        if self.held_at is not None:
            self.held_at += late_s

    def stalled_s(self, now: float, *, down: bool) -> float:
        """How long its origin has made no progress; 0 unless that is `down` by its heartbeats.

        Heartbeats suspect, the lack of progress convicts. Where nothing is left to be acknowledged,
        as while a publisher is waited for, their longer silence has to.
        """
        if not down:
            self.silent_since = None
            return 0.0
        if self.silent_since is None:
            self.silent_since = now
        since = max(self.forwarding.progress_at, self.placed_at)
        if self.forwarding.received_seq >= self.stream.ring.next_seq - 1:
            since = max(since, self.silent_since)
        return now - since

    def unanswered_s(self, now: float) -> float:
        """How long the origin has not said a word on a stream that was offered to it."""
        forwarding = self.forwarding
        if forwarding.state != "opening":
            self.offered_at = None
        elif self.offered_at is None or self.offers != forwarding.reopened:
            self.offered_at, self.offers = now, forwarding.reopened
        else:
            return now - self.offered_at
        return 0.0
