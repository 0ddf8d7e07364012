"""How many people watch a channel here, told from playlist requests alone.

A low-latency player always has exactly one request blocked on the playlist of the rung that it
plays, so the requests that one new part releases are the players of that rung. A plain player
polls; it is told from a low-latency one, which polls once when it starts, by polling again on the
same connection. Both are counted per window, and the last whole window steadies the number.
"""

from collections.abc import Callable, Iterator

WINDOW_S = 4.0  # A target duration: every plain player polls within it.
ASKED_S = 15.0  # Since a rung was asked for: a request that blocks lasts 12 s at most.


class ViewerCount:
    """One channel's estimate; exact for players that keep up with the live edge."""

    def __init__(self, now: float) -> None:
        self._window = int(now / WINDOW_S)
        self._blocked: dict[str, int] = {}  # By rung.
        self._blocked_before: dict[str, int] = {}
        self._polling = self._polling_before = 0
        self._asked_at: dict[str, float] = {}  # By rendition: there are few.
        self.on_asked: Callable[[str], None] | None = None  # One that nobody had asked for lately.

    def note_asked(self, rendition: str, now: float) -> None:
        """Somebody has asked for a rendition that there is: for its playlist, or an old segment."""
        before = self._asked_at.get(rendition)
        self._asked_at[rendition] = now
        if self.on_asked is not None and (before is None or now - before > ASKED_S):
            self.on_asked(rendition)

    def asked(self, now: float) -> Iterator[str]:
        """Renditions that somebody has asked for lately."""
        return (name for name, at in self._asked_at.items() if now - at <= ASKED_S)

    def note_released(self, requests: int, now: float, rung: str = "") -> None:
        """One new part of a rung released that many blocked requests."""
        self._turn(now)
        self._blocked[rung] = max(self._blocked.get(rung, 0), requests)

    def note_poll(self, polled_before: int | None, now: float) -> int:
        """A connection polled: takes what its last poll returned, returns what to keep."""
        self._turn(now)
        if polled_before is not None and polled_before != self._window:
            self._polling += 1
        return self._window

    def viewers(self, now: float) -> int:
        """The estimate."""
        self._turn(now)
        blocked = max(sum(self._blocked.values()), sum(self._blocked_before.values()))
        return blocked + max(self._polling, self._polling_before)

    def rungs(self, now: float) -> dict[str, int]:
        """How many low-latency players each rung has."""
        self._turn(now)
        before, newest = self._blocked_before, self._blocked
        return before if sum(before.values()) > sum(newest.values()) else newest

    def _turn(self, now: float) -> None:
        window = int(now / WINDOW_S)
        if window == self._window:
            return
        follows = window == self._window + 1
        self._blocked_before = self._blocked if follows else {}
        self._polling_before = self._polling if follows else 0
        self._blocked, self._polling = {}, 0
        self._window = window
