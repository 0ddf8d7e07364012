"""Viewers' PoPs go over to a stream's new home: both push, each part is shown once."""

import contextlib
from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs

from edged.backbone.segment_fetches import GONE, Done, SegmentKey
from edged.media.parts import ListedSegment, PackagedEvent, Part, SegmentsListed, StreamEnded
from edged.media.stream import PriorityClass, StreamId
from edged.policy import handover as handover_module
from edged.policy.handover import Handover
from edged.policy.window import StreamWindow
from edged.roles.parts_in import LOST, NO_ROOM
from tests.backbone.network import Origin, until
from tests.policy.window_events import DIGEST, ended, init, part, rendition, whole
from tests.roles.setting import Pop, package, packaged, running_pop

BEGIN: list[PackagedEvent] = [rendition(), init(), part(0, 0)]
AT_ONE, AT_TWO = StreamId("alice", 1, 1), StreamId("alice", 1, 2)


class Watched:
    """A channel that is shown here, and is being handed over from one to two."""

    def __init__(self, pop: Pop, one: Origin, two: Origin) -> None:
        self.pop, self.one, self.two = pop, one, two

    def push(self, origin: Origin, *events: PackagedEvent) -> None:
        """As it is pushed by that home, whichever run its hub has by now."""
        stream_id = package(origin, "alice", events)
        assert stream_id == (AT_ONE if origin is self.one else AT_TWO)

    @property
    def shown(self) -> list[tuple[int, int]]:
        events = [event for _, batch in self.pop.playback.batches for event in batch]
        return [(event.msn, event.index) for event in events if isinstance(event, Part)]

    @property
    def subscriptions(self) -> dict[str, int]:
        return {link.origin: link.subscriptions for link in self.pop.uplinks.statistics()}


@contextlib.asynccontextmanager
async def handing_over() -> AsyncIterator[Watched]:
    one, two = Origin("one"), Origin("two")
    async with one.serving() as server, two.serving(), running_pop(one, two) as pop:
        await packaged(pop, one, server)
        await until(lambda: all(map(pop.view.capacitor.report, ("one", "two"))))
        watched = Watched(pop, one, two)
        watched.push(one, *BEGIN)
        pop.uplinks.parts.subscribe("alice")
        await until(lambda: watched.shown == [(0, 0)])
        assert pop.uplinks.placing.moves.begin("alice", "two", "migrate", lambda _: None) == ""
        await until(lambda: watched.subscriptions == {"one": 1, "two": 1})
        yield watched


async def test_the_old_home_is_shown_until_the_new_one_has_caught_up() -> None:
    with capture_logs() as logs:
        async with handing_over() as watched:
            watched.push(watched.one, part(0, 1))
            await until(lambda: watched.shown == [(0, 0), (0, 1)])
            watched.push(watched.two, *BEGIN)
            await until(lambda: watched.two.replays)
            watched.push(watched.one, part(0, 2))  # Its run is not fenced off as yet.
            await until(lambda: len(watched.shown) == 3)
            assert watched.subscriptions == {"one": 1, "two": 1}
            watched.push(watched.two, part(0, 1), part(0, 2), part(0, 3))
            await until(lambda: len(watched.shown) == 4)
            await until(lambda: watched.subscriptions == {"one": 0, "two": 1})
            watched.push(watched.one, part(0, 3), part(0, 4), ended(0))
            watched.push(watched.two, part(0, 4), ended(0), part(1, 0))
            await until(lambda: len(watched.shown) == 6)
            assert watched.shown == [(0, 0), (0, 1), (0, 2), (0, 3), (0, 4), (1, 0)]
            ids = [stream_id for stream_id, _ in watched.pop.playback.batches]
            assert ids == sorted(ids)
            assert ids[-1] == AT_TWO
            parts = watched.pop.uplinks.parts
            assert (parts.handovers, parts.handovers_forced) == (1, 0)
    assert "stream fenced" not in {line["event"] for line in logs}
    assert "subscription ended" not in {line["event"] for line in logs}


async def test_an_old_home_that_falls_silent_is_left_amid_a_segment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(handover_module, "SILENT_S_MAX", 0.05)
    async with handing_over() as watched:
        other = part(0, 0, payload=b"encoded by another")
        watched.push(watched.two, rendition(), init(), other, part(0, 1), part(0, 2))
        await until(lambda: watched.shown == [(0, 0), (0, 1), (0, 2)])
        await until(lambda: watched.subscriptions == {"one": 0, "two": 1})
        assert watched.pop.uplinks.parts.handovers_forced == 1
        watched.push(watched.two, part(0, 3))
        await until(lambda: len(watched.shown) == 4)


