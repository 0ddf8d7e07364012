"""The PoP's door and runs that outlive their publishers: returns and takeovers, here and there."""

import contextlib
from collections.abc import AsyncIterator

import msgspec
import pytest
import trio
from structlog.testing import capture_logs

from edged.errors import PublishRefusedError
from edged.ingest.plugin import Publication, PublishRequest
from edged.media.access_unit import AccessUnit
from edged.media.events import StreamEvent, StreamTakenOver
from edged.media.stream import StreamId
from edged.media.track import Codec
from edged.policy.departures import ANSWER_S_MAX
from edged.policy.grace import PUT_OFF_S
from edged.policy.stream_keys import StaticKey, StreamKeys
from edged.policy.takeover import TAKEN_OVER, takeovers, units_from
from edged.roles import placing, uplinks
from edged.roles.door import PopDoor
from tests.backbone.network import Origin, until
from tests.roles.setting import Pop, running_pop
from tests.roles.test_door import Control
from tests.wire.backbone.builders import make_track, make_unit

GRACE_S = 10.0
KEYS = StreamKeys(
    [
        StaticKey(channel="alice", key="key-of-alice", title="Alice"),
        StaticKey(channel="alice", key="key-of-partner", priority="partner"),
        StaticKey(channel="alice", key="key-of-ultra", title="Alice", latency="ultra"),
    ]
)


class Place:
    """A PoP and its door."""

    def __init__(self, pop: Pop, grace_s: float) -> None:
        self.pop = pop
        self.door = PopDoor(pop.pump, pop.hub, KEYS, pop.uplinks, grace_s=grace_s)

    async def publish(
        self, control: Control | None = None, key: str = "key-of-alice", *, frames: int = 10
    ) -> Publication:
        """A publisher that begins with a key frame; without frames it has sent nothing yet."""
        publication = await self.door.publish(request(key), control or Control())
        if frames:
            publication.set_track(make_track())
            send(publication, frames)
        return publication

    @property
    def run(self) -> StreamId:
        stream = self.pop.hub.get("alice")
        assert stream is not None
        return stream.stream_id


def request(key: str = "key-of-alice") -> PublishRequest:
    return PublishRequest(protocol="rtmp", app="live", stream_key=key, peer="10.0.0.7:50112")


def send(publication: Publication, frames: int, first: int = 0) -> None:
    publication.append([make_unit(seq) for seq in range(first, first + frames)])


@contextlib.asynccontextmanager
async def one_pop(grace_s: float = GRACE_S) -> AsyncIterator[tuple[Origin, Place]]:
    origin = Origin("one")
    async with origin.serving(), running_pop(origin) as pop:
        place = Place(pop, grace_s)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(place.door.run)
            yield origin, place
            nursery.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def two_pops() -> AsyncIterator[tuple[Origin, Place, Place]]:
    """West has a run that is packaged at the only origin; east knows of it."""
    origin = Origin("one")
    async with origin.serving(), running_pop(origin) as west, running_pop(origin) as east:
        yield origin, Place(west, GRACE_S), Place(east, GRACE_S)


async def package(origin: Origin, *places: Place) -> None:
    """The origin says that the run is packaged, and these PoPs have heard it."""
    assert origin.server is not None
    stream = origin.hub.get("alice")
    assert stream is not None
    origin.server.packaged(stream.stream_id, -1, [])
    for place in places:
        await until(lambda place=place: listed(place, formats=True))  # type: ignore[misc]


def units_of(origin: Origin) -> list[AccessUnit]:
    """All units that it has of the run, also across the jump of their numbers at a takeover."""
    stream = origin.hub.get("alice")
    assert stream is not None
    cursor = stream.ring.reader(start=stream.ring.first_seq)
    return [*cursor.read(10**6, 2**40).units, *cursor.read(10**6, 2**40).units]


def listed(place: Place, *, formats: bool = False, waiting: bool = False) -> bool:
    record = place.pop.uplinks.listing.lookup("alice")
    return record is not None and (bool(record.entry.formats), record.entry.waiting) == (
        formats,
        waiting,
    )


