"""Live streams on their way from one origin to another, made before broken.

    placed at A ──begin──▶ offered to B ──B accepts──▶ placed at B, A lingers ──LINGER_S──▶ A let go
                               │ B refuses, or does not answer           (viewers' PoPs go over)
                               ▼
                           placed at A, as before

While B has not accepted, nothing changes for anybody: A has the stream and what it acknowledges.
What the ring has let go of B could not get, so it lets go of nothing meanwhile. Once B accepts, it
is the run's home, under a home epoch above A's, by which every PoP fences A off as soon as it has
gone over. Should A be lost before, B is its successor without another offer.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog
from msgspec import Struct

from edged.backbone.forwarding import Forwarding
from edged.errors import EdgedError, RouteUnavailableError
from edged.media.stream import StreamId
from edged.policy.bindings import why_rules_keep
from edged.policy.departures import ANSWER_S_MAX
from edged.policy.handover import HANDOVER_S_MAX
from edged.policy.routing_table import Decision, choose_target
from edged.runtime.faults import contained

if TYPE_CHECKING:
    from edged.media.routing import RouteRequest
    from edged.roles.placement import Placement
    from edged.roles.placing import Placing

LINGER_S = HANDOVER_S_MAX + 1.0  # By then each PoP has heard, within 0.1 s, and gone over.
LINGERING_MAX = 2000  # Twenty seconds of the highest budget; beyond it the oldest are let go of.
NOWHERE = "no other origin takes it"
REASONS_SHOWN = 3
RING_TOO_SHORT = "the ring does not reach back to what is packaged"

logger = structlog.get_logger("edged.pop")


class MoveDone(Struct, frozen=True, kw_only=True):
    """What became of a move: `refused` says why the stream stays, "" when it has moved."""

    stream_id: StreamId
    from_origin: str
    to_origin: str
    unit_seq: int = -1  # The first that the new home got.
    refused: str = ""


class _Move(Struct):
    """One that was offered."""

    placement: "Placement"
    decision: Decision
    forwarding: Forwarding
    why: str
    number: int
    done: Callable[[MoveDone], None]
    offered_at: float


class _Lingering(Struct):
    """A home that goes on until all have left it."""

    forwarding: Forwarding
    request: "RouteRequest"
    until: float


class Moves:
    """All moves of one PoP shard; synchronous, in the pump's turn."""

    def __init__(self, placing: "Placing") -> None:
        self._placing = placing
        self._moves: dict[str, _Move] = {}  # By channel.
        self._lingering: list[_Lingering] = []  # The oldest first.

    @property
    def lingering(self) -> int:
        """Streams that still go to the origin that they have left."""
        return len(self._lingering)

    def is_moving(self, channel: str) -> bool:
        """Whether a stream is offered to another origin now."""
        return channel in self._moves

    def begin(
        self, channel: str, to: str, why: str, done: Callable[[MoveDone], None], number: int = 0
    ) -> str:
        """Offer a stream to another origin: `to`, or "" for wherever a new one would go.

        Returns why it stays where it is, or "": then `done` is called, once. `number` is for who
        hears of it.
        """
        placing = self._placing
        placement = placing.placements.get(channel)
        if placement is None:
            return "it is not published here"
        if reason := self._why_not_now(placement):
            return reason
        try:
            decision = choose_target(
                placement.request, placing.view, placing.now(), at=placement.decision.origin, to=to
            )
            forwarding = self._offer(placement, decision)
        except RouteUnavailableError as error:
            return error.rejected.get(to) or _why_nowhere(error, placement.decision.origin)
        except EdgedError as error:
            return str(error)
        placing.view.placed(decision.origin, placement.request)
        self._moves[channel] = _Move(
            placement, decision, forwarding, why, number, done, placing.now()
        )
        return ""

    def why_never(self, channel: str, to: str) -> str:
        """Why the rules do not let a stream go there; "" when they do."""
        placement, placing = self._placing.placements.get(channel), self._placing
        if placement is None:
            return ""
        at = placement.decision.origin
        return why_rules_keep(placement.request, placing.view, at=at, to=to)

    def _offer(self, placement: "Placement", decision: Decision) -> Forwarding:
        """Offer it there as well; raises EdgedError if that cannot be done."""
        stream, before = placement.stream, placement.forwarding
        link = self._placing.link(decision.origin)
        if link is None or not link.is_up(stream.grant.priority):
            raise EdgedError("link down")
        newer = stream.stream_id.at_next_home
        before.trims = False
        try:
            forwarding = link.forward(stream, newer, after=before, terms=decision.terms)
            if forwarding.refusal is not None:
                raise forwarding.refusal
        except EdgedError:
            before.trims = True
            raise
        return forwarding

    def _why_not_now(self, placement: "Placement") -> str:
        before = placement.forwarding
        if placement.stream.channel in self._moves:
            return "it is being moved already"
        if placement.stream.ended is not None:
            return "it has ended"
        if not placement.accepted or placement.held_at is not None:
            return "its origin has not accepted it"
        if not before.splice:
            return "nothing of it is packaged yet"
        if not placement.can_go_on:
            return RING_TOO_SHORT
        return ""

    def is_newer(self, stream_id: StreamId, placement: "Placement") -> bool:
        """Whether a run that is listed is newer than ours, and not ours at its next home.

        That is listed once it has accepted, which we may have yet to hear.
        """
        move = self._moves.get(stream_id.channel)
        ours = move is not None and move.forwarding.stream_id == stream_id
        return placement.stream.stream_id < stream_id and not ours

    def newest_offered(self, stream_id: StreamId) -> StreamId:
        """A run under the newest epoch by which any origin may list it."""
        move = self._moves.get(stream_id.channel)
        return stream_id if move is None else move.forwarding.stream_id

    def accepted(self, forwarding: Forwarding) -> None:
        """The new home takes a stream, if it is one that moves: it is the run's from now on."""
        move = self._of(forwarding)
        if move is None:
            return
        if move.placement.stream.ring.first_seq > forwarding.packaged_seq + 1:
            self._give_up(move, RING_TOO_SHORT)  # There is no hole where it is.
            return
        before = move.placement.forwarding
        self._settle(move)
        forwarding.describe()  # It may have changed since it was offered.
        self._lingering.append(
            _Lingering(before, move.placement.request, self._placing.now() + LINGER_S)
        )
        while len(self._lingering) > LINGERING_MAX:
            self._let_go(self._lingering.pop(0))

    def refused(self, forwarding: Forwarding, code: str, reason: str) -> None:
        """An origin does not take a stream that moves; or one that has left it, no more."""
        move = self._of(forwarding)
        if move is not None:
            placing = self._placing
            if code in ("full", "drain"):
                placing.view.refused(
                    forwarding.origin, placing.now(), priority=move.placement.request.priority
                )
            self._abandon(move, f"{code}: {reason}")
            return
        for lingering in [one for one in self._lingering if one.forwarding is forwarding]:
            self._lingering.remove(lingering)
            self._placing.view.released(forwarding.origin, lingering.request)

    def take_lead(self, placement: "Placement", detail: str) -> bool:
        """Have the new home be the run's before it has accepted: the old one is lost.

        False: the stream is not being moved.
        """
        move = self._moves.get(placement.stream.channel)
        if move is None or move.placement is not placement or move.forwarding.finished:
            return False
        before = placement.forwarding
        move.why = detail
        self._settle(move)
        placement.accepted = False
        self._let_go(_Lingering(before, placement.request, 0.0))
        return True

    def drop(self, channel: str, why: str) -> None:
        """A stream is over, or goes elsewhere by itself."""
        move = self._moves.get(channel)
        if move is not None:
            self._abandon(move, why)

    def slept(self, late_s: float) -> None:
        """The time in which we were not there counts for nobody."""
        for move in self._moves.values():
            move.offered_at += late_s

    def tick(self, now: float) -> None:
        """Wait no longer for who does not answer, and let go of who has been left."""
        for move in list(self._moves.values()):
            with contained(logger, "move not judged", channel=move.placement.stream.channel):
                self._judge(move, now)
        while self._lingering and (
            now >= self._lingering[0].until or self._lingering[0].forwarding.finished
        ):
            lingering = self._lingering.pop(0)
            with contained(logger, "old home not left", origin=lingering.forwarding.origin):
                self._let_go(lingering)

    def _judge(self, move: _Move, now: float) -> None:
        forwarding = move.forwarding
        if forwarding.finished:
            self._give_up(move, forwarding.closed_reason)
        elif forwarding.state == "waiting":
            self._give_up(move, "link down")
        elif now - move.offered_at >= ANSWER_S_MAX:
            self._placing.view.timed_out(forwarding.origin, now)
            self._give_up(move, f"no answer within {ANSWER_S_MAX:g} s")

    def _of(self, forwarding: Forwarding) -> _Move | None:
        move = self._moves.get(forwarding.stream.channel)
        return move if move is not None and move.forwarding is forwarding else None

    def _settle(self, move: _Move) -> None:
        """From now on the new home is where the run is."""
        placing, placement, forwarding = self._placing, move.placement, move.forwarding
        stream, before, now = placement.stream, placement.forwarding, placing.now()
        del self._moves[stream.channel]
        stream.stream_id = forwarding.stream_id
        placing.runs.begun(stream.stream_id)
        placement.go_on(forwarding, move.decision, now)
        logger.info(
            "stream moved",
            channel=stream.channel,
            publication=f"{stream.stream_id.publication:x}",
            before=before.origin,
            origin=forwarding.origin,
            why=move.why,
            home_epoch=stream.stream_id.home_epoch,
            after_ms=round(1000 * (now - move.offered_at), 1),
            units_again=stream.ring.next_seq - forwarding.packaged_seq - 1,
        )
        unit_seq = forwarding.packaged_seq + 1
        placing.telling.rehomed(
            stream,
            before.origin,
            forwarding.origin,
            move.why,
            unit_seq=unit_seq,
            number=move.number,
        )
        move.done(
            MoveDone(
                stream_id=stream.stream_id,
                from_origin=before.origin,
                to_origin=forwarding.origin,
                unit_seq=unit_seq,
            )
        )

    def _give_up(self, move: _Move, why: str) -> None:
        """Abandon a move of which the new home may know more than we: it may have accepted.

        Then it lists the run under its next epoch, and PoPs have left the old home for it: the run
        goes on there under one above.
        """
        placement, newer = move.placement, move.forwarding.stream_id.at_next_home
        self._abandon(move, why)
        if placement.stream.ended is None:
            self._placing.renew(placement, newer, "stays where it is, under a newer epoch")

    def _abandon(self, move: _Move, why: str) -> None:
        """Leave the stream where it is, as it was."""
        placing, placement = self._placing, move.placement
        del self._moves[placement.stream.channel]
        placement.forwarding.trims = True
        placing.stop_forwarding(move.forwarding, "stays where it is")
        placing.view.released(move.forwarding.origin, placement.request)
        logger.warning(
            "stream not moved",
            channel=placement.stream.channel,
            origin=placement.forwarding.origin,
            wanted_at=move.forwarding.origin,
            why=why,
        )
        move.done(
            MoveDone(
                stream_id=placement.stream.stream_id,
                from_origin=placement.forwarding.origin,
                to_origin=move.forwarding.origin,
                refused=why,
            )
        )

    def _let_go(self, lingering: _Lingering) -> None:
        placing, forwarding = self._placing, lingering.forwarding
        if not forwarding.finished:
            placing.stop_forwarding(forwarding, "goes on elsewhere")
        placing.view.released(forwarding.origin, lingering.request)


def _why_nowhere(error: RouteUnavailableError, at: str) -> str:
    """In few words, as those who count reasons want them: no names of channels or origins."""
    reasons = {why for origin, why in error.rejected.items() if origin != at}
    return ": ".join([NOWHERE, *(["; ".join(sorted(reasons)[:REASONS_SHOWN])] if reasons else [])])
