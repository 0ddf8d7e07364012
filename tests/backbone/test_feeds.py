import contextlib
from collections.abc import AsyncIterator

import pytest
import trio

from edged.backbone import feeds as feeds_module
from edged.backbone.feeds import REPLAY_S_MAX, SUCCESSOR_S_MAX, FeedSubscription
from edged.backbone.sender import OriginLink
from edged.errors import EdgedError
from edged.media.parts import SegmentEnded, StreamEnded
from edged.media.routing import OriginReport, ReportedState
from edged.media.stream import Grant, PriorityClass, StreamId
from edged.wire.backbone.messages import (
    DirectoryDelta,
    EventsOpened,
    Heartbeat,
    Message,
    StreamAccepted,
    StreamClosed,
    StreamOpened,
    StreamRefused,
    SubscribeParts,
    SubscribeUnits,
    SubscriptionAccepted,
    SubscriptionRefused,
    TrackChanged,
    Unsubscribe,
    encode_event,
)
from tests.backbone.network import Origin, Pop, RawPeer, raw_origin, until
from tests.wire.backbone.builders import ListSource, make_track, make_unit

pytestmark = pytest.mark.e2e

ALICE = StreamId("alice", 7, 1)
BOB = StreamId("bob", 7, 1)


class Scripted:
    """An origin that sends what a test gives it, on the session of class basic or control."""

    def __init__(self) -> None:
        self.peers: dict[PriorityClass | None, RawPeer] = {}
        self.reasons: list[str] = []

    async def act(self, peer: RawPeer) -> None:
        hello = peer.link.peer
        assert hello is not None
        self.peers[None if hello.purpose == "control" else hello.priority] = peer
        self.reasons.append(await peer.lost_reason())

    @property
    def basic(self) -> RawPeer:
        return self.peers[PriorityClass.BASIC]

    def heard(self, kind: type[Message]) -> list[Message]:
        return [m for peer in self.peers.values() for m in peer.messages if isinstance(m, kind)]


def at(address: str) -> Origin:
    origin = Origin()
    origin.address = address
    return origin


def opened(stream_no: int, sub_no: int, stream_id: StreamId = ALICE) -> StreamOpened:
    return StreamOpened(
        stream_no=stream_no,
        stream_id=stream_id,
        grant=Grant(channel=stream_id.channel),
        tracks=[make_track()],
        first_seq=0,
        sub_no=sub_no,
    )


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (SubscribeParts(1, "alice"), "SubscribeParts from an origin"),
        (Heartbeat(Origin().report()), "Heartbeat on a media session"),
        (EventsOpened(1, 1, StreamId("bob", 1)), "subscription 1 is to 'alice', got 'bob'"),
        (opened(1, 1, StreamId("bob", 1)), "subscription 1 is to 'alice', got 'bob'"),
    ],
)
async def test_an_origin_that_says_what_it_may_not_is_left(message: Message, reason: str) -> None:
    script, pop = Scripted(), Pop()
    async with raw_origin(script.act) as address, pop.linked(at(address)) as link:
        link.subscribe_parts("alice", lambda *_: None)
        await until(lambda: script.heard(SubscribeParts))
        script.basic.link.send(message)
        await until(lambda: script.reasons)
        assert reason in script.reasons[0]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (Heartbeat(OriginReport("lon", 1, ReportedState.UP, 1, (1, 1, 1))), "ams speaks for 'lon'"),
        (
            DirectoryDelta(
                origin="lon", incarnation=1, version=1, from_version=0, changed=[], removed=[]
            ),
            "ams speaks for 'lon'",
        ),
        (SubscriptionAccepted(1), "SubscriptionAccepted on a control session"),
    ],
)
async def test_an_origin_speaks_for_itself_only(message: Message, reason: str) -> None:
    script, pop = Scripted(), Pop()
    async with raw_origin(script.act) as address, pop.linked(at(address)):
        await until(lambda: None in script.peers)
        script.peers[None].link.send(message)
        await until(lambda: script.reasons)
        assert reason in script.reasons[0]
        assert not pop.reports


def replayed(count: int) -> list[SegmentEnded]:
    return [SegmentEnded(rendition="v0", msn=n, parts=1, duration=1) for n in range(count)]


async def test_a_replay_is_handed_on_only_when_it_is_whole() -> None:
    script, pop = Scripted(), Pop()
    async with raw_origin(script.act) as address, pop.linked(at(address)) as link:
        events: list[object] = []
        parts = link.subscribe_parts("alice", lambda _, event: events.append(event))
        await until(lambda: script.heard(SubscribeParts))
        send, media = script.basic.link.send, script.basic.link.sender
        send(EventsOpened(media.reserve(), parts.sub_no, ALICE, 3))
        flow = media.open_events(1)
        first, second, third, later = replayed(4)
        for event in (first, second):
            flow.push(media, encode_event(event))
        await trio.sleep(0.05)
        assert events == []
        flow.push(media, encode_event(third))
        await until(lambda: len(events) == 3)
        assert events == [first, second, third]
        flow.push(media, encode_event(later))
        await until(lambda: len(events) == 4)


