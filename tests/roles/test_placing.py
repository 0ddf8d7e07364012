"""A PoP's publications against real origins: placing, re-placing, fencing, giving up."""

import pytest
import trio
from structlog.testing import capture_logs

from edged.backbone import sender as sender_module
from edged.backbone.receiver import BackboneServer
from edged.errors import PublishRefusedError
from edged.media.events import StreamEvent, StreamRehomed
from edged.media.routing import Match, OriginState, RouteRequest, Rule
from edged.media.stream import PriorityClass, StreamId
from edged.policy.departures import LOST_S_MAX
from edged.policy.pop_view import NOT_HELD
from edged.policy.takeover import TAKEN_OVER, takeovers
from edged.roles import placing as placing_module
from edged.roles import uplinks as uplinks_module
from edged.roles.placement import BROKE_OFF, CUT_OFF, NO_ROUTE, Placement
from edged.wire.backbone.messages import DirectoryDelta, DirectoryEntry
from tests.backbone.network import Origin, append, until
from tests.roles.setting import REQUEST, Pop, packaged, running_pop


async def test_a_stream_goes_to_the_nearest_origin_with_room() -> None:
    one, two = Origin("one"), Origin("two")
    async with one.serving(), two.serving(), running_pop(one, two) as pop:
        stream = pop.open()
        placement = pop.place(stream)
        assert placement.decision.origin == "one"
        assert pop.uplinks.placements["alice"] is placement
        assert pop.uplinks.placing.placed_by == {"": 1}
        assert pop.view.by_name["one"].used == 1
        append(stream, 20)
        await until(lambda: len(one.units("alice")) == 20)
        assert not two.opened
        await until(lambda: pop.uplinks.listing.lookup("alice"))
        record = pop.uplinks.listing.lookup("alice")
        assert record is not None
        assert record.origin == "one"
        pop.hub.close(stream, "publisher left")
        pop.uplinks.placing.end(stream)
        assert not pop.uplinks.placements
        assert pop.view.by_name["one"].used == 0
        await until(lambda: pop.uplinks.lookup("alice") is None)


async def test_streams_are_counted_by_the_rule_that_placed_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = Origin("one")
    async with one.serving(), running_pop(one) as pop:
        pop.push_table(one, rules=(Rule(name="mine", match=Match(channel="alice"), pin="one"),))
        pop.place(pop.open())
        for channel in ("bob", "carol"):
            pop.place(pop.open(channel), RouteRequest(channel=channel))
        assert pop.uplinks.placing.placed_by == {"mine": 1, "": 2}
        monkeypatch.setattr(placing_module, "RULES_COUNTED_MAX", 2)
        pop.push_table(one, rules=(Rule(name="another", match=Match(channel="dave"), pin="one"),))
        pop.place(pop.open("dave"), RouteRequest(channel="dave"))
        assert pop.uplinks.placing.placed_by == {"another": 1}, "beyond the limit it begins anew"


async def test_no_route_is_a_refusal_with_a_reason_for_each_origin() -> None:
    one = Origin("one")
    async with one.serving(), running_pop(one, quota=0) as pop:
        await until(lambda: pop.view.capacitor.state("one"))
        with pytest.raises(PublishRefusedError) as refusal:
            pop.place(pop.open(), RouteRequest(channel="alice", cost=100))
        assert refusal.value.code == "no_route"
        assert refusal.value.reason == NO_ROUTE  # The encoder hears of no origin.
        assert "one: lease used up; no room by its heartbeats" in refusal.value.detail
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
        partner, _, basic = pop.view.by_name["one"].held
        assert basic > pop.pump.now() > partner  # Slots may be kept for those above.
        assert pop.given_up == []


async def test_an_origin_that_takes_a_stream_again_is_trusted_again() -> None:
    one = Origin("one")
    one.refusal = PublishRefusedError("full", "no slot is free")
    async with one.serving(), running_pop(one) as pop:
        pop.place(pop.open())
        await until(lambda: pop.given_up)
        first_hold_s = pop.view.by_name["one"].held[-1] - pop.pump.now()
        one.refusal = None
        pop.view.by_name["one"].held = NOT_HELD
        placement = pop.place(pop.open(publication=2))
        await placement.forwarding.wait_decided()
        hold_s = pop.view.refused("one", pop.pump.now(), priority=PriorityClass.BASIC)
        assert hold_s <= first_hold_s + 0.5


