"""A live stream moves before it has left: against real origins' listeners."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
import trio
from structlog.testing import capture_logs

from edged.backbone import sender as sender_module
from edged.backbone.receiver import BackboneServer
from edged.errors import PublishRefusedError, RouteUnavailableError
from edged.media.events import StreamEvent, StreamRehomed
from edged.media.routing import OriginState, Rule
from edged.media.stream import Description, StreamId
from edged.policy.departures import ANSWER_S_MAX
from edged.policy.handover import HANDOVER_S_MAX
from edged.policy.routing_table import NO_ROOM
from edged.roles import moves as moves_module
from edged.roles.moves import (
    LINGER_S,
    NOWHERE,
    REASONS_SHOWN,
    RING_TOO_SHORT,
    MoveDone,
    _why_nowhere,
)
from edged.roles.placement import Placement
from edged.runtime.hub import LiveStream
from edged.wire.backbone.messages import StreamOpened
from tests.backbone.network import Origin, append, until
from tests.policy.window_events import init, part, rendition
from tests.roles.setting import Pop, package, packaged, running_pop

if TYPE_CHECKING:
    from edged.backbone.forwarding import Forwarding
    from edged.roles.moves import _Move

FULL = PublishRefusedError("full", "no slot is free")


class Mover:
    """Moves alice, and notes what became of it."""

    def __init__(self, pop: Pop) -> None:
        self.pop = pop
        self.done: list[MoveDone] = []
        self.events: list[StreamEvent] = []
        pop.uplinks.placing.telling.emit = self.events.append

    def begin(self, to: str = "two", channel: str = "alice") -> str:
        return self.pop.uplinks.placing.moves.begin(channel, to, "migrate", self.done.append)

    async def finished(self) -> MoveDone:
        await until(lambda: self.done)
        (done,) = self.done
        return done


async def at_one(pop: Pop, one: Origin, server: BackboneServer) -> Placement:
    """A stream that may move."""
    placement = await packaged(pop, one, server)
    await heard(pop)
    return placement


async def heard(pop: Pop) -> None:
    """Origins' heartbeats have come: there is room at both."""
    await until(lambda: all(map(pop.view.capacitor.report, ("one", "two"))))


def forwardings(pop: Pop) -> dict[str, int]:
    return {link.origin: link.forwardings for link in pop.uplinks.statistics()}


def used(pop: Pop) -> tuple[int, int]:
    return (pop.view.by_name["one"].used, pop.view.by_name["two"].used)


async def test_it_goes_to_the_new_home_before_it_leaves_the_old_one() -> None:
    one, two = Origin("one"), Origin("two")
    async with one.serving() as server, two.serving(), running_pop(one, two) as pop:
        placement = await at_one(pop, one, server)
        mover, stream = Mover(pop), placement.stream
        assert mover.begin() == ""
        assert mover.begin() == "it is being moved already"
        assert used(pop) == (1, 1)
        done = await mover.finished()
        moved_id = StreamId("alice", 1, 2)
        assert done == MoveDone(stream_id=moved_id, from_origin="one", to_origin="two", unit_seq=6)
        (opened,) = two.opened
        assert (opened.packaged_seq, opened.splice) == (5, b"as of unit 5")
        assert opened.stream_id == stream.stream_id == moved_id
        assert pop.uplinks.placements["alice"] is placement
        assert (placement.decision.origin, placement.decision.rule) == ("two", "moved")
        assert placement.accepted
        assert mover.events == [
            StreamRehomed(
                channel="alice",
                publication="1",
                origin_before="one",
                origin_after="two",
                why="migrate",
                home_epoch=2,
            )
        ]
        append(stream, 5)  # Both get what comes.
        await until(lambda: len(two.units("alice")) == 9)
        await until(lambda: len(one.units("alice")) == 15)
        await until(lambda: pop.uplinks.lookup("alice") == moved_id)
        assert one.closed == []
        assert pop.uplinks.placing.moves.lingering == 1
        pop.uplinks.placing.moves.tick(pop.pump.now() + LINGER_S)
        await until(lambda: one.closed)
        assert one.closed[0][1] == "sent elsewhere: goes on elsewhere"
        assert forwardings(pop) == {"one": 0, "two": 1}
        assert used(pop) == (0, 1)
        assert pop.given_up == []
        assert two.closed == []


