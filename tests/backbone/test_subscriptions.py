import contextlib
import math
from collections.abc import AsyncIterator
from functools import partial

import msgspec
import pytest
import trio

from edged.backbone import subscriptions as subscriptions_module
from edged.backbone.feeds import RETURN_S_MAX
from edged.backbone.session import BackboneSession
from edged.backbone.subscriptions import REOPENS_MAX
from edged.media.parts import InitSegment, PackagedEvent, Rendition, SegmentEnded, StreamEnded
from edged.media.stream import PriorityClass, StreamId
from edged.media.track import Kind, Track
from edged.runtime.hub import LiveStream
from edged.wire.backbone.flows import QUEUE_BYTES_MAX, EventFlow
from edged.wire.backbone.messages import (
    STREAM_WINDOW_BYTES,
    EventsOpened,
    StreamAccepted,
    StreamClosed,
    StreamOpened,
    SubscribeParts,
    SubscribeUnits,
    SubscriptionRefused,
    TrackChanged,
    Unsubscribe,
)
from tests.backbone.network import Origin, Pop, RawPeer, append, raw_pop, until
from tests.wire.backbone.builders import make_part, make_track, make_unit, units_of

pytestmark = pytest.mark.e2e

ALICE = StreamId("alice", 7, 1)
Got = list[tuple[StreamId, PackagedEvent]]


def is_last(got: Got, wanted: StreamId | PackagedEvent) -> bool:
    return bool(got) and wanted in got[-1]


def beginning(parts: int = 3) -> list[PackagedEvent]:
    rendition = Rendition(
        name="v0",
        kind=Kind.VIDEO,
        timescale=1000,
        codec_string="x",
        part_target_us=200_000,
        target_duration_s=4,
    )
    init = InitSegment(rendition="v0", digest="0" * 16, data=b"init" * 100)
    return [rendition, init, *(make_part(1, index, 50_000) for index in range(parts))]


async def test_a_late_subscriber_gets_the_window_and_then_each_part() -> None:
    origin, pop = Origin(), Pop()
    origin.windows["alice"] = (ALICE, beginning())
    async with origin.serving() as server, pop.linked(origin) as link:
        got: Got = []
        link.subscribe_parts("alice", lambda *event: got.append(event))
        await until(lambda: len(got) == 5)
        more: list[PackagedEvent] = [
            make_part(1, 3, 300_000),
            SegmentEnded(rendition="v0", msn=1, parts=4, duration=400),
            make_part(2, 0, 0),
            StreamEnded(reason="bye"),
        ]
        for event in more:
            server.publish_event(ALICE, event)
        await until(lambda: len(got) == 9)
        assert got == [(ALICE, event) for event in [*beginning(), *more]]
        assert server.statistics().subscriptions.parts == 1
        assert link.statistics().subscriptions == 1


async def test_a_large_window_is_replayed_as_far_as_the_queue_holds_it() -> None:
    origin, pop = Origin(), Pop()
    size = QUEUE_BYTES_MAX // 8
    window = [*beginning(0), *(make_part(msn, 0, size) for msn in range(12))]
    origin.windows["alice"] = (ALICE, window)
    async with origin.serving(), pop.linked(origin) as link:
        got: Got = []
        link.subscribe_parts("alice", lambda *event: got.append(event))
        await until(lambda: got)  # Not first after REPLAY_S_MAX: what was announced came.
        assert got == [(ALICE, event) for event in [*window[:2], *window[-3:]]]


async def test_each_part_goes_once_to_every_pop_and_unsubscribing_ends_it() -> None:
    origin, pops = Origin(), [Pop("fra1"), Pop("lon1")]
    origin.windows["alice"] = (ALICE, beginning(0))
    async with (
        origin.serving() as server,
        pops[0].linked(origin) as first,
        pops[1].linked(origin) as second,
    ):
        got: list[Got] = [[], []]
        links = (first, second)
        subs = [
            link.subscribe_parts("alice", lambda *event, to=to: to.append(event))
            for link, to in zip(links, got, strict=True)
        ]
        await until(lambda: all(len(events) == 2 for events in got))
        server.publish_event(ALICE, make_part(1, 0))
        await until(lambda: all(len(events) == 3 for events in got))
        first.unsubscribe(subs[0])
        first.unsubscribe(subs[0])
        await until(lambda: server.statistics().subscriptions.parts == 1)
        server.publish_event(ALICE, make_part(1, 1))
        await until(lambda: len(got[1]) == 4)
        assert len(got[0]) == 3
        assert server.statistics().subscriptions.events_pushed == 3


