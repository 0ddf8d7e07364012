"""Capacitor: what to believe of each origin's compute, from its heartbeats.

           2 missed            3 missed             heartbeat              10 s clean
    UP ─────────────▶ SUSPECT ─────────▶ DOWN ─────────────────▶ PROBATION ──────────▶ UP
       ◀───────────── heartbeat            ▲ says "down"            │ missed: SUSPECT, then anew

An origin that says so is in DRAIN. Less room counts at once; more room is believed at 10 % of the
origin's size per second, so that what comes back is not stampeded. PoPs' refusals and time-outs
outvote a healthy-looking heartbeat: SUSPECT for a while, then PROBATION.

We may be the sick one: when our timer fires late, nobody is convicted and everyone gets time for
another heartbeat; when most origins fall silent together, conviction waits longer.
"""

import math

from msgspec import Struct

from edged.errors import RemoteProtocolError
from edged.media.routing import ORIGINS_MAX, ByClass, OriginReport, OriginState, ReportedState
from edged.media.stream import PriorityClass

HEARTBEAT_INTERVAL_S = 0.1
SUSPECT_AFTER_S = 2 * HEARTBEAT_INTERVAL_S
DOWN_AFTER_S = 3 * HEARTBEAT_INTERVAL_S
DOUBT_AFTER_S = 1.0  # Most fell silent at once: it may be us, so wait for a longer silence.
TIMER_LATE_S_MAX = 0.05  # Half an interval: beyond it heartbeats may lie unread.
PROBATION_S = 10.0
RAMP_PER_S = 0.1  # Of an origin's total.
VOTERS_MIN = 2  # One PoP alone may have a bad path.
VOTE_WINDOW_S = 3.0  # Three telemetry intervals.
VOTE_HOLD_S = 5.0
FULL_PART = 0.01  # Free of an origin: with less, two PoPs may want the same slot.
ROUNDING_S = 1e-6  # A timer that fires this early is on time.


class StateChanged(Struct, frozen=True):
    """An origin's state as believed here has changed."""

    origin: str
    before: OriginState | None  # None: first heard of.
    after: OriginState
    reason: str


class _Origin:
    """What is known of one origin."""

    __slots__ = (
        "clean_since",
        "doubted",
        "heard_at",
        "held_until",
        "ramp_at",
        "ramp_units",
        "report",
        "silent_since",
        "state",
        "votes",
    )

    def __init__(self, report: OriginReport, now: float) -> None:
        self.report = report
        self.state = _state_of(report)
        self.heard_at = now
        self.silent_since = now  # `heard_at`, or later where a late timer of ours gave it time.
        self.clean_since: float | None = None  # On probation since; None = trusted.
        self.held_until = -math.inf  # Outvoted until then.
        self.doubted = False
        self.votes: dict[str, float] = {}
        self.ramp_units = float(_most_free(report))
        self.ramp_at = now

    def allowed(self, now: float) -> float:
        """Units that the ramp lets through, of those reported free."""
        grown = self.report.slots_total * RAMP_PER_S * (now - self.ramp_at)
        return min(float(_most_free(self.report)), self.ramp_units + grown)

    def deadline(self) -> float:
        """When silence will mean more than it means now."""
        if self.state is OriginState.DOWN:
            return math.inf
        if self.state is OriginState.SUSPECT:
            return self.silent_since + (DOUBT_AFTER_S if self.doubted else DOWN_AFTER_S)
        return self.silent_since + SUSPECT_AFTER_S


