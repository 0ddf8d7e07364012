"""How much work a peer makes us, against its limits.

Messages and tiny chunks count in each second. Commands, data and new configurations cost us far
more than media does: before a publish is granted, when anyone may speak, few are taken in all;
afterwards they count against a rate, with room for an encoder that catches up.
"""

from collections.abc import Sequence

from edged.errors import RemoteProtocolError
from edged.media.access_unit import AccessUnit
from edged.wire.rtmp.events import DataReceived, ServerEvent, TrackAnnounced
from edged.wire.rtmp.limits import RtmpLimits

CONFIG_COST = 8  # Commands that a new configuration counts for: every reader hears of it.
WINDOW_S = 1.0
BURST_S = (
    4  # Of commands: captions and time codes of 60 frames a second, of 10 s caught up at once.
)


class Workload:
    """One session's."""

    def __init__(self, limits: RtmpLimits, now: float) -> None:
        self._limits = limits
        self._granted = False
        self._since = now
        self._messages = self._commands = self._command_bytes = 0

    def grant(self) -> None:
        """From here on the peer is known, and commands count in each second."""
        self._granted = True
        self._commands = self._command_bytes = 0

    def add_messages(self, count: int, now: float) -> None:
        """Count messages, however small. Raises RemoteProtocolError past the limit. Hot path."""
        if now - self._since >= WINDOW_S:
            self._refill(now - self._since)
            self._since = now
            self._messages = 0
        self._messages += count
        if self._messages > self._limits.messages_per_s_max:
            raise RemoteProtocolError(
                f"more than {self._limits.messages_per_s_max} messages within a second"
            )

    def _refill(self, seconds: float) -> None:
        """What was taken of the burst comes back at the rate."""
        if self._granted:
            limits = self._limits
            back = int(seconds * limits.commands_per_s_max)
            self._commands = max(0, self._commands - back)
            back = int(seconds * limits.command_bytes_per_s_max)
            self._command_bytes = max(0, self._command_bytes - back)

    def add_events(self, events: Sequence[ServerEvent], size: int) -> bool:
        """Count what a media message of `size` bytes brought, unless it is a unit, as is usual.

        Returns whether any of it is media: metadata, which enhanced video messages may carry too,
        is AMF like any other and no sign of life.
        """
        announced = sum(isinstance(event, TrackAnnounced) for event in events)
        if any(isinstance(event, DataReceived) for event in events):
            self.add_commands(1, size)
        self.add_commands(announced * CONFIG_COST)
        return announced > 0 or any(isinstance(event, AccessUnit) for event in events)

    def add_commands(self, count: int, size: int = 0) -> None:
        """Count commands, and the bytes of AMF in them. Raises RemoteProtocolError."""
        limits = self._limits
        self._commands += count
        self._command_bytes += size
        if self._granted:
            count_max = BURST_S * limits.commands_per_s_max
            bytes_max = BURST_S * limits.command_bytes_per_s_max
            when = f"in a burst, {BURST_S} seconds' worth"
        else:
            count_max, bytes_max = limits.early_commands_max, limits.early_command_bytes_max
            when = "before publish was granted"
        if self._commands > count_max:
            raise RemoteProtocolError(f"more than {count_max} commands {when}")
        if self._command_bytes > bytes_max:
            raise RemoteProtocolError(f"commands of more than {bytes_max} bytes {when}")