async def test_refused_by_all_it_is_given_up() -> None:
    one, two = Origin("one"), Origin("two")
    one.refusal = two.refusal = PublishRefusedError("full", "no slot is free")
    async with one.serving(), two.serving(), running_pop(one, two) as pop:
        pop.place(pop.open())
        await until(lambda: pop.given_up)
        (error,) = pop.given_up
        assert (error.code, error.reason) == ("no_route", NO_ROUTE)
        assert "one: held after a refusal" in error.detail
        assert "two: held after a refusal" in error.detail
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
        assert [str(error) for error in pop.given_up] == [
            "drain: the origin is stopping (origin one)"
        ]
        assert not two.opened


async def test_from_an_origin_that_drains_a_stream_goes_on_at_another() -> None:
    one, two = Origin("one"), Origin("two")
    async with one.serving() as server, two.serving(), running_pop(one, two) as pop:
        events: list[StreamEvent] = []
        pop.uplinks.placing.telling.emit = events.append
        placement = await packaged(pop, one, server)
        stream = placement.stream
        server.stop_stream(stream.stream_id, "drain", "the origin is stopping")
        await until(lambda: two.opened)
        rehomed = StreamRehomed(
            channel="alice",
            publication="1",
            origin_before="one",
            origin_after="two",
            why="drain: the origin is stopping",
            home_epoch=2,
        )
        assert events == [rehomed]
        (opened,) = two.opened
        assert (opened.packaged_seq, opened.splice) == (5, b"as of unit 5")
        assert opened.stream_id == stream.stream_id == StreamId("alice", 1, 2)
        await until(lambda: len(two.units("alice")) == 4)
        assert pop.given_up == []
        assert (pop.view.by_name["one"].used, pop.view.by_name["two"].used) == (0, 1)


async def test_a_successor_that_is_full_sends_the_stream_on_to_the_next() -> None:
    one, two, three = Origin("one"), Origin("two"), Origin("three")
    three.refusal = PublishRefusedError("full", "no slot is free")  # The next by its name.
    async with (
        one.serving() as server, two.serving(), three.serving(),
        running_pop(one, two, three) as pop,
    ):  # fmt: skip
        placement = await packaged(pop, one, server)
        server.stop_stream(placement.stream.stream_id, "drain", "the origin is stopping")
        await until(lambda: two.opened)
        assert not three.opened
        assert (two.opened[0].packaged_seq, two.opened[0].splice) == (5, b"as of unit 5")
        assert placement.stream.stream_id.home_epoch == 3
        await until(lambda: len(two.units("alice")) == 4)
        assert pop.given_up == []


async def test_a_stream_waits_until_a_successor_that_is_full_has_room() -> None:
    one, two = Origin("one"), Origin("two")
    two.refusal = PublishRefusedError("full", "no slot is free")
    async with one.serving() as server, two.serving(), running_pop(one, two) as pop:
        placement = await packaged(pop, one, server)
        one.refusal = two.refusal  # Nor does it go back.
        server.stop_stream(placement.stream.stream_id, "drain", "the origin is stopping")
        await until(lambda: any(each.held_at for each in pop.uplinks.placements.values()))
        assert pop.given_up == []
        two.refusal = None
        await until(lambda: two.opened)  # After its hold, and perhaps another refusal of one's.
        assert two.opened[0].splice == b"as of unit 5"
        await until(lambda: len(two.units("alice")) == 4)
        assert pop.given_up == []


