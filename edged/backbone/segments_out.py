"""An origin's end of fetches: PoPs ask for segments by name, and get them behind all live media."""

from collections.abc import Callable, Sequence
from typing import Protocol

import structlog
from msgspec import Struct

from edged.backbone.session import BackboneSession
from edged.media.stream import StreamId
from edged.wire.backbone.events import FlowEnded
from edged.wire.backbone.messages import SegmentOpened, SegmentRefused, SegmentWanted
from edged.wire.backbone.segment_flow import WHOLE, SegmentFlow

# Of one session; their bytes are held until they are sent. A PoP of ours asks for half as many.
FETCHES_MAX = 16

Body = Sequence[bytes]
Given = Callable[[Body | str], None]  # The bytes, or the code of a refusal.

logger = structlog.get_logger("edged.backbone")


class SegmentHolder(Protocol):
    """Who has segments."""

    def give_segment(self, stream_id: StreamId, rendition: str, msn: int, given: Given) -> None:
        """Call `given`, once, now or later."""


class SegmentsOutStatistics(Struct, frozen=True, kw_only=True):
    """Counters since the start."""

    given: int
    given_bytes: int
    refused: int


class SegmentsOut:
    """All fetches from an origin."""

    def __init__(self, holder: SegmentHolder) -> None:
        self._holder = holder
        # By session: the numbers of fetches that wait for their bytes, and the flows of the rest.
        self._waiting: dict[BackboneSession, set[int]] = {}
        self._flows: dict[BackboneSession, dict[int, SegmentFlow]] = {}
        self._given = self._given_bytes = self._refused = 0

    def wanted(self, session: BackboneSession, message: SegmentWanted) -> None:
        """Give a segment, or refuse it with the reason."""
        number = message.fetch_no
        waiting = self._waiting.setdefault(session, set())
        flows = self._flows.setdefault(session, {})
        if number in waiting:
            self._refuse(session, number, "protocol", f"fetch {number} is under way")
            return
        if len(waiting) + len(flows) >= FETCHES_MAX:
            self._refuse(session, number, "full", f"{FETCHES_MAX} segments are being fetched")
            return
        waiting.add(number)

        def given(body: Body | str) -> None:
            if number not in self._waiting.get(session, ()):
                return  # The session was lost.
            waiting.discard(number)
            if isinstance(body, str):
                name = f"{message.rendition[:16]}-{message.msn}"
                self._refuse(session, number, body, f"{name} cannot be had here")
            else:
                self._begin(session, number, body)

        self._holder.give_segment(message.stream_id, message.rendition, message.msn, given)

    def refused(self, session: BackboneSession, stream_no: int) -> bool:
        """The PoP wants no more of a stream; False if it is none of these."""
        flow = self._flows.get(session, {}).pop(stream_no, None)
        if flow is not None:
            session.close_flow(flow, "refused")
        return flow is not None

    def flow_ended(self, session: BackboneSession, event: FlowEnded) -> None:
        """A stream's last frame was made."""
        flow = self._flows.get(session, {}).pop(event.stream_no, None)
        if flow is None:
            return
        if event.error is not None:
            logger.error("segment broke", pop=session.peer.name, exc_info=event.error)
        if event.reason == WHOLE:
            self._given += 1
            self._given_bytes += flow.sent

    def session_lost(self, session: BackboneSession) -> None:
        """Forget a session's fetches."""
        self._waiting.pop(session, None)
        self._flows.pop(session, None)

    def statistics(self) -> SegmentsOutStatistics:
        """Counters since the start."""
        return SegmentsOutStatistics(
            given=self._given, given_bytes=self._given_bytes, refused=self._refused
        )

    def _begin(self, session: BackboneSession, fetch_no: int, body: Body) -> None:
        sender = session.link.sender
        stream_no = sender.reserve()
        session.send(SegmentOpened(stream_no, fetch_no, sum(map(len, body))))
        self._flows[session][stream_no] = sender.open_segment(stream_no, body)
        session.schedule()

    def _refuse(self, session: BackboneSession, fetch_no: int, code: str, reason: str) -> None:
        self._refused += 1
        session.send(SegmentRefused(fetch_no, code, reason))