async def test_who_is_lost_and_returns_goes_on_with_the_run() -> None:
    async with one_pop() as (origin, place):
        first = await place.publish()
        run = place.run
        await until(lambda: len(origin.units("alice")) == 10)
        await package(origin, place)
        with capture_logs() as logs:
            first.lose("closed by peer")
            assert place.door.waiting == 1
            await until(lambda: listed(place, formats=True, waiting=True))
            control = Control()
            again = await place.publish(control, frames=0)
            assert place.door.waiting == 0
            again.set_track(make_track())
            send(again, 5)
            await until(lambda: listed(place, formats=True))
        assert place.run == run, "the epoch is that of before: it is no takeover"
        await until(lambda: len(origin.units("alice")) == 15)
        units = origin.units("alice")
        assert [unit.seq for unit in units] == list(range(15))
        assert [unit.seq for unit in units if unit.discontinuity] == [10]
        assert (first.ended, again.ended) == ("closed by peer", None)
        assert (place.door.returned_total, place.door.accepted_total) == (1, 2)
        events = [line["event"] for line in logs if line["event"].startswith("publisher")]
        assert events == ["publisher lost, the stream waits for it", "publisher returned"]
        assert len(origin.opened) == 1
        first.lose("twice")
        again.end("publisher sent FCUnpublish")
        assert len(place.pop.hub) == 0
        assert place.pop.view.by_name["one"].used == 0


async def test_returns_are_never_refused_as_takeovers() -> None:
    async with one_pop() as (_, place):
        publication = await place.publish()
        for _ in range(4):
            publication.lose("closed by peer")
            publication = await place.publish()
        assert place.door.returned_total == 4
        assert takeovers(place.run) == 0


async def test_who_does_not_return_in_time_ends_the_run() -> None:
    async with one_pop(0.05) as (origin, place):
        publication = await place.publish()
        await until(lambda: origin.units("alice"))
        with capture_logs() as logs:
            publication.lose("closed by peer")
            assert place.pop.hub.get("alice") is not None
            await until(lambda: len(place.pop.hub) == 0)
        assert publication.stream.ended == "the publisher did not come back within 0.05 s"
        assert [line["why"] for line in logs if line["event"].startswith("stream ended")] == [
            "the publisher did not come back within 0.05 s"
        ]
        assert place.pop.view.by_name["one"].used == 0
        await until(lambda: origin.closed)
        assert origin.closed[0][1] == "the publisher did not come back within 0.05 s"
        await place.publish()  # The door goes on.


@pytest.mark.parametrize(("grace_s", "frames"), [(0.0, 10), (GRACE_S, 0)])
async def test_without_grace_or_media_nothing_waits(grace_s: float, frames: int) -> None:
    async with one_pop(grace_s) as (_, place):
        publication = await place.publish(frames=frames)
        publication.lose("closed by peer")
        assert len(place.pop.hub) == 0
        assert place.door.waiting == 0


@pytest.mark.pure
async def test_our_own_sleep_ends_nobody_s_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    async with one_pop(0.2) as (_, place):
        publication = await place.publish()
        publication.lose("closed by peer")
        await trio.testing.wait_all_tasks_blocked()
        late = place.pop.pump.now() + 5.0
        with monkeypatch.context() as patch:
            patch.setattr(place.pop.pump, "now", lambda: late)
            await trio.sleep(0.25)
        assert place.door.waiting == 1


async def test_a_takeover_here_leaves_the_run_as_it_is_to_all_who_read_it() -> None:
    async with one_pop() as (origin, place):
        told, live = Control(), Control()
        older = await place.publish(told)
        await until(lambda: len(origin.units("alice")) == 10)
        copy = origin.hub.get("alice")
        newer = await place.publish(live)
        assert told.stops == [("Rejected", TAKEN_OVER)]
        assert older.ended == TAKEN_OVER
        send(older, 5, 10)  # Nothing of it is taken any more.
        older.end("closed")
        assert newer.stream is older.stream
        assert takeovers(place.run) == 1
        await until(lambda: len(origin.units("alice")) == 20)
        assert origin.hub.get("alice") is copy
        assert copy is not None
        assert copy.stream_id == place.run
        assert len(origin.opened) == 1
        await until(lambda: place.pop.uplinks.lookup("alice") == place.run)
        assert live.stops == []
        with pytest.raises(PublishRefusedError, match="takeover: channel 'alice' is live and was"):
            await place.publish()
        assert place.door.returned_total == 0