async def test_it_stays_with_the_old_home_while_the_new_one_pushes_nothing() -> None:
    async with handing_over() as watched:
        parts = watched.pop.uplinks.parts
        parts._subscription_ended("alice", "two", "full", "too many subscriptions")
        watched.push(watched.one, part(0, 1))
        await until(lambda: watched.shown == [(0, 0), (0, 1)])
        assert watched.pop.playback.unavailable == []
        parts._subscription_ended("alice", "one", "stopped", "sent elsewhere")
        assert watched.pop.playback.unavailable == [("alice", "stopped: sent elsewhere")]


@pytest.mark.parametrize("how", ["its feed ends", "it is cut off"])
async def test_an_old_home_that_ends_by_itself_is_left(how: str) -> None:
    async with handing_over() as watched:
        parts = watched.pop.uplinks.parts
        watched.push(watched.two, rendition(), init(), part(0, 0, payload=b"x"), part(0, 1))
        await until(lambda: parts._leaving["alice"].handover._kept == 4)
        if how == "its feed ends":
            parts._subscription_ended("alice", "one", "stopped", "sent elsewhere")
        else:
            assert parts.cut_off("one") == []
        assert watched.shown == [(0, 0), (0, 1)]
        assert watched.pop.playback.unavailable == []
        watched.push(watched.two, part(0, 2))
        await until(lambda: len(watched.shown) == 3)


async def test_a_new_home_that_is_cut_off_meanwhile_leaves_the_old_one() -> None:
    async with handing_over() as watched:
        parts = watched.pop.uplinks.parts
        assert parts.cut_off("two") == []
        await until(lambda: watched.subscriptions == {"one": 1, "two": 0})
        watched.push(watched.one, part(0, 1))
        await until(lambda: watched.shown == [(0, 0), (0, 1)])
        parts.end(parts.cut_off("one"))
        assert watched.pop.playback.unavailable == [("alice", LOST)]
        await until(lambda: watched.subscriptions == {"one": 0, "two": 0})


async def test_who_stays_shows_what_comes_though_the_new_home_was_heard() -> None:
    """Playback takes nothing of an epoch below one that it knows."""
    async with handing_over() as watched:
        parts = watched.pop.uplinks.parts
        watched.push(watched.two, rendition(), init(), part(0, 0, payload=b"x"))
        await until(lambda: parts._leaving["alice"].handover._kept == 3)
        watched.push(watched.one, part(0, 1))
        await until(lambda: watched.shown == [(0, 0), (0, 1)])
        assert parts.cut_off("two") == []
        watched.push(watched.one, part(0, 2))
        await until(lambda: watched.shown == [(0, 0), (0, 1), (0, 2)])
        ids = [stream_id for stream_id, _ in watched.pop.playback.batches]
        assert ids == sorted(ids)


async def test_what_comes_of_one_looks_at_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """A drained origin has hundreds of channels go over at once."""
    async with handing_over() as watched:
        parts = watched.pop.uplinks.parts
        watched.push(watched.two, rendition(), init(), part(0, 0, payload=b"x"))
        await until(lambda: parts._leaving["alice"].handover._kept == 3)
        looks = 0
        real = parts._due_at

        def due_at() -> float:
            nonlocal looks
            looks += 1
            return real()

        monkeypatch.setattr(parts, "_due_at", due_at)
        for index in range(1, 6):
            watched.push(watched.one, part(0, index))
            await until(lambda index=index: watched.shown[-1] == (0, index))  # type: ignore[misc]
        assert looks < 5  # `run` may, when its time has come.