async def test_when_no_other_origin_takes_it_nothing_is_moved(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = Origin("one")
    async with one.serving() as server, running_pop(one) as pop:
        placement = await packaged(pop, one, server)
        events: list[StreamEvent] = []
        pop.uplinks.placing.telling.emit = events.append
        assert not pop.uplinks.placing._go_on_elsewhere(placement, "test")
        assert events == []
        assert pop.uplinks.placements["alice"] is placement
        assert placement.stream.stream_id.home_epoch == 1


async def held(pop: Pop, origin: Origin, server: BackboneServer) -> Placement:
    """A stream that its only origin has let go of."""
    placement = await packaged(pop, origin, server)
    server.stop_stream(placement.stream.stream_id, "drain", "the origin is stopping")
    await until(lambda: placement.held_at is not None)
    assert placement.forwarding.state == "waiting"
    assert (placement.forwarding.packaged_seq, placement.forwarding.splice) == (
        5,
        b"as of unit 5",
    )
    return placement


async def test_a_stream_waits_for_the_only_origin_that_stopped() -> None:
    """As a restart has it: what comes meanwhile stays in the ring."""
    one, serving = Origin("one"), trio.CancelScope()

    async def serve(*, task_status: trio.TaskStatus[BackboneServer]) -> None:
        with serving:
            async with one.serving() as server:
                task_status.started(server)
                await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve)
        async with running_pop(one) as pop:
            placement = await held(pop, one, server)
            append(placement.stream, 5)
            serving.cancel()
            again = Origin("one", incarnation=2)
            again.address = one.address
            async with again.serving():
                await until(lambda: again.opened)
                assert again.opened[0].splice == b"as of unit 5"
                await until(lambda: len(again.units("alice")) == 9)
                await until(lambda: placement.held_at is None)
                assert pop.given_up == []


async def test_a_held_stream_goes_to_an_origin_that_comes() -> None:
    one, two = Origin("one"), Origin("two")
    async with one.serving() as server, two.serving(), running_pop(one) as pop:
        placement = await held(pop, one, server)
        pop.push_table(one, two)
        await until(lambda: two.opened)
        assert two.opened[0].splice == b"as of unit 5"
        assert placement.stream.stream_id.home_epoch == 2
        assert pop.given_up == []
        assert pop.uplinks.placements["alice"].forwarding.origin == "two"


async def test_a_held_stream_goes_back_where_a_drain_was_undone() -> None:
    one = Origin("one")
    async with one.serving() as server, running_pop(one) as pop:
        placement = await held(pop, one, server)
        pop.view.accepted("one", "alice", PriorityClass.BASIC)  # As its next answer would say.
        await until(lambda: len(one.opened) == 2)
        assert one.opened[1].splice == b"as of unit 5"
        assert placement.held_at is None
        await until(lambda: len(one.units("alice")) == 4)
        assert pop.given_up == []


@pytest.mark.parametrize("why", ["too long", "not in the ring"])
async def test_a_held_stream_is_given_up_at_last(why: str) -> None:
    one = Origin("one")
    async with one.serving() as server, running_pop(one) as pop:
        placement = await held(pop, one, server)
        now = pop.pump.now()
        if why == "too long":
            pop.uplinks.placing.slept(5.0)  # Which counts for nobody.
            pop.uplinks.placing.tick(now + LOST_S_MAX)
            assert pop.given_up == []
            pop.uplinks.placing.tick(now + LOST_S_MAX + 5.0)
        else:
            placement.forwarding.packaged_seq = placement.stream.ring.first_seq - 2
            pop.uplinks.placing.tick(now)
        assert [error.code for error in pop.given_up] == ["drain"]
        assert pop.given_up[0].reason == CUT_OFF
        assert "origin one has let go of it (drain)" in pop.given_up[0].detail
        assert not pop.uplinks.placements
        assert pop.uplinks.statistics()[0].forwardings == 0


async def test_what_the_ring_has_let_go_of_cannot_go_on() -> None:
    one, two = Origin("one"), Origin("two")
    async with one.serving() as server, two.serving(), running_pop(one, two) as pop:
        placement = await packaged(pop, one, server)
        placement.forwarding.packaged_seq = placement.stream.ring.first_seq - 2
        assert not pop.uplinks.placing._go_on_elsewhere(placement, "test")