async def test_a_takeover_is_known_at_a_pop_that_had_no_part_in_it() -> None:
    async with two_pops() as (origin, west, east):
        await west.publish()
        await until(lambda: origin.units("alice"))
        await package(origin, east)
        await west.publish()
        await until(lambda: east.pop.uplinks.lookup("alice") == west.run)
        with pytest.raises(PublishRefusedError, match="takeover: channel 'alice' is live and was"):
            await east.publish()


async def test_tracks_that_do_not_fit_begin_a_run_and_nothing_of_them_is_lost() -> None:
    async with one_pop() as (origin, place):
        first = await place.publish()
        run = place.run
        await until(lambda: origin.units("alice"))
        first.lose("closed by peer")
        second = await place.publish(frames=0)
        second.set_track(make_track(codec=Codec.H265))
        send(second, 5)
        assert first.stream.ended == "taken over by a newer publication"
        assert place.run.publication > run.publication
        assert second.stream is place.pop.hub.get("alice")
        await until(lambda: len(origin.opened) == 2 and len(origin.units("alice")) == 5)
        assert [unit.seq for unit in origin.units("alice")] == list(range(5))
        assert place.pop.view.by_name["one"].used == 1
        second.lose("closed by peer")
        assert place.door.waiting == 1


async def test_tracks_that_do_not_fit_and_find_no_place_are_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with one_pop() as (origin, place):
        first = await place.publish()
        await until(lambda: origin.units("alice"))
        first.lose("closed by peer")
        control = Control()
        second = await place.publish(control, frames=0)
        place.pop.push_table()
        second.set_track(make_track(codec=Codec.H265))
        send(second, 5)
        ((code, reason),) = control.stops
        assert (code, reason.partition(":")[0]) == ("Failed", "no_route")
        assert second.ended == "no origin takes it"
        assert len(place.pop.hub) == 0


@pytest.mark.parametrize("key", ["key-of-partner", "key-of-ultra"])
async def test_another_class_of_key_begins_a_run(key: str) -> None:
    """What was granted decides the session, the slots, who goes first, and how it is cut."""
    async with one_pop() as (origin, place):
        first = await place.publish()
        await until(lambda: origin.units("alice"))
        second = await place.publish(key=key)
        assert second.stream is not first.stream
        assert first.ended == TAKEN_OVER


async def test_lost_again_before_it_fitted_it_waits_no_longer_than_before() -> None:
    async with one_pop() as (origin, place):
        first = await place.publish()
        await until(lambda: origin.units("alice"))
        first.lose("closed by peer")
        until_s = place.door._grace.next_timeout()
        for _ in range(2):
            again = await place.publish(frames=0)
            assert place.door.waiting == 0
            again.lose("closed by peer")
            assert place.door.waiting == 1
            assert place.door._grace.next_timeout() == until_s
        last = await place.publish(frames=0)
        place.door.tick(until_s)  # While it is here, it may show yet that it fits.
        assert place.door._grace.next_timeout() == until_s + PUT_OFF_S
        last.lose("closed by peer")
        place.door.tick(until_s + PUT_OFF_S)
        assert len(place.pop.hub) == 0


async def test_too_many_that_wait_end_the_one_that_waited_longest() -> None:
    async with one_pop() as (origin, place):
        place.door._grace._waiting_max = 0
        publication = await place.publish()
        await until(lambda: origin.units("alice"))
        publication.lose("closed by peer")
        assert publication.stream.ended == "too many wait for their publishers"


async def test_when_the_pop_stops_what_waits_ends_too() -> None:
    async with one_pop() as (_, place):
        publication = await place.publish()
        publication.lose("closed by peer")
        place.door.stop_all("Rejected", "the PoP is stopping")
        with trio.fail_after(1):
            await place.door.wait_empty()
        assert publication.stream.ended == "the PoP is stopping"


