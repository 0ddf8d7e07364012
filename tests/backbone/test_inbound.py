import contextlib
from collections.abc import AsyncIterator

import pytest
import trio

from edged.backbone.directory import DirectoryRecord
from edged.backbone.fence import Fence
from edged.backbone.inbound import (
    ORPHAN_S_MAX,
)
from edged.backbone.session import BackboneSession
from edged.errors import PublishRefusedError
from edged.media.parts import PackagedEvent, StreamEnded
from edged.media.stream import Grant, PriorityClass, StreamId
from edged.media.track import formats_of
from edged.runtime.hub import TRACKS_MAX, LiveStream
from edged.wire.backbone.messages import (
    RenditionAck,
    StreamAccepted,
    StreamOpened,
    StreamRefused,
    make_message_frame,
)
from tests.backbone.network import Origin, Pop, append, raw_pop, until
from tests.wire.backbone.builders import make_track, make_unit

pytestmark = pytest.mark.e2e


def basic(session_of: dict[PriorityClass | None, BackboneSession]) -> BackboneSession:
    return session_of[PriorityClass.BASIC]


def offer(stream_no: int) -> StreamOpened:
    return StreamOpened(
        stream_no=stream_no,
        stream_id=StreamId("alice", 7),
        grant=Grant(channel="alice"),
        tracks=[make_track()],
        first_seq=0,
    )


async def test_a_stream_that_nobody_resumes_ends() -> None:
    origin, pop = Origin(), Pop()
    async with origin.serving() as server:
        async with pop.linked(origin) as link:
            stream = pop.publish()
            append(stream, 5)
            forwarding = link.forward(stream)
            await until(lambda: forwarding.received_seq == 4)
        await until(lambda: server.statistics().inbound.orphans == 1)
        (inbound,) = server.streams
        for late, kept in ((ORPHAN_S_MAX - 0.01, 1), (ORPHAN_S_MAX, 0)):
            server._inbound.expire(inbound.orphaned_at + late)
            assert server.statistics().inbound.streams == kept
        assert origin.closed == [(inbound.stream, "pop/fra1 is lost")]
        assert origin.hub.get("alice") is None


async def test_a_lagging_pop_leaves_a_gap_that_readers_hear_of() -> None:
    origin, pop = Origin(), Pop()
    async with origin.serving() as server, pop.linked(origin) as link:
        stream = pop.publish()
        append(stream, 5)
        forwarding = link.forward(stream)
        await until(lambda: forwarding.received_seq == 4)
        basic(link._sessions).connection.abort("cut by the test")
        await until(lambda: pop.lost)
        append(stream, 100, payload=bytes(700_000))  # More than the ring holds.
        first = stream.ring.first_seq
        assert first > 5
        await until(lambda: forwarding.received_seq == 104)
        copy = origin.hub.get("alice")
        assert copy is not None
        cursor = copy.ring.reader(start=copy.ring.first_seq)
        unit = cursor.read(1, 1).units[0]
        while unit.seq < first:
            unit = cursor.read(1, 1).units[0]
        assert unit.seq == first
        assert unit.discontinuity
        assert forwarding.units_skipped == server.statistics().inbound.units_lost == first - 5


async def test_gaps_inside_of_one_batch_and_units_that_came_before() -> None:
    origin, pop = Origin(), Pop()
    async with origin.serving() as server, pop.linked(origin) as link:
        forwarding = link.forward(pop.publish())
        await forwarding.wait_decided()
        (inbound,) = server.streams
        assert inbound.session is not None
        take = server._inbound.units_received
        stream, session, stream_no = inbound.stream, inbound.session, inbound.stream_no
        take(session, stream_no, [make_unit(seq) for seq in (3, 4, 6, 9)])
        take(session, stream_no, [make_unit(seq) for seq in (9, 10)])
        take(session, stream_no, [make_unit(10)])
        take(session, 99, [make_unit(11)])
        assert stream.ring.next_seq == 11
        assert inbound.units_lost == 3
        assert inbound.received_seq == 10


