"""Parts to playback against real origins: gathering, following the directory, and every end."""

from functools import partial

import pytest
import trio
from structlog.testing import capture_logs

from edged.backbone.directory import DirectoryRecord
from edged.errors import RemoteProtocolError
from edged.media.parts import PackagedEvent, StreamEnded
from edged.media.routing import Rule
from edged.media.stream import PriorityClass, StreamId
from edged.policy.segment_ends import HEELS_S, SegmentEnds
from edged.roles.parts_in import LOST
from tests.backbone.network import Origin, append, until
from tests.policy.window_events import ended, init, part, rendition
from tests.roles.setting import Pop, events_of, live_at, package, running_pop


async def test_parts_reach_playback_in_one_call_per_turn() -> None:
    one = Origin("one")
    async with one.serving(), running_pop(one) as pop:
        await live_at(pop, one)
        stream_id = package(one, "alice", events_of())
        window = one.windows["alice"][1]
        pop.uplinks.parts.subscribe("alice")
        await until(lambda: sum(len(events) for _, events in pop.playback.batches) == len(window))
        assert [known for known, _ in pop.playback.batches] == [stream_id] * len(
            pop.playback.batches
        )
        assert len(pop.playback.batches) < len(window)  # A replay comes together.
        told = [event for _, events in pop.playback.batches for event in events]
        assert told == window
        pop.uplinks.parts.unsubscribe("alice")
        await until(lambda: pop.uplinks.statistics()[0].subscriptions == 0)


async def test_the_end_of_a_stream_ends_its_subscription() -> None:
    one = Origin("one")
    async with one.serving(), running_pop(one) as pop:
        await live_at(pop, one)
        package(one, "alice", events_of())
        pop.uplinks.parts.subscribe("alice")
        await until(lambda: pop.playback.batches)
        package(one, "alice", [StreamEnded(reason="over")])
        await until(lambda: pop.playback.batches[-1][1][-1] == StreamEnded(reason="over"))
        await until(lambda: pop.uplinks.statistics()[0].subscriptions == 0)


@pytest.mark.parametrize("asks_again", [False, True])
async def test_a_run_that_begins_in_the_turn_in_which_another_ends_comes_if_playback_asks(
    monkeypatch: pytest.MonkeyPatch, asks_again: bool
) -> None:
    one = Origin("one")
    async with one.serving(), running_pop(one) as pop:
        await live_at(pop, one)
        stream_id = package(one, "alice", events_of())
        following = StreamId("alice", stream_id.publication + 1)
        told: list[StreamId] = []

        def window_updated(updated: StreamId, events: list[PackagedEvent]) -> None:
            told.append(updated)
            if updated == following and asks_again:
                pop.uplinks.parts.subscribe("alice")

        monkeypatch.setattr(pop.playback, "window_updated", window_updated)
        pop.uplinks.parts.subscribe("alice")
        await until(lambda: told)
        told.clear()
        pop.uplinks.parts.receive(
            following, events_of()[0]
        )  # Older runs are told first all the same.
        pop.uplinks.parts.receive(stream_id, StreamEnded(reason="taken over"))
        await until(lambda: told[:2] == [stream_id, following])
        assert pop.uplinks.statistics()[0].subscriptions == asks_again


TAIL: list[PackagedEvent] = [
    part(0, 1, duration=67, ends_segment=True), ended(0, parts=2, duration=467)
]  # fmt: skip


async def shown_a_part(pop: Pop, origin: Origin) -> StreamId:
    """A subscribed channel whose viewers have been shown a part; its run."""
    await live_at(pop, origin)
    begin: list[PackagedEvent] = [rendition(), init(), part(0, 0)]
    stream_id = package(origin, "alice", begin)
    pop.uplinks.parts.subscribe("alice")
    await until(lambda: pop.playback.batches)
    assert pop.playback.batches == [(stream_id, begin)]
    pop.playback.batches.clear()
    return stream_id


async def held_a_tail(pop: Pop, origin: Origin) -> StreamId:
    """The same, and the segment's end is held; its run."""
    stream_id = await shown_a_part(pop, origin)
    for event in TAIL:
        pop.uplinks.parts.receive(stream_id, event)
    await trio.sleep(0.01)
    assert pop.playback.batches == []
    return stream_id


async def test_the_end_of_a_segment_is_not_on_the_heels_of_a_part() -> None:
    """Nor is its last part, which may come in a turn before the end."""
    one = Origin("one")
    async with one.serving(), running_pop(one) as pop:
        stream_id = await shown_a_part(pop, one)
        began = trio.current_time()
        for event in TAIL:
            package(one, "alice", [event])
            await trio.sleep(0.01)
        await until(lambda: pop.playback.batches)
        assert trio.current_time() - began > 0.6 * HEELS_S, "it was shown some ms before"
        assert pop.playback.batches == [(stream_id, TAIL)]
        package(one, "alice", [part(1, 0)])
        await until(lambda: len(pop.playback.batches) == 2)