async def test_silence_suspects_and_lack_of_progress_convicts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An origin without heartbeats keeps what it still acknowledges; then it loses it."""
    monkeypatch.setattr(placing_module, "STALLED_S_MAX", 0.5)  # Ten acks.
    monkeypatch.setattr(uplinks_module, "TICK_S", 0.01)
    one, two = Origin("one"), Origin("two")
    async with one.serving() as server, two.serving(), running_pop(one, two) as pop:
        placement = await packaged(pop, one, server)
        state = pop.view.capacitor.state
        monkeypatch.setattr(
            pop.view.capacitor,
            "state",
            lambda name: OriginState.DOWN if name == "one" else state(name),
        )
        pop.view.by_name["one"].blocked = "silent"
        for _ in range(40):
            append(placement.stream, 1)
            await trio.sleep(0.02)
        assert pop.uplinks.placements["alice"] is placement, "its acks go on"
        pop.uplinks.placing.slept(5.0)
        monkeypatch.setattr(server, "tick", lambda _: None)
        await trio.sleep(0.1)
        assert pop.uplinks.placements["alice"] is placement, "we slept ourselves"
        await until(lambda: pop.uplinks.placements["alice"].decision.origin == "two")
        await until(lambda: two.opened)
        assert two.opened[0].stream_id.home_epoch == 2


async def test_another_refusal_is_final() -> None:
    one, two = Origin("one"), Origin("two")
    async with one.serving(), two.serving(), running_pop(one, two) as pop:
        one.refusal = PublishRefusedError("unsupported_media", "nobody can package it")
        pop.place(pop.open())
        await until(lambda: pop.given_up)
        assert [str(error) for error in pop.given_up] == [
            "unsupported_media: nobody can package it (origin one)"
        ]
        assert not two.opened
        assert pop.view.by_name["one"].held == NOT_HELD


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
        (error,) = here.given_up
        assert (error.code, error.reason) == ("fenced", TAKEN_OVER)
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
            pop.uplinks.placing.end(stream)
        assert link.forwardings == []


@pytest.mark.pure
async def test_a_forwarding_that_breaks_off_gives_the_publisher_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(uplinks_module, "TICK_S", 0.01)
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
        (error,) = pop.given_up
        assert (error.code, error.reason) == ("internal", BROKE_OFF)
        assert error.detail.startswith("origin one: internal error: ZeroDivisionError")
        assert "forwarding broke off" in [line["event"] for line in logs]
        assert not pop.uplinks.placements
        assert pop.uplinks.statistics()[0].reconnects == 0
        await until(lambda: one.hub.get("alice") is None)


async def test_a_link_that_takes_no_more_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edged.backbone.sender.FORWARDINGS_MAX", 0)
    one = Origin("one")
    async with one.serving(), running_pop(one) as pop:
        with pytest.raises(PublishRefusedError, match=r"full: .*\(0 streams go to one already\)"):
            pop.place(pop.open())
        assert pop.view.by_name["one"].used == 0


async def test_fenced_off_before_the_directory_lists_the_newer_run_it_takes_nothing_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(uplinks_module, "TICK_S", 0.01)
    one = Origin("one")
    async with one.serving(), running_pop(one) as here, running_pop(one) as there:
        monkeypatch.setattr(here.uplinks, "directory", lambda _: True)  # It lags behind.
        newer = there.open(publication=9)
        there.place(newer)
        await until(lambda: one.hub.get("alice"))
        placement = here.place(here.open(publication=5))
        await until(lambda: placement.fenced_at is not None)
        assert here.given_up == []
        monkeypatch.undo()
        monkeypatch.setattr(uplinks_module, "TICK_S", 0.01)
        entry = DirectoryEntry(stream_id=newer.stream_id)
        delta = DirectoryDelta(
            origin="one", incarnation=1, version=1, from_version=0, changed=[entry], removed=[]
        )
        here.uplinks.directory(delta)
        (error,) = here.given_up
        assert (error.code, error.reason) == ("fenced", TAKEN_OVER)
        assert newer.ended is None
        assert there.given_up == []


async def test_a_run_that_the_directory_lists_already_fences_off_for_good(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(uplinks_module, "TICK_S", 0.01)
    monkeypatch.setattr(placing_module, "LISTED_S_MAX", 0.02)
    one = Origin("one")
    async with one.serving(), running_pop(one) as here, running_pop(one) as there:
        there.place(there.open(publication=9))
        await until(lambda: here.uplinks.lookup("alice"))
        here.place(here.open(publication=5))
        await until(lambda: here.given_up)
        assert here.given_up[0].reason == TAKEN_OVER
        assert there.given_up == []


async def test_what_ends_while_it_is_fenced_off_is_not_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(uplinks_module, "TICK_S", 0.01)
    one = Origin("one")
    async with one.serving() as server, running_pop(one) as pop:
        server._inbound._fence.admit(StreamId("alice", 9))
        stream = pop.open()
        placement = pop.place(stream)
        await until(lambda: placement.fenced_at is not None)
        pop.uplinks.placing.slept(60.0)
        await trio.sleep(0.03)
        assert placement.fenced_at is not None
        assert placement.fenced_at > pop.pump.now() + 50  # Our own sleep counts for nothing.
        pop.hub.close(stream, "publisher left")
        pop.uplinks.placing.end(stream)
        assert not pop.uplinks.placements
        assert pop.given_up == []
        assert pop.view.by_name["one"].used == 0


async def test_an_origin_that_does_not_answer_gets_a_vote_and_the_stream_goes_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(uplinks_module, "TICK_S", 0.01)
    monkeypatch.setattr(placing_module, "ANSWER_S_MAX", 0.05)
    one, two = Origin("one"), Origin("two")
    async with one.serving() as server, two.serving(), running_pop(one, two) as pop:
        monkeypatch.setattr(server._inbound, "open", lambda *_: None)
        stream = pop.open()
        first = pop.place(stream)
        assert first.decision.origin == "one"
        await until(lambda: pop.uplinks.placements["alice"].decision.origin == "two")
        append(stream, 10)
        await until(lambda: len(two.units("alice")) == 10)
        assert first.forwarding.finished
        assert pop.given_up == []
        assert pop.view.by_name["one"].held[PriorityClass.PARTNER] > pop.pump.now()
        assert pop.view.take_telemetry().timeouts == {"one": 1}


async def test_without_another_origin_it_waits_for_the_answer_and_votes_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(uplinks_module, "TICK_S", 0.01)
    monkeypatch.setattr(placing_module, "ANSWER_S_MAX", 0.03)
    one = Origin("one")
    async with one.serving() as server, running_pop(one) as pop:
        monkeypatch.setattr(server._inbound, "open", lambda *_: None)
        placement = pop.place(pop.open())
        await until(lambda: pop.view._timeouts.get("one") == 2)
        assert pop.given_up == []
        assert pop.uplinks.placements["alice"] is placement
        pop.uplinks.placing.slept(60.0)  # Our own sleep is no fault of the origin's.
        await trio.sleep(0.05)
        assert pop.view._timeouts["one"] <= 3


async def test_a_group_stays_together_and_a_pair_apart_across_pops() -> None:
    one, two = Origin("one"), Origin("two")
    rules = (
        Rule(match=Match(tag="grouped"), group_by="event:"),
        Rule(match=Match(tag="paired"), anti_affinity="feed:"),
    )
    async with one.serving(), two.serving(), running_pop(one) as there:
        tags = ("event:7", "feed:x")
        first = there.open("first", tags=tags)
        there.place(first, RouteRequest(channel="first", tags=tags))
        async with running_pop(one, two) as here:
            here.push_table(one, two, rules=rules)
            await until(lambda: here.uplinks.lookup("first"))
            assert here.view.homes("event:7") == {"one": 1}
            paired = RouteRequest(channel="backup", tags=("paired", "feed:x"))
            backup = here.open("backup", tags=paired.tags)
            assert here.place(backup, paired).decision.origin == "two"
            grouped = RouteRequest(channel="alice", tags=("grouped", "event:7"))
            assert here.place(here.open(tags=grouped.tags), grouped).decision.origin == "one"
            # Ours are listed too, and counted once.
            await until(lambda: here.uplinks.lookup("alice"))
            assert here.view.homes("event:7") == {"one": 2}
            there.hub.close(first, "publisher left")
            there.uplinks.placing.end(first)
            await until(lambda: here.view.homes("event:7") == {"one": 1})


async def test_whether_there_is_a_route_can_be_asked_and_counts_nothing() -> None:
    one = Origin("one")
    async with one.serving(), running_pop(one, quota=1) as pop:
        placing = pop.uplinks.placing
        assert placing.routes.exists(RouteRequest(channel="bob"))
        pop.place(pop.open())
        assert placing.routes.exists(REQUEST)  # Its own place would be free for it.
        assert pop.view.by_name["one"].used == 1
        pop.push_table()
        assert not placing.routes.exists(RouteRequest(channel="bob"))
        assert not placing.routes.exists(REQUEST)
        told = pop.view.take_telemetry()
        assert (told.arrivals, told.unplaced) == (1, 0)


async def test_behind_a_takeover_a_stream_goes_on_elsewhere_as_before() -> None:
    """The origin's word under the new epoch goes to the new forwarding, and on to the next."""
    one, two = Origin("one"), Origin("two")
    async with one.serving() as server, two.serving(), running_pop(one, two) as pop:
        placement = await packaged(pop, one, server)
        stream, before = placement.stream, placement.forwarding
        pop.uplinks.placing.take_over(stream)
        newer = stream.stream_id
        assert takeovers(newer) == 1
        assert placement.forwarding is not before
        await until(lambda: placement.accepted)
        assert before.finished
        append(stream, 10)
        await until(lambda: len(one.units("alice")) == 20)
        server.packaged(newer, 15, [], b"as of unit 15")
        await until(lambda: placement.forwarding.packaged_seq == 15)
        server.stop_stream(newer, "drain", "the origin is stopping")
        await until(lambda: two.opened)
        (opened,) = two.opened
        assert (opened.packaged_seq, opened.splice) == (15, b"as of unit 15")
        assert opened.stream_id == StreamId("alice", 1, newer.home_epoch + 1)
        assert not opened.takes_over
        assert pop.given_up == []
        assert not pop.uplinks.placing.runs.is_elsewhere(newer)


