"""Parts from origins to playback: subscribed to where the directory says, gathered by turn."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

import structlog
import trio

from edged.backbone.directory import Directory, DirectoryRecord
from edged.backbone.segment_fetches import Done, SegmentKey
from edged.backbone.sender import OriginLink
from edged.errors import EdgedError
from edged.media.parts import PackagedEvent, StreamEnded
from edged.media.stream import PriorityClass, StreamId
from edged.policy.segment_ends import SegmentEnds
from edged.runtime.pump import Pump

if TYPE_CHECKING:
    from edged.backbone.feeds import FeedSubscription

RUNS_MAX = 20_000  # Known by where they came from: twice the channels of one origin.
LOST = "no_route: the network has lost the way to this channel"  # Viewers may read it.

logger = structlog.get_logger("edged.pop")


class Feeds(Protocol):
    """The playback edge, as far as parts come to it."""

    def window_updated(self, stream_id: StreamId, events: list[PackagedEvent]) -> None:
        """Take what an origin pushed."""

    def channel_unavailable(self, channel: str, reason: str) -> None:
        """No parts will come for now, and why."""


class _Feed(NamedTuple):
    """A subscription, and what it was made for."""

    origin: str
    priority: PriorityClass
    subscription: "FeedSubscription"


class _Run:
    """What of a channel's run goes to playback when."""

    def __init__(self, stream_id: StreamId) -> None:
        self.stream_id = stream_id  # As it was told last: its epoch rises.
        self.ends = SegmentEnds()


