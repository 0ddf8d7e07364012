"""A PoP's uplinks against real origins: placing, re-placing, following the directory, gathering."""

from collections.abc import Sequence

import pytest
import trio
from structlog.testing import capture_logs

from edged.errors import PublishRefusedError, RemoteProtocolError
from edged.media.parts import PackagedEvent, StreamEnded
from edged.media.routing import RouteRequest, Rule
from edged.media.stream import StreamId
from edged.roles import uplinks as uplinks_module
from tests.backbone.network import Origin, append, until
from tests.policy.synthetic import RATES, segment, video_times, video_track, video_units
from tests.roles.setting import REQUEST, Pop, running_pop


def events_of(seconds: float = 4.0, *, end: bool = False) -> list[PackagedEvent]:
    units = list(video_units(video_times(RATES["30"], seconds), 2))
    for seq, unit in enumerate(units):
        unit.seq = seq
    return segment([video_track(RATES["30"])], units, end=end).events


def package(origin: Origin, channel: str, events: Sequence[PackagedEvent]) -> StreamId:
    """As the origin's service would: keep a window, push what is new."""
    stream = origin.hub.get(channel)
    assert stream is not None
    assert origin.server is not None
    _, window = origin.windows.setdefault(channel, (stream.stream_id, []))
    for event in events:
        window.append(event)
        origin.server.publish_event(stream.stream_id, event)
    return stream.stream_id


async def live_at(pop: Pop, origin: Origin, *, publication: int = 1) -> None:
    """A channel that is published here and listed by its origin."""
    stream = pop.open(publication=publication)
    pop.place(stream)
    await until(lambda: pop.uplinks.lookup("alice") == stream.stream_id)
    append(stream, 10)
    await until(lambda: origin.units("alice"))


async def test_a_stream_goes_to_the_nearest_origin_with_room() -> None:
    one, two = Origin("one"), Origin("two")
    async with one.serving(), two.serving(), running_pop(one, two) as pop:
        stream = pop.open()
        placement = pop.place(stream)
        assert placement.decision.origin == "one"
        assert pop.uplinks.placements["alice"] is placement
        assert pop.view.by_name["one"].used == 1
        append(stream, 20)
        await until(lambda: len(one.units("alice")) == 20)
        assert not two.opened
        await until(lambda: pop.uplinks.record("alice"))
        record = pop.uplinks.record("alice")
        assert record is not None
        assert record.origin == "one"
        pop.hub.close(stream, "publisher left")
        pop.uplinks.end(stream)
        assert not pop.uplinks.placements
        assert pop.view.by_name["one"].used == 0
        await until(lambda: pop.uplinks.lookup("alice") is None)


async def test_no_route_is_a_refusal_with_a_reason_for_each_origin() -> None:
    one = Origin("one")
    async with one.serving(), running_pop(one, quota=0) as pop:
        await until(lambda: pop.view.capacitor.state("one"))
        with pytest.raises(PublishRefusedError) as refusal:
            pop.place(pop.open(), RouteRequest(channel="alice", cost=100))
        assert refusal.value.code == "no_route"
        assert "one: lease used up; no room by its heartbeats" in refusal.value.reason
        assert pop.view.take_telemetry().unplaced == 100
        pop.push_table(one, rules=(Rule(pin="far"),))
        with pytest.raises(PublishRefusedError, match="rule pins the stream to far"):
            pop.place(pop.open(publication=2))


async def test_a_full_origin_s_refusal_sends_the_stream_to_the_next() -> None:
    one, two = Origin("one"), Origin("two")
    one.refusal = PublishRefusedError("full", "no slot is free")
    async with one.serving(), two.serving(), running_pop(one, two) as pop:
        stream = pop.open()
        assert pop.place(stream).decision.origin == "one"
        append(stream, 10)
        await until(lambda: len(two.units("alice")) == 10)
        assert pop.uplinks.placements["alice"].decision.origin == "two"
        assert (pop.view.by_name["one"].used, pop.view.by_name["two"].used) == (0, 1)
        assert pop.view.by_name["one"].held_until > pop.pump.now()
        assert pop.given_up == []


async def test_an_origin_that_takes_a_stream_again_is_trusted_again() -> None:
    one = Origin("one")
    one.refusal = PublishRefusedError("full", "no slot is free")
    async with one.serving(), running_pop(one) as pop:
        pop.place(pop.open())
        await until(lambda: pop.given_up)
        first_hold_s = pop.view.by_name["one"].held_until - pop.pump.now()
        one.refusal = None
        pop.view.by_name["one"].held_until = pop.pump.now()
        placement = pop.place(pop.open(publication=2))
        await placement.forwarding.wait_decided()
        assert pop.view.refused("one", pop.pump.now()) <= first_hold_s + 0.5


