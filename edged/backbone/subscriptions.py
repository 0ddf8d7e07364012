"""An origin's subscribers: PoPs that get a channel's parts, or its units, pushed once each."""

from collections.abc import Callable, Iterator
from typing import Protocol

import structlog
from msgspec import Struct

from edged.backbone.ring_source import RingSource, choose_start
from edged.backbone.session import BackboneSession
from edged.errors import EdgedError
from edged.media.parts import PackagedEvent, SegmentsListed, StreamEnded
from edged.media.stream import StreamId
from edged.policy.rung_sieve import Rungs, RungSieve, SegmentTally
from edged.runtime.hub import Hub, LiveStream
from edged.wire.backbone.events import FlowEnded
from edged.wire.backbone.flows import EventFlow, Flow, choose_replay
from edged.wire.backbone.messages import (
    FEATURE_SEGMENTS,
    EventsOpened,
    Message,
    RungsWanted,
    StreamAccepted,
    StreamOpened,
    StreamRefused,
    SubscribeParts,
    SubscribeUnits,
    SubscriptionAccepted,
    SubscriptionRefused,
    Unsubscribe,
    encode_event,
    make_message_frame,
)

SUBSCRIPTIONS_MAX = 10_000  # Of one session: as many as streams.
REOPENS_MAX = 3  # Of one run, after a bug: what is replayed may be what the bug is about.