async def test_a_takeover_at_another_pop_goes_on_at_the_origin_that_has_the_run() -> None:
    async with two_pops() as (origin, west, east):
        told, live = Control(), Control()
        older = await west.publish(told)
        await until(lambda: len(origin.units("alice")) == 10)
        copy = origin.hub.get("alice")
        await package(origin, east)
        newer = await east.publish(live)
        assert (east.run.publication, takeovers(east.run)) == (west.run.publication, 1)
        await until(lambda: len(units_of(origin)) == 20)
        units = units_of(origin)
        assert [unit.seq for unit in units[10:]] == list(
            range(units_from(east.run), units_from(east.run) + 10)
        )
        assert units[10].discontinuity
        assert origin.hub.get("alice") is copy
        assert len(origin.opened) == 1
        await until(lambda: told.stops)
        assert told.stops == [("Rejected", TAKEN_OVER)]
        older.end(TAKEN_OVER)
        placement = east.pop.uplinks.placements["alice"]
        assert (placement.decision.rule, placement.joins) == ("incumbent", False)
        assert not west.pop.uplinks.placements
        for place in (west, east):
            with pytest.raises(PublishRefusedError, match="takeover: channel 'alice' is live"):
                await place.publish()
        assert live.stops == []
        newer.end("publisher sent FCUnpublish")
        await until(lambda: origin.closed)


async def test_a_return_to_another_pop_is_no_takeover_and_ends_the_wait_in_silence() -> None:
    async with two_pops() as (origin, west, east):
        first = await west.publish()
        await until(lambda: origin.units("alice"))
        await package(origin, west, east)
        places = [west, east]
        publication = first
        for count in range(1, 5):
            before, after = places[(count + 1) % 2], places[count % 2]
            publication.lose("closed by peer")
            await until(lambda after=after: listed(after, formats=True, waiting=True))  # type: ignore[misc]
            with capture_logs() as logs:
                publication = await after.publish()
                await until(lambda before=before: not before.pop.uplinks.placements)  # type: ignore[misc]
            assert before.door.waiting == 0
            assert "publication given up" not in [line["event"] for line in logs]
            await until(lambda after=after: listed(after, formats=True))  # type: ignore[misc]
            assert takeovers(after.run) == count
        assert (west.door.returned_total, east.door.returned_total) == (2, 2)
        assert len(origin.opened) == 1


@pytest.mark.parametrize("heard", [False, True])
async def test_a_run_that_has_ended_meanwhile_is_not_joined_but_begun(
    monkeypatch: pytest.MonkeyPatch, heard: bool
) -> None:
    """Also where that shows only when the origin is asked; nothing that was sent is lost."""
    async with two_pops() as (origin, west, east):
        older = await west.publish()
        await until(lambda: origin.units("alice"))
        await package(origin, east)
        control = Control()
        joining = await east.publish(control, frames=0)
        run = east.run
        assert origin.server is not None
        with monkeypatch.context() as patch:
            if not heard:
                patch.setattr(origin.server, "_send_changes", lambda: None)
            older.end("publisher sent FCUnpublish")
            await until(lambda: origin.closed)
            await until(lambda: not heard or east.pop.uplinks.lookup("alice") is None)
            await trio.sleep(0.05)
        joining.set_track(make_track())
        send(joining, 5)
        await until(lambda: len(origin.opened) == 2 and len(origin.units("alice")) == 5)
        assert east.run.publication > run.publication
        assert control.stops == []
        send(joining, 5, 5)
        await until(lambda: len(origin.units("alice")) == 10)


