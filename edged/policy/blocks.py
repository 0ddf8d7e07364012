"""Channels that an operator has had refused for a while: `edged kick --block`.

The blocks are a process's own and gone when it restarts; a stream key that is taken out of the
configuration is what lasts.
"""

from msgspec import Struct

from edged.errors import EdgedError, PublishRefusedError

CHANNELS_MAX = 1024  # Typed by people; a flood of channels is met by their keys' secret.
BLOCK_S_MAX = 7 * 86_400.0


class _Block(Struct, frozen=True):
    until: float
    reason: str


class Blocks:
    """Which channels are refused, and until when. `now` is monotonic."""

    def __init__(self, channels_max: int = CHANNELS_MAX) -> None:
        self._channels_max = channels_max
        self._blocks: dict[str, _Block] = {}

    def __len__(self) -> int:
        return len(self._blocks)

    def block(self, channel: str, reason: str, *, seconds: float, now: float) -> None:
        """Refuse a channel for so long from now on, whatever was said of it before.

        Raises EdgedError at the limits; nothing has changed then.
        """
        if not 0 < seconds <= BLOCK_S_MAX:
            raise EdgedError(f"block of {seconds:g} s: more than 0 and up to {BLOCK_S_MAX:g}")
        self._blocks = {name: held for name, held in self._blocks.items() if held.until > now}
        if channel not in self._blocks and len(self._blocks) >= self._channels_max:
            raise EdgedError(f"{self._channels_max} channels are blocked already, no more may be")
        self._blocks[channel] = _Block(now + seconds, reason)

    def check(self, channel: str, now: float) -> None:
        """Raise PublishRefusedError ("kicked") while a channel is blocked."""
        held = self._blocks.get(channel)
        if held is None:
            return
        if held.until <= now:
            del self._blocks[channel]
            return
        raise PublishRefusedError(
            "kicked", f"{held.reason}; refused for another {held.until - now:.0f} s"
        )
