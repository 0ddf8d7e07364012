"""The PoP's end of fetches: what is given up, what is lost, and origins that say wrong things."""

import pytest
import trio

from edged.backbone.segment_fetches import FETCH_S_LONGEST, FETCH_S_MAX, GONE
from edged.media.stream import PriorityClass
from edged.wire.backbone.messages import (
    FEATURES,
    SegmentOpened,
    SegmentRefused,
    SegmentWanted,
    StreamRefused,
    SubscribeParts,
)
from tests.backbone.network import Origin, Pop, raw_origin, until, withholding
from tests.backbone.test_feeds import Scripted, at
from tests.backbone.test_segments_out import BODY, Results, key

pytestmark = pytest.mark.e2e


async def test_what_does_not_come_is_given_up() -> None:
    async with withholding() as (origin, link, withheld):
        results: Results = []
        now = trio.current_time()
        link.fetch_segment(PriorityClass.BASIC, key(), results.append)
        await until(lambda: origin.asked)
        link.expire(now + FETCH_S_MAX - 1)
        assert not results
        link.expire(now + FETCH_S_MAX + 1)
        assert results == ["nothing of it came within 20 s"]
        withheld.pop()(BODY)  # It comes too late, and is refused.
        link.fetch_segment(PriorityClass.BASIC, key(2), results.append)
        await until(lambda: len(origin.asked) == 2)
        withheld.pop()([b"two"])
        await until(lambda: len(results) == 2)
        assert results[1] == b"two"
        assert len(link._feeds.fetches) == 0


async def test_who_comes_behind_others_is_given_up_when_nothing_moves() -> None:
    async with withholding() as (origin, link, withheld):
        results: Results = []
        now = trio.current_time()
        for msn in range(2):
            link.fetch_segment(PriorityClass.BASIC, key(msn), results.append)
        await until(lambda: len(origin.asked) == 2)
        withheld.pop()(BODY)
        await until(lambda: results)
        link.expire(now + FETCH_S_MAX + 1)
        assert len(results) == 1, "another came meanwhile"
        link.expire(now + 2 * FETCH_S_MAX + 2)
        assert results[1:] == ["nothing of it came within 20 s"]


async def test_nothing_is_waited_for_for_ever() -> None:
    async with withholding() as (_, link, withheld):
        never: Results = []
        results: Results = []
        now = trio.current_time()
        link.fetch_segment(PriorityClass.BASIC, key(), never.append)
        for at in range(1, 9):  # Others come all the time.
            link.fetch_segment(PriorityClass.BASIC, key(100 + at), results.append)
            await until(lambda: len(withheld) == 2)
            withheld.pop()(BODY)
            await until(lambda: len(results) == at)  # noqa: B023 - awaited here
            assert bool(never) == (now + 18 * (at - 1) > now + FETCH_S_LONGEST)
            link._feeds.fetches.expire(now + 18 * at)
        assert never == ["nothing of it came within 20 s"]


async def test_with_the_session_goes_what_came_over_it() -> None:
    origin, pop = Origin(), Pop()
    origin.withheld = []
    results: Results = []
    async with origin.serving(), pop.linked(origin) as link:
        await until(lambda: link.is_up(PriorityClass.BASIC))
        for msn in range(20):  # Those that still wait for their turn, too.
            link.fetch_segment(PriorityClass.BASIC, key(msn), results.append)
        await until(lambda: origin.asked)
        link._sessions[PriorityClass.BASIC].connection.abort("cut")
        await until(lambda: len(results) == 20)
        assert set(results) == {"the way to the origin was lost"}
        assert not link.fetch_segment(PriorityClass.BASIC, key(), results.append), "no way now"
        await until(lambda: link.is_up(PriorityClass.BASIC))
        origin.withheld.pop()(BODY)  # Nobody waits for it any more.


@pytest.mark.parametrize(
    ("payload_bytes", "sent", "result"),
    [
        (100, 100, bytes(100)),
        (100, 99, "broken off"),
        (100, 0, "broken off"),
        (0, 1, "it has 0 bytes, allowed are 1 to 67108864"),
        (2**26 + 1, 1, "it has 67108865 bytes, allowed are 1 to 67108864"),
        (100, 101, "the way to the origin was lost"),
    ],
)
async def test_an_origin_that_gives_other_than_it_said(
    payload_bytes: int, sent: int, result: bytes | str
) -> None:
    script, pop = Scripted(), Pop()
    async with (
        raw_origin(script.act, features=FEATURES) as address,
        pop.linked(at(address)) as link,
    ):
        await until(lambda: link.is_up(PriorityClass.BASIC))
        results: Results = []
        link.fetch_segment(PriorityClass.BASIC, key(), results.append)
        await until(lambda: script.heard(SegmentWanted))
        give(script, 1, payload_bytes, sent)
        await until(lambda: results)
        assert results == [result]


async def test_answers_that_nobody_waits_for() -> None:
    script, pop = Scripted(), Pop()
    async with raw_origin(script.act) as address, pop.linked(at(address)) as link:
        await until(lambda: link.is_up(PriorityClass.BASIC))
        await until(lambda: PriorityClass.BASIC in script.peers)
        script.basic.link.send(SegmentRefused(77, "gone", "?"))
        give(script, 78, 100, 100)
        await until(lambda: script.heard(StreamRefused))
        assert link.is_up(PriorityClass.BASIC)


def give(script: Scripted, fetch_no: int, payload_bytes: int, sent: int) -> None:
    """The origin says that a segment is so long, and sends so much."""
    media = script.basic.link
    stream_no = media.sender.reserve()
    media.send(SegmentOpened(stream_no, fetch_no, payload_bytes))
    media.sender.open_segment(stream_no, [bytes(sent)])
    out: list[bytes | memoryview] = []
    media.sender.fill(out, 2**20, 2**20)
    for chunk in out:
        media.send_encoded(bytes(chunk))


async def test_a_newer_pop_asks_an_older_origin_for_nothing() -> None:
    script, pop = Scripted(), Pop()
    async with raw_origin(script.act) as address, pop.linked(at(address)) as link:
        await until(lambda: link.is_up(PriorityClass.BASIC))
        results: Results = []
        assert link.fetch_segment(PriorityClass.BASIC, key(), results.append)
        link.subscribe_parts("alice", lambda *_: None)
        await until(lambda: script.heard(SubscribeParts))
        assert results == [GONE]
        assert not script.heard(SegmentWanted)
