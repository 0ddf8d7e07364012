"""An origin's subscribers: PoPs that get a channel's parts, or its units, pushed once each."""

from collections.abc import Callable

import structlog
from msgspec import Struct

from edged.backbone.ring_source import RingSource
from edged.backbone.session import BackboneSession
from edged.media.parts import PackagedEvent, StreamEnded
from edged.media.stream import StreamId
from edged.runtime.hub import Hub, LiveStream
from edged.wire.backbone.flows import EventFlow, Flow, UnitFlow, choose_replay
from edged.wire.backbone.messages import (
    EventsOpened,
    Message,
    StreamAccepted,
    StreamOpened,
    StreamRefused,
    SubscribeParts,
    SubscribeUnits,
    SubscriptionAccepted,
    SubscriptionRefused,
    Unsubscribe,
    encode_event,
)

SUBSCRIPTIONS_MAX = 10_000  # Of one session: as many as streams.

Replay = Callable[[str], tuple[StreamId, list[PackagedEvent]] | None]

logger = structlog.get_logger("edged.backbone")


class _Subscription:
    """One PoP's wish for one channel."""

    def __init__(self, session: BackboneSession, sub_no: int, channel: str, *, parts: bool) -> None:
        self.session = session
        self.sub_no = sub_no
        self.channel = channel
        self.parts = parts
        self.stream_id: StreamId | None = None  # The run that is, or was last, pushed.
        self.stream_no = 0
        self.offered = False  # StreamOpened was sent and not yet answered.
        self.flow: Flow | None = None
        self.unwatch: Callable[[], None] | None = None


class SubscriptionStatistics(Struct, frozen=True, kw_only=True):
    """Counters of what is pushed."""

    parts: int
    units: int
    refused: int
    events_pushed: int