@pytest.mark.parametrize(("waited_s", "handed_on"), [(REPLAY_S_MAX - 0.01, 0), (REPLAY_S_MAX, 1)])
def test_a_replay_that_lost_events_is_waited_for_no_longer_than_the_limit(
    waited_s: float, handed_on: int
) -> None:
    events: list[object] = []
    parts = FeedSubscription(
        1,
        "alice",
        PriorityClass.BASIC,
        on_event=lambda _, event: events.append(event),
        on_stream=None,
        on_end=None,
    )
    parts.stream_id = ALICE
    parts.begin_replay(2, 10.0)
    parts.take(replayed(1)[0])
    parts.end_replay(10.0 + waited_s)
    assert len(events) == handed_on


def test_the_end_of_a_run_ends_its_replay() -> None:
    events: list[object] = []
    parts = FeedSubscription(
        1,
        "alice",
        PriorityClass.BASIC,
        on_event=lambda _, event: events.append(event),
        on_stream=None,
        on_end=None,
    )
    parts.stream_id = ALICE
    parts.begin_replay(9, 10.0)
    parts.take(StreamEnded(reason="over"))
    assert events == [StreamEnded(reason="over")]


async def test_what_comes_after_unsubscribing_is_dropped() -> None:
    script, pop = Scripted(), Pop()
    async with raw_origin(script.act) as address, pop.linked(at(address)) as link:
        events: list[object] = []
        streams: list[object] = []
        parts = link.subscribe_parts("alice", lambda *event: events.append(event))
        units = link.subscribe_units("alice", streams.append)
        await until(lambda: script.heard(SubscribeUnits))
        send, media = script.basic.link.send, script.basic.link.sender
        send(SubscriptionAccepted(parts.sub_no))
        send(EventsOpened(media.reserve(), parts.sub_no, ALICE))
        flow = media.open_events(1)
        flow.push(media, encode_event(StreamEnded(reason="1")))
        await until(lambda: events)
        link.unsubscribe(parts)
        link.unsubscribe(units)
        await until(lambda: len(script.heard(Unsubscribe)) == 2)
        flow.push(media, encode_event(StreamEnded(reason="2")))
        send(EventsOpened(media.reserve(), parts.sub_no, ALICE))
        media.open_events(2).push(media, encode_event(StreamEnded(reason="3")))
        send(opened(media.reserve(), units.sub_no))
        send(TrackChanged(3, make_track(2)))
        send(SubscriptionRefused(parts.sub_no, "drain", "late"))
        # A new subscription shows that all of it has been read, and harmed nobody.
        link.subscribe_units("bob", streams.append)
        await until(lambda: len(script.heard(SubscribeUnits)) == 2)
        bob = StreamId("bob", 1)
        send(opened(media.reserve(), 3, bob))
        await until(lambda: script.heard(StreamAccepted))
        assert script.heard(StreamAccepted) == [StreamAccepted(4, -1)]
        assert len(events) == len(streams) == 1
        assert link.statistics().subscriptions == 1
        send(StreamClosed(4, "bye", ended=True))
        await until(lambda: pop.hub.get("bob") is None)
        assert not script.reasons


@contextlib.asynccontextmanager
async def following() -> AsyncIterator[tuple[OriginLink, Scripted, Pop, list[object]]]:
    """A PoP that subscribes to alice's parts (1) and to bob's units (2), both opened."""
    script, pop = Scripted(), Pop()
    async with raw_origin(script.act) as address, pop.linked(at(address)) as link:
        ends: list[object] = []
        for channel, subscribe in (("alice", link.subscribe_parts), ("bob", link.subscribe_units)):
            subscribe(
                channel,
                lambda *_: None,
                on_end=lambda *end, channel=channel: ends.append((channel, *end)),
            )
        await until(lambda: script.heard(SubscribeUnits))
        for _ in range(2):
            script.basic.link.sender.reserve()
        script.basic.link.send(EventsOpened(1, 1, ALICE))
        script.basic.link.send(opened(2, 2, BOB))
        await until(lambda: script.heard(StreamAccepted))
        yield link, script, pop, ends


def streams_of(link: OriginLink) -> int:
    return link._sessions[PriorityClass.BASIC].link.receiver.statistics().streams


async def test_streams_closed_without_a_successor_end_their_subscriptions() -> None:
    async with following() as (link, script, pop, ends):
        for stream_no in (1, 2):
            script.basic.link.send(StreamClosed(stream_no, "a bug", ended=False))
        await until(lambda: streams_of(link) == 0)
        closed_at = trio.current_time()
        link.expire(closed_at + SUCCESSOR_S_MAX - 0.1)
        assert ends == []
        link.expire(closed_at + SUCCESSOR_S_MAX)
        link.expire(closed_at + 2 * SUCCESSOR_S_MAX)
        assert ends == [(channel, "stopped", "a bug") for channel in ("alice", "bob")]
        assert link.statistics().subscriptions == 0
        assert pop.hub.get("bob") is None
        await until(lambda: script.heard(Unsubscribe) == [Unsubscribe(1), Unsubscribe(2)])