async def test_a_stream_ended_by_the_origin_is_refused_from_then_on() -> None:
    origin, pop = Origin(), Pop()
    async with origin.serving() as server, pop.linked(origin) as link:
        stream = pop.publish()
        first = link.forward(stream)
        await first.wait_decided()
        append(stream, 5)
        await until(lambda: first.received_seq == 4)
        copy = origin.hub.get("alice")
        assert copy is not None
        copy.end("by the operator")
        append(stream, 5)
        await until(lambda: pop.refusals)
        assert pop.refusals == [(first, "stopped", "by the operator")]
        second = link.forward(pop.publish("bob"))
        await second.wait_decided()
        server.stop_stream(second.stream_id, "drain", "the origin is draining")
        server.stop_stream(second.stream_id, "drain", "twice")
        await until(lambda: len(pop.refusals) == 2)
        assert pop.refusals[1] == (second, "drain", "the origin is draining")
        third = link.forward(pop.publish("carl"))
        await third.wait_decided()
        idle = origin.hub.get("carl")
        assert idle is not None
        idle.end("by the operator")
        await until(lambda: len(pop.refusals) == 3)
        assert not server.streams


async def test_tracks_beyond_what_the_hub_takes_are_refused() -> None:
    origin, pop = Origin(), Pop()
    async with origin.serving(), pop.linked(origin) as link:
        stream = pop.publish()
        for track_id in range(1, TRACKS_MAX + 1):
            stream.set_track(make_track(track_id))
        forwarding = link.forward(stream)
        await forwarding.wait_decided()
        stream.tracks[99] = make_track(99)
        stream.track_statistics[99] = stream.track_statistics[1]
        stream.append([make_unit(0, track_id=99)])
        await until(lambda: pop.refusals)
        assert pop.refusals[0][1] == "unsupported_media"
        again = link.forward(stream)
        admitted = list(origin.admitted)
        with pytest.raises(PublishRefusedError, match="more than 16 tracks"):
            await again.wait_decided()
        assert origin.admitted == admitted, "what is not opened must hold no slot"


async def test_a_newcomer_that_is_not_admitted_leaves_the_older_run_alone() -> None:
    origin, old, new = Origin(), Pop("fra1"), Pop("lon1")
    async with (
        origin.serving() as server,
        old.linked(origin) as first,
        new.linked(origin) as second,
    ):
        stream = old.publish()
        forwarding = first.forward(stream)
        append(stream, 5)
        await until(lambda: forwarding.received_seq == 4)
        origin.refusal = PublishRefusedError("full", "no slot is free")
        with pytest.raises(PublishRefusedError, match="no slot is free"):
            await second.forward(new.publish(publication=8)).wait_decided()
        origin.refusal = None
        crowded = new.publish(publication=9)
        for track_id in range(1, TRACKS_MAX + 2):
            crowded.tracks[track_id] = make_track(track_id)
        with pytest.raises(PublishRefusedError, match="more than 16 tracks"):
            await second.forward(crowded).wait_decided()
        append(stream, 5)
        await until(lambda: forwarding.received_seq == 9)
        assert origin.admitted == [stream.stream_id]
        assert not origin.closed
        assert not old.refusals
        basic(first._sessions).connection.abort("cut by the test")
        append(stream, 5)
        await until(lambda: forwarding.received_seq == 14)  # Nor is it fenced when it comes again.
        taken = new.publish(publication=10)
        await second.forward(taken).wait_decided()
        await until(lambda: old.refusals)
        assert old.refusals[0][1] == "fenced"
        assert [inbound.stream_id for inbound in server.streams] == [taken.stream_id]


async def test_a_channel_published_in_this_very_process_is_not_taken_by_an_older_run() -> None:
    origin, pop = Origin(), Pop()
    async with origin.serving() as server, pop.linked(origin) as link:
        mine = origin.hub.open(
            StreamId("alice", 8), Grant(channel="alice"), started_at=0.0, came_from="test"
        )
        for publication in (7, 8):  # An older run, and what is as new.
            forwarding = link.forward(pop.publish(publication=publication))
            with pytest.raises(PublishRefusedError, match=r"is not newer than .* is live here"):
                await forwarding.wait_decided()
            assert forwarding.fenced_by == mine.stream_id
        assert server.statistics().inbound.fenced == 2
        assert origin.admitted == []
        assert mine.ended is None
        await link.forward(pop.publish(publication=9)).wait_decided()
        assert mine.ended is not None