@pytest.mark.parametrize("how", ["unsubscribed", "over", "lost", "another run"])
async def test_what_is_held_is_shown_before_the_end(how: str) -> None:
    one = Origin("one")
    async with one.serving(), running_pop(one) as pop:
        stream_id = await held_a_tail(pop, one)
        parts, over = pop.uplinks.parts, StreamEnded(reason="over")
        expected = [(stream_id, TAIL)]
        following = StreamId("alice", stream_id.publication + 1)
        if how == "unsubscribed":
            parts.unsubscribe("alice")
        elif how == "over":
            parts.receive(stream_id, over)
            expected.append((stream_id, [over]))
        elif how == "lost":
            parts.end(parts.cut_off("one"))
            assert pop.playback.unavailable == [("alice", LOST)]
        else:
            parts.receive(following, rendition())
            expected.append((following, [rendition()]))
        await trio.sleep(0.01)
        assert pop.playback.batches == expected


async def test_what_is_held_bears_the_runs_newest_epoch() -> None:
    """Playback takes nothing of an epoch older than what it had."""
    one = Origin("one")
    async with one.serving(), running_pop(one) as pop:
        stream_id = await held_a_tail(pop, one)
        raised = StreamId("alice", stream_id.publication, stream_id.home_epoch + 1)
        pop.uplinks.parts.receive(raised, part(1, 0))
        await until(lambda: pop.playback.batches)
        assert pop.playback.batches == [(raised, [*TAIL, part(1, 0)])]


