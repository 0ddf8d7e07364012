"""What identifies a live stream, and what its publisher was granted."""

import enum

from msgspec import Struct


class PriorityClass(enum.IntEnum):
    """Who goes first when something is scarce; also the backbone session and its DSCP."""

    PARTNER = 0
    AFFILIATE = 1
    BASIC = 2

    @property
    def label(self) -> str:
        """The name in configuration, logs and metrics."""
        return self.name.lower()


class Grant(Struct, frozen=True, kw_only=True):
    """What a stream key allows; routing, slots and DSCP read it."""

    channel: str
    priority: PriorityClass = PriorityClass.BASIC
    title: str = ""
    tags: tuple[str, ...] = ()
    ladder: str = "default"
    record: bool = False
    playback: str = "public"  # Playback rights: "public" for now; tokens come with the ladder.
    expires_at: float | None = None  # Unix seconds; a session may not start after it.


class StreamId(Struct, frozen=True, order=True):
    """A live run and its fencing: everyone accepts only the newest (publication, home_epoch)."""

    channel: str
    publication: int  # 64 bit, later publications are greater; made by the publisher's PoP.
    home_epoch: int = 1  # Raised by each takeover or re-homing.