async def test_a_subscription_outlives_a_publication() -> None:
    origin, pop = Origin(), Pop()
    async with origin.serving() as server, pop.linked(origin) as link:
        forwarding = link.forward(pop.publish())
        await forwarding.wait_decided()
        got: Got = []
        link.subscribe_parts("alice", lambda *event: got.append(event))
        await until(lambda: server.statistics().subscriptions.parts == 1)
        ids = [ALICE, StreamId("alice", 7, 2), StreamId("alice", 8, 1)]
        for stream_id in ids:
            server.publish_event(stream_id, make_part(1, 0))
            await until(partial(is_last, got, stream_id))
            if stream_id != ALICE:
                server.publish_event(ALICE, make_part(9, 9))  # Fenced.
        server.publish_event(ids[-1], StreamEnded(reason="x"))
        server.publish_event(ids[-1], make_part(9, 9))
        await until(lambda: got and isinstance(got[-1][1], StreamEnded))
        assert [stream_id for stream_id, _ in got] == [*ids, ids[-1]]
        assert server.statistics().subscriptions.parts == 1


async def test_an_origin_that_was_frozen_cannot_push_beside_its_successor() -> None:
    frozen, successor, pop = Origin("ams"), Origin("lon"), Pop()
    rehomed = StreamId("alice", 7, 2)
    frozen.windows["alice"] = (ALICE, beginning(1))
    successor.windows["alice"] = (rehomed, beginning(1))
    async with frozen.serving() as a, successor.serving() as b, pop.linked(frozen) as to_frozen:
        old: Got = []
        to_frozen.subscribe_parts("alice", lambda *event: old.append(event))
        await until(lambda: len(old) == 3)
        pop.up.clear()
        async with pop.linked(successor) as to_successor:
            new: Got = []
            to_successor.subscribe_parts("alice", lambda *event: new.append(event))
            await until(lambda: len(new) == 3)
            a.publish_event(ALICE, make_part(1, 1))
            b.publish_event(rehomed, make_part(1, 1))
            await until(lambda: len(new) == 4)
            # Asking the frozen one again is answered, and refused.
            late: Got = []
            to_frozen.subscribe_parts("alice", lambda *event: late.append(event))
            await until(lambda: a.statistics().subscriptions.parts == 2)
            a.publish_event(ALICE, make_part(1, 2))
            b.publish_event(rehomed, make_part(1, 2))
            await until(lambda: len(new) == 5)
            assert len(old) == 3
            assert late == []
            assert {stream_id for stream_id, _ in new} == {rehomed}


async def test_what_is_not_live_is_refused() -> None:
    origin, pop = Origin(), Pop()
    async with origin.serving() as server, pop.linked(origin) as link:
        ends: list[tuple[str, str]] = []
        link.subscribe_parts("bob", lambda *_: None, on_end=lambda *end: ends.append(end))
        await until(lambda: ends)
        assert ends == [("not_live", "channel 'bob' is not live here")]
        assert link.statistics().subscriptions == 0
        assert server.statistics().subscriptions.refused == 1


