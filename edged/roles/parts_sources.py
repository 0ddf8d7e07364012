"""Who brings parts, and who takes them: the words of `parts_in`."""

from typing import TYPE_CHECKING, NamedTuple, Protocol

from msgspec import structs

from edged.backbone.feeds import OnEvent
from edged.media.parts import PackagedEvent, SegmentsListed
from edged.media.stream import PriorityClass, StreamId
from edged.policy.handover import Handover
from edged.policy.segment_ends import SegmentEnds

if TYPE_CHECKING:
    from collections.abc import Callable

    from edged.backbone.feeds import FeedSubscription
    from edged.policy.run_homes import Home, RunHomes


class Feeds(Protocol):
    """The playback edge, as far as parts come to it."""

    def window_updated(self, stream_id: StreamId, events: list[PackagedEvent]) -> None:
        """Take what an origin pushed."""

    def channel_unavailable(self, channel: str, reason: str) -> None:
        """No parts will come for now, and why."""


class Feed(NamedTuple):
    """A subscription, and what it was made for."""

    origin: str
    priority: PriorityClass
    subscription: "FeedSubscription"


class Leaving(NamedTuple):
    """What still comes of a run's home while the next one is begun with."""

    feed: Feed
    next_id: StreamId  # Of the next home; its epoch may have risen since.
    handover: Handover
    by_source: bool  # They are told apart by who brings them: a relay has its origin's epoch.


class Run:
    """What of a channel's run goes to playback when."""

    def __init__(self, stream_id: StreamId) -> None:
        self.stream_id = stream_id  # As it was told last: its epoch rises.
        self.ends = SegmentEnds()


class Relays(Protocol):
    """PoPs that relay, by name ("ams1/0"; no origin's has a slash)."""

    def source(self, channel: str) -> str:
        """Which of them a channel is to come from; "": its origin."""

    def rungs(self, channel: str) -> tuple[str, ...] | None:
        """Which rungs of it are to be pushed; None: all."""

    def taker(self, channel: str, relay: str, take: OnEvent) -> OnEvent:
        """What takes what comes from a relay, and hands it on."""

    def ended(self, channel: str, relay: str, why: str) -> None:
        """It comes from there no more, nor is it to for a while."""

    def stays(self, channel: str, source: str) -> None:
        """It goes nowhere: it comes from this one, as before."""

    def shown(self, stream_id: StreamId, events: list[PackagedEvent]) -> None:
        """Playback has these now: who takes the channel from here gets them."""

    def gone(self, channel: str, reason: str) -> None:
        """Nothing more of a channel comes here."""


def is_relay(source: str) -> bool:
    """Whether this is a PoP shard's name, no origin's."""
    return "/" in source


def tell_oldest(
    events: list[PackagedEvent], homes: "RunHomes", is_up: "Callable[[Home], bool]"
) -> list[PackagedEvent]:
    """These with how far back all homes of a run go that can be asked."""
    return [
        structs.replace(
            event, oldest_msn=homes.oldest_msn(event.rendition, event.oldest_msn, is_up)
        )
        if isinstance(event, SegmentsListed)
        else event
        for event in events
    ]
