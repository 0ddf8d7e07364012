"""How much work a peer makes us, against its limits.

Messages and tiny chunks count in each second. Commands, data and new configurations cost us far
more than media does: before a publish is granted, when anyone may speak, few are taken in all;
afterwards they too count in each second.
"""

from edged.errors import RemoteProtocolError
from edged.wire.rtmp.limits import RtmpLimits

CONFIG_COST = 8  # Commands that a new configuration counts for: every reader hears of it.
WINDOW_S = 1.0


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
            self._since = now
            self._messages = 0
            if self._granted:
                self._commands = self._command_bytes = 0
        self._messages += count
        if self._messages > self._limits.messages_per_s_max:
            raise RemoteProtocolError(
                f"more than {self._limits.messages_per_s_max} messages within a second"
            )

    def add_commands(self, count: int, size: int = 0) -> None:
        """Count commands, and the bytes of AMF in them. Raises RemoteProtocolError."""
        limits = self._limits
        self._commands += count
        self._command_bytes += size
        if self._granted:
            count_max, bytes_max = limits.commands_per_s_max, limits.command_bytes_per_s_max
            when = "within a second"
        else:
            count_max, bytes_max = limits.early_commands_max, limits.early_command_bytes_max
            when = "before publish was granted"
        if self._commands > count_max:
            raise RemoteProtocolError(f"more than {count_max} commands {when}")
        if self._command_bytes > bytes_max:
            raise RemoteProtocolError(f"commands of more than {bytes_max} bytes {when}")
