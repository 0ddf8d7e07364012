"""What a PoP knows of its path to one origin: from probes, else from its sessions' TCP.

Probes (`wire.probe`) tell round trip, jitter and loss of the last WINDOW_S. Where none comes back
while sessions stand, UDP is filtered, and TCP_INFO tells instead: its round trip, and the share of
segments that were sent again. Goodput is always what TCP delivers: a lower bound of what the path
bears, and about all of it where data waits to be sent (`limited`).
"""

import math
from collections import deque
from collections.abc import Sequence

from msgspec import Struct

from edged.media.routing import PathProbe

WINDOW_S = 10.0
OUTCOMES_MAX = 256  # WINDOW_S at 5 Hz, five times over.
FILTERED_S = 5.0  # Without any answer, while sessions stand.
RTT_WEIGHT = 0.125  # RFC 6298 §2.3
JITTER_WEIGHT = 0.25
SAMPLES_MAX = 11  # Of the sessions, once a second: WINDOW_S between the oldest and the newest.
WAITING_BYTES = 64 * 1024  # Unsent in the kernel: more than a tick of ours leaves there.
WAITING_SAMPLES = 3  # In a row, and the path is what holds it up.


class SessionCounts(Struct, frozen=True, kw_only=True):
    """The live sessions to an origin, added up, as TCP_INFO has them."""

    rtt_s: float  # The least of their smoothed ones.
    segments: int  # With data, sent since each began; those sent again too.
    resent: int
    delivery_bps: float  # Lately.
    unsent_bytes: int  # In the kernel, not in flight.
    receiver_limited_s: float  # So long, since each began, the peer's window was shut.


class PathMeter:
    """One path. It draws no clock."""

    def __init__(self, now: float) -> None:
        self.filtered = False  # As `measure` found: probes do not come back, and TCP does.
        self._began_at = now
        self._answered_at = -math.inf
        self._unanswered_since: float | None = None  # Since the newest answer.
        self._rtt_s: float | None = None
        self._jitter_s = 0.0
        self._outcomes: deque[tuple[float, bool]] = deque()  # When asked, whether lost.
        self._samples: deque[tuple[float, SessionCounts]] = deque(maxlen=SAMPLES_MAX)
        self._sessions = 0
        self._silence_s = math.inf  # Of the control session.

    def asked(self, now: float) -> None:
        """A probe was sent."""
        if self._unanswered_since is None:
            self._unanswered_since = now

    def answered(self, asked_at: float, rtt_s: float | None, now: float) -> None:
        """A probe came back; `rtt_s` is None if a clock has jumped."""
        self._answered_at = now
        self._unanswered_since = None
        self._note(asked_at, lost=False)
        if rtt_s is None:
            return
        if self._rtt_s is None:
            self._rtt_s, self._jitter_s = rtt_s, rtt_s / 2  # RFC 6298 §2.2
        else:
            self._jitter_s += JITTER_WEIGHT * (abs(rtt_s - self._rtt_s) - self._jitter_s)
            self._rtt_s += RTT_WEIGHT * (rtt_s - self._rtt_s)

    def lost(self, asked_at: float) -> None:
        """A probe did not come back in time."""
        self._note(asked_at, lost=True)

    def note_silence(self, silence_s: float) -> None:
        """So long nothing has been heard on the control session; infinite: it does not stand."""
        self._silence_s = silence_s

    def note_sessions(self, counts: SessionCounts | None, now: float, *, sessions: int) -> None:
        """How the sessions stand, once a second."""
        if sessions != self._sessions or counts is None:
            self._samples.clear()  # Sums of other sessions: they say nothing of a difference.
        self._sessions = sessions
        if counts is not None:
            self._samples.append((now, counts))

    def measure(self, now: float) -> PathProbe | None:
        """What is known now; None as long as nothing is."""
        while self._outcomes and now - self._outcomes[0][0] > WINDOW_S:
            self._outcomes.popleft()
        unheard_s = now - max(self._answered_at, self._began_at)
        standing = self._silence_s < FILTERED_S
        self.filtered = unheard_s >= FILTERED_S and standing
        passive = self._rtt_s is None or self.filtered
        newest = self._samples[-1][1] if self._samples else None
        rtt_s = newest.rtt_s if passive and newest is not None else self._rtt_s
        if rtt_s is None:
            return None
        silences = [self._silence_s]
        if self._unanswered_since is not None:
            silences.append(now - self._unanswered_since)
        elif self._answered_at > -math.inf:
            silences.append(0.0)
        silent_s = min(silences)
        return PathProbe(
            1000 * rtt_s,
            self._loss_of_sessions() if passive else self._loss_of_probes(),
            0.0 if newest is None else max(0.0, newest.delivery_bps) / 1e6,
            0.0 if passive else 1000 * self._jitter_s,
            silent_s if math.isfinite(silent_s) else unheard_s,
            self._is_limited(),
            not passive,
        )

    def _note(self, asked_at: float, *, lost: bool) -> None:
        self._outcomes.append((asked_at, lost))
        if len(self._outcomes) > OUTCOMES_MAX:
            self._outcomes.popleft()

    def _loss_of_probes(self) -> float:
        if not self._outcomes:
            return 0.0
        return sum(lost for _, lost in self._outcomes) / len(self._outcomes)

    def _loss_of_sessions(self) -> float:
        if not self._samples:
            return 0.0
        first, last = self._samples[0][1], self._samples[-1][1]
        segments = last.segments - first.segments
        resent = last.resent - first.resent
        return min(1.0, max(0, resent) / segments) if segments > 0 else 0.0

    def _is_limited(self) -> bool:
        """Whether data waits all the time, and not for the receiver."""
        lately = list(self._samples)[-WAITING_SAMPLES:]
        if len(lately) < WAITING_SAMPLES:
            return False
        (began_at, first), (ended_at, last) = lately[0], lately[-1]
        shut_s = last.receiver_limited_s - first.receiver_limited_s
        waits = all(counts.unsent_bytes >= WAITING_BYTES for _, counts in lately)
        return waits and shut_s < (ended_at - began_at) / 2


def add_up(sessions: Sequence[SessionCounts]) -> SessionCounts | None:
    """The sum of several sessions; None of none."""
    if not sessions:
        return None
    return SessionCounts(
        rtt_s=min(each.rtt_s for each in sessions),
        segments=sum(each.segments for each in sessions),
        resent=sum(each.resent for each in sessions),
        delivery_bps=math.fsum(each.delivery_bps for each in sessions),
        unsent_bytes=sum(each.unsent_bytes for each in sessions),
        receiver_limited_s=math.fsum(each.receiver_limited_s for each in sessions),
    )