class Subscriptions:
    """All subscriptions of an origin.

    `replay` gives, for a channel that is packaged here now, what a late subscriber needs first.
    """

    def __init__(self, hub: Hub, replay: Replay) -> None:
        self._hub, self._replay = hub, replay
        self._by_session: dict[BackboneSession, dict[int, _Subscription]] = {}
        self._by_channel: dict[str, dict[_Subscription, None]] = {}
        self._refused = self._events_pushed = 0

    def handle(self, session: BackboneSession, message: Message) -> bool:
        """Act on a PoP's message; False if it is not about a subscription."""
        match message:
            case SubscribeParts() | SubscribeUnits():
                self.subscribe(session, message)
            case Unsubscribe():
                self.unsubscribe(session, message.sub_no)
            case StreamAccepted():
                self.units_accepted(session, message.stream_no)
            case StreamRefused():
                self.stream_refused(session, message.stream_no)
            case _:
                return False
        return True

    def subscribe(self, session: BackboneSession, message: SubscribeParts | SubscribeUnits) -> None:
        """Take a subscription, or refuse it with the reason."""
        channel, sub_no = message.channel, message.sub_no
        mine = self._by_session.setdefault(session, {})
        parts = isinstance(message, SubscribeParts)
        replay = self._replay(channel) if parts else None
        live = self._hub.get(channel)
        if sub_no in mine:
            self._refuse(session, sub_no, "protocol", f"subscription {sub_no} exists")
        elif len(mine) >= SUBSCRIPTIONS_MAX:
            self._refuse(session, sub_no, "full", f"{SUBSCRIPTIONS_MAX} subscriptions are open")
        elif live is None and replay is None:
            self._refuse(session, sub_no, "not_live", f"channel {channel[:100]!r} is not live here")
        else:
            subscription = _Subscription(session, sub_no, channel, parts=parts)
            mine[sub_no] = subscription
            self._by_channel.setdefault(channel, {})[subscription] = None
            session.send(SubscriptionAccepted(sub_no))
            if replay is not None:
                self._open_parts(subscription, replay[0], replay[1])
            elif live is not None and not parts:
                self._open_units(subscription, live)

    def unsubscribe(self, session: BackboneSession, sub_no: int) -> None:
        """End a subscription and what it has open."""
        subscription = self._by_session.get(session, {}).pop(sub_no, None)
        if subscription is not None:
            self._drop(subscription, "unsubscribed")

    def session_lost(self, session: BackboneSession) -> None:
        """Forget a session's subscriptions."""
        for subscription in self._by_session.pop(session, {}).values():
            self._drop(subscription, "session lost")

    def publish_event(self, stream_id: StreamId, event: PackagedEvent) -> None:
        """Push a packaged event to the channel's subscribers; encoded once for all of them."""
        subscribers = self._by_channel.get(stream_id.channel)
        if not subscribers:
            return
        encoded = encode_event(event)
        for subscription in subscribers:
            if not subscription.parts:
                continue
            held = subscription.stream_id
            if held is None or held < stream_id:
                self._open_parts(subscription, stream_id, [])
            flow = subscription.flow
            if subscription.stream_id != stream_id or not isinstance(flow, EventFlow):
                continue  # Fenced: a newer run is pushed already; or refused by the PoP.
            self._events_pushed += 1
            flow.push(subscription.session.link.sender, encoded)
            if isinstance(event, StreamEnded):
                flow.end_after(subscription.session.link.sender, event.reason)
                subscription.flow = None
            subscription.session.schedule()

    def stream_opened(self, stream: LiveStream) -> None:
        """A publication begins: whoever waits for its units gets them."""
        for subscription in self._by_channel.get(stream.channel, {}):
            if not subscription.parts:
                self._open_units(subscription, stream)

    def units_accepted(self, session: BackboneSession, stream_no: int) -> None:
        """The PoP takes a stream of units: begin at the latest GOP."""
        subscription = self._of_stream(session, stream_no)
        if subscription is None or not subscription.offered:
            return
        stream = self._hub.get(subscription.channel)
        if stream is None or stream.stream_id != subscription.stream_id:
            self._end_flow(subscription, "it has ended")  # The next is announced by itself.
            return
        config_ids = {track.track_id: track.config_id for track in stream.tracks.values()}
        flow = session.link.sender.open_units(
            stream_no, RingSource(stream, "latest_gop"), config_ids
        )
        self._watch(subscription, stream, flow)

    def stream_refused(self, session: BackboneSession, stream_no: int) -> None:
        """The PoP does not want this run (fenced); a newer one will be offered again."""
        subscription = self._of_stream(session, stream_no)
        if subscription is not None:
            self._end_flow(subscription, "refused")

    def channel_of(self, session: BackboneSession, stream_no: int) -> StreamId | None:
        """Which run a PoP means by the number of a stream that we send."""
        subscription = self._of_stream(session, stream_no)
        return None if subscription is None else subscription.stream_id

    def statistics(self) -> SubscriptionStatistics:
        """Counters since the start."""
        every = [s for subs in self._by_session.values() for s in subs.values()]
        parts = sum(1 for subscription in every if subscription.parts)
        return SubscriptionStatistics(
            parts=parts,
            units=len(every) - parts,
            refused=self._refused,
            events_pushed=self._events_pushed,
        )

    def _open_parts(
        self, subscription: _Subscription, stream_id: StreamId, events: list[PackagedEvent]
    ) -> None:
        session = subscription.session
        self._end_flow(subscription, "a newer publication or epoch begins")
        subscription.stream_id = stream_id
        subscription.stream_no = stream_no = session.link.sender.reserve()
        replay = choose_replay([encode_event(event) for event in events])
        session.send(EventsOpened(stream_no, subscription.sub_no, stream_id, len(replay)))
        flow = session.link.sender.open_events(stream_no)
        subscription.flow = flow
        for encoded in replay:
            flow.push(session.link.sender, encoded)

    def _open_units(self, subscription: _Subscription, stream: LiveStream) -> None:
        session = subscription.session
        self._end_flow(subscription, "a newer publication or epoch begins")
        subscription.stream_id = stream.stream_id
        subscription.stream_no = session.link.sender.reserve()
        subscription.offered = True
        session.send(
            StreamOpened(
                stream_no=subscription.stream_no,
                stream_id=stream.stream_id,
                grant=stream.grant,
                tracks=list(stream.tracks.values()),
                first_seq=stream.ring.first_seq,
                sub_no=subscription.sub_no,
            )
        )

    def _watch(self, subscription: _Subscription, stream: LiveStream, flow: UnitFlow) -> None:
        session = subscription.session
        subscription.flow, subscription.offered = flow, False
        subscription.unwatch = stream.watch(lambda _: session.wake(flow))
        session.schedule()

    def _of_stream(self, session: BackboneSession, stream_no: int) -> _Subscription | None:
        for subscription in self._by_session.get(session, {}).values():
            if subscription.stream_no == stream_no:
                return subscription
        return None

    def _end_flow(self, subscription: _Subscription, reason: str) -> None:
        flow, subscription.flow = subscription.flow, None
        if subscription.offered:
            subscription.offered = False
            subscription.session.withdraw(subscription.stream_no, reason)
        if subscription.unwatch is not None:
            subscription.unwatch()
            subscription.unwatch = None
        if flow is not None:
            subscription.session.close_flow(flow, reason)

    def _drop(self, subscription: _Subscription, reason: str) -> None:
        self._end_flow(subscription, reason)
        others = self._by_channel.get(subscription.channel, {})
        others.pop(subscription, None)
        if not others:
            self._by_channel.pop(subscription.channel, None)

    def _refuse(self, session: BackboneSession, sub_no: int, code: str, reason: str) -> None:
        self._refused += 1
        session.send(SubscriptionRefused(sub_no, code, reason))