async def test_streams_closed_with_a_successor_go_on() -> None:
    async with following() as (link, script, pop, ends):
        send, media = script.basic.link.send, script.basic.link.sender
        for stream_no in (1, 2):
            send(StreamClosed(stream_no, "a newer publication or epoch begins", ended=False))
        await until(lambda: streams_of(link) == 0)
        send(EventsOpened(media.reserve(), 1, StreamId("alice", 8)))
        send(opened(media.reserve(), 2, StreamId("bob", 8)))
        await until(lambda: streams_of(link) == 2)
        link.expire(trio.current_time() + 2 * SUCCESSOR_S_MAX)
        assert ends == []
        assert pop.hub.get("bob") is not None


async def test_streams_whose_publication_is_over_need_no_successor() -> None:
    async with following() as (link, script, _, ends):
        for stream_no in (1, 2):
            script.basic.link.send(StreamClosed(stream_no, "bye", ended=True))
        await until(lambda: streams_of(link) == 0)
        link.expire(trio.current_time() + 2 * SUCCESSOR_S_MAX)
        assert ends == []
        assert link.statistics().subscriptions == 2


async def test_streams_that_we_refused_need_no_successor() -> None:
    async with following() as (link, script, pop, ends):
        media = script.basic.link.sender
        newest = [StreamId(channel, 9) for channel in ("alice", "bob")]
        for stream_id in newest:
            pop.fence.admit(stream_id)
        parts = media.open_events(1)
        parts.push(media, encode_event(replayed(1)[0]))
        units = ListSource()
        units.append(make_unit(0))
        media.open_units(2, units, {1: 0})
        await until(lambda: len(script.heard(StreamRefused)) == 2)
        refusals = {m.stream_no: m for m in script.heard(StreamRefused)}  # type: ignore[union-attr]
        for stream_no, stream_id in enumerate(newest, 1):
            refusal = refusals[stream_no]
            assert isinstance(refusal, StreamRefused)
            assert (refusal.code, refusal.newest) == ("fenced", stream_id)
            assert "has ended here or goes elsewhere" in refusal.reason
            script.basic.link.send(StreamClosed(stream_no, "refused", ended=False))
        await until(lambda: streams_of(link) == 0)
        link.expire(trio.current_time() + 2 * SUCCESSOR_S_MAX)
        assert ends == []
        assert link.statistics().subscriptions == 2


async def test_a_reconnect_is_waited_for_instead_of_a_successor() -> None:
    async with following() as (link, script, pop, ends):
        for stream_no in (1, 2):
            script.basic.link.send(StreamClosed(stream_no, "a bug", ended=False))
        await until(lambda: streams_of(link) == 0)
        cut_off = script.basic
        link._sessions[PriorityClass.BASIC].connection.abort("cut by the test")
        await until(lambda: pop.lost)
        link.expire(trio.current_time() + 2 * SUCCESSOR_S_MAX)
        assert ends == []
        await until(lambda: script.basic is not cut_off and script.heard(SubscribeUnits))
        link.expire(trio.current_time() + 2 * SUCCESSOR_S_MAX)
        assert ends == []
        assert link.statistics().subscriptions == 2


async def test_units_for_a_parts_subscription_are_dropped() -> None:
    script, pop = Scripted(), Pop()
    async with raw_origin(script.act) as address, pop.linked(at(address)) as link:
        link.subscribe_parts("alice", lambda *_: None)
        await until(lambda: script.heard(SubscribeParts))
        script.basic.link.sender.reserve()
        script.basic.link.send(opened(1, 1))
        script.basic.link.send(SubscriptionRefused(1, "full", "x"))
        await until(lambda: link.statistics().subscriptions == 0)
        assert pop.hub.get("alice") is None


async def test_units_of_a_grant_for_another_channel_are_refused() -> None:
    script, pop = Scripted(), Pop()
    async with raw_origin(script.act) as address, pop.linked(at(address)) as link:
        link.subscribe_units("alice", lambda _: None)
        await until(lambda: script.heard(SubscribeUnits))
        bad = StreamOpened(
            stream_no=script.basic.link.sender.reserve(),
            stream_id=ALICE,
            grant=Grant(channel="bob"),
            tracks=[],
            first_seq=0,
            sub_no=1,
        )
        script.basic.link.send(bad)
        await until(lambda: script.heard(StreamRefused))
        (refused,) = script.heard(StreamRefused)
        assert refused == StreamRefused(1, "protocol", "the grant is for another channel")


async def test_subscriptions_are_bounded_and_may_come_before_the_link(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(feeds_module, "SUBSCRIPTIONS_MAX", 2)
    origin, pop = Origin(), Pop()
    origin.windows["alice"] = (ALICE, [])
    async with origin.serving() as server, pop.linked(origin, wait=False) as link:
        first = link.subscribe_parts("alice", lambda *_: None)
        early = link.subscribe_parts("alice", lambda *_: None)
        with pytest.raises(EdgedError, match="2 subscriptions to ams are open"):
            link.subscribe_units("alice", lambda _: None)
        link.unsubscribe(early)
        early.want_key_frame(1)
        await until(lambda: server.statistics().subscriptions.parts == 1)
        assert first.session is not None