@pytest.mark.parametrize("returns", [True, False])
async def test_a_channel_that_a_restarted_origin_does_not_know_yet_is_asked_for_again(
    returns: bool,
) -> None:
    origin, pop = Origin(), Pop()
    async with origin.serving() as server, pop.linked(origin) as link:
        ends: list[tuple[str, str]] = []
        got: list[StreamId] = []
        origin.windows["alice"] = (ALICE, beginning(0))
        link.subscribe_parts(
            "alice", lambda run, _: got.append(run), on_end=lambda *end: ends.append(end)
        )
        await until(lambda: got)
        known = origin.windows.pop("alice")  # As after a restart.
        for session in list(link._sessions.values()):
            session.connection.abort("restarted")
        (subscription,) = link._feeds._subs.values()
        await until(lambda: subscription.ask_at < math.inf)
        link.expire(subscription.ask_at - 0.01)
        assert subscription.ask_at < math.inf, "not before its time"
        link.expire(subscription.ask_at)
        await until(lambda: server.statistics().subscriptions.refused == 2)
        await until(lambda: subscription.ask_at < math.inf)
        assert ends == []
        if returns:
            origin.windows["alice"] = known
            link.expire(subscription.ask_at)
            await until(lambda: len(got) == 4)  # Rendition and init, twice.
            assert link.statistics().subscriptions == 1
            assert subscription.missed_at is None
        else:
            assert subscription.missed_at is not None
            subscription.missed_at -= RETURN_S_MAX
            link.expire(subscription.ask_at)
            await until(lambda: ends)
            assert ends == [("not_live", "channel 'alice' is not live here")]


async def test_subscriptions_come_back_after_a_reconnect() -> None:
    origin, pop = Origin(), Pop()
    origin.windows["alice"] = (ALICE, beginning())
    async with origin.serving() as server, pop.linked(origin) as link:
        got: Got = []
        link.subscribe_parts("alice", lambda *event: got.append(event))
        await until(lambda: len(got) == 5)
        for session in list(link._sessions.values()):
            session.connection.abort("cut by the test")
        await until(lambda: len(got) == 10)
        assert got[:5] == got[5:]
        server.publish_event(ALICE, make_part(1, 3))
        await until(lambda: len(got) == 11)
        assert server.statistics().subscriptions.parts == 1


async def test_a_pop_that_does_not_read_skips_and_holds_nobody_up() -> None:
    origin, slow, quick = Origin(), Pop("fra1"), Pop("lon1")
    origin.windows["alice"] = (ALICE, beginning(0))
    async with (
        origin.serving() as server,
        slow.linked(origin) as to_slow,
        quick.linked(origin) as to_quick,
    ):
        got: list[Got] = [[], []]
        to_slow.subscribe_parts("alice", lambda *event: got[0].append(event))
        to_quick.subscribe_parts("alice", lambda *event: got[1].append(event))
        await until(lambda: all(len(events) == 2 for events in got))
        for session in to_slow._sessions.values():
            session.connection.pause_reading()
        size, count = 2**20, 3 * QUEUE_BYTES_MAX // 2**20
        for msn in range(count):
            part = make_part(msn, 0, size)
            server.publish_event(ALICE, part)
            await until(partial(is_last, got[1], part))
        for session in to_slow._sessions.values():
            session.connection.resume_reading()
        await until(lambda: got[0][-1][1] == part)
        assert len(got[1]) == count + 2
        assert len(got[0]) < count
        msns = [event.msn for _, event in got[0][2:]]  # type: ignore[union-attr]
        assert msns == sorted(set(msns))


async def test_units_are_pushed_into_the_subscribers_hub() -> None:
    origin, publisher, reader = Origin(), Pop("fra1"), Pop("lon1")
    async with (
        origin.serving() as server,
        publisher.linked(origin) as up,
        reader.linked(origin) as down,
    ):
        stream = publisher.publish()
        append(stream, 25)
        forwarding = up.forward(stream)
        await until(lambda: forwarding.received_seq == 24)
        streams: list[object] = []
        subscription = down.subscribe_units("alice", streams.append)
        await until(lambda: (copy := reader.hub.get("alice")) and copy.ring.next_seq == 25)
        copy = reader.hub.get("alice")
        assert copy is not None
        assert streams == [copy]
        assert copy.ring.first_seq == 20  # The latest GOP.
        append(stream, 10, 100_000)
        await until(lambda: copy.ring.next_seq == 35)
        subscription.want_key_frame(1)
        await until(lambda: publisher.key_frames == [(forwarding, 1)])
        # A cut is resumed where it was.
        for session in list(down._sessions.values()):
            session.connection.abort("cut by the test")
        append(stream, 5)
        await until(lambda: copy.ring.next_seq == 40)
        assert copy.ring.gapless
        # A takeover opens the next publication by itself.
        taken = publisher.publish(publication=8)
        again = up.forward(taken)
        append(taken, 5)
        await until(lambda: again.received_seq == 4)
        await until(lambda: len(streams) == 2)
        assert copy.ended is not None
        newest = reader.hub.get("alice")
        assert newest is not None
        await until(lambda: newest.ring.next_seq == 5)
        down.unsubscribe(subscription)
        assert newest.ended is not None
        assert reader.hub.get("alice") is None
        await until(lambda: server.statistics().subscriptions.units == 0)