@pytest.mark.pure
async def test_while_it_moves_the_ring_keeps_what_the_new_home_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, two = Origin("one"), Origin("two")
    async with one.serving() as server, two.serving(), running_pop(one, two) as pop:
        placement = await at_one(pop, one, server)
        before, stream = placement.forwarding, placement.stream
        trimmed: list[int] = []
        monkeypatch.setattr(stream, "trim_below", trimmed.append)
        mover = Mover(pop)
        assert mover.begin() == ""
        server.packaged(stream.stream_id, 9, [], b"as of unit 9")
        await until(lambda: before.packaged_seq == 9)
        assert trimmed == []
        await mover.finished()
        assert two.server is not None
        two.server.packaged(stream.stream_id, 8, [], b"as of unit 8")
        await until(lambda: trimmed == [9])


@pytest.mark.parametrize("code", ["full", "drain"])
async def test_from_a_full_origin_s_refusal_nothing_changes(code: str) -> None:
    one, two = Origin("one"), Origin("two")
    two.refusal = PublishRefusedError(code, "no slot is free")
    async with one.serving() as server, two.serving(), running_pop(one, two) as pop:
        placement = await at_one(pop, one, server)
        before = placement.forwarding
        mover = Mover(pop)
        assert mover.begin() == ""
        done = await mover.finished()
        assert (done.refused, done.to_origin) == (f"{code}: no slot is free", "two")
        assert done.stream_id == placement.stream.stream_id == StreamId("alice", 1, 1)
        assert placement.forwarding is before
        assert before.trims
        assert mover.events == []
        assert used(pop) == (1, 0)
        assert forwardings(pop) == {"one": 1, "two": 0}
        append(placement.stream, 5)
        await until(lambda: len(one.units("alice")) == 15)
        assert before.reopened == 0
        assert pop.view.by_name["two"].held[2] > pop.pump.now()
        assert "held after a refusal" in mover.begin()


async def test_who_does_not_answer_gets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = Origin("one"), Origin("two")
    async with one.serving() as server, two.serving(), running_pop(one, two) as pop:
        placement = await at_one(pop, one, server)
        mover, moves = Mover(pop), pop.uplinks.placing.moves
        monkeypatch.setattr(moves, "accepted", lambda _: None)  # As if its word never came.
        assert mover.begin() == ""
        moves.tick(pop.pump.now() + ANSWER_S_MAX - 0.1)
        assert mover.done == []
        moves.slept(1.0)
        moves.tick(pop.pump.now() + ANSWER_S_MAX + 0.5)
        assert mover.done == []
        moves.tick(pop.pump.now() + ANSWER_S_MAX + 1.0)
        assert mover.done[0].refused == "no answer within 3 s"
        assert pop.view.by_name["two"].held[0] > pop.pump.now()
        assert placement.decision.origin == "one"
        assert forwardings(pop) == {"one": 1, "two": 0}
        await until(lambda: two.closed or not two.opened)  # What it took it is told to let go of.


async def test_a_target_whose_link_is_lost_gets_nothing() -> None:
    one, two = Origin("one"), Origin("two")
    async with one.serving() as server, two.serving(), running_pop(one, two) as pop:
        await at_one(pop, one, server)
        mover = Mover(pop)
        two.refusal = FULL
        link = pop.uplinks._links["two"].link
        assert mover.begin() == ""
        for session in list(link._sessions.values()):
            session.connection.abort("the path broke")
        await until(lambda: mover.done)
        assert mover.done[0].refused in ("link down", "full: no slot is free")
        assert used(pop) == (1, 0)
        await until(lambda: mover.begin() != "it is being moved already")


