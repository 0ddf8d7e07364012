"""A PoP that gets some rungs of a channel from its origin, over a socket."""

import pytest
import trio

from edged.backbone import feeds
from edged.media.parts import PackagedEvent, Part, SegmentsListed
from edged.media.stream import StreamId
from tests.backbone.network import Origin, Pop, until
from tests.policy.window_events import PARTS, ended, init, part, rendition, whole

pytestmark = pytest.mark.e2e

ALICE = StreamId("alice", 7, 1)
NAMES = ("v0", "v1", "a0")


class Here:
    """What has come."""

    def __init__(self) -> None:
        self.events: list[PackagedEvent] = []

    def take(self, _: StreamId, event: PackagedEvent) -> None:
        self.events.append(event)

    def parts(self, name: str) -> list[tuple[int, int]]:
        came = [e for e in self.events if isinstance(e, Part) and e.rendition == name]
        return [(event.msn, event.index) for event in came]

    def listed(self, name: str) -> list[int]:
        came = [e for e in self.events if isinstance(e, SegmentsListed) and e.rendition == name]
        return [segment.msn for event in came for segment in event.segments]


def begin(origin: Origin) -> list[PackagedEvent]:
    events: list[PackagedEvent] = []
    for name in NAMES:
        events += [rendition(name), init(name), *whole(1, name), part(2, 0, name)]
    origin.windows["alice"] = (ALICE, events)
    return events


async def test_the_rungs_that_are_wanted_come_and_of_the_others_what_is_whole() -> None:
    origin, pop, here = Origin(), Pop(), Here()
    events = begin(origin)
    async with origin.serving() as server, pop.linked(origin) as link:

        def publish(*more: PackagedEvent) -> None:
            for event in more:
                events.append(event)
                server.publish_event(ALICE, event)

        subscription = link.subscribe_parts("alice", here.take, rungs=("v1",))
        await until(lambda: here.parts("v1") == [*((1, n) for n in range(PARTS)), (2, 0)])
        assert here.listed("v0") == [1]
        assert here.parts("v0") == [(2, 0)], "what has begun"
        for name in NAMES:
            publish(*(part(2, index, name) for index in range(1, PARTS)), ended(2, name))
            publish(*whole(3, name), part(4, 0, name))
        await until(lambda: (4, 0) in here.parts("a0"))
        assert here.listed("v0") == [1, 3]
        assert here.parts("v0") == [(2, index) for index in range(PARTS)]
        assert len(here.parts("v1")) == len(here.parts("a0")) == 3 * PARTS + 1
        subscription.want_rungs(("v0",))
        await until(lambda: (4, 0) in here.parts("v0"))
        for name in NAMES:
            publish(part(4, 1, name), *(part(4, n, name) for n in range(2, PARTS)), ended(4, name))
            publish(part(5, 0, name))
        await until(lambda: (5, 0) in here.parts("v0"))
        await trio.sleep(0.05)
        assert here.listed("v1") == []
        assert (5, 0) not in here.parts("v1")
        assert here.parts("v1")[-1] == (4, PARTS - 1)
        subscription.want_rungs(None)
        await until(lambda: (5, 0) in here.parts("v1"))


async def test_after_a_reconnect_the_same_rungs_are_asked_for() -> None:
    origin, pop, here = Origin(), Pop(), Here()
    begin(origin)
    async with origin.serving() as server, pop.linked(origin) as link:
        link.subscribe_parts("alice", here.take, rungs=("v1",))
        await until(lambda: (2, 0) in here.parts("v1"))
        here.events.clear()
        for session in list(server._sessions):
            session.connection.abort("a test's")
        await until(lambda: (2, 0) in here.parts("v1"))
        assert here.listed("v0") == [1]
        assert here.parts("v0") == [(2, 0)]


async def test_who_does_not_know_of_rungs_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """All come then, as before."""
    monkeypatch.setattr(feeds, "FEATURE_RUNGS", "of another age")
    origin, pop, here = Origin(), Pop(), Here()
    begin(origin)
    async with origin.serving(), pop.linked(origin) as link:
        subscription = link.subscribe_parts("alice", here.take)
        await until(lambda: (2, 0) in here.parts("v0"))
        subscription.want_rungs(("v1",))
        await trio.sleep(0.05)
        assert link.is_up(subscription.priority)
