"""A PoP's end of fetches: segments that it lists and lacks, asked for by name at one origin.

Each is asked for once, however many want it; a few are under way at a time, the others wait in
turn. Live media goes first, and the origin sends one after the other, so a fetch may take long: it
is given up FETCH_S_MAX after a piece of any came last, or FETCH_S_LONGEST after it was asked for.
"""

import itertools
import math
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

import structlog

from edged.backbone.session import BackboneSession
from edged.errors import RemoteProtocolError
from edged.media.parts import SegmentPiece
from edged.media.stream import StreamId
from edged.wire.backbone.messages import (
    FEATURE_SEGMENTS,
    SegmentOpened,
    SegmentRefused,
    SegmentWanted,
    StreamRefused,
)

IN_FLIGHT_MAX: Final = 8  # Of one session: 8 Mbit each at 100 ms fill 640 Mbps.
WAITING_MAX: Final = 512  # For their turn; beyond it players hear 503 and ask again.
FETCH_S_MAX: Final = 20.0  # Twice what hls.js waits for a segment, asking again between.
FETCH_S_LONGEST: Final = 120.0
SEGMENT_BYTES_MAX: Final = 64 * 2**20  # No viewer is given more at once, and none of ours has more.
GONE: Final = "gone"  # The origin has it no more; it comes again from nowhere.

Done = Callable[[bytes | str], None]  # The segment, or a code why not: GONE, or another.

logger = structlog.get_logger("edged.backbone")


class SegmentKey(NamedTuple):
    """Which segment."""

    stream_id: StreamId
    rendition: str
    msn: int

    def __str__(self) -> str:
        return f"{self.stream_id.channel}/{self.rendition}-{self.msn}"


class _Fetch:
    """One segment on its way."""

    def __init__(self, key: SegmentKey, done: Done, session: BackboneSession) -> None:
        self.key, self.session = key, session
        self.done = [done]
        self.number = self.stream_no = self.payload_bytes = 0
        self.expires_at = self.ends_at = math.inf  # Once it has been asked for.
        self.pieces: list[bytes] = []
        self.received_bytes = 0


class SegmentFetches:
    """All that is fetched from one origin."""

    def __init__(self, origin: str) -> None:
        self._origin = origin
        self._numbers = itertools.count(1)
        self._wanted: dict[SegmentKey, _Fetch] = {}
        self._waiting: dict[BackboneSession, deque[_Fetch]] = {}
        self._asked: dict[int, _Fetch] = {}  # By number, until they are opened or refused;
        self._opened: dict[tuple[BackboneSession, int], _Fetch] = {}  # by stream after that.
        self._moved: set[BackboneSession] = set()  # Pieces came over it since it was looked at.

    def __len__(self) -> int:
        return len(self._wanted)

    def fetch(
        self, session: BackboneSession | None, key: SegmentKey, done: Done, now: float
    ) -> bool:
        """Have `done` called with a segment, later; False if there is no way or no room.

        At once, with GONE, if the origin is of an older version, which gives none.
        """
        if session is None or not session.usable:
            return False
        if FEATURE_SEGMENTS not in session.peer.features:
            done(GONE)
            return True
        known = self._wanted.get(key)
        if known is not None:
            known.done.append(done)
            return True
        waiting = self._waiting.setdefault(session, deque())
        if len(waiting) >= WAITING_MAX:
            return False
        fetch = self._wanted[key] = _Fetch(key, done, session)
        waiting.append(fetch)
        self._ask(session, now)
        return True

    def handle(
        self, session: BackboneSession, message: SegmentOpened | SegmentRefused, now: float
    ) -> None:
        """Act on the origin's answer."""
        fetch = self._asked.get(message.fetch_no)
        if fetch is None or fetch.session is not session:
            if isinstance(message, SegmentOpened):
                self._refuse(session, message.stream_no)
            return  # Given up meanwhile.
        del self._asked[message.fetch_no]
        if isinstance(message, SegmentRefused):
            logger.debug(
                "segment refused",
                origin=self._origin,
                code=message.code[:64],
                segment=str(fetch.key),
            )
            self._finish(fetch, message.code[:64], now)
            return
        size = fetch.payload_bytes = message.payload_bytes
        fetch.stream_no = message.stream_no
        if not 0 < size <= SEGMENT_BYTES_MAX:
            self._refuse(session, message.stream_no)
            self._finish(fetch, f"it has {size} bytes, allowed are 1 to {SEGMENT_BYTES_MAX}", now)
            return
        self._opened[session, message.stream_no] = fetch

    def received(self, session: BackboneSession, stream_no: int, piece: SegmentPiece) -> None:
        """Keep a piece."""
        fetch = self._opened.get((session, stream_no))
        if fetch is None:
            return  # Given up; the origin has not heard yet.
        if not piece.payload:
            raise RemoteProtocolError(f"segment {fetch.key} has an empty piece")
        self._moved.add(session)
        fetch.pieces.append(piece.payload)
        fetch.received_bytes += len(piece.payload)
        if fetch.received_bytes > fetch.payload_bytes:
            raise RemoteProtocolError(
                f"segment {fetch.key} of {fetch.payload_bytes} bytes "
                f"has {fetch.received_bytes} and more"
            )

    def closed(self, session: BackboneSession, stream_no: int, now: float) -> bool:
        """A stream is over; False if it was none of these."""
        fetch = self._opened.pop((session, stream_no), None)
        if fetch is None:
            return False
        whole = fetch.received_bytes == fetch.payload_bytes
        self._finish(fetch, b"".join(fetch.pieces) if whole else "broken off", now)
        return True

    def session_lost(self, session: BackboneSession, now: float) -> None:
        """Nothing comes over it any more."""
        self._waiting.pop(session, None)
        self._moved.discard(session)
        for fetch in [one for one in self._wanted.values() if one.session is session]:
            self._drop(fetch)
            self._finish(fetch, "the way to the origin was lost", now)

    def expire(self, now: float) -> None:
        """Give up what takes too long; call it about once a second."""
        moved, self._moved = self._moved, set()
        for fetch in list(self._wanted.values()):
            if fetch.session in moved and fetch.expires_at < math.inf:
                fetch.expires_at = min(now + FETCH_S_MAX, fetch.ends_at)
            if now >= fetch.expires_at:
                self._drop(fetch)
                self._finish(fetch, f"nothing of it came within {FETCH_S_MAX:g} s", now)

    def _ask(self, session: BackboneSession, now: float) -> None:
        waiting = self._waiting.get(session)
        busy = sum(one.session is session and one.number > 0 for one in self._wanted.values())
        while waiting and busy < IN_FLIGHT_MAX:
            fetch = waiting.popleft()
            fetch.number = next(self._numbers)
            fetch.expires_at, fetch.ends_at = now + FETCH_S_MAX, now + FETCH_S_LONGEST
            self._asked[fetch.number] = fetch
            session.send(SegmentWanted(fetch.number, *fetch.key))
            busy += 1

    def _drop(self, fetch: _Fetch) -> None:
        """Forget what may still come of it."""
        self._asked.pop(fetch.number, None)
        if self._opened.pop((fetch.session, fetch.stream_no), None) is not None:
            self._refuse(fetch.session, fetch.stream_no)

    def _refuse(self, session: BackboneSession, stream_no: int) -> None:
        session.link.receiver.refuse(stream_no)
        session.send(StreamRefused(stream_no, "stopped", "the segment is wanted no more"))

    def _finish(self, fetch: _Fetch, result: bytes | str, now: float) -> None:
        del self._wanted[fetch.key]
        self._ask(fetch.session, now)
        for done in fetch.done:
            done(result)