async def test_a_target_that_was_lost_as_it_accepted_takes_nothing_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It lists the run under its next epoch until it hears otherwise, and PoPs follow it there."""
    one, two = Origin("one"), Origin("two")
    async with one.serving() as server, two.serving(), running_pop(one, two) as pop:
        placement = await at_one(pop, one, server)
        package(one, "alice", [rendition(), init(), part(0, 0)])
        pop.uplinks.parts.subscribe("alice")
        await until(lambda: pop.playback.batches)
        mover, moves = Mover(pop), pop.uplinks.placing.moves
        link, opened = pop.uplinks._links["two"].link, two.stream_opened

        def lose(stream: LiveStream, message: StreamOpened) -> None:
            opened(stream, message)
            for session in list(link._sessions.values()):
                session.connection.abort("the path broke")  # What it says is lost with it.

        monkeypatch.setattr(two, "stream_opened", lose)
        assert mover.begin() == ""
        await until(lambda: mover.done or moves._moves["alice"].forwarding.state == "waiting")
        moves.tick(pop.pump.now())
        assert mover.done[0].refused == "link down"
        await pop.connected(two)  # It tells all that it has.
        await until(lambda: pop.uplinks.lookup("alice") == StreamId("alice", 1, 3))
        await until(lambda: placement.accepted)
        append(placement.stream, 5)
        await until(lambda: len(one.units("alice")) == 15)
        assert placement.decision.origin == "one"
        assert package(one, "alice", [part(0, 1)]) == StreamId("alice", 1, 3)
        await until(lambda: part(0, 1) in pop.playback.batches[-1][1])
        ids = [stream_id for stream_id, _ in pop.playback.batches]
        assert ids == sorted(ids)
        assert used(pop) == (1, 0)
        assert pop.given_up == []


@pytest.mark.parametrize("how", ["drains", "dies"])
async def test_an_old_home_that_is_lost_meanwhile_is_succeeded_by_the_new_one(how: str) -> None:
    one, two = Origin("one"), Origin("two")
    async with one.serving() as server, two.serving(), running_pop(one, two) as pop:
        placement = await at_one(pop, one, server)
        mover, placing = Mover(pop), pop.uplinks.placing
        assert mover.begin() == ""
        before = placement.forwarding
        if how == "drains":
            placing.refused(before, "drain", "the origin is stopping")
        else:
            assert placing._go_on_elsewhere(placement, "no heartbeat and no progress")
        assert mover.done[0].refused == ""
        assert placement.decision.origin == "two"
        assert not placement.accepted
        await until(lambda: placement.accepted)
        (opened,) = two.opened
        assert opened.stream_id == StreamId("alice", 1, 2)
        assert used(pop) == (0, 1)
        assert placing.moves.lingering == 0
        await until(lambda: forwardings(pop) == {"one": 0, "two": 1})
        assert len(mover.done) == 1
        assert pop.given_up == []


async def test_an_epoch_that_was_offered_is_nobody_else_s(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who was offered the run may list it under that, though it could not go on with it."""
    one, two = Origin("one"), Origin("two")
    async with one.serving() as server, two.serving(), running_pop(one, two) as pop:
        placement = await at_one(pop, one, server)
        mover, placing = Mover(pop), pop.uplinks.placing
        monkeypatch.setattr(placing.moves, "accepted", lambda _: None)  # Its word is on the way.
        assert mover.begin() == ""
        await until(lambda: two.opened)
        placing.stop_forwarding(placing.moves._moves["alice"].forwarding, "no room to send it")
        placing.refused(placement.forwarding, "drain", "the origin is stopping")
        await until(lambda: len(two.opened) == 2)
        assert [opened.stream_id.home_epoch for opened in two.opened] == [2, 3]
        assert mover.done[0].refused == "it is over, or goes elsewhere"
        assert used(pop) == (0, 1)
        assert pop.given_up == []