async def test_refused_by_all_it_is_given_up() -> None:
    one, two = Origin("one"), Origin("two")
    one.refusal = two.refusal = PublishRefusedError("full", "no slot is free")
    async with one.serving(), two.serving(), running_pop(one, two) as pop:
        pop.place(pop.open())
        await until(lambda: pop.given_up)
        ((code, reason),) = pop.given_up
        assert code == "no_route"
        assert "one: held after a refusal" in reason
        assert "two: held after a refusal" in reason
        assert not pop.uplinks.placements
        assert (pop.view.by_name["one"].used, pop.view.by_name["two"].used) == (0, 0)


async def test_once_packaged_a_stream_does_not_start_anew_elsewhere() -> None:
    """Its segments would get the names of others: it is published again instead."""
    one, two = Origin("one"), Origin("two")
    async with one.serving() as server, two.serving(), running_pop(one, two) as pop:
        stream = pop.open()
        placement = pop.place(stream)
        append(stream, 10)
        await until(lambda: one.units("alice"))
        server.packaged(stream.stream_id, 5, [])
        await until(lambda: placement.forwarding.packaged_seq == 5)
        server.stop_stream(stream.stream_id, "drain", "the origin is stopping")
        await until(lambda: pop.given_up)
        assert pop.given_up == [("drain", "origin one: the origin is stopping")]
        assert not two.opened


async def test_another_refusal_is_final() -> None:
    one, two = Origin("one"), Origin("two")
    async with one.serving(), two.serving(), running_pop(one, two) as pop:
        one.refusal = PublishRefusedError("unsupported_media", "nobody can package it")
        pop.place(pop.open())
        await until(lambda: pop.given_up)
        assert pop.given_up == [("unsupported_media", "origin one: nobody can package it")]
        assert not two.opened
        assert pop.view.by_name["one"].held_until < pop.pump.now()


async def test_a_refusal_of_a_run_that_was_taken_over_concerns_nobody() -> None:
    one = Origin("one")
    async with one.serving(), running_pop(one) as pop:
        older = pop.place(pop.open())
        newer = pop.place(pop.open(publication=2))
        assert pop.view.by_name["one"].used == 1
        pop.uplinks.refused(older.forwarding, "full", "late")
        assert pop.uplinks.placements["alice"] is newer
        assert pop.given_up == []


async def test_a_takeover_at_another_pop_and_origin_gives_the_older_publisher_up() -> None:
    one, two = Origin("one"), Origin("two")
    async with (
        one.serving(),
        two.serving(),
        running_pop(one, two) as here,
        running_pop(two) as there,
    ):
        older = here.open()
        assert here.place(older).decision.origin == "one"
        append(older, 3)
        await until(lambda: one.units("alice"))
        newer = there.open(publication=2)
        there.place(newer)
        await until(lambda: here.given_up)
        assert here.given_up == [("fenced", "taken over by a newer publication elsewhere")]
        assert not here.uplinks.placements
        assert here.view.by_name["one"].used == 0
        await until(lambda: one.hub.get("alice") is None)
        assert there.uplinks.placements["alice"].stream is newer
        assert there.given_up == []


@pytest.mark.parametrize("taken_over", [False, True])
async def test_a_publication_that_ends_while_its_origin_is_away_leaves_nothing_behind(
    taken_over: bool,
) -> None:
    one, two = Origin("one"), Origin("two")
    async with two.serving(), running_pop() as pop:
        async with one.serving():
            pop.push_table(one, two, rules=(Rule(prefer=("one",)),))
            await pop.connected(one, two)
            stream = pop.open()
            assert pop.place(stream).decision.origin == "one"
            append(stream, 5)
            await until(lambda: one.units("alice"))
        link = pop.uplinks._links["one"].link
        await until(lambda: link.forwardings[0].state == "waiting")
        if taken_over:
            assert pop.place(pop.open(publication=2)).decision.origin == "two"
        else:
            pop.hub.close(stream, "publisher left")
            pop.uplinks.end(stream)
        assert link.forwardings == []


