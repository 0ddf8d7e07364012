"""A fetch on a path that it could fill: live parts that share the session go first."""

import pytest
import trio

from edged.media.stream import PriorityClass
from tests.backbone.network import Origin, Pop, until
from tests.backbone.test_feeds import at
from tests.backbone.test_segments_out import RUN, Results, key
from tests.e2e.proxy import Bottleneck, Weather, open_proxy
from tests.policy.window_events import init, part, rendition

pytestmark = [pytest.mark.e2e, pytest.mark.light]

PATH_BYTES_S = 5_000_000.0  # 40 Mbps.
LIVE_BYTES, LIVE_S = 20_000, 0.05  # 3.2 Mbps.
SEGMENTS, SEGMENT_BYTES = 6, 2_000_000  # 2.4 s of the path.
# What is ahead of a part at most: 128 KiB unsent and a piece, and what the relay has taken.
LATE_S_MAX = 0.1


async def test_live_parts_are_not_held_up_by_a_fetch() -> None:
    origin, pop = Origin(), Pop()
    origin.windows["alice"] = RUN, [rendition(), init()]
    body = [bytes(SEGMENT_BYTES // 10)] * 10
    origin.segments = {("v0", msn): body for msn in range(SEGMENTS)}
    late: list[float] = []
    weather = Weather(rtt_s=0.02, down=Bottleneck(PATH_BYTES_S))
    async with (
        origin.serving() as server,
        open_proxy(int(origin.address.rpartition(":")[2]), weather) as proxy,
        pop.linked(at(f"127.0.0.1:{proxy.port}")) as link,
    ):
        results: Results = []
        events: list[object] = []
        link.subscribe_parts("alice", lambda _, event: events.append(event))
        await until(lambda: len(events) == 2)
        for msn in range(SEGMENTS):
            assert link.fetch_segment(PriorityClass.BASIC, key(msn), results.append)
        index = 0
        while len(results) < SEGMENTS:
            events.clear()
            server.publish_event(RUN, part(0, index, payload=bytes(LIVE_BYTES)))
            sent_at = trio.current_time()
            await until(lambda: events)
            late.append(trio.current_time() - sent_at)
            index += 1
            await trio.sleep(LIVE_S)
    assert results == [b"".join(body)] * SEGMENTS
    print("live parts came after", *(f"{1000 * s:.0f}" for s in sorted(late)), "ms")
    assert sorted(late)[len(late) * 9 // 10] <= LATE_S_MAX, late