@pytest.mark.parametrize("how", ["ends", "is taken over here", "is another publisher's"])
async def test_a_stream_that_ends_or_changes_while_it_moves_leaves_nothing(how: str) -> None:
    one, two = Origin("one"), Origin("two")
    async with one.serving() as server, two.serving(), running_pop(one, two) as pop:
        placement = await at_one(pop, one, server)
        mover, placing, stream = Mover(pop), pop.uplinks.placing, placement.stream
        assert mover.begin() == ""
        if how == "ends":
            pop.hub.close(stream, "publisher left")
            placing.end(stream)
        elif how == "is taken over here":
            newer = pop.open(publication=2)
            pop.place(newer)
        else:
            placing.take_over(stream)
        assert mover.done[0].refused
        await until(lambda: forwardings(pop)["two"] == 0)
        expected = {"ends": (0, 0)}.get(how, (1, 0))
        assert used(pop) == expected
        await trio.sleep(0.05)
        assert len(mover.done) == 1
        assert pop.given_up == []


async def test_what_is_listed_meanwhile_is_no_takeover(monkeypatch: pytest.MonkeyPatch) -> None:
    """The new home lists the run under its next epoch, perhaps before we hear that it accepts."""
    one, two = Origin("one"), Origin("two")
    async with one.serving() as server, two.serving(), running_pop(one, two) as pop:
        placement = await at_one(pop, one, server)
        mover, placing = Mover(pop), pop.uplinks.placing
        accepted: list[Forwarding] = []
        real = placing.moves.accepted
        monkeypatch.setattr(placing.moves, "accepted", accepted.append)
        assert mover.begin() == ""
        await until(lambda: accepted and pop.uplinks.lookup("alice") == StreamId("alice", 1, 2))
        assert pop.given_up == []
        assert placement.stream.stream_id == StreamId("alice", 1, 1)
        real(accepted[0])
        assert placement.stream.stream_id == StreamId("alice", 1, 2)
        assert pop.given_up == []


