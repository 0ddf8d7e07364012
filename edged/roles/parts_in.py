"""Parts from origins to playback: subscribed to where the directory says, gathered by turn."""

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol

import structlog
import trio
from msgspec import structs

from edged.backbone.directory import Directory, DirectoryRecord
from edged.backbone.segment_fetches import GONE, Done, SegmentKey
from edged.backbone.sender import OriginLink
from edged.errors import EdgedError
from edged.media.parts import PackagedEvent, SegmentsListed, StreamEnded
from edged.media.stream import PriorityClass, StreamId
from edged.policy.handover import Handover
from edged.policy.run_homes import Home, RunHomes
from edged.policy.segment_ends import SegmentEnds
from edged.runtime.pump import Pump

if TYPE_CHECKING:
    from edged.backbone.feeds import FeedSubscription

RUNS_MAX = 20_000  # Known by where they came from: twice the channels of one origin.
NO_ROOM = "full"  # As many as may be are waited for; it can be asked for again.
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


class _Leaving(NamedTuple):
    """What still comes of a run's home while the next one is begun with."""

    feed: _Feed
    next_id: StreamId  # Of the next home; its epoch may have risen since.
    handover: Handover


class PartsIn:
    """All channels that playback has subscribed to."""

    def __init__(
        self, pump: Pump, listing: Directory, link: Callable[[str], OriginLink | None]
    ) -> None:
        """`link` gives the way to an origin, while there is one."""
        self.playback: Feeds | None = None
        self._pump, self._listing, self._link = pump, listing, link
        self._feeds: dict[str, _Feed] = {}
        self._leaving: dict[str, _Leaving] = {}  # Channels that go from one origin to another.
        self.handovers = self.handovers_forced = 0
        self._wanted: dict[str, None] = {}  # Channels subscribed to by playback.
        self._gathered: dict[StreamId, list[PackagedEvent]] = {}
        self._heard: set[str] = set()  # Channels of which something has come since.
        # By channel and publication; those whose home changed last are at the end.
        self._homes: dict[tuple[str, int], RunHomes] = {}
        self._runs: dict[str, _Run] = {}  # By channel;
        self._due: dict[str, float] = {}  # when to show what is held of some.
        self._sooner: trio.Event | None = None  # Set when something is due before `run` looks.
        self._looks_at = math.inf

    async def run(self) -> None:
        """Give playback what is held when its time has come, until cancelled.

        Without it nothing is held.
        """
        try:
            while True:
                self._sooner, self._looks_at = trio.Event(), self._due_at()
                with trio.move_on_at(self._looks_at):
                    await self._sooner.wait()
                    continue
                now = self._pump.now()
                for channel, leaving in list(self._leaving.items()):
                    if leaving.handover.due_at <= now:
                        try:
                            self._go_on(channel, leaving, now)
                        except Exception:
                            self._hear_anew(channel)
                for channel in [channel for channel, at in self._due.items() if at <= now]:
                    self._due.pop(channel, None)
                    if (run := self._runs.get(channel)) is not None:
                        self._update(run.stream_id, self._timely(run.stream_id, []))
        finally:
            self._sooner = None
            for channel in list(self._due):
                self._let_go(channel)

    def _due_at(self) -> float:
        leaving = [known.handover.due_at for known in self._leaving.values()]
        return min((*self._due.values(), *leaving), default=math.inf)

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

        What is gone there, one of its homes before may have. As `SegmentFetches.fetch`; False as
        well while there is no way to the newest.
        """
        homes = self._homes.get((stream_id.channel, stream_id.publication))
        if homes is None:
            return False
        home, *before = homes.newest_first()
        return self._fetch_from(home, before, SegmentKey(stream_id, rendition, msn), done)

    def _fetch_from(self, home: Home, before: list[Home], key: SegmentKey, done: Done) -> bool:
        def take(result: bytes | str) -> None:
            up = [other for other in before if self._is_up(other)] if result == GONE else []
            if not up:
                done(result)
            elif not self._fetch_from(up[0], up[1:], key, done):
                done(NO_ROOM)

        link = self._link(home.origin)
        return link is not None and link.fetch_segment(home.priority, key, take)

    def listed(self, channel: str, record: DirectoryRecord | None) -> None:
        """The directory has something new of a channel: go where it is."""
        if channel in self._wanted:
            self._follow(channel, record)

    def cut_off(self, origin: str) -> list[str]:
        """Nothing will come from an origin any more; which channels came from there."""
        for name in [n for n, known in self._leaving.items() if known.feed.origin == origin]:
            self._leave(name)
        channels = [name for name, feed in self._feeds.items() if feed.origin == origin]
        for name in channels:
            leaving = self._leaving.get(name)
            if leaving is not None and not leaving.handover.is_over:
                if (link := self._link(origin)) is not None:
                    link.unsubscribe(self._feeds[name].subscription)
                self._stay(name, leaving)
        channels = [name for name in channels if self._feeds[name].origin == origin]
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
        self._leave(channel)
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
            if not self._hand_over(channel, known, record.entry.stream_id):
                self._cancel(channel)
            if channel not in self._wanted:  # What was held was no good.
                return
        subscription = link.subscribe_parts(
            channel,
            self.receive,
            on_end=partial(self._subscription_ended, channel, origin),
            priority=priority,  # Its session and its DSCP, as on the way in.
            cold=channel not in self._heard,
        )
        self._feeds[channel] = _Feed(origin, priority, subscription)

    def _subscription_ended(self, channel: str, origin: str, code: str, reason: str) -> None:
        leaving = self._leaving.get(channel)
        if leaving is None or leaving.handover.is_over:
            self.feed_ended(channel, f"{code}: {reason}")
        elif leaving.feed.origin == origin:
            self._leave(channel)  # It has ended by itself, before the next home had caught up.
        else:
            self._stay(channel, leaving)

    def _stay(self, channel: str, leaving: _Leaving) -> None:
        """Nothing comes of the next home: hear the one before, as long as that goes on."""
        del self._leaving[channel]
        self._feeds[channel] = leaving.feed

    def _hand_over(self, channel: str, known: _Feed, next_id: StreamId) -> bool:
        """Keep what comes until the run's next home has caught up; False: there is no need."""
        run = self._runs.get(channel)
        if channel in self._leaving:
            self._leave(channel)  # It goes on to a third: from the second alone.
        if self._sooner is None or run is None or not run.ends.shown:
            return False
        same = run.stream_id.publication == next_id.publication
        if not same or run.stream_id >= next_id or self._link(known.origin) is None:
            return False  # Another run, or no newer home: what comes cannot be told apart.
        handover = Handover(run.ends.shown, self._pump.now())
        known.subscription.hands_over = True
        self._leaving[channel] = _Leaving(known, next_id, handover)
        self.handovers += 1
        self._sooner.set()
        return True

    def _leave(self, channel: str) -> None:
        """Hear no more of the home before; what the next one has is shown from here on."""
        leaving = self._leaving.pop(channel, None)
        if leaving is None:
            return
        if not leaving.handover.is_over:
            self.handovers_forced += 1
            if (events := leaving.handover.force()) and (run := self._runs.get(channel)):
                self._update(run.stream_id, self._timely(leaving.next_id, events))
        if (link := self._link(leaving.feed.origin)) is not None:
            link.unsubscribe(leaving.feed.subscription)

    def _pass_on(
        self, leaving: _Leaving, stream_id: StreamId, events: list[PackagedEvent]
    ) -> list[PackagedEvent]:
        """What of these is shown, while two homes push one run."""
        channel = stream_id.channel
        handover = leaving.handover
        was_over, now = handover.is_over, self._pump.now()
        if stream_id < leaving.next_id:
            shown = handover.take_old(events, now)
        else:
            shown = handover.take_new(events, now)
        if handover.is_over and not was_over and (link := self._link(leaving.feed.origin)):
            link.unsubscribe(leaving.feed.subscription)
        if handover.is_done:
            self._leave(channel)
        elif handover.due_at < self._looks_at and self._sooner is not None:
            self._sooner.set()
        return shown

    def _go_on(self, channel: str, leaving: _Leaving, now: float) -> None:
        """Show the next home's where the one before is silent, or has had its time."""
        events = leaving.handover.handle_timeout(now)
        if leaving.handover.is_over:
            self.handovers_forced += 1
            self._leave(channel)
        if events and (run := self._runs.get(channel)):
            self._update(run.stream_id, self._timely(leaving.next_id, events))

    def _hear_anew(self, channel: str) -> None:
        """A handover has failed, which costs its channel nothing: the next home's replay has all.

        Call it where that is caught.
        """
        logger.exception("handover failed", channel=channel)
        leaving = self._leaving.pop(channel, None)
        if leaving is not None and (link := self._link(leaving.feed.origin)) is not None:
            link.unsubscribe(leaving.feed.subscription)
        self.handovers_forced += leaving is not None
        self.subscribe(channel)

    def _cancel(self, channel: str) -> None:
        self._leave(channel)
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
            leaving, run = self._leaving.get(stream_id.channel), self._runs.get(stream_id.channel)
            if leaving and run and stream_id.publication == leaving.next_id.publication:
                if stream_id >= leaving.next_id:
                    events = self._note(stream_id, events)  # noqa: PLW2901 - refined
                try:
                    events = self._pass_on(leaving, stream_id, events)  # noqa: PLW2901 - refined
                except Exception:
                    self._hear_anew(stream_id.channel)
                    continue
                stream_id = max(stream_id, run.stream_id)  # noqa: PLW2901 - one run to playback
            else:
                events = self._note(stream_id, events)  # noqa: PLW2901 - refined
                if run and self._has_stayed(stream_id, run):
                    stream_id = run.stream_id  # noqa: PLW2901 - one run to playback
            if events and isinstance(events[-1], StreamEnded):
                self.unsubscribe(stream_id.channel)
            self._update(stream_id, self._timely(stream_id, events))

    def _has_stayed(self, stream_id: StreamId, run: _Run) -> bool:
        """Whether this comes of a home that was to be left, after something of the next had."""
        feed, known = self._feeds.get(stream_id.channel), run.stream_id
        is_older = stream_id.publication == known.publication and stream_id < known
        return is_older and feed is not None and feed.subscription.hands_over

    def _note(self, stream_id: StreamId, events: list[PackagedEvent]) -> list[PackagedEvent]:
        """Something of a run has come; returns it with how far back all its homes go."""
        channel = stream_id.channel
        feed, run = self._feeds.get(channel), (channel, stream_id.publication)
        self._heard.add(channel)
        if feed is None:
            return events
        homes = self._homes.get(run) or RunHomes()
        if homes.came(feed.origin, feed.priority, stream_id.home_epoch):
            self._homes.pop(run, None)
            self._homes[run] = homes
            if len(self._homes) > RUNS_MAX:
                del self._homes[next(iter(self._homes))]
        if not any(isinstance(event, SegmentsListed) for event in events):
            return events
        return [
            structs.replace(
                event,
                oldest_msn=homes.oldest_msn(event.rendition, event.oldest_msn, self._is_up),
            )
            if isinstance(event, SegmentsListed)
            else event
            for event in events
        ]

    def _is_up(self, home: Home) -> bool:
        link = self._link(home.origin)
        return link is not None and link.is_up(home.priority)

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
            self._due[channel] = due_at
            if due_at < self._looks_at and self._sooner is not None:
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