async def test_a_takeover_that_cannot_be_told_leaves_the_stream_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = Origin("one")
    async with one.serving() as server, running_pop(one) as pop:
        placement = await packaged(pop, one, server)
        stream, before = placement.stream, placement.forwarding
        monkeypatch.setattr(sender_module, "FORWARDINGS_MAX", 1)
        pop.uplinks.placing.take_over(stream)
        assert stream.stream_id == StreamId("alice", 1)
        assert placement.forwarding is before
        append(stream, 10)
        await until(lambda: len(one.units("alice")) == 20)


async def test_a_waiting_stream_goes_on_elsewhere_when_its_origin_dies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(placing_module, "STALLED_S_MAX", 0.3)
    monkeypatch.setattr(uplinks_module, "TICK_S", 0.01)
    one, two = Origin("one"), Origin("two")
    async with one.serving() as server, two.serving(), running_pop(one, two) as pop:
        placement = await packaged(pop, one, server)
        await until(lambda: placement.forwarding.received_seq == 9)
        placement.stream.waiting_since = pop.pump.now()
        await trio.sleep(0.4)  # Its last progress is long ago.
        state = pop.view.capacitor.state
        monkeypatch.setattr(
            pop.view.capacitor,
            "state",
            lambda name: OriginState.DOWN if name == "one" else state(name),
        )
        pop.view.by_name["one"].blocked = "silent"
        await trio.sleep(0.15)
        assert pop.uplinks.placements["alice"] is placement, "a pause moves nothing"
        await until(lambda: two.opened)
        assert two.opened[0].waiting, "it waits there too"