async def test_what_the_ring_has_let_go_of_meanwhile_leaves_no_hole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A new home is long in answering, and the stream fills its ring: the old home has it all."""
    one, two = Origin("one"), Origin("two")
    async with one.serving() as server, two.serving(), running_pop(one, two) as pop:
        placement = await at_one(pop, one, server)
        mover, placing, stream = Mover(pop), pop.uplinks.placing, placement.stream
        accepted: list[Forwarding] = []
        real = placing.moves.accepted
        monkeypatch.setattr(placing.moves, "accepted", accepted.append)
        assert mover.begin() == ""
        await until(lambda: accepted)
        append(stream, 30, size=10**6)
        assert stream.ring.first_seq >= 10
        real(accepted[0])
        assert mover.done[0].refused == "the ring does not reach back to what is packaged"
        assert placement.decision.origin == "one"
        assert stream.stream_id == StreamId("alice", 1, 3)
        await until(lambda: placement.accepted)
        await until(lambda: forwardings(pop) == {"one": 1, "two": 0})
        assert used(pop) == (1, 0)
        assert pop.given_up == []


@pytest.mark.parametrize("missing", [0, 1])
async def test_a_ring_that_reaches_back_just_so_is_enough(
    monkeypatch: pytest.MonkeyPatch, missing: int
) -> None:
    one, two = Origin("one"), Origin("two")
    async with one.serving() as server, two.serving(), running_pop(one, two) as pop:
        placement = await at_one(pop, one, server)
        mover, moves = Mover(pop), pop.uplinks.placing.moves
        accepted: list[Forwarding] = []
        real = moves.accepted
        monkeypatch.setattr(moves, "accepted", accepted.append)
        assert mover.begin() == ""
        await until(lambda: accepted)
        append(placement.stream, 30, size=10**6)
        accepted[0].packaged_seq = placement.stream.ring.first_seq - 1 - missing
        real(accepted[0])
        assert mover.done[0].refused == (RING_TOO_SHORT if missing else "")


@pytest.mark.pure
async def test_what_cannot_be_offered_stays_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = Origin("one"), Origin("two")
    async with one.serving() as server, two.serving(), running_pop(one, two) as pop:
        placement = await at_one(pop, one, server)
        monkeypatch.setattr(sender_module, "FORWARDINGS_MAX", 0)
        mover = Mover(pop)
        assert mover.begin() == "0 streams go to two already"
        assert placement.forwarding.trims
        assert used(pop) == (1, 0)


async def test_a_new_home_hears_how_the_stream_was_described_meanwhile() -> None:
    one, two = Origin("one"), Origin("two")
    async with one.serving() as server, two.serving(), running_pop(one, two) as pop:
        placement = await at_one(pop, one, server)
        mover, stream = Mover(pop), placement.stream
        assert mover.begin() == ""
        stream.grant = stream.grant.described(Description(title="meanwhile"))
        await mover.finished()
        await until(lambda: (at := two.hub.get("alice")) and at.grant.title == "meanwhile")


async def test_of_a_stream_that_ends_the_home_that_it_left_is_gone_as_well() -> None:
    one, two = Origin("one"), Origin("two")
    async with one.serving() as server, two.serving(), running_pop(one, two) as pop:
        placement = await at_one(pop, one, server)
        mover, placing = Mover(pop), pop.uplinks.placing
        mover.begin()
        await mover.finished()
        pop.hub.close(placement.stream, "publisher left")
        placing.end(placement.stream)
        await until(lambda: len(one.closed) == len(two.closed) == 1)
        placing.moves.tick(pop.pump.now())
        assert placing.moves.lingering == 0
        assert used(pop) == (0, 0)


async def rule_forbids(pop: Pop, one: Origin, two: Origin) -> None:
    pop.push_table(one, two, rules=(Rule(name="here", pin="one"),))


async def target_is_held(pop: Pop, one: Origin, two: Origin) -> None:
    pop.view.refused("two", pop.pump.now())


async def target_is_dead(pop: Pop, one: Origin, two: Origin) -> None:
    heard = pop.view.capacitor._origins["two"]
    heard.state = OriginState.DOWN
    pop.view.refresh(pop.pump.now())


async def target_is_unknown(pop: Pop, one: Origin, two: Origin) -> None:
    pop.push_table(one)


@pytest.mark.parametrize(
    ("prepare", "why"),
    [
        (rule_forbids, "rule pins the stream to one"),
        (target_is_held, "held after a refusal"),
        (target_is_dead, "down by its heartbeats here"),
        (target_is_unknown, "not in the table"),
    ],
)
async def test_what_may_not_be_is_refused_with_the_reason(
    prepare: Callable[[Pop, Origin, Origin], object], why: str
) -> None:
    one, two = Origin("one"), Origin("two")
    async with one.serving() as server, two.serving(), running_pop(one, two) as pop:
        await at_one(pop, one, server)
        await prepare(pop, one, two)  # type: ignore[misc]
        mover = Mover(pop)
        assert mover.begin() == why
        assert mover.done == []
        assert not two.opened
        assert mover.begin(channel="bob") == "it is not published here"


async def test_a_stream_of_which_nothing_is_packaged_waits() -> None:
    one, two = Origin("one"), Origin("two")
    async with one.serving(), two.serving(), running_pop(one, two) as pop:
        stream = pop.open()
        placement = pop.place(stream)
        mover = Mover(pop)
        assert mover.begin() == "its origin has not accepted it"
        await until(lambda: placement.accepted)
        assert mover.begin() == "nothing of it is packaged yet"
        placement.held_at = 1.0
        assert mover.begin() == "its origin has not accepted it"
        placement.held_at = None
        placement.forwarding.splice, placement.forwarding.packaged_seq = b"x", -5
        assert "the ring does not reach back" in mover.begin()
        stream.end("over")
        assert mover.begin() == "it has ended"


async def test_of_those_that_linger_the_oldest_are_let_go_of_at_the_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(moves_module, "LINGERING_MAX", 1)
    one, two = Origin("one"), Origin("two")
    async with one.serving() as server, two.serving(), running_pop(one, two) as pop:
        mover = Mover(pop)
        for count, channel in enumerate(("alice", "bob"), 1):
            await packaged(pop, one, server, channel)
            await heard(pop)
            assert mover.begin(channel=channel) == ""
            await until(lambda count=count: len(mover.done) == count)  # type: ignore[misc]
        assert pop.uplinks.placing.moves.lingering == 1
        await until(lambda: [stream.channel for stream, _ in one.closed] == ["alice"])


async def test_a_bug_in_one_move_keeps_no_other_from_being_judged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, two = Origin("one"), Origin("two")
    async with one.serving() as server, two.serving(), running_pop(one, two) as pop:
        await at_one(pop, one, server)
        await packaged(pop, one, server, "bob")
        mover, placing = Mover(pop), pop.uplinks.placing
        monkeypatch.setattr(placing.moves, "accepted", lambda _: None)
        assert mover.begin() == mover.begin(channel="bob") == ""
        give_up = placing.moves._give_up

        def broken(move: "_Move", why: str) -> None:
            if move.placement.stream.channel == "alice":
                raise KeyError("bug")
            give_up(move, why)

        monkeypatch.setattr(placing.moves, "_give_up", broken)
        with capture_logs() as logs:
            placing.moves.tick(pop.pump.now() + ANSWER_S_MAX)
        assert [done.stream_id.channel for done in mover.done] == ["bob"]
        (line,) = [line for line in logs if line["log_level"] == "error"]
        assert (line["event"], line["channel"]) == ("move not judged", "alice")


async def test_a_home_that_lingers_and_refuses_is_gone() -> None:
    one, two = Origin("one"), Origin("two")
    async with one.serving() as server, two.serving(), running_pop(one, two) as pop:
        await at_one(pop, one, server)
        mover = Mover(pop)
        mover.begin()
        await mover.finished()
        server.stop_stream(StreamId("alice", 1, 1), "drain", "the origin is stopping")
        await until(lambda: pop.uplinks.placing.moves.lingering == 0)
        assert used(pop) == (0, 1)
        assert pop.uplinks.placements["alice"].decision.origin == "two"


async def test_a_new_home_that_is_lost_after_it_accepted_is_succeeded_by_the_old_one() -> None:
    one, two = Origin("one"), Origin("two")
    async with one.serving() as server, two.serving() as second, running_pop(one, two) as pop:
        placement = await at_one(pop, one, server)
        mover = Mover(pop)
        mover.begin()
        await mover.finished()
        second.stop_stream(placement.stream.stream_id, "drain", "the origin is stopping")
        await until(lambda: len(one.opened) == 2)
        assert one.opened[1].stream_id == StreamId("alice", 1, 3)
        assert pop.given_up == []
        await until(lambda: len(one.units("alice")) == 4)
        await until(lambda: used(pop) == (1, 0))


def test_a_home_lingers_as_long_as_a_handover_may_last() -> None:
    assert LINGER_S > HANDOVER_S_MAX


def test_why_it_goes_nowhere_is_said_in_words_that_can_be_counted() -> None:
    rejected = {"o1": "it is there", "o2": NO_ROOM, "o3": NO_ROOM, "o4": "held after a refusal"}
    alice, bob = (RouteUnavailableError(name, 7, rejected) for name in ("alice", "bob"))
    told = _why_nowhere(alice, "o1")
    assert told == f"{NOWHERE}: held after a refusal; {NO_ROOM}" == _why_nowhere(bob, "o1")
    assert _why_nowhere(RouteUnavailableError("alice", 7, {"o1": "it is there"}), "o1") == NOWHERE


@pytest.mark.parametrize("count", [REASONS_SHOWN, REASONS_SHOWN + 1])
def test_of_many_reasons_the_first_are_said(count: int) -> None:
    reasons = [f"reason {number}" for number in range(count)]
    rejected = {f"o{number}": reason for number, reason in enumerate(reasons)}
    told = _why_nowhere(RouteUnavailableError("alice", 7, rejected), "elsewhere")
    assert told == f"{NOWHERE}: {'; '.join(reasons[:3])}"