@pytest.mark.parametrize("where", ["take_old", "take_new", "handle_timeout"])
async def test_a_bug_in_a_handover_costs_nothing(
    monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Others' parts of that turn come, and the channel goes on with what the next home has."""

    def broken(handover: Handover, *_: object) -> None:
        raise KeyError("bug")

    monkeypatch.setattr(handover_module, "SILENT_S_MAX", 0.05)
    async with handing_over() as watched:
        parts = watched.pop.uplinks.parts
        with capture_logs() as logs:
            monkeypatch.setattr(Handover, where, broken)
            other: list[PackagedEvent] = [*BEGIN[:2], part(0, 0, payload=b"x"), part(0, 1)]
            watched.push(watched.one if where == "take_old" else watched.two, *other)
            parts.receive(StreamId("bob", 1), part(5, 0))
            await until(lambda: watched.subscriptions == {"one": 0, "two": 1})
            await until(lambda: (5, 0) in watched.shown)
            if where == "take_old":
                watched.push(watched.two, *other)
            await until(lambda: (0, 1) in watched.shown)
        assert watched.shown[:2] == [(0, 0), (5, 0)]
        assert watched.pop.playback.unavailable == []
        assert [line["event"] for line in logs if line["log_level"] == "error"] == [
            "handover failed"
        ]
        assert parts.handovers_forced == 1


async def test_the_end_of_the_run_and_of_interest_end_it() -> None:
    async with handing_over() as watched:
        watched.push(watched.two, *BEGIN, StreamEnded(reason="over"))
        await until(lambda: watched.pop.playback.batches[-1][1][-1] == StreamEnded(reason="over"))
        await until(lambda: watched.subscriptions == {"one": 0, "two": 0})
    async with handing_over() as watched:
        watched.pop.uplinks.parts.unsubscribe("alice")
        await until(lambda: watched.subscriptions == {"one": 0, "two": 0})
        assert watched.pop.uplinks.parts._leaving == {}


def listed(*msns: int, oldest_msn: int) -> SegmentsListed:
    segments = [ListedSegment(msn, 2000, part(msn, 0).wallclock_us, 500) for msn in msns]
    return SegmentsListed(
        rendition="v0", oldest_msn=oldest_msn, init_digest=DIGEST, segments=tuple(segments)
    )


async def test_viewers_can_still_go_back_to_before_a_move() -> None:
    """The new home holds nothing of before it began, and says so; the old one does."""
    one, two = Origin("one"), Origin("two")
    one.segments |= {("v0", msn): [b"%d" % msn] for msn in range(3)}
    two.segments["v0", 3] = [b"3"]
    async with one.serving() as server, two.serving(), running_pop(one, two) as pop:
        await packaged(pop, one, server)
        await until(lambda: all(map(pop.view.capacitor.report, ("one", "two"))))
        watched, parts = Watched(pop, one, two), pop.uplinks.parts
        old: list[PackagedEvent] = [rendition(), init(), listed(0, 1, 2, oldest_msn=0)]
        watched.push(one, *old, part(3, 0))
        parts.subscribe("alice")
        await until(lambda: watched.shown == [(3, 0)])
        assert pop.uplinks.placing.moves.begin("alice", "two", "migrate", lambda _: None) == ""
        await until(lambda: watched.subscriptions == {"one": 1, "two": 1})
        watched.push(two, rendition(), init(), *whole(3), listed(oldest_msn=3), part(4, 0))
        await until(lambda: (4, 0) in watched.shown)
        await until(lambda: watched.subscriptions == {"one": 0, "two": 1})
        window = StreamWindow(AT_ONE)
        for _, events in pop.playback.batches:
            for event in events:
                window.add(event)
        assert [entry.msn for entry in window.renditions["v0"].entries] == [0, 1, 2, 3, 4]
        results = list[bytes | str]()
        for msn in (1, 3, 7):
            assert parts.fetch(AT_TWO, "v0", msn, results.append)
        await until(lambda: len(results) == 3)
        assert set(results) == {b"1", b"3", GONE}
        assert {msn for _, _, msn in one.asked} == {1, 7}, "what the new home has it gives"

        watched.push(two, listed(oldest_msn=4))  # It has no room: there would be a hole.
        await until(lambda: pop.playback.batches[-1][1] == [listed(oldest_msn=4)])


class Full:
    """A link over which as many segments are waited for as may be."""

    def is_up(self, priority: PriorityClass) -> bool:
        return True

    def fetch_segment(self, priority: PriorityClass, key: SegmentKey, done: Done) -> bool:
        return False


async def test_what_an_old_home_had_is_gone_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """And nobody waits for one that may come back: it would have nothing of it."""
    async with handing_over() as watched:
        watched.one.segments["v0", 0] = [b"0"]
        watched.push(watched.two, *BEGIN, part(0, 1))
        await until(lambda: len(watched.shown) == 2)
        parts, results = watched.pop.uplinks.parts, list[bytes | str]()
        assert parts.fetch(AT_TWO, "v0", 0, results.append)
        await until(lambda: results == [b"0"])
        real = parts._link
        with monkeypatch.context() as patched:
            patched.setattr(parts, "_link", lambda name: Full() if name == "one" else real(name))
            assert parts.fetch(AT_TWO, "v0", 0, results.append)
            await until(lambda: results[1:] == [NO_ROOM])
        monkeypatch.setattr(parts, "_link", lambda name: None if name == "one" else real(name))
        assert parts.fetch(AT_TWO, "v0", 0, results.append)
        await until(lambda: results[2:] == [GONE])