class Replay(Protocol):
    """What a late subscriber of a channel gets first, as `policy.window_replay`; None: nothing."""

    def __call__(
        self, channel: str, *, lists: bool, cold: bool
    ) -> tuple[StreamId, list[PackagedEvent]] | None: ...


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
        self.offered_config_ids: dict[int, int] = {}  # By track, as that StreamOpened said.
        self.flow: Flow | None = None  # Until its last frame is made, also when the run has ended.
        self.unwatch: Callable[[], None] | None = None
        self.reopens = 0  # Of this run.
        self.sieve: RungSieve | None = None  # None: all rungs are pushed.


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
        self._by_stream_no: dict[tuple[BackboneSession, int], _Subscription] = {}
        self._to_offer: dict[BackboneSession, dict[_Subscription, None]] = {}
        self._tallies: dict[str, SegmentTally] = {}  # Of channels of which some get some rungs.
        self._refused = self._events_pushed = 0

    def handle(self, session: BackboneSession, message: Message) -> bool:
        """Act on a PoP's message; False if it is not about a subscription."""
        match message:
            case SubscribeParts() | SubscribeUnits():
                self.subscribe(session, message)
            case RungsWanted():
                self.want_rungs(session, message)
            case Unsubscribe():
                self.unsubscribe(session, message.sub_no)
            case StreamAccepted():
                self.units_accepted(session, message.stream_no, message.wanted_seq)
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
        lists = _lists(session)
        cold = isinstance(message, SubscribeParts) and message.cold
        replay = self._replay(channel, lists=lists, cold=cold) if parts else None
        live = self._hub.get(channel)
        if sub_no in mine:
            self._refuse(session, sub_no, "protocol", f"subscription {sub_no} exists")
        elif len(mine) >= SUBSCRIPTIONS_MAX:
            self._refuse(session, sub_no, "full", f"{SUBSCRIPTIONS_MAX} subscriptions are open")
        elif live is None and replay is None:
            self._refuse(session, sub_no, "not_live", f"channel {channel[:100]!r} is not live here")
        else:
            subscription = _Subscription(session, sub_no, channel, parts=parts)
            if isinstance(message, SubscribeParts) and message.rungs is not None and lists:
                subscription.sieve = RungSieve(frozenset(message.rungs))
            mine[sub_no] = subscription
            self._by_channel.setdefault(channel, {})[subscription] = None
            session.send(SubscriptionAccepted(sub_no))
            if replay is not None:
                self._open_parts(subscription, replay[0], replay[1])
            elif live is not None and not parts:
                self._open_units(subscription, live)

    def want_rungs(self, session: BackboneSession, message: RungsWanted) -> None:
        """Push other rungs from the next segment on, and what has begun of those that are new."""
        subscription = self._by_session.get(session, {}).get(message.sub_no)
        if subscription is None or not subscription.parts or not _lists(session):
            return
        rungs: Rungs = None if message.rungs is None else frozenset(message.rungs)
        if subscription.sieve is None:
            subscription.sieve = RungSieve(None)
        replay = self._replay(subscription.channel, lists=True, cold=True)
        events = [] if replay is None or replay[0] != subscription.stream_id else replay[1]
        tally = self._tally(subscription.channel, events)
        flow, sender = subscription.flow, session.link.sender
        for event in subscription.sieve.change(rungs, events, tally.videos):
            if isinstance(flow, EventFlow) and not flow.ending:
                flow.push(sender, encode_event(event))
        session.schedule()

    def _tally(self, channel: str, replay: list[PackagedEvent]) -> SegmentTally:
        """What tells of a channel's whole segments; it knows what has begun by a replay."""
        tally = self._tallies.get(channel)
        if tally is None:
            tally = self._tallies[channel] = SegmentTally()
            for event in replay:
                tally.take(event)
        return tally

    def unsubscribe(self, session: BackboneSession, sub_no: int) -> None:
        """End a subscription and what it has open."""
        subscription = self._by_session.get(session, {}).pop(sub_no, None)
        if subscription is not None:
            self._drop(subscription, "unsubscribed")

    def session_lost(self, session: BackboneSession) -> None:
        """Forget a session's subscriptions."""
        self._to_offer.pop(session, None)
        for subscription in self._by_session.pop(session, {}).values():
            self._drop(subscription, "session lost")

    def publish_event(self, stream_id: StreamId, event: PackagedEvent) -> None:
        """Push a packaged event to the channel's subscribers; encoded once for all of them."""
        subscribers = self._by_channel.get(stream_id.channel)
        if not subscribers:
            return
        encoded, known = encode_event(event), not isinstance(event, SegmentsListed)
        tally = self._tallies.get(stream_id.channel)
        listed = None if tally is None else tally.take(event)
        for subscription in subscribers:
            if not subscription.parts or not (known or _lists(subscription.session)):
                continue
            held = subscription.stream_id
            if held is None or held < stream_id:
                self._open_parts(subscription, stream_id, [])
            flow = subscription.flow
            if subscription.stream_id != stream_id or not isinstance(flow, EventFlow):
                continue  # Fenced: a newer run is pushed already; or refused by the PoP.
            if flow.ending:
                continue  # Nothing comes after a run's end.
            pushed = encoded
            if subscription.sieve is not None and tally is not None:
                sifted = subscription.sieve.take(event, listed, tally.videos)
                if sifted is None:
                    continue
                pushed = encoded if sifted is event else encode_event(sifted)
            self._events_pushed += 1
            flow.push(subscription.session.link.sender, pushed)
            if isinstance(event, StreamEnded):
                flow.end_after(subscription.session.link.sender, event.reason)
            subscription.session.schedule()

    def stream_opened(self, stream: LiveStream) -> None:
        """A publication begins: whoever waits for its units gets them."""
        for subscription in self._by_channel.get(stream.channel, {}):
            if not subscription.parts:
                self._open_units(subscription, stream)

    def stream_taken_over(self, stream: LiveStream) -> None:
        """A run goes on under a newer epoch: so does what is pushed of it, none of it lost."""
        for subscription in self._by_channel.get(stream.channel, {}):
            held = subscription.stream_id
            if held is not None and held.publication == stream.stream_id.publication:
                subscription.stream_id = stream.stream_id

    def units_accepted(self, session: BackboneSession, stream_no: int, wanted_seq: int) -> None:
        """The PoP takes a stream of units: begin where it wants, else at the latest GOP."""
        subscription = self._by_stream_no.get((session, stream_no))
        if subscription is None or not subscription.offered:
            return
        stream = self._hub.get(subscription.channel)
        if stream is None or stream.stream_id != subscription.stream_id:
            self._end_flow(subscription, "it has ended", ended=True)  # The next is offered anew.
            return
        start = "latest_gop" if wanted_seq < 0 else choose_start(stream, wanted_seq, -1)
        flow = session.link.sender.open_units(
            stream_no, RingSource(stream, start), subscription.offered_config_ids
        )
        subscription.flow, subscription.offered = flow, False
        subscription.unwatch = stream.watch(lambda _: session.wake(flow))
        session.schedule()

    def stream_refused(self, session: BackboneSession, stream_no: int) -> None:
        """The PoP does not want this run (fenced); a newer one will be offered again."""
        subscription = self._by_stream_no.get((session, stream_no))
        if subscription is not None:
            self._end_flow(subscription, "refused")

    def flow_ended(self, session: BackboneSession, event: FlowEnded) -> None:
        """A stream's last frame was made: its run is over, or a bug ended it and it goes on."""
        subscription = self._by_stream_no.get((session, event.stream_no))
        if subscription is None:
            return  # Ended by us.
        subscription.flow = None
        self._end_flow(subscription, event.reason)
        if event.ended:
            return
        subscription.reopens += 1
        logger.error(
            "subscription broke",
            channel=subscription.channel,
            pop=session.peer.name,
            reason=event.reason,
            reopens=subscription.reopens,
            exc_info=event.error,
        )
        again, parts = subscription.reopens <= REOPENS_MAX, subscription.parts
        lists = _lists(session)
        channel = subscription.channel
        replay = self._replay(channel, lists=lists, cold=False) if again and parts else None
        live = self._hub.get(subscription.channel) if again and not parts else None
        if replay is not None:
            self._open_parts(subscription, replay[0], replay[1])
        elif live is not None:
            self._open_units(subscription, live)
        else:
            self._end(subscription, "internal", event.reason)

    def count(self, channel: str) -> int:
        """How many there are to a channel."""
        return len(self._by_channel.get(channel, ()))

    def rungs(self, channel: str) -> Rungs:
        """Those that any of them is to get; None: all."""
        wanted = frozenset[str]()
        for subscription in self._by_channel.get(channel, ()):
            if subscription.parts:
                rungs = None if subscription.sieve is None else subscription.sieve.rungs
                if rungs is None:
                    return None
                wanted |= rungs
        return wanted

    def counts(self) -> dict[str, int]:
        """The same of each channel that has any."""
        return {channel: len(subscribers) for channel, subscribers in self._by_channel.items()}

    def go_on(self, stream_id: StreamId) -> None:
        """A run has a newer epoch, or is a newer one: who had another gets its newest segments.

        What was queued of the other may not have been sent yet, and never is.
        """
        for subscription in list(self._by_channel.get(stream_id.channel, ())):
            held = subscription.stream_id
            if held is None or held < stream_id:
                lists = _lists(subscription.session)
                replay = self._replay(stream_id.channel, lists=lists, cold=True)
                if replay is not None and replay[0] == stream_id:
                    self._open_parts(subscription, stream_id, replay[1])

    def end_channel(self, channel: str, code: str, reason: str) -> None:
        """End all subscriptions to a channel, with the reason."""
        for subscription in list(self._by_channel.get(channel, ())):
            self._end(subscription, code, reason)

    def channel_of(self, session: BackboneSession, stream_no: int) -> StreamId | None:
        """Which run a PoP means by the number of a stream that we send."""
        subscription = self._by_stream_no.get((session, stream_no))
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
        self._begin(subscription, stream_id)
        stream_no = self._number(subscription)
        if subscription.sieve is not None:
            self._tally(subscription.channel, events)
            events = subscription.sieve.begin(events)
        replay = choose_replay([encode_event(event) for event in events])
        session.send(EventsOpened(stream_no, subscription.sub_no, stream_id, len(replay)))
        flow = session.link.sender.open_events(stream_no)
        subscription.flow = flow
        for encoded in replay:
            flow.push(session.link.sender, encoded)

    def _open_units(self, subscription: _Subscription, stream: LiveStream) -> None:
        """Have the stream offered; with many others, as many at a time as the PoP takes."""
        session = subscription.session
        self._begin(subscription, stream.stream_id)
        waiting = self._to_offer.get(session)
        if waiting is None:
            waiting = self._to_offer[session] = {}
            session.send_list(self._offers(session, waiting))
        waiting[subscription] = None

    def _offers(
        self, session: BackboneSession, waiting: dict[_Subscription, None]
    ) -> Iterator[bytes]:
        while waiting:
            subscription = next(iter(waiting))
            del waiting[subscription]
            stream = self._hub.get(subscription.channel)
            if stream is None or stream.stream_id != subscription.stream_id:
                continue  # The next is offered by itself.
            try:
                frame = self._offer(subscription, stream)
            except EdgedError as error:  # Its tracks do not fit a message.
                self._end(subscription, "unsupported_media", str(error))
            else:
                yield frame
        del self._to_offer[session]

    def _offer(self, subscription: _Subscription, stream: LiveStream) -> bytes:
        tracks = list(stream.tracks.values())
        frame = make_message_frame(
            StreamOpened(
                stream_no=self._number(subscription),
                stream_id=stream.stream_id,
                grant=stream.grant,
                tracks=tracks,
                first_seq=stream.ring.first_seq,
                sub_no=subscription.sub_no,
            )
        )
        subscription.offered_config_ids = {track.track_id: track.config_id for track in tracks}
        subscription.offered = True
        return frame

    def _begin(self, subscription: _Subscription, stream_id: StreamId) -> None:
        self._end_flow(subscription, "a newer publication or epoch begins")
        if subscription.stream_id != stream_id:
            subscription.stream_id, subscription.reopens = stream_id, 0

    def _number(self, subscription: _Subscription) -> int:
        """Give it the next stream number, at the time when that is announced: they only rise."""
        session = subscription.session
        subscription.stream_no = session.link.sender.reserve()
        self._by_stream_no[session, subscription.stream_no] = subscription
        return subscription.stream_no

    def _end_flow(self, subscription: _Subscription, reason: str, *, ended: bool = False) -> None:
        flow, subscription.flow = subscription.flow, None
        self._by_stream_no.pop((subscription.session, subscription.stream_no), None)
        if subscription.offered:
            subscription.offered = False
            subscription.session.withdraw(subscription.stream_no, reason, ended=ended)
        if subscription.unwatch is not None:
            subscription.unwatch()
            subscription.unwatch = None
        if flow is not None:
            subscription.session.close_flow(flow, reason)

    def _end(self, subscription: _Subscription, code: str, reason: str) -> None:
        """End a subscription that was accepted, with the reason."""
        self._by_session.get(subscription.session, {}).pop(subscription.sub_no, None)
        self._drop(subscription, reason)
        self._refuse(subscription.session, subscription.sub_no, code, reason)

    def _drop(self, subscription: _Subscription, reason: str) -> None:
        self._end_flow(subscription, reason)
        self._to_offer.get(subscription.session, {}).pop(subscription, None)
        others = self._by_channel.get(subscription.channel, {})
        others.pop(subscription, None)
        if not others:
            self._by_channel.pop(subscription.channel, None)
        if all(other.sieve is None for other in others):
            self._tallies.pop(subscription.channel, None)

    def _refuse(self, session: BackboneSession, sub_no: int, code: str, reason: str) -> None:
        self._refused += 1
        session.send(SubscriptionRefused(sub_no, code, reason))


def _lists(session: BackboneSession) -> bool:
    """Whether the PoP knows SegmentsListed."""
    return FEATURE_SEGMENTS in session.peer.features
