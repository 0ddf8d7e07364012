"""What identifies a live stream, and what its publisher was granted."""

import enum

from msgspec import Struct, structs

from edged.media.latency import DEFAULT


class PriorityClass(enum.IntEnum):
    """Who goes first when something is scarce; also the backbone session and its DSCP."""

    PARTNER = 0
    AFFILIATE = 1
    BASIC = 2

    @property
    def label(self) -> str:
        """The name in configuration, logs and metrics."""
        return self.name.lower()


class Description(Struct, frozen=True, kw_only=True):
    """What people are told of a stream. Nothing decides by it: `Grant.tags` are for the rules."""

    title: str = ""
    category: str = ""
    labels: tuple[str, ...] = ()  # Descriptive tags.


class DescriptionChange(Struct, frozen=True, kw_only=True):
    """New values for some of a description; None leaves one as it is."""

    title: str | None = None
    category: str | None = None
    labels: tuple[str, ...] | None = None

    def apply(self, before: Description) -> Description:
        """The description after the change."""
        return Description(
            title=before.title if self.title is None else self.title,
            category=before.category if self.category is None else self.category,
            labels=before.labels if self.labels is None else self.labels,
        )


class Grant(Struct, frozen=True, kw_only=True):
    """What a stream key allows; routing, slots and DSCP read it."""

    channel: str
    priority: PriorityClass = PriorityClass.BASIC
    title: str = ""
    tags: tuple[str, ...] = ()  # For the rules of routing.
    ladder: str = "default"
    record: bool = False
    playback: str = "public"  # Playback rights: "public" for now; tokens come with the ladder.
    expires_at: float | None = None  # Unix seconds; a session may not start after it.
    category: str = ""
    labels: tuple[str, ...] = ()
    latency: str = DEFAULT  # A `LatencyLabel`; of another a newer peer may know, or nobody.

    @property
    def description(self) -> Description:
        """What people are told; it may change while the stream is live."""
        return Description(title=self.title, category=self.category, labels=self.labels)

    def described(self, description: Description) -> "Grant":
        """The same grant with another description."""
        return structs.replace(
            self,
            title=description.title,
            category=description.category,
            labels=description.labels,
        )


class StreamId(Struct, frozen=True, order=True):
    """A live run and its fencing: everyone accepts only the newest (publication, home_epoch)."""

    channel: str
    publication: int  # 64 bit, later publications are greater; made by the publisher's PoP.
    home_epoch: int = 1  # Raised by each takeover or re-homing.

    @property
    def at_next_home(self) -> "StreamId":
        """The same run under the epoch above."""
        return StreamId(self.channel, self.publication, self.home_epoch + 1)
