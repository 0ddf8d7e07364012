"""The origin's end of fetches, with a PoP's at the other end of a real backbone."""

import pytest
import trio

from edged.backbone.segment_fetches import GONE, IN_FLIGHT_MAX, WAITING_MAX, SegmentKey
from edged.backbone.segments_out import FETCHES_MAX
from edged.media.parts import SegmentsListed
from edged.media.stream import PriorityClass, StreamId
from edged.wire.backbone.messages import FEATURE_DESCRIPTIONS, SegmentWanted, SubscribeParts
from tests.backbone.network import Origin, Pop, raw_pop, until, withholding
from tests.policy.window_events import init, part, rendition

pytestmark = pytest.mark.e2e

RUN = StreamId("alice", 7, 1)
BODY = [bytes([n]) * 70_000 for n in range(4)]
Results = list[bytes | str]


def key(msn: int = 1) -> SegmentKey:
    return SegmentKey(RUN, "v0", msn)


async def test_a_segment_comes_once_for_all_who_want_it() -> None:
    origin, pop = Origin(), Pop()
    origin.segments["v0", 1] = BODY
    async with origin.serving() as server, pop.linked(origin) as link:
        await until(lambda: link.is_up(PriorityClass.BASIC))
        results: Results = []
        for _ in range(3):
            assert link.fetch_segment(PriorityClass.BASIC, key(), results.append)
        await until(lambda: len(results) == 3)
        assert results == [b"".join(BODY)] * 3
        assert origin.asked == [(RUN, "v0", 1)]
        await until(lambda: server.statistics().segments.given == 1)
        assert server.statistics().segments.given_bytes > 280_000
        assert link.fetch_segment(PriorityClass.BASIC, key(2), results.append)
        await until(lambda: len(results) == 4)
        assert results[-1] == GONE
        assert server.statistics().segments.refused == 1


async def test_a_few_are_under_way_and_the_others_wait() -> None:
    async with withholding() as (origin, link, withheld):
        results: Results = []
        for msn in range(IN_FLIGHT_MAX + 2):
            assert link.fetch_segment(PriorityClass.BASIC, key(msn), results.append)
        await until(lambda: len(origin.asked) == IN_FLIGHT_MAX)
        withheld[0]([b"first"])
        withheld[1]("disk")
        await until(lambda: len(origin.asked) == IN_FLIGHT_MAX + 2)
        assert sorted(map(str, results)) == ["b'first'", "disk"]
        for msn in range(IN_FLIGHT_MAX + 2, WAITING_MAX + IN_FLIGHT_MAX + 2):
            assert link.fetch_segment(PriorityClass.BASIC, key(msn), results.append)
        assert not link.fetch_segment(PriorityClass.BASIC, key(10_000), results.append)
        assert link.fetch_segment(PriorityClass.BASIC, key(5), results.append), "it comes anyway"


async def test_an_origin_of_before_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would close on a message that it does not know; and a PoP of before gets no lists."""
    monkeypatch.setattr("edged.backbone.local_end.FEATURES", (FEATURE_DESCRIPTIONS,))
    origin, pop = Origin(), Pop()
    async with origin.serving(), pop.linked(origin) as link:
        await until(lambda: link.is_up(PriorityClass.BASIC))
        results: Results = []
        assert link.fetch_segment(PriorityClass.BASIC, key(), results.append)
        assert (results, origin.asked) == ([GONE], [])
        link.subscribe_parts("alice", lambda *_: None, cold=True)
        await until(lambda: origin.replays)
        assert origin.replays == [(False, True)]


async def test_a_pop_says_whether_it_has_any_of_it() -> None:
    origin, pop = Origin(), Pop()
    async with origin.serving(), pop.linked(origin) as link:
        await until(lambda: link.is_up(PriorityClass.BASIC))
        link.subscribe_parts("alice", lambda *_: None, cold=True)
        await until(lambda: len(origin.replays) == 1)
        link.subscribe_parts("alice", lambda *_: None)
        await until(lambda: len(origin.replays) == 2)
        assert origin.replays == [(True, True), (True, False)]


async def test_a_pop_that_asks_for_too_much_is_refused() -> None:
    origin, pop = Origin(), Pop()
    origin.withheld = []
    async with origin.serving() as server, pop.linked(origin) as link:
        await until(lambda: link.is_up(PriorityClass.BASIC))
        session = link._sessions[PriorityClass.BASIC]
        for number in range(1, FETCHES_MAX + 1):
            session.send(SegmentWanted(number, RUN, "v0", number))
        await until(lambda: len(origin.asked) == FETCHES_MAX)
        session.send(SegmentWanted(FETCHES_MAX + 1, RUN, "v0", 99))
        await until(lambda: server.statistics().segments.refused == 1)
        session.send(SegmentWanted(1, RUN, "v0", 99))
        await until(lambda: server.statistics().segments.refused == 2)
        assert len(origin.asked) == FETCHES_MAX


@pytest.mark.parametrize("older", [False, True])
async def test_a_pop_of_before_is_told_of_no_list(
    monkeypatch: pytest.MonkeyPatch, older: bool
) -> None:
    if older:
        monkeypatch.setattr("edged.backbone.local_end.FEATURES", (FEATURE_DESCRIPTIONS,))
    origin, pop = Origin(), Pop()
    origin.windows["alice"] = RUN, [rendition(), init()]
    async with origin.serving() as server, pop.linked(origin) as link:
        await until(lambda: link.is_up(PriorityClass.BASIC))
        events: list[object] = []
        link.subscribe_parts("alice", lambda _, event: events.append(event))
        await until(lambda: len(events) == 2)
        told = SegmentsListed(rendition="v0", oldest_msn=3)
        server.publish_event(RUN, told)
        server.publish_event(RUN, part(9, 0))
        await until(lambda: part(9, 0) in events)
        assert (told in events) is not older


async def test_a_newer_origin_lists_nothing_to_an_older_pop() -> None:
    origin = Origin()
    origin.windows["alice"] = RUN, [rendition(), init()]
    async with origin.serving(), raw_pop(origin.address) as peer:
        peer.link.send(SubscribeParts(1, "alice"))
        with trio.move_on_after(0.5):
            await peer.run()
        assert origin.replays == [(False, False)]
