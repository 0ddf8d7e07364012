"""Streams to origins: placed by policy, and placed anew, or given up, by what origins say.

All of it is synchronous, in the pump's turn.
"""

import math
import secrets
from collections import Counter
from collections.abc import Callable

import structlog

from edged.backbone.directory import Directory, DirectoryRecord
from edged.backbone.forwarding import Forwarding
from edged.backbone.sender import OriginLink
from edged.errors import EdgedError, PublishRefusedError
from edged.media.routing import RULES_MAX, OriginState, RouteRequest
from edged.media.stream import PriorityClass, StreamId
from edged.policy.departures import ANSWER_S_MAX, LOST_S_MAX, STALLED_S_MAX
from edged.policy.pop_view import PopView
from edged.policy.takeover import (
    EPOCH_CHANCE_BITS,
    LISTED_S_MAX,
    OUTNUMBERED,
    TAKEN_OVER,
    ChannelRuns,
    Fencing,
    takeover_id,
)
from edged.roles.group_tags import GroupTags
from edged.roles.moves import Moves
from edged.roles.placement import BROKE_OFF, CUT_OFF, NO_ROUTE, GiveUp, Placement
from edged.roles.route_finding import RouteFinding
from edged.roles.telling import Telling
from edged.runtime.faults import contained
from edged.runtime.hub import LiveStream
from edged.runtime.pump import Pump

RULES_COUNTED_MAX = 4 * RULES_MAX  # Of all tables since the start; then the counts begin anew.

logger = structlog.get_logger("edged.pop")