class PartsIn:
    """All channels that playback has subscribed to."""

    def __init__(
        self, pump: Pump, listing: Directory, link: Callable[[str], OriginLink | None]
    ) -> None:
        """`link` gives the way to an origin, while there is one."""
        self.playback: Feeds | None = None
        self._pump, self._listing, self._link = pump, listing, link
        self._feeds: dict[str, _Feed] = {}
        self._wanted: dict[str, None] = {}  # Channels subscribed to by playback.
        self._gathered: dict[StreamId, list[PackagedEvent]] = {}
        self._heard: set[str] = set()  # Channels of which something has come since.
        # Runs, by channel and publication: their origin and class, the last to come last.
        self._came_from: dict[tuple[str, int], tuple[str, PriorityClass]] = {}
        self._runs: dict[str, _Run] = {}  # By channel;
        self._due: dict[str, float] = {}  # when to show what is held of some.
        self._sooner: trio.Event | None = None  # Set when something is due before what `run` knows.

    async def run(self) -> None:
        """Give playback what is held when its time has come, until cancelled.

        Without it nothing is held.
        """
        try:
            while True:
                self._sooner = trio.Event()
                with trio.move_on_at(self._due_at()):
                    await self._sooner.wait()
                    continue
                now = self._pump.now()
                for channel in [channel for channel, at in self._due.items() if at <= now]:
                    self._due.pop(channel, None)
                    if (run := self._runs.get(channel)) is not None:
                        self._update(run.stream_id, self._timely(run.stream_id, []))
        finally:
            self._sooner = None
            for channel in list(self._due):
                self._let_go(channel)

    def _due_at(self) -> float:
        return min(self._due.values(), default=math.inf)

    def subscribe(self, channel: str) -> None:
        """Have a channel's parts pushed here, with a replay, from where its newest run is."""
        self._cancel(channel)
        self._wanted[channel] = None
        self._follow(channel, self._listing.lookup(channel))

    def unsubscribe(self, channel: str) -> None:
        """No more of it."""
        self._wanted.pop(channel, None)
        self._heard.discard(channel)
        self._cancel(channel)

    def fetch(self, stream_id: StreamId, rendition: str, msn: int, done: Done) -> bool:
        """Fetch a segment that was listed, by name, from where its run comes from, or last came.

        As `SegmentFetches.fetch`; False as well while there is no way there.
        """
        came_from = self._came_from.get((stream_id.channel, stream_id.publication))
        if came_from is None or (link := self._link(came_from[0])) is None:
            return False
        return link.fetch_segment(came_from[1], SegmentKey(stream_id, rendition, msn), done)

    def listed(self, channel: str, record: DirectoryRecord | None) -> None:
        """The directory has something new of a channel: go where it is."""
        if channel in self._wanted:
            self._follow(channel, record)

    def cut_off(self, origin: str) -> list[str]:
        """Nothing will come from an origin any more; which channels came from there."""
        channels = [name for name, feed in self._feeds.items() if feed.origin == origin]
        for channel in channels:
            self._cancel(channel)
        return channels

    def end(self, channels: list[str]) -> None:
        """Tell playback of those channels that are followed nowhere else."""
        for channel in channels:
            if channel not in self._feeds:
                self.feed_ended(channel, LOST)

    def feed_ended(self, channel: str, reason: str) -> None:
        """The subscription is gone."""
        self._feeds.pop(channel, None)
        self._wanted.pop(channel, None)
        self._heard.discard(channel)
        self._let_go(channel)
        if self.playback is not None:
            self.playback.channel_unavailable(channel, reason)

    def receive(self, stream_id: StreamId, event: PackagedEvent) -> None:
        """Gather a turn's events: a replay reaches playback in one call, not part by part."""
        events = self._gathered.get(stream_id)
        if events is None:
            events = self._gathered[stream_id] = []
        events.append(event)
        self._pump.at_flush(self._deliver)

    def _follow(self, channel: str, record: DirectoryRecord | None) -> None:
        link = None if record is None else self._link(record.origin)
        if record is None or link is None:
            return
        origin, priority = record.origin, record.entry.priority
        known = self._feeds.get(channel)
        if known is not None:
            if (known.origin, known.priority) == (origin, priority):
                return
            self._cancel(channel)
            if channel not in self._wanted:  # What was held was no good.
                return
        subscription = link.subscribe_parts(
            channel,
            self.receive,
            on_end=lambda code, reason: self.feed_ended(channel, f"{code}: {reason}"),
            priority=priority,  # Its session and its DSCP, as on the way in.
            cold=channel not in self._heard,
        )
        self._feeds[channel] = _Feed(origin, priority, subscription)

    def _cancel(self, channel: str) -> None:
        known = self._feeds.pop(channel, None)
        link = None if known is None else self._link(known.origin)
        if known is not None and link is not None:
            link.unsubscribe(known.subscription)
        self._let_go(channel)

    def _let_go(self, channel: str) -> list[PackagedEvent]:
        """Give playback what is held of a channel: nothing will come after it, or another's."""
        self._due.pop(channel, None)
        run = self._runs.pop(channel, None)
        held = [] if run is None else run.ends.let_go()
        if run is not None and held:
            self._update(run.stream_id, held)
        return held

    def _deliver(self) -> None:
        """Tell playback, older runs first.

        A run's end ends the subscription, here as for playback. The next run, though its first
        events may be here already, is subscribed to when playback asks, perhaps in `window_updated`
        of either run: its replay comes then.
        """
        gathered, self._gathered = self._gathered, {}
        for stream_id, events in sorted(gathered.items(), key=lambda item: item[0]):
            self._note(stream_id)
            if isinstance(events[-1], StreamEnded):
                self.unsubscribe(stream_id.channel)
            self._update(stream_id, self._timely(stream_id, events))

    def _note(self, stream_id: StreamId) -> None:
        """Something of a run has come."""
        channel = stream_id.channel
        feed, run = self._feeds.get(channel), (channel, stream_id.publication)
        self._heard.add(channel)
        if feed is None or self._came_from.get(run) == (feed.origin, feed.priority):
            return
        self._came_from.pop(run, None)
        self._came_from[run] = feed.origin, feed.priority
        if len(self._came_from) > RUNS_MAX:
            del self._came_from[next(iter(self._came_from))]

    def _timely(self, stream_id: StreamId, events: list[PackagedEvent]) -> list[PackagedEvent]:
        """What of these is to go to playback now, behind what was held before."""
        channel = stream_id.channel
        if self._sooner is None or channel not in self._feeds:
            return events
        try:
            run = self._runs.get(channel)
            if run is None or run.stream_id.publication != stream_id.publication:
                self._let_go(channel)
                run = self._runs[channel] = _Run(stream_id)
            run.stream_id = max(run.stream_id, stream_id)
            return self._take(run, events, self._pump.now())
        except Exception:  # One channel's; and it goes on without being timely.
            logger.exception("parts not held back", channel=channel)
            held = self._let_go(channel)
            return [event for event in events if event not in held]

    def _take(self, run: _Run, events: list[PackagedEvent], now: float) -> list[PackagedEvent]:
        """Exchange these for what is to be shown, and know when the rest is due."""
        channel = run.stream_id.channel
        events = run.ends.take(events, now)
        due_at = run.ends.due_at
        if due_at == math.inf:
            self._due.pop(channel, None)
        elif due_at != self._due.get(channel):
            is_sooner = due_at < self._due_at()
            self._due[channel] = due_at
            if is_sooner and self._sooner is not None:
                self._sooner.set()
        return events

    def _update(self, stream_id: StreamId, events: list[PackagedEvent]) -> None:
        """Tell playback of one run; what goes wrong there ends that channel's subscription only."""
        channel, playback = stream_id.channel, self.playback
        if playback is None or not events:
            return
        try:
            playback.window_updated(stream_id, events)
        except EdgedError as error:
            logger.error(  # noqa: TRY400 - the origin's fault: its traceback is of no use here
                "origin's events refused", channel=channel, reason=str(error)
            )
            reason = f"broken media: {error}"
        except Exception:
            logger.exception("playback failed", channel=channel)
            reason = "internal error"
        else:
            return
        self.unsubscribe(channel)
        try:
            playback.channel_unavailable(channel, reason)
        except Exception:  # What failed above may fail again here.
            logger.exception("playback failed to end a channel", channel=channel)
