"""A publication on its way to one origin, from the PoP's point of view."""

import math
from typing import TYPE_CHECKING, Literal

import trio

from edged.backbone.ring_source import RingSource, choose_start
from edged.backbone.session import BackboneSession
from edged.backbone.statistics import ForwardingStatistics, State
from edged.errors import PublishRefusedError
from edged.media.routing import PLAIN_TERMS, Terms
from edged.media.stream import StreamId
from edged.runtime.hub import LiveStream
from edged.wire.backbone.messages import (
    FEATURE_DESCRIPTIONS,
    RenditionAck,
    StreamAck,
    StreamDescribed,
    StreamOpened,
    StreamWaiting,
    make_message_frame,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from edged.wire.backbone.flows import UnitFlow


class Forwarding:
    """One stream to one origin. Survives sessions: it is reopened on the next, where it stopped.

        waiting --session--> opening --StreamAccepted--> open --end of the ring--> closed
           ^------------------- session lost ---------------'
        any --StreamRefused--> refused        any --close()--> closed

    `packaged_seq` and `renditions` are what the next origin needs to splice; they may be given from
    an earlier forwarding.
    """

    def __init__(
        self,
        stream: LiveStream,
        stream_id: StreamId,
        origin: str,
        *,
        after: "Forwarding | None" = None,
        takes_over: bool = False,
        terms: Terms | None = None,
    ) -> None:
        """`takes_over`: the origin has the run, under an older epoch; `after` None: of elsewhere.

        What such a one was acknowledged needs units that are not here, so it counts for nothing.
        `terms`: what the origin is asked; None: what the one before was.
        """
        self.stream = stream
        self.stream_id = stream_id
        self.origin = origin
        self.state: State = "waiting"
        self.received_seq = -1
        self.takes_over = takes_over
        before: Terms = PLAIN_TERMS if after is None else after.terms
        self.terms: Terms = before if terms is None else terms
        self.packaged_seq: int = -1 if after is None else after.packaged_seq
        if takes_over and after is None:
            self.packaged_seq = stream.ring.first_seq - 1
        self.renditions: list[RenditionAck] = [] if after is None else after.renditions
        self.splice: bytes = b"" if after is None else after.splice
        self.refusal: PublishRefusedError | None = None
        self.fenced_by: StreamId | None = None  # If that is why it was refused, and is known.
        self.closed_reason = ""
        self.trims = True  # What is packaged there may leave the ring: no other home needs it.
        self.units_skipped = 0
        self.reopened = 0
        self.progress_at = -math.inf
        self.stream_no = 0
        self._decided = trio.Event()
        self._session: BackboneSession | None = None
        self._flow: UnitFlow | None = None
        self._source: RingSource | None = None
        self._opened_config_ids: dict[int, int] = {}
        self._unwatch: Callable[[], None] | None = None

    @property
    def finished(self) -> bool:
        """Refused or closed: it will not go on."""
        return self.state in ("refused", "closed")

    async def wait_decided(self) -> None:
        """Wait for the origin's word; PublishRefusedError with its reason if that is no."""
        await self._decided.wait()
        if self.refusal is not None:
            raise self.refusal

    def statistics(self) -> ForwardingStatistics:
        """How the stream fares."""
        return ForwardingStatistics(
            state=self.state,
            received_seq=self.received_seq,
            packaged_seq=self.packaged_seq,
            lag_units=0 if self._source is None else self._source.lag_units,
            units_skipped=self.units_skipped,
            reopened=self.reopened,
            progress_at=self.progress_at,
        )

    # What the link calls.

    def offer(self, session: BackboneSession) -> bytes:
        """The frame that offers the stream on a session, to be sent before any other stream's.

        Raises EdgedError if its tracks do not fit a message.
        """
        assert self.state == "waiting", "it is offered once on a session"
        stream_no = session.link.sender.reserve()
        tracks = list(self.stream.tracks.values())
        frame = make_message_frame(
            StreamOpened(
                stream_no=stream_no,
                stream_id=self.stream_id,
                grant=self.stream.grant,
                tracks=tracks,
                first_seq=self.stream.ring.first_seq,
                packaged_seq=self.packaged_seq,
                renditions=self.renditions,
                splice=self.splice,
                takes_over=self.takes_over,
                waiting=self.stream.waiting_since is not None,
                terms=self.terms,
            )
        )
        self._session, self.stream_no = session, stream_no
        self._opened_config_ids = {track.track_id: track.config_id for track in tracks}
        self.state = "opening"
        return frame

    def accepted(self, wanted_seq: int) -> None:
        """The origin takes it: begin to send."""
        session = self._session
        if self.state != "opening" or session is None:
            return
        self.state = "open"
        start = choose_start(self.stream, wanted_seq, self.packaged_seq)
        self._source = RingSource(self.stream, start)
        flow = session.link.sender.open_units(self.stream_no, self._source, self._opened_config_ids)
        self._flow = flow
        self._unwatch = self.stream.watch(lambda _: session.wake(flow))
        session.schedule()
        self._decided.set()

    def refused(self, code: str, reason: str, newest: StreamId | None = None) -> None:
        """The origin does not want it, or no more; `newest` as in StreamRefused."""
        if code == "fenced" and newest is not None and newest.channel == self.stream_id.channel:
            self.fenced_by = newest
        self.refusal = PublishRefusedError(code, reason)
        self._stop("refused", reason)

    def acked(self, ack: StreamAck, now: float) -> None:
        """The origin got on; what is packaged may leave the ring."""
        if ack.home_epoch != self.stream_id.home_epoch:
            return
        newest = self.stream.ring.next_seq - 1
        received_seq = min(ack.received_seq, newest)
        if received_seq > self.received_seq:
            self.received_seq = received_seq
            self.progress_at = now
        packaged_seq = min(ack.packaged_seq, newest)
        if packaged_seq > self.packaged_seq:
            self.packaged_seq = packaged_seq
            if self.trims:
                self.stream.trim_below(packaged_seq + 1)
        if ack.renditions:
            self.renditions = ack.renditions
        if ack.splice and ack.packaged_seq >= self.packaged_seq:
            self.splice = ack.splice

    def describe(self) -> None:
        """Tell the origin how the stream is described now.

        One that does not know how to hear it, or to which there is no session, has it with the next
        offer.
        """
        session, told = self._session, self.stream.grant.description
        if session is not None and FEATURE_DESCRIPTIONS in session.peer.features:
            session.send(StreamDescribed(self.stream_no, told.title, told.category, told.labels))

    def tell_waiting(self) -> None:
        """Have the origin know whether the stream waits for its publisher."""
        if self._session is not None and self.state in ("opening", "open"):
            waiting = self.stream.waiting_since is not None
            self._session.send(StreamWaiting(self.stream_no, waiting))

    def session_lost(self) -> None:
        """Wait for the next session; the ring goes on filling."""
        if not self.finished:
            self._detach()
            self.state = "waiting"
            self.reopened += 1

    def flow_ended(self, reason: str) -> None:
        """The last unit and StreamClosed were framed."""
        self._detach()
        self.state = "closed"
        self.closed_reason = reason
        self._decided.set()

    def close(self, reason: str) -> None:
        """Stop sending to this origin: the stream goes elsewhere, or is over."""
        if not self.finished:
            self._stop("closed", reason)

    def _stop(self, state: Literal["refused", "closed"], reason: str) -> None:
        session, flow = self._session, self._flow
        was_offered = self.state == "opening"
        self._detach()
        self.state = state
        self.closed_reason = reason
        self._decided.set()
        if session is None:
            return
        if flow is not None:
            session.close_flow(flow, reason)
        elif was_offered:
            session.withdraw(self.stream_no, reason)

    def _detach(self) -> None:
        if self._unwatch is not None:
            self._unwatch()
        self._unwatch = self._flow = self._session = self._source = None