async def test_units_subscriptions_that_end_before_they_began() -> None:
    origin, publisher, reader = Origin(), Pop("fra1"), Pop("lon1")
    async with (
        origin.serving() as server,
        publisher.linked(origin) as up,
        reader.linked(origin) as down,
    ):
        stream = publisher.publish()
        forwarding = up.forward(stream)
        await forwarding.wait_decided()
        subscription = down.subscribe_units("alice", lambda _: None)
        down.unsubscribe(subscription)
        again = down.subscribe_units("alice", lambda _: None)
        await until(lambda: reader.hub.get("alice"))
        assert server.statistics().subscriptions.units == 1
        stream.end("bye")
        await until(lambda: reader.hub.get("alice") is None)
        again.want_key_frame(1)
        session = next(iter(down._sessions.values()))
        assert session.link.receiver.statistics().streams == 0


@contextlib.asynccontextmanager
async def offered(units: int) -> AsyncIterator[tuple[LiveStream, Origin, RawPeer]]:
    """A stream that a PoP forwards, offered to a subscriber that has not answered yet."""
    origin, publisher = Origin(), Pop("fra1")
    async with (
        origin.serving(),
        publisher.linked(origin) as up,
        raw_pop(origin.address) as raw,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(raw.run)
        stream = publisher.publish()
        append(stream, units)
        forwarding = up.forward(stream)
        await until(lambda: forwarding.received_seq == units - 1)
        raw.link.send(SubscribeUnits(1, "alice"))
        await until(lambda: offers(raw))
        yield stream, origin, raw
        nursery.cancel_scope.cancel()


def session_of(origin: Origin, name: str) -> BackboneSession:
    assert origin.server is not None
    (session,) = (s for s in origin.server._sessions if s.peer.name == name)
    return session


async def test_a_configuration_that_changes_before_the_offer_is_answered_is_announced() -> None:
    async with offered(12) as (stream, origin, raw):
        changed = make_track(config_id=1)
        stream.set_track(changed)
        stream.append([make_unit(12, config_id=1, random_access=True)])
        await until(lambda: len(origin.units("alice")) == 13)
        raw.link.send(StreamAccepted(1, -1))
        await until(lambda: [unit.seq for unit in units_of(raw.events, 1)] == [12])
        assert TrackChanged(1, changed) in raw.messages


@pytest.mark.parametrize(
    ("wanted_seq", "first_seq"), [(-1, 20), (0, 0), (5, 5), (25, 25), (99, 25)]
)
async def test_a_subscriber_is_sent_what_it_wants_else_the_latest_gop(
    wanted_seq: int, first_seq: int
) -> None:
    async with offered(25) as (stream, origin, raw):
        raw.link.send(StreamAccepted(1, wanted_seq))
        session = session_of(origin, "raw")
        await until(lambda: session.link.sender.statistics().flows)
        append(stream, 1)
        await until(lambda: (got := units_of(raw.events, 1)) and got[-1].seq == 25)
        assert [unit.seq for unit in units_of(raw.events, 1)] == list(range(first_seq, 26))


async def test_tracks_that_fit_no_offer_end_the_subscription() -> None:
    async with offered(12) as (stream, origin, raw):
        large = msgspec.structs.replace(make_track().config, record=bytes(600_000))
        for track_id in (1, 2):  # Each fits a TrackChanged, both together fit no StreamOpened.
            track: Track = msgspec.structs.replace(make_track(track_id, 1), config=large)
            stream.set_track(track)
            stream.append([make_unit(stream.ring.next_seq, track_id=track_id, config_id=1)])
        await until(lambda: len(origin.units("alice")) == 14)
        raw.link.send(SubscribeUnits(2, "alice"))
        await until(lambda: raw.messages and isinstance(raw.messages[-1], SubscriptionRefused))
        refused = raw.messages[-1]
        assert isinstance(refused, SubscriptionRefused)
        assert (refused.sub_no, refused.code) == (2, "unsupported_media")
        assert origin.server is not None
        assert origin.server.statistics().subscriptions.units == 1


async def test_runs_that_end_and_subscriptions_that_go_before_they_began() -> None:
    async with offered(12) as (stream, origin, raw):
        assert origin.server is not None
        session, subscriptions = session_of(origin, "raw"), origin.server._subscriptions
        for sub_no in (2, 3):
            subscriptions.subscribe(session, SubscribeUnits(sub_no, "alice"))
        subscriptions.unsubscribe(session, 2)
        origin.server.stop_stream(stream.stream_id, "drain", "the origin is draining")
        for stream_no in (99, 1, 1):
            raw.link.send(StreamAccepted(stream_no, -1))
        await until(lambda: StreamClosed(1, "it has ended", ended=True) in raw.messages)
        publisher = Pop("lon1")
        async with publisher.linked(origin) as up:
            up.forward(publisher.publish(publication=8))
            await until(lambda: len(offers(raw)) == 3)
        assert [(offer.stream_no, offer.sub_no) for offer in offers(raw)] == [
            (1, 1),
            (2, 1),
            (3, 3),
        ]


def offers(raw: RawPeer) -> list[StreamOpened]:
    return [message for message in raw.messages if isinstance(message, StreamOpened)]


def break_flows(monkeypatch: pytest.MonkeyPatch, kind: type, method: str, times: int) -> list[int]:
    """Have a flow's method raise, as a bug would, that many times; returns how many are left."""
    sound, left = getattr(kind, method), [times]

    def broken(flow: object, *args: object) -> object:
        if left[0]:
            left[0] -= 1
            raise KeyError("bug")
        return sound(flow, *args)

    monkeypatch.setattr(kind, method, broken)
    return left


@pytest.mark.pure
@pytest.mark.parametrize("times", [1, REOPENS_MAX])
async def test_parts_whose_flow_a_bug_ended_come_again_with_a_replay(
    monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    origin, pop = Origin(), Pop()
    origin.windows["alice"] = (ALICE, beginning(0))
    async with origin.serving() as server, pop.linked(origin) as link:
        got: Got = []
        ends: list[tuple[str, str]] = []
        link.subscribe_parts(
            "alice", lambda *event: got.append(event), on_end=lambda *end: ends.append(end)
        )
        await until(lambda: len(got) == 2)
        left = break_flows(monkeypatch, EventFlow, "_header", times)
        part = make_part(1, 0)
        origin.windows["alice"] = (ALICE, [*beginning(0), part])
        server.publish_event(ALICE, part)
        await until(lambda: is_last(got, part))
        assert left == [0]
        server.publish_event(ALICE, make_part(1, 1))
        await until(lambda: is_last(got, make_part(1, 1)))
        assert not ends
        assert server.statistics().subscriptions.parts == 1
        basic = link._sessions[PriorityClass.BASIC]
        assert basic.link.receiver.statistics().streams == 1
        # Another run begins to count anew.
        break_flows(monkeypatch, EventFlow, "_header", REOPENS_MAX)
        again = StreamId("alice", 8, 1)
        origin.windows["alice"] = (again, beginning(0))
        server.publish_event(again, part)
        await until(lambda: is_last(got, again))
        assert not ends


@pytest.mark.pure
@pytest.mark.parametrize(("times", "packaged"), [(REOPENS_MAX + 1, True), (1, False)])
async def test_parts_that_break_again_or_are_not_packaged_any_more_end_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, times: int, packaged: bool
) -> None:
    origin, pop = Origin(), Pop()
    origin.windows["alice"] = (ALICE, beginning(0))
    async with origin.serving() as server, pop.linked(origin) as link:
        got: Got = []
        ends: list[tuple[str, str]] = []
        link.subscribe_parts(
            "alice", lambda *event: got.append(event), on_end=lambda *end: ends.append(end)
        )
        await until(lambda: len(got) == 2)
        if not packaged:
            del origin.windows["alice"]
        break_flows(monkeypatch, EventFlow, "_header", times)
        server.publish_event(ALICE, make_part(1, 0))
        await until(lambda: ends)
        assert ends == [("internal", "internal error: KeyError('bug')")]
        server.publish_event(ALICE, make_part(1, 1))
        assert link.statistics().subscriptions == server.statistics().subscriptions.parts == 0


async def test_units_whose_flow_a_bug_ended_are_offered_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with offered(25) as (stream, origin, raw):
        raw.link.send(StreamAccepted(1, -1))
        await until(lambda: len(units_of(raw.events, 1)) == 5)
        (flow,) = session_of(origin, "raw").link.sender._flows.values()
        monkeypatch.setattr(flow, "_source", None)
        append(stream, 1)
        await until(lambda: len(offers(raw)) == 2)
        assert [type(message) for message in raw.messages[-2:]] == [StreamClosed, StreamOpened]
        raw.link.send(StreamAccepted(2, 25))
        await until(lambda: [unit.seq for unit in units_of(raw.events, 2)] == [25])


async def test_a_run_unsubscribed_after_its_end_leaves_nothing_behind() -> None:
    origin = Origin()
    origin.windows["alice"] = (ALICE, beginning(0))
    async with (
        origin.serving() as server,
        raw_pop(origin.address) as raw,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(raw.run)
        raw.link.send(SubscribeParts(1, "alice"))
        await until(lambda: any(isinstance(message, EventsOpened) for message in raw.messages))
        raw.link.receiver.refuse(1)  # Its credit is not renewed any more: the end never goes.
        size = 2**20
        for msn in range(STREAM_WINDOW_BYTES // size + 1):
            server.publish_event(ALICE, make_part(msn, 0, size))
            await trio.sleep(0.005)
        server.publish_event(ALICE, StreamEnded(reason="bye"))
        (session,) = server._sessions
        await until(lambda: session.link.sender.statistics().session_credit)
        assert session.link.sender.statistics().flows == 1
        raw.link.send(Unsubscribe(1))
        await until(lambda: raw.link.receiver.statistics().streams == 0)
        assert session.link.sender.statistics().flows == 0
        nursery.cancel_scope.cancel()


async def test_numbers_of_subscriptions_are_not_used_twice() -> None:
    origin, pop = Origin(), Pop()
    origin.windows["alice"] = (ALICE, beginning(0))
    ends: list[tuple[str, str]] = []
    async with origin.serving() as server, pop.linked(origin) as link:
        subscription = link.subscribe_parts(
            "alice", lambda *_: None, on_end=lambda *end: ends.append(end)
        )
        assert subscription.session is not None
        subscription.session.send(SubscribeParts(subscription.sub_no, "alice"))
        await until(lambda: ends)
        assert ends[0] == ("protocol", "subscription 1 exists")
        assert server.statistics().subscriptions.refused == 1


async def test_subscriptions_at_the_limit_and_one_past_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriptions_module, "SUBSCRIPTIONS_MAX", 1)
    origin, pop = Origin(), Pop()
    origin.windows["alice"] = (ALICE, beginning(0))
    ends: list[tuple[str, str]] = []
    async with origin.serving(), pop.linked(origin) as link:
        got: Got = []
        link.subscribe_parts("alice", lambda *event: got.append(event))
        link.subscribe_parts("alice", lambda *_: None, on_end=lambda *end: ends.append(end))
        await until(lambda: ends and len(got) == 2)
        assert ends == [("full", "1 subscriptions are open")]
