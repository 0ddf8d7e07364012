"""What one HTTP/2 connection may make us hold and do: the limits, and the floods they are against.

A flood is many frames that cost us and bring the peer nothing. Each kind has a bucket: it takes so
many at once, and empties in `flood_s`. What overflows ends the connection (ENHANCE_YOUR_CALM).
"""

from msgspec import Struct

from edged.wire.h2.frames import ConnectionFaultError, ErrorCode


class H2Limits(Struct, frozen=True, kw_only=True):
    """What one connection may make us hold, and for how long."""

    streams_max: int = 128  # At once; browsers use up to 100, a player some five.
    target_bytes_max: int = 2048  # As in HTTP/1.1: ours are below 200; a query may be long.
    head_bytes_max: int = 16 * 1024  # The coded block, and the decoded list by HPACK's count.
    fields_max: int = 64  # Header fields; browsers send below 20.
    body_bytes_max: int = 64 * 1024  # For signalling bodies (SDP); playback has none.
    bodies_bytes_max: int = 256 * 1024  # Of all streams whose answer has not been given.
    continuations_max: int = 16  # Of one block (CVE-2024-27316); browsers' blocks need none.
    settings_entries_max: int = 32  # Of one frame; browsers send some five.
    control_bytes_max: int = 64 * 1024  # Answers to control frames that the peer does not read.
    request_s_max: float = 10.0  # From a request's first byte to its last; from the start, too.
    settings_s_max: float = 10.0  # Until our SETTINGS are acknowledged.
    idle_s_max: float = 75.0  # From the last answer to the next request; nginx's default.
    blocked_s_max: float = 30.0  # Without window for `blocked_bytes_min` while answers wait.
    blocked_bytes_min: int = 16 * 1024
    drain_s_max: float = 1.0  # From the first GOAWAY to the one that refuses, if no PING returns.
    # Floods. A viewer who drags the seek bar aborts some ten requests a second, each with a reset.
    flood_s: float = 20.0
    resets_max: int = 400  # By the peer: rapid reset (CVE-2023-44487).
    faults_max: int = 100  # Streams that the peer makes us reset (CVE-2025-8671).
    settings_max: int = 50  # Browsers send one or two in a connection's life.
    pings_max: int = 200  # Chromium sends one each 5 to 15 s, load testers one a second.
    empty_data_max: int = 100  # DATA without data that do not end a stream either.
    priorities_max: int = 1000  # Browsers send one or two for each request.
    window_updates_max: int = 2000  # Beside WINDOW_UPDATES_PER_DATA for each DATA frame sent.
    late_max: int = 1000  # Of streams that we have reset: what was on its way, a window's worth.
    unknown_max: int = 200  # Of types that we do not know; Chromium greases with a few.


WINDOW_UPDATES_PER_DATA = 4  # The stream's and the connection's, twice.


class FloodGuard:
    """The buckets of one connection; one that is never used takes no place."""

    __slots__ = ("_buckets", "_flood_s")

    def __init__(self, flood_s: float) -> None:
        self._flood_s = flood_s
        self._buckets: dict[str, tuple[float, float]] = {}  # How full, and when.

    def count(self, what: str, most: int, now: float, allowed: int = 0) -> None:
        """One more of that kind; ends the connection beyond `most`, and `allowed` beside it."""
        level, at = self._buckets.get(what, (0.0, now))
        level = max(0.0, level - allowed - (now - at) * most / self._flood_s) + 1
        if level > most:
            raise ConnectionFaultError(
                ErrorCode.ENHANCE_YOUR_CALM,
                f"more than {most} {what} at once, or in {self._flood_s:g} s",
            )
        self._buckets[what] = level, now
