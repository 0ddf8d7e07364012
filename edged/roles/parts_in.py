"""Parts from origins to playback: subscribed to where the directory says, gathered by turn."""

import math
from collections.abc import Callable
from functools import partial

import structlog
import trio

from edged.backbone.directory import Directory, DirectoryRecord
from edged.backbone.feeds import OnEvent
from edged.backbone.segment_fetches import GONE, Done, SegmentKey
from edged.backbone.sender import OriginLink
from edged.errors import EdgedError
from edged.media.parts import PackagedEvent, StreamEnded
from edged.media.stream import PriorityClass, StreamId
from edged.policy.handover import Handover
from edged.policy.run_homes import Home, RunHomes
from edged.roles.parts_sources import Feed, Feeds, Leaving, Relays, Run, is_relay, tell_oldest
from edged.runtime.pump import Pump

RUNS_MAX = 20_000  # Known by where they came from: twice the channels of one origin.
NO_ROOM = "full"  # As many as may be are waited for; it can be asked for again.
LOST = "no_route: the network has lost the way to this channel"  # Viewers may read it.

logger = structlog.get_logger("edged.pop")


class PartsIn:
    """All channels that playback has subscribed to."""

    def __init__(
        self, pump: Pump, listing: Directory, link: Callable[[str], OriginLink | None]
    ) -> None:
        """`link` gives the way to an origin, while there is one."""
        self.playback: Feeds | None = None
        self.relays: Relays | None = None
        self._pump, self._listing, self._link = pump, listing, link
        self._feeds: dict[str, Feed] = {}
        self._leaving: dict[str, Leaving] = {}  # Channels that go from one origin to another.
        self.handovers = self.handovers_forced = 0
        self._wanted: dict[str, None] = {}  # Channels subscribed to by playback.
        self._gathered: dict[StreamId, list[PackagedEvent]] = {}
        self._gathered_next: dict[StreamId, list[PackagedEvent]] = {}  # By `receive_next`.
        self._heard: set[str] = set()  # Channels of which something has come since.
        # By channel and publication; those whose home changed last are at the end.
        self._homes: dict[tuple[str, int], RunHomes] = {}
        self._runs: dict[str, Run] = {}  # By channel;
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

    def go(self, channel: str) -> None:
        """Take it from where it is to come from by now."""
        if channel in self._wanted:
            self._follow(channel, self._listing.lookup(channel))

    def sources(self, channel: str) -> tuple[str, ...]:
        """Who brings a channel: one, or two while it is handed over, the next one first."""
        return tuple(each.origin for each in self._both(channel))

    def want_rungs(self, channel: str, rungs: tuple[str, ...] | None) -> None:
        """Have these pushed alone, by all who bring it."""
        for each in self._both(channel):
            each.subscription.want_rungs(rungs)

    def _both(self, channel: str) -> list[Feed]:
        feed, leaving = self._feeds.get(channel), self._leaving.get(channel)
        before = None if leaving is None else leaving.feed
        return [each for each in (feed, before) if each is not None]

    def received(self, channel: str) -> int:
        """How many events the first of these has brought, of a replay that is not whole too."""
        feed = self._feeds.get(channel)
        return 0 if feed is None else feed.subscription.received

    def priority(self, channel: str) -> PriorityClass | None:
        """Of the session that the first of these brings it by."""
        feed = self._feeds.get(channel)
        return None if feed is None else feed.priority

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
        if self.relays is not None:
            self.relays.gone(channel, reason)
        if self.playback is not None:
            self.playback.channel_unavailable(channel, reason)

    def receive(self, stream_id: StreamId, event: PackagedEvent) -> None:
        """Gather a turn's events: a replay reaches playback in one call, not part by part."""
        events = self._gathered.get(stream_id)
        if events is None:
            events = self._gathered[stream_id] = []
        events.append(event)
        self._pump.at_flush(self._deliver)

    def receive_next(self, stream_id: StreamId, event: PackagedEvent) -> None:
        """The same of who brings a run next, while who brought it before is still heard."""
        self._gathered_next.setdefault(stream_id, []).append(event)
        self._pump.at_flush(self._deliver)

    def _follow(self, channel: str, record: DirectoryRecord | None) -> None:
        if record is None:
            return
        origin, priority = record.origin, record.entry.priority
        if self.relays is not None:
            origin = self.relays.source(channel) or origin
        link = self._link(origin)
        if link is None:
            return
        known = self._feeds.get(channel)
        if known is not None:
            if (known.origin, known.priority) == (origin, priority):
                return
            if self._goes_back(channel, origin):
                return
            if not self._hand_over(channel, known, record.entry.stream_id, origin):
                self._cancel(channel)
            if channel not in self._wanted:  # What was held was no good.
                return
        subscription = link.subscribe_parts(
            channel,
            self._taker(channel, origin),
            on_end=partial(self._subscription_ended, channel, origin),
            priority=priority,  # Its session and its DSCP, as on the way in.
            cold=channel not in self._heard,
            rungs=None if self.relays is None else self.relays.rungs(channel),
        )
        self._feeds[channel] = Feed(origin, priority, subscription)

    def _goes_back(self, channel: str, origin: str) -> bool:
        """Whether it stays where it was about to leave from."""
        leaving = self._leaving.get(channel)
        if leaving is None or not leaving.by_source or leaving.handover.is_over:
            return False
        if is_back := leaving.feed.origin == origin:
            self._stay(channel, leaving)
        return is_back

    def _taker(self, channel: str, origin: str) -> OnEvent:
        leaving = self._leaving.get(channel)
        is_next = leaving is not None and leaving.by_source
        take = self.receive_next if is_next else self.receive
        if self.relays is None or not is_relay(origin):
            return take
        return self.relays.taker(channel, origin, take)

    def _subscription_ended(self, channel: str, origin: str, code: str, reason: str) -> None:
        leaving = self._leaving.get(channel)
        if self.relays is not None and is_relay(origin):
            self.relays.ended(channel, origin, f"{code}: {reason}")
        if leaving is None or leaving.handover.is_over:
            if not (is_relay(origin) and self._begin_at_origin(channel)):
                self.feed_ended(channel, f"{code}: {reason}")
        elif leaving.feed.origin == origin:
            self._leave(channel)  # It has ended by itself, before the next home had caught up.
        else:
            self._stay(channel, leaving)

    def _begin_at_origin(self, channel: str) -> bool:
        """A relay brings a channel no more; its origin's replay has what was missed."""
        self._leave(channel)
        self._feeds.pop(channel, None)
        self._follow(channel, self._listing.lookup(channel))
        return channel in self._feeds

    def _stay(self, channel: str, leaving: Leaving) -> None:
        """Nothing comes of the next home: hear the one before, as long as that goes on."""
        self._forget_next(channel, leaving)
        if self.relays is not None:
            self.relays.stays(channel, leaving.feed.origin)

    def _forget_next(self, channel: str, leaving: Leaving) -> None:
        del self._leaving[channel]
        if (link := self._link(self._feeds[channel].origin)) is not None:
            link.unsubscribe(self._feeds[channel].subscription)
        self._feeds[channel] = leaving.feed
        if leaving.by_source:
            self._gathered_next = {
                stream_id: events
                for stream_id, events in self._gathered_next.items()
                if stream_id.channel != channel
            }

    def _hand_over(self, channel: str, known: Feed, next_id: StreamId, origin: str) -> bool:
        """Keep what comes until the run's next home has caught up; False: there is no need."""
        run, leaving = self._runs.get(channel), self._leaving.get(channel)
        if leaving is not None and leaving.by_source and not leaving.handover.is_over:
            self._forget_next(channel, leaving)  # It goes on to a third, from who is heard yet.
            known = leaving.feed
        elif leaving is not None:
            self._leave(channel)  # It goes on to a third: from the second alone.
        if self._sooner is None or run is None or not run.ends.shown:
            return False
        same = run.stream_id.publication == next_id.publication
        by_source = is_relay(known.origin) or is_relay(origin)
        is_newer = by_source or run.stream_id < next_id
        if not same or not is_newer or self._link(known.origin) is None:
            return False  # Another run, or no newer home: what comes cannot be told apart.
        if by_source:  # A relay may have its origin's epoch of before as yet.
            next_id = run.stream_id
        handover = Handover(run.ends.shown, self._pump.now())
        known.subscription.hands_over = True
        self._leaving[channel] = Leaving(known, next_id, handover, by_source)
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
        if leaving.by_source and (feed := self._feeds.get(channel)) is not None:
            feed.subscription.on_event = self._taker(channel, feed.origin)

    def _pass_on(
        self, leaving: Leaving, stream_id: StreamId, events: list[PackagedEvent], *, new: bool
    ) -> list[PackagedEvent]:
        """What of these is shown, while two homes push one run."""
        channel = stream_id.channel
        handover = leaving.handover
        was_over, now = handover.is_over, self._pump.now()
        shown = handover.take_new(events, now) if new else handover.take_old(events, now)
        if handover.is_over and not was_over and (link := self._link(leaving.feed.origin)):
            link.unsubscribe(leaving.feed.subscription)
        if handover.is_done:
            self._leave(channel)
        elif handover.due_at < self._looks_at and self._sooner is not None:
            self._sooner.set()
        return shown

    def _go_on(self, channel: str, leaving: Leaving, now: float) -> None:
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
        gathered, self._gathered = sorted(self._gathered.items(), key=lambda item: item[0]), {}
        following: list[tuple[StreamId, list[PackagedEvent]]] = []
        if self._gathered_next:  # While a relay is gone to, or left.
            following, self._gathered_next = sorted(self._gathered_next.items()), {}
        for number, (stream_id, events) in enumerate((*gathered, *following)):
            leaving, run = self._leaving.get(stream_id.channel), self._runs.get(stream_id.channel)
            if leaving and run and stream_id.publication == leaving.next_id.publication:
                new = stream_id >= leaving.next_id
                if leaving.by_source:
                    new = number >= len(gathered)
                if new:
                    events = self._note(stream_id, events)  # noqa: PLW2901 - refined
                try:
                    events = self._pass_on(leaving, stream_id, events, new=new)  # noqa: PLW2901
                except Exception:
                    self._hear_anew(stream_id.channel)
                    continue
                stream_id = max(stream_id, run.stream_id)  # noqa: PLW2901 - one run to playback
            else:
                if leaving and stream_id.publication > leaving.next_id.publication:
                    self._leave(stream_id.channel)  # What is kept is of the run before.
                events = self._note(stream_id, events)  # noqa: PLW2901 - refined
                if run and self._has_stayed(stream_id, run):
                    stream_id = run.stream_id  # noqa: PLW2901 - one run to playback
            if events and isinstance(events[-1], StreamEnded):
                self.unsubscribe(stream_id.channel)
            self._update(stream_id, self._timely(stream_id, events))

    def _has_stayed(self, stream_id: StreamId, run: Run) -> bool:
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
        origin = self._home(feed.origin, stream_id)
        homes = self._homes.get(run) or RunHomes()
        if origin and homes.came(origin, feed.priority, stream_id.home_epoch):
            self._homes.pop(run, None)
            self._homes[run] = homes
            if len(self._homes) > RUNS_MAX:
                del self._homes[next(iter(self._homes))]
        return tell_oldest(events, homes, self._is_up) if run in self._homes else events

    def _home(self, source: str, stream_id: StreamId) -> str:
        """The origin that a run is at, whoever brings it; "": its epoch is another's by now."""
        if not is_relay(source):
            return source
        record = self._listing.lookup(stream_id.channel)
        return record.origin if record and record.entry.stream_id == stream_id else ""

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
                run = self._runs[channel] = Run(stream_id)
            run.stream_id = max(run.stream_id, stream_id)
            return self._take(run, events, self._pump.now())
        except Exception:  # One channel's; and it goes on without being timely.
            logger.exception("parts not held back", channel=channel)
            held = self._let_go(channel)
            return [event for event in events if event not in held]

    def _take(self, run: Run, events: list[PackagedEvent], now: float) -> list[PackagedEvent]:
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
            if self.relays is not None:
                self.relays.shown(stream_id, events)
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
        if self.relays is not None:
            self.relays.gone(channel, reason)
        try:
            playback.channel_unavailable(channel, reason)
        except Exception:  # What failed above may fail again here.
            logger.exception("playback failed to end a channel", channel=channel)