class Capacitor:
    """The origins as one observer (IRS, or a PoP) sees them."""

    def __init__(self) -> None:
        self._origins: dict[str, _Origin] = {}

    def __contains__(self, origin: str) -> bool:
        return origin in self._origins

    @property
    def origins(self) -> list[str]:
        """Every origin heard of, sorted."""
        return sorted(self._origins)

    def state(self, origin: str) -> OriginState | None:
        """What is believed of it; None when it was never heard."""
        known = self._origins.get(origin)
        return None if known is None else known.state

    def report(self, origin: str) -> OriginReport | None:
        """Return its last heartbeat."""
        known = self._origins.get(origin)
        return None if known is None else known.report

    def room(self, origin: str, priority: PriorityClass, now: float) -> int:
        """Units that this class may place there now: reported, ramped, 0 unless it is up."""
        known = self._origins.get(origin)
        if known is None or not known.state.takes_streams:
            return 0
        return min(known.report.slots_free[priority], math.floor(known.allowed(now) + 1e-9))

    def ladders(self, origin: str) -> ByClass | None:
        """Streams of each class that would have a ladder there; None: it does not say."""
        known = self._origins.get(origin)
        return None if known is None else known.report.ladders_free

    def heartbeat(self, report: OriginReport, now: float) -> list[StateChanged]:
        """Take a heartbeat; raises RemoteProtocolError when there are more origins than allowed."""
        known = self._origins.get(report.origin)
        if known is None:
            self._make_place(report.origin)
            known = self._origins[report.origin] = _Origin(report, now)
            return [StateChanged(report.origin, None, known.state, "first heartbeat")]
        restarted = report.incarnation != known.report.incarnation
        was_away = known.state is OriginState.DOWN or restarted
        # What a dead or departing origin had free is worth nothing when it is back.
        units = 0.0 if was_away else min(known.allowed(now), float(_most_free(report)))
        known.ramp_units, known.ramp_at = units, now
        if was_away or (known.clean_since is not None and known.state is OriginState.SUSPECT):
            known.clean_since = now
        known.report, known.doubted = report, False
        known.heard_at = known.silent_since = now
        changes = self._settle(known, now, "restarted" if restarted else "heartbeat")
        self._review_doubt(now)
        return changes

    def vote_against(
        self, origin: str, voter: str, *, voters: int, now: float, refused: bool
    ) -> list[StateChanged]:
        """Count a PoP's bad experience; enough of them stop placement whatever heartbeats say.

        `voters` is how many PoPs there are. A refusal (not a time-out) counts only against an
        origin that claims to have room: a full one is right to refuse.
        """
        known = self._origins.get(origin)
        if known is None or not known.state.takes_streams:
            return []
        if refused and min(known.report.slots_free) <= FULL_PART * known.report.slots_total:
            return []
        known.votes[voter] = now
        known.votes = {name: at for name, at in known.votes.items() if now - at < VOTE_WINDOW_S}
        if len(known.votes) < min(VOTERS_MIN, max(1, voters)):
            return []
        count = len(known.votes)
        known.votes = {}
        known.held_until = now + VOTE_HOLD_S
        return self._become(known, OriginState.SUSPECT, f"outvoted by {count} PoPs")

    def next_timeout(self) -> float:
        """When `handle_timeout` has something to do; infinity when never."""
        return min((known.deadline() for known in self._origins.values()), default=math.inf)

    def handle_timeout(self, now: float) -> list[StateChanged]:
        """Draw the conclusions of silence. Drain what is readable before calling this."""
        if now - self.next_timeout() > TIMER_LATE_S_MAX:
            self._grant_another_interval(now)
        changes: list[StateChanged] = []
        living = self._living()
        silent = [known for known in living if _is_silent(known, SUSPECT_AFTER_S, now)]
        doubt = _most(len(silent), len(living))
        for known in silent:
            known.doubted = doubt
            down = _is_silent(known, DOUBT_AFTER_S if doubt else DOWN_AFTER_S, now)
            state = OriginState.DOWN if down else OriginState.SUSPECT
            silence_ms = 1000 * (now - known.heard_at)
            changes += self._become(known, state, f"silent for {silence_ms:.0f} ms")
        return changes

    def _living(self) -> list[_Origin]:
        return [known for known in self._origins.values() if known.state is not OriginState.DOWN]

    def _grant_another_interval(self, now: float) -> None:
        """Our timer fired late: heartbeats may lie in buffers, so they get time to be read.

        A silence of DOUBT_AFTER_S gets none: an observer that is always late must still convict.
        """
        silent_since = now - SUSPECT_AFTER_S + HEARTBEAT_INTERVAL_S
        for known in self._living():
            if now - known.heard_at < DOUBT_AFTER_S:
                known.silent_since = max(known.silent_since, silent_since)

    def _review_doubt(self, now: float) -> None:
        """Stop waiting for those still silent once most of the others are heard again."""
        doubted = [known for known in self._living() if known.doubted]
        if doubted and not _most(len(doubted), len(self._living())):
            for known in doubted:
                known.doubted = False
                known.silent_since = max(known.silent_since, now - DOWN_AFTER_S)

    def _make_place(self, origin: str) -> None:
        """Forget the origin that has been silent longest among the dead when there are too many."""
        if len(self._origins) < ORIGINS_MAX:
            return
        dead = [name for name, known in self._origins.items() if known.state is OriginState.DOWN]
        if not dead:
            raise RemoteProtocolError(f"origin {origin!r} is one more than {ORIGINS_MAX} living")
        del self._origins[min(dead, key=lambda name: self._origins[name].heard_at)]

    def _settle(self, known: _Origin, now: float, reason: str) -> list[StateChanged]:
        """Move to the state that follows from what an origin on time says."""
        said = _state_of(known.report)
        if said is not OriginState.UP:
            return self._become(known, said, f"it says {said}")
        if known.held_until > -math.inf:
            if now < known.held_until - ROUNDING_S:
                return self._become(known, OriginState.SUSPECT, reason)
            known.held_until = -math.inf
            known.clean_since = known.ramp_at = now
            known.ramp_units = 0.0
            reason = "back after being outvoted"
        if known.clean_since is None:
            return self._become(known, OriginState.UP, reason)
        if now - known.clean_since < PROBATION_S - ROUNDING_S:
            return self._become(known, OriginState.PROBATION, reason)
        known.clean_since = None
        return self._become(known, OriginState.UP, f"{PROBATION_S:g} s without fault")

    def _become(self, known: _Origin, state: OriginState, reason: str) -> list[StateChanged]:
        before, known.state = known.state, state
        if state is OriginState.DOWN:
            known.held_until = -math.inf
            known.clean_since = None
            known.votes = {}
        if before is state:
            return []
        return [StateChanged(known.report.origin, before, state, reason)]


def _is_silent(known: _Origin, limit_s: float, now: float) -> bool:
    return now - known.silent_since >= limit_s - ROUNDING_S


def _most(count: int, total: int) -> bool:
    return count > 1 and 2 * count > total


def _state_of(report: OriginReport) -> OriginState:
    return OriginState(report.state.value)


def _most_free(report: OriginReport) -> int:
    return max(report.slots_free) if report.state is ReportedState.UP else 0
