"""What a PoP subscribes to at one origin: channels' parts for LL-HLS, or their units."""

import itertools
import math
from collections.abc import Callable

import structlog

from edged.backbone.fence import Fence, explain_fence
from edged.backbone.inbound import InboundStreams
from edged.backbone.inbound_stream import stop_failed
from edged.backbone.segment_fetches import SegmentFetches
from edged.backbone.session import BackboneSession
from edged.errors import EdgedError, RemoteProtocolError
from edged.media.access_unit import AccessUnit
from edged.media.parts import PackagedEvent, SegmentPiece, StreamEnded
from edged.media.routing import Terms
from edged.media.stream import Grant, PriorityClass, StreamId
from edged.media.track import Track
from edged.runtime.hub import Hub, LiveStream
from edged.wire.backbone.messages import (
    FEATURE_RUNGS,
    EventsOpened,
    KeyFrameWanted,
    Message,
    RungsWanted,
    SegmentOpened,
    SegmentRefused,
    StreamClosed,
    StreamOpened,
    StreamRefused,
    SubscribeParts,
    SubscribeUnits,
    SubscriptionAccepted,
    SubscriptionRefused,
    TrackChanged,
    Unsubscribe,
)

SUBSCRIPTIONS_MAX = 10_000  # To one origin: what it takes per session.
REPLAY_EVENTS_MAX = 20_000  # 600 s, the longest window, of 100 ms parts in three renditions.
SUCCESSOR_S_MAX = 5.0  # From a stream's close to the next one's opening, which follows at once.
# An origin that has just been restarted does not know its streams yet: their PoPs offer them again.
RETURN_S_MAX = 5.0
ASK_AGAIN_S = 0.25  # Meanwhile, for what it had before.
REPLAY_S_MAX = 3.0  # 16 s of a 30 Mbps stream over a Gbps path, with room; then what came counts.

OnEvent = Callable[[StreamId, PackagedEvent], None]
OnStream = Callable[[LiveStream], None]
OnEnd = Callable[[str, str], None]  # code, reason

logger = structlog.get_logger("edged.backbone")


class FeedSubscription:
    """One channel at one origin."""

    def __init__(
        self,
        sub_no: int,
        channel: str,
        priority: PriorityClass,
        *,
        on_event: OnEvent | None,
        on_stream: OnStream | None,
        on_end: OnEnd | None,
        cold: bool = False,
        rungs: tuple[str, ...] | None = None,
    ) -> None:
        self.rungs = rungs  # Of video that is to be pushed; None: all.
        self.cold = cold  # Nothing of it is here, until something has come.
        self.sub_no = sub_no
        self.channel = channel
        self.priority = priority
        self.on_event, self.on_stream, self.on_end = on_event, on_stream, on_end
        self.stream_id: StreamId | None = None  # The run now, or last, pushed.
        self.stream: LiveStream | None = None  # Of units.
        self.session: BackboneSession | None = None
        self.stream_no = 0
        self.closed_reason = ""  # Of its last stream, while another is to follow:
        self.successor_until = math.inf
        self.missed_at: float | None = None  # When the origin first said that it is not live,
        self.ask_at = math.inf  # and when to ask again.
        self.hands_over = False  # Its run's next home is heard as well: both are wanted.
        self.received = 0  # Events, those of a replay that is not whole yet included.
        self._replay: list[PackagedEvent] = []
        self._replay_left = 0
        self._replay_until = math.inf

    def wants_older(self, newest: StreamId) -> bool:
        """Whether its run is wanted although this newer home of it is known."""
        assert self.stream_id is not None, "set when the stream was opened"
        return self.hands_over and newest.publication == self.stream_id.publication

    def begin_replay(self, events: int, now: float) -> None:
        """The next `events` events are of use only together; REPLAY_S_MAX at most."""
        self._replay = []
        self._replay_left = min(events, REPLAY_EVENTS_MAX)
        self._replay_until = now + REPLAY_S_MAX if events else math.inf

    def take(self, event: PackagedEvent) -> None:
        """Hand an event on, or keep it until the replay that it belongs to is whole."""
        assert self.on_event is not None, "a subscription to parts"
        assert self.stream_id is not None, "set when the stream was opened"
        if not self._replay_left:
            self.on_event(self.stream_id, event)
            return
        self._replay.append(event)
        self._replay_left -= 1
        if not self._replay_left or isinstance(event, StreamEnded):
            self.end_replay(math.inf)

    def end_replay(self, now: float) -> None:
        """Hand on what has come, if the time is over: events may have been skipped on the way."""
        if now < self._replay_until:
            return
        events, self._replay = self._replay, []
        self._replay_left, self._replay_until = 0, math.inf
        for event in events:
            self.take(event)

    def want_rungs(self, rungs: tuple[str, ...] | None) -> None:
        """Have these pushed alone from now on, if the other end can tell them apart."""
        if rungs == self.rungs:
            return
        self.rungs = rungs
        if self.session is not None and FEATURE_RUNGS in self.session.peer.features:
            self.session.send(RungsWanted(self.sub_no, rungs))

    def want_key_frame(self, track_id: int) -> None:
        """A reader of the units needs a random access point: ask upstream."""
        if self.session is not None and self.stream_no:
            self.session.send(KeyFrameWanted(self.stream_no, track_id))