async def test_what_ended_before_its_link_was_lost_waits_for_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(uplinks_module, "RTT_INTERVAL_S", 0.01)
    one = Origin("one")
    async with running_pop() as pop:
        async with one.serving():
            pop.push_table(one)
            await pop.connected(one)
            stream = pop.open()
            pop.place(stream)
            append(stream, 5)
            await until(lambda: one.units("alice"))
        link = pop.uplinks._links["one"].link
        await until(lambda: link.forwardings[0].state == "waiting")
        assert pop.uplinks.placements
        stream.end("publisher left")
        await until(lambda: not link.forwardings)


async def test_a_forwarding_that_breaks_off_gives_the_publisher_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(uplinks_module, "RTT_INTERVAL_S", 0.01)
    one = Origin("one")
    async with one.serving(), running_pop(one) as pop:
        stream = pop.open()
        placement = pop.place(stream)
        append(stream, 3)
        await until(lambda: one.units("alice"))
        monkeypatch.setattr(placement.forwarding._source, "read", lambda *_: 1 // 0)
        with capture_logs() as logs:
            append(stream, 3)
            await until(lambda: pop.given_up)
        ((code, reason),) = pop.given_up
        assert (code, reason[:33]) == ("internal", "internal error: ZeroDivisionError")
        assert "forwarding broke off" in [line["event"] for line in logs]
        assert not pop.uplinks.placements
        assert pop.uplinks.statistics()[0].reconnects == 0
        await until(lambda: one.hub.get("alice") is None)


async def test_the_last_word_of_a_link_that_left_the_table_concerns_nobody() -> None:
    one = Origin("one")
    async with one.serving(), running_pop(one) as pop:
        pop.push_table()
        pop.uplinks.link_up("one", None)
        assert pop.view.link_state("one") == "link down: not in the table"


async def test_a_link_that_takes_no_more_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edged.backbone.sender.FORWARDINGS_MAX", 0)
    one = Origin("one")
    async with one.serving(), running_pop(one) as pop:
        with pytest.raises(PublishRefusedError, match="full: 0 streams go to one already"):
            pop.place(pop.open())
        assert pop.view.by_name["one"].used == 0


async def test_a_publisher_may_wait_for_the_first_origin() -> None:
    one = Origin("one")
    async with running_pop() as pop, trio.open_nursery() as nursery:
        routed = trio.Event()

        async def wait() -> None:
            await pop.uplinks.wait_route(REQUEST)
            routed.set()

        nursery.start_soon(wait)
        await trio.sleep(0.01)
        assert not routed.is_set()
        async with one.serving():
            pop.push_table(one)
            with trio.fail_after(5):
                await routed.wait()
            assert pop.place(pop.open()).decision.origin == "one"


async def test_it_waits_no_longer_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uplinks_module, "ROUTE_WAIT_S_MAX", 0.02)
    async with running_pop() as pop:
        with trio.fail_after(2):
            await pop.uplinks.wait_route(REQUEST)
        with pytest.raises(PublishRefusedError, match=r"no_route: .*no origins"):
            pop.place(pop.open())


async def test_once_origins_were_there_nobody_waits_for_a_full_one() -> None:
    one = Origin("one")
    async with one.serving(), running_pop(one, quota=0) as pop:
        with trio.fail_after(1):
            await pop.uplinks.wait_route(RouteRequest(channel="alice", cost=100))


async def test_parts_reach_playback_in_one_call_per_turn() -> None:
    one = Origin("one")
    async with one.serving(), running_pop(one) as pop:
        await live_at(pop, one)
        stream_id = package(one, "alice", events_of())
        window = one.windows["alice"][1]
        pop.uplinks.subscribe("alice")
        await until(lambda: sum(len(events) for _, events in pop.playback.batches) == len(window))
        assert [known for known, _ in pop.playback.batches] == [stream_id] * len(
            pop.playback.batches
        )
        assert len(pop.playback.batches) < len(window)  # A replay comes together.
        told = [event for _, events in pop.playback.batches for event in events]
        assert told == window
        pop.uplinks.unsubscribe("alice")
        await until(lambda: pop.uplinks.statistics()[0].subscriptions == 0)


async def test_the_end_of_a_stream_ends_its_subscription() -> None:
    one = Origin("one")
    async with one.serving(), running_pop(one) as pop:
        await live_at(pop, one)
        package(one, "alice", events_of())
        pop.uplinks.subscribe("alice")
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
                pop.uplinks.subscribe("alice")

        monkeypatch.setattr(pop.playback, "window_updated", window_updated)
        pop.uplinks.subscribe("alice")
        await until(lambda: told)
        told.clear()
        pop.uplinks._event(following, events_of()[0])  # Older runs are told first all the same.
        pop.uplinks._event(stream_id, StreamEnded(reason="taken over"))
        await until(lambda: told[:2] == [stream_id, following])
        assert pop.uplinks.statistics()[0].subscriptions == asks_again


