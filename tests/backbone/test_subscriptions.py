from functools import partial

import pytest

from edged.backbone import subscriptions as subscriptions_module
from edged.media.parts import InitSegment, PackagedEvent, Rendition, SegmentEnded, StreamEnded
from edged.media.stream import StreamId
from edged.media.track import Kind
from edged.wire.backbone.flows import QUEUE_BYTES_MAX
from edged.wire.backbone.messages import SubscribeParts
from tests.backbone.network import Origin, Pop, append, until
from tests.wire.backbone.builders import make_part

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