class Feeds:
    """All subscriptions to one origin."""

    def __init__(self, origin: str, hub: Hub, fence: Fence) -> None:
        self._origin, self._fence = origin, fence
        self._subs: dict[int, FeedSubscription] = {}
        self._by_stream_no: dict[tuple[BackboneSession, int], FeedSubscription] = {}
        self._numbers = itertools.count(1)
        self.fetches = SegmentFetches(origin)
        self._opening: FeedSubscription | None = None
        self._inbound = InboundStreams(
            hub, fence, admit=self._admit, opened=self._opened, closed=self._closed
        )

    def __len__(self) -> int:
        return len(self._subs)

    def add_parts(  # noqa: PLR0917 -- as `subscribe_parts` has them
        self,
        channel: str,
        on_event: OnEvent,
        on_end: OnEnd | None,
        priority: PriorityClass,
        cold: bool = False,
        rungs: tuple[str, ...] | None = None,
    ) -> FeedSubscription:
        """Note a subscription to parts; EdgedError at SUBSCRIPTIONS_MAX."""
        return self._add(
            FeedSubscription(
                next(self._numbers),
                channel,
                priority,
                on_event=on_event,
                on_stream=None,
                on_end=on_end,
                cold=cold,
                rungs=rungs,
            )
        )

    def add_units(
        self, channel: str, on_stream: OnStream, on_end: OnEnd | None, priority: PriorityClass
    ) -> FeedSubscription:
        """Note a subscription to units; EdgedError at SUBSCRIPTIONS_MAX."""
        return self._add(
            FeedSubscription(
                next(self._numbers),
                channel,
                priority,
                on_event=None,
                on_stream=on_stream,
                on_end=on_end,
            )
        )

    def open(self, subscription: FeedSubscription, session: BackboneSession | None) -> None:
        """Ask the origin, if the session is up."""
        if session is None:
            return
        subscription.session, subscription.stream_no = session, 0
        subscription.successor_until = math.inf
        number, channel = subscription.sub_no, subscription.channel
        if subscription.on_event is not None:
            session.send(SubscribeParts(number, channel, subscription.cold, subscription.rungs))
        else:
            session.send(SubscribeUnits(number, channel))

    def remove(self, subscription: FeedSubscription, session: BackboneSession | None) -> None:
        """End a subscription; its channel's units leave the hub."""
        if self._subs.pop(subscription.sub_no, None) is None:
            return
        if session is not None:
            session.send(Unsubscribe(subscription.sub_no))
        self._forget(subscription, "unsubscribed")

    def session_up(self, session: BackboneSession, priority: PriorityClass) -> None:
        """Ask again for everything of that class."""
        for subscription in list(self._subs.values()):
            if subscription.priority is priority:
                self.open(subscription, session)

    def session_lost(self, session: BackboneSession, now: float) -> None:
        """Wait for the next session; what is here stays."""
        for key in [key for key in self._by_stream_no if key[0] is session]:
            del self._by_stream_no[key]
        for subscription in self._subs.values():
            if subscription.session is session:
                subscription.session, subscription.stream_no = None, 0
                subscription.successor_until = math.inf
        self._inbound.session_lost(session, now)
        self.fetches.session_lost(session, now)

    def handle(self, session: BackboneSession, message: Message, now: float) -> bool:
        """Act on an origin's message; False if it is not about a subscription."""
        match message:
            case SubscriptionAccepted():
                pass  # What matters is the stream that will be opened.
            case SubscriptionRefused():
                self._refused(message, now)
            case SegmentOpened() | SegmentRefused():
                self.fetches.handle(session, message, now)
            case EventsOpened():
                self._events_opened(session, message, now)
            case StreamOpened():
                self._stream_opened(session, message, now)
            case StreamClosed():
                self._stream_closed(session, message, now)
            case TrackChanged():
                self._inbound.handle(session, message, now)
            case _:
                return False
        return True

    def units_received(
        self, session: BackboneSession, stream_no: int, units: list[AccessUnit]
    ) -> None:
        """Append to the hub."""
        try:
            self._inbound.units_received(session, stream_no, units)
        except Exception as error:
            stop_failed(self._inbound, self._inbound.stop, session, stream_no, error)

    def event_received(
        self, session: BackboneSession, stream_no: int, event: PackagedEvent | SegmentPiece
    ) -> None:
        """Hand a packaged event on, unless a newer run of the channel is known by now."""
        if isinstance(event, SegmentPiece):
            self.fetches.received(session, stream_no, event)
            return
        subscription = self._by_stream_no.get((session, stream_no))
        if subscription is None or subscription.on_event is None:
            return  # Unsubscribed; the origin has not heard yet.
        stream_id = subscription.stream_id
        assert stream_id is not None, "set when the stream was opened"
        newest = self._fence.newest(stream_id.channel)
        if newest is not None and stream_id < newest and not subscription.wants_older(newest):
            self._refuse(session, stream_no, stream_id, newest)
            return
        subscription.cold = False
        subscription.received += 1
        subscription.take(event)

    def expire(self, now: float) -> None:
        """Wait no longer for replays that did not become whole, nor for streams to come."""
        self.fetches.expire(now)
        for subscription in list(self._subs.values()):
            if subscription.on_event is not None:
                subscription.end_replay(now)
            if now >= subscription.successor_until:
                self.remove(subscription, subscription.session)
                self._tell_end(subscription, "stopped", subscription.closed_reason)
            elif now >= subscription.ask_at:
                subscription.ask_at = math.inf
                self.open(subscription, subscription.session)

    def _add(self, subscription: FeedSubscription) -> FeedSubscription:
        if len(self._subs) >= SUBSCRIPTIONS_MAX:
            raise EdgedError(f"{SUBSCRIPTIONS_MAX} subscriptions to {self._origin} are open")
        self._subs[subscription.sub_no] = subscription
        return subscription

    def _refused(self, message: SubscriptionRefused, now: float) -> None:
        subscription = self._subs.get(message.sub_no)
        if subscription is None:
            return  # Removed by us meanwhile.
        if message.code == "not_live" and subscription.stream_id is not None:
            if subscription.missed_at is None:
                subscription.missed_at = now
            if now - subscription.missed_at < RETURN_S_MAX:
                subscription.ask_at = now + ASK_AGAIN_S
                return
        del self._subs[message.sub_no]
        self._forget(subscription, message.reason[:500])
        self._tell_end(subscription, message.code[:64], message.reason[:500])

    def _tell_end(self, subscription: FeedSubscription, code: str, reason: str) -> None:
        logger.info(
            "subscription ended",
            channel=subscription.channel,
            origin=self._origin,
            code=code,
            reason=reason,
        )
        if subscription.on_end is not None:
            subscription.on_end(code, reason)

    def _events_opened(self, session: BackboneSession, message: EventsOpened, now: float) -> None:
        subscription = self._find(session, message.sub_no, message.stream_id)
        if subscription is None:
            session.link.receiver.refuse(message.stream_no)  # Its StreamClosed is under way.
        elif not self._fence.admit(message.stream_id):
            newest = self._fence.newest(message.stream_id.channel)
            assert newest is not None, "it is what did not admit the stream"
            self._refuse(session, message.stream_no, message.stream_id, newest)
        else:
            self._take(session, message.stream_no, message.stream_id, subscription)
            subscription.begin_replay(message.replay_events, now)

    def _stream_opened(self, session: BackboneSession, message: StreamOpened, now: float) -> None:
        subscription = self._find(session, message.sub_no, message.stream_id)
        if subscription is None or subscription.on_stream is None:
            session.link.receiver.refuse(message.stream_no)
            return
        self._opening = subscription
        self._take(session, message.stream_no, message.stream_id, subscription)
        self._inbound.open(session, message, now)
        self._opening = None

    def _stream_closed(self, session: BackboneSession, message: StreamClosed, now: float) -> None:
        """A run is over, or only the way here: then another stream is to follow."""
        if self.fetches.closed(session, message.stream_no, now):
            return
        subscription = self._by_stream_no.pop((session, message.stream_no), None)
        if (
            subscription is not None
            and not message.ended
            and (subscription.on_event is not None or subscription.stream is not None)
        ):  # Else it was we who refused the units: the next run is offered when there is one.
            subscription.closed_reason = message.reason[:500]
            subscription.successor_until = now + SUCCESSOR_S_MAX
        self._inbound.handle(session, message, now)

    def _find(
        self, session: BackboneSession, sub_no: int, stream_id: StreamId
    ) -> FeedSubscription | None:
        subscription = self._subs.get(sub_no)
        if subscription is None or subscription.session is not session:
            return None  # Unsubscribed; the origin has not heard yet.
        if subscription.channel != stream_id.channel:
            raise RemoteProtocolError(
                f"{self._origin}: subscription {sub_no} is to {subscription.channel!r}, "
                f"got {stream_id.channel[:100]!r}"
            )
        return subscription

    def _take(
        self,
        session: BackboneSession,
        stream_no: int,
        stream_id: StreamId,
        subscription: FeedSubscription,
    ) -> None:
        self._by_stream_no.pop((session, subscription.stream_no), None)
        subscription.stream_id, subscription.stream_no = stream_id, stream_no
        subscription.successor_until = subscription.ask_at = math.inf
        subscription.missed_at = None
        self._by_stream_no[session, stream_no] = subscription

    def _refuse(
        self, session: BackboneSession, stream_no: int, stream_id: StreamId, newest: StreamId
    ) -> None:
        self._by_stream_no.pop((session, stream_no), None)
        session.link.receiver.refuse(stream_no)
        reason = explain_fence(stream_id, newest, live=False)
        session.send(StreamRefused(stream_no, "fenced", reason, newest))
        logger.warning(
            "stream fenced", channel=stream_id.channel, origin=self._origin, newest=str(newest)
        )

    def _forget(self, subscription: FeedSubscription, reason: str) -> None:
        session = subscription.session
        if session is not None and subscription.stream_no:
            self._by_stream_no.pop((session, subscription.stream_no), None)
            session.link.receiver.refuse(subscription.stream_no)
        if subscription.stream is not None:
            inbound = self._inbound.find(subscription.stream.stream_id)
            if inbound is not None:
                self._inbound.stop(inbound, "unsubscribed", reason)

    # What InboundStreams calls.

    def _admit(
        self, _stream_id: StreamId, _grant: Grant, _tracks: list[Track], _terms: Terms
    ) -> None:
        """Take what was subscribed to."""

    def _opened(self, stream: LiveStream, _opened: StreamOpened) -> None:
        subscription = self._opening
        if subscription is not None and subscription.on_stream is not None:
            subscription.stream = stream
            subscription.on_stream(stream)

    def _closed(self, stream: LiveStream, _reason: str) -> None:
        for subscription in self._subs.values():
            if subscription.stream is stream:
                subscription.stream = None