async def test_a_bug_in_playback_costs_its_channel_only(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Origin("one")
    async with one.serving(), running_pop(one) as pop:
        await live_at(pop, one)
        pop.uplinks.subscribe("alice")
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
            pop.uplinks._event(StreamId("alice", 1), first)
            pop.uplinks._event(StreamId("bob", 1), first)
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
            pop.uplinks.subscribe("alice")
            await until(lambda: pop.playback.unavailable)
        assert pop.playback.unavailable[0] == ("alice", "broken media: a part is missing")
        assert "origin's events refused" in [line["event"] for line in logs]
        assert pop.uplinks.statistics()[0].subscriptions == 0


async def test_a_subscription_follows_the_channel_to_another_origin() -> None:
    one, two = Origin("one"), Origin("two")
    async with one.serving(), two.serving(), running_pop(one, two) as pop:
        pop.uplinks.subscribe("alice")  # Before it is live: remembered.
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


async def test_an_origin_that_left_the_table_and_came_back_is_subscribed_to_again() -> None:
    one = Origin("one")
    async with one.serving(), running_pop(one) as pop:
        await live_at(pop, one)
        pop.uplinks.subscribe("alice")
        assert pop.uplinks.statistics()[0].subscriptions == 1
        with capture_logs() as logs:
            pop.push_table()
        assert "origin left the table" in [line["event"] for line in logs]
        assert pop.uplinks.statistics() == []
        assert pop.uplinks.lookup("alice") is None
        assert pop.playback.unavailable == [("alice", "no_route: origin one left the network")]
        assert pop.given_up == [("no_route", "origin one left the table; publish again")]
        assert not pop.uplinks.placements
        pop.push_table(one)
        await pop.connected(one)
        await live_at(pop, one, publication=2)
        await until(lambda: pop.uplinks.lookup("alice") is not None)
        pop.uplinks.subscribe("alice")  # As playback does when a viewer asks.
        assert pop.uplinks.statistics()[0].subscriptions == 1
        package(one, "alice", events_of())
        await until(lambda: pop.playback.batches)


async def test_a_feed_that_the_origin_ends_is_told_to_playback() -> None:
    one = Origin("one")
    async with one.serving(), running_pop(one) as pop:
        await live_at(pop, one)
        pop.uplinks.subscribe("alice")
        pop.uplinks._feed_ended("alice", "drain", "the origin is stopping")
        assert pop.playback.unavailable == [("alice", "drain: the origin is stopping")]


async def test_an_origin_that_moves_is_followed() -> None:
    one = Origin("one")
    async with running_pop() as pop:
        async with one.serving():
            pop.push_table(one)
            await pop.connected(one)
        one.address = "127.0.0.1:0"
        async with one.serving():
            pop.push_table(one)
            await until(lambda: len(pop.uplinks.statistics()[0].up) == 4)
            assert pop.uplinks.statistics()[0].reconnects >= 1


async def test_an_address_that_cannot_be_used_is_logged_and_harms_no_other() -> None:
    one, far = Origin("one"), Origin("far")
    far.address = "192.0.2.1:7410"  # Plain TCP to another host.
    async with one.serving(), running_pop() as pop:
        with capture_logs() as logs:
            pop.push_table(far, one)
            await pop.connected(one)
        (line,) = [line for line in logs if line["event"] == "origin cannot be used"]
        assert line["origin"] == "far"
        assert "plain TCP on '192.0.2.1'" in line["reason"]


async def test_a_lost_link_blocks_its_origin_until_it_is_back() -> None:
    one = Origin("one")
    async with running_pop() as pop:
        async with one.serving():
            pop.push_table(one)
            await pop.connected(one)
            await until(lambda: pop.view.capacitor.state("one") is not None)
        await until(lambda: "link down" in pop.view.link_state("one"))
        with pytest.raises(PublishRefusedError, match="one: link down"):
            pop.place(pop.open())


async def test_round_trips_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uplinks_module, "RTT_INTERVAL_S", 0.01)
    one = Origin("one")
    async with one.serving(), running_pop(one) as pop:
        pop.view._rtt_ms["one"] = 1e9
        await until(lambda: pop.view._rtt_ms["one"] < 9e8)