@pytest.mark.parametrize("where", ["take", "_sort"])
async def test_a_bug_in_what_is_held_costs_nothing(
    monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    one = Origin("one")
    async with one.serving(), running_pop(one) as pop:
        stream_id = await held_a_tail(pop, one)
        sound = SegmentEnds._sort

        def broken(ends: SegmentEnds, events: list[PackagedEvent], now: float) -> None:
            if where == "_sort":
                sound(ends, events, now)  # It has changed what it holds.
            raise KeyError("bug")

        monkeypatch.setattr(SegmentEnds, where, broken)
        with capture_logs() as logs:
            pop.uplinks.parts.receive(stream_id, part(1, 0))
            await until(lambda: pop.playback.batches)
            await trio.sleep(2 * HEELS_S)
        told = [event for _, events in pop.playback.batches for event in events]
        assert told == [*TAIL, part(1, 0)]
        assert "parts not held back" in [line["event"] for line in logs]


async def test_a_channel_whose_held_events_were_refused_is_not_followed_elsewhere() -> None:
    one, two = Origin("one"), Origin("two")
    async with one.serving(), two.serving(), running_pop(one, two) as pop:
        await held_a_tail(pop, one)
        pop.playback.refuses_with = RemoteProtocolError("a part is missing")
        record = pop.uplinks.listing.lookup("alice")
        assert record is not None
        pop.uplinks.parts.listed("alice", DirectoryRecord("two", record.entry))
        assert pop.playback.unavailable == [("alice", "broken media: a part is missing")]
        await until(lambda: all(not link.subscriptions for link in pop.uplinks.statistics()))


async def test_a_bug_in_playback_costs_its_channel_only(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Origin("one")
    async with one.serving(), running_pop(one) as pop:
        await live_at(pop, one)
        pop.uplinks.parts.subscribe("alice")
        sound = pop.playback.window_updated
        unavailable: list[tuple[str, str]] = []

        def window_updated(stream_id: StreamId, events: list[PackagedEvent]) -> None:
            if stream_id.channel == "alice":
                raise KeyError("bug")
            sound(stream_id, events)

        def channel_unavailable(channel: str, reason: str) -> None:
            unavailable.append((channel, reason))
            raise KeyError("the same bug")

        monkeypatch.setattr(pop.playback, "window_updated", window_updated)
        monkeypatch.setattr(pop.playback, "channel_unavailable", channel_unavailable)
        first = events_of()[0]
        with capture_logs() as logs:
            pop.uplinks.parts.receive(StreamId("alice", 1), first)
            pop.uplinks.parts.receive(StreamId("bob", 1), first)
            await until(lambda: pop.playback.batches)
        assert pop.playback.batches == [(StreamId("bob", 1), [first])]
        assert unavailable == [("alice", "internal error")]
        assert pop.uplinks.statistics()[0].subscriptions == 0
        assert [line["event"] for line in logs if line["log_level"] == "error"] == [
            "playback failed",
            "playback failed to end a channel",
        ]


async def test_events_that_playback_cannot_use_end_the_subscription() -> None:
    one = Origin("one")
    async with one.serving(), running_pop(one) as pop:
        await live_at(pop, one)
        package(one, "alice", events_of())
        pop.playback.refuses_with = RemoteProtocolError("a part is missing")
        with capture_logs() as logs:
            pop.uplinks.parts.subscribe("alice")
            await until(lambda: pop.playback.unavailable)
        assert pop.playback.unavailable[0] == ("alice", "broken media: a part is missing")
        assert "origin's events refused" in [line["event"] for line in logs]
        assert pop.uplinks.statistics()[0].subscriptions == 0


async def test_a_subscription_follows_the_channel_to_another_origin() -> None:
    one, two = Origin("one"), Origin("two")
    async with one.serving(), two.serving(), running_pop(one, two) as pop:
        pop.uplinks.parts.subscribe("alice")  # Before it is live: remembered.
        await live_at(pop, one)
        await until(lambda: pop.uplinks.statistics()[0].subscriptions == 1)
        pop.push_table(one, two, rules=(Rule(pin="two"),))
        stream = pop.open(publication=2)
        pop.place(stream)
        append(stream, 10)
        await until(lambda: two.units("alice"))
        await until(
            lambda: (
                {link.origin: link.subscriptions for link in pop.uplinks.statistics()}
                == {"one": 0, "two": 1}
            )
        )
        package(two, "alice", events_of())
        await until(lambda: pop.playback.batches)
        assert pop.playback.batches[0][0] == StreamId("alice", 2)


async def test_a_feed_that_the_origin_ends_is_told_to_playback() -> None:
    one = Origin("one")
    async with one.serving(), running_pop(one) as pop:
        await live_at(pop, one)
        pop.uplinks.parts.subscribe("alice")
        pop.uplinks.parts.feed_ended("alice", "drain: the origin is stopping")
        assert pop.playback.unavailable == [("alice", "drain: the origin is stopping")]


def is_listed(pop: Pop, stream_id: StreamId) -> bool:
    return pop.uplinks.lookup(stream_id.channel) == stream_id


def has_parts(pop: Pop, stream_id: StreamId) -> bool:
    return stream_id in [known for known, _ in pop.playback.batches]


async def test_parts_come_over_the_session_of_their_channel_s_class(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And so with its DSCP; a run whose class is another moves the subscription."""
    one = Origin("one")
    async with one.serving() as server, running_pop(one) as pop:
        for publication, priority in enumerate(PriorityClass, 1):
            stream = pop.open(publication=publication, priority=priority)
            pop.place(stream)
            await until(partial(is_listed, pop, stream.stream_id))
            append(stream, 10)
            await until(lambda: one.units("alice"))
            if publication == 1:
                pop.uplinks.parts.subscribe("alice")
            one.windows.clear()
            stream_id = package(one, "alice", events_of())
            await until(partial(has_parts, pop, stream_id))
            subscribed = [
                session.peer.priority
                for session, known in server._subscriptions._by_session.items()
                if known
            ]
            assert subscribed == [priority]
            assert pop.uplinks.statistics()[0].subscriptions == 1


async def test_segments_are_fetched_from_where_their_run_comes_from_or_last_came() -> None:
    one = Origin("one")
    one.segments["v0", 3] = [b"three"]
    async with one.serving(), running_pop(one) as pop:
        await live_at(pop, one)
        parts, results = pop.uplinks.parts, list[bytes | str]()
        stream_id = package(one, "alice", events_of())
        assert not parts.fetch(stream_id, "v0", 3, results.append), "from nowhere"
        parts.subscribe("alice")
        await until(lambda: pop.playback.batches)
        assert parts.fetch(stream_id, "v0", 3, results.append)
        await until(lambda: results == [b"three"])
        package(one, "alice", [StreamEnded(reason="over")])
        await until(lambda: pop.uplinks.statistics()[0].subscriptions == 0)
        assert parts.fetch(stream_id, "v0", 3, results.append), "viewers still watch it"
        await until(lambda: results == [b"three"] * 2)
        other = StreamId("alice", stream_id.publication + 1)
        assert not parts.fetch(other, "v0", 3, results.append)


async def test_an_origin_hears_whether_anything_of_a_channel_is_here() -> None:
    one, two = Origin("one"), Origin("two")
    async with one.serving(), two.serving(), running_pop(one, two) as pop:
        await live_at(pop, one)
        package(one, "alice", events_of())
        parts = pop.uplinks.parts
        parts.subscribe("alice")
        await until(lambda: pop.playback.batches)
        record = pop.uplinks.listing.lookup("alice")
        assert record is not None
        parts.listed("alice", DirectoryRecord("two", record.entry))
        await until(lambda: two.replays)
        parts.unsubscribe("alice")
        parts.subscribe("alice")
        await until(lambda: len(one.replays) > 1)
        assert one.replays == [(True, True)] * 2
        assert two.replays == [(True, False)], "a failover finds something here"