async def test_an_origin_that_cannot_be_asked_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nor one that does not answer."""
    monkeypatch.setattr(uplinks, "TICK_S", 0.01)
    monkeypatch.setattr(placing, "ANSWER_S_MAX", 0.2)
    one, two = Origin("one"), Origin("two")
    async with (
        one.serving(),
        two.serving(),
        running_pop(one) as west,
        running_pop(one, two) as east,
    ):
        here, there = Place(west, GRACE_S), Place(east, GRACE_S)
        await here.publish()
        await until(lambda: one.units("alice"))
        await package(one, there)
        assert one.server is not None
        monkeypatch.setattr(one.server._inbound, "handle", lambda *_: True)
        publication = await there.publish()
        run = there.run
        assert takeovers(run) == 1
        await until(lambda: there.run.publication > run.publication)
        east.push_table(two)
        await until(lambda: len(two.units("alice")) == 10)
        send(publication, 5, 10)
        await until(lambda: len(two.units("alice")) == 15)


async def test_what_does_not_fit_elsewhere_begins_a_run_here() -> None:
    async with two_pops() as (origin, west, east):
        told = Control()
        await west.publish(told)
        await until(lambda: origin.units("alice"))
        await package(origin, east)
        newer = await east.publish(frames=0)
        newer.set_track(make_track(codec=Codec.H265))
        send(newer, 5)
        assert east.run.publication > west.run.publication
        await until(lambda: told.stops and len(origin.units("alice")) == 5)


async def test_another_latency_class_elsewhere_begins_a_run() -> None:
    """The run is cut by its own figures for good."""
    async with two_pops() as (origin, west, east):
        first = await west.publish()
        await until(lambda: origin.units("alice"))
        await package(origin, west, east)
        second = await east.publish(key="key-of-ultra")
        assert second.stream.stream_id.publication != first.stream.stream_id.publication
        await until(lambda: first.ended is not None)


async def test_a_second_newcomer_takes_the_place_of_one_that_has_shown_nothing() -> None:
    async with two_pops() as (origin, west, east):
        await west.publish()
        await until(lambda: origin.units("alice"))
        await package(origin, east)
        idle = Control()
        first = await east.publish(idle, frames=0)
        await east.publish()
        assert idle.stops == [("Rejected", TAKEN_OVER)]
        first.end("closed")
        await until(lambda: len(units_of(origin)) == 20)
        assert takeovers(east.run) == 1
        assert len(east.pop.hub) == 1


async def test_one_that_leaves_before_it_fitted_leaves_nothing_behind() -> None:
    async with two_pops() as (origin, west, east):
        told = Control()
        await west.publish(told)
        await until(lambda: origin.units("alice"))
        await package(origin, east)
        joining = await east.publish(frames=0)
        joining.lose("closed by peer")
        assert len(east.pop.hub) == 0
        assert east.door.waiting == 0
        await trio.sleep(0.05)
        assert told.stops == [], "nothing was taken over"


async def test_a_title_of_its_own_is_heard_of() -> None:
    async with one_pop() as (origin, place):
        first = await place.publish()
        await until(lambda: origin.units("alice"))
        run = place.door._runs["alice"]
        run.stream.grant = msgspec.structs.replace(run.stream.grant, title="before")
        second = await place.publish()
        assert second.stream is first.stream
        assert place.pop.hub.get("alice") is run.stream
        assert run.stream.grant.title == "Alice"


async def test_of_two_pops_that_take_over_at_once_one_wins_and_the_other_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(uplinks, "TICK_S", 0.01)
    monkeypatch.setattr(placing, "LISTED_S_MAX", 0.3)
    async with two_pops() as (origin, west, east), running_pop(origin) as third:
        north = Place(third, GRACE_S)
        told, ours, theirs = Control(), Control(), Control()
        await west.publish(told)
        await until(lambda: origin.units("alice"))
        await package(origin, east, north)
        publications = await east.publish(ours), await north.publish(theirs)
        await until(lambda: told.stops and (ours.stops or theirs.stops))
        await trio.sleep(0.4)
        assert sorted([ours.stops, theirs.stops]) == [[], [("Rejected", TAKEN_OVER)]]
        winner, live = (east, publications[0]) if theirs.stops else (north, publications[1])
        copy = origin.hub.get("alice")
        assert copy is not None
        assert copy.stream_id == winner.run
        before = copy.ring.next_seq
        send(live, 5, 10)
        await until(lambda: copy.ring.next_seq == before + 5)
        assert len(origin.opened) == 1


class Ear:
    """Hears what a door tells."""

    def __init__(self, place: Place) -> None:
        self.events: list[StreamEvent] = []
        place.door._telling.emit = self.events.append

    @property
    def kinds(self) -> list[str]:
        return [event.kind.removeprefix("stream_") for event in self.events]


async def test_a_return_is_told() -> None:
    async with one_pop() as (origin, place):
        ear = Ear(place)
        first = await place.publish()
        await until(lambda: origin.units("alice"))
        first.lose("closed by peer")
        second = await place.publish()
        second.end("publisher sent FCUnpublish")
        assert ear.kinds == ["went_live", "publisher_lost", "publisher_returned", "went_offline"]
        assert {event.publication for event in ear.events} == {
            f"{first.stream.stream_id.publication:x}"
        }


async def test_a_run_that_another_ends_as_its_tracks_do_not_fit_is_told_of() -> None:
    async with one_pop() as (origin, place):
        ear = Ear(place)
        await place.publish()
        before = f"{place.run.publication:x}"
        await until(lambda: origin.units("alice"))
        newer = await place.publish(frames=0)
        newer.set_track(make_track(codec=Codec.H265))
        send(newer, 5)
        assert ear.kinds == ["went_live", "taken_over", "went_live"]
        taken = ear.events[1]
        assert isinstance(taken, StreamTakenOver)
        assert (taken.publication, taken.by_publication) == (before, f"{place.run.publication:x}")
        newer.end("publisher sent FCUnpublish")
        assert ear.kinds[3:] == ["went_offline"]


async def test_one_that_leaves_before_it_fitted_is_not_told_of() -> None:
    async with two_pops() as (origin, west, east):
        await west.publish()
        await until(lambda: origin.units("alice"))
        await package(origin, east)
        ear = Ear(east)
        joining = await east.publish(frames=0)
        joining.end("closed by peer")
        assert ear.events == []


async def test_a_takeover_by_another_pop_is_told_by_both_and_no_end() -> None:
    async with two_pops() as (origin, west, east):
        here, there, told = Ear(west), Ear(east), Control()
        older = await west.publish(told)
        await until(lambda: origin.units("alice"))
        await package(origin, east)
        newer = await east.publish()
        await until(lambda: told.stops)
        older.end(TAKEN_OVER)
        newer.end("publisher sent FCUnpublish")
        assert here.kinds == ["went_live", "taken_over"]
        assert there.kinds == ["taken_over", "went_offline"]
        assert there.events[0].publication == here.events[0].publication


async def test_a_run_that_was_given_up_is_not_joined() -> None:
    """Its plug-in takes a moment to end the session; who comes meanwhile begins a run."""
    async with one_pop() as (origin, place):
        control = Control()
        first = await place.publish(control)
        await until(lambda: len(origin.units("alice")) == 10)
        placement = place.pop.uplinks.placements["alice"]
        placement.give_up(PublishRefusedError("unsupported_media", "broken"))
        assert control.stops == [("Failed", "unsupported_media: broken")]
        assert first.ended == "unsupported_media: broken"
        before = placement.stream.stream_id
        second = await place.publish()
        assert place.run.publication != before.publication
        first.end("the session is gone, too")
        await until(lambda: len(origin.units("alice")) == 10)
        assert second.ended is None
        assert "alice" in place.pop.uplinks.placements


async def test_our_own_pause_begins_no_run_anew_that_is_being_joined() -> None:
    async with two_pops() as (origin, here, there):
        await here.publish()
        await until(lambda: origin.units("alice"))
        await package(origin, here, there)
        before = here.run
        await there.publish()
        placing_there = there.pop.uplinks.placing
        assert placing_there.placements["alice"].joins
        now, pause_s = there.pop.pump.now(), ANSWER_S_MAX + 1.0
        placing_there.slept(pause_s)
        placing_there.tick(now + pause_s)
        assert there.run.publication == before.publication
        placing_there.tick(now + pause_s + ANSWER_S_MAX + 0.1)
        assert there.run.publication != before.publication, "that it would have done"


@pytest.mark.pure
@pytest.mark.parametrize(("left_after_s", "waits"), [(GRACE_S - 0.1, True), (GRACE_S + 0.1, False)])
async def test_an_end_after_an_undone_drain(left_after_s: float, waits: bool) -> None:
    """Who was asked to leave a moment ago comes back; later an end is the broadcaster's own."""
    async with one_pop() as (_, place):
        now = trio.current_time()
        publication = await place.publish()
        stream = place.pop.hub.get("alice")
        assert stream is not None
        place.door.refuse_all(None)
        place.door.drain(stream, None)
        place.pop.pump.now = lambda: now  # type: ignore[method-assign]
        place.door.admit_again()
        place.pop.pump.now = lambda: now + left_after_s  # type: ignore[method-assign]
        publication.end("the broadcaster pressed stop")
        assert (place.pop.hub.get("alice") is not None) is waits