class Placing:
    """All publications of one PoP shard."""

    def __init__(
        self,
        pump: Pump,
        view: PopView,
        listing: Directory,
        link: Callable[[str], OriginLink | None],
    ) -> None:
        """`link` gives the way to an origin, while there is one."""
        self.runs = ChannelRuns()
        self.next_number: Callable[[str], int] = lambda channel: self.runs.next_publication(
            channel, 0.0, 0
        )  # Of a run that begins now; the door knows the time.
        self.placements: dict[str, Placement] = {}  # By channel.
        self.placed_by: Counter[str] = Counter()  # Rule that matched, "" for none -> streams.
        self.telling = Telling()  # The events of streams that move.
        self.now, self.view, self._listing, self.link = pump.now, view, listing, link
        self.routes = RouteFinding(view, self.placements, pump.now)
        self.moves = Moves(self)
        self._judges_from = -math.inf  # We were late before: what comes of it is to be heard first.
        self.tags = GroupTags(view)

    def place(
        self,
        stream: LiveStream,
        request: RouteRequest,
        give_up: GiveUp,
        *,
        renumbered: int = 0,
        after: Forwarding | None = None,
        joins: str = "",
    ) -> Placement:
        """Choose an origin and begin to forward; raises `PublishRefusedError` with the reasons.

        `after`: the forwarding to the origin that had it before, which the new one goes on from.
        `joins`: the origin that has the run from another PoP, and goes on with it from here.
        """
        older = self.placements.get(stream.channel)
        if older is not None:  # Taken over here: the older run's ring has ended, its place is free.
            self._release(older)
        routes = self.routes
        decision = routes.choose_incumbent(request, joins) if joins else routes.choose(request)
        link = self.link(decision.origin)
        assert link is not None, "what has no link is blocked"
        try:
            forwarding = link.forward(
                stream, after=after, takes_over=bool(joins), terms=decision.terms
            )
        except EdgedError as error:
            raise PublishRefusedError("full", NO_ROUTE, str(error)) from error
        if forwarding.refusal is not None:
            raise forwarding.refusal
        self.view.note_request(request, placed=True)
        self.view.placed(decision.origin, request)
        placement = Placement(
            stream,
            request,
            decision,
            forwarding,
            give_up,
            renumbered=renumbered,
            joins=bool(joins),
            placed_at=self.now(),
        )
        self.placements[stream.channel] = placement
        self.placed_by[decision.matched] += 1
        if len(self.placed_by) > RULES_COUNTED_MAX:
            self.placed_by = Counter({decision.matched: 1})
        self.tags.learn(stream.channel, None)
        logger.info(
            "stream placed",
            channel=stream.channel,
            publication=f"{stream.stream_id.publication:x}",
            origin=decision.origin,
            rule=decision.rule,
            matched=decision.matched or None,
            table=f"{self.view.version}",
            home_epoch=stream.stream_id.home_epoch or None,
        )
        return placement

    def take_over(self, stream: LiveStream) -> None:
        """A run has another publisher: raise its epoch, so that everyone hears of it."""
        placement = self.placements.get(stream.channel)
        if placement is not None and placement.stream is stream:
            self.moves.drop(stream.channel, "another publisher has taken it over")
            newer = takeover_id(stream.stream_id, secrets.randbits(EPOCH_CHANCE_BITS))
            self.renew(placement, newer, "taken over by another publisher")

    def renew(self, placement: Placement, stream_id: StreamId, why: str) -> None:
        """Have a run's origin go on under a newer epoch; what is on the way comes again."""
        stream, before = placement.stream, placement.forwarding
        if (link := self.link(placement.decision.origin)) is None:
            return
        known, stream.stream_id = stream.stream_id, stream_id
        try:
            forwarding = link.forward(stream, after=before, takes_over=True)
        except EdgedError as error:
            stream.stream_id = known  # It goes on all the same, but others do not hear of it.
            logger.warning("newer epoch is not told", channel=stream.channel, reason=str(error))
            return
        placement.forwarding, placement.accepted = forwarding, False
        placement.fenced_at, placement.placed_at = None, self.now()
        self.stop_forwarding(before, why)
        self.runs.begun(stream.stream_id)
        if forwarding.refusal is not None:
            self._give_up(placement, forwarding.refusal)

    def waiting_changed(self, stream: LiveStream) -> None:
        """A stream has lost its publisher, or has one again: its origin tells the network."""
        self._tell_waiting(stream, self._listing.lookup(stream.channel))

    def end(self, stream: LiveStream) -> None:
        """The publication ended: its forwarding ends with the ring, its place is free now."""
        placement = self.placements.get(stream.channel)
        if placement is not None and placement.stream is stream:
            self._release(placement)

    def cut_off(self, origin: str, why: str) -> None:
        """An origin's streams have no way there any more: they go on elsewhere, or are given up."""
        for placement in list(self.placements.values()):
            if placement.decision.origin == origin and placement.stream.ended is None:
                detail = f"origin {origin}: {why}"
                if not self._go_on_elsewhere(placement, detail):
                    self._give_up(placement, PublishRefusedError("no_route", CUT_OFF, detail))

    def listed(self, channel: str, record: DirectoryRecord | None) -> None:
        """The directory has something new of a channel: a takeover, or where a group's tags are."""
        placement = self.placements.get(channel)
        if record is not None:
            waited = placement is not None and placement.stream.waiting_since is not None
            waiting = record.entry.waiting or waited
            self.runs.listed(record.entry.stream_id, waiting=waiting, now=self.now())
        if placement is None:
            self.tags.learn(channel, record)
        elif record is not None and self.moves.is_newer(record.entry.stream_id, placement):
            self._taken_over(placement, f"by a run at origin {record.origin}")
        else:
            self._tell_waiting(placement.stream, record)

    def tick(self, now: float) -> None:
        """Judge what has waited long enough; call it a few times a second."""
        self.moves.tick(now)
        for placement in [p for p in self.placements.values() if p.stream.ended is None]:
            with contained(logger, "placement not judged", channel=placement.stream.channel):
                if placement.fenced_at is not None:
                    if now - placement.fenced_at >= LISTED_S_MAX:
                        self._judge_fencing(placement)
                elif placement.held_at is not None:
                    self._judge_held(placement, placement.held_at, now)
                elif placement.forwarding.finished:
                    self._broke_off(placement)
                elif self._is_convicted(placement, now):
                    self._go_on_elsewhere(placement, "no heartbeat and no progress")
                elif placement.joins and now - placement.placed_at >= ANSWER_S_MAX:
                    self._begin_anew(placement, f"no answer within {ANSWER_S_MAX:g} s")
                elif placement.unanswered_s(now) >= ANSWER_S_MAX:
                    self._timed_out(placement, now)

    def slept(self, late_s: float) -> None:
        """We were late ourselves by so much: answers may lie unread, so it counts for nobody."""
        self._judges_from = self.now() + STALLED_S_MAX
        self.moves.slept(late_s)
        for placement in self.placements.values():
            placement.slept(late_s)

    # What origins say.

    def accepted(self, forwarding: Forwarding) -> None:
        """The origin took a stream: after a refusal it is trusted again."""
        self.moves.accepted(forwarding)
        placement = self._of(forwarding)
        if placement is not None:
            placement.accepted, placement.joins = True, False
        stream = forwarding.stream
        self.view.accepted(forwarding.origin, stream.channel, stream.grant.priority)

    def refused(self, forwarding: Forwarding, code: str, reason: str) -> None:
        """The origin has the final word: try another, or give the publisher up."""
        placement = self._of(forwarding)
        if placement is None:
            self.moves.refused(forwarding, code, reason)
            return
        now = self.now()
        if code == "fenced":
            if forwarding.fenced_by is not None:
                self.runs.heard(forwarding.fenced_by)
            if placement.accepted:
                self._taken_over(placement, f"origin {forwarding.origin}: {reason}")
            else:  # By a run that is live, if the directory comes to list it; or by one long over.
                placement.fenced_at = now
        elif placement.joins:
            self._begin_anew(placement, f"{code}: {reason}")
        elif code in ("full", "drain", "preempted"):
            priority = PriorityClass.PARTNER if code == "drain" else placement.request.priority
            asked = forwarding.terms.on_full != "reject"
            self.view.refused(forwarding.origin, now, priority=priority, asked=asked)
            if code == "full" and forwarding.packaged_seq < 0:
                self._place_again(placement)
            else:
                self._let_go(placement, code, reason)
        else:
            who = f"origin {forwarding.origin}"
            self._give_up(placement, PublishRefusedError(code, reason, who))

    def _tell_waiting(self, stream: LiveStream, record: DirectoryRecord | None) -> None:
        """Tell a stream's origin whether it waits, if that does not say so and knows the word."""
        placement = self.placements.get(stream.channel)
        entry = None if record is None else record.entry
        if placement is None or entry is None or entry.stream_id != stream.stream_id:
            return
        if entry.formats and entry.waiting is not (stream.waiting_since is not None):
            placement.forwarding.tell_waiting()

    def _of(self, forwarding: Forwarding) -> Placement | None:
        """The placement that a forwarding serves, if it still does."""
        placement = self.placements.get(forwarding.stream.channel)
        return placement if placement is not None and placement.forwarding is forwarding else None

    def _release(self, placement: Placement) -> None:
        channel = placement.stream.channel
        self.placements.pop(channel, None)
        self.view.released(placement.decision.origin, placement.request)
        self.tags.learn(channel, self._listing.lookup(channel))
        self.moves.drop(channel, "it is over, or goes elsewhere")
        if placement.forwarding.state == "waiting":  # Else the end of its ring ends it.
            self.stop_forwarding(placement.forwarding, "the publication is over")

    def stop_forwarding(self, forwarding: Forwarding, reason: str) -> None:
        if (link := self.link(forwarding.origin)) is not None:
            link.stop_forwarding(forwarding, reason)

    def _give_up(self, placement: Placement, error: PublishRefusedError) -> None:
        self._release(placement)
        self.stop_forwarding(placement.forwarding, error.reason)
        placement.give_up(error)

    def _place_again(self, placement: Placement, *, renumbered: int = 0) -> None:
        self._release(placement)
        self.stop_forwarding(placement.forwarding, "sent elsewhere")
        try:
            self.place(
                placement.stream, placement.request, placement.give_up, renumbered=renumbered
            )
        except PublishRefusedError as error:
            placement.give_up(error)

    def _go_on_elsewhere(self, placement: Placement, detail: str) -> bool:
        """Have another origin go on where this one stopped; False, with nothing done, if none can.

        The home epoch rises: should the one before come back, nobody takes its parts any more.
        """
        stream, before = placement.stream, placement.forwarding
        if self.moves.take_lead(placement, detail):
            return True
        if placement.joins:
            self._begin_anew(placement, detail)
            return True
        if not placement.can_go_on or not self._is_routable_without(placement):
            return False
        newer = self.moves.newest_offered(stream.stream_id).at_next_home
        self._release(placement)
        self.stop_forwarding(before, "goes on elsewhere")
        stream.stream_id = newer
        self.runs.begun(stream.stream_id)
        logger.warning(
            "stream goes on elsewhere",
            channel=stream.channel,
            before=before.origin,
            why=detail,
            packaged_seq=before.packaged_seq,
            units_again=stream.ring.next_seq - before.packaged_seq - 1,
        )
        try:
            after = self.place(stream, placement.request, placement.give_up, after=before)
        except PublishRefusedError as error:
            placement.give_up(error)
            return True
        first = before.packaged_seq + 1
        self.telling.rehomed(stream, before.origin, after.decision.origin, detail, unit_seq=first)
        return True

    def _let_go(self, placement: Placement, code: str, reason: str) -> None:
        """Its origin lets go of a stream: another goes on, or we wait for one that takes it."""
        before = placement.forwarding
        if before.packaged_seq < 0 and self._is_routable_without(placement):
            self._place_again(placement)
        elif self._go_on_elsewhere(placement, f"{code}: {reason}"):
            pass
        elif placement.can_go_on and (link := self.link(before.origin)) is not None:
            placement.forwarding = link.forward(placement.stream, after=before, hold=True)
            placement.held_at, placement.held_code = self.now(), code
            logger.warning(
                "stream waits for an origin",
                channel=placement.stream.channel,
                origin=before.origin,
                why=f"{code}: {reason}",
            )
        else:
            self._give_up(placement, PublishRefusedError(code, reason, f"origin {before.origin}"))

    def _judge_held(self, placement: Placement, held_at: float, now: float) -> None:
        """Offer it where it is taken now; give it up when it has waited as long as for the lost."""
        forwarding, origin = placement.forwarding, placement.decision.origin
        if forwarding.state != "waiting":  # Offered on a new session: the origin is back.
            placement.held_at = None
        elif self._go_on_elsewhere(placement, "another origin takes it"):
            pass
        elif (found := self.routes.find(placement.request)) and (
            link := self.link(origin)
        ) is not None:
            placement.held_at, forwarding.terms = None, found.terms
            link.offer_held(forwarding)
        elif now - held_at >= LOST_S_MAX or not placement.can_go_on:
            self._give_up(placement, placement.held_refusal)

    def _is_routable_without(self, placement: Placement) -> bool:
        """Whether another origin would take the stream now."""
        found = self.routes.find(placement.request)
        return found is not None and found.origin != placement.decision.origin

    def _is_convicted(self, placement: Placement, now: float) -> bool:
        """Whether its origin is dead or frozen; while we were late ourselves, nobody is."""
        down = self.view.capacitor.state(placement.decision.origin) is OriginState.DOWN
        stalled_s = placement.stalled_s(now, down=down)
        return now >= self._judges_from and stalled_s >= STALLED_S_MAX

    def _taken_over(self, placement: Placement, detail: str) -> None:
        channel = placement.stream.channel
        if placement.stream.waiting_since is None:  # Else its publisher has come back elsewhere.
            self.runs.fenced(channel, self._listed(channel), self.now())
        self._give_up(placement, PublishRefusedError("fenced", TAKEN_OVER, detail))

    def _judge_fencing(self, placement: Placement) -> None:
        stream, detail = placement.stream, f"origin {placement.forwarding.origin}"
        listed, renumbered = self._listed(stream.channel), placement.renumbered
        match self.runs.judge_fencing(
            stream.stream_id, listed, renumbered=renumbered, joins=placement.joins
        ):
            case Fencing.TAKEN_OVER:
                self._taken_over(placement, detail)
            case Fencing.OUTNUMBERED:
                self._give_up(placement, PublishRefusedError("fenced", OUTNUMBERED, detail))
            case Fencing.RENUMBER:
                self._begin_anew(placement, f"one that has ended had a newer number: {detail}")

    def _begin_anew(self, placement: Placement, why: str) -> None:
        """Give a run that no origin has from us another number: by the one it had, nobody plays it.

        Nothing of it is lost; one that was to join a run is one of its own.
        """
        stream = placement.stream
        self.runs.heard(stream.stream_id)
        number = self.next_number(stream.channel)
        stream.stream_id = StreamId(stream.channel, number)
        self.runs.begun(stream.stream_id)
        logger.warning(
            "publication numbered anew",
            channel=stream.channel,
            publication=f"{number:x}",
            joined=placement.joins or None,
            why=why,
        )
        self._place_again(placement, renumbered=placement.renumbered + 1)

    def _listed(self, channel: str) -> StreamId | None:
        record = self._listing.lookup(channel)
        return None if record is None else record.entry.stream_id

    def _broke_off(self, placement: Placement) -> None:
        forwarding = placement.forwarding
        logger.error(
            "forwarding broke off",
            channel=placement.stream.channel,
            origin=forwarding.origin,
            reason=forwarding.closed_reason,
        )
        detail = f"origin {forwarding.origin}: {forwarding.closed_reason}"
        self._give_up(placement, PublishRefusedError("internal", BROKE_OFF, detail))

    def _timed_out(self, placement: Placement, now: float) -> None:
        """Vote against the origin, and go elsewhere if that is possible; else wait on."""
        origin = placement.forwarding.origin
        logger.warning(
            "origin did not answer",
            channel=placement.stream.channel,
            origin=origin,
            after_s=ANSWER_S_MAX,
        )
        self.view.timed_out(origin, now)
        placement.offered_at = now  # It may vote again.
        if (
            placement.forwarding.packaged_seq < 0
            and self.routes.find(placement.request) is not None
        ):
            self._place_again(placement)