async def test_a_run_is_not_joined_at_an_origin_to_which_there_is_no_way() -> None:
    one = Origin("one")
    async with one.serving(), running_pop(one) as pop:
        placing = pop.uplinks.placing
        assert placing.routes.can_join(REQUEST, "one")
        assert not placing.routes.can_join(REQUEST, "gone")
        with pytest.raises(PublishRefusedError, match="origin gone has the run, and nothing may"):
            placing.place(pop.open(), REQUEST, pop.given_up.append, joins="gone")


async def test_a_run_that_was_to_be_joined_begins_anew_when_its_origin_is_cut_off() -> None:
    one, two = Origin("one"), Origin("two")
    async with one.serving() as server, two.serving(), running_pop(one, two) as pop:
        server._inbound.handle = lambda *_: True  # type: ignore[method-assign] # No answer.
        stream = pop.open()
        stream.stream_id = StreamId("alice", 1, 1 << 20)
        stream.ring.note_loss(2**32)
        pop.uplinks.placing.place(stream, REQUEST, pop.given_up.append, joins="one")
        append(stream, 5)
        pop.view.by_name["one"].blocked = "cut off"
        pop.uplinks.placing.cut_off("one", "lost for 10 s")
        await until(lambda: len(two.units("alice")) == 5)
        assert stream.stream_id.publication > 1
        assert pop.given_up == []