async def test_a_live_run_is_not_taken_by_an_older_one_though_the_fence_forgot_it() -> None:
    origin, old, new = Origin(), Pop("fra1"), Pop("lon1")
    async with (
        origin.serving() as server,
        old.linked(origin) as first,
        new.linked(origin) as second,
    ):
        newer = new.publish(publication=8)
        await second.forward(newer).wait_decided()
        server._inbound._fence = Fence()
        forwarding = first.forward(old.publish(publication=7))
        with pytest.raises(PublishRefusedError, match="which is live here"):
            await forwarding.wait_decided()
        assert [inbound.stream_id for inbound in server.streams] == [newer.stream_id]


async def test_a_run_offered_again_after_the_operator_ended_it_is_not_called_fenced() -> None:
    origin = Origin()
    async with (
        origin.serving() as server,
        raw_pop(origin.address) as raw,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(raw.run)
        for stream_no in (1, 2):
            raw.link.sender.reserve()
            raw.link.send(offer(stream_no))
            await until(lambda no=stream_no: StreamAccepted(no, -1) in raw.messages)  # type: ignore[misc]
            if stream_no == 1:
                server.streams[0].stream.end("by the operator")
        await until(lambda: StreamRefused(1, "stopped", "by the operator") in raw.messages)
        nursery.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def subscribed() -> AsyncIterator[tuple[Pop, Origin, Pop, LiveStream, LiveStream]]:
    """A PoP whose units another PoP subscribes to: publisher, origin, reader; stream and copy."""
    origin, publisher, reader = Origin(), Pop("fra1"), Pop("lon1")
    async with origin.serving(), publisher.linked(origin) as up, reader.linked(origin) as down:
        stream = publisher.publish()
        append(stream, 15)
        forwarding = up.forward(stream)
        await until(lambda: forwarding.received_seq == 14)
        down.subscribe_units("alice", lambda _: None)
        await until(lambda: (copy := reader.hub.get("alice")) and copy.ring.next_seq == 15)
        copy = reader.hub.get("alice")
        assert copy is not None
        yield publisher, origin, reader, stream, copy


async def test_units_of_a_run_that_is_fenced_meanwhile_are_not_taken() -> None:
    async with subscribed() as (_, _, reader, stream, copy):
        assert reader.fence.admit(stream.stream_id)  # Heard of again: nothing new.
        append(stream, 1)
        await until(lambda: copy.ring.next_seq == 16)
        reader.fence.admit(StreamId("alice", 7, 2))  # Another origin has the next home epoch.
        append(stream, 5)
        await until(lambda: copy.ended)
        assert copy.ended == (
            "fenced: publication 7 epoch 1 of 'alice' is not newer than publication 7 epoch 2, "
            "which has ended here or goes elsewhere"
        )
        assert copy.ring.next_seq == 16
        assert reader.hub.get("alice") is None


async def test_a_run_that_was_fenced_while_its_session_was_lost_is_not_resumed() -> None:
    async with subscribed() as (_, origin, reader, stream, copy):
        assert reader.link is not None
        basic(reader.link._sessions).connection.abort("cut by the test")
        await until(lambda: reader.lost)
        reader.fence.admit(StreamId("alice", 7, 2))
        append(stream, 5)
        await until(lambda: (copy.ended or "").startswith("fenced: "))
        assert copy.ring.next_seq == 15
        assert origin.server is not None
        subscriptions = origin.server.statistics().subscriptions
        assert (subscriptions.units, subscriptions.refused) == (1, 0)


@pytest.mark.parametrize(
    ("stream_id", "channel"),
    [(StreamId("", 1), ""), (StreamId("x" * 257, 1), "x" * 257), (StreamId("a", 1), "b")],
)
async def test_names_that_cannot_be_are_refused(stream_id: StreamId, channel: str) -> None:
    origin, pop = Origin(), Pop()
    async with origin.serving() as server, pop.linked(origin) as link:
        session = basic(link._sessions)
        session.send_encoded(
            make_message_frame(
                StreamOpened(
                    stream_no=session.link.sender.reserve(),
                    stream_id=stream_id,
                    grant=Grant(channel=channel),
                    tracks=[],
                    first_seq=0,
                )
            )
        )
        await until(lambda: session.link.statistics(0).messages_received)
        assert not server.streams


async def test_acks_go_when_something_moved_and_not_else() -> None:
    origin, pop = Origin(), Pop()
    async with origin.serving() as server, pop.linked(origin) as link:
        stream = pop.publish()
        forwarding = link.forward(stream)
        await forwarding.wait_decided()
        append(stream, 300)
        await until(lambda: forwarding.received_seq == 299)
        server.tick(0.0)
        count = basic(link._sessions).link.statistics(0).messages_received
        (inbound,) = server.streams
        server._inbound._dirty[inbound] = None
        server.tick(0.0)
        await until(lambda: len(pop.reports) > 3)
        assert basic(link._sessions).link.statistics(0).messages_received == count <= 8
        server.packaged(stream.stream_id, -1, [RenditionAck("v0", 0, 0, 0, 0, "")])
        server.packaged(StreamId("nobody", 1), 5, [])
        server.want_key_frame(StreamId("nobody", 1), 1)
        await until(lambda: forwarding.renditions)
        assert forwarding.packaged_seq == -1


async def test_a_splice_reaches_the_next_origin_and_says_from_where() -> None:
    first, second, pop = Origin("one"), Origin("two"), Pop()
    async with first.serving() as server, second.serving():
        async with pop.linked(first) as link:
            stream = pop.publish()
            forwarding = link.forward(stream)
            await forwarding.wait_decided()
            append(stream, 20)
            await until(lambda: forwarding.received_seq == 19)
            server.packaged(stream.stream_id, 7, [], b"as of unit 7")
            await until(lambda: forwarding.splice)
            assert (forwarding.packaged_seq, forwarding.splice) == (7, b"as of unit 7")
            server.packaged(stream.stream_id, 7, [RenditionAck("v0", 0, 0, 0, 0, "")])
            await until(lambda: forwarding.renditions)
            assert forwarding.splice == b"as of unit 7", "an ack without one says: as before"
        async with pop.linked(second) as link:
            again = link.forward(stream, StreamId("alice", 1, 2), after=forwarding)
            await again.wait_decided()
            assert second.opened[0].splice == b"as of unit 7"
            await until(lambda: again.received_seq == 19)
            assert [unit.seq for unit in second.units("alice")] == list(range(8, 20))
            assert second.server is not None
            (inbound,) = second.server.streams
            assert (inbound.packaged_seq, inbound.splice) == (7, b"as of unit 7")


async def test_the_newest_session_of_a_stream_is_right() -> None:
    origin = Origin()
    async with (
        origin.serving() as server,
        raw_pop(origin.address) as first,
        raw_pop(origin.address) as second,
        trio.open_nursery() as nursery,
    ):
        for raw in (first, second):
            nursery.start_soon(raw.lost_reason)
            raw.link.sender.reserve()
            raw.link.send(offer(1))
            await until(lambda raw=raw: StreamAccepted(1, -1) in raw.messages)  # type: ignore[misc]
        await until(lambda: StreamRefused(1, "moved", "resumed elsewhere") in first.messages)
        assert server.statistics().inbound.resumed == 1
        assert len(origin.opened) == 1
        nursery.cancel_scope.cancel()


def joined(pop: Pop, run: StreamId) -> LiveStream:
    """A run that this PoP goes on with from another; its units begin far above."""
    stream = pop.publish(run.channel, run.publication, run.home_epoch)
    stream.ring.note_loss(2**32)
    return stream


async def test_another_pop_goes_on_with_a_run_and_all_who_read_it_stay() -> None:
    origin, west, east, reader = Origin(), Pop("west"), Pop("east"), Pop("reader")
    async with (
        origin.serving() as server,
        west.linked(origin) as from_west,
        east.linked(origin) as from_east,
        reader.linked(origin) as down,
    ):
        stream = west.publish()
        append(stream, 15)
        before = from_west.forward(stream)
        await until(lambda: before.received_seq == 14)
        copy = origin.hub.get("alice")
        assert copy is not None
        got: list[PackagedEvent] = []
        origin.windows["alice"] = (stream.stream_id, [])
        down.subscribe_parts("alice", lambda _, event: got.append(event))
        await until(lambda: server.statistics().subscriptions.parts)
        server.publish_event(copy.stream_id, StreamEnded(reason="only a mark: one"))
        newer = StreamId("alice", 7, 1 << 20)
        after = from_east.forward(joined(east, newer), takes_over=True)
        await after.wait_decided()
        append(after.stream, 10)
        await until(lambda: after.received_seq == 2**32 + 9)
        assert west.refusals == [
            (before, "fenced", "publication 7 epoch 1 of 'alice' is not newer than publication 7"
             " epoch 1048576, which is live here")
        ]  # fmt: skip
        assert before.fenced_by == newer
        assert origin.hub.get("alice") is copy
        assert (copy.stream_id, copy.ended, copy.came_from) == (newer, None, "backbone pop/east")
        assert [unit.seq for unit in origin.units("alice")][-10:] == list(range(2**32, 2**32 + 10))
        assert len(origin.opened) == 1, "nothing begins"
        assert origin.admitted == [stream.stream_id, newer]
        inbound = server.statistics().inbound
        assert (inbound.streams, inbound.taken_over, inbound.units_lost) == (1, 1, 0)
        append(stream, 5)  # What the older one still sends is not taken.
        server.packaged(newer, 2**32 + 4, [RenditionAck("v0", 0, 0, 0, 0, "")], b"as of then")
        await until(lambda: after.splice)
        assert after.packaged_seq == 2**32 + 4
        record = await listed(reader, newer, packaged=True)
        assert (record.entry.pop, record.entry.renditions) == ("east", 1)
        assert record.entry.formats == formats_of([make_track()])
        assert copy.ring.next_seq == 2**32 + 10


async def listed(pop: Pop, run: StreamId, *, packaged: bool = False) -> DirectoryRecord:
    """Wait until a PoP's directory has a run; `packaged`: and what is packaged of it."""

    def seen() -> DirectoryRecord | None:
        record = pop.known.lookup(run.channel)
        if record is None or record.entry.stream_id != run:
            return None
        return record if record.entry.renditions or not packaged else None

    await until(seen)
    record = seen()
    assert record is not None
    return record


async def test_the_same_pop_goes_on_where_the_last_unit_came() -> None:
    """For another publisher of the run: units on the way under the old epoch come again."""
    origin, pop = Origin(), Pop()
    async with origin.serving() as server, pop.linked(origin) as link:
        stream = pop.publish()
        append(stream, 15)
        before = link.forward(stream)
        await until(lambda: before.received_seq == 14)
        server.packaged(stream.stream_id, 9, [], b"as of unit 9")
        await until(lambda: before.splice)
        append(stream, 5)
        stream.stream_id = StreamId("alice", 7, 1 << 20)
        after = link.forward(stream, after=before, takes_over=True)
        link.stop_forwarding(before, "taken over")
        append(stream, 5)
        await until(lambda: after.received_seq == 24)
        assert [unit.seq for unit in origin.units("alice")] == list(range(25))
        assert pop.refusals == [], "it knows itself"
        assert len(origin.opened) == 1
        assert (after.packaged_seq, after.splice) == (9, b"as of unit 9")


async def test_a_run_that_is_not_here_cannot_be_gone_on_with() -> None:
    """One without a splice would begin anew under names that mean something else."""
    origin, pop = Origin(), Pop()
    async with origin.serving(), pop.linked(origin) as link:
        run = StreamId("alice", 7, 1 << 20)
        forwarding = link.forward(joined(pop, run), takes_over=True)
        await until(lambda: pop.refusals)
        assert pop.refusals == [
            (forwarding, "lost_state", "the run that it was to go on with is not here")
        ]
        assert origin.hub.get("alice") is None
        # With one it goes on, as from an origin that is lost.
        forwarding.splice, forwarding.packaged_seq = b"as of unit 5", 5
        spliced = link.forward(pop.publish(publication=8), takes_over=True, after=forwarding)
        await spliced.wait_decided()
        assert origin.opened[-1].splice == b"as of unit 5"


async def test_of_two_pops_at_once_one_goes_on_and_the_other_is_told() -> None:
    origin, west, north, east = Origin(), Pop("west"), Pop("north"), Pop("east")
    async with (
        origin.serving(),
        west.linked(origin) as from_west,
        north.linked(origin) as from_north,
        east.linked(origin) as from_east,
    ):
        before = from_west.forward(west.publish())
        await before.wait_decided()
        newer, newest = (
            StreamId("alice", 7, 1 << 20 | 1 << 8),
            StreamId("alice", 7, 1 << 20 | 2 << 8),
        )
        first = from_north.forward(joined(north, newer), takes_over=True)
        await first.wait_decided()
        same = from_east.forward(joined(east, newer), takes_over=True)
        await until(lambda: same.refusal)  # By chance with the same number.
        assert same.fenced_by == newer
        east.hub.close(same.stream, "refused")
        second = from_east.forward(joined(east, newest), takes_over=True)
        await second.wait_decided()
        await until(lambda: first.refusal)
        assert first.fenced_by == newest
        copy = origin.hub.get("alice")
        assert copy is not None
        assert copy.stream_id == newest


async def test_the_directory_says_which_runs_wait_for_their_publishers() -> None:
    origin, pop, other = Origin(), Pop(), Pop("other")
    async with origin.serving(), pop.linked(origin) as link, other.linked(origin):
        stream = pop.publish()
        forwarding = link.forward(stream)
        await forwarding.wait_decided()

        def waits() -> bool:
            record = other.known.lookup("alice")
            return record is not None and record.entry.waiting

        stream.waiting_since = 5.0
        forwarding.tell_waiting()
        await until(waits)
        basic(link._sessions).connection.abort("cut by the test")
        await until(lambda: pop.lost)
        await until(lambda: forwarding.state == "open")
        await trio.sleep(0.2)
        assert waits(), "it says so again when it is back"
        stream.waiting_since = None
        forwarding.tell_waiting()
        await until(lambda: not waits())
        copy = origin.hub.get("alice")
        assert copy is not None
        assert copy.waiting_since is None


async def test_what_a_lost_pop_sent_waits_too() -> None:
    origin, pop, other = Origin(), Pop(), Pop("other")
    async with origin.serving(), other.linked(origin):
        async with pop.linked(origin) as link:
            await link.forward(pop.publish()).wait_decided()
            record = await listed(other, StreamId("alice", 7, 1))
            assert not record.entry.waiting
        await until(lambda: (found := other.known.lookup("alice")) and found.entry.waiting)


async def test_tracks_of_both_publishers_together_are_bounded() -> None:
    origin, west, east = Origin(), Pop("west"), Pop("east")
    async with (
        origin.serving() as server,
        west.linked(origin) as from_west,
        east.linked(origin) as from_east,
    ):
        stream = west.publish()
        await from_west.forward(stream).wait_decided()
        newer = joined(east, StreamId("alice", 7, 1 << 20))
        newer.tracks.clear()
        for track_id in range(2, TRACKS_MAX + 2):
            newer.set_track(make_track(track_id))
        forwarding = from_east.forward(newer, takes_over=True)
        await until(lambda: forwarding.refusal)
        assert forwarding.refusal is not None
        assert forwarding.refusal.code == "unsupported_media"
        (inbound,) = server.streams
        assert inbound.stream_id == stream.stream_id, "nothing has changed"
